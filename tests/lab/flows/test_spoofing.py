"""What a pod may not send, and what it does not reach: with frames made by hand, from inside it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_PACKET, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM

import pytest

from cni.dataplane import GATEWAY_V4, HOST_MAC, pod_mac
from cni.nft import METADATA_V4
from ipamd.layers import read_settings
from ipamd.settings import Settings
from tests.lab.flows import packets
from tests.lab.flows.packets import BROADCAST, arp, frame, udp4, udp6
from tests.lab.flows.town import PODS, PORT, Flow, Place, Town
from tests.lab.patience import PATIENCE

SPOOFER = "podS"
ATTEMPTS = 3
EAR = 7777
SILENCE_SECONDS, LAST_SECONDS = 0.2, 2.0
"""What has not arrived within this long was dropped; what was sent after it does arrive."""

OTHER_MAC = "0a:58:0a:00:00:99"
NODE6, OTHER6, LINK_LOCAL = map(IPv6Address, ("fd00::1", "fd00::2", "fe80::2"))


@dataclass(frozen=True)
class Pod:
    """The pod that spoofs."""

    place: Place
    address: IPv4Address

    @property
    def mac(self) -> str:
        return pod_mac(self.address)

    def send(self, kind: int, payload: bytes, *, source: str = "", to: str = HOST_MAC) -> None:
        with self.place.socket(AF_PACKET, SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(frame(kind, payload, source=source or self.mac, to=to))


@pytest.fixture
def spoofer(town: Town) -> Iterator[Pod]:
    """A pod that sends what it likes; the VPC drops nothing, because the node did."""
    town.live_by(Settings())
    town.vpc.reset_drops()
    yield Pod(town.places[SPOOFER], town.addresses[SPOOFER])
    assert not any(town.vpc.drops().values()), town.vpc.drops()


@contextlib.contextmanager
def ear(place: Place, family: int = AF_INET) -> Iterator[socket.socket]:
    with place.socket(family, SOCK_DGRAM) as sock:
        sock.bind(("", EAR))
        yield sock


def heard(sock: socket.socket, last: bytes = b"") -> set[bytes]:
    """Return what comes until *last*, which was sent last; all, until nothing comes any more."""
    sock.settimeout((LAST_SECONDS if last else SILENCE_SECONDS) * PATIENCE)
    found: set[bytes] = set()
    with contextlib.suppress(TimeoutError):
        while not found or last not in found:
            found.add(sock.recv(100))
    return found


def counted(town: Town, name: str) -> int:
    """Return a counter of the node's kernel."""

    def read() -> int:
        lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        known: dict[str, str] = {}
        for keys, values in zip(lines[::2], lines[1::2], strict=True):
            known |= zip(keys.split(), values.split(), strict=True)
        return int(known[name])

    return town.node.worker.call(read)


def dropped(town: Town, family: str) -> int:
    """Return how many packets have been dropped that no pod may send."""
    chains = {"ip": ("arrive", "leave"), "ip6": ("spoof",)}[family]
    listed = [town.node.run(["nft", "list", "chain", family, "enid", c]).stdout for c in chains]
    return sum(map(int, re.findall(r"counter packets (\d+)", "".join(listed))))


FOREIGN = {
    "another-pods": "podT",
    "a-pods-of-another-eni": "podP",
    "the-nodes": "eth0",
    "its-own-enis": "eth1",
    "a-vpc-hosts": "host",
    "one-outside": "client",
}


FARS = ("remote", "node", *(("podP", "host") if os.environ.get("FLOWS") == "all" else ()))


