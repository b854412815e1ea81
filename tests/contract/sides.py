"""Two EC2s side by side, the planner's model and the embedded one, furnished by the same words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Protocol

import boto3
import pytest

from eni.calls import Ec2Calls
from eni.ec2 import Ec2
from eni.model import EniId, InstanceId, SecurityGroupId, SubnetId, VpcId
from ipamd.plan.cloud import Account
from vpclab.api import ControlPlane, control_plane

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

REGION = "us-east-1"
ZONE, OTHER_ZONE = "us-east-1a", "us-east-1b"

SLOW_SECONDS = 1000.0
"""How long attaching and detaching takes where it is slow: longer than any test."""


class Side(Protocol):
    """What a test needs beside the calls of a node."""

    ec2: Ec2Calls
    vpc_id: VpcId

    def subnet(
        self, prefix: int = 24, zone: str = ZONE, reserved: Sequence[int] = ()
    ) -> tuple[SubnetId, IPv4Network]:
        """Return a new subnet, the *reserved* of its /28s kept for prefixes."""

    def instance(self, subnet_id: SubnetId, instance_type: str = "m5.large") -> InstanceId:
        """Return a new instance."""

    def group(self) -> SecurityGroupId:
        """Return a new security group."""

    def terminate(self, instance_id: InstanceId) -> None:
        """End an instance."""

    def has_link(self, mac: str) -> bool:
        """Return whether an instance has a link of this MAC."""

    def slow(self, *, is_slow: bool) -> None:
        """Let attaching and detaching take long, or no time."""

    def pass_time(self) -> None:
        """Let whatever takes long be done."""

    def lag(self, seconds: float) -> None:
        """Let descriptions be late."""

    def calls(self) -> dict[str, int]:
        """Return how many calls there were of each action, the furnishing's left out."""


class ModelSide:
    """The planner's model."""

    def __init__(self, draw: Callable[[int], int] | None = None) -> None:
        self.now = 0.0
        self.seconds = 0.0
        self.account = Account(lambda: self.now, latency=lambda _: self.seconds, draw=draw)
        self.vpc_id = self.account.vpc.id
        self._networks = IPv4Network("10.0.0.0/8").subnets(new_prefix=20)
        self._numbers = itertools.count(1)
        host, _ = self.subnet()
        self.ec2: Ec2Calls = self.account.node(InstanceId("i-caller"), "m5.large", host)

    def subnet(
        self, prefix: int = 24, zone: str = ZONE, reserved: Sequence[int] = ()
    ) -> tuple[SubnetId, IPv4Network]:
        cidr = next(next(self._networks).subnets(new_prefix=prefix))
        blocks = [block_of(cidr, number) for number in reserved]
        return self.account.add_subnet(cidr, zone, reservations=blocks), cidr

    def instance(self, subnet_id: SubnetId, instance_type: str = "m5.large") -> InstanceId:
        instance_id = InstanceId(f"i-{next(self._numbers):017x}")
        self.account.node(instance_id, instance_type, subnet_id)
        return instance_id

    def group(self) -> SecurityGroupId:
        group = SecurityGroupId(f"sg-{next(self._numbers):017x}")
        self.account.add_group(group)
        return group

    def terminate(self, instance_id: InstanceId) -> None:
        self.account.terminate(instance_id)

    def has_link(self, mac: str) -> bool:
        return self.account.link_at(mac) is not None

    def slow(self, *, is_slow: bool) -> None:
        self.seconds = SLOW_SECONDS if is_slow else 0.0

    def pass_time(self) -> None:
        self.now += SLOW_SECONDS

    def lag(self, seconds: float) -> None:
        self.account.vpc.lag_seconds = seconds

    def calls(self) -> dict[str, int]:
        return dict(self.account.calls)


