"""Which addresses of a subnet are taken: sixteen bits for each /28, and maps of those. Pure.

A prefix is a /28 that is free as a whole, so a subnet can have thousands of free addresses and
no prefix. Whatever is asked is answered from two maps, one bit a /28:

    open    has an address that EC2 may choose when it is asked for any
    whole   has no address that is taken

Every change goes by `_mark`, which keeps both and the count; nothing else writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Final

from eni.model import PREFIX_LENGTH, PREFIX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from eni.model import Block

FULL: Final = (1 << PREFIX_SIZE) - 1
"""All addresses of a /28."""

FIRST, LAST = 0b1111, 1 << (PREFIX_SIZE - 1)
"""EC2's own: network, router, DNS and one for the future at the front, the last at the end."""

OWN: Final = 5
"""How many those are."""

TRIES: Final = 16
"""How often chance is asked for a free address before the next free one is taken.

Of a subnet that is nine tenths full four addresses in five are found by chance alone.
"""


class Ec2Error(Exception):
    """EC2's no: its *code* and its words, which `eni.errors.meaning` turns into one of ours."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetCensus:
    """What a subnet still has.

    *free* is EC2's count, *blocks* are the free /28s that no reservation keeps,
    *reserved_blocks* those that a reservation keeps for prefixes, *largest_run* is the longest
    row of free addresses.
    """

    size: int
    free: int
    blocks: int
    reserved_blocks: int
    largest_run: int

    @property
    def fragmentation(self) -> float:
        """The part of the free addresses that no prefix can have, 0 to 1."""
        return 1 - self.blocks * PREFIX_SIZE / self.free if self.free else 0.0


class Book:
    """The addresses of one subnet, by their offset in it.

    EC2's choice is the lowest free address, or what *draw* says: a number below the one that it
    is given, such as `random.Random(7).randrange` answers.
    """

    def __init__(
        self, cidr: IPv4Network, subnet_id: str, draw: Callable[[int], int] | None = None
    ) -> None:
        self.cidr, self.subnet_id = cidr, subnet_id
        self.reservations: tuple[IPv4Network, ...] = ()
        self.first = int(cidr.network_address)
        self._size = cidr.num_addresses
        self.free = self._size - OWN
        blocks = self._size // PREFIX_SIZE
        self._draw = draw
        self._used = [0] * blocks
        self._kept = [0] * blocks
        self._kept[0] |= FIRST
        self._kept[-1] |= LAST
        self._foreign = [0] * blocks
        self._open = self._whole = (1 << blocks) - 1
        self._edges = 1 | 1 << (blocks - 1)
        self._reserved, self._common = 0, self._whole & ~self._edges
        self._addresses: dict[int, IPv4Address] = {}
        self._singles: dict[int, Block] = {}
        self._prefixes: dict[int, Block] = {}

    # Offsets and what they are called ---------------------------------------------------
    # Made once: ipaddress takes microseconds for each, and the same ones come back.
    def address(self, offset: int) -> IPv4Address:
        """Return the address at *offset*."""
        if (found := self._addresses.get(offset)) is None:
            found = self._addresses[offset] = IPv4Address(self.first + offset)
        return found

    def single(self, offset: int) -> Block:
        """Return the address at *offset* as a block."""
        if (found := self._singles.get(offset)) is None:
            found = self._singles[offset] = IPv4Network(self.first + offset)
        return found

    def prefix(self, offset: int) -> Block:
        """Return the /28 that begins at *offset*."""
        if (found := self._prefixes.get(offset)) is None:
            found = self._prefixes[offset] = IPv4Network((self.first + offset, PREFIX_LENGTH))
        return found

    # What there is ----------------------------------------------------------------------
    def census(self) -> SubnetCensus:
        """Return what is left."""
        free = b"".join(
            (FULL & ~(used | kept)).to_bytes(2, "little")
            for used, kept in zip(self._used, self._kept, strict=True)
        )
        runs = format(int.from_bytes(free, "little"), "b").split("0")
        return SubnetCensus(
            size=self._size,
            free=self.free,
            blocks=(self._whole & self._common).bit_count(),
            reserved_blocks=(self._whole & self._reserved).bit_count(),
            largest_run=max(map(len, runs)),
        )

    # Take and give back -----------------------------------------------------------------
    def take(self, count: int) -> list[int]:
        """Take *count* addresses outside reservations. Raises Ec2Error, and takes none."""
        if count > self.free:
            raise Ec2Error(
                "InsufficientFreeAddressesInSubnet",
                f"{count} addresses are wanted, {self.free} are free in {self.subnet_id}",
            )
        if self._draw is not None:
            return [self._drawn(self._draw) for _ in range(count)]
        taken: list[int] = []
        while len(taken) < count:
            block = lowest(self._open)
            used = self._used[block]
            free = FULL & ~(used | self._kept[block])
            while free and len(taken) < count:
                bit = free & -free
                free ^= bit
                used |= bit
                taken.append(block * PREFIX_SIZE + bit.bit_length() - 1)
            self._mark(block, used)
        return taken

    def _drawn(self, draw: Callable[[int], int]) -> int:
        """Take an address by chance; there is one."""
        drawn = (draw(self._size) for _ in range(TRIES))
        offset = next(filter(self._is_free, drawn), None)
        if offset is None:
            block = around(self._open, draw(len(self._used)))
            free = FULL & ~(self._used[block] | self._kept[block])
            offset = block * PREFIX_SIZE + lowest(free)
        block, bit = divmod(offset, PREFIX_SIZE)
        self._mark(block, self._used[block] | 1 << bit)
        return offset

    def _is_free(self, offset: int) -> bool:
        block, bit = divmod(offset, PREFIX_SIZE)
        return not (self._used[block] | self._kept[block]) >> bit & 1

    def take_prefixes(self, count: int) -> list[int]:
        """Take *count* /28s, from reservations first. Raises Ec2Error, and takes none.

        EC2 has two ways to say no: too few addresses, or enough of them in too small pieces.
        """
        reserved, common = self._whole & self._reserved, self._whole & self._common
        there = reserved.bit_count() + common.bit_count()
        if there < count and self.free < count * PREFIX_SIZE:
            raise Ec2Error(
                "InvalidParameterValue",
                f"There aren't sufficient free Ipv4 addresses or prefixes: {count} prefixes are"
                f" wanted, {self.free} addresses are free in {self.subnet_id}",
            )
        if there < count:
            raise Ec2Error(
                "InsufficientCidrBlocks",
                f"{count} prefixes are wanted, {there} are free in {self.subnet_id}, which has"
                f" {self.free} free addresses",
            )
        return [self._take_prefix() for _ in range(count)]

    def _take_prefix(self) -> int:
        """Take a /28; there is one."""
        choice = self._whole & self._reserved or self._whole & self._common
        start = self._draw(len(self._used)) if self._draw is not None else 0
        block = around(choice, start)
        self._mark(block, FULL)
        return block * PREFIX_SIZE

    def give_back(self, offsets: Iterable[int]) -> None:
        """Take addresses back; they are taken."""
        for offset in offsets:
            block, bit = divmod(offset, PREFIX_SIZE)
            self._mark(block, self._used[block] & ~(1 << bit))

    def give_prefixes_back(self, offsets: Iterable[int]) -> None:
        """Take the /28s that begin at *offsets* back; they are taken as a whole."""
        for offset in offsets:
            self._mark(offset // PREFIX_SIZE, 0)

    # Reservations, and what others do ---------------------------------------------------
    def reserve(self, cidr: IPv4Network) -> None:
        """Keep *cidr* for prefixes. Raises ValueError where it cannot be."""
        if not cidr.subnet_of(self.cidr) or any(map(cidr.overlaps, self.reservations)):
            raise ValueError(f"{cidr} is not in {self.cidr}, apart from its other reservations")
        self.reservations = (*self.reservations, cidr)
        for block, mask in self._masks(cidr):
            self._kept[block] |= mask
            bit = 1 << block
            self._common &= ~bit
            if mask == FULL:
                self._reserved |= bit & ~self._edges
        self._count()

    def occupy(self, cidr: IPv4Network) -> None:
        """Let others have *cidr*, where nobody has it: addresses that no ENI of ours holds."""
        for block, mask in self._masks(cidr):
            new = mask & ~self._used[block]
            self._foreign[block] |= new
            self._mark(block, self._used[block] | new)

    def vacate(self, cidr: IPv4Network) -> None:
        """Let others give back what they have of *cidr*."""
        for block, mask in self._masks(cidr):
            old = mask & self._foreign[block]
            self._foreign[block] &= ~old
            self._mark(block, self._used[block] & ~old)

    def _masks(self, cidr: IPv4Network) -> Iterator[tuple[int, int]]:
        """Yield each /28 that *cidr* touches, and which of its addresses are *cidr*'s."""
        start = int(cidr.network_address) - self.first
        end = start + cidr.num_addresses
        if start < 0 or end > self._size:
            raise ValueError(f"{cidr} is not in {self.cidr}")
        if cidr.prefixlen > PREFIX_LENGTH:
            block, bit = divmod(start, PREFIX_SIZE)
            yield block, ((1 << cidr.num_addresses) - 1) << bit
        else:
            for block in range(start // PREFIX_SIZE, end // PREFIX_SIZE):
                yield block, FULL

    # The maps ---------------------------------------------------------------------------
    def _mark(self, block: int, used: int) -> None:
        """Let *used* be the addresses of a /28 that are taken."""
        former, kept = self._used[block], self._kept[block]
        self._used[block] = used
        before, after = former | kept, used | kept
        self.free += before.bit_count() - after.bit_count()
        if (before == FULL) is not (after == FULL):
            self._open ^= 1 << block
        if (not former) is not (not used):
            self._whole ^= 1 << block

    def _count(self) -> None:
        """Make the maps and the count anew; reservations change them."""
        taken = [used | kept for used, kept in zip(self._used, self._kept, strict=True)]
        self.free = sum(PREFIX_SIZE - mask.bit_count() for mask in taken)
        self._open = _map(mask != FULL for mask in taken)

    # Its own sums -----------------------------------------------------------------------
    def verify(self, held: Collection[tuple[int, int]]) -> Iterator[str]:
        """Yield what is wrong, if *held* is what ENIs have: offsets and sizes."""
        owned = list(self._foreign)
        for offset, size in held:
            block, bit = divmod(offset, PREFIX_SIZE)
            mask = ((1 << size) - 1) << bit
            if owned[block] & mask:
                yield f"{self.address(offset)} ({size}) of {self.subnet_id} has two owners"
            owned[block] |= mask
        if owned != self._used:
            yield f"{self.subnet_id} has other addresses taken than ENIs have"
        sums = self.free, self._open, self._whole
        self._count()
        self._whole = _map(not used for used in self._used)
        if sums != (self.free, self._open, self._whole):
            yield f"{self.subnet_id} counted {sums[0]} free addresses, {self.free} are"


def lowest(bits: int) -> int:
    """Return the number of the lowest bit that is set; one is."""
    return (bits & -bits).bit_length() - 1


def around(bits: int, start: int) -> int:
    """Return the number of the first bit that is set from *start* on, once around; one is."""
    ahead = bits >> start
    return start + lowest(ahead) if ahead else lowest(bits)


def _map(flags: Iterable[bool]) -> int:
    """Return the map of *flags*, the first as the lowest bit."""
    return sum(1 << number for number, flag in enumerate(flags) if flag)
