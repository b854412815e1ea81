"""A real daemon, fuzzed on its socket: frames whole and torn, descriptors, clients that vanish. Shell.

Whatever comes, the daemon answers the next one, keeps no descriptor that came, writes no
traceback, and has no lease in the end that a DEL does not end.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cni.frame import Frame, encode
from tests.fuzz.execs import CALM, must
from tests.fuzz.inputs import SPOKEN, STDIN, environments, torn

PATIENCE_SECONDS = 5.0
EARLY_NS = 5_000_000_000
"""An ADD is answered so long before its deadline: what has no address hears so at once."""


class Sent(StrEnum):
    """What a descriptor is."""

    POD = "a pod's namespace"
    NETLINK = "a netlink socket in it"
    NODE = "the node's own namespace"
    OURS = "a netlink socket elsewhere"
    MOUNTS = "a mount namespace"
    FILE = "a file"
    FOLDER = "a folder"
    PIPE = "a pipe"
    SOCKET = "a socket"


DESCRIPTORS = st.just([Sent.POD, Sent.NETLINK]) | st.lists(st.sampled_from(Sent), max_size=10)


@dataclass(frozen=True)
class Shot:
    """What one client does: *pieces* are sent one by one; None *waits* is a client that vanishes."""

    pieces: Sequence[bytes]
    descriptors: Sequence[Sent]
    waits: bool


@st.composite
def shots(draw: st.DrawFn) -> Shot:
    """Draw a client."""
    stdin = draw(st.just(json.dumps(SPOKEN).encode()) | STDIN)
    env, now = draw(environments()), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    whole = encode(Frame(env, stdin, now, now + EARLY_NS + 50_000_000))
    data = draw(st.just(whole) | st.just(whole) | torn(st.just(whole)) | st.binary(max_size=200))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return Shot(
        [p for p in pieces if p],
        draw(DESCRIPTORS),
        draw(st.sampled_from([True, True, True, False])),
    )


@dataclass
class Target:
    """A daemon, and what its clients have: *pod* is a namespace and *netlink* a socket in it."""

    path: str
    pid: int
    pod: int
    netlink: int
    counts: Counter[str] = field(default_factory=Counter)

    def fuzz(self, runs: int) -> Counter[str]:
        """Send so many; return how they were answered."""

        @settings(CALM, max_examples=runs)
        @given(shots())
        def one(shot: Shot) -> None:
            self.counts[self.judge(shot)] += 1

        one()
        return self.counts

    def open_descriptors(self) -> Counter[str]:
        """Return what the daemon has open, but its connections to others."""
        return Counter(
            file if file.startswith("/") else file.partition(":")[0]
            for file in self._files()
            if self._may_have_come(file)
        )

    def _files(self) -> Iterator[str]:
        """Yield what each descriptor of the daemon is; it may close some meanwhile."""
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                yield str(path.readlink())

    def _may_have_come(self, file: str) -> bool:
        if not file.startswith("socket:["):
            return file.startswith(("net:", "pipe:", "/proc"))
        tables = Path(f"/proc/{self.pid}/net/unix"), Path(f"/proc/{self.pid}/net/netlink")
        return any(f" {file[8:-1]}" in path.read_text() for path in tables)

    @contextmanager
    def opened(self, wanted: Sequence[Sent]) -> Iterator[list[int]]:
        """Have descriptors of these kinds open."""
        opened = [OPENERS[kind](self) for kind in wanted]
        try:
            yield opened
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def judge(self, shot: Shot) -> str:
        """Be one client; return how it was answered."""
        with socket.socket(socket.AF_UNIX) as sock, self.opened(shot.descriptors) as descriptors:
            sock.settimeout(PATIENCE_SECONDS)
            sock.connect(self.path)
            try:
                for number, piece in enumerate(shot.pieces):
                    if number:
                        sock.sendall(piece)
                    else:
                        socket.send_fds(sock, [piece], descriptors)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it was refused before it had said all: the answer is there
            return self._answer(sock) if shot.waits else "vanished"

    @staticmethod
    def _answer(sock: socket.socket) -> str:
        sock.settimeout(0.3)  # a frame that is not whole is waited for, and so it is left
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
        except TimeoutError:
            must(not answer, f"half an answer: {answer!r}")
            return "left before the answer"
        except ConnectionResetError:
            pass  # it refused before it had read all: what it said comes first
        if not answer:
            return "hung up on"
        must(answer[:1] in {b"0", b"1"}, f"not an answer: {answer!r}")
        said = json.loads(answer[1:]) if answer[1:] else {}
        if answer[:1] == b"0":
            return "done"
        must(said["msg"] and "\n" not in said["msg"], f"no sentence: {answer!r}")
        return f"refused with {said['code']}"


def _path(path: str) -> Callable[[Target], int]:
    return lambda target: os.open(path.format(target.pid), os.O_RDONLY | os.O_CLOEXEC)


def _pipe(_target: Target) -> int:
    mouth, ear = os.pipe()
    os.close(ear)
    return mouth


OPENERS: dict[Sent, Callable[[Target], int]] = {
    Sent.POD: lambda target: os.dup(target.pod),
    Sent.NETLINK: lambda target: os.dup(target.netlink),
    Sent.NODE: _path("/proc/{}/ns/net"),
    Sent.OURS: lambda _: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(),
    Sent.MOUNTS: _path("/proc/self/ns/mnt"),
    Sent.FILE: _path("/proc/self/status"),
    Sent.FOLDER: _path("/"),
    Sent.PIPE: _pipe,
    Sent.SOCKET: lambda _: socket.socket(socket.AF_UNIX).detach(),
}
