"""The fabric's nft table: source checks, security groups, ways out of the VPC. Pure.

The table is loaded once. What follows from an ENI are elements of its sets and maps, and what
follows from the VPC (groups' rules, NAT gateways) are chains that are flushed and filled again,
so a change is one small transaction and no counter is ever lost.

    raw        a port's packets have its MAC, and a source whose route leads back to it
    lost       what nobody owns is counted; the VPC's router is no hop
    inward     public addresses become private ones, also for who asks from inside
    gate       what leaves the VPC goes the way its subnet's route table says
    leave      the sender's security groups
    enter      the receiver's security groups
    outward    private addresses become public ones, or the NAT gateway's
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network

COUNTERS = ("spoofed_mac", "spoofed_ip", "unassigned", "no_public", "no_way", "group")
"""Why the fabric drops a packet: foreign source MAC, foreign source address, destination in the
VPC that nobody owns, internet without a public address, internet without a route, and a security
group that does not allow it."""

TTLS = range(1, 255)
"""Times to live that the fabric gives back what its routing takes: a VPC's router is no hop. nft
has no increment, but a chain for each value."""


class Element(NamedTuple):
    """One element of a set, or of a map where it has a value."""

    place: str
    key: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a security group allows: a protocol, ports or an ICMP type and code, and with whom.

    *first* and *last* are None for all ports and -1 for every ICMP type or code, as in EC2; *peer*
    is a CIDR or a group's id.
    """

    protocol: str
    first: int | None
    last: int | None
    peer: str


@dataclass(frozen=True, slots=True)
class Group:
    """A security group."""

    id: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a VPC is not of single ENIs: CIDRs, groups, NAT gateways with public addresses."""

    cidrs: tuple[Network, ...] = ()
    groups: tuple[Group, ...] = ()
    nats: Mapping[str, str] = field(default_factory=dict)


TABLE = f"""
table inet fabric {{
 set macs {{ type ifname . ether_addr; }}
 set nocheck {{ type ifname; }}
 set publics {{ type ipv4_addr; }}
 set published {{ type ipv4_addr; }}
 set open6 {{ type ifname; }}
 map public {{ type ipv4_addr : ipv4_addr; }}
 map private {{ type ipv4_addr : ipv4_addr; }}
 map nats {{ type mark : ipv4_addr; }}
 map way4 {{ type ifname : verdict; }}
 map way6 {{ type ifname : verdict; }}
 map out {{ type ifname : verdict; }}
 map in {{ type ifname : verdict; }}
{"".join(f" counter {name} {{ }}{chr(10)}" for name in COUNTERS)}
 chain raw {{
  type filter hook prerouting priority raw; policy accept;
  iifname != "e-*" accept
  iifname . ether saddr != @macs counter name spoofed_mac drop
  ip6 saddr fe80::/10 accept
  ip6 saddr :: accept
  iifname @nocheck accept
  fib saddr . iif oif missing counter name spoofed_ip drop
 }}
 chain lost {{
  type filter hook prerouting priority mangle; policy accept;
  iifname != "e-*" return
  ip6 daddr {{ fe80::/10, ff00::/8 }} return
  ip daddr != @published fib daddr type unicast fib daddr oif missing counter name unassigned drop
  meta nfproto ipv6 fib daddr oif missing counter name unassigned drop
  jump transparent
 }}
 chain inward {{
  type nat hook prerouting priority dstnat; policy accept;
  ip daddr @published dnat ip to ip daddr map @private
 }}
 chain by_igw4 {{
  ip saddr != @publics counter name no_public drop
  accept
 }}
 chain gate {{
  type filter hook forward priority filter; policy accept;
  iifname "e-*" oifname "igw" meta nfproto ipv4 jump ways4
  iifname "e-*" oifname "igw" meta nfproto ipv6 jump ways6
  iifname "e-*" oifname "e-*" ct status dnat ct direction original jump ways4
  iifname "igw" meta nfproto ipv6 ct state established,related accept
  iifname "igw" meta nfproto ipv6 oifname != @open6 counter name no_way drop
 }}
 chain ways4 {{
  iifname vmap @way4
  counter name no_way drop
 }}
 chain ways6 {{
  iifname vmap @way6
  counter name no_way drop
 }}
 chain leave {{
  type filter hook forward priority 10; policy accept;
  ct state established,related accept
  iifname vmap @out
 }}
 chain enter {{
  type filter hook forward priority 20; policy accept;
  ct state established,related accept
  oifname vmap @in
 }}
 chain outward {{
  type nat hook postrouting priority srcnat; policy accept;
  meta nfproto ipv4 meta mark != 0 snat ip to meta mark map @nats
  oifname "igw" snat ip to ip saddr map @public
  iifname "e-*" oifname "e-*" ct status dnat snat ip to ip saddr map @public
 }}
}}
"""


def transparent() -> str:
    """Return the chain that adds one to a packet's time to live, or hop limit."""
    chains = "".join(
        f"chain ttl{ttl} {{\n ip ttl set {ttl + 1}\n}}\n"
        f"chain hop{ttl} {{\n ip6 hoplimit set {ttl + 1}\n}}\n"
        for ttl in TTLS
    )
    four = ", ".join(f"{ttl} : goto ttl{ttl}" for ttl in TTLS)
    six = ", ".join(f"{ttl} : goto hop{ttl}" for ttl in TTLS)
    verdicts = f" ip ttl vmap {{ {four} }}\n ip6 hoplimit vmap {{ {six} }}\n"
    return f"table inet fabric {{\n{chains}chain transparent {{\n{verdicts}}}\n}}\n"


