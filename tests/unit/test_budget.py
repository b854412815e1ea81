"""This node's part of EC2's budget: buckets, order, refusals, and a fleet that shares one."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd import account_limits
from ipamd.budget import (
    CALM_SECONDS,
    CEILING,
    FLOOR,
    FLOOR_BURST,
    MAX_PROBE_SECONDS,
    MAX_START_JITTER_SECONDS,
    PATIENCE_SECONDS,
    AccountLimits,
    Budget,
    Endpoint,
    Limit,
    Limiter,
    Priority,
    Turns,
    backoff_seconds,
    share,
    start_jitter_seconds,
)

MUTATING = Limit(50, 5)
CREATE = "CreateNetworkInterface"

limits = st.builds(Limit, burst=st.floats(1, 500), rate=st.floats(0.01, 100))
node_counts = st.integers(1, 10_000)
jitters = st.floats(0, 1, exclude_max=True)
priorities = st.sampled_from(Priority)


# Shares --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("limit", "nodes", "part"),
    [
        pytest.param(MUTATING, 1, MUTATING, id="one-node-has-all"),
        pytest.param(MUTATING, 10, Limit(5, 0.5), id="ten-share"),
        pytest.param(MUTATING, 1000, Limit(FLOOR_BURST, FLOOR), id="the-floor"),
        pytest.param(Limit(1, 0.001), 1000, Limit(1, 0.001), id="never-above-the-limit"),
    ],
)
def test_a_nodes_part(limit: Limit, nodes: int, part: Limit) -> None:
    assert share(limit, nodes) == part


@given(limits, node_counts)
def test_a_part_is_within_the_limit_and_lets_one_call_go(limit: Limit, nodes: int) -> None:
    part = share(limit, nodes)
    assert 1 <= part.burst <= limit.burst
    assert min(FLOOR, limit.rate) <= part.rate <= limit.rate


@pytest.mark.parametrize(
    ("nodes", "seconds"),
    [
        pytest.param(1, 0.0, id="a-lone-node-does-not-wait"),
        pytest.param(50, 0.0, id="half-a-burst-fits-at-once"),
        pytest.param(1000, 95.0, id="the-rest-at-half-the-rate"),
        pytest.param(100_000, MAX_START_JITTER_SECONDS, id="never-longer-than-this"),
    ],
)
def test_a_fleet_that_starts_together_spreads_its_first_look(nodes: int, seconds: float) -> None:
    assert start_jitter_seconds(nodes, account_limits.shipped()) == seconds


@pytest.mark.parametrize(
    ("action", "rate"),
    [
        pytest.param("DescribeSubnets", 3, id="its-own-name"),
        pytest.param("DescribeInstanceTypes", 2, id="the-longest-beginning"),
        pytest.param("CreateTags", 1, id="everything-else"),
        pytest.param("Describe", 4, id="its-own-name-before-a-beginning-of-that-length"),
    ],
)
def test_the_nearest_name_counts(action: str, rate: float) -> None:
    known = {
        "*": Limit(1, 1),
        "Describe*": Limit(1, 2),
        "DescribeSubnets": Limit(1, 3),
        "Describe": Limit(1, 4),
    }
    assert AccountLimits(known).of(action).rate == rate


def test_a_budget_shares_with_as_many_nodes_as_there_are() -> None:
    budget = Budget(AccountLimits({"*": MUTATING}), nodes=10)
    create = budget.limiter(CREATE)
    assert budget.limiter(CREATE) is create
    assert create.share == Limit(5, 0.5)
    budget.set_nodes(1000)
    assert (create.share, create.tokens) == (Limit(FLOOR_BURST, FLOOR), FLOOR_BURST)
    assert budget.limiter("AttachNetworkInterface").share == create.share


def test_what_was_learned_of_the_rate_outlives_a_new_share() -> None:
    limiter = Limiter.of(MUTATING, 1)
    limiter.throttled(0, 0, 0.5)
    limiter.reshare(MUTATING, 2)
    assert limiter.rate == 2.5


# Backoff -------------------------------------------------------------------------------
@given(st.integers(1, 10_000), jitters)
def test_a_backoff_is_between_nothing_and_its_cap(attempt: int, jitter: float) -> None:
    assert 0 <= backoff_seconds(attempt, 1, 30, jitter) <= min(30, 2.0 ** min(attempt - 1, 64))


def test_a_backoff_doubles_up_to_its_cap() -> None:
    assert [backoff_seconds(n, 1, 30, 0.5) for n in (1, 2, 3, 6, 99)] == [0.5, 1, 2, 15, 15]


# The limiter ---------------------------------------------------------------------------
def spent(limiter: Limiter, now: float, priority: Priority) -> int:
    """Return how many calls of *priority* go at once."""
    for count in itertools.count():
        if limiter.delay(now, priority) > 0:
            return count
        limiter.spend(now)
    raise AssertionError


@pytest.mark.parametrize(
    ("priority", "burst", "calls"),
    [
        pytest.param(Priority.STARVING, 50, 50, id="pods-that-wait-get-all"),
        pytest.param(Priority.STEADY, 50, 37, id="the-pool-leaves-a-quarter"),
        pytest.param(Priority.SHRINK, 50, 25, id="shrinking-leaves-half"),
        pytest.param(Priority.SWEEP, 50, 13, id="a-sweep-leaves-three-quarters"),
        pytest.param(Priority.SWEEP, 2, 1, id="of-two-tokens-one-is-kept"),
        pytest.param(Priority.SWEEP, 1, 1, id="of-one-token-none-can-be"),
    ],
)
def test_lesser_calls_leave_tokens_for_pods(priority: Priority, burst: float, calls: int) -> None:
    assert spent(Limiter.of(Limit(burst, 1), 1), 0, priority) == calls


def test_an_empty_bucket_tells_how_long_to_wait() -> None:
    limiter = Limiter.of(Limit(2, 0.5), 1)
    spent(limiter, 0, Priority.STARVING)
    assert limiter.delay(0) == 2.0
    assert limiter.delay(1) == 1.0
    assert limiter.delay(2) == 0.0
    assert limiter.delay(0, Priority.STEADY) == limiter.delay(2, Priority.STEADY) == 2.0


events = st.lists(
    st.tuples(st.floats(0, 200), st.sampled_from(["ok", "refused", "lost"]), jitters, priorities),
    max_size=60,
)


@given(limits, node_counts, events)
def test_no_window_sees_more_calls_than_burst_and_ceiling(
    limit: Limit, nodes: int, story: list[tuple[float, str, float, Priority]]
) -> None:
    limiter, now, sent = Limiter.of(limit, nodes), 0.0, list[float]()
    for later, outcome, jitter, priority in story:
        now += later
        if limiter.delay(now, priority) == 0:
            limiter.spend(now)
            sent.append(now)
        if outcome == "refused":
            limiter.throttled(now, now, jitter)
        elif outcome == "ok":
            limiter.succeeded(now)
        assert min(FLOOR, limiter.share.rate) <= limiter.rate <= limiter.ceiling
    for i, since in enumerate(sent):
        for j, until in enumerate(sent[i:], 1):
            assert j <= limiter.share.burst + limiter.ceiling * (until - since) + 0.001


@given(limits, node_counts, events, priorities)
def test_a_call_may_always_go_after_what_it_was_told(
    limit: Limit, nodes: int, story: list[tuple[float, str, float, Priority]], priority: Priority
) -> None:
    limiter, now = Limiter.of(limit, nodes), 0.0
    for later, outcome, jitter, _ in story:
        now += later
        if outcome == "refused":
            limiter.throttled(now, now, jitter)
        elif limiter.delay(now) == 0:
            limiter.spend(now)
    assert limiter.delay(now + limiter.delay(now, priority), priority) < 0.001 / limiter.rate


def test_a_refusal_halves_the_rate_once_for_all_calls_in_flight() -> None:
    limiter = Limiter.of(MUTATING, 10)
    for sent_at in (0.0, 0.1, 0.2):
        limiter.throttled(0.3, sent_at, 0.5)
    assert limiter.rate == 0.25
    limiter.throttled(0.4, 0.29, 0.5)
    assert limiter.rate == 0.25
    limiter.throttled(0.9, 0.5, 0.5)
    assert limiter.rate == 0.125


@pytest.mark.parametrize(
    ("jitter", "spacings"),
    [
        pytest.param(0.0, 0.0, id="at-once"),
        pytest.param(0.5, 1.0, id="after-a-spacing-on-the-average"),
        pytest.param(0.99, 1.98, id="after-nearly-two"),
    ],
)
def test_a_refused_node_comes_back_at_a_moment_of_its_own(jitter: float, spacings: float) -> None:
    limiter = Limiter.of(MUTATING, 10)
    limiter.throttled(0, 0, jitter)
    assert limiter.delay(0) * limiter.rate == pytest.approx(spacings, abs=1e-9)


def test_refusals_never_bring_the_rate_below_the_floor() -> None:
    limiter = Limiter.of(MUTATING, 1)
    for now in range(100):
        limiter.throttled(now, now, 0.5)
    assert limiter.rate == FLOOR


@given(limits, node_counts, st.integers(1, 30))
def test_after_the_last_refusal_the_rate_recovers(limit: Limit, nodes: int, cuts: int) -> None:
    limiter = Limiter.of(limit, nodes)
    for now in range(cuts):
        limiter.throttled(now, now, 0.5)
    for success in range(10):
        limiter.succeeded(cuts + success)
    assert limiter.rate >= min(limiter.share.rate, limiter.ceiling) * 0.999
    for success in range(10):
        limiter.succeeded(cuts + CALM_SECONDS + success)
    assert limiter.rate == limiter.ceiling


def test_a_lone_busy_node_of_a_thousand_gets_half_of_the_limit_in_three_successes() -> None:
    limiter = Limiter.of(MUTATING, 1000)
    rates = []
    for now in range(3):
        limiter.succeeded(now)
        rates.append(limiter.rate)
    assert rates == [pytest.approx(0.1), pytest.approx(1.0), MUTATING.rate * CEILING]


# Order ---------------------------------------------------------------------------------
arrivals = st.lists(st.tuples(st.floats(0, 300), priorities), min_size=1, max_size=30)


def drain(turns: Turns[int]) -> list[int]:
    order = []
    while len(turns):
        order.append(turns.first.item)
        turns.remove(turns.first)
    return order


@given(arrivals)
def test_the_more_urgent_is_never_behind_what_came_later(
    story: list[tuple[float, Priority]],
) -> None:
    turns, now, came = Turns[int](), 0.0, list[tuple[float, Priority]]()
    for number, (later, priority) in enumerate(story):
        now += later
        came.append((now, priority))
        turns.add(number, priority, now)
    order = drain(turns)
    assert sorted(order) == list(range(len(story)))
    for first, second in itertools.combinations(order, 2):
        assert first < second or came[second][1] > came[first][1]


@given(arrivals, priorities)
def test_nothing_that_comes_after_its_patience_goes_before_a_call(
    story: list[tuple[float, Priority]], priority: Priority
) -> None:
    turns = Turns[int]()
    turns.add(-1, priority, 0.0)
    now, before = 0.0, 0
    for number, (later, other) in enumerate(story):
        now += later
        turns.add(number, other, now)
        before += now <= PATIENCE_SECONDS[priority]
    assert drain(turns).index(-1) <= before


@pytest.mark.parametrize("priority", Priority)
def test_pods_that_wait_for_ever_do_not_starve_the_rest(priority: Priority) -> None:
    """Pods take all that the bucket gives, for ever: the bound is patience and one spacing."""
    limiter, turns = Limiter.of(Limit(4, 0.5), 1), Turns[str]()
    turns.add("the one", priority, 0.0)
    for second in range(2000):
        turns.add("a pod's", Priority.STARVING, second)
        while len(turns) and turns.first.delay(limiter, second) == 0:
            turn = turns.first
            turns.remove(turn)
            limiter.spend(second)
            if turn.item == "the one":
                bound = PATIENCE_SECONDS[priority]
                # Twice as many pods come as calls can go: those of before its patience was over.
                assert second <= 2 * bound + 2
                return
    pytest.fail("starved")


def test_a_call_that_is_due_does_not_wait_for_tokens_that_are_kept_back() -> None:
    limiter, turns = Limiter.of(Limit(2, 0.01), 1), Turns[str]()
    limiter.spend(0)
    turn = turns.add("steady", Priority.STEADY, 0.0)
    assert turn.delay(limiter, 0) == 30.0
    assert turn.delay(limiter, 30) == 0.0


def test_whoever_left_is_not_in_line() -> None:
    turns = Turns[str]()
    turn = turns.add("gone", Priority.STEADY, 0.0)
    turns.remove(turn)
    turns.remove(turn)
    assert len(turns) == 0


# The endpoint --------------------------------------------------------------------------
def test_while_ec2_is_away_one_call_at_a_time_finds_out() -> None:
    endpoint = Endpoint()
    assert (endpoint.delay(0), endpoint.begin()) == (0.0, False)
    endpoint.failed(1.0, 0.0, 0.5)
    assert endpoint.delay(1.0) == 0.5
    assert (endpoint.delay(1.5), endpoint.begin()) == (0.0, True)
    assert endpoint.delay(1.5) == math.inf
    endpoint.failed(2.0, 1.5, 0.5, probe=True)
    assert endpoint.delay(2.0) == 1.0
    assert endpoint.begin()
    endpoint.answered()
    assert endpoint.delay(3.0) == 0.0


def test_calls_that_fail_together_are_one_failure() -> None:
    endpoint = Endpoint()
    for sent_at in (0.0, 0.1, 0.2):
        endpoint.failed(1.0, sent_at, 0.5)
    assert endpoint.failures == 1


def test_a_probe_that_tells_nothing_makes_room_for_another() -> None:
    endpoint = Endpoint()
    endpoint.failed(1.0, 0.0, 0.0)
    endpoint.begin()
    endpoint.end(probe=False)
    assert endpoint.delay(2.0) == math.inf
    endpoint.end(probe=True)
    assert endpoint.delay(2.0) == 0.0


@given(st.integers(1, 200), jitters)
def test_the_next_probe_is_never_far(failures: int, jitter: float) -> None:
    endpoint = Endpoint()
    for now in range(failures):
        endpoint.failed(now, now, jitter)
    assert endpoint.delay(failures - 1) <= MAX_PROBE_SECONDS


# A fleet -------------------------------------------------------------------------------
LATENCY_SECONDS = 0.3


@dataclass
class Fleet:
    """Nodes that share a bucket of EC2's and know nothing of each other."""

    nodes: int
    busy: int
    calls_each: int
    limit: Limit = MUTATING
    sent: int = 0
    refused: int = 0
    ended: float = 0.0
    _events: list[tuple[float, int, str, int, float]] = field(default_factory=list)
    _number: int = 0

    @property
    def refusals(self) -> float:
        """Refusals per call."""
        return self.refused / self.sent

    @property
    def ideal(self) -> float:
        """The seconds in which EC2 could have given all that was asked."""
        return (self.busy * self.calls_each - self.limit.burst) / self.limit.rate

    def push(self, at: float, what: str, node: int, sent_at: float = 0.0) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, what, node, sent_at))

    def run(self) -> Fleet:
        dice = random.Random(1)
        account = Limiter(self.limit, self.limit.rate, self.limit.rate, self.limit.burst)
        limiters = [Limiter.of(self.limit, self.nodes) for _ in range(self.busy)]
        left = [self.calls_each] * self.busy
        for node in range(self.busy):
            self.push(2 * dice.random(), "look", node)
        while self._events:
            now, _, what, node, sent_at = heapq.heappop(self._events)
            if what == "taken":
                limiters[node].succeeded(now)
                self.ended = now
            elif what == "refused":
                limiters[node].throttled(now, sent_at, dice.random())
                left[node] += 1
            while left[node] and not limiters[node].delay(now):
                limiters[node].spend(now)
                left[node] -= 1
                self.sent += 1
                taken = account.delay(now) == 0
                if taken:
                    account.spend(now)
                self.refused += not taken
                self.push(now + LATENCY_SECONDS, "taken" if taken else "refused", node, now)
            if left[node]:
                self.push(now + max(limiters[node].delay(now), 0.001), "look", node)
        return self


