"""Each row of the lanes' table holds, also if the daemon is killed at any await of it.

make matrix        every point of every row at which it can be killed, as a table
make test          some of each row
"""

from __future__ import annotations

import pytest

from tests.chaos.lane_rows import NEVER, ROWS, Row, kills, perform
from tests.chaos.law import LawBrokenError

EVERY = 24
"""Of so many points one is always tried: about 50 of 1100."""


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_holds(row: Row) -> None:
    perform(row, NEVER)


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_killed], ids=str)
def test_a_row_holds_whenever_the_daemon_is_killed(row: Row) -> None:
    for kill in list(kills(row))[len(row.words) % EVERY :: EVERY]:
        try:
            perform(row, kill)
        except LawBrokenError as error:
            error.add_note(f"{row}, {kill}")
            raise
