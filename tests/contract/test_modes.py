"""A node that lacks something (EC2, IMDS, rights, room, its disk) serves, and its mode says so."""

from __future__ import annotations

import pytest

from eni.errors import ImdsError
from eni.model import Notices
from ipamd.settings import Settings
from tests.contract.node_world import LOOKS, WARM, Make, by_address, said

SPOT_SECONDS = 120.0
"""Between the notice that a spot instance ends, and its end."""


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


# No room --------------------------------------------------------------------------------
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
    node.imds.notice = Notices(spot_action="terminate")
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


@pytest.mark.parametrize(
    ("action", "code"),
    [
        pytest.param("DetachNetworkInterface", "UnauthorizedOperation", id="detach-denied"),
        pytest.param("DetachNetworkInterface", "RequestLimitExceeded", id="detach-throttled"),
        pytest.param("DeleteNetworkInterface", "UnauthorizedOperation", id="delete-denied"),
    ],
)
def test_an_eni_that_may_not_go_serves_again(new_node: Make, action: str, code: str) -> None:
    node = new_node(settings=by_address(warm=1))
    node.boot_up()
    node.adds(26)
    node.run(60)
    assert node.shape() == [9, 9, 9]
    node.ec2.plane.faults.fail(action, code, times=10**6, status=400)
    node.deletes()
    node.run(600)
    pods = node.adds(26)
    node.run(100)
    assert all(pod.address for pod in pods), f"{node.shape()} {node.failures}"
    left = [eni for eni in node.ec2.enis() if eni.attachment is None]
    assert len(left) <= 1, "one that EC2 does not delete is enough to know"
    node.ec2.plane.faults.clear()
    node.run(1200)
    assert node.daemon.status()["mode"] == "normal"
    node.check()


@pytest.mark.parametrize(
    "action",
    ["CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute"],
)
def test_no_eni_outlives_an_instance_that_ends(new_node: Make, action: str) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.ec2.plane.faults.fail(action, "RequestLimitExceeded", times=5, status=503)
    node.adds(1)
    node.run(3)
    node.imds.notice = Notices(spot_action="terminate")
    node.run(SPOT_SECONDS)
    assert node.daemon.status()["modes"] == ["leaving"]
    assert not list(node.leaked_things())


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
