"""What the daemon shows of itself: `enid status -o json`, and the source of the gauges. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypedDict

from ipamd.clock import Instant
from ipamd.lease import LeaseRow
from ipamd.pool import Cooling, Pool

MODES = ("normal", "no-journal", "ec2-away")


class EniStatus(TypedDict):
    """One ENI that carries pods; counts are addresses."""

    id: str
    number: int
    table: str
    capacity: int
    assigned: int
    cooling: int
    free: int
    leaving: int
    taken: int
    closed: bool


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


class Status(TypedDict):
    """Everything."""

    version: str
    mode: str
    trouble: str | None
    instance_id: str
    instance_type: str
    primary: str
    ready: bool
    max_enis: int
    waiting: int
    enis: list[EniStatus]
    unmanaged_enis: list[str]
    leases: list[LeaseStatus]
    cooling: list[CoolingStatus]
    ec2_calls: dict[str, int]
    ec2_errors: list[EC2ErrorCount]


def enis_of(pool: Pool) -> list[EniStatus]:
    """Return the pool's ENIs, by number."""
    return [
        EniStatus(
            id=c.eni.id,
            number=c.eni.number,
            table="main" if c.eni.is_primary else str(c.eni.number),
            capacity=c.eni.capacity,
            assigned=c.assigned,
            cooling=c.cooling,
            free=c.free,
            leaving=c.leaving,
            taken=c.taken,
            closed=c.eni.closed,
        )
        for c in pool.census()
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


def errors_of(errors: Counter[tuple[str, str]]) -> list[EC2ErrorCount]:
    """Return EC2's errors as rows."""
    return [EC2ErrorCount(action=a, id=i, count=n) for (a, i), n in sorted(errors.items())]
