"""What the metadata service tells of an instance, as paths and texts. Pure.

A tree is flat: a path below a version, as `meta-data/placement/region`, and its text. A folder is
what paths have in common. So a key without a value is not there, nor is a folder without keys: 404,
as on EC2.

The keys are those of the EC2 user guide's table "Instance metadata categories". Where it names the
card of an ENI `network-card`, older editions say `network-card-index`, which is not served.
Remembered of instances, as the guide does not say: the order of lists, `ipv4-prefix`, `profile`,
and that `events/maintenance/*` are `[]` where nothing is planned. Names of hosts are there as in a
VPC with `enableDnsHostnames`. Not there: public keys, product codes, placement groups, signatures.
A node is in no Auto Scaling group: it has no `autoscaling/target-lifecycle-state` until `Imds.say`
gives it one.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

ROLE = "node"
"""The role of every node."""

VERSIONS = ("1.0", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest")
"""Some of EC2's. Each is `latest` here; on EC2 a version has the keys of its time."""


Tree = Mapping[str, str]
Folder = Mapping[str, "Folder | str | None"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A role's keys, as an instance has them from its profile."""

    id: str
    secret: str
    token: str
    since: dt.datetime
    until: dt.datetime


@dataclass(frozen=True, slots=True)
class Options:
    """An instance's metadata options; the defaults are those of a lab's node."""

    enabled: bool = True
    enabled6: bool = False
    tokens_required: bool = True
    hop_limit: int = 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an instance's service tells, and on which terms."""

    tree: Tree
    options: Options = Options()


def options_of(instance: Any) -> Options:
    """Return the metadata options of a moto instance."""
    options = instance.metadata_options
    return Options(
        enabled=options.http_endpoint == "enabled",
        enabled6=options.http_protocol_ipv6 == "enabled",
        tokens_required=options.http_tokens == "required",
        hop_limit=int(options.http_put_response_hop_limit),
    )


def find(tree: Tree, path: str) -> str | None:
    """Return the text at *path*, or the list of a folder; None if there is neither.

    Folders in a list end in a slash, but for `dynamic` and `meta-data`, as on EC2.
    """
    if path in tree:
        return tree[path]
    above = f"{path}/" if path else ""
    names = (key.removeprefix(above).partition("/") for key in tree if key.startswith(above))
    listed = {name + slash if path else name for name, slash, _ in names}
    return "\n".join(sorted(listed)) if listed else None


def tree_of(
    instance: Any,
    *,
    region: str,
    account: str,
    cidrs: Iterable[str],
    cidrs6: Iterable[str] = (),
    credentials: Credentials,
) -> Tree:
    """Return the tree of a moto instance in a VPC with these CIDRs, the primary one first."""
    shared: Folder = {
        "owner-id": account,
        "vpc-ipv4-cidr-block": next(iter(cidrs), None),
        "vpc-ipv4-cidr-blocks": _lines(cidrs),
        "vpc-ipv6-cidr-blocks": _lines(cidrs6),
    }
    return dict(
        _flat(
            {
                "dynamic": {
                    "fws": {"instance-monitoring": instance.monitoring_state},
                    "instance-identity": {"document": _document(instance, region, account)},
                },
                "meta-data": {
                    **_instance(instance, region),
                    **_roles(account, credentials),
                    "network": {
                        "interfaces": {
                            "macs": {
                                eni.mac_address: {**_eni(eni, region), **shared}
                                for eni in instance.nics.values()
                                if _is_there(eni)
                            }
                        }
                    },
                },
                "user-data": _decoded(instance.user_data),
            }
        )
    )


def _flat(folder: Folder, above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in folder.items():
        if isinstance(value, str):
            if value:
                yield above + name, value
        elif value is not None:
            yield from _flat(value, f"{above}{name}/")


def _lines(values: Iterable[str]) -> str:
    return "\n".join(values)


def _is_there(eni: Any) -> bool:
    """Return whether EC2 tells of *eni*; an efa-only one is told of, though it has no link."""
    efa = eni.interface_type == "efa-only" and eni.attachment_status == "attached"
    return bool(eni.is_plugged or efa)


def _instance(instance: Any, region: str) -> Folder:
    primary = instance.nics[0]
    tags = instance.get_tags() if _tells_tags(instance) else ()
    return {
        "ami-id": instance.image_id,
        "ami-launch-index": str(instance.ami_launch_index),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {
            "ami": instance.root_device_name,
            "root": instance.root_device_name,
        },
        "events": {"maintenance": {"history": "[]", "scheduled": "[]"}},
        "hostname": primary.private_dns_name,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": instance.lifecycle or "on-demand",
        "instance-type": instance.instance_type,
        "ipv6": next(iter(primary.addresses6), None),
        "local-hostname": primary.private_dns_name,
        "local-ipv4": next(iter(primary.addresses), None),
        "mac": primary.mac_address,
        "placement": {
            "availability-zone": primary.subnet.availability_zone,
            "availability-zone-id": primary.subnet.availability_zone_id,
            "region": region,
        },
        "profile": "default-hvm",
        "public-hostname": _public_name(primary, region),
        "public-ipv4": primary.public_ip,
        "reservation-id": next(
            (r.id for r in instance.ec2_backend.reservations.values() if instance in r.instances),
            None,
        ),
        "security-groups": _lines(group.name for group in primary.group_set),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "system": "nitro",
        "tags": {"instance": {tag["key"]: tag["value"] for tag in tags}},
    }


def _tells_tags(instance: Any) -> bool:
    return bool(instance.metadata_options.instance_metadata_tags == "enabled")


def _eni(eni: Any, region: str) -> Folder:
    return {
        "device-number": str(eni.device_index),
        "interface-id": eni.id,
        "ipv4-associations": {public: private for private, public in eni.public.items()},
        "ipv4-prefix": _lines(eni.prefixes),
        "ipv6-prefix": _lines(eni.prefixes6),
        "ipv6s": _lines(eni.addresses6),
        "local-hostname": eni.private_dns_name,
        "local-ipv4s": _lines(eni.addresses),
        "mac": eni.mac_address,
        "network-card": str(eni.card),
        "public-hostname": _public_name(eni, region),
        "public-ipv4s": _lines(eni.public[a] for a in eni.addresses if a in eni.public),
        "security-group-ids": _lines(group.id for group in eni.group_set),
        "security-groups": _lines(group.name for group in eni.group_set),
        "subnet-id": eni.subnet.id,
        "subnet-ipv4-cidr-block": eni.subnet.cidr_block,
        "subnet-ipv6-cidr-blocks": _lines(eni.subnet.cidrs6),
        "vpc-id": eni.subnet.vpc_id,
    }


def _public_name(eni: Any, region: str) -> str | None:
    domain = "compute-1" if region == "us-east-1" else f"{region}.compute"
    address = eni.public_ip
    return f"ec2-{address.replace('.', '-')}.{domain}.amazonaws.com" if address else None


def _decoded(user_data: Any) -> str | None:
    return base64.b64decode(str(user_data)).decode(errors="replace") if user_data else None


def _document(instance: Any, region: str, account: str) -> str:
    return json.dumps(
        {
            "accountId": account,
            "architecture": instance.architecture,
            "availabilityZone": instance.nics[0].subnet.availability_zone,
            "billingProducts": None,
            "devpayProductCodes": None,
            "imageId": instance.image_id,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "kernelId": None,
            "marketplaceProductCodes": None,
            "pendingTime": _stamp(instance.launch_time),
            "privateIp": instance.nics[0].private_ip_address,
            "ramdiskId": None,
            "region": region,
            "version": "2017-09-30",
        }
    )


def _roles(account: str, keys: Credentials) -> Folder:
    told = {"Code": "Success", "LastUpdated": _stamp(keys.since)}
    profile = {
        **told,
        "InstanceProfileArn": f"arn:aws:iam::{account}:instance-profile/{ROLE}",
        "InstanceProfileId": "AIPA0000000000000LAB",
    }
    # The instance's own identity, which only AWS's agents use, is nobody here.
    nobody = replace(keys, id="ASIA0000000000000LAB", secret="nobody", token="nobody")  # noqa: S106
    return {
        "iam": {"info": json.dumps(profile), "security-credentials": {ROLE: _credentials(keys)}},
        "identity-credentials": {
            "ec2": {
                "info": json.dumps({**told, "AccountId": account}),
                "security-credentials": {"ec2-instance": _credentials(nobody)},
            }
        },
    }


def _credentials(keys: Credentials) -> str:
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": _stamp(keys.since),
            "Type": "AWS-HMAC",
            "AccessKeyId": keys.id,
            "SecretAccessKey": keys.secret,
            "Token": keys.token,
            "Expiration": _stamp(keys.until),
        }
    )


def _stamp(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
