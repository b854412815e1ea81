"""What happens to the verbs of one attachment, in which order. Pure.

All verbs for one (network, container id, ifname) run in one lane, one after another.
`step` takes the lane and an event, and returns the lane after it and what the daemon
must now do. The rules are the table in `docs/architecture.md`, "Lanes"; the tests walk
every interleaving of (ADD, ADD', DEL, gone, killed) up to length 6. A CHECK only looks, in
its turn; so does at first an ADD whose lease is a former life's.

    IDLE ──Add──> WAITING ──Granted──> WIRING ──Wired──> IDLE (with a lease)
                     │ Del, Gone          │ WireFailed, or Wired with undo
                     v                    v
                    IDLE  <──Unwired── UNWIRING <──Del── IDLE (with a lease)

Time on the wire (`started_ns`, the plugin's start on CLOCK_BOOTTIME) orders ADD and DEL;
when a frame arrived does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

Netns = tuple[int, int]
"""Device and inode of a network namespace."""


class Phase(StrEnum):
    """What the lane's head is waiting for."""

    IDLE = "idle"
    WAITING = "waiting"
    WIRING = "wiring"
    UNWIRING = "unwiring"
    CHECKING = "checking"


class Outcome(StrEnum):
    """How a call is answered."""

    ADDED = "added"
    DELETED = "deleted"
    STALE = "stale"
    OTHER_NETNS = "other-netns"
    DELETED_MEANWHILE = "deleted-meanwhile"
    CHECKED = "checked"
    UNKNOWN = "unknown"
    FAILED = "failed"


# Events --------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Add:
    """A client asks for an attachment in *netns*."""

    call: int
    started_ns: int
    netns: Netns


@dataclass(frozen=True, slots=True)
class Del:
    """A client, or the spool, says that the attachment is no longer wanted."""

    call: int
    started_ns: int


@dataclass(frozen=True, slots=True)
class Check:
    """A client asks whether the attachment is as it was made."""

    call: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The client of *call* has hung up."""

    call: int


@dataclass(frozen=True, slots=True)
class Granted:
    """The ADD that waited has an address; its lease is written."""


@dataclass(frozen=True, slots=True)
class NotGranted:
    """The ADD that waited gets none in time; the daemon knows why."""


@dataclass(frozen=True, slots=True)
class Wired:
    """The wiring thread is done."""


@dataclass(frozen=True, slots=True)
class WireFailed:
    """The wiring thread could not, and left no trace."""


@dataclass(frozen=True, slots=True)
class Unwired:
    """The wire is gone and the address cools."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """The wiring thread has looked at the attachment.

    *is_wired*: whether its wire was made to the end; None if the kernel could not be asked.
    """

    is_wired: bool | None = None


Verb = Add | Del | Check
Event = Verb | Gone | Granted | NotGranted | Wired | WireFailed | Unwired | Inspected


# Effects -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Ask:
    """Queue *call* for an address."""

    call: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take *call* out of the address queue."""

    call: int


@dataclass(frozen=True, slots=True)
class Wire:
    """Connect the sandbox of *call* with the lease it has."""

    call: int


@dataclass(frozen=True, slots=True)
class Unwire:
    """Disconnect the sandbox, then let its address cool."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Compare the sandbox of *call* with its lease; change nothing."""

    call: int


@dataclass(frozen=True, slots=True)
class Release:
    """Let the address cool; there is no wire."""


@dataclass(frozen=True, slots=True)
class Remember:
    """Note the DEL's start, for ADDs that are older and arrive later."""

    started_ns: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer *call*."""

    call: int
    outcome: Outcome


Effect = Ask | Withdraw | Wire | Unwire | Inspect | Release | Remember | Reply


@dataclass(frozen=True, slots=True)
class Lease:
    """The attachment exists: since *started_ns*, in *netns* (None: only the kernel knows).

    *wired* is False until the wiring thread of this daemon's life has finished it.
    """

    started_ns: int
    netns: Netns | None
    wired: bool


@dataclass(frozen=True, slots=True)
class Lane:
    """One attachment. *head* is the call being worked for, None when its client is gone."""

    phase: Phase = Phase.IDLE
    lease: Lease | None = None
    head: Verb | None = None
    undo: bool = False
    queue: tuple[Verb, ...] = ()
    deleted_ns: int = 0

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing is lost when the daemon drops this lane (the DEL is remembered)."""
        return self.phase is Phase.IDLE and self.lease is None


