"""enid on a cluster as operators have it: the image that we ship, installed by the chart. Shell.

The chart's values are its defaults but for one: on AWS the region says where EC2 is, in the lab its
own address does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from vpclab.cluster.api import ApiError
from vpclab.cluster.parts import ROOT, helm
from vpclab.cluster.program import ClusterError, wait_for
from vpclab.fabric import ENDPOINT

if TYPE_CHECKING:
    from vpclab.cluster.whole import Cluster

CHART = ROOT / "config" / "chart"
VALUES = {"env.AWS_ENDPOINT_URL_EC2": f"http://{ENDPOINT}"}
SPACE = "kube-system"
DAEMONS = f"/apis/apps/v1/namespaces/{SPACE}/daemonsets/enid"
ROLLOUT_SECONDS = 90.0
LABEL = "app.kubernetes.io/name=enid"


def install(cluster: Cluster, chart: str = str(CHART), **values: str) -> None:
    """Install the chart, or upgrade it, and wait for its rollout. Raises ClusterError.

    *values* are added to those above.
    """
    settings = [f"--set-string={name}={value}" for name, value in {**VALUES, **values}.items()]
    _helm(cluster, "upgrade", "--install", "enid", chart, *settings)
    _await_rollout(cluster)


def upgrade(cluster: Cluster, **values: str) -> None:
    """Upgrade with other *values*, and do not wait for what comes of it. Raises ClusterError."""
    settings = [f"--set-string={name}={value}" for name, value in values.items()]
    _helm(cluster, "upgrade", "enid", CHART, "--reuse-values", *settings)


def roll_back(cluster: Cluster) -> None:
    """Bring back what was there before the last upgrade. Raises ClusterError."""
    _helm(cluster, "rollback", "enid")
    _await_rollout(cluster)


def _helm(cluster: Cluster, *words: str | Path) -> None:
    done = subprocess.run(
        [helm(), *words, f"--namespace={SPACE}", f"--kubeconfig={cluster.kubeconfig}"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode:
        raise ClusterError(f"helm refused to {words[0]} enid: {done.stderr.strip()}")


def _await_rollout(cluster: Cluster) -> None:
    try:
        wait_for(lambda: is_rolled_out(cluster), "the DaemonSet's rollout", ROLLOUT_SECONDS)
    except ClusterError as error:
        raise ClusterError(f"{error}\n{_states(cluster)}") from None


def is_rolled_out(cluster: Cluster) -> bool:
    """Return whether each node has a pod of the DaemonSet as it is now, and it is ready."""
    daemons = cluster.api.ask("GET", DAEMONS)
    status, wanted = daemons["status"], len(cluster.workers)
    return bool(
        status.get("observedGeneration") == daemons["metadata"]["generation"]
        and status.get("updatedNumberScheduled") == wanted
        and status.get("numberAvailable") == wanted
    )


def _states(cluster: Cluster) -> str:
    """Say what the DaemonSet's pods lack."""
    lines = []
    for pod in cluster.api.pods(SPACE, LABEL):
        name, status = pod["metadata"]["name"], pod["status"]
        for kind in ("initContainerStatuses", "containerStatuses"):
            for one in status.get(kind, ()):
                lines.append(f"{name} {status.get('phase')}: {one['name']} {one['state']}")
                lines.append(_last_words(cluster, name, one["name"]))
    events = cluster.api.listed(f"/api/v1/namespaces/{SPACE}/events")
    lines += [one["message"] for one in events if one["type"] == "Warning"]
    return "\n".join(filter(None, lines)) or "it has no pods"


def _last_words(cluster: Cluster, pod: str, container: str) -> str:
    """Return what a container said last, nothing if it has not run."""
    try:
        said = cluster.api.logs(SPACE, pod, container)
    except ApiError:
        return ""
    return "\n".join(said.splitlines()[-5:])
