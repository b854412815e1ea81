"""Who is answered on the metrics port."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from ipamd.audience import audience, is_node
from ipamd.layers import read_settings

POD, OTHER = IPv4Address("10.0.1.20"), IPv4Address("192.0.2.1")


@pytest.mark.parametrize(
    ("environ", "answered"),
    [
        pytest.param({}, {POD, OTHER}, id="everybody"),
        pytest.param({"ENID_METRICS_CIDRS": "10.0.0.0/8"}, {POD}, id="one-network"),
        pytest.param({"ENID_METRICS_CIDRS": "10.0.0.0/8, 192.0.2.1"}, {POD, OTHER}, id="two"),
        pytest.param({"ENID_METRICS_CIDRS": "fd00::/8"}, set(), id="ipv6-alone-is-not-everybody"),
        pytest.param({"DISABLE_METRICS": "true"}, set(), id="turned-off"),
        pytest.param(
            {"DISABLE_METRICS": "true", "ENID_METRICS_CIDRS": "10.0.0.0/8"}, set(), id="both"
        ),
    ],
)
def test_the_network_is_answered_as_settings_say(
    environ: dict[str, str], answered: set[IPv4Address]
) -> None:
    who = audience(read_settings(environ))
    assert {peer for peer in (POD, OTHER) if who.admits(peer)} == answered


@pytest.mark.parametrize(
    ("peer", "own", "expected"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", True, id="loopback"),
        pytest.param("10.0.1.4", "10.0.1.4", True, id="kubelet-at-the-nodes-address"),
        pytest.param("10.0.1.20", "10.0.1.4", False, id="a-pod"),
    ],
)
def test_the_node_asks_from_the_address_that_it_asks(
    peer: str, own: str, *, expected: bool
) -> None:
    assert is_node(IPv4Address(peer), IPv4Address(own)) is expected


def test_pods_are_named_if_somebody_asks_for_it() -> None:
    assert not audience(read_settings({})).pods
    assert audience(read_settings({"ENID_METRICS_POD_NAMES": "true"})).pods
