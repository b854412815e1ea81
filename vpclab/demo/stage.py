"""The stage: a VPC, two nodes with their daemons, pods, and what was measured. Shell.

The daemon and the plugin run as on a real node: one process with CAP_NET_ADMIN and a
read-only root, credentials and region from IMDS, the shipped policy of the node's role, and of
EC2 only the endpoint is given.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from ipamd.cli import CommandError, ask_status
from ipamd.status import Status
from vpclab.demo.ledger import EniView, NodeView, PodView
from vpclab.demo.traffic import Peer, Seen
from vpclab.enid import RIGHTS, node_policy, prepare
from vpclab.node import Node, PodNetns, Rights
from vpclab.runtime import Answer, Runtime, Sandbox
from vpclab.vpc import EmbeddedVPC, VpcEni

INSTANCE_TYPE = "m5.large"
PER_ENI = 9
"""Addresses for pods on one ENI of an m5.large: ten, less the ENI's own."""

ZONES = (("10.0.1.0/24", "us-east-1a"), ("10.0.2.0/24", "us-east-1b"))
SHOP = (
    "cart", "catalog", "checkout", "payments", "shipping", "orders",
    "reviews", "search", "users", "email", "ads", "media",
)  # fmt: skip
PLATFORM = (
    "web", "gateway", "auth", "sessions", "queue", "worker",
    "scheduler", "cache", "postgres", "metrics", "logs", "traces",
)  # fmt: skip
ADD_SECONDS = 20.0
"""How long the demo waits for an ADD; a runtime is far more patient."""

DAEMON_SECONDS = 15.0
"""How long a daemon may take until it serves, on a busy machine."""


class StageError(Exception):
    """Something that the demo needs did not come; the text says what."""


@dataclass(slots=True)
class Pod:
    """A pod with its sandbox; *eni_id* is where its address is."""

    site: Site
    sandbox: Sandbox
    netns: PodNetns
    address: IPv4Address
    eni_id: str = ""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.sandbox.pod.name

    @property
    def peer(self) -> Peer:
        """It as one end of traffic."""
        return Peer(self.name, self.address, self.netns)


class Daemon:
    """The ipamd of one node."""

    def __init__(self, node: Node, log: Path) -> None:
        self.node, self.log = node, log
        self.environment: dict[str, str] = {}
        self.rights: Rights | None = RIGHTS
        self._process: subprocess.Popen[Any] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None  # noqa: S101 - started before it is looked at
        return self._process.pid

    def start(self) -> None:
        """Start it; it serves some time later."""
        with self.log.open("ab") as log:
            self._process = self.node.popen(
                [sys.executable, "-c", "from ipamd.main import main; main()"],
                rights=self.rights, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, seconds: float = 8.0) -> int | None:
        """SIGTERM; return the exit status, None if it had to be killed."""
        assert self._process is not None  # noqa: S101 - started before it is stopped
        self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def status(self) -> Status:
        """Return its status. Raises CommandError if it does not answer."""
        return ask_status(str(self.node.path("/run/enid/ipamd.sock")))

    def wait(self, until: Callable[[Status], bool], seconds: float, what: str) -> Status:
        """Return the first status that *until* accepts. Raises StageError after *seconds*."""
        deadline, last = time.monotonic() + seconds, "it does not answer"
        while time.monotonic() < deadline:
            try:
                status = self.status()
            except CommandError as error:
                last = str(error)
            else:
                if until(status):
                    return status
                last = status["trouble"] or "it has no trouble"
            if self._process is not None and self._process.poll() is not None:
                last = f"it has exited with {self._process.returncode}"
                break
            time.sleep(0.03)
        raise StageError(f"{what} did not come on {self.node.name} within {seconds:g} s: {last}")

    def last_words(self, lines: int = 6) -> list[str]:
        """Return the end of its log."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(errors="replace").splitlines()[-lines:]
        return []


@dataclass(slots=True, eq=False)
class Site:
    """A node with what runs on it."""

    node: Node
    daemon: Daemon
    runtime: Runtime
    subnet: str
    zone: str
    pods: list[Pod] = field(default_factory=list)

    @property
    def peer(self) -> Peer:
        """The node as one end of traffic."""
        return Peer(self.node.name, self.node.primary, self.node)

    def links(self) -> dict[str, str]:
        """Return the node's links, by MAC."""
        listed = json.loads(self.node.run(["ip", "-j", "link"]).stdout)
        return {link["address"]: link["ifname"] for link in listed if "address" in link}

    def nft(self, text: str) -> None:
        """Run one nft transaction on the node."""
        self.node.run(["nft", "-f", "-"], input=text)


