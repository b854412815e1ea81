"""This node's Node: condition, taints, pod addresses, written as they change. Shell (the loop's).

Part of the daemon that is joined to a cluster. What is wanted is compared with what the watch
shows, again and again; so what somebody else has changed is put back, and a Node that is
registered anew is told anew. Nothing waits for it: what cannot be written is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from ipamd import kube_objects
from ipamd.availability import (
    Answer,
    Latch,
    Supply,
    Verdict,
    hindrance,
    is_short,
    supply_of,
    verdict,
)
from ipamd.cluster import ClusterError, Link, NodeSeen, OthersFirstError, Patch, backoff_seconds
from ipamd.daemon import Daemon
from ipamd.watch import Cluster

log = logging.getLogger(__name__)

WRITE_SECONDS: Final = 10.0
"""Between two writes of one kind, at least: 1,000 nodes in trouble are 100 a second in all."""

HEARTBEAT_SECONDS: Final = 300.0
"""How often the condition is written though nothing changed; kubelet's for the Node's status."""

SETTLE_SECONDS: Final = 10.0
"""How long there must be no address before the condition says so, also after a start: most are on
their way."""

LOOK_SECONDS: Final = 2.0
"""Between looks at what should be written."""

EAGER_SECONDS: Final = 0.2
"""The same, until the start-up taint is gone: pods wait for that."""


def look(daemon: Daemon) -> Supply:
    """Return what tells whether another pod would get an address."""
    shortage = daemon.hindered(hindrance(daemon.engine.flights.troubles.values()))
    return supply_of(
        daemon.pool.census(),
        shortage,
        daemon.engine.terms,
        waiting=daemon.attachments.waiting,
        is_known=daemon.engine.census.done.is_set(),
    )


class Pace:
    """When the next write of one kind may be: not soon after one, later after failures."""

    def __init__(self) -> None:
        self._due = float("-inf")
        self._failures = 0

    def is_due(self, now: float) -> bool:
        """Return whether one may be."""
        return now >= self._due

    def wrote(self, now: float) -> None:
        """Note that one was taken."""
        self._failures = 0
        self._due = now + WRITE_SECONDS

    def failed(self, now: float, jitter: float) -> None:
        """Note that one was not."""
        self._failures += 1
        self._due = now + WRITE_SECONDS + backoff_seconds(self._failures, jitter)


class NodeWriter:
    """Writes what the Node says of pod addresses, and where it keeps pods away."""

    def __init__(self, daemon: Daemon, cluster: Cluster) -> None:
        self._daemon, self._cluster = daemon, cluster
        self._clock, self._jitter = daemon.ports.clock, daemon.ports.random
        self._path = kube_objects.node_path(cluster.node)
        self._status, self._spec = Pace(), Pace()
        self._short: Latch | None = None
        """Whether pods should go elsewhere; at first, what the Node says of it."""
        self._available = Latch(is_on=True)
        self._shown: Verdict | None = None
        """The verdict that holds, None at first: what is worse is shown only when it lasts."""
        self._beat = self._clock().boot + HEARTBEAT_SECONDS * self._jitter()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            supply = look(self._daemon)
            self._judge(supply)
            seen = self._cluster.seen
            if seen is not None and self._cluster.standing.link is Link.CONNECTED:
                await self._write_taints(seen, supply)
                await self._write_status(seen, supply)
            await asyncio.sleep(EAGER_SECONDS if self._is_awaited() else LOOK_SECONDS)

    def _judge(self, supply: Supply) -> None:
        """Settle what is told of the pool."""
        found, now = verdict(supply), self._clock().boot
        is_good = found.status is Answer.TRUE
        patience = 0.0 if is_good else SETTLE_SECONDS
        self._available = self._available.see(now, patience, seen=is_good)
        if self._available.is_on == is_good:
            self._shown = found

    # Taints ----------------------------------------------------------------------------
    async def _write_taints(self, seen: NodeSeen, supply: Supply) -> None:
        settings, now = self._daemon.settings, self._clock().boot
        name = settings.exhausted_taint
        short = self._short or Latch(kube_objects.is_tainted(seen.taints, name))
        is_seen = is_short(supply, settings.exhausted_below)
        self._short = short.see(now, settings.exhausted_seconds, seen=is_seen)
        wanted = kube_objects.taints_wanted(
            seen.taints,
            startup=settings.startup_taint,
            is_usable=bool(supply.free or supply.assigned),
            exhausted=name,
            is_exhausted=self._short.is_on,
        )
        if wanted != seen.taints and self._spec.is_due(now):
            body = kube_objects.taints_patch(seen, wanted)
            if await self._patch("Node taints", self._spec, self._path, body, Patch.MERGE):
                log.info("taints", extra={"now": [taint.get("key") for taint in wanted]})

    def _is_awaited(self) -> bool:
        seen, name = self._cluster.seen, self._daemon.settings.startup_taint
        return bool(name and seen and any(taint.get("key") == name for taint in seen.taints))

    # Status ----------------------------------------------------------------------------
    async def _write_status(self, seen: NodeSeen, supply: Supply) -> None:
        now = self._clock()
        changes = self._resource(seen, supply) | self._conditions(seen, now.boot, now.wall)
        if changes and self._status.is_due(now.boot):
            path = f"{self._path}/status"
            body = {"status": changes}
            if await self._patch("Node status", self._status, path, body, Patch.STRATEGIC):
                self._beat = now.boot + HEARTBEAT_SECONDS * (1 - self._jitter() / 5)

    def _resource(self, seen: NodeSeen, supply: Supply) -> dict[str, Any]:
        """Return what of the extended resource is not as it should be."""
        if not self._daemon.settings.pod_address_resource:
            return kube_objects.resource(None) if seen.resource is not None else {}
        is_right = seen.resource == str(supply.total)
        # Before EC2 has told, what a former life has said is a better guess.
        return kube_objects.resource(supply.total) if supply.is_known and not is_right else {}

    def _conditions(self, seen: NodeSeen, now: float, wall: float) -> dict[str, Any]:
        """Return what of the condition is not as it should be."""
        if not self._daemon.settings.node_condition:
            return {"conditions": [kube_objects.NO_CONDITION]} if seen.condition else {}
        shown = self._shown
        if shown is None:
            return {}
        if seen.condition == (shown.status, shown.reason) and now < self._beat:
            return {}
        return {"conditions": [kube_objects.condition(shown, seen.condition, wall)]}

    async def _patch(
        self, what: str, pace: Pace, path: str, body: dict[str, Any], kind: Patch
    ) -> bool:
        """Write, and return whether it was taken; what was not is due later."""
        try:
            await self._cluster.patch(what, path, body, kind)
        except OthersFirstError:
            return False  # the watch shows what they have made of it
        except ClusterError:
            self._daemon.on_counted("unwritten_node", 1)
            pace.failed(self._clock().boot, self._jitter())
            return False
        self._daemon.on_counted("written_node", 1)
        pace.wrote(self._clock().boot)
        return True
