"""Traces: what is read, what is refused, what is made up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.plan.errors import PlanInputError
from ipamd.plan.trace import Change, Churn, churn, read_trace, render_trace


def test_a_trace_is_times_and_pods_with_comments() -> None:
    lines = ["# a node", "", "0 +30  # at first", "3600.5\t-4"]
    assert read_trace(lines, "x") == (Change(0.0, 30), Change(3600.5, -4))


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        pytest.param(["0 +3", "lunch +1"], "x:2: 'lunch +1' is not 'SECONDS +PODS'", id="no-time"),
        pytest.param(["0 3"], "x:1: '0 3' is not", id="no-sign"),
        pytest.param(["0 +many"], "x:1: '0 +many' is not", id="no-number"),
        pytest.param(["0 +3 now"], "x:1: '0 +3 now' is not", id="a-word-too-many"),
        pytest.param(["-1 +3"], "x:1: '-1 +3' is not", id="before-the-start"),
        pytest.param(["nan +3"], "x:1: 'nan +3' is not", id="no-moment"),
        pytest.param(["5 +3", "4 -3"], "x:2: 4 s is before the line above it (5 s)", id="back"),
        pytest.param(["# nothing"], "x: no line says that pods come or go", id="empty"),
    ],
)
def test_a_line_that_is_no_change_is_named(lines: list[str], complaint: str) -> None:
    with pytest.raises(PlanInputError) as refused:
        read_trace(lines, "x")
    assert complaint in str(refused.value)


@pytest.mark.parametrize("kind", list(Churn))
@given(seed=st.integers(0, 50))
def test_churn_is_a_trace_of_its_seed_that_never_takes_what_is_not_there(
    kind: Churn, seed: int
) -> None:
    changes = tuple(churn(kind, random.Random(seed).random))
    assert changes == tuple(churn(kind, random.Random(seed).random))
    there = 0
    for change in changes:
        there += change.pods
        assert there >= 0
    assert read_trace(render_trace(changes, "title"), "x")[-1].pods == changes[-1].pods
