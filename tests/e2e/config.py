"""What an operator turns on and off under pods that run: ENIConfigs, prefixes. Shell.

Each half is a story in the order of its checks: it comes, new pods have it, it goes, and the pods of
before lose nothing meanwhile. What EC2 says of an ENI is asked of EC2, not of the daemon.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from tests.e2e.stage import (
    Stage,
    a_new_pod,
    deployment,
    ready,
    scale,
    traffic,
    unchanged,
)
from vpclab.checks.check import Check, FailedError, require
from vpclab.checks.daemons import rolled_out
from vpclab.checks.ground import Ground, WebPod
from vpclab.checks.names import names
from vpclab.checks.reach import across_nodes
from vpclab.checks.services import cluster_ip
from vpclab.cluster import chart
from vpclab.cluster.api import ApiError, is_true
from vpclab.cluster.control import FOLDER
from vpclab.cluster.worker import PAUSE, Worker
from vpclab.fabric import INTERNET

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC

PODS = IPv4Network("100.64.0.0/16")
"""Of the range that AWS recommends for pods: no host of a company's network has it."""

ZONE = "topology.kubernetes.io/zone"
CUSTOM_SETTINGS = {
    "env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true",
    "env.ENI_CONFIG_LABEL_DEF": ZONE,
}
"""As AWS' guide has it: one ENIConfig for each zone, of its name."""

MORE = 4
"""Pods at once on one node, beyond what it has single addresses for."""

MOST_PODS = 110
"""What AWS recommends as max-pods where a node of up to 30 vCPUs gives prefixes."""

SECONDS = 240.0
"""What many pods may take on two cores that have other work, too."""

LEARNED_SECONDS = 20.0
"""How long kube-proxy may take until it knows of pods that have become ready."""

ROOM_SECONDS = 400.0
"""What a node may take until it has given back what a burst of pods left it with."""

NAME = "dense"


def eni_of(stage: Stage, address: IPv4Address) -> Any:
    """Return what EC2 says of the ENI that has *address*, singly or of a prefix of it."""
    for eni in stage.vpc.ec2.describe_network_interfaces()["NetworkInterfaces"]:
        if address in addresses(eni) or any(address in prefix for prefix in prefixes(eni)):
            return eni
    raise LookupError(f"no ENI has {address}")


def enis_of(stage: Stage, worker: Worker) -> list[Any]:
    """Return what EC2 says of a node's ENIs."""
    mine = [{"Name": "attachment.instance-id", "Values": [worker.node.instance_id]}]
    found: list[Any] = stage.vpc.ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]
    return found


def has_room(stage: Stage, worker: Worker) -> bool:
    """Return whether a node may have another ENI."""
    types = stage.vpc.ec2.describe_instance_types(InstanceTypes=[worker.instance.type])
    most: int = types["InstanceTypes"][0]["NetworkInfo"]["MaximumNetworkInterfaces"]
    return len(enis_of(stage, worker)) < most


def addresses(eni: Any) -> list[IPv4Address]:
    """Return the single addresses of an ENI, its own included."""
    return [IPv4Address(one["PrivateIpAddress"]) for one in eni["PrivateIpAddresses"]]


def prefixes(eni: Any) -> list[IPv4Network]:
    """Return the /28s of an ENI."""
    return [IPv4Network(one["Ipv4Prefix"]) for one in eni.get("Ipv4Prefixes", ())]


# Custom networking -----------------------------------------------------------------------
@dataclass(slots=True)
class Custom:
    """The story of ENIConfigs: what was made for it."""

    stage: Stage
    subnets: dict[str, str] = field(default_factory=dict)
    """By zone."""
    cidrs: dict[str, IPv4Network] = field(default_factory=dict)
    group: str = ""
    before: list[WebPod] = field(default_factory=list)
    ground: Ground | None = None
    """Of pods that came later than the ENIConfigs."""

    @property
    def new(self) -> Ground:
        """The later pods' ground."""
        require(self.ground, "there are no pods in the ENIConfigs' subnets")
        assert self.ground is not None
        return self.ground

    def close(self) -> None:
        """Leave the cluster as it was, whatever came of the checks."""
        if self.ground is not None:
            self.ground.remove()
            self.ground = None

    def prepare(self) -> None:
        """Make a subnet and an ENIConfig for each zone, and the pods' security group."""
        vpc = self.stage.vpc
        vpc.add_cidr(str(PODS))
        self.group = vpc.ec2.create_security_group(
            GroupName="pods", Description="pods", VpcId=vpc.vpc_id
        )["GroupId"]
        ranges = [{"CidrIp": cidr} for cidr in vpc.cidrs]
        vpc.ec2.authorize_security_group_ingress(
            GroupId=self.group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": ranges}]
        )
        zones = [worker.instance.zone for worker in self.stage.cluster.workers]
        for zone, cidr in zip(zones, PODS.subnets(new_prefix=24), strict=False):
            self.subnets[zone], self.cidrs[zone] = vpc.add_subnet(str(cidr), zone), cidr
            self.stage.api.create(eni_config(zone, self.subnets[zone], self.group))


