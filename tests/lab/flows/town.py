"""A node with three ENIs and a pod on each, everybody it talks to, and their flows.

Each flow is one TCP connection with two exchanges and 20 kB, whose far end tells who it is
and whom it sees.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from socket import AF_INET, AF_NETLINK, SHUT_WR, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM
from typing import TYPE_CHECKING, Any, Protocol

from pyroute2 import IPRoute

from cni import nft
from cni.dataplane import VETH_PREFIX, EniLink, host_ifname
from cni.kernel import Wish
from cni.netlink import NodeNetlink
from cni.spec import Sandbox
from cni.wire import KernelWiring
from ipamd import wires
from ipamd.settings import Settings
from tests.lab.flows.kubeproxy import HOSTPORT_MASQUERADE, Flavour, Forward, render
from tests.lab.patience import PATIENCE
from vpclab.enid import prepare
from vpclab.netns import Worker

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node, PodNetns

MTU = 9001
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
CLUSTER_IPS = ("remote", "podP", "podS", "podT", "node", "host", "internet", "client")
BEHIND = IPv4Network("10.77.0.0/24")
"""What is behind a tunnel of the node's own: its main table knows the way, and nobody else."""


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


class Connection:
    """A TCP connection of one flow, as it begins: *far* answered and sees *seen*.

    Raises OSError if it cannot be made, ValueError if nobody speaks.
    """

    def __init__(self, sock: socket.socket, target: IPv4Address, port: int) -> None:
        sock.connect((str(target), port))
        self._sock, self._stream = sock, sock.makefile("rb")
        self.far, self.seen = self._stream.readline().decode().split()

    def exchange(self) -> bool:
        """Ask once; return whether all of the answer came."""
        self._sock.sendall(b"?")
        return len(self._stream.read(EXCHANGE)) == EXCHANGE

    def end(self) -> None:
        """Close it from this end first, and wait until the other has closed it, too.

        Nothing of it is on its way then: a late packet would be nobody's, and the VPC drops it.
        """
        self._sock.shutdown(SHUT_WR)
        self._stream.read()

    def close(self) -> None:
        self._stream.close()
        self._sock.close()


