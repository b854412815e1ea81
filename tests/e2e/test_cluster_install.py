"""The chart's life on the lab's cluster: what comes to a node, what goes, and back again (`make e2e`)."""

from __future__ import annotations

import contextlib
import json
import subprocess

import pytest

from vpclab.cluster import chart
from vpclab.cluster.api import ApiError
from vpclab.cluster.parts import helm
from vpclab.cluster.program import wait_for
from vpclab.cluster.whole import Cluster
from vpclab.node import Node

COREDNS = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
OURS = "ip rule; ip route show table all proto 151; nft list tables; ip -o link"
"""What of a node's network can be ours; rules say proto 151, links their group."""


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> list[Node]:
    return [worker.node for worker in cluster.workers]


def upgrade(cluster: Cluster, *, uninstall: bool) -> None:
    """Turn the chart's pods into those that take it off, or back."""
    value = str(uninstall).lower()
    done = subprocess.run(
        [
            helm(), "upgrade", "enid", chart.CHART, f"--namespace={chart.SPACE}", "--reuse-values",
            f"--kubeconfig={cluster.kubeconfig}", f"--set=uninstall={value}",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("is taken off every node" in done.stdout) == uninstall


def logs(cluster: Cluster, container: str) -> str:
    """Return what a container of the DaemonSet's says, on all nodes."""
    said = []
    for pod in cluster.api.pods(chart.SPACE, chart.LABEL):
        with contextlib.suppress(ApiError):  # it has said nothing yet
            said.append(cluster.api.logs(chart.SPACE, pod["metadata"]["name"], container))
    return "\n".join(said)


def files(node: Node) -> list[str]:
    """Return what of ours is in the folders of plugins and conflists."""
    folders = [node.path("/opt/cni/bin"), node.path("/etc/cni/net.d")]
    names = (path.name for folder in folders for path in folder.iterdir())
    return sorted(name for name in names if "enid" in name)


def coredns(cluster: Cluster, replicas: int) -> None:
    """Have so many of the pods that the cluster has addresses for of its own."""
    patch = {"spec": {"replicas": replicas}}
    cluster.api.ask("PATCH", COREDNS, patch, "merge-patch+json")


def test_each_node_has_what_its_runtime_takes(nodes: list[Node]) -> None:
    for node in nodes:
        said = json.loads(node.path("/etc/cni/net.d/05-enid.conflist").read_text())
        assert said["cniVersion"] == "1.1.0", "containerd 2, by the Node's status"
        assert [plugin["type"] for plugin in said["plugins"]] == ["enid-cni", "portmap"]
        assert files(node) == ["05-enid.conflist", "enid-cni"]


def test_a_node_with_pods_refuses_to_lose_them(cluster: Cluster, nodes: list[Node]) -> None:
    upgrade(cluster, uninstall=True)
    wait_for(lambda: "PODS-LEFT" in logs(cluster, "uninstall"), "a node's refusal", 60)
    for node in nodes:
        assert files(node) == ["05-enid.conflist", "enid-cni"]


def test_a_node_without_pods_is_as_if_enid_had_never_been_there(
    cluster: Cluster, nodes: list[Node]
) -> None:
    coredns(cluster, 0)
    wait_for(lambda: chart.is_rolled_out(cluster), "the end of it", 400)
    for node in nodes:
        assert files(node) == []
        text = node.run(["sh", "-c", OURS]).stdout
        assert "proto 151" not in text
        assert "enid" not in text
        assert "group 5" not in text
        assert not list(node.path("/run/enid").iterdir())
        assert not list(node.path("/var/lib/enid").iterdir())


def test_and_all_of_it_comes_back(cluster: Cluster, nodes: list[Node]) -> None:
    upgrade(cluster, uninstall=False)
    wait_for(lambda: chart.is_rolled_out(cluster), "the DaemonSet's rollout", 120)
    coredns(cluster, 2)
    wait_for(
        lambda: cluster.api.ask("GET", COREDNS)["status"].get("readyReplicas") == 2,
        "pods with addresses again",
        120,
    )
    for node in nodes:
        assert files(node) == ["05-enid.conflist", "enid-cni"]
