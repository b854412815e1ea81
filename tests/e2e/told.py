"""What a run of `make e2e` has to tell at its end. Shell."""

from __future__ import annotations

from typing import TypeVar

import pytest

from vpclab.checks.check import Check, Outcome, State, run

T = TypeVar("T")

OUTCOMES = pytest.StashKey[list[Outcome]]()
UP = pytest.StashKey[list[float]]()
"""How long the cluster took to be up; none where there was none."""

PODS = pytest.StashKey[str]()
"""What kubectl showed."""

TABLES = pytest.StashKey[list[str]]()
"""Lines of what checks measured."""


def require(check: Check[T], ground: T, config: pytest.Config) -> None:
    """Run a check, note what came of it for the table, and fail where it failed."""
    outcome = run(check, ground)
    config.stash[OUTCOMES].append(outcome)
    if outcome.state is State.SKIPPED:
        pytest.skip(outcome.said)
    assert outcome.state is State.OK, outcome.said
