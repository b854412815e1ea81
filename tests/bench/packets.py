"""What a packet costs on its way through a node, by layout and by the number of pods.

A pod on the second ENI talks to a host of the VPC. Each layout has a node of its own: two ENIs, whose
other ends are in one namespace that answers for the whole VPC, so nothing but the node is between.
All have kube-proxy's rules but the first; `two rules per pod` is what is common: `from POD lookup
ENI's` and `to POD lookup main`, and no table of its own, no nft. Our nodes are set up by the
daemon's own code.

Both ends are driven by one thread: a packet sent is a packet received when send() returns, no wake-up
is in the figure, and throughput is that of one core which does all the work.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from itertools import repeat
from socket import (
    AF_INET,
    AF_NETLINK,
    MSG_DONTWAIT,
    SO_RCVBUF,
    SO_SNDBUF,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

from cni import nft
from cni.dataplane import GATEWAY_V4, HOST_MAC, NODE_SYSCTLS, EniLink
from cni.kernel import Wish
from cni.netlink import NodeNetlink
from cni.spec import Sandbox
from cni.wire import KernelWiring
from tests.bench.comparison import Comparison
from tests.bench.report import Report
from tests.lab.flows.kubeproxy import Forward, render
from vpclab.netns import Worker
from vpclab.node import SYSCTLS

PODS = (0, 110, 737)
"""How many others there are beside the pod that talks."""

ROUNDS, ROUNDS_SECONDS = 30, 360.0
PINGS, CHUNKS, CHUNK = 1500, 40, 100
STREAM_CHUNKS, STREAM_BYTES = 24, 1 << 20
FLOOD_CHUNKS, FLOOD = 24, 64

FLAT, OVER, WISHED_OVER = 1.03, 1.15, 1.10
"""Our cost at 737 pods by that at none, and by that of a node with kube-proxy's rules and no CNI."""

VPC, SUBNET, PREFIX = IPv4Network("10.0.0.0/16"), IPv4Network("10.0.0.0/24"), 28
PRIMARY, SECOND, FAR = (IPv4Address(a) for a in ("10.0.0.10", "10.0.0.11", "10.0.200.1"))
POD, OTHERS = IPv4Address("10.0.4.2"), IPv4Address("10.0.8.0")
ENIS, MTU = 15, 9001
"""ENIs that an m5.24xlarge takes: our tables have rules for each."""

IMAGE_RP_FILTER = "2"
"""What a link has that nobody asks about, as systemd sets it on Amazon Linux 2023 and others
(sysctl.d/50-default.conf). Ours and others' need it on ENIs anyway; with 0, a node without a CNI
would do without a lookup."""

MACS = ("0a:00:00:00:00:10", "0a:00:00:00:00:11")
FAR_MAC = "0a:00:00:00:00:01"
PORT, SERVICES, TRIES = 9000, 50, 20


def _run(argv: list[str], text: str) -> None:
    subprocess.run(argv, input=text, text=True, check=True, capture_output=True)


FILTERS = """
table ip proxy-filter {
 chain firewall {
 }
 chain endpoints {
 }
 chain cluster_ips {
 }
 chain prerouting {
  type filter hook prerouting priority dstnat - 10; policy accept;
  ct state new jump firewall
 }
 chain forward {
  type filter hook forward priority filter; policy accept;
  ct state new jump endpoints
  ct state new jump cluster_ips
 }
}
"""
"""What kube-proxy's nftables mode looks at for each packet; of NAT only the first is looked at."""


def _services() -> str:
    """Return what kube-proxy writes for some Services, half of them NodePorts."""
    forwards = [
        Forward(
            None if number % 2 else IPv4Address("10.96.0.0") + number, 30000 + number,
            IPv4Address("10.0.100.0") + number, 8080, masquerade=bool(number % 2),
        )
        for number in range(1, SERVICES + 1)
    ]  # fmt: skip
    return render("nft", forwards, ()) + FILTERS


