"""What the kernel shows of a node, read as a whole: links, routes, rules, neighbours, nft. Shell.

A full node has 700 pods and more, and is looked at for as long as it lives, so a look must
cost little: the kernel filters what it can (tables, families), and what it sends byte for byte
as the last time is not read again. Numbers are the kernel's (include/uapi/linux/{rtnetlink,
fib_rules,if_addr,neighbour,netfilter/nf_tables}.h); a comment names each.
"""

from __future__ import annotations

import errno
import socket
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Generic, TypeVar

from cni.dataplane import EXTERNAL_PREFERENCE, PODS_TABLE, PROTOCOL, ForeignRule, Rule
from cni.desired import KINDS, Found, FoundLink, FoundRule, Neighbour, OddRule, OwnAddress, Way
from cni.nft import TABLE
from cni.nft_found import FoundChain, FoundNftRule, FoundTable
from cni.rtnl import (
    ACK,
    DEVCONF,
    IFF_UP,
    NO_STATISTICS,
    REQUEST,
    Channel,
    Message,
    NetlinkError,
    attribute,
    attributes_of,
    each_attribute,
    get_link_at,
)
from cni.rule_words import words

T = TypeVar("T")

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_RULE = struct.Struct("=BBBBBBBBI")  # struct fib_rule_hdr: family, lengths, tos, table, .., action
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg
_NEIGHBOUR = struct.Struct("=BxHiHBB")  # struct ndmsg
_NUMBER = struct.Struct("=I")
_BIG_NUMBER = struct.Struct(">I")
_NFGEN = struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource id

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_FR_ACT_TO_TBL = 1
_NUD_PERMANENT = 0x80
_RTN_UNICAST = 1
_USUAL = {_RTN_UNICAST, 7}  # RTN_UNREACHABLE
_KINDS = {number: word for word, number in KINDS.items()}
_IFA_F_NOPREFIXROUTE = 0x200
_MAIN = 254

_NFPROTO = {"ip": 2, "ip6": 10, "inet": 1}  # NFPROTO_*
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")  # NF_INET_*
_POLICIES = ("drop", "accept")  # NF_DROP, NF_ACCEPT
_UDATA_COMMENT = 0  # libnftnl's NFTNL_UDATA_RULE_COMMENT

_COUNTER = attribute(1, b"counter\0")
"""How an expression begins that counts packets: NFTA_EXPR_NAME."""

_AGE = struct.pack("=HH", 20, 3)
"""How the ages of a neighbour begin: NDA_CACHEINFO."""

HAS_IPV6 = Path("/proc/net/if_inet6")
"""Not there on a kernel that was built or booted without IPv6."""


class _Memory(Generic[T]):
    """What messages said, by their bytes: those of the last look are not read again."""

    def __init__(self, read: Callable[[bytes], T | None]) -> None:
        self._read = read
        self._known: dict[int, T | None] = {}
        self._keys: list[int] = []
        self._said: tuple[T, ...] = ()

    def read(self, bodies: Sequence[bytes]) -> tuple[T, ...]:
        """Return what *bodies* say, but None; the very tuple of the last time if it is the same."""
        # 64 bits of a keyed hash: the bytes of a full node's links would be a megabyte.
        keys = list(map(hash, bodies))
        if keys != self._keys:
            known = self._known
            self._known = {
                key: known[key] if key in known else self._read(body)
                for key, body in zip(keys, bodies, strict=True)
            }
            self._said = tuple(said for said in self._known.values() if said is not None)
            self._keys = keys
        return self._said


def _conf(spec: bytes) -> tuple[tuple[str, int], ...]:
    inet = attributes_of(spec).get(socket.AF_INET)  # IFLA_AF_SPEC's element of the family
    values = attributes_of(inet).get(1, b"") if inet else b""  # IFLA_INET_CONF
    return tuple(
        (name, _NUMBER.unpack_from(values, 4 * (number - 1))[0])
        for name, number in DEVCONF.items()
        if len(values) >= 4 * number
    )


