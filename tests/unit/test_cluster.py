"""What is read from Kubernetes' objects, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.cluster import (
    BACKOFF_MOST_SECONDS,
    ApiAwayError,
    ApiDeniedError,
    ApiRefusedError,
    Bookmark,
    Change,
    ClusterError,
    EniConfig,
    Gone,
    HistoryGoneError,
    LeaseView,
    Listing,
    MalformedObjectError,
    NodeSeen,
    NodeView,
    ObjectAbsentError,
    OthersFirstError,
    PodView,
    Put,
    UnknownToApiError,
    backoff_seconds,
    change,
    eni_config,
    eni_config_names,
    eni_config_place,
    failure,
    is_configured,
    lease_view,
    listing,
    node_seen,
    node_view,
    pod_view,
    pods_bound,
)

KEY = "k8s.amazonaws.com/eniConfig"
FORCED = "vpc.amazonaws.com/externalEniConfig"
TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("environ", "there"),
    [
        pytest.param({}, False, id="plain-mode"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "", "KUBECONFIG": ""}, False, id="empty-is-unset"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True, id="in-a-pod"),
        pytest.param({"KUBECONFIG": "/x"}, True, id="kubeconfig"),
    ],
)
def test_a_cluster_is_there_if_the_environment_says_so(
    environ: dict[str, str], *, there: bool
) -> None:
    assert is_configured(environ) is there


# Node ------------------------------------------------------------------------------------
def node(**parts: object) -> dict[str, object]:
    return {"metadata": {"name": "n1"}, **parts}


@pytest.mark.parametrize(
    ("found", "unschedulable", "max_pods"),
    [
        pytest.param(node(), False, None, id="bare"),
        pytest.param(node(spec=None, status={"capacity": None}), False, None, id="null-is-absent"),
        pytest.param(node(spec={"unschedulable": True}), True, None, id="cordoned"),
        pytest.param(node(spec={"taints": [{"key": "x"}, TAINT]}), True, None, id="tainted"),
        pytest.param(node(spec={"taints": [{"key": "x"}]}), False, None, id="other-taint"),
        pytest.param(node(status={"capacity": {"pods": "29"}}), False, 29, id="room"),
    ],
)  # fmt: skip
def test_a_node_is_read(found: object, *, unschedulable: bool, max_pods: int | None) -> None:
    view = node_view(found)
    assert (view.name, view.unschedulable, view.max_pods) == ("n1", unschedulable, max_pods)


def test_a_node_has_its_labels_and_annotations() -> None:
    metadata = {"name": "n1", "labels": {"a": "b"}, "annotations": {"c": "d"}}
    view = node_view({"metadata": metadata})
    assert (view.labels, view.annotations) == ({"a": "b"}, {"c": "d"})


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "Node: metadata.name is missing"),
        ("text", "Node: what holds metadata.name is 'text', not an object"),
        ({"metadata": {"name": ""}}, "Node: metadata.name is missing"),
        ({"metadata": {"name": 7}}, "Node: metadata.name is 7, not a text"),
        (node(spec=[]), "Node n1: what holds spec.taints is [], not an object"),
        (node(spec={"taints": "x"}), "Node n1: spec.taints is 'x', not a list"),
        (node(spec={"taints": ["x"]}), "Node n1: what holds key is 'x', not an object"),
        (node(spec={"unschedulable": "yes"}), "Node n1: spec.unschedulable is 'yes', not true or false"),
        ({"metadata": {"name": "n1", "labels": ["a"]}}, "Node n1: metadata.labels is ['a'], not an object"),
        ({"metadata": {"name": "n1", "labels": {"a": 1}}}, "Node n1: metadata.labels['a'] is 1, not a text"),
        (node(status={"capacity": {"pods": 29}}), "Node n1: status.capacity.pods is 29, not a text"),
        (node(status={"capacity": {"pods": "1k"}}), "Node n1: status.capacity.pods is '1k', not a whole number"),
        (node(status={"capacity": {"pods": "²"}}), "Node n1: status.capacity.pods is '²', not a whole number"),
    ],
)  # fmt: skip
def test_a_malformed_node_is_one_sentence(found: object, sentence: str) -> None:
    with pytest.raises(MalformedObjectError) as caught:
        node_view(found)
    assert str(caught.value) == sentence


def test_what_we_write_of_a_node_is_read() -> None:
    taint = {"key": "x", "effect": "NoSchedule"}
    conditions = [
        {"type": "Ready", "status": "True"},
        {"type": "PodAddressesAvailable", "status": "False", "reason": "NodeFull"},
    ]
    capacity = {"pods": "29", "enid.dev/pod-addresses": "27"}
    found = {
        "metadata": {"name": "n1", "uid": "u-1", "resourceVersion": "7"},
        "spec": {"taints": [taint]},
        "status": {"conditions": conditions, "capacity": capacity},
    }
    assert node_seen(found) == NodeSeen(
        uid="u-1", version="7", taints=(taint,), condition=("False", "NodeFull"), resource="27"
    )


def test_a_node_of_which_nothing_is_written_yet_is_read() -> None:
    found = {"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready"}]}}
    assert node_seen(found) == NodeSeen(
        uid="", version="", taints=(), condition=None, resource=None
    )


def test_a_condition_without_words_is_read() -> None:
    status = {"conditions": [{"type": "PodAddressesAvailable"}]}
    assert node_seen({"metadata": {"name": "n1"}, "status": status}).condition == ("", "")


# ENIConfig -------------------------------------------------------------------------------
def config(spec: object) -> dict[str, object]:
    return {"metadata": {"name": "zone-a"}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "subnet", "groups"),
    [
        pytest.param({"subnet": "subnet-0a", "securityGroups": ["sg-1", "sg-2"]}, "subnet-0a", ("sg-1", "sg-2"), id="both"),
        pytest.param({"subnet": "subnet-0a"}, "subnet-0a", (), id="no-groups-are-the-primary-ones"),
        pytest.param({"securityGroups": ["sg-1"]}, None, ("sg-1",), id="no-subnet-is-the-primary-one"),
        pytest.param({"subnet": "", "securityGroups": None}, None, (), id="empty-is-absent"),
        pytest.param(None, None, (), id="no-spec"),
        pytest.param({"securityGroups": ["sg-1", "sg-1"]}, None, ("sg-1",), id="twice-is-once"),
        pytest.param({"subnet": "subnet-0a", "more": 1}, "subnet-0a", (), id="what-we-do-not-know"),
    ],
)  # fmt: skip
def test_an_eni_config_is_read(spec: object, subnet: str | None, groups: tuple[str, ...]) -> None:
    found = eni_config(config(spec))
    assert found == EniConfig(name="zone-a", subnet=subnet, security_groups=groups)  # type: ignore[arg-type]  # NewTypes


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"subnet": ["subnet-0a"]}, "ENIConfig zone-a: spec.subnet is ['subnet-0a'], not a text"),
        ({"subnet": "private-a"}, "ENIConfig zone-a: spec.subnet is 'private-a', not an id like subnet-0a1b2c"),
        ({"subnet": "subnet-"}, "ENIConfig zone-a: spec.subnet is 'subnet-', not an id like subnet-0a1b2c"),
        ({"securityGroups": "sg-1"}, "ENIConfig zone-a: spec.securityGroups is 'sg-1', not a list"),
        ({"securityGroups": ["sg-1", 2]}, "ENIConfig zone-a: spec.securityGroups[1] is 2, not an id like sg-0a1b2c"),
        ("x", "ENIConfig zone-a: what holds spec.subnet is 'x', not an object"),
    ],
)  # fmt: skip
def test_a_malformed_eni_config_is_one_sentence(spec: object, sentence: str) -> None:
    with pytest.raises(MalformedObjectError) as caught:
        eni_config(config(spec))
    assert str(caught.value) == sentence


def view(labels: dict[str, str], annotations: dict[str, str]) -> NodeView:
    return NodeView(
        name="n1", labels=labels, annotations=annotations, unschedulable=False, max_pods=None
    )


@pytest.mark.parametrize(
    ("labels", "annotations", "names"),
    [
        pytest.param({}, {}, ("default",), id="none-is-default"),
        pytest.param({KEY: "label"}, {}, ("label",), id="label"),
        pytest.param({KEY: "label"}, {KEY: "note"}, ("note",), id="annotation-wins-over-label"),
        pytest.param(
            {KEY: "label", FORCED: "rc"}, {KEY: "note"}, ("rc",), id="controllers-label-wins"
        ),
        pytest.param({KEY: "label"}, {KEY: ""}, ("label",), id="empty-is-absent"),
        pytest.param({KEY: "label"}, {KEY: " , "}, ("label",), id="commas-alone-are-empty"),
        pytest.param({}, {KEY: "a, b,a,"}, ("a", "b"), id="fail-over-in-order-each-once"),
        pytest.param({}, {"other": "note"}, ("default",), id="another-annotation"),
    ],
)
def test_which_eni_configs_a_node_has(
    labels: dict[str, str], annotations: dict[str, str], names: tuple[str, ...]
) -> None:
    assert eni_config_names(view(labels, annotations), KEY, KEY) == names


@pytest.mark.parametrize(
    ("labels", "annotations", "place"),
    [
        pytest.param({}, {}, f"no label {KEY} of Node n1", id="none"),
        pytest.param({KEY: "a"}, {KEY: ","}, f"label {KEY} of Node n1", id="label"),
        pytest.param({KEY: "a"}, {KEY: "b"}, f"annotation {KEY} of Node n1", id="annotation"),
        pytest.param({FORCED: "a"}, {KEY: "b"}, f"label {FORCED} of Node n1", id="controllers"),
    ],
)
def test_where_a_node_names_them(
    labels: dict[str, str], annotations: dict[str, str], place: str
) -> None:
    assert eni_config_place(view(labels, annotations), KEY, KEY) == place


@pytest.mark.parametrize("name", ["../pods", "Zone-A", "a b", "-a", "a" * 254])
def test_what_cannot_be_a_name_is_said(name: str) -> None:
    with pytest.raises(MalformedObjectError, match=rf"^Node n1: annotation {KEY} names "):
        eni_config_names(view({}, {KEY: f"good,{name}"}), KEY, KEY)


# Pods ------------------------------------------------------------------------------------
def pod(phase: str = "Running", node: str = "n1", *, host_network: bool = False) -> PodView:
    return PodView(uid="u", node=node, host_network=host_network, phase=phase)


@pytest.mark.parametrize(
    ("found", "bound"),
    [
        pytest.param(pod(), 1, id="running"),
        pytest.param(pod("Pending"), 1, id="pending"),
        pytest.param(pod(""), 1, id="no-status-yet"),
        pytest.param(pod("Unknown"), 1, id="unknown"),
        pytest.param(pod("Succeeded"), 0, id="succeeded"),
        pytest.param(pod("Failed"), 0, id="failed"),
        pytest.param(pod(host_network=True), 0, id="host-network"),
        pytest.param(pod(node="n2"), 0, id="elsewhere"),
        pytest.param(pod(node=""), 0, id="nowhere-yet"),
    ],
)
def test_which_pods_are_bound(found: PodView, bound: int) -> None:
    assert pods_bound([found], "n1") == bound


def test_a_pod_is_read() -> None:
    found = {
        "metadata": {"name": "p", "namespace": "d", "uid": "u-1", "deletionTimestamp": "now"},
        "spec": {"nodeName": "n1", "hostNetwork": True},
        "status": {"phase": "Pending"},
    }
    assert pod_view(found) == PodView(
        uid="u-1", node="n1", host_network=True, phase="Pending", namespace="d", name="p"
    )
    annotations = {"vpc.amazonaws.com/pod-ips": "10.0.0.7", "other": "x"}
    noted = {**found, "metadata": {"name": "p", "uid": "u-1", "annotations": annotations}}
    assert pod_view(noted).pod_ips == "10.0.0.7"


def test_a_pod_that_is_being_deleted_counts_until_it_is_gone() -> None:
    found = {
        "metadata": {"name": "p", "uid": "u", "deletionTimestamp": "now"},
        "spec": {"nodeName": "n1"},
    }
    assert pods_bound([pod_view(found)], "n1") == 1


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"metadata": {"name": "p", "namespace": "d"}}, "Pod d/p: metadata.uid is missing"),
        (
            {"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"hostNetwork": 1}},
            "Pod d/p: spec.hostNetwork is 1, not true or false",
        ),
    ],
)
def test_a_malformed_pod_is_one_sentence(found: object, sentence: str) -> None:
    with pytest.raises(MalformedObjectError) as caught:
        pod_view(found)
    assert str(caught.value) == sentence


# Lease -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("note", "nodes"),
    [("12", 12), ("", None), ("many", None), ("-1", None), ("٣", None)],
    ids=["number", "none-yet", "word", "below-zero", "other-digits"],
)
def test_a_lease_is_read(note: str, nodes: int | None) -> None:
    found = {
        "metadata": {"name": "l", "resourceVersion": "7", "annotations": {"enid.dev/nodes": note}},
        "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 60, "leaseTransitions": 2},
    }
    assert lease_view(found) == LeaseView(
        version="7", holder="n1", seconds=60, transitions=2, nodes=nodes
    )


def test_a_lease_may_be_empty() -> None:
    empty = LeaseView(version="", holder="", seconds=0, transitions=0, nodes=None)
    assert lease_view({"metadata": {"name": "l"}}) == empty


# Lists and watches -----------------------------------------------------------------------
def test_a_list_says_how_many_there_are_beyond_its_limit() -> None:
    found = {"metadata": {"resourceVersion": "9", "remainingItemCount": 41}, "items": [{"a": 1}]}
    assert listing(found, "nodes") == Listing(({"a": 1},), "9", 42)
    assert listing({"metadata": {}}, "nodes") == Listing((), "", 0)


THING = {"metadata": {"resourceVersion": "5"}}


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("ADDED", Put("5", THING)),
        ("MODIFIED", Put("5", THING)),
        ("DELETED", Gone("5", THING)),
        ("BOOKMARK", Bookmark("5")),
    ],
)
def test_a_line_of_a_watch_is_a_change(word: str, found: Change) -> None:
    assert change(json.dumps({"type": word, "object": THING}).encode(), "pods") == found


@pytest.mark.parametrize(
    ("line", "kind", "sentence"),
    [
        (b"{", MalformedObjectError, "watch of pods: b'{' is not JSON"),
        (b"[]", MalformedObjectError, "watch of pods: what holds type is [], not an object"),
        (b"{}", MalformedObjectError, "watch of pods: type is None, which is no kind of change"),
        (b'{"type": "ERROR", "object": {"code": 410, "message": "too old"}}', HistoryGoneError, "watch of pods: too old (410)"),
        (b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}', ApiAwayError, "watch of pods: etcd (500)"),
        (b'{"type": "ERROR"}', ApiAwayError, "watch of pods: no message"),
    ],
)  # fmt: skip
def test_what_goes_wrong_with_a_watch_is_said(
    line: bytes, kind: type[ClusterError], sentence: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        change(line, "pods")
    assert (type(caught.value), str(caught.value)) == (kind, sentence)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0, ApiAwayError), (301, ApiAwayError), (400, ApiRefusedError), (401, UnknownToApiError),
        (403, ApiDeniedError), (404, ObjectAbsentError), (408, ApiAwayError), (409, OthersFirstError),
        (410, HistoryGoneError), (422, ApiRefusedError), (429, ApiAwayError), (500, ApiAwayError),
        (503, ApiAwayError), (504, ApiAwayError),
    ],
)  # fmt: skip
def test_a_status_has_one_meaning(status: int, kind: type[ClusterError]) -> None:
    assert type(failure(status, "words", "GET /x")) is kind


def complaint(read: Callable[[object], object], found: object) -> str:
    try:
        read(found)
    except ClusterError as error:
        return str(error)
    return ""


@given(json_values)
def test_whatever_is_read_is_a_value_or_one_sentence(found: object) -> None:
    for read in (node_view, eni_config, pod_view, lease_view):
        assert "\n" not in complaint(read, found)
    line = json.dumps(found).encode()
    assert "\n" not in complaint(lambda _: change(line, "pods"), None)


@given(json_values)
def test_whatever_stands_in_an_eni_config_is_a_value_or_names_it(spec: object) -> None:
    sentence = complaint(eni_config, config(spec))
    assert not sentence or sentence.startswith("ENIConfig zone-a: ")


# Waiting ---------------------------------------------------------------------------------
@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_is_random_and_bounded(failures: int, jitter: float) -> None:
    assert 0 <= backoff_seconds(failures, jitter) <= BACKOFF_MOST_SECONDS
    assert backoff_seconds(failures, jitter) <= backoff_seconds(failures + 1, jitter)


def test_waits_double() -> None:
    waits = [backoff_seconds(n, 1.0) for n in range(1, 9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
