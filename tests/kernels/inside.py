#!/usr/bin/python3
"""The first process of a guest: it mounts, runs the checks in a box, tells, and turns off. Shell.

It is the guest's /init, so it imports nothing but the standard library. What it and
tests/kernels/report.py tell goes to the console, a JSON object a line behind a mark.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MARK = "enid-guest "
"""Begins a line that is meant for the host; all else on the console is for its log."""

MOUNTS = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),  # noqa: S108 - the guest's
)
POWER_OFF = 0x4321FEDC
"""LINUX_REBOOT_CMD_POWER_OFF."""

PATIENCE = "20"
"""How much longer tests wait than where nothing is emulated (vpclab/patience.py)."""

PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Be a guest from its first process to its end."""
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", LANG="C.UTF-8")
    os.environ["ENID_PATIENCE"] = PATIENCE
    os.environ["ENID_STARTS"] = " ".join(plugins())
    for kind, point in MOUNTS:
        Path(point).mkdir(parents=True, exist_ok=True)
        if _libc.mount(kind.encode(), point.encode(), kind.encode(), 0, None):
            print(f"{point} cannot be mounted: {os.strerror(ctypes.get_errno())}")
    tell(
        kernel=os.uname().release,
        python=".".join(map(str, sys.version_info[:3])),
        nft=version("nft", "--version"),
        ip=version("ip", "-V"),
        up_seconds=round(time.monotonic(), 1),
    )
    tell(ended=run(wishes()), log=kernel_log(), seconds=round(time.monotonic(), 1))
    os.sync()
    _libc.reboot(POWER_OFF)


def wishes() -> list[str]:
    """Return pytest's arguments, which came on the kernel's command line."""
    words = Path("/proc/cmdline").read_text().split()
    return [word.partition("=")[2] for word in words if word.startswith("enid.run=")]


def plugins() -> list[str]:
    """Return the plugin's static files for this processor (tests/lab/starts.py)."""
    built = Path("/enid/build").glob(f"enid-cni*-{PROCESSORS[os.uname().machine]}")
    return sorted(file.name for file in built)


def run(tests: list[str]) -> int:
    """Run pytest in a box; return its exit status."""
    words = [
        sys.executable, "-m", "vpclab.box", sys.executable, "-m", "pytest", "-q",
        "-p", "tests.kernels.report", "-p", "no:cacheprovider", "-p", "no:hypothesispytest",
        "-o", "faulthandler_timeout=900", *tests,
    ]  # fmt: skip
    return subprocess.run(words, cwd="/enid", check=False).returncode


def tell(**what: Any) -> None:
    """Tell the host."""
    with Path("/dev/console").open("w") as console:
        console.write(f"\n{MARK}{json.dumps(what)}\n")


def version(*words: str) -> str:
    """Return the version that a program says it has."""
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d[\d.]*", said)
    return found[0] if found else said


def kernel_log() -> list[str]:
    """Return what the kernel has complained of: errors, warnings with a trace, bugs."""
    said = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            head, _, text = os.read(descriptor, 8192).decode(errors="replace").partition(";")
            # 3 is KERN_ERR
            if int(head.split(",")[0]) & 7 <= 3 or "Call Trace" in text:
                said.append(text.splitlines()[0])
    except BlockingIOError:
        return said
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
