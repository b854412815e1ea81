"""A model of EC2 for any number of nodes, as fast as a dictionary and on any clock. Pure.

    account = Account(clock)
    subnet_id = account.add_subnet(IPv4Network("10.0.0.0/18"), "us-east-1a")
    ec2 = account.node(InstanceId("i-1"), "m5.large", subnet_id)    # an eni.calls.Ec2Calls

The same tests hold it and `eni.ec2.Ec2` to the same facts (tests/contract/test_ec2_contract.py).
A node's call goes by its counters, the account's budget for the action, the fault that chance
has for it, and then to the rules of vpc.py. Changes by hand go to the rules directly.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from eni.errors import (
    EniError,
    UnknownOutcomeError,
    UnreachableError,
    meaning,
    sentence,
)
from eni.limits import shipped
from eni.model import CreateEni, Kind, VpcId, kind_of
from ipamd.plan.account import Bucket, Drop, Fault, Lose, Raise, Rate
from ipamd.plan.subnet import Ec2Error, SubnetCensus
from ipamd.plan.vpc import ATTACH, DETACH, Vpc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from ipaddress import IPv4Network

    from eni.limits import InstanceLimits
    from eni.model import (
        AttachmentId,
        Block,
        Eni,
        EniId,
        InstanceId,
        SecurityGroupId,
        Subnet,
        SubnetId,
    )

__all__ = ["Account", "Drop", "Ec2Error", "Fault", "Lose", "NodeEc2", "Raise", "Rate"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Action:
    """A call of EC2: its name, and what is wished in words, of the call's arguments."""

    name: str
    words: Callable[..., str]
    is_question: bool = False


DESCRIBE: Final = "DescribeNetworkInterfaces"
MODIFY: Final = "ModifyNetworkInterfaceAttribute"
SUBNETS: Final = "DescribeSubnets"

ATTACHED: Final = Action(DESCRIBE, "list the ENIs of {}".format, is_question=True)
ENI: Final = Action(DESCRIBE, "describe {}".format, is_question=True)
BY_TAG: Final = Action(DESCRIBE, "list the ENIs with tag {} {}".format, is_question=True)
AVAILABLE: Final = Action(DESCRIBE, "list the available ENIs with {}".format, is_question=True)
SUBNET: Final = Action(SUBNETS, "describe {}".format, is_question=True)
SUBNETS_OF: Final = Action(SUBNETS, "list the subnets of {} in {}".format, is_question=True)
RESERVATIONS: Final = Action(
    "GetSubnetCidrReservations", "list the CIDR reservations of {}".format, is_question=True
)
LIMITS: Final = Action(
    "DescribeInstanceTypes", "describe instance type {}".format, is_question=True
)
CREATE: Final = Action(
    "CreateNetworkInterface",
    "create an ENI with 1 + {0.secondary_count} addresses and {0.prefix_count} prefixes in"
    " {0.subnet_id}".format,
)
ATTACH_ENI: Final = Action(ATTACH, "attach {} to {} at device index {} of network card {}".format)
GO_ALONG: Final = Action(MODIFY, "set DeleteOnTermination of {} ({})".format)
DETACH_ENI: Final = Action(DETACH, "detach {}".format)
DELETE: Final = Action("DeleteNetworkInterface", "delete {}".format)
WORDS: Final = {Kind.SINGLE: "addresses", Kind.PREFIX: "prefixes"}
ASSIGN: Final = Action(
    "AssignPrivateIpAddresses",
    lambda eni_id, kind, count: f"assign {count} more {WORDS[kind]} to {eni_id}",
)
UNASSIGN: Final = Action(
    "UnassignPrivateIpAddresses",
    lambda eni_id, blocks: f"unassign {', '.join(map(str, blocks))} from {eni_id}",
)
GROUPS: Final = Action(
    MODIFY, lambda eni_id, groups: f"set the security groups of {eni_id} to {', '.join(groups)}"
)
TAG: Final = Action("CreateTags", "tag {} with {}".format)

