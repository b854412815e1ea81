"""The nft table of the node, kept as the VPC's CIDRs and the instance's limits want it. Shell."""

from __future__ import annotations

import logging
from collections.abc import Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from cni import nft
from cni.kernel import NodeError, NodeNet
from ipamd.ports import run_in

log = logging.getLogger(__name__)


@dataclass(slots=True)
class NatTable:
    """The table, and whether the kernel's is an old one."""

    net: NodeNet
    thread: Executor
    node_primary: IPv4Address
    eni_numbers: int
    cidrs: dict[IPv4Network, bool]
    """Those of the VPC; False: it was not in the last answer, which may have been short."""
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

    async def write(self) -> None:
        """Write the table whole, in one transaction. Raises NodeError."""
        wish = nft.NftWish(
            vpc_cidrs=tuple(self.cidrs),
            node_primary=self.node_primary,
            eni_numbers=self.eni_numbers,
        )
        await run_in(self.thread, self.net.apply_nft, nft.render(wish))

    async def renew(self) -> None:
        """Write it anew if it is not as it should be; each call tries until it is."""
        if not self._is_old:
            return
        try:
            await self.write()
        except NodeError as error:
            log.warning("nft table is old", extra={"reason": str(error)})
        else:
            self._is_old = False
