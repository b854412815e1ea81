"""Archives that a kernel unpacks as its first root: cpio's "newc". Shell (reads files).

Several of them one behind the other are one root: what a release, a kernel and this checkout
give is kept apart, and made anew only where it has changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

END = "TRAILER!!!"


def pack(tree: Path, to: Path) -> None:
    """Write everything below *tree* to the archive *to*, all of it root's."""
    draft = to.with_name(f"{to.name}.draft")
    with draft.open("wb") as out:
        for number, (path, name) in enumerate(_entries(tree), 1):
            _write(out, name, number, path.lstat(), _content(path))
        _write(out, END, 0, None, b"")
    draft.replace(to)


def _entries(tree: Path) -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(tree):
        folders.sort()
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        if here != tree:
            yield here, str(here.relative_to(tree))
        for name in sorted([*files, *links]):
            path = here / name
            yield path, str(path.relative_to(tree))


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


def _write(
    out: IO[bytes], name: str, number: int, status: os.stat_result | None, content: bytes
) -> None:
    mode = status.st_mode if status else 0
    seconds = int(status.st_mtime) if status else 0
    links = 2 if stat.S_ISDIR(mode) else 1
    spelled = os.fsencode(name) + b"\0"
    # inode, mode, uid, gid, links, mtime, size, devices of file and node, length of name, check
    fields = (
        number, mode, 0, 0, links, seconds, len(content), 0, 0, 0, 0, len(spelled), 0,
    )  # fmt: skip
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + spelled
    out.write(head + bytes(-len(head) % 4))
    out.write(content + bytes(-len(content) % 4))