def read_link(body: bytes) -> FoundLink:
    """Return the link of an RTM_NEWLINK body."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes_of(body[_LINK.size :])
    return FoundLink(
        index=index,
        name=found.get(3, b"").rstrip(b"\0").decode(errors="replace"),  # IFLA_IFNAME
        mac=":".join(f"{b:02x}" for b in found.get(1, b"")),  # IFLA_ADDRESS
        mtu=_NUMBER.unpack(found[4])[0] if 4 in found else 0,  # IFLA_MTU
        is_up=bool(flags & IFF_UP),
        group=_NUMBER.unpack(found[27])[0] if 27 in found else 0,  # IFLA_GROUP
        alias=found.get(20, b"").rstrip(b"\0").decode(errors="replace"),  # IFLA_IFALIAS
        conf=_conf(found.get(26, b"")),  # IFLA_AF_SPEC
    )


def read_route(body: bytes) -> Way | None:
    """Return the route of an RTM_NEWROUTE body; None of a type that routes have not."""
    family, length, origin, tos, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    found = attributes_of(body[_ROUTE.size :])
    is_usual = kind in _USUAL and 9 not in found  # RTA_MULTIPATH
    if not is_usual and kind not in _KINDS:
        return None
    whole = b"\0" * (4 if family == socket.AF_INET else 16)
    return Way(
        network=ip_network((found.get(1, whole), length)),  # RTA_DST
        table=_NUMBER.unpack(found[15])[0] if 15 in found else table,  # RTA_TABLE
        metric=_NUMBER.unpack(found[6])[0] if 6 in found else 0,  # RTA_PRIORITY
        index=_NUMBER.unpack(found[4])[0] if 4 in found and kind == _RTN_UNICAST else 0,  # RTA_OIF
        gateway=ip_address(found[5]) if 5 in found else None,  # RTA_GATEWAY
        source=ip_address(found[7]) if 7 in found else None,  # RTA_PREFSRC
        protocol=protocol,
        kind="" if is_usual else _KINDS[kind],
        tos=tos,
        origin=ip_network((found.get(2, whole), origin)) if origin else None,  # RTA_SRC
    )


_RULE_WORDS = {1, 2, 6, 10, 14, 15, 16, 21}
"""FRA_DST, _SRC, _PRIORITY, _FWMARK, _SUPPRESS_PREFIXLEN (-1 if unset), _TABLE, _FWMASK,
_PROTOCOL: a rule with any other asks more than ours do."""


_INVERT = 2  # FIB_RULE_INVERT


def _is_turned(body: bytes) -> bool:
    """Whether a rule takes what it does not ask for: `ip rule add not`."""
    return bool(_RULE.unpack_from(body)[-1] & _INVERT)


def _asks_more(body: bytes) -> bool:
    """Whether an IPv4 rule does, or asks, what none of ours does."""
    tos, action = body[3], body[7]
    found = attributes_of(body[_RULE.size :])
    suppresses = found.get(14, b"\xff\xff\xff\xff") != b"\xff\xff\xff\xff"
    return bool(action != _FR_ACT_TO_TBL or tos or suppresses or found.keys() - _RULE_WORDS)


def read_rule(body: bytes) -> FoundRule | None:
    """Return the rule of an RTM_NEWRULE body; None of one that asks what none of ours does."""
    return None if _asks_more(body) or _is_turned(body) else _plain(body)


def read_odd(body: bytes) -> OddRule | None:
    """Return the rule of our protocol that none of ours is like; None of any other."""
    if attributes_of(body[_RULE.size :]).get(21) != bytes([PROTOCOL]):  # FRA_PROTOCOL
        return None
    is_v4, asks_more = body[0] == socket.AF_INET, _asks_more(body)
    if is_v4 and not asks_more and not _is_turned(body):
        return None
    like = _plain(body).rule if is_v4 and not asks_more else None
    return OddRule(words(body), body, like)


def _plain(body: bytes) -> FoundRule:
    """Return an IPv4 rule as far as ours ask."""
    _, to_length, _, _, table, _, _, _, _ = _RULE.unpack_from(body)
    found = attributes_of(body[_RULE.size :])

    def number(kind: int) -> int:
        value: int = _NUMBER.unpack(found[kind])[0] if kind in found else 0
        return value

    source = IPv4Address(found[2]) if 2 in found else None
    to = IPv4Network((found.get(1, 0), to_length))
    return FoundRule(
        Rule(
            preference=number(6),
            table=number(15) or table,
            fwmark=number(10),
            fwmask=number(16),
            source=source,
            destination=to if to_length or number(6) == EXTERNAL_PREFERENCE else None,
        ),
        protocol=found[21][0] if 21 in found else 0,
    )


def read_mark(body: bytes) -> ForeignRule | None:
    """Return the mark that a rule of somebody else looks at."""
    found = attributes_of(body[_RULE.size :])
    if 10 not in found or found.get(21) == bytes([PROTOCOL]):  # FRA_FWMARK, FRA_PROTOCOL
        return None
    preference, mark = (_NUMBER.unpack(found.get(kind, b"\0" * 4))[0] for kind in (6, 10))
    mask = _NUMBER.unpack(found.get(16, b"\xff" * 4))[0]  # FRA_FWMASK
    return ForeignRule(preference, mark, mask)


def read_address(body: bytes) -> OwnAddress:
    """Return the IPv4 address of an RTM_NEWADDR body."""
    _, length, flags, _, index = _ADDRESS.unpack_from(body)
    found = attributes_of(body[_ADDRESS.size :])
    flags = _NUMBER.unpack(found[8])[0] if 8 in found else flags  # IFA_FLAGS
    address = IPv4Address(found[2] if 2 in found else found[1])  # IFA_LOCAL, IFA_ADDRESS
    return OwnAddress(index, IPv4Interface((address, length)), bool(flags & _IFA_F_NOPREFIXROUTE))


def _without_age(body: bytes) -> bytes:
    """Return a neighbour's message but for when it was used, which is another at each look."""
    end = body.rfind(_AGE)  # the kernel puts it behind address and MAC
    return body if end < 0 else body[:end]


