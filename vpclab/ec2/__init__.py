"""EC2 with real addressing, over moto: ENIs, subnets and what limits them. Shell.

moto keeps VPCs, instances, tags, security groups and the wire protocol; the ENI layer is
replaced by subclassing, at the seams where moto looks classes up.
"""

from __future__ import annotations

from types import SimpleNamespace

from moto.ec2 import urls as ec2_urls
from moto.ec2.models import ec2_backends
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

from vpclab.ec2.backend import VpcBackend
from vpclab.ec2.responses import VpcResponse

ACCOUNT = "123456789012"
"""moto's account."""

MODELLED = frozenset({
    "AllocateAddress",
    "AssignIpv6Addresses",
    "AssignPrivateIpAddresses",
    "AssociateAddress",
    "AssociateRouteTable",
    "AssociateSubnetCidrBlock",
    "AssociateTrunkInterface",
    "AssociateVpcCidrBlock",
    "AttachInternetGateway",
    "AttachNetworkInterface",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateEgressOnlyInternetGateway",
    "CreateInternetGateway",
    "CreateNatGateway",
    "CreateNetworkInterface",
    "CreateRoute",
    "CreateRouteTable",
    "CreateSecurityGroup",
    "CreateSubnet",
    "CreateSubnetCidrReservation",
    "CreateTags",
    "CreateVpc",
    "DeleteEgressOnlyInternetGateway",
    "DeleteInternetGateway",
    "DeleteNatGateway",
    "DeleteNetworkInterface",
    "DeleteRoute",
    "DeleteRouteTable",
    "DeleteSecurityGroup",
    "DeleteSubnet",
    "DeleteSubnetCidrReservation",
    "DeleteTags",
    "DeleteVpc",
    "DescribeAddresses",
    "DescribeAvailabilityZones",
    "DescribeEgressOnlyInternetGateways",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeInternetGateways",
    "DescribeNatGateways",
    "DescribeNetworkInterfaceAttribute",
    "DescribeNetworkInterfaces",
    "DescribeRouteTables",
    "DescribeSecurityGroupRules",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeTags",
    "DescribeTrunkInterfaceAssociations",
    "DescribeVpcAttribute",
    "DescribeVpcs",
    "DetachInternetGateway",
    "DetachNetworkInterface",
    "DisassociateAddress",
    "DisassociateRouteTable",
    "DisassociateSubnetCidrBlock",
    "DisassociateTrunkInterface",
    "DisassociateVpcCidrBlock",
    "GetSubnetCidrReservations",
    "ModifyInstanceMetadataOptions",
    "ModifyNetworkInterfaceAttribute",
    "ModifySubnetAttribute",
    "ModifyVpcAttribute",
    "ReleaseAddress",
    "ReplaceRoute",
    "ReplaceRouteTableAssociation",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
    "RunInstances",
    "TerminateInstances",
    "UnassignIpv6Addresses",
    "UnassignPrivateIpAddresses",
})  # fmt: skip
"""The actions that are answered. moto answers many more, of which no packet would know."""

RESHAPING = (
    "Vpc", "Subnet", "Route", "Gateway", "SecurityGroup", "Address",
)  # fmt: skip
"""What the name of a changing action has in it after which packets may go other ways."""


def reshapes(action: str) -> bool:
    """Return whether *action* changes more than single ENIs: CIDRs, ways out, groups' rules."""
    return not action.startswith(("Describe", "Get")) and any(
        word in action.replace("PrivateIpAddresses", "").replace("Ipv6Addresses", "")
        for word in RESHAPING
    )


def fresh_backend(region: str) -> VpcBackend:
    """Return an empty EC2 of ours for *region*; whatever was there is forgotten.

    Raises ValueError for a region that moto does not know.
    """
    if region not in RegionsAndZonesBackend.zones:
        known = ", ".join(sorted(RegionsAndZonesBackend.zones))
        raise ValueError(f"'{region}' is not a region of the embedded EC2; there are {known}")
    ec2_backends.backend = VpcBackend
    ec2_backends.clear()
    VpcBackend._url_module = SimpleNamespace(  # noqa: SLF001 - moto's seam for the response class
        url_bases=ec2_urls.url_bases, url_paths={"{0}/": VpcResponse.dispatch}
    )
    backend = ec2_backends[ACCOUNT][region]
    assert isinstance(backend, VpcBackend)  # noqa: S101 - set some lines above
    VpcResponse.backend = backend
    return backend
