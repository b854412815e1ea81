"""What nodes live through: drained, deleted, rebooted. Shell."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from tests.e2e.accounts import pods_on, settled, status_of
from tests.e2e.stage import Stage, a_new_pod, deployment, ready, traffic, unchanged
from vpclab.checks.check import Check, FailedError, require
from vpclab.cluster.api import ApiError, is_true
from vpclab.cluster.worker import Worker

CROWD = 20
"""Pods on one node: more than one ENI of an m5.xlarge has addresses for."""

COOLDOWN_SECONDS = 30.0
"""IP_COOLDOWN_PERIOD, as the chart has it."""

SECONDS = 180.0
"""What a node's pods may take on two cores that have other work, too."""

RECORDS = "/apis/enid.dev/v1alpha1/nodenetworks"


def node_of(stage: Stage, name: str) -> Any:
    """Return a Node, None if there is none."""
    return found(stage, f"/api/v1/nodes/{name}")


def found(stage: Stage, path: str) -> Any:
    """Return an object, None if there is none."""
    try:
        return stage.api.ask("GET", path)
    except ApiError as error:
        if error.status != 404:
            raise
    return None


def crowd(stage: Stage, name: str, worker: Worker, count: int = CROWD) -> None:
    """Have so many pods on a node, on several of its ENIs."""
    deployment(stage, name, count, nodeSelector={"kubernetes.io/hostname": worker.name})
    stage.ground.wait(lambda: len(ready(stage, name)) == count, f"{count} pods", SECONDS)


def disperse(stage: Stage, name: str) -> None:
    """Delete a Deployment, and wait until its pods are gone."""
    thing = {"kind": "Deployment", "metadata": {"name": name, "namespace": stage.ground.namespace}}
    stage.api.delete(thing)
    stage.ground.wait(
        lambda: not stage.api.pods(stage.ground.namespace, f"app={name}"), f"the end of {name}"
    )


# Drained -----------------------------------------------------------------------------------
def drained(stage: Stage) -> str:
    """Cordon a node and evict its pods, as `kubectl drain` does; then let pods come again."""
    worker, count = stage.cluster.workers[0], 8
    deployment(stage, "moving", count)
    stage.ground.wait(lambda: len(ready(stage, "moving")) == count, f"{count} pods")
    webs = len(stage.ground.web_pods())
    cordon(stage, worker, unschedulable=True)
    began = time.monotonic()
    evicted = evict(stage, worker)
    stage.ground.wait(lambda: not pods_on(stage, worker.name), "the last pod's end")
    stage.ground.wait(lambda: _moved(stage, count, worker), "the pods on the other node")
    away = time.monotonic() - began
    stage.ground.wait(lambda: _is_rested(stage, worker), "addresses that have cooled", SECONDS)
    rested = time.monotonic() - began
    require(rested > COOLDOWN_SECONDS, f"addresses had cooled after {rested:.0f} s")
    status = status_of(stage, worker)
    require("cordoned" in status["modes"], f"the daemon's modes are {status['modes']}")
    enis = status["enis"]
    cordon(stage, worker, unschedulable=False)
    address = a_new_pod(stage, worker, "after-the-drain")
    stage.ground.wait(lambda: len(stage.ground.web_pods()) == webs, f"{webs} pods on both nodes")
    disperse(stage, "moving")
    held = sum(eni["singles"] for eni in enis)
    return (
        f"{evicted} pods evicted, all {count} of a Deployment elsewhere in {away:.0f} s; after"
        f" {rested:.0f} s nothing cooled, {len(enis)} ENIs with {held} addresses were kept;"
        f" uncordoned, the next pod has {address}"
    )


def cordon(stage: Stage, worker: Worker, *, unschedulable: bool) -> None:
    """Say whether a node takes pods."""
    body = {"spec": {"unschedulable": unschedulable}}
    stage.api.ask("PATCH", f"/api/v1/nodes/{worker.name}", body, "merge-patch+json")