class Node:
    """A node with two ENIs, a pod and a far host; how it routes is the layout's."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.node, self.far, self.pod, self.others = (
            stack.enter_context(contextlib.closing(Worker(part)))
            for part in ("node", "far", "pod", "others")
        )
        for worker in (self.node, self.far, self.pod):
            worker.write_sysctls({**SYSCTLS, "net.ipv4.ip_forward": "1"})
        self.node.write_sysctls({"net.ipv4.conf.default.rp_filter": IMAGE_RP_FILTER})
        to_far = f"address {FAR_MAC} netns /proc/{os.getpid()}/fd/{self.far.fd}"
        lines = ["link set lo up"]
        for number, mac in enumerate(MACS):
            name = f"eth{number}"
            lines += [
                f"link add {name} address {mac} mtu {MTU} type veth peer name {name} {to_far}",
                f"link set {name} up",
            ]
        lines += [
            f"addr add {PRIMARY}/{SUBNET.prefixlen} dev eth0",
            f"route add default via {SUBNET[1]} dev eth0",
            *(f"neigh add {SUBNET[1]} lladdr {FAR_MAC} dev eth{n} nud permanent" for n in (0, 1)),
        ]
        self.ip(self.node, *lines)
        self.ip(
            self.far, "link set lo up", f"addr add {FAR}/32 dev lo",
            *(f"link set eth{n} mtu {MTU} up" for n in (0, 1)), f"addr add {SUBNET[1]}/32 dev eth0",
            f"route add {SUBNET} dev eth0", f"route add {POD}/32 dev eth1",
            f"neigh add {POD} lladdr {MACS[1]} dev eth1 nud permanent",
        )  # fmt: skip

    @staticmethod
    def ip(worker: Worker, *lines: str) -> None:
        """Run ip's commands in a namespace."""
        worker.call(_run, ["ip", "-batch", "-"], "\n".join(lines) + "\n")

    def proxy(self) -> None:
        """Write kube-proxy's rules."""
        self.node.call(_run, ["nft", "-f", "-"], _services())

    def wire_plainly(self) -> None:
        """Wire the pod with one route, and let its packets leave by the second ENI."""
        self.ip(
            self.node, f"addr add {SECOND}/32 dev eth1", *self._pair("pod0", self.pod, "eth0", POD),
            f"route add {FAR} via {SUBNET[1]} dev eth1 onlink",
        )  # fmt: skip
        self._inside()

    def wire_by_rules(self, pods: int) -> None:
        """Wire all pods with a route and two rules each; the one that talks is in the middle."""
        lines = [
            f"addr add {SECOND}/32 dev eth1", "rule add pref 1024 fwmark 0x80/0x80 lookup main",
            f"route add default via {SUBNET[1]} dev eth1 onlink table 2",
        ]  # fmt: skip
        for number in range(pods + 1):
            is_it = number == pods // 2
            address = POD if is_it else OTHERS + number
            peer = "eth0" if is_it else f"eth{number}"
            lines += self._pair(f"pod{number}", self.pod if is_it else self.others, peer, address)
            lines += [
                f"rule add pref 512 to {address} lookup main",
                f"rule add pref 1536 from {address} lookup 2",
            ]
        self.ip(self.node, *lines)
        self._inside()

    @staticmethod
    def _pair(name: str, pod: Worker, peer: str, address: IPv4Address) -> Iterator[str]:
        netns = f"/proc/{os.getpid()}/fd/{pod.fd}"
        mac = "0a:58:" + address.packed.hex(":")
        near = f"link add {name} mtu {MTU} address {HOST_MAC} type veth"
        yield f"{near} peer name {peer} address {mac} netns {netns}"
        yield f"link set {name} up"
        yield f"route add {address}/32 dev {name}"
        yield f"neigh add {address} lladdr {mac} dev {name} nud permanent"

    def _inside(self) -> None:
        self.ip(
            self.pod, "link set lo up", "link set eth0 up", f"addr add {POD}/32 dev eth0",
            f"route add {GATEWAY_V4} dev eth0", f"route add default via {GATEWAY_V4} dev eth0",
            f"neigh add {GATEWAY_V4} lladdr {HOST_MAC} dev eth0 nud permanent",
        )  # fmt: skip

    def wire_by_enid(self, pods: int) -> None:
        """Set the node up and wire all pods by the daemon's own code."""
        self.node.write_sysctls(NODE_SYSCTLS)
        links = [
            EniLink(number, mac, address, SUBNET, MTU)
            for number, mac, address in zip((1, 2), MACS, (PRIMARY, SECOND), strict=True)
        ]
        self.node.call(self._set_up, links, pods)
        wiring = self.node.call(KernelWiring)
        netlinks = {
            worker: worker.socket(AF_NETLINK, SOCK_RAW) for worker in (self.pod, self.others)
        }
        for number in range(pods + 1):
            is_it = number == pods // 2
            worker = self.pod if is_it else self.others
            sandbox = Sandbox("enid", f"{number:064x}", "eth0" if is_it else f"eth{number}")
            address = POD if is_it else OTHERS + number
            wish = Wish(sandbox, (address,), 2, "eni-2", "-", MTU, PRIMARY)
            wiring.connect(wish, worker.fd, netlinks[worker].fileno(), "")
        wiring.close()
        for sock in netlinks.values():
            sock.close()

    @staticmethod
    def _set_up(links: list[EniLink], pods: int) -> None:
        net = NodeNetlink()
        for link in links:
            net.configure_eni(link)
        net.set_rules(links)
        wish = nft.NftWish(vpc_cidrs=(VPC,), node_primary=PRIMARY, eni_numbers=ENIS)
        net.apply_nft(nft.render(wish))
        blocks = (IPv4Network((int(OTHERS) + at, PREFIX)) for at in range(0, pods + 1, 16))
        net.add_guards([IPv4Network(POD), *blocks])
        net.close()


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of what is measured, of each kind."""

    pod: socket
    far: socket
    sink: socket
    """Whom nobody reads: what comes for it is dropped there."""
    flood: socket
    up: socket
    down: socket

    @classmethod
    def between(cls, node: Node) -> Ends:
        """Open and connect all; each flow has gone both ways."""
        far = node.far.socket(AF_INET, SOCK_DGRAM)
        far.bind((str(FAR), PORT))
        pod = _connected(node.pod, far)
        sink = node.far.socket(AF_INET, SOCK_DGRAM)
        sink.setsockopt(SOL_SOCKET, SO_RCVBUF, 1)  # the kernel's least
        sink.bind((str(FAR), PORT + 1))
        flood = _connected(node.pod, sink)
        listener = node.far.socket(AF_INET, SOCK_STREAM)
        listener.bind((str(FAR), PORT))
        listener.listen()
        up = node.pod.socket(AF_INET, SOCK_STREAM)
        up.setsockopt(SOL_SOCKET, SO_SNDBUF, 4 << 20)
        up.connect((str(FAR), PORT))
        down, _ = listener.accept()
        listener.close()
        up.setblocking(False)  # noqa: FBT003 - the standard library's signature
        return cls(pod, far, sink, flood, up, down)

    def close(self) -> None:
        for end in (self.pod, self.far, self.sink, self.flood, self.up, self.down):
            end.close()


def _connected(pod: Worker, far: socket) -> socket:
    """Return a socket of the pod's that talks to *far*; a flow that has gone both ways."""
    near = pod.socket(AF_INET, SOCK_DGRAM)
    for sock in (near, far):
        sock.settimeout(0.1)
    near.connect(far.getsockname())
    answered = 0
    for _ in range(TRIES):
        with contextlib.suppress(TimeoutError):  # a link that has just come up loses packets
            near.send(b"?")
            _, peer = far.recvfrom(16)
            if peer[0] != str(POD):
                raise RuntimeError(f"the pod is seen as {peer[0]}")
            far.sendto(b"!", peer)
            near.recv(16)
            answered += 1
    if answered < TRIES // 2:
        raise RuntimeError(f"{answered} of {TRIES} packets were answered")
    for sock in (near, far):
        sock.settimeout(None)
    return near


