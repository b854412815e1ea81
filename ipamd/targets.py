"""What "enough addresses" means: the peer's fixed targets, or demand. Pure.

One rule a changer must keep: what is missing and what is too much are never both more
than nothing, and giving back all that is too much leaves nothing missing.

The fixed arithmetic is the peer's, with two repairs. A cooling, leaving or taken address
is never available; and pods that are expected (ADDs that wait, pods bound here but not
added yet) count as demand, so that what is asked covers them and the warm ones in one go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eni.model import PREFIX_SIZE, EniId, Kind, SubnetId
from ipamd.pool import EniCensus


@dataclass(frozen=True, slots=True)
class Fixed:
    """The peer's settings: how much to hold ready. None, and 0 of the IP targets, is "not set".

    An IP target that is set overrides the others; WARM_ENI_TARGET rules single addresses
    only, WARM_PREFIX_TARGET prefixes only.
    """

    warm_eni: int | None = None
    warm_ip: int | None = None
    minimum_ip: int | None = None
    warm_prefix: int | None = None

    def __str__(self) -> str:
        """Return what is set, as it was set."""
        written = {
            "WARM_ENI_TARGET": self.warm_eni,
            "WARM_IP_TARGET": self.warm_ip,
            "MINIMUM_IP_TARGET": self.minimum_ip,
            "WARM_PREFIX_TARGET": self.warm_prefix,
        }
        return " ".join(f"{name}={value}" for name, value in written.items() if value is not None)

    @property
    def by_address(self) -> bool:
        """Whether the IP targets rule, as they do when one of them is set."""
        return bool(self.warm_ip or self.minimum_ip)

    @property
    def enis(self) -> int:
        """How many ENIs' worth to hold ready; the peer takes 1 where nothing is set."""
        return 1 if self.warm_eni is None else self.warm_eni

    @property
    def prefixes(self) -> int:
        """How many wholly free prefixes to hold ready; the peer takes 0 where nothing is set."""
        return self.warm_prefix or 0


@dataclass(frozen=True, slots=True)
class Demand:
    """An absolute target: *total* usable addresses, of which pods have or will have *bound*.

    Nothing happens within *spare* of it, so that one pod more or less costs no call; but
    what bound pods need is never spared.
    """

    total: int
    spare: int = 0
    bound: int = 0

    @property
    def low(self) -> int:
        """Below this, as many as are missing to *total* are asked for."""
        return max(self.total - self.spare, min(self.bound, self.total))


