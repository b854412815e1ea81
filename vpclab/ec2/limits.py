"""What an instance type takes: ENIs a card, addresses an ENI. Shell: it reads moto's table."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from vpclab.ec2.errors import error
from vpclab.ec2.model import Eni


def key_of(card: int, device_index: int) -> int:
    """Return where moto keeps an ENI: it knows of device indices only, and reads 0 itself."""
    return card << 8 | device_index


def card_of(key: int) -> int:
    """Return the card of such a key."""
    return key >> 8


def check_slots(eni: Eni, instance: Any, more: int = 0, *, prefixes: bool = False) -> None:
    """Raise unless an ENI with *more* slots taken fits the type, in both families."""
    _check_prefixes(instance.instance_type, wanted=bool(prefixes or eni.prefixes))
    if len(eni.addresses) + len(eni.prefixes) + more > addresses_of(instance.instance_type):
        raise error(
            "PrivateIpAddressLimitExceeded",
            f"{eni.id}: Number of private addresses will exceed limit.",
        )
    check_slots6(eni, instance)


def check_slots6(eni: Eni, instance: Any, more: int = 0, *, prefixes: bool = False) -> None:
    """Raise unless an ENI with *more* IPv6 slots taken fits the type."""
    _check_prefixes(instance.instance_type, wanted=bool(prefixes or eni.prefixes6))
    if len(eni.addresses6) + len(eni.prefixes6) + more > addresses_of(instance.instance_type, 6):
        raise error(
            "Ipv6AddressLimitExceeded", f"{eni.id}: Number of IPv6 addresses will exceed limit."
        )


def _check_prefixes(kind: str, *, wanted: bool) -> None:
    if wanted and not takes_prefixes(kind):
        raise error(
            "InvalidParameterValue", f"Prefixes are not supported on {kind}: it is no Nitro"
        )


def _network_info(instance_type: str) -> Any:
    return INSTANCE_TYPES[instance_type]["NetworkInfo"]


def cards_of(instance_type: str) -> dict[int, int]:
    """Return how many ENIs each card of a type takes, by the card's index."""
    network = _network_info(instance_type)
    cards = network.get("NetworkCards", [])
    listed = {c["NetworkCardIndex"]: int(c["MaximumNetworkInterfaces"]) for c in cards}
    return listed or {0: int(network["MaximumNetworkInterfaces"])}


def addresses_of(instance_type: str, version: int = 4) -> int:
    """Return how many slots of a family one ENI of a type has, IPv4's primary included."""
    return int(_network_info(instance_type)[f"Ipv{version}AddressesPerInterface"])


def takes_prefixes(instance_type: str) -> bool:
    """Return whether a type takes delegated prefixes: Nitro and bare metal do (user guide)."""
    known = INSTANCE_TYPES[instance_type]
    return bool(known.get("Hypervisor") == "nitro" or known.get("BareMetal"))