class Servers:
    """One thread that answers everywhere: who it is, whom it sees, then what is asked.

    A datagram is answered with the first two.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def listen(self, name: str, place: Place) -> None:
        for kind in (SOCK_STREAM, SOCK_DGRAM):
            listener = place.socket(AF_INET, kind)
            listener.bind(("", PORT))
            listener.setblocking(False)  # noqa: FBT003 - the library's
            if kind == SOCK_STREAM:
                listener.listen(64)
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
                if sock.type == SOCK_DGRAM:
                    _, peer = sock.recvfrom(100)
                    sock.sendto(f"{key.data} {peer[0]}".encode(), peer)
                    continue
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
        self.flavour: Flavour = "nft"
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
        self.node.worker.call(self._set_up)
        self.live_by(Settings())
        self.wired: dict[str, tuple[Wish, PodNetns]] = {}
        """The pods of the node under test: what their wires are now, and where they are."""
        self.places: dict[str, Place] = {
            "node": self.node, "remote-node": self.remote_node, "host": self.host,
            "internet": vpc.internet, "client": self._client(), "tunnel": self._tunnel(),
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
            "tunnel": BEHIND[2],
            "public": vpc.public_address(self.node),
        }
        for number, pod in enumerate(PODS, 1):
            self.wired[pod] = self._pod(pod, self.node, self.net, number)
        self._remote()
        self.services = dict(zip(CLUSTER_IPS, SERVICES.hosts(), strict=False))
        for place in self.places.values():
            worker = getattr(place, "worker", place)
            if isinstance(worker, Worker):
                # What was answered by the wrong ENI is not answered again, in another test.
                worker.write_sysctls({"net.ipv4.tcp_synack_retries": "0"})
        self.servers = Servers()
        stack.callback(self.servers.close)
        for name, place in self.places.items():
            self.servers.listen(name, place)
        self.servers.start()

    def wish(self, settings: Settings, node: Node | None = None, *more: IPv4Network) -> nft.NftWish:
        """Return what *settings* make of a node's tables; of the node under test.

        *more* are CIDRs that the VPC has, too.
        """
        return wires.nft_wish(
            settings,
            vpc_cidrs=(*map(IPv4Network, self.vpc.cidrs), *more),
            node_primary=(node or self.node).primary,
            eni_numbers=3,
        )

    def _set_up(self) -> None:
        for link in self.links:
            self.net.configure_eni(link)

    def live_by(self, settings: Settings, *more: IPv4Network) -> None:
        """Bring ENIs, tables and rules of the node under test to what *settings* say."""
        routing, text = wires.routing(settings), nft.render(self.wish(settings, None, *more))
        mtu = wires.eni_mtu(settings)

        def apply() -> None:
            for link in self.links:
                primary_mtu = settings.eni_mtu or MTU
                self.net.configure_eni(replace(link, mtu=primary_mtu if link.is_primary else mtu))
            self.net.set_rules(self.links, routing=routing)
            self.net.apply_nft(text)

        self.node.worker.call(apply)

    def wire_anew(self, settings: Settings) -> None:
        """Unmake the wires of the node's pods and make them as *settings* say."""
        for name, (wish, pod) in self.wired.items():
            self._unwire(wish)
            # A name of its own, as a sandbox that comes later would have.
            prefix = settings.veth_prefix
            veth = host_ifname(wish.sandbox, prefix) if prefix != VETH_PREFIX else ""
            new = replace(
                wish, veth=veth, mtu=wires.pod_mtu(settings), ipv6=not settings.disable_pod_v6
            )
            self._wire(new, self.node, pod)
            self.wired[name] = (new, pod)

    def _unwire(self, wish: Wish) -> None:
        def cut() -> None:
            wiring = KernelWiring()
            wiring.disconnect(wish.host_ifname, wish.addresses)
            wiring.reap()
            wiring.close()

        self.node.worker.call(cut)

    @staticmethod
    def _wire(wish: Wish, node: Node, pod: PodNetns) -> None:
        with pod.socket(AF_NETLINK, SOCK_RAW) as netlink:
            wiring = node.worker.call(KernelWiring)
            node.worker.call(wiring.connect, wish, pod.fd, netlink.fileno(), pod.path)
            node.worker.call(wiring.close)

    def _remote(self) -> None:
        """Give the other node the same data plane, and a pod."""
        net = self.remote_node.worker.call(NodeNetlink)
        self._stack.callback(self.remote_node.worker.call, net.close)
        link = self._link(self.remote_node, 0)
        text = nft.render(self.wish(Settings(), self.remote_node))

        def apply() -> None:
            net.configure_eni(link)
            net.set_rules([link])
            net.apply_nft(text)

        self.remote_node.worker.call(apply)
        self._pod("remote", self.remote_node, net, 1)

    def _enis(self, node: Node) -> Mapping[int, Any]:
        mine = (e for e in self.vpc.enis() if e.instance_id == node.instance_id)
        return {e.device_index: e for e in mine if e.device_index is not None}

    def _link(self, node: Node, index: int) -> EniLink:
        eni = self._enis(node)[index]
        described = self.vpc.ec2.describe_subnets(SubnetIds=[eni.subnet_id])["Subnets"][0]
        subnet = IPv4Network(described["CidrBlock"])
        return EniLink(index + 1, eni.mac, eni.primary, subnet, MTU)

    def _attach(self, subnet: str, index: int) -> EniLink:
        made = self.vpc.ec2.create_network_interface(
            SubnetId=subnet, SecondaryPrivateIpAddressCount=3
        )["NetworkInterface"]["NetworkInterfaceId"]
        self.vpc.ec2.attach_network_interface(
            NetworkInterfaceId=made, InstanceId=self.node.instance_id, DeviceIndex=index
        )
        return self._link(self.node, index)

    def _pod(self, name: str, node: Node, net: NodeNetlink, number: int) -> tuple[Wish, PodNetns]:
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
        wish = Wish(sandbox, (address,), number, eni.id, name, MTU, node.primary)
        node.worker.call(net.add_guards, [IPv4Network(a) for a in eni.secondary])
        self._wire(wish, node, pod)
        self.places[name] = pod
        self.addresses[name] = address
        return wish, pod

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

    def _tunnel(self) -> Place:
        """Put a host behind the node, on a link that is neither an ENI nor a pod's."""
        far = Worker("tunnel")
        self._stack.callback(far.close)

        def near_end() -> None:
            with IPRoute() as ip:
                peer = {"ifname": "far", "net_ns_fd": far.fd}
                ip.link("add", ifname="tun0", kind="veth", peer=peer)
                index = ip.link_lookup(ifname="tun0")[0]
                ip.addr("add", index=index, address=str(BEHIND[1]), prefixlen=24)
                ip.link("set", index=index, state="up")

        def far_end() -> None:
            with IPRoute() as ip:
                index = ip.link_lookup(ifname="far")[0]
                ip.link("set", index=index, state="up")
                ip.addr("add", index=index, address=str(BEHIND[2]), prefixlen=24)
                ip.route("add", dst="default", gateway=str(BEHIND[1]))

        self.node.worker.call(near_end)
        far.call(far_end)
        return far

    def proxy(self, flavour: Flavour) -> None:
        """Write kube-proxy's and portmap's rules."""
        self.flavour = flavour
        a = self.addresses
        forwards = [Forward(ip, 80, a[name], PORT) for name, ip in self.services.items()]
        for name, port in NODE_PORTS.items():
            policy, far = name.split()
            forwards.append(Forward(None, port, a[far], PORT, masquerade=policy == "Cluster"))
        forwards += [
            Forward(None, port, a[pod], PORT, mark=HOSTPORT_MASQUERADE)
            for pod, port in HOST_PORTS.items()
        ]
        forwards += [replace(forward, protocol="udp") for forward in forwards]
        text = render(flavour, forwards, [a[pod] for pod in PODS])
        program = ["nft", "-f", "-"] if flavour == "nft" else ["iptables-restore", "--noflush"]
        self.node.run(program, input=text)

    def unproxy(self, flavour: Flavour) -> None:
        """Take them out again, and the connections with them."""
        if flavour == "nft":
            self.node.run(["nft", "delete", "table", "ip", "proxy"])
        else:
            self.node.run(["iptables", "-t", "nat", "-F"])
        self.forget_flows()

    def forget_flows(self) -> None:
        """Empty conntrack of all that the town talks with."""
        held = [*self.addresses.values(), *self.services.values(), BEHIND[1]]
        self.node.worker.call(self.net.purge_conntrack, held)

    def target(self, flow: Flow) -> IPv4Address:
        """Return where *flow* goes: a service's address, or somebody's own."""
        kind, _, name = flow.to.rpartition(" ")
        return self.services[name] if kind else self.addresses[name]

    def open(self, flow: Flow, seconds: float = 2.0) -> Connection:
        """Make one connection. Raises OSError and ValueError."""
        sock = self.places[flow.source].socket(AF_INET, SOCK_STREAM)
        sock.settimeout(seconds * PATIENCE)
        try:
            if flow.bind:
                sock.bind((str(self.addresses[flow.bind]), 0))
            return Connection(sock, self.target(flow), flow.port)
        except (OSError, ValueError):
            sock.close()
            raise

    def try_flow(self, flow: Flow, seconds: float = 2.0) -> str:
        """Make one connection; return what is wrong with it, "" if nothing is."""
        try:
            with contextlib.closing(self.open(flow, seconds)) as connection:
                if not all(connection.exchange() for _ in range(2)):
                    return "the exchange ended early"
                connection.end()
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        if connection.far != flow.far:
            return f"{connection.far} answered"
        if connection.seen != str(self.addresses[flow.seen]):
            seen = self.addresses[flow.seen]
            return f"seen as {connection.seen}, not as {flow.seen} {seen}"
        return ""
