"""The demo's books: what is claimed, what held, and the whole as data. Pure.

One table, `CLAIMS`, names every proof in the order in which it is shown. A proof is settled
once; what was never settled has failed, so that a demo that stumbles cannot look whole.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

CLAIMS: Mapping[str, str] = {
    "pods-tcp": "every pod connects to every pod, and is seen with its own address",
    "pods-ping": "every pod pings every pod, and is seen with its own address",
    "nodes": "pods and nodes reach each other, own node and other, without NAT",
    "internet": "pods reach the internet as their node's public address",
    "big-ping": "a ping of 8,973 bytes goes through in one piece, one of 8,974 is refused",
    "own-eni": "secondary ENIs carry pods, whose packets leave by their own ENI",
    "forged-pod": "what a pod sends with a neighbour's address ends at its own veth",
    "forged-node": "what leaves by an ENI with a foreign address ends at the VPC's source check",
    "foreign-marks": "mark bits of others come through untouched",
    "books": "EC2 and both daemons agree on every ENI and every address",
    "rights": "the daemon holds CAP_NET_ADMIN and nothing else",
    "freed": "a freed address is unreachable, cools, and goes to no other pod",
    "kill-traffic": "ipamd is killed with -9 and comes back: no packet is lost",
    "kill-leases": "no lease is lost or changed by that, and what cooled still cools",
    "kill-adds": "both ADDs that waited meanwhile get an address that works",
    "kill-eni": "the ENI that was being attached is adopted, and is the only new one",
    "no-drops": "the VPC has dropped no packet that was not forged on purpose",
    "no-leaks": "after the nodes are gone no ENI is left, and EC2 and the packets agree",
}
"""Every proof by its stable name, with the sentence that a person reads."""


@dataclass(frozen=True, slots=True)
class Proof:
    """One claim, settled."""

    name: str
    ok: bool
    detail: str

    @property
    def claim(self) -> str:
        """What was to be proved."""
        return CLAIMS[self.name]


class Ledger:
    """Proofs as they are settled."""

    def __init__(self) -> None:
        self._settled: dict[str, Proof] = {}

    def settle(self, name: str, detail: str, *, ok: bool) -> Proof:
        """Write down how the claim *name* came out. Raises KeyError for an unknown claim.

        The first word counts: a scene that breaks afterwards does not undo what was shown.
        """
        assert name in CLAIMS, name  # noqa: S101 - a proof without a claim is a slip of ours
        return self._settled.setdefault(name, Proof(name, ok, detail))

    def fail_rest(self, names: Iterable[str], why: str) -> None:
        """Let those of *names* that are open fail."""
        for name in names:
            self.settle(name, why, ok=False)

    def holds(self, name: str) -> bool:
        """Whether *name* was settled well."""
        return name in self._settled and self._settled[name].ok

    def close(self) -> tuple[Proof, ...]:
        """Return every proof in its order; those still open have failed."""
        self.fail_rest(CLAIMS, "the demo did not get that far")
        return tuple(self._settled[name] for name in CLAIMS)


# Sentences -----------------------------------------------------------------------------
def verdict(proofs: Sequence[Proof]) -> str:
    """Return in one sentence how it came out."""
    failed = [p for p in proofs if not p.ok]
    if not failed:
        return f"All {len(proofs)} proofs hold."
    if len(failed) == 1:
        return f"The proof {failed[0].name} failed: {failed[0].detail}."
    names = ", ".join(p.name for p in failed)
    return f"{len(failed)} of {len(proofs)} proofs failed: {names}."


def caught(name: str, expected: Collection[str], proofs: Sequence[Proof]) -> tuple[bool, str]:
    """Return whether the sabotage *name* was noticed, and a sentence that says by whom."""
    failed = [p.name for p in proofs if not p.ok]
    if not failed:
        return False, f"Nothing noticed the sabotage {name}: a proof is missing."
    missed = [e for e in expected if e not in failed]
    if missed:
        return False, (
            f"The sabotage {name} should have been caught by {listed(missed)};"
            f" only {listed(failed)} failed."
        )
    first = [*(e for e in failed if e in expected), *(f for f in failed if f not in expected)]
    verb = "was caught by the proof" if len(first) == 1 else "was caught by the proofs"
    return True, f"The sabotage {name} {verb} {listed(first)}."


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence has them."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"


# Numbers -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Latency:
    """What execs of one verb took, in milliseconds."""

    count: int
    median: float
    p90: float
    max: float

    @staticmethod
    def of(milliseconds: Sequence[float]) -> Latency:
        """Return the summary of at least one measurement."""
        ordered = sorted(milliseconds)
        p90 = ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))]
        return Latency(len(ordered), statistics.median(ordered), p90, ordered[-1])

    def as_data(self) -> dict[str, float]:
        """Return it for JSON."""
        return {
            "count": self.count,
            "median": round(self.median, 1),
            "p90": round(self.p90, 1),
            "max": round(self.max, 1),
        }


# The whole -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One pod."""

    namespace: str
    name: str
    node: str
    address: str
    eni_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EniView:
    """One ENI of a node, in numbers of addresses."""

    id: str
    number: int
    assigned: int
    cooling: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node."""

    name: str
    instance_id: str
    instance_type: str
    zone: str
    subnet: str
    primary: str
    public: str
    enis: tuple[EniView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that the demo has found.

    *connectivity* is by kind, from, to: what was seen, "ok" for what should be.
    """

    seconds: float
    vpc: str
    internet: str
    proofs: tuple[Proof, ...]
    nodes: tuple[NodeView, ...]
    pods: tuple[PodView, ...]
    connectivity: Mapping[str, Mapping[str, Mapping[str, str]]]
    ec2_calls: Mapping[str, int]
    milliseconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every proof holds."""
        return all(p.ok for p in self.proofs)

    def as_data(self) -> dict[str, Any]:
        """Return what `-o json` prints."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "proofs": [{"name": p.name, "ok": p.ok, "detail": p.detail} for p in self.proofs],
            "nodes": [asdict(node) for node in self.nodes],
            "pods": [asdict(pod) for pod in self.pods],
            "connectivity": self.connectivity,
            "ec2_calls": dict(sorted(self.ec2_calls.items())),
            "latency_ms": {
                v: Latency.of(ms).as_data() for v, ms in self.milliseconds.items() if ms
            },
            "drops": dict(self.drops),
        }
