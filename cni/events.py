"""What the kernel tells by itself of the node: that something was changed. Shell.

An ADD alone raises nine messages, so only what stands at fixed places is read of one: its
type, whose port asked, the link's index, a route's table and protocol. They say what to look
at; what is wrong there, a look at the kernel tells. Lost messages (the socket overflowed) mean
to look at everything. nft tells of a change of any table, a rule a message; a filter on the
socket lets only the word that a transaction is done through.

    RTM_NEWLINK, RTM_DELLINK         a link, by its index
    RTM_{NEW,DEL}ROUTE               of our tables or our protocol, unless we asked for it
    RTM_{NEW,DEL}NEIGH, *ADDR        on a link of ours, unless we asked for it
    RTM_{NEW,DEL}RULE                any
    RTM_NEWNETCONF                   a link's settings (forwarding, rp_filter), by its index
    NFT_MSG_NEWGEN                   any; it names the process
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Iterator

from cni.dataplane import MAX_NUMBER, PODS_TABLE, PROTOCOL
from cni.kernel import Heard
from cni.rtnl import IFF_UP, Channel, attributes_of

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_INDEX = struct.Struct("=i")

RECEIVE_BYTES = 1 << 20
"""The socket's buffer: a burst of 700 pods that end at once tells 6,000 messages."""

_GROUPS = (1, 3, 5, 7, 8, 11, 19, 24)
"""RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_ROUTE, _IPV6_RULE,
_IPV4_NETCONF."""

_NFNLGRP_NFTABLES = 7
_NEWGEN = 10 << 8 | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN


class Events:
    """What the kernel of this namespace tells; a `cni.kernel.Ears`."""

    def __init__(self, receive_bytes: int = RECEIVE_BYTES) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.route = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self.nft = socket.socket(socket.AF_NETLINK, kind, 12)  # NETLINK_NETFILTER
        for sock in (self.route, self.nft):
            with contextlib.suppress(PermissionError):  # beyond rmem_max, who may not gets less
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.bind((0, 0))
        let_through(self.nft, _NEWGEN)
        for group in _GROUPS:
            self.route.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        self.nft.setsockopt(270, 1, _NFNLGRP_NFTABLES)

    def close(self) -> None:
        """Close the sockets."""
        self.route.close()
        self.nft.close()

    def on_told(self, call: Callable[[], None]) -> None:
        """Call *call* when there is something to read, once."""
        loop = asyncio.get_running_loop()

        def told() -> None:
            loop.remove_reader(self.route)
            loop.remove_reader(self.nft)
            call()

        loop.add_reader(self.route, told)
        loop.add_reader(self.nft, told)

    def read(self, is_ours: Callable[[int], bool]) -> Heard:
        """Return what was told since the last time; *is_ours* tells of a link's index."""
        heard = Heard()
        try:
            for data in _datagrams(self.route):
                _read_route_messages(data, is_ours, heard)
            for data in _datagrams(self.nft):
                heard.table = True
                heard.by = _who(data) or heard.by
        except OSError:  # ENOBUFS: messages were lost
            heard.everything = heard.table = True
        return heard


def _datagrams(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sock.recv(1 << 16)


def _read_route_messages(data: bytes, is_ours: Callable[[int], bool], heard: Heard) -> None:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, at)
        body = data[at + _HEADER.size : at + length]
        _read_message(kind, port, body, is_ours, heard)
        at += max(_HEADER.size, (length + 3) & ~3)


def _read_message(
    kind: int, port: int, body: bytes, is_ours: Callable[[int], bool], heard: Heard
) -> None:
    if kind in {16, 17}:  # RTM_NEWLINK, RTM_DELLINK
        index, flags = struct.unpack_from("=iI", body, 4)
        heard.links.add(index)
        # A link that goes down takes its routes along, and nobody tells of them.
        heard.everything |= not flags & IFF_UP and is_ours(index)
    elif port in Channel.ports:
        return
    elif kind in {24, 25}:  # RTM_NEWROUTE, RTM_DELROUTE
        heard.everything |= _is_our_route(body)
    elif kind in {20, 21, 28, 29}:  # RTM_*ADDR, RTM_*NEIGH: the index is at one place in both
        heard.everything |= is_ours(_INDEX.unpack_from(body, 4)[0])
    elif kind in {32, 33}:  # RTM_NEWRULE, RTM_DELRULE
        heard.everything = True
    elif kind in {80, 81}:  # RTM_NEWNETCONF, RTM_DELNETCONF
        _read_netconf(body, heard)


def _is_our_route(body: bytes) -> bool:
    table, protocol = body[4], body[5]  # struct rtmsg
    if table == 252:  # RT_TABLE_COMPAT: it is over 255
        table = _INDEX.unpack(attributes_of(body[12:]).get(15, b"\0" * 4))[0]  # RTA_TABLE
    return protocol == PROTOCOL or table == PODS_TABLE or 1 < table <= MAX_NUMBER


def _read_netconf(body: bytes, heard: Heard) -> None:
    # struct netconfmsg is the family, padded to four bytes.
    found = attributes_of(body[4:])
    index = _INDEX.unpack(found[1])[0] if 1 in found else 0  # NETCONFA_IFINDEX
    if index > 0:
        heard.links.add(index)
    else:  # of all links at once: NETCONFA_IFINDEX_ALL, _DEFAULT
        heard.everything = True


def _who(data: bytes) -> str:
    """Return the process that a generation's message names."""
    found = attributes_of(data[_HEADER.size + 4 :])
    return found.get(3, b"").rstrip(b"\0").decode(errors="replace")  # NFTA_GEN_PROC_NAME


def let_through(sock: socket.socket, kind: int) -> None:
    """Have the kernel drop what does not begin with a message of *kind*.

    A kube-proxy that writes 5,000 services tells some 40,000 messages, and one that it is done.
    """
    as_stored = kind if sys.byteorder == "big" else (kind & 0xFF) << 8 | kind >> 8
    code = b"".join(
        struct.pack("=HBBI", *line)
        for line in (
            (0x28, 0, 0, 4),  # ldh [4]: nlmsg_type, which BPF reads as big-endian
            (0x15, 0, 1, as_stored),  # jeq, else over the next
            (0x06, 0, 0, 0xFFFFFFFF),  # ret all
            (0x06, 0, 0, 0),  # ret nothing
        )
    )
    lines = array.array("B", code)
    program = struct.pack("@HP", len(code) // 8, lines.buffer_info()[0])  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER; the kernel copies it
