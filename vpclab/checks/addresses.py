"""Which addresses pods have: of the VPC, one a pod, and what becomes of them afterwards. Shell."""

from __future__ import annotations

import time
from collections import Counter

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import PORT, Ground
from vpclab.checks.records import is_node_of

RESTS_SECONDS = 20.0
"""Within this no released address is given again, whatever the pool is short of: the default
cooldown of 30 s, less what a pod takes to end."""


def have_vpc_addresses(ground: Ground) -> str:
    """Look at the addresses that kubelet reports."""
    pods = ground.web_pods()
    addresses = [pod.address for pod in pods]
    nodes = Counter(pod.node for pod in pods)
    require(set(nodes) == set(ground.nodes), f"pods run on {sorted(nodes)} only")
    require(len(set(addresses)) == len(pods), f"two pods have one address: {addresses}")
    hosts = [ground.address_of(node) for node in ground.nodes]
    require(not set(addresses) & set(hosts), "a pod has its node's address")
    outside = [a for a in addresses if not any(a in cidr for cidr in ground.cidrs)]
    require(not ground.cidrs or not outside, f"not of the VPC: {outside}")
    return ", ".join(f"{pod.address} on {pod.node}" for pod in pods)


def are_unique(ground: Ground) -> str:
    """Compare the addresses of all pods of the cluster, and with those of nodes."""
    holders: dict[str, list[str]] = {}
    for pod in ground.records.pods():
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if not pod["spec"].get("hostNetwork") and (address := pod["status"].get("podIP")):
            holders.setdefault(address, []).append(name)
    twice = [f"{address}: {', '.join(names)}" for address, names in holders.items() if names[1:]]
    require(not twice, f"two pods have one address: {'; '.join(twice)}")
    nodes = ground.api.nodes()
    taken = [a for a in holders if any(is_node_of(a, node) for node in nodes)]
    require(not taken, f"a pod has the address of a node: {', '.join(taken)}")
    return f"{len(holders)} pods of the cluster have an address each, and none is a node's"


def are_recorded(ground: Ground) -> str:
    """Look for the ENI of each pod's address in the record of its node."""
    pods = ground.web_pods() + ground.fillers()
    if not ground.records.all():
        raise NotApplicableError("there are no NodeNetworks")
    lost = [pod for pod in pods if not ground.records.number(pod.node, pod.address)]
    end = time.monotonic() + 15
    while lost and time.monotonic() < end:  # a record may be 10 s old
        time.sleep(1)
        lost = [pod for pod in lost if not ground.records.number(pod.node, pod.address)]
    said = ", ".join(f"{pod.address} on {pod.node}" for pod in lost)
    require(not lost, f"no ENI of its node's NodeNetwork has {said}")
    enis = Counter(
        f"ENI {ground.records.number(pod.node, pod.address)} of {pod.node}" for pod in pods
    )
    return ", ".join(f"{count} of {eni}" for eni, count in sorted(enis.items()))


def is_silent_and_rests(ground: Ground) -> str:
    """End a pod, ask its address, and look which one the next pod of the node gets."""
    asker, _ = ground.pair()
    node = next(node for node in reversed(list(ground.nodes)) if node != asker.node)
    spec = ground.pod_spec(node)
    address = ground.run_pod("short-lived", spec)["status"]["podIP"]
    seen = ground.fetch(asker.name, address)
    require(seen.server == "short-lived", f"{seen.server} answered at {address}")
    ground.end_pod("short-lived")
    ended = time.monotonic()
    (answer,) = ground.ask(asker.name, {"do": "connect", "to": address, "port": PORT})
    still = f"{address} answers though its pod is gone: {answer['state']}"
    require(answer["state"] in {"unreachable", "silent"}, still)
    following = ground.run_pod("next", spec)["status"]["podIP"]
    took = time.monotonic() - ended
    ground.end_pod("next")
    require(
        following != address or took > RESTS_SECONDS,
        f"the next pod got {address} too, {took:.0f} s after the pod that had it",
    )
    return f"{address} is {answer['state']}; the next pod got {following} after {took:.1f} s"


CHECKS = (
    Check(
        "pods-have-vpc-addresses",
        "a Deployment's pods run on every node, each with an address of the VPC in status.podIPs",
        "the plugin gave no address or the wrong one: `kubectl describe pod`, `enid status`",
        have_vpc_addresses,
    ),
    Check(
        "addresses-are-unique",
        "no two pods of the whole cluster have one address, and none has a node's",
        "an address was given twice: `enid doctor` on both nodes, and the issue to us",
        are_unique,
    ),
    Check(
        "addresses-are-recorded",
        "the NodeNetwork of each node names the ENI that a pod's address is of",
        "the daemon does not write its record: its log, its rights on nodenetworks/status",
        are_recorded,
    ),
    Check(
        "released-address-rests",
        "a deleted pod's address no longer answers, and the next pod gets another",
        "a route or guard was left or not made (`enid doctor`), or IP_COOLDOWN_PERIOD is short",
        is_silent_and_rests,
    ),
)
"""All, in their order."""
