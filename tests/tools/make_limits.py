"""Write eni/limits.json from the instance types that moto ships. Shell.

    python -m tests.tools.make_limits

moto's table is a recent DescribeInstanceTypes of all regions. One type per
line, so that a diff shows what a new moto knows: [ENIs on the default network
card, IPv4 per ENI, IPv6 per ENI].
"""

from __future__ import annotations

import json
from pathlib import Path

from moto.ec2.models.instance_types import INSTANCE_TYPES

TARGET = Path(__file__).parents[2] / "eni" / "limits.json"


def row(network: dict[str, object]) -> list[object]:
    """Return one type's numbers from its NetworkInfo."""
    default = network["DefaultNetworkCardIndex"]
    cards = network["NetworkCards"]
    assert isinstance(cards, list)
    (enis,) = (
        card["MaximumNetworkInterfaces"] for card in cards if card["NetworkCardIndex"] == default
    )
    return [enis, network["Ipv4AddressesPerInterface"], network["Ipv6AddressesPerInterface"]]


def main() -> None:
    """Write the table."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(row(kind['NetworkInfo']))}"
        for name, kind in sorted(INSTANCE_TYPES.items())
    )
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
