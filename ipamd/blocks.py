"""The blocks of ENIs (single addresses, prefixes): asked for, guarded, given back. Shell.

A block is guarded and journalled before the pool has it, and gone from the pool before EC2
is asked to take it back. EC2 repeats no assign: what got no answer is looked for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cni.kernel import NodeError
from eni.errors import EniError, NotFoundError, UnknownOutcomeError
from eni.model import Address, Block, EniId, Kind, SubnetId
from ipamd.budget import Priority
from ipamd.eni_book import EniBook
from ipamd.intents import is_foreign, noted
from ipamd.journal import JournalError
from ipamd.links import Links

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """An ENI that pods may use: *blocks* are held and guarded.

    *hosts* says which addresses are on the node's own links, and on which.
    """

    eni_id: EniId
    number: int
    subnet_id: SubnetId
    blocks: tuple[Block, ...]
    hosts: Mapping[Address, str]
    stays: bool = False
    """Whether somebody else attached it, so that it is not ours to take away."""


@dataclass(frozen=True, slots=True)
class Returned:
    """How an unassign ended: *doubtful* blocks are EC2's or ours, and no pod's for now."""

    gone: tuple[Block, ...]
    kept: tuple[Block, ...] = ()
    doubtful: tuple[Block, ...] = ()


@dataclass(slots=True)
class Blocks:
    """What EC2 has given our ENIs. Owned by the loop."""

    book: EniBook
    links: Links
    _coming: set[Block] = field(default_factory=set)
    """Blocks that are guarded already and not yet in the pool."""
    _going: set[Block] = field(default_factory=set)
    """Blocks in the pool that are not guarded any more."""
    _unsettled: set[EniId] = field(default_factory=set)
    """ENIs with an assign of which nobody knows yet whether it was done."""
    _untaken: dict[EniId, tuple[Block, ...]] = field(default_factory=dict)
    """What EC2 has given and the kernel refused to guard: it is taken before more is asked for."""

    def untaken(self, held: Collection[EniId]) -> tuple[EniId, ...]:
        """Return the ENIs whose blocks are to be taken; those that are not *held* are forgotten."""
        self._untaken = {i: blocks for i, blocks in self._untaken.items() if i in held}
        return tuple(self._untaken)

    def coming(self, assigning: Collection[EniId]) -> int:
        """Return how many addresses are to be taken, but for ENIs that an assign flies for.

        To ask for others would not help: the kernel would have to guard those, too.
        """
        given = (blocks for i, blocks in self._untaken.items() if i not in assigning)
        return sum(block.num_addresses for blocks in given for block in blocks)

    async def take_rest(self, eni_id: EniId) -> Ready:
        """Note and guard what is to be taken; EC2 is asked nothing."""
        return await self.take(eni_id, self._untaken.get(eni_id, ()))

    @property
    def unsure(self) -> frozenset[Block]:
        """Blocks that come or go, guarded or not."""
        return frozenset(self._coming | self._going)

    async def take(self, eni_id: EniId, blocks: Sequence[Block]) -> Ready:
        """Note and guard *blocks* as ours.

        A journal that cannot be written does not keep pods from what EC2 has given: the
        next life learns of it from EC2 and from the leases. Whoever puts the blocks into the
        pool says so by `taken`.
        """
        self._coming.update(blocks)
        try:
            hosts = await self._take(eni_id, tuple(blocks))
        except BaseException:
            self.taken(blocks)
            raise
        if left := [b for b in self._untaken.pop(eni_id, ()) if b not in blocks]:
            self._untaken[eni_id] = tuple(left)
        intent = self.book.intent_of(eni_id)
        assert intent is not None
        return Ready(
            eni_id,
            intent.device_index + 1,
            noted(intent).subnet_id,
            tuple(blocks),
            hosts,
            is_foreign(intent),
        )

    async def _take(self, eni_id: EniId, blocks: tuple[Block, ...]) -> Mapping[Address, str]:
        if self.book.journal.trouble is None:
            try:
                await self.book.hold(eni_id, blocks)
            except JournalError as error:
                log.warning("held blocks not journalled", extra={"reason": str(error)})
        await self.book.change(self.book.net.add_guards, blocks)
        return await self.book.kernel(self.book.net.host_addresses)

    def taken(self, blocks: Iterable[Block]) -> None:
        """Learn that the pool has *blocks*, or will not have them."""
        self._coming.difference_update(blocks)

    async def assign(
        self, eni_id: EniId, kind: Kind, count: int, known: Collection[Block], priority: Priority
    ) -> Ready:
        """Ask *count* more blocks for an ENI that has *known* ones."""
        self.book.demand_journal()
        new: tuple[Block, ...] = ()
        if eni_id in self._unsettled:
            new = await self._settle_assign(eni_id, known, priority)
        if not new:
            try:
                new = await self.book.call(priority, self.book.ec2.assign, eni_id, kind, count)
            except UnknownOutcomeError:
                self._unsettled.add(eni_id)
                new = await self._settle_assign(eni_id, known, priority)
                if not new:
                    raise  # not done, or not shown yet: the census looks twice
        self._untaken[eni_id] = new
        return await self.take(eni_id, new)

    async def _settle_assign(
        self, eni_id: EniId, known: Collection[Block], priority: Priority
    ) -> tuple[Block, ...]:
        """Return what an assign brought that got no answer; until that is told none is repeated."""
        eni = await self.book.call(priority, self.book.ec2.eni, eni_id)
        if eni is None:
            raise NotFoundError(f"{eni_id} is not there", action="DescribeNetworkInterfaces")
        self._unsettled.discard(eni_id)
        return tuple(block for block in eni.blocks if block not in known)

    async def unassign(self, eni_id: EniId, blocks: tuple[Block, ...]) -> Returned:
        """Give *blocks* back, which the pool gives to nobody any more."""
        self.book.demand_journal()
        await self.book.write(self.book.journal.begin_release, blocks, self.book.clock().wall)
        try:
            await self.book.call(Priority.SHRINK, self.book.ec2.unassign, eni_id, blocks)
            done = Returned(blocks)
        except (UnknownOutcomeError, NotFoundError):
            done = await self._settle_unassign(eni_id, blocks)
        except EniError:
            await self.book.hold(eni_id, blocks)
            raise
        await self.give_up(eni_id, done.gone)
        return done

    async def _settle_unassign(self, eni_id: EniId, blocks: tuple[Block, ...]) -> Returned:
        """What EC2 still shows may be late: it is no pod's until the census has settled it."""
        try:
            eni = await self.book.call(Priority.SHRINK, self.book.ec2.eni, eni_id)
        except EniError:
            return Returned((), doubtful=blocks)
        held = () if eni is None else eni.blocks
        gone = tuple(block for block in blocks if block not in held)
        return Returned(gone, doubtful=tuple(b for b in blocks if b not in gone))

    async def keep(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """Note that EC2 has kept *blocks* with us after all, if the journal can be written."""
        if self.book.journal.trouble is not None:
            return
        with contextlib.suppress(JournalError):  # or a next life waits for its census
            await self.book.hold(eni_id, blocks)

    async def give_up(self, eni_id: EniId, blocks: Iterable[Block]) -> None:
        """Stop guarding *blocks*, which are EC2's again, or come with another ENI of ours.

        It is done whatever happens here: a guard or a row that stays is taken away by the
        next census, and must not make anybody believe that the blocks are still ours.
        """
        gone = tuple(block for block in blocks if block not in self._coming)
        if not gone:
            return
        self._going.update(gone)
        try:
            await self.book.change(self.book.net.remove_guards, gone)
            if self.book.journal.trouble is None:
                await self._drop((block, eni_id) for block in gone)
        except (NodeError, JournalError) as error:
            log.warning("blocks given up, not all noted", extra={"reason": str(error)})
        finally:
            self._going.difference_update(gone)

    async def prune(self, held: Callable[[], Collection[Block]], awaited: Iterable[EniId]) -> None:
        """Guard and journal what is *held*, and nothing else, and so with rules of ENIs.

        Only after EC2 has told what is ours: a former life may have left rules and guards
        of an ENI that this one has yet to hear of, or to take over, and pods that need them.
        No rule goes while *awaited* ENIs have yet to be set up. *held* is asked at the last
        moment, since other flights bring blocks and take them away meanwhile.
        """
        await self.links.expect(awaited)
        await self.book.change(self.book.net.guards, self._wanted(held()))
        if self.book.journal.trouble is None:
            rows = await self.book.write(self.book.journal.blocks)
            left = set(self._wanted(held()))
            stray = tuple((block, eni_id) for block, eni_id, _ in rows if block not in left)
            if stray:
                await self._drop(stray)

    async def _drop(self, blocks: Iterable[tuple[Block, EniId]]) -> None:
        await self.book.write(self.book.journal.drop, tuple(blocks), self.book.clock().wall)

    def _wanted(self, held: Collection[Block]) -> tuple[Block, ...]:
        return tuple(sorted((set(held) | self._coming) - self._going))
