"""What "enough" means: the peer's arithmetic as cases, then laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eni.model import PREFIX_SIZE, EniId, Kind, SubnetId
from ipamd.clock import Instant
from ipamd.pool import EniCensus, PoolEni
from ipamd.targets import (
    Demand,
    Fixed,
    Situation,
    Targets,
    asks_whole_enis,
    lack,
    shortfall,
    slack,
    surplus,
)

PER_ENI = 9
SUBNET = SubnetId("subnet-1")


def eni(number: int, *, closed: bool = False, excluded: bool = False) -> PoolEni:
    since = Instant(0, 0)
    return PoolEni(EniId(f"eni-{number}"), number, PER_ENI, SUBNET, since, closed, excluded)


def of_singles(number: int, assigned: int, cooling: int, free: int) -> EniCensus:
    held = assigned + cooling + free
    return EniCensus(eni(number), assigned, cooling, free, singles=held, idle_singles=free)


def of_prefixes(number: int, assigned: int, cooling: int, prefixes: int, idle: int) -> EniCensus:
    free = prefixes * PREFIX_SIZE - assigned - cooling
    return EniCensus(
        eni(number), assigned, cooling, free, prefixes=prefixes, idle_prefixes=idle
    )  # fmt: skip


def singles(
    *enis: tuple[int, int, int], waiting: int = 0, bound: int | None = None, coming: int = 0,
    most: int | None = None,
) -> Situation:  # fmt: skip
    return Situation(
        enis=tuple(of_singles(i, *e) for i, e in enumerate(enis, 1)),
        mode=Kind.SINGLE, slots_per_eni=PER_ENI, waiting=waiting, bound=bound, coming=coming,
        max_addresses=most,
    )  # fmt: skip


def prefixes(
    *enis: tuple[int, int, int, int], waiting: int = 0, coming: int = 0, most: int | None = None
) -> Situation:
    return Situation(
        enis=tuple(of_prefixes(i, *e) for i, e in enumerate(enis, 1)),
        mode=Kind.PREFIX, slots_per_eni=PER_ENI, waiting=waiting, coming=coming,
        max_addresses=most,
    )  # fmt: skip


def ip(warm: int, minimum: int = 0) -> Fixed:
    return Fixed(warm_eni=1, warm_ip=warm, minimum_ip=minimum, warm_prefix=1)


@pytest.mark.parametrize(
    ("now", "targets", "missing"),
    [
        pytest.param(singles((0, 0, 0)), Fixed(warm_eni=1), 9, id="boot-wants-one-enis-worth"),
        pytest.param(singles((0, 0, 0)), Fixed(), 9, id="unset-is-one-enis-worth"),
        pytest.param(singles((0, 0, 9)), Fixed(warm_eni=1), 0, id="one-enis-worth-is-enough"),
        pytest.param(singles((1, 0, 8)), Fixed(warm_eni=1), 1, id="one-pod-starts-the-next-eni"),
        pytest.param(singles((0, 9, 0)), Fixed(warm_eni=1), 9, id="cooling-is-not-available"),
        pytest.param(singles((9, 0, 0)), Fixed(warm_eni=0), 1, id="no-warm-eni-grows-when-empty"),
        pytest.param(singles((8, 0, 1)), Fixed(warm_eni=0), 0, id="no-warm-eni-and-one-is-enough"),
        pytest.param(singles((8, 0, 1), waiting=3), Fixed(warm_eni=0), 3, id="waiting-is-demand"),
        pytest.param(singles((0, 0, 9), bound=4), Fixed(warm_eni=1), 4, id="bound-is-demand"),
        pytest.param(singles((4, 0, 9), bound=4), Fixed(warm_eni=1), 0, id="bound-and-served"),
        pytest.param(singles((9, 0, 0), coming=9), Fixed(warm_eni=1), 0, id="it-is-coming"),
        pytest.param(
            singles((9, 0, 3), most=12), Fixed(warm_eni=1), 0, id="more-than-pods-can-use"
        ),
        pytest.param(singles((9, 0, 3), most=14), Fixed(warm_eni=1), 2, id="as-pods-can-use"),
        pytest.param(singles((0, 0, 0)), ip(5, 10), 10, id="minimum-rules-at-boot"),
        pytest.param(singles((8, 0, 1)), ip(5, 9), 4, id="warm-rules-when-busy"),
        pytest.param(singles((4, 4, 1)), ip(5), 4, id="a-cooling-address-is-not-warm"),
        pytest.param(singles((0, 4, 5)), ip(0, 12), 3, id="but-it-is-held"),
        pytest.param(singles((0, 0, 5), waiting=2), ip(5), 2, id="warm-comes-on-top-of-waiting"),
        pytest.param(prefixes((0, 0, 0, 0)), Fixed(warm_prefix=1), 16, id="boot-wants-a-prefix"),
        pytest.param(prefixes((0, 0, 0, 0)), Fixed(), 1, id="no-warm-prefix-still-wants-one"),
        pytest.param(prefixes((1, 0, 1, 0)), Fixed(), 0, id="no-warm-prefix-and-some-free"),
        pytest.param(prefixes((0, 0, 1, 1)), Fixed(warm_prefix=1), 0, id="a-free-prefix-is-enough"),
        pytest.param(prefixes((1, 0, 1, 0)), Fixed(warm_prefix=1), 16, id="one-pod-wants-the-next"),
        pytest.param(prefixes((16, 0, 2, 1)), Fixed(warm_prefix=1), 0, id="sixteen-do-not"),
        pytest.param(
            prefixes((32, 0, 4, 0)), Fixed(warm_prefix=3), 48, id="scattered-pods-no-idle"
        ),
        pytest.param(
            prefixes((4, 0, 1, 0), coming=16), Fixed(warm_prefix=1), 0, id="prefix-coming"
        ),
        pytest.param(
            prefixes((16, 0, 1, 0), waiting=30), Fixed(warm_prefix=1), 46, id="prefix-wait"
        ),
        pytest.param(
            prefixes((0, 0, 7, 7), most=110), ip(200), 0, id="seven-prefixes-for-110-pods"
        ),
        pytest.param(prefixes((0, 0, 6, 6), most=110), ip(200), 14, id="six-are-not-enough"),
        pytest.param(singles((3, 0, 2)), Demand(5, spare=1, bound=3), 0, id="demand-is-met"),
        pytest.param(singles((4, 0, 1)), Demand(6, spare=1, bound=4), 0, id="demand-is-spared"),
        pytest.param(singles((5, 0, 0)), Demand(7, spare=1, bound=5), 2, id="demand-is-missed"),
        pytest.param(
            singles((5, 0, 0)), Demand(40, spare=8, bound=40), 35, id="bound-is-not-spared"
        ),
        pytest.param(singles((5, 3, 0), waiting=9), Demand(7, bound=5), 9, id="waiting-anyway"),
    ],
)
def test_shortfall(now: Situation, targets: Targets, missing: int) -> None:
    assert shortfall(now, targets) == missing


@pytest.mark.parametrize(
    ("now", "targets", "extra"),
    [
        pytest.param(singles((0, 0, 9), (0, 0, 9)), Fixed(warm_eni=1), 0, id="singles-stay"),
        pytest.param(singles((2, 0, 7)), ip(5), 2, id="two-more-than-warm"),
        pytest.param(singles((2, 0, 7)), ip(5, 8), 1, id="the-minimum-stays"),
        pytest.param(singles((0, 9, 9)), ip(5, 9), 4, id="cooling-is-held"),
        pytest.param(singles((2, 0, 7), waiting=2), ip(5), 0, id="waiting-needs-them"),
        pytest.param(prefixes((0, 0, 3, 3)), Fixed(warm_prefix=1), 32, id="two-prefixes-too-many"),
        pytest.param(prefixes((20, 0, 3, 0)), Fixed(warm_prefix=1), 0, id="none-wholly-free"),
        pytest.param(prefixes((0, 0, 1, 1)), Fixed(warm_prefix=0), 15, id="never-down-to-nothing"),
        pytest.param(prefixes((5, 0, 3, 2)), ip(7, 20), 28, id="prefixes-by-address"),
        pytest.param(singles((3, 0, 4)), Demand(5, spare=2), 0, id="within-what-is-spared"),
        pytest.param(singles((3, 0, 5)), Demand(5, spare=2), 3, id="beyond-what-is-spared"),
        pytest.param(singles((3, 0, 9), waiting=8), Demand(5, spare=0), 1, id="not-the-waitings"),
    ],
)
def test_surplus(now: Situation, targets: Targets, extra: int) -> None:
    assert surplus(now, targets) == extra
    assert surplus(now, targets) <= slack(now, targets)


counts = st.integers(0, 4)
any_singles = st.builds(
    singles, st.tuples(counts, counts, counts), st.tuples(counts, counts, counts),
    waiting=counts, bound=st.none() | counts, most=st.none() | st.integers(1, 30),
)  # fmt: skip
any_prefixes = st.builds(
    prefixes, st.builds(lambda busy, idle: (busy, busy, busy + idle, idle), counts, counts),
    waiting=counts, most=st.none() | st.integers(1, 120),
)  # fmt: skip
any_targets = st.builds(Fixed, counts, counts, counts, counts) | st.builds(
    Demand, st.integers(0, 30), counts, st.integers(0, 30)
)


@given(any_singles | any_prefixes, any_targets)
def test_nothing_is_missing_and_too_much_at_once(now: Situation, targets: Targets) -> None:
    assert 0 <= shortfall(now, targets) <= lack(now, targets)
    assert 0 <= surplus(now, targets) <= slack(now, targets)
    assert not (lack(now, targets) and slack(now, targets))


def test_what_pods_cannot_use_is_not_held() -> None:
    enis = (
        EniCensus(eni(1), assigned=1, cooling=2, free=3, leaving=4, taken=5),
        EniCensus(eni(2, closed=True), free=7),
        EniCensus(eni(3, excluded=True), assigned=6, cooling=5, free=7, idle_prefixes=1),
    )
    now = Situation(enis=enis, slots_per_eni=PER_ENI)
    assert now.held == 1 + 2 + 3 + 6
    assert now.available == 3
    assert now.idle_prefixes == 0
    assert now.allowance is None


def test_the_ceiling_hides_what_is_missing_but_not_from_who_gives_back() -> None:
    now = singles((9, 0, 0), most=9)
    assert shortfall(now, ip(2)) == 0
    assert lack(now, ip(2)) == 2


@pytest.mark.parametrize(
    ("targets", "mode", "whole"),
    [
        pytest.param(Fixed(warm_eni=1), Kind.SINGLE, True, id="warm-eni"),
        pytest.param(Fixed(warm_eni=1), Kind.PREFIX, False, id="warm-eni-has-no-say-in-prefixes"),
        pytest.param(ip(1), Kind.SINGLE, False, id="by-address"),
        pytest.param(Demand(5), Kind.SINGLE, False, id="demand"),
    ],
)
def test_whole_enis_are_asked_by_warm_eni_only(targets: Targets, mode: Kind, whole: bool) -> None:  # noqa: FBT001 - a case
    now = Situation(enis=(), mode=mode, slots_per_eni=PER_ENI)
    assert asks_whole_enis(now, targets) is whole


def test_targets_are_shown_as_they_were_set() -> None:
    assert str(Fixed(warm_ip=5, minimum_ip=10)) == "WARM_IP_TARGET=5 MINIMUM_IP_TARGET=10"
