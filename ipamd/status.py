"""What the daemon shows of itself: `enid status -o json`, and the source of the gauges. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypedDict

from ipamd.budget import Count
from ipamd.caches import Usage
from ipamd.clock import Instant
from ipamd.lease import LeaseRow
from ipamd.pool import Cooling, EniCensus, Pool


class EniStatus(TypedDict):
    """One ENI that carries pods; counts are addresses, but *slots* and what fills them.

    A *closed* ENI is on its way out; an *excluded* one gives pods nothing new.
    """

    id: str
    number: int
    table: str
    subnet: str
    slots: int
    singles: int
    prefixes: int
    assigned: int
    cooling: int
    free: int
    leaving: int
    taken: int
    closed: bool
    excluded: bool


class LeaseStatus(TypedDict):
    """One attachment. *superseded*: a younger sandbox of the same pod has one, too."""

    address: str
    pod: str
    container_id: str
    ifname: str
    eni_id: str
    since: float
    superseded: bool


class CoolingStatus(TypedDict):
    """One address that was released; *seconds_left* until it may be used again."""

    address: str
    eni_id: str
    seconds_left: float


class EC2ErrorCount(TypedDict):
    """How often one action failed in one way."""

    action: str
    id: str
    count: int


class ActionStatus(TypedDict):
    """What one action of EC2 cost: *waited* in our own limiter, *answered* by EC2."""

    action: str
    requests: int
    throttles: int
    waiting: int
    waited_seconds: float
    answered_seconds: float


class CacheStatus(TypedDict):
    """What one cache holds, and how often it helped."""

    name: str
    size: int
    used: int
    hits: int
    misses: int
    evictions: int


class ClusterStatus(TypedDict):
    """How the daemon stands with Kubernetes: off, away or connected, and what is wrong."""

    link: str
    sentence: str


class Status(TypedDict):
    """Everything."""

    version: str
    mode: str
    modes: list[str]
    trouble: str | None
    troubles: list[str]
    cluster: ClusterStatus
    pool: str
    instance_id: str
    instance_type: str
    primary: str
    ready: bool
    max_enis: int
    waiting: int
    wanted: int
    enis: list[EniStatus]
    unmanaged_enis: list[str]
    leases: list[LeaseStatus]
    cooling: list[CoolingStatus]
    ec2: list[ActionStatus]
    ec2_errors: list[EC2ErrorCount]
    caches: list[CacheStatus]


def enis_of(census: Iterable[EniCensus]) -> list[EniStatus]:
    """Return the pool's ENIs, by number."""
    return [
        EniStatus(
            id=c.eni.id,
            number=c.eni.number,
            table="main" if c.eni.is_primary else str(c.eni.number),
            subnet=c.eni.subnet_id,
            slots=c.eni.slots,
            singles=c.singles,
            prefixes=c.prefixes,
            assigned=c.assigned,
            cooling=c.cooling,
            free=c.free,
            leaving=c.leaving,
            taken=c.taken,
            closed=c.eni.closed,
            excluded=c.eni.excluded,
        )
        for c in census
    ]


def leases_of(rows: Iterable[LeaseRow]) -> list[LeaseStatus]:
    """Return the leases, oldest first."""
    ordered = sorted(rows, key=lambda row: row.started_ns)
    newest = {_pod_key(row): row.sandbox for row in ordered}
    return [
        LeaseStatus(
            address=",".join(map(str, row.addresses)),
            pod=f"{row.pod.namespace}/{row.pod.name}",
            container_id=row.sandbox.container_id,
            ifname=row.sandbox.ifname,
            eni_id=row.eni_id,
            since=row.since,
            superseded=bool(row.pod.uid) and newest[_pod_key(row)] != row.sandbox,
        )
        for row in ordered
    ]


def _pod_key(row: LeaseRow) -> tuple[str, str, str]:
    return (row.pod.uid, row.sandbox.network, row.sandbox.ifname)


def cooling_of(pool: Pool, now: Instant, cooldown_seconds: float) -> list[CoolingStatus]:
    """Return the cooling addresses, the next to be ready first."""
    found = [
        CoolingStatus(
            address=str(address),
            eni_id=slot.eni_id,
            seconds_left=round(max(0.0, cooldown_seconds - now.elapsed(slot.state.since)), 1),
        )
        for address, slot in pool.slots.items()
        if isinstance(slot.state, Cooling)
    ]
    return sorted(found, key=lambda c: c["seconds_left"])


def actions_of(
    requests: Mapping[str, int], counts: Mapping[str, Count], waiting: Mapping[str, int]
) -> list[ActionStatus]:
    """Return what each action cost, by name."""
    return [
        ActionStatus(
            action=action,
            requests=requests.get(action, 0),
            throttles=count.throttles,
            waiting=waiting.get(action, 0),
            waited_seconds=round(count.waited_seconds, 3),
            answered_seconds=round(count.answered_seconds, 3),
        )
        for action, count in sorted(counts.items())
    ]


def caches_of(usages: Iterable[Usage]) -> list[CacheStatus]:
    """Return what each cache holds."""
    return [
        CacheStatus(
            name=u.name,
            size=u.size,
            used=u.used,
            hits=u.hits,
            misses=u.misses,
            evictions=u.evictions,
        )
        for u in usages
    ]


def errors_of(errors: Counter[tuple[str, str]]) -> list[EC2ErrorCount]:
    """Return EC2's errors as rows."""
    return [EC2ErrorCount(action=a, id=i, count=n) for (a, i), n in sorted(errors.items())]
