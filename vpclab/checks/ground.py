"""Where checks are made: a namespace of its own with pods and Services on each node. Shell.

Pods serve HTTP and answer with who they are and whom they see, which needs no more than busybox.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from vpclab.checks.check import FailedError
from vpclab.cluster.api import Api, is_true

PORT = 8080
WEB = {"app": "web"}
PODS_ON_NODE = 2
LOOK_SECONDS = 0.25
READY_SECONDS = 90.0
GONE_SECONDS = 90.0

SCRIPT = f"""\
mkdir -p /tmp/www/cgi-bin
printf '#!/bin/sh\\necho Content-Type: text/plain\\necho\\necho "$REMOTE_ADDR" "$(hostname)"\\n' \
>/tmp/www/cgi-bin/who
chmod 755 /tmp/www/cgi-bin/who
exec httpd -f -p {PORT} -h /tmp/www
"""

OFTEN = 'n=$1; while [ $n -gt 0 ]; do timeout 10 wget -qO- "$2" || exit; n=$((n - 1)); done'
"""Fetch the second argument as often as the first says; busybox's own time-out is not to be used:
Debian's crashes of it."""

SEEN = re.compile(r"(\d+\.\d+\.\d+\.\d+)\]?(?::\d+)? (\S+)")


@dataclass(frozen=True, slots=True)
class WebPod:
    """A pod that serves."""

    name: str
    node: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server answered: whom it saw, and who it is."""

    source: IPv4Address
    server: str


class Ground:
    """The namespace with what is in it; *cidrs* are those that pods' addresses must be of."""

    def __init__(
        self, api: Api, image: str, cidrs: Sequence[IPv4Network] = (), most_nodes: int = 4
    ) -> None:
        self.api, self.image, self.cidrs = api, image, tuple(cidrs)
        self.namespace = f"enid-verify-{secrets.token_hex(3)}"
        ready = [node for node in api.nodes() if is_true(node, "Ready")]
        usable = [node for node in ready if not node["spec"].get("unschedulable")]
        self.nodes: Mapping[str, Any] = {n["metadata"]["name"]: n for n in usable[:most_nodes]}

    # Life --------------------------------------------------------------------------------
    def furnish(self) -> None:
        """Create the namespace, pods and Services, and wait until all pods are ready."""
        self.api.create({"kind": "Namespace", "metadata": {"name": self.namespace}})
        for name, spec in self._services().items():
            ports = [{"port": 80, "targetPort": PORT}]
            self.create("Service", name, {"selector": WEB, "ports": ports, **spec})
        self.create("Deployment", "web", self._deployment())
        wanted = PODS_ON_NODE * len(self.nodes)
        self.wait(lambda: len(self.web_pods()) == wanted, f"{wanted} pods that are ready")

    def remove(self) -> None:
        """Delete the namespace with all that is in it, and wait until it is gone."""
        self.api.delete({"kind": "Namespace", "metadata": {"name": self.namespace}})
        self.wait(
            lambda: self.namespace not in self._namespaces(), "the namespace's end", GONE_SECONDS
        )

    def _namespaces(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.api.listed("/api/v1/namespaces")]

    def create(self, kind: str, name: str, spec: Mapping[str, Any]) -> Any:
        """Create an object in the namespace."""
        return self.api.create({
            "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })  # fmt: skip

    def _services(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            "web": {},
            "web-each": {"clusterIP": "None"},
            "web-port": {"type": "NodePort"},
            "web-local": {"type": "NodePort", "externalTrafficPolicy": "Local"},
        }

    def _deployment(self) -> Mapping[str, Any]:
        probe = {"httpGet": {"path": "/cgi-bin/who", "port": PORT}, "periodSeconds": 2}
        spread = {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": WEB},
        }  # fmt: skip
        return {
            "replicas": PODS_ON_NODE * len(self.nodes),
            "selector": {"matchLabels": WEB},
            "template": {
                "metadata": {"labels": WEB},
                "spec": {
                    "containers": [{
                        **self.container(),
                        "command": ["sh", "-c", SCRIPT],
                        "readinessProbe": probe, "livenessProbe": {**probe, "failureThreshold": 5},
                    }],
                    "topologySpreadConstraints": [spread],
                    "affinity": {"nodeAffinity": _only_on(list(self.nodes))},
                    "terminationGracePeriodSeconds": 1,
                },
            },
        }  # fmt: skip

    def container(self) -> Mapping[str, Any]:
        """Return what every container of ours has."""
        return {
            "name": "main", "image": self.image, "imagePullPolicy": "IfNotPresent",
            "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
        }  # fmt: skip

    # What is there -----------------------------------------------------------------------
    def web_pods(self) -> list[WebPod]:
        """Return the serving pods that are ready and not about to end, in the nodes' order."""
        pods = [
            WebPod(
                pod["metadata"]["name"], pod["spec"]["nodeName"],
                IPv4Address(pod["status"]["podIP"]),
            )
            for pod in self.api.pods(self.namespace, "app=web")
            if is_true(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]
        ]  # fmt: skip
        return sorted(pods, key=lambda pod: (pod.node, pod.name))

    def service(self, name: str) -> Any:
        """Return a Service of the namespace."""
        return self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/services/{name}")

    def address_of(self, node: str) -> IPv4Address:
        """Return a node's own address."""
        addresses = self.nodes[node]["status"]["addresses"]
        (found,) = [one["address"] for one in addresses if one["type"] == "InternalIP"]
        return IPv4Address(found)

    # What is done ------------------------------------------------------------------------
    def run(self, pod: str, *argv: str, seconds: float = 20) -> str:
        """Run a program in a pod; return what it printed. Raises FailedError."""
        ended = self.api.run(self.namespace, pod, *argv, seconds=seconds)
        if ended.code:
            said = " ".join(ended.out.split())
            raise FailedError(f"{pod}: {' '.join(argv)}: exit status {ended.code}: {said}")
        return ended.out

    def fetch(self, pod: str, where: object, port: int = PORT) -> Seen:
        """Ask a server from a pod; return its answer. Raises FailedError."""
        return self.fetch_often(1, pod, where, port)[0]

    def fetch_often(self, times: int, pod: str, where: object, port: int = PORT) -> list[Seen]:
        """Ask a server from a pod so often, each time anew; return its answers.

        Raises FailedError if there is not one for each.
        """
        url = f"http://{where}:{port}/cgi-bin/who"
        out = self.run(pod, "sh", "-c", OFTEN, "sh", str(times), url, seconds=20 + times)
        found = [Seen(IPv4Address(source), server) for source, server in SEEN.findall(out)]
        if len(found) != times:
            raise FailedError(f"{pod}: {url} answered {len(found)} of {times} times: {out!r}")
        return found

    def wait(self, question: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
        """Wait until *question* is answered with yes. Raises FailedError, with what pods lack."""
        end = time.monotonic() + seconds
        while not question():
            if time.monotonic() > end:
                raise FailedError(f"{what}: not within {seconds:g} s; {self.lacks()}")
            time.sleep(LOOK_SECONDS)

    def lacks(self) -> str:
        """Say what keeps pods from being ready: the last Warnings, else their states."""
        events = self.api.listed(f"/api/v1/namespaces/{self.namespace}/events")
        said = {one["message"] for one in events if one["type"] == "Warning"}
        return "; ".join(sorted(said)[-3:]) or "no Event says why"


def _only_on(nodes: Sequence[str]) -> Mapping[str, Any]:
    """Return the affinity of pods that may run on these nodes only."""
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
    wanted = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": wanted}


@contextlib.contextmanager
def furnished(ground: Ground) -> Iterator[Ground]:
    """Have the ground furnished; nothing is left of it afterwards."""
    try:
        ground.furnish()
        yield ground
    finally:
        ground.remove()
