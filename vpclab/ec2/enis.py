"""The rules of ENIs: who may attach what, how many, and what a call changes. Shell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidNetworkAttachmentIdError
from moto.ec2.utils import random_eni_attach_id

from vpclab.ec2.errors import error
from vpclab.ec2.limits import card_of, cards_of, check_slots, check_slots6, key_of
from vpclab.ec2.model import Delays, Eni
from vpclab.ec2.trunk import Trunks
from vpclab.ec2.wishes import Given, Wish, primary_first, take, things
from vpclab.faults import Latency

TYPES = ("interface", "trunk", "branch", "efa", "efa-only")
"""The types of ENI that CreateNetworkInterface takes."""


class Enis(Trunks):
    """ENIs with addresses, prefixes and attachments."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.delays = Delays()
        self.normal: Callable[[], float] = lambda: 0.0
        """The source of chance that delays are drawn from: the standard normal distribution."""
        self.later: Callable[[float, Callable[[], None]], None] = lambda _seconds, work: work()
        super().__init__(*arguments, **keywords)

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
        eni = self.get_network_interface(eni_id)
        if group_ids and eni.instance is not None and eni.device_index == 0:
            eni.instance.security_groups = list(eni.group_set)
        self.changed.append(eni)

    def track(self, eni_id: str, specification: Mapping[str, Any]) -> None:
        """Note how long connections of an ENI are tracked; data only, no packet follows it."""
        eni = self.get_network_interface(eni_id)
        eni.connection_tracking_configuration = dict(specification) or None

    def get_network_interface(self, eni_id: str) -> Any:
        """Return an ENI; EC2's text is seen in aws/amazon-vpc-cni-k8s#307."""
        if eni_id not in self.enis:
            raise error(
                "InvalidNetworkInterfaceID.NotFound",
                f"The networkInterface ID '{eni_id}' does not exist",
            )
        return self.enis[eni_id]

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
        if kwargs.get("device_index") == 0:
            primary = private_ip_address
        else:
            named = primary_first(private_ip_address, private_ip_addresses or ())
            wish = Wish(addresses=tuple(named), count=0 if named else 1)
            primary = take(subnet.book4, wish).addresses[0]
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
            subnet.book4.give_back(things([*first.addresses, *given4.addresses], given4.prefixes))
            raise
        addresses = [*first.addresses, *given4.addresses]
        eni = self._make(subnet, addresses[0] if addresses else None, group_ids, description, tags)
        eni.interface_type = interface_type
        eni.add(addresses[1:])
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
        if eni.is_used:
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
        if eni.is_used:
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
        check_slots(eni, instance)
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
        eni.delete_on_termination = False  # it is the attachment's, and a new one's is this
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

    def do_resources_exist(self, resource_ids: list[str]) -> bool:
        """Return true, or raise if one of those to be tagged is not there; moto tags anything."""
        checks: dict[str, Callable[[str], object]] = {
            "eni": self.get_network_interface,
            "i": self.get_instance,
            "sg": lambda group_id: self._check_groups([group_id]),
            "subnet": self.get_subnet,
            "vpc": self.get_vpc,
        }
        for resource_id in resource_ids:
            if check := checks.get(resource_id.partition("-")[0]):
                check(resource_id)
        return bool(super().do_resources_exist(resource_ids))

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
            has_prefixes = bool(wish.prefixes or wish.prefix_count)
            check_slots(eni, eni.instance, wish.slots, prefixes=has_prefixes)
        held = self._secondary(eni.subnet) if reassign else {}
        moved = {a: held[a] for a in wish.addresses if a in held}
        rest = tuple(a for a in wish.addresses if a not in moved)
        given = take(eni.subnet.book4, replace(wish, addresses=rest))
        for address, other in moved.items():
            self._move(address, other, eni)
        eni.add(given.addresses)
        eni.prefixes += given.prefixes
        self.changed.append(eni)
        return replace(given, addresses=(*moved, *given.addresses))

    def _secondary(self, subnet: Any) -> dict[str, Eni]:
        """Return who has which secondary address in a subnet."""
        mine = (e for e in self.enis.values() if e.subnet is subnet)
        return {address: eni for eni in mine for address in eni.addresses[1:]}

    def _move(self, address: str, source: Eni, target: Eni) -> None:
        """Move a secondary address; its public one goes along (EC2 API reference)."""
        item = next(i for i in source.private_ip_addresses if i["PrivateIpAddress"] == address)
        source.private_ip_addresses.remove(item)
        target.private_ip_addresses.append(item)
        public = source.public.pop(address, None)
        if public is not None:
            target.public[address] = public
        for elastic in [e for e in self.addresses if e.public_ip == public]:
            elastic.eni = target
        self.changed.append(source)

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
        eni.subnet.book4.give_back(things(set(addresses), set(prefixes)))
        self.changed.append(eni)

    def assign6(self, eni_id: str, wish: Wish) -> Given:
        """Assign IPv6 addresses or prefixes and return the new ones."""
        eni: Eni = self.get_network_interface(eni_id)
        if eni.instance is not None:
            has_prefixes = bool(wish.prefixes or wish.prefix_count)
            check_slots6(eni, eni.instance, wish.slots, prefixes=has_prefixes)
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
        eni.subnet.book6.give_back(things(set(addresses), set(prefixes)))
        self.changed.append(eni)
