"""Out of the VPC, and to the instance's metadata. Shell."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import Answer, Ground, WebPod

OUTSIDE = "checkip.amazonaws.com"
"""AWS's own answer to "which address do I have?", over the internet. The lab has one, too."""


def _asking(ground: Ground) -> list[WebPod]:
    """Return a pod of each node, and one on a secondary ENI where there is one."""
    pods = {pod.node: pod for pod in ground.web_pods()}
    with contextlib.suppress(NotApplicableError):
        ground.secondary()
    return [*pods.values(), *ground.on_secondaries()[:1]]


def _address_in(answer: Answer) -> str:
    """Return the address that was answered, else what there was instead."""
    words = (answer["texts"][0] if "texts" in answer else "").split()
    try:
        return str(ip_address(words[0].strip(",")))
    except (IndexError, ValueError):
        return f"no address ({answer.get('error') or words})"


def masqueraded(ground: Ground) -> str:
    """Ask a server on the internet which address it sees, from nodes and from their pods."""
    question = {"do": "http", "to": OUTSIDE, "port": 80, "seconds": 4}
    seen = {}
    for node in ground.nodes:
        (answer,) = ground.ask(ground.host(node)[0], question)
        seen[node] = _address_in(answer)
    if not all(address[0].isdigit() for address in seen.values()):
        raise NotApplicableError(f"nodes get from http://{OUTSIDE}: {seen}")
    pods = _asking(ground)
    for pod, (answer,) in zip(pods, ground.ask_each(pods, question), strict=True):
        found = _address_in(answer)
        wanted = seen[pod.node]
        require(found == wanted, f"{pod.address} is seen as {found}, its node as {wanted}")
    said = ", ".join(f"{node} and its pods as {address}" for node, address in seen.items())
    one = len(set(seen.values())) == 1 < len(seen)
    return said + (", which is one NAT gateway's for all" if one else "")


def metadata(ground: Ground) -> str:
    """Ask the metadata service for a token, from nodes and from pods on each ENI."""
    for node in ground.nodes:
        (answer,) = ground.ask(ground.host(node)[0], {"do": "imds"})
        if not answer.get("token"):
            why = answer.get("error") or answer.get("said")
            raise NotApplicableError(f"{node} itself gets no token of 169.254.169.254: {why}")
    said: dict[str, list[str]] = {}
    pods = _asking(ground)
    for pod, (answer,) in zip(pods, ground.ask_each(pods, {"do": "imds"}), strict=True):
        number = ground.records.number(pod.node, pod.address)
        word = "reach" if answer.get("token") else "do not reach"
        said.setdefault(word, []).append(f"ENI {number or '?'} of {pod.node}")
    both = "; ".join(f"those on {', '.join(where)} {word} it" for word, where in said.items())
    nodes: dict[str, set[str]] = {}
    for word, where in said.items():
        for place in where:
            nodes.setdefault(place.rpartition(" ")[2], set()).add(word)
    differing = [node for node, words in nodes.items() if len(words) > 1]
    require(not differing, f"pods of {', '.join(differing)} differ: {both}")
    return f"nodes reach it; of pods, {both}"


CHECKS = (
    Check(
        "outside",
        "a host outside the VPC sees a pod, on whichever ENI, by its node's address there",
        "SNAT: AWS_VPC_K8S_CNI_EXTERNALSNAT and the routes that it needs; `enid doctor`",
        masqueraded,
    ),
    Check(
        "metadata",
        "all pods of a node reach the instance's metadata, or none does, whichever ENI they are on",
        "the hop limit of the instance, or ENID_BLOCK_POD_METADATA, is not the same for all ENIs:"
        " `enid doctor`",
        metadata,
    ),
)
"""All, in their order."""
