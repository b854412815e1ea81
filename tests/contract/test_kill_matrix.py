"""Killed at every step: each way of an ENI and of its blocks, each EC2 call of it, each fault.

    make matrix        the whole of it, as a table
    make test          every seventh case

A case is a node that is brought to where the way begins, over the embedded EC2 by real boto3;
then one call of the way is met by a fault: the daemon dies before it is sent or after it was
done, its answer is lost, it is throttled, or what EC2 shows is from before. The next daemon has
the journal, or has lost it. In the end journal, kernel and EC2 must agree, and pods be served.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipamd.intents import INSTANCE_TAG
from ipamd.settings import Settings
from tests.contract.embedded import EmbeddedCloud, Fault, Region, region
from tests.contract.node_world import WARM, Node, by_address

SETTLE_SECONDS = 700.0
"""After which nothing is on its way: backoffs, two looks, two sweeps, and calm twice."""

SWEPT_SECONDS = 2 * 5400.0
"""After which two sweeps were: what a late answer hid from the first is found by the next."""

WALK_SECONDS, SLICE_SECONDS = 300.0, 1.0
"""How long a way may take until its last call, and how soon a fault is seen."""

EVERY = 7
"""Of so many cases one is always run."""

SWEEP = ("available", "attached", "available", "eni", "delete")
"""The two looks of a sweep, and what follows."""


def nothing(_node: Node) -> None:
    """Begin with a node that rests."""


def an_eni_by_hand(node: Node) -> None:
    """Let somebody attach an ENI, which a restarted daemon finds."""
    node.kill()
    made = node.ec2.create(SecondaryPrivateIpAddressCount=3)
    node.ec2.attach(made)


def a_second_eni(node: Node) -> None:
    """Grow to two ENIs, of which pods need one from now on."""
    node.adds(1)
    node.run(30)
    assert len(node.attached()) == 2


def many_singles(node: Node) -> None:
    """Hold more than is wanted from now on."""
    node.adds(5)
    node.run(30)
    assert node.shape() == [7]


def a_leak(node: Node) -> None:
    """Let there be an ENI that a daemon made and forgot, and a daemon that knows nothing of it."""
    node.kill()
    mine = {"Key": INSTANCE_TAG, "Value": node.ec2.identity.instance_id}
    node.ec2.create(
        Description=f"aws-K8S-{node.ec2.identity.instance_id}",
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": [mine]}],
    )


def restart(node: Node) -> None:
    """Start the daemon."""
    node.start()


def one_pod(node: Node) -> None:
    """Let a pod come."""
    node.adds(1)


def all_pods_go(node: Node) -> None:
    """Let every pod go."""
    node.deletes()


@dataclass(frozen=True)
class Way:
    """A way that is walked: from *before*, which is brought about without a fault, by *walk*."""

    name: str
    settings: Settings
    walk: Callable[[Node], None]
    calls: tuple[str, ...]
    before: Callable[[Node], None] = nothing


PREFIXES = Settings(prefix_delegation=True, demand=False, warm_prefix_target=1)

START = ("attached", "limits", "subnets")
"""What every life begins with: the sweep's first look comes behind it."""

WAYS = (
    Way(
        "planned..active",
        WARM,
        one_pod,
        ("create", "attach", "delete_on_termination"),
    ),
    Way(
        "first start",
        by_address(warm=3),
        restart,
        (*START, "available", "assign"),
        before=Node.kill_and_forget,
    ),
    Way(
        "adopted",
        by_address(warm=2),
        restart,
        ("attached", "tag", "delete_on_termination", "limits", "eni", "subnets", "available"),
        before=an_eni_by_hand,
    ),
    Way("assign single", by_address(warm=2), one_pod, ("assign",)),
    Way("assign prefix", PREFIXES, one_pod, ("assign",)),
    Way("unassign", by_address(warm=2), all_pods_go, ("unassign",), before=many_singles),
    Way("removed", WARM, all_pods_go, ("eni", "detach", "delete"), before=a_second_eni),
    Way("swept", by_address(warm=2), restart, (*START, *SWEEP), before=a_leak),
)


@dataclass(frozen=True)
class Case:
    """One call of a way, and what happens to it."""

    way: Way
    number: int
    fault: Fault
    keep_journal: bool

    def __str__(self) -> str:
        journal = "kept" if self.keep_journal else "lost"
        call = f"{self.number} {self.way.calls[self.number]}"
        return f"{self.way.name}, {call}, {self.fault}, journal {journal}"

    @property
    def is_sampled(self) -> bool:
        """Whether it is one of those that are always run."""
        return zlib.crc32(str(self).encode()) % EVERY == 0


