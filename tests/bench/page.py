"""Write the figures of build/bench.json into docs/performance.md. Shell.

    python -m tests.bench.page

Between two marks of the page everything is replaced: the machine, and a row for each of the bench's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench.stand import ROOT

PAGE, FIGURES = ROOT / "docs" / "performance.md", ROOT / "build" / "bench.json"
BEGIN, END = "<!-- bench: python -m tests.bench.page -->\n", "<!-- /bench -->\n"


def number(value: float | None) -> str:
    """Return a figure to three digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def line(row: Mapping[str, Any]) -> str:
    """Return one row of the table."""
    ours, theirs = row["ours_p10_p90"], row["theirs_p10_p90"]
    what = f"{row['name']}, {row['than']}" if row["than"] else row["name"]
    verdict = row["verdict"] or ""
    cells = (
        what.strip(),
        str(min(count for count in row["n"] if count)),
        f"{number(row['ours'])} {row['unit']}",
        number(ours[1]) if ours else "",
        f"{number(row['theirs'])} {row['unit']}" if row["theirs"] is not None else "",
        number(theirs[1]) if theirs else "",
        "" if row["ratio"] is None else f"{row['ratio']:.2f}",
        row["gate"] or "",
        verdict if verdict in {"", "met"} else f"**{verdict.lower()}**",
    )
    return f"| {' | '.join(cells)} |"


def section(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines between the marks."""
    machine = figures["machine"]
    loads = [row["load"] for row in figures["rows"]]
    yield (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']:.0f} GB, Linux"
        f" {machine['kernel']}, Python {machine['python']}, on {figures['at'][:10]}; the load was"
        f" {min(loads):.1f} to {max(loads):.1f}, the bench's own included."
    )
    yield ""
    yield "| what, beside what | n | ours | p90 | theirs | p90 | ratio | gate (stretch) | |"
    yield "| --- | --: | --: | --: | --: | --: | --: | --- | --- |"
    yield from map(line, figures["rows"])
    for skipped in figures["skipped"]:
        yield ""
        yield f"Not measured: {skipped}."


def main() -> None:
    if not FIGURES.exists():
        sys.exit("enid: build/bench.json is not there: make bench")
    figures = json.loads(FIGURES.read_text())
    if figures["quick"]:
        sys.exit("enid: build/bench.json is of a quick run: make bench")
    write(PAGE, figures)


def write(page: Path, figures: Mapping[str, Any]) -> None:
    """Put *figures* between the marks of *page*."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join(section(figures))
    page.write_text(f"{before}{BEGIN}{text}\n{END}{after}")


if __name__ == "__main__":
    main()
