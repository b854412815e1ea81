"""What pods need of the kernel beside nf_tables, asked of it without changing anything. Shell.

There is no second data plane: a kernel that lacks one of these is refused at start with its name,
and not found out by the first pod.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cni import rtnl


@dataclass(frozen=True, slots=True)
class Probe:
    """A request by *protocol* that a kernel without the feature refuses with one of *refusals*."""

    name: str
    protocol: int
    message: rtnl.Message
    refusals: frozenset[int]


def _probe(name: str, message: rtnl.Message, *refusals: int, protocol: int = 0) -> Probe:
    return Probe(name, protocol, message, frozenset(refusals))


def _impossible_veth() -> rtnl.Message:
    """Return a wish for a veth without queues: refused by who knows the kind, for the queues."""
    info = rtnl.attribute(18, rtnl.attribute(1, b"veth"))  # IFLA_LINKINFO, IFLA_INFO_KIND
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + rtnl.attribute(31, bytes(4)) + info
    flags = rtnl.REQUEST | rtnl.ACK | rtnl.CREATE | rtnl.EXCL
    return rtnl.Message(16, flags, body, "ip link add type veth numtxqueues 0")  # RTM_NEWLINK


_DUMP = 0x300  # NLM_F_DUMP

PROBES = (
    _probe(
        "policy routing (CONFIG_IP_MULTIPLE_TABLES)",
        rtnl.Message(34, _DUMP, struct.pack("=B11x", socket.AF_INET), "ip rule"),  # RTM_GETRULE
        errno.EAFNOSUPPORT,
        errno.EOPNOTSUPP,
    ),
    _probe("veth pairs (CONFIG_VETH)", _impossible_veth(), errno.EOPNOTSUPP),
    _probe(
        "connection tracking by netlink (CONFIG_NF_CT_NETLINK)",
        # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS, struct nfgenmsg
        rtnl.Message(0x105, rtnl.REQUEST | rtnl.ACK, struct.pack("=BBH", 0, 0, 0), "conntrack -C"),
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.EPROTONOSUPPORT,
        protocol=12,  # NETLINK_NETFILTER
    ),
)


def ask(probe: Probe) -> int:
    """Return the errno that the kernel answers a probe with, 0 if none."""
    try:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        channel = rtnl.Channel(socket.socket(socket.AF_NETLINK, kind, probe.protocol))
    except OSError as error:
        return error.errno or errno.EIO
    try:
        if probe.message.flags & _DUMP == _DUMP:
            channel.dump(probe.message.kind, probe.message.body, lambda _: None)
        else:
            channel.send(probe.message)
    except (rtnl.NetlinkError, OSError) as error:
        return error.errno or errno.EIO
    else:
        return 0
    finally:
        channel.close()


def missing(ask: Callable[[Probe], int] = ask) -> Iterator[str]:
    """Yield a sentence for each feature that the kernel lacks."""
    for probe in PROBES:
        number = ask(probe)
        if number in probe.refusals:
            yield f"{probe.name} is needed: {probe.message.words}: {os.strerror(number)}"
