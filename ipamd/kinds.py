"""Kinds of settings: how a text becomes a value, and a value a text. Pure.

A kind's `read` raises ValueError with the end of a sentence that begins with the setting's
name and text: "is below 1 ENIs".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol

Value = bool | int | str | tuple[str, ...] | Mapping[str, str] | None
"""What a setting can be; None means "not set"."""


class Kind(Protocol):
    """One way to read a setting."""

    @property
    def range(self) -> str:
        """What is valid, in the words of the documentation."""

    def read(self, text: str) -> Value:
        """Return the value that *text* stands for. Raises ValueError; *text* is not empty."""


def shown(value: Value) -> str:
    """Return *value* as its variable would carry it; "" if it is not set."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(value)
        case Mapping():
            return json.dumps(dict(value), sort_keys=True) if value else "{}"
    return str(value)


BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
"""The words that the peer takes, which are those of Go's ParseBool."""


@dataclass(frozen=True, slots=True)
class Boolean:
    """On or off."""

    range: str = "true, false"

    def read(self, text: str) -> bool:
        """Return whether *text* says yes."""
        if text not in BOOLEANS:
            raise ValueError("is neither true nor false")
        return BOOLEANS[text]


@dataclass(frozen=True, slots=True)
class Whole:
    """A number of *unit*, from *least* to *most*; None is no end."""

    unit: str
    least: int = 0
    most: int | None = None

    @property
    def range(self) -> str:
        """The unit and its bounds."""
        if self.most is None:
            return f"{self.unit}, from {self.least}"
        return f"{self.unit}, {self.least} to {self.most}"

    def read(self, text: str) -> int:
        """Return the number."""
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
            raise ValueError(f"is not a whole number of {self.unit}")
        value = int(text)
        if value < self.least:
            raise ValueError(f"is below {self.least} {self.unit}")
        if self.most is not None and value > self.most:
            raise ValueError(f"is above {self.most} {self.unit}")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words, in whatever case."""

    words: tuple[str, ...]

    @property
    def range(self) -> str:
        """The words."""
        return ", ".join(self.words)

    def read(self, text: str) -> str:
        """Return the word as we write it."""
        for word in self.words:
            if word.lower() == text.lower():
                return word
        raise ValueError(f"is none of {self.range}")


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the form *pattern*, which *range* names."""

    range: str = "text"
    pattern: str = r".*"

    def read(self, text: str) -> str:
        """Return *text* as it is."""
        if not re.fullmatch(self.pattern, text, re.DOTALL | re.ASCII):
            raise ValueError(f"is not of the form: {self.range}")
        return text


@dataclass(frozen=True, slots=True)
class Bit:
    """One bit of a packet mark, with seven below it; decimal or 0x and hexadecimal digits."""

    range: str = "one bit of a mark, from 0x80 to 0x80000000"

    def read(self, text: str) -> str:
        """Return the bit in hexadecimal digits."""
        if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[1-9][0-9]{0,9}", text, re.ASCII):
            raise ValueError("is not a mark, as 128 or 0x80")
        bit = int(text, 0)
        if bit not in {1 << number for number in range(7, 32)}:
            raise ValueError(f"is not {self.range}: the seven bits below it are ours, too")
        return hex(bit)


URL = Text("http(s)://host[:port]", r"https?://[A-Za-z0-9.\-_\[\]:]+/?")
PATH = Text("an absolute path", r"/.*")
NODE_KEY = Text(
    "a label's key: [prefix/]name",
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
)
"""What Kubernetes takes as the key of a label or annotation."""
PREFIX = Text("1 to 4 letters, but not eth, lo or vlan", r"(?!(?:eth|lo|vlan)\Z)[A-Za-z]{1,4}")
CLUSTER = Text("letters, digits, - _ and .", r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A cluster's name: EKS', or another's, which may have dots."""


@dataclass(frozen=True, slots=True)
class Words:
    """Several words of the form *pattern*, with commas between; *range* names the form."""

    range: str
    pattern: str

    def read(self, text: str) -> tuple[str, ...]:
        """Return the words, each once, in the order in which they came."""
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        for word in words:
            if not re.fullmatch(self.pattern, word, re.ASCII):
                raise ValueError(f"has {word!r}, which is not of the form: {self.range}")
        return words


SUBNETS = Words("subnet-… with commas between", r"subnet-[0-9a-f]{8,17}")


@dataclass(frozen=True, slots=True)
class Cidrs:
    """Networks, with commas between, each once; bits beyond a prefix are cut off."""

    range: str = "CIDRs with commas between"

    def read(self, text: str) -> tuple[str, ...]:
        """Return the networks, as their own addresses name them."""
        words = (word.strip() for word in text.split(",") if word.strip())
        return tuple(dict.fromkeys(map(_network, words)))


def _network(word: str) -> str:
    try:
        return str(ip_network(word, strict=False))
    except ValueError:
        raise ValueError(f"has {word!r}, which is no CIDR") from None


OWN_TAGS = (
    "node.k8s.amazonaws.com/instance_id",
    "node.k8s.amazonaws.com/createdAt",
    "cluster.k8s.amazonaws.com/name",
    "eks:eni:owner",
    "enid.dev/intent",
)
"""The tags that we put on an ENI ourselves; who owns it hangs on them."""

MAX_TAGS = 50 - len(OWN_TAGS)
MAX_KEY, MAX_TAG_VALUE = 128, 256
"""EC2's limits: 50 tags on a resource, and the characters of a key and of a value."""


def is_reserved(key: str) -> bool:
    """Return whether a tag's *key* is not the operator's to set; the peer drops such ones, too."""
    return "k8s.amazonaws.com" in key or key in OWN_TAGS


@dataclass(frozen=True, slots=True)
class Tags:
    """EC2 tags as a JSON object of strings. Reserved keys are kept here, for the warning."""

    range: str = "a JSON object of strings"

    def read(self, text: str) -> Mapping[str, str]:
        """Return the tags."""
        try:
            tags = json.loads(text)
        except (ValueError, RecursionError):
            tags = None
        if not isinstance(tags, dict) or not all(isinstance(v, str) for v in tags.values()):
            raise ValueError(f"is not {self.range}")
        own = {key: value for key, value in tags.items() if not is_reserved(key)}
        if len(own) > MAX_TAGS:
            raise ValueError(
                f"has {len(own)} tags, and an ENI has room for {MAX_TAGS} beside the"
                f" {len(OWN_TAGS)} that are ours"
            )
        for key, value in own.items():
            _check_tag(key, value)
        return tags


def _check_tag(key: str, value: str) -> None:
    if not 1 <= len(key) <= MAX_KEY:
        raise ValueError(f"has a key of {len(key)} characters; EC2 takes 1 to {MAX_KEY}")
    if len(value) > MAX_TAG_VALUE:
        raise ValueError(
            f"gives {key!r} a value of {len(value)} characters; EC2 takes {MAX_TAG_VALUE}"
        )
    if key.lower().startswith("aws:"):
        raise ValueError(f"has the key {key!r}; those that begin with aws: are EC2's own")
