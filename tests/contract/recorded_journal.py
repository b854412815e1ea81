"""Rows of the journal that a node at rest has not: ENIs on their way, blocks asked back. Shell.

A life in virtual time against the embedded EC2, in which the journal's own file keeps each row
that was ever in it: a trigger copies them.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ipamd.settings import Settings
from tests.contract.embedded import Region
from tests.contract.node_world import WARM, Node, by_address
from tests.tools.releases import WALL

KEPT = {"enis": ("INSERT",), "blocks": ("INSERT", "UPDATE")}
VOLATILE = {"since": WALL, "changed": WALL}

IDS = re.compile(r"\b(eni|eni-attach|i|vpc|subnet|sg)-[0-9a-f]{17}\b")
TOKENS = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
MACS = re.compile(r"\b02(:[0-9a-f]{2}){5}\b")
TIMES = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
ADDRESSES = re.compile(r"\b10\.\d+\.\d+\.\d+\b")

LIVES: tuple[tuple[str, Settings, int], ...] = (
    ("single addresses", WARM, 12),
    ("addresses by number", by_address(1, 4), 6),
    ("prefixes", by_address(1, 4, prefix_delegation=True), 20),
)
"""What a node is set to, and how many pods come and go."""


def rows_on_the_way(folder: Path, region: Region) -> str:
    """Live the lives; return one row of each kind and state, as JSON in a line each."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, (name, settings, pods) in enumerate(LIVES):
        place = folder / str(number)
        place.mkdir()
        for table, row in _lived(place, region, settings, pods):
            found.setdefault((name, table, *_kind(row)), {"life": name, "table": table, "row": row})
    lines = [json.dumps(found[key], sort_keys=True) for key in sorted(found)]
    return "\n".join(map(_settled, lines)) + "\n"


def _lived(
    folder: Path, region: Region, settings: Settings, pods: int
) -> list[tuple[str, dict[str, Any]]]:
    node = Node(folder, region, settings=settings)
    try:
        node.boot_up()
        node.kill()
        path = folder / "journal.db"
        with closing(sqlite3.connect(path)) as db, db:
            for table, events in KEPT.items():
                _keep(db, table, events)
        node.start()
        node.adds(pods)
        node.run(120)
        node.deletes()
        node.run(2000)
        node.kill()
        with closing(sqlite3.connect(path)) as db:
            kept = db.execute("SELECT name, row FROM kept ORDER BY rowid").fetchall()
            return [(table, json.loads(row)) for table, row in kept]
    finally:
        node.end()


def _keep(db: sqlite3.Connection, table: str, events: tuple[str, ...]) -> None:
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    row = ", ".join(f"'{column}', NEW.{column}" for column in columns)
    db.execute("CREATE TABLE IF NOT EXISTS kept (name TEXT, row TEXT)")
    for event in events:
        db.execute(
            f"CREATE TRIGGER kept_{table}_{event} AFTER {event} ON {table} BEGIN"  # noqa: S608 - names are the file's
            f" INSERT INTO kept VALUES ('{table}', json_object({row})); END"
        )


def _kind(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what rows of a kind have in common: their state, and what they lack."""
    lacks = ",".join(sorted(name for name, value in row.items() if value is None))
    length = row.get("block", "").partition("/")[2]
    return row["state"], str(min(row.get("device_index", 0), 1)), lacks, length


def _settled(line: str) -> str:
    for name, value in VOLATILE.items():
        line = re.sub(rf'("{name}": )[\d.e+]+', rf"\g<1>{value}", line)
    line = IDS.sub(lambda found: f"{found[1]}-00000000000000001", line)
    line = TOKENS.sub("00000000-0000-4000-8000-000000000001", line)
    line = MACS.sub("02:00:00:00:00:01", line)
    return ADDRESSES.sub("10.0.0.0", TIMES.sub("2026-01-01T00:00:00Z", line))
