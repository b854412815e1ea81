"""What a cluster lives through: checks that need more than its API, as to kill programs. Shell.

They are shaped as those of `vpclab.checks`: each says what it proves, what it saw, and what a
failure means.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from vpclab import cgroups
from vpclab.checks.check import Check, require
from vpclab.checks.ground import Ground, WebPod
from vpclab.checks.network import rolled_out
from vpclab.cluster import chart
from vpclab.cluster.api import is_true
from vpclab.cluster.program import wait_for
from vpclab.cluster.whole import Cluster
from vpclab.cluster.worker import Worker

MANY = 40
"""Pods at once: on two m5.large, 58 places, beside some ten others."""

TRAFFIC = 120
"""Requests that go on meanwhile, each a connection of its own: some seconds of them."""

GET = (
    "import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=5).read().decode())"
)

LINE = re.compile(r"^(\w+)(?:\{(.*?)\})? ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stage:
    """The cluster, and the pods on it."""

    cluster: Cluster
    ground: Ground

    @property
    def api(self) -> Any:
        """The API server."""
        return self.cluster.api

    def pod(self, name: str) -> Any:
        """Return a pod of the ground."""
        return self.api.ask("GET", f"/api/v1/namespaces/{self.ground.namespace}/pods/{name}")

    def pair(self) -> tuple[WebPod, WebPod]:
        """Return two pods on different nodes."""
        pods = self.ground.web_pods()
        return pods[0], next(pod for pod in pods if pod.node != pods[0].node)


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


def a_new_pod(stage: Stage, worker: Worker, name: str) -> IPv4Address:
    """Run a pod on a node; return its address when it is ready."""
    container = {**stage.ground.container(), "command": ["sleep", "3600"]}
    spec = {"nodeName": worker.name, "containers": [container], "terminationGracePeriodSeconds": 1}
    stage.ground.create("Pod", name, spec)
    stage.ground.wait(lambda: is_true(stage.pod(name), "Ready"), f"{name} is ready")
    return IPv4Address(stage.pod(name)["status"]["podIP"])


def unchanged(stage: Stage, before: list[WebPod]) -> str:
    """Return how many pods there are, which are those of before, with their addresses."""
    require(stage.ground.web_pods() == before, f"pods are {stage.ground.web_pods()} now")
    return f"{len(before)} pods as before"


def rollout(stage: Stage) -> str:
    """Upgrade the chart with another annotation, under traffic."""
    before = stage.ground.web_pods()
    with traffic(stage) as asked:
        chart.install(stage.cluster, **{"podAnnotations.e2e": str(time.monotonic_ns())})
    rolled_out(stage.ground)
    return f"{sum(asked)} requests meanwhile, all answered; {unchanged(stage, before)}"


def killed_daemon(stage: Stage) -> str:
    """Kill ipamd of one node, under traffic; kubelet starts it again."""
    before, worker = stage.ground.web_pods(), stage.cluster.workers[0]
    victims = pids_of(worker, "ipamd")
    require(len(victims) == 1, f"there is not one ipamd on {worker.name}: {victims}")
    with traffic(stage) as asked:
        os.kill(victims[0], signal.SIGKILL)
        address = a_new_pod(stage, worker, "after-the-daemon")
    require(pids_of(worker, "ipamd") != victims, "it is the same ipamd")
    told = f"{sum(asked)} requests meanwhile, all answered"
    return f"the next pod has {address}; {told}; {unchanged(stage, before)}"


def pids_of(worker: Worker, name: str) -> list[int]:
    """Return the processes of a node's pods that have *name* as their program's."""
    found = []
    for pid in worker.containerd.processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"/" + name.encode()) for word in words):
                found.append(pid)
    return found


def restarted_runtime(stage: Stage) -> str:
    """Restart containerd of one node, under traffic."""
    before, worker = stage.ground.web_pods(), stage.cluster.workers[1]
    with traffic(stage) as asked:
        worker.containerd.restart()
        address = a_new_pod(stage, worker, "after-the-runtime")
    told = f"{sum(asked)} requests meanwhile, all answered"
    return f"the next pod has {address}; {told}; {unchanged(stage, before)}"


def without_api_server(stage: Stage) -> str:
    """Kill the API server, and a pod's sandbox, which kubelet makes anew by itself."""
    before, worker, api = (
        stage.ground.web_pods(),
        stage.cluster.workers[0],
        stage.cluster.control.api,
    )
    first = a_new_pod(stage, worker, "before-the-outage")
    uid = stage.pod("before-the-outage")["metadata"]["uid"]
    cgroup = f"{worker.cgroup}/kubepods/*/pod{uid}"
    old = cgroups.processes(cgroup)
    require(len(old) > 1, f"the pod's processes are not in {cgroup}: {old}")
    api.kill()
    try:
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda: len(set(cgroups.processes(cgroup)) - set(old)) == len(old),
            "another sandbox", 60, worker.kubelet,
        )  # fmt: skip
    finally:
        api.start()
        wait_for(stage.cluster.control.is_ready, "the API server", 60, api)
    stage.ground.wait(lambda: _has_moved(stage, first), "the pod's new address in its status")
    address = stage.pod("before-the-outage")["status"]["podIP"]
    return f"its sandbox had {first} and has {address}; {unchanged(stage, before)}"


