"""What these tests share: a real API server (`make kube`), a whole cluster (`make e2e`)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.apiserver import ApiServer, programs
from tests.e2e.lab import keeping_logs, lab_cluster
from tests.e2e.told import OUTCOMES, PODS, TABLES, UP
from vpclab import box
from vpclab.checks.ground import Ground, furnished
from vpclab.checks.records import Records
from vpclab.checks.show import outcome_lines, part_lines, sentence
from vpclab.cluster.parts import kubectl, missing, parts
from vpclab.cluster.whole import Cluster
from vpclab.cluster.worker import PAUSE

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC


def pytest_configure(config: pytest.Config) -> None:
    """Have a place for what came of checks."""
    config.stash[OUTCOMES], config.stash[UP], config.stash[PODS] = [], [], ""
    config.stash[TABLES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the cluster's parts and what came of each check."""
    outcomes = terminalreporter.config.stash.get(OUTCOMES, [])
    up = terminalreporter.config.stash.get(UP, [])
    if not up:
        return
    terminalreporter.section(f"parts of the cluster, which was up in {up[0]:.0f} s", "-")
    for line in part_lines(parts()):
        terminalreporter.line(line)
    terminalreporter.section("what an operator sees", "-")
    for line in terminalreporter.config.stash[PODS].splitlines():
        terminalreporter.line(line.rstrip())
    if tables := terminalreporter.config.stash[TABLES]:
        terminalreporter.section("pod start", "-")
        for line in tables:
            terminalreporter.line(line)
    terminalreporter.section(f"checks: {sentence(outcomes)}", "-")
    for line in outcome_lines(outcomes):
        terminalreporter.line(line)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A kube-apiserver with RBAC, the ENIConfig CRD and the daemon's account."""
    found = programs()
    if found is None:
        pytest.skip("NOT TESTED against Kubernetes: no kube-apiserver is built; run `make kube`")
    server = ApiServer(found, tmp_path_factory.mktemp("kubernetes"))
    try:
        server.start()
        server.install()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def vpc() -> Iterator[EmbeddedVPC]:
    """The VPC that the cluster is in."""
    if missing() or not box.in_box():
        pytest.skip("NOT TESTED on a cluster: run `make e2e`")
    from vpclab.vpc import EmbeddedVPC  # noqa: PLC0415 - moto takes a second to import

    with EmbeddedVPC() as vpc:
        yield vpc


@pytest.fixture(scope="session")
def cluster(
    vpc: EmbeddedVPC, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Control plane and two nodes with everything real in the embedded VPC."""
    folder, began = tmp_path_factory.mktemp("cluster"), time.monotonic()
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def tell(what: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"enid: {time.monotonic() - began:5.1f} s  {what}", flush=True)  # noqa: T201 - progress

    tell(f"logs will be in {folder}")
    with keeping_logs(vpc, folder), lab_cluster(vpc, folder, tell) as cluster:
        pytestconfig.stash[UP].append(time.monotonic() - began)
        tell("the cluster is up")
        yield cluster


@pytest.fixture(scope="session")
def ground(cluster: Cluster, pytestconfig: pytest.Config) -> Iterator[Ground]:
    """A namespace with what checks look at."""
    image = Records(cluster.api).image()
    ground = Ground(cluster.api, PAUSE, [IPv4Network("10.0.0.0/16")], agent=image)
    with furnished(ground):
        pytestconfig.stash[PODS] = seen_by_kubectl(cluster)
        yield ground


def seen_by_kubectl(cluster: Cluster) -> str:
    """Return what an operator sees first."""
    program = kubectl()
    if program is None:
        return "there is no kubectl"
    looks = (["get", "pods", "-A", "-o", "wide"], ["get", "nodenetworks"])
    return "\n".join(
        f"$ kubectl {' '.join(look)}\n{_said(program, cluster, look)}" for look in looks
    )


def _said(program: Path, cluster: Cluster, words: list[str]) -> str:
    command = [str(program), "--kubeconfig", str(cluster.kubeconfig), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr
