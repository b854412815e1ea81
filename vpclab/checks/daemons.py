"""enid itself: its DaemonSet, its records, and what nodes say of their addresses. Shell."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import FILL_SECONDS, Ground, internal
from vpclab.checks.records import PER_PREFIX

PLUGIN = "enid-cni"
HOSTS_PODS = 2
"""Pods on a node's own network on every EKS node, without an address: kube-proxy, the CNI."""

MANY = 20
CONDITION = "PodAddressesAvailable"
RESOURCE = "enid.dev/pod-addresses"


def rolled_out(ground: Ground) -> str:
    """Look at enid's own DaemonSet."""
    daemons = ground.records.daemons()
    if daemons is None:
        raise NotApplicableError("no DaemonSet with app.kubernetes.io/name=enid is seen")
    status, wanted = daemons["status"], daemons["status"]["desiredNumberScheduled"]
    ready, new = status.get("numberReady", 0), status.get("updatedNumberScheduled", 0)
    require(ready == new == wanted, f"of {wanted} pods {ready} are ready, {new} are the newest")
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    return f"{ready} of {wanted} pods are ready, with {container['image']}"


def _records(ground: Ground) -> dict[str, Any]:
    records = ground.records.all()
    if not records:
        raise NotApplicableError("there are no NodeNetworks: ENID_NODE_NETWORK is false")
    return records


def recorded(ground: Ground) -> str:
    """Compare each NodeNetwork with its Node."""
    records, said = _records(ground), []
    for name, node in ground.nodes.items():
        require(name in records, f"{name} has no NodeNetwork")
        record = records[name]
        instance = node["spec"].get("providerID", "").rpartition("/")[2]
        labels = node["metadata"]["labels"]
        facts = {
            "instanceID": instance or record["instanceID"],
            "instanceType": labels.get("node.kubernetes.io/instance-type", record["instanceType"]),
            "primaryAddress": internal(node),
        }
        for fact, wanted in facts.items():
            require(record[fact] == wanted, f"{fact} of {name} is {record[fact]}, not {wanted}")
        require(record["mode"] == "normal", f"{name} works in the mode {record['mode']}")
        counts = record["counts"]
        said.append(f"{name} {counts['enis']} of {counts['maxENIs']} ENIs, {record['instanceID']}")
    return ", ".join(said)


def available(ground: Ground) -> str:
    """Look at the condition of each node."""
    said = []
    for node in ground.api.nodes():
        name = node["metadata"]["name"]
        found = [one for one in node["status"]["conditions"] if one["type"] == CONDITION]
        if name in ground.nodes and found:
            words = f"{found[0]['status']} on {name}: {found[0].get('message', '')}"
            require(found[0]["status"] == "True", words)
            said.append(name)
    if not said:
        raise NotApplicableError("no node has the condition: ENID_NODE_CONDITION is false")
    return f"true on {', '.join(said)}"


def most_pods(ground: Ground) -> str:
    """Compare how many pods a node takes with how many addresses it can have."""
    records, said = _records(ground), []
    for name, node in ground.nodes.items():
        record = records.get(name, {})
        enis = [eni for eni in record.get("enis", ()) if eni["state"] == "open"]
        if not enis:
            raise NotApplicableError(f"{name} has no ENI for pods yet")
        each = PER_PREFIX if record["kind"] == "prefix" else 1
        usable = record["counts"]["maxENIs"] - sum(e["state"] == "excluded" for e in record["enis"])
        room = usable * max(eni["slots"] for eni in enis) * each
        pods = int(node["status"]["allocatable"]["pods"])
        require(
            pods <= room + HOSTS_PODS,
            f"{name} takes {pods} pods and can have {room} addresses: the last would not start",
        )
        said.append(f"{name} takes {pods} pods and can have {room} addresses")
    return ", ".join(said)


def resource(ground: Ground) -> str:
    """Compare the extended resource with the addresses of the node's record."""
    records, said = _records(ground), []
    for name, node in ground.nodes.items():
        if RESOURCE in node["status"]["allocatable"]:
            count = int(node["status"]["allocatable"][RESOURCE])
            held = records[name]["counts"]["held"]
            require(count > 0, f"{name} has no {RESOURCE}")
            said.append(f"{name} {count}, {held} of them held")
    if not said:
        raise NotApplicableError(f"no node has {RESOURCE}: ENID_POD_ADDRESS_RESOURCE is false")
    return ", ".join(said)


