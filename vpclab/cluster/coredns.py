"""CoreDNS as EKS' add-on has it: a Deployment of two behind the Service `kube-dns`. Pure.

The lab's VPC has no resolver: of names outside of the cluster only those of one zone are asked for,
if there is somebody who knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

IMAGE = "lab.enid.dev/coredns:1"
SPACE = "kube-system"
NAME = "coredns"
LABELS = {"k8s-app": "kube-dns"}

COREFILE = """\
.:53 {
    errors
    health
    kubernetes cluster.local in-addr.arpa ip6.arpa {
      pods insecure
      fallthrough in-addr.arpa ip6.arpa
    }
    prometheus :9153
    cache 30
    loop
    reload
    loadbalance
    ready
}
"""

FORWARDED = """\
{zone}:53 {{
    errors
    cache 30
    forward . {resolver}
}}
"""

Objects = Sequence[Mapping[str, Any]]


def objects(address: str, others: Mapping[str, str] | None = None) -> Objects:
    """Return what there is to be created.

    *address* is the Service's; *others* are the resolvers of zones outside of the cluster.
    """
    servers = [FORWARDED.format(zone=z, resolver=r) for z, r in (others or {}).items()]
    named = {"name": NAME, "namespace": SPACE}
    file = {"Corefile": "".join([COREFILE, *servers])}
    return (
        {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": named},
        _role(),
        _binding(),
        {"kind": "ConfigMap", "apiVersion": "v1", "metadata": named, "data": file},
        _service(address),
        _deployment(),
    )  # fmt: skip


def _role() -> Mapping[str, Any]:
    looks = ["list", "watch"]
    names = ["endpoints", "services", "pods", "namespaces"]
    return {
        "kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": NAME},
        "rules": [
            {"apiGroups": [""], "resources": names, "verbs": looks},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": looks},
        ],
    }  # fmt: skip


def _binding() -> Mapping[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "kind": "ClusterRoleBinding", "apiVersion": f"{group}/v1", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": SPACE}],
    }  # fmt: skip


def _service(address: str) -> Mapping[str, Any]:
    ports = [{"name": f"dns-{p.lower()}", "port": 53, "protocol": p} for p in ("UDP", "TCP")]
    return {
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "kube-dns", "namespace": SPACE, "labels": LABELS},
        "spec": {"clusterIP": address, "selector": LABELS, "ports": ports},
    }  # fmt: skip


def _deployment() -> Mapping[str, Any]:
    container = {
        "name": NAME, "image": IMAGE, "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 60},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "10m", "memory": "30Mi"}},
    }  # fmt: skip
    return {
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": NAME, "namespace": SPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {
                    "serviceAccountName": NAME,
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-cluster-critical",
                    "containers": [container],
                    "volumes": [{"name": "config", "configMap": {"name": NAME}}],
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": LABELS},
                    }],
                },
            },
        },
    }  # fmt: skip
