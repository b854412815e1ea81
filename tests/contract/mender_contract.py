"""What `cni.kernel.Mender` promises, as tests: of the model and of Linux.

What `NodeNet` and `Wiring` make is what `cni.desired` wants: that is why a look at a node that
nobody has touched finds nothing to mend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Interface, IPv4Network, ip_network

import pytest

from cni.dataplane import GUARD_METRIC, PODS_TABLE, Alias, Routing, Rule, desired_rules
from cni.desired import (
    DeleteAddress,
    DeleteRule,
    DeleteWay,
    Desired,
    Found,
    Known,
    Lookup,
    Neighbour,
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
    rule_words,
)
from cni.kernel import Mender
from tests.contract.kernel_contract import (
    FORMER_TABLE,
    NAME,
    NET,
    POD,
    POD6,
    PRIMARY,
    SANDBOX,
    SECOND,
    TABLE,
    WISH,
    Bench,
    connect,
)

NEEDLESS = "carries our protocol and is not needed"
ROUTING = Routing(external=(NET.supernet(8),))
ADDRESSES = (POD, POD6)
WIRE = PodWire(
    sandbox=SANDBOX,
    addresses=ADDRESSES,
    eni_number=2,
    alias=Alias(SANDBOX, WISH.pod_uid, ADDRESSES, WISH.eni_id),
    source=NET[4],
    who="default/web",
    name=NAME,
)
WANT = Desired(
    enis=(PRIMARY, SECOND),
    pods=(WIRE,),
    guards=frozenset({ip_network(POD), ip_network(POD6)}),
    table=TABLE,
    routing=ROUTING,
)
OWN = IPv4Interface((SECOND.address, NET.prefixlen))


class MenderBench(Bench):
    """A node, and who mends it."""

    mender: Mender


def look(bench: MenderBench) -> Found:
    """Return everything that is there."""
    found = bench.do(bench.mender.look, (SECOND.number,))
    return replace(found, table=bench.do(bench.mender.look_at_table))


def wanting(bench: MenderBench) -> list[str]:
    """Return what is wanting, in sentences."""
    return [repair.sentence for repair in mending(WANT, look(bench))]


def make(bench: MenderBench) -> Lookup:
    """Make everything as the daemon does; return whose the links are."""
    for eni in WANT.enis:
        bench.do(bench.net.configure_eni, eni)
    bench.do(lambda: bench.net.set_rules(WANT.enis, routing=ROUTING))
    bench.do(bench.net.add_guards, sorted(WANT.guards, key=str))
    bench.do(bench.net.apply_nft, TABLE)
    connect(bench, replace(WISH, addresses=ADDRESSES))
    return Lookup(look(bench), Known())


def mend(bench: MenderBench, *steps: Step) -> tuple[str, ...]:
    """Take steps."""
    return bench.do(bench.mender.mend, steps)


def index_of(lookup: Lookup) -> tuple[int, int]:
    """Return the index of the second ENI's link, and of the pod's."""
    eni, pod = lookup.eni(SECOND), lookup.pod(WIRE)
    assert eni is not None
    assert pod is not None
    return eni.index, pod.index


Sabotage = Callable[[int, int], Step]

SABOTAGES: dict[str, tuple[Sabotage, str]] = {
    "a rule": (
        lambda _eni, _pod: DeleteRule(Rule(512, PODS_TABLE)),
        "rule 512: from all lookup 5120 had vanished",
    ),
    "a rule to a network": (
        lambda _eni, _pod: DeleteRule(Rule(1535, 254, destination=ROUTING.external[0])),
        "rule 1535: from all to 10.0.0.0/16 lookup main had vanished",
    ),
    "a rule from an address": (
        lambda _eni, _pod: DeleteRule(Rule(32765, 2, source=SECOND.address)),
        "rule 32765: from 10.0.1.5 lookup 2 had vanished",
    ),
    "a rule of a mark": (
        lambda _eni, _pod: DeleteRule(Rule(1536, 2, 2, 0x7F)),
        "rule 1536: from all fwmark 0x2/0x7f lookup 2 had vanished",
    ),
    "a rule too many": (
        lambda _eni, _pod: PutRule(Rule(600, PODS_TABLE)),
        "rule 600: from all lookup 5120 carries our protocol and is not needed",
    ),
    "a route of an ENI": (
        lambda eni, _pod: DeleteWay(Way(ip_network("0.0.0.0/0"), 2, 0, eni, NET[1])),
        "route default of ENI 2, table 2 had vanished",
    ),
    "a pod's route": (
        lambda _eni, pod: DeleteWay(Way(ip_network(POD), PODS_TABLE, 0, pod)),
        f"route to {POD} of default/web had vanished",
    ),
    "a pod's route of IPv6": (
        lambda _eni, pod: DeleteWay(Way(ip_network(POD6), PODS_TABLE, 1024, pod)),
        f"route to {POD6} of default/web had vanished",
    ),
    "a pod's route that leads elsewhere": (
        lambda eni, _pod: PutWay(Way(ip_network(POD), PODS_TABLE, 0, eni)),
        f"route to {POD} of default/web led to link #",
    ),
    "a pod's route that is a blackhole": (
        lambda _eni, _pod: PutWay(Way(ip_network(POD), PODS_TABLE, kind="blackhole")),
        f"route to {POD} of default/web was of type blackhole",
    ),
    "a route of an ENI that prohibits": (
        lambda _eni, _pod: PutWay(Way(ip_network("0.0.0.0/0"), 2, kind="prohibit")),
        "route default of ENI 2, table 2 was of type prohibit",
    ),
    "a blackhole too many": (
        lambda _eni, _pod: PutWay(Way(ip_network("9.9.9.9/32"), 2, kind="blackhole")),
        "blackhole 9.9.9.9/32 in table 2 carries our protocol and is not needed",
    ),
    "a prohibit too many": (
        lambda _eni, _pod: PutWay(Way(ip_network("10.0.1.98/32"), PODS_TABLE, kind="prohibit")),
        "prohibit 10.0.1.98/32 in table 5120 carries our protocol and is not needed",
    ),
    "a blackhole of IPv6 too many": (
        lambda _eni, _pod: PutWay(Way(ip_network("fd00::98"), PODS_TABLE, 1024, kind="blackhole")),
        "blackhole fd00::98/128 in table 5120 carries our protocol and is not needed",
    ),
    "a pod's route of some packets": (
        lambda eni, _pod: PutWay(Way(ip_network(POD), PODS_TABLE, 0, eni, tos=0x10)),
        f"route {POD}/32 tos 0x10 in table 5120 carries our protocol and is not needed",
    ),
    "a blackhole of some packets": (
        lambda _eni, _pod: PutWay(Way(ip_network("0.0.0.0/0"), 2, kind="blackhole", tos=8)),
        "blackhole default tos 0x8 in table 2 carries our protocol and is not needed",
    ),
    "a route of IPv6 of some packets": (
        lambda eni, _pod: PutWay(
            Way(ip_network(POD6), PODS_TABLE, 1024, eni, origin=ip_network("fd00:1::/64"))
        ),
        f"route {POD6}/128 from fd00:1::/64 in table 5120 carries our protocol and is not needed",
    ),
    "a guard": (
        lambda _eni, _pod: DeleteWay(Way(ip_network(POD), PODS_TABLE, GUARD_METRIC)),
        f"guard of {POD}/32 had vanished",
    ),
    "a guard of IPv6": (
        lambda _eni, _pod: DeleteWay(Way(ip_network(POD6), PODS_TABLE, GUARD_METRIC)),
        f"guard of {POD6}/128 had vanished",
    ),
    "an ENI's address": (
        lambda eni, _pod: DeleteAddress(eni, OWN),
        f"address {OWN} of ",
    ),
    "an address of somebody": (
        lambda eni, _pod: PutAddress(eni, IPv4Interface("10.0.1.99/32")),
        "address 10.0.1.99/32 of ",
    ),
    "a neighbour's MAC": (
        lambda _eni, pod: PutNeighbour(Neighbour(pod, POD, "02:00:00:00:00:55")),
        f"permanent neighbour {POD} of default/web had another MAC",
    ),
    "an ENI's MTU and group": (
        lambda eni, _pod: SetLink(eni, mtu=1500, group=0),
        "its group was 0 and must be 5250, its MTU was 1500 and must be 9001",
    ),
    "an ENI's settings": (
        lambda eni, _pod: SetLink(eni, conf=(("rp_filter", 1), ("send_redirects", 1))),
        "rp_filter was 1 and must be 2, send_redirects was 1 and must be 0",
    ),
    "a veth's MAC and group": (
        lambda _eni, pod: SetLink(pod, group=7, mac="02:00:00:00:00:55"),
        "its group was 7 and must be 5122, its MAC was 02:00:00:00:00:55 and must be",
    ),
    "a veth's alias": (
        lambda _eni, pod: SetLink(pod, alias="mine"),
        "its alias was 'mine' and must be 'enid1 ",
    ),
    "a veth's settings": (
        lambda _eni, pod: SetLink(pod, conf=(("forwarding", 0), ("rp_filter", 0))),
        "forwarding was 0 and must be 1, rp_filter was 0 and must be 1",
    ),
    "a veth down": (lambda _eni, pod: SetLink(pod, is_up=False), "was down"),
    "an ENI down": (lambda eni, _pod: SetLink(eni, is_up=False), "was down"),
}


ODD_RULES: dict[str, tuple[int, str, str]] = {
    "blackhole": (4, "pref 600 blackhole", "600: from all blackhole"),
    "prohibit": (4, "pref 600 from 10.0.1.20 prohibit", "600: from 10.0.1.20 prohibit"),
    "unreachable": (4, "pref 600 to 10.0.1.0/24 unreachable", "600: from all to 10.0.1.0/24 unreachable"),
    "goto": (4, "pref 500 goto 512", "500: from all goto 512"),
    "nop": (4, "pref 512 nop", "512: from all nop"),
    "tos": (4, "pref 512 tos 0x10 lookup 5120", "512: from all tos 0x10 lookup 5120"),
    "link": (4, "pref 512 iif ens5 oif lo lookup 5120", "512: from all iif ens5 oif lo lookup 5120"),
    "ports": (
        4, "pref 600 fwmark 0x2 ipproto 6 sport 80 dport 80-90 lookup 2",
        "600: from all fwmark 0x2/0xffffffff ipproto 6 sport 80 dport 80-90 lookup 2",
    ),
    "suppresses": (
        4, "pref 600 uidrange 0-5 lookup main suppress_prefixlength 0 suppress_ifgroup 7",
        "600: from all uidrange 0-5 lookup main suppress_ifgroup 7 suppress_prefixlength 0",
    ),
    "turned": (4, "pref 600 not from all lookup 5120", "600: not from all lookup 5120"),
    "ipv6": (6, "pref 512 lookup 5120", "of IPv6 512: from all lookup 5120"),
    "ipv6-prohibit": (6, "pref 600 from fd00::20 prohibit", "of IPv6 600: from fd00::20 prohibit"),
    "ipv6-mark": (6, "pref 600 to fd00::/64 fwmark 0x2/0x7f lookup 2", "of IPv6 600: from all to fd00::/64 fwmark 0x2/0x7f lookup 2"),
}  # fmt: skip
"""Rules of our protocol that none of ours is like: of which family, how made, how said."""

LOOSER = (
    Rule(1536, 2),
    Rule(1535, 254, destination=IPv4Network("0.0.0.0/0")),
    Rule(32765, 2),
)
"""Rules of our protocol that ask less than one of ours: to the kernel, who asks for one to be
deleted asks for ours as well."""


TWINS = {
    "not from all lookup 5120": 512,
    "not from all fwmark 0x2/0x7f lookup 2": 1536,
    "from all lookup 5120 realms 7": 512,
}
"""Rules of our protocol that the kernel takes for ours when ours is to come."""


def put_before_ours(bench: MenderBench, add: Callable[[], object], preference: int) -> None:
    """Add a rule before those of ours that have its preference.

    The kernel takes it only so: it refuses one of which it has the like, as far as it looks.
    """
    ours = [r for r in desired_rules(WANT.enis, ROUTING) if r.preference == preference]
    mend(bench, *map(DeleteRule, ours))
    add()
    mend(bench, *map(PutRule, ours))


class MenderContract:
    """What a `Mender` promises."""

    @pytest.mark.parametrize(("version", "words", "said"), ODD_RULES.values(), ids=ODD_RULES.keys())
    def test_a_rule_that_none_of_ours_is_like_is_named_and_goes_alone(
        self, bench: MenderBench, version: int, words: str, said: str
    ) -> None:
        make(bench)
        before = sorted(bench.rules())
        bench.add_rule(words, said, version)
        (repair,) = mending(WANT, look(bench))
        assert repair.sentence == f"rule {said} carries our protocol and is not needed"
        assert (repair.part, repair.takes_away) == (Part.RULE, True)
        assert mend(bench, repair.step, repair.step) == ("", "")
        assert (wanting(bench), sorted(bench.rules())) == ([], before)

    @pytest.mark.parametrize("loose", LOOSER, ids=rule_words)
    def test_a_rule_that_asks_less_than_ours_goes_and_ours_stays(
        self, bench: MenderBench, loose: Rule
    ) -> None:
        make(bench)
        before = sorted(bench.rules())
        put_before_ours(bench, partial(mend, bench, PutRule(loose)), loose.preference)
        self._only_it_goes(bench, before)

    def test_a_rule_that_asks_less_and_comes_behind_ours_goes_and_ours_stays(
        self, bench: MenderBench
    ) -> None:
        make(bench)
        before = sorted(bench.rules())
        mend(bench, PutRule(LOOSER[0]))
        self._only_it_goes(bench, before)

    @pytest.mark.parametrize(("words", "preference"), TWINS.items(), ids=TWINS)
    def test_a_rule_that_passes_for_ours_goes_and_ours_stays(
        self, bench: MenderBench, words: str, preference: int
    ) -> None:
        make(bench)
        before = sorted(bench.rules())
        said = f"{preference}: {words}"
        add = partial(bench.add_rule, f"pref {preference} {words}", said)
        put_before_ours(bench, add, preference)
        self._only_it_goes(bench, before)

    @pytest.mark.parametrize(("words", "preference"), TWINS.items(), ids=TWINS)
    def test_a_rule_comes_back_at_once_where_one_that_passes_for_it_has_its_place(
        self, bench: MenderBench, words: str, preference: int
    ) -> None:
        make(bench)
        before = sorted(bench.rules())
        ours = [r for r in desired_rules(WANT.enis, ROUTING) if r.preference == preference]
        mend(bench, *map(DeleteRule, ours))
        bench.add_rule(f"pref {preference} {words}", f"{preference}: {words}")
        assert set(mend(bench, *map(PutRule, ours))) == {""}
        assert set(before) < set(bench.rules())
        self._only_it_goes(bench, before)
        mend(bench, *map(DeleteRule, ours))
        bench.add_rule(f"pref {preference} {words}", f"{preference}: {words}")
        bench.do(partial(bench.net.set_rules, WANT.enis, prune=False, routing=ROUTING))
        assert set(before) < set(bench.rules())

    def _only_it_goes(self, bench: MenderBench, before: list[str]) -> None:
        repairs = tuple(mending(WANT, look(bench)))
        assert sum(repair.takes_away for repair in repairs) == 1
        steps = [repair.step for repair in repairs]
        # Twice: what has gone meanwhile takes nothing of ours along.
        assert set(mend(bench, *steps, *steps)) == {""}
        assert (wanting(bench), sorted(bench.rules())) == ([], before)

    @pytest.mark.parametrize("loose", LOOSER, ids=rule_words)
    def test_rules_that_are_set_anew_lose_nothing_to_one_that_asks_less(
        self, bench: MenderBench, loose: Rule
    ) -> None:
        make(bench)
        before = sorted(bench.rules())
        mend(bench, PutRule(loose))
        bench.do(lambda: bench.net.set_rules(WANT.enis, routing=ROUTING))
        assert sorted(bench.rules()) == before

    def test_a_route_of_some_packets_stands_for_none_of_ours(self, bench: MenderBench) -> None:
        eni, _ = index_of(make(bench))
        default = Way(ip_network("0.0.0.0/0"), 2, 0, eni, NET[1])
        guard = Way(ip_network(NET[98]), PODS_TABLE, GUARD_METRIC)
        mend(bench, *(PutWay(replace(way, tos=0x10)) for way in (default, guard)))
        mend(bench, DeleteWay(default))
        assert "route default of ENI 2, table 2 had vanished" in wanting(bench)
        bench.do(bench.net.configure_eni, SECOND)
        assert bench.do(bench.net.guards, {*WANT.guards, guard.network}) == (1, 0)
        assert bench.do(bench.net.guards, WANT.guards) == (0, 1)
        assert sorted(wanting(bench)) == [
            f"guard 10.0.1.98/32 tos 0x10 in table 5120 {NEEDLESS}",
            f"route default tos 0x10 in table 2 {NEEDLESS}",
        ]

    def test_what_was_made_is_what_is_wanted(self, bench: MenderBench) -> None:
        make(bench)
        assert wanting(bench) == []

    def test_where_nothing_was_made_there_is_nothing_of_ours(self, bench: MenderBench) -> None:
        found = look(bench)
        assert (found.ways, found.table) == ((), replace(found.table, chains=(), rules=()))  # type: ignore[type-var]  # it was looked at
        assert not [rule for rule in found.rules if rule.rule.preference in {512, 1024, 1536}]
        assert found.neighbours == frozenset()

    @pytest.mark.parametrize(("sabotage", "sentence"), SABOTAGES.values(), ids=SABOTAGES.keys())
    def test_a_step_is_seen_and_mended(
        self, bench: MenderBench, sabotage: Sabotage, sentence: str
    ) -> None:
        eni, pod = index_of(make(bench))
        known = Known()
        known.learn(WANT, look(bench))
        assert mend(bench, sabotage(eni, pod)) == ("",)
        repairs: tuple[Repair, ...] = tuple(mending(WANT, look(bench), known))
        assert any(sentence in repair.sentence for repair in repairs)
        assert set(mend(bench, *(repair.step for repair in repairs))) == {""}
        # What went with a link that was down is put back together with it.
        assert wanting(bench) == []

    def test_a_table_of_another_release_is_seen_and_replaced(self, bench: MenderBench) -> None:
        make(bench)
        bench.do(bench.net.write_nft, FORMER_TABLE)
        (repair,) = mending(WANT, look(bench))
        assert "lacks chain ip loopback, ip marked, ip others" in repair.sentence
        assert isinstance(repair.step, WriteTable)
        bench.do(partial(bench.net.write_nft, repair.step.text, anew=repair.step.anew))
        assert wanting(bench) == []
        chains = look(bench).table
        assert chains is not None
        assert {chain.name for chain in chains.chains if chain.hook} == {
            "arrive", "leave", "masq", "spoof",
        }  # fmt: skip

    def test_what_is_done_twice_is_done(self, bench: MenderBench) -> None:
        eni, pod = index_of(make(bench))
        way = Way(ip_network(POD), PODS_TABLE, 0, pod, source=NET[4])
        puts = (
            PutRule(Rule(512, PODS_TABLE)),
            PutWay(way),
            PutAddress(eni, OWN),
            PutNeighbour(Neighbour(pod, POD, "0a:58:0a:00:01:14")),
            SetLink(pod, is_up=True),
        )
        assert set(mend(bench, *puts, *puts)) == {""}
        assert wanting(bench) == []
        gone = (
            DeleteRule(Rule(600, PODS_TABLE)),
            DeleteWay(replace(way, network=ip_network(NET[99]))),
            DeleteAddress(eni, IPv4Interface("10.0.1.99/32")),
        )
        assert set(mend(bench, *gone, *gone)) == {""}
        assert wanting(bench) == []

    def test_an_address_that_makes_a_route_is_made_anew_without(self, bench: MenderBench) -> None:
        make(bench)
        bench.add_address(SECOND.mac, "10.0.1.5/25")  # another length: a second address
        (repair,) = mending(WANT, look(bench))
        assert mend(bench, repair.step) == ("",)
        eni, _ = index_of(Lookup(look(bench), Known()))
        assert [a for a in look(bench).addresses if a.index == eni] == [
            OwnAddress(eni, OWN, is_silent=True)
        ]

    def test_what_the_kernel_refuses_keeps_nothing_else_from_being_done(
        self, bench: MenderBench
    ) -> None:
        _, pod = index_of(make(bench))
        way = Way(ip_network(POD), PODS_TABLE, 0, pod, source=NET[4])
        mend(bench, DeleteWay(way))
        said = mend(bench, SetLink(9999, is_up=True), PutWay(way))
        assert said[0]
        assert said[1] == ""
        assert wanting(bench) == []

    def test_links_are_looked_at_by_index_as_far_as_they_are_there(
        self, bench: MenderBench
    ) -> None:
        eni, pod = index_of(make(bench))
        found = bench.do(bench.mender.look_at_links, (pod, eni, 9999))
        assert {link.index for link in found} == {eni, pod}
        assert set(found) <= set(look(bench).links)

    def test_strangers_things_are_seen_as_such_and_let_alone(self, bench: MenderBench) -> None:
        make(bench)
        bench.add_link("stranger", "of somebody")
        assert wanting(bench) == []
