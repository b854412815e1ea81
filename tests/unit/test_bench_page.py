"""What `make bench` found, on the page: whatever was between the marks goes, the rest stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.bench.comparison import Comparison
from tests.bench.page import BEGIN, END, write

MACHINE = {"cores": 2, "cpu": "some", "memory_gb": 16.0, "kernel": "6.1", "python": "3.11.2"}
ROW = Comparison("ADD", (0.010,) * 5, (0.021,) * 5, than="ptp", least=1.15, stretch=1.25, needs=5)


def figures(*rows: Comparison) -> dict[str, object]:
    found = [{**row.data, "load": 1.0} for row in rows]
    return {"machine": MACHINE, "at": "2026-11-26T15:00:00Z", "skipped": [], "rows": found}


def test_the_figures_replace_those_of_the_last_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    write(page, figures(ROW))
    write(page, figures(ROW))
    text = page.read_text()
    assert (text.startswith(f"before\n{BEGIN}"), text.endswith(f"{END}after\n")) == (True, True)
    row = "| ADD, ptp | 5 | 10 ms | 10 | 21 ms | 21 | 2.10 | ratio >= 1.15 (1.25) | met |"
    assert ("old" in text, text.count(row)) == (False, 1)


def test_a_missed_gate_is_said(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(BEGIN + END)
    write(page, figures(Comparison("memory", (61.0,), unit="MB", most=60.0, needs=1)))
    assert "| memory | 1 | 61 MB |  |  |  |  | <= 60 | **missed** |" in page.read_text()


def test_a_gate_of_too_few_values_is_not_met(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(BEGIN + END)
    write(page, figures(replace(ROW, needs=50)))
    assert "| ratio >= 1.15 (1.25) | **too few (5)** |" in page.read_text()
