"""What workloads do to addresses: they scale, come again by their names, are thrown away. Shell."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ipamd.demand import HEADROOM_MAX
from tests.e2e.accounts import settled
from tests.e2e.costs import costs, told
from tests.e2e.stage import Stage, a_new_pod, deployment, leases, ready, scale, sleeping
from vpclab.checks.check import Check, require
from vpclab.checks.ground import PORT

MANY = 60
"""Pods at once: two m5.xlarge have 116 places, of which the lab's other pods take some ten."""

FEW = 10

AT_ONCE = 8
"""Deletions: the API server answers each when its store has it on disk."""

WAVES, WAVE = 3, 70
"""Pods that are force-deleted: two waves at once are more than both nodes have addresses for, one is
not, beside the lab's own."""

GIVE_BACK_SECONDS = 300.0
"""Two minutes there must have been too much, or some more; then it goes in steps of half a minute."""

ASKED = 60
"""Requests to a Service: that one of its four pods is not met has a chance of one in 30 million."""

SECONDS = 240.0
"""What many pods may take on two cores that have other work, too."""


# A Deployment that scales ------------------------------------------------------------------
def scaled(stage: Stage) -> str:
    """Scale a Deployment from nothing to many pods and back; no address is kept."""
    ground, held, spent = stage.ground, leases(stage), costs(stage)
    deployment(stage, "many", 0)
    began = time.monotonic()
    scale(stage, "many", MANY)
    ground.wait(lambda: len(ready(stage, "many")) == MANY, f"{MANY} pods are ready", SECONDS)
    up = time.monotonic() - began
    stage.tables.extend(told(f"{MANY} pods at once", spent, costs(stage)))
    addresses = {pod["status"]["podIP"] for pod in ready(stage, "many")}
    require(len(addresses) == MANY, f"{MANY} pods have {len(addresses)} addresses")
    began = time.monotonic()
    scale(stage, "many", 0)
    ground.wait(lambda: leases(stage) == held, f"leases are {held} again", SECONDS)
    down = time.monotonic() - began
    return (
        f"{MANY} pods were ready in {up:.0f} s, each with an address of its own, and gone in"
        f" {down:.0f} s; leases are {held}, as before"
    )


def one_by_one(stage: Stage) -> str:
    """Start a few pods on a node, each when the one before is ready: nobody waits for an ENI."""
    spent, worker = costs(stage), stage.cluster.workers[0]
    began = time.monotonic()
    addresses = [a_new_pod(stage, worker, f"single-{number}") for number in range(FEW)]
    each = (time.monotonic() - began) / FEW
    require(len(set(addresses)) == FEW, f"{FEW} pods have {addresses}")
    stage.tables.extend(told(f"{FEW} pods one by one", spent, costs(stage)))
    for number in range(FEW):
        stage.ground.api.delete(_pod(stage, f"single-{number}"))
    return f"{FEW} pods, {each:.1f} s for each until it was seen to be ready"


def _pod(stage: Stage, name: str) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": stage.ground.namespace}}


# Pods with names ---------------------------------------------------------------------------
def named(stage: Stage) -> str:
    """Delete pods of a StatefulSet, then all of it; ask for each by its name when it is back."""
    ground = stage.ground
    ground.create("Service", "named", {
        "clusterIP": "None", "selector": {"app": "named"}, "ports": [{"port": PORT}],
    })  # fmt: skip
    seen = [_stateful(stage, set())]
    ground.api.delete(_pod(stage, "named-0"))
    seen.append(_come_again(stage, seen[0]["named-0"], 1))
    ground.api.delete({
        "kind": "StatefulSet", "metadata": {"name": "named", "namespace": ground.namespace},
    })  # fmt: skip
    ground.wait(lambda: not ground.api.pods(ground.namespace, "app=named"), "the StatefulSet's end")
    former = {address for each in seen for address in each.values()}
    seen.append(_stateful(stage, former))
    said = " -> ".join(each["named-0"] for each in seen)
    return f"named-0 was {said}; each time its name led to the new address, where it answered"


