"""Would another pod get an address: the condition, what makes pods go elsewhere, and when it turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eni import errors
from eni.errors import EniError
from eni.model import EniId, Kind, SubnetId
from ipamd.availability import (
    REASONS,
    SHRINKING,
    Answer,
    Latch,
    Supply,
    hindrance,
    is_short,
    supply_of,
    verdict,
)
from ipamd.clock import Instant
from ipamd.pool import EniCensus, PoolEni
from ipamd.reactions import CONSEQUENCES, REFUSALS
from ipamd.replies import Shortage
from ipamd.terms import Standing, Terms

TRUE, FALSE, UNKNOWN = Answer
ERRORS = [kind for kind in CONSEQUENCES if kind is not EniError]


def supply(**changes: Any) -> Supply:
    """Return a node of 3 ENIs with room on the third, and nothing free."""
    known: dict[str, Any] = {
        "free": 0, "cooling": 0, "assigned": 18, "room": 9, "enis": 2, "max_enis": 3,
    }  # fmt: skip
    return Supply(**known | changes)


def error(kind: type[EniError], action: str = "CreateNetworkInterface") -> EniError:
    return kind("EC2 says no", action=action)


# The condition ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("now", "status", "reason"),
    [
        pytest.param(supply(free=1), TRUE, "AddressesReady", id="one-is-free"),
        pytest.param(supply(cooling=1), TRUE, "AddressesReady", id="one-cools"),
        pytest.param(supply(free=1, is_known=False), TRUE, "AddressesReady", id="held-from-a-former-life"),
        pytest.param(supply(free=1, trouble=error(errors.UnauthorizedError)), TRUE, "AddressesReady", id="held-while-denied"),
        pytest.param(supply(), TRUE, "NodeMayGrow", id="more-can-be-had"),
        pytest.param(supply(is_known=False), UNKNOWN, "NotLookedYet", id="a-start"),
        pytest.param(supply(is_known=False, room=0), UNKNOWN, "NotLookedYet", id="a-start-of-who-knows-no-eni"),
        pytest.param(supply(room=0), FALSE, "NodeFull", id="full"),
        pytest.param(supply(room=0, max_addresses=18), FALSE, "NodeFull", id="as-many-as-it-may-have-pods"),
        pytest.param(supply(room=0, trouble=error(errors.ThrottledError)), FALSE, "NodeFull", id="full-and-throttled"),
        pytest.param(supply(provisioning=False), FALSE, "NotProvisioning", id="told-to-ask-for-nothing"),
        pytest.param(supply(is_leaving=True), FALSE, "InstanceLeaving", id="ends-soon"),
        pytest.param(supply(trouble=error(errors.SubnetExhaustedError)), FALSE, "SubnetExhausted", id="no-subnet-has-any"),
        pytest.param(supply(trouble=error(errors.UnauthorizedError)), FALSE, "Ec2Unauthorized", id="denied"),
        pytest.param(supply(trouble="ENIConfig a is not in the cluster"), FALSE, "GrowthHindered", id="no-eniconfig"),
        pytest.param(supply(trouble=error(errors.ThrottledError)), UNKNOWN, "Ec2Throttled", id="throttled"),
        pytest.param(supply(trouble=error(errors.UnreachableError)), UNKNOWN, "Ec2Unreachable", id="an-outage"),
        pytest.param(supply(trouble=error(errors.PrefixesExhaustedError)), UNKNOWN, "PrefixesExhausted", id="singles-may-be-had"),
    ],
)  # fmt: skip
def test_the_condition(now: Supply, status: Answer, reason: str) -> None:
    found = verdict(now)
    assert (found.status, found.reason) == (status, reason)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_reason_and_a_next_step(kind: type[EniError]) -> None:
    found = verdict(supply(trouble=error(kind)))
    told = CONSEQUENCES[kind]
    assert (found.status is TRUE, found.reason) == (False, told.event)
    assert found.message == f"EC2 says no. Next step: {told.advice}"


def test_what_a_full_node_says() -> None:
    assert verdict(supply(room=0, enis=3, max_addresses=18)).message == (
        "18 of 18 in use, 3 of 3 ENIs, 18 pods at most. Next step: the node is full: lower its"
        " max-pods, or use a larger instance type"
    )
    assert "pods at most" not in verdict(supply(room=0)).message


def test_its_own_reasons_are_listed_and_the_others_are_events() -> None:
    events = {told.event for told in CONSEQUENCES.values()} | {row.event for row in REFUSALS}
    own = {
        verdict(now).reason
        for now in (
            supply(free=1), supply(), supply(is_known=False), supply(room=0),
            supply(provisioning=False), supply(is_leaving=True), supply(trouble="x"),
        )
    }  # fmt: skip
    assert own == set(REASONS)
    assert set(REASONS) - events == own - {"NodeFull", "GrowthHindered"}


supplies = st.builds(
    Supply,
    free=st.integers(0, 40),
    cooling=st.integers(0, 40),
    assigned=st.integers(0, 40),
    room=st.integers(0, 40),
    enis=st.just(2),
    max_enis=st.just(3),
    provisioning=st.booleans(),
    is_leaving=st.booleans(),
    is_known=st.booleans(),
    trouble=st.sampled_from([None, "hindered", *map(error, ERRORS)]),
)


@given(supplies)
def test_what_is_true_now_no_trouble_makes_false(now: Supply) -> None:
    assert (verdict(now).status is TRUE) or not now.ready
    assert verdict(now).message


# What makes pods go elsewhere ------------------------------------------------------------
@pytest.mark.parametrize(
    ("now", "below", "short"),
    [
        pytest.param(supply(room=0), 1, True, id="full"),
        pytest.param(supply(room=0, free=1), 1, None, id="one-is-back"),
        pytest.param(supply(room=0, free=1, cooling=1), 1, False, id="two-are-back"),
        pytest.param(supply(room=0, free=2), 3, True, id="fewer-than-wanted"),
        pytest.param(supply(room=0, free=5), 3, None, id="between"),
        pytest.param(supply(room=0, free=6), 3, False, id="twice-as-many"),
        pytest.param(supply(), 3, False, id="it-may-grow"),
        pytest.param(supply(trouble=error(errors.UnauthorizedError)), 3, True, id="denied"),
        pytest.param(supply(trouble=error(errors.UnreachableError)), 3, None, id="an-outage-befalls-every-node"),
        pytest.param(supply(trouble=error(errors.UnreachableError), free=6), 3, False, id="an-outage-and-many-held"),
        pytest.param(supply(is_known=False), 3, None, id="a-start"),
        pytest.param(supply(room=0, is_leaving=True), 3, None, id="ends-soon"),
    ],
)  # fmt: skip
def test_whether_pods_should_go_elsewhere(now: Supply, below: int, short: bool | None) -> None:  # noqa: FBT001 - a table's
    assert is_short(now, below) is short


@given(supplies, st.integers(1, 20))
def test_no_pod_is_sent_elsewhere_while_ec2_may_give_more(now: Supply, below: int) -> None:
    if is_short(now, below):
        assert verdict(now).status is FALSE or 0 < now.ready < below
        assert now.total == now.assigned + now.ready


# When it turns ---------------------------------------------------------------------------
looks = st.lists(st.tuples(st.floats(0, 20), st.sampled_from([True, False, None])), max_size=60)


@given(looks, st.integers(1, 60))
def test_a_latch_turns_only_to_what_lasted(
    seen: list[tuple[float, bool | None]], wait: int
) -> None:
    latch, now = Latch(), 0.0
    history: list[tuple[float, bool | None]] = []
    for step, what in seen:
        now += step
        former, latch = latch, latch.see(now, wait, seen=what)
        history.append((now, what))
        if latch.is_on != former.is_on:
            lasted = [(at, w) for at, w in history if at >= now - wait]
            assert all(w is latch.is_on for _, w in lasted)
            assert now - min(at for at, w in history if w is latch.is_on) >= wait


@given(st.booleans(), st.lists(st.floats(0.1, 10), min_size=1, max_size=60), st.integers(1, 60))
def test_a_latch_turns_when_it_has_lasted(start: bool, steps: list[float], wait: int) -> None:  # noqa: FBT001 - drawn
    latch, now = Latch(start), 0.0
    for step in (0.0, *steps):
        now += step
        latch = latch.see(now, wait, seen=not start)
        assert latch.is_on == (start if now < wait else not start)


def test_what_is_neither_breaks_what_was_seen() -> None:
    latch = Latch().see(0, 30, seen=True).see(20, 30, seen=None).see(30, 30, seen=True)
    assert not latch.is_on
    assert latch.see(60, 30, seen=True).is_on


def test_without_patience_it_turns_at_once() -> None:
    assert Latch().see(5, 0, seen=True).is_on


# What is counted -------------------------------------------------------------------------
HOME = SubnetId("subnet-0a")


def eni(number: int, *, closed: bool = False, **counts: int) -> EniCensus:
    made = PoolEni(EniId(f"eni-{number}"), number, 9, HOME, Instant(0, 0), closed=closed)
    return EniCensus(made, **counts)


def counted(*census: EniCensus, waiting: int = 0, **terms: Any) -> Supply:
    known: dict[str, Any] = {"targets": None, "kind": Kind.SINGLE, "max_enis": 3, "slots": 9}
    shortage = Shortage(held=0, assigned=0, cooling=0, enis=len(census), max_enis=3)
    made = Terms(**known | terms)
    return supply_of(census, shortage, made, waiting=waiting, is_known=True)


def test_what_pods_of_this_node_may_have_is_counted() -> None:
    found = counted(eni(1, assigned=5, free=2, cooling=1, singles=8), waiting=1)
    assert (found.free, found.cooling, found.assigned) == (1, 1, 5)
    assert found.room == 1 + 2 * 9
    assert found.total == 5 + 1 + 1 + found.room


def test_more_may_wait_than_are_free() -> None:
    assert counted(eni(1, free=2, singles=2), waiting=5).free == 0


def test_what_an_eni_on_its_way_out_has_is_for_nobody_new() -> None:
    found = counted(eni(1, singles=9, assigned=9), eni(2, closed=True, assigned=1, free=8))
    assert (found.free, found.assigned, found.room) == (0, 10, 9)


def test_prefixes_are_counted_as_addresses() -> None:
    assert counted(eni(1, prefixes=9), kind=Kind.PREFIX).room == 2 * 9 * 16


@pytest.mark.parametrize(("most", "room"), [(None, 18), (12, 3), (9, 0), (4, 0)])
def test_no_more_than_the_node_may_have_pods(most: int | None, room: int) -> None:
    assert counted(eni(1, assigned=9, singles=9), max_addresses=most).room == room


@pytest.mark.parametrize(
    ("standing", "leaving"), [(s, s is Standing.LEAVING) for s in Standing], ids=str
)
def test_an_instance_that_ends_is_leaving(standing: Standing, leaving: bool) -> None:  # noqa: FBT001 - a table's
    assert counted(eni(1), standing=standing).is_leaving is leaving


def test_what_cannot_be_given_back_hinders_no_growth() -> None:
    grows, shrinks = (
        error(errors.UnauthorizedError, action) for action in ("CreateTags", min(SHRINKING))
    )
    assert hindrance([grows, shrinks]) is grows
    assert hindrance([shrinks]) is None
    assert hindrance([grows, disk := OSError()]) is disk
