"""The line in which calls of EC2 wait for their turn. Shell.

    eni = await line.call(Priority.STARVING, ec2.create, wish)

A call waits for its action's limiter behind whatever is more urgent (ipamd/budget.py), runs
on a thread of the executor, and tells the limiter how it went; EniErrors come out as they
are. The line repeats nothing: what an error means for the wish is the caller's to know. All
of it happens on one loop, of any kind: the only waiting is `call_later` and the executor.

What a call waited here and what EC2 then took are counted apart, because that is the first
question in every throttling incident.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from eni.errors import (
    CredentialsError,
    EniError,
    ThrottledError,
    UnknownOutcomeError,
    UnreachableError,
)
from ipamd.budget import Budget, Count, Endpoint, Limiter, Priority, Turns

P = ParamSpec("P")
T = TypeVar("T")

ACTIONS: Mapping[str, str] = {
    "attached": "DescribeNetworkInterfaces",
    "eni": "DescribeNetworkInterfaces",
    "by_tag": "DescribeNetworkInterfaces",
    "available": "DescribeNetworkInterfaces",
    "subnet": "DescribeSubnets",
    "subnets": "DescribeSubnets",
    "reservations": "GetSubnetCidrReservations",
    "limits": "DescribeInstanceTypes",
    "create": "CreateNetworkInterface",
    "attach": "AttachNetworkInterface",
    "delete_on_termination": "ModifyNetworkInterfaceAttribute",
    "detach": "DetachNetworkInterface",
    "delete": "DeleteNetworkInterface",
    "assign": "AssignPrivateIpAddresses",
    "unassign": "UnassignPrivateIpAddresses",
    "set_groups": "ModifyNetworkInterfaceAttribute",
    "tag": "CreateTags",
}
"""Which bucket of EC2 each method of `eni.calls.Ec2Calls` draws from."""

SHORTEST_SECONDS = 0.001
"""The shortest time that the line sleeps, so that a clock's last digit cannot spin the loop."""


@dataclass(slots=True)
class _Sent:
    """A call that has had its turn. *began_at* is set by the thread that makes it."""

    lane: _Lane
    at: float
    probe: bool
    began_at: float | None = None


@dataclass(slots=True)
class _Lane:
    limiter: Limiter
    turns: Turns[asyncio.Future[_Sent]] = field(default_factory=Turns)
    count: Count = field(default_factory=Count)


