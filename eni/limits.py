"""How many ENIs and addresses an instance type takes. Pure.

The shipped table saves a call at every start and lets a node work without
EC2; where EC2 has answered DescribeInstanceTypes, its answer wins.
tests/tools/make_limits.py writes the table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLimits:
    """What one instance takes.

    *enis* counts the default network card only, the primary ENI included: a
    p5.48xlarge takes 64 on 32 cards but 2 on card 0, and attaching without a
    card index means card 0. The counts per ENI include its primary address.
    """

    instance_type: str
    enis: int
    ipv4_per_eni: int
    ipv6_per_eni: int


def shipped(instance_type: str) -> InstanceLimits | None:
    """Return the shipped limits; None for a type younger than the table."""
    table: dict[str, tuple[int, int, int]] = json.loads(
        files("eni").joinpath("limits.json").read_bytes()
    )
    if (row := table.get(instance_type)) is None:
        return None
    enis, ipv4, ipv6 = row
    return InstanceLimits(
        instance_type=instance_type, enis=enis, ipv4_per_eni=ipv4, ipv6_per_eni=ipv6
    )