class EmbeddedSide:
    """The embedded EC2, met by the real client; what takes long is done when a test says so."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.ec2: Ec2Calls = Ec2(region=REGION)
        self._maker: EC2Client = boto3.client("ec2", region_name=REGION)
        self._pending: list[Callable[[], None]] = []
        plane.backend.later = lambda _seconds, work: self._pending.append(work)
        vpc = self._maker.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]
        self.vpc_id = VpcId(vpc["VpcId"])
        self._networks = self._room(24, range(256))
        self._wide = self._room(20, range(255, 0, -1))
        self._numbers = itertools.count(1)

    def _room(self, prefix: int, seconds: Iterable[int]) -> Iterator[IPv4Network]:
        """Yield a network after the other, in as many CIDRs of the VPC as it takes."""
        for second in seconds:
            cidr = IPv4Network(f"10.{second}.0.0/16")
            if second:
                self._maker.associate_vpc_cidr_block(VpcId=self.vpc_id, CidrBlock=str(cidr))
            yield from cidr.subnets(new_prefix=prefix)

    def subnet(
        self, prefix: int = 24, zone: str = ZONE, reserved: Sequence[int] = ()
    ) -> tuple[SubnetId, IPv4Network]:
        room = self._networks if prefix >= 24 else self._wide
        cidr = next(next(room).subnets(new_prefix=prefix))
        made = self._maker.create_subnet(
            VpcId=self.vpc_id, CidrBlock=str(cidr), AvailabilityZone=zone
        )
        subnet_id = SubnetId(made["Subnet"]["SubnetId"])
        for number in reserved:
            self._maker.create_subnet_cidr_reservation(
                SubnetId=subnet_id, Cidr=str(block_of(cidr, number)), ReservationType="prefix"
            )
        return subnet_id, cidr

    def instance(self, subnet_id: SubnetId, instance_type: str = "m5.large") -> InstanceId:
        made = self._maker.run_instances(
            ImageId="ami-760aaa0f",
            InstanceType=instance_type,  # type: ignore[arg-type] # a text like any other
            SubnetId=subnet_id,
            MinCount=1,
            MaxCount=1,
        )
        return InstanceId(made["Instances"][0]["InstanceId"])

    def group(self) -> SecurityGroupId:
        name = f"group-{next(self._numbers)}"
        made = self._maker.create_security_group(
            VpcId=self.vpc_id, GroupName=name, Description=name
        )
        return SecurityGroupId(made["GroupId"])

    def terminate(self, instance_id: InstanceId) -> None:
        self._maker.terminate_instances(InstanceIds=[instance_id])

    def has_link(self, mac: str) -> bool:
        with self.plane.lock:
            plugged = [eni for eni in self.plane.backend.enis.values() if eni.is_plugged]
        return mac in {eni.mac_address for eni in plugged}

    def slow(self, *, is_slow: bool) -> None:
        delays = self.plane.backend.delays
        delays.attach_seconds = delays.detach_seconds = SLOW_SECONDS if is_slow else 0.0

    def pass_time(self) -> None:
        def work() -> None:
            for eni in self.plane.backend.enis.values():
                eni.attached_at = 0.0
            for due in self._pending:
                due()
            self._pending.clear()

        self.plane.perform(work)

    def lag(self, seconds: float) -> None:
        self.plane.lag(seconds)

    def calls(self) -> dict[str, int]:
        return dict(self.plane.calls)


def block_of(cidr: IPv4Network, number: int) -> IPv4Network:
    """Return a /28 of *cidr*."""
    return IPv4Network((int(cidr.network_address) + number * 16, 28))


@contextmanager
def embedded() -> Iterator[EmbeddedSide]:
    """Give the embedded side; one at a time."""
    with control_plane(REGION) as (url, plane), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        yield EmbeddedSide(plane)


def primary_of(ec2: Ec2Calls, instance_id: InstanceId) -> EniId:
    """Return an instance's primary ENI."""
    (eni,) = (
        e for e in ec2.attached(instance_id) if e.attachment and not e.attachment.device_index
    )
    return eni.id
