"""The AWS VPC CNI's arithmetic, case by case."""

from __future__ import annotations

import pytest

from eni.model import Kind
from ipamd.plan.peer_rules import PeerTargets, Tally, may_free_eni, surplus, wish

ENI = PeerTargets(max_pods=250)
IP = PeerTargets(warm_ip=2, minimum_ip=5, max_pods=250)
PREFIX = PeerTargets(kind=Kind.PREFIX, warm_prefix=1, max_pods=250)
PREFIX_IP = PeerTargets(kind=Kind.PREFIX, warm_ip=5, minimum_ip=10, max_pods=250)


def tally(total: int, assigned: int, prefixes: int = 0, free: int = 0, per_eni: int = 3) -> Tally:
    return Tally(total, assigned, prefixes, free, per_eni)


@pytest.mark.parametrize(
    ("count", "targets", "wanted"),
    [
        pytest.param(tally(0, 0), ENI, 3, id="a-whole-eni-at-first"),
        pytest.param(tally(3, 0), ENI, 0, id="one-warm-eni-is-there"),
        pytest.param(tally(3, 1), ENI, 3, id="one-pod-wants-another-eni"),
        pytest.param(tally(3, 3), PeerTargets(warm_eni=0, max_pods=9), 3, id="none-warm-none-free"),
        pytest.param(tally(3, 2), PeerTargets(warm_eni=0, max_pods=9), 0, id="none-warm-one-free"),
        pytest.param(tally(9, 9), PeerTargets(max_pods=9), 0, id="max-pods"),
        pytest.param(tally(0, 0), IP, 5, id="the-minimum"),
        pytest.param(tally(5, 4), IP, 1, id="the-warm-ones"),
        pytest.param(tally(0, 0), PREFIX, 1, id="the-first-prefix"),
        pytest.param(tally(16, 1, 1, 0), PREFIX, 1, id="a-used-prefix-is-not-warm"),
        pytest.param(tally(32, 5, 2, 1), PREFIX, 0, id="a-free-prefix-is"),
        pytest.param(tally(16, 12, 1, 0), PREFIX_IP, 1, id="rounded-up-to-a-prefix"),
    ],
)
def test_wish(count: Tally, targets: PeerTargets, wanted: int) -> None:
    assert wish(count, targets) == wanted


@pytest.mark.parametrize(
    ("count", "targets", "over"),
    [
        pytest.param(tally(9, 0), ENI, 0, id="by-eni-nothing-goes-singly"),
        pytest.param(tally(9, 1), IP, 4, id="not-below-the-minimum"),
        pytest.param(tally(9, 8), IP, 0, id="not-below-the-warm-ones"),
        pytest.param(tally(48, 1, 3, 2), PREFIX, 1, id="free-prefixes-but-one"),
        pytest.param(tally(64, 20, 4, 2), PREFIX_IP, 2, id="prefixes-beyond-what-warm-needs"),
        pytest.param(tally(16, 0, 1, 1), PREFIX_IP, 0, id="the-minimum-in-prefixes"),
    ],
)
def test_surplus(count: Tally, targets: PeerTargets, over: int) -> None:
    assert surplus(count, targets) == over


@pytest.mark.parametrize(
    ("count", "targets", "looks"),
    [
        pytest.param(tally(5, 0), IP, True, id="by-address-always"),
        pytest.param(tally(6, 0), ENI, True, id="two-enis-free"),
        pytest.param(tally(6, 1), ENI, False, id="less-than-two"),
        pytest.param(tally(32, 0, 2, 2), PREFIX, True, id="a-free-prefix"),
        pytest.param(tally(32, 17, 2, 0), PREFIX, False, id="no-free-prefix"),
        pytest.param(tally(128, 20, 8, 0), PREFIX, True, id="so-many-free"),
    ],
)
def test_may_free_eni(count: Tally, targets: PeerTargets, *, looks: bool) -> None:
    assert may_free_eni(count, targets) is looks
