"""The nft tables, as text. Pure.

Three base chains of `ip enid`, and a packet of a connection that is there passes one of them:
*arrive* remembers by which ENI a connection came in, before every DNAT; *leave*, after every DNAT,
drops what a pod may not send, sends replies back the same way, marks a pod's connections to
outside the VPC for the primary, and gives everything else the ENI of its veth's group; *masq*
gives the marked ones the node's address. Two more are there if a setting asks for them: *imds*
keeps pods from the instance metadata, *clamp* lowers TCP's segment size to what the path takes.

*arrive* and *masq* are of type nat, which the kernel asks about a connection's first packet alone.
*leave* may not be: behind kube-proxy's DNAT no other nat chain is asked.

Plain compares only: a set looked up while a transaction swaps it can miss, and a connection
mark makes the miss last for the connection's life. What decides for life is asked of the first
packet alone (`ct status` not yet confirmed): `ct state new` is true of every packet of a flow
that nobody answers, and such a flow must not change its way when the rules do.

`ip6 enid` has no routing: pods have no IPv6 address, and may send from none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from cni.dataplane import DYING_GROUP, ENI_GROUP, MAX_NUMBER, POD_GROUP, USUAL_MARKS, Marks

TABLE = "enid"
FAMILIES = ("ip", "ip6")
NUMBERS = 0xFFFFFFFF ^ MAX_NUMBER
PODS, ENIS = f"and {NUMBERS:#x} == {POD_GROUP:#x}", f"and {NUMBERS:#x} == {ENI_GROUP:#x}"
NO_PODS, NO_ENIS = PODS.replace("==", "!="), ENIS.replace("==", "!=")
"""Behind `iifgroup` or `oifgroup`: whether a link is of a pod, or an ENI. A mask, and no range: the
kernel keeps groups in the machine's byte order, so for a range it swaps each packet's bytes and
compares twice, by its slow ways: 0.2 of the 6 us that a packet takes, with three such rules."""
FIRST = "ct status and 0x8 == 0x0"
"""Whether a packet is the first of its connection: IPS_CONFIRMED (include/uapi/linux/netfilter/
nf_conntrack_common.h) is set as soon as one has passed. A number, because not every nft knows
`! confirmed`."""
METADATA_V4, METADATA_V6 = "169.254.169.254", "fd00:ec2::254"
"""Where an instance's metadata, and its role's credentials, are (IMDS)."""
LOOPBACK = "ip daddr 127.0.0.0/8"
BEFORE_DNAT = -150
"""Before every chain that translates destinations (-100 and later), behind conntrack (-200)."""
FINGERPRINT = "enid-"
"""A rule's comment begins with this, then the hash of the text: nft lists a table in other
words than it was written in, so the text itself cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NftWish:
    """What the tables depend on.

    *eni_numbers* is the most ENIs the instance takes, so that attaching one touches no nft.
    """

    vpc_cidrs: tuple[IPv4Network, ...]
    node_primary: IPv4Address
    eni_numbers: int
    excluded_cidrs: tuple[IPv4Network, ...] = ()
    node_port_support: bool = True
    external_snat: bool = False
    randomize: Literal["fully-random", "random", ""] = "fully-random"
    marks: Marks = USUAL_MARKS
    mss_clamp: bool = False
    block_metadata: bool = False


def _probe(rule: str, *, family: str = "ip", hook: str = "") -> str:
    """Return a table with one chain of one *rule*, for a dry run."""
    base = hook or _base("prerouting", "mangle")
    return f"table {family} {TABLE}-probe {{\n chain probe {{\n  {base}\n  {rule}\n }}\n}}\n"


def _base(hook: str, priority: str, kind: str = "filter") -> str:
    return f"type {kind} hook {hook} priority {priority}; policy accept;"


FEATURES: Mapping[str, str] = {
    "nf_tables for IPv4 (CONFIG_NF_TABLES_IPV4)": _probe("counter"),
    "nf_tables for IPv6 (CONFIG_NF_TABLES_IPV6)": _probe("counter", family="ip6"),
    "nf_tables ct (CONFIG_NFT_CT)": _probe(f"{FIRST} ct mark set 0x0"),
    "nf_tables fib for IPv4 (CONFIG_NFT_FIB_IPV4)": _probe("fib daddr type local counter"),
    "nf_tables fib for IPv6 (CONFIG_NFT_FIB_IPV6)": _probe(
        "fib saddr . iif oif missing counter", family="ip6"
    ),
    "nf_tables nat (CONFIG_NFT_NAT)": _probe(
        "snat to 192.0.2.1 fully-random", hook=_base("postrouting", "srcnat", "nat")
    ),
    "link groups in nf_tables (meta iifgroup, kernel 5.7 in postrouting)": _probe(
        "iifgroup 5121 counter", hook=_base("postrouting", "srcnat")
    ),
}
"""What the tables need of the kernel, each as a table that needs nothing else."""

