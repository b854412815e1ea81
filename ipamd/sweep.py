"""Leaked ENIs: made for pods, used by nobody, known to no intent. Shell.

Every node sweeps what carries its own instance id; where a cluster elects a sweeper, that one
node also sweeps what nodes that are gone have left. Two looks, then a look by id, then Delete:
EC2 refuses it while anything is attached, so the worst that a mistake can do is refused.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass

from eni.errors import RefusedError
from eni.model import Eni, EniId
from ipamd.budget import Priority
from ipamd.clock import Instant
from ipamd.flights import Flights
from ipamd.intents import CLUSTER_TAG, CREATED_TAG, DESCRIPTION, INSTANCE_TAG, INTENT_TAG
from ipamd.lifecycle import Lifecycle

log = logging.getLogger(__name__)

SECOND_LOOK_SECONDS = 60.0
"""Between the two looks: far more than creating and attaching take together."""

SWEEP_SECONDS = 3600.0
"""Between sweeps, give or take a half; the peer's period."""

YOUNG_SECONDS = 300.0
"""A foreign ENI younger than this may be on its way to its instance; the peer waits as long."""

DELETES = 25
"""Of one sweep, so that cleaning up after a large scale-in takes no budget from growth."""

NAME = "sweep"

NO_CLUSTER = (
    "CLUSTER_NAME is not set, so nobody deletes ENIs that nodes which are gone have left: set it"
    " on every node, in the environment or the ConfigMap, and restart the daemons"
)
"""Without it this cluster's ENIs are not told from another's in the same account."""


@dataclass(slots=True)
class Sweep:
    """Deletes leaked ENIs. Owned by the loop."""

    lifecycle: Lifecycle
    flights: Flights
    clock: Callable[[], Instant]
    random: Callable[[], float]
    is_elected: bool = False
    """Whether this node sweeps for the cluster."""
    may_delete: Callable[[], bool] = lambda: True
    """Asked before each deletion of another node's ENI: an election may be lost meanwhile."""
    _next: Instant | None = None
    _seen: frozenset[EniId] = frozenset()
    _is_said: bool = False

    @property
    def trouble(self) -> str:
        """Why this node cannot sweep for the cluster, as it should; "" if it can, or need not."""
        is_hindered = self.is_elected and not self.lifecycle.book.home.cluster_name
        return NO_CLUSTER if is_hindered else ""

    def elect(self, *, is_elected: bool) -> None:
        """Sweep for the cluster, too, or no longer."""
        if is_elected and not self.is_elected:
            self._next = None
        self.is_elected = is_elected

    def begin(self) -> None:
        """Start a sweep if one is due."""
        is_due = self._next is None or self.clock().boot >= self._next.boot
        if is_due and self.flights.may_start(NAME):
            self.flights.start(NAME, self._sweep())

    async def _sweep(self) -> None:
        self._say_trouble()
        own = ((INSTANCE_TAG, self.lifecycle.book.home.identity.instance_id),)
        own_orphans = {eni.id for eni in await self._available(own) if self._is_orphan(eni)}
        orphans = set(own_orphans)
        cluster = self.lifecycle.book.home.cluster_name
        if self.is_elected and cluster:
            tags = ((INSTANCE_TAG, ""), (CLUSTER_TAG, cluster))
            orphans |= {eni.id for eni in await self._available(tags) if self._is_old(eni)}
        again = sorted(orphans & self._seen)[:DELETES]
        for eni_id in again:
            if eni_id in own_orphans or self.may_delete():
                await self._delete(eni_id)
        self._seen = frozenset(orphans.difference(again))
        wait = SECOND_LOOK_SECONDS if self._seen else SWEEP_SECONDS * (0.5 + self.random())
        self._next = self.clock().later(wait)

    def _say_trouble(self) -> None:
        if self.trouble and not self._is_said:
            log.warning("no sweep for the cluster", extra={"reason": self.trouble})
            self._is_said = True

    async def _delete(self, eni_id: EniId) -> None:
        """Delete a leaked ENI; one that EC2 does not let go keeps no other."""
        try:
            await self.lifecycle.endings.delete_leaked(eni_id)
        except RefusedError as error:
            told = {"eni_id": eni_id, "id": error.id, "reason": str(error)}
            log.warning("leaked eni not deleted", extra=told)

    async def _available(self, tags: tuple[tuple[str, str], ...]) -> tuple[Eni, ...]:
        ec2, line = self.lifecycle.book.ec2, self.lifecycle.book.line
        return await line.call(Priority.SWEEP, ec2.available, tags)

    def _is_orphan(self, eni: Eni) -> bool:
        known = {intent.eni_id for intent in self.lifecycle.book.intents.values()}
        return (
            eni.attachment is None
            and eni.id not in known
            and eni.tags.get(INTENT_TAG) not in self.lifecycle.book.intents
            and eni.description.startswith(DESCRIPTION)
        )

    def _is_old(self, eni: Eni) -> bool:
        """Whether *eni*, perhaps another node's, was made long ago, as far as it says."""
        try:
            made = dt.datetime.fromisoformat(eni.tags.get(CREATED_TAG, ""))
        except ValueError:
            return False
        age = self.clock().wall - made.timestamp()
        return age >= YOUNG_SECONDS and self._is_orphan(eni)
