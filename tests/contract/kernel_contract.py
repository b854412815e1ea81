"""What `cni.kernel` promises, as tests: of the model and of Linux, in `ip`'s words.

A test module gives a `bench` fixture and a subclass that starts with "Test"; the tests here
know neither. Two ENIs, 10.0.1.4 (primary) and 10.0.1.5, are plugged; two pods wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_interface, ip_network
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import pytest

from cni import nft
from cni.check import differences
from cni.dataplane import (
    DYING_GROUP,
    GUARD_METRIC,
    HOST_MAC,
    NEEDED_SYSCTLS,
    PODS_TABLE,
    Address,
    EniLink,
    Marks,
    Routing,
    host_ifname,
)
from cni.kernel import NodeError, NodeNet, WireError, Wiring, Wish
from cni.spec import Attached, CniError, Interface, Previous, Sandbox

P = ParamSpec("P")
T = TypeVar("T")

NET = IPv4Network("10.0.1.0/24")
POD, OTHER, POD6 = NET[20], NET[21], IPv6Address("fd00::20")
SANDBOX = Sandbox("enid", "c" * 64, "eth0")
NAME = host_ifname(SANDBOX)
ENIS = tuple(EniLink(n, f"02:00:00:00:00:0{n}", NET[3 + n], NET, 9001) for n in (1, 2, 3))
"""The third is plugged when a test says so."""

PRIMARY, SECOND, THIRD = ENIS
GUARD = f"unreachable {POD} proto 151 metric {GUARD_METRIC}"
ROUTE = f"{POD} dev {NAME} proto 151 scope link src {NET[4]}"
WISH = Wish(SANDBOX, (POD,), 2, "eni-0123", "uid-1", 9001, NET[4])
TABLE = nft.render(nft.NftWish(vpc_cidrs=(NET,), node_primary=NET[4], eni_numbers=3))
FORMER_TABLE = (Path(__file__).parent / "table_before_adr_31.nft").read_text()
"""A release's whose *arrive* hangs where no flush can move it; the node is `NET[4]` there, too."""


PREVIOUS = Previous(
    (
        Interface(NAME, HOST_MAC, "", None),
        Interface("eth0", "0a:58:0a:00:01:14", "/run/netns/x", 9001),
    ),
    (ip_interface(f"{POD}/32"),),
)
OTHER_MAC = "0a:00:00:00:00:09"


class Harm(StrEnum):
    """What others do to a wire of ours; in the pod where it says so."""

    ALIAS = "alias"
    GROUP = "group"
    MAC = "mac"
    DOWN = "down"
    RP_FILTER = "rp_filter"
    SOURCE = "source"
    NEIGHBOUR_GONE = "neighbour-gone"
    NEIGHBOUR = "neighbour"
    POD_MAC = "pod-mac"
    POD_MTU = "pod-mtu"
    POD_DOWN = "pod-down"
    POD_LO = "pod-lo"
    POD_ADDRESS = "pod-address"
    POD_ROUTE = "pod-route"
    POD_NEIGHBOUR = "pod-neighbour"


