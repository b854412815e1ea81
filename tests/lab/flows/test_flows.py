"""The flows of the data plane, with real packets, beside kube-proxy in two flavours.

Each flow is one TCP connection with two exchanges and 20 kB, whose far end tells who it is
and whom it sees. At the end the VPC must have dropped nothing: a packet that leaves by the
wrong ENI, or with somebody else's source, is counted by the fabric.
"""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from socket import AF_INET, AF_NETLINK, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from pyroute2 import IPRoute

from cni import nft
from cni.dataplane import EniLink
from cni.kernel import Wish
from cni.netlink import NodeNetlink
from cni.spec import Sandbox
from cni.wire import KernelWiring
from tests.lab.flows.kubeproxy import FLAVOURS, HOSTPORT_MASQUERADE, Flavour, Forward, render
from tests.lab.patience import PATIENCE
from vpclab.enid import prepare
from vpclab.netns import Worker

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node

PORT = 8080
EXCHANGE = 10_000
CLIENT = IPv4Address("192.168.50.10")
"""A client outside the VPC whose source is kept: peering, VPN, a load balancer that keeps it."""

SERVICES = IPv4Network("10.96.0.0/24")
NODE_PORTS = {
    "Cluster podP": 30001, "Cluster podS": 30002, "Cluster podT": 30003, "Cluster remote": 30004,
    "Cluster internet": 30005, "Local podP": 30006, "Local podS": 30007, "Local podT": 30008,
}  # fmt: skip
HOST_PORTS = {"podP": 8101, "podS": 8102}
PODS = ("podP", "podS", "podT")
NEXT = {"podP": "podS", "podS": "podT", "podT": "podP"}
CLUSTER_IPS = ("remote", "podP", "podS", "podT", "node", "host", "internet")


class Place(Protocol):
    """Somewhere sockets can live."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket: ...


@dataclass(frozen=True)
class Flow:
    """From *source* to *to*; *far* answers and sees *seen*."""

    source: str
    to: str
    port: int
    far: str
    seen: str
    bind: str = ""

    def __str__(self) -> str:
        what = {PORT: "", **{p: f" NodePort {n}" for n, p in NODE_PORTS.items()}}
        what |= {p: f" hostPort {n}" for n, p in HOST_PORTS.items()}
        kind = what.get(self.port, "")
        return f"{self.source}{' bound' if self.bind else ''} -> {self.to}{kind} = {self.far}"


def flows() -> Iterator[Flow]:
    """Yield all flows: 118, and the ten that the internet can begin."""
    for pod in PODS:
        for to, far in (
            ("remote", "remote"), (NEXT[pod], NEXT[pod]), (pod, pod), ("node", "node"),
            ("host", "host"), ("internet", "internet"),
        ):  # fmt: skip
            seen = {"internet": "public", pod: "eth0"}.get(far, pod)
            yield Flow(pod, f"ClusterIP {to}", 80, far, seen)
        yield Flow(pod, "remote", PORT, "remote", pod)
        yield Flow(pod, NEXT[pod], PORT, NEXT[pod], pod)
        yield Flow(pod, "eth0", PORT, "node", pod)
        yield Flow(pod, "eth1", PORT, "node", pod)
        yield Flow(pod, "remote-node", PORT, "remote-node", pod)
        yield Flow(pod, "internet", PORT, "internet", "public")
        yield Flow(pod, "eth0", NODE_PORTS[f"Cluster {NEXT[pod]}"], NEXT[pod], "eth0")
        yield Flow(pod, "eth0", HOST_PORTS["podP"], "podP", "eth0" if pod == "podP" else pod)
    for pod in PODS:
        yield Flow("node", pod, PORT, pod, "eth0")
    yield Flow("node", "remote", PORT, "remote", "eth0")
    yield Flow("node", "ClusterIP remote", 80, "remote", "eth0")
    yield Flow("node", "ClusterIP podS", 80, "podS", "eth0")
    yield Flow("node", "eth0", NODE_PORTS["Cluster podT"], "podT", "eth0")
    yield Flow("node", "eth0", HOST_PORTS["podS"], "podS", "eth0")
    yield Flow("node", "internet", PORT, "internet", "public")
    yield Flow("node", "remote", PORT, "remote", "eth1", bind="eth1")
    for outsider in ("host", "client"):
        for pod in PODS:
            yield Flow(outsider, pod, PORT, pod, outsider)
        for eth in ("eth0", "eth1", "eth2"):
            yield from ports(outsider, eth)
    yield from ports("internet", "public")


def ports(outsider: str, eth: str) -> Iterator[Flow]:
    """Yield the flows from *outsider* to every NodePort and hostPort of one address."""
    for name, port in NODE_PORTS.items():
        policy, far = name.split()
        seen = {"Local": outsider}.get(policy, "public" if far == "internet" else "eth0")
        yield Flow(outsider, eth, port, far, seen)
    for far, port in HOST_PORTS.items():
        yield Flow(outsider, eth, port, far, outsider)


class Servers:
    """One thread that answers everywhere: who it is, whom it sees, then what is asked."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def listen(self, name: str, place: Place) -> None:
        listener = place.socket(AF_INET, SOCK_STREAM)
        listener.bind(("", PORT))
        listener.listen(64)
        listener.setblocking(False)  # noqa: FBT003 - the library's
        self._selector.register(listener, selectors.EVENT_READ, name)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if key.data:
                    client, peer = sock.accept()
                    client.sendall(f"{key.data} {peer[0]}\n".encode())
                    self._selector.register(client, selectors.EVENT_READ, "")
                    continue
                asked = b""
                with contextlib.suppress(OSError):
                    asked = sock.recv(1)
                if asked:
                    sock.sendall(bytes(EXCHANGE))
                else:
                    self._selector.unregister(sock)
                    sock.close()


