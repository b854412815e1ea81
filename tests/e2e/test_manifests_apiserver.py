"""The manifests against a real API server: it takes each, and node-a's token cannot touch node-b."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
import yaml

from ipamd import kube_events
from tests.contract.kube_suite import poll
from tests.e2e.apiserver import ACCOUNT, ROLE, ApiServer
from tests.tools.chart import MANIFESTS

OBJECTS = [
    found
    for path in sorted(MANIFESTS.glob("*.yaml"))
    for found in yaml.safe_load_all(path.read_text())
    if found
]
PLURALS = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}
NODE_NETWORKS = "/apis/enid.dev/v1alpha1/nodenetworks"
RECORD = {"apiVersion": "enid.dev/v1alpha1", "kind": "NodeNetwork"}
POLICY = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def path_of(found: dict[str, Any]) -> str:
    group, space = found["apiVersion"], found["metadata"].get("namespace")
    root = f"/api/{group}" if group == "v1" else f"/apis/{group}"
    kind = PLURALS.get(found["kind"], f"{found['kind'].lower()}s")
    return f"{root}{f'/namespaces/{space}' if space else ''}/{kind}/{found['metadata']['name']}"


def apply(server: ApiServer, found: dict[str, Any], query: str) -> Any:
    """Apply as `kubectl apply --server-side` does, with every field checked."""
    query = f"?fieldManager=test&force=true&fieldValidation=Strict{query}"
    return server.ask("PATCH", f"{path_of(found)}{query}", found, "apply-patch+yaml")


@pytest.mark.parametrize("found", OBJECTS, ids=lambda found: found["kind"])
def test_the_server_takes_it(server: ApiServer, found: dict[str, Any]) -> None:
    assert apply(server, found, "&dryRun=All")["metadata"]["name"] == found["metadata"]["name"]


# Own node ---------------------------------------------------------------------------------
class Daemons:
    """enid's account on two nodes, with the policy, and with the rights that all features need."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        for name in ("node-a", "node-b"):
            server.add_node(name)
        for found in OBJECTS:
            if found["kind"] in POLICY:
                apply(server, found, "")
        # As for taints and annotations:
        more = {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["patch"]}
        server.patch(ROLE, {"rules": [*server.ask("GET", ROLE)["rules"], more]})
        self.tokens = {name: self._token(name) for name in ("node-a", "node-b")}

    def _token(self, node: str) -> str:
        """Return a token as kubelet has it for the DaemonSet's pod."""
        spaced = "/api/v1/namespaces/kube-system/pods"
        pod = self.server.ask(
            "POST",
            spaced,
            {
                "metadata": {"name": f"enid-{node}"},
                "spec": {
                    "nodeName": node,
                    "serviceAccountName": "enid",
                    "containers": [{"name": "ipamd", "image": "enid"}],
                },
            },
        )
        about = {"kind": "Pod", "apiVersion": "v1", "name": f"enid-{node}"}
        wish = {
            "spec": {
                "boundObjectRef": {**about, "uid": pod["metadata"]["uid"]},
                "expirationSeconds": 3600,
                "audiences": [],
            }
        }
        return str(self.server.ask("POST", f"{ACCOUNT}/enid/token", wish)["status"]["token"])

    def ask(self, token: str, method: str, path: str, body: object, kind: str) -> tuple[int, str]:
        """Return status and message."""
        response = self.server.pool.request(
            method,
            f"https://127.0.0.1:{self.server.port}{path}",
            body=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": f"application/{kind}"},
            timeout=urllib3.Timeout(connect=2, read=10),
        )
        return response.status, str(response.json().get("message", ""))

    def label(self, token: str, node: str, part: str = "") -> tuple[int, str]:
        patch = {"metadata": {"labels": {"enid.dev/test": "1"}}}
        return self.ask(token, "PATCH", f"/api/v1/nodes/{node}{part}", patch, "merge-patch+json")

    def record(self, token: str, node: str) -> tuple[int, str]:
        body = {**RECORD, "metadata": {"name": node}}
        return self.ask(token, "POST", f"{NODE_NETWORKS}?dryRun=All", body, "json")

    def post(self, token: str, node: str) -> tuple[int, str]:
        subject = kube_events.node_subject("node-b")
        report = kube_events.Report(subject, "Full", "a test", 1, 1e9, 1e9)
        path = f"/api/v1/namespaces/{subject.events_in}/events?dryRun=All"
        return self.ask(token, "POST", path, kube_events.body(report, node), "json")


@pytest.fixture(scope="module")
def daemons(server: ApiServer) -> Iterator[Daemons]:
    daemons = Daemons(server)
    token = daemons.tokens["node-a"]
    poll(lambda: daemons.label(token, "node-b")[0] != 200, "the policy in force")
    yield daemons
    for found in OBJECTS:
        if found["kind"] in POLICY:
            server.ask("DELETE", path_of(found))


@pytest.mark.parametrize("part", ["", "/status"], ids=["node", "status"])
def test_a_daemon_may_write_its_own_node(daemons: Daemons, part: str) -> None:
    assert daemons.label(daemons.tokens["node-a"], "node-a", part)[0] == 200


@pytest.mark.parametrize("part", ["", "/status"], ids=["node", "status"])
def test_and_not_another(daemons: Daemons, part: str) -> None:
    status, said = daemons.label(daemons.tokens["node-a"], "node-b", part)
    assert status == 403
    assert "enid on node node-a may write about that node only, and not as node-b" in said


def test_a_daemon_may_annotate_pods_of_its_own_node_alone(daemons: Daemons) -> None:
    own, others = (
        daemons.ask(
            daemons.tokens["node-a"],
            "PATCH",
            f"/api/v1/namespaces/kube-system/pods/enid-{node}",
            {"metadata": {"annotations": {"vpc.amazonaws.com/pod-ips": "10.0.0.7"}}},
            "merge-patch+json",
        )
        for node in ("node-a", "node-b")
    )
    assert own[0] == 200, own
    assert others[0] == 403
    assert "enid on node node-a may write about that node only, and not as node-b" in others[1]


def test_a_token_that_names_no_node_may_write_none(daemons: Daemons) -> None:
    status, said = daemons.label(daemons.server.new_token("nodeless"), "node-a")
    assert status == 403
    assert "names no node" in said


def test_a_daemon_keeps_its_own_nodes_record(daemons: Daemons) -> None:
    assert daemons.record(daemons.tokens["node-b"], "node-b")[0] == 201


def test_and_not_anothers(daemons: Daemons) -> None:
    status, said = daemons.record(daemons.tokens["node-a"], "node-b")
    assert status == 403
    assert "may write about that node only, and not as node-b" in said


def test_a_daemon_speaks_for_its_own_node(daemons: Daemons) -> None:
    assert daemons.post(daemons.tokens["node-b"], "node-b")[0] == 201


def test_and_not_for_another(daemons: Daemons) -> None:
    status, said = daemons.post(daemons.tokens["node-a"], "node-b")
    assert status == 403
    assert "not as node-b" in said


def test_others_are_not_asked(daemons: Daemons) -> None:
    daemons.server.patch("/api/v1/nodes/node-b", {"metadata": {"labels": {"a": "b"}}})