def eni_config(name: str, subnet: str, *groups: str) -> dict[str, Any]:
    """Return an ENIConfig."""
    return {
        "apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig",
        "metadata": {"name": name}, "spec": {"subnet": subnet, "securityGroups": list(groups)},
    }  # fmt: skip


def custom_comes(custom: Custom) -> str:
    """Turn custom networking on, under the traffic of pods that are there.

    A node all of whose ENIs are taken has its first one for ENIConfigs when another is empty.
    """
    stage = custom.stage
    stage.ground.wait(
        lambda: all(has_room(stage, worker) for worker in stage.cluster.workers),
        "room for an ENI on each node", ROOM_SECONDS,
    )  # fmt: skip
    custom.prepare()
    custom.before = stage.ground.web_pods()
    with traffic(stage) as asked:
        chart.install(stage.cluster, **CUSTOM_SETTINGS)
    rolled_out(stage.ground)
    told = ", ".join(f"{zone}: {cidr}" for zone, cidr in custom.cidrs.items())
    return (
        f"{told}; {sum(asked)} requests meanwhile, all answered; {unchanged(stage, custom.before)}"
    )


def custom_pods(custom: Custom) -> str:
    """Start pods on each node; EC2 says of which ENI each has its address."""
    stage = custom.stage
    custom.ground = Ground(stage.api, PAUSE, [PODS], agent=stage.ground.agent)
    custom.ground.furnish()
    said = []
    for pod in custom.new.web_pods():
        zone = stage.cluster.worker(pod.node).instance.zone
        eni = eni_of(stage, pod.address)
        groups = [group["GroupId"] for group in eni["Groups"]]
        number = eni["Attachment"]["DeviceIndex"]
        where = (
            f"{pod.address} on {pod.node} is of {eni['NetworkInterfaceId']} in {eni['SubnetId']}"
        )
        require(pod.address in custom.cidrs[zone], f"{where}, not of {custom.cidrs[zone]}")
        require(eni["SubnetId"] == custom.subnets[zone], where)
        require(groups == [custom.group], f"{where}, with {groups} and not {custom.group}")
        require(number != 0, f"{where}, which is the node's primary ENI")
        said.append(f"{pod.address} on {pod.node}")
    states = {primary_state(stage, worker) for worker in stage.cluster.workers}
    require(states == {"excluded"}, f"the primary ENIs are {states}")
    return f"{', '.join(said)}: of ENIs in its zone's subnet, with {custom.group}"


def custom_network(custom: Custom) -> str:
    """Reach what a pod must reach: pods, old and new, a Service, a name, the internet."""
    stage, new = custom.stage, custom.new
    across = across_nodes(new)
    new.wait(lambda: serves_all(new), "the Service leads to each of its new pods", LEARNED_SECONDS)
    names(new)
    young = new.web_pods()
    for old in stage.ground.web_pods():
        seen = new.fetch(young[0].name, old.address)
        require(seen.source == young[0].address, f"{old.name} saw {seen.source}")
        answer = stage.ground.fetch(old.name, young[-1].address)
        require(answer.source == old.address, f"{young[-1].name} saw {answer.source}")
    out = [seen_outside(stage, new, pod) for pod in (young[0], young[-1])]
    return f"{across}; pods of before and after reach each other; Service and DNS; {'; '.join(out)}"


def serves_all(ground: Ground) -> bool:
    """Return whether a Service leads to each of its pods, which kube-proxy has to hear of first."""
    try:
        cluster_ip(ground)
    except FailedError:
        return False
    return True


def seen_outside(stage: Stage, ground: Ground, pod: WebPod) -> str:
    """Let a pod call a host of the internet, which must see the node's public address."""
    public = stage.vpc.public_address(stage.cluster.worker(pod.node).node)
    with outside(stage.vpc) as (port, callers):
        ground.ask(pod.name, {"do": "connect", "to": str(INTERNET), "port": port})
    require(callers == [public], f"the internet saw {callers}, not {pod.node}'s {public}")
    return f"the internet sees {pod.address} as {public}"


