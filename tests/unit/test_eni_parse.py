"""EC2's answers, as botocore hands them over, become values."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import pytest

from eni import parse
from eni.limits import InstanceLimits
from eni.model import (
    Attachment,
    AttachmentId,
    AttachmentStatus,
    Eni,
    EniId,
    InstanceId,
    SecurityGroupId,
    Subnet,
    SubnetId,
    VpcId,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        InstanceTypeInfoTypeDef,
        NetworkInterfaceTypeDef,
        SubnetTypeDef,
    )

ENI: NetworkInterfaceTypeDef = {
    "NetworkInterfaceId": "eni-1",
    "MacAddress": "0A:1b:2c:3d:4e:5f",
    "SubnetId": "subnet-1",
    "Status": "in-use",
    "Description": "aws-K8S-i-1",
    "InterfaceType": "interface",
    "PrivateIpAddress": "10.0.0.4",
    "PrivateIpAddresses": [
        {"Primary": True, "PrivateIpAddress": "10.0.0.4"},
        {"Primary": False, "PrivateIpAddress": "10.0.0.5"},
    ],
    "Ipv6Addresses": [{"Ipv6Address": "fd00::5"}],
    "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.0.16/28"}],
    "Ipv6Prefixes": [{"Ipv6Prefix": "fd00:0:0:0:1::/80"}],
    "Groups": [{"GroupId": "sg-1", "GroupName": "nodes"}],
    "TagSet": [{"Key": "enid.dev/intent", "Value": "t1"}],
    "Attachment": {
        "AttachmentId": "eni-attach-1",
        "InstanceId": "i-1",
        "DeviceIndex": 1,
        "NetworkCardIndex": 0,
        "Status": "attached",
        "DeleteOnTermination": True,
    },
}


def test_an_eni_in_full() -> None:
    assert parse.eni(ENI) == Eni(
        id=EniId("eni-1"),
        mac="0a:1b:2c:3d:4e:5f",
        subnet_id=SubnetId("subnet-1"),
        status="in-use",
        description="aws-K8S-i-1",
        interface_type="interface",
        primary=IPv4Address("10.0.0.4"),
        secondary=(IPv4Address("10.0.0.5"),),
        ipv6=(IPv6Address("fd00::5"),),
        prefixes=(IPv4Network("10.0.0.16/28"), IPv6Network("fd00:0:0:0:1::/80")),
        security_groups=(SecurityGroupId("sg-1"),),
        tags={"enid.dev/intent": "t1"},
        attachment=Attachment(
            id=AttachmentId("eni-attach-1"),
            instance_id=InstanceId("i-1"),
            device_index=1,
            network_card=0,
            status=AttachmentStatus.ATTACHED,
            delete_on_termination=True,
        ),
    )


def test_an_efa_only_eni_has_no_address_but_a_place() -> None:
    raw: NetworkInterfaceTypeDef = {
        "NetworkInterfaceId": "eni-2",
        "MacAddress": "0a:00:00:00:00:02",
        "SubnetId": "subnet-1",
        "Status": "in-use",
        "InterfaceType": "efa-only",
        "Attachment": ENI["Attachment"],
    }
    eni = parse.eni(raw)
    assert eni.primary is None
    assert eni.attachment is not None


def test_an_eni_of_an_aws_service_is_on_no_instance() -> None:
    raw: NetworkInterfaceTypeDef = {
        **ENI,
        "Attachment": {
            "AttachmentId": "ela-attach-1",
            "DeviceIndex": 1,
            "Status": "attached",
            "DeleteOnTermination": False,
        },
    }
    attachment = parse.eni(raw).attachment
    assert attachment is not None
    assert attachment.instance_id == ""


def test_an_eni_can_be_a_key() -> None:
    assert len({parse.eni(ENI), parse.eni(ENI)}) == 1


@pytest.mark.parametrize("field", ["NetworkInterfaceId", "MacAddress", "SubnetId", "Status"])
def test_half_an_eni_is_none(field: str) -> None:
    raw = ENI.copy()
    del raw[field]  # type: ignore[misc] # the point is a field that is not there
    with pytest.raises(KeyError):
        parse.eni(raw)


def test_a_subnet_keeps_the_ipv6_cidrs_that_are_in_use() -> None:
    raw: SubnetTypeDef = {
        "SubnetId": "subnet-1",
        "VpcId": "vpc-1",
        "CidrBlock": "10.0.0.0/24",
        "AvailabilityZone": "us-east-1a",
        "AvailableIpAddressCount": 250,
        "Tags": [{"Key": "kubernetes.io/role/cni", "Value": "1"}],
        "Ipv6CidrBlockAssociationSet": [
            {"Ipv6CidrBlock": "fd00:1::/64", "Ipv6CidrBlockState": {"State": "associated"}},
            {"Ipv6CidrBlock": "fd00:2::/64", "Ipv6CidrBlockState": {"State": "disassociated"}},
        ],
    }
    assert parse.subnet(raw) == Subnet(
        id=SubnetId("subnet-1"),
        vpc_id=VpcId("vpc-1"),
        cidr=IPv4Network("10.0.0.0/24"),
        ipv6_cidrs=(IPv6Network("fd00:1::/64"),),
        availability_zone="us-east-1a",
        available=250,
        tags={"kubernetes.io/role/cni": "1"},
    )


TYPE: InstanceTypeInfoTypeDef = {
    "InstanceType": "m6in.32xlarge",
    "Hypervisor": "nitro",
    "BareMetal": False,
    "VCpuInfo": {"DefaultVCpus": 128},
    "NetworkInfo": {
        "MaximumNetworkInterfaces": 16,
        "DefaultNetworkCardIndex": 0,
        "NetworkCards": [
            {"NetworkCardIndex": 1, "MaximumNetworkInterfaces": 9},
            {"NetworkCardIndex": 0, "MaximumNetworkInterfaces": 7},
        ],
        "Ipv4AddressesPerInterface": 50,
        "Ipv6AddressesPerInterface": 40,
    },
}


def test_limits_are_the_default_cards() -> None:
    assert parse.limits(TYPE) == InstanceLimits(
        instance_type="m6in.32xlarge",
        enis=7,
        ipv4_per_eni=50,
        ipv6_per_eni=40,
        cards=((0, 7), (1, 9)),
        hypervisor="nitro",
        bare_metal=False,
        vcpus=128,
    )


def test_bare_metal_has_no_hypervisor() -> None:
    raw = TYPE.copy()
    del raw["Hypervisor"]
    raw["BareMetal"] = True
    assert (parse.limits(raw).hypervisor, parse.limits(raw).bare_metal) == ("", True)


def test_a_word_for_an_attachment_that_is_new_spoils_no_answer() -> None:
    assert AttachmentStatus("levitating") is AttachmentStatus.OTHER
