"""EC2 with real addressing, over moto: ENIs, subnets and what limits them. Shell.

moto keeps VPCs, instances, tags, security groups and the wire protocol; the ENI layer is
replaced by subclassing, at the seams where moto looks classes up.
"""

from __future__ import annotations

from types import SimpleNamespace

from moto.ec2 import urls as ec2_urls
from moto.ec2.models import ec2_backends

from vpclab.ec2.backend import VpcBackend
from vpclab.ec2.responses import VpcResponse

ACCOUNT = "123456789012"
"""moto's account."""

MODELLED = frozenset({
    "AssignPrivateIpAddresses",
    "AssociateVpcCidrBlock",
    "AttachNetworkInterface",
    "CreateNetworkInterface",
    "CreateSecurityGroup",
    "CreateSubnet",
    "CreateTags",
    "CreateVpc",
    "DeleteNetworkInterface",
    "DeleteSecurityGroup",
    "DeleteSubnet",
    "DeleteTags",
    "DeleteVpc",
    "DescribeAvailabilityZones",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeTags",
    "DescribeVpcs",
    "DetachNetworkInterface",
    "ModifyInstanceMetadataOptions",
    "ModifyNetworkInterfaceAttribute",
    "RunInstances",
    "TerminateInstances",
    "UnassignPrivateIpAddresses",
})  # fmt: skip
"""The actions that are answered. moto answers many more, of which no packet would know."""


def fresh_backend(region: str) -> VpcBackend:
    """Return an empty EC2 of ours for *region*; whatever was there is forgotten."""
    ec2_backends.backend = VpcBackend
    ec2_backends.clear()
    VpcBackend._url_module = SimpleNamespace(  # noqa: SLF001 - moto's seam for the response class
        url_bases=ec2_urls.url_bases, url_paths={"{0}/": VpcResponse.dispatch}
    )
    backend = ec2_backends[ACCOUNT][region]
    assert isinstance(backend, VpcBackend)  # noqa: S101 - set three lines above
    return backend
