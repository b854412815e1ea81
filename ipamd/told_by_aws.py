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

IMDS_SECONDS = 10.0
"""How long IMDS's word on the ENIs is believed. It is what tells soonest that one was detached by
hand, whose free addresses must go to no pod: by the look after that (tests/chaos, seed 915)."""

IMDS_KEYS = 4
"""Answers of IMDS that are remembered; today the one of all ENIs."""

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
    keys: Cache[str, tuple[ImdsEni, ...]]
    types: Cache[str, InstanceLimits]

    async def watch(self) -> None:
        """Learn from IMDS what AWS is about to do, and what our ENIs are like now."""
        imds, thread = self.ports.imds, self.ports.threads.imds
        while True:
            try:
                notices = await run_in(thread, imds.notices)
                enis = await self.keys.fetch("enis", partial(run_in, thread, imds.enis))
            except EniError as error:
                self.outlook.enter(Mode.IMDS_AWAY, error)
            else:
                self.outlook.leave(Mode.IMDS_AWAY)
                self.outlook.told = replace(self.outlook.told, notices=notices)
                await self._hear(enis)
                self.outlook.retell()
            await asyncio.sleep(WATCH_SECONDS)

    async def _hear(self, enis: Collection[ImdsEni]) -> None:
        """Take over which ENIs there are, and the primary's groups and VPC CIDRs."""
        self.engine.census.hear([eni.id for eni in enis])
        self.engine.wake_if_due()
        primary = next((e for e in enis if e.id == self.around.primary_eni), None)
        if primary is None:
            return
        self.places.set_groups(primary.security_groups)
        if not self.outlook.settings.custom_networking:  # else an ENI keeps what its ENIConfig said
            self.engine.set_groups(primary.security_groups)
        self.nat.hear_cidrs({c for c in primary.vpc_cidrs if isinstance(c, IPv4Network)})
        await self.nat.renew()

    async def hint(self) -> tuple[Eni, ...]:
        """Return what IMDS tells of our ENIs, instead of EC2."""
        found = await run_in(self.ports.threads.imds, self.ports.imds.enis)
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