def _name(identifier: str) -> str:
    """Return an id as nft takes it in a name."""
    return identifier.replace("-", "_")


def combination(groups: Iterable[str]) -> str:
    """Return the name of what several groups allow together."""
    return "__".join(_name(group) for group in sorted(groups))


# What follows from the VPC ------------------------------------------------------------------
def shaping(shape: Shape) -> str:
    """Return the transaction that brings groups and NAT gateways to *shape*."""
    lines = []
    for group in shape.groups:
        name = _name(group.id)
        lines += [
            f"add set inet fabric four_{name} {{ type ipv4_addr; flags interval; }}",
            f"add set inet fabric six_{name} {{ type ipv6_addr; flags interval; }}",
            f"add chain inet fabric i_{name}",
            f"add chain inet fabric o_{name}",
        ]
    for group in shape.groups:  # a rule may speak of any group: all of them are there now
        name = _name(group.id)
        lines += [f"flush chain inet fabric i_{name}", f"flush chain inet fabric o_{name}"]
        for way, side, rules in (("i", "saddr", group.ingress), ("o", "daddr", group.egress)):
            lines += [
                f"add rule inet fabric {way}_{name} {match} accept"
                for rule in rules
                for match in matches(rule, side)
            ]
    lines.append("flush map inet fabric nats")
    for number, (nat, public) in enumerate(sorted(shape.nats.items()), 1):
        chain = f"by_{_name(nat)}"
        lines += [
            f"add chain inet fabric {chain}",
            f"flush chain inet fabric {chain}",
            f"add rule inet fabric {chain} meta mark set {number} accept",
            f"add element inet fabric nats {{ {number} : {public} }}",
        ]
    return "\n".join(lines) + "\n"


def combining(groups: Iterable[str]) -> str:
    """Return the transaction that makes the chains of ENIs with these groups."""
    listed = sorted(groups)
    combined = combination(listed)
    lines = []
    for way in "io":
        lines += [f"add chain inet fabric {way}s_{combined}"]
        lines += [f"flush chain inet fabric {way}s_{combined}"]
        lines += [f"add rule inet fabric {way}s_{combined} jump {way}_{_name(g)}" for g in listed]
        lines += [f"add rule inet fabric {way}s_{combined} counter name group drop"]
    return "\n".join(lines) + "\n"


