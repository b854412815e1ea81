"""`enid verify`'s reports: what CI systems read is what came of the checks."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpclab.checks.outcome import Outcome, State
from vpclab.checks.report import About, as_json, as_junit, is_ok, printable

ABOUT = About(
    version="1", cluster="https://c", nodes=("a", "b"), image="i:1", began="2026-11-26T22:00:00+00:00", seconds=61.5
)  # fmt: skip


def outcome(state: State, name: str = "dns", said: str = "seen") -> Outcome:
    return Outcome(name, "names resolve", state, said, 0.25, "names")


OK, FAILED, SKIPPED = (outcome(state) for state in State)


@pytest.mark.parametrize(
    ("outcomes", "ok"),
    [
        pytest.param([OK, SKIPPED], True, id="nothing-failed"),
        pytest.param([OK, FAILED], False, id="one-failed"),
        pytest.param([SKIPPED], False, id="nothing-was-proved"),
        pytest.param([], False, id="nothing-ran"),
    ],
)
def test_all_is_well_if_something_was_proved_and_nothing_failed(
    outcomes: list[Outcome],
    ok: bool,  # noqa: FBT001 - a row of the table
) -> None:
    assert is_ok(outcomes) is ok


def test_json_has_each_check_and_where_it_was_made() -> None:
    told = json.loads(as_json([OK, FAILED, SKIPPED], ABOUT))
    assert told["passed"] is False
    assert told["counts"] == {"ok": 1, "failed": 1, "skipped": 1}
    assert told["nodes"] == ["a", "b"]
    assert told["checks"][1] == {
        "name": "dns", "proves": "names resolve", "state": "failed", "said": "seen", "seconds": 0.25, "topic": "names",
    }  # fmt: skip


def test_junit_counts_and_says_why() -> None:
    suite = ET.fromstring(as_junit([OK, FAILED, SKIPPED], ABOUT).partition("\n")[2])  # noqa: S314 - ours
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors", "time")} == {
        "tests": "3", "failures": "1", "skipped": "1", "errors": "0", "time": "61.500",
    }  # fmt: skip
    assert [one.get("classname") for one in suite.iter("testcase")] == ["enid.verify.names"] * 3
    ok, failed, skipped = suite.iter("testcase")
    assert ok.findtext("system-out") == "names resolve: seen"
    assert [child.get("message") for child in (*failed, *skipped)] == ["seen", "seen"]
    assert {p.get("name"): p.get("value") for p in suite.iter("property")} == {
        "version": "1", "cluster": "https://c", "image": "i:1", "nodes": "a, b",
    }  # fmt: skip


@given(st.text(), st.sampled_from(State))
def test_whatever_was_said_is_read_back(said: str, state: State) -> None:
    text = as_junit([outcome(state, said=said)], ABOUT)
    assert ET.fromstring(text.partition("\n")[2]).get("tests") == "1"  # noqa: S314 - ours


@pytest.mark.parametrize(
    ("text", "left"),
    [
        pytest.param("a\x00b\x1b[1m", "ab[1m", id="control-characters"),
        pytest.param("\ud800x\uffff", "x", id="no-characters-at-all"),
        pytest.param("täglich 😀\t\n", "täglich 😀\t\n", id="everything-else"),
    ],
)
def test_what_xml_cannot_say_is_left_out(text: str, left: str) -> None:
    assert printable(text) == left
