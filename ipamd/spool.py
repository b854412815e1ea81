"""DELs that came while the daemon was away. Shell.

The plugin writes one file a DEL, `<container id>.<ifname>.<started_ns>`, holding the frame
that it could not send. The daemon listens first, drains, and drains once more after a
second: whoever wrote before it listened is seen by a drain, whoever came later connected.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cni.frame import MAX_FRAME_BYTES, Frame, FrameError, FrameReader

log = logging.getLogger(__name__)

DRAFT_SECONDS = 120.0
"""A draft that is older is nobody's: a plugin lives for 110 s."""

_NAME = re.compile(r"[^.].*\.[0-9]{1,19}", re.DOTALL)


class SpooledCall:
    """A frame from a file; the file goes when the DEL is done."""

    descriptors: tuple[int, ...] = ()

    def __init__(self, number: int, path: Path, frame: Frame) -> None:
        self.id = -number  # a connection's is positive
        self.frame = frame
        self.on_gone: Callable[[], None] = lambda: None
        self._path = path

    def is_gone(self) -> bool:
        """A file does not hang up."""
        return False

    def reply(self, code: int, stdout: bytes) -> None:
        """Remove the file; a DEL that was refused is logged, and would be refused again."""
        if code:
            log.warning(
                "spooled DEL refused",
                extra={"file": self._path.name, "reason": stdout.decode(errors="replace")},
            )
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """There is nothing to close."""


def drain(folder: Path, first: int, wall_seconds: float) -> Iterator[SpooledCall]:
    """Yield what is in *folder*, in the order in which the plugins started.

    What is not a whole frame stays, renamed to `.unreadable`, for a person to see. Nothing that
    lies there may end the daemon: it would at each start.
    """
    _sweep(folder, wall_seconds)
    files = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    in_order = sorted(files, key=lambda path: (int(path.suffix[1:]), path.name))
    for number, path in enumerate(in_order, first):
        try:
            frame = _read(path)
        except FrameError as error:
            log.error(  # noqa: TRY400 - the sentence says it all
                "spool file unreadable", extra={"file": path.name, "reason": str(error)}
            )
            with contextlib.suppress(OSError):
                path.rename(path.with_name(path.name + ".unreadable"))
        else:
            yield SpooledCall(number, path, frame)


def _sweep(folder: Path, wall_seconds: float) -> None:
    """Remove drafts whose plugin was killed while it wrote: they would fill the spool."""
    for draft in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if wall_seconds - draft.lstat().st_mtime > DRAFT_SECONDS:
                draft.unlink()


def _read(path: Path) -> Frame:
    """Return the frame in a file. Raises FrameError."""
    try:
        # A FIFO must not be waited for, and a link may lead anywhere.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FrameError("it is no file")
            frame = FrameReader().feed(file.read(2 * MAX_FRAME_BYTES))
    except OSError as error:
        raise FrameError(str(error)) from error
    if frame is None:
        raise FrameError("the frame is incomplete")
    return frame
