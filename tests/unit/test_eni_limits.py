"""The shipped table of instance types, and how many pods a type takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from eni.limits import TABLE, InstanceLimits, from_note, max_pods, near_misses, noted, shipped

ROWS: dict[str, list[Any]] = json.loads(TABLE.read_bytes())


@pytest.mark.parametrize(
    ("instance_type", "enis", "ipv4", "ipv6", "cards", "hypervisor", "vcpus"),
    [
        pytest.param("t3.nano", 2, 2, 2, ((0, 2),), "nitro", 2, id="the-smallest"),
        pytest.param("m5.large", 3, 10, 10, ((0, 3),), "nitro", 2, id="the-usual"),
        pytest.param("m4.large", 2, 10, 10, ((0, 2),), "xen", 2, id="an-old-one"),
        pytest.param("m5.metal", 15, 50, 50, ((0, 15),), "", 96, id="bare-metal"),
        pytest.param(
            "m6in.32xlarge", 8, 50, 50, ((0, 8), (1, 8)), "nitro", 128, id="two-cards-of-eight"
        ),
        pytest.param(
            "p5.48xlarge",
            2,
            50,
            50,
            tuple((card, 2) for card in range(32)),
            "nitro",
            192,
            id="thirty-two-cards-of-two",
        ),
        pytest.param(
            "u7in-32tb.224xlarge",
            8,
            50,
            50,
            ((0, 8), (1, 8)),
            "nitro",
            896,
            id="two-cards-on-the-largest",
        ),
    ],
)
def test_limits_are_the_default_cards(
    instance_type: str,
    enis: int,
    ipv4: int,
    ipv6: int,
    cards: tuple[tuple[int, int], ...],
    hypervisor: str,
    vcpus: int,
) -> None:
    assert shipped(instance_type) == InstanceLimits(
        instance_type=instance_type,
        enis=enis,
        ipv4_per_eni=ipv4,
        ipv6_per_eni=ipv6,
        cards=cards,
        hypervisor=hypervisor,
        bare_metal=instance_type.endswith(".metal"),
        vcpus=vcpus,
    )


def test_a_type_younger_than_the_table_is_not_guessed() -> None:
    assert shipped("m99.large") is None


def test_every_type_has_room_for_its_primary_address() -> None:
    assert [name for name, (enis, ipv4, *_) in ROWS.items() if enis < 1 or ipv4 < 1] == []


def test_the_default_card_is_the_first_of_every_type() -> None:
    assert [name for name, (enis, _, _, cards, *_) in ROWS.items() if cards[0] != [0, enis]] == []


def test_every_type_has_a_hypervisor_or_is_bare_metal_and_has_vcpus() -> None:
    known = {(hypervisor, metal) for *_, hypervisor, metal, _ in ROWS.values()}
    assert known == {("nitro", False), ("xen", False), ("", True)}
    assert min(row[-1] for row in ROWS.values()) >= 1


def test_the_table_is_not_a_fragment() -> None:
    assert len(ROWS) > 1000


@pytest.mark.parametrize(
    ("name", "first"),
    [("m5.lage", "m5.large"), ("t3.smal", "t3.small"), ("M5.Large", "m5.large")],
)
def test_a_name_that_is_nearly_right_is_put_right(name: str, first: str) -> None:
    assert near_misses(name)[0] == first


def test_nothing_is_like_nonsense() -> None:
    assert near_misses("!!!") == ()


def known(instance_type: str) -> InstanceLimits:
    limits = shipped(instance_type)
    assert limits is not None
    return limits


@pytest.mark.parametrize("instance_type", ["m5.large", "p5.48xlarge", "m5.metal"])
def test_limits_survive_the_journal(instance_type: str) -> None:
    limits = known(instance_type)
    assert from_note(json.loads(json.dumps(noted(limits)))) == limits


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(None, id="nothing-noted"),
        pytest.param([], id="a-list"),
        pytest.param({}, id="no-cards"),
        pytest.param({"cards": [[0]]}, id="a-card-without-its-most"),
        pytest.param({"cards": [["first", 2]]}, id="a-card-without-a-number"),
        pytest.param({"cards": [], "wings": 2}, id="a-younger-version's"),
    ],
)
def test_a_note_that_is_none_of_ours_tells_no_limits(note: object) -> None:
    assert from_note(note) is None


@pytest.mark.parametrize(
    ("instance_type", "allowed"),
    [("m5.large", True), ("m5.metal", True), ("m4.large", False)],
    ids=["nitro", "bare-metal", "xen"],
)
def test_prefixes_are_for_nitro_and_bare_metal(instance_type: str, *, allowed: bool) -> None:
    assert known(instance_type).prefixes_allowed is allowed


@pytest.mark.parametrize(
    ("instance_type", "prefixes", "custom", "pods", "cap"),
    [
        pytest.param("m5.large", False, False, 29, 110, id="eks-says-29-for-m5-large"),
        pytest.param("m5.large", True, False, 434, 110, id="prefixes"),
        pytest.param("m5.large", False, True, 20, 110, id="custom-networking"),
        pytest.param("m5.large", True, True, 290, 110, id="both"),
        pytest.param("t3.small", False, False, 11, 110, id="eks-says-11-for-t3-small"),
        pytest.param("t3.nano", False, True, 3, 110, id="one-eni-left"),
        pytest.param("m4.large", True, False, 20, 110, id="xen-takes-no-prefixes"),
        pytest.param("m5.4xlarge", False, False, 234, 110, id="sixteen-vcpus"),
        pytest.param("m5.8xlarge", False, False, 234, 250, id="thirty-two-vcpus"),
        pytest.param("m5.metal", True, False, 11762, 250, id="metal-with-prefixes"),
    ],
)
def test_pods_are_counted_as_eks_does(
    instance_type: str, *, prefixes: bool, custom: bool, pods: int, cap: int
) -> None:
    limits = known(instance_type)
    assert max_pods(limits, prefixes=prefixes, custom_networking=custom) == (pods, cap)


@pytest.mark.parametrize(("vcpus", "cap"), [(30, 110), (31, 250)])
def test_the_cap_rises_above_thirty_vcpus(vcpus: int, cap: int) -> None:
    limits = replace(known("m5.large"), vcpus=vcpus)
    assert max_pods(limits, prefixes=False, custom_networking=False)[1] == cap
