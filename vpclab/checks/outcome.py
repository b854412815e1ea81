"""What came of checks. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FailedError(Exception):
    """What a check proves is not so; the text is what was seen instead."""

    id = "CHECK-FAILED"


class NotApplicableError(Exception):
    """There is nothing here that the check could look at; the text says what is not there."""

    id = "CHECK-NONE"


class State(StrEnum):
    """What came of a check."""

    OK = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check."""

    name: str
    proves: str
    state: State
    said: str
    """The evidence; of a failure what was seen, and what that means."""

    seconds: float
    topic: str = ""
    """The group that the check is of."""


def require(fact: object, otherwise: str) -> None:
    """Raise FailedError, with what was seen, where *fact* is not so."""
    if not fact:
        raise FailedError(otherwise)


def sentence(outcomes: Iterable[Outcome]) -> str:
    """Return how many checks came to what."""
    states = [one.state for one in outcomes]
    counts = [f"{states.count(state)} {state}" for state in State if states.count(state)]
    return ", ".join(counts) or "no check ran"
