"""Another version and back on the lab's cluster (`make e2e`); the builds are made before."""

from __future__ import annotations

import pytest

from tests.e2e.accounts import ACCOUNTS
from tests.e2e.stage import Stage
from tests.e2e.told import TABLES, require
from tests.e2e.upgrades import UPGRADES
from vpclab.checks.check import Check
from vpclab.checks.ground import Ground
from vpclab.cluster.whole import Cluster
from vpclab.vpc import EmbeddedVPC


@pytest.fixture
def stage(cluster: Cluster, ground: Ground, vpc: EmbeddedVPC, pytestconfig: pytest.Config) -> Stage:
    return Stage(cluster, ground, vpc, pytestconfig.stash[TABLES])


@pytest.mark.parametrize("check", [*UPGRADES, *ACCOUNTS], ids=lambda check: check.name)
def test_upgrade(check: Check[Stage], stage: Stage, pytestconfig: pytest.Config) -> None:
    require(check, stage, pytestconfig)
