"""A kubelet's side of the CRI: what the tests ask a container runtime for. Shell.

The one importer of grpc (docs/adr/0022). Messages are dicts, whose shapes are in `cri.proto`.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.cri.wire import Message, read_schema

SCHEMA = read_schema((Path(__file__).parent / "cri.proto").read_text())
IMAGE = "test.local/pod:1"
READY, NOT_READY = 0, 1
"""PodSandboxState."""

NODE_NETWORK = 2
"""NamespaceMode NODE: a hostNetwork pod's."""

KUBELET_SECONDS = 240.0
"""How long kubelet waits for a sandbox: twice its runtimeRequestTimeout."""

_uids = itertools.count(1)


class CriError(Exception):
    """The runtime refused; its own words."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(f"{code}: {words}")
        self.code, self.words = code, words


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod that is to be run."""

    name: str
    namespace: str = "default"
    uid: str = field(default_factory=lambda: f"0f3d-{next(_uids)}")
    attempt: int = 0
    ports: Mapping[int, int] = field(default_factory=dict)
    """Ports of the node, and the pod's that they lead to."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    servers: tuple[str, ...] = ()
    """Of names, as its dnsConfig has them."""
    namespaces: Mapping[str, Any] = field(default_factory=dict)
    """NamespaceOption, where it is not the default."""

    @property
    def is_on_host(self) -> bool:
        """Whether it has the node's network."""
        return self.namespaces.get("network") == NODE_NETWORK

    def config(self, cgroup: str) -> Message:
        """Return its PodSandboxConfig."""
        return {
            "metadata": {"name": self.name, "uid": self.uid, "namespace": self.namespace, "attempt": self.attempt},
            # runc cannot name a host that is the node itself
            "hostname": "" if self.is_on_host else self.name,
            "annotations": self.annotations,
            **({"dns_config": {"servers": self.servers}} if self.servers else {}),
            "port_mappings": [
                {"container_port": pod, "host_port": node} for node, pod in self.ports.items()
            ],
            "linux": {
                "cgroup_parent": cgroup,
                "security_context": {"namespace_options": self.namespaces},
            },
        }  # fmt: skip


class Cri:
    """One runtime, by its socket; *cgroup* is the parent of its pods'."""

    def __init__(self, socket: Path, cgroup: str) -> None:
        self.cgroup = cgroup
        self._channel = grpc.insecure_channel(
            f"unix://{socket}",
            options=[("grpc.default_authority", "localhost"), ("grpc.enable_http_proxy", 0)],
        )

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def call(self, name: str, deadline: float = 60, /, **request: object) -> Message:
        """Make one call. Raises CriError."""
        call = SCHEMA.calls[name]
        stub = self._channel.unary_unary(
            call.path,
            request_serializer=functools.partial(SCHEMA.encode, call.request),
            response_deserializer=functools.partial(SCHEMA.decode, call.response),
        )
        try:
            answer: Message = stub(request, timeout=deadline)
        except grpc.RpcError as error:
            # A runtime knows the deadline, too, and may be the first to end the call; nobody else does.
            code = error.code().name.replace("CANCELLED", "DEADLINE_EXCEEDED")
            raise CriError(code, error.details() or "") from None
        return answer

    # Sandboxes ---------------------------------------------------------------------------
    def run(self, pod: PodSpec, timeout: float = KUBELET_SECONDS) -> str:
        """Run a sandbox and return its id."""
        answer = self.call("RunPodSandbox", timeout, config=pod.config(self.cgroup))
        return str(answer["pod_sandbox_id"])

    def stop(self, sandbox: str, timeout: float = 120) -> None:
        """Stop a sandbox; twice is once."""
        self.call("StopPodSandbox", timeout, pod_sandbox_id=sandbox)

    def remove(self, sandbox: str, timeout: float = 120) -> None:
        """Remove a sandbox."""
        self.call("RemovePodSandbox", timeout, pod_sandbox_id=sandbox)

    def sandboxes(self) -> dict[str, Message]:
        """Return the sandboxes that the runtime knows, by id."""
        return {one["id"]: one for one in self.call("ListPodSandbox")["items"]}

    def state(self, sandbox: str) -> int:
        """Return READY or NOT_READY."""
        return int(self.status(sandbox)["status"]["state"])

    def status(self, sandbox: str) -> Message:
        """Return PodSandboxStatus, verbose."""
        return self.call("PodSandboxStatus", pod_sandbox_id=sandbox, verbose=True)

    def address(self, sandbox: str) -> str:
        """Return what kubelet makes a pod's status.podIP."""
        return str(self.status(sandbox)["status"]["network"].get("ip", ""))

    def info(self, sandbox: str) -> Any:
        """Return what the runtime says besides: pid, runtimeSpec, cniResult."""
        return json.loads(self.status(sandbox)["info"]["info"])

    # The runtime -------------------------------------------------------------------------
    def network_ready(self) -> tuple[bool, str]:
        """Return the NetworkReady condition, from which kubelet makes a node NotReady, and why."""
        conditions = self.call("Status")["status"]["conditions"]
        (network,) = [one for one in conditions if one["type"] == "NetworkReady"]
        return bool(network["status"]), str(network["message"])

    def network(self) -> str:
        """Return the network configuration as the runtime has loaded it."""
        return str(self.call("Status", verbose=True)["info"].get("cniconfig", ""))

    def version(self) -> str:
        """Return the runtime's version."""
        return str(self.call("Version")["runtime_version"])

    # Containers --------------------------------------------------------------------------
    def start(self, sandbox: str, pod: PodSpec, *argv: str) -> str:
        """Start a container of the test image in a sandbox, and return its id."""
        config = {
            "metadata": {"name": "main"},
            "image": {"image": IMAGE},
            "command": list(argv) or ["/bin/busybox", "sleep", "86400"],
            "linux": {"security_context": {"namespace_options": pod.namespaces}},
        }
        container = str(
            self.call(
                "CreateContainer",
                pod_sandbox_id=sandbox, config=config, sandbox_config=pod.config(self.cgroup),
            )["container_id"]
        )  # fmt: skip
        self.call("StartContainer", container_id=container)
        return container

    def exec(self, container: str, argv: Sequence[str], timeout: int = 20) -> tuple[int, str]:
        """Run a program in a container; return its status and all it printed."""
        done = self.call(
            "ExecSync", timeout + 5, container_id=container, cmd=list(argv), timeout=timeout
        )
        return int(done["exit_code"]), (done["stdout"] + done["stderr"]).decode()
