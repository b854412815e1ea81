"""That a pod cannot be another: packets with a foreign source do not arrive. Shell."""

from __future__ import annotations

import json
import secrets

from vpclab.checks.check import Check, require
from vpclab.checks.ground import PORT, Ground, WebPod

GUEST = "guest"
"""The pod that may change its own addresses; it cannot change what its node does with them."""


def _heard(ground: Ground, pod: WebPod) -> list[tuple[str, str]]:
    """Return the datagrams that a pod has got: who sent each, and its first word."""
    question = {"do": "http", "to": "127.0.0.1", "port": PORT, "path": "/heard"}
    (answer,) = ground.ask(pod.name, question)
    require("error" not in answer, f"{pod.name}: {answer.get('error')}")
    return [(source, word) for source, word in json.loads(answer["texts"][0])]


def _refused(ground: Ground, source: str, target: WebPod) -> str:
    """Send from the guest by its own address and by another's; only the first may arrive."""
    honest, lie = f"honest-{secrets.token_hex(4)}", f"lie-{secrets.token_hex(4)}"
    ground.send(GUEST, target.address, word=honest)
    ground.ask(
        GUEST,
        {"do": "spoof", "source": source, "to": str(target.address), "port": PORT, "word": lie},
    )
    heard = {word: who for who, word in _heard(ground, target)}
    require(honest in heard, f"{target.name} did not hear what {GUEST} sent by its own address")
    require(lie not in heard, f"{target.address} got what {GUEST} sent as {heard.get(lie)}")
    return f"{target.address} hears {heard[honest]} and not the same pod as {source}"


def neighbour(ground: Ground) -> str:
    """Let a pod send as another pod of its node."""
    here = [pod for pod in ground.web_pods() if pod.node == ground.first]
    _, there = ground.pair()
    return "; ".join(_refused(ground, str(here[0].address), target) for target in (here[-1], there))


def foreign(ground: Ground) -> str:
    """Let a pod send as its node, as a pod of another node, and as a host outside the VPC."""
    here = [pod for pod in ground.web_pods() if pod.node == ground.first]
    _, there = ground.pair()
    sources = [str(there.address), "198.51.100.77"]
    return "; ".join(_refused(ground, source, here[0]) for source in sources)


CHECKS = (
    Check(
        "spoofed-neighbour",
        "a pod cannot send as another pod of its node, neither to its node's pods nor to others",
        "the node does not look at who sends: rp_filter of the pod's veth is not 1. `enid doctor`",
        neighbour,
    ),
    Check(
        "spoofed-foreigner",
        "a pod cannot send as a pod of another node, nor as a host outside",
        "the node does not look at who sends: rp_filter of the pod's veth is not 1. `enid doctor`",
        foreign,
    ),
)
"""All, in their order."""
