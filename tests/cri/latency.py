"""How long a sandbox takes with our plugin, and with `ptp` and `host-local` in its place. Shell.

    python -m vpclab.box python -m tests.cri.latency

For `make bench`: `latencies()` measures, and `obstacle()` says why that cannot be. A plugin is a
small part of a sandbox, most of which is containerd, runc and mounts; the rest is the same here.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cri.client import IMAGE, PodSpec
from tests.cri.stage import Machine, Stage
from vpclab import box
from vpclab.containerd import RELEASES, TOOLS, Release, poll
from vpclab.images import make_image
from vpclab.vpc import EmbeddedVPC

PTP = {
    "cniVersion": "1.0.0",
    "name": "theirs",
    "plugins": [
        {
            "type": "ptp",
            "mtu": 9001,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}
"""As their documentation has it."""

NEWEST = RELEASES[-1]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds that each RunPodSandbox and each StopPodSandbox took, and with what."""

    containerd: str
    """Its version, and which plugin ours was: the source or a file that `make plugin` built."""
    run_ours: tuple[float, ...]
    run_theirs: tuple[float, ...]
    stop_ours: tuple[float, ...]
    stop_theirs: tuple[float, ...]


def obstacle(release: Release = NEWEST) -> str:
    """Say why *release* cannot be measured here, nothing if it can."""
    return release.missing if box.in_box() else "needs a box: python -m vpclab.box"


def latencies(
    count: int = 50, *, release: Release = NEWEST, tell: Callable[[str], None] = lambda _: None
) -> Latencies:
    """Measure *count* sandboxes with each plugin, which take turns in random order.

    Two nodes of one VPC have a *release* of containerd each, and one plugin each: ours with its
    daemon, `ptp` with `host-local`. Nothing stands before either plugin. Each node runs, stops and
    removes one pod after another; a first pod of each is not counted. In a box only; see
    `obstacle`. *tell* hears how far it is.
    """
    with tempfile.TemporaryDirectory(prefix="enid-cri-") as folder, contextlib.ExitStack() as exits:
        make_image(Path(folder, "image.tar"), TOOLS / "busybox", IMAGE)
        vpc = exits.enter_context(EmbeddedVPC())
        stage = Stage.raised(vpc, release, Path(folder), exits)
        stage.a.uncover()
        stage.b.ipamd.kill()
        stage.b.put("00-theirs.conflist", json.dumps(PTP))
        poll(lambda: stage.b.loaded() == PTP, "ptp is loaded")
        machines = {"ours": stage.a, "theirs": stage.b}
        run: dict[str, list[float]] = {name: [] for name in machines}
        stop: dict[str, list[float]] = {name: [] for name in machines}
        for number in range(count + 1):
            for name in random.sample(sorted(machines), len(machines)):
                took = _one(machines[name], f"web-{number}")
                if number:
                    run[name].append(took[0])
                    stop[name].append(took[1])
            tell(f"sandboxes: {number} of {count}")
        return Latencies(
            stage.a.described,
            tuple(run["ours"]), tuple(run["theirs"]), tuple(stop["ours"]), tuple(stop["theirs"]),
        )  # fmt: skip


def _one(machine: Machine, name: str) -> tuple[float, float]:
    """Return how long a pod took to run and to stop."""
    began = time.perf_counter()
    pod = machine.run(PodSpec(name))
    ran = time.perf_counter()
    pod.stop()
    stopped = time.perf_counter()
    pod.remove()
    return ran - began, stopped - ran


def main() -> None:
    """Print the medians."""
    if why := obstacle():
        sys.exit(f"enid: {why}")
    found = latencies()
    lines = [found.containerd]
    for what, ours, theirs in (
        ("RunPodSandbox", found.run_ours, found.run_theirs),
        ("StopPodSandbox", found.stop_ours, found.stop_theirs),
    ):
        for name, values in (("ours", ours), ("ptp", theirs)):
            median, p90 = statistics.median(values), statistics.quantiles(values, n=10)[-1]
            lines.append(f"{what:14} {name:5} {median * 1e3:6.1f} ms, p90 {p90 * 1e3:6.1f} ms")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
