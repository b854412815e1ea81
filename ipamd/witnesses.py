"""The start of a daemon: journal, leases, kernel and IMDS are made to agree. Shell.

Each knows a part of what this node has, and each may be behind. Before anybody may ask, and
before EC2 is asked anything, they are read in this order, and the later one wins: what the
journal holds, what IMDS tells where there is no better, who has what by the leases, and by
the wires. A wire that is there beats every file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

from cni import dataplane
from cni.desired import moved
from cni.kernel import HostLink, Mender, NodeError, NodeNet, WireError, Wiring
from cni.nft import PROBED
from cni.spec import Pod
from eni import limits as types
from eni.limits import InstanceLimits, shipped
from eni.model import Address, Block, EniId
from ipamd import demand, wires
from ipamd.attachments import Attachments
from ipamd.clock import Instant
from ipamd.holdings import Holdings
from ipamd.intents import EniState, Held, Intent, Noted, is_foreign, is_in_use, note, noted
from ipamd.journal import Journal, JournalError
from ipamd.lease import LeaseRow
from ipamd.leases import Leases, LeasesError
from ipamd.nat_table import NatTable
from ipamd.outlook import Outlook
from ipamd.pool import PoolEni
from ipamd.ports import Ports, Threads, run_in
from ipamd.settings import Settings
from ipamd.start import NodeUnfitError
from ipamd.surroundings import Surroundings, note_surroundings, read_notes

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Between tries of what the kernel refuses at the start; after them the daemon ends, saying so."""

HEADROOM_EVENTS = 500
"""How many events of the journal tell how pods used to come, after a restart."""

LEARN_SECONDS = 3600.0
"""How far back they tell it: after six half-lives nothing of it is left."""


async def check_node(net: NodeNet, threads: Threads, settings: Settings) -> str:
    """Raise NodeUnfitError naming all that pods need and this node lacks, with these *settings*.

    Nobody else needs to be asked for that, so it is said before IMDS or EC2 answer. Returns what
    it lacks for other settings, which may come while the daemon runs; "" if nothing.
    """
    wish = wires.nft_wish(
        settings,
        vpc_cidrs=PROBED.vpc_cidrs,
        node_primary=PROBED.node_primary,
        eni_numbers=PROBED.eni_numbers,
    )
    missing = partial(run_in, threads.net, net.missing_features)
    lacking = await missing(wires.most(wish))  # nothing, on most nodes: one look is enough then
    complaints = (
        *(await missing(wish) if lacking else ()),
        *await run_in(threads.net, net.sysctl_complaints, dataplane.NEEDED_SYSCTLS),
    )
    if complaints:
        raise NodeUnfitError("; ".join(complaints))
    return "; ".join(lacking)


# What the journal remembers ----------------------------------------------------------------
def check_journal(
    journal: Journal, leases: Leases, around: Surroundings, *, provisioning: bool
) -> bool:
    """Set aside a journal that another instance has written: its disk became our image.

    Return whether IMDS is to be believed on what the primary ENI has: it may be late, so
    only where there is no better witness.
    """
    former = read_notes(journal)
    ours = around.identity.instance_id
    is_first = former is None or former.identity.instance_id != ours
    believes_imds = is_first or journal.trouble is not None or not provisioning
    if former is not None and former.identity.instance_id != ours:
        journal.set_aside(f"of-{former.identity.instance_id}")
        leases.clear()
    note_surroundings(journal, around)
    return believes_imds


def known_limits(journal: Journal, around: Surroundings) -> InstanceLimits:
    """Return what EC2 told a former life, or our table; else what is here, and no more.

    EC2 is asked only after the first census: its answer wins, also in the next life.
    """
    kind = around.identity.instance_type
    known = types.from_note(journal.fact(f"limits {kind}")) or shipped(kind)
    if known is not None:
        return known
    log.warning("limits unknown: no growth until ec2 tells", extra={"type": kind})
    enis = 1 + sum(1 for i in journal.intents() if i.device_index and i.attachment_id)
    blocks = Counter(eni_id for _, eni_id, _ in journal.blocks())
    return InstanceLimits(
        instance_type=kind,
        enis=enis,
        ipv4_per_eni=1 + max(blocks.values(), default=len(around.primary_blocks)),
        ipv6_per_eni=0,
        cards=((0, enis),),
        hypervisor="nitro",
        bare_metal=False,
        vcpus=0,
    )


