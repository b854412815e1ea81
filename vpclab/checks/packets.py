"""Large packets and much of them: MTU, fragments, transfers. Shell."""

from __future__ import annotations

import errno

from vpclab.checks.check import Check, require
from vpclab.checks.ground import PORT, Answer, Ground, WebPod

HEADS = 28
"""Bytes of an IPv4 head and a UDP head."""

LARGE = 4_000_000
HUGE = 64_000_000
SUSTAINED = 400
"""Connections one after the other: some seconds of them."""


def _mtu(ground: Ground, pod: WebPod) -> int:
    (inside,) = ground.ask(pod.name, {"do": "inside"})
    (mtu,) = [int(link["mtu"]) for link in inside["links"] if link["name"] == "eth0"]
    return mtu


def _datagram(ground: Ground, a: WebPod, b: WebPod, size: int, **more: object) -> Answer:
    question = {"do": "udp", "to": str(b.address), "port": PORT, "size": size, **more}
    (answer,) = ground.ask(a.name, question)
    return answer


def full_size(ground: Ground) -> str:
    """Send the largest packet that may not be fragmented, there and back; then one byte more."""
    a, b = ground.pair()
    mtu = _mtu(ground, a)
    for one, other in ((a, b), (b, a)):
        answer = _datagram(ground, one, other, mtu - HEADS, back=mtu - HEADS, df=True)
        lost = f"{mtu} bytes from {one.address} to {other.address}: {answer.get('error')}"
        require("error" not in answer, lost)
        require(answer["length"] == mtu - HEADS, f"{answer['length']} bytes came back")
    answer = _datagram(ground, a, b, mtu - HEADS + 1, df=True)
    wanted = answer.get("errno") == errno.EMSGSIZE
    require(wanted, f"{mtu + 1} bytes were not refused: {answer.get('error', 'answered')}")
    return f"{mtu} bytes pass uncut both ways, {mtu + 1} are refused on the spot"


def fragments(ground: Ground) -> str:
    """Send datagrams that do not fit into one packet."""
    a, b = ground.pair()
    size = 2 * _mtu(ground, a)
    answer = _datagram(ground, a, b, size, back=size)
    lost = f"{size} bytes from {a.address} to {b.address}: {answer.get('error')}"
    require("error" not in answer, lost)
    require(answer["length"] == size, f"{answer['length']} of {size} bytes came back")
    return f"{size} bytes in one datagram arrive, and come back"


def transfer(ground: Ground) -> str:
    """Fetch much at once between nodes, both ways, and from a pod on a secondary ENI."""
    a, b = ground.pair()
    return "; ".join(_loaded(ground, one, other, LARGE) for one, other in ((a, b), (b, a)))


def heavy_transfer(ground: Ground) -> str:
    """Fetch very much, also from a pod on a secondary ENI."""
    a, b = ground.pair()
    far = ground.secondary()
    other = b if b.node != far.node else a
    return "; ".join(_loaded(ground, *pair, HUGE) for pair in ((a, b), (b, a), (other, far)))


def _loaded(ground: Ground, a: WebPod, b: WebPod, size: int) -> str:
    question = {"do": "load", "to": str(b.address), "port": PORT, "size": size, "seconds": 60}
    (answer,) = ground.ask(a.name, question, seconds=120)
    require("error" not in answer, f"{a.address} from {b.address}: {answer.get('error')}")
    require(answer["length"] == size, f"{answer['length']} of {size} bytes came")
    rate = size / max(answer["seconds"], 0.001) / 1e6
    return f"{size / 1e6:g} MB from {b.node} to {a.node} ({rate:.0f} MB/s)"


def sustained(ground: Ground) -> str:
    """Connect very often, one after the other, between nodes and ENIs."""
    a, b = ground.pair()
    far = ground.secondary()
    other = b if b.node != far.node else a
    for one, server in ((a, b), (other, far)):
        for seen in ground.fetch_often(SUSTAINED, one.name, server.address):
            require(seen.source == one.address, f"{server.name} saw {seen.source}")
    return f"2 x {SUSTAINED} connections, each answered and seen by the pod's own address"


CHECKS = (
    Check(
        "full-size-packets",
        "a packet of the whole MTU passes between nodes uncut both ways; a larger one is refused",
        "POD_MTU or AWS_VPC_ENI_MTU is more than the path carries: peering, VPN, gateways",
        full_size,
    ),
    Check(
        "fragments",
        "a datagram of twice the MTU arrives between nodes",
        "somebody drops fragments: a network ACL or a host firewall",
        fragments,
    ),
    Check(
        "large-transfer",
        f"{LARGE / 1e6:g} MB pass between nodes both ways, whole",
        "full packets are lost and small ones are not: the MTU, or offloads of the ENI",
        transfer,
    ),
    Check(
        "heavy-transfer",
        f"{HUGE / 1e6:g} MB pass between nodes both ways, and from a pod on a secondary ENI",
        "as large-transfer; or the instance's bandwidth is used up",
        heavy_transfer,
        thorough=True,
    ),
    Check(
        "many-connections",
        f"{SUSTAINED} connections one after the other are answered, between nodes and ENIs",
        "connection tracking is full, or a path loses packets now and then",
        sustained,
        thorough=True,
    ),
)
"""All, in their order."""
