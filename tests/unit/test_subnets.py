"""Which subnets give addresses, and of which kind: the peer's tags, fail-over, and coming back."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eni.model import Kind, SecurityGroupId, SubnetId
from ipamd.clock import Instant
from ipamd.subnets import (
    INHIBIT_MAX_SECONDS,
    INHIBIT_SECONDS,
    Candidate,
    Inhibitions,
    Subnets,
    SubnetView,
    discover,
    is_excluded,
    most_free_first,
)

START = Instant(1000, 1000)
A, B, C = (SubnetId(f"subnet-{name}") for name in "abc")
ROLE = "kubernetes.io/role/cni"
CLUSTER = "cni.networking.k8s.aws/cluster/"
SINGLE, PREFIX = Kind.SINGLE, Kind.PREFIX
EVEN = 0.5
"""The roll that jitters nothing."""


def view(subnet_id: SubnetId, available: int | None = 100, **tags: str) -> SubnetView:
    words = {"role": ROLE, "ours": CLUSTER + "prod", "theirs": CLUSTER + "test"}
    return SubnetView(
        id=subnet_id, available=available, tags={words[k]: v for k, v in tags.items()}
    )


@pytest.mark.parametrize(
    ("views", "cluster", "found"),
    [
        pytest.param([view(A), view(B)], "", [A], id="untagged-only-the-primarys"),
        pytest.param([view(A), view(B, role="1")], "", [A, B], id="tagged-others-too"),
        pytest.param([view(A), view(B, role="shared")], "", [A, B], id="whatever-the-value"),
        pytest.param([view(A, role="0"), view(B, role="1")], "", [B], id="zero-excludes"),
        pytest.param([view(A, role="0")], "", [], id="also-the-primarys"),
        pytest.param([view(A, 5), view(B, 9, role="1")], "", [B, A], id="most-free-first"),
        pytest.param([view(B, role="1", ours="shared")], "prod", [B], id="for-our-cluster"),
        pytest.param([view(B, role="1", theirs="shared")], "prod", [], id="for-another-cluster"),
        pytest.param([view(B, role="1", theirs="", ours="")], "prod", [B], id="for-two-clusters"),
        pytest.param([view(B, role="1", ours="shared")], "", [], id="for-a-cluster-we-do-not-know"),
    ],
)
def test_discovery(views: list[SubnetView], cluster: str, found: list[SubnetId]) -> None:
    assert [candidate.subnet_id for candidate in discover(views, A, cluster)] == found


def test_an_untagged_subnet_is_not_excluded() -> None:
    assert not is_excluded(view(A))
    assert is_excluded(view(A, role="0"))
    assert is_excluded(view(A, theirs="shared"), "prod")


def test_candidates_of_which_nothing_is_known_keep_their_order() -> None:
    given_order = [Candidate(A), Candidate(B), Candidate(C)]
    assert most_free_first(given_order, []) == tuple(given_order)
    assert most_free_first(given_order, [view(C, 1)])[0] == Candidate(C)


# Inhibitions -----------------------------------------------------------------------------
def test_a_refusal_holds_for_its_subnet_and_kind_only() -> None:
    after = Inhibitions().refused(A, PREFIX, 1, START, EVEN)
    assert after.forbids(A, PREFIX, START)
    assert not after.forbids(A, SINGLE, START)
    assert not after.forbids(B, PREFIX, START)
    assert after.next_return(START) == INHIBIT_SECONDS
    assert not after.forbids(A, PREFIX, START.later(INHIBIT_SECONDS))
    assert after.next_return(START.later(INHIBIT_SECONDS)) is None


def test_each_refusal_holds_twice_as_long_up_to_half_an_hour() -> None:
    now, state, lengths = START, Inhibitions(), []
    for _ in range(7):
        state = state.refused(A, SINGLE, 1, now, EVEN)
        lengths.append(state.next_return(now))
        now = now.later(lengths[-1] or 0)
    assert lengths == [120, 240, 480, 960, 1800, 1800, 1800]


def test_a_success_forgets() -> None:
    once = Inhibitions().refused(A, SINGLE, 1, START, EVEN).refused(B, SINGLE, 1, START, EVEN)
    after = once.granted(A, SINGLE, START)
    assert not after.forbids(A, SINGLE, START)
    assert after.forbids(B, SINGLE, START)
    assert after.refused(A, SINGLE, 1, START, EVEN).by_place[A, SINGLE].seconds == INHIBIT_SECONDS
    assert after.granted(A, SINGLE, START) == after


def test_calls_that_fail_together_count_as_one() -> None:
    once = Inhibitions().refused(A, PREFIX, 1, START, EVEN)
    assert once.refused(A, PREFIX, 1, START.later(1), EVEN) == once


def test_what_is_refused_is_asked_in_halves() -> None:
    state, limits = Inhibitions(), []
    for count in (9, 9, 4, 2, 1):
        state = state.refused(A, SINGLE, count, START, EVEN)
        limits.append(state.limits(START)[A, SINGLE])
    assert limits == [4, 4, 2, 1, 0]


def test_a_limit_ends_by_time_not_by_less_being_given() -> None:
    state = Inhibitions().refused(A, SINGLE, 9, START, EVEN)
    assert state.granted(A, SINGLE, START) == state
    assert state.next_return(START) is None
    later = START.later(INHIBIT_SECONDS)
    assert not state.limits(later)
    assert state.granted(A, SINGLE, later) == Inhibitions()


def test_after_an_inhibition_one_is_tried() -> None:
    state = Inhibitions().refused(A, SINGLE, 1, START, EVEN)
    later = START.later(INHIBIT_SECONDS)
    assert state.limits(later) == {(A, SINGLE): 1}
    assert state.granted(A, SINGLE, later) == Inhibitions()


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_jitter_never_holds_for_ever(rolls: list[float]) -> None:
    now, state = START, Inhibitions()
    for roll in rolls:
        state = state.refused(A, PREFIX, 1, now, roll)
        left = state.next_return(now)
        assert left is not None
        assert 0.75 * INHIBIT_SECONDS <= left <= 1.25 * INHIBIT_MAX_SECONDS
        now = now.later(left + 1e-6)
        assert not state.forbids(A, PREFIX, now)


# Places ----------------------------------------------------------------------------------
NONE = Inhibitions()
NO_PREFIX_A = NONE.refused(A, PREFIX, 1, START, EVEN)
NO_PREFIXES = NO_PREFIX_A.refused(B, PREFIX, 1, START, EVEN)
NOTHING_A = NO_PREFIX_A.refused(A, SINGLE, 1, START, EVEN)


def subnets(*views: SubnetView, mode: Kind = PREFIX, inhibitions: Inhibitions = NONE) -> Subnets:
    return Subnets(
        mode=mode,
        candidates=tuple(Candidate(v.id) for v in views),
        views={v.id: v for v in views},
        inhibitions=inhibitions,
    )


RESERVED = SubnetView(id=B, available=3, reservations=(IPv4Network("10.0.1.0/26"),))


@pytest.mark.parametrize(
    ("known", "place"),
    [
        pytest.param(subnets(view(A), view(B)), (A, PREFIX), id="the-first"),
        pytest.param(subnets(view(A), mode=SINGLE), (A, SINGLE), id="singles-by-mode"),
        pytest.param(
            subnets(view(A), view(B), inhibitions=NO_PREFIX_A), (B, PREFIX), id="siblings-first"
        ),
        pytest.param(
            subnets(view(A), view(B), inhibitions=NO_PREFIXES), (A, SINGLE),
            id="singles-when-no-sibling-has-prefixes",
        ),
        pytest.param(subnets(view(A), inhibitions=NOTHING_A), None, id="nowhere"),
        pytest.param(subnets(), None, id="no-candidate"),
        pytest.param(subnets(view(A, 16)), (A, SINGLE), id="too-few-for-a-prefix-and-the-eni"),
        pytest.param(subnets(view(A, 17)), (A, PREFIX), id="just-enough"),
        pytest.param(subnets(view(A, 1)), None, id="one-is-the-enis-own"),
        pytest.param(subnets(view(A, None)), (A, PREFIX), id="unknown-is-tried"),
        pytest.param(subnets(view(A), RESERVED), (B, PREFIX), id="reservations-first"),
        pytest.param(
            subnets(view(A), RESERVED, mode=SINGLE), (A, SINGLE), id="not-for-single-addresses"
        ),
    ],
)  # fmt: skip
def test_place(known: Subnets, place: tuple[SubnetId, Kind] | None) -> None:
    found = known.place(START)
    assert (found and (found[0].subnet_id, found[1])) == place


def test_a_candidate_nobody_described_is_tried_as_its_eniconfig_says() -> None:
    candidate = Candidate(A, (SecurityGroupId("sg-1"),), "zone-a")
    assert Subnets(mode=PREFIX, candidates=(candidate,)).place(START) == (candidate, PREFIX)


@pytest.mark.parametrize(
    ("known", "rooms", "may_attach", "kinds"),
    [
        pytest.param(subnets(view(A)), {A: 3}, True, {A: PREFIX}, id="as-the-mode"),
        pytest.param(
            subnets(view(A), mode=SINGLE), {A: 3}, True, {A: SINGLE}, id="singles-by-mode"
        ),
        pytest.param(
            subnets(view(A), inhibitions=NO_PREFIX_A), {A: 3}, True, {A: SINGLE}, id="falls-back"
        ),
        pytest.param(
            subnets(view(A), view(B), inhibitions=NO_PREFIX_A), {A: 3, B: 2}, False,
            {A: None, B: PREFIX}, id="not-while-a-sibling-has-room",
        ),
        pytest.param(
            subnets(view(A), view(B), inhibitions=NO_PREFIX_A), {A: 3, B: 0}, False,
            {A: SINGLE, B: PREFIX}, id="a-sibling-without-room-does-not-help",
        ),
        pytest.param(
            subnets(view(A), view(B), inhibitions=NO_PREFIX_A), {A: 3}, True,
            {A: None}, id="not-while-a-new-eni-may-get-prefixes",
        ),
        pytest.param(
            subnets(view(A), view(B), inhibitions=NO_PREFIX_A), {A: 3}, False,
            {A: SINGLE}, id="but-when-no-eni-may-come",
        ),
        pytest.param(subnets(view(A), inhibitions=NOTHING_A), {A: 3}, True, {A: None}, id="dry"),
    ],
)  # fmt: skip
def test_kinds(
    known: Subnets,
    rooms: dict[SubnetId, int],
    may_attach: bool,  # noqa: FBT001 - a case
    kinds: dict[SubnetId, Kind | None],
) -> None:
    assert known.kinds(rooms, START, may_attach=may_attach) == kinds


def test_prefixes_return_by_themselves() -> None:
    known = subnets(view(A), inhibitions=NO_PREFIX_A)
    later = START.later(INHIBIT_SECONDS)
    assert known.kinds({A: 3}, later, may_attach=True) == {A: PREFIX}


def test_an_operator_is_told_why_and_what_is_not_reserved() -> None:
    known = subnets(view(A, 40), RESERVED)
    assert known.explain(A, PREFIX) == (
        "subnet subnet-a gives no aligned /28 "
        "(40 addresses free; no CIDR of it is reserved for them)"
    )
    assert "the reservations 10.0.1.0/26 are used up" in known.explain(B, PREFIX)
    assert known.explain(C, SINGLE) == "subnet subnet-c gives no address (unknown free)"