@contextlib.contextmanager
def outside(vpc: EmbeddedVPC) -> Iterator[tuple[int, list[IPv4Address]]]:
    """Have a host of the internet accept one call; afterwards there is who it was."""
    callers: list[IPv4Address] = []
    with vpc.internet.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((str(INTERNET), 0))
        listener.listen()
        listener.settimeout(20)

        def accept() -> None:
            with contextlib.suppress(OSError):
                caller, (address, _) = listener.accept()
                caller.close()
                callers.append(IPv4Address(address))

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1], callers
        finally:
            accepting.join()


def custom_goes(custom: Custom) -> str:
    """Turn it off again under the traffic of both; the primary ENIs give pods addresses again.

    What is free on ENIs of the ENIConfigs is given, too: they go when they are empty.
    """
    stage, new = custom.stage, custom.new
    later = new.web_pods()
    with traffic(stage) as asked, traffic(replace(stage, ground=new)) as asked_new:
        chart.install(stage.cluster)
    rolled_out(stage.ground)
    require(new.web_pods() == later, f"later pods are {new.web_pods()} now")
    workers = stage.cluster.workers
    stage.ground.wait(
        lambda: all(primary_state(stage, worker) == "open" for worker in workers),
        "the primary ENIs, open",
    )
    found = [a_new_pod(stage, worker, f"after-{worker.name}") for worker in workers]
    told = f"{sum(asked)} and {sum(asked_new)} requests meanwhile, all answered"
    new_ones = ", ".join(map(str, found))
    return (
        f"the primary ENIs give again, new pods have {new_ones}; {told};"
        f" {unchanged(stage, custom.before)}, so are the later"
    )


def primary_state(stage: Stage, worker: Worker) -> str:
    """Return what a node's NodeNetwork says of its primary ENI."""
    found = stage.api.ask("GET", f"/apis/enid.dev/v1alpha1/nodenetworks/{worker.name}")
    return str(found["status"]["enis"][0]["state"])


CUSTOM: tuple[Check[Custom], ...] = (
    Check(
        "custom-networking-comes",
        "the chart turns ENIConfigs on, and pods that run lose no request and keep their addresses",
        "the DaemonSet's rollout, or an old ENI was taken away: ipamd's log",
        custom_comes,
    ),
    Check(
        "custom-networking-pods",
        "new pods have addresses of their zone's ENIConfig, from ENIs with its subnet and groups,"
        " and none of the primary ENI",
        "`enid status`, Events of the Node: which ENIConfig was read, and why not another",
        custom_pods,
    ),
    Check(
        "custom-networking-network",
        "those pods reach each other, pods of before, a Service, a name and the internet, which"
        " sees their node",
        "the security group of the ENIConfig, or the VPC's new CIDR is not known: `enid doctor`",
        custom_network,
    ),
    Check(
        "custom-networking-goes",
        "turned off, the primary ENIs give pods addresses again, and neither kind of pod loses a"
        " request",
        "ENIs of the ENIConfigs were taken away under their pods: ipamd's log",
        custom_goes,
    ),
)
"""The story of ENIConfigs, in its order."""


# Prefixes --------------------------------------------------------------------------------
@dataclass(slots=True)
class Dense:
    """The story of prefixes, on one node."""

    stage: Stage
    before: list[WebPod] = field(default_factory=list)
    is_there: bool = False

    def close(self) -> None:
        """Leave the cluster as it was, whatever came of the checks."""
        if self.is_there:
            scale(self.stage, NAME, 0)
        self.stage.ground.wait(lambda: not self.pods(), "the end of many pods")

    @property
    def singles(self) -> int:
        """How many single addresses for pods the node may have, by its instance type."""
        return self.worker.instance.most_pods - 2

    @property
    def many(self) -> int:
        """How many pods it gets."""
        return self.singles + MORE

    @property
    def worker(self) -> Worker:
        """The node that takes many pods."""
        return self.stage.cluster.workers[0]

    def pods(self) -> dict[str, IPv4Address]:
        """Return the many pods that are ready, with their addresses."""
        return {
            pod["metadata"]["name"]: IPv4Address(pod["status"]["podIP"])
            for pod in ready(self.stage, NAME)
        }


