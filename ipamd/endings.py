"""How ENIs end: detached and deleted, left to others, or swept as leaked. Shell.

Nothing is deleted but what EC2 says by its id that it is ours and that nobody uses it; what
EC2 does not show once may be late, so only the second look counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace

from eni.errors import (
    InvalidStateError,
    NotFoundError,
    NotYetError,
    RefusedError,
    UnknownOutcomeError,
)
from eni.model import AttachmentStatus, Eni, EniId
from ipamd.budget import Priority
from ipamd.eni_book import EniBook
from ipamd.intents import EniState, Intent
from ipamd.links import Links

log = logging.getLogger(__name__)

DETACH_SECONDS = 60.0
"""How long a detach may take before we let go and come back later; 2 to 3 s are usual."""


@dataclass(slots=True)
class Endings:
    """The last steps of an ENI's life. Owned by the loop."""

    book: EniBook
    links: Links

    async def keep(self, eni_id: EniId) -> None:
        """Let an ENI that was to go stay: a pod has an address of it after all."""
        intent = self.book.intent_of(eni_id)
        if intent is not None and intent.state is EniState.DRAINING:
            await self.book.put(replace(intent, state=EniState.ACTIVE))

    async def remove(self, eni_id: EniId, priority: Priority = Priority.SHRINK) -> None:
        """Detach and delete an ENI that no pod uses; take it up where it was left.

        One that is another instance's by now is only forgotten. Raises RefusedError if it is
        not in the journal.
        """
        intent = self.book.intent_of(eni_id)
        if intent is None:
            raise RefusedError(f"{eni_id} is not in the journal", action="DetachNetworkInterface")
        if intent.state is not EniState.DRAINING:
            intent = await self.book.put(replace(intent, state=EniState.DRAINING))
        eni = await self.book.call(priority, self.book.ec2.eni, eni_id)
        if eni is None and not self.book.is_second_look(intent.token):
            raise NotYetError(f"{eni_id} is not shown", action="DescribeNetworkInterfaces")
        if eni is not None:
            self.book.was_shown(intent.token)
        if eni is not None and not self.book.is_elsewhere(eni):
            await self._detach(intent, eni, priority)
            await self._delete_detached(eni_id, priority)
        await self._end(intent)
        log.info("eni deleted", extra={"eni_id": eni_id})

    async def disown(self, eni_id: EniId) -> None:
        """Forget an ENI that is somebody else's now; EC2 is told nothing."""
        intent = self.book.intent_of(eni_id)
        if intent is not None:
            await self._end(intent)
            log.warning("eni is not ours any more", extra={"eni_id": eni_id})

    async def _end(self, intent: Intent) -> None:
        """Take away the kernel's side of an ENI, and its rows."""
        assert intent.eni_id is not None
        await self.links.take_away(intent.eni_id)
        held = await self.book.write(self.book.journal.blocks)
        mine = [block for block, holder, _ in held if holder == intent.eni_id]
        await self.book.change(self.book.net.remove_guards, mine)
        await self.book.forget(intent)

    async def _detach(self, intent: Intent, eni: Eni, priority: Priority) -> None:
        """Detach, and wait until the kernel's link is gone: that costs EC2 nothing."""
        attachment = eni.attachment
        if attachment is None:
            return
        if attachment.status is not AttachmentStatus.DETACHING:
            with contextlib.suppress(UnknownOutcomeError, NotFoundError):
                # The link, and then the delete, tell.
                await self.book.call(priority, self.book.ec2.detach, attachment.id)
        assert intent.mac is not None
        if not await self.links.goes(intent.mac, DETACH_SECONDS):
            raise NotYetError(f"{eni.id} is still detaching", action="DetachNetworkInterface")

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
