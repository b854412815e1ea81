"""What the daemon hears of a cluster, whatever happens to the way there.

`server` is a model here; `tests/e2e` runs the same tests against a real kube-apiserver.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from eni.model import SecurityGroupId, SubnetId
from ipamd.availability import Answer, Verdict
from ipamd.cluster import (
    CONDITION,
    POD_IPS,
    ApiAwayError,
    ApiDeniedError,
    ClusterError,
    CredentialsUnreadableError,
    EniConfig,
    HistoryGoneError,
    Link,
    MalformedObjectError,
    ObjectAbsentError,
    OthersFirstError,
    Patch,
    UnknownToApiError,
    change,
    eni_config_names,
)
from ipamd.kube import Access, Api
from ipamd.kube_objects import NO_CONDITION, condition, taints_patch
from tests.contract.kube_suite import Account, Ears, Relay, Server, eni_config_body, poll

ENI_CONFIGS = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
LEASE = f"{LEASES}/enid-sweeper"
NUMBERS = count(1)

Listen = Callable[..., Ears]


@pytest.fixture
def node(server: Server) -> str:
    """A node that only this test has."""
    name = f"node-{next(NUMBERS)}"
    server.add_node(name)
    return name


@pytest.fixture
def account(server: Server, tmp_path: Path) -> Account:
    """The daemon's service account."""
    return Account(server, tmp_path / "account", server.new_token(f"token-{next(NUMBERS)}"))


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    """A network to the server that can be cut."""
    relay = Relay(server.port)
    yield relay
    relay.close()


@pytest.fixture
def listen(server: Server, account: Account) -> Iterator[Listen]:
    """What makes a daemon listen; all are stopped in the end."""
    all_ears: list[Ears] = []

    def listen(node: str, port: int | None = None, **more: object) -> Ears:
        api = account.api(port or server.port)
        ears = Ears(api, node, server.terms, **more)  # type: ignore[arg-type]  # Ears' own
        all_ears.append(ears)
        return ears

    yield listen
    for ears in all_ears:
        ears.stop()


# The node --------------------------------------------------------------------------------
def test_a_node_is_heard_with_all_that_the_pool_asks(
    server: Server, node: str, listen: Listen
) -> None:
    ears = listen(node)
    poll(lambda: bool(ears.view and ears.view.max_pods == 29), "the node")
    path = f"/api/v1/nodes/{node}"
    server.patch(path, {"metadata": {"labels": {"k8s.amazonaws.com/eniConfig": "zone-a"}}})
    poll(lambda: _configs(ears) == ("zone-a",), "the label")
    names = {"k8s.amazonaws.com/eniConfig": "zone-b, zone-c"}
    server.patch(path, {"metadata": {"annotations": names}})
    poll(lambda: _configs(ears) == ("zone-b", "zone-c"), "the annotation, which wins")
    server.patch(path, {"metadata": {"labels": {"vpc.amazonaws.com/externalEniConfig": "forced"}}})
    poll(lambda: _configs(ears) == ("forced",), "the controller's label, which wins over all")


def _configs(ears: Ears) -> tuple[str, ...]:
    key = "k8s.amazonaws.com/eniConfig"
    return eni_config_names(ears.view, key, key) if ears.view else ()


@pytest.mark.parametrize(
    ("cordon", "uncordon"),
    [
        pytest.param({"unschedulable": True}, {"unschedulable": None}, id="kubectl-cordon"),
        pytest.param(
            {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]},
            {"taints": None},
            id="taint",
        ),
    ],
)
def test_a_cordon_is_heard_and_its_end(
    server: Server, node: str, listen: Listen, cordon: object, uncordon: object
) -> None:
    ears = listen(node)
    poll(lambda: ears.view is not None and not ears.view.unschedulable, "the node")
    server.patch(f"/api/v1/nodes/{node}", {"spec": cordon})
    poll(lambda: ears.view is not None and ears.view.unschedulable, "the cordon")
    server.patch(f"/api/v1/nodes/{node}", {"spec": uncordon})
    poll(lambda: ears.view is not None and not ears.view.unschedulable, "its end")


