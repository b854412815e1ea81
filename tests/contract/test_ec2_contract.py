"""What a node may rely on of EC2, whichever it is: the planner's model and the real client.

The client meets the embedded EC2. Everything here goes through `eni.calls.Ec2Calls`; what the
choice of addresses is, is nobody's to rely on, and nothing here does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from eni.calls import Ec2Calls
from eni.errors import (
    EniError,
    InvalidStateError,
    LimitExceededError,
    NotFoundError,
    PrefixesExhaustedError,
    RefusedError,
    SubnetExhaustedError,
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
from tests.contract.sides import (
    OTHER_ZONE,
    ZONE,
    ModelSide,
    Side,
    block_of,
    embedded,
    primary_of,
)

NO_ENI = EniId("eni-0123456789abcdef0")
NO_INSTANCE = InstanceId("i-0123456789abcdef0")
NO_SUBNET = SubnetId("subnet-0123456789abcdef0")
NO_GROUP = SecurityGroupId("sg-0123456789abcdef0")
NO_ATTACHMENT = AttachmentId("eni-attach-0123456789abcdef0")

KINDS = pytest.mark.parametrize("kind", Kind)


@pytest.fixture(scope="module", params=["model", "embedded"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "model":
        yield ModelSide()
        return
    with embedded() as side:
        yield side


@pytest.fixture
def ec2(side: Side) -> Ec2Calls:
    return side.ec2


@pytest.fixture
def subnet_id(side: Side) -> SubnetId:
    return side.subnet()[0]


@pytest.fixture
def instance_id(side: Side, subnet_id: SubnetId) -> InstanceId:
    """An m5.large: 3 ENIs of 10 slots."""
    return side.instance(subnet_id)


@pytest.fixture
def slow(side: Side) -> Iterator[None]:
    side.slow(is_slow=True)
    yield
    side.slow(is_slow=False)


tokens = (f"token-{number}" for number in itertools.count())


def wish(
    subnet_id: SubnetId,
    singles: int = 0,
    *,
    prefixes: int = 0,
    tags: tuple[tuple[str, str], ...] = (),
    groups: tuple[SecurityGroupId, ...] = (),
) -> CreateEni:
    token = next(tokens)
    return CreateEni(
        token=token,
        subnet_id=subnet_id,
        security_groups=groups,
        description=f"made for {token}",
        secondary_count=singles,
        prefix_count=prefixes,
        tags=(("token", token), *tags),
    )


def now(ec2: Ec2Calls, eni_id: EniId) -> Eni:
    eni = ec2.eni(eni_id)
    assert eni is not None
    return eni


def free(ec2: Ec2Calls, subnet_id: SubnetId) -> int:
    return ec2.subnet(subnet_id).available


def wish_of(subnet_id: SubnetId, kind: Kind, count: int) -> CreateEni:
    if kind is Kind.PREFIX:
        return wish(subnet_id, prefixes=count)
    return wish(subnet_id, count)


# Subnets and types


def test_a_subnet_is_described(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, cidr = side.subnet(26)
    subnet = ec2.subnet(subnet_id)
    assert (subnet.id, subnet.vpc_id, subnet.cidr) == (subnet_id, side.vpc_id, cidr)
    assert (subnet.availability_zone, subnet.available) == (ZONE, 64 - 5)


def test_a_zone_has_its_subnets_in_order(side: Side, ec2: Ec2Calls) -> None:
    here, there = side.subnet()[0], side.subnet(zone=OTHER_ZONE)[0]
    listed = [subnet.id for subnet in ec2.subnets(side.vpc_id, ZONE)]
    assert (here in listed, there in listed) == (True, False)
    assert listed == sorted(listed)
    assert there in [subnet.id for subnet in ec2.subnets(side.vpc_id, OTHER_ZONE)]


def test_no_zone_and_no_vpc_that_there_is_not_has_subnets(side: Side, ec2: Ec2Calls) -> None:
    assert ec2.subnets(side.vpc_id, "us-east-1z") == ()
    assert ec2.subnets(VpcId("vpc-0123456789abcdef0"), ZONE) == ()


def test_reservations_are_told(side: Side, ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    reserved_id, cidr = side.subnet(reserved=[2, 5])
    assert set(ec2.reservations(reserved_id)) == {block_of(cidr, 2), block_of(cidr, 5)}
    assert ec2.reservations(subnet_id) == ()


@pytest.mark.parametrize("call", ["subnet", "reservations"])
def test_an_unknown_subnet_is_not_found(ec2: Ec2Calls, call: str) -> None:
    with pytest.raises(NotFoundError, match=NO_SUBNET):
        getattr(ec2, call)(NO_SUBNET)


def test_a_type_has_limits(ec2: Ec2Calls) -> None:
    limits = ec2.limits("m5.large")
    assert (limits.instance_type, limits.enis, limits.ipv4_per_eni) == ("m5.large", 3, 10)
    with pytest.raises(NotFoundError, match=r"m99\.large"):
        ec2.limits("m99.large")


# Creating


@pytest.mark.parametrize(
    ("singles", "prefixes"),
    [(0, 0), (9, 0), (0, 3)],
    ids=["nothing more", "addresses", "prefixes"],
)
def test_a_new_eni_is_what_was_wished(
    ec2: Ec2Calls, subnet_id: SubnetId, singles: int, prefixes: int
) -> None:
    before, wanted = ec2.subnet(subnet_id), wish(subnet_id, singles, prefixes=prefixes)
    eni = ec2.create(wanted)
    assert (eni.subnet_id, eni.description, eni.attachment) == (
        subnet_id, wanted.description, None,
    )  # fmt: skip
    assert (len(eni.secondary), len(eni.prefixes), len(eni.security_groups)) == (
        singles, prefixes, 1,
    )  # fmt: skip
    assert dict(wanted.tags).items() <= eni.tags.items()
    assert eni.primary in before.cidr
    taken = [IPv4Network(eni.primary), *eni.blocks]
    assert all(block.subnet_of(before.cidr) for block in taken)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(taken, 2))
    assert before.available - free(ec2, subnet_id) == 1 + singles + 16 * prefixes


def test_a_new_eni_is_pending_and_then_available(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni = ec2.create(wish(subnet_id, 3))
    assert eni.status == "pending"
    assert now(ec2, eni.id) == replace(eni, status="available")


def test_an_eni_has_the_groups_that_were_wished(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId
) -> None:
    group = side.group()
    assert ec2.create(wish(subnet_id, groups=(group,))).security_groups == (group,)


def test_two_kinds_in_one_wish_are_refused(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    before = free(ec2, subnet_id)
    with pytest.raises(RefusedError):
        ec2.create(wish(subnet_id, 1, prefixes=1))
    assert free(ec2, subnet_id) == before


@KINDS
def test_more_than_256_are_refused(side: Side, ec2: Ec2Calls, kind: Kind) -> None:
    subnet_id, _ = side.subnet(20)
    with pytest.raises(RefusedError):
        ec2.create(wish_of(subnet_id, kind, 257))
    eni = ec2.create(wish(subnet_id))
    with pytest.raises(RefusedError):
        ec2.assign(eni.id, kind, 257)


def test_a_subnet_or_a_group_that_is_not_there_makes_no_eni(
    ec2: Ec2Calls, subnet_id: SubnetId
) -> None:
    with pytest.raises(NotFoundError):
        ec2.create(wish(NO_SUBNET))
    with pytest.raises(NotFoundError, match=NO_GROUP):
        ec2.create(wish(subnet_id, groups=(NO_GROUP,)))


def test_the_first_four_addresses_and_the_last_are_nobodys(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, cidr = side.subnet(28)
    eni = ec2.create(wish(subnet_id, 10))
    assert {eni.primary, *eni.secondary} == {cidr[number] for number in range(4, 15)}
    assert free(ec2, subnet_id) == 0


def test_a_full_subnet_gives_nothing(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, _ = side.subnet(28)
    with pytest.raises(SubnetExhaustedError, match=subnet_id) as caught:
        ec2.create(wish(subnet_id, 11))
    assert type(caught.value) is SubnetExhaustedError
    assert free(ec2, subnet_id) == 11


# Tokens


def test_the_same_wish_is_the_same_eni(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    wanted, before = wish(subnet_id, 4), free(ec2, subnet_id)
    first, second = ec2.create(wanted), ec2.create(wanted)
    assert first == second
    assert [eni.id for eni in ec2.by_tag("token", wanted.token)] == [first.id]
    assert before - free(ec2, subnet_id) == 5


@pytest.mark.parametrize(
    "change",
    [{"secondary_count": 3}, {"prefix_count": 1}, {"description": "another"}, {"tags": ()}],
    ids=lambda change: next(iter(change)),
)
def test_another_wish_with_a_used_token_is_refused(
    ec2: Ec2Calls, subnet_id: SubnetId, change: dict[str, object]
) -> None:
    wanted = wish(subnet_id)
    ec2.create(wanted)
    with pytest.raises(RefusedError) as caught:
        ec2.create(replace(wanted, **change))  # type: ignore[arg-type] # of any field
    assert caught.value.code == "IdempotentParameterMismatch"
    assert not isinstance(caught.value, NotFoundError)


def test_a_token_of_an_eni_in_use_still_names_it(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    wanted = wish(subnet_id)
    eni = ec2.create(wanted)
    ec2.attach(eni.id, instance_id, 1)
    again = ec2.create(wanted)
    assert (again.id, again.status) == (eni.id, "pending")
    assert again.attachment is not None


def test_a_token_of_a_refused_wish_is_free(ec2: Ec2Calls, side: Side) -> None:
    subnet_id, _ = side.subnet(28)
    wanted = wish(subnet_id, 20)
    with pytest.raises(SubnetExhaustedError):
        ec2.create(wanted)
    assert ec2.create(replace(wanted, secondary_count=2)).secondary


def test_a_token_of_a_deleted_eni_makes_another(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    wanted = wish(subnet_id)
    first = ec2.create(wanted)
    ec2.delete(first.id)
    assert ec2.create(wanted).id != first.id


# What is told


def test_an_unknown_eni_is_none(ec2: Ec2Calls) -> None:
    assert ec2.eni(NO_ENI) is None


def test_an_unknown_instance_has_nothing(ec2: Ec2Calls) -> None:
    assert ec2.attached(NO_INSTANCE) == ()


def test_no_eni_has_a_tag_that_nobody_gave(ec2: Ec2Calls) -> None:
    assert ec2.by_tag("token", "nobody") == ()


def test_available_enis_carry_all_the_tags(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    mine = ("mine", next(tokens))
    both = ec2.create(wish(subnet_id, tags=(mine, ("colour", "red"))))
    one = ec2.create(wish(subnet_id, tags=(mine,)))
    used = ec2.create(wish(subnet_id, tags=(mine, ("colour", "red"))))
    ec2.attach(used.id, instance_id, 1)
    assert {eni.id for eni in ec2.available([mine])} == {both.id, one.id}
    assert [eni.id for eni in ec2.available([mine, ("colour", "red")])] == [both.id]
    assert [eni.id for eni in ec2.available([mine, ("colour", "")])] == [both.id]
    assert ec2.available([mine, ("colour", "blue")]) == ()
    assert both.id in {eni.id for eni in ec2.available([])}


def test_a_new_eni_may_not_be_told_of_at_first(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId
) -> None:
    side.lag(500.0)
    try:
        wanted = wish(subnet_id)
        eni = ec2.create(wanted)
        assert ec2.eni(eni.id) is None
        assert ec2.by_tag("token", wanted.token) == ()
        assert ec2.available([("token", wanted.token)]) == ()
        assert ec2.create(wanted).id == eni.id
        ec2.assign(eni.id, Kind.SINGLE, 1)
    finally:
        side.lag(0.0)


def test_tags_are_added_and_replaced(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    old, new = next(tokens), next(tokens)
    eni = ec2.create(wish(subnet_id, tags=(("kept", "yes"), ("colour", old))))
    ec2.tag(eni.id, [("colour", new), ("more", "")])
    tags = now(ec2, eni.id).tags
    assert (tags["kept"], tags["colour"], tags["more"]) == ("yes", new, "")
    assert ec2.by_tag("colour", old) == ()
    assert [found.id for found in ec2.by_tag("colour", new)] == [eni.id]


def test_no_one_tags_what_is_not_there(ec2: Ec2Calls) -> None:
    with pytest.raises(NotFoundError):
        ec2.tag(NO_ENI, [("a", "b")])


def test_aws_tags_are_its_own(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni = ec2.create(wish(subnet_id))
    with pytest.raises(RefusedError):
        ec2.tag(eni.id, [("aws:mine", "no")])
    with pytest.raises(RefusedError):
        ec2.create(wish(subnet_id, tags=(("aws:mine", "no"),)))


def test_groups_are_exactly_what_is_said(side: Side, ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni, groups = ec2.create(wish(subnet_id)), (side.group(), side.group())
    ec2.set_groups(eni.id, groups)
    assert set(now(ec2, eni.id).security_groups) == set(groups)
    ec2.set_groups(eni.id, groups[:1])
    assert now(ec2, eni.id).security_groups == groups[:1]


def test_groups_that_cannot_be_change_nothing(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId
) -> None:
    eni, group = ec2.create(wish(subnet_id)), side.group()
    with pytest.raises(NotFoundError):
        ec2.set_groups(eni.id, [group, NO_GROUP])
    with pytest.raises(RefusedError):
        ec2.set_groups(eni.id, [])
    with pytest.raises(NotFoundError):
        ec2.set_groups(NO_ENI, [group])
    assert now(ec2, eni.id).security_groups == eni.security_groups


# Attaching


def test_an_instance_is_born_with_one_eni_of_one_address(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId
) -> None:
    before = free(ec2, subnet_id)
    (primary,) = ec2.attached(side.instance(subnet_id))
    assert primary.attachment is not None
    assert (primary.attachment.device_index, primary.attachment.network_card) == (0, 0)
    assert (primary.attachment.delete_on_termination, primary.status) == (True, "in-use")
    assert (primary.blocks, before - free(ec2, subnet_id)) == ((), 1)
    assert side.has_link(primary.mac)


def test_an_attached_eni_is_listed_beside_the_primary(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = ec2.create(wish(subnet_id, 2))
    assert not side.has_link(eni.mac)
    attachment_id = ec2.attach(eni.id, instance_id, 1)
    found = {e.id: e for e in ec2.attached(instance_id)}[eni.id]
    assert (len(ec2.attached(instance_id)), found.status) == (2, "in-use")
    assert found.attachment is not None
    assert found.attachment.id == attachment_id
    assert (found.attachment.instance_id, found.attachment.device_index) == (instance_id, 1)
    assert found.attachment.status is AttachmentStatus.ATTACHED
    assert not found.attachment.delete_on_termination
    assert side.has_link(eni.mac)


def attaching(ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId, index: int = 1) -> Eni:
    """Return an ENI that is attached, or will be."""
    eni = ec2.create(wish(subnet_id, 2))
    ec2.attach(eni.id, instance_id, index)
    return now(ec2, eni.id)


@pytest.mark.usefixtures("slow")
def test_an_eni_comes_and_goes_in_its_time(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    assert eni.attachment is not None
    assert (eni.status, eni.attachment.status) == ("attaching", AttachmentStatus.ATTACHING)
    assert (side.has_link(eni.mac), eni in ec2.attached(instance_id)) == (False, True)
    side.pass_time()
    assert (now(ec2, eni.id).status, side.has_link(eni.mac)) == ("in-use", True)
    ec2.detach(eni.attachment.id)
    going = now(ec2, eni.id)
    assert going.attachment is not None
    assert (going.status, going.attachment.status) == ("detaching", AttachmentStatus.DETACHING)
    assert (side.has_link(eni.mac), going in ec2.attached(instance_id)) == (True, True)
    for forbidden in (
        lambda: ec2.detach(going.attachment.id),
        lambda: ec2.delete(eni.id),
        lambda: ec2.attach(eni.id, instance_id, 2),
        lambda: attaching(ec2, subnet_id, instance_id, 1),
    ):
        with pytest.raises(InvalidStateError):
            forbidden()
    side.pass_time()
    gone = now(ec2, eni.id)
    assert (gone.status, gone.attachment, side.has_link(eni.mac)) == ("available", None, False)
    assert len(ec2.attached(instance_id)) == 1


@pytest.mark.usefixtures("slow")
def test_an_eni_on_its_way_can_be_sent_back(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    assert eni.attachment is not None
    with pytest.raises(InvalidStateError):
        ec2.delete(eni.id)
    ec2.detach(eni.attachment.id)
    side.pass_time()
    assert now(ec2, eni.id).status == "available"


def test_attaching_twice_is_a_wrong_state(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    with pytest.raises(InvalidStateError, match=f"attach {eni.id}"):
        ec2.attach(eni.id, instance_id, 2)


@pytest.mark.parametrize("index", [0, 1])
def test_a_taken_device_index_is_a_wrong_state(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId, index: int
) -> None:
    attaching(ec2, subnet_id, instance_id)
    eni = ec2.create(wish(subnet_id))
    with pytest.raises(InvalidStateError, match="device index"):
        ec2.attach(eni.id, instance_id, index)
    assert now(ec2, eni.id).status == "available"


def test_an_instance_has_a_limit_of_enis(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    attaching(ec2, subnet_id, instance_id, 1)
    attaching(ec2, subnet_id, instance_id, 2)
    with pytest.raises(LimitExceededError) as caught:
        attaching(ec2, subnet_id, instance_id, 3)
    assert caught.value.code == "AttachmentLimitExceeded"


def test_a_card_that_is_not_there_takes_nothing(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = ec2.create(wish(subnet_id))
    with pytest.raises(RefusedError):
        ec2.attach(eni.id, instance_id, 1, 1)


def test_each_card_has_its_own_indices(side: Side, ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    instance_id = side.instance(subnet_id, "m6in.32xlarge")
    first, second = ec2.create(wish(subnet_id)), ec2.create(wish(subnet_id))
    ec2.attach(first.id, instance_id, 1, 0)
    ec2.attach(second.id, instance_id, 1, 1)
    told = {eni.id: eni.attachment for eni in ec2.attached(instance_id)}
    assert [told[eni.id].network_card for eni in (first, second)] == [0, 1]  # type: ignore[union-attr] # attached
    with pytest.raises(InvalidStateError):
        ec2.attach(ec2.create(wish(subnet_id)).id, instance_id, 1, 1)


def test_an_eni_of_too_many_slots_is_not_attached(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = ec2.create(wish(subnet_id, 10))
    with pytest.raises(LimitExceededError) as caught:
        ec2.attach(eni.id, instance_id, 1)
    assert caught.value.code == "PrivateIpAddressLimitExceeded"


def test_an_eni_stays_in_its_zone(side: Side, ec2: Ec2Calls, instance_id: InstanceId) -> None:
    eni = ec2.create(wish(side.subnet(zone=OTHER_ZONE)[0]))
    with pytest.raises(RefusedError):
        ec2.attach(eni.id, instance_id, 1)


def test_an_eni_of_another_subnet_in_the_zone_is_attached(
    side: Side, ec2: Ec2Calls, instance_id: InstanceId
) -> None:
    eni = ec2.create(wish(side.subnet()[0]))
    ec2.attach(eni.id, instance_id, 1)
    assert now(ec2, eni.id).status == "in-use"


def test_who_is_not_there_is_not_attached(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    with pytest.raises(NotFoundError):
        ec2.attach(ec2.create(wish(subnet_id)).id, NO_INSTANCE, 1)
    with pytest.raises(NotFoundError):
        ec2.attach(NO_ENI, instance_id, 1)


# Detaching, deleting, terminating


def test_a_detached_eni_can_be_deleted(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    before = free(ec2, subnet_id)
    eni = attaching(ec2, subnet_id, instance_id)
    assert eni.attachment is not None
    ec2.detach(eni.attachment.id)
    ec2.delete(eni.id)
    assert (ec2.eni(eni.id), free(ec2, subnet_id)) == (None, before)
    assert ec2.by_tag("token", eni.tags["token"]) == ()
    with pytest.raises(NotFoundError):
        ec2.delete(eni.id)
    with pytest.raises(NotFoundError):
        ec2.detach(eni.attachment.id)


def test_an_eni_in_use_cannot_be_deleted(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    with pytest.raises(InvalidStateError, match=f"delete {eni.id}"):
        ec2.delete(eni.id)
    assert now(ec2, eni.id) == eni


def test_the_primary_eni_stays(ec2: Ec2Calls, instance_id: InstanceId) -> None:
    (primary,) = ec2.attached(instance_id)
    assert primary.attachment is not None
    with pytest.raises(InvalidStateError):
        ec2.detach(primary.attachment.id)


def test_no_attachment_that_is_not_there_is_detached(ec2: Ec2Calls) -> None:
    with pytest.raises(NotFoundError):
        ec2.detach(NO_ATTACHMENT)


def test_an_index_is_free_again_after_detaching(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    first = attaching(ec2, subnet_id, instance_id)
    assert first.attachment is not None
    ec2.detach(first.attachment.id)
    second = attaching(ec2, subnet_id, instance_id)
    assert [eni.id for eni in ec2.attached(instance_id)][1:] == [second.id]


def test_an_eni_outlives_its_instance_until_told_otherwise(
    side: Side, ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    primary = primary_of(ec2, instance_id)
    stays, goes = (attaching(ec2, subnet_id, instance_id, index) for index in (1, 2))
    assert goes.attachment is not None
    ec2.delete_on_termination(goes.id, goes.attachment.id)
    told = now(ec2, goes.id).attachment
    assert told is not None
    assert told.delete_on_termination
    side.terminate(instance_id)
    assert (ec2.eni(primary), ec2.eni(goes.id)) == (None, None)
    assert now(ec2, stays.id).status == "available"
    assert ec2.attached(instance_id) == ()
    with pytest.raises(InvalidStateError):
        ec2.attach(stays.id, instance_id, 1)


def test_whether_an_eni_goes_along_ends_with_its_attachment(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    assert eni.attachment is not None
    ec2.delete_on_termination(eni.id, eni.attachment.id)
    ec2.detach(eni.attachment.id)
    ec2.attach(eni.id, instance_id, 1)
    again = now(ec2, eni.id).attachment
    assert again is not None
    assert (again.delete_on_termination, again.id == eni.attachment.id) == (False, False)


def test_an_eni_goes_along_with_its_own_attachment_only(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    with pytest.raises(NotFoundError):
        ec2.delete_on_termination(eni.id, NO_ATTACHMENT)
    with pytest.raises(NotFoundError):
        ec2.delete_on_termination(NO_ENI, NO_ATTACHMENT)
    with pytest.raises(NotFoundError):
        ec2.delete_on_termination(ec2.create(wish(subnet_id)).id, NO_ATTACHMENT)


# Assigning and unassigning


@KINDS
def test_assign_names_what_is_new_and_unassign_takes_it_back(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId, kind: Kind
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    before = free(ec2, subnet_id)
    new = ec2.assign(eni.id, kind, 3)
    assert {block.prefixlen for block in new} == {28 if kind is Kind.PREFIX else 32}
    assert set(now(ec2, eni.id).blocks) == {*eni.blocks, *new}
    assert len(now(ec2, eni.id).blocks) == 5
    assert before - free(ec2, subnet_id) == 3 * kind.size
    ec2.unassign(eni.id, new[1:])
    assert set(now(ec2, eni.id).blocks) == {*eni.blocks, new[0]}
    assert before - free(ec2, subnet_id) == kind.size


def test_prefixes_are_aligned_and_meet_no_address(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni = ec2.create(wish(subnet_id, 20))
    prefixes = ec2.assign(eni.id, Kind.PREFIX, 4)
    singles = ec2.assign(eni.id, Kind.SINGLE, 40)
    cidr = ec2.subnet(subnet_id).cidr
    taken = [*prefixes, *singles, *eni.blocks]
    assert all(block.subnet_of(cidr) for block in taken)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(taken, 2))


@KINDS
def test_an_attached_eni_has_a_limit_of_slots(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId, kind: Kind
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    before = free(ec2, subnet_id)
    with pytest.raises(LimitExceededError, match=f"assign 8 more .* to {eni.id}") as caught:
        ec2.assign(eni.id, kind, 8)
    assert caught.value.code == "PrivateIpAddressLimitExceeded"
    assert (now(ec2, eni.id), free(ec2, subnet_id)) == (eni, before)
    assert len(ec2.assign(eni.id, kind, 7)) == 7


def test_both_kinds_share_the_slots(
    ec2: Ec2Calls, subnet_id: SubnetId, instance_id: InstanceId
) -> None:
    eni = attaching(ec2, subnet_id, instance_id)
    ec2.assign(eni.id, Kind.PREFIX, 5)
    ec2.assign(eni.id, Kind.SINGLE, 2)
    for kind in Kind:
        with pytest.raises(LimitExceededError):
            ec2.assign(eni.id, kind, 1)


def test_an_eni_that_nobody_uses_has_no_limit_yet(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    assert len(ec2.assign(ec2.create(wish(subnet_id)).id, Kind.SINGLE, 60)) == 60


@KINDS
def test_nothing_is_assigned_to_what_is_not_there(ec2: Ec2Calls, kind: Kind) -> None:
    with pytest.raises(NotFoundError):
        ec2.assign(NO_ENI, kind, 1)
    with pytest.raises(NotFoundError):
        ec2.unassign(NO_ENI, [IPv4Network("10.0.0.16/28")])


@KINDS
def test_unassigning_what_is_lacking_takes_nothing(
    ec2: Ec2Calls, subnet_id: SubnetId, kind: Kind
) -> None:
    eni = ec2.create(wish_of(subnet_id, kind, 3))
    gone, *kept = eni.blocks
    ec2.unassign(eni.id, [gone])
    with pytest.raises(NotFoundError, match=f"unassign .* from {eni.id}"):
        ec2.unassign(eni.id, [*kept, gone])
    assert now(ec2, eni.id).blocks == tuple(kept)


def test_another_enis_address_is_not_taken(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    mine, others = ec2.create(wish(subnet_id, 1)), ec2.create(wish(subnet_id, 1))
    with pytest.raises(NotFoundError):
        ec2.unassign(mine.id, others.blocks)
    assert now(ec2, others.id).blocks == others.blocks


def test_the_primary_address_is_not_taken(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni = ec2.create(wish(subnet_id, 1))
    assert eni.primary is not None
    with pytest.raises(RefusedError):
        ec2.unassign(eni.id, [IPv4Network(eni.primary)])


def test_a_part_of_a_prefix_is_no_address(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni = ec2.create(wish(subnet_id, prefixes=1))
    (prefix,) = eni.blocks
    with pytest.raises(NotFoundError):
        ec2.unassign(eni.id, [IPv4Network(prefix[0])])


def test_what_is_named_twice_is_taken_once(ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni = ec2.create(wish(subnet_id, 2))
    ec2.unassign(eni.id, [eni.blocks[0], eni.blocks[0]])
    assert now(ec2, eni.id).blocks == eni.blocks[1:]


def test_one_call_is_for_one_kind(side: Side, ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    eni, calls = ec2.create(wish(subnet_id, 1)), side.calls()
    with pytest.raises(ValueError, match="one call"):
        ec2.unassign(eni.id, [*eni.blocks, IPv4Network("10.0.0.16/28")])
    with pytest.raises(ValueError, match="one call"):
        ec2.unassign(eni.id, [])
    assert side.calls() == calls


# Shortage


def shortage(ec2: Ec2Calls, eni_id: EniId, kind: Kind, count: int) -> type[EniError]:
    with pytest.raises(SubnetExhaustedError) as caught:
        ec2.assign(eni_id, kind, count)
    return type(caught.value)


def test_a_subnet_without_a_whole_block_still_has_addresses(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, _ = side.subnet(27)  # two /28s, and each has addresses that are EC2's
    eni = ec2.create(wish(subnet_id))
    assert free(ec2, subnet_id) == 26
    assert shortage(ec2, eni.id, Kind.PREFIX, 1) is PrefixesExhaustedError
    assert len(ec2.assign(eni.id, Kind.SINGLE, 26)) == 26
    assert shortage(ec2, eni.id, Kind.SINGLE, 1) is SubnetExhaustedError
    assert shortage(ec2, eni.id, Kind.PREFIX, 1) is PrefixesExhaustedError


def test_prefixes_are_given_all_or_none(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, _ = side.subnet(26)
    eni, before = ec2.create(wish(subnet_id)), free(ec2, subnet_id)
    assert shortage(ec2, eni.id, Kind.PREFIX, 3) is PrefixesExhaustedError
    assert (now(ec2, eni.id).blocks, free(ec2, subnet_id)) == ((), before)
    assert len(ec2.assign(eni.id, Kind.PREFIX, 2)) == 2


def test_addresses_are_given_all_or_none(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, _ = side.subnet(28)
    eni = ec2.create(wish(subnet_id, 2))
    assert shortage(ec2, eni.id, Kind.SINGLE, 9) is SubnetExhaustedError
    assert (now(ec2, eni.id).blocks, free(ec2, subnet_id)) == (eni.blocks, 8)


def test_an_eni_whose_prefixes_cannot_be_had_is_not_made(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, _ = side.subnet(26)
    with pytest.raises(PrefixesExhaustedError):
        ec2.create(wish(subnet_id, prefixes=3))
    assert free(ec2, subnet_id) == 64 - 5


def test_one_address_spoils_a_block_and_whole_it_is_one_again(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, cidr = side.subnet(26)
    eni = ec2.create(wish(subnet_id))
    singles = ec2.assign(eni.id, Kind.SINGLE, free(ec2, subnet_id))
    inner = [single for single in singles if single.subnet_of(block_of(cidr, 1))]
    assert len(inner) == 16
    ec2.unassign(eni.id, inner[1:])
    assert shortage(ec2, eni.id, Kind.PREFIX, 1) is PrefixesExhaustedError
    ec2.unassign(eni.id, inner[:1])
    assert ec2.assign(eni.id, Kind.PREFIX, 1) == (block_of(cidr, 1),)


def test_an_old_type_takes_no_prefixes(side: Side, ec2: Ec2Calls, subnet_id: SubnetId) -> None:
    instance_id = side.instance(subnet_id, "m4.large")
    with pytest.raises(RefusedError):
        ec2.assign(primary_of(ec2, instance_id), Kind.PREFIX, 1)
    with pytest.raises(RefusedError):
        ec2.attach(ec2.create(wish(subnet_id, prefixes=1)).id, instance_id, 1)
    assert len(ec2.assign(primary_of(ec2, instance_id), Kind.SINGLE, 9)) == 9


# Reservations


def test_a_reservation_gives_prefixes_first(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, cidr = side.subnet(24, reserved=[9])
    eni = ec2.create(wish(subnet_id))
    first, second = ec2.assign(eni.id, Kind.PREFIX, 2)
    assert first == block_of(cidr, 9)
    assert second != first
    assert second.subnet_of(cidr)


def test_a_reservation_gives_no_addresses(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, cidr = side.subnet(26, reserved=[1, 2])
    assert free(ec2, subnet_id) == 64 - 5 - 32
    eni = ec2.create(wish(subnet_id))
    given = ec2.assign(eni.id, Kind.SINGLE, 26)
    assert not any(single.overlaps(block_of(cidr, n)) for single in given for n in (1, 2))
    assert shortage(ec2, eni.id, Kind.SINGLE, 1) is SubnetExhaustedError
    assert len(ec2.assign(eni.id, Kind.PREFIX, 2)) == 2


def test_a_reservation_is_out_of_the_count_once(side: Side, ec2: Ec2Calls) -> None:
    subnet_id, _ = side.subnet(26, reserved=[1])
    eni, before = ec2.create(wish(subnet_id)), free(ec2, subnet_id)
    reserved = ec2.assign(eni.id, Kind.PREFIX, 1)
    assert free(ec2, subnet_id) == before
    ec2.assign(eni.id, Kind.PREFIX, 1)
    assert free(ec2, subnet_id) == before - 16
    ec2.unassign(eni.id, reserved)
    assert free(ec2, subnet_id) == before - 16
    assert ec2.assign(eni.id, Kind.PREFIX, 1) == reserved


@pytest.mark.parametrize("edge", [0, 3])
def test_a_reserved_block_with_an_address_of_ec2s_is_no_prefix(
    side: Side, ec2: Ec2Calls, edge: int
) -> None:
    subnet_id, cidr = side.subnet(26, reserved=[edge])
    eni = ec2.create(wish(subnet_id))
    got: list[IPv4Network] = []
    with suppress(PrefixesExhaustedError):
        while True:
            got += ec2.assign(eni.id, Kind.PREFIX, 1)
    assert set(got) <= {block_of(cidr, 1), block_of(cidr, 2)}
