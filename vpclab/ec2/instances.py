"""Instances, as far as their ENIs and their metadata go. Shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES

from vpclab.ec2.enis import Enis
from vpclab.ec2.errors import error
from vpclab.ec2.limits import cards_of, takes_prefixes
from vpclab.ec2.model import Eni
from vpclab.ec2.wishes import Wish, wishes

OPTIONS = {
    "http_tokens": "http_tokens",
    "hop_limit": "http_put_response_hop_limit",
    "http_endpoint": "http_endpoint",
    "http_protocol": "http_protocol_ipv6",
    "metadata_tags": "instance_metadata_tags",
}
"""What moto calls a metadata option when it is to be changed, and what when it has been."""


class Instances(Enis):
    """moto's instances, born with everything their ENIs ask for."""

    def run_instances(self, *arguments: Any, **keywords: Any) -> Any:
        """Launch instances of a type that there is, with everything their ENIs ask for."""
        kind = str(keywords.get("instance_type"))
        specs = _specs(kind, keywords.get("nics") or ())
        self._check_groups(keywords.get("security_group_ids") or ())
        for spec in specs:
            self._check_groups(spec.get("Groups") or ())
        if not specs and not keywords.get("subnet_id"):
            keywords["subnet_id"] = self._default_subnet(keywords.get("placement")).id
        before = set(self.reservations), set(self.enis)
        try:
            reservation = super().run_instances(*arguments, **keywords)
        except EC2ClientError:
            self._undo(*before)
            raise
        tags = (keywords.get("tags") or {}).get("network-interface") or {}
        try:
            for instance in reservation.instances:
                instance.state_reason = None  # of a running instance EC2 tells none
                instance.spot = bool(keywords.get("instance_market_options"))
                instance.platform_details, instance.usage_operation = "Linux/UNIX", "RunInstances"
                instance.ena_support = takes_prefixes(kind)
                instance.security_groups = list(instance.nics[0].group_set)
                for spec in specs or [{"DeviceIndex": 0}]:
                    self._furnish(instance, spec, int(keywords.get("ipv6_address_count") or 0))
                for eni in instance.nics.values():
                    eni.add_tags(tags)
        except EC2ClientError:
            self._undo(*before)
            raise
        return reservation

    def _default_subnet(self, zone: str | None) -> Any:
        """Return where an instance is launched whose caller names no subnet."""
        defaults: dict[str, Any] = self.get_default_subnets()
        for subnet in defaults.values() if zone is None else [defaults.get(zone)]:
            if subnet is not None:
                return subnet
        raise error(
            "MissingInput", "No subnets found for the default VPC. Please specify a subnet."
        )

    def _undo(self, reservations: set[str], enis: set[str]) -> None:
        """Forget what a launch that failed half-way has made and taken, beside these."""
        for reservation_id in self.reservations.keys() - reservations:
            self.reservations.pop(reservation_id)
        for eni_id in self.enis.keys() - enis:
            self._unplug(self.enis[eni_id])
            self._forget(self.enis[eni_id])
        for subnet in self.describe_subnets():
            owned = {n for eni in self.enis.values() if eni.subnet is subnet for n in eni.owned}
            lost = [n for n in subnet.taken - owned if n.num_addresses == 1]
            subnet.book4.give_back([n.network_address for n in lost if n.version == 4])  # noqa: PLR2004 - IPv4

    def _furnish(self, instance: Any, spec: Mapping[str, Any], count6: int) -> None:
        """Give an ENI that an instance is born with what RunInstances asks for it."""
        eni: Eni = instance.nics[int(spec.get("DeviceIndex") or 0)]
        eni.attached_at = 0.0
        eni.interface_type = spec.get("InterfaceType") or eni.interface_type
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
        """Terminate; an ENI goes along or becomes available, as its attachment says.

        It may be asked for more than once, and nothing more happens (EC2 API reference).
        """
        instances = [self.get_instance(i) for i in dict.fromkeys(instance_ids)]  # raises
        born_with = [instance.nics[0] for instance in instances]
        for eni in [e for e in self.enis.values() if e.instance in instances]:
            self._unplug(eni)
            if eni.delete_on_termination:
                self._forget(eni)
        for instance in instances:
            instance.nics = {}  # moto would delete them, and once more the second time
        done = super().terminate_instances([instance.id for instance in instances])
        for instance, eni in zip(instances, born_with, strict=True):
            instance.nics = {0: eni}  # DescribeInstances still tells of it
        return done


def _specs(kind: str, specs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what RunInstances says of each ENI, its primary address named where moto reads it.

    Raises EC2ClientError for a type that there is not, for more ENIs than it takes, and for device
    indices that are missing, twice there, or without 0. EC2's words for the last two are not known.
    """
    if kind not in INSTANCE_TYPES:
        raise error("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    if len(specs) > cards_of(kind)[0]:
        raise error(
            "AttachmentLimitExceeded", f"Interface count {len(specs)} exceeds the limit for {kind}"
        )
    indices = [spec.get("DeviceIndex") for spec in specs]
    if None in indices:
        raise error("MissingParameter", "Each network interface requires a device index.")
    if specs and (len(set(indices)) < len(indices) or 0 not in indices):
        raise error(
            "InvalidParameterValue",
            "Each network interface requires a device index of its own, the primary one 0.",
        )
    for spec in specs:
        for address in spec.get("PrivateIpAddresses") or ():
            if address.get("Primary"):
                spec.setdefault("PrivateIpAddress", address["PrivateIpAddress"])
    return [dict(spec) for spec in specs]
