"""Leases on tmpfs: who has which address, who had it, which DELs came. Shell (sqlite).

Written inline on the loop before an answer (0.1 ms on tmpfs). One rule a changer must
keep: the address is a primary key and rows are INSERTed, never upserted, so that even
two daemons over one file could not give an address twice. Netns die at a reboot, so the
file may, too; the host veth's alias is the second witness (`cni.dataplane.Alias`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from cni.spec import Pod, Sandbox
from eni.model import Address, EniId
from ipamd.clock import Instant
from ipamd.lease import LeaseRow

REMEMBER_DEL_SECONDS = 600.0
"""How long the start of a DEL is remembered for ADDs that are older but arrive later: the
plugin's deadline is 110 s, kubelet's 240 s, so twice the longer and some."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
  id INTEGER PRIMARY KEY,
  network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
  pod_namespace TEXT NOT NULL, pod_name TEXT NOT NULL, pod_uid TEXT NOT NULL,
  eni_id TEXT NOT NULL, eni_number INTEGER NOT NULL,
  netns_dev INTEGER, netns_ino INTEGER,
  started_ns INTEGER NOT NULL, since REAL NOT NULL,
  UNIQUE (network, container_id, ifname)
) STRICT;
CREATE TABLE IF NOT EXISTS leased (
  address TEXT PRIMARY KEY,
  lease INTEGER NOT NULL REFERENCES leases(id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cooling (
  address TEXT PRIMARY KEY, eni_id TEXT NOT NULL, boot REAL NOT NULL, wall REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deletes (
  network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
  started_ns INTEGER NOT NULL, boot REAL NOT NULL,
  PRIMARY KEY (network, container_id, ifname)
) STRICT, WITHOUT ROWID;
"""

LEASE_COLUMNS = (
    "id, network, container_id, ifname, pod_namespace, pod_name, pod_uid, eni_id, eni_number,"
    " netns_dev, netns_ino, started_ns, since"
)
"""By name, in each statement: a later version's file may have more of them (docs/adr/0043)."""

SCHEMA_VERSION = 1
"""Raised with a change that an older daemon would misread; it then sets the file aside, and reads
leases from the kernel."""


class LeasesError(Exception):
    """The file cannot be read or written; the text says which and why."""

    id = "LEASES-UNREADABLE"

    def __init__(self, message: str, *, is_damaged: bool = False) -> None:
        super().__init__(message)
        self.is_damaged = is_damaged
        """Whether the file is not what we wrote; else there is no room, or no right to write."""


def _open_to_read(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)
        db.execute("SELECT 1 FROM leases LIMIT 1")
    except sqlite3.Error as error:
        raise LeasesError(f"{path} cannot be read: {error}") from error
    return db


class Leases:
    """The lease file. Used on the loop only."""

    def __init__(self, path: Path, *, read_only: bool = False, in_memory: bool = False) -> None:
        """Open or make *path*; *read_only* changes nothing, *in_memory* is for a life without it.

        Raises LeasesError if it is there and is not a sqlite database of ours, or cannot be
        made; the file is left as it is.
        """
        self.path, self._in_memory = path, in_memory
        self.trouble: str | None = None
        """Why the last write was refused, /run being full say; None if it was not."""
        self._owed: dict[Sandbox, Instant] = {}
        """Releases that could not be written, and since when they cool."""
        if read_only:
            self._db = _open_to_read(path)
            return
        if in_memory:
            self.trouble = f"{path} cannot be written: free /run, then restart ipamd"
        try:
            self._db = _open(":memory:" if in_memory else str(path))
        except sqlite3.Error as error:
            raise LeasesError(
                f"{path} cannot be used as the lease file: {error}",
                is_damaged=not isinstance(error, sqlite3.OperationalError),
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all of it or nothing. Raises LeasesError if the file takes nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            words = f"{self.path} cannot be written: {error}"
            if not isinstance(error, sqlite3.IntegrityError):  # taken: no fault of the file
                self.trouble = words
            raise LeasesError(words) from error
        else:
            self.trouble = self.trouble if self._in_memory else None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def insert(self, row: LeaseRow) -> None:
        """Write a new lease. Raises LeasesError, changing nothing, if any of it is taken."""
        for owed, since in tuple(self._owed.items()):
            self.release(owed, since)
        dev, ino = row.netns or (None, None)
        sandbox, pod = row.sandbox, row.pod
        values = (
            *(sandbox.network, sandbox.container_id, sandbox.ifname),
            *(pod.namespace, pod.name, pod.uid),
            *(row.eni_id, row.eni_number, dev, ino, row.started_ns, row.since),
        )
        try:
            with self._transaction():
                lease = self._db.execute(
                    "INSERT INTO leases (network, container_id, ifname, pod_namespace, pod_name,"
                    " pod_uid, eni_id, eni_number, netns_dev, netns_ino, started_ns, since)"
                    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                    values,
                ).lastrowid
                for address in row.addresses:
                    self._db.execute(
                        "INSERT INTO leased (address, lease) VALUES (?,?)", (str(address), lease)
                    )
                    self._db.execute("DELETE FROM cooling WHERE address = ?", (str(address),))
        except LeasesError as error:
            taken = ", ".join(map(str, row.addresses))
            raise LeasesError(f"no lease of {taken} for {sandbox}: {error}") from error

    def release(self, sandbox: Sandbox, now: Instant) -> None:
        """Turn *sandbox*'s lease into cooling addresses; nothing if there is none.

        On LeasesError it is done before the next `insert`, whose address this may be.
        """
        self._owed[sandbox] = now
        key = (sandbox.network, sandbox.container_id, sandbox.ifname)
        where = "network = ? AND container_id = ? AND ifname = ?"
        with self._transaction():
            self._db.execute(
                "INSERT INTO cooling (address, eni_id, boot, wall)"  # noqa: S608 - constant text
                " SELECT address, eni_id, ?, ? FROM leased"
                f" JOIN leases ON leases.id = lease WHERE {where}",
                (now.boot, now.wall, *key),
            )
            self._db.execute(f"DELETE FROM leases WHERE {where}", key)  # noqa: S608 - constant text
        del self._owed[sandbox]

    def retry(self) -> None:
        """Write what is owed, or something at least. Raises LeasesError if it is refused again."""
        for owed, since in tuple(self._owed.items()):
            self.release(owed, since)
        with self._transaction():
            # It writes a page, whatever it was.
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def clear(self) -> None:
        """Forget everything: it was another instance's."""
        with self._transaction():
            for table in ("leased", "leases", "cooling", "deletes"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - constant text

    def forget_cooling(self, addresses: tuple[Address, ...]) -> None:
        """Drop the cooling rows of *addresses*: they are free again, or EC2's."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM cooling WHERE address = ?", [(str(a),) for a in addresses]
            )

    def remember_delete(self, sandbox: Sandbox, started_ns: int, now: Instant) -> None:
        """Note a DEL's start, and drop those older than `REMEMBER_DEL_SECONDS`."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO deletes (network, container_id, ifname, started_ns, boot)"
                " VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET"
                " started_ns = max(started_ns, excluded.started_ns), boot = excluded.boot",
                (sandbox.network, sandbox.container_id, sandbox.ifname, started_ns, now.boot),
            )
            self._db.execute(
                "DELETE FROM deletes WHERE boot < ? OR boot > ?",
                (now.boot - REMEMBER_DEL_SECONDS, now.boot),
            )

    def rows(self) -> tuple[LeaseRow, ...]:
        """Return every lease."""
        addresses: dict[int, list[Address]] = {}
        for text, lease in self._db.execute("SELECT address, lease FROM leased"):
            addresses.setdefault(lease, []).append(ip_address(text))
        return tuple(
            LeaseRow(
                sandbox=Sandbox(network, container_id, ifname),
                pod=Pod(namespace, name, uid),
                addresses=tuple(sorted(addresses.get(key, ()), key=lambda a: a.version)),
                eni_id=EniId(eni_id),
                eni_number=number,
                netns=None if dev is None else (dev, ino),
                started_ns=started_ns,
                since=since,
            )
            for (
                key, network, container_id, ifname, namespace, name, uid,
                eni_id, number, dev, ino, started_ns, since,
            ) in self._db.execute(f"SELECT {LEASE_COLUMNS} FROM leases ORDER BY id")  # noqa: S608 - constant text
        )  # fmt: skip

    def cooling(self) -> tuple[tuple[Address, EniId, Instant], ...]:
        """Return every address that was released and not yet used again."""
        rows = self._db.execute("SELECT address, eni_id, boot, wall FROM cooling")
        return tuple((ip_address(a), EniId(e), Instant(boot, wall)) for a, e, boot, wall in rows)

    def deletes(self, now: Instant) -> dict[Sandbox, int]:
        """Return the starts of recent DELs of this boot."""
        rows = self._db.execute(
            "SELECT network, container_id, ifname, started_ns FROM deletes"
            " WHERE boot BETWEEN ? AND ?",
            (now.boot - REMEMBER_DEL_SECONDS, now.boot),
        )
        return {Sandbox(n, c, i): started_ns for n, c, i, started_ns in rows}


def _open(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, isolation_level=None, timeout=1.0)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"version {version} is of a later enid than this")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA foreign_keys=ON")
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
    except sqlite3.Error:
        db.close()
        raise
    return db
