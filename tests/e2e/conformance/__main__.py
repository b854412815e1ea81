"""Upstream's own tests of the network, on the lab's cluster; writes docs/conformance.md. Shell.

    python -m vpclab.box python -m tests.e2e.conformance [--focus REGEX] [--only RUN] [--again FOLDER]

What `make conformance` runs. With a focus, the tests of these names only, and the page stays as it
is; with the folder of an earlier run's logs, too, the page is of both, and says what was run again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from tests.e2e.conformance import images, results
from tests.e2e.conformance.page import PAGE, Facts, lines
from tests.e2e.conformance.results import ALONE, AREA, CONFORMANCE, RULES, Case, State
from tests.e2e.lab import keeping_logs, lab_cluster
from vpclab import box
from vpclab.cluster.parts import kubectl, missing, parts, programs
from vpclab.cluster.whole import Cluster

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC

ZONES = tuple(
    (f"10.0.{number}.0/24", f"us-east-1{letter}") for number, letter in enumerate("abc", 1)
)
"""A node in each of three zones: with fewer, more of the tests have nothing to look at."""

SIDE_BY_SIDE = 6
"""Tests at a time: mostly they wait for kubelets."""

LOOK_SECONDS = 15.0
WHOLE_MINUTES = 90

MINUTES = "minutes"
"""The file that has how long a run took."""

RESOLVER = "8.8.8.8", 53
"""Whom a test connects to, to know that a pod reaches the internet."""

AREA_PATTERN, CONFORMANCE_PATTERN = re.escape(AREA), re.escape(CONFORMANCE)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the tests: those that it takes, by their names."""

    name: str
    focus: str
    skip: str
    at_a_time: int


LEFT_OUT = "|".join(rule.pattern for rule in RULES)

RUNS = (
    Run("conformance", f"{AREA_PATTERN}.*{CONFORMANCE_PATTERN}", ALONE, SIDE_BY_SIDE),
    Run("others", AREA_PATTERN, f"{CONFORMANCE_PATTERN}|{ALONE}|{LEFT_OUT}", SIDE_BY_SIDE),
    Run("one at a time", f"{AREA_PATTERN}.*({ALONE})", LEFT_OUT, 1),
)


def command(run: Run, kubeconfig: Path, folder: Path) -> list[str]:
    """Return how the tests are started, as upstream's hack/ginkgo-e2e.sh does."""
    program, tool = programs() / "e2e.test", kubectl()
    ours = [
        f"--kubeconfig={kubeconfig}",
        "--provider=skeleton",
        f"--num-nodes={len(ZONES)}",  # who does not say so has none, to tests that count them
        f"--report-dir={folder}",
        "--disable-log-dump",
        f"--kubectl-path={tool or 'kubectl'}",
        "--node-os-distro=debian",
    ]
    return [
        str(programs() / "ginkgo"), "run", "--no-color", "-v",
        # Intercepting output has hung a process after its last test.
        f"--procs={run.at_a_time}", "--output-interceptor-mode=none",
        f"--timeout={WHOLE_MINUTES}m",
        f"--focus={run.focus}", f"--skip={run.skip}",
        str(program), "--", *ours,
    ]  # fmt: skip


def carry_out(run: Run, cluster: Cluster, folder: Path) -> list[Case]:
    """Run the tests; tell of their number meanwhile. Return what came of them."""
    place, log = folder / run.name.replace(" ", "-"), folder / f"{run.name.replace(' ', '-')}.log"
    place.mkdir()
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(run, cluster.kubeconfig, place), stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, cwd=place, env={**os.environ, "HOME": str(place)},
        )  # fmt: skip
    while True:
        try:
            process.wait(LOOK_SECONDS)
            break
        except subprocess.TimeoutExpired:
            tell(run.name, began, log)
    tell(run.name, began, log)
    reports = sorted(place.glob("junit_*.xml"))
    if not reports:
        sys.exit(f"enid: {run.name}: the tests left no report; they said:\n{end_of(log)}")
    return [case for report in reports for case in read(report)]


def read(report: Path) -> Iterator[Case]:
    """Return what a report has of the area's tests."""
    return results.cases(ET.parse(report).getroot())  # noqa: S314 - our own run's


