"""Frozen as `io`: what starting Python opens its standard streams with. Shell.

The library's `io` adds abstract base classes, which cost more than the streams.
"""

from _io import TextIOWrapper, open, text_encoding  # noqa: A004 - as `io` names it

__all__ = ["TextIOWrapper", "open", "text_encoding"]