def matches(rule: Rule, side: str) -> list[str]:
    """Return nft's matches for what *rule* allows; *side* is `saddr` or `daddr`."""
    what = _traffic(rule)
    if rule.peer.startswith("sg-"):
        name = _name(rule.peer)
        return [f"ip {side} @four_{name} {what}".strip(), f"ip6 {side} @six_{name} {what}".strip()]
    family = "ip6" if ":" in rule.peer else "ip"
    return [f"{family} {side} {rule.peer} {what}".strip()]


def _traffic(rule: Rule) -> str:
    first, last = rule.first, rule.last
    match rule.protocol:
        case "-1":
            return ""
        case "tcp" | "udp" as protocol:
            if first is None or last is None or (first, last) == (0, 65535):
                return f"meta l4proto {protocol}"
            return f"{protocol} dport {first}-{last}"
        case "icmp" | "icmpv6" | "58" as protocol:
            word = "icmp" if protocol == "icmp" else "icmpv6"
            if first is None or first == -1:
                return f"meta l4proto {'icmp' if word == 'icmp' else 'ipv6-icmp'}"
            code = "" if last is None or last == -1 else f" {word} code {last}"
            return f"{word} type {first}{code}"
        case protocol:
            return f"meta l4proto {protocol}"


# What follows from an ENI -------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Passport:
    """What the gates know of one port.

    *way4* and *way6* are "igw", "egress-only", "none" or the id of a NAT gateway.
    """

    port: str
    mac: str
    checked: bool
    owned: frozenset[Network]
    groups: frozenset[str]
    public: tuple[tuple[str, str], ...] = ()
    way4: str = "none"
    way6: str = "none"

    def elements(self) -> frozenset[Element]:
        """Return its elements of the table's sets and maps."""
        name = f'"{self.port}"'
        combined = combination(self.groups)
        found = {
            Element("macs", f"{name} . {self.mac}"),
            Element("out", name, f"goto os_{combined}"),
            Element("in", name, f"goto is_{combined}"),
        }
        if not self.checked:
            found.add(Element("nocheck", name))
        if self.way4 == "igw":
            found.add(Element("way4", name, "goto by_igw4"))
        elif self.way4.startswith("nat-"):
            found.add(Element("way4", name, f"goto by_{_name(self.way4)}"))
        if self.way6 in {"igw", "egress-only"}:
            found.add(Element("way6", name, "accept"))
        if self.way6 == "igw":
            found.add(Element("open6", name))
        for private, public in self.public:
            found |= {
                Element("publics", private),
                Element("published", public),
                Element("public", private, public),
                Element("private", public, private),
            }
        for group in self.groups:
            found |= {
                Element(f"{'four' if n.version == 4 else 'six'}_{_name(group)}", str(n))  # noqa: PLR2004 - IPv4
                for n in self.owned
            }
        return frozenset(found)


def rivals(new: frozenset[Element], old: frozenset[Element]) -> frozenset[Element]:
    """Return those of *old* that the table cannot hold beside *new*.

    They are another value of a map's key, or a range that overlaps one of the same set.
    """
    keys = {(e.place, e.key) for e in new}
    ranges = [(e.place, ip_network(e.key)) for e in new if _is_range(e)]
    return frozenset(
        e
        for e in old - new
        if (e.place, e.key) in keys
        or (_is_range(e) and any(p == e.place and _overlap(n, e.key) for p, n in ranges))
    )


def _is_range(element: Element) -> bool:
    return element.place.startswith(("four_", "six_"))


def _overlap(network: Network, key: str) -> bool:
    other = ip_network(key)
    return network.network_address in other or other.network_address in network


def difference(gone: Iterable[Element], come: Iterable[Element]) -> str:
    """Return the transaction that takes *gone* out and puts *come* in; empty for nothing."""
    lines = [f"delete element inet fabric {e.place} {{ {e.key} }}" for e in sorted(gone)]
    lines += [
        f"add element inet fabric {e.place} {{ {e.key}{f' : {e.value}' if e.value else ''} }}"
        for e in sorted(come)
    ]
    return "".join(f"{line}\n" for line in lines)