def _stateful(stage: Stage, former: set[str]) -> dict[str, str]:
    """Create the StatefulSet; return its pods' addresses, none of which is a *former* one."""
    probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    stage.ground.create("StatefulSet", "named", {
        "serviceName": "named", "replicas": 2, "selector": {"matchLabels": {"app": "named"}},
        "template": {
            "metadata": {"labels": {"app": "named"}},
            "spec": stage.ground.pod_spec("", readinessProbe=probe),
        },
    })  # fmt: skip
    found = _come_again(stage, "", 2)
    require(not former & set(found.values()), f"{found} had cooled for no time: of {former}")
    return found


def _come_again(stage: Stage, former: str, count: int) -> dict[str, str]:
    """Wait until the pods are ready and none has a *former* address; ask each by its name."""

    def addresses() -> dict[str, str]:
        return {p["metadata"]["name"]: p["status"]["podIP"] for p in ready(stage, "named")}

    stage.ground.wait(
        lambda: len(addresses()) == 2 and former not in addresses().values(),
        "the StatefulSet's two pods",
    )
    found = addresses()
    for name, address in list(found.items())[:count]:
        _answers_by_name(stage, name, address)
    return found


def _answers_by_name(stage: Stage, name: str, address: str) -> None:
    ground = stage.ground
    domain = f"{name}.named.{ground.namespace}.svc.cluster.local"
    client = ground.web_pods()[0].name
    ground.wait(lambda: _leads(stage, client, domain, address), f"{domain} is {address}")
    seen = ground.fetch(client, domain)
    require(seen.server == name, f"{domain} is answered by {seen.server}")


def _leads(stage: Stage, pod: str, domain: str, address: str) -> bool:
    """Whether a name is that address to each of CoreDNS' pods: each has a cache."""
    servers = stage.ground.api.pods("kube-system", "k8s-app=kube-dns")
    questions = [{"do": "dns", "name": domain, "server": s["status"]["podIP"]} for s in servers]
    answers = stage.ground.ask(pod, *questions)
    return all(answer.get("addresses") == [address] for answer in answers)


# Pods that nobody waits for ----------------------------------------------------------------
def thrown_away(stage: Stage) -> str:
    """Force-delete pods by waves; each next one comes while the former's sandboxes are there."""
    held, began, seen = leases(stage), time.monotonic(), set[str]()
    for wave in range(WAVES):
        for number in range(WAVE):
            spec = sleeping(stage, nodeName=stage.cluster.workers[number % 2].name)
            stage.api.create({
                "kind": "Pod", "spec": spec,
                "metadata": {
                    "name": f"thrown-{wave}-{number}", "namespace": stage.ground.namespace,
                    "labels": {"app": "thrown"},
                },
            })  # fmt: skip
        stage.ground.wait(lambda: _are_up(stage, WAVE), f"wave {wave} of {WAVE} pods", SECONDS)
        seen |= {pod["metadata"]["uid"] for pod in ready(stage, "thrown")}
        _throw_away(stage, wave)
    took = time.monotonic() - began
    stage.ground.wait(lambda: leases(stage) == held, f"leases are {held} again", SECONDS)
    return (
        f"{len(seen)} pods in {WAVES} waves, gone by force in {took:.0f} s; no address was two"
        f" pods', leases are {held}, as before; {settled(stage)}"
    )


