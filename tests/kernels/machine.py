"""One guest: an emulated machine that boots a kernel, runs tests and is heard. Shell (qemu).

No acceleration, so that it runs wherever a process runs, and takes the same way everywhere.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernels.inside import MARK

EMULATORS: Mapping[str, Sequence[str]] = {
    # la57 would make every page walk a level longer; the rest of "max" is what instructions cost.
    "amd64": ("qemu-system-x86_64", "-machine", "q35", "-cpu", "max,la57=off"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72"),
}
CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
MEMORY = "2048"


class GuestError(Exception):
    """The guest did not come to its end: what it said last."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What is booted."""

    processor: str
    image: Path
    archives: tuple[Path, ...]
    log: Path

    def command(self, tests: Sequence[str], root: Path) -> list[str]:
        """Return how the emulator is started."""
        words = [f"console={CONSOLES[self.processor]}", "quiet", "loglevel=1", "panic=-1",
                 "mitigations=off", "audit=0", *(f"enid.run={test}" for test in tests)]  # fmt: skip
        return [
            "setpriv", "--pdeathsig", "KILL", *EMULATORS[self.processor],
            "-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY,
            "-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot",
            "-kernel", str(self.image), "-initrd", str(root), "-append", " ".join(words),
        ]  # fmt: skip

    def run(self, tests: Sequence[str], seconds: float) -> Iterator[dict[str, Any]]:
        """Yield what the guest tells, until it has ended. Raises GuestError if it does not."""
        root = self.log.with_suffix(".initrd")
        with root.open("wb") as out:
            for archive in self.archives:
                out.write(archive.read_bytes())
        process = subprocess.Popen(
            self.command(tests, root), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield from self._told(process, time.monotonic() + seconds)
        finally:
            process.kill()
            process.wait()
            root.unlink(missing_ok=True)

    def _told(self, process: subprocess.Popen[bytes], until: float) -> Iterator[dict[str, Any]]:
        last, ended = "nothing", False
        with self.log.open("w") as log:
            for line in _lines(process, until):
                log.write(line + "\n")
                log.flush()
                if line.startswith(MARK):
                    told = json.loads(line.removeprefix(MARK))
                    ended = ended or "ended" in told
                    yield told
                elif line.strip():
                    last = line.strip()
        if not ended:
            what = "took too long" if time.monotonic() >= until else "ended early"
            raise GuestError(f"{what}; it said last: {last[:200]}")


def _lines(process: subprocess.Popen[bytes], until: float) -> Iterator[str]:
    """Yield the lines of the console until it ends, or time is up."""
    assert process.stdout is not None
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < until:
            if not selector.select(1.0):
                continue
            said = process.stdout.read1(65536)  # type: ignore[attr-defined]  # a BufferedReader
            if not said:
                break
            *lines, held = (held + said).split(b"\n")
            yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    yield held.decode(errors="replace")
