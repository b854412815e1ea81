"""The checks of a pod network. Shell.

Each looks at what a pod sees, or at what a server saw of it: a packet that arrives with another
source than its pod's is a failure although it arrived.
"""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import IPv4Address
from typing import TypeAlias

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import PORT, SCRIPT, Ground, WebPod
from vpclab.cluster.api import is_true

Pair: TypeAlias = tuple[WebPod, WebPod]
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
HOST_PORT = 18080
TRIES = 15
"""Requests to a Service for each of its pods: that one of four healthy ones is not met once has a
chance of one in eight million."""


def _pods(ground: Ground) -> list[WebPod]:
    pods = ground.web_pods()
    if not pods:
        raise NotApplicableError("no pod is ready")
    return pods


def _pairs(ground: Ground, *, on_one_node: bool) -> list[Pair]:
    pods = ground.web_pods()
    pairs = [(a, b) for a in pods for b in pods if a != b and (a.node == b.node) == on_one_node]
    if not pairs:
        where = "one node" if on_one_node else "different nodes"
        raise NotApplicableError(f"there are no two pods on {where}")
    return pairs


def _reach(ground: Ground, pairs: list[Pair]) -> str:
    for a, b in pairs:
        seen = ground.fetch(a.name, b.address)
        instead = f"{b.name} saw {seen.source} instead of {a.name}'s {a.address}"
        require(seen.server == b.name, f"{a.name} asked {b.name}, and {seen.server} answered")
        require(seen.source == a.address, instead)
    return f"{len(pairs)} pairs, each seen by the pod's own address"


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


def reach_on_one_node(ground: Ground) -> str:
    """Let pods of one node fetch from each other."""
    return _reach(ground, _pairs(ground, on_one_node=True))


def reach_across_nodes(ground: Ground) -> str:
    """Let pods of different nodes fetch from each other."""
    return _reach(ground, _pairs(ground, on_one_node=False))


def cluster_ip(ground: Ground) -> str:
    """Fetch from a Service until each of its pods has answered."""
    address = ground.service("web")["spec"]["clusterIP"]
    return _meets_all(ground, address, 80, keeps_source=True)


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
    return f"{where}:{port}: {tries} requests, {len(servers)} pods answered"


def node_port(ground: Ground) -> str:
    """Fetch from a NodePort on each node, whose pods may be on another."""
    port = ground.service("web-port")["spec"]["ports"][0]["nodePort"]
    said = [
        _meets_all(ground, ground.address_of(node), port, keeps_source=False)
        for node in ground.nodes
    ]
    return "; ".join(said)


def node_port_local(ground: Ground) -> str:
    """Fetch from a NodePort of local pods only, from another node: the source is kept."""
    port = ground.service("web-local")["spec"]["ports"][0]["nodePort"]
    pairs = _pairs(ground, on_one_node=False)
    for a, b in pairs:
        seen = ground.fetch(a.name, ground.address_of(b.node), port)
        local = {pod.name for pod in ground.web_pods() if pod.node == b.node}
        require(seen.server in local, f"{seen.server} is not on {b.node}")
        require(seen.source == a.address, f"{seen.server} saw {seen.source}, not {a.address}")
    return f"{len(pairs)} requests, answered on the node, seen by the pod's own address"


def kubelet_probes(ground: Ground) -> str:
    """Count what kubelets' probes said: they reach each pod from its node."""
    pods = ground.api.pods(ground.namespace, "app=web")
    statuses = [pod["status"]["containerStatuses"][0] for pod in pods]
    require(all(one["ready"] for one in statuses), "a pod is not ready")
    restarts = sum(one["restartCount"] for one in statuses)
    require(not restarts, f"{restarts} restarts: a liveness probe did not reach its pod")
    return f"{len(pods)} pods are ready by HTTP probes, and none was restarted"


def names(ground: Ground) -> str:
    """Resolve a Service's name in a pod, short and whole."""
    _require_dns(ground)
    wanted = ground.service("web")["spec"]["clusterIP"]
    name = f"web.{ground.namespace}.svc.cluster.local"
    for pod in _pods(ground):
        found = _resolved(ground, pod, name)
        require(wanted in found, f"{pod.name} resolves {name} to {found}, not to {wanted}")
        seen = ground.fetch(pod.name, "web", 80)
        require(seen.server, f"{pod.name} does not reach http://web")
    return f"{name} is {wanted} in every pod, and http://web answers"


def headless(ground: Ground) -> str:
    """Resolve a headless Service, which names its pods."""
    _require_dns(ground)
    pods = _pods(ground)
    name = f"web-each.{ground.namespace}.svc.cluster.local"
    found = _resolved(ground, pods[0], name)
    require(found == {str(pod.address) for pod in pods}, f"{name} is {sorted(found)}")
    return f"{name} is its {len(found)} pods"


def _require_dns(ground: Ground) -> None:
    if not ground.api.pods("kube-system", "k8s-app=kube-dns"):
        raise NotApplicableError("the cluster has no pods with k8s-app=kube-dns")


def _resolved(ground: Ground, pod: WebPod, name: str) -> set[str]:
    out = ground.run(pod.name, "timeout", "10", "nslookup", "-type=a", f"{name}.")
    return set(ADDRESS.findall(out.partition("\n\n")[2]))


def api_server(ground: Ground) -> str:
    """Reach the API server by its Service, as every controller does."""
    address = ground.api.ask("GET", "/api/v1/namespaces/default/services/kubernetes")
    where = str(address["spec"]["clusterIP"])
    for pod in _pods(ground):
        ground.run(pod.name, "timeout", "10", "nc", "-w", "5", where, "443", "-e", "/bin/true")
    return f"{where}:443 accepts connections of every pod"


