"""The embedded EC2 creates, attaches, describes and deletes ENIs as EC2 does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.cloud import Cloud, refused
from vpclab.faults import Latency


@pytest.fixture(scope="module")
def subnet(cloud: Cloud) -> str:
    return cloud.subnet(24)[0]


# Create and delete


@pytest.mark.row("CreateNetworkInterface")
@pytest.mark.parametrize("count", ["SecondaryPrivateIpAddressCount", "Ipv4PrefixCount"])
def test_a_negative_count_is_refused(cloud: Cloud, subnet: str, count: str) -> None:
    free = cloud.free(subnet)
    with refused("InvalidParameterValue", "-1"):
        cloud.create(subnet, **{count: -1})
    assert cloud.free(subnet) == free


@pytest.mark.row("AttachNetworkInterface")
def test_a_negative_device_index_is_refused(cloud: Cloud, subnet: str) -> None:
    eni_id, instance_id = cloud.create(subnet), cloud.instance(subnet)
    with refused("InvalidParameterValue", "-1"):
        cloud.attach(eni_id, instance_id, -1)
    assert cloud.eni(eni_id)["Status"] == "available"


@pytest.mark.row("CreateNetworkInterface")
def test_a_token_creates_once(cloud: Cloud, subnet: str) -> None:
    wish = {"ClientToken": "once", "Description": "d"}
    assert cloud.create(subnet, 3, **wish) == cloud.create(subnet, 3, **wish)


@pytest.mark.row("CreateNetworkInterface")
def test_a_token_with_other_parameters_is_refused(cloud: Cloud, subnet: str) -> None:
    cloud.create(subnet, 3, ClientToken="other")
    with refused("IdempotentParameterMismatch", "other"):
        cloud.create(subnet, 4, ClientToken="other")


@pytest.mark.row("CreateNetworkInterface")
def test_tags_and_description_are_there_at_once(cloud: Cloud, subnet: str) -> None:
    tags = [{"Key": "enid.dev/intent", "Value": "t"}]
    eni = cloud.eni(
        cloud.create(
            subnet,
            Description="aws-K8S-i-1",
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
        )
    )
    assert (eni["Description"], eni["TagSet"], eni["Status"]) == ("aws-K8S-i-1", tags, "available")


@pytest.mark.row("CreateNetworkInterface")
def test_an_unknown_security_group_is_not_made_up(cloud: Cloud, subnet: str) -> None:
    with refused("InvalidGroup.NotFound", "sg-0123456789abcdef0"):
        cloud.create(subnet, Groups=["sg-0123456789abcdef0"])


@pytest.mark.row("CreateNetworkInterface")
def test_a_new_eni_has_the_vpcs_default_group(cloud: Cloud, subnet: str) -> None:
    assert [group["GroupName"] for group in cloud.eni(cloud.create(subnet))["Groups"]] == [
        "default"
    ]


@pytest.mark.row("Malformed calls")
@pytest.mark.parametrize(
    "parameter",
    [{"EnablePrimaryIpv6": True}, {"Operator": {"Principal": "eks"}}],
    ids=lambda parameter: next(iter(parameter)),
)
def test_what_is_not_modelled_is_refused_by_name(
    cloud: Cloud, subnet: str, parameter: dict[str, Any]
) -> None:
    with refused("UnsupportedOperation", next(iter(parameter))):
        cloud.create(subnet, **parameter)


@pytest.mark.row("Malformed calls")
def test_an_action_that_is_not_modelled_is_refused_by_name(cloud: Cloud, subnet: str) -> None:
    with refused("UnsupportedOperation", "ResetNetworkInterfaceAttribute"):
        cloud.ec2.reset_network_interface_attribute(NetworkInterfaceId=cloud.create(subnet))


@pytest.mark.row("DeleteNetworkInterface")
def test_an_attached_eni_is_not_deleted(cloud: Cloud, subnet: str) -> None:
    eni_id = cloud.create(subnet)
    cloud.attach(eni_id, cloud.instance(subnet))
    with refused("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."):
        cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)


@pytest.mark.row("DeleteNetworkInterface")
def test_a_deleted_eni_is_not_found(cloud: Cloud, subnet: str) -> None:
    """In EC2's words, of many logs: the AWS VPC CNI takes the id from between the quotes."""
    eni_id = cloud.create(subnet)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    text = f"The networkInterface ID '{eni_id}' does not exist"
    for again in (cloud.ec2.delete_network_interface, lambda **_: cloud.eni(eni_id)):
        with refused("InvalidNetworkInterfaceID.NotFound", text):
            again(NetworkInterfaceId=eni_id)


