"""Whether EC2, the daemons and Kubernetes say the same of addresses and ENIs. Shell."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.e2e.stage import Stage
from vpclab.checks.check import Check, FailedError, require
from vpclab.checks.ground import LOOK_SECONDS
from vpclab.cluster import chart
from vpclab.cluster.api import ApiError
from vpclab.cluster.worker import Worker
from vpclab.desired import VpcEni

SETTLE_SECONDS = 120.0
"""Until a surplus is given back: addresses cool for 30 s, and EC2 is asked by and by."""

ENDED = {"Succeeded", "Failed"}


def status_of(stage: Stage, worker: Worker) -> Any:
    """Return what `enid status` says in the daemon's pod. Raises FailedError."""
    pods = stage.api.pods(chart.SPACE, chart.LABEL)
    names = [
        pod["metadata"]["name"]
        for pod in pods
        if pod["spec"]["nodeName"] == worker.name and "deletionTimestamp" not in pod["metadata"]
    ]
    require(len(names) == 1, f"{worker.name} has the daemons {names}")
    ended = stage.api.run(chart.SPACE, names[0], "/usr/bin/enid", "status", "-o", "json")
    require(not ended.code, f"enid status on {worker.name}: {ended.out}")
    return json.loads(ended.out)


def pods_on(stage: Stage, node: str) -> dict[str, str]:
    """Return the pods with a network of their own on a node, by address."""
    pods = stage.api.listed(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")
    return {
        pod["status"]["podIP"]: f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if "podIP" in pod["status"]
        and not pod["spec"].get("hostNetwork")
        and pod["status"]["phase"] not in ENDED
    }


def differences(stage: Stage) -> Iterator[str]:
    """Yield a sentence for each thing that one of the three says otherwise."""
    enis = stage.vpc.enis()
    yield from stage.vpc.check()
    yield from (f"{eni.id} is on no instance: leaked" for eni in enis if eni.instance_id is None)
    holders: Counter[str] = Counter()
    for worker in stage.cluster.workers:
        own = {eni.id: eni for eni in enis if eni.instance_id == worker.instance.id}
        status = status_of(stage, worker)
        leased = {lease["address"]: lease for lease in status["leases"]}
        holders.update(leased.keys())
        yield from _enis(worker, own, status)
        yield from _leases(own, leased)
        pods = pods_on(stage, worker.name)
        if pods.keys() != leased.keys():
            yield f"{worker.name}: pods have {pods}, the daemon leases {sorted(leased)}"
    yield from (f"{address} is leased {n} times" for address, n in holders.items() if n > 1)


def _enis(worker: Worker, own: dict[str, VpcEni], status: Any) -> Iterator[str]:
    said = {eni["id"]: (eni["singles"], eni["prefixes"], eni["leaving"]) for eni in status["enis"]}
    true = {eni.id: (len(eni.secondary), len(eni.prefixes), 0) for eni in own.values()}
    if said != true:
        yield f"{worker.name}: the daemon says (addresses, prefixes, leaving) {said}, EC2 {true}"


def _leases(own: dict[str, VpcEni], leased: dict[str, Any]) -> Iterator[str]:
    for address, lease in leased.items():
        eni = own.get(lease["eni_id"])
        held = eni is not None and (
            address in map(str, eni.secondary)
            or any(address in map(str, prefix) for prefix in eni.prefixes)
        )
        if not held:
            yield f"{lease['pod']} has {address}, which {lease['eni_id']} has not"


def settled(stage: Stage) -> str:
    """Wait until all agree; return what they have. Raises FailedError with what differs."""
    end = time.monotonic() + SETTLE_SECONDS
    while wrong := _wrong(stage):
        if time.monotonic() > end:
            raise FailedError("; ".join(wrong))
        time.sleep(LOOK_SECONDS)
    return _counts(stage)


def _wrong(stage: Stage) -> list[str]:
    try:
        return list(differences(stage))
    except (FailedError, ApiError) as error:  # a daemon that has just been killed, say
        return [str(error)]


def _counts(stage: Stage) -> str:
    said = []
    for worker in stage.cluster.workers:
        own = [eni for eni in stage.vpc.enis() if eni.instance_id == worker.instance.id]
        held = sum(len(eni.secondary) + 16 * len(eni.prefixes) for eni in own)
        pods = len(pods_on(stage, worker.name))
        said.append(f"{worker.name} {len(own)} ENIs, {held} addresses, {pods} pods")
    return f"EC2, daemons and Kubernetes agree: {'; '.join(said)}; nothing is leaked"


ACCOUNTS: tuple[Check[Stage], ...] = (
    Check(
        "accounts-agree",
        "EC2, daemons and pods' statuses say the same of every ENI and address, and none is leaked",
        "an address without a pod: a DEL was lost; an ENI on no instance: `enid doctor`",
        settled,
    ),
)
"""What is so after each life, and looked at after the last."""