FOUND = {
    Harm.ALIAS: [f"the alias of {NAME} is 'ours', not 'enid1 {'c' * 64}/eth0 enid uid-1 {POD} eni-0123'"],
    Harm.GROUP: [f"the group of {NAME} is 5123, not 5122"],
    Harm.MAC: [
        f"the MAC of {NAME} is {OTHER_MAC}, not {HOST_MAC}",
        f"the neighbour {POD} of {NAME} is None, not 0a:58:0a:00:01:14",
        f"the MAC of {NAME} is {OTHER_MAC}, and prevResult says {HOST_MAC}",
    ],
    Harm.DOWN: [
        f"{NAME} is down",
        f"the neighbour {POD} of {NAME} is None, not 0a:58:0a:00:01:14",
        f"{POD} has no route to {NAME} in table 5120",
    ],
    Harm.RP_FILTER: [f"rp_filter of {NAME} is 0, not 1"],
    Harm.SOURCE: [f"the source of the route to {POD} is None, not 10.0.1.4"],
    Harm.NEIGHBOUR_GONE: [f"the neighbour {POD} of {NAME} is None, not 0a:58:0a:00:01:14"],
    Harm.NEIGHBOUR: [f"the neighbour {POD} of {NAME} is {OTHER_MAC}, not 0a:58:0a:00:01:14"],
    Harm.POD_MAC: [
        f"the MAC of the pod's eth0 is {OTHER_MAC}, not 0a:58:0a:00:01:14",
        f"the neighbour 169.254.1.1 of the pod's eth0 is None, not {HOST_MAC}",
        f"the MAC of the pod's eth0 is {OTHER_MAC}, and prevResult says 0a:58:0a:00:01:14",
    ],
    Harm.POD_MTU: [
        f"the MTU of {NAME} is 9001, and of the pod's eth0 1400",
        "the MTU of the pod's eth0 is 1400, and prevResult says 9001",
    ],
    Harm.POD_DOWN: [
        "the pod's eth0 is down",
        "the pod has no default route by 169.254.1.1 on eth0",
        f"the neighbour 169.254.1.1 of the pod's eth0 is None, not {HOST_MAC}",
    ],
    Harm.POD_LO: ["the pod's lo is down"],
    Harm.POD_ADDRESS: [
        f"the pod's eth0 lacks the address {POD}",
        "the pod has no default route by 169.254.1.1 on eth0",
        f"the neighbour 169.254.1.1 of the pod's eth0 is None, not {HOST_MAC}",
    ],
    Harm.POD_ROUTE: ["the pod has no default route by 169.254.1.1 on eth0"],
    Harm.POD_NEIGHBOUR: [f"the neighbour 169.254.1.1 of the pod's eth0 is {OTHER_MAC}, not {HOST_MAC}"],
}  # fmt: skip
"""What CHECK says of each harm, all of it.

A link that gets another MAC, goes down or loses its last address takes its neighbours with it, the
permanent ones, too.
"""


class Bench(Protocol):
    """A node, and what others than the daemon do to it."""

    net: NodeNet
    wiring: Wiring

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call *work* where the node's namespace is."""

    def pod(self, number: int) -> tuple[int, int]:
        """Return descriptors of pod 0's or 1's namespace and of a socket in it."""

    def own(self) -> int:
        """Return a descriptor of the node's own namespace."""

    def pod_addresses(self, number: int) -> dict[str, set[str]]:
        """Return the addresses of each interface in a pod, without lo and link-locals."""

    def routes(self, table: int, version: int = 4) -> list[str]:
        """Return the lines of `ip route show table`."""

    def rules(self) -> list[str]:
        """Return the lines of `ip rule` with our protocol."""

    def add_rule(self, words: str, said: str, version: int = 4) -> None:
        """Add a rule of our protocol as `ip rule add` is told; *said* is how it is shown."""

    def alias(self, name: str) -> str | None:
        """Return a link's alias, None if there is no link of that name."""

    def add_link(self, name: str, alias: str = "") -> None:
        """Make a stranger's link on the node."""

    def add_pod_link(self, number: int, name: str) -> None:
        """Make a stranger's link in a pod."""

    def delete_link(self, name: str) -> None:
        """Delete a link of the node."""

    def set_group(self, name: str, group: int) -> None:
        """Put a link into a group."""

    def delete_route(self, network: str, table: int) -> None:
        """Delete a route of metric 0."""

    def add_address(self, mac: str, address: str) -> None:
        """Give an ENI's link another address."""

    def harm(self, harm: Harm) -> None:
        """Do *harm* to the wire of `WISH` in pod 0."""

    def plug(self, mac: str) -> None:
        """Attach an ENI."""

    def unplug(self, mac: str) -> None:
        """Detach an ENI."""

    def killed(self, steps: int, *, cut: bool = False) -> None:
        """Let a daemon make (or cut, and reap) `WISH` in pod 0, and be killed behind a step."""

    def write_sysctl(self, name: str, value: str) -> None:
        """Change a node-wide sysctl."""

    def add_flow(self, address: Address) -> None:
        """Let the node talk to *address*, so that conntrack knows it."""


def connect(bench: Bench, wish: Wish = WISH, pod: int = 0) -> Attached:
    """Make a wire as the daemon does."""
    return bench.do(bench.wiring.connect, wish, *bench.pod(pod), "/run/netns/x")


def disconnect(bench: Bench, *addresses: Address) -> None:
    """Unmake it."""
    bench.do(bench.wiring.disconnect, NAME, addresses or (POD,))


def inspect(
    bench: Bench, wish: Wish = WISH, previous: Previous = PREVIOUS, pod: int = 0
) -> list[str]:
    """Return what CHECK says."""
    return list(differences(wish, bench.do(bench.wiring.inspect, wish, *bench.pod(pod)), previous))