@pytest.mark.parametrize("far", FARS)
@pytest.mark.parametrize("whose", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_pod_sends_from_its_own_address_only(
    town: Town, spoofer: Pod, whose: str, far: str
) -> None:
    target = town.addresses[far]
    before = counted(town, "IPReversePathFilter")
    with ear(town.places[far]) as sock:
        for source, text in ((town.addresses[whose], b"foreign"), (spoofer.address, b"own")):
            for _ in range(ATTEMPTS):
                spoofer.send(packets.IPV4, udp4(source, target, EAR, text))
        assert heard(sock, b"own") == {b"own"}
    refused = counted(town, "IPReversePathFilter") - before
    # An address of the node's own is refused sooner, as a martian.
    assert refused == (0 if whose in {"eth0", "eth1"} else ATTEMPTS)


NOBODYS = ("127.0.0.1", str(IPv4Address(0)), "224.0.0.1", "255.255.255.255", "169.254.1.1")


@pytest.mark.parametrize("source", NOBODYS)
def test_a_pod_sends_from_no_address_that_is_nobodys(town: Town, spoofer: Pod, source: str) -> None:
    with ear(town.places["node"]) as sock:
        spoofer.send(packets.IPV4, udp4(IPv4Address(source), town.node.primary, EAR, b"foreign"))
        spoofer.send(packets.IPV4, udp4(spoofer.address, town.node.primary, EAR, b"own"))
        assert heard(sock, b"own") == {b"own"}


def test_a_pod_reaches_nothing_that_listens_on_the_nodes_loopback(town: Town, spoofer: Pod) -> None:
    before = dropped(town, "ip")
    with town.places["node"].socket(AF_INET, SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", EAR))
        spoofer.send(packets.IPV4, udp4(spoofer.address, IPv4Address("127.0.0.1"), EAR, b"in"))
        assert heard(sock) == set()
    assert dropped(town, "ip") == before + 1


@pytest.fixture
def with_ipv6(town: Town) -> Iterator[Town]:
    """The node with an address of IPv6; it forwards that, too."""
    town.node.run(["ip", "addr", "add", f"{NODE6}/128", "dev", "lo"])
    yield town
    town.node.run(["ip", "addr", "del", f"{NODE6}/128", "dev", "lo"])


@pytest.mark.parametrize("source", [OTHER6, NODE6], ids=["anothers", "the-nodes"])
def test_a_pod_sends_no_ipv6_but_its_links_own(
    with_ipv6: Town, spoofer: Pod, source: IPv6Address
) -> None:
    before = dropped(with_ipv6, "ip6")
    with ear(with_ipv6.places["node"], AF_INET6) as sock:
        for sender, text in ((source, b"foreign"), (LINK_LOCAL, b"own")):
            spoofer.send(packets.IPV6, udp6(sender, NODE6, EAR, text))
        assert heard(sock, b"own") == {b"own"}
    assert dropped(with_ipv6, "ip6") == before + 1


def test_a_foreign_mac_ends_at_the_veth(town: Town, spoofer: Pod) -> None:
    """The node forwards what it is: with the ENI's MAC, or the VPC would drop it."""
    with ear(town.places["remote"]) as sock:
        text = udp4(spoofer.address, town.addresses["remote"], EAR, b"own")
        spoofer.send(packets.IPV4, text, source=OTHER_MAC)
        assert heard(sock, b"own") == {b"own"}


def test_what_is_for_another_mac_is_not_forwarded(town: Town, spoofer: Pod) -> None:
    eni = town.links[1]
    with ear(town.places["remote"]) as sock:
        for mac in (OTHER_MAC, eni.mac, pod_mac(town.addresses["podP"])):
            text = udp4(spoofer.address, town.addresses["remote"], EAR, b"astray")
            spoofer.send(packets.IPV4, text, to=mac)
        text = udp4(spoofer.address, town.addresses["remote"], EAR, b"own")
        spoofer.send(packets.IPV4, text)
        assert heard(sock, b"own") == {b"own"}


ETH_P_ALL = socket.htons(3)
CLAIMS = {
    "another-pod": "podP",
    "the-node": "eth0",
    "the-gateway": None,
}


@pytest.mark.parametrize("whose", CLAIMS.values(), ids=CLAIMS.keys())
def test_who_claims_anothers_address_by_arp_gets_none_of_its_packets(
    town: Town, spoofer: Pod, whose: str | None
) -> None:
    claimed = town.addresses[whose] if whose else GATEWAY_V4
    with spoofer.place.socket(AF_PACKET, SOCK_RAW, ETH_P_ALL) as raw:
        raw.bind(("eth0", 0))
        for operation in (1, 2):
            for mac, to in ((BROADCAST, claimed), (HOST_MAC, town.node.primary)):
                claim = arp(operation, (spoofer.mac, claimed), (mac, to))
                raw.send(frame(packets.ARP, claim, source=spoofer.mac, to=mac))
        for flow in honest():
            assert town.try_flow(flow) == ""
        came = pairs(raw)
    assert any(spoofer.address in pair for pair in came), "its own packets were seen"
    assert {pair for pair in came if spoofer.address not in pair} == set()


def pairs(raw: socket.socket) -> set[tuple[IPv4Address, IPv4Address]]:
    """Return source and destination of each IPv4 packet that has come to a raw socket."""
    raw.setblocking(False)  # noqa: FBT003 - the library's
    found = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            packet = raw.recv(100)
            if int.from_bytes(packet[12:14]) == packets.IPV4:
                found.add((IPv4Address(packet[26:30]), IPv4Address(packet[30:34])))
    return found


def honest() -> Iterator[Flow]:
    """Yield flows of those whose addresses were claimed."""
    yield Flow("node", "podP", PORT, "podP", "eth0")
    yield Flow("podT", "podP", PORT, "podP", "podT")
    yield Flow("podP", "eth0", PORT, "node", "podP")
    yield Flow(SPOOFER, "remote", PORT, "remote", SPOOFER)


# Metadata --------------------------------------------------------------------------------
def metadata_answers(place: Place, seconds: float) -> bool:
    """Whether the instance's metadata answers; without a token, that is a refusal in HTTP."""
    with place.socket(AF_INET, SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect((METADATA_V4, 80))
            sock.sendall(b"GET /latest/meta-data/mac HTTP/1.0\r\n\r\n")
            return b" 401 " in sock.recv(100)
        except TimeoutError:
            return False


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
def test_metadata_is_open_to_pods_unless_a_setting_closes_it(
    proxied: Town, *, is_closed: bool
) -> None:
    """For the node, and for pods of its own network, it stays open."""
    proxied.live_by(read_settings({"ENID_BLOCK_POD_METADATA": str(is_closed).lower()}))
    for pod in PODS:
        seconds = SILENCE_SECONDS if is_closed else LAST_SECONDS
        assert metadata_answers(proxied.places[pod], seconds) is not is_closed
    assert metadata_answers(proxied.places["node"], LAST_SECONDS)
    proxied.live_by(Settings())
