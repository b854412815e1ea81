"""Each release's files and frames, as `tests/fixtures/releases` has them, and what reads them today."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni import plugin
from cni.frame import Frame, FrameReader
from cni.heartbeat import was_usable
from cni.spec import CniError, Collect, Request, Verb, parse_request
from ipamd import journal, leases
from ipamd.intents import EniState, Held
from ipamd.journal import Journal
from ipamd.leases import Leases
from tests.tools.pure import ROOT
from tests.tools.releases import BOOT_NS, WALL, Exchange, Release, ids, releases

SCHEMAS = {"journal": journal, "leases": leases}
ALLOWED = {"enid1"}
"""First words of a frame and of a heartbeat. A release's plugin knows these and no other."""

REFUSED_BY_WORDS = {1, 6, 7}
"""Codes of what is refused for what is said, and not for what is there."""

REFUSED_LATER = {"add in another namespace"}

EXCHANGES = [
    pytest.param(one, id=f"{release.version}: {one.what}")
    for release in releases()
    for one in release.frames()
]
files = pytest.mark.parametrize("name", SCHEMAS)
each = pytest.mark.parametrize("release", releases(), ids=ids)


def test_this_version_is_recorded() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (version,) = (line.split('"')[1] for line in text.splitlines() if line.startswith("version = "))
    assert version in {release.version for release in releases()}, (
        f"record {version}: python -m vpclab.box python -m tests.tools.record_release"
    )


# Frames --------------------------------------------------------------------------------
def read(one: Exchange) -> Frame:
    frame = FrameReader().feed(one.sends.encode())
    assert frame is not None
    return frame


@pytest.mark.parametrize("one", EXCHANGES)
def test_a_frame_is_read_as_it_was_meant(one: Exchange) -> None:
    frame = read(one)
    assert (frame.started_ns, frame.deadline_ns) == (BOOT_NS, BOOT_NS + 110 * 10**9)
    verb = Verb(frame.env["CNI_COMMAND"])
    if one.answer.get("code") in REFUSED_BY_WORDS and one.what not in REFUSED_LATER:
        with pytest.raises(CniError) as refused:
            parse_request(frame.env, frame.stdin)
        assert refused.value.code == one.answer["code"]
        return
    asked = parse_request(frame.env, frame.stdin)
    if isinstance(asked, Collect):
        assert (verb, frame.runtime_ns) == (Verb.GC, BOOT_NS)
        assert asked.valid
        return
    assert isinstance(asked, Request)
    assert (asked.verb, asked.sandbox.container_id) == (verb, frame.env["CNI_CONTAINERID"])
    assert asked.conf.cni_version == json.loads(frame.stdin)["cniVersion"]
    assert (asked.previous is not None) == (verb is Verb.CHECK)


@pytest.mark.parametrize("one", EXCHANGES)
def test_an_answer_is_understood_by_todays_plugin(one: Exchange) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"%d" % one.exits + one.prints.encode())
        theirs.shutdown(socket.SHUT_WR)
        answer = plugin.talk(ours, one.sends.encode(), ())
        assert theirs.recv(1 << 20) == one.sends.encode()
    assert (answer[0] - 48, answer[1:]) == (one.exits, one.prints.encode())


@each
def test_each_verb_and_each_kind_of_answer_is_recorded(release: Release) -> None:
    verbs = {read(one).env["CNI_COMMAND"] for one in release.frames()}
    codes = {one.answer.get("code", 0) for one in release.exchanges()}
    versions = {one.answer["cniVersion"] for one in release.frames() if "ips" in one.answer}
    assert verbs == {"ADD", "DEL", "CHECK", "GC"}
    assert codes >= {0, 1, 3, 4, 6, 7, 11, 100}
    assert versions == {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}


@each
def test_a_spooled_del_and_a_heartbeat_are_read(release: Release) -> None:
    frame = FrameReader().feed(release.spooled.encode())
    assert frame is not None
    asked = parse_request(frame.env, frame.stdin)
    assert isinstance(asked, Request)
    assert asked.verb is Verb.DEL
    heartbeat = release.text("heartbeat")
    words = heartbeat.partition("\n")[0].split(" ")
    assert {words[0], release.spooled.split(" ")[0]} == ALLOWED
    boot_id = next(word for word in words if word.startswith("boot=")).removeprefix("boot=")
    assert was_usable(heartbeat.encode(), boot_id)


