"""What a cluster lives through, on the lab's (`make e2e`): each leaves it as it was."""

from __future__ import annotations

import pytest

from tests.e2e.accounts import ACCOUNTS
from tests.e2e.life import LIFE
from tests.e2e.losses import LOSSES
from tests.e2e.nodes import NODES
from tests.e2e.stage import Stage
from tests.e2e.told import TABLES, require
from tests.e2e.workloads import WORKLOADS
from vpclab.checks.check import Check
from vpclab.checks.ground import Ground
from vpclab.cluster.whole import Cluster
from vpclab.vpc import EmbeddedVPC

CHECKS = (*LIFE, *WORKLOADS, *LOSSES, *NODES, *ACCOUNTS)


@pytest.fixture
def stage(cluster: Cluster, ground: Ground, vpc: EmbeddedVPC, pytestconfig: pytest.Config) -> Stage:
    return Stage(cluster, ground, vpc, pytestconfig.stash[TABLES])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_life(check: Check[Stage], stage: Stage, pytestconfig: pytest.Config) -> None:
    require(check, stage, pytestconfig)
