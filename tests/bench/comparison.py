"""What was measured beside something else, as a table for people and as JSON for machines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

SCALES = {"ms": 1e3, "us": 1e6, "ns": 1e9, "s": 1.0}
"""What a value that is kept in seconds is shown in."""

FEW = 5
"""Of fewer values there is no 90th percentile."""

NEEDS = 50
"""How many values a gate of times is of: medians and 90th percentiles of fewer prove little."""


def tenths(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 10th and the 90th percentile, None of few values."""
    if len(values) < FEW:
        return None
    cuts = statistics.quantiles(values, n=10)
    return cuts[0], cuts[-1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row: our values, theirs where there are any, and what must be true of them.

    Times are kept in seconds and shown in *unit*. The ratio is that of the medians, theirs by ours.
    """

    name: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...] = ()
    unit: str = "ms"
    than: str = ""
    """Who they are."""
    least: float | None = None
    """What the ratio must be at least."""
    stretch: float | None = None
    """What we would like it to be."""
    greatest: float | None = None
    """What the ratio may be at most, where more is better."""
    most: float | None = None
    """What our median may be at most."""
    needs: int = NEEDS
    """How many values, ours and theirs, a gate must be of."""

    @property
    def ratio(self) -> float | None:
        """How many of ours theirs is; None where they have none."""
        if not self.theirs:
            return None
        ours = statistics.median(self.ours)
        return statistics.median(self.theirs) / ours if ours else None

    @property
    def is_met(self) -> bool | None:
        """Whether what must be true is; None where nothing must."""
        ratio, said = self.ratio, []
        if self.least is not None:
            said.append(ratio is not None and ratio >= self.least)
        if self.greatest is not None:
            said.append(ratio is not None and ratio <= self.greatest)
        if self.most is not None:
            said.append(statistics.median(self.ours) <= self.most)
        return all(said) if said else None

    @property
    def count(self) -> int:
        """How many values there are; of ours and theirs the fewer."""
        return min(len(self.ours), len(self.theirs)) if self.theirs else len(self.ours)

    @property
    def is_short(self) -> bool:
        """Whether the gate was measured too seldom to be said to be met."""
        return self.is_met is not None and self.count < self.needs

    @property
    def verdict(self) -> str:
        """What came of the gate, in words; of none, nothing."""
        if self.is_met is None:
            return ""
        if not self.is_met:
            return "MISSED"
        return f"too few ({self.count})" if self.is_short else "met"

    @property
    def gate(self) -> str:
        """What must be true, in words."""
        parts = []
        if self.least is not None:
            parts.append(f"ratio >= {self.least:.3g}")
        if self.greatest is not None:
            parts.append(f"ratio <= {self.greatest:.3g}")
        if self.most is not None:
            parts.append(f"<= {self.text(self.most)}")
        return " ".join(parts) + (f" ({self.stretch:.3g})" if self.stretch is not None else "")

    @property
    def data(self) -> dict[str, Any]:
        """The row for machines; every figure in its unit."""
        ratio = self.ratio
        return {
            "name": self.name,
            "ours": self._shown(statistics.median(self.ours)),
            "theirs": self._shown(statistics.median(self.theirs)) if self.theirs else None,
            "unit": self.unit,
            "ratio": None if ratio is None else round(ratio, 4),
            "than": self.than or None,
            "ours_p10_p90": self._spread(self.ours),
            "theirs_p10_p90": self._spread(self.theirs),
            "n": [len(self.ours), len(self.theirs)],
            "needs": self.needs,
            "gate": self.gate or None,
            "ok": None if self.is_met and self.is_short else self.is_met,
            "verdict": self.verdict or None,
        }

    def _spread(self, values: Sequence[float]) -> list[float] | None:
        found = tenths(values)
        return None if found is None else [self._shown(value) for value in found]

    def _shown(self, value: float) -> float:
        return round(value * SCALES.get(self.unit, 1.0), 4)

    def text(self, value: float) -> str:
        """Return a value as a person reads it, to three digits."""
        shown = self._shown(value)
        return f"{shown:.0f}" if shown >= 100 or shown == int(shown) else f"{shown:.3g}"

    def words(self, values: Sequence[float]) -> tuple[str, str]:
        """Return the median and the 90th percentile of *values* in words."""
        if not values:
            return "", ""
        found = tenths(values)
        return self.text(statistics.median(values)), "" if found is None else self.text(found[1])


def show(rows: Sequence[Comparison], console: Console) -> None:
    """Print the rows as one table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = {"n", "ours", "p90", "theirs", "ratio"}
    heads = ("what", "n", "ours", "p90", "theirs", "p90", "unit", "ratio", "gate (stretch)", "")
    for head in heads:
        table.add_column(head, justify="right" if head in numbers else "left")
    for row in rows:
        ratio = row.ratio
        table.add_row(
            f"{row.name}, {row.than}" if row.than else row.name,
            str(row.count),
            *row.words(row.ours),
            *row.words(row.theirs),
            row.unit,
            "" if ratio is None else f"{ratio:.2f}",
            row.gate,
            row.verdict,
            style="bold red" if row.verdict not in {"", "met"} else "",
        )
    console.print(table)
