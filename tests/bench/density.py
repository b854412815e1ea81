"""The daemon alone, by the number of pods on its node: an ADD's time, memory, and its start.

Two nodes take turns: one fills up, the other stays empty. The times are from the plugin's connect
to the answer; the client is the bench's, so they are the daemon's and the kernel's.
"""

from __future__ import annotations

import random
import time

from tests.bench.comparison import Comparison
from tests.bench.report import Report
from tests.bench.stand import CONF, ROOT, Stand

PODS = (0, 110, 250, 737)
"""None; kubelet's default; what managed clusters set on large nodes; the most of an m5.24xlarge."""

PROBES, STARTS, STARTS_SECONDS = 60, 50, 240.0
"""A start takes a second where nothing else runs, and several on a busy machine."""

MENDS, LOOKS, PERIOD_SECONDS = 50, 50, 0.5
SLOWER = 3.0
"""How many times longer an ADD may take on a full node."""

RESIDENT_MB, WISHED_MB = 60.0, 50.0
START_SECONDS = 1.0


def measure(report: Report, full: Stand, empty: Stand) -> None:
    """Fill a node, and measure on the way."""
    for stand in (full, empty):
        stand.driver.ask("plugin", "ours", [str(ROOT / "build" / "enid-cni")], CONF)
        stand.driver.ask("probe", 5)
    _weigh(report, full, "idle")
    there = 0
    for pods in PODS:
        report.tell(f"the daemon with {pods} pods")
        full.driver.ask("wire", pods - there)
        there = pods
        _probe(report, full, empty, pods)
        if pods in {110, 737}:
            _weigh(report, full, f"at {pods} pods")
    report.tell("a burst on the full node")
    full.driver.ask("bursts", ["ours"], 3, 50)
    _weigh(report, full, "after a burst")
    _mends(report, full)
    _looks(report, full)
    _starts(report, full)


def _probe(report: Report, full: Stand, empty: Stand, pods: int) -> None:
    chance = random.Random(pods)
    found: dict[Stand, dict[str, list[float]]] = {s: {"add": [], "del": []} for s in (full, empty)}
    for _ in range(report.count(PROBES)):
        for stand in chance.sample((full, empty), 2):
            for what, values in stand.driver.ask("probe", 1).items():
                found[stand][what] += values
    for what in ("add", "del"):
        report.add(
            Comparison(
                f"daemon: {what.upper()} at {pods} pods", tuple(found[full][what]),
                tuple(found[empty][what]), than="on an empty node",
                least=1 / SLOWER if what == "add" else None,
            )
        )  # fmt: skip


def _weigh(report: Report, stand: Stand, when: str) -> None:
    sizes = stand.megabytes()
    report.add(
        Comparison(
            f"ipamd's memory {when}, RSS", (sizes["Rss"],), unit="MB", most=RESIDENT_MB,
            stretch=WISHED_MB, needs=1,
        )
    )  # fmt: skip
    report.add(Comparison(f"ipamd's memory {when}, PSS", (sizes["Pss"],), unit="MB"))


def _mends(report: Report, stand: Stand) -> None:
    report.tell("routes of pods are taken away, and come back")
    took = stand.driver.ask("mended", report.count(MENDS))
    report.add(Comparison(f"drift: a pod's route is back, {PODS[-1]} pods", tuple(took), most=1.0))


def _looks(report: Report, stand: Stand) -> None:
    """Weigh a look at everything; the daemon's own half minute between them is shortened."""
    report.tell(f"looks at {PODS[-1]} pods without drift")
    stand.kill()
    stand.start(f"import ipamd.reconcile as r; r.PERIOD_SECONDS = {PERIOD_SECONDS}\n")
    stand.wait(lambda _: True)
    time.sleep(3 * PERIOD_SECONDS)
    took, before = [], stand.cpu_seconds()
    for _ in range(report.count(LOOKS)):
        time.sleep(PERIOD_SECONDS)
        now = stand.cpu_seconds()
        took.append(now - before)
        before = now
    name = f"CPU of a reconcile period without drift, {PODS[-1]} pods"
    report.add(Comparison(name, tuple(took)))


def _starts(report: Report, stand: Stand) -> None:
    report.tell(f"{report.count(STARTS)} starts of the daemon with {PODS[-1]} pods in its journal")
    seconds = []
    for _ in report.rounds(STARTS, STARTS_SECONDS):
        stand.kill()
        seconds.append(stand.driver.ask("first", stand.start()))
    report.add(
        Comparison(
            f"start to the first ADD served, {PODS[-1]} pods", tuple(seconds), unit="s",
            most=START_SECONDS,
        )
    )  # fmt: skip
