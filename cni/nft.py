"""The nft table, as text. Pure.

Four base chains, each deciding once per connection or not at all: *spoof* drops what a pod
may not send; *arrive* remembers by which ENI a connection came in; *leave*, after every
DNAT, sends replies back the same way, marks a pod's connections to outside the VPC for the
primary, and gives everything else the ENI of its veth's group; *masq* gives the marked ones
the node's address. Plain compares only: a set looked up while a transaction swaps it can
miss, and a connection mark makes the miss last for the connection's life.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from cni.dataplane import DYING_GROUP, ENI_GROUP, MARK_MASK, MAX_NUMBER, POD_GROUP, PRIMARY_MARK

TABLE = "enid"
PODS = f"{POD_GROUP + 1}-{POD_GROUP + MAX_NUMBER}"
ENIS = f"{ENI_GROUP + 1}-{ENI_GROUP + MAX_NUMBER}"
OTHERS = f"{0xFFFFFFFF ^ MARK_MASK:#x}"
PRIMARY = f"{PRIMARY_MARK:#x}"
FINGERPRINT = "enid-"
"""A rule's comment begins with this, then the hash of the text: nft lists a table in other
words than it was written in, so the text itself cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NftWish:
    """What the table depends on.

    *eni_numbers* is the most ENIs the instance takes, so that attaching one touches no nft.
    """

    vpc_cidrs: tuple[IPv4Network, ...]
    node_primary: IPv4Address
    eni_numbers: int
    excluded_cidrs: tuple[IPv4Network, ...] = ()
    node_port_support: bool = True
    external_snat: bool = False
    randomize: Literal["fully-random", "random", ""] = "fully-random"


def render(wish: NftWish) -> str:
    """Return the table as one transaction: made if missing, emptied, filled."""
    body = "\n".join(_chains(wish))
    mark = fingerprint(body)
    first = f'add rule ip {TABLE} spoof iifgroup {DYING_GROUP} drop comment "{mark}"'
    return (
        f"add table ip {TABLE}\nflush table ip {TABLE}\ntable ip {TABLE} {{\n{body}\n}}\n{first}\n"
    )


def fingerprint(text: str) -> str:
    """Return what tells two texts apart."""
    return FINGERPRINT + hashlib.sha256(text.encode()).hexdigest()[:16]


def is_in_force(text: str, listed: str) -> bool:
    """Return whether the *listed* table was made from *text* and has as many rules still."""
    mark = re.search(rf'comment "{FINGERPRINT}\w+"', text)
    return mark is not None and mark[0] in listed and _rules(text) == _rules(listed)


def _rules(text: str) -> int:
    """Count the lines that are rules: deepest within braces, and one that stands alone."""
    return len(re.findall(r"^(?:  |\t\t|add rule)(?!type )", text, re.MULTILINE))


def _chain(name: str, rules: list[str], hook: str = "") -> Iterator[str]:
    yield f" chain {name} {{"
    if hook:
        yield f"  {hook}; policy accept;"
    yield from (f"  {rule}" for rule in rules)
    yield " }"


def _mark(number: int) -> str:
    return PRIMARY if number == 1 else f"{number:#x}"


def _chains(wish: NftWish) -> Iterator[str]:
    numbers = range(1, wish.eni_numbers + 1)
    yield from _chain(
        "spoof",
        [f"iifgroup {PODS} ip daddr 127.0.0.0/8 counter drop"],
        "type filter hook prerouting priority raw",
    )
    for number in numbers:
        mark = _mark(number)
        yield from _chain(f"came{number}", [f"ct mark set ct mark and {OTHERS} or {mark}"])
        yield from _chain(f"via{number}", [f"meta mark set meta mark and {OTHERS} or {mark}"])
    if wish.node_port_support:
        yield from _chain(
            "arrive",
            [
                f"iifgroup != {ENIS} return",
                "ct state != new return",
                "fib daddr type != local return",
                *(f"iifgroup {ENI_GROUP + n} goto came{n}" for n in numbers),
            ],
            "type filter hook prerouting priority mangle",
        )
    yield from _chain(
        "back", [f"ct mark and {MARK_MASK:#x} == {_mark(n)} goto via{n}" for n in numbers]
    )
    inside = [f"ip daddr {cidr} return" for cidr in (*wish.vpc_cidrs, *wish.excluded_cidrs)]
    if not wish.external_snat:
        yield from _chain(
            "outside",
            [*inside, "fib daddr type local return", f"ct mark set ct mark or {PRIMARY}"],
        )
    snat = [
        "ct state new jump outside",
        f"ct direction original ct mark and {PRIMARY} == {PRIMARY} goto via1",
    ]
    yield from _chain(
        "leave",
        [
            f"ct direction reply ct mark and {MARK_MASK:#x} != 0 goto back",
            f"iifgroup != {PODS} return",
            *([] if wish.external_snat else snat),
            *(f"iifgroup {POD_GROUP + n} goto via{n}" for n in numbers if n > 1),
        ],
        "type filter hook prerouting priority dstnat + 10",
    )
    if not wish.external_snat:
        yield from _chain(
            "masq",
            [
                f"oifgroup != {ENI_GROUP + 1} return",
                f"meta mark and {PRIMARY} != {PRIMARY} return",
                f"iifgroup != {PODS} return",
                *inside,
                f"snat to {wish.node_primary} {wish.randomize}".rstrip(),
            ],
            "type nat hook postrouting priority srcnat",
        )
