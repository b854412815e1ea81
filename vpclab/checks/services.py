"""Services: every kind of them, from pods and from nodes. Shell."""

from __future__ import annotations

import time
from collections import Counter
from ipaddress import IPv4Address
from typing import Any

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import PORT, Ground, WebPod, of_version_4
from vpclab.checks.reach import pairs

HOST_PORT = 18080
TRIES = 15
"""Requests to a Service for each of its pods: that one of four healthy ones is not met once has a
chance of one in eight million."""

AT_ONCE_SECONDS = 1.5
"""What is refused at once: a rejected connection takes a millisecond; a dropped one would be tried
again after 1 s and 3 s."""

SETTLE_SECONDS = 15.0
"""In which kube-proxy and portmap have taken away what they made."""


def _pods(ground: Ground) -> list[WebPod]:
    pods = ground.web_pods()
    if not pods:
        raise NotApplicableError("no pod is ready")
    return pods


def cluster_ip_of(ground: Ground, name: str) -> IPv4Address:
    """Return a Service's address."""
    return of_version_4(ground.service(name)["spec"]["clusterIP"])


def _port_of(ground: Ground, name: str) -> int:
    return int(ground.service(name)["spec"]["ports"][0]["nodePort"])


def cluster_ip(ground: Ground) -> str:
    """Fetch from a Service until each of its pods has answered."""
    return _meets_all(ground, cluster_ip_of(ground, "web"), 80, keeps_source=True)


def _meets_all(ground: Ground, where: object, port: int, *, keeps_source: bool) -> str:
    pods = _pods(ground)
    one, servers = pods[0], Counter[str]()
    tries = TRIES * len(pods)
    for seen in ground.fetch_often(tries, one.name, where, port):
        # A pod that reaches itself by a Service is masqueraded (kube-proxy's hairpin).
        own = {one.address} if keeps_source and seen.server != one.name else set()
        require(not own or seen.source in own, f"{seen.server} saw {seen.source}, not {own}")
        servers[seen.server] += 1
    silent = {pod.name for pod in pods} - set(servers)
    require(not silent, f"of {tries} requests none came to {sorted(silent)}")
    return f"{tries} requests to {where}:{port} came to {len(servers)} pods"


def cluster_ip_udp(ground: Ground) -> str:
    """Send datagrams to a Service from a pod of each node."""
    address = cluster_ip_of(ground, "web")
    pods = {pod.node: pod for pod in _pods(ground)}
    servers = set()
    for pod in pods.values():
        seen = ground.send(pod.name, address, 80)
        is_own = seen.server == pod.name  # kube-proxy's hairpin
        require(is_own or seen.source == pod.address, f"{seen.server} saw {seen.source}")
        servers.add(seen.server)
    return f"{address}:80/UDP answered pods of {len(pods)} nodes, by {len(servers)} pods"


def hairpin(ground: Ground) -> str:
    """Fetch from a Service until the pod that asks has answered itself."""
    address, pods = cluster_ip_of(ground, "web"), _pods(ground)
    one = pods[0]
    seen = ground.fetch_often(TRIES * len(pods), one.name, address, 80)
    own = [answer for answer in seen if answer.server == one.name]
    require(own, f"of {len(seen)} requests of {one.name} to {address} none came to itself")
    return f"{len(own)} of {len(seen)} requests came to {one.name} itself, as from {own[0].source}"


def affinity(ground: Ground) -> str:
    """Fetch often from a Service with session affinity, from two pods."""
    address, tries = cluster_ip_of(ground, "web-same"), 12
    said = []
    for pod in _pods(ground)[:2]:
        servers = {seen.server for seen in ground.fetch_often(tries, pod.name, address, 80)}
        require(len(servers) == 1, f"{pod.name} was answered by {sorted(servers)}")
        said.append(f"{pod.name} {tries} times by {servers.pop()}")
    return ", ".join(said)


def without_endpoints(ground: Ground) -> str:
    """Connect to a Service without pods, which refuses at once."""
    address = cluster_ip_of(ground, "nobody")
    (answer,) = ground.ask(_pods(ground)[0].name, {"do": "connect", "to": str(address), "port": 80})
    state, seconds = answer["state"], answer["seconds"]
    require(state in {"refused", "unreachable"}, f"{address}:80 was {state} after {seconds:.1f} s")
    require(seconds < AT_ONCE_SECONDS, f"{address}:80 was {state} after {seconds:.1f} s only")
    return f"{address}:80 is {state} after {1000 * seconds:.0f} ms"


def node_port(ground: Ground) -> str:
    """Fetch from a NodePort on each node, whose pods may be on another."""
    port = _port_of(ground, "web-port")
    said = [
        _meets_all(ground, ground.address_of(node), port, keeps_source=False)
        for node in ground.nodes
    ]
    return "; ".join(said)


def node_port_local(ground: Ground) -> str:
    """Fetch from a NodePort of local pods only, from another node: the source is kept."""
    port = _port_of(ground, "web-local")
    found = pairs(ground, on_one_node=False)
    servers = {node: {p.name for p in ground.web_pods() if p.node == node} for node in ground.nodes}
    for a in dict.fromkeys(a for a, _ in found):
        nodes = sorted({b.node for other, b in found if other == a})
        targets = [(ground.address_of(node), port) for node in nodes]
        for node, seen in zip(nodes, ground.fetch_all(a.name, targets), strict=True):
            require(seen.server in servers[node], f"{seen.server} is not on {node}")
            require(seen.source == a.address, f"{seen.server} saw {seen.source}, not {a.address}")
    return f"pods of {len(ground.nodes)} nodes, answered on the node, seen by their own addresses"


