"""How a node's pool grows with its pods, and what it gives back: real boto3, the embedded EC2.

Every test is a short life of a node in virtual time. What must hold at rest is said in EC2's
words, the kernel's and the journal's at once (`Node.check`).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from ipamd.intents import CLUSTER_TAG
from ipamd.settings import Settings
from ipamd.told_by_aws import TYPES_SECONDS
from tests.contract.node_world import WARM, Make, by_address, said
from vpclab.enid import pod_policy

NEW_ENI = {
    "CreateNetworkInterface": 1,
    "AttachNetworkInterface": 1,
    "ModifyNetworkInterfaceAttribute": 1,
}
"""The calls of one new ENI."""


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


def test_the_policy_of_a_service_account_does_so_too(new_node: Make) -> None:
    """Where instance and primary ENI have the cluster's tag, as terraform/ launches them."""
    node = new_node(settings=replace(WARM, cluster_name="blue"))
    for resource in (node.ec2.identity.instance_id, node.ec2.primary_id):
        node.ec2.tag(resource, {CLUSTER_TAG: "blue"})
    node.ec2.act_as_pod("blue", pod_policy())
    node.boot_up()
    node.adds(1)
    node.run(60)
    assert node.shape() == [9, 9]
    node.deletes()
    node.run(600)
    assert node.shape() == [9]
    assert not node.ec2.plane.access.denials
    node.check()
