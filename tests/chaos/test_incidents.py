"""What others met does not happen here, and would if our code were a little worse."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.incidents import ELSEWHERE, Incident, Incidents, document
from tests.chaos.law import LawBrokenError
from tests.chaos.many import folder
from tests.chaos.stage import UnmetError
from tests.chaos.world import EndedError
from tests.tools.pure import ROOT

BROKEN = (LawBrokenError, UnmetError, EndedError)

ALL = pytest.mark.parametrize("incident", Incidents.all, ids=lambda incident: incident.name)


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as path:
        yield Path(path)


@ALL
def test_it_does_not_happen_here(incident: Incident, place: Path) -> None:
    incident.play(place)


@ALL
def test_it_would_if_our_code_were_worse(incident: Incident, place: Path) -> None:
    with pytest.raises(BROKEN):
        incident.play(place, sabotaged=True)


def test_what_is_not_replayed_here_is_a_test_elsewhere() -> None:
    named = [test for row in ELSEWHERE for test in row.tests]
    assert [test for test in named if not is_there(test)] == []


@pytest.mark.parametrize(
    "test", ["unit/test_pool.py::test_none", "unit/test_none.py::test_none", "unit/test_decide.py::test_grow[none]"]
)  # fmt: skip
def test_what_nobody_wrote_is_not_there(test: str) -> None:
    assert not is_there(test)


def test_what_has_no_test_says_why() -> None:
    assert [row.numbers for row in ELSEWHERE if not row.tests and not row.remark] == []


def is_there(test: str) -> bool:
    """Whether a file of tests/ has a test, and the case of it: read, not run."""
    path, _, name = test.partition("::")
    name, _, case = name.partition("[")
    file = ROOT / "tests" / path
    body = ast.parse(file.read_text()).body if file.exists() else []
    found = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == name]
    return bool(found) and (not case or case.rstrip("]") in _strings(found[0].decorator_list))


def _strings(decorators: list[ast.expr]) -> set[object]:
    nodes = [node for decorator in decorators for node in ast.walk(decorator)]
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def test_the_document_is_in_step() -> None:
    assert (ROOT / "docs" / "incidents.md").read_text() == document(), (
        "python -m tests.chaos.incidents > docs/incidents.md"
    )
