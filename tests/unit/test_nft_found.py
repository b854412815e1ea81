"""What differs between the nft tables as written and as the kernel shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from cni.nft import NftWish, render
from cni.nft_found import (
    FoundChain,
    FoundNftRule,
    FoundTable,
    difference,
    is_elsewhere,
    mark_of,
    rendered_chains,
)

WISH = NftWish(
    vpc_cidrs=(IPv4Network("10.0.0.0/16"),), node_primary=IPv4Address("10.0.0.4"), eni_numbers=2
)
TEXT = render(WISH)


def written(text: str = TEXT) -> FoundTable:
    """Return what the kernel shows of what *text* makes."""
    chains = rendered_chains(text)
    places = [chain for chain, number in chains.items() for _ in range(number)]
    rules = (FoundNftRule(c.family, c.name, i, mark_of(text)) for i, c in enumerate(places))
    return FoundTable(tuple(sorted(chains)), tuple(rules))


def test_what_was_written_differs_in_nothing() -> None:
    assert difference(TEXT, written()) == ""


def test_base_chains_have_a_hook_and_a_policy() -> None:
    chains = set(rendered_chains(TEXT))
    assert FoundChain("ip", "leave", "prerouting", "accept") in chains
    assert FoundChain("ip", "via1") in chains
    assert FoundChain("ip6", "spoof", "prerouting", "accept") in chains


def test_a_rule_that_is_added_behind_the_table_counts() -> None:
    # `iifgroup 5376 drop` with the hash, before the one for replies
    assert rendered_chains(TEXT)[FoundChain("ip", "others")] == 2


def test_a_text_that_no_table_was_made_from_has_no_mark() -> None:
    assert mark_of("table ip other {\n}\n") == ""


def without_chain(table: FoundTable) -> FoundTable:
    return replace(table, chains=tuple(c for c in table.chains if c.name != "masq"))


def with_policy(table: FoundTable) -> FoundTable:
    chains = (replace(c, policy=c.policy and "drop") for c in table.chains)
    return replace(table, chains=tuple(chains))


def with_chain(table: FoundTable) -> FoundTable:
    return replace(table, chains=(*table.chains, FoundChain("ip", "mine")))


def with_dropping_chain(table: FoundTable) -> FoundTable:
    chain = FoundChain("ip", "mine", "forward", "drop")
    return replace(table, chains=(*table.chains, chain))


def with_busy_chain(table: FoundTable) -> FoundTable:
    rule = FoundNftRule("ip", "mine", 0)
    return replace(with_chain(table), rules=(*table.rules, rule))


def without_rule(table: FoundTable) -> FoundTable:
    return replace(table, rules=tuple(r for r in table.rules if r.chain != "masq"))


def without_family(table: FoundTable) -> FoundTable:
    return replace(table, chains=tuple(c for c in table.chains if c.family == "ip"))


def of_other_text(table: FoundTable) -> FoundTable:
    return replace(table, rules=tuple(replace(r, comment="enid-0") for r in table.rules))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda _: FoundTable(), "had vanished (ip, ip6)", id="no-table"),
        pytest.param(without_family, "had vanished (ip6)", id="no-ip6-table"),
        pytest.param(without_chain, "lacks chain ip masq, or has it elsewhere", id="no-chain"),
        pytest.param(with_policy, "lacks chain ip arrive, ip leave, ip masq", id="policy"),
        pytest.param(with_dropping_chain, "has a chain more: ip mine", id="a-chain-that-drops"),
        pytest.param(with_busy_chain, "has a chain more: ip mine", id="a-chain-with-a-rule"),
        pytest.param(without_rule, "has 0 rules in chain ip masq instead of 5", id="no-rules"),
        pytest.param(of_other_text, "was made from another text", id="another-text"),
    ],
)
def test_what_was_changed_is_named(change: Callable[[FoundTable], FoundTable], said: str) -> None:
    assert difference(TEXT, change(written())).startswith(said)


def test_an_empty_chain_of_a_former_setting_or_version_stays() -> None:
    assert difference(TEXT, with_chain(written())) == ""
    assert not is_elsewhere(TEXT, with_chain(written()))


def test_a_chain_that_drops_by_itself_cannot_be_emptied_away() -> None:
    assert is_elsewhere(TEXT, with_dropping_chain(written()))
    assert not is_elsewhere(TEXT, with_busy_chain(written()))


def test_a_kernel_without_ipv6_lacks_no_ipv6_table() -> None:
    found = without_family(written())
    assert difference(TEXT, replace(found, families=("ip",))) == ""
