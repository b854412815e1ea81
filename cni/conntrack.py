"""Forget the flows of addresses that nobody has any more. Shell, hand-packed ctnetlink.

An address that goes to another pod with its old flows still known would hand that pod
somebody else's connections. One dump serves a whole batch; the kernel's own filter would
walk the table four times an address.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address

from cni import rtnl

_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*
_GENERIC = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18  # CTA_*
_NESTED = 0x8000


def purge(addresses: Collection[IPv4Address | IPv6Address]) -> int:
    """Delete every flow from or to *addresses*; return how many there were."""
    wanted = {address.packed for address in addresses}
    families = {
        socket.AF_INET if a.version == 4 else socket.AF_INET6 for a in addresses
    }  # the family
    # Most flows are others': a search for the bytes rules them out without reading them.
    maybe = re.compile(b"|".join(map(re.escape, wanted))).search
    channel = rtnl.Channel(
        socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC,
            12,  # NETLINK_NETFILTER
        )
    )
    purged = 0
    try:
        for family in sorted(families):
            found = channel.dump(
                _GET, _GENERIC.pack(family, 0, 0), lambda f: f if maybe(f) else None
            )
            doomed = [flow for flow in found if wanted.intersection(_ends(flow))]
            _, errors = channel.try_all([_delete(family, flow) for flow in doomed])
            # A flow that ended between dump and delete is as gone as it should be.
            failed = [error for error in errors if error.errno != errno.ENOENT]
            if failed:
                raise failed[0]
            purged += len(doomed)
    finally:
        channel.close()
    return purged


def _ends(flow: bytes) -> Iterator[bytes]:
    """Yield source and destination of both directions."""
    found = rtnl.attributes_of(flow[_GENERIC.size :])
    for direction in (_ORIGINAL, _REPLY):
        addresses = rtnl.attributes_of(found.get(direction, b"")).get(1, b"")  # CTA_TUPLE_IP
        yield from rtnl.attributes_of(addresses).values()


def _delete(family: int, flow: bytes) -> rtnl.Message:
    found = rtnl.attributes_of(flow[_GENERIC.size :])
    body = _GENERIC.pack(family, 0, 0) + rtnl.attribute(_ORIGINAL | _NESTED, found[_ORIGINAL])
    for kind in (_ZONE, _ID):
        if kind in found:
            body += rtnl.attribute(kind, found[kind])
    return rtnl.Message(_DELETE, rtnl.REQUEST | rtnl.ACK, body, "conntrack -D")
