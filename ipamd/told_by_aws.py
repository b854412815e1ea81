"""What IMDS and EC2 tell of this instance while the daemon runs. Shell (the loop's).

IMDS is a hint: it says what AWS is about to do, and soonest what was done to our ENIs by
hand. That it is away, or tells less than before, takes nothing from anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network

from eni.errors import EniError
from eni.limits import InstanceLimits, noted
from eni.model import Eni, ImdsEni
from ipamd.budget import Priority
from ipamd.caches import Cache
from ipamd.ec2_line import Ec2Line
from ipamd.engine import Engine
from ipamd.journal import Journal, JournalError
from ipamd.nat_table import NatTable
from ipamd.outlook import Outlook
from ipamd.places import Places
from ipamd.ports import CountedEc2, Ports, run_in
from ipamd.surroundings import Surroundings, as_eni
from ipamd.terms import Mode

log = logging.getLogger(__name__)

WATCH_SECONDS = 10.0
"""Between looks at IMDS: a spot interruption is told two minutes ahead; IMDS is in the host."""

IMDS_SECONDS = 60.0
"""How long is believed what lasts of an ENI: ids, device, subnet and VPC CIDRs. A VPC's CIDR that
is new is late by that much: pods reach it with the node's address meanwhile. Which ENIs there are,
their addresses, prefixes and groups are read at each look: that tells soonest that one was detached
by hand, whose free addresses must go to no pod (tests/chaos, seed 915)."""

IMDS_ENIS = 64
"""ENIs that are remembered: more than any card takes."""

LIMITS_SECONDS = 300.0
"""Between looks at the type's limits; our table serves until EC2 has told them."""

TYPES_SECONDS = 86400.0
"""How long EC2's word on an instance type is believed: AWS has raised limits of a type in use."""

TYPES = 2
"""Instance types that are remembered; a running instance keeps its own."""


@dataclass(slots=True)
class ToldByAws:
    """Where AWS's words go. Owned by the loop."""

    ports: Ports
    around: Surroundings
    outlook: Outlook
    ec2: CountedEc2
    line: Ec2Line
    engine: Engine
    places: Places
    nat: NatTable
    journal: Journal
    keys: Cache[str, ImdsEni]
    """ENIs by MAC, for what lasts of them."""
    types: Cache[str, InstanceLimits]
    _macs: tuple[str, ...] = ()

    async def watch(self) -> None:
        """Learn from IMDS what AWS is about to do, and what our ENIs are like now."""
        imds, thread = self.ports.imds, self.ports.threads.imds
        while True:
            try:
                notices = await run_in(thread, imds.notices)
                enis = await self._enis()
            except EniError as error:
                self.outlook.enter(Mode.IMDS_AWAY, error)
            else:
                self.outlook.leave(Mode.IMDS_AWAY)
                self.outlook.told = replace(self.outlook.told, notices=notices)
                await self._hear(enis)
                self.outlook.retell()
            await asyncio.sleep(WATCH_SECONDS)

    async def _enis(self) -> tuple[ImdsEni, ...]:
        """Read what IMDS tells of our ENIs, and what lasts of them only now and then."""
        known = {mac: eni for mac in self._macs if (eni := self.keys.get(mac)) is not None}
        enis = await run_in(self.ports.threads.imds, self.ports.imds.enis, known)
        for eni in enis:
            if eni.mac not in known:
                self.keys.put(eni.mac, eni)
                self._hear_cidrs(eni)  # what is remembered is no second look
        self._macs = tuple(eni.mac for eni in enis)
        return enis

    async def _hear(self, enis: Collection[ImdsEni]) -> None:
        """Take over which ENIs there are, and the primary's groups."""
        self.engine.census.hear({eni.id: eni.blocks for eni in enis})
        self.engine.wake_if_due()
        primary = next((e for e in enis if e.id == self.around.primary_eni), None)
        if primary is None:
            return
        self.places.set_groups(primary.security_groups)
        if not self.outlook.settings.custom_networking:  # else an ENI keeps what its ENIConfig said
            self.engine.set_groups(primary.security_groups)
        await self.nat.renew()

    def _hear_cidrs(self, eni: ImdsEni) -> None:
        """Take over the VPC's CIDRs, of which the primary ENI tells."""
        if eni.id == self.around.primary_eni:
            self.nat.hear_cidrs({c for c in eni.vpc_cidrs if isinstance(c, IPv4Network)})

    async def hint(self) -> tuple[Eni, ...]:
        """Return what IMDS tells of our ENIs, instead of EC2."""
        found = await self._enis()
        self.places.cidrs |= {eni.subnet_id: eni.subnet_cidr for eni in found}
        return tuple(as_eni(eni, self.around.identity.instance_id) for eni in found)

    async def confirm_limits(self) -> None:
        """Ask EC2 for the instance type's limits, daily: its answer wins over our table."""
        await self.engine.census.done.wait()
        kind = self.around.identity.instance_type
        while not self.outlook.settings.imds_only:
            try:
                await self.types.fetch(kind, partial(self._ask_limits, kind))
            except EniError as error:
                log.warning("limits not confirmed", extra={"type": kind, "reason": str(error)})
            await asyncio.sleep(LIMITS_SECONDS)

    async def _ask_limits(self, kind: str) -> InstanceLimits:
        found = await self.line.call(Priority.SWEEP, self.ec2.limits, kind)
        with contextlib.suppress(JournalError):
            write = self.journal.note_fact
            await run_in(self.ports.threads.journal, write, f"limits {kind}", noted(found))
        if found != self.outlook.limits:
            log.warning("ec2 knows other limits", extra={"limits": str(found)})
            self.outlook.limits = found
            self.nat.hear_eni_numbers(found.enis)
            await self.nat.renew()
            self.outlook.retell()
        return found
