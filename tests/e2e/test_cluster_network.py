"""The checks of `vpclab.checks` on the lab's cluster (`make e2e`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.sabotage import SABOTAGES, Sabotage, spoiled
from tests.e2e.told import require
from vpclab.checks.check import Check, State, run
from vpclab.checks.ground import Ground
from vpclab.checks.guard import GUEST
from vpclab.checks.network import NETWORK
from vpclab.cluster.whole import Cluster


@pytest.fixture(scope="module", autouse=True)
def emptied(ground: Ground) -> Iterator[None]:
    """Whoever comes next needs the places of the pods that filled an ENI."""
    yield
    ground.empty()


@pytest.mark.parametrize("check", NETWORK, ids=lambda check: check.name)
def test_network(check: Check[Ground], ground: Ground, pytestconfig: pytest.Config) -> None:
    require(check, ground, pytestconfig)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.name)
def test_what_is_wrong_is_noticed(sabotage: Sabotage, cluster: Cluster, ground: Ground) -> None:
    (check,) = (check for check in NETWORK if check.name == sabotage.check)
    guest = ground.pod(GUEST)["status"]["podIP"]
    with spoiled(cluster, sabotage, guest):
        outcome = run(check, ground)
    assert outcome.state is State.FAILED
    assert sabotage.said in outcome.said
    assert run(check, ground).state is State.OK
