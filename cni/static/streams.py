"""Frozen as `io`: what starting Python makes its standard streams of. Shell.

The plugin reads and writes by descriptor. A stream is here for a traceback on stderr; the library's
`io` would bring twenty classes.
"""

from posix import write


class Stream:
    """One of the three."""

    def __init__(self, fd: int, *_: object) -> None:
        self.fd, self.raw = fd, self

    def isatty(self) -> bool:
        """Say no: it would make no difference."""
        return False

    def write(self, text: str) -> None:
        """Write *text*, or what the descriptor takes of it."""
        write(self.fd, text.encode("utf-8", "replace"))

    def flush(self) -> None:
        """Nothing is kept back."""


open = Stream  # noqa: A001 - as `io` names it


def TextIOWrapper(stream: Stream, *_: object) -> Stream:  # noqa: N802 - as `io` names it
    """Return a stream that takes text."""
    return stream
