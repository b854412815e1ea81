"""The VPC's packets: one namespace that routes between the ports of ENIs. Shell.

Ownership is routing. Each attached ENI is a veth whose outer end is a port here; every
address or prefix the VPC delivers to it is a route to that port, over one permanent neighbour
with the ENI's MAC. A source is right if its own route leads back to the port it came from, so
the source check is one rule for all. What nobody owns falls into a blackhole.

    10.0.1.6        via 169.254.0.2 dev e-55544a540902 onlink
    10.0.1.16/28    via 169.254.0.2 dev e-55544a540902 onlink
    169.254.0.2     dev e-55544a540902 lladdr <ENI MAC> PERMANENT
    blackhole 10.0.0.0/16

(nft's `fib daddr type` reads the kernel's local table only: a blackhole is unicast to it, and
`fib daddr oif` finds no way there.)

Its state follows from EC2's: whoever changed an ENI has it brought up to date here, and what
it should be is asked on the fabric's own thread, when its turn comes. So the last word wins,
in whatever order changes are told. What packets may do is `vpclab.gates`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from vpclab.gates import (
    COUNTERS,
    TABLE,
    Element,
    Network,
    Passport,
    Shape,
    combination,
    combining,
    difference,
    rivals,
    shaping,
    transparent,
)
from vpclab.netns import Worker
from vpclab.nft import Nft, NftError
from vpclab.patience import PATIENCE

MTU = 9001
IGW_MTU = 1500
NEXT_HOP = {4: "169.254.0.2", 6: "fe80::2"}
ROUTER6 = "fe80::1"
"""The router of every port, as a node's IPv6 routes name it."""

ROUTER_MAC = "0a:ff:ff:ff:ff:01"
INTERNET = IPv4Address("203.0.113.1")
"""The host on the internet (TEST-NET-3)."""

INTERNET6 = IPv6Address("2001:db8:ffff::1")
"""The same host's IPv6 address (documentation prefix)."""

GATEWAY = IPv4Address("203.0.113.254")
"""The internet gateway, as the internet sees it."""

GATEWAY6 = IPv6Address("2001:db8:ffff::fe")

SETTLE_SECONDS = 10.0 * PATIENCE
"""How long a link may take to come up; it is milliseconds on an idle machine."""

ONLINK = 4
"""RTNH_F_ONLINK: the next hop is on the link although no prefix says so."""

NODAD = 2
"""IFA_F_NODAD: an address that is usable at once."""

ENDPOINT = IPv4Address("198.51.100.250")
"""The EC2 endpoint, as nodes reach it."""

PUBLIC = "198.51.100.0/24"
"""Where public addresses come from (TEST-NET-2)."""

IMDS = IPv4Address("169.254.169.254")
IMDS6 = IPv6Address("fd00:ec2::254")

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.default.proxy_arp": "1",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.arp_ignore": "0",
    "net.ipv4.conf.default.arp_ignore": "0",
    "net.ipv4.conf.all.arp_announce": "0",
    "net.ipv4.conf.default.arp_announce": "0",
    "net.ipv4.conf.all.log_martians": "0",
    "net.ipv4.conf.default.log_martians": "0",
    "net.ipv4.icmp_echo_ignore_all": "0",
    "net.ipv4.icmp_errors_use_inbound_ifaddr": "1",
    "net.ipv4.icmp_ratelimit": "0",
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.icmp.ratelimit": "0",
}
"""Every sysctl the fabric relies on: a new namespace inherits whatever is there."""


INTERNET_SYSCTLS = {
    "net.ipv4.ip_forward": "0",
    "net.ipv4.icmp_echo_ignore_all": "0",
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.default.accept_dad": "0",
}
"""The internet answers for its one host, and loses what goes to anyone else."""


