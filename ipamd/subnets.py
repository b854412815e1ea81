"""Which subnets give this node addresses, and of which kind each does now. Pure.

A subnet may be out of aligned /28s while it still has single addresses, or out of both, or
have fewer than were asked, and EC2 gives all or nothing. What it has refused is asked in
halves, for each subnet and kind by itself; when it refuses even one, that is inhibited for
a while and then tried with one: nothing is given up for good, and no refusal is
repeated at once. Single addresses stand in for prefixes only where no other subnet
could give a prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network

from eni.model import Kind, SecurityGroupId, SubnetId
from ipamd.clock import Instant

ROLE_TAG = "kubernetes.io/role/cni"
"""The peer's subnet tag: 0 excludes a subnet, anything else includes it."""

CLUSTER_TAG_PREFIX = "cni.networking.k8s.aws/cluster/"
"""Followed by a cluster's name; a subnet that has such tags is for those clusters only."""

INHIBIT_SECONDS = 120.0
"""After the first refusal. The peer's pause is as long, but stops the whole node's growth."""

INHIBIT_MAX_SECONDS = 1800.0
"""After many. A subnet that was full for hours is asked twice an hour by each node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetView:
    """A subnet as EC2 told of it lately.

    *available* is late by seconds and blind to fragments; None if we may not ask.
    *reservations* are its CIDR reservations of type prefix.
    """

    id: SubnetId
    available: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    reservations: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where a new ENI may go; no *security_groups* means the primary ENI's.

    *config* names the ENIConfig it comes from, if it comes from one.
    """

    subnet_id: SubnetId
    security_groups: tuple[SecurityGroupId, ...] = ()
    config: str = ""


# Candidates ------------------------------------------------------------------------------
def is_excluded(view: SubnetView, cluster: str = "") -> bool:
    """Whether pods get no new addresses of *view*, although an ENI of ours may be in it.

    An untagged subnet is not excluded: the primary ENI's counts as included.
    """
    clusters = [key for key in view.tags if key.startswith(CLUSTER_TAG_PREFIX)]
    others = bool(clusters) and CLUSTER_TAG_PREFIX + cluster not in clusters
    return others or view.tags.get(ROLE_TAG) == "0"


def discover(
    views: Iterable[SubnetView], primary: SubnetId, cluster: str = ""
) -> tuple[Candidate, ...]:
    """Return the subnets whose tags say that they are for pods, the one with most free first.

    *views* are those of the node's VPC and zone. Without a tag only *primary* is.
    """
    included = [
        view
        for view in views
        if not is_excluded(view, cluster) and (view.id == primary or ROLE_TAG in view.tags)
    ]
    return most_free_first((Candidate(view.id) for view in included), included)


def most_free_first(
    candidates: Iterable[Candidate], views: Iterable[SubnetView]
) -> tuple[Candidate, ...]:
    """Return *candidates* ordered by free addresses; of those we know nothing of as they came."""
    free = {view.id: view.available for view in views}
    return tuple(sorted(candidates, key=lambda c: -(free.get(c.subnet_id) or 0)))


# What EC2 has refused --------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Inhibition:
    """For *seconds* from *since* not to be asked for more than *most* blocks in a call.

    *nominal_seconds* is without jitter. If even one was refused *most* is 0; when that
    ends the next call asks for one.
    """

    since: Instant
    nominal_seconds: float
    seconds: float
    most: int = 0

    def left(self, now: Instant) -> float:
        """Return the seconds until it ends, 0 if it has."""
        return max(0.0, self.seconds - now.elapsed(self.since))

    def limit(self, now: Instant) -> int | None:
        """Return how many blocks a call may ask for now, None if as many as it likes."""
        if self.left(now):
            return self.most
        return None if self.most else 1


