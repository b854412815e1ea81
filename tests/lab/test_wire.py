"""A wire in the real kernel, made with CAP_NET_ADMIN's calls only."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_NETLINK, SOCK_DGRAM, SOCK_RAW
from typing import Any, TypeVar

import pytest
from pyroute2 import IPRoute

from cni import features, nft, rtnl
from cni.dataplane import (
    DYING_GROUP,
    GUARD_METRIC,
    HOST_MAC,
    NODE_SYSCTLS,
    PODS_TABLE,
    PROTOCOL,
    EniLink,
    Marks,
    host_ifname,
)
from cni.kernel import NodeError, WireError, Wish
from cni.netlink import NodeNetlink
from cni.spec import CniError, Sandbox
from cni.wire import KernelWiring, check_netns
from tests.lab.patience import PATIENCE
from vpclab.enid import RIGHTS
from vpclab.netns import Worker

T = TypeVar("T")

NET = IPv4Network("10.0.1.0/24")
POD, POD6 = IPv4Address("10.0.1.20"), IPv6Address("fd00::20")
SANDBOX = Sandbox("enid", "c" * 64, "eth0")
ALIAS = f"enid1 {'c' * 64}/eth0 enid uid-1 10.0.1.20 eni-0123"


def wish(sandbox: Sandbox = SANDBOX, address: IPv4Address = POD) -> Wish:
    return Wish(sandbox, (address,), 2, "eni-0123", "uid-1", 9001, NET[4])


class Host:
    """A node: two links that play ENIs, our data plane, and a pod's empty namespace."""

    def __init__(self) -> None:
        self.worker = Worker("host")
        self.pod = Worker("pod")
        self.worker.write_sysctls(dict(NODE_SYSCTLS))
        self.net = self.do(NodeNetlink)
        self.wiring = self.do(KernelWiring)
        self.pod_netlink = self.pod.socket(AF_NETLINK, SOCK_RAW)
        self.enis = self.do(self._make_links)

    def do(self, work: Callable[..., T], *arguments: object) -> T:
        return self.worker.call(work, *arguments)

    @staticmethod
    def _make_links() -> list[EniLink]:
        with IPRoute() as ip:
            for number in (1, 2):
                mac = f"02:00:00:00:00:0{number}"
                peer = {"ifname": f"far{number}"}
                ip.link("add", ifname=f"ens{number}", kind="veth", address=mac, peer=peer)
                ip.link("set", index=ip.link_lookup(ifname=f"far{number}")[0], state="up")
            ens1 = ip.link_lookup(ifname="ens1")[0]
            ip.link("set", index=ens1, state="up")
            ip.addr("add", index=ens1, address=str(NET[4]), prefixlen=24)
        return [EniLink(n, f"02:00:00:00:00:0{n}", NET[3 + n], NET, 9001) for n in (1, 2)]

    def connect(self, want: Wish | None = None) -> Any:
        fds = (self.pod.fd, self.pod_netlink.fileno(), "/run/netns/x")
        return self.do(self.wiring.connect, want or wish(), *fds)

    def run(self, *argv: str, pod: bool = False) -> str:
        worker = self.pod if pod else self.worker
        done = worker.call(subprocess.run, argv, capture_output=True, text=True, check=False)
        return done.stdout

    def answers(self, family: int, address: str) -> bool:
        """Whether datagrams from the node come to the pod, and one comes back.

        One is not enough for IPv6: its addresses get their local route from a worker of the
        kernel's, some time after they were added.
        """
        inside = self.pod.socket(family, SOCK_DGRAM)
        outside = self.worker.socket(family, SOCK_DGRAM)
        with inside, outside:
            inside.bind((address, 7))
            inside.settimeout(0.2)
            outside.settimeout(5 * PATIENCE)
            for _ in range(20):
                outside.sendto(b"ping", (address, 7))
                with contextlib.suppress(TimeoutError):
                    data, sender = inside.recvfrom(100)
                    inside.sendto(data, sender)
                    return outside.recv(100) == data
            return False

    def close(self) -> None:
        self.do(self.net.close)
        self.do(self.wiring.close)
        self.pod_netlink.close()
        self.pod.close()
        self.worker.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


