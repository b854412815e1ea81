"""Virtual time: what asyncio promises holds, nothing waits, and a crash is a crash."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.plan.loop import Delay, StalledError, Thread, VirtualLoop
from tests.tools.pure import ROOT


class KilledError(BaseException):
    """kill -9."""


def run(main: Callable[[], Coroutine[Any, Any, Any]], **wishes: Any) -> tuple[Any, float]:
    """Return what *main* returns, and when it was done."""
    loop = VirtualLoop(**wishes)
    try:
        return loop.run_until_complete(main()), loop.time()
    finally:
        loop.close()


# Time ------------------------------------------------------------------------------------
def test_a_day_takes_no_time() -> None:
    async def main() -> None:
        await asyncio.sleep(86400)

    began = time.monotonic()
    assert run(main, start=5.0) == (None, 86405.0)
    assert time.monotonic() - began < 1


@given(st.lists(st.integers(0, 3), max_size=30))
def test_timers_run_in_order_and_equal_times_as_they_were_set(delays: list[int]) -> None:
    loop = VirtualLoop()
    ran: list[tuple[float, int]] = []
    for number, delay in enumerate(delays):
        loop.call_later(delay, lambda n: ran.append((loop.time(), n)), number)
    loop.run_until(10)
    loop.close()
    assert ran == sorted((float(delay), number) for number, delay in enumerate(delays))


def test_a_run_can_be_told_to_end_earlier() -> None:
    loop = VirtualLoop()
    ran: list[int] = []
    loop.call_later(1, loop.end_by, 2)
    for delay in (2, 3):
        loop.call_later(delay, ran.append, delay)
    loop.run_until(10)
    assert (loop.time(), ran) == (2, [2])
    loop.run_until(10)
    assert (loop.time(), ran) == (10, [2, 3])
    loop.close()


def test_what_is_ready_runs_before_time_goes_on() -> None:
    loop = VirtualLoop()
    ran: list[str] = []
    loop.call_later(1, ran.append, "timer")
    loop.call_soon(lambda: loop.call_soon(ran.append, "second"))
    loop.call_soon(ran.append, "first")
    loop.run_until(1)
    loop.close()
    assert ran == ["first", "second", "timer"]


def test_a_cancelled_timer_neither_runs_nor_moves_the_clock() -> None:
    async def main() -> None:
        handle = asyncio.get_running_loop().call_later(100, pytest.fail)
        assert handle.when() == 100
        handle.cancel()
        assert handle.cancelled()
        await asyncio.sleep(1)

    assert run(main) == (None, 1.0)


def test_a_due_timer_is_not_held_up_by_tasks_that_spin() -> None:
    async def main() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0, done.set)
        while not done.is_set():
            await asyncio.sleep(0)

    assert run(main) == (None, 0.0)


def test_run_until_runs_all_up_to_then_and_shows_it() -> None:
    loop = VirtualLoop()
    ran: list[float] = []
    loop.call_at(2, lambda: loop.call_at(2, ran.append, 2))
    loop.call_at(2.5, ran.append, 2.5)
    loop.run_until(2)
    assert (ran, loop.time()) == ([2], 2.0)
    loop.run_until(9)
    assert (ran, loop.time()) == ([2, 2.5], 9.0)
    loop.close()


def test_waiting_for_what_cannot_happen_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    loop = VirtualLoop()
    task = loop.create_task(main())
    with pytest.raises(StalledError, match="nothing is left that could happen, at 0 s"):
        loop.run_until_complete(task)
    loop.abandon()


# What asyncio promises ---------------------------------------------------------------------
def test_timeout_taskgroup_event_and_queue() -> None:
    async def main() -> list[object]:
        seen: list[object] = []
        event, queue = asyncio.Event(), asyncio.Queue[int]()

        async def produce() -> None:
            for number in range(3):
                await asyncio.sleep(1)
                queue.put_nowait(number)
            event.set()

        async def consume() -> None:
            for _ in range(3):
                number = await queue.get()
                seen.append((asyncio.get_running_loop().time(), number))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consume())
            tasks.create_task(produce())
            await event.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 2)
        return seen

    assert run(main) == ([(1.0, 0), (2.0, 1), (3.0, 2)], 10.0)


def test_a_cancelled_task_cleans_up_in_virtual_time() -> None:
    async def main() -> list[float]:
        loop, seen = asyncio.get_running_loop(), list[float]()

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(3)
                seen.append(loop.time())

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return seen

    assert run(main) == ([4.0], 4.0)


def test_an_error_in_a_group_cancels_the_others() -> None:
    async def main() -> None:
        async def fail() -> None:
            await asyncio.sleep(1)
            raise ValueError("one")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(60))
            tasks.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert str(caught.value.exceptions) == "(ValueError('one'),)"


def test_a_runner_takes_it() -> None:
    async def main() -> float:
        await asyncio.sleep(7)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop, debug=True) as runner:
        assert runner.run(main()) == 7.0
        assert not runner.get_loop().get_debug()


def test_a_callbacks_error_goes_to_the_handler_and_the_next_one_runs() -> None:
    loop = VirtualLoop()
    told: list[object] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    loop.call_soon(int, "x")
    loop.call_soon(told.append, "next")
    loop.run_until(0)
    loop.close()
    assert (str(told[0]), told[1]) == ("invalid literal for int() with base 10: 'x'", "next")


@pytest.mark.parametrize("error", [SystemExit(70), KilledError()], ids=repr)
def test_what_ends_the_process_leaves_the_run(error: BaseException) -> None:
    def end() -> None:
        raise error

    loop = VirtualLoop(fatal=(KilledError,))
    loop.call_soon(end)
    with pytest.raises(type(error)):
        loop.run_until(1)
    loop.close()


def test_a_closed_loop_takes_nothing() -> None:
    loop = VirtualLoop()
    loop.close()
    for ask in (loop.call_soon, lambda work: loop.call_later(1, work)):
        with pytest.raises(RuntimeError, match="closed"):
            ask(pytest.fail)


# Executors ---------------------------------------------------------------------------------
def test_the_effect_and_the_answer_have_their_times_and_no_thread() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()

        def work(a: int, b: int) -> tuple[int, float, str]:
            return a + b, loop.time(), threading.current_thread().name

        total, effect, thread = await loop.run_in_executor(None, work, 1, 2)
        assert (total, thread) == (3, threading.current_thread().name)
        return effect, loop.time()

    assert run(main, latency=lambda work, _: Delay(2, 1) if work.__name__ == "work" else Delay()) == ((2.0, 3.0), 3.0)  # fmt: skip


def test_an_answer_that_lingers_comes_later_and_the_next_one_does_not() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        times = []
        for seconds in (5, 0):
            await loop.run_in_executor(None, loop.linger, seconds)
            times.append(loop.time())
        return times

    assert run(main, latency=lambda *_: Delay(1, 1)) == ([7.0, 9.0], 9.0)


def test_one_executor_does_one_thing_after_another_and_two_beside_each_other() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
            asked = [
                loop.run_in_executor(which, loop.time) for which in (one, one, two, None, None)
            ]
            return await asyncio.gather(*asked)

    assert run(main, latency=lambda *_: Delay(1, 1)) == ([1.0, 3.0, 1.0, 1.0, 1.0], 4.0)


@pytest.mark.parametrize("error", [ValueError("no"), KilledError("no"), SystemExit("no")], ids=repr)
def test_an_error_goes_to_whoever_waits(error: BaseException) -> None:
    def work() -> None:
        raise error

    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, work)

    with pytest.raises(type(error), match="no"):
        run(main)


def test_a_fatal_error_in_an_executor_ends_the_run_and_nobody_is_told() -> None:
    told: list[str] = []

    def work() -> None:
        raise KilledError

    async def main() -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, work)
        finally:
            told.append("told")

    loop = VirtualLoop(fatal=(KilledError,))
    loop.create_task(main())
    with pytest.raises(KilledError):
        loop.run_until(1)
    assert loop.abandon() == 1
    gc.collect()
    assert told == []


def test_who_stops_waiting_stops_nothing_that_has_begun() -> None:
    done: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        thread = Thread(loop) if isinstance(loop, VirtualLoop) else None
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await loop.run_in_executor(thread, done.append, "begun")
        waits = loop.run_in_executor(thread, done.append, "its turn has not come")
        waits.cancel()
        await asyncio.sleep(60)

    run(main, latency=lambda *_: Delay(10))
    assert done == ["begun"]


def test_a_thread_takes_work_without_a_loop_that_waits() -> None:
    loop = VirtualLoop()
    thread = Thread(loop)
    first, second = thread.submit(loop.time), thread.submit(int, "12", base=3)
    third = thread.submit(pytest.fail)
    third.cancel()
    thread.submit(pytest.fail)
    loop.run_steps(2)
    thread.shutdown(cancel_futures=True)
    loop.run_until(1)
    loop.close()
    assert (first.result(), second.result()) == (0.0, 5)


# One program, one sequence -----------------------------------------------------------------
def trace(seed: int) -> tuple[list[object], int, float]:
    """Return what a busy program with a seed does, and in how many steps."""
    rng = random.Random(seed)
    seen: list[object] = []

    async def worker(number: int, lock: asyncio.Lock, queue: asyncio.Queue[int]) -> None:
        loop = asyncio.get_running_loop()
        for turn in range(10):
            await asyncio.sleep(rng.choice([0, 0, 1, rng.random()]))
            async with lock:
                await loop.run_in_executor(None, seen.append, (loop.time(), number, turn))
            queue.put_nowait(number)
            if rng.random() < 0.3:
                seen.append(await queue.get())

    async def main() -> None:
        lock, queue = asyncio.Lock(), asyncio.Queue[int]()
        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(worker(number, lock, queue))

    loop = VirtualLoop(latency=lambda *_: Delay(rng.random(), rng.random()))
    loop.run_until_complete(main())
    loop.close()
    return seen, loop.steps, loop.time()


def test_the_same_seed_gives_the_same_sequence_and_another_gives_another() -> None:
    assert trace(1) == trace(1)
    assert trace(1) != trace(2)


def test_a_run_stops_after_exactly_that_many_steps_and_goes_on_from_there() -> None:
    def count_to(number: int, *stops: int) -> list[int]:
        loop, seen = VirtualLoop(), list[int]()
        for n in range(number):
            loop.call_later(n // 3, seen.append, n)
        for stop in stops:
            assert loop.run_steps(stop) == stop
        assert loop.run_steps(99) == number - sum(stops)
        assert loop.steps == number
        loop.close()
        return seen

    assert count_to(10) == count_to(10, 0, 1, 4, 2) == list(range(10))


def test_a_hook_stops_before_a_step_that_is_still_to_come() -> None:
    seen: list[str] = []

    def on_step(number: int) -> None:
        if number == 1:
            raise KilledError

    loop = VirtualLoop(on_step=on_step)
    for word in ("a", "b", "c"):
        loop.call_soon(seen.append, word)
    with pytest.raises(KilledError):
        loop.run_until(1)
    assert (seen, loop.steps) == (["a"], 1)
    loop.on_step = None
    loop.run_until(1)
    loop.close()
    assert seen == ["a", "b", "c"]


# A crash -----------------------------------------------------------------------------------
CRASH = """
import asyncio, contextlib, gc
from ipamd.plan.loop import VirtualLoop