class Town:
    """The node under test with three ENIs and a pod on each, and everybody it talks to."""

    def __init__(self, vpc: EmbeddedVPC, stack: contextlib.ExitStack) -> None:
        self.vpc, self._stack = vpc, stack
        vpc.add_cidr("100.64.0.0/16")
        near = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
        far = vpc.add_subnet("10.0.2.0/24", "us-east-1b")
        other = vpc.add_subnet("100.64.1.0/24", "us-east-1a")
        self.node = vpc.launch_node("node", "m5.large", near, public=True)
        prepare(self.node)
        self.remote_node = vpc.launch_node("remote-node", "m5.large", far, public=True)
        prepare(self.remote_node)
        self.host = vpc.launch_node("host", "m5.large", far)
        self.net = self.node.worker.call(NodeNetlink)
        stack.callback(self.node.worker.call, self.net.close)
        self.links = [self._link(self.node, 0), self._attach(near, 1), self._attach(other, 2)]
        vpc_cidrs = tuple(IPv4Network(c) for c in vpc.cidrs)
        self.wish = nft.NftWish(vpc_cidrs=vpc_cidrs, node_primary=self.node.primary, eni_numbers=3)
        self._data_plane(self.node, self.net, self.links, self.wish)
        self.places: dict[str, Place] = {
            "node": self.node, "remote-node": self.remote_node, "host": self.host,
            "internet": vpc.internet, "client": self._client(),
        }  # fmt: skip
        self.addresses: dict[str, IPv4Address] = {
            "eth0": self.node.primary,
            "eth1": self.links[1].address,
            "eth2": self.links[2].address,
            "node": self.node.primary,
            "remote-node": self.remote_node.primary,
            "host": self.host.primary,
            "internet": vpc.internet.address,
            "client": CLIENT,
            "public": vpc.public_address(self.node),
        }
        for number, pod in enumerate(PODS, 1):
            self._pod(pod, self.node, self.net, number)
        remote_net = self.remote_node.worker.call(NodeNetlink)
        stack.callback(self.remote_node.worker.call, remote_net.close)
        link = self._link(self.remote_node, 0)
        wish = nft.NftWish(
            vpc_cidrs=vpc_cidrs, node_primary=self.remote_node.primary, eni_numbers=3
        )
        self._data_plane(self.remote_node, remote_net, [link], wish)
        self._pod("remote", self.remote_node, remote_net, 1)
        self.services = dict(zip(CLUSTER_IPS, SERVICES.hosts(), strict=False))
        self.servers = Servers()
        stack.callback(self.servers.close)
        for name, place in self.places.items():
            self.servers.listen(name, place)
        self.servers.start()

    def _enis(self, node: Node) -> Mapping[int, Any]:
        mine = (e for e in self.vpc.enis() if e.instance_id == node.instance_id)
        return {e.device_index: e for e in mine if e.device_index is not None}

    def _link(self, node: Node, index: int) -> EniLink:
        eni = self._enis(node)[index]
        described = self.vpc.ec2.describe_subnets(SubnetIds=[eni.subnet_id])["Subnets"][0]
        subnet = IPv4Network(described["CidrBlock"])
        return EniLink(index + 1, eni.mac, eni.primary, subnet, 9001)

    def _attach(self, subnet: str, index: int) -> EniLink:
        made = self.vpc.ec2.create_network_interface(
            SubnetId=subnet, SecondaryPrivateIpAddressCount=3
        )["NetworkInterface"]["NetworkInterfaceId"]
        self.vpc.ec2.attach_network_interface(
            NetworkInterfaceId=made, InstanceId=self.node.instance_id, DeviceIndex=index
        )
        return self._link(self.node, index)

    def _data_plane(
        self, node: Node, net: NodeNetlink, links: list[EniLink], wish: nft.NftWish
    ) -> None:
        def apply() -> None:
            for link in links:
                net.configure_eni(link)
            net.set_rules(links)
            net.apply_nft(nft.render(wish))

        node.worker.call(apply)

    def _pod(self, name: str, node: Node, net: NodeNetlink, number: int) -> None:
        eni = self._enis(node)[number - 1]
        if not eni.secondary:
            self.vpc.ec2.assign_private_ip_addresses(
                NetworkInterfaceId=eni.id, SecondaryPrivateIpAddressCount=3
            )
            eni = self._enis(node)[number - 1]
        pod = node.add_pod_netns(f"cni-{name}")
        self._stack.callback(pod.close)
        address = eni.secondary[0]
        sandbox = Sandbox("enid", name, "eth0")
        wish = Wish(sandbox, (address,), number, eni.id, name, 9001, node.primary)
        node.worker.call(net.add_guards, [IPv4Network(a) for a in eni.secondary])
        with pod.socket(AF_NETLINK, SOCK_RAW) as netlink:
            wiring = node.worker.call(KernelWiring)
            node.worker.call(wiring.connect, wish, pod.fd, netlink.fileno(), pod.path)
            node.worker.call(wiring.close)
        self.places[name] = pod
        self.addresses[name] = address

    def _client(self) -> Place:
        """Put a host beside the VPC whose packets come in as they are."""
        client = Worker("client")
        self._stack.callback(client.close)

        def outside() -> None:
            with IPRoute() as ip:
                peer = {"ifname": "eth0", "net_ns_fd": client.fd}
                ip.link("add", ifname="peering", kind="veth", peer=peer)
                index = ip.link_lookup(ifname="peering")[0]
                ip.addr("add", index=index, address="192.168.50.1", prefixlen=24)
                ip.link("set", index=index, state="up")

        def inside() -> None:
            with IPRoute() as ip:
                for name in ("lo", "eth0"):
                    ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
                eth0 = ip.link_lookup(ifname="eth0")[0]
                ip.addr("add", index=eth0, address=str(CLIENT), prefixlen=24)
                ip.route("add", dst="default", gateway="192.168.50.1")

        self.vpc.fabric.worker.call(outside)
        client.call(inside)
        return client

    def proxy(self, flavour: Flavour) -> None:
        """Write kube-proxy's and portmap's rules."""
        a = self.addresses
        forwards = [Forward(ip, 80, a[name], PORT) for name, ip in self.services.items()]
        for name, port in NODE_PORTS.items():
            policy, far = name.split()
            forwards.append(Forward(None, port, a[far], PORT, masquerade=policy == "Cluster"))
        forwards += [
            Forward(None, port, a[pod], PORT, mark=HOSTPORT_MASQUERADE)
            for pod, port in HOST_PORTS.items()
        ]
        text = render(flavour, forwards, [a[pod] for pod in PODS])
        program = ["nft", "-f", "-"] if flavour == "nft" else ["iptables-restore", "--noflush"]
        self.node.run(program, input=text)

    def unproxy(self, flavour: Flavour) -> None:
        """Take them out again, and the connections with them."""
        if flavour == "nft":
            self.node.run(["nft", "delete", "table", "ip", "proxy"])
        else:
            self.node.run(["iptables", "-t", "nat", "-F"])
        held = [*self.addresses.values(), *self.services.values()]
        self.node.worker.call(self.net.purge_conntrack, held)

    def try_flow(self, flow: Flow) -> str:
        """Make one connection; return what is wrong with it, "" if nothing is."""
        kind, _, name = flow.to.rpartition(" ")
        target = self.services[name] if kind else self.addresses[name]
        with self.places[flow.source].socket(AF_INET, SOCK_STREAM) as sock:
            sock.settimeout(2.0 * PATIENCE)
            try:
                if flow.bind:
                    sock.bind((str(self.addresses[flow.bind]), 0))
                sock.connect((str(target), flow.port))
                stream = sock.makefile("rb")
                far, seen = stream.readline().decode().split()
                for _ in range(2):
                    sock.sendall(b"?")
                    if len(stream.read(EXCHANGE)) != EXCHANGE:
                        return "the exchange ended early"
                stream.close()
            except (OSError, ValueError) as error:
                return f"{type(error).__name__}: {error}"
        if far != flow.far:
            return f"{far} answered"
        if seen != str(self.addresses[flow.seen]):
            return f"seen as {seen}, not as {flow.seen} {self.addresses[flow.seen]}"
        return ""


