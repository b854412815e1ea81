"""A cluster of the real parts: control plane, nodes, CoreDNS, the administrator's way in. Shell.

    with raised(vpc, nodes, folder, install) as cluster:
        cluster.api.nodes()

It is a CNI's to make nodes ready: *install* is called when they have registered. Nothing is left
when the block ends: what runs is in the VPC's namespaces, and cgroups are removed.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpclab.cluster import coredns, outside
from vpclab.cluster.api import Api, is_true
from vpclab.cluster.control import DNS, Control
from vpclab.cluster.forward import forwarding
from vpclab.cluster.parts import programs
from vpclab.cluster.program import ClusterError, wait_for
from vpclab.cluster.worker import PAUSE, Instance, Worker
from vpclab.containerd import TOOLS, Release
from vpclab.images import make_image, write_image
from vpclab.node import Node

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC

JOIN_SECONDS = 60.0
READY_SECONDS = 90.0

NOT_READY = "node.kubernetes.io/not-ready"
"""The taint that the controller manager takes off a node that has become ready."""

Tell = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a cluster is made of: *nodes* of the VPC, one *control* host beside them."""

    control: Node
    nodes: Sequence[Node]
    release: Release
    folder: Path
    """For images and the administrator's kubeconfig."""

    cgroup: str = "enid-cluster"
    """What the names of the nodes' cgroups begin with."""

    images: Sequence[Path] = ()
    """Further images that nodes have from the start."""


class Cluster:
    """A cluster that runs."""

    def __init__(self, wish: Wish, control: Control, workers: Sequence[Worker]) -> None:
        self.folder, self.control, self.workers = wish.folder, control, tuple(workers)
        self.kubeconfig = wish.folder / "kubeconfig"
        self.api: Api

    def worker(self, name: str) -> Worker:
        """Return a node by its name. Raises KeyError."""
        return {worker.name: worker for worker in self.workers}[name]

    def await_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until all nodes are ready. Raises ClusterError, with what a node lacks."""
        programs = [program for worker in self.workers for program in worker.programs]
        try:
            wait_for(self._are_ready, "the nodes' readiness", seconds, *programs)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self._conditions()}") from None

    def _are_ready(self) -> bool:
        nodes = self.api.nodes()
        return len(nodes) == len(self.workers) and all(takes_pods(node) for node in nodes)

    def _conditions(self) -> str:
        return "\n".join(
            f"{node['metadata']['name']}: {condition['type']} {condition['status']}:"
            f" {condition.get('message')}"
            for node in self.api.nodes()
            for condition in node["status"].get("conditions", ())
        )

    def add_coredns(self) -> None:
        """Create CoreDNS."""
        for thing in coredns.objects(str(DNS), outside.RESOLVERS):
            self.api.create(thing)


def takes_pods(node: Any) -> bool:
    """Return whether a node is ready, and has lost the taint of one that is not, a moment later."""
    taints = {taint["key"] for taint in node["spec"].get("taints", ())}
    return is_true(node, "Ready") and NOT_READY not in taints


def images(folder: Path) -> list[Path]:
    """Make what a cluster's nodes have: the tools, which serve as pause, too, and CoreDNS."""
    made = [folder / "tools.tar"]
    make_image(made[0], TOOLS / "busybox", PAUSE)
    if (program := programs() / "coredns").exists():
        made.append(folder / "coredns.tar")
        files = {"bin/coredns": program.read_bytes(), "etc/passwd": b"root:x:0:0:root:/:\n"}
        write_image(made[1], coredns.IMAGE, ["/bin/coredns"], files)
    return made


def instance_of(vpc: EmbeddedVPC, node: Node) -> Instance:
    """Return what EC2 says of a node."""
    facts = vpc.facts(node)
    type_, zone = str(facts["instance_type"]), str(facts["zone"])
    told = vpc.ec2.describe_instance_types(InstanceTypes=[type_])["InstanceTypes"][0]
    network = told["NetworkInfo"]
    # As EKS' images set it: one address of each ENI is its own, and two pods have the host's.
    room = network["MaximumNetworkInterfaces"] * (network["Ipv4AddressesPerInterface"] - 1) + 2
    return Instance(node.instance_id, type_, zone, min(room, 110))


@contextlib.contextmanager
def raised(
    vpc: EmbeddedVPC, wish: Wish, install: Callable[[Cluster], None], tell: Tell = _silent
) -> Iterator[Cluster]:
    """Make a cluster whose nodes are ready; nothing is left of it afterwards.

    Raises ClusterError.
    """
    wish.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as exits:
        tell("making certificates and images")
        control = Control(wish.control, programs())
        workers = []
        for node in wish.nodes:
            worker = Worker(node, instance_of(vpc, node), control, wish.release, wish.cgroup)
            exits.callback(worker.close)
            workers.append(worker)
        cluster = Cluster(wish, control, workers)
        tell("starting etcd, the API server and the nodes' containerds")
        _boot(control, workers, [*images(wish.folder), *wish.images])
        exits.enter_context(_reaching(cluster))
        exits.enter_context(outside.answering(vpc))
        tell("starting kubelets")
        for worker in workers:
            worker.join()
        wait_for(
            lambda: len(cluster.api.nodes()) == len(workers), "the nodes", JOIN_SECONDS,
            *(worker.kubelet for worker in workers),
        )  # fmt: skip
        tell("installing the CNI")
        install(cluster)
        tell("waiting for nodes to be ready")
        cluster.await_ready()
        if (programs() / "coredns").exists():
            cluster.add_coredns()
        yield cluster


def _boot(control: Control, workers: Sequence[Worker], images: Sequence[Path]) -> None:
    """Start all that does not wait for each other."""

    def boot(worker: Worker) -> None:
        worker.boot()
        for image in images:
            worker.containerd.load_image(image)

    with ThreadPoolExecutor() as pool:
        begun = [pool.submit(control.start), *(pool.submit(boot, worker) for worker in workers)]
        for one in begun:
            one.result()


@contextlib.contextmanager
def _reaching(cluster: Cluster) -> Iterator[None]:
    """Give the cluster its administrator's kubeconfig and API, for processes of this box."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with forwarding(listener, cluster.control.connect):
            cluster.kubeconfig.write_text(cluster.control.kubeconfig(url))
            cluster.kubeconfig.chmod(0o600)
            cluster.api = Api(cluster.kubeconfig)
            try:
                yield
            finally:
                cluster.api.close()
