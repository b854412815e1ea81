"""Whose conflist the runtime reads for new pods, looked for while the daemon runs. Shell.

The init container says it when enid comes to a node; another CNI may come later, and then new pods
are wired by it and nobody fails. Where the folder is not mounted nothing is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ipamd.installation import CONF_FOLDER, CONFLIST, before_ours

log = logging.getLogger(__name__)

FOLDER: Final = Path("/host", CONF_FOLDER)
"""Where the chart mounts the runtime's folder, read-only."""

LOOK_SECONDS: Final = 5.0
"""Between looks: a listing of a few names."""


def before_us(folder: Path) -> str:
    """Return a sentence about the files that a runtime reads instead of ours, "" without any."""
    try:
        names = before_ours(path.name for path in folder.iterdir())
    except OSError:
        return ""
    files = ", ".join(f"/{CONF_FOLDER}/{name}" for name in names)
    if not files:
        return ""
    return (
        f"{files} sorts before {CONFLIST}: the runtime takes the first by name, so that new pods of"
        " this node get no address of the VPC; those that run keep theirs"
    )


async def watch(folder: Path, tell: Callable[[str], None]) -> None:
    """Look again and again until cancelled; *tell* hears each time, the log what is new."""
    former = ""
    while True:
        words = before_us(folder)
        if words and words != former:
            log.warning("another CNI's conflist comes first", extra={"reason": words})
        if former and not words:
            log.info("our conflist comes first again")
        former = words
        tell(words)
        await asyncio.sleep(LOOK_SECONDS)
