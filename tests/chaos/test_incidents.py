"""What others met does not happen here, and would if our code were a little worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.incidents import Incident, Incidents, document
from tests.chaos.laws import LawBrokenError
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


def test_the_document_is_in_step() -> None:
    assert (ROOT / "docs" / "incidents.md").read_text() == document(), (
        "python -m tests.chaos.incidents > docs/incidents.md"
    )
