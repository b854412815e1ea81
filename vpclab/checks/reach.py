"""Who reaches whom, and as whom: pods, nodes, nodes' ENIs, by TCP and UDP. Shell.

Each looks at what a server saw: a packet that arrives with another source than its sender's is a
failure although it arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import PORT, SIDE_BY_SIDE, Ground, WebPod

Pair: TypeAlias = tuple[WebPod, WebPod]


def pairs(ground: Ground, *, on_one_node: bool) -> list[Pair]:
    """Return pods two by two. Raises NotApplicableError."""
    pods = ground.web_pods()
    found = [(a, b) for a in pods for b in pods if a != b and (a.node == b.node) == on_one_node]
    if not found:
        where = "one node" if on_one_node else "different nodes"
        raise NotApplicableError(f"there are no two pods on {where}")
    return found


def _reach(ground: Ground, pairs: Sequence[Pair]) -> str:
    asking = list(dict.fromkeys(a for a, _ in pairs))
    targets = [[b for other, b in pairs if other == a] for a in asking]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        wishes = [[(b.address, PORT) for b in each] for each in targets]
        answers = list(pool.map(ground.fetch_all, [a.name for a in asking], wishes))
    for a, each, found in zip(asking, targets, answers, strict=True):
        for b, seen in zip(each, found, strict=True):
            instead = f"{b.name} saw {seen.source} instead of {a.name}'s {a.address}"
            require(seen.server == b.name, f"{a.name} asked {b.name}, and {seen.server} answered")
            require(seen.source == a.address, instead)
    return f"{len(pairs)} pairs, each seen by the pod's own address"


def _reach_by_udp(ground: Ground, pairs: Iterable[Pair]) -> str:
    asked = list(pairs)
    for a, b in asked:
        seen = ground.send(a.name, b.address)
        require(seen.server == b.name, f"{a.name} asked {b.name}, and {seen.server} answered")
        require(seen.source == a.address, f"{b.name} saw {seen.source} instead of {a.address}")
    return f"{len(asked)} pairs, each seen by the pod's own address"


def on_one_node(ground: Ground) -> str:
    """Let pods of one node fetch from each other."""
    return _reach(ground, pairs(ground, on_one_node=True))


def across_nodes(ground: Ground) -> str:
    """Let pods of different nodes fetch from each other."""
    return _reach(ground, pairs(ground, on_one_node=False))


def udp_across_nodes(ground: Ground) -> str:
    """Let two pods of different nodes send each other datagrams."""
    a, b = ground.pair()
    return _reach_by_udp(ground, [(a, b), (b, a)])


def _around(ground: Ground) -> list[Pair]:
    """Return a pod on a secondary ENI with pods of its node and of others, both ways."""
    far = ground.secondary()
    pods = [pod for pod in ground.web_pods() if pod != far]
    here = [pod for pod in pods if pod.node == far.node][:1]
    there = [pod for pod in pods if pod.node != far.node][:1]
    return [pair for other in here + there for pair in ((far, other), (other, far))]


def across_enis(ground: Ground) -> str:
    """Let a pod on a secondary ENI and pods of its node and of another fetch from each other."""
    return _reach(ground, _around(ground))


def udp_across_enis(ground: Ground) -> str:
    """Let a pod on a secondary ENI and pods of its node and another send each other datagrams."""
    return _reach_by_udp(ground, _around(ground))


# Nodes -----------------------------------------------------------------------------------
def _some_pods(ground: Ground, node: str) -> list[WebPod]:
    """Return a pod of a node, and one on a secondary ENI where it has one."""
    pods = [pod for pod in ground.web_pods() if pod.node == node][:1]
    more = [
        p for p in ground.fillers() if p.node == node and ground.records.number(node, p.address) > 1
    ]
    return pods + more[:1]


def pod_to_own_node(ground: Ground) -> str:
    """Ask each node from its own pods."""
    return _pods_to_nodes(ground, own=True)


def pod_to_other_nodes(ground: Ground) -> str:
    """Ask nodes from pods of others."""
    return _pods_to_nodes(ground, own=False)


def _pods_to_nodes(ground: Ground, *, own: bool) -> str:
    count = 0
    for node in ground.nodes:
        name, address, port = ground.host(node)
        others = [node] if own else [other for other in ground.nodes if other != node]
        for pod in (pod for other in others for pod in _some_pods(ground, other)):
            seen = ground.fetch(pod.name, address, port)
            require(seen.server == name, f"{address}:{port} is {seen.server}, not {name}")
            require(seen.source == pod.address, f"{node} saw {seen.source}, not {pod.address}")
            count += 1
    if not count:
        raise NotApplicableError("there is one node only")
    return f"{count} times a node saw the pod's own address"


def node_to_own_pods(ground: Ground) -> str:
    """Ask pods from their own nodes."""
    count = 0
    for node in ground.nodes:
        name, _, _ = ground.host(node)
        pods = _some_pods(ground, node)
        for pod, seen in zip(
            pods, ground.fetch_all(name, [(pod.address, PORT) for pod in pods]), strict=True
        ):
            require(seen.server == pod.name, f"{seen.server} answered for {pod.name}")
            count += 1
    return f"{count} pods answered the node that they are on"


def node_to_other_pods(ground: Ground) -> str:
    """Ask pods from other nodes, which they see by the nodes' own addresses."""
    count = 0
    for node in ground.nodes:
        name, own, _ = ground.host(node)
        pods = [pod for pod in ground.web_pods() if pod.node != node]
        for pod, seen in zip(
            pods, ground.fetch_all(name, [(pod.address, PORT) for pod in pods]), strict=True
        ):
            require(seen.server == pod.name, f"{seen.server} answered for {pod.name}")
            require(seen.source == own, f"{pod.name} saw {seen.source}, not the node's {own}")
            count += 1
    if not count:
        raise NotApplicableError("there is one node only")
    return f"{count} times a pod saw the node's own address"


