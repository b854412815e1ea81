"""This node's part of what EC2 lets the account call. Pure.

EC2 keeps a bucket of tokens for each action, account and region: a call takes one, and is
refused (RequestLimitExceeded) when there is none. A thousand nodes share these buckets and
talk to nobody, so that each keeps buckets of its own and learns from refusals:

    share            limit / nodes, and never less than the floor
    a refusal        halves the rate, once for all calls that were in flight, and the next
                     call waits between nothing and twice the new spacing (full jitter)
    a success        adds a tenth of the share; ten times as fast after a calm, until the
                     first refusal: the others are idle then
    the ceiling      half of the account's limit

Halving with full jitter is exponential backoff with full jitter, so that there is no other:
without the jitter nodes that were refused together would come back together, for ever.

Who is served first is decided by what a call is for (Priority): `Turns` puts calls in order,
`Limiter.delay` keeps tokens back for pods that wait. A rule to keep: nothing here reads a
clock or throws dice; *now* is in seconds that only grow, *jitter* is in [0, 1).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Priority(IntEnum):
    """What a call is for, the most urgent first."""

    STARVING = 0
    """Pods wait for it."""

    STEADY = 1
    """It brings the pool to its targets."""

    SHRINK = 2
    """It gives back what is too much."""

    SWEEP = 3
    """It looks for what was left behind."""


PATIENCE_SECONDS: Mapping[Priority, float] = {
    Priority.STARVING: 0.0,
    Priority.STEADY: 30.0,
    Priority.SHRINK: 120.0,
    Priority.SWEEP: 600.0,
}
"""How long a call lets more urgent ones that came later go before it.

Pods may wait 105 s, and the pool should be full again before the next burst of them: 30 s.
Too many addresses hurt nobody for two minutes, a leaked ENI not for ten. After that a call is
served as if pods waited for it, so that it waits at most its patience and the calls that
came before that was over.
"""

RESERVED: Mapping[Priority, float] = {
    Priority.STARVING: 0.0,
    Priority.STEADY: 0.25,
    Priority.SHRINK: 0.5,
    Priority.SWEEP: 0.75,
}
"""The part of the bucket that a call leaves for more urgent ones, and one token at least:
ten pods that start after a sweep find most of the burst still there."""

FLOOR = 0.01
"""Calls a second of each action that a node may always make: one in the 105 s that an ADD
waits. A thousand nodes that all grow want twice what EC2 gives them at this rate (5 a second),
which costs refusals but no time: EC2's bucket stays empty, and nobody waits for longer."""

FLOOR_BURST = 2.0
"""Tokens that a node's bucket has at least: one for the pool, and one kept back for pods."""

CEILING = 0.5
"""The part of an account's limit that one node may take. Most nodes are idle most of the time,
so that a busy one may have far more than its share; the other half stays for the nodes that
wake up, and for the controllers and the people of the account."""

CUT = 0.5
"""What is left of the rate after a refusal, as in TCP."""

STEP = 0.1
"""The part of the share that a success adds. At the balance of cuts and steps a tenth to a
quarter of the calls is refused, and nearly all of what EC2 gives is taken."""

CALM_SECONDS = 120.0
"""After this long without a refusal a success may do more than a step."""

CALM_FACTOR = 10.0
"""What a success does to the rate in a calm: three lead from the floor to the ceiling, so that
a lone busy node of a thousand needs seconds, not minutes, for its fourth ENI."""

ENOUGH = 1e-6
"""A token less this is a token: a clock's last digit must not make anybody wait again."""

MAX_START_JITTER_SECONDS = 300.0
"""Later than this nothing of ours begins: the limiter alone holds a larger fleet apart."""


PROBE_SECONDS = 1.0
"""The longest pause before the first probe: a route that flaps is back in a second."""

MAX_PROBE_SECONDS = 30.0
"""The longest pause between two probes; pods that wait have 105 s, so that they see several."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket: *burst* tokens at most, of which *rate* come back each second."""

    burst: float
    rate: float


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """EC2's limits by action, or by the beginning of its name and `*` (ipamd/account_limits.py)."""

    limits: Mapping[str, Limit]

    def of(self, action: str) -> Limit:
        """Return the limit of the longest name that fits; there is one for `*`."""
        fits = [
            name
            for name in self.limits
            if name == action or (name.endswith("*") and action.startswith(name[:-1]))
        ]
        # An action's own name beats a beginning of the same length.
        return self.limits[max(fits, key=lambda name: (len(name.rstrip("*")), name == action))]


