"""What moto's ENIs and subnets lack: addresses without duplicates, states, truth. Shell."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.subnets import Subnet

RESERVED_FIRST, RESERVED_LAST = 4, 1
"""Network, router, DNS and one for the future at the front, broadcast at the end (VPC guide)."""


@dataclass(slots=True)
class Delays:
    """How long a state lasts on its way, in seconds; 0 is at once."""

    attach_seconds: float = 0.0
    detach_seconds: float = 0.0


class VpcSubnet(Subnet):
    """A subnet with an address book. An address goes to one ENI and comes back later.

    Addresses are given next-fit: EC2 does not hand a freed one out at once, and reuse hides
    faults.
    """

    def adopt(self) -> None:
        """Begin the book; called once, when moto has made the subnet."""
        network = IPv4Network(self.cidr_block)
        first, last = RESERVED_FIRST, network.num_addresses - RESERVED_LAST
        self._network, self._size, self._next = network, last - first, 0
        self._taken: set[IPv4Address] = set()

    @property
    def available_ip_address_count(self) -> int:
        """Return what DescribeSubnets tells."""
        return self._size - len(self._taken)

    @property
    def taken(self) -> frozenset[IPv4Address]:
        """Every address that is on an ENI."""
        return frozenset(self._taken)

    def take(self, count: int) -> list[str]:
        """Take *count* addresses, or none and raise."""
        if count > self.available_ip_address_count:
            raise EC2ClientError(
                "InsufficientFreeAddressesInSubnet",
                f"The specified subnet does not have enough free addresses to satisfy the"
                f" request. ({count} wanted, {self.available_ip_address_count} free in {self.id})",
            )
        found: list[IPv4Address] = []
        while len(found) < count:
            address = self._network[RESERVED_FIRST + self._next]
            self._next = (self._next + 1) % self._size
            if address not in self._taken:
                self._taken.add(address)
                found.append(address)
        return [str(address) for address in found]

    def take_exactly(self, text: str) -> str:
        """Take the address *text*; raise if it is not to be had."""
        address = IPv4Address(text)
        index = int(address) - int(self._network.network_address) - RESERVED_FIRST
        if not 0 <= index < self._size:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Address {text} does not fall within the subnet's address range",
            )
        if address in self._taken:
            raise EC2ClientError("InvalidIPAddress.InUse", f"The address {text} is in use")
        self._taken.add(address)
        return text

    def give_back(self, addresses: list[str]) -> None:
        """Take *addresses* back into the book."""
        self._taken -= {IPv4Address(address) for address in addresses}

    # What moto calls when it launches an instance.
    def get_available_subnet_ip(self, instance: object) -> str:  # noqa: ARG002 - moto's signature
        """Return the address of a new primary ENI."""
        return self.take(1)[0]

    def request_ip(self, ip: str, instance: object) -> None:  # noqa: ARG002 - moto's signature
        """Take the address that RunInstances names."""
        self.take_exactly(ip)

    def del_subnet_ip(self, ip: str) -> None:
        """Do nothing: an ENI gives its addresses back when it goes."""


class Attachment:
    """An attachment as DescribeNetworkInterfaces shows it."""

    def __init__(self, eni: Eni) -> None:
        self.attach_time = eni.attach_time
        self.attachment_id = eni.attachment_id
        self.delete_on_termination = eni.delete_on_termination
        self.device_index = eni.device_index
        self.network_card_index = 0
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
        super().__init__(*arguments, **keywords)
        number = next(self._macs)
        # Locally administered, never 0a:58, which pods have.
        self.mac_address = ":".join(f"{b:02x}" for b in (0x02, *number.to_bytes(5, "big")))
        self.attached_at = 0.0
        self.detached_at: float | None = None

    @property
    def addresses(self) -> list[str]:
        """Every IPv4 address it owns, the primary first."""
        listed = [item["PrivateIpAddress"] for item in self.private_ip_addresses]
        return [self.private_ip_address, *(a for a in listed if a != self.private_ip_address)]

    @property
    def attachment_status(self) -> str:
        """How far its attachment is."""
        if self.detached_at is not None:
            return "detaching"
        return "attached" if time.monotonic() >= self.attached_at else "attaching"

    @property
    def attachment(self) -> Attachment | None:
        """Its attachment, None if it has none."""
        return Attachment(self) if self.attachment_id else None

    @property
    def status(self) -> str:
        """Its state, as EC2 names it."""
        if not self.attachment_id:
            return "available"
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
        """Whether its instance has a link of it."""
        return bool(self.attachment_id) and time.monotonic() >= self.attached_at


FILTERS: Mapping[str, Callable[[Eni], Iterable[object]]] = {
    "addresses.primary": lambda eni: [str(a == eni.addresses[0]).lower() for a in eni.addresses],
    "addresses.private-ip-address": lambda eni: eni.addresses,
    "attachment.attachment-id": lambda eni: [eni.attachment_id],
    "attachment.delete-on-termination": lambda eni: _of(eni, "delete_on_termination"),
    "attachment.device-index": lambda eni: _of(eni, "device_index"),
    "attachment.instance-id": lambda eni: _of(eni, "instance_id"),
    "attachment.instance-owner-id": lambda eni: _of(eni, "instance_owner_id"),
    "attachment.status": lambda eni: _of(eni, "status"),
    "availability-zone": lambda eni: [eni.availability_zone],
    "description": lambda eni: [eni.description],
    "group-id": lambda eni: [group.id for group in eni.group_set],
    "interface-type": lambda eni: [eni.interface_type],
    "mac-address": lambda eni: [eni.mac_address],
    "network-interface-id": lambda eni: [eni.id],
    "owner-id": lambda eni: [eni.owner_id],
    "private-ip-address": lambda eni: [eni.private_ip_address],
    "requester-managed": lambda eni: [str(eni.requester_managed).lower()],
    "source-dest-check": lambda eni: [str(eni.source_dest_check).lower()],
    "status": lambda eni: [eni.status],
    "subnet-id": lambda eni: [eni.subnet.id],
    "tag-key": lambda eni: [tag["key"] for tag in eni.get_tags()],
    "vpc-id": lambda eni: [eni.subnet.vpc_id],
}
"""What a filter of DescribeNetworkInterfaces compares, by its name; `tag:<key>` comes to them."""


def _of(eni: Eni, attribute: str) -> list[str]:
    attachment = eni.attachment
    if attachment is None:
        return []
    value = getattr(attachment, attribute)
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def matches(eni: Eni, name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of an ENI's values fits one of the *patterns* of filter *name*."""
    values: Iterable[object]
    if name.startswith("tag:"):
        values = [tag["value"] for tag in eni.get_tags() if tag["key"] == name[4:]]
    else:
        values = FILTERS[name](eni)
    return any(fnmatchcase(str(v), p) for v in values if v is not None for p in patterns)
