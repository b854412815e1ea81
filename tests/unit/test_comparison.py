"""The bench's rows: which way a ratio goes, and when a gate is missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench.comparison import Comparison
from tests.bench.report import Report

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


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (50, 50, "met"),
        (49, 50, "too few (49)"),
        (50, 49, "too few (49)"),
        (1, 1, "too few (1)"),
    ],
)
def test_a_gate_of_fewer_values_than_it_needs_is_not_met(
    ours: int, theirs: int, words: str
) -> None:
    row = Comparison("ADD", (0.010,) * ours, (0.020,) * theirs, least=1.5)
    assert row.verdict == words
    assert row.data["ok"] is (True if words == "met" else None)
    assert replace(row, least=None).verdict == "", "what has no gate needs no count"


def test_a_gate_that_is_missed_is_missed_however_few_there_are() -> None:
    assert Comparison("ADD", (0.010,), (0.010,), least=1.5).verdict == "MISSED"


def test_memory_is_weighed_once() -> None:
    assert Comparison("memory", (1.0,), unit="MB", most=60, needs=1).verdict == "met"


@pytest.mark.parametrize(("is_quick", "is_good"), [(False, False), (True, True)])
def test_only_a_quick_run_may_measure_too_seldom(
    tmp_path: Path, *, is_quick: bool, is_good: bool
) -> None:
    report = Report(tmp_path / "bench.json", lambda _: None, is_quick=is_quick)
    report.add(Comparison("ADD", (0.010,) * 5, (0.020,) * 5, least=1.5))
    assert report.is_good is is_good
    report.add(Comparison("DEL", (0.010,) * 50, (0.010,) * 50, least=1.5))
    assert report.is_good is False


def test_rounds_end_with_their_seconds_and_what_is_short_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    report = Report(tmp_path / "bench.json", told.append)
    assert list(report.rounds(50, seconds=-1)) == [0]
    assert told == ["stopped after 1 of 50 rounds: -1 s are over"]
    assert len(list(report.rounds(50, seconds=60))) == 50
