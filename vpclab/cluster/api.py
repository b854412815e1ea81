"""A cluster's API server as a kubeconfig reaches it: JSON, and programs in pods. Shell.

What `kubectl` does in a dozen lines, by the Python client: any cluster that a kubeconfig names will
do, and no other program is needed.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import ws_client

ANSWER_SECONDS = 30.0
HANDSHAKE = re.compile(r"Handshake status (\d+)")
"""What the client says of an exec that is refused; the status of its own error is 0 then."""

KINDS: Mapping[str, str] = {
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ENIConfig": "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs",
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
}
"""Where objects of a kind are, in a namespace."""

Object = Mapping[str, Any]


class ApiError(Exception):
    """The API server refused, or did not answer; its own words."""

    id = "LAB-API"

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program in a pod gave."""

    code: int
    out: str


class Api:
    """The API server that a kubeconfig names; None is the one that kubectl would take."""

    def __init__(self, kubeconfig: Path | None = None, context: str = "") -> None:
        path = None if kubeconfig is None else str(kubeconfig)
        self._client: Any = config.new_client_from_config(path, context or None)
        # Another client for what is asked in pods, whose requests are websockets once and for all:
        # the package's own way swaps that per call, under the feet of other threads.
        talking = client.ApiClient(self._client.configuration)
        talking.request = functools.partial(ws_client.websocket_call, self._client.configuration)
        self._core: Any = client.CoreV1Api(talking)

    @property
    def host(self) -> str:
        """Its address."""
        return str(self._client.configuration.host)

    def close(self) -> None:
        """Hang up."""
        self._client.rest_client.pool_manager.clear()
        self._client.close()

    # Objects -----------------------------------------------------------------------------
    def ask(self, method: str, path: str, body: object = None, kind: str = "json") -> Any:
        """Make one request; return what it answered: an object, or text. Raises ApiError."""
        headers = {"Content-Type": f"application/{kind}", "Accept": "application/json"}
        settings = self._client.configuration
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        try:
            response = self._client.rest_client.pool_manager.request(
                method, f"{settings.host}{path}", headers=headers,
                body=None if body is None else json.dumps(body).encode(),
                timeout=urllib3.Timeout(total=ANSWER_SECONDS), retries=False,
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"{method} {path}: {error}") from error
        text = response.data.decode()
        if response.status >= 300:  # noqa: PLR2004 - HTTP: no success
            raise ApiError(f"{method} {path}: {response.status} {text}", response.status)
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        return json.loads(text) if is_json else text

    def create(self, thing: Object) -> Any:
        """Create an object of the kinds above."""
        return self.ask("POST", folder_of(thing), thing)

    def delete(self, thing: Object) -> None:
        """Delete an object, and what it owns; one that is not there is deleted."""
        path = f"{folder_of(thing)}/{thing['metadata']['name']}"
        try:
            self.ask("DELETE", f"{path}?propagationPolicy=Background")
        except ApiError as error:
            if error.status != 404:  # noqa: PLR2004 - HTTP: not found
                raise

    def listed(self, path: str) -> list[Any]:
        """Return the objects of a path."""
        items: list[Any] = self.ask("GET", path)["items"]
        return items

    def pods(self, namespace: str, label: str = "") -> list[Any]:
        """Return a namespace's pods; with a *label*, those with it ("app=web")."""
        query = f"?labelSelector={label.replace('=', '%3D')}" if label else ""
        return self.listed(f"/api/v1/namespaces/{namespace}/pods{query}")

    def nodes(self) -> list[Any]:
        """Return the nodes."""
        return self.listed("/api/v1/nodes")

    # Pods --------------------------------------------------------------------------------
    def run(self, namespace: str, pod: str, *argv: str, seconds: float = 20) -> Ended:
        """Run a program in a pod's first container. Raises ApiError."""
        try:
            with warnings.catch_warnings():  # the client's own
                warnings.simplefilter("ignore")
                answer = self._core.connect_get_namespaced_pod_exec(
                    pod, namespace, command=list(argv), stdin=False, stdout=True, stderr=True,
                    tty=False, _preload_content=False, _request_timeout=ANSWER_SECONDS,
                )  # fmt: skip
                try:
                    answer.run_forever(timeout=seconds)
                    return ended(answer, argv, seconds)
                finally:
                    answer.sock.shutdown()  # at once: close() waits for the server's good-bye
        except (ApiException, OSError) as error:
            # The client takes it for a failure of its own.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise ApiError(f"{pod}: {' '.join(argv)}: {error}", refused(error)) from error

    def logs(self, namespace: str, pod: str, container: str = "") -> str:
        """Return what a pod has said."""
        query = f"?container={container}" if container else ""
        return str(self.ask("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log{query}"))


def refused(error: Exception) -> int:
    """Return the status by which an exec was refused, 0 where nobody answered."""
    found = HANDSHAKE.search(str(error))
    return int(found[1]) if found else int(getattr(error, "status", 0) or 0)


def ended(answer: Any, argv: Sequence[str], seconds: float) -> Ended:
    """Return what the client's *answer* says of a program's end. Raises ApiError: it never ran."""
    if answer.is_open():
        return Ended(124, f"{answer.read_all()}\n{' '.join(argv)} did not end within {seconds:g} s")
    try:
        code = int(answer.returncode)  # before what it printed, which takes the status along
    except ValueError as error:  # where an exit status would be there is a sentence
        raise ApiError(f"{' '.join(argv)}: {error}") from error
    return Ended(code, answer.read_all())


def folder_of(thing: Object) -> str:
    """Return where an object is created. Raises KeyError for another kind than those above."""
    return KINDS[thing["kind"]].format(thing["metadata"].get("namespace", "default"))


def is_true(thing: Object, condition: str) -> bool:
    """Return whether an object's status has a *condition* that is true."""
    found = thing.get("status", {}).get("conditions", ())
    return any(one["type"] == condition and one["status"] == "True" for one in found)
