"""An EC2 without packets, and short words for what the tests of it do with boto3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from vpclab.api import ControlPlane, control_plane

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

REGION = "us-east-1"


class Cloud:
    """A VPC that a test furnishes."""

    def __init__(self, url: str, plane: ControlPlane) -> None:
        self.plane = plane
        self.ec2: EC2Client = boto3.client(
            "ec2",
            region_name=REGION,
            endpoint_url=url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.vpc_id = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self._networks = IPv4Network("10.0.0.0/16").subnets(new_prefix=24)

    def subnet(self, prefix: int = 24, zone: str = "us-east-1a") -> tuple[str, IPv4Network]:
        """Return a new subnet's id and CIDR."""
        cidr = next(next(self._networks).subnets(new_prefix=prefix))
        made = self.ec2.create_subnet(VpcId=self.vpc_id, CidrBlock=str(cidr), AvailabilityZone=zone)
        return made["Subnet"]["SubnetId"], cidr

    def instance(self, subnet_id: str, kind: Any = "m5.large") -> str:
        """Return a new instance's id."""
        made = self.ec2.run_instances(
            ImageId="ami-760aaa0f", InstanceType=kind, SubnetId=subnet_id, MinCount=1, MaxCount=1
        )
        return made["Instances"][0]["InstanceId"]

    def create(self, subnet_id: str, secondary: int = 0, **more: Any) -> str:
        """Return a new ENI's id."""
        if secondary:
            more["SecondaryPrivateIpAddressCount"] = secondary
        made = self.ec2.create_network_interface(SubnetId=subnet_id, **more)
        return made["NetworkInterface"]["NetworkInterfaceId"]

    def attach(self, eni_id: str, instance_id: str, index: int = 1) -> str:
        """Return a new attachment's id."""
        return self.ec2.attach_network_interface(
            NetworkInterfaceId=eni_id, InstanceId=instance_id, DeviceIndex=index
        )["AttachmentId"]

    def eni(self, eni_id: str) -> Any:
        """Return an ENI as it is described."""
        described = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni_id])
        return described["NetworkInterfaces"][0]

    def addresses(self, eni_id: str) -> list[IPv4Address]:
        """Return the addresses of an ENI, the primary first."""
        listed = self.eni(eni_id)["PrivateIpAddresses"]
        return [IPv4Address(item["PrivateIpAddress"]) for item in listed]

    def found(self, *filters: tuple[str, str]) -> list[str]:
        """Return the ids of the ENIs that pass *filters*."""
        described = self.ec2.describe_network_interfaces(
            Filters=[{"Name": name, "Values": [value]} for name, value in filters]
        )
        return [eni["NetworkInterfaceId"] for eni in described["NetworkInterfaces"]]

    def free(self, subnet_id: str) -> int:
        """Return how many addresses a subnet has left."""
        described = self.ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]
        return described["AvailableIpAddressCount"]

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Let attaching and detaching take longer than any test."""
        delays = self.plane.backend.delays
        delays.attach_seconds = delays.detach_seconds = 300
        try:
            yield
        finally:
            delays.attach_seconds = delays.detach_seconds = 0


@contextmanager
def refused(code: str, text: str = "") -> Iterator[pytest.ExceptionInfo[ClientError]]:
    """Expect EC2's error *code*, with *text* in its message."""
    with pytest.raises(ClientError) as caught:
        yield caught
    error = caught.value.response["Error"]
    assert (error["Code"], text in error["Message"]) == (code, True), error


@contextmanager
def new_cloud() -> Iterator[Cloud]:
    """Give a cloud of its own; one at a time."""
    with control_plane(REGION) as (url, plane):
        yield Cloud(url, plane)
