"""The journal on disk: ENIs on their way, blocks held, what was decided. Shell (sqlite).

Intent before call, so that a kill between any two states is recovered. WAL with
synchronous=FULL: a row that was written is there after a power cut. Written by the cloud
thread and by the background thread, never on the ADD path: a commit took 164 ms at the
99th percentile beside an image pull.

Each statement names its columns: a later version's file may have more of them (docs/adr/0043).

    planned ─> created ─> attached ─> modified ─> configured ─> active ─> draining ─> gone
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from eni.model import AttachmentId, Block, EniId
from ipamd.intents import EniState, Event, Held, Intent

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS enis (
  token TEXT PRIMARY KEY, state TEXT NOT NULL, eni_id TEXT UNIQUE, attachment_id TEXT,
  mac TEXT, device_index INTEGER NOT NULL, parameters TEXT NOT NULL, changed REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks (
  block TEXT PRIMARY KEY, eni_id TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
  at REAL NOT NULL, event TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS history_subject ON history (subject, at);
"""

KEEP_GONE_SECONDS = 120.0
"""How long the journal knows what was given back: a late describe may show it to a next life,
but none is so late (`ipamd.drift.REMEMBER_GONE_SECONDS`), and EC2 gives it again one day."""

SCHEMA_VERSION = 1
"""Raised with a change that an older daemon would misread; it then leaves the file alone."""

HISTORY_ROWS = 20_000
"""How much history is kept: at 100 bytes a row some 2 MB, weeks on a calm node."""


class JournalError(Exception):
    """A row could not be written or read: what it was the intent for is not done; see the disk."""

    id = "JOURNAL-UNWRITABLE"