def test_a_wire_is_made_unmade_and_reaped(host: Host) -> None:
    attached = host.connect()
    link = host.run("ip", "-d", "link", "show", attached.host_ifname)
    assert "group 5122" in link
    assert f"alias {ALIAS}" in link
    assert HOST_MAC in link
    assert "mtu 9001" in link
    routes = host.run("ip", "route", "show", "table", str(PODS_TABLE))
    assert f"10.0.1.20 dev {attached.host_ifname} proto 151 scope link src 10.0.1.4" in routes
    inside = host.run("ip", "route", pod=True)
    assert "default via 169.254.1.1 dev eth0" in inside
    assert "inet 10.0.1.20/32" in host.run("ip", "addr", "show", "dev", "eth0", pod=True)
    assert "PERMANENT" in host.run("ip", "neigh", pod=True)
    rp_filter = f"/proc/sys/net/ipv4/conf/{attached.host_ifname}/rp_filter"
    assert host.run("cat", rp_filter).strip() == "1"

    host.do(host.wiring.disconnect, attached.host_ifname, (POD,))
    assert host.run("ip", "route", "show", "table", str(PODS_TABLE)) == ""
    assert f"group {DYING_GROUP}" in host.run("ip", "link", "show", attached.host_ifname)
    assert host.do(host.wiring.reap) == 1
    assert attached.host_ifname not in host.run("ip", "link")


def test_connecting_twice_gives_the_same_wire(host: Host) -> None:
    assert host.connect() == host.connect()
    assert len(host.do(host.wiring.links)) == 1


def test_the_nodes_first_packet_to_a_pod_arrives(host: Host) -> None:
    """The kernel drops what goes to a link whose carrier it has not seen yet."""
    want, fds = wish(), (host.pod.fd, host.pod_netlink.fileno(), "/run/netns/x")
    host.do(host.net.set_rules, host.enis)
    with (
        host.worker.socket(AF_INET, SOCK_DGRAM) as out,
        host.pod.socket(AF_INET, SOCK_DGRAM) as inside,
    ):
        inside.bind(("", 7))
        inside.settimeout(1 * PATIENCE)

        def connect_and_send() -> None:
            host.wiring.connect(want, *fds)
            out.sendto(b"first", (str(POD), 7))

        for _ in range(20):
            host.do(connect_and_send)
            assert inside.recv(10) == b"first"


def test_disconnecting_what_is_not_there_is_nothing(host: Host) -> None:
    host.do(host.wiring.disconnect, "eni00000000000", (POD,))
    assert host.do(host.wiring.reap) == 0


def test_a_link_dump_tells_every_lease(host: Host) -> None:
    host.connect()
    (link,) = host.do(host.wiring.links)
    assert link.alias.text() == ALIAS
    assert link.group == 5122


def test_an_interface_of_somebody_else_in_the_pod_is_left_alone(host: Host) -> None:
    host.run("ip", "link", "add", "eth0", "type", "veth", pod=True)
    before = host.run("ip", "link", pod=True)
    with pytest.raises(WireError, match="has an interface eth0 already"):
        host.connect()
    assert host.run("ip", "link", pod=True) == before
    assert host.run("ip", "route", "show", "table", str(PODS_TABLE)) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"node_primary": IPv4Address("10.9.9.9")}, "Invalid prefsrc", id="the-last-step"),
        pytest.param({"addresses": (POD, POD6)}, "Permission denied", id="the-pods-side"),
        pytest.param({"mtu": 20}, "Invalid argument", id="the-pair"),
        pytest.param({"pod_uid": "u" * 200}, "too long", id="the-alias"),
    ],
)  # fmt: skip
def test_a_failure_at_any_step_leaves_no_trace(
    host: Host, change: dict[str, Any], words: str
) -> None:
    host.pod.write_sysctls({"net.ipv6.conf.default.disable_ipv6": "1"})
    with pytest.raises(WireError, match=words):
        host.connect(replace(wish(), **change))
    assert "eni" not in host.run("ip", "link")
    assert "eth0" not in host.run("ip", "link", pod=True)
    assert host.run("ip", "route", "show", "table", str(PODS_TABLE)) == ""