Targets = Fixed | Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What may be looked at to decide what the pool should ask of EC2.

    *waiting* counts ADDs without an address, *bound* the pods of this node that have or need
    one: not those on the host's network, nor those that have finished (None: unknown).
    *coming* addresses are on their way by calls in flight, on ENIs that are *busy* or new;
    *free_enis* more ENIs may be attached beside those. *mode* is the kind that was
    configured; *kinds* what the subnets of attached ENIs give now (None: nothing), and
    *new_eni* where a new ENI would go and what it would get. One call may ask for no more
    blocks than *limits* say, and pods can never use more than *max_addresses*. EC2 has just
    refused to let *kept* ENIs go.
    """

    enis: tuple[EniCensus, ...]
    mode: Kind = Kind.SINGLE
    waiting: int = 0
    bound: int | None = None
    free_enis: int = 0
    slots_per_eni: int
    coming: int = 0
    busy: frozenset[EniId] = frozenset()
    kinds: Mapping[SubnetId, Kind | None] = field(default_factory=dict, hash=False)
    new_eni: tuple[SubnetId, Kind] | None = None
    limits: Mapping[tuple[SubnetId, Kind], int] = field(default_factory=dict, hash=False)
    max_addresses: int | None = None
    kept: frozenset[EniId] = frozenset()
    may_grow: bool = True
    may_shrink: bool = True

    @property
    def assigned(self) -> int:
        """Addresses that pods have, wherever."""
        return sum(e.assigned for e in self.enis)

    @property
    def expected(self) -> int:
        """Pods that have no address yet and will want one."""
        return max(self.waiting, (self.bound or 0) - self.assigned)

    @property
    def ready(self) -> int:
        """Addresses that a pod could get now or when calls in flight have ended."""
        return self.coming + sum(e.free for e in self.enis if e.eni.is_open)

    @property
    def available(self) -> int:
        """What of `ready` is left when all that are expected are served; less than 0 if short."""
        return self.ready - self.expected

    @property
    def held(self) -> int:
        """Addresses that count for pods: theirs, cooling ones and ready ones.

        Taken ones never will be a pod's, leaving ones are as good as gone, and on an ENI
        that is not open only those that pods have count.
        """
        cooling = sum(e.cooling for e in self.enis if e.eni.is_open)
        return self.assigned + cooling + self.ready

    @property
    def idle_prefixes(self) -> int:
        """Prefixes without any pod, here and coming."""
        coming = self.coming // PREFIX_SIZE if self.mode is Kind.PREFIX else 0
        return coming + sum(e.idle_prefixes for e in self.enis if e.eni.is_open)

    @property
    def allowance(self) -> int | None:
        """How many more addresses may be held before pods cannot use them; None: no limit."""
        return None if self.max_addresses is None else max(0, self.max_addresses - self.held)


def asks_whole_enis(now: Situation, targets: Targets) -> bool:
    """Return whether ENIs are filled whatever is missing, as WARM_ENI_TARGET has it."""
    return isinstance(targets, Fixed) and not targets.by_address and now.mode is Kind.SINGLE


def shortfall(now: Situation, targets: Targets) -> int:
    """Return how many addresses to ask for, never below 0 and never past the ceiling."""
    lacking, allowance = lack(now, targets), now.allowance
    return lacking if allowance is None else min(lacking, allowance)


def lack(now: Situation, targets: Targets) -> int:
    """Return how many addresses are missing, whether the ceiling lets them be asked for or not."""
    if isinstance(targets, Demand):
        usable = now.assigned + now.ready
        missing = targets.total - usable if usable < targets.low else 0
        return max(0, missing, -now.available)
    if targets.by_address:
        warm, minimum = targets.warm_ip or 0, targets.minimum_ip or 0
        return max(0, warm - now.available, minimum - now.held)
    missing = _warm(now, targets) - now.available
    if missing > 0 and now.mode is Kind.PREFIX:
        # The peer wants this many wholly free ones whenever it is short at all.
        missing = max(missing, (targets.prefixes - now.idle_prefixes) * PREFIX_SIZE)
    return max(0, missing)


def slack(now: Situation, targets: Targets) -> int:
    """Return how many free addresses could go with nothing missing then, never below 0."""
    if isinstance(targets, Demand):
        return max(0, min(now.assigned + now.ready - targets.total, now.available))
    if targets.by_address:
        warm, minimum = targets.warm_ip or 0, targets.minimum_ip or 0
        return max(0, min(now.available - warm, now.held - minimum))
    return max(0, now.available - _warm(now, targets))


def surplus(now: Situation, targets: Targets) -> int:
    """Return how many free addresses are too many, never below 0.

    By WARM_ENI_TARGET single addresses stay, and only whole ENIs go; by
    WARM_PREFIX_TARGET that many wholly free prefixes stay. Of demand there is too much
    only beyond what is spared.
    """
    spendable = slack(now, targets)
    if isinstance(targets, Demand):
        return spendable if spendable > targets.spare else 0
    if targets.by_address:
        return spendable
    if now.mode is Kind.SINGLE:
        return 0
    return min(spendable, max(0, now.idle_prefixes - targets.prefixes) * PREFIX_SIZE)


def _warm(now: Situation, targets: Fixed) -> int:
    """Return how many addresses the targets by ENI or prefix want ready; never none at all."""
    if now.mode is Kind.PREFIX:
        return max(1, targets.prefixes * PREFIX_SIZE)
    return max(1, targets.enis * now.slots_per_eni)
