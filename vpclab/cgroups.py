"""Cgroups of the lab's making, which outlive every namespace. Shell.

The kernel has one tree of them, in each of v1's hierarchies, whatever a box has of its own: who
makes one removes it, and what a killed lab has left is found by its name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
GONE_SECONDS = 30.0
"""How long the kernel may take to let go of processes that were killed."""

CPUSET = ("cpuset.cpus", "cpuset.mems")
"""What is empty in a new one of v1; and nothing runs where it is."""


def make(name: str) -> None:
    """Make a cgroup in each hierarchy, with all processors and memory."""
    for top in _hierarchies():
        made = top / name.lstrip("/")
        made.mkdir(exist_ok=True)
        for file in CPUSET:
            if (made / file).exists() and (top / file).exists():
                (made / file).write_text((top / file).read_text())


def _hierarchies() -> list[Path]:
    """Return where the hierarchies are; v2 has one, which is the root itself."""
    if (ROOT / "cgroup.procs").exists():
        return [ROOT]
    tops = [top for top in ROOT.glob("*") if (top / "cgroup.procs").exists()]
    return [top for top in tops if not top.is_symlink()]


def processes(name: str) -> list[int]:
    """Return the processes of a cgroup, and of those in it."""
    files = [folder / "cgroup.procs" for folder in _folders(name)]
    return sorted({int(pid) for file in files for pid in _lines(file)})


def remove(name: str) -> None:
    """Kill whatever is in a cgroup, and remove it; *name* may be a shell's pattern.

    Raises TimeoutError if the kernel does not let go of it.
    """
    folders = list(_folders(name))
    for folder in folders:
        for pid in _lines(folder / "cgroup.procs"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    end = time.monotonic() + GONE_SECONDS
    for folder in folders:
        while not _is_removed(folder):
            if time.monotonic() > end:
                raise TimeoutError(f"{folder} is not gone after {GONE_SECONDS:g} s")
            time.sleep(0.01)


def _folders(name: str) -> Iterator[Path]:
    """Yield a cgroup and what is in it, of each hierarchy, the deepest first."""
    for top in (one for root in _hierarchies() for one in root.glob(name.lstrip("/"))):
        yield from (Path(folder) for folder, _, _ in os.walk(top, topdown=False))


def _lines(file: Path) -> list[str]:
    with contextlib.suppress(OSError):  # the cgroup went meanwhile
        return file.read_text().split()
    return []


def _is_removed(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            folder.rmdir()
        except OSError:
            return False
    return True
