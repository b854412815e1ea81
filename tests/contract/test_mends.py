"""What others do to the kernel's side, and when it is as it was: a whole daemon, virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, ip_network
from itertools import pairwise
from pathlib import Path

import pytest

from cni.dataplane import GUARD_METRIC, PODS_TABLE, Rule, host_ifname
from cni.desired import OddRule, PutWay
from cni.kernel import Heard
from cni.spec import Sandbox
from ipamd.reconcile import PERIOD_SECONDS, SECOND_LOOK_SECONDS
from ipamd.settings import Settings
from ipamd.undone import LONGEST_WAIT_SECONDS, STOOD_SECONDS
from tests.chaos.kernel import HostSide, Kernel, Way
from tests.chaos.world import World

REST_SECONDS = 200.0


def quiet(folder: Path) -> World:
    """Return a node of two ENIs and ten pods that has been quiet for minutes."""
    made = World(folder, settings=Settings(demand=False, warm_ip_target=2))
    made.begin()
    made.daemon.on_counted = lambda what, number: counts(made).update({what: number})
    made.run(REST_SECONDS)
    for number in range(10):
        made.add(f"pod-{number}")
    made.run(REST_SECONDS)
    assert len(made.daemon.lifecycle.links.set_ups) == 2
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a quiet node."""
    made = quiet(tmp_path)
    yield made
    if made.life is not None:
        made.kill()


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give the same node to many, for each leaves it as it was."""
    made = quiet(tmp_path_factory.mktemp("mends"))
    yield made
    made.kill()


def counts(world: World) -> Counter[str]:
    """Return what the daemon has counted."""
    counted: Counter[str] = world.__dict__.setdefault("counted", Counter())
    return counted


def veth(world: World, name: str) -> HostSide:
    (link,) = (link for link in world.kernel.links if link.netns is world.pods[name].netns)
    return link


def eni(world: World) -> HostSide:
    link = world.kernel.link("ens6")
    assert link is not None
    return link


def address(world: World, name: str) -> IPv4Address:
    found = world.pods[name].address
    assert found is not None
    return found


def said(world: World) -> list[str]:
    """Return what was mended, from the history."""
    world.run(2)  # events are written together, a second later
    history = world.daemon.journal.history(1000)
    return [str(e.detail["what"]) for e in reversed(history) if e.event == "mended"]


def picture(kernel: Kernel) -> str:
    """Return all of the node's side."""
    settings = {link.name: (link.conf, link.neighbours, link.silent) for link in kernel.links}
    shown = sorted(str(kernel).splitlines())  # a route that was put again is the last
    return f"{shown}\n{settings}\n{kernel.nft}\n{sorted(map(str, kernel.rules))}"


# What is done ----------------------------------------------------------------------------
def rule_deleted(w: World) -> None:
    w.kernel.rules.remove(next(r for r in w.kernel.rules if r.preference == 512))


def route_deleted(w: World) -> None:
    w.kernel.delete_way(ip_network(address(w, "pod-3")), PODS_TABLE, 0)


def table_flushed(w: World) -> None:
    w.kernel.ways = {key: way for key, way in w.kernel.ways.items() if way.table != 2}


def guard_deleted(w: World) -> None:
    w.kernel.delete_way(ip_network(address(w, "pod-3")), PODS_TABLE, GUARD_METRIC)


def nft_deleted(w: World) -> None:
    w.kernel.nft = ""


def neighbour_deleted(w: World) -> None:
    veth(w, "pod-3").neighbours.clear()


def neighbour_changed(w: World) -> None:
    veth(w, "pod-3").neighbours[address(w, "pod-3")] = "02:00:00:00:00:55"


def address_deleted(w: World) -> None:
    eni(w).addresses.clear()
    eni(w).silent.clear()


def eni_down(w: World) -> None:
    w.kernel.set_link("ens6", up=False)


def mac_rewritten(w: World) -> None:
    veth(w, "pod-3").set_mac("02:00:00:00:00:77")


def veth_down(w: World) -> None:
    w.kernel.set_link(veth(w, "pod-3").name, up=False)


def sysctl_changed(w: World) -> None:
    veth(w, "pod-3").conf["rp_filter"] = 0


