"""The control plane: etcd, API server, controllers and scheduler on a host of the VPC. Shell.

EKS keeps them in an account of its own and puts ENIs of theirs into the cluster's subnets; here
they are on an instance of the cluster's VPC, which is the same to nodes and pods: an address.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vpclab.cluster.credentials import Authority, account_keys
from vpclab.cluster.program import Program, own_folder, wait_for
from vpclab.node import Node

SERVICES = IPv4Network("172.20.0.0/16")
"""What EKS takes for Services in a VPC of 10.0.0.0/8."""

API, DNS = SERVICES[1], SERVICES[10]
"""The Services' own addresses of the API server and of CoreDNS."""

DOMAIN = "cluster.local"
FOLDER = "/etc/kubernetes"
START_SECONDS = 60.0
ANSWER_SECONDS = 5.0
MASTERS = "system:masters"


class Control:
    """The control plane of one cluster, on one node."""

    def __init__(self, node: Node, programs: Path) -> None:
        self.node, self._programs = node, programs
        self.authority = Authority("enid-lab")
        self.url = f"https://{node.primary}:443"
        self._write()
        self.etcd = self._program(
            "etcd",
            "--data-dir", "/var/lib/etcd",
            "--listen-client-urls", "http://127.0.0.1:2379",
            "--advertise-client-urls", "http://127.0.0.1:2379",
            "--listen-peer-urls", "http://127.0.0.1:2380",
            "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
            "--initial-cluster", "default=http://127.0.0.1:2380",
        )  # fmt: skip
        self.api = self._program("kube-apiserver", *self._api_flags())
        self.controllers = self._program(
            "kube-controller-manager",
            f"--kubeconfig={FOLDER}/controller-manager.conf",
            f"--service-account-private-key-file={FOLDER}/accounts.key",
            f"--root-ca-file={FOLDER}/ca.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",  # there is one
            "--bind-address=127.0.0.1",
        )
        self.scheduler = self._program(
            "kube-scheduler",
            f"--kubeconfig={FOLDER}/scheduler.conf",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )

    def _program(self, name: str, *flags: str) -> Program:
        return Program(self.node, [str(self._programs / name), *flags])

    def _api_flags(self) -> tuple[str, ...]:
        return (
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=443",
            f"--advertise-address={self.node.primary}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            "--enable-aggregator-routing",  # no kube-proxy is on its host; EKS has it so, too
            f"--client-ca-file={FOLDER}/ca.crt",
            f"--tls-cert-file={FOLDER}/apiserver.crt",
            f"--tls-private-key-file={FOLDER}/apiserver.key",
            f"--kubelet-certificate-authority={FOLDER}/ca.crt",
            f"--kubelet-client-certificate={FOLDER}/apiserver-kubelet-client.crt",
            f"--kubelet-client-key={FOLDER}/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={FOLDER}/front.crt",
            f"--proxy-client-cert-file={FOLDER}/front-client.crt",
            f"--proxy-client-key-file={FOLDER}/front-client.key",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={FOLDER}/accounts.crt",
            f"--service-account-signing-key-file={FOLDER}/accounts.key",
        )

    def _write(self) -> None:
        """Write who is who."""
        folder = own_folder(self.node, FOLDER)
        front = Authority("enid-lab-front")
        hosts = (
            "kubernetes", "kubernetes.default", "kubernetes.default.svc",
            f"kubernetes.default.svc.{DOMAIN}", "localhost", API, self.node.primary,
            IPv4Address("127.0.0.1"),
        )  # fmt: skip
        self.authority.pair.write(folder, "ca")
        self.authority.issue("kube-apiserver", hosts=hosts).write(folder, "apiserver")
        self.authority.issue("kube-apiserver-kubelet-client", [MASTERS]).write(
            folder, "apiserver-kubelet-client"
        )
        front.pair.write(folder, "front")
        front.issue("front-proxy-client").write(folder, "front-client")
        account_keys().write(folder, "accounts")
        for name in ("controller-manager", "scheduler"):
            text = self.authority.kubeconfig(self.url, f"system:kube-{name}")
            (folder / f"{name}.conf").write_text(text)

    def kubeconfig(self, server: str) -> str:
        """Return an administrator's kubeconfig for whoever reaches the API server at *server*."""
        return self.authority.kubeconfig(server, "admin", [MASTERS])

    # Life --------------------------------------------------------------------------------
    @property
    def programs(self) -> tuple[Program, ...]:
        """What runs."""
        return self.etcd, self.api, self.controllers, self.scheduler

    def start(self) -> None:
        """Start all, and wait until the API server is ready. Raises ClusterError."""
        self.etcd.start()
        self.api.start()
        wait_for(self.is_ready, "the API server", START_SECONDS, self.etcd, self.api)
        self.controllers.start()
        self.scheduler.start()

    def is_ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        context = ssl.create_default_context(cadata=self.authority.pair.certificate.decode())
        with (
            contextlib.suppress(OSError),
            self.connect() as sock,
            context.wrap_socket(sock, server_hostname=str(self.node.primary)) as tls,
        ):
            tls.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in tls.recv(64)
        return False

    def connect(self) -> socket.socket:
        """Return a connection to the API server. Raises OSError."""
        sock = self.node.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect((str(self.node.primary), 443))
        except OSError:
            sock.close()
            raise
        return sock
