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
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cni.spec import Sandbox
from eni.model import Address, EniId
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
    """On its way back to EC2; never given out."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Configured on a link of the host, so never a pod's: the kernel would deliver it there."""

    link: str


State = Free | Assigned | Cooling | Leaving | Taken


@dataclass(frozen=True, slots=True)
class Slot:
    """One address on one ENI.

    *confirmed* says that EC2, or a pod of this boot, has shown it to be ours; until EC2
    has answered, confirmed ones go first.
    """

    eni_id: EniId
    state: State
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class PoolEni:
    """An ENI whose addresses pods may have.

    *number* is its device index + 1. *capacity* counts secondary addresses.
    *closed* ENIs give nothing new: they are on their way out.
    """

    id: EniId
    number: int
    capacity: int
    since: Instant
    closed: bool = False

    @property
    def is_primary(self) -> bool:
        """Whether this is the ENI the instance was born with."""
        return self.number == 1


@dataclass(frozen=True, slots=True)
class EniCensus:
    """One ENI in numbers of addresses."""

    eni: PoolEni
    assigned: int = 0
    cooling: int = 0
    free: int = 0
    leaving: int = 0
    taken: int = 0

    @property
    def held(self) -> int:
        """Addresses EC2 has assigned to it, whatever they do."""
        return self.assigned + self.cooling + self.free + self.leaving + self.taken

    @property
    def room(self) -> int:
        """Addresses EC2 could still assign to it."""
        return 0 if self.eni.closed else max(0, self.eni.capacity - self.held)

    @property
    def is_idle(self) -> bool:
        """Whether no pod has, had just now, or can still get an address of it."""
        return not (self.assigned or self.cooling or self.leaving or self.taken)


STATES = (Assigned, Cooling, Free, Leaving, Taken)
"""In the order of `EniCensus`."""


