"""A place where policies are tried, and what a daemon does there. Shared by the tests of IAM."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from eni import ec2 as client
from ipamd.intents import CLUSTER_TAG, INSTANCE_TAG
from tests.contract.cloud import REGION, Cloud
from vpclab.ec2 import ACCOUNT
from vpclab.ec2.credentials import Key
from vpclab.metadata import ROLE

NODE_TAG = INSTANCE_TAG
POD_ROLE = "enid-pods"
ARN = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
ADMIN = Key("test", "test", f"arn:aws:iam::{ACCOUNT}:user/admin", "user/admin")
"""The keys that a Cloud's own client has."""


def called() -> set[str]:
    """Return the actions that our client calls, as a policy names them."""
    source = Path(client.__file__).read_text()
    found = set(re.findall(r"self\._session\.(?:ask|act)\(\s*\"(\w+)\"", source))
    # TagSpecifications of CreateNetworkInterface are asked about as CreateTags.
    return {f"ec2:{action}" for action in found | {"CreateTags"}}


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    """Return *policy* with one action less."""
    statements = []
    for statement in policy["Statement"]:
        listed = statement["Action"]
        kept = [a for a in ([listed] if isinstance(listed, str) else listed) if a != action]
        if kept:
            statements.append({**statement, "Action": kept})
    return {**policy, "Statement": statements}


def without_statement(policy: dict[str, Any], sid: str) -> dict[str, Any]:
    """Return *policy* with one statement less."""
    kept = [statement for statement in policy["Statement"] if statement["Sid"] != sid]
    return {**policy, "Statement": kept}


def actions(policy: dict[str, Any]) -> list[str]:
    """Return every action that *policy* allows."""
    found = [s["Action"] for s in policy["Statement"]]
    return sorted({a for f in found for a in ([f] if isinstance(f, str) else f)})


class Place:
    """A cloud with a subnet and two instances, and who calls it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.access = cloud, cloud.plane.access
        self.url: str = cloud.ec2.meta.endpoint_url
        self.subnet_id, _ = cloud.subnet()
        self.a, self.b = cloud.instance(self.subnet_id), cloud.instance(self.subnet_id)
        self.access.keys.add(ADMIN)

    def client(self, key: Key, region: str = REGION, **more: Any) -> Any:
        """Return a client that signs with *key*."""
        return boto3.client(
            "ec2", region_name=region, endpoint_url=self.url, aws_access_key_id=key.id,
            aws_secret_access_key=key.secret, aws_session_token=key.token,
            config=Config(retries={"total_max_attempts": 1}), **more,
        )  # fmt: skip

    def node(self, instance_id: str, *policies: dict[str, Any]) -> Any:
        """Return the client of an instance whose role has *policies*."""
        self.access.restrict(f"role/{ROLE}", *policies)
        return self.client(self.access.keys.of_instance(instance_id, ROLE))

    def pod(self, cluster: str, *policies: dict[str, Any]) -> Any:
        """Return the client of a daemon in *cluster* whose service account's role has *policies*."""
        self.access.restrict(f"role/{POD_ROLE}", *policies)
        tags = {"eks-cluster-name": cluster} if cluster else {}
        return self.client(self.access.keys.of_pod(POD_ROLE, "eks-enid", tags))

    def tag(self, resource: str, cluster: str) -> None:
        """Tag what a cluster owns."""
        tags: Any = [{"Key": CLUSTER_TAG, "Value": cluster}]
        self.cloud.ec2.create_tags(Resources=[resource], Tags=tags)

    def born(self, instance_id: str) -> str:
        """Return the ENI that an instance was born with."""
        (eni_id,) = self.cloud.found(
            ("attachment.instance-id", instance_id), ("attachment.device-index", "0")
        )
        return eni_id


def tags_of(instance_id: str, cluster: str = "") -> Any:
    """Return what a node's daemon tags its ENIs with; *cluster* is CLUSTER_NAME, if it is set."""
    tags = {NODE_TAG: instance_id} | ({CLUSTER_TAG: cluster} if cluster else {})
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": "network-interface", "Tags": listed}]


def live(
    ec2: Any, place: Place, instance_id: str, *, cluster: str = "", reservations: bool = True
) -> None:
    """Do everything that a node's daemon does with an ENI, and take it all back."""
    ec2.describe_subnets(SubnetIds=[place.subnet_id])
    if reservations:
        ec2.get_subnet_cidr_reservations(SubnetId=place.subnet_id)
    ec2.describe_instance_types(InstanceTypes=["m5.large"])
    created = ec2.create_network_interface(
        SubnetId=place.subnet_id, TagSpecifications=tags_of(instance_id, cluster)
    )["NetworkInterface"]
    made, groups = created["NetworkInterfaceId"], [g["GroupId"] for g in created["Groups"]]
    attachment = ec2.attach_network_interface(
        NetworkInterfaceId=made, InstanceId=instance_id, DeviceIndex=1
    )["AttachmentId"]
    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=made,
        Attachment={"AttachmentId": attachment, "DeleteOnTermination": True},
    )
    ec2.modify_network_interface_attribute(NetworkInterfaceId=made, Groups=groups)
    ec2.create_tags(Resources=[made], Tags=[{"Key": "note", "Value": "new"}])
    for eni_id in (made, place.born(instance_id)):
        given = ec2.assign_private_ip_addresses(
            NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=2
        )["AssignedPrivateIpAddresses"]
        ec2.unassign_private_ip_addresses(
            NetworkInterfaceId=eni_id, PrivateIpAddresses=[a["PrivateIpAddress"] for a in given]
        )
    ec2.describe_network_interfaces(NetworkInterfaceIds=[made])
    ec2.detach_network_interface(AttachmentId=attachment)
    ec2.delete_network_interface(NetworkInterfaceId=made)


def clear(place: Place, instance_id: str) -> None:
    """Delete the ENIs that an instance's daemon has left."""
    for eni_id in place.cloud.found((f"tag:{NODE_TAG}", instance_id)):
        attachment = place.cloud.eni(eni_id).get("Attachment")
        if attachment:
            place.cloud.ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
        place.cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)