CLAMP_FEATURES: Mapping[str, str] = {
    "nf_tables exthdr (tcp option maxseg size set, for ENID_MSS_CLAMP)": _probe(
        "tcp option maxseg size set 1400", hook=_base("forward", "mangle")
    ),
    "nf_tables rt (rt mtu, for ENID_MSS_CLAMP)": _probe(
        "rt mtu 1400 counter", hook=_base("forward", "mangle")
    ),
}
"""What *clamp* needs besides; the kernel gives it behind routing only."""

PROBED = NftWish(
    vpc_cidrs=(IPv4Network("10.0.0.0/8"),), node_primary=IPv4Address("10.0.0.1"), eni_numbers=2
)
"""Tables to try before anybody knows the VPC, and the settings' part of them as it usually is."""


def features(wish: NftWish) -> Mapping[str, str]:
    """Return what the tables of *wish* need of the kernel."""
    return {**FEATURES, **(CLAMP_FEATURES if wish.mss_clamp else {})}


def render(wish: NftWish) -> str:
    """Return the tables as one transaction: made if missing, emptied, filled."""
    v4, v6 = "\n".join(_chains(wish)), "\n".join(_chains6(wish))
    mark = fingerprint(v4 + v6)
    first = f'insert rule ip {TABLE} others iifgroup {DYING_GROUP} drop comment "{mark}"'
    return f"{_table('ip', v4)}{first}\n{_table('ip6', v6)}"


def _table(family: str, body: str) -> str:
    name = f"{family} {TABLE}"
    return f"add table {name}\nflush table {name}\ntable {name} {{\n{body}\n}}\n"


def anew(text: str) -> str:
    """Return *text* as one that leaves no chain of before, still in one transaction."""
    return re.sub(r"^flush table (.*)$", r"delete table \1\nadd table \1", text, flags=re.MULTILINE)


def without_ipv6(text: str) -> str:
    """Return *text* as a kernel without IPv6 takes it."""
    return text.partition(f"add table ip6 {TABLE}\n")[0]


def fingerprint(text: str) -> str:
    """Return what tells two texts apart."""
    return FINGERPRINT + hashlib.sha256(text.encode()).hexdigest()[:16]


def is_in_force(text: str, listed: str) -> bool:
    """Return whether the *listed* tables were made from *text* and have as many rules still."""
    mark = re.search(rf'comment "{FINGERPRINT}\w+"', text)
    return mark is not None and mark[0] in listed and _rules(text) == _rules(listed)


def _rules(text: str) -> int:
    """Count the lines that are rules: deepest within braces, and one that stands alone."""
    return len(re.findall(r"^(?:  |\t\t|insert rule)(?!type )", text, re.MULTILINE))


def _chain(name: str, rules: list[str], hook: str = "") -> Iterator[str]:
    yield f" chain {name} {{"
    if hook:
        yield f"  {hook}"
    yield from (f"  {rule}" for rule in rules)
    yield " }"


def _chains(wish: NftWish) -> Iterator[str]:
    yield from _ways(wish)
    yield from _arrive(wish)
    yield from _leave(wish)
    if not wish.external_snat:
        yield from _masq(wish)
    if wish.mss_clamp:
        yield from _clamp()
    if wish.block_metadata:
        yield from _imds(f"ip daddr {METADATA_V4}")


def _numbers(wish: NftWish) -> range:
    return range(1, wish.eni_numbers + 1)


def _inside(wish: NftWish) -> list[str]:
    """Return the rules that let alone what goes to where a pod keeps its own address."""
    return [f"ip daddr {cidr} return" for cidr in (*wish.vpc_cidrs, *wish.excluded_cidrs)]


def _ways(wish: NftWish) -> Iterator[str]:
    for number in _numbers(wish):
        yield from _chain(f"came{number}", [_set("ct", wish, number)])
        yield from _chain(f"via{number}", [_set("meta", wish, number)])


