"""What the next life of a daemon knows: by its journal, by what EC2 tells, after a reboot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eni.model import EniId
from ipamd.pool import Assigned
from ipamd.settings import Settings
from tests.contract.embedded import Fault
from tests.contract.node_world import LOOKS, WARM, Make, grown, said


# What the next life knows ------------------------------------------------------------------
def test_a_restart_serves_before_any_call_and_then_asks_once(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(60)
    node.kill()
    node.calls()
    waiting = node.adds(1)[0]
    node.start(0.06)
    assert waiting.address is not None
    assert node.calls() == {}
    node.run(12)
    assert node.ec2.plane.calls["DescribeNetworkInterfaces"] <= 2, "one census, one sweep"
    assert node.ec2.log.count("attached") == 2, "one for each life"
    node.check()


def test_nothing_is_given_back_before_ec2_has_told_what_is_ours(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(60)
    node.deletes()
    node.run(5)
    node.ec2.is_away = True
    node.restart()
    node.run(1000)
    assert node.shape() == [9, 9]
    node.ec2.is_away = False
    node.run(400)
    assert node.shape() == [9]
    node.check()


@pytest.mark.parametrize("keep_journal", [True, False], ids=["journal", "no-journal"])
def test_a_restart_never_takes_the_rule_of_an_eni_away(
    new_node: Make, *, keep_journal: bool
) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(60)
    assert len(node.attached()) == 2
    node.kernel.log.clear()
    node.restart(LOOKS, keep_journal=keep_journal)
    assert not [words for words in node.kernel.log if "rule del" in words]
    node.check()


def test_an_eni_we_made_and_forgot_is_deleted_on_the_second_look(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.ec2.faults[len(node.ec2.log)] = Fault.KILLED_AFTER
    node.adds(1)
    node.run(10)
    assert node.life is None
    assert node.ec2.log[-1] == "create"
    (orphan,) = {e.id for e in node.ec2.enis()} - {node.ec2.primary_id}
    node.restart(50, keep_journal=False)
    assert orphan in {e.id for e in node.ec2.enis()}, "one look deletes nothing"
    node.run(200)
    assert orphan not in {e.id for e in node.ec2.enis()}
    assert next(said(caplog, "leaked eni deleted")).__dict__["eni_id"] == orphan
    node.check()


@pytest.mark.parametrize("keep_journal", [True, False], ids=["journal", "no-journal"])
def test_a_reboot_lets_every_former_block_cool_from_the_boot(
    new_node: Make, *, keep_journal: bool
) -> None:
    node = new_node(
        settings=Settings(demand=False, minimum_ip_target=6, cooldown_seconds=60, max_pods=6)
    )
    node.boot_up()
    node.adds(3)
    node.run(20)
    node.reboot()
    if not keep_journal:
        node.lose_journal()
    node.start()
    late = node.adds(1)[0]
    node.run(30)
    assert late.address is None, "31 s after the boot"
    node.run(30)
    assert late.address is not None
    assert late.waited is not None
    assert late.waited < 60
    node.run(LOOKS)
    node.check()


def test_what_ec2_denies_is_dropped_on_the_second_look_only(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    gone = max(node.held())
    node.ec2.hand.unassign_private_ip_addresses(
        NetworkInterfaceId=node.ec2.primary_id, PrivateIpAddresses=[str(gone[0])]
    )
    node.restart(20)
    assert gone in node.daemon.pool.blocks()
    node.run(LOOKS)
    assert gone not in node.daemon.pool.blocks()
    assert next(said(caplog, "block is EC2's again")).__dict__["block"] == str(gone)
    node.check()


def test_a_pods_address_stays_whatever_ec2_says(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    (pod,) = node.adds(1)
    node.run(20)
    assert pod.address is not None
    node.ec2.hand.unassign_private_ip_addresses(
        NetworkInterfaceId=node.ec2.primary_id, PrivateIpAddresses=[str(pod.address)]
    )
    node.restart(LOOKS)
    assert isinstance(node.daemon.pool.slots[pod.address].state, Assigned)
    assert next(said(caplog, "ec2 denies a pod's address"))
    node.delete(pod.name)
    node.run(LOOKS)
    others = node.adds(17)
    node.run(60)
    assert pod.address not in {other.address for other in others}
    node.run(4000)
    node.check()


def test_an_eni_that_lists_lack_and_its_id_shows_serves_on(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node, eni_id = grown(new_node)
    node.ec2.answers["attached"] = node.attached()[:1]
    node.daemon.engine.census.look_twice()
    node.daemon.engine.wake()
    node.run(LOOKS)
    record = next(said(caplog, "eni is not listed, yet attached"))
    assert record.__dict__["eni_id"] == eni_id
    assert len(node.daemon.pool.blocks_of(EniId(eni_id))) == 9
    node.ec2.answers.clear()
    node.run(2 * 4000)
    assert node.shape() == [9, 9]
    node.check()


# A journal that is not ours, or no journal ------------------------------------------------
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: b"\x00" * len(data), id="zeroed"),
        pytest.param(lambda data: data[:4096] + b"\xff" * (len(data) - 4096), id="garbage"),
    ],
)
def test_a_journal_that_cannot_be_read_is_left_as_it_is_and_pods_are_served(
    new_node: Make, damage: Callable[[bytes], bytes]
) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(60)
    node.kill()
    path = node.folder / "journal.db"
    path.write_bytes(damage(path.read_bytes()))
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    before = path.read_bytes()
    node.start()
    node.run(2 * LOOKS)
    pods = node.adds(9)
    node.run(20)
    status = node.daemon.status()
    assert status["mode"] == "no-journal"
    assert "cannot be used as the journal" in str(status["trouble"])
    assert all(pod.address for pod in pods)
    assert path.read_bytes() == before
    assert not list(node.lost())
    assert len(node.attached()) == 2, "nothing new is asked, nothing is given back"
    node.kill()
    path.unlink()
    node.start()
    node.run(2 * LOOKS)
    node.check()


def test_the_journal_of_another_instance_is_set_aside(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(60)
    former = node.ec2.identity.instance_id
    node.kill()
    node.ec2.end()
    node.ec2.launch()
    node.become_another()
    node.boot_up()
    (record,) = said(caplog, "journal set aside")
    assert record.__dict__["kept_as"].endswith(f"journal.db.of-{former}")
    assert node.shape() == [9]
    node.check()


def test_another_instance_type_under_the_journal_holds_its_limits(new_node: Make) -> None:
    node = new_node(instance_type="m5.4xlarge", settings=WARM)
    node.boot_up()
    node.adds(12)
    node.run(60)
    assert node.shape() == [29, 29]
    node.reboot()
    node.ec2.rename_type("m5.large")
    node.start()
    node.run(600)
    assert node.daemon.status()["max_enis"] == 3
    assert node.daemon.pool.census()[0].room == 0
    pods = node.adds(12)
    node.run(60)
    assert all(pod.address for pod in pods)
    assert not list(node.lost())
