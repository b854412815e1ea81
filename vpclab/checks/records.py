"""What a cluster's objects say of its nodes' networks: NodeNetworks, the DaemonSet, pods. Shell."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any
from urllib.parse import quote

from vpclab.cluster.api import Api, ApiError

RECORDS = "/apis/enid.dev/v1alpha1/nodenetworks"
LABEL = "labelSelector=app.kubernetes.io%2Fname%3Denid"
DAEMONS = f"/apis/apps/v1/daemonsets?{LABEL}"
PAGE = 500
"""Objects in one answer, as kubectl asks: a fleet's pods in one are tens of megabytes."""

PER_PREFIX = 16
"""Addresses of a /28."""

ABSENT, DENIED = 404, 403


class Records:
    """The objects, read anew at each question."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def daemons(self) -> Any:
        """Return enid's DaemonSet, None where there is none, or who asks may not look."""
        found = self._seen(DAEMONS)
        return found[0] if found else None

    def _seen(self, path: str) -> list[Any]:
        """Return the objects of a path; none, where nobody knows it or who asks may not look."""
        try:
            return self._api.listed(path)
        except ApiError as error:
            if error.status in {ABSENT, DENIED}:
                return []
            raise

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
        pods = self._seen(f"/api/v1/namespaces/{space}/pods?{LABEL}")
        counted = [s for pod in pods for s in pod["status"].get("containerStatuses", ())]
        return sum(one["restartCount"] for one in counted)

    def pods(self, node: str = "") -> list[Any]:
        """Return all pods of the cluster, or of a node, that have not ended."""
        path, found = f"/api/v1/pods?limit={PAGE}", []
        if node:
            path += f"&fieldSelector=spec.nodeName%3D{quote(node)}"
        following = ""
        while True:
            page = self._api.ask("GET", path + following)
            found += page["items"]
            rest = page["metadata"].get("continue")
            if not rest:
                break
            following = f"&continue={quote(rest)}"
        return [pod for pod in found if pod["status"].get("phase") in {"Pending", "Running"}]

    # NodeNetwork ---------------------------------------------------------------------------
    def all(self) -> dict[str, Any]:
        """Return the statuses of NodeNetworks by node; nothing, where the kind is not known."""
        found = self._seen(RECORDS)
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
