"""A node that may ask EC2 for nothing takes what IMDS tells, and looks twice before it forgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eni.model import Kind
from ipamd.settings import Settings
from ipamd.terms import Mode
from tests.chaos.world import ModelCloud, World

IMDS_ONLY = Settings(imds_only=True, provisioning=False, leaked_eni_cleanup=False)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, settings=IMDS_ONLY)
    yield made
    if made.life is not None:
        made.kill()


def account_of(world: World) -> ModelCloud:
    assert isinstance(world.cloud, ModelCloud)
    return world.cloud


def test_enis_and_addresses_come_from_imds_and_ec2_is_never_called(world: World) -> None:
    cloud = account_of(world)
    primary = cloud.attached()[0]
    cloud.account.assign_by_hand(primary.id, Kind.SINGLE, 2)
    second = cloud.account.attach_foreign(cloud.identity.instance_id, 1, secondary_count=3)
    world.start()
    daemon = world.daemon
    world.run(60)
    assert {eni.id for eni in daemon.pool.enis.values()} == {primary.id, second}
    assert len(daemon.pool.slots) == 5
    for number in range(5):
        world.add(f"pod-{number}")
    world.run(10)
    assert len(world.living) == 5
    assert not daemon.ec2.calls
    assert daemon.modes == (Mode.NO_PROVISIONING,)


def test_what_is_assigned_later_is_taken_up(world: World) -> None:
    cloud = account_of(world)
    world.start()
    daemon = world.daemon
    world.add("pod")
    world.run(10)
    assert not world.living
    cloud.account.assign_by_hand(cloud.attached()[0].id, Kind.PREFIX, 1)
    world.run(60)
    assert len(world.living) == 1
    assert len(daemon.pool.slots) == 16
    assert not daemon.ec2.calls


def test_a_short_list_takes_nothing_from_pods_and_a_repeated_one_only_what_is_free(
    world: World,
) -> None:
    cloud = account_of(world)
    blocks = cloud.account.assign_by_hand(cloud.attached()[0].id, Kind.SINGLE, 3)
    world.start()
    daemon = world.daemon
    world.run(30)  # the boot was a moment ago
    world.add("pod")
    world.run(10)
    (pod,) = world.living
    world.imds.hidden = {str(block) for block in blocks}
    world.run(20)
    assert len(daemon.pool.slots) == 3
    world.run(120)
    assert [str(a) for a in daemon.pool.slots] == [str(pod.address)]
    world.imds.hidden.clear()
    world.run(120)
    assert len(daemon.pool.slots) == 3
