"""A lab that outlives its terminal, from outside: start it, ask it, step into it. Shell.

A running lab is one process in a box of its own. It listens on a unix socket in a folder that
only its owner can enter; the kernel tells who listens there, and by that process's namespaces
anyone of the same rights can step in. EC2 answers on this machine's loopback, too.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpclab import box

START_SECONDS = 60.0
DOWN_SECONDS = 20.0


class LabError(Exception):
    """The running lab cannot do what was asked: see its text."""

    id = "LAB-CANNOT"


class NoLabError(LabError):
    """There is no running lab of this name: start one with `enid lab up`."""

    id = "LAB-NONE"


class StartLabError(LabError):
    """The lab did not start: its text says what EC2 or the kernel refused."""

    id = "LAB-START"


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
    policy: str | None = None


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

    # Its life ----------------------------------------------------------------------------
    def start(self, plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Mapping[str, Any]:
        """Start it, and return what it shows; *tell* hears what it is doing.

        Raises StartLabError, BoxError.
        """
        if self._pid() is not None:
            raise StartLabError(f"the lab '{self.name}' is running: enid lab down, or --name OTHER")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with contextlib.ExitStack() as exits:
            control = exits.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            control.bind(str(self._socket))
            endpoint = exits.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            endpoint.bind(("127.0.0.1", 0))
            endpoint.listen(128)
            log = exits.enter_context(self.log.open("wb"))
            fds = control.fileno(), endpoint.fileno()
            process = box.spawn(
                [sys.executable, "-m", "vpclab.server", *map(str, fds), json.dumps(asdict(plan))],
                pass_fds=fds,
                log=log,
            )
        return self._until_ready(process, tell)

    def _until_ready(
        self, process: subprocess.Popen[bytes], tell: Callable[[str], None]
    ) -> Mapping[str, Any]:
        deadline, last = time.monotonic() + START_SECONDS, ""
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(LabError):
                state = self.ask("state")
                if state["ready"]:
                    return self.ask("ls")
                if state["doing"] != last:
                    last = state["doing"]
                    tell(last)
            time.sleep(0.02)
        process.kill()
        process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines()
        raise StartLabError(lines[-1] if lines else f"it did not start in {START_SECONDS:.0f} s")

    def stop(self) -> None:
        """Stop it; what it was goes with its namespaces. Raises NoLabError, LabError."""
        pid = self._pid()
        self.ask("down")
        deadline = time.monotonic() + DOWN_SECONDS
        while pid is not None and Path("/proc", str(pid)).exists():
            if time.monotonic() > deadline:
                raise LabError(f"it did not end in {DOWN_SECONDS:.0f} s; process {pid}")
            time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)

    # Its doors ---------------------------------------------------------------------------
    def ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        """Return its answer. Raises NoLabError if nobody answers, LabError if it refuses."""
        try:
            with self._connect() as sock, sock.makefile("rw") as stream:
                stream.write(json.dumps({"do": do, **parameters}) + "\n")
                stream.flush()
                answer: dict[str, Any] = json.loads(stream.readline() or "{}")
        except OSError:
            raise NoLabError(f"no lab '{self.name}' is running: enid lab up") from None
        if "error" in answer:
            raise LabError(answer["error"])
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

    def _pid(self) -> int | None:
        """Return the process that listens, as this pid namespace knows it."""
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
        inside, pid = self.ask("enter", node=node), self._pid()
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        into_box = ["nsenter", f"--target={pid}", *user, "--net", "--mount", "--pid", "--ipc", "--"]
        return [*into_box, *inside["entry"]], inside["env"]


def _home() -> Path:
    """Return the folder of this user's labs, which nobody else can enter.

    It is not below /run: a box has a /run of its own.
    """
    named = os.environ.get("ENID_LAB_HOME")
    home = Path(named) if named else Path(tempfile.gettempdir(), f"enid-lab-{os.geteuid()}")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = home.lstat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077 or home.is_symlink():
        raise LabError(f"{home} is not yours alone; remove it, or set ENID_LAB_HOME")
    return home
