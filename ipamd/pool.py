"""The pool: every address this node holds, and what each is doing. Pure.

One rule a changer must keep: an address is in exactly one state, and only `assign`
leads to a pod. A cooling address is held but not ready: it counts against ceilings
and never towards a warm target.

         add                assign                release
    EC2 ─────> Free ──────────────────> Assigned ─────────> Cooling
                ^                                              │ cooled and purged
                └──────────────────────────────────────────────┘
                │ begin_unassign
                └──> Leaving ──> drop (EC2 has it back)

What comes from EC2 and goes back there is a block: one slot of an ENI, holding a single
address or a prefix of 16. States belong to addresses, coming and going to blocks.

Longer than most modules, because states and the indices over them change together:
`_put` is the only place that changes either.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from types import MappingProxyType

from cni.spec import Sandbox
from eni.model import PREFIX_SIZE, Address, Block, EniId, Kind, SubnetId, kind_of
from ipamd.clock import Instant


@dataclass(frozen=True, slots=True)
class Free:
    """Ready for a pod; *used* is when the last one let go, None if none had it."""

    used: Instant | None = None


@dataclass(frozen=True, slots=True)
class Assigned:
    """A pod's."""

    sandbox: Sandbox


@dataclass(frozen=True, slots=True)
class Cooling:
    """Released at *since*; *purged* when the kernel's flows of it are gone."""

    since: Instant
    purged: bool = False


@dataclass(frozen=True, slots=True)
class Leaving:
    """On its way back to EC2; never given out. *used* as in `Free`, for the way back."""

    used: Instant | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """Configured on a link of the host, so never a pod's: the kernel would deliver it there."""

    link: str


State = Free | Assigned | Cooling | Leaving | Taken


@dataclass(frozen=True, slots=True)
class Slot:
    """One address, in a block on an ENI.

    *confirmed* says that EC2, or a pod of this boot, has shown it to be ours; until EC2
    has answered, confirmed ones go first.
    """

    eni_id: EniId
    block: Block
    state: State
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class PoolEni:
    """An ENI whose addresses pods may have.

    *number* is its device index + 1; *slots* is how many blocks it may hold. A *closed*
    ENI gives nothing new: it is on its way out. An *excluded* one neither, because its
    subnet is not for pods (any more), but it keeps what pods have of it. One that *stays*
    was attached by somebody else: it serves pods, but is not ours to take away.
    """

    id: EniId
    number: int
    slots: int
    subnet_id: SubnetId
    since: Instant
    closed: bool = False
    excluded: bool = False
    stays: bool = False

    @property
    def is_primary(self) -> bool:
        """Whether this is the ENI the instance was born with."""
        return self.number == 1

    @property
    def is_open(self) -> bool:
        """Whether pods may get addresses of it."""
        return not (self.closed or self.excluded)


@dataclass(frozen=True, slots=True)
class EniCensus:
    """One ENI in numbers: of addresses by state, then of blocks by kind.

    *singles* and *prefixes* count leaving ones, too; *idle* ones are wholly free.
    """

    eni: PoolEni
    assigned: int = 0
    cooling: int = 0
    free: int = 0
    leaving: int = 0
    taken: int = 0
    singles: int = 0
    prefixes: int = 0
    idle_singles: int = 0
    idle_prefixes: int = 0

    @property
    def held(self) -> int:
        """Addresses EC2 has assigned to it, whatever they do."""
        return self.assigned + self.cooling + self.free + self.leaving + self.taken

    @property
    def room(self) -> int:
        """Slots EC2 could still fill."""
        if not self.eni.is_open or self.eni.stays:
            return 0
        return max(0, self.eni.slots - self.singles - self.prefixes)

    @property
    def is_idle(self) -> bool:
        """Whether no pod has, had just now, or can still get an address of it."""
        return not (self.assigned or self.cooling or self.leaving or self.taken)

    def idle(self, kind: Kind) -> int:
        """Return how many blocks of *kind* are wholly free."""
        return self.idle_prefixes if kind is Kind.PREFIX else self.idle_singles


Cold = tuple[bool, float, float, int, Address]
"""The order of free addresses within a group: confirmed ones first, the longest cold of them
first, never used ones before all."""


@dataclass(slots=True)
class _Group:
    """What is filled as one: a prefix, or (*block* is None) all single addresses of an ENI."""

    block: Block | None
    assigned: int = 0
    free: list[Cold] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        return self.block is not None and len(self.free) == PREFIX_SIZE

    @property
    def rank(self) -> tuple[int, float]:
        """Fullest first; of equals, a prefix before singles and then the lowest."""
        return (-self.assigned, int(self.block.network_address) if self.block else math.inf)


