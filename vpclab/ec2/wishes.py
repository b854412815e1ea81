"""What a call asks of a subnet, and how it is taken: all of it or nothing. Shell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from vpclab.ec2.addresses import Address, AddressBook, Network
from vpclab.ec2.errors import error
from vpclab.ec2.model import translated

MOST = 256
"""How much one call may ask for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call asks for of one family: named things, or a count of them."""

    addresses: tuple[str, ...] = ()
    count: int = 0
    prefixes: tuple[str, ...] = ()
    prefix_count: int = 0

    def __post_init__(self) -> None:
        """Refuse what EC2 refuses: a count beside names, addresses beside prefixes.

        How many may be counted at all is ours: no type's ENI has more slots than that.
        """
        for count in (self.count, self.prefix_count):
            if not 0 <= count <= MOST:
                raise error("InvalidParameterValue", f"A count of {count} is not 0 to {MOST}")
        for names, count, what in (
            (self.addresses, self.count, "addresses"),
            (self.prefixes, self.prefix_count, "prefixes"),
        ):
            if names and count:
                raise error(
                    "InvalidParameterCombination",
                    f"A count and {what} were given; the call takes one of them.",
                )
        if (self.addresses or self.count) and (self.prefixes or self.prefix_count):
            raise error(
                "InvalidParameterCombination",
                "Addresses and prefixes were given; the call takes one of them.",
            )

    @property
    def slots(self) -> int:
        """How many of the ENI's slots it takes: a prefix takes one, like an address."""
        return len(self.addresses) + self.count + len(self.prefixes) + self.prefix_count


@dataclass(frozen=True, slots=True)
class Given:
    """What a call got: addresses and prefixes."""

    addresses: tuple[str, ...]
    prefixes: tuple[str, ...]


def take(book: AddressBook, wish: Wish) -> Given:
    """Take what *wish* names from *book*, or nothing and raise EC2ClientError."""
    for count in (wish.count, wish.prefix_count):
        if count < 0:
            raise error("InvalidParameterValue", f"A count is 0 or more; {count} is not")
    taken: list[Address | Network] = []
    try:
        with translated():
            for name in wish.addresses:
                taken.append(book.take_exactly(_address(name)))  # noqa: PERF401 - undone if one fails
            for name in wish.prefixes:
                taken.append(book.take_prefix_exactly(_prefix(name)))  # noqa: PERF401 - as above
            taken += book.take(wish.count)
            taken += book.take_prefixes(wish.prefix_count)
    except EC2ClientError:
        book.give_back(taken)
        raise
    prefixes = tuple(str(t) for t in taken if isinstance(t, IPv4Network | IPv6Network))
    return Given(tuple(str(t) for t in taken if str(t) not in prefixes), prefixes)


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise error("InvalidParameterValue", f"'{text}' is not an address") from None


def _prefix(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise error("InvalidParameterValue", f"'{text}' is not a prefix") from None


def things(addresses: Iterable[str], prefixes: Iterable[str]) -> list[Address | Network]:
    """Return what a subnet's book takes back."""
    return [*map(ip_address, addresses), *map(ip_network, prefixes)]


def wishes(parameters: Mapping[str, Any]) -> tuple[Wish, Wish]:
    """Return what a call asks for beside the primary address, IPv4 and IPv6.

    The parameters have the same names in CreateNetworkInterface and RunInstances; in the lists of
    the latter an address that is marked as primary is moto's.
    """
    addresses6 = _names(parameters.get("Ipv6Addresses"), "Ipv6Address")
    prefixes = _names(parameters.get("Ipv4Prefixes"), "Ipv4Prefix")
    prefixes6 = _names(parameters.get("Ipv6Prefixes"), "Ipv6Prefix")
    named = [a for a in parameters.get("PrivateIpAddresses") or () if not a.get("Primary")]
    return Wish(
        addresses=tuple(_names(named, "PrivateIpAddress")),
        count=int(parameters.get("SecondaryPrivateIpAddressCount") or 0),
        prefixes=tuple(prefixes),
        prefix_count=int(parameters.get("Ipv4PrefixCount") or 0),
    ), Wish(
        addresses=tuple(addresses6),
        count=int(parameters.get("Ipv6AddressCount") or 0),
        prefixes=tuple(prefixes6),
        prefix_count=int(parameters.get("Ipv6PrefixCount") or 0),
    )


def primary_first(primary: str | None, addresses: Iterable[Any]) -> list[str]:
    """Return the addresses of a request, the one that is marked as primary at the front."""
    listed = [a if isinstance(a, dict) else {"PrivateIpAddress": a} for a in addresses]
    listed.sort(key=lambda address: not address.get("Primary"))
    return [*([primary] if primary else []), *_names(listed, "PrivateIpAddress")]


def _names(items: Iterable[Any] | None, key: str) -> list[str]:
    """Return what the items of a list name: they are texts, or structures with a *key*."""
    found = [item.get(key) if isinstance(item, dict) else item for item in items or ()]
    if not all(found):
        raise error("MissingParameter", f"The request must contain the parameter {key}")
    return [str(name) for name in found]