def read_neighbour(body: bytes) -> Neighbour | None:
    """Return the neighbour of an RTM_NEWNEIGH body, None unless it is permanent."""
    family, _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    if not state & _NUD_PERMANENT or family not in _FAMILIES:
        return None
    found = attributes_of(body[_NEIGHBOUR.size :])
    mac = found.get(2, b"")  # NDA_LLADDR
    return Neighbour(index, ip_address(found[1]), ":".join(f"{b:02x}" for b in mac))  # NDA_DST


class Looks:
    """Looks at the node whose namespace this was made in; on one thread."""

    def __init__(self) -> None:
        self._channel = Channel()
        self._channel.be_strict()
        self._nft = Channel(
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12)
        )  # NETLINK_NETFILTER
        self._links = _Memory(read_link)
        self._routes = _Memory(read_route)
        self._addresses = _Memory(read_address)
        self._rules = _Memory(read_rule)
        self._odd = _Memory(read_odd)
        self._marks = _Memory(read_mark)
        self._neighbours = _Memory(read_neighbour)
        self._permanent: tuple[tuple[Neighbour, ...], frozenset[Neighbour]] = ((), frozenset())
        self._last = Found()
        self._tables: dict[str, tuple[int, FoundTable]] = {}
        """By name, and as of which generation of nft."""

    def close(self) -> None:
        """Close the sockets."""
        self._channel.close()
        self._nft.close()

    def look(self, tables: Iterable[int]) -> Found:
        """Return everything; of routes those of the PODS table and of *tables*.

        Where nothing has changed it is the very same as the last time.
        """
        rules = self._rule_bodies()
        found = Found(
            links=self.links(),
            ways=self.ways((PODS_TABLE, *tables)),
            rules=self._rules.read(rules),
            odd=self._odd.read([*rules, *self._rule_bodies(socket.AF_INET6)]),
            marked=self._marks.read(rules),
            addresses=self.addresses(),
            neighbours=self.neighbours(),
            table=self.table(),
        )
        if not all(getattr(found, part) is getattr(self._last, part) for part in found.__slots__):
            self._last = found
        return self._last

    def links(self) -> tuple[FoundLink, ...]:
        """Return every link."""
        bodies = _dump(self._channel, 18, _LINK.pack(0, 0, 0, 0, 0) + NO_STATISTICS)  # RTM_GETLINK
        return self._links.read(bodies)

    def links_of(self, indexes: Iterable[int]) -> tuple[FoundLink, ...]:
        """Return the links of these indexes that there are."""
        bodies, errors = self._channel.try_all([get_link_at(index) for index in indexes])
        for error in errors:
            if error.errno != errno.ENODEV:
                raise error
        return tuple(map(read_link, bodies))

    def ways(self, tables: Iterable[int]) -> tuple[Way, ...]:
        """Return the routes of *tables*, and those of our protocol anywhere."""
        bodies = [body for table in tables for body in self._routes_of(table)]
        for family in _FAMILIES:
            header = _ROUTE.pack(family, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
            bodies += _dump(self._channel, 26, header)  # RTM_GETROUTE
        return self._routes.read(bodies)

    def _routes_of(self, table: int) -> Iterator[bytes]:
        for family in _FAMILIES if table == PODS_TABLE else (socket.AF_INET,):
            header = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            try:
                yield from _dump(self._channel, 26, header + attribute(15, _NUMBER.pack(table)))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:  # a table that nothing was ever put into
                    raise

    def rules(self) -> tuple[FoundRule, ...]:
        """Return the IPv4 rules that ask no more than ours do."""
        return self._rules.read(self._rule_bodies())

    def _rule_bodies(self, family: int = socket.AF_INET) -> list[bytes]:
        try:
            return _dump(self._channel, 34, _RULE.pack(family, *[0] * 8))  # RTM_GETRULE
        except NetlinkError as error:
            if error.errno != errno.EAFNOSUPPORT or family == socket.AF_INET:
                raise
            return []  # a kernel without IPv6, or without rules of it

    def addresses(self) -> tuple[OwnAddress, ...]:
        """Return the IPv4 addresses of the host's links."""
        bodies = _dump(self._channel, 22, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0))  # RTM_GETADDR
        return self._addresses.read(bodies)

    def neighbours(self) -> frozenset[Neighbour]:
        """Return the permanent neighbours."""
        bodies = _dump(self._channel, 30, _NEIGHBOUR.pack(0, 0, 0, 0, 0, 0))  # RTM_GETNEIGH
        said = self._neighbours.read(list(map(_without_age, bodies)))
        if said is not self._permanent[0]:
            self._permanent = (said, frozenset(said))
        return self._permanent[1]

    # Of others -------------------------------------------------------------------------
    def dropping_chains(self) -> tuple[str, ...]:
        """Return the nft chains that drop what is forwarded over IPv4 unless a rule accepts it."""
        found = []
        for family in ("ip", "inet"):
            header = _NFGEN.pack(_NFPROTO[family], 0, 0)
            for body in _dump(self._nft, _nft(4), header):  # NFT_MSG_GETCHAIN
                chain = read_chain(family, body[4:])
                if (chain.hook, chain.policy) == ("forward", "drop"):
                    table = attributes_of(body[4:])[1].rstrip(b"\0").decode()  # NFTA_CHAIN_TABLE
                    found.append(f"chain {chain.name} of nft table {family} {table}")
        return tuple(found)

    # nft -------------------------------------------------------------------------------
    def generation(self) -> int:
        """Return how often the node's nft rules were changed; a number that only grows."""
        body = _NFGEN.pack(0, 0, 0)
        (answer,) = self._nft.send(Message(_nft(16), REQUEST | ACK, body, "nft generation"))
        number: int = _BIG_NUMBER.unpack(attributes_of(answer[4:])[1])[0]  # NFTA_GEN_ID
        return number

    def table(self, name: str = TABLE) -> FoundTable:
        """Return the nft tables *name* of all families that the kernel has.

        As long as nobody changes any nft of the node, the answer of the last time holds.
        """
        generation = self.generation()
        known = self._tables.get(name)
        if known is None or known[0] != generation:
            found = self._table(name)
            # Whatever is changed while it is read makes the next look read again.
            known = self._tables[name] = (generation, found)
        return known[1]

    def _table(self, name: str) -> FoundTable:
        families = ("ip", "ip6") if HAS_IPV6.exists() else ("ip",)
        own = attribute(1, name.encode() + b"\0")  # NFTA_CHAIN_TABLE, NFTA_RULE_TABLE: the first
        chains: list[FoundChain] = []
        rules: list[FoundNftRule] = []
        for family in families:
            # The kernel filters rules by table, and chains by family only.
            header = _NFGEN.pack(_NFPROTO[family], 0, 0)
            bodies = _dump(self._nft, _nft(4), header)  # NFT_MSG_GETCHAIN
            chains += (read_chain(family, c[4:]) for c in bodies if c.startswith(own, 4))
            bodies = _dump(self._nft, _nft(7), header + own)  # NFT_MSG_GETRULE
            rules += (read_nft_rule(family, r[4:]) for r in bodies if r.startswith(own, 4))
        return FoundTable(tuple(sorted(chains)), tuple(rules), families)