def share(limit: Limit, nodes: int) -> Limit:
    """Return one node's part of *limit*, never below the floor nor above the limit itself."""
    return Limit(
        burst=min(limit.burst, max(limit.burst / nodes, FLOOR_BURST)),
        rate=min(limit.rate, max(limit.rate / nodes, FLOOR)),
    )


def start_jitter_seconds(nodes: int, limits: AccountLimits) -> float:
    """Return over how long *nodes* that start together spread their first look at EC2.

    Half of the bucket is there at once, and half of what comes back is taken. A fleet that
    fits needs none, and whoever has pods waiting does not wait for it.
    """
    limit = limits.of("DescribeNetworkInterfaces")
    late = nodes - limit.burst / 2
    return min(MAX_START_JITTER_SECONDS, max(0.0, late / (limit.rate / 2)))


def backoff_seconds(attempt: int, base: float, cap: float, jitter: float) -> float:
    """Return how long to wait after the *attempt*-th failure in a row, from 1 on.

    Full jitter: anything from nothing to the whole, which doubles from *base* to *cap*.
    """
    return jitter * min(cap, base * 2.0 ** min(attempt - 1, 64))


@dataclass(slots=True)
class Limiter:
    """One action's bucket on this node. Calls in any t seconds <= burst + ceiling * t."""

    share: Limit
    ceiling: float
    rate: float = 0.0
    tokens: float = 0.0
    filled_at: float = -math.inf
    refused_at: float = -math.inf

    @classmethod
    def of(cls, limit: Limit, nodes: int) -> Limiter:
        """Return a full bucket with a node's part of *limit*."""
        part = share(limit, nodes)
        return cls(part, max(part.rate, limit.rate * CEILING), part.rate, part.burst)

    def reshare(self, limit: Limit, nodes: int) -> None:
        """Work with another part from now on; what was learned of the rate stays within it."""
        fresh = Limiter.of(limit, nodes)
        self.share, self.ceiling = fresh.share, fresh.ceiling
        self.rate = min(self.ceiling, max(self._floor, self.rate))
        self.tokens = min(self.share.burst, self.tokens)

    @property
    def _floor(self) -> float:
        return min(FLOOR, self.share.rate)

    def _fill(self, now: float) -> None:
        if self.filled_at < now:
            since = now - self.filled_at
            self.tokens = min(self.share.burst, self.tokens + since * self.rate)
            self.filled_at = now

    def delay(self, now: float, priority: Priority = Priority.STARVING) -> float:
        """Return the seconds until a call of *priority* may go; 0 is now."""
        self._fill(now)
        missing = 1 + self._reserved(priority) - self.tokens
        return missing / self.rate if missing > ENOUGH else 0.0

    def _reserved(self, priority: Priority) -> float:
        if priority is Priority.STARVING:
            return 0.0
        spare = self.share.burst - 1
        return min(spare, max(1.0, spare * RESERVED[priority]))

    def spend(self, now: float) -> None:
        """Take the token of a call that goes now."""
        self._fill(now)
        self.tokens -= 1

    def throttled(self, now: float, sent_at: float, jitter: float) -> None:
        """Learn that EC2 refused the call that went at *sent_at*.

        Calls that went before the last cut tell nothing that is not known already.
        """
        if sent_at < self.refused_at:
            return
        self._fill(now)
        self.refused_at = now
        self.rate = max(self._floor, self.rate * CUT)
        self.tokens = min(self.tokens, 1 - 2 * jitter)

    def succeeded(self, now: float) -> None:
        """Learn that EC2 took a call."""
        self._fill(now)
        faster = self.rate + self.share.rate * STEP
        if now - self.refused_at > CALM_SECONDS:
            faster = max(faster, self.rate * CALM_FACTOR)
        self.rate = min(self.ceiling, faster)


