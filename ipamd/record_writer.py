"""This node's NodeNetwork, written as what it tells of changes. Shell (the loop's).

Part of the daemon that is joined to a cluster. It follows its own record by a watch, so that it
knows what is there: a record that somebody else has changed or deleted is put back, and said
once. What was changed while no daemon ran is put back, too, and nobody can tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from ipamd import __version__, node_network
from ipamd.cluster import ClusterError, Link, NodeSeen, Patch, RecordSeen, backoff_seconds
from ipamd.daemon import Daemon
from ipamd.kube_objects import moment
from ipamd.node_network import RECORDS, WRITE_SECONDS, WRITTEN, Instance
from ipamd.watch import Cluster

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""Between looks at what should be written."""

START_SECONDS: Final = 30.0
"""How long the first write waits for EC2's word on what the node holds."""

OWN_VERSIONS: Final = 8
"""How many of our own writes the watch may be behind."""

WHAT: Final = "NodeNetwork"


class RecordWriter:
    """Writes the record; *on_edited* is told when somebody else has, in a sentence."""

    def __init__(self, daemon: Daemon, cluster: Cluster, on_edited: Callable[[str], None]) -> None:
        self._daemon, self._cluster, self._on_edited = daemon, cluster, on_edited
        self._clock, self._jitter = daemon.ports.clock, daemon.ports.random
        self._path = node_network.record_path(cluster.node)
        self._written: Mapping[str, Any] | None = None
        self._own: deque[str] = deque(maxlen=OWN_VERSIONS)
        self._unheard: deque[Mapping[str, Any]] = deque(maxlen=OWN_VERSIONS)
        """What we tried to write, and heard no answer to: it may be there, by a version of which we
        do not know that it is ours."""
        self._unjudged: list[RecordSeen | None] = []
        """What the watch has shown: also an edit that a write of ours undid at once is said."""
        cluster.on_record = self._unjudged.append
        self._there_for = ""
        """Whose record was seen to be there, by the Node's uid."""
        self._wrote_at = self._due = float("-inf")
        self._patient_until = self._clock().boot + START_SECONDS
        self._failures = 0

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            node, is_heard = self._cluster.seen, self._cluster.is_record_heard
            if node and is_heard and self._cluster.standing.link is Link.CONNECTED:
                await self._look(node, self._cluster.record)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, node: NodeSeen, seen: RecordSeen | None) -> None:
        unjudged, self._unjudged[:] = tuple(self._unjudged), ()
        for found in unjudged:
            self._judge(node, found)
        now = self._clock().boot
        if now < max(self._due, self._wrote_at + WRITE_SECONDS):
            return
        if now < self._patient_until and not self._daemon.engine.census.done.is_set():
            return
        wanted = self._wanted()
        pause = node_network.pause_seconds(seen.status if seen else {}, wanted)
        is_owned = seen is not None and seen.owner == node.uid
        if pause is None and is_owned:
            return
        if now < self._wrote_at + (pause or WRITE_SECONDS):
            return
        try:
            await self._write(node, seen, wanted, is_owned=is_owned)
        except ClusterError:  # said by the cluster
            self._unheard.append(wanted)
            self._daemon.on_counted("unwritten_nodenetwork", 1)
            self._failures += 1
            self._due = now + WRITE_SECONDS + backoff_seconds(self._failures, self._jitter())
        else:
            self._daemon.on_counted("written_nodenetwork", 1)
            self._failures = 0
            self._written = wanted
        self._wrote_at = now

    def _judge(self, node: NodeSeen, seen: RecordSeen | None) -> None:
        """Say it if somebody else has written the record, or deleted it."""
        words = ""
        if seen is None:
            # With another uid it is the garbage collector's doing: the Node was another one.
            words = "was deleted" if self._there_for == node.uid else ""
            self._there_for = ""
        else:
            self._there_for = seen.owner
            if self._written is not None and seen.version not in self._own:
                known = (self._written, *self._unheard)
                fields = [node_network.differing(seen.status, status) for status in known]
                words = f"was changed ({fields[0]})" if all(fields) else ""
                self._own.append(seen.version)
        if words:
            sentence = f"NodeNetwork {self._cluster.node} {words} by somebody else, and is put back"
            log.warning("nodenetwork put back", extra={"reason": sentence})
            self._on_edited(sentence)

    async def _write(
        self,
        node: NodeSeen,
        seen: RecordSeen | None,
        wanted: Mapping[str, Any],
        *,
        is_owned: bool,
    ) -> None:
        name, cluster = self._cluster.node, self._cluster
        if seen is None:
            body = node_network.draft(name, node.uid)
            self._note(await cluster.create(WHAT, RECORDS, body))
        elif not is_owned:
            body = {"metadata": {"ownerReferences": node_network.owners(name, node.uid)}}
            self._note(await cluster.patch(WHAT, self._path, body, Patch.MERGE))
        status = {**wanted, WRITTEN: moment(self._clock().wall)}
        path = f"{self._path}/status"
        self._note(await cluster.patch(WHAT, path, {"status": status}, Patch.MERGE))

    def _note(self, answer: Mapping[str, Any]) -> None:
        """Remember a version of the record as our own."""
        self._own.append(str(answer["metadata"]["resourceVersion"]))

    def _wanted(self) -> dict[str, Any]:
        daemon = self._daemon
        identity, terms = daemon.around.identity, daemon.engine.terms
        instance = Instance(
            id=identity.instance_id,
            type=identity.instance_type,
            primary=str(identity.primary),
            version=__version__,
            mode=daemon.modes[0].value,
            kind=terms.kind.value,
            max_enis=terms.max_enis,
        )
        return node_network.record(instance, daemon.pool.census(), daemon.pool.blocks())