def tell(name: str, began: float, log: Path) -> None:
    """Say how many tests are over."""
    over = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("• [")]
    bad = sum("[FAILED]" in line for line in over)
    seconds = time.monotonic() - began
    print(f"enid: {seconds:5.0f} s  {name}: {len(over)} are over, {bad} of them failed", flush=True)


def end_of(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def table(found: Sequence[Case]) -> Iterator[str]:
    """Yield what a person sees at the end."""
    for name, chosen in (
        ("conformance", [case for case in found if case.is_conformance]),
        ("others", [case for case in found if not case.is_conformance]),
    ):
        yield f"{name:12} {results.sentence(chosen)}"
    for case in found:
        if case.state in {State.FAILED, State.LOST}:
            yield f"{case.state:12} {case.name}"
    for reason, number in results.reasons(found).items():
        yield f"{number:4} {reason}"


@contextlib.contextmanager
def somebody_outside(vpc: EmbeddedVPC) -> Iterator[None]:
    """Have the lab's host on the internet be the one that the tests know there."""
    vpc.internet.run(["ip", "address", "add", f"{RESOLVER[0]}/32", "dev", "lo"])
    with contextlib.closing(vpc.internet.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
        sock.bind(RESOLVER)
        sock.listen()
        yield


def runs(focus: str | None, only: Sequence[str]) -> list[Run]:
    """Return the runs: all, unless some are named, or tests by a focus."""
    named = [run for run in RUNS if run.name in only or not (only or focus)]
    own = Run("focus", focus or "", "nothing-has-this-name", SIDE_BY_SIDE)
    return [own, *named] if focus else named


def carry_out_all(chosen: Sequence[Run], folder: Path) -> list[list[Case]]:
    """Raise the cluster, carry out the runs; the last line of all is how long that took."""
    from vpclab.vpc import EmbeddedVPC  # noqa: PLC0415 - moto takes a second to import

    began = time.monotonic()

    def said(what: str) -> None:
        print(f"enid: {time.monotonic() - began:5.1f} s  {what}", flush=True)

    said(f"making images; logs will be in {folder}")
    archives = images.make(folder)
    with (
        EmbeddedVPC() as vpc,
        keeping_logs(vpc, folder),
        somebody_outside(vpc),
        lab_cluster(vpc, folder, said, zones=ZONES, images=archives) as cluster,
    ):
        said("the cluster is up")
        reports = [carry_out(run, cluster, folder) for run in chosen]
    for archive in archives:
        archive.unlink()
    (folder / MINUTES).write_text(f"{(time.monotonic() - began) / 60:.0f}")
    return reports


def write_page(whole: Path, reports: Sequence[Sequence[Case]], found: Sequence[Case]) -> None:
    """Write the page of a *whole* run's reports, of which *found* came, some of them later."""
    latest = {case.name: case for case in found}
    first = [case for case in results.merged(reports, RULES) if case != latest[case.name]]
    versions = {part.name: part.version for part in parts()}
    facts = Facts(versions, images.asked(), int((whole / MINUTES).read_text()), first)
    PAGE.write_text("\n".join(lines(found, facts)) + "\n")


def main() -> None:
    """Run the tests, print what they came to, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--focus", help="the tests of these names only; the page stays as it is")
    parser.add_argument("--only", nargs="+", default=[], choices=[run.name for run in RUNS])
    parser.add_argument("--again", type=Path, help="the folder of the whole run that they were of")
    chosen = parser.parse_args()
    if why := missing() or images.missing():
        sys.exit(f"enid: no upstream tests: {why}")
    if not box.in_box():
        sys.exit("enid: upstream's tests run in a box: make conformance")
    folder = Path(tempfile.mkdtemp(prefix="conformance-", dir="/var/tmp"))
    reports = carry_out_all(runs(chosen.focus, chosen.only), folder)
    whole = chosen.again or (None if chosen.focus or chosen.only else folder)
    if whole is None:
        found = [case for case in results.merged(reports, ()) if case.state is not State.LOST]
    else:
        before = [list(read(report)) for report in sorted(whole.glob("*/junit_*.xml"))]
        found = results.merged([*before, *reports], RULES)
        write_page(whole, before, found)
    print("\n".join(table(found)))
    sys.exit(any(case.state in {State.FAILED, State.LOST} for case in found))


main()
