"""What workloads do to addresses: they scale, come again by their names, are thrown away. Shell."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.e2e import latency
from tests.e2e.latency import Histogram, histogram
from tests.e2e.stage import GET, Stage, leases, scraped
from vpclab.checks.check import Check, require
from vpclab.cluster.api import is_true
from vpclab.cluster.worker import Worker

MANY = 60
"""Pods at once: two m5.xlarge have 116 places, of which the lab's other pods take some ten."""

SECONDS = 240.0
"""What many pods may take on two cores that have other work, too."""


# A Deployment that scales ------------------------------------------------------------------
def scaled(stage: Stage) -> str:
    """Scale a Deployment from nothing to many pods and back; no address is kept."""
    ground, held, spent = stage.ground, leases(stage), costs(stage)
    deployment(stage, "many", 0)
    began = time.monotonic()
    scale(stage, "many", MANY)
    ground.wait(lambda: len(ready(stage, "many")) == MANY, f"{MANY} pods are ready", SECONDS)
    up = time.monotonic() - began
    stage.tables.extend(told(f"{MANY} pods at once", spent, costs(stage)))
    addresses = {pod["status"]["podIP"] for pod in ready(stage, "many")}
    require(len(addresses) == MANY, f"{MANY} pods have {len(addresses)} addresses")
    began = time.monotonic()
    scale(stage, "many", 0)
    ground.wait(lambda: leases(stage) == held, f"leases are {held} again", SECONDS)
    down = time.monotonic() - began
    return (
        f"{MANY} pods were ready in {up:.0f} s, each with an address of its own, and gone in"
        f" {down:.0f} s; leases are {held}, as before"
    )


def deployment(stage: Stage, name: str, replicas: int) -> Any:
    """Create a Deployment whose pods sleep."""
    label = {"app": name}
    spec = {"replicas": replicas, "selector": {"matchLabels": label}}
    return stage.ground.create("Deployment", name, {**spec, "template": template(stage, label)})


def template(stage: Stage, label: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a pod that sleeps, and goes when it is told to."""
    container = {**stage.ground.container(), "command": ["sleep", "3600"]}
    return {
        "metadata": {"labels": label},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def scale(stage: Stage, name: str, replicas: int) -> None:
    """Have so many pods of a Deployment."""
    path = f"/apis/apps/v1/namespaces/{stage.ground.namespace}/deployments/{name}/scale"
    stage.api.ask("PATCH", path, {"spec": {"replicas": replicas}}, "merge-patch+json")


def ready(stage: Stage, app: str) -> list[Any]:
    """Return the pods of an app that are ready."""
    return [p for p in stage.api.pods(stage.ground.namespace, f"app={app}") if is_true(p, "Ready")]


# What a start costs ------------------------------------------------------------------------
START = "pod start (kubelet; pulls apart)"
SANDBOX = "its sandbox (kubelet: RunPodSandbox)"
NETWORK = "its network (containerd: all plugins)"
ADD = "its address and wire (ipamd: ADD)"

KUBELET = {
    START: ("kubelet_pod_start_sli_duration_seconds", ""),
    SANDBOX: ("kubelet_runtime_operations_duration_seconds", 'operation_type="run_podsandbox"'),
}
"""What kubelet measures of a pod's start."""

CONTAINERD = (
    "containerd_cri_network_plugin_operations_duration_seconds_seconds",
    'operation_type="set_up_pod"',
)
"""What containerd measures of its plugins, exec and all: loopback, enid-cni, portmap."""

Costs = Mapping[str, Histogram]


def costs(stage: Stage) -> Costs:
    """Return what pods' starts have cost so far, on all nodes together."""
    found: dict[str, Histogram] = {}
    for worker in stage.cluster.workers:
        for name, one in _costs_on(stage, worker).items():
            found[name] = found.get(name, Histogram()) + one
    return found


def _costs_on(stage: Stage, worker: Worker) -> Costs:
    kubelet = str(stage.api.ask("GET", f"/api/v1/nodes/{worker.name}/proxy/metrics"))
    url = f"http://{worker.containerd.metrics}/v1/metrics"
    runtime = worker.node.run([sys.executable, "-c", GET, url]).stdout
    return {
        **{name: histogram(kubelet, *what) for name, what in KUBELET.items()},
        NETWORK: histogram(runtime, *CONTAINERD),
        ADD: histogram(scraped(worker), "enid_request_seconds", 'verb="ADD"'),
    }


def told(what: str, before: Costs, after: Costs) -> list[str]:
    """Return the table of what has come since *before*, and the CNI's share."""
    found = {name: one - before[name] for name, one in after.items()}
    share = latency.share(found[NETWORK], found[SANDBOX])
    daemon = latency.share(found[ADD], found[SANDBOX])
    head = f"{what}: plugins take {share} of a sandbox's start, the daemon in them {daemon}"
    return [head, *latency.rows(found)]


WORKLOADS: tuple[Check[Stage], ...] = (
    Check(
        "scaled-up-and-down",
        f"a Deployment is scaled from 0 to {MANY} pods and back, and no address is kept",
        "DELs were lost or the pool did not grow: `enid status`, `enid doctor`",
        scaled,
    ),
)
"""All, in their order."""
