"""How ENIs end: detached and deleted, undone, left to others, or swept as leaked. Shell.

Nothing is deleted but what EC2 says by its id that it is ours and that nobody uses it; what
EC2 does not show once may be late, so only the second look counts. What EC2 does not let go
serves on: an ENI that it has surely not begun to detach is *active* again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from eni.errors import (
    EniError,
    InvalidStateError,
    NotFoundError,
    NotYetError,
    RefusedError,
    UnknownOutcomeError,
)
from eni.model import Attachment, AttachmentStatus, Eni, EniId
from ipamd.budget import Priority
from ipamd.clock import Instant
from ipamd.eni_book import SECOND_LOOK_SECONDS, EniBook
from ipamd.intents import INTENT_TAG, EniState, Intent
from ipamd.links import Links

log = logging.getLogger(__name__)

DETACH_SECONDS = 60.0
"""How long a detach may take before we let go and come back later; 2 to 3 s are usual."""


@dataclass(slots=True)
class Endings:
    """The last steps of an ENI's life. Owned by the loop."""

    book: EniBook
    links: Links
    _unasked: set[str] = field(default_factory=set)
    """Tokens of ENIs on their way out that EC2 has not been asked to detach, or has refused to."""
    _shown: dict[str, Instant] = field(default_factory=dict)
    """Since when the others are shown attached: a detach that nobody knows of was not done."""

    async def keep(self, eni_id: EniId) -> None:
        """Let an ENI that was to go stay: a pod has an address of it, or EC2 keeps it here."""
        intent = self.book.intent_of(eni_id)
        if intent is not None and intent.state is EniState.DRAINING:
            await self.book.put(replace(intent, state=EniState.ACTIVE))
            self._forget_asked(intent)

    async def drain(self, eni_id: EniId) -> Intent:
        """Note that an ENI is to go. Raises RefusedError if it is not in the journal."""
        intent = self.book.intent_of(eni_id)
        if intent is None:
            raise RefusedError(f"{eni_id} is not in the journal", action="DetachNetworkInterface")
        return await self.book.put(replace(intent, state=EniState.DRAINING))

    async def remove(
        self,
        eni_id: EniId,
        let_go: Callable[[], bool],
        on_gone: Callable[[], None],
        priority: Priority = Priority.SHRINK,
    ) -> None:
        """Detach and delete an ENI that no pod uses; take it up where it was left.

        *let_go* is asked in the moment of the Detach, which may wait long for its turn: it says
        whether the ENI may still go, and from then on it serves nobody. *on_gone* is told when
        it is off the instance, whether EC2 then deletes it or not. If EC2 has surely not begun
        to detach it, it is *active* again in the end, also when this raises. One that is
        another instance's by now is only forgotten. Raises RefusedError if it is not in the
        journal.
        """
        intent = self.book.intent_of(eni_id)
        if intent is None or intent.state is not EniState.DRAINING:
            intent = await self.drain(eni_id)
            self._unasked.add(intent.token)
        eni = await self._look(intent, priority)
        if not await self._let_go(intent, eni, let_go, priority):
            await self.keep(eni_id)
            return
        on_gone()
        if intent.attachment_id is not None:  # else done, and its number may be another's
            await self._take_away(intent)
        if eni is not None:
            if eni.attachment is None and intent.attachment_id is not None:
                intent = await self.book.put(replace(intent, attachment_id=None))
            await self._delete_detached(eni_id, priority)
        await self._forget(intent)
        log.info("eni deleted", extra={"eni_id": eni_id})

    async def undo(self, intent: Intent, priority: Priority) -> None:
        """Delete an ENI on its way that is not attached yet; note that one is after all."""
        eni = await self._made(intent, priority)
        if eni is None and not self.book.is_second_look(intent.token):
            raise NotYetError(f"{intent.token} is not shown", action="DescribeNetworkInterfaces")
        attachment = None if eni is None or self.book.is_elsewhere(eni) else eni.attachment
        if attachment is not None and intent.eni_id is not None:
            intent = replace(intent, state=EniState.ATTACHED, attachment_id=attachment.id)
            await self.book.put(replace(intent, device_index=attachment.device_index))
            return
        if eni is not None and eni.attachment is None:
            await self.delete(eni.id, priority)
        await self._forget(intent)  # attached by other hands is for the census to take over
        log.info("eni undone", extra={"eni_id": eni.id if eni else None})

    async def _made(self, intent: Intent, priority: Priority) -> Eni | None:
        """Return what EC2 has made for *intent*, as far as it shows."""
        if intent.eni_id is not None:
            return await self.book.call(priority, self.book.ec2.eni, intent.eni_id)
        found = await self.book.call(priority, self.book.ec2.by_tag, INTENT_TAG, intent.token)
        return found[0] if found else None

    async def disown(self, eni_id: EniId) -> None:
        """Forget an ENI that is somebody else's now; EC2 is told nothing."""
        intent = self.book.intent_of(eni_id)
        if intent is not None:
            await self._take_away(intent)
            await self._forget(intent)
            log.warning("eni is not ours any more", extra={"eni_id": eni_id})

    async def _take_away(self, intent: Intent) -> None:
        """Take away the kernel's side of an ENI."""
        assert intent.eni_id is not None
        await self.links.take_away(intent.eni_id)
        held = await self.book.write(self.book.journal.blocks)
        mine = [block for block, holder, _ in held if holder == intent.eni_id]
        await self.book.change(self.book.net.remove_guards, mine)

    async def _forget(self, intent: Intent) -> None:
        await self.book.forget(intent)
        self._forget_asked(intent)

    def _forget_asked(self, intent: Intent) -> None:
        self._unasked.discard(intent.token)
        self._shown.pop(intent.token, None)

    async def _look(self, intent: Intent, priority: Priority) -> Eni | None:
        """Return the ENI as EC2 shows it; None if it is gone, or another instance's."""
        assert intent.eni_id is not None
        try:
            eni = await self.book.call(priority, self.book.ec2.eni, intent.eni_id)
        except EniError:
            if intent.token in self._unasked:
                await self.keep(intent.eni_id)
            raise
        if eni is not None:
            self.book.was_shown(intent.token)
        elif not self.book.is_second_look(intent.token):
            raise NotYetError(f"{intent.eni_id} is not shown", action="DescribeNetworkInterfaces")
        return None if eni is None or self.book.is_elsewhere(eni) else eni

    async def _let_go(
        self, intent: Intent, eni: Eni | None, let_go: Callable[[], bool], priority: Priority
    ) -> bool:
        """Detach, and wait until the kernel's link is gone: that costs EC2 nothing.

        Returns False if *let_go* does, and nothing was asked.
        """
        attachment = None if eni is None else eni.attachment
        if attachment is None:
            return let_go()
        if attachment.status is AttachmentStatus.DETACHING:
            may_go = let_go()
        else:
            may_go = await self._detach(intent, attachment, let_go, priority)
        self._forget_asked(intent)
        assert intent.mac is not None
        if may_go and not await self.links.goes(intent.mac, DETACH_SECONDS):
            action = "DetachNetworkInterface"
            raise NotYetError(f"{intent.eni_id} is still detaching", action=action)
        return may_go

    async def _detach(
        self,
        intent: Intent,
        attachment: Attachment,
        let_go: Callable[[], bool],
        priority: Priority,
    ) -> bool:
        """Ask EC2 to detach; keep the ENI if it refuses and nobody's earlier try can be done."""
        assert intent.eni_id is not None
        now = self.book.clock()
        first = self._shown.setdefault(intent.token, now)
        is_old = now.elapsed(first) >= SECOND_LOOK_SECONDS  # before the line: no time of waiting
        line, detach = self.book.line, self.book.ec2.detach
        try:
            return await line.call_if(let_go, priority, detach, attachment.id)
        except (UnknownOutcomeError, NotFoundError):
            return True  # the link, and then the delete, tell
        except EniError as error:
            if isinstance(error, InvalidStateError):
                self._unasked.discard(intent.token)  # somebody else may be at it
            if is_old or intent.token in self._unasked:
                await self.keep(intent.eni_id)
            raise

    async def _delete_detached(self, eni_id: EniId, priority: Priority) -> None:
        """Delete; EC2 may take some seconds to see that nobody uses it any more."""
        for wait in (1.0, 2.0, 4.0, 8.0, 16.0):
            try:
                await self.delete(eni_id, priority)
            except InvalidStateError:
                await asyncio.sleep(wait)
            else:
                return
        raise NotYetError(f"{eni_id} is still in use", action="DeleteNetworkInterface")

    async def delete(self, eni_id: EniId, priority: Priority) -> None:
        """Delete an ENI that nobody uses; one that is gone is gone."""
        try:
            await self.book.call(priority, self.book.ec2.delete, eni_id)
        except NotFoundError:
            return

    async def delete_leaked(self, eni_id: EniId) -> None:
        """Delete an ENI that no intent knows, if EC2 says by its id that nobody uses it."""
        eni = await self.book.call(Priority.SWEEP, self.book.ec2.eni, eni_id)
        if eni is not None and eni.attachment is None and eni.status == "available":
            await self.delete(eni_id, Priority.SWEEP)
            log.warning("leaked eni deleted", extra={"eni_id": eni_id})
