"""The plugin, fuzzed on its environment, its stdin and what comes back over its socket. Shell.

Each run is a fork that becomes the plugin: its own descriptors, its own environment, its `_exit`.
Whatever it is given, it ends by itself, prints one answer and nothing beside it, leaves files
nowhere but in the spool, and what it sends is a whole frame.
"""

from __future__ import annotations

import array
import json
import os
import posix
import re
import signal
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import none

from cni import plugin
from cni.frame import Frame, FrameReader
from tests.fuzz.inputs import ANSWERS, HEARTBEATS, STDIN, deadline_of, environments

CALM = settings(
    database=None, deadline=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip
"""How all fuzzing is done: runs are counted, and no example takes too long for us."""

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
HUNG_SECONDS = 20
"""When a fork is ended, and how long a verb may take whose configuration says nothing."""

NS = 1_000_000_000


class WrongError(AssertionError):
    """Something that must not be."""


def must(holds: object, sentence: str) -> None:
    """Raise *sentence* if something does not hold."""
    if not holds:
        raise WrongError(sentence)


class FakeDaemon:
    """Takes one frame a connection, and answers what it was told to, then `0`."""

    def __init__(self, path: Path) -> None:
        self.answers: list[bytes] = []
        self.frames: list[tuple[Frame, int]] = []
        """Each with how many descriptors came."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        reader, descriptors, frame = FrameReader(), array.array("i"), None
        while frame is None:
            data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(64))
            for _, _, payload in ancillary:
                descriptors.frombytes(payload)
            if not data:
                return
            frame = reader.feed(data)
        self.frames.append((frame, len(descriptors)))
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(self.answers.pop(0) if self.answers else b"0")

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a fork ended."""

    status: int
    stdout: bytes
    stderr: bytes


class Forks:
    """Plugins with a folder of their own instead of /run/enid."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.daemon = FakeDaemon(folder / "ipamd.sock")
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Forks:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self.daemon.close()

    def fuzz(self, runs: int) -> Counter[str]:
        """Run so many plugins; return how they ended. Raises WrongError with the smallest input."""

        @settings(CALM, max_examples=runs)
        @given(environments(), STDIN, none() | ANSWERS, HEARTBEATS)
        def one(
            env: dict[str, str], stdin: bytes, answer: bytes | None, heartbeat: bytes | None
        ) -> None:
            (self.folder / "heartbeat").unlink(missing_ok=True)
            if heartbeat is not None:
                (self.folder / "heartbeat").write_bytes(heartbeat)
            self.counts[self.judge(env, stdin, answer)] += 1

        one()
        return self.counts

    def judge(self, env: Mapping[str, str], stdin: bytes, answer: bytes | None) -> str:
        """Run one and judge it; return how it ended. *answer* None: there is no daemon."""
        self.daemon.frames.clear()
        self.daemon.answers[:] = [] if answer is None else [answer]
        found = self.run(env, stdin, is_there=answer is not None)
        must(not found.stderr, f"stderr: {found.stderr!r}")
        there = {path.name for path in self.folder.iterdir()}
        must(there <= OURS, f"files outside of the spool: {there - OURS}")
        spooled = list(self.spool.iterdir()) if self.spool.exists() else []
        for path in spooled:
            must(FrameReader().feed(path.read_bytes()), f"{path.name} is no whole frame")
            path.unlink()
        if self.daemon.frames:
            return self._asked(found, answer or b"")
        if spooled:
            must((found.status, found.stdout, len(spooled)) == (0, b"", 1), f"spooled, and {found}")
            return "spooled"
        return self._by_itself(found)

    def _asked(self, found: Outcome, answer: bytes) -> str:
        frame, descriptors = self.daemon.frames[0]
        must(descriptors in {0, 2}, f"{descriptors} descriptors were sent")
        for name in ("CNI_CONTAINERID", "CNI_IFNAME"):
            if frame.env["CNI_COMMAND"] != "GC":
                must(PLAIN.fullmatch(frame.env[name]), f"{name} {frame.env[name]!r} was sent")
        took = frame.deadline_ns - frame.started_ns
        with suppress(ValueError):
            wanted = deadline_of(frame.env["CNI_COMMAND"], frame.stdin, HUNG_SECONDS)
            must(wanted is not None, "a deadline that cannot be was sent")
            must(took == (wanted or 0) * NS, f"a deadline of {took} ns, not of {wanted} s")
        told = answer if answer[:1].isdigit() else b"0"
        must((found.status, found.stdout) == (told[0] - 48, told[1:]), f"{found} of {told!r}")
        return "answered"

    @staticmethod
    def _by_itself(found: Outcome) -> str:
        said = json.loads(found.stdout) if found.stdout else {}
        if found.status == 0:
            must(not said or said["supportedVersions"], f"{found} and no daemon")
            return "served" if said else "promised"
        must(found.status == 1, f"status {found.status}")
        must(type(said["code"]) is int and said["code"] > 0, f"code {said['code']!r}")
        must(said["msg"] and "\n" not in said["msg"], f"no sentence: {said['msg']!r}")
        must(isinstance(said["cniVersion"], str), "no version")
        return f"refused with {said['code']}"

    def run(
        self, env: Mapping[str, str], stdin: bytes, *, is_there: bool, comes: bool = False
    ) -> Outcome:
        """Run one plugin to its end. *comes*: the daemon listens once a DEL has been spooled."""
        given_fd = os.memfd_create("stdin")
        os.write(given_fd, stdin)
        os.lseek(given_fd, 0, os.SEEK_SET)
        (out, out_w), (err, err_w) = os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            self._become(env, (given_fd, out_w, err_w), is_there=is_there, comes=comes)
        for descriptor in (given_fd, out_w, err_w):
            os.close(descriptor)
        with os.fdopen(out, "rb") as stdout, os.fdopen(err, "rb") as stderr:
            said = stdout.read(), stderr.read()
        _, status = os.waitpid(pid, 0)
        must(not os.WIFSIGNALED(status), f"it was ended by signal {os.WTERMSIG(status)}")
        return Outcome(os.waitstatus_to_exitcode(status), *said)

    def _become(
        self,
        env: Mapping[str, str],
        descriptors: tuple[int, int, int],
        *,
        is_there: bool,
        comes: bool,
    ) -> None:
        """Be the plugin from now on."""
        for wanted, descriptor in enumerate(descriptors):
            os.dup2(descriptor, wanted)
        signal.alarm(HUNG_SECONDS)
        posix.environ.clear()  # what the plugin reads
        posix.environ.update({k.encode(): v.encode() for k, v in env.items()})
        folder = os.fsencode(self.folder)
        plugin.FOLDER, plugin.SPOOL = folder, folder + b"/spool"
        plugin.HEARTBEAT = folder + b"/heartbeat"
        plugin.SOCKET = folder + (b"/ipamd.sock" if is_there else b"/none.sock")
        plugin.DEADLINE_SECONDS = HUNG_SECONDS
        if not is_there:
            plugin.deadline_seconds = _in_no_time(plugin.deadline_seconds)  # type: ignore[assignment]  # of a fork
        if comes:
            plugin.spool = _then_listen(plugin.spool, folder + b"/ipamd.sock")  # type: ignore[assignment]  # of a fork
        try:
            plugin.main()
        except BaseException:  # noqa: BLE001 - a fork's top: nothing may be raised
            os.write(2, traceback.format_exc().encode())
        os._exit(97)  # nothing may return either


def _in_no_time(read: Callable[[bytes, bytes], int]) -> Callable[[bytes, bytes], int]:
    """Return *read* for whom nobody answers: what it refuses is refused, and nobody is waited for."""

    def reading(command: bytes, stdin: bytes) -> int:
        read(command, stdin)
        return 0

    return reading


def _then_listen(
    spool: Callable[[dict[bytes, bytes], int, bytes], bytes], path: bytes
) -> Callable[[dict[bytes, bytes], int, bytes], bytes]:
    def spooling(env: dict[bytes, bytes], started: int, frame: bytes) -> bytes:
        name = spool(env, started, frame)
        plugin.SOCKET = path
        return name

    return spooling


OURS = {"ipamd.sock", "heartbeat", "spool"}
