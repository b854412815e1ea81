"""Events of Kubernetes: what is said of pods and of the node, how often, and as what JSON. Pure.

An Event is an object of the API, which `kubectl describe` shows with the pod or node that it
is about. (Netlink's events are in cni/events.py, a lane's in ipamd/lanes.py.) It is made when
somebody is told no, so it must cost nothing when a whole node is: one for each object and
reason in an interval, at the pace of one bucket for the node, and what is too much is lost.

    if outbox.put(subject, error.event, sentence(error.msg, error.details), now):
        ...                                     # outbox.delay(now) says when to take it
    created = api.create(path, body(outbox.take(now), node))
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cni.spec import Pod
from ipamd.budget import Limit, Limiter
from ipamd.caches import Once, Usage
from ipamd.clock import Instant
from ipamd.cluster import OBJECT_NAME

COMPONENT = "enid"
"""Whom an Event is from, as `kubectl describe` shows it."""

INTERVAL_SECONDS = 600.0
"""Between two Events of one object and reason, the second with its count. kubelet tries a pod
again every two minutes or so, and an API server forgets Events after an hour."""

SAID = 512
"""Objects times reasons that are told apart: twice the pods that a node may have."""

BURST, PACE = 10, 0.1
"""Events that a node posts at once, and each second after that: 1,000 nodes whose pods all
wait for one full subnet ask for 100 a second in all, however many pods they are."""

WAITING = 64
"""Events that wait for their turn: as many as ADDs may. The last one is posted 540 s after the
first, before any of them is due again."""

MESSAGE_MOST = 1024
"""Characters of a message, which is what events.k8s.io takes (`kubectl get events` shows it)."""

NAME_MOST = 200
"""Characters of an object's name in its Event's: reason and time need 40, and 253 are allowed."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an Event is about; a Node has no *namespace*."""

    kind: str
    name: str
    uid: str
    namespace: str = ""

    @property
    def events_in(self) -> str:
        """The namespace of its Events, "default" for what has none, as the API server wants it."""
        return self.namespace or "default"


def node_subject(name: str) -> Subject:
    """Return the Node; kubelet gives its name as its uid, and `kubectl describe` looks for that."""
    return Subject("Node", name, name)


def subject_of(pod: Pod) -> Subject | None:
    """Return *pod*, None if CNI_ARGS tells no pod that Kubernetes can have."""
    if not (OBJECT_NAME.fullmatch(pod.namespace) and OBJECT_NAME.fullmatch(pod.name)):
        return None
    return Subject("Pod", pod.name, pod.uid, pod.namespace)


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be said of *subject*: *times* since *first*, which are seconds of the wall."""

    subject: Subject
    reason: str
    message: str
    times: int
    first: float
    last: float


def sentence(cause: str, advice: str) -> str:
    """Return an Event's message; what is too long is cut from the cause."""
    end = f". Next step: {advice}"
    return f"{cause.removesuffix('.')[: MESSAGE_MOST - len(end)]}{end}"


def body(report: Report, node: str) -> dict[str, Any]:
    """Return the Event as the API server is sent it."""
    about = report.subject
    short = about.name[:NAME_MOST].rstrip("-.")
    involved = {
        "apiVersion": "v1",
        "kind": about.kind,
        "name": about.name,
        "namespace": about.namespace,
        "uid": about.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            # Two reasons may have one moment, and two moments one reason.
            "name": f"{short}.{report.reason.lower()}.{round(report.last * 1e6):x}",
            "namespace": about.events_in,
        },
        "involvedObject": {field: told for field, told in involved.items() if told},
        "type": "Warning",
        "reason": report.reason,
        "message": report.message,
        "count": report.times,
        "firstTimestamp": _time(report.first),
        "lastTimestamp": _time(report.last),
        "source": _source(node),
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
    }


def _source(node: str) -> Mapping[str, str]:
    return {"component": COMPONENT, "host": node}


def _time(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Outbox:
    """What is to be posted. As a cache: a hit went at once, a miss waited, an eviction is lost."""

    def __init__(self, gate: Once[tuple[Subject, str]], now: float) -> None:
        self._gate = gate
        self._bucket = Limiter(Limit(BURST, PACE), PACE, PACE, BURST, filled_at=now)
        self._waiting: deque[Report] = deque()
        self._hits = self._misses = self._lost = 0

    def put(self, subject: Subject, reason: str, message: str, now: Instant) -> bool:
        """Return whether it will be posted: not what was said of late, nor what is too much."""
        if len(self._waiting) >= WAITING:
            self._lost += 1
            return False  # the gate has not heard of it, so that the next time is not held back
        times, since = self._gate.count((subject, reason))
        if not times:
            return False
        first = now.wall - (now.boot - since)
        self._waiting.append(Report(subject, reason, message, times, first, now.wall))
        return True

    def delay(self, now: float) -> float | None:
        """Return the seconds until the next may be taken, None if there is none."""
        return self._bucket.delay(now) if self._waiting else None

    def take(self, now: float, *, waited: bool) -> Report:
        """Return the next, whose `delay` is over."""
        self._bucket.spend(now)
        self._misses += waited
        self._hits += not waited
        return self._waiting.popleft()

    def lose(self, report: Report) -> None:
        """Note that it could not be posted; the next time is said again, and not held back."""
        self._gate.over((report.subject, report.reason))

    @property
    def usage(self) -> Usage:
        """What waits, and how much of it."""
        used = len(self._waiting)
        return Usage("events waiting", WAITING, used, self._hits, self._misses, self._lost)