def eni_sysctl_changed(w: World) -> None:
    eni(w).conf["rp_filter"] = 1


def mtu_changed(w: World) -> None:
    eni(w).mtu = 1500


def alias_deleted(w: World) -> None:
    veth(w, "pod-3").alias = ""


Sabotage = Callable[[World], object]

ALL = Heard(everything=True)

SABOTAGES: dict[str, tuple[Sabotage, str, str]] = {
    "rule": (rule_deleted, "rule", "rule 512: from all lookup 5120 had vanished"),
    "route": (route_deleted, "pod-route", "route to {pod} of default/pod-3 had vanished"),
    "table": (table_flushed, "eni-route", "route default of ENI 2, table 2 had vanished"),
    "guard": (guard_deleted, "guard", "guard of {pod}/32 had vanished"),
    "nft-table": (nft_deleted, "nft-table", "nft table enid had vanished (ip, ip6)"),
    "neighbour": (neighbour_deleted, "neighbour", "permanent neighbour {pod} of default/pod-3 had"),
    "neighbours-mac": (neighbour_changed, "neighbour", "of default/pod-3 had another MAC"),
    "address": (address_deleted, "eni-address", "of ens6 had vanished"),
    "eni-down": (eni_down, "eni-link", "link ens6 of ENI 2: was down"),
    "eni-mtu": (mtu_changed, "eni-link", "its MTU was 1500 and must be 9001"),
    "eni-sysctl": (eni_sysctl_changed, "eni-link", "rp_filter was 1 and must be 2"),
    "veth-down": (veth_down, "pod-link", "of default/pod-3: was down"),
    "veth-mac": (mac_rewritten, "pod-link", "its MAC was 02:00:00:00:00:77 and must be"),
    "veth-sysctl": (sysctl_changed, "pod-link", "rp_filter was 0 and must be 1"),
    "veth-alias": (alias_deleted, "pod-link", "its alias had vanished"),
}


@pytest.mark.parametrize(("sabotage", "part", "sentence"), SABOTAGES.values(), ids=SABOTAGES.keys())
def test_it_is_back_within_a_second_of_the_event_counted_and_named(
    same: World, sabotage: Sabotage, part: str, sentence: str
) -> None:
    same.run(STOOD_SECONDS)
    before, counted = picture(same.kernel), counts(same)[f"repaired_{part}"]
    sabotage(same)
    assert picture(same.kernel) != before
    same.kernel.tell(Heard(everything=part != "nft-table", table=part == "nft-table"))
    same.run(1.0)
    assert picture(same.kernel) == before
    assert counts(same)[f"repaired_{part}"] > counted
    wanted = sentence.format(pod=address(same, "pod-3"))
    assert any(wanted in what for what in said(same))


@pytest.mark.parametrize("sabotage", [s for s, _, _ in SABOTAGES.values()], ids=SABOTAGES.keys())
def test_it_is_back_within_a_period_where_no_event_comes(same: World, sabotage: Sabotage) -> None:
    same.run(STOOD_SECONDS)
    before = picture(same.kernel)
    sabotage(same)
    same.run(PERIOD_SECONDS + 1.0)
    assert picture(same.kernel) == before


def test_a_link_that_an_event_names_is_looked_at_alone(world: World) -> None:
    before, link = picture(world.kernel), veth(world, "pod-3")
    link.group = 7
    world.kernel.tell(Heard(links={link.index}))
    world.run(1.0)
    assert picture(world.kernel) == before
    assert counts(world)["repaired_pod-link"] == 1


def test_without_drift_nothing_is_mended(world: World) -> None:
    before = picture(world.kernel)
    counts(world).clear()
    for _ in range(5):
        world.kernel.tell(Heard(everything=True, table=True))
        world.run(PERIOD_SECONDS)
    assert picture(world.kernel) == before
    assert not [what for what in counts(world) if what.startswith("repaired")]


