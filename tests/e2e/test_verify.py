"""`enid verify` as operators run it: a process, a report, and nothing left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.sabotage import SABOTAGES, spoiled
from tests.e2e.told import OUTCOMES
from vpclab.checks.ground import Ground
from vpclab.checks.guard import GUEST
from vpclab.checks.local import NODE_LOCAL_DNS, POD_IDENTITY
from vpclab.checks.outcome import Outcome, State
from vpclab.cluster.whole import Cluster

ENID = (sys.executable, "-c", "from ipamd.cli import main; main()", "verify")
QUICK_SECONDS = 400
"""On a machine that is busy with other clusters; some two minutes where it is not."""


def command(cluster: Cluster, *words: str) -> list[str]:
    return [*ENID, f"--kubeconfig={cluster.kubeconfig}", *words]


def left(cluster: Cluster, ground: Ground) -> list[str]:
    """What verify could leave: namespaces, and addresses on nodes."""
    spaces = [one["metadata"]["name"] for one in cluster.api.listed("/api/v1/namespaces")]
    found = [s for s in spaces if s.startswith("enid-verify-") and s != ground.namespace]
    for worker in cluster.workers:
        held = worker.node.run(["ip", "-4", "-o", "addr", "show", "dev", "lo"]).stdout
        found += [f"{a} on {worker.name}" for a in (NODE_LOCAL_DNS, POD_IDENTITY) if a in held]
    return found


def test_a_quick_round_proves_more_than_thirty_facts_and_leaves_nothing(
    cluster: Cluster, ground: Ground, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    ground.empty()
    report = tmp_path / "verify.xml"
    done = subprocess.run(
        command(cluster, "--quick", "--report=junit", f"--output={report}"),
        capture_output=True, text=True, check=False, timeout=QUICK_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ET.parse(report).getroot()  # noqa: S314 - ours
    passed = [case for case in suite.iter("testcase") if case.find("system-out") is not None]
    assert len(passed) >= 30, done.stdout
    assert suite.get("failures") == "0"
    assert left(cluster, ground) == []
    told = done.stdout.splitlines()[-1]
    proves = "`enid verify --quick` as a process: a report for CI, and nothing left"
    seconds = float(suite.get("time", "0"))
    pytestconfig.stash[OUTCOMES].append(Outcome("enid-verify", proves, State.OK, told, seconds))


def test_what_is_wrong_is_exit_status_1(cluster: Cluster, ground: Ground) -> None:
    (sabotage,) = (one for one in SABOTAGES if one.name == "no-datagrams-of-pods")
    with spoiled(cluster, sabotage, ground.pod(GUEST)["status"]["podIP"]):
        done = subprocess.run(
            command(cluster, "udp-across-nodes", "host-network"),
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 ok, 1 FAILED" in done.stdout.splitlines()[-1]
    assert left(cluster, ground) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_one_that_is_interrupted(
    cluster: Cluster, ground: Ground, number: signal.Signals
) -> None:
    # A shell's job in the background ignores SIGINT, and so would all that it starts.
    words = ["env", "--default-signal=INT", *command(cluster, "--quick")]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "conflist-is-first" in line:
                break
        process.send_signal(number)
        rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130, rest
    assert left(cluster, ground) == []


def test_an_image_that_cannot_be_had_is_exit_status_2(cluster: Cluster, ground: Ground) -> None:
    done = subprocess.run(
        command(cluster, "--image=registry.invalid/none:1", "dns"),
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "[VERIFY-IMAGE]" in done.stderr
    assert left(cluster, ground) == []
