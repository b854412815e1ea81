"""The one table from an error to what follows from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from cni.spec import Code
from eni.errors import (
    CapacityError,
    CredentialsError,
    EniError,
    InstanceLimitError,
    LimitExceededError,
    NotYetError,
    PrefixesExhaustedError,
    QuotaExceededError,
    RefusedError,
    SubnetExhaustedError,
    ThrottledError,
    UnauthorizedError,
    UnknownOutcomeError,
)
from ipamd.reactions import (
    CONSEQUENCES,
    NODE_EVENTS,
    REFUSALS,
    Consequence,
    Reaction,
    Refusal,
    consequence,
    goes_elsewhere,
    reaction_to,
    someone_must_act,
)


def kinds(family: type[EniError]) -> Iterator[type[EniError]]:
    yield family
    for child in family.__subclasses__():
        yield from kinds(child)


def test_every_error_and_every_family_has_a_row() -> None:
    assert set(CONSEQUENCES) == set(kinds(EniError))


def test_every_reaction_follows_from_something() -> None:
    assert {row.reaction for row in CONSEQUENCES.values()} == set(Reaction)


def test_an_event_tells_which_error_it_was() -> None:
    events = Counter(row.event for row in CONSEQUENCES.values())
    events.update(row.event for row in (*REFUSALS, *NODE_EVENTS))
    assert set(events.values()) == {1}
    assert all(re.fullmatch(r"([A-Z][a-z0-9]+)+", event) for event in events)


@pytest.mark.parametrize("row", CONSEQUENCES.values(), ids=lambda row: row.event)
def test_an_advice_is_one_sentence_for_an_operator(row: Consequence) -> None:
    assert row.advice
    assert not row.advice.endswith(".")
    assert "\n" not in row.advice
    assert row.code is Code.TRY_AGAIN_LATER


@pytest.mark.parametrize("row", [*REFUSALS, *NODE_EVENTS], ids=lambda row: row.event)
def test_what_is_refused_for_something_else_is_told_in_the_same_way(row: Refusal) -> None:
    for told in (row.meaning, row.advice):
        assert told
        assert not told.endswith(".")
        assert "\n" not in told


@pytest.mark.parametrize(
    ("kind", "reaction"),
    [
        pytest.param(ThrottledError, Reaction.BACK_OFF_ACTION, id="throttled"),
        pytest.param(SubnetExhaustedError, Reaction.TRY_ANOTHER_SUBNET, id="subnet-full"),
        pytest.param(PrefixesExhaustedError, Reaction.USE_SINGLES, id="no-28-left"),
        pytest.param(CapacityError, Reaction.TRY_ANOTHER_SUBNET, id="short-of-something"),
        pytest.param(InstanceLimitError, Reaction.LOOK_AGAIN, id="more-than-we-know-of"),
        pytest.param(QuotaExceededError, Reaction.STOP_GROWING, id="quota"),
        pytest.param(CredentialsError, Reaction.WAIT_AND_RETRY, id="no-credentials"),
        pytest.param(UnauthorizedError, Reaction.STOP_GROWING, id="denied"),
        pytest.param(LimitExceededError, Reaction.STOP_GROWING, id="limit"),
        pytest.param(UnknownOutcomeError, Reaction.LOOK_AGAIN, id="answer-lost"),
        pytest.param(RefusedError, Reaction.STOP_GROWING, id="a-refusal-nobody-has-seen"),
        pytest.param(NotYetError, Reaction.WAIT_AND_RETRY, id="not-yet"),
    ],
)
def test_what_follows(kind: type[EniError], reaction: Reaction) -> None:
    assert consequence(kind("no", action="CreateNetworkInterface")).reaction is reaction


def test_the_disk_and_the_kernel_are_waited_for() -> None:
    assert reaction_to(OSError("no space")) is Reaction.WAIT_AND_RETRY
    assert not goes_elsewhere(OSError("no space"))


@pytest.mark.parametrize(
    ("kind", "acts"),
    [
        pytest.param(UnauthorizedError, True, id="denied"),
        pytest.param(QuotaExceededError, True, id="quota"),
        pytest.param(SubnetExhaustedError, True, id="subnet-full"),
        pytest.param(PrefixesExhaustedError, False, id="singles-serve"),
        pytest.param(ThrottledError, False, id="throttled"),
        pytest.param(CapacityError, False, id="short-of-something"),
    ],
)
def test_the_node_has_an_event_where_someone_must_act(kind: type[EniError], *, acts: bool) -> None:
    assert someone_must_act(kind("no", action="x")) is acts


def test_what_one_subnet_has_not_another_may_have() -> None:
    assert goes_elsewhere(SubnetExhaustedError("full", action="x"))
    assert goes_elsewhere(PrefixesExhaustedError("full", action="x"))
    assert not goes_elsewhere(ThrottledError("slow", action="x"))
