"""The rows of docs/runtimes.md, their tests and the page belong together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.runtimes import ROWS, Outcome, cell, cells, marked, render, rows_of_page

NAMES = [row.name for row in ROWS]


def test_every_row_has_a_test() -> None:
    assert set(NAMES) - marked().keys() == set()


def test_every_marker_names_a_row_and_a_row_is_there_once() -> None:
    assert marked().keys() - set(NAMES) == set()
    assert len(set(NAMES)) == len(NAMES)


def test_the_page_has_these_rows() -> None:
    """Not their results, which `make cri` writes: only that takes containerds."""
    assert rows_of_page() == [(row.name, row.runtime, row.ours) for row in ROWS]


def outcomes(*words: str) -> Iterator[Outcome]:
    for word in words:
        yield Outcome(("a",), "1.6", word, "no containerd" if word == "skipped" else "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("passed", "passed"), "ok", id="all passed"),
        pytest.param(("passed", "skipped"), "ok", id="one of its cases is not this runtime's"),
        pytest.param(("passed", "failed"), "FAILED", id="one failed"),
        pytest.param(("skipped",), "skipped: no containerd", id="why not"),
        pytest.param((), "not run", id="left out"),
    ],
)
def test_a_cell_says_what_its_tests_came_to(words: tuple[str, ...], said: str) -> None:
    assert cell(outcomes(*words)) == said


def test_a_table_has_a_column_for_each_containerd() -> None:
    seen = [Outcome((NAMES[0],), "1.6", "passed"), Outcome((NAMES[0],), "2.2", "failed")]
    table = cells(seen, ["1.6", "1.7", "2.2"])
    assert table[NAMES[0]] == ["ok", "not run", "FAILED"]
    lines = list(render(table, ["1.6", "1.7", "2.2"]))
    assert any(line.endswith("| ok | not run | FAILED |") for line in lines)
