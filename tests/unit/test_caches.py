"""What is remembered for a while, and what is said once."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.caches import SPREAD, Cache, Caches, Once, Usage


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def cache(size: int = 2, jitter: float = 0.0) -> tuple[Cache[str, int | None], Clock]:
    clock = Clock()
    made: Cache[str, int | None] = Cache(
        "subnets", size=size, age_seconds=100, timer=clock, jitter=lambda: jitter
    )
    return made, clock


@pytest.mark.parametrize(
    ("jitter", "later", "seen"),
    [
        pytest.param(0.0, 99.9, 7, id="lives-to-its-age"),
        pytest.param(0.0, 100.0, None, id="and-no-longer"),
        pytest.param(0.5, 89.9, 7, id="jitter-makes-it-shorter"),
        pytest.param(0.5, 90.0, None, id="by-its-part-of-a-fifth"),
    ],
)
def test_an_entry_has_an_age(jitter: float, later: float, seen: int | None) -> None:
    subnets, clock = cache(jitter=jitter)
    subnets.put("subnet-1", 7)
    clock.now += later
    assert subnets.get("subnet-1") == seen


@given(st.floats(0, 1, exclude_max=True))
def test_no_jitter_makes_an_entry_older_than_its_age(jitter: float) -> None:
    subnets, clock = cache(jitter=jitter)
    subnets.put("subnet-1", 7)
    clock.now += 100 * (1 - SPREAD) - 0.001
    assert subnets.get("subnet-1") == 7
    clock.now += 100 * SPREAD + 0.001
    assert subnets.get("subnet-1") is None


def test_a_full_cache_loses_what_was_not_used_longest() -> None:
    subnets, _ = cache()
    subnets.put("a", 1)
    subnets.put("b", 2)
    subnets.get("a")
    subnets.put("c", 3)
    assert [subnets.get(key) for key in "abc"] == [1, None, 3]
    assert subnets.usage.evictions == 1


def test_neither_a_new_value_nor_an_old_entry_counts_as_an_eviction() -> None:
    subnets, clock = cache()
    subnets.put("a", 1)
    subnets.put("b", 2)
    subnets.put("b", 3)
    clock.now += 100
    subnets.put("c", 4)
    assert subnets.usage == Usage("subnets", 2, 1, 0, 0, 0)


def test_what_was_seen_to_be_wrong_is_forgotten() -> None:
    subnets, _ = cache()
    subnets.put("a", 1)
    subnets.drop("a")
    subnets.drop("never there")
    assert subnets.get("a") is None


def test_an_answer_is_made_once_an_age_also_if_it_is_none() -> None:
    keys, clock = cache()
    made: list[float] = []

    def make() -> None:
        made.append(clock.now)

    for later in (0, 50, 50):
        clock.now += later
        assert keys.get_or_make("ipv4-prefix", make) is None
    assert made == [1000.0, 1100.0]
    assert (keys.usage.hits, keys.usage.misses) == (1, 2)


def test_an_awaited_answer_is_made_once_an_age() -> None:
    subnets, _ = cache()
    made: list[str] = []

    async def make() -> int:
        made.append("asked")
        return 7

    async def twice() -> list[int | None]:
        return [await subnets.fetch("a", make), await subnets.fetch("a", make)]

    assert asyncio.run(twice()) == [7, 7]
    assert made == ["asked"]
    assert (subnets.usage.hits, subnets.usage.misses) == (1, 1)


def test_an_error_is_not_an_answer() -> None:
    subnets, _ = cache()

    def fail() -> int:
        raise ValueError("no subnet")

    with pytest.raises(ValueError, match="no subnet"):
        subnets.get_or_make("a", fail)
    assert subnets.get_or_make("a", lambda: 7) == 7


def gate(size: int = 2) -> tuple[Once[str], Clock]:
    clock = Clock()
    return Once("said", size=size, interval_seconds=60, timer=clock), clock


def test_a_repetition_is_said_at_the_first_and_then_with_a_count() -> None:
    said, clock = gate()
    heard = []
    for _ in range(7):
        heard.append(said.due("subnet full"))
        clock.now += 20
    assert heard == [1, 0, 0, 3, 0, 0, 3]


def test_with_the_count_is_told_since_when() -> None:
    said, clock = gate()
    heard = []
    for pause in (20, 20, 50, 100, 0):
        heard.append(said.count("subnet full"))
        clock.now += pause
    assert heard == [(1, 1000), (0, 1020), (0, 1020), (3, 1020), (1, 1190)]


def test_the_count_outlives_a_long_silence() -> None:
    said, clock = gate()
    said.due("subnet full")
    said.due("subnet full")
    clock.now += 86_400
    assert said.due("subnet full") == 2


def test_when_it_is_over_the_rest_of_the_count_is_told_and_the_next_is_a_first() -> None:
    said, _ = gate()
    for _ in range(3):
        said.due("subnet full")
    assert said.over("subnet full") == 2
    assert said.over("subnet full") == 0
    assert said.due("subnet full") == 1


def test_a_full_gate_says_too_much_and_never_too_little() -> None:
    said, _ = gate()
    assert [said.due(key) for key in "abcab"] == [1, 1, 1, 1, 1]
    assert said.due("b") == 0
    assert said.usage == Usage("said", 2, 2, 1, 5, 3)


def test_every_cache_is_listed_by_its_name() -> None:
    clock = Clock()
    caches = Caches(timer=clock, jitter=lambda: 0.5)
    subnets: Cache[str, int] = caches.cache("subnets", size=64, age_seconds=100)
    said: Once[str] = caches.once("events", size=256, interval_seconds=60)
    subnets.put("a", 1)
    said.due("x")
    clock.now += 90
    assert caches.usages() == (
        Usage("events", 256, 1, 0, 1, 0),
        Usage("subnets", 64, 0, 0, 0, 0),
    )


def test_without_a_jitter_there_is_none() -> None:
    clock = Clock()
    subnets: Cache[str, int] = Cache("subnets", size=1, age_seconds=100, timer=clock)
    subnets.put("a", 1)
    clock.now += 99.9
    assert subnets.get("a") == 1


def test_two_caches_cannot_have_one_name() -> None:
    caches = Caches(timer=Clock())
    caches.add("dels", cache()[0])
    with pytest.raises(AssertionError, match="two caches are called dels"):
        caches.once("dels", size=1, interval_seconds=1)
