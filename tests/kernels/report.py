"""pytest's plugin in a guest: each test's outcome to the console as it is known. Shell."""

from __future__ import annotations

import pytest

from tests.kernels.inside import tell
from tests.lab.starts import WANTED, starts_of

LONGEST = 6000
"""Of what a failure says; its end is what matters."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the plugin's source and its files for others: the guest's own file is the question."""
    others = [item for item in items if any(s.name not in WANTED for s in starts_of(item))]
    items[:] = [item for item in items if item not in others]
    config.hook.pytest_deselected(items=others)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell what a test came to; a failure while it is set up or taken down is one, too."""
    if report.when == "call" or not report.passed:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        tell(
            test=report.nodeid,
            outcome=report.outcome,
            seconds=round(report.duration, 2),
            text=reason[-LONGEST:],
        )


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tell of a file that cannot even be read."""
    if report.failed:
        tell(test=report.nodeid, outcome="failed", seconds=0, text=report.longreprtext[-LONGEST:])
