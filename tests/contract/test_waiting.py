"""ADDs that wait for an address, and calls that cannot be done: what they are answered."""

from __future__ import annotations

from cni.spec import Sandbox
from ipamd.settings import Settings
from tests.chaos.world import Call, Pod
from tests.contract.node_world import Make


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


def test_a_pod_that_is_refused_and_comes_again_is_no_new_arrival(new_node: Make) -> None:
    node = new_node(prefix=28, settings=Settings(add_waiting_max=3))
    node.ec2.occupy_all()
    node.boot_up(20)
    attachments, arrived = node.daemon.attachments, list[int]()
    told = attachments.on_arrival

    def hear() -> None:
        arrived.append(1)
        told()

    attachments.on_arrival = hear
    node.adds(3)
    node.run(1)
    level = node.daemon.engine.headroom.level
    for _ in range(20):  # kubelet comes back with a new sandbox each time
        (late,) = node.adds(1)
        node.run(1)
        assert late.answers, "refused at once"
    assert len(arrived) == 3
    assert node.daemon.engine.headroom.level <= level


# What is asked that cannot be ------------------------------------------------------------
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
