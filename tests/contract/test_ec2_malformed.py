"""The embedded EC2 answers calls that no client of ours would send: with EC2's errors, always."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.session import get_session

from tests.contract.cloud import Cloud
from vpclab.ec2 import MODELLED

pytestmark = pytest.mark.row("Malformed calls")

HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260105/us-east-1/ec2/aws4_request,"
    " SignedHeaders=host, Signature=0",
}

ODD = (
    "", "nonsense", "-1", "0", "99999999999999999999", "eni-0123", "10.0.0.5", "10.0.0.0/28", "::1",
    "2001:db8::/64", "é<&>", "true",
)  # fmt: skip


def call(cloud: Cloud, action: str, **parameters: str) -> tuple[int, str, str]:
    """Return the status of a call as it is on the wire, and the error's code and message."""
    body = urlencode({"Action": action, "Version": "2016-11-15", **parameters})
    connection = HTTPConnection(urlsplit(cloud.ec2.meta.endpoint_url).netloc, timeout=30)
    connection.request("POST", "/", body, HEADERS)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    error = re.search(
        r"<Errors><Error><Code>(.+?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL
    )
    return answer.status, error[1] if error else "", error[2] if error else ""


def leaves(shape: Any, above: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the parameters of a call by their names on the wire, the first item of each list."""
    if shape.type_name == "structure" and depth < 4:
        for name, member in shape.members.items():
            wire = member.serialization.get("queryName") or member.serialization.get("name", name)
            wire = wire[0].upper() + wire[1:]
            yield from leaves(member, f"{above}.{wire}" if above else wire, depth + 1)
    elif shape.type_name == "list" and depth < 4:
        yield from leaves(shape.member, f"{above}.1", depth + 1)
    elif shape.type_name not in {"structure", "list"}:
        yield above


@pytest.fixture(scope="module")
def model() -> Any:
    """botocore's model of EC2; it is large."""
    return get_session().get_service_model("ec2")


@pytest.fixture(scope="module")
def known(cloud: Cloud) -> dict[str, str]:
    """Ids of what is there, by a part of the names of parameters that take them."""
    subnet_id, _ = cloud.subnet()
    instance_id, eni_id = cloud.instance(subnet_id), cloud.create(subnet_id, 2)
    (table,) = cloud.ec2.describe_route_tables(
        Filters=[{"Name": "vpc-id", "Values": [cloud.vpc_id]}]
    )["RouteTables"]
    return {
        "AttachmentId": cloud.attach(eni_id, instance_id),
        "NetworkInterfaceId": eni_id,
        "InstanceId": instance_id,
        "RouteTableId": table["RouteTableId"],
        "SubnetId": subnet_id,
        "VpcId": cloud.vpc_id,
        "ResourceId": eni_id,
        "InstanceType": "m5.large",
        "ImageId": "ami-760aaa0f",
        "Filter.1.Name": "vpc-id",
    }


@pytest.mark.parametrize("action", sorted(MODELLED))
def test_no_call_is_answered_by_anything_but_an_ec2_error(
    cloud: Cloud, model: Any, known: dict[str, str], action: str
) -> None:
    shape = model.operation_model(action).input_shape
    names = [n for n in leaves(shape) if n != "DryRun"]
    chance = random.Random(action)
    calls: list[dict[str, str]] = [{}]
    for _ in range(5):
        chosen = chance.sample(names, min(len(names), chance.randint(1, 4)))
        right = {n: next((v for k, v in known.items() if n.startswith(k)), "") for n in names}
        calls.append(
            {n: v for n, v in right.items() if v and chance.random() < 0.7}
            | {n: chance.choice(ODD) for n in chosen}
        )
    for parameters in calls:
        status, code, message = call(cloud, action, **parameters)
        assert (status < 500, bool(code) == (status != 200)) == (True, True), parameters
        assert parameters or "cannot answer this" not in message


def test_nothing_is_broken_by_what_was_refused(cloud: Cloud, known: dict[str, str]) -> None:
    cloud.ec2.describe_vpcs()
    cloud.ec2.describe_instances()
    assert cloud.eni(known["NetworkInterfaceId"])["SubnetId"] == known["SubnetId"]


@pytest.mark.parametrize(
    ("action", "parameters", "code", "text"),
    [
        ("CreateNetworkInterface", {}, "MissingParameter", "must contain the parameter SubnetId"),
        ("AttachNetworkInterface", {"NetworkInterfaceId": "eni-1", "InstanceId": "i-1"},
         "MissingParameter", "DeviceIndex"),
        ("DescribeNetworkInterfaces", {"MaxResults": "4"}, "InvalidParameterValue",
         "Value ( 4 ) for parameter maxResults is invalid. Expecting a value greater than or"),
        ("DescribeInstanceTypes", {"MaxResults": "101"}, "InvalidParameterValue", "equal to 100."),
        ("DescribeSubnets", {"MaxResults": "many"}, "InvalidParameterValue",
         "Value (many) for parameter MaxResults"),
        ("DescribeVpcs", {"NextToken": "é"}, "InvalidNextToken", "'é'"),
        ("AssociateVpcCidrBlock", {"VpcId": "VPC"}, "MissingParameter", "'cidrBlock'"),
        ("RunInstances", {"MinCount": "2", "MaxCount": "1", "InstanceType": "m5.large"},
         "InvalidParameterValue", "MinCount 2"),
        ("DescribeSecurityGroups", {"Filter.1.Name": "subnet-id", "Filter.1.Value.1": "x"},
         "InvalidParameterValue", "The filter 'subnet-id' is invalid"),
        ("AssignPrivateIpAddresses", {"NetworkInterfaceId": "ENI", "Ipv4PrefixCount": "-1"},
         "InvalidParameterValue", "-1"),
        ("AssignIpv6Addresses", {"NetworkInterfaceId": "ENI", "Ipv6AddressCount": "999999999"},
         "InvalidParameterValue", "999999999"),
        ("DescribeNetworkInterfaces", {"NetworkInterfaceId.1": "eni-00000099"},
         "InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-00000099' does not"),
        ("DeleteSecurityGroup", {"GroupName": "default"}, "MissingParameter", "GroupId"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    cloud: Cloud, known: dict[str, str], action: str, parameters: dict[str, str], code: str,
    text: str,
) -> None:  # fmt: skip
    names = {"VPC": cloud.vpc_id, "ENI": known["NetworkInterfaceId"]}
    sent = {name: names.get(value, value) for name, value in parameters.items()}
    status, said, message = call(cloud, action, **sent)
    assert (status, said, text in message) == (400, code, True), message