def _set(which: str, wish: NftWish, number: int) -> str:
    """Return what puts the way by an ENI into a mark; others' bits stay."""
    others, mark = 0xFFFFFFFF ^ wish.marks.mask, wish.marks.of(number)
    return f"{which} mark set {which} mark and {others:#x} or {mark:#x}"


def _arrive(wish: NftWish) -> Iterator[str]:
    remember = [
        f"iifgroup {NO_ENIS} return",
        "fib daddr type != local return",
        *(f"iifgroup {ENI_GROUP + n} goto came{n}" for n in _numbers(wish)),
    ]
    return _chain(
        "arrive",
        # DNAT would make another address of it, and *leave* is behind that.
        [f"iifgroup {PODS} {LOOPBACK} counter drop", *(remember if wish.node_port_support else [])],
        _base("prerouting", str(BEFORE_DNAT), "nat"),
    )


def _leave(wish: NftWish) -> Iterator[str]:
    """Yield the chain that decides, and those that it jumps to.

    A connection that was to leave by the primary goes on doing so when EXTERNALSNAT comes: its
    translation lasts, too.
    """
    numbers, mask, primary = _numbers(wish), f"{wish.marks.mask:#x}", f"{wish.marks.primary:#x}"
    yield from _chain(
        "back", [f"ct mark and {mask} == {wish.marks.of(n):#x} goto via{n}" for n in numbers]
    )
    if not wish.external_snat:
        yield from _chain(
            "outside",
            [*_inside(wish), "fib daddr type local return", f"ct mark set ct mark or {primary}"],
        )
    back = "ct direction reply goto back"
    # Not by a jump: most packets of pods come here, and a jump costs each a half per cent.
    by_group = [
        f"iifgroup {POD_GROUP + n} {_set('meta', wish, n)} accept" for n in numbers if n > 1
    ]
    yield from _chain("others", [f"ct mark and {mask} != 0x0 {back}"])
    # A reply has its destination back by now: the node itself may have asked a host port.
    yield from _chain("loopback", ["ct direction reply return", "counter drop"])
    yield from _chain("marked", [back, f"ct mark and {primary} == {primary} goto via1", *by_group])
    yield from _chain(
        "leave",
        [
            f"iifgroup {NO_PODS} goto others",
            f"{LOOPBACK} jump loopback",
            *([] if wish.external_snat else [f"{FIRST} jump outside"]),
            f"ct mark and {mask} != 0x0 goto marked",
            *by_group,
        ],
        _base("prerouting", "dstnat + 10"),
    )


def _masq(wish: NftWish) -> Iterator[str]:
    primary = f"{wish.marks.primary:#x}"
    return _chain(
        "masq",
        [
            f"oifgroup != {ENI_GROUP + 1} return",
            f"meta mark and {primary} != {primary} return",
            f"iifgroup {NO_PODS} return",
            *_inside(wish),
            f"snat to {wish.node_primary} {wish.randomize}".rstrip(),
        ],
        _base("postrouting", "srcnat", "nat"),
    )


def _clamp() -> Iterator[str]:
    """Yield the chain that lowers a SYN's segment size, both ways; it never raises one."""
    return _chain(
        "clamp",
        [
            "tcp flags & (syn | rst) != syn return",
            f"iifgroup {PODS} tcp option maxseg size set rt mtu",
            f"oifgroup {PODS} tcp option maxseg size set rt mtu",
        ],
        _base("forward", "mangle"),
    )


def _imds(match: str) -> Iterator[str]:
    """Yield the chain that closes instance metadata to pods.

    Where packets are forwarded, so after every DNAT: an agent on the node to which somebody
    translates the address is reached, and no service leads round it.
    """
    return _chain("imds", [f"iifgroup {PODS} {match} counter drop"], _base("forward", "filter"))


def _chains6(wish: NftWish) -> Iterator[str]:
    yield from _chain(
        "spoof",
        [
            f"iifgroup {DYING_GROUP} drop",
            f"iifgroup {NO_PODS} return",
            "ip6 saddr fe80::/10 return",  # neighbour discovery; it is forwarded nowhere
            "ip6 saddr :: return",  # duplicate address detection
            "fib saddr . iif oif missing counter drop",
        ],
        _base("prerouting", "raw"),
    )
    if wish.block_metadata:
        yield from _imds(f"ip6 daddr {METADATA_V6}")
