"""The daemon of one node: its witnesses made to agree, then its tasks. Shell.

Start: who we are; the journal, the leases and the kernel are read and made to agree; only
then may anybody ask, and only then EC2. What a pod already has is served from the first
moment, whatever AWS answers. Everything outside is reached through `Ports`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import TypeVar

from cni import dataplane, nft
from cni.frame import Frame
from cni.kernel import HostLink, NodeError, WireError
from cni.spec import Attached, CniError, Pod, Sandbox, Verb
from eni import limits as types
from eni.errors import EniError
from eni.limits import InstanceLimits, shipped
from eni.model import Block, Eni, EniId, ImdsEni, Notices, SubnetId
from ipamd import __version__, demand, heard, spool, status
from ipamd.attachments import Attachments, Client, Node, read_request
from ipamd.budget import Budget, Priority, start_jitter_seconds
from ipamd.caches import Cache, Caches
from ipamd.cluster import Link, Standing
from ipamd.ec2_line import Ec2Line
from ipamd.engine import START_JITTER_SECONDS, Engine
from ipamd.flights import Flights
from ipamd.holdings import Holdings
from ipamd.intents import EniState, Held, Intent, Noted, is_foreign, note, noted
from ipamd.journal import Journal, JournalError
from ipamd.lease import LeaseRow
from ipamd.leases import Leases, LeasesError
from ipamd.lifecycle import Home, Lifecycle
from ipamd.places import SUBNETS_SECONDS, Places
from ipamd.pool import Pool, PoolEni
from ipamd.ports import Ports
from ipamd.replies import Shortage
from ipamd.settings import Settings
from ipamd.start import NodeUnfitError
from ipamd.subnets import Candidate, Subnets
from ipamd.surroundings import as_eni, look_around, note_surroundings, read_notes
from ipamd.terms import Mode, Terms, Told, modes_of, terms_of

log = logging.getLogger(__name__)
T = TypeVar("T")

MTU = 9001
"""The MTU of an ENI inside a VPC; pods get the same."""

PATIENCE_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Between tries of what the kernel refuses at the start; after them the daemon ends, saying so."""

LOOK_SECONDS = 30.0
"""Between looks at the host veths; one dump of 700 links takes some milliseconds."""

SECOND_LOOK_SECONDS = 3.0
"""Until the look that confirms an absence: soon, yet a plugin that reconnects to a daemon
that was killed has its lease still."""

WATCH_SECONDS = 10.0
"""Between looks at IMDS: a spot interruption is told two minutes ahead; IMDS is in the host."""

IMDS_SECONDS = 10.0
"""How long IMDS's word on the ENIs is believed. It is what tells soonest that one was detached by
hand, whose free addresses must go to no pod: by the look after that (tests/chaos, seed 915)."""

IMDS_KEYS = 4
"""Answers of IMDS that are remembered; today the one of all ENIs."""

LIMITS_SECONDS = 300.0
"""Until EC2 is asked again for the type's limits; our table serves meanwhile."""

FLUSH_SECONDS = 1.0
"""How long events are gathered before they are written to the disk together."""

HEADROOM_EVENTS = 500
"""How many events of the journal tell how pods used to come, after a restart."""

HEARING_SECONDS = 10.0
"""How long the first growth waits for the cluster's word on how many pods are bound here, so
that they are asked for in one call. An answer takes a tenth of a second; an ADD waits for none."""

LEARN_SECONDS = 3600.0
"""How far back they tell it: after six half-lives nothing of it is left."""


