"""The pool: one state an address, and only `assign` leads to a pod."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cni.spec import Sandbox
from eni.model import EniId
from ipamd.clock import Instant
from ipamd.pool import Assigned, Cooling, Free, Leaving, Pool, PoolEni

COOLDOWN = 30.0
START = Instant(boot=1000.0, wall=5000.0)
A1, A2, A3, B1, B2 = (IPv4Address(f"10.0.1.{i}") for i in (11, 12, 13, 21, 22))


def sandbox(name: str) -> Sandbox:
    return Sandbox("enid", name, "eth0")


def eni(name: str, number: int) -> PoolEni:
    return PoolEni(EniId(name), number, capacity=9, since=START)


@pytest.fixture
def pool() -> Pool:
    pool = Pool()
    pool.put_eni(eni("a", 1))
    pool.put_eni(eni("b", 2))
    pool.add(EniId("a"), [A1, A2, A3])
    pool.add(EniId("b"), [B1, B2])
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
    pool.drop([A3, B1, B2])
    pool.settle(START.later(100), COOLDOWN)
    assert pool.choose(START.later(200), COOLDOWN) == A2


def test_an_address_younger_than_two_cooldowns_is_passed_over_for_another_enis(pool: Pool) -> None:
    pool.assign(sandbox("stays"), (A2,))
    pool.assign(sandbox("goes"), (A1,))
    pool.drop([A3])
    pool.release(sandbox("goes"), START)
    pool.mark_purged([A1])
    pool.settle(START.later(COOLDOWN), COOLDOWN)
    assert pool.choose(START.later(COOLDOWN), COOLDOWN) == B1
    pool.drop([B1, B2])
    assert pool.choose(START.later(COOLDOWN), COOLDOWN) == A1


def test_an_unconfirmed_address_waits_behind_all_others(pool: Pool) -> None:
    pool.drop([A1, A2, A3, B1, B2])
    pool.add(EniId("a"), [A1], confirmed=False)
    pool.add(EniId("b"), [B1])
    assert pool.choose(START, COOLDOWN) == B1
    pool.add(EniId("a"), [A1])
    assert pool.choose(START, COOLDOWN) == A1


def test_a_closed_eni_gives_nothing(pool: Pool) -> None:
    pool.close_eni(EniId("a"))
    assert pool.choose(START, COOLDOWN) == B1
    pool.close_eni(EniId("b"))
    assert pool.choose(START, COOLDOWN) is None
    pool.reopen_eni(EniId("b"))
    assert pool.choose(START, COOLDOWN) == B1


def test_a_released_address_is_not_chosen_before_it_is_cold_and_purged(pool: Pool) -> None:
    pool.drop([A2, A3, B1, B2])
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
        pool.drop([A2, A1])
    assert A2 in pool.slots
    with pytest.raises(ValueError, match="belongs to"):
        pool.remove_eni(EniId("a"))
    assert pool.begin_unassign([A1, A2]) == (A2,)
    assert isinstance(pool.slots[A1].state, Assigned)


def test_an_unassign_that_ec2_refuses_is_taken_back(pool: Pool) -> None:
    pool.begin_unassign([A1])
    assert pool.slots[A1].state == Leaving()
    assert pool.choose(START, COOLDOWN) == A2
    pool.cancel_unassign([A1, A2])
    assert pool.slots[A1].state == Free()


def test_a_repeated_answer_of_ec2_frees_nothing(pool: Pool) -> None:
    pool.assign(sandbox("x"), (A1,))
    assert pool.add(EniId("a"), [A1, A2]) == ()
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
    pool.begin_unassign([B1])
    a, b = pool.census()
    assert (a.assigned, a.cooling, a.free, a.leaving, a.room) == (1, 1, 1, 0, 6)
    assert (b.assigned, b.cooling, b.free, b.leaving, b.held) == (0, 0, 1, 1, 2)
    assert a.eni.is_primary
    assert not b.eni.is_primary
    assert not b.is_idle
    assert len(pool.slots) == 5
    pool.close_eni(EniId("a"))
    assert pool.census()[0].room == 0


def test_what_nobody_knows_is_ignored(pool: Pool) -> None:
    stranger = IPv4Address("10.9.9.9")
    pool.mark_purged([stranger, A1])
    pool.cool(stranger, START)
    pool.cancel_unassign([stranger])
    pool.drop([stranger])
    pool.remove_eni(EniId("b"))
    assert len(pool.slots) == 3


class PoolMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order, no address has two owners and none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()
        self.pool.put_eni(eni("a", 1))
        self.now = START
        self.owner: dict[Sandbox, IPv4Address] = {}
        self.released: dict[IPv4Address, float] = {}

    @rule(last=st.integers(1, 6))
    def ec2_assigns(self, last: int) -> None:
        self.pool.add(EniId("a"), [IPv4Address(f"10.0.1.{last}")])

    @rule(name=st.sampled_from("uvwxyz"))
    def add(self, name: str) -> None:
        address = self.pool.choose(self.now, COOLDOWN)
        if address is None or sandbox(name) in self.owner:
            return
        self.pool.assign(sandbox(name), (address,))
        assert address not in self.owner.values()
        assert isinstance(address, IPv4Address)
        if address in self.released:
            assert self.now.boot - self.released[address] >= COOLDOWN
        self.owner[sandbox(name)] = address

    @rule(name=st.sampled_from("uvwxyz"))
    def delete(self, name: str) -> None:
        self.pool.release(sandbox(name), self.now)
        if (address := self.owner.pop(sandbox(name), None)) is not None:
            self.released[address] = self.now.boot

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now = self.now.later(seconds)
        self.pool.mark_purged(self.pool.unpurged())
        self.pool.settle(self.now, COOLDOWN)

    @rule(last=st.integers(1, 6), granted=st.booleans())
    def ec2_takes_back(self, last: int, *, granted: bool) -> None:
        leaving = self.pool.begin_unassign([IPv4Address(f"10.0.1.{last}")])
        if granted:
            self.pool.drop(leaving)
        else:
            self.pool.cancel_unassign(leaving)

    @precondition(lambda self: self.owner)
    @invariant()
    def every_owner_still_owns(self) -> None:
        for who, address in self.owner.items():
            assert self.pool.slots[address].state == Assigned(who)
            assert self.pool.addresses_of(who) == (address,)


TestPoolMachine = PoolMachine.TestCase


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_cooldown_ends_only_when_both_clocks_say_so(boot: float, wall: float) -> None:
    elapsed = Instant(START.boot + boot, START.wall + wall).elapsed(START)
    if boot >= 0 and wall >= 0:
        assert elapsed == pytest.approx(min(boot, wall))
    assert elapsed >= 0