def cases() -> Iterator[Case]:
    """Yield every case there is."""
    for way in WAYS:
        for number in range(len(way.calls)):
            for fault in Fault:
                yield from (Case(way, number, fault, kept) for kept in (True, False))


def walk(case: Case, node: Node) -> tuple[list[str], list[str]]:
    """Return what was lost and what was leaked in the end."""
    node.boot_up()
    case.way.before(node)
    node.run(1)
    begun = len(node.ec2.log)
    node.ec2.faults[begun + case.number] = case.fault
    case.way.walk(node)
    for _ in range(int(WALK_SECONDS / SLICE_SECONDS)):
        if len(node.ec2.log) > begun + case.number:
            break
        node.run(SLICE_SECONDS)
    met = tuple(node.ec2.log[begun : begun + case.number + 1])
    assert met == case.way.calls[: case.number + 1], f"another way: {met}"
    if node.life is not None and not case.keep_journal:
        node.kill()
    if node.life is None:
        node.restart(keep_journal=case.keep_journal)
    node.run(SETTLE_SECONDS)
    if list(node.leaked_things()):
        node.run(SWEPT_SECONDS)
    return list(node.lost()), list(node.leaked_things())


@pytest.fixture(scope="module")
def cloud(aws: Region) -> OneVpc:
    """A maker of clouds."""
    return OneVpc(aws)


class OneVpc:
    """Makes clouds of one VPC: making a VPC takes longer than many a case."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._cloud: EmbeddedCloud | None = None

    def __call__(self, clock: Callable[[], float]) -> EmbeddedCloud:
        """Return the cloud with a new node."""
        if self._cloud is None:
            self._cloud = EmbeddedCloud(self._region, clock)
        else:
            self._cloud.begin_anew(clock)
        return self._cloud


def judged(case: Case, region: Region, cloud: OneVpc) -> tuple[list[str], list[str]]:
    """Return what a case lost and leaked."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder), region, settings=case.way.settings, cloud=cloud)
        try:
            return walk(case, node)
        finally:
            node.end()


@pytest.mark.parametrize("case", [c for c in cases() if c.is_sampled], ids=str)
def test_nothing_is_lost_and_nothing_leaks(case: Case, aws: Region, cloud: OneVpc) -> None:
    assert judged(case, aws, cloud) == ([], [])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_way_without_faults_is_these_calls(way: Way, aws: Region, cloud: OneVpc) -> None:
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder), aws, settings=way.settings, cloud=cloud)
        try:
            node.boot_up()
            way.before(node)
            node.run(1)
            begun = len(node.ec2.log)
            way.walk(node)
            node.run(WALK_SECONDS)
            assert tuple(node.ec2.log[begun:][: len(way.calls)]) == way.calls, node.ec2.log[begun:]
        finally:
            node.end()


def main() -> int:
    """Run the whole matrix and print it; return 1 if anything was lost or leaked."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    sentences = []
    logging.disable(logging.CRITICAL)  # faults are what it is about
    with region() as aws:
        cloud = OneVpc(aws)
        for case in cases():
            lost, leaked = judged(case, aws, cloud)
            row = counts[case.way.name, case.fault]
            row.update(cases=1, lost=bool(lost), leaked=bool(leaked))
            sentences += [f"{case}: {what}" for what in (*lost, *leaked)]
    print(table(counts), *sentences, sep="\n")  # noqa: T201 - what a command prints is its answer
    return 1 if sentences else 0


def table(counts: Mapping[tuple[str, str], Counter[str]]) -> str:
    """Return the matrix: ways down, faults across; in each cell cases, lost, leaked."""
    head = f"{'cases lost/leaked':18}" + "".join(f"{fault:>16}" for fault in Fault)
    rows = [head]
    for way in WAYS:
        cells = (counts[way.name, fault] for fault in Fault)
        shown = (f"{c['cases']} {c['lost']}/{c['leaked']}" for c in cells)
        rows.append(f"{way.name:18}" + "".join(f"{cell:>16}" for cell in shown))
    total: Counter[str] = sum(counts.values(), Counter())
    rows.append(f"{total['cases']} cases: {total['lost']} lost, {total['leaked']} leaked")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
