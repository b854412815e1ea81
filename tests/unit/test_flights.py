"""What is in flight: one of a name at a time, failures that wait longer, and what is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from cni.kernel import NodeError
from eni.errors import (
    CredentialsError,
    EniError,
    NotYetError,
    ThrottledError,
    UnauthorizedError,
    UnreachableError,
)
from ipamd.clock import Instant
from ipamd.flights import (
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    REFUSED_BACKOFF_SECONDS,
    Flights,
    Trouble,
)
from ipamd.journal import JournalError
from ipamd.plan.loop import VirtualLoop

THROTTLED = ThrottledError("slow down", action="x")
DENIED = UnauthorizedError("no", action="x")


class Sky:
    """Flights on a loop in virtual time; dice always show the longest wait."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.landed = 0
        self.broken = 0
        self.told: list[Trouble] = []
        self.flights = Flights(
            clock=lambda: Instant(self.loop.time(), self.loop.time()),
            random=lambda: 1.0,
            on_landed=self._on_landed,
            on_trouble=self.told.append,
            on_broken=self._on_broken,
        )

    def _on_landed(self) -> None:
        self.landed += 1

    def _on_broken(self) -> None:
        self.broken += 1

    def fly(self, name: str, error: BaseException | None = None, seconds: float = 0.0) -> None:
        """Start a flight that ends so, that much later."""

        async def work() -> None:
            await asyncio.sleep(seconds)
            if error is not None:
                raise error

        self.loop.call_soon(lambda: self.flights.start(name, work()))
        self.run(0)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until(self.loop.time() + seconds)


@pytest.fixture
def sky() -> Iterator[Sky]:
    """A sky without flights."""
    made = Sky()
    yield made
    made.loop.call_soon(made.flights.cancel)
    made.run(0)
    made.loop.close()


def test_one_of_a_name_at_a_time(sky: Sky) -> None:
    sky.fly("a", seconds=5)
    assert "a" in sky.flights
    assert not sky.flights.may_start("a")
    assert sky.flights.may_start("b")
    sky.run(5)
    assert "a" not in sky.flights
    assert sky.flights.may_start("a")
    assert sky.landed == 1


def test_flights_of_other_names_do_not_wait(sky: Sky) -> None:
    sky.fly("slow", seconds=60)
    sky.fly("quick", seconds=1)
    sky.run(1)
    assert ("slow" in sky.flights, "quick" in sky.flights) == (True, False)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(THROTTLED, id="ec2"),
        pytest.param(JournalError("disk full"), id="disk"),
        pytest.param(NodeError("no buffer space"), id="kernel"),
    ],
)
def test_what_fails_is_a_trouble_until_it_works(
    sky: Sky, error: EniError | JournalError | NodeError
) -> None:
    sky.fly("a", error)
    assert sky.flights.troubles == {"a": error}
    assert sky.told == [error]
    sky.run(REFUSED_BACKOFF_SECONDS)
    sky.fly("a")
    assert sky.flights.troubles == {}
    assert sky.flights.failures("a") == 0


def waits(sky: Sky, error: Trouble, number: int) -> Iterator[float]:
    """Yield how long each of so many failures in a row is left alone."""
    for _ in range(number):
        sky.fly("a", error)
        began = sky.loop.time()
        while not sky.flights.may_start("a"):
            sky.run(0.5)
        yield sky.loop.time() - began


def test_failures_in_a_row_wait_longer_and_not_for_ever(sky: Sky) -> None:
    found = list(waits(sky, THROTTLED, 9))
    assert found[0] == FIRST_BACKOFF_SECONDS
    assert found == sorted(found)
    assert found[-1] == MAX_BACKOFF_SECONDS
    assert sky.flights.failures("a") == 9


