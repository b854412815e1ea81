"""What is ours in the kernel, compared with what it should be, and mended. Shell (the loop's).

The kernel tells that something was changed; a tenth of a second later, when the one who did it
is through, that part is looked at, and everything every half minute. `cni.desired` says what is
wanting. A look and its diff run on the thread of the ENIs' side; what it found may be old by
then, so a step is taken only where nothing has moved since: not for a sandbox that a verb is
busy with, nor for ENIs while their set-up changes. The steps are handed to the thread that
makes such things in the same moment as that is checked, so that whatever comes later comes
behind them. What would take something away needs two looks. Whoever undoes a repair is mended
again, ever later, and said (`ipamd.undone`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address

from cni.dataplane import Alias, ForeignRule, Marks, eni_table
from cni.desired import (
    NODE_SYSCTL,
    Desired,
    Found,
    FoundLink,
    Known,
    Part,
    PodWire,
    Repair,
    SetLink,
    WriteTable,
    mending,
)
from cni.kernel import Ears, Heard, Mender, NodeError, NodeNet
from cni.nft_found import FoundTable, difference
from cni.spec import Sandbox
from ipamd.attachments import Attachments
from ipamd.census import Census
from ipamd.clock import Instant
from ipamd.intents import Event
from ipamd.lease import LeaseRow
from ipamd.lifecycle import Lifecycle
from ipamd.nat_table import NatTable
from ipamd.pool import Pool
from ipamd.ports import Threads, run_in
from ipamd.undone import Undone

log = logging.getLogger(__name__)

PERIOD_SECONDS = 30.0
"""Between looks at everything, for what no event tells of."""

GATHER_SECONDS = 0.1
"""From the first word of a change to the look: one change tells many words, and whoever made it
is not through with the first."""

SECOND_LOOK_SECONDS = 3.0
"""Until the look that confirms what is too much, or an absence: soon, yet a plugin that
reconnects to a daemon that was killed has its lease still."""

BUSY_SECONDS = 0.5
"""Until the next look where something could not be judged, because it was being changed."""

SHORTEST_SECONDS = 0.001
"""The shortest time that is waited, so that a clock's last digit cannot spin the loop."""

SHARE = 0.05
LONGEST_REST_SECONDS = 0.5
"""The share of time that looks may take where somebody changes things without end, and the
longest rest for it: a repair is to come within a second."""

SAID_AT_ONCE = 10
"""Repairs of one kind and one look that are named; of 700 routes of a flushed table the rest is a
number."""

MAY_NOT = "ipamd may not write /proc/sys: set it on the host, by `sysctl -w`"
"""Why a node-wide sysctl is looked at and only said."""

POD_PARTS = {Part.POD_LINK, Part.POD_ROUTE, Part.NEIGHBOUR}
LINK_PARTS = {Part.POD_LINK, Part.ENI_LINK}


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What was wanted when a look began, and of which state of things."""

    want: Desired
    rows: dict[Sandbox, LeaseRow]
    changes: int | None
    """Of the ENIs' set-up; None: it was changing."""


