"""Where checks are made: a namespace of its own with pods and Services on each node. Shell.

On each node are two pods that serve and one on the host's network; on the first there are a pod
that may change its own addresses and, when a check wants one, as many more pods as it takes until
one has an address of a secondary ENI. All run `agent.py`, which comes with a ConfigMap, so that an
image needs Python and nothing else; they are asked by way of the API server and kubelets, as by
`kubectl exec`, and never by the network that is looked at.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from vpclab.checks import agent
from vpclab.checks.outcome import FailedError, NotApplicableError, require
from vpclab.checks.records import Records
from vpclab.cluster.api import Api, is_true

PORT = 8080
WEB = {"app": "web"}
FILL = {"app": "fill"}
PODS_ON_NODE = 2
LOOK_SECONDS = 0.25
READY_SECONDS = 90.0
GONE_SECONDS = 90.0
FILL_SECONDS = 180.0
"""In which many pods are ready at once, and an ENI is attached for the last of them."""
RECORD_SECONDS = 25.0
"""A NodeNetwork is written at most once in 10 s; this allows for one that was just too late."""

MOST_FILL = 40
"""Pods that are started at most to have one on a secondary ENI."""

SPARE = 2
"""Places for pods that are left alone on a node."""

SIDE_BY_SIDE = 4
"""Pods that are asked at once: an exec is mostly waiting."""

AGENT = ("python3", "-I", "-S", "-B", "/enid/agent.py")
"""How the agent is called. Isolated, without `site`, and nothing is written: it starts in 20 ms."""

BAD_IMAGE = frozenset({
    "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "RunContainerError",
})  # fmt: skip
"""Why a container waits, where its image is to blame. Not ErrImagePull, which may pass; it becomes
ImagePullBackOff if it does not."""

BAD_START = frozenset({"StartError", "ContainerCannotRun"})
"""How a container ended that has no such program."""

Question = Mapping[str, Any]
Answer = Mapping[str, Any]
Address = IPv4Address | IPv6Address


class ImageError(FailedError):
    """Containers do not start of the image that was given: name another with --image."""

    id = "VERIFY-IMAGE"


class NoNodesError(FailedError):
    """No node is ready and may be used, or one that was named is not there."""

    id = "VERIFY-NODES"


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
    """The namespace with what is in it; *cidrs* are those that pods' addresses must be of.

    Pods of checks run *agent*, an image with Python; *image* is what `container` gives, which is
    for whoever adds pods of their own.
    """

    ready_seconds = READY_SECONDS

    def __init__(
        self,
        api: Api,
        image: str,
        cidrs: Sequence[IPv4Network] = (),
        most_nodes: int = 4,
        *,
        agent: str = "",
        names: Sequence[str] = (),
    ) -> None:
        self.api, self.image, self.cidrs = api, image, tuple(cidrs)
        self.agent = agent or image
        self.namespace = f"enid-verify-{secrets.token_hex(3)}"
        found = [node for node in api.nodes() if is_true(node, "Ready")]
        chosen = named(found, names) if names else [n for n in found if is_usable(n)][:most_nodes]
        self.nodes: Mapping[str, Any] = {node["metadata"]["name"]: node for node in chosen}
        self.records = Records(api)
        # Who names a node means it, whatever keeps pods of others away.
        self._tolerations = [{"operator": "Exists"}] if names else []
        self._ports: dict[str, int] = {}
        self.began = time.time()
        self.restarts = self.records.restarts()

    # Life --------------------------------------------------------------------------------
    def furnish(self) -> None:
        """Create the namespace, pods and Services, and wait until all pods are ready.

        Raises FailedError; ImageError and NoNodesError, if nothing can be said of the cluster.
        """
        if not self.nodes:
            raise NoNodesError("no node is ready and may be given pods: `kubectl get nodes`")
        labels = {"pod-security.kubernetes.io/enforce": "privileged"}
        self.api.create(
            {"kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        )
        source = Path(agent.__file__).read_text(encoding="utf-8")
        self.api.create({
            "kind": "ConfigMap", "metadata": {"name": "agent", "namespace": self.namespace},
            "data": {"agent.py": source},
        })  # fmt: skip
        for name, spec in self._services().items():
            ports = [
                {"name": protocol.lower(), "port": 80, "targetPort": PORT, "protocol": protocol}
                for protocol in ("TCP", "UDP")
            ]
            self.create("Service", name, {"selector": WEB, "ports": ports, **spec})
        self.create("Deployment", "web", self._deployment())
        for node in self.nodes:
            self.create("Pod", host_name(self, node), self._host(node))
        self.create("Pod", "guest", self.pod_spec(self.first, capabilities=["NET_ADMIN"]))
        wanted = len(self.nodes) * (PODS_ON_NODE + 1) + 1
        self.wait(lambda: len(self.ready()) == wanted, f"{wanted} pods that are ready")
        self.port("guest")  # whether pods can be asked

    def remove(self) -> None:
        """Delete the namespace with all that is in it, and wait until it is gone."""
        self.api.delete({"kind": "Namespace", "metadata": {"name": self.namespace}})
        self.wait_gone(lambda: self.namespace not in self._namespaces(), "the namespace's end")

    def _namespaces(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.api.listed("/api/v1/namespaces")]

    def create(self, kind: str, name: str, spec: Mapping[str, Any]) -> Any:
        """Create an object in the namespace."""
        return self.api.create({
            "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        })  # fmt: skip

    def delete(self, kind: str, name: str) -> None:
        """Delete an object of the namespace."""
        self.api.delete({"kind": kind, "metadata": {"name": name, "namespace": self.namespace}})

    def _services(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            "web": {},
            "web-each": {"clusterIP": "None"},
            "web-port": {"type": "NodePort"},
            "web-local": {"type": "NodePort", "externalTrafficPolicy": "Local"},
            "web-same": {"sessionAffinity": "ClientIP"},
            "nobody": {"selector": {"app": "nobody"}},
        }

    def _deployment(self) -> Mapping[str, Any]:
        probe = {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 2}
        spread = {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": WEB},
        }  # fmt: skip
        alive = {**probe, "failureThreshold": 5}
        spec = {
            **self.pod_spec("", readinessProbe=probe, livenessProbe=alive),
            "topologySpreadConstraints": [spread],
            "affinity": {"nodeAffinity": _only_on(list(self.nodes))},
        }
        return {
            "replicas": PODS_ON_NODE * len(self.nodes),
            "selector": {"matchLabels": WEB},
            "template": {"metadata": {"labels": WEB}, "spec": spec},
        }

    def _host(self, node: str) -> Mapping[str, Any]:
        """Return a pod on the host's network that sees how the runtime is told of its CNI."""
        own = internal(self.nodes[node])
        spec = self.pod_spec(node, words=("serve", "0", own), path="/etc/cni/net.d")
        return {**spec, "hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}

    def pod_spec(
        self,
        node: str,
        *,
        words: Sequence[str] = ("serve", str(PORT)),
        capabilities: Sequence[str] = (),
        path: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """Return what is common to pods with an agent; *more* is of its container."""
        volumes: list[Any] = [{"name": "agent", "configMap": {"name": "agent"}}]
        mounts = [{"name": "agent", "mountPath": "/enid"}]
        if path:
            volumes.append({"name": "host", "hostPath": {"path": path}})
            mounts.append({"name": "host", "mountPath": "/host"})
        me = {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        container = {
            **self.container(), "image": self.agent, "command": [*AGENT, *words],
            "securityContext": {"runAsUser": 0, "capabilities": {"add": list(capabilities)}},
            "env": [me], "volumeMounts": mounts, **more,
        }  # fmt: skip
        return {
            **({"nodeName": node} if node else {}),
            "containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 3,
            "automountServiceAccountToken": False, "tolerations": self._tolerations,
        }  # fmt: skip

    def container(self) -> Mapping[str, Any]:
        """Return what every container has."""
        return {
            "name": "main", "image": self.image, "imagePullPolicy": "IfNotPresent",
            "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
        }  # fmt: skip

    # Pods on secondary ENIs --------------------------------------------------------------
    def secondary(self) -> WebPod:
        """Return a pod whose address is of a secondary ENI, by the record of its node.

        Pods are added to the first node for it, if need be. Raises NotApplicableError.
        """
        found = self._secondaries(self.web_pods())
        if not found and not self.pods("app=fill"):
            self._fill()
        found = found or self.on_secondaries()
        if not found:
            raise NotApplicableError(f"no pod came to be on a secondary ENI of {self.first}")
        return found[0]

    def _secondaries(self, pods: Sequence[WebPod]) -> list[WebPod]:
        return [pod for pod in pods if self.records.number(pod.node, pod.address) > 1]

    def on_secondaries(self) -> list[WebPod]:
        """Return the pods that were added and have addresses of secondary ENIs."""
        return self._secondaries(self.fillers())

    def _fill(self) -> None:
        """Fill the primary ENI of the first node with pods."""
        node = self.first
        if not self.records.has(node):
            raise NotApplicableError(f"{node} has no NodeNetwork that says which ENI has what")
        mine = self.records.pods(node)
        addressed = [pod for pod in mine if not pod["spec"].get("hostNetwork")]
        wish = self.records.primary_room(node) - len(addressed) + 1
        free = int(self.nodes[node]["status"]["allocatable"]["pods"]) - len(mine) - SPARE
        if not self.records.secondary_expected(node) or wish > min(free, MOST_FILL):
            raise NotApplicableError(
                f"{node} would need {wish} pods more until one is on a secondary ENI, and"
                f" {min(free, MOST_FILL)} may be started"
            )
        template = {"metadata": {"labels": FILL}, "spec": self.pod_spec(node)}
        spec = {"replicas": max(1, wish), "selector": {"matchLabels": FILL}, "template": template}
        self.create("Deployment", "fill", spec)
        self.wait(
            lambda: len(self.fillers()) == max(1, wish), f"{wish} more pods on {node}", FILL_SECONDS
        )
        end = time.monotonic() + RECORD_SECONDS
        while not self.on_secondaries() and time.monotonic() < end:
            time.sleep(1)

    def fillers(self) -> list[WebPod]:
        """Return the pods that fill the first node."""
        return self._web("app=fill")

    def empty(self) -> None:
        """Take the pods away again that were added for a secondary ENI."""
        self.delete("Deployment", "fill")
        self.wait_gone(lambda: not self.pods("app=fill"), "the end of pods")

    # What is there -----------------------------------------------------------------------
    @property
    def first(self) -> str:
        """The node that has more than others."""
        return next(iter(self.nodes))

    def pods(self, label: str = "") -> list[Any]:
        """Return the namespace's pods."""
        return self.api.pods(self.namespace, label)

    def ready(self, label: str = "") -> list[Any]:
        """Return those pods that are ready."""
        return [pod for pod in self.pods(label) if is_true(pod, "Ready")]

    def web_pods(self) -> list[WebPod]:
        """Return the serving pods that are ready and not about to end, in the nodes' order.

        Raises NotApplicableError, if they have no IPv4 addresses.
        """
        return self._web("app=web")

    def _web(self, label: str) -> list[WebPod]:
        found = []
        for pod in self.pods(label):
            if is_true(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]:
                address = of_version_4(pod["status"]["podIP"])
                found.append(WebPod(pod["metadata"]["name"], pod["spec"]["nodeName"], address))
        return sorted(found, key=lambda pod: (pod.node, pod.name))

    def pair(self) -> tuple[WebPod, WebPod]:
        """Return two pods on different nodes. Raises NotApplicableError."""
        pods = self.web_pods()
        others = [pod for pod in pods if pod.node != pods[0].node]
        if not others:
            raise NotApplicableError("there are no two pods on different nodes")
        return pods[0], others[0]

    def service(self, name: str) -> Any:
        """Return a Service of the namespace."""
        return self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/services/{name}")

    def address_of(self, node: str) -> IPv4Address:
        """Return a node's own address. Raises NotApplicableError, if it is IPv6."""
        return of_version_4(internal(self.nodes[node]))

    def host(self, node: str) -> tuple[str, IPv4Address, int]:
        """Return the pod on a node's own network, the node's address, and the port it serves on."""
        name = host_name(self, node)
        if name not in self._ports:
            self._ports[name] = self.port(name)
        return name, self.address_of(node), self._ports[name]

    def port(self, pod: str) -> int:
        """Return the port that a pod serves on; 0, if it serves none because its address is taken.

        Raises FailedError.
        """
        (answer,) = self.ask(pod, {"do": "port"})
        return int(answer["port"]) if answer["port"].isdigit() else 0

    # What is done ------------------------------------------------------------------------
    def run_pod(self, name: str, spec: Mapping[str, Any]) -> Any:
        """Create a pod and return it when it is ready."""
        self.create("Pod", name, spec)
        self.wait(lambda: is_true(self.pod(name), "Ready"), f"the pod {name}")
        return self.pod(name)

    def pod(self, name: str) -> Any:
        """Return a pod of the namespace."""
        return self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def end_pod(self, name: str) -> None:
        """Delete a pod, and wait until it is gone."""
        self.delete("Pod", name)
        self.wait_gone(
            lambda: name not in [pod["metadata"]["name"] for pod in self.pods()],
            f"the end of the pod {name}",
        )

    def run(self, pod: str, *argv: str, seconds: float = 20) -> str:
        """Run a program in a pod; return what it printed. Raises FailedError."""
        ended = self.api.run(self.namespace, pod, *argv, seconds=seconds)
        if ended.code:
            said = " ".join(ended.out.split())
            raise FailedError(f"{pod}: {' '.join(argv)}: exit status {ended.code}: {said}")
        return ended.out

    def ask(self, pod: str, *questions: Question, seconds: float = 30) -> list[Answer]:
        """Put questions to a pod; return the answers, with "error" where there was none."""
        out = self.run(pod, *AGENT, "ask", json.dumps(questions), seconds=seconds)
        answers: list[Answer] = json.loads(out)
        return answers

    def ask_each(self, pods: Sequence[WebPod], *questions: Question) -> list[list[Answer]]:
        """Put the same questions to several pods side by side; return each one's answers."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return list(pool.map(lambda pod: self.ask(pod.name, *questions), pods))

    def fetch(self, pod: str, where: object, port: int = PORT) -> Seen:
        """Ask a server from a pod; return its answer. Raises FailedError."""
        return self.fetch_often(1, pod, where, port)[0]

    def fetch_often(self, times: int, pod: str, where: object, port: int = PORT) -> list[Seen]:
        """Ask a server from a pod so often, each time anew; return its answers.

        Raises FailedError if there is not one for each.
        """
        question = {"do": "http", "to": str(where), "port": port, "times": times}
        (answer,) = self.ask(pod, question, seconds=20 + times)
        what = f"{pod}: http://{where}:{port}"
        require("error" not in answer, f"{what}: {answer.get('error')}")
        return [seen_in(text, what) for text in answer["texts"]]

    def fetch_all(self, pod: str, targets: Sequence[tuple[object, int]]) -> list[Seen]:
        """Ask several servers from a pod. Raises FailedError, if one does not answer."""
        questions = [{"do": "http", "to": str(where), "port": port} for where, port in targets]
        found = []
        for (where, port), answer in zip(targets, self.ask(pod, *questions), strict=True):
            what = f"{pod}: http://{where}:{port}"
            require("error" not in answer, f"{what}: {answer.get('error')}")
            found.append(seen_in(answer["texts"][0], what))
        return found

    def send(self, pod: str, where: object, port: int = PORT, **more: Any) -> Seen:
        """Send a datagram from a pod; return what is answered. Raises FailedError."""
        (answer,) = self.ask(pod, {"do": "udp", "to": str(where), "port": port, **more})
        what = f"{pod}: UDP to {where}:{port}"
        require("error" not in answer, f"{what}: {answer.get('error')}")
        return seen_in(answer["text"], what)

    def wait(self, question: Callable[[], bool], what: str, seconds: float | None = None) -> None:
        """Wait until *question* is answered with yes. Raises FailedError, with what pods lack."""
        seconds = self.ready_seconds if seconds is None else seconds
        end = time.monotonic() + seconds
        while not question():
            if images := self.bad_images():
                raise ImageError(images)
            if time.monotonic() > end:
                raise FailedError(f"{what}: not within {seconds:g} s; {self.lacks()}")
            time.sleep(LOOK_SECONDS)

    def wait_gone(self, question: Callable[[], bool], what: str) -> None:
        """Wait until something is gone, whatever state pods are in. Raises FailedError."""
        end = time.monotonic() + GONE_SECONDS
        while not question():
            require(time.monotonic() < end, f"{what}: not within {GONE_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)

    def bad_images(self) -> str:
        """Say which container does not start of its image, nothing if all do."""
        for pod in self.pods():
            for status in pod["status"].get("containerStatuses", ()):
                waiting = status["state"].get("waiting", {})
                last = status.get("lastState", {}).get("terminated", {})
                if waiting.get("reason") in BAD_IMAGE or last.get("reason") in BAD_START:
                    said = last.get("message") or waiting.get("message", "")
                    return f"{pod['metadata']['name']}: {waiting.get('reason')}: {said}"
        return ""

    def lacks(self) -> str:
        """Say what keeps pods from being ready: the last Warnings, else their states."""
        events = self.api.listed(f"/api/v1/namespaces/{self.namespace}/events")
        said = {one["message"] for one in events if one["type"] == "Warning"}
        return "; ".join(sorted(said)[-3:]) or "no Event says why"


def internal(node: Any) -> str:
    """Return a node's own address."""
    addresses = node["status"]["addresses"]
    return str(next(one["address"] for one in addresses if one["type"] == "InternalIP"))


def host_name(ground: Ground, node: str) -> str:
    """Return the name of the pod on a node's own network."""
    return f"host-{list(ground.nodes).index(node)}"


def seen_in(text: str, what: str) -> Seen:
    """Return what a server answered. Raises FailedError, if it is not one of ours."""
    words = text.split()
    try:
        return Seen(of_version_4(words[0]), words[1])
    except (ValueError, IndexError):
        raise FailedError(f"{what} answered {text[:80]!r}") from None


def of_version_4(text: str) -> IPv4Address:
    """Return an IPv4 address. Raises NotApplicableError for one of IPv6."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        raise NotApplicableError(f"{address} is IPv6, and this looks at IPv4")
    return address


def named(nodes: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return those of *nodes* with these names. Raises NoNodesError."""
    by_name = {node["metadata"]["name"]: node for node in nodes}
    if missing := [name for name in names if name not in by_name]:
        ready = ", ".join(sorted(by_name)) or "none"
        raise NoNodesError(
            f"no node that is ready has the name {', '.join(missing)}; ready: {ready}"
        )
    return [by_name[name] for name in names]


def is_usable(node: Any) -> bool:
    """Return whether pods of anybody may come to a node."""
    spec, labels = node["spec"], node["metadata"].get("labels", {})
    tainted = [t for t in spec.get("taints", ()) if t["effect"] != "PreferNoSchedule"]
    is_linux = labels.get("kubernetes.io/os", "linux") == "linux"
    return is_linux and not tainted and not spec.get("unschedulable")


def _only_on(nodes: Sequence[str]) -> Mapping[str, Any]:
    """Return the affinity of pods that may run on these nodes only."""
    terms = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        for node in nodes
    ]
    wanted = {"nodeSelectorTerms": terms}
    return {"requiredDuringSchedulingIgnoredDuringExecution": wanted}


@contextlib.contextmanager
def furnished(ground: Ground) -> Iterator[Ground]:
    """Have the ground furnished; nothing is left of it afterwards."""
    try:
        ground.furnish()
        yield ground
    finally:
        ground.remove()
