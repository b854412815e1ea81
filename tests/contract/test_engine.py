"""The daemon with real boto3 against the embedded EC2: how the pool grows, shrinks and survives.

Every test is a short life of a node in virtual time. What must hold at rest is said in EC2's
words, the kernel's and the journal's at once (`Node.check`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from cni.spec import Sandbox
from eni.errors import ImdsError
from eni.model import EniId
from ipamd.intents import UNMANAGED_TAG
from ipamd.pool import Assigned
from ipamd.settings import Settings
from ipamd.told_by_aws import TYPES_SECONDS
from tests.chaos.world import Call, Pod
from tests.contract.embedded import Fault
from tests.contract.node_world import WARM, Node, by_address

Make = Callable[..., Node]

NEW_ENI = {
    "CreateNetworkInterface": 1,
    "AttachNetworkInterface": 1,
    "ModifyNetworkInterfaceAttribute": 1,
}
"""The calls of one new ENI."""

LOOKS = 100.0
"""Two looks at EC2, half a minute apart, and what follows from them."""


@pytest.fixture(autouse=True)
def _talkative(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def said(caplog: pytest.LogCaptureFixture, message: str) -> Iterator[logging.LogRecord]:
    """Yield what was logged under *message*."""
    return (record for record in caplog.records if record.getMessage() == message)


# Growing ---------------------------------------------------------------------------------
def test_boot_asks_for_two_addresses_in_one_call(new_node: Make) -> None:
    node = new_node()
    node.boot_up()
    assert node.shape() == [2]
    assert node.calls() == {
        "DescribeNetworkInterfaces": 2,  # what is attached, and what was leaked
        "DescribeInstanceTypes": 1,
        "DescribeSubnets": 1,
        "AssignPrivateIpAddresses": 1,
    }
    node.check()


def test_with_a_warm_eni_boot_fills_one_enis_worth(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    assert node.shape() == [9]
    node.check()


def test_with_a_warm_eni_the_first_pod_brings_the_next_eni_in_three_calls(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.calls()
    node.adds(1)
    node.run(20)
    assert node.calls() == NEW_ENI
    assert node.shape() == [9, 9]
    node.check()


def test_a_resting_node_asks_ec2_nothing(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.calls()
    node.run(1500)
    assert node.calls() == {}


def test_a_pod_that_finds_an_address_ready_costs_no_call(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(60)
    node.calls()
    for _ in range(20):
        (pod,) = node.adds(1)
        node.run(1)
        node.delete(pod.name)
        node.run(60)
    assert node.calls() == {}
    node.check()


def test_targets_by_address_are_met_exactly(new_node: Make) -> None:
    node = new_node(settings=by_address(warm=2, minimum=5))
    node.boot_up()
    shapes = [node.shape()]
    for number in (5, 2, 2):
        node.adds(number)
        node.run(20)
        shapes.append(node.shape())
    assert shapes == [[5], [7], [9], [9, 2]]
    node.check()


def test_the_node_stops_at_max_eni(new_node: Make) -> None:
    node = new_node(settings=Settings(demand=False, warm_eni_target=1, max_eni=2))
    node.boot_up()
    node.adds(18)
    node.run(60)
    assert node.shape() == [9, 9]
    node.check()


def test_no_more_is_held_than_pods_may_use(new_node: Make) -> None:
    node = new_node(settings=Settings(demand=False, warm_eni_target=1, max_pods=11))
    node.boot_up()
    node.adds(11)
    node.run(60)
    assert node.shape() == [9, 2]
    node.check()


def test_the_cap_that_the_kubelet_tells_holds_too(new_node: Make) -> None:
    node = new_node()
    node.boot_up()
    node.tell(max_pods=4)
    node.adds(4)
    node.run(60)
    assert node.shape() == [4]
    node.check()


def test_pods_that_are_bound_here_get_their_addresses_ahead(new_node: Make) -> None:
    node = new_node()
    node.boot_up()
    node.tell(bound=6)
    node.run(20)
    assert node.shape() == [8]
    pods = node.adds(6)
    node.run(1)
    assert all(pod.waited is not None and pod.waited < 0.1 for pod in pods)
    node.check()


def test_limits_of_ec2_beat_those_of_our_table(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.ec2.limits_are(enis=1, ipv4_per_eni=5)
    node.boot_up()
    node.adds(3)
    node.run(60)
    (record,) = said(caplog, "ec2 knows other limits")
    assert "ipv4_per_eni=5" in record.__dict__["limits"]
    assert len(node.attached()) == 1
    assert node.daemon.pool.census()[0].eni.slots == 4
    node.restart()
    assert len(list(said(caplog, "ec2 knows other limits"))) == 1
    assert node.daemon.engine.terms.slots == 4, "noted in the journal"


def test_limits_that_aws_raised_are_known_a_day_later(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.ec2.limits_are(ipv4_per_eni=5)
    node.boot_up()
    node.run(3600)
    node.ec2.limits_are(ipv4_per_eni=6)
    node.run(TYPES_SECONDS / 2)
    assert node.daemon.engine.terms.slots == 4
    node.run(TYPES_SECONDS / 2)
    assert node.daemon.engine.terms.slots == 5
    assert len(list(said(caplog, "ec2 knows other limits"))) == 2


def test_a_type_that_nobody_knows_serves_and_does_not_grow_until_ec2_tells(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.ec2.rename_type("m99.large")
    node.ec2.hand.assign_private_ip_addresses(
        NetworkInterfaceId=node.ec2.primary_id, SecondaryPrivateIpAddressCount=2
    )
    node.ec2.is_away = True
    node.start()
    served, _, waits = node.adds(3)
    node.run(30)
    assert served.address is not None
    assert waits.address is None
    assert next(said(caplog, "limits unknown: no growth until ec2 tells"))
    node.ec2.is_away = False
    node.ec2.limits_are(enis=3, ipv4_per_eni=10)
    node.run(400)
    assert waits.address is not None
    assert node.shape() == [9, 9]
    node.check()


def test_a_burst_brings_several_enis_at_once_and_serves_in_order(new_node: Make) -> None:
    node = new_node(
        instance_type="m5.4xlarge", settings=Settings(add_waiting_max=110, max_pods=110)
    )
    node.boot_up()
    node.calls()
    node.ec2.plane.backend.delays.attach_seconds = 3.0
    pods = node.adds(110)
    node.run(60)
    calls = node.calls()
    assert calls == {
        "AssignPrivateIpAddresses": 1,
        **dict.fromkeys(NEW_ENI, 3),
    }
    waits = [pod.waited for pod in pods]
    assert None not in waits
    assert waits == sorted(w for w in waits if w is not None), "first come, first served"
    assert sum(w < 0.2 for w in waits if w) >= 29, "the primary's room is an Assign away"
    longest = 3.2 + 110 * 0.001  # one wire after another
    assert max(w for w in waits if w) < longest, "the link is all that is waited for"
    assert node.shape() == [29, 29, 29, 23]
    node.check()


def test_an_eni_that_comes_late_holds_up_no_other(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.ec2.plane.backend.delays.attach_seconds = 60.0
    node.adds(1)
    node.run(2)
    node.ec2.plane.backend.delays.attach_seconds = 0.0
    pods = node.adds(17)
    node.run(3)
    assert all(pod.address for pod in pods), "by the third ENI; the second is still on its way"
    assert node.attached()[1].id not in node.daemon.pool.enis
    node.run(60)
    assert node.shape() == [9, 9, 9]
    node.check()


# Other people's --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"InterfaceType": "trunk"}, id="trunk"),
        pytest.param({"InterfaceType": "efa"}, id="efa"),
        pytest.param(
            {
                "TagSpecifications": [
                    {
                        "ResourceType": "network-interface",
                        "Tags": [{"Key": UNMANAGED_TAG, "Value": "true"}],
                    }
                ]
            },
            id="no_manage",
        ),
    ],
)
def test_an_eni_of_somebody_else_is_left_alone_and_counted(
    new_node: Make, more: dict[str, Any]
) -> None:
    node = new_node(settings=WARM)
    made = node.ec2.create(**more)
    node.ec2.attach(made)
    node.boot_up()
    node.adds(18)
    node.run(60)
    assert node.daemon.status()["unmanaged_enis"] == [made]
    assert [e.attachment and e.attachment.device_index for e in node.attached()] == [0, 1, 2]
    assert made not in node.daemon.pool.enis
    assert not node.failures


def test_an_untagged_eni_is_left_alone_where_that_is_asked(new_node: Make) -> None:
    node = new_node(settings=Settings(manage_untagged_eni=False))
    made = node.ec2.create()
    node.ec2.attach(made)
    node.boot_up()
    assert node.daemon.status()["unmanaged_enis"] == [made]
    assert made not in node.daemon.pool.enis


def test_an_eni_that_was_attached_by_hand_is_adopted(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node()
    node.boot_up()
    made = node.ec2.create(SecondaryPrivateIpAddressCount=4)
    node.ec2.attach(made)
    node.restart(15)
    assert made in node.daemon.pool.enis
    (record,) = said(caplog, "eni adopted")
    assert record.__dict__["eni_id"] == made
    node.check()
    node.run(600)
    assert made not in node.daemon.pool.enis, "tagged ours, it goes when it is too much"
    node.check()


def test_an_eni_that_may_not_be_tagged_serves_and_stays(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node()
    node.ec2.act_as_node()
    made = node.ec2.create(SecondaryPrivateIpAddressCount=4)
    node.ec2.attach(made)
    node.boot_up()
    assert next(said(caplog, "adopted eni stays")).__dict__["eni_id"] == made
    node.adds(5)
    node.run(20)
    assert made in {slot.eni_id for slot in node.daemon.pool.slots.values()}
    assert sum(c.assigned for c in node.daemon.pool.census()) == 5
    node.deletes()
    node.run(900)
    assert made in node.daemon.pool.enis
    assert not list(node.lost())


def test_the_shipped_policy_lets_a_node_grow_and_shrink(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.ec2.act_as_node()
    node.boot_up()
    node.adds(1)
    node.run(60)
    assert node.shape() == [9, 9]
    node.deletes()
    node.run(600)
    assert node.shape() == [9]
    assert not node.ec2.plane.access.denials
    node.check()


# The host's ------------------------------------------------------------------------------
def test_an_address_that_is_on_a_host_link_is_never_given_out(new_node: Make) -> None:
    node = new_node(settings=by_address(minimum=9))
    taken = node.ec2.subnet_cidr[7]
    assert isinstance(taken, IPv4Address)
    link = node.kernel.new_link("dummy0", "02:ff:00:00:00:01")
    link.is_up, link.addresses = True, [IPv4Interface(taken)]
    node.boot_up()
    assert IPv4Network(taken) in node.held()
    pods = node.adds(9)
    node.run(60)
    assert taken not in {pod.address for pod in pods}
    assert all(pod.address for pod in pods)
    assert node.daemon.pool.census()[0].taken == 1
    node.check()


# Shrinking -------------------------------------------------------------------------------
def test_surplus_addresses_go_back_when_calm(new_node: Make) -> None:
    node = new_node(settings=by_address(warm=2))
    node.boot_up()
    node.adds(8)
    node.run(20)
    assert node.shape() == [9, 1]
    node.deletes()
    node.run(20)
    assert node.shape() == [9, 1], "eight cool and are not warm, so two free stay"
    node.run(400)
    assert node.shape() == [2]
    node.check()


def test_an_eni_nobody_uses_goes_back_with_its_rules_and_guards(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(20)
    second = node.attached()[1]
    assert second.mac in node.ec2.plugged()
    node.deletes()
    node.run(400)
    assert [e.id for e in node.attached()] == [node.ec2.primary_id]
    assert second.mac not in node.ec2.plugged()
    node.check()


def test_an_eni_with_one_pod_stays(new_node: Make) -> None:
    node = new_node()
    node.boot_up()
    node.adds(10)
    node.run(20)
    node.deletes(on=node.ec2.primary_id)
    node.run(1200)
    assert len(node.living) == 1
    assert len(node.attached()) == 2
    node.check()


def test_an_eni_that_detaches_slowly_is_deleted_when_it_has(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(20)
    node.ec2.plane.backend.delays.detach_seconds = 100.0
    node.deletes()
    node.run(600)
    assert len(node.ec2.enis()) == 1
    node.check()


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


# Faults ----------------------------------------------------------------------------------
def test_a_kernel_that_refuses_is_asked_again(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.ec2.plane.backend.delays.attach_seconds = 1.0
    node.adds(1)
    node.run(0.5)
    node.kernel.refuse_after(0)
    node.run(1)
    assert any("No buffer space" in text for text in node.failures.values())
    node.run(60)
    assert len(node.attached()) == 2
    assert not node.failures
    node.check()


def test_what_the_instance_cannot_take_is_deleted_again(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    fail = node.ec2.plane.faults.fail
    fail("AttachNetworkInterface", "AttachmentLimitExceeded", times=1)
    node.adds(1)
    node.run(3)
    assert len(node.ec2.enis()) == 1, "an ENI that no instance can take is a leak"
    node.run(300)
    assert node.shape() == [9, 9]
    node.check()


def test_delete_on_termination_that_is_refused_is_said_later(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node()
    node.boot_up()
    fail = node.ec2.plane.faults.fail
    fail("ModifyNetworkInterfaceAttribute", "UnauthorizedOperation", times=2, status=403)
    pods = node.adds(12)
    node.run(5)
    assert all(pod.address for pod in pods), "pods need the ENI and not this attribute"
    assert next(said(caplog, "eni outlives its instance for now"))
    node.run(900)
    assert not node.failures
    node.check()


def test_a_disk_that_takes_nothing_stops_growth_and_not_pods(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.daemon.journal._db.execute("PRAGMA query_only = 1")  # noqa: SLF001 - a full disk reads, too
    pods = node.adds(9)
    node.run(60)
    assert all(pod.address for pod in pods)
    assert len(node.attached()) == 1
    assert node.daemon.status()["mode"] == "no-journal"
    assert any("cannot be written" in text for text in node.failures.values())
    node.daemon.journal._db.execute("PRAGMA query_only = 0")  # noqa: SLF001 - and somebody made room
    node.run(900)
    assert len(node.attached()) == 2
    assert node.daemon.status()["mode"] == "normal"
    node.check()


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


# Bad input by hand -------------------------------------------------------------------------
def grown(new_node: Make, **more: object) -> tuple[Node, str]:
    """Return a node with a pod, and its second ENI, which nobody uses."""
    node = new_node(settings=WARM, **more)
    node.boot_up()
    node.adds(1)
    node.run(60)
    return node, node.attached()[1].id


@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "detached"])
def test_an_eni_that_somebody_takes_away_is_said_and_replaced(
    new_node: Make, caplog: pytest.LogCaptureFixture, *, is_deleted: bool
) -> None:
    node, eni_id = grown(new_node)
    node.ec2.detach(eni_id)
    if is_deleted:
        node.ec2.hand.delete_network_interface(NetworkInterfaceId=eni_id)
    node.run(2 * 4000)
    assert any(r.__dict__["eni_id"] == eni_id for r in said(caplog, "eni is gone"))
    assert eni_id not in {e.id for e in node.ec2.enis()}
    assert node.shape() == [9, 9]
    node.check()


def test_a_prefix_that_somebody_unassigns_is_said_and_replaced(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=Settings(prefix_delegation=True, demand=False, warm_prefix_target=2))
    node.boot_up()
    gone = max(node.held())
    node.ec2.hand.unassign_private_ip_addresses(
        NetworkInterfaceId=node.ec2.primary_id, Ipv4Prefixes=[str(gone)]
    )
    node.run(2 * 4000)
    assert next(said(caplog, "block is EC2's again")).__dict__["block"] == str(gone)
    assert node.shape() == [32]
    node.check()


def test_addresses_that_somebody_assigns_are_taken_over(new_node: Make) -> None:
    node = new_node()
    node.boot_up()
    node.ec2.hand.assign_private_ip_addresses(
        NetworkInterfaceId=node.ec2.primary_id, SecondaryPrivateIpAddressCount=3
    )
    node.restart(15)
    assert sum(c.free for c in node.daemon.pool.census()) == 5
    node.run(600)
    node.check()


def test_a_group_that_somebody_deletes_stops_growth_and_is_said(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.ec2.plane.faults.fail("CreateNetworkInterface", "InvalidGroup.NotFound", times=1)
    pods = node.adds(9)
    node.run(5)
    assert all(pod.address for pod in pods)
    assert "InvalidGroup.NotFound" in node.failures["add eni"]
    node.run(400)
    assert len(node.attached()) == 2
    node.check()


def test_a_subnet_that_somebody_deletes_stops_growth_and_is_said(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.ec2.plane.faults.fail("CreateNetworkInterface", "InvalidSubnetID.NotFound", times=1)
    node.adds(1)
    node.run(5)
    assert "InvalidSubnetID.NotFound" in node.failures["add eni"]
    node.run(400)
    assert len(node.attached()) == 2
    node.check()


# Standing and modes ------------------------------------------------------------------------
def test_a_cordoned_node_serves_what_comes_and_keeps_nothing_warm(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(60)
    node.tell(unschedulable=True)
    node.run(900)
    assert node.shape() == [1]
    assert node.daemon.status()["mode"] == "cordoned"
    late = node.adds(2)
    node.run(10)
    assert all(pod.address for pod in late)
    assert node.shape() == [3]
    node.check()


def test_a_cordoned_node_stays_warm_where_that_is_asked(new_node: Make) -> None:
    node = new_node(
        settings=Settings(demand=False, warm_eni_target=1, manage_enis_non_schedulable=True)
    )
    node.boot_up()
    node.tell(unschedulable=True)
    node.adds(1)
    node.run(60)
    assert node.shape() == [9, 9]
    node.check()


def test_an_instance_that_ends_soon_asks_nothing_more(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.imds.notice = node.imds.notice.__class__(spot_action="terminate")
    node.run(15)
    node.calls()
    pods = node.adds(9)
    node.run(60)
    assert all(pod.address for pod in pods)
    assert node.calls() == {}
    assert node.daemon.status()["mode"] == "leaving"


@pytest.mark.parametrize("imds_only", [True, False], ids=["imds-only", "no-provisioning"])
def test_a_node_that_may_provision_nothing_serves_what_imds_tells(
    new_node: Make, *, imds_only: bool
) -> None:
    node = new_node(
        settings=Settings(provisioning=False, leaked_eni_cleanup=False, imds_only=imds_only)
    )
    node.ec2.hand.assign_private_ip_addresses(
        NetworkInterfaceId=node.ec2.primary_id, SecondaryPrivateIpAddressCount=3
    )
    node.boot_up()
    pods = node.adds(3)
    node.run(400)
    assert all(pod.address for pod in pods)
    questions = set() if imds_only else {"DescribeNetworkInterfaces", "DescribeInstanceTypes"}
    assert node.calls().keys() == questions, "the peer's reconcile goes on without provisioning"
    assert node.daemon.status()["mode"] == "no-provisioning"


def test_ec2_away_is_a_mode_and_pods_are_served(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.ec2.is_away = True
    pods = node.adds(9)
    node.run(60)
    assert all(pod.address for pod in pods)
    assert node.daemon.status()["mode"] == "ec2-away"
    node.ec2.is_away = False
    node.run(120)
    assert node.daemon.status()["mode"] == "normal"
    assert node.shape() == [9, 9]
    node.check()


def test_throttling_is_a_mode_that_ends_with_it(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    fail = node.ec2.plane.faults.fail
    fail("CreateNetworkInterface", "RequestLimitExceeded", times=4, status=503)
    pods = node.adds(9)
    node.run(3)
    assert all(pod.address for pod in pods)
    assert node.daemon.status()["mode"] == "throttled"
    node.run(400)
    assert node.daemon.status()["mode"] == "normal"
    assert node.shape() == [9, 9]
    node.check()


def test_a_role_that_may_not_grow_is_a_mode_and_says_what_is_denied(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.ec2.act_as_node(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}],
        }
    )
    node.boot_up(60)
    (pod,) = node.adds(1)
    node.run(110)
    assert node.daemon.status()["mode"] == "denied"
    ((_, answer),) = pod.answers
    assert "UnauthorizedOperation" in answer["msg"]
    node.ec2.act_as_node()
    node.run(700)
    assert node.shape() == [9]
    assert node.daemon.status()["mode"] == "normal"
    node.check()


@pytest.mark.parametrize(
    "also", [(), ("ec2:DeleteNetworkInterface",)], ids=["attach", "attach-and-delete"]
)
def test_a_role_that_may_create_and_not_attach_makes_one_eni_and_no_more(
    new_node: Make, also: tuple[str, ...]
) -> None:
    node = new_node(instance_type="m5.4xlarge", settings=by_address(warm=1))
    denied = ["ec2:AttachNetworkInterface", *also]
    anything = {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}
    refused = {"Effect": "Deny", "Action": denied, "Resource": "*"}
    node.boot_up()
    node.ec2.act_as_node({"Version": "2012-10-17", "Statement": [anything, refused]})
    *_, late = node.adds(30)
    node.run(110)
    assert node.ec2.plane.calls["CreateNetworkInterface"] <= 10, "growth backs off"
    assert len(node.ec2.enis()) <= 2, "the primary, and one that waits for its rights"
    ((_, answer),) = late.answers
    assert "AttachNetworkInterface" in answer["msg"]
    node.ec2.act_as_node()
    node.run(900)
    assert node.daemon.status()["mode"] == "normal"
    node.check()


def test_imds_away_is_a_mode_and_changes_nothing(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.imds.trouble = ImdsError
    node.restart(30)
    pods = node.adds(9)
    node.run(60)
    assert all(pod.address for pod in pods), "the journal knows who we are"
    assert node.daemon.status()["mode"] == "imds-away"
    assert node.shape() == [9, 9]
    node.imds.trouble = None
    node.run(30)
    assert node.daemon.status()["mode"] == "normal"
    node.run(LOOKS)
    node.check()


# ADDs that wait --------------------------------------------------------------------------
def test_an_add_is_answered_five_seconds_before_its_deadline(new_node: Make) -> None:
    node = new_node(prefix=28)
    node.ec2.occupy_all()
    node.boot_up(20)
    (pod,) = node.adds(1)
    node.run(104.9)
    assert pod.answers == []
    node.run(0.2)
    ((code, answer),) = pod.answers
    assert code == 1
    assert answer["code"] == 11
    assert "no address for" in answer["msg"]
    assert "after 105 s" in answer["msg"]
    assert "InsufficientFreeAddressesInSubnet" in answer["msg"]


def test_when_as_many_wait_as_may_the_next_is_answered_at_once(new_node: Make) -> None:
    node = new_node(prefix=28, settings=Settings(add_waiting_max=3))
    node.ec2.occupy_all()
    node.boot_up(20)
    waiting = node.adds(3)
    node.run(1)
    (late,) = node.adds(1)
    node.run(0.1)
    assert [pod.answers for pod in waiting] == [[], [], []]
    ((code, answer),) = late.answers
    assert (code, answer["code"]) == (1, 11)
    assert answer["msg"].startswith("3 ADDs wait for an address already")


def test_a_subnet_that_refuses_is_said_and_tried_again(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=by_address(warm=4), prefix=28)  # 11 addresses, one the primary's
    others = node.ec2.create(SecondaryPrivateIpAddressCount=7)
    node.boot_up(20)
    record = next(said(caplog, "subnet exhausted"))
    assert "InsufficientFreeAddressesInSubnet" in record.__dict__["reason"]
    assert record.__dict__["why"].startswith(f"subnet {node.ec2.subnet_id} gives no address")
    assert node.shape() == [2], "half of four, when four were refused"
    assert node.daemon.status()["mode"] == "subnet-full"
    node.ec2.hand.delete_network_interface(NetworkInterfaceId=others)
    node.run(300)
    assert node.shape() == [4]
    assert node.daemon.status()["mode"] == "normal"
    node.check()


def test_a_node_without_room_for_an_eni_says_so_and_asks_again(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM, prefix=28)  # 11 addresses: the primary's and 10 more
    node.boot_up(400)  # what EC2 told of its subnets is old by now
    node.adds(1)
    node.run(30)
    assert node.shape() == [9]
    (record,) = said(caplog, "no room for an eni")
    assert record.__dict__["reason"] == f"subnet {node.ec2.subnet_id} gives no address (1 free)"
    assert node.daemon.status()["mode"] == "subnet-full"
    node.ec2.tag(node.ec2.add_subnet(), {"kubernetes.io/role/cni": "1"})
    node.run(400)
    assert node.shape() == [9, 9]
    assert node.daemon.status()["mode"] == "normal"
    node.check()


def test_a_del_of_what_nobody_knows_succeeds(new_node: Make) -> None:
    node = new_node()
    node.boot_up(1)
    node.pods["ghost"] = pod = Pod("ghost", node.kernel.new_netns("ghost"))
    node.delete("ghost")
    node.run(1)
    assert pod.answers == [(0, {})]
    assert Sandbox("enid", "ghost", "eth0") in node.daemon.leases.deletes(node.clock())


def test_an_add_whose_descriptor_is_no_netns_is_refused(new_node: Make) -> None:
    node = new_node()
    node.boot_up(20)
    pod = Pod("web-0", node.kernel.new_netns("web-0"))
    call = Call(node, pod, "ADD", with_netns=True)
    call.descriptors = (998, 999)
    node.pending.append(call)
    assert node.life is not None
    node.life.loop.call_soon(node.daemon.on_call, call, call.frame)
    node.run(1)
    ((code, answer),) = pod.answers
    assert code == 1
    assert "not a network namespace" in answer["msg"]
    assert node.daemon.leases.rows() == ()
