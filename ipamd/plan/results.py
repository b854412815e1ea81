"""What a plan found, as values and as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EniView:
    """What one ENI holds, in addresses for pods; *cooling* ones are nobody's for a while."""

    device_index: int
    addresses: int
    prefixes: int
    assigned: int
    cooling: int = 0


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one node holds, by ENI."""

    enis: tuple[EniView, ...]

    @property
    def addresses(self) -> int:
        """Addresses for pods, whatever they do."""
        return sum(eni.addresses for eni in self.enis)

    @property
    def prefixes(self) -> int:
        """Prefixes."""
        return sum(eni.prefixes for eni in self.enis)

    @property
    def assigned(self) -> int:
        """Addresses that pods have."""
        return sum(eni.assigned for eni in self.enis)

    @property
    def free(self) -> int:
        """Addresses that a pod could get now."""
        return self.addresses - self.assigned - sum(eni.cooling for eni in self.enis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What a node holds for so many *pods*; *waiting* ones got no address."""

    instance_type: str
    pods: int
    node: NodeView
    waiting: int
    max_pods: int
    recommended_max_pods: int
    ec2_calls: Mapping[str, int]

    def as_data(self) -> dict[str, object]:
        """Return it for JSON."""
        node = self.node
        return {
            "instance_type": self.instance_type,
            "pods": self.pods,
            "enis": [
                {
                    "device_index": eni.device_index,
                    "addresses": eni.addresses,
                    "prefixes": eni.prefixes,
                    "assigned": eni.assigned,
                }
                for eni in node.enis
            ],
            "addresses": node.addresses,
            "prefixes": node.prefixes,
            "assigned": node.assigned,
            "free": node.free,
            "waiting": self.waiting,
            "max_pods": self.max_pods,
            "recommended_max_pods": self.recommended_max_pods,
            "ec2_calls": dict(sorted(self.ec2_calls.items())),
        }


# Waits -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Waits:
    """How long pods waited for an address, in seconds."""

    pods: int
    median: float
    p99: float
    longest: float

    def as_data(self) -> dict[str, float]:
        """Return it for JSON."""
        return {
            "pods": self.pods,
            "p50": round(self.median, 3),
            "p99": round(self.p99, 3),
            "max": round(self.longest, 3),
        }


def waits_of(seconds: Sequence[float]) -> Waits:
    """Return the waits of those who have waited."""
    inorder = sorted(seconds)
    return Waits(
        len(inorder), quantile(inorder, 0.5), quantile(inorder, 0.99), quantile(inorder, 1)
    )


def quantile(inorder: Sequence[float], part: float) -> float:
    """Return the value that *part* of *inorder* do not pass; 0 of nothing."""
    if not inorder:
        return 0.0
    return inorder[min(len(inorder) - 1, int(part * len(inorder)))]


