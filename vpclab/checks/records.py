"""What a cluster's objects say of its nodes' networks: NodeNetworks, the DaemonSet, pods. Shell."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

from vpclab.cluster.api import Api, ApiError

RECORDS = "/apis/enid.dev/v1alpha1/nodenetworks"
DAEMONS = "/apis/apps/v1/daemonsets?labelSelector=app.kubernetes.io%2Fname%3Denid"
PER_PREFIX = 16
"""Addresses of a /28."""

ABSENT, DENIED = 404, 403


class Records:
    """The objects, read anew at each question."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def daemons(self) -> Any:
        """Return enid's DaemonSet, None where there is none."""
        found = self._api.listed(DAEMONS)
        return found[0] if found else None

    def image(self) -> str:
        """Return the image of enid's DaemonSet, "" where there is none."""
        daemons = self.daemons()
        if daemons is None:
            return ""
        return str(daemons["spec"]["template"]["spec"]["containers"][0]["image"])

    def restarts(self) -> int:
        """Return how often containers of the DaemonSet's pods were started again."""
        daemons = self.daemons()
        if daemons is None:
            return 0
        space = daemons["metadata"]["namespace"]
        pods = self._api.pods(space, "app.kubernetes.io/name=enid")
        counted = [s for pod in pods for s in pod["status"].get("containerStatuses", ())]
        return sum(one["restartCount"] for one in counted)

    def pods(self) -> list[Any]:
        """Return all pods of the cluster that have not ended."""
        pods = self._api.listed("/api/v1/pods")
        return [pod for pod in pods if pod["status"].get("phase") in {"Pending", "Running"}]

    # NodeNetwork ---------------------------------------------------------------------------
    def all(self) -> dict[str, Any]:
        """Return the statuses of NodeNetworks by node; nothing, where the kind is not known."""
        try:
            found = self._api.listed(RECORDS)
        except ApiError as error:
            if error.status in {ABSENT, DENIED}:
                return {}
            raise
        return {one["metadata"]["name"]: one.get("status", {}) for one in found}

    def has(self, node: str) -> bool:
        """Return whether a node has one."""
        return bool(self.all().get(node))

    def eni(self, node: str, address: IPv4Address) -> Any:
        """Return the ENI of a node that an address is of, None if none is."""
        for eni in self.all().get(node, {}).get("enis", ()):
            if any(address in ip_network(cidr) for cidr in eni["cidrs"] if "." in cidr):
                return eni
        return None

    def number(self, node: str, address: IPv4Address) -> int:
        """Return the number of the ENI that an address is of: 1 is the primary, 0 is none."""
        eni = self.eni(node, address)
        return int(eni["number"]) if eni else 0

    def primary_room(self, node: str) -> int:
        """Return how many pods the primary ENI of a node has addresses for."""
        status = self.all()[node]
        each = PER_PREFIX if status["kind"] == "prefix" else 1
        return sum(
            int(eni["slots"]) * each
            for eni in status["enis"]
            if eni["number"] == 1 and eni["state"] == "open"
        )

    def secondary_expected(self, node: str) -> bool:
        """Return whether a node may have a second ENI."""
        return int(self.all()[node]["counts"]["maxENIs"]) > 1


def is_node_of(address: str, node: Any) -> bool:
    """Return whether an address is one of a node's own."""
    own = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    return ip_address(address) in map(ip_address, own)
