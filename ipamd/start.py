"""Before the daemon lives: its folders, the node's lock, its files, and why it cannot. Shell."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ipamd.leases import Leases, LeasesError

log = logging.getLogger(__name__)

LOCK_SECONDS = 30.0
"""How long a second daemon waits for the first to go: a rolling update's overlap."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one node."""

    run: Path = Path("/run/enid")
    state: Path = Path("/var/lib/enid")

    @property
    def socket(self) -> Path:
        """Where the plugin and the CLI connect."""
        return self.run / "ipamd.sock"

    @property
    def heartbeat(self) -> Path:
        """What the plugin answers STATUS from."""
        return self.run / "heartbeat"


class StartError(Exception):
    """The daemon cannot run here; the text says what to change."""

    id: ClassVar[str] = "START"


class DaemonRunningError(StartError):
    """Another daemon holds the node's lock: stop it first; its pid is in the text."""

    id = "DAEMON-RUNNING"


class NodeUnfitError(StartError):
    """The kernel or a sysctl is not as pods need it: the text names each and its value."""

    id = "NODE-UNFIT"


class FolderError(StartError):
    """A folder of ours cannot be made: make it writable for root."""

    id = "FOLDER"


class PortTakenError(StartError):
    """Somebody else listens on the metrics port: stop them; the text names the port."""

    id = "PORT-TAKEN"


class StoppedError(StartError):
    """The daemon was told to stop while it waited for IMDS; nothing to do."""

    id = "STOPPED"


def make_folders(paths: Paths) -> None:
    """Make the folders, for root alone; kubelet may have made some, for everybody to look into.

    Raises StartError naming the one that cannot be.
    """
    for folder in (paths.run, paths.run / "spool", paths.state):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise FolderError(f"{folder} cannot be made: {error.strerror}") from error


def lock(paths: Paths, wait_seconds: float = LOCK_SECONDS) -> int:
    """Return the descriptor of the node's lock, held for life.

    Raises DaemonRunningError naming the holder's pid after *wait_seconds*.
    """
    descriptor = os.open(paths.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            if time.monotonic() > until:
                raise DaemonRunningError(
                    f"another ipamd (pid {holder}) holds {paths.run / 'lock'}; stop it first",
                ) from None
            log.warning("waiting for the other ipamd to stop", extra={"pid": holder})
            time.sleep(1)
        else:
            os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):  # /run is full; the pid is only told to the next
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor


def open_leases(paths: Paths) -> Leases:
    """Open the lease file; what it does not tell, the kernel's links do.

    A damaged one is set aside. Where none can be, /run being full, leases are in memory.
    """
    path = paths.run / "leases.db"
    try:
        return Leases(path)
    except LeasesError as error:
        if error.is_damaged:
            _set_aside(path, error)
    try:
        return Leases(path)
    except LeasesError as error:
        log.error("leases are in memory", extra={"reason": str(error)})  # noqa: TRY400 - the sentence says it all
        return Leases(path, in_memory=True)


def _set_aside(path: Path, error: LeasesError) -> None:
    aside = path.with_name(f"leases.db.unreadable-{int(time.time())}")
    path.rename(aside)
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    log.error(
        "lease file set aside, rebuilding from the kernel",
        extra={"reason": str(error), "kept_as": str(aside)},
    )
