"""Both ends of a wire as the kernel shows them, for CHECK. Shell.

Dumps that the kernel filters where it can: a full node has 737 pod routes and as many
guards, and CHECK asks for those of one link. Nothing here changes anything.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

from cni import rtnl
from cni.dataplane import PODS_TABLE, Address
from cni.kernel import HostEnd, PodEnd

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH = 18, 22, 26, 30
MAIN_TABLE = 254
_U32, _S32 = struct.Struct("=I"), struct.Struct("=i")
_NEIGHBOUR = struct.Struct("=BxxxiH")  # of struct ndmsg: family, index, state


def host_end(channel: rtnl.Channel, name: str) -> HostEnd | None:
    """Return the node's end of the wire whose link is *name*, None if there is none."""
    body = _link(channel, name)
    if body is None:
        return None
    link = rtnl.read_link(body)
    routes = {
        destination: source
        for destination, _, source in _routes(channel, PODS_TABLE, link.index)
        if destination is not None
    }
    return HostEnd(
        index=link.index,
        peer=link.peer_index,
        mac=link.mac,
        mtu=_mtu(body),
        is_up=link.is_up,
        group=link.group,
        alias=link.alias,
        rp_filter=_rp_filter(body),
        routes=routes,
        neighbours=dict(_neighbours(channel, link.index)),
    )


def pod_end(channel: rtnl.Channel, name: str) -> PodEnd | None:
    """Return the pod's end; *channel* is a socket of the pod's namespace."""
    body, lo = _link(channel, name), _link(channel, "lo")
    if body is None:
        return None
    link = rtnl.read_link(body)
    return PodEnd(
        index=link.index,
        peer=link.peer_index,
        mac=link.mac,
        mtu=_mtu(body),
        is_up=link.is_up,
        lo_up=lo is not None and rtnl.read_link(lo).is_up,
        addresses=frozenset(_addresses(channel, link.index)),
        gateways=frozenset(
            gateway
            for destination, gateway, _ in _routes(channel, MAIN_TABLE, link.index)
            if destination is None and gateway is not None
        ),
        neighbours=dict(_neighbours(channel, link.index)),
    )


def _link(channel: rtnl.Channel, name: str) -> bytes | None:
    try:
        return channel.send(rtnl.get_link(name))[0]
    except rtnl.NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _mtu(body: bytes) -> int:
    found = rtnl.attributes_of(body[16:]).get(4)  # behind struct ifinfomsg; IFLA_MTU
    return 0 if found is None else int(_U32.unpack(found)[0])


def _rp_filter(body: bytes) -> int:
    """Return a link's rp_filter: IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF is all of devconf."""
    families = rtnl.attributes_of(rtnl.attributes_of(body[16:]).get(26, b""))
    values = rtnl.attributes_of(families.get(socket.AF_INET, b"")).get(1, b"")
    at = 4 * (rtnl.DEVCONF["rp_filter"] - 1)
    return int(_S32.unpack_from(values, at)[0]) if len(values) > at else 0


def _addresses(channel: rtnl.Channel, index: int) -> Iterator[Address]:
    """Yield the addresses of a link but its link-local ones."""
    for body in channel.dump(RTM_GETADDR, bytes(8), bytes):  # struct ifaddrmsg
        if _U32.unpack_from(body, 4)[0] != index:
            continue
        found = rtnl.attributes_of(body[8:])
        packed = found.get(2, found.get(1))  # IFA_LOCAL, IFA_ADDRESS: IPv6 has the latter only
        if packed is not None and not (address := ip_address(packed)).is_link_local:
            yield address


def _routes(
    channel: rtnl.Channel, table: int, index: int
) -> Iterator[tuple[Address | None, Address | None, Address | None]]:
    """Yield destination (None is everything), gateway and source of each route by a link.

    Of host routes and default routes only: we make no others.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        request = bytes([family]) + bytes(11)  # struct rtmsg
        request += rtnl.attribute(15, _U32.pack(table))  # RTA_TABLE
        request += rtnl.attribute(4, _S32.pack(index))  # RTA_OIF
        for body in _of_table(channel, request):
            length, found = body[1], rtnl.attributes_of(body[12:])
            way = (_number(found, 15), _number(found, 4))
            if way != (table, index) or length not in {0, 32, 128} or any(body[2:4]):
                continue
            destination = found.get(1)  # RTA_DST
            yield (
                None if destination is None else ip_address(destination),
                _address(found.get(5)),  # RTA_GATEWAY
                _address(found.get(7)),  # RTA_PREFSRC
            )


def _of_table(channel: rtnl.Channel, request: bytes) -> list[bytes]:
    try:
        return channel.dump(RTM_GETROUTE, request, bytes)
    except rtnl.NetlinkError as error:
        if error.errno == errno.ENOENT:  # a table is there from its first route on
            return []
        raise


def _neighbours(channel: rtnl.Channel, index: int) -> Iterator[tuple[Address, str]]:
    """Yield the permanent neighbours on a link."""
    request = bytes(12) + rtnl.attribute(8, _U32.pack(index))  # struct ndmsg; NDA_IFINDEX
    for body in channel.dump(RTM_GETNEIGH, request, bytes):
        _, where, state = _NEIGHBOUR.unpack_from(body)
        found = rtnl.attributes_of(body[12:])
        destination, mac = found.get(1), found.get(2)  # NDA_DST, NDA_LLADDR
        if where == index and state & 0x80 and destination and mac:  # NUD_PERMANENT
            yield ip_address(destination), mac.hex(":")


def _number(found: dict[int, bytes], kind: int) -> int:
    return int(_U32.unpack(found[kind])[0]) if kind in found else 0


def _address(packed: bytes | None) -> Address | None:
    return None if packed is None else ip_address(packed)
