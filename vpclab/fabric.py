"""The VPC's packets: one namespace that routes between the ports of ENIs. Shell.

Ownership is routing. Each attached ENI is a veth whose outer end is a port here; every
address the VPC delivers to it is a route to that port, over one permanent neighbour with
the ENI's MAC. A source is right if its own route leads back to the port it came from, so
the source check is one rule for all. What nobody owns falls into a blackhole.

    10.0.1.6        via 169.254.0.2 dev e-55544a540902 onlink
    169.254.0.2     dev e-55544a540902 lladdr <ENI MAC> PERMANENT
    blackhole 10.0.0.0/16

(nft's `fib daddr type` reads the kernel's local table only: a blackhole is unicast to it, and
`fib daddr oif` finds no way there.)

Its state follows from EC2's: whoever changed an ENI has it brought up to date here, and what
it should be is asked on the fabric's own thread, when its turn comes. So the last word wins,
in whatever order changes are told.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from socket import AF_INET
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from vpclab.netns import Worker

MTU = 9001
IGW_MTU = 1500
NEXT_HOP = "169.254.0.2"
ROUTER_MAC = "0a:ff:ff:ff:ff:01"
INTERNET = IPv4Address("203.0.113.1")
"""The host on the internet (TEST-NET-3)."""

GATEWAY = IPv4Address("203.0.113.254")
"""The internet gateway, as the internet sees it."""

ONLINK = 4
"""RTNH_F_ONLINK: the next hop is on the link although no prefix says so."""

PUBLIC = IPv4Network("198.51.100.0/24")
"""Where public addresses of instances come from (TEST-NET-2)."""

ENDPOINT = IPv4Address("198.51.100.250")
"""The EC2 endpoint, as nodes reach it."""

IMDS = IPv4Address("169.254.169.254")

COUNTERS = ("spoofed_mac", "spoofed_ip", "unassigned", "no_public")
"""Why the fabric drops a packet: foreign source MAC, foreign source address, destination in
the VPC that nobody owns, internet without a public address."""

TTLS = range(1, 255)
"""Times to live that the fabric gives back what its routing takes: a VPC's router is no hop. nft
has no increment, but a chain for each value."""

TABLE = """
table inet fabric {
 set macs { type ifname . ether_addr; }
 set nocheck { type ifname; }
 set publics { type ipv4_addr; }
 map public { type ipv4_addr : ipv4_addr; }
 map private { type ipv4_addr : ipv4_addr; }
 counter spoofed_mac { }
 counter spoofed_ip { }
 counter unassigned { }
 counter no_public { }
 chain raw {
  type filter hook prerouting priority raw; policy accept;
  iifname != "e-*" accept
  iifname . ether saddr != @macs counter name spoofed_mac drop
  meta nfproto ipv6 accept
  iifname @nocheck accept
  fib saddr . iif oif missing counter name spoofed_ip drop
 }
 chain lost {
  type filter hook prerouting priority mangle; policy accept;
  iifname != "e-*" return
  fib daddr type unicast fib daddr oif missing counter name unassigned drop
  jump transparent
 }
 chain inward {
  type nat hook prerouting priority dstnat; policy accept;
  iifname "igw" dnat ip to ip daddr map @private
 }
 chain gate {
  type filter hook forward priority filter; policy accept;
  iifname "e-*" oifname "igw" ip saddr != @publics counter name no_public drop
 }
 chain outward {
  type nat hook postrouting priority srcnat; policy accept;
  oifname "igw" snat ip to ip saddr map @public
 }
}
"""

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
}
"""Every sysctl the fabric relies on: a new namespace inherits whatever is there."""


INTERNET_SYSCTLS = {"net.ipv4.ip_forward": "0", "net.ipv4.icmp_echo_ignore_all": "0"}
"""The internet answers for its one host, and loses what goes to anyone else."""


@dataclass(slots=True)
class Port:
    """One ENI's place in the fabric: which link, to which node, which addresses lead to it."""

    name: str
    index: int
    mac: str
    place: tuple[int, str]
    owned: set[IPv4Address] = field(default_factory=set)
    checked: bool = True
    handed_over: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an attached ENI should be in the fabric and in its node."""

    eni_id: str
    mac: str
    node_fd: int
    ifname: str
    router: IPv4Address
    owned: frozenset[IPv4Address]
    checked: bool

    @property
    def port(self) -> str:
        """The port's link name; 15 characters is all the kernel takes."""
        return f"e-{self.eni_id[-12:]}"

    @property
    def place(self) -> tuple[int, str]:
        """The node's namespace and the link's name in it: one ENI at a time has it."""
        return self.node_fd, self.ifname