def take_pods(stage: Stage, worker: Worker, most: int) -> None:
    """Give a node's kubelet another max-pods, which it reads when it starts.

    What it runs in pods for others, as traffic, ends with it.
    """
    before = stage.ground.web_pods()
    witness = next(pod for pod in before if pod.node == worker.name)
    path = worker.node.path(f"{FOLDER}/kubelet.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "maxPods": most}, indent=1))
    worker.kubelet.restart()

    def told() -> bool:
        node = stage.api.ask("GET", f"/api/v1/nodes/{worker.name}")
        return bool(node["status"]["capacity"]["pods"] == str(most) and is_true(node, "Ready"))

    def knows_its_pods() -> bool:
        try:
            return bool(stage.ground.ask(witness.name, {"do": "port"}))
        except (ApiError, FailedError):
            return False

    stage.ground.wait(told, f"{worker.name} takes {most} pods")
    stage.ground.wait(knows_its_pods, f"the new kubelet of {worker.name} knows its pods")
    stage.ground.wait(lambda: stage.ground.web_pods() == before, "the same pods, ready")


def hasten(stage: Stage) -> None:
    """Have kubelets bring a ConfigMap to the daemon's pods now: they do when a pod changes."""
    change = {"metadata": {"annotations": {"e2e": str(time.monotonic_ns())}}}
    for pod in stage.api.pods(chart.SPACE, chart.LABEL):
        path = f"/api/v1/namespaces/{chart.SPACE}/pods/{pod['metadata']['name']}"
        stage.api.ask("PATCH", path, change, "merge-patch+json")


def kind_of(stage: Stage, worker: Worker) -> str:
    """Return what a node asks of EC2, as its NodeNetwork says."""
    found = stage.api.ask("GET", f"/apis/enid.dev/v1alpha1/nodenetworks/{worker.name}")
    return str(found.get("status", {}).get("kind", ""))


def await_kind(stage: Stage, kind: str) -> None:
    """Wait until all nodes ask EC2 for this kind, without a restart of the daemon."""
    hasten(stage)
    workers = stage.cluster.workers
    stage.ground.wait(
        lambda: all(kind_of(stage, worker) == kind for worker in workers), f"{kind}s", SECONDS
    )


def prefixes_come(dense: Dense) -> str:
    """Turn prefix delegation on, and give a node more pods than it has single addresses for."""
    stage, worker = dense.stage, dense.worker
    dense.before = stage.ground.web_pods()
    take_pods(stage, worker, MOST_PODS)
    with traffic(stage) as asked:
        chart.install(stage.cluster, **{"settings.ENABLE_PREFIX_DELEGATION": "true"})
        await_kind(stage, "prefix")
    began = time.monotonic()
    deployment(stage, NAME, dense.many, nodeSelector={"kubernetes.io/hostname": worker.name})
    dense.is_there = True
    stage.ground.wait(
        lambda: len(dense.pods()) == dense.many, f"{dense.many} pods are ready", SECONDS
    )
    took = time.monotonic() - began
    held = held_prefixes(stage, worker)
    inside = sum(any(a in prefix for prefix in held) for a in dense.pods().values())
    require(inside > dense.many // 2, f"{inside} of {dense.many} pods have an address of {held}")
    return (
        f"{dense.many} pods on {worker.name} in {took:.0f} s, single addresses are {dense.singles};"
        f" {inside} of"
        f" {', '.join(map(str, held))}; {sum(asked)} requests meanwhile, all answered;"
        f" {unchanged(stage, dense.before)}"
    )


def prefixes_go(dense: Dense) -> str:
    """Turn it off again: what pods have of prefixes stays with them.

    A prefix goes back to EC2 when its addresses are free and the pool wants no more than others
    hold, which takes until the arrivals are forgotten: longer than anybody would look at here.
    """
    stage, worker = dense.stage, dense.worker
    with traffic(stage) as asked:
        scale(stage, NAME, dense.many // 4)
        chart.install(stage.cluster)
        await_kind(stage, "single")
        stage.ground.wait(lambda: len(dense.pods()) == dense.many // 4, "a quarter of them")
        kept = dense.pods()
        address = a_new_pod(stage, worker, "after-prefixes")
    take_pods(stage, worker, worker.instance.most_pods)
    require(dense.pods() == kept, f"pods had {kept}, and have {dense.pods()}")
    return (
        f"{len(kept)} pods kept their addresses, a new one has {address}; {sum(asked)} requests"
        f" meanwhile, all answered; {unchanged(stage, dense.before)}"
    )


def held_prefixes(stage: Stage, worker: Worker) -> list[IPv4Network]:
    """Return the /28s that a node has."""
    return [prefix for eni in enis_of(stage, worker) for prefix in prefixes(eni)]


PREFIXES: tuple[Check[Dense], ...] = (
    Check(
        "prefixes-come",
        "prefix delegation comes without a restart, and a node runs more pods than it has single"
        " addresses for",
        "the ConfigMap did not come, or the subnet has no /28: `enid settings`, Events of the Node",
        prefixes_come,
    ),
    Check(
        "prefixes-go",
        "turned off, the node asks EC2 for single addresses, and pods keep theirs of prefixes",
        "a prefix was taken away under its pods: ipamd's log, `enid status`",
        prefixes_go,
    ),
)
"""The story of prefixes, in its order."""
