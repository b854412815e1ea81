"""When what was mended and undone again may be mended once more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.undone import LONGEST_WAIT_SECONDS, STOOD_SECONDS, Mended, Undone


def test_what_was_never_mended_waits_for_nothing() -> None:
    assert Undone().wait("rule", 100.0) == 0.0


def test_each_repair_that_did_not_stand_waits_twice_as_long() -> None:
    undone, now, waits = Undone(), 0.0, []
    for _ in range(11):
        undone.note("rule", now)
        waits.append(undone.wait("rule", now))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_what_stood_a_minute_is_mended_at_once_and_counted_anew() -> None:
    undone = Undone()
    undone.note("rule", 0.0)
    assert undone.wait("rule", STOOD_SECONDS) == 0.0
    assert undone.note("rule", STOOD_SECONDS) == 1


def test_one_who_undoes_at_each_opportunity_is_said_to_fight() -> None:
    undone = Undone()
    assert [undone.note("rule", at) for at in (0.0, 1.0, 3.0)] == [1, 2, 3]
    undone.note("route", 3.0)
    assert undone.fights() == {"rule": Mended(3.0, 3)}


def test_what_has_stood_is_forgotten() -> None:
    undone = Undone()
    undone.note("rule", 0.0)
    undone.note("route", 30.0)
    undone.forget(STOOD_SECONDS)
    assert list(undone.mended) == ["route"]


@pytest.mark.parametrize("times", [1, 5, 10_000], ids=["once", "some", "for-a-year"])
def test_no_wait_is_longer_than_the_longest(times: int) -> None:
    assert 1.0 <= Mended(0.0, times).wait <= LONGEST_WAIT_SECONDS


@given(st.lists(st.floats(0.0, 1000.0), max_size=30))
def test_whoever_waits_as_told_may_mend_then(pauses: list[float]) -> None:
    undone, now = Undone(), 0.0
    for pause in pauses:
        now += undone.wait("rule", now)
        assert undone.wait("rule", now) <= 1e-6
        undone.note("rule", now)
        now += pause
