"""ENIs that others made, and what people do by hand to those of a node: who keeps what."""

from __future__ import annotations

from typing import Any

import pytest

from ipamd.intents import UNMANAGED_TAG
from ipamd.settings import Settings
from tests.contract.node_world import WARM, Make, grown, said


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


# By hand -------------------------------------------------------------------------------
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
