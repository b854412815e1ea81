"""The kernel's side of ENIs: waiting for links, setting them up, their rules. Shell.

A link that comes or goes is seen in the kernel, which costs EC2 nothing. No rule is taken
away before EC2 has told what is ours, and while ENIs that it told of are not set up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cni.dataplane import EniLink
from eni.errors import NotYetError
from eni.model import EniId
from ipamd.eni_book import EniBook
from ipamd.intents import Intent, noted

LINK_SECONDS = 60.0
"""How long an attached ENI may take to show up in the kernel before EC2 is asked again;
create and attach take up to 10 s together (EKS best-practice guide), now and then minutes."""

LOOK_SECONDS = 0.05
"""How often the kernel is asked for a new link: one netlink message."""

HURRY_SECONDS = 5.0
"""How long it is asked so often; pods wait for it. What takes longer is asked for ever less."""


@dataclass(slots=True)
class Links:
    """The links of this node's ENIs. Owned by the loop."""

    book: EniBook
    on_settled: Callable[[], None] = lambda: None
    """Told when what is more than the kernel should have may go, from now on."""
    _links: dict[EniId, EniLink] = field(default_factory=dict)
    """Those that this life has set up."""
    _awaited: set[EniId] | None = None
    """ENIs of ours that are not set up yet; None: EC2 has yet to tell."""
    _was_settled: bool = False

    @property
    def set_ups(self) -> tuple[EniLink, ...]:
        """Every ENI that this life has set up in the kernel."""
        return tuple(self._links.values())

    @property
    def is_settled(self) -> bool:
        """Whether EC2 has told of every ENI, and each is set up: what is more is not ours."""
        return self._awaited == set()

    async def comes(self, mac: str, seconds: float = LINK_SECONDS) -> bool:
        """Wait until the kernel shows the link; its coming is all that an ADD waits for."""
        return await self._becomes(mac, seconds, there=True)

    async def goes(self, mac: str, seconds: float) -> bool:
        """Wait until the kernel shows the link no more."""
        return await self._becomes(mac, seconds, there=False)

    async def _becomes(self, mac: str, seconds: float, *, there: bool) -> bool:
        start, wait = self.book.clock(), LOOK_SECONDS
        while (await self.book.kernel(self.book.net.find_link, mac) is not None) is not there:
            if self.book.clock().elapsed(start) >= seconds:
                return False
            await asyncio.sleep(wait)
            if self.book.clock().elapsed(start) >= HURRY_SECONDS:
                wait = min(1.05 * wait, 1.0)
        return True

    async def set_up(self, intent: Intent) -> None:
        """Bring the kernel's side of an ENI to its desired state. Idempotent."""
        assert intent.eni_id is not None
        assert intent.mac is not None
        note = noted(intent)
        link = EniLink(
            number=intent.device_index + 1,
            mac=intent.mac,
            address=note.primary,
            subnet=note.subnet_cidr,
            mtu=self.book.home.mtu if intent.device_index else self.book.home.primary_mtu,
        )
        await self.book.change(self.book.net.configure_eni, link)
        self._links[intent.eni_id] = link
        if self._awaited:
            self._awaited.discard(intent.eni_id)
        await self._set_rules()

    async def ensure(self, eni_id: EniId) -> None:
        """Set up the kernel's side of an ENI of ours if this life has not done so yet."""
        intent = self.book.intent_of(eni_id)
        if eni_id in self._links or intent is None or intent.mac is None:
            return
        if await self.book.kernel(self.book.net.find_link, intent.mac) is None:
            raise NotYetError(f"no link {intent.mac} of {eni_id} yet", action="attach")
        await self.set_up(intent)

    async def set_up_anew(self) -> None:
        """Bring every ENI that this life has set up to what its home says now."""
        for intent in tuple(self.book.intents.values()):
            if intent.eni_id in self._links:
                await self.set_up(intent)

    async def _set_rules(self) -> None:
        links, prune = self.set_ups, self.is_settled
        routing, net = self.book.home.routing, self.book.net
        await self.book.change(lambda: net.set_rules(links, prune=prune, routing=routing))
        was_settled, self._was_settled = self._was_settled, prune
        if prune and not was_settled:
            self.on_settled()

    async def expect(self, eni_ids: Iterable[EniId]) -> None:
        """Take no rule away until these, too, are set up; the others' are not needed."""
        self._awaited = set(eni_ids) - self._links.keys()
        await self._set_rules()

    async def take_away(self, eni_id: EniId) -> None:
        """Take away the rules of an ENI that is not ours any more."""
        self._links.pop(eni_id, None)
        await self._set_rules()
