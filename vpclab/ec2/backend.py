"""The rules of ENIs: who may attach what, how many, and what a call changes. Shell.

Every method runs with the API's lock held (`vpclab.api`), which takes what is collected in
`changed` and tells the fabric when the lock is free again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidNetworkAttachmentIdError
from moto.ec2.models import EC2Backend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.utils import random_eni_attach_id

from vpclab.ec2.model import FILTERS, Delays, Eni, VpcSubnet, matches


def error(code: str, text: str) -> EC2ClientError:
    """Return EC2's error."""
    return EC2ClientError(code, text)


class VpcBackend(EC2Backend):
    """moto's EC2 with an ENI layer of its own."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.changed: list[Eni] = []
        self.delays = Delays()
        self.later: Callable[[float, Callable[[], None]], None] = lambda _seconds, work: work()
        self._tokens: dict[str, tuple[object, str]] = {}
        super().__init__(*arguments, **keywords)

    # Subnets ---------------------------------------------------------------------------
    def create_subnet(self, *arguments: Any, **keywords: Any) -> Any:
        """Create a subnet that has an address book."""
        subnet = super().create_subnet(*arguments, **keywords)
        subnet.__class__ = VpcSubnet
        subnet.adopt()
        return subnet

    # Describe, modify ------------------------------------------------------------------
    def get_all_network_interfaces(
        self, eni_ids: list[str] | None = None, filters: dict[str, list[str]] | None = None
    ) -> list[Eni]:
        """Return the ENIs with these ids that pass all *filters*."""
        for name in filters or ():
            if name not in FILTERS and not name.startswith("tag:"):
                raise error("InvalidParameterValue", f"The filter '{name}' is invalid")
        return [
            eni
            for eni in super().get_all_network_interfaces(eni_ids)
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
        """Create an ENI; RunInstances has taken the primary address already."""
        launched = "device_index" in kwargs
        if launched:
            delete_on_termination = True  # EC2's default for the ENI an instance is born with
        self._check_groups(group_ids or ())
        primary, explicit = private_ip_address, _primary_first(private_ip_addresses or ())
        if not launched:
            count = int(kwargs.pop("secondary_ips_count", None) or 0)
            named = [primary, *explicit] if primary else explicit
            taken = self._take(subnet, named, count if named else count + 1)
            primary, explicit = taken[0], taken[1:]
        eni = Eni(
            self,
            subnet,
            primary,
            group_ids=group_ids,
            description=description,
            tags=tags,
            delete_on_termination=delete_on_termination,
            **kwargs,
        )
        eni.private_ip_addresses += [{"Primary": False, "PrivateIpAddress": a} for a in explicit]
        self.enis[eni.id] = eni
        return eni

    def _check_groups(self, group_ids: Iterable[str]) -> None:
        for group_id in group_ids:
            if self.get_security_group_from_id(group_id) is None:
                raise error(
                    "InvalidGroup.NotFound", f"The security group '{group_id}' does not exist"
                )

    @staticmethod
    def _take(subnet: VpcSubnet, named: list[str], count: int) -> list[str]:
        """Take the *named* addresses and *count* more, or none and raise."""
        taken: list[str] = []
        try:
            for address in named:
                taken.append(subnet.take_exactly(address))  # noqa: PERF401 - undone if one fails
            return taken + subnet.take(count)
        except EC2ClientError:
            subnet.give_back(taken)
            raise

    def remembered(self, token: str, parameters: object) -> Eni | None:
        """Return what the same token created before, None if nothing did."""
        if token not in self._tokens:
            return None
        former, eni_id = self._tokens[token]
        if former != parameters:
            raise error(
                "IdempotentParameterMismatch",
                f"The client token {token} was used with other parameters",
            )
        eni: Eni = self.get_network_interface(eni_id)
        return eni

    def remember(self, token: str, parameters: object, eni: Eni) -> None:
        """Note what *token* created."""
        self._tokens[token] = (parameters, eni.id)

    def delete_network_interface(self, eni_id: str) -> None:
        """Delete an ENI that nobody uses."""
        eni = self.get_network_interface(eni_id)
        if eni.attachment_id:
            raise error(
                "InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."
            )
        self._forget(eni)

    def _forget(self, eni: Eni) -> None:
        eni.subnet.give_back(eni.addresses)
        self.enis.pop(eni.id, None)
        self.changed.append(eni)

    # Attach, detach --------------------------------------------------------------------
    def attach_network_interface(self, eni_id: str, instance_id: str, device_index: int) -> Eni:
        """Attach at a free device index, within what the instance type takes."""
        eni: Eni = self.get_network_interface(eni_id)
        instance = self.get_instance(instance_id)
        if eni.attachment_id:
            raise error(
                "InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."
            )
        if device_index in instance.nics:
            raise error(
                "InvalidParameterValue",
                f"Instance '{instance_id}' already has an interface attached at device index"
                f" '{device_index}'.",
            )
        limit = enis_of(instance.instance_type)
        if len(instance.nics) >= limit:
            raise error(
                "AttachmentLimitExceeded",
                f"Interface count {len(instance.nics) + 1} exceeds the limit for"
                f" {instance.instance_type}",
            )
        _check_addresses(eni, instance, 0)
        if eni.subnet.availability_zone != instance.placement.availability_zone:
            raise error(
                "InvalidParameterCombination",
                f"You may not attach a network interface to an instance if they are not in the same"
                f" availability zone ({eni_id}, {instance_id})",
            )
        self._plug(eni, instance, device_index)
        return eni

    def _plug(self, eni: Eni, instance: Any, device_index: int) -> None:
        instance.nics[device_index] = eni
        eni.instance, eni.device_index = instance, device_index
        eni.attachment_id, eni.detached_at = random_eni_attach_id(), None
        eni.attach_time = utcnow()
        eni.attached_at = time.monotonic() + self.delays.attach_seconds
        self.changed.append(eni)
        if self.delays.attach_seconds:
            self.later(self.delays.attach_seconds, lambda: self.changed.append(eni))

    def detach_network_interface(self, attachment_id: str) -> None:
        """Begin to detach; done after the delay."""
        eni = next((e for e in self.enis.values() if e.attachment_id == attachment_id), None)
        if eni is None:
            raise InvalidNetworkAttachmentIdError(attachment_id)
        if eni.device_index == 0:
            raise error(
                "OperationNotPermitted",
                "The network interface at device index 0 and networkCard index 0 cannot be"
                " detached.",
            )
        if eni.detached_at is not None:
            raise error(
                "IncorrectState", f"The attachment {attachment_id} is currently 'detaching'"
            )
        eni.detached_at = time.monotonic() + self.delays.detach_seconds
        if self.delays.detach_seconds:
            self.later(self.delays.detach_seconds, lambda: self._detached(eni, attachment_id))
        else:
            self._unplug(eni)

    def _detached(self, eni: Eni, attachment_id: str) -> None:
        if eni.attachment_id == attachment_id:  # its instance may have gone meanwhile
            self._unplug(eni)

    def _unplug(self, eni: Eni) -> None:
        if eni.instance is not None:
            eni.instance.nics.pop(eni.device_index, None)
        eni.instance = eni.attachment_id = eni.detached_at = None
        self.changed.append(eni)

    def set_delete_on_termination(self, eni_id: str, attachment_id: str, *, value: bool) -> None:
        """Set what happens to the ENI when its instance goes."""
        eni = self.get_network_interface(eni_id)
        if eni.attachment_id != attachment_id:
            raise InvalidNetworkAttachmentIdError(attachment_id)
        eni.delete_on_termination = value

    # Addresses -------------------------------------------------------------------------
    def assign(self, eni_id: str, explicit: list[str], count: int) -> list[str]:
        """Assign addresses and return the new ones."""
        eni = self.get_network_interface(eni_id)
        if eni.instance is not None:
            _check_addresses(eni, eni.instance, len(explicit) + count)
        new = self._take(eni.subnet, explicit, count)
        eni.private_ip_addresses += [{"Primary": False, "PrivateIpAddress": a} for a in new]
        self.changed.append(eni)
        return new

    def unassign(self, eni_id: str, addresses: list[str]) -> None:
        """Take secondary addresses back."""
        eni = self.get_network_interface(eni_id)
        if not set(addresses) <= set(eni.addresses[1:]):
            raise error(
                "InvalidParameterValue",
                f"Some of the specified addresses are not assigned to interface {eni_id}",
            )
        eni.private_ip_addresses = [
            item for item in eni.private_ip_addresses if item["PrivateIpAddress"] not in addresses
        ]
        eni.subnet.give_back(addresses)
        self.changed.append(eni)

    # Instances -------------------------------------------------------------------------
    def run_instances(self, *arguments: Any, **keywords: Any) -> Any:
        """Launch instances of a type that there is."""
        kind = keywords.get("instance_type")
        if kind not in INSTANCE_TYPES:
            raise error("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        reservation = super().run_instances(*arguments, **keywords)
        for instance in reservation.instances:
            self.changed += instance.nics.values()
        return reservation

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

    def delete_subnet(self, subnet_id: str) -> Any:
        """Delete a subnet that holds no ENI."""
        if any(eni.subnet.id == subnet_id for eni in self.enis.values()):
            raise error(
                "DependencyViolation",
                f"The subnet '{subnet_id}' has dependencies and cannot be deleted.",
            )
        return super().delete_subnet(subnet_id)


def _primary_first(addresses: Iterable[Any]) -> list[str]:
    """Return the addresses of a request, the one that is marked as primary at the front."""
    listed = [a if isinstance(a, dict) else {"PrivateIpAddress": a} for a in addresses]
    listed.sort(key=lambda address: not address.get("Primary"))
    return [address["PrivateIpAddress"] for address in listed]


def _check_addresses(eni: Eni, instance: Any, more: int) -> None:
    if len(eni.addresses) + more > addresses_of(instance.instance_type):
        raise error(
            "PrivateIpAddressLimitExceeded",
            f"{eni.id}: Number of private addresses will exceed limit.",
        )


def enis_of(instance_type: str) -> int:
    """Return how many ENIs the default card of a type takes."""
    network = INSTANCE_TYPES[instance_type]["NetworkInfo"]
    cards = network.get("NetworkCards", [])
    default = network.get("DefaultNetworkCardIndex", 0)
    for card in cards:
        if card["NetworkCardIndex"] == default:
            return int(card["MaximumNetworkInterfaces"])
    return int(network["MaximumNetworkInterfaces"])


def addresses_of(instance_type: str) -> int:
    """Return how many IPv4 addresses one ENI of a type takes, its primary included."""
    return int(INSTANCE_TYPES[instance_type]["NetworkInfo"]["Ipv4AddressesPerInterface"])
