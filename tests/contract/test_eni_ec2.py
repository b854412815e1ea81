"""The EC2 client against the embedded VPC's control plane, by real boto3."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import boto3
import pytest

from eni import limits
from eni.ec2 import Ec2
from eni.errors import (
    InstanceLimitError,
    InvalidStateError,
    NotFoundError,
    PrefixesExhaustedError,
    RefusedError,
    SubnetExhaustedError,
)
from eni.imds import Imds
from eni.model import (
    AttachmentId,
    AttachmentStatus,
    CreateEni,
    Eni,
    EniId,
    Identity,
    InstanceId,
    Kind,
    SecurityGroupId,
    SubnetId,
    VpcId,
)
from tests.tools import make_limits
from vpclab import imds as lab
from vpclab.api import ControlPlane, control_plane
from vpclab.ec2 import ACCOUNT
from vpclab.metadata import Metadata, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_ec2 import EC2Client

    from eni.calls import Ec2Calls

REGION = "us-east-1"
ZONE = "us-east-1a"


@dataclass(frozen=True)
class World:
    """An empty VPC, whoever made it, and the client under test."""

    plane: ControlPlane
    maker: EC2Client
    vpc_id: str
    ec2: Ec2


@dataclass(frozen=True)
class Place:
    """An m5.large in a subnet of its own."""

    subnet_id: SubnetId
    cidr: IPv4Network
    instance_id: InstanceId


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with control_plane(REGION) as (url, plane), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        maker = boto3.client("ec2", region_name=REGION)
        vpc_id = maker.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        yield World(plane, maker, vpc_id, Ec2(region=REGION))


@pytest.fixture
def ec2(world: World) -> Ec2:
    return world.ec2


subnets = IPv4Network("10.0.0.0/16").subnets(new_prefix=24)


@pytest.fixture
def place(world: World) -> Place:
    return settle(world, next(subnets))


@pytest.fixture
def small(world: World) -> Place:
    return settle(world, next(next(subnets).subnets(new_prefix=28)))


def settle(world: World, cidr: IPv4Network) -> Place:
    subnet = world.maker.create_subnet(
        VpcId=world.vpc_id, CidrBlock=str(cidr), AvailabilityZone=ZONE
    )["Subnet"]
    (instance,) = world.maker.run_instances(
        ImageId="ami-760aaa0f",
        MinCount=1,
        MaxCount=1,
        InstanceType="m5.large",
        SubnetId=subnet["SubnetId"],
    )["Instances"]
    return Place(SubnetId(subnet["SubnetId"]), cidr, InstanceId(instance["InstanceId"]))


@contextmanager
def slow(world: World, seconds: float) -> Iterator[None]:
    """Let attach and detach take longer than any test."""
    delays = world.plane.backend.delays
    delays.attach_seconds = delays.detach_seconds = seconds
    try:
        yield
    finally:
        delays.attach_seconds = delays.detach_seconds = 0


tokens = (f"intent-{number}" for number in itertools.count())


def wish(place: Place, *, secondary_count: int = 9, prefix_count: int = 0) -> CreateEni:
    token = next(tokens)
    return CreateEni(
        token=token,
        subnet_id=place.subnet_id,
        security_groups=(),
        description=f"aws-K8S-{place.instance_id}",
        secondary_count=secondary_count,
        prefix_count=prefix_count,
        tags=(("enid.dev/intent", token),),
    )


def test_the_shipped_limits_are_ec2s(ec2: Ec2) -> None:
    assert ec2.limits("m5.large") == limits.shipped("m5.large")


def test_the_shipped_limits_of_two_cards_are_ec2s(ec2: Ec2) -> None:
    assert ec2.limits("m6in.32xlarge") == limits.shipped("m6in.32xlarge")


def test_the_shipped_table_is_the_one_that_its_tool_makes() -> None:
    assert limits.TABLE.read_text() == make_limits.table()


def test_an_unknown_type_is_not_found(ec2: Ec2) -> None:
    with pytest.raises(NotFoundError):
        ec2.limits("m99.large")


def test_a_subnet_counts_its_free_addresses(ec2: Ec2, place: Place) -> None:
    before = ec2.subnet(place.subnet_id)
    ec2.create(wish(place))
    after = ec2.subnet(place.subnet_id)
    assert (before.cidr, before.availability_zone) == (place.cidr, ZONE)
    assert before.available - after.available == 10


def test_an_unknown_subnet_is_not_found(ec2: Ec2) -> None:
    with pytest.raises(NotFoundError, match="subnet-0123456789abcdef0"):
        ec2.subnet(SubnetId("subnet-0123456789abcdef0"))


def test_a_new_eni_is_what_was_wished(ec2: Ec2, place: Place) -> None:
    wanted = wish(place)
    eni = ec2.create(wanted)
    assert (eni.attachment, eni.subnet_id) == (None, place.subnet_id)
    assert (eni.description, len(eni.secondary)) == (wanted.description, 9)
    assert eni.primary in place.cidr
    assert dict(wanted.tags).items() <= eni.tags.items()
    assert ec2.eni(eni.id) == replace(eni, status="available")  # EC2 says "pending" at first


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
    calls: Ec2Calls = ec2  # the contract, which mypy compares
    assert calls.by_tag("enid.dev/intent", "nobody") == ()


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
    with pytest.raises(InstanceLimitError):
        attached(ec2, place, 3)


def test_an_instance_that_does_not_exist_takes_no_eni(ec2: Ec2, place: Place) -> None:
    eni = ec2.create(wish(place))
    with pytest.raises(NotFoundError):
        ec2.attach(eni.id, InstanceId("i-0123456789abcdef0"), 1)


def test_assign_names_the_new_addresses_only(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    new = ec2.assign(eni.id, Kind.SINGLE, 3)
    now = ec2.eni(eni.id)
    assert now is not None
    assert len(new) == 3
    assert set(now.blocks) == {*eni.blocks, *new}
    assert len(now.secondary) == 5


def test_an_eni_has_a_limit_of_addresses(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    with pytest.raises(InstanceLimitError, match=f"assign 8 more addresses to {eni.id}"):
        ec2.assign(eni.id, Kind.SINGLE, 8)


def test_an_unassigned_address_is_gone(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    kept, given_up = eni.blocks
    ec2.unassign(eni.id, [given_up])
    now = ec2.eni(eni.id)
    assert now is not None
    assert now.blocks == (kept,)


def test_unassigning_what_is_gone_is_not_found(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    ec2.unassign(eni.id, eni.blocks[:1])
    with pytest.raises(NotFoundError):
        ec2.unassign(eni.id, eni.blocks)
    now = ec2.eni(eni.id)
    assert now is not None
    assert now.secondary == eni.secondary[1:]


# Prefixes
def with_prefixes(ec2: Ec2, place: Place, count: int) -> Eni:
    return ec2.create(wish(place, secondary_count=0, prefix_count=count))


def seen(ec2: Ec2, eni_id: EniId) -> Eni:
    eni = ec2.eni(eni_id)
    assert eni is not None
    return eni


def test_an_eni_is_born_with_its_prefixes(ec2: Ec2, place: Place) -> None:
    eni = with_prefixes(ec2, place, 2)
    assert eni.secondary == ()
    assert [block.prefixlen for block in eni.blocks] == [28, 28]
    assert all(block.subnet_of(place.cidr) for block in eni.blocks)


def test_an_eni_is_born_with_addresses_or_with_prefixes(ec2: Ec2, place: Place) -> None:
    with pytest.raises(RefusedError):
        ec2.create(wish(place, secondary_count=1, prefix_count=1))


def test_assign_names_the_new_prefixes_only(ec2: Ec2, place: Place) -> None:
    eni = with_prefixes(ec2, place, 1)
    new = ec2.assign(eni.id, Kind.PREFIX, 2)
    assert [block.prefixlen for block in new] == [28, 28]
    assert set(seen(ec2, eni.id).blocks) == {*eni.blocks, *new}


def test_prefixes_and_addresses_lie_side_by_side(ec2: Ec2, place: Place) -> None:
    eni = with_prefixes(ec2, place, 1)
    singles = ec2.assign(eni.id, Kind.SINGLE, 2)
    assert set(seen(ec2, eni.id).blocks) == {*eni.blocks, *singles}
    ec2.unassign(eni.id, eni.blocks)
    assert set(seen(ec2, eni.id).blocks) == set(singles)
    ec2.unassign(eni.id, singles)
    assert seen(ec2, eni.id).blocks == ()


def test_unassigning_a_prefix_that_is_gone_is_not_found(ec2: Ec2, place: Place) -> None:
    eni = with_prefixes(ec2, place, 2)
    ec2.unassign(eni.id, eni.blocks[:1])
    with pytest.raises(NotFoundError):
        ec2.unassign(eni.id, eni.blocks)
    assert seen(ec2, eni.id).blocks == eni.blocks[1:]


def test_a_prefix_takes_one_slot(ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    ec2.assign(eni.id, Kind.PREFIX, 7)
    with pytest.raises(InstanceLimitError, match=f"assign 1 more prefix to {eni.id}"):
        ec2.assign(eni.id, Kind.PREFIX, 1)


def test_a_subnet_in_pieces_has_addresses_and_no_prefix(
    world: World, ec2: Ec2, place: Place
) -> None:
    for first in range(16, 255, 16):
        world.maker.create_network_interface(
            SubnetId=place.subnet_id, PrivateIpAddress=str(place.cidr[first])
        )
    eni = ec2.create(wish(place, secondary_count=0))
    with pytest.raises(PrefixesExhaustedError):
        ec2.assign(eni.id, Kind.PREFIX, 1)
    with pytest.raises(PrefixesExhaustedError):
        with_prefixes(ec2, place, 1)
    assert len(ec2.assign(eni.id, Kind.SINGLE, 9)) == 9


def test_a_small_subnet_has_addresses_and_no_prefix(ec2: Ec2, small: Place) -> None:
    with pytest.raises(PrefixesExhaustedError):
        with_prefixes(ec2, small, 1)
    assert len(ec2.create(wish(small, secondary_count=2)).blocks) == 2


def test_reservations_for_prefixes_are_told(world: World, ec2: Ec2, place: Place) -> None:
    assert ec2.reservations(place.subnet_id) == ()
    first, _, third, _ = place.cidr.subnets(prefixlen_diff=2)
    for cidr, kind in ((first, "prefix"), (third, "explicit")):
        world.maker.create_subnet_cidr_reservation(
            SubnetId=place.subnet_id,
            Cidr=str(cidr),
            ReservationType=kind,  # type: ignore[arg-type] # both are there
        )
    assert ec2.reservations(place.subnet_id) == (first,)
    assert all(block.subnet_of(first) for block in with_prefixes(ec2, place, 2).blocks)


def test_reservations_of_an_unknown_subnet_are_not_found(ec2: Ec2) -> None:
    with pytest.raises(NotFoundError) as caught:
        ec2.reservations(SubnetId("subnet-0123456789abcdef0"))
    assert caught.value.code == "InvalidSubnetID.NotFound"


# Subnets
def test_the_subnets_of_a_zone_come_by_id_with_their_tags(
    world: World, ec2: Ec2, place: Place
) -> None:
    world.maker.create_tags(
        Resources=[place.subnet_id], Tags=[{"Key": "kubernetes.io/role/cni", "Value": "1"}]
    )
    elsewhere = world.maker.create_subnet(
        VpcId=world.vpc_id, CidrBlock=str(next(subnets)), AvailabilityZone="us-east-1b"
    )["Subnet"]["SubnetId"]
    found = ec2.subnets(VpcId(world.vpc_id), ZONE)
    ids = [subnet.id for subnet in found]
    assert ids == sorted(ids)
    assert place.subnet_id in ids
    assert elsewhere not in ids
    (tagged,) = (subnet for subnet in found if subnet.id == place.subnet_id)
    assert tagged == ec2.subnet(place.subnet_id)
    assert tagged.tags == {"kubernetes.io/role/cni": "1"}
    assert ec2.subnets(VpcId("vpc-0123456789abcdef0"), ZONE) == ()


# Tags and groups
def test_tags_come_to_those_that_are_there(ec2: Ec2, place: Place) -> None:
    wanted = wish(place)
    eni = ec2.create(wanted)
    ec2.tag(eni.id, [("cluster", "blue"), ("note", "new")])
    ec2.tag(eni.id, [("note", "newer")])
    assert seen(ec2, eni.id).tags == {**dict(wanted.tags), "cluster": "blue", "note": "newer"}


def test_what_nobody_uses_is_found_by_all_its_tags(ec2: Ec2, place: Place) -> None:
    free, used = ec2.create(wish(place)), attached(ec2, place)[0]
    for eni in (free, used):
        ec2.tag(eni.id, [("cluster", place.subnet_id), ("node", place.instance_id)])
    cluster = ("cluster", place.subnet_id)
    assert [eni.id for eni in ec2.available([cluster])] == [free.id]
    assert [eni.id for eni in ec2.available([cluster, ("node", "")])] == [free.id]
    assert ec2.available([cluster, ("node", "i-another")]) == ()
    assert ec2.available([cluster, ("nobody", "")]) == ()
    assert ec2.available([cluster, ("node", ""), ("nobody", "")]) == ()


def test_groups_are_exactly_those_that_are_set(world: World, ec2: Ec2, place: Place) -> None:
    eni, _ = attached(ec2, place)
    made = [
        SecurityGroupId(
            world.maker.create_security_group(
                GroupName=f"{name}-{place.subnet_id}", Description="pods", VpcId=world.vpc_id
            )["GroupId"]
        )
        for name in ("one", "two")
    ]
    ec2.set_groups(eni.id, made)
    assert set(seen(ec2, eni.id).security_groups) == set(made)
    ec2.set_groups(eni.id, made[:1])
    assert seen(ec2, eni.id).security_groups == (made[0],)
    with pytest.raises(NotFoundError) as caught:
        ec2.set_groups(eni.id, [SecurityGroupId("sg-0123456789abcdef0")])
    assert caught.value.code == "InvalidGroup.NotFound"


def test_an_eni_sits_on_the_card_that_is_named(world: World, ec2: Ec2, place: Place) -> None:
    (instance,) = world.maker.run_instances(
        ImageId="ami-760aaa0f",
        MinCount=1,
        MaxCount=1,
        InstanceType="m6in.32xlarge",
        SubnetId=place.subnet_id,
    )["Instances"]
    eni = ec2.create(wish(place, secondary_count=0))
    ec2.attach(eni.id, InstanceId(instance["InstanceId"]), 1, 1)
    attachment = seen(ec2, eni.id).attachment
    assert attachment is not None
    assert (attachment.device_index, attachment.network_card) == (1, 1)


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


def test_an_eni_on_its_way_is_listed_as_such(world: World, place: Place) -> None:
    with slow(world, 60):
        _, attachment_id = attached(world.ec2, place)
        coming = [status_of(eni) for eni in world.ec2.attached(place.instance_id)]
    with slow(world, 60):
        world.ec2.detach(attachment_id)
        going = [status_of(eni) for eni in world.ec2.attached(place.instance_id)]
        with pytest.raises(InvalidStateError, match="detaching"):
            world.ec2.detach(attachment_id)
    assert coming == [AttachmentStatus.ATTACHED, AttachmentStatus.ATTACHING]
    assert going == [AttachmentStatus.ATTACHED, AttachmentStatus.DETACHING]


def status_of(eni: Eni) -> AttachmentStatus:
    assert eni.attachment is not None
    return eni.attachment.status


def test_requests_are_counted_as_the_endpoint_counts_them(world: World, place: Place) -> None:
    ours, theirs = world.ec2.calls.copy(), world.plane.calls.copy()
    world.ec2.assign(attached(world.ec2, place)[0].id, Kind.SINGLE, 1)
    world.ec2.attached(place.instance_id)
    assert world.ec2.calls - ours == world.plane.calls - theirs
    assert (world.ec2.calls - ours).total() == 4


@pytest.fixture
def metadata(world: World, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process be the instance: metadata and credentials come from the lab's IMDS."""
    instance = world.plane.backend.get_instance(place.instance_id)

    def told(_: str) -> Metadata:
        cidrs = ["10.0.0.0/16", "100.64.0.0/16"]
        keys = world.plane.access.profile(place.instance_id)
        return Metadata(
            tree_of(instance, region=REGION, account=ACCOUNT, cidrs=cidrs, credentials=keys)
        )

    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with lab.Imds(lambda _: place.instance_id, told).listen("127.0.0.1", 0).serving() as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        yield


@pytest.mark.usefixtures("metadata")
def test_imds_and_ec2_tell_of_the_same_enis(world: World, place: Place) -> None:
    attached(world.ec2, place)
    found = Imds().enis()
    assert {eni.vpc_id for eni in found} == {world.vpc_id}
    told = {eni.id: (eni.mac, eni.addresses, eni.subnet_id) for eni in found}
    assert told == {
        eni.id: (eni.mac, (eni.primary, *eni.secondary), eni.subnet_id)
        for eni in world.ec2.attached(place.instance_id)
    }


@pytest.mark.usefixtures("metadata")
def test_imds_knows_who_the_instance_is(world: World, place: Place) -> None:
    (primary,) = world.ec2.attached(place.instance_id)
    assert primary.primary is not None
    assert Imds().identity() == Identity(
        instance_id=place.instance_id,
        instance_type="m5.large",
        region=REGION,
        availability_zone=ZONE,
        mac=primary.mac,
        primary=primary.primary,
    )


@pytest.mark.usefixtures("metadata")
def test_the_roles_credentials_come_from_imds(place: Place) -> None:
    assert Ec2(region=Imds().region()).subnet(place.subnet_id).cidr == place.cidr