def _has_moved(stage: Stage, former: IPv4Address) -> bool:
    pod = stage.pod("before-the-outage")
    return is_true(pod, "Ready") and pod["status"]["podIP"] != str(former)


def scaled(stage: Stage) -> str:
    """Scale a Deployment to many pods and away again; no address is kept."""
    ground, held, spent = stage.ground, leases(stage), costs(stage)
    label = {"app": "many"}
    container = {**ground.container(), "command": ["sleep", "3600"]}
    template = {
        "metadata": {"labels": label},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    began = time.monotonic()
    thing = ground.create(
        "Deployment", "many",
        {"replicas": MANY, "selector": {"matchLabels": label}, "template": template},
    )  # fmt: skip
    ground.wait(lambda: len(ready(stage)) == MANY, f"{MANY} pods are ready")
    up = time.monotonic() - began
    took = means(spent, costs(stage))
    addresses = {pod["status"]["podIP"] for pod in ready(stage)}
    require(len(addresses) == MANY, f"{MANY} pods have {len(addresses)} addresses")
    stage.api.delete({**thing, "kind": "Deployment"})
    ground.wait(lambda: leases(stage) == held, f"leases are {held} again")
    return f"{MANY} pods were ready in {up:.0f} s; {took}; afterwards leases are {held}, as before"


KUBELET = {
    "pod start": ("kubelet_pod_start_sli_duration_seconds", ""),
    "sandbox": ("kubelet_runtime_operations_duration_seconds", 'operation_type="run_podsandbox"'),
}
"""What kubelet measures of a pod's start: all but pulling images, and the runtime's RunPodSandbox."""

Costs = dict[str, tuple[float, float]]
"""Seconds and how often, by what took them, on all nodes together."""


def costs(stage: Stage) -> Costs:
    """Return what pods' starts have cost so far, as kubelets and ipamds count."""
    found: Costs = {}
    for worker in stage.cluster.workers:
        kubelet = str(stage.api.ask("GET", f"/api/v1/nodes/{worker.name}/proxy/metrics"))
        told = [(name, kubelet, *what) for name, what in KUBELET.items()]
        ipamd = scraped(worker)
        for name, text, family, labels in [
            *told,
            ("ADD", ipamd, "enid_request_seconds", 'verb="ADD"'),
        ]:
            sums = [total(text, f"{family}_{part}", labels) for part in ("sum", "count")]
            seconds, count = found.get(name, (0.0, 0.0))
            found[name] = seconds + sums[0], count + sums[1]
    return found


def means(before: Costs, after: Costs) -> str:
    """Say what each took in the mean, and which part of a sandbox's start is the CNI's."""
    mean = {
        name: 1000 * (after[name][0] - before[name][0]) / max(1, after[name][1] - before[name][1])
        for name in after
    }
    share = 100 * mean["ADD"] / mean["sandbox"] if mean["sandbox"] else 0
    each = ", ".join(f"{name} {took:.0f} ms" for name, took in mean.items())
    return f"in the mean {each}: the daemon's part of a sandbox is {share:.0f} %"


def total(text: str, family: str, labels: str) -> float:
    """Return the sum of a metric's values that have *labels*."""
    return sum(
        float(v) for name, found, v in LINE.findall(text) if name == family and labels in found
    )


def ready(stage: Stage) -> list[Any]:
    """Return the many pods that are ready."""
    return [p for p in stage.api.pods(stage.ground.namespace, "app=many") if is_true(p, "Ready")]


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


LIFE: tuple[Check[Stage], ...] = (
    Check(
        "rolled-under-traffic",
        "a rolling update of the DaemonSet loses no request of pods, and no pod",
        "the wire was made anew, or the new daemon did not read the journal: its log",
        rollout,
    ),
    Check(
        "daemon-killed",
        "with ipamd killed no request of pods is lost, and the next pod gets its address",
        "the daemon does not come back by itself: kubelet's log, the pod's Events",
        killed_daemon,
    ),
    Check(
        "runtime-restarted",
        "with containerd restarted no request of pods is lost, and the next pod gets its address",
        "containerd's log; what it does to pods is in docs/runtimes.md",
        restarted_runtime,
    ),
    Check(
        "api-server-away",
        "with the API server away a pod whose sandbox has died gets another, and its address later",
        "an ADD waited for the API server: ipamd's log",
        without_api_server,
    ),
    Check(
        "scaled-up-and-down",
        f"a Deployment of {MANY} pods comes and goes, and no address is kept",
        "DELs were lost or the pool did not grow: `enid status`, `enid doctor`",
        scaled,
    ),
)
"""All, in their order."""
