"""What the model of EC2 keeps of an ENI and an instance. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eni.model import Attachment, AttachmentStatus, Eni

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eni.limits import InstanceLimits
    from eni.model import AttachmentId, EniId, InstanceId, SecurityGroupId, SubnetId, VpcId
    from ipamd.plan.subnet import Book


@dataclass(slots=True, eq=False, kw_only=True)
class SubnetRecord:
    """A subnet and its addresses."""

    id: SubnetId
    vpc_id: VpcId
    availability_zone: str
    tags: dict[str, str]
    book: Book


@dataclass(slots=True, eq=False, kw_only=True)
class Place:
    """An ENI's place on an instance; *detached_at* is None until someone detaches it."""

    id: AttachmentId
    instance: InstanceRecord
    card: int
    device_index: int
    attached_at: float
    detached_at: float | None = None
    delete_on_termination: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Where on the instance it is."""
        return self.card, self.device_index

    def status(self, now: float) -> AttachmentStatus:
        """Return how far it is."""
        if self.detached_at is not None:
            return AttachmentStatus.DETACHING
        there = now >= self.attached_at
        return AttachmentStatus.ATTACHED if there else AttachmentStatus.ATTACHING


@dataclass(slots=True, eq=False, kw_only=True)
class InstanceRecord:
    """An instance; *enis* by card and device index."""

    id: InstanceId
    limits: InstanceLimits
    subnet: SubnetRecord
    enis: dict[tuple[int, int], EniRecord] = field(default_factory=dict)
    is_running: bool = True


@dataclass(slots=True, eq=False, kw_only=True)
class EniRecord:
    """An ENI; addresses and prefixes are offsets in its subnet, in the order they came.

    *visible_at* is when descriptions begin to tell of it. Whoever changes it calls `changed`.
    """

    id: EniId
    mac: str
    subnet: SubnetRecord
    description: str
    interface_type: str
    primary: int | None
    security_groups: tuple[SecurityGroupId, ...]
    tags: dict[str, str]
    visible_at: float
    singles: dict[int, None] = field(default_factory=dict)
    prefixes: dict[int, None] = field(default_factory=dict)
    place: Place | None = None
    _told: Eni | None = None
    _told_until: float = math.inf

    @property
    def slots(self) -> int:
        """How many slots it takes, the primary's included."""
        return (self.primary is not None) + len(self.singles) + len(self.prefixes)

    @property
    def has_link(self) -> bool:
        """Whether an instance shows a link for it at all; an efa-only ENI has none."""
        return self.interface_type != "efa-only"

    def changed(self) -> None:
        """Forget how it was told of."""
        self._told = None

    def described(self, now: float) -> Eni:
        """Return it as a description shows it at *now*; the same value until it changes."""
        if self._told is None or now >= self._told_until:
            place = self.place
            coming = place is not None and place.detached_at is None and now < place.attached_at
            self._told_until = place.attached_at if place is not None and coming else math.inf
            self._told = self._value(now)
        return self._told

    def _value(self, now: float) -> Eni:
        book = self.subnet.book
        attachment = _attachment(self.place, now) if self.place is not None else None
        return Eni(
            id=self.id,
            mac=self.mac,
            subnet_id=self.subnet.id,
            status=_status(attachment),
            description=self.description,
            interface_type=self.interface_type,
            primary=None if self.primary is None else book.address(self.primary),
            secondary=tuple(map(book.address, self.singles)),
            prefixes=tuple(map(book.prefix, self.prefixes)),
            security_groups=self.security_groups,
            tags=dict(self.tags),
            attachment=attachment,
        )

    def held(self) -> Iterator[tuple[int, int]]:
        """Yield what it has of its subnet: offsets and how many addresses there."""
        if self.primary is not None:
            yield self.primary, 1
        yield from ((offset, 1) for offset in self.singles)
        yield from ((offset, 16) for offset in self.prefixes)


def _attachment(place: Place, now: float) -> Attachment:
    return Attachment(
        id=place.id,
        instance_id=place.instance.id,
        device_index=place.device_index,
        network_card=place.card,
        status=place.status(now),
        delete_on_termination=place.delete_on_termination,
    )


def _status(attachment: Attachment | None) -> str:
    """Return EC2's word for the state of an ENI with such an attachment."""
    if attachment is None:
        return "available"
    attached = attachment.status is AttachmentStatus.ATTACHED
    return "in-use" if attached else str(attachment.status)
