"""The line of EC2 calls, on a loop whose time is virtual; once on a real one."""

from __future__ import annotations

import asyncio
import inspect
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, ParamSpec, TypeVar

import pytest

from eni.calls import Ec2Calls
from eni.errors import (
    CredentialsError,
    EniError,
    NotFoundError,
    SubnetExhaustedError,
    ThrottledError,
    UnknownOutcomeError,
    UnreachableError,
)
from ipamd.budget import AccountLimits, Budget, Count, Limit, Priority
from ipamd.ec2_line import ACTIONS, Ec2Line

P = ParamSpec("P")
T = TypeVar("T")

LATENCY_SECONDS = 0.25


class Selector(selectors.SelectSelector):
    """Waits for nothing: time is where the next timer is."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and nothing will ever happen"
        self.now += max(0.0, timeout)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when all are idle."""

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


@dataclass
class Threads(Executor):
    """Runs a call at once and lets its answer take EC2's time."""

    loop: Loop

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def answer() -> None:
            if error is None:
                future.set_result(results[0])
            else:
                future.set_exception(error)

        results: list[T] = []
        error: Exception | None = None
        try:
            results.append(fn(*args, **kwargs))
        except Exception as raised:  # noqa: BLE001 - whatever a thread raises travels in its future
            error = raised
        self.loop.call_later(LATENCY_SECONDS, answer)
        return future


@dataclass
class Ec2:
    """Answers what the script says, and yes after that; remembers who asked when."""

    loop: Loop
    script: list[Exception] = field(default_factory=list)
    heard: list[tuple[float, str]] = field(default_factory=list)

    def _answer(self, who: str) -> str:
        self.heard.append((self.loop.time(), who))
        if self.script:
            raise self.script.pop(0)
        return f"{who}'s"

    def create(self, who: str) -> str:
        return self._answer(who)

    def attach(self, who: str, *, device_index: int = 1) -> str:
        return self._answer(f"{who} at {device_index}")

    def eni(self, who: str) -> str:
        return self._answer(who)


class World:
    """A line, EC2, and a loop on which both are."""

    def __init__(self, limit: Limit, *script: Exception, jitter: float = 0.5) -> None:
        self.loop = Loop()
        self.ec2 = Ec2(self.loop, list(script))
        self.line = Ec2Line(
            executor=Threads(self.loop),
            budget=Budget(AccountLimits({"*": limit})),
            clock=self.loop.time,
            random=lambda: jitter,
        )

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        try:
            return self.loop.run_until_complete(story)
        finally:
            self.loop.close()

    def ask(
        self, who: str, priority: Priority = Priority.STARVING, method: str = "create"
    ) -> asyncio.Task[str]:
        return self.loop.create_task(
            self.line.call(priority, getattr(self.ec2, method), who), name=who
        )


async def outcomes(*tasks: asyncio.Task[str]) -> list[str]:
    got = await asyncio.gather(*tasks, return_exceptions=True)
    return [one if isinstance(one, str) else type(one).__name__ for one in got]


def throttled() -> ThrottledError:
    return ThrottledError("slow down", action="CreateNetworkInterface")


def unreachable() -> UnreachableError:
    return UnreachableError("no route", action="CreateNetworkInterface")


# The table -----------------------------------------------------------------------------
def test_every_method_of_ec2_has_an_action() -> None:
    methods = {name for name, _ in inspect.getmembers(Ec2Calls, inspect.isfunction)}
    assert set(ACTIONS) == {name for name in methods if not name.startswith("_")}


# Order and time ------------------------------------------------------------------------
def test_an_answer_comes_out_as_it_is() -> None:
    world = World(Limit(5, 1))
    call = world.line.call(Priority.STEADY, world.ec2.attach, "eni-1", device_index=2)
    assert world.run(call) == "eni-1 at 2's"


def test_calls_go_by_urgency_and_then_by_age() -> None:
    world = World(Limit(1, 0.5))

    async def story() -> None:
        first = world.ask("first")
        await asyncio.sleep(0)
        late = [
            world.ask("sweep", Priority.SWEEP),
            world.ask("steady", Priority.STEADY),
            world.ask("pod 1"),
            world.ask("pod 2"),
        ]
        await outcomes(first, *late)

    world.run(story())
    assert world.ec2.heard == [
        (0.0, "first"),
        (2.0, "pod 1"),
        # Each success of a calm makes it faster, up to the ceiling, which is here the limit.
        (4.0, "pod 2"),
        (6.0, "steady"),
        (8.0, "sweep"),
    ]


def test_one_actions_queue_does_not_hold_up_another() -> None:
    world = World(Limit(1, 0.01))

    async def story() -> None:
        await outcomes(world.ask("a"), world.ask("b"), world.ask("c", method="attach"))

    world.run(story())
    assert world.ec2.heard == [(0.0, "a"), (0.0, "c at 1"), (100.0, "b")]


