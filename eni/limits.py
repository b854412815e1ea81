"""How many ENIs and addresses an instance type takes, and how many pods that makes. Pure.

The shipped table saves a call at every start and lets a node work without
EC2; where EC2 has answered DescribeInstanceTypes, its answer wins.
tests/tools/make_limits.py writes the table.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from eni.model import PREFIX_SIZE

NITRO: Final = "nitro"

HOST_PODS: Final = 2
"""Pods that every EKS node has on its own address: kube-proxy and the CNI's own."""

MANY_VCPUS: Final = 30
FEW_VCPUS_CAP: Final = 110
MANY_VCPUS_CAP: Final = 250
"""What EKS recommends at most (max-pods-calculator): 110 pods up to 30 vCPUs, 250 above."""

TABLE: Final = Path(__file__).with_name("limits.json")
"""Found without importlib.resources, whose own imports take longer than reading it."""

Row = tuple[int, int, int, list[tuple[int, int]], str, bool, int]
"""A line of the table; its fields are those of InstanceLimits, after the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLimits:
    """What one instance takes.

    *enis* counts the default network card only, the primary ENI included: a
    p5.48xlarge takes 64 on 32 cards but 2 on card 0, and attaching without a
    card index means card 0. *cards* has every card's index and its ENIs. The
    counts per ENI include its primary address. *hypervisor* is EC2's word:
    nitro, xen, or "" on bare metal.
    """

    instance_type: str
    enis: int
    ipv4_per_eni: int
    ipv6_per_eni: int
    cards: tuple[tuple[int, int], ...]
    hypervisor: str
    bare_metal: bool
    vcpus: int

    @property
    def prefixes_allowed(self) -> bool:
        """Whether its ENIs take prefixes: those of Nitro and bare metal do."""
        return self.hypervisor == NITRO or self.bare_metal


def shipped(instance_type: str) -> InstanceLimits | None:
    """Return the shipped limits; None for a type younger than the table."""
    if (row := _table().get(instance_type)) is None:
        return None
    enis, ipv4, ipv6, cards, hypervisor, bare_metal, vcpus = row
    return InstanceLimits(
        instance_type=instance_type,
        enis=enis,
        ipv4_per_eni=ipv4,
        ipv6_per_eni=ipv6,
        cards=tuple((index, most) for index, most in cards),
        hypervisor=hypervisor,
        bare_metal=bare_metal,
        vcpus=vcpus,
    )


def noted(limits: InstanceLimits) -> dict[str, object]:
    """Return *limits* as JSON can keep them, for a start without EC2."""
    return asdict(limits)


def from_note(note: object) -> InstanceLimits | None:
    """Return what `noted` was given; None for anything else."""
    if not isinstance(note, dict):
        return None
    try:
        cards = tuple((int(index), int(most)) for index, most in note["cards"])
        return InstanceLimits(**{**note, "cards": cards})
    except (KeyError, TypeError, ValueError):
        return None


def near_misses(name: str) -> tuple[str, ...]:
    """Return the types of the table that are written most like *name*, the nearest first."""
    return tuple(get_close_matches(name.lower(), _table()))


def _table() -> dict[str, Row]:
    """Return the table; read anew, 2 ms, since who asks at all asks once or twice."""
    table: dict[str, Row] = json.loads(TABLE.read_bytes())
    return table


def max_pods(limits: InstanceLimits, *, prefixes: bool, custom_networking: bool) -> tuple[int, int]:
    """Return how many pods the ENIs hold by the formula of EKS, and the cap that EKS recommends.

    kubelet's max-pods is the lower of the two. *prefixes* counts where the type allows them;
    under *custom_networking* no pod is on the primary ENI.
    """
    enis = limits.enis - 1 if custom_networking else limits.enis
    each = PREFIX_SIZE if prefixes and limits.prefixes_allowed else 1
    formula = enis * (limits.ipv4_per_eni - 1) * each + HOST_PODS
    return formula, MANY_VCPUS_CAP if limits.vcpus > MANY_VCPUS else FEW_VCPUS_CAP