def remembered_headroom(journal: Journal, now: Instant) -> demand.Headroom:
    """Return the headroom that the arrivals which the journal remembers have taught."""
    arrivals = sorted(
        now.later(event.at - now.wall)
        for event in journal.history(HEADROOM_EVENTS)
        if event.event == "address assigned" and 0 <= now.wall - event.at < LEARN_SECONDS
    )
    return demand.replay(demand.Headroom(demand.HEADROOM_MIN, now.later(-LEARN_SECONDS)), arrivals)


def begin_life(journal: Journal) -> bool:
    """Note that a life has begun; return whether the one before did not end when it was idle.

    That one may have left a call unanswered, and what the call did EC2 may show late.
    """
    former = journal.fact("life")
    _note_life(journal, "running")
    return former == "running"


def end_life(journal: Journal) -> None:
    """Note that a life has ended with no call under way."""
    _note_life(journal, "ended")


def _note_life(journal: Journal, state: str) -> None:
    if journal.trouble is None:
        with contextlib.suppress(JournalError):
            journal.note_fact("life", state)


# Agreement ---------------------------------------------------------------------------------
async def insist(work: Callable[[], Awaitable[T]]) -> T:
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


@dataclass(slots=True)
class Witnesses:
    """Who is asked at the start, and what they are to agree on."""

    ports: Ports
    journal: Journal
    leases: Leases
    around: Surroundings
    believes_imds: bool
    net: NodeNet
    wiring: Wiring
    mender: Mender
    """Used in the net thread; no verb is served yet."""
    nat: NatTable
    outlook: Outlook
    holdings: Holdings
    attachments: Attachments
    on_counted: Callable[[str, int], None]
    """Told of leases_rebuilt."""

    async def agree(self) -> None:
        """Read them all. Raises StartError where no pod can be served."""
        await self.holdings.lifecycle.book.load()
        await insist(self._move_pods)
        hosts = await insist(self._prepare_node)
        self._fill_pool()
        self.holdings.pool.set_taken(hosts)
        links = await insist(partial(run_in, self.ports.threads.wire, self.wiring.links))
        self._restore_leases(links)
        await insist(self._guard_all)

    async def _move_pods(self) -> None:
        """Put pods' routes where this version has them, before anything else of it is there."""
        found = await self._in_net(self.mender.look, ())
        steps = moved(found, self.around.identity.primary)
        if not steps:
            return
        said = [word for word in await self._in_net(self.mender.mend, steps) if word]
        log.warning("pods' routes moved", extra={"pods": len(steps), "failed": said})
        if said:
            raise NodeError(f"pods' routes cannot be moved: {said[0]}")

    async def _in_net(self, work: Callable[..., T], *arguments: object) -> T:
        return await run_in(self.ports.threads.net, work, *arguments)

    async def _prepare_node(self) -> Mapping[Address, str]:
        """Write the nft table, set up the ENIs that the journal knows.

        Return which addresses are on the node's own links, and on which.
        """
        await self.nat.write()
        hosts = await self._in_net(self.net.host_addresses)
        self._note_primary()
        for intent in self._active():
            if intent.mac is None:
                continue
            link = await self._in_net(self.net.find_link, intent.mac)
            if link is not None:
                await self.holdings.lifecycle.links.set_up(intent)
        return hosts

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
        self.holdings.lifecycle.book.intents["primary"] = intent
        if self.journal.trouble is None:
            with contextlib.suppress(JournalError):
                self.journal.put(intent, self.ports.clock().wall)

    def _active(self) -> tuple[Intent, ...]:
        return tuple(filter(is_in_use, self.holdings.lifecycle.book.intents.values()))

    # The pool --------------------------------------------------------------------------
    def _fill_pool(self) -> None:
        """Take what the journal and IMDS know; EC2 has not confirmed it yet."""
        now, pool = self.ports.clock(), self.holdings.pool
        for intent in self._active():
            pool.put_eni(self._pool_eni(intent, now))
        rows = self.journal.blocks()
        self._hold((b, e) for b, e, _ in rows)
        # Asked back, and nobody knows whether EC2 has it: the census tells.
        pool.begin_unassign(b for b, _, state in rows if state is Held.RELEASING)
        self.holdings.drift.give_back(self.journal.gone(now.wall), now)
        if self.believes_imds:
            self._hold([(b, self.around.primary_eni) for b in self.around.primary_blocks])

    def _pool_eni(self, intent: Intent, now: Instant) -> PoolEni:
        assert intent.eni_id is not None
        excluded = intent.device_index == 0 and self.outlook.settings.custom_networking
        return PoolEni(
            intent.eni_id,
            intent.device_index + 1,
            self.outlook.limits.ipv4_per_eni - 1,
            noted(intent).subnet_id,
            now,
            closed=intent.state is EniState.DRAINING,
            excluded=excluded,
            stays=is_foreign(intent),
        )

    def _hold(self, blocks: Iterable[tuple[Block, EniId]]) -> None:
        pool = self.holdings.pool
        for block, eni_id in blocks:
            if eni_id in pool.enis:
                pool.add(eni_id, [block], confirmed=False)

    def _died(self) -> Instant | None:
        """Return when the pods of the boot before this one died, while that matters.

        The boot is known by the kernel's clock alone: no journal need tell of it, and a second
        life in a young boot holds back what the first one did.
        """
        now = self.ports.clock()
        if now.boot >= self.attachments.cooldown_seconds:
            return None
        return replace(now, boot=0.0, wall=now.wall - now.boot)

    # The leases ------------------------------------------------------------------------
    def _restore_leases(self, links: tuple[HostLink, ...]) -> None:
        """Make leases, kernel and pool agree: the kernel's word beats "free"."""
        moment, pool = self.ports.clock(), self.holdings.pool
        for sandbox, started_ns in self.leases.deletes(moment).items():
            self.attachments.remember_delete(sandbox, started_ns)
        rows = {row.sandbox: row for row in self.leases.rows()}
        for link in links:
            if link.group != dataplane.DYING_GROUP and link.alias.sandbox not in rows:
                row = self._row_from(link, moment.wall)
                with contextlib.suppress(LeasesError):  # its veth tells the next life, too
                    self.leases.insert(row)
                rows[row.sandbox] = row
                self.on_counted("leases_rebuilt", 1)
                log.warning("lease rebuilt from its veth", extra={"ifname": link.ifname})
        veths = {k.alias.sandbox: k.ifname for k in links if k.group != dataplane.DYING_GROUP}
        for row in rows.values():
            losers = pool.restore(row.sandbox, row.addresses, row.eni_id)
            if losers:
                log.error("two leases of one address", extra={"sandboxes": str((row, losers))})
            self.attachments.restore(row, veths.get(row.sandbox))
        self._restore_cooling()

    def _row_from(self, link: HostLink, wall: float) -> LeaseRow:
        """Return the lease that a host veth's alias tells of.

        Its ENI's number is the journal's, if that knows it: somebody may have changed the group.
        """
        alias = link.alias
        intent = self.holdings.lifecycle.book.intent_of(EniId(alias.eni_id))
        number = link.group - dataplane.POD_GROUP if intent is None else intent.device_index + 1
        return LeaseRow(
            sandbox=alias.sandbox,
            pod=Pod("", "", alias.pod_uid),
            addresses=tuple(ip_address(str(a)) for a in alias.addresses),
            eni_id=EniId(alias.eni_id),
            eni_number=number,
            netns=None,
            started_ns=0,
            since=wall,
        )

    def _restore_cooling(self) -> None:
        """Let addresses cool on; what the rest is, a pod of before the boot may have had.

        What the journal does not hold may be EC2's again, /run having been full when it was
        given back; it cools if EC2 shows it to be ours.
        """
        holdings, pool = self.holdings, self.holdings.pool
        for address, _, since in self.leases.cooling():
            pool.cool(address, since)
        holdings.died = self._died()
        if holdings.died is not None:
            for address in tuple(pool.slots):
                pool.cool(address, holdings.died, purged=True)

    async def _guard_all(self) -> None:
        pool, lifecycle = self.holdings.pool, self.holdings.lifecycle
        for eni_id in tuple(pool.enis):
            blocks = pool.blocks_of(eni_id)
            await lifecycle.blocks.take(eni_id, blocks)
            lifecycle.blocks.taken(blocks)