@dataclass(slots=True)
class _Tally:
    """The indices over one ENI's addresses."""

    states: Counter[type[State]] = field(default_factory=Counter)
    groups: dict[Block | None, _Group] = field(default_factory=dict)
    ready: list[tuple[int, float, Block | None]] = field(default_factory=list)
    """Groups with a free address, in the order they are filled."""
    singles: set[Block] = field(default_factory=set)
    idle_prefixes: int = 0

    def count(self, address: Address, slot: Slot, by: int) -> None:
        """Add (*by* = 1) or take away (-1) *address* in the state of *slot*."""
        key = slot.block if kind_of(slot.block) is Kind.PREFIX else None
        group = self.groups.setdefault(key, _Group(key))
        self.idle_prefixes -= group.is_idle
        if group.free:
            del self.ready[bisect_left(self.ready, (*group.rank, key))]
        self.states[type(slot.state)] += by
        match slot.state:
            case Assigned():
                group.assigned += by
            case Free(used):
                cold = _cold(address, used, confirmed=slot.confirmed)
                if by > 0:
                    insort(group.free, cold)
                else:
                    del group.free[bisect_left(group.free, cold)]
        if group.free:
            insort(self.ready, (*group.rank, key))
        self.idle_prefixes += group.is_idle

    def forget(self, block: Block) -> None:
        """Let go of *block*, whose addresses are gone."""
        self.singles.discard(block)
        self.groups.pop(block, None)

    def blocks(self) -> tuple[Block, ...]:
        """Return what fills the slots, in the order of addresses."""
        return tuple(sorted([*self.singles, *(key for key in self.groups if key)], key=_place))

    def heads(self) -> Iterator[Address]:
        """Yield the first free address of each group, the fullest group's first."""
        for _, _, key in self.ready:
            yield self.groups[key].free[0][-1]


def _place(block: Block) -> tuple[int, int, int]:
    """Return what networks are sorted by; asked once of each, and not for each comparison."""
    return block.version, int(block.network_address), block.prefixlen


def _cold(address: Address, used: Instant | None, *, confirmed: bool) -> Cold:
    never = -math.inf
    boot, wall = (used.boot, used.wall) if used else (never, never)
    return (not confirmed, boot, wall, int(address), address)


