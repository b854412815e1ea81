"""How many addresses the pods of this node will need: what is bound, and headroom. Pure.

The target is absolute, so asking twice asks for nothing more. Headroom is learned from
arrivals: it is what came within one refill, because that is what must be ready while EC2
brings more. It rises at once and sinks slowly, so that a burst which repeats (a roll-out in
waves) finds most of its addresses still there.

"Bound" is told by the watch of pods where there is an API server; without one it is what
this daemon can count itself, leases and waiting ADDs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import dropwhile

from eni.model import Kind
from ipamd.clock import Instant
from ipamd.targets import Demand

REFILL_SECONDS = 10.0
"""One refill: how long the peer's documents let creating and attaching an ENI take."""

HALF_LIFE_SECONDS = 600.0
"""In which what is above the floor sinks to half: longer than between the waves of a roll-out,
shorter than the hour after which nobody remembers why a node holds what it holds."""

HEADROOM_MIN = 2
"""A pod and its replacement: a restart gets its new sandbox before the old address has cooled.
With prefixes this costs nothing, except where the last prefix is full to the last two."""

HEADROOM_MAX = 16
"""One prefix. A burst of 110 must not make a node hold 220: nearly all of the 110 are known
ahead or wait together, and one call brings what they lack."""

CALM_SECONDS = 120.0
"""How long there must be too much before anything is given back. A replaced pod is gone for
less; and the peer's 30 s made it give back what it asked again a minute later."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """How many addresses beyond the bound pods' to hold, as learned at *at*."""

    level: float
    at: Instant


def observe(
    state: Headroom, arrivals: int, now: Instant, half_life_seconds: float = HALF_LIFE_SECONDS
) -> Headroom:
    """Return the headroom after *arrivals* in the last `REFILL_SECONDS`: up at once, down slowly.

    *half_life_seconds* is jittered by node (`jittered`), so that a fleet that was
    loaded at one time does not give back at one time.
    """
    age = now.elapsed(state.at)
    above = max(0.0, state.level - HEADROOM_MIN) * 0.5 ** (age / half_life_seconds)
    level = max(HEADROOM_MIN + above, min(float(arrivals), float(HEADROOM_MAX)))
    return Headroom(level, now)


def jittered(seconds: float, roll: float) -> float:
    """Return *seconds* made longer or shorter by up to a quarter; *roll* is in [0, 1)."""
    return seconds * (0.75 + roll / 2)


def target(bound: int, headroom: Headroom, most: int | None = None) -> Demand:
    """Return what to hold for *bound* pods.

    *most* is the `ceiling`, None if unknown. Half of the headroom may be used up, or be
    too much, before EC2 is called. An empty node lacks one address less than it is to hold at
    most: with room for one pod it would hold none, never be ready, and get no pod.
    """
    level = round(headroom.level)
    total = bound + level if most is None else min(bound + level, most)
    spare = level // 2 if bound else min(level // 2, max(0, total - 1))
    return Demand(total, spare=spare, bound=bound)


def ceiling(max_pods: int | None, slots: int, kind: Kind) -> int:
    """Return how many addresses pods can ever use: *max_pods*, or what all *slots* hold."""
    most = slots * kind.size
    return most if max_pods is None else min(max_pods, most)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When pods came of late: bound by the scheduler as the watch tells, or ADDs of the journal."""

    times: tuple[Instant, ...] = ()

    def add(self, now: Instant, count: int = 1) -> Arrivals:
        """Return these and *count* of now, without those that are older than one refill."""
        return Arrivals((*self._recent(now), *[now] * count))

    def count(self, now: Instant) -> int:
        """Return how many came within one refill."""
        return len(self._recent(now))

    def _recent(self, now: Instant) -> tuple[Instant, ...]:
        return tuple(dropwhile(lambda time: now.elapsed(time) >= REFILL_SECONDS, self.times))


def replay(state: Headroom, times: Iterable[Instant]) -> Headroom:
    """Return the headroom after arrivals at *times*, in their order: what a restart remembers."""
    arrivals = Arrivals()
    for time in times:
        arrivals = arrivals.add(time)
        state = observe(state, arrivals.count(time), time)
    return state


@dataclass(frozen=True, slots=True)
class Calm:
    """Since when there has been too much without a break; None if there is not."""

    since: Instant | None = None

    def see(self, now: Instant, *, excess: bool) -> Calm:
        """Return the calm after a look at the pool."""
        if not excess:
            return Calm()
        return self if self.since else replace(self, since=now)

    def lasts(self, now: Instant, seconds: float) -> bool:
        """Whether it has lasted for *seconds*."""
        return self.since is not None and now.elapsed(self.since) >= seconds