def test_our_own_waiting_and_ec2s_time_are_counted_apart() -> None:
    world = World(Limit(1, 0.5))

    async def story() -> None:
        tasks = world.ask("a"), world.ask("b")
        await asyncio.sleep(0)
        assert world.line.waiting == {"CreateNetworkInterface": 1}
        await outcomes(*tasks)

    world.run(story())
    assert world.line.waiting == {"CreateNetworkInterface": 0}
    assert world.line.counts == {
        "CreateNetworkInterface": Count(2, 0, waited_seconds=2.0, answered_seconds=0.5)
    }


def test_a_line_without_limits_does_not_wait() -> None:
    world = World(Limit(1000, 100))
    world.run(outcomes(*(world.ask(str(n)) for n in range(100))))
    assert {at for at, _ in world.ec2.heard} == {0.0}


@pytest.mark.parametrize("may", [True, False], ids=["made", "not-made"])
def test_a_call_may_be_thought_better_of_until_its_turn(*, may: bool) -> None:
    world = World(Limit(1, 0.5))
    asked_at: list[float] = []

    def still() -> bool:
        asked_at.append(world.loop.time())
        return may

    async def story() -> bool:
        first = world.ask("a")
        await asyncio.sleep(0)
        made = await world.line.call_if(still, Priority.STARVING, world.ec2.create, "b")
        await outcomes(first, world.ask("c"))
        return made

    assert world.run(story()) is may
    assert asked_at == [2.0]
    assert world.ec2.heard == [(0.0, "a"), *([(2.0, "b")] if may else []), (4.0, "c")]


def test_a_probe_that_is_thought_better_of_makes_room_for_another() -> None:
    world = World(Limit(100, 50), unreachable())

    async def story() -> None:
        await outcomes(world.ask("a"))
        never = world.line.call_if(lambda: False, Priority.STARVING, world.ec2.create, "b")
        assert not await never
        await outcomes(world.ask("c"))

    world.run(story())
    assert world.ec2.heard == [(0.0, "a"), (0.75, "c")]


# Refusals ------------------------------------------------------------------------------
def test_a_throttle_slows_its_action_down_and_is_raised_untouched() -> None:
    told = throttled()
    world = World(Limit(10, 1), told, jitter=0.75)

    async def story() -> BaseException | None:
        refused = world.ask("a")
        await asyncio.wait([refused])
        await outcomes(world.ask("b"), world.ask("c", method="eni"))
        return refused.exception()

    assert world.run(story()) is told
    # Half the rate, and three quarters of two spacings.
    assert world.ec2.heard == [(0.0, "a"), (0.25, "c"), (3.25, "b")]
    assert world.line.counts["CreateNetworkInterface"].throttles == 1


@pytest.mark.parametrize(
    ("error", "rate"),
    [
        pytest.param(None, 0.1, id="yes"),
        pytest.param(SubnetExhaustedError("full", action="x"), 0.1, id="a-no-is-an-answer-too"),
        pytest.param(UnknownOutcomeError("lost", action="x"), 0.01, id="no-answer-says-nothing"),
        pytest.param(unreachable(), 0.01, id="nor-does-an-endpoint-that-is-away"),
        pytest.param(TypeError("ours"), 0.01, id="nor-a-mistake-of-ours"),
    ],
)
def test_what_the_limiter_learns(error: Exception | None, rate: float) -> None:
    world = World(Limit(50, 5), *([] if error is None else [error]))
    world.line.budget.set_nodes(1000)
    world.run(outcomes(world.ask("a")))
    assert world.line.budget.limiter("CreateNetworkInterface").rate == pytest.approx(rate)


# An endpoint that is away --------------------------------------------------------------
@pytest.mark.parametrize(
    "error", [unreachable(), CredentialsError("late", action="x")], ids=["no-route", "no-role"]
)
def test_while_ec2_is_away_one_call_at_a_time_is_made(error: EniError) -> None:
    world = World(Limit(100, 50), error, unreachable(), unreachable())

    async def story() -> list[str]:
        await outcomes(world.ask("a"))
        assert world.line.away is error
        heard = await outcomes(
            world.ask("sweep", Priority.SWEEP, "attach"),
            world.ask("pod"),
            world.ask("steady", Priority.STEADY, "eni"),
        )
        assert world.line.away is None
        return heard

    # The most urgent of all actions is the probe, and after its failure the next.
    assert world.run(story()) == ["sweep at 1's", "UnreachableError", "UnreachableError"]
    assert world.ec2.heard == [
        (0.0, "a"),
        (0.75, "pod"),
        (2.0, "steady"),
        (4.25, "sweep at 1"),
    ]


