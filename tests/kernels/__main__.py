"""`make kernels`: Debian's own kernels, booted here, and what our tests say in them. Shell.

    python -m tests.kernels [--only 6.1] [--check flows]... [--at-once 2] [--write] [--refresh]

The table goes to stdout, all that is known to build/kernels.json, each guest's console to
.cache/kernels/log. With --write the table goes into docs/support.md, with what is known of those
kernels and checks that were not asked for. Both are written whenever a guest has ended.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from tests.kernels import root
from tests.kernels.debian import PackageError
from tests.kernels.machine import Guest, GuestError
from tests.kernels.results import Results
from tests.kernels.rows import CHECKS, TARGETS, Check, Row, Target, plain, table
from tests.tools.pure import ROOT

SUPPORT = ROOT / "docs" / "support.md"
RESULTS = ROOT / "build" / "kernels.json"
GUEST_SECONDS = 3600
"""A guest that takes longer hangs."""

NICE = 15
"""Emulation takes all processors for a quarter of an hour."""

SAID_SECONDS = 10.0
"""How often a guest that is well says how far it is."""


ONE_AT_A_TIME = Lock()
"""Guests of one release are made of the same files."""


def main() -> int:
    """Boot what was asked for; return 1 if anything failed or could not be had."""
    wishes = _parser().parse_args()
    os.nice(NICE)
    targets = [target for target in TARGETS if wishes.only in target.name]
    checks = [check for check in CHECKS if not wishes.check or check.name in wishes.check]
    if not targets or not checks:
        names = [thing.name for thing in (*TARGETS, *CHECKS)]
        _say(f"there is no such kernel or check: {', '.join(names)}")
        return 2
    if wishes.refresh:
        for folder in root.CACHE.glob("apt-*"):
            shutil.rmtree(folder)
    (root.CACHE / "log").mkdir(parents=True, exist_ok=True)
    results = Results(RESULTS, SUPPORT if wishes.write else None)
    with ThreadPoolExecutor(wishes.at_once) as pool:
        rows = list(pool.map(lambda target: results.keep(boot(target, checks), checks), targets))
    print("\n".join(plain(table(rows, checks))), flush=True)
    return 0 if all(row.is_well(checks) for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("--only", default="", help="kernels whose name has this in it (6.1-arm64)")
    parser.add_argument("--check", action="append", help="one check; more than once for more")
    parser.add_argument("--at-once", type=int, default=1, help="so many guests together")
    parser.add_argument("--write", action="store_true", help="write the table into docs/support.md")
    parser.add_argument("--refresh", action="store_true", help="look for newer packages")
    return parser


def boot(target: Target, checks: Sequence[Check]) -> Row:
    """Return what one kernel came to."""
    row = Row(target)
    began = time.monotonic()
    try:
        _say(f"{target.name}: fetching what is not here yet")
        with ONE_AT_A_TIME:
            guest = prepare(target)
        began = time.monotonic()
        _say(f"{target.name}: booting {guest.image.name}")
        _follow(row, guest, [test for check in checks for test in check.tests])
    except (PackageError, GuestError) as error:
        row.trouble = str(error)
        _say(f"{target.name}: {error}")
    row.seconds = time.monotonic() - began
    _say(f"{target.name}: {row.result(checks)} after {row.seconds:.0f} s")
    return row


def prepare(target: Target) -> Guest:
    """Return the guest of *target*, with everything that it needs fetched and packed."""
    kernel = root.kernel(root.release(target.kernel_of, target.processor))
    programs = root.userland(root.release(target.programs_of, target.processor))
    code = root.code(target.programs_of, target.name)
    log = root.CACHE / "log" / f"{target.name}.log"
    return Guest(target.processor, kernel.image, (programs.archive, kernel.modules, code), log)


def _follow(row: Row, guest: Guest, tests: Sequence[str]) -> None:
    said = time.monotonic()
    for told in guest.run(tests, GUEST_SECONDS):
        row.told(told)
        if told.get("outcome") == "failed":
            _say(f"{row.target.name}: FAILED {told['test']}\n{told['text']}")
        if time.monotonic() - said > SAID_SECONDS:
            said = time.monotonic()
            _say(f"{row.target.name}: {len(row.tests)} tests, {told.get('test', '')}")
    for line in row.log:
        _say(f"{row.target.name}: the kernel says: {line}")


def _say(what: str) -> None:
    print(f"enid: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
