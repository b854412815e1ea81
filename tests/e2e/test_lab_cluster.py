"""`enid lab cluster`: up by one command, reached by kubectl from outside, gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.test_box import environment, left_after, namespaces
from vpclab import box
from vpclab.cluster.parts import kubectl, missing
from vpclab.cluster.worker import KERNEL
from vpclab.running import RunningLab

ENID = (sys.executable, "-c", "from ipamd.cli import main; main()", "lab")
CGROUPS = Path("/sys/fs/cgroup")


def traces() -> dict[str, Any]:
    """What a cluster could leave: cgroups, mounts, and what it sets of the kernel."""
    return {
        "cgroups": sorted(str(path) for path in CGROUPS.glob("**/enid-lab-*")),
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "kernel": {name: Path("/proc/sys", name).read_text() for name in KERNEL},
    }


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a person with a home of labs of their own."""
    if missing() or not box.in_box():
        pytest.skip("NOT TESTED on a cluster: run `make e2e`")
    home = tmp_path / "labs"
    home.mkdir(0o700)
    yield {**environment(), "ENID_LAB_HOME": str(home)}
    for lab in home.glob("*/control"):
        RunningLab(lab.parent.name, home).stop()


def enid(env: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [*ENID, *words], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_up_by_one_command_and_leaves_nothing(env: dict[str, str]) -> None:
    before, here = namespaces(), traces()
    enid(env, "cluster")
    kubeconfig = enid(env, "kubeconfig").strip()
    program = kubectl()
    if program is not None:
        nodes = subprocess.run(
            [program, "--kubeconfig", kubeconfig, "get", "nodes", "-o", "json"],
            capture_output=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        found = {one["metadata"]["name"]: one["spec"] for one in json.loads(nodes)["items"]}
        assert set(found) == {"node-a", "node-b"}
        assert all(one["providerID"].startswith("aws:///us-east-1") for one in found.values())
    enid(env, "down")
    assert left_after(before) == {}
    assert traces() == here


def test_one_that_is_killed_is_swept_when_it_is_asked_for(env: dict[str, str]) -> None:
    before, here = namespaces(), traces()
    enid(env, "cluster")
    lab = RunningLab("lab", Path(env["ENID_LAB_HOME"]))
    assert lab.pid is not None
    os.kill(lab.pid, signal.SIGKILL)
    assert left_after(before) == {}
    with pytest.raises(AssertionError, match="no lab 'lab' is running"):
        enid(env, "down")
    assert traces() == here
