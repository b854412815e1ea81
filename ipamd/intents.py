"""What the journal keeps of ENIs: how far each is, and what a restart must know of it. Pure.

An intent holds all that a Create was asked with, so that it can be asked again byte for
byte, and later what its ENI has, so that a restart needs no EC2.

    planned ─> created ─> attached ─> modified ─> configured ─> active ─> draining ─> gone
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

from eni.model import AttachmentId, Block, CreateEni, Eni, EniId, Kind, SecurityGroupId, SubnetId

INSTANCE_TAG = "node.k8s.amazonaws.com/instance_id"
CREATED_TAG = "node.k8s.amazonaws.com/createdAt"
UNMANAGED_TAG = "node.k8s.amazonaws.com/no_manage"
CLUSTER_TAG = "cluster.k8s.amazonaws.com/name"
OWNER_TAG = "eks:eni:owner"
OWNER = "amazon-vpc-cni"
INTENT_TAG = "enid.dev/intent"

DESCRIPTION = "aws-K8S-"
"""Every ENI of ours is described so, the instance id following; the peer's words."""


class EniState(StrEnum):
    """Where an ENI is between the wish for it and its end."""

    PLANNED = "planned"
    CREATED = "created"
    ATTACHED = "attached"
    MODIFIED = "modified"
    CONFIGURED = "configured"
    ACTIVE = "active"
    DRAINING = "draining"


class Held(StrEnum):
    """What the journal knows of a block: ours, asked back and not yet answered, or EC2's again."""

    HELD = "held"
    RELEASING = "releasing"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One ENI's row. *parameters* repeats the Create byte for byte; empty for an adopted ENI."""

    token: str
    state: EniState
    device_index: int
    parameters: Mapping[str, object]
    eni_id: EniId | None = None
    attachment_id: AttachmentId | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of history: *event* is constant text, *subject* an address, ENI or pod."""

    at: float
    event: str
    subject: str
    detail: Mapping[str, object]


def wish_of(parameters: Mapping[str, object]) -> CreateEni:
    """Return the Create of an intent, the same each time."""
    groups, tags = parameters["security_groups"], parameters["tags"]
    assert isinstance(groups, list)
    assert isinstance(tags, list)
    count = int(str(parameters["count"]))
    is_prefix = parameters["kind"] == Kind.PREFIX.value
    return CreateEni(
        token=str(parameters["token"]),
        subnet_id=SubnetId(str(parameters["subnet_id"])),
        security_groups=tuple(SecurityGroupId(g) for g in groups),
        description=str(parameters["description"]),
        secondary_count=0 if is_prefix else count,
        prefix_count=count if is_prefix else 0,
        tags=tuple((str(key), str(value)) for key, value in tags),
    )


def is_foreign(intent: Intent) -> bool:
    """Whether the ENI was attached by somebody else and is not ours to change."""
    return bool(intent.parameters.get("foreign"))


def is_detached(intent: Intent) -> bool:
    """Whether EC2 has said that the ENI is off the instance: it is only to be deleted."""
    return intent.state is EniState.DRAINING and intent.attachment_id is None


def is_in_use(intent: Intent) -> bool:
    """Whether the ENI is on the instance and set up, so that pods may have addresses of it."""
    is_up = intent.state in {EniState.ACTIVE, EniState.DRAINING}
    return is_up and not is_detached(intent)


def wished(intent: Intent) -> int:
    """Return how many addresses an ENI on its way will bring."""
    kind = Kind(str(intent.parameters.get("kind", Kind.SINGLE.value)))
    return int(str(intent.parameters.get("count", 0))) * kind.size


@dataclass(frozen=True, slots=True)
class Noted:
    """What an intent remembers of its ENI, so that a restart needs no EC2."""

    primary: IPv4Address
    blocks: tuple[Block, ...]
    subnet_id: SubnetId
    subnet_cidr: IPv4Network


def note_of(eni: Eni, cidr: IPv4Network) -> dict[str, object]:
    """Return *eni*, in a subnet with *cidr*, as the journal keeps it."""
    return note(Noted(eni.primary or cidr[0], eni.blocks, eni.subnet_id, cidr))


def note(what: Noted) -> dict[str, object]:
    """Return *what* as the journal keeps it."""
    return {
        "primary": str(what.primary),
        "blocks": [str(block) for block in what.blocks],
        "subnet_id": what.subnet_id,
        "subnet_cidr": str(what.subnet_cidr),
    }


def noted(intent: Intent) -> Noted:
    """Return what *intent*, created or later, remembers of its ENI."""
    kept = intent.parameters["eni"]
    assert isinstance(kept, dict)
    return Noted(
        IPv4Address(kept["primary"]),
        tuple(IPv4Network(block) for block in kept["blocks"]),
        SubnetId(kept["subnet_id"]),
        IPv4Network(kept["subnet_cidr"]),
    )


def free_index(used: Set[int]) -> int:
    """Return the first device index that no ENI has; the primary's is 0.

    There is always one, however many are *used*: what the instance takes is EC2's to say.
    """
    return next(index for index in range(1, len(used) + 2) if index not in used)