def test_a_socket_of_another_namespace_is_refused(host: Host) -> None:
    before = addresses(host)
    with (
        host.worker.socket(AF_NETLINK, SOCK_RAW) as own,
        pytest.raises(WireError, match="not of the pod's network namespace"),
    ):
        host.do(host.wiring.connect, wish(), host.pod.fd, own.fileno(), "/run/netns/x")
    assert addresses(host) == before


def addresses(host: Host) -> str:
    """Return what is on all links. What the kernel is still about to prove is there already."""
    return host.run("ip", "-o", "addr").replace(" tentative", "")


def test_what_is_no_socket_is_refused(host: Host) -> None:
    with pytest.raises(WireError, match="Inappropriate ioctl"):
        host.do(host.wiring.connect, wish(), host.pod.fd, host.pod.fd, "/run/netns/x")


def test_a_pair_that_a_killed_daemon_left_without_alias_is_made_anew(host: Host) -> None:
    name = host_ifname(SANDBOX)
    host.run("ip", "link", "add", name, "type", "veth", "peer", "left")
    assert host.connect().host_ifname == name
    assert "left" not in host.run("ip", "link")


def test_a_link_of_our_name_with_somebody_elses_alias_is_left_alone(host: Host) -> None:
    name = host_ifname(SANDBOX)
    host.run("ip", "link", "add", name, "type", "veth", "peer", "theirs")
    host.run("ip", "link", "set", name, "alias", "uplink of something")
    with pytest.raises(WireError, match=r"alias 'uplink of something'"):
        host.connect()
    assert "theirs" in host.run("ip", "link")


def test_both_families_reach_the_pod_and_are_cut_with_their_guards_in_place(host: Host) -> None:
    networks = [ip_network(POD), ip_network(POD6)]
    host.run("ip", "link", "set", "lo", "up")
    host.run("ip", "addr", "add", "fd00::1/128", "dev", "lo")
    host.run("ip", "-6", "rule", "add", "pref", "512", "lookup", str(PODS_TABLE))
    host.do(host.net.set_rules, host.enis)
    host.do(host.net.add_guards, networks)
    attached = host.connect(replace(wish(), addresses=(POD, POD6)))
    assert [str(a) for a in attached.addresses] == [f"{POD}/32", f"{POD6}/128"]
    assert host.answers(AF_INET, str(POD))
    assert host.answers(AF_INET6, str(POD6))
    for _ in range(2):
        host.do(host.wiring.disconnect, attached.host_ifname, (POD, POD6))
        for family, network in zip(("-4", "-6"), networks, strict=True):
            table = host.run("ip", family, "route", "show", "table", str(PODS_TABLE))
            assert table.startswith(f"unreachable {network.network_address}")
            assert attached.host_ifname not in table


def test_a_strangers_link_stops_the_reaper(host: Host) -> None:
    host.run("ip", "link", "set", "ens2", "group", str(DYING_GROUP))
    with pytest.raises(WireError, match="ens2 in link group"):
        host.do(host.wiring.reap)
    assert "ens2" in host.run("ip", "link")


def test_the_nodes_own_netns_is_refused(host: Host) -> None:
    with Path("/proc/self/ns/net").open("rb") as own, pytest.raises(CniError, match="node's own"):
        check_netns(own.fileno())
    assert check_netns(host.pod.fd).ino == os.fstat(host.pod.fd).st_ino


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/etc/passwd", "/proc/self/status"])
def test_what_is_no_netns_is_refused(path: str) -> None:
    with Path(path).open("rb") as wrong, pytest.raises(CniError, match="not a network namespace"):
        check_netns(wrong.fileno())


