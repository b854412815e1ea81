"""The two sqlite files: what was written is there, nothing is given twice, torn is not empty."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest

from cni.spec import Pod, Sandbox
from eni.model import AttachmentId, EniId
from ipamd.clock import Instant
from ipamd.intents import EniState, Event, Held, Intent
from ipamd.journal import Journal, JournalError
from ipamd.lease import LeaseRow
from ipamd.leases import REMEMBER_DEL_SECONDS, Leases, LeasesError
from ipamd.start import Paths, open_leases

NOW = Instant(boot=1000.0, wall=1_800_000_000.0)
V4, V6 = ip_address("10.0.1.20"), ip_address("fd00::20")
SINGLE, PREFIX = IPv4Network("10.0.1.20"), IPv4Network("10.0.2.16/28")


def row(name: str = "c1", *addresses: str) -> LeaseRow:
    return LeaseRow(
        sandbox=Sandbox("enid", name, "eth0"),
        pod=Pod("default", "web-0", "uid-1"),
        addresses=tuple(ip_address(a) for a in addresses) or (V4, V6),
        eni_id=EniId("eni-1"),
        eni_number=2,
        netns=(4, 77),
        started_ns=5,
        since=NOW.wall,
    )


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[Leases]:
    with closing(Leases(tmp_path / "leases.db")) as leases:
        yield leases


def test_a_lease_of_both_families_survives_the_daemon(leases: Leases) -> None:
    leases.insert(row())
    with closing(Leases(leases.path)) as again:
        assert again.rows() == (row(),)


def test_an_address_is_never_given_twice_even_by_two_daemons(leases: Leases) -> None:
    leases.insert(row("c1", "10.0.1.20"))
    with closing(Leases(leases.path)) as other:
        with pytest.raises(LeasesError, match=r"no lease of 10\.0\.1\.20 for"):
            other.insert(row("c2", "10.0.1.20"))
        with pytest.raises(LeasesError):
            other.insert(row("c3", "10.0.1.21", "10.0.1.20"))
    assert [r.sandbox.container_id for r in leases.rows()] == ["c1"]


def test_a_sandbox_has_one_lease(leases: Leases) -> None:
    leases.insert(row("c1", "10.0.1.20"))
    with pytest.raises(LeasesError):
        leases.insert(row("c1", "10.0.1.21"))


def test_a_release_turns_into_cooling_until_it_is_used_or_forgotten(leases: Leases) -> None:
    leases.insert(row())
    leases.release(row().sandbox, NOW)
    leases.release(row().sandbox, NOW.later(9))
    assert leases.rows() == ()
    assert set(leases.cooling()) == {(V4, EniId("eni-1"), NOW), (V6, EniId("eni-1"), NOW)}
    leases.forget_cooling((V6,))
    leases.insert(row("c2", "10.0.1.20"))
    assert leases.cooling() == ()


def test_a_del_is_remembered_for_ten_minutes_of_this_boot(leases: Leases) -> None:
    sandbox = row().sandbox
    leases.remember_delete(sandbox, 50, NOW)
    leases.remember_delete(sandbox, 40, NOW)
    assert leases.deletes(NOW.later(REMEMBER_DEL_SECONDS)) == {sandbox: 50}
    assert leases.deletes(NOW.later(REMEMBER_DEL_SECONDS + 1)) == {}
    assert leases.deletes(Instant(boot=3.0, wall=NOW.wall + 60)) == {}, "another boot"


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 50, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_an_unreadable_lease_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "leases.db"
    path.write_bytes(content)
    with pytest.raises(LeasesError, match=r"leases\.db"):
        Leases(path)
    assert path.read_bytes() == content


def test_a_lease_file_that_takes_nothing_says_so_and_then_what_it_owes(
    leases: Leases,
) -> None:
    leases.insert(row("a", "10.0.1.20"))
    sandbox = Sandbox("enid", "a", "eth0")
    leases._db.execute("PRAGMA query_only = 1")  # noqa: SLF001 - as a full /run refuses
    for _ in range(2):
        with pytest.raises(LeasesError):
            leases.release(sandbox, NOW)
    with pytest.raises(LeasesError):
        leases.retry()
    assert str(leases.path) in str(leases.trouble)
    leases._db.execute("PRAGMA query_only = 0")  # noqa: SLF001 - and then takes it
    leases.retry()
    assert leases.trouble is None
    assert [str(address) for address, _, _ in leases.cooling()] == ["10.0.1.20"]


def test_a_taken_address_is_no_fault_of_the_file(leases: Leases) -> None:
    leases.insert(row("a", "10.0.1.20"))
    with pytest.raises(LeasesError):
        leases.insert(row("b", "10.0.1.20"))
    assert leases.trouble is None


def test_leases_are_in_memory_where_no_file_can_be(tmp_path: Path) -> None:
    paths = Paths(run=tmp_path / "not-there", state=tmp_path)
    with closing(open_leases(paths)) as leases:
        leases.insert(row("a", "10.0.1.20"))
        assert len(leases.rows()) == 1
        assert "then restart ipamd" in str(leases.trouble)


def test_a_damaged_lease_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "leases.db").write_bytes(b"not a database at all" * 50)
    with closing(open_leases(Paths(run=tmp_path, state=tmp_path))) as leases:
        assert leases.trouble is None
    assert len(list(tmp_path.glob("leases.db.unreadable-*"))) == 1


INTENT = Intent(
    token="t-1",
    state=EniState.PLANNED,
    device_index=1,
    parameters={"token": "t-1", "secondary_count": 9, "tags": [["a", "b"]]},
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.db")) as journal:
        yield journal


def test_an_intent_is_there_before_and_after_a_kill(journal: Journal) -> None:
    journal.put(INTENT, NOW.wall)
    with closing(Journal(journal.path)) as again:
        assert again.intents() == (INTENT,)
    attached = Intent(
        token="t-1",
        state=EniState.ATTACHED,
        device_index=1,
        parameters=INTENT.parameters,
        eni_id=EniId("eni-1"),
        attachment_id=AttachmentId("eni-attach-1"),
        mac="02:00:00:00:00:01",
    )
    journal.put(attached, NOW.wall)
    journal.close()
    with closing(Journal(journal.path)) as again:
        assert again.intents() == (attached,)


def test_addresses_of_both_families_go_from_held_to_releasing_to_gone(journal: Journal) -> None:
    journal.hold(EniId("eni-1"), [SINGLE, PREFIX], NOW.wall)
    journal.begin_release([SINGLE], NOW.wall)
    assert set(journal.blocks()) == {
        (SINGLE, EniId("eni-1"), Held.RELEASING),
        (PREFIX, EniId("eni-1"), Held.HELD),
    }
    journal.drop([(SINGLE, EniId("eni-1"))], NOW.wall)
    assert journal.gone(NOW.wall + 60) == (SINGLE,)
    assert journal.gone(NOW.wall + 600) == ()
    assert [block for block, _, _ in journal.blocks()] == [PREFIX]


def test_an_address_that_came_with_another_eni_meanwhile_is_not_dropped(journal: Journal) -> None:
    journal.hold(EniId("eni-1"), [SINGLE], NOW.wall)
    journal.hold(EniId("eni-2"), [SINGLE], NOW.wall)
    journal.drop([(SINGLE, EniId("eni-1"))], NOW.wall)
    assert journal.blocks() == ((SINGLE, EniId("eni-2"), Held.HELD),)


def test_an_eni_that_is_gone_takes_its_addresses_along(journal: Journal) -> None:
    known = Intent(
        token="t-1", state=EniState.DRAINING, device_index=1, parameters={}, eni_id=EniId("eni-1")
    )
    journal.put(known, NOW.wall)
    journal.hold(EniId("eni-1"), [SINGLE], NOW.wall)
    journal.hold(EniId("eni-2"), [PREFIX], NOW.wall)
    journal.forget(known)
    assert journal.intents() == ()
    assert [block for block, _, _ in journal.blocks()] == [PREFIX]


def test_facts_and_history_are_kept(journal: Journal) -> None:
    assert journal.fact("where") is None
    journal.note_fact("where", {"vpc": "vpc-1"})
    journal.note_fact("where", {"vpc": "vpc-2"})
    assert journal.fact("where") == {"vpc": "vpc-2"}
    events = [
        Event(NOW.wall + i, "address assigned", "10.0.1.20", {"pod": f"p{i}"}) for i in (0, 1)
    ]
    journal.record(events)
    assert journal.history(10) == tuple(reversed(events))


@pytest.mark.parametrize("content", [b"torn" * 300, b"SQLite format 3\0" + b"\xff" * 4000])
def test_an_unreadable_journal_is_one_sentence_and_changes_nothing(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with closing(Journal(path)) as journal:
        assert journal.trouble is not None
        assert str(path) in journal.trouble
        assert "restart ipamd" in journal.trouble
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_journal_of_a_later_version_is_left_as_it_is(journal: Journal) -> None:
    journal.note_fact("life", "running")
    journal.close()
    with closing(sqlite3.connect(journal.path)) as later:
        later.execute("PRAGMA user_version = 99")
    with closing(Journal(journal.path)) as mine:
        assert mine.trouble is not None
        assert "version 99" in mine.trouble
    with closing(sqlite3.connect(journal.path)) as later:
        assert later.execute("SELECT count(*) FROM facts").fetchone() == (1,)


def test_a_truncated_journal_is_not_taken_for_an_empty_one(journal: Journal) -> None:
    for number in range(200):
        journal.hold(EniId("eni-1"), [IPv4Network(f"10.0.2.{number}")], NOW.wall)
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[: len(whole) // 2])
    with closing(Journal(journal.path)) as torn:
        assert torn.trouble is not None
    assert journal.path.read_bytes() == whole[: len(whole) // 2]


def test_a_row_that_cannot_be_written_is_an_error_and_not_a_guess(journal: Journal) -> None:
    journal.close()
    with pytest.raises(JournalError, match=r"journal\.db cannot be written"):
        journal.put(INTENT, NOW.wall)
    with pytest.raises(JournalError, match=r"journal\.db cannot be read"):
        journal.intents()


# Files of a later version (docs/adr/0043) -------------------------------------------------
def widen(path: Path) -> None:
    """Give each table another column, in front of nothing, as a later version may."""
    with closing(sqlite3.connect(path)) as later, later:
        tables = later.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            later.execute(f"ALTER TABLE {table} ADD COLUMN later TEXT NOT NULL DEFAULT 'unknown'")


def test_a_lease_file_with_more_columns_serves(leases: Leases) -> None:
    leases.insert(row("c1", "10.0.1.20"))
    leases.close()
    widen(leases.path)
    with closing(Leases(leases.path)) as mine:
        mine.insert(row("c2", "10.0.1.21"))
        assert [r.sandbox.container_id for r in mine.rows()] == ["c1", "c2"]
        mine.release(row("c1").sandbox, NOW)
        mine.remember_delete(row("c1").sandbox, 7, NOW)
        assert [address for address, _, _ in mine.cooling()] == [ip_address("10.0.1.20")]
        assert mine.deletes(NOW) == {row("c1").sandbox: 7}


def test_a_journal_with_more_columns_serves(journal: Journal) -> None:
    planned = Intent(token="t-1", state=EniState.PLANNED, device_index=1, parameters={})
    journal.put(planned, NOW.wall)
    journal.close()
    widen(journal.path)
    with closing(Journal(journal.path)) as mine:
        assert mine.trouble is None
        assert mine.intents() == (planned,)
        mine.put(Intent(token="t-2", state=EniState.PLANNED, device_index=2, parameters={}), 1.0)
        mine.hold(EniId("eni-1"), [SINGLE], NOW.wall)
        mine.begin_release([SINGLE], NOW.wall)
        assert mine.blocks() == ((SINGLE, EniId("eni-1"), Held.RELEASING),)
        mine.drop([(SINGLE, EniId("eni-1"))], NOW.wall)
        assert mine.gone(NOW.wall) == (SINGLE,)
        mine.note_fact("life", "running")
        mine.record([Event(1.0, "address assigned", "10.0.1.20", {})])
        assert mine.fact("life") == "running"
        assert len(mine.history(5)) == 1


def test_a_lease_file_of_a_later_version_is_set_aside_for_the_kernel_knows(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with closing(Leases(path)) as leases:
        leases.insert(row())
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 99")
    with pytest.raises(LeasesError, match="version 99 is of a later enid than this") as caught:
        Leases(path)
    assert caught.value.is_damaged
    with closing(open_leases(Paths(run=tmp_path, state=tmp_path))) as mine:
        assert mine.rows() == ()
    (aside,) = tmp_path.glob("leases.db.unreadable-*")
    with closing(sqlite3.connect(aside)) as later:
        assert later.execute("SELECT count(*) FROM leases").fetchone() == (1,)