@pytest.mark.row("DependencyViolation")
def test_a_subnet_with_enis_is_not_deleted(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    eni_id = cloud.create(subnet_id)
    with refused("DependencyViolation", subnet_id):
        cloud.ec2.delete_subnet(SubnetId=subnet_id)
    cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    cloud.ec2.delete_subnet(SubnetId=subnet_id)


# Attach and detach


@pytest.mark.row("AttachNetworkInterface", "DescribeNetworkInterfaces")
def test_an_attached_eni_says_where(cloud: Cloud, subnet: str) -> None:
    instance_id, eni_id = cloud.instance(subnet), cloud.create(subnet)
    attachment_id = cloud.attach(eni_id, instance_id, 2)
    eni = cloud.eni(eni_id)
    attachment = eni["Attachment"]
    assert (eni["Status"], attachment["Status"]) == ("in-use", "attached")
    assert (attachment["AttachmentId"], attachment["InstanceId"]) == (attachment_id, instance_id)
    assert (attachment["DeviceIndex"], attachment["NetworkCardIndex"]) == (2, 0)
    assert attachment["DeleteOnTermination"] is False


@pytest.mark.row("RunInstances")
def test_the_eni_an_instance_is_born_with_goes_with_it(cloud: Cloud, subnet: str) -> None:
    (primary,) = cloud.found(("attachment.instance-id", cloud.instance(subnet)))
    assert cloud.eni(primary)["Attachment"]["DeleteOnTermination"] is True


@pytest.mark.row("AttachNetworkInterface")
def test_an_eni_is_attached_once(cloud: Cloud, subnet: str) -> None:
    instance_id, eni_id = cloud.instance(subnet), cloud.create(subnet)
    cloud.attach(eni_id, instance_id)
    with refused("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."):
        cloud.attach(eni_id, instance_id, 2)


@pytest.mark.row("AttachNetworkInterface")
def test_a_device_index_is_taken_once(cloud: Cloud, subnet: str) -> None:
    instance_id = cloud.instance(subnet)
    cloud.attach(cloud.create(subnet), instance_id)
    text = f"Instance '{instance_id}' already has an interface attached at device index '1'."
    with refused("InvalidParameterValue", text):
        cloud.attach(cloud.create(subnet), instance_id)


@pytest.mark.row("AttachNetworkInterface")
@pytest.mark.parametrize(("kind", "limit"), [("t3.small", 3), ("m5.large", 3), ("c5.xlarge", 4)])
def test_an_instance_takes_what_its_type_says(
    cloud: Cloud, subnet: str, kind: str, limit: int
) -> None:
    instance_id = cloud.instance(subnet, kind)
    for index in range(1, limit):
        cloud.attach(cloud.create(subnet), instance_id, index)
    with refused("AttachmentLimitExceeded", f"exceeds the limit for {kind}"):
        cloud.attach(cloud.create(subnet), instance_id, limit)


@pytest.mark.row("AttachNetworkInterface")
def test_an_eni_of_another_zone_is_not_attached(cloud: Cloud, subnet: str) -> None:
    elsewhere, _ = cloud.subnet(zone="us-east-1b")
    with refused("InvalidParameterCombination", "availability zone"):
        cloud.attach(cloud.create(elsewhere), cloud.instance(subnet))


@pytest.mark.row("AttachNetworkInterface")
def test_an_eni_of_the_same_other_zone_is_attached(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet(zone="us-east-1b")
    cloud.attach(cloud.create(subnet_id), cloud.instance(subnet_id))


@pytest.mark.row("AttachNetworkInterface")
def test_an_unknown_instance_is_not_found(cloud: Cloud, subnet: str) -> None:
    with refused("InvalidInstanceID.NotFound"):
        cloud.attach(cloud.create(subnet), "i-0123456789abcdef0")


@pytest.mark.row("DetachNetworkInterface")
def test_the_primary_eni_stays(cloud: Cloud, subnet: str) -> None:
    (primary,) = cloud.found(("attachment.instance-id", cloud.instance(subnet)))
    attachment_id = cloud.eni(primary)["Attachment"]["AttachmentId"]
    with refused("OperationNotPermitted", "at device index 0 and networkCard index 0 cannot"):
        cloud.ec2.detach_network_interface(AttachmentId=attachment_id)


@pytest.mark.row("DetachNetworkInterface")
def test_a_detached_eni_is_available(cloud: Cloud, subnet: str) -> None:
    eni_id, instance_id = cloud.create(subnet), cloud.instance(subnet)
    attachment_id = cloud.attach(eni_id, instance_id)
    cloud.ec2.detach_network_interface(AttachmentId=attachment_id)
    eni = cloud.eni(eni_id)
    assert (eni["Status"], "Attachment" in eni) == ("available", False)
    with refused("InvalidAttachmentID.NotFound", attachment_id):
        cloud.ec2.detach_network_interface(AttachmentId=attachment_id)
    cloud.attach(eni_id, instance_id)


@pytest.mark.row("AttachNetworkInterface", "DetachNetworkInterface", "DeleteNetworkInterface")
def test_attaching_and_detaching_are_states(cloud: Cloud, subnet: str) -> None:
    eni_id, instance_id = cloud.create(subnet), cloud.instance(subnet)
    with cloud.slow():
        attachment_id = cloud.attach(eni_id, instance_id)
        eni = cloud.eni(eni_id)
        assert (eni["Status"], eni["Attachment"]["Status"]) == ("attaching", "attaching")
        cloud.ec2.detach_network_interface(AttachmentId=attachment_id)
        eni = cloud.eni(eni_id)
        assert (eni["Status"], eni["Attachment"]["Status"]) == ("detaching", "detaching")
        with refused("IncorrectState", "detaching"):
            cloud.ec2.detach_network_interface(AttachmentId=attachment_id)
        with refused("InvalidParameterValue", "is currently in use"):
            cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)


@pytest.mark.row("AttachNetworkInterface", "DetachNetworkInterface")
def test_states_end_after_their_delay_and_are_told(cloud: Cloud, subnet: str) -> None:
    eni_id, instance_id = cloud.create(subnet), cloud.instance(subnet)
    told, plugged = threading.Event(), threading.Event()

    def listen(eni: object) -> None:
        if getattr(eni, "is_plugged", False):
            plugged.set()
        elif plugged.is_set():
            told.set()

    delays = cloud.plane.backend.delays
    delays.attach_seconds = delays.detach_seconds = 0.05
    cloud.plane.on_change = listen
    try:
        attachment_id = cloud.attach(eni_id, instance_id)
        assert plugged.wait(5)
        assert cloud.eni(eni_id)["Attachment"]["Status"] == "attached"
        cloud.ec2.detach_network_interface(AttachmentId=attachment_id)
        assert told.wait(5)
        assert cloud.eni(eni_id)["Status"] == "available"
    finally:
        delays.attach_seconds = delays.detach_seconds = 0
        cloud.plane.on_change = lambda _eni: None


def test_a_delay_with_a_distribution_is_drawn_for_each_eni(cloud: Cloud, subnet: str) -> None:
    delays, instance_id = cloud.plane.backend.delays, cloud.instance(subnet)
    delays.attach_seconds = Latency(600, 6000)
    began, enis = time.monotonic(), [cloud.create(subnet), cloud.create(subnet)]
    try:
        for index, eni_id in enumerate(enis, 1):
            cloud.attach(eni_id, instance_id, index)
        took = [cloud.plane.backend.enis[eni_id].attached_at - began for eni_id in enis]
        assert [cloud.eni(eni_id)["Status"] for eni_id in enis] == ["attaching"] * 2
    finally:
        delays.attach_seconds = 0
    assert took[0] != pytest.approx(took[1], abs=30)
    assert all(6 < seconds < 60_000 for seconds in took)


# Modify and terminate


@pytest.mark.row("TerminateInstances", "ModifyNetworkInterfaceAttribute")
@pytest.mark.parametrize("stays", [True, False], ids=["stays", "goes"])
def test_an_eni_does_at_termination_what_its_attachment_says(
    cloud: Cloud, subnet: str, *, stays: bool
) -> None:
    instance_id, eni_id = cloud.instance(subnet), cloud.create(subnet)
    attachment_id = cloud.attach(eni_id, instance_id)
    cloud.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni_id,
        Attachment={"AttachmentId": attachment_id, "DeleteOnTermination": not stays},
    )
    assert cloud.eni(eni_id)["Attachment"]["DeleteOnTermination"] is not stays
    cloud.ec2.terminate_instances(InstanceIds=[instance_id])
    assert cloud.found(("network-interface-id", eni_id)) == [eni_id][: int(stays)]
    assert cloud.found(("attachment.instance-id", instance_id)) == []


