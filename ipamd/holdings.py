"""The pool and the ENIs' lives, kept in step. Shell (the loop's).

What a flight brings back enters the pool here, and what leaves it is given up here, so that
whoever grows, looks or shrinks does both in the same order: a block is guarded and
journalled before pods may have it, and no pod's before EC2 is asked to take it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from eni.model import Block, EniId, SubnetId
from ipamd.blocks import Ready
from ipamd.budget import Priority
from ipamd.clock import Instant
from ipamd.drift import Drift
from ipamd.flights import TROUBLES
from ipamd.intents import EniState
from ipamd.lifecycle import Lifecycle
from ipamd.places import Places
from ipamd.pool import Assigned, Cooling, Pool, PoolEni
from ipamd.terms import Terms


class Queue(Protocol):
    """The ADDs that wait."""

    @property
    def waiting(self) -> int:
        """How many."""

    def hand_out(self) -> None:
        """Give them what the pool has."""

    def cools(self) -> None:
        """Know that some address has begun to cool."""


@dataclass(slots=True)
class Holdings:
    """What the node holds. Owned by the loop."""

    pool: Pool
    queue: Queue
    lifecycle: Lifecycle
    places: Places
    clock: Callable[[], Instant]
    terms: Terms
    drift: Drift = field(default_factory=Drift)
    died: Instant | None = None
    """When the pods of the boot before this one died, if that was a moment ago."""
    _strays: dict[EniId, frozenset[Block]] = field(default_factory=dict)
    """What EC2 has given an ENI and a pod has of another, where it was taken by hand."""

    @property
    def priority(self) -> Priority:
        """How urgent growth is now."""
        return Priority.STARVING if self.queue.waiting else Priority.STEADY

    def apply_terms(self) -> None:
        """Let every ENI of the pool be as the terms and its subnet have it."""
        for eni in tuple(self.pool.enis.values()):
            excluded = self._is_excluded(eni.number, eni.subnet_id)
            wanted = replace(eni, slots=self._slots_of(eni.id), excluded=excluded)
            if wanted != eni:
                self.pool.put_eni(wanted)

    def _slots_of(self, eni_id: EniId) -> int:
        return max(0, self.terms.slots - len(self._strays.get(eni_id, ())))

    def see_strays(self, eni_id: EniId, blocks: Iterable[Block]) -> None:
        """Learn which *blocks* EC2 has given an ENI; those that a pod has of another fill slots.

        Somebody took them from the other by hand, and EC2 gives addresses again at once.
        """
        eni, slots = self.pool.enis.get(eni_id), self.pool.slots
        held = ((b, slot) for b in blocks if (slot := slots.get(b[0])) is not None)
        self._strays[eni_id] = frozenset(b for b, slot in held if slot.eni_id != eni_id)
        if eni is not None and eni.slots != self._slots_of(eni_id):
            self.pool.put_eni(replace(eni, slots=self._slots_of(eni_id)))

    def _is_excluded(self, number: int, subnet_id: SubnetId) -> bool:
        is_reserved = number == 1 and self.terms.primary_excluded
        return is_reserved or self.places.excludes(subnet_id)

    def welcome(self, ready: Ready, *, found: bool = False) -> None:
        """Take an ENI that has come, or that EC2 showed (*found*)."""
        if ready.eni_id not in self.pool.enis:
            self.pool.put_eni(
                PoolEni(
                    ready.eni_id,
                    ready.number,
                    self._slots_of(ready.eni_id),
                    ready.subnet_id,
                    self.clock(),
                    excluded=self._is_excluded(ready.number, ready.subnet_id),
                    stays=ready.stays,
                )
            )
        self.offer(ready, found=found)

    def offer(self, ready: Ready, *, found: bool = False) -> None:
        """Take blocks that have come, or that EC2 showed (*found*), and serve whoever waits.

        What is found and was not in the journal, a pod of before a reboot may have had.
        """
        self.lifecycle.blocks.taken(ready.blocks)
        if ready.eni_id in self.pool.enis:
            self._let_go(ready)
            new = self.pool.add(ready.eni_id, ready.blocks)
            self.see_strays(ready.eni_id, (*self._strays.get(ready.eni_id, ()), *ready.blocks))
            self.drift.heard_of(b for b in ready.blocks if b not in self._strays[ready.eni_id])
            addresses = [address for block in new for address in block]
            if found and self.died is not None:
                for address in addresses:
                    self.pool.cool(address, self.died, purged=True)
            if any(isinstance(self.pool.slots[a].state, Cooling) for a in addresses):
                self.queue.cools()
            self.pool.set_taken(ready.hosts)
            self.queue.hand_out()

    def _let_go(self, ready: Ready) -> None:
        """Forget what another ENI is thought to have of blocks that came with this one.

        It has gone perhaps while the daemon was dead, or somebody took them from it, and EC2
        gives addresses again at once. What a pod has stays.
        """
        slots = self.pool.slots
        known = [slots[a] for block in ready.blocks for a in block if a in slots]
        others = {slot.block: None for slot in known if slot.eni_id != ready.eni_id}
        self.pool.drop(tuple(block for block in others if not self.has_pod(block)))

    def has_pod(self, block: Block) -> bool:
        """Whether a pod has an address of this block."""
        slots = (self.pool.slots.get(address) for address in block)
        return any(slot is not None and isinstance(slot.state, Assigned) for slot in slots)

    def drop(self, blocks: Iterable[Block]) -> None:
        """Forget blocks that are EC2's again.

        What cools of them keeps its row: a life after this one lets it cool on, too.
        """
        gone = tuple(blocks)
        self.drift.give_back(gone, self.clock())
        self.pool.drop(gone)

    async def give_up(self, eni_id: EniId, block: Block) -> None:
        """Forget a block that is EC2's again, and stop guarding it."""
        self.drop((block,))
        await self.lifecycle.blocks.give_up(eni_id, (block,))

    async def remove(self, eni_id: EniId) -> None:
        """Bring an ENI to its end, unless a pod has an address of it after all.

        One that EC2 does not let go serves on; one that it only does not delete takes no place.
        """
        endings = self.lifecycle.endings
        if self.in_use(eni_id):
            self._reopen(eni_id)
            await endings.keep(eni_id)
            return
        try:
            await endings.remove(eni_id, lambda: self._close(eni_id), lambda: self._gone(eni_id))
        except TROUBLES:
            intent = self.lifecycle.book.intent_of(eni_id)
            if intent is not None and intent.state is not EniState.DRAINING:
                self._reopen(eni_id)
            else:
                self._close(eni_id)
            raise

    def _close(self, eni_id: EniId) -> bool:
        """Give nothing new of an ENI, unless a pod has an address of it; return whether."""
        if self.in_use(eni_id):
            self.pool.reopen_eni(eni_id)
            return False
        if eni_id in self.pool.enis:
            self.pool.close_eni(eni_id)
        return True

    def _reopen(self, eni_id: EniId) -> None:
        """Let an ENI serve again, and whoever waits have what it has."""
        self.pool.reopen_eni(eni_id)
        self.queue.hand_out()

    def _gone(self, eni_id: EniId) -> None:
        """Forget an ENI that is off the instance."""
        self.drift.give_back([eni_id], self.clock())
        self._strays.pop(eni_id, None)
        self.pool.remove_eni(eni_id)

    async def disown(self, eni_id: EniId) -> None:
        """Let go of an ENI that somebody else has now, once no pod has an address of it."""
        if not self.in_use(eni_id):
            await self.lifecycle.endings.disown(eni_id)
            self._strays.pop(eni_id, None)
            self.pool.remove_eni(eni_id)

    def in_use(self, eni_id: EniId) -> bool:
        """Whether a pod has an address of this ENI."""
        return any(
            slot.eni_id == eni_id and isinstance(slot.state, Assigned)
            for slot in self.pool.slots.values()
        )
