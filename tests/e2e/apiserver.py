"""A real kube-apiserver with etcd on loopback. Shell.

`tools/build-kubernetes` puts both programs into the cache. TLS is the server's own, made at its
first start; people come by tokens of a file, the daemon by a service account's.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ipamd.election import Terms
from ipamd.node_network import RECORDS
from tests.contract.kube_suite import poll

ROOT = Path(__file__).parents[2]
ADMIN = "admin-token"
ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts"
PODS = "/api/v1/namespaces/kube-system/pods"
SECRETS = "/api/v1/namespaces/kube-system/secrets"
ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/enid"
ENI_CONFIGS = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs"

NODE_NETWORKS = ROOT / "config" / "chart" / "crds" / "nodenetworks.yaml"

CRD: Mapping[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "eniconfigs.crd.k8s.amazonaws.com"},
    "spec": {
        "scope": "Cluster",
        "group": "crd.k8s.amazonaws.com",
        "names": {"plural": "eniconfigs", "singular": "eniconfig", "kind": "ENIConfig"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}
"""As the peer installs it: anything may stand in it."""


def programs() -> Path | None:
    """Return the folder with the newest kube-apiserver and its etcd, None if there is none."""
    found = sorted((ROOT / ".cache" / "kubernetes").glob("*/kube-apiserver"))
    return found[-1].parent if found and (found[-1].parent / "etcd").exists() else None


def documented() -> list[Any]:
    """Return what docs/kubernetes.md says that the account must be allowed, for all features."""
    blocks = (ROOT / "docs" / "kubernetes.md").read_text().split("```yaml\n")[1:]
    objects, *rules = (block.split("```")[0] for block in blocks)
    role, *others = yaml.safe_load_all(objects)
    more = [rule for text in rules for rule in yaml.safe_load(text)]
    return [{**role, "rules": [*role["rules"], *more]}, *others]


def free_port() -> int:
    """Return a TCP port that nobody has now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class ApiServer:
    """One API server; `ask` is the administrator's way to it."""

    terms = Terms(lease_seconds=3, deadline_seconds=2.0, renew_seconds=0.5, stand_by_seconds=0.5)

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.port, self.etcd_port, self.peer_port = free_port(), free_port(), free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._write_keys()

    def _write_keys(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key = self.folder / "accounts.key"
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        (self.folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')

    @property
    def ca(self) -> Path:
        """The certificate that the server made for itself."""
        return self.folder / "tls" / "apiserver.crt"

    # Life --------------------------------------------------------------------------------
    def start(self) -> None:
        """Start what does not run, and wait until the server is ready."""
        if "etcd" not in self._processes:
            client, peer = (f"http://127.0.0.1:{port}" for port in (self.etcd_port, self.peer_port))
            self._start(
                "etcd", "--data-dir", str(self.folder / "etcd"),
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"default={peer}",
            )  # fmt: skip
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'tls'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.key}",
            f"--service-account-signing-key-file={self.key}",
            "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
            "--disable-admission-plugins=ServiceAccount",
            "--v=1",
        )  # fmt: skip
        poll(self._is_ready, f"an API server; see {self.folder}/kube-apiserver.log")

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self.programs / name, *arguments], stdout=log, stderr=log
            )

    def _is_ready(self) -> bool:
        assert self._processes["kube-apiserver"].poll() is None, "kube-apiserver has ended"
        with contextlib.suppress(AssertionError, urllib3.exceptions.HTTPError, OSError):
            self.pool = urllib3.PoolManager(ca_certs=str(self.ca), retries=False)
            self.ask("GET", "/readyz")
            self.ask("GET", "/api/v1/namespaces/kube-system")
            return True
        return False

    def kill(self, name: str = "kube-apiserver") -> None:
        """End a program at once, as a lost machine does."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End all."""
        for name in tuple(self._processes):
            self.kill(name)
        self.pool.clear()

    def compact(self) -> None:
        """Let etcd forget all history, and the server's cache with it, as it starts anew."""
        url = f"http://127.0.0.1:{self.etcd_port}/v3/kv"
        with urllib3.PoolManager(retries=False) as etcd:
            header = etcd.request("POST", f"{url}/range", json={"key": "AA=="}).json()["header"]
            done = etcd.request(
                "POST", f"{url}/compaction", json={"revision": header["revision"], "physical": True}
            )
        assert done.status == 200, done.data
        self.kill()
        self.start()

    # Objects -----------------------------------------------------------------------------
    def ask(self, method: str, path: str, body: object = None, kind: str = "json") -> Any:
        """Do something as the administrator."""
        response = self.pool.request(
            method,
            f"https://127.0.0.1:{self.port}{path}",
            body=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {ADMIN}",
                "Content-Type": f"application/{kind}",
            },
            timeout=urllib3.Timeout(connect=2, read=10),
        )
        text = response.data.decode()
        assert response.status < 300, f"{method} {path}: {response.status} {text}"
        return json.loads(text) if text.startswith("{") else text

    def patch(self, path: str, body: object) -> None:
        """Merge *body* into an object."""
        self.ask("PATCH", path, body, "merge-patch+json")

    def install(self) -> None:
        """Install the ENIConfig CRD, the service account and the rights that the docs list."""
        self.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
        poll(lambda: self._serves(ENI_CONFIGS), "the ENIConfig API")
        self.install_records(installed=True)
        self.ask("POST", ACCOUNT, {"metadata": {"name": "enid"}})
        for found in documented():
            space = found["metadata"].get("namespace")
            folder = f"/namespaces/{space}" if space else ""
            path = f"/apis/rbac.authorization.k8s.io/v1{folder}/{found['kind'].lower()}s"
            self.ask("POST", path, found)

    def install_records(self, *, installed: bool) -> None:
        """Know NodeNetworks, or no longer, and then there are none."""
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        if installed:
            crd = yaml.safe_load(NODE_NETWORKS.read_text())
            self.ask("POST", f"{crds}?fieldValidation=Strict", crd)
        else:
            self.ask("DELETE", f"{crds}/nodenetworks.enid.dev")
        poll(lambda: self._serves(RECORDS) == installed, "the NodeNetwork API, or its end")

    def _serves(self, path: str) -> bool:
        with contextlib.suppress(AssertionError):
            self.ask("GET", path)
            return True
        return False

    def add_node(self, name: str) -> None:
        """Register a node, as kubelet does, with room for 29 pods."""
        self.ask("POST", "/api/v1/nodes", {"metadata": {"name": name}})
        self.patch(f"/api/v1/nodes/{name}/status", {"status": {"capacity": {"pods": "29"}}})

    def add_pod(self, name: str, node: str, *, host_network: bool = False) -> Any:
        """Create a pod that is bound already; return it."""
        return self.ask(
            "POST",
            PODS,
            {
                "metadata": {"name": name},
                "spec": {
                    "nodeName": node,
                    "hostNetwork": host_network,
                    "containers": [{"name": "main", "image": "pause"}],
                },
            },
        )

    def end_pod(self, name: str, phase: str) -> None:
        """Say that a pod's containers have ended, as kubelet does."""
        self.patch(f"{PODS}/{name}/status", {"status": {"phase": phase}})

    def delete_pod(self, name: str) -> None:
        """Delete a pod; nobody is there to be gentle to."""
        self.ask("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})

    def allow(self, resource: str, *, allowed: bool) -> None:
        """Let the daemon's account do what the rule of *resource* alone says, or no longer."""
        (role, *_) = documented()
        rights = [rule for rule in role["rules"] if rule["resources"] == [resource]]
        assert rights, f"docs/kubernetes.md has no rule of {resource} alone"
        rules = self.ask("GET", ROLE)["rules"]
        others = [rule for rule in rules if rule["resources"] != [resource]]
        self.patch(ROLE, {"rules": [*others, *rights] if allowed else others})

    def new_token(self, name: str) -> str:
        """Return a token of the daemon's account that holds until `revoke`."""
        secret = self.ask("POST", SECRETS, {"metadata": {"name": name}})
        uid = secret["metadata"]["uid"]
        bound = {"kind": "Secret", "apiVersion": "v1", "name": name, "uid": uid}
        wish = {"spec": {"boundObjectRef": bound, "expirationSeconds": 3600, "audiences": []}}
        answer = self.ask("POST", f"{ACCOUNT}/enid/token", wish)
        return str(answer["status"]["token"])

    def revoke(self, name: str) -> None:
        """End a token."""
        self.ask("DELETE", f"{SECRETS}/{name}")
