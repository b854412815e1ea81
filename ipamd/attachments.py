"""ADD, DEL and CHECK: lanes, the queue for addresses, leases, the wire. Shell.

Performs what `ipamd.lanes.step` says. One asyncio loop owns everything here; wires are
made and unmade on one thread, one after another, because the kernel's RTNL lock and the
interpreter's make more of them slower. One file past 400 lines, because every effect of a
lane is performed here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from cni import dataplane
from cni.check import differences, made
from cni.kernel import Wire, WireError, Wiring, Wish
from cni.plugin import version_in
from cni.spec import (
    Attached,
    CniError,
    Code,
    Collect,
    Pod,
    Previous,
    Request,
    Sandbox,
    Verb,
    error_json,
    parse_request,
    result_json,
)
from eni.model import Address
from ipamd import lanes, replies
from ipamd.caches import Cache, Once
from ipamd.clock import Instant
from ipamd.intents import Event
from ipamd.lanes import Lane, Outcome
from ipamd.lease import LeaseRow
from ipamd.leases import REMEMBER_DEL_SECONDS, Leases, LeasesError
from ipamd.pool import Pool

log = logging.getLogger(__name__)

ANSWER_EARLY_NS = 5_000_000_000
"""An ADD is answered this long before the plugin's own deadline, so that the runtime hears
the cause and not a timeout.

The deadline is the plugin's, 110 s (`deadlineSeconds`) from its start and not from its place in
the queue: what a daemon that was away has cost is not given back, and an ADD that comes with less
than this left gets an address that is free, or its answer, at once (docs/adr/0033). There is one
queue, since there is one pool: IPv4, of whichever subnets. A pool of another family or of other
subnets brings its own.
"""

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.1, 10.0
"""Between two tries to cut a wire that the kernel refuses to cut, for want of memory say."""

LEASES_RETRY_SECONDS = 10.0
"""Between two tries to write to a lease file that has taken nothing."""

LEASE_FAILURES, SAY_SECONDS = 8, 300.0
"""Kinds of lines about that, and how often each is logged: at the first, then with its count."""

LANES_REMEMBERED = 4096
"""Lanes without a lease that are kept for their DEL's start; 10 minutes of 7 DELs a second."""


class Client(Protocol):
    """Whoever sent a frame: a connection, or a file of the spool."""

    id: int
    descriptors: tuple[int, ...]
    on_gone: Callable[[], None]

    def is_gone(self) -> bool:
        """Whether it has hung up, even if `on_gone` has not been called yet."""

    def reply(self, code: int, stdout: bytes) -> None:
        """Answer; nothing if the client is gone."""

    def close(self) -> None:
        """Close the descriptors."""


@dataclass(frozen=True, slots=True)
class Node:
    """What every wire that is made on this node has in common; *prefix* is of its host veth."""

    primary: Address
    mtu: int
    prefix: str = dataplane.VETH_PREFIX
    ipv6: bool = True


@dataclass(slots=True)
class Ask:
    """One client's frame, read."""

    client: Client
    request: Request
    started_ns: int
    deadline_ns: int
    since: Instant
    netns: lanes.Netns | None = None
    error: CniError | None = None
    timer: asyncio.TimerHandle | None = None
    waited_seconds: float = 0.0
    """For its address."""
    wiring: bool = False
    gone: bool = False


