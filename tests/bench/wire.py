"""How fast enid's wire is, beside others: one table, and exit status 1 if a gate is not met.

    python -m vpclab.box python -m tests.bench.wire [--quick] [--only PART...] [-o json]

Every comparison is interleaved in one run: what is compared takes turns, in random order. The rows
are in build/bench.json, too; the ratio is theirs by ours. A gate of times is of 50 values at least,
one of packets of 30 rounds: of fewer, which only a quick run may have, none is called met.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tests.bench import density, packets, processes, sandboxes
from tests.bench.comparison import show
from tests.bench.report import Report, machine
from tests.bench.stand import ROOT, Stand
from vpclab.box import in_box
from vpclab.vpc import EmbeddedVPC

INSTANCE_TYPE = "m5.24xlarge"
"""15 ENIs of 50 addresses: with prefixes, 737 pods at most."""

FREE = 900
"""As many addresses as are asked for in advance: those of bursts cool for 30 s."""


@contextmanager
def _vpc() -> Iterator[tuple[EmbeddedVPC, str, Path]]:
    """Give a VPC, a subnet and a folder for logs."""
    with EmbeddedVPC() as vpc, tempfile.TemporaryDirectory() as folder:
        yield vpc, vpc.add_subnet("10.0.0.0/18", "us-east-1a"), Path(folder)


@contextmanager
def _stand(vpc: EmbeddedVPC, name: str, subnet: str, folder: Path) -> Iterator[Stand]:
    """Give a node whose daemon runs and has addresses for all that comes."""
    stand = Stand(
        vpc, name, INSTANCE_TYPE, subnet, folder / name,
        ENABLE_PREFIX_DELEGATION="true", MINIMUM_IP_TARGET=str(FREE), WARM_IP_TARGET="16",
    )  # fmt: skip
    with stand:
        stand.start()
        stand.has_free(FREE)
        yield stand


def _processes(report: Report) -> None:
    with _vpc() as where, _stand(where[0], "node", *where[1:]) as stand:
        processes.measure(report, stand)


def _density(report: Report) -> None:
    with (
        _vpc() as where,
        _stand(where[0], "full", *where[1:]) as full,
        _stand(where[0], "empty", *where[1:]) as empty,
    ):
        density.measure(report, full, empty)


PARTS: Mapping[str, Callable[[Report], None]] = {
    "processes": _processes,
    "density": _density,
    "packets": packets.measure,
    "sandboxes": sandboxes.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description="How fast the wire is.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=", ".join(PARTS))  # fmt: skip
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    wish = parser.parse_args()
    if not in_box():
        sys.exit("enid: the bench runs in a box: use `make bench`")
    errors, began = Console(stderr=True, highlight=False), time.monotonic()

    def tell(what: str) -> None:
        errors.print(f"  {time.monotonic() - began:5.1f} s  {what}", markup=False)

    report = Report(ROOT / "build" / "bench.json", tell, is_quick=wish.quick)
    for part in wish.only:
        PARTS[part](report)
    if wish.output == "json":
        print(json.dumps(report.data, indent=1))
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
        show(report.rows, console)
        on = machine()
        print(f"on {on['cores']} cores ({on['cpu']}), Linux {on['kernel']}, with a load of"
              f" {os.getloadavg()[0]:.1f}; the rows are in build/bench.json")  # fmt: skip
    sys.exit(not report.is_good)


if __name__ == "__main__":
    main()
