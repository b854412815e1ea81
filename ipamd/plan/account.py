"""An account's request budgets, and what may go wrong with a call. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eni.errors import EniError


@dataclass(frozen=True, slots=True)
class Rate:
    """What an account may send of one action: *rate* a second, *burst* at once."""

    rate: float
    burst: float


class Bucket:
    """A token bucket that begins full."""

    __slots__ = ("_filled_at", "_rate", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate, self._filled_at, self._tokens = rate, now, rate.burst

    def take(self, now: float) -> bool:
        """Take a token, False if there is none."""
        passed = now - self._filled_at
        self._filled_at = now
        self._tokens = min(self._rate.burst, self._tokens + passed * self._rate.rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Raise:
    """The call is not done and fails with *error*."""

    error: type[EniError]


@dataclass(frozen=True, slots=True)
class Lose:
    """The call is done, or refused, and its answer is lost."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The call is lost on its way, which nobody can tell from a lost answer."""


Fault = Raise | Lose | Drop
