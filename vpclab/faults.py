"""What can be wrong with EC2's answers: slow, throttled, refused, lost. Pure.

    faults.latency("*", Latency(0.05, 0.4))     every call: median 50 ms, 1 % over 400 ms
    faults.throttle("CreateTags", rate=2)       a bucket for one action
    faults.throttle("*", rate=20, burst=100)    a bucket for the whole account
    faults.fail("AttachNetworkInterface", "AttachmentLimitExceeded", times=1)
    faults.lose("CreateNetworkInterface")       done, and the caller never hears

Rules of one action come before those of "*". `verdict` is asked once a call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

ALL = "*"
"""Every action, or the account's bucket."""

CODE = re.compile(r"[A-Za-z0-9.]+")
"""What EC2's error codes look like: `InvalidNetworkInterfaceID.NotFound`."""

P99 = 2.3263
"""How many standard deviations the 99th percentile of a normal distribution is off."""

MOST_SECONDS = 86_400.0
"""The longest that anything takes or lags by order: a day; what was seen of EC2 is minutes."""

STATUSES = range(400, 600)
"""What an answer that refuses can have for its HTTP status."""


def check_seconds(what: str, seconds: float) -> None:
    """Raise ValueError if *seconds* is not a time that *what* can take."""
    if not 0 <= seconds <= MOST_SECONDS:
        raise ValueError(f"{what} is 0 to {MOST_SECONDS:.0f} seconds; {seconds:g} is not")


def check_status(status: int) -> None:
    """Raise ValueError if *status* is not an HTTP status that refuses."""
    if status not in STATUSES:
        raise ValueError(f"an HTTP status that refuses is 400 to 599; {status} is not")


def check_times(times: float) -> None:
    """Raise ValueError if nothing can happen *times* times."""
    if not times >= 1:
        raise ValueError(f"a fault happens once or more; {times:g} times is not")


def times_left(times: float) -> str:
    """Return how often a fault still happens, in words."""
    return {math.inf: "always", 1: "once more"}.get(times, f"{times:g} more times")


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something takes, in seconds: always *median*, or log-normal with this *p99*.

    Raises ValueError for what is no time, and for a p99 below the median; 0 is none.
    """

    median: float
    p99: float = 0.0

    def __post_init__(self) -> None:
        check_seconds("a latency", self.median)
        check_seconds("a 99th percentile", self.p99)
        if 0 < self.p99 < self.median:
            raise ValueError(
                f"the 99th percentile is not below the median; {self.p99:g} is below"
                f" {self.median:g}"
            )

    def __str__(self) -> str:
        return f"{self.median:g} s" + (f", 1 % over {self.p99:g} s" if self.p99 else "")

    def draw(self, normal: float) -> float:
        """Return seconds for a draw of the standard normal distribution."""
        if self.p99 <= self.median or self.median <= 0:
            return self.median
        return self.median * math.exp(normal * math.log(self.p99 / self.median) / P99)


@dataclass(slots=True)
class Bucket:
    """A token bucket: *rate* tokens a second, *burst* at most; it begins full."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    filled_at: float = field(default=-math.inf)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float) -> bool:
        """Take a token; false if there is none."""
        if self.filled_at > -math.inf:
            self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class Refusal:
    """An error that the next *left* calls get; after the deed if *after*."""

    code: str
    message: str
    status: int
    left: float
    after: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one call: a pause, then this error instead of the deed, or a lost answer."""

    seconds: float = 0.0
    refusal: Refusal | None = None
    lost: bool = False


THROTTLED = Refusal("RequestLimitExceeded", "Request limit exceeded.", 503, math.inf)
"""EC2's answer to too many calls."""