REFUSED: Final = 400
"""The HTTP status of EC2's no."""


def at_once(_action: str) -> float:
    """Return the latency of an EC2 that does everything at once."""
    return 0.0


def no_fault(_action: str, _about: str) -> Fault | None:
    """Return that nothing goes wrong."""
    return None


class Account:
    """One VPC of one account, for all nodes in it.

    *latency* says how long an action takes to come true after its answer, in seconds; of
    AttachNetworkInterface and DetachNetworkInterface it is asked, once a call. A new ENI is missing
    in descriptions for *lag_seconds*. *draw* chooses addresses (see `Book`), the lowest free ones
    if it is None. *faults* is asked once a call with the action and what it is about, an ENI's id
    wherever there is one, a new one's subnet.

    One thread uses it at a time. Of what is done by hand Ec2Error says why it cannot be.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        rates: Mapping[str, Rate] | None = None,
        latency: Callable[[str], float] = at_once,
        lag_seconds: float = 0.0,
        faults: Callable[[str, str], Fault | None] = no_fault,
        draw: Callable[[int], int] | None = None,
        limits_of: Callable[[str], InstanceLimits | None] = shipped,
        vpc_id: VpcId = VpcId("vpc-00000000000000001"),  # noqa: B008 - a NewType is its text
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.faults = faults
        self.nodes: dict[InstanceId, NodeEc2] = {}
        self._clock = clock
        self._buckets = {a: Bucket(rate, clock()) for a, rate in (rates or {}).items()}
        self.vpc = vpc = Vpc(
            vpc_id=vpc_id,
            clock=clock,
            latency=latency,
            lag_seconds=lag_seconds,
            draw=draw,
            limits_of=limits_of,
        )
        self.add_subnet = vpc.add_subnet
        self.enis = vpc.enis

    # Nodes --------------------------------------------------------------------------------
    def node(self, instance_id: InstanceId, instance_type: str, subnet_id: SubnetId) -> NodeEc2:
        """Launch an instance and return the EC2 that it calls."""
        self.vpc.launch(instance_id, instance_type, subnet_id)
        node = self.nodes[instance_id] = NodeEc2(self)
        return node

    def terminate(self, instance_id: InstanceId) -> None:
        """End an instance; its ENIs go along, or stay and are available."""
        self._settled().terminate(instance_id)

    def add_group(self, group: SecurityGroupId) -> None:
        """Let there be a security group."""
        self.vpc.security_groups.add(group)

    # What a node sees of itself -----------------------------------------------------------
    def link_at(self, mac: str) -> InstanceId | None:
        """Return the instance that has a link of this MAC now, None: none has."""
        return self._settled().link_at(mac)

    def plugged(self, instance_id: InstanceId) -> frozenset[str]:
        """Return the MACs of all links that the instance has now."""
        return self._settled().plugged(instance_id)

    def next_change(self) -> float | None:
        """Return when the next attaching or detaching is done, None if none is under way."""
        return self._settled().next_change()

    # By hand ------------------------------------------------------------------------------
    def detach_by_hand(self, eni_id: EniId) -> None:
        """Take an ENI from its instance by force, at once."""
        self._settled().detach_now(eni_id)

    def delete_by_hand(self, eni_id: EniId) -> None:
        """Delete an ENI, from its instance if it is on one."""
        self.detach_by_hand(eni_id)
        self.vpc.delete(eni_id)

    def assign_by_hand(self, eni_id: EniId, kind: Kind, count: int) -> tuple[Block, ...]:
        """Give an ENI more, uncounted."""
        return self._settled().assign(eni_id, kind, count)

    def unassign_by_hand(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """Take something from an ENI, uncounted."""
        self._settled().unassign(eni_id, blocks)

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
        """Attach an ENI of someone else's, of the instance's subnet or another; at once."""
        return self._settled().attach_foreign(
            instance_id,
            device_index,
            network_card=network_card,
            subnet_id=subnet_id,
            interface_type=interface_type,
            secondary_count=secondary_count,
            tags=tags,
        )

    def occupy(self, subnet_id: SubnetId, networks: Iterable[IPv4Network]) -> None:
        """Let others have whatever of *networks* is free."""
        for network in networks:
            self.vpc.book(subnet_id).occupy(network)

    def vacate(self, subnet_id: SubnetId, networks: Iterable[IPv4Network]) -> None:
        """Let others give back what they have of *networks*."""
        for network in networks:
            self.vpc.book(subnet_id).vacate(network)

    # What there is ------------------------------------------------------------------------
    def census(self, subnet_id: SubnetId) -> SubnetCensus:
        """Return what a subnet has left, and in what pieces."""
        return self.vpc.book(subnet_id).census()

    def verify(self) -> tuple[str, ...]:
        """Return what does not add up in the model's own books; nothing, or it has a bug."""
        return tuple(self._settled().verify())

    def _settled(self) -> Vpc:
        self.vpc.settle()
        return self.vpc

    # A node's call ------------------------------------------------------------------------
    def perform(self, action: Action, about: str, do: Callable[[], T]) -> T:
        """Return what *do* answers, if the budget and chance let it; a NodeEc2 calls this.

        Raises Ec2Error for EC2's no, and EniError for what happens on the way.
        """
        self.calls[action.name] += 1
        bucket = self._buckets.get(action.name)
        if bucket is not None and not bucket.take(self._clock()):
            raise Ec2Error("RequestLimitExceeded", "Request limit exceeded.")
        self.vpc.settle()
        match self.faults(action.name, about):
            case None:
                return do()
            case Raise(error):
                raise error("a fault of the model", action=action.name)
            case Lose():
                with suppress(Ec2Error):
                    do()
        unanswered = UnreachableError if action.is_question else UnknownOutcomeError
        raise unanswered("no answer came", action=action.name)


