"""Checks and parts as a person reads them. Shell (writes to a terminal)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vpclab.checks.check import Check
from vpclab.checks.outcome import Outcome, State, sentence

__all__ = [
    "console_for", "list_checks", "outcome_lines", "part_lines", "sentence", "show_outcome",
    "show_summary",
]  # fmt: skip

if TYPE_CHECKING:
    from vpclab.cluster.parts import Part

T = TypeVar("T")

STYLES = {State.OK: "green", State.FAILED: "bold red", State.SKIPPED: "yellow"}
"""Colour beside the word, never instead of it."""


def console_for(*, stderr: bool = False) -> Console:
    """Return where a person reads."""
    return Console(highlight=False, stderr=stderr)


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


def show_outcome(one: Outcome, console: Console) -> None:
    """Print what came of a check, as it comes."""
    first, second = _lines(one)
    text = Text(first)
    text.stylize(STYLES[one.state], 0, len(one.state))
    console.print(text, soft_wrap=True)
    style = "dim" if one.state is State.OK else STYLES[one.state].removeprefix("bold ")
    console.print(Text(second, style=style), soft_wrap=True)


def show_summary(outcomes: list[Outcome], where: str, console: Console) -> None:
    """Print what failed once more, and how many came to what."""
    failed = [one for one in outcomes if one.state is State.FAILED]
    for one in failed:
        console.print(Text.assemble(("FAILED ", STYLES[State.FAILED]), one.name), soft_wrap=True)
    console.print(Text(f"{sentence(outcomes)}: {where}", style="bold"), soft_wrap=True)


def list_checks(checks: Iterable[Check[T]], console: Console) -> None:
    """Print all checks with what each proves."""
    table = Table(box=None, pad_edge=False)
    for name in ("check", "round", "proves that"):
        table.add_column(name, no_wrap=name != "proves that", overflow="fold")
    for check in checks:
        table.add_row(check.name, "thorough" if check.thorough else "quick", Text(check.proves))
    console.print(table)
