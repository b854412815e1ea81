"""One check: what it proves, what a failure means, and what came of it. Shell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from vpclab.cluster.api import ApiError

T = TypeVar("T")


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
class Check(Generic[T]):
    """One fact about a cluster; *look* returns the evidence."""

    name: str
    proves: str
    means: str
    """What a failure means, and where to look next."""

    look: Callable[[T], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check."""

    name: str
    proves: str
    state: State
    said: str
    """The evidence; of a failure what was seen, and what that means."""

    seconds: float


def run(check: Check[T], ground: T) -> Outcome:
    """Return what comes of a check; no failure of it leaves here."""
    began = time.monotonic()
    try:
        state, said = State.OK, check.look(ground)
    except NotApplicableError as error:
        state, said = State.SKIPPED, str(error)
    except (FailedError, ApiError) as error:
        state, said = State.FAILED, f"{error} -- {check.means}"
    return Outcome(check.name, check.proves, state, said, time.monotonic() - began)


def run_all(checks: Sequence[Check[T]], ground: T) -> Iterator[Outcome]:
    """Yield what comes of each check, as it comes."""
    for check in checks:
        yield run(check, ground)


def require(fact: object, otherwise: str) -> None:
    """Raise FailedError, with what was seen, where *fact* is not so."""
    if not fact:
        raise FailedError(otherwise)