class Daemon:
    """Everything that runs on one node."""

    def __init__(
        self, settings: Settings, ports: Ports, *, journal: Journal, leases: Leases, spool_in: Path
    ) -> None:
        self.settings, self.ports = settings, ports
        self.journal, self.leases, self.spool_in = journal, leases, spool_in
        self.pool = Pool()
        self.caches = Caches(timer=lambda: ports.clock().boot, jitter=ports.random)
        self.imds_keys: Cache[str, tuple[ImdsEni, ...]] = self.caches.cache(
            "imds", size=IMDS_KEYS, age_seconds=IMDS_SECONDS
        )
        self.told = Told(notices=Notices())
        self.also: set[Mode] = set()
        """Modes that this class knows of and the engine does not."""
        self.complaint: str | None = None
        self.config_trouble = ""
        self.cluster = Standing(Link.OFF)
        self._absent: set[Sandbox] = set()
        self._vpc_cidrs: dict[IPv4Network, bool] = {}
        self._nft_is_old = False
        self._spooled = 0
        self._nodes = 1
        """How many nodes share the account's limits, as the cluster told last."""
        self._cools, self._has_events = asyncio.Event(), asyncio.Event()
        self.served = False
        self.on_answer: Callable[[Verb, Attached | CniError | None, float], None] = lambda *_: None
        self.on_counted: Callable[[str, int], None] = lambda *_: None
        """Told of what is counted here: leases_rebuilt, leases_dropped, flows_purged."""

    # Start -----------------------------------------------------------------------------
    async def start(self) -> None:
        """Read all witnesses and make them agree. Raises StartError where no pod can be served."""
        threads = self.ports.threads
        self.net = await self._in(threads.net, self.ports.make_net)
        self.background_net = await self._in(threads.back, self.ports.make_net)
        self.wiring = await self._in(threads.wire, self.ports.make_wiring)
        self.around = await look_around(
            self.ports.imds, self.journal, self._ask_cloud, self._is_here
        )
        self._check_journal()
        self.ec2 = self.ports.make_ec2(self.around.identity.region)
        self.limits = self._known_limits()
        self._make_parts()
        self._begin_life()
        await self.lifecycle.load()
        await self._insist(self._prepare_node)
        self._fill_pool()
        links = await self._insist(partial(self._in, threads.wire, self.wiring.links))
        self._restore_leases(links)
        await self._insist(self._guard_all)

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what *work*, which may be done twice, returns; a kernel short of memory recovers.

        To end here would stop nothing but the answers to pods.
        """
        for wait in PATIENCE_SECONDS:
            try:
                return await work()
            except (NodeError, WireError) as error:
                log.warning("kernel refuses, trying again", extra={"reason": str(error)})
                await asyncio.sleep(wait)
        return await work()

    async def _in(self, thread: Executor, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)

    async def _ask_cloud(self, work: Callable[..., T], *arguments: object) -> T:
        return await self._in(self.ports.threads.cloud, work, *arguments)

    async def _is_here(self, mac: str) -> bool:
        return await self._in(self.ports.threads.net, self.net.find_link, mac) is not None

    def _check_journal(self) -> None:
        """Set aside a journal that another instance has written: its disk became our image."""
        former = read_notes(self.journal)
        ours = self.around.identity.instance_id
        # IMDS may be late: it is believed where there is no better witness.
        is_first = former is None or former.identity.instance_id != ours
        told_nothing = self.journal.trouble is not None or not self.settings.provisioning
        self._believes_imds = is_first or told_nothing
        if former is not None and former.identity.instance_id != ours:
            self.journal.set_aside(f"of-{former.identity.instance_id}")
            self.leases.clear()
        note_surroundings(self.journal, self.around)

    def _known_limits(self) -> InstanceLimits:
        """Return what EC2 told a former life, or our table; else what is here, and no more.

        EC2 is asked only after the first census: its answer wins, also in the next life.
        """
        kind = self.around.identity.instance_type
        known = types.from_note(self.journal.fact(f"limits {kind}")) or shipped(kind)
        if known is not None:
            return known
        log.warning("limits unknown: no growth until ec2 tells", extra={"type": kind})
        enis = [i.device_index for i in self.journal.intents()]
        blocks = Counter(eni_id for _, eni_id, _ in self.journal.blocks())
        return InstanceLimits(
            instance_type=kind,
            enis=len(enis) + 1,
            ipv4_per_eni=1 + max(blocks.values(), default=len(self.around.primary_blocks)),
            ipv6_per_eni=0,
            cards=((0, len(enis) + 1),),
            hypervisor="nitro",
            bare_metal=False,
            vcpus=0,
        )

    def _make_parts(self) -> None:
        s, ports, around = self.settings, self.ports, self.around
        self.line = Ec2Line(
            executor=ports.threads.cloud,
            budget=Budget(ports.account_limits, s.nodes or self._nodes),
            clock=lambda: ports.clock().boot,
            random=ports.random,
        )
        self.lifecycle = Lifecycle(
            ec2=self.ec2,
            line=self.line,
            net=self.net,
            journal=self.journal,
            threads=ports.threads,
            home=self._home(),
            clock=ports.clock,
            new_token=ports.new_token,
        )
        self.attachments = Attachments(
            pool=self.pool,
            leases=self.leases,
            wiring=self.wiring,
            thread=ports.threads.wire,
            node=Node(around.identity.primary, MTU),
            cooldown_seconds=s.cooldown_seconds,
            clock=ports.clock,
            waiting_max=s.add_waiting_max,
        )
        terms = self._terms()
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
            headroom=self._remembered_headroom(),
            start_jitter_seconds=max(
                START_JITTER_SECONDS,
                start_jitter_seconds(self.line.budget.nodes, ports.account_limits),
            ),
        )
        if s.imds_only:
            self.engine.census.hint = self._hint
        self.caches.add("deletes", self.attachments.deleted)
        self.caches.add("failures said", self.engine.flights.said)
        attachments = self.attachments
        attachments.on_demand = self.engine.wake
        attachments.on_arrival = self.engine.arrived
        attachments.on_cooling = self._cools.set
        attachments.on_unwired = self._reap_soon
        attachments.on_answer = self.on_answer
        attachments.on_event = self._has_events.set
        attachments.shortage = self._shortage

    def apply(self, settings: Settings) -> None:
        """Work by other settings from now on."""
        self.settings = settings
        self.attachments.cooldown_seconds = settings.cooldown_seconds
        self.attachments.waiting_max = settings.add_waiting_max
        self.lifecycle.home = self._home()
        self.line.budget.set_nodes(settings.nodes or self._nodes)
        self.places.follow(
            cluster=settings.cluster_name,
            discovery=settings.subnet_discovery,
            listed=tuple(map(SubnetId, settings.subnets)),
        )
        self._retell()

    # What a cluster tells ----------------------------------------------------------------
    def hear_node(self, *, unschedulable: bool, max_pods: int | None) -> None:
        """Take over what this node's Node says."""
        self.told = replace(self.told, unschedulable=unschedulable, max_pods=max_pods)
        self._retell()

    def hear_bound(self, bound: int) -> None:
        """Take over how many pods of this node need an address."""
        self.told = replace(self.told, bound=bound)
        self._retell()

    def hear_nodes(self, nodes: int) -> None:
        """Take over how many nodes share the account's limits, unless a setting says it."""
        self._nodes = max(1, nodes)
        self.line.budget.set_nodes(self.settings.nodes or self._nodes)

    def await_cluster(self, standing: Standing) -> None:
        """Let the first growth wait a while for what the cluster tells."""
        self.cluster = standing
        self.engine.patient_until = self.ports.clock().later(HEARING_SECONDS)

    def hear_standing(self, standing: Standing) -> None:
        """Take over how we stand with the API server."""
        self.cluster = standing
        if standing.link is Link.AWAY:
            self._say(Mode.API_AWAY, standing.sentence)
            self.engine.patient_until = None
            self.engine.wake()
        else:
            self.also.discard(Mode.API_AWAY)

    def hear_configs(self, configs: Sequence[Candidate] | None, trouble: str) -> None:
        """Take over where ENIConfigs place new ENIs; None: nothing new is known.

        *trouble* is why one of them, or all, cannot be used.
        """
        if trouble and trouble != self.config_trouble:
            log.warning("eniconfig not used", extra={"reason": trouble})
        self.config_trouble = trouble
        if configs is not None and tuple(configs) != self.places.configs:
            self.places.set_configs(configs)
            self.engine.holdings.apply_terms()
            self.engine.wake()

    def complain(self, complaint: str | None) -> None:
        """Say, or no longer say, that the last change of the settings was not made."""
        (self.also.discard if complaint is None else self.also.add)(Mode.SETTINGS_KEPT)
        self.complaint = complaint

    def _home(self) -> Home:
        tags = tuple(self.settings.additional_eni_tags.items())
        return Home(self.around.identity, MTU, tags, self.settings.cluster_name)

    def _terms(self) -> Terms:
        return terms_of(self.settings, self.limits, self.told)

    def _retell(self) -> None:
        """Let the engine know what has changed."""
        self.engine.set_terms(self._terms())

    def _remembered_headroom(self) -> demand.Headroom:
        """Return the headroom that the arrivals which the journal remembers have taught."""
        now = self.ports.clock()
        arrivals = sorted(
            now.later(event.at - now.wall)
            for event in self.journal.history(HEADROOM_EVENTS)
            if event.event == "address assigned" and 0 <= now.wall - event.at < LEARN_SECONDS
        )
        return demand.replay(
            demand.Headroom(demand.HEADROOM_MIN, now.later(-LEARN_SECONDS)), arrivals
        )

    async def _prepare_node(self) -> None:
        """Check the kernel, write the nft table, set up the ENIs that the journal knows."""
        net = self.ports.threads.net
        complaints = (
            *await self._in(net, self.net.missing_features),
            *await self._in(net, self.net.sysctl_complaints),
        )
        if complaints:
            raise NodeUnfitError("; ".join(complaints))
        self._vpc_cidrs = dict.fromkeys(self.around.vpc_cidrs, True)
        await self._write_nft()
        self.hosts = await self._in(net, self.net.host_addresses)
        self._note_primary()
        for intent in self._active():
            if intent.mac is not None and await self._is_here(intent.mac):
                await self.lifecycle.set_up_link(intent)

    async def _write_nft(self) -> None:
        wish = nft.NftWish(
            vpc_cidrs=tuple(self._vpc_cidrs),
            node_primary=self.around.identity.primary,
            eni_numbers=self.limits.enis,
        )
        await self._in(self.ports.threads.net, self.net.apply_nft, nft.render(wish))

    def _note_primary(self) -> None:
        """Make the primary ENI one of the lifecycle's; the instance was born with it."""
        around = self.around
        about = Noted(
            around.identity.primary, around.primary_blocks, around.subnet_id, around.subnet_cidr
        )
        intent = Intent(
            token="primary",  # noqa: S106 - no password
            state=EniState.ACTIVE,
            device_index=0,
            parameters={"eni": note(about)},
            eni_id=around.primary_eni,
            mac=around.identity.mac,
        )
        self.lifecycle.intents["primary"] = intent
        if self.journal.trouble is None:
            with contextlib.suppress(JournalError):
                self.journal.put(intent, self.ports.clock().wall)

    def _active(self) -> tuple[Intent, ...]:
        known = self.lifecycle.intents.values()
        return tuple(i for i in known if i.state in {EniState.ACTIVE, EniState.DRAINING})

    def _fill_pool(self) -> None:
        """Take what the journal and IMDS know; EC2 has not confirmed it yet.

        After a reboot every block of before cools from the moment of the boot: whoever had
        an address of it, peers may still send to it.
        """
        now = self.ports.clock()
        for intent in self._active():
            assert intent.eni_id is not None
            self.pool.put_eni(
                PoolEni(
                    intent.eni_id,
                    intent.device_index + 1,
                    self.limits.ipv4_per_eni - 1,
                    noted(intent).subnet_id,
                    now,
                    closed=intent.state is EniState.DRAINING,
                    excluded=intent.device_index == 0 and self.settings.custom_networking,
                    stays=is_foreign(intent),
                )
            )
        rows = self.journal.blocks()
        self._hold((b, e) for b, e, _ in rows)
        # Asked back, and nobody knows whether EC2 has it: the census tells.
        self.pool.begin_unassign(b for b, _, state in rows if state is Held.RELEASING)
        self.engine.holdings.drift.give_back(self.journal.gone(now.wall), now)
        if self._is_new_boot():
            died = self.engine.holdings.died = replace(now, boot=0.0, wall=now.wall - now.boot)
            for address in tuple(self.pool.slots):
                self.pool.cool(address, died, purged=True)
        if self._believes_imds:
            self._hold([(b, self.around.primary_eni) for b in self.around.primary_blocks])
        self.pool.set_taken(self.hosts)

    def _hold(self, blocks: Iterable[tuple[Block, EniId]]) -> None:
        for block, eni_id in blocks:
            if eni_id in self.pool.enis:
                self.pool.add(eni_id, [block], confirmed=False)

    def _begin_life(self) -> None:
        """Note that a life has begun; one that did not end may have left a call unanswered.

        What that call did EC2 may show late, so the census looks twice.
        """
        former = self.journal.fact("life")
        self._note_life("running")
        if former == "running":
            self.engine.census.look_twice()

    def end_life(self, *, is_idle: bool) -> None:
        """Note that the daemon was told to stop, if it had no call under way then."""
        self.flush()
        if is_idle:
            self._note_life("ended")

    def _note_life(self, state: str) -> None:
        if self.journal.trouble is None:
            with contextlib.suppress(JournalError):
                self.journal.note_fact("life", state)

    def _is_new_boot(self) -> bool:
        """Whether the kernel was booted since the last life; noted for the next one."""
        former = self.journal.fact("boot")
        with contextlib.suppress(JournalError):
            self.journal.note_fact("boot", self.ports.boot_id)
        return former is not None and former != self.ports.boot_id

    def _restore_leases(self, links: tuple[HostLink, ...]) -> None:
        """Make leases, kernel and pool agree: the kernel's word beats "free"."""
        moment = self.ports.clock()
        for sandbox, started_ns in self.leases.deletes(moment).items():
            self.attachments.remember_delete(sandbox, started_ns)
        rows = {row.sandbox: row for row in self.leases.rows()}
        for link in links:
            if link.group != dataplane.DYING_GROUP and link.alias.sandbox not in rows:
                row = _row_from(link, moment.wall)
                with contextlib.suppress(LeasesError):  # its veth tells the next life, too
                    self.leases.insert(row)
                rows[row.sandbox] = row
                self.on_counted("leases_rebuilt", 1)
                log.warning("lease rebuilt from its veth", extra={"ifname": link.ifname})
        for row in rows.values():
            losers = self.pool.restore(row.sandbox, row.addresses, row.eni_id)
            if losers:
                log.error("two leases of one address", extra={"sandboxes": str((row, losers))})
            self.attachments.restore(row)
        for address, eni_id, since in self.leases.cooling():
            if eni_id in self.pool.enis and address not in self.pool.slots:
                self.pool.add(eni_id, [IPv4Network(str(address))], confirmed=False)
            self.pool.cool(address, since)
        self._cools.set()

    async def _guard_all(self) -> None:
        for eni_id in tuple(self.pool.enis):
            blocks = self.pool.blocks_of(eni_id)
            await self.lifecycle.take(eni_id, blocks)
            self.lifecycle.taken(blocks)

    # Run -------------------------------------------------------------------------------
    async def run(self) -> None:
        """Do everything that is not an answer to a call, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.engine.run())
            tasks.create_task(self._cool())
            tasks.create_task(self._write_history())
            tasks.create_task(self._look())
            tasks.create_task(self._watch())
            tasks.create_task(self._drain_spool())
            tasks.create_task(self._confirm_limits())

    def on_call(self, call: Client, frame: Frame) -> None:
        """Answer one frame, now or later."""
        request = read_request(call, dict(frame.env), frame.stdin)
        if request is not None:
            self.attachments.take(call, request, frame.started_ns, frame.deadline_ns)

    async def _cool(self) -> None:
        """Purge the flows of released addresses, and free them when they have cooled."""
        while True:
            await self._cools.wait()
            self._cools.clear()
            purged = await self._purge()
            done = self.pool.settle(self.ports.clock(), self.settings.cooldown_seconds)
            if done:
                self.attachments.forget(done)
                self.attachments.hand_out()
                self.engine.wake()
            left = self.pool.next_ready(self.ports.clock(), self.settings.cooldown_seconds)
            wait = 1.0 if not purged else left
            if wait is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.1, wait)):
                        await self._cools.wait()
                self._cools.set()
            await asyncio.sleep(0.1)  # pods that go together are purged together

    async def _purge(self) -> bool:
        """Return whether the kernel knows no flow of a released address any more."""
        released = self.pool.unpurged()
        if released:
            purge = self.background_net.purge_conntrack
            try:
                number = await self._in(self.ports.threads.back, purge, released)
            except NodeError as error:
                log.warning("flows not purged", extra={"reason": str(error)})
                return False  # they stay cooling until they are
            self.on_counted("flows_purged", number)
            self.pool.mark_purged(released)
        return True

    async def _write_history(self) -> None:
        """Write what happened to the journal, a second's events at once."""
        while True:
            await self._has_events.wait()
            await asyncio.sleep(FLUSH_SECONDS)
            self._has_events.clear()
            await self._in(self.ports.threads.journal, self.flush)

    def flush(self) -> None:
        """Write what happened to the journal."""
        events, self.attachments.events = self.attachments.events, []
        if events and self.journal.trouble is None:
            with contextlib.suppress(JournalError):
                self.journal.record(events)

    def _reap_soon(self) -> None:
        asyncio.get_running_loop().call_later(0.2, self._reap)

    def _reap(self) -> None:
        done = asyncio.get_running_loop().run_in_executor(self.ports.threads.back, self.wiring.reap)
        done.add_done_callback(_reaped)

    async def _look(self) -> None:
        """Release leases whose veth is gone on two looks."""
        while True:
            try:
                links = await self._in(self.ports.threads.wire, self.wiring.links)
            except WireError as error:
                log.warning("links not read", extra={"reason": str(error)})
                await asyncio.sleep(SECOND_LOOK_SECONDS)
                continue
            there = {link.alias.sandbox for link in links}
            absent = {
                row.sandbox
                for row in self.attachments.rows
                if row.sandbox not in there and not self.attachments.is_busy(row.sandbox)
            }
            for sandbox in sorted(absent & self._absent, key=str):
                log.warning("lease without a veth released", extra={"sandbox": str(sandbox)})
                self.on_counted("leases_dropped", 1)
                self.attachments.drop(sandbox)
            self._absent = absent - self._absent
            await asyncio.sleep(SECOND_LOOK_SECONDS if self._absent else LOOK_SECONDS)

    async def _watch(self) -> None:
        """Learn from IMDS what AWS is about to do, and what the primary ENI is like now."""
        imds = self.ports.imds
        while True:
            try:
                notices = await self._ask_cloud(imds.notices)
                enis = await self.imds_keys.fetch("enis", partial(self._ask_cloud, imds.enis))
            except EniError as error:
                self._say(Mode.IMDS_AWAY, error)
            else:
                self.also.discard(Mode.IMDS_AWAY)
                self.told = replace(self.told, notices=notices)
                await self._hear(enis)
                self._retell()
            await asyncio.sleep(WATCH_SECONDS)

    async def _hint(self) -> tuple[Eni, ...]:
        """Return what IMDS tells of our ENIs, instead of EC2."""
        found = await self._ask_cloud(self.ports.imds.enis)
        self.places.cidrs |= {eni.subnet_id: eni.subnet_cidr for eni in found}
        return tuple(as_eni(eni, self.around.identity.instance_id) for eni in found)

    def _say(self, mode: Mode, error: object) -> None:
        if mode not in self.also:
            log.warning("mode", extra={"mode": mode.value, "reason": str(error)})
        self.also.add(mode)

    async def _hear(self, enis: Collection[ImdsEni]) -> None:
        """Take over groups and VPC CIDRs; a CIDR that is missing once is not gone."""
        self.engine.census.hear([eni.id for eni in enis])
        self.engine.wake_if_due()
        primary = next((e for e in enis if e.id == self.around.primary_eni), None)
        if primary is None:
            return
        if not self.settings.custom_networking:
            self.engine.set_groups(primary.security_groups)
            self.places.set_groups(primary.security_groups)
        told = {c for c in primary.vpc_cidrs if isinstance(c, IPv4Network)}
        keep = {c: c in told for c, seen in self._vpc_cidrs.items() if seen or c in told}
        keep |= dict.fromkeys(told, True)
        self._nft_is_old |= keep.keys() != self._vpc_cidrs.keys()
        self._vpc_cidrs = keep
        await self._renew_nft()

    async def _renew_nft(self) -> None:
        """Write the nft table anew if it is not as it should be; each look tries until it is."""
        if not self._nft_is_old:
            return
        try:
            await self._write_nft()
        except NodeError as error:
            log.warning("nft table is old", extra={"reason": str(error)})
        else:
            self._nft_is_old = False

    async def _confirm_limits(self) -> None:
        """Ask EC2 for the instance type's limits: its answer wins over our table."""
        await self.engine.census.done.wait()
        kind = self.around.identity.instance_type
        if self.settings.imds_only:
            return
        while True:
            try:
                found = await self.line.call(Priority.SWEEP, self.ec2.limits, kind)
                break
            except EniError as error:
                log.warning("limits not confirmed", extra={"type": kind, "reason": str(error)})
                await asyncio.sleep(LIMITS_SECONDS)
        with contextlib.suppress(JournalError):
            write = self.journal.note_fact
            await self._in(self.ports.threads.journal, write, f"limits {kind}", types.noted(found))
        if found != self.limits:
            log.warning("ec2 knows other limits", extra={"limits": str(found)})
            self.limits = found
            self._nft_is_old = True
            await self._renew_nft()
            self._retell()

    async def _drain_spool(self) -> None:
        for _ in range(2):
            for call in spool.drain(self.spool_in, self._spooled + 1):
                self._spooled += 1
                self.on_call(call, call.frame)
            await asyncio.sleep(1)

    # Show ------------------------------------------------------------------------------
    def _shortage(self) -> Shortage:
        census = self.pool.census()
        is_lost = self.places.configs == ()
        trouble = (is_lost and self.config_trouble) or self.engine.trouble or self.line.away
        return Shortage(
            held=sum(c.held for c in census),
            assigned=sum(c.assigned for c in census),
            cooling=sum(c.cooling for c in census),
            enis=len(census) + len(self.engine.census.unmanaged),
            max_enis=self.engine.terms.max_enis,
            trouble=trouble if isinstance(trouble, EniError | None) else str(trouble),
        )

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Every mode that holds now, the gravest first."""
        also = set(self.also)
        if self.journal.trouble or any(
            isinstance(t, JournalError) for t in self.engine.flights.troubles.values()
        ):
            also.add(Mode.NO_JOURNAL)
        away = () if self.line.away is None else (self.line.away,)
        troubles = (*self.engine.flights.troubles.values(), *away)
        return modes_of(self.engine.terms, troubles, also)

    def status(self) -> status.Status:
        """Return what `enid status` shows."""
        trouble = self.journal.trouble or self.engine.trouble or self.line.away
        told = (("eniconfig", self.config_trouble), ("settings", self.complaint))
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
            ],
            cluster=status.ClusterStatus(link=self.cluster.link, sentence=self.cluster.sentence),
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


def _reaped(done: asyncio.Future[int]) -> None:
    if not done.cancelled() and isinstance(error := done.exception(), WireError):
        log.warning("dying links not deleted", extra={"reason": str(error)})


def _row_from(link: HostLink, wall: float) -> LeaseRow:
    """Return the lease that a host veth's alias tells of."""
    alias = link.alias
    return LeaseRow(
        sandbox=alias.sandbox,
        pod=Pod("", "", alias.pod_uid),
        addresses=tuple(ip_address(str(a)) for a in alias.addresses),
        eni_id=EniId(alias.eni_id),
        eni_number=link.group - dataplane.POD_GROUP,
        netns=None,
        started_ns=0,
        since=wall,
    )
