"""What the kernel should hold, as values; and the nft table as text."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import dataplane, nft
from cni.dataplane import (
    Alias,
    Delete,
    EniLink,
    Put,
    Route,
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


def test_only_our_byte_of_a_mark_is_written() -> None:
    marks = re.findall(r"mark set .*", nft.render(WISH))
    assert marks
    assert all(m.startswith("mark set ct mark or 0x80") or "and 0xffffff00 or" in m for m in marks)


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
        pytest.param({"node_port_support": False}, ["chain arrive"], id="no-node-ports"),
        pytest.param({"randomize": ""}, ["fully-random"], id="no-random-ports"),
    ],
)
def test_what_is_switched_off_is_absent(change: dict[str, object], missing: list[str]) -> None:
    wish = nft.NftWish(**{**{f: getattr(WISH, f) for f in WISH.__slots__}, **change})
    assert all(text in nft.render(WISH) for text in missing)
    assert not any(text in nft.render(wish) for text in missing)


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
    first = text.splitlines()[-1].removeprefix("add rule ip enid spoof ")
    body = text.replace("\n  ", "\n\t\t").replace(" chain spoof {", f" chain spoof {{\n\t\t{first}")
    return "\n".join(body.splitlines()[2:-1])


def test_a_table_is_in_force_while_it_has_its_mark_and_all_its_rules() -> None:
    text = nft.render(WISH)
    there = listed(text)
    assert nft.is_in_force(text, there)
    assert not nft.is_in_force(text, "")
    assert not nft.is_in_force("table ip enid {}", there)
    assert not nft.is_in_force(text, there.replace("\t\tiifgroup 5249 goto came1\n", ""))
    other = nft.NftWish(vpc_cidrs=(), node_primary=WISH.node_primary, eni_numbers=3)
    assert not nft.is_in_force(nft.render(other), there)