@pytest.mark.row("AttachNetworkInterface")
def test_a_new_attachment_knows_nothing_of_the_last_ones_end(cloud: Cloud, subnet: str) -> None:
    instance_id, eni_id = cloud.instance(subnet), cloud.create(subnet)
    attachment_id = cloud.attach(eni_id, instance_id)
    cloud.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni_id,
        Attachment={"AttachmentId": attachment_id, "DeleteOnTermination": True},
    )
    cloud.ec2.detach_network_interface(AttachmentId=attachment_id)
    cloud.attach(eni_id, instance_id)
    assert cloud.eni(eni_id)["Attachment"]["DeleteOnTermination"] is False


@pytest.mark.row("ModifyNetworkInterfaceAttribute")
def test_a_wrong_attachment_is_not_modified(cloud: Cloud, subnet: str) -> None:
    eni_id = cloud.create(subnet)
    cloud.attach(eni_id, cloud.instance(subnet))
    with refused("InvalidAttachmentID.NotFound"):
        cloud.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=eni_id,
            Attachment={"AttachmentId": "eni-attach-0", "DeleteOnTermination": True},
        )


@pytest.mark.row("ModifyNetworkInterfaceAttribute")
def test_source_check_and_groups_are_modified(cloud: Cloud, subnet: str) -> None:
    eni_id = cloud.create(subnet)
    group_id = cloud.ec2.create_security_group(
        GroupName="pods", Description="d", VpcId=cloud.vpc_id
    )["GroupId"]
    cloud.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni_id, SourceDestCheck={"Value": False}
    )
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni_id, Groups=[group_id])
    cloud.attach(eni_id, cloud.instance(subnet))
    eni = cloud.eni(eni_id)
    assert (eni["SourceDestCheck"], [g["GroupId"] for g in eni["Groups"]]) == (False, [group_id])


