"""Which checks and nodes somebody wants. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

MOST_NODES = 3
"""Nodes that are used where nobody says which: pairs grow by the square."""


class UnknownCheckError(Exception):
    """No check has that name: take one of those that `enid verify --list` shows."""

    id = "VERIFY-CHECK"


@dataclass(frozen=True, slots=True)
class Nodes:
    """Which nodes: by their names, or so many at most."""

    names: tuple[str, ...] = ()
    most: int = MOST_NODES


def nodes(text: str) -> Nodes:
    """Return which nodes a text names: a number, or names with commas. Raises ValueError."""
    if text.isdigit():
        if not int(text):
            raise ValueError("no node is too few")
        return Nodes(most=int(text))
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError(f"'{text}' is neither a number nor names with commas between them")
    return Nodes(names=names)


def chosen(patterns: Sequence[str], names: Sequence[str], quick: Sequence[str]) -> tuple[str, ...]:
    """Return the names that *patterns* choose, in their order; *quick* without any.

    A whole name is chosen also where it is none of the quick ones. Raises UnknownCheckError.
    """
    if not patterns:
        return tuple(quick)
    wanted: set[str] = set()
    for pattern in patterns:
        found = {pattern} & set(names) or {n for n in quick if fnmatchcase(n, pattern)}
        if not found:
            near = get_close_matches(pattern, names, n=3) or ["enid verify --list shows all"]
            raise UnknownCheckError(f"no check has the name '{pattern}'; near: {', '.join(near)}")
        wanted |= found
    return tuple(name for name in names if name in wanted)
