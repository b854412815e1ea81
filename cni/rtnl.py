"""Hand-packed rtnetlink: the messages of an ADD and a DEL, and a socket to send them. Shell.

A message is packed in microseconds where a general library takes hundreds; an ADD sends a
dozen. pyroute2 is this module's oracle: the contract tests decode every message here with it.

Attribute and message numbers are the kernel's (include/uapi/linux/{rtnetlink,if_link,
neighbour,netlink}.h); a comment names each. It is long because it is one: whoever checks a
number against the kernel's headers finds all of them here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import ClassVar, TypeVar

from cni.desired import SetLink

T = TypeVar("T")
Address = IPv4Address | IPv6Address

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg
_NEIGHBOUR = struct.Struct("=BxHiHBB")  # struct ndmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr

REQUEST, ACK, REPLACE, EXCL, CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_DUMP, _DUMP_INTR = 0x300, 0x10
_NESTED = 0x8000

IFF_UP = 0x1

MAX_BATCH = 100
"""Messages in one send: each may fail, and 737 refusals overflow the socket."""

MAX_DUMPS = 5
"""Tries for a dump that nothing changed under; a torn one misses what is there."""

MAX_QUEUES = 8
"""Queues of a veth at most: it gets one a possible CPU, 5 ms to make on a 192-CPU node."""


def queues(cpus: int | None) -> int:
    """Return how many queues a veth gets each way on a machine of *cpus*, None if nobody knows."""
    return min(cpus or 1, MAX_QUEUES)


QUEUES = queues(os.cpu_count())

PATIENCE = struct.pack("=qq", 5, 0)
"""struct timeval: how long the kernel may take to answer."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request: *kind* is RTM_*, *words* says it as `ip` would, for errors."""

    kind: int
    flags: int
    body: bytes
    words: str


class NetlinkError(Exception):
    """The kernel said no to one message."""

    def __init__(self, number: int, words: str, detail: str) -> None:
        why = f"{os.strerror(number)}{f' ({detail})' if detail else ''}"
        super().__init__(f"{words}: {why}")
        self.errno = number


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded."""
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + b"\0" * (-len(payload) & 3)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


NO_STATISTICS = attribute(29, _u32(1 << 3))  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6  # the family


# Messages ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Veth:
    """A pair: *name* here, *peer* in the namespace of *netns_fd*."""

    name: str
    mac: str
    group: int
    peer: str
    peer_mac: str
    netns_fd: int
    mtu: int
    queues: int = QUEUES


def new_veth(veth: Veth) -> Message:
    """Make the pair. The peer must not be up yet: the kernel refuses it before the tie."""
    both = (
        attribute(4, _u32(veth.mtu))  # IFLA_MTU
        + attribute(31, _u32(veth.queues))  # IFLA_NUM_TX_QUEUES
        + attribute(32, _u32(veth.queues))  # IFLA_NUM_RX_QUEUES
    )
    peer = (
        _LINK.pack(0, 0, 0, 0, 0)
        + attribute(3, _text(veth.peer))  # IFLA_IFNAME
        + attribute(1, _mac(veth.peer_mac))  # IFLA_ADDRESS
        + attribute(28, _u32(veth.netns_fd))  # IFLA_NET_NS_FD
        + both
    )
    info = attribute(1, _text("veth")) + attribute(2, attribute(1, peer))  # IFLA_INFO_*, PEER
    body = (
        _LINK.pack(0, 0, 0, 0, 0)
        + attribute(3, _text(veth.name))
        + attribute(1, _mac(veth.mac))
        + attribute(27, _u32(veth.group))  # IFLA_GROUP
        + both
        + attribute(18, info)  # IFLA_LINKINFO
    )
    words = f"ip link add {veth.name} group {veth.group} type veth peer {veth.peer} netns"
    return Message(16, REQUEST | ACK | CREATE | EXCL, body, words)  # RTM_NEWLINK


DEVCONF = {"forwarding": 1, "send_redirects": 6, "rp_filter": 8, "promote_secondaries": 20}
"""IPV4_DEVCONF_* of the link settings that we make (include/uapi/linux/ip.h)."""


def devconf(settings: Mapping[str, int]) -> bytes:
    """Return IPv4 link settings as an attribute: /proc/sys is read-only for us."""
    conf = b"".join(attribute(DEVCONF[name], _u32(value)) for name, value in settings.items())
    family = attribute(socket.AF_INET, attribute(1, conf))  # IFLA_INET_CONF
    return attribute(26 | _NESTED, family)  # IFLA_AF_SPEC


def set_link(
    name: str,
    *,
    up: bool,
    group: int | None = None,
    alias: str = "",
    conf: Mapping[str, int] | None = None,
) -> Message:
    """Change a link, by name; what is not given stays."""
    body = _LINK.pack(0, 0, 0, int(up), IFF_UP) + attribute(3, _text(name))
    words = f"ip link set {name} {'up' if up else 'down'}"
    if group is not None:
        body += attribute(27, _u32(group))
        words += f" group {group}"
    if alias:
        body += attribute(20, alias.encode())  # IFLA_IFALIAS
        words += f" alias {alias!r}"
    if conf:
        body += devconf(conf)
        words += f" {dict(conf)}"
    return Message(16, REQUEST | ACK, body, words)


def set_devconf(index: int, settings: Mapping[str, int]) -> Message:
    """Change a link's IPv4 settings, by index."""
    body = _LINK.pack(0, 0, index, 0, 0) + devconf(settings)
    return Message(16, REQUEST | ACK, body, f"ip link set #{index} {dict(settings)}")