@dataclass(slots=True)
class Port:
    """One ENI's place in the fabric: which link, to which node, what leads to it and may pass."""

    name: str
    index: int
    place: tuple[int, str]
    owned: set[Network] = field(default_factory=set)
    elements: frozenset[Element] = frozenset()
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an attached ENI should be in the fabric and in its node."""

    eni_id: str
    node_fd: int
    ifname: str
    router: IPv4Address
    passport: Passport

    @property
    def port(self) -> str:
        """The port's link name."""
        return self.passport.port

    @property
    def place(self) -> tuple[int, str]:
        """The node's namespace and the link's name in it: one ENI at a time has it."""
        return self.node_fd, self.ifname


def port_of(eni_id: str) -> str:
    """Return the link name of an ENI's port; 15 characters is all the kernel takes."""
    return f"e-{eni_id[-12:]}"


class Fabric:
    """The routed middle. Its methods may be called on any thread; they run on the worker's."""

    def __init__(self) -> None:
        self.worker = Worker("fabric")
        self.internet = Worker("internet")
        self.ports: dict[str, Port] = {}
        self._shape = Shape()
        self._combined: set[str] = set()
        self._holders: Counter[Element] = Counter()
        self._ways: dict[Network, int] = {}
        """The port that each address and prefix leads to, by its link's index."""
        self._base = dict.fromkeys(COUNTERS, 0)
        self.worker.write_sysctls(SYSCTLS)
        self.worker.call(self._set_up)
        self.internet.write_sysctls(INTERNET_SYSCTLS)
        self.internet.call(_set_up_internet)

    def close(self) -> None:
        """Take everything down."""
        self.worker.call(self._ip.close)
        self.worker.call(self._nft.close)
        self.worker.call(self._conntrack.close)
        self.internet.close()
        self.worker.close()

    def _set_up(self) -> None:
        self._ip: Any = IPRoute()
        self._nft = Nft()
        self._conntrack: Any = NFCTSocket()
        lo = self._ip.link_lookup(ifname="lo")[0]
        self._ip.link("set", index=lo, state="up")
        for address in (IMDS, ENDPOINT):
            self._ip.addr("add", index=lo, address=str(address), prefixlen=32)
        self._ip.addr("add", index=lo, address=str(IMDS6), prefixlen=128)
        self._ip.link(
            "add", ifname="igw", kind="veth", mtu=IGW_MTU,
            peer={"ifname": "eth0", "net_ns_fd": self.internet.fd, "mtu": IGW_MTU},
        )  # fmt: skip
        igw = self._ip.link_lookup(ifname="igw")[0]
        self._ip.addr("add", index=igw, address=str(GATEWAY), prefixlen=24)
        self._ip.addr("add", index=igw, address=str(GATEWAY6), prefixlen=64, ifa_flags=NODAD)
        self._ip.link("set", index=igw, state="up")
        self._ip.route("add", dst="default", gateway=str(INTERNET), oif=igw)
        self._ip.route("add", dst="default", gateway=str(INTERNET6), oif=igw, family=AF_INET6)
        self._ip.route("add", dst=PUBLIC, type="blackhole")
        self._nft.run(transparent() + TABLE)

    # What is owned ---------------------------------------------------------------------
    def reshape(self, desired: Callable[[], Shape]) -> None:
        """Bring CIDRs, groups and NAT gateways to what *desired* says when its turn comes."""
        self.worker.call(self._reshape, desired)

    def _reshape(self, desired: Callable[[], Shape]) -> None:
        shape, old = desired(), self._shape
        for cidr in set(shape.cidrs) - set(old.cidrs):
            self._ip.route("add", dst=str(cidr), type="blackhole", family=_family(cidr))
        for cidr in set(old.cidrs) - set(shape.cidrs):
            self._ip.route("del", dst=str(cidr), type="blackhole", family=_family(cidr))
        if (shape.groups, shape.nats) != (old.groups, old.nats):
            self._nft.run(shaping(shape))
        self._shape = shape

    def sync(self, eni_id: str, desired: Callable[[], Wanted | None]) -> None:
        """Bring an ENI to what *desired* says when its turn comes; None takes it out."""
        self.worker.call(self._sync, eni_id, desired)

    def _sync(self, eni_id: str, desired: Callable[[], Wanted | None]) -> None:
        wanted = desired()
        if wanted is None:
            self._remove(eni_id)
        else:
            self._put(wanted)

    def _put(self, wanted: Wanted) -> None:
        port = self.ports.get(wanted.eni_id)
        if port is not None and port.place != wanted.place:
            self._remove(wanted.eni_id)  # moved, before we were told that it had left
            port = None
        if port is None:
            for eni_id in [e for e, other in self.ports.items() if other.place == wanted.place]:
                self._remove(eni_id)  # it has left, and we have not been told yet
        groups, elements = wanted.passport.groups, wanted.passport.elements()
        if (combined := combination(groups)) not in self._combined:
            self._nft.run(combining(groups))
            self._combined.add(combined)
        former = port.elements if port else frozenset()
        with contextlib.ExitStack() as undo:
            try:
                self._admit(former, elements)
            except NftError:
                self._oust(elements, port)
                self._admit(former, elements)
            undo.callback(self._admit, elements, former)
            port = port or self._plug(wanted)
            undo.pop_all()
        port.elements = elements
        self._lead(port, set(wanted.passport.owned))
        if not port.answers:
            self._welcome(port, wanted.router)

    def _admit(self, old: frozenset[Element], new: frozenset[Element]) -> None:
        """Let an ENI's elements be *new*; one that another ENI has by now stays in the table."""
        text = difference([e for e in old - new if self._holders[e] == 1], new - old)
        if text:
            self._nft.run(text)
        self._holders.subtract(old - new)
        self._holders.update(new - old)
        self._forget(e for e in old - new if e.place == "private")

    def _forget(self, gone: Iterable[Element]) -> None:
        """Let connections by a public address find their way anew: it is another's, or nobody's.

        The kernel translates a connection as its first packet, EC2 each packet by itself.
        """
        for _, public, private in gone:
            for begun in (NFCTAttrTuple(daddr=public), NFCTAttrTuple(saddr=private)):
                for entry in tuple(self._conntrack.dump(tuple_orig=begun)):
                    there, back = (
                        NFCTAttrTuple.from_netlink(AF_INET, entry.get_attr(f"CTA_TUPLE_{way}"))
                        for way in ("ORIG", "REPLY")
                    )
                    if public in {there.daddr, back.daddr}:
                        with contextlib.suppress(NetlinkError):  # it has just ended
                            self._conntrack.entry("del", tuple_orig=there)

    def _oust(self, elements: frozenset[Element], own: Port | None) -> None:
        """Take from other ENIs what cannot be beside *elements*, which were asked for last.

        They have let go of it, and we have not been told yet.
        """
        for port in self.ports.values():
            stale = rivals(elements, port.elements)
            if stale and port is not own:
                self._admit(port.elements, port.elements - stale)
                port.elements -= stale

    def _lead(self, port: Port, owned: set[Network]) -> None:
        """Let the routes to *port* be those of what its ENI owns."""
        for network in (n for n in owned if self._ways.get(n) != port.index):
            self._ip.route(
                "replace", dst=str(network), gateway=NEXT_HOP[network.version], oif=port.index,
                flags=ONLINK, family=_family(network),
            )  # fmt: skip
            self._ways[network] = port.index
        for network in self._still(port, port.owned - owned):
            self._ip.route("del", dst=str(network), oif=port.index, family=_family(network))
            del self._ways[network]
        port.owned = owned

    def _still(self, port: Port, networks: set[Network]) -> list[Network]:
        """Return those of *networks* that lead to *port*, and not to a next owner already."""
        return [network for network in networks if self._ways.get(network) == port.index]

    def _plug(self, wanted: Wanted) -> Port:
        """Make an ENI's link, whose other end is born in its node.

        A link that is moved there takes the kernel 20 ms on a busy machine (it waits for every
        core), one that is made there 2 ms.
        """
        mac = wanted.passport.mac
        self._ip.link(
            "add", ifname=wanted.port, kind="veth", mtu=MTU, address=ROUTER_MAC,
            peer={
                "ifname": wanted.ifname, "address": mac, "mtu": MTU, "net_ns_fd": wanted.node_fd,
            },
        )  # fmt: skip
        index = self._ip.link_lookup(ifname=wanted.port)[0]
        Path("/proc/sys/net/ipv4/neigh", wanted.port, "proxy_delay").write_text("0")
        self._ip.link("set", index=index, state="up")
        for hop in NEXT_HOP.values():
            self._ip.neigh("replace", dst=hop, lladdr=mac, ifindex=index, state="permanent")
        port = self.ports[wanted.eni_id] = Port(wanted.port, index, wanted.place)
        return port

    def _welcome(self, port: Port, router: IPv4Address) -> None:
        """Be the router on a link, now that all is ready: a node sends nothing before ARP."""
        self._ip.addr("add", index=port.index, address=str(router), prefixlen=32)
        self._ip.addr("add", index=port.index, address=ROUTER6, prefixlen=64, ifa_flags=NODAD)
        port.answers = True

    def _remove(self, eni_id: str) -> None:
        port = self.ports.pop(eni_id, None)
        if port is None:
            return
        with contextlib.suppress(NetlinkError):  # it went with the node's namespace
            self._ip.link("del", index=port.index)
        for network in self._still(port, port.owned):  # its routes went with the link
            del self._ways[network]
        self._admit(port.elements, frozenset())

    def settle(self, eni_id: str) -> None:
        """Return when the port of an ENI that its node has brought up sends packets.

        A veth has its carrier from its peer, and the kernel starts to send by it a little later,
        in a queue of work: what is sent by it before is lost, as the answer to a first ARP request.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self.worker.call(self._is_up, eni_id):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the port of {eni_id} has no carrier")
            time.sleep(0.001)

    def _is_up(self, eni_id: str) -> bool:
        (link,) = self._ip.link("get", index=self.ports[eni_id].index)
        return bool(link.get_attr("IFLA_OPERSTATE") == "UP")

    # What is seen ----------------------------------------------------------------------
    def drops(self) -> dict[str, int]:
        """Return packets dropped since the last reset, by cause."""
        now = self.worker.call(self._counters)
        return {name: now[name] - self._base[name] for name in COUNTERS}

    def reset_drops(self) -> None:
        """Count from here."""
        self._base = self.worker.call(self._counters)

    def _counters(self) -> dict[str, int]:
        listed = json.loads(self._nft.run("list counters table inet fabric"))["nftables"]
        found = (item.get("counter") for item in listed)
        return {counter["name"]: counter["packets"] for counter in found if counter}

    def routes(self) -> dict[Network, str]:
        """Return which port the kernel leads each address and prefix to."""
        return self.worker.call(self._routes)

    def _routes(self) -> dict[Network, str]:
        names = {port.index: port.name for port in self.ports.values()}
        found: dict[Network, str] = {}
        for family in (AF_INET, AF_INET6):
            for route in self._ip.get_routes(family=family, table=254):
                index, via = route.get_attr("RTA_OIF"), route.get_attr("RTA_GATEWAY")
                if index in names and via in NEXT_HOP.values():
                    network = ip_network(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
                    found[network] = names[index]
        return found


def _family(network: Network) -> int:
    return AF_INET if network.version == 4 else AF_INET6  # noqa: PLR2004 - IPv4


def _set_up_internet() -> None:
    with IPRoute() as ip:
        for name in ("lo", "eth0"):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        eth0 = ip.link_lookup(ifname="eth0")[0]
        ip.addr("add", index=eth0, address=str(INTERNET), prefixlen=24)
        ip.addr("add", index=eth0, address=str(INTERNET6), prefixlen=64, ifa_flags=NODAD)
        ip.route("add", dst=PUBLIC, gateway=str(GATEWAY))
        ip.route("add", dst="default", gateway=str(GATEWAY6), family=AF_INET6)