class NodeEc2:
    """One node's EC2, counted as `eni.ec2.Ec2` counts; it knows whose it is by nothing else."""

    def __init__(self, account: Account) -> None:
        self.calls: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self._account, self._vpc = account, account.vpc

    # Questions ----------------------------------------------------------------------------
    def attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """Return every ENI that is attached to the instance, or on its way there or away."""
        return self._send(ATTACHED, instance_id, self._vpc.attached, instance_id)

    def eni(self, eni_id: EniId) -> Eni | None:
        """Return the ENI, None if there is none; or not yet one that is told of."""
        return self._send(ENI, eni_id, self._vpc.eni, eni_id)

    def by_tag(self, key: str, value: str) -> tuple[Eni, ...]:
        """Return every ENI that carries the tag; a new one may be missing for some seconds."""
        return self._send(BY_TAG, key, self._vpc.by_tag, key, value)

    def available(self, tags: Collection[tuple[str, str]]) -> tuple[Eni, ...]:
        """Return every ENI that nobody uses and that carries all *tags*; "" is any value."""
        return self._send(AVAILABLE, "", self._vpc.available, tags)

    def subnet(self, subnet_id: SubnetId) -> Subnet:
        """Return the subnet with its present count of free addresses."""
        return self._send(SUBNET, subnet_id, self._vpc.subnet, subnet_id)

    def subnets(self, vpc_id: VpcId, availability_zone: str) -> tuple[Subnet, ...]:
        """Return every subnet of the VPC in the zone, by id."""
        return self._send(SUBNETS_OF, vpc_id, self._vpc.subnets, vpc_id, availability_zone)

    def reservations(self, subnet_id: SubnetId) -> tuple[IPv4Network, ...]:
        """Return the reservations of type `prefix` in the subnet; there are no others."""
        return self._send(RESERVATIONS, subnet_id, self._vpc.reservations, subnet_id)

    def limits(self, instance_type: str) -> InstanceLimits:
        """Return what this type takes."""
        return self._send(LIMITS, instance_type, self._vpc.limits, instance_type)

    # Mutations ----------------------------------------------------------------------------
    def create(self, wish: CreateEni) -> Eni:
        """Create the ENI, or return the one that the same wish created before."""
        return self._send(CREATE, wish.subnet_id, self._vpc.create, wish)

    def attach(
        self, eni_id: EniId, instance_id: InstanceId, device_index: int, network_card: int = 0
    ) -> AttachmentId:
        """Attach the ENI; the instance sees it after the latency of the action."""
        attach = self._vpc.attach
        return self._send(
            ATTACH_ENI, eni_id, attach, eni_id, instance_id, device_index, network_card
        )

    def delete_on_termination(self, eni_id: EniId, attachment_id: AttachmentId) -> None:
        """Let the ENI go with its instance."""
        go_along = self._vpc.delete_on_termination
        self._send(GO_ALONG, eni_id, go_along, eni_id, attachment_id)

    def detach(self, attachment_id: AttachmentId) -> None:
        """Begin to detach; it is done after the latency of the action."""
        about = self._vpc.eni_of(attachment_id) or attachment_id
        self._send(DETACH_ENI, about, self._vpc.detach, attachment_id)

    def delete(self, eni_id: EniId) -> None:
        """Delete the ENI; NotFoundError if it is gone, InvalidStateError while attached."""
        self._send(DELETE, eni_id, self._vpc.delete, eni_id)

    def assign(self, eni_id: EniId, kind: Kind, count: int) -> tuple[Block, ...]:
        """Return the *count* blocks of *kind* that the ENI got, all or none."""
        return self._send(ASSIGN, eni_id, self._vpc.assign, eni_id, kind, count)

    def unassign(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """Take all of *blocks*, or none: NotFoundError if the ENI lacks one.

        Raises ValueError unless they are of one kind: that would be two calls.
        """
        kinds = {kind_of(block) for block in blocks}
        if len(kinds) != 1:
            shown = ", ".join(map(str, blocks)) or "nothing"
            raise ValueError(f"one call unassigns addresses or prefixes, not {shown}")
        self._send(UNASSIGN, eni_id, self._vpc.unassign, eni_id, blocks)

    def set_groups(self, eni_id: EniId, groups: Sequence[SecurityGroupId]) -> None:
        """Give the ENI exactly these security groups."""
        self._send(GROUPS, eni_id, self._vpc.set_groups, eni_id, groups)

    def tag(self, eni_id: EniId, tags: Sequence[tuple[str, str]]) -> None:
        """Add *tags*, replacing those of the same key."""
        self._send(TAG, eni_id, self._vpc.tag, eni_id, tags)

    def _send(
        self, action: Action, about: str, do: Callable[P, T], *args: P.args, **keywords: P.kwargs
    ) -> T:
        """Return EC2's answer; every failure leaves as an EniError that says what was wished."""
        self.calls[action.name] += 1
        try:
            return self._account.perform(action, about, partial(do, *args, **keywords))
        except Ec2Error as no:
            family = meaning(no.code, str(no), REFUSED, prefixes=_is_for_prefixes(args))
            code, reason = no.code, f"{no.code}: {no}"
        except EniError as fault:
            family, code, reason = type(fault), "", str(fault)
        self.errors[action.name, family.id] += 1
        wish = action.words(*args)
        raise family(sentence(family, wish, reason), action=action.name, code=code)


def _is_for_prefixes(arguments: Iterable[object]) -> bool:
    """Return whether a call with these wishes for prefixes."""
    return any(
        argument is Kind.PREFIX or (isinstance(argument, CreateEni) and argument.prefix_count > 0)
        for argument in arguments
    )
