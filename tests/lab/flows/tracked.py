"""What a namespace's kernel says of connections and links, by netlink: no program is needed."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

from cni import rtnl

T = TypeVar("T")

_GET = 0x101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_ORIGINAL, _REPLY, _STATUS, _MARK = 1, 2, 3, 8  # CTA_*
_HEADER = 4  # struct nfgenmsg


class Worker(Protocol):
    """A thread that lives in a namespace."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket: ...


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a connection."""

    source: IPv4Address
    source_port: int
    to: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class Tracked:
    """One connection."""

    original: Way
    reply: Way
    mark: int
    status: int


def tracked(worker: Worker) -> list[Tracked]:
    """Return every TCP and UDP connection that the namespace of *worker* knows."""
    sock = worker.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
    channel = rtnl.Channel(sock)
    try:
        found = channel.dump(_GET, struct.pack("=BBH", socket.AF_INET, 0, 0), bytes)
    finally:
        channel.close()
    flows = [rtnl.attributes_of(flow[_HEADER:]) for flow in found]
    return [_read(flow) for flow in flows if _has_ports(flow)]


def _has_ports(flow: Mapping[int, bytes]) -> bool:
    proto = rtnl.attributes_of(rtnl.attributes_of(flow[_ORIGINAL])[2])
    return proto[1] in {b"\x06", b"\x11"}


def _read(flow: Mapping[int, bytes]) -> Tracked:
    def number(kind: int) -> int:
        return int.from_bytes(flow.get(kind, b""), "big")

    return Tracked(_way(flow[_ORIGINAL]), _way(flow[_REPLY]), number(_MARK), number(_STATUS))


def _way(data: bytes) -> Way:
    both = rtnl.attributes_of(data)
    addresses, proto = rtnl.attributes_of(both[1]), rtnl.attributes_of(both[2])
    return Way(
        IPv4Address(addresses[1]),
        int.from_bytes(proto[2], "big"),
        IPv4Address(addresses[2]),
        int.from_bytes(proto[3], "big"),
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """One link. *has_ipv6*: it has an address of that family, a link-local one at least."""

    name: str
    group: int
    mtu: int
    has_ipv6: bool


def links_of(place: Worker) -> list[Seen]:
    """Return every link of the namespace of *place*."""
    channel = rtnl.Channel(place.socket(socket.AF_NETLINK, socket.SOCK_RAW))
    try:
        links = channel.dump(18, struct.pack("=BxHiII", 0, 0, 0, 0, 0), bytes)  # RTM_GETLINK
        # RTM_GETADDR
        addresses = channel.dump(22, struct.pack("=BBBBi", socket.AF_INET6, 0, 0, 0, 0), bytes)
    finally:
        channel.close()
    with_ipv6 = {struct.unpack_from("=i", found, 4)[0] for found in addresses}
    return [_link(link, with_ipv6) for link in links]


def _link(body: bytes, with_ipv6: set[int]) -> Seen:
    link, found = rtnl.read_link(body), rtnl.attributes_of(body[16:])
    mtu = int.from_bytes(found[4], sys.byteorder)  # IFLA_MTU
    return Seen(link.name, link.group, mtu, link.index in with_ipv6)
