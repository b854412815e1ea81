"""The world of a plan: one account of EC2, one virtual clock, what each call takes. Shell.

A call is done the moment it is sent, and its answer comes as late as EC2's would. All times
are assumptions, named in `Timing`; whoever knows their own account better says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ipamd import ec2_line
from ipamd.clock import Instant
from ipamd.plan.account import Rate
from ipamd.plan.cloud import Account
from ipamd.plan.loop import Thread, VirtualLoop
from ipamd.plan.subnet import Ec2Error
from ipamd.plan.vpc import ATTACH, DETACH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ipaddress import IPv4Network

    from eni.model import SubnetId
    from ipamd.budget import AccountLimits
    from ipamd.plan.cloud import Action

P = ParamSpec("P")
T = TypeVar("T")

EPOCH = 1_767_225_600.0
"""The wall clock at the start: 2026-01-01. Tags carry it, nothing else looks."""

ZONE = "plan-1a"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long EC2 takes, in seconds. Assumptions: AWS promises none.

    *attach* is from the call until the instance sees the link, *detach* until it is gone;
    *imds* is how much later than the link IMDS tells of it, which only the peer waits for.
    *spread* is by what part each draw may be shorter or longer.
    """

    question: float = 0.1
    mutation: float = 0.3
    attach: float = 3.0
    detach: float = 2.0
    imds: float = 1.0
    spread: float = 0.0

    def answer(self, action: str) -> float:
        """Return how long the answer to *action* takes."""
        is_question = action.startswith(("Describe", "Get"))
        return self.question if is_question else self.mutation

    def effect(self, action: str) -> float:
        """Return how long *action* takes to come true."""
        return {ATTACH: self.attach, DETACH: self.detach}.get(action, 0.0)

    @property
    def new_eni(self) -> float:
        """From the Create to the link: what a pod waits for when only a new ENI helps."""
        return self.mutation + self.attach


@dataclass(slots=True)
class Log:
    """What was asked of EC2: by action, by second, and how often it was too much."""

    calls: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    by_second: dict[str, Counter[int]] = field(default_factory=dict)
    marks: list[tuple[float, str]] | None = None
    """Each call's time, where somebody wants to see them."""

    def note(self, now: float, action: str) -> None:
        """Note one call."""
        self.calls[action] += 1
        self.by_second.setdefault(action, Counter())[int(now)] += 1
        if self.marks is not None:
            self.marks.append((now, action))

    def clear(self, *, marks: bool) -> None:
        """Begin anew, with a list of marks or without."""
        self.calls.clear()
        self.throttled.clear()
        self.by_second.clear()
        self.marks = [] if marks else None

    def peak(self, action: str) -> int:
        """Return the most calls of *action* within one second."""
        return max(self.by_second.get(action, {}).values(), default=0)


ACTIONS = (*dict.fromkeys(ec2_line.ACTIONS.values()), "DescribeInstances")
"""Every action that anybody here asks for; the last is the peer's alone."""


def _rate(limits: AccountLimits, action: str) -> Rate:
    limit = limits.of(action)
    return Rate(limit.rate, limit.burst)


class PlanAccount(Account):
    """The modelled account, which keeps a log."""

    log: Log
    last: str = ""
    """The action that was performed last."""

    def perform(self, action: Action, about: str, do: Callable[[], T]) -> T:
        """Return what *do* answers, if the account's budget lets it."""
        self.last = action.name
        self.log.note(self._clock(), action.name)
        try:
            return super().perform(action, about, do)
        except Ec2Error as no:
            if no.code == "RequestLimitExceeded":
                self.log.throttled[action.name] += 1
            raise


class World:
    """An account, its clock and its chance; nodes are made in it (`ipamd.plan.node`)."""

    def __init__(
        self,
        subnets: Iterable[IPv4Network],
        *,
        timing: Timing,
        roll: Callable[[], float],
        limits: AccountLimits,
        draw: Callable[[int], int] | None = None,
    ) -> None:
        self.timing, self.roll, self.limits = timing, roll, limits
        rates = {action: _rate(limits, action) for action in ACTIONS}
        self.loop = VirtualLoop()
        self.log = Log()
        self.account = PlanAccount(self.loop.time, rates=rates, latency=self._effect, draw=draw)
        self.account.log = self.log
        self.subnets: tuple[SubnetId, ...] = tuple(
            self.account.add_subnet(cidr, ZONE, tags=[("kubernetes.io/role/cni", "1")])
            for cidr in subnets
        )
        self._count = 0

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until(self.now)
        self.loop.close()

    @property
    def now(self) -> float:
        """The virtual time, in seconds from the start."""
        return self.loop.time()

    def clock(self) -> Instant:
        """Return this moment on both clocks."""
        now = self.loop.time()
        return Instant(now, EPOCH + now)

    def token(self) -> str:
        """Return a new token; chance would only make runs differ."""
        self._count += 1
        return f"plan-{self._count}"

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.loop.run_until(self.now + seconds)

    def some(self, seconds: float) -> float:
        """Return *seconds*, shorter or longer by chance."""
        spread = self.timing.spread
        return seconds * (1 + spread * (2 * self.roll() - 1)) if spread else seconds

    def _effect(self, action: str) -> float:
        return self.some(self.timing.effect(action))

    def answer_seconds(self) -> float:
        """Return how long the answer to the call that was just done takes."""
        return self.some(self.timing.answer(self.account.last))


class PlannedThread(Thread):
    """A thread whose `submit` says how long things take: nothing goes past it."""

    def take(self, call: Callable[..., T], arguments: tuple[object, ...]) -> asyncio.Future[T]:
        """Do as `submit`, for a coroutine of the loop's."""
        return asyncio.wrap_future(self.submit(call, *arguments), loop=self._loop)


class CloudThreads(PlannedThread):
    """A few threads that call EC2: what they do is done at once, and answered later."""

    def __init__(self, world: World, most: int) -> None:
        super().__init__(world.loop)
        self._world, self._free = world, most
        self._calls: deque[tuple[Future[object], Callable[[], object]]] = deque()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call *fn* when a thread is free."""
        future: Future[T] = Future()
        self._calls.append((future, partial(fn, *args, **kwargs)))  # type: ignore[arg-type]  # a future of whatever
        self._begin()
        return future

    def _begin(self) -> None:
        while self._calls and self._free:
            future, call = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            self._free -= 1
            result: object = None
            failure: Exception | None = None
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 - a thread's top: it is whoever waits' to judge
                failure = error
            seconds = self._world.answer_seconds()
            self._world.loop.call_later(seconds, self._answer_call, future, result, failure)

    def _answer_call(
        self, future: Future[object], result: object, failure: Exception | None
    ) -> None:
        self._free += 1
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)
        self._begin()


class SameThread(PlannedThread):
    """What is asked of it takes no time: the kernel and the disk of a node that is planned."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call *fn* now."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a thread's top
            future.set_exception(error)
        return future
