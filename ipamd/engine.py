"""The pool engine: look, decide, act, one step at a time. Shell.

A round: settle what is unknown (a census of EC2), take up intents that were left, then
perform `ipamd.decide`'s actions until there are none. EC2 and the kernel are touched on the
cloud thread only; the pool is changed on the loop only, with what the thread returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TypeVar

from cni.kernel import NodeError
from eni.errors import (
    CredentialsError,
    EniError,
    RefusedError,
    UnknownOutcomeError,
    UnreachableError,
)
from eni.model import Address, Eni, EniId
from ipamd import decide
from ipamd.attachments import Attachments
from ipamd.clock import Instant
from ipamd.cloud import UNMANAGED_TAG, Cloud, Ready
from ipamd.decide import Action, AddEni, Assign, RemoveEni, Situation, Targets, Unassign
from ipamd.journal import EniState, Intent, JournalError
from ipamd.pool import Assigned, Free, Pool, PoolEni

log = logging.getLogger(__name__)

T = TypeVar("T")

Trouble = EniError | JournalError | NodeError
"""What a round may end with and the next one try again: EC2, the disk or the kernel refused."""

TROUBLES = (EniError, JournalError, NodeError)

ROUND_SECONDS = 5.0
"""How often the engine looks at the pool when nothing wakes it; the peer's period."""

CENSUS_SECONDS = 3600.0
"""How often EC2 is asked what is attached although nothing is in doubt."""

CALM_SECONDS = 30.0
"""How long there must be too much before anything is given back; the peer's shrink gate."""

LOOK_AGAIN_SECONDS = 30.0
"""Until the second look, when EC2 did not show what we hold."""

ORPHAN_SECONDS = 60.0
"""Between the two looks before an ENI of ours that nobody uses is deleted."""

MAX_BACKOFF_SECONDS = 60.0