@dataclass(slots=True)
class Count:
    """What one action cost. *waited* is the time in line and for a thread, *answered* EC2's."""

    calls: int = 0
    throttles: int = 0
    waited_seconds: float = 0.0
    answered_seconds: float = 0.0


class Budget:
    """The limiters of this node, one for each action."""

    def __init__(self, limits: AccountLimits, nodes: int = 1) -> None:
        self.limits, self.nodes = limits, nodes
        self._limiters: dict[str, Limiter] = {}

    def limiter(self, action: str) -> Limiter:
        """Return the limiter of *action*, always the same."""
        if action not in self._limiters:
            self._limiters[action] = Limiter.of(self.limits.of(action), self.nodes)
        return self._limiters[action]

    def set_nodes(self, nodes: int) -> None:
        """Share with another number of nodes from now on."""
        self.nodes = nodes
        for action, limiter in self._limiters.items():
            limiter.reshare(self.limits.of(action), nodes)


@dataclass(slots=True, eq=False)
class Turn(Generic[T]):
    """A call that waits. From *due* on nothing that comes goes before it."""

    due: float
    number: int
    priority: Priority
    item: T

    def delay(self, limiter: Limiter, now: float) -> float:
        """Return the seconds until it may go; what is due leaves no token for others."""
        own = limiter.delay(now, self.priority)
        return max(limiter.delay(now), min(own, self.due - now))


@dataclass(slots=True)
class Turns(Generic[T]):
    """The calls of one action that wait, in the order in which they go.

    A more urgent call is never behind a less urgent one that came later; calls of one
    priority go in the order in which they came.
    """

    _turns: list[Turn[T]] = field(default_factory=list)
    _number: int = 0

    def add(self, item: T, priority: Priority, now: float) -> Turn[T]:
        """Put a call in its place."""
        self._number += 1
        turn = Turn(now + PATIENCE_SECONDS[priority], self._number, priority, item)
        self._insert(turn)
        return turn

    def _insert(self, turn: Turn[T]) -> None:
        bisect.insort(self._turns, turn, key=lambda t: (t.due, t.priority, t.number))

    def promote(self, priority: Priority, to: Priority, now: float) -> None:
        """Let calls of *priority* that wait go as if they had come now as *to*."""
        for turn in [turn for turn in self._turns if turn.priority is priority]:
            self._turns.remove(turn)
            turn.due, turn.priority = min(turn.due, now + PATIENCE_SECONDS[to]), to
            self._insert(turn)

    def remove(self, turn: Turn[T]) -> None:
        """Take a call out: it goes, or nobody wants it any more. Nothing if it is not there."""
        if turn in self._turns:
            self._turns.remove(turn)

    @property
    def first(self) -> Turn[T]:
        """The call that goes next; there must be one."""
        return self._turns[0]

    def __len__(self) -> int:
        return len(self._turns)


@dataclass(slots=True)
class Endpoint:
    """Whether EC2 can be reached at all, with credentials to sign with.

    A dead endpoint must cost one call a backoff, not one for each action and pod: after a
    failure all calls wait but one, the probe, and the first answer lets all of them go.
    """

    failures: int = 0
    failed_at: float = -math.inf
    until: float = -math.inf
    probing: bool = False

    def delay(self, now: float) -> float:
        """Return the seconds until a call may go; infinity while a probe is on its way."""
        if not self.failures:
            return 0.0
        return math.inf if self.probing else max(0.0, self.until - now)

    def begin(self) -> bool:
        """Note that a call goes; return whether it is the probe."""
        self.probing = self.failures > 0
        return self.probing

    def failed(self, now: float, sent_at: float, jitter: float, *, probe: bool = False) -> None:
        """Note that EC2 was not reached. Calls of before the last failure tell nothing new."""
        self.end(probe=probe)
        if sent_at < self.failed_at:
            return
        self.failures += 1
        self.failed_at = now
        wait = backoff_seconds(self.failures, PROBE_SECONDS, MAX_PROBE_SECONDS, jitter)
        self.until = now + wait

    def answered(self) -> None:
        """Note that EC2 answered, whatever it said."""
        self.failures, self.probing = 0, False

    def end(self, *, probe: bool) -> None:
        """Note that a call ended and told nothing; if it was the probe, another may go."""
        if probe:
            self.probing = False
