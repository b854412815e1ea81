"""Traces of pods that come and go: how they are read, and how they are made up. Pure.

A line is a time in seconds and how many pods come or go then; `#` begins a comment:

    0      +30    # the node's first pods
    3600   -4
    3600.5 +4
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ipamd.plan.errors import PlanInputError

Roll = Callable[[], float]
"""Chance, in [0, 1)."""

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

BRIEF = 40
"""Characters of a line that a sentence quotes."""


@dataclass(frozen=True, slots=True)
class Change:
    """So many *pods* come at *at* seconds, or go if it is negative."""

    at: float
    pods: int


# Reading -----------------------------------------------------------------------------------
def read_trace(lines: Iterable[str], name: str) -> tuple[Change, ...]:
    """Return the changes in *lines*. Raises PlanInputError naming the first wrong line."""
    changes: list[Change] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        change = _change(words)
        if change is None:
            raise PlanInputError(
                f"{name}:{number}: {line.strip()[:BRIEF]!r} is not 'SECONDS +PODS' or"
                " 'SECONDS -PODS'"
            )
        if changes and change.at < changes[-1].at:
            raise PlanInputError(
                f"{name}:{number}: {change.at:g} s is before the line above it"
                f" ({changes[-1].at:g} s); times must not fall"
            )
        changes.append(change)
    if not changes:
        raise PlanInputError(f"{name}: no line says that pods come or go")
    return tuple(changes)


def _change(words: list[str]) -> Change | None:
    if len(words) != 2 or words[1][0] not in "+-":  # noqa: PLR2004 - a time and a number
        return None
    try:
        change = Change(float(words[0]), int(words[1]))
    except ValueError:
        return None
    return change if math.isfinite(change.at) and change.at >= 0 else None


# Making up ---------------------------------------------------------------------------------
class Churn(StrEnum):
    """What kind of churn."""

    DAY = "day"
    BURST = "burst"
    CRON = "cron"
    ROLLOUT = "rollout"


def churn(kind: Churn, roll: Roll) -> Iterator[Change]:
    """Return the changes of one node under that kind of load, by time; what goes had come."""
    makers = {
        Churn.DAY: _day,
        Churn.BURST: _burst,
        Churn.CRON: _cron,
        Churn.ROLLOUT: _rollouts,
    }
    return iter(sorted(makers[kind](roll), key=lambda change: change.at))


def render_trace(changes: Iterable[Change], title: str) -> Iterator[str]:
    """Yield the lines of a trace."""
    yield f"# {title}"
    yield "# seconds  pods"
    for change in changes:
        yield f"{change.at:.1f} {change.pods:+d}"


def _between(roll: Roll, least: float, most: float) -> float:
    return least + (most - least) * roll()


BASE, PEAK = 10, 34
"""Pods of a node at night and at noon, in `day`."""


def _day(roll: Roll) -> Iterator[Change]:
    """Office hours, a replaced pod now and then, an hourly job, two roll-outs."""
    yield Change(0.0, BASE)
    there = BASE
    for minute in range(1, 24 * 60):
        at = minute * MINUTE + _between(roll, 0, MINUTE)
        wish = BASE + (PEAK - BASE) * max(0.0, math.sin(math.pi * (minute / 60 - 7) / 13)) ** 2
        step = round(wish) - there
        if step and roll() < 0.3:  # noqa: PLR2004 - an autoscaler lags some minutes
            step = max(-2, min(2, step))
            there += step
            yield Change(at, step)
        if roll() < 0.03:  # noqa: PLR2004 - every half an hour one is moved elsewhere, and one comes
            yield Change(at, -1)
            yield Change(at + _between(roll, 1, 4), 1)
        if minute % 60 == 0:
            yield from _job(roll, at, 4)
    for hour in (10.5, 15.5):
        yield from _rollout(roll, hour * HOUR, waves=4, size=5)


def _job(roll: Roll, at: float, pods: int) -> Iterator[Change]:
    """So many pods that come together and go one by one, a minute or three later."""
    yield Change(at, pods)
    for _ in range(pods):
        yield Change(at + _between(roll, MINUTE, 3 * MINUTE), -1)


def _rollout(roll: Roll, at: float, waves: int, size: int) -> Iterator[Change]:
    """New pods before old ones go, in waves."""
    for wave in range(waves):
        start = at + wave * _between(roll, 30, 60)
        yield Change(start, size)
        yield Change(start + _between(roll, 15, 40), -size)


def _burst(roll: Roll) -> Iterator[Change]:
    """Everything at once, three times: an empty node that gets a big job."""
    for start in (60.0, 30 * MINUTE, 60 * MINUTE):
        pods = round(_between(roll, 40, 60))
        yield Change(start + _between(roll, 0, 10), pods)
        yield Change(start + 15 * MINUTE + _between(roll, 0, MINUTE), -pods)


def _cron(roll: Roll) -> Iterator[Change]:
    """Some pods that stay, and a job every five minutes for two hours."""
    yield Change(0.0, 6)
    for run in range(24):
        yield from _job(roll, (run + 1) * 5 * MINUTE + _between(roll, 0, 2), 3 + run % 3)


def _rollouts(roll: Roll) -> Iterator[Change]:
    """A node with thirty pods whose deployments are rolled out one after another."""
    yield Change(0.0, 30)
    for start in (10 * MINUTE, 25 * MINUTE, 40 * MINUTE):
        yield from _rollout(roll, start + _between(roll, 0, 30), waves=6, size=5)
