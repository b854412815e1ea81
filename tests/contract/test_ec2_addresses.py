"""The embedded EC2 hands addresses out as EC2 does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.cloud import Cloud, refused


@pytest.mark.row("CreateNetworkInterface")
def test_the_first_address_is_behind_the_four_reserved_ones(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    assert cloud.addresses(cloud.create(subnet_id)) == [cidr[4]]


@pytest.mark.row("CreateNetworkInterface", "DescribeSubnets")
def test_a_subnet_gives_all_but_its_five_reserved_addresses(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet(28)
    assert cloud.free(subnet_id) == 11
    assert set(cloud.addresses(cloud.create(subnet_id, 10))) == set(cidr) - {
        *(cidr[n] for n in range(4)),
        cidr[-1],
    }
    assert cloud.free(subnet_id) == 0


@pytest.mark.row("CreateNetworkInterface", "DescribeSubnets")
def test_a_full_subnet_gives_nothing_and_loses_nothing(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(28)
    with refused("InsufficientFreeAddressesInSubnet", subnet_id):
        cloud.create(subnet_id, 11)
    assert cloud.free(subnet_id) == 11


@pytest.mark.row("RunInstances")
def test_an_instance_takes_an_address_of_the_subnet(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    cloud.instance(subnet_id)
    assert cloud.addresses(cloud.create(subnet_id)) == [cidr[5]]


@pytest.mark.row("CreateNetworkInterface")
def test_a_freed_address_comes_back_last(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet(28)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=cloud.create(subnet_id))
    taken = cloud.addresses(cloud.create(subnet_id, 10))
    assert (taken[0], taken[-1]) == (cidr[5], cidr[4])


@pytest.mark.row("CreateNetworkInterface")
def test_threads_get_distinct_addresses(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: cloud.create(subnet_id, 4), range(12)))
    addresses = [address for eni_id in made for address in cloud.addresses(eni_id)]
    assert len(set(addresses)) == len(addresses) == 60


@pytest.mark.row("CreateNetworkInterface")
def test_two_enis_never_have_one_mac(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    macs = {cloud.eni(cloud.create(subnet_id))["MacAddress"] for _ in range(8)}
    assert len(macs) == 8


@pytest.mark.row("CreateNetworkInterface")
def test_a_named_address_is_given(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    assert cloud.addresses(cloud.create(subnet_id, PrivateIpAddress=str(cidr[77]))) == [cidr[77]]


@pytest.mark.row("CreateNetworkInterface")
def test_the_address_that_is_marked_is_the_primary(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    eni_id = cloud.create(
        subnet_id,
        PrivateIpAddresses=[
            {"PrivateIpAddress": str(cidr[20])},
            {"PrivateIpAddress": str(cidr[21]), "Primary": True},
        ],
    )
    assert cloud.eni(eni_id)["PrivateIpAddress"] == str(cidr[21])
    assert set(cloud.addresses(eni_id)) == {cidr[20], cidr[21]}


@pytest.mark.row("CreateNetworkInterface")
def test_an_address_in_use_is_not_given_again(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    cloud.create(subnet_id, PrivateIpAddress=str(cidr[9]))
    with refused("InvalidIPAddress.InUse", str(cidr[9])):
        cloud.create(subnet_id, PrivateIpAddress=str(cidr[9]))


@pytest.mark.row("CreateNetworkInterface")
@pytest.mark.parametrize("last", [0, 1, 2, 3, 255])
def test_a_reserved_address_is_not_given(cloud: Cloud, last: int) -> None:
    subnet_id, cidr = cloud.subnet()
    with refused("InvalidParameterValue", str(cidr[last])):
        cloud.create(subnet_id, PrivateIpAddress=str(cidr[last]))


@pytest.mark.row("CreateNetworkInterface")
def test_an_address_of_another_subnet_is_not_given(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    with refused("InvalidParameterValue", "10.9.9.9"):
        cloud.create(subnet_id, PrivateIpAddress="10.9.9.9")


@pytest.mark.row("AssignPrivateIpAddresses")
def test_assign_answers_with_the_new_addresses_only(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    eni_id = cloud.create(subnet_id, 2)
    answer = cloud.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=2
    )
    new = [item["PrivateIpAddress"] for item in answer["AssignedPrivateIpAddresses"]]
    assert new == [str(cidr[7]), str(cidr[8])]
    assert len(cloud.addresses(eni_id)) == 5


@pytest.mark.row("AssignPrivateIpAddresses")
def test_assign_stops_at_what_the_instance_type_takes(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    instance_id = cloud.instance(subnet_id)
    eni_id = cloud.create(subnet_id, 8)
    cloud.attach(eni_id, instance_id)
    with refused("PrivateIpAddressLimitExceeded", f"{eni_id}: Number of private addresses will"):
        cloud.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=2
        )
    cloud.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=1
    )
    assert len(cloud.addresses(eni_id)) == 10


@pytest.mark.row("AttachNetworkInterface")
def test_an_eni_with_more_than_the_type_takes_is_not_attached(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    instance_id = cloud.instance(subnet_id)
    with refused("PrivateIpAddressLimitExceeded"):
        cloud.attach(cloud.create(subnet_id, 10), instance_id)


@pytest.mark.row("AssignPrivateIpAddresses", "DescribeSubnets")
def test_assign_past_the_subnets_end_changes_nothing(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(28)
    eni_id = cloud.create(subnet_id)
    with refused("InsufficientFreeAddressesInSubnet"):
        cloud.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=11
        )
    assert (len(cloud.addresses(eni_id)), cloud.free(subnet_id)) == (1, 10)


@pytest.mark.row("UnassignPrivateIpAddresses", "DescribeSubnets")
def test_unassign_gives_the_address_back(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id, 3)
    primary, *secondary = cloud.addresses(eni_id)
    free = cloud.free(subnet_id)
    cloud.ec2.unassign_private_ip_addresses(
        NetworkInterfaceId=eni_id, PrivateIpAddresses=[str(secondary[1])]
    )
    assert cloud.addresses(eni_id) == [primary, secondary[0], secondary[2]]
    assert cloud.free(subnet_id) == free + 1


@pytest.mark.row("UnassignPrivateIpAddresses")
def test_the_primary_address_stays(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id, 1)
    with refused("InvalidParameterValue", "Some of the specified addresses are not assigned"):
        cloud.ec2.unassign_private_ip_addresses(
            NetworkInterfaceId=eni_id,
            PrivateIpAddresses=[str(address) for address in cloud.addresses(eni_id)],
        )
    assert len(cloud.addresses(eni_id)) == 2


@pytest.mark.row("UnassignPrivateIpAddresses")
def test_the_primary_address_of_an_instance_stays(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    (eni_id,) = cloud.found(("attachment.instance-id", cloud.instance(subnet_id)))
    with refused("InvalidParameterValue", f"not assigned to interface {eni_id}"):
        cloud.ec2.unassign_private_ip_addresses(
            NetworkInterfaceId=eni_id, PrivateIpAddresses=[str(cloud.addresses(eni_id)[0])]
        )


@pytest.mark.row("DeleteNetworkInterface", "DescribeSubnets")
def test_a_deleted_eni_gives_its_addresses_back(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    before = cloud.free(subnet_id)
    eni_id = cloud.create(subnet_id, 4)
    assert cloud.free(subnet_id) == before - 5
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    assert cloud.free(subnet_id) == before


@pytest.mark.row("UnassignPrivateIpAddresses", "DescribeSubnets")
def test_an_address_that_is_named_twice_is_taken_back_once(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id, 1)
    free, (_, secondary) = cloud.free(subnet_id), cloud.addresses(eni_id)
    cloud.ec2.unassign_private_ip_addresses(
        NetworkInterfaceId=eni_id, PrivateIpAddresses=[str(secondary)] * 2
    )
    assert cloud.free(subnet_id) == free + 1


@pytest.mark.row("AssignPrivateIpAddresses")
def test_a_reassignment_that_fails_takes_nothing_from_anyone(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    giver, taker = cloud.create(subnet_id, 1), cloud.create(subnet_id)
    primary, secondary = before = cloud.addresses(giver)
    with refused("InvalidIPAddress.InUse", str(primary)):
        cloud.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=taker, AllowReassignment=True,
            PrivateIpAddresses=[str(secondary), str(primary)],
        )  # fmt: skip
    assert (cloud.addresses(giver), len(cloud.addresses(taker))) == (before, 1)


@pytest.mark.row("AssignPrivateIpAddresses")
def test_a_public_address_goes_along_with_the_one_that_is_reassigned(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    giver, taker = cloud.create(subnet_id, 1), cloud.create(subnet_id)
    secondary = str(cloud.addresses(giver)[1])
    elastic = cloud.ec2.allocate_address(Domain="vpc")
    cloud.ec2.associate_address(
        AllocationId=elastic["AllocationId"], NetworkInterfaceId=giver, PrivateIpAddress=secondary
    )
    cloud.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=taker, AllowReassignment=True, PrivateIpAddresses=[secondary]
    )
    moved = cloud.eni(taker)["PrivateIpAddresses"][1]
    assert (moved["PrivateIpAddress"], moved["Association"]["PublicIp"]) == (
        secondary, elastic["PublicIp"],
    )  # fmt: skip
    (told,) = cloud.ec2.describe_addresses(AllocationIds=[elastic["AllocationId"]])["Addresses"]
    assert told["NetworkInterfaceId"] == taker
    assert len(cloud.addresses(giver)) == 1
