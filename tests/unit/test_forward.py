"""Connections that are led on to another place."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from vpclab.cluster.forward import forwarding

LARGE = b"x" * 300_000


@pytest.fixture
def door() -> Iterator[tuple[str, int]]:
    """Where a server answers, by way of another address, with all that it has read to the end."""

    def serve() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            with sock, sock.makefile("rb") as stream:
                sock.sendall(stream.read().upper())

    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with forwarding(listener, lambda: socket.create_connection(server.getsockname())):
            yield listener.getsockname()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def ask(where: tuple[str, int], said: bytes) -> bytes:
    with socket.create_connection(where, timeout=20) as sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize("said", [b"hello", b"", LARGE], ids=["short", "empty", "large"])
def test_what_is_said_is_passed_on_and_so_is_its_end(door: tuple[str, int], said: bytes) -> None:
    assert ask(door, said) == said.upper()


def test_where_nobody_answers_the_connection_ends() -> None:
    def nobody() -> socket.socket:
        raise ConnectionRefusedError

    with closing(socket.create_server(("127.0.0.1", 0))) as listener, forwarding(listener, nobody):
        assert ask(listener.getsockname(), b"") == b""
