"""GC: what a runtime does not know any more is released, by DELs of ours in their lanes. Shell.

The list that comes is believed about its own network, and about nothing that is younger than
the guard: an ADD ends before a runtime has noted it. A runtime that has just started may not
have read its own notes, so it is not believed for a minute.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable

from cni.frame import Frame
from cni.spec import (
    CniError,
    Code,
    Collect,
    NetConf,
    Pod,
    Request,
    Sandbox,
    Verb,
    error_json,
)
from ipamd.attachments import ANSWER_EARLY_NS, Attachments, Client
from ipamd.clock import Instant
from ipamd.lease import LeaseRow

log = logging.getLogger(__name__)

YOUNG_SECONDS = 60.0
"""How long after its start a runtime's list is not believed: containerd reads its sandboxes and
its results from the disk meanwhile."""


def doomed(
    rows: Iterable[LeaseRow], asked: Collect, now: Instant, guard_seconds: float
) -> tuple[Sandbox, ...]:
    """Return the attachments that *asked* does not list and that are older than the guard.

    A lease that was rebuilt from its veth is as old as the rebuilding.
    """
    return tuple(
        row.sandbox
        for row in rows
        if row.sandbox.network == asked.conf.name
        and (row.sandbox.container_id, row.sandbox.ifname) not in asked.valid
        and now.elapsed(Instant(row.started_ns / 1e9, row.since)) >= guard_seconds
    )


class Release:
    """A DEL of ours; *done* is called when it is answered."""

    descriptors: tuple[int, ...] = ()
    _ids = itertools.count(-(1 << 40), -1)  # a connection's is positive, the spool's begin at -1

    def __init__(self, done: Callable[[], None]) -> None:
        self.id = next(self._ids)
        self.on_gone: Callable[[], None] = lambda: None
        self._done = done

    def is_gone(self) -> bool:
        """We do not hang up on ourselves."""
        return False

    def reply(self, code: int, stdout: bytes) -> None:
        """Take note."""
        del code, stdout
        self._done()

    def close(self) -> None:
        """There is nothing to close."""


class Gc:
    """One GC on its way: answered when all is released, or when its time is over."""

    def __init__(self, client: Client, conf: NetConf) -> None:
        self._client, self._conf = client, conf
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(
        self,
        sandboxes: tuple[Sandbox, ...],
        attachments: Attachments,
        frame: Frame,
        seconds: float,
    ) -> None:
        """Send a DEL to the lane of each of *sandboxes*; give up after *seconds*."""
        self._left = len(sandboxes)
        if not sandboxes:
            self._answer(0, b"")
            return
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)
        for sandbox in sandboxes:
            log.warning("released by gc", extra={"sandbox": str(sandbox)})
            request = Request(Verb.DEL, sandbox, "", Pod(), self._conf)
            release = Release(self._one_is_done)
            attachments.take(release, request, frame.started_ns, frame.deadline_ns)

    def _one_is_done(self) -> None:
        self._left -= 1
        if not self._left:
            self._answer(0, b"")

    def _give_up(self) -> None:
        error = CniError(
            Code.TRY_AGAIN_LATER,
            f"{self._left} attachments of {self._conf.name} are not released yet",
            "they will be; see the daemon's log for why it takes so long",
        )
        self._answer(1, error_json(error, self._conf.cni_version))

    def _answer(self, code: int, stdout: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._client.reply(code, stdout)
        self._client.close()


def collect(
    client: Client,
    frame: Frame,
    asked: Collect,
    attachments: Attachments,
    *,
    now: Instant,
    guard_seconds: float,
) -> int:
    """Begin a GC, which answers *client* by itself; return how many attachments it releases."""
    sandboxes = doomed(attachments.rows, asked, now, guard_seconds)
    age = now.boot - frame.runtime_ns / 1e9
    if frame.runtime_ns and age < YOUNG_SECONDS:
        log.warning("gc ignored", extra={"runtime_seconds": age, "doomed": len(sandboxes)})
        sandboxes = ()
    left = (frame.deadline_ns - ANSWER_EARLY_NS) / 1e9 - now.boot
    Gc(client, asked.conf).begin(sandboxes, attachments, frame, max(0.0, left))
    return len(sandboxes)