Result = tuple[Lane, tuple[Effect, ...]]


def step(lane: Lane, event: Event) -> Result:
    """Return the lane after *event*, and the effects to perform in their order."""
    match event:
        case Add() | Del() | Check():
            return _begin(lane, event)
        case Gone():
            return _gone(lane, event)
        case Granted() | NotGranted():
            return _answered(lane, event)
        case Wired() | WireFailed():
            return _wired(lane, event)
        case Unwired():
            return _unwired(lane)
        case Inspected():
            return _inspected(lane, event)
        case _:  # pragma: no cover - a new event must be placed above
            assert_never(event)


def _begin(lane: Lane, verb: Verb) -> Result:
    match verb:
        case Add():
            return _add(lane, verb)
        case Del():
            return _del(lane, verb)
        case Check():
            return _check(lane, verb)
        case _:  # pragma: no cover - a new verb must be placed above
            assert_never(verb)


def _add(lane: Lane, add: Add) -> Result:
    if add.started_ns < lane.deleted_ns:
        return lane, (Reply(add.call, Outcome.STALE),)
    if lane.phase is Phase.IDLE:
        return _begin_add(lane, add)
    ends = lane.phase is Phase.UNWIRING or lane.undo
    ends = ends or any(isinstance(call, Del) for call in lane.queue)
    if not ends and _netns(lane) not in {None, add.netns}:
        return lane, (Reply(add.call, Outcome.OTHER_NETNS),)
    return replace(lane, queue=(*lane.queue, add)), ()


def _netns(lane: Lane) -> Netns | None:
    if lane.lease is not None:
        return lane.lease.netns
    return lane.head.netns if isinstance(lane.head, Add) else None


def _begin_add(lane: Lane, add: Add) -> Result:
    lease = lane.lease
    if lease is None:
        return replace(lane, phase=Phase.WAITING, head=add), (Ask(add.call),)
    if lease.netns not in {None, add.netns}:
        return lane, (Reply(add.call, Outcome.OTHER_NETNS),)
    if lease.wired:
        return lane, (Reply(add.call, Outcome.ADDED),)
    # A former life's: its pod may have been answered, and would lose its network for a moment, or
    # for good if this life ends then. So it is made anew only if it was not made to the end.
    return replace(lane, phase=Phase.CHECKING, head=add), (Inspect(add.call),)


def _del(lane: Lane, delete: Del) -> Result:
    life = _life(lane)
    if life is not None and delete.started_ns < life:
        return lane, (Reply(delete.call, Outcome.DELETED),)
    lane = replace(lane, deleted_ns=max(lane.deleted_ns, delete.started_ns))
    remember = Remember(delete.started_ns)
    lane, dropped = _drop_older_adds(lane, delete)
    match lane.phase:
        case Phase.IDLE if lane.lease is None:
            return lane, (remember, Reply(delete.call, Outcome.DELETED))
        case Phase.IDLE:
            return replace(lane, phase=Phase.UNWIRING, head=delete), (remember, Unwire())
        case Phase.WAITING:
            assert lane.head is not None
            call = lane.head.call
            after, more = _next(replace(lane, phase=Phase.IDLE, head=None))
            return after, (
                remember,
                Withdraw(call),
                Reply(call, Outcome.DELETED_MEANWHILE),
                *dropped,
                Reply(delete.call, Outcome.DELETED),
                *more,
            )
        case _:
            return replace(lane, queue=(*lane.queue, delete)), (remember, *dropped)


def _life(lane: Lane) -> int | None:
    """Return the start of the life that is here or being made; None when nothing is."""
    if lane.lease is not None:
        return lane.lease.started_ns
    return lane.head.started_ns if isinstance(lane.head, Add) else None


