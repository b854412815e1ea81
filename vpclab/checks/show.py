"""Checks and parts as a person reads them. Shell (writes to a terminal)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from vpclab.checks.check import Outcome, State
from vpclab.cluster.parts import Part


def part_lines(parts: Iterable[Part]) -> Iterator[str]:
    """Yield a line for each part of a cluster."""
    for part in parts:
        yield f"{part.name:24} {part.line}"


def outcome_lines(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield two lines for each check: what it proves, and the evidence or what was seen instead."""
    yield from chain.from_iterable(_lines(one) for one in outcomes)


def _lines(one: Outcome) -> Iterator[str]:
    yield f"{one.state:8} {one.seconds:5.1f} s  {one.name:24} {one.proves}"
    yield f"{'':18} {one.said}"


def sentence(outcomes: Iterable[Outcome]) -> str:
    """Return how many checks came to what."""
    states = [one.state for one in outcomes]
    counts = [f"{states.count(state)} {state}" for state in State if states.count(state)]
    return ", ".join(counts) or "no check ran"
