"""Whole plugin processes, as a runtime runs them, beside Go's `ptp` with `host-local`.

Theirs is what Debian's containernetworking-plugins has: a veth pair and routes by `ptp`, an address
by `host-local`, whose files are on the same kind of file system as our leases. It makes no rule, no
policy and no SNAT; so it does less than ours does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison
from tests.bench.report import Report
from tests.bench.stand import CONF, ROOT, Stand

PTP = Path("/usr/lib/cni/ptp")
PTP_CONF: Mapping[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "type": "ptp",
    "mtu": 9001,
    "ipam": {
        "type": "host-local",
        "subnet": "10.88.0.0/16",
        "dataDir": "/run/cni-bench",
        "routes": [{"dst": "0.0.0.0/0"}],
    },
}

ROUNDS = 60
REST_SECONDS = 12.0
"""After the last DEL, until the daemon has nothing left to do for it, with a margin: the flows of
released addresses are purged together."""

BURSTS, AT_ONCE = 50, 50

ADD = {"": (1.15, 1.25), "-core": (1.5, 1.7)}
"""How many times faster an ADD is by each build, and the stretch."""

DEL = 4.0
AT_ONCE_SHARE = {"": 0.65, "-core": 0.55}

BUILDS = {"": "public API", "-core": "core only"}


def measure(report: Report, stand: Stand) -> None:
    """Measure ADD and DEL, one at a time and many at once."""
    names = _plugins(stand)
    _one_by_one(report, stand, names)
    _at_once(report, stand, names)


def _plugins(stand: Stand) -> list[str]:
    """Name the plugins to the driver; *theirs* is last."""
    for suffix in BUILDS:
        file = ROOT / "build" / f"enid-cni{suffix}"
        stand.driver.ask("plugin", f"ours{suffix}", [str(file)], CONF)
    stand.driver.ask("plugin", "theirs", [str(PTP)], PTP_CONF)
    return [*(f"ours{suffix}" for suffix in BUILDS), "theirs"]


def _one_by_one(report: Report, stand: Stand, names: list[str]) -> None:
    count = report.count(ROUNDS)
    report.tell(f"{count} rounds of ADD and DEL, one plugin at a time")
    stand.driver.ask("rounds", names, 3)  # files into memory, and the daemon's first time
    before = stand.cpu_seconds()
    found = stand.driver.ask("rounds", names, count)
    time.sleep(REST_SECONDS)
    share = (stand.cpu_seconds() - before) / (count * len(BUILDS))
    theirs = found["theirs"]
    for suffix, build in BUILDS.items():
        ours = found[f"ours{suffix}"]
        ours["cpu"] = [seconds + share for seconds in ours["cpu"]]
        gates: dict[str, tuple[str, dict[str, Any]]] = {
            "add": ("ADD", {"least": ADD[suffix][0], "stretch": ADD[suffix][1]}),
            "del": ("DEL answered", {"least": DEL}),
            "gone": ("DEL, until the veth is gone", {"least": 1.0}),
            "cpu": ("CPU of ADD and DEL, daemon too", {"least": 1.0}),
        }
        for what, (name, gate) in gates.items():
            report.add(
                Comparison(
                    f"{name}, {build}", tuple(ours[what]), tuple(theirs[what]), than="ptp", **gate
                )
            )
    report.add(Comparison("  of it the daemon, all it did by the number of pods", (share,)))


def _at_once(report: Report, stand: Stand, names: list[str]) -> None:
    bursts = report.count(BURSTS)
    report.tell(f"{bursts} bursts of {AT_ONCE} plugins at once")
    found = stand.driver.ask("bursts", names, bursts, AT_ONCE)
    theirs = found["theirs"]
    for suffix, build in BUILDS.items():
        ours = found[f"ours{suffix}"]
        report.add(
            Comparison(
                f"{AT_ONCE} ADDs at once, all done, {build}", tuple(ours["all"]),
                tuple(theirs["all"]), than="ptp", least=1 / AT_ONCE_SHARE[suffix],
            )
        )  # fmt: skip
        report.add(
            Comparison(
                f"{AT_ONCE} ADDs at once, each, {build}", tuple(ours["each"]),
                tuple(theirs["each"]), than="ptp",
            )
        )  # fmt: skip
        report.add(
            Comparison(
                f"{AT_ONCE} DELs at once, all answered, {build}", tuple(ours["dels"]),
                tuple(theirs["dels"]), than="ptp",
            )
        )  # fmt: skip
