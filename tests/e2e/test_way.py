"""`docs/how-a-pod-gets-its-address.md` shows what a cluster prints (`make e2e`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.told import PODS
from tests.tools.way import BLOCK, LOOKS
from vpclab import box
from vpclab.cluster.parts import missing

PROGRAMS = ("conntrack", "sqlite3", "tcpdump")
"""Debian's packages have their names; `make e2e` installs them."""

TOLD = ("waits", "full")
"""What an operator sees of a pod that waits: it is for the summary, too."""


def test_the_page_is_what_a_cluster_prints_now(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    if missing() or not box.in_box():
        pytest.skip("NOT TESTED on a cluster: run `make e2e`")
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        pytest.skip(f"NOT TESTED: this machine lacks {' and '.join(lacking)}")
    page = tmp_path / "page.md"
    # A process of its own: it makes a cluster of its own, and a process has one VPC at a time.
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.way", "--check", "--page", page],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (
        "another cluster prints something else than the page shows; if that is right,"
        f" write it anew: python -m vpclab.box python -m tests.e2e.way\n{done.stdout}{done.stderr}"
    )
    assert f"{len(LOOKS)} looks taken" in done.stderr
    for found in BLOCK.finditer(page.read_text()):
        if found["name"] in TOLD:
            pytestconfig.stash[PODS] += f"\n$ {found['command']}\n{found['output']}"
