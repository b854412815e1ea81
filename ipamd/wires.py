"""What the settings make of wires, rules and nft tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from cni.dataplane import Marks, Routing
from cni.nft import NftWish
from ipamd.settings import ENI_MTU, Settings

RANDOMIZE: Mapping[str, Literal["fully-random", "random", ""]] = {
    "prng": "fully-random",
    "hashrandom": "random",
    "none": "",
}
"""The peer's words (AWS_VPC_K8S_CNI_RANDOMIZESNAT), and nft's."""


def networks(cidrs: Iterable[str]) -> tuple[IPv4Network, ...]:
    """Return the IPv4 networks among *cidrs*: pods send nothing to others."""
    return tuple(IPv4Network(cidr) for cidr in cidrs if ":" not in cidr)


def marks(settings: Settings) -> Marks:
    """Return our byte of packet and connection marks."""
    return Marks(int(settings.connmark, 0))


def routing(settings: Settings) -> Routing:
    """Return what the rules depend on."""
    return Routing(marks(settings), networks(settings.external_service_cidrs))


def eni_mtu(settings: Settings) -> int:
    """Return the MTU of an attached ENI; the primary's is touched only if a setting says so."""
    return settings.eni_mtu or ENI_MTU


def pod_mtu(settings: Settings) -> int:
    """Return the MTU of a pod that asks for none."""
    return settings.pod_mtu or eni_mtu(settings)


def nft_wish(
    settings: Settings,
    *,
    vpc_cidrs: Iterable[IPv4Network],
    node_primary: IPv4Address,
    eni_numbers: int,
) -> NftWish:
    """Return what the nft tables depend on."""
    return NftWish(
        vpc_cidrs=tuple(vpc_cidrs),
        node_primary=node_primary,
        eni_numbers=eni_numbers,
        excluded_cidrs=networks(settings.exclude_snat_cidrs),
        node_port_support=settings.node_port_support,
        external_snat=settings.external_snat,
        randomize=RANDOMIZE[settings.randomize_snat],
        marks=marks(settings),
        mss_clamp=settings.mss_clamp,
        block_metadata=settings.block_pod_metadata,
    )


def most(wish: NftWish) -> NftWish:
    """Return *wish* with all that settings can make tables need of the kernel."""
    return replace(wish, mss_clamp=True)


def is_demanding(settings: Settings) -> bool:
    """Whether tables of *settings* need more of the kernel than each node must have."""
    return settings.mss_clamp