def test_a_change_that_says_nothing_to_us_is_not_told(
    server: Server, node: str, listen: Listen
) -> None:
    ears = listen(node)
    poll(lambda: ears.view is not None, "the node")
    for n in range(3):
        server.patch(f"/api/v1/nodes/{node}/status", {"status": {"phase": f"beat {n}"}})
    server.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {"last": "yes"}}})
    poll(lambda: bool(ears.view and "last" in ears.view.labels), "the label")
    assert len(ears.views) == 2


def test_a_node_that_is_not_there_is_said_and_heard_when_it_comes(
    server: Server, listen: Listen
) -> None:
    ears = listen("node-late")
    poll(lambda: "node-late is not in" in ears.cluster.standing.sentence, "the sentence")
    assert ears.cluster.standing.link is Link.CONNECTED
    server.add_node("node-late")
    poll(lambda: ears.view is not None and ears.is_connected(), "the node")
    server.ask("DELETE", "/api/v1/nodes/node-late")
    poll(lambda: "was deleted" in ears.cluster.standing.sentence, "the deletion")
    assert ears.view is not None


# Pods ------------------------------------------------------------------------------------
def test_pods_that_need_an_address_are_counted(server: Server, node: str, listen: Listen) -> None:
    server.add_pod(f"{node}-before", node)
    ears = listen(node)
    poll(lambda: ears.bound == 1, "the pod that was there")
    server.add_pod(f"{node}-host", node, host_network=True)
    server.add_pod(f"{node}-elsewhere", "another-node")
    server.add_pod(f"{node}-after", node)
    poll(lambda: ears.bound == 2, "a pod that came")
    server.end_pod(f"{node}-after", "Succeeded")
    poll(lambda: ears.bound == 1, "a pod that is done")
    server.delete_pod(f"{node}-before")
    poll(lambda: ears.bound == 0, "a pod that is gone")
    assert ears.bounds == [1, 2, 1, 0]


def test_no_pod_is_told_too(node: str, listen: Listen) -> None:
    ears = listen(node)
    poll(lambda: ears.bound == 0, "none")


def test_the_count_is_right_after_history_is_gone(
    server: Server, node: str, account: Account, relay: Relay, listen: Listen
) -> None:
    for name in "abc":
        server.add_pod(f"{node}-{name}", node)
    ears = listen(node, relay.port)
    poll(lambda: ears.bound == 3, "three pods")
    query = {"fieldSelector": f"spec.nodeName={node}"}
    version = account.api(server.port).get("/api/v1/pods", query)["metadata"]["resourceVersion"]
    relay.cut()
    poll(lambda: ears.cluster.standing.link is Link.AWAY, "the network is noticed to be cut")
    server.delete_pod(f"{node}-a")
    server.delete_pod(f"{node}-b")
    server.compact()
    query["resourceVersion"] = version
    lines = [line for line in account.api(server.port).watch("/api/v1/pods", query, 5) if line]
    with pytest.raises(HistoryGoneError):  # which is what it will meet
        change(lines[0], "pods")
    assert ears.bound == 3
    relay.mend()
    poll(lambda: ears.bound == 1 and ears.is_connected(), "one pod is left")


# The way there ---------------------------------------------------------------------------
def test_a_server_that_dies_and_returns_is_heard_again(
    server: Server, node: str, listen: Listen
) -> None:
    server.add_pod(f"{node}-a", node)
    ears = listen(node)
    poll(lambda: ears.bound == 1 and ears.is_connected(), "a pod")
    server.kill()
    poll(lambda: ears.cluster.standing.link is Link.AWAY, "it is away")
    assert ears.cluster.standing.sentence
    assert (ears.bound, len(ears.views)) == (1, 1)  # the last that was heard stays
    server.start()
    poll(ears.is_connected, "it is back")
    server.add_pod(f"{node}-b", node)
    poll(lambda: ears.bound == 2, "the watch goes on")


def test_a_server_that_is_not_there_at_first_is_waited_for(
    node: str, relay: Relay, listen: Listen
) -> None:
    relay.cut()
    ears = listen(node, relay.port)
    poll(lambda: "GET /api" in ears.cluster.standing.sentence, "it says what it misses")
    relay.mend()
    poll(lambda: ears.view is not None and ears.bound == 0, "it is heard")


