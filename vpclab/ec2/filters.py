"""What descriptions are filtered by. Shell: it reads moto's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from vpclab.ec2.model import Eni


def _truth(value: object) -> str:
    return str(value).lower()


FILTERS: Mapping[str, Callable[[Eni], Iterable[object]]] = {
    "addresses.association.owner-id": lambda eni: _associated(eni, "IpOwnerId"),
    "addresses.association.public-ip": lambda eni: eni.public.values(),
    "addresses.primary": lambda eni: [_truth(a == eni.addresses[0]) for a in eni.addresses],
    "addresses.private-ip-address": lambda eni: eni.addresses,
    "association.allocation-id": lambda eni: _associated(eni, "AllocationId"),
    "association.association-id": lambda eni: _associated(eni, "AssociationId"),
    "association.ip-owner-id": lambda eni: _associated(eni, "IpOwnerId"),
    "association.public-dns-name": lambda eni: _associated(eni, "PublicDnsName"),
    "association.public-ip": lambda eni: [eni.public_ip],
    "attachment.attach-time": lambda eni: _of(eni, "attach_time"),
    "attachment.attachment-id": lambda eni: [eni.attachment_id],
    "attachment.delete-on-termination": lambda eni: _of(eni, "delete_on_termination"),
    "attachment.device-index": lambda eni: _of(eni, "device_index"),
    "attachment.instance-id": lambda eni: _of(eni, "instance_id"),
    "attachment.instance-owner-id": lambda eni: _of(eni, "instance_owner_id"),
    "attachment.network-card-index": lambda eni: _of(eni, "network_card_index"),
    "attachment.status": lambda eni: _of(eni, "status"),
    "availability-zone": lambda eni: [eni.availability_zone],
    "availability-zone-id": lambda eni: [eni.availability_zone_id],
    "description": lambda eni: [eni.description],
    "group-id": lambda eni: [group.id for group in eni.group_set],
    "group-name": lambda eni: [group.name for group in eni.group_set],
    "interface-type": lambda eni: [eni.interface_type],
    "ipv6-addresses.ipv6-address": lambda eni: eni.addresses6,
    "mac-address": lambda eni: [eni.mac_address],
    "network-interface-id": lambda eni: [eni.id],
    "owner-id": lambda eni: [eni.owner_id],
    "operator.managed": lambda _: ["false"],
    "operator.principal": lambda _: [],
    "private-dns-name": lambda eni: [eni.private_dns_name],
    "private-ip-address": lambda eni: [eni.private_ip_address],
    "requester-id": lambda eni: [eni.requester_id],
    "requester-managed": lambda eni: [_truth(eni.requester_managed)],
    "source-dest-check": lambda eni: [_truth(eni.source_dest_check)],
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
    if attribute == "attach_time":
        return [value.strftime("%Y-%m-%dT%H:%M:%S.000Z")]
    return [_truth(value) if isinstance(value, bool) else str(value)]


def _associated(eni: Eni, name: str) -> list[str]:
    items = (item.get("Association", {}) for item in eni.private_ip_addresses)
    return [item[name] for item in items if name in item]


def matches(eni: Eni, name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of an ENI's values fits one of the *patterns* of filter *name*."""
    values: Iterable[object]
    if name.startswith("tag:"):
        values = [tag["value"] for tag in eni.get_tags() if tag["key"] == name[4:]]
    else:
        values = FILTERS[name](eni)
    return _fit(values, patterns)


def _fit(values: Iterable[object], patterns: Iterable[str]) -> bool:
    """Return whether one of *values* fits one of *patterns*, in which only * and ? are signs."""
    signs = [pattern.replace("[", "[[]") for pattern in patterns]
    return any(fnmatchcase(str(v), p) for v in values if v is not None for p in signs)


INSTANCES: Mapping[str, Callable[[Any], Iterable[object]]] = {
    "architecture": lambda instance: [instance.architecture],
    "availability-zone": lambda instance: [instance.placement.availability_zone],
    "availability-zone-id": lambda instance: [i.availability_zone_id for i in _first(instance)],
    "client-token": lambda instance: [instance.client_token],
    "dns-name": lambda instance: [instance.public_dns_name],
    "hypervisor": lambda instance: [instance.hypervisor],
    "image-id": lambda instance: [instance.image_id],
    "instance-id": lambda instance: [instance.id],
    "instance-lifecycle": lambda instance: [instance.lifecycle],
    "instance-state-code": lambda instance: [instance.state_code],
    "instance-state-name": lambda instance: [instance.state],
    "instance-type": lambda instance: [instance.instance_type],
    "instance.group-id": lambda instance: [g.id for i in _first(instance) for g in i.group_set],
    "instance.group-name": lambda instance: [g.name for i in _first(instance) for g in i.group_set],
    "ip-address": lambda instance: [i.public_ip for i in _first(instance)],
    "ipv6-address": lambda instance: [a for i in instance.nics.values() for a in i.addresses6],
    "key-name": lambda instance: [instance.key_name],
    "launch-index": lambda instance: [instance.ami_launch_index],
    "metadata-options.http-tokens": lambda instance: [instance.metadata_options.http_tokens],
    "monitoring-state": lambda instance: [instance.monitoring_state],
    "owner-id": lambda instance: [instance.owner_id],
    "platform-details": lambda instance: [instance.platform_details],
    "private-dns-name": lambda instance: [instance.private_dns_name],
    "private-ip-address": lambda instance: [i.private_ip_address for i in _first(instance)],
    "root-device-name": lambda instance: [instance.root_device_name],
    "source-dest-check": lambda instance: [_truth(i.source_dest_check) for i in _first(instance)],
    "subnet-id": lambda instance: [instance.subnet_id],
    "tag-key": lambda instance: [tag["key"] for tag in instance.get_tags()],
    "tag-value": lambda instance: [tag["value"] for tag in instance.get_tags()],
    "tenancy": lambda instance: [instance.placement.tenancy],
    "virtualization-type": lambda instance: [instance.virtualization_type],
    "vpc-id": lambda instance: [instance.vpc_id],
}
"""What a filter of DescribeInstances compares. To them come `reservation-id`, `tag:<key>`, and
`network-interface.` before a name of FILTERS, which one of the instance's ENIs must fit."""

OF_ENIS = "network-interface."


def _first(instance: Any) -> list[Eni]:
    return [instance.nics[0]] if 0 in instance.nics else []


def is_of_instances(name: str) -> bool:
    """Return whether DescribeInstances has a filter *name*."""
    return (
        name in INSTANCES
        or name == "reservation-id"
        or name.startswith("tag:")
        or (name.startswith(OF_ENIS) and name.removeprefix(OF_ENIS) in FILTERS)
    )


def fits(instance: Any, reservation_id: str, name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of an instance's values fits one of the *patterns* of filter *name*."""
    if name.startswith(OF_ENIS):
        below = name.removeprefix(OF_ENIS)
        return any(matches(eni, below, patterns) for eni in instance.nics.values())
    values: Iterable[object]
    if name.startswith("tag:"):
        values = [tag["value"] for tag in instance.get_tags() if tag["key"] == name[4:]]
    elif name == "reservation-id":
        values = [reservation_id]
    else:
        values = INSTANCES[name](instance)
    return _fit(values, patterns)
