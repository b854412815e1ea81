"""What settings make of rules, nft tables and wires."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from cni.dataplane import Marks
from cni.nft import NftWish, features
from ipamd import wires
from ipamd.layers import read_settings
from ipamd.settings import Settings

VPC = IPv4Network("10.0.0.0/16")
NODE = VPC[4]


def wish(**environ: str) -> NftWish:
    return wires.nft_wish(read_settings(environ), vpc_cidrs=[VPC], node_primary=NODE, eni_numbers=3)


@pytest.mark.parametrize(
    ("environ", "change"),
    [
        pytest.param({}, {}, id="nothing-set"),
        pytest.param({"AWS_VPC_K8S_CNI_EXTERNALSNAT": "true"}, {"external_snat": True}, id="external-snat"),
        pytest.param({"AWS_VPC_CNI_NODE_PORT_SUPPORT": "false"}, {"node_port_support": False}, id="no-node-ports"),
        pytest.param({"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "hashrandom"}, {"randomize": "random"}, id="hashrandom"),
        pytest.param({"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "none"}, {"randomize": ""}, id="ports-as-they-are"),
        pytest.param(
            {"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "192.168.0.0/16,fd00::/8"},
            {"excluded_cidrs": (IPv4Network("192.168.0.0/16"),)}, id="excluded-and-ipv6-left-out",
        ),
        pytest.param({"AWS_VPC_K8S_CNI_CONNMARK": "0x8000"}, {"marks": Marks(0x8000)}, id="another-byte"),
        pytest.param({"ENID_MSS_CLAMP": "true"}, {"mss_clamp": True}, id="clamp"),
        pytest.param({"ENID_BLOCK_POD_METADATA": "true"}, {"block_metadata": True}, id="metadata"),
    ],
)  # fmt: skip
def test_a_setting_of_the_tables(environ: dict[str, str], change: dict[str, Any]) -> None:
    plain = NftWish(vpc_cidrs=(VPC,), node_primary=NODE, eni_numbers=3)
    assert wish(**environ) == replace(plain, **change)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_VPC_K8S_CNI_EXTERNALSNAT": "true"},
        {"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "hashrandom"},
        {"ENID_BLOCK_POD_METADATA": "true"},
        {"ENID_MSS_CLAMP": "true"},
    ],
    ids=lambda environ: "".join(environ) or "nothing-set",
)
def test_what_a_setting_needs_of_the_kernel_is_in_the_most(environ: dict[str, str]) -> None:
    needs, most = features(wish(**environ)), features(wires.most(wish()))
    assert needs.items() <= most.items()
    assert wires.is_demanding(read_settings(environ)) == (needs != features(wish()))


def test_rules_depend_on_marks_and_external_services() -> None:
    routing = wires.routing(
        Settings(connmark="0x800000", external_service_cidrs=("10.9.0.0/16", "fd00::/8"))
    )
    assert routing.marks.mask == 0xFF0000
    assert routing.external == (IPv4Network("10.9.0.0/16"),)
    assert wires.routing(Settings()).marks == Marks(0x80)


@pytest.mark.parametrize(
    ("settings", "eni", "pod"),
    [
        pytest.param(Settings(), 9001, 9001, id="nothing-set"),
        pytest.param(Settings(eni_mtu=1500), 1500, 1500, id="pods-follow-enis"),
        pytest.param(Settings(pod_mtu=1400), 9001, 1400, id="pods-alone"),
        pytest.param(Settings(eni_mtu=1500, pod_mtu=1400), 1500, 1400, id="both"),
    ],
)
def test_mtus(settings: Settings, eni: int, pod: int) -> None:
    assert (wires.eni_mtu(settings), wires.pod_mtu(settings)) == (eni, pod)


def test_the_nodes_address_is_what_marked_connections_get() -> None:
    assert wish().node_primary == IPv4Address("10.0.0.4")
