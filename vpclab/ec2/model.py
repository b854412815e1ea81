"""What EC2 keeps of a subnet and an ENI, as moto's classes with ours in their place. Shell."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, Self

from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidCidrReservationNotWithinSubnetCidr,
    InvalidCidrReservationOverlapExisting,
)
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.subnets import Subnet, SubnetCidrReservation

from vpclab.ec2.addresses import AddressBook, AddressError, Network, Reservation
from vpclab.faults import Latency


@dataclass(slots=True)
class Delays:
    """How long a state lasts on its way, in seconds; 0 is at once.

    A Latency is drawn for each ENI anew: `delays.attach_seconds = Latency(4, 60)`.
    """

    attach_seconds: float | Latency = 0.0
    detach_seconds: float | Latency = 0.0


class VpcSubnet(Subnet):
    """A subnet with an address book for each family."""

    def adopt(self) -> None:
        """Begin the books; called once, when moto has made the subnet."""
        self.book4 = AddressBook(IPv4Network(self.cidr_block), self.id)
        self._books6: dict[str, AddressBook] = {}

    @property
    def cidrs6(self) -> list[str]:
        """Its IPv6 CIDRs."""
        return [
            association["ipv6CidrBlock"]
            for association in self.ipv6_cidr_block_associations.values()
            if association["ipv6CidrBlockState"]["State"] == "associated"
        ]

    @property
    def book6(self) -> AddressBook:
        """Its IPv6 addresses. Raises EC2ClientError where it has none."""
        for cidr in self.cidrs6:
            if cidr not in self._books6:
                self._books6[cidr] = AddressBook(IPv6Network(cidr), self.id)
            return self._books6[cidr]
        raise EC2ClientError(
            "InvalidParameterValue", f"The subnet {self.id} has no IPv6 CIDR block associated"
        )

    @property
    def books(self) -> list[AddressBook]:
        """Its address books."""
        return [self.book4, *self._books6.values()]

    @property
    def available_ip_address_count(self) -> int:
        """Return what DescribeSubnets tells."""
        return self.book4.free

    @property
    def taken(self) -> frozenset[Network]:
        """Every address and prefix that is on an ENI."""
        return frozenset(thing for book in self.books for thing in book.taken)

    def create_cidr_reservation(
        self,
        reservation_type: str,
        cidr_block: Network,
        tag_specifications: list[dict[str, Any]] | None = None,
    ) -> SubnetCidrReservation:
        """Reserve a part of the subnet; moto would go through its addresses one by one."""
        mine = [ip_network(cidr) for cidr in (self.cidr_block, *self.cidrs6)]
        if not any(_holds(outer, cidr_block) for outer in mine):
            raise InvalidCidrReservationNotWithinSubnetCidr(", ".join(map(str, mine)))
        for other in self._cidr_reservations:
            if _holds(other.cidr, cidr_block) or _holds(cidr_block, other.cidr):
                raise InvalidCidrReservationOverlapExisting(str(cidr_block))
        made = SubnetCidrReservation(
            self.ec2_backend, self.id, cidr_block, reservation_type,
            self.owner_id, tag_specifications,
        )  # fmt: skip
        self._cidr_reservations.append(made)
        self._note_reservations()
        return made

    def delete_subnet_cidr_reservation(self, reservation_id: str) -> SubnetCidrReservation | None:
        """Give a reserved part back to automatic assignment; None: it is not one of this subnet."""
        for made in self._cidr_reservations:
            if made.id == reservation_id:
                self._cidr_reservations.remove(made)
                self._note_reservations()
                return made
        return None

    def _note_reservations(self) -> None:
        listed = [Reservation(r.cidr, r.reservation_type) for r in self._cidr_reservations]
        books = [self.book4, *([self.book6] if self.cidrs6 else [])]
        for book in books:
            book.reservations = [r for r in listed if r.cidr.version == book.network.version]

    # What moto calls when it launches an instance.
    def get_available_subnet_ip(self, instance: object) -> str:  # noqa: ARG002 - moto's signature
        """Return the address of a new primary ENI."""
        with translated():
            return str(self.book4.take(1)[0])

    def request_ip(self, ip: str, instance: object) -> None:  # noqa: ARG002 - moto's signature
        """Take the address that RunInstances names."""
        try:
            address = IPv4Address(ip)
        except ValueError:
            raise EC2ClientError("InvalidParameterValue", f"'{ip}' is not an address") from None
        with translated():
            self.book4.take_exactly(address)

    def del_subnet_ip(self, ip: str) -> None:
        """Do nothing: an ENI gives its addresses back when it goes."""


def _holds(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and outer.supernet_of(inner)  # type: ignore[arg-type] # one version


class translated:  # noqa: N801 - it reads as a word before a block
    """Lets what an address book refuses be EC2's error."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise EC2ClientError for AddressError."""
        if isinstance(error, AddressError):
            raise EC2ClientError(error.code, str(error)) from None