def up(index: int) -> Message:
    """Raise a link, by index."""
    return Message(
        16, REQUEST | ACK, _LINK.pack(0, 0, index, 1, IFF_UP), f"ip link set #{index} up"
    )


def without_ipv6(index: int) -> Message:
    """Keep the kernel from giving a link an IPv6 address of its own; before it is up."""
    mode = attribute(8, b"\x01")  # IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE
    family = attribute(socket.AF_INET6 | _NESTED, mode)
    body = _LINK.pack(0, 0, index, 0, 0) + attribute(26 | _NESTED, family)  # IFLA_AF_SPEC
    return Message(16, REQUEST | ACK, body, f"ip link set #{index} addrgenmode none")


def change_link(wish: SetLink) -> Message:
    """Change a link, by index, in one message."""
    up, words = wish.is_up, f"ip link set #{wish.index}"
    body = _LINK.pack(0, 0, wish.index, int(bool(up)), 0 if up is None else IFF_UP)
    words += "" if up is None else " up" if up else " down"
    for kind, name, value in (
        (1, "address", None if wish.mac is None else _mac(wish.mac)),  # IFLA_ADDRESS
        (4, "mtu", None if wish.mtu is None else _u32(wish.mtu)),  # IFLA_MTU
        (27, "group", None if wish.group is None else _u32(wish.group)),  # IFLA_GROUP
        (20, "alias", None if wish.alias is None else wish.alias.encode()),  # IFLA_IFALIAS
        (3, "name", None if wish.name is None else _text(wish.name)),  # IFLA_IFNAME
    ):
        if value is not None:
            body += attribute(kind, value)
            words += f" {name}"
    if wish.conf:
        body += devconf(dict(wish.conf))
        words += f" {dict(wish.conf)}"
    return Message(16, REQUEST | ACK, body, words)


def delete_link(name: str) -> Message:
    """Delete one link, by name."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(3, _text(name))
    return Message(17, REQUEST | ACK, body, f"ip link del {name}")  # RTM_DELLINK


def delete_link_at(index: int) -> Message:
    """Delete one link, by index: whoever has its name by now stays."""
    return Message(17, REQUEST | ACK, _LINK.pack(0, 0, index, 0, 0), f"ip link del #{index}")


def delete_group(group: int) -> Message:
    """Delete every link of a group: the kernel waits once for all of them."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(27, _u32(group))
    return Message(17, REQUEST | ACK, body, f"ip link del group {group}")