def node_port_from_a_node(ground: Ground) -> str:
    """Fetch from a NodePort on the very node that asks, and on another."""
    port, count = _port_of(ground, "web-port"), 0
    for node in ground.nodes:
        name, _, _ = ground.host(node)
        for target in ground.nodes:
            ground.fetch_often(3, name, ground.address_of(target), port)
            count += 3
    return f"{count} requests of nodes to themselves and others were answered"


# hostPort --------------------------------------------------------------------------------
def host_port(ground: Ground) -> str:
    """Give a pod a port of its node, and ask it there from other nodes."""
    first, others = _host_port_pod(ground)
    node = ground.address_of(first.node)
    for pod in others:
        seen = ground.fetch(pod.name, node, HOST_PORT)
        require(seen.server == "host-port", f"{node}:{HOST_PORT} is {seen.server}")
        require(seen.source == pod.address, f"it saw {seen.source}, not {pod.address}")
    reach = "reach" if others[1:] else "reaches"
    return (
        f"{len(others)} pods of other nodes {reach} {node}:{HOST_PORT}, seen by their own addresses"
    )


def _host_port_pod(ground: Ground) -> tuple[WebPod, list[WebPod]]:
    pods = _pods(ground)
    first, others = pods[0], [pod for pod in pods if pod.node != pods[0].node]
    if not others:
        raise NotApplicableError("there is one node only")
    if "host-port" not in [pod["metadata"]["name"] for pod in ground.pods()]:
        ports: list[Any] = [{"containerPort": PORT, "hostPort": HOST_PORT}]
        probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
        ground.run_pod("host-port", ground.pod_spec(first.node, ports=ports, readinessProbe=probe))
    return first, others


def host_port_gone(ground: Ground) -> str:
    """End the pod with a hostPort, and ask once more."""
    first, others = _host_port_pod(ground)
    node, asker = ground.address_of(first.node), others[0]
    question = {"do": "connect", "to": str(node), "port": HOST_PORT, "seconds": 1.5}
    (before,) = ground.ask(asker.name, question)
    require(before["state"] == "open", f"{node}:{HOST_PORT} was {before['state']} before, too")
    ground.end_pod("host-port")
    end = time.monotonic() + SETTLE_SECONDS
    (after,) = ground.ask(asker.name, question)
    while after["state"] == "open" and time.monotonic() < end:
        (after,) = ground.ask(asker.name, question)
    require(after["state"] != "open", f"{node}:{HOST_PORT} is open though its pod is gone")
    return f"{node}:{HOST_PORT} was open, and is {after['state']} without its pod"


def api_server(ground: Ground) -> str:
    """Reach the API server by its Service, as every controller does."""
    service = ground.api.ask("GET", "/api/v1/namespaces/default/services/kubernetes")
    where = str(of_version_4(service["spec"]["clusterIP"]))
    pods = [*_pods(ground), *ground.fillers()[-1:]]
    each = ground.ask_each(pods, {"do": "connect", "to": where, "port": 443})
    for pod, (answer,) in zip(pods, each, strict=True):
        require(answer["state"] == "open", f"{pod.name}: {where}:443 is {answer['state']}")
    return f"{where}:443 accepts connections of every pod"


CHECKS = (
    Check(
        "cluster-ip",
        "a Service leads to each of its pods, which see the client's own address",
        "kube-proxy, or our SNAT before its DNAT: `enid doctor`",
        cluster_ip,
    ),
    Check(
        "cluster-ip-udp",
        "a Service answers datagrams, too",
        "kube-proxy, or UDP between nodes",
        cluster_ip_udp,
    ),
    Check(
        "hairpin",
        "a pod reaches itself by its own Service",
        "kube-proxy's masquerade of what comes back, or the pod's veth drops it: `enid doctor`",
        hairpin,
    ),
    Check(
        "session-affinity",
        "a Service with session affinity leads a client to one pod",
        "the client's address is not the same each time: somebody masquerades",
        affinity,
    ),
    Check(
        "without-endpoints",
        "a Service without pods refuses at once, and does not let its clients wait",
        "kube-proxy's refusal does not reach the pod: ICMP is dropped on the node",
        without_endpoints,
    ),
    Check(
        "node-port",
        "a NodePort answers on every node, also where the pod is on another",
        "the mark of connections that came by an ENI: AWS_VPC_CNI_NODE_PORT_SUPPORT",
        node_port,
    ),
    Check(
        "node-port-local",
        "a NodePort with externalTrafficPolicy Local keeps the client's address",
        "somebody masquerades what is to be kept",
        node_port_local,
    ),
    Check(
        "node-port-from-a-node",
        "a NodePort answers the node that it is on, and other nodes",
        "kube-proxy, or the way of a node's own packets to pods: `enid doctor`",
        node_port_from_a_node,
    ),
    Check(
        "host-port",
        "a pod's hostPort answers on its node, and the pod sees the client's own address",
        "`portmap` is not behind enid-cni in the conflist (cni.chained), or not on the node",
        host_port,
    ),
    Check(
        "host-port-gone",
        "a hostPort is closed when its pod is gone",
        "`portmap` was not called at the pod's end: containerd's log",
        host_port_gone,
    ),
    Check(
        "api-server",
        "every pod reaches the API server by its Service",
        "kube-proxy, or the way from pods to the control plane: its security group",
        api_server,
    ),
)
"""All, in their order."""