def test_a_watch_that_the_server_ends_goes_on(server: Server, node: str, listen: Listen) -> None:
    ears = listen(node, watch_seconds=1)
    for n in range(1, 4):
        poll(lambda n=n: ears.bound == n - 1, f"{n - 1} pods")  # type: ignore[misc]  # n is bound
        threading.Event().wait(1.2)  # longer than a watch
        server.add_pod(f"{node}-{n}", node)
    poll(lambda: ears.bound == 3, "three pods")
    assert ears.is_connected()


def test_a_token_that_is_replaced_is_read_anew(server: Server, account: Account) -> None:
    account.set_token(server.new_token("old"))
    api = account.api(server.port)
    api.get("/api/v1/nodes", {"limit": "1"})
    server.revoke("old")
    poll(lambda: not _is_known(account.api(server.port)), "the old token ends")
    with pytest.raises(UnknownToApiError, match="Unauthorized"):
        api.get("/api/v1/nodes", {"limit": "1"})
    account.set_token(server.new_token("new"))
    api.get("/api/v1/nodes", {"limit": "1"})


def _is_known(api: Api) -> bool:
    try:
        api.get("/api/v1/nodes", {"limit": "1"})
    except UnknownToApiError:
        return False
    return True


def test_a_daemon_lives_through_the_end_of_its_token(
    server: Server, node: str, account: Account, listen: Listen
) -> None:
    account.set_token(server.new_token("ends"))
    ears = listen(node, watch_seconds=1)
    poll(lambda: ears.bound == 0, "it listens")
    server.revoke("ends")
    poll(lambda: "Unauthorized" in ears.cluster.standing.sentence, "it is no longer known")
    account.set_token(server.new_token("follows"))
    server.add_pod(f"{node}-a", node)
    poll(lambda: ears.bound == 1 and ears.is_connected(), "it is known again")


