"""A node under the shipped policy, with the keys that IMDS gives it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vpclab.enid import node_policy

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node

pytestmark = pytest.mark.row("IAM")

SCRIPT = """
import sys, boto3
subnet, instance, tagged = sys.argv[1:]
ec2 = boto3.client("ec2", region_name="us-east-1")
assert ec2.meta.events and ec2._request_signer._credentials.method == "iam-role"
tags = [{"Key": "node.k8s.amazonaws.com/instance_id", "Value": tagged}]
eni = ec2.create_network_interface(
    SubnetId=subnet, TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}]
)["NetworkInterface"]["NetworkInterfaceId"]
ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1)
print(eni)
"""


def create(node: Node, subnet_id: str, tagged: str) -> subprocess.CompletedProcess[str]:
    """Create and attach an ENI from inside *node*, with a tag for the instance *tagged*."""
    argv = [sys.executable, "-c", SCRIPT, subnet_id, node.instance_id, tagged]
    return node.run(argv, check=False)


def test_a_node_may_do_what_its_policy_says_and_no_more(
    vpc: EmbeddedVPC, nodes: tuple[Node, Node]
) -> None:
    a, b = nodes
    subnet_id = next(e.subnet_id for e in vpc.enis() if e.instance_id == a.instance_id)
    vpc.restrict(node_policy())
    done = create(a, subnet_id, a.instance_id)
    assert done.returncode == 0, done.stderr
    denied = create(a, subnet_id, b.instance_id)
    assert "UnauthorizedOperation" in denied.stderr
    assert "statement CreateForThisInstance allows it only if ArnLike" in denied.stderr
    (line,) = vpc.denials
    assert f"assumed-role/node/{a.instance_id} may not ec2:CreateNetworkInterface" in line
    assert len([e for e in vpc.enis() if e.instance_id == a.instance_id]) == 2
    assert vpc.ec2.describe_vpcs()["Vpcs"], "the test's own client is nobody's"
