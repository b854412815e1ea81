"""Run the rows with each containerd, print them as a table, and write docs/runtimes.md. Shell.

    python -m tests.cri [--serial] [pytest's arguments]      (what `make cri` runs)

Each containerd has a box and a pytest of its own, side by side: most of a row is waiting. With
arguments, such as `-k conflist`, what was left out is "not run", and the page stays as it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.tools.runtimes import PAGE, ROWS, Outcome, cells, render
from vpclab.containerd import RELEASES, Release

LOOK_SECONDS = 0.5
COLOURS = {"ok": "\033[32m", "FAILED": "\033[31m", "skipped": "\033[33m", "not run": "\033[33m"}


@dataclass(slots=True)
class Run:
    """One containerd's pytest."""

    release: Release
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """What pytest said."""
        return self.folder / f"{self.release.name}.log"

    @property
    def notes(self) -> Path:
        """What its tests came to."""
        return self.folder / f"{self.release.name}.outcomes"

    @property
    def is_over(self) -> bool:
        """Whether pytest has ended."""
        return self.process is not None and self.process.poll() is not None

    def begin(self, arguments: Sequence[str]) -> None:
        """Start pytest in a box."""
        chosen = ["--containerd", self.release.name, "--outcomes", str(self.notes)]
        python = [sys.executable, "-m"]
        argv = [*python, "vpclab.box", *python, "pytest", "-q", "tests/cri", *chosen, *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)

    def news(self) -> Iterator[Outcome]:
        """Yield what is new."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        for line in lines[len(self.outcomes) :]:
            told = json.loads(line)
            outcome = Outcome(**{**told, "rows": tuple(told["rows"])})
            self.outcomes.append(outcome)
            yield outcome


def watch(runs: Sequence[Run]) -> None:
    """Tell of each test as it ends, until all have."""
    since = time.monotonic()
    while True:
        over = all(run.is_over for run in runs)
        for run in runs:
            for outcome in run.news():
                seconds = time.monotonic() - since
                name = f"{outcome.test.partition('[')[0]} {outcome.reason}".rstrip()
                print(
                    f"{seconds:5.0f} s  {run.release.name:14} {outcome.word:8} {name}", flush=True
                )
        if over:
            return
        time.sleep(LOOK_SECONDS)


def coloured(cell: str, width: int) -> str:
    """Return a cell in its colour, for a terminal."""
    text = f"{cell:{width}}"
    colour = COLOURS.get(cell.partition(":")[0], "")
    return f"{colour}{text}\033[0m" if colour and sys.stdout.isatty() else text


def show(outcomes: Sequence[Outcome], names: Sequence[str]) -> None:
    """Print the table: a line for each row, a column for each containerd."""
    table = cells(outcomes, names)
    first = max(len(row.name) for row in ROWS)
    widths = [
        max(len(name), *(len(table[row.name][at]) for row in ROWS)) for at, name in enumerate(names)
    ]
    print()
    print(" " * first, *(f"{name:{width}}" for name, width in zip(names, widths, strict=True)), sep="  ")  # fmt: skip
    for row in ROWS:
        line = (coloured(cell, w) for cell, w in zip(table[row.name], widths, strict=True))
        print(f"{row.name:{first}}", *line, sep="  ")


def main() -> int:
    """Run all; return 1 if a row failed, 0 if none did."""
    arguments = sys.argv[1:]
    serial = "--serial" in arguments
    arguments = [word for word in arguments if word != "--serial"]
    with tempfile.TemporaryDirectory(prefix="enid-cri-") as folder:
        runs = [Run(release, Path(folder)) for release in RELEASES]
        for group in [[run] for run in runs] if serial else [runs]:
            for run in group:
                run.begin(arguments)
            watch(group)
        return conclude(runs, is_whole=not arguments)


def conclude(runs: Sequence[Run], *, is_whole: bool) -> int:
    """Show what came of it, and keep it."""
    names = [run.release.name for run in runs]
    outcomes = [outcome for run in runs for outcome in run.outcomes]
    failed = {
        run.release.name for run in runs if run.process and run.process.returncode not in {0, 5}
    }
    for run in runs:
        if run.release.name in failed:
            print(f"\n{run.release.name}:\n{run.log.read_text()}")
    show(outcomes, names)
    ran = sum(any(o.word != "skipped" for o in run.outcomes) for run in runs)
    print(f"\n{ran} of {len(runs)} containerds ran")
    for run in runs:
        said = [line for line in run.log.read_text().splitlines() if line.startswith(run.release.name)]  # fmt: skip
        print(*said, sep="\n")
    if is_whole and ran == len(runs):
        PAGE.write_text("\n".join(render(cells(outcomes, names), names)) + "\n")
        print(f"docs/{PAGE.name} is written")
    else:
        print(f"docs/{PAGE.name} stays: it is written by a run of everything")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
