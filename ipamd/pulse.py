"""The daemon's sign of life, written while its loop turns. Shell.

STATUS is a promise about the node, not about the next address: a runtime turns a failing
one into NotReady, and Services drop the node's pods. So it fails only while no address has
ever been usable since boot, and when this file falls silent; in `cni.plugin`, without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from cni.heartbeat import Heartbeat, was_usable
from cni.spec import Code
from ipamd.clock import Instant

log = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
"""Between two signs of life; the shortest grace is three of them."""

EAGER_SECONDS = 0.2
"""The same, until the first address is usable: a node waits for that to become Ready."""

NOT_YET = "no address has been usable on this node since it was booted"


class Pulse:
    """The heartbeat file at *path*, of the boot *boot_id*.

    *has_addresses* says whether the pool has one that a pod has or could have. *exhaustion*
    says why STATUS should fail all the same; "" if it should not.
    """

    def __init__(self, path: Path, boot_id: str, clock: Callable[[], Instant]) -> None:
        self._path, self._boot_id, self._clock = path, boot_id, clock
        self._usable = self._was_usable()
        self.has_addresses: Callable[[], bool] = lambda: False
        self.exhaustion: Callable[[], str] = str

    def _was_usable(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return was_usable(self._path.read_bytes(), self._boot_id)
        return False

    async def run(self, grace_seconds: Callable[[], int]) -> None:
        """Beat until cancelled."""
        while True:
            self.beat(grace_seconds())
            await asyncio.sleep(BEAT_SECONDS if self._usable else EAGER_SECONDS)

    def beat(self, grace_seconds: int) -> None:
        """Write the file once. A full /run is logged: STATUS falls silent, as it should."""
        self._usable = self._usable or self.has_addresses()
        sentence = self.exhaustion() if self._usable else NOT_YET
        heartbeat = Heartbeat(
            written_ns=int(self._clock().boot * 1e9),
            grace_seconds=grace_seconds,
            code=Code.PLUGIN_NOT_AVAILABLE if sentence else 0,
            sentence=sentence,
            usable=self._usable,
            boot_id=self._boot_id,
        )
        draft = self._path.with_name(f".{self._path.name}")
        try:
            draft.write_bytes(heartbeat.encode())
            draft.replace(self._path)
        except OSError as error:
            log.error("heartbeat not written", extra={"reason": str(error)})  # noqa: TRY400 - the sentence says it all
