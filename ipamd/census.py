"""The census: EC2 is asked what is ours, and what it shows is believed with care. Shell.

One DescribeNetworkInterfaces by attachment after the start, after a surprise, and hourly.
`ipamd.drift` judges; here its verdict is carried out. What surprises again and again is looked
into once in three minutes for each reason: EC2 refuses what our books allow, IMDS tells
otherwise for long, pods have left what EC2 denied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field

from cni.kernel import NodeError
from eni.errors import EniError
from eni.model import Block, Eni, EniId, SecurityGroupId
from ipamd.clock import Instant
from ipamd.drift import Held, Verdict
from ipamd.flights import Flights
from ipamd.hearsay import Hearsay, strange_blocks
from ipamd.holdings import Holdings
from ipamd.intents import INSTANCE_TAG, UNMANAGED_TAG, EniState
from ipamd.pool import Cooling, Free, Leaving

log = logging.getLogger(__name__)

CENSUS_SECONDS = 3600.0
"""How often EC2 is asked what is attached although nothing is in doubt, give or take a tenth."""

LOOK_AGAIN_SECONDS = 31.0
"""Until the second look, when EC2 did not show what we hold (`drift.SECOND_LOOK_SECONDS`)."""

SURPRISE_SECONDS = 180.0
"""Between two looks for the same reason, but for the second look that follows the first."""

HINT_SECONDS = 30.0
"""How often IMDS is looked at instead, where EC2 may not be asked; it is in the host."""

NAME = "census"


@dataclass(slots=True)
class Census:
    """What EC2 shows. Owned by the loop."""

    holdings: Holdings
    flights: Flights
    random: Callable[[], float]
    busy: Callable[[], frozenset[EniId]]
    """ENIs with a call in flight."""
    unassigning: Callable[[], Collection[EniId]]
    """ENIs that blocks are being asked back of."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once EC2 has told what is ours: from then on EC2 may be asked other things."""
    unmanaged: tuple[EniId, ...] = ()
    """ENIs of others on this instance."""
    others: int = 0
    """How many of them take a place on the default network card."""
    groups: dict[EniId, tuple[SecurityGroupId, ...]] = field(default_factory=dict)
    """The security groups that EC2 last said an ENI of ours has."""
    hint: Callable[[], Awaitable[tuple[Eni, ...]]] | None = None
    """What is believed instead of EC2 by a node that may not ask it (IMDS-only mode)."""
    _next: Instant | None = None
    _twice_from: float | None = None
    """From when on, on the boot clock, a look is to be followed by another."""
    _adopting: dict[EniId, tuple[Block, ...]] = field(default_factory=dict)
    """ENIs that are being taken over, and what EC2 showed of them."""
    _hearsay: Hearsay = field(default_factory=Hearsay)
    _surprised: dict[str, float] = field(default_factory=dict)
    """When EC2 was asked, or is to be asked, for which reason, on the boot clock."""
    _denied: set[EniId | Block] = field(default_factory=set)
    """What EC2 denied at two looks and is here all the same: pods have it, or the disk was full."""

    def look_soon(self) -> None:
        """Ask EC2 as soon as may be: something unexpected was seen."""
        self._next = None

    def look_twice(self) -> None:
        """Ask EC2 as soon as may be, and once more when its answers cannot be late any more."""
        self._next, self._twice_from = None, 0.0

    def look_for(self, why: str, *, twice: bool = False) -> None:
        """Ask EC2 because of a surprise: as soon as may be, but not for *why* again and again."""
        now = self.holdings.clock()
        last = self._surprised.get(why, -SURPRISE_SECONDS)
        due = last if last > now.boot else last + SURPRISE_SECONDS
        due = self._surprised[why] = max(now.boot, due)
        if twice:
            self._twice_from = due if self._twice_from is None else min(due, self._twice_from)
        if self._next is not None and due < self._next.boot:
            log.info("ec2 is to be asked what is ours", extra={"why": why})
            self._next = now.later(due - now.boot)

    def _look_again(self) -> None:
        soon = self.holdings.clock().later(LOOK_AGAIN_SECONDS)
        self._next = None if self._next is None else min(self._next, soon)

    @property
    def due_seconds(self) -> float:
        """In how many seconds the next look is due."""
        if NAME in self.flights:
            return CENSUS_SECONDS  # its landing wakes the engine
        return 0.0 if self._next is None else self._next.boot - self.holdings.clock().boot

    def hear(self, told: Mapping[EniId, Collection[Block]]) -> None:
        """Look soon if the instance sees other ENIs, or for long other blocks, than we do.

        That costs nothing to know, and is a hint, never evidence: IMDS may be late or short
        for long, so each difference makes us look once.
        """
        h = self.holdings
        known = {intent.eni_id for intent in h.lifecycle.book.intents.values()}
        quiet = self.busy() | {e.id for e in h.pool.enis.values() if e.closed}
        lost = h.pool.enis.keys() - quiet - told.keys()
        strange = frozenset(lost | (told.keys() - known - set(self.unmanaged)))
        if self._hearsay.enis(strange):
            log.info("imds sees other enis", extra={"eni_ids": sorted(strange)})
            self.look_soon()
        blocks = strange_blocks(told, h.pool.blocks(), h.pool.enis.keys() - quiet)
        if news := self._hearsay.blocks(blocks, h.clock()):
            log.info("imds sees other blocks", extra={"blocks": sorted(map(str, news))})
            self.look_for("imds sees other blocks")

    def _see_freed(self) -> None:
        """Look soon if what EC2 denied can go now."""
        if not self._denied:
            return
        pool = self.holdings.pool
        self._denied &= pool.blocks().keys() | pool.enis.keys()
        if not all(map(self._stays, self._denied)):
            self.look_for("what ec2 denied can go")

    def _see_denied(self, shown: Sequence[Eni]) -> None:
        """Forget what EC2 shows again; what could not be judged, for a call flew, is soon."""
        there = {block: eni.id for eni in shown for block in eni.blocks}
        held = self.holdings.pool.blocks()
        again = {block for block, eni_id in there.items() if held.get(block) == eni_id}
        self._denied -= again | {eni.id for eni in shown}
        blocks = {what for what in self._denied if what in held}
        if not all(map(self._stays, blocks)):
            self._look_again()

    def _stays(self, what: EniId | Block) -> bool:
        """Whether a pod has an address of it, or it is on its way out already."""
        h = self.holdings
        if isinstance(what, str):
            return h.in_use(what) or self._is_draining(what) or f"eni {what}" in self.flights
        return h.has_pod(what)

    def begin(self) -> None:
        """Start a census if one is due."""
        self._see_freed()
        now = self.holdings.clock()
        is_due = self._next is None or now.boot >= self._next.boot
        if is_due and self.flights.may_start(NAME):
            self.flights.start(NAME, self._take())

    async def _take(self) -> None:
        period = CENSUS_SECONDS if self.hint is None else HINT_SECONDS
        self._next = self.holdings.clock().later(period * (0.9 + 0.2 * self.random()))
        with contextlib.ExitStack() as undo:
            undo.callback(self.look_soon)  # one that fails counts for nothing
            await self._look()
            undo.pop_all()

    async def _look(self) -> None:
        h, pool = self.holdings, self.holdings.pool
        # What changes while EC2 answers is not judged by that answer.
        blocks_before, enis_before, busy = set(pool.blocks()), set(pool.enis), self.busy()
        try:
            shown = await (self.hint() if self.hint else h.lifecycle.attached(h.priority))
        except EniError:
            self.look_soon()  # nothing was seen: the next try is after a back-off, not in an hour
            raise
        ours = tuple(eni for eni in shown if self.is_ours(eni))
        self._note_others([eni for eni in shown if eni not in ours])
        held = Held(
            blocks={b: e for b, e in pool.blocks().items() if b in blocks_before},
            doubtful=self._doubtful(),
            enis=tuple(e for e in pool.enis if e in enis_before),
            busy=busy | self.busy(),
        )
        verdict = h.drift.judge(ours, held, h.clock())
        is_twice = self._twice_from is not None and h.clock().boot >= self._twice_from
        if is_twice:
            self._twice_from = None
        if verdict.look_again or is_twice:
            self._look_again()
        self.groups |= {eni.id: eni.security_groups for eni in ours}
        await self._believe(verdict, held)
        for eni in ours:
            h.see_strays(eni.id, eni.blocks)
        self._see_denied(ours)
        await self._prune()
        self.done.set()

    @property
    def adopting(self) -> frozenset[Block]:
        """Blocks of ENIs on their way in."""
        return frozenset(block for blocks in self._adopting.values() for block in blocks)

    def is_ours(self, eni: Eni) -> bool:
        """Whether we may manage *eni*: attached, on card 0, plain, and not tagged otherwise."""
        h = self.holdings
        if eni.attachment is None or eni.attachment.network_card or eni.primary is None:
            return False
        if eni.interface_type != "interface" or eni.tags.get(UNMANAGED_TAG) == "true":
            return False
        is_tagged = eni.tags.get(INSTANCE_TAG) == h.lifecycle.book.home.identity.instance_id
        return eni.attachment.device_index == 0 or is_tagged or h.terms.manage_untagged

    def _note_others(self, others: Sequence[Eni]) -> None:
        places = [eni.attachment for eni in others if eni.attachment]
        on_default = [place for place in places if place.network_card == 0]
        self.unmanaged = tuple(eni.id for eni in others)
        self.others = len(on_default)
        self.holdings.lifecycle.occupied = frozenset(place.device_index for place in on_default)

    def _doubtful(self) -> tuple[Block, ...]:
        """Return blocks that are neither ours nor EC2's for certain; pods get nothing of them."""
        pool, flying = self.holdings.pool, self.unassigning()
        return tuple(
            block
            for block, eni_id in pool.blocks().items()
            if eni_id not in flying and any(isinstance(pool.slots[a].state, Leaving) for a in block)
        )

    # The verdict -----------------------------------------------------------------------
    async def _believe(self, verdict: Verdict, held: Held) -> None:
        h = self.holdings
        self._adopt_all(verdict.adopt)
        await self._link_all(verdict.shown)
        self._confirm(verdict.confirmed)
        self._withhold(verdict.absent)
        for eni_id, blocks in verdict.take.items():
            h.offer(await h.lifecycle.blocks.take(eni_id, blocks), found=True)
        await self._keep(verdict.kept)
        for block in (*verdict.gone, *verdict.denied):
            eni_id = held.blocks[block]
            await self._deny(block, eni_id, verdict)
        self._close(verdict)

    async def _prune(self) -> None:
        """Take away rules and guards of what is not ours: of an ENI on its way in they are."""
        h = self.holdings
        await h.lifecycle.blocks.prune(self._kept, self._adopting)

    def _kept(self) -> tuple[Block, ...]:
        return (*self.holdings.pool.blocks(), *self.adopting)

    def _adopt_all(self, enis: Collection[Eni]) -> None:
        h = self.holdings
        self._adopting = {eni.id: eni.blocks for eni in enis}
        # Where EC2 may not be asked nobody else takes up what was left half way.
        intents = h.lifecycle.book.intents.values() if h.terms.provisioning else ()
        known = {intent.eni_id for intent in intents}
        for eni in enis:
            name = f"intent adopted-{eni.id}"
            if eni.id in known or name in self.flights:
                continue
            if self.flights.may_start(name):
                self.flights.start(name, self._adopt(eni))
            else:
                self._look_again()

    async def _adopt(self, eni: Eni) -> None:
        h = self.holdings
        assert eni.attachment is not None
        with contextlib.ExitStack() as undo:
            undo.callback(self._look_again)  # nobody else may know of it
            cidr = await h.places.cidr(eni.subnet_id, h.priority)
            asks = h.terms.provisioning
            ready = await h.lifecycle.adopt(eni, eni.attachment, cidr, h.priority, asks=asks)
            undo.pop_all()
        log.info("eni adopted", extra={"eni_id": eni.id})
        h.welcome(ready, found=True)
        self._adopting.pop(eni.id, None)

    async def _link_all(self, eni_ids: Iterable[EniId]) -> None:
        """Set up the kernel's side of ENIs that had no link when the daemon started."""
        h = self.holdings
        for eni_id in eni_ids:
            if eni_id in h.pool.enis and eni_id not in self.busy():
                try:
                    await h.lifecycle.links.ensure(eni_id)
                except (EniError, NodeError) as error:
                    log.warning("no link", extra={"eni_id": eni_id, "reason": str(error)})
                    self._look_again()

    def _confirm(self, blocks: Iterable[Block]) -> None:
        pool = self.holdings.pool
        holders = pool.blocks()
        for block in blocks:
            if block in holders:
                pool.add(holders[block], [block])

    def _withhold(self, blocks: Iterable[Block]) -> None:
        """Give nothing new of what a former life noted and EC2 does not show, until it is settled.

        What this life has had from EC2 may be missing in an answer that is late. In a young boot
        what a former life noted cools first: it is not free afterwards either.
        """
        pool = self.holdings.pool
        for block in blocks:
            slots = [slot for a in block if (slot := pool.slots.get(a)) is not None]
            if any(isinstance(s.state, Free | Cooling) and not s.confirmed for s in slots):
                pool.withhold(block)

    async def _keep(self, blocks: Sequence[Block]) -> None:
        """Put back what EC2 has not taken, after it was asked to and did not answer."""
        h = self.holdings
        h.pool.cancel_unassign(blocks)
        h.queue.hand_out()
        for block in blocks:
            if (holder := h.pool.blocks().get(block)) is not None:
                await h.lifecycle.blocks.keep(holder, (block,))

    async def _deny(self, block: Block, eni_id: EniId, verdict: Verdict) -> None:
        """Let go of a block that EC2 has not shown twice; what a pod has of it stays.

        So does one that has come with another ENI since EC2 was asked, and one whose ENI is
        not shown either: it goes with the ENI, if that goes.
        """
        h, is_alone = self.holdings, eni_id not in verdict.missing
        if h.pool.blocks().get(block) != eni_id:
            return
        if h.has_pod(block):
            log.error("ec2 denies a pod's address", extra={"block": str(block)})
            h.pool.withhold(block)
            self._denied |= {block} if is_alone else set()
        elif (to := verdict.moved.get(block)) is not None and to in h.pool.enis:
            h.offer(await h.lifecycle.blocks.take(to, (block,)), found=True)
            log.warning("block is on another eni", extra={"block": str(block), "eni_id": to})
        elif is_alone:
            await h.give_up(eni_id, block)
            log.warning("block is EC2's again", extra={"block": str(block)})

    def _close(self, verdict: Verdict) -> None:
        """Give nothing new from ENIs that EC2 does not show; let go of those not shown twice."""
        pool = self.holdings.pool
        for eni_id in verdict.shown:
            is_closed = eni_id in pool.enis and pool.enis[eni_id].closed
            if is_closed and not (self._is_draining(eni_id) or eni_id in self.busy()):
                pool.reopen_eni(eni_id)
                self.holdings.queue.hand_out()
        secondary = [i for i in verdict.missing if i in pool.enis and not pool.enis[i].is_primary]
        for eni_id in secondary:
            pool.close_eni(eni_id)
        lost = [i for i in verdict.lost if i in pool.enis and not pool.enis[i].is_primary]
        for eni_id in lost:
            name = f"eni {eni_id}"
            self._denied.add(eni_id)
            if not self.holdings.in_use(eni_id) and self.flights.may_start(name):
                self.flights.start(name, self._lose(eni_id))

    def _lose(self, eni_id: EniId) -> Coroutine[None, None, None]:
        """Return what is to be done about an ENI that is not among ours: theirs is not deleted.

        Where EC2 may not be asked, none is.
        """
        is_theirs = eni_id in self.unmanaged or self.holdings.pool.enis[eni_id].stays
        if is_theirs or self.hint is not None:
            return self.holdings.disown(eni_id)
        return self._remove_lost(eni_id)

    async def _remove_lost(self, eni_id: EniId) -> None:
        """Let go of an ENI that two lists lacked, unless EC2 shows it here by its id."""
        h = self.holdings
        if await h.lifecycle.is_here(eni_id):
            log.warning("eni is not listed, yet attached", extra={"eni_id": eni_id})
            h.drift.heard_of([eni_id])
            h.pool.reopen_eni(eni_id)
            h.queue.hand_out()
            return
        if not h.terms.provisioning:  # it may be there still, and is to be left so
            await h.disown(eni_id)
            return
        log.warning("eni is gone", extra={"eni_id": eni_id})
        await h.lifecycle.endings.drain(eni_id)  # first: no error lets it serve again
        await h.remove(eni_id)

    def _is_draining(self, eni_id: EniId) -> bool:
        intent = self.holdings.lifecycle.book.intent_of(eni_id)
        return intent is not None and intent.state is EniState.DRAINING