class Faults:
    """The faults of one EC2. *now* and *normal* are its clock and its source of chance."""

    def __init__(self, now: Callable[[], float], normal: Callable[[], float]) -> None:
        self._now, self._normal = now, normal
        self.lag_seconds = 0.0
        """How far descriptions of ENIs lag behind what was done."""
        self._latencies: dict[str, Latency] = {}
        self._buckets: dict[str, Bucket] = {}
        self._refusals: dict[str, list[Refusal]] = {}

    def clear(self) -> None:
        """Take every fault back."""
        self.lag_seconds = 0.0
        for rules in (self._latencies, self._buckets, self._refusals):
            rules.clear()

    def latency(self, action: str, latency: Latency) -> None:
        """Let *action* take time."""
        self._latencies[action] = latency

    def throttle(self, action: str, rate: float, burst: float | None = None) -> None:
        """Let *action*, or all together, be called *rate* times a second at most.

        *burst* calls may come at once; without it as many as in a second, and one at least.
        Raises ValueError for a rate of 0 or less and a burst below 1.
        """
        if not 0 < rate < math.inf:
            raise ValueError(f"a rate is above 0 calls a second; {rate:g} is not")
        if burst is not None and not 1 <= burst < math.inf:
            raise ValueError(f"a burst is 1 call or more; {burst:g} is not")
        self._buckets[action] = Bucket(rate, max(1.0, rate) if burst is None else burst)

    def fail(
        self,
        action: str,
        code: str,
        *,
        times: float = math.inf,
        message: str | None = None,
        status: int = 400,
    ) -> None:
        """Refuse *action* with EC2's error *code*, *times* times.

        Raises ValueError for a code with other than letters, digits and dots, a status that does
        not refuse, and fewer times than one.
        """
        if not CODE.fullmatch(code):
            raise ValueError(f"an error code is letters, digits and dots; '{code}' is not")
        check_status(status)
        check_times(times)
        text = f"{code}, by a fault of the lab" if message is None else message
        self._refusals.setdefault(action, []).append(Refusal(code, text, status, times))

    def lose(self, action: str, *, times: float = 1) -> None:
        """Do what *action* says, and let nobody hear, *times* times, one at least."""
        check_times(times)
        lost = Refusal("lost", "", 0, times, after=True)
        self._refusals.setdefault(action, []).append(lost)

    def verdict(self, action: str) -> Verdict:
        """Return what happens to this call of *action*."""
        latency = self._latencies.get(action) or self._latencies.get(ALL)
        seconds = latency.draw(self._normal()) if latency else 0.0
        now = self._now()
        for name in (action, ALL):
            bucket = self._buckets.get(name)
            if bucket is not None and not bucket.take(now):
                return Verdict(seconds, THROTTLED)
        for name in (action, ALL):
            for refusal in self._refusals.get(name, ()):
                if refusal.left > 0:
                    refusal.left -= 1
                    if refusal.after:
                        return Verdict(seconds, lost=True)
                    return Verdict(seconds, refusal)
        return Verdict(seconds)

    def lines(self) -> list[str]:
        """Return each fault that is on, as a sentence."""
        said = [f"descriptions lag {self.lag_seconds:g} s"] if self.lag_seconds else []
        for action, latency in self._latencies.items():
            said.append(f"{action} takes {latency}")
        for action, bucket in self._buckets.items():
            said.append(f"{action} is throttled to {bucket.rate:g}/s, bursts of {bucket.burst:g}")
        for action, refusals in self._refusals.items():
            for refusal in refusals:
                if refusal.left > 0:
                    what = "loses its answer" if refusal.after else f"fails with {refusal.code}"
                    said.append(f"{action} {what}, {times_left(refusal.left)}")
        return said


def realistic(faults: Faults) -> None:
    """Let EC2 be as slow and as strict as it is in a busy account.

    Buckets: the EC2 API guide's throttling tables, as peers measured them: 100 and 20 a second for
    descriptions, 100 and 5 for changes of ENIs. Latencies: 0.05-0.5 s, seen in public logs.
    """
    faults.latency(ALL, Latency(0.08, 0.4))
    for action in ("CreateNetworkInterface", "AttachNetworkInterface", "RunInstances"):
        faults.latency(action, Latency(0.4, 1.5))
    for action in ("DescribeNetworkInterfaces", "DescribeInstances", "DescribeSubnets"):
        faults.throttle(action, rate=20, burst=100)
    for action in (
        "CreateNetworkInterface", "AttachNetworkInterface", "DetachNetworkInterface",
        "DeleteNetworkInterface", "ModifyNetworkInterfaceAttribute", "AssignPrivateIpAddresses",
        "UnassignPrivateIpAddresses", "CreateTags",
    ):  # fmt: skip
        faults.throttle(action, rate=5, burst=100)
    faults.lag_seconds = 1.0
