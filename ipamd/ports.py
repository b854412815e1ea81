"""Everything of the world that the daemon reaches, in one value. Shell.

The real one is made in `ipamd/node.py`; chaos tests hand in a modelled cloud, a modelled
kernel and a clock of their own, and the daemon cannot tell. Whoever adds a way out of the
daemon adds it here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cni.kernel import Ears, Mender, NodeNet, Wiring
from eni.calls import Ec2Calls
from ipamd.budget import AccountLimits
from ipamd.clock import Instant
from ipamd.surroundings import ImdsCalls

T = TypeVar("T")


class CountedEc2(Ec2Calls, Protocol):
    """EC2, with counts of what was asked."""

    @property
    def calls(self) -> Counter[str]:
        """Requests by action."""

    @property
    def errors(self) -> Counter[tuple[str, str]]:
        """Failures by action and error id."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Where what blocks is run. All but *cloud* are one thread each: each keeps its order."""

    cloud: Executor
    """EC2: several, because attaching one ENI must not hold up another."""
    net: Executor
    """The ENIs' side of the kernel."""
    wire: Executor
    """The pods' side of the kernel."""
    back: Executor
    """What nobody waits for: conntrack, dying links."""
    journal: Executor
    """The disk."""
    imds: Executor
    """IMDS, which may be slow for minutes: no call of EC2 waits for it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ways out. Makers are called in the thread that will use what they make."""

    imds: ImdsCalls
    make_ec2: Callable[[str], CountedEc2]
    """From a region."""
    make_net: Callable[[], NodeNet]
    make_wiring: Callable[[], Wiring]
    make_mender: Callable[[], Mender]
    make_ears: Callable[[], Ears]
    """On the loop."""
    threads: Threads
    clock: Callable[[], Instant]
    random: Callable[[], float]
    """In [0, 1), for jitter only."""
    new_token: Callable[[], str]
    boot_id: str
    """Which boot of the kernel this is."""
    account_limits: AccountLimits
    """What EC2 lets the account call; a node takes its share."""


async def run_in(thread: Executor, work: Callable[..., T], *arguments: object) -> T:
    """Return what *work*, which blocks, returns in its *thread*."""
    return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)