# The node's side ------------------------------------------------------------------------
def test_an_eni_is_brought_to_its_desired_state_and_stays(host: Host) -> None:
    for _ in range(2):
        for eni in host.enis:
            host.do(host.net.configure_eni, eni)
        host.do(host.net.set_rules, host.enis)
    assert "10.0.1.5/24 scope global noprefixroute" in host.run("ip", "addr", "show", "ens2")
    assert "group 5250" in host.run("ip", "link", "show", "ens2")
    assert "group 5249" in host.run("ip", "link", "show", "ens1")
    table = host.run("ip", "route", "show", "table", "2")
    assert "default via 10.0.1.1 dev ens2 proto 151 onlink" in table
    assert "10.0.1.1 dev ens2 proto 151 scope link" in table
    rules = host.run("ip", "rule")
    assert "512:\tfrom all lookup 5120 proto 151" in rules
    assert "1536:\tfrom all fwmark 0x2/0x7f lookup 2 proto 151" in rules
    assert "32765:\tfrom 10.0.1.5 lookup 2 proto 151" in rules
    assert rules.count("proto 151") == 4
    assert host.run("cat", "/proc/sys/net/ipv4/conf/ens2/rp_filter").strip() == "2"
    assert host.run("cat", "/proc/sys/net/ipv4/conf/ens2/send_redirects").strip() == "0"


def test_a_foreign_address_on_a_secondary_eni_is_removed_and_its_own_stays(host: Host) -> None:
    host.run("ip", "addr", "add", f"{POD}/24", "dev", "ens2")
    host.do(host.net.configure_eni, host.enis[1])
    assert str(POD) not in host.run("ip", "addr")
    assert set(host.do(host.net.host_addresses)) >= {NET[4], NET[5]}


def test_an_address_that_brought_a_route_of_its_subnet_is_put_again_without(host: Host) -> None:
    host.run("ip", "link", "set", "ens2", "up")
    host.run("ip", "addr", "add", "10.0.1.5/24", "dev", "ens2")
    assert "10.0.1.0/24 dev ens2" in host.run("ip", "route")
    host.do(host.net.configure_eni, host.enis[1])
    assert "10.0.1.0/24 dev ens2" not in host.run("ip", "route")
    assert "10.0.1.5/24 scope global noprefixroute" in host.run("ip", "addr", "show", "ens2")


def test_routes_that_a_former_eni_left_in_the_table_go_and_others_stay(host: Host) -> None:
    host.run("ip", "link", "set", "ens1", "up")
    for line in (
        "default via 10.0.1.9 dev ens1 onlink proto 151",
        "10.0.1.9 dev ens1 proto 151",
        "192.0.2.0/24 dev ens1 proto static",
    ):
        host.run("ip", "route", "add", *line.split(), "table", "2")
    host.do(host.net.configure_eni, host.enis[1])
    routes = {
        line.split(" scope")[0].strip()
        for line in host.run("ip", "route", "show", "table", "2").splitlines()
    }
    assert routes == {
        "default via 10.0.1.1 dev ens2 proto 151 onlink",
        "10.0.1.1 dev ens2 proto 151",
        "192.0.2.0/24 dev ens1 proto static",
    }


def test_what_the_kernel_refuses_is_said_in_our_words(host: Host) -> None:
    with pytest.raises(NodeError, match=r"the set-up of an ENI: .*Invalid argument"):
        host.do(host.net.configure_eni, replace(host.enis[1], mtu=20))


def test_rules_of_others_stay(host: Host) -> None:
    host.run("ip", "rule", "add", "pref", "1536", "fwmark", "0x9", "lookup", "99")
    host.do(host.net.set_rules, host.enis)
    host.do(host.net.set_rules, host.enis[:1])
    rules = host.run("ip", "rule")
    assert "fwmark 0x9 lookup 99" in rules
    assert "lookup 2" not in rules


def test_an_eni_that_is_not_there_is_named(host: Host) -> None:
    with pytest.raises(NodeError, match="02:ff:ff:ff:ff:ff"):
        host.do(host.net.configure_eni, EniLink(3, "02:ff:ff:ff:ff:ff", NET[6], NET, 9001))


def test_the_guard_takes_over_when_a_veth_goes(host: Host) -> None:
    host.do(host.net.set_rules, host.enis)
    host.do(host.net.add_guards, [ip_network(POD)])
    attached = host.connect()
    assert attached.host_ifname in host.run("ip", "route", "get", str(POD))
    host.run("ip", "link", "del", attached.host_ifname)
    assert host.run("ip", "route", "show", "table", str(PODS_TABLE)).split() == [
        "unreachable", "10.0.1.20", "proto", str(PROTOCOL), "metric", str(GUARD_METRIC),
    ]  # fmt: skip


