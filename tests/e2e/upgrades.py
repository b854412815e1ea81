"""What a cluster lives through when enid's version changes, and when it cannot. Shell.

The next build has other numbers in the kernel, another word in its plugin's frames, and more in its
files (`tests.e2e.builds`); the past one is a commit of ours. Pods ask each other all the while, and
pods come and go.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.e2e import builds
from tests.e2e.accounts import status_of
from tests.e2e.builds import Build, BuildError
from tests.e2e.stage import Stage, a_new_pod, traffic, unchanged
from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.daemons import rolled_out
from vpclab.cluster import chart
from vpclab.cluster.api import is_true
from vpclab.cluster.program import wait_for
from vpclab.cluster.worker import PAUSE, Worker

PLUGIN = "/opt/cni/bin/enid-cni"
NUMBERS = itertools.count()
BROKEN_SECONDS = 60.0
WITHOUT_SECONDS = 10.0
"""How long pods do without a daemon, once it is seen that there is none."""

RULES = "ip rule | grep 'proto 151' | cut -d: -f1 | sort -nu | tr '\\n' ' '"
NEXT_RULES = {"600", "1100"}
"""What the next build has in place of 512 and 1024."""


@dataclass
class Arrivals:
    """Pods that came and went meanwhile."""

    addresses: list[IPv4Address] = field(default_factory=list)
    slowest: float = 0.0


@contextlib.contextmanager
def arrivals(stage: Stage) -> Iterator[Arrivals]:
    """Have a pod come and go on one node and the other, all the while.

    Raises FailedError if one does not get its address, or has one that another has.
    """
    seen, ended = Arrivals(), threading.Event()

    def come_and_go() -> None:
        for worker in itertools.cycle(stage.cluster.workers):
            began = time.monotonic()
            address = come(stage, worker)
            seen.slowest = max(seen.slowest, time.monotonic() - began)
            seen.addresses.append(address)
            if ended.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(come_and_go)
        try:
            yield seen
        finally:
            ended.set()
        coming.result()


def come(stage: Stage, worker: Worker) -> IPv4Address:
    """Run a pod on a node, make sure that its address is nobody else's, and delete it."""
    name = f"passing-{next(NUMBERS)}"
    address = a_new_pod(stage, worker, name)
    others = [pod.name for pod in stage.ground.web_pods() if pod.address == address]
    require(not others, f"{name} and {others} have {address}")
    stage.api.delete(
        {"kind": "Pod", "metadata": {"name": name, "namespace": stage.ground.namespace}}
    )
    return address


def leased(stage: Stage) -> dict[str, str]:
    """Return whose each address is, by the daemons' files, of pods that stay."""
    found: dict[str, str] = {}
    for worker in stage.cluster.workers:
        for lease in status_of(stage, worker)["leases"]:
            if "/passing-" not in lease["pod"]:
                address = lease["address"]
                require(address not in found, f"{address} is leased twice")
                found[address] = lease["container_id"]
    return found


def prepared(stage: Stage, make: Callable[[], Build]) -> Build:
    """Return a build that the nodes have. Raises NotApplicableError if there is none."""
    try:
        build = make()
    except BuildError as error:
        raise NotApplicableError(str(error)) from None
    for worker in stage.cluster.workers:
        worker.containerd.load_image(build.image)
    return build


def moved(stage: Stage, to: Build, change: Callable[[], None]) -> str:
    """Change the version under traffic; return what went on meanwhile."""
    before, held = stage.ground.web_pods(), leased(stage)
    began = time.monotonic()
    with traffic(stage) as asked, arrivals(stage) as came:
        change()
        took = time.monotonic() - began
    rolled_out(stage.ground)
    for worker in stage.cluster.workers:
        is_of(stage, worker, to)
    now = leased(stage)
    require(now == held, f"leases were {held} and are {now}")
    return (
        f"{to.version} in {took:.0f} s; {sum(asked)} requests meanwhile, all answered;"
        f" {len(came.addresses)} pods came and went, the slowest in {came.slowest:.1f} s;"
        f" {unchanged(stage, before)}, {len(held)} leases as before"
    )


def is_of(stage: Stage, worker: Worker, build: Build) -> None:
    """Make sure that daemon, plugin and rules of a node are a build's."""
    version = status_of(stage, worker)["version"]
    require(version == build.version, f"{worker.name}: ipamd is of {version}, not {build.version}")
    found = hashlib.sha256(worker.node.path(PLUGIN).read_bytes()).hexdigest()
    require(found == build.plugin_sum, f"{worker.name}: enid-cni is not that of {build.version}")
    if build.version in {builds.NEXT_VERSION, builds.this().version}:
        wanted = build.version == builds.NEXT_VERSION
        wait_for(
            partial(_has_rules, worker, is_next=wanted),
            f"the rules of {build.version} alone on {worker.name}", 60,
        )  # fmt: skip


def _has_rules(worker: Worker, *, is_next: bool) -> bool:
    found = set(worker.node.run(["sh", "-c", RULES]).stdout.split())
    return (
        found >= NEXT_RULES and "512" not in found
        if is_next
        else "512" in found and not found & NEXT_RULES
    )


def meets(stage: Stage, plugin: Build, daemons: Build) -> str:
    """Have a pod come and go by one build's plugin and another's daemon."""
    worker = stage.cluster.workers[0]
    file = worker.node.path(PLUGIN)
    own = file.read_bytes()
    try:
        _put(file, plugin.plugin.read_bytes())
        address = come(stage, worker)
    finally:
        _put(file, own)
    return f"{address} by enid-cni {plugin.version} from ipamd {daemons.version}"


