"""The cluster as one node hears of it: late, wrongly counted, or not at all. Shell.

A `ModelCluster` outlives its daemons: the Node's annotations, the ENIConfigs, how many pods are
said to be bound, who sweeps. Each daemon has a `Listener` of it, which promises what
`ipamd.watch.KubeCluster` does, and is joined by the daemon's own `ipamd.joined`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ipamd.cluster import (
    ApiAwayError,
    EniConfig,
    Link,
    NodeSeen,
    NodeView,
    ObjectAbsentError,
    Patch,
    PodView,
    RecordSeen,
    Standing,
    eni_config,
    node_seen,
    node_view,
    record_seen,
)
from ipamd.configuration import Configuration
from ipamd.heard import noted_node
from ipamd.joined import Joined
from ipamd.node_network import RECORDS

if TYPE_CHECKING:
    from ipamd.daemon import Daemon
    from ipamd.journal import Journal
    from ipamd.settings import Settings
    from tests.chaos.world import World

NODE = "node-a"

WATCH_SECONDS = (0.02, 2.0)
"""How late a change is heard of."""

QUESTION_SECONDS = (0.01, 0.5)
"""How long an answer takes."""


class ModelCluster:
    """What is true of one node in its cluster."""

    def __init__(self, world: World, environ: Mapping[str, str], seed: int | str) -> None:
        self.world, self.environ = world, environ
        self.random = random.Random(seed)
        self.configuration: Configuration
        self.labels: dict[str, str] = {}
        self.annotations: dict[str, str] = {}
        self.configs: dict[str, Mapping[str, Any]] = {}
        """ENIConfigs' specs by name."""
        self.is_unschedulable = self.is_elected = self.is_away = False
        self.bound: int | None = None
        """How many pods are said to be bound here; None: nobody may count."""
        self.heard_bound: int | None = None
        """What the daemon heard last."""
        self.heard_cordon: float | None = None
        """Since when the daemon that lives has heard that its node is cordoned."""
        self.written: dict[str, Any] = {}
        """What daemons have written to the Node."""
        self.record: dict[str, Any] | None = None
        """The node's NodeNetwork, once a daemon has made it."""
        self.led: list[tuple[float, bool]] = []
        """When this node was elected, or was not any more."""
        self.on_told: Callable[[Settings], None] = lambda _: None
        """Told what held before, when the Node was heard of."""
        self._listener: Listener | None = None

    # A daemon's life --------------------------------------------------------------------
    def configure(self, journal: Journal) -> Settings:
        """Return what a daemon starts with: of the Node it knows what a former life noted."""
        notes = noted_node(journal, NODE)
        self.configuration = Configuration(
            self.environ, labels=notes.labels, annotations=notes.annotations
        )
        self.heard_bound = self.heard_cordon = None
        return self.configuration.settings

    async def join(self, daemon: Daemon) -> None:
        """Join a daemon that has started."""
        self.configuration.on_change = lambda _, new: self._apply(daemon, new.settings)
        self._listener = Listener(self, daemon)
        await Joined(daemon, self.configuration, self._listener).run()

    def _apply(self, daemon: Daemon, settings: Settings) -> None:
        self.world.hold(settings)
        daemon.apply(settings)

    # What happens -----------------------------------------------------------------------
    def change(self) -> None:
        """Let the daemon hear soon how it is now."""
        self.world.later(self.random.uniform(*WATCH_SECONDS), self._tell)

    def _tell(self) -> None:
        life, listener = self.world.life, self._listener
        if life is not None and listener is not None and listener.daemon is life.daemon:
            life.loop.call_soon(listener.hear)

    def set_away(self, *, is_away: bool) -> None:
        """Let the API server go away, or come back."""
        self.is_away = is_away
        self.change()

    def elect(self, *, is_elected: bool) -> None:
        """Let this node be the sweeper, or not any more: the holder itself is told at once."""
        if is_elected != self.is_elected:
            self.is_elected = is_elected
            self.led.append((self.world.now, is_elected))
            self.change()

    def leads_since(self, seconds: float) -> bool:
        """Whether this node has led in the last so many seconds."""
        then = self.world.now - seconds
        return self.is_elected or any(when >= then and not led for when, led in self.led)

    def node(self) -> object:
        """Return the Node, as the API server shows it."""
        metadata = {"name": NODE, "labels": {**self.labels}, "annotations": {**self.annotations}}
        node = {"metadata": metadata, "spec": {"unschedulable": self.is_unschedulable}}
        return merged(self.written, node)

    def write(self, body: Mapping[str, Any]) -> None:
        """Take what a daemon writes to its Node."""
        self.written = merged(self.written, body)
        self.change()

    def write_record(self, body: Mapping[str, Any]) -> Any:
        """Take what a daemon writes to its NodeNetwork; return that as it is now."""
        former = self.record or {"metadata": {"resourceVersion": "0"}}
        version = int(former["metadata"]["resourceVersion"]) + 1
        told = {"metadata": {"resourceVersion": str(version)}}
        self.record = merged(merged(former, body), told)
        self.change()
        return self.record


