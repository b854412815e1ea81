"""Metrics, as Prometheus reads them. Shell.

Counters and histograms are noted where things happen; gauges are read from a snapshot of
the loop's state when somebody scrapes. `docs/metrics.md` is made from this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cni.desired import NODE_SYSCTL, Part
from cni.spec import CniError, Verb
from ipamd.caches import Usage
from ipamd.cluster import Link
from ipamd.replies import AddRefusedError
from ipamd.status import ActionStatus, CacheStatus, Status
from ipamd.terms import Mode

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
adds_refused = Counter(
    "enid_adds_refused",
    "ADDs that were refused, by reason: the event of docs/errors.md, with or without a cluster.",
    ("reason",),
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

kube_events = Counter(
    "enid_kube_events",
    "Events for Kubernetes, by whether the API server has taken them (posted, lost).",
    ("outcome",),
    registry=REGISTRY,
)
WRITES = ("node", "nodenetwork", "pod")
kube_writes = Counter(
    "enid_kube_writes",
    f"Writes to Kubernetes, Events and the Lease apart, by object ({', '.join(WRITES)}) and whether"
    " the API server has taken them (taken, refused).",
    ("object", "outcome"),
    registry=REGISTRY,
)
repairs = Counter(
    "enid_repairs",
    "Things of ours in the kernel that somebody had deleted or changed, put back.",
    ("part",),
    registry=REGISTRY,
)
unrepaired = Counter(
    "enid_unrepaired",
    "What of the node somebody changed that ipamd may not put back: the host has to.",
    ("part",),
    registry=REGISTRY,
)

Sample = tuple[tuple[str, ...], float]
"""Label values, in the order of the metric's labels, and the value."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric that is read from a snapshot, the object that `enid status` shows."""

    name: str
    labels: tuple[str, ...]
    text: str
    read: Callable[[Status], Iterable[Sample]]
    is_counter: bool = False


STATES = ("assigned", "cooling", "free", "leaving", "taken")


def _addresses(status: Status) -> Iterator[Sample]:
    for eni in status["enis"]:
        numbers = (eni["assigned"], eni["cooling"], eni["free"], eni["leaving"], eni["taken"])
        yield from (((eni["id"], state), n) for state, n in zip(STATES, numbers, strict=True))


def _blocks(status: Status) -> Iterator[Sample]:
    for eni in status["enis"]:
        yield (eni["id"], "single"), eni["singles"]
        yield (eni["id"], "prefix"), eni["prefixes"]


def _by_action(
    what: Callable[[ActionStatus], float],
) -> Callable[[Status], Iterator[Sample]]:
    return lambda status: (((row["action"],), what(row)) for row in status["ec2"])


def _by_cache(what: Callable[[Usage], float]) -> Callable[[Status], Iterator[Sample]]:
    return lambda status: (((usage.name,), what(usage)) for usage in map(_usage, status["caches"]))


def _usage(row: CacheStatus) -> Usage:
    return Usage(**row)


SNAPSHOT = (
    Measure("enid_addresses", ("eni", "state"), "Addresses held, by ENI and state.", _addresses),
    Measure("enid_blocks", ("eni", "kind"), "What fills an ENI's slots, by kind.", _blocks),
    Measure(
        "enid_slots", ("eni",), "How many blocks an ENI may hold.",
        lambda s: (((eni["id"],), eni["slots"]) for eni in s["enis"]),
    ),
    Measure("enid_enis", (), "ENIs that carry pods.", lambda s: [((), len(s["enis"]))]),
    Measure(
        "enid_enis_max", (), "ENIs this node may have, the primary included.",
        lambda s: [((), s["max_enis"])],
    ),
    Measure(
        "enid_wanted", (), "Addresses that the pool wants and does not hold yet.",
        lambda s: [((), s["wanted"])],
    ),
    Measure("enid_waiting", (), "ADDs that wait for an address.", lambda s: [((), s["waiting"])]),
    Measure(
        "enid_mode", ("mode",), f"1 for each mode the daemon is in ({', '.join(Mode)}).",
        lambda s: (((mode.value,), float(mode.value in s["modes"])) for mode in Mode),
    ),
    Measure(
        "enid_cluster", ("link",), f"1 for how it stands with Kubernetes ({', '.join(Link)}).",
        lambda s: (((link.value,), float(link.value == s["cluster"]["link"])) for link in Link),
    ),
    Measure(
        "enid_ec2_calls", ("action",), "Requests that EC2 was sent, repeats included.",
        _by_action(lambda row: row["requests"]), is_counter=True,
    ),
    Measure(
        "enid_ec2_errors", ("action", "id"), "EC2 calls that failed, by action and error id.",
        lambda s: (((e["action"], e["id"]), e["count"]) for e in s["ec2_errors"]), is_counter=True,
    ),
    Measure(
        "enid_ec2_seconds", ("action",), "Seconds that EC2 took to answer.",
        _by_action(lambda row: row["answered_seconds"]), is_counter=True,
    ),
    Measure(
        "enid_ec2_limiter_seconds", ("action",), "Seconds that calls waited for our own limiter.",
        _by_action(lambda row: row["waited_seconds"]), is_counter=True,
    ),
    Measure(
        "enid_ec2_throttles", ("action",), "Calls that EC2 refused for the account's rate.",
        _by_action(lambda row: row["throttles"]), is_counter=True,
    ),
    Measure(
        "enid_ec2_waiting", ("action",), "Calls that wait for our own limiter now.",
        _by_action(lambda row: row["waiting"]),
    ),
    Measure(
        "enid_cache_entries", ("cache",), "What a cache holds.", _by_cache(lambda u: u.used)
    ),
    Measure(
        "enid_cache_size", ("cache",), "What a cache may hold at most.", _by_cache(lambda u: u.size)
    ),
    Measure(
        "enid_cache_hits", ("cache",), "Questions that a cache answered.",
        _by_cache(lambda u: u.hits), is_counter=True,
    ),
    Measure(
        "enid_cache_misses", ("cache",), "Questions that a cache could not answer.",
        _by_cache(lambda u: u.misses), is_counter=True,
    ),
)  # fmt: skip
"""Every metric that is read when somebody scrapes, in the order of the documentation."""


