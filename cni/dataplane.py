"""What the kernel should hold: numbers, rules, routes, aliases. Pure.

    512    from all lookup 5120            PODS: a /32 per pod, a guard per held address
    1024   fwmark 0x80/0x80 lookup main    decided: out by the primary ENI
    1535   to <CIDR> lookup main           one per AWS_EXTERNAL_SERVICE_CIDRS
    1536   fwmark <n>/0x7f lookup <table>  one per secondary ENI
    32765  from <ENI address> lookup <table>

No rule and no nft element per pod: a packet costs the same at 1 pod and at 700.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeVar

from cni.spec import Sandbox

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PODS_TABLE = 5120
"""The table of pod routes and guards. The peer's branch tables end at 4194 and Calico's at
250, so it is nobody else's."""

MAIN_TABLE = 254

PROTOCOL = 151
"""`proto` of our routes and rules: what carries it is ours, all else is never touched."""

POD_GROUP = 5120
"""Link group of a pod's host veth is this plus its ENI's number: the only thing that tells
the kernel by which ENI a pod leaves."""

ENI_GROUP = 5248
"""Link group of an ENI is this plus its number."""

DYING_GROUP = 5376
"""Link group of veths that wait to be deleted; their packets are dropped."""

MAX_NUMBER = 127
"""ENI numbers fit in seven mark bits; the largest instance takes 80."""

PRIMARY_MARK = 0x80
"""Through the primary ENI; the peer's bit (AWS_VPC_K8S_CNI_CONNMARK). With it, our byte of a
mark is 0xff, and bits 8 to 31 are others': 8-11 Cilium, 13 portmap, 14-15 kube-proxy, 16-31
Calico, Tailscale, Weave."""

GUARD_METRIC = 4278198272
"""Metric of `unreachable` guards (0xff000400): behind every pod's route, whose metric is 0, so
that the guard takes over in the kernel when a pod's veth goes."""

POD_PREFERENCE = 512
PRIMARY_PREFERENCE = 1024
EXTERNAL_PREFERENCE = 1535
ENI_PREFERENCE = 1536
OWN_PREFERENCE = 32765
"""`ip rule` preferences, the peer's. The kernel's are 0 (local), 32766 (main)."""

GATEWAY_V4 = IPv4Address("169.254.1.1")
GATEWAY_V6 = IPv6Address("fe80::1")
"""A pod's gateways; on no interface, known to the pod by permanent neighbours."""

HOST_MAC = "0a:58:a9:fe:01:01"
"""MAC of every host veth: locally administered, made of the gateway's address. One constant,
so that the pod's neighbour is known before the link exists."""

NODE_SYSCTLS: Mapping[str, str] = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
}
"""What the privileged init container sets once per node. rp_filter is per link then: the
kernel takes the larger of `all` and the link's."""

NEEDED_SYSCTLS = ("net.ipv4.ip_forward",)
"""Without these a node does not serve pods at all. The others only add to what our links have by
themselves: an rp_filter of `all` cannot loosen ours, and with 2 an unnumbered link stays strict."""


def sysctl_complaints(found: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each node-wide sysctl of *found* that is not as it must be."""
    return tuple(
        f"{name} is {value} and must be {NODE_SYSCTLS[name]}"
        for name, value in found.items()
        if value != NODE_SYSCTLS[name]
    )


def eni_table(number: int) -> int:
    """Return the routing table of ENI *number*; the peer's device index + 1."""
    return MAIN_TABLE if number == 1 else number


VETH_PREFIX = "eni"
"""What a host veth's name begins with; the peer's (AWS_VPC_K8S_CNI_VETHPREFIX)."""


def host_ifname(sandbox: Sandbox, prefix: str = VETH_PREFIX) -> str:
    """Return the name of a sandbox's host veth: the prefix, then 11 hex digits.

    Made from the sandbox and not from the pod's name, so that two sandboxes of one pod
    never meet in one name.
    """
    identity = f"{sandbox.network}/{sandbox.container_id}/{sandbox.ifname}"
    return prefix + hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest()[:11]


def pod_mac(address: Address) -> str:
    """Return the MAC of a pod's interface: 0a:58 and its IPv4 address (or IPv6's last 4 bytes)."""
    return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *address.packed[-4:]))


# Aliases -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Alias:
    """What a host veth says of itself; leases can be rebuilt from it."""

    sandbox: Sandbox
    pod_uid: str
    addresses: tuple[Address, ...]
    eni_id: str

    def text(self) -> str:
        """Return it as the link's alias: at most 255 bytes, no spaces inside words."""
        s = self.sandbox
        addresses = ",".join(map(str, self.addresses))
        uid = self.pod_uid or "-"
        return f"enid1 {s.container_id}/{s.ifname} {s.network} {uid} {addresses} {self.eni_id}"


