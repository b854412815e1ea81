"""The bench's rows: which way a ratio goes, and when a gate is missed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.comparison import Comparison

FASTER = Comparison("ADD", (0.010, 0.012, 0.011), (0.020, 0.022, 0.030), least=1.5, stretch=1.7)


def test_the_ratio_is_theirs_by_ours_of_the_medians() -> None:
    assert FASTER.ratio == pytest.approx(2.0)
    assert (FASTER.data["ours"], FASTER.data["theirs"]) == (11.0, 22.0)


@pytest.mark.parametrize(
    ("limits", "is_met"),
    [
        ({}, None),
        ({"least": 2.0}, True),
        ({"least": 2.01}, False),
        ({"greatest": 1.99}, False),
        ({"most": 0.011}, True),
        ({"most": 0.0109}, False),
        ({"least": 1.0, "most": 0.010}, False),
    ],
    ids=[
        "none", "at-the-ratio", "below-the-ratio", "above-the-greatest", "at-the-most",
        "above-the-most", "one-of-two",
    ],
)  # fmt: skip
def test_a_gate(limits: dict[str, Any], *, is_met: bool | None) -> None:
    row = Comparison("row", (0.010, 0.011, 0.012), (0.022,), **limits)
    assert row.is_met is is_met


def test_a_gate_without_theirs_is_missed_not_forgotten() -> None:
    assert Comparison("row", (1.0,), least=1.0).is_met is False


def test_few_values_have_no_spread() -> None:
    assert Comparison("row", (1.0, 2.0), unit="MB").data["ours_p10_p90"] is None
    assert Comparison("row", (1.0,) * 5, unit="MB").data["ours_p10_p90"] == [1.0, 1.0]


def test_a_row_says_its_gate_in_words() -> None:
    assert FASTER.gate == "ratio >= 1.5 (1.7)"
    assert Comparison("memory", (1.0,), unit="MB", most=60, stretch=50).gate == "<= 60 (50)"
