"""EC2's answers as values of model.py. Pure.

The only place that knows EC2's field names. A field that EC2 always gives is
taken by [], so that an answer without it is a KeyError and never half a value.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from eni.limits import InstanceLimits
from eni.model import (
    Attachment,
    AttachmentId,
    AttachmentStatus,
    Eni,
    EniId,
    InstanceId,
    SecurityGroupId,
    Subnet,
    SubnetId,
    VpcId,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        InstanceTypeInfoTypeDef,
        NetworkInterfaceAttachmentTypeDef,
        NetworkInterfaceTypeDef,
        SubnetTypeDef,
    )

    from eni.model import Network


def attachment(raw: NetworkInterfaceAttachmentTypeDef) -> Attachment:
    """Return the attachment; one to an AWS service has an empty instance id."""
    return Attachment(
        id=AttachmentId(raw["AttachmentId"]),
        instance_id=InstanceId(raw.get("InstanceId", "")),
        device_index=raw["DeviceIndex"],
        network_card=raw.get("NetworkCardIndex", 0),
        status=AttachmentStatus(raw["Status"]),
        delete_on_termination=raw["DeleteOnTermination"],
    )


def eni(raw: NetworkInterfaceTypeDef) -> Eni:
    """Return the ENI of a describe's or a create's answer."""
    primary = raw.get("PrivateIpAddress")
    prefixes: tuple[Network, ...] = (
        *(IPv4Network(prefix["Ipv4Prefix"]) for prefix in raw.get("Ipv4Prefixes", ())),
        *(IPv6Network(prefix["Ipv6Prefix"]) for prefix in raw.get("Ipv6Prefixes", ())),
    )
    return Eni(
        id=EniId(raw["NetworkInterfaceId"]),
        mac=raw["MacAddress"].lower(),
        subnet_id=SubnetId(raw["SubnetId"]),
        status=raw["Status"],
        description=raw.get("Description", ""),
        interface_type=raw.get("InterfaceType", "interface"),
        primary=IPv4Address(primary) if primary else None,
        secondary=tuple(
            IPv4Address(address["PrivateIpAddress"])
            for address in raw.get("PrivateIpAddresses", ())
            if not address["Primary"]
        ),
        ipv6=tuple(IPv6Address(address["Ipv6Address"]) for address in raw.get("Ipv6Addresses", ())),
        prefixes=prefixes,
        security_groups=tuple(SecurityGroupId(group["GroupId"]) for group in raw.get("Groups", ())),
        tags={tag["Key"]: tag["Value"] for tag in raw.get("TagSet", ())},
        attachment=attachment(raw["Attachment"]) if raw.get("Attachment") else None,
    )


def subnet(raw: SubnetTypeDef) -> Subnet:
    """Return the subnet with its tags and those of its IPv6 CIDRs that are in use now."""
    return Subnet(
        id=SubnetId(raw["SubnetId"]),
        vpc_id=VpcId(raw["VpcId"]),
        cidr=IPv4Network(raw["CidrBlock"]),
        ipv6_cidrs=tuple(
            IPv6Network(association["Ipv6CidrBlock"])
            for association in raw.get("Ipv6CidrBlockAssociationSet", ())
            if association["Ipv6CidrBlockState"]["State"] == "associated"
        ),
        availability_zone=raw["AvailabilityZone"],
        available=raw["AvailableIpAddressCount"],
        tags={tag["Key"]: tag["Value"] for tag in raw.get("Tags", ())},
    )


def limits(raw: InstanceTypeInfoTypeDef) -> InstanceLimits:
    """Return the limits, with the default network card's number of ENIs."""
    network = raw["NetworkInfo"]
    default = network.get("DefaultNetworkCardIndex", 0)
    cards = {
        card["NetworkCardIndex"]: card["MaximumNetworkInterfaces"]
        for card in network["NetworkCards"]
    }
    return InstanceLimits(
        instance_type=raw["InstanceType"],
        enis=cards[default],
        ipv4_per_eni=network["Ipv4AddressesPerInterface"],
        ipv6_per_eni=network["Ipv6AddressesPerInterface"],
        cards=tuple(sorted(cards.items())),
        hypervisor=raw.get("Hypervisor", ""),
        bare_metal=raw["BareMetal"],
        vcpus=raw["VCpuInfo"]["DefaultVCpus"],
    )
