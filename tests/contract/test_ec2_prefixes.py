"""The embedded EC2 delegates prefixes, IPv6 and reserved ranges as EC2 does."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.cloud import Cloud, refused


def prefixes(cloud: Cloud, eni_id: str) -> list[IPv4Network]:
    return [IPv4Network(p["Ipv4Prefix"]) for p in cloud.eni(eni_id).get("Ipv4Prefixes", [])]


def assign(cloud: Cloud, eni_id: str, **wish: Any) -> Any:
    return cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, **wish)


@pytest.fixture(scope="module")
def dual(cloud: Cloud) -> tuple[str, IPv6Network]:
    """A subnet with both families."""
    cloud.ec2.associate_vpc_cidr_block(VpcId=cloud.vpc_id, AmazonProvidedIpv6CidrBlock=True)
    (vpc,) = cloud.ec2.describe_vpcs(VpcIds=[cloud.vpc_id])["Vpcs"]
    outer = IPv6Network(vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    cidr = next(outer.subnets(new_prefix=64))
    subnet_id, _ = cloud.subnet()
    cloud.ec2.associate_subnet_cidr_block(SubnetId=subnet_id, Ipv6CidrBlock=str(cidr))
    return subnet_id, cidr


# /28


@pytest.mark.row("CreateNetworkInterface")
def test_a_block_with_a_reserved_address_is_no_prefix(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(27)
    with refused("InsufficientCidrBlocks", subnet_id):  # the first four and the last are EC2's
        cloud.create(subnet_id, Ipv4PrefixCount=1)
    assert cloud.free(subnet_id) == 27


@pytest.mark.row("CreateNetworkInterface", "DescribeSubnets")
def test_prefixes_and_addresses_never_meet(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet(26)
    delegated = prefixes(cloud, cloud.create(subnet_id, Ipv4PrefixCount=2))
    assert delegated == list(cidr.subnets(new_prefix=28))[1:3]
    rest = cloud.addresses(cloud.create(subnet_id, 25))
    assert not any(address in prefix for address in rest for prefix in delegated)
    assert cloud.free(subnet_id) == 64 - 5 - 32 - 1 - 26 == 0
    with refused("InsufficientFreeAddressesInSubnet"):
        cloud.create(subnet_id)


@pytest.mark.row("AssignPrivateIpAddresses")
def test_one_address_spoils_a_block(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet(26)
    spoilt = [cloud.create(subnet_id, PrivateIpAddress=str(cidr[n])) for n in (20, 40)]
    assert cloud.free(subnet_id) == 57
    eni_id = cloud.create(subnet_id)
    with refused("InsufficientCidrBlocks", "enough free cidr blocks to satisfy the request"):
        assign(cloud, eni_id, Ipv4PrefixCount=1)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=spoilt[1])
    answer = assign(cloud, eni_id, Ipv4PrefixCount=1)
    assert answer["AssignedIpv4Prefixes"] == [{"Ipv4Prefix": f"{cidr[32]}/28"}]


@pytest.mark.row("AssignPrivateIpAddresses", "UnassignPrivateIpAddresses", "DescribeSubnets")
def test_a_prefix_is_named_or_counted_and_comes_back(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    eni_id, free = cloud.create(subnet_id), cloud.free(subnet_id)
    assign(cloud, eni_id, Ipv4Prefixes=[f"{cidr[64]}/28"])
    assert (prefixes(cloud, eni_id), cloud.free(subnet_id)) == (
        [IPv4Network(f"{cidr[64]}/28")],
        free - 16,
    )
    with refused("InvalidIPAddress.InUse", str(cidr[64])):
        assign(cloud, cloud.create(subnet_id), Ipv4Prefixes=[f"{cidr[64]}/28"])
    cloud.ec2.unassign_private_ip_addresses(
        NetworkInterfaceId=eni_id, Ipv4Prefixes=[f"{cidr[64]}/28"]
    )
    assert (prefixes(cloud, eni_id), cloud.free(subnet_id)) == ([], free - 1)


@pytest.mark.row("AssignPrivateIpAddresses")
@pytest.mark.parametrize("wrong", ["10.0.0.0/27", "10.9.0.0/28", "nonsense"])
def test_a_wrong_prefix_is_the_callers_error(cloud: Cloud, wrong: str) -> None:
    eni_id = cloud.create(cloud.subnet()[0])
    with refused("InvalidParameterValue", wrong):
        assign(cloud, eni_id, Ipv4Prefixes=[wrong])


@pytest.mark.row("UnassignPrivateIpAddresses")
def test_a_prefix_that_is_not_there_is_not_taken_back(cloud: Cloud) -> None:
    eni_id = cloud.create(cloud.subnet()[0])
    with refused("InvalidParameterValue", f"not assigned to interface {eni_id}"):
        cloud.ec2.unassign_private_ip_addresses(
            NetworkInterfaceId=eni_id, Ipv4Prefixes=["10.0.0.16/28"]
        )


@pytest.mark.row("AssignPrivateIpAddresses")
@pytest.mark.parametrize(
    "wish",
    [
        {"Ipv4PrefixCount": 1, "Ipv4Prefixes": ["10.0.0.16/28"]},
        {"Ipv4PrefixCount": 1, "SecondaryPrivateIpAddressCount": 1},
        {"SecondaryPrivateIpAddressCount": 1, "PrivateIpAddresses": ["10.0.0.9"]},
    ],
)
def test_two_ways_to_say_one_thing_are_refused(cloud: Cloud, wish: dict[str, Any]) -> None:
    eni_id = cloud.create(cloud.subnet()[0])
    with refused("InvalidParameterCombination"):
        assign(cloud, eni_id, **wish)


@pytest.mark.row("AssignPrivateIpAddresses")
def test_a_prefix_takes_a_slot_like_an_address(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id, Ipv4PrefixCount=8)
    cloud.attach(eni_id, cloud.instance(subnet_id))  # m5.large: 10 slots, one is the primary
    assign(cloud, eni_id, SecondaryPrivateIpAddressCount=1)
    with refused("PrivateIpAddressLimitExceeded", eni_id):
        assign(cloud, eni_id, Ipv4PrefixCount=1)


@pytest.mark.row("AssignPrivateIpAddresses")
def test_an_old_type_takes_no_prefixes(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id)
    cloud.attach(eni_id, cloud.instance(subnet_id, "m4.large"))
    with refused("InvalidParameterValue", "m4.large"):
        assign(cloud, eni_id, Ipv4PrefixCount=1)


@pytest.mark.row("AssignPrivateIpAddresses", "AssignIpv6Addresses")
def test_an_old_type_takes_no_named_prefixes_either_nor_ipv6_ones(
    cloud: Cloud, dual: tuple[str, IPv6Network]
) -> None:
    eni_id = cloud.create(dual[0])
    cloud.attach(eni_id, cloud.instance(dual[0], "m4.large"))
    (subnet,) = cloud.ec2.describe_subnets(SubnetIds=[dual[0]])["Subnets"]
    block = list(IPv4Network(subnet["CidrBlock"]).subnets(new_prefix=28))[-2]
    with refused("InvalidParameterValue", "m4.large"):
        assign(cloud, eni_id, Ipv4Prefixes=[str(block)])
    with refused("InvalidParameterValue", "m4.large"):
        cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6PrefixCount=1)
    with refused("InvalidParameterValue", "m4.large"):
        cloud.attach(cloud.create(dual[0], Ipv6PrefixCount=1), cloud.instance(dual[0], "m4.large"))


# Reservations


def reserve(cloud: Cloud, subnet_id: str, cidr: str, kind: Any) -> str:
    made = cloud.ec2.create_subnet_cidr_reservation(
        SubnetId=subnet_id, Cidr=cidr, ReservationType=kind
    )
    return made["SubnetCidrReservation"]["SubnetCidrReservationId"]


@pytest.mark.row("DescribeSubnets", "CreateNetworkInterface")
def test_prefixes_come_from_their_reservation_first_and_addresses_never(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    reserved = IPv4Network((cidr[128], 25))
    reserve(cloud, subnet_id, str(reserved), "prefix")
    assert cloud.free(subnet_id) == 256 - 5 - 127  # the last of all is reserved twice
    eni_id = cloud.create(subnet_id, Ipv4PrefixCount=2)
    assert prefixes(cloud, eni_id) == list(reserved.subnets(new_prefix=28))[:2]
    assert cloud.free(subnet_id) == 256 - 5 - 127 - 1
    many = cloud.addresses(cloud.create(subnet_id, 40))
    assert not any(address in reserved for address in many)


@pytest.mark.row("DescribeSubnets")
def test_what_a_reservation_lacks_comes_from_the_rest(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    reserve(cloud, subnet_id, f"{cidr[64]}/28", "prefix")
    delegated = prefixes(cloud, cloud.create(subnet_id, Ipv4PrefixCount=2))
    assert delegated == [IPv4Network(f"{cidr[64]}/28"), IPv4Network(f"{cidr[16]}/28")]


@pytest.mark.row("DescribeSubnets")
def test_an_explicit_reservation_is_for_named_addresses(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet(28)
    free = cloud.free(subnet_id)
    reserve(cloud, subnet_id, f"{cidr[8]}/29", "explicit")
    assert cloud.free(subnet_id) == free
    cloud.create(subnet_id, 3)
    with refused("InsufficientFreeAddressesInSubnet"):
        cloud.create(subnet_id)
    assert cloud.addresses(cloud.create(subnet_id, PrivateIpAddress=str(cidr[9]))) == [cidr[9]]


@pytest.mark.row("DescribeSubnets")
def test_a_reservation_goes_and_its_addresses_come_back(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    free = cloud.free(subnet_id)
    reservation_id = reserve(cloud, subnet_id, f"{cidr[16]}/28", "prefix")
    listed = cloud.ec2.get_subnet_cidr_reservations(SubnetId=subnet_id)
    assert [r["Cidr"] for r in listed["SubnetIpv4CidrReservations"]] == [f"{cidr[16]}/28"]
    cloud.ec2.delete_subnet_cidr_reservation(SubnetCidrReservationId=reservation_id)
    assert cloud.free(subnet_id) == free


@pytest.mark.row("DescribeSubnets")
def test_reservations_lie_in_the_subnet_and_apart(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    reserve(cloud, subnet_id, f"{cidr[16]}/28", "prefix")
    for wrong, text in ((f"{cidr[0]}/26", "overlap"), ("10.99.0.0/28", "within subnet CIDR")):
        with refused("InvalidParameterValue", text):
            reserve(cloud, subnet_id, wrong, "explicit")


# IPv6


@pytest.mark.row("AssignIpv6Addresses", "CreateNetworkInterface")
def test_ipv6_addresses_come_one_by_one_and_as_prefixes(
    cloud: Cloud, dual: tuple[str, IPv6Network]
) -> None:
    subnet_id, cidr = dual
    eni = cloud.eni(cloud.create(subnet_id, Ipv6AddressCount=2))
    addresses = [IPv6Address(a["Ipv6Address"]) for a in eni["Ipv6Addresses"]]
    assert len(set(addresses)) == 2
    assert all(address in cidr for address in addresses)
    answer = cloud.ec2.assign_ipv6_addresses(
        NetworkInterfaceId=eni["NetworkInterfaceId"], Ipv6PrefixCount=1
    )
    (prefix,) = (IPv6Network(p) for p in answer["AssignedIpv6Prefixes"])
    assert (prefix.prefixlen, prefix.subnet_of(cidr)) == (80, True)
    assert not any(address in prefix for address in addresses)
    assert answer["AssignedIpv6Addresses"] == []


@pytest.mark.row("AssignIpv6Addresses")
def test_two_enis_never_share_an_ipv6_prefix(cloud: Cloud, dual: tuple[str, IPv6Network]) -> None:
    made = [cloud.create(dual[0], Ipv6PrefixCount=2) for _ in range(3)]
    listed = [p["Ipv6Prefix"] for eni_id in made for p in cloud.eni(eni_id)["Ipv6Prefixes"]]
    assert len(set(listed)) == 6


@pytest.mark.row("AssignIpv6Addresses")
def test_ipv6_goes_back(cloud: Cloud, dual: tuple[str, IPv6Network]) -> None:
    eni_id = cloud.create(dual[0], Ipv6PrefixCount=1)
    (prefix,) = (p["Ipv6Prefix"] for p in cloud.eni(eni_id)["Ipv6Prefixes"])
    answer = cloud.ec2.unassign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6Prefixes=[prefix])
    assert answer["UnassignedIpv6Prefixes"] == [prefix]
    assert cloud.eni(eni_id).get("Ipv6Prefixes", []) == []
    with refused("InvalidParameterValue", eni_id):
        cloud.ec2.unassign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6Prefixes=[prefix])
    cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6Prefixes=[prefix])


@pytest.mark.row("AssignIpv6Addresses")
def test_ipv6_slots_are_counted_apart(cloud: Cloud, dual: tuple[str, IPv6Network]) -> None:
    eni_id = cloud.create(dual[0], 9, Ipv6AddressCount=9)
    cloud.attach(eni_id, cloud.instance(dual[0]))
    cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6PrefixCount=1)
    with refused("Ipv6AddressLimitExceeded", eni_id):
        cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6AddressCount=1)


@pytest.mark.row("CreateNetworkInterface")
def test_a_subnet_of_one_family_gives_no_ipv6_and_takes_nothing(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    free = cloud.free(subnet_id)
    with refused("InvalidParameterValue", f"{subnet_id} has no IPv6 CIDR block"):
        cloud.create(subnet_id, 3, Ipv6AddressCount=1)
    assert cloud.free(subnet_id) == free


@pytest.mark.row("AssignIpv6Addresses", "RunInstances")
def test_a_subnet_that_gives_ipv6_at_creation(cloud: Cloud, dual: tuple[str, IPv6Network]) -> None:
    subnet_id, _ = dual
    cloud.ec2.modify_subnet_attribute(
        SubnetId=subnet_id, AssignIpv6AddressOnCreation={"Value": True}
    )
    try:
        instance_id, eni_id = cloud.instance(subnet_id), cloud.create(subnet_id)
        (primary,) = cloud.found(("attachment.instance-id", instance_id))
        assert [len(cloud.eni(e)["Ipv6Addresses"]) for e in (eni_id, primary)] == [1, 1]
    finally:
        cloud.ec2.modify_subnet_attribute(
            SubnetId=subnet_id, AssignIpv6AddressOnCreation={"Value": False}
        )


@pytest.mark.row("DescribeNetworkInterfaces")
def test_an_ipv6_address_is_found_by_a_filter(cloud: Cloud, dual: tuple[str, IPv6Network]) -> None:
    eni_id = cloud.create(dual[0], Ipv6AddressCount=1)
    address = cloud.eni(eni_id)["Ipv6Addresses"][0]["Ipv6Address"]
    assert cloud.found(("ipv6-addresses.ipv6-address", address)) == [eni_id]


@pytest.mark.row("UnassignPrivateIpAddresses", "AssignIpv6Addresses")
def test_what_is_named_twice_is_taken_back_once(
    cloud: Cloud, dual: tuple[str, IPv6Network]
) -> None:
    eni_id = cloud.create(dual[0], Ipv4PrefixCount=1, Ipv6PrefixCount=1)
    cloud.ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6AddressCount=1)
    eni = cloud.eni(eni_id)
    cloud.ec2.unassign_private_ip_addresses(
        NetworkInterfaceId=eni_id, Ipv4Prefixes=[eni["Ipv4Prefixes"][0]["Ipv4Prefix"]] * 2
    )
    cloud.ec2.unassign_ipv6_addresses(
        NetworkInterfaceId=eni_id,
        Ipv6Addresses=[eni["Ipv6Addresses"][0]["Ipv6Address"]] * 2,
        Ipv6Prefixes=[eni["Ipv6Prefixes"][0]["Ipv6Prefix"]] * 2,
    )
    assert prefixes(cloud, eni_id) == []
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)


@pytest.mark.row("Networks")
def test_a_cidr_is_given_to_one_subnet_however_it_is_spelled(
    cloud: Cloud, dual: tuple[str, IPv6Network]
) -> None:
    subnet_id, _ = cloud.subnet()
    with refused("InvalidSubnet.Conflict"):
        cloud.ec2.associate_subnet_cidr_block(
            SubnetId=subnet_id, Ipv6CidrBlock=dual[1].exploded.upper()
        )


@pytest.mark.row("Networks")
def test_an_ipv6_cidr_stays_while_an_eni_has_of_it(
    cloud: Cloud, dual: tuple[str, IPv6Network]
) -> None:
    cidr = IPv6Network((int(dual[1].network_address) + (9 << 64), 64))
    subnet_id, _ = cloud.subnet()
    association = cloud.ec2.associate_subnet_cidr_block(
        SubnetId=subnet_id, Ipv6CidrBlock=cidr.exploded
    )["Ipv6CidrBlockAssociation"]
    assert association["Ipv6CidrBlock"] == str(cidr)
    eni_id = cloud.create(subnet_id, Ipv6PrefixCount=1)
    with refused("InvalidCidrBlock.InUse", eni_id):
        cloud.ec2.disassociate_subnet_cidr_block(AssociationId=association["AssociationId"])
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    cloud.ec2.disassociate_subnet_cidr_block(AssociationId=association["AssociationId"])


# At launch


@pytest.mark.row("RunInstances", "TerminateInstances")
def test_an_instance_is_born_with_what_its_eni_asks_for(
    cloud: Cloud, dual: tuple[str, IPv6Network]
) -> None:
    spec: Any = {
        "DeviceIndex": 0, "SubnetId": dual[0], "Ipv4PrefixCount": 2, "Ipv6PrefixCount": 1,
        "AssociatePublicIpAddress": True,
    }  # fmt: skip
    made = cloud.ec2.run_instances(
        ImageId="ami-760aaa0f", InstanceType="m5.large", MinCount=1, MaxCount=1,
        NetworkInterfaces=[spec],
    )  # fmt: skip
    instance = made["Instances"][0]
    (eni_id,) = cloud.found(("attachment.instance-id", instance["InstanceId"]))
    eni = cloud.eni(eni_id)
    assert (len(eni["Ipv4Prefixes"]), len(eni["Ipv6Prefixes"])) == (2, 1)
    assert eni["Association"]["PublicIp"].startswith("198.51.100.")
    cloud.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    with refused("InvalidNetworkInterfaceID.NotFound"):
        cloud.eni(eni_id)


@pytest.mark.row("RunInstances")
def test_an_instance_that_wants_too_much_is_not_launched(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(28)
    free = cloud.free(subnet_id)
    spec: Any = {"DeviceIndex": 0, "SubnetId": subnet_id, "SecondaryPrivateIpAddressCount": 20}
    with refused("PrivateIpAddressLimitExceeded"):
        cloud.ec2.run_instances(
            ImageId="ami-760aaa0f", InstanceType="m5.large", MinCount=1, MaxCount=1,
            NetworkInterfaces=[spec],
        )  # fmt: skip
    assert cloud.free(subnet_id) == free
    assert cloud.found(("subnet-id", subnet_id)) == []


@pytest.mark.row("RunInstances")
@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"DeviceIndex": 1, "SecondaryPrivateIpAddressCount": 20}, id="too-much"),
        pytest.param({"DeviceIndex": 0}, id="an-index-twice"),
    ],
)
def test_a_launch_that_fails_at_its_second_eni_leaves_nothing(
    cloud: Cloud, second: dict[str, Any]
) -> None:
    subnet_id, _ = cloud.subnet()
    free = cloud.free(subnet_id)
    stays: Any = {"DeviceIndex": 0, "SubnetId": subnet_id, "DeleteOnTermination": False}
    fails: Any = {"SubnetId": subnet_id, **second}
    with pytest.raises(ClientError):
        cloud.ec2.run_instances(
            ImageId="ami-760aaa0f", InstanceType="m5.large", MinCount=1, MaxCount=1,
            NetworkInterfaces=[stays, fails],
        )  # fmt: skip
    assert cloud.found(("subnet-id", subnet_id)) == []
    assert cloud.free(subnet_id) == free


@pytest.mark.row("RunInstances")
def test_a_launch_without_a_primary_eni_is_refused(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    with refused("InvalidParameterValue", "primary"):
        cloud.ec2.run_instances(
            ImageId="ami-760aaa0f", InstanceType="m5.large", MinCount=1, MaxCount=1,
            NetworkInterfaces=[{"DeviceIndex": 1, "SubnetId": subnet_id}],
        )  # fmt: skip
    assert cloud.found(("subnet-id", subnet_id)) == []
