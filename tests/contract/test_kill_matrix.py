"""Killed at every step: each way of an ENI and of its blocks, each EC2 call of it, each fault.

    make matrix        the whole of it, as a table
    make test          every 89th case

A case is a node that is brought to where a way of `tests.contract.kill_ways` begins, over the
embedded EC2 by real boto3. Then one call of the way is met by a fault: the daemon dies before
it is sent, after it was done, or while it waits; its answer is lost, or late; it is done late;
it is throttled; or what EC2 shows is from before. Or the daemon dies before or behind one of the
way's steps in the kernel. The next daemon has the journal, or has lost it. In the end journal,
kernel and EC2 must agree, and pods be served.
"""

from __future__ import annotations

import logging
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from pathlib import Path

import pytest

from eni.calls import Ec2Calls
from ipamd.journal import Journal
from tests.chaos.many import folder, spread
from tests.contract.embedded import QUESTIONS, SLOW_SECONDS, EmbeddedCloud, Fault, Region, region
from tests.contract.journal_watch import Watched, sites, watching
from tests.contract.kill_ways import WAYS, Way
from tests.contract.node_world import Node

SETTLE_SECONDS = 700.0
"""After which nothing is on its way: backoffs, two looks, two sweeps, and calm twice."""

SWEPT_SECONDS = 2 * 5400.0
"""After which two sweeps were: what a late answer hid from the first is found by the next."""

WALK_SECONDS, SLICE_SECONDS = 300.0, 1.0
"""How long a way may take until its last call, and how soon a fault is seen."""

EVERY = 89
"""Of so many cases one is always run."""


class Cut(StrEnum):
    """Where in the kernel's steps the daemon is killed."""

    BEFORE = "before a step"
    BEHIND = "behind a step"


COLUMNS: tuple[Fault | Cut, ...] = (*Fault, *Cut)


@dataclass(frozen=True)
class Case:
    """One call or step of a way, and what happens at it."""

    way: Way
    number: int
    fault: Fault | Cut
    keep_journal: bool

    def __str__(self) -> str:
        journal = "kept" if self.keep_journal else "lost"
        names = self.way.steps if isinstance(self.fault, Cut) else self.way.calls
        return f"{self.way.name}, {self.number} {names[self.number]}, {self.fault}, {journal}"

    @property
    def is_sampled(self) -> bool:
        """Whether it is one of those that are always run."""
        return zlib.crc32(str(self).encode()) % EVERY == 0

    def arm(self, node: Node) -> None:
        """Let it happen at the way's call or step, which begin now."""
        number = self.number + 1
        match self.fault:
            case Cut.BEFORE:
                node.kernel.crash_before = number
            case Cut.BEHIND:
                node.kernel.crash_after = number
            case Fault() as fault:
                node.ec2.faults[len(node.ec2.log) + self.number] = fault


def cases(way: Way) -> Iterator[Case]:
    """Yield every case of a way."""
    for number in range(way.since, len(way.calls)):
        is_question = way.calls[number] in QUESTIONS
        for fault in Fault:
            if not (is_question and fault.is_of_mutations):
                yield from (Case(way, number, fault, kept) for kept in (True, False))
    for number in range(len(way.steps)):
        for cut in Cut:
            yield from (Case(way, number, cut, kept) for kept in (True, False))


def steps_taken(node: Node) -> tuple[str, ...]:
    """Return the last steps in the kernel, by what they do: `ip`'s object and verb."""
    return tuple(_step(words.split()) for words in node.kernel.log)


def _step(words: list[str]) -> str:
    if words[0] == "nft":
        return "nft"
    if words[1] == "-n":
        return "pod set"
    if "unreachable," in words:
        return f"guard {words[2]}"
    return " ".join(words[1:3])


def walk(case: Case, node: Node) -> tuple[list[str], list[str]]:
    """Return what was lost and what was leaked in the end."""
    begun = begin(case.way, node)
    case.arm(node)
    case.way.walk(node)
    is_cut = isinstance(case.fault, Cut)
    for _ in range(int(WALK_SECONDS / SLICE_SECONDS)):
        if node.life is None if is_cut else len(node.ec2.log) > begun + case.number:
            break
        node.run(SLICE_SECONDS)
    demand_way(case, node, begun)
    if case.fault is Fault.KILLED_WAITING:
        node.run(SLOW_SECONDS)
    if node.life is not None and not case.keep_journal:
        node.kill()
    if node.life is None:
        node.restart(keep_journal=case.keep_journal)
    return judged(case.way, node, is_late=case.fault in {Fault.LATE, Fault.KILLED_LATE})