@dataclass(slots=True)
class Pool:
    """Addresses by ENI. Not thread-safe: the loop owns it."""

    enis: dict[EniId, PoolEni] = field(default_factory=dict)
    slots: dict[Address, Slot] = field(default_factory=dict)
    _by_sandbox: dict[Sandbox, tuple[Address, ...]] = field(default_factory=dict)

    def put_eni(self, eni: PoolEni) -> None:
        """Add *eni*, or replace what is known of it."""
        self.enis[eni.id] = eni

    def close_eni(self, eni_id: EniId) -> None:
        """Give nothing new from this ENI."""
        self.enis[eni_id] = replace(self.enis[eni_id], closed=True)

    def reopen_eni(self, eni_id: EniId) -> None:
        """Undo `close_eni`."""
        self.enis[eni_id] = replace(self.enis[eni_id], closed=False)

    def remove_eni(self, eni_id: EniId) -> None:
        """Forget an ENI and its addresses. Raises ValueError if a pod has one of them."""
        gone = [a for a, slot in self.slots.items() if slot.eni_id == eni_id]
        self.drop(gone)
        self.enis.pop(eni_id, None)

    def add(
        self, eni_id: EniId, addresses: Iterable[Address], *, confirmed: bool = True
    ) -> tuple[Address, ...]:
        """Hold *addresses* on *eni_id* as free; return those that are new.

        A known address keeps its state: a repeated answer of EC2 never frees one.
        """
        new = []
        for address in addresses:
            slot = self.slots.get(address)
            if slot is None:
                self.slots[address] = Slot(eni_id, Free(), confirmed)
                new.append(address)
            elif confirmed and not slot.confirmed:
                self.slots[address] = replace(slot, confirmed=True)
        return tuple(new)

    def set_taken(self, taken: Mapping[Address, str]) -> None:
        """Withhold the free ones of *taken*, which host links have, from pods."""
        for address, link in taken.items():
            slot = self.slots.get(address)
            if slot is not None and isinstance(slot.state, Free):
                self.slots[address] = replace(slot, state=Taken(link))

    def drop(self, addresses: Collection[Address]) -> None:
        """Forget *addresses*. Raises ValueError, changing nothing, if a pod has one of them."""
        for address in addresses:
            slot = self.slots.get(address)
            if slot is not None and isinstance(slot.state, Assigned):
                raise ValueError(f"{address} belongs to {slot.state.sandbox}")
        for address in addresses:
            self.slots.pop(address, None)

    def addresses_of(self, sandbox: Sandbox) -> tuple[Address, ...]:
        """Return what *sandbox* holds, IPv4 first; empty if nothing."""
        return self._by_sandbox.get(sandbox, ())

    def choose(self, now: Instant, cooldown_seconds: float) -> Address | None:
        """Return the address the next pod should get, None if none is ready.

        Fullest ENI first, so that others empty; in it the one longest unused. An
        address unused for less than twice the cooldown is passed over if any ENI has
        an older one, and one that nobody has confirmed waits behind all others.
        """
        used: dict[EniId, int] = dict.fromkeys(self.enis, 0)
        for slot in self.slots.values():
            if isinstance(slot.state, Assigned):
                used[slot.eni_id] = used.get(slot.eni_id, 0) + 1

        def rank(item: tuple[Address, Slot, Free]) -> tuple[bool, bool, int, int, float, int]:
            address, slot, state = item
            idle = now.elapsed(state.used) if state.used else float("inf")
            young = idle < 2 * cooldown_seconds
            eni = self.enis[slot.eni_id]
            return (not slot.confirmed, young, -used[eni.id], eni.number, -idle, int(address))

        ready = (
            (address, slot, slot.state)
            for address, slot in self.slots.items()
            if isinstance(slot.state, Free)
            and slot.eni_id in self.enis
            and not self.enis[slot.eni_id].closed
        )
        best = min(ready, key=rank, default=None)
        return best[0] if best else None

    def assign(self, sandbox: Sandbox, addresses: tuple[Address, ...]) -> None:
        """Give *addresses* to *sandbox*.

        Raises ValueError, changing nothing, if one of them is not free.
        """
        taken = [a for a in addresses if not isinstance(self.slots[a].state, Free)]
        if taken:
            raise ValueError(f"{taken[0]} is {self.slots[taken[0]].state}, not free")
        self._take(sandbox, addresses)

    def restore(
        self, sandbox: Sandbox, addresses: tuple[Address, ...], eni_id: EniId
    ) -> tuple[Sandbox, ...]:
        """Record that *sandbox* has *addresses*, as a lease or the kernel shows; return who lost.

        A witness beats whatever the pool believed, so this may take an address that is
        cooling, leaving or unknown; one that another sandbox claims stays with that one.
        """
        others = {
            slot.state.sandbox
            for address in addresses
            if (slot := self.slots.get(address)) and isinstance(slot.state, Assigned)
        } - {sandbox}
        if others:
            return tuple(others)
        for address in addresses:
            if address not in self.slots:
                self.slots[address] = Slot(eni_id, Free())
        self._take(sandbox, addresses)
        return ()

    def _take(self, sandbox: Sandbox, addresses: tuple[Address, ...]) -> None:
        for address in addresses:
            self.slots[address] = replace(
                self.slots[address], state=Assigned(sandbox), confirmed=True
            )
        self._by_sandbox[sandbox] = addresses

    def release(self, sandbox: Sandbox, now: Instant) -> tuple[Address, ...]:
        """Let *sandbox*'s addresses cool from *now*; return them.

        Releasing a sandbox that holds nothing changes nothing, because a runtime may
        send DEL more than once.
        """
        addresses = self._by_sandbox.pop(sandbox, ())
        for address in addresses:
            self.slots[address] = replace(self.slots[address], state=Cooling(now))
        return addresses

    def cool(self, address: Address, since: Instant, *, purged: bool = False) -> None:
        """Record that *address* is cooling since *since*; ignored unless it is free."""
        slot = self.slots.get(address)
        if slot is not None and isinstance(slot.state, Free):
            self.slots[address] = replace(slot, state=Cooling(since, purged))

    def unpurged(self) -> tuple[Address, ...]:
        """Return cooling addresses whose flows the kernel may still know."""
        return tuple(
            address
            for address, slot in self.slots.items()
            if isinstance(slot.state, Cooling) and not slot.state.purged
        )

    def mark_purged(self, addresses: Iterable[Address]) -> None:
        """Record that the flows of *addresses* are gone; only cooling ones care."""
        for address in addresses:
            slot = self.slots.get(address)
            if slot is not None and isinstance(slot.state, Cooling):
                self.slots[address] = replace(slot, state=replace(slot.state, purged=True))

    def settle(self, now: Instant, cooldown_seconds: float) -> tuple[Address, ...]:
        """Free every address that has cooled for *cooldown_seconds* and is purged; return them."""
        done = {
            address: replace(slot, state=Free(slot.state.since))
            for address, slot in self.slots.items()
            if isinstance(slot.state, Cooling)
            and slot.state.purged
            and now.elapsed(slot.state.since) >= cooldown_seconds
        }
        self.slots.update(done)
        return tuple(done)

    def begin_unassign(self, addresses: Iterable[Address]) -> tuple[Address, ...]:
        """Take the free ones of *addresses* out of use, before EC2 is asked; return them."""
        leaving = tuple(
            a for a in addresses if a in self.slots and isinstance(self.slots[a].state, Free)
        )
        for address in leaving:
            self.slots[address] = replace(self.slots[address], state=Leaving())
        return leaving

    def cancel_unassign(self, addresses: Iterable[Address]) -> None:
        """Put *addresses* back: EC2 has kept them with us."""
        for address in addresses:
            slot = self.slots.get(address)
            if slot is not None and isinstance(slot.state, Leaving):
                self.slots[address] = replace(slot, state=Free())

    def census(self) -> tuple[EniCensus, ...]:
        """Return every ENI in numbers, by ENI number."""
        counts: dict[EniId, dict[type, int]] = {eni_id: {} for eni_id in self.enis}
        for slot in self.slots.values():
            kinds = counts.setdefault(slot.eni_id, {})
            kinds[type(slot.state)] = kinds.get(type(slot.state), 0) + 1
        return tuple(
            EniCensus(eni, *(counts[eni.id].get(k, 0) for k in STATES))
            for eni in sorted(self.enis.values(), key=lambda eni: eni.number)
        )