@pytest.fixture(scope="module")
def town(vpc: EmbeddedVPC) -> Iterator[Town]:
    """The town, built once."""
    with contextlib.ExitStack() as stack:
        yield Town(vpc, stack)


@pytest.fixture(scope="module", params=FLAVOURS)
def proxied(town: Town, request: pytest.FixtureRequest) -> Iterator[Town]:
    """The town with kube-proxy's rules of one flavour."""
    flavour: Flavour = request.param
    if flavour == "iptables" and shutil.which("iptables-restore") is None:
        pytest.skip("iptables is not installed: these flows ran beside nft only")
    town.proxy(flavour)
    town.vpc.reset_drops()
    yield town
    town.unproxy(flavour)


@pytest.mark.parametrize("flow", list(flows()), ids=str)
def test_flow(proxied: Town, flow: Flow) -> None:
    assert proxied.try_flow(flow) == ""
    assert not any(proxied.vpc.drops().values()), proxied.vpc.drops()


def test_there_are_118_flows_and_ten_from_the_internet() -> None:
    every = list(flows())
    assert len(set(map(str, every))) == len(every) == 118 + 10


def test_a_rewrite_of_the_table_under_load_loses_nothing(town: Town) -> None:
    other = nft.NftWish(
        vpc_cidrs=(*town.wish.vpc_cidrs, IPv4Network("172.31.0.0/16")),
        node_primary=town.wish.node_primary,
        eni_numbers=3,
    )
    texts = (nft.render(other), nft.render(town.wish))
    town.vpc.reset_drops()
    done = threading.Event()
    sent = 0

    def rewrite() -> None:
        for number in range(30):
            town.node.worker.call(town.net.apply_nft, texts[number % 2])
        done.set()

    thread = threading.Thread(target=rewrite)
    with town.places["remote"].socket(AF_INET, SOCK_DGRAM) as sink:
        sink.bind(("", 9999))
        sink.settimeout(1.0 * PATIENCE)
        target = (str(town.addresses["remote"]), 9999)
        thread.start()
        while not done.is_set() or sent < 500:
            pod = PODS[sent % 3]
            with town.places[pod].socket(AF_INET, SOCK_DGRAM) as flow:
                for _ in range(2):
                    flow.sendto(pod.encode(), target)
                    data, peer = sink.recvfrom(100)
                    assert (data.decode(), peer[0]) == (pod, str(town.addresses[pod]))
            sent += 1
        thread.join()
    assert not any(town.vpc.drops().values()), f"{town.vpc.drops()} after {sent} flows"
