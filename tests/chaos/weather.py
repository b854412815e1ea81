"""What goes wrong around a daemon: EC2, IMDS, the disk, and how long everything takes. Shell.

All of it is drawn from a seed. `Weather` says what is wrong now; `Past` answers a question as
EC2 would have some seconds ago; `Disk` is the journal's, and may be full.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from eni.errors import (
    CredentialsError,
    EniError,
    ThrottledError,
    UnauthorizedError,
    UnreachableError,
)
from ipamd.journal import Journal, JournalError
from ipamd.plan.cloud import Account, Drop, Fault, Lose, Raise
from ipamd.plan.loop import Delay

if TYPE_CHECKING:
    from eni.model import Block, Eni, EniId

QUESTIONS = ("DescribeNetworkInterfaces", "DescribeSubnets", "DescribeInstanceTypes")

AWAY: tuple[type[EniError], ...] = (UnreachableError, CredentialsError)

SLOW_SECONDS = 5.0
"""How long a slow call takes at most."""


@dataclass(slots=True)
class Weather:
    """What is wrong now. *lose* and *drop* are the parts of mutations that go unanswered."""

    random: random.Random
    lose: float = 0.0
    drop: float = 0.0
    slow: float = 0.0
    stale: float = 0.0
    """The part of descriptions that are some seconds old."""
    stale_least: float = 0.0
    stale_seconds: float = 0.0
    away: type[EniError] | None = None
    throttles: float = 0.8
    """The part of throttled calls that is refused."""
    throttled: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    attach_seconds: tuple[float, float] = (1.0, 5.0)
    minutes: float = 0.0
    """The part of attachments that take minutes."""
    is_disk_full: bool = False
    is_run_full: bool = False
    """Whether the tmpfs of the leases takes nothing."""

    def clear_up(self) -> None:
        """Let nothing be wrong any more."""
        self.lose = self.drop = self.slow = self.stale = self.minutes = 0.0
        self.away, self.is_disk_full, self.is_run_full = None, False, False
        self.throttled.clear()
        self.denied.clear()

    def fault(self, action: str, _about: str) -> Fault | None:
        """Return what happens to one call."""
        if self.away is not None:
            return Raise(self.away)
        if action in self.throttled and self.random.random() < self.throttles:
            return Raise(ThrottledError)
        if action in self.denied:
            return Raise(UnauthorizedError)
        roll = self.random.random()
        if roll < self.lose:
            return Lose()
        return Drop() if roll < self.lose + self.drop else None

    def attach_latency(self, action: str) -> float:
        """Return how long an attach or a detach takes to come true."""
        if action.startswith("Detach"):
            return self.random.uniform(1.0, 5.0)
        if self.random.random() < self.minutes:
            return self.random.uniform(60.0, 200.0)
        return self.random.uniform(*self.attach_seconds)

    def latency(self, work: Callable[..., object], _arguments: tuple[object, ...]) -> Delay:
        """Return how long a thread takes over one call."""
        name = getattr(work, "__qualname__", "")
        draw = self.random.uniform
        if name.endswith("make"):  # ipamd.ec2_line: a call of EC2
            slow = draw(0, SLOW_SECONDS) if self.random.random() < self.slow else 0.0
            return Delay(draw(0.01, 0.3), draw(0.005, 0.2) + slow)
        if name.startswith("Journal"):
            slow = draw(0, 2.0) if self.random.random() < self.slow else 0.0
            return Delay(draw(0.001, 0.02) + slow, 0.0005)
        return Delay(draw(0.0002, 0.002), draw(0.0002, 0.002))


class Disk(Journal):
    """A journal on a disk that may be full."""

    def __init__(
        self,
        path: Path,
        weather: Weather,
        on_drop: Callable[[tuple[tuple[Block, EniId], ...]], None],
    ) -> None:
        self._weather, self._on_drop = weather, on_drop
        super().__init__(path)

    def drop(self, blocks: Iterable[tuple[Block, EniId]], at: float) -> None:
        """Do as a journal does, and tell of it."""
        gone = tuple(blocks)
        self._on_drop(gone)
        super().drop(gone, at)

    def _write(self, *steps: tuple[str, Iterable[tuple[object, ...]]]) -> None:
        if self._weather.is_disk_full:
            raise JournalError(f"{self.path} cannot be written: database or disk is full")
        super()._write(*steps)


class Past:
    """What the account was like: a description may be some seconds old."""

    def __init__(self, account: Account, clock: Callable[[], float]) -> None:
        self._account, self._clock = account, clock
        self._seen: deque[tuple[float, tuple[Eni, ...]]] = deque(maxlen=200)
        self.record()

    def record(self) -> None:
        """Remember how it is now; called after each change."""
        self._account.vpc.settle()
        self._seen.append((self._clock(), tuple(self._account.enis())))

    def at(self, seconds_ago: float) -> tuple[Eni, ...]:
        """Return every ENI as it was then."""
        then = self._clock() - seconds_ago
        found = self._seen[0][1]
        for when, enis in self._seen:
            if when > then:
                break
            found = enis
        return found

    def answer(self, name: str, arguments: Sequence[object], seconds_ago: float) -> object:
        """Return what a question was to be answered then."""
        enis = self.at(seconds_ago)
        match name, arguments:
            case "attached", (instance_id,):
                return tuple(
                    e for e in enis if e.attachment and e.attachment.instance_id == instance_id
                )
            case "eni", (eni_id,):
                return next((eni for eni in enis if eni.id == eni_id), None)
            case "by_tag", (str(key), value):
                return tuple(eni for eni in enis if eni.tags.get(key) == value)
            case _:
                raise ValueError(name)