class Attachments:
    """Every attachment of the node, and the verbs on their way."""

    def __init__(
        self,
        *,
        pool: Pool,
        leases: Leases,
        wiring: Wiring,
        thread: Executor,
        node: Node,
        cooldown_seconds: float,
        clock: Callable[[], Instant],
        waiting_max: int = 64,
    ) -> None:
        self.cooldown_seconds, self.waiting_max = cooldown_seconds, waiting_max
        self.pool, self.leases, self.node = pool, leases, node
        self.on_demand: Callable[[], None] = lambda: None
        self.on_arrival: Callable[[], None] = lambda: None
        """Told of each ADD that waits for an address, if only for a moment."""
        self.on_cooling: Callable[[], None] = lambda: None
        self.on_event: Callable[[], None] = lambda: None
        """Told when `events` has something new for the journal."""
        self.on_unwired: Callable[[], None] = lambda: None
        self.on_answer: Callable[[Verb, Attached | CniError | None, float], None] = lambda *_: None
        """Told each verb, its answer, and the seconds from the frame's arrival."""
        self.on_refused: Callable[[Pod, replies.AddRefusedError], None] = lambda *_: None
        """Told of each pod whose ADD is refused, when it is answered."""
        self.shortage: Callable[[], replies.Shortage]
        self.events: list[Event] = []
        self._wiring, self._thread, self._clock = wiring, thread, clock
        self._lanes: dict[Sandbox, Lane] = {}
        self.deleted: Cache[Sandbox, int] = Cache(
            "deleted",
            size=LANES_REMEMBERED,
            age_seconds=REMEMBER_DEL_SECONDS,
            timer=lambda: clock().boot,
        )
        self._rows: dict[Sandbox, LeaseRow] = {}
        self._attached: dict[Sandbox, Attached] = {}
        self._veths: dict[Sandbox, str] = {}
        """The names of host veths that are there, or were made with another prefix."""
        self._asks: dict[int, Ask] = {}
        self._waiting: deque[int] = deque()
        self.said: Once[str] = Once(
            "lease failures said",
            size=LEASE_FAILURES,
            interval_seconds=SAY_SECONDS,
            timer=lambda: clock().boot,
        )
        """The gate of what is logged of a lease file that takes nothing."""
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # What is there ---------------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """ADDs that wait for an address."""
        return len(self._waiting)

    @property
    def rows(self) -> tuple[LeaseRow, ...]:
        """Every lease."""
        return tuple(self._rows.values())

    def row(self, sandbox: Sandbox) -> LeaseRow | None:
        """Return the lease of *sandbox*, None if there is none."""
        return self._rows.get(sandbox)

    def record(self, event: Event) -> None:
        """Have something written to the history."""
        self.events.append(event)
        self.on_event()

    def restore(self, row: LeaseRow, veth: str | None = None) -> None:
        """Take up a lease of a former daemon's life; the pool knows it already.

        *veth* is the name of the host veth that the kernel shows for it.
        """
        self._rows[row.sandbox] = row
        if veth is not None:
            self._veths[row.sandbox] = veth
        lease = lanes.Lease(row.started_ns, row.netns, wired=False)
        self._lanes[row.sandbox] = replace(self._lane(row.sandbox), lease=lease)

    def remember_delete(self, sandbox: Sandbox, started_ns: int) -> None:
        """Take up a DEL of a former daemon's life."""
        self.deleted.put(sandbox, started_ns)

    def is_busy(self, sandbox: Sandbox) -> bool:
        """Whether a verb for *sandbox* is on its way."""
        return self._lane(sandbox).phase is not lanes.Phase.IDLE

    # Verbs -----------------------------------------------------------------------------
    def take(self, client: Client, request: Request, started_ns: int, deadline_ns: int) -> None:
        """Begin a verb; the client is answered when it is done."""
        ask = Ask(client, request, started_ns, deadline_ns, self._clock())
        if request.verb is Verb.ADD and client.is_gone():
            log.info("client was gone before its turn", extra=_fields(ask))
            client.close()
            return
        try:
            event = self._event_of(ask)
        except CniError as error:
            self._answer(ask, error)
            return
        self._asks[client.id] = ask
        client.on_gone = lambda: self._on_gone(ask)
        self._step(request.sandbox, event)

    def _event_of(self, ask: Ask) -> lanes.Event:
        client, request = ask.client, ask.request
        if request.verb is Verb.DEL:
            return lanes.Del(client.id, ask.started_ns)
        ask.netns = self._netns_of(client, request)
        if request.verb is Verb.CHECK:
            return lanes.Check(client.id)
        return lanes.Add(client.id, ask.started_ns, ask.netns)

    def _netns_of(self, client: Client, request: Request) -> lanes.Netns:
        if len(client.descriptors) < 2:  # noqa: PLR2004 - the pod's netns, and a netlink socket in it
            raise replies.no_netns(request.sandbox, request.verb)
        netns = self._wiring.identify(client.descriptors[0])
        return (netns.dev, netns.ino)

    def _on_gone(self, ask: Ask) -> None:
        if ask.gone:
            return
        ask.gone = True
        log.info("client gone", extra=_fields(ask))
        self._step(ask.request.sandbox, lanes.Gone(ask.client.id))
        if not ask.wiring:  # the wiring thread may be using its descriptors
            self._end(ask)

    def _lane(self, sandbox: Sandbox) -> Lane:
        lane = self._lanes.get(sandbox)
        return lane or Lane(deleted_ns=self.deleted.get(sandbox) or 0)

    def _step(self, sandbox: Sandbox, event: lanes.Event) -> None:
        lane, effects = lanes.step(self._lane(sandbox), event)
        if lane.is_forgettable:
            self._lanes.pop(sandbox, None)
        else:
            self._lanes[sandbox] = lane
        for effect in effects:
            self._perform(sandbox, effect)

    def _perform(self, sandbox: Sandbox, effect: lanes.Effect) -> None:
        match effect:
            case lanes.Ask(call):
                self._queue(self._asks[call])
            case lanes.Withdraw(call):
                self._withdraw(call)
            case lanes.Wire(call) | lanes.Inspect(call):
                self._start(effect, self._asks[call])
            case lanes.Unwire():
                self._spawn(self._unwire(sandbox))
            case lanes.Release():
                self._release(sandbox)
            case lanes.Remember(started_ns):
                self.deleted.put(sandbox, max(started_ns, self.deleted.get(sandbox) or 0))
                with self._may_fail("delete not remembered"):
                    self.leases.remember_delete(sandbox, started_ns, self._clock())
            case lanes.Reply(call, outcome):
                self._reply(self._asks[call], outcome)
            case _:  # pragma: no cover - a new effect must be placed above
                assert_never(effect)

    def _start(self, effect: lanes.Wire | lanes.Inspect, ask: Ask) -> None:
        """Hand the descriptors of *ask* to the wiring thread: from now on they stay open for it."""
        ask.wiring = True
        is_add = isinstance(effect, lanes.Wire)
        self._spawn(self._wire(ask, self._connect(ask)) if is_add else self._inspect(ask))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # The lane's state and the kernel's may differ now: start anew from the witnesses.
            log.critical("attachment torn", exc_info=error)
            raise SystemExit(70)

    # Addresses -------------------------------------------------------------------------
    def _queue(self, ask: Ask) -> None:
        if len(self._waiting) >= self.waiting_max:
            asked, waiting = ask.request, len(self._waiting)
            ask.error = replies.queue_full(asked.sandbox, asked.pod, waiting, self.shortage())
            self._step(asked.sandbox, lanes.NotGranted())
            return
        self.on_arrival()  # one that is refused comes again, and is one pod all the same
        self._waiting.append(ask.client.id)
        left = (ask.deadline_ns - ANSWER_EARLY_NS) / 1e9 - self._clock().boot
        loop = asyncio.get_running_loop()
        ask.timer = loop.call_later(max(0.0, left), self._give_up, ask)
        self.hand_out()
        if ask.client.id in self._waiting:
            log.info("waiting for an address", extra=_fields(ask))

    def _withdraw(self, call: int) -> None:
        if call in self._waiting:
            self._waiting.remove(call)
        timer = self._asks[call].timer
        if timer is not None:
            timer.cancel()

    def _give_up(self, ask: Ask) -> None:
        self._withdraw(ask.client.id)
        asked, waited = ask.request, self._clock().elapsed(ask.since)
        ask.error = replies.no_address(asked.sandbox, asked.pod, self.shortage(), waited)
        self._step(asked.sandbox, lanes.NotGranted())

    def hand_out(self) -> None:
        """Give addresses to the ADDs that wait, in their order, while there are any."""
        while self._waiting:
            address = self.pool.choose(self._clock(), self.cooldown_seconds)
            if address is None:
                self.on_demand()
                return
            ask = self._asks[self._waiting[0]]
            self._withdraw(ask.client.id)
            self._lease(ask, (address,))

    def cools(self) -> None:
        """Tell that some address has begun to cool."""
        self.on_cooling()

    def forget(self, addresses: Sequence[Address]) -> None:
        """Forget that *addresses* are cooling: they are not ours any more."""
        with self._may_fail("cooling addresses not forgotten"):
            self.leases.forget_cooling(tuple(addresses))

    @contextlib.contextmanager
    def _may_fail(self, message: str) -> Iterator[None]:
        """Go on without a row of the lease file: /run may be full, and pods must not pay for it.

        What is missing there, the kernel's links tell the next life.
        """
        try:
            yield
        except LeasesError as error:
            self._refused(message, error)

    def _refused(self, message: str, error: LeasesError, **fields: object) -> None:
        """Say it at the first and then with a count, and try again in a while."""
        if times := self.said.due(message):
            told = {**fields, "id": error.id, "reason": str(error), "times": times}
            log.error(message, extra=told)
        if self.leases.trouble and self._retry is None:
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(LEASES_RETRY_SECONDS, self._retry_leases)

    def _retry_leases(self) -> None:
        self._retry = None
        with self._may_fail("lease file not written"):
            self.leases.retry()
            log.info("lease file works again")

    def _lease(self, ask: Ask, addresses: tuple[Address, ...]) -> None:
        sandbox, pod = ask.request.sandbox, ask.request.pod
        slot = self.pool.slots[addresses[0]]
        row = LeaseRow(
            sandbox=sandbox,
            pod=pod,
            addresses=addresses,
            eni_id=slot.eni_id,
            eni_number=self.pool.enis[slot.eni_id].number,
            netns=ask.netns,
            started_ns=ask.started_ns,
            since=self._clock().wall,
        )
        try:
            self.leases.insert(row)
        except LeasesError as error:
            ask.error = replies.lease_not_written(error)
            self._refused("lease not written", error, **_fields(ask))
            self._step(sandbox, lanes.NotGranted())
            return
        self.pool.assign(sandbox, addresses)
        self._rows[sandbox] = row
        ask.waited_seconds = self._clock().elapsed(ask.since)
        self._step(sandbox, lanes.Granted())

    def _release(self, sandbox: Sandbox) -> None:
        now = self._clock()
        row = self._rows.pop(sandbox, None)
        self._attached.pop(sandbox, None)
        self._veths.pop(sandbox, None)
        with self._may_fail("release not written"):
            self.leases.release(sandbox, now)
        self.pool.release(sandbox, now)
        self.on_cooling()
        if row is not None:
            held = now.wall - row.since
            # The loop comes to it when whoever waits for the DEL has its answer.
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: self._note("address released", row, held_seconds=held))

    def _note_assigned(self, ask: Ask, row: LeaseRow) -> None:
        self._note("address assigned", row, waited_seconds=ask.waited_seconds)

    def _note(self, event: str, row: LeaseRow, **detail: object) -> None:
        detail |= {
            "container_id": row.sandbox.container_id,
            "pod": f"{row.pod.namespace}/{row.pod.name}",
            "eni_id": row.eni_id,
        }
        text = ",".join(map(str, row.addresses))
        log.info(event, extra={"ip": text, **detail})
        self.record(Event(self._clock().wall, event, text, detail))

    # The wire --------------------------------------------------------------------------
    def _connect(self, ask: Ask) -> asyncio.Future[Attached]:
        """Have the wire made; the thread is at it when this returns."""
        wish = self._wish(self._rows[ask.request.sandbox], ask.request)
        netns_fd, netlink_fd = ask.client.descriptors[:2]
        return asyncio.get_running_loop().run_in_executor(
            self._thread, self._wiring.connect, wish, netns_fd, netlink_fd, ask.request.netns_path
        )

    async def _wire(self, ask: Ask, connected: asyncio.Future[Attached]) -> None:
        sandbox = ask.request.sandbox
        row = self._rows[sandbox]
        try:
            self._attached[sandbox] = await connected
        except WireError as error:
            self._note_assigned(ask, row)
            ask.error = replies.wire_not_made(error)
            log.warning("wire not made", extra={**_fields(ask), "reason": str(error)})
            self._step(sandbox, lanes.WireFailed())
        else:
            self._place(ask)
            if ask.client.is_gone():  # and the loop has not come to that yet
                self._on_gone(ask)
            self._step(sandbox, lanes.Wired())
            self._note_assigned(ask, row)  # the pod need not wait for that
        self.on_demand()  # one fewer is warm
        ask.wiring = False
        if ask.gone:
            self._end(ask)

    def veth(self, sandbox: Sandbox) -> str:
        """Return the name of a sandbox's host veth; it keeps the one that it has."""
        name = dataplane.host_ifname(sandbox, self.node.prefix)
        return self._veths.setdefault(sandbox, name)

    def _wish(self, row: LeaseRow, request: Request) -> Wish:
        return Wish(
            sandbox=row.sandbox,
            addresses=row.addresses,
            eni_number=row.eni_number,
            eni_id=row.eni_id,
            pod_uid=row.pod.uid,
            mtu=request.conf.mtu or self.node.mtu,
            node_primary=self.node.primary,
            veth=self.veth(row.sandbox),
            ipv6=self.node.ipv6,
        )

    async def _inspect(self, ask: Ask) -> None:
        """Look at the wire, and repair nothing: for a CHECK, or an ADD that a former life had."""
        sandbox, is_add, is_wired = ask.request.sandbox, ask.request.verb is Verb.ADD, None
        row = self._rows[sandbox]
        wish, (netns_fd, netlink_fd) = self._wish(row, ask.request), ask.client.descriptors[:2]
        loop = asyncio.get_running_loop()
        try:
            wire = await loop.run_in_executor(
                self._thread, self._wiring.inspect, wish, netns_fd, netlink_fd
            )
        except WireError as error:
            unseen = CniError(Code.IO, str(error), f"{error.id}; ask again")
            ask.error = replies.wire_not_made(error) if is_add else unseen
        else:
            if is_add:
                is_wired = self._take_up(ask, made(wish, wire, ask.request.netns_path))
            else:
                ask.error = _differing(ask, row, wish, wire)
        ask.wiring = False
        self._step(sandbox, lanes.Inspected(is_wired))
        if ask.gone:
            self._end(ask)

    def _take_up(self, ask: Ask, attached: Attached | None) -> bool:
        """Have what a former life has *attached*, and return whether it did."""
        if attached is not None:
            self._attached[ask.request.sandbox] = attached
            self._place(ask)
        return attached is not None

    def _place(self, ask: Ask) -> None:
        """Note in which namespace the wire is, if only the kernel knew."""
        row = self._rows[ask.request.sandbox]
        if row.netns is None:
            self._rows[row.sandbox] = replace(row, netns=ask.netns)

    async def _unwire(self, sandbox: Sandbox) -> None:
        """Cut the wire, and only then let its address cool: what the kernel refuses is tried again.

        Whoever asked for it waits meanwhile, and may hang up and ask again.
        """
        row = self._rows[sandbox]
        name, addresses = self.veth(sandbox), tuple(row.addresses)
        loop = asyncio.get_running_loop()
        wait = FIRST_RETRY_SECONDS
        while True:
            try:
                await loop.run_in_executor(self._thread, self._wiring.disconnect, name, addresses)
            except WireError as error:
                told = {"container_id": sandbox.container_id, "reason": str(error)}
                log.warning("wire not cut", extra=told)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY_SECONDS)
            else:
                break
        self._release(sandbox)
        self._step(sandbox, lanes.Unwired())
        self.on_unwired()

    def drop(self, sandbox: Sandbox) -> None:
        """Release a lease whose wire is gone from the kernel; nothing while a verb is busy."""
        if sandbox in self._rows and not self.is_busy(sandbox):
            self._release(sandbox)
            self._lanes.pop(sandbox, None)
            self.on_unwired()

    # Answers ---------------------------------------------------------------------------
    def _reply(self, ask: Ask, outcome: Outcome) -> None:
        sandbox = ask.request.sandbox
        match outcome:
            case Outcome.ADDED:
                self._answer(ask, self._attached[sandbox])
            case Outcome.DELETED:
                self._answer(ask, None)
            case Outcome.STALE:
                self._answer(ask, replies.stale(sandbox))
            case Outcome.OTHER_NETNS:
                self._answer(ask, replies.other_netns(sandbox))
            case Outcome.DELETED_MEANWHILE:
                self._answer(ask, replies.deleted_meanwhile(sandbox))
            case Outcome.UNKNOWN:
                self._answer(ask, replies.unknown(sandbox))
            case Outcome.FAILED | Outcome.CHECKED:
                self._answer(ask, ask.error)
            case _:  # pragma: no cover - a new outcome must be placed above
                assert_never(outcome)

    def _answer(self, ask: Ask, what: Attached | CniError | None) -> None:
        version = ask.request.conf.cni_version
        if isinstance(what, CniError):
            ask.client.reply(1, error_json(what, version))
            log.warning("refused", extra={**_fields(ask), "code": what.code, "reason": what.msg})
        else:
            ask.client.reply(0, result_json(version, what) if what else b"")
        if isinstance(what, replies.AddRefusedError) and ask.request.verb is Verb.ADD:
            self.on_refused(ask.request.pod, what)
        self.on_answer(ask.request.verb, what, self._clock().elapsed(ask.since))
        self._end(ask)

    def _end(self, ask: Ask) -> None:
        if ask.timer is not None:
            ask.timer.cancel()
        self._asks.pop(ask.client.id, None)
        ask.client.close()


def read_request(client: Client, env: dict[str, str], stdin: bytes) -> Request | Collect | None:
    """Return what *client* asks for; None if it was refused, and answered."""
    try:
        return parse_request(env, stdin)
    except CniError as error:
        client.reply(1, error_json(error, version_in(stdin)))
        client.close()
        return None


def _differing(ask: Ask, row: LeaseRow, wish: Wish, wire: Wire) -> CniError | None:
    """Return what CHECK says of *wire*, compared with its lease and the runtime's memory."""
    found = differences(wish, wire, ask.request.previous or Previous())
    if row.netns not in {None, ask.netns}:
        found = ("CNI_NETNS is not the namespace that the attachment is in", *found)
    return replies.not_as_wired(row.sandbox, found) if found else None


def _fields(ask: Ask) -> dict[str, object]:
    request = ask.request
    return {
        "verb": request.verb.value,
        "container_id": request.sandbox.container_id,
        "ifname": request.sandbox.ifname,
        "pod": f"{request.pod.namespace}/{request.pod.name}",
    }
