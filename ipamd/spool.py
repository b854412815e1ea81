"""DELs that came while the daemon was away. Shell.

The plugin writes one file a DEL, `<container id>.<ifname>.<started_ns>`, holding the frame
that it could not send. The daemon listens first, drains, and drains once more after a
second: whoever wrote before it listened is seen by a drain, whoever came later connected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from cni.frame import Frame, FrameError, FrameReader

log = logging.getLogger(__name__)


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


def drain(folder: Path, first: int) -> Iterator[SpooledCall]:
    """Yield what is in *folder*, in the order in which the plugins started.

    A file that is not a whole frame stays, renamed to `.unreadable`, for a person to see.
    """
    files = [p for p in folder.iterdir() if p.suffix.lstrip(".").isdigit()]
    for number, path in enumerate(sorted(files, key=lambda p: (int(p.suffix[1:]), p.name)), first):
        try:
            frame = FrameReader().feed(path.read_bytes())
        except FrameError as error:
            frame, reason = None, str(error)
        else:
            reason = "the frame is incomplete"
        if frame is None:
            log.error("spool file unreadable", extra={"file": path.name, "reason": reason})
            path.rename(path.with_name(path.name + ".unreadable"))
        else:
            yield SpooledCall(number, path, frame)
