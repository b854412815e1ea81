"""A VPC, two nodes, and on each a real containerd and the real daemon; once per containerd."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cri.client import IMAGE
from tests.cri.stage import Stage
from tests.tools.runtimes import Outcome
from vpclab import box
from vpclab.containerd import RELEASES, TOOLS, Release
from vpclab.images import make_image

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

RAN = pytest.StashKey[dict[str, str]]()
"""The containerds that ran, by name, and which plugin was theirs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--containerd` and `--outcomes`."""
    parser.addoption("--containerd", default="", help="run with this containerd only")
    parser.addoption("--outcomes", default="", help="append what each test came to, a line each")


def pytest_configure(config: pytest.Config) -> None:
    """Note outcomes, where they are wanted."""
    config.stash[RAN] = {}
    if path := config.getoption("--outcomes", ""):
        config.pluginmanager.register(Outcomes(Path(path)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with each containerd."""
    if "release" in metafunc.fixturenames:
        only = metafunc.config.getoption("--containerd", "")
        chosen = [release for release in RELEASES if only in {"", release.name}]
        metafunc.parametrize("release", chosen, ids=lambda r: r.name, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell a report which rows it is of, and with which containerd."""
    for item in items:
        rows = [name for mark in item.iter_markers("cri") for name in mark.args]
        if rows and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            item.user_properties.append(("rows", rows))
            release = item.callspec.params["release"]
            assert isinstance(release, Release)
            item.user_properties.append(("release", release.name))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many of the containerds ran; one that did not is no silence."""
    ran = terminalreporter.config.stash.get(RAN, {})
    terminalreporter.section(f"{len(ran)} of {len(RELEASES)} containerds ran", "-")
    for release in RELEASES:
        said = ran.get(release.name) or f"NOT RUN: {release.missing or 'not asked for'}"
        terminalreporter.line(f"{release.name:14} {said}")


class Outcomes:
    """Writes a line for each test as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test; a failure while it is set up or taken down is one, too."""
        told: dict[str, Any] = dict(report.user_properties)
        if "rows" not in told or (report.when != "call" and report.passed):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        outcome = Outcome(
            tuple(told["rows"]), told["release"], report.outcome,
            reason.removeprefix("Skipped: "), report.nodeid.rpartition("::")[2],
        )  # fmt: skip
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")


class Stages:
    """The stage of the day; one that a test has left in disorder is struck, and another raised."""

    def __init__(self, vpc: Callable[[], EmbeddedVPC], ran: dict[str, str]) -> None:
        self._exits = contextlib.ExitStack()
        self._vpc, self._ran = vpc, ran
        self._stage: Stage | None = None

    def of(self, release: Release, folder: Callable[[str], Path]) -> Stage:
        """Return it, with *release*."""
        if self._stage is None or self._stage.release != release:
            self.strike()
            place = folder(release.name)
            make_image(place / "image.tar", TOOLS / "busybox", IMAGE)
            vpc = self._exits.enter_context(self._vpc())
            self._stage = Stage.raised(vpc, release, place, self._exits)
            self._ran[release.name] = self._stage.a.described
        return self._stage

    def strike(self) -> None:
        """End everything; once more is nothing."""
        self._stage = None
        self._exits.close()


@pytest.fixture(scope="session")
def stages(pytestconfig: pytest.Config) -> Iterator[Stages]:
    """A place for the stage."""
    if not box.in_box():
        pytest.skip("needs a box: python -m vpclab.box python -m pytest")
    from vpclab.vpc import EmbeddedVPC  # noqa: PLC0415 - moto takes a second to import

    stages = Stages(EmbeddedVPC, pytestconfig.stash[RAN])
    yield stages
    stages.strike()


@pytest.fixture
def stage(
    release: Release, stages: Stages, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Both nodes, with everything running; after each test nothing is left of it."""
    if release.missing:
        pytest.skip(release.missing)
    stage = stages.of(release, tmp_path_factory.mktemp)
    yield stage
    try:
        stage.clear()
    except BaseException:
        stages.strike()
        raise