class Ec2Line:
    """Every EC2 call of the daemon, in order of urgency and within the budget.

    *clock* gives seconds that only grow, at the pace of the loop's `call_later`; *random* a
    number in [0, 1). The executor needs a thread for each call that shall be on its way at
    the same time, and threads may share the Ec2 that the methods belong to.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        budget: Budget,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.budget = budget
        self._executor, self._clock, self._random = executor, clock, random
        self._lanes: dict[str, _Lane] = {}
        self._endpoint = Endpoint()
        self._trouble: EniError | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def away(self) -> EniError | None:
        """Why EC2 cannot be reached at all; then all calls but one wait. None if it can."""
        return self._trouble if self._endpoint.failures else None

    @property
    def counts(self) -> Mapping[str, Count]:
        """What each action cost so far."""
        return {action: lane.count for action, lane in self._lanes.items()}

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many calls of each action wait for their turn."""
        return {action: len(lane.turns) for action, lane in self._lanes.items()}

    async def call(
        self, priority: Priority, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what *method*, one of `Ec2Calls`, answers when its turn has come.

        Whoever is cancelled in line leaves it. A call that is on its way cannot be called
        back: it is made and counted, and nobody hears of it.
        """
        sent = await self._turn(self._lane(ACTIONS[method.__name__]), priority)
        return await self._make(sent, method, *args, **kwargs)

    async def call_if(
        self,
        may: Callable[[], bool],
        priority: Priority,
        method: Callable[P, object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bool:
        """Make a call if *may* allows it when its turn has come; return whether it was made.

        A turn that is not used costs its token.
        """
        sent = await self._turn(self._lane(ACTIONS[method.__name__]), priority)
        if not may():
            self._endpoint.end(probe=sent.probe)
            self._go()
            return False
        await self._make(sent, method, *args, **kwargs)
        return True

    async def _make(
        self, sent: _Sent, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def make() -> T:
            sent.began_at = self._clock()
            return method(*args, **kwargs)

        running = asyncio.get_running_loop().run_in_executor(self._executor, make)
        running.add_done_callback(functools.partial(self._done, sent))
        await asyncio.wait([running])  # unlike `await running`, it cancels nothing
        return running.result()

    def promote(self) -> None:
        """Let calls that keep the pool steady go as if pods waited for them: now some do."""
        now = self._clock()
        for lane in self._lanes.values():
            lane.turns.promote(Priority.STEADY, Priority.STARVING, now)
        self._go()

    def _lane(self, action: str) -> _Lane:
        if action not in self._lanes:
            self._lanes[action] = _Lane(self.budget.limiter(action))
        return self._lanes[action]

    # In line ---------------------------------------------------------------------------
    async def _turn(self, lane: _Lane, priority: Priority) -> _Sent:
        asked_at = self._clock()
        granted: asyncio.Future[_Sent] = asyncio.get_running_loop().create_future()
        turn = lane.turns.add(granted, priority, asked_at)
        self._go()
        try:
            return await granted
        except asyncio.CancelledError:
            lane.turns.remove(turn)
            if not granted.cancelled():  # it had its turn, and does not use it
                self._endpoint.end(probe=granted.result().probe)
            self._go()
            raise
        finally:
            lane.count.waited_seconds += self._clock() - asked_at

    def _go(self) -> None:
        """Let those go who may, the most urgent first, and come back for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lanes = [lane for lane in self._lanes.values() if len(lane.turns)]
        lanes.sort(key=lambda lane: lane.turns.first.due)
        delay = min((self._serve(lane) for lane in lanes), default=math.inf)
        if delay < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(delay, SHORTEST_SECONDS), self._go)

    def _serve(self, lane: _Lane) -> float:
        """Let a lane's calls go; return the seconds until the next may, infinity if none can."""
        now = self._clock()
        while len(lane.turns):
            turn = lane.turns.first
            if turn.item.cancelled():  # whoever waited has yet to notice
                lane.turns.remove(turn)
                continue
            delay = max(self._endpoint.delay(now), turn.delay(lane.limiter, now))
            if delay > 0:
                return delay
            lane.turns.remove(turn)
            lane.limiter.spend(now)
            turn.item.set_result(_Sent(lane, now, self._endpoint.begin()))
        return math.inf

    # On its way ------------------------------------------------------------------------
    def _done(self, sent: _Sent, running: asyncio.Future[T]) -> None:
        now = self._clock()
        error = None if running.cancelled() else running.exception()
        if sent.began_at is None:  # the executor was shut down before it had a thread for it
            self._endpoint.end(probe=sent.probe)
            return
        sent.lane.count.calls += 1
        sent.lane.count.waited_seconds += sent.began_at - sent.at
        sent.lane.count.answered_seconds += now - sent.began_at
        self._learn(sent, error, now)
        self._go()

    def _learn(self, sent: _Sent, error: BaseException | None, now: float) -> None:
        match error:
            case UnreachableError() | CredentialsError():
                self._trouble = error
                self._endpoint.failed(now, sent.at, self._random(), probe=sent.probe)
            case UnknownOutcomeError() if sent.probe:
                self._endpoint.failed(now, sent.at, self._random(), probe=True)
            case ThrottledError():
                sent.lane.count.throttles += 1
                sent.lane.limiter.throttled(now, sent.at, self._random())
                self._endpoint.answered()
            case UnknownOutcomeError():
                pass  # no answer, which says nothing of EC2's buckets
            case None | EniError():
                sent.lane.limiter.succeeded(now)
                self._endpoint.answered()
            case _:
                self._endpoint.end(probe=sent.probe)
