"""The lives of this node's ENIs, step by step, on the loop. Shell.

Every mutation is journalled before it is asked for, and every intent can be taken up again
from the state it was left in:

    planned ─create─> created ─attach─> attached ─modify─> modified ─link, routes─> configured
       ─blocks held, guarded─> active ─no pod left─> draining ─detach, delete─> gone

Many lives run at once: what blocks (EC2, the kernel, the disk) runs in threads, and nothing
here waits for the life of another ENI. An outcome nobody knows is settled by looking at the
ENI by its id, never by repeating the call; what EC2 does not show once may be late, so only
the second look counts. Methods raise EniError (nothing lost, try later or tell someone),
JournalError (the intent could not be written, so nothing was asked) or NodeError.

The first half of a life is here, up to *active*; its blocks, the kernel's side of it and
its end have modules of their own (`ipamd.blocks`, `ipamd.links`, `ipamd.endings`).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network

from eni.errors import (
    EniError,
    NotFoundError,
    NotYetError,
    RefusedError,
    SubnetExhaustedError,
    UnknownOutcomeError,
)
from eni.model import (
    Attachment,
    AttachmentId,
    AttachmentStatus,
    Block,
    Eni,
    EniId,
    Kind,
    SecurityGroupId,
    SubnetId,
)
from ipamd.blocks import Blocks, Ready
from ipamd.budget import Priority
from ipamd.clock import Instant
from ipamd.endings import Endings
from ipamd.eni_book import SECOND_LOOK_SECONDS, EniBook
from ipamd.intents import (
    CREATED_TAG,
    DESCRIPTION,
    INSTANCE_TAG,
    INTENT_TAG,
    EniState,
    Intent,
    free_index,
    is_detached,
    is_foreign,
    note_of,
    noted,
    wish_of,
)
from ipamd.journal import JournalError
from ipamd.links import Links

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new ENI goes."""

    subnet_id: SubnetId
    subnet_cidr: IPv4Network
    security_groups: tuple[SecurityGroupId, ...]