def first_conflist(ground: Ground) -> str:
    """Look into the folder from which the runtime takes its CNI, on each node."""
    found = set()
    for node in ground.nodes:
        (answer,) = ground.ask(ground.host(node)[0], {"do": "files", "folder": "/host"})
        if "error" in answer:
            raise NotApplicableError(f"/etc/cni/net.d of {node}: {answer['error']}")
        kinds = (".conf", ".conflist", ".json")
        names = sorted(name for name in answer["files"] if name.endswith(kinds))
        require(names, f"{node} has no CNI configuration")
        content = answer["files"][names[0]] or {}
        types = [plugin.get("type") for plugin in content.get("plugins", [content])]
        require(PLUGIN in types, f"the first of {', '.join(names)} on {node} runs {types}")
        found.add(f"{names[0]} ({', '.join(types)})")
    return ", ".join(sorted(found))


def quiet(ground: Ground) -> str:
    """Look for Warnings of enid, and for restarts of its pods, since the checks began."""
    restarts = ground.records.restarts() - ground.restarts
    require(not restarts, f"{restarts} containers of enid's pods were started again")
    events = ground.api.listed("/api/v1/events?fieldSelector=type%3DWarning")
    ours = [one for one in events if _is_enids(one) and _when(one) >= ground.began]
    said = "; ".join(f"{one['reason']}: {one['message']}" for one in ours[-3:])
    require(not ours, f"{len(ours)} Warnings of enid: {said}")
    return f"no Warning of enid and no restart in {time.time() - ground.began:.0f} s"


def _is_enids(event: Any) -> bool:
    source = event.get("reportingComponent") or event.get("source", {}).get("component", "")
    return bool(source.startswith("enid"))


def _when(event: Any) -> float:
    text = event.get("eventTime") or event.get("lastTimestamp") or "1970-01-01T00:00:00Z"
    return datetime.fromisoformat(text).timestamp()


def many_pods(ground: Ground) -> str:
    """Scale a Deployment to many pods, and away again."""
    template = {"metadata": {"labels": {"app": "many"}}, "spec": ground.pod_spec("")}
    spec = {"replicas": MANY, "selector": {"matchLabels": {"app": "many"}}, "template": template}
    began = time.monotonic()
    ground.create("Deployment", "many", spec)
    ground.wait(lambda: len(ground.ready("app=many")) == MANY, f"{MANY} more pods", FILL_SECONDS)
    took = time.monotonic() - began
    addresses = {pod["status"]["podIP"] for pod in ground.ready("app=many")}
    require(len(addresses) == MANY, f"{MANY} pods have {len(addresses)} addresses")
    ground.delete("Deployment", "many")
    ground.wait_gone(lambda: not ground.pods("app=many"), f"the end of {MANY} pods")
    return f"{MANY} pods were ready after {took:.0f} s, each with an address of its own"


FIRST = (
    Check(
        "enid-is-rolled-out",
        "each node has a pod of enid's DaemonSet, of its newest template, and it is ready",
        "`kubectl describe` of the pod that is not, and the log of its container `install`",
        rolled_out,
    ),
    Check(
        "conflist-is-first",
        "the runtime of each node takes enid's conflist, and no other CNI's sorts before it",
        "remove what another CNI has left in /etc/cni/net.d",
        first_conflist,
    ),
    Check(
        "node-networks",
        "each NodeNetwork has its Node's instance, type and address, and the daemon works normally",
        "the daemon's log; `enid status` on the node says what troubles it",
        recorded,
    ),
    Check(
        "addresses-available",
        f"each node has the condition {CONDITION}, and it is true",
        "the condition's message says what is short, and what to do",
        available,
    ),
    Check(
        "max-pods",
        "no node takes more pods than it can have addresses for",
        "kubelet's --max-pods: compute it as terraform/modules/sizes does",
        most_pods,
    ),
    Check(
        "address-resource",
        f"nodes that offer {RESOURCE} have some",
        "the daemon has no rights on nodes/status",
        resource,
    ),
)
"""What the others build on."""

LAST = (
    Check(
        "many-pods",
        f"{MANY} pods start at once, each with an address of its own, and go again",
        "the subnet or the instance is full, or EC2 throttles: `kubectl get nn`, pods' Events",
        many_pods,
        thorough=True,
    ),
    Check(
        "no-complaints",
        "enid posted no Warning and no container of it was started again while all this went on",
        "the Warning's own words; the former container's log: `kubectl logs --previous`",
        quiet,
    ),
)
"""What looks back."""
