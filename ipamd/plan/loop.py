"""An event loop on a clock of its own: it never waits, and has no thread. Shell (asyncio).

When nothing is ready, the clock jumps to the next timer. What goes to an executor runs on
the loop, at a virtual time that `latency` names, so that one program gives one sequence of
steps: timers by time, equal times in the order they were set, everything else first come,
first served. An hour of the daemon takes as long as its steps do.

A crash is to stop between two steps (`run_steps`, or an `on_step` that raises) and to
`abandon` the loop. The rule a changer must keep: nothing here may ask the machine for time,
chance or a descriptor.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import heapq
import inspect
import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StalledError(RuntimeError):
    """Nothing is ready and no timer is set, yet somebody waits: a real loop would hang."""

    id = "STALLED"


@dataclass(frozen=True, slots=True)
class Delay:
    """How long a thread takes over one call, in virtual seconds.

    The work is done, all at once, *until_effect* after the thread took it up; whoever asked
    hears of it *until_answer* later. A crash between the two is an effect without an answer.
    """

    until_effect: float = 0.0
    until_answer: float = 0.0


NO_DELAY = Delay()

NO_WORDS: Mapping[str, object] = {}

Latency = Callable[[Callable[..., object], tuple[object, ...]], Delay]
"""From what is called, and with what, to how long it takes."""


def at_once(work: Callable[..., object], arguments: tuple[object, ...]) -> Delay:
    """Return that it takes no time."""
    del work, arguments
    return NO_DELAY


class _Step(asyncio.TimerHandle):
    """One callback to come; asyncio's own keeps a traceback, and costs twice as much."""

    __slots__ = ("arguments", "callback", "context", "moment")

    def __init__(
        self,
        moment: float,
        callback: Callable[..., object],
        arguments: tuple[object, ...],
        context: contextvars.Context | None,
    ) -> None:
        self.moment = moment
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments
        self.context = contextvars.copy_context() if context is None else context

    def cancel(self) -> None:
        """Do not run it."""
        self.callback, self.arguments = None, ()

    def cancelled(self) -> bool:
        """Whether it will not run."""
        return self.callback is None

    def when(self) -> float:
        """Return its virtual time."""
        return self.moment

    def __repr__(self) -> str:
        return f"<step at {self.moment:g} s: {self.callback}>"


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop in virtual time.

    *fatal* are errors that end the process: one from a callback or an executor leaves the run
    at once, and nobody is told. *on_step* is told the number of each step before it runs; what
    it raises leaves the run, too, and that step is still to come.
    """

    def __init__(
        self,
        *,
        start: float = 0.0,
        latency: Latency = at_once,
        fatal: tuple[type[BaseException], ...] = (),
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self.latency, self.on_step = latency, on_step
        self.steps = 0
        """Callbacks that have run."""
        self.fatal = fatal
        self._now = start
        self._queue: deque[_Step] = deque()
        self._timers: list[tuple[float, int, _Step]] = []
        self._number = 0  # of timers set: equal times run in this order
        self._last_step: float = math.inf
        self._until: float = math.inf
        self._may_stall = False
        self._abandoned = False
        self._threads: dict[Executor, Thread] = {}
        self._more = 0.0

    # Time ------------------------------------------------------------------------------
    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Run *callback* at this time, after what is ready already.

        After `abandon` nothing comes of it: what outlives the process (a kernel, a cloud) may
        still call into it.
        """
        step = _Step(self._now, callback, args, context)
        if not self._abandoned:
            self._check()
            self._queue.append(step)
        return step

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Do as `call_soon` does: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run *callback* at *when*; equal times in the order they were set."""
        step = _Step(when, callback, args, context)
        if not self._abandoned:
            self._check()
            self._number += 1
            heapq.heappush(self._timers, (when, self._number, step))
        return step

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run *callback* in *delay* seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _check(self) -> None:
        if self.is_closed():
            raise RuntimeError("Event loop is closed")  # asyncio's own words

    # Steps -----------------------------------------------------------------------------
    def _run_once(self) -> None:
        """Run what is ready now, as asyncio does: what it makes ready is for the next time."""
        if not self._make_ready():
            return
        queue = self._queue
        for _ in range(len(queue)):
            callback = queue[0].callback
            if callback is None:
                queue.popleft()
                continue
            if self.on_step is not None:
                self.on_step(self.steps)
            self._perform(callback, queue.popleft())
            if self.steps >= self._last_step:
                self.stop()
                return

    def _perform(self, callback: Callable[..., object], step: _Step) -> None:
        self.steps += 1
        try:
            step.context.run(callback, *step.arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # a callback's top, as in asyncio
            if isinstance(error, self.fatal):
                raise
            words = {"message": f"Exception in callback {callback}", "exception": error}
            self.call_exception_handler(words)

    def _make_ready(self) -> bool:
        """Queue the timers that are due, after a jump if need be; return whether any step is."""
        timers, queue = self._timers, self._queue
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not queue:
            if not timers or timers[0][0] > self._until:
                return self._rest()
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            queue.append(heapq.heappop(timers)[2])
        return True

    def _rest(self) -> bool:
        """Stop, because nothing is to happen before the end of the run."""
        if not self._may_stall:
            raise StalledError(f"nothing is left that could happen, at {self._now:g} s")
        self.stop()
        return False

    def run_steps(self, number: int) -> int:
        """Run exactly *number* steps, or as many as there are; return how many it were."""
        before = self.steps
        if number > 0:
            self._run(last_step=before + number)
        return self.steps - before

    def run_until(self, when: float) -> None:
        """Run all that happens up to *when*, or what `end_by` names; the clock shows it then."""
        self._now = max(self._now, self._run(until=when))

    def end_by(self, when: float) -> None:
        """Let the run that is under way end at *when* at the latest; nothing if none is."""
        self._until = min(self._until, when)

    def _run(self, *, last_step: float = math.inf, until: float = math.inf) -> float:
        """Return until when it ran."""
        self._last_step, self._until, self._may_stall = last_step, until, True
        try:
            self.run_forever()
            return self._until
        finally:
            self._last_step = self._until = math.inf
            self._may_stall = False

    # Threads ---------------------------------------------------------------------------
    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run *func* at a virtual time that `latency` names, and no thread.

        Calls on one *executor* run one after another, as on `ThreadPoolExecutor(1)`, whatever
        it is; without one, beside all others. What is cancelled before its turn never runs;
        what has had its turn does, whether or not somebody still waits. Give `Threads` for
        calls that run beside each other.
        """
        if executor is None:
            return Thread(self).take(func, args)
        if isinstance(executor, Thread | Threads):
            return executor.take(func, args)
        return self._threads.setdefault(executor, Thread(self)).take(func, args)

    def linger(self, seconds: float) -> None:
        """Let the answer to the work that a thread is at come so much later than `latency` says."""
        self._more += seconds

    def end_of_work(self) -> float:
        """Return by how much the answer to the work just done is late."""
        more, self._more = self._more, 0.0
        return more

    # The end ---------------------------------------------------------------------------
    def abandon(self) -> int:
        """Leave everything as it is, as kill -9 does; return how many tasks never ended.

        A coroutine that is dropped is thrown GeneratorExit, and its `finally` blocks run; no
        dead process does that. The only way to keep Python from it is to never drop it: one
        reference too many is counted for each, so that it, and what its frames hold, stays
        until the program's end, and then too is not finished. A planner never does this; a
        test pays for the state of each dead daemon, tens of kilobytes.
        """
        if self.is_running():
            raise RuntimeError("a loop that is running cannot be abandoned")
        tasks = asyncio.all_tasks(self)
        self._abandoned = True
        for task in tasks:
            asyncio.tasks._unregister_task(task)  # noqa: SLF001 - or the next crash looks at it, too
            coroutine = task.get_coro()
            if not inspect.iscoroutine(coroutine) or coroutine.cr_frame is None:
                continue
            # Also one that has run nothing: it may hold another, which would say so.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))
        self.close()
        return len(tasks)

    def close(self) -> None:
        """Forget every step to come."""
        super().close()
        self._queue.clear()
        self._timers.clear()

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        """Tell of an error nobody took; not of those that an abandoned loop left."""
        if not self._abandoned:
            super().call_exception_handler(dict(context))

    # Debugging -------------------------------------------------------------------------
    def get_debug(self) -> bool:
        """Return False: asyncio's debugging measures real time, and costs it."""
        return False

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001 - asyncio's own signature
        """Do nothing."""
        del enabled
        super().set_debug(False)


