"""What clusters ask on the internet: checkip.amazonaws.com, by its name. Shell.

The internet's host says which address it sees, by HTTP, and is the resolver that knows its name.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vpclab.fabric import INTERNET

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC

NAME = "checkip.amazonaws.com"
RESOLVERS = {"amazonaws.com": str(INTERNET)}
"""Who knows which zone."""

ANSWER_SECONDS = 5.0
MOST = 4096
HEAD = struct.Struct("!HHHHHH")
REPLY, NO_SUCH_NAME = 0x8580, 3
"""RFC 1035: an authoritative reply, and the code for a name that is not there."""


@contextlib.contextmanager
def answering(vpc: EmbeddedVPC) -> Iterator[None]:
    """Have the internet's host answer: HTTP at port 80, DNS at port 53."""
    with (
        vpc.internet.socket(socket.AF_INET, socket.SOCK_STREAM) as web,
        vpc.internet.socket(socket.AF_INET, socket.SOCK_DGRAM) as names,
        contextlib.ExitStack() as exits,
    ):
        web.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for door, port, serve in ((web, 80, _tell), (names, 53, _resolve)):
            door.bind((str(INTERNET), port))
            exits.enter_context(_served(door, serve))
        yield


@contextlib.contextmanager
def _served(door: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serve one after the other until the block ends."""
    if door.type == socket.SOCK_STREAM:
        door.listen(64)
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                serve(door)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(
            OSError
        ):  # a datagrams' socket is not connected, and shut all the same
            door.shutdown(socket.SHUT_RDWR)
        thread.join()


def _tell(door: socket.socket) -> None:
    sock, (address, _) = door.accept()
    with sock:
        sock.settimeout(ANSWER_SECONDS)
        sock.recv(MOST)
        body = f"{address}\n"
        sock.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


def _resolve(door: socket.socket) -> None:
    query, who = door.recvfrom(MOST)
    if len(query) > HEAD.size:
        door.sendto(reply_to(query), who)


def reply_to(query: bytes) -> bytes:
    """Return the reply to a query of DNS."""
    end = query.index(b"\0", HEAD.size) + 5
    question = query[HEAD.size : end]
    labels = b"".join(bytes([len(one)]) + one.encode() for one in NAME.split("."))
    known = question[:-4].lower() == labels + b"\0"
    found = known and question[-4:] == struct.pack("!HH", 1, 1)
    code = REPLY if known else REPLY | NO_SUCH_NAME
    (number,) = struct.unpack_from("!H", query)
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + INTERNET.packed
    return HEAD.pack(number, code, 1, int(found), 0, 0) + question + (record if found else b"")
