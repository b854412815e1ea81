"""The fabric alone, told of changes late and in the wrong order: the last word wins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, ip_network

import pytest

from vpclab.fabric import Fabric, Wanted, port_of
from vpclab.gates import Group, Network, Passport, Shape
from vpclab.netns import Worker

ENIS = ("eni-a", "eni-b")
BASE = {"eni-a": {"10.0.0.4"}, "eni-b": {"10.0.0.5"}}


class Told:
    """A fabric with an ENI on each of two nodes, which is told what each should be."""

    def __init__(self, fabric: Fabric, nodes: dict[str, Worker]) -> None:
        self.fabric, self._nodes = fabric, nodes
        cidrs = tuple(map(ip_network, ("10.0.0.0/16", "2001:db8::/56")))
        fabric.reshape(lambda: Shape(cidrs, (Group("sg-1"),)))
        for eni in ENIS:
            self.tell(eni)

    def tell(self, eni: str, *more: str, public: str = "") -> None:
        """Tell of what the ENI has beside its primary address, and of that one's public one."""
        (own,) = BASE[eni]
        passport = Passport(
            port=port_of(eni),
            mac=f"02:00:00:00:00:0{ENIS.index(eni)}",
            checked=True,
            owned=frozenset(map(ip_network, (own, *more))),
            groups=frozenset({"sg-1"}),
            public=((own, public),) if public else (),
            way4="igw",
        )
        wanted = Wanted(eni, self._nodes[eni].fd, "ens5", IPv4Address("10.0.0.1"), passport)
        self.fabric.sync(eni, lambda: wanted)

    def leave(self, eni: str) -> None:
        """Tell that the ENI is attached to nothing."""
        self.fabric.sync(eni, lambda: None)

    def ways(self) -> dict[Network, str]:
        """Return who has what, primary addresses apart."""
        ports = {port_of(eni): eni for eni in ENIS}
        own = {ip_network(address) for addresses in BASE.values() for address in addresses}
        return {n: ports[port] for n, port in self.fabric.routes().items() if n not in own}


@pytest.fixture
def told() -> Iterator[Told]:
    with (
        closing(Fabric()) as fabric,
        closing(Worker("a")) as a,
        closing(Worker("b")) as b,
    ):
        yield Told(fabric, dict(zip(ENIS, (a, b), strict=True)))


@pytest.mark.parametrize("address", ["10.0.0.9/32", "10.0.0.16/28", "2001:db8::9/128"])
def test_an_address_that_comes_back_before_its_leaving_was_told(told: Told, address: str) -> None:
    told.tell("eni-a", address)
    told.tell("eni-b", address)
    told.tell("eni-a", address)
    told.tell("eni-b")
    assert told.ways() == {ip_network(address): "eni-a"}


@pytest.mark.parametrize("address", ["10.0.0.9/32", "2001:db8::9/128"])
def test_an_address_has_moved_and_its_former_eni_goes(told: Told, address: str) -> None:
    told.tell("eni-a", address)
    told.tell("eni-b", address)
    told.leave("eni-a")
    assert told.ways() == {ip_network(address): "eni-b"}
    told.leave("eni-b")
    assert told.ways() == {}
    told.tell("eni-a", address)
    assert told.ways() == {ip_network(address): "eni-a"}


@pytest.mark.parametrize(
    ("former", "present"),
    [("10.0.0.16/28", "10.0.0.20/32"), ("10.0.0.20/32", "10.0.0.16/28"),
     ("2001:db8::9/128", "2001:db8::/80")],
)  # fmt: skip
def test_a_range_overlaps_what_its_former_eni_had(told: Told, former: str, present: str) -> None:
    told.tell("eni-a", former)
    told.tell("eni-b", present)
    told.tell("eni-a")
    assert told.ways() == {ip_network(present): "eni-b"}
    told.tell("eni-b")
    told.tell("eni-a", former)
    assert told.ways() == {ip_network(former): "eni-a"}


def test_a_public_address_is_anothers_before_its_leaving_was_told(told: Told) -> None:
    told.tell("eni-a", public="198.51.100.7")
    told.tell("eni-b", public="198.51.100.7")
    told.tell("eni-a")
    told.tell("eni-b")
    told.tell("eni-a", public="198.51.100.7")
    told.leave("eni-b")
    assert told.ways() == {}