def begin(way: Way, node: Node) -> int:
    """Bring a node to where a way begins; return how many calls it has made."""
    node.boot_up()
    way.before(node)
    node.run(1)
    node.kernel.log.clear()
    return len(node.ec2.log)


def demand_way(case: Case, node: Node, begun: int) -> None:
    """Raise unless what has happened is the case's."""
    if isinstance(case.fault, Cut):
        number = case.number + (case.fault is Cut.BEHIND)
        wanted, met = case.way.steps[:number], steps_taken(node)
        assert node.life is None, f"not killed: {met}"
    else:
        number = case.number + 1
        wanted, met = case.way.calls[:number], tuple(node.ec2.log[begun : begun + number])
    assert met == wanted, f"another way: {met}"


def judged(way: Way, node: Node, *, is_late: bool = False) -> tuple[list[str], list[str]]:
    """Return what is lost and what is leaked once a node has come to rest.

    What EC2 did *late*, when nobody asked any more, the hourly look may be the first to find.
    """
    node.run(SETTLE_SECONDS)
    way.peace(node)
    lost, leaked = lost_in(way, node), list(node.leaked_things())
    if leaked or (lost and is_late):
        node.run(SWEPT_SECONDS)
        lost, leaked = lost_in(way, node), list(node.leaked_things())
    return lost, leaked


def lost_in(way: Way, node: Node) -> list[str]:
    """Return what pods could have and cannot."""
    return [*node.lost(), *way.wrong(node)]


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


def played(case: Case, region: Region, cloud: OneVpc) -> tuple[list[str], list[str]]:
    """Return what a case lost and leaked."""
    with folder() as path:
        node = Node(Path(path), region, settings=case.way.settings, cloud=cloud)
        try:
            return walk(case, node)
        finally:
            node.end()


SAMPLE = [case for way in WAYS for case in cases(way) if case.is_sampled]


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_nothing_is_lost_and_nothing_leaks(case: Case, aws: Region, cloud: OneVpc) -> None:
    assert played(case, aws, cloud) == ([], [])


# Without a fault -------------------------------------------------------------------------
@dataclass
class Walked:
    """What a way without a fault was."""

    calls: tuple[str, ...]
    steps: tuple[str, ...]
    watched: Watched
    unwritten: list[str]
    lost: list[str]
    leaked: list[str]


WRITTEN = {
    "create": "eni planned",
    "attach": "eni created",
    "detach": "eni draining",
    "unassign": "block releasing",
}
"""What the journal has, when EC2 hears of a call; what an Assign brings, EC2 tells."""


def is_unwritten(call: str, journal: Journal) -> bool:
    """Whether the journal does not know of a call that EC2 is about to hear."""
    enis = {f"eni {intent.state}" for intent in journal.intents()}
    blocks = {f"block {state}" for _, _, state in journal.blocks()}
    return call in WRITTEN and WRITTEN[call] not in enis | blocks


@dataclass
class Walks:
    """Every way without a fault, walked once."""

    region: Region
    cloud: OneVpc
    walked: dict[str, Walked] = field(default_factory=dict)

    def __call__(self, way: Way) -> Walked:
        """Walk a way, or remember how it was."""
        if way.name not in self.walked:
            self.walked[way.name] = self._walk(way)
        return self.walked[way.name]

    def _walk(self, way: Way) -> Walked:
        with folder() as path, watching() as watched:
            node = Node(Path(path), self.region, settings=way.settings, cloud=self.cloud)
            unwritten: list[str] = []

            def look(call: str) -> None:
                if is_unwritten(call, node.daemon.journal):
                    unwritten.append(call)

            node.ec2.on_calls.append(look)
            try:
                begun = begin(way, node)
                way.walk(node)
                node.run(WALK_SECONDS)
                calls, steps = tuple(node.ec2.log[begun:]), steps_taken(node)
                return Walked(calls, steps, watched, unwritten, *judged(way, node))
            finally:
                node.end()


@pytest.fixture(scope="module")
def walks(aws: Region, cloud: OneVpc) -> Walks:
    """Walk ways without a fault."""
    return Walks(aws, cloud)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_way_without_faults_is_these_calls_and_steps(way: Way, walks: Walks) -> None:
    walked = walks(way)
    assert walked.calls[: len(way.calls)] == way.calls, walked.calls
    assert walked.steps[: len(way.steps)] == way.steps, walked.steps
    assert (walked.lost, walked.leaked) == ([], [])


