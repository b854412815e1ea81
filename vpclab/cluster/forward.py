"""A door into the VPC: connections to a listening socket are led on. Shell.

The API server is in a namespace of its own; who listens here is in the box's, or the machine's.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

CHUNK = 1 << 16


@contextlib.contextmanager
def forwarding(listener: socket.socket, connect: Callable[[], socket.socket]) -> Iterator[None]:
    """Lead each connection to *listener* on to where *connect* leads; until the block ends."""
    ended = threading.Event()
    listener.settimeout(0.2)
    thread = threading.Thread(target=_accept, args=(listener, connect, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _accept(
    listener: socket.socket, connect: Callable[[], socket.socket], ended: threading.Event
) -> None:
    while not ended.is_set():
        with contextlib.suppress(TimeoutError, OSError):
            inner, _ = listener.accept()
            threading.Thread(target=_lead, args=(inner, connect), daemon=True).start()


def _lead(near: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Lead one connection; where nobody answers, it ends, as it does where no server is."""
    with near, contextlib.suppress(OSError), connect() as far:
        for sock in (near, far):
            sock.settimeout(None)  # a watch may be silent
        back = threading.Thread(target=_pump, args=(far, near), daemon=True)
        back.start()
        _pump(near, far)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until it ends, and the end, too."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