def node_to_pod(ground: Ground) -> str:
    """Ask each pod from a pod with the network of another node."""
    pods = _pods(ground)
    spec = {
        "hostNetwork": True, "nodeName": pods[0].node, "containers": [
            {**ground.container(), "command": ["sleep", "3600"]}
        ], "terminationGracePeriodSeconds": 1,
    }  # fmt: skip
    ground.create("Pod", "host", spec)
    ground.wait(lambda: _runs(ground, "host"), "the pod on the host's network")
    host = ground.address_of(pods[0].node)
    for pod in pods:
        seen = ground.fetch("host", pod.address, PORT)
        require(seen.server == pod.name, f"{seen.server} answered for {pod.name}")
        if pod.node != pods[0].node:
            require(seen.source == host, f"{pod.name} saw {seen.source}, not the node's {host}")
    return f"{len(pods)} pods answered {IPv4Address(host)}"


def host_port(ground: Ground) -> str:
    """Give a pod a port of its node, and ask it there from other nodes."""
    first = _pods(ground)[0]
    spec = {
        "nodeName": first.node, "terminationGracePeriodSeconds": 1,
        "containers": [{
            **ground.container(), "command": ["sh", "-c", SCRIPT],
            "ports": [{"containerPort": PORT, "hostPort": HOST_PORT}],
            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        }],
    }  # fmt: skip
    ground.create("Pod", "host-port", spec)
    ground.wait(lambda: _is_ready(ground, "host-port"), "the pod with a hostPort")
    others = [pod for pod in _pods(ground) if pod.node != first.node]
    if not others:
        raise NotApplicableError("there is one node only")
    node = ground.address_of(first.node)
    for pod in others:
        seen = ground.fetch(pod.name, node, HOST_PORT)
        require(seen.server == "host-port", f"{node}:{HOST_PORT} is {seen.server}")
        require(seen.source == pod.address, f"it saw {seen.source}, not {pod.address}")
    return (
        f"{len(others)} pods of other nodes reach {node}:{HOST_PORT}, seen by their own addresses"
    )


def _is_ready(ground: Ground, name: str) -> bool:
    pods = {pod["metadata"]["name"]: pod for pod in ground.api.pods(ground.namespace)}
    return name in pods and is_true(pods[name], "Ready")


def rolled_out(ground: Ground) -> str:
    """Look at enid's own DaemonSet."""
    query = "labelSelector=app.kubernetes.io%2Fname%3Denid"
    found = ground.api.listed(f"/apis/apps/v1/daemonsets?{query}")
    if not found:
        raise NotApplicableError("there is no DaemonSet with app.kubernetes.io/name=enid")
    (daemons,) = found
    status, wanted = daemons["status"], daemons["status"]["desiredNumberScheduled"]
    ready, new = status.get("numberReady", 0), status.get("updatedNumberScheduled", 0)
    require(ready == new == wanted, f"of {wanted} pods {ready} are ready, {new} are the newest")
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    return f"{ready} of {wanted} pods are ready, with {container['image']}"


def _runs(ground: Ground, name: str) -> bool:
    pods = {pod["metadata"]["name"]: pod for pod in ground.api.pods(ground.namespace)}
    return name in pods and pods[name]["status"].get("phase") == "Running"


NETWORK: tuple[Check[Ground], ...] = (
    Check(
        "enid-is-rolled-out",
        "each node has a pod of enid's DaemonSet, of its newest template, and it is ready",
        "`kubectl describe` of the pod that is not, and the log of its container `install`",
        rolled_out,
    ),
    Check(
        "pods-have-vpc-addresses",
        "a Deployment's pods run on every node, each with an address of the VPC in status.podIPs",
        "the plugin gave no address or the wrong one: `kubectl describe pod`, `enid status`",
        have_vpc_addresses,
    ),
    Check(
        "kubelet-probes",
        "kubelets reach their pods: readiness and liveness probes by HTTP pass",
        "the route from the node to its pods, or the answer's way back: `enid doctor`",
        kubelet_probes,
    ),
    Check(
        "pod-to-pod-on-a-node",
        "pods of one node reach each other, and are seen by their own addresses",
        "a host route or a pod's default route is missing: `enid doctor` on that node",
        reach_on_one_node,
    ),
    Check(
        "pod-to-pod-across-nodes",
        "pods of different nodes reach each other, and are seen by their own addresses",
        "a source that is the node's: SNAT within the VPC; no answer: the ENI's rule or the"
        " security group. `enid doctor`, `enid why`",
        reach_across_nodes,
    ),
    Check(
        "node-to-pod",
        "a node reaches the pods of all nodes by its own address",
        "security groups between nodes, or the return path: `enid doctor`",
        node_to_pod,
    ),
    Check(
        "cluster-ip",
        "a Service leads to each of its pods, which see the client's own address",
        "kube-proxy, or our SNAT before its DNAT: `enid doctor`",
        cluster_ip,
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
        "host-port",
        "a pod's hostPort answers on its node, and the pod sees the client's own address",
        "`portmap` is not behind enid-cni in the conflist (cni.chained), or not on the node",
        host_port,
    ),
    Check(
        "api-server",
        "every pod reaches the API server by its Service",
        "kube-proxy, or the way from pods to the control plane: its security group",
        api_server,
    ),
    Check(
        "dns",
        "a Service's name resolves in every pod, short and whole, and answers",
        "CoreDNS, or UDP from pods to it",
        names,
    ),
    Check(
        "headless",
        "a headless Service's name is the addresses of its pods",
        "CoreDNS or the EndpointSlices",
        headless,
    ),
)
"""All, in the order of what is built on what."""
