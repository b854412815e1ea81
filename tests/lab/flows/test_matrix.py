"""Every setting of the wire, beside kube-proxy in two flavours: what arrives, seen as whom.

Each row is one set of settings. `make test` tries the flows that a setting can change;
`make flows` (FLOWS=all) all of them. What conntrack remembers of each is looked at, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

import pytest

from cni.dataplane import ENI_GROUP, POD_GROUP, Marks
from ipamd import wires
from ipamd.layers import read_settings
from ipamd.settings import Settings
from tests.lab.flows.town import (
    BEHIND,
    CLIENT,
    HOST_PORTS,
    NEXT,
    NODE_PORTS,
    PODS,
    PORT,
    Flow,
    Town,
    flows,
)
from tests.lab.flows.tracked import Tracked, links_of, tracked

LOST_SECONDS = 0.3
"""What must not arrive is waited for no longer."""

FULL = os.environ.get("FLOWS") == "all"
BESIDE_BOTH = {"nothing set", "external snat", "no node ports"}
"""What `make test` tries beside both flavours of kube-proxy's rules; `make flows` tries all."""

LOST_FLOWS = 100 if FULL else 2
"""So many of those that must not arrive are tried, one of each kind."""

EXTERNAL = {"AWS_VPC_K8S_CNI_EXTERNALSNAT": "true"}
NO_NODE_PORTS = {"AWS_VPC_CNI_NODE_PORT_SUPPORT": "false"}
KEEPS_CLIENTS = {"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "172.31.0.0/16,192.168.50.0/24"}
BEHIND_US = {"AWS_EXTERNAL_SERVICE_CIDRS": str(BEHIND)}

WIRES = {"AWS_VPC_K8S_CNI_VETHPREFIX", "AWS_VPC_ENI_MTU", "POD_MTU", "DISABLE_POD_V6"}
"""The settings of new wires."""

EARLY_DEMUX = ("net.ipv4.tcp_early_demux", "net.ipv4.ip_early_demux")


@dataclass(frozen=True, slots=True)
class Row:
    """Settings, and what they change. *lost*: flows that must not come through."""

    environ: Mapping[str, str] = field(default_factory=dict)
    early_demux: bool = True
    clients_see: str = "eth0"
    internet: bool = True
    node_ports: bool = True
    tunnel: bool = True
    ports: str = "random"

    @property
    def settings(self) -> Settings:
        return read_settings(self.environ)

    @property
    def changes_wires(self) -> bool:
        """Whether pods that are there keep what they have, so that new ones are needed."""
        return not WIRES.isdisjoint(self.environ)


ROWS = {
    "nothing set": Row(),
    "external snat": Row(EXTERNAL, clients_see="pod", internet=False, tunnel=False),
    "excluded cidrs": Row(KEEPS_CLIENTS, clients_see="pod"),
    "other cidrs excluded": Row({"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "172.31.0.0/16"}),
    "ports by hash": Row({"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "hashrandom"}),
    "ports kept": Row({"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "none"}, ports="kept"),
    "no node ports": Row(NO_NODE_PORTS, node_ports=False),
    "neither node ports nor snat": Row(
        EXTERNAL | NO_NODE_PORTS,
        clients_see="pod", internet=False, node_ports=False, tunnel=False,
    ),
    "external services": Row(EXTERNAL | BEHIND_US, clients_see="pod", internet=False),
    "external services with snat": Row(BEHIND_US),
    "another mark": Row({"AWS_VPC_K8S_CNI_CONNMARK": "0x800000"}),
    "the highest mark": Row({"AWS_VPC_K8S_CNI_CONNMARK": "0x80000000"} | KEEPS_CLIENTS, clients_see="pod"),
    "clamp and closed metadata": Row({"ENID_MSS_CLAMP": "true", "ENID_BLOCK_POD_METADATA": "true"}),
    "early demux off on the node (setting without effect)": Row(
        {"DISABLE_TCP_EARLY_DEMUX": "true"}, early_demux=False,
    ),
    "another prefix": Row({"AWS_VPC_K8S_CNI_VETHPREFIX": "pod"}),
    "small ENIs": Row({"AWS_VPC_ENI_MTU": "1500"}),
    "small pods": Row({"POD_MTU": "1300"}),
    "no ipv6": Row({"DISABLE_POD_V6": "true"}),
    "another prefix and small pods on small ENIs without ipv6": Row(
        {"AWS_VPC_K8S_CNI_VETHPREFIX": "pod", "AWS_VPC_ENI_MTU": "1500", "POD_MTU": "1300",
         "DISABLE_POD_V6": "true"},
    ),
}  # fmt: skip


def few() -> Iterator[Flow]:
    """Yield the flows that a setting can change, and a few that none may."""
    for pod in PODS:
        yield Flow(pod, f"ClusterIP {NEXT[pod]}", 80, NEXT[pod], pod)
        yield Flow(pod, "remote", PORT, "remote", pod)
    yield Flow("podS", "ClusterIP podS", 80, "podS", "eth0")
    yield Flow("podS", "internet", PORT, "internet", "public")
    yield Flow("podT", "ClusterIP internet", 80, "internet", "public")
    yield Flow("podS", "eth0", NODE_PORTS["Cluster podT"], "podT", "eth0")
    yield Flow("podP", "eth0", HOST_PORTS["podP"], "podP", "eth0")
    yield Flow("node", "podS", PORT, "podS", "eth0")
    yield Flow("node", "ClusterIP podS", 80, "podS", "eth0")
    for eth in ("eth0", "eth1", "eth2"):
        yield Flow("client", eth, NODE_PORTS["Cluster podS"], "podS", "eth0")
        yield Flow("client", eth, NODE_PORTS["Local podS"], "podS", "client")
        yield Flow("client", eth, NODE_PORTS["Local podP"], "podP", "client")
        yield Flow("client", eth, HOST_PORTS["podS"], "podS", "client")


def outward() -> Iterator[Flow]:
    """Yield what pods begin with those outside the VPC who see them as they come."""
    for pod in PODS:
        yield Flow(pod, "client", PORT, "client", pod)
        yield Flow(pod, "ClusterIP client", 80, "client", pod)
        yield Flow(pod, "tunnel", PORT, "tunnel", pod)


def own_ports() -> Iterator[Flow]:
    """Yield what pods and the node itself begin with ports of the node at its other ENIs.

    The node speaks to an address of its own from that address, as every host does.
    """
    for eth in ("eth1", "eth2"):
        for source, far in (*NEXT.items(), ("node", "podS")):
            seen = eth if source == "node" else source
            yield Flow(source, eth, NODE_PORTS[f"Cluster {far}"], far, "eth0")
            yield Flow(source, eth, NODE_PORTS[f"Local {far}"], far, seen)
            if far in HOST_PORTS:
                yield Flow(source, eth, HOST_PORTS[far], far, seen)


HOME = {"podP": "eth0", "podS": "eth1", "podT": "eth2"}
"""The ENI of each pod."""


def needs_memory(flow: Flow) -> bool:
    """Whether its reply must leave by another ENI than it would by itself.

    That of a pod leaves by the pod's own ENI, and one that comes from elsewhere by the primary.
    """
    is_port = flow.port in {*NODE_PORTS.values(), *HOST_PORTS.values()}
    came = "eth0" if flow.to == "public" else flow.to
    if flow.source in HOME or flow.source == "node" or not is_port:
        return False
    return HOME.get(flow.far, "eth0") != came


def expected(row: Row) -> Iterator[tuple[Flow, bool]]:
    """Yield each flow as it must be, and whether it must come through."""
    for flow in (*(flows() if FULL else few()), *outward(), *own_ports()):
        comes = (
            (row.internet or flow.far != "internet" or flow.source not in HOME)
            and (row.node_ports or not needs_memory(flow))
            and (row.tunnel or flow.far != "tunnel" or flow.source == "podP")
        )
        if flow.far == "client" and row.clients_see != "pod":
            flow = replace(flow, seen=row.clients_see)  # noqa: PLW2901 - the same, as it is seen
        yield flow, comes


@pytest.fixture(params=ROWS, ids=str)
def row(proxied: Town, request: pytest.FixtureRequest) -> Iterator[Row]:
    """The town under one row's settings, and nothing in conntrack."""
    if not FULL and proxied.flavour != "nft" and request.param not in BESIDE_BOTH:
        pytest.skip("make flows: the other rows beside iptables")
    row = ROWS[request.param]
    proxied.node.worker.write_sysctls(dict.fromkeys(EARLY_DEMUX, str(int(row.early_demux))))
    proxied.live_by(row.settings)
    if row.changes_wires:
        proxied.wire_anew(row.settings)
    proxied.forget_flows()
    proxied.vpc.reset_drops()
    yield row
    proxied.live_by(Settings())
    if row.changes_wires:
        proxied.wire_anew(Settings())
    proxied.node.worker.write_sysctls(dict.fromkeys(EARLY_DEMUX, "1"))
    proxied.forget_flows()
    proxied.vpc.reset_drops()


def test_what_arrives_and_as_whom(proxied: Town, row: Row) -> None:
    wrong, came, lost = {}, 0, []
    for flow, comes in expected(row):
        if not comes:
            lost.append(flow)
            continue
        came += 1
        if why := proxied.try_flow(flow):
            wrong[str(flow)] = why
    assert wrong == {}, f"of {came}"
    drops = proxied.vpc.drops()
    assert not any(drops.values()), drops
    check_conntrack(proxied, row)
    check_wires(proxied, row)
    check_lost(proxied, lost)


def check_lost(town: Town, lost: list[Flow]) -> None:
    """What must not come through does not; few are tried, because each takes its time."""
    kinds = {(flow.far, flow.port) if flow.far in PODS else flow.far: flow for flow in lost}
    for flow in list(kinds.values())[:LOST_FLOWS]:
        assert town.try_flow(flow, LOST_SECONDS), f"{flow} came through"


def check_wires(town: Town, row: Row) -> None:
    """Every pod's wire, on both ends, and every ENI is as the settings say."""
    s = row.settings
    host = {link.name: link for link in links_of(town.node)}
    for name, number in zip(PODS, (1, 2, 3), strict=True):
        wish, _ = town.wired[name]
        veth = host[wish.host_ifname]
        assert veth.name.startswith(s.veth_prefix)
        assert (veth.mtu, veth.group) == (wires.pod_mtu(s), POD_GROUP + number)
        (eth0,) = [link for link in links_of(town.places[name]) if link.name == "eth0"]
        assert eth0.mtu == wires.pod_mtu(s)
        assert eth0.has_ipv6 is not s.disable_pod_v6
    enis = {link.group - ENI_GROUP: link.mtu for link in host.values() if link.group > ENI_GROUP}
    assert enis == dict.fromkeys((1, 2, 3), wires.eni_mtu(s))


def check_conntrack(town: Town, row: Row) -> None:
    """Every connection is remembered as the settings want it, and nobody's bits are touched."""
    marks, found = wires.marks(row.settings), tracked(town.node)
    pods = {town.addresses[pod]: number for number, pod in enumerate(PODS, 1)}
    assert found
    assert not any(flow.mark & ~marks.mask for flow in found)
    for flow in found:
        if flow.original.source in pods:
            check_outward(town, row, marks, flow)
        else:
            check_inward(town, row, marks, flow)


def check_outward(town: Town, row: Row, marks: Marks, flow: Tracked) -> None:
    """What a pod began: translated and remembered as the primary's, or neither.

    What is behind the node's own link sees pods as they are: only what leaves by the primary is
    translated, though its way is remembered like that.
    """
    outside = {CLIENT, town.vpc.internet.address}
    leaves = row.clients_see == "eth0" and flow.reply.source == CLIENT
    leaves = leaves or (row.internet and flow.reply.source == town.vpc.internet.address)
    if leaves:
        assert (flow.mark, flow.reply.to) == (marks.primary, town.node.primary)
        if row.ports == "kept":
            assert flow.reply.port == flow.original.source_port
    elif flow.reply.source == BEHIND[2]:
        mark = marks.primary if row.internet else 0
        assert (flow.mark, flow.reply.to) == (mark, flow.original.source)
    elif flow.reply.source in outside:
        assert (flow.mark, flow.reply.to) == (0, flow.original.source)


def check_inward(town: Town, row: Row, marks: Marks, flow: Tracked) -> None:
    """What came to an address of the node's own: remembered with its ENI, or not at all."""
    own: Mapping[IPv4Address, int] = {link.address: link.number for link in town.links}
    came_in = flow.original.source not in {*own, BEHIND[1]}
    if flow.original.to in own and came_in:
        wanted = marks.of(own[flow.original.to]) if row.node_ports else 0
        assert flow.mark == wanted, flow


@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        pytest.param({}, False, id="prng"),
        pytest.param({"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "hashrandom"}, False, id="hashrandom"),
        pytest.param({"AWS_VPC_K8S_CNI_RANDOMIZESNAT": "none"}, True, id="none"),
    ],
)
def test_source_ports(town: Town, environ: Mapping[str, str], *, kept: bool) -> None:
    town.live_by(read_settings(environ))
    town.forget_flows()
    for pod in PODS:
        for _ in range(3):
            assert town.try_flow(Flow(pod, "internet", PORT, "internet", "public")) == ""
    found = [f for f in tracked(town.node) if f.reply.source == town.vpc.internet.address]
    assert len(found) == 9
    same = [f for f in found if f.original.source_port == f.reply.port]
    # One of 9 may be the same by chance, of 28,000 that there are.
    assert len(same) == 9 if kept else len(same) < 2
    town.live_by(Settings())
