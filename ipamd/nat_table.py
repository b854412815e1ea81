"""The nft tables of the node, kept as CIDRs, limits and settings want them. Shell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from cni import nft
from cni.kernel import NodeError, NodeNet
from ipamd import wires
from ipamd.ports import run_in
from ipamd.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class NatTable:
    """The table, and whether the kernel's is an old one."""

    net: NodeNet
    thread: Executor
    node_primary: IPv4Address
    eni_numbers: int
    settings: Settings
    cidrs: dict[IPv4Network, bool]
    """Those of the VPC; False: it was not in the last answer, which may have been short."""
    written: str = ""
    """What was written last; empty while it is being written."""
    on_written: Callable[[bool], None] = lambda _: None
    """Told that it is as it should be, and whether it was written for that."""
    _is_old: bool = False

    def hear_cidrs(self, told: Collection[IPv4Network]) -> None:
        """Take over the VPC's CIDRs; one that is missing once is not gone."""
        keep = {c: c in told for c, seen in self.cidrs.items() if seen or c in told}
        keep |= dict.fromkeys(told, True)
        self._is_old |= keep.keys() != self.cidrs.keys()
        self.cidrs = keep

    def hear_eni_numbers(self, eni_numbers: int) -> None:
        """Take over how many ENIs the instance may have."""
        self._is_old |= eni_numbers != self.eni_numbers
        self.eni_numbers = eni_numbers

    def hear_settings(self, settings: Settings) -> None:
        """Take over what the settings say."""
        self.settings, self._is_old = settings, True

    async def write(self) -> None:
        """Write the table whole, in one transaction. Raises NodeError."""
        wish = wires.nft_wish(
            self.settings,
            vpc_cidrs=self.cidrs,
            node_primary=self.node_primary,
            eni_numbers=self.eni_numbers,
        )
        before, text = self.written, nft.render(wish)
        self.written = ""
        try:
            is_new = await run_in(self.thread, self.net.apply_nft, text)
        except NodeError:
            self.written = before
            raise
        self.written = text
        self.on_written(is_new)

    async def renew(self) -> None:
        """Write it anew if it is not as it should be; each call tries until it is."""
        if not self._is_old:
            return
        self._is_old = False  # what is heard while it is written makes it old again
        try:
            await self.write()
        except NodeError as error:
            self._is_old = True
            log.warning("nft table is old", extra={"reason": str(error)})
