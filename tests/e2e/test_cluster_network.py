"""The checks of `vpclab.checks` on the lab's cluster (`make e2e`)."""

from __future__ import annotations

import pytest

from tests.e2e.sabotage import SABOTAGES, Sabotage, spoiled
from tests.e2e.told import require
from vpclab.checks.check import Check, State, run
from vpclab.checks.ground import Ground
from vpclab.checks.network import NETWORK
from vpclab.cluster.whole import Cluster


@pytest.mark.parametrize("check", NETWORK, ids=lambda check: check.name)
def test_network(check: Check[Ground], ground: Ground, pytestconfig: pytest.Config) -> None:
    require(check, ground, pytestconfig)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_what_is_wrong_is_noticed(sabotage: Sabotage, cluster: Cluster, ground: Ground) -> None:
    (check,) = (check for check in NETWORK if check.name == sabotage.check)
    with spoiled(cluster, sabotage):
        outcome = run(check, ground)
    assert outcome.state is State.FAILED
    assert sabotage.said in outcome.said
    assert run(check, ground).state is State.OK