@pytest.mark.parametrize(
    ("kubeconfig", "words"),
    [
        pytest.param(None, "Invalid kube-config file", id="no-file"),
        pytest.param("{", "not YAML", id="no-yaml"),
        pytest.param("a: b", "Invalid kube-config file", id="no-kubeconfig"),
        pytest.param("- 1", "credentials in", id="a-list"),
    ],
)
def test_a_kubeconfig_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, kubeconfig: str | None, words: str
) -> None:
    path = tmp_path / "kubeconfig"
    if kubeconfig is not None:
        path.write_text(kubeconfig)
    with pytest.raises(CredentialsUnreadableError, match=words) as caught:
        Api(Access(environ={"KUBECONFIG": str(path)})).get("/version")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pod_without_its_account_is_one_sentence(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    with pytest.raises(CredentialsUnreadableError, match="token file does not exist"):
        Api(Access(environ=environ, folder=tmp_path)).get("/version")


def test_a_kubeconfig_leads_to_the_server(server: Server, account: Account, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(f"""
current-context: here
contexts: [{{name: here, context: {{cluster: here, user: enid}}}}]
clusters: [{{name: here, cluster: {{server: "https://127.0.0.1:{server.port}", certificate-authority: {server.ca}}}}}]
users: [{{name: enid, user: {{tokenFile: {account.folder / "token"}}}}}]
""")
    api = Api(Access(environ={"KUBECONFIG": str(path), "no_proxy": "127.0.0.1"}))
    assert api.get("/api/v1/nodes", {"limit": "1"})["items"]


def test_stop_waits_for_no_watch(node: str, listen: Listen) -> None:
    before = {thread for thread in threading.enumerate() if thread.name.startswith("kube ")}
    ears = listen(node)
    poll(lambda: ears.bound == 0 and ears.view is not None, "it listens")
    assert ears.stop() < 1
    poll(
        lambda: {t for t in threading.enumerate() if t.name.startswith("kube ")} <= before,
        "its threads end",
    )


class Mistaken(Api):
    """An API whose answers nobody foresaw."""

    def get(self, *_: object, **__: object) -> object:
        raise KeyError("surprise")


def test_what_nobody_foresaw_ends_nothing(account: Account, server: Server) -> None:
    ears = Ears(Mistaken(account.api(server.port).access), "any", server.terms)
    try:
        poll(lambda: "KeyError('surprise')" in ears.cluster.standing.sentence, "it is said")
        assert not ears.leads
    finally:
        ears.stop()


# ENIConfigs ------------------------------------------------------------------------------
def test_an_eni_config_is_read_by_name(server: Server, node: str, listen: Listen) -> None:
    spec = {"subnet": "subnet-0a1b", "securityGroups": ["sg-0a", "sg-0b"]}
    server.ask("POST", ENI_CONFIGS, eni_config_body("zone-a", spec))
    groups = (SecurityGroupId("sg-0a"), SecurityGroupId("sg-0b"))
    found = listen(node).cluster.eni_config("zone-a")
    assert found == EniConfig(name="zone-a", subnet=SubnetId("subnet-0a1b"), security_groups=groups)


def test_an_eni_config_that_is_not_there_is_named(node: str, listen: Listen) -> None:
    with pytest.raises(ObjectAbsentError, match='"nowhere" not found'):
        listen(node).cluster.eni_config("nowhere")


def test_a_malformed_eni_config_is_one_sentence(server: Server, node: str, listen: Listen) -> None:
    server.ask("POST", ENI_CONFIGS, eni_config_body("torn", {"subnet": ["subnet-0a"]}))
    with pytest.raises(
        MalformedObjectError, match=r"^ENIConfig torn: spec.subnet is .*, not a text$"
    ):
        listen(node).cluster.eni_config("torn")


# Writing -----------------------------------------------------------------------------------
NOW = 1_700_000_000.0
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "it is"}


def _conditions(server: Server, node: str) -> dict[str, dict[str, str]]:
    status = server.ask("GET", f"/api/v1/nodes/{node}")["status"]
    return {condition["type"]: condition for condition in status.get("conditions", ())}


def test_a_condition_is_merged_with_those_of_others_and_taken_away_alone(
    server: Server, node: str, account: Account
) -> None:
    api, path = account.api(server.port), f"/api/v1/nodes/{node}/status"
    server.patch(path, {"status": {"conditions": [READY]}})
    ours = condition(Verdict(Answer.TRUE, "AddressesReady", "yes"), None, NOW)
    api.patch(path, {"status": {"conditions": [ours]}}, Patch.STRATEGIC)
    worse = condition(Verdict(Answer.TRUE, "NodeMayGrow", "soon"), ("True", "x"), NOW + 60)
    api.patch(path, {"status": {"conditions": [worse]}}, Patch.STRATEGIC)
    found = _conditions(server, node)
    assert set(found) == {"Ready", CONDITION}
    assert found[CONDITION] == {**ours, **worse}, "its transition is that of its status"
    api.patch(path, {"status": {"conditions": [NO_CONDITION]}}, Patch.STRATEGIC)
    assert set(_conditions(server, node)) == {"Ready"}


def test_who_writes_the_status_changes_nothing_else(
    server: Server, node: str, account: Account
) -> None:
    before = server.ask("GET", f"/api/v1/nodes/{node}")["spec"]
    body = {"spec": {"taints": [], "unschedulable": True}, "status": {"conditions": [READY]}}
    path = f"/api/v1/nodes/{node}/status"
    account.api(server.port).patch(path, body, Patch.STRATEGIC)
    assert server.ask("GET", f"/api/v1/nodes/{node}")["spec"] == before
    assert set(_conditions(server, node)) == {"Ready"}


def test_taints_are_replaced_unless_somebody_was_first(
    server: Server, node: str, account: Account, listen: Listen
) -> None:
    ears, path = listen(node), f"/api/v1/nodes/{node}"
    poll(lambda: ears.cluster.seen is not None, "the node")
    seen = ears.cluster.seen
    assert seen is not None
    ours = {"key": "x", "value": "enid", "effect": "NoSchedule"}
    theirs = {"key": "y", "effect": "NoSchedule"}
    server.patch(path, {"spec": {"taints": [*seen.taints, theirs]}})
    api = account.api(server.port)
    with pytest.raises(OthersFirstError):
        api.patch(path, taints_patch(seen, (*seen.taints, ours)), Patch.MERGE)
    poll(lambda: (now := ears.cluster.seen) is not None and theirs in now.taints, "their taint")
    seen = ears.cluster.seen
    assert seen is not None
    api.patch(path, taints_patch(seen, (theirs, ours)), Patch.MERGE)
    assert server.ask("GET", path)["spec"]["taints"] == [theirs, ours]
    poll(lambda: (now := ears.cluster.seen) is not None and ours in now.taints, "our taint")
    seen = ears.cluster.seen
    assert seen is not None
    api.patch(path, taints_patch(seen, ()), Patch.MERGE)
    assert "taints" not in server.ask("GET", path)["spec"]


def test_a_pod_is_annotated_unless_another_one_has_its_name(
    server: Server, node: str, listen: Listen
) -> None:
    made = server.add_pod(f"{node}-a", node)
    ears = listen(node)
    poll(lambda: ears.bound == 1, "the pod")
    (pod,) = ears.cluster.pods.values()
    assert (pod.uid, pod.name, pod.pod_ips) == (made["metadata"]["uid"], f"{node}-a", None)
    ears.annotate(pod, {POD_IPS: "10.0.0.7"})
    poll(lambda: [p.pod_ips for p in ears.cluster.pods.values()] == ["10.0.0.7"], "our annotation")
    another = replace(pod, uid="00000000-0000-0000-0000-000000000000")
    with pytest.raises(OthersFirstError, match=r"metadata\.uid"):
        ears.annotate(another, {POD_IPS: ""})
    server.delete_pod(pod.name)
    with pytest.raises(ObjectAbsentError):
        ears.annotate(pod, {POD_IPS: ""})
    assert ears.is_connected(), "neither is anything to be said"


def test_a_node_is_seen_with_what_we_write_of_it(server: Server, node: str, listen: Listen) -> None:
    ears = listen(node)
    poll(lambda: ears.cluster.seen is not None, "the node")
    found = server.ask("GET", f"/api/v1/nodes/{node}")["metadata"]
    first = ears.cluster.seen
    assert first is not None
    born = ({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},)
    assert (first.uid, first.condition, first.taints) == (found["uid"], None, born)
    ours = condition(Verdict(Answer.FALSE, "NodeFull", "no"), None, NOW)
    server.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": [READY, ours]}})
    taint = {"key": "x", "value": "y", "effect": "NoSchedule"}
    server.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": [taint]}})
    poll(lambda: (now := ears.cluster.seen) is not None and now.taints == (taint,), "the taint")
    last = ears.cluster.seen
    assert last is not None
    assert last.condition == ("False", "NodeFull")
    assert len(ears.views) == 1, "it says nothing new to the pool"


# The account's rights --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "verb"),
    [
        pytest.param("/api/v1/secrets", "list", id="secrets"),
        pytest.param("/apis/coordination.k8s.io/v1/leases", "list", id="all-leases"),
        pytest.param(f"{LEASES}/another", "get", id="anothers-lease"),
        pytest.param("/api/v1/namespaces/kube-system/pods/any", "get", id="a-pod"),
        pytest.param("/api/v1/namespaces/default/events", "list", id="events"),
    ],
)
def test_the_account_may_do_no_more_than_it_does(
    server: Server, account: Account, path: str, verb: str
) -> None:
    with pytest.raises(ApiDeniedError, match=f"cannot {verb} resource"):
        account.api(server.port).get(path)


