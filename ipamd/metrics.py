"""Metrics, as Prometheus reads them. Shell.

Counters and histograms are noted where things happen; gauges are read from a snapshot of
the loop's state when somebody scrapes. `docs/metrics.md` is made from this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cni.spec import CniError, Verb
from ipamd.status import MODES, Status

REGISTRY = CollectorRegistry(auto_describe=True)
"""Ours alone, so that a page shows what this file names and nothing else."""

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 110)
"""Buckets from a wire (1 ms) to the plugin's deadline (110 s)."""

requests = Histogram(
    "enid_request_seconds",
    "From the frame's arrival to the answer, by verb and result.",
    ("verb", "result"),
    buckets=SECONDS,
    registry=REGISTRY,
)
leases_rebuilt = Counter(
    "enid_leases_rebuilt", "Leases rebuilt from a host veth's alias.", registry=REGISTRY
)
leases_dropped = Counter(
    "enid_leases_dropped", "Leases whose wire was gone on two looks.", registry=REGISTRY
)
flows_purged = Counter(
    "enid_flows_purged", "Conntrack entries of released addresses deleted.", registry=REGISTRY
)

COUNTERS: Mapping[str, str] = {
    "enid_ec2_calls": "EC2 calls, by action.",
    "enid_ec2_errors": "EC2 calls that failed, by action and id.",
}
"""Counters read from a snapshot."""

GAUGES: Mapping[str, str] = {
    "enid_addresses": "Addresses held, by ENI and state (assigned, cooling, free, leaving, taken).",
    "enid_enis": "ENIs that carry pods.",
    "enid_enis_max": "ENIs this node may have, the primary included.",
    "enid_waiting": "ADDs that wait for an address.",
    "enid_mode": "1 for each mode the daemon is in (normal, no-journal, ec2-away).",
}
"""Gauges read from a snapshot."""


def observe(verb: Verb, answer: object, seconds: float) -> None:
    """Note one answered request; *answer* is the error if it is one."""
    result = f"code-{answer.code:d}" if isinstance(answer, CniError) else "ok"
    requests.labels(verb.value, result).observe(seconds)


class Snapshot(Collector):
    """The gauges, from what `read` returns: the object that `enid status` shows."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of `GAUGES` and `COUNTERS`."""
        status = self._status
        gauge = {
            name: GaugeMetricFamily(name, text, labels=_labels(name))
            for name, text in GAUGES.items()
        }
        for eni in status["enis"]:
            for state in ("assigned", "cooling", "free", "leaving", "taken"):
                gauge["enid_addresses"].add_metric([eni["id"], state], eni[state])
        gauge["enid_enis"].add_metric([], len(status["enis"]))
        gauge["enid_enis_max"].add_metric([], status["max_enis"])
        gauge["enid_waiting"].add_metric([], status["waiting"])
        for mode in MODES:
            gauge["enid_mode"].add_metric([mode], float(mode == status["mode"]))
        yield from gauge.values()
        calls = CounterMetricFamily("enid_ec2_calls", COUNTERS["enid_ec2_calls"], labels=["action"])
        for action, number in status["ec2_calls"].items():
            calls.add_metric([action], number)
        yield calls
        labels = ["action", "id"]
        failed = CounterMetricFamily("enid_ec2_errors", COUNTERS["enid_ec2_errors"], labels=labels)
        for error in status["ec2_errors"]:
            failed.add_metric([error["action"], error["id"]], error["count"])
        yield failed


def _labels(name: str) -> list[str]:
    return {"enid_addresses": ["eni", "state"], "enid_mode": ["mode"]}.get(name, [])


def render_metrics() -> Iterator[str]:
    """Yield the lines of `docs/metrics.md`."""
    yield "# Metrics"
    yield ""
    yield "Served on `:61678/metrics`. This page is made from `ipamd/metrics.py` by"
    yield "`python -m tests.tools.references`."
    yield ""
    yield "| name | type | labels | meaning |"
    yield "| --- | --- | --- | --- |"
    for metric in (requests, leases_rebuilt, leases_dropped, flows_purged):
        family = next(iter(metric.collect()))
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(metric._labelnames) or "-"  # noqa: SLF001 - it has no public name
        yield f"| `{name}` | {family.type} | {labels} | {family.documentation} |"
    yield f"| `enid_ec2_calls_total` | counter | action | {COUNTERS['enid_ec2_calls']} |"
    yield f"| `enid_ec2_errors_total` | counter | action, id | {COUNTERS['enid_ec2_errors']} |"
    for name, text in GAUGES.items():
        yield f"| `{name}` | gauge | {', '.join(_labels(name)) or '-'} | {text} |"
