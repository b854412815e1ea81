"""The embedded EC2's VPCs: CIDRs, cards, trunks, public addresses, ways out, and what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.cloud import Cloud, refused

# CIDRs


@pytest.mark.row("Networks")
@pytest.mark.parametrize(
    ("cidr", "code"),
    [
        ("10.1.0.0/24", "InvalidSubnet.Range"),  # outside the VPC
        ("10.0.0.0/15", "InvalidSubnet.Range"),
        ("10.0.200.0/29", "InvalidSubnet.Range"),  # too small
        ("10.0.200.0/33", "InvalidParameterValue"),
        ("nonsense", "InvalidParameterValue"),
    ],
)
def test_a_wrong_subnet_is_refused_and_named(cloud: Cloud, cidr: str, code: str) -> None:
    with refused(code, cidr):
        cloud.ec2.create_subnet(VpcId=cloud.vpc_id, CidrBlock=cidr, AvailabilityZone="us-east-1a")


@pytest.mark.row("Networks")
def test_subnets_do_not_overlap(cloud: Cloud) -> None:
    _, cidr = cloud.subnet()
    with refused("InvalidSubnet.Conflict", str(cidr)):
        cloud.ec2.create_subnet(VpcId=cloud.vpc_id, CidrBlock=str(cidr))


@pytest.mark.row("Networks")
@pytest.mark.parametrize("cidr", ["10.0.64.0/20", "100.0.0.0/8", "100.64.0.0/29", "203.0.113.0/24"])
def test_a_wrong_second_cidr_is_refused(cloud: Cloud, cidr: str) -> None:
    with refused("InvalidVpc.Range", cidr):
        cloud.ec2.associate_vpc_cidr_block(VpcId=cloud.vpc_id, CidrBlock=cidr)


@pytest.mark.row("Networks")
def test_a_second_cidr_takes_subnets_and_stays_while_it_has_one(cloud: Cloud) -> None:
    made = cloud.ec2.associate_vpc_cidr_block(VpcId=cloud.vpc_id, CidrBlock="100.64.0.0/16")
    association_id = made["CidrBlockAssociation"]["AssociationId"]
    subnet = cloud.ec2.create_subnet(
        VpcId=cloud.vpc_id, CidrBlock="100.64.0.0/24", AvailabilityZone="us-east-1a"
    )["Subnet"]["SubnetId"]
    with refused("InvalidCidrBlock.InUse", "100.64.0.0/16"):
        cloud.ec2.disassociate_vpc_cidr_block(AssociationId=association_id)
    cloud.ec2.delete_subnet(SubnetId=subnet)
    cloud.ec2.disassociate_vpc_cidr_block(AssociationId=association_id)


@pytest.mark.row("Networks")
@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "10.0.0.0/29", "nonsense"])
def test_a_wrong_vpc_is_refused(cloud: Cloud, cidr: str) -> None:
    with pytest.raises(cloud.ec2.exceptions.ClientError, match=cidr):
        cloud.ec2.create_vpc(CidrBlock=cidr)


@pytest.mark.row("Networks")
@pytest.mark.parametrize(
    "cidr", ["127.0.0.0/16", "169.254.0.0/16", "224.0.0.0/16", "198.51.100.0/24", "203.0.113.0/28"]
)
def test_a_vpc_where_others_are_is_refused(cloud: Cloud, cidr: str) -> None:
    with refused("InvalidVpc.Range", f"'{cidr}' is invalid: it overlaps"):
        cloud.ec2.create_vpc(CidrBlock=cidr)


@pytest.mark.row("Networks")
def test_a_vpcs_cidr_is_brought_into_its_canonical_form(cloud: Cloud) -> None:
    vpc = cloud.ec2.create_vpc(CidrBlock="100.68.0.18/18")["Vpc"]
    cloud.ec2.delete_vpc(VpcId=vpc["VpcId"])
    assert vpc["CidrBlock"] == "100.68.0.0/18"


@pytest.mark.row("Networks")
def test_a_wrong_ipv6_subnet_is_refused(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    with refused("InvalidSubnet.Range", "2001:db8::/64"):
        cloud.ec2.associate_subnet_cidr_block(SubnetId=subnet_id, Ipv6CidrBlock="2001:db8::/64")


# Network cards


@pytest.mark.row("AttachNetworkInterface")
def test_each_card_takes_what_the_type_says(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    instance_id = cloud.instance(subnet_id, "p4d.24xlarge")  # 4 cards with 15 ENIs each
    eni_id = cloud.create(subnet_id)
    cloud.ec2.attach_network_interface(
        NetworkInterfaceId=eni_id, InstanceId=instance_id, DeviceIndex=1, NetworkCardIndex=3
    )
    attachment = cloud.eni(eni_id)["Attachment"]
    assert (attachment["NetworkCardIndex"], attachment["DeviceIndex"]) == (3, 1)
    cloud.attach(cloud.create(subnet_id), instance_id, 1)  # the same index of another card
    assert cloud.found(
        ("attachment.instance-id", instance_id), ("attachment.network-card-index", "3")
    ) == [eni_id]
    with refused("InvalidParameterValue", "card index 4"):
        cloud.ec2.attach_network_interface(
            NetworkInterfaceId=cloud.create(subnet_id), InstanceId=instance_id, DeviceIndex=1,
            NetworkCardIndex=4,
        )  # fmt: skip


@pytest.mark.row("CreateNetworkInterface")
def test_an_efa_only_eni_has_no_address(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    free = cloud.free(subnet_id)
    eni = cloud.eni(cloud.create(subnet_id, InterfaceType="efa-only"))
    assert (eni["InterfaceType"], eni.get("PrivateIpAddress")) == ("efa-only", None)
    assert cloud.free(subnet_id) == free


@pytest.mark.row("CreateNetworkInterface")
def test_an_unknown_type_of_eni_is_refused(cloud: Cloud) -> None:
    with refused("InvalidParameterValue", "quantum"):
        cloud.create(cloud.subnet()[0], InterfaceType="quantum")


# Trunks and branches


@pytest.mark.row("AssociateTrunkInterface")
def test_a_branch_is_associated_with_a_trunk(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    trunk = cloud.create(subnet_id, InterfaceType="trunk")
    branch, other = cloud.create(subnet_id), cloud.create(subnet_id)
    made = cloud.ec2.associate_trunk_interface(
        BranchInterfaceId=branch, TrunkInterfaceId=trunk, VlanId=7
    )["InterfaceAssociation"]
    eni = cloud.eni(branch)
    assert (eni["Status"], eni["InterfaceType"]) == ("associated", "branch")
    listed = cloud.ec2.describe_trunk_interface_associations()["InterfaceAssociations"]
    assert [(a["BranchInterfaceId"], a["VlanId"]) for a in listed] == [(branch, 7)]
    with refused("InvalidParameterValue", "VlanId 7"):
        cloud.ec2.associate_trunk_interface(
            BranchInterfaceId=other, TrunkInterfaceId=trunk, VlanId=7
        )
    with refused("InvalidParameterValue", "currently in use"):
        cloud.ec2.delete_network_interface(NetworkInterfaceId=branch)
    cloud.ec2.disassociate_trunk_interface(AssociationId=made["AssociationId"])
    cloud.ec2.delete_network_interface(NetworkInterfaceId=branch)
    with refused("InvalidAssociationID.NotFound", made["AssociationId"]):
        cloud.ec2.disassociate_trunk_interface(AssociationId=made["AssociationId"])


@pytest.mark.row("AssociateTrunkInterface")
def test_an_ordinary_eni_is_no_trunk(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    one, other = cloud.create(subnet_id), cloud.create(subnet_id)
    with refused("InvalidParameterValue", f"'{other}' is not a trunk"):
        cloud.ec2.associate_trunk_interface(BranchInterfaceId=one, TrunkInterfaceId=other, VlanId=1)


# Public addresses


def elastic(cloud: Cloud) -> tuple[str, str]:
    made = cloud.ec2.allocate_address(Domain="vpc")
    return made["AllocationId"], made["PublicIp"]


@pytest.mark.row("Networks")
def test_an_elastic_address_comes_and_goes(cloud: Cloud) -> None:
    eni_id = cloud.create(cloud.subnet()[0], 1)
    secondary = str(cloud.addresses(eni_id)[1])
    allocation_id, public = elastic(cloud)
    made = cloud.ec2.associate_address(
        AllocationId=allocation_id, NetworkInterfaceId=eni_id, PrivateIpAddress=secondary
    )
    shown = {
        a["PrivateIpAddress"]: a.get("Association") for a in cloud.eni(eni_id)["PrivateIpAddresses"]
    }
    assert shown[secondary]["PublicIp"] == public
    assert cloud.found(("addresses.association.public-ip", public)) == [eni_id]
    with refused("InvalidIPAddress.InUse", public):
        cloud.ec2.release_address(AllocationId=allocation_id)
    cloud.ec2.disassociate_address(AssociationId=made["AssociationId"])
    assert not any(a.get("Association") for a in cloud.eni(eni_id)["PrivateIpAddresses"])
    cloud.ec2.release_address(AllocationId=allocation_id)


@pytest.mark.row("Networks")
def test_an_elastic_address_gives_way_to_another(cloud: Cloud) -> None:
    eni_id = cloud.create(cloud.subnet()[0])
    (first, _), (second, public) = elastic(cloud), elastic(cloud)
    for allocation_id in (first, second):
        cloud.ec2.associate_address(AllocationId=allocation_id, NetworkInterfaceId=eni_id)
    assert cloud.eni(eni_id)["Association"]["PublicIp"] == public
    (address,) = cloud.ec2.describe_addresses(AllocationIds=[first])["Addresses"]
    assert "AssociationId" not in address
    cloud.ec2.release_address(AllocationId=first)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    cloud.ec2.release_address(AllocationId=second)


@pytest.mark.row("Networks")
def test_an_elastic_address_leaves_with_its_private_one(cloud: Cloud) -> None:
    eni_id = cloud.create(cloud.subnet()[0])
    allocation_id, _ = elastic(cloud)
    cloud.ec2.associate_address(AllocationId=allocation_id, NetworkInterfaceId=eni_id)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    (address,) = cloud.ec2.describe_addresses(AllocationIds=[allocation_id])["Addresses"]
    assert "AssociationId" not in address
    cloud.ec2.release_address(AllocationId=allocation_id)


# Ways out


@pytest.mark.row("Networks", "DependencyViolation")
def test_a_nat_gateway_has_an_eni_of_its_own(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    allocation_id, public = elastic(cloud)
    gateway = cloud.ec2.create_nat_gateway(SubnetId=subnet_id, AllocationId=allocation_id)[
        "NatGateway"
    ]
    (address,) = gateway["NatGatewayAddresses"]
    eni = cloud.eni(address["NetworkInterfaceId"])
    assert (eni["InterfaceType"], eni["Association"]["PublicIp"]) == ("nat_gateway", public)
    assert eni["Status"] == "in-use"
    with refused("InvalidParameterValue", "currently in use"):
        cloud.ec2.delete_network_interface(NetworkInterfaceId=address["NetworkInterfaceId"])
    with refused("DependencyViolation", subnet_id):
        cloud.ec2.delete_subnet(SubnetId=subnet_id)
    cloud.ec2.delete_nat_gateway(NatGatewayId=gateway["NatGatewayId"])
    cloud.ec2.delete_subnet(SubnetId=subnet_id)


@pytest.mark.row("Networks")
def test_a_nat_gateways_eni_is_nobody_elses(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    allocation_id = cloud.ec2.allocate_address(Domain="vpc")["AllocationId"]
    cloud.ec2.create_nat_gateway(SubnetId=subnet_id, AllocationId=allocation_id)
    (eni_id,) = cloud.found(("subnet-id", subnet_id))
    with refused("InvalidParameterValue", "currently in use"):
        cloud.attach(eni_id, cloud.instance(subnet_id))
    trunk = cloud.create(subnet_id, InterfaceType="trunk")
    for branch in (eni_id, trunk):
        with refused("InvalidParameterValue", "currently in use"):
            cloud.ec2.associate_trunk_interface(
                BranchInterfaceId=branch, TrunkInterfaceId=trunk, VlanId=1
            )


@pytest.mark.row("Networks")
def test_a_nat_gateway_that_gets_no_address_leaves_nothing(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    taken = cloud.ec2.allocate_address(Domain="vpc")["AllocationId"]
    eni_id = cloud.create(subnet_id)
    cloud.ec2.associate_address(AllocationId=taken, NetworkInterfaceId=eni_id)
    with refused("Resource.AlreadyAssociated"):
        cloud.ec2.create_nat_gateway(SubnetId=subnet_id, AllocationId=taken)
    with refused("InvalidAllocationID.NotFound"):
        cloud.ec2.create_nat_gateway(SubnetId=subnet_id, AllocationId="eipalloc-0")
    assert cloud.found(("subnet-id", subnet_id)) == [eni_id]


@pytest.mark.row("Networks")
def test_a_route_that_no_packet_would_follow_is_refused(cloud: Cloud) -> None:
    (main,) = cloud.ec2.describe_route_tables(
        Filters=[{"Name": "vpc-id", "Values": [cloud.vpc_id]}]
    )["RouteTables"]
    gateway = cloud.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    with refused("UnsupportedOperation", "192.0.2.0/24"):
        cloud.ec2.create_route(
            RouteTableId=main["RouteTableId"], DestinationCidrBlock="192.0.2.0/24",
            GatewayId=gateway,
        )  # fmt: skip


# Groups


@pytest.mark.row("Networks")
def test_the_default_group_lets_its_members_talk(cloud: Cloud) -> None:
    filters: Any = [
        {"Name": "vpc-id", "Values": [cloud.vpc_id]},
        {"Name": "group-name", "Values": ["default"]},
    ]
    (group,) = cloud.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]]


@pytest.mark.row("DependencyViolation")
def test_a_group_that_an_eni_has_is_not_deleted(cloud: Cloud) -> None:
    group_id = cloud.ec2.create_security_group(
        GroupName="held", Description="d", VpcId=cloud.vpc_id
    )["GroupId"]
    eni_id = cloud.create(cloud.subnet()[0], Groups=[group_id])
    with refused("DependencyViolation", group_id):
        cloud.ec2.delete_security_group(GroupId=group_id)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    cloud.ec2.delete_security_group(GroupId=group_id)


# Answers in pages


@pytest.mark.row(
    "DescribeSubnets", "DescribeInstanceTypes", "Networks", "DescribeNetworkInterfaces"
)
@pytest.mark.parametrize(
    ("action", "key"),
    [
        ("describe_subnets", "Subnets"),
        ("describe_instance_types", "InstanceTypes"),
        ("describe_security_groups", "SecurityGroups"),
        ("describe_network_interfaces", "NetworkInterfaces"),
    ],
)
def test_every_page_holds_what_it_may_and_nothing_twice(
    cloud: Cloud, action: str, key: str
) -> None:
    for _ in range(6):
        cloud.create(cloud.subnet()[0])
    pages = cloud.ec2.get_paginator(action).paginate(PaginationConfig={"PageSize": 5})  # type: ignore[call-overload]
    sizes, seen = [], []
    for number, page in zip(range(4), pages, strict=False):
        sizes.append(len(page[key]))
        seen += [repr(item) for item in page[key]]
        assert number == 0 or sizes[number - 1] == 5
    assert len(set(seen)) == len(seen)
    assert sizes[0] == 5 or key == "SecurityGroups"


@pytest.mark.row("ModifyNetworkInterfaceAttribute")
def test_one_attribute_is_modified_a_call(cloud: Cloud) -> None:
    with refused("InvalidParameterCombination", "2 came"):
        cloud.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=cloud.create(cloud.subnet()[0]),
            SourceDestCheck={"Value": False},
            Description={"Value": "d"},
        )


@pytest.mark.row("AssignPrivateIpAddresses")
def test_an_address_moves_when_the_caller_says_so(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    one, other = cloud.create(subnet_id, 1), cloud.create(subnet_id)
    address = str(cloud.addresses(one)[1])
    with refused("InvalidIPAddress.InUse", address):
        cloud.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=other, PrivateIpAddresses=[address]
        )
    cloud.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=other, PrivateIpAddresses=[address], AllowReassignment=True
    )
    assert (len(cloud.addresses(one)), str(cloud.addresses(other)[1])) == (1, address)


@pytest.mark.row("DetachNetworkInterface")
def test_force_detaches_at_once(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id)
    attachment_id = cloud.attach(eni_id, cloud.instance(subnet_id))
    with cloud.slow():
        cloud.ec2.detach_network_interface(AttachmentId=attachment_id)
        assert cloud.eni(eni_id)["Status"] == "detaching"
        cloud.ec2.detach_network_interface(AttachmentId=attachment_id, Force=True)
        assert cloud.eni(eni_id)["Status"] == "available"


@pytest.mark.row("Malformed calls")
def test_every_action_that_is_not_modelled_says_so(cloud: Cloud) -> None:
    for action, wish in (
        ("describe_images", {}),
        ("describe_volumes", {}),
        ("create_key_pair", {"KeyName": "k"}),
    ):
        with refused("UnsupportedOperation", action.title().replace("_", "")):
            getattr(cloud.ec2, action)(**wish)
