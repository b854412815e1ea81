"""What is written to Kubernetes, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.availability import Answer, Verdict
from ipamd.cluster import NodeSeen
from ipamd.kube_objects import (
    condition,
    is_tainted,
    node_path,
    resource,
    taints_patch,
    taints_wanted,
)

WALL = 1_700_000_000.0
NOW = "2023-11-14T22:13:20Z"
START, FULL = "node.enid.dev/not-ready", "node.enid.dev/no-addresses"
OURS = {"key": FULL, "value": "enid", "effect": "NoSchedule"}
OTHER = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}
YOUNG = {"key": START, "effect": "NoExecute", "timeAdded": NOW}


def seen(*taints: Mapping[str, Any]) -> NodeSeen:
    return NodeSeen(uid="u", version="7", taints=taints, condition=None, resource=None)


def test_a_name_is_part_of_a_path() -> None:
    assert node_path("ip-10-0-0-1.ec2.internal") == "/api/v1/nodes/ip-10-0-0-1.ec2.internal"


@pytest.mark.parametrize(
    ("former", "turns"),
    [
        pytest.param(None, True, id="the-first"),
        pytest.param(("False", "NodeFull"), True, id="another-status"),
        pytest.param(("True", "NodeMayGrow"), False, id="another-reason"),
    ],
)
def test_a_condition_turns_with_its_status(former: tuple[str, str] | None, turns: bool) -> None:  # noqa: FBT001 - a table's
    made = condition(Verdict(Answer.TRUE, "AddressesReady", "yes"), former, WALL)
    expected = {
        "type": "PodAddressesAvailable",
        "status": "True",
        "reason": "AddressesReady",
        "message": "yes",
        "lastHeartbeatTime": NOW,
    }
    assert made == (expected | {"lastTransitionTime": NOW} if turns else expected)


def test_a_resource_is_both_capacity_and_allocatable() -> None:
    named = {"enid.dev/pod-addresses": "27"}
    assert resource(27) == {"capacity": named, "allocatable": named}
    assert resource(None)["capacity"] == {"enid.dev/pod-addresses": None}


# Taints ----------------------------------------------------------------------------------
def wanted(*taints: Mapping[str, Any], **wish: Any) -> tuple[Mapping[str, Any], ...]:
    known: dict[str, Any] = {
        "startup": START, "is_usable": False, "exhausted": FULL, "is_exhausted": False,
    }  # fmt: skip
    return taints_wanted(taints, **known | wish)


@pytest.mark.parametrize(
    ("taints", "wish", "expected"),
    [
        pytest.param((YOUNG, OTHER), {}, (YOUNG, OTHER), id="no-address-yet"),
        pytest.param((YOUNG, OTHER), {"is_usable": True}, (OTHER,), id="the-first-address"),
        pytest.param((YOUNG,), {"is_usable": True, "startup": ""}, (YOUNG,), id="no-such-setting"),
        pytest.param((OTHER,), {"is_exhausted": True}, (OTHER, OURS), id="exhausted"),
        pytest.param((OTHER, OURS), {"is_exhausted": True}, (OTHER, OURS), id="and-it-is-there"),
        pytest.param((OURS, OTHER), {}, (OTHER,), id="no-longer"),
        pytest.param((OURS,), {"is_exhausted": True, "exhausted": ""}, (), id="turned-off"),
        pytest.param((OURS,), {"is_exhausted": True, "exhausted": "new"}, ({**OURS, "key": "new"},), id="renamed"),
        pytest.param(({**OURS, "value": "by-hand"},), {}, ({**OURS, "value": "by-hand"},), id="somebody-elses-of-that-name"),
        pytest.param((), {}, (), id="nothing"),
    ],
)  # fmt: skip
def test_the_taints_that_a_node_should_have(
    taints: tuple[Mapping[str, Any], ...], wish: dict[str, Any], expected: object
) -> None:
    assert wanted(*taints, **wish) == expected


@given(
    st.lists(st.sampled_from([OURS, OTHER, YOUNG, {"key": FULL, "effect": "NoExecute"}]), max_size=5),
    st.booleans(), st.booleans(), st.sampled_from(["", FULL, "new"]),
)  # fmt: skip
def test_taints_of_others_stay_and_twice_is_once(
    taints: list[Mapping[str, Any]], usable: bool, full: bool, name: str  # noqa: FBT001 - drawn
) -> None:  # fmt: skip
    wish = {"is_usable": usable, "is_exhausted": full, "exhausted": name}
    once = wanted(*taints, **wish)
    assert wanted(*once, **wish) == once
    assert [t for t in once if t == OTHER] == [t for t in taints if t == OTHER]
    assert is_tainted(once, name) == (full and bool(name))


def test_taints_are_replaced_as_they_were_seen() -> None:
    patch = taints_patch(seen(OTHER), (OTHER, OURS))
    assert patch == {"metadata": {"resourceVersion": "7"}, "spec": {"taints": [OTHER, OURS]}}
    assert taints_patch(seen(OURS), ())["spec"] == {"taints": None}
