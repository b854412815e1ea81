"""A rule of the kernel in the words of `ip rule`, whatever it asks and does. Shell.

For what somebody else made and an operator should find. Numbers are the kernel's
(include/uapi/linux/fib_rules.h); a comment names each.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from cni.dataplane import MAIN_TABLE
from cni.rtnl import attributes_of

_RULE = struct.Struct("=BBBBBBBBI")  # struct fib_rule_hdr: family, lengths, tos, table, .., action
_INVERT = 2  # FIB_RULE_INVERT
_IPV6 = 10  # AF_INET6
_UNSET = b"\xff\xff\xff\xff"

_ACTIONS = {2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
"""FR_ACT_*, but FR_ACT_TO_TBL."""


def _number(value: bytes) -> str:
    return str(int.from_bytes(value, sys.byteorder))


def _range(value: bytes) -> str:
    half = len(value) // 2
    first, last = _number(value[:half]), _number(value[half:])
    return first if first == last else f"{first}-{last}"


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


_WHOLE = {28: b"\xff\xff", 29: b"\xff\xff"}
"""FRA_SPORT_MASK, _DPORT_MASK, which kernels from 6.15 on tell of each single port."""

Names = Mapping[int, tuple[str, Callable[[bytes], str]]]

_ASKS: Names = {
    3: ("iif", _text),  # FRA_IIFNAME
    17: ("oif", _text),  # FRA_OIFNAME
    20: ("uidrange", _range),  # FRA_UID_RANGE
    22: ("ipproto", _number),  # FRA_IP_PROTO
    23: ("sport", _range),  # FRA_SPORT_RANGE
    24: ("dport", _range),  # FRA_DPORT_RANGE
}
_SUPPRESSES: Names = {
    13: ("suppress_ifgroup", _number),  # FRA_SUPPRESS_IFGROUP
    14: ("suppress_prefixlength", _number),  # FRA_SUPPRESS_PREFIXLEN
}
_SAID = {1, 2, 4, 6, 10, 15, 16, 18, 21, *_ASKS, *_SUPPRESSES}
"""FRA_DST, _SRC, _GOTO, _PRIORITY, _FWMARK, _TABLE, _FWMASK, _PAD, _PROTOCOL, and those."""


def words(body: bytes) -> str:
    """Return the rule of an RTM_NEWRULE body; of IPv6 it says so."""
    family, to_length, from_length, tos, table, _, _, action, flags = _RULE.unpack_from(body)
    found = attributes_of(body[_RULE.size :])
    said = [
        *(["not"] if flags & _INVERT else []),
        f"from {_prefix(found.get(2), from_length)}",  # FRA_SRC
        *([f"to {_prefix(found[1], to_length)}"] if 1 in found else []),  # FRA_DST
        *([f"tos {tos:#x}"] if tos else []),
        *_mark(found),
        *_asked(found, _ASKS),
        *(f"attribute {at}" for at in sorted(found.keys() - _SAID) if found[at] != _WHOLE.get(at)),
        _deed(action, table, found),
        *_asked(found, _SUPPRESSES),
    ]
    which = "of IPv6 " if family == _IPV6 else ""
    return f"{which}{_number(found.get(6, bytes(4)))}: {' '.join(said)}"  # FRA_PRIORITY


def _prefix(packed: bytes | None, length: int) -> str:
    if packed is None:
        return "all"
    address = ip_address(packed)
    return str(address) if length == address.max_prefixlen else f"{address}/{length}"


def _mark(found: Mapping[int, bytes]) -> list[str]:
    mark, mask = found.get(10), found.get(16, _UNSET)  # FRA_FWMARK, FRA_FWMASK
    return [] if mark is None else [f"fwmark {int(_number(mark)):#x}/{int(_number(mask)):#x}"]


def _asked(found: Mapping[int, bytes], names: Names) -> list[str]:
    return [
        f"{name} {read(found[at])}"
        for at, (name, read) in names.items()
        if found.get(at, _UNSET) != _UNSET
    ]


def _deed(action: int, table: int, found: Mapping[int, bytes]) -> str:
    if action == 1:  # FR_ACT_TO_TBL
        number = int(_number(found.get(15, bytes([table]))))  # FRA_TABLE
        return f"lookup {'main' if number == MAIN_TABLE else number}"
    target = found.get(4)  # FRA_GOTO
    deed = _ACTIONS.get(action, f"action {action}")
    return deed if target is None else f"{deed} {_number(target)}"
