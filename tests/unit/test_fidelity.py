"""The table of what the lab models and the tests that say so belong together."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conftest import verdict
from tests.tools.fidelity import ABOUT, ROWS, TEXTS, marked
from tests.tools.pure import ROOT

NAMES = {row.name for row in ROWS}


def test_every_row_has_a_test() -> None:
    assert NAMES - marked().keys() == set()


def test_every_marker_names_a_row() -> None:
    assert {name: tests for name, tests in marked().items() if name not in NAMES} == {}


def test_a_row_is_there_once_and_says_what_is_modelled() -> None:
    assert len(NAMES) == len(ROWS)
    assert [row.name for row in ROWS if not list(row.facts()) or row.section not in ABOUT] == []


@pytest.mark.parametrize("code", sorted({code for code, *_ in TEXTS}))
def test_an_error_of_the_table_is_one_of_the_lab_s(code: str) -> None:
    sources = [*(ROOT / "vpclab" / "ec2").glob("*.py"), ROOT / "vpclab" / "faults.py"]
    assert any(f'"{code}"' in path.read_text() for path in sources)


@pytest.mark.parametrize(
    ("outcomes", "word", "what"),
    [
        ({"passed": 3}, "ok", "3 tests"),
        ({"passed": 1, "skipped": 1}, "ok", "1 test"),
        ({"passed": 3, "failed": 1}, "FAILED", "1 of 4 tests"),
        ({"skipped": 2}, "not run", "2 skipped"),
        ({}, "not run", ""),
    ],
)
def test_a_row_is_as_its_tests_are(outcomes: dict[str, int], word: str, what: str) -> None:
    said = verdict(Counter(outcomes))
    assert (said[0], said[2]) == (word, what)