def test_ec2_hears_of_nothing_that_the_journal_does_not_know(walks: Walks) -> None:
    assert [(way.name, walks(way).unwritten) for way in WAYS if walks(way).unwritten] == []


def test_every_write_of_the_journal_is_on_a_way(walks: Walks) -> None:
    watched = [walks(way).watched for way in WAYS]
    missing = [str(site) for site in sites() if not any(each.has(site) for each in watched)]
    assert missing == [], "walk it: tests/contract/kill_ways.py"


def test_every_mutation_of_ec2_is_on_a_way() -> None:
    called = {call for way in WAYS for call in way.calls[way.since :]}
    methods = {name for name in vars(Ec2Calls) if not name.startswith("_")}
    assert methods - QUESTIONS <= called


CHANGES = frozenset({
    "eni: - > active",  # the primary, at each start
    "eni: - > planned",
    "eni: planned > created",
    "eni: planned > gone",  # EC2 makes none
    "eni: created > attached",
    "eni: created > gone",  # refused for good, deleted, another's, or undone
    "eni: - > attached",  # adopted
    "eni: attached > modified",
    "eni: modified > configured",
    "eni: modified > created",  # started over
    "eni: modified > gone",  # adopted, and taken away on its way
    "eni: configured > active",
    "eni: active > active",  # amended; and the primary once more
    "eni: active > draining",
    "eni: active > gone",  # disowned
    "eni: draining > active",  # kept
    "eni: draining > detached",
    "eni: draining > gone",
    "eni: detached > gone",
    "block: - > held",
    "block: held > held",  # what EC2 showed once more
    "block: held > releasing",
    "block: held > gone",  # with its ENI, or by other hands
    "block: releasing > held",  # refused, or not done
    "block: releasing > gone",
})  # fmt: skip
"""Every change that the journal knows; *detached* is draining, and off the instance."""


def test_every_change_in_the_journal_is_on_a_way(walks: Walks) -> None:
    changes = set(chain.from_iterable(walks(way).watched.changes for way in WAYS))
    assert changes == CHANGES


# The whole of it -------------------------------------------------------------------------
@dataclass
class Row:
    """How the cases of a way ended."""

    way: str
    cases: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    leaked: Counter[str] = field(default_factory=Counter)
    sentences: list[str] = field(default_factory=list)

    def note(self, case: Case, lost: list[str], leaked: list[str]) -> None:
        """Count a case."""
        self.cases[case.fault] += 1
        self.lost[case.fault] += bool(lost)
        self.leaked[case.fault] += bool(leaked)
        self.sentences += [f"{case}: {what}" for what in (*lost, *leaked)]

    def __str__(self) -> str:
        cells = (f"{self.cases[c]} {self.lost[c]}/{self.leaked[c]}" for c in COLUMNS)
        return line(self.way, cells)


def line(name: str, cells: Iterable[str]) -> str:
    """Return a line of the table."""
    return f"{name:20}" + "".join(f"{cell:>11}" for cell in cells)


def head() -> Iterator[str]:
    """Yield the two lines above the table, of which the second has each column's last words."""
    words = [("", column) if " " not in column else column.split(" ", 1) for column in COLUMNS]
    yield line("", (first for first, _ in words))
    yield line("cases lost/leaked", (rest for _, rest in words))


def row_of(number: int) -> Row:
    """Play every case of the way of that number."""
    logging.disable(logging.CRITICAL)  # faults are what it is about
    row = Row(WAYS[number].name)
    with region() as aws:
        cloud = OneVpc(aws)
        for case in cases(WAYS[number]):
            try:
                row.note(case, *played(case, aws, cloud))
            except AssertionError as error:
                row.note(case, [str(error)], [])
    return row


def main() -> int:
    """Play the whole matrix and print it, row by row as they come; return 1 if any is wrong."""
    longest_first = sorted(range(len(WAYS)), key=lambda n: -len([*cases(WAYS[n])]))
    total = Row("")
    say("\n".join(head()))
    for row in spread(row_of, longest_first, per_process=1):
        say(row)
        total.cases += row.cases
        total.lost += row.lost
        total.leaked += row.leaked
        total.sentences += row.sentences
    for sentence in total.sentences:
        say(sentence)
    say(f"{total.cases.total()} cases: {total.lost.total()} lost, {total.leaked.total()} leaked")
    return 1 if total.sentences else 0


def say(what: object) -> None:
    """Print a line, now."""
    print(what, flush=True)  # noqa: T201 - what a command prints is its answer


if __name__ == "__main__":
    sys.exit(main())
