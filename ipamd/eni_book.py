"""The ENIs of this node as its journal has them, and the ways to them. Shell (the loop's).

What is in memory is never behind the journal, nor ahead of it: an ENI's state changes here,
and whoever cannot write it down has not changed it. Every EC2 call, kernel call and write
for ENIs goes through here, each into its thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cni.dataplane import USUAL_ROUTING, Routing
from cni.kernel import NodeNet
from eni.calls import Ec2Calls
from eni.errors import NotFoundError, RefusedError
from eni.model import Block, Eni, EniId, Identity, InstanceId
from ipamd.budget import Priority
from ipamd.clock import Instant
from ipamd.ec2_line import Ec2Line
from ipamd.intents import CLUSTER_TAG, OWNER, OWNER_TAG, Intent
from ipamd.journal import Journal, JournalError
from ipamd.ports import Threads, run_in

log = logging.getLogger(__name__)
T = TypeVar("T")

SECOND_LOOK_SECONDS = 30.0
"""What EC2 does not show is gone only if it is not shown this much later either: describes
lag behind mutations by seconds."""


@dataclass(frozen=True, slots=True)
class Home:
    """What this node's ENIs have in common. *tags* are the operator's.

    *primary_mtu* None leaves the primary ENI's as the operating system made it.
    """

    identity: Identity
    mtu: int
    tags: tuple[tuple[str, str], ...] = ()
    cluster_name: str = ""
    primary_mtu: int | None = None
    routing: Routing = USUAL_ROUTING


@dataclass(slots=True)
class EniBook:
    """Every ENI of ours, and its state. Owned by the loop."""

    ec2: Ec2Calls
    line: Ec2Line
    net: NodeNet
    journal: Journal
    threads: Threads
    home: Home
    clock: Callable[[], Instant]
    intents: dict[str, Intent] = field(default_factory=dict)
    """Every ENI that is not gone, by token; the journal's copy of it is never ahead."""
    changes: int = 0
    """How often the kernel's side of ENIs was changed."""
    _changing: int = 0
    _absent: dict[str, Instant] = field(default_factory=dict)

    async def load(self) -> None:
        """Read the journal."""
        for intent in await self.write(self.journal.intents):
            self.intents[intent.token] = intent

    def intent_of(self, eni_id: EniId) -> Intent | None:
        """Return the ENI's intent, None if it is not ours."""
        return next((i for i in self.intents.values() if i.eni_id == eni_id), None)

    @property
    def instance_id(self) -> InstanceId:
        """This instance."""
        return self.home.identity.instance_id

    async def call(self, priority: Priority, call: Callable[..., T], *arguments: object) -> T:
        """Return what EC2 answers to *call*, in its turn."""
        return await self.line.call(priority, call, *arguments)

    async def write(self, work: Callable[..., T], *arguments: object) -> T:
        """Return what *work* on the journal returns."""
        return await run_in(self.threads.journal, work, *arguments)

    async def kernel(self, work: Callable[..., T], *arguments: object) -> T:
        """Return what *work* on the kernel's side of ENIs returns."""
        return await run_in(self.threads.net, work, *arguments)

    async def change(self, work: Callable[..., T], *arguments: object) -> T:
        """Change the kernel's side of ENIs; whoever looks at it knows that it moves."""
        self.changes += 1
        self._changing += 1
        try:
            return await self.kernel(work, *arguments)
        finally:
            self._changing -= 1

    @property
    def is_changing(self) -> bool:
        """Whether the kernel's side of ENIs is being changed at this moment."""
        return self._changing > 0

    async def hold(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """Note that an ENI has *blocks*. Raises JournalError."""
        await self.write(self.journal.hold, eni_id, tuple(blocks), self.clock().wall)

    def cluster_tags(self) -> dict[str, str]:
        """Return the tags of what belongs to the cluster, if its name is known."""
        name = self.home.cluster_name
        return {CLUSTER_TAG: name, OWNER_TAG: OWNER} if name else {}

    def demand_journal(self) -> None:
        """Raise RefusedError if nothing can be written, so that nothing may be asked for."""
        if self.journal.trouble:
            raise RefusedError(self.journal.trouble, action="journal")

    async def put(self, intent: Intent) -> Intent:
        """Write *intent* as it now is. On JournalError it is as it was before."""
        before = self.intents.get(intent.token)
        self.intents[intent.token] = intent
        try:
            self.demand_journal()
            await self.write(self.journal.put, intent, self.clock().wall)
        except (JournalError, RefusedError):
            if before is None:
                del self.intents[intent.token]
            else:
                self.intents[intent.token] = before
            raise
        log.info(
            "eni",
            extra={
                "state": intent.state.value,
                "eni_id": intent.eni_id,
                "index": intent.device_index,
            },
        )
        return intent

    async def forget(self, intent: Intent) -> None:
        """Take an ENI that is gone, or another's, out of the journal."""
        await self.write(self.journal.forget, intent)
        self.intents.pop(intent.token, None)
        self._absent.pop(intent.token, None)

    def is_second_look(self, token: str) -> bool:
        """Whether *token*'s ENI was not shown by EC2 long enough to believe it is not there."""
        first = self._absent.setdefault(token, self.clock())
        return self.clock().elapsed(first) >= SECOND_LOOK_SECONDS

    def was_shown(self, token: str) -> None:
        """Note that EC2 has told of *token*'s ENI: absences are counted from here on."""
        self._absent.pop(token, None)

    async def describe(self, intent: Intent, priority: Priority) -> Eni:
        """Return the ENI. One that EC2 does not know at the second look is forgotten."""
        assert intent.eni_id is not None
        eni = await self.call(priority, self.ec2.eni, intent.eni_id)
        if eni is not None:
            self.was_shown(intent.token)
            return eni
        if self.is_second_look(intent.token):
            await self.forget(intent)
        raise NotFoundError(f"{intent.eni_id} is not there", action="DescribeNetworkInterfaces")

    def is_elsewhere(self, eni: Eni) -> bool:
        """Whether *eni* is attached to another instance."""
        return eni.attachment is not None and eni.attachment.instance_id != self.instance_id