def _pods(status: Status) -> Iterator[Sample]:
    for lease in status["leases"]:
        namespace, _, name = lease["pod"].partition("/")
        yield (namespace, name, lease["address"], lease["eni_id"]), 1


PODS = Measure(
    "enid_pod_address", ("namespace", "pod", "address", "eni"),
    "1 for each pod and its address; only with `ENID_METRICS_POD_NAMES=true`.", _pods,
)  # fmt: skip
"""Who has which address: names, so nobody is told unless somebody asked for it."""


def observe(verb: Verb, answer: object, seconds: float) -> None:
    """Note one answered request; *answer* is the error if it is one."""
    result = f"code-{answer.code:d}" if isinstance(answer, CniError) else "ok"
    requests.labels(verb.value, result).observe(seconds)
    if verb is Verb.ADD and isinstance(answer, AddRefusedError):
        adds_refused.labels(answer.event).inc()


COUNTED: Mapping[str, Counter] = {
    "leases_rebuilt": leases_rebuilt,
    "leases_dropped": leases_dropped,
    "flows_purged": flows_purged,
    "events_posted": kube_events.labels("posted"),
    "events_lost": kube_events.labels("lost"),
    **{f"written_{about}": kube_writes.labels(about, "taken") for about in WRITES},
    **{f"unwritten_{about}": kube_writes.labels(about, "refused") for about in WRITES},
    **{f"repaired_{part}": repairs.labels(part.value) for part in Part},
    f"unrepaired_{NODE_SYSCTL}": unrepaired.labels(NODE_SYSCTL),
}
"""What the daemon counts, by the name it calls it."""


def count(what: str, number: int) -> None:
    """Note that *number* more of *what* (`COUNTED`) happened."""
    COUNTED[what].inc(number)


class Snapshot(Collector):
    """The metrics of `SNAPSHOT`, from one status; with *pods* those, too."""

    def __init__(self, status: Status, *, pods: bool = False) -> None:
        self._status, self._measures = status, (*SNAPSHOT, PODS) if pods else SNAPSHOT

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        for measure in self._measures:
            family = CounterMetricFamily if measure.is_counter else GaugeMetricFamily
            metric = family(measure.name, measure.text, labels=measure.labels)
            for labels, value in measure.read(self._status):
                metric.add_metric(labels, value)
            yield metric


def render_metrics() -> Iterator[str]:
    """Yield the lines of `docs/metrics.md`."""
    yield "# Metrics"
    yield ""
    yield "Served on `:61678/metrics`. This page is made from `ipamd/metrics.py` by"
    yield "`python -m tests.tools.references`."
    yield ""
    yield "| name | type | labels | meaning |"
    yield "| --- | --- | --- | --- |"
    for noted in (
        requests,
        adds_refused,
        leases_rebuilt,
        leases_dropped,
        flows_purged,
        kube_events,
        kube_writes,
        repairs,
        unrepaired,
    ):
        family = next(iter(noted.collect()))
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(noted._labelnames) or "-"  # noqa: SLF001 - it has no public name
        yield f"| `{name}` | {family.type} | {labels} | {family.documentation} |"
    for measure in (*SNAPSHOT, PODS):
        kind, tail = ("counter", "_total") if measure.is_counter else ("gauge", "")
        labels = ", ".join(measure.labels) or "-"
        yield f"| `{measure.name}{tail}` | {kind} | {labels} | {measure.text} |"
