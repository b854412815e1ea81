"""One check: what it proves, what a failure means, and what came of it. Shell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vpclab.checks.outcome import FailedError, NotApplicableError, Outcome, State, require
from vpclab.cluster.api import ApiError

__all__ = [
    "Check", "FailedError", "NotApplicableError", "Outcome", "State", "require", "run", "run_all",
]  # fmt: skip

T = TypeVar("T")
DENIED = 403


@dataclass(frozen=True, slots=True)
class Check(Generic[T]):
    """One fact about a cluster; *look* returns the evidence."""

    name: str
    proves: str
    means: str
    """What a failure means, and where to look next."""

    look: Callable[[T], str]
    thorough: bool = False
    """Whether it takes longer than a quick round has time for."""

    @property
    def topic(self) -> str:
        """The group that it is of: the module of its *look*."""
        return self.look.__module__.rpartition(".")[2]


def run(check: Check[T], ground: T) -> Outcome:
    """Return what comes of a check; no failure of it leaves here."""
    began = time.monotonic()
    try:
        state, said = State.OK, check.look(ground)
    except NotApplicableError as error:
        state, said = State.SKIPPED, str(error)
    except FailedError as error:
        state, said = State.FAILED, f"{error} -- {check.means}"
    except ApiError as error:
        state, said = State.FAILED, f"{error} -- {check.means}"
        if error.status == DENIED:
            state, said = State.SKIPPED, f"who asks may not look: {error}"
    seconds = time.monotonic() - began
    return Outcome(check.name, check.proves, state, said, seconds, check.topic)


def run_all(checks: Sequence[Check[T]], ground: T) -> Iterator[Outcome]:
    """Yield what comes of each check, as it comes."""
    for check in checks:
        yield run(check, ground)
