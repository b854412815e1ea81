"""One TCP conversation between two places, and what each saw of the other."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Protocol

from tests.lab.patience import PATIENCE

WAIT_SECONDS = 0.4 * PATIENCE


class Place(Protocol):
    """Where a socket can be: a node, a pod, the internet."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket: ...


def talk(
    client: Place,
    server: Place,
    to: object,
    port: int = 80,
    source: object = None,
    *,
    at: object = None,
) -> str | None:
    """Connect from *client* to *to*, where *server* listens at *at*, or at *to*.

    Return the address that the server saw, None if nothing came.
    """
    family = socket.AF_INET6 if ip_address(str(to)).version == 6 else socket.AF_INET
    with (
        server.socket(family, socket.SOCK_STREAM) as ear,
        client.socket(family, socket.SOCK_STREAM) as mouth,
    ):
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind((str(at or to), port))
        ear.listen()
        ear.settimeout(WAIT_SECONDS)
        mouth.settimeout(WAIT_SECONDS)
        if source is not None:
            mouth.bind((str(source), 0))
        try:
            mouth.connect((str(to), port))
            connection, peer = ear.accept()
        except OSError:
            return None
        with connection:
            connection.settimeout(5 * PATIENCE)
            mouth.sendall(b"hello")
            assert connection.recv(5) == b"hello"
            connection.sendall(b"there")
            assert mouth.recv(5) == b"there"
        return str(peer[0])
