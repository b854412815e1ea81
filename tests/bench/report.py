"""What a bench writes down as it goes: its rows, and under which load each was measured."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison


@dataclass(slots=True)
class Report:
    """One run. What was measured is in *file* at any time, should the rest fail."""

    file: Path
    tell: Callable[[str], None]
    is_quick: bool = False
    rows: list[Comparison] = field(default_factory=list)
    _loads: dict[str, float] = field(default_factory=dict)
    _skipped: list[str] = field(default_factory=list)

    def count(self, usual: int) -> int:
        """Return how many rounds to measure, where a whole run measures *usual*."""
        return max(3, usual // 10) if self.is_quick else usual

    def rounds(self, usual: int, seconds: float) -> Iterator[int]:
        """Yield the numbers of the rounds; fewer where a machine is so busy that they take long.

        A gate of fewer than it needs is not met, and says so.
        """
        end = time.monotonic() + seconds
        for number in range(self.count(usual)):
            if time.monotonic() > end and number:
                self.tell(f"stopped after {number} of {usual} rounds: {seconds:.0f} s are over")
                return
            yield number

    def add(self, row: Comparison) -> None:
        """Add a row."""
        self.rows.append(row)
        self._loads[row.name] = round(os.getloadavg()[0], 2)
        self._write()

    def skip(self, why: str) -> None:
        """Say that something was not measured."""
        self._skipped.append(why)
        self.tell(f"skipped: {why}")
        self._write()

    @property
    def is_good(self) -> bool:
        """Whether no gate is missed; nor, in a whole run, measured too seldom to be met."""
        return not any(
            row.is_met is False or (row.is_short and not self.is_quick) for row in self.rows
        )

    @property
    def data(self) -> dict[str, Any]:
        """The whole for machines."""
        return {
            "machine": machine(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "quick": self.is_quick,
            "skipped": self._skipped,
            "rows": [{**row.data, "load": self._loads[row.name]} for row in self.rows],
        }

    def _write(self) -> None:
        self.file.parent.mkdir(exist_ok=True)
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps(self.data, indent=1) + "\n")
        draft.replace(self.file)


def machine() -> dict[str, Any]:
    """Return what the figures are of."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }
