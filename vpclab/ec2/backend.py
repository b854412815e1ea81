"""The rules of ENIs: who may attach what, how many, and what a call changes. Shell.

Every method runs with the API's lock held (`vpclab.api`), which takes what is collected in
`changed` and tells the fabric when the lock is free again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidNetworkAttachmentIdError,
    InvalidNetworkInterfaceIdError,
)
from moto.ec2.models.amis import AMIS, Ami
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.utils import random_eni_attach_id

from vpclab.ec2.addresses import Address, AddressBook, Network
from vpclab.ec2.model import FILTERS, Delays, Eni, matches, translated
from vpclab.ec2.network import error
from vpclab.ec2.trunk import Trunks
from vpclab.faults import Latency

TYPES = ("interface", "trunk", "branch", "efa", "efa-only")
"""The types of ENI that CreateNetworkInterface takes."""

OPTIONS = {
    "http_tokens": "http_tokens",
    "hop_limit": "http_put_response_hop_limit",
    "http_endpoint": "http_endpoint",
    "http_protocol": "http_protocol_ipv6",
    "metadata_tags": "instance_metadata_tags",
}
"""What moto calls a metadata option when it is to be changed, and what when it has been."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call asks for of one family: named things, or a count of them."""

    addresses: tuple[str, ...] = ()
    count: int = 0
    prefixes: tuple[str, ...] = ()
    prefix_count: int = 0

    def __post_init__(self) -> None:
        """Refuse what EC2 refuses: a count beside names, addresses beside prefixes."""
        for names, count, what in (
            (self.addresses, self.count, "addresses"),
            (self.prefixes, self.prefix_count, "prefixes"),
        ):
            if names and count:
                raise error(
                    "InvalidParameterCombination",
                    f"A count and {what} were given; the call takes one of them.",
                )
        if (self.addresses or self.count) and (self.prefixes or self.prefix_count):
            raise error(
                "InvalidParameterCombination",
                "Addresses and prefixes were given; the call takes one of them.",
            )

    @property
    def slots(self) -> int:
        """How many of the ENI's slots it takes: a prefix takes one, like an address."""
        return len(self.addresses) + self.count + len(self.prefixes) + self.prefix_count


@dataclass(frozen=True, slots=True)
class Given:
    """What a call got: addresses and prefixes."""

    addresses: tuple[str, ...]
    prefixes: tuple[str, ...]


def take(book: AddressBook, wish: Wish) -> Given:
    """Take what *wish* names from *book*, or nothing and raise EC2ClientError."""
    for count in (wish.count, wish.prefix_count):
        if count < 0:
            raise error("InvalidParameterValue", f"A count is 0 or more; {count} is not")
    taken: list[Address | Network] = []
    try:
        with translated():
            for name in wish.addresses:
                taken.append(book.take_exactly(_address(name)))  # noqa: PERF401 - undone if one fails
            for name in wish.prefixes:
                taken.append(book.take_prefix_exactly(_prefix(name)))  # noqa: PERF401 - as above
            taken += book.take(wish.count)
            taken += book.take_prefixes(wish.prefix_count)
    except EC2ClientError:
        book.give_back(taken)
        raise
    prefixes = tuple(str(t) for t in taken if isinstance(t, IPv4Network | IPv6Network))
    return Given(tuple(str(t) for t in taken if str(t) not in prefixes), prefixes)


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise error("InvalidParameterValue", f"'{text}' is not an address") from None


def _prefix(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise error("InvalidParameterValue", f"'{text}' is not a prefix") from None


class VpcBackend(Trunks):
    """moto's EC2 with an ENI layer of its own."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.delays = Delays()
        self.normal: Callable[[], float] = lambda: 0.0
        """The source of chance that delays are drawn from: the standard normal distribution."""
        self.later: Callable[[float, Callable[[], None]], None] = lambda _seconds, work: work()
        self.told: Callable[[], Mapping[str, Eni]] = lambda: self.enis
        self.authorise: Callable[[str, Mapping[str, Any]], None] = lambda _action, _parameters: None
        self._tokens: dict[str, tuple[object, Any]] = {}
        super().__init__(*arguments, **keywords)

    def _load_amis(self) -> None:
        """Know the images of moto's short list, of which nodes are; the long one takes 0.1 s."""
        for listed in AMIS:
            image = Ami(self, **listed)
            self.amis[image.id] = image

    def remembered(self, token: str | None, parameters: object) -> Any:
        """Return what the same ClientToken made before, None if nothing did."""
        if token is None or token not in self._tokens:
            return None
        former, made = self._tokens[token]
        if former != parameters:
            raise error(
                "IdempotentParameterMismatch",
                f"The client token {token} was used with other parameters",
            )
        return made

    def remember(self, token: str | None, parameters: object, made: Any) -> None:
        """Note what *token* made."""
        if token is not None:
            self._tokens[token] = (parameters, made)

    # Describe, modify ------------------------------------------------------------------
    def get_all_network_interfaces(
        self,
        eni_ids: list[str] | None = None,
        filters: dict[str, list[str]] | None = None,
        enis: Mapping[str, Eni] | None = None,
    ) -> list[Eni]:
        """Return the ENIs with these ids that pass all *filters*, of *enis* or of all there are."""
        for name in filters or ():
            if name not in FILTERS and not name.startswith("tag:"):
                raise error("InvalidParameterValue", f"The filter '{name}' is invalid")
        enis = self.enis if enis is None else enis
        missing = [eni_id for eni_id in eni_ids or () if eni_id not in enis]
        if missing:
            raise InvalidNetworkInterfaceIdError(missing[0])
        return [
            eni
            for eni in (map(enis.__getitem__, eni_ids) if eni_ids else enis.values())
            if all(matches(eni, name, patterns) for name, patterns in (filters or {}).items())
        ]

    def modify_network_interface_attribute(
        self,
        eni_id: str,
        group_ids: list[str],
        source_dest_check: bool | None = None,  # noqa: FBT001 - moto's signature
        description: str | None = None,
    ) -> None:
        """Change groups, source check or description."""
        self._check_groups(group_ids)
        super().modify_network_interface_attribute(
            eni_id, group_ids, source_dest_check, description
        )
        self.changed.append(self.get_network_interface(eni_id))

    # Create, delete --------------------------------------------------------------------
    def create_network_interface(
        self,
        subnet: Any,
        private_ip_address: str | None,
        private_ip_addresses: Any = None,
        group_ids: list[str] | None = None,
        description: str | None = None,
        tags: dict[str, str] | None = None,
        delete_on_termination: bool | None = False,  # noqa: FBT001,FBT002 - moto's signature
        **kwargs: Any,
    ) -> Eni:
        """Create an ENI as moto asks for it; RunInstances has taken the primary address already."""
        launched = "device_index" in kwargs
        if launched:
            delete_on_termination = True  # EC2's default for the ENI an instance is born with
        wish = Wish()
        if not launched:
            named = primary_first(private_ip_address, private_ip_addresses or ())
            wish = Wish(addresses=tuple(named), count=0 if named else 1)
        given = take(subnet.book4, wish)
        primary = private_ip_address if launched else given.addresses[0]
        kwargs = {k: v for k, v in kwargs.items() if k in {"device_index", "public_ip_auto_assign"}}
        eni = self._make(subnet, primary, group_ids, description, tags, **kwargs)
        eni.delete_on_termination = delete_on_termination
        if launched and str(kwargs.get("public_ip_auto_assign")).lower() == "true":
            eni.publish(primary or "", self.take_public(), {})
        return eni

    def create_eni(
        self,
        subnet_id: str,
        named: list[str],
        wish4: Wish,
        wish6: Wish,
        group_ids: list[str],
        description: str | None,
        tags: dict[str, str],
        interface_type: str,
    ) -> Eni:
        """Create an ENI with everything it asks for, or nothing and raise EC2ClientError.

        The first of the *named* addresses is the primary; EC2 chooses one where none is named.
        """
        subnet = self.get_subnet(subnet_id)
        self._check_groups(group_ids)
        if interface_type not in TYPES:
            raise error(
                "InvalidParameterValue", f"Invalid value '{interface_type}' for InterfaceType."
            )
        if not wish6.slots and subnet.assign_ipv6_address_on_creation:
            wish6 = Wish(count=1)
        count = 0 if named or interface_type == "efa-only" else 1
        first = take(subnet.book4, Wish(addresses=tuple(named), count=count))
        try:
            given4 = take(subnet.book4, wish4)
        except EC2ClientError:
            subnet.book4.give_back(map(IPv4Address, first.addresses))
            raise
        try:
            given6 = take(subnet.book6, wish6) if wish6.slots else Given((), ())
        except EC2ClientError:
            subnet.book4.give_back(_things([*first.addresses, *given4.addresses], given4.prefixes))
            raise
        addresses = [*first.addresses, *given4.addresses]
        eni = self._make(subnet, addresses[0] if addresses else None, group_ids, description, tags)
        eni.interface_type = interface_type
        eni.private_ip_addresses += [
            {"Primary": False, "PrivateIpAddress": address} for address in addresses[1:]
        ]
        eni.prefixes, eni.prefixes6 = list(given4.prefixes), list(given6.prefixes)
        eni.addresses6 = list(given6.addresses)
        return eni

    def _make(
        self,
        subnet: Any,
        primary: str | None,
        group_ids: list[str] | None,
        description: str | None,
        tags: dict[str, str] | None,
        **more: Any,
    ) -> Eni:
        # moto makes up an address where none is given.
        eni = Eni(
            self, subnet, primary or "0.0.0.0",  # noqa: S104 - no address to bind to
            group_ids=group_ids, description=description, tags=tags, **more,
        )  # fmt: skip
        if primary is None:
            eni.private_ip_address, eni.private_ip_addresses = None, []
        self.enis[eni.id] = eni
        self.changed.append(eni)
        return eni

    def _check_groups(self, group_ids: Iterable[str]) -> None:
        for group_id in group_ids:
            if self.get_security_group_from_id(group_id) is None:
                raise error(
                    "InvalidGroup.NotFound", f"The security group '{group_id}' does not exist"
                )

    def delete_network_interface(self, eni_id: str) -> None:
        """Delete an ENI that nobody uses."""
        eni: Eni = self.get_network_interface(eni_id)
        if eni.attachment_id or eni.trunk_id or eni.interface_type == "nat_gateway":
            raise error(
                "InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."
            )
        self._forget(eni)

    def _forget(self, eni: Eni) -> None:
        self.unpublish(eni, list(eni.public))
        eni.give_back()
        self.enis.pop(eni.id, None)
        self.tags.pop(eni.id, None)
        self.changed.append(eni)

    # Attach, detach --------------------------------------------------------------------
    def attach_network_interface(
        self, eni_id: str, instance_id: str, device_index: int, card: int = 0
    ) -> Eni:
        """Attach at a free device index of a card, within what the instance type takes."""
        eni: Eni = self.get_network_interface(eni_id)
        instance = self.get_instance(instance_id)
        if eni.attachment_id or eni.trunk_id:
            raise error(
                "InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."
            )
        if eni.interface_type == "branch":
            raise error(
                "InvalidParameterValue", f"Branch interface '{eni_id}' is associated, not attached."
            )
        if instance.state not in {"running", "pending", "stopped"}:
            raise error(
                "IncorrectState", f"Instance '{instance_id}' is in the state '{instance.state}'"
            )
        self._check_place(instance, device_index, card)
        _check_slots(eni, instance)
        if eni.subnet.availability_zone != instance.placement.availability_zone:
            raise error(
                "InvalidParameterCombination",
                f"You may not attach a network interface to an instance if they are not in the same"
                f" availability zone ({eni_id}, {instance_id})",
            )
        self._plug(eni, instance, device_index, card)
        return eni

    @staticmethod
    def _check_place(instance: Any, device_index: int, card: int) -> None:
        if device_index < 0:
            raise error("InvalidParameterValue", f"A device index is not below 0: {device_index}")
        if key_of(card, device_index) in instance.nics:
            raise error(
                "InvalidParameterValue",
                f"Instance '{instance.id}' already has an interface attached at device index"
                f" '{device_index}'.",
            )
        cards = cards_of(instance.instance_type)
        if card not in cards:
            raise error(
                "InvalidParameterValue",
                f"Network card index {card} is not one of {instance.instance_type}'s {len(cards)}",
            )
        there = sum(card_of(key) == card for key in instance.nics)
        if there >= cards[card]:
            raise error(
                "AttachmentLimitExceeded",
                f"Interface count {there + 1} exceeds the limit for {instance.instance_type}",
            )

    def _plug(self, eni: Eni, instance: Any, device_index: int, card: int) -> None:
        instance.nics[key_of(card, device_index)] = eni
        eni.instance, eni.device_index, eni.card = instance, device_index, card
        eni.attachment_id, eni.detached_at = random_eni_attach_id(), None
        eni.attach_time = utcnow()
        seconds = self._drawn(self.delays.attach_seconds)
        eni.attached_at = time.monotonic() + seconds
        self.changed.append(eni)
        if seconds:
            self.later(seconds, lambda: self.changed.append(eni))

    def _drawn(self, delay: float | Latency) -> float:
        return delay.draw(self.normal()) if isinstance(delay, Latency) else delay

    def detach_network_interface(self, attachment_id: str, *, force: bool = False) -> None:
        """Begin to detach; done after the delay, at once by *force*."""
        eni = next((e for e in self.enis.values() if e.attachment_id == attachment_id), None)
        if eni is None:
            raise InvalidNetworkAttachmentIdError(attachment_id)
        if (eni.card, eni.device_index) == (0, 0):
            raise error(
                "OperationNotPermitted",
                "The network interface at device index 0 and networkCard index 0 cannot be"
                " detached.",
            )
        if eni.detached_at is not None and not force:
            raise error(
                "IncorrectState", f"The attachment {attachment_id} is currently 'detaching'"
            )
        seconds = 0.0 if force else self._drawn(self.delays.detach_seconds)
        eni.detached_at = time.monotonic() + seconds
        if seconds:
            self.changed.append(eni)
            self.later(seconds, lambda: self._detached(eni, attachment_id))
        else:
            self._unplug(eni)

    def _detached(self, eni: Eni, attachment_id: str) -> None:
        if eni.attachment_id == attachment_id:  # its instance may have gone meanwhile
            self._unplug(eni)

    def _unplug(self, eni: Eni) -> None:
        if eni.instance is not None:
            eni.instance.nics.pop(key_of(eni.card, eni.device_index), None)
        eni.instance = eni.attachment_id = eni.detached_at = None
        eni.card = 0
        self.changed.append(eni)

    def set_delete_on_termination(self, eni_id: str, attachment_id: str, *, value: bool) -> None:
        """Set what happens to the ENI when its instance goes."""
        eni = self.get_network_interface(eni_id)
        if eni.attachment_id != attachment_id:
            raise InvalidNetworkAttachmentIdError(attachment_id)
        eni.delete_on_termination = value
        self.changed.append(eni)

    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> Any:
        """Tag; who is told of ENIs is told of their tags."""
        done = super().create_tags(resource_ids, tags)
        self.changed += [self.enis[eni_id] for eni_id in resource_ids if eni_id in self.enis]
        return done

    def delete_tags(self, resource_ids: list[str], tags: dict[str, str]) -> Any:
        """Take tags off."""
        done = super().delete_tags(resource_ids, tags)
        self.changed += [self.enis[eni_id] for eni_id in resource_ids if eni_id in self.enis]
        return done

    # Addresses -------------------------------------------------------------------------
    def assign(self, eni_id: str, wish: Wish, *, reassign: bool = False) -> Given:
        """Assign IPv4 addresses or prefixes and return the new ones."""
        eni: Eni = self.get_network_interface(eni_id)
        if eni.instance is not None:
            _check_slots(eni, eni.instance, wish.slots, prefixes=bool(wish.prefix_count))
        if reassign:
            self._take_over(eni, wish.addresses)
        given = take(eni.subnet.book4, wish)
        eni.private_ip_addresses += [
            {"Primary": False, "PrivateIpAddress": address} for address in given.addresses
        ]
        eni.prefixes += given.prefixes
        self.changed.append(eni)
        return given

    def _take_over(self, eni: Eni, addresses: Iterable[str]) -> None:
        """Take secondary *addresses* from whoever has them in the ENI's subnet."""
        for other in self.enis.values():
            theirs = [a for a in addresses if a in other.addresses[1:]]
            if theirs and other.subnet.id == eni.subnet.id:
                self.unassign(other.id, theirs)

    def unassign(self, eni_id: str, addresses: list[str], prefixes: Iterable[str] = ()) -> None:
        """Take secondary IPv4 addresses and prefixes back."""
        eni: Eni = self.get_network_interface(eni_id)
        if not set(addresses) <= set(eni.addresses[1:]) or not set(prefixes) <= set(eni.prefixes):
            raise error(
                "InvalidParameterValue",
                f"Some of the specified addresses are not assigned to interface {eni_id}",
            )
        self.unpublish(eni, addresses)
        eni.private_ip_addresses = [
            item for item in eni.private_ip_addresses if item["PrivateIpAddress"] not in addresses
        ]
        eni.prefixes = [prefix for prefix in eni.prefixes if prefix not in prefixes]
        eni.subnet.book4.give_back(_things(addresses, prefixes))
        self.changed.append(eni)

    def assign6(self, eni_id: str, wish: Wish) -> Given:
        """Assign IPv6 addresses or prefixes and return the new ones."""
        eni: Eni = self.get_network_interface(eni_id)
        if eni.instance is not None:
            _check_slots6(eni, eni.instance, wish.slots)
        given = take(eni.subnet.book6, wish)
        eni.addresses6 += given.addresses
        eni.prefixes6 += given.prefixes
        self.changed.append(eni)
        return given

    def unassign6(self, eni_id: str, addresses: list[str], prefixes: list[str]) -> None:
        """Take IPv6 addresses and prefixes back."""
        eni: Eni = self.get_network_interface(eni_id)
        if not set(addresses) <= set(eni.addresses6) or not set(prefixes) <= set(eni.prefixes6):
            raise error(
                "InvalidParameterValue",
                f"Some of the specified addresses are not assigned to interface {eni_id}",
            )
        eni.addresses6 = [address for address in eni.addresses6 if address not in addresses]
        eni.prefixes6 = [prefix for prefix in eni.prefixes6 if prefix not in prefixes]
        eni.subnet.book6.give_back(_things(addresses, prefixes))
        self.changed.append(eni)

    # Instances -------------------------------------------------------------------------
    def run_instances(self, *arguments: Any, **keywords: Any) -> Any:
        """Launch instances of a type that there is, with everything their ENIs ask for."""
        kind = keywords.get("instance_type")
        if kind not in INSTANCE_TYPES:
            raise error("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        specs = [dict(spec) for spec in keywords.get("nics") or ()]
        reservation = super().run_instances(*arguments, **keywords)
        try:
            for instance in reservation.instances:
                instance.state_reason = None  # of a running instance EC2 tells none
                instance.spot = bool(keywords.get("instance_market_options"))
                for spec in specs or [{"DeviceIndex": 0}]:
                    self._furnish(instance, spec, int(keywords.get("ipv6_address_count") or 0))
        except EC2ClientError:
            self.terminate_instances([instance.id for instance in reservation.instances])
            self.reservations.pop(reservation.id, None)
            raise
        return reservation

    def _furnish(self, instance: Any, spec: Mapping[str, Any], count6: int) -> None:
        """Give an ENI that an instance is born with what RunInstances asks for it."""
        eni: Eni = instance.nics[int(spec.get("DeviceIndex") or 0)]
        eni.attached_at = 0.0
        if "DeleteOnTermination" in spec:
            eni.delete_on_termination = str(spec["DeleteOnTermination"]).lower() == "true"
        wish4, wish6 = wishes(spec)
        if wish4.slots:
            self.assign(eni.id, wish4)
        if not wish6.slots and (count6 or eni.subnet.assign_ipv6_address_on_creation):
            wish6 = Wish(count=count6 or 1)
        if wish6.slots:
            self.assign6(eni.id, wish6)

    def modify_instance_metadata_options(self, instance_id: str, **changes: Any) -> Any:
        """Change the named options; moto forgets the others."""
        before = vars(self.get_instance(instance_id).metadata_options)
        for name, option in OPTIONS.items():
            if changes.get(name) is None:
                changes[name] = before[option]
        return super().modify_instance_metadata_options(instance_id, **changes)

    def terminate_instances(self, instance_ids: list[str]) -> Any:
        """Terminate; an ENI goes along or becomes available, as its attachment says."""
        for instance_id in instance_ids:
            self.get_instance(instance_id)  # raises before anything is done
        enis = [
            eni for eni in self.enis.values() if eni.instance and eni.instance.id in instance_ids
        ]
        instances = {eni.instance.id: eni.instance for eni in enis}
        born_with = {instance_id: i.nics[0] for instance_id, i in instances.items()}
        for eni in enis:
            self._unplug(eni)
            if eni.delete_on_termination:
                self._forget(eni)
        done = super().terminate_instances(instance_ids)
        for instance_id, instance in instances.items():
            instance.nics = {0: born_with[instance_id]}  # DescribeInstances still tells of it
        return done


def _things(addresses: Iterable[str], prefixes: Iterable[str]) -> list[Address | Network]:
    return [*map(ip_address, addresses), *map(ip_network, prefixes)]


def wishes(parameters: Mapping[str, Any]) -> tuple[Wish, Wish]:
    """Return what a call asks for beside the primary address, IPv4 and IPv6.

    The parameters have the same names in CreateNetworkInterface and RunInstances; in the lists of
    the latter an address that is marked as primary is moto's.
    """
    named6 = parameters.get("Ipv6Addresses") or ()
    addresses6 = [a["Ipv6Address"] if isinstance(a, dict) else a for a in named6]
    prefixes = [
        p["Ipv4Prefix"] if isinstance(p, dict) else p for p in parameters.get("Ipv4Prefixes") or ()
    ]
    prefixes6 = [
        p["Ipv6Prefix"] if isinstance(p, dict) else p for p in parameters.get("Ipv6Prefixes") or ()
    ]
    named = [a for a in parameters.get("PrivateIpAddresses") or () if not a.get("Primary")]
    return Wish(
        addresses=tuple(a["PrivateIpAddress"] for a in named),
        count=int(parameters.get("SecondaryPrivateIpAddressCount") or 0),
        prefixes=tuple(prefixes),
        prefix_count=int(parameters.get("Ipv4PrefixCount") or 0),
    ), Wish(
        addresses=tuple(addresses6),
        count=int(parameters.get("Ipv6AddressCount") or 0),
        prefixes=tuple(prefixes6),
        prefix_count=int(parameters.get("Ipv6PrefixCount") or 0),
    )


def primary_first(primary: str | None, addresses: Iterable[Any]) -> list[str]:
    """Return the addresses of a request, the one that is marked as primary at the front."""
    listed = [a if isinstance(a, dict) else {"PrivateIpAddress": a} for a in addresses]
    listed.sort(key=lambda address: not address.get("Primary"))
    return [*([primary] if primary else []), *(address["PrivateIpAddress"] for address in listed)]


def key_of(card: int, device_index: int) -> int:
    """Return where moto keeps an ENI: it knows of device indices only, and reads 0 itself."""
    return card << 8 | device_index


def card_of(key: int) -> int:
    """Return the card of such a key."""
    return key >> 8


def _check_slots(eni: Eni, instance: Any, more: int = 0, *, prefixes: bool = False) -> None:
    """Raise unless an ENI with *more* slots taken fits the type, in both families."""
    kind = instance.instance_type
    if (prefixes or eni.prefixes) and not takes_prefixes(kind):
        raise error(
            "InvalidParameterValue", f"Prefixes are not supported on {kind}: it is no Nitro"
        )
    if len(eni.addresses) + len(eni.prefixes) + more > addresses_of(kind):
        raise error(
            "PrivateIpAddressLimitExceeded",
            f"{eni.id}: Number of private addresses will exceed limit.",
        )
    _check_slots6(eni, instance)


def _check_slots6(eni: Eni, instance: Any, more: int = 0) -> None:
    if len(eni.addresses6) + len(eni.prefixes6) + more > addresses_of(instance.instance_type, 6):
        raise error(
            "Ipv6AddressLimitExceeded", f"{eni.id}: Number of IPv6 addresses will exceed limit."
        )


def _network_info(instance_type: str) -> Any:
    return INSTANCE_TYPES[instance_type]["NetworkInfo"]


def cards_of(instance_type: str) -> dict[int, int]:
    """Return how many ENIs each card of a type takes, by the card's index."""
    network = _network_info(instance_type)
    cards = network.get("NetworkCards", [])
    listed = {c["NetworkCardIndex"]: int(c["MaximumNetworkInterfaces"]) for c in cards}
    return listed or {0: int(network["MaximumNetworkInterfaces"])}


def addresses_of(instance_type: str, version: int = 4) -> int:
    """Return how many slots of a family one ENI of a type has, IPv4's primary included."""
    return int(_network_info(instance_type)[f"Ipv{version}AddressesPerInterface"])


def takes_prefixes(instance_type: str) -> bool:
    """Return whether a type takes delegated prefixes: Nitro and bare metal do (user guide)."""
    known = INSTANCE_TYPES[instance_type]
    return bool(known.get("Hypervisor") == "nitro" or known.get("BareMetal"))
