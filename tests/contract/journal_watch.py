"""What of the journal was walked: which writes in our code were made, and from what to what."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import ipamd
from eni.model import Block, EniId
from ipamd.eni_book import EniBook
from ipamd.intents import Held, Intent, is_detached
from ipamd.journal import Journal

FOLDER = Path(ipamd.__file__).parent

WRITES = ("put", "forget", "hold", "begin_release", "drop")
"""The methods of a journal that write of ENIs and blocks; a book has some of the same names."""

HELPERS = ("_forget", "_drop")
"""What a module of the book's may call them for itself."""

NOTHING, GONE = "-", "gone"


# In our code -----------------------------------------------------------------------------
@dataclass(frozen=True, order=True)
class Site:
    """A call that ends in a write, from its first line to its last."""

    module: str
    first: int
    last: int
    words: str

    def __str__(self) -> str:
        return f"ipamd/{self.module}.py:{self.first}: {self.words}"


def sites() -> Iterator[Site]:
    """Yield every call in our code that has the journal write of ENIs or blocks."""
    for path in sorted(FOLDER.glob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and _writes(node, is_books="EniBook" in text):
                assert node.end_lineno is not None
                yield Site(path.stem, node.lineno, node.end_lineno, ast.unparse(node)[:60])


def _writes(call: ast.Call, *, is_books: bool) -> bool:
    if any(_is_journals(argument) for argument in call.args):
        return True
    match call.func:
        case ast.Attribute(ast.Name("self"), name):
            return is_books and name in {*WRITES, *HELPERS}
        case ast.Attribute(ast.Name("book") | ast.Attribute(_, "book"), name):
            return name in WRITES
        case function:
            return _is_journals(function)


def _is_journals(node: ast.expr) -> bool:
    """Whether it is a write of the journal's."""
    match node:
        case ast.Attribute(ast.Name("journal") | ast.Attribute(_, "journal"), name):
            return name in WRITES
    return False


# In a life -------------------------------------------------------------------------------
@dataclass
class Watched:
    """What was seen: the lines of our code that led to a write, and each change."""

    lines: set[tuple[str, int]] = field(default_factory=set)
    changes: list[str] = field(default_factory=list)
    _enis: dict[str, str] = field(default_factory=dict)
    _blocks: dict[Block, tuple[str, EniId]] = field(default_factory=dict)

    def has(self, site: Site) -> bool:
        """Whether it was walked."""
        return any(m == site.module and site.first <= n <= site.last for m, n in self.lines)

    def look(self, frame: FrameType | None) -> None:
        """Note who is about to write: whoever awaits is on the stack, too."""
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.parent == FOLDER:
                self.lines.add((path.stem, frame.f_lineno))
            frame = frame.f_back

    def _note(self, what: str, before: str, after: str) -> None:
        change = f"{what}: {before} > {after}"
        if change not in self.changes:
            self.changes.append(change)

    # The journal's methods, by their names
    def put(self, intent: Intent, _at: float) -> None:
        """See where an ENI is now."""
        state = "detached" if is_detached(intent) else intent.state.value
        self._note("eni", self._enis.get(intent.token, NOTHING), state)
        self._enis[intent.token] = state

    def forget(self, intent: Intent) -> None:
        """See an ENI go, with its blocks."""
        self._note("eni", self._enis.pop(intent.token, NOTHING), GONE)
        mine = [block for block, (_, holder) in self._blocks.items() if holder == intent.eni_id]
        self.drop([(block, EniId("")) for block in mine], 0.0)

    def hold(self, eni_id: EniId, blocks: tuple[Block, ...], _at: float) -> None:
        """See blocks become ours."""
        for block in blocks:
            before, _ = self._blocks.get(block, (NOTHING, eni_id))
            self._note("block", before, Held.HELD.value)
            self._blocks[block] = Held.HELD.value, eni_id

    def begin_release(self, blocks: tuple[Block, ...], _at: float) -> None:
        """See blocks asked back."""
        for block in blocks:
            before, holder = self._blocks[block]
            self._note("block", before, Held.RELEASING.value)
            self._blocks[block] = Held.RELEASING.value, holder

    def drop(self, blocks: list[tuple[Block, EniId]], _at: float) -> None:
        """See blocks go."""
        for block, _ in blocks:
            if block in self._blocks:
                self._note("block", self._blocks.pop(block)[0], GONE)


@contextmanager
def watching() -> Iterator[Watched]:
    """Watch every journal of this process."""
    watched = Watched()
    with pytest.MonkeyPatch.context() as patch:
        _watch_book(watched, patch)
        for name in WRITES:
            _watch_journal(watched, patch, name)
        yield watched


def _watch_book(watched: Watched, patch: pytest.MonkeyPatch) -> None:
    former = EniBook.write

    async def write(self: EniBook, work: Callable[..., Any], *arguments: Any) -> Any:
        if getattr(work, "__name__", "") in WRITES:
            watched.look(sys._getframe(1))  # noqa: SLF001 - who awaits is what is asked
        return await former(self, work, *arguments)

    patch.setattr(EniBook, "write", write)


def _watch_journal(watched: Watched, patch: pytest.MonkeyPatch, name: str) -> None:
    former = getattr(Journal, name)

    def write(self: Journal, *arguments: Any) -> Any:
        watched.look(sys._getframe(1))  # noqa: SLF001 - as above
        answer = former(self, *arguments)
        getattr(watched, name)(*arguments)
        return answer

    write.__name__ = name
    patch.setattr(Journal, name, write)
