"""The shipped table of instance types."""

import json
from importlib.resources import files

import pytest

from eni.limits import InstanceLimits, shipped

TABLE: dict[str, list[int]] = json.loads(files("eni").joinpath("limits.json").read_bytes())


@pytest.mark.parametrize(
    ("instance_type", "enis", "ipv4", "ipv6"),
    [
        pytest.param("t3.nano", 2, 2, 2, id="the-smallest"),
        pytest.param("m5.large", 3, 10, 10, id="the-usual"),
        pytest.param("m6in.32xlarge", 8, 50, 50, id="two-cards-of-eight"),
        pytest.param("p5.48xlarge", 2, 50, 50, id="thirty-two-cards-of-two"),
        pytest.param("u7in-32tb.224xlarge", 8, 50, 50, id="two-cards-on-the-largest"),
    ],
)
def test_limits_are_the_default_cards(instance_type: str, enis: int, ipv4: int, ipv6: int) -> None:
    assert shipped(instance_type) == InstanceLimits(
        instance_type=instance_type, enis=enis, ipv4_per_eni=ipv4, ipv6_per_eni=ipv6
    )


def test_a_type_younger_than_the_table_is_not_guessed() -> None:
    assert shipped("m99.large") is None


def test_every_type_has_room_for_its_primary_address() -> None:
    assert [name for name, (enis, ipv4, _) in TABLE.items() if enis < 1 or ipv4 < 1] == []


def test_the_table_is_not_a_fragment() -> None:
    assert len(TABLE) > 1000
