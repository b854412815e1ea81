"""What is written to Kubernetes, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.spec import Pod, Sandbox
from eni.model import EniId
from ipamd.availability import Answer, Verdict
from ipamd.cluster import NodeSeen, PodView
from ipamd.kube_objects import (
    annotations_patch,
    condition,
    is_tainted,
    node_path,
    notes_due,
    notes_seen,
    pod_path,
    pod_texts,
    resource,
    taints_patch,
    taints_wanted,
)
from ipamd.lease import LeaseRow

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


# Pods ------------------------------------------------------------------------------------
def lease(uid: str, started: int, *addresses: str) -> LeaseRow:
    return LeaseRow(
        sandbox=Sandbox("enid", f"c-{started}", "eth0"),
        pod=Pod("prod", "web-0", uid),
        addresses=tuple(map(IPv4Address, addresses)),
        eni_id=EniId("eni-0a"),
        eni_number=1,
        netns=None,
        started_ns=started,
        since=0.0,
    )


def pod(uid: str = "u-1", noted: str | None = None) -> PodView:
    return PodView(
        uid=uid, node="n", host_network=False, phase="Running", namespace="prod", name="web-0",
        pod_ips=noted,
    )  # fmt: skip


def test_a_pod_has_the_addresses_of_its_newest_sandbox() -> None:
    rows = (
        lease("u-1", 2, "10.0.0.8", "10.0.0.9"),
        lease("u-1", 1, "10.0.0.7"),
        lease("", 3, "10.0.0.6"),
    )
    assert pod_texts(rows) == {"u-1": "10.0.0.8,10.0.0.9"}


@pytest.mark.parametrize(
    ("noted", "texts", "said", "text"),
    [
        pytest.param(None, {"u-1": "10.0.0.7"}, {}, "10.0.0.7", id="an-add"),
        pytest.param("", {"u-1": "10.0.0.7"}, {"u-1": ""}, "10.0.0.7", id="another-sandbox"),
        pytest.param(None, {"u-1": "10.0.0.7"}, {"u-1": "10.0.0.7"}, None, id="the-watch-is-late"),
        pytest.param("10.0.0.7", {"u-1": "10.0.0.7"}, {}, None, id="a-former-life-wrote-it"),
        pytest.param("10.0.0.7", {}, {"u-1": "10.0.0.7"}, "", id="a-del"),
        pytest.param("10.0.0.7", {}, {"u-1": ""}, None, id="a-del-and-the-watch-is-late"),
        pytest.param("10.0.0.7", {}, {}, None, id="another-cnis-pod"),
        pytest.param(None, {}, {}, None, id="not-added-yet"),
        pytest.param(None, {"u-2": "10.0.0.7"}, {}, None, id="another-pods-lease"),
    ],
)  # fmt: skip
def test_which_annotation_is_to_be_written(
    noted: str | None, texts: dict[str, str], said: dict[str, str], text: str | None
) -> None:
    expected = [] if text is None else [(pod(noted=noted), text)]
    assert list(notes_due([pod(noted=noted)], texts, said)) == expected


def test_what_a_former_life_wrote_is_known_to_be_ours() -> None:
    pods = [pod("u-1", "10.0.0.7"), pod("u-2", "10.0.0.8"), pod("u-3"), pod("u-4", "")]
    texts = {"u-1": "10.0.0.7", "u-2": "10.0.0.9"}
    assert notes_seen(pods, texts) == {"u-1": "10.0.0.7"}


def test_an_annotation_is_that_very_pods() -> None:
    assert pod_path(pod()) == "/api/v1/namespaces/prod/pods/web-0"
    patch = annotations_patch(pod(), {"a": "b"})
    assert patch == {"metadata": {"uid": "u-1", "annotations": {"a": "b"}}}
