"""What each release left behind: its frames, its files, its node; read from tests/fixtures. Shell (files).

A folder for each version, written by `python -m tests.tools.record_release`:

    frames.jsonl   what the plugin was asked, sent and heard, in the order of one node's life
    journal.sql    the journal; leases.sql: the lease file
    on-the-way.jsonl
                   rows that the journal has while ENIs and blocks come and go
    kernel.sh      the node's network, as commands that make it again
    spool.json     a DEL that came while the daemon was away; heartbeat: what answers STATUS

Ids, times and inodes are the same in each, so that two of them can be compared.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "releases"

WALL, BOOT, BOOT_NS = 1764000000.0, 1000.0, 1000000000000
"""The moment of everything that is recorded, on both clocks."""

HOW = "python -m vpclab.box python -m tests.tools.record_release"
ON_THE_WAY = "on-the-way.jsonl"

DIGESTS = re.compile(r'(\["ip6?", "\w+", )\d+')
"""Of rules as the kernel has them: another nft writes the same otherwise."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call of the plugin. *sends* is the frame, empty where the plugin answers alone.

    *pod* is whose namespace went with it, if it *brings* one; *before* was done in there first.
    *waits*: it is answered after the next one is sent.
    """

    what: str
    pod: str
    brings: str
    before: str
    waits: bool
    sends: str
    exits: int
    prints: str

    @property
    def answer(self) -> dict[str, Any]:
        """What was printed; nothing is an empty object."""
        found: dict[str, Any] = json.loads(self.prints or "{}")
        return found


@dataclass(frozen=True, slots=True)
class Release:
    """One version's folder."""

    folder: Path

    @property
    def version(self) -> str:
        """Its name."""
        return self.folder.name

    def text(self, name: str) -> str:
        """Return one of its files."""
        return (self.folder / name).read_text()

    def exchanges(self) -> list[Exchange]:
        """Return what its plugin was asked."""
        return [Exchange(**json.loads(line)) for line in self.text("frames.jsonl").splitlines()]

    @property
    def spooled(self) -> str:
        """The frame of a DEL that waits for a daemon."""
        return str(json.loads(self.text("spool.json")))

    def frames(self) -> Iterator[Exchange]:
        """Yield those that the daemon was sent."""
        return (one for one in self.exchanges() if one.sends)

    def database(self, name: str, path: Path | str = ":memory:") -> sqlite3.Connection:
        """Make *path* the file that `<name>.sql` tells of."""
        db = sqlite3.connect(path)
        db.executescript(self.text(f"{name}.sql"))
        return db


def releases() -> list[Release]:
    """Return all, the oldest name first."""
    return [Release(folder) for folder in sorted(FIXTURES.iterdir()) if folder.is_dir()]


def ids(release: Release) -> str:
    """Return how a test calls one."""
    return release.version


def comparable(text: str) -> str:
    """Return a file of a release without what another nft would have another way."""
    return DIGESTS.sub(r"\g<1>0", text)