@dataclass(slots=True)
class Reconcile:
    """The kernel's side of everything that the daemon holds."""

    pool: Pool
    attachments: Attachments
    lifecycle: Lifecycle
    census: Census
    nat: NatTable
    net: NodeNet
    mender: Mender
    """Used in the net thread alone."""
    pod_mender: Mender
    """Used in the wire thread alone."""
    ears: Ears
    threads: Threads
    clock: Callable[[], Instant]
    node_primary: IPv4Address
    on_counted: Callable[[str, int], None]
    """Told of repaired_<part>."""
    on_seen: Callable[[Collection[Sandbox]], bool] = lambda _: False
    """Told at each look at everything whose veth is there; returns whether to look again soon."""
    on_table: Callable[[FoundTable], None] = lambda _: None
    """Told of the nft tables as the kernel shows them when they have just been written."""
    undone: Undone = field(default_factory=Undone)
    _known: Known = field(default_factory=Known)
    _owners: Mapping[int, Sandbox] = field(default_factory=dict)
    _wires: dict[Sandbox, tuple[LeaseRow, PodWire]] = field(default_factory=dict)
    _well: tuple[Desired, Found] | None = None
    """What was wanted and found when everything was well last: the same again needs no compare."""
    _surplus: frozenset[str] = frozenset()
    """What the last look at everything found to be too much."""
    _rest: float = 0.0
    _ended: Instant = field(init=False)
    """When the last look was done, and how long to rest from then."""
    _due: float = 0.0
    """When everything is looked at next, on the boot clock."""
    _links: set[int] = field(default_factory=set)
    _due_links: float = 0.0
    """Links that were busy, and when they are looked at again."""
    _hurried: list[Callable[[], None]] = field(default_factory=list)
    _told: asyncio.Event = field(default_factory=asyncio.Event)
    _failed: set[str] = field(default_factory=set)
    """What could not be mended, and was said."""
    _sysctls: tuple[str, ...] = ()
    """Node-wide sysctls that are not as they must be, in sentences."""
    _overlaps: frozenset[str] = frozenset()
    """Others' rules that look at our mark bits, in sentences."""

    # When ------------------------------------------------------------------------------
    async def run(self) -> None:
        """Look and mend, until cancelled."""
        heard = Heard(everything=True, table=True)
        self._ended = self.clock()
        while True:
            began, hurried = self.clock(), self._hurried
            if heard.everything:
                self._due, self._hurried = began.boot + PERIOD_SECONDS, []
            try:
                await self._reconcile(heard)
            except NodeError as error:
                log.warning("node not looked at", extra={"reason": str(error)})
                self._look_again(SECOND_LOOK_SECONDS)
            for on_done in hurried if heard.everything else ():
                on_done()
            self._ended = self.clock()
            self._rest = min(LONGEST_REST_SECONDS, self._ended.elapsed(began) / SHARE)
            heard = await self._listen()

    async def _listen(self) -> Heard:
        """Return what is to be looked at next."""
        while True:
            told = self._told = asyncio.Event()
            self.ears.on_told(told.set)
            until = min(self._due, self._due_links if self._links else self._due)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(SHORTEST_SECONDS, until - self.clock().boot)):
                    await told.wait()
            if told.is_set():
                rested = self.clock().elapsed(self._ended)
                await asyncio.sleep(max(GATHER_SECONDS, self._rest - rested))
            heard = self.ears.read(self._is_ours)
            now = self.clock().boot
            if now >= self._due:
                heard.everything = heard.table = True
            if self._links and now >= self._due_links:
                heard.links |= self._links
                self._links = set()
            if heard:
                return heard

    def _look_again(self, seconds: float) -> None:
        """Let the next look at everything be no later than in so many seconds."""
        self._due = min(self._due, self.clock().boot + seconds)

    def _look_at_again(self, index: int) -> None:
        """Let a link be looked at once more in a moment."""
        if not self._links:
            self._due_links = self.clock().boot + BUSY_SECONDS
        self._links.add(index)

    def _is_ours(self, index: int) -> bool:
        """Whether a link is one of ours that nothing of ours is changing now."""
        if index in self._known.enis.values():
            return True
        sandbox = self._owners.get(index)
        return sandbox is not None and not self.attachments.is_busy(sandbox)

    # What ------------------------------------------------------------------------------
    def desired(self) -> Desired:
        """Return everything of ours on the host, as it should be now."""
        rows = {row.sandbox: row for row in self.attachments.rows}
        self._wires = {s: self._wire(row) for s, row in rows.items()}
        return Desired(
            enis=self.lifecycle.links.set_ups,
            pods=tuple(wire for _, wire in self._wires.values()),
            guards=frozenset(self.pool.blocks()),
            unsure=self.lifecycle.blocks.unsure | self.census.adopting,
            table=self.nat.written,
            routing=self.lifecycle.book.home.routing,
            is_whole=self.lifecycle.links.is_settled,
        )

    def _wire(self, row: LeaseRow) -> tuple[LeaseRow, PodWire]:
        known = self._wires.get(row.sandbox)
        if known is not None and known[0] is row:
            return known
        pod = row.pod
        return row, PodWire(
            sandbox=row.sandbox,
            addresses=row.addresses,
            eni_number=row.eni_number,
            alias=Alias(row.sandbox, pod.uid, row.addresses, row.eni_id),
            source=self.node_primary,
            who=f"{pod.namespace}/{pod.name}" if pod.name else row.sandbox.container_id[:12],
            name=self.attachments.veth(row.sandbox),
        )

    def _snapshot(self) -> _Snapshot:
        book = self.lifecycle.book
        changes = None if book.is_changing else book.changes
        rows = {row.sandbox: row for row in self.attachments.rows}
        return _Snapshot(self.desired(), rows, changes)

    async def _reconcile(self, heard: Heard) -> None:
        """Look at what was heard of, and mend what can be mended now."""
        snapshot, table, sysctls = self._snapshot(), self._known.table, self._sysctls
        looked = await run_in(self.threads.net, self._look, snapshot.want, heard)
        found, repairs = looked
        if table is None and self._known.table is not None:
            self.on_table(self._known.table)
        if heard.everything:
            self._say_sysctls(set(self._sysctls).difference(sysctls))
            self._say_overlaps(found.marked, snapshot.want.routing.marks)
            if self.on_seen(self._known.pods.keys()):
                self._look_again(SECOND_LOOK_SECONDS)
            self.undone.forget(self.clock().boot)
        due = [repair for repair in repairs if self._may(repair, snapshot)]
        if heard.everything:
            self._surplus = frozenset(r.what for r in repairs if r.takes_away)
            self._failed &= {r.what for r in repairs}
            if self._surplus:
                self._look_again(SECOND_LOOK_SECONDS)
        if due:
            await self._mend(due, heard.by)

    def _look(self, want: Desired, heard: Heard) -> tuple[Found, tuple[Repair, ...]]:
        """Return what is there, and what is wanting of it. In the net thread."""
        if heard.everything:
            self._sysctls = self.net.sysctl_complaints()
            tables = {eni_table(eni.number) for eni in want.enis if not eni.is_primary}
            found = self.mender.look(sorted(tables))
            parts = set(Part)
            if self._well is not None and self._well[1] is found and self._well[0] == want:
                return found, ()
        else:
            links = self.mender.look_at_links(sorted(heard.links)) if heard.links else ()
            found = Found(links=links)
            parts = set(LINK_PARTS)
            want = replace(want, pods=self._whose(links, want))
        if heard.table and not heard.everything:
            found = replace(found, table=self.mender.look_at_table())
            parts.add(Part.TABLE)
        repairs = tuple(r for r in mending(want, found, self._known) if r.part in parts)
        self._known.learn(want, found, whole=heard.everything)
        self._owners = self._known.owners
        if heard.everything:
            self._well = None if repairs else (want, found)
        return found, repairs

    def _whose(self, links: Iterable[FoundLink], want: Desired) -> tuple[PodWire, ...]:
        """Return the pods whose veth can be among *links*."""
        owners = {self._owners.get(link.index) for link in links}
        names = {link.name for link in links}
        return tuple(p for p in want.pods if p.sandbox in owners or p.name in names)

    def _may(self, repair: Repair, snapshot: _Snapshot) -> bool:
        """Whether to take a step now; else when to look again."""
        if not self._is_still(repair, snapshot):
            if isinstance(repair.step, SetLink):
                self._look_at_again(repair.step.index)
            else:
                self._look_again(BUSY_SECONDS)
            return False
        if repair.takes_away and repair.what not in self._surplus:
            return False
        wait = self.undone.wait(repair.what, self.clock().boot)
        if wait:
            self._look_again(wait)
        return not wait

    def _is_still(self, repair: Repair, snapshot: _Snapshot) -> bool:
        """Whether what a repair is about is as it was when the look began."""
        if repair.sandbox is not None:
            row = self.attachments.row(repair.sandbox)
            is_same = row is not None and row is snapshot.rows.get(repair.sandbox)
            return is_same and not self.attachments.is_busy(repair.sandbox)
        if repair.part is Part.TABLE:
            return self.nat.written == snapshot.want.table
        book = self.lifecycle.book
        return snapshot.changes == book.changes and not book.is_changing

    # Steps -----------------------------------------------------------------------------
    async def _mend(self, due: Sequence[Repair], by: str) -> None:
        """Take the steps, each group on its thread, in the same moment as they were judged."""
        tables = [r for r in due if isinstance(r.step, WriteTable)]
        pods = [r for r in due if r.sandbox is not None]
        rest = [r for r in due if r.sandbox is None and r not in tables]
        loop = asyncio.get_running_loop()
        waits = []
        for group, thread, mender in (
            (rest, self.threads.net, self.mender),
            (pods, self.threads.wire, self.pod_mender),
        ):
            if group:
                steps = [r.step for r in group]
                waits.append((group, loop.run_in_executor(thread, mender.mend, steps)))
        for repair in tables:
            write = partial(self._write_table, repair)
            waits.append(([repair], loop.run_in_executor(self.threads.net, write)))
        said: list[tuple[Repair, str]] = []
        for group, wait in waits:
            said += zip(group, await wait, strict=True)
        self._tell(said, by)

    def _write_table(self, repair: Repair) -> tuple[str, ...]:
        assert isinstance(repair.step, WriteTable)
        try:
            self.net.write_nft(repair.step.text, anew=repair.step.anew)
        except NodeError as error:
            return (str(error),)
        self._known.table = None
        return ("",)

    def _tell(self, said: Iterable[tuple[Repair, str]], by: str) -> None:
        """Count, log and write down what was mended, and what could not be."""
        now = self.clock()
        counts: Counter[Part] = Counter()
        for repair, error in said:
            times = self.undone.note(repair.what, now.boot)
            if error:
                self._say_failed(repair, error)
                continue
            self._failed.discard(repair.what)
            counts[repair.part] += 1
            if counts[repair.part] <= SAID_AT_ONCE or times > 1:
                self._say(repair, times, by, now)
        for part, number in counts.items():
            self.on_counted(f"repaired_{part}", number)
        if max(counts.values(), default=0) > SAID_AT_ONCE:
            detail = {part.value: number for part, number in counts.items()}
            log.warning("kernel state mended, all of it", extra=detail)

    def _say_failed(self, repair: Repair, error: str) -> None:
        if repair.what not in self._failed:
            self._failed.add(repair.what)
            told = {"part": repair.part.value, "what": repair.sentence, "reason": error}
            log.warning("kernel state not mended", extra=told)
        self._look_again(self.undone.mended[repair.what].wait)

    def _say_sysctls(self, changed: Iterable[str]) -> None:
        """Count, log and write down what only the host can set back."""
        for what in sorted(changed):
            told: dict[str, object] = {"part": NODE_SYSCTL, "what": what}
            log.warning("kernel state not mended", extra={**told, "reason": MAY_NOT})
            self.on_counted(f"unrepaired_{NODE_SYSCTL}", 1)
            self.attachments.record(Event(self.clock().wall, "not mended", what, told))

    def _say_overlaps(self, marked: Iterable[ForeignRule], marks: Marks) -> None:
        """Warn of each rule of somebody else that takes packets by our marks, once."""
        overlaps = frozenset(filter(None, (rule.overlap(marks) for rule in marked)))
        for what in sorted(overlaps - self._overlaps):
            log.warning("mark bits are not ours alone", extra={"what": what})
        self._overlaps = overlaps

    def _say(self, repair: Repair, times: int, by: str, now: Instant) -> None:
        detail: dict[str, object] = {"part": repair.part.value, "what": repair.sentence}
        if by and repair.part is Part.TABLE:
            detail["by"] = by
        if times > 1:
            wait = self.undone.mended[repair.what].wait
            detail |= {"times": times, "waits_seconds": wait}
            log.warning("kernel state mended again: somebody undoes it", extra=detail)
        else:
            log.warning("kernel state mended", extra=detail)
        self.attachments.record(Event(now.wall, "mended", repair.what, detail))

    @property
    def troubles(self) -> list[str]:
        """What somebody keeps undoing, and what cannot be mended, in sentences."""
        fights = (
            f"{what} was mended {m.times} times and undone again; next after {m.wait:.0f} s"
            for what, m in self.undone.fights().items()
            if what not in self._failed
        )
        failed = (f"{what} cannot be mended" for what in sorted(self._failed))
        return [*fights, *failed, *(f"{what}; {MAY_NOT}" for what in self._sysctls)]

    def table_written(self) -> None:
        """Forget the table as it was: it was written anew."""
        self._known.table = None

    def recall_table(self, noted: FoundTable | None) -> None:
        """Take up what the tables were when a former life had written the same text."""
        if noted is not None and not difference(self.nat.written, noted):
            self._known.table = noted

    def look_now(self) -> None:
        """Look at everything soon."""
        self._due = 0.0
        self._told.set()

    def hurry(self, on_done: Callable[[], None]) -> None:
        """Look at everything soon, mend also what was mended just before, and tell when done."""
        self._hurried.append(on_done)
        self.undone.mended.clear()
        self.look_now()
