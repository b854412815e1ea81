"""The embedded EC2 can be slow, strict, wrong and silent, and its call table tells of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
from botocore.exceptions import ConnectionClosedError

from tests.contract.cloud import Cloud, refused
from vpclab.faults import Latency

pytestmark = pytest.mark.row("Faults")


@pytest.fixture
def faulty(cloud: Cloud) -> Iterator[Cloud]:
    """The cloud, without faults again afterwards."""
    cloud.plane.tallies.clear()
    yield cloud
    cloud.plane.lag(0)
    cloud.plane.faults.clear()


def test_a_throttled_action_says_so_and_others_go_on(faulty: Cloud) -> None:
    subnet_id, _ = faulty.subnet()
    faulty.plane.faults.throttle("CreateNetworkInterface", rate=0.001, burst=2)
    made = [faulty.create(subnet_id) for _ in range(2)]
    with refused("RequestLimitExceeded", "Request limit exceeded."):
        faulty.create(subnet_id)
    assert faulty.found(("subnet-id", subnet_id)) == made
    outcomes = faulty.plane.tallies["CreateNetworkInterface"].outcomes
    assert outcomes == {"ok": 2, "RequestLimitExceeded": 1}


def test_an_answer_that_is_lost_was_a_deed_that_is_done(faulty: Cloud) -> None:
    subnet_id, _ = faulty.subnet()
    faulty.plane.faults.lose("CreateNetworkInterface")
    with pytest.raises(ConnectionClosedError):
        faulty.create(subnet_id, ClientToken="t-lost")
    (made,) = faulty.found(("subnet-id", subnet_id))
    assert faulty.create(subnet_id, ClientToken="t-lost") == made
    assert faulty.plane.tallies["CreateNetworkInterface"].outcomes == {"lost": 1, "ok": 1}


def test_an_error_by_order_does_nothing(faulty: Cloud) -> None:
    subnet_id, _ = faulty.subnet()
    faulty.plane.faults.fail("CreateNetworkInterface", "InternalError", times=1, status=500)
    with refused("InternalError", "fault of the lab"):
        faulty.create(subnet_id)
    assert faulty.found(("subnet-id", subnet_id)) == []
    faulty.create(subnet_id)


def test_slowness_is_in_the_call_table(faulty: Cloud) -> None:
    faulty.plane.faults.latency("DescribeVpcs", Latency(0.2))
    began = time.monotonic()
    faulty.ec2.describe_vpcs()
    assert time.monotonic() - began >= 0.2
    assert faulty.plane.tallies["DescribeVpcs"].longest >= 0.2


def test_descriptions_lag_behind_what_is_done(faulty: Cloud) -> None:
    subnet_id, _ = faulty.subnet()
    old = faulty.create(subnet_id, 1)
    faulty.plane.lag(math.inf)  # nothing new is ever told
    new = faulty.create(subnet_id)
    faulty.ec2.assign_private_ip_addresses(NetworkInterfaceId=old, SecondaryPrivateIpAddressCount=3)
    faulty.ec2.create_tags(Resources=[old], Tags=[{"Key": "k", "Value": "v"}])
    faulty.ec2.delete_network_interface(NetworkInterfaceId=old)
    assert faulty.found(("subnet-id", subnet_id)) == [old]
    assert (len(faulty.addresses(old)), faulty.eni(old)["TagSet"]) == (2, [])
    with refused("InvalidNetworkInterfaceID.NotFound", new):
        faulty.eni(new)
    faulty.plane.lag(0)
    assert faulty.found(("subnet-id", subnet_id)) == [new]


def test_what_lags_comes(faulty: Cloud) -> None:
    subnet_id, _ = faulty.subnet()
    faulty.plane.lag(0.3)
    made, began = faulty.create(subnet_id), time.monotonic()
    while made not in faulty.found(("subnet-id", subnet_id)):
        assert time.monotonic() - began < 10
    assert time.monotonic() - began >= 0.2
    faulty.ec2.create_tags(Resources=[made], Tags=[{"Key": "lagging", "Value": subnet_id}])
    while made not in faulty.found(("tag:lagging", subnet_id)):
        assert time.monotonic() - began < 10


def test_what_becomes_of_a_branch_comes_too(faulty: Cloud) -> None:
    subnet_id, _ = faulty.subnet()
    trunk, branch = faulty.create(subnet_id, InterfaceType="trunk"), faulty.create(subnet_id)
    faulty.plane.lag(0.05)
    made = faulty.ec2.associate_trunk_interface(
        BranchInterfaceId=branch, TrunkInterfaceId=trunk, VlanId=7
    )["InterfaceAssociation"]
    began = time.monotonic()
    while faulty.eni(branch)["Status"] != "associated":
        assert time.monotonic() - began < 10
    faulty.ec2.disassociate_trunk_interface(AssociationId=made["AssociationId"])
    while faulty.eni(branch)["Status"] != "available":
        assert time.monotonic() - began < 10


def test_a_lag_begins_with_what_is_there(faulty: Cloud) -> None:
    subnet_id, _ = faulty.subnet()
    made = faulty.create(subnet_id)
    faulty.plane.faults.lag_seconds = 60  # as a test may write it, without `plane.lag`
    assert faulty.found(("subnet-id", subnet_id)) == [made]
    faulty.plane.lag(0)


def test_an_action_that_is_not_modelled_is_in_the_table(faulty: Cloud) -> None:
    with refused("UnsupportedOperation", "DescribeImages"):
        faulty.ec2.describe_images()
    assert faulty.plane.tallies["DescribeImages"].outcomes == {"UnsupportedOperation": 1}