def test_guards_are_brought_to_exactly_what_is_held(host: Host) -> None:
    held = [ip_network(f"10.0.1.{n}") for n in range(20, 200)] + [ip_network("10.0.3.0/28")]
    assert host.do(host.net.guards, held) == (181, 0)
    assert host.do(host.net.guards, held[1:]) == (0, 1)
    assert host.do(host.net.guards, held) == (1, 0)
    host.do(host.net.remove_guards, [ip_network("10.9.9.9")])


TABLE = nft.NftWish(vpc_cidrs=(IPv4Network("10.0.0.0/16"),), node_primary=NET[4], eni_numbers=15)


def test_the_table_is_written_only_when_it_differs(host: Host) -> None:
    assert host.do(host.net.missing_features) == ()
    assert host.do(host.net.apply_nft, nft.render(TABLE))
    assert not host.do(host.net.apply_nft, nft.render(TABLE))
    other = nft.NftWish(vpc_cidrs=(), node_primary=NET[4], eni_numbers=15)
    assert host.do(host.net.apply_nft, nft.render(other))
    assert "via15" in host.run("nft", "list", "table", "ip", "enid")


def test_a_table_that_somebody_flushed_is_written_again(host: Host) -> None:
    host.do(host.net.apply_nft, nft.render(TABLE))
    for command in (["flush", "ruleset"], ["flush", "chain", "ip", "enid", "leave"]):
        host.run("nft", *command)
        assert host.do(host.net.apply_nft, nft.render(TABLE))
        assert not host.do(host.net.apply_nft, nft.render(TABLE))


@pytest.mark.parametrize(
    "change",
    [
        {"external_snat": True},
        {"node_port_support": False},
        {"randomize": "random"},
        {"randomize": ""},
        {"mss_clamp": True},
        {"block_metadata": True},
        {"marks": Marks(0x80000000)},
        {"excluded_cidrs": (IPv4Network("192.0.2.0/24"),)},
        {"eni_numbers": 1},
        {"eni_numbers": 127},
    ],
    ids=str,
)
def test_every_variant_of_the_table_is_taken_by_nft(host: Host, change: dict[str, Any]) -> None:
    host.do(host.net.apply_nft, nft.render(TABLE))
    variant = nft.render(replace(TABLE, **change))
    assert host.do(host.net.apply_nft, variant)
    assert not host.do(host.net.apply_nft, variant)


REFUSES = "Error: Could not process rule: Operation not supported"
FAKE = r"""#!/bin/sh
text=$(cat)
case $text in *{without}*) echo "{error}" >&2; exit 1;; esac
"""
"""An nft on a kernel that lacks what *without* needs."""


@pytest.mark.parametrize(
    ("without", "named"),
    [
        pytest.param("fib daddr", ["nf_tables fib for IPv4 (CONFIG_NFT_FIB_IPV4)"], id="fib"),
        pytest.param("fib saddr", ["nf_tables fib for IPv6 (CONFIG_NFT_FIB_IPV6)"], id="fib-for-ipv6"),
        pytest.param("ct mark", ["nf_tables ct (CONFIG_NFT_CT)"], id="ct"),
        pytest.param("snat to", ["nf_tables nat (CONFIG_NFT_NAT)"], id="nat"),
        pytest.param("iifgroup", ["link groups in nf_tables (meta iifgroup, kernel 5.7 in postrouting)"], id="groups"),
        pytest.param("table ip6", ["nf_tables for IPv6 (CONFIG_NF_TABLES_IPV6)", "nf_tables fib for IPv6 (CONFIG_NFT_FIB_IPV6)"], id="ipv6"),
        pytest.param("maxseg", ["nf_tables exthdr (tcp option maxseg size set, for ENID_MSS_CLAMP)"], id="tcp-options"),
        pytest.param("rt mtu", ["nf_tables rt (rt mtu, for ENID_MSS_CLAMP)"], id="rt"),
    ],
)  # fmt: skip
def test_a_missing_feature_is_named(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, without: str, named: list[str]
) -> None:
    fake = FAKE.format(without=without.replace(" ", "\\ "), error=REFUSES)
    (tmp_path / "nft").write_text(fake)
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = host.do(host.net.missing_features, replace(TABLE, mss_clamp=True))
    assert [sentence.partition(" is needed")[0] for sentence in found] == named
    assert all(sentence.endswith(REFUSES) for sentence in found)