def _drop_older_adds(lane: Lane, delete: Del) -> Result:
    older = [a for a in lane.queue if isinstance(a, Add) and a.started_ns < delete.started_ns]
    rest = tuple(call for call in lane.queue if call not in older)
    replies = tuple(Reply(add.call, Outcome.DELETED_MEANWHILE) for add in older)
    return replace(lane, queue=rest), replies


def _gone(lane: Lane, gone: Gone) -> Result:
    if lane.head is None or lane.head.call != gone.call:
        return replace(lane, queue=tuple(c for c in lane.queue if c.call != gone.call)), ()
    if lane.phase is Phase.WAITING:
        after, more = _next(replace(lane, phase=Phase.IDLE, head=None))
        return after, (Withdraw(gone.call), *more)
    # A thread cannot be cancelled: what it does is undone, or done, when it returns.
    return replace(lane, head=None, undo=lane.phase is Phase.WIRING), ()


def _answered(lane: Lane, event: Granted | NotGranted) -> Result:
    assert lane.phase is Phase.WAITING
    assert isinstance(lane.head, Add)
    add = lane.head
    if isinstance(event, NotGranted):
        after, more = _next(replace(lane, phase=Phase.IDLE, head=None))
        return after, (Reply(add.call, Outcome.FAILED), *more)
    lease = Lease(add.started_ns, add.netns, wired=False)
    return replace(lane, phase=Phase.WIRING, lease=lease), (Wire(add.call),)


def _wired(lane: Lane, event: Wired | WireFailed) -> Result:
    assert lane.phase is Phase.WIRING
    assert lane.lease is not None
    head = lane.head
    if isinstance(event, WireFailed):
        after, more = _next(replace(lane, phase=Phase.IDLE, lease=None, head=None, undo=False))
        reply = () if head is None else (Reply(head.call, Outcome.FAILED),)
        return after, (Release(), *reply, *more)
    lane = replace(lane, lease=replace(lane.lease, wired=True), head=None, undo=False)
    if head is None:
        return replace(lane, phase=Phase.UNWIRING), (Unwire(),)
    after, more = _next(replace(lane, phase=Phase.IDLE))
    return after, (Reply(head.call, Outcome.ADDED), *more)


def _check(lane: Lane, check: Check) -> Result:
    if lane.phase is not Phase.IDLE:
        return replace(lane, queue=(*lane.queue, check)), ()
    if lane.lease is None:
        return lane, (Reply(check.call, Outcome.UNKNOWN),)
    return replace(lane, phase=Phase.CHECKING, head=check), (Inspect(check.call),)


def _unwired(lane: Lane) -> Result:
    assert lane.phase is Phase.UNWIRING
    reply = () if lane.head is None else (Reply(lane.head.call, Outcome.DELETED),)
    after, more = _next(replace(lane, phase=Phase.IDLE, lease=None, head=None))
    return after, (*reply, *more)


def _inspected(lane: Lane, event: Inspected) -> Result:
    assert lane.phase is Phase.CHECKING
    head, lease = lane.head, lane.lease
    assert lease is not None
    reply: tuple[Effect, ...] = ()
    match head:
        case Add() if event.is_wired is False:
            return replace(lane, phase=Phase.WIRING), (Wire(head.call),)
        case Add() if event.is_wired:
            lease = replace(lease, netns=head.netns, wired=True)
            reply = (Reply(head.call, Outcome.ADDED),)
        case Add():
            reply = (Reply(head.call, Outcome.FAILED),)  # the lease stays: the wire may be there
        case Check():
            reply = (Reply(head.call, Outcome.CHECKED),)
    after, more = _next(replace(lane, phase=Phase.IDLE, lease=lease, head=None))
    return after, (*reply, *more)


def _next(lane: Lane) -> Result:
    """Let the queue move until the lane is busy again or the queue is empty."""
    effects: tuple[Effect, ...] = ()
    while lane.phase is Phase.IDLE and lane.queue:
        first, rest = lane.queue[0], lane.queue[1:]
        lane, more = step(replace(lane, queue=rest), first)
        effects += more
    return lane, effects
