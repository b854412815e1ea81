"""The AWS VPC CNI's arithmetic: how much it thinks is missing, and how much too much. Pure.

From its documentation (docs/eni-and-ip-target.md, docs/prefix-and-ip-target.md of
aws/amazon-vpc-cni-k8s) and what its source was seen to compute. What it counts as available
includes addresses that cool: it can hold itself for well supplied while no pod gets one.
"""

from __future__ import annotations

from dataclasses import dataclass

from eni.model import PREFIX_SIZE, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTargets:
    """Its settings; 0 of an IP target is "not set"."""

    kind: Kind = Kind.SINGLE
    warm_eni: int = 1
    warm_ip: int = 0
    minimum_ip: int = 0
    warm_prefix: int = 0
    max_eni: int | None = None
    max_pods: int

    @property
    def by_address(self) -> bool:
        """Whether one of the IP targets rules."""
        return bool(self.warm_ip or self.minimum_ip)


@dataclass(frozen=True, slots=True)
class Tally:
    """What it counts of a node; *free_prefixes* are those without any pod."""

    total: int
    assigned: int
    prefixes: int
    free_prefixes: int
    per_eni: int
    """Slots of an ENI for pods."""

    @property
    def available(self) -> int:
        """Whatever no pod has, cooling addresses included."""
        return self.total - self.assigned


def wish(tally: Tally, targets: PeerTargets) -> int:
    """Return how many blocks it would like more, 0 if it is not low."""
    if tally.total >= targets.max_pods:
        return 0
    if targets.by_address:
        short = max(targets.warm_ip - tally.available, targets.minimum_ip - tally.total, 0)
        return short if targets.kind is Kind.SINGLE else -(-short // PREFIX_SIZE)
    if targets.kind is Kind.PREFIX:
        is_low = tally.available < max(1, targets.warm_prefix * PREFIX_SIZE)
        return max(1, targets.warm_prefix - tally.free_prefixes) if is_low else 0
    is_low = tally.available < max(1, targets.warm_eni * tally.per_eni)
    return tally.per_eni if is_low else 0


def surplus(tally: Tally, targets: PeerTargets) -> int:
    """Return how many blocks it would give back, those of whole ENIs aside."""
    by_prefix = targets.kind is Kind.PREFIX
    if not targets.by_address:
        return max(0, tally.free_prefixes - targets.warm_prefix) if by_prefix else 0
    if not by_prefix:
        over = min(tally.available - targets.warm_ip, tally.total - targets.minimum_ip)
        return max(0, over)
    warm = -(-(tally.assigned + targets.warm_ip) // PREFIX_SIZE)
    least = -(-targets.minimum_ip // PREFIX_SIZE)
    return max(0, min(tally.free_prefixes, tally.prefixes - warm, tally.prefixes - least))


def may_free_eni(tally: Tally, targets: PeerTargets) -> bool:
    """Return whether it would look for an ENI to free."""
    if targets.by_address:
        return True
    if targets.kind is Kind.PREFIX:
        each = tally.per_eni * PREFIX_SIZE
        return tally.available >= (targets.warm_prefix + 1) * each or tally.free_prefixes > 0
    return tally.available >= (targets.warm_eni + 1) * tally.per_eni