# Over time ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sample:
    """A node, or all, at one moment."""

    at: float
    pods: int
    waiting: int
    addresses: int
    idle: int
    """Addresses that no pod has, cooling ones included: the subnet misses them all the same."""
    calls: int
    """EC2 calls so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a trace went with one policy."""

    policy: str
    samples: tuple[Sample, ...]
    waits: Waits
    unserved: int
    refused: int
    ec2_calls: Mapping[str, int]
    throttled: Mapping[str, int]
    marks: tuple[tuple[float, str], ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.samples[-1].at - self.samples[0].at

    @property
    def mean_idle(self) -> float:
        """Idle addresses on average over the time."""
        area = sum(
            one.idle * (two.at - one.at)
            for one, two in zip(self.samples, self.samples[1:], strict=False)
        )
        return area / self.seconds if self.seconds else float(self.samples[-1].idle)

    @property
    def most_idle(self) -> int:
        """The most idle addresses at any sample."""
        return max(sample.idle for sample in self.samples)

    def thinned(self, rows: int) -> tuple[Sample, ...]:
        """Return about so many samples, evenly spread in time, the last one included."""
        if len(self.samples) <= rows:
            return self.samples
        step = self.seconds / (rows - 1)
        kept, due = [], self.samples[0].at
        for sample in self.samples:
            if sample.at >= due or sample is self.samples[-1]:
                kept.append(sample)
                due += step
        return tuple(kept)

    def as_data(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "policy": self.policy,
            "seconds": round(self.seconds, 1),
            "peak_pods": max(sample.pods for sample in self.samples),
            "waits": self.waits.as_data(),
            "unserved": self.unserved,
            "refused": self.refused,
            "idle": {"mean": round(self.mean_idle, 2), "max": self.most_idle},
            "ec2_calls": dict(sorted(self.ec2_calls.items())),
            "throttled": dict(sorted(self.throttled.items())),
            "samples": [
                {
                    "at": round(s.at, 1),
                    "pods": s.pods,
                    "waiting": s.waiting,
                    "addresses": s.addresses,
                    "idle": s.idle,
                    "calls": s.calls,
                }
                for s in self.thinned(96)
            ],
        }


# A fleet -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ActionUse:
    """One action of EC2, against what the account may send of it."""

    action: str
    calls: int
    peak: int
    """The most within one second."""
    throttled: int
    rate: float | None
    burst: float | None


@dataclass(frozen=True, slots=True)
class SubnetUse:
    """What a subnet has left.

    *blocks* are whole /28s, *fragmentation* is the part of what is free that no prefix can have.
    """

    cidr: str
    size: int
    free: int
    blocks: int
    fragmentation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """How a fleet came up, or went through a trace. Times are from the first start."""

    policy: str
    nodes: int
    pods: int
    assigned: int
    ready_nodes: int
    nodes_ready_seconds: float | None
    """When the last node had its first pod's address; None if one never did."""
    pods_ready_seconds: float | None
    """When the last pod had its address; None if one has none."""
    waits: Waits
    refused: int
    addresses: int
    idle: int
    actions: tuple[ActionUse, ...]
    subnets: tuple[SubnetUse, ...]
    seconds: float
    samples: tuple[Sample, ...] = field(default=(), repr=False)

    def as_course(self) -> Course:
        """Return it as a course, all nodes together, without marks: they would be one bar."""
        return Course(
            policy=self.policy,
            samples=self.samples,
            waits=self.waits,
            unserved=self.pods - self.assigned,
            refused=self.refused,
            ec2_calls={use.action: use.calls for use in self.actions},
            throttled={use.action: use.throttled for use in self.actions if use.throttled},
        )

    @property
    def calls(self) -> int:
        """All EC2 calls."""
        return sum(action.calls for action in self.actions)

    @property
    def throttles(self) -> int:
        """All that EC2 refused as too many."""
        return sum(action.throttled for action in self.actions)

    def as_data(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "policy": self.policy,
            "nodes": self.nodes,
            "pods": self.pods,
            "assigned": self.assigned,
            "ready_nodes": self.ready_nodes,
            "nodes_ready_seconds": _rounded(self.nodes_ready_seconds),
            "pods_ready_seconds": _rounded(self.pods_ready_seconds),
            "waits": self.waits.as_data(),
            "refused": self.refused,
            "addresses": self.addresses,
            "idle": self.idle,
            "ec2_calls": {a.action: a.calls for a in self.actions},
            "actions": [
                {
                    "action": a.action,
                    "calls": a.calls,
                    "peak_per_second": a.peak,
                    "throttled": a.throttled,
                    "limit_per_second": a.rate,
                    "limit_burst": a.burst,
                }
                for a in self.actions
            ],
            "subnets": [
                {
                    "cidr": s.cidr,
                    "size": s.size,
                    "free": s.free,
                    "free_prefixes": s.blocks,
                    "fragmentation": round(s.fragmentation, 3),
                }
                for s in self.subnets
            ],
            "seconds": round(self.seconds, 1),
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