def test_what_is_denied_is_said_and_the_rest_is_heard(node: str, listen: Listen) -> None:
    ears = listen(node, namespace="default")
    poll(lambda: ears.bound == 0 and ears.view is not None, "node and pods")
    poll(lambda: "cannot get resource" in ears.cluster.standing.sentence, "the sentence")
    assert ears.cluster.standing.link is Link.CONNECTED
    assert not ears.leads


# The election ----------------------------------------------------------------------------
@pytest.fixture
def no_lease(server: Server) -> Iterator[None]:
    """Nobody has been elected yet; nobody is afterwards."""
    _delete_lease(server)
    yield
    _delete_lease(server)


def _delete_lease(server: Server) -> None:
    try:
        server.ask("DELETE", LEASE)
    except AssertionError:
        return  # there is none


@pytest.mark.usefixtures("no_lease")
def test_of_two_one_leads_and_the_other_follows_its_death(
    server: Server, node: str, listen: Listen
) -> None:
    server.add_node(other := f"{node}-other")
    ears = {name: listen(name) for name in (node, other)}
    poll(lambda: any(e.leads for e in ears.values()), "one is elected")
    leader = next(name for name, e in ears.items() if e.leads)
    follower = other if leader == node else node
    lease = server.ask("GET", LEASE)
    assert lease["spec"]["holderIdentity"] == leader
    assert not ears[follower].leads
    ears[leader].stop()  # a daemon that ends gives nothing back, as one that is killed
    poll(lambda: ears[follower].leads, "the other takes over")
    after = server.ask("GET", LEASE)["spec"]
    assert (after["holderIdentity"], after["leaseTransitions"]) == (follower, 1)
    assert not ears[leader].leads


