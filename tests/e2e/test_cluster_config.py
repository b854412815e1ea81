"""What an operator configures, and what they get wrong, on the lab's cluster (`make e2e`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.bad_input import BAD_INPUT, CONFIGS
from tests.e2e.config import CUSTOM, PREFIXES, Custom, Dense
from tests.e2e.stage import Stage
from tests.e2e.told import TABLES, require
from vpclab.checks.check import Check
from vpclab.checks.ground import Ground
from vpclab.cluster.whole import Cluster
from vpclab.vpc import EmbeddedVPC


@pytest.fixture(scope="module")
def stage(cluster: Cluster, ground: Ground, vpc: EmbeddedVPC, pytestconfig: pytest.Config) -> Stage:
    return Stage(cluster, ground, vpc, pytestconfig.stash[TABLES])


@pytest.fixture(scope="module")
def custom(stage: Stage) -> Iterator[Custom]:
    story = Custom(stage)
    yield story
    story.close()


@pytest.fixture(scope="module")
def dense(stage: Stage) -> Iterator[Dense]:
    story = Dense(stage)
    yield story
    story.close()


@pytest.mark.parametrize("check", CUSTOM[:-1], ids=lambda check: check.name)
def test_custom_networking(
    check: Check[Custom], custom: Custom, pytestconfig: pytest.Config
) -> None:
    require(check, custom, pytestconfig)


@pytest.mark.parametrize("check", CONFIGS, ids=lambda check: check.name)
def test_bad_eniconfigs(check: Check[Stage], custom: Custom, pytestconfig: pytest.Config) -> None:
    require(check, custom.stage, pytestconfig)


@pytest.mark.parametrize("check", CUSTOM[-1:], ids=lambda check: check.name)
def test_custom_networking_goes(
    check: Check[Custom], custom: Custom, pytestconfig: pytest.Config
) -> None:
    require(check, custom, pytestconfig)


@pytest.mark.parametrize("check", BAD_INPUT, ids=lambda check: check.name)
def test_bad_input(check: Check[Stage], stage: Stage, pytestconfig: pytest.Config) -> None:
    require(check, stage, pytestconfig)


@pytest.mark.parametrize("check", PREFIXES, ids=lambda check: check.name)
def test_prefix_delegation(check: Check[Dense], dense: Dense, pytestconfig: pytest.Config) -> None:
    require(check, dense, pytestconfig)