def merged(there: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a patch makes of an object; conditions are merged by their type."""
    made = dict(there)
    for key, value in patch.items():
        if key == "conditions":
            by_type = {c["type"]: c for c in (*there.get(key, ()), *value)}
            made[key] = [c for c in by_type.values() if c.get("$patch") != "delete"]
        elif isinstance(value, Mapping):
            made[key] = merged(there.get(key) or {}, value)
        elif value is None:
            made.pop(key, None)
        else:
            made[key] = value
    return made


class Listener:
    """What one daemon hears: a `ipamd.watch.Cluster`."""

    def __init__(self, cluster: ModelCluster, daemon: Daemon) -> None:
        self.node = NODE
        self.daemon = daemon
        self.view: NodeView | None = None
        self.seen: NodeSeen | None = None
        self.record: RecordSeen | None = None
        self.is_record_heard = False
        self.on_node: Callable[[NodeView], None] = lambda _: None
        self.on_bound: Callable[[int], None] = lambda _: None
        self.on_leader: Callable[[bool], None] = lambda _: None
        self.on_nodes: Callable[[int], None] = lambda _: None
        self.on_standing: Callable[[Standing], None] = lambda _: None
        self.on_record: Callable[[RecordSeen | None], None] = lambda _: None
        self._cluster = cluster
        self._bound: int | None = None
        self._led = False
        self._told = self.standing

    @property
    def standing(self) -> Standing:
        """How we stand with the API server."""
        if self._cluster.is_away:
            return Standing(Link.AWAY, "the API server is not reached")
        return Standing(Link.CONNECTED)

    denials = ""

    @property
    def is_leader(self) -> bool:
        """Whether this node sweeps now."""
        return self._cluster.is_elected

    async def find_eni_config(self, name: str) -> EniConfig:
        """Return an ENIConfig. Raises ClusterError."""
        await self._ask()
        if name not in self._cluster.configs:
            raise ObjectAbsentError(f"ENIConfig {name} is not in the cluster")
        return eni_config({"metadata": {"name": name}, "spec": self._cluster.configs[name]})

    async def post_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create an Event. Raises ClusterError."""
        del namespace, body
        await self._ask()

    async def patch(self, what: str, path: str, body: Mapping[str, Any], kind: Patch) -> Any:
        """Change the Node or its record, and return it. Raises ClusterError."""
        del what, kind
        await self._ask()
        if path.startswith(RECORDS):
            return self._cluster.write_record(body)
        self._cluster.write(body)
        return self._cluster.node()

    async def create(self, what: str, path: str, body: Mapping[str, Any]) -> Any:
        """Create the Node's record, and return it. Raises ClusterError."""
        del what, path
        await self._ask()
        return self._cluster.write_record(body)

    @property
    def pods(self) -> Mapping[str, PodView]:
        """Pods by uid: only their number is told here."""
        return {}

    async def annotate(self, pod: PodView, annotations: Mapping[str, str]) -> None:
        """Set annotations of a pod. Raises ClusterError."""
        del pod, annotations
        await self._ask()

    async def _ask(self) -> None:
        await asyncio.sleep(self._cluster.random.uniform(*QUESTION_SECONDS))
        if self._cluster.is_away:
            raise ApiAwayError("the API server is not reached")

    async def run(self) -> None:
        """Hear how it is, and then whatever changes."""
        await asyncio.sleep(self._cluster.random.uniform(*WATCH_SECONDS))
        self.hear()
        await asyncio.Event().wait()

    def hear(self) -> None:
        """Hear how it is now, as far as the API server tells."""
        cluster = self._cluster
        if self.standing != self._told:
            self._told = self.standing
            self.on_standing(self._told)
        if cluster.is_elected != self._led and not (cluster.is_away and cluster.is_elected):
            self._led = cluster.is_elected
            self.on_leader(self._led)
        if not cluster.is_away:
            found = cluster.node()
            self.seen = node_seen(found)
            self._hear_node(node_view(found))
            self.record = record_seen(cluster.record) if cluster.record else None
            self.on_record(self.record)
            self.is_record_heard = True
            if cluster.bound is not None and cluster.bound != self._bound:
                self._bound = cluster.heard_bound = cluster.bound
                self.on_bound(cluster.bound)

    def _hear_node(self, view: NodeView) -> None:
        if view == self.view:
            return
        cluster, before = self._cluster, self._cluster.world.settings
        was = self.view is not None and self.view.unschedulable
        self.view = view
        self.on_node(view)
        self.daemon.complain(cluster.configuration.complaint)
        if view.unschedulable != was:
            cluster.heard_cordon = cluster.world.now if view.unschedulable else None
        cluster.on_told(before)
