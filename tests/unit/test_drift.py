"""What EC2 shows against what we hold: one look takes nothing away, one late answer gives nothing."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from eni.model import Block, Eni, EniId, SubnetId
from ipamd.clock import Instant
from ipamd.drift import REMEMBER_GONE_SECONDS, SECOND_LOOK_SECONDS, Drift, Held, Verdict

ONE, TWO = EniId("eni-1"), EniId("eni-2")
A, B = IPv4Network("10.0.0.5/32"), IPv4Network("10.0.0.6/32")
PREFIX = IPv4Network("10.0.0.16/28")
START = Instant(1000, 1000)
SOON = START.later(SECOND_LOOK_SECONDS - 1)
LATER = START.later(SECOND_LOOK_SECONDS)


def eni(eni_id: EniId, *blocks: Block) -> Eni:
    """Return an ENI as EC2 shows it."""
    return Eni(
        id=eni_id,
        mac="02:00:00:00:00:01",
        subnet_id=SubnetId("subnet-1"),
        status="in-use",
        description="",
        interface_type="interface",
        primary=None,
        secondary=tuple(b.network_address for b in blocks if b.prefixlen == 32),
        prefixes=tuple(b for b in blocks if b.prefixlen != 32),
    )


def held(*blocks: Block, doubtful: Collection[Block] = (), busy: Collection[EniId] = ()) -> Held:
    """Return what we hold, all of it on the first ENI."""
    return Held(dict.fromkeys(blocks, ONE), doubtful, (ONE,), busy)


def test_what_both_have_is_confirmed() -> None:
    verdict = Drift().judge([eni(ONE, A, PREFIX)], held(A, PREFIX), START)
    assert verdict.confirmed == (A, PREFIX)
    assert verdict.shown == (ONE,)
    assert not verdict.look_again


def test_what_ec2_shows_and_nobody_heard_of_is_taken_at_once() -> None:
    verdict = Drift().judge([eni(ONE, A, B), eni(TWO, PREFIX)], held(A), START)
    assert verdict.take == {ONE: (B,)}
    assert [e.id for e in verdict.adopt] == [TWO]


def test_what_ec2_does_not_show_is_denied_at_the_second_look() -> None:
    drift = Drift()
    first, soon, later = (drift.judge([eni(ONE)], held(A), t) for t in (START, SOON, LATER))
    assert [v.denied for v in (first, soon, later)] == [(), (), (A,)]
    assert [v.absent for v in (first, soon, later)] == [(A,), (A,), ()]
    assert [v.look_again for v in (first, soon, later)] == [True, True, False]


def test_what_is_shown_between_two_looks_begins_anew() -> None:
    drift = Drift()
    drift.judge([eni(ONE)], held(A), START)
    drift.judge([eni(ONE, A)], held(A), SOON)
    assert drift.judge([eni(ONE)], held(A), LATER).denied == ()


def test_an_eni_that_is_not_shown_is_missing_and_then_lost() -> None:
    drift = Drift()
    first, later = (drift.judge([], held(A), t) for t in (START, LATER))
    assert (first.missing, first.lost, first.shown) == ((ONE,), (), ())
    assert (later.missing, later.lost, later.denied) == ((ONE,), (ONE,), (A,))


def test_what_was_given_back_and_is_shown_again_is_not_ours_for_a_while() -> None:
    drift = Drift()
    drift.give_back([A, TWO], START)
    late = drift.judge([eni(ONE, A), eni(TWO, B)], held(), SOON)
    assert (late.take, late.adopt, late.look_again) == ({}, (), True)
    assert drift.given_back(SOON) == (A,)
    after = drift.judge([eni(ONE, A), eni(TWO, B)], held(), START.later(REMEMBER_GONE_SECONDS))
    assert after.take == {ONE: (A,)}
    assert [e.id for e in after.adopt] == [TWO]
    assert drift.given_back(START.later(REMEMBER_GONE_SECONDS)) == ()


def test_what_ec2_keeps_of_a_doubtful_unassign_is_kept_at_the_second_look() -> None:
    drift = Drift()
    first, later = (drift.judge([eni(ONE, A)], held(A, doubtful=[A]), t) for t in (START, LATER))
    assert (first.kept, first.confirmed, first.look_again) == ((), (), True)
    assert (later.kept, later.look_again) == ((A,), False)


def test_what_ec2_has_taken_of_a_doubtful_unassign_is_gone_and_not_denied() -> None:
    drift = Drift()
    drift.judge([eni(ONE)], held(A, doubtful=[A]), START)
    later = drift.judge([eni(ONE)], held(A, doubtful=[A]), LATER)
    assert (later.gone, later.denied) == ((A,), ())


def test_an_eni_with_a_call_in_flight_is_not_judged() -> None:
    drift = Drift()
    for moment in (START, LATER):
        verdict = drift.judge([eni(ONE, B)], held(A, busy=[ONE]), moment)
        assert (verdict.denied, verdict.take, verdict.confirmed) == ((), {}, ())
    assert drift.judge([], held(A, busy=[ONE]), LATER).missing == ()


def test_a_block_on_another_eni_than_ours_says_is_denied_before_it_is_taken_there() -> None:
    drift = Drift()
    both = Held({A: ONE}, (), (ONE, TWO))
    first, later = (drift.judge([eni(ONE), eni(TWO, A)], both, t) for t in (START, LATER))
    assert (first.take, first.denied) == ({}, ())
    assert (later.take, later.denied) == ({}, (A,))
    taken = drift.judge([eni(ONE), eni(TWO, A)], Held({}, (), (ONE, TWO)), LATER)
    assert taken.take == {TWO: (A,)}


# Laws ------------------------------------------------------------------------------------
BLOCKS = tuple(IPv4Network(f"10.0.0.{n}/32") for n in range(5, 9))
ENIS = (ONE, TWO)
some_blocks = st.sets(st.sampled_from(BLOCKS))
where = st.dictionaries(st.sampled_from(BLOCKS), st.sampled_from(ENIS))
some_enis = st.sets(st.sampled_from(ENIS))

looks = st.lists(
    st.tuples(
        st.sampled_from((0.5, 10.0, SECOND_LOOK_SECONDS, REMEMBER_GONE_SECONDS)),
        where,  # what EC2 shows
        some_enis,  # which ENIs it shows at all
        where,  # what we hold
        some_blocks,  # what of it is doubtful
        some_enis,  # which are busy
        some_blocks,  # what is given back before the look
    ),
    max_size=8,
)


def settled(verdict: Verdict) -> list[Block]:
    """Return every block that a verdict says something of."""
    taken = [block for blocks in verdict.take.values() for block in blocks]
    adopted = [block for eni in verdict.adopt for block in eni.blocks]
    return [*taken, *adopted, *verdict.confirmed, *verdict.denied, *verdict.kept, *verdict.gone]


@given(looks)
def test_a_verdict_says_one_thing_of_a_block_and_nothing_on_one_look(looks: list[tuple]) -> None:  # type: ignore[type-arg] # a row of `looks`
    drift, now = Drift(), START
    away: dict[Block, Instant] = {}  # since when each held block was not shown where we hold it
    given_back: dict[Block, Instant] = {}
    for seconds, there, there_enis, ours, doubtful, busy, gone in looks:
        now = now.later(seconds)
        drift.give_back(gone, now)
        given_back |= dict.fromkeys(gone, now)
        away = {block: at for block, at in away.items() if block not in gone}
        shown = [eni(i, *sorted(b for b, e in there.items() if e == i)) for i in there_enis]
        seen = {b: e for b, e in there.items() if e in there_enis}
        verdict = drift.judge(shown, Held(ours, doubtful, ENIS, busy), now)
        said = settled(verdict)
        assert len(said) == len(set(said)), "a block is judged twice"
        judged = {b for b, e in ours.items() if e not in busy and seen.get(b) != e}
        away = {b: away.get(b, now) for b in judged}
        for block in (*verdict.denied, *verdict.gone):
            assert now.elapsed(away[block]) >= SECOND_LOOK_SECONDS
        for blocks in verdict.take.values():
            for block in blocks:
                since = given_back.get(block)
                assert since is None or now.elapsed(since) >= REMEMBER_GONE_SECONDS
        assert set(verdict.lost) <= set(verdict.missing)
        assert not set(verdict.missing) & (set(verdict.shown) | set(busy))


def test_what_a_pod_keeps_is_denied_at_each_look_after_the_second_and_asks_for_none() -> None:
    drift = Drift()
    for moment in (START, LATER):
        drift.judge([eni(TWO)], held(A), moment)
    much_later = drift.judge([], held(A), LATER.later(3600))
    assert (much_later.denied, much_later.lost) == ((A,), (ONE,))
    assert (much_later.absent, much_later.look_again) == ((), False)


def test_what_ec2_has_said_to_be_ours_meanwhile_needs_two_looks_again() -> None:
    drift = Drift()
    for moment in (START, LATER):
        drift.judge([], held(A), moment)
    drift.heard_of([A, ONE])
    again = drift.judge([], held(A), LATER)
    assert (again.denied, again.lost, again.absent, again.look_again) == ((), (), (A,), True)


def test_what_is_given_back_needs_two_looks_when_it_comes_again() -> None:
    drift = Drift()
    for moment in (START, LATER):
        drift.judge([eni(ONE)], held(A), moment)
    drift.give_back([A], LATER)
    assert drift.judge([eni(ONE)], held(A), LATER).denied == ()


def test_a_denied_block_that_another_eni_of_ours_has_has_moved() -> None:
    drift = Drift()
    ours = Held({A: ONE, B: ONE, PREFIX: ONE}, (PREFIX,), (ONE, TWO))
    shown = [eni(ONE), eni(TWO, A, PREFIX), eni(EniId("eni-3"), B)]
    first, later = (drift.judge(shown, ours, moment) for moment in (START, LATER))
    assert first.moved == {}
    assert (later.denied, later.gone) == ((A, B), (PREFIX,))
    assert later.moved == {A: TWO, PREFIX: TWO}


def test_a_block_has_not_moved_to_an_eni_with_a_call_in_flight() -> None:
    drift = Drift()
    ours = Held({A: ONE}, (), (ONE, TWO), busy=(TWO,))
    for moment in (START, LATER):
        verdict = drift.judge([eni(ONE), eni(TWO, A)], ours, moment)
    assert (verdict.denied, verdict.moved) == ((A,), {})
