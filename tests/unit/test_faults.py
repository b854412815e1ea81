"""Faults of EC2: who meets which, and for how long."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

import pytest

from vpclab.faults import Bucket, Faults, Latency, Verdict, realistic


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(normal: float = 0.0) -> tuple[Faults, Clock]:
    clock = Clock()
    return Faults(clock, lambda: normal), clock


def outcome(verdict: Verdict) -> str:
    if verdict.lost:
        return "lost"
    return verdict.refusal.code if verdict.refusal else "ok"


@pytest.mark.parametrize(
    ("latency", "normal", "seconds"),
    [
        (Latency(0.5), 3.0, 0.5),
        (Latency(0.1, 1.0), 0.0, 0.1),
        (Latency(0.1, 1.0), 2.3263, 1.0),
        (Latency(0.0, 1.0), 2.0, 0.0),
    ],
)
def test_a_latency_has_its_median_and_its_99th_percentile(
    latency: Latency, normal: float, seconds: float
) -> None:
    assert latency.draw(normal) == pytest.approx(seconds)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket, given = Bucket(rate=2, burst=3), 0
    for tick in range(100):
        given += bucket.take(tick / 10)
    assert given == 3 + 2 * 9.9 // 1


def test_an_action_and_the_account_have_buckets_of_their_own() -> None:
    faults, clock = make()
    faults.throttle("CreateTags", rate=1, burst=2)
    faults.throttle("*", rate=1, burst=4)
    seen = [outcome(faults.verdict("CreateTags")) for _ in range(3)]
    assert seen == ["ok", "ok", "RequestLimitExceeded"]
    seen = [outcome(faults.verdict("DescribeTags")) for _ in range(3)]
    assert seen == ["ok", "ok", "RequestLimitExceeded"]
    clock.now += 1
    assert outcome(faults.verdict("CreateTags")) == "ok"


def test_a_rate_alone_is_its_burst_and_one_at_least() -> None:
    faults, _ = make()
    faults.throttle("CreateTags", rate=0.1)
    assert Counter(outcome(faults.verdict("CreateTags")) for _ in range(3))["ok"] == 1


def test_an_error_comes_as_often_as_it_was_ordered() -> None:
    faults, _ = make()
    faults.fail("CreateTags", "InternalError", times=2, status=500)
    faults.lose("CreateTags")
    seen = [outcome(faults.verdict("CreateTags")) for _ in range(4)]
    assert seen == ["InternalError", "InternalError", "lost", "ok"]
    assert outcome(faults.verdict("DescribeTags")) == "ok"


def test_the_rule_of_the_action_comes_before_that_of_all() -> None:
    faults, _ = make()
    faults.latency("*", Latency(1))
    faults.latency("CreateTags", Latency(2))
    faults.fail("*", "Unavailable", message="away")
    faults.fail("CreateTags", "InternalError", times=1)
    assert faults.verdict("CreateTags").seconds == 2
    assert outcome(faults.verdict("CreateTags")) == "Unavailable"
    verdict = faults.verdict("DescribeTags")
    assert (verdict.seconds, verdict.refusal and verdict.refusal.message) == (1, "away")


def test_what_is_on_is_said_in_sentences_and_taken_back_at_once() -> None:
    faults, _ = make()
    faults.lag_seconds = 2
    faults.latency("*", Latency(0.1, 1))
    faults.latency("CreateTags", Latency(0.1))
    faults.throttle("CreateTags", 2, 3)
    faults.fail("CreateTags", "InternalError")
    faults.lose("CreateTags", times=2)
    faults.lose("CreateVpc")
    faults.lose("DescribeTags")
    faults.verdict("DescribeTags")  # and was on
    assert faults.lines() == [
        "descriptions lag 2 s",
        "* takes 0.1 s, 1 % over 1 s",
        "CreateTags takes 0.1 s",
        "CreateTags is throttled to 2/s, bursts of 3",
        "CreateTags fails with InternalError, always",
        "CreateTags loses its answer, 2 more times",
        "CreateVpc loses its answer, once more",
    ]
    faults.clear()
    assert (faults.lines(), faults.verdict("CreateTags")) == ([], Verdict())


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (lambda _: Latency(-1), "a latency is 0 to 86400 seconds; -1 is not"),
        (lambda _: Latency(math.nan), "a latency is 0 to 86400 seconds; nan is not"),
        (lambda _: Latency(1, math.inf), "a 99th percentile is 0 to 86400 seconds; inf is not"),
        (lambda _: Latency(2, 1), "the 99th percentile is not below the median; 1 is below 2"),
        (lambda f: f.throttle("*", 0), "a rate is above 0 calls a second; 0 is not"),
        (lambda f: f.throttle("*", math.nan), "a rate is above 0 calls a second; nan is not"),
        (lambda f: f.throttle("*", 1, 0.5), "a burst is 1 call or more; 0.5 is not"),
        (lambda f: f.fail("*", "<a>"), "an error code is letters, digits and dots; '<a>' is not"),
        (lambda f: f.fail("*", "A", status=200), "an HTTP status that refuses is 400 to 599; 200 is not"),
        (lambda f: f.fail("*", "A", times=0), "a fault happens once or more; 0 times is not"),
        (lambda f: f.lose("*", times=-1), "a fault happens once or more; -1 times is not"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_and_changes_nothing(
    wish: Callable[[Faults], object], sentence: str
) -> None:
    faults, _ = make()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        wish(faults)
    assert faults.lines() == []


def test_a_realistic_ec2_is_slow_and_strict() -> None:
    faults, _ = make()
    realistic(faults)
    seen = Counter(outcome(faults.verdict("CreateNetworkInterface")) for _ in range(150))
    assert seen == {"ok": 100, "RequestLimitExceeded": 50}
    assert faults.lag_seconds == 1
