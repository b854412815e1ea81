"""Pods' annotations of their addresses, for those who cannot wait for kubelet. Shell (the loop's).

Part of the daemon that is joined to a cluster, and idle unless ANNOTATE_POD_IP is set. kubelet
reports a pod's address when the pod's containers start, seconds after the ADD; a policy engine
that sees it here opens earlier. An empty text says that the address is the pod's no longer.

No ADD waits for it. What the annotations should be is held against what the watch of our pods
shows; so a restart, or an API server that was away, leaves none out.
"""

from __future__ import annotations

import asyncio
import contextlib

from cni.spec import Attached, CniError, Verb
from ipamd.cluster import (
    POD_IPS,
    ClusterError,
    Link,
    ObjectAbsentError,
    OthersFirstError,
    backoff_seconds,
)
from ipamd.daemon import Daemon
from ipamd.kube_objects import notes_due, notes_seen, pod_texts
from ipamd.watch import Cluster

LOOK_SECONDS, IDLE_SECONDS = 1.0, 10.0
"""Between looks, if no ADD or DEL is answered: a pod may be heard of after its ADD. The longer
one is for a setting that is off, and may be turned on."""


class PodNotes:
    """Writes the annotations."""

    def __init__(self, daemon: Daemon, cluster: Cluster) -> None:
        self._daemon, self._cluster = daemon, cluster
        self._jitter = daemon.ports.random
        self._said: dict[str, str] = {}
        """What was written, or seen to be right, by the pod's uid: the watch is late."""
        self._answered = asyncio.Event()
        self._failures = 0
        former = daemon.attachments.on_answer

        def on_answer(verb: Verb, answer: Attached | CniError | None, seconds: float) -> None:
            former(verb, answer, seconds)
            self._answered.set()

        daemon.attachments.on_answer = on_answer

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            self._answered.clear()
            is_on = self._daemon.settings.annotate_pod_ip
            if is_on and self._cluster.standing.link is Link.CONNECTED:
                await self._write()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if is_on else IDLE_SECONDS):
                    await self._answered.wait()

    async def _write(self) -> None:
        pods, texts = self._cluster.pods, pod_texts(self._daemon.attachments.rows)
        kept = {uid: text for uid, text in self._said.items() if uid in pods}
        self._said = kept | notes_seen(pods.values(), texts)
        for pod, text in notes_due(tuple(pods.values()), texts, self._said):
            try:
                await self._cluster.annotate(pod, {POD_IPS: text})
            except (ObjectAbsentError, OthersFirstError):
                pass  # it is gone, or another one has its name: the watch will say so
            except ClusterError:
                self._daemon.on_counted("unwritten_pod", 1)
                self._failures += 1
                await asyncio.sleep(backoff_seconds(self._failures, self._jitter()))
                return
            else:
                self._daemon.on_counted("written_pod", 1)
            self._failures = 0
            self._said[pod.uid] = text
