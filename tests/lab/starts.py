"""The ways to start the plugin: its source, and each file that `tools/build-plugin` makes of it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "cni" / "plugin.py"
NOT_BUILT = "the static plugin is not built: make plugin"
"""Said of all of its files where there is none, so that pytest makes one line of it."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Start:
    """One way; *file* is the plugin, the rest of *argv* what this machine needs to run it."""

    name: str
    file: Path
    before: tuple[str, ...] = ()
    lacks: str = ""

    @property
    def argv(self) -> list[str]:
        return [*self.before, str(self.file)]

    @property
    def is_emulated(self) -> bool:
        return bool(self.before) and self.file != SOURCE


def of_file(name: str, arch: str) -> Start:
    file = ROOT / "build" / name
    if not file.exists():
        is_alone = any(file.parent.glob("enid-cni*-a*64"))
        lacks = f"build/{name} is not built: make plugin" if is_alone else NOT_BUILT
        return Start(name, file, lacks=lacks)
    if not is_of_this_source(file, file.with_name(name.removesuffix(f"-{arch}") + ".from")):
        return Start(name, file, lacks=f"build/{name} is of another source: make plugin")
    if MACHINES[arch] == platform.machine():
        return Start(name, file)
    emulator = emulator_of(MACHINES[arch])
    lacks = "" if emulator else f"no qemu-{MACHINES[arch]} to run build/{name}: make plugin"
    return Start(name, file, (str(emulator),), lacks)


def is_of_this_source(file: Path, record: Path) -> bool:
    """Whether the build that is on record made *file*, of the sources as they are."""
    lines = [line.split() for line in record.read_text().splitlines()]
    noted = [(ROOT / line[2], line[1]) for line in lines if line[0] == "source:"]
    made = [(file, line[0]) for line in lines if line[1:] == [file.name]]
    return bool(noted and made) and all(
        hashlib.sha256(path.read_bytes()).hexdigest() == known
        for path, known in noted + made
        if path.exists()
    )


def emulator_of(machine: str) -> Path | None:
    """Return qemu's user emulator, the build's own before the machine's."""
    built = sorted((ROOT / ".cache" / "plugin").glob(f"*/qemu/usr/bin/qemu-{machine}"))
    found = [shutil.which(f"qemu-{machine}-static"), shutil.which(f"qemu-{machine}")]
    return next((Path(path).resolve() for path in (*built, *found) if path), None)


FILES = [of_file(f"enid-cni{init}-{arch}", arch) for arch in MACHINES for init in ("", "-core")]
STARTS = [Start("source", SOURCE, (sys.executable, "-I", "-S")), *FILES]
WANTED = os.environ.get("ENID_STARTS", "").split()
"""Names that must not be skipped: what was just built must be there."""


def starts_of(item: object) -> list[Start]:
    """Return the ways that one of pytest's items starts the plugin in."""
    call: Any = getattr(item, "callspec", None)
    return [value for value in call.params.values() if isinstance(value, Start)] if call else []
