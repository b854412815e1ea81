"""The references in docs/ say what the code says."""

from __future__ import annotations

import pytest

from eni.errors import RAISED, EniError
from ipamd.reactions import CONSEQUENCES
from tests.tools.references import DOCS, PAGES, leaves


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == "\n".join(PAGES[name]()) + "\n", (
        f"docs/{name} is stale: run `python -m tests.tools.references`"
    )


def test_every_failure_has_an_answer() -> None:
    assert set(CONSEQUENCES) >= {*leaves(EniError), *RAISED}
