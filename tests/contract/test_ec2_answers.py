"""What the embedded EC2 tells: the fields, filters and pages that CNIs read."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Any

import pytest

from tests.contract.cloud import Cloud, refused


def filters(**wanted: str) -> Any:
    return [{"Name": n.replace("__", ".").replace("_", "-"), "Values": [v]}
            for n, v in wanted.items()]  # fmt: skip


@pytest.fixture(scope="module")
def node(cloud: Cloud) -> dict[str, str]:
    """An instance with a second ENI, tagged as the AWS VPC CNI and Cilium tag."""
    subnet_id, _ = cloud.subnet()
    instance_id = cloud.instance(subnet_id)
    tags = [
        {"Key": "cluster.k8s.amazonaws.com/name", "Value": "prod"},
        {"Key": "node.k8s.amazonaws.com/instance_id", "Value": instance_id},
    ]
    eni_id = cloud.create(
        subnet_id, 2, Description=f"aws-K8S-{instance_id}",
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )  # fmt: skip
    cloud.attach(eni_id, instance_id)
    cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, Ipv4PrefixCount=1)
    return {"instance": instance_id, "eni": eni_id, "subnet": subnet_id}


def instance(cloud: Cloud, instance_id: str) -> Any:
    (reservation,) = cloud.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    (found,) = reservation["Instances"]
    return found


# An ENI


@pytest.mark.row("CreateNetworkInterface")
def test_a_new_eni_is_pending_in_its_own_answer_and_available_in_the_next(cloud: Cloud) -> None:
    made = cloud.ec2.create_network_interface(SubnetId=cloud.subnet()[0])["NetworkInterface"]
    assert (made["Status"], cloud.eni(made["NetworkInterfaceId"])["Status"]) == (
        "pending",
        "available",
    )


@pytest.mark.row("DescribeNetworkInterfaces")
def test_an_eni_without_a_public_address_has_no_association(cloud: Cloud) -> None:
    eni = cloud.eni(cloud.create(cloud.subnet()[0]))
    assert "Association" not in eni
    assert "Association" not in eni["PrivateIpAddresses"][0]


@pytest.mark.row("DescribeNetworkInterfaces", "AttachNetworkInterface")
def test_an_eni_tells_what_cnis_read(cloud: Cloud, node: dict[str, str]) -> None:
    eni = cloud.eni(node["eni"])
    address = eni["PrivateIpAddress"]
    name = f"ip-{address.replace('.', '-')}.ec2.internal"
    assert (eni["PrivateDnsName"], eni["PrivateIpAddresses"][0]["PrivateDnsName"]) == (name, name)
    assert (eni["AvailabilityZone"], eni["AvailabilityZoneId"]) == ("us-east-1a", "use1-az6")
    assert (eni["OwnerId"], eni["VpcId"], eni["RequesterManaged"]) == (
        "123456789012", cloud.vpc_id, False,
    )  # fmt: skip
    assert eni["Attachment"].keys() == {
        "AttachTime", "AttachmentId", "DeleteOnTermination", "DeviceIndex", "NetworkCardIndex",
        "InstanceId", "InstanceOwnerId", "Status",
    }  # fmt: skip
    assert [group["GroupName"] for group in eni["Groups"]] == ["default"]


@pytest.mark.row("DescribeNetworkInterfaces")
@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"tag:cluster.k8s.amazonaws.com/name": "prod"}, id="cluster"),
        pytest.param({"tag:node.k8s.amazonaws.com/instance_id": "INSTANCE", "status": "in-use",
                      "vpc-id": "VPC", "subnet-id": "SUBNET"}, id="node"),
        pytest.param({"attachment.instance-id": "INSTANCE", "attachment.device-index": "1"},
                     id="attached"),
        pytest.param({"description": "aws-K8S-*", "tag-key": "cluster.k8s.amazonaws.com/*"},
                     id="wildcards"),
        pytest.param({"attachment.attach-time": "20*", "operator.managed": "false",
                      "private-dns-name": "ip-10-*.ec2.internal", "tag-key": "cluster*"}, id="names"),
    ],
)  # fmt: skip
def test_an_eni_is_found_as_cnis_look_for_it(
    cloud: Cloud, node: dict[str, str], wanted: dict[str, str]
) -> None:
    names = {"INSTANCE": node["instance"], "VPC": cloud.vpc_id, "SUBNET": node["subnet"]}
    found = cloud.found(*((name, names.get(value, value)) for name, value in wanted.items()))
    assert found == [node["eni"]]


@pytest.mark.row("CreateNetworkInterface", "ModifyNetworkInterfaceAttribute")
def test_how_long_connections_are_tracked_is_kept(cloud: Cloud) -> None:
    eni_id = cloud.create(
        cloud.subnet()[0], ConnectionTrackingSpecification={"TcpEstablishedTimeout": 600}
    )
    assert cloud.eni(eni_id)["ConnectionTrackingConfiguration"] == {"TcpEstablishedTimeout": 600}
    cloud.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni_id, ConnectionTrackingSpecification={"UdpTimeout": 30}
    )
    assert cloud.eni(eni_id)["ConnectionTrackingConfiguration"] == {"UdpTimeout": 30}


@pytest.mark.row("AssignPrivateIpAddresses")
def test_too_few_addresses_for_a_prefix_is_another_error_than_too_many_holes(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(28)
    eni_id = cloud.create(subnet_id)
    with refused("InvalidParameterValue", "There aren't sufficient free Ipv4 addresses or prefix"):
        cloud.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, Ipv4PrefixCount=1)


# An instance


@pytest.mark.row("DescribeInstances", "RunInstances")
def test_an_instance_tells_what_cnis_read(cloud: Cloud, node: dict[str, str]) -> None:
    found = instance(cloud, node["instance"])
    assert "StateReason" not in found
    assert (found["State"]["Name"], found["PlatformDetails"]) == ("running", "Linux/UNIX")
    assert found["Hypervisor"] == "xen"  # of Nitro, too: the API's reference says so
    assert [group["GroupName"] for group in found["SecurityGroups"]] == ["default"]
    first, second = found["NetworkInterfaces"]
    assert (first["Attachment"]["DeviceIndex"], second["Attachment"]["DeviceIndex"]) == (0, 1)
    assert second["Attachment"]["NetworkCardIndex"] == 0
    assert second["Ipv4Prefixes"] == cloud.eni(node["eni"])["Ipv4Prefixes"]
    assert second["PrivateIpAddresses"] == cloud.eni(node["eni"])["PrivateIpAddresses"]


@pytest.mark.row("DescribeInstances")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("instance-state-name", "running"),
        ("instance-type", "m5.*"),
        ("network-interface.addresses.private-ip-address", "ADDRESS"),
        ("network-interface.attachment.device-index", "1"),
        ("network-interface.network-interface-id", "ENI"),
        ("network-interface.tag-key", "cluster.k8s.amazonaws.com/name"),
        ("network-interface.vpc-id", "VPC"),
        ("private-dns-name", "ip-10-0-*"),
        ("subnet-id", "SUBNET"),
        ("vpc-id", "VPC"),
    ],
)
def test_an_instance_is_found_as_cnis_look_for_it(
    cloud: Cloud, node: dict[str, str], name: str, value: str
) -> None:
    names = {
        "ADDRESS": str(cloud.addresses(node["eni"])[1]), "ENI": node["eni"], "VPC": cloud.vpc_id,
        "SUBNET": node["subnet"],
    }  # fmt: skip

    def found(value: str) -> set[str]:
        wanted: Any = [{"Name": name, "Values": [value]},
                       {"Name": "instance-id", "Values": [node["instance"]]}]  # fmt: skip
        listed = cloud.ec2.describe_instances(Filters=wanted)["Reservations"]
        return {i["InstanceId"] for r in listed for i in r["Instances"]}

    assert (found(names.get(value, value)), found("nothing")) == ({node["instance"]}, set())


@pytest.mark.row("DescribeInstances")
def test_instances_come_in_pages_and_one_by_one(cloud: Cloud) -> None:
    made = {cloud.instance(cloud.subnet()[0]) for _ in range(6)}
    pages = cloud.ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})
    found = [[i["InstanceId"] for r in page["Reservations"] for i in r["Instances"]]
             for page in pages]  # fmt: skip
    assert len(found[0]) == 5
    assert made <= {instance_id for page in found for instance_id in page}
    with refused("InvalidInstanceID.NotFound"):
        instance(cloud, "i-0123456789abcdef0")
    with refused("InvalidParameterCombination", "reservationSet"):
        cloud.ec2.describe_instances(InstanceIds=list(made), MaxResults=5)


@pytest.mark.row("RunInstances")
def test_every_eni_an_instance_is_born_with_has_its_addresses(cloud: Cloud) -> None:
    subnet_id, cidr = cloud.subnet()
    first: Any = {"DeviceIndex": 0, "SubnetId": subnet_id, "SecondaryPrivateIpAddressCount": 1}
    second: Any = {
        "DeviceIndex": 1, "SubnetId": subnet_id, "DeleteOnTermination": False,
        "PrivateIpAddresses": [{"PrivateIpAddress": str(cidr[99]), "Primary": True}],
    }  # fmt: skip
    made = cloud.ec2.run_instances(
        ImageId="ami-760aaa0f", InstanceType="m5.large", MinCount=1, MaxCount=1,
        NetworkInterfaces=[first, second],
    )["Instances"][0]["NetworkInterfaces"]  # fmt: skip
    assert [len(eni["PrivateIpAddresses"]) for eni in made] == [2, 1]
    assert made[1]["PrivateIpAddress"] == str(cidr[99])
    assert [eni["Attachment"]["DeleteOnTermination"] for eni in made] == [True, False]


@pytest.mark.row("RunInstances")
def test_as_many_instances_as_wanted_and_once_a_token(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    wish: Any = {"ImageId": "ami-760aaa0f", "InstanceType": "m5.large", "SubnetId": subnet_id,
                 "MinCount": 1, "MaxCount": 3, "ClientToken": "thrice"}  # fmt: skip
    made = [
        [i["InstanceId"] for i in cloud.ec2.run_instances(**wish)["Instances"]] for _ in range(2)
    ]
    assert (len(made[0]), made[0]) == (3, made[1])
    with refused("IdempotentParameterMismatch", "thrice"):
        cloud.ec2.run_instances(**{**wish, "MaxCount": 2})


@pytest.mark.row("RunInstances", "DescribeSubnets")
def test_a_launch_that_fails_half_way_leaves_nothing(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(28)
    cloud.create(subnet_id, 8)
    free = cloud.free(subnet_id)
    with refused("InsufficientFreeAddressesInSubnet"):
        cloud.ec2.run_instances(
            ImageId="ami-760aaa0f", InstanceType="m5.large", SubnetId=subnet_id, MinCount=1,
            MaxCount=4,
        )  # fmt: skip
    assert (cloud.free(subnet_id), len(cloud.found(("subnet-id", subnet_id)))) == (free, 1)
    listed = cloud.ec2.describe_instances(Filters=filters(subnet_id=subnet_id))
    assert listed["Reservations"] == []


@pytest.mark.row("RunInstances")
def test_who_names_no_subnet_is_launched_in_the_default_one(cloud: Cloud) -> None:
    made = cloud.ec2.run_instances(
        ImageId="ami-760aaa0f", InstanceType="t3.small", MinCount=1, MaxCount=1
    )["Instances"][0]
    (subnet,) = cloud.ec2.describe_subnets(SubnetIds=[made["SubnetId"]])["Subnets"]
    assert (subnet["DefaultForAz"], made["PrivateIpAddress"][:7]) == (True, "172.31.")


@pytest.mark.row("RunInstances")
def test_an_instance_is_not_born_with_more_than_its_type_takes(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    specs: Any = [{"DeviceIndex": n, "SubnetId": subnet_id} for n in range(4)]
    with refused("AttachmentLimitExceeded", "Interface count 4 exceeds the limit for m5.large"):
        cloud.ec2.run_instances(
            ImageId="ami-760aaa0f", InstanceType="m5.large", MinCount=1, MaxCount=1,
            NetworkInterfaces=specs,
        )  # fmt: skip
    with refused("UnsupportedOperation", "NetworkInterfaceId of RunInstances"):
        cloud.ec2.run_instances(
            ImageId="ami-760aaa0f", InstanceType="m5.large", MinCount=1, MaxCount=1,
            NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": cloud.create(subnet_id)}],
        )  # fmt: skip


@pytest.mark.row("ModifyNetworkInterfaceAttribute", "DescribeInstances")
def test_an_instance_s_groups_are_those_of_its_first_eni(cloud: Cloud) -> None:
    instance_id = cloud.instance(cloud.subnet()[0])
    group_id = cloud.ec2.create_security_group(
        GroupName="first", Description="d", VpcId=cloud.vpc_id
    )["GroupId"]
    (eni_id,) = cloud.found(("attachment.instance-id", instance_id))
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni_id, Groups=[group_id])
    groups = instance(cloud, instance_id)["SecurityGroups"]
    assert [group["GroupId"] for group in groups] == [group_id]


# What surrounds them


@pytest.mark.row("Networks", "DescribeSubnets")
def test_networks_are_found_as_cnis_look_for_them(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(zone="us-east-1b")
    cloud.ec2.create_tags(
        Resources=[subnet_id], Tags=[{"Key": "kubernetes.io/role/cni", "Value": "1"}]
    )
    wanted: Any = [
        {"Name": "vpc-id", "Values": [cloud.vpc_id]},
        {"Name": "availability-zone", "Values": ["us-east-1b"]},
        {"Name": "tag-key", "Values": ["kubernetes.io/role/cni"]},
        {"Name": "tag:kubernetes.io/role/cni", "Values": ["1", "2"]},
    ]
    (found,) = cloud.ec2.describe_subnets(Filters=wanted)["Subnets"]
    assert (found["SubnetId"], found["AvailabilityZoneId"]) == (subnet_id, "use1-az1")
    (vpc,) = cloud.ec2.describe_vpcs(Filters=filters(vpc_id=cloud.vpc_id))["Vpcs"]
    (first,) = vpc["CidrBlockAssociationSet"]
    assert (first["CidrBlock"], first["CidrBlockState"]) == ("10.0.0.0/16", {"State": "associated"})
    (table,) = cloud.ec2.describe_route_tables(
        Filters=filters(vpc_id=cloud.vpc_id, association__main="true")
    )["RouteTables"]
    assert table["Associations"][0]["Main"] is True
    (group,) = cloud.ec2.describe_security_groups(
        Filters=filters(vpc_id=cloud.vpc_id, group_name="default")
    )["SecurityGroups"]
    assert group["OwnerId"] == "123456789012"


@pytest.mark.row("Networks")
@pytest.mark.parametrize(
    ("resource", "code"),
    [
        ("eni-0123456789abcdef0", "InvalidNetworkInterfaceID.NotFound"),
        ("i-0123456789abcdef0", "InvalidInstanceID.NotFound"),
        ("subnet-0123456789abcdef0", "InvalidSubnetID.NotFound"),
        ("sg-0123456789abcdef0", "InvalidGroup.NotFound"),
    ],
)
def test_what_is_not_there_is_not_tagged(cloud: Cloud, resource: str, code: str) -> None:
    with refused(code, resource):
        cloud.ec2.create_tags(Resources=[resource], Tags=[{"Key": "k", "Value": "v"}])


@pytest.mark.row("Networks", "CreateNetworkInterface", "RunInstances")
def test_tags_are_such_as_may_be(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id)
    cloud.ec2.create_tags(Resources=[eni_id], Tags=[{"Key": "bare"}])
    assert cloud.eni(eni_id)["TagSet"] == [{"Key": "bare", "Value": ""}]
    with refused("InvalidParameterValue", "'aws:' are reserved"):
        cloud.ec2.create_tags(Resources=[eni_id], Tags=[{"Key": "aws:mine", "Value": "v"}])
    tags: Any = [{"Key": "owner", "Value": "group"}]
    with refused("InvalidParameterValue", "'subnet' is not a valid taggable resource type"):
        cloud.create(subnet_id, TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}])
    made = cloud.ec2.run_instances(
        ImageId="ami-760aaa0f", InstanceType="m5.large", SubnetId=subnet_id, MinCount=1, MaxCount=1,
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )["Instances"][0]  # fmt: skip
    assert cloud.found(("tag:owner", "group")) == [
        eni["NetworkInterfaceId"] for eni in made["NetworkInterfaces"]
    ]


@pytest.mark.row("Networks")
@pytest.mark.parametrize(
    ("action", "key"),
    [("describe_vpcs", "Vpcs"), ("describe_route_tables", "RouteTables"),
     ("describe_security_group_rules", "SecurityGroupRules")],
)  # fmt: skip
def test_what_there_is_few_of_comes_in_pages_too(cloud: Cloud, action: str, key: str) -> None:
    for n in range(20, 26):
        cloud.ec2.create_vpc(CidrBlock=f"10.{n}.0.0/16")
    ask: Any = getattr(cloud.ec2, action)
    first = ask(MaxResults=5)
    rest = ask(MaxResults=100, NextToken=first["NextToken"])
    assert len(first[key]) == 5
    assert len(first[key] + rest[key]) == len(ask()[key])
    for vpc in cloud.ec2.describe_vpcs(Filters=filters(cidr="10.2?.0.0/16"))["Vpcs"]:
        cloud.ec2.delete_vpc(VpcId=vpc["VpcId"])


@pytest.mark.row("DescribeInstanceTypes")
def test_types_come_a_hundred_at_once_where_no_size_is_named(cloud: Cloud) -> None:
    page = cloud.ec2.describe_instance_types()
    assert (len(page["InstanceTypes"]), "NextToken" in page) == (100, True)
    wanted: Any = [{"Name": "instance-type", "Values": ["m5.*large"]}]
    found = cloud.ec2.describe_instance_types(Filters=wanted)["InstanceTypes"]
    assert {"m5.large", "m5.24xlarge"} <= {kind["InstanceType"] for kind in found}
    with refused("InvalidInstanceType", "m99.large"):
        cloud.ec2.describe_instance_types(InstanceTypes=["m99.large"])  # type: ignore[list-item]


@pytest.mark.row("DependencyViolation")
def test_what_something_depends_on_stays(cloud: Cloud) -> None:
    ec2 = cloud.ec2
    vpc_id = ec2.create_vpc(CidrBlock="10.30.0.0/16")["Vpc"]["VpcId"]
    subnet_id = ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.30.0.0/24")["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc_id)
    eni_id, allocation = cloud.create(subnet_id), ec2.allocate_address(Domain="vpc")["AllocationId"]
    made = ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=eni_id)
    with refused("DependencyViolation", f"Network {vpc_id} has some mapped public address(es)"):
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc_id)
    ec2.disassociate_address(AssociationId=made["AssociationId"])
    with refused("InvalidAssociationID.NotFound", made["AssociationId"]):
        ec2.disassociate_address(AssociationId=made["AssociationId"])
    ec2.release_address(AllocationId=allocation)
    ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    ec2.delete_subnet(SubnetId=subnet_id)
    with refused("DependencyViolation", vpc_id):
        ec2.delete_vpc(VpcId=vpc_id)
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc_id)
    ec2.delete_vpc(VpcId=vpc_id)


@pytest.mark.row("DescribeSubnets")
def test_an_ipv6_reservation_is_one_of_the_subnet_s(cloud: Cloud) -> None:
    vpc = cloud.ec2.create_vpc(CidrBlock="10.31.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    outer = IPv6Network(vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
    cidr6 = next(outer.subnets(new_prefix=64))
    subnet_id = cloud.ec2.create_subnet(
        VpcId=vpc["VpcId"], CidrBlock="10.31.0.0/24", Ipv6CidrBlock=str(cidr6)
    )["Subnet"]["SubnetId"]
    reserved = str(IPv6Network((int(cidr6.network_address) + (7 << 48), 80)))
    cloud.ec2.create_subnet_cidr_reservation(
        SubnetId=subnet_id, Cidr=reserved, ReservationType="prefix"
    )
    listed = cloud.ec2.get_subnet_cidr_reservations(SubnetId=subnet_id)
    assert [r["Cidr"] for r in listed["SubnetIpv6CidrReservations"]] == [reserved]
    eni = cloud.eni(cloud.create(subnet_id, Ipv6PrefixCount=1))
    assert eni["Ipv6Prefixes"] == [{"Ipv6Prefix": reserved}]
