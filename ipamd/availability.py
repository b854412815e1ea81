"""Would another pod get an address here: what the cluster is told of it. Pure.

The Node's condition answers that question and nothing else: True if one is free, cools, or can
be had of EC2; False if none can until a pod goes or somebody acts; Unknown if only EC2 knows,
and has not told (a start, a throttle, an outage). So an outage of EC2, which befalls every
node alike, is never False, and no taint comes of it: an autoscaler could add nodes for ever.

What changes often may not be written often: a `Latch` turns only to what has been seen for
some seconds without a break.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from eni.errors import EniError
from ipamd import reactions
from ipamd.pool import EniCensus
from ipamd.reactions import consequence, someone_must_act
from ipamd.replies import Shortage
from ipamd.terms import Standing, Terms

SHRINKING = frozenset({
    "DetachNetworkInterface", "DeleteNetworkInterface", "UnassignPrivateIpAddresses",
})  # fmt: skip
"""What EC2 may refuse without keeping the pool from growing."""


class Answer(StrEnum):
    """A condition's status, as Kubernetes writes it."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Growth(StrEnum):
    """Whether EC2 may give this node more."""

    OPEN = "open"
    CLOSED = "closed"
    """Not before somebody acts, or a pod goes."""
    UNKNOWN = "unknown"
    """Nobody can tell; it is tried again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The condition: *reason* is one of `REASONS` or an event of docs/errors.md."""

    status: Answer
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What tells whether another pod would get an address.

    *free* are those that no ADD waits for already. *room* counts addresses that EC2 could
    still give, below every limit that is known. *is_known*: EC2 has told of this node.
    """

    free: int
    cooling: int
    assigned: int
    room: int
    enis: int
    max_enis: int
    max_addresses: int | None = None
    provisioning: bool = True
    is_leaving: bool = False
    is_known: bool = True
    trouble: EniError | str | None = None

    @property
    def ready(self) -> int:
        """Addresses for more pods, now or when they have cooled."""
        return self.free + self.cooling

    @property
    def total(self) -> int:
        """How many pods could have an address: what `enid.dev/pod-addresses` says."""
        growth, _, _ = growth_of(self)
        held = self.assigned + self.ready
        return held if growth is Growth.CLOSED else held + self.room


def hindrance(troubles: Iterable[Exception]) -> Exception | None:
    """Return what keeps the pool from growing, the latest of *troubles*, which come last."""
    hinders = [t for t in troubles if getattr(t, "action", "") not in SHRINKING]
    return hinders[-1] if hinders else None


def supply_of(
    census: Iterable[EniCensus],
    shortage: Shortage,
    terms: Terms,
    *,
    waiting: int,
    is_known: bool,
) -> Supply:
    """Return what the pool, its limits and its last trouble come to."""
    enis = tuple(census)
    usable = [c for c in enis if c.eni.is_open]
    assigned = sum(c.assigned for c in enis)
    free, cooling = sum(c.free for c in usable), sum(c.cooling for c in usable)
    slots = sum(c.room for c in enis)
    slots += max(0, terms.max_enis - shortage.enis) * terms.slots
    room = slots * terms.kind.size
    if terms.max_addresses is not None:
        room = min(room, max(0, terms.max_addresses - assigned - free - cooling))
    return Supply(
        free=max(0, free - waiting),
        cooling=cooling,
        assigned=assigned,
        room=room,
        enis=shortage.enis,
        max_enis=terms.max_enis,
        max_addresses=terms.max_addresses,
        provisioning=terms.provisioning,
        is_leaving=terms.standing is Standing.LEAVING,
        is_known=is_known,
        trouble=shortage.trouble,
    )


REASONS = {
    "AddressesReady": "An address is free, or cools",
    "NodeMayGrow": "None is free, and EC2 may give more",
    "NotLookedYet": "The daemon has started, and EC2 has not told yet what the node holds",
    "NotProvisioning": "A setting says that EC2 is asked for nothing, and all are taken",
    "InstanceLeaving": "The instance ends soon, so that nothing more is asked for",
    reactions.NODE_FULL.event: reactions.NODE_FULL.meaning,
    reactions.GROWTH_HINDERED.event: reactions.GROWTH_HINDERED.meaning,
}
"""The condition's own reasons, for the documentation; others are events of EC2's errors."""


def growth_of(supply: Supply) -> tuple[Growth, str, str]:
    """Return whether the pool may grow, with reason and sentence."""
    fixed = _standing_still(supply)
    if fixed is not None:
        return Growth.CLOSED, *fixed
    match supply.trouble:
        case EniError() as trouble:
            told = consequence(trouble)
            growth = Growth.CLOSED if someone_must_act(trouble) else Growth.UNKNOWN
            return growth, told.event, f"{trouble}. Next step: {told.advice}"
        case str() as trouble:
            hindered = reactions.GROWTH_HINDERED
            return Growth.CLOSED, hindered.event, f"{trouble}. Next step: {hindered.advice}"
    if not supply.is_known:
        return Growth.UNKNOWN, "NotLookedYet", "EC2 has not told yet what this node holds"
    return Growth.OPEN, "NodeMayGrow", "none is free, and EC2 is asked for more when a pod comes"


def _standing_still(supply: Supply) -> tuple[str, str] | None:
    """Return why no more will be asked for, whatever EC2 says; None if it may be."""
    if supply.is_leaving:
        return "InstanceLeaving", "the instance ends soon: EC2 is asked for nothing more"
    if not supply.provisioning:
        return "NotProvisioning", "EC2 is asked for nothing: a setting says so"
    if supply.room or not supply.is_known:
        return None
    used = f"{supply.assigned} of {supply.assigned + supply.ready} in use"
    most = "" if supply.max_addresses is None else f", {supply.max_addresses} pods at most"
    full = reactions.NODE_FULL
    sentence = f"{used}, {supply.enis} of {supply.max_enis} ENIs{most}. Next step: {full.advice}"
    return full.event, sentence


_ANSWERS = {
    Growth.OPEN: Answer.TRUE,
    Growth.CLOSED: Answer.FALSE,
    Growth.UNKNOWN: Answer.UNKNOWN,
}


def verdict(supply: Supply) -> Verdict:
    """Return the Node's condition."""
    if supply.ready:
        # No numbers: they change with every pod, and each change would be a write.
        return Verdict(Answer.TRUE, "AddressesReady", "another pod gets an address here")
    growth, reason, sentence = growth_of(supply)
    return Verdict(_ANSWERS[growth], reason, sentence)


def is_short(supply: Supply, below: int) -> bool | None:
    """Return whether pods should go elsewhere; None if that should stay as it is.

    They should if there are fewer than *below* addresses for more of them and EC2 gives none,
    and no longer if it may, or there are twice as many. Between the two nothing changes, and
    neither does it for an instance that leaves, which is drained by whoever ends it.
    """
    if supply.is_leaving:
        return None
    growth, _, _ = growth_of(supply)
    if growth is Growth.OPEN or supply.ready >= 2 * below:
        return False
    return True if growth is Growth.CLOSED and supply.ready < below else None


@dataclass(frozen=True, slots=True)
class Latch:
    """Yes or no, which turns only to what was seen for some seconds without a break.

    *against* is since when the other one is seen.
    """

    is_on: bool = False
    against: float | None = None

    def see(self, now: float, seconds: float, *, seen: bool | None) -> Latch:
        """Return what it is after *seen*; None is neither, and breaks what was seen before."""
        if seen is None or seen == self.is_on:
            return Latch(self.is_on)
        since = now if self.against is None else self.against
        return Latch(seen) if now - since >= seconds else Latch(self.is_on, since)