@pytest.mark.parametrize(
    ("nodes", "busy", "calls_each", "refusals", "slower"),
    [
        pytest.param(1000, 1, 8, 0.0, None, id="a-lone-busy-node-of-a-thousand"),
        pytest.param(1000, 20, 100, 0.12, 1.5, id="twenty-busy-nodes-of-a-thousand"),
        pytest.param(100, 100, 100, 0.30, 1.15, id="a-hundred-that-never-have-enough"),
        pytest.param(1000, 1000, 1, 0.55, 1.15, id="a-thousand-that-start-together"),
    ],
)
def test_a_fleet_takes_what_ec2_gives_with_few_refusals(
    nodes: int, busy: int, calls_each: int, refusals: float, slower: float | None
) -> None:
    fleet = Fleet(nodes, busy, calls_each).run()
    assert fleet.sent - fleet.refused == busy * calls_each
    assert fleet.refusals <= refusals
    assert fleet.ended <= (5.0 if slower is None else fleet.ideal * slower)


def test_calls_that_kept_the_pool_steady_are_promoted_when_pods_wait() -> None:
    turns = Turns[int]()
    for number, (priority, came) in enumerate(
        ((Priority.STEADY, 0.0), (Priority.SWEEP, 0.0), (Priority.STARVING, 12.0))
    ):
        turns.add(number, priority, came)
    turns.promote(Priority.STEADY, Priority.STARVING, 10.0)
    turns.promote(Priority.STARVING, Priority.STARVING, 20.0)  # never to a later turn
    assert drain(turns) == [0, 2, 1]