# What is too much ------------------------------------------------------------------------
TOO_MUCH: dict[str, tuple[Sabotage, str, str]] = {
    "address": (
        lambda w: eni(w).addresses.append(IPv4Interface("10.0.0.200/32")),
        "eni-address", "address 10.0.0.200/32 of ens6 is foreign to an ENI of pods",
    ),
    "odd-rule": (
        lambda w: w.kernel.odd_rules.add(OddRule("600: from all blackhole", b"")),
        "rule", "rule 600: from all blackhole carries our protocol and is not needed",
    ),
    "looser-rule": (
        lambda w: w.kernel.rules.add(Rule(1536, 2)),
        "rule", "rule 1536: from all lookup 2 carries our protocol and is not needed",
    ),
    "route-of-some-packets": (
        lambda w: w.kernel.put_way(Way(ip_network(address(w, "pod-3")), PODS_TABLE, tos=0x10)),
        "guard", "guard {pod}/32 tos 0x10 in table 5120 carries our protocol and is not needed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sabotage", "part", "sentence"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_is_too_much_goes_at_the_second_look_counted_and_named(
    same: World, sabotage: Sabotage, part: str, sentence: str
) -> None:
    same.run(STOOD_SECONDS)
    before, counted = picture(same.kernel), counts(same)[f"repaired_{part}"]
    sabotage(same)
    same.kernel.tell(ALL)
    same.run(1.0)
    assert picture(same.kernel) != before
    same.run(SECOND_LOOK_SECONDS)
    assert picture(same.kernel) == before
    assert counts(same)[f"repaired_{part}"] == counted + 1
    assert sentence.format(pod=address(same, "pod-3")) in said(same)


def test_what_a_former_version_left_goes_soon_after_ec2_has_told_of_every_eni(world: World) -> None:
    world.kill()
    former = Way(ip_network("10.0.0.250/32"), 5000)
    world.kernel.put_way(former)
    world.start()
    began = world.now
    while not world.daemon.lifecycle.links.is_settled:
        world.run(0.1)
        assert former.key in world.kernel.ways
    settled = world.now
    while former.key in world.kernel.ways:
        world.run(0.1)
    assert world.now - settled < SECOND_LOOK_SECONDS + 1.0
    assert world.now - began < PERIOD_SECONDS


# Who is busy -----------------------------------------------------------------------------
def test_an_add_and_a_del_are_never_disturbed(world: World) -> None:
    for number in range(20):
        world.add(f"new-{number % 5}")
        world.kernel.tell(ALL)
        world.run(0.001 * number)
        world.kernel.tell(ALL)
        world.delete(f"new-{number % 5}")
        world.run(0.3)
    world.run(REST_SECONDS)
    assert said(world) == []
    assert not [p for p in world.pods if p.startswith("new")]


def test_a_lease_without_a_veth_is_released_at_the_second_look(world: World) -> None:
    name = veth(world, "pod-3").name
    world.kernel.delete_link(name)
    world.kernel.tell(ALL)
    world.run(1.0)
    assert counts(world)["leases_dropped"] == 0
    world.run(SECOND_LOOK_SECONDS)
    assert counts(world)["leases_dropped"] == 1


def test_a_pod_whose_veth_somebody_calls_his_own_keeps_its_address(world: World) -> None:
    world.kill()
    link = veth(world, "pod-3")
    link.alias = "somebody's"
    world.start()
    world.run(REST_SECONDS)
    sandbox = next(
        row.sandbox
        for row in world.daemon.attachments.rows
        if row.addresses == (address(world, "pod-3"),)
    )
    assert link.name == host_ifname(sandbox)
    assert link.alias.startswith("enid1 ")
    assert isinstance(sandbox, Sandbox)


def test_a_lease_that_is_rebuilt_from_its_veth_has_its_enis_number_whatever_its_group(
    world: World,
) -> None:
    before = picture(world.kernel)
    world.kill()
    for path in world.folder.glob("run-*/leases.db*"):
        path.unlink()
    veth(world, "pod-3").group = 7
    world.start()
    world.run(REST_SECONDS)
    assert picture(world.kernel) == before


# What only the host can mend ---------------------------------------------------------------
SYSCTLS = {
    "net.ipv4.ip_forward": ("0", "1"),
    "net.ipv4.conf.all.rp_filter": ("2", "0"),
    "net.ipv4.conf.all.send_redirects": ("1", "0"),
}


@pytest.mark.parametrize(("name", "values"), SYSCTLS.items(), ids=SYSCTLS.keys())
def test_a_sysctl_of_the_node_is_said_counted_once_and_gone_when_it_is_reset(
    same: World, name: str, values: tuple[str, str]
) -> None:
    same.run(STOOD_SECONDS)
    bad, good = values
    counted = counts(same)["unrepaired_node-sysctl"]
    sentence = f"{name} is {bad} and must be {good}"
    same.kernel.sysctls[name] = bad
    same.kernel.tell(ALL)
    same.run(1.0)
    (trouble,) = same.daemon.reconcile.troubles
    assert trouble.startswith(f"{sentence}; ipamd may not")
    assert f"kernel: {trouble}" in same.daemon.status()["troubles"]
    for _ in range(3):
        same.kernel.tell(ALL)
        same.run(PERIOD_SECONDS)
    assert counts(same)["unrepaired_node-sysctl"] == counted + 1
    history = same.daemon.journal.history(1000)
    assert [e.event for e in history if e.subject == sentence] == ["not mended"]
    same.kernel.sysctls[name] = good
    same.run(PERIOD_SECONDS + 1.0)
    assert same.daemon.reconcile.troubles == []


def test_what_is_harmless_does_not_keep_a_daemon_from_starting(world: World) -> None:
    world.kill()
    world.kernel.sysctls["net.ipv4.conf.all.rp_filter"] = "2"
    world.start()
    world.run(REST_SECONDS)
    (trouble,) = world.daemon.reconcile.troubles
    assert trouble.startswith("net.ipv4.conf.all.rp_filter is 2 and must be 0")


# Who undoes it ---------------------------------------------------------------------------
def test_who_undoes_every_repair_is_mended_ever_later_and_said(world: World) -> None:
    times = []
    start = world.now
    while world.now - start < 1500.0:
        if not any(rule.preference == 512 for rule in world.kernel.rules):
            world.run(0.2)
            continue
        times.append(world.now)
        rule_deleted(world)
        world.kernel.tell(ALL)
    gaps = [round(later - sooner) for sooner, later in pairwise(times)][1:]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert max(gaps) <= LONGEST_WAIT_SECONDS + 1
    assert gaps[-1] >= LONGEST_WAIT_SECONDS - 1
    (trouble,) = world.daemon.reconcile.troubles
    assert trouble.startswith("rule 512: from all lookup 5120 was mended ")
    assert f"kernel: {trouble}" in world.daemon.status()["troubles"]


def test_whoever_hurries_it_is_told_when_everything_is_mended(world: World) -> None:
    before, done = picture(world.kernel), []
    for _ in range(5):  # and now it waits before it mends this once more
        rule_deleted(world)
        world.kernel.tell(ALL)
        world.run(0.5)
        if picture(world.kernel) != before:
            break
    assert picture(world.kernel) != before
    world.daemon.reconcile.hurry(lambda: done.append(picture(world.kernel)))
    world.run(1.0)
    assert done == [before]


def test_what_cannot_be_mended_is_said_until_it_is(world: World) -> None:
    world.kernel.cannot = (PutWay,)
    route_deleted(world)
    world.kernel.tell(ALL)
    world.run(5.0)
    (trouble,) = world.daemon.reconcile.troubles
    assert trouble == f"route to {address(world, 'pod-3')} of default/pod-3 cannot be mended"
    world.kernel.cannot = ()
    world.run(PERIOD_SECONDS)
    assert (
        world.daemon.reconcile.troubles == [] or "cannot" not in world.daemon.reconcile.troubles[0]
    )
    assert any("pod-3" in what for what in said(world))


def test_somebody_elses_route_in_the_place_of_ours_is_replaced(world: World) -> None:
    before = picture(world.kernel)
    network = ip_network(address(world, "pod-3"))
    way = world.kernel.ways[Way(network, PODS_TABLE).key]
    world.kernel.put_way(replace(way, index=eni(world).index))
    assert isinstance(way, Way)
    world.kernel.tell(ALL)
    world.run(1.0)
    assert picture(world.kernel) == before