# Files ---------------------------------------------------------------------------------
def columns(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return what each table has: name, type, whether it may be null, default, key."""
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return {
        table: [row[1:] for row in db.execute(f"PRAGMA table_info({table})")] for (table,) in tables
    }


def todays(name: str) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(getattr(SCHEMAS[name], "SCHEMA"))  # noqa: B009 - two modules' constant
        return columns(db)


def lost(former: dict[str, list[tuple[Any, ...]]], now: dict[str, list[tuple[Any, ...]]]) -> str:
    """Say what a release would miss in a file of today's; nothing if it can use it."""
    for table, has in former.items():
        if table not in now:
            return f"table {table} is gone"
        for column in has:
            if column not in now[table]:
                return f"{table}.{column[0]} is gone, or is another"
        for name, _, must, default, _ in (c for c in now[table] if c not in has):
            if must and default is None:
                return f"{table}.{name} is new, and what the release writes lacks it"
    return ""


@each
@files
def test_a_release_can_go_on_with_the_files_of_today(release: Release, name: str) -> None:
    with closing(release.database(name)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        missed = lost(columns(db), todays(name))
    assert version <= SCHEMAS[name].SCHEMA_VERSION
    assert not missed or version < SCHEMAS[name].SCHEMA_VERSION, (
        f"{release.version} would misread our {name} ({missed}): tables only grow, by columns that"
        " may be null or have a default; else raise SCHEMA_VERSION and say in docs/operations.md"
        " that there is no way back (docs/adr/0043)"
    )


C = ("a", "TEXT", 1, None, 1)


@pytest.mark.parametrize(
    ("now", "missed"),
    [
        pytest.param({"t": [C]}, "", id="the-same"),
        pytest.param({"t": [C, ("b", "TEXT", 0, None, 0)], "more": [C]}, "", id="grown"),
        pytest.param({"t": [("b", "TEXT", 1, "'x'", 0), C]}, "", id="grown-in-front"),
        pytest.param({}, "table t is gone", id="table-dropped"),
        pytest.param({"t": [("b", "TEXT", 1, None, 1)]}, "t.a is gone", id="renamed"),
        pytest.param({"t": [("a", "INTEGER", 1, None, 1)]}, "t.a is gone", id="retyped"),
        pytest.param({"t": [C, ("b", "TEXT", 1, None, 0)]}, "t.b is new", id="must-be-written"),
    ],
)
def test_what_a_release_would_miss_is_named(
    now: dict[str, list[tuple[Any, ...]]], missed: str
) -> None:
    found = lost({"t": [C]}, now)
    assert found.startswith(missed)
    assert bool(found) == bool(missed)


@pytest.fixture
def folder(release: Release, tmp_path: Path) -> Path:
    for name in SCHEMAS:
        release.database(name, tmp_path / f"{name}.db").close()
    return tmp_path


@each
def test_every_row_of_a_journal_is_read(release: Release, folder: Path) -> None:
    with closing(release.database("journal")) as db:
        enis = dict(db.execute("SELECT eni_id, state FROM enis").fetchall())
        blocks = set(db.execute("SELECT block, eni_id, state FROM blocks WHERE state != 'gone'"))
        facts = {name: json.loads(value) for name, value in db.execute("SELECT * FROM facts")}
        (events,) = db.execute("SELECT count(*) FROM history").fetchone()
    with closing(Journal(folder / "journal.db")) as mine:
        assert mine.trouble is None
        assert {intent.eni_id: intent.state.value for intent in mine.intents()} == enis
        assert {(str(b), e, state.value) for b, e, state in mine.blocks()} == blocks
        assert {name: mine.fact(name) for name in facts} == facts
        assert len(mine.history(events + 1)) == events > 0
    assert enis
    assert blocks
    assert set(enis.values()) <= set(EniState)
    assert {state for _, _, state in blocks} <= set(Held)


@each
def test_every_row_of_a_lease_file_is_read(release: Release, folder: Path) -> None:
    with closing(release.database("leases")) as db:
        held = set(
            db.execute("SELECT container_id, address FROM leases JOIN leased ON lease = leases.id")
        )
        cooling = set(db.execute("SELECT address, eni_id FROM cooling"))
    with closing(Leases(folder / "leases.db")) as mine:
        rows = mine.rows()
        read = {(row.sandbox.container_id, str(a)) for row in rows for a in row.addresses}
        assert (read, {(str(a), eni_id) for a, eni_id, _ in mine.cooling()}) == (held, cooling)
    assert all(row.netns and row.started_ns == BOOT_NS and row.since == WALL for row in rows)
    assert held
    assert cooling
