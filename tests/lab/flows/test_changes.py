"""What changes while connections live: the VPC's CIDRs, settings, and marks that others set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Protocol

import pytest

from cni.dataplane import Marks
from ipamd import wires
from ipamd.layers import read_settings
from ipamd.settings import Settings
from tests.lab.flows.town import CLIENT, HOST_PORTS, NODE_PORTS, PODS, PORT, Flow, Town
from tests.lab.flows.tracked import tracked
from tests.lab.patience import PATIENCE

NEAR = IPv4Network("192.168.0.0/16")
"""A CIDR that the VPC gets, with the client in it."""

EXCLUDED = Settings(exclude_snat_cidrs=(str(NEAR),))
EXTERNAL = Settings(external_snat=True)


class Talk(Protocol):
    """A connection that lives."""

    def goes_on(self) -> bool:
        """Whether what is sent arrives, from the same source as at first."""

    @property
    def seen(self) -> str: ...


class Tcp:
    """A TCP connection from a pod to the client."""

    def __init__(self, town: Town, pod: str) -> None:
        self._connection = town.open(Flow(pod, "client", PORT, "client", ""))
        self.seen = self._connection.seen

    def goes_on(self) -> bool:
        return self._connection.exchange()

    def close(self) -> None:
        self._connection.end()
        self._connection.close()


class OneWay:
    """Datagrams that nobody answers, as syslog sends them."""

    def __init__(self, town: Town, pod: str) -> None:
        self._sink: socket = town.places["client"].socket(AF_INET, SOCK_DGRAM)
        self._sink.bind(("", 0))
        self._sink.settimeout(1.0 * PATIENCE)
        self._sock = town.places[pod].socket(AF_INET, SOCK_DGRAM)
        self._sock.connect((str(CLIENT), self._sink.getsockname()[1]))
        self._peer = self._send()
        self.seen = self._peer[0]

    def _send(self) -> tuple[str, int]:
        self._sock.send(b"message")
        host, port = self._sink.recvfrom(100)[1]
        return host, port

    def goes_on(self) -> bool:
        return self._send() == self._peer

    def close(self) -> None:
        self._sink.close()
        self._sock.close()


@pytest.fixture
def plain(town: Town) -> Iterator[Town]:
    """The town, and its usual settings again afterwards."""
    town.live_by(Settings())
    town.forget_flows()
    town.vpc.reset_drops()
    yield town
    town.live_by(Settings())
    town.forget_flows()


@pytest.mark.parametrize("kind", [Tcp, OneWay])
@pytest.mark.parametrize(
    ("settings", "more"),
    [
        pytest.param(Settings(), (NEAR,), id="a-vpc-cidr"),
        pytest.param(EXCLUDED, (), id="an-excluded-cidr"),
        pytest.param(EXTERNAL, (), id="external-snat"),
    ],
)
def test_a_change_holds_for_what_begins_and_flushes_nothing(
    plain: Town, kind: type[Tcp | OneWay], settings: Settings, more: tuple[IPv4Network, ...]
) -> None:
    """It comes and goes again; what began before each goes on as it began, by its own ENI."""
    with contextlib.ExitStack() as stack:

        def begin(pod: str) -> Talk:
            return stack.enter_context(contextlib.closing(kind(plain, pod)))

        own = {pod: str(plain.addresses[pod]) for pod in PODS}
        before = [begin(pod) for pod in PODS]
        assert [talk.seen for talk in before] == [str(plain.node.primary)] * 3
        plain.live_by(settings, *more)
        between = [begin(pod) for pod in PODS]
        assert [talk.seen for talk in between] == list(own.values())
        assert all(talk.goes_on() for talk in (*before, *between))
        plain.live_by(Settings())
        after = [begin(pod) for pod in PODS]
        assert [talk.seen for talk in after] == [str(plain.node.primary)] * 3
        assert all(talk.goes_on() for talk in (*before, *between, *after))
        known = [flow for flow in tracked(plain.node) if flow.reply.source == CLIENT]
        assert len(known) == 9, "none was flushed, none began anew"
        assert sorted({flow.mark for flow in known}) == [0, 0x80]
    assert not any(plain.vpc.drops().values()), plain.vpc.drops()


# Marks of others -------------------------------------------------------------------------
STRANGER = """
table ip stranger {{
 chain first {{
  type filter hook prerouting priority -199; policy accept;
  meta mark set meta mark or {bits:#x}
  ct status and 0x8 == 0x0 ct mark set ct mark or {bits:#x}
 }}
 chain last {{
  type filter hook postrouting priority 300; policy accept;
  iif 0 return
  meta mark and {bits:#x} != {bits:#x} counter comment "lost"
  meta mark and {rest:#x} != 0x0 counter comment "more"
 }}
}}
"""
"""Another agent: it sets *bits* before everybody, of each packet's mark and once of a connection's,
and looks at the end whether they are all there and none of *rest*."""


@dataclass(frozen=True, slots=True)
class Case:
    """Where our byte is, and which of the other bits another agent uses."""

    mark: str
    bits: int


CASES = [
    pytest.param(Case("0x80", 0x5A5A0A00), id="usual"),
    pytest.param(Case("0x80000000", 0x005A0A5A), id="highest"),
    pytest.param(Case("0x800000", 0xA5000AA5), id="between"),
]


def marked(source: str) -> Iterator[Flow]:
    """Yield flows of each way that we mark."""
    for pod in PODS:
        yield Flow(pod, "internet", PORT, "internet", "public")
        yield Flow(pod, "remote", PORT, "remote", pod)
        yield Flow(pod, "ClusterIP remote", 80, "remote", pod)
    for eth in ("eth0", "eth1", "eth2"):
        yield Flow(source, eth, NODE_PORTS["Local podS"], "podS", source)
        yield Flow(source, eth, NODE_PORTS["Cluster podT"], "podT", "eth0")
        yield Flow(source, eth, HOST_PORTS["podP"], "podP", source)


@pytest.mark.parametrize("case", CASES)
def test_bits_of_others_are_as_they_were(proxied: Town, case: Case) -> None:
    settings = read_settings({"AWS_VPC_K8S_CNI_CONNMARK": case.mark})
    marks: Marks = wires.marks(settings)
    kube_proxys = 0x6000
    rest = 0xFFFFFFFF & ~(case.bits | marks.mask | kube_proxys)
    assert not case.bits & (marks.mask | kube_proxys)
    proxied.live_by(settings)
    proxied.forget_flows()
    text = STRANGER.format(bits=case.bits, rest=rest)
    proxied.node.run(["nft", "-f", "-"], input=text)
    try:
        wrong = {str(f): why for f in marked("client") if (why := proxied.try_flow(f))}
        assert wrong == {}
        found = [f for f in tracked(proxied.node) if f.original.source in outside(proxied)]
        listed = proxied.node.run(["nft", "list", "chain", "ip", "stranger", "last"]).stdout
    finally:
        proxied.node.run(["nft", "delete", "table", "ip", "stranger"])
        proxied.live_by(Settings())
        proxied.forget_flows()
    assert {flow.mark & ~marks.mask for flow in found} == {case.bits}
    assert {flow.mark & marks.mask for flow in found} == {0, *(marks.of(n) for n in (1, 2, 3))}
    assert listed.count("counter packets 0 bytes 0") == 2, listed


def outside(town: Town) -> set[IPv4Address]:
    """Return who begins `marked` flows."""
    return {town.addresses[name] for name in (*PODS, "client")}
