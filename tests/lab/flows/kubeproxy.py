"""What kube-proxy and portmap do to packets, in two flavours, from their documented behaviour.

A service is DNATed in prerouting and output; what needs the node's own source (a NodePort of
policy Cluster, a pod that meets itself) carries mark 0x4000 and is masqueraded on the way
out, and so does a hostPort that a pod reaches on itself, with 0x2000.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

MASQUERADE, HOSTPORT_MASQUERADE = 0x4000, 0x2000

Flavour = Literal["nft", "iptables"]
FLAVOURS: tuple[Flavour, ...] = ("nft", "iptables")


@dataclass(frozen=True, slots=True)
class Forward:
    """One translation: *address* None is any of the node's own."""

    address: IPv4Address | None
    port: int
    to: IPv4Address
    to_port: int
    masquerade: bool = False
    mark: int = MASQUERADE
    protocol: str = "tcp"


def render(flavour: Flavour, forwards: Sequence[Forward], pods: Sequence[IPv4Address]) -> str:
    """Return the input of `nft -f -` or of `iptables-restore`."""
    lines = _nft(forwards, pods) if flavour == "nft" else _iptables(forwards, pods)
    return "\n".join(lines) + "\n"


def _nft(forwards: Sequence[Forward], pods: Sequence[IPv4Address]) -> Iterator[str]:
    yield "table ip proxy {"
    yield " chain services {"
    for f in forwards:
        where = f"ip daddr {f.address}" if f.address else "fib daddr type local"
        match = f"{where} {f.protocol} dport {f.port}"
        if f.masquerade:
            yield f"  {match} meta mark set meta mark or {MASQUERADE:#x}"
        elif f.to in pods:
            yield f"  {match} ip saddr {f.to} meta mark set meta mark or {f.mark:#x}"
        yield f"  {match} dnat to {f.to}:{f.to_port}"
    yield " }"
    for name, hook, priority in (("in", "prerouting", "dstnat"), ("local", "output", "-100")):
        yield f" chain {name}_ {{"
        yield f"  type nat hook {hook} priority {priority}; policy accept;"
        yield "  jump services"
        yield " }"
    yield " chain post {"
    yield "  type nat hook postrouting priority srcnat; policy accept;"
    for mark in (MASQUERADE, HOSTPORT_MASQUERADE):
        yield f"  meta mark and {mark:#x} == {mark:#x} masquerade fully-random"
    yield " }"
    yield "}"


def _iptables(forwards: Sequence[Forward], pods: Sequence[IPv4Address]) -> Iterator[str]:
    yield "*nat"
    yield ":SERVICES - [0:0]"
    yield ":POST - [0:0]"
    yield "-A PREROUTING -j SERVICES"
    yield "-A OUTPUT -j SERVICES"
    yield "-A POSTROUTING -j POST"
    for f in forwards:
        where = f"-d {f.address}/32" if f.address else "-m addrtype --dst-type LOCAL"
        match = f"-A SERVICES {where} -p {f.protocol} -m {f.protocol} --dport {f.port}"
        if f.masquerade:
            yield f"{match} -j MARK --set-xmark {MASQUERADE:#x}/{MASQUERADE:#x}"
        elif f.to in pods:
            yield f"{match} -s {f.to}/32 -j MARK --set-xmark {f.mark:#x}/{f.mark:#x}"
        yield f"{match} -j DNAT --to-destination {f.to}:{f.to_port}"
    for mark in (MASQUERADE, HOSTPORT_MASQUERADE):
        yield f"-A POST -m mark --mark {mark:#x}/{mark:#x} -j MASQUERADE --random-fully"
    yield "COMMIT"