def _dump(channel: Channel, kind: int, body: bytes) -> list[bytes]:
    return channel.dump(kind, body, bytes)


def _nft(message: int) -> int:
    return 10 << 8 | message  # NFNL_SUBSYS_NFTABLES


def read_chain(family: str, body: bytes) -> FoundChain:
    """Return the chain of an NFT_MSG_NEWCHAIN, behind its header."""
    found = attributes_of(body)
    name = found[3].rstrip(b"\0").decode()  # NFTA_CHAIN_NAME
    if 4 not in found:  # NFTA_CHAIN_HOOK
        return FoundChain(family, name)
    number = _BIG_NUMBER.unpack(attributes_of(found[4])[1])[0]  # NFTA_HOOK_HOOKNUM
    policy = _BIG_NUMBER.unpack(found[5])[0] if 5 in found else 1  # NFTA_CHAIN_POLICY
    return FoundChain(family, name, _HOOKS[number], _POLICIES[policy])


def read_nft_rule(family: str, body: bytes) -> FoundNftRule:
    """Return the rule of an NFT_MSG_NEWRULE, behind its header."""
    found = attributes_of(body)
    return FoundNftRule(
        family=family,
        chain=found[2].rstrip(b"\0").decode(),  # NFTA_RULE_CHAIN
        content=_content(found.get(4, b"")),  # NFTA_RULE_EXPRESSIONS
        comment=_comment(found.get(7, b"")),  # NFTA_RULE_USERDATA
    )


def _content(expressions: bytes) -> int:
    """Return what tells two rules apart: a sum of what they do, less what they have counted.

    It is the same in every process, so that it can be noted for the next life.
    """
    said = (element for _, element in each_attribute(expressions))
    return zlib.crc32(b"".join(one for one in said if not one.startswith(_COUNTER)))


def _comment(userdata: bytes) -> str:
    """Return the comment among what nft keeps with a rule: type, length, value, each a byte."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == _UDATA_COMMENT:
            return userdata[at + 2 : at + 2 + length].rstrip(b"\0").decode(errors="replace")
        at += 2 + length
    return ""