class _Answer:
    """What a coroutine waits for: `asyncio.wrap_future` by the same steps, without its locks."""

    __slots__ = ("_is_off", "_is_under_way", "_loop", "error", "future", "result")

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._is_under_way = self._is_off = False
        self.result: object = None
        self.error: BaseException | None = None
        self.future: asyncio.Future[Any] = loop.create_future()
        self.future.add_done_callback(self._on_done)

    def _on_done(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self.cancel()

    def cancel(self) -> bool:
        """Let nobody wait, if the work was not begun."""
        if self._is_under_way:
            return False
        if not self._is_off:
            self._is_off = True
            self._tell()
        return True

    def set_running_or_notify_cancel(self) -> bool:
        """Return whether the work is to begin."""
        self._is_under_way = not self._is_off
        return self._is_under_way

    def set_result(self, result: object) -> None:
        """Tell the result, in a step to come."""
        self.result = result
        self._tell()

    def set_exception(self, exception: BaseException | None) -> None:
        """Tell the error, in a step to come."""
        self.error = exception
        self._tell()

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon(self._set_state)

    def _set_state(self) -> None:
        if self.future.cancelled():
            return
        if self._is_off:
            self.future.cancel()
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


@dataclass(frozen=True, slots=True)
class _Work:
    """One call that a thread was given."""

    future: Future[Any] | _Answer
    call: Callable[..., object]
    arguments: tuple[object, ...]
    words: Mapping[str, object]


class Thread(Executor):
    """One thread of the loop's: what it is given runs one after another, in virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._waiting: deque[_Work] = deque()
        self._is_busy = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run *fn* when its turn comes."""
        future: Future[T] = Future()
        self._add(_Work(future, fn, args, kwargs))
        return future

    def take(self, call: Callable[..., T], arguments: tuple[object, ...]) -> asyncio.Future[T]:
        """Do as `submit`, for a coroutine of the loop's."""
        answer = _Answer(self._loop)
        self._add(_Work(answer, call, arguments, NO_WORDS))
        return answer.future

    def _add(self, work: _Work) -> None:
        self._waiting.append(work)
        self._go_on()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's own signature
        """Let what waits run, or cancel it; nobody can wait for virtual time."""
        del wait
        if cancel_futures:
            for work in self._waiting:
                work.future.cancel()

    def _go_on(self) -> None:
        while self._waiting and not self._is_busy:
            work = self._waiting.popleft()
            if work.future.set_running_or_notify_cancel():
                self._is_busy = True
                delay = self._loop.latency(work.call, work.arguments)
                self._loop.call_later(delay.until_effect, self._perform, work, delay.until_answer)

    def _perform(self, work: _Work, until_answer: float) -> None:
        result: object = None
        failure: BaseException | None = None
        try:
            result = work.call(*work.arguments, **work.words)
        except BaseException as error:  # a thread's top: it belongs to whoever waits
            if isinstance(error, self._loop.fatal):
                raise
            failure = error
        until_answer += self._loop.end_of_work()
        if until_answer:
            self._loop.call_later(until_answer, self._answer, work, result, failure)
        else:
            self._answer(work, result, failure)

    def _answer(self, work: _Work, result: object, failure: BaseException | None) -> None:
        self._is_busy = False
        if failure is None:
            work.future.set_result(result)
        else:
            work.future.set_exception(failure)
        self._go_on()


class Threads(Executor):
    """As many threads of the loop's as there are calls."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run *fn* beside all others."""
        return Thread(self._loop).submit(fn, *args, **kwargs)

    def take(self, call: Callable[..., T], arguments: tuple[object, ...]) -> asyncio.Future[T]:
        """Do as `submit`, for a coroutine of the loop's."""
        return Thread(self._loop).take(call, arguments)