@pytest.mark.usefixtures("no_lease")
def test_a_leader_that_is_cut_off_ends_before_the_next_begins(
    server: Server, node: str, relay: Relay, listen: Listen
) -> None:
    ears = listen(node, relay.port)
    poll(lambda: ears.leads, "it is elected")
    server.add_node(other := f"{node}-other")
    rival = listen(other)
    relay.cut()
    poll(lambda: rival.leads, "the other takes over")
    poll(lambda: ears.leaders == [True, False], "the first one has ended")
    assert ears.cluster.leads_until < rival.led_since
    relay.mend()
    poll(ears.is_connected, "it is back")
    assert (ears.leads, rival.leads) == (False, True)


@pytest.mark.usefixtures("no_lease")
def test_a_lease_that_somebody_deletes_is_made_anew(
    server: Server, node: str, listen: Listen
) -> None:
    ears = listen(node)
    poll(lambda: ears.leads, "it is elected")
    _delete_lease(server)
    poll(lambda: _holder(server) == node, "the lease is there again")
    poll(lambda: ears.leaders == [True, False, True], "it leads again, after its trial")


def _holder(server: Server) -> str:
    try:
        return str(server.ask("GET", LEASE)["spec"]["holderIdentity"])
    except AssertionError:
        return ""


@pytest.mark.usefixtures("no_lease")
def test_all_learn_how_many_nodes_there_are(server: Server, node: str, listen: Listen) -> None:
    nodes = len(server.ask("GET", "/api/v1/nodes")["items"])
    assert nodes > 1
    server.add_node(other := f"{node}-other")
    both = (listen(node), listen(other))
    poll(lambda: all(e.nodes[-1:] == [nodes + 1] for e in both), "both know")
    server.ask("DELETE", f"/api/v1/nodes/{other}")
    poll(lambda: all(e.nodes[-1:] == [nodes] for e in both), "both know of one less")


@pytest.mark.usefixtures("no_lease")
def test_of_two_who_write_the_first_wins(server: Server, account: Account) -> None:
    api = account.api(server.port)
    body = {
        "metadata": {"name": "enid-sweeper"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 3},
    }
    first = api.create(LEASES, body)
    with pytest.raises(OthersFirstError):
        api.create(LEASES, body)
    second = api.replace(LEASE, {**first, "spec": {**first["spec"], "holderIdentity": "b"}})
    assert second["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    with pytest.raises(OthersFirstError):
        api.replace(LEASE, {**first, "spec": {**first["spec"], "holderIdentity": "c"}})
    assert api.get(LEASE)["spec"]["holderIdentity"] == "b"


def test_every_failure_is_of_one_family() -> None:
    assert issubclass(OthersFirstError, ClusterError)


# The client --------------------------------------------------------------------------------
def test_a_host_that_needs_no_proxy_is_asked_without_one(
    server: Server, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    api = account.api(server.port)
    assert api.get("/api/v1/nodes", {"limit": "1"})
    environ = {k: v for k, v in api.access.environ.items() if k != "NO_PROXY"}
    with pytest.raises(ApiAwayError, match="proxy"):
        Api(Access(environ=environ, folder=account.folder)).get("/api/v1/nodes", {"limit": "1"})


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param("import ipamd.node", "not [n for n in loaded if n.startswith('kubernetes')]", id="plain-mode-loads-none-of-it"),
        pytest.param("import ipamd.watch", "not [n for n in loaded if n.startswith(('kubernetes.client.api', 'kubernetes.client.models'))]", id="a-cluster-loads-no-model"),
        pytest.param("import ipamd.watch; import kubernetes", "kubernetes.client.CoreV1Api and kubernetes.client.V1Pod and kubernetes.config.load_kube_config", id="who-wants-the-whole-package-has-it"),
    ],
)  # fmt: skip
def test_what_is_loaded(first: str, then: str) -> None:
    program = f"import sys; {first}; loaded = tuple(sys.modules); assert {then}"
    subprocess.run([sys.executable, "-c", program], check=True)
