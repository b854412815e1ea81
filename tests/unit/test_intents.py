"""What the journal keeps of ENIs."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eni.model import AttachmentId, Eni, EniId, Kind, SubnetId
from ipamd.intents import (
    EniState,
    Intent,
    Noted,
    free_index,
    is_detached,
    is_foreign,
    is_in_use,
    note,
    note_of,
    noted,
    wish_of,
    wished,
)

CIDR = IPv4Network("10.0.0.0/20")
PARAMETERS: dict[str, object] = {
    "token": "t-1",
    "subnet_id": "subnet-1",
    "security_groups": ["sg-1", "sg-2"],
    "description": "aws-K8S-i-1",
    "kind": "single",
    "count": 9,
    "tags": [["a", "b"]],
}


def intent(**more: object) -> Intent:
    return Intent(token="t-1", state=EniState.PLANNED, device_index=1, parameters=PARAMETERS | more)


@pytest.mark.parametrize(
    ("kind", "counts", "addresses"),
    [
        pytest.param(Kind.SINGLE, (9, 0), 9, id="singles"),
        pytest.param(Kind.PREFIX, (0, 9), 144, id="prefixes"),
    ],
)
def test_a_wish_is_the_same_each_time_and_of_one_kind(
    kind: Kind, counts: tuple[int, int], addresses: int
) -> None:
    kept = json.loads(json.dumps(intent(kind=kind.value).parameters))
    wish = wish_of(kept)
    assert wish == wish_of(intent(kind=kind.value).parameters)
    assert (wish.secondary_count, wish.prefix_count) == counts
    assert wish.tags == (("a", "b"),)
    assert wished(intent(kind=kind.value)) == addresses


def test_an_adopted_eni_brings_nothing_that_was_wished() -> None:
    adopted = Intent(
        token="t", state=EniState.ATTACHED, device_index=1, parameters={"foreign": True}
    )
    assert (wished(adopted), is_foreign(adopted), is_foreign(intent())) == (0, True, False)


@pytest.mark.parametrize(
    ("state", "attachment_id", "facts"),
    [
        pytest.param(EniState.CREATED, None, (False, False), id="on-its-way-here"),
        pytest.param(EniState.ACTIVE, None, (False, True), id="the-primary-has-no-attachment"),
        pytest.param(EniState.DRAINING, AttachmentId("a-1"), (False, True), id="on-its-way-out"),
        pytest.param(EniState.DRAINING, None, (True, False), id="only-to-be-deleted"),
    ],
)
def test_an_eni_is_in_use_until_it_is_off_the_instance(
    state: EniState, attachment_id: AttachmentId | None, facts: tuple[bool, bool]
) -> None:
    eni = replace(intent(), state=state, attachment_id=attachment_id)
    assert (is_detached(eni), is_in_use(eni)) == facts


def test_what_is_noted_of_an_eni_comes_back_from_the_disk() -> None:
    what = Noted(
        IPv4Address("10.0.0.9"),
        (IPv4Network("10.0.0.10"), IPv4Network("10.0.0.16/28")),
        SubnetId("subnet-1"),
        CIDR,
    )
    eni = Eni(
        id=EniId("eni-1"),
        mac="02:00:00:00:00:01",
        subnet_id=what.subnet_id,
        status="in-use",
        description="",
        interface_type="interface",
        primary=what.primary,
        secondary=(IPv4Address("10.0.0.10"),),
        prefixes=(IPv4Network("10.0.0.16/28"),),
    )
    assert note_of(eni, CIDR) == note(what)
    assert noted(intent(eni=json.loads(json.dumps(note(what))))) == what


@pytest.mark.parametrize(
    ("used", "index"),
    [
        (set(), 1),
        ({0}, 1),
        ({0, 1, 2}, 3),
        ({0, 2}, 1),
        ({5}, 1),
        (set(range(100)), 100),
        (set(range(101)), 101),
    ],
    ids=["none", "the-primary", "dense", "a-hole", "far", "a-hundred", "a-hundred-and-one"],
)
def test_a_free_device_index_is_the_first_that_nobody_has(used: set[int], index: int) -> None:
    assert free_index(used) == index


@given(st.frozensets(st.integers(0, 200)))
def test_there_is_a_free_device_index_whatever_is_used(used: frozenset[int]) -> None:
    index = free_index(used)
    assert index not in used
    assert set(range(1, index)) <= used
