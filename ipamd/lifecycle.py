"""The lives of this node's ENIs, step by step, on the loop. Shell.

Every mutation is journalled before it is asked for, and every intent can be taken up again
from the state it was left in:

    planned ─create─> created ─attach─> attached ─modify─> modified ─link, routes─> configured
       ─blocks held, guarded─> active ─no pod left─> draining ─detach, delete─> gone

Many lives run at once: what blocks (EC2, the kernel, the disk) runs in threads, and nothing
here waits for the life of another ENI. An outcome nobody knows is settled by looking at the
ENI by its id, never by repeating the call; what EC2 does not show once may be late, so only
the second look counts. Methods raise EniError (nothing lost, try later or tell someone),
JournalError (the intent could not be written, so nothing was asked) or NodeError. Longer
than most files of ours: the steps of one life are read together.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import TypeVar

from cni.dataplane import EniLink
from cni.kernel import NodeError, NodeNet
from eni.calls import Ec2Calls
from eni.errors import (
    EniError,
    InvalidStateError,
    NotFoundError,
    NotYetError,
    RefusedError,
    SubnetExhaustedError,
    UnknownOutcomeError,
)
from eni.model import (
    Address,
    Attachment,
    AttachmentId,
    AttachmentStatus,
    Block,
    Eni,
    EniId,
    Identity,
    Kind,
    SecurityGroupId,
    SubnetId,
)
from ipamd.budget import Priority
from ipamd.clock import Instant
from ipamd.ec2_line import Ec2Line
from ipamd.intents import (
    CLUSTER_TAG,
    CREATED_TAG,
    DESCRIPTION,
    INSTANCE_TAG,
    INTENT_TAG,
    OWNER,
    OWNER_TAG,
    EniState,
    Intent,
    is_foreign,
    note_of,
    noted,
    wish_of,
)
from ipamd.journal import Journal, JournalError
from ipamd.ports import Threads

log = logging.getLogger(__name__)
T = TypeVar("T")

LINK_SECONDS = 60.0
"""How long an attached ENI may take to show up in the kernel before EC2 is asked again;
create and attach take up to 10 s together (EKS best-practice guide), now and then minutes."""

DETACH_SECONDS = 60.0
"""How long a detach may take before we let go and come back later; 2 to 3 s are usual."""

LOOK_SECONDS = 0.05
"""How often the kernel is asked for a new link: one netlink message."""

HURRY_SECONDS = 5.0
"""How long it is asked so often; pods wait for it. What takes longer is asked for ever less."""

SECOND_LOOK_SECONDS = 30.0
"""What EC2 does not show is gone only if it is not shown this much later either: describes
lag behind mutations by seconds."""


@dataclass(frozen=True, slots=True)
class Home:
    """What this node's ENIs have in common. *tags* are the operator's."""

    identity: Identity
    mtu: int
    tags: tuple[tuple[str, str], ...] = ()
    cluster_name: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new ENI goes."""

    subnet_id: SubnetId
    subnet_cidr: IPv4Network
    security_groups: tuple[SecurityGroupId, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """An ENI that pods may use: *blocks* are held and guarded.

    *hosts* says which addresses are on the node's own links, and on which.
    """

    eni_id: EniId
    number: int
    subnet_id: SubnetId
    blocks: tuple[Block, ...]
    hosts: Mapping[Address, str]
    stays: bool = False
    """Whether somebody else attached it, so that it is not ours to take away."""


@dataclass(frozen=True, slots=True)
class Returned:
    """How an unassign ended: *doubtful* blocks are EC2's or ours, and no pod's for now."""

    gone: tuple[Block, ...]
    kept: tuple[Block, ...] = ()
    doubtful: tuple[Block, ...] = ()


@dataclass(slots=True)
class Lifecycle:
    """The ENIs of this node. Owned by the loop."""

    ec2: Ec2Calls
    line: Ec2Line
    net: NodeNet
    journal: Journal
    threads: Threads
    home: Home
    clock: Callable[[], Instant]
    new_token: Callable[[], str]
    occupied: frozenset[int] = frozenset()
    """Device indexes of ENIs that are not ours, as last seen."""
    intents: dict[str, Intent] = field(default_factory=dict)
    """Every ENI that is not gone, by token; the journal's copy of it is never ahead."""
    _links: dict[EniId, EniLink] = field(default_factory=dict)
    _absent: dict[str, Instant] = field(default_factory=dict)
    _coming: set[Block] = field(default_factory=set)
    """Blocks that are guarded already and not yet in the pool."""
    _going: set[Block] = field(default_factory=set)
    """Blocks in the pool that are not guarded any more."""
    _unsettled: set[EniId] = field(default_factory=set)
    """ENIs with an assign of which nobody knows yet whether it was done."""
    _awaited: set[EniId] | None = None
    """ENIs of ours that are not set up yet; None: EC2 has yet to tell."""

    # What is known ---------------------------------------------------------------------
    async def load(self) -> None:
        """Read the journal."""
        for intent in await self._write(self.journal.intents):
            self.intents[intent.token] = intent

    def intent_of(self, eni_id: EniId) -> Intent | None:
        """Return the ENI's intent, None if it is not ours."""
        return next((i for i in self.intents.values() if i.eni_id == eni_id), None)

    async def _call(self, priority: Priority, call: Callable[..., T], *arguments: object) -> T:
        return await self.line.call(priority, call, *arguments)

    async def _write(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads.journal, work, *arguments)

    async def _kernel(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads.net, work, *arguments)

    def _demand_journal(self) -> None:
        if self.journal.trouble:
            raise RefusedError(self.journal.trouble, action="journal")

    async def _put(self, intent: Intent) -> Intent:
        """Write *intent* as it now is. On JournalError it is as it was before."""
        before = self.intents.get(intent.token)
        self.intents[intent.token] = intent
        try:
            self._demand_journal()
            await self._write(self.journal.put, intent, self.clock().wall)
        except (JournalError, RefusedError):
            if before is None:
                del self.intents[intent.token]
            else:
                self.intents[intent.token] = before
            raise
        log.info(
            "eni",
            extra={
                "state": intent.state.value,
                "eni_id": intent.eni_id,
                "index": intent.device_index,
            },
        )
        return intent

    async def _forget(self, intent: Intent) -> None:
        await self._write(self.journal.forget, intent)
        self.intents.pop(intent.token, None)
        self._absent.pop(intent.token, None)

    # Growing ---------------------------------------------------------------------------
    def plan_eni(self, place: Place, kind: Kind, count: int) -> Intent:
        """Return the intent of a new ENI with *count* blocks; its device index is taken from now.

        Raises RefusedError if there is no journal to write it to.
        """
        self._demand_journal()
        token = self.new_token()
        instance = self.home.identity.instance_id
        created = dt.datetime.fromtimestamp(int(self.clock().wall), dt.UTC)
        tags = {
            **dict(self.home.tags),
            **self._cluster_tags(),
            INSTANCE_TAG: instance,
            CREATED_TAG: created.isoformat().replace("+00:00", "Z"),
            INTENT_TAG: token,
        }
        parameters = {
            "token": token,
            "subnet_id": place.subnet_id,
            "subnet_cidr": str(place.subnet_cidr),
            "security_groups": list(place.security_groups),
            "description": f"{DESCRIPTION}{instance}",
            "kind": kind.value,
            "count": count,
            "tags": [list(tag) for tag in tags.items()],
        }
        intent = Intent(
            token=token,
            state=EniState.PLANNED,
            device_index=self._free_index(),
            parameters=parameters,
        )
        self.intents[token] = intent
        return intent

    def _cluster_tags(self) -> dict[str, str]:
        name = self.home.cluster_name
        return {CLUSTER_TAG: name, OWNER_TAG: OWNER} if name else {}

    def _free_index(self) -> int:
        used = self.occupied | {intent.device_index for intent in self.intents.values()}
        return next(i for i in range(1, len(used) + 2) if i not in used)

    async def begin(self, intent: Intent, priority: Priority) -> Ready:
        """Bring an ENI that was just planned all the way up, in three calls."""
        try:
            await self._put(intent)
        except (JournalError, RefusedError):
            self.intents.pop(intent.token, None)
            raise
        return await self._bring_up(intent, priority, fresh=True)

    async def resume(self, intent: Intent, priority: Priority) -> Ready:
        """Bring an ENI from the state it was left in to active."""
        return await self._bring_up(intent, priority, fresh=False)

    async def _bring_up(self, intent: Intent, priority: Priority, *, fresh: bool) -> Ready:
        """*fresh* says that nothing can have happened behind our back, which spares looking."""
        if intent.state is EniState.PLANNED:
            intent = await self._create(intent, priority, fresh=fresh)
        if intent.state is EniState.CREATED:
            intent = await self._attach(intent, priority, fresh=fresh)
        if intent.state is EniState.ATTACHED:
            intent = await self._modify(intent, priority)
        eni: Eni | None = None
        if intent.state is EniState.MODIFIED:
            eni = None if fresh else await self._describe(intent, priority)
            intent = await self._configure(intent, eni, priority)
        blocks = eni.blocks if eni is not None else noted(intent).blocks
        return await self._activate(intent, blocks)

    async def _create(self, intent: Intent, priority: Priority, *, fresh: bool) -> Intent:
        try:
            eni = await self._call(priority, self.ec2.create, wish_of(intent.parameters))
        except UnknownOutcomeError:
            raise
        except EniError as error:
            # A fresh wish that EC2 has refused leaves nothing to come back to. Of an older one
            # nobody knows whether an earlier try was done: its tag tells, at the second look.
            found = None if fresh else await self._find_created(intent, error, priority)
            if found is None:
                await self._forget(intent)
                raise
            eni = found
        return await self._put(
            replace(
                intent,
                state=EniState.CREATED,
                eni_id=eni.id,
                mac=eni.mac,
                parameters={
                    **intent.parameters,
                    "eni": note_of(eni, IPv4Network(str(intent.parameters["subnet_cidr"]))),
                },
            )
        )

    async def _find_created(
        self, intent: Intent, error: EniError, priority: Priority
    ) -> Eni | None:
        """Return what an earlier try made; None if it is sure that there is nothing."""
        if isinstance(error, NotYetError) and not isinstance(error, SubnetExhaustedError):
            raise error
        found = await self._call(priority, self.ec2.by_tag, INTENT_TAG, intent.token)
        if found:
            return found[0]
        if not self._is_second_look(intent.token):
            raise error
        return None

    def _is_second_look(self, token: str) -> bool:
        """Whether *token*'s ENI was not shown by EC2 long enough to believe it is not there."""
        first = self._absent.setdefault(token, self.clock())
        return self.clock().elapsed(first) >= SECOND_LOOK_SECONDS

    async def _attach(self, intent: Intent, priority: Priority, *, fresh: bool) -> Intent:
        attachment = None if fresh else (await self._describe(intent, priority)).attachment
        attachment_id = None
        if attachment is None:
            attachment_id = await self._try_attach(intent, priority)
        if attachment_id is None:
            attachment = await self._own_attachment(intent, priority)
            attachment_id = attachment.id
            intent = replace(intent, device_index=attachment.device_index)
        return await self._put(
            replace(intent, state=EniState.ATTACHED, attachment_id=attachment_id)
        )

    async def _try_attach(self, intent: Intent, priority: Priority) -> AttachmentId | None:
        """Attach; return None if nobody knows whether it was done.

        An attach that EC2 refuses for good is undone whole: an ENI that no instance can
        take is a leak.
        """
        assert intent.eni_id is not None
        instance = self.home.identity.instance_id
        try:
            return await self._call(
                priority, self.ec2.attach, intent.eni_id, instance, intent.device_index
            )
        except UnknownOutcomeError:
            return None
        except NotFoundError:
            await self._describe(intent, priority)  # not known yet, or gone: two looks tell
            raise
        except RefusedError:
            eni = await self._call(priority, self.ec2.eni, intent.eni_id)
            if eni is not None and eni.attachment is None:
                await self._delete(intent.eni_id, priority)
                await self._forget(intent)
            raise

    async def _own_attachment(self, intent: Intent, priority: Priority) -> Attachment:
        eni = await self._describe(intent, priority)
        attachment = eni.attachment
        if attachment is None:
            raise NotYetError(f"{eni.id} is not attached yet", action="AttachNetworkInterface")
        if attachment.instance_id != self.home.identity.instance_id:
            await self._forget(intent)
            raise RefusedError(
                f"{eni.id} belongs to {attachment.instance_id} now",
                action="AttachNetworkInterface",
            )
        return attachment

    async def _describe(self, intent: Intent, priority: Priority) -> Eni:
        """Return the ENI. One that EC2 does not know at the second look is forgotten."""
        assert intent.eni_id is not None
        eni = await self._call(priority, self.ec2.eni, intent.eni_id)
        if eni is not None:
            self._absent.pop(intent.token, None)
            return eni
        if self._is_second_look(intent.token):
            await self._forget(intent)
        raise NotFoundError(f"{intent.eni_id} is not there", action="DescribeNetworkInterfaces")

    async def _modify(self, intent: Intent, priority: Priority) -> Intent:
        """Let the ENI go with its instance; if that cannot be said now, later (`amend`).

        Pods that wait need the ENI and not this attribute.
        """
        parameters = dict(intent.parameters)
        if is_foreign(intent):
            return await self._put(replace(intent, state=EniState.MODIFIED))
        try:
            await self._set_termination(intent, priority)
        except EniError as error:
            log.warning("eni outlives its instance for now", extra={"reason": str(error)})
            parameters["outlives"] = True
        return await self._put(replace(intent, state=EniState.MODIFIED, parameters=parameters))

    async def _set_termination(self, intent: Intent, priority: Priority) -> None:
        assert intent.eni_id is not None
        assert intent.attachment_id is not None
        await self._call(
            priority, self.ec2.delete_on_termination, intent.eni_id, intent.attachment_id
        )

    async def amend(self, intent: Intent, priority: Priority) -> None:
        """Do what `_modify` could not."""
        await self._set_termination(intent, priority)
        now = self.intents.get(intent.token)
        if now is not None:  # it may have gone meanwhile
            parameters = {k: v for k, v in now.parameters.items() if k != "outlives"}
            await self._put(replace(now, parameters=parameters))

    async def _configure(self, intent: Intent, eni: Eni | None, priority: Priority) -> Intent:
        assert intent.mac is not None
        if not await self._link_comes(intent.mac):
            eni = await self._describe(intent, priority)
            if eni.attachment is None or self._is_elsewhere(eni):
                await self._start_over(intent)  # the kernel has not shown it for long either
            raise NotYetError(
                f"{intent.eni_id} is attached but the kernel shows no link {intent.mac}"
                f" (EC2 says {eni.attachment.status if eni.attachment else eni.status})",
                action="AttachNetworkInterface",
            )
        if eni is not None:
            note = note_of(eni, noted(intent).subnet_cidr)
            intent = replace(intent, parameters={**intent.parameters, "eni": note})
        await self.set_up_link(intent)
        return await self._put(replace(intent, state=EniState.CONFIGURED))

    async def _start_over(self, intent: Intent) -> None:
        """Attach an ENI of ours once more that somebody detached; let go of an adopted one."""
        if "token" in intent.parameters:
            await self._put(replace(intent, state=EniState.CREATED, attachment_id=None))
        else:
            await self._forget(intent)

    async def _link_comes(self, mac: str, seconds: float = LINK_SECONDS) -> bool:
        """Wait until the kernel shows the link; its coming is all that an ADD waits for."""
        return await self._link_is(mac, seconds, there=True)

    async def _link_goes(self, mac: str, seconds: float) -> bool:
        return await self._link_is(mac, seconds, there=False)

    async def _link_is(self, mac: str, seconds: float, *, there: bool) -> bool:
        start, wait = self.clock(), LOOK_SECONDS
        while (await self._kernel(self.net.find_link, mac) is not None) is not there:
            if self.clock().elapsed(start) >= seconds:
                return False
            await asyncio.sleep(wait)
            if self.clock().elapsed(start) >= HURRY_SECONDS:
                wait = min(1.05 * wait, 1.0)
        return True

    async def set_up_link(self, intent: Intent) -> None:
        """Bring the kernel's side of an ENI to its desired state. Idempotent."""
        assert intent.eni_id is not None
        assert intent.mac is not None
        note = noted(intent)
        link = EniLink(
            number=intent.device_index + 1,
            mac=intent.mac,
            address=note.primary,
            subnet=note.subnet_cidr,
            mtu=self.home.mtu,
        )
        await self._kernel(self.net.configure_eni, link)
        self._links[intent.eni_id] = link
        if self._awaited:
            self._awaited.discard(intent.eni_id)
        await self._set_rules()

    async def ensure_link(self, eni_id: EniId) -> None:
        """Set up the kernel's side of an ENI of ours if this life has not done so yet."""
        intent = self.intent_of(eni_id)
        if eni_id in self._links or intent is None or intent.mac is None:
            return
        if await self._kernel(self.net.find_link, intent.mac) is None:
            raise NotYetError(f"no link {intent.mac} of {eni_id} yet", action="attach")
        await self.set_up_link(intent)

    async def _set_rules(self) -> None:
        links, prune = tuple(self._links.values()), self._awaited == set()
        await self._kernel(lambda: self.net.set_rules(links, prune=prune))

    async def _activate(self, intent: Intent, blocks: Sequence[Block]) -> Ready:
        assert intent.eni_id is not None
        ready = await self.take(intent.eni_id, blocks)
        if intent.state is not EniState.ACTIVE:
            await self._put(replace(intent, state=EniState.ACTIVE))
        return ready

    async def take(self, eni_id: EniId, blocks: Sequence[Block]) -> Ready:
        """Note and guard *blocks* as ours.

        A journal that cannot be written does not keep pods from what EC2 has given: the
        next life learns of it from EC2 and from the leases. Whoever puts the blocks into the
        pool says so by `taken`.
        """
        self._coming.update(blocks)
        try:
            hosts = await self._take(eni_id, tuple(blocks))
        except BaseException:
            self.taken(blocks)
            raise
        intent = self.intent_of(eni_id)
        assert intent is not None
        return Ready(
            eni_id,
            intent.device_index + 1,
            noted(intent).subnet_id,
            tuple(blocks),
            hosts,
            is_foreign(intent),
        )

    async def _take(self, eni_id: EniId, blocks: tuple[Block, ...]) -> Mapping[Address, str]:
        if self.journal.trouble is None:
            try:
                await self._write(self.journal.hold, eni_id, blocks, self.clock().wall)
            except JournalError as error:
                log.warning("held blocks not journalled", extra={"reason": str(error)})
        await self._kernel(self.net.add_guards, blocks)
        return await self._kernel(self.net.host_addresses)

    def taken(self, blocks: Iterable[Block]) -> None:
        """Learn that the pool has *blocks*, or will not have them."""
        self._coming.difference_update(blocks)

    # Blocks ----------------------------------------------------------------------------
    async def assign(
        self, eni_id: EniId, kind: Kind, count: int, known: Collection[Block], priority: Priority
    ) -> Ready:
        """Ask *count* more blocks for an ENI that has *known* ones."""
        self._demand_journal()
        new: tuple[Block, ...] = ()
        if eni_id in self._unsettled:
            new = await self._settle_assign(eni_id, known, priority)
        if not new:
            try:
                new = await self._call(priority, self.ec2.assign, eni_id, kind, count)
            except UnknownOutcomeError:
                self._unsettled.add(eni_id)
                new = await self._settle_assign(eni_id, known, priority)
                if not new:
                    raise  # not done, or not shown yet: the census looks twice
        return await self.take(eni_id, new)

    async def _settle_assign(
        self, eni_id: EniId, known: Collection[Block], priority: Priority
    ) -> tuple[Block, ...]:
        """Return what an assign brought that got no answer; until that is told none is repeated."""
        eni = await self._call(priority, self.ec2.eni, eni_id)
        if eni is None:
            raise NotFoundError(f"{eni_id} is not there", action="DescribeNetworkInterfaces")
        self._unsettled.discard(eni_id)
        return tuple(block for block in eni.blocks if block not in known)

    async def unassign(self, eni_id: EniId, blocks: tuple[Block, ...]) -> Returned:
        """Give *blocks* back, which the pool gives to nobody any more."""
        self._demand_journal()
        await self._write(self.journal.begin_release, blocks, self.clock().wall)
        try:
            await self._call(Priority.SHRINK, self.ec2.unassign, eni_id, blocks)
            done = Returned(blocks)
        except (UnknownOutcomeError, NotFoundError):
            done = await self._settle_unassign(eni_id, blocks)
        except EniError:
            await self._write(self.journal.hold, eni_id, blocks, self.clock().wall)
            raise
        await self.give_up(done.gone)
        return done

    async def _settle_unassign(self, eni_id: EniId, blocks: tuple[Block, ...]) -> Returned:
        """What EC2 still shows may be late: it is no pod's until the census has settled it."""
        try:
            eni = await self._call(Priority.SHRINK, self.ec2.eni, eni_id)
        except EniError:
            return Returned((), doubtful=blocks)
        held = () if eni is None else eni.blocks
        gone = tuple(block for block in blocks if block not in held)
        return Returned(gone, doubtful=tuple(b for b in blocks if b not in gone))

    async def keep(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """Note that EC2 has kept *blocks* with us after all, if the journal can be written."""
        if self.journal.trouble is not None:
            return
        with contextlib.suppress(JournalError):  # or a next life waits for its census
            await self._write(self.journal.hold, eni_id, tuple(blocks), self.clock().wall)

    async def give_up(self, blocks: Iterable[Block]) -> None:
        """Stop guarding *blocks*, which are EC2's again.

        It is done whatever happens here: a guard or a row that stays is taken away by the
        next census, and must not make anybody believe that the blocks are still ours.
        """
        gone = tuple(blocks)
        if not gone:
            return
        self._going.update(gone)
        try:
            await self._kernel(self.net.remove_guards, gone)
            if self.journal.trouble is None:
                await self._write(self.journal.drop, gone, self.clock().wall)
        except (NodeError, JournalError) as error:
            log.warning("blocks given up, not all noted", extra={"reason": str(error)})
        finally:
            self._going.difference_update(gone)

    async def prune(self, held: Callable[[], Collection[Block]], awaited: Iterable[EniId]) -> None:
        """Guard and journal what is *held*, and nothing else, and so with rules of ENIs.

        Only after EC2 has told what is ours: a former life may have left rules and guards
        of an ENI that this one has yet to hear of, or to take over, and pods that need them.
        No rule goes while *awaited* ENIs have yet to be set up. *held* is asked at the last
        moment, since other flights bring blocks and take them away meanwhile.
        """
        self._awaited = set(awaited) - self._links.keys()
        await self._set_rules()
        await self._kernel(self.net.guards, self._wanted(held()))
        if self.journal.trouble is None:
            rows = await self._write(self.journal.blocks)
            left = set(self._wanted(held()))
            stray = tuple(block for block, _, _ in rows if block not in left)
            if stray:
                await self._write(self.journal.drop, stray, self.clock().wall)

    def _wanted(self, held: Collection[Block]) -> tuple[Block, ...]:
        return tuple(sorted((set(held) | self._coming) - self._going))

    # Shrinking -------------------------------------------------------------------------
    async def keep_eni(self, eni_id: EniId) -> None:
        """Let an ENI that was to go stay: a pod has an address of it after all."""
        intent = self.intent_of(eni_id)
        if intent is not None and intent.state is EniState.DRAINING:
            await self._put(replace(intent, state=EniState.ACTIVE))

    async def remove_eni(self, eni_id: EniId, priority: Priority = Priority.SHRINK) -> None:
        """Detach and delete an ENI that no pod uses; take it up where it was left.

        One that is another instance's by now is only forgotten. Raises RefusedError if it is
        not in the journal.
        """
        intent = self.intent_of(eni_id)
        if intent is None:
            raise RefusedError(f"{eni_id} is not in the journal", action="DetachNetworkInterface")
        if intent.state is not EniState.DRAINING:
            intent = await self._put(replace(intent, state=EniState.DRAINING))
        eni = await self._call(priority, self.ec2.eni, eni_id)
        if eni is None and not self._is_second_look(intent.token):
            raise NotYetError(f"{eni_id} is not shown", action="DescribeNetworkInterfaces")
        if eni is not None and not self._is_elsewhere(eni):
            await self._detach(intent, eni, priority)
            await self._delete_detached(eni_id, priority)
        await self._end(intent)
        log.info("eni deleted", extra={"eni_id": eni_id})

    async def disown(self, eni_id: EniId) -> None:
        """Forget an ENI that is somebody else's now; EC2 is told nothing."""
        intent = self.intent_of(eni_id)
        if intent is not None:
            await self._end(intent)
            log.warning("eni is not ours any more", extra={"eni_id": eni_id})

    def _is_elsewhere(self, eni: Eni) -> bool:
        here = self.home.identity.instance_id
        return eni.attachment is not None and eni.attachment.instance_id != here

    async def _end(self, intent: Intent) -> None:
        """Take away the kernel's side of an ENI, and its rows."""
        assert intent.eni_id is not None
        self._links.pop(intent.eni_id, None)
        await self._set_rules()
        held = await self._write(self.journal.blocks)
        mine = [block for block, holder, _ in held if holder == intent.eni_id]
        await self._kernel(self.net.remove_guards, mine)
        await self._forget(intent)

    async def _detach(self, intent: Intent, eni: Eni, priority: Priority) -> None:
        """Detach, and wait until the kernel's link is gone: that costs EC2 nothing."""
        attachment = eni.attachment
        if attachment is None:
            return
        if attachment.status is not AttachmentStatus.DETACHING:
            with contextlib.suppress(UnknownOutcomeError, NotFoundError):
                # The link, and then the delete, tell.
                await self._call(priority, self.ec2.detach, attachment.id)
        assert intent.mac is not None
        if not await self._link_goes(intent.mac, DETACH_SECONDS):
            raise NotYetError(f"{eni.id} is still detaching", action="DetachNetworkInterface")

    async def _delete_detached(self, eni_id: EniId, priority: Priority) -> None:
        """Delete; EC2 may take some seconds to see that nobody uses it any more."""
        for wait in (1.0, 2.0, 4.0, 8.0, 16.0):
            try:
                await self._delete(eni_id, priority)
            except InvalidStateError:
                await asyncio.sleep(wait)
            else:
                return
        raise NotYetError(f"{eni_id} is still in use", action="DeleteNetworkInterface")

    async def _delete(self, eni_id: EniId, priority: Priority) -> None:
        try:
            await self._call(priority, self.ec2.delete, eni_id)
        except NotFoundError:
            return

    async def delete_leaked(self, eni_id: EniId) -> None:
        """Delete an ENI that no intent knows, if EC2 says by its id that nobody uses it."""
        eni = await self._call(Priority.SWEEP, self.ec2.eni, eni_id)
        if eni is not None and eni.attachment is None and eni.status == "available":
            await self._delete(eni_id, Priority.SWEEP)
            log.warning("leaked eni deleted", extra={"eni_id": eni_id})

    # Looking ---------------------------------------------------------------------------
    async def attached(self, priority: Priority) -> tuple[Eni, ...]:
        """Return what EC2 shows attached to us."""
        return await self._call(priority, self.ec2.attached, self.home.identity.instance_id)

    async def adopt(
        self,
        eni: Eni,
        attachment: Attachment,
        cidr: IPv4Network,
        priority: Priority,
        *,
        asks: bool = True,
    ) -> Ready:
        """Take over an ENI that is shown attached to us and the journal does not know.

        Without *asks* EC2 is neither asked nor told anything: the ENI serves, and stays.
        """
        intent = Intent(
            token=f"adopted-{eni.id}",
            state=EniState.ATTACHED,
            device_index=attachment.device_index,
            parameters={
                "eni": note_of(eni, cidr),
                "foreign": not asks or await self._is_foreign(eni, priority),
            },
            eni_id=eni.id,
            attachment_id=attachment.id,
            mac=eni.mac,
        )
        if self.journal.trouble is None:
            return await self._bring_up(await self._put(intent), priority, fresh=not asks)
        if not await self._link_comes(eni.mac):
            raise NotYetError(f"no link {eni.mac} of {eni.id} yet", action="Attach")
        await self.set_up_link(intent)
        self.intents[intent.token] = replace(intent, state=EniState.ACTIVE)
        return await self.take(eni.id, eni.blocks)

    async def _is_foreign(self, eni: Eni, priority: Priority) -> bool:
        """Return whether *eni* is not ours to change: neither tagged so nor taggable by us.

        IAM cannot tell who attached an ENI, so the shipped policies let a node change only
        what it has tagged at birth (docs/iam.md).
        """
        if eni.tags.get(INSTANCE_TAG) == self.home.identity.instance_id:
            return False
        tags = ((INSTANCE_TAG, self.home.identity.instance_id), *self._cluster_tags().items())
        try:
            await self._call(priority, self.ec2.tag, eni.id, tags)
        except RefusedError as error:
            log.info("adopted eni stays", extra={"eni_id": eni.id, "reason": str(error)})
            return True
        return False

    async def set_groups(self, eni_id: EniId, groups: Sequence[SecurityGroupId]) -> None:
        """Give an ENI of ours these security groups."""
        await self._call(Priority.STEADY, self.ec2.set_groups, eni_id, tuple(groups))
