"""The daemon's life on one node: start, serve, stop. Shell.

Start: one daemon per node; who we are; the journal, the leases and the kernel are read
and made to agree; then the socket, and only then EC2. What a pod already has is served
from the first moment, whatever AWS answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, ip_address
from typing import TypeVar

from cni import dataplane, nft
from cni.kernel import HostLink, NodeError, WireError
from cni.netlink import NodeNetlink
from cni.spec import Pod, Sandbox
from cni.wire import KernelWiring
from eni.ec2 import Ec2
from eni.errors import EniError
from eni.imds import Imds
from eni.limits import InstanceLimits, shipped
from eni.model import EniId
from ipamd import __version__, metrics, spool, status, web
from ipamd.attachments import Attachments, Node, read_request
from ipamd.clock import Instant
from ipamd.cloud import Cloud, Home
from ipamd.configuration import Configuration
from ipamd.decide import Targets
from ipamd.engine import Engine
from ipamd.journal import EniState, Held, Intent, Journal, JournalError
from ipamd.lease import LeaseRow
from ipamd.pool import Pool, PoolEni
from ipamd.replies import Shortage
from ipamd.server import Call, Server
from ipamd.start import (
    NodeUnfitError,
    Paths,
    StoppedError,
    lock,
    make_folders,
    open_leases,
)
from ipamd.surroundings import look_around

log = logging.getLogger(__name__)
T = TypeVar("T")

MTU = 9001
"""The MTU of an ENI inside a VPC; pods get the same."""

LOOK_SECONDS = 10.0
"""Between looks at the host veths; one dump of 700 links takes some milliseconds."""

LIMITS_SECONDS = 300.0
"""Until EC2 is asked again for the type's limits; our table serves meanwhile."""

SECOND_LOOK_SECONDS = 3.0
"""Until the look that confirms an absence: soon, yet a plugin that reconnects to a daemon
that was killed has its lease still."""


def now() -> Instant:
    """Return this moment."""
    return Instant(boot=time.clock_gettime(time.CLOCK_BOOTTIME), wall=time.time())