@pytest.mark.parametrize("without", ["maxseg", "rt mtu"])
def test_what_only_a_setting_needs_is_no_matter_without_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, without: str
) -> None:
    (tmp_path / "nft").write_text(FAKE.format(without=without.replace(" ", "\\ "), error=REFUSES))
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert host.do(host.net.missing_features, TABLE) == ()
    assert host.do(host.net.missing_features, replace(TABLE, mss_clamp=True)) != ()


@pytest.mark.parametrize(
    ("refusal", "named"),
    [
        pytest.param("ip rule", "policy routing (CONFIG_IP_MULTIPLE_TABLES)", id="policy-routing"),
        pytest.param("ip link", "veth pairs (CONFIG_VETH)", id="veth"),
        pytest.param("conntrack", "connection tracking by netlink (CONFIG_NF_CT_NETLINK)", id="ct"),
    ],
)
def test_a_missing_feature_that_netlink_tells_is_named(refusal: str, named: str) -> None:
    """A kernel that lacks one thing, as its netlink answers then; each errno that it may use."""
    for number in next(p for p in features.PROBES if p.name == named).refusals:

        def kernel(probe: features.Probe, number: int = number) -> int:
            return number if probe.message.words.startswith(refusal) else 0

        (sentence,) = features.missing(kernel)
        assert sentence.startswith(f"{named} is needed: {refusal}")


def test_no_probe_changes_anything_and_this_kernel_lacks_nothing(host: Host) -> None:
    def there() -> list[str]:
        # Carriers come and go by themselves for a moment behind the set-up.
        links = re.sub(r" (?:qdisc|state) \w+|<.*?>", "", host.run("ip", "link"))
        return [links, host.run("ip", "rule")]

    before = there()
    assert host.do(lambda: tuple(features.missing())) == ()
    assert there() == before


def test_a_kind_of_link_that_this_kernel_does_not_know_is_refused_as_veth_would_be(
    host: Host,
) -> None:
    """The real kernel's refusal: so the probe tells a kernel without veth."""
    (veth,) = [p for p in features.PROBES if p.name.startswith("veth")]
    unknown = replace(veth.message, body=veth.message.body.replace(b"veth", b"vexx"))
    assert host.do(features.ask, replace(veth, message=unknown)) in veth.refusals
    assert host.do(features.ask, veth) == errno.EINVAL