@pytest.mark.parametrize(
    ("error", "own"),
    [
        pytest.param(THROTTLED, 0, id="throttled"),
        pytest.param(UnreachableError("away", action="x"), 0, id="away"),
        pytest.param(CredentialsError("none", action="x"), 0, id="no-credentials"),
        pytest.param(NotYetError("not attached yet", action="x"), 2, id="late"),
        pytest.param(NodeError("no buffer space"), 0, id="kernel"),
        pytest.param(ValueError("ours"), 2, id="broken"),
    ],
)
def test_what_befalls_all_is_no_failure_of_ones_own(sky: Sky, error: Exception, own: int) -> None:
    for _ in range(2):
        sky.fly("a", error)
    assert sky.flights.failures("a") == 2
    assert sky.flights.own_failures("a") == own
    sky.fly("a")
    assert sky.flights.own_failures("a") == 0


def test_in_a_hurry_all_is_tried_at_once_and_failures_count_on(sky: Sky) -> None:
    sky.fly("a", THROTTLED)
    assert not sky.flights.may_start("a")
    sky.flights.hurry()
    assert sky.flights.may_start("a")
    assert sky.flights.failures("a") == 1


def test_a_wish_that_waits_for_its_time_has_not_gone(sky: Sky) -> None:
    sky.fly("a", DENIED)
    sky.fly("b", DENIED)
    sky.run(2 * MAX_BACKOFF_SECONDS)
    sky.flights.forget_unwanted("a")
    assert sky.flights.troubles == {"a": DENIED}
    assert sky.flights.failures("a") == 1


def test_what_only_a_person_can_change_waits_longest(sky: Sky) -> None:
    assert list(waits(sky, DENIED, 12))[-1] == REFUSED_BACKOFF_SECONDS


def test_a_repeated_failure_is_logged_once(sky: Sky, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    list(waits(sky, THROTTLED, 3))
    list(waits(sky, DENIED, 1))
    sky.fly("a")
    told = [record.getMessage() for record in caplog.records]
    assert told == ["flight failed", "flight failed", "flight works again"]


def test_a_fault_of_ours_breaks_one_flight_and_is_told(
    sky: Sky, caplog: pytest.LogCaptureFixture
) -> None:
    sky.fly("a", RuntimeError("a fault of ours"))
    assert (sky.broken, sky.landed, sky.told) == (1, 1, [])
    assert [r.levelname for r in caplog.records] == ["CRITICAL"]
    assert not sky.flights.may_start("a")


def test_a_failure_that_nobody_mends_any_more_is_forgotten(sky: Sky) -> None:
    sky.fly("a", THROTTLED)
    sky.flights.forget_unwanted()
    assert sky.flights.troubles, "it may yet be tried again"
    sky.run(FIRST_BACKOFF_SECONDS)
    sky.flights.forget_unwanted()
    assert sky.flights.troubles == {}
    assert sky.flights.failures("a") == 1, "if it is wanted again soon it waits longer"
    sky.run(MAX_BACKOFF_SECONDS)
    sky.flights.forget_unwanted()
    assert sky.flights.backoffs == {}


def test_a_failure_is_not_forgotten_while_it_is_tried_again(sky: Sky) -> None:
    sky.fly("a", THROTTLED)
    sky.run(FIRST_BACKOFF_SECONDS)
    sky.fly("a", seconds=30)
    sky.flights.forget_unwanted()
    assert sky.flights.troubles == {"a": THROTTLED}


def test_cancelled_flights_are_no_trouble(sky: Sky) -> None:
    sky.fly("a", seconds=60)
    sky.loop.call_soon(sky.flights.cancel)
    sky.run(0)
    assert "a" not in sky.flights
    assert sky.flights.troubles == {}


def test_the_latest_trouble_is_the_last(sky: Sky) -> None:
    for name, error in (("a", THROTTLED), ("b", DENIED), ("a", DENIED)):
        sky.fly(name, error)
        sky.run(MAX_BACKOFF_SECONDS)
    assert list(sky.flights.troubles) == ["b", "a"]
