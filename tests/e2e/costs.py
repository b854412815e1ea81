"""What pods' starts cost, as kubelet, containerd and ipamd count it. Shell."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tests.e2e import latency
from tests.e2e.latency import Histogram, histogram
from tests.e2e.stage import GET, Stage, scraped
from vpclab.cluster.worker import Worker

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
