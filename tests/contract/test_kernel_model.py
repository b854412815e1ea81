"""The modelled kernel keeps the promises, survives its daemon, and tells what a kill left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, ip_network
from typing import ParamSpec, TypeVar

import pytest

from cni.dataplane import GATEWAY_V4, PODS_TABLE, Address
from cni.desired import OddRule
from cni.kernel import Mender, NodeError, NodeNet, WireError, Wiring
from tests.chaos.daemon_side import ModelMender, ModelNet, ModelWiring
from tests.chaos.kernel import Kernel, KilledError, PodLink, Way
from tests.contract.kernel_contract import (
    ENIS,
    GUARD,
    NAME,
    OTHER,
    OTHER_MAC,
    POD,
    PRIMARY,
    ROUTE,
    SANDBOX,
    SECOND,
    THIRD,
    WISH,
    Harm,
    NodeContract,
    WiringContract,
    connect,
    disconnect,
    no_trace,
)
from tests.contract.mender_contract import MenderContract

P = ParamSpec("P")
T = TypeVar("T")


class ModelBench:
    """A modelled node of two ENIs, and two pods."""

    def __init__(self) -> None:
        self.plugged = {SECOND.mac}
        self.now = 1000.0
        self.kernel = Kernel(
            plugged=lambda: self.plugged,
            primary_mac=PRIMARY.mac,
            primary=IPv4Interface(f"{PRIMARY.address}/24"),
            clock=lambda: self.now,
        )
        self.namespaces = [self.kernel.new_netns(name) for name in ("pod-0", "pod-1")]
        self._pods = [self.kernel.open(netns) for netns in self.namespaces]
        self.restart()

    def restart(self) -> None:
        """Begin a new life of the daemon; the kernel has had none."""
        self.net: NodeNet = ModelNet(self.kernel)
        self.wiring: Wiring = ModelWiring(self.kernel)
        self.mender: Mender = ModelMender(self.kernel)

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)

    def pod(self, number: int) -> tuple[int, int]:
        return self._pods[number]

    def own(self) -> int:
        return self.kernel.open(self.kernel.own)[0]

    def pod_addresses(self, number: int) -> dict[str, set[str]]:
        links = self.namespaces[number].links
        return {name: set(map(str, link.addresses)) for name, link in links.items()}

    def routes(self, table: int, version: int = 4) -> list[str]:
        return self.kernel.show_routes(table, version)

    def rules(self) -> list[str]:
        return self.kernel.show_rules()

    def add_rule(self, words: str, said: str, version: int = 4) -> None:
        message = f"ip -{version} rule add {words}".encode()
        self.kernel.odd_rules.add(OddRule(said, message))

    def alias(self, name: str) -> str | None:
        link = self.kernel.link(name)
        return link.alias if link else None

    def add_link(self, name: str, alias: str = "") -> None:
        self.kernel.new_link(name, "0a:00:00:00:00:01").alias = alias

    def add_pod_link(self, number: int, name: str) -> None:
        self.namespaces[number].links[name] = PodLink("0a:00:00:00:00:02", 1500)

    def delete_link(self, name: str) -> None:
        self.kernel.delete_link(name)

    def set_group(self, name: str, group: int) -> None:
        self.kernel.set_link(name, up=False, group=group)

    def delete_route(self, network: str, table: int) -> None:
        self.kernel.delete_way(ip_network(network), table, 0)

    def add_address(self, mac: str, address: str) -> None:
        (link,) = (link for link in self.kernel.links if link.mac == mac)
        link.addresses.append(IPv4Interface(address))

    def write_sysctl(self, name: str, value: str) -> None:
        self.kernel.sysctls[name] = value

    def harm(self, harm: Harm) -> None:
        if harm.startswith("pod-"):
            self._harm_pod(harm)
            return
        link = self.kernel.link(NAME)
        assert link is not None
        way = self.kernel.ways[Way(ip_network(POD), PODS_TABLE).key]
        harms: dict[Harm, Callable[[], object]] = {
            Harm.ALIAS: lambda: self.kernel.set_link(NAME, up=True, alias="ours"),
            Harm.GROUP: lambda: self.kernel.set_link(NAME, up=True, group=5123),
            Harm.MAC: lambda: link.set_mac(OTHER_MAC),
            Harm.DOWN: lambda: self.kernel.set_link(NAME, up=False),
            Harm.RP_FILTER: lambda: self.kernel.set_link(NAME, up=True, conf={"rp_filter": 0}),
            Harm.SOURCE: lambda: self.kernel.put_way(replace(way, source=None)),
            Harm.NEIGHBOUR_GONE: link.neighbours.clear,
            Harm.NEIGHBOUR: lambda: link.neighbours.update({POD: OTHER_MAC}),
        }
        harms[harm]()

    def _harm_pod(self, harm: Harm) -> None:
        netns = self.namespaces[0]
        pod = netns.links["eth0"]
        harms: dict[Harm, Callable[[], object]] = {
            Harm.POD_MAC: lambda: pod.set_mac(OTHER_MAC),
            Harm.POD_MTU: lambda: setattr(pod, "mtu", 1400),
            Harm.POD_DOWN: pod.down,
            Harm.POD_LO: lambda: setattr(netns, "lo_up", False),
            Harm.POD_ADDRESS: pod.lose_addresses,
            Harm.POD_ROUTE: pod.gateways.clear,
            Harm.POD_NEIGHBOUR: lambda: pod.neighbours.update({GATEWAY_V4: OTHER_MAC}),
        }
        harms[harm]()

    def plug(self, mac: str) -> None:
        self.plugged.add(mac)

    def unplug(self, mac: str) -> None:
        self.plugged.discard(mac)

    def killed(self, steps: int, *, cut: bool = False) -> None:
        self.kernel.crash_after = steps
        with pytest.raises(KilledError):
            self._cut() if cut else connect(self)
        self.restart()

    def _cut(self) -> None:
        disconnect(self)
        self.wiring.reap()

    def add_flow(self, address: Address) -> None:
        self.kernel.flows.append(frozenset({PRIMARY.address, address}))


@pytest.fixture
def bench() -> ModelBench:
    return ModelBench()


class TestModelWiring(WiringContract):
    """The contract, of the model."""


class TestModelMender(MenderContract):
    """The contract, of the model."""


class TestModelNode(NodeContract):
    """The contract, of the model."""


# A kill ----------------------------------------------------------------------------------
STEPS_OF_A_CONNECT = 4


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_who_has_an_address_and_what_is_half_made_is_told(bench: ModelBench, steps: int) -> None:
    bench.killed(steps)
    assert bench.kernel.half_made() == (() if steps == STEPS_OF_A_CONNECT else (NAME,))
    assert bench.kernel.owners() == ({POD: (NAME,)} if steps > 2 else {})
    connect(bench)
    assert bench.kernel.owners() == {POD: (NAME,)}
    assert bench.kernel.half_made() == ()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_guard_holds_while_a_wire_is_cut(bench: ModelBench, steps: int) -> None:
    bench.net.add_guards([ip_network(POD)])
    connect(bench)
    bench.killed(steps, cut=True)
    assert bench.kernel.way_to(POD) == "unreachable"


def whole_set_up(bench: ModelBench) -> None:
    """Do all that a start does to the node."""
    for eni in ENIS:
        bench.net.configure_eni(eni)
    bench.net.set_rules(ENIS)
    bench.net.guards([ip_network(POD), ip_network(OTHER)])
    bench.net.apply_nft("table ip enid {}")


def test_a_set_up_that_is_killed_behind_any_step_ends_as_one_that_is_not(bench: ModelBench) -> None:
    bench.plug(THIRD.mac)
    whole_set_up(bench)
    whole, number = str(bench.kernel), len(bench.kernel.log)
    assert number > 15
    for steps in range(1, number + 1):
        again = ModelBench()
        again.plug(THIRD.mac)
        again.kernel.crash_after = steps
        with pytest.raises(KilledError):
            whole_set_up(again)
        again.restart()
        whole_set_up(again)
        assert str(again.kernel) == whole


@pytest.mark.parametrize("step", range(STEPS_OF_A_CONNECT))
def test_a_refusal_at_any_step_leaves_no_trace(bench: ModelBench, step: int) -> None:
    bench.kernel.refuse_after(step)
    with pytest.raises(WireError, match="No buffer space available"):
        connect(bench)
    assert no_trace(bench)
    connect(bench)
    assert bench.kernel.owners() == {POD: (NAME,)}


def test_a_refusal_of_the_nodes_side_is_told_and_the_next_try_goes_on(bench: ModelBench) -> None:
    bench.kernel.refuse_after(0)
    with pytest.raises(NodeError, match=r"the guards: .*No buffer space available"):
        bench.net.add_guards([ip_network(POD)])
    bench.net.add_guards([ip_network(POD)])
    assert bench.routes(PODS_TABLE) == [GUARD]


# What outlives what ----------------------------------------------------------------------
def test_a_reboot_leaves_the_primary_and_what_is_plugged(bench: ModelBench) -> None:
    fresh = str(ModelBench().kernel)
    whole_before = str(bench.kernel)
    bench.plug(THIRD.mac)
    whole_set_up(bench)
    connect(bench)
    bench.unplug(THIRD.mac)
    bench.now += 500
    assert bench.kernel.boot_seconds() == 500
    bench.kernel.reboot()
    assert str(bench.kernel) == whole_before == fresh
    assert bench.kernel.boot_seconds() == 0
    assert bench.kernel.owners() == {}


def test_a_veth_goes_with_its_pods_namespace_when_nothing_holds_it_any_more(
    bench: ModelBench,
) -> None:
    bench.net.add_guards([ip_network(POD)])
    connect(bench)
    bench.kernel.delete_netns(bench.namespaces[0])
    assert bench.kernel.way_to(POD) == NAME, "the daemon has a descriptor of it"
    bench.kernel.close(*bench.pod(0))
    assert bench.kernel.way_to(POD) == "unreachable"
    assert bench.wiring.links() == ()


def test_a_process_that_dies_lets_go_of_its_pods(bench: ModelBench) -> None:
    connect(bench)
    bench.kernel.delete_netns(bench.namespaces[0])
    bench.kernel.end_process()
    assert bench.kernel.owners() == {}
    assert [netns.name for netns in bench.kernel.namespaces] == ["pod-1"]


def test_an_inode_comes_again(bench: ModelBench) -> None:
    first, second = (netns.identity for netns in bench.namespaces)
    bench.kernel.delete_netns(bench.namespaces[0])
    bench.kernel.close(*bench.pod(0))
    assert bench.kernel.new_netns("pod-2").identity == first != second


def test_two_pods_with_one_address_are_told(bench: ModelBench) -> None:
    connect(bench)
    second = replace(WISH, sandbox=replace(SANDBOX, container_id="d" * 64))
    name = connect(bench, second, pod=1).host_ifname
    assert bench.kernel.owners() == {POD: tuple(sorted((NAME, name)))}
    disconnect(bench)
    assert bench.kernel.owners() == {POD: (name,)}, "a dying veth has nothing"


def test_a_kernel_prints_itself_in_ips_words(bench: ModelBench) -> None:
    bench.net.add_guards([ip_network(POD)])
    bench.net.set_rules((PRIMARY,))
    connect(bench)
    assert (
        str(bench.kernel)
        == f"""\
# ip link
1: lo: <> mtu 65536 group default
    link/ether 00:00:00:00:00:00
2: ens5: <UP> mtu 9001 group default
    link/ether 02:00:00:00:00:01
    inet 10.0.1.4/24
3: ens6: <> mtu 1500 group default
    link/ether 02:00:00:00:00:02
4: {NAME}@pod-0/eth0: <UP> mtu 9001 group 5122
    link/ether 0a:58:a9:fe:01:01
    alias enid1 {"c" * 64}/eth0 enid uid-1 10.0.1.20 eni-0123
# ip rule
512:\tfrom all lookup 5120 proto 151
1024:\tfrom all fwmark 0x80/0x80 lookup main proto 151
# ip route show table 5120
{GUARD}
{ROUTE}
# ip -n pod-0 addr
eth0: link/ether 0a:58:0a:00:01:14 10.0.1.20"""
    )
