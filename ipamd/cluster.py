"""What the daemon takes from Kubernetes: values read from its objects. Pure.

All of it is optional: a node without an API server is in plain mode and knows none of
this. An object is read whole or not at all: a field that is not what it should be is one
sentence (MalformedObjectError), and what was known before stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from eni.model import SecurityGroupId, SubnetId

T = TypeVar("T")

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
"""The taint that the node controller puts on a cordoned node; a node may also be born with it."""

ENI_CONFIG_LABEL = "vpc.amazonaws.com/externalEniConfig"
"""The label that names the node's ENIConfig whatever the settings say, as in the peer."""

DEFAULT_ENI_CONFIG = "default"
"""The ENIConfig of a node that names none, as in the peer."""

OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""What Kubernetes takes as a name (DNS-1123 subdomain); it becomes part of a URL."""

NODES_ANNOTATION = "enid.dev/nodes"
"""On the sweeper's Lease: how many nodes the cluster has, so that only one of them counts."""

CONDITION = "PodAddressesAvailable"
"""The type of our condition on the Node."""

POD_ADDRESSES = "enid.dev/pod-addresses"
"""The extended resource: how many pods could have an address on the node."""

POD_IPS = "vpc.amazonaws.com/pod-ips"
"""A pod's annotation of its addresses, as the peer writes it."""

DONE_PHASES = frozenset({"Succeeded", "Failed"})
"""Phases of a pod whose containers have ended for good: kubelet has taken its sandbox down."""

BACKOFF_SECONDS = 1.0
"""How long the first wait may be after a failure; each further one may be twice as long."""

BACKOFF_MOST_SECONDS = 60.0
"""How long a wait may be: an API server that returns sees a thousand nodes within a minute."""


class ClusterError(Exception):
    """Kubernetes did not do what was asked; the daemon goes on without."""

    id: ClassVar[str] = "KUBE"


class ApiAwayError(ClusterError):
    """The API server was not reached, or has no time: nothing, it is asked again."""

    id = "KUBE-AWAY"


class CredentialsUnreadableError(ClusterError):
    """The way to the API server cannot be read: mend the file or variable that the text names."""

    id = "KUBE-CREDENTIALS"


class ApiDeniedError(ClusterError):
    """The API server does not allow it: give the daemon's account what docs/kubernetes.md lists."""

    id = "KUBE-DENIED"


class UnknownToApiError(ClusterError):
    """The API server does not know our token: nothing, its file is read again."""

    id = "KUBE-UNKNOWN"


class ApiRefusedError(ClusterError):
    """The API server cannot do it as asked: report it, the text has the server's own words."""

    id = "KUBE-REFUSED"


class ObjectAbsentError(ClusterError):
    """The object is not in the cluster: create it, or correct the name that asks for it."""

    id = "KUBE-ABSENT"


class OthersFirstError(ClusterError):
    """Somebody else has changed the object meanwhile: nothing, it is read again."""

    id = "KUBE-CONFLICT"


class HistoryGoneError(ClusterError):
    """The API server no longer knows the changes since we last looked: nothing, we list anew."""

    id = "KUBE-GONE"


class MalformedObjectError(ClusterError):
    """A field of an object is not what it should be: correct it; the former value holds on."""

    id = "KUBE-MALFORMED"


class Link(StrEnum):
    """How the daemon stands with Kubernetes."""

    OFF = "off"
    """Plain mode: no cluster is configured."""
    AWAY = "away"
    CONNECTED = "connected"


class Patch(StrEnum):
    """How a change is told, by its media type."""

    MERGE = "application/merge-patch+json"
    """Objects are merged, lists replaced (RFC 7386): what every object takes."""
    STRATEGIC = "application/strategic-merge-patch+json"
    """As MERGE, but a Node's conditions are merged by their type: others' stay."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The link, and the last sentence about what is wrong with it ("" when nothing is)."""

    link: Link
    sentence: str = ""


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether there is a cluster to talk to: a service account's pod, or KUBECONFIG."""
    return bool(environ.get("KUBERNETES_SERVICE_HOST") or environ.get("KUBECONFIG"))


