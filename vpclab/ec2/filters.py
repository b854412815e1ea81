"""What descriptions are filtered by. Shell: it reads moto's objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from vpclab.ec2.model import Eni


def _truth(value: object) -> str:
    return str(value).lower()


FILTERS: Mapping[str, Callable[[Eni], Iterable[object]]] = {
    "addresses.association.public-ip": lambda eni: eni.public.values(),
    "addresses.primary": lambda eni: [_truth(a == eni.addresses[0]) for a in eni.addresses],
    "addresses.private-ip-address": lambda eni: eni.addresses,
    "association.public-ip": lambda eni: [eni.public_ip],
    "attachment.attachment-id": lambda eni: [eni.attachment_id],
    "attachment.delete-on-termination": lambda eni: _of(eni, "delete_on_termination"),
    "attachment.device-index": lambda eni: _of(eni, "device_index"),
    "attachment.instance-id": lambda eni: _of(eni, "instance_id"),
    "attachment.instance-owner-id": lambda eni: _of(eni, "instance_owner_id"),
    "attachment.network-card-index": lambda eni: _of(eni, "network_card_index"),
    "attachment.status": lambda eni: _of(eni, "status"),
    "availability-zone": lambda eni: [eni.availability_zone],
    "availability-zone-id": lambda eni: [eni.subnet.availability_zone_id],
    "description": lambda eni: [eni.description],
    "group-id": lambda eni: [group.id for group in eni.group_set],
    "group-name": lambda eni: [group.name for group in eni.group_set],
    "interface-type": lambda eni: [eni.interface_type],
    "ipv6-addresses.ipv6-address": lambda eni: eni.addresses6,
    "mac-address": lambda eni: [eni.mac_address],
    "network-interface-id": lambda eni: [eni.id],
    "owner-id": lambda eni: [eni.owner_id],
    "private-dns-name": lambda eni: [getattr(eni, "private_dns_name", None)],
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
    return [_truth(value) if isinstance(value, bool) else str(value)]


def matches(eni: Eni, name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of an ENI's values fits one of the *patterns* of filter *name*."""
    values: Iterable[object]
    if name.startswith("tag:"):
        values = [tag["value"] for tag in eni.get_tags() if tag["key"] == name[4:]]
    else:
        values = FILTERS[name](eni)
    return any(fnmatchcase(str(v), p) for v in values if v is not None for p in patterns)