def node_to_node(ground: Ground) -> str:
    """Ask nodes from each other: what is beside pods."""
    hosts = [ground.host(node) for node in ground.nodes]
    asked = [(a, b) for a in hosts for b in hosts if a != b]
    if not asked:
        raise NotApplicableError("there is one node only")
    for (name, own, _), (other, address, port) in asked:
        seen = ground.fetch(name, address, port)
        require(seen.server == other, f"{address}:{port} is {seen.server}, not {other}")
        require(seen.source == own, f"{address} saw {seen.source}, not {own}")
    return f"{len(asked)} pairs, each seen by the node's own address"


CHECKS = (
    Check(
        "pod-to-pod-on-a-node",
        "pods of one node reach each other, and are seen by their own addresses",
        "a host route or a pod's default route is missing: `enid doctor` on that node",
        on_one_node,
    ),
    Check(
        "pod-to-pod-across-nodes",
        "pods of different nodes reach each other, and are seen by their own addresses",
        "a source that is the node's: SNAT within the VPC; no answer: the ENI's rule or the"
        " security group. `enid doctor`",
        across_nodes,
    ),
    Check(
        "pod-to-pod-across-enis",
        "a pod on a secondary ENI and pods on primary ones, of its node and of another, reach each"
        " other and are seen by their own addresses",
        "the rule or table of the secondary ENI, or its security groups: `enid doctor`",
        across_enis,
    ),
    Check(
        "udp-across-nodes",
        "datagrams of pods on different nodes are answered, and have the pod's own address",
        "a security group or network ACL lets TCP through, and UDP not",
        udp_across_nodes,
    ),
    Check(
        "udp-across-enis",
        "datagrams from and to a pod on a secondary ENI are answered, with the pod's own address",
        "the rule or table of the secondary ENI: `enid doctor`",
        udp_across_enis,
    ),
    Check(
        "pod-to-own-node",
        "a pod reaches its own node, which sees the pod's address",
        "a host firewall, or somebody masquerades what is local",
        pod_to_own_node,
    ),
    Check(
        "pod-to-other-node",
        "a pod reaches other nodes, which see the pod's address",
        "the security group of nodes, or SNAT within the VPC: AWS_VPC_K8S_CNI_EXTERNALSNAT",
        pod_to_other_nodes,
    ),
    Check(
        "node-to-own-pods",
        "a node reaches its own pods on every ENI, as kubelet must",
        "a pod's route on its node: `enid doctor`",
        node_to_own_pods,
    ),
    Check(
        "node-to-pod",
        "a node reaches the pods of other nodes by its own address",
        "security groups between nodes, or the return path: `enid doctor`",
        node_to_other_pods,
    ),
    Check(
        "node-to-node",
        "nodes reach each other by their own addresses",
        "this is not the pods' network: the security group of nodes, or the VPC's routes",
        node_to_node,
    ),
)
"""All, in their order."""
