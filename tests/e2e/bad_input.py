"""What somebody gets wrong: each is one Event and one line of the log, and running pods go on. Shell.

A row says what is done, which Event of the Node comes of it and what its message must name: the
object, what was wanted, what limits it. While it is wrong a pod asks one of the other node all the
time; afterwards it is put right, and the daemon must have noticed that, too.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.e2e.accounts import status_of
from tests.e2e.config import eni_config, hasten
from tests.e2e.stage import Stage, a_new_pod, deployment, ready, traffic, unchanged
from vpclab.checks.check import Check, FailedError, require
from vpclab.cluster import chart
from vpclab.cluster.api import ApiError, is_true
from vpclab.cluster.parts import helm
from vpclab.cluster.worker import Worker
from vpclab.enid import node_policy

SECONDS = 240.0
"""Until an Event is there, and all is well again: the daemon looks every ten seconds, but a write
that was refused is tried again more and more rarely; 110 s were seen."""

BRIEF = 80
"""What of helm's words is shown: of a name that is no setting's, it lists all that are."""

RECORDS = "/apis/enid.dev/v1alpha1/nodenetworks"
ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/enid"
CONFIG_MAP = f"/api/v1/namespaces/{chart.SPACE}/configmaps/enid"
ENI_CONFIGS = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs"
NAMED = "vpc.amazonaws.com/externalEniConfig"
"""The label that names a node's ENIConfig whatever the settings say."""

GROWING = ("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface")
"""What the pool grows by."""

