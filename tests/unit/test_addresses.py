"""A subnet's address book: nothing twice, nothing reserved, nothing lost."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpclab.ec2.addresses import Address, AddressBook, AddressError, Network, Reservation

SUBNET = IPv4Network("10.0.0.0/26")


def whole(thing: object) -> Network:
    return ip_network(str(thing))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 6)),
        st.tuples(st.just("prefixes"), st.integers(0, 2)),
        st.tuples(st.just("address"), st.integers(0, 63)),
        st.tuples(st.just("prefix"), st.integers(0, 3)),
        st.tuples(st.just("back"), st.integers(0, 30)),
        st.tuples(st.just("reserve"), st.integers(0, 63)),
    ),
    max_size=25,
)


def step(book: AddressBook, held: list[Address | Network], verb: str, number: int) -> None:
    match verb:
        case "take":
            held += book.take(number)
        case "prefixes":
            held += book.take_prefixes(number)
        case "address":
            held.append(book.take_exactly(SUBNET[number]))
        case "prefix":
            held.append(book.take_prefix_exactly(IPv4Network((SUBNET[number * 16], 28))))
        case "reserve":
            cidr = IPv4Network((SUBNET[number], 27 + number % 6), strict=False)
            book.reservations = [Reservation(cidr, "explicit" if number % 5 else "prefix")]
        case _ if held:
            book.give_back([held.pop(number % len(held))])


@settings(max_examples=200)
@given(steps)
def test_what_is_given_is_disjoint_and_the_count_is_true(steps: list[tuple[str, int]]) -> None:
    book, held = AddressBook(SUBNET, "subnet-1"), list[Address | Network]()
    for verb, number in steps:
        with suppress(AddressError):
            step(book, held, verb, number)
        networks = [whole(thing) for thing in held]
        assert book.taken == frozenset(networks)
        covered = [address for network in networks for address in network]
        assert len(set(covered)) == len(covered)
        assert not set(covered) & {SUBNET[0], SUBNET[1], SUBNET[2], SUBNET[3], SUBNET[63]}
        kept = {a for r in book.reservations if r.kind == "prefix" for a in r.cidr}
        usable = {SUBNET[n] for n in range(4, 63)}
        assert book.free == len(usable - kept - set(covered))


@pytest.mark.parametrize("count", [3, 60])
def test_a_full_book_gives_nothing_and_keeps_what_it_had(count: int) -> None:
    book = AddressBook(SUBNET, "subnet-1")
    book.take_prefixes(2)
    with pytest.raises(AddressError, match="subnet-1"):
        book.take(60) if count == 60 else book.take_prefixes(count)
    assert book.free == 59 - 32
    assert len(book.take(27)) == 27


def test_an_address_that_was_asked_for_is_stepped_over() -> None:
    book = AddressBook(SUBNET, "subnet-1")
    assert book.take(1) == [SUBNET[4]]
    book.take_exactly(SUBNET[6])
    assert book.take(2) == [SUBNET[5], SUBNET[7]]


@pytest.mark.parametrize("wrong", ["2001:db8::/80", "10.0.0.0/27", "10.0.1.0/28"])
def test_only_blocks_of_the_subnet_are_prefixes(wrong: str) -> None:
    with pytest.raises(AddressError) as caught:
        AddressBook(SUBNET, "subnet-1").take_prefix_exactly(ip_network(wrong))
    assert caught.value.code == "InvalidParameterValue"


def test_prefixes_are_given_next_fit_and_come_round() -> None:
    book = AddressBook(IPv4Network("10.0.0.0/25"), "subnet-1")
    given = book.take_prefixes(6)
    assert [str(p) for p in given] == [f"10.0.0.{n}/28" for n in range(16, 112, 16)]
    book.give_back(given[:1])
    assert book.take_prefixes(1) == given[:1]


def test_ipv6_blocks_and_addresses_lie_apart() -> None:
    book = AddressBook(IPv6Network("2001:db8::/64"), "subnet-1")
    assert [str(a) for a in book.take(2)] == ["2001:db8::4", "2001:db8::5"]
    assert [str(p) for p in book.take_prefixes(2)] == ["2001:db8:0:0:1::/80", "2001:db8:0:0:2::/80"]