class Journal:
    """The journal file; usable from any thread, one writer at a time.

    A file that cannot be used leaves the journal in memory: *trouble* says why, nothing
    on disk is touched, and the daemon stops asking EC2 for anything new.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open or make *path*; *read_only* changes nothing, and raises JournalError instead."""
        self.path = path
        self.trouble: str | None = None
        self._lock = threading.Lock()
        if read_only:
            try:
                self._db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)
            except sqlite3.Error as error:
                raise JournalError(f"{path} cannot be read: {error}") from error
            return
        try:
            self._db = self._open(str(path))
        except sqlite3.Error as error:
            self.trouble = (
                f"{path} cannot be used as the journal ({error}); it was left as it is. Pods are"
                " served, nothing new is asked of EC2. Free or repair the disk, or move the file"
                " away to have it rebuilt from EC2, then restart ipamd."
            )
            self._db = self._open(":memory:")

    @staticmethod
    def _open(name: str) -> sqlite3.Connection:
        db = sqlite3.connect(name, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            # Read before anything is written: a file that is not ours must stay as it is.
            damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"version {version} is of a later enid than this")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(SCHEMA)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def set_aside(self, why: str) -> None:
        """Start a new journal; the file that is there is kept beside it as `journal.db.<why>`.

        For a journal that is readable and not ours, such as one of an instance whose disk
        became our image.
        """
        aside = self.path.with_name(f"{self.path.name}.{why}")
        log.error("journal set aside", extra={"kept_as": str(aside)})
        self.close()
        for tail in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + tail).rename(f"{aside}{tail}")
        self._db = self._open(str(self.path))

    def _write(self, *steps: tuple[str, Iterable[tuple[object, ...]]]) -> None:
        try:
            with self._lock, self._db:
                self._db.execute("BEGIN IMMEDIATE")
                for sql, values in steps:
                    self._db.executemany(sql, values)
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} cannot be written: {error}") from error

    def _read(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} cannot be read: {error}") from error

    def put(self, intent: Intent, at: float) -> Intent:
        """Write *intent* as it now is; return it."""
        sql = (
            "INSERT OR REPLACE INTO enis (token, state, eni_id, attachment_id, mac, device_index,"
            " parameters, changed) VALUES (?,?,?,?,?,?,?,?)"
        )
        self._write((
            sql,
            [(
                intent.token, intent.state.value, intent.eni_id, intent.attachment_id, intent.mac,
                intent.device_index, json.dumps(intent.parameters, sort_keys=True), at,
            )],
        ))  # fmt: skip
        return intent

    def forget(self, intent: Intent) -> None:
        """End *intent*: its ENI is gone, and with it the blocks it held."""
        self._write(
            ("DELETE FROM blocks WHERE eni_id = ?", [(intent.eni_id,)]),
            ("DELETE FROM enis WHERE token = ?", [(intent.token,)]),
        )

    def intents(self) -> tuple[Intent, ...]:
        """Return every ENI that is not gone, by device index."""
        rows = self._read(
            "SELECT token, state, eni_id, attachment_id, mac, device_index, parameters"
            " FROM enis ORDER BY device_index"
        )
        return tuple(
            Intent(
                token=token,
                state=EniState(state),
                eni_id=EniId(eni_id) if eni_id else None,
                attachment_id=AttachmentId(attachment_id) if attachment_id else None,
                mac=mac,
                device_index=device_index,
                parameters=json.loads(parameters),
            )
            for token, state, eni_id, attachment_id, mac, device_index, parameters in rows
        )

    def hold(self, eni_id: EniId, blocks: Iterable[Block], at: float) -> None:
        """Write that *blocks* are ours, on *eni_id*."""
        self._write(
            (
                "INSERT OR REPLACE INTO blocks (block, eni_id, state, since) VALUES (?,?,?,?)",
                [(str(block), eni_id, Held.HELD.value, at) for block in blocks],
            )
        )

    def begin_release(self, blocks: Iterable[Block], at: float) -> None:
        """Write that EC2 is about to be asked to take *blocks* back."""
        self._write(
            (
                "UPDATE blocks SET state = ?, since = ? WHERE block = ?",
                [(Held.RELEASING.value, at, str(block)) for block in blocks],
            )
        )

    def drop(self, blocks: Iterable[tuple[Block, EniId]], at: float) -> None:
        """Write that *blocks*, each with its ENI, are EC2's again.

        EC2 may have given one to another ENI of ours since, which keeps it.
        """
        self._write(
            (
                "UPDATE blocks SET state = ?, since = ? WHERE block = ? AND eni_id = ?",
                [(Held.GONE.value, at, str(block), eni_id) for block, eni_id in blocks],
            ),
            (
                "DELETE FROM blocks WHERE state = ? AND since < ?",
                [(Held.GONE.value, at - KEEP_GONE_SECONDS)],
            ),
        )

    def blocks(self) -> tuple[tuple[Block, EniId, Held], ...]:
        """Return every block the journal knows to be ours, or asked back."""
        rows = self._read(
            "SELECT block, eni_id, state FROM blocks WHERE state != ?", Held.GONE.value
        )
        return tuple((IPv4Network(b), EniId(e), Held(state)) for b, e, state in rows)

    def gone(self, at: float) -> tuple[Block, ...]:
        """Return what was given back of late."""
        rows = self._read(
            "SELECT block FROM blocks WHERE state = ? AND since >= ?",
            *(Held.GONE.value, at - KEEP_GONE_SECONDS),
        )
        return tuple(IPv4Network(block) for (block,) in rows)

    def fact(self, name: str) -> object | None:
        """Return what was noted under *name*, None if nothing was."""
        rows = self._read("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def note_fact(self, name: str, value: object) -> None:
        """Note *value* (JSON) under *name*."""
        sql = "INSERT OR REPLACE INTO facts (name, value) VALUES (?,?)"
        self._write((sql, [(name, json.dumps(value))]))

    def record(self, events: Iterable[Event]) -> None:
        """Append to the history, and keep the newest `HISTORY_ROWS`."""
        self._write(
            (
                "INSERT INTO history (at, event, subject, detail) VALUES (?,?,?,?)",
                [(e.at, e.event, e.subject, json.dumps(e.detail)) for e in events],
            )
        )
        self._write(
            (
                "DELETE FROM history WHERE rowid <= (SELECT max(rowid) FROM history) - ?",
                [(HISTORY_ROWS,)],
            )
        )

    def history(self, limit: int) -> tuple[Event, ...]:
        """Return the newest *limit* events, newest first."""
        rows = self._read(
            "SELECT at, event, subject, detail FROM history ORDER BY rowid DESC LIMIT ?", limit
        )
        return tuple(Event(at, event, subject, json.loads(d)) for at, event, subject, d in rows)
