"""A lab that outlives its terminal, from outside: start it, ask it, step into it. Shell.

A running lab is one process in a box of its own. It listens on a unix socket in a folder that
only its owner can enter; the kernel tells who listens there, and by that process's namespaces
anyone of the same rights can step in. EC2 answers on this machine's loopback, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from vpclab import box, cgroups

EXTRA = ("moto", "flask", "flask_cors", "pyroute2")
"""What the lab needs beyond the daemon."""

START_SECONDS = 60.0
CLUSTER_SECONDS = 180.0
"""How long a lab may take to start whose nodes are a cluster."""

DOWN_SECONDS = 20.0


class LabError(Exception):
    """What the lab says no with; the text is one sentence."""

    id: ClassVar[str]


class RefusedError(LabError):
    """The running lab cannot do what was asked: its text names what it can."""

    id = "LAB-CANNOT"


class ExtraMissingError(LabError):
    """Python packages that only the lab needs are not installed: pip install 'enid[lab]'."""

    id = "LAB-MISSING"


class SvgError(LabError):
    """The demo's picture cannot be written: name a folder that is there and writable."""

    id = "LAB-SVG"


class NoLabError(LabError):
    """There is no running lab of this name: start one with `enid lab up`."""

    id = "LAB-NONE"


class StartLabError(LabError):
    """The lab did not start: its text says what EC2 or the kernel refused."""

    id = "LAB-START"


class HomeError(LabError):
    """The folder that holds the labs' sockets is not there or not safe: set ENID_LAB_HOME."""

    id = "LAB-HOME"


