"""What a pod sees of its own network, and kubelet of the pod. Shell."""

from __future__ import annotations

from typing import Any

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import Ground, WebPod

GATEWAY = "169.254.1.1"
"""A pod's way out, on no interface; the AWS VPC CNI's own."""

EVERYWHERE = "0.0.0.0"  # noqa: S104 - a route's destination
ALL_ONES = "255.255.255.255"


def _inside(ground: Ground) -> list[tuple[WebPod, Any]]:
    pods = [*ground.web_pods(), *ground.on_secondaries()[:1]]
    if not pods:
        raise NotApplicableError("no pod is ready")
    answers = ground.ask_each(pods, {"do": "inside"})
    return [(pod, answer) for pod, (answer,) in zip(pods, answers, strict=True)]


def links(ground: Ground) -> str:
    """Look at the links of pods."""
    mtus = set()
    for pod, inside in _inside(ground):
        found = {link["name"]: link for link in inside["links"]}
        require(set(found) >= {"lo", "eth0"}, f"{pod.name} has the links {sorted(found)}")
        require(found["lo"]["up"], f"lo of {pod.name} is down")
        require("127.0.0.1" in found["lo"]["addresses"], f"lo of {pod.name} has no 127.0.0.1")
        require(found["eth0"]["up"], f"eth0 of {pod.name} is down")
        four = [one for one in found["eth0"]["networks"] if ":" not in one]
        require(
            four == [f"{pod.address}/32"], f"eth0 of {pod.name} has {four}, not {pod.address}/32"
        )
        mtus.add(found["eth0"]["mtu"])
    require(len(mtus) == 1, f"pods' links have different MTUs: {sorted(mtus)}")
    return f"lo and eth0 are up, eth0 has one /32 and an MTU of {mtus.pop()}"


def routes(ground: Ground) -> str:
    """Look at the routes of pods."""
    wanted = [["eth0", EVERYWHERE, GATEWAY, EVERYWHERE], ["eth0", GATEWAY, EVERYWHERE, ALL_ONES]]
    for pod, inside in _inside(ground):
        found = inside["routes"]
        require(sorted(found) == wanted, f"the routes of {pod.name} are {found}")
    return f"one default route, by {GATEWAY}, and one to it"


def kubelet_probes(ground: Ground) -> str:
    """Count what kubelets' probes said: they reach each pod from its node."""
    pods = ground.pods("app=web")
    statuses = [pod["status"]["containerStatuses"][0] for pod in pods]
    require(all(one["ready"] for one in statuses), "a pod is not ready")
    restarts = sum(one["restartCount"] for one in statuses)
    require(not restarts, f"{restarts} restarts: a liveness probe did not reach its pod")
    return f"{len(pods)} pods are ready by HTTP probes, and none was restarted"


def host_network(ground: Ground) -> str:
    """Look at the addresses of pods on their hosts' networks."""
    for node in ground.nodes:
        name, own, _ = ground.host(node)
        found = ground.pod(name)["status"]["podIP"]
        require(found == str(own), f"{name} on {node} has {found}, not the node's {own}")
    return f"each of {len(ground.nodes)} has its node's address"


CHECKS = (
    Check(
        "sandbox-links",
        "in a pod `lo` is up, and `eth0` is up with the pod's address as a /32 and nothing else",
        "the plugin of another CNI ran, too, or the wire was changed: `enid doctor`",
        links,
    ),
    Check(
        "sandbox-routes",
        f"a pod has one default route, by {GATEWAY}, and no other way out",
        "somebody has changed the pod's routes, as a sidecar may",
        routes,
    ),
    Check(
        "kubelet-probes",
        "kubelets reach their pods: readiness and liveness probes by HTTP pass",
        "the route from the node to its pods, or the answer's way back: `enid doctor`",
        kubelet_probes,
    ),
    Check(
        "host-network",
        "a pod on its host's network has its node's address",
        "kubelet does not know its node's address: --node-ip",
        host_network,
    ),
)
"""All, in their order."""
