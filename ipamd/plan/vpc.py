"""The rules of EC2: what each call does, or why it does not. Pure.

State and rules only; who calls, how often and what goes wrong on the way is cloud.py's. Every
method that is a call of EC2 raises Ec2Error with EC2's code, and then has changed nothing. Time
is the clock's that is given in: an attachment comes and goes when the clock has come so far.

Nothing here goes through all ENIs but `verify` and `enis`: there are thousands of nodes. It is
long because it is a list, one short method for each call, over one set of indices.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NoReturn

from eni.model import (
    AttachmentId,
    CreateEni,
    Eni,
    EniId,
    Kind,
    SecurityGroupId,
    Subnet,
    SubnetId,
    VpcId,
    kind_of,
)
from ipamd.plan.records import EniRecord, InstanceRecord, Place, SubnetRecord
from ipamd.plan.subnet import Book, Ec2Error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from ipaddress import IPv4Network

    from eni.limits import InstanceLimits
    from eni.model import Block, InstanceId

ATTACH: Final = "AttachNetworkInterface"
DETACH: Final = "DetachNetworkInterface"

MOST: Final = 256
"""How much one call may ask for; no type's ENI has more slots."""


class Vpc:
    """One VPC: its subnets, ENIs and instances."""

    def __init__(
        self,
        *,
        vpc_id: VpcId,
        clock: Callable[[], float],
        latency: Callable[[str], float],
        lag_seconds: float,
        draw: Callable[[int], int] | None,
        limits_of: Callable[[str], InstanceLimits | None],
    ) -> None:
        self.id = vpc_id
        self.default_group = SecurityGroupId("sg-0000000000000000")
        self.security_groups = {self.default_group}
        self.lag_seconds = lag_seconds
        self.latency = latency
        self._clock, self._draw, self._limits_of = clock, draw, limits_of
        self._limits: dict[str, InstanceLimits | None] = {}
        self._subnets: dict[SubnetId, SubnetRecord] = {}
        self._instances: dict[InstanceId, InstanceRecord] = {}
        self._enis: dict[EniId, EniRecord] = {}
        self._tokens: dict[str, tuple[CreateEni, EniRecord]] = {}
        self._by_attachment: dict[AttachmentId, EniRecord] = {}
        self._by_mac: dict[str, EniRecord] = {}
        self._by_tag: dict[tuple[str, str], dict[EniId, EniRecord]] = {}
        self._idle: dict[EniId, EniRecord] = {}
        self._due: list[tuple[float, AttachmentId]] = []
        self._count = 0

    # What is there before anyone calls ----------------------------------------------------
    def add_subnet(
        self,
        cidr: IPv4Network,
        availability_zone: str,
        *,
        tags: Iterable[tuple[str, str]] = (),
        reservations: Iterable[IPv4Network] = (),
        occupied: Iterable[IPv4Network] = (),
    ) -> SubnetId:
        """Make a subnet of which others have *occupied*; the *reservations* are for prefixes."""
        subnet_id = SubnetId(f"subnet-{self._number()}")
        book = Book(cidr, subnet_id, self._draw)
        for reservation in reservations:
            book.reserve(reservation)
        for network in occupied:
            book.occupy(network)
        self._subnets[subnet_id] = SubnetRecord(
            id=subnet_id,
            vpc_id=self.id,
            availability_zone=availability_zone,
            tags=dict(tags),
            book=book,
        )
        return subnet_id

    def book(self, subnet_id: SubnetId) -> Book:
        """Return the addresses of a subnet."""
        return self._subnet(subnet_id).book

    def launch(self, instance_id: InstanceId, instance_type: str, subnet_id: SubnetId) -> None:
        """Start an instance, whose primary ENI has one address."""
        subnet = self._subnet(subnet_id)
        limits = self.limits(instance_type)
        if instance_id in self._instances:
            _refuse("InvalidParameterValue", f"There is an instance {instance_id} already")
        eni = self._make(subnet, subnet.book.take(1)[0], (), "Primary network interface")
        instance = InstanceRecord(id=instance_id, limits=limits, subnet=subnet)
        self._instances[instance_id] = instance
        place = self._plug(eni, instance, (0, 0), 0.0)
        place.delete_on_termination = True

    def terminate(self, instance_id: InstanceId) -> None:
        """End an instance: an ENI goes along, or is available, as its attachment says."""
        instance = self._instance(instance_id)
        for eni in tuple(instance.enis.values()):
            place = self._unplug(eni)
            if place.delete_on_termination:
                self._forget(eni)
        instance.is_running = False

    def attach_foreign(
        self,
        instance_id: InstanceId,
        device_index: int,
        *,
        network_card: int = 0,
        subnet_id: SubnetId | None = None,
        interface_type: str = "interface",
        secondary_count: int = 0,
        tags: Iterable[tuple[str, str]] = (),
    ) -> EniId:
        """Make an ENI that is someone else's and attach it at once; the subnet is the instance's.

        An efa-only one has no address.
        """
        instance = self._instance(instance_id)
        subnet = instance.subnet if subnet_id is None else self._subnet(subnet_id)
        self._check_place(instance, network_card, device_index)
        primary = None if interface_type == "efa-only" else subnet.book.take(1)[0]
        eni = self._make(subnet, primary, (), "foreign", tags)
        eni.interface_type = interface_type
        eni.singles.update(dict.fromkeys(subnet.book.take(secondary_count)))
        self._plug(eni, instance, (network_card, device_index), 0.0)
        return eni.id

    def detach_now(self, eni_id: EniId) -> None:
        """Take an ENI from its instance by force, if it is on one."""
        eni = self._eni(eni_id)
        if eni.place is not None:
            self._unplug(eni)

    # Questions ----------------------------------------------------------------------------
    def attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """DescribeNetworkInterfaces by instance."""
        instance = self._instances.get(instance_id)
        return self._told(instance.enis.values()) if instance is not None else ()

    def eni(self, eni_id: EniId) -> Eni | None:
        """DescribeNetworkInterfaces by id."""
        eni = self._enis.get(eni_id)
        return next(iter(self._told((eni,))), None) if eni is not None else None

    def by_tag(self, key: str, value: str) -> tuple[Eni, ...]:
        """DescribeNetworkInterfaces by tag."""
        return self._told(self._by_tag.get((key, value), {}).values())

    def available(self, tags: Collection[tuple[str, str]]) -> tuple[Eni, ...]:
        """DescribeNetworkInterfaces by status and tags."""
        return self._told(
            eni
            for eni in self._idle.values()
            if all(key in eni.tags and value in {"", eni.tags[key]} for key, value in tags)
        )

    def _told(self, enis: Iterable[EniRecord]) -> tuple[Eni, ...]:
        now = self._clock()
        return tuple(eni.described(now) for eni in enis if eni.visible_at <= now)

    def subnet(self, subnet_id: SubnetId) -> Subnet:
        """DescribeSubnets by id."""
        return _subnet_value(self._subnet(subnet_id))

    def subnets(self, vpc_id: VpcId, availability_zone: str) -> tuple[Subnet, ...]:
        """DescribeSubnets by VPC and zone."""
        there = (vpc_id, availability_zone)
        return tuple(
            _subnet_value(subnet)
            for _, subnet in sorted(self._subnets.items())
            if (subnet.vpc_id, subnet.availability_zone) == there
        )

    def reservations(self, subnet_id: SubnetId) -> tuple[IPv4Network, ...]:
        """GetSubnetCidrReservations."""
        return self.book(subnet_id).reservations

    def limits(self, instance_type: str) -> InstanceLimits:
        """DescribeInstanceTypes."""
        if instance_type not in self._limits:
            self._limits[instance_type] = self._limits_of(instance_type)
        if (limits := self._limits[instance_type]) is None:
            _refuse("InvalidInstanceType", f"There is no instance type {instance_type}")
        return limits

    # Mutations ----------------------------------------------------------------------------
    def create(self, wish: CreateEni) -> Eni:
        """CreateNetworkInterface; the answer says "pending", whatever is so by now."""
        _check_tags(wish.tags)
        former = self._tokens.get(wish.token)
        if former is not None and former[0] != wish:
            _refuse(
                "IdempotentParameterMismatch",
                f"The client token {wish.token} was used with other parameters",
            )
        if former is not None and former[1].id in self._enis:
            eni = former[1]
        else:
            eni = self._created(wish)
            self._tokens[wish.token] = wish, eni
        return replace(eni.described(self._clock()), status="pending")

    def _created(self, wish: CreateEni) -> EniRecord:
        subnet = self._subnet(wish.subnet_id)
        self._check_groups(wish.security_groups)
        _check_count(wish.secondary_count, 0)
        _check_count(wish.prefix_count, 0)
        if wish.secondary_count and wish.prefix_count:
            _refuse("InvalidParameterCombination", "Addresses and prefixes were given")
        book = subnet.book
        primary = book.take(1)
        try:
            singles = book.take(wish.secondary_count)
            prefixes = book.take_prefixes(wish.prefix_count)
        except Ec2Error:
            book.give_back(primary)
            raise
        eni = self._make(subnet, primary[0], wish.security_groups, wish.description, wish.tags)
        eni.singles, eni.prefixes = dict.fromkeys(singles), dict.fromkeys(prefixes)
        eni.visible_at += self.lag_seconds
        return eni

    def attach(
        self, eni_id: EniId, instance_id: InstanceId, device_index: int, network_card: int = 0
    ) -> AttachmentId:
        """AttachNetworkInterface."""
        eni = self._eni(eni_id)
        instance = self._instance(instance_id)
        if eni.place is not None:
            _refuse("InvalidParameterValue", f"Interface {eni_id} is currently in use")
        self._check_place(instance, network_card, device_index)
        _check_slots(eni, instance, 0)
        if eni.subnet.availability_zone != instance.subnet.availability_zone:
            _refuse(
                "InvalidParameterCombination",
                f"{eni_id} and {instance_id} are in different availability zones",
            )
        return self._plug(eni, instance, (network_card, device_index), self.latency(ATTACH)).id

    def delete_on_termination(self, eni_id: EniId, attachment_id: AttachmentId) -> None:
        """ModifyNetworkInterfaceAttribute, of the attachment."""
        eni = self._eni(eni_id)
        if eni.place is None or eni.place.id != attachment_id:
            _refuse("InvalidAttachmentID.NotFound", f"{eni_id} has no attachment {attachment_id}")
        eni.place.delete_on_termination = True
        eni.changed()

    def detach(self, attachment_id: AttachmentId) -> None:
        """DetachNetworkInterface."""
        eni = self._by_attachment.get(attachment_id)
        if eni is None or eni.place is None:
            _refuse("InvalidAttachmentID.NotFound", f"There is no attachment {attachment_id}")
        place = eni.place
        if place.key == (0, 0):
            _refuse("OperationNotPermitted", f"The primary interface {eni.id} stays")
        if place.detached_at is not None:
            _refuse("IncorrectState", f"The attachment {attachment_id} is currently 'detaching'")
        seconds = self.latency(DETACH)
        if seconds <= 0:
            self._unplug(eni)
            return
        place.detached_at = self._clock() + seconds
        heappush(self._due, (place.detached_at, attachment_id))
        eni.changed()

    def delete(self, eni_id: EniId) -> None:
        """DeleteNetworkInterface."""
        eni = self._eni(eni_id)
        if eni.place is not None:
            _refuse("InvalidParameterValue", f"Interface {eni_id} is currently in use")
        self._forget(eni)

    def assign(self, eni_id: EniId, kind: Kind, count: int) -> tuple[Block, ...]:
        """AssignPrivateIpAddresses, counted."""
        eni = self._eni(eni_id)
        _check_count(count, 1)
        if eni.place is not None:
            _check_slots(eni, eni.place.instance, count, prefixes=kind is Kind.PREFIX)
        book = eni.subnet.book
        if kind is Kind.PREFIX:
            offsets = book.take_prefixes(count)
            eni.prefixes.update(dict.fromkeys(offsets))
            given = tuple(map(book.prefix, offsets))
        else:
            offsets = book.take(count)
            eni.singles.update(dict.fromkeys(offsets))
            given = tuple(map(book.single, offsets))
        eni.changed()
        return given

    def unassign(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """UnassignPrivateIpAddresses."""
        eni = self._eni(eni_id)
        kinds = {kind_of(block) for block in blocks}
        if len(kinds) != 1:
            _refuse("InvalidParameterCombination", "A call takes addresses or prefixes")
        book = eni.subnet.book
        offsets = {int(block.network_address) - book.first for block in blocks}
        mine = eni.prefixes if Kind.PREFIX in kinds else eni.singles
        if not offsets <= mine.keys():
            _refuse(
                "InvalidParameterValue",
                f"Some of the specified addresses are not assigned to interface {eni_id}",
            )
        for offset in offsets:
            del mine[offset]
        if mine is eni.prefixes:
            book.give_prefixes_back(offsets)
        else:
            book.give_back(offsets)
        eni.changed()

    def set_groups(self, eni_id: EniId, groups: Sequence[SecurityGroupId]) -> None:
        """ModifyNetworkInterfaceAttribute, of the groups."""
        eni = self._eni(eni_id)
        if not groups:
            _refuse("InvalidParameterCombination", "An interface has a security group at least")
        self._check_groups(groups)
        eni.security_groups = tuple(groups)
        eni.changed()

    def tag(self, eni_id: EniId, tags: Sequence[tuple[str, str]]) -> None:
        """CreateTags."""
        if not tags:
            _refuse("MissingParameter", "The request must contain the parameter Tag")
        _check_tags(tags)
        eni = self._eni(eni_id)
        self._untag(eni)
        eni.tags.update(tags)
        self._index(eni)
        eni.changed()

    # What the instance sees ---------------------------------------------------------------
    def settle(self) -> None:
        """Let be done what is due by now; called before anything else is asked."""
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            _, attachment_id = heappop(self._due)
            eni = self._by_attachment.get(attachment_id)
            if eni is None or eni.place is None:
                continue  # it was taken by force, or its instance went
            detached_at = eni.place.detached_at
            if detached_at is not None and detached_at <= now:
                self._unplug(eni)

    def next_change(self) -> float | None:
        """Return when the next attaching or detaching is done, None if none is under way."""
        return self._due[0][0] if self._due else None

    def eni_of(self, attachment_id: AttachmentId) -> EniId | None:
        """Return which ENI has this attachment."""
        eni = self._by_attachment.get(attachment_id)
        return eni.id if eni is not None else None

    def link_at(self, mac: str) -> InstanceId | None:
        """Return which instance has a link of this MAC."""
        eni = self._by_mac.get(mac)
        return _link(eni, self._clock()) if eni is not None else None

    def plugged(self, instance_id: InstanceId) -> frozenset[str]:
        """Return the MACs of an instance's links."""
        now = self._clock()
        return frozenset(
            eni.mac for eni in self._instance(instance_id).enis.values() if _link(eni, now)
        )

    # The parts ----------------------------------------------------------------------------
    def _number(self) -> str:
        self._count += 1
        return f"{self._count:017x}"

    def _make(
        self,
        subnet: SubnetRecord,
        primary: int | None,
        groups: tuple[SecurityGroupId, ...],
        description: str,
        tags: Iterable[tuple[str, str]] = (),
    ) -> EniRecord:
        number = self._number()
        octets = (0x02, *self._count.to_bytes(5, "big"))  # locally administered
        eni = EniRecord(
            id=EniId(f"eni-{number}"),
            mac=":".join(f"{octet:02x}" for octet in octets),
            subnet=subnet,
            description=description,
            interface_type="interface",
            primary=primary,
            security_groups=groups or (self.default_group,),
            tags=dict(tags),
            visible_at=self._clock(),
        )
        self._enis[eni.id] = self._by_mac[eni.mac] = self._idle[eni.id] = eni
        self._index(eni)
        return eni

    def _forget(self, eni: EniRecord) -> None:
        book = eni.subnet.book
        book.give_back(eni.singles)
        book.give_prefixes_back(eni.prefixes)
        if eni.primary is not None:
            book.give_back((eni.primary,))
        self._untag(eni)
        del self._enis[eni.id], self._by_mac[eni.mac], self._idle[eni.id]

    def _index(self, eni: EniRecord) -> None:
        for tag in eni.tags.items():
            self._by_tag.setdefault(tag, {})[eni.id] = eni

    def _untag(self, eni: EniRecord) -> None:
        for tag in eni.tags.items():
            del self._by_tag[tag][eni.id]
            if not self._by_tag[tag]:
                del self._by_tag[tag]

    def _plug(
        self, eni: EniRecord, instance: InstanceRecord, key: tuple[int, int], seconds: float
    ) -> Place:
        card, device_index = key
        attachment_id = AttachmentId(f"eni-attach-{self._number()}")
        attached_at = self._clock() + seconds
        eni.place = Place(
            id=attachment_id,
            instance=instance,
            card=card,
            device_index=device_index,
            attached_at=attached_at,
        )
        instance.enis[key] = self._by_attachment[attachment_id] = eni
        if seconds > 0:
            heappush(self._due, (attached_at, attachment_id))
        del self._idle[eni.id]
        eni.changed()
        return eni.place

    def _unplug(self, eni: EniRecord) -> Place:
        place = eni.place
        assert place is not None
        del place.instance.enis[place.key], self._by_attachment[place.id]
        eni.place = None
        self._idle[eni.id] = eni
        eni.changed()
        return place

    # Who is who, and what may be ----------------------------------------------------------
    def _eni(self, eni_id: EniId) -> EniRecord:
        if (eni := self._enis.get(eni_id)) is None:
            _refuse("InvalidNetworkInterfaceID.NotFound", f"The interface {eni_id} does not exist")
        return eni

    def _instance(self, instance_id: InstanceId) -> InstanceRecord:
        if (instance := self._instances.get(instance_id)) is None:
            _refuse("InvalidInstanceID.NotFound", f"The instance {instance_id} does not exist")
        return instance

    def _subnet(self, subnet_id: SubnetId) -> SubnetRecord:
        if (subnet := self._subnets.get(subnet_id)) is None:
            _refuse("InvalidSubnetID.NotFound", f"The subnet {subnet_id} does not exist")
        return subnet

    def _check_groups(self, groups: Iterable[SecurityGroupId]) -> None:
        for group in groups:
            if group not in self.security_groups:
                _refuse("InvalidGroup.NotFound", f"The security group {group} does not exist")

    @staticmethod
    def _check_place(instance: InstanceRecord, card: int, device_index: int) -> None:
        if not instance.is_running:
            _refuse("IncorrectInstanceState", f"{instance.id} is terminated")
        if device_index < 0:
            _refuse("InvalidParameterValue", f"A device index is not below 0: {device_index}")
        if (card, device_index) in instance.enis:
            _refuse(
                "InvalidParameterValue",
                f"{instance.id} already has an interface attached at device index"
                f" {device_index} of card {card}",
            )
        limits = instance.limits
        most = dict(limits.cards).get(card)
        if most is None:
            _refuse("InvalidParameterValue", f"{limits.instance_type} has no network card {card}")
        if sum(there == card for there, _ in instance.enis) >= most:
            _refuse(
                "AttachmentLimitExceeded",
                f"{instance.id}, {limits.instance_type}, takes {most} interfaces on card {card}",
            )

    # Its own sums -------------------------------------------------------------------------
    def enis(self) -> tuple[Eni, ...]:
        """Return every ENI there is as it is now, also what descriptions do not yet tell of."""
        now = self._clock()
        return tuple(eni.described(now) for eni in self._enis.values())

    def verify(self) -> Iterator[str]:
        """Yield whatever does not add up."""
        held: dict[SubnetId, list[tuple[int, int]]] = {subnet: [] for subnet in self._subnets}
        for eni in self._enis.values():
            held[eni.subnet.id] += eni.held()
            yield from self._wrong_with(eni)
        for subnet in self._subnets.values():
            yield from subnet.book.verify(held[subnet.id])
        tagged = sum(len(enis) for enis in self._by_tag.values())
        if tagged != sum(len(eni.tags) for eni in self._enis.values()):
            yield f"{tagged} tags are known, and ENIs carry others"
        attached = sum(len(instance.enis) for instance in self._instances.values())
        if not attached == len(self._by_attachment) == len(self._enis) - len(self._idle):
            yield f"{attached} ENIs are on instances, and {len(self._by_attachment)} attached"

    def _wrong_with(self, eni: EniRecord) -> Iterator[str]:
        place = eni.place
        if (place is None) is not (eni.id in self._idle):
            yield f"{eni.id} is available and attached, or neither"
        if place is None:
            return
        if place.instance.enis.get(place.key) is not eni:
            yield f"{eni.id} is not where it is attached"
        limits = place.instance.limits
        if eni.slots > limits.ipv4_per_eni:
            yield f"{eni.id} has {eni.slots} slots on {limits.instance_type}"


def _link(eni: EniRecord, now: float) -> InstanceId | None:
    """Return whose link the ENI is; it stays while it is being detached."""
    place = eni.place
    there = place is not None and eni.has_link and now >= place.attached_at
    return place.instance.id if place is not None and there else None


def _subnet_value(subnet: SubnetRecord) -> Subnet:
    return Subnet(
        id=subnet.id,
        vpc_id=subnet.vpc_id,
        cidr=subnet.book.cidr,
        availability_zone=subnet.availability_zone,
        available=subnet.book.free,
        tags=dict(subnet.tags),
    )


def _check_slots(
    eni: EniRecord, instance: InstanceRecord, more: int, *, prefixes: bool = False
) -> None:
    limits = instance.limits
    if (prefixes or eni.prefixes) and not limits.prefixes_allowed:
        _refuse("InvalidParameterValue", f"Prefixes are not supported on {limits.instance_type}")
    if eni.slots + more > limits.ipv4_per_eni:
        _refuse(
            "PrivateIpAddressLimitExceeded",
            f"{eni.id} has {eni.slots} of {limits.ipv4_per_eni} on {limits.instance_type}",
        )


def _check_count(count: int, least: int) -> None:
    if not least <= count <= MOST:
        _refuse("InvalidParameterValue", f"A count of {count} is not {least} to {MOST}")


def _check_tags(tags: Iterable[tuple[str, str]]) -> None:
    for key, _ in tags:
        if not key or key.startswith("aws:"):
            _refuse("InvalidParameterValue", f"The tag key '{key}' is not for users")


def _refuse(code: str, text: str) -> NoReturn:
    raise Ec2Error(code, text)
