"""A pod's sandbox in a real containerd, with our plugin and with `ptp` in its place."""

from __future__ import annotations

from tests.bench.comparison import Comparison
from tests.bench.report import Report
from tests.cri.latency import latencies, obstacle
from vpclab.containerd import RELEASES

ROUNDS = 50


def measure(report: Report) -> None:
    """Run and stop pods, in turns, in the newest containerd that is there."""
    obstacles = {release: obstacle(release) for release in reversed(RELEASES)}
    there = [release for release, why in obstacles.items() if not why]
    if not there:
        report.skip(f"RunPodSandbox: {obstacles[RELEASES[-1]]}")
        return
    count = report.count(ROUNDS)
    report.tell(f"{count} sandboxes with each plugin in containerd {there[0].name}")
    found = latencies(count, release=there[0])
    for name, ours, theirs in (
        ("RunPodSandbox", found.run_ours, found.run_theirs),
        ("StopPodSandbox", found.stop_ours, found.stop_theirs),
    ):
        than = f"ptp, {found.containerd}"
        report.add(Comparison(name, ours, theirs, than=than))