def _throw_away(stage: Stage, wave: int) -> None:
    """Delete a wave as `kubectl delete --force` does, some at once."""
    folder = f"/api/v1/namespaces/{stage.ground.namespace}/pods"
    paths = [f"{folder}/thrown-{wave}-{number}" for number in range(WAVE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wish = {"gracePeriodSeconds": 0}
        for done in [pool.submit(stage.api.ask, "DELETE", path, wish) for path in paths]:
            done.result()


def _are_up(stage: Stage, count: int) -> bool:
    """Return whether so many are ready. Raises FailedError if two pods have one address."""
    pods = ready(stage, "thrown")
    addresses = Counter(pod["status"]["podIP"] for pod in pods)
    twice = [address for address, n in addresses.items() if n > 1]
    require(not twice, f"two pods have {twice}")
    return len(pods) == count


# What nobody needs any more -----------------------------------------------------------------
def given_back(stage: Stage) -> str:
    """Wait until nodes hold no more than what their pods have, and the largest headroom."""
    began, before = time.monotonic(), _held(stage)
    stage.ground.wait(lambda: not _too_many(stage), "surplus given back", GIVE_BACK_SECONDS)
    took = time.monotonic() - began
    return f"addresses were {before} and are {_held(stage)} after {took:.0f} s; {settled(stage)}"


def _held(stage: Stage) -> dict[str, int]:
    """Return how many addresses EC2 says that each node has for pods."""
    enis = stage.vpc.enis()
    return {
        worker.name: sum(len(e.secondary) for e in enis if e.instance_id == worker.instance.id)
        for worker in stage.cluster.workers
    }


def _too_many(stage: Stage) -> list[str]:
    pods = leases(stage)
    return [name for name, held in _held(stage).items() if held > pods[name] + HEADROOM_MAX]


# A pod without a network of its own --------------------------------------------------------
def on_the_host(stage: Stage) -> str:
    """Run a pod on its node's network; let it ask pods and Services."""
    ground, held = stage.ground, leases(stage)
    worker = stage.cluster.workers[0]
    dns = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    spec = {**ground.pod_spec("", words=("serve", "0")), **dns}
    address = a_new_pod(stage, worker, "on-the-host", **spec)
    host = ground.address_of(worker.name)
    require(address == host == worker.node.primary, f"it has {address}, its node {host}")
    pods = ground.web_pods()
    for pod in pods:
        seen = ground.fetch("on-the-host", pod.address)
        require(seen.server == pod.name, f"{seen.server} answered for {pod.name}")
    cluster_ip = ground.service("web")["spec"]["clusterIP"]
    servers = {seen.server for seen in _asked(stage, cluster_ip)}
    require(servers == {pod.name for pod in pods}, f"{cluster_ip} led to {servers} only")
    require(list(_asked(stage, "web")), "it does not reach http://web")
    require(leases(stage) == held, f"leases are {leases(stage)}, and were {held}")
    return f"{host}, its node's; it reaches {len(pods)} pods, {cluster_ip} and http://web; no lease"


def _asked(stage: Stage, where: object) -> Iterator[Any]:
    yield from stage.ground.fetch_often(ASKED, "on-the-host", where, 80)


WORKLOADS: tuple[Check[Stage], ...] = (
    Check(
        "scaled-up-and-down",
        f"a Deployment is scaled from 0 to {MANY} pods and back, and no address is kept",
        "DELs were lost or the pool did not grow: `enid status`, `enid doctor`",
        scaled,
    ),
    Check(
        "started-one-by-one",
        "pods that come one by one find an address that is ready; the table has what each took",
        "the pool kept nothing warm: `enid status`",
        one_by_one,
    ),
    Check(
        "named-pods-again",
        "a StatefulSet's pods come again by their names, each with an address that its name leads to",
        "a stale route or connection of the former pod, or CoreDNS: `enid why` of the address",
        named,
    ),
    Check(
        "on-the-host-network",
        "a pod on the host's network has its node's address, takes none, and reaches pods and Services",
        "kube-proxy, or the way from the node to its pods: `enid doctor`",
        on_the_host,
    ),
    Check(
        "thrown-away",
        f"{WAVE * WAVES} pods are force-deleted in {WAVES} waves: no address is lost or given twice",
        "a DEL was lost, or came behind its ADD: `enid status`, the log of ipamd",
        thrown_away,
    ),
    Check(
        "surplus-given-back",
        "when pods have gone their addresses go back to EC2, and ENIs that nobody needs with them",
        "something keeps the pool from shrinking: `enid status`, modes and troubles",
        given_back,
    ),
)
"""All, in their order."""
