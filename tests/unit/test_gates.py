"""The fabric's nft table as text: what follows from a group, a NAT gateway, an ENI."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from vpclab.gates import (
    Element,
    Group,
    Passport,
    Rule,
    Shape,
    combination,
    combining,
    difference,
    matches,
    rivals,
    shaping,
    transparent,
)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule("-1", None, None, "10.0.0.0/8"), ["ip saddr 10.0.0.0/8"]),
        (Rule("tcp", 80, 80, "10.0.0.0/8"), ["ip saddr 10.0.0.0/8 tcp dport 80-80"]),
        (Rule("udp", 53, 54, "::/0"), ["ip6 saddr ::/0 udp dport 53-54"]),
        (Rule("tcp", 0, 65535, "::/0"), ["ip6 saddr ::/0 meta l4proto tcp"]),
        (Rule("tcp", None, None, "::/0"), ["ip6 saddr ::/0 meta l4proto tcp"]),
        (Rule("icmp", 8, -1, "10.0.0.0/8"), ["ip saddr 10.0.0.0/8 icmp type 8"]),
        (Rule("icmp", 3, 4, "10.0.0.0/8"), ["ip saddr 10.0.0.0/8 icmp type 3 icmp code 4"]),
        (Rule("icmp", -1, -1, "10.0.0.0/8"), ["ip saddr 10.0.0.0/8 meta l4proto icmp"]),
        (Rule("icmpv6", None, None, "::/0"), ["ip6 saddr ::/0 meta l4proto ipv6-icmp"]),
        (Rule("58", 128, 0, "::/0"), ["ip6 saddr ::/0 icmpv6 type 128 icmpv6 code 0"]),
        (Rule("50", None, None, "10.0.0.0/8"), ["ip saddr 10.0.0.0/8 meta l4proto 50"]),
        (Rule("-1", None, None, "sg-1"), ["ip saddr @four_sg_1", "ip6 saddr @six_sg_1"]),
    ],
)
def test_a_rule_is_one_match_a_family(rule: Rule, text: list[str]) -> None:
    assert matches(rule, "saddr") == text


def test_groups_are_there_before_rules_that_name_them() -> None:
    rule = Rule("-1", None, None, "sg-2")
    lines = shaping(Shape(groups=(Group("sg-1", (rule,), (rule,)), Group("sg-2")))).splitlines()
    sets = [n for n, line in enumerate(lines) if line.startswith("add set")]
    rules = [n for n, line in enumerate(lines) if line.startswith("add rule")]
    assert max(sets) < min(rules)
    assert "add rule inet fabric o_sg_1 ip daddr @four_sg_2 accept" in lines


def test_each_nat_gateway_has_a_mark_of_its_own() -> None:
    text = shaping(Shape(nats={"nat-b": "198.51.100.2", "nat-a": "198.51.100.1"}))
    assert "by_nat_a meta mark set 1 accept" in text
    assert "nats { 2 : 198.51.100.2 }" in text


def test_groups_together_allow_what_each_does_and_drop_the_rest() -> None:
    lines = [line for line in combining(["sg-2", "sg-1"]).splitlines() if " is_" in line]
    assert combination(["sg-2", "sg-1"]) == "sg_1__sg_2"
    assert [line.split("is_sg_1__sg_2 ")[-1] for line in lines[2:]] == [
        "jump i_sg_1",
        "jump i_sg_2",
        "counter name group drop",
    ]


def passport(**more: object) -> Passport:
    owned = frozenset({ip_network("10.0.0.4"), ip_network("2001:db8::4")})
    base = {"port": "e-1", "mac": "02:00", "checked": True, "owned": owned,
            "groups": frozenset({"sg-1"})}  # fmt: skip
    return Passport(**{**base, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "place", "key", "value"),
    [
        ({}, "macs", '"e-1" . 02:00', ""),
        ({}, "four_sg_1", "10.0.0.4/32", ""),
        ({}, "six_sg_1", "2001:db8::4/128", ""),
        ({"checked": False}, "nocheck", '"e-1"', ""),
        ({"way4": "igw"}, "way4", '"e-1"', "goto by_igw4"),
        ({"way4": "nat-1"}, "way4", '"e-1"', "goto by_nat_1"),
        ({"way6": "egress-only"}, "way6", '"e-1"', "accept"),
        ({"way6": "igw"}, "open6", '"e-1"', ""),
        ({"public": (("10.0.0.4", "198.51.100.1"),)}, "private", "198.51.100.1", "10.0.0.4"),
    ],
)
def test_an_eni_is_elements(more: dict[str, object], place: str, key: str, value: str) -> None:
    assert Element(place, key, value) in passport(**more).elements()


def test_an_eni_without_more_has_no_way_out() -> None:
    places = {element.place for element in passport().elements()}
    assert places == {"macs", "out", "in", "four_sg_1", "six_sg_1"}


def test_a_change_is_what_goes_and_what_comes() -> None:
    assert difference([Element("m", "1", "a")], [Element("m", "1", "b"), Element("s", "2")]) == (
        "delete element inet fabric m { 1 }\n"
        "add element inet fabric m { 1 : b }\n"
        "add element inet fabric s { 2 }\n"
    )


@pytest.mark.parametrize(
    ("new", "old", "in_the_way"),
    [
        (Element("private", "198.51.100.1", "10.0.0.4"), Element("private", "198.51.100.1", "10.0.0.5"), True),
        (Element("private", "198.51.100.1", "10.0.0.4"), Element("private", "198.51.100.1", "10.0.0.4"), False),
        (Element("private", "198.51.100.1", "10.0.0.4"), Element("private", "198.51.100.2", "10.0.0.4"), False),
        (Element("four_sg_1", "10.0.0.20/32"), Element("four_sg_1", "10.0.0.16/28"), True),
        (Element("six_sg_1", "2001:db8::/80"), Element("six_sg_1", "2001:db8::9/128"), True),
        (Element("four_sg_1", "10.0.0.20/32"), Element("four_sg_2", "10.0.0.16/28"), False),
        (Element("four_sg_1", "10.0.0.20/32"), Element("four_sg_1", "10.0.0.21/32"), False),
        (Element("publics", "10.0.0.4"), Element("publics", "10.0.0.5"), False),
    ],
)  # fmt: skip
def test_what_the_table_cannot_hold_twice_is_told(
    new: Element,
    old: Element,
    in_the_way: bool,  # noqa: FBT001 - a case of the table
) -> None:
    assert rivals(frozenset({new}), frozenset({old})) == ({old} if in_the_way else set())


def test_every_time_to_live_gets_back_what_routing_takes() -> None:
    text = transparent()
    assert "chain ttl64 {\n ip ttl set 65\n}" in text
    assert "254 : goto hop254" in text
