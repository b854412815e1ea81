"""CHECK's comparison: each difference is one sentence, and what others added is none."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import Any

import pytest

from cni.check import differences, made
from cni.dataplane import GATEWAY_V4, GATEWAY_V6, HOST_MAC, Alias, host_ifname
from cni.kernel import HostEnd, PodEnd, Wire, Wish
from cni.spec import Attached, Interface, Previous, Sandbox

POD, POD6, NODE = IPv4Address("10.0.1.20"), IPv6Address("fd00::20"), IPv4Address("10.0.1.4")
WISH = Wish(Sandbox("enid", "c1", "eth0"), (POD, POD6), 2, "eni-1", "uid-1", 9001, NODE)
NAME, MAC, OTHER = host_ifname(WISH.sandbox), "0a:58:0a:00:01:14", "0a:00:00:00:00:09"
ALIAS = Alias(WISH.sandbox, "uid-1", WISH.addresses, "eni-1").text()
HOST = HostEnd(
    index=7, peer=2, mac=HOST_MAC, mtu=9001, is_up=True, group=5122, alias=ALIAS, rp_filter=1,
    routes={POD: NODE, POD6: None}, neighbours={POD: MAC, POD6: MAC},
)  # fmt: skip
POD_END = PodEnd(
    index=2, peer=7, mac=MAC, mtu=9001, is_up=True, lo_up=True,
    addresses=frozenset({POD, POD6}), gateways=frozenset({GATEWAY_V4, GATEWAY_V6}),
    neighbours={GATEWAY_V4: HOST_MAC, GATEWAY_V6: HOST_MAC},
)  # fmt: skip
PREVIOUS = Previous(
    (Interface(NAME, HOST_MAC, "", 9001), Interface("eth0", MAC, "/run/netns/x", 9001)),
    (ip_interface("10.0.1.20/32"), ip_interface("fd00::20/128")),
)


def found(host: Any = HOST, pod: Any = POD_END, previous: Previous = PREVIOUS) -> list[str]:
    return list(differences(WISH, Wire(host, pod), previous))


def test_a_wire_as_it_was_made_differs_in_nothing() -> None:
    assert found() == []


def test_what_others_add_is_no_difference() -> None:
    more = IPv4Address("192.0.2.1")
    pod = replace(POD_END, addresses=POD_END.addresses | {more}, gateways=POD_END.gateways | {more})
    host = replace(
        HOST, routes={**HOST.routes, more: None}, neighbours={**HOST.neighbours, more: MAC}
    )
    previous = Previous(
        (*PREVIOUS.interfaces, Interface("ifb0", OTHER, "", None)),
        (*PREVIOUS.addresses, ip_interface("192.0.2.1/24")),
    )
    assert found(host, pod, previous) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"alias": ""}, f"the alias of {NAME} is '', not {ALIAS!r}", id="alias"),
        pytest.param({"group": 0}, f"the group of {NAME} is 0, not 5122", id="group"),
        pytest.param({"rp_filter": 2}, f"rp_filter of {NAME} is 2, not 1", id="rp-filter"),
        pytest.param({"is_up": False}, f"{NAME} is down", id="down"),
        pytest.param({"routes": {POD: NODE}}, f"{POD6} has no route to {NAME} in table 5120", id="route"),
        pytest.param({"routes": {POD: None, POD6: None}}, f"the source of the route to {POD} is None, not {NODE}", id="source"),
        pytest.param({"neighbours": {POD: MAC}}, f"the neighbour {POD6} of {NAME} is None, not {MAC}", id="neighbour"),
        pytest.param({"peer": 3}, f"the pod's eth0 is not the other end of {NAME}", id="another-pair"),
        pytest.param({"mtu": 1500}, f"the MTU of {NAME} is 1500, and of the pod's eth0 9001", id="mtu"),
    ],
)  # fmt: skip
def test_the_nodes_end(change: dict[str, Any], sentence: str) -> None:
    assert sentence in found(host=replace(HOST, **change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"mac": OTHER}, f"the MAC of the pod's eth0 is {OTHER}, not {MAC}", id="mac"),
        pytest.param({"is_up": False}, "the pod's eth0 is down", id="down"),
        pytest.param({"lo_up": False}, "the pod's lo is down", id="lo"),
        pytest.param({"addresses": frozenset({POD})}, f"the pod's eth0 lacks the address {POD6}", id="address"),
        pytest.param({"gateways": frozenset({GATEWAY_V4})}, "the pod has no default route by fe80::1 on eth0", id="route"),
        pytest.param({"neighbours": {GATEWAY_V6: HOST_MAC}}, f"the neighbour 169.254.1.1 of the pod's eth0 is None, not {HOST_MAC}", id="neighbour"),
    ],
)  # fmt: skip
def test_the_pods_end(change: dict[str, Any], sentence: str) -> None:
    assert sentence in found(pod=replace(POD_END, **change))


@pytest.mark.parametrize(
    ("previous", "sentences"),
    [
        pytest.param(
            replace(PREVIOUS, addresses=(ip_interface("10.0.1.21/32"),)),
            [f"prevResult does not have {a}, which the attachment has" for a in (POD, POD6)],
            id="other-addresses",
        ),
        pytest.param(
            Previous((), PREVIOUS.addresses),
            [f"prevResult has no interface {NAME} of the node", "prevResult has no interface eth0 of the pod"],
            id="no-interfaces",
        ),
        pytest.param(
            replace(PREVIOUS, interfaces=(PREVIOUS.interfaces[0], Interface("eth0", OTHER, "/x", 1400))),
            [
                f"the MAC of the pod's eth0 is {MAC}, and prevResult says {OTHER}",
                "the MTU of the pod's eth0 is 9001, and prevResult says 1400",
            ],
            id="another-mac-and-mtu",
        ),
        pytest.param(
            replace(PREVIOUS, interfaces=(PREVIOUS.interfaces[0], Interface("eth0", "", "/x", None))),
            [],
            id="a-version-that-tells-less",
        ),
    ],
)  # fmt: skip
def test_what_the_runtime_remembers(previous: Previous, sentences: list[str]) -> None:
    assert found(previous=previous) == sentences


def test_ends_that_are_not_there_are_said_once() -> None:
    assert found(None, None) == [f"the node has no link {NAME}", "the pod has no interface eth0"]


def test_a_wire_whose_route_is_there_was_made_and_is_told_as_it_is() -> None:
    pod, host = replace(POD_END, mac=OTHER, mtu=1500), replace(HOST, alias="", rp_filter=2)
    addresses = (ip_interface("10.0.1.20/32"), ip_interface("fd00::20/128"))
    attached = Attached(NAME, HOST_MAC, OTHER, "eth0", "/run/netns/x", addresses, 1500)
    assert made(WISH, Wire(host, pod), "/run/netns/x") == attached


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(Wire(None, None), id="nothing"),
        pytest.param(Wire(None, POD_END), id="no-host-veth"),
        pytest.param(Wire(HOST, None), id="nothing-in-the-pod"),
        pytest.param(Wire(HOST, replace(POD_END, peer=8)), id="another-pair"),
        pytest.param(Wire(replace(HOST, routes={}), POD_END), id="no-route"),
        pytest.param(Wire(replace(HOST, routes={POD: NODE}), POD_END), id="one-route-of-two"),
    ],
)
def test_a_wire_that_lacks_its_end_or_the_way_to_it_was_not_made(wire: Wire) -> None:
    assert made(WISH, wire, "/run/netns/x") is None
