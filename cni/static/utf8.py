"""Frozen as `encodings`: the name of UTF-8, and no other codec. Shell.

Starting Python asks for the codec of its files' names and of its standard streams, and then
encodes UTF-8 in C. The library's `encodings` would bring `codecs`, 300 aliases and classes.
"""

from _codecs import register


class Codec(tuple):  # type: ignore[type-arg]  # of nothing
    """A codec as CPython wants it: four things, none of which it uses, and a name."""

    __slots__ = ()
    name = "utf-8"


UTF_8 = Codec([None] * 4)


def search(name: str) -> Codec | None:
    """Return the codec of a *name*, as `_codecs` spells it."""
    return UTF_8 if name in {"utf_8", "utf-8", "utf8"} else None


register(search)  # type: ignore[arg-type]  # it takes any such tuple
