"""The checks of `vpclab.checks`, on the lab's cluster (`make e2e`)."""

from __future__ import annotations

import pytest

from tests.e2e.told import OUTCOMES
from vpclab.checks.check import Check, State, run
from vpclab.checks.ground import Ground
from vpclab.checks.network import NETWORK


@pytest.mark.parametrize("check", NETWORK, ids=lambda check: check.name)
def test_check(check: Check[Ground], ground: Ground, pytestconfig: pytest.Config) -> None:
    outcome = run(check, ground)
    pytestconfig.stash[OUTCOMES].append(outcome)
    if outcome.state is State.SKIPPED:
        pytest.skip(outcome.said)
    assert outcome.state is State.OK, outcome.said