# Measures; each returns the median, in seconds or a rate ----------------------------------
def round_trip(ends: Ends) -> float:
    """Return what a packet there and one back take."""
    pod, far, clock = ends.pod, ends.far, time.perf_counter
    peer, times = pod.getsockname(), []
    for _ in range(PINGS):
        began = clock()
        pod.send(b"?")
        far.recv(16)
        far.sendto(b"!", peer)
        pod.recv(16)
        times.append(clock() - began)
    return statistics.median(times)


def one_way(ends: Ends) -> float:
    """Return what a packet takes to where nobody reads it."""
    send, clock, times = ends.flood.send, time.perf_counter, []
    for _ in range(CHUNKS):
        began = clock()
        for _ in repeat(None, CHUNK):
            send(b"?")
        times.append((clock() - began) / CHUNK)
    return statistics.median(times)


def tcp(ends: Ends) -> float:
    """Return the Gbit/s of a TCP connection."""
    up, down, clock, times = ends.up, ends.down, time.perf_counter, []
    piece, room = bytes(1 << 18), bytearray(1 << 20)
    for _ in range(STREAM_CHUNKS):
        began, sent, got = clock(), 0, 0
        while got < STREAM_BYTES:
            if sent < STREAM_BYTES:
                with contextlib.suppress(BlockingIOError):
                    sent += up.send(piece[: STREAM_BYTES - sent])
            if got < sent:
                got += down.recv_into(room)
        times.append(clock() - began)
    return 8 * STREAM_BYTES / statistics.median(times) / 1e9


