"""What is made of the reports of upstream's tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.conformance.page import Facts, lines
from tests.e2e.conformance.results import (
    RULES,
    Case,
    Rule,
    State,
    cases,
    counts,
    merged,
    reasons,
    sentence,
)

A, B, C, D = (f"[sig-network] {name}" for name in ("A [Conformance]", "B", "C [Feature:X]", "D"))

REPORT = f"""
<testsuites><testsuite>
  <testcase name="[BeforeSuite]" time="1"/>
  <testcase name="[It] {A}" time="2.5"/>
  <testcase name="[It] {B}" time="3"><failure type="failed">no answer</failure></testcase>
  <testcase name="[It] {C}" time="0"><skipped message="skipped"/></testcase>
  <testcase name="[It] {D}" time="1"><skipped message="skipped - needs 3 nodes"/></testcase>
  <testcase name="[It] [sig-apps] E" time="1"/>
</testsuite></testsuites>
"""
OUT = Rule(r"\[Feature:X\]", "there is no X")


def report() -> list[Case]:
    return list(cases(ET.fromstring(REPORT)))  # noqa: S314 - ours


def test_a_report_has_the_areas_tests_and_what_they_said() -> None:
    assert report() == [
        Case(A, State.PASSED, 2.5),
        Case(B, State.FAILED, 3.0, "no answer"),
        Case(C, State.SKIPPED),
        Case(D, State.SKIPPED, 1.0, "needs 3 nodes"),
    ]


@pytest.mark.parametrize(
    ("rules", "state", "said"),
    [
        pytest.param([OUT], State.LEFT_OUT, "there is no X", id="left-out"),
        pytest.param([], State.LOST, "", id="nobody-left-it-out"),
    ],
)
def test_what_no_run_has_chosen_is_told(rules: list[Rule], state: State, said: str) -> None:
    found = {case.name: case for case in merged([report(), report()], rules)}
    assert (found[C].state, found[C].said) == (state, said)
    assert found[D].said == "needs 3 nodes"


@pytest.mark.parametrize("first", [True, False], ids=["chosen-first", "chosen-last"])
def test_the_run_that_chose_a_test_has_the_word(*, first: bool) -> None:
    passed, left = [Case(C, State.PASSED, 1.0)], [Case(C, State.SKIPPED)]
    assert merged([passed, left] if first else [left, passed], [OUT]) == passed


def test_numbers_and_reasons() -> None:
    found = merged([report()], [OUT])
    assert sentence(found) == "1 passed, 1 FAILED, 1 skipped, 1 left out"
    assert sentence([]) == "no test"
    assert sum(counts(found).values()) == len(found)
    assert reasons(found) == {"there is no X": 1, "needs 3 nodes": 1}


def test_the_page_has_each_test_with_its_reason() -> None:
    text = "\n".join(lines(merged([report()], [OUT]), Facts({"etcd": "3.4"}, {}, 7)))
    assert "| `[Conformance]` | 1 | 0 | 0 | 0 | 0 |" in text
    assert "| others | 0 | 1 | 1 | 1 | 0 |" in text
    assert f"| {B} | no answer |" in text
    assert f"left out, 1: there is no X\n\n- {C}" in text
    assert f"skipped, 1: needs 3 nodes\n\n- {D}" in text
    assert f"| {A} | 2 |" in text
    assert "## Not run" not in text


def test_what_was_run_again_is_told_with_what_it_had_said() -> None:
    first = Case(A, State.FAILED, 9.0, "no certificate")
    text = "\n".join(lines([Case(A, State.PASSED, 2.0)], Facts({}, {}, 7, [first])))
    assert "## Run again" in text
    assert f"| {A} | no certificate |" in text
    assert "## Failed" not in text


def test_a_test_that_nobody_left_out_is_on_the_page() -> None:
    text = "\n".join(lines(merged([report()], []), Facts({}, {}, 7)))
    assert f"## Not run\n\n| test | it said |\n| --- | --- |\n| {C} |  |" in text


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pattern)
def test_rules_are_patterns_and_say_why(rule: Rule) -> None:
    assert re.compile(rule.pattern).groups == 0
    assert rule.reason
