"""The EC2 client against the embedded VPC's control plane, by real boto3."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from eni import limits
from eni.ec2 import Ec2
from eni.errors import (
    InvalidStateError,
    LimitExceededError,
    NotFoundError,
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
    SubnetId,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


tokens = (f"intent-{number}" for number in itertools.count())


def wish(place: Place, *, secondary_count: int = 9) -> CreateEni:
    token = next(tokens)
    return CreateEni(
        token=token,
        subnet_id=place.subnet_id,
        security_groups=(),
        description=f"aws-K8S-{place.instance_id}",
        secondary_count=secondary_count,
        tags=(("enid.dev/intent", token),),
    )


def test_the_shipped_limits_are_ec2s(ec2: Ec2) -> None:
    assert ec2.limits("m5.large") == limits.shipped("m5.large")


def test_the_shipped_limits_of_two_cards_are_ec2s(ec2: Ec2) -> None:
    assert ec2.limits("m6in.32xlarge") == limits.shipped("m6in.32xlarge")


def test_an_unknown_type_is_not_found(ec2: Ec2) -> None:
    with pytest.raises(NotFoundError):
        ec2.limits("m99.large")


def test_a_subnet_counts_its_free_addresses(ec2: Ec2, place: Place) -> None:
    before = ec2.subnet(place.subnet_id)
    ec2.create(wish(place))
    after = ec2.subnet(place.subnet_id)
    assert (before.cidr, before.availability_zone) == (place.cidr, place.zone)
    assert before.available - after.available == 10


def test_an_unknown_subnet_is_not_found(ec2: Ec2) -> None:
    with pytest.raises(NotFoundError, match="subnet-0123456789abcdef0"):
        ec2.subnet(SubnetId("subnet-0123456789abcdef0"))


def test_a_new_eni_is_what_was_wished(ec2: Ec2, place: Place) -> None:
    wanted = wish(place)
    eni = ec2.create(wanted)
    assert (eni.status, eni.attachment, eni.subnet_id) == ("available", None, place.subnet_id)
    assert (eni.description, len(eni.secondary)) == (wanted.description, 9)
    assert eni.primary in place.cidr
    assert dict(wanted.tags).items() <= eni.tags.items()
    assert ec2.eni(eni.id) == eni


def test_an_eni_without_secondary_addresses(ec2: Ec2, place: Place) -> None:
    assert ec2.create(wish(place, secondary_count=0)).secondary == ()


def test_the_same_wish_is_the_same_eni(ec2: Ec2, place: Place) -> None:
    wanted = wish(place)
    first, second = ec2.create(wanted), ec2.create(wanted)
    assert first.id == second.id
    assert [eni.id for eni in ec2.by_tag("enid.dev/intent", wanted.token)] == [first.id]


def test_another_wish_with_a_used_token_is_refused(ec2: Ec2, place: Place) -> None:
    wanted = wish(place)
    ec2.create(wanted)
    with pytest.raises(RefusedError) as caught:
        ec2.create(replace(wanted, secondary_count=3))
    assert caught.value.code == "IdempotentParameterMismatch"


def test_a_full_subnet_gives_nothing(ec2: Ec2, small: Place) -> None:
    free = ec2.subnet(small.subnet_id).available
    with pytest.raises(SubnetExhaustedError, match=f"{free + 1} addresses in {small.subnet_id}"):
        ec2.create(wish(small, secondary_count=free))
    assert ec2.subnet(small.subnet_id).available == free


def test_an_unknown_eni_is_none(ec2: Ec2) -> None:
    assert ec2.eni(EniId("eni-0123456789abcdef0")) is None


def test_no_eni_has_a_tag_that_nobody_gave(ec2: Ec2) -> None:
    assert ec2.by_tag("enid.dev/intent", "nobody") == ()


def attached(ec2: Ec2, place: Place, index: int = 1) -> tuple[Eni, AttachmentId]:
    eni = ec2.create(wish(place, secondary_count=2))
    return eni, ec2.attach(eni.id, place.instance_id, index)


def test_an_attached_eni_is_listed_with_the_primary(ec2: Ec2, place: Place) -> None:
    eni, attachment_id = attached(ec2, place)
    primary, second = sorted(ec2.attached(place.instance_id), key=index_of)
    assert index_of(primary) == 0
    assert second.id == eni.id
    assert second.status == "in-use"
    assert second.attachment is not None
    assert second.attachment.id == attachment_id
    assert second.attachment.instance_id == place.instance_id
    assert second.attachment.status is AttachmentStatus.ATTACHED


def index_of(eni: Eni) -> int:
    assert eni.attachment is not None
    return eni.attachment.device_index


def test_an_eni_outlives_its_instance_until_told_otherwise(ec2: Ec2, place: Place) -> None:
    eni, attachment_id = attached(ec2, place)
    before = ec2.eni(eni.id)
    ec2.delete_on_termination(eni.id, attachment_id)
    after = ec2.eni(eni.id)
    assert before is not None
    assert before.attachment is not None
    assert not before.attachment.delete_on_termination
    assert after is not None
    assert after.attachment is not None
    assert after.attachment.delete_on_termination


def test_attaching_twice_is_a_wrong_state(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    with pytest.raises(InvalidStateError, match=f"attach {eni.id}"):
        ec2.attach(eni.id, place.instance_id, 2)


def test_a_taken_device_index_is_a_wrong_state(ec2: Ec2, place: Place) -> None:
    attached(ec2, place)
    with pytest.raises(InvalidStateError, match="device index"):
        attached(ec2, place, 1)


def test_an_instance_has_a_limit_of_enis(ec2: Ec2, place: Place) -> None:
    attached(ec2, place, 1)
    attached(ec2, place, 2)
    with pytest.raises(LimitExceededError):
        attached(ec2, place, 3)


def test_an_instance_that_does_not_exist_takes_no_eni(ec2: Ec2, place: Place) -> None:
    eni = ec2.create(wish(place))
    with pytest.raises(NotFoundError):
        ec2.attach(eni.id, InstanceId("i-0123456789abcdef0"), 1)


def test_assign_names_the_new_addresses_only(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    new = ec2.assign(eni.id, 3)
    now = ec2.eni(eni.id)
    assert now is not None
    assert len(new) == 3
    assert set(now.secondary) == {*eni.secondary, *new}
    assert len(now.secondary) == 5


def test_an_eni_has_a_limit_of_addresses(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    with pytest.raises(LimitExceededError, match=f"assign 8 more addresses to {eni.id}"):
        ec2.assign(eni.id, 8)


def test_an_unassigned_address_is_gone(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    kept, given_up = eni.secondary
    ec2.unassign(eni.id, [given_up])
    now = ec2.eni(eni.id)
    assert now is not None
    assert now.secondary == (kept,)


def test_unassigning_what_is_gone_is_not_found(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    ec2.unassign(eni.id, eni.secondary[:1])
    with pytest.raises(NotFoundError):
        ec2.unassign(eni.id, eni.secondary)
    now = ec2.eni(eni.id)
    assert now is not None
    assert now.secondary == eni.secondary[1:]


def test_a_detached_eni_can_be_deleted(ec2: Ec2, place: Place) -> None:
    eni, attachment_id = attached(ec2, place)
    ec2.detach(attachment_id)
    left = ec2.eni(eni.id)
    assert left is not None
    assert (left.status, left.attachment) == ("available", None)
    ec2.delete(eni.id)
    assert ec2.eni(eni.id) is None


def test_an_eni_in_use_cannot_be_deleted(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    with pytest.raises(InvalidStateError, match=f"delete {eni.id}"):
        ec2.delete(eni.id)
    assert ec2.eni(eni.id) is not None


def test_deleting_what_is_gone_is_not_found(ec2: Ec2, place: Place) -> None:
    eni = ec2.create(wish(place))
    ec2.delete(eni.id)
    with pytest.raises(NotFoundError):
        ec2.delete(eni.id)


def test_detaching_what_is_detached_is_not_found(ec2: Ec2, place: Place) -> None:
    _, attachment_id = attached(ec2, place)
    ec2.detach(attachment_id)
    with pytest.raises(NotFoundError):
        ec2.detach(attachment_id)


def test_the_primary_eni_stays(ec2: Ec2, place: Place) -> None:
    (primary,) = ec2.attached(place.instance_id)
    assert primary.attachment is not None
    with pytest.raises(InvalidStateError):
        ec2.detach(primary.attachment.id)
