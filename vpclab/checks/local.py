"""Link-local addresses of a node that its pods use: DNS cache, Pod Identity agent. Shell.

Where nobody has such an address, a pod on the host's network puts it on `lo`, serves there, and
takes it off again when it ends; where somebody has, that is asked.
"""

from __future__ import annotations

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import Answer, Ground, WebPod

NODE_LOCAL_DNS = "169.254.20.10"
POD_IDENTITY = "169.254.170.23"
IDENTITY_PORT = 80
LOCAL_PORT = 18053
"""Ours, while nobody else serves there."""


def _asking(ground: Ground) -> list[WebPod]:
    """Return a pod of the first node on its primary ENI and one on a secondary."""
    far = ground.secondary()
    return [far, *[pod for pod in ground.web_pods() if pod.node == far.node and pod != far][:1]]


def _serves(ground: Ground, node: str, address: str) -> str:
    """Have a server on a node's *address*; return its pod's name."""
    name = f"local-{address.replace('.', '-')}"
    spec = ground.pod_spec(
        node, words=("local", address, str(LOCAL_PORT)), capabilities=["NET_ADMIN"]
    )
    ground.run_pod(name, {**spec, "hostNetwork": True})
    ground.wait(lambda: bool(ground.ask(name, {"do": "port"})[0]["port"]), f"{name} serves")
    return name


def node_local_dns(ground: Ground) -> str:
    """Ask the node's own DNS cache, or what stands in for it."""
    question = {"do": "dns", "name": "kubernetes.default.svc.cluster.local"}
    return _asked(ground, NODE_LOCAL_DNS, {**question, "server": NODE_LOCAL_DNS})


def pod_identity(ground: Ground) -> str:
    """Ask EKS' Pod Identity agent, or what stands in for it."""
    question = {"do": "connect", "to": POD_IDENTITY, "port": IDENTITY_PORT}
    return _asked(ground, POD_IDENTITY, question)


def _asked(ground: Ground, address: str, of_owner: Answer) -> str:
    pods = _asking(ground)
    name = _serves(ground, pods[0].node, address)
    try:
        if ground.port(name):
            for pod in pods:
                seen = ground.fetch(pod.name, address, LOCAL_PORT)
                require(seen.server == name, f"{address} is {seen.server}")
                require(seen.source == pod.address, f"{address} saw {seen.source}")
                ground.send(pod.name, address, LOCAL_PORT)
            who = _who(ground, pods)
            return f"served for the check on {pods[0].node}: {who} reach it, TCP and UDP"
        for pod in pods:
            (answer,) = ground.ask(pod.name, of_owner)
            said = answer.get("error") or answer.get("state", "open")
            require(said == "open", f"{pod.address} asks {address}: {said}")
        return f"whoever has it on {pods[0].node} answers {_who(ground, pods)}"
    finally:
        ground.end_pod(name)


def _who(ground: Ground, pods: list[WebPod]) -> str:
    numbers = [ground.records.number(pod.node, pod.address) for pod in pods]
    if not numbers:
        raise NotApplicableError("there are no pods")
    return " and ".join(
        f"{pod.address} on ENI {number}" for pod, number in zip(pods, numbers, strict=True)
    )


CHECKS = (
    Check(
        "node-local-dns",
        f"pods on the primary and on a secondary ENI reach {NODE_LOCAL_DNS}, the node's DNS cache",
        "a secondary ENI's rule leads what is the node's own away from it: `enid doctor`",
        node_local_dns,
    ),
    Check(
        "pod-identity",
        f"pods on the primary and on a secondary ENI reach {POD_IDENTITY}, the Pod Identity agent",
        "a secondary ENI's rule leads what is the node's own away from it: `enid doctor`",
        pod_identity,
    ),
)
"""All, in their order."""
