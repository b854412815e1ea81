"""The daemon joined to Kubernetes: what the cluster tells it, handed to whom it concerns. Shell.

Loaded only where a cluster is configured; in plain mode the client's library never is. The
node works on by what was heard last while the API server is away, also after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from ipamd import election, heard
from ipamd.caches import Cache
from ipamd.cluster import (
    ApiAwayError,
    ClusterError,
    EniConfig,
    NodeView,
    ObjectAbsentError,
    eni_config_names,
    eni_config_place,
)
from ipamd.configuration import Configuration
from ipamd.daemon import Daemon
from ipamd.event_poster import EventPoster
from ipamd.kube import Access, Api
from ipamd.node_writer import NodeWriter
from ipamd.pod_notes import PodNotes
from ipamd.record_writer import RecordWriter
from ipamd.subnets import Candidate
from ipamd.watch import Cluster, KubeCluster

log = logging.getLogger(__name__)

CONFIGS_SECONDS = 300.0
"""How long an ENIConfig is believed: they change with the VPC, not with the day."""

CONFIGS = 8
"""ENIConfigs that are remembered; a node names one, or a few to fall back on."""

LOOK_SECONDS = 10.0
"""Between looks at ENIConfigs, which the account may not watch."""


def connect(
    daemon: Daemon,
    configuration: Configuration,
    access: Access,
    terms: election.Terms | None = None,
) -> Joined:
    """Return *daemon* joined to the cluster that *access* leads to."""
    cluster = KubeCluster(
        api=Api(access),
        node=configuration.settings.node_name,
        namespace=access.namespace,
        clock=daemon.ports.clock,
        jitter=daemon.ports.random,
        terms=terms,
        with_record=configuration.settings.node_network,
    )
    return Joined(daemon, configuration, cluster)


class Joined:
    """One daemon in one cluster. Made when the daemon has started."""

    def __init__(self, daemon: Daemon, configuration: Configuration, cluster: Cluster) -> None:
        self._daemon, self._configuration, self._cluster = daemon, configuration, cluster
        self._configs: Cache[str, EniConfig] = daemon.caches.cache(
            "eniconfigs", size=CONFIGS, age_seconds=CONFIGS_SECONDS
        )
        self._read: dict[str, EniConfig] = {}
        """ENIConfigs as they were last read, however long ago."""
        self._noted: tuple[Candidate, ...] = ()
        self._look_now = asyncio.Event()
        self._events = EventPoster(daemon, cluster)
        self._node = NodeWriter(daemon, cluster)
        self._notes = PodNotes(daemon, cluster)
        self._record = RecordWriter(daemon, cluster, self._events.report_edited)
        cluster.on_node = self._on_node
        cluster.on_bound = daemon.by_cluster.hear_bound
        cluster.on_leader = lambda is_elected: daemon.engine.sweep.elect(is_elected=is_elected)
        cluster.on_nodes = self._on_nodes
        cluster.on_standing = daemon.by_cluster.hear_standing
        daemon.engine.sweep.may_delete = lambda: cluster.is_leader
        daemon.by_cluster.hear_joining(cluster.standing)

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cluster.run())
            tasks.create_task(self._look())
            tasks.create_task(self._events.run())
            tasks.create_task(self._node.run())
            tasks.create_task(self._record.run())
            tasks.create_task(self._notes.run())

    def _on_node(self, view: NodeView) -> None:
        self._configuration.node_changed(view.labels, view.annotations)
        self._daemon.by_cluster.hear_node(unschedulable=view.unschedulable, max_pods=view.max_pods)
        self._keep(heard.note_node, view.name, view.labels, view.annotations)
        self._look_now.set()

    def _on_nodes(self, nodes: int) -> None:
        self._daemon.by_cluster.hear_nodes(nodes)
        self._keep(heard.note_nodes, nodes)

    def _keep(self, note: Callable[..., None], *what: object) -> None:
        """Note in the journal what was heard; nobody waits for it."""
        thread = self._daemon.ports.threads.journal
        asyncio.get_running_loop().run_in_executor(thread, note, self._daemon.journal, *what)

    # ENIConfigs ------------------------------------------------------------------------
    async def _look(self) -> None:
        """Look at the node's ENIConfigs now and then, and when the node may name others."""
        while True:
            self._look_now.clear()
            if self._configuration.settings.custom_networking and self._cluster.view is not None:
                await self._find_configs(self._cluster.view)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look_now.wait()
            except TimeoutError:
                continue

    async def _find_configs(self, view: NodeView) -> None:
        """Place new ENIs as the ENIConfigs say that the node names, in their order.

        One that is not there is left out, and the others serve; if none can, what was
        known stays.
        """
        settings = self._configuration.settings
        keys = settings.eni_config_annotation, settings.eni_config_label
        try:
            names = eni_config_names(view, *keys)
        except ClusterError as error:
            self._daemon.by_cluster.hear_configs(None, f"{error}; {self._instead(())}")
            return
        found: list[Candidate] = []
        reasons: list[str] = []
        for name in names:
            config, reason = await self._find_config(name)
            found += [] if config is None else [self._candidate(config)]
            reasons += [reason] if reason else []
        trouble = "; ".join(reasons)
        if trouble:
            trouble += f"; {eni_config_place(view, *keys)} names it; {self._instead(found)}"
        self._daemon.by_cluster.hear_configs(found or None, trouble, self._notice(found))
        if found and tuple(found) != self._noted:
            self._noted = tuple(found)
            self._keep(heard.note_configs, self._noted)

    async def _find_config(self, name: str) -> tuple[EniConfig | None, str]:
        """Return an ENIConfig as it was read last, and why it cannot be read now; "" if it can."""
        try:
            config = await self._configs.fetch(name, partial(self._cluster.find_eni_config, name))
        except ObjectAbsentError as error:
            self._read.pop(name, None)
            return None, str(error)
        except ClusterError as error:
            known = self._read.get(name)
            is_said = known is not None and isinstance(error, ApiAwayError)  # by the mode
            return known, "" if is_said else str(error)
        self._read[name] = config
        return config, ""

    def _instead(self, found: Sequence[Candidate]) -> str:
        """Say where new ENIs go while one that is named cannot be used."""
        if names := ", ".join(c.config for c in found):
            return f"new ENIs go as {names} says"
        if names := ", ".join(c.config for c in self._daemon.places.configs or ()):
            return f"new ENIs go as {names} said before"
        return "until one can be used the node gets no ENI for pods"

    def _notice(self, found: Sequence[Candidate]) -> str:
        """Say which of them have no security groups, which may be meant."""
        names = ", ".join(c.config for c in found if not c.security_groups)
        groups = ", ".join(self._daemon.places.groups)
        if not names:
            return ""
        return (
            f"ENIConfig {names} has no security group: new ENIs of Node {self._cluster.node} get"
            f" those of its primary ENI ({groups})"
        )

    def _candidate(self, config: EniConfig) -> Candidate:
        subnet = config.subnet or self._daemon.around.subnet_id
        return Candidate(subnet, config.security_groups, config.name)
