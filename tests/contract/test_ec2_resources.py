"""What a call is about: the resources that IAM is asked about, and what it may ask of each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.cloud import REGION, Cloud
from vpclab.ec2 import ACCOUNT, MODELLED
from vpclab.ec2.resources import ABOUT, asks

pytestmark = pytest.mark.row("IAM")

ARN = f"arn:aws:ec2:{REGION}:{ACCOUNT}"


def test_every_changing_action_says_what_it_is_about() -> None:
    changing = {a for a in MODELLED if not a.startswith(("Describe", "Get"))}
    assert set(ABOUT) - {"DescribeVpcAttribute"} == changing
    assert set(ABOUT) <= MODELLED


class Known:
    """Ids of one of everything."""

    def __init__(self, cloud: Cloud) -> None:
        ec2 = cloud.ec2
        self.vpc = cloud.vpc_id
        self.subnet, _ = cloud.subnet()
        self.instance = cloud.instance(self.subnet)
        self.eni = cloud.create(self.subnet)
        (self.born,) = cloud.found(("attachment.instance-id", self.instance))
        self.born_attachment = cloud.eni(self.born)["Attachment"]["AttachmentId"]
        self.group = cloud.eni(self.eni)["Groups"][0]["GroupId"]
        self.table = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        self.table_association = ec2.associate_route_table(
            RouteTableId=self.table, SubnetId=self.subnet
        )["AssociationId"]
        self.eip = ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.eip_association = ec2.associate_address(
            AllocationId=self.eip, NetworkInterfaceId=self.eni
        )["AssociationId"]
        (cidr,) = ec2.describe_vpcs(VpcIds=[self.vpc])["Vpcs"][0]["CidrBlockAssociationSet"]
        self.cidr_association = cidr["AssociationId"]
        other = ec2.allocate_address(Domain="vpc")["AllocationId"]
        self.nat = ec2.create_nat_gateway(SubnetId=self.subnet, AllocationId=other)["NatGateway"][
            "NatGatewayId"
        ]


@pytest.fixture(scope="module")
def known(cloud: Cloud) -> Known:
    return Known(cloud)


NEW = [{"ResourceType": "network-interface", "Tags": [{"Key": "a", "Value": "b"}]}]


@pytest.mark.parametrize(
    ("action", "parameters", "about"),
    [
        ("DescribeInstances", {"InstanceIds": ["{instance}"]}, [("ec2:DescribeInstances", "*")]),
        ("AssociateTrunkInterface", {}, [("ec2:AssociateTrunkInterface", "*")]),
        (
            "CreateNetworkInterface",
            {"SubnetId": "{subnet}", "Groups": ["{group}"]},
            [("", "subnet/{subnet}"), ("", "security-group/{group}"), ("", "network-interface/*")],
        ),
        (
            "CreateNetworkInterface",
            {"SubnetId": "{subnet}", "TagSpecifications": NEW},
            [
                ("", "subnet/{subnet}"),
                ("", "network-interface/*"),
                ("ec2:CreateTags", "network-interface/*"),
            ],
        ),
        (
            "AttachNetworkInterface",
            {"NetworkInterfaceId": "{eni}", "InstanceId": "{instance}"},
            [("", "instance/{instance}"), ("", "network-interface/{eni}")],
        ),
        (
            "DetachNetworkInterface",
            {"AttachmentId": "{born_attachment}"},
            [("", "instance/{instance}"), ("", "network-interface/{born}")],
        ),
        (
            "ModifyNetworkInterfaceAttribute",
            {"NetworkInterfaceId": "{born}", "Attachment": {"AttachmentId": "{born_attachment}"}},
            [("", "network-interface/{born}"), ("", "instance/{instance}")],
        ),
        (
            "ModifyNetworkInterfaceAttribute",
            {"NetworkInterfaceId": "{eni}", "Groups": ["{group}"]},
            [("", "network-interface/{eni}"), ("", "security-group/{group}")],
        ),
        (
            "CreateTags",
            {"Resources": ["{eni}", "{vpc}"], "Tags": [{"Key": "a", "Value": "b"}]},
            [("", "network-interface/{eni}"), ("", "vpc/{vpc}")],
        ),
        (
            "DisassociateAddress",
            {"AssociationId": "{eip_association}"},
            [("", "elastic-ip/{eip}"), ("", "network-interface/{eni}")],
        ),
        (
            "DisassociateRouteTable",
            {"AssociationId": "{table_association}"},
            [("", "route-table/{table}"), ("", "subnet/{subnet}")],
        ),
        ("DisassociateVpcCidrBlock", {"AssociationId": "{cidr_association}"}, [("", "vpc/{vpc}")]),
        (
            "CreateNatGateway",
            {"AllocationId": "{eip}", "SubnetId": "{subnet}"},
            [("", "elastic-ip/{eip}"), ("", "subnet/{subnet}"), ("", "natgateway/*")],
        ),
        ("DeleteNatGateway", {"NatGatewayId": "{nat}"}, [("", "natgateway/{nat}")]),
        (
            "AuthorizeSecurityGroupIngress",
            {
                "GroupId": "{group}",
                "TagSpecifications": [
                    {"ResourceType": "security-group-rule", "Tags": [{"Key": "a", "Value": "b"}]}
                ],
            },
            [("", "security-group/{group}"), ("ec2:CreateTags", "security-group-rule/*")],
        ),
        ("CreateRoute", {"RouteTableId": "{table}"}, [("", "route-table/{table}")]),
        ("CreateSubnet", {"VpcId": "{vpc}"}, [("", "vpc/{vpc}"), ("", "subnet/*")]),
        (
            "RunInstances",
            {
                "InstanceType": "m5.large",
                "NetworkInterfaces": [{"SubnetId": "{subnet}", "Groups": ["{group}"]}],
            },
            [
                ("", "subnet/{subnet}"),
                ("", "security-group/{group}"),
                ("", "instance/*"),
                ("", "network-interface/*"),
                ("", "volume/*"),
            ],
        ),
        ("DetachNetworkInterface", {"AttachmentId": "eni-attach-0"}, [("", "*")]),
    ],
)  # fmt: skip
def test_a_call_is_about_its_resources(
    cloud: Cloud, known: Known, action: str, parameters: dict[str, Any], about: list[Any]
) -> None:
    filled = _filled(parameters, known)
    found = [(a.action, a.resource) for a in asks(cloud.plane.backend, action, filled, {})]
    wanted = [
        (name or f"ec2:{action}", what if what == "*" else f"{ARN}:{what.format(**vars(known))}")
        for name, what in about
    ]
    assert found == wanted


def _filled(value: Any, known: Known) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, known) for inner in value]
    return value.format(**vars(known))


def test_an_image_is_nobodys(cloud: Cloud) -> None:
    first, *_ = asks(cloud.plane.backend, "RunInstances", {"ImageId": "ami-1"}, {})
    assert first.resource == f"arn:aws:ec2:{REGION}::image/ami-1"


@pytest.mark.parametrize(
    ("action", "parameters", "which", "keys"),
    [
        pytest.param(
            "DeleteNetworkInterface", {"NetworkInterfaceId": "{eni}"}, 0,
            {
                "ec2:Subnet": "{ARN}:subnet/{subnet}", "ec2:Vpc": "{ARN}:vpc/{vpc}",
                "ec2:AvailabilityZone": "us-east-1a", "ec2:NetworkInterfaceID": "{eni}",
                "aws:ARN": "{ARN}:network-interface/{eni}",
                "ec2:ARN": "{ARN}:network-interface/{eni}",
                "aws:ResourceTag/team": "red", "ec2:ResourceTag/team": "red",
                "ec2:Region": REGION, "aws:RequestTag/team": None, "aws:TagKeys": None,
            },
            id="an-eni",
        ),
        pytest.param(
            "CreateNetworkInterface", {"SubnetId": "{subnet}", "TagSpecifications": NEW}, 0,
            {
                "ec2:SubnetID": "{subnet}", "ec2:Vpc": "{ARN}:vpc/{vpc}", "ec2:Subnet": None,
                "aws:RequestTag/a": None,
            },
            id="the-subnet-of-a-new-eni-has-not-its-tags",
        ),
        pytest.param(
            "CreateNetworkInterface", {"SubnetId": "{subnet}", "TagSpecifications": NEW}, 1,
            {
                "aws:RequestTag/a": "b", "aws:TagKeys": "a", "ec2:Subnet": None,
                "ec2:CreateAction": None,
            },
            id="a-new-eni",
        ),
        pytest.param(
            "CreateNetworkInterface", {"SubnetId": "{subnet}", "TagSpecifications": NEW}, 2,
            {
                "aws:RequestTag/a": "b", "aws:TagKeys": "a",
                "ec2:CreateAction": "CreateNetworkInterface",
            },
            id="tags-at-birth",
        ),
        pytest.param(
            "CreateTags", {"Resources": ["{eni}"], "Tags": [{"Key": "a", "Value": "b"}]}, 0,
            {
                "aws:RequestTag/a": "b", "aws:ResourceTag/team": "red", "aws:TagKeys": "a",
                "ec2:CreateAction": None,
            },
            id="tags-later",
        ),
        pytest.param(
            "TerminateInstances", {"InstanceIds": ["{instance}"]}, 0,
            {
                "ec2:InstanceType": "m5.large", "ec2:InstanceID": "{instance}",
                "ec2:AvailabilityZone": "us-east-1a",
            },
            id="an-instance",
        ),
        pytest.param(
            "RunInstances",
            {
                "InstanceType": "m5.large",
                "NetworkInterfaces": [{"SubnetId": "{subnet}", "AssociatePublicIpAddress": "True"}],
            },
            2,
            {
                "ec2:Subnet": "{ARN}:subnet/{subnet}", "ec2:AssociatePublicIpAddress": "true",
                "ec2:InstanceType": None,
            },
            id="the-eni-of-a-new-instance",
        ),
        pytest.param(
            "RunInstances", {"InstanceType": "m5.large", "SubnetId": "{subnet}"}, 1,
            {"ec2:InstanceType": "m5.large", "ec2:AvailabilityZone": "us-east-1a"},
            id="a-new-instance",
        ),
        pytest.param(
            "CreateNatGateway", {"SubnetId": "{subnet}"}, 1, {"ec2:Vpc": None},
            id="a-new-nat-gateway",
        ),
        pytest.param(
            "CreateSubnet", {"VpcId": "{vpc}"}, 1, {"ec2:Vpc": None}, id="a-new-subnet"
        ),
        pytest.param(
            "RunInstances",
            {
                "InstanceType": "m5.large",
                "NetworkInterfaces": [
                    {"AssociatePublicIpAddress": "True"}, {"AssociatePublicIpAddress": "False"},
                ],
            },
            1, {"ec2:AssociatePublicIpAddress": "true"}, id="one-public-eni-of-two",
        ),
        pytest.param(
            "DeleteNatGateway", {"NatGatewayId": "{nat}"}, 0, {"ec2:Vpc": "{ARN}:vpc/{vpc}"},
            id="a-nat-gateway",
        ),
        pytest.param(
            "DeleteSecurityGroup", {"GroupId": "{group}"}, 0,
            {"ec2:Vpc": "{ARN}:vpc/{vpc}", "ec2:SecurityGroupID": "{group}"}, id="a-group",
        ),
        pytest.param(
            "DeleteSecurityGroup", {"GroupId": "sg-0"}, 0,
            {"ec2:Vpc": None, "ec2:SecurityGroupID": "sg-0"}, id="a-group-that-is-not-there",
        ),
        pytest.param(
            "DeleteVpc", {"VpcId": "{vpc}"}, 0, {"ec2:VpcID": "{vpc}", "ec2:Vpc": None}, id="a-vpc"
        ),
        pytest.param(
            "CreateRoute", {"RouteTableId": "{table}"}, 0, {"ec2:Vpc": "{ARN}:vpc/{vpc}"},
            id="a-route-table",
        ),
    ],
)  # fmt: skip
def test_what_iam_may_ask_of_a_resource(
    cloud: Cloud,
    known: Known,
    action: str,
    parameters: dict[str, Any],
    which: int,
    keys: dict[str, str | None],
) -> None:
    cloud.ec2.create_tags(Resources=[known.eni], Tags=[{"Key": "team", "Value": "red"}])
    listed = list(asks(cloud.plane.backend, action, _filled(parameters, known), {}))
    context = listed[which].context
    for key, value in keys.items():
        wanted = None if value is None else (value.format(ARN=ARN, **vars(known)),)
        assert context.get(key.lower()) == wanted, key