def require_extra() -> None:
    """Raise ExtraMissingError if what only the lab needs is not installed."""
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise ExtraMissingError(f"the lab needs {', '.join(missing)}: pip install 'enid[lab]'")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a lab begins with."""

    nodes: int = 2
    instance_type: str = "m5.large"
    cidr: str = "10.0.0.0/16"
    region: str = "us-east-1"
    ipv6: bool = False
    private: bool = False
    arbitrary_names: bool = False
    cluster: bool = False
    """Whether its nodes are a Kubernetes cluster."""

    cgroup: str = ""
    """What the names of its cgroups begin with; `RunningLab` knows it."""

    policies: tuple[str, ...] = ()
    """What nodes may do, as IAM policies in JSON; without one, everything."""

    @property
    def seconds(self) -> float:
        """How long it may take until the lab is up."""
        return CLUSTER_SECONDS if self.cluster else START_SECONDS


class RunningLab:
    """The lab of one name, whether it runs or not."""

    def __init__(self, name: str, home: Path | None = None) -> None:
        self.name = name
        self.folder = (home or _home()) / name
        self._socket = self.folder / "control"

    @property
    def log(self) -> Path:
        """What it has printed."""
        return self.folder / "log"

    @property
    def _cgroup(self) -> str:
        """What the names of its cgroups begin with: another home's lab has others."""
        return f"enid-lab-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]}"

    @property
    def kubeconfig(self) -> Path:
        """Its cluster's administrator's, where it has a cluster."""
        return self.folder / "kubeconfig"

    # Its life ----------------------------------------------------------------------------
    def start(self, plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Mapping[str, Any]:
        """Start it, and return what it shows; *tell* hears what it is doing.

        Whatever ends the start, Ctrl-C too, leaves no process and no folder. Raises StartLabError,
        BoxError.
        """
        with contextlib.ExitStack() as undo:
            process = self._spawn(replace(plan, cgroup=self._cgroup), undo)
            undo.callback(_kill, process)
            seen = self._until_ready(process, tell, plan.seconds)
            if plan.cluster:
                self.kubeconfig.touch(0o600)
                self.kubeconfig.write_text(self.ask("kubeconfig")["text"])
            undo.pop_all()
            return seen

    def _spawn(self, plan: Plan, undo: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as exits:
            control = exits.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            with _locked(self.folder.parent):  # of two at once, the second finds the first
                if self.pid is not None:
                    raise StartLabError(
                        f"the lab '{self.name}' is running: enid lab down, or --name OTHER"
                    )
                self._remove()
                undo.callback(self._remove)
                try:
                    self.folder.mkdir()
                    control.bind(str(self._socket))
                except OSError as error:
                    why = error.strerror or error  # a path too long is not the kernel's word
                    raise HomeError(
                        f"{self._socket} cannot be made ({why}); set ENID_LAB_HOME to another"
                    ) from None
                control.listen(16)
            doors = [exits.enter_context(_door()) for _ in ("EC2", "the API server")]
            log = exits.enter_context(self.log.open("wb"))
            fds = control.fileno(), *(door.fileno() for door in doors)
            return box.spawn(
                [sys.executable, "-m", "vpclab.server", *map(str, fds), json.dumps(asdict(plan))],
                pass_fds=fds,
                log=log,
            )

    def _until_ready(
        self, process: subprocess.Popen[bytes], tell: Callable[[str], None], seconds: float
    ) -> Mapping[str, Any]:
        deadline, last = time.monotonic() + seconds, ""
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(LabError):
                state = self.ask("state")
                if state["ready"]:
                    return self.ask("ls")
                if state["doing"] != last:
                    last = state["doing"]
                    tell(last)
            time.sleep(0.02)
        if process.poll() is None:
            raise StartLabError(f"it did not start in {seconds:.0f} s; it was {last}")
        raise StartLabError(self._last_words() or f"it ended with status {process.wait()}")

    def _last_words(self) -> str:
        """Return what it said last; a log that holds more than a sentence is kept."""
        text = self.log.read_text(errors="replace").strip()
        if "\n" not in text:
            return text
        kept = self.folder.with_suffix(".log")
        self.log.replace(kept)
        return f"{text.splitlines()[-1]}; all that it said is in {kept}"

    def _remove(self) -> None:
        """Remove its folder, and what a cluster that was killed has left in the kernel."""
        shutil.rmtree(self.folder, ignore_errors=True)
        cgroups.remove(f"{self._cgroup}-*")

    def stop(self) -> None:
        """Stop it; what it was goes with its namespaces. Raises NoLabError, LabError.

        Of one that was killed, what is left of its folder goes.
        """
        with contextlib.suppress(LabError):
            self.ask("state")  # until the lab answers, the process that listens is its starter
        processes = _box_of(self.pid)
        try:
            self.ask("down")
        except NoLabError:
            _wait_for_end(processes)
            with _locked(self.folder.parent):
                if self.pid is None:
                    self._remove()
            raise
        _wait_for_end(processes)
        self._remove()

    # Its doors ---------------------------------------------------------------------------
    def ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        """Return its answer. Raises NoLabError if nobody answers, LabError if it refuses."""
        try:
            with self._connect() as sock, sock.makefile("rw") as stream:
                stream.write(json.dumps({"do": do, **parameters}) + "\n")
                stream.flush()
                line = stream.readline()
        except OSError:
            line = ""
        if not line:
            others = running(self.folder.parent)
            instead = f"; {', '.join(others)} is, see --name" if others else ": enid lab up"
            raise NoLabError(f"no lab '{self.name}' is running{instead}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(START_SECONDS)
            sock.connect(str(self._socket))
        except OSError:
            sock.close()
            raise
        return sock

    @property
    def pid(self) -> int | None:
        """The process that listens, as this pid namespace knows it; None: the lab does not run."""
        try:
            with self._connect() as sock:
                data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return None
        pid: int = struct.unpack("iII", data)[0]
        return pid

    def entry(self, node: str) -> tuple[list[str], dict[str, str]]:
        """Return the words that run a command on *node*, and its environment.

        Raises NoLabError, LabError for a node that is not there.
        """
        inside, pid = self.ask("enter", node=node), self.pid
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        into_box = ["nsenter", f"--target={pid}", *user, "--net", "--mount", "--pid", "--ipc", "--"]
        return [*into_box, *inside["entry"]], inside["env"]


def _door() -> socket.socket:
    """Return what listens on this machine's loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def running(home: Path | None = None) -> list[str]:
    """Return the names of this user's labs that run."""
    home = home or _home()
    names = sorted(path.parent.name for path in home.glob("*/control"))
    return [name for name in names if RunningLab(name, home).pid is not None]


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _fate(pid: int) -> tuple[str, int]:
    """Return a process's state and its parent; X and none if it is not there."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return state, int(parent)


def _box_of(pid: int | None) -> list[int]:
    """Return a lab's process, the shell that is its box's first, and what holds the box."""
    pids = [pid or 0]
    while pids[-1] and len(pids) < 3:  # noqa: PLR2004 - the three above
        pids.append(_fate(pids[-1])[1])
    return [pid for pid in pids if pid > 1]


def _wait_for_end(pids: list[int]) -> None:
    """Wait until processes have ended, zombies too. Raises RefusedError if they do not."""
    deadline = time.monotonic() + DOWN_SECONDS
    while left := [pid for pid in pids if _fate(pid)[0] not in "ZX"]:
        if time.monotonic() > deadline:
            raise RefusedError(f"the lab did not end in {DOWN_SECONDS:.0f} s: process {left[0]}")
        time.sleep(0.02)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time make or remove labs in *folder*."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _home() -> Path:
    """Return the folder of this user's labs, which nobody else can enter.

    It is not below /run: a box has a /run of its own. Raises HomeError.
    """
    named = os.environ.get("ENID_LAB_HOME")
    home = Path(named) if named else Path(tempfile.gettempdir(), f"enid-lab-{os.geteuid()}")
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = home.lstat()
    except OSError as error:
        raise HomeError(
            f"{home} cannot be the labs' folder ({error.strerror}); set ENID_LAB_HOME to another"
        ) from None
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077 or home.is_symlink():
        raise HomeError(
            f"{home} is not yours alone, and whoever can enter it rules the lab: remove it, or set"
            " ENID_LAB_HOME to another"
        )
    return home.absolute()
