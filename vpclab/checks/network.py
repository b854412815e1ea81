"""The checks of a pod network. Shell."""

from __future__ import annotations

from vpclab.checks import (
    addresses,
    daemons,
    guard,
    local,
    names,
    outside,
    packets,
    reach,
    sandbox,
    services,
)
from vpclab.checks.check import Check
from vpclab.checks.ground import Ground

NETWORK: tuple[Check[Ground], ...] = (
    *daemons.FIRST,
    *sandbox.CHECKS,
    *reach.CHECKS,
    *addresses.CHECKS,
    *packets.CHECKS,
    *services.CHECKS,
    *names.CHECKS,
    *outside.CHECKS,
    *local.CHECKS,
    *guard.CHECKS,
    *daemons.LAST,
)
"""All, in the order of what is built on what."""

QUICK = tuple(check for check in NETWORK if not check.thorough)
"""Those of a quick round: about two minutes."""
