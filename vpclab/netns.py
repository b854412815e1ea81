"""Network namespaces from Python, the safe way. Shell.

A thread enters a namespace once and lives there; what it opens (sockets, netlink) and what
it starts stays in that namespace whoever uses it afterwards. An `IPRoute` is the exception:
it opens a socket per thread, so it is used on its own thread only.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


class Worker:
    """One thread that lives in a network namespace; a new one where *descriptor* is None."""

    def __init__(self, name: str, descriptor: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self.fd = self.call(self._enter, descriptor)

    @staticmethod
    def _enter(descriptor: int | None) -> int:
        if descriptor is None:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
        else:
            _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *work* returns in the namespace."""
        return self._pool.submit(work, *args, **kwargs).result()

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives in the namespace."""
        return self.call(socket.socket, family, kind, protocol)

    def write_sysctls(self, settings: Mapping[str, str]) -> None:
        """Write sysctls of the namespace, by their dotted names."""
        self.call(_write, settings)

    def close(self) -> None:
        """Leave the namespace; it goes when its last user goes."""
        os.close(self.fd)
        self._pool.shutdown()


def _write(settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        Path("/proc/sys", name.replace(".", "/")).write_text(value)
