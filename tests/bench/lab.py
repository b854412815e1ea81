"""How fast the lab is: the figures of the docs, as a table, and exit status 1 if one is missed.

    python -m vpclab.box python -m tests.bench.lab [--quick] [-o json]

The VPC is a process of its own (`tests.bench.server`). This process is its users: an EC2 client on
each node, with the node's credentials from IMDS, and the plainest wiring of pods (`wiring`), no
CNI. It shares the machine's cores with the VPC, and the figures are those of both.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import count

from rich.console import Console

from tests.bench.table import Row, show
from tests.bench.users import Metadata, Node, Vpc
from tests.bench.wiring import Nic, Nursery, Pod
from vpclab.box import in_box
from vpclab.demo.traffic import Peer, ping_all

SUBNETS = (("10.0.0.0/20", "us-east-1a"), ("10.0.16.0/20", "us-east-1b"))
INSTANCE_TYPE = "m5.xlarge"
"""Four ENIs of 15 addresses: a secondary one has 14 addresses beside its own."""

ENIS, SECONDARY, PODS_PER_ENI, PODS = 2, 14, 10, 20
REPEATS, CLIENTS, PINGS = 15, 8, 300
NEAR = 6
"""The time at the 20th ENI is that of the ENIs up to so many before and after it."""

START_SECONDS, ENI_SECONDS, UP_SECONDS, DOWN_SECONDS, RESIDENT_MB = 1.0, 0.060, 20.0, 8.0, 260.0
"""What we promise; up and down are of 50 nodes with 20 pods each."""

PROMISED_NODES, QUICK_NODES = 50, 10


class Times:
    """Seconds by what took them, in order."""

    def __init__(self) -> None:
        self.of: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def taken(self, *names: str) -> Iterator[None]:
        """Note how long the block takes, under each name."""
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        for name in names:
            self.of[name].append(seconds)


@dataclass(slots=True)
class Cluster:
    """Nodes, and the pods of each."""

    nodes: list[Node]
    pods: list[list[Pod]]


class Bench:
    """One run."""

    def __init__(self, vpc: Vpc, nodes: int, tell: Callable[[str], None]) -> None:
        self.vpc, self.count, self.tell = vpc, nodes, tell
        self.times = Times()
        self.rows: list[Row] = []
        self._nursery = Nursery()
        self._subnets: list[tuple[str, IPv4Network]] = []

    def add(self, what: str, values: Sequence[float], unit: str = "ms", **limits: float) -> None:
        """Add a figure."""
        self.rows.append(Row(what, tuple(values), unit, **limits))

    def run(self) -> None:
        """Measure everything."""
        self.tell("starting a VPC")
        self.add("imports of the VPC's process", [self.vpc.import_seconds], "s")
        self.add("start after imports", [self.vpc.ask("start")[1]], "s", most=START_SECONDS)
        for cidr, zone in SUBNETS:
            self._subnets.append((self.vpc.ask("subnet", cidr, zone)[0], IPv4Network(cidr)))
        Node.client("http://nowhere.example")  # reads the model of EC2, which is not the lab's time
        self.tell(f"{self.count} nodes with {PODS} pods each")
        cluster = self._build()
        self._note_memory()
        self.tell(f"{PINGS} pings between pods of different nodes")
        self._prove(cluster)
        self.tell("EC2 and IMDS, from nodes")
        self._calls(cluster.nodes)
        self._down(cluster)

    # Up --------------------------------------------------------------------------------
    def _build(self) -> Cluster:
        cluster = Cluster([], [])
        with self.times.taken("up"):
            for number in range(self.count):
                node = self._launch(number)
                cluster.nodes.append(node)
                cluster.pods.append(self._populate(node))
                if number % 10 == 9 and number + 1 < self.count:
                    self.tell(f"  {number + 1} nodes are up")
        taken = self.times.of
        size = f"{self.count} nodes x {PODS} pods"
        share = self.count / PROMISED_NODES
        self.add("node launch", taken["launch"])
        for at in (20, 100):
            near = [
                seconds
                for number, seconds in enumerate(taken["full"], 1)
                if abs(self._at(number) - at) <= NEAR
            ]
            if near:
                self.add(f"create + attach with {SECONDARY} addresses, ENI {at}", near)
        self.add("a pod's namespace and wires (the bench's own)", taken["pod"])
        self.add(f"{size} up", taken["up"], "s", most=UP_SECONDS * share)
        parts = (
            ("launch", "nodes"), ("full", "ENIs"), ("client", "EC2 clients"), ("pod", "pods"),
        )  # fmt: skip
        for name, what in parts:
            self.add(f"  of it {what}", [sum(taken[name])], "s")
        return cluster

    @staticmethod
    def _at(number: int) -> int:
        """Return how many ENIs there are with the *number*-th secondary one, two on a node."""
        return number + (number + 1) // 2

    def _launch(self, number: int) -> Node:
        subnet_id, subnet = self._subnets[number % len(self._subnets)]
        with self.times.taken("launch"):
            launched, _ = self.vpc.ask("launch", f"node-{number}", INSTANCE_TYPE, subnet_id)
        with self.times.taken("client"):
            return Node(launched, subnet_id, subnet)

    def _populate(self, node: Node) -> list[Pod]:
        pods: list[Pod] = []
        for device_index in range(1, ENIS + 1):
            with self.times.taken("full"):
                eni = node.create(SECONDARY)
                _, index = node.attach(eni, device_index)
            own, *others = [IPv4Address(a["PrivateIpAddress"]) for a in eni["PrivateIpAddresses"]]
            nic = Nic(eni["MacAddress"], own, node.subnet, index)
            node.host.raise_nic(nic)
            for address in others[:PODS_PER_ENI]:
                with self.times.taken("pod"):
                    pods.append(self._nursery.add(node.host, nic, address, len(pods)))
        return pods

    def _note_memory(self) -> None:
        self.add(
            "VPC's process, resident at most", [self.vpc.megabytes("VmHWM")], "MB", most=RESIDENT_MB
        )
        self.add("  now", [self.vpc.megabytes("VmRSS")], "MB")

    # Packets ---------------------------------------------------------------------------
    def _prove(self, cluster: Cluster) -> None:
        chance = random.Random(0)
        peers = [
            [Peer(str(pod.address), pod.address, pod) for pod in pods] for pods in cluster.pods
        ]
        pairs = []
        for _ in range(PINGS):
            one, other = chance.sample(peers, 2)
            pairs.append((chance.choice(one), chance.choice(other)))
        seen = ping_all(pairs, seconds=5)
        right = sum(seen[pair].reached and seen[pair].source == pair[0].address for pair in pairs)
        self.add("pings across nodes, answered", [right], "", least=PINGS)
        self.add(
            "TCP across nodes",
            [_gigabits(cluster.pods[0][0], cluster.pods[1][number]) for number in range(3)],
            "Gbit/s",
        )
        wrong, _ = self.vpc.ask("wrong")
        for sentence in wrong:
            self.tell(f"wrong: {sentence}")
        self.add("packets against EC2's word, and drops", [len(wrong)], "", most=0)

    # Calls -----------------------------------------------------------------------------
    def _calls(self, nodes: Sequence[Node]) -> None:
        node, metadata = nodes[0], Metadata(nodes[0])
        for _ in range(REPEATS):
            self._one_eni(node, metadata)
        for _ in range(2 * REPEATS):
            with self.times.taken("describe"):
                node.describe()
        for _ in range(20 * REPEATS):
            with self.times.taken("imds"):
                metadata.get("mac")
        taken = self.times.of
        self.add("ENI from inside a node: create", taken["create"])
        self.add("  attach, with the link in the node", taken["attach"])
        self.add("  create + attach", taken["both"], most=ENI_SECONDS)
        self.add("  modify", taken["modify"])
        self.add("  all of it, and IMDS tells of its addresses", taken["all"])
        self.add("DescribeNetworkInterfaces of a node's own", taken["describe"])
        self.add("IMDS, one GET", taken["imds"])
        self.add(f"EC2 calls of {CLIENTS} nodes at once", [self._throughput(nodes[:CLIENTS])], "/s")

    def _one_eni(self, node: Node, metadata: Metadata) -> None:
        with self.times.taken("all"):
            with self.times.taken("both"):
                with self.times.taken("create"):
                    eni = node.create(0)
                with self.times.taken("attach"):
                    attachment_id, _ = node.attach(eni, ENIS + 1)
            with self.times.taken("modify"):
                node.modify(eni, attachment_id)
            while not metadata.get(f"network/interfaces/macs/{eni['MacAddress']}/local-ipv4s"):
                pass
        node.remove(eni, attachment_id)

    @staticmethod
    def _throughput(nodes: Sequence[Node], seconds: float = 3.0) -> float:
        until = time.monotonic() + seconds

        def describe(node: Node) -> int:
            for number in count():
                if time.monotonic() > until:
                    return number
                node.describe()
            raise AssertionError

        with ThreadPoolExecutor(len(nodes)) as pool:
            return sum(pool.map(describe, nodes)) / seconds

    # Down ------------------------------------------------------------------------------
    def _down(self, cluster: Cluster) -> None:
        self.tell("taking it down")
        with self.times.taken("down"):
            for pod in (pod for pods in cluster.pods for pod in pods):
                os.close(pod.netns)
            for node in cluster.nodes:
                node.host.close()
            self._nursery.close()
            _, seconds = self.vpc.ask("stop")
        limit = DOWN_SECONDS * self.count / PROMISED_NODES
        self.add(f"{self.count} nodes x {PODS} pods down", self.times.of["down"], "s", most=limit)
        self.add("  of it the VPC", [seconds], "s")


def _gigabits(one: Pod, other: Pod, seconds: float = 1.0) -> float:
    """Return what a TCP connection from *one* to *other* brings, in Gbit/s."""
    piece = bytes(1 << 20)
    with ExitStack() as exits:
        ear = exits.enter_context(other.socket(socket.AF_INET, socket.SOCK_STREAM))
        mouth = exits.enter_context(one.socket(socket.AF_INET, socket.SOCK_STREAM))
        ear.bind((str(other.address), 5201))
        ear.listen()
        mouth.connect(ear.getsockname())
        far = exits.enter_context(ear.accept()[0])

        def send() -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                mouth.sendall(piece)
            mouth.shutdown(socket.SHUT_WR)

        began, total, room = time.monotonic(), 0, bytearray(1 << 20)
        thread = threading.Thread(target=send)
        thread.start()
        while got := far.recv_into(room):
            total += got
        thread.join()
        return 8 * total / (time.monotonic() - began) / 1e9


def _prepare() -> None:
    """Set this process up to be fifty nodes' users."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # the nodes' credentials come from IMDS
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each pod's namespace is one
    gc.disable()  # clients of EC2 are a million objects to look through, again and again


def main() -> None:
    parser = argparse.ArgumentParser(prog="make labbench", description="How fast the lab is.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_NODES} nodes, not 50")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    wish = parser.parse_args()
    if not in_box():
        sys.exit("enid: the bench runs in a box: use `make labbench`")
    _prepare()
    errors, began = Console(stderr=True, highlight=False), time.monotonic()

    def tell(what: str) -> None:
        errors.print(f"  {time.monotonic() - began:5.1f} s  {what}", markup=False)

    with Vpc() as vpc:
        bench = Bench(vpc, QUICK_NODES if wish.quick else PROMISED_NODES, tell)
        bench.run()
    load = os.getloadavg()[0]
    if wish.output == "json":
        figures = {"cores": os.cpu_count(), "load": load, "rows": [row.data for row in bench.rows]}
        print(json.dumps(figures, indent=2))
    else:
        show(bench.rows, Console(highlight=False, width=None if sys.stdout.isatty() else 110))
        print(f"on {os.cpu_count()} cores, with a load of {load:.1f}")
    sys.exit(any(row.is_met is False for row in bench.rows))


if __name__ == "__main__":
    main()
