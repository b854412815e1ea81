"""What is done again and again for what the node holds, beside ADDs and EC2. Shell (the loop's).

Addresses cool, dead wires are reaped, leases whose veth is gone are released, what happened
is written down. A look compares two witnesses and acts on what both looks have seen; a new
look is a method here and a line of `tasks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from cni.frame import Frame
from cni.kernel import NodeError, NodeNet, WireError, Wiring
from cni.spec import Sandbox
from ipamd import spool
from ipamd.attachments import Attachments, Client
from ipamd.clock import Instant
from ipamd.journal import Journal, JournalError
from ipamd.pool import Pool
from ipamd.ports import Threads, run_in

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""How long events are gathered before they are written to the disk together."""

GATHER_SECONDS = 0.1
"""Pods that go within this time are looked at together."""

PURGE_AFTER = 0.5
"""Of an address's cooldown, until its flows are purged, and with it those of all that were released
since: to look through the kernel's connections takes it 10 to 20 ms, however few they are (a
quarter of a million buckets). Half is left for one that must be tried again."""

WAITED_FOR_SECONDS = 0.5
"""How often what cools is looked at while ADDs wait: nobody tells that the wall clock was set,
and an address may have cooled earlier than was reckoned (`Instant.elapsed`)."""

REAP_AGAIN_SECONDS = 10.0
"""After a reaping that failed: pods came too fast for a dump, or a stranger's is among the dead."""

DRAIN_AGAIN_SECONDS = 1.0
"""A plugin that found no socket has written its file by then, or has found the socket."""


def _is_set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Upkeep:
    """The loops of one node's leases, addresses and wires."""

    pool: Pool
    attachments: Attachments
    wiring: Wiring
    net: NodeNet
    """Used in the background thread alone."""
    journal: Journal
    threads: Threads
    clock: Callable[[], Instant]
    spool_in: Path
    on_call: Callable[[Client, Frame], None]
    on_counted: Callable[[str, int], None]
    """Told of leases_dropped and flows_purged."""
    on_free: Callable[[], None]
    """Told that addresses have cooled."""
    cools: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an address has begun to cool."""
    dies: asyncio.Event = field(default_factory=_is_set)
    """Set when a link has been put to die; at the start, some may be left of a former life."""
    has_events: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something has happened that the history wants."""
    _facts: dict[str, object] = field(default_factory=dict)
    _absent: set[Sandbox] = field(default_factory=set)
    _spooled: int = 0

    def tasks(self) -> tuple[Coroutine[None, None, None], ...]:
        """Return what is to run until the daemon ends."""
        return self.cool(), self.reap(), self.write_history(), self.drain_again()

    # Addresses -------------------------------------------------------------------------
    async def cool(self) -> None:
        """Purge the flows of released addresses, and free them when they have cooled."""
        while True:
            await self.cools.wait()
            self.cools.clear()
            seconds = self.attachments.cooldown_seconds
            purged = (
                self.pool.next_purge(self.clock(), seconds * PURGE_AFTER) or await self._purge()
            )
            done = self.pool.settle(self.clock(), seconds)
            if done:
                self.attachments.forget(done)
                self.attachments.hand_out()
                self.on_free()
            wait = self._next_cooling() if purged else 1.0
            if wait is not None:
                wait = min(wait, WAITED_FOR_SECONDS) if self.attachments.waiting else wait
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.1, wait)):
                        await self.cools.wait()
                self.cools.set()
            await asyncio.sleep(GATHER_SECONDS)

    def _next_cooling(self) -> float | None:
        """Return the seconds until there is something to do for what cools, None if never."""
        seconds, now = self.attachments.cooldown_seconds, self.clock()
        waits = self.pool.next_ready(now, seconds), self.pool.next_purge(now, seconds * PURGE_AFTER)
        return min((wait for wait in waits if wait is not None), default=None)

    async def _purge(self) -> bool:
        """Return whether the kernel knows no flow of a released address any more."""
        released = self.pool.unpurged()
        if released:
            try:
                number = await run_in(self.threads.back, self.net.purge_conntrack, released)
            except NodeError as error:
                log.warning("flows not purged", extra={"reason": str(error)})
                return False  # they stay cooling until they are
            self.on_counted("flows_purged", number)
            self.pool.mark_purged(released)
        return True

    # Wires -----------------------------------------------------------------------------
    async def reap(self) -> None:
        """Delete dead links, as many at once as have died."""
        while True:
            await self.dies.wait()
            self.dies.clear()  # what dies while the kernel deletes (25 ms) is deleted together next
            try:
                await run_in(self.threads.back, self.wiring.reap)
            except WireError as error:
                log.warning("dying links not deleted", extra={"reason": str(error)})
                self.dies.set()
                await asyncio.sleep(REAP_AGAIN_SECONDS)

    def judge(self, there: Collection[Sandbox]) -> bool:
        """Release leases whose veth is not *there* on two looks; return whether one is due soon."""
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
        return bool(self._absent)

    # What happened ---------------------------------------------------------------------
    async def write_history(self) -> None:
        """Write what happened to the journal, a second's events at once."""
        while True:
            await self.has_events.wait()
            await asyncio.sleep(FLUSH_SECONDS)
            self.has_events.clear()
            await run_in(self.threads.journal, self.flush)

    def note(self, name: str, value: object) -> None:
        """Have a fact written to the journal with the events."""
        self._facts[name] = value
        self.has_events.set()

    def flush(self) -> None:
        """Write what happened to the journal."""
        events, self.attachments.events = self.attachments.events, []
        facts, self._facts = self._facts, {}
        if self.journal.trouble is not None:
            return
        with contextlib.suppress(JournalError):
            for name, value in facts.items():
                self.journal.note_fact(name, value)
            if events:
                self.journal.record(events)

    def drain(self) -> None:
        """Take up what plugins left while there was no daemon.

        Once before anybody is heard who came since: his ADD may be for the same attachment.
        """
        for call in spool.drain(self.spool_in, self._spooled + 1, self.clock().wall):
            self._spooled += 1
            self.on_call(call, call.frame)

    async def drain_again(self) -> None:
        """Take up what plugins left that had not found the socket, and wrote after `drain`."""
        await asyncio.sleep(DRAIN_AGAIN_SECONDS)
        self.drain()
