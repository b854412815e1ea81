"""Each kind of row that a release's journal can have while something is on its way, read today."""

from __future__ import annotations

import difflib
import json
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from ipamd.intents import EniState, Held, noted, wish_of
from ipamd.journal import Journal
from tests.contract.embedded import Region
from tests.contract.recorded_journal import rows_on_the_way
from tests.lab.recording import version
from tests.tools.releases import FIXTURES, HOW, ON_THE_WAY, ROOT, WALL, Release, releases

RECORDED = [release for release in releases() if (release.folder / ON_THE_WAY).exists()]
"""One that was recorded of another checkout (`--of`) has none."""

ROWS = [
    (release, json.loads(line))
    for release in RECORDED
    for line in release.text(ON_THE_WAY).splitlines()
]


def called(told: tuple[Release, dict[str, Any]]) -> str:
    release, one = told
    row = one["row"]
    return f"{release.version}: {one['life']}: {one['table']} {row['state']}"


def test_what_this_version_writes_on_the_way_is_recorded(aws: Region, tmp_path: Path) -> None:
    before = Release(FIXTURES / version(ROOT)).text(ON_THE_WAY)
    now = rows_on_the_way(tmp_path, aws)
    lines = list(difflib.unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm=""))
    assert not lines, f"this is not what is recorded: {HOW} (docs/adr/0043)\n" + "\n".join(lines)


@pytest.mark.parametrize("told", ROWS, ids=called)
def test_a_row_on_the_way_is_read(told: tuple[Release, dict[str, Any]], tmp_path: Path) -> None:
    release, one = told
    row, table = one["row"], one["table"]
    with closing(release.database("journal", tmp_path / "journal.db")) as db, db:
        db.executescript("DELETE FROM enis; DELETE FROM blocks")
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])  # noqa: S608 - names are the file's
    with closing(Journal(tmp_path / "journal.db")) as mine:
        assert mine.trouble is None
        if table == "blocks":
            block = IPv4Network(row["block"])
            wanted = Held(row["state"])
            gone = (block,) if wanted is Held.GONE else ()
            assert mine.gone(WALL) == gone
            assert mine.blocks() == (() if gone else ((block, row["eni_id"], wanted),))
            return
        (intent,) = mine.intents()
        assert intent.state is EniState(row["state"])
        assert (intent.eni_id, intent.attachment_id) == (row["eni_id"], row["attachment_id"])
        if intent.state is not EniState.PLANNED:
            assert noted(intent).subnet_id
        if intent.device_index:
            assert wish_of(intent.parameters).subnet_id


def test_every_state_of_an_eni_and_a_block_is_recorded() -> None:
    for release in RECORDED:
        lines = [json.loads(line) for line in release.text(ON_THE_WAY).splitlines()]
        states = {
            table: {o["row"]["state"] for o in lines if o["table"] == table}
            for table in ("enis", "blocks")
        }
        assert states == {"enis": set(EniState), "blocks": set(Held)}