@contextlib.contextmanager
def told(word):
    try:
        yield
    finally:
        print(word)

async def child():
    with told("child"):
        await asyncio.sleep(5)

async def failed():
    raise ValueError("never taken")

async def main():
    kept.append(asyncio.ensure_future(failed()))
    with told("main"):
        try:
            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                tasks.create_task(child())
                await asyncio.get_running_loop().run_in_executor(None, print, "effect")
                await asyncio.sleep(5)
                tasks.create_task(child())
        except BaseException:
            print("caught")
            raise

for steps in range(20):
    kept = []
    loop = VirtualLoop()
    loop.create_task(main())
    loop.run_steps(min(steps, 9))
    loop.abandon()
    loop.call_soon(print, "after death")
    loop.call_later(1, print, "after death")
    del loop, kept
    gc.collect()
print("end")
"""


def test_nothing_of_an_abandoned_loop_runs_or_speaks_until_the_programs_end() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", CRASH],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    words = done.stdout.split()
    assert set(words) == {"effect", "end"}
    assert words[-1] == "end"


def test_an_abandoned_loops_tasks_are_nobodys() -> None:
    loop = VirtualLoop()
    loop.create_task(asyncio.sleep(5))
    loop.run_steps(1)
    assert loop.abandon() == 1
    assert loop.is_closed()
    assert asyncio.all_tasks(loop) == set()


def test_a_running_loop_cannot_be_abandoned() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.abandon()

    with pytest.raises(RuntimeError, match="running"):
        run(main)
