"""What the pool should ask of EC2 next. Pure.

`decide` looks at a census and answers with one action or none; the engine performs it
and asks again. One action at a time keeps every answer based on what really is there.

The arithmetic is the peer's (WARM_IP_TARGET and MINIMUM_IP_TARGET when one is set,
else whole ENIs by WARM_ENI_TARGET), with two repairs: cooling addresses are never
available, and ADDs that wait for an address count as demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eni.model import EniId
from ipamd.pool import EniCensus

ENI_MIN_AGE_SECONDS = 60.0
"""An ENI younger than this is not given back: it came for a reason that may just be arriving.
The peer uses one minute too."""


@dataclass(frozen=True, slots=True)
class Targets:
    """How much to hold ready; 0 is "not set" for the two IP targets."""

    warm_eni: int = 1
    warm_ip: int = 0
    minimum_ip: int = 0

    @property
    def by_address(self) -> bool:
        """Whether the IP targets rule, as they do when one of them is set."""
        return bool(self.warm_ip or self.minimum_ip)


@dataclass(frozen=True, slots=True)
class Situation:
    """What `decide` may look at.

    *waiting* counts ADDs without an address; *free_enis* is how many more ENIs may be
    attached; *per_eni* is how many secondary addresses a new one holds.
    """

    enis: tuple[EniCensus, ...]
    waiting: int
    free_enis: int
    per_eni: int

    @property
    def free(self) -> int:
        """Addresses ready now, less those that waiting ADDs will take."""
        return sum(e.free for e in self.enis if not e.eni.closed) - self.waiting

    @property
    def held(self) -> int:
        """Addresses on ENIs that stay, whatever they do."""
        return sum(e.held - e.leaving for e in self.enis if not e.eni.closed)


@dataclass(frozen=True, slots=True)
class AddEni:
    """Create and attach an ENI with *count* secondary addresses."""

    count: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Ask *count* more addresses for an ENI."""

    eni_id: EniId
    count: int


@dataclass(frozen=True, slots=True)
class Unassign:
    """Give *count* free addresses of an ENI back."""

    eni_id: EniId
    count: int


@dataclass(frozen=True, slots=True)
class RemoveEni:
    """Detach and delete an ENI that nobody uses."""

    eni_id: EniId


Action = AddEni | Assign | Unassign | RemoveEni


def shortfall(now: Situation, targets: Targets) -> int:
    """Return how many addresses are missing, never below 0."""
    if targets.by_address:
        return max(0, targets.warm_ip - now.free, targets.minimum_ip - now.held)
    if now.free < targets.warm_eni * now.per_eni or (targets.warm_eni == 0 and now.free <= 0):
        return max(now.per_eni, -now.free)
    return 0


def surplus(now: Situation, targets: Targets) -> int:
    """Return how many free addresses could go, never below 0.

    With no IP target set single addresses stay; only whole ENIs go.
    """
    if not targets.by_address:
        return 0
    return max(0, min(now.free - targets.warm_ip, now.held - targets.minimum_ip))


def grow(now: Situation, targets: Targets) -> Assign | AddEni | None:
    """Return the next step towards the targets; None when there, or when nothing has room.

    ENIs that are here are filled first, the fullest of them first: an Assign costs one
    call, an ENI three and some seconds.
    """
    missing = shortfall(now, targets)
    if not missing:
        return None
    by_address = targets.by_address
    roomy = sorted((e for e in now.enis if e.room), key=lambda e: (e.room, e.eni.number))
    if roomy:
        best = roomy[0]
        return Assign(best.eni.id, min(best.room, missing) if by_address else best.room)
    if now.free_enis > 0 and now.per_eni > 0:
        return AddEni(min(now.per_eni, missing) if by_address else now.per_eni)
    return None


def shrink(now: Situation, targets: Targets, ages: Sequence[float]) -> RemoveEni | Unassign | None:
    """Return the next step back to the targets, None when there is nothing to give up.

    *ages* are the seconds since each ENI of the census came. A whole ENI goes before
    single addresses; the highest number goes first.
    """
    for census, age in sorted(zip(now.enis, ages, strict=True), key=lambda c: -c[0].eni.number):
        if _is_removable(census, age) and _can_spare(now, targets, census):
            return RemoveEni(census.eni.id)
    extra = surplus(now, targets)
    if extra:
        emptiest = min(
            (e for e in now.enis if e.free and not e.eni.closed),
            key=lambda e: (e.assigned, -e.eni.number),
        )
        return Unassign(emptiest.eni.id, min(extra, emptiest.free))
    return None


def _is_removable(census: EniCensus, age: float) -> bool:
    eni = census.eni
    return census.is_idle and not eni.is_primary and not eni.closed and age >= ENI_MIN_AGE_SECONDS


def _can_spare(now: Situation, targets: Targets, census: EniCensus) -> bool:
    free, held = now.free - census.free, now.held - census.held
    if targets.by_address:
        return free >= targets.warm_ip and held >= targets.minimum_ip
    return free >= max(targets.warm_eni * now.per_eni, 1)
