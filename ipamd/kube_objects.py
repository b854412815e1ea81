"""What the daemon writes to Kubernetes, as JSON. Pure.

Each is a whole wish, and compared with what is there before anything is sent: an object that
is as it should be costs no request.

A condition is merged by its type, so that kubelet's and others' conditions stay as they are.
Taints are one list, which Kubernetes merges by nothing: it is replaced as it was seen last, of
that version only, so that whoever changes one at the same moment is never undone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from ipamd.availability import Verdict
from ipamd.cluster import CONDITION, POD_ADDRESSES, NodeSeen, PodView
from ipamd.lease import LeaseRow

NODES = "/api/v1/nodes"


def node_path(name: str) -> str:
    """Return where this node's Node is."""
    return f"{NODES}/{quote(name, safe='')}"


def moment(wall: float) -> str:
    """Return a time as Kubernetes writes it."""
    return dt.datetime.fromtimestamp(wall, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# The Node's status -----------------------------------------------------------------------
def condition(verdict: Verdict, former: tuple[str, str] | None, wall: float) -> dict[str, Any]:
    """Return our condition; without its time of transition if the status is the *former*."""
    told = {
        "type": CONDITION,
        "status": verdict.status.value,
        "reason": verdict.reason,
        "message": verdict.message,
        "lastHeartbeatTime": moment(wall),
    }
    is_same = former is not None and former[0] == verdict.status.value
    return told if is_same else {**told, "lastTransitionTime": moment(wall)}


NO_CONDITION: Mapping[str, Any] = {"$patch": "delete", "type": CONDITION}
"""What takes our condition away, in a strategic merge patch."""


def resource(total: int | None) -> dict[str, Any]:
    """Return the status that tells of *total* pod addresses; None takes them away.

    kubelet makes allocatable what capacity says, at its next look; it is written here so that
    the scheduler need not wait.
    """
    amount = {POD_ADDRESSES: None if total is None else str(total)}
    return {"capacity": amount, "allocatable": amount}


# Taints ----------------------------------------------------------------------------------
OURS = "enid"
"""The value of a taint of ours. By it one is known that a former setting named."""


def taints_wanted(
    seen: Iterable[Mapping[str, Any]],
    *,
    startup: str,
    is_usable: bool,
    exhausted: str,
    is_exhausted: bool,
) -> tuple[Mapping[str, Any], ...]:
    """Return the taints that the Node should have, of those that it has.

    The one called *startup* goes when an address is usable, whatever its effect. Ours is
    there while the node *is_exhausted*, under the name *exhausted* ("" is none).
    """
    ours = {"key": exhausted, "value": OURS, "effect": "NoSchedule"}
    is_wanted = bool(exhausted) and is_exhausted
    kept = []
    for taint in seen:
        is_start = bool(startup) and is_usable and taint.get("key") == startup
        is_ours = _is_ours(taint)
        if is_start or (is_ours and not (is_wanted and taint.get("key") == exhausted)):
            continue
        is_wanted = is_wanted and not is_ours
        kept.append(taint)
    return (*kept, ours) if is_wanted else tuple(kept)


def _is_ours(taint: Mapping[str, Any]) -> bool:
    return taint.get("value") == OURS and taint.get("effect") == "NoSchedule"


def is_tainted(seen: Iterable[Mapping[str, Any]], exhausted: str) -> bool:
    """Return whether the taint of that name is among those *seen*, and ours."""
    return any(_is_ours(taint) and taint.get("key") == exhausted for taint in seen)


def taints_patch(seen: NodeSeen, taints: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the merge patch that makes *taints* those of the Node, as it was *seen*."""
    spec = {"taints": list(taints) or None}
    return {"metadata": {"resourceVersion": seen.version}, "spec": spec}


# Pods ------------------------------------------------------------------------------------
def pod_path(pod: PodView) -> str:
    """Return where a pod is."""
    space, name = quote(pod.namespace, safe=""), quote(pod.name, safe="")
    return f"/api/v1/namespaces/{space}/pods/{name}"


def annotations_patch(pod: PodView, annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the merge patch of that very pod: another one of its name has another uid."""
    return {"metadata": {"uid": pod.uid, "annotations": dict(annotations)}}


def pod_texts(rows: Iterable[LeaseRow]) -> dict[str, str]:
    """Return the addresses of each pod as its annotation has them, by uid; the newest sandbox's."""
    ordered = sorted(rows, key=lambda row: row.started_ns)
    return {row.pod.uid: ",".join(map(str, row.addresses)) for row in ordered if row.pod.uid}


def notes_seen(pods: Iterable[PodView], texts: Mapping[str, str]) -> dict[str, str]:
    """Return what annotations are as they should be, by uid."""
    return {p.uid: texts[p.uid] for p in pods if p.pod_ips and p.pod_ips == texts.get(p.uid)}


def notes_due(
    pods: Iterable[PodView], texts: Mapping[str, str], said: Mapping[str, str]
) -> Iterator[tuple[PodView, str]]:
    """Yield each pod whose annotation is to be written, and the text.

    It is what *texts* have, and empty when a pod that was *said* to have an address has none
    any more. What was said is not repeated: the watch shows it later.
    """
    for pod in pods:
        known = said.get(pod.uid, "")
        text = texts.get(pod.uid, "")
        if text not in {known, pod.pod_ips}:
            yield pod, text
