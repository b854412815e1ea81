"""What the kernel should hold, as values; and the nft table as text."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import dataplane, nft
from cni.dataplane import (
    Alias,
    Delete,
    EniLink,
    Marks,
    Put,
    Route,
    Routing,
    Rule,
    desired_routes,
    desired_rules,
    parse_alias,
    steps,
)
from cni.spec import Sandbox

NET = IPv4Network("10.0.1.0/24")
PRIMARY = EniLink(1, "02:00:00:00:00:01", NET[4], NET, 9001)
SECOND = EniLink(2, "02:00:00:00:00:02", NET[5], NET, 9001)

word = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,40}", fullmatch=True)
addresses = st.lists(st.ip_addresses(), min_size=1, max_size=2).map(tuple)


@given(st.builds(Sandbox, word, word, word), st.one_of(st.just(""), word), addresses, word)
def test_an_alias_says_it_all_and_fits(
    sandbox: Sandbox, uid: str, held: tuple[dataplane.Address, ...], eni_id: str
) -> None:
    if uid == "-":
        return
    alias = Alias(sandbox, uid, held, eni_id)
    assert parse_alias(alias.text()) == alias


def test_the_longest_real_alias_fits_into_the_kernels_255_bytes() -> None:
    sandbox = Sandbox("a-network-with-a-long-name", "f" * 64, "eth0-of-fifteen")
    both = (ip_address("255.255.255.255"), ip_address("ffff:" * 7 + "ffff"))
    assert len(Alias(sandbox, "u" * 36, both, "eni-" + "f" * 17).text()) < 255


@pytest.mark.parametrize(
    "text", [None, "", "uplink", "enid1 half", "enid1 a/b n u 10.0.0.999 eni-1"]
)
def test_what_is_not_ours_is_none(text: str | None) -> None:
    assert parse_alias(text) is None


def test_words_of_a_younger_daemon_are_ignored() -> None:
    alias = parse_alias("enid1 c/eth0 net - 10.0.0.1 eni-1 more words")
    assert alias is not None
    assert alias.pod_uid == ""


def test_two_sandboxes_of_one_pod_have_two_names() -> None:
    names = {dataplane.host_ifname(Sandbox("enid", f"c{i}", "eth0")) for i in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"eni[0-9a-f]{11}", name) for name in names)
    assert re.fullmatch(r"c[0-9a-f]{11}", dataplane.host_ifname(Sandbox("n", "c", "eth0"), "c"))


def test_a_pods_mac_is_made_of_its_address() -> None:
    assert dataplane.pod_mac(ip_address("10.0.1.20")) == "0a:58:0a:00:01:14"
    assert dataplane.pod_mac(ip_address("fd00::1:2")) == "0a:58:00:01:00:02"


def test_the_rules_of_two_enis() -> None:
    assert desired_rules([PRIMARY, SECOND]) == (
        Rule(512, 5120),
        Rule(1024, 254, 0x80, 0x80),
        Rule(1536, 2, 2, 0x7F),
        Rule(32765, 2, source=IPv4Address("10.0.1.5")),
    )
    assert dataplane.eni_table(1) == 254
    assert SECOND.gateway == IPv4Address("10.0.1.1")


def test_external_services_come_before_every_eni_and_after_the_pods() -> None:
    external = IPv4Network("10.9.0.0/16")
    rules = desired_rules([PRIMARY, SECOND], Routing(external=(external,)))
    assert rules[2] == Rule(1535, 254, destination=external)
    assert [rule.preference for rule in rules] == [512, 1024, 1535, 1536, 32765]


def test_another_bit_moves_our_byte() -> None:
    marks = Marks(0x800000)
    assert (marks.mask, marks.number_mask) == (0xFF0000, 0x7F0000)
    assert (marks.of(1), marks.of(2), marks.of(127)) == (0x800000, 0x20000, 0x7F0000)
    assert desired_rules([SECOND], Routing(marks))[1:3] == (
        Rule(1024, 254, 0x800000, 0x800000),
        Rule(1536, 2, 0x20000, 0x7F0000),
    )


@given(st.integers(7, 31), st.integers(1, 127))
def test_a_mark_is_inside_our_byte_and_tells_its_eni(bit: int, number: int) -> None:
    marks = Marks(1 << bit)
    assert marks.of(number) & ~marks.mask == 0
    assert marks.mask.bit_count() == 8
    assert len({marks.of(n) for n in range(1, 128)}) == 127


def test_an_enis_gateway_comes_before_the_route_that_needs_it() -> None:
    assert desired_routes(SECOND, 7) == (
        Route(IPv4Network("10.0.1.1/32"), 2, 7),
        Route(IPv4Network("0.0.0.0/0"), 2, 7, IPv4Address("10.0.1.1")),
    )
    assert list(steps(desired_routes(SECOND, 7), ())) == [Put(r) for r in desired_routes(SECOND, 7)]


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_steps_lead_to_the_wish_and_nothing_is_briefly_missing(
    want: set[int], have: set[int]
) -> None:
    there, least = set(have), set(have)
    for step in steps(want, have):
        match step:
            case Put(what):
                assert isinstance(what, int)
                there.add(what)
            case Delete(what):
                assert isinstance(what, int)
                there.discard(what)
        least &= there | (have - want)
        assert want & have <= there
    assert there == want
    assert list(steps(want, want)) == []


WISH = nft.NftWish(
    vpc_cidrs=(IPv4Network("10.0.0.0/16"), IPv4Network("100.64.0.0/16")),
    node_primary=IPv4Address("10.0.1.4"),
    eni_numbers=3,
)


def test_the_table_has_no_set_and_no_map() -> None:
    text = nft.render(WISH)
    assert not re.search(r"\bset\s+\w+\s*\{|\bmap\b|@|vmap", text)


def test_the_decision_comes_after_every_dnat_and_not_in_a_nat_chain() -> None:
    leave = nft.render(WISH).split("chain leave {")[1].split("}")[0]
    assert "type filter hook prerouting priority dstnat + 10" in leave


@pytest.mark.parametrize("bit", [7, 15, 23, 31])
def test_only_our_byte_of_a_mark_is_written(bit: int) -> None:
    marks = Marks(1 << bit)
    written = re.findall(
        r"mark set (.*?)(?: accept)?$", nft.render(replace(WISH, marks=marks)), re.MULTILINE
    )
    assert written
    for rule in written:
        kept, _, bits = rule.partition(" or ")
        assert int(bits, 16) & ~marks.mask == 0
        assert kept == "ct mark" or int(kept.rpartition(" and ")[2], 16) == marks.mask ^ 0xFFFFFFFF


def test_what_decides_for_life_is_asked_of_the_first_packet_only() -> None:
    (jump,) = (line for line in nft.render(WISH).splitlines() if "jump outside" in line)
    assert jump.strip() == "ct status and 0x8 == 0x0 jump outside"


def test_every_eni_the_instance_may_have_is_there_already() -> None:
    text = nft.render(WISH)
    assert all(
        f"chain via{n} " in text and f"iifgroup {5248 + n} goto came{n}" in text for n in (1, 2, 3)
    )
    assert "via4" not in text


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        pytest.param(
            {"external_snat": True},
            ["chain masq", "chain outside", "jump outside"],
            id="nat-gateway",
        ),
        pytest.param({"node_port_support": False}, ["goto came1"], id="no-node-ports"),
        pytest.param({"randomize": ""}, ["fully-random"], id="no-random-ports"),
    ],
)
def test_what_is_switched_off_is_absent(change: dict[str, Any], missing: list[str]) -> None:
    wish = replace(WISH, **change)
    assert all(text in nft.render(WISH) for text in missing)
    assert not any(text in nft.render(wish) for text in missing)


def test_a_connection_that_was_translated_keeps_its_way_under_external_snat() -> None:
    text = nft.render(replace(WISH, external_snat=True))
    marked, leave = (
        text.split(f"chain {name} {{")[1].split("}")[0] for name in ("marked", "leave")
    )
    assert "ct mark and 0xff != 0x0 goto marked\n  iifgroup 5122 meta mark set" in leave
    assert "ct direction reply goto back\n  ct mark and 0x80 == 0x80 goto via1" in marked


@pytest.mark.parametrize(
    ("change", "present"),
    [
        pytest.param({"mss_clamp": True}, ["maxseg size set rt mtu"], id="clamp"),
        pytest.param(
            {"block_metadata": True},
            ["ip daddr 169.254.169.254 counter drop", "ip6 daddr fd00:ec2::254 counter drop"],
            id="metadata",
        ),
    ],
)
def test_what_a_setting_asks_for_is_there_and_not_without(
    change: dict[str, Any], present: list[str]
) -> None:
    assert all(text in nft.render(replace(WISH, **change)) for text in present)
    assert not any(text in nft.render(WISH) for text in present)


def test_what_is_written_anew_leaves_no_chain_of_before() -> None:
    text = nft.anew(nft.render(WISH))
    for family in nft.FAMILIES:
        table = f"table {family} enid"
        assert f"add {table}\ndelete {table}\nadd {table}\n{table} {{" in text
    assert "flush" not in text


def test_a_kernel_without_ipv6_gets_the_rest() -> None:
    text = nft.without_ipv6(nft.render(WISH))
    assert "ip6" not in text
    assert nft.render(WISH).startswith(text)
    assert text.endswith('"\n')


def test_each_feature_that_is_probed_is_one_that_the_tables_use() -> None:
    assert all(
        "enid-probe" in probe and "; policy accept;" in probe
        for probe in nft.features(replace(WISH, mss_clamp=True)).values()
    )


def test_what_only_a_setting_needs_is_probed_only_with_it() -> None:
    more = nft.features(replace(WISH, mss_clamp=True)).keys() - nft.features(WISH).keys()
    assert more == nft.CLAMP_FEATURES.keys()
    assert all("ENID_MSS_CLAMP" in name for name in more)


def test_excluded_cidrs_are_neither_marked_nor_translated() -> None:
    wish = nft.NftWish(
        vpc_cidrs=WISH.vpc_cidrs,
        node_primary=WISH.node_primary,
        eni_numbers=1,
        excluded_cidrs=(IPv4Network("192.168.0.0/16"),),
    )
    assert nft.render(wish).count("ip daddr 192.168.0.0/16 return") == 2
    assert nft.fingerprint("a") != nft.fingerprint("b")


def listed(text: str) -> str:
    """The table as nft lists it: other words, the same lines and the comment."""
    v4, _, v6 = text.partition("add table ip6 enid\n")
    first = v4.splitlines()[-1].removeprefix("insert rule ip enid others ")
    body = v4.replace(" chain others {", f" chain others {{\n  {first}") + v6
    keep = [
        line for line in body.splitlines() if not line.startswith(("add ", "flush ", "insert "))
    ]
    return "\n".join(keep).replace("\n  ", "\n\t\t")


def test_a_table_is_in_force_while_it_has_its_mark_and_all_its_rules() -> None:
    text = nft.render(WISH)
    there = listed(text)
    assert nft.is_in_force(text, there)
    assert not nft.is_in_force(text, "")
    assert not nft.is_in_force("table ip enid {}", there)
    assert not nft.is_in_force(text, there.replace("\t\tiifgroup 5249 goto came1\n", ""))
    other = nft.NftWish(vpc_cidrs=(), node_primary=WISH.node_primary, eni_numbers=3)
    assert not nft.is_in_force(nft.render(other), there)


def test_a_node_wide_sysctl_that_is_not_as_it_must_be_is_named_with_its_value() -> None:
    found = {**dataplane.NODE_SYSCTLS, "net.ipv4.ip_forward": "0"}
    assert dataplane.sysctl_complaints(dataplane.NODE_SYSCTLS) == ()
    assert dataplane.sysctl_complaints(found) == ("net.ipv4.ip_forward is 0 and must be 1",)