Spoil = Callable[[Stage, Worker], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Row:
    """One mistake, on the node of that *number*."""

    spoil: Spoil
    event: str
    """The reason of the Node's Event."""

    says: tuple[str, ...]
    """What its message must have; {node} and {zone} are the node's."""

    line: str
    """The event of the log's line."""

    number: int = 0
    lines: int = 1
    """How many lines it may be at most: one of each action that is denied."""


def noticed(row: Row, stage: Stage) -> str:
    """Do it, wait for the Event, put it right; return the Event's message."""
    worker, before = stage.cluster.workers[row.number], stage.ground.web_pods()
    known = {event["metadata"]["name"] for event in events(stage, worker)}
    logged = lines(stage, worker, row.line)
    with traffic(stage) as asked, row.spoil(stage, worker):
        stage.ground.wait(
            lambda: bool(new_events(stage, worker, known, row.event)), row.event, SECONDS
        )
        told = new_events(stage, worker, known, row.event)
        said = lines(stage, worker, row.line)[len(logged) :]
    message = str(told[0]["message"])
    require(len(told) == 1, f"{len(told)} Events {row.event}: {[one['message'] for one in told]}")
    for words in (*row.says, "Next step: "):
        wanted = words.format(node=worker.name, zone=worker.instance.zone)
        require(wanted in message, f"the Event does not say {wanted!r}: {message}")
    require(
        0 < len(said) <= row.lines,
        f"{len(said)} lines {row.line!r} in the log of {worker.name}: {said}",
    )
    stage.ground.wait(lambda: is_well(stage, worker), f"{worker.name} is well again", SECONDS)
    return f"{message} -- {sum(asked)} requests meanwhile, all answered; {unchanged(stage, before)}"


def events(stage: Stage, worker: Worker) -> list[Any]:
    """Return our Events of a Node."""
    query = "fieldSelector=involvedObject.kind%3DNode%2CinvolvedObject.name%3D"
    found = stage.api.listed(f"/api/v1/namespaces/default/events?{query}{worker.name}")
    return [event for event in found if event["source"].get("component") == "enid"]


def new_events(stage: Stage, worker: Worker, known: set[str], reason: str) -> list[Any]:
    """Return those of a reason that are not known yet."""
    return [
        event
        for event in events(stage, worker)
        if event["reason"] == reason and event["metadata"]["name"] not in known
    ]


def daemon(stage: Stage, worker: Worker) -> str:
    """Return the name of a node's daemon's pod."""
    pods = stage.api.pods(chart.SPACE, chart.LABEL)
    mine = [p for p in pods if p["spec"]["nodeName"] == worker.name and is_true(p, "Ready")]
    require(mine, f"no daemon is ready on {worker.name}")
    return str(mine[0]["metadata"]["name"])


def lines(stage: Stage, worker: Worker, event: str) -> list[str]:
    """Return the reasons in the lines of that event in a node's log."""
    text = stage.api.logs(chart.SPACE, daemon(stage, worker), "ipamd")
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [str(line.get("reason")) for line in found if line["event"] == event]


def is_well(stage: Stage, worker: Worker) -> bool:
    """Return whether `enid status` knows of no trouble.

    But that nobody sweeps: the lab's values are the chart's, which name no cluster.
    """
    status = status_of(stage, worker)
    troubles = [trouble for trouble in status["troubles"] if not trouble.startswith("sweep: ")]
    return not troubles and not status["cluster"]["sentence"]


# What is done ------------------------------------------------------------------------------
@contextlib.contextmanager
def labelled(key: str, value: str, stage: Stage, worker: Worker) -> Iterator[None]:
    """Have a label on the Node."""
    label(stage, worker, key, value)
    try:
        yield
    finally:
        label(stage, worker, key, None)


def label(stage: Stage, worker: Worker, key: str, value: str | None) -> None:
    """Set a label of a Node, or take it away."""
    body = {"metadata": {"labels": {key: value}}}
    stage.api.ask("PATCH", f"/api/v1/nodes/{worker.name}", body, "merge-patch+json")


@contextlib.contextmanager
def elsewhere(stage: Stage, worker: Worker) -> Iterator[None]:
    """Have the Node name the ENIConfig of another zone."""
    zones = [other.instance.zone for other in stage.cluster.workers]
    other = next(zone for zone in zones if zone != worker.instance.zone)
    with labelled(NAMED, other, stage, worker):
        yield


@contextlib.contextmanager
def without_groups(stage: Stage, worker: Worker) -> Iterator[None]:
    """Have the Node name an ENIConfig of its zone's subnet, without security groups."""
    good = stage.api.ask("GET", f"{ENI_CONFIGS}/{worker.instance.zone}")
    bare = eni_config("bare", good["spec"]["subnet"])
    stage.api.create(bare)
    try:
        with labelled(NAMED, "bare", stage, worker):
            yield
    finally:
        stage.api.delete(bare)


@contextlib.contextmanager
def edited_record(stage: Stage, worker: Worker) -> Iterator[None]:
    """Write into the node's NodeNetwork, as an administrator may, and see it put right."""
    path = f"{RECORDS}/{worker.name}"
    body = {"status": {"instanceType": "z9.huge"}}
    stage.api.ask("PATCH", f"{path}/status", body, "merge-patch+json")
    yield

    def is_right() -> bool:
        return bool(stage.api.ask("GET", path)["status"]["instanceType"] == worker.instance.type)

    stage.ground.wait(is_right, f"{worker.name}'s record is put right", SECONDS)


@contextlib.contextmanager
def without_verb(stage: Stage, worker: Worker) -> Iterator[None]:
    """Take a verb out of the ClusterRole; a new pod gets its address all the same."""
    rules = stage.api.ask("GET", ROLE)["rules"]
    kept = [rule for rule in rules if rule["resources"] != ["nodenetworks/status"]]
    require(len(kept) == len(rules) - 1, "the ClusterRole has no rule for nodenetworks/status")
    stage.api.ask("PATCH", ROLE, {"rules": kept}, "merge-patch+json")
    try:
        a_new_pod(stage, worker, "without-a-verb")
        yield
    finally:
        stage.api.ask("PATCH", ROLE, {"rules": rules}, "merge-patch+json")


@contextlib.contextmanager
def without_action(stage: Stage, worker: Worker) -> Iterator[None]:
    """Let IAM deny the node's role to grow, with some more pods than addresses are ready.

    Those that are ready are given; afterwards all pods get one.
    """
    free = int(stage.api.ask("GET", f"{RECORDS}/{worker.name}")["status"]["counts"]["free"])
    deny = {"Sid": "Denied", "Effect": "Deny", "Action": list(GROWING), "Resource": "*"}
    denied = {"Version": "2012-10-17", "Statement": [deny]}
    stage.vpc.restrict(node_policy(), denied)
    pods = Denied(stage, worker, free + 4)
    try:
        pods.create()
        stage.ground.wait(lambda: pods.ready() >= free, f"{free} pods of the warm pool", SECONDS)
        yield
        require(pods.ready() < pods.wanted, "all pods have addresses, and none was denied")
    finally:
        with stage.vpc.plane.lock:
            stage.vpc.plane.access.unrestrict()
    stage.ground.wait(lambda: pods.ready() == pods.wanted, f"{pods.wanted} pods", SECONDS)
    pods.delete()


@dataclass(frozen=True, slots=True)
class Denied:
    """Pods of one node, more than it has addresses ready."""

    stage: Stage
    worker: Worker
    wanted: int

    def create(self) -> None:
        """Create their Deployment."""
        selector = {"kubernetes.io/hostname": self.worker.name}
        deployment(self.stage, "denied", self.wanted, nodeSelector=selector)

    def ready(self) -> int:
        """Return how many are ready."""
        return len(ready(self.stage, "denied"))

    def delete(self) -> None:
        """Delete them."""
        metadata = {"name": "denied", "namespace": self.stage.ground.namespace}
        self.stage.api.delete({"kind": "Deployment", "metadata": metadata})


@contextlib.contextmanager
def anothers_conflist(_: Stage, worker: Worker) -> Iterator[None]:
    """Put a conflist on the node that its runtime reads before ours."""
    path = worker.node.path("/etc/cni/net.d/00-other.conflist")
    said = {"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "other"}]}
    path.write_text(json.dumps(said))
    try:
        yield
    finally:
        path.unlink()


@contextlib.contextmanager
def bad_value(stage: Stage, _: Worker) -> Iterator[None]:
    """Write into the ConfigMap by hand what no setting can be."""
    set_by_hand(stage, "many")
    try:
        yield
    finally:
        set_by_hand(stage, None)


def set_by_hand(stage: Stage, value: str | None) -> None:
    """Write a value of WARM_IP_TARGET into the ConfigMap, or take it out."""
    stage.api.ask("PATCH", CONFIG_MAP, {"data": {"WARM_IP_TARGET": value}}, "merge-patch+json")
    hasten(stage)


# What is refused before it is there ----------------------------------------------------------
def refused_configs(stage: Stage) -> str:
    """Create ENIConfigs that cannot be; the API server refuses each by the CRD's schema."""
    subnet, groups = "10.0.0.0/24", ["default"]
    said = []
    for name, spec, words in (
        ("bad-subnet", {"subnet": subnet, "securityGroups": []}, "spec.subnet"),
        ("bad-group", {"subnet": "subnet-1", "securityGroups": groups}, "spec.securityGroups[0]"),
        ("no-list", {"subnet": "subnet-1", "securityGroups": "sg-1"}, "spec.securityGroups"),
    ):
        try:
            stage.api.create({**eni_config(name, ""), "spec": spec})
        except ApiError as error:
            sentence = _sentence(error)
            require(words in sentence, f"it is refused without {words}: {sentence}")
            said.append(sentence)
        else:
            raise FailedError(f"ENIConfig {name} is taken: {spec}")
    return "; ".join(said)


def _sentence(error: ApiError) -> str:
    """Return the API server's own words."""
    found = json.loads(str(error)[str(error).index("{") :])
    return str(found["message"])


def refused_values(stage: Stage) -> str:
    """Upgrade the chart with settings that cannot be; helm refuses, and nothing is changed."""
    before = stage.api.ask("GET", chart.DAEMONS)["metadata"]["generation"]
    said = []
    for value in ("settings.WARM_IP_TARGETT=5", "cni.version=2", "pool=plenty"):
        done = subprocess.run(
            [
                helm(), "upgrade", "enid", chart.CHART, f"--namespace={chart.SPACE}",
                f"--kubeconfig={stage.cluster.kubeconfig}", "--reuse-values", "--set", value,
            ],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        require(done.returncode, f"helm takes {value}")
        words = [line.strip(" -\t") for line in done.stderr.splitlines() if "at '" in line]
        require(words, f"helm refuses {value} without a word where: {done.stderr}")
        said.append(f"{value}: {words[-1][:BRIEF]}")
    after = stage.api.ask("GET", chart.DAEMONS)["metadata"]["generation"]
    require(before == after, "the DaemonSet was changed")
    return "; ".join(said)


def row(name: str, proves: str, row: Row) -> Check[Stage]:
    """Return a row as a check."""
    means = "an Event too few or too many, or not those words; the log of that node's ipamd"
    return Check(name, f"{proves}: one Event, one line, pods go on", means, partial(noticed, row))


CONFIGS: tuple[Check[Stage], ...] = (
    row(
        "eniconfig-absent",
        "a Node names an ENIConfig that does not exist",
        Row(
            partial(labelled, NAMED, "nowhere"),
            "EniConfigNotUsed",
            ("ENIConfig nowhere is not in the cluster", f"label {NAMED} of Node {{node}} names it",
             "new ENIs go as {zone} said before"),
            "eniconfig not used",
        ),
    ),
    row(
        "eniconfig-of-another-zone",
        "an ENIConfig names a subnet of another zone",
        Row(
            elsewhere,
            "EniConfigElsewhere",
            ("names subnet-", "which is in us-east-1", "this node is in {zone}", "no ENI for pods"),
            "eniconfig not used",
            number=1,
        ),
    ),
    row(
        "eniconfig-without-groups",
        "an ENIConfig has no security group, and the primary ENI's are taken",
        Row(
            without_groups,
            "EniConfigWithoutGroups",
            ("ENIConfig bare has no security group", "Node {node}", "primary ENI (sg-"),
            "eniconfig without security groups",
        ),
    ),
)  # fmt: skip
"""While ENIConfigs are on."""

BAD_INPUT: tuple[Check[Stage], ...] = (
    Check(
        "eniconfig-invalid",
        "an ENIConfig that cannot be is refused by the API server, in words that name the field",
        "the CRD's schema: config/chart/crds/eniconfigs.yaml",
        refused_configs,
    ),
    row(
        "profile-unknown",
        "a Node's label names a profile that is not there",
        Row(
            partial(labelled, "enid.dev/profile", "nowhere"),
            "SettingsNotTaken",
            ("node label enid.dev/profile=nowhere", "names a profile that the ConfigMap does not",),
            "settings not taken, the former ones hold",
        ),
    ),
    row(
        "setting-invalid",
        "a value in the ConfigMap cannot be, and the former ones hold",
        Row(
            bad_value,
            "SettingsNotTaken",
            ("ConfigMap: WARM_IP_TARGET=many",),
            "settings not taken, the former ones hold",
            number=1,
        ),
    ),
    Check(
        "values-invalid",
        "helm refuses values that cannot be, in words that name them, and changes nothing",
        "config/chart/values.schema.json",
        refused_values,
    ),
    row(
        "nodenetwork-edited",
        "an administrator writes into a NodeNetwork, which is put right",
        Row(
            edited_record,
            "NodeNetworkEdited",
            ("NodeNetwork {node} was changed (instanceType) by somebody else", "is put back"),
            "nodenetwork put back",
        ),
    ),
    row(
        "rbac-verb-missing",
        "a verb is taken out of the ClusterRole",
        Row(
            without_verb,
            "KubernetesDenied",
            ('cannot patch resource "nodenetworks/status"', 'in API group "enid.dev"'),
            "kubernetes",
        ),
    ),
    row(
        "iam-action-missing",
        "IAM denies what the pool grows by; warm addresses are given, and the rest when it is allowed",
        Row(
            without_action,
            "Ec2Unauthorized",
            ("EC2 refuses to ", "is not authorized to perform: ec2:"),
            "flight failed",
            number=1,
            lines=len(GROWING),
        ),
    ),
    row(
        "conflist-of-another",
        "another CNI puts a conflist before ours",
        Row(
            anothers_conflist,
            "ConflistNotFirst",
            ("/etc/cni/net.d/00-other.conflist sorts before 05-enid.conflist",
             "new pods of this node"),
            "another CNI's conflist comes first",
        ),
    ),
)  # fmt: skip
"""All others."""
