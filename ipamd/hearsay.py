"""What IMDS tells of our ENIs against our books: when that is worth a question to EC2. Pure.

IMDS costs nothing and is never evidence: it may be late, or short, for long. So nothing is
taken or given for it; a difference only makes us look, once as long as it lasts. One of ENIs
does so at once, since pods may be given addresses of one that was detached by hand. One of
addresses and prefixes is usual for a moment after each Assign and Unassign, and does so when it
has lasted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from eni.model import Block, EniId
from ipamd.clock import Instant

LASTS_SECONDS = 180.0
"""How long IMDS must tell otherwise of a block: it was seen to be more than two minutes late
(aws/amazon-vpc-cni-k8s issue 1872), and a look too many costs a call."""


@dataclass(slots=True)
class Hearsay:
    """What was heard at former looks."""

    _enis: frozenset[EniId] = frozenset()
    _since: dict[Block, Instant] = field(default_factory=dict)
    _said: frozenset[Block] = frozenset()

    def enis(self, strange: Collection[EniId]) -> bool:
        """Whether *strange* ENIs, which one of both has, are worth a look: a new picture is."""
        former, self._enis = self._enis, frozenset(strange)
        return bool(self._enis) and self._enis != former

    def blocks(self, strange: Collection[Block], now: Instant) -> frozenset[Block]:
        """Return those of *strange* blocks that are worth a look now."""
        self._since = {block: self._since.get(block, now) for block in strange}
        lasting = {b for b, since in self._since.items() if now.elapsed(since) >= LASTS_SECONDS}
        news, self._said = frozenset(lasting - self._said), frozenset(lasting)
        return news


def strange_blocks(
    told: Mapping[EniId, Collection[Block]], held: Mapping[Block, EniId], enis: Collection[EniId]
) -> frozenset[Block]:
    """Return the blocks that only *told* or only *held* has on one of *enis* that IMDS tells of.

    Left out of *enis* is what may differ: a call is on its way for it, or it is on its way out.
    """
    both = told.keys() & set(enis)
    theirs = {(block, eni_id) for eni_id in both for block in told[eni_id]}
    ours = {(block, eni_id) for block, eni_id in held.items() if eni_id in both}
    return frozenset(block for block, _ in theirs ^ ours)
