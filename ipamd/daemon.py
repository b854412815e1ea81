"""The daemon of one node: its parts made and joined, its start, its tasks, its status. Shell.

Start: who we are; the journal, the leases and the kernel are read and made to agree
(`ipamd.witnesses`); only then may anybody ask, and only then EC2. What a pod already has is
served from the first moment, whatever AWS answers. Everything outside is reached through
`Ports`. What runs then is in `ipamd.engine`, `ipamd.upkeep`, `ipamd.reconcile`
and `ipamd.told_by_aws`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cni.frame import Frame
from cni.kernel import NodeError
from cni.spec import Attached, CniError, Collect, Request, Verb
from eni.errors import EniError
from eni.model import ImdsEni, SubnetId
from ipamd import __version__, heard, status, wires, witnesses
from ipamd.attachments import Attachments, Client, Node, read_request
from ipamd.budget import Budget
from ipamd.caches import Cache, Caches
from ipamd.ec2_line import Ec2Line
from ipamd.engine import Engine, start_spread_seconds
from ipamd.eni_book import EniBook, Home
from ipamd.flights import Flights
from ipamd.garbage import collect
from ipamd.holdings import Holdings
from ipamd.journal import Journal, JournalError
from ipamd.leases import Leases
from ipamd.lifecycle import Lifecycle
from ipamd.nat_table import NatTable
from ipamd.outlook import Outlook
from ipamd.places import RESERVED, SUBNETS_SECONDS, Places
from ipamd.pool import Pool
from ipamd.ports import Ports, run_in
from ipamd.reconcile import Reconcile
from ipamd.replies import Shortage
from ipamd.settings import Settings
from ipamd.subnets import Candidate, Subnets
from ipamd.surroundings import look_around
from ipamd.terms import Mode, modes_of
from ipamd.told_by_aws import IMDS_ENIS, IMDS_SECONDS, TYPES, TYPES_SECONDS, ToldByAws
from ipamd.told_by_cluster import ToldByCluster
from ipamd.upkeep import Upkeep
from ipamd.wired import TABLES, WIRED, Wired, note_tables, note_wired, read_tables

log = logging.getLogger(__name__)

REWIRE_SECONDS = 10.0
"""Until ENIs are set up again that the kernel refused to."""


class Daemon:
    """Everything that runs on one node."""

    def __init__(
        self, settings: Settings, ports: Ports, *, journal: Journal, leases: Leases, spool_in: Path
    ) -> None:
        self.ports, self.outlook = ports, Outlook(settings)
        self.journal, self.leases, self.spool_in = journal, leases, spool_in
        self.pool = Pool()
        self.caches = Caches(timer=lambda: ports.clock().boot, jitter=ports.random)
        self.imds_keys: Cache[str, ImdsEni] = self.caches.cache(
            "imds", size=IMDS_ENIS, age_seconds=IMDS_SECONDS
        )
        self.complaint: str | None = None
        """Why the last change of the settings was not made."""
        self.before_us = ""
        """Whose conflist the runtime reads instead of ours."""
        self.served = self.is_running = False
        self._other_wire = asyncio.Event()
        self.on_answer: Callable[[Verb, Attached | CniError | None, float], None] = lambda *_: None
        self.on_counted: Callable[[str, int], None] = lambda *_: None
        """Told of what is counted: leases_rebuilt, leases_dropped, flows_purged, repaired_*,
        unrepaired_*, events_*, written_*, unwritten_*."""

    @property
    def settings(self) -> Settings:
        """What holds now."""
        return self.outlook.settings

    # Start -----------------------------------------------------------------------------
    async def start(self) -> None:
        """Read all witnesses and make them agree. Raises StartError where no pod can be served."""
        ports, threads = self.ports, self.ports.threads
        self.net = await run_in(threads.net, ports.make_net)
        self._lacks = await witnesses.check_node(self.net, threads, self.settings)
        self.background_net = await run_in(threads.back, ports.make_net)
        self.wiring = await run_in(threads.wire, ports.make_wiring)
        self.mender = await run_in(threads.net, ports.make_mender)
        self.pod_mender = await run_in(threads.wire, ports.make_mender)
        self.ears = ports.make_ears()
        self.around = await look_around(
            ports.imds, self.journal, partial(run_in, threads.imds), self._is_here
        )
        believes_imds = witnesses.check_journal(
            self.journal, self.leases, self.around, provisioning=self.settings.provisioning
        )
        self.ec2 = ports.make_ec2(self.around.identity.region)
        self.outlook.limits = witnesses.known_limits(self.journal, self.around)
        self.outlook.say_effects()
        self._make_parts()
        if witnesses.begin_life(self.journal):
            self.engine.census.look_twice()
        await self._witnesses(believes_imds=believes_imds).agree()
        self.upkeep.cools.set()

    async def _is_here(self, mac: str) -> bool:
        return await run_in(self.ports.threads.net, self.net.find_link, mac) is not None

    def _make_parts(self) -> None:
        s, ports, around = self.settings, self.ports, self.around
        self.line = Ec2Line(
            executor=ports.threads.cloud,
            budget=Budget(ports.account_limits, s.nodes or heard.noted_nodes(self.journal)),
            clock=lambda: ports.clock().boot,
            random=ports.random,
        )
        self.lifecycle = Lifecycle(
            EniBook(
                ec2=self.ec2,
                line=self.line,
                net=self.net,
                journal=self.journal,
                threads=ports.threads,
                home=self._home(),
                clock=ports.clock,
            ),
            ports.new_token,
        )
        self.attachments = Attachments(
            pool=self.pool,
            leases=self.leases,
            wiring=self.wiring,
            thread=ports.threads.wire,
            node=self._node(),
            cooldown_seconds=s.cooldown_seconds,
            clock=ports.clock,
            waiting_max=s.add_waiting_max,
        )
        terms = self.outlook.terms
        self.places = Places(
            ec2=self.ec2,
            line=self.line,
            vpc_id=around.vpc_id,
            availability_zone=around.identity.availability_zone,
            home=around.subnet_id,
            groups=around.security_groups,
            subnets=Subnets(mode=terms.kind, candidates=(Candidate(around.subnet_id),)),
            cidrs={around.subnet_id: around.subnet_cidr},
            answers=self.caches.cache("subnets", size=1, age_seconds=SUBNETS_SECONDS),
            kept=self.caches.cache("reservations", size=RESERVED, age_seconds=SUBNETS_SECONDS),
            cluster=s.cluster_name,
            discovery=s.subnet_discovery,
            listed=tuple(map(SubnetId, s.subnets)),
            configs=heard.noted_configs(self.journal) if s.custom_networking else None,
        )
        self.engine = Engine(
            holdings=Holdings(
                pool=self.pool,
                queue=self.attachments,
                lifecycle=self.lifecycle,
                places=self.places,
                clock=ports.clock,
                terms=terms,
            ),
            flights=Flights(ports.clock, ports.random),
            headroom=witnesses.remembered_headroom(self.journal, ports.clock()),
            start_spread_seconds=start_spread_seconds(self.line.budget),
        )
        self.caches.add("deletes", self.attachments.deleted)
        self.caches.add("failures said", self.engine.flights.said)
        self.caches.add("lease failures said", self.attachments.said)
        self._make_listeners()
        self._join()

    def _make_listeners(self) -> None:
        """Make what looks after the parts, and what hears for them."""
        ports, around = self.ports, self.around
        self.nat = NatTable(
            net=self.net,
            thread=ports.threads.net,
            node_primary=around.identity.primary,
            eni_numbers=self.outlook.limits.enis,
            settings=self.settings,
            cidrs=dict.fromkeys(around.vpc_cidrs, True),
        )
        self.by_aws = ToldByAws(
            ports=ports,
            around=around,
            outlook=self.outlook,
            ec2=self.ec2,
            line=self.line,
            engine=self.engine,
            places=self.places,
            nat=self.nat,
            journal=self.journal,
            keys=self.imds_keys,
            types=self.caches.cache("instance types", size=TYPES, age_seconds=TYPES_SECONDS),
        )
        self.by_cluster = ToldByCluster(
            outlook=self.outlook,
            engine=self.engine,
            places=self.places,
            budget=self.line.budget,
            clock=ports.clock,
            nodes=heard.noted_nodes(self.journal),
        )
        self.upkeep = Upkeep(
            pool=self.pool,
            attachments=self.attachments,
            wiring=self.wiring,
            net=self.background_net,
            journal=self.journal,
            threads=ports.threads,
            clock=ports.clock,
            spool_in=self.spool_in,
            on_call=self.on_call,
            on_counted=self.on_counted,
            on_free=self.engine.wake,
        )

        self.reconcile = Reconcile(
            pool=self.pool,
            attachments=self.attachments,
            lifecycle=self.lifecycle,
            census=self.engine.census,
            nat=self.nat,
            net=self.net,
            mender=self.mender,
            pod_mender=self.pod_mender,
            ears=self.ears,
            threads=ports.threads,
            clock=ports.clock,
            node_primary=around.identity.primary,
            on_counted=self.on_counted,
            on_seen=self.upkeep.judge,
        )

    def _join(self) -> None:
        """Let the parts tell each other what has happened."""
        attachments = self.attachments
        attachments.on_demand = self.engine.wake
        attachments.on_arrival = self.engine.arrived
        attachments.on_cooling = self.upkeep.cools.set
        attachments.on_unwired = self.upkeep.dies.set
        attachments.on_answer = self.on_answer
        attachments.on_event = self.upkeep.has_events.set
        attachments.shortage = self._shortage
        self.outlook.on_change = self.engine.set_terms
        self.nat.on_written = self._tables_written
        self.lifecycle.links.on_settled = self.reconcile.look_now
        self.reconcile.on_table = lambda found: self.upkeep.note(TABLES, note_tables(found))
        if self.settings.imds_only:
            self.engine.census.hint = self.by_aws.hint

    def _tables_written(self, is_new: bool) -> None:  # noqa: FBT001 - it answers the table
        """Note how wires are made now, for the next life and the doctor."""
        if is_new:
            self.reconcile.table_written()
        elif not self.is_running:
            self.reconcile.recall_table(read_tables(self.journal.fact(TABLES)))
        s = self.settings
        wired = Wired(
            nft=self.nat.written,
            routing=wires.routing(s),
            mtu=wires.eni_mtu(s),
            primary_mtu=s.eni_mtu,
            prefix=s.veth_prefix,
            ec2_endpoint=s.ec2_endpoint,
        )
        self.upkeep.note(WIRED, note_wired(wired))

    def _witnesses(self, *, believes_imds: bool) -> witnesses.Witnesses:
        return witnesses.Witnesses(
            ports=self.ports,
            journal=self.journal,
            leases=self.leases,
            around=self.around,
            believes_imds=believes_imds,
            net=self.net,
            wiring=self.wiring,
            mender=self.mender,
            nat=self.nat,
            outlook=self.outlook,
            holdings=self.engine.holdings,
            attachments=self.attachments,
            on_counted=self.on_counted,
        )

    def _home(self) -> Home:
        s = self.settings
        return Home(
            self.around.identity,
            wires.eni_mtu(s),
            tuple(s.additional_eni_tags.items()),
            s.cluster_name,
            primary_mtu=s.eni_mtu,
            routing=wires.routing(s),
        )

    def _node(self) -> Node:
        s, primary = self.settings, self.around.identity.primary
        return Node(primary, wires.pod_mtu(s), s.veth_prefix, ipv6=not s.disable_pod_v6)

    # Run -------------------------------------------------------------------------------
    async def run(self) -> None:
        """Do everything that is not an answer to a call, until cancelled."""
        self.is_running = True
        async with asyncio.TaskGroup() as tasks:
            for loop in (
                self.engine.run(),
                *self.upkeep.tasks(),
                self.reconcile.run(),
                self.by_aws.watch(),
                self.by_aws.confirm_limits(),
                self._rewire(),
            ):
                tasks.create_task(loop)

    def on_call(self, call: Client, frame: Frame) -> None:
        """Answer one frame, now or later."""
        match read_request(call, dict(frame.env), frame.stdin):
            case Request() as request:
                self.attachments.take(call, request, frame.started_ns, frame.deadline_ns)
            case Collect() as asked:
                now, guard = self.ports.clock(), self.settings.gc_guard_seconds
                collect(call, frame, asked, self.attachments, now=now, guard_seconds=guard)

    def unfit(self, settings: Settings) -> str:
        """Return why this node cannot live by *settings*, as a start would say it; "" if it can."""
        return self._lacks if wires.is_demanding(settings) else ""

    def apply(self, settings: Settings) -> None:
        """Work by other settings from now on."""
        self.outlook.settings = settings
        self.attachments.cooldown_seconds = settings.cooldown_seconds
        self.upkeep.cools.set()  # it sleeps as long as the former cooldown has it
        self.attachments.waiting_max = settings.add_waiting_max
        self.attachments.node = self._node()
        self.lifecycle.book.home = self._home()
        self.nat.hear_settings(settings)
        self._other_wire.set()
        self.by_cluster.share_limits()
        self.places.follow(
            cluster=settings.cluster_name,
            discovery=settings.subnet_discovery,
            listed=tuple(map(SubnetId, settings.subnets)),
        )
        self.outlook.retell()

    async def _rewire(self) -> None:
        """Bring nft tables, rules and ENIs to what the settings say, when they change."""
        while True:
            await self._other_wire.wait()
            self._other_wire.clear()
            await self.nat.renew()
            try:
                await self.lifecycle.links.set_up_anew()
            except NodeError as error:
                log.warning("enis not set up anew", extra={"reason": str(error)})
                self._other_wire.set()
                await asyncio.sleep(REWIRE_SECONDS)

    def complain(self, complaint: str | None) -> None:
        """Say, or no longer say, that the last change of the settings was not made."""
        modes = self.outlook.modes
        (modes.discard if complaint is None else modes.add)(Mode.SETTINGS_KEPT)
        self.complaint = complaint

    def hear_conflists(self, words: str) -> None:
        """Take over whose conflist comes before ours, "" if nobody's does."""
        self.before_us = words

    def end_life(self, *, is_idle: bool) -> None:
        """Note that the daemon was told to stop, if it had no call under way then."""
        self.upkeep.flush()
        if is_idle:
            witnesses.end_life(self.journal)

    # Show ------------------------------------------------------------------------------
    def _shortage(self) -> Shortage:
        return self.hindered(self.engine.trouble)

    @property
    def config_trouble(self) -> str:
        """Why an ENIConfig cannot be used, "" if all can: as it was read, and as EC2 knows it."""
        return "; ".join(filter(None, (self.by_cluster.config_trouble, self.places.misplaced)))

    def hindered(self, by: Exception | None) -> Shortage:
        """Return why no address is ready; *by* is what keeps the pool from growing."""
        census = self.pool.census()
        trouble = (self.places.is_lost and self.config_trouble) or by or self.line.away
        return Shortage(
            held=sum(c.held for c in census),
            assigned=sum(c.assigned for c in census),
            cooling=sum(c.cooling for c in census),
            enis=len(census) + len(self.engine.census.unmanaged),
            max_enis=self.engine.terms.max_enis,
            trouble=trouble if isinstance(trouble, EniError | None) else str(trouble),
            prefixes=self.places.without_prefixes(self.ports.clock()),
        )

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Every mode that holds now, the gravest first."""
        also = set(self.outlook.modes)
        if self.leases.trouble:
            also.add(Mode.NO_LEASES)
        if self.journal.trouble or any(
            isinstance(t, JournalError) for t in self.engine.flights.troubles.values()
        ):
            also.add(Mode.NO_JOURNAL)
        away = () if self.line.away is None else (self.line.away,)
        troubles = (*self.engine.flights.troubles.values(), *away)
        return modes_of(self.engine.terms, troubles, also)

    def status(self) -> status.Status:
        """Return what `enid status` shows."""
        refused = self.leases.trouble or self.journal.trouble
        trouble = refused or self.engine.trouble or self.line.away
        standing = self.by_cluster.standing
        told = (
            ("leases", self.leases.trouble),
            ("eniconfig", self.config_trouble),
            ("settings", self.complaint),
            ("conflist", self.before_us),
            ("prefixes", self.places.without_prefixes(self.ports.clock())),
            ("sweep", self.engine.terms.sweeping and self.engine.sweep.trouble),
        )
        identity = self.around.identity
        census = self.pool.census()
        self.served = self.served or any(c.free or c.assigned for c in census)
        modes = self.modes
        return status.Status(
            version=__version__,
            mode=modes[0].value,
            modes=[mode.value for mode in modes],
            trouble=str(trouble or self.config_trouble or "") or None,
            troubles=[
                f"{what}: {error}"
                for what, error in (*self.engine.flights.troubles.items(), *told)
                if error
            ]
            + [f"kernel: {trouble}" for trouble in self.reconcile.troubles],
            cluster=status.ClusterStatus(link=standing.link, sentence=standing.sentence),
            pool=str(self.engine.terms.targets or "demand") or "fixed",
            instance_id=identity.instance_id,
            instance_type=identity.instance_type,
            primary=str(identity.primary),
            ready=self.served,
            max_enis=self.engine.terms.max_enis,
            waiting=self.attachments.waiting,
            wanted=self.engine.wanted,
            enis=status.enis_of(census),
            unmanaged_enis=list(self.engine.census.unmanaged),
            leases=status.leases_of(self.attachments.rows),
            cooling=status.cooling_of(
                self.pool, self.ports.clock(), self.settings.cooldown_seconds
            ),
            ec2=status.actions_of(self.ec2.calls, self.line.counts, self.line.waiting),
            ec2_errors=status.errors_of(self.ec2.errors.copy()),
            caches=status.caches_of(self.caches.usages()),
        )
