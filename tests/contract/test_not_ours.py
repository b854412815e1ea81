"""What is not ours any more is left alone, and what was not settled is not believed at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from eni.errors import UnauthorizedError
from eni.model import CreateEni, Eni, InstanceId
from ipamd.intents import INSTANCE_TAG, UNMANAGED_TAG
from ipamd.plan.account import Raise
from ipamd.pool import Leaving
from ipamd.ports import CountedEc2
from ipamd.settings import Settings
from tests.chaos.world import ModelCloud, World

REST_SECONDS = 200.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, settings=Settings(demand=False, warm_ip_target=2))
    yield made
    if made.life is not None:
        made.kill()


def account_of(world: World) -> ModelCloud:
    assert isinstance(world.cloud, ModelCloud)
    return world.cloud


def test_an_eni_that_somebody_tags_no_manage_is_let_go_and_never_deleted(world: World) -> None:
    cloud = account_of(world)
    second = cloud.account.attach_foreign(cloud.identity.instance_id, 1, secondary_count=3)
    world.start()
    world.run(REST_SECONDS)
    assert second in world.daemon.pool.enis
    cloud.ec2("").tag(second, [(UNMANAGED_TAG, "true")])
    world.daemon.engine.census.look_soon()
    world.run(REST_SECONDS)
    assert second in {eni.id for eni in cloud.attached()}


def test_a_full_disk_takes_no_idle_eni_from_pods(world: World) -> None:
    world.settings = Settings(demand=False, warm_eni_target=1)
    world.start()
    world.run(REST_SECONDS)
    world.add("pod")
    world.run(30)
    assert len(world.daemon.pool.enis) == 2
    world.delete("pod")
    world.daemon.journal._db.execute("PRAGMA query_only = 1")  # noqa: SLF001
    world.run(REST_SECONDS)
    assert [e.id for e in world.daemon.pool.enis.values() if e.closed] == []


def test_other_settings_do_not_make_a_node_believe_that_it_is_alone(world: World) -> None:
    world.start()
    world.daemon.by_cluster.hear_nodes(1000)
    world.daemon.apply(replace(world.settings, cooldown_seconds=20))
    assert world.daemon.line.budget.nodes == 1000


class LateEc2:
    """An EC2 whose list of what is attached is from before, for so long."""

    def __init__(self, ec2: CountedEc2, shown: tuple[Eni, ...], world: World, until: float) -> None:
        self._ec2, self._shown, self._world, self._until = ec2, shown, world, until

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ec2, name)

    def attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """Return what was attached, then what is."""
        if self._world.now < self._until:
            return self._shown
        return self._ec2.attached(instance_id)


def test_what_was_being_given_back_at_a_kill_is_not_believed_of_a_late_answer(
    world: World,
) -> None:
    cloud = account_of(world)
    world.start()
    world.run(REST_SECONDS)
    shown = cloud.attached()
    (primary,) = shown
    block = primary.blocks[0]
    world.daemon.journal.begin_release([block], world.clock().wall)
    cloud.account.unassign_by_hand(primary.id, [block])
    cloud.account.occupy(cloud.subnet_id, [block])  # another node has it now
    world.kill()
    world.wrap = lambda ec2: cast("CountedEc2", LateEc2(ec2, shown, world, world.now + 20))
    world.start()
    world.run(15)
    assert all(isinstance(world.daemon.pool.slots[a].state, Leaving) for a in block)
    world.run(REST_SECONDS)
    assert set(world.daemon.pool.blocks()) == set(cloud.attached()[0].blocks)


def test_one_leaked_eni_that_may_not_be_deleted_keeps_no_other(world: World) -> None:
    cloud = account_of(world)
    node = cloud.ec2("")
    made = [
        node.create(
            CreateEni(
                token=f"leak-{n}",
                subnet_id=cloud.subnet_id,
                security_groups=cloud.attached()[0].security_groups,
                description=f"aws-K8S-{cloud.identity.instance_id}",
                tags=((INSTANCE_TAG, cloud.identity.instance_id),),
            )
        ).id
        for n in range(3)
    ]
    first = min(made)
    denied = Raise(UnauthorizedError)
    cloud.account.faults = lambda action, about: (
        denied if action == "DeleteNetworkInterface" and about == first else None
    )
    world.start()
    world.run(REST_SECONDS)
    assert {eni.id for eni in cloud.enis()} & set(made) == {first}


def test_a_subnet_that_is_deleted_makes_way_for_the_next_that_is_listed(tmp_path: Path) -> None:
    others = {"10.0.16.0/20": (), "10.0.32.0/20": ()}
    made = World(tmp_path, make_cloud=lambda clock: ModelCloud(clock, others=others))
    cloud = account_of(made)
    _, first, second = cloud.subnets
    made.settings = Settings(demand=False, warm_eni_target=1, subnets=(first, second))
    made.start()
    made.run(REST_SECONDS)
    made.add("pod")
    made.run(30)
    del cloud.account.vpc._subnets[first]  # noqa: SLF001 - no node deletes one
    for number in range(9):
        made.add(f"pod-{number}")
    made.run(900)
    placed = [e.subnet_id for e in made.daemon.pool.enis.values()]
    assert placed == [cloud.subnet_id, first, second]
    made.kill()


def test_a_full_run_ends_no_daemon_and_loses_no_address(world: World) -> None:
    world.start()
    world.run(REST_SECONDS)
    world.add("first")
    world.run(5)
    world.daemon.leases._db.execute("PRAGMA query_only = 1")  # noqa: SLF001 - /run is full
    world.delete("first")
    world.run(60)
    assert "first" not in world.pods
    world.daemon.leases._db.execute("PRAGMA query_only = 0")  # noqa: SLF001 - and has room again
    for number in range(3):
        world.add(f"pod-{number}")
    world.run(60)
    assert len({pod.address for pod in world.living}) == 3
    assert len(world.daemon.leases.rows()) == 3


def test_an_eni_that_is_detached_by_hand_on_its_way_is_attached_again(world: World) -> None:
    cloud = account_of(world)
    world.settings = Settings(demand=False, warm_eni_target=1)
    world.start()
    world.run(REST_SECONDS)
    kernel, plugged = world.kernel, world.cloud.plugged
    kernel._plugged = lambda: {cloud.identity.mac}  # noqa: SLF001 - no other link comes
    world.add("pod")
    world.run(20)
    (second,) = (e.id for e in cloud.attached() if e.id not in world.daemon.pool.enis)
    cloud.account.detach_by_hand(second)
    kernel._plugged = plugged  # noqa: SLF001 - as above
    world.run(900)
    assert {e.id for e in cloud.enis()} == set(world.daemon.pool.enis)
    assert second in world.daemon.pool.enis
