"""What a node sees of the machine: mounts and a host name of its own. Shell.

By system calls on a thread that ends afterwards: a dozen mount programs took 30 ms of each node's
launch (docs/adr/0009). The thread must not live on, as what it imported later would be looked for
on the node.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS = 0x00020000, 0x04000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 0x1, 0x20, 0x1000, 0x4000
MS_PRIVATE, MS_SHARED = 1 << 18, 1 << 20
KEPT = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
"""Options of a mount that nobody may take off in a user namespace; statvfs has mount's numbers."""

_libc = ctypes.CDLL(None, use_errno=True)


def begin(folder: Path, name: str, init: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a node's *init*, which sleeps, in mount and UTS namespaces of its own.

    Its mounts are shared with what unshares from them: a netns that is removed must go in a
    daemon's mount namespace, too.
    """
    if _libc.unshare(CLONE_NEWNS | CLONE_NEWUTS):
        raise _error("unshare")
    _mount(None, Path("/"), MS_REC | MS_PRIVATE)
    for view in ("etc", "opt"):
        own = folder / view
        _mount(Path("/", view), own / ".host", MS_BIND | MS_REC)
        with contextlib.suppress(OSError):  # an ordinary user may not, of some mounts
            kept = os.statvfs(own / ".host").f_flag & KEPT
            _mount(None, own / ".host", MS_REMOUNT | MS_BIND | MS_RDONLY | kept)
        _mount(own, Path("/", view), MS_BIND | MS_REC)
    for part, point in (("lib", "/var/lib"), ("log", "/var/log"), ("run", "/run")):
        _mount(folder / part, Path(point), MS_BIND | MS_REC)
    _mount(None, Path("/"), MS_REC | MS_SHARED)
    socket.sethostname(name)
    # A session of its own: Ctrl-C is for what runs the VPC, which ends its nodes in order.
    return subprocess.Popen(init, start_new_session=True)


def _mount(source: Path | None, point: Path, flags: int) -> None:
    what = None if source is None else os.fsencode(source)
    if _libc.mount(what, os.fsencode(point), None, ctypes.c_ulong(flags), None):
        raise _error(str(point))


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