# Reading ---------------------------------------------------------------------------------
def _at(found: object, what: str, path: str, kind: type[T]) -> T | None:
    """Return the value at *path* ("spec.subnet"), None if there is none or it is null."""
    value: object = found
    for step in path.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise MalformedObjectError(f"{what}: what holds {path} is {value!r:.80}, not an object")
        value = value.get(step)
    if value is None:
        return None
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value  # to Python true is a whole number, too
    raise MalformedObjectError(f"{what}: {path} is {value!r:.80}, not {_WORDS[kind]}")


_WORDS: Mapping[type, str] = {
    str: "a text", int: "a whole number", bool: "true or false", list: "a list",
    dict: "an object",
}  # fmt: skip


def _texts(found: object, what: str, path: str) -> Mapping[str, str]:
    """Return labels or annotations."""
    texts = _at(found, what, path, dict) or {}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise MalformedObjectError(f"{what}: {path}[{key!r}] is {value!r:.80}, not a text")
    return texts


def _name(found: object, kind: str) -> str:
    name = _at(found, kind, "metadata.name", str)
    if not name:
        raise MalformedObjectError(f"{kind}: metadata.name is missing")
    return name


# Node ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """This node as the cluster sees it; *max_pods* is None until kubelet has told it."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    unschedulable: bool
    max_pods: int | None


def node_view(found: object) -> NodeView:
    """Return what a Node object says. Raises MalformedObjectError."""
    name = _name(found, "Node")
    what = f"Node {name}"
    taints = _at(found, what, "spec.taints", list) or []
    keys = {_at(taint, what, "key", str) for taint in taints}
    cordoned = _at(found, what, "spec.unschedulable", bool) or False
    return NodeView(
        name=name,
        labels=_texts(found, what, "metadata.labels"),
        annotations=_texts(found, what, "metadata.annotations"),
        unschedulable=cordoned or UNSCHEDULABLE_TAINT in keys,
        max_pods=_capacity(found, what),
    )


def _capacity(found: object, what: str) -> int | None:
    pods = _at(found, what, "status.capacity.pods", str)
    if pods is None:
        return None
    if not (pods.isascii() and pods.isdigit()):
        raise MalformedObjectError(f"{what}: status.capacity.pods is {pods!r}, not a whole number")
    return int(pods)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """What of this node's Node the daemon writes itself, as it is there.

    *condition* is the status and reason of our condition, None if there is none; *resource*
    the capacity of pod addresses.
    """

    uid: str
    version: str
    taints: tuple[Mapping[str, Any], ...]
    condition: tuple[str, str] | None
    resource: str | None


def node_seen(found: object) -> NodeSeen:
    """Return what a Node object says of it. Raises MalformedObjectError."""
    what = f"Node {_name(found, 'Node')}"
    conditions = _at(found, what, "status.conditions", list) or []
    ours = [c for c in conditions if _at(c, what, "type", str) == CONDITION]
    resources = _at(found, what, "status.capacity", dict) or {}
    resource = resources.get(POD_ADDRESSES)
    return NodeSeen(
        uid=_at(found, what, "metadata.uid", str) or "",
        version=_at(found, what, "metadata.resourceVersion", str) or "",
        taints=tuple(_at(found, what, "spec.taints", list) or ()),
        condition=_said(ours[0], what) if ours else None,
        resource=None if resource is None else str(resource),
    )


def _said(condition: object, what: str) -> tuple[str, str]:
    return (_at(condition, what, "status", str) or "", _at(condition, what, "reason", str) or "")


# NodeNetwork -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSeen:
    """This node's NodeNetwork, as it is there; *owner* is the uid of the Node that it goes with."""

    version: str
    owner: str
    status: Mapping[str, Any]


def record_seen(found: object) -> RecordSeen:
    """Return what a NodeNetwork object says. Raises MalformedObjectError."""
    what = f"NodeNetwork {_name(found, 'NodeNetwork')}"
    owners = _at(found, what, "metadata.ownerReferences", list) or []
    uids = [_at(o, what, "uid", str) for o in owners if _at(o, what, "kind", str) == "Node"]
    return RecordSeen(
        version=_at(found, what, "metadata.resourceVersion", str) or "",
        owner=next((uid for uid in uids if uid), ""),
        status=_at(found, what, "status", dict) or {},
    )


# ENIConfig -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class EniConfig:
    """An ENIConfig (crd.k8s.amazonaws.com/v1alpha1): where a node's new ENIs go.

    Without *subnet* they go where the primary ENI is; without *security_groups* they have
    the primary ENI's.
    """

    name: str
    subnet: SubnetId | None
    security_groups: tuple[SecurityGroupId, ...]


