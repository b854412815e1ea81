"""The VPC as this node sees it: ENIs, subnets, and who we are. Pure.

Values only. An address list is complete or it is not there: whoever builds
one of these from a partial answer must not build it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

EniId = NewType("EniId", str)
InstanceId = NewType("InstanceId", str)
SubnetId = NewType("SubnetId", str)
VpcId = NewType("VpcId", str)
SecurityGroupId = NewType("SecurityGroupId", str)
AttachmentId = NewType("AttachmentId", str)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

Block = IPv4Network
"""What takes one slot of an ENI: a secondary address (/32) or a prefix (/28)."""

PREFIX_LENGTH = 28
"""EC2 gives IPv4 prefixes of this length only, aligned to it."""

PREFIX_SIZE = 16
"""Addresses of a /28; pods may have all of them."""


class Kind(StrEnum):
    """The two kinds of blocks; one call of EC2 asks for one kind."""

    SINGLE = "single"
    PREFIX = "prefix"

    @property
    def size(self) -> int:
        """Addresses in a block of this kind."""
        return PREFIX_SIZE if self is Kind.PREFIX else 1


def kind_of(block: Block) -> Kind:
    """Return which kind *block* is."""
    return Kind.PREFIX if block.prefixlen == PREFIX_LENGTH else Kind.SINGLE


class AttachmentStatus(StrEnum):
    """EC2's words for how far an attachment is."""

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    DETACHED = "detached"
    OTHER = "other"
    """A word that EC2 has come up with since."""

    @classmethod
    def _missing_(cls, value: object) -> AttachmentStatus:
        """Return OTHER: one odd attachment must not make a whole answer unreadable."""
        del value
        return cls.OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An ENI's place on an instance.

    An ENI without *delete_on_termination* outlives its instance and costs
    addresses until somebody deletes it.
    """

    id: AttachmentId
    instance_id: InstanceId
    device_index: int
    network_card: int = 0
    status: AttachmentStatus
    delete_on_termination: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Eni:
    """An ENI as EC2 describes it.

    *status* is EC2's own word: pending (in the answer to a create), available,
    associated, attaching, in-use or detaching. *mac* is lower case with
    colons, as the kernel writes it. *primary* is None for an efa-only ENI,
    which has no address but takes a place on the instance all the same.
    """

    id: EniId
    mac: str
    subnet_id: SubnetId
    status: str
    description: str
    interface_type: str
    primary: IPv4Address | None
    secondary: tuple[IPv4Address, ...] = ()
    ipv6: tuple[IPv6Address, ...] = ()
    prefixes: tuple[Network, ...] = ()
    security_groups: tuple[SecurityGroupId, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    attachment: Attachment | None = None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What takes its IPv4 slots: secondary addresses as /32, then prefixes."""
        singles = tuple(IPv4Network((int(address), 32)) for address in self.secondary)  # no parsing
        return (*singles, *(p for p in self.prefixes if isinstance(p, IPv4Network)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateEni:
    """The whole of one CreateNetworkInterface call.

    EC2 takes a repeat with the same *token* as the same ENI only if every
    other field is the same, so a wish is stored and repeated as it is. EC2
    refuses *secondary_count* and *prefix_count* in one call.
    """

    token: str
    subnet_id: SubnetId
    security_groups: tuple[SecurityGroupId, ...]
    description: str
    secondary_count: int = 0
    prefix_count: int = 0
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A subnet; *available* is EC2's count, late by seconds and blind to fragments."""

    id: SubnetId
    vpc_id: VpcId
    cidr: IPv4Network
    ipv6_cidrs: tuple[IPv6Network, ...] = ()
    availability_zone: str
    available: int
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """This instance; *mac* and *primary* are its primary ENI's."""

    instance_id: InstanceId
    instance_type: str
    region: str
    availability_zone: str
    mac: str
    primary: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ImdsEni:
    """An ENI as IMDS tells of it: a hint, never evidence that something is gone.

    *addresses* begin with the primary one.
    """

    id: EniId
    mac: str
    device_index: int
    network_card: int = 0
    vpc_id: VpcId
    subnet_id: SubnetId
    subnet_cidr: IPv4Network
    vpc_cidrs: tuple[Network, ...]
    addresses: tuple[IPv4Address, ...]
    ipv6s: tuple[IPv6Address, ...] = ()
    prefixes: tuple[Network, ...] = ()
    security_groups: tuple[SecurityGroupId, ...] = ()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What takes its IPv4 slots, as of an `Eni`."""
        singles = tuple(IPv4Network((int(address), 32)) for address in self.addresses[1:])
        return (*singles, *(p for p in self.prefixes if isinstance(p, IPv4Network)))


NO_ENIS: Mapping[str, ImdsEni] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """What AWS has in mind with this instance, as IMDS tells.

    *spot_action* is to come within two minutes: terminate, stop or hibernate. *rebalance* is
    advice: the risk of that is higher than usual. *lifecycle* is the state that the Auto
    Scaling group wants: InService, Terminated, or one of a warm pool; None without a group.
    """

    spot_action: str | None = None
    rebalance: bool = False
    lifecycle: str | None = None