def get_link(name: str) -> Message:
    """Ask for one link, by name."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(3, _text(name)) + NO_STATISTICS
    return Message(18, REQUEST | ACK, body, f"ip link show {name}")  # RTM_GETLINK


def get_link_at(index: int) -> Message:
    """Ask for one link, by index."""
    body = _LINK.pack(0, 0, index, 0, 0) + NO_STATISTICS
    return Message(18, REQUEST | ACK, body, f"ip link show #{index}")


def new_address(address: Address, index: int) -> Message:
    """Give a link *address* as a host's; without IPv6's duplicate detection."""
    flags = 0x80 if address.version == 4 else 0x82  # IFA_F_PERMANENT | NODAD
    packed = address.packed
    body = _ADDRESS.pack(_family(address), address.max_prefixlen, flags, 0, index)
    body += attribute(2, packed) + attribute(1, packed)  # IFA_LOCAL, IFA_ADDRESS
    words = f"ip addr add {address}/{address.max_prefixlen} dev #{index}"
    return Message(20, REQUEST | ACK | CREATE | EXCL, body, words)  # RTM_NEWADDR


def delete_address(address: Address, index: int) -> Message:
    """Take an address off a link."""
    body = _ADDRESS.pack(_family(address), address.max_prefixlen, 0, 0, index)
    body += attribute(2, address.packed) + attribute(1, address.packed)  # IFA_LOCAL, IFA_ADDRESS
    words = f"ip addr del {address}/{address.max_prefixlen} dev #{index}"
    return Message(21, REQUEST | ACK, body, words)  # RTM_DELADDR


def change_address(address: IPv4Interface, index: int, *, delete: bool = False) -> Message:
    """Give a link *address*, which makes no route in `main`, or take it away."""
    packed = address.ip.packed
    body = _ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index)
    body += attribute(2, packed) + attribute(1, packed)  # IFA_LOCAL, IFA_ADDRESS
    if delete:
        return Message(21, REQUEST | ACK, body, f"ip addr del {address} dev #{index}")
    body += attribute(8, _u32(0x280))  # IFA_FLAGS: IFA_F_NOPREFIXROUTE | IFA_F_PERMANENT
    words = f"ip addr add {address} dev #{index} noprefixroute"
    return Message(20, REQUEST | ACK | CREATE | REPLACE, body, words)


def new_neighbour(address: Address, mac: str, index: int) -> Message:
    """Make *mac* the permanent neighbour of *address*."""
    body = _NEIGHBOUR.pack(_family(address), 0, index, 0x80, 0, 0)  # NUD_PERMANENT
    body += attribute(1, address.packed) + attribute(2, _mac(mac))  # NDA_DST, NDA_LLADDR
    words = f"ip neigh replace {address} lladdr {mac} dev #{index} nud permanent"
    return Message(28, REQUEST | ACK | CREATE | REPLACE, body, words)  # RTM_NEWNEIGH


@dataclass(frozen=True, slots=True)
class Path:
    """A route to *address*/*length*; *kind* 1 is unicast, 7 unreachable (RTN_*)."""

    address: Address
    length: int
    table: int = 254
    index: int = 0
    gateway: Address | None = None
    source: Address | None = None
    metric: int = 0
    protocol: int = 3
    kind: int = 1
    on_link: bool = False
    """Whether the gateway is on the link although no prefix says so."""
    tos: int = 0
    origin: IPv4Network | IPv6Network | None = None
    """Whose packets take it; of IPv6 only."""


def _route_body(path: Path, *, any_scope: bool = False) -> bytes:
    scope = 0 if path.gateway or path.kind != 1 else 253  # RT_SCOPE_UNIVERSE, RT_SCOPE_LINK
    scope = 255 if any_scope else scope  # RT_SCOPE_NOWHERE, of a deletion
    if path.address.version == 6:  # the family: IPv6 routes have no scope
        scope = 0
    body = _ROUTE.pack(
        _family(path.address), path.length, path.origin.prefixlen if path.origin else 0, path.tos,
        path.table if path.table < 256 else 0, path.protocol, scope, path.kind,
        4 if path.on_link else 0,  # RTNH_F_ONLINK
    )  # fmt: skip
    if path.length:
        body += attribute(1, path.address.packed)  # RTA_DST
    if path.origin is not None:
        body += attribute(2, path.origin.network_address.packed)  # RTA_SRC
    if path.index:
        body += attribute(4, struct.pack("=i", path.index))  # RTA_OIF
    if path.gateway is not None:
        body += attribute(5, path.gateway.packed)  # RTA_GATEWAY
    if path.metric:
        body += attribute(6, _u32(path.metric))  # RTA_PRIORITY
    if path.source is not None:
        body += attribute(7, path.source.packed)  # RTA_PREFSRC
    return body + attribute(15, _u32(path.table))  # RTA_TABLE


def _route_words(path: Path) -> str:
    kind = "unreachable " if path.kind == 7 else ""  # RTN_UNREACHABLE
    metric = f" metric {path.metric}" if path.metric else ""
    metric += f" tos {path.tos:#x}" if path.tos else ""
    return f"{kind}{path.address}/{path.length} dev #{path.index} table {path.table}{metric}"


def new_route(path: Path) -> Message:
    """Put a route; one of the same address, table and metric is replaced."""
    flags = REQUEST | ACK | CREATE | REPLACE
    return Message(24, flags, _route_body(path), f"ip route replace {_route_words(path)}")


def delete_route(path: Path, *, any_scope: bool = False) -> Message:
    """Take a route out; with *any_scope* also one whose scope is not as ours would be."""
    body = _route_body(path, any_scope=any_scope)
    return Message(25, REQUEST | ACK, body, f"ip route del {_route_words(path)}")


@dataclass(frozen=True, slots=True)
class RuleWish:
    """An IPv4 rule that looks a table up."""

    preference: int
    table: int
    protocol: int
    fwmark: int = 0
    fwmask: int = 0
    source: IPv4Address | None = None
    destination: IPv4Network | None = None


def change_rule(rule: RuleWish, *, delete: bool = False, double: bool = False) -> Message:
    """Add a rule, or take it out.

    One that is there already is refused, unless it is to be there twice (*double*).
    """
    table = rule.table if rule.table < 256 else 0
    length, to = 0 if rule.source is None else 32, rule.destination
    to_length = 0 if to is None else to.prefixlen
    body = _ROUTE.pack(socket.AF_INET, to_length, length, 0, table, 0, 0, 1, 0)  # FR_ACT_TO_TBL
    body += attribute(6, _u32(rule.preference))  # FRA_PRIORITY
    body += attribute(15, _u32(rule.table))  # FRA_TABLE
    body += attribute(21, bytes([rule.protocol]))  # FRA_PROTOCOL
    words = f"pref {rule.preference} lookup {rule.table}"
    if rule.source is not None:
        body += attribute(2, rule.source.packed)  # FRA_SRC
        words += f" from {rule.source}"
    if to is not None:
        body += attribute(1, to.network_address.packed)  # FRA_DST
        words += f" to {to}"
    if rule.fwmark:
        body += attribute(10, _u32(rule.fwmark)) + attribute(16, _u32(rule.fwmask))  # FRA_FWMASK
        words += f" fwmark {rule.fwmark:#x}/{rule.fwmask:#x}"
    if delete:
        return Message(33, REQUEST | ACK, body, f"ip rule del {words}")  # RTM_DELRULE
    flags = REQUEST | ACK | CREATE | (0 if double else EXCL)
    return Message(32, flags, body, f"ip rule add {words}")


def delete_rule(body: bytes, words: str) -> Message:
    """Take the rule out that a RTM_NEWRULE body tells of: all that it asks is asked for."""
    return Message(33, REQUEST | ACK, body, f"ip rule del {words}")


# Answers -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Link:
    """What a link dump says of one link."""

    index: int
    name: str
    is_up: bool
    is_operational: bool
    group: int
    mac: str
    alias: str
    peer_index: int


def attributes_of(data: bytes) -> dict[int, bytes]:
    """Return attributes by number, without their flags."""
    return dict(each_attribute(data))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each attribute's number, without its flags, and what it holds."""
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:  # an attribute's own header
            break
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def read_link(body: bytes) -> Link:
    """Return the link of an RTM_NEWLINK body."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes_of(body[_LINK.size :])
    number = struct.Struct("=I")
    return Link(
        index=index,
        name=found.get(3, b"").rstrip(b"\0").decode(),
        is_up=bool(flags & IFF_UP),
        is_operational=found.get(16) == b"\x06",  # IFLA_OPERSTATE: IF_OPER_UP
        group=number.unpack(found[27])[0] if 27 in found else 0,  # IFLA_GROUP
        mac=":".join(f"{b:02x}" for b in found.get(1, b"")),
        alias=found.get(20, b"").rstrip(b"\0").decode(errors="replace"),
        peer_index=number.unpack(found[5])[0] if 5 in found else 0,  # IFLA_LINK
    )


def read_address(body: bytes) -> tuple[int, Address]:
    """Return the index of the link and the address of an RTM_NEWADDR body."""
    *_, index = _ADDRESS.unpack_from(body)
    found = attributes_of(body[_ADDRESS.size :])
    return index, ip_address(found.get(2) or found[1])  # IFA_LOCAL, IFA_ADDRESS


class Channel:
    """A rtnetlink socket. It stays in the namespace that it was opened in."""

    ports: ClassVar[set[int]] = set()
    """Of this process' own channels: the kernel's events name by it who asked for a change."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        """Open one here, or take *sock* over."""
        self._socket = sock or socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._port = 0
        if sock is None:
            self._socket.bind((0, 0))
            self._port = self._socket.getsockname()[0]
            self.ports.add(self._port)
        # The kernel's own timeout: Python's would poll() before each call, and whoever waits in
        # a call may lose its turn to another thread.
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE)
        self._socket.setsockopt(270, 10, 1)  # SOL_NETLINK, NETLINK_CAP_ACK: acks without a copy
        self._socket.setsockopt(270, 11, 1)  # NETLINK_EXT_ACK: the kernel's own words
        # NETLINK_GET_STRICT_CHK: a dump's request is a filter, where the kernel has one for it.
        self._socket.setsockopt(270, 12, 1)
        self._sequence = 0

    def be_strict(self) -> None:
        """Have dumps checked and filtered by the kernel: of one routing table, say."""
        self._socket.setsockopt(270, 12, 1)  # SOL_NETLINK, NETLINK_GET_STRICT_CHK

    def close(self) -> None:
        """Close the socket."""
        self.ports.discard(self._port)
        self._socket.close()

    def send(self, *messages: Message) -> list[bytes]:
        """Send *messages* in order and return what they answered, but acks.

        Raises NetlinkError for the first that failed; the kernel has tried all of its
        batch by then.
        """
        answers, errors = self.try_all(messages)
        if errors:
            raise errors[0]
        return answers

    def try_all(self, messages: Sequence[Message]) -> tuple[list[bytes], list[NetlinkError]]:
        """Send *messages*; return what they answered and every failure, in order."""
        answers: list[bytes] = []
        errors: list[NetlinkError] = []
        for start in range(0, len(messages), MAX_BATCH):
            batch = messages[start : start + MAX_BATCH]
            waiting = {}
            payload = bytearray()
            for message in batch:
                self._sequence += 1
                waiting[self._sequence] = message
                size = _HEADER.size + len(message.body)
                # The last one's ack says that all are done; a failure is told in any case.
                flags = message.flags if message is batch[-1] else message.flags & ~ACK
                payload += _HEADER.pack(size, message.kind, flags, self._sequence, 0)
                payload += message.body + b"\0" * (-size & 3)
            self._socket.send(payload)
            while self._sequence in waiting:
                for kind, sequence, body, _ in self._receive():
                    if sequence not in waiting:
                        continue
                    if kind == 2:  # NLMSG_ERROR; 0 is the ack
                        message = waiting.pop(sequence)
                        if error := _error(body, message.words):
                            errors.append(error)
                    else:
                        answers.append(body)
        return answers, errors

    def dump_links(self, group: int | None = None) -> list[Link]:
        """Return every link of the namespace, or of one group."""
        # To read a link takes longer than to search it, and of 700 some are asked for.
        sign = b"" if group is None else attribute(27, _u32(group))  # IFLA_GROUP
        found = self.dump(
            18,  # RTM_GETLINK
            _LINK.pack(0, 0, 0, 0, 0) + NO_STATISTICS,
            lambda answer: read_link(answer) if sign in answer else None,
        )
        return found if group is None else [link for link in found if link.group == group]

    def find_link(self, mac: str) -> Link | None:
        """Return a link with this MAC, None if there is none.

        A dump that is torn may lack a link, but what it shows is there: on a node whose pods
        come and go, every dump of its links is torn.
        """
        sign = attribute(1, _mac(mac))  # IFLA_ADDRESS
        seen: list[Link] = []

        def note(answer: bytes) -> None:
            if sign in answer and (link := read_link(answer)).mac == mac:
                seen.append(link)

        for _ in range(MAX_DUMPS):
            _, is_whole = self._dump(18, _LINK.pack(0, 0, 0, 0, 0) + NO_STATISTICS, note)
            if seen or is_whole:
                return seen[0] if seen else None
        raise NetlinkError(errno.EBUSY, "dump", f"{MAX_DUMPS} dumps were torn by changes")

    def dump_addresses(self) -> list[tuple[int, Address]]:
        """Return every address of the namespace, with its link's index."""
        return [
            found
            for family in (socket.AF_INET, socket.AF_INET6)
            for found in self.dump(
                22, _ADDRESS.pack(family, 0, 0, 0, 0), read_address
            )  # RTM_GETADDR
        ]

    def dump(self, kind: int, body: bytes, read: Callable[[bytes], T | None]) -> list[T]:
        """Return what *read* makes of the answers to one dump request, all of one moment.

        It is given each as it comes, and answers None for what is not wanted: a whole dump may
        be megabytes. The kernel marks a dump that something changed under: it may lack what was
        there all the time, so it is asked for again.
        """
        for _ in range(MAX_DUMPS):
            answers, is_whole = self._dump(kind, body, read)
            if is_whole:
                return answers
        raise NetlinkError(errno.EBUSY, "dump", f"{MAX_DUMPS} dumps were torn by changes")

    def _dump(
        self, kind: int, body: bytes, read: Callable[[bytes], T | None]
    ) -> tuple[list[T], bool]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | _DUMP, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[T] = []
        is_whole = True
        while True:
            for answer, sequence, payload, flags in self._receive():
                if sequence != self._sequence:
                    continue
                is_whole = is_whole and not flags & _DUMP_INTR
                if answer in {2, 3}:  # NLMSG_ERROR, NLMSG_DONE: both begin with an errno
                    if error := _error(payload, "dump"):
                        raise error
                    return answers, is_whole
                if (wanted := read(payload)) is not None:
                    answers.append(wanted)

    def _receive(self) -> Iterator[tuple[int, int, bytes, int]]:
        data = self._socket.recv(1 << 16)  # the kernel fills 32 KiB at most
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            yield kind, sequence, data[at + _HEADER.size : at + length], flags
            at += (length + 3) & ~3


def _error(body: bytes, words: str) -> NetlinkError | None:
    number = -struct.unpack_from("=i", body)[0]
    if not number:
        return None
    text = attributes_of(body[20:]).get(1, b"")  # behind errno and the header; NLMSGERR_ATTR_MSG
    return NetlinkError(number, words, text.rstrip(b"\0").decode(errors="replace"))
