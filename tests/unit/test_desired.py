"""What is wanting of the node's side of the kernel, and the steps that mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.dataplane import (
    ENI_GROUP,
    GUARD_METRIC,
    HOST_MAC,
    POD_GROUP,
    PODS_TABLE,
    PROTOCOL,
    Address,
    Alias,
    EniLink,
    Network,
    Routing,
    Rule,
    desired_rules,
    pod_mac,
)
from cni.desired import (
    ENI_CONF,
    METRIC_V6,
    POD_CONF,
    PRIMARY_CONF,
    DeleteAddress,
    DeleteRule,
    DeleteWay,
    Desired,
    Found,
    FoundLink,
    FoundRule,
    Known,
    Lookup,
    Neighbour,
    OddRule,
    OwnAddress,
    Part,
    PodWire,
    PutAddress,
    PutNeighbour,
    PutRule,
    PutWay,
    Repair,
    SetLink,
    Step,
    Way,
    WriteTable,
    mending,
    moved,
    rule_words,
    spared,
)
from cni.kernel import Heard
from cni.nft import NftWish, render
from cni.nft_found import FoundTable, difference, rendered_chains
from cni.spec import Sandbox
from tests.unit.test_nft_found import written

SUBNET = IPv4Network("10.0.0.0/24")
NODE = IPv4Address("10.0.0.4")
PRIMARY = EniLink(1, "02:00:00:00:00:01", NODE, SUBNET, None)
SECOND = EniLink(2, "02:00:00:00:00:02", IPv4Address("10.0.0.20"), SUBNET, 9001)
OWN = IPv4Interface("10.0.0.20/24")
TEXT = render(NftWish(vpc_cidrs=(SUBNET,), node_primary=NODE, eni_numbers=2))


def pod(number: int, *addresses: str, eni: int = 1) -> PodWire:
    sandbox = Sandbox("enid", f"c{number}", "eth0")
    parsed: tuple[Address, ...] = tuple(map(ip_address, addresses))
    return PodWire(
        sandbox=sandbox,
        addresses=parsed,
        eni_number=eni,
        alias=Alias(sandbox, f"uid{number}", parsed, f"eni-{eni}"),
        source=NODE,
        who=f"default/web-{number}",
        name=f"eni{number:011x}",
    )


POD = pod(0, "10.0.0.5")
DUAL = pod(1, "10.0.0.21", "2001:db8::21", eni=2)
GUARDS: frozenset[Network] = frozenset({IPv4Network("10.0.0.5/32"), IPv6Network("2001:db8::/80")})
WANT = Desired(
    enis=(PRIMARY, SECOND),
    pods=(POD, DUAL),
    guards=GUARDS,
    table=TEXT,
    routing=Routing(external=(IPv4Network("192.168.0.0/16"),)),
)


def link_of(wire: PodWire, index: int) -> FoundLink:
    group, conf = POD_GROUP + wire.eni_number, tuple(POD_CONF.items())
    alias = wire.alias.text()
    return link(index, wire.name, HOST_MAC, group=group, alias=alias, conf=conf)


def link(index: int, name: str, mac: str, **values: Any) -> FoundLink:
    usual: dict[str, Any] = {"mtu": 9001, "is_up": True, "group": 0, "alias": ""}
    return FoundLink(index=index, name=name, mac=mac, **(usual | values))


LINKS = (
    link(1, "lo", "00:00:00:00:00:00"),
    link(2, "ens5", PRIMARY.mac, group=ENI_GROUP + 1, conf=tuple(PRIMARY_CONF.items())),
    link(3, "ens6", SECOND.mac, group=ENI_GROUP + 2, conf=tuple(ENI_CONF.items())),
    link_of(POD, 4),
    link_of(DUAL, 5),
    link(6, "ipvl0", SECOND.mac, alias="hangs on ens6"),
)
WAYS = (
    Way(IPv4Network("10.0.0.1/32"), 2, 0, 3),
    Way(IPv4Network("0.0.0.0/0"), 2, 0, 3, IPv4Address("10.0.0.1")),
    *(Way(network, PODS_TABLE, GUARD_METRIC) for network in GUARDS),
    Way(IPv4Network("10.0.0.5/32"), PODS_TABLE, 0, 4, source=NODE),
    Way(IPv4Network("10.0.0.21/32"), PODS_TABLE, 0, 5, source=NODE),
    Way(IPv6Network("2001:db8::21/128"), PODS_TABLE, METRIC_V6, 5),
    Way(IPv4Network("203.0.113.9/32"), PODS_TABLE, 0, 1, protocol=3),
)
STRANGER = FoundRule(Rule(512, 77), 0)
ODD = OddRule("600: from all blackhole", b"body")
TURNED = OddRule("512: not from all lookup 5120", b"turned", Rule(512, PODS_TABLE))
HAVE = Found(
    links=LINKS,
    ways=WAYS,
    rules=(
        STRANGER,
        *(FoundRule(rule, PROTOCOL) for rule in desired_rules(WANT.enis, WANT.routing)),
    ),
    addresses=(
        OwnAddress(2, IPv4Interface("10.0.0.4/24"), is_silent=False),
        OwnAddress(3, OWN, is_silent=True),
    ),
    neighbours=frozenset(
        Neighbour(index, address, pod_mac(wire.addresses[0]))
        for wire, index in ((POD, 4), (DUAL, 5))
        for address in wire.addresses
    ),
    table=written(TEXT),
)


def without_way(index: int) -> Found:
    return replace(HAVE, ways=(*WAYS[:index], *WAYS[index + 1 :]))


def with_way(at: int, **changes: object) -> Found:
    changed = replace(WAYS[at], **changes)  # type: ignore[arg-type]  # a Way's own fields
    return replace(HAVE, ways=(*WAYS[:at], changed, *WAYS[at + 1 :]))


def with_link(at: int, **changes: object) -> Found:
    changed = replace(LINKS[at], **changes)  # type: ignore[arg-type]  # a FoundLink's own fields
    return replace(HAVE, links=(*LINKS[:at], changed, *LINKS[at + 1 :]))


def sentences(want: Desired, have: Found, known: Known | None = None) -> list[str]:
    return [repair.sentence for repair in mending(want, have, known)]


def test_where_nothing_is_wanting_nothing_is_mended() -> None:
    assert list(mending(WANT, HAVE)) == []


def rules_without(*preferences: int) -> Found:
    left = (r for r in HAVE.rules if r is STRANGER or r.rule.preference not in preferences)
    return replace(HAVE, rules=tuple(left))


OTHER_MAC = "02:00:00:00:00:77"

DRIFTS: dict[str, tuple[Found, str, Step]] = {
    "the rule of pods": (
        rules_without(512),
        "rule 512: from all lookup 5120 had vanished",
        PutRule(Rule(512, PODS_TABLE)),
    ),
    "a rule of an external network": (
        rules_without(1535),
        "rule 1535: from all to 192.168.0.0/16 lookup main had vanished",
        PutRule(Rule(1535, 254, destination=IPv4Network("192.168.0.0/16"))),
    ),
    "a rule too many": (
        replace(HAVE, rules=(*HAVE.rules, FoundRule(Rule(600, 7, source=NODE), PROTOCOL))),
        "rule 600: from 10.0.0.4 lookup 7 carries our protocol and is not needed",
        DeleteRule(Rule(600, 7, source=NODE)),
    ),
    "a rule that is like none of ours": (
        replace(HAVE, odd=(ODD,)),
        "rule 600: from all blackhole carries our protocol and is not needed",
        DeleteRule(ODD),
    ),
    "a rule that asks less than ours": (
        replace(HAVE, rules=(*HAVE.rules, FoundRule(Rule(32765, 2), PROTOCOL))),
        "rule 32765: from all lookup 2 carries our protocol and is not needed",
        DeleteRule(Rule(32765, 2), (Rule(32765, 2, source=SECOND.address),)),
    ),
    "a rule that turns ours round": (
        replace(HAVE, odd=(TURNED,)),
        "rule 512: not from all lookup 5120 carries our protocol and is not needed",
        DeleteRule(TURNED, (Rule(512, PODS_TABLE),)),
    ),
    "a route of some packets": (
        replace(HAVE, ways=(*WAYS, replace(WAYS[1], tos=0x10))),
        "route default tos 0x10 in table 2 carries our protocol and is not needed",
        DeleteWay(replace(WAYS[1], tos=0x10)),
    ),
    "a route behind ours in its place": (
        replace(HAVE, ways=(*WAYS, replace(WAYS[4], index=2))),
        "route 10.0.0.5/32 in table 5120 carries our protocol and is not needed",
        DeleteWay(replace(WAYS[4], index=2)),
    ),
    "a route before ours in its place": (
        replace(HAVE, ways=(replace(WAYS[4], index=2), *WAYS)),
        "route to 10.0.0.5 of default/web-0 led to link #2 instead of #4",
        PutWay(WAYS[4]),
    ),
    "an ENI's route": (
        without_way(1),
        "route default of ENI 2, table 2 had vanished",
        PutWay(WAYS[1]),
    ),
    "an ENI's route by another gateway": (
        with_way(1, gateway=IPv4Address("10.0.0.9")),
        "route default of ENI 2, table 2 had another gateway, source or protocol",
        PutWay(WAYS[1]),
    ),
    "an ENI's route too many": (
        replace(HAVE, ways=(*WAYS, Way(IPv4Network("10.9.0.0/16"), 2, 0, 3))),
        "route 10.9.0.0/16 in table 2 carries our protocol and is not needed",
        DeleteWay(Way(IPv4Network("10.9.0.0/16"), 2, 0, 3)),
    ),
    "a pod's route": (
        without_way(4),
        "route to 10.0.0.5 of default/web-0 had vanished",
        PutWay(WAYS[4]),
    ),
    "a pod's route of IPv6": (
        without_way(6),
        "route to 2001:db8::21 of default/web-1 had vanished",
        PutWay(WAYS[6]),
    ),
    "a pod's route elsewhere": (
        with_way(4, index=2),
        "route to 10.0.0.5 of default/web-0 led to link #2 instead of #4",
        PutWay(WAYS[4]),
    ),
    "a pod's route to nowhere": (
        with_way(4, index=0, source=None),
        "route to 10.0.0.5 of default/web-0 was unreachable instead of #4",
        PutWay(WAYS[4]),
    ),
    "a pod's route that drops": (
        with_way(4, index=0, source=None, kind="blackhole"),
        "route to 10.0.0.5 of default/web-0 was of type blackhole",
        PutWay(WAYS[4]),
    ),
    "a blackhole too many": (
        replace(HAVE, ways=(*WAYS, Way(IPv4Network("9.9.9.9/32"), PODS_TABLE, kind="blackhole"))),
        "blackhole 9.9.9.9/32 in table 5120 carries our protocol and is not needed",
        DeleteWay(Way(IPv4Network("9.9.9.9/32"), PODS_TABLE, kind="blackhole")),
    ),
    "a pod's route too many": (
        replace(HAVE, ways=(*WAYS, Way(IPv4Network("10.0.0.99/32"), PODS_TABLE, 0, 4))),
        "route 10.0.0.99/32 in table 5120 carries our protocol and is not needed",
        DeleteWay(Way(IPv4Network("10.0.0.99/32"), PODS_TABLE, 0, 4)),
    ),
    "a guard that leads somewhere": (
        with_way(2, index=2),
        f"guard of {WAYS[2].network} led to link #2",
        PutWay(WAYS[2]),
    ),
    "a guard too many": (
        replace(HAVE, ways=(*WAYS, Way(IPv4Network("10.0.0.99/32"), PODS_TABLE, GUARD_METRIC))),
        "guard 10.0.0.99/32 in table 5120 carries our protocol and is not needed",
        DeleteWay(Way(IPv4Network("10.0.0.99/32"), PODS_TABLE, GUARD_METRIC)),
    ),
    "a neighbour": (
        replace(HAVE, neighbours=HAVE.neighbours - {Neighbour(4, POD.addresses[0], "")}
                - {n for n in HAVE.neighbours if n.index == 4}),
        "permanent neighbour 10.0.0.5 of default/web-0 had vanished",
        PutNeighbour(Neighbour(4, POD.addresses[0], "0a:58:0a:00:00:05")),
    ),
    "a neighbour's MAC": (
        replace(HAVE, neighbours=frozenset(
            replace(n, mac=OTHER_MAC) if n.index == 4 else n for n in HAVE.neighbours)),
        "permanent neighbour 10.0.0.5 of default/web-0 had another MAC",
        PutNeighbour(Neighbour(4, POD.addresses[0], "0a:58:0a:00:00:05")),
    ),
    "an ENI's address": (
        replace(HAVE, addresses=HAVE.addresses[:1]),
        "address 10.0.0.20/24 of ens6 had vanished",
        PutAddress(3, OWN),
    ),
    "an ENI's address that makes a route": (
        replace(HAVE, addresses=(*HAVE.addresses[:1], OwnAddress(3, OWN, is_silent=False))),
        "address 10.0.0.20/24 of ens6 made a route in main",
        PutAddress(3, OWN, anew=True),
    ),
    "a pod's address on an ENI": (
        replace(HAVE, addresses=(
            *HAVE.addresses, OwnAddress(3, IPv4Interface("10.0.0.21/32"), is_silent=False))),
        "address 10.0.0.21/32 of ens6 is foreign to an ENI of pods",
        DeleteAddress(3, IPv4Interface("10.0.0.21/32")),
    ),
    "an ENI down": (with_link(2, is_up=False), "link ens6 of ENI 2: was down", SetLink(3, is_up=True)),
    "an ENI's MTU and group": (
        with_link(2, mtu=1500, group=0),
        "link ens6 of ENI 2: its group was 0 and must be 5250, its MTU was 1500 and must be 9001",
        SetLink(3, group=5250, mtu=9001),
    ),
    "the primary's rp_filter": (
        with_link(1, conf=(*tuple(PRIMARY_CONF.items())[:1], ("rp_filter", 0))),
        "link ens5 of ENI 1: rp_filter was 0 and must be 2",
        SetLink(2, conf=(("rp_filter", 2),)),
    ),
    "a veth's MAC": (
        with_link(3, mac=OTHER_MAC),
        f"veth {POD.name} of default/web-0: its MAC was {OTHER_MAC} and must be {HOST_MAC}",
        SetLink(4, mac=HOST_MAC),
    ),
    "a veth's alias": (
        with_link(3, alias=""),
        f"veth {POD.name} of default/web-0: its alias had vanished",
        SetLink(4, alias=POD.alias.text()),
    ),
    "a veth's name": (
        with_link(3, name="mine"),
        f"veth {POD.name} of default/web-0: its name was 'mine' and must be '{POD.name}'",
        SetLink(4, name=POD.name),
    ),
    "a veth's name while it is down": (
        with_link(3, name="mine", is_up=False),
        f"veth {POD.name} of default/web-0: was down, its name was 'mine' and must be '{POD.name}'",
        SetLink(4, is_up=True, name=POD.name),
    ),
    "the nft tables": (
        replace(HAVE, table=FoundTable()),
        "nft table enid had vanished (ip, ip6)",
        WriteTable(TEXT),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("have", "sentence", "step"), DRIFTS.values(), ids=DRIFTS.keys())
def test_what_drifted_is_named_and_mended(have: Found, sentence: str, step: Step) -> None:
    (repair,) = mending(WANT, have)
    assert (repair.sentence, repair.step) == (sentence, step)


@pytest.mark.parametrize(("have", "sentence", "step"), DRIFTS.values(), ids=DRIFTS.keys())
def test_only_what_is_too_much_is_taken_away(have: Found, sentence: str, step: Step) -> None:
    (repair,) = mending(WANT, have)
    is_surplus = "not needed" in sentence or "foreign" in sentence
    assert repair.takes_away == isinstance(step, DeleteAddress | DeleteRule | DeleteWay)
    assert repair.takes_away == is_surplus


def test_the_parts_of_one_look_are_those_that_drifted() -> None:
    parts = {next(mending(WANT, have)).part for have, _, _ in DRIFTS.values()}
    assert parts == set(Part)


def test_with_nothing_there_only_the_rules_the_guards_and_the_tables_can_be_put() -> None:
    parts = {repair.part for repair in mending(WANT, Found(table=FoundTable()))}
    assert parts == {Part.RULE, Part.GUARD, Part.TABLE}


def test_tables_that_were_not_looked_at_or_are_being_written_are_let_alone() -> None:
    assert sentences(WANT, replace(HAVE, table=None)) == []
    assert sentences(replace(WANT, table=""), replace(HAVE, table=FoundTable())) == []


def test_while_an_eni_is_awaited_nothing_is_too_much() -> None:
    have = replace(HAVE, ways=(*WAYS, Way(IPv4Network("10.0.0.99/32"), PODS_TABLE, 0, 4)))
    rules = (*HAVE.rules, FoundRule(Rule(1536, 3, 3, 0x7F), PROTOCOL))
    assert sentences(replace(WANT, is_whole=False), replace(have, rules=rules)) == []


def test_a_guard_that_comes_or_goes_may_be_there_or_not() -> None:
    network = IPv4Network("10.0.0.64/28")
    want = replace(WANT, guards=GUARDS | {network}, unsure=frozenset({network}))
    assert sentences(want, HAVE) == []
    there = replace(HAVE, ways=(*WAYS, Way(network, PODS_TABLE, GUARD_METRIC)))
    assert sentences(replace(want, guards=GUARDS), there) == []


# Whose a link is -----------------------------------------------------------------------
def learned() -> Known:
    known = Known()
    known.learn(WANT, HAVE)
    return known


def test_a_link_is_known_by_its_index_when_its_mac_and_alias_are_others() -> None:
    have = with_link(2, mac=OTHER_MAC)
    assert sentences(WANT, have, learned())[0] == (
        f"link ens6 of ENI 2: its MAC was {OTHER_MAC} and must be {SECOND.mac}"
    )
    have = with_link(3, alias="mine", name="mine")
    (sentence,) = sentences(WANT, have, learned())
    assert sentence.split(": ")[1].split(", ") == [
        f"its alias was 'mine' and must be {POD.alias.text()!r}",
        f"its name was 'mine' and must be {POD.name!r}",
    ]


@pytest.mark.parametrize("alias", ["", "mine"], ids=["no-alias", "somebodys"])
def test_a_link_of_a_pods_name_is_the_pods_whatever_alias_somebody_gave_it(alias: str) -> None:
    (repair,) = mending(WANT, with_link(3, alias=alias))
    assert repair.step == SetLink(4, alias=POD.alias.text())


def test_a_link_that_says_it_is_another_pods_is_not_touched_and_nothing_is_taken_away() -> None:
    assert sentences(WANT, with_link(3, alias=pod(7, "10.0.0.7").alias.text())) == []


def test_owners_are_known_by_index_until_the_whole_was_seen_without_them() -> None:
    known = learned()
    assert dict(known.owners) == {4: POD.sandbox, 5: DUAL.sandbox}
    known.learn(WANT, Found(links=(LINKS[3],)), whole=False)
    assert len(known.owners) == 2
    known.learn(WANT, Found(links=LINKS[:4]))
    assert dict(known.owners) == {4: POD.sandbox}


def test_a_pod_without_a_veth_is_found_nowhere() -> None:
    assert Lookup(Found(), Known()).pod(POD) is None


# nft -----------------------------------------------------------------------------------
def test_a_rule_that_was_replaced_is_noticed_once_the_tables_were_seen_as_written() -> None:
    first, *others = written(TEXT).rules
    swapped = replace(written(TEXT), rules=(replace(first, content=-1), *others))
    have = replace(HAVE, table=swapped)
    assert sentences(WANT, have) == []
    assert sentences(WANT, have, learned()) == ["nft table enid has other rules than were written"]


def test_what_the_tables_were_is_learnt_only_when_they_are_as_written() -> None:
    known = Known()
    known.learn(WANT, replace(HAVE, table=FoundTable()))
    assert known.table is None
    known.learn(WANT, HAVE)
    assert known.table == HAVE.table


def test_the_table_that_is_written_is_the_one_that_is_compared() -> None:
    assert difference(TEXT, written(TEXT)) == ""
    assert len(rendered_chains(TEXT)) > 8


# Upgrades ------------------------------------------------------------------------------
def test_pods_routes_that_another_version_has_elsewhere_come_first() -> None:
    elsewhere = tuple(replace(way, table=5000) for way in WAYS[4:7])
    have = replace(HAVE, ways=(*WAYS[:4], *elsewhere, *WAYS[7:]))
    assert [step.way for step in moved(have, NODE)] == list(WAYS[4:7])
    assert moved(HAVE, NODE) == ()


def test_what_another_version_has_elsewhere_goes_once_ours_is_in() -> None:
    old = Way(IPv4Network("10.0.0.5/32"), 5000, 0, 4, source=NODE)
    (repair,) = mending(WANT, replace(HAVE, ways=(*WAYS, old)))
    assert (repair.step, repair.part) == (DeleteWay(old), Part.ENI_ROUTE)


# Laws ----------------------------------------------------------------------------------
def taken(have: Found, repair: Repair) -> Found:
    """Return what is there after *repair*."""
    step = repair.step
    take: Callable[..., Found] = _TAKE[type(step)]
    return take(have, step)


def _set_link(have: Found, step: SetLink) -> Found:
    def changed(link: FoundLink) -> FoundLink:
        if link.index != step.index:
            return link
        names = ("is_up", "group", "alias", "mac", "mtu", "name")
        values = {n: getattr(step, n) for n in names if getattr(step, n) is not None}
        return replace(link, conf=tuple((dict(link.conf) | dict(step.conf)).items()), **values)

    return replace(have, links=tuple(map(changed, have.links)))


def _put_way(have: Found, step: PutWay) -> Found:
    others = (way for way in have.ways if way.key != step.way.key)
    return replace(have, ways=(*others, step.way))


def _put_address(have: Found, step: PutAddress) -> Found:
    others = (a for a in have.addresses if (a.index, a.address) != (step.index, step.address))
    own = OwnAddress(step.index, step.address, is_silent=True)
    return replace(have, addresses=(*others, own))


def _delete_address(have: Found, step: DeleteAddress) -> Found:
    left = (a for a in have.addresses if (a.index, a.address) != (step.index, step.address))
    return replace(have, addresses=tuple(left))


def _put_neighbour(have: Found, step: PutNeighbour) -> Found:
    new = step.neighbour
    others = {n for n in have.neighbours if (n.index, n.address) != (new.index, new.address)}
    return replace(have, neighbours=frozenset(others | {new}))


_TAKE: dict[type, Callable[..., Found]] = {
    SetLink: _set_link,
    PutWay: _put_way,
    DeleteWay: lambda have, step: replace(
        have, ways=tuple(way for way in have.ways if way.key != step.way.key)
    ),
    PutRule: lambda have, step: replace(have, rules=(*have.rules, FoundRule(step.rule, PROTOCOL))),
    DeleteRule: lambda have, step: replace(
        have,
        rules=tuple(r for r in have.rules if r != FoundRule(step.rule, PROTOCOL)),
        odd=tuple(r for r in have.odd if r != step.rule),
    ),
    PutAddress: _put_address,
    DeleteAddress: _delete_address,
    PutNeighbour: _put_neighbour,
    WriteTable: lambda have, step: replace(have, table=written(step.text)),
}

ways = st.builds(
    Way,
    st.sampled_from([way.network for way in WAYS] + [IPv4Network("10.0.0.99/32")]),
    st.sampled_from([2, PODS_TABLE]),
    st.sampled_from([0, METRIC_V6, GUARD_METRIC]),
    st.sampled_from([0, 2, 3, 4, 5]),
    protocol=st.sampled_from([3, PROTOCOL]),
    tos=st.sampled_from([0, 0x10]),
)
links = st.sampled_from(range(1, 6)).flatmap(
    lambda at: st.builds(
        lambda **kw: replace(LINKS[at], **kw),
        is_up=st.booleans(),
        group=st.sampled_from([0, 5121, 5249]),
        mtu=st.sampled_from([1500, 9001]),
        alias=st.sampled_from([LINKS[at].alias, "", "mine"]),
        mac=st.sampled_from([LINKS[at].mac, OTHER_MAC]),
        name=st.sampled_from([LINKS[at].name, "mine"]),
    )
)
founds = st.builds(
    Found,
    links=st.lists(links, unique_by=lambda link: link.index).map(tuple),
    ways=st.lists(ways, unique_by=lambda way: way.key).map(tuple),
    rules=st.lists(
        st.sampled_from((*HAVE.rules, FoundRule(Rule(1536, 2), PROTOCOL))), unique=True
    ).map(tuple),
    odd=st.lists(st.sampled_from([ODD, TURNED]), unique=True).map(tuple),
    addresses=st.lists(
        st.sampled_from([*HAVE.addresses, OwnAddress(3, OWN, is_silent=False)]), unique=True
    ).map(tuple),
    neighbours=st.frozensets(st.sampled_from(sorted(HAVE.neighbours, key=str))),
    table=st.sampled_from([HAVE.table, FoundTable(), None]),
)


@given(founds)
def test_what_was_mended_once_needs_no_mending(have: Found) -> None:
    known = learned()
    for repair in list(mending(WANT, have, known)):
        have = taken(have, repair)
    assert list(mending(WANT, have, known)) == []


@given(founds)
def test_puts_come_before_deletes_and_what_is_not_ours_stays(have: Found) -> None:
    known, before = learned(), have
    repairs = list(mending(WANT, have, known))
    order = [repair.takes_away for repair in repairs]
    assert order == sorted(order)
    for repair in repairs:
        have = taken(have, repair)
    put = {r.step.way.key for r in repairs if isinstance(r.step, PutWay)}
    foreign = {w for w in before.ways if w.protocol != PROTOCOL and w.key not in put}
    assert foreign <= set(have.ways)
    assert (STRANGER in before.rules) == (STRANGER in have.rules)
    primary = [a for a in before.addresses if a.index == 2]
    assert primary == [a for a in have.addresses if a.index == 2]


def test_a_rule_is_said_as_ip_says_it() -> None:
    rule = Rule(1536, 2, fwmark=2, fwmask=0x7F)
    assert rule_words(rule) == "1536: from all fwmark 0x2/0x7f lookup 2"
    assert rule_words(Rule(9, 254, source=NODE)) == "9: from 10.0.0.4 lookup main"


def test_an_ipv6_address_needs_no_source_of_the_other_family() -> None:
    assert IPv6Address("2001:db8::21") in DUAL.addresses
    assert next(w for w in WAYS if w.metric == METRIC_V6).source is None


@pytest.mark.parametrize(
    ("heard", "anything"),
    [
        (Heard(), False),
        (Heard(by="kube-proxy"), False),
        (Heard(everything=True), True),
        (Heard(table=True), True),
        (Heard(links={7}), True),
    ],
    ids=["nothing", "a name alone", "everything", "the table", "a link"],
)
def test_what_was_heard_is_something_where_there_is_something_to_look_at(
    heard: Heard, *, anything: bool
) -> None:
    assert bool(heard) is anything


OWN_RULE = Rule(1536, 2, 2, 0x7F)
TO_RULE = Rule(1535, 254, destination=SUBNET)

TAKEN: dict[str, tuple[Rule | None, tuple[Rule, ...]]] = {
    "nothing": (None, ()),
    "itself": (OWN_RULE, (OWN_RULE,)),
    "without-its-mark": (Rule(1536, 2), (OWN_RULE,)),
    "another-mark": (Rule(1536, 2, 3, 0x7F), ()),
    "another-mask": (Rule(1536, 2, 2, 0xFF), ()),
    "another-table": (Rule(1536, 3), ()),
    "another-preference": (Rule(1537, 2), ()),
    "to-anywhere": (Rule(1535, 254, destination=IPv4Network("0.0.0.0/0")), (TO_RULE,)),
    "to-elsewhere": (Rule(1535, 254, destination=IPv4Network("10.9.0.0/16")), ()),
    "from-somewhere": (Rule(1536, 2, source=NODE), ()),
}


@pytest.mark.parametrize(("asked", "taken_for_it"), TAKEN.values(), ids=TAKEN.keys())
def test_a_deletion_may_take_what_has_all_that_is_asked_for(
    asked: Rule | None, taken_for_it: tuple[Rule, ...]
) -> None:
    assert spared(asked, (OWN_RULE, TO_RULE)) == taken_for_it