def evict(stage: Stage, worker: Worker) -> int:
    """Evict every pod of a node but a DaemonSet's; return how many."""
    pods = stage.api.listed(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{worker.name}")
    victims = [pod["metadata"] for pod in pods if not _is_daemon(pod)]
    for it in victims:
        path = f"/api/v1/namespaces/{it['namespace']}/pods/{it['name']}/eviction"
        wish = {"name": it["name"], "namespace": it["namespace"]}
        stage.api.ask(
            "POST", path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": wish}
        )
    return len(victims)


def _is_daemon(pod: Any) -> bool:
    owners = pod["metadata"].get("ownerReferences", ())
    return any(owner["kind"] == "DaemonSet" for owner in owners)


def _moved(stage: Stage, count: int, worker: Worker) -> bool:
    pods = ready(stage, "moving")
    return len(pods) == count and all(pod["spec"]["nodeName"] != worker.name for pod in pods)


def _is_rested(stage: Stage, worker: Worker) -> bool:
    status = status_of(stage, worker)
    return not status["leases"] and not status["cooling"]


# Deleted -----------------------------------------------------------------------------------
def deleted(stage: Stage) -> str:
    """Delete a Node whose kubelet then registers it again, under traffic."""
    worker = stage.cluster.workers[1]
    before, uid = stage.ground.web_pods(), node_of(stage, worker.name)["metadata"]["uid"]
    path = f"{RECORDS}/{worker.name}"
    require(_owner(stage, path) == uid, f"NodeNetwork {worker.name} is {_owner(stage, path)}'s")
    with traffic(stage) as asked:
        began = time.monotonic()
        stage.api.ask("DELETE", f"/api/v1/nodes/{worker.name}")
        stage.ground.wait(lambda: found(stage, path) is None, "the end of the NodeNetwork")
        collected = time.monotonic() - began
        require(node_of(stage, worker.name) is None, "the Node is there again already")
        worker.kubelet.restart()
        stage.ground.wait(lambda: _is_ready(stage, worker), "the Node, registered again")
        new = node_of(stage, worker.name)["metadata"]["uid"]
        stage.ground.wait(lambda: _owner(stage, path) == new, "a NodeNetwork of the new Node")
        recorded = time.monotonic() - began
        address = a_new_pod(stage, worker, "after-the-node")
    require(new != uid, "it is the same Node")
    return (
        f"NodeNetwork was collected after {collected:.1f} s, and the new Node's came after"
        f" {recorded:.0f} s; the next pod has {address}; {sum(asked)} requests meanwhile, all"
        f" answered; {unchanged(stage, before)}"
    )


def _owner(stage: Stage, path: str) -> str:
    """Return the uid of the Node that a NodeNetwork is of, "" if there is none."""
    record = found(stage, path)
    if record is None:
        return ""
    (owner,) = record["metadata"]["ownerReferences"]
    return str(owner["uid"])


def _is_ready(stage: Stage, worker: Worker) -> bool:
    node = node_of(stage, worker.name)
    return node is not None and is_true(node, "Ready")


# Rebooted ----------------------------------------------------------------------------------
def rebooted(stage: Stage) -> str:
    """Reboot a node with pods on several ENIs: all of them come up again, with addresses."""
    worker = stage.cluster.workers[1]
    crowd(stage, "crowd", worker)
    held = {
        str(address)
        for eni in stage.vpc.enis()
        if eni.instance_id == worker.instance.id
        for address in eni.secondary
    }
    boot, webs = _boot_of(stage, worker), len(stage.ground.web_pods())
    began, wall = time.monotonic(), time.time()
    worker.reboot()
    stage.ground.wait(lambda: _boot_of(stage, worker) != boot, "the kubelet of the new boot")
    up = time.monotonic() - began
    stage.ground.wait(lambda: _is_back(stage, worker, webs), "the node's pods", SECONDS)
    back = time.monotonic() - began
    told = settled(stage)
    status = status_of(stage, worker)
    again = [lease for lease in status["leases"] if lease["address"] in held]
    soonest = min((lease["since"] - wall for lease in again), default=COOLDOWN_SECONDS)
    late_enough = soonest >= COOLDOWN_SECONDS - 1  # its clock begins within a second of 0
    require(late_enough, f"an address of before was given {soonest:.0f} s after")
    source, target = stage.pair()
    stage.ground.fetch(source.name, target.address)
    stage.ground.fetch(target.name, source.address)
    disperse(stage, "crowd")
    return (
        f"another boot after {up:.0f} s, {len(status['leases'])} pods of the node with addresses"
        f" after {back:.0f} s; {len(again)} are of the {len(held)} that it held before, none given"
        f" within {soonest:.0f} s of the boot; {told}"
    )


def _boot_of(stage: Stage, worker: Worker) -> str:
    return str(node_of(stage, worker.name)["status"]["nodeInfo"]["bootID"])


def _is_back(stage: Stage, worker: Worker, webs: int) -> bool:
    """Return whether every pod of the node has the lease that its status tells, and is ready."""
    with contextlib.suppress(FailedError, ApiError):  # the daemon is on its way, too
        leased = {lease["address"] for lease in status_of(stage, worker)["leases"]}
        return (
            is_true(node_of(stage, worker.name), "Ready")
            and len(ready(stage, "crowd")) == CROWD
            and len(stage.ground.web_pods()) == webs
            and set(pods_on(stage, worker.name)) == leased
        )
    return False


NODES: tuple[Check[Stage], ...] = (
    Check(
        "node-drained",
        "a node's pods are evicted and come up elsewhere; their addresses cool, and it takes pods again",
        "a DEL was lost, or a cordoned node's pool does not rest: `enid status` there",
        drained,
    ),
    Check(
        "node-deleted",
        "with its Node deleted a node's pods go on; its NodeNetwork goes, and is made for the new Node",
        "the ownerReference of the NodeNetwork, or the daemon's watch: its log",
        deleted,
    ),
    Check(
        "node-rebooted",
        "after a reboot all pods of a node come up with addresses, none that has not cooled since",
        "leases of the former boot were kept, or its ENIs not set up: `enid doctor` there",
        rebooted,
    ),
)
"""All, in their order."""
