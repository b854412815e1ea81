"""docs/conformance.md: what upstream's tests of the network came to on the lab's cluster. Pure.

`make conformance` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conformance.results import Case, State, counts

PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"
WIDEST = 300
"""Of what a test said, this many characters."""

HEAD = """\
# What Kubernetes' own tests say

`make conformance` builds Kubernetes' end-to-end tests from the same source as the cluster, starts the cluster of
[cluster.md](cluster.md) with a node in each of three zones and enid installed by its chart, and runs the tests of the
network, `[sig-network]`: those that a cluster has to pass to be called Kubernetes (`[Conformance]`), then the others, then those that may not
run beside others. It takes root and Go; what is built, some 20 minutes, is built once. This page is of a run of {minutes} minutes.
"""

IMAGES: Mapping[str, str] = {
    "agnhost": "upstream's own program, built from source, with Debian's dig, curl, nc, ip, ss and iperf",
    "busybox": "Debian's busybox",
    "distroless-iptables": "Debian's iptables and conntrack",
    "jessie-dnsutils": "Debian 13's libc and dig, for Debian 8's",
    "nginx": "Debian's nginx",
    "pause": "agnhost's `pause`",
    "regression-issue-74839": "upstream's own program, built from source",
}
"""What stands for each image of upstream's registry."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the run was made on."""

    versions: Mapping[str, str]
    images: Mapping[str, Sequence[str]]
    """By what is in each, the names that upstream gives it."""

    minutes: int
    first: Sequence[Case] = ()
    """Of tests that were run again, what they had come to in the whole run."""


def lines(found: Sequence[Case], facts: Facts) -> Iterator[str]:
    """Yield the page."""
    yield HEAD.format(minutes=facts.minutes)
    yield from _counted(found)
    yield from _told("Failed", [case for case in found if case.state is State.FAILED])
    yield from _told("Not run", [case for case in found if case.state is State.LOST])
    yield from _told("Run again, and what they had said in the whole run", facts.first)
    yield from _kept_away(found)
    yield from _made_of(facts)
    yield from _passed(found)


def _counted(found: Sequence[Case]) -> Iterator[str]:
    yield "| tests | " + " | ".join(State) + " |"
    yield "| --- |" + " --- |" * len(State)
    for name, chosen in (
        ("`[Conformance]`", [case for case in found if case.is_conformance]),
        ("others", [case for case in found if not case.is_conformance]),
    ):
        numbers = counts(chosen)
        yield f"| {name} | " + " | ".join(str(numbers[state]) for state in State) + " |"
    yield ""
    yield (
        "*skipped*: the test looked at the cluster and found nothing to do, in its own words below."
        " *left out*: not started, for the reason below."
    )


def _told(title: str, chosen: Sequence[Case]) -> Iterator[str]:
    if not chosen:
        return
    yield from ("", f"## {title}", "", "| test | it said |", "| --- | --- |")
    for case in chosen:
        yield f"| {_cell(case.name)} | {_cell(case.said)} |"


def _kept_away(found: Sequence[Case]) -> Iterator[str]:
    yield from ("", "## Skipped and left out")
    for state in (State.LEFT_OUT, State.SKIPPED):
        chosen = [case for case in found if case.state is state]
        for reason in sorted({case.said for case in chosen}):
            names = [case.name for case in chosen if case.said == reason]
            yield from ("", f"{state}, {len(names)}: {_cell(reason)}", "")
            yield from (f"- {_cell(name)}" for name in names)


def _made_of(facts: Facts) -> Iterator[str]:
    yield from ("", "## What it ran on", "", "| part | version |", "| --- | --- |")
    yield from (f"| {name} | {version} |" for name, version in facts.versions.items())
    yield from ("", "| image of upstream's | here |", "| --- | --- |")
    for short, what in IMAGES.items():
        names = "<br>".join(f"`{name}`" for name in facts.images.get(short, ()))
        yield f"| {names} | {what} |"


def _passed(found: Iterable[Case]) -> Iterator[str]:
    yield from ("", "## Passed", "", "| test | seconds |", "| --- | --- |")
    for case in found:
        if case.state is State.PASSED:
            yield f"| {_cell(case.name)} | {case.seconds:.0f} |"


def _cell(text: str) -> str:
    """Return text as a table can have it."""
    flat = " ".join(text.split())
    short = flat if len(flat) <= WIDEST else f"{flat[:WIDEST]}..."
    return short.replace("|", r"\|").replace("<", "&lt;")
