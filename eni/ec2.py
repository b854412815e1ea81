"""EC2's control plane in our words: the real `eni.calls.Ec2Calls`. Shell.

Each method is one action of EC2, named where it is called; which parameters it has is known
here, what its answer means in parse.py, and what becomes of a failure in session.py.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any, Final

from eni import parse
from eni.errors import NotFoundError
from eni.model import AttachmentId, Kind, kind_of
from eni.session import Session

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SubnetCidrReservationTypeDef

    from eni.limits import InstanceLimits
    from eni.model import (
        Block,
        CreateEni,
        Eni,
        EniId,
        InstanceId,
        SecurityGroupId,
        Subnet,
        SubnetId,
        VpcId,
    )
    from eni.session import Took

PAGE_SIZE: Final = 1000
"""EC2's maximum: one call for any instance, since none takes a hundred ENIs."""

WORDS: Final = {Kind.SINGLE: ("address", "addresses"), Kind.PREFIX: ("prefix", "prefixes")}


class Ec2:
    """The calls that a node makes, counted. Any number of threads may use one.

    *endpoint_url* takes the place of the region's endpoint. *http_timeout_seconds* is how long
    EC2 may keep silent: what it has not answered by then has an unknown outcome.
    """

    def __init__(
        self,
        *,
        region: str,
        endpoint_url: str | None = None,
        total_attempts: int = 4,
        http_timeout_seconds: float = 10,
    ) -> None:
        self._session = Session(
            region=region,
            endpoint_url=endpoint_url,
            total_attempts=total_attempts,
            timeout_seconds=http_timeout_seconds,
        )

    # What it cost ----------------------------------------------------------------------
    @property
    def calls(self) -> Counter[str]:
        """Requests by action as they went out, pages and repeats included."""
        return self._session.calls

    @property
    def errors(self) -> Counter[tuple[str, str]]:
        """Failures by action and error id."""
        return self._session.errors

    @property
    def took(self) -> Mapping[str, Took]:
        """How long EC2 took, by action; a request that is under way is not in it yet."""
        return self._session.took

    # Questions -------------------------------------------------------------------------
    def attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """Return every ENI that is attached to the instance, or on its way there or away."""
        return self._enis(f"attached to {instance_id}", {"attachment.instance-id": instance_id})

    def by_tag(self, key: str, value: str) -> tuple[Eni, ...]:
        """Return the ENIs with this tag; a new ENI may be missing for some seconds."""
        return self._enis(f"with tag {key} {value}", {f"tag:{key}": value})

    def available(self, tags: Collection[tuple[str, str]]) -> tuple[Eni, ...]:
        """Return every ENI that nobody uses and that carries all *tags*; "" is any value.

        EC2's filters only save bytes: it reads * and ? in a value as signs, and it is not
        written what two filters of one name mean. What may be deleted is what the answer says.
        """
        filters = {"status": "available"}
        for key, value in tags:
            filters |= {f"tag:{key}": value} if value else {"tag-key": key}
        shown = ", ".join(f"{key}={value or '*'}" for key, value in tags)
        found = self._enis(f"available with tags {shown}", filters)
        return tuple(
            eni
            for eni in found
            if all(key in eni.tags and value in {"", eni.tags[key]} for key, value in tags)
        )

    def _enis(self, which: str, filters: Mapping[str, str]) -> tuple[Eni, ...]:
        return self._session.ask(
            "DescribeNetworkInterfaces",
            f"list the ENIs {which}",
            lambda client: tuple(
                parse.eni(raw)
                for page in client.get_paginator("describe_network_interfaces").paginate(
                    Filters=_filters(filters), PaginationConfig={"PageSize": PAGE_SIZE}
                )
                for raw in page["NetworkInterfaces"]
            ),
        )

    def eni(self, eni_id: EniId) -> Eni | None:
        """Return the ENI; None if EC2 says that there is none."""
        try:
            return self._session.ask(
                "DescribeNetworkInterfaces",
                f"describe {eni_id}",
                lambda client: parse.eni(
                    client.describe_network_interfaces(NetworkInterfaceIds=[eni_id])[
                        "NetworkInterfaces"
                    ][0]
                ),
            )
        except NotFoundError:
            return None

    def subnet(self, subnet_id: SubnetId) -> Subnet:
        """Return the subnet with EC2's present count of free addresses."""
        return self._session.ask(
            "DescribeSubnets",
            f"describe {subnet_id}",
            lambda client: parse.subnet(
                client.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]
            ),
        )

    def subnets(self, vpc_id: VpcId, availability_zone: str) -> tuple[Subnet, ...]:
        """Return every subnet of the VPC in the zone, by id."""
        filters = {"vpc-id": vpc_id, "availability-zone": availability_zone}
        found = self._session.ask(
            "DescribeSubnets",
            f"list the subnets of {vpc_id} in {availability_zone}",
            lambda client: [
                parse.subnet(raw)
                for page in client.get_paginator("describe_subnets").paginate(
                    Filters=_filters(filters), PaginationConfig={"PageSize": PAGE_SIZE}
                )
                for raw in page["Subnets"]
            ],
        )
        return tuple(sorted(found, key=lambda subnet: subnet.id))

    def reservations(self, subnet_id: SubnetId) -> tuple[IPv4Network, ...]:
        """Return the IPv4 CIDR reservations of type `prefix` in the subnet."""
        return self._session.ask(
            "GetSubnetCidrReservations",
            f"list the CIDR reservations of {subnet_id}",
            lambda client: tuple(
                IPv4Network(raw["Cidr"])
                for raw in _reservations(client, subnet_id)
                if raw["ReservationType"] == "prefix"
            ),
        )

    def limits(self, instance_type: str) -> InstanceLimits:
        """Return what EC2 says that this type takes."""
        return self._session.ask(
            "DescribeInstanceTypes",
            f"describe instance type {instance_type}",
            lambda client: parse.limits(
                client.describe_instance_types(
                    InstanceTypes=[instance_type]  # type: ignore[list-item] # EC2 has newer types than the stubs
                )["InstanceTypes"][0]
            ),
        )

    # Mutations -------------------------------------------------------------------------
    def create(self, wish: CreateEni) -> Eni:
        """Create the ENI, or return the one that the same wish created before."""
        counts: Mapping[str, Any] = {
            "SecondaryPrivateIpAddressCount": wish.secondary_count,
            "Ipv4PrefixCount": wish.prefix_count,
        }
        return self._session.act(
            "CreateNetworkInterface",
            f"create an ENI with {_counted(wish)} in {wish.subnet_id}",
            lambda client: parse.eni(
                client.create_network_interface(
                    ClientToken=wish.token,
                    SubnetId=wish.subnet_id,
                    Groups=list(wish.security_groups),
                    Description=wish.description,
                    TagSpecifications=[
                        {"ResourceType": "network-interface", "Tags": _tags(wish.tags)}
                    ],
                    # EC2 refuses a count of 0, so that it is left out.
                    **{name: count for name, count in counts.items() if count},
                )["NetworkInterface"]
            ),
            prefixes=wish.prefix_count > 0,
        )

    def attach(
        self, eni_id: EniId, instance_id: InstanceId, device_index: int, network_card: int = 0
    ) -> AttachmentId:
        """Attach the ENI; EC2 answers seconds before the instance sees it."""
        # Most types have one card and know of no index.
        card: dict[str, Any] = {"NetworkCardIndex": network_card} if network_card else {}
        on_card = f" of network card {network_card}" if network_card else ""
        return self._session.act(
            "AttachNetworkInterface",
            f"attach {eni_id} to {instance_id} at device index {device_index}{on_card}",
            lambda client: AttachmentId(
                client.attach_network_interface(
                    NetworkInterfaceId=eni_id,
                    InstanceId=instance_id,
                    DeviceIndex=device_index,
                    **card,
                )["AttachmentId"]
            ),
        )

    def delete_on_termination(self, eni_id: EniId, attachment_id: AttachmentId) -> None:
        """Let the ENI go with its instance; EC2 has no way to say so when attaching."""
        self._session.act(
            "ModifyNetworkInterfaceAttribute",
            f"set DeleteOnTermination of {eni_id} ({attachment_id})",
            lambda client: client.modify_network_interface_attribute(
                NetworkInterfaceId=eni_id,
                Attachment={"AttachmentId": attachment_id, "DeleteOnTermination": True},
            ),
        )

    def set_groups(self, eni_id: EniId, groups: Sequence[SecurityGroupId]) -> None:
        """Give the ENI exactly these security groups."""
        self._session.act(
            "ModifyNetworkInterfaceAttribute",
            f"set the security groups of {eni_id} to {', '.join(groups)}",
            lambda client: client.modify_network_interface_attribute(
                NetworkInterfaceId=eni_id, Groups=list(groups)
            ),
        )

    def tag(self, eni_id: EniId, tags: Sequence[tuple[str, str]]) -> None:
        """Add *tags*, replacing those of the same key."""
        self._session.act(
            "CreateTags",
            f"tag {eni_id} with {', '.join(f'{key}={value}' for key, value in tags)}",
            lambda client: client.create_tags(Resources=[eni_id], Tags=_tags(tags)),
        )

    def detach(self, attachment_id: AttachmentId) -> None:
        """Begin to detach; it is done when a describe says so."""
        self._session.act(
            "DetachNetworkInterface",
            f"detach {attachment_id}",
            lambda client: client.detach_network_interface(AttachmentId=attachment_id),
        )

    def delete(self, eni_id: EniId) -> None:
        """Delete the ENI; NotFoundError if it is gone, InvalidStateError while it is attached."""
        self._session.act(
            "DeleteNetworkInterface",
            f"delete {eni_id}",
            lambda client: client.delete_network_interface(NetworkInterfaceId=eni_id),
        )

    def assign(self, eni_id: EniId, kind: Kind, count: int) -> tuple[Block, ...]:
        """Return the *count* blocks of *kind* that the ENI got, all or none.

        An answer that names fewer or more is an unknown outcome, to be looked into.
        """
        return self._session.act(
            "AssignPrivateIpAddresses",
            f"assign {count} more {WORDS[kind][count != 1]} to {eni_id}",
            lambda client: _exactly(count, _assigned(client, eni_id, kind, count)),
            prefixes=kind is Kind.PREFIX,
        )

    def unassign(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """Take all of *blocks*, or none: NotFoundError if the ENI lacks one.

        Raises ValueError unless they are of one kind: that would be two calls.
        """
        kinds = {kind_of(block) for block in blocks}
        if len(kinds) != 1:
            shown = ", ".join(map(str, blocks)) or "nothing"
            raise ValueError(f"one call unassigns addresses or prefixes, not {shown}")
        named: dict[str, Any] = (
            {"Ipv4Prefixes": [str(block) for block in blocks]}
            if Kind.PREFIX in kinds
            else {"PrivateIpAddresses": [str(block.network_address) for block in blocks]}
        )
        (shown,) = named.values()
        self._session.act(
            "UnassignPrivateIpAddresses",
            f"unassign {', '.join(shown)} from {eni_id}",
            lambda client: client.unassign_private_ip_addresses(NetworkInterfaceId=eni_id, **named),
        )


def _filters(wanted: Mapping[str, str]) -> list[FilterTypeDef]:
    return [{"Name": name, "Values": [value]} for name, value in wanted.items()]


def _tags(tags: Sequence[tuple[str, str]]) -> list[Any]:
    return [{"Key": key, "Value": value} for key, value in tags]


def _counted(wish: CreateEni) -> str:
    if wish.prefix_count:
        return f"{wish.prefix_count} {WORDS[Kind.PREFIX][wish.prefix_count != 1]}"
    return f"{wish.secondary_count + 1} {WORDS[Kind.SINGLE][wish.secondary_count > 0]}"


def _reservations(client: EC2Client, subnet_id: SubnetId) -> Iterator[SubnetCidrReservationTypeDef]:
    """Yield a subnet's IPv4 reservations; botocore has no paginator for them."""
    more: dict[str, Any] = {}
    while True:
        page = client.get_subnet_cidr_reservations(SubnetId=subnet_id, **more)
        yield from page["SubnetIpv4CidrReservations"]
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def _assigned(client: EC2Client, eni_id: EniId, kind: Kind, count: int) -> tuple[Block, ...]:
    if kind is Kind.PREFIX:
        answer = client.assign_private_ip_addresses(
            NetworkInterfaceId=eni_id, Ipv4PrefixCount=count
        )
        return tuple(IPv4Network(raw["Ipv4Prefix"]) for raw in answer["AssignedIpv4Prefixes"])
    answer = client.assign_private_ip_addresses(
        NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=count
    )
    addresses = (raw["PrivateIpAddress"] for raw in answer["AssignedPrivateIpAddresses"])
    return tuple(IPv4Network(IPv4Address(address)) for address in addresses)


def _exactly(count: int, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    if len(blocks) != count:
        raise ValueError(f"EC2 names {', '.join(map(str, blocks)) or 'nothing'}, not {count}")
    return blocks