class Attachment:
    """An attachment as DescribeNetworkInterfaces shows it."""

    def __init__(self, eni: Eni) -> None:
        self.attach_time = eni.attach_time
        self.attachment_id = eni.attachment_id
        self.delete_on_termination = eni.delete_on_termination
        self.device_index = eni.device_index
        self.network_card_index = eni.card
        self.instance_id = eni.instance.id
        self.instance_owner_id = eni.instance.owner_id
        self.status = eni.attachment_status


class Eni(NetworkInterface):
    """An ENI that owns its addresses and knows how far its attachment is."""

    class Meta:
        """moto guesses the name of the id from the class's name; ours is another."""

        serialization_aliases = {"NetworkInterfaceId": "id"}  # noqa: RUF012 - moto's format

    _macs = itertools.count(1)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.public: dict[str, str] = {}
        self._seen: tuple[float, list[dict[str, str]]] | None = None
        self._is_new = False
        super().__init__(*arguments, **keywords)
        self.connection_tracking_configuration: dict[str, Any] | None = None
        for item in self.private_ip_addresses:
            item["PrivateDnsName"] = self._name_of(item["PrivateIpAddress"])
        number = next(self._macs)
        # Locally administered, never 0a:58, which pods have.
        self.mac_address = ":".join(f"{b:02x}" for b in (0x02, *number.to_bytes(5, "big")))
        self.attached_at = 0.0
        self.detached_at: float | None = None
        self.card = 0
        self.trunk_id: str | None = None
        self.prefixes: list[str] = []
        self.prefixes6: list[str] = []
        self.addresses6: list[str] = []

    # What it owns -----------------------------------------------------------------------
    @property
    def addresses(self) -> list[str]:
        """Every IPv4 address it owns, the primary first; an efa-only ENI has none."""
        if self.private_ip_address is None:
            return []
        listed = [item["PrivateIpAddress"] for item in self.private_ip_addresses]
        return [self.private_ip_address, *(a for a in listed if a != self.private_ip_address)]

    def add(self, addresses: Iterable[str]) -> None:
        """Add secondary addresses."""
        self.private_ip_addresses += [
            {"Primary": False, "PrivateIpAddress": a, "PrivateDnsName": self._name_of(a)}
            for a in addresses
        ]

    def _name_of(self, address: str) -> str:
        region = self.ec2_backend.region_name
        domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
        return f"ip-{address.replace('.', '-')}.{domain}"

    @property
    def private_dns_name(self) -> str | None:
        """The name of its primary address, as in a VPC with `enableDnsHostnames`."""
        return self._name_of(self.private_ip_address) if self.private_ip_address else None

    @private_dns_name.setter
    def private_dns_name(self, value: object) -> None:
        """Ignore what moto sets, the name of an address that is not yet known."""

    @property
    def availability_zone_id(self) -> str:
        """Its zone's id."""
        zone_id: str = self.subnet.availability_zone_id
        return zone_id

    @property
    def owned(self) -> frozenset[Network]:
        """Everything that the VPC delivers to it: addresses and prefixes of both families."""
        return frozenset(
            [
                *(IPv4Network(a) for a in (*self.addresses, *self.prefixes)),
                *(IPv6Network(a) for a in (*self.addresses6, *self.prefixes6)),
            ]
        )

    def holds(self, address: str) -> bool:
        """Return whether the VPC delivers *address* to it."""
        return any(ip_address(address) in network for network in self.owned)

    def give_back(self) -> None:
        """Give everything it owns back to its subnet."""
        subnet: VpcSubnet = self.subnet
        subnet.book4.give_back(
            [
                *(IPv4Address(a) for a in self.addresses),
                *(IPv4Network(p) for p in self.prefixes),
            ]
        )
        if self.addresses6 or self.prefixes6:
            subnet.book6.give_back(
                [
                    *(IPv6Address(a) for a in self.addresses6),
                    *(IPv6Network(p) for p in self.prefixes6),
                ]
            )

    # What the wire shows of it ------------------------------------------------------------
    @property
    def ipv4_prefixes(self) -> list[dict[str, str]]:
        """Its /28 prefixes."""
        return [{"Ipv4Prefix": prefix} for prefix in self.prefixes]

    @property
    def ipv6_prefixes(self) -> list[dict[str, str]]:
        """Its /80 prefixes."""
        return [{"Ipv6Prefix": prefix} for prefix in self.prefixes6]

    @property
    def ipv6_addresses(self) -> list[dict[str, str]]:
        """Its IPv6 addresses."""
        return [{"Ipv6Address": address} for address in self.addresses6]

    @ipv6_addresses.setter
    def ipv6_addresses(self, value: object) -> None:
        """Ignore what moto sets: addresses come from the subnet's book."""

    @property
    def network_interface_ipv6_addresses_list(self) -> list[dict[str, str]]:
        """What DescribeNetworkInterfaces shows."""
        return self.ipv6_addresses

    @property
    def instance_private_ip_address_list(self) -> list[dict[str, Any]]:
        """What DescribeInstances shows; moto leaves public addresses of secondary ones out."""
        return list(self.private_ip_addresses)

    @property
    def instance_ipv6_address_list(self) -> list[dict[str, Any]]:
        """What DescribeInstances shows."""
        return [{"Ipv6Address": a, "IsPrimaryIpv6": False} for a in self.addresses6]

    @property
    def ipv6_address(self) -> str | None:
        """Its first IPv6 address."""
        return self.addresses6[0] if self.addresses6 else None

    @property
    def public_ip(self) -> str | None:
        """The public address of its primary address."""
        return self.public.get(self.private_ip_address)

    @public_ip.setter
    def public_ip(self, value: object) -> None:
        """Ignore what moto sets: public addresses come and go by `publish`."""

    def check_auto_public_ip(self) -> None:
        """Do nothing: the backend gives an automatic public address at launch."""

    def publish(self, private: str, public: str | None, association: Mapping[str, str]) -> None:
        """Give *private* a public address, or take it with None."""
        item = next(i for i in self.private_ip_addresses if i["PrivateIpAddress"] == private)
        if public is None:
            self.public.pop(private, None)
            item.pop("Association", None)
        else:
            self.public[private] = public
            name = f"ec2-{public.replace('.', '-')}.compute-1.amazonaws.com"
            item["Association"] = {
                "PublicIp": public, "PublicDnsName": name, "IpOwnerId": "amazon", **association,
            }  # fmt: skip

    @property
    def association(self) -> dict[str, str] | None:
        """What the wire shows of the primary's public address; nothing if it has none."""
        for item in self.private_ip_addresses:
            if item["PrivateIpAddress"] == self.private_ip_address:
                association: dict[str, str] | None = item.get("Association")
                return association
        return None

    def get_tags(self) -> list[dict[str, str]]:
        """Its tags, as they were when it was seen; moto would go through the whole region's."""
        if self._seen is not None:
            return self._seen[1]
        return [{"key": k, "value": v} for k, v in self.ec2_backend.tags.get(self.id, {}).items()]

    # How far its attachment is ------------------------------------------------------------
    def seen(self, now: float) -> Eni:
        """Return it as it is at *now*, which later changes do not reach."""
        view = copy.copy(self)
        view._seen = (now, self.get_tags())  # noqa: SLF001 - its own
        view.private_ip_addresses = copy.deepcopy(self.private_ip_addresses)
        view.public = dict(self.public)
        for name in ("prefixes", "prefixes6", "addresses6", "_group_set"):
            setattr(view, name, list(getattr(self, name)))
        return view

    def newborn(self) -> Eni:
        """Return it as the answer to its creation shows it: EC2 says `pending` there (seen)."""
        view = self.seen(time.monotonic())
        view._is_new = True  # noqa: SLF001 - its own
        return view

    def _now(self) -> float:
        return time.monotonic() if self._seen is None else self._seen[0]

    @property
    def attachment_status(self) -> str:
        """How far its attachment is."""
        if self.detached_at is not None:
            return "detaching"
        return "attached" if self._now() >= self.attached_at else "attaching"

    @property
    def attachment(self) -> Attachment | None:
        """Its attachment, None if it has none."""
        return Attachment(self) if self.attachment_id else None

    @property
    def is_used(self) -> bool:
        """Whether it is attached, associated, or a NAT gateway's."""
        return bool(self.attachment_id or self.trunk_id) or self.interface_type == "nat_gateway"

    @property
    def status(self) -> str:
        """Its state, as EC2 names it."""
        if self._is_new:
            return "pending"
        if self.interface_type == "nat_gateway":
            return "in-use"
        if not self.attachment_id:
            return "associated" if self.trunk_id else "available"
        return {"attached": "in-use"}.get(self.attachment_status, self.attachment_status)

    @status.setter
    def status(self, value: str) -> None:
        """Ignore what moto sets: the state follows from the attachment."""

    @property
    def group_set(self) -> Any:
        """Its own security groups, and not its instance's beside."""
        return self._group_set

    @property
    def is_plugged(self) -> bool:
        """Whether its instance has a link of it; an efa-only ENI has none."""
        there = bool(self.attachment_id) and time.monotonic() >= self.attached_at
        return there and self.interface_type != "efa-only"
