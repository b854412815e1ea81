"""The address book of a subnet: single addresses, prefixes and reservations of one family. Pure.

A prefix is an aligned block of its own (/28 for IPv4, /80 for IPv6), free only as a whole; so a
subnet can have thousands of free addresses and no block. Everything is given next-fit: EC2 does
not hand a freed address out at once, and reuse hides faults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Kind = Literal["prefix", "explicit"]

RESERVED_FIRST, RESERVED_LAST = 4, 1
"""Network, router, DNS and one for the future at the front, the last at the end (VPC guide)."""

PREFIX_LENGTH = {4: 28, 6: 80}
"""What a delegated prefix is, by family (EC2 user guide, "Prefix delegation")."""


class AddressError(Exception):
    """What was asked for is not free; `code` is EC2's."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Reservation:
    """A part of a subnet that automatic assignment leaves alone, but for prefixes in `prefix`."""

    cidr: Network
    kind: Kind


class AddressBook:
    """Which addresses of a subnet are on an ENI."""

    def __init__(self, network: Network, subnet_id: str) -> None:
        self.network, self.subnet_id = network, subnet_id
        self.reservations: list[Reservation] = []
        self._block = 1 << (network.max_prefixlen - PREFIX_LENGTH[network.version])
        self._first = int(network.network_address)
        self._size = network.num_addresses
        self._singles: set[int] = set()
        self._blocks: set[int] = set()
        self._used_in: dict[int, int] = {}
        self._next, self._next_block = RESERVED_FIRST, 0

    # What is there ----------------------------------------------------------------------
    @property
    def free(self) -> int:
        """How many addresses are left: AvailableIpAddressCount.

        A reservation for prefixes takes its addresses out at once, one for explicit addresses does
        not (documented: "Subnet CIDR reservations").
        """
        out = [self._span(r.cidr) for r in self.reservations if r.kind == "prefix"]
        usable = _outside(out, RESERVED_FIRST, self._size - RESERVED_LAST)
        singles = sum(_outside(out, offset, offset + 1) for offset in self._singles)
        starts = (block * self._block for block in self._blocks)
        return usable - singles - sum(_outside(out, s, s + self._block) for s in starts)

    @property
    def taken(self) -> frozenset[Network]:
        """Every address and prefix that is on an ENI, as networks."""
        length = self.network.max_prefixlen
        singles = (ip_network((self._first + offset, length)) for offset in self._singles)
        return frozenset([*singles, *(self._prefix(block) for block in self._blocks)])

    # Single addresses -------------------------------------------------------------------
    def take(self, count: int) -> list[Address]:
        """Take *count* addresses outside reservations. Raises AddressError, and takes none."""
        found: list[int] = []
        for offset in self._free_offsets():
            if len(found) == count:
                break
            found.append(offset)
        if len(found) < count:
            raise AddressError(
                "InsufficientFreeAddressesInSubnet",
                "The specified subnet does not have enough free addresses to satisfy the request."
                f" ({count} wanted, {len(found)} free in {self.subnet_id})",
            )
        for offset in found:
            self._note(offset)
            self._next = offset + 1
        return [ip_address(self._first + offset) for offset in found]

    def take_exactly(self, address: Address) -> Address:
        """Take *address*, from an explicit reservation, too. Raises AddressError."""
        offset = int(address) - self._first
        if (
            address.version != self.network.version
            or not RESERVED_FIRST <= offset < self._size - RESERVED_LAST
        ):
            raise AddressError(
                "InvalidParameterValue",
                f"Address {address} does not fall within the subnet's address range",
            )
        if offset in self._singles or offset // self._block in self._blocks:
            raise AddressError("InvalidIPAddress.InUse", f"The address {address} is in use")
        self._note(offset)
        return address

    def _note(self, offset: int) -> None:
        self._singles.add(offset)
        block = offset // self._block
        self._used_in[block] = self._used_in.get(block, 0) + 1

    def _free_offsets(self) -> Iterator[int]:
        """Yield free offsets outside reservations, from where the last call ended, once around."""
        kept = sorted(self._span(r.cidr) for r in self.reservations)
        end = self._size - RESERVED_LAST
        for start, stop in ((self._next, end), (RESERVED_FIRST, min(self._next, end))):
            offset = start
            while offset < stop:
                over = next((last for first, last in kept if first <= offset < last), None)
                if over is None and offset // self._block in self._blocks:
                    over = (offset // self._block + 1) * self._block
                if over is not None:
                    offset = over
                    continue
                if offset not in self._singles:
                    yield offset
                offset += 1

    # Prefixes ---------------------------------------------------------------------------
    def take_prefixes(self, count: int) -> list[Network]:
        """Take *count* prefixes: from reservations for them first. Raises AddressError.

        Where there are enough addresses but no block EC2 speaks of cidr blocks, else of addresses
        (EC2's support, quoted in cilium/cilium#31016; aws/amazon-vpc-cni-k8s#3105).
        That what a reservation cannot give comes from the rest of the subnet is remembered, not
        documented.
        """
        spans = [self._span(r.cidr) for r in self.reservations if r.kind == "prefix"]
        blocks = [b for start, end in sorted(spans) for b in self._free_blocks(start, end, count)]
        kept = [self._span(r.cidr) for r in self.reservations]
        turn = self._next_block * self._block
        for start, end in ((turn, self._size), (0, turn)):
            if len(blocks) < count:
                wanted = count - len(blocks)
                blocks += self._free_blocks(start, end, wanted, kept)
        if len(blocks) < count and self.free < count * self._block:
            raise AddressError(
                "InvalidParameterValue",
                f"There aren't sufficient free Ipv{self.network.version} addresses or prefixes"
                f" ({count} prefixes wanted, {self.free} addresses free in {self.subnet_id})",
            )
        if len(blocks) < count:
            raise AddressError(
                "InsufficientCidrBlocks",
                "The specified subnet does not have enough free cidr blocks to satisfy the"
                f" request. ({count} wanted, {len(blocks)} free in {self.subnet_id})",
            )
        blocks = blocks[:count]
        self._blocks |= set(blocks)
        self._next_block = (blocks[-1] + 1) % (self._size // self._block) if blocks else 0
        return [self._prefix(block) for block in blocks]

    def _free_blocks(
        self, start: int, end: int, most: int, kept: Iterable[tuple[int, int]] = ()
    ) -> list[int]:
        """Return up to *most* free blocks in [start, end), none of which touches *kept*."""
        found: list[int] = []
        for block in range(-(-start // self._block), end // self._block):
            if len(found) == most:
                break
            first, last = block * self._block, (block + 1) * self._block
            if self._is_free(block) and not any(s < last and first < e for s, e in kept):
                found.append(block)
        return found

    def _is_free(self, block: int) -> bool:
        first, last = block * self._block, (block + 1) * self._block
        usable = first >= RESERVED_FIRST and last <= self._size - RESERVED_LAST
        return usable and block not in self._blocks and not self._used_in.get(block)

    def take_prefix_exactly(self, prefix: Network) -> Network:
        """Take *prefix*. Raises AddressError."""
        length = PREFIX_LENGTH[self.network.version]
        inside = prefix.version == self.network.version and _holds(self.network, prefix)
        if not inside or prefix.prefixlen != length:
            raise AddressError(
                "InvalidParameterValue", f"{prefix} is not a /{length} of the subnet {self.network}"
            )
        block = (int(prefix.network_address) - self._first) // self._block
        if not self._is_free(block):
            raise AddressError("InvalidIPAddress.InUse", f"The prefix {prefix} is not free")
        self._blocks.add(block)
        return prefix

    def give_back(self, things: Iterable[Address | Network]) -> None:
        """Take addresses and prefixes back."""
        for thing in things:
            if isinstance(thing, IPv4Network | IPv6Network):
                self._blocks.remove((int(thing.network_address) - self._first) // self._block)
            else:
                offset = int(thing) - self._first
                self._singles.remove(offset)
                self._used_in[offset // self._block] -= 1

    def _prefix(self, block: int) -> Network:
        number = self._first + block * self._block
        return ip_network((number, PREFIX_LENGTH[self.network.version]))

    # Reservations -----------------------------------------------------------------------
    def _span(self, cidr: Network) -> tuple[int, int]:
        start = int(cidr.network_address) - self._first
        return start, start + cidr.num_addresses


def _outside(spans: Iterable[tuple[int, int]], start: int, end: int) -> int:
    """Return how many offsets of [start, end) are in none of *spans*, which lie apart."""
    return end - start - sum(max(0, min(end, e) - max(start, s)) for s, e in spans)


def _holds(outer: Network, inner: Network) -> bool:
    start, end = int(outer.network_address), int(outer.broadcast_address)
    return start <= int(inner.network_address) and int(inner.broadcast_address) <= end