def groups(bench: Bench) -> dict[str, int]:
    """Return the group of each link that says it is ours."""
    return {link.ifname: link.group for link in bench.do(bench.wiring.links)}


def no_trace(bench: Bench) -> bool:
    """Whether neither the node nor the pods show anything of ours."""
    pods = [bench.pod_addresses(0), bench.pod_addresses(1)]
    return (bench.alias(NAME), bench.routes(PODS_TABLE), *pods) == (None, [], {}, {})


class WiringContract:
    """What a `Wiring` promises."""

    # Connecting ------------------------------------------------------------------------
    def test_a_wire_has_a_route_a_pods_side_and_an_alias(self, bench: Bench) -> None:
        attached = connect(bench)
        assert (attached.host_ifname, attached.host_mac, attached.ifname) == (
            NAME,
            HOST_MAC,
            "eth0",
        )
        assert (attached.pod_mac, attached.mtu) == ("0a:58:0a:00:01:14", 9001)
        assert [str(a) for a in attached.addresses] == [f"{POD}/32"]
        assert bench.routes(PODS_TABLE) == [ROUTE]
        assert bench.pod_addresses(0) == {"eth0": {str(POD)}}
        (link,) = bench.do(bench.wiring.links)
        assert (link.ifname, link.group) == (NAME, 5122)
        assert (
            link.alias.text()
            == bench.alias(NAME)
            == f"enid1 {'c' * 64}/eth0 enid uid-1 {POD} eni-0123"
        )

    def test_connecting_twice_gives_the_same_wire(self, bench: Bench) -> None:
        assert connect(bench) == connect(bench)
        assert groups(bench) == {NAME: 5122}
        assert bench.routes(PODS_TABLE) == [ROUTE]

    def test_another_address_for_the_same_sandbox_takes_the_place_of_the_first(
        self, bench: Bench
    ) -> None:
        connect(bench)
        connect(bench, replace(WISH, addresses=(OTHER,)))
        assert bench.routes(PODS_TABLE) == [ROUTE.replace(str(POD), str(OTHER))]
        assert bench.pod_addresses(0) == {"eth0": {str(OTHER)}}

    def test_two_pods_have_two_wires(self, bench: Bench) -> None:
        second = replace(WISH, sandbox=replace(SANDBOX, container_id="d" * 64), addresses=(OTHER,))
        name = connect(bench, second, pod=1).host_ifname
        connect(bench)
        assert groups(bench) == {NAME: 5122, name: 5122}
        assert len(bench.routes(PODS_TABLE)) == 2
        assert (bench.pod_addresses(0), bench.pod_addresses(1)) == ({"eth0": {str(POD)}}, {"eth0": {str(OTHER)}})  # fmt: skip

    def test_both_families_are_routed_and_cut_and_guarded(self, bench: Bench) -> None:
        bench.do(bench.net.add_guards, [ip_network(POD), ip_network(POD6)])
        connect(bench, replace(WISH, addresses=(POD, POD6)))
        assert bench.pod_addresses(0) == {"eth0": {str(POD), str(POD6)}}
        guard6 = f"unreachable {POD6} dev lo proto 151 metric {GUARD_METRIC} pref medium"
        route6 = f"{POD6} dev {NAME} proto 151 metric 1024 pref medium"
        assert sorted(bench.routes(PODS_TABLE, 6)) == sorted([route6, guard6])
        disconnect(bench, POD, POD6)
        assert (bench.routes(PODS_TABLE), bench.routes(PODS_TABLE, 6)) == ([GUARD], [guard6])

    # After a kill ----------------------------------------------------------------------
    @pytest.mark.parametrize(
        ("steps", "alias", "inside", "routes"),
        [
            pytest.param(1, "", {"eth0": set()}, [], id="behind-the-pair"),
            pytest.param(2, "enid1", {"eth0": set()}, [], id="behind-the-alias"),
            pytest.param(3, "enid1", {"eth0": {str(POD)}}, [], id="behind-the-pods-side"),
            pytest.param(4, "enid1", {"eth0": {str(POD)}}, [ROUTE], id="behind-the-route"),
        ],
    )
    def test_what_a_kill_left_of_a_connect_is_made_anew(
        self, bench: Bench, steps: int, alias: str, inside: dict[str, set[str]], routes: list[str]
    ) -> None:
        bench.killed(steps)
        assert str(bench.alias(NAME)).partition(" ")[0] == alias
        assert (bench.pod_addresses(0), bench.routes(PODS_TABLE)) == (inside, routes)
        connect(bench)
        assert groups(bench) == {NAME: 5122}
        assert (bench.pod_addresses(0), bench.routes(PODS_TABLE)) == ({"eth0": {str(POD)}}, [ROUTE])

    @pytest.mark.parametrize(
        ("steps", "left"),
        [
            pytest.param(1, {NAME: 5122}, id="behind-the-route"),
            pytest.param(2, {NAME: DYING_GROUP}, id="behind-the-group"),
            pytest.param(3, {}, id="behind-the-reaper"),
        ],
    )
    def test_what_a_kill_left_of_a_disconnect_is_cut(
        self, bench: Bench, steps: int, left: dict[str, int]
    ) -> None:
        connect(bench)
        bench.killed(steps, cut=True)
        assert groups(bench) == left
        assert bench.routes(PODS_TABLE) == []
        disconnect(bench)
        assert bench.do(bench.wiring.reap) == len(left)
        assert no_trace(bench)

    def test_a_pair_without_alias_is_made_anew(self, bench: Bench) -> None:
        bench.add_link(NAME)
        assert groups(bench) == {}
        connect(bench)
        assert groups(bench) == {NAME: 5122}
        assert bench.routes(PODS_TABLE) == [ROUTE]

    def test_a_wire_without_its_route_is_made_anew(self, bench: Bench) -> None:
        connect(bench)
        bench.delete_route(str(POD), PODS_TABLE)
        connect(bench)
        assert bench.routes(PODS_TABLE) == [ROUTE]
        assert bench.pod_addresses(0) == {"eth0": {str(POD)}}

    def test_a_wire_that_was_put_to_die_is_made_anew_and_lives(self, bench: Bench) -> None:
        connect(bench)
        disconnect(bench)
        connect(bench)
        assert groups(bench) == {NAME: 5122}
        assert bench.do(bench.wiring.reap) == 0
        assert bench.routes(PODS_TABLE) == [ROUTE]

    # Refusals --------------------------------------------------------------------------
    def test_a_link_of_our_name_with_somebody_elses_alias_is_left_alone(self, bench: Bench) -> None:
        bench.add_link(NAME, "uplink of something")
        with pytest.raises(WireError, match=r"is not ours \(alias 'uplink of something'\)"):
            connect(bench)
        assert bench.alias(NAME) == "uplink of something"

    def test_a_link_of_our_name_that_is_another_sandboxs_is_left_alone(self, bench: Bench) -> None:
        alias = f"enid1 {'d' * 64}/eth0 enid - {OTHER} eni-0123"
        bench.add_link(NAME, alias)
        with pytest.raises(WireError, match="exists and is not ours"):
            connect(bench)
        assert bench.alias(NAME) == alias

    def test_an_interface_of_somebody_else_in_the_pod_is_left_alone(self, bench: Bench) -> None:
        bench.add_pod_link(0, "eth0")
        with pytest.raises(
            WireError, match="the pod has an interface eth0 already, and it is not ours"
        ):
            connect(bench)
        assert bench.pod_addresses(0)["eth0"] == set()
        assert (bench.alias(NAME), bench.routes(PODS_TABLE)) == (None, [])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            pytest.param({"node_primary": IPv4Address("10.9.9.9")}, "Invalid prefsrc", id="the-route"),
            pytest.param({"mtu": 20}, "Invalid argument", id="the-pair"),
            pytest.param({"pod_uid": "u" * 200}, "too long: 255 bytes at most", id="the-alias"),
        ],
    )  # fmt: skip
    def test_a_failure_at_any_step_leaves_no_trace(
        self, bench: Bench, change: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(WireError, match=words):
            connect(bench, replace(WISH, **change))
        assert no_trace(bench)

    def test_a_failure_to_make_a_wire_anew_leaves_no_trace_of_the_first(self, bench: Bench) -> None:
        connect(bench)
        with pytest.raises(WireError):
            connect(bench, replace(WISH, node_primary=IPv4Address("10.9.9.9")))
        assert no_trace(bench)

    def test_a_socket_of_another_namespace_is_refused(self, bench: Bench) -> None:
        fds = (bench.pod(0)[0], bench.pod(1)[1])
        with pytest.raises(WireError, match="not of the pod's network namespace"):
            bench.do(bench.wiring.connect, WISH, *fds, "/run/netns/x")
        assert no_trace(bench)

    def test_what_is_no_socket_is_refused(self, bench: Bench) -> None:
        netns, _ = bench.pod(0)
        with pytest.raises(WireError, match="Inappropriate ioctl"):
            bench.do(bench.wiring.connect, WISH, netns, netns, "/run/netns/x")
        assert no_trace(bench)

    def test_a_namespace_has_one_identity_and_the_nodes_own_is_refused(self, bench: Bench) -> None:
        identify = bench.wiring.identify
        (first, socket), (second, _) = bench.pod(0), bench.pod(1)
        assert identify(first) == identify(first) != identify(second)
        with pytest.raises(CniError, match="is the node's own network namespace"):
            identify(bench.own())
        with pytest.raises(CniError, match="is not a network namespace"):
            identify(socket)

    def test_a_wire_has_the_name_that_was_asked_for(self, bench: Bench) -> None:
        attached = connect(bench, replace(WISH, veth="cali0123456789a"))
        assert attached.host_ifname == "cali0123456789a"
        assert groups(bench) == {"cali0123456789a": 5122}
        bench.do(bench.wiring.disconnect, "cali0123456789a", (POD,))
        assert bench.routes(PODS_TABLE) == []

    # Inspecting ------------------------------------------------------------------------
    @pytest.mark.parametrize("addresses", [(POD,), (POD, POD6)], ids=["ipv4", "both-families"])
    def test_a_wire_as_it_was_made_differs_in_nothing(
        self, bench: Bench, addresses: tuple[Address, ...]
    ) -> None:
        bench.do(bench.net.add_guards, [ip_network(a) for a in addresses])
        wish = replace(WISH, addresses=addresses)
        connect(bench, wish)
        previous = replace(PREVIOUS, addresses=tuple(ip_interface(a) for a in addresses))
        assert inspect(bench, wish, previous) == []

    @pytest.mark.parametrize("harm", Harm)
    def test_each_harm_is_said_and_nothing_is_repaired(self, bench: Bench, harm: Harm) -> None:
        connect(bench)
        bench.harm(harm)
        found = inspect(bench)
        assert found == FOUND[harm]
        assert inspect(bench) == found

    def test_a_route_that_is_gone_is_said(self, bench: Bench) -> None:
        connect(bench)
        bench.delete_route(str(POD), PODS_TABLE)
        assert inspect(bench) == [f"{POD} has no route to {NAME} in table {PODS_TABLE}"]

    def test_what_was_never_made_is_missing_at_both_ends(self, bench: Bench) -> None:
        assert inspect(bench) == [f"the node has no link {NAME}", "the pod has no interface eth0"]

    def test_what_others_put_into_a_pod_is_not_the_wires_end(self, bench: Bench) -> None:
        second = replace(WISH, sandbox=replace(SANDBOX, container_id="d" * 64), addresses=(OTHER,))
        connect(bench)
        connect(bench, second, pod=1)
        found = inspect(bench, pod=1)
        assert f"the pod's eth0 is not the other end of {NAME}" in found
        assert f"the pod's eth0 lacks the address {POD}" in found

    def test_only_a_socket_of_the_pod_is_asked(self, bench: Bench) -> None:
        fds = (bench.pod(0)[0], bench.pod(1)[1])
        with pytest.raises(WireError, match="not of the pod's network namespace"):
            bench.do(bench.wiring.inspect, WISH, *fds)

    # Disconnecting ---------------------------------------------------------------------
    def test_disconnecting_what_is_not_there_is_nothing(self, bench: Bench) -> None:
        disconnect(bench)
        assert bench.do(bench.wiring.reap) == 0
        assert no_trace(bench)

    def test_what_is_disconnected_is_put_to_die_and_reaped(self, bench: Bench) -> None:
        connect(bench)
        for _ in range(2):
            disconnect(bench)
            assert groups(bench) == {NAME: DYING_GROUP}
            assert bench.routes(PODS_TABLE) == []
        assert bench.do(bench.wiring.reap) == 1
        assert bench.do(bench.wiring.reap) == 0
        assert no_trace(bench)

    def test_a_route_that_nobody_names_goes_with_its_link(self, bench: Bench) -> None:
        connect(bench)
        bench.do(bench.wiring.disconnect, NAME, ())
        assert bench.routes(PODS_TABLE) == []

    def test_the_reaper_takes_the_dying_and_leaves_the_living(self, bench: Bench) -> None:
        second = replace(WISH, sandbox=replace(SANDBOX, container_id="d" * 64), addresses=(OTHER,))
        name = connect(bench, second, pod=1).host_ifname
        connect(bench)
        disconnect(bench)
        assert bench.do(bench.wiring.reap) == 1
        assert groups(bench) == {name: 5122}
        assert bench.pod_addresses(1) == {"eth0": {str(OTHER)}}

    def test_a_strangers_link_stops_the_reaper(self, bench: Bench) -> None:
        connect(bench)
        disconnect(bench)
        bench.add_link("uplink")
        bench.set_group("uplink", DYING_GROUP)
        with pytest.raises(WireError, match=f"uplink in link group {DYING_GROUP} is not ours"):
            bench.do(bench.wiring.reap)
        assert groups(bench) == {NAME: DYING_GROUP}

    def test_a_strangers_alias_is_no_link_of_ours(self, bench: Bench) -> None:
        bench.add_link("uplink", "enid2 of something")
        assert groups(bench) == {}


class NodeContract:
    """What a `NodeNet` promises."""

    # Guards ----------------------------------------------------------------------------
    def test_the_guard_takes_over_when_a_pods_route_goes(self, bench: Bench) -> None:
        bench.do(bench.net.add_guards, [ip_network(POD)])
        connect(bench)
        assert sorted(bench.routes(PODS_TABLE)) == [ROUTE, GUARD]
        for _ in range(2):
            disconnect(bench)
            assert bench.routes(PODS_TABLE) == [GUARD]

    def test_the_guard_takes_over_when_a_veth_goes(self, bench: Bench) -> None:
        bench.do(bench.net.add_guards, [ip_network(POD)])
        connect(bench)
        bench.delete_link(NAME)
        assert bench.routes(PODS_TABLE) == [GUARD]
        assert bench.pod_addresses(0) == {}

    def test_guards_are_brought_to_exactly_what_is_held(self, bench: Bench) -> None:
        held = [ip_network(f"10.0.1.{n}") for n in range(20, 200)] + [ip_network("10.0.3.0/28")]
        guards, net = bench.net.guards, bench.net
        assert bench.do(guards, held) == (181, 0)
        assert bench.do(guards, held) == (0, 0)
        assert bench.do(guards, held[1:]) == (0, 1)
        assert bench.do(guards, held) == (1, 0)
        bench.do(net.remove_guards, [ip_network("10.9.9.9"), *held[2:]])
        bench.do(net.add_guards, held[:2])
        assert sorted(bench.routes(PODS_TABLE)) == [
            f"unreachable 10.0.1.{n} proto 151 metric {GUARD_METRIC}" for n in (20, 21)
        ]

    def test_guards_leave_the_routes_of_pods(self, bench: Bench) -> None:
        connect(bench)
        bench.do(bench.net.guards, [])
        bench.do(bench.net.remove_guards, [ip_network(POD)])
        assert bench.routes(PODS_TABLE) == [ROUTE]

    # Rules -----------------------------------------------------------------------------
    @staticmethod
    def _rules(*enis: EniLink) -> list[str]:
        marks = [
            f"1536:\tfrom all fwmark {e.number:#x}/0x7f lookup {e.number} proto 151" for e in enis
        ]
        own = [f"32765:\tfrom {e.address} lookup {e.number} proto 151" for e in enis]
        return [
            "512:\tfrom all lookup 5120 proto 151",
            "1024:\tfrom all fwmark 0x80/0x80 lookup main proto 151",
            *marks,
            *own,
        ]

    @pytest.mark.parametrize("prune", [True, False])
    def test_rules_are_said_again_without_effect(self, bench: Bench, *, prune: bool) -> None:
        for _ in range(2):
            bench.do(bench.net.set_rules, (PRIMARY, SECOND), prune=prune)
            assert sorted(bench.rules()) == sorted(self._rules(SECOND))

    def test_without_pruning_rules_only_come(self, bench: Bench) -> None:
        bench.do(bench.net.set_rules, (PRIMARY, SECOND))
        bench.do(bench.net.set_rules, (THIRD,), prune=False)
        assert sorted(bench.rules()) == sorted(self._rules(SECOND, THIRD))
        bench.do(bench.net.set_rules, (PRIMARY, THIRD))
        assert sorted(bench.rules()) == sorted(self._rules(THIRD))

    @pytest.mark.parametrize("network", ["10.9.0.0/16", "0.0.0.0/0"])
    def test_external_services_have_rules_that_come_and_go(
        self, bench: Bench, network: str
    ) -> None:
        routing = Routing(external=(IPv4Network(network),))
        to = "" if network == "0.0.0.0/0" else f" to {network}"
        external = f"1535:\tfrom all{to} lookup main proto 151"
        for _ in range(2):
            bench.do(bench.net.set_rules, (PRIMARY, SECOND), routing=routing)
            assert sorted(bench.rules()) == sorted([*self._rules(SECOND), external])
        bench.do(bench.net.set_rules, (PRIMARY, SECOND))
        assert sorted(bench.rules()) == sorted(self._rules(SECOND))

    def test_another_mark_has_other_rules(self, bench: Bench) -> None:
        bench.do(bench.net.set_rules, (PRIMARY, SECOND))
        bench.do(bench.net.set_rules, (PRIMARY, SECOND), routing=Routing(Marks(0x800000)))
        marks = [rule.split(" lookup")[0] for rule in bench.rules() if "fwmark" in rule]
        assert marks == [
            "1024:\tfrom all fwmark 0x800000/0x800000",
            "1536:\tfrom all fwmark 0x20000/0x7f0000",
        ]

    # ENIs ------------------------------------------------------------------------------
    def test_a_link_is_found_by_its_mac_when_it_comes_and_until_it_goes(self, bench: Bench) -> None:
        assert bench.do(bench.net.find_link, THIRD.mac) is None
        bench.plug(THIRD.mac)
        link = bench.do(bench.net.find_link, THIRD.mac)
        assert link is not None
        assert (link.mac, link.is_up, link.group) == (THIRD.mac, False, 0)
        bench.unplug(THIRD.mac)
        assert bench.do(bench.net.find_link, THIRD.mac) is None

    def test_an_eni_is_brought_to_its_desired_state_and_stays(self, bench: Bench) -> None:
        for _ in range(2):
            bench.do(bench.net.configure_eni, SECOND)
            link = bench.do(bench.net.find_link, SECOND.mac)
            assert link is not None
            assert (link.mtu, link.is_up, link.group) == (9001, True, 5250)
            assert sorted(bench.routes(2)) == sorted(
                [
                    f"default via 10.0.1.1 dev {link.name} proto 151 onlink",
                    f"10.0.1.1 dev {link.name} proto 151 scope link",
                ]
            )
            assert bench.do(bench.net.host_addresses)[SECOND.address] == link.name

    def test_of_the_primary_only_the_group_is_ours(self, bench: Bench) -> None:
        before = bench.do(bench.net.find_link, PRIMARY.mac)
        bench.do(bench.net.configure_eni, replace(PRIMARY, mtu=None))
        after = bench.do(bench.net.find_link, PRIMARY.mac)
        assert before is not None
        assert after == replace(before, group=5249)

    def test_the_primary_gets_the_mtu_that_somebody_asked_for(self, bench: Bench) -> None:
        before = bench.do(bench.net.find_link, PRIMARY.mac)
        bench.do(bench.net.configure_eni, replace(PRIMARY, mtu=1500))
        assert before is not None
        found = bench.do(bench.net.find_link, PRIMARY.mac)
        assert found == replace(before, group=5249, mtu=1500)

    def test_an_eni_whose_mtu_changes_keeps_all_else(self, bench: Bench) -> None:
        bench.do(bench.net.configure_eni, SECOND)
        before, routes = bench.do(bench.net.find_link, SECOND.mac), bench.routes(2)
        bench.do(bench.net.configure_eni, replace(SECOND, mtu=1500))
        assert before is not None
        assert bench.do(bench.net.find_link, SECOND.mac) == replace(before, mtu=1500)
        assert bench.routes(2) == routes

    def test_foreign_addresses_go_and_the_enis_own_stays(self, bench: Bench) -> None:
        bench.add_address(SECOND.mac, f"{POD}/24")
        assert POD in bench.do(bench.net.host_addresses)
        bench.do(bench.net.configure_eni, SECOND)
        addresses = {a for a in bench.do(bench.net.host_addresses) if a in NET}
        assert addresses == {PRIMARY.address, SECOND.address}

    def test_an_eni_that_takes_another_ones_number_takes_its_table(self, bench: Bench) -> None:
        bench.plug(THIRD.mac)
        bench.do(bench.net.configure_eni, SECOND)
        bench.do(bench.net.configure_eni, replace(THIRD, number=2))
        link = bench.do(bench.net.find_link, THIRD.mac)
        assert link is not None
        assert sorted(bench.routes(2)) == sorted(
            [
                f"default via 10.0.1.1 dev {link.name} proto 151 onlink",
                f"10.0.1.1 dev {link.name} proto 151 scope link",
            ]
        )

    def test_what_hung_on_a_link_goes_with_it_but_the_rules(self, bench: Bench) -> None:
        bench.plug(THIRD.mac)
        bench.do(bench.net.configure_eni, THIRD)
        bench.do(bench.net.set_rules, (PRIMARY, THIRD))
        bench.unplug(THIRD.mac)
        assert bench.routes(3) == []
        assert THIRD.address not in bench.do(bench.net.host_addresses)
        assert sorted(bench.rules()) == sorted(self._rules(THIRD))

    def test_an_eni_that_is_not_there_is_named(self, bench: Bench) -> None:
        with pytest.raises(NodeError, match=f"there is no link with MAC {THIRD.mac}"):
            bench.do(bench.net.configure_eni, THIRD)

    def test_what_the_kernel_refuses_is_said_in_our_words(self, bench: Bench) -> None:
        with pytest.raises(NodeError, match=r"the set-up of an ENI: .*Invalid argument"):
            bench.do(bench.net.configure_eni, replace(SECOND, mtu=20))

    # The rest --------------------------------------------------------------------------
    def test_a_fit_kernel_has_no_complaints(self, bench: Bench) -> None:
        assert bench.do(bench.net.missing_features) == ()
        assert bench.do(bench.net.missing_features, replace(nft.PROBED, mss_clamp=True)) == ()
        assert bench.do(bench.net.sysctl_complaints) == ()

    def test_a_sysctl_that_was_changed_is_named_where_it_was_asked_for(self, bench: Bench) -> None:
        bench.write_sysctl("net.ipv4.conf.all.rp_filter", "2")
        said = ("net.ipv4.conf.all.rp_filter is 2 and must be 0",)
        assert bench.do(bench.net.sysctl_complaints) == said
        assert bench.do(bench.net.sysctl_complaints, NEEDED_SYSCTLS) == ()
        bench.write_sysctl("net.ipv4.ip_forward", "0")
        said = ("net.ipv4.ip_forward is 0 and must be 1",)
        assert bench.do(bench.net.sysctl_complaints, NEEDED_SYSCTLS) == said

    def test_the_table_is_written_only_when_it_differs(self, bench: Bench) -> None:
        assert bench.do(bench.net.apply_nft, TABLE)
        assert not bench.do(bench.net.apply_nft, TABLE)
        other = nft.render(nft.NftWish(vpc_cidrs=(), node_primary=NET[4], eni_numbers=3))
        assert bench.do(bench.net.apply_nft, other)
        assert bench.do(bench.net.apply_nft, TABLE)

    def test_a_table_whose_chains_hang_elsewhere_is_replaced(self, bench: Bench) -> None:
        bench.do(bench.net.write_nft, FORMER_TABLE)
        assert bench.do(bench.net.apply_nft, TABLE)
        assert not bench.do(bench.net.apply_nft, TABLE)
        bench.do(bench.net.write_nft, FORMER_TABLE)  # a release that is taken back
        bench.do(bench.net.write_nft, TABLE)
        assert not bench.do(bench.net.apply_nft, TABLE)

    def test_flows_of_released_addresses_are_purged_and_others_stay(self, bench: Bench) -> None:
        purge = bench.net.purge_conntrack
        bench.do(bench.net.apply_nft, TABLE)  # conntrack runs where a rule asks for it
        connect(bench)
        bench.add_flow(POD)
        bench.add_flow(PRIMARY.address)
        assert [bench.do(purge, each) for each in _batches((OTHER,), (POD, OTHER), (POD,))] == [
            0,
            1,
            0,
        ]


def _batches(*batches: Sequence[Address]) -> tuple[Sequence[Address], ...]:
    return batches