class Stage:
    """Everything that proofs look at."""

    def __init__(self, vpc: EmbeddedVPC, sites: tuple[Site, ...]) -> None:
        self.vpc, self.sites = vpc, sites
        self.milliseconds: dict[str, list[float]] = {"ADD": [], "DEL": []}
        self.connectivity: dict[str, dict[str, dict[str, str]]] = {"tcp": {}, "ping": {}}
        self.freed: Peer | None = None
        self.restarts_daemon = True
        self.drops: Counter[str] = Counter()

    # Pods ------------------------------------------------------------------------------
    @property
    def pods(self) -> list[Pod]:
        """Every pod, node by node."""
        return [pod for site in self.sites for pod in site.pods]

    @property
    def internet(self) -> Peer:
        """The host on the internet."""
        return Peer("internet", self.vpc.internet.address, self.vpc.internet)

    def add_pod(self, site: Site, namespace: str, name: str) -> Pod:
        """Run a pod's sandbox. Raises PluginError if the plugin refuses."""
        netns, sandbox = self.sandbox(site, namespace, name)
        answer = site.runtime.add(sandbox, ADD_SECONDS)
        return self.take_pod(site, netns, sandbox, answer)

    def sandbox(self, site: Site, namespace: str, name: str) -> tuple[PodNetns, Sandbox]:
        """Make what a runtime makes before the ADD."""
        netns = site.node.add_pod_netns(f"cni-{namespace}-{name}")
        return netns, Sandbox.of(netns, namespace, name)

    def take_pod(self, site: Site, netns: PodNetns, sandbox: Sandbox, answer: Answer) -> Pod:
        """Take a pod whose ADD was answered. Raises PluginError if it was refused."""
        self.milliseconds["ADD"].append(answer.milliseconds)
        pod = Pod(site, sandbox, netns, answer.address)
        site.pods.append(pod)
        return pod

    def delete_pod(self, pod: Pod) -> Answer:
        """Stop a pod's sandbox: DEL, then its namespace goes."""
        answer = pod.site.runtime.delete(pod.sandbox, timeout=ADD_SECONDS)
        self.milliseconds["DEL"].append(answer.milliseconds)
        pod.site.pods.remove(pod)
        pod.netns.close()
        return answer

    def find_enis(self) -> None:
        """Note on which ENI each pod's address truly is."""
        owner = {a: eni.id for eni in self.vpc.enis() for a in eni.addresses}
        for pod in self.pods:
            pod.eni_id = owner.get(pod.address, "")

    def enis_of(self, site: Site) -> list[VpcEni]:
        """Return what EC2 has attached to a node, by device index."""
        mine = [eni for eni in self.vpc.enis() if eni.instance_id == site.node.instance_id]
        return sorted(mine, key=lambda eni: eni.device_index or 0)

    def riding(self, site: Site, *, primary: bool) -> list[Pod]:
        """Return the node's pods on its primary ENI, or those on the others."""
        first = self.enis_of(site)[0].id
        return [pod for pod in site.pods if (pod.eni_id == first) == primary]

    # Measures --------------------------------------------------------------------------
    def count_drops(self) -> Counter[str]:
        """Add up what the fabric has dropped so far, and return the sum."""
        self.drops.update(self.vpc.drops())
        self.vpc.reset_drops()
        return self.drops

    def note(self, kind: str, seen: dict[tuple[Peer, Peer], Seen]) -> None:
        """Keep what was seen between pods, for the picture."""
        for (source, target), one in seen.items():
            row = self.connectivity[kind].setdefault(source.name, {})
            row[target.name] = word_for(source, one)

    # Views -----------------------------------------------------------------------------
    def node_views(self) -> tuple[NodeView, ...]:
        """Return the nodes as their daemons tell."""
        return tuple(self._node_view(site) for site in self.sites)

    def _node_view(self, site: Site) -> NodeView:
        try:
            enis = site.daemon.status()["enis"]
        except CommandError:
            enis = []
        return NodeView(
            name=site.node.name,
            instance_id=site.node.instance_id,
            instance_type=INSTANCE_TYPE,
            zone=site.zone,
            subnet=site.subnet,
            primary=str(site.node.primary),
            public=str(self.vpc.public_address(site.node)),
            enis=tuple(
                EniView(
                    id=eni["id"], number=eni["number"], assigned=eni["assigned"],
                    cooling=eni["cooling"], free=eni["free"],
                )
                for eni in enis
            ),
        )  # fmt: skip

    def pod_views(self) -> tuple[PodView, ...]:
        """Return the pods."""
        self.find_enis()
        return tuple(
            PodView(
                namespace=pod.sandbox.pod.namespace, name=pod.name, node=pod.site.node.name,
                address=str(pod.address), eni_id=pod.eni_id,
            )
            for pod in self.pods
        )  # fmt: skip


def word_for(source: Peer, seen: Seen) -> str:
    """Return what was seen of *source* in a word or a few: "ok" if it is as it should be."""
    if not seen.reached:
        return seen.trouble or "no answer"
    return "ok" if seen.source == source.address else f"seen as {seen.source}"


@contextlib.contextmanager
def raised() -> Iterator[Stage]:
    """Build the VPC and its nodes; everything is gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="demo-", dir="/run") as logs,
        EmbeddedVPC(cidr="10.0.0.0/16") as vpc,
    ):
        vpc.restrict(node_policy())
        sites = tuple(
            _site(vpc, name, cidr, zone, Path(logs))
            for name, (cidr, zone) in zip(("node-a", "node-b"), ZONES, strict=True)
        )
        # So that the pool of one node can be emptied: nothing is warmed ahead of need.
        sites[0].daemon.environment["WARM_ENI_TARGET"] = "0"
        yield Stage(vpc, sites)


def _site(vpc: EmbeddedVPC, name: str, cidr: str, zone: str, logs: Path) -> Site:
    subnet = vpc.add_subnet(cidr, az=zone)
    node = vpc.launch_node(name, INSTANCE_TYPE, subnet, public=True)
    prepare(node)
    runtime = Runtime(node)
    runtime.install()
    return Site(node, Daemon(node, logs / f"{name}.log"), runtime, cidr, zone)
