"""What the pool should ask of EC2 next. Pure.

`grow` answers with everything that may start now, one action for each ENI, so that the
whole shortfall is on its way at once; what is in flight comes back in as `coming` and
`busy`. `shrink` answers with one action at a time, and never with one that `grow` would
undo: the engine waits until the answer has stood for a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eni.model import EniId, Kind, SubnetId
from ipamd.pool import EniCensus
from ipamd.targets import (
    Situation,
    Targets,
    asks_whole_enis,
    lack,
    shortfall,
    slack,
    surplus,
)

__all__ = [
    "Action",
    "AddEni",
    "Assign",
    "RemoveEni",
    "Situation",
    "Unassign",
    "grow",
    "is_cramped",
    "shrink",
]

ENI_MIN_AGE_SECONDS = 60.0
"""An ENI younger than this is not given back: it came for a reason that may just be arriving.
The peer uses one minute too."""


@dataclass(frozen=True, slots=True)
class AddEni:
    """Create and attach an ENI in *subnet_id* with *count* blocks of *kind*."""

    subnet_id: SubnetId
    kind: Kind
    count: int


@dataclass(frozen=True, slots=True)
class Assign:
    """Ask *count* more blocks of *kind* for an ENI."""

    eni_id: EniId
    kind: Kind
    count: int


@dataclass(frozen=True, slots=True)
class Unassign:
    """Give *count* wholly free blocks of *kind* of an ENI back."""

    eni_id: EniId
    kind: Kind
    count: int


@dataclass(frozen=True, slots=True)
class RemoveEni:
    """Detach and delete an ENI that nobody uses."""

    eni_id: EniId


Action = AddEni | Assign | Unassign | RemoveEni


# Growing ---------------------------------------------------------------------------------
def grow(now: Situation, targets: Targets) -> tuple[AddEni | Assign, ...]:
    """Return all steps towards the targets that may start now; none when there or when full.

    ENIs that are here are filled first, since an Assign costs one call, an ENI three and
    some seconds.
    """
    missing = shortfall(now, targets)
    if not now.may_grow or not missing:
        return ()
    # Whole ENIs are filled as far as pods could ever use them.
    limit = now.allowance if asks_whole_enis(now, targets) else missing
    steps: list[AddEni | Assign] = []
    for place in _places(now, missing):
        count = place.room if limit is None else min(place.room, _blocks(limit, place.kind))
        steps.append(place.ask(count))
        given = count * place.kind.size
        missing -= given
        limit = None if limit is None else limit - given
        if missing <= 0:
            break
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where blocks may be asked for: on an ENI that is here, or (*eni_id* None) on a new one."""

    subnet_id: SubnetId
    kind: Kind
    room: int
    eni_id: EniId | None = None

    @property
    def yields(self) -> int:
        """Addresses it could bring."""
        return self.room * self.kind.size

    def ask(self, count: int) -> AddEni | Assign:
        """Return the action that asks *count* blocks here."""
        if self.eni_id is None:
            return AddEni(self.subnet_id, self.kind, count)
        return Assign(self.eni_id, self.kind, count)


def _places(now: Situation, missing: int) -> Iterator[_Place]:
    """Yield the places for *missing* addresses in the order that needs the fewest calls.

    Where one ENI has room for all that is left it is the fullest of those, so that
    others stay empty; else the roomiest.
    """
    here = [
        _Place(e.eni.subnet_id, kind, _most(now, e.eni.subnet_id, kind, e.room), e.eni.id)
        for e in sorted(now.enis, key=lambda e: e.eni.number)
        if e.room and e.eni.id not in now.busy and (kind := now.kinds.get(e.eni.subnet_id))
    ]
    yield from _fewest_calls(list(here), missing)
    if now.new_eni is not None and now.slots_per_eni > 0:
        yield from _new_places(now, *now.new_eni, here)


def _fewest_calls(here: list[_Place], missing: int) -> Iterator[_Place]:
    while here:
        enough = [place for place in here if place.yields >= missing]
        best = min(enough, key=lambda p: p.room) if enough else max(here, key=lambda p: p.yields)
        here.remove(best)
        missing -= best.yields
        yield best