class Pool:
    """Addresses by ENI. Not thread-safe: the loop owns it."""

    def __init__(self) -> None:
        self._enis: dict[EniId, PoolEni] = {}
        self._slots: dict[Address, Slot] = {}
        self.enis: Mapping[EniId, PoolEni] = MappingProxyType(self._enis)
        self.slots: Mapping[Address, Slot] = MappingProxyType(self._slots)
        self._by_sandbox: dict[Sandbox, tuple[Address, ...]] = {}
        self._on_host: dict[Address, str] = {}
        self._tallies: dict[EniId, _Tally] = {}
        self._cooling: dict[Address, Cooling] = {}
        self._cools_on: dict[Address, Cooling] = {}
        """What cools and is not ours: EC2 may give it again at once."""
        self._withheld: set[Block] = set()

    # ENIs ------------------------------------------------------------------------------
    def put_eni(self, eni: PoolEni) -> None:
        """Add *eni*, or replace what is known of it."""
        self._enis[eni.id] = eni

    def close_eni(self, eni_id: EniId) -> None:
        """Give nothing new from this ENI."""
        self._enis[eni_id] = replace(self._enis[eni_id], closed=True)

    def reopen_eni(self, eni_id: EniId) -> None:
        """Undo `close_eni`."""
        self._enis[eni_id] = replace(self._enis[eni_id], closed=False)

    def remove_eni(self, eni_id: EniId) -> None:
        """Forget an ENI and its blocks. Raises ValueError if a pod has one of its addresses."""
        self.drop(self.blocks_of(eni_id))
        self._enis.pop(eni_id, None)
        self._tallies.pop(eni_id, None)

    # Blocks ----------------------------------------------------------------------------
    def add(
        self, eni_id: EniId, blocks: Iterable[Block], *, confirmed: bool = True
    ) -> tuple[Block, ...]:
        """Hold *blocks* on *eni_id*; return those that are new: addresses are free, or cool on.

        A known block keeps its states: a repeated answer of EC2 never frees one. A prefix
        takes in the single addresses of this ENI that lie in it: EC2 never gives both, so
        they were guesses of `restore`. What another ENI still holds a part of is not
        new; it is when that has been dropped and EC2 shows it again.
        """
        new = []
        for block in blocks:
            known = [slot for a in block if (slot := self._slots.get(a)) is not None]
            if any(slot.eni_id != eni_id for slot in known):
                continue
            # A single inside a held prefix, or a block that is held: nothing but a confirmation.
            is_new = all(slot.block.prefixlen > block.prefixlen for slot in known)
            if is_new:
                new.append(block)
            self._hold(eni_id, block if is_new else known[0].block, block, confirmed=confirmed)
        return tuple(new)

    def _hold(self, eni_id: EniId, home: Block, block: Block, *, confirmed: bool) -> None:
        """Make the addresses of *block* ones of *home*, which may be larger."""
        tally = self._tallies.setdefault(eni_id, _Tally())
        for address in block:
            slot = self._slots.get(address)
            if slot is None:
                self._put(address, Slot(eni_id, home, self._arrived(address), confirmed))
            else:
                sure = slot.confirmed or confirmed
                self._put(address, replace(slot, block=home, confirmed=sure))
                if slot.block != home:
                    tally.forget(slot.block)
        if kind_of(home) is Kind.SINGLE:
            tally.singles.add(home)

    def set_taken(self, taken: Mapping[Address, str], eni_ids: Collection[EniId] = ()) -> None:
        """Withhold from pods what links of the host have, and nothing else.

        *taken* is the whole truth for the addresses of *eni_ids*, by default for all. A
        pod's address stays the pod's, and one that cools is withheld when it has cooled.
        """
        told = {a for a in self._on_host if not eni_ids or self._eni_of(a) in eni_ids}
        self._on_host = {a: link for a, link in self._on_host.items() if a not in told} | dict(
            taken
        )
        for address in told | taken.keys():
            slot = self._slots.get(address)
            if slot is not None and isinstance(slot.state, Free | Taken):
                used = slot.state.used if isinstance(slot.state, Free) else None
                self._to(address, self._free(address, used))

    def _eni_of(self, address: Address) -> EniId | None:
        slot = self._slots.get(address)
        return slot.eni_id if slot else None

    def drop(self, blocks: Collection[Block]) -> None:
        """Forget *blocks*, but not what of them cools: if it comes back it cools on.

        Raises ValueError, changing nothing, if a pod has an address of them.
        """
        held = {
            block: s.eni_id
            for block in blocks
            if (s := self._slots.get(block[0])) and s.block == block
        }
        for address in (address for block in held for address in block):
            if owner := self._owner(address):
                raise ValueError(f"{address} belongs to {owner}")
        for block, eni_id in held.items():
            for address in block:
                if (state := self._cooling.get(address)) is not None:
                    self._cools_on[address] = state
                self._put(address, None)
            self._tallies[eni_id].forget(block)
            self._withheld.discard(block)

    def blocks_of(self, eni_id: EniId) -> tuple[Block, ...]:
        """Return what fills the slots of an ENI, in the order of addresses."""
        tally = self._tallies.get(eni_id)
        return tally.blocks() if tally else ()

    def blocks(self) -> Mapping[Block, EniId]:
        """Return every block that is held, and on which ENI."""
        return {
            block: eni_id for eni_id, tally in self._tallies.items() for block in tally.blocks()
        }

    def block_of(self, address: Address) -> Block | None:
        """Return the block that holds *address*, None if none does."""
        slot = self._slots.get(address)
        return slot.block if slot else None

    def idle_blocks(
        self, eni_id: EniId, kind: Kind, now: Instant, reservations: Collection[IPv4Network] = ()
    ) -> tuple[Block, ...]:
        """Return the wholly free blocks of *kind*, the best to give back first.

        Outside of *reservations* first, since a block in one serves nothing but this; then
        the longest unused, whoever gets it next; then the highest, as pods get the lowest.
        """

        def rank(block: Block) -> tuple[bool, float, int]:
            states = (self._slots[address].state for address in block)
            idle = (now.elapsed(s.used) for s in states if isinstance(s, Free) and s.used)
            kept = any(block.subnet_of(reservation) for reservation in reservations)
            return (kept, -min(idle, default=math.inf), -int(block.network_address))

        idle = (b for b in self.blocks_of(eni_id) if kind_of(b) is kind and self._is_idle(b))
        return tuple(sorted(idle, key=rank))

    def begin_unassign(self, blocks: Iterable[Block]) -> tuple[Block, ...]:
        """Take the wholly free ones of *blocks* out of use, before EC2 is asked; return them."""
        leaving = tuple(block for block in blocks if self._is_idle(block))
        for block in leaving:
            for address in block:
                state = self._slots[address].state
                assert isinstance(state, Free)
                self._to(address, Leaving(state.used))
        return leaving

    def cancel_unassign(self, blocks: Iterable[Block]) -> None:
        """Put *blocks* back: EC2 has kept them with us."""
        self._withheld.difference_update(blocks)
        for address in (address for block in blocks for address in block):
            slot = self._slots.get(address)
            if slot is not None and isinstance(slot.state, Leaving):
                self._to(address, self._free(address, slot.state.used))

    def withhold(self, block: Block) -> None:
        """Give nothing more of *block*, which EC2 denies, although pods have addresses of it.

        `cancel_unassign` undoes it.
        """
        self._withheld.add(block)
        for address in block:
            slot = self._slots.get(address)
            if slot is not None and isinstance(slot.state, Free):
                self._to(address, Leaving(slot.state.used))

    def _is_idle(self, block: Block) -> bool:
        return all(
            (slot := self._slots.get(address)) is not None
            and slot.block == block
            and isinstance(slot.state, Free)
            for address in block
        )

    # Pods ------------------------------------------------------------------------------
    def addresses_of(self, sandbox: Sandbox) -> tuple[Address, ...]:
        """Return what *sandbox* holds, IPv4 first; empty if nothing."""
        return self._by_sandbox.get(sandbox, ())

    def choose(self, now: Instant, cooldown_seconds: float) -> Address | None:
        """Return the address the next pod should get, None if none is ready.

        Fullest ENI first and in it the fullest block, so that others empty; in that the
        longest unused. An address unused for less than twice the cooldown is passed over
        if there is an older one elsewhere, and one that nobody has confirmed waits behind
        all others.
        """
        best: Address | None = None
        best_rank = (True, True)
        for tally in self._fullest_first():
            for address in tally.heads():
                slot = self._slots[address]
                assert isinstance(slot.state, Free)
                used = slot.state.used
                young = used is not None and now.elapsed(used) < 2 * cooldown_seconds
                rank = (not slot.confirmed, young)
                if rank == (False, False):
                    return address
                if best is None or rank < best_rank:
                    best, best_rank = address, rank
        return best

    def _fullest_first(self) -> Iterator[_Tally]:
        usable = [
            (-tally.states[Assigned], eni.number, tally)
            for eni in self._enis.values()
            if eni.is_open and (tally := self._tallies.get(eni.id)) and tally.ready
        ]
        return (tally for _, _, tally in sorted(usable, key=lambda item: item[:2]))

    def assign(self, sandbox: Sandbox, addresses: tuple[Address, ...]) -> None:
        """Give *addresses* to *sandbox*.

        Raises ValueError, changing nothing, if one of them is not free.
        """
        taken = [a for a in addresses if not isinstance(self._slots[a].state, Free)]
        if taken:
            raise ValueError(f"{taken[0]} is {self._slots[taken[0]].state}, not free")
        self._take(sandbox, addresses)

    def restore(
        self, sandbox: Sandbox, addresses: tuple[Address, ...], eni_id: EniId
    ) -> tuple[Sandbox, ...]:
        """Record that *sandbox* has *addresses*, as a lease or the kernel shows; return who lost.

        A witness beats whatever the pool believed, so this may take an address that is
        cooling, leaving or unknown; one that another sandbox claims stays with that one.
        An unknown address counts as a single one until EC2 shows the prefix it is of.
        """
        owners = [owner for address in addresses if (owner := self._owner(address))]
        if others := set(owners) - {sandbox}:
            return tuple(others)
        unknown = [IPv4Network(a) for a in addresses if a not in self._slots]
        self.add(eni_id, unknown)
        self._take(sandbox, addresses)
        return ()

    def _owner(self, address: Address) -> Sandbox | None:
        slot = self._slots.get(address)
        return slot.state.sandbox if slot and isinstance(slot.state, Assigned) else None

    def _take(self, sandbox: Sandbox, addresses: tuple[Address, ...]) -> None:
        for address in addresses:
            slot = self._slots[address]
            self._put(address, replace(slot, state=Assigned(sandbox), confirmed=True))
        more = tuple(a for a in self._by_sandbox.get(sandbox, ()) if a not in addresses)
        self._by_sandbox[sandbox] = (*addresses, *more)

    def release(self, sandbox: Sandbox, now: Instant) -> tuple[Address, ...]:
        """Let *sandbox*'s addresses cool from *now*; return them.

        Releasing a sandbox that holds nothing changes nothing, because a runtime may
        send DEL more than once.
        """
        addresses = self._by_sandbox.pop(sandbox, ())
        for address in addresses:
            self._to(address, Cooling(now))
        return addresses

    # Cooling ---------------------------------------------------------------------------
    def cool(self, address: Address, since: Instant, *, purged: bool = False) -> None:
        """Record that *address* is cooling since *since*; ignored unless it is free, or not ours.

        What is not ours cools on if it comes.
        """
        slot = self._slots.get(address)
        if slot is None:
            self._cools_on[address] = Cooling(since, purged)
        elif isinstance(slot.state, Free):
            self._to(address, Cooling(since, purged))

    def unpurged(self) -> tuple[Address, ...]:
        """Return cooling addresses whose flows the kernel may still know."""
        return tuple(address for address, state in self._cooling.items() if not state.purged)

    def next_purge(self, now: Instant, rest_seconds: float) -> float | None:
        """Return the seconds until the first of `unpurged` has rested so long, None if none is."""
        left = (rest_seconds - now.elapsed(s.since) for s in self._cooling.values() if not s.purged)
        soonest = min(left, default=None)
        return None if soonest is None else max(0.0, soonest)

    def mark_purged(self, addresses: Iterable[Address]) -> None:
        """Record that the flows of *addresses* are gone; only cooling ones care."""
        for address in addresses:
            if (state := self._cooling.get(address)) is not None:
                self._to(address, replace(state, purged=True))

    def settle(self, now: Instant, cooldown_seconds: float) -> tuple[Address, ...]:
        """Free every address that has cooled for *cooldown_seconds* and is purged; return them."""
        done = {
            address: state.since
            for address, state in self._cooling.items()
            if state.purged and now.elapsed(state.since) >= cooldown_seconds
        }
        for address, since in done.items():
            self._to(address, self._free(address, since))
        return tuple(done)

    def next_ready(self, now: Instant, cooldown_seconds: float) -> float | None:
        """Return the seconds until `settle` will free an address, None if none is purged."""
        left = (cooldown_seconds - now.elapsed(s.since) for s in self._cooling.values() if s.purged)
        soonest = min(left, default=None)
        return None if soonest is None else max(0.0, soonest)

    # Indices ---------------------------------------------------------------------------
    def census(self) -> tuple[EniCensus, ...]:
        """Return every ENI in numbers, by ENI number."""
        return tuple(
            self._census_of(eni) for eni in sorted(self._enis.values(), key=lambda eni: eni.number)
        )

    def _census_of(self, eni: PoolEni) -> EniCensus:
        tally = self._tallies.get(eni.id, _Tally())
        states = tally.states
        return EniCensus(
            eni,
            assigned=states[Assigned],
            cooling=states[Cooling],
            free=states[Free],
            leaving=states[Leaving],
            taken=states[Taken],
            singles=len(tally.singles),
            prefixes=sum(key is not None for key in tally.groups),
            idle_singles=len(tally.groups[None].free) if None in tally.groups else 0,
            idle_prefixes=tally.idle_prefixes,
        )

    def _arrived(self, address: Address) -> State:
        cooling, state = self._cools_on.pop(address, None), self._free(address)
        return cooling if cooling is not None and isinstance(state, Free) else state

    def _free(self, address: Address, used: Instant | None = None) -> Free | Taken | Leaving:
        link = self._on_host.get(address)
        if link is not None:
            return Taken(link)
        return Leaving(used) if self.block_of(address) in self._withheld else Free(used)

    def _to(self, address: Address, state: State) -> None:
        self._put(address, replace(self._slots[address], state=state))

    def _put(self, address: Address, slot: Slot | None) -> None:
        """Make *slot* what is known of *address*, and nothing if None; the indices follow."""
        if (former := self._slots.get(address)) is not None:
            self._tallies[former.eni_id].count(address, former, -1)
        self._cooling.pop(address, None)
        if slot is None:
            del self._slots[address]
            return
        self._slots[address] = slot
        self._tallies[slot.eni_id].count(address, slot, 1)
        if isinstance(slot.state, Cooling):
            self._cooling[address] = slot.state