@dataclass(slots=True)
class Lifecycle:
    """The ENIs of this node. Owned by the loop."""

    book: EniBook
    new_token: Callable[[], str]
    links: Links = field(init=False)
    blocks: Blocks = field(init=False)
    endings: Endings = field(init=False)
    occupied: frozenset[int] = frozenset()
    """Device indexes of ENIs that are not ours, as last seen."""
    _unattached: set[str] = field(default_factory=set)
    """Tokens of ENIs that are surely not attached: nobody has asked for it, or EC2 has refused."""
    _absent: dict[str, Instant] = field(default_factory=dict)
    """Since when no attachment is shown of ENIs that may be attached."""

    def __post_init__(self) -> None:
        self.links = Links(self.book)
        self.blocks = Blocks(self.book, self.links)
        self.endings = Endings(self.book, self.links)

    # Growing ---------------------------------------------------------------------------
    def plan_eni(self, place: Place, kind: Kind, count: int) -> Intent:
        """Return the intent of a new ENI with *count* blocks; its device index is taken from now.

        Raises RefusedError if there is no journal to write it to.
        """
        self.book.demand_journal()
        token = self.new_token()
        instance = self.book.instance_id
        created = dt.datetime.fromtimestamp(int(self.book.clock().wall), dt.UTC)
        tags = {
            **dict(self.book.home.tags),
            **self.book.cluster_tags(),
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
        self.book.intents[token] = intent
        return intent

    def _free_index(self) -> int:
        here = (i for i in self.book.intents.values() if not is_detached(i))
        return free_index(self.occupied | {intent.device_index for intent in here})

    async def begin(self, intent: Intent, priority: Priority) -> Ready:
        """Bring an ENI that was just planned all the way up, in three calls."""
        try:
            await self.book.put(intent)
        except (JournalError, RefusedError):
            self.book.intents.pop(intent.token, None)
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
            eni = None if fresh else await self.book.describe(intent, priority)
            intent = await self._configure(intent, eni, priority)
        blocks = eni.blocks if eni is not None else noted(intent).blocks
        return await self._activate(intent, blocks)

    async def _create(self, intent: Intent, priority: Priority, *, fresh: bool) -> Intent:
        try:
            eni = await self.book.call(priority, self.book.ec2.create, wish_of(intent.parameters))
        except UnknownOutcomeError:
            raise
        except EniError as error:
            # A fresh wish that EC2 has refused leaves nothing to come back to. Of an older one
            # nobody knows whether an earlier try was done: its tag tells, at the second look.
            found = None if fresh else await self._find_created(intent, error, priority)
            if found is None:
                await self.book.forget(intent)
                raise
            eni = found
        # Earlier tries may have left none; this one is not shown yet, as descriptions lag.
        self.book.was_shown(intent.token)
        self._unattached.add(intent.token)
        return await self.book.put(
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
        found = await self.book.call(priority, self.book.ec2.by_tag, INTENT_TAG, intent.token)
        if found:
            return found[0]
        if not self.book.is_second_look(intent.token):
            raise error
        return None

    async def _attach(self, intent: Intent, priority: Priority, *, fresh: bool) -> Intent:
        attachment = None if fresh else (await self.book.describe(intent, priority)).attachment
        attachment_id = None
        if attachment is None:
            self._demand_unattached(intent)
            attachment_id = await self._try_attach(intent, priority)
        if attachment_id is None:
            attachment = await self._own_attachment(intent, priority)
            attachment_id = attachment.id
            intent = replace(intent, device_index=attachment.device_index)
        self._unattached.discard(intent.token)
        self._absent.pop(intent.token, None)
        return await self.book.put(
            replace(intent, state=EniState.ATTACHED, attachment_id=attachment_id)
        )

    def _demand_unattached(self, intent: Intent) -> None:
        """Raise NotYetError while an attach may have been done that EC2 does not show yet.

        Nobody knows of one that got no answer, nor what a former life has asked.
        """
        if intent.token not in self._unattached and not self._is_absent(intent.token):
            raise NotYetError(
                f"{intent.eni_id} is not shown attached; a second look decides",
                action="AttachNetworkInterface",
            )

    def _is_absent(self, token: str) -> bool:
        """Whether no attachment of *token*'s ENI was shown at two looks."""
        first = self._absent.setdefault(token, self.book.clock())
        return self.book.clock().elapsed(first) >= SECOND_LOOK_SECONDS

    async def _try_attach(self, intent: Intent, priority: Priority) -> AttachmentId | None:
        """Attach; return None if nobody knows whether it was done."""
        assert intent.eni_id is not None
        instance = self.book.instance_id
        self._unattached.discard(intent.token)
        self._absent.pop(intent.token, None)
        try:
            return await self.book.call(
                priority, self.book.ec2.attach, intent.eni_id, instance, intent.device_index
            )
        except UnknownOutcomeError:
            return None
        except EniError as error:
            self._unattached.add(intent.token)
            if isinstance(error, RefusedError):
                await self._undo(intent, error, priority)
            raise

    async def _undo(self, intent: Intent, why: RefusedError, priority: Priority) -> None:
        """Delete an ENI that EC2 has refused to attach for good: one that nobody can take leaks.

        If that cannot be done either, it stays in the journal and is tried again; what is
        told is why it is not attached.
        """
        assert intent.eni_id is not None
        if isinstance(why, NotFoundError):
            await self.book.describe(intent, priority)  # not known yet, or gone: two looks tell
            return
        try:
            eni = await self.book.call(priority, self.book.ec2.eni, intent.eni_id)
            if eni is not None and eni.attachment is None:
                await self.endings.delete(intent.eni_id, priority)
                await self.book.forget(intent)
        except EniError as error:
            told = {"eni_id": intent.eni_id, "reason": str(error)}
            log.warning("eni neither attached nor deleted", extra=told)

    async def _own_attachment(self, intent: Intent, priority: Priority) -> Attachment:
        eni = await self.book.describe(intent, priority)
        attachment = eni.attachment
        if attachment is None:
            self._is_absent(intent.token)  # that was the first look
            raise NotYetError(f"{eni.id} is not attached yet", action="AttachNetworkInterface")
        if attachment.instance_id != self.book.instance_id:
            await self.book.forget(intent)
            raise RefusedError(
                f"{eni.id} belongs to {attachment.instance_id} now",
                action="AttachNetworkInterface",
            )
        return attachment

    async def _modify(self, intent: Intent, priority: Priority) -> Intent:
        """Let the ENI go with its instance; if that cannot be said now, later (`amend`).

        Pods that wait need the ENI and not this attribute.
        """
        parameters = dict(intent.parameters)
        if is_foreign(intent):
            return await self.book.put(replace(intent, state=EniState.MODIFIED))
        try:
            await self._set_termination(intent, priority)
        except EniError as error:
            log.warning("eni outlives its instance for now", extra={"reason": str(error)})
            parameters["outlives"] = True
        return await self.book.put(replace(intent, state=EniState.MODIFIED, parameters=parameters))

    async def _set_termination(self, intent: Intent, priority: Priority) -> None:
        assert intent.eni_id is not None
        assert intent.attachment_id is not None
        await self.book.call(
            priority, self.book.ec2.delete_on_termination, intent.eni_id, intent.attachment_id
        )

    async def amend(self, intent: Intent, priority: Priority) -> None:
        """Do what `_modify` could not."""
        await self._set_termination(intent, priority)
        now = self.book.intents.get(intent.token)
        if now is not None:  # it may have gone meanwhile
            parameters = {k: v for k, v in now.parameters.items() if k != "outlives"}
            await self.book.put(replace(now, parameters=parameters))

    async def _configure(self, intent: Intent, eni: Eni | None, priority: Priority) -> Intent:
        assert intent.mac is not None
        if not await self.links.comes(intent.mac):
            eni = await self.book.describe(intent, priority)
            if eni.attachment is None or self.book.is_elsewhere(eni):
                await self._start_over(intent)  # the kernel has not shown it for long either
            raise NotYetError(
                f"{intent.eni_id} is attached but the kernel shows no link {intent.mac}"
                f" (EC2 says {eni.attachment.status if eni.attachment else eni.status})",
                action="AttachNetworkInterface",
            )
        if eni is not None:
            note = note_of(eni, noted(intent).subnet_cidr)
            intent = replace(intent, parameters={**intent.parameters, "eni": note})
        await self.links.set_up(intent)
        return await self.book.put(replace(intent, state=EniState.CONFIGURED))

    async def _start_over(self, intent: Intent) -> None:
        """Attach an ENI of ours once more that somebody detached; let go of an adopted one."""
        if "token" in intent.parameters:
            self._unattached.add(intent.token)
            await self.book.put(replace(intent, state=EniState.CREATED, attachment_id=None))
        else:
            await self.book.forget(intent)

    async def _activate(self, intent: Intent, blocks: Sequence[Block]) -> Ready:
        assert intent.eni_id is not None
        ready = await self.blocks.take(intent.eni_id, blocks)
        if intent.state is not EniState.ACTIVE:
            await self.book.put(replace(intent, state=EniState.ACTIVE))
        return ready

    # Looking ---------------------------------------------------------------------------
    async def attached(self, priority: Priority) -> tuple[Eni, ...]:
        """Return what EC2 shows attached to us."""
        return await self.book.call(priority, self.book.ec2.attached, self.book.instance_id)

    async def is_here(self, eni_id: EniId) -> bool:
        """Return whether EC2 says by its id that an ENI is attached to us and stays so."""
        eni = await self.book.call(Priority.STEADY, self.book.ec2.eni, eni_id)
        if eni is None or eni.attachment is None or self.book.is_elsewhere(eni):
            return False
        return eni.attachment.status is not AttachmentStatus.DETACHING

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
        if self.book.journal.trouble is None:
            return await self._bring_up(await self.book.put(intent), priority, fresh=not asks)
        if not await self.links.comes(eni.mac):
            raise NotYetError(f"no link {eni.mac} of {eni.id} yet", action="Attach")
        await self.links.set_up(intent)
        self.book.intents[intent.token] = replace(intent, state=EniState.ACTIVE)
        return await self.blocks.take(eni.id, eni.blocks)

    async def _is_foreign(self, eni: Eni, priority: Priority) -> bool:
        """Return whether *eni* is not ours to change: neither tagged so nor taggable by us.

        IAM cannot tell who attached an ENI, so the shipped policies let a node change only
        what it has tagged at birth (docs/iam.md).
        """
        if eni.tags.get(INSTANCE_TAG) == self.book.instance_id:
            return False
        tags = (
            (INSTANCE_TAG, self.book.instance_id),
            *self.book.cluster_tags().items(),
        )
        try:
            await self.book.call(priority, self.book.ec2.tag, eni.id, tags)
        except RefusedError as error:
            log.info("adopted eni stays", extra={"eni_id": eni.id, "reason": str(error)})
            return True
        return False

    async def set_groups(self, eni_id: EniId, groups: Sequence[SecurityGroupId]) -> None:
        """Give an ENI of ours these security groups."""
        await self.book.call(Priority.STEADY, self.book.ec2.set_groups, eni_id, tuple(groups))
