"""Where checks of a cluster's life are made: the cluster, its VPC, the pods on it. Shell."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.latency import total
from vpclab.checks.ground import Ground, WebPod
from vpclab.cluster.api import is_true
from vpclab.cluster.whole import Cluster
from vpclab.cluster.worker import Worker

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC

TRAFFIC = 120
"""Requests that go on meanwhile, each a connection of its own: some seconds of them."""

GET = (
    "import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=5).read().decode())"
)


@dataclass(frozen=True, slots=True)
class Stage:
    """The cluster, its VPC, and the pods on it."""

    cluster: Cluster
    ground: Ground
    vpc: EmbeddedVPC
    tables: list[str] = field(default_factory=list)
    """Lines of what a check measured, for the end of the run."""

    @property
    def api(self) -> Any:
        """The API server."""
        return self.cluster.api

    def pod(self, name: str) -> Any:
        """Return a pod of the ground."""
        return self.api.ask("GET", f"/api/v1/namespaces/{self.ground.namespace}/pods/{name}")

    def pair(self) -> tuple[WebPod, WebPod]:
        """Return two pods on different nodes, when both are ready."""
        self.ground.wait(lambda: len(self._by_node()) > 1, "a pod on each of two nodes")
        first, second, *_ = self._by_node().values()
        return first, second

    def _by_node(self) -> dict[str, WebPod]:
        return {pod.node: pod for pod in self.ground.web_pods()}


@contextlib.contextmanager
def traffic(stage: Stage) -> Iterator[list[int]]:
    """Have a pod ask one of another node all the while; afterwards there is how often, in parts.

    Raises FailedError if one request is not answered.
    """
    source, target = stage.pair()
    asked: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            asked.append(len(stage.ground.fetch_often(TRAFFIC, source.name, target.address)))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield asked
        finally:
            ended.set()
        asking.result()


def sleeping(stage: Stage, **spec: Any) -> dict[str, Any]:
    """Return what a pod is that sleeps, and goes when it is told to; *spec* is added."""
    container = {**stage.ground.container(), "command": ["sleep", "3600"]}
    return {"containers": [container], "terminationGracePeriodSeconds": 1, **spec}


def a_new_pod(stage: Stage, worker: Worker, name: str, **spec: Any) -> IPv4Address:
    """Run a pod on a node; return its address when it is ready."""
    stage.ground.create("Pod", name, sleeping(stage, nodeName=worker.name, **spec))
    stage.ground.wait(lambda: is_true(stage.pod(name), "Ready"), f"{name} is ready")
    return IPv4Address(stage.pod(name)["status"]["podIP"])


def deployment(stage: Stage, name: str, replicas: int, **spec: Any) -> Any:
    """Create a Deployment whose pods sleep."""
    label = {"app": name}
    return stage.ground.create("Deployment", name, {
        "replicas": replicas, "selector": {"matchLabels": label},
        "template": {"metadata": {"labels": label}, "spec": sleeping(stage, **spec)},
    })  # fmt: skip


def scale(stage: Stage, name: str, replicas: int) -> None:
    """Have so many pods of a Deployment."""
    path = f"/apis/apps/v1/namespaces/{stage.ground.namespace}/deployments/{name}/scale"
    stage.api.ask("PATCH", path, {"spec": {"replicas": replicas}}, "merge-patch+json")


def ready(stage: Stage, app: str) -> list[Any]:
    """Return the pods of an app that are ready, and not about to end."""
    return [
        pod
        for pod in stage.api.pods(stage.ground.namespace, f"app={app}")
        if is_true(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]
    ]


def unchanged(stage: Stage, before: list[WebPod]) -> str:
    """Return how many pods there are, which are those of before, with their addresses.

    A machine that has other work may let one miss a probe: it is ready a little later.
    """
    stage.ground.wait(lambda: stage.ground.web_pods() == before, f"the pods of before, {before}")
    return f"{len(before)} pods as before"


def pids_of(worker: Worker, name: str) -> list[int]:
    """Return the processes of a node's pods that have *name* as their program's."""
    found = []
    for pid in worker.containerd.processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"/" + name.encode()) for word in words):
                found.append(pid)
    return found


def leases(stage: Stage) -> dict[str, int]:
    """Return how many addresses pods have, by node, as its ipamd counts."""
    return {
        worker.name: int(total(scraped(worker), "enid_addresses", 'state="assigned"'))
        for worker in stage.cluster.workers
    }


def scraped(worker: Worker) -> str:
    """Return what a node's ipamd tells of itself."""
    url = f"http://{worker.node.primary}:61678/metrics"
    return worker.node.run([sys.executable, "-c", GET, url]).stdout
