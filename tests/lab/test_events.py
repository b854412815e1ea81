"""What the kernel tells of changes, and that it tells nothing of our own."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_network

import pytest

from cni import rtnl
from cni.dataplane import PODS_TABLE, Rule
from cni.desired import Neighbour, PutNeighbour, PutRule, PutWay, SetLink, Way
from cni.events import Events
from cni.kernel import Heard
from cni.mender import KernelMender
from vpclab.netns import Worker

POD = IPv4Address("10.0.0.5")


class Node:
    """A namespace with a veth that is ours and one that is not, and an ear on it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        for name in ("ours", "theirs"):
            self.sh(f"ip link add {name} type veth peer name {name}-far; ip link set {name} up")
        self.index = int(self.sh("ip -o link show ours").partition(":")[0])
        self.events: Events = worker.call(Events)

    def sh(self, script: str) -> str:
        done = self.worker.call(
            subprocess.run, ["sh", "-ec", script], capture_output=True, text=True, check=True
        )
        return str(done.stdout)

    def hear(self) -> Heard:
        return self.events.read(lambda index: index == self.index)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker("ears")
    yield made
    made.close()


@pytest.fixture(scope="module")
def node(worker: Worker) -> Iterator[Node]:
    made = Node(worker)
    yield made
    made.events.close()


EVERYTHING = {
    "a rule": "ip rule add pref 99 lookup 99; ip rule del pref 99",
    "a route of the pods' table": "ip route add 10.0.0.9 dev theirs table 5120",
    "a route of an ENI's table": "ip route add 10.0.0.9 dev theirs table 2",
    "a route of our protocol": "ip route add 10.0.0.8 dev theirs proto 151",
    "a rule of IPv6": "ip -6 rule add pref 99 lookup 99",
    "a route of some packets": "ip route add 10.0.0.9 tos 0x10 dev theirs table 5120",
    "a route of IPv6 of the pods' table": "ip -6 route add 2001:db8::9 dev theirs table 5120",
    "a neighbour of ours": "ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:01 dev ours nud permanent",
    "an address of a link of ours": "ip addr add 10.9.0.1/32 dev ours",
    "a link of ours that goes down": "ip link set ours down; ip link set ours up",
    "settings of all links": "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter",
}

NOTHING = {
    "a route of others": "ip route add 10.0.0.7 dev theirs; ip route del 10.0.0.7",
    "a route of others in a table of theirs": "ip route add 10.0.0.7 dev theirs table 300",
    "a neighbour of others": "ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:01 dev theirs",
    "an address of others": "ip addr add 10.9.0.2/32 dev theirs",
}


@pytest.mark.parametrize("script", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_it_has_everything_looked_at(node: Node, script: str) -> None:
    node.hear()
    node.sh(script)
    assert node.hear().everything


@pytest.mark.parametrize("script", NOTHING.values(), ids=NOTHING.keys())
def test_it_is_nobodys_business(node: Node, script: str) -> None:
    node.hear()
    node.sh(script)
    assert not node.hear()


LINKS = {
    "its MAC": "ip link set ours address 02:00:00:00:00:99",
    "its group": "ip link set ours group 7",
    "its alias": "ip link set ours alias mine",
    "its MTU": "ip link set ours mtu 1400",
    "its settings": "echo 2 > /proc/sys/net/ipv4/conf/ours/rp_filter",
    "its forwarding": "echo 1 > /proc/sys/net/ipv4/conf/ours/forwarding",
}


@pytest.mark.parametrize("script", LINKS.values(), ids=LINKS.keys())
def test_what_is_changed_of_a_link_names_the_link_alone(node: Node, script: str) -> None:
    node.hear()
    node.sh(script)
    assert node.hear() == Heard(links={node.index})


def test_nft_says_who_changed_it_and_how_often_does_not_matter(node: Node) -> None:
    node.hear()
    node.sh("nft add table ip others; nft add chain ip others c; nft add rule ip others c accept")
    assert node.hear() == Heard(table=True, by="nft")


def test_what_we_asked_for_ourselves_is_not_told(node: Node, worker: Worker) -> None:
    mender = worker.call(KernelMender)
    node.hear()
    way = Way(ip_network(POD), PODS_TABLE, 0, node.index)
    steps = (
        PutRule(Rule(512, PODS_TABLE)),
        PutWay(way),
        PutNeighbour(Neighbour(node.index, POD, "02:00:00:00:00:01")),
    )
    assert set(worker.call(mender.mend, steps)) == {""}
    assert not node.hear()
    # A link's own news do not say who asked: it is looked at, and nothing is wanting.
    worker.call(mender.mend, (SetLink(node.index, group=9),))
    assert node.hear() == Heard(links={node.index})
    worker.call(mender.close)


def test_what_was_lost_has_everything_looked_at(worker: Worker) -> None:
    deaf: Events = worker.call(Events, 1)
    channel: rtnl.Channel = worker.call(rtnl.Channel)
    path = rtnl.Path(POD, 32, table=300, kind=7)
    for _ in range(50):
        worker.call(channel.send, rtnl.new_route(path), rtnl.delete_route(path))
    assert deaf.read(lambda _: False) == Heard(everything=True, table=True)
    assert not deaf.read(lambda _: False)
    worker.call(channel.close)
    deaf.close()


def test_it_calls_once_when_there_is_something_to_read(node: Node) -> None:
    async def listen(change: Callable[[], object]) -> int:
        node.hear()
        calls, told = [], asyncio.Event()

        def call() -> None:
            calls.append(1)
            told.set()

        node.events.on_told(call)
        await asyncio.to_thread(change)
        await asyncio.wait_for(told.wait(), 10)
        await asyncio.to_thread(change)
        return len(calls)

    assert asyncio.run(listen(lambda: node.sh("ip link set ours mtu 1300"))) == 1
    assert asyncio.run(listen(lambda: node.sh("nft add table ip again"))) == 1