def _put(file: Path, data: bytes) -> None:
    draft = file.with_name(f".{file.name}.draft")
    draft.write_bytes(data)
    draft.chmod(0o755)
    draft.replace(file)


def to(stage: Stage, make: Callable[[], Build]) -> str:
    """Upgrade the chart to another build; let it meet our plugin, and its plugin our daemon."""
    there, here = prepared(stage, make), builds.this()
    first = meets(stage, there, here)
    told = moved(stage, there, partial(chart.install, stage.cluster, str(there.chart)))
    return f"{told}; {first}; {meets(stage, here, there)}"


def back(stage: Stage, make: Callable[[], Build]) -> str:
    """Roll the chart back to ours."""
    there = prepared(stage, make)
    versions = {status_of(stage, worker)["version"] for worker in stage.cluster.workers}
    if versions != {there.version}:
        raise NotApplicableError(f"the nodes are of {versions}: there is nothing to roll back")
    return moved(stage, builds.this(), partial(chart.roll_back, stage.cluster))


def bad(stage: Stage) -> str:
    """Upgrade to an image in which nothing of ours is, look on for a while, and roll back."""
    before, held = stage.ground.web_pods(), leased(stage)
    repository, _, tag = PAUSE.rpartition(":")
    values = {"image.repository": repository, "image.tag": tag}
    with traffic(stage) as asked:
        chart.upgrade(stage.cluster, **values)
        wait_for(lambda: _broken(stage) != "", "a pod that cannot start", BROKEN_SECONDS)
        node = _broken(stage)
        lost = stage.cluster.worker(node)
        other = next(w for w in stage.cluster.workers if w is not lost)
        name = _begin(stage, lost)
        until = time.monotonic() + WITHOUT_SECONDS
        elsewhere = come(stage, other)
        wait_for(lambda: time.monotonic() > until, "a while", WITHOUT_SECONDS + 1)
        require(not is_true(stage.pod(name), "Ready"), f"{name} is ready without a daemon")
        require(_broken(stage) == node, "the second node was taken, too")
        chart.roll_back(stage.cluster)
        stage.ground.wait(lambda: is_true(stage.pod(name), "Ready"), f"{name} is ready")
    rolled_out(stage.ground)
    address = stage.pod(name)["status"]["podIP"]
    stage.api.delete(
        {"kind": "Pod", "metadata": {"name": name, "namespace": stage.ground.namespace}}
    )
    stage.ground.wait(lambda: address not in leased(stage), f"the end of {name}'s lease")
    require(leased(stage) == held, "leases are others than before")
    return (
        f"{node} was without ipamd, the other went on (a pod had {elsewhere}); {sum(asked)} requests"
        f" meanwhile, all answered; a pod that waited has {address}; {unchanged(stage, before)}"
    )


def _begin(stage: Stage, worker: Worker) -> str:
    """Create a pod on a node, and do not wait for it."""
    name = f"waiting-{next(NUMBERS)}"
    container = {**stage.ground.container(), "command": ["sleep", "3600"]}
    spec = {"nodeName": worker.name, "containers": [container], "terminationGracePeriodSeconds": 1}
    stage.ground.create("Pod", name, spec)
    return name


def _broken(stage: Stage) -> str:
    """Return the node whose daemon's pod cannot start; nothing while there is none."""
    for pod in stage.api.pods(chart.SPACE, chart.LABEL):
        status: Any = pod.get("status", {})
        for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            words = {**one.get("state", {}), **one.get("lastState", {})}
            if "StartError" in str(words) or "CrashLoopBackOff" in str(words):
                return str(pod["spec"]["nodeName"])
    return ""


NEXT = (
    Check(
        "upgraded-under-traffic",
        "the chart goes to the next build, with another layout and files, and its plugin and daemon"
        " understand ours: no request lost, no pod, no lease",
        "frames, files or layout of two versions do not agree: docs/adr/0043, ipamd's log",
        partial(to, make=builds.next_build),
    ),
    Check(
        "rolled-back-under-traffic",
        "helm rollback brings ours back, on the next build's files and layout: nothing lost",
        "what the next build wrote is misread: ipamd's log, `enid doctor`",
        partial(back, make=builds.next_build),
    ),
    Check(
        "bad-upgrade-rolled-back",
        "an image that cannot start takes one node's daemon and nothing else, and rollback brings it"
        " back with the pod that waited",
        "the rollout went on over a node that is not ready, or pods' network hangs on the daemon",
        bad,
    ),
)
PAST = (
    Check(
        "downgraded-under-traffic",
        "the chart goes to a build of the past: it reads what ours has written, nothing is lost",
        "files of ours are misread by what was there before: docs/adr/0043",
        partial(to, make=builds.past_build),
    ),
    Check(
        "upgraded-from-the-past",
        "and from there to ours",
        "what the past build has written is misread: ipamd's log",
        partial(back, make=builds.past_build),
    ),
)
UPGRADES: tuple[Check[Stage], ...] = (*PAST, *NEXT)
"""All, in their order, which counts: the past build names no columns, so it cannot read a lease
file to which the next one has added some (ValueError, seen; ours can). Each leaves the cluster as it
was, once the one behind it has run."""
