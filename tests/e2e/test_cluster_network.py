"""The checks of `vpclab.checks`, and of `tests.e2e.life`, on the lab's cluster (`make e2e`)."""

from __future__ import annotations

from typing import TypeVar

import pytest

from tests.e2e.life import LIFE, Stage
from tests.e2e.sabotage import SABOTAGES, Sabotage, spoiled
from tests.e2e.told import OUTCOMES
from vpclab.checks.check import Check, State, run
from vpclab.checks.ground import Ground
from vpclab.checks.network import NETWORK
from vpclab.cluster.whole import Cluster

T = TypeVar("T")


def require(check: Check[T], ground: T, config: pytest.Config) -> None:
    """Run a check, and note what came of it for the table."""
    outcome = run(check, ground)
    config.stash[OUTCOMES].append(outcome)
    if outcome.state is State.SKIPPED:
        pytest.skip(outcome.said)
    assert outcome.state is State.OK, outcome.said


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


@pytest.mark.parametrize("check", LIFE, ids=lambda check: check.name)
def test_life(
    check: Check[Stage], cluster: Cluster, ground: Ground, pytestconfig: pytest.Config
) -> None:
    require(check, Stage(cluster, ground), pytestconfig)
