"""Where new ENIs go: the node's own subnet, tagged ones, those that ENIConfigs name. Shell.

`ipamd.subnets` decides; this asks EC2 for what it decides from, seldom, and remembers what EC2
refused. Without a permission to ask, or without an answer, the node's own subnet serves.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Network

from eni.calls import Ec2Calls
from eni.errors import (
    EniError,
    NotFoundError,
    RefusedError,
    SubnetExhaustedError,
    UnauthorizedError,
)
from eni.model import Kind, SecurityGroupId, Subnet, SubnetId, VpcId
from ipamd.budget import Priority
from ipamd.caches import Cache
from ipamd.clock import Instant
from ipamd.ec2_line import Ec2Line
from ipamd.lifecycle import Place
from ipamd.subnets import Candidate, Subnets, SubnetView, discover, is_excluded

log = logging.getLogger(__name__)

SUBNETS_SECONDS = 300.0
"""How long an answer of DescribeSubnets is believed: a tag or a free count is late by less than
anybody notices, and a thousand nodes ask three times a second at most. Likewise what a subnet
keeps for prefixes, which is asked with it, or when a prefix is refused."""

RESERVED = 16
"""Subnets whose reservations are remembered; a zone seldom has as many for pods."""


@dataclass(slots=True)
class Places:
    """The subnets of one node. Owned by the loop."""

    ec2: Ec2Calls
    line: Ec2Line
    vpc_id: VpcId
    availability_zone: str
    home: SubnetId
    groups: tuple[SecurityGroupId, ...]
    """The primary ENI's."""
    subnets: Subnets
    cidrs: dict[SubnetId, IPv4Network]
    answers: Cache[str, bool]
    kept: Cache[SubnetId, tuple[IPv4Network, ...]]
    """What subnets keep for prefixes, as they told lately; the views have what they told last."""
    cluster: str = ""
    discovery: bool = True
    listed: tuple[SubnetId, ...] = ()
    configs: tuple[Candidate, ...] | None = None
    """From ENIConfigs; None: no custom networking."""
    _excluded: frozenset[SubnetId] = field(default_factory=frozenset)
    _is_told: bool = False
    misplaced: str = ""
    """Which ENIConfigs name a subnet that is not of the node's VPC and zone, and where it is."""
    _whys: dict[SubnetId, str] = field(default_factory=dict)
    """Why each gave no /28, when that was asked last."""

    def __post_init__(self) -> None:
        if self.configs is not None:
            self._choose()  # before EC2 has told of their subnets no other one stands in

    # What is known ---------------------------------------------------------------------
    @property
    def _asks(self) -> bool:
        return bool(self.discovery or self.listed or self.configs is not None)

    @property
    def is_lost(self) -> bool:
        """Whether no ENIConfig can be used; whoever reads them says why."""
        return self.configs is not None and not self.subnets.candidates

    def is_told(self) -> bool:
        """Whether EC2 has told which subnets are for pods, or will not, or need not."""
        return self._is_told or not self._asks

    def is_stale(self) -> bool:
        """Whether EC2 should be asked before the next ENI is placed."""
        return self._asks and self.answers.get("subnets") is None

    async def refresh(self, priority: Priority) -> None:
        """Ask EC2 for the subnets of the VPC in this zone; where that is denied, ours serves.

        Raises EniError.
        """
        try:
            found = await self.line.call(
                priority, self.ec2.subnets, self.vpc_id, self.availability_zone
            )
        except UnauthorizedError as error:
            if self.configs is not None:
                raise  # no other subnet stands in for those of ENIConfigs
            log.warning("subnets not told", extra={"reason": str(error)})
            found = ()
        self._is_told = True
        self.answers.put("subnets", True)  # noqa: FBT003 - a cache's value
        self.cidrs |= {subnet.id: subnet.cidr for subnet in found}
        views = {subnet.id: _view(subnet, self.subnets.views) for subnet in found}
        self.subnets = replace(self.subnets, views=views)
        self._choose()
        await self._find_misplaced(priority)
        for subnet_id in self._reserving():
            self.kept.drop(subnet_id)  # as old as the answer before
            await self._tell_reservations(subnet_id, priority)

    async def _find_misplaced(self, priority: Priority) -> None:
        """Say of ENIConfigs whose subnet is not of this VPC and zone where it is."""
        views = self.subnets.views
        strays = [c for c in self.configs or () if views and c.subnet_id not in views]
        said = [
            f"ENIConfig {c.config} names {c.subnet_id}, which {await self._where(c, priority)}"
            for c in strays
        ]
        left = ", ".join(c.subnet_id for c in self.subnets.candidates)
        if said:
            said.append(f"this node is in {self.availability_zone} of {self.vpc_id}")
            said.append(f"new ENIs go to {left}" if left else "the node gets no ENI for pods")
        words = "; ".join(said)
        if words and words != self.misplaced:
            log.warning("eniconfig not used", extra={"reason": words})
        self.misplaced = words

    async def _where(self, config: Candidate, priority: Priority) -> str:
        try:
            found = await self.line.call(priority, self.ec2.subnet, config.subnet_id)
        except NotFoundError:
            return "EC2 does not know"
        except EniError as error:
            return f"is not of them ({error})"
        return f"is in {found.availability_zone} of {found.vpc_id}"

    def _reserving(self) -> list[SubnetId]:
        """Return the subnets of which it matters, before any refuses, what they keep."""
        if self.subnets.mode is not Kind.PREFIX:
            return []
        candidates = [c.subnet_id for c in self.subnets.candidates]
        views = [self.subnets.views.get(subnet_id) for subnet_id in candidates]
        is_known = any(view and view.reservations for view in views)
        return candidates if len(candidates) > 1 or is_known else []

    async def _tell_reservations(self, subnet_id: SubnetId, priority: Priority) -> None:
        """Ask what a subnet keeps for prefixes, which come from there first, if not lately."""
        ask = partial(self.line.call, priority, self.ec2.reservations, subnet_id)
        try:
            kept = await self.kept.fetch(subnet_id, ask)
        except EniError as error:
            log.info("reservations not told", extra={"reason": str(error)})
            return
        view = replace(
            self.subnets.views.get(subnet_id, SubnetView(id=subnet_id)), reservations=kept
        )
        self.subnets = replace(self.subnets, views={**self.subnets.views, subnet_id: view})

    def doubt(self) -> None:
        """Let EC2 be asked again before the next ENI is placed: something is not there."""
        self.answers.drop("subnets")

    def _choose(self) -> None:
        views = self.subnets.views
        known = views or self.cidrs  # of a subnet that was deleted only the CIDR is remembered
        if self.configs is not None:
            candidates = tuple(c for c in self.configs if c.subnet_id in known)
            # The primary ENI gives pods nothing in any case. Others in its subnet are from
            # before, unless an ENIConfig names it, for the sake of its security groups say.
            named = {c.subnet_id for c in self.configs}
            excluded: Collection[SubnetId] = {self.home} - named if named else ()
        elif self.listed:
            candidates = tuple(Candidate(s) for s in self.listed if s in known)
            excluded = ()
        elif self.discovery and views:
            candidates = discover(views.values(), self.home, self.cluster)
            excluded = [v.id for v in views.values() if is_excluded(v, self.cluster)]
        else:
            candidates, excluded = (Candidate(self.home),), ()
        if candidates != self.subnets.candidates:
            log.info("subnets", extra={"candidates": [c.subnet_id for c in candidates]})
        self.subnets = replace(self.subnets, candidates=candidates)
        self._excluded = frozenset(excluded)

    def set_configs(self, configs: Sequence[Candidate] | None) -> None:
        """Place new ENIs as these ENIConfigs say, the first first; None: no custom networking."""
        self.configs = None if configs is None else tuple(configs)
        self.answers.drop("subnets")
        self.misplaced = ""
        views = self.subnets.views
        # What EC2 has not told of may be new, or not for this node: it is asked at once.
        self._is_told &= all(c.subnet_id in views for c in self.configs or ())
        self._choose()

    def follow(self, *, cluster: str, discovery: bool, listed: tuple[SubnetId, ...]) -> None:
        """Choose by these settings from now on."""
        if (cluster, discovery, listed) == (self.cluster, self.discovery, self.listed):
            return
        self.cluster, self.discovery, self.listed = cluster, discovery, listed
        self.answers.drop("subnets")
        self._choose()

    def set_groups(self, groups: Sequence[SecurityGroupId]) -> None:
        """Give new ENIs these groups where no ENIConfig names its own."""
        self.groups = tuple(groups)

    def set_mode(self, mode: Kind) -> None:
        """Ask for this kind wherever it can be had."""
        self.subnets = replace(self.subnets, mode=mode)

    def excludes(self, subnet_id: SubnetId) -> bool:
        """Whether pods get no new addresses of this subnet."""
        return subnet_id in self._excluded

    async def cidr(self, subnet_id: SubnetId, priority: Priority) -> IPv4Network:
        """Return a subnet's CIDR, which never changes."""
        if subnet_id not in self.cidrs:
            found = await self.line.call(priority, self.ec2.subnet, subnet_id)
            self.cidrs[subnet_id] = found.cidr
        return self.cidrs[subnet_id]

    # Decisions -------------------------------------------------------------------------
    def new_eni(self, now: Instant) -> tuple[SubnetId, Kind] | None:
        """Return where a new ENI should go and what it gets, None if nowhere now."""
        found = self.subnets.place(now)
        return None if found is None else (found[0].subnet_id, found[1])

    def kinds(
        self, rooms: Mapping[SubnetId, int], now: Instant, *, may_attach: bool
    ) -> Mapping[SubnetId, Kind | None]:
        """Return what each subnet of an attached ENI gives now."""
        return self.subnets.kinds(rooms, now, may_attach=may_attach)

    def place(self, subnet_id: SubnetId) -> Place:
        """Return the whole of where a new ENI goes."""
        chosen = (c for c in self.subnets.candidates if c.subnet_id == subnet_id)
        groups = next((c.security_groups for c in chosen), ())
        return Place(subnet_id, self.cidrs[subnet_id], groups or self.groups)

    def no_room(self) -> EniError:
        """Return the sentence for a node that may attach an ENI and has nowhere to put it."""
        candidates = [c.subnet_id for c in self.subnets.candidates]
        if not candidates:
            where = f"{self.vpc_id} in {self.availability_zone}"
            words = f"no tag or setting allows a subnet of {where}"
            return RefusedError(words, action="CreateNetworkInterface")
        told = (self.subnets.explain(subnet_id, Kind.SINGLE) for subnet_id in candidates)
        return SubnetExhaustedError("; ".join(told), action="CreateNetworkInterface")

    # What EC2 answered -----------------------------------------------------------------
    def refused(
        self, subnet_id: SubnetId, kind: Kind, count: int, now: Instant, roll: float
    ) -> None:
        """Ask less of *kind* of this subnet, which refused *count* blocks, for a while."""
        inhibitions = self.subnets.inhibitions.refused(subnet_id, kind, count, now, roll)
        self.subnets = replace(self.subnets, inhibitions=inhibitions)

    def granted(self, subnet_id: SubnetId, kind: Kind, now: Instant) -> None:
        """Hold nothing against *kind* of this subnet any more."""
        inhibitions = self.subnets.inhibitions.granted(subnet_id, kind, now)
        self.subnets = replace(self.subnets, inhibitions=inhibitions)

    def limits(self, now: Instant) -> Mapping[tuple[SubnetId, Kind], int]:
        """Return how many blocks one call may ask for, where there is a limit now."""
        return self.subnets.inhibitions.limits(now)

    async def explain(self, subnet_id: SubnetId, kind: Kind) -> str:
        """Return a sentence for an operator: why the subnet may have refused *kind*."""
        if kind is Kind.PREFIX:
            await self._tell_reservations(subnet_id, Priority.SWEEP)
            self._whys[subnet_id] = self.subnets.explain(subnet_id, kind)
        return self.subnets.explain(subnet_id, kind)

    def without_prefixes(self, now: Instant) -> str:
        """Return why subnets are asked for no /28 now, though single addresses may serve; or ""."""
        forbids = self.subnets.inhibitions.forbids
        return "; ".join(w for s, w in self._whys.items() if forbids(s, Kind.PREFIX, now))


def _view(subnet: Subnet, former: Mapping[SubnetId, SubnetView]) -> SubnetView:
    known = former.get(subnet.id)
    return SubnetView(
        id=subnet.id,
        available=subnet.available,
        tags=subnet.tags,
        reservations=known.reservations if known else (),
    )