def eni_config(found: object) -> EniConfig:
    """Return what an ENIConfig object says. Raises MalformedObjectError."""
    name = _name(found, "ENIConfig")
    what = f"ENIConfig {name}"
    subnet = _at(found, what, "spec.subnet", str) or None
    groups = _at(found, what, "spec.securityGroups", list) or []
    if subnet is not None:
        _check_id(what, "spec.subnet", subnet, "subnet-")
    for number, group in enumerate(groups):
        _check_id(what, f"spec.securityGroups[{number}]", group, "sg-")
    return EniConfig(
        name=name,
        subnet=None if subnet is None else SubnetId(subnet),
        security_groups=tuple(dict.fromkeys(SecurityGroupId(group) for group in groups)),
    )


def _check_id(what: str, path: str, value: object, prefix: str) -> None:
    if not (isinstance(value, str) and value.startswith(prefix) and value != prefix):
        raise MalformedObjectError(
            f"{what}: {path} is {value!r:.80}, not an id like {prefix}0a1b2c"
        )


def eni_config_names(node: NodeView, annotation_key: str, label_key: str) -> tuple[str, ...]:
    """Return the ENIConfigs of a node, the first one first choice, the others to fall back on.

    The label that a controller may set wins, then the annotation, then the label of that
    name, as in the peer. Several names with commas between them are ours; only an
    annotation can hold them, because Kubernetes allows no comma in a label. Raises
    MalformedObjectError for what cannot be a name.
    """
    for place, text in _naming(node, annotation_key, label_key):
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        for name in names:
            if not OBJECT_NAME.fullmatch(name):
                raise MalformedObjectError(
                    f"Node {node.name}: {place} names {name!r:.80}, which is no name"
                )
        if names:
            return names
    return (DEFAULT_ENI_CONFIG,)


def eni_config_place(node: NodeView, annotation_key: str, label_key: str) -> str:
    """Return where on a node its ENIConfigs are named, as an operator finds it."""
    for place, text in _naming(node, annotation_key, label_key):
        if text.strip(" ,"):
            return f"{place} of Node {node.name}"
    return f"no label {label_key} of Node {node.name}"


def _naming(
    node: NodeView, annotation_key: str, label_key: str
) -> tuple[tuple[str, str], tuple[str, str], tuple[str, str]]:
    return (
        (f"label {ENI_CONFIG_LABEL}", node.labels.get(ENI_CONFIG_LABEL, "")),
        (f"annotation {annotation_key}", node.annotations.get(annotation_key, "")),
        (f"label {label_key}", node.labels.get(label_key, "")),
    )


