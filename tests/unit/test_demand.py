"""How much pods will need: up at once, down slowly, and what two kinds of traces make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eni.model import Kind
from ipamd.clock import Instant
from ipamd.demand import (
    CALM_SECONDS,
    HALF_LIFE_SECONDS,
    HEADROOM_MAX,
    HEADROOM_MIN,
    REFILL_SECONDS,
    Arrivals,
    Calm,
    Headroom,
    ceiling,
    jittered,
    observe,
    replay,
    target,
)
from ipamd.targets import Demand

START = Instant(1000, 1000)
QUIET = Headroom(HEADROOM_MIN, START)


def test_a_burst_lifts_headroom_at_once_but_not_past_a_prefix() -> None:
    assert observe(QUIET, 7, START).level == 7
    assert observe(QUIET, 110, START).level == HEADROOM_MAX


def test_what_is_above_the_floor_halves_in_a_half_life() -> None:
    lifted = observe(QUIET, 10, START)
    assert observe(lifted, 0, START.later(HALF_LIFE_SECONDS)).level == HEADROOM_MIN + 4
    assert observe(lifted, 0, START.later(60), half_life_seconds=60).level == HEADROOM_MIN + 4


def test_it_sinks_the_same_however_often_it_is_looked_at() -> None:
    often = once = observe(QUIET, 16, START)
    for second in range(600):
        often = observe(often, 0, START.later(second + 1))
    assert often.level == pytest.approx(observe(once, 0, START.later(600)).level)


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 1e5)), max_size=20))
def test_headroom_stays_within_its_bounds(looks: list[tuple[int, float]]) -> None:
    state, now = QUIET, START
    for arrivals, seconds in looks:
        now = now.later(seconds)
        state = observe(state, arrivals, now)
        assert HEADROOM_MIN <= state.level <= HEADROOM_MAX
        assert state.level >= min(arrivals, HEADROOM_MAX)


@pytest.mark.parametrize(
    ("bound", "level", "most", "wanted"),
    [
        pytest.param(0, 2.0, None, Demand(2, spare=1, bound=0), id="an-empty-node-holds-the-floor"),
        pytest.param(0, 2.0, 1, Demand(1, spare=0, bound=0), id="room-for-one-is-held"),
        pytest.param(0, 2.0, 0, Demand(0, spare=0, bound=0), id="no-room-at-all"),
        pytest.param(30, 9.4, None, Demand(39, spare=4, bound=30), id="bound-and-headroom"),
        pytest.param(105, 16.0, 110, Demand(110, spare=8, bound=105), id="never-past-the-ceiling"),
        pytest.param(120, 16.0, 110, Demand(110, spare=8, bound=120), id="not-even-for-pods"),
    ],
)
def test_target(bound: int, level: float, most: int | None, wanted: Demand) -> None:
    assert target(bound, Headroom(level, START), most) == wanted


def test_bound_pods_are_never_spared() -> None:
    assert target(110, Headroom(16, START), 110).low == 110
    assert target(30, Headroom(2, START)).low == 31


@pytest.mark.parametrize(
    ("max_pods", "slots", "kind", "most"),
    [
        pytest.param(110, 27, Kind.PREFIX, 110, id="max-pods"),
        pytest.param(110, 9, Kind.SINGLE, 9, id="the-instance-type"),
        pytest.param(None, 9, Kind.PREFIX, 144, id="the-instance-type-alone"),
    ],
)
def test_ceiling(max_pods: int | None, slots: int, kind: Kind, most: int) -> None:
    assert ceiling(max_pods, slots, kind) == most


def test_jitter_is_a_quarter_either_way() -> None:
    assert (jittered(100, 0), jittered(100, 0.5)) == (75, 100)
    assert jittered(100, 0.999) < 125


def test_arrivals_count_within_one_refill() -> None:
    arrivals = Arrivals().add(START, 3).add(START.later(5))
    assert arrivals.count(START.later(5)) == 4
    assert arrivals.count(START.later(REFILL_SECONDS)) == 1
    assert len(arrivals.add(START.later(60)).times) == 1


def test_a_restart_remembers_what_the_journal_tells() -> None:
    times = [START.later(second) for second in (0, 1, 2, 3, 300)]
    state = replay(QUIET, times)
    assert state.at == times[-1]
    assert 3 < state.level < 4


def test_calm_begins_anew_whenever_the_excess_ends() -> None:
    calm = Calm().see(START, excess=True)
    assert not calm.lasts(START, 30)
    assert calm.see(START.later(29), excess=True).lasts(START.later(30), 30)
    assert not calm.see(START.later(29), excess=False).lasts(START.later(30), 30)
    assert not Calm().lasts(START, 0)


# Traces ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """What a trace cost: calls of EC2, pods that waited, the most and the last held."""

    calls: int
    waited: int
    most: int
    left: int


def run(trace: Sequence[tuple[int, int]], seconds: int, *, known_ahead: int = 0) -> Outcome:
    """Play (second, +/- pods) second by second; a call takes one refill.

    With *known_ahead*, the watch tells of a pod that many seconds before its ADD.
    """
    adds: dict[int, int] = {}
    for second, pods in trace:
        adds[second] = adds.get(second, 0) + pods
    state, arrivals, calm = QUIET, Arrivals(), Calm()
    pods = held = calls = waited = most = 0
    coming: list[tuple[int, int]] = []
    for second in range(seconds):
        now = START.later(second)
        held += sum(count for due, count in coming if due == second)
        coming = [(due, count) for due, count in coming if due > second]
        came = adds.get(second, 0)
        waited += max(0, min(came, pods + came - held))
        pods += came
        told = [adds.get(second + ahead, 0) for ahead in range(known_ahead + 1)]
        arrivals = arrivals.add(now, max(0, told[-1]))
        state = observe(state, arrivals.count(now), now)
        want = target(pods + sum(told[1:]), state)
        have = held + sum(count for _, count in coming)
        if have < want.low:
            calls += 1
            coming.append((second + int(REFILL_SECONDS), want.total - have))
        calm = calm.see(now, excess=not coming and have > want.total + want.spare)
        if calm.lasts(now, CALM_SECONDS):
            calls, held, calm = calls + 1, want.total, Calm()
        most = max(most, held)
    return Outcome(calls, waited, most, held)


HOUR = 3600
BURST = [(100, 110)]


def test_a_burst_known_ahead_waits_for_nothing() -> None:
    outcome = run(BURST, 200, known_ahead=12)
    assert outcome.waited == 0
    assert outcome.calls == 2
    assert outcome.most == 110 + HEADROOM_MAX


def test_a_burst_that_the_journal_sees_only_as_it_comes_is_asked_in_one_call() -> None:
    outcome = run(BURST, 200)
    assert outcome.waited == 110 - HEADROOM_MIN
    assert outcome.calls == 2
    assert outcome.most == 110 + HEADROOM_MAX


def test_after_a_burst_has_gone_little_is_left_and_few_calls_were_made() -> None:
    outcome = run([*BURST, (200, -110)], 3 * HOUR)
    assert outcome.left <= 2 * HEADROOM_MIN
    assert outcome.calls <= 2 + 4


def test_a_second_wave_finds_addresses() -> None:
    waves = [(100 + 120 * wave, 8) for wave in range(6)]
    assert run(waves, HOUR).waited <= 8 + 6


def test_a_trickle_costs_a_call_for_several_pods() -> None:
    trickle = [(60 * minute, 1) for minute in range(1, 31)]
    outcome = run(trickle, HOUR)
    assert outcome.waited == 0
    assert outcome.calls <= 1 + 30 // 2


def test_replaced_pods_cost_no_calls() -> None:
    replaced = [
        (second, pods) for t in range(200, HOUR, 60) for second, pods in ((t, -1), (t + 20, 1))
    ]
    assert run([(100, 10), *replaced], HOUR).calls <= 5