class Daemon:
    """Everything that runs on one node."""

    def __init__(self, configuration: Configuration, paths: Paths) -> None:
        self.configuration, self.paths = configuration, paths
        self.settings = configuration.settings
        self.journal = Journal(paths.state / "journal.db")
        self.leases = open_leases(paths)
        self.pool = Pool()
        self.stop = threading.Event()
        self._cloud_thread = ThreadPoolExecutor(1, "cloud")
        self._wire_thread = ThreadPoolExecutor(1, "wire")
        self._back_thread = ThreadPoolExecutor(1, "background")
        self._absent: set[Sandbox] = set()
        self._spooled = 0
        self.served = False

    # Start -----------------------------------------------------------------------------
    async def start(self) -> None:
        """Read all witnesses, make the kernel agree, and serve."""
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.around = await loop.run_in_executor(
            self._cloud_thread, look_around, Imds(), self.journal, self.stop
        )
        self.ec2 = Ec2(region=self.around.identity.region)
        self.limits = await loop.run_in_executor(self._cloud_thread, self._limits)
        await loop.run_in_executor(self._cloud_thread, self._prepare_node)
        self.background_net = await loop.run_in_executor(self._back_thread, NodeNetlink)
        self.wiring = await loop.run_in_executor(self._wire_thread, KernelWiring)
        links = await loop.run_in_executor(self._wire_thread, self.wiring.links)
        self._make_parts()
        self._fill_pool()
        self._restore_leases(links)
        await loop.run_in_executor(self._cloud_thread, self._guard_all)
        self.server = Server(self.paths.socket, self._on_call)
        self.server.listen()
        self.stop_web = web.serve(loop, self.status)
        log.info(
            "serving", extra={"socket": str(self.paths.socket), "leases": len(self.leases.rows())}
        )

    @property
    def max_enis(self) -> int:
        """How many ENIs the node may have, the primary included."""
        return min(self.limits.enis, self.settings.max_eni or self.limits.enis)

    def _limits(self) -> InstanceLimits:
        """Return what the table or, for a younger type, EC2 says; it may take EC2 a while."""
        kind = self.around.identity.instance_type
        while (limits := shipped(kind)) is None:
            try:
                return self.ec2.limits(kind)
            except EniError as error:
                log.warning("limits unknown", extra={"type": kind, "reason": str(error)})
                if self.stop.wait(5.0):
                    raise StoppedError("stopped before EC2 told the limits") from None
        return limits

    def _prepare_node(self) -> None:
        """Check the kernel, write the nft table, set up the ENIs that the journal knows."""
        around = self.around
        net = NodeNetlink()
        complaints = (*net.missing_features(), *net.sysctl_complaints())
        if complaints:
            raise NodeUnfitError("; ".join(complaints))
        home = Home(
            identity=around.identity,
            subnet_id=around.subnet_id,
            subnet_cidr=around.subnet_cidr,
            security_groups=around.security_groups,
            mtu=MTU,
        )
        self.cloud = Cloud(
            ec2=self.ec2, net=net, journal=self.journal, home=home, wall=time.time, stop=self.stop
        )
        self.cloud_net = net
        self._write_nft()
        self.host_addresses = net.host_addresses()
        self.known = (self._primary_intent(), *self._active_intents())
        for intent in self.known:
            if intent.mac is not None and net.find_link(intent.mac) is not None:
                self.cloud.set_up_link(intent)

    def _write_nft(self) -> None:
        wish = nft.NftWish(
            vpc_cidrs=self.around.vpc_cidrs,
            node_primary=self.around.identity.primary,
            eni_numbers=self.limits.enis,
        )
        self.cloud_net.apply_nft(nft.render(wish))

    def _primary_intent(self) -> Intent:
        around = self.around
        intent = Intent(
            token="primary",  # noqa: S106 - no password
            state=EniState.ACTIVE,
            device_index=0,
            parameters={
                "eni": {
                    "primary": str(around.identity.primary),
                    "secondary": [str(a) for a in around.primary_secondaries],
                    "subnet_id": around.subnet_id,
                }
            },
            eni_id=around.primary_eni,
            mac=around.identity.mac,
        )
        if self.journal.trouble is None:
            with contextlib.suppress(JournalError):
                self.journal.put(intent, time.time())
        return intent

    def _active_intents(self) -> tuple[Intent, ...]:
        return tuple(
            i for i in self.journal.intents() if i.state is EniState.ACTIVE and i.device_index > 0
        )

    def _make_parts(self) -> None:
        self.attachments = Attachments(
            pool=self.pool,
            leases=self.leases,
            wiring=self.wiring,
            thread=self._wire_thread,
            node=Node(self.around.identity.primary, MTU),
            cooldown_seconds=self.settings.cooldown_seconds,
            clock=now,
        )
        s = self.settings
        self.engine = Engine(
            attachments=self.attachments,
            cloud=self.cloud,
            thread=self._cloud_thread,
            targets=Targets(
                1 if s.demand else s.warm_eni_target or 0,
                s.warm_ip_target or 0,
                s.minimum_ip_target or 0,
            ),
            max_enis=self.max_enis,
            per_eni=self.limits.ipv4_per_eni - 1,
            clock=now,
            jitter=random.random,
        )
        self.attachments.on_answer = metrics.observe
        self.attachments.on_demand = self.engine.wake
        self.attachments.on_unwired = self._reap_soon
        self.attachments.shortage = self._shortage

    def _fill_pool(self) -> None:
        """Take what the journal and IMDS know; EC2 has not confirmed it yet."""
        for intent in self.known:
            assert intent.eni_id is not None
            self.pool.put_eni(
                PoolEni(intent.eni_id, intent.device_index + 1, self.limits.ipv4_per_eni - 1, now())
            )
        held = [(a, e) for a, e, state in self.journal.addresses() if state is Held.HELD]
        held += [(a, self.around.primary_eni) for a in self.around.primary_secondaries]
        for address, eni_id in held:
            if eni_id in self.pool.enis:
                self.pool.add(eni_id, [address], confirmed=False)
        self.pool.set_taken(self.host_addresses)

    def _restore_leases(self, links: tuple[HostLink, ...]) -> None:
        """Make leases, kernel and pool agree: the kernel's word beats "free"."""
        moment = now()
        for sandbox, started_ns in self.leases.deletes(moment).items():
            self.attachments.remember_delete(sandbox, started_ns)
        rows = {row.sandbox: row for row in self.leases.rows()}
        for link in links:
            if link.group != dataplane.DYING_GROUP and link.alias.sandbox not in rows:
                row = _row_from(link)
                self.leases.insert(row)
                rows[row.sandbox] = row
                metrics.leases_rebuilt.inc()
                log.warning("lease rebuilt from its veth", extra={"ifname": link.ifname})
        for row in rows.values():
            losers = self.pool.restore(row.sandbox, row.addresses, row.eni_id)
            if losers:
                log.error("two leases of one address", extra={"sandboxes": str((row, losers))})
            self.attachments.restore(row)
        for address, eni_id, since in self.leases.cooling():
            if eni_id in self.pool.enis:
                self.pool.add(eni_id, [address], confirmed=False)
            self.pool.cool(address, since)

    def _guard_all(self) -> None:
        by_eni: dict[EniId, list[IPv4Address]] = {}
        for address, slot in self.pool.slots.items():
            if isinstance(address, IPv4Address):
                by_eni.setdefault(slot.eni_id, []).append(address)
        with contextlib.suppress(JournalError):  # the engine says so, loudly, when it grows
            for eni_id, addresses in by_eni.items():
                self.cloud.take(eni_id, addresses)

    # Run -------------------------------------------------------------------------------
    async def run(self) -> None:
        """Serve until told to stop."""
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, stopped.set)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self.engine.run()),
                tasks.create_task(self._tick()),
                tasks.create_task(self._look()),
                tasks.create_task(self._drain_spool()),
                tasks.create_task(self._confirm_limits()),
            ]
            await stopped.wait()
            log.info("stopping")
            self.stop.set()
            self.server.close()
            for task in running:
                task.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self.stop_web)
        self._flush()
        self.journal.close()
        self.leases.close()

    def _on_call(self, call: Call) -> None:
        command = call.frame.env.get("ENID_COMMAND")
        if command in {"STATUS", "SETTINGS"}:
            shown = self.status() if command == "STATUS" else self.configuration.report()
            call.reply(0, json.dumps(shown).encode())
            call.close()
            return
        self._take(call)

    def _take(self, call: Call | spool.SpooledCall) -> None:
        request = read_request(call, dict(call.frame.env), call.frame.stdin)
        if request is not None:
            self.attachments.take(call, request, call.frame.started_ns, call.frame.deadline_ns)

    async def _tick(self) -> None:
        """Once a second: free what has cooled, purge flows, write history."""
        while True:
            await asyncio.sleep(1)
            await self._purge()
            done = self.pool.settle(now(), self.settings.cooldown_seconds)
            if done:
                self.leases.forget_cooling(done)
                self.attachments.hand_out()
            self.served = self.served or any(c.free or c.assigned for c in self.pool.census())
            await self._back(self._flush)

    async def _purge(self) -> None:
        released = self.pool.unpurged()
        if released:
            try:
                number = await self._back(self.background_net.purge_conntrack, released)
            except NodeError as error:
                log.warning("flows not purged", extra={"reason": str(error)})
                return  # they stay cooling until they are
            metrics.flows_purged.inc(number)
            self.pool.mark_purged(released)

    async def _back(self, work: Callable[..., T], *arguments: object) -> T:
        return await self.loop.run_in_executor(self._back_thread, work, *arguments)

    def _flush(self) -> None:
        events, self.attachments.events = self.attachments.events, []
        if events and self.journal.trouble is None:
            with contextlib.suppress(JournalError):
                self.journal.record(events)

    def _reap_soon(self) -> None:
        self.loop.call_later(0.2, self._back_thread.submit, self._reap)

    def _reap(self) -> None:
        try:
            self.wiring.reap()
        except WireError as error:
            log.warning("dying links not deleted", extra={"reason": str(error)})

    async def _look(self) -> None:
        """Release leases whose veth is gone on two looks."""
        while True:
            try:
                links = await self.loop.run_in_executor(self._wire_thread, self.wiring.links)
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
            for sandbox in absent & self._absent:
                log.warning("lease without a veth released", extra={"sandbox": str(sandbox)})
                metrics.leases_dropped.inc()
                self.attachments.drop(sandbox)
            self._absent = absent - self._absent
            await asyncio.sleep(SECOND_LOOK_SECONDS if self._absent else LOOK_SECONDS)

    async def _confirm_limits(self) -> None:
        """Ask EC2 for the instance type's limits: its answer wins over our table."""
        await self.engine.censused.wait()
        kind = self.around.identity.instance_type
        while True:
            try:
                found = await self.loop.run_in_executor(self._cloud_thread, self.ec2.limits, kind)
                break
            except EniError as error:
                log.warning("limits not confirmed", extra={"type": kind, "reason": str(error)})
                await asyncio.sleep(LIMITS_SECONDS)
        if found != self.limits:
            log.warning("ec2 knows other limits", extra={"limits": str(found)})
            self.limits = found
            await self.loop.run_in_executor(self._cloud_thread, self._write_nft)
            self.engine.set_limits(self.max_enis, found.ipv4_per_eni - 1)

    async def _drain_spool(self) -> None:
        for _ in range(2):
            for call in spool.drain(self.paths.run / "spool", self._spooled + 1):
                self._spooled += 1
                self._take(call)
            await asyncio.sleep(1)

    # Show ------------------------------------------------------------------------------
    def _shortage(self) -> Shortage:
        census = self.pool.census()
        return Shortage(
            held=sum(c.held for c in census),
            assigned=sum(c.assigned for c in census),
            cooling=sum(c.cooling for c in census),
            enis=len(census) + len(self.engine.unmanaged),
            max_enis=self.max_enis,
            trouble=self.engine.trouble
            if isinstance(self.engine.trouble, EniError | None)
            else str(self.engine.trouble),
        )

    def status(self) -> status.Status:
        """Return what `enid status` shows."""
        trouble = self.journal.trouble or self.engine.trouble
        identity = self.around.identity
        return status.Status(
            version=__version__,
            mode=self.engine.mode,
            trouble=None if trouble is None else str(trouble),
            instance_id=identity.instance_id,
            instance_type=identity.instance_type,
            primary=str(identity.primary),
            ready=self.served,
            max_enis=self.max_enis,
            waiting=self.attachments.waiting,
            enis=status.enis_of(self.pool),
            unmanaged_enis=list(self.engine.unmanaged),
            leases=status.leases_of(self.attachments.rows),
            cooling=status.cooling_of(self.pool, now(), self.settings.cooldown_seconds),
            ec2_calls=dict(self.ec2.calls),
            ec2_errors=status.errors_of(self.ec2.errors.copy()),
        )


def _row_from(link: HostLink) -> LeaseRow:
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
        since=time.time(),
    )


async def _live(configuration: Configuration, paths: Paths) -> None:
    daemon = Daemon(configuration, paths)
    await daemon.start()
    await daemon.run()


def live(configuration: Configuration, paths: Paths) -> None:
    """Run the daemon until it is told to stop. Raises StartError."""
    make_folders(paths)
    held = lock(paths)
    try:
        asyncio.run(_live(configuration, paths))
    finally:
        os.close(held)
