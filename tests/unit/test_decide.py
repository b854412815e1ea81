"""What the pool asks of EC2: laws first, then the peer's arithmetic as cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eni.model import EniId
from ipamd.clock import Instant
from ipamd.decide import (
    Action,
    AddEni,
    Assign,
    RemoveEni,
    Situation,
    Targets,
    Unassign,
    grow,
    shortfall,
    shrink,
    surplus,
)
from ipamd.pool import EniCensus, PoolEni

PER_ENI = 9
OLD = 3600.0


def census(number: int, assigned: int, cooling: int, free: int, leaving: int = 0) -> EniCensus:
    eni = PoolEni(EniId(f"eni-{number}"), number, PER_ENI, Instant(0, 0))
    return EniCensus(eni, assigned, cooling, free, leaving)


def situation(*enis: EniCensus, waiting: int = 0, free_enis: int = 0) -> Situation:
    return Situation(enis, waiting, free_enis, PER_ENI)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    enis = []
    for number in range(1, draw(st.integers(1, 4)) + 1):
        assigned = draw(st.integers(0, PER_ENI))
        cooling = draw(st.integers(0, PER_ENI - assigned))
        free = draw(st.integers(0, PER_ENI - assigned - cooling))
        enis.append(census(number, assigned, cooling, free))
    return Situation(tuple(enis), draw(st.integers(0, 5)), draw(st.integers(0, 3)), PER_ENI)


targets = st.builds(Targets, st.integers(0, 2), st.integers(0, 12), st.integers(0, 30))


@given(situations(), targets)
def test_never_asks_and_returns_at_once(now: Situation, wanted: Targets) -> None:
    assert not (shortfall(now, wanted) and surplus(now, wanted))
    if grow(now, wanted) is not None:
        assert shrink(now, wanted, [OLD] * len(now.enis)) is None


@given(situations(), targets)
def test_never_past_what_the_instance_takes(now: Situation, wanted: Targets) -> None:
    match grow(now, wanted):
        case Assign(eni_id, count):
            room = next(e.room for e in now.enis if e.eni.id == eni_id)
            assert 0 < count <= room
        case AddEni(count):
            assert now.free_enis > 0
            assert 0 < count <= PER_ENI


@given(situations(), targets)
def test_never_gives_up_what_a_pod_has_or_just_had(now: Situation, wanted: Targets) -> None:
    match shrink(now, wanted, [OLD] * len(now.enis)):
        case RemoveEni(eni_id):
            gone = next(e for e in now.enis if e.eni.id == eni_id)
            assert gone.is_idle
            assert not gone.eni.is_primary
        case Unassign(eni_id, count):
            assert 0 < count <= next(e.free for e in now.enis if e.eni.id == eni_id)


def after(now: Situation, action: Action) -> Situation:
    enis = list(now.enis)
    free_enis = now.free_enis
    match action:
        case AddEni(count):
            enis.append(census(max(e.eni.number for e in enis) + 1, 0, 0, count))
            free_enis -= 1
        case Assign(eni_id, count) | Unassign(eni_id, count):
            change = count if isinstance(action, Assign) else -count
            i = next(i for i, e in enumerate(enis) if e.eni.id == eni_id)
            e = enis[i]
            enis[i] = EniCensus(e.eni, e.assigned, e.cooling, e.free + change, e.leaving)
        case RemoveEni(eni_id):
            enis = [e for e in enis if e.eni.id != eni_id]
            free_enis += 1
    return Situation(tuple(enis), now.waiting, free_enis, PER_ENI)


@given(situations(), targets)
def test_it_comes_to_rest(now: Situation, wanted: Targets) -> None:
    for _ in range(60):
        action = grow(now, wanted) or shrink(now, wanted, [OLD] * len(now.enis))
        if action is None:
            return
        now = after(now, action)
    pytest.fail(f"still restless: {now}")


@pytest.mark.parametrize(
    ("enis", "waiting", "wanted", "missing"),
    [
        pytest.param([(0, 0, 0)], 0, Targets(1), 9, id="boot-wants-one-enis-worth"),
        pytest.param([(0, 0, 9)], 0, Targets(1), 0, id="one-enis-worth-is-enough"),
        pytest.param([(1, 0, 8)], 0, Targets(1), 9, id="one-pod-starts-the-next-eni"),
        pytest.param([(0, 9, 0)], 0, Targets(1), 9, id="cooling-is-not-available"),
        pytest.param([(9, 0, 0)], 0, Targets(0), 9, id="no-warm-eni-still-grows-when-empty"),
        pytest.param([(8, 0, 1)], 0, Targets(0), 0, id="no-warm-eni-and-one-left-is-enough"),
        pytest.param([(8, 0, 1)], 3, Targets(0), 9, id="waiting-adds-are-demand"),
        pytest.param([(9, 0, 0)], 12, Targets(0), 12, id="more-wait-than-an-eni-holds"),
        pytest.param([(0, 0, 0)], 0, Targets(1, 5, 10), 10, id="minimum-rules-at-boot"),
        pytest.param([(8, 0, 1)], 0, Targets(1, 5, 9), 4, id="warm-rules-when-busy"),
        pytest.param([(4, 4, 1)], 0, Targets(1, 5), 4, id="a-cooling-address-is-not-warm"),
        pytest.param([(0, 0, 5)], 2, Targets(1, 5), 2, id="warm-comes-on-top-of-waiting"),
    ],
)
def test_shortfall(
    enis: list[tuple[int, int, int]], waiting: int, wanted: Targets, missing: int
) -> None:
    now = situation(*(census(i, *e) for i, e in enumerate(enis, 1)), waiting=waiting)
    assert shortfall(now, wanted) == missing


@pytest.mark.parametrize(
    ("now", "wanted", "action"),
    [
        pytest.param(
            situation(census(1, 3, 0, 0), free_enis=2), Targets(1), Assign(EniId("eni-1"), 6),
            id="fills-what-is-here-first",
        ),
        pytest.param(
            situation(census(1, 1, 0, 0), census(2, 5, 0, 0)), Targets(1, 2),
            Assign(EniId("eni-2"), 2), id="fills-the-fullest-first",
        ),
        pytest.param(
            situation(census(1, 9, 0, 0), free_enis=1), Targets(1, 2), AddEni(2),
            id="asks-a-new-eni-for-what-is-missing",
        ),
        pytest.param(
            situation(census(1, 9, 0, 0), free_enis=1), Targets(1), AddEni(9),
            id="asks-a-whole-eni-by-enis",
        ),
        pytest.param(
            situation(census(1, 9, 0, 0), free_enis=0), Targets(1), None, id="a-full-node-rests"
        ),
    ],
)  # fmt: skip
def test_grow(now: Situation, wanted: Targets, action: Action | None) -> None:
    assert grow(now, wanted) == action


@pytest.mark.parametrize(
    ("now", "wanted", "ages", "action"),
    [
        pytest.param(
            situation(census(1, 0, 0, 9), census(2, 0, 0, 9)), Targets(1), (OLD, OLD),
            RemoveEni(EniId("eni-2")), id="two-enis-worth-free-gives-one-back",
        ),
        pytest.param(
            situation(census(1, 0, 0, 9), census(2, 0, 0, 9)), Targets(1), (OLD, 59.0), None,
            id="a-young-eni-stays",
        ),
        pytest.param(
            situation(census(1, 0, 0, 9), census(2, 0, 1, 8)), Targets(1), (OLD, OLD), None,
            id="a-cooling-address-holds-its-eni",
        ),
        pytest.param(
            situation(census(1, 1, 0, 8), census(2, 0, 0, 9)), Targets(1), (OLD, OLD), None,
            id="the-rest-would-be-too-few",
        ),
        pytest.param(
            situation(census(1, 1, 0, 8)), Targets(1, 3), (OLD,), Unassign(EniId("eni-1"), 5),
            id="ip-targets-give-back-one-by-one",
        ),
        pytest.param(
            situation(census(1, 5, 0, 1), census(2, 1, 0, 5)), Targets(1, 3), (OLD, OLD),
            Unassign(EniId("eni-2"), 3), id="the-emptiest-gives-first",
        ),
        pytest.param(
            situation(census(1, 0, 0, 9)), Targets(1, 3, 9), (OLD,), None,
            id="the-minimum-stays",
        ),
        pytest.param(
            situation(EniCensus(PoolEni(EniId("x"), 2, 9, Instant(0, 0), closed=True), 0, 0, 9)),
            Targets(1, 3), (OLD,), None, id="a-closed-eni-is-on-its-way-already",
        ),
    ],
)  # fmt: skip
def test_shrink(
    now: Situation, wanted: Targets, ages: tuple[float, ...], action: Action | None
) -> None:
    assert shrink(now, wanted, ages) == action


def test_what_leaves_is_not_held() -> None:
    assert situation(census(1, 1, 0, 1, leaving=3)).held == 2
