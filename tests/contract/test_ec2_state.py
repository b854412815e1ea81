"""Whatever is done to the embedded EC2, and whatever of it fails: what it says adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv6Network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from moto.ec2.exceptions import EC2ClientError

from vpclab.ec2 import fresh_backend
from vpclab.ec2.backend import VpcBackend
from vpclab.ec2.model import Eni, VpcSubnet
from vpclab.ec2.public import KEPT, PUBLIC
from vpclab.ec2.wishes import Wish

NUMBERS = st.integers(0, 9)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([
            "create", "attach", "attach", "detach", "assign", "name", "take over", "unassign",
            "assign6", "unassign6", "delete", "launch", "terminate", "time", "time", "publish",
            "release", "nat", "no nat", "keep", "trunk", "no trunk",
        ]),
        NUMBERS, NUMBERS, NUMBERS,
    ),
    max_size=30,
)  # fmt: skip


class World:
    """An EC2 with one subnet of both families, and what is to happen later in it."""

    def __init__(self) -> None:
        self.ec2: VpcBackend = fresh_backend("us-east-1")
        self.pending: list[Callable[[], None]] = []
        self.ec2.later = lambda _seconds, work: self.pending.append(work)
        self.ec2.delays.attach_seconds = self.ec2.delays.detach_seconds = 1000
        vpc = self.ec2.create_vpc("10.0.0.0/16", amazon_provided_ipv6_cidr_block=True)
        outer = IPv6Network(self.ec2.cidrs(vpc.id, 6)[0])
        self.cidr6 = next(outer.subnets(new_prefix=64))
        self.subnet: VpcSubnet = self.ec2.create_subnet(
            vpc.id, "10.0.0.0/26", str(self.cidr6), availability_zone="us-east-1a"
        )

    @property
    def enis(self) -> list[Eni]:
        return list(self.ec2.enis.values())

    @property
    def instances(self) -> list[Any]:
        """Return every instance, the terminated ones too."""
        return [i for r in self.ec2.reservations.values() for i in r.instances]

    def step(self, verb: str, a: int, b: int, c: int) -> None:
        """Do one thing, or nothing if there is nothing to do it to. May raise EC2ClientError."""
        if verb == "time" and self.pending:
            self.pending.pop(a % len(self.pending))()
        elif verb == "launch":
            self._launch(a, b, c)
        else:
            self._of_enis(verb, a, b, c)

    def _of_enis(self, verb: str, a: int, b: int, c: int) -> None:
        ec2 = self.ec2
        eni, other = _pick(self.enis, a), _pick(self.enis, b)
        instance = _pick(self.instances, b)
        match verb:
            case "create":
                wish6 = Wish(count=c % 3) if c % 2 else Wish(prefix_count=c % 3)
                wish4 = Wish(count=a) if b % 2 else Wish(prefix_count=a % 3)
                kind = "trunk" if c == 9 else "interface"
                ec2.create_eni(self.subnet.id, [], wish4, wish6, [], None, {}, kind)
            case "attach" if eni and instance:
                ec2.attach_network_interface(eni.id, instance.id, c % 4)
            case "detach" if eni and eni.attachment_id:
                ec2.detach_network_interface(eni.attachment_id, force=c == 0)
            case "keep" if eni and eni.attachment_id:
                ec2.set_delete_on_termination(eni.id, eni.attachment_id, value=c % 2 == 0)
            case "delete" if eni:
                ec2.delete_network_interface(eni.id)
            case "terminate" if instance:
                ec2.terminate_instances([instance.id] * (1 + c % 2))
            case _:
                self._of_addresses(verb, eni, other, c)

    def _launch(self, a: int, b: int, c: int) -> None:
        nics = list(_nics(self.subnet.id, a, b, c))
        where = {"nics": nics} if nics else {"subnet_id": self.subnet.id, "nics": []}
        self.ec2.run_instances(
            "ami-760aaa0f", 1 + c % 2, None, [], **LAUNCH, **where,
            instance_type="t3.small" if c % 2 else "t2.small", ipv6_address_count=b % 2,
        )  # fmt: skip

    def _of_addresses(self, verb: str, eni: Eni | None, other: Eni | None, c: int) -> None:
        ec2 = self.ec2
        if eni is None or other is None:
            return
        match verb:
            case "assign":
                ec2.assign(eni.id, Wish(count=c) if c % 2 else Wish(prefix_count=c % 3))
            case "name":
                names = [f"10.0.0.{c * 7}", f"10.0.0.{c * 7 % 5 + 4}"]
                ec2.assign(eni.id, Wish(addresses=tuple(names[: 1 + c % 2])))
            case "take over":
                theirs = [*other.addresses[1:][: c % 3], *other.addresses[:1][: c % 2]]
                ec2.assign(eni.id, Wish(addresses=tuple(theirs)), reassign=True)
            case "unassign":
                ec2.unassign(eni.id, eni.addresses[1:][:c] * (1 + c % 2), eni.prefixes[: c % 3])
            case "assign6":
                ec2.assign6(eni.id, Wish(count=c % 4) if c % 2 else Wish(prefix_count=c % 3))
            case "unassign6":
                ec2.unassign6(eni.id, eni.addresses6[:c] * (1 + c % 2), eni.prefixes6[: c % 3])
            case _:
                self._of_others(verb, eni, other, c)

    def _of_others(self, verb: str, eni: Eni, other: Eni, c: int) -> None:
        ec2 = self.ec2
        elastic = _pick(ec2.addresses, c)
        match verb:
            case "publish":
                eip = elastic if elastic and c % 2 else ec2.allocate_address("vpc")
                private = _pick(eni.addresses, c)
                ec2.associate_address(
                    eni=eni, allocation_id=eip.allocation_id, reassociate=c % 3 == 0,
                    private=private,
                )  # fmt: skip
            case "release" if elastic:
                ec2.release_address(allocation_id=elastic.allocation_id)
            case "nat" if elastic:
                ec2.create_nat_gateway(self.subnet.id, elastic.allocation_id)
            case "no nat" if ec2.nat_gateways:
                ec2.delete_nat_gateway(_pick(list(ec2.nat_gateways), c) or "")
            case "trunk":
                ec2.associate_trunk_interface(eni.id, other.id, c)
            case "no trunk" if ec2.trunk_associations:
                ec2.disassociate_trunk_interface(_pick(list(ec2.trunk_associations), c) or "")

    def check(self) -> None:
        """Fail if two have one thing, or nobody has what is taken."""
        owned = Counter(n for eni in self.enis for n in eni.owned)
        assert set(owned.values()) <= {1}, "two ENIs have it"
        assert set(owned) == self.subnet.taken, "the books are wrong"
        four = [n for n in owned if n.version == 4]
        assert self.subnet.available_ip_address_count == 59 - sum(n.num_addresses for n in four)
        running = [i for i in self.instances if i.state == "running"]
        plugged = {(i.id, key): eni for i in running for key, eni in i.nics.items()}
        for eni in self.enis:
            there = [k for k, plug in plugged.items() if plug is eni]
            home = [] if eni.instance is None else [(eni.instance.id, eni.device_index)]
            assert there == home, "an attachment is not of both"
            assert bool(eni.attachment_id) == bool(home) or eni.interface_type == "nat_gateway"
        self._check_public()

    def _check_public(self) -> None:
        elastic = {e.public_ip: e for e in self.ec2.addresses}
        given = {public: (eni, a) for eni in self.enis for a, public in eni.public.items()}
        for public, (eni, private) in given.items():
            assert private in eni.addresses
            assert public not in elastic or elastic[public].eni is eni
        for public, eip in elastic.items():
            assert eip.eni is None or eip.eni.interface_type == "nat_gateway" or public in given
        assert len(given) == sum(len(eni.public) for eni in self.enis), "two have one"
        free = Counter(map(str, self.ec2._free_public))  # noqa: SLF001 - the pool has no other way
        free.update({*given, *elastic})
        assert free == Counter(map(str, {*PUBLIC.hosts()} - KEPT)), "the pool is wrong"

    def clear(self) -> None:
        """Undo everything, which must work whatever has been done."""
        ec2 = self.ec2
        for association_id in list(ec2.trunk_associations):
            ec2.disassociate_trunk_interface(association_id)
        for gateway_id in list(ec2.nat_gateways):
            ec2.delete_nat_gateway(gateway_id)
        if self.instances:
            ec2.terminate_instances([i.id for i in self.instances])
        for eni in self.enis:
            ec2.delete_network_interface(eni.id)
        for eip in list(ec2.addresses):
            ec2.release_address(allocation_id=eip.allocation_id)
        for work in self.pending:
            work()
        self.pending.clear()
        self.check()
        assert self.subnet.available_ip_address_count == 59


LAUNCH: dict[str, Any] = {
    "is_instance_type_default": False, "tags": {}, "security_group_ids": [],
    "region_name": "us-east-1", "metadata_options": {},
}  # fmt: skip
"""What moto asks of everyone who launches."""


def _nics(subnet_id: str, a: int, b: int, c: int) -> Iterator[dict[str, Any]]:
    for index in range(a % 3):
        yield {
            "DeviceIndex": index if b else 0, "SubnetId": subnet_id,
            "DeleteOnTermination": bool((b + index) % 2), "AssociatePublicIpAddress": c % 3 == 0,
            "SecondaryPrivateIpAddressCount": b % 5, "Ipv6AddressCount": c % 3,
        }  # fmt: skip


def _pick(listed: list[Any], number: int) -> Any:
    return listed[number % len(listed)] if listed else None


@settings(max_examples=150)
@given(STEPS)
def test_nothing_is_lost_and_nothing_had_twice(steps: list[tuple[str, int, int, int]]) -> None:
    world = World()
    for step in steps:
        with suppress(EC2ClientError):
            world.step(*step)
        world.check()
    world.clear()