def _new_places(
    now: Situation, subnet_id: SubnetId, kind: Kind, here: Sequence[_Place]
) -> Iterator[_Place]:
    """Yield the places on new ENIs; one at most where the subnet has but a few blocks left.

    Each ENI takes an address for itself, so there it comes only if none that is here or
    coming could take those blocks.
    """
    room = _most(now, subnet_id, kind, now.slots_per_eni)
    count = now.free_enis
    if room < now.slots_per_eni:
        taken = now.coming or any(place.subnet_id == subnet_id for place in here)
        count = 0 if taken else min(1, count)
    yield from [_Place(subnet_id, kind, room)] * count


def _most(now: Situation, subnet_id: SubnetId, kind: Kind, room: int) -> int:
    """Return how many blocks one call may ask for where *room* slots are left, at least one."""
    return max(1, min(room, now.limits.get((subnet_id, kind), room)))


def _blocks(addresses: int, kind: Kind) -> int:
    """Return how many blocks of *kind* hold *addresses*."""
    return -(-addresses // kind.size)


# Shrinking -------------------------------------------------------------------------------
def shrink(now: Situation, targets: Targets, ages: Sequence[float]) -> RemoveEni | Unassign | None:
    """Return the next step back to the targets, None when there is nothing to give up.

    *ages* are the seconds since each ENI of the census came. A whole ENI goes before
    blocks, the highest number first. While anything is coming all stays: it may not come.
    One that gives pods nothing goes at any age where its place is wanted.
    """
    if not now.may_shrink or now.coming or grow(now, targets):
        return None
    idle = [
        (census, age)
        for census, age in sorted(zip(now.enis, ages, strict=True), key=lambda c: -c[0].eni.number)
        if _is_removable(now, census) and _can_spare(now, targets, census)
    ]
    min_age = 0.0 if is_cramped(now, targets) else ENI_MIN_AGE_SECONDS
    for census, age in idle:
        if age >= min_age and census.eni.id not in now.busy:
            return RemoveEni(census.eni.id)
    if idle:
        return None  # its blocks would cost a call more, and it can soon go as a whole
    return next(_give_back(now, targets), None)


def is_cramped(now: Situation, targets: Targets) -> bool:
    """Whether what is missing waits for an ENI's place: all are taken, and one would bring it."""
    has_no_place = now.new_eni is not None and now.free_enis == 0 and now.slots_per_eni > 0
    return has_no_place and shortfall(now, targets) > 0


def _is_ours(census: EniCensus) -> bool:
    """Whether blocks may be asked back of it; of an ENI that stays only its owner may."""
    return not (census.eni.closed or census.eni.stays)


def _is_removable(now: Situation, census: EniCensus) -> bool:
    """Whether it may go as a whole; of one that EC2 keeps here blocks may go back."""
    eni = census.eni
    is_here_to_stay = eni.is_primary or eni.stays or eni.id in now.kept
    return census.is_idle and not (is_here_to_stay or eni.closed)


def _can_spare(now: Situation, targets: Targets, census: EniCensus) -> bool:
    """Whether nothing would be missing without this ENI; one that is excluded is no loss."""
    if census.eni.excluded:
        return True
    return lack(now, targets) == 0 and census.free <= slack(now, targets)


def _give_back(now: Situation, targets: Targets) -> Iterator[Unassign]:
    """Yield what could be unassigned, the most useless first.

    That is: on ENIs that give pods nothing; then of the kind that is no longer wanted,
    as far as the rest suffices; then what is too much, from the emptiest ENI.
    """
    emptiest = sorted(
        (e for e in now.enis if _is_ours(e) and e.eni.id not in now.busy),
        key=lambda e: (e.assigned, -e.eni.number),
    )
    for census in emptiest:
        if census.eni.excluded:
            for kind in Kind:
                yield from _unassign(census, kind, census.free)
    usable = [census for census in emptiest if not census.eni.excluded]
    spendable = slack(now, targets)
    for census in usable:
        if now.kinds.get(census.eni.subnet_id) is now.mode:
            yield from _unassign(census, _other(now.mode), spendable)
    extra = surplus(now, targets)
    for census in usable:
        for kind in (_other(now.mode), now.mode):
            yield from _unassign(census, kind, extra)


def _unassign(census: EniCensus, kind: Kind, addresses: int) -> Iterator[Unassign]:
    count = min(census.idle(kind), addresses // kind.size)
    if count > 0:
        yield Unassign(census.eni.id, kind, count)


def _other(kind: Kind) -> Kind:
    return Kind.SINGLE if kind is Kind.PREFIX else Kind.PREFIX