def test_the_first_answer_lets_all_of_them_go() -> None:
    world = World(Limit(100, 50), unreachable(), NotFoundError("no such ENI", action="x"))

    async def story() -> list[str]:
        await outcomes(world.ask("a"))
        return await outcomes(*(world.ask(f"pod {n}") for n in range(4)))

    assert world.run(story()) == ["NotFoundError", "pod 1's", "pod 2's", "pod 3's"]
    assert [at for at, _ in world.ec2.heard] == [0.0, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("error", "next_at"),
    [
        pytest.param(UnknownOutcomeError("lost", action="x"), 2.0, id="a-lost-answer-is-none"),
        pytest.param(TypeError("ours"), 1.0, id="a-mistake-of-ours-says-nothing"),
    ],
)
def test_a_probe_that_tells_nothing_makes_room_for_another(
    error: Exception, next_at: float
) -> None:
    world = World(Limit(100, 50), unreachable(), error)

    async def story() -> None:
        await outcomes(world.ask("a"))
        await outcomes(world.ask("b"), world.ask("c"))

    world.run(story())
    assert world.ec2.heard == [(0.0, "a"), (0.75, "b"), (next_at, "c")]


# Whoever is cancelled ------------------------------------------------------------------
def test_who_is_cancelled_in_line_leaves_it() -> None:
    world = World(Limit(1, 0.5))

    async def story() -> None:
        tasks = [world.ask(who) for who in "abc"]
        await asyncio.sleep(1)
        tasks[1].cancel()
        assert await outcomes(*tasks) == ["a's", "CancelledError", "c's"]

    world.run(story())
    assert world.ec2.heard == [(0.0, "a"), (2.0, "c")]


MOMENT = 1e-10
"""Less than the loop's resolution: it runs both timers in one go, in the order of their times."""


@pytest.mark.parametrize(
    ("off", "next_at"),
    [
        pytest.param(-MOMENT, 2.0, id="just-before"),
        pytest.param(MOMENT, 4.0, id="just-after-its-token-is-lost"),
    ],
)
def test_who_is_cancelled_at_the_moment_of_its_turn_holds_nobody_up(
    off: float, next_at: float
) -> None:
    world = World(Limit(1, 0.5))

    async def story() -> None:
        tasks = [world.ask(who) for who in "abc"]
        await asyncio.sleep(1)
        world.loop.call_at(2.0 + off, tasks[1].cancel)
        assert await outcomes(*tasks) == ["a's", "CancelledError", "c's"]

    world.run(story())
    assert world.ec2.heard == [(0.0, "a"), (pytest.approx(next_at), "c")]


@pytest.mark.parametrize("off", [-MOMENT, MOMENT], ids=["just-before", "just-after"])
def test_a_probe_that_is_cancelled_before_it_went_makes_room(off: float) -> None:
    world = World(Limit(100, 50), unreachable())

    async def story() -> None:
        await outcomes(world.ask("a"))
        probe, other = world.ask("b"), world.ask("c")
        await asyncio.sleep(0)
        world.loop.call_at(0.75 + off, probe.cancel)
        assert await outcomes(probe, other) == ["CancelledError", "c's"]

    world.run(story())
    assert world.ec2.heard == [(0.0, "a"), (pytest.approx(0.75, abs=0.002), "c")]


def test_a_call_on_its_way_is_made_and_learned_from_though_nobody_waits() -> None:
    world = World(Limit(10, 1), throttled())

    async def story() -> None:
        task = world.ask("a")
        await asyncio.sleep(LATENCY_SECONDS / 2)
        task.cancel()
        assert await outcomes(task) == ["CancelledError"]
        await asyncio.sleep(LATENCY_SECONDS)

    world.run(story())
    assert world.line.counts["CreateNetworkInterface"].throttles == 1
    assert world.line.budget.limiter("CreateNetworkInterface").rate == 0.5


def test_an_executor_that_is_shut_down_teaches_nothing() -> None:
    world = World(Limit(10, 1))

    class Closed(Executor):
        def submit(self, _fn: Callable[P, T], /, *_: P.args, **__: P.kwargs) -> Future[T]:
            future: Future[T] = Future()
            future.cancel()
            return future

    line = Ec2Line(
        executor=Closed(),
        budget=world.line.budget,
        clock=world.loop.time,
        random=lambda: 0.5,
    )
    with pytest.raises(asyncio.CancelledError):
        world.run(line.call(Priority.STEADY, world.ec2.create, "a"))
    assert line.counts == {"CreateNetworkInterface": Count()}
    assert world.line.budget.limiter("CreateNetworkInterface").rate == 1


# A real loop, real threads ---------------------------------------------------------------
def test_on_a_real_loop_calls_run_on_threads() -> None:
    class Real:
        def eni(self, eni_id: str) -> str:
            return eni_id

    async def story() -> list[str]:
        with ThreadPoolExecutor(2) as threads:
            line = Ec2Line(
                executor=threads,
                budget=Budget(AccountLimits({"*": Limit(5, 1000)})),
                clock=monotonic,
                random=lambda: 0.5,
            )
            calls = (line.call(Priority.STEADY, Real().eni, f"eni-{n}") for n in range(20))
            return await asyncio.gather(*calls)

    assert asyncio.run(story()) == [f"eni-{n}" for n in range(20)]
