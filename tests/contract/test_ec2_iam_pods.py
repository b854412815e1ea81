"""What a service account's role may (config/iam/pod-identity.json): its cluster's, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ipamd.intents import CLUSTER_TAG
from tests.contract.cloud import Cloud, refused
from tests.contract.iam_place import (
    ARN,
    NODE_TAG,
    POD_ROLE,
    Place,
    actions,
    called,
    clear,
    live,
    tags_of,
    without,
    without_statement,
)
from vpclab.ec2 import ACCOUNT
from vpclab.enid import POD_POLICY, node_policy, pod_policy

pytestmark = pytest.mark.row("IAM")

BLUE, GREEN = "blue", "green"
SHARED = [
    statement for statement in pod_policy()["Statement"] if statement in node_policy()["Statement"]
]
"""What both policies say: tests/contract/test_ec2_iam.py shows what comes of its absence."""

OWN = {**pod_policy(), "Statement": [s for s in pod_policy()["Statement"] if s not in SHARED]}
VPC_FENCE = POD_POLICY.parents[2] / "terraform" / "within-vpc.json.tftpl"


@pytest.fixture(scope="module")
def built(cloud: Cloud) -> Place:
    """Two instances of one cluster, as terraform/ launches them: with tags, their ENIs, too."""
    place = Place(cloud)
    for instance_id in (place.a, place.b):
        place.tag(instance_id, BLUE)
        place.tag(place.born(instance_id), BLUE)
    return place


@pytest.fixture
def place(built: Place) -> Iterator[Place]:
    """Give the place with nobody restricted, and undo whom a test restricts."""
    yield built
    built.access.unrestrict()


def create(ec2: Any, place: Place, instance_id: str, cluster: str = BLUE) -> str:
    """Return an ENI that a daemon made."""
    made = ec2.create_network_interface(
        SubnetId=place.subnet_id, TagSpecifications=tags_of(instance_id, cluster)
    )
    eni_id: str = made["NetworkInterface"]["NetworkInterfaceId"]
    return eni_id


def fence(vpc_id: str) -> dict[str, Any]:
    """Return the policy that keeps a role within a VPC."""
    text = VPC_FENCE.read_text().replace("${vpc_arn}", f"{ARN}:vpc/{vpc_id}")
    policy: dict[str, Any] = json.loads(text)
    return policy


# It suffices, and each part of it is needed -------------------------------------------------------
def test_it_allows_what_our_daemon_does(place: Place) -> None:
    live(place.pod(BLUE, pod_policy()), place, place.a, cluster=BLUE)


def test_it_has_the_actions_that_our_client_calls_and_no_other() -> None:
    assert called() == set(actions(pod_policy()))


def test_the_two_policies_share_what_asks_for_nobody() -> None:
    assert [statement["Sid"] for statement in SHARED] == [
        "Look", "CreateInAnySubnet", "TagAtBirth", "SetAnyGroups",
    ]  # fmt: skip


@pytest.mark.parametrize("action", actions(OWN))
def test_one_action_less_is_denied_by_its_name(place: Place, action: str) -> None:
    ec2 = place.pod(BLUE, without(pod_policy(), action))
    with refused("UnauthorizedOperation", f"to perform: {action} on resource: "):
        live(ec2, place, place.a, cluster=BLUE)
    clear(place, place.a)


@pytest.mark.parametrize("sid", [statement["Sid"] for statement in OWN["Statement"]])
def test_one_statement_less_is_denied(place: Place, sid: str) -> None:
    ec2 = place.pod(BLUE, without_statement(pod_policy(), sid))
    with refused("UnauthorizedOperation"):
        live(ec2, place, place.a, cluster=BLUE)
    clear(place, place.a)


# What it does not allow ---------------------------------------------------------------------------
@pytest.mark.parametrize("cluster", ["", GREEN], ids=["no-tag", "wrong-tag"])
def test_an_eni_is_created_with_the_clusters_tag_or_not_at_all(place: Place, cluster: str) -> None:
    with refused("UnauthorizedOperation") as caught:
        create(place.pod(BLUE, pod_policy()), place, place.a, cluster)
    it = f"it is '{cluster}'" if cluster else "it is not there"
    assert caught.value.response["Error"]["Message"] == (
        f"You are not authorized to perform this operation. User: arn:aws:sts::{ACCOUNT}"
        f":assumed-role/{POD_ROLE}/eks-enid is not authorized to perform:"
        f" ec2:CreateNetworkInterface on resource: {ARN}:network-interface/* because no"
        " identity-based policy allows the ec2:CreateNetworkInterface action. The lab adds:"
        " statement CreateForThisCluster allows it only if StringEquals"
        " aws:RequestTag/cluster.k8s.amazonaws.com/name '${aws:PrincipalTag/eks-cluster-name}'"
        f" ({it}; ${{aws:PrincipalTag/eks-cluster-name}} is 'blue')."
    )


def test_a_role_that_says_no_cluster_may_change_nothing(place: Place) -> None:
    ec2 = place.pod("", pod_policy())
    assert ec2.describe_network_interfaces()["NetworkInterfaces"]
    with refused("UnauthorizedOperation", "${aws:PrincipalTag/eks-cluster-name} has no value"):
        create(ec2, place, place.a)


def test_another_clusters_eni_and_instance_are_refused(place: Place) -> None:
    blue = place.pod(BLUE, pod_policy())
    own = create(blue, place, place.a)
    theirs = create(place.pod(GREEN, pod_policy()), place, place.b, GREEN)
    stranger = place.cloud.instance(place.subnet_id)
    place.tag(stranger, GREEN)
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("delete_network_interface", {"NetworkInterfaceId": theirs}),
        (
            "attach_network_interface",
            {"NetworkInterfaceId": theirs, "InstanceId": place.a, "DeviceIndex": 1},
        ),
        (
            "assign_private_ip_addresses",
            {"NetworkInterfaceId": place.born(stranger), "SecondaryPrivateIpAddressCount": 1},
        ),
    ]
    for method, wish in refusals:
        with refused("UnauthorizedOperation", "TheClustersEnis"):
            getattr(blue, method)(**wish)
    with refused("UnauthorizedOperation", "TheClustersInstances"):
        blue.attach_network_interface(NetworkInterfaceId=own, InstanceId=stranger, DeviceIndex=1)
    place.cloud.ec2.terminate_instances(InstanceIds=[stranger])
    for eni_id in (own, theirs):
        place.cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)


def test_an_instance_without_the_tag_is_refused(place: Place) -> None:
    """Whoever launches nodes has to tag them: no node group does so by itself."""
    bare = place.cloud.instance(place.subnet_id)
    ec2 = place.pod(BLUE, pod_policy())
    own = create(ec2, place, bare)
    with refused("UnauthorizedOperation", "TheClustersInstances"):
        ec2.attach_network_interface(NetworkInterfaceId=own, InstanceId=bare, DeviceIndex=1)
    with refused("UnauthorizedOperation", "TheClustersEnis"):
        ec2.assign_private_ip_addresses(
            NetworkInterfaceId=place.born(bare), SecondaryPrivateIpAddressCount=1
        )
    place.cloud.ec2.terminate_instances(InstanceIds=[bare])
    clear(place, bare)


def test_an_eni_of_the_cluster_is_adopted_and_goes_to_no_other(place: Place) -> None:
    ec2 = place.pod(BLUE, pod_policy())
    made = place.cloud.create(place.subnet_id)
    mine: Any = [{"Key": NODE_TAG, "Value": place.a}, {"Key": CLUSTER_TAG, "Value": BLUE}]
    with refused("UnauthorizedOperation", "ec2:CreateTags"):
        ec2.create_tags(Resources=[made], Tags=mine)
    place.tag(made, BLUE)
    ec2.create_tags(Resources=[made], Tags=mine)
    for key in (CLUSTER_TAG, CLUSTER_TAG.upper()):
        with refused("UnauthorizedOperation", "ec2:CreateTags"):
            ec2.create_tags(Resources=[made], Tags=[{"Key": key, "Value": GREEN}])
    place.cloud.ec2.delete_network_interface(NetworkInterfaceId=made)


# Where the two differ -----------------------------------------------------------------------------
def test_it_reaches_the_enis_of_the_clusters_other_nodes_and_the_other_policy_does_not(
    place: Place,
) -> None:
    """So the elected sweeper deletes what nodes that are gone have left, under this one only."""
    pod, node = place.pod(BLUE, pod_policy()), place.node(place.a, node_policy())
    left = create(pod, place, "i-0123456789abcdef0")
    with refused("UnauthorizedOperation", "ItsOwnEnis"):
        node.delete_network_interface(NetworkInterfaceId=left)
    pod.delete_network_interface(NetworkInterfaceId=left)


# Within a VPC -------------------------------------------------------------------------------------
def test_a_role_is_kept_in_its_vpc(place: Place) -> None:
    live(place.pod(BLUE, pod_policy(), fence(place.cloud.vpc_id)), place, place.a, cluster=BLUE)
    with refused("UnauthorizedOperation", "explicit deny"):
        create(place.pod(BLUE, pod_policy(), fence("vpc-another")), place, place.a)


def test_a_node_is_kept_in_its_vpc_by_the_same(place: Place) -> None:
    ec2 = place.node(place.a, node_policy(), fence(place.cloud.vpc_id))
    live(ec2, place, place.a)
    with refused("UnauthorizedOperation", "explicit deny"):
        create(place.node(place.a, node_policy(), fence("vpc-another")), place, place.a)