_ALIAS = re.compile(r"enid1 (\S+)/(\S+) (\S+) (\S+) ([0-9a-f.:,]+) (\S+)(?: .*)?")


def parse_alias(text: str | None) -> Alias | None:
    """Return what *text* says, None if it is not ours."""
    match = _ALIAS.fullmatch(text or "")
    if match is None:
        return None
    container_id, ifname, network, uid, addresses, eni_id = match.groups()
    try:
        parsed = tuple(ip_address(a) for a in addresses.split(","))
    except ValueError:
        return None
    return Alias(Sandbox(network, container_id, ifname), "" if uid == "-" else uid, parsed, eni_id)


# ENIs ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class EniLink:
    """An ENI as the kernel should have it. *number* is its device index + 1, 1 the primary.

    *mtu* None leaves the link's as it is.
    """

    number: int
    mac: str
    address: IPv4Address
    subnet: IPv4Network
    mtu: int | None

    @property
    def gateway(self) -> IPv4Address:
        """The VPC router: the subnet's first address after its own."""
        return self.subnet.network_address + 1

    @property
    def is_primary(self) -> bool:
        """Whether it is the ENI that the node itself uses."""
        return self.number == 1


@dataclass(frozen=True, slots=True)
class Marks:
    """Our byte of packet and connection marks: *primary* is its highest bit.

    The other seven are an ENI's number. What is not in *mask* is others' and never written.
    """

    primary: int = PRIMARY_MARK

    @property
    def mask(self) -> int:
        """The byte."""
        return (self.primary >> 7) * 0xFF

    @property
    def number_mask(self) -> int:
        """Where the number is."""
        return (self.primary >> 7) * MAX_NUMBER

    def of(self, number: int) -> int:
        """Return the mark of what leaves by ENI *number*."""
        return self.primary if number == 1 else (self.primary >> 7) * number


USUAL_MARKS = Marks()


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """A rule of somebody else that looks at marks."""

    preference: int
    mark: int
    mask: int

    @property
    def words(self) -> str:
        """Its mark, as `ip rule` shows it."""
        return f"{self.mark:#x}/{self.mask:#x}"

    def overlap(self, marks: Marks) -> str:
        """Return a sentence where it looks at bits that are ours, "" where it does not."""
        if not self.mask & marks.mask:
            return ""
        return f"rule {self.preference} of somebody else looks at our mark bits: {self.words}"


@dataclass(frozen=True, slots=True)
class Routing:
    """What settings make of our rules. *external*: always routed by the main table."""

    marks: Marks = USUAL_MARKS
    external: tuple[IPv4Network, ...] = ()


USUAL_ROUTING = Routing()


@dataclass(frozen=True, slots=True)
class Rule:
    """One `ip rule` of ours."""

    preference: int
    table: int
    fwmark: int = 0
    fwmask: int = 0
    source: IPv4Address | None = None
    destination: IPv4Network | None = None


def desired_rules(enis: Iterable[EniLink], routing: Routing = USUAL_ROUTING) -> tuple[Rule, ...]:
    """Return every rule of ours, by preference."""
    marks = routing.marks
    rules = [
        Rule(POD_PREFERENCE, PODS_TABLE),
        Rule(PRIMARY_PREFERENCE, MAIN_TABLE, marks.primary, marks.primary),
        *(
            Rule(EXTERNAL_PREFERENCE, MAIN_TABLE, destination=network)
            for network in routing.external
        ),
    ]
    for eni in enis:
        if not eni.is_primary:
            table = eni_table(eni.number)
            mark = marks.of(eni.number)
            rules.append(Rule(ENI_PREFERENCE, table, mark, marks.number_mask))
            rules.append(Rule(OWN_PREFERENCE, table, source=eni.address))
    return tuple(sorted(rules, key=lambda rule: (rule.preference, rule.table)))


@dataclass(frozen=True, slots=True)
class Route:
    """One route in an ENI's table, by link *index*; straight onto the link without *gateway*."""

    destination: IPv4Network
    table: int
    index: int
    gateway: IPv4Address | None = None


def desired_routes(eni: EniLink, index: int) -> tuple[Route, ...]:
    """Return the routes of a secondary ENI whose link is *index*, the gateway's own first."""
    table = eni_table(eni.number)
    return (
        Route(IPv4Network(eni.gateway), table, index),
        Route(IPv4Network("0.0.0.0/0"), table, index, eni.gateway),
    )


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Put:
    """Add one."""

    what: object


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one."""

    what: object


def steps(want: Iterable[T], have: Iterable[T]) -> Iterator[Put | Delete]:
    """Yield the steps from *have* to *want*: puts first, then deletes.

    Puts come first so that nothing is briefly missing, each in the order given. *have* must hold
    ours only.
    """
    wanted, there = dict.fromkeys(want), dict.fromkeys(have)
    yield from (Put(one) for one in wanted if one not in there)
    yield from (Delete(one) for one in there if one not in wanted)