def udp(ends: Ends) -> float:
    """Return the thousands of packets a second of 1,400 bytes that arrive and are read."""
    send, far, clock, times = ends.pod.send, ends.far, time.perf_counter, []
    piece, room = bytes(1400), bytearray(2048)
    for _ in range(FLOOD_CHUNKS):
        began = clock()
        for _ in repeat(None, FLOOD):
            send(piece)
        for _ in repeat(None, FLOOD):
            far.recv_into(room, 2048, MSG_DONTWAIT)
        times.append(clock() - began)
    return FLOOD / statistics.median(times) / 1e3


MEASURES: Mapping[str, tuple[Callable[[Ends], float], str]] = {
    "round trip": (round_trip, "us"),
    "one way": (one_way, "us"),
    "TCP": (tcp, "Gbit/s"),
    "UDP": (udp, "kpps"),
}

LAYOUTS: Mapping[str, tuple[bool, Callable[[Node], None]]] = {
    "no rules": (False, Node.wire_plainly),
    "kube-proxy": (True, Node.wire_plainly),
    **{f"ours {n}": (True, partial(Node.wire_by_enid, pods=n)) for n in PODS},
    **{f"rules {n}": (True, partial(Node.wire_by_rules, pods=n)) for n in PODS},
}
"""Whether kube-proxy's rules are there, and how pods are wired."""


def measure(report: Report) -> None:
    """Set up a node of each layout, and measure them in turns."""
    with contextlib.ExitStack() as stack:
        nodes: dict[str, Node] = {}
        for name, (is_proxied, wire) in LAYOUTS.items():
            report.tell(f"a node of layout: {name}")
            node = nodes[name] = Node(stack)
            if is_proxied:
                node.proxy()
            wire(node)
        report.tell(f"{report.count(ROUNDS)} rounds of {len(nodes)} layouts")
        found = _rounds(nodes, report.rounds(ROUNDS, ROUNDS_SECONDS))
    _rows(report, found)


def _rounds(
    nodes: Mapping[str, Node], rounds: Iterable[int]
) -> dict[tuple[str, str], tuple[float, ...]]:
    """Measure each layout once a round, with connections of the round's own.

    Where a connection's memory lies makes a per cent or two, for as long as it lives.
    """
    chance = random.Random(1)
    found: dict[tuple[str, str], list[float]] = {}
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    try:
        for _ in rounds:
            for name in chance.sample(list(nodes), len(nodes)):
                with contextlib.closing(Ends.between(nodes[name])) as ends:
                    for what, (take, _) in MEASURES.items():
                        found.setdefault((what, name), []).append(take(ends))
    finally:
        os.sched_setaffinity(0, cpus)
    return {key: tuple(values) for key, values in found.items()}


def _rows(report: Report, found: Mapping[tuple[str, str], tuple[float, ...]]) -> None:
    full = f"ours {PODS[-1]}"
    pairs: list[tuple[str, str, str, str, tuple[float, float | None] | None]] = [
        ("kube-proxy's rules and no CNI", "kube-proxy", "no rules", "no rules at all", None),
        *((f"{n} pods", f"ours {n}", "ours 0", "ours with none", (FLAT, None)) for n in PODS[1:]),
        (f"{PODS[-1]} pods", full, "kube-proxy", "kube-proxy's rules alone", (OVER, WISHED_OVER)),
        *((f"{n} pods", f"ours {n}", f"rules {n}", "two rules a pod", None) for n in PODS),
    ]
    for what, (_, unit) in MEASURES.items():
        for name, ours, theirs, than, limits in pairs:
            row = Comparison(
                f"{what}, {name}", found[what, ours], found[what, theirs], unit=unit, than=than,
                needs=ROUNDS,
            )  # fmt: skip
            report.add(row if limits is None else _gated(row, *limits))


def _gated(row: Comparison, limit: float, stretch: float | None) -> Comparison:
    """Return *row* with what it may cost more than theirs; of a rate, more is better."""
    if row.unit == "us":
        return replace(row, least=1 / limit, stretch=stretch and 1 / stretch)
    return replace(row, greatest=limit, stretch=stretch)
