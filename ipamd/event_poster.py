"""Events about pods and the node, posted. Shell (the loop's; each POST has a thread).

Part of the daemon that is joined to a cluster. A pod has one when its ADD is refused, the node
when it grows again only after somebody has acted. Who reports is never held up: what is
reported is posted later, once, or lost; while the API server is away it is not even tried. What
kubelet shows of a refused ADD (FailedCreatePodSandBox) is there all the same.
"""

from __future__ import annotations

import asyncio
import logging

from cni.spec import Pod
from eni.errors import EniError
from ipamd import kube_events
from ipamd.caches import Once
from ipamd.cluster import ClusterError, Link
from ipamd.daemon import Daemon
from ipamd.kube_events import Outbox, Report, Subject, node_subject, sentence, subject_of
from ipamd.reactions import (
    CONFIG_ELSEWHERE,
    CONFIG_UNUSED,
    CONFIG_WITHOUT_GROUPS,
    CONFLIST_SECOND,
    KUBE_DENIED,
    NODE_FULL,
    RECORD_EDITED,
    SAID_ONCE,
    SETTINGS_KEPT,
    consequence,
    someone_must_act,
)
from ipamd.replies import AddRefusedError, exhaustion
from ipamd.watch import Cluster

log = logging.getLogger(__name__)

FAILURES = 8
"""Kinds of failures to post; each is logged as often as an Event is posted, with its count."""

LOOK_SECONDS = 10.0
"""Between looks at what troubles the engine."""


class EventPoster:
    """Posts what is reported, at the outbox's pace."""

    def __init__(self, daemon: Daemon, cluster: Cluster) -> None:
        self._daemon, self._cluster = daemon, cluster
        self._clock = daemon.ports.clock
        gate: Once[tuple[Subject, str]] = daemon.caches.once(
            "events said",
            size=kube_events.SAID,
            interval_seconds=kube_events.INTERVAL_SECONDS,
        )
        self._outbox = Outbox(gate, self._clock().boot)
        daemon.caches.add("events waiting", self._outbox)
        self._failures: Once[str] = daemon.caches.once(
            "event failures said",
            size=FAILURES,
            interval_seconds=kube_events.INTERVAL_SECONDS,
        )
        self._filled = asyncio.Event()
        self._node = node_subject(cluster.node)
        self._told: dict[str, tuple[EniError | str, float]] = {}
        """What troubles the node, by reason, and since when that was reported."""
        daemon.attachments.on_refused = self._refused

    def _refused(self, pod: Pod, error: AddRefusedError) -> None:
        if (subject := subject_of(pod)) is not None:
            self._report(subject, error.event, sentence(error.msg, error.details))
        if error.event == NODE_FULL.event:
            # A node whose pods have all its addresses is as it should be, until one more comes.
            full = exhaustion(self._daemon.pool.census(), self._daemon.attachments.shortage())
            if full:
                self._report(self._node, error.event, sentence(full, error.details))

    def report_edited(self, words: str) -> None:
        """Report that somebody has changed this node's NodeNetwork."""
        self._report(self._node, RECORD_EDITED.event, sentence(words, RECORD_EDITED.advice))

    def _report(self, subject: Subject, reason: str, message: str) -> None:
        if self._is_heard and self._outbox.put(subject, reason, message, self._clock()):
            self._filled.set()

    @property
    def _is_heard(self) -> bool:
        return self._cluster.standing.link is Link.CONNECTED

    async def run(self) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._empty())
            tasks.create_task(self._look())

    async def _look(self) -> None:
        """Report what troubles the node, each failure once, and what lasts once an interval.

        What may be meant is reported once.
        """
        while True:
            now, former = self._clock().boot, self._told
            self._told = {}
            for reason, (trouble, message) in self._acute().items():
                told, at = former.get(reason, (None, now))
                is_due = reason not in SAID_ONCE and now - at >= kube_events.INTERVAL_SECONDS
                if told != trouble or is_due:
                    self._report(self._node, reason, message)
                    at = now
                self._told[reason] = trouble, at
            await asyncio.sleep(LOOK_SECONDS)

    def _acute(self) -> dict[str, tuple[EniError | str, str]]:
        """Return what someone must act on, by reason, each with its message."""
        found: dict[str, tuple[EniError | str, str]] = {}
        for trouble in self._daemon.engine.flights.troubles.values():
            if isinstance(trouble, EniError) and someone_must_act(trouble):
                told = consequence(trouble)
                found[told.event] = trouble, sentence(str(trouble), told.advice)
        daemon = self._daemon
        for told_of, words in (
            (SETTINGS_KEPT, "; ".join((daemon.complaint or "").splitlines())),
            (CONFIG_UNUSED, daemon.by_cluster.config_trouble),
            (CONFIG_ELSEWHERE, daemon.places.misplaced),
            (CONFIG_WITHOUT_GROUPS, daemon.by_cluster.config_notice),
            (KUBE_DENIED, self._cluster.denials),
            (CONFLIST_SECOND, daemon.before_us),
        ):
            if words:
                found[told_of.event] = words, sentence(words, told_of.advice)
        return found

    async def _empty(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while (wait := self._outbox.delay(self._clock().boot)) is not None:
                await asyncio.sleep(wait)
                await self._post(self._outbox.take(self._clock().boot, waited=wait > 0))

    async def _post(self, report: Report) -> None:
        if not self._is_heard:
            self._lose(report)
            return
        try:
            await self._cluster.post_event(
                report.subject.events_in, kube_events.body(report, self._cluster.node)
            )
        except ClusterError as error:
            self._lose(report)
            if times := self._failures.due(error.id):
                told = {"id": error.id, "reason": str(error), "times": times}
                log.warning("event not posted", extra=told)
        else:
            self._daemon.on_counted("events_posted", 1)

    def _lose(self, report: Report) -> None:
        self._outbox.lose(report)
        self._daemon.on_counted("events_lost", 1)
