"""Which resources a call is about, and what IAM may ask of them. Shell: reads EC2's state.

The tables are the Service Authorization Reference's, "Actions, resources, and condition keys for
Amazon EC2". A call is asked about resource by resource: all of them must be allowed. What a call
makes has no id yet: its ARN ends in a star, and its tags are those of the request. What comes along
with a call and is tagged, as a rule of a security group, is asked about for its tags only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from vpclab.ec2.backend import VpcBackend
from vpclab.iam import Ask, folded

Parameters = Mapping[str, Any]
Said = Mapping[str, str]
"""Keys of a request's context, with their values."""

KINDS = {
    "ami": "image",
    "eigw": "egress-only-internet-gateway",
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "i": "instance",
    "igw": "internet-gateway",
    "nat": "natgateway",
    "rtb": "route-table",
    "scr": "subnet-cidr-reservation",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
"""What kind of resource an id names, by what it begins with."""


@dataclass(frozen=True, slots=True)
class About:
    """The parameters with ids of resources, and the kinds of resources that a call makes.

    A dot leads into a structure, or into each of a list. An id of an attachment or an association
    stands for what it joins.
    """

    ids: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()


ENI = About(("NetworkInterfaceId",))
GROUP = About(("GroupId",))
ROUTES = About(("RouteTableId",))
SUBNET = About(("SubnetId",))
VPC = About(("VpcId",))
ABOUT = {
    "AllocateAddress": About(makes=("elastic-ip",)),
    "AssignIpv6Addresses": ENI,
    "AssignPrivateIpAddresses": ENI,
    "AssociateAddress": About(("AllocationId", "InstanceId", "NetworkInterfaceId")),
    "AssociateRouteTable": About(("RouteTableId", "SubnetId", "GatewayId")),
    "AssociateSubnetCidrBlock": SUBNET,
    "AssociateTrunkInterface": About(),
    "AssociateVpcCidrBlock": VPC,
    "AttachInternetGateway": About(("InternetGatewayId", "VpcId")),
    "AttachNetworkInterface": About(("InstanceId", "NetworkInterfaceId")),
    "AuthorizeSecurityGroupEgress": GROUP,
    "AuthorizeSecurityGroupIngress": GROUP,
    "CreateEgressOnlyInternetGateway": About(("VpcId",), ("egress-only-internet-gateway",)),
    "CreateInternetGateway": About(makes=("internet-gateway",)),
    "CreateNatGateway": About(("AllocationId", "SubnetId"), ("natgateway",)),
    "CreateNetworkInterface": About(("SubnetId", "Groups"), ("network-interface",)),
    "CreateRoute": ROUTES,
    "CreateRouteTable": About(("VpcId",), ("route-table",)),
    "CreateSecurityGroup": About(("VpcId",), ("security-group",)),
    "CreateSubnet": About(("VpcId",), ("subnet",)),
    "CreateSubnetCidrReservation": SUBNET,
    "CreateTags": About(("Resources",)),
    "CreateVpc": About(makes=("vpc",)),
    "DeleteEgressOnlyInternetGateway": About(("EgressOnlyInternetGatewayId",)),
    "DeleteInternetGateway": About(("InternetGatewayId",)),
    "DeleteNatGateway": About(("NatGatewayId",)),
    "DeleteNetworkInterface": ENI,
    "DeleteRoute": ROUTES,
    "DeleteRouteTable": ROUTES,
    "DeleteSecurityGroup": GROUP,
    "DeleteSubnet": SUBNET,
    "DeleteSubnetCidrReservation": About(),
    "DeleteTags": About(("Resources",)),
    "DeleteVpc": VPC,
    "DescribeVpcAttribute": VPC,
    "DetachInternetGateway": About(("InternetGatewayId", "VpcId")),
    "DetachNetworkInterface": About(("AttachmentId",)),
    "DisassociateAddress": About(("AssociationId",)),
    "DisassociateRouteTable": About(("AssociationId",)),
    "DisassociateSubnetCidrBlock": About(("AssociationId",)),
    "DisassociateTrunkInterface": About(),
    "DisassociateVpcCidrBlock": About(("AssociationId",)),
    "ModifyInstanceMetadataOptions": About(("InstanceId",)),
    "ModifyNetworkInterfaceAttribute": About(
        ("NetworkInterfaceId", "Groups", "Attachment.AttachmentId")
    ),
    "ModifySubnetAttribute": SUBNET,
    "ModifyVpcAttribute": VPC,
    "ReleaseAddress": About(("AllocationId",)),
    "ReplaceRoute": ROUTES,
    "ReplaceRouteTableAssociation": About(("AssociationId", "RouteTableId")),
    "RevokeSecurityGroupEgress": GROUP,
    "RevokeSecurityGroupIngress": GROUP,
    "RunInstances": About(
        (
            "ImageId", "SubnetId", "SecurityGroupIds", "NetworkInterfaces.SubnetId",
            "NetworkInterfaces.Groups", "NetworkInterfaces.NetworkInterfaceId",
        ),
        ("instance", "network-interface", "volume"),
    ),
    "TerminateInstances": About(("InstanceIds",)),
    "UnassignIpv6Addresses": ENI,
    "UnassignPrivateIpAddresses": ENI,
}  # fmt: skip
"""What each action is about. One that is not here, or about nothing, is asked of every resource:
Describe and Get have no resources, nor have the few with an empty line."""


def asks(backend: VpcBackend, action: str, parameters: Parameters, caller: Said) -> Iterator[Ask]:
    """Yield everything that must be allowed for a call; *caller* is what is known of who calls."""
    places = Places(backend)
    about = ABOUT.get(action, About())
    ids = dict.fromkeys(
        found
        for path in about.ids
        for text in _texts(parameters, path.split("."))
        for found in places.behind(text)
    )
    said = {**places.everywhere(), **caller}
    tagging = _request_tags(parameters.get("Tags") or ()) if action.endswith("Tags") else {}
    for identifier in ids:
        arn = places.arn(identifier)
        known = {**said, **tagging, **places.of(identifier), "aws:ARN": arn, "ec2:ARN": arn}
        yield Ask(f"ec2:{action}", arn, folded(known))
    given = _given_tags(parameters)
    for kind in about.makes:
        arn = places.arn_of(kind, "*")
        made = {**said, **_new(places, kind, parameters), "aws:ARN": arn, "ec2:ARN": arn}
        tags = _request_tags(given.get(kind, ()))
        yield Ask(f"ec2:{action}", arn, folded({**made, **tags}))
        if tags:
            yield Ask("ec2:CreateTags", arn, folded({**made, **tags, "ec2:CreateAction": action}))
    for kind in [kind for kind in given if kind not in about.makes]:
        arn = places.arn_of(kind, "*")
        made = {**said, "aws:ARN": arn, "ec2:ARN": arn, "ec2:CreateAction": action}
        yield Ask("ec2:CreateTags", arn, folded({**made, **_request_tags(given[kind])}))
    if not ids and not about.makes:
        yield Ask(f"ec2:{action}", "*", folded(said))


def _texts(value: Any, path: list[str]) -> Iterator[str]:
    """Yield the texts at *path*, of every item where there is a list."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, path)
    elif path:
        if isinstance(value, Mapping):
            yield from _texts(value.get(path[0]), path[1:])
    elif value is not None:
        yield str(value)


def _given_tags(parameters: Parameters) -> dict[str, list[Parameters]]:
    """Return the tags that a call gives to what it makes, by kind."""
    found: dict[str, list[Parameters]] = {}
    for specification in parameters.get("TagSpecifications") or ():
        kind = specification.get("ResourceType")
        found.setdefault(str(kind), []).extend(specification.get("Tags") or ())
    return found


def _request_tags(tags: Iterable[Parameters]) -> dict[str, str | tuple[str, ...]]:
    listed = {str(tag.get("Key")): str(tag.get("Value") or "") for tag in tags}
    if not listed:
        return {}
    return {f"aws:RequestTag/{k}": v for k, v in listed.items()} | {"aws:TagKeys": tuple(listed)}


def _new(places: Places, kind: str, parameters: Parameters) -> dict[str, str]:
    """Return what is known of a resource that is to be made, as the reference has it.

    Where it will be is told by RunInstances only: CreateNetworkInterface tells no subnet of its
    ENI, and others no VPC.
    """
    subnets = [*_texts(parameters, ["SubnetId"])]
    subnets += _texts(parameters, ["NetworkInterfaces", "SubnetId"])
    there = places.in_subnet(subnets[0]) if subnets else {}
    launched = parameters.get("InstanceType")
    match kind:
        case "instance":
            return {"ec2:InstanceType": str(launched), **_only(there, "ec2:AvailabilityZone")}
        case "network-interface" if launched:
            public = [*_texts(parameters, ["NetworkInterfaces", "AssociatePublicIpAddress"])]
            return {**there, "ec2:AssociatePublicIpAddress": str("True" in public).lower()}
        case _:
            return {}


def _only(known: dict[str, str], *names: str) -> dict[str, str]:
    return {name: known[name] for name in names if name in known}


class Places:
    """What EC2 knows of its resources, in the words of IAM's keys."""

    def __init__(self, backend: VpcBackend) -> None:
        self._backend = backend

    def everywhere(self) -> dict[str, str]:
        """Return what every request says. TLS is said to be there: the lab's endpoint has none."""
        region = self._backend.region_name
        return {
            "aws:RequestedRegion": region, "ec2:Region": region,
            "aws:SecureTransport": "true", "aws:ViaAWSService": "false",
        }  # fmt: skip

    def arn_of(self, kind: str, identifier: str) -> str:
        """Return the ARN of a resource; an image is nobody's."""
        account = "" if kind == "image" else self._backend.account_id
        return f"arn:aws:ec2:{self._backend.region_name}:{account}:{kind}/{identifier}"

    def arn(self, identifier: str) -> str:
        """Return the ARN of the resource with this id."""
        return self.arn_of(KINDS.get(identifier.partition("-")[0], "unknown"), identifier)

    def behind(self, identifier: str) -> list[str]:
        """Return the ids of the resources that an id means: an association's are those it joins."""
        backend, kind = self._backend, identifier.rpartition("-")[0]
        found: Iterable[str | None] = [identifier]
        if kind == "eni-attach":
            enis = [e for e in backend.enis.values() if e.attachment_id == identifier]
            found = [i for e in enis for i in (e.instance.id, e.id)]
        elif kind == "eipassoc":
            joined = [e for e in backend.addresses if e.association_id == identifier]
            found = [i for e in joined for i in (e.allocation_id, e.eni and e.eni.id)]
        elif kind == "rtbassoc":
            tables = backend.route_tables.values()
            found = [i for t in tables for i in (t.id, _at(t, identifier)) if _at(t, identifier)]
        elif kind == "vpc-cidr-assoc":
            vpcs = backend.vpcs.values()
            found = [v.id for v in vpcs if identifier in v._cidr_block_association_set]  # noqa: SLF001 - no other way
        elif kind == "subnet-cidr-assoc":
            subnets = backend.describe_subnets()
            found = [s.id for s in subnets if identifier in s.ipv6_cidr_block_associations]
        return [i for i in found if i]

    def of(self, identifier: str) -> dict[str, str]:
        """Return what is known of a resource: its tags, where it is. Nothing of one that is not."""
        known = {
            f"{prefix}:ResourceTag/{key}": value
            for key, value in self._backend.tags.get(identifier, {}).items()
            for prefix in ("aws", "ec2")
        }
        kind = KINDS.get(identifier.partition("-")[0], "")
        with contextlib.suppress(EC2ClientError, KeyError):  # it is not there: EC2 or IAM says no
            known |= self._place(kind, identifier)
        return known

    def _place(self, kind: str, identifier: str) -> dict[str, str]:
        match kind:
            case "network-interface":
                known = self.in_subnet(self._backend.enis[identifier].subnet.id)
                return {"ec2:NetworkInterfaceID": identifier, **known}
            case "subnet":
                known = _only(self.in_subnet(identifier), "ec2:Vpc", "ec2:AvailabilityZone")
                return {"ec2:SubnetID": identifier, **known}
            case "instance":
                instance = self._backend.get_instance(identifier)
                return {
                    "ec2:InstanceID": identifier,
                    "ec2:InstanceType": instance.instance_type,
                    "ec2:AvailabilityZone": instance.placement.availability_zone,
                }
            case "vpc":
                return {"ec2:VpcID": identifier}
            case _:
                return self._vpc_of(kind, identifier)

    def _vpc_of(self, kind: str, identifier: str) -> dict[str, str]:
        backend = self._backend
        found: Mapping[str, Any] = {
            "security-group": {
                g.id: g for groups in backend.groups.values() for g in groups.values()
            },
            "route-table": backend.route_tables,
            "natgateway": backend.nat_gateways,
        }.get(kind, {})
        thing = found.get(identifier)
        name = {"ec2:SecurityGroupID": identifier} if kind == "security-group" else {}
        return {**name, "ec2:Vpc": self.arn(thing.vpc_id)} if thing is not None else name

    def in_subnet(self, subnet_id: str) -> dict[str, str]:
        """Return what is known of an ENI in a subnet."""
        with contextlib.suppress(EC2ClientError):
            subnet = self._backend.get_subnet(subnet_id)
            return {
                "ec2:Subnet": self.arn(subnet_id),
                "ec2:Vpc": self.arn(subnet.vpc_id),
                "ec2:AvailabilityZone": subnet.availability_zone,
            }
        return {}


def _at(table: Any, association_id: str) -> str | None:
    """Return the subnet that a route table's association joins."""
    subnet_id: str | None = table._associations.get(association_id)  # noqa: SLF001 - no other way
    return subnet_id
