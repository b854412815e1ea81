"""The rows of `docs/fidelity.md`: `--rows` runs their tests and tells of each row (`make fidelity`).

And what hypothesis is told for all tests: no deadline, because the machine may be busy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import settings

from tests.tools.fidelity import ABOUT, ROWS

settings.register_profile("enid", deadline=None)
settings.load_profile("enid")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--rows`."""
    parser.addoption("--rows", action="store_true", help="run the rows of docs/fidelity.md only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that belong to a row, and note to which."""
    if not config.getoption("--rows"):
        return
    rows = {
        item.nodeid: [name for mark in item.iter_markers("row") for name in mark.args]
        for item in items
    }
    left_out = [item for item in items if not rows[item.nodeid]]
    items[:] = [item for item in items if rows[item.nodeid]]
    config.hook.pytest_deselected(items=left_out)
    config.pluginmanager.register(Rows(rows), "rows")


class Rows:
    """How the tests of each row went."""

    def __init__(self, rows: Mapping[str, Iterable[str]]) -> None:
        self._rows = rows
        self._outcomes: dict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what a test came to; a failure while it is set up or taken down is one, too."""
        if report.when != "call" and report.passed:
            return
        for name in set(self._rows[report.nodeid]):
            self._outcomes[name][report.outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a line for each row."""
        width = max(len(row.name) for row in ROWS)
        words = Counter[str]()
        for section in ABOUT:
            terminalreporter.section(section, "-")
            for row in (row for row in ROWS if row.section == section):
                word, colour, what = verdict(self._outcomes[row.name])
                words[word] += 1
                terminalreporter.write(f"{word:8}", **{colour: True})
                terminalreporter.line(f"{row.name:{width}}  {what}")
        terminalreporter.section(", ".join(f"{n} {word}" for word, n in words.items()), "-")


def verdict(outcomes: Counter[str]) -> tuple[str, str, str]:
    """Return the word for a row, its colour, and how many tests say so."""
    if outcomes["failed"]:
        return "FAILED", "red", f"{outcomes['failed']} of {outcomes.total()} tests"
    if outcomes["passed"]:
        return "ok", "green", f"{outcomes['passed']} test{'s' * (outcomes['passed'] > 1)}"
    return "not run", "yellow", f"{outcomes['skipped']} skipped" if outcomes["skipped"] else ""
