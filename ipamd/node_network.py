"""NodeNetwork: this node's ENIs, CIDRs and counts, as an object of Kubernetes. Pure.

A record, not a configuration: nobody reads it to act, so it may be late, and one that somebody
changes is put back. It tells of blocks, and never of a pod: which address a pod has is in the
pod's status, and thousands of addresses with an owner each were what made peers' objects too
large and too often written. Its schema is config/chart/crds/nodenetworks.yaml.

Counts change with every pod, the rest with a call of EC2: so counts alone are told more rarely.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import collapse_addresses
from typing import Any
from urllib.parse import quote

from eni.model import Block, EniId
from ipamd.pool import EniCensus

API_VERSION = "enid.dev/v1alpha1"
RECORDS = "/apis/enid.dev/v1alpha1/nodenetworks"

WRITE_SECONDS = 10.0
"""Between two writes of one node's record, at least: the fleet's rate in all is its size / 10."""

COUNTS_SECONDS = 60.0
"""The same, while nothing but counts has changed: pods come and go all the time."""

WRITTEN = "writtenAt"
"""The field that is compared with nothing."""


def record_path(name: str) -> str:
    """Return where the record of the node *name* is."""
    return f"{RECORDS}/{quote(name, safe='')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What of a node never changes, or only by its settings."""

    id: str
    type: str
    primary: str
    version: str
    mode: str
    kind: str
    max_enis: int


def record(
    instance: Instance, census: Iterable[EniCensus], blocks: Mapping[Block, EniId]
) -> dict[str, Any]:
    """Return the record's status, but when it was written."""
    enis = sorted(census, key=lambda c: c.eni.number)
    return {
        "mode": instance.mode,
        "kind": instance.kind,
        "version": instance.version,
        "instanceID": instance.id,
        "instanceType": instance.type,
        "primaryAddress": instance.primary,
        "counts": {
            "enis": len(enis),
            "maxENIs": instance.max_enis,
            "held": sum(c.held for c in enis),
            "assigned": sum(c.assigned for c in enis),
            "cooling": sum(c.cooling for c in enis),
            "free": sum(c.free for c in enis if c.eni.is_open),
        },
        "enis": [_eni(c, [b for b, eni_id in blocks.items() if eni_id == c.eni.id]) for c in enis],
    }


def _eni(census: EniCensus, blocks: Iterable[Block]) -> dict[str, Any]:
    eni = census.eni
    return {
        "id": eni.id,
        "number": eni.number,
        "subnetID": eni.subnet_id,
        "state": "closed" if eni.closed else "excluded" if eni.excluded else "open",
        "slots": eni.slots,
        "cidrs": [str(cidr) for cidr in collapse_addresses(blocks)],
        "counts": {
            "held": census.held,
            "assigned": census.assigned,
            "cooling": census.cooling,
            "free": census.free,
        },
    }


def without_counts(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes only with a call of EC2, or with how the daemon works."""
    enis = status.get("enis") or ()
    rest = {name: value for name, value in status.items() if name not in {"counts", WRITTEN}}
    return {**rest, "enis": [{k: v for k, v in eni.items() if k != "counts"} for eni in enis]}


def pause_seconds(shown: Mapping[str, Any], wanted: Mapping[str, Any]) -> float | None:
    """Return how long after the last write *wanted* may be written; None if it is *shown*."""
    if {**shown, WRITTEN: None} == {**wanted, WRITTEN: None}:
        return None
    is_counts = without_counts(shown) == without_counts(wanted)
    return COUNTS_SECONDS if is_counts else WRITE_SECONDS


def differing(shown: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    """Return which fields somebody else has changed, in words; "" if none."""
    names = (shown.keys() | written.keys()) - {WRITTEN}
    return ", ".join(sorted(name for name in names if shown.get(name) != written.get(name)))


def owners(node: str, uid: str) -> list[dict[str, Any]]:
    """Return whose the record is: it goes when its Node does."""
    return [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]


def draft(node: str, uid: str) -> dict[str, Any]:
    """Return the object as it is created; its status is written apart."""
    metadata = {"name": node, "ownerReferences": owners(node, uid)}
    return {"apiVersion": API_VERSION, "kind": "NodeNetwork", "metadata": metadata}
