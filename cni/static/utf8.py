"""Frozen as `encodings`: UTF-8 and no other. Shell.

Starting Python asks for the codec of its standard streams. The library's `encodings` would
bring `codecs`, 300 aliases and classes that nobody here asks for: a seventh of a start.
"""

from _codecs import register, utf_8_decode, utf_8_encode


class Encoder:
    """What a stream that is written needs."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors

    def encode(self, text: str, final: bool = False) -> bytes:  # noqa: ARG002, FBT001, FBT002 - io's
        """Return *text* as bytes."""
        return utf_8_encode(text, self.errors)[0]

    def reset(self) -> None:
        """Forget nothing: there is no state."""

    def setstate(self, state: int) -> None:
        """Take no state."""


class Decoder:
    """What a stream that is read needs."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors

    def decode(self, data: bytes, final: bool = False) -> str:  # noqa: ARG002, FBT001, FBT002 - io's
        """Return *data*, which is whole, as text."""
        return utf_8_decode(data, self.errors, True)[0]  # noqa: FBT003 - it takes no name


class Codec(tuple):  # type: ignore[type-arg]  # four of different kinds
    """A codec as CPython wants it: four functions, and classes as attributes."""

    __slots__ = ()
    name, incrementalencoder, incrementaldecoder = "utf-8", Encoder, Decoder


UTF_8 = Codec((utf_8_encode, utf_8_decode, None, None))


def search(name: str) -> Codec | None:
    """Return the codec of a *name*."""
    return UTF_8 if name in {"utf_8", "utf-8", "utf8"} else None


register(search)  # type: ignore[arg-type]  # it takes any such tuple
