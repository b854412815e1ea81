"""Twenty pods on two ENIs, by the daemon and the plugin: made, reached, held to their address, gone."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from cni.dataplane import POD_GROUP, PODS_TABLE
from tests.lab.echo import echo
from tests.lab.talk import talk
from tests.lab.test_daemon import Ipamd
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node
    from vpclab.vpc import VpcEni

NAMES = tuple(f"pod-{number}" for number in range(20))
PORT = 30080
PROXY = f"""
table ip proxy {{{{
  chain services {{{{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local tcp dport {PORT} meta mark set meta mark or 0x4000 dnat to {{pod}}
  }}}}
  chain post {{{{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark and 0x4000 == 0x4000 masquerade fully-random
  }}}}
}}}}
"""
"""What kube-proxy makes of a NodePort, here to one pod and its port of the same number."""

AT_ONCE = 4
"""So many plugins run at a time."""


@dataclass(frozen=True, slots=True)
class Full:
    """A node that has a pod on every address of its primary ENI, and others on the next."""

    vpc: EmbeddedVPC
    daemon: Ipamd
    other: Node
    pods: dict[str, IPv4Address]

    @property
    def node(self) -> Node:
        return self.daemon.node

    def eni(self, index: int) -> VpcEni:
        mine = (e for e in self.vpc.enis() if e.instance_id == self.node.instance_id)
        return next(e for e in mine if e.device_index == index)

    def on(self, index: int) -> list[str]:
        """Return the pods on the ENI with this device index, as EC2 knows it."""
        held = set(self.eni(index).secondary)
        return [name for name, address in self.pods.items() if address in held]

    def show(self, *words: str) -> list[str]:
        return self.node.run(["ip", *words]).stdout.splitlines()

    @contextlib.contextmanager
    def without_drops(self) -> Iterator[None]:
        self.vpc.reset_drops()
        yield
        assert not any(self.vpc.drops().values()), self.vpc.drops()


@pytest.fixture(scope="module")
def full(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Full]:
    near, far = (vpc.add_subnet(f"10.0.{n}.0/24", "us-east-1a") for n in (1, 2))
    node = vpc.launch_node("full", "m5.xlarge", near, public=True)  # 14 pods on each of 4 ENIs
    prepare(node)
    other = vpc.launch_node("other", "m5.large", far)
    daemon = Ipamd(node, tmp_path_factory.mktemp("full") / "log", MAX_ENI="2")
    daemon.start()
    with ThreadPoolExecutor(AT_ONCE) as runtime:
        for name in NAMES:
            daemon.netns(name)
        pods = dict(zip(NAMES, runtime.map(daemon.add, NAMES), strict=True))
    yield Full(vpc, daemon, other, pods)
    daemon.close()


def test_twenty_pods_have_a_wire_each_in_the_group_of_their_eni(full: Full) -> None:
    first, second = full.on(0), full.on(1)
    assert len(set(full.pods.values())) == len(first) + len(second) == len(NAMES)
    assert min(len(first), len(second)) >= len(NAMES) - 14
    for number, names in ((1, first), (2, second)):
        assert len(full.show("-o", "link", "show", "group", str(POD_GROUP + number))) == len(names)
    routes = [r for r in full.show("route", "show", "table", str(PODS_TABLE)) if " dev eni" in r]
    assert {route.split()[0] for route in routes} == set(map(str, full.pods.values()))


def test_each_is_reached_and_talks_as_itself(full: Full) -> None:
    with full.without_drops():
        for name, address in full.pods.items():
            assert talk(full.other, full.daemon.netns(name), address) == str(full.other.primary)
            assert talk(full.daemon.netns(name), full.other, full.other.primary) == str(address)
        for one, two in itertools.pairwise(NAMES):
            there = full.daemon.netns(two)
            assert talk(full.daemon.netns(one), there, full.pods[two]) == str(full.pods[one])


def test_the_internet_sees_the_node(full: Full) -> None:
    internet, public = full.vpc.internet, str(full.vpc.public_address(full.node))
    with full.without_drops():
        for name in NAMES:
            assert talk(full.daemon.netns(name), internet, internet.address) == public


def test_a_node_port_answers_on_both_enis_for_a_pod_of_either(full: Full) -> None:
    for index in (0, 1):
        name = full.on(index)[0]
        pod = full.pods[name]
        full.node.run(["nft", "-f", "-"], input=PROXY.format(pod=pod))
        with full.without_drops():
            for way in (0, 1):
                to = full.eni(way).primary
                seen = talk(full.other, full.daemon.netns(name), to, PORT, at=pod)
                assert seen == str(full.node.primary)
        full.node.run(["nft", "delete", "table", "ip", "proxy"])


def test_a_pod_sends_from_no_address_but_its_own(full: Full) -> None:
    """The kernel drops it behind the pod's veth: the VPC never sees it."""
    one, neighbour = full.on(1)[:2]
    pod = full.daemon.netns(one)
    for forged in (
        full.pods[neighbour],
        full.pods[full.on(0)[0]],
        full.node.primary,
        full.eni(1).primary,
    ):
        pod.run(["ip", "addr", "add", f"{forged}/32", "dev", "eth0"])
        before = refused(full.node)
        with full.without_drops():
            assert not echo(pod, full.other.primary, source=forged).arrived
        assert refused(full.node) > before
        pod.run(["ip", "addr", "del", f"{forged}/32", "dev", "eth0"])
    assert echo(pod, full.other.primary).arrived


def refused(node: Node) -> int:
    """Return how many packets the node has dropped for their source: rp_filter, or as its own."""
    lines = node.run(["cat", "/proc/net/netstat"]).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    counted = dict(zip(names, values, strict=True))
    stat = node.run(["cat", "/proc/net/stat/rt_cache"]).stdout.splitlines()
    martians = [int(line.split()[stat[0].split().index("in_martian_src")], 16) for line in stat[1:]]
    return int(counted["IPReversePathFilter"]) + sum(martians)


def test_all_go_and_their_addresses_are_guarded(full: Full) -> None:
    with ThreadPoolExecutor(AT_ONCE) as runtime:
        list(runtime.map(full.daemon.delete, NAMES))
    full.daemon.wait(lambda _: not any("enid1 " in line for line in full.show("-d", "link")))
    table = full.show("route", "show", "table", str(PODS_TABLE))
    assert not [route for route in table if " dev eni" in route]
    held = " ".join(table)
    for address in full.pods.values():
        assert re.search(rf"unreachable {re.escape(str(address))} ", held)
    for index in (0, 1):
        assert not echo(full.other, full.eni(index).secondary[0]).arrived
    for name in NAMES:
        full.daemon.netns(name).close()