@dataclass(frozen=True, slots=True)
class Inhibitions:
    """What is inhibited, by subnet and kind."""

    by_place: Mapping[tuple[SubnetId, Kind], Inhibition] = field(default_factory=dict, hash=False)

    def refused(
        self, subnet_id: SubnetId, kind: Kind, count: int, now: Instant, roll: float
    ) -> Inhibitions:
        """Return these after EC2 refused *count* blocks: half of that may be asked at once.

        One that is refused is not asked again for twice as long as the last time; *roll*,
        in [0, 1), jitters that by up to a quarter. Calls for more than may be asked
        now were on their way when the first was refused, and say nothing new.
        """
        last = self.by_place.get((subnet_id, kind))
        limit = last.limit(now) if last else None
        if limit is not None and count > limit:
            return self
        seconds = INHIBIT_SECONDS
        if last is not None and not last.most:
            seconds = min(2 * last.nominal_seconds, INHIBIT_MAX_SECONDS)
        new = Inhibition(now, seconds, seconds * (0.75 + roll / 2), count // 2)
        return replace(self, by_place={**self.by_place, (subnet_id, kind): new})

    def granted(self, subnet_id: SubnetId, kind: Kind, now: Instant) -> Inhibitions:
        """Return these after a success: nothing is held against this subnet and kind any more.

        But a limit stays until it ends: that less was given does not mean that there is more.
        """
        last = self.by_place.get((subnet_id, kind))
        if last is None or (last.most and last.left(now)):
            return self
        rest = {place: i for place, i in self.by_place.items() if place != (subnet_id, kind)}
        return replace(self, by_place=rest)

    def limits(self, now: Instant) -> Mapping[tuple[SubnetId, Kind], int]:
        """Return how many blocks one call may ask for, where there is a limit now."""
        limits = {place: i.limit(now) for place, i in self.by_place.items()}
        return {place: limit for place, limit in limits.items() if limit is not None}

    def forbids(self, subnet_id: SubnetId, kind: Kind, now: Instant) -> bool:
        """Whether *kind* is not to be asked of *subnet_id* now."""
        return self.limits(now).get((subnet_id, kind)) == 0

    def next_return(self, now: Instant) -> float | None:
        """Return the seconds until something may be asked again, None if all may."""
        left = (i.left(now) for i in self.by_place.values() if not i.most)
        return min((seconds for seconds in left if seconds), default=None)


# Where and which -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Subnets:
    """All that is known of where addresses come from; *candidates* in the order of preference."""

    mode: Kind
    candidates: tuple[Candidate, ...]
    views: Mapping[SubnetId, SubnetView] = field(default_factory=dict, hash=False)
    inhibitions: Inhibitions = Inhibitions()

    def place(self, now: Instant) -> tuple[Candidate, Kind] | None:
        """Return where a new ENI should go and what it should get, None if nowhere now.

        The mode's kind comes first, from whatever candidate; of prefixes, those that a
        reservation keeps.
        """
        for kind in self._kinds:
            open_ = [c for c in self.candidates if self._may_give(c.subnet_id, kind, now)]
            if open_:
                kept = kind is Kind.PREFIX
                return min(open_, key=lambda c: kept and not self._reservations(c.subnet_id)), kind
        return None

    def kinds(
        self, rooms: Mapping[SubnetId, int], now: Instant, *, may_attach: bool
    ) -> Mapping[SubnetId, Kind | None]:
        """Return what each subnet of an attached ENI gives now.

        *rooms* are the slots left on the ENIs in each; *may_attach* says whether another
        ENI may come. Where a prefix can be had in another subnet, there or by a new
        ENI, a subnet without prefixes gives nothing instead of single addresses.
        """
        best = {subnet_id: self._best(subnet_id, now) for subnet_id in rooms}
        if self.mode is Kind.PREFIX:
            here = any(best[subnet_id] is Kind.PREFIX and room for subnet_id, room in rooms.items())
            elsewhere = self.place(now) if may_attach else None
            if here or (elsewhere is not None and elsewhere[1] is Kind.PREFIX):
                return {s: kind if kind is Kind.PREFIX else None for s, kind in best.items()}
        return best

    def explain(self, subnet_id: SubnetId, kind: Kind) -> str:
        """Return a sentence for an operator: why *subnet_id* may have refused *kind*."""
        view = self.views.get(subnet_id)
        free = "unknown" if view is None or view.available is None else str(view.available)
        if kind is Kind.SINGLE:
            return f"subnet {subnet_id} gives no address ({free} free)"
        kept = ", ".join(map(str, self._reservations(subnet_id)))
        why = (
            f"the reservations {kept} are used up" if kept else "no CIDR of it is reserved for them"
        )
        return f"subnet {subnet_id} gives no aligned /28 ({free} addresses free; {why})"

    @property
    def _kinds(self) -> tuple[Kind, ...]:
        """The kinds that may be asked for, the better first."""
        return (Kind.PREFIX, Kind.SINGLE) if self.mode is Kind.PREFIX else (Kind.SINGLE,)

    def _best(self, subnet_id: SubnetId, now: Instant) -> Kind | None:
        for kind in self._kinds:
            if not self.inhibitions.forbids(subnet_id, kind, now):
                return kind
        return None

    def _may_give(self, subnet_id: SubnetId, kind: Kind, now: Instant) -> bool:
        """Whether asking makes sense: an ENI needs an address of its own beside its blocks."""
        view = self.views.get(subnet_id)
        available = None if view is None else view.available
        # What a reservation keeps for prefixes is not in EC2's count.
        blocks = 0 if kind is Kind.PREFIX and self._reservations(subnet_id) else kind.size
        enough = available is None or available > blocks
        return enough and not self.inhibitions.forbids(subnet_id, kind, now)

    def _reservations(self, subnet_id: SubnetId) -> tuple[IPv4Network, ...]:
        view = self.views.get(subnet_id)
        return view.reservations if view else ()
