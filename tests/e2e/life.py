"""What a cluster lives through: checks that need more than its API, as to kill programs. Shell.

They are shaped as those of `vpclab.checks`: each says what it proves, what it saw, and what a
failure means.
"""

from __future__ import annotations

import os
import signal
import time
from ipaddress import IPv4Address

from tests.e2e.stage import Stage, a_new_pod, pids_of, traffic, unchanged
from vpclab import cgroups
from vpclab.checks.check import Check, require
from vpclab.checks.daemons import rolled_out
from vpclab.cluster import chart
from vpclab.cluster.api import is_true
from vpclab.cluster.program import wait_for


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
)
"""All, in their order."""
