"""Who of all nodes sweeps leaked ENIs: one Lease, and when to write it. Pure.

Candidates read the Lease now and then, and compare no clocks: each notes when, by its own
clock, it first saw the object's present version. Only when that version has stood for the
whole of the lease may another take over. The holder stops earlier: its leadership ends
*deadline_seconds* after it asked for the last renewal that was granted. So there are
never two leaders unless one clock runs lease/deadline (1.5) times as fast as another.

    absent ───────────────────────────> CREATE ─────> on trial for the lease ─┐
    held by us, and nobody knows why ──> RENEW ─────> on trial for the lease ─┤
    held by us ────────────────────────> RENEW ───────────────────────────────┼─> leader until
    another's, stood for the lease ────> TAKE_OVER ───────────────────────────┘   the deadline
    another's ─────────────────────────> STAND_BY

The trial is for a Lease that somebody deletes: whoever led by it may do so until its
deadline, and no version tells of it. A write carries the version that was read, so the API
server grants one of two. Nobody gives the Lease back at its end: a daemon that restarts on the
same node finds itself in it, and goes on after its trial.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ipamd.cluster import NODES_ANNOTATION, LeaseView

NAME = "enid-sweeper"
"""The Lease, in the namespace of the daemon."""

READS_PER_SECOND = 10.0
"""How many reads of the Lease all candidates of a cluster make together, at most."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a leadership lasts, for all candidates alike.

    The peer's leaked ENIs wait an hour for their sweep, so nothing here hurries.
    """

    lease_seconds: int = 60
    deadline_seconds: float = 40.0
    renew_seconds: float = 15.0
    """Two renewals may fail before the deadline."""
    stand_by_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Elector:
    """What one candidate knows; times are of its own clock, in seconds.

    *seen* is the Lease's version last read, *since* when it was first read. *trial_until*
    is None while we do not hold the Lease.
    """

    me: str
    terms: Terms = Terms()
    seen: str = ""
    since: float = 0.0
    trial_until: float | None = None
    leads_until: float = float("-inf")

    def leads(self, now: float) -> bool:
        """Return whether we are the leader at this moment."""
        return now < self.leads_until


class Action(StrEnum):
    """What a candidate does to the Lease."""

    CREATE = "create"
    RENEW = "renew"
    TAKE_OVER = "take over"
    STAND_BY = "stand by"


def step(elector: Elector, lease: LeaseView | None, now: float) -> tuple[Elector, Action]:
    """Return what to do about the Lease as it was just read, None if there is none.

    *now* is read after the answer came: late is safe, early is not.
    """
    if lease is None:
        return replace(elector, trial_until=None), Action.CREATE
    if lease.version != elector.seen:
        elector = replace(elector, seen=lease.version, since=now)
    if lease.holder == elector.me:
        if elector.trial_until is None:
            elector = _on_trial(elector, now)
        return elector, Action.RENEW
    elector = replace(elector, trial_until=None, leads_until=float("-inf"))
    if now - elector.since >= max(lease.seconds, elector.terms.lease_seconds):
        return elector, Action.TAKE_OVER
    return elector, Action.STAND_BY


def _on_trial(elector: Elector, now: float) -> Elector:
    return replace(elector, trial_until=now + elector.terms.lease_seconds)


def granted(
    elector: Elector, action: Action, lease: LeaseView, *, asked_at: float, now: float
) -> Elector:
    """Return the candidate after the API server has taken its write.

    *asked_at* is read before the request was sent, because whoever sees the write sees it
    later; *now* after the answer came.
    """
    elector = replace(elector, seen=lease.version, since=asked_at)
    if action is Action.CREATE:
        return _on_trial(elector, now)
    if action is Action.TAKE_OVER:
        elector = replace(elector, trial_until=float("-inf"))
    assert elector.trial_until is not None
    if asked_at < elector.trial_until:
        return elector
    return replace(elector, leads_until=asked_at + elector.terms.deadline_seconds)


def pause_seconds(elector: Elector, action: Action, nodes: int, jitter: float) -> float:
    """Return how long to wait until the Lease is read again; *jitter* is 0 to 1.

    The more nodes stand by, the less often each of them reads.
    """
    if action is not Action.STAND_BY:
        return elector.terms.renew_seconds
    pause = max(elector.terms.stand_by_seconds, nodes / READS_PER_SECOND)
    return pause * (0.75 + jitter / 2)


def draft(
    elector: Elector,
    action: Action,
    found: Mapping[str, Any] | None,
    *,
    wall: float,
    nodes: int | None,
) -> dict[str, Any]:
    """Return the Lease to write, made from the one that was read; what others put in it stays.

    *nodes* None keeps what is written there. *wall* only informs a reader: no candidate
    compares it.
    """
    moment = dt.datetime.fromtimestamp(wall, dt.UTC).isoformat(timespec="microseconds")
    time = moment.replace("+00:00", "Z")
    former: Mapping[str, Any] = found or {}
    metadata = {"name": NAME, **former.get("metadata", {})}
    metadata.pop("managedFields", None)
    if nodes is not None:
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            NODES_ANNOTATION: str(nodes),
        }
    spec = {
        **(former.get("spec") or {}),
        "holderIdentity": elector.me,
        "leaseDurationSeconds": elector.terms.lease_seconds,
        "renewTime": time,
    }
    if action is not Action.RENEW:
        spec["acquireTime"] = time
        spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + (found is not None)
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": spec,
    }
