"""What EC2 shows against what we hold: what to believe, and when. Pure.

One rule a changer must keep: one observation takes nothing away and one stale answer
gives nothing back. A describe lags behind mutations by seconds, so what it does not show
counts only if it is not shown `SECOND_LOOK_SECONDS` later either; what was given back a
moment ago and is shown again is not ours until it is shown that much later. What EC2
shows and we never heard of is ours at once: nobody else assigns addresses to our ENIs
and takes them away again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from eni.model import Block, Eni, EniId
from ipamd.clock import Instant

SECOND_LOOK_SECONDS = 30.0
"""Between the two looks that must agree before anything is believed to be gone."""

REMEMBER_GONE_SECONDS = 120.0
"""How long what was given back is remembered: longer than any describe was seen to lag."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Held:
    """What we held when EC2 was asked. *busy* ENIs have a call in flight: they are not judged."""

    blocks: Mapping[Block, EniId]
    doubtful: Collection[Block]
    enis: Collection[EniId]
    busy: Collection[EniId] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the answer means.

    *take* are blocks that are ours and new, by ENI; *confirmed* those that we knew; *absent*
    those that EC2 does not show, *denied* those that it has not shown twice; *kept* and *gone*
    settle doubtful ones; *moved* are denied or gone ones that are on another ENI of ours, and on
    which. *missing* ENIs were not shown (give nothing new from them), *lost*
    ones were not shown twice. *look_again* says that something waits for a second look.
    """

    adopt: tuple[Eni, ...]
    take: Mapping[EniId, tuple[Block, ...]]
    confirmed: tuple[Block, ...]
    denied: tuple[Block, ...]
    kept: tuple[Block, ...]
    gone: tuple[Block, ...]
    missing: tuple[EniId, ...]
    lost: tuple[EniId, ...]
    shown: tuple[EniId, ...]
    look_again: bool
    absent: tuple[Block, ...] = ()
    moved: Mapping[Block, EniId] = field(default_factory=dict)


@dataclass(slots=True)
class Drift:
    """What was seen at former looks."""

    _absent: dict[Block, Instant] = field(default_factory=dict)
    _away: dict[EniId, Instant] = field(default_factory=dict)
    _kept: dict[Block, Instant] = field(default_factory=dict)
    _given_back: dict[Block | EniId, Instant] = field(default_factory=dict)

    def give_back(self, what: Iterable[Block | EniId], now: Instant) -> None:
        """Remember that *what* is EC2's again: a late answer may still show it."""
        gone = tuple(what)
        self._given_back.update(dict.fromkeys(gone, now))
        self.heard_of(gone)

    def heard_of(self, what: Iterable[Block | EniId]) -> None:
        """Let *what* EC2 has just said to be ours, or has back, be absent from now on only."""
        for each in what:
            if isinstance(each, str):
                self._away.pop(each, None)
            else:
                self._absent.pop(each, None)

    def given_back(self, now: Instant) -> tuple[Block, ...]:
        """Return the blocks that were given back so lately that an answer may still show them."""
        self._forget_old(now)
        return tuple(what for what in self._given_back if not isinstance(what, str))

    def judge(self, shown: Collection[Eni], held: Held, now: Instant) -> Verdict:
        """Return what *shown*, every ENI of ours that EC2 shows, means for what we *held*."""
        self._forget_old(now)
        ids = {eni.id for eni in shown}
        there = {block: eni.id for eni in shown for block in eni.blocks}
        calm = [eni for eni in shown if eni.id not in held.busy]
        open_to_us = {eni.id for eni in calm if eni.id in held.enis}
        ours = {b: eni_id for b, eni_id in held.blocks.items() if eni_id not in held.busy}
        away = [i for i in held.enis if i not in ids and i not in held.busy]
        absent = [b for b, eni_id in ours.items() if there.get(b) != eni_id]
        absent_twice, self._absent = _second(self._absent, absent, now)
        lost, self._away = _second(self._away, away, now)
        doubted = [b for b in ours if b in held.doubtful and b not in absent]
        kept, self._kept = _second(self._kept, doubted, now)
        self._kept = {block: at for block, at in self._kept.items() if block not in kept}
        first = tuple(b for b in self._absent if b not in absent_twice)
        new = {
            eni.id: tuple(b for b in eni.blocks if b not in held.blocks)
            for eni in calm
            if eni.id in open_to_us
        }
        unheard = [eni for eni in calm if eni.id not in held.enis]
        late = [what for what in (*ids, *there) if what in self._given_back]
        return Verdict(
            adopt=tuple(eni for eni in unheard if eni.id not in self._given_back),
            take={i: fresh for i, blocks in new.items() if (fresh := self._news(blocks))},
            confirmed=tuple(b for b in ours if b not in held.doubtful and b not in absent),
            denied=tuple(b for b in absent_twice if b not in held.doubtful),
            kept=kept,
            gone=tuple(b for b in absent_twice if b in held.doubtful),
            missing=tuple(away),
            lost=lost,
            shown=tuple(i for i in held.enis if i in ids),
            look_again=bool(first or self._away.keys() - set(lost) or self._kept or late),
            absent=first,
            moved={b: there[b] for b in absent_twice if there.get(b) in open_to_us},
        )

    def _news(self, blocks: Iterable[Block]) -> tuple[Block, ...]:
        return tuple(block for block in blocks if block not in self._given_back)

    def _forget_old(self, now: Instant) -> None:
        self._given_back = {
            what: at
            for what, at in self._given_back.items()
            if now.elapsed(at) < REMEMBER_GONE_SECONDS
        }


def _second(
    before: Mapping[K, Instant], seen: Iterable[K], now: Instant
) -> tuple[tuple[K, ...], dict[K, Instant]]:
    """Return those of *seen* that were seen long enough ago, too, and since when all of them.

    What was seen twice and stays all the same, for a pod has it, needs no second look when the
    pod has left.
    """
    since = {what: before.get(what, now) for what in seen}
    twice = tuple(w for w, first in since.items() if now.elapsed(first) >= SECOND_LOOK_SECONDS)
    return twice, since
