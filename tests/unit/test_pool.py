"""The pool: one state an address, and only `assign` leads to a pod."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni.spec import Sandbox
from eni.model import Address, Block, EniId, Kind, SubnetId, kind_of
from ipamd.clock import Instant
from ipamd.pool import Assigned, Cooling, EniCensus, Free, Leaving, Pool, PoolEni, Slot, Taken

COOLDOWN = 30.0
START = Instant(boot=1000.0, wall=5000.0)
A1, A2, A3, B1, B2 = (IPv4Address(f"10.0.1.{i}") for i in (11, 12, 13, 21, 22))


def sandbox(name: str) -> Sandbox:
    return Sandbox("enid", name, "eth0")


def eni(name: str, number: int) -> PoolEni:
    return PoolEni(EniId(name), number, slots=9, subnet_id=SubnetId("subnet-1"), since=START)


def singles(*addresses: IPv4Address) -> list[Block]:
    return [IPv4Network(address) for address in addresses]


@pytest.fixture
def pool() -> Pool:
    pool = Pool()
    pool.put_eni(eni("a", 1))
    pool.put_eni(eni("b", 2))
    pool.add(EniId("a"), singles(A1, A2, A3))
    pool.add(EniId("b"), singles(B1, B2))
    return pool


def test_the_fullest_eni_is_filled_first(pool: Pool) -> None:
    pool.assign(sandbox("x"), (B1,))
    assert pool.choose(START, COOLDOWN) == B2


def test_with_nothing_in_use_the_primary_comes_first(pool: Pool) -> None:
    assert pool.choose(START, COOLDOWN) == A1


def test_the_longest_unused_address_comes_first(pool: Pool) -> None:
    for index, address in enumerate((A2, A1)):
        pool.assign(sandbox(f"{index}"), (address,))
        pool.release(sandbox(f"{index}"), START.later(index))
        pool.mark_purged([address])
    pool.drop(singles(A3, B1, B2))
    pool.settle(START.later(100), COOLDOWN)
    assert pool.choose(START.later(200), COOLDOWN) == A2


def test_an_address_younger_than_two_cooldowns_is_passed_over_for_another_enis(pool: Pool) -> None:
    pool.assign(sandbox("stays"), (A2,))
    pool.assign(sandbox("goes"), (A1,))
    pool.drop(singles(A3))
    pool.release(sandbox("goes"), START)
    pool.mark_purged([A1])
    pool.settle(START.later(COOLDOWN), COOLDOWN)
    assert pool.choose(START.later(COOLDOWN), COOLDOWN) == B1
    pool.drop(singles(B1, B2))
    assert pool.choose(START.later(COOLDOWN), COOLDOWN) == A1


def test_an_unconfirmed_address_waits_behind_all_others(pool: Pool) -> None:
    pool.drop(singles(A1, A2, A3, B1, B2))
    pool.add(EniId("a"), singles(A1), confirmed=False)
    pool.add(EniId("b"), singles(B1))
    assert pool.choose(START, COOLDOWN) == B1
    pool.add(EniId("a"), singles(A1))
    assert pool.choose(START, COOLDOWN) == A1


def test_a_young_address_comes_before_one_that_nobody_confirmed(pool: Pool) -> None:
    pool.drop(singles(A1, A2, A3, B1, B2))
    pool.add(EniId("a"), singles(A1))
    pool.cool(A1, START, purged=True)
    pool.settle(START.later(COOLDOWN), COOLDOWN)
    pool.add(EniId("b"), singles(B1), confirmed=False)
    assert pool.choose(START.later(COOLDOWN), COOLDOWN) == A1


def test_a_closed_eni_gives_nothing(pool: Pool) -> None:
    pool.close_eni(EniId("a"))
    assert pool.choose(START, COOLDOWN) == B1
    pool.close_eni(EniId("b"))
    assert pool.choose(START, COOLDOWN) is None
    pool.reopen_eni(EniId("b"))
    assert pool.choose(START, COOLDOWN) == B1


def test_a_released_address_is_not_chosen_before_it_is_cold_and_purged(pool: Pool) -> None:
    pool.drop(singles(A2, A3, B1, B2))
    pool.assign(sandbox("x"), (A1,))
    assert pool.release(sandbox("x"), START) == (A1,)
    assert pool.settle(START.later(COOLDOWN + 1), COOLDOWN) == ()
    assert pool.unpurged() == (A1,)
    pool.mark_purged(pool.unpurged())
    assert pool.settle(START.later(COOLDOWN - 1), COOLDOWN) == ()
    assert pool.choose(START.later(COOLDOWN - 1), COOLDOWN) is None
    assert pool.settle(START.later(COOLDOWN), COOLDOWN) == (A1,)
    assert pool.choose(START.later(COOLDOWN), COOLDOWN) == A1


def test_del_may_come_twice(pool: Pool) -> None:
    pool.assign(sandbox("x"), (A1,))
    pool.release(sandbox("x"), START)
    assert pool.release(sandbox("x"), START.later(5)) == ()
    assert pool.slots[A1].state == Cooling(START)


def test_an_assigned_address_can_be_neither_assigned_nor_dropped_nor_given_back(pool: Pool) -> None:
    pool.assign(sandbox("x"), (A1,))
    with pytest.raises(ValueError, match="not free"):
        pool.assign(sandbox("y"), (A1,))
    with pytest.raises(ValueError, match="belongs to"):
        pool.drop(singles(A2, A1))
    assert A2 in pool.slots
    with pytest.raises(ValueError, match="belongs to"):
        pool.remove_eni(EniId("a"))
    assert pool.begin_unassign(singles(A1, A2)) == tuple(singles(A2))
    assert isinstance(pool.slots[A1].state, Assigned)


def test_an_unassign_that_ec2_refuses_is_taken_back(pool: Pool) -> None:
    pool.begin_unassign(singles(A1))
    assert pool.slots[A1].state == Leaving()
    assert pool.choose(START, COOLDOWN) == A2
    pool.cancel_unassign(singles(A1, A2))
    assert pool.slots[A1].state == Free()


def test_a_repeated_answer_of_ec2_frees_nothing(pool: Pool) -> None:
    pool.assign(sandbox("x"), (A1,))
    assert pool.add(EniId("a"), singles(A1, A2)) == ()
    assert isinstance(pool.slots[A1].state, Assigned)


def test_a_witness_beats_what_the_pool_believed(pool: Pool) -> None:
    stranger = IPv4Address("10.0.1.99")
    pool.cool(A1, START)
    assert pool.restore(sandbox("x"), (A1,), EniId("a")) == ()
    assert pool.restore(sandbox("y"), (stranger,), EniId("a")) == ()
    assert pool.addresses_of(sandbox("x")) == (A1,)
    assert pool.restore(sandbox("z"), (A1,), EniId("a")) == (sandbox("x"),)
    assert pool.addresses_of(sandbox("z")) == ()


def test_the_census_counts_every_state(pool: Pool) -> None:
    pool.assign(sandbox("x"), (A1,))
    pool.assign(sandbox("y"), (A2,))
    pool.release(sandbox("y"), START)
    pool.begin_unassign(singles(B1))
    a, b = pool.census()
    assert (a.assigned, a.cooling, a.free, a.leaving, a.room) == (1, 1, 1, 0, 6)
    assert (b.assigned, b.cooling, b.free, b.leaving, b.held) == (0, 0, 1, 1, 2)
    assert a.eni.is_primary
    assert not b.eni.is_primary
    assert not b.is_idle
    assert len(pool.slots) == 5
    pool.close_eni(EniId("a"))
    assert pool.census()[0].room == 0
    assert not a.idle(Kind.PREFIX)
    assert a.idle(Kind.SINGLE) == 1


def test_what_nobody_knows_is_ignored(pool: Pool) -> None:
    stranger = IPv4Address("10.9.9.9")
    pool.mark_purged([stranger, A1])
    pool.cool(stranger, START)
    pool.cancel_unassign(singles(stranger))
    pool.drop(singles(stranger))
    pool.remove_eni(EniId("b"))
    assert len(pool.slots) == 3


# Blocks ----------------------------------------------------------------------------------
P, Q = IPv4Network("10.0.2.0/28"), IPv4Network("10.0.2.16/28")


@pytest.fixture
def prefixes() -> Pool:
    pool = Pool()
    pool.put_eni(eni("a", 1))
    pool.put_eni(eni("b", 2))
    pool.add(EniId("a"), [P, Q])
    return pool


def test_all_sixteen_addresses_of_a_prefix_are_pods(prefixes: Pool) -> None:
    given_out = set()
    for index in range(32):
        address = prefixes.choose(START, COOLDOWN)
        assert address is not None
        prefixes.assign(sandbox(str(index)), (address,))
        given_out.add(address)
    assert given_out == {*P, *Q}
    assert prefixes.choose(START, COOLDOWN) is None


def test_a_prefix_takes_one_slot(prefixes: Pool) -> None:
    (a, _) = prefixes.census()
    assert (a.prefixes, a.singles, a.room, a.free, a.idle_prefixes) == (2, 0, 7, 32, 2)


def test_the_fullest_prefix_is_filled_first(prefixes: Pool) -> None:
    prefixes.assign(sandbox("x"), (Q[3],))
    assert prefixes.choose(START, COOLDOWN) == Q[0]


def test_the_singles_of_an_eni_are_filled_as_one(prefixes: Pool) -> None:
    prefixes.add(EniId("a"), singles(A1, A2, A3))
    prefixes.assign(sandbox("x"), (P[0],))
    prefixes.assign(sandbox("y"), (A1,))
    prefixes.assign(sandbox("z"), (A2,))
    assert prefixes.choose(START, COOLDOWN) == A3


def test_an_excluded_eni_gives_nothing_but_keeps_what_it_gave(prefixes: Pool) -> None:
    prefixes.assign(sandbox("x"), (P[0],))
    prefixes.put_eni(replace(eni("a", 1), excluded=True))
    assert prefixes.choose(START, COOLDOWN) is None
    assert prefixes.census()[0].room == 0
    assert prefixes.addresses_of(sandbox("x")) == (P[0],)


def test_a_prefix_goes_back_only_as_a_whole(prefixes: Pool) -> None:
    prefixes.assign(sandbox("x"), (P[0],))
    prefixes.cool(Q[0], START)
    assert prefixes.begin_unassign([P, Q]) == ()
    prefixes.settle(START.later(COOLDOWN), COOLDOWN)
    assert prefixes.begin_unassign([P, Q]) == ()
    prefixes.mark_purged([Q[0]])
    prefixes.settle(START.later(COOLDOWN), COOLDOWN)
    assert prefixes.begin_unassign([P, Q]) == (Q,)
    assert prefixes.census()[0].leaving == 16
    prefixes.drop([Q])
    assert prefixes.blocks_of(EniId("a")) == (P,)
    assert prefixes.block_of(Q[0]) is None
    assert prefixes.block_of(P[5]) == P


def test_what_was_leaving_comes_back_as_cold_as_it_was(prefixes: Pool) -> None:
    prefixes.cool(P[0], START, purged=True)
    prefixes.settle(START.later(COOLDOWN), COOLDOWN)
    prefixes.begin_unassign([P])
    prefixes.cancel_unassign([P])
    assert prefixes.slots[P[0]].state == Free(START)


def test_the_longest_unused_block_goes_back_first_and_a_reserved_one_last(prefixes: Pool) -> None:
    third = IPv4Network("10.0.2.32/28")
    prefixes.add(EniId("a"), [third])
    prefixes.add(EniId("a"), singles(A1))
    prefixes.cool(Q[0], START, purged=True)
    prefixes.settle(START.later(COOLDOWN), COOLDOWN)
    later = START.later(100)
    assert prefixes.idle_blocks(EniId("a"), Kind.PREFIX, later) == (third, P, Q)
    reserved = [IPv4Network("10.0.2.32/27")]
    assert prefixes.idle_blocks(EniId("a"), Kind.PREFIX, later, reserved) == (P, Q, third)
    assert prefixes.idle_blocks(EniId("a"), Kind.SINGLE, later) == tuple(singles(A1))
    assert prefixes.idle_blocks(EniId("b"), Kind.SINGLE, later) == ()


def test_a_prefix_takes_in_the_guesses_within_it() -> None:
    pool = Pool()
    pool.put_eni(eni("a", 1))
    pool.restore(sandbox("x"), (P[3],), EniId("a"))
    assert pool.blocks_of(EniId("a")) == tuple(singles(P[3]))
    assert pool.add(EniId("a"), [P]) == (P,)
    assert pool.blocks_of(EniId("a")) == (P,)
    assert pool.slots[P[3]] == Slot(EniId("a"), P, Assigned(sandbox("x")))
    assert pool.choose(START, COOLDOWN) == P[0]


def test_a_single_within_a_held_prefix_is_known_already(prefixes: Pool) -> None:
    assert prefixes.add(EniId("a"), singles(P[3])) == ()
    assert prefixes.blocks_of(EniId("a")) == (P, Q)


def test_what_another_eni_still_holds_waits_until_it_is_dropped(prefixes: Pool) -> None:
    assert prefixes.add(EniId("b"), [P, *singles(Q[1])]) == ()
    prefixes.drop([P])
    assert prefixes.add(EniId("b"), [P]) == (P,)


def test_a_sandbox_keeps_all_that_witnesses_say_it_has(prefixes: Pool) -> None:
    prefixes.restore(sandbox("x"), (P[0],), EniId("a"))
    prefixes.restore(sandbox("x"), (P[1],), EniId("a"))
    assert set(prefixes.release(sandbox("x"), START)) == {P[0], P[1]}


# The host's own --------------------------------------------------------------------------
def test_what_the_host_has_is_never_a_pods(pool: Pool) -> None:
    pool.set_taken({A1: "eth0", A2: "eth0"})
    assert pool.slots[A1].state == Taken("eth0")
    assert pool.choose(START, COOLDOWN) == A3
    pool.set_taken({A1: "eth1"})
    assert pool.slots[A1].state == Taken("eth1")
    assert pool.slots[A2].state == Free()
    assert pool.begin_unassign(singles(A1)) == ()


def test_what_cools_when_it_goes_cools_on_when_it_comes_back(pool: Pool) -> None:
    """EC2 gives an address again at once: to another ENI of ours, or after a hand took it."""
    owner = sandbox("w")
    address = pool.choose(START, COOLDOWN)
    assert address is not None
    block, eni_id = pool.slots[address].block, pool.slots[address].eni_id
    pool.assign(owner, (address,))
    pool.release(owner, START)
    pool.drop([block])
    pool.add(eni_id, [block])
    assert pool.slots[address].state == Cooling(START)
    assert pool.unpurged() == (address,)


def test_what_cooled_in_a_former_life_cools_on_when_it_comes(pool: Pool) -> None:
    (block,) = SPACE[-1:]
    pool.cool(block[0], START, purged=True)
    pool.set_taken({}, [ENIS[0]])
    pool.add(ENIS[0], [block])
    assert pool.slots[block[0]].state == Cooling(START, purged=True)


def test_a_cooling_address_that_the_host_has_never_gets_free(pool: Pool) -> None:
    pool.cool(A1, START, purged=True)
    pool.set_taken({A1: "eth0"})
    assert pool.slots[A1].state == Cooling(START, purged=True)
    pool.settle(START.later(COOLDOWN), COOLDOWN)
    assert pool.slots[A1].state == Taken("eth0")


def test_what_comes_later_is_taken_too(pool: Pool) -> None:
    stranger = IPv4Address("10.0.1.99")
    pool.set_taken({stranger: "eth0"})
    pool.add(EniId("a"), singles(stranger))
    assert pool.slots[stranger].state == Taken("eth0")


def test_the_truth_of_one_eni_says_nothing_of_others(pool: Pool) -> None:
    pool.set_taken({A1: "eth0", B1: "eth1"})
    pool.set_taken({}, [EniId("b")])
    assert pool.slots[A1].state == Taken("eth0")
    assert pool.slots[B1].state == Free()


# Time ------------------------------------------------------------------------------------
def test_the_next_ready_address_is_the_one_that_cools_longest(pool: Pool) -> None:
    assert pool.next_ready(START, COOLDOWN) is None
    pool.cool(A1, START)
    assert pool.next_ready(START, COOLDOWN) is None
    pool.mark_purged([A1])
    pool.cool(A2, START.later(5), purged=True)
    assert pool.next_ready(START.later(10), COOLDOWN) == 20
    assert pool.next_ready(START.later(99), COOLDOWN) == 0


def test_flows_are_purged_when_the_first_that_cools_has_rested(pool: Pool) -> None:
    assert pool.next_purge(START, 15) is None
    pool.cool(A1, START)
    pool.cool(A2, START.later(5))
    assert pool.next_purge(START.later(10), 15) == 5
    assert pool.next_purge(START.later(99), 15) == 0
    pool.mark_purged([A1])
    assert pool.next_purge(START.later(10), 15) == 10
    pool.mark_purged([A2])
    assert pool.next_purge(START.later(10), 15) is None


# Laws ------------------------------------------------------------------------------------
ENIS = [EniId("a"), EniId("b"), EniId("c")]
SPACE = [*singles(*(IPv4Address(f"10.0.1.{i}") for i in range(1, 5))), P, Q]
names = st.sampled_from("uvwxyz")
places = st.sampled_from(ENIS)
some_blocks = st.sampled_from(SPACE)
some_addresses = st.sampled_from([*(block[0] for block in SPACE[:4]), P[0], P[15], Q[0], Q[1]])


def group_of(slot: Slot) -> Block | None:
    return slot.block if kind_of(slot.block) is Kind.PREFIX else None


def defined_choice(pool: Pool, now: Instant) -> Address | None:
    """What `choose` promises, by looking at all there is."""

    def assigned(eni_id: EniId, *group: Block | None) -> int:
        return sum(
            slot.eni_id == eni_id
            and isinstance(slot.state, Assigned)
            and (not group or group_of(slot) == group[0])
            for slot in pool.slots.values()
        )

    def rank(address: Address) -> tuple[bool, bool, int, int, int, bool, int, float, int]:
        slot = pool.slots[address]
        assert isinstance(slot.state, Free)
        idle = now.elapsed(slot.state.used) if slot.state.used else float("inf")
        group = group_of(slot)
        return (
            not slot.confirmed,
            idle < 2 * COOLDOWN,
            -assigned(slot.eni_id),
            pool.enis[slot.eni_id].number,
            -assigned(slot.eni_id, group),
            group is None,
            int(group.network_address) if group else 0,
            -idle,
            int(address),
        )

    ready = [
        address
        for address, slot in pool.slots.items()
        if isinstance(slot.state, Free) and slot.eni_id in pool.enis
        and pool.enis[slot.eni_id].is_open
    ]  # fmt: skip
    return min(ready, key=rank, default=None)


def recount(pool: Pool, of: PoolEni) -> EniCensus:
    slots = [slot for slot in pool.slots.values() if slot.eni_id == of.id]
    blocks = {slot.block for slot in slots}
    busy = {slot.block for slot in slots if not isinstance(slot.state, Free)}

    def count(kind: Kind, among: set[Block]) -> int:
        return sum(kind_of(block) is kind for block in among)

    def states(kind: type) -> int:
        return sum(isinstance(slot.state, kind) for slot in slots)

    return EniCensus(
        of,
        assigned=states(Assigned),
        cooling=states(Cooling),
        free=states(Free),
        leaving=states(Leaving),
        taken=states(Taken),
        singles=count(Kind.SINGLE, blocks),
        prefixes=count(Kind.PREFIX, blocks),
        idle_singles=count(Kind.SINGLE, blocks - busy),
        idle_prefixes=count(Kind.PREFIX, blocks - busy),
    )


class PoolMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order, no address has two owners and none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        for number, eni_id in enumerate(ENIS[:2], 1):
            self.pool.put_eni(eni(eni_id, number))
        self.pool.add(ENIS[0], [P, Q])
        self.pool.add(ENIS[1], SPACE[:4])
        self.now = START
        self.owner: dict[Sandbox, set[Address]] = {}
        self.released: dict[Address, float] = {}

    @rule(eni_id=places, block=some_blocks, confirmed=st.booleans())
    def ec2_assigns(self, eni_id: EniId, block: Block, *, confirmed: bool) -> None:
        self.pool.add(eni_id, [block], confirmed=confirmed)

    @rule(name=names)
    def add(self, name: str) -> None:
        address = self.pool.choose(self.now, COOLDOWN)
        if address is None or sandbox(name) in self.owner:
            return
        self.pool.assign(sandbox(name), (address,))
        assert all(address not in owned for owned in self.owner.values())
        if address in self.released:
            assert self.now.boot - self.released[address] >= COOLDOWN
        self.owner[sandbox(name)] = {address}

    @rule(name=names, address=some_addresses, eni_id=places)
    def witness(self, name: str, address: Address, eni_id: EniId) -> None:
        losers = self.pool.restore(sandbox(name), (address,), eni_id)
        if losers:
            assert any(address in self.owner[who] for who in losers)
        else:
            self.owner.setdefault(sandbox(name), set()).add(address)

    @rule(name=names)
    def delete(self, name: str) -> None:
        owned = self.owner.pop(sandbox(name), set())
        assert set(self.pool.release(sandbox(name), self.now)) == owned
        self.released |= dict.fromkeys(owned, self.now.boot)

    @rule(address=some_addresses)
    def journal_remembers_a_release(self, address: Address) -> None:
        self.pool.cool(address, self.now)

    @rule(seconds=st.sampled_from([1, 29, 31, 61]), purge=st.booleans())
    def time_passes(self, seconds: float, *, purge: bool) -> None:
        self.now = self.now.later(seconds)
        if purge:
            self.pool.mark_purged(self.pool.unpurged())
        due = self.pool.next_ready(self.now, COOLDOWN)
        assert bool(self.pool.settle(self.now, COOLDOWN)) == (due == 0)

    @rule(blocks=st.sets(some_blocks, max_size=2), granted=st.booleans())
    def ec2_takes_back(self, blocks: set[Block], *, granted: bool) -> None:
        leaving = self.pool.begin_unassign(blocks)
        if granted:
            self.pool.drop(leaving)
        else:
            self.pool.cancel_unassign(leaving)

    @rule(block=some_blocks)
    def ec2_is_asked_to_take_back(self, block: Block) -> None:
        self.pool.begin_unassign([block])

    @rule(block=some_blocks)
    def ec2_denies(self, block: Block) -> None:
        owned = set().union(*self.owner.values()) & set(block)
        if any(self.pool.block_of(address) == block for address in owned):
            with pytest.raises(ValueError, match="belongs to"):
                self.pool.drop([block])
        else:
            self.pool.drop([block])

    @rule(taken=st.sets(some_addresses, max_size=3), of=st.sets(places))
    def host_has(self, taken: set[Address], of: set[EniId]) -> None:
        self.pool.set_taken(dict.fromkeys(taken, "eth0"), of)

    @rule(index=st.sampled_from([0, 1]), closed=st.booleans(), excluded=st.booleans())
    def eni_changes(self, index: int, *, closed: bool, excluded: bool) -> None:
        changed = replace(eni(ENIS[index], index + 1), closed=closed, excluded=excluded)
        self.pool.put_eni(changed)

    @invariant()
    def every_owner_still_owns(self) -> None:
        for who, owned in self.owner.items():
            assert set(self.pool.addresses_of(who)) == owned
            assert all(self.pool.slots[a].state == Assigned(who) for a in owned)

    @invariant()
    def the_indices_are_a_recount(self) -> None:
        assert self.pool.census() == tuple(recount(self.pool, e) for e in self.pool.enis.values())
        for eni_id in ENIS:
            blocks = {s.block for s in self.pool.slots.values() if s.eni_id == eni_id}
            assert self.pool.blocks_of(eni_id) == tuple(sorted(blocks))
        unpurged = {
            address
            for address, slot in self.pool.slots.items()
            if isinstance(slot.state, Cooling) and not slot.state.purged
        }
        assert set(self.pool.unpurged()) == unpurged

    @invariant()
    def the_choice_is_the_defined_one(self) -> None:
        assert self.pool.choose(self.now, COOLDOWN) == defined_choice(self.pool, self.now)

    @invariant()
    def what_is_idle_is_wholly_free(self) -> None:
        for eni_id in ENIS[:2]:
            for kind in Kind:
                idle = self.pool.idle_blocks(eni_id, kind, self.now)
                census = recount(self.pool, self.pool.enis[eni_id])
                assert len(idle) == census.idle(kind)


TestPoolMachine = PoolMachine.TestCase


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_cooldown_ends_only_when_both_clocks_say_so(boot: float, wall: float) -> None:
    elapsed = Instant(START.boot + boot, START.wall + wall).elapsed(START)
    if boot >= 0 and wall >= 0:
        assert elapsed == pytest.approx(min(boot, wall))
    assert elapsed >= 0


def test_of_a_block_that_ec2_denies_nothing_more_is_given_until_it_shows_it_again() -> None:
    pool = Pool()
    pool.put_eni(eni("a", 1))
    block = IPv4Network("10.0.1.16/28")
    pool.add(EniId("a"), [block])
    pool.assign(sandbox("x"), (block[0],))
    pool.assign(sandbox("y"), (block[1],))
    pool.release(sandbox("y"), START)
    pool.mark_purged([block[1]])
    pool.withhold(block)
    assert pool.choose(START, COOLDOWN) is None
    assert pool.addresses_of(sandbox("x")) == (block[0],)
    pool.settle(START.later(2 * COOLDOWN), COOLDOWN)
    assert pool.choose(START.later(3 * COOLDOWN), COOLDOWN) is None, "also when it has cooled"
    pool.cancel_unassign([block])
    assert pool.choose(START.later(3 * COOLDOWN), COOLDOWN) == block[2]
    assert pool.blocks() == {block: EniId("a")}


def test_withholding_what_nobody_knows_changes_nothing(pool: Pool) -> None:
    before = dict(pool.slots)
    pool.withhold(IPv4Network("10.9.9.0/28"))
    assert dict(pool.slots) == before