@pytest.mark.row("RunInstances")
def test_an_unknown_instance_type_is_not_launched(cloud: Cloud, subnet: str) -> None:
    with refused("InvalidParameterValue", "m99.large"):
        cloud.instance(subnet, "m99.large")


@pytest.mark.row("TerminateInstances")
def test_one_unknown_instance_keeps_all_from_being_terminated(cloud: Cloud, subnet: str) -> None:
    instance_id = cloud.instance(subnet)
    with refused("InvalidInstanceID.NotFound"):
        cloud.ec2.terminate_instances(InstanceIds=[instance_id, "i-0123456789abcdef0"])
    assert len(cloud.found(("attachment.instance-id", instance_id))) == 1


@pytest.mark.row("TerminateInstances")
def test_an_instance_is_terminated_as_often_as_one_asks(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    free = cloud.free(subnet_id)
    instance_id = cloud.instance(subnet_id)
    cloud.ec2.terminate_instances(InstanceIds=[instance_id])
    again = cloud.ec2.terminate_instances(InstanceIds=[instance_id, instance_id])
    assert [i["InstanceId"] for i in again["TerminatingInstances"]] == [instance_id]
    assert cloud.free(subnet_id) == free


# Describe


@pytest.fixture(scope="module")
def known(cloud: Cloud) -> dict[str, str]:
    """An attached ENI, alone in its subnet with the instance's own, and what is true of it."""
    subnet_id, cidr = cloud.subnet()
    instance_id = cloud.instance(subnet_id)
    eni_id = cloud.create(
        subnet_id,
        2,
        Description="known one",
        TagSpecifications=[
            {"ResourceType": "network-interface", "Tags": [{"Key": "owner", "Value": "enid"}]}
        ],
    )
    attachment_id = cloud.attach(eni_id, instance_id)
    return {
        "id": eni_id,
        "addresses.private-ip-address": str(cidr[6]),
        "attachment.attachment-id": attachment_id,
        "attachment.delete-on-termination": "false",
        "attachment.device-index": "1",
        "attachment.instance-id": instance_id,
        "attachment.status": "attached",
        "availability-zone": "us-east-1a",
        "description": "known*",
        "interface-type": "interface",
        "mac-address": cloud.eni(eni_id)["MacAddress"],
        "network-interface-id": eni_id,
        "private-ip-address": str(cidr[5]),
        "source-dest-check": "true",
        "status": "in-use",
        "subnet-id": subnet_id,
        "tag-key": "owner",
        "tag:owner": "en?d",
        "vpc-id": cloud.vpc_id,
    }


@pytest.mark.row("DescribeNetworkInterfaces")
def test_every_filter_finds(cloud: Cloud, known: dict[str, str]) -> None:
    eni_id = known.pop("id")
    missed = [name for name, value in known.items() if eni_id not in cloud.found((name, value))]
    found_wrongly = [name for name in known if eni_id in cloud.found((name, "nothing"))]
    assert (missed, found_wrongly) == ([], [])


@pytest.mark.row("DescribeNetworkInterfaces")
def test_filters_must_all_match_and_one_value_suffices(cloud: Cloud, subnet: str) -> None:
    a = cloud.create(subnet, Description="both")
    b = cloud.create(subnet, Description="both")
    assert cloud.found(("description", "both"), ("network-interface-id", a)) == [a]
    described = cloud.ec2.describe_network_interfaces(
        Filters=[{"Name": "network-interface-id", "Values": [a, b]}]
    )
    assert [eni["NetworkInterfaceId"] for eni in described["NetworkInterfaces"]] == [a, b]


@pytest.mark.row("DescribeNetworkInterfaces")
def test_a_star_and_a_question_mark_are_all_the_signs_of_a_filter(
    cloud: Cloud, subnet: str
) -> None:
    eni_id = cloud.create(subnet, Description="pods[0] of a")
    for pattern in ("pods[0] of a", "pods[*", "pods[?] of a"):
        assert cloud.found(("description", pattern)) == [eni_id], pattern
    assert cloud.found(("description", "pod[s][[]0] of a")) == []


@pytest.mark.row("Malformed calls")
@pytest.mark.parametrize("action", ["network_interfaces", "subnets", "instances", "vpcs"])
def test_an_unknown_filter_is_the_callers_error(cloud: Cloud, subnet: str, action: str) -> None:
    cloud.instance(subnet)
    with refused("InvalidParameterValue", "no-such-filter"):
        getattr(cloud.ec2, f"describe_{action}")(
            Filters=[{"Name": "no-such-filter", "Values": ["x"]}]
        )


@pytest.mark.row("DescribeNetworkInterfaces")
def test_an_unknown_filter_is_refused_where_there_is_nothing_to_filter(cloud: Cloud) -> None:
    with refused("InvalidParameterValue", "attachment.colour"):
        cloud.found(("network-interface-id", "eni-0"), ("attachment.colour", "x"))


@pytest.mark.row("DescribeNetworkInterfaces")
def test_pages_hold_everything_once(cloud: Cloud) -> None:
    subnet_id, _ = cloud.subnet()
    made = [cloud.create(subnet_id) for _ in range(12)]
    pages = list(
        cloud.ec2.get_paginator("describe_network_interfaces").paginate(
            Filters=[{"Name": "subnet-id", "Values": [subnet_id]}],
            PaginationConfig={"PageSize": 5},
        )
    )
    found = [eni["NetworkInterfaceId"] for page in pages for eni in page["NetworkInterfaces"]]
    assert ([len(page["NetworkInterfaces"]) for page in pages], found) == ([5, 5, 2], made)


@pytest.mark.row("DescribeNetworkInterfaces")
def test_ids_and_pages_do_not_mix(cloud: Cloud, subnet: str) -> None:
    with refused("InvalidParameterCombination"):
        cloud.ec2.describe_network_interfaces(
            NetworkInterfaceIds=[cloud.create(subnet)], MaxResults=5
        )


@pytest.mark.row("DescribeInstanceTypes")
def test_instance_types_tell_their_limits(cloud: Cloud) -> None:
    (kind,) = cloud.ec2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"]
    network = kind["NetworkInfo"]
    assert (network["MaximumNetworkInterfaces"], network["Ipv4AddressesPerInterface"]) == (3, 10)


def test_calls_are_counted_by_action_also_when_refused(cloud: Cloud, subnet: str) -> None:
    before = cloud.plane.calls.copy()
    cloud.eni(cloud.create(subnet))
    with pytest.raises(ClientError):
        cloud.eni("eni-0123456789abcdef0")
    assert cloud.plane.calls - before == Counter(
        CreateNetworkInterface=1, DescribeNetworkInterfaces=2
    )
