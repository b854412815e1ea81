"""Blocks: what takes the slots of an ENI."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from eni.model import Block, Eni, EniId, ImdsEni, Kind, SubnetId, VpcId, kind_of

ADDRESS = IPv4Network("10.0.0.5/32")
PREFIX = IPv4Network("10.0.0.16/28")


@pytest.mark.parametrize(
    ("block", "kind", "size"),
    [
        pytest.param(ADDRESS, Kind.SINGLE, 1, id="an-address"),
        pytest.param(PREFIX, Kind.PREFIX, 16, id="a-prefix"),
    ],
)
def test_a_block_is_an_address_or_sixteen(block: Block, kind: Kind, size: int) -> None:
    assert kind_of(block) is kind
    assert kind.size == size == block.num_addresses


def test_an_enis_slots_hold_its_secondary_addresses_and_ipv4_prefixes() -> None:
    eni = Eni(
        id=EniId("eni-1"),
        mac="0a:00:00:00:00:01",
        subnet_id=SubnetId("subnet-1"),
        status="available",
        description="",
        interface_type="interface",
        primary=IPv4Address("10.0.0.4"),
        secondary=(IPv4Address("10.0.0.5"),),
        prefixes=(IPv6Network("fd00:0:0:0:1::/80"), PREFIX),
    )
    assert eni.blocks == (ADDRESS, PREFIX)


def test_imds_tells_the_primary_address_first_and_it_is_no_block() -> None:
    eni = ImdsEni(
        id=EniId("eni-1"),
        mac="0a:00:00:00:00:01",
        device_index=1,
        vpc_id=VpcId("vpc-1"),
        subnet_id=SubnetId("subnet-1"),
        subnet_cidr=IPv4Network("10.0.0.0/24"),
        vpc_cidrs=(IPv4Network("10.0.0.0/16"),),
        addresses=(IPv4Address("10.0.0.4"), IPv4Address("10.0.0.5")),
        prefixes=(IPv6Network("fd00:0:0:0:1::/80"), PREFIX),
    )
    assert eni.blocks == (ADDRESS, PREFIX)