def test_a_node_without_nft_is_told_which_package(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all("install the package nftables" in s for s in host.do(host.net.missing_features))


def test_a_refusal_that_no_feature_explains_is_in_the_kernels_words(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nft").write_text(FAKE.format(without="came2", error=REFUSES))
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (sentence,) = host.do(host.net.missing_features)
    assert sentence == f"nf_tables does not take our table: nft -c -f -: {REFUSES}"


def test_each_probe_of_a_feature_is_taken_by_this_kernel_and_leaves_nothing(host: Host) -> None:
    for probe in nft.features(replace(TABLE, mss_clamp=True)).values():
        argv = ["nft", "-c", "-f", "-"]
        host.do(partial(subprocess.run, argv, input=probe, text=True, check=True))
    assert host.run("nft", "list", "ruleset") == ""


def test_a_process_without_rights_on_nf_tables_is_told_so(host: Host) -> None:
    """The real kernel's refusal: what a container without CAP_NET_ADMIN meets."""
    script = (
        "from cni.netlink import NodeNetlink; print(*NodeNetlink().missing_features(), sep='\\n')"
    )
    argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    done = host.do(run, [*argv, sys.executable, "-c", script])
    assert "Operation not permitted" in done.stdout, done.stderr


def test_ipv6_is_kept_out_of_a_pod_that_must_not_have_it(host: Host) -> None:
    host.connect()
    assert "inet6 ::1" in host.run("ip", "-6", "addr", pod=True)
    assert "inet6 fe80::" in host.run("ip", "-6", "addr", pod=True)
    host.do(host.wiring.disconnect, host_ifname(SANDBOX), (POD,))
    host.do(host.wiring.reap)
    host.connect(replace(wish(), ipv6=False))
    assert host.run("ip", "-6", "addr", pod=True) == ""
    with host.pod.socket(AF_INET6, SOCK_DGRAM) as sock, pytest.raises(OSError, match="assign"):
        sock.bind(("::1", 0))
    host.do(host.net.set_rules, host.enis)
    assert host.answers(AF_INET, str(POD))


def test_the_neighbours_are_permanent_on_both_ends(host: Host) -> None:
    attached = host.connect()
    outside = host.run("ip", "neigh", "show", "dev", attached.host_ifname)
    inside = host.run("ip", "neigh", "show", "dev", "eth0", pod=True)
    assert outside.split() == [str(POD), "lladdr", attached.pod_mac, "PERMANENT"]
    assert inside.split() == ["169.254.1.1", "lladdr", HOST_MAC, "PERMANENT"]


def test_both_ends_have_as_many_queues_as_were_asked_for(host: Host) -> None:
    """Not one for each CPU that the machine might have, which is the kernel's own choice."""
    host.do(host.wiring.close)
    host.wiring = host.do(KernelWiring, rtnl.queues(192))
    attached = host.connect()
    for name, is_pod in ((attached.host_ifname, False), ("eth0", True)):
        link = host.run("ip", "-d", "link", "show", name, pod=is_pod)
        assert "numtxqueues 8 " in link
        assert "numrxqueues 8 " in link


def test_flows_of_a_released_address_are_purged_and_others_stay(host: Host) -> None:
    host.do(host.net.apply_nft, nft.render(TABLE))  # conntrack runs where a rule asks for it
    other = IPv4Address("10.0.1.21")
    host.connect()
    with host.worker.socket(AF_INET, SOCK_DGRAM) as sock:
        for address in (POD, NET[4]):
            sock.sendto(b"one flow", (str(address), 9))
    assert host.do(host.net.purge_conntrack, [other]) == 0
    assert host.do(host.net.purge_conntrack, [POD, other]) == 1
    assert host.do(host.net.purge_conntrack, [POD]) == 0


def test_a_wrong_sysctl_is_named_with_its_value(host: Host) -> None:
    assert host.do(host.net.sysctl_complaints) == ()
    host.worker.write_sysctls({"net.ipv4.ip_forward": "0"})
    assert host.do(host.net.sysctl_complaints) == ("net.ipv4.ip_forward is 0 and must be 1",)


def test_a_pods_veth_forwards_at_once_whatever_new_links_do(host: Host) -> None:
    """Somebody who turns `ip_forward` off turns off what new links begin with."""
    host.worker.write_sysctls({"net.ipv4.ip_forward": "0"})
    name = host.connect().host_ifname
    shown = host.run(
        "sh", "-c", f"cd /proc/sys/net/ipv4/conf; cat default/forwarding {name}/forwarding"
    )
    assert shown.split() == ["0", "1"]


CHILD = """
import socket, sys
from ipaddress import IPv4Address
from cni.kernel import Wish
from cni.spec import Sandbox
from cni.wire import KernelWiring
status = dict(l.split(":", 1) for l in open("/proc/self/status") if l.startswith("Cap"))
assert status["CapEff"].strip() == status["CapBnd"].strip() == "0000000000001000", status
netns, netlink = int(sys.argv[1]), int(sys.argv[2])
a = IPv4Address("10.0.1.20")
wish = Wish(Sandbox("enid", "c" * 64, "eth0"), (a,), 2, "eni-0123", "u", 9001, IPv4Address("10.0.1.4"))
wiring = KernelWiring()
attached = wiring.connect(wish, netns, netlink, "/run/netns/x")
print(attached.host_ifname)
wiring.disconnect(attached.host_ifname, (a,)); print(wiring.reap())
"""


def test_cap_net_admin_is_enough(host: Host) -> None:
    fds = (host.pod.fd, host.pod_netlink.fileno())
    argv = [*RIGHTS.entry(), sys.executable, "-c", CHILD, *map(str, fds)]
    done = host.do(
        lambda: subprocess.run(argv, capture_output=True, text=True, pass_fds=fds, check=False)
    )
    assert done.stderr == ""
    assert done.stdout.endswith("\n1\n")
