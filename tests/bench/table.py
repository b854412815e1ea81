"""What was measured, as a table for people and as JSON for machines."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

SCALES = {"ms": 1000.0, "s": 1.0}
"""What a value that is kept in seconds is shown in."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: its values, and what the median may be at most, or at least.

    Times are kept in seconds and shown in *unit*.
    """

    what: str
    values: tuple[float, ...]
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def median(self) -> float:
        """The value that the limit is for."""
        return statistics.median(self.values)

    @property
    def ninetieth(self) -> float | None:
        """The 90th percentile, None of fewer than five values."""
        return statistics.quantiles(self.values, n=10)[-1] if len(self.values) > 4 else None

    @property
    def is_met(self) -> bool | None:
        """Whether the median is within its limit; None without one."""
        if self.most is None and self.least is None:
            return None
        return (self.most is None or self.median <= self.most) and (
            self.least is None or self.median >= self.least
        )

    @property
    def data(self) -> dict[str, Any]:
        """The figure for machines, in its unit."""
        return {
            "what": self.what,
            "n": len(self.values),
            "median": self._shown(self.median),
            "p90": self._shown(self.ninetieth),
            "unit": self.unit,
            "most": self._shown(self.most),
            "least": self._shown(self.least),
            "ok": self.is_met,
        }

    def _shown(self, value: float | None) -> float | None:
        return None if value is None else round(value * SCALES.get(self.unit, 1.0), 2)

    def text(self, value: float | None) -> str:
        """Return a value as a person reads it, to three digits."""
        shown = self._shown(value)
        if shown is None:
            return ""
        return f"{shown:.0f}" if shown >= 100 or shown == int(shown) else f"{shown:.3g}"

    @property
    def limit(self) -> str:
        """The limit in words; none is empty."""
        if self.most is not None:
            return f"<= {self.text(self.most)} {self.unit}".strip()
        return f">= {self.text(self.least)} {self.unit}".strip() if self.least is not None else ""


VERDICTS = {True: "ok", False: "MISSED", None: ""}


def show(rows: list[Row], console: Console) -> None:
    """Print the figures as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("what", "n", "median", "p90", "unit", "limit", ""):
        table.add_column(name, justify="right" if name in {"n", "median", "p90"} else "left")
    for row in rows:
        verdict = row.is_met
        table.add_row(
            row.what, str(len(row.values)), row.text(row.median), row.text(row.ninetieth), row.unit,
            row.limit, VERDICTS[verdict], style="bold red" if verdict is False else "",
        )  # fmt: skip
    console.print(table)
