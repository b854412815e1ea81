"""The planner's model of EC2: what a plan and a chaos test do with it beside the calls.

That it answers as EC2 does is said in tests/contract/test_ec2_contract.py and
test_ec2_lockstep.py; here is what has no counterpart there, and every rule once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eni.calls import Ec2Calls
from eni.errors import (
    EniError,
    InstanceLimitError,
    InvalidStateError,
    NotFoundError,
    PrefixesExhaustedError,
    RefusedError,
    SubnetExhaustedError,
    ThrottledError,
    UnauthorizedError,
    UnknownOutcomeError,
    UnreachableError,
)
from eni.model import (
    AttachmentId,
    AttachmentStatus,
    CreateEni,
    Eni,
    EniId,
    InstanceId,
    Kind,
    SecurityGroupId,
    SubnetId,
    VpcId,
)
from ipamd.plan.cloud import Account, Drop, Ec2Error, Fault, Lose, NodeEc2, Raise, Rate
from ipamd.plan.subnet import Book

ZONE = "us-east-1a"
NODE = InstanceId("i-1")
NO_ENI = EniId("eni-none")
NO_INSTANCE = InstanceId("i-none")
NO_SUBNET = SubnetId("subnet-none")
NO_GROUP = SecurityGroupId("sg-none")
NO_ATTACHMENT = AttachmentId("eni-attach-none")


class World:
    """An account with one node, an m5.large: 3 ENIs of 10 slots."""

    def __init__(self, cidr: str = "10.0.0.0/24", **settings: Any) -> None:
        self.now = 100.0
        self.seconds = {"AttachNetworkInterface": 0.0, "DetachNetworkInterface": 0.0}
        self.account = Account(
            lambda: self.now, **{"latency": lambda action: self.seconds[action], **settings}
        )
        self.cidr = IPv4Network(cidr)
        self.subnet = self.account.add_subnet(self.cidr, ZONE)
        self.ec2: NodeEc2 = self.account.node(NODE, "m5.large", self.subnet)
        (primary,) = self.ec2.attached(NODE)
        self.primary = primary
        self.ec2.calls.clear()
        self.account.calls.clear()
        self.tokens = 0

    def wish(self, singles: int = 0, **more: Any) -> CreateEni:
        self.tokens += 1
        wish = CreateEni(
            token=f"token-{self.tokens}",
            subnet_id=self.subnet,
            security_groups=(),
            description="made",
            secondary_count=singles,
            tags=(("kind", "test"),),
        )
        return replace(wish, **more)

    def eni(self, singles: int = 0, index: int = 0, **more: Any) -> Eni:
        """Return a new ENI, attached if it has an index."""
        eni = self.ec2.create(self.wish(singles, **more))
        if index:
            self.ec2.attach(eni.id, NODE, index)
        told = next(e for e in self.account.enis() if e.id == eni.id)
        self.sound()
        return told

    def sound(self) -> None:
        assert self.account.verify() == ()


@pytest.fixture
def world() -> World:
    return World()


def attachment(eni: Eni) -> AttachmentId:
    assert eni.attachment is not None
    return eni.attachment.id


def test_a_node_is_an_ec2_that_a_node_calls(world: World) -> None:
    calls: Ec2Calls = world.ec2
    assert calls.limits("m5.large").enis == 3


# What goes wrong on the way


class Faults:
    """Faults as a test sets them, and what was asked."""

    def __init__(self) -> None:
        self.next: Fault | None = None
        self.asked: list[tuple[str, str]] = []

    def __call__(self, action: str, about: str) -> Fault | None:
        self.asked.append((action, about))
        return self.next


@pytest.mark.parametrize(
    ("fault", "family", "is_done"),
    [
        pytest.param(Raise(UnauthorizedError), UnauthorizedError, False, id="raised-is-not-done"),
        pytest.param(Lose(), UnknownOutcomeError, True, id="lost-is-done"),
        pytest.param(Drop(), UnknownOutcomeError, False, id="dropped-is-not-done"),
    ],
)
def test_a_fault_of_a_mutation(fault: Fault, family: type[EniError], *, is_done: bool) -> None:
    faults = Faults()
    world = World(faults=faults)
    faults.next = fault
    with pytest.raises(family, match=f"assign 2 more prefixes to {world.primary.id}") as caught:
        world.ec2.assign(world.primary.id, Kind.PREFIX, 2)
    assert (type(caught.value), caught.value.action) == (family, "AssignPrivateIpAddresses")
    faults.next = None
    (eni,) = world.ec2.attached(NODE)
    assert len(eni.blocks) == (2 if is_done else 0)
    assert world.ec2.errors == {("AssignPrivateIpAddresses", family.id): 1}


@pytest.mark.parametrize("fault", [Lose(), Drop()])
def test_a_question_without_an_answer_has_changed_nothing(fault: Fault) -> None:
    world = World(faults=(faults := Faults()))
    faults.next = fault
    with pytest.raises(UnreachableError, match=f"describe {world.primary.id}"):
        world.ec2.eni(world.primary.id)


def test_a_lost_refusal_is_not_known_to_be_one() -> None:
    world = World(faults=(faults := Faults()))
    faults.next = Lose()
    with pytest.raises(UnknownOutcomeError):
        world.ec2.delete(NO_ENI)


def test_faults_are_asked_once_a_call_and_of_an_eni_or_a_subnet() -> None:
    world = World(faults=(faults := Faults()))
    faults.asked.clear()
    eni = world.ec2.create(world.wish())
    attachment_id = world.ec2.attach(eni.id, NODE, 1)
    world.ec2.detach(attachment_id)
    with pytest.raises(NotFoundError):
        world.ec2.detach(attachment_id)
    world.ec2.attached(NODE)
    assert faults.asked == [
        ("CreateNetworkInterface", world.subnet),
        ("AttachNetworkInterface", eni.id),
        ("DetachNetworkInterface", eni.id),
        ("DetachNetworkInterface", attachment_id),
        ("DescribeNetworkInterfaces", NODE),
    ]


def test_a_budget_is_the_accounts_and_of_one_action() -> None:
    world = World(rates={"CreateTags": Rate(rate=0.5, burst=2)})
    other = world.account.node(InstanceId("i-2"), "m5.large", world.subnet)
    world.ec2.tag(world.primary.id, [("a", "b")])
    other.tag(world.primary.id, [("a", "c")])
    for ec2 in (world.ec2, other):
        with pytest.raises(ThrottledError, match=f"tag {world.primary.id}") as caught:
            ec2.tag(world.primary.id, [("a", "d")])
        assert caught.value.code == "RequestLimitExceeded"
    world.ec2.attached(NODE)
    world.now += 2
    world.ec2.tag(world.primary.id, [("a", "d")])
    world.now += 1000
    for _ in range(2):
        other.tag(world.primary.id, [("a", "d")])
    with pytest.raises(ThrottledError):
        other.tag(world.primary.id, [("a", "d")])


def test_calls_are_counted_for_the_node_and_the_account(world: World) -> None:
    other = world.account.node(InstanceId("i-2"), "m5.large", world.subnet)
    world.ec2.subnet(world.subnet)
    other.subnet(world.subnet)
    with pytest.raises(NotFoundError):
        other.subnet(NO_SUBNET)
    assert (world.ec2.calls, other.calls) == ({"DescribeSubnets": 1}, {"DescribeSubnets": 2})
    assert world.account.calls == {"DescribeSubnets": 3}
    assert other.errors == {("DescribeSubnets", "EC2-NOT-FOUND"): 1}
    assert world.account.nodes == {NODE: world.ec2, InstanceId("i-2"): other}


# Time


def test_an_eni_comes_and_goes_when_the_clock_says_so(world: World) -> None:
    world.seconds = {"AttachNetworkInterface": 4.0, "DetachNetworkInterface": 9.0}
    eni = world.eni(index=1)
    assert eni.attachment is not None
    assert (eni.status, eni.attachment.status) == ("attaching", AttachmentStatus.ATTACHING)
    assert world.account.link_at(eni.mac) is None
    assert world.account.plugged(NODE) == {world.primary.mac}
    assert world.account.next_change() == 104.0
    world.now = 104.0
    assert world.account.next_change() is None
    assert world.ec2.eni(eni.id) == replace(
        eni, status="in-use", attachment=replace(eni.attachment, status=AttachmentStatus.ATTACHED)
    )
    assert world.account.link_at(eni.mac) == NODE
    world.ec2.detach(eni.attachment.id)
    assert world.account.plugged(NODE) == {world.primary.mac, eni.mac}
    with pytest.raises(InvalidStateError):
        world.ec2.detach(eni.attachment.id)
    world.now = 112.9
    assert len(world.ec2.attached(NODE)) == 2
    world.now = 113.0
    assert world.account.plugged(NODE) == {world.primary.mac}
    assert [e.id for e in world.ec2.available([("kind", "test")])] == [eni.id]
    world.sound()


def test_what_was_sent_back_on_its_way_goes_in_its_time(world: World) -> None:
    world.seconds = {"AttachNetworkInterface": 4.0, "DetachNetworkInterface": 9.0}
    eni = world.eni(index=1)
    world.ec2.detach(attachment(eni))
    world.now += 5
    told = world.ec2.eni(eni.id)
    assert told is not None
    assert told.status == "detaching"
    world.now += 5
    assert len(world.ec2.attached(NODE)) == 1


def test_an_instance_that_goes_meanwhile_leaves_nothing_due(world: World) -> None:
    world.seconds = {"AttachNetworkInterface": 4.0, "DetachNetworkInterface": 9.0}
    eni = world.eni(index=1)
    world.account.terminate(NODE)
    world.now += 50
    told = world.ec2.eni(eni.id)
    assert told is not None
    assert told.status == "available"
    world.sound()


def test_a_new_eni_is_not_told_of_while_descriptions_lag() -> None:
    world = World(lag_seconds=5.0)
    eni = world.eni()
    assert world.ec2.eni(eni.id) is None
    assert world.ec2.by_tag("kind", "test") == world.ec2.available([]) == ()
    world.ec2.attach(eni.id, NODE, 1)
    assert [e.id for e in world.ec2.attached(NODE)] == [world.primary.id]
    world.now += 5
    assert len(world.ec2.attached(NODE)) == 2
    assert world.ec2.eni(eni.id) == world.ec2.by_tag("kind", "test")[0]


# By hand


def test_a_hand_detaches_at_once_and_what_is_free_stays_so(world: World) -> None:
    world.seconds["DetachNetworkInterface"] = 60.0
    eni = world.eni(index=1)
    for _ in range(2):
        world.account.detach_by_hand(eni.id)
        assert world.account.link_at(eni.mac) is None
        world.sound()


def test_a_hand_deletes_what_is_attached(world: World) -> None:
    eni = world.eni(3, index=1)
    world.account.delete_by_hand(eni.id)
    assert (world.ec2.eni(eni.id), world.account.link_at(eni.mac)) == (None, None)
    world.sound()


def test_a_hand_assigns_and_unassigns_uncounted(world: World) -> None:
    blocks = world.account.assign_by_hand(world.primary.id, Kind.SINGLE, 2)
    world.account.unassign_by_hand(world.primary.id, blocks[:1])
    (eni,) = world.ec2.attached(NODE)
    assert eni.blocks == blocks[1:]
    assert world.account.calls == {"DescribeNetworkInterfaces": 1}
    with pytest.raises(Ec2Error, match="A call takes addresses or prefixes"):
        world.account.unassign_by_hand(world.primary.id, [])


def test_a_stranger_is_attached_at_once(world: World) -> None:
    elsewhere = world.account.add_subnet(IPv4Network("10.9.0.0/24"), ZONE)
    trunk = world.account.attach_foreign(
        NODE, 1, interface_type="trunk", secondary_count=2, tags=[("theirs", "yes")]
    )
    efa = world.account.attach_foreign(NODE, 2, subnet_id=elsewhere, interface_type="efa-only")
    _, first, second = world.ec2.attached(NODE)
    assert (first.id, first.interface_type, len(first.secondary)) == (trunk, "trunk", 2)
    assert (first.description, world.ec2.by_tag("theirs", "yes")) == ("foreign", (first,))
    assert (second.id, second.subnet_id, second.primary) == (efa, elsewhere, None)
    assert world.account.plugged(NODE) == {world.primary.mac, first.mac}
    with pytest.raises(Ec2Error, match="takes 3 interfaces"):
        world.account.attach_foreign(NODE, 3)
    world.sound()
    world.account.delete_by_hand(efa)
    world.sound()


def test_others_take_and_give_back_what_is_free(world: World) -> None:
    mine = world.primary.primary
    before = world.account.census(world.subnet).free
    world.account.occupy(world.subnet, [IPv4Network("10.0.0.0/28"), IPv4Network("10.0.0.77")])
    assert world.account.census(world.subnet).free == before - 11 - 1
    world.sound()
    world.account.vacate(world.subnet, [world.cidr])
    assert world.account.census(world.subnet).free == before
    assert world.ec2.attached(NODE)[0].primary == mine
    world.sound()
    for change in (world.account.occupy, world.account.vacate):
        with pytest.raises(ValueError, match=r"10\.1\.0\.0/24 is not in 10\.0\.0\.0/24"):
            change(world.subnet, [IPv4Network("10.1.0.0/24")])


# Instances


def test_an_eni_stays_or_goes_with_its_instance_as_it_was_told(world: World) -> None:
    stays, goes = world.eni(index=1), world.eni(index=2)
    world.ec2.delete_on_termination(goes.id, attachment(goes))
    world.account.terminate(NODE)
    assert [eni.id for eni in world.account.enis()] == [stays.id]
    with pytest.raises(InvalidStateError):
        world.ec2.attach(stays.id, NODE, 1)
    world.sound()


@pytest.mark.parametrize(
    ("instance_id", "instance_type", "subnet", "text"),
    [
        (NODE, "m5.large", None, "There is an instance i-1 already"),
        ("i-2", "m99.large", None, r"no instance type m99\.large"),
        ("i-2", "m5.large", NO_SUBNET, "subnet-none does not exist"),
    ],
    ids=["twice", "no-type", "no-subnet"],
)
def test_an_instance_that_cannot_be(
    world: World, instance_id: InstanceId, instance_type: str, subnet: SubnetId | None, text: str
) -> None:
    with pytest.raises(Ec2Error, match=text):
        world.account.node(instance_id, instance_type, subnet or world.subnet)
    world.sound()


def test_a_plain_account_does_everything_at_once() -> None:
    account = Account(lambda: 0.0)
    subnet = account.add_subnet(IPv4Network("10.0.0.0/24"), ZONE)
    ec2 = account.node(NODE, "m5.large", subnet)
    wish = CreateEni(token="a", subnet_id=subnet, security_groups=(), description="", tags=())
    eni = ec2.create(wish)
    attachment_id = ec2.attach(eni.id, NODE, 1)
    assert account.link_at(eni.mac) == NODE
    assert len(ec2.assign(eni.id, Kind.SINGLE, 1)) == 1
    ec2.detach(attachment_id)
    assert (account.link_at(eni.mac), account.next_change()) == (None, None)
    assert len(ec2.assign(eni.id, Kind.SINGLE, 20)) == 20
    assert account.verify() == ()


# Every rule once


REFUSALS: dict[str, tuple[Callable[[World, Eni], object], type[EniError], str]] = {
    "create-nowhere": (
        lambda w, _: w.ec2.create(w.wish(subnet_id=NO_SUBNET)), NotFoundError, "subnet-none"),
    "create-in-no-group": (
        lambda w, _: w.ec2.create(w.wish(security_groups=(NO_GROUP,))), NotFoundError, "sg-none"),
    "create-too-many": (lambda w, _: w.ec2.create(w.wish(257)), RefusedError, "0 to 256"),
    "create-too-many-prefixes": (
        lambda w, _: w.ec2.create(w.wish(prefix_count=257)), RefusedError, "0 to 256"),
    "create-both": (
        lambda w, _: w.ec2.create(w.wish(1, prefix_count=1)), RefusedError, "Combination"),
    "create-more-than-there-is": (
        lambda w, _: w.ec2.create(w.wish(256)), SubnetExhaustedError, "256 addresses are wanted"),
    "create-more-prefixes-than-there-are": (
        lambda w, _: w.ec2.create(w.wish(prefix_count=15)), PrefixesExhaustedError, "15 prefixes"),
    "create-with-a-tag-of-aws": (
        lambda w, _: w.ec2.create(w.wish(tags=(("aws:a", "b"),))), RefusedError, "aws:a"),
    "create-with-a-used-token": (
        lambda w, _: w.ec2.create(w.wish(5, token="token-1")), RefusedError, "Idempotent"),
    "attach-nothing": (lambda w, _: w.ec2.attach(NO_ENI, NODE, 2), NotFoundError, "eni-none"),
    "attach-nowhere": (
        lambda w, e: w.ec2.attach(e.id, NO_INSTANCE, 2), NotFoundError, "i-none"),
    "attach-twice": (lambda w, e: w.ec2.attach(e.id, NODE, 2), InvalidStateError, "in use"),
    "attach-below-0": (
        lambda w, _: w.ec2.attach(w.eni().id, NODE, -1), RefusedError, "not below 0"),
    "attach-at-a-taken-index": (
        lambda w, _: w.ec2.attach(w.eni().id, NODE, 1), InvalidStateError, "index 1 of card 0"),
    "attach-on-no-card": (
        lambda w, _: w.ec2.attach(w.eni().id, NODE, 1, 1), RefusedError, "no network card 1"),
    "attach-too-many": (
        lambda w, _: w.eni(index=2) and w.eni(index=3), InstanceLimitError, "takes 3"),
    "attach-too-full": (
        lambda w, _: w.eni(10, index=2), InstanceLimitError, "has 11 of 10 on m5.large"),
    "attach-in-another-zone": (
        lambda w, _: w.eni(
            index=2, subnet_id=w.account.add_subnet(IPv4Network("10.9.0.0/24"), "us-east-1b")),
        RefusedError, "availability zones"),
    "go-along-without-an-eni": (
        lambda w, _: w.ec2.delete_on_termination(NO_ENI, NO_ATTACHMENT), NotFoundError, "eni-none"),
    "go-along-by-another-attachment": (
        lambda w, e: w.ec2.delete_on_termination(e.id, NO_ATTACHMENT), NotFoundError, "no attach"),
    "go-along-unattached": (
        lambda w, _: w.ec2.delete_on_termination(w.eni().id, NO_ATTACHMENT), NotFoundError, "no"),
    "detach-nothing": (lambda w, _: w.ec2.detach(NO_ATTACHMENT), NotFoundError, "eni-attach-none"),
    "detach-the-primary": (
        lambda w, _: w.ec2.detach(attachment(w.primary)), InvalidStateError, "stays"),
    "delete-nothing": (lambda w, _: w.ec2.delete(NO_ENI), NotFoundError, "eni-none"),
    "delete-in-use": (lambda w, e: w.ec2.delete(e.id), InvalidStateError, "in use"),
    "assign-to-nothing": (
        lambda w, _: w.ec2.assign(NO_ENI, Kind.SINGLE, 1), NotFoundError, "eni-none"),
    "assign-nothing": (lambda w, e: w.ec2.assign(e.id, Kind.SINGLE, 0), RefusedError, "1 to 256"),
    "assign-too-many": (
        lambda w, e: w.ec2.assign(e.id, Kind.SINGLE, 8), InstanceLimitError, "8 more addresses"),
    "assign-prefixes-to-an-old-type": (
        lambda w, _: w.ec2.assign(w.account.node(
            InstanceId("i-2"), "m4.large", w.subnet).attached(InstanceId("i-2"))[0].id,
            Kind.PREFIX, 1),
        RefusedError, "m4.large"),
    "unassign-from-nothing": (
        lambda w, e: w.ec2.unassign(NO_ENI, e.blocks), NotFoundError, "eni-none"),
    "unassign-what-is-lacking": (
        lambda w, e: w.ec2.unassign(e.id, [*e.blocks, IPv4Network("10.0.0.99")]),
        NotFoundError, r"unassign 10\.0\.0\.\d+/32, .*, 10\.0\.0\.99/32 from eni-"),
    "no-groups": (lambda w, e: w.ec2.set_groups(e.id, []), RefusedError, "security group"),
    "groups-that-are-not": (
        lambda w, e: w.ec2.set_groups(e.id, [NO_GROUP]), NotFoundError, "to sg-none"),
    "groups-of-nothing": (lambda w, _: w.ec2.set_groups(NO_ENI, []), NotFoundError, "eni-none"),
    "tag-nothing": (lambda w, _: w.ec2.tag(NO_ENI, [("a", "b")]), NotFoundError, "eni-none"),
    "no-tags": (lambda w, e: w.ec2.tag(e.id, []), RefusedError, "parameter Tag"),
    "an-empty-tag": (lambda w, e: w.ec2.tag(e.id, [("", "b")]), RefusedError, "tag key ''"),
    "reservations-of-nothing": (
        lambda w, _: w.ec2.reservations(NO_SUBNET), NotFoundError, "subnet-none"),
    "limits-of-nothing": (lambda w, _: w.ec2.limits("m99.large"), NotFoundError, "m99"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_changes_nothing(world: World, name: str) -> None:
    act, family, text = REFUSALS[name]
    eni = world.eni(2, index=1)
    before = {e.id: e for e in world.account.enis()}
    with pytest.raises(family, match=text) as caught:
        act(world, eni)
    assert type(caught.value) is family
    assert {e.id: e for e in world.account.enis()}.items() >= before.items()
    world.sound()


def test_one_call_is_for_one_kind(world: World) -> None:
    eni = world.eni(1, index=1)
    for blocks in ([*eni.blocks, IPv4Network("10.0.0.16/28")], []):
        with pytest.raises(ValueError, match="one call unassigns addresses or prefixes"):
            world.ec2.unassign(eni.id, blocks)
    assert "UnassignPrivateIpAddresses" not in world.ec2.calls


@pytest.mark.parametrize("kind", Kind)
def test_what_is_assigned_can_be_unassigned(world: World, kind: Kind) -> None:
    eni, free = world.eni(2, index=1), world.account.census(world.subnet).free
    new = world.ec2.assign(eni.id, kind, 3)
    world.ec2.unassign(eni.id, new)
    assert world.ec2.assign(eni.id, kind, 3) == new
    assert world.account.census(world.subnet).free == free - 3 * kind.size
    told = world.ec2.eni(eni.id)
    assert told is not None
    assert told.blocks == (*eni.blocks, *new)
    world.ec2.unassign(eni.id, [*new, new[0]])
    assert world.ec2.eni(eni.id) == eni
    world.sound()


def test_an_eni_with_everything_is_made_and_deleted(world: World) -> None:
    free = world.account.census(world.subnet).free
    world.account.add_group(SecurityGroupId("sg-1"))
    wish = world.wish(prefix_count=2, security_groups=(SecurityGroupId("sg-1"),))
    eni = world.ec2.create(wish)
    assert (eni.status, eni.security_groups, len(eni.prefixes)) == ("pending", ("sg-1",), 2)
    assert world.ec2.create(wish) == eni
    world.ec2.delete(eni.id)
    assert world.account.census(world.subnet).free == free
    assert world.ec2.create(wish).id != eni.id
    world.sound()


def test_tags_and_groups_are_what_they_were_set_to(world: World) -> None:
    eni, other = world.eni(), world.eni()
    world.ec2.tag(eni.id, [("kind", "other"), ("more", "")])
    assert [e.id for e in world.ec2.by_tag("kind", "test")] == [other.id]
    assert [e.id for e in world.ec2.available([("kind", "")])] == [eni.id, other.id]
    assert [e.id for e in world.ec2.available([("kind", ""), ("more", "")])] == [eni.id]
    assert world.ec2.available([("kind", "nobody")]) == world.ec2.by_tag("kind", "nobody") == ()
    world.account.add_group(SecurityGroupId("sg-1"))
    world.ec2.set_groups(eni.id, [SecurityGroupId("sg-1")])
    told = world.ec2.eni(eni.id)
    assert told is not None
    assert (told.tags, told.security_groups) == ({"kind": "other", "more": ""}, ("sg-1",))


def test_whom_nobody_knows_has_nothing(world: World) -> None:
    assert (world.ec2.attached(NO_INSTANCE), world.ec2.eni(NO_ENI)) == ((), None)
    assert world.account.link_at("02:00:00:00:00:00") is None


def test_the_subnets_of_a_zone() -> None:
    world = World(vpc_id=VpcId("vpc-1"))
    there = world.account.add_subnet(
        IPv4Network("10.9.0.0/24"), ZONE, tags=[("pods", "yes")],
        reservations=[IPv4Network("10.9.0.16/28")], occupied=[IPv4Network("10.9.0.128/25")],
    )  # fmt: skip
    world.account.add_subnet(IPv4Network("10.8.0.0/24"), "us-east-1b")
    here, other = world.ec2.subnets(VpcId("vpc-1"), ZONE)
    assert (here.id, other.id, here.vpc_id) == (world.subnet, there, "vpc-1")
    assert (other.cidr, other.tags) == (IPv4Network("10.9.0.0/24"), {"pods": "yes"})
    assert other.available == 256 - 4 - 16 - 128
    assert world.ec2.subnet(there) == other
    assert world.ec2.reservations(there) == (IPv4Network("10.9.0.16/28"),)
    assert world.ec2.subnets(VpcId("vpc-2"), ZONE) == ()
    world.sound()


# The pieces of a subnet


def book(cidr: str, draw: Callable[[int], int] | None = None) -> Book:
    return Book(IPv4Network(cidr), SubnetId("subnet-1"), draw)


def networks(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_a_census_says_in_what_pieces_a_subnet_is_left() -> None:
    some = book("10.0.0.0/24")
    assert some.census().free == 251
    assert (some.census().blocks, some.census().largest_run) == (14, 251)
    assert some.census().fragmentation == 1 - 14 * 16 / 251
    some.reserve(IPv4Network("10.0.0.64/26"))
    some.occupy(IPv4Network("10.0.0.20"))
    left = some.census()
    assert (left.size, left.free, left.blocks, left.reserved_blocks) == (256, 186, 9, 4)
    assert left.largest_run == 127
    some.occupy(IPv4Network("10.0.0.0/24"))
    assert some.census().fragmentation == 0.0
    assert (some.census().free, some.census().largest_run) == (0, 0)


def test_addresses_are_the_lowest_free_ones_and_prefixes_reserved_ones_first() -> None:
    some = book("10.0.0.0/25")
    some.reserve(IPv4Network("10.0.0.48/28"))
    assert some.take(13) == [*range(4, 17)]
    assert some.take_prefixes(3) == [48, 32, 64]
    assert some.take(16) == [*range(17, 32), 80]
    some.give_back([16])
    assert some.take(1) == [16]


@pytest.mark.parametrize(
    ("reserved", "free", "blocks"),
    [
        ([], 59, (2, 0)),
        (["10.0.0.16/28"], 43, (1, 1)),
        (["10.0.0.0/26"], 0, (0, 2)),
        (["10.0.0.16/29"], 51, (1, 0)),
        (["10.0.0.16/29", "10.0.0.24/29"], 43, (1, 0)),
        (["10.0.0.0/28", "10.0.0.63/32"], 47, (2, 0)),
    ],
    ids=["none", "one", "all", "a-half", "two-halves", "edges"],
)
def test_reservations(reserved: list[str], free: int, blocks: tuple[int, int]) -> None:
    some = book("10.0.0.0/26")
    for network in networks(*reserved):
        some.reserve(network)
    left = some.census()
    assert (left.free, (left.blocks, left.reserved_blocks)) == (free, blocks)
    assert [*some.verify([])] == []


def test_reservations_lie_in_the_subnet_and_apart() -> None:
    some = book("10.0.0.0/26")
    some.reserve(IPv4Network("10.0.0.16/28"))
    for wrong in networks("10.0.1.0/28", "10.0.0.0/26", "10.0.0.16/28", "10.0.0.0/25"):
        with pytest.raises(ValueError, match=f"{wrong} is not in"):
            some.reserve(wrong)


def test_a_shortage_says_of_what() -> None:
    some = book("10.0.0.0/26")
    for take, count, code in (
        (some.take, 60, "InsufficientFreeAddressesInSubnet"),
        (some.take_prefixes, 3, "InsufficientCidrBlocks"),
        (some.take_prefixes, 4, "InvalidParameterValue"),
    ):
        with pytest.raises(Ec2Error, match="subnet-1") as caught:
            take(count)
        assert caught.value.code == code
    assert some.free == 59


def test_chance_scatters() -> None:
    some = book("10.0.0.0/16", Random(7).randrange)
    taken = some.take(1000)
    assert len(set(taken)) == 1000
    assert len({offset // 16 for offset in taken}) > 800
    assert [*some.verify([(offset, 1) for offset in taken])] == []


def test_where_chance_finds_nothing_the_next_one_is_taken() -> None:
    unlucky = book("10.0.0.0/26", lambda below: below - 1)
    assert unlucky.take(1) == [48]
    assert unlucky.take_prefixes(2) == [16, 32]
    assert unlucky.take(26) == [*range(49, 63), *range(4, 16)]
    assert unlucky.free == 0


def test_a_small_subnet_has_no_prefixes() -> None:
    some = book("10.0.0.0/28")
    assert (some.free, some.census().blocks) == (11, 0)
    some.reserve(IPv4Network("10.0.0.0/28"))
    assert (some.free, some.census().reserved_blocks) == (0, 0)


STEPS = st.lists(st.tuples(st.sampled_from("spor"), st.integers(0, 63)), max_size=40)


@settings(max_examples=100)
@given(steps=STEPS, seed=st.none() | st.integers(0, 9))
def test_whatever_is_taken_the_books_add_up(
    steps: Sequence[tuple[str, int]], seed: int | None
) -> None:
    some = book("10.0.0.0/25", None if seed is None else Random(seed).randrange)
    some.reserve(IPv4Network("10.0.0.32/27"))
    held: list[tuple[int, int]] = []
    for verb, number in steps:
        try:
            if verb == "s":
                held += [(offset, 1) for offset in some.take(number % 9)]
            elif verb == "p":
                held += [(offset, 16) for offset in some.take_prefixes(number % 3)]
            elif verb == "o":
                some.occupy(IPv4Network(IPv4Address("10.0.0.0") + 2 * number))
        except Ec2Error:
            continue
        if verb == "r" and held:
            offset, size = held.pop(number % len(held))
            (some.give_back if size == 1 else some.give_prefixes_back)([offset])
        assert [*some.verify(held)] == []
        assert some.census().free == some.free


# What verify finds


CORRUPTIONS: dict[str, tuple[Callable[[Any], object], str]] = {
    "taken-and-nobodys": (lambda e: e.subnet.book.take(1), "other addresses taken"),
    "two-owners": (lambda e: e.singles.update({e.primary: None}), "has two owners"),
    "miscounted": (lambda e: setattr(e.subnet.book, "free", 3), "counted 3 free addresses"),
    "a-tag-that-is-not-known": (lambda e: e.tags.update(new="1"), "ENIs carry others"),
    "attached-and-not-there": (
        lambda e: e.place.instance.enis.clear(), "not where it is attached"),
    "fewer-there-than-attached": (lambda e: e.place.instance.enis.clear(), "0 ENIs are on"),
    "neither-attached-nor-available": (lambda e: setattr(e, "place", None), "or neither"),
    "too-full": (
        lambda e: e.singles.update(dict.fromkeys(e.subnet.book.take(20))), "has 23 slots"),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_books_that_do_not_add_up_are_told(world: World, name: str) -> None:
    corrupt, text = CORRUPTIONS[name]
    eni = world.eni(2, index=1)
    corrupt(world.account.vpc._enis[eni.id])  # noqa: SLF001 - what is to be broken
    assert text in "; ".join(world.account.verify())