# Pods ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """As much of a pod as tells whether it needs an address; *node* is "" while unscheduled.

    *pod_ips* is what its annotation says of its addresses, None if it has none.
    """

    uid: str
    node: str
    host_network: bool
    phase: str
    namespace: str = ""
    name: str = ""
    pod_ips: str | None = None

    @property
    def needs_address(self) -> bool:
        """Whether it has, or will have, an address of ours.

        A pod that is being deleted has it until its phase or the object's end says that
        the sandbox is gone.
        """
        return not self.host_network and self.phase not in DONE_PHASES


def pod_view(found: object) -> PodView:
    """Return what a Pod object says. Raises MalformedObjectError."""
    space = _at(found, "Pod", "metadata.namespace", str) or ""
    what = f"Pod {space}/{_name(found, 'Pod')}"
    uid = _at(found, what, "metadata.uid", str)
    if not uid:
        raise MalformedObjectError(f"{what}: metadata.uid is missing")
    return PodView(
        uid=uid,
        node=_at(found, what, "spec.nodeName", str) or "",
        host_network=_at(found, what, "spec.hostNetwork", bool) or False,
        phase=_at(found, what, "status.phase", str) or "",
        namespace=space,
        name=_name(found, "Pod"),
        pod_ips=_texts(found, what, "metadata.annotations").get(POD_IPS),
    )


def pods_bound(pods: Iterable[PodView], node: str) -> int:
    """Return how many of *pods* are bound to *node* and need an address."""
    return sum(1 for pod in pods if pod.node == node and pod.needs_address)


# Lease -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """A Lease: who holds it and since which version of the object.

    *nodes* is what the holder counted; None until one has, and while somebody else has
    written there what is no number (the holder's next renewal puts it right).
    """

    version: str
    holder: str
    seconds: int
    transitions: int
    nodes: int | None


def lease_view(found: object) -> LeaseView:
    """Return what a Lease object says. Raises MalformedObjectError."""
    what = f"Lease {_name(found, 'Lease')}"
    told = _texts(found, what, "metadata.annotations").get(NODES_ANNOTATION, "")
    return LeaseView(
        version=_at(found, what, "metadata.resourceVersion", str) or "",
        holder=_at(found, what, "spec.holderIdentity", str) or "",
        seconds=_at(found, what, "spec.leaseDurationSeconds", int) or 0,
        transitions=_at(found, what, "spec.leaseTransitions", int) or 0,
        nodes=int(told) if told.isascii() and told.isdigit() else None,
    )


# Lists and watches -----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Listing:
    """The answer to a LIST: its objects, and the version from which to watch.

    *total* counts also the objects that a limit kept out of the answer.
    """

    objects: tuple[object, ...]
    version: str
    total: int


@dataclass(frozen=True, slots=True)
class Put:
    """An object was added or changed."""

    version: str
    found: object


@dataclass(frozen=True, slots=True)
class Gone:
    """An object was deleted."""

    version: str
    found: object


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing changed up to this version."""

    version: str


Change = Put | Gone | Bookmark


def listing(found: object, what: str) -> Listing:
    """Return what the answer to a LIST says. Raises MalformedObjectError."""
    items = _at(found, what, "items", list) or []
    more = _at(found, what, "metadata.remainingItemCount", int) or 0
    version = _at(found, what, "metadata.resourceVersion", str) or ""
    return Listing(tuple(items), version, len(items) + more)


def change(line: bytes, what: str) -> Change:
    """Return what a line of a watch says.

    Raises HistoryGoneError when the server says that it cannot go on from where we are,
    ApiAwayError for its other errors, and MalformedObjectError.
    """
    try:
        found = json.loads(line)
    except ValueError:
        raise MalformedObjectError(f"watch of {what}: {line!r:.80} is not JSON") from None
    word = _at(found, f"watch of {what}", "type", str)
    if word == "ERROR":
        raise _watch_error(found, what)
    version = _at(found, f"watch of {what}", "object.metadata.resourceVersion", str) or ""
    thing = _at(found, f"watch of {what}", "object", dict)
    match word:
        case "ADDED" | "MODIFIED":
            return Put(version, thing)
        case "DELETED":
            return Gone(version, thing)
        case "BOOKMARK":
            return Bookmark(version)
    raise MalformedObjectError(f"watch of {what}: type is {word!r}, which is no kind of change")


def _watch_error(found: object, what: str) -> ClusterError:
    code = _at(found, f"watch of {what}", "object.code", int)
    words = _at(found, f"watch of {what}", "object.message", str)
    return failure(code or 0, words or "no message", f"watch of {what}")


def failure(status: int, words: str, what: str) -> ClusterError:
    """Return the error that an HTTP status means; *words* are the server's own."""
    kind: type[ClusterError] = _FAILURES.get(status, ApiRefusedError)
    if status not in _FAILURES and not 400 <= status < 500:  # noqa: PLR2004 - HTTP's client errors
        kind = ApiAwayError
    sentence = f"{what}: {' '.join(words.split())}"
    return kind(f"{sentence} ({status})" if status else sentence)


_FAILURES: Mapping[int, type[ClusterError]] = {
    401: UnknownToApiError,
    403: ApiDeniedError,
    404: ObjectAbsentError,
    408: ApiAwayError,
    409: OthersFirstError,
    410: HistoryGoneError,
    429: ApiAwayError,
}


def backoff_seconds(failures: int, jitter: float) -> float:
    """Return how long to wait after the *failures*-th failure in a row; *jitter* is 0 to 1.

    Full jitter: the wait is anything up to the limit, so that nodes which lost the API
    server together do not come back together.
    """
    doublings = min(failures - 1, 10)  # past this the limit rules anyway
    limit: float = BACKOFF_SECONDS * 2**doublings
    return jitter * min(limit, BACKOFF_MOST_SECONDS)