def _transparent() -> str:
    """Return the chain that adds one to a packet's time to live."""
    chains = "".join(f"chain ttl{ttl} {{\n ip ttl set {ttl + 1}\n}}\n" for ttl in TTLS)
    verdicts = ", ".join(f"{ttl} : goto ttl{ttl}" for ttl in TTLS)
    transparent = f"chain transparent {{\n ip ttl vmap {{ {verdicts} }}\n}}\n"
    return f"table inet fabric {{\n{chains}{transparent}}}\n"


def nft(text: str) -> None:
    """Run one nft transaction in the caller's namespace."""
    done = subprocess.run(
        ["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"nft: {done.stderr}\n{text}")


class Fabric:
    """The routed middle. Its methods may be called on any thread; they run on the worker's."""

    def __init__(self) -> None:
        self.worker = Worker("fabric")
        self.internet = Worker("internet")
        self.ports: dict[str, Port] = {}
        self.public: dict[IPv4Address, IPv4Address] = {}
        self._base = dict.fromkeys(COUNTERS, 0)
        self.worker.write_sysctls(SYSCTLS)
        self.worker.call(self._set_up)
        self.internet.write_sysctls(INTERNET_SYSCTLS)
        self.internet.call(_set_up_internet)

    def close(self) -> None:
        """Take everything down."""
        self.worker.call(self._ip.close)
        self.internet.close()
        self.worker.close()

    def _set_up(self) -> None:
        self._ip: Any = IPRoute()
        lo = self._ip.link_lookup(ifname="lo")[0]
        self._ip.link("set", index=lo, state="up")
        for address in (IMDS, ENDPOINT):
            self._ip.addr("add", index=lo, address=str(address), prefixlen=32)
        self._ip.link(
            "add", ifname="igw", kind="veth", mtu=IGW_MTU,
            peer={"ifname": "eth0", "net_ns_fd": self.internet.fd, "mtu": IGW_MTU},
        )  # fmt: skip
        igw = self._ip.link_lookup(ifname="igw")[0]
        self._ip.addr("add", index=igw, address=str(GATEWAY), prefixlen=24)
        self._ip.link("set", index=igw, state="up")
        self._ip.route("add", dst="default", gateway=str(INTERNET), oif=igw)
        self._ip.route("add", dst=str(PUBLIC), type="blackhole")
        nft(_transparent() + TABLE)

    # What is owned ---------------------------------------------------------------------
    def add_cidr(self, cidr: IPv4Network) -> None:
        """Swallow what goes to an address of *cidr* that nobody owns."""
        self.worker.call(self._ip.route, "add", dst=str(cidr), type="blackhole")

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
        port = port or self._plug(wanted)
        for address in wanted.owned - port.owned:
            self._ip.route(
                "replace", dst=f"{address}/32", gateway=NEXT_HOP, oif=port.index, flags=ONLINK
            )
        for address in port.owned - wanted.owned:
            with contextlib.suppress(NetlinkError):  # it leads to its next owner already
                self._ip.route("del", dst=f"{address}/32", oif=port.index)
        port.owned = set(wanted.owned)
        if port.checked != wanted.checked:
            verb = "delete" if wanted.checked else "add"
            nft(f'{verb} element inet fabric nocheck {{ "{port.name}" }}')
            port.checked = wanted.checked
        if not port.handed_over:
            end = self._ip.link_lookup(ifname=f"n{wanted.port[1:]}")[0]
            self._ip.link("set", index=end, ifname=wanted.ifname, net_ns_fd=wanted.node_fd)
            port.handed_over = True

    def _plug(self, wanted: Wanted) -> Port:
        """Make an ENI's link, both ends of it here: the node gets its end when all is ready."""
        for eni_id in [e for e, port in self.ports.items() if port.place == wanted.place]:
            self._remove(eni_id)  # it has left, and we have not been told yet
        nft(f'add element inet fabric macs {{ "{wanted.port}" . {wanted.mac} }}')
        self._ip.link(
            "add", ifname=wanted.port, kind="veth", mtu=MTU, address=ROUTER_MAC,
            peer={"ifname": f"n{wanted.port[1:]}", "address": wanted.mac, "mtu": MTU},
        )  # fmt: skip
        index = self._ip.link_lookup(ifname=wanted.port)[0]
        Path("/proc/sys/net/ipv4/neigh", wanted.port, "proxy_delay").write_text("0")
        self._ip.addr("add", index=index, address=str(wanted.router), prefixlen=32)
        self._ip.link("set", index=index, state="up")
        self._ip.neigh("replace", dst=NEXT_HOP, lladdr=wanted.mac, ifindex=index, state="permanent")
        port = self.ports[wanted.eni_id] = Port(wanted.port, index, wanted.mac, wanted.place)
        return port

    def _remove(self, eni_id: str) -> None:
        port = self.ports.pop(eni_id, None)
        if port is None:
            return
        with contextlib.suppress(NetlinkError):  # it went with the node's namespace
            self._ip.link("del", index=port.index)
        text = f'delete element inet fabric macs {{ "{port.name}" . {port.mac} }}\n'
        if not port.checked:
            text += f'delete element inet fabric nocheck {{ "{port.name}" }}\n'
        nft(text)

    def publish(self, private: IPv4Address, public: IPv4Address) -> None:
        """Give *private* a public address at the internet gateway."""
        self.public[private] = public
        self.worker.call(
            nft,
            f"add element inet fabric publics {{ {private} }}\n"
            f"add element inet fabric public {{ {private} : {public} }}\n"
            f"add element inet fabric private {{ {public} : {private} }}\n",
        )

    def unpublish(self, private: IPv4Address) -> None:
        """Take the public address of *private* away; nothing if it has none."""
        public = self.public.pop(private, None)
        if public is not None:
            self.worker.call(
                nft,
                f"delete element inet fabric publics {{ {private} }}\n"
                f"delete element inet fabric public {{ {private} : {public} }}\n"
                f"delete element inet fabric private {{ {public} : {private} }}\n",
            )

    # What is seen ----------------------------------------------------------------------
    def drops(self) -> dict[str, int]:
        """Return packets dropped since the last reset, by cause."""
        now = self.worker.call(_counters)
        return {name: now[name] - self._base[name] for name in COUNTERS}

    def reset_drops(self) -> None:
        """Count from here."""
        self._base = self.worker.call(_counters)

    def routes(self) -> dict[IPv4Address, str]:
        """Return which port the kernel leads each address to."""
        return self.worker.call(self._routes)

    def _routes(self) -> dict[IPv4Address, str]:
        names = {port.index: port.name for port in self.ports.values()}
        found = {}
        for route in self._ip.get_routes(family=AF_INET, table=254):
            index = route.get_attr("RTA_OIF")
            if route["dst_len"] == 32 and index in names:  # noqa: PLR2004 - a host route
                found[IPv4Address(route.get_attr("RTA_DST"))] = names[index]
        return found


def _counters() -> dict[str, int]:
    done = subprocess.run(
        ["nft", "-j", "list", "counters", "table", "inet", "fabric"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = (item.get("counter") for item in json.loads(done.stdout)["nftables"])
    return {counter["name"]: counter["packets"] for counter in found if counter}


def _set_up_internet() -> None:
    with IPRoute() as ip:
        for name in ("lo", "eth0"):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        eth0 = ip.link_lookup(ifname="eth0")[0]
        ip.addr("add", index=eth0, address=str(INTERNET), prefixlen=24)
        ip.route("add", dst=str(PUBLIC), gateway=str(GATEWAY))