class Engine:
    """Keeps the pool at its targets."""

    def __init__(
        self,
        *,
        attachments: Attachments,
        cloud: Cloud,
        thread: Executor,
        targets: Targets,
        max_enis: int,
        per_eni: int,
        clock: Callable[[], Instant],
        jitter: Callable[[], float],
    ) -> None:
        self.trouble: Trouble | None = None
        self.unmanaged: tuple[EniId, ...] = ()
        self.has_census = False
        self.censused = asyncio.Event()
        """Set once EC2 has told what is ours: from then on EC2 may be asked other things."""
        self._attachments, self._cloud, self._thread = attachments, cloud, thread
        self._targets, self._max_enis, self._per_eni = targets, max_enis, per_eni
        self._clock, self._jitter = clock, jitter
        self._wake = asyncio.Event()
        self._next_census = clock()
        self._missing: Counter[Address] = Counter()
        self._missing_enis: Counter[EniId] = Counter()
        self._orphans: set[EniId] = set()
        self._next_sweep: Instant | None = None
        self._surplus_since: Instant | None = None
        self._failures = 0
        self._pending = 0

    @property
    def pool(self) -> Pool:
        """The pool that is kept."""
        return self._attachments.pool

    @property
    def mode(self) -> str:
        """How the daemon works now: normal, no-journal, or ec2-away."""
        if self._cloud.journal.trouble or isinstance(self.trouble, JournalError):
            return "no-journal"
        if isinstance(self.trouble, UnreachableError | CredentialsError):
            return "ec2-away"
        return "normal"

    def wake(self) -> None:
        """Look at the pool now: an ADD waits."""
        self._wake.set()

    def set_limits(self, max_enis: int, per_eni: int) -> None:
        """Work with other limits from now on: EC2 knows better than our table."""
        self._max_enis, self._per_eni = max_enis, per_eni
        for eni in tuple(self.pool.enis.values()):
            self.pool.put_eni(replace(eni, capacity=per_eni))
        self.wake()

    def situation(self) -> Situation:
        """Return what `decide` decides from."""
        census = self.pool.census()
        busy = len(census) + len(self.unmanaged) + self._pending
        return Situation(
            enis=census,
            waiting=self._attachments.waiting,
            free_enis=max(0, self._max_enis - busy),
            per_eni=self._per_eni,
        )

    async def run(self) -> None:
        """Keep the pool at its targets until cancelled."""
        if self.pool.choose(self._clock(), 0) is not None:
            # Pods can be served: let a fleet that restarts together ask EC2 one by one.
            await self._sleep(10 * self._jitter())
        while True:
            try:
                await self.round()
            except TROUBLES as error:
                await self._stumble(error)
            else:
                self.trouble, self._failures = None, 0
                await self._sleep(ROUND_SECONDS)

    async def _stumble(self, error: Trouble) -> None:
        if type(error) is not type(self.trouble):
            log.warning("cannot change the pool", extra={"id": error.id, "reason": str(error)})
        self.trouble = error
        if isinstance(error, UnknownOutcomeError | RefusedError):
            self._next_census = self._clock()
        self._failures += 1
        wait = min(2.0 ** (self._failures - 1), MAX_BACKOFF_SECONDS)
        self._wake.clear()
        await asyncio.sleep(wait * (0.5 + self._jitter()))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _do(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # One round -------------------------------------------------------------------------
    async def round(self) -> None:
        """Bring the pool as far as it goes now. Raises one of `Trouble`."""
        if self._clock().elapsed(self._next_census) > 0 or not self.has_census:
            await self._census()
        trouble = await self._take_up_intents()
        while (action := self._decide()) is not None:
            await self._perform(action)
        await self._sweep()
        if trouble is not None:
            raise trouble

    def _decide(self) -> Action | None:
        now = self.situation()
        action = decide.grow(now, self._targets)
        if action is not None:
            self._surplus_since = None
            return action
        moment = self._clock()
        ages = [moment.elapsed(census.eni.since) for census in now.enis]
        shrink = decide.shrink(now, self._targets, ages)
        if shrink is None:
            self._surplus_since = None
            return None
        self._surplus_since = self._surplus_since or moment
        return shrink if moment.elapsed(self._surplus_since) >= CALM_SECONDS else None

    async def _perform(self, action: Action) -> None:
        log.info("pool", extra={"action": str(action)})
        match action:
            case AddEni(count):
                self._welcome(await self._do(self._cloud.add_eni, count))
            case Assign(eni_id, count):
                known = frozenset(self.pool.slots)
                self._offer(await self._do(self._cloud.assign, eni_id, count, known))
            case Unassign(eni_id, count):
                await self._unassign(eni_id, count)
            case RemoveEni(eni_id):
                self.pool.close_eni(eni_id)
                await self._remove(eni_id)

    def _welcome(self, ready: Ready) -> None:
        self.pool.put_eni(PoolEni(ready.eni_id, ready.number, self._per_eni, self._clock()))
        self._offer(ready)

    def _offer(self, ready: Ready) -> None:
        self.pool.add(ready.eni_id, ready.addresses)
        self.pool.set_taken(ready.taken)
        self._attachments.hand_out()

    async def _unassign(self, eni_id: EniId, count: int) -> None:
        free = [
            address
            for address, slot in self.pool.slots.items()
            if slot.eni_id == eni_id
            and isinstance(slot.state, Free)
            and isinstance(address, IPv4Address)
        ]
        leaving = self.pool.begin_unassign(sorted(free, reverse=True)[:count])
        try:
            gone = await self._do(self._cloud.unassign, eni_id, leaving)
        except TROUBLES:
            self.pool.cancel_unassign(leaving)
            raise
        self.pool.drop(gone)
        self.pool.cancel_unassign(leaving)

    async def _remove(self, eni_id: EniId) -> None:
        if self._in_use(eni_id):
            await self._do(self._cloud.keep_eni, eni_id)
            return
        await self._do(self._cloud.remove_eni, eni_id)
        self.pool.remove_eni(eni_id)

    def _in_use(self, eni_id: EniId) -> bool:
        return any(
            slot.eni_id == eni_id and isinstance(slot.state, Assigned)
            for slot in self.pool.slots.values()
        )

    async def _take_up_intents(self) -> Trouble | None:
        """Bring every ENI that was left half way to where it was going.

        One that cannot go on does not hold up the others; its error is returned.
        """
        trouble: Trouble | None = None
        waiting = [i for i in await self._do(self._cloud.intents) if i.state is not EniState.ACTIVE]
        self._pending = len(waiting)
        for intent in waiting:
            try:
                await self._take_up(intent)
            except TROUBLES as error:
                trouble = error
            else:
                self._pending -= 1
        return trouble

    async def _take_up(self, intent: Intent) -> None:
        if intent.state is EniState.DRAINING:
            assert intent.eni_id is not None
            await self._remove(intent.eni_id)
        else:
            self._welcome(await self._do(self._cloud.resume, intent))

    # What EC2 shows --------------------------------------------------------------------
    async def _census(self) -> None:
        enis = await self._do(self._cloud.attached)
        ours = [eni for eni in enis if _is_ours(eni)]
        self.unmanaged = tuple(eni.id for eni in enis if not _is_ours(eni))
        self._cloud.occupied = frozenset(
            eni.attachment.device_index for eni in enis if eni.attachment and not _is_ours(eni)
        )
        known = {intent.eni_id for intent in await self._do(self._cloud.intents)}
        for eni in ours:
            if eni.id not in known and eni.id not in self.pool.enis:
                assert eni.attachment is not None
                self._welcome(await self._do(self._cloud.adopt, eni, eni.attachment))
            elif eni.id in self.pool.enis:
                await self._compare(eni)
        await self._look_for_lost({eni.id for eni in enis})
        await self._do(self._cloud.prune, tuple(self.pool.slots))
        self.has_census = True
        self.censused.set()
        self._next_census = self._clock().later(
            LOOK_AGAIN_SECONDS if self._missing or self._missing_enis else CENSUS_SECONDS
        )

    async def _compare(self, eni: Eni) -> None:
        """Take what EC2 has assigned and we did not know; drop what it denies twice."""
        await self._do(self._cloud.ensure_link, eni.id)
        new = tuple(a for a in eni.secondary if a not in self.pool.slots)
        self.pool.add(eni.id, [a for a in eni.secondary if a in self.pool.slots])
        if new:
            self._offer(await self._do(self._cloud.take, eni.id, new))
        for address, slot in tuple(self.pool.slots.items()):
            if slot.eni_id != eni.id or address in eni.secondary:
                self._missing.pop(address, None)
                continue
            self._missing[address] += 1
            if self._missing[address] > 1:
                await self._deny(address)

    async def _deny(self, address: Address) -> None:
        state = self.pool.slots[address].state
        if isinstance(state, Assigned):
            log.error("ec2 denies a pod's address", extra={"ip": str(address)})
            return
        self.pool.drop([address])
        self._attachments.leases.forget_cooling((address,))
        await self._do(self._cloud.give_up, (address,))
        log.warning("address is EC2's again", extra={"ip": str(address)})

    async def _look_for_lost(self, shown: set[EniId]) -> None:
        """Let go of ENIs that EC2 does not show attached, on the second look."""
        for eni_id, eni in tuple(self.pool.enis.items()):
            if eni_id in shown or eni.is_primary:
                if self._missing_enis.pop(eni_id, 0):
                    self.pool.reopen_eni(eni_id)
                continue
            self._missing_enis[eni_id] += 1
            self.pool.close_eni(eni_id)
            if self._missing_enis[eni_id] > 1:
                await self._remove(eni_id)

    async def _sweep(self) -> None:
        """Delete ENIs that we made, nobody uses and no intent knows; on the second look."""
        now = self._clock()
        due = self._next_sweep is None or now.elapsed(self._next_sweep) > 0
        if not due:
            return
        orphans = {eni.id for eni in await self._do(self._cloud.orphans)}
        for eni_id in orphans & self._orphans:
            await self._do(self._cloud.ec2.delete, eni_id)
            log.warning("leaked eni deleted", extra={"eni_id": eni_id})
        self._orphans = orphans - self._orphans
        self._next_sweep = now.later(ORPHAN_SECONDS if self._orphans else CENSUS_SECONDS)


def _is_ours(eni: Eni) -> bool:
    """Whether we may manage *eni*: attached, on card 0, of the plain kind, not tagged away."""
    return (
        eni.attachment is not None
        and eni.attachment.network_card == 0
        and eni.interface_type == "interface"
        and eni.tags.get(UNMANAGED_TAG) != "true"
    )
