"""The table of `make kernels`: its words, and that its document has every row and column."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.results import Results
from tests.kernels.rows import (
    BEGIN,
    CHECKS,
    END,
    TARGETS,
    Check,
    Row,
    Target,
    into,
    legend,
    markdown,
    table,
)
from tests.tools.pure import ROOT

TARGET = Target("6.1", "bookworm", "bookworm", "amd64")
ONE, OTHER = (Check(name, "", (f"tests/lab/{name}.py",)) for name in ("one", "other"))
FACTS = {"kernel": "6.1.0-1-cloud-amd64", "python": "3.11.2", "nft": "1.0.6", "up_seconds": 3.0}


def told(name: str, outcome: str = "passed") -> dict[str, Any]:
    return {"test": f"tests/lab/{name}", "outcome": outcome, "seconds": 0.1, "text": ""}


def heard(*what: dict[str, Any], trouble: str = "") -> Row:
    row = Row(TARGET, trouble=trouble)
    for each in (FACTS, *what, {"ended": 0, "log": []}):
        row.told(each)
    return row


@pytest.mark.parametrize(
    ("row", "cell", "result"),
    [
        pytest.param(heard(told("one.py::a"), told("one.py::b[x]")), "2 ok", "ok", id="all-passed"),
        pytest.param(heard(told("one.py::a"), told("one.py::b", "skipped")), "1 ok, 1 skipped", "ok", id="a-skipped-test-is-counted"),
        pytest.param(heard(told("one.py::a"), told("one.py::b", "failed")), "FAILED 1 of 2", "FAILED", id="one-failed"),
        pytest.param(heard(told("one.py::a"), told("one.py::a", "failed")), "FAILED 1 of 1", "FAILED", id="passed-and-not-taken-down"),
        pytest.param(heard(told("one.py", "failed")), "FAILED 1 of 1", "FAILED", id="a-file-that-cannot-be-read"),
        pytest.param(heard(told("one_more.py::a")), "not run", "incomplete", id="others-tests-do-not-count"),
        pytest.param(heard(told("one.py::a", "skipped")), "0 ok, 1 skipped", "incomplete", id="nothing-but-skipped"),
        pytest.param(heard(told("one.py::a"), trouble="it ended early"), "cut short after 1", "it ended early", id="cut-short"),
        pytest.param(Row(TARGET, trouble="apt-get: gone"), "not run", "apt-get: gone", id="a-kernel-that-cannot-be-had"),
    ],
)  # fmt: skip
def test_a_row(row: Row, cell: str, result: str) -> None:
    assert row.cell(ONE) == cell
    assert row.result([ONE]) == result
    assert row.is_well([ONE]) == (result == "ok")


def test_a_former_run_tells_of_what_was_not_asked_this_time() -> None:
    former = heard(told("one.py::a", "failed"), told("one.py::gone"), told("other.py::b"))
    row = heard(told("one.py::a"))
    row.remember(former, [ONE])
    assert [row.cell(check) for check in (ONE, OTHER)] == ["1 ok", "1 ok"]


def test_a_former_run_of_another_kernel_tells_nothing() -> None:
    former = heard(told("other.py::b"))
    former.facts = FACTS | {"kernel": "6.1.0-0-cloud-amd64"}
    row = heard(told("one.py::a"))
    row.remember(former, [ONE])
    assert row.cell(OTHER) == "not run"


def kept(results: Results) -> list[str]:
    """Return the results of *results*' document, kernel by kernel."""
    assert results.document is not None
    lines = results.document.read_text().splitlines()
    return [line.split("|")[-2].strip() for line in lines if line.startswith("| ")][2:]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    document = tmp_path / "support.md"
    document.write_text(f"{BEGIN}{END}")
    return Results(tmp_path / "build" / "kernels.json", document)


def test_each_row_is_kept_as_its_guest_ends_and_the_next_run_goes_on(results: Results) -> None:
    for target in TARGETS[:2]:  # and there the run is cut short
        results.keep(replace(heard(told("one.py::a")), target=target), [ONE])
    lost = "not run here yet"
    assert kept(results) == ["incomplete", "incomplete", lost, lost]
    again = Results(results.file, results.document)
    row = again.keep(replace(heard(told("other.py::b")), target=TARGETS[1]), [OTHER])
    assert [row.cell(check) for check in (ONE, OTHER)] == ["1 ok", "1 ok"]
    again.keep(replace(heard(), target=TARGETS[3]), [ONE])
    assert kept(again) == ["incomplete", "incomplete", lost, "incomplete"]


def test_guests_that_end_together_are_all_kept(results: Results) -> None:
    rows = [replace(heard(told("one.py::a")), target=target) for target in TARGETS * 3]
    with ThreadPoolExecutor(len(rows)) as pool:
        assert list(pool.map(lambda row: results.keep(row, [ONE]), rows)) == rows
    assert kept(results) == ["incomplete"] * len(TARGETS)


def test_without_a_document_only_the_rows_are_kept(tmp_path: Path) -> None:
    results = Results(tmp_path / "kernels.json")
    results.keep(heard(told("one.py::a")), [ONE])
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.json"]


def test_a_row_is_as_long_as_the_head_whatever_happened() -> None:
    for row in (heard(told("one.py::a")), Row(TARGET, trouble="apt-get: a | b")):
        head, line = table([row], [ONE, OTHER])
        assert len(head) == len(line)
        assert list(markdown([head, line]))[2].count("|") == len(head) + 1


def test_a_document_keeps_what_stands_around_the_table() -> None:
    lines = ["| kernel |", "| 6.1 |"]
    once = into("before\n<!-- make kernels -->old<!-- /make kernels -->\nafter\n", lines)
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert into(once, lines) == once


def test_a_document_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="make kernels"):
        into("nothing", [])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_checks_tests_are_there(check: Check) -> None:
    for test in check.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists()
        assert not name or f"def {name}(" in (ROOT / path).read_text()


def test_the_document_has_every_kernel_and_every_check() -> None:
    written = (ROOT / "docs" / "support.md").read_text()
    lines = written.partition(BEGIN)[2].partition(END)[0].splitlines()
    table_lines = [line for line in lines if line.startswith("|")]
    head, _, *rows = ([word.strip() for word in line.split("|")[1:-1]] for line in table_lines)
    assert head == table([], CHECKS)[0]
    for target, (kernel, processor, *_) in zip(TARGETS, rows, strict=True):
        assert kernel.startswith(target.series)
        assert processor == target.processor


def test_the_document_says_what_each_check_is() -> None:
    assert "\n".join(legend(CHECKS)) in (ROOT / "docs" / "support.md").read_text()
