"""A node of the cluster: containerd, kubelet and kube-proxy on an instance. Shell.

A kubelet wants the machine for itself. What keeps two of them, and the machine, apart: the node's
own folders and mounts (`vpclab.mounts`), a cgroup of its own in each hierarchy, and values of the
few kernel settings that it would write for the whole machine, which it finds as it wants them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vpclab import cgroups
from vpclab.cluster.control import DNS, DOMAIN, FOLDER, Control
from vpclab.cluster.program import Program, own_folder
from vpclab.containerd import SOCKET, TOOLS, Containerd, Release
from vpclab.node import Node

KERNEL = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}
"""What a kubelet sets of the kernel (pkg/kubelet/cm, setupKernelTunables). It reads before it
writes, and writes nothing where it finds these: on the node, files lie over the kernel's."""

BOOT_ID = "kernel/random/boot_id"
"""By which a kubelet knows that its machine was rebooted, and says so in the Node's status."""

PAUSE = "lab.enid.dev/tools:1"
"""The image of sandboxes, and of the tools in them: busybox."""

RUNC = TOOLS / "runc"
"""Debian's: kubelets have sandboxes under the runtime's default seccomp profile, and the newer one
that tools/build-containerd builds, for user namespaces, knows no seccomp."""

OWN = ("/etc/systemd", "/etc/NetworkManager")
"""What a CNI may write to on a node; the machine's own it could not."""

MOST_FILES = 20_000


@dataclass(frozen=True, slots=True)
class Instance:
    """What EC2 says of a node that Kubernetes is to know."""

    id: str
    type: str
    zone: str
    most_pods: int

    @property
    def provider_id(self) -> str:
        """How AWS's cloud provider names it."""
        return f"aws:///{self.zone}/{self.id}"

    @property
    def labels(self) -> str:
        """What AWS's cloud provider says of it, in labels."""
        return ",".join((
            f"node.kubernetes.io/instance-type={self.type}",
            f"topology.kubernetes.io/region={self.zone[:-1]}",
            f"topology.kubernetes.io/zone={self.zone}",
        ))  # fmt: skip


class Worker:
    """One node with what runs on it."""

    def __init__(
        self, node: Node, instance: Instance, control: Control, release: Release, cgroup: str
    ) -> None:
        self.node, self.instance = node, instance
        log = node.path("/var/log/containerd.log")
        self.containerd = Containerd(node, release, log, PAUSE, cgroup=cgroup, runc=RUNC)
        self.cgroup = self.containerd.cgroup
        self._write(control)
        programs = control.programs[1].argv[0].rpartition("/")[0]
        self.kubelet = Program(
            node,
            [
                f"{programs}/kubelet",
                f"--config={FOLDER}/kubelet.json",
                f"--kubeconfig={FOLDER}/kubelet.conf",
                f"--hostname-override={node.name}",
                f"--node-ip={node.primary}",
                f"--node-labels={instance.labels}",
            ],
        )
        self.proxy = Program(node, [f"{programs}/kube-proxy", f"--config={FOLDER}/kube-proxy.json"])

    @property
    def name(self) -> str:
        """Its name, in EC2's tag and in Kubernetes."""
        return self.node.name

    def _write(self, control: Control) -> None:
        """Write who the node is, and how its programs are set."""
        authority, name = control.authority, self.node.name
        for path in OWN:
            own_folder(self.node, path)
        folder = own_folder(self.node, FOLDER)
        (folder / "ca.crt").write_bytes(authority.pair.certificate)
        authority.issue(f"system:node:{name}", ["system:nodes"], [name, self.node.primary]).write(
            folder, "kubelet"
        )
        users = {
            "kubelet": authority.kubeconfig(control.url, f"system:node:{name}", ["system:nodes"]),
            "kube-proxy": authority.kubeconfig(control.url, "system:kube-proxy"),
        }
        for user, text in users.items():
            (folder / f"{user}.conf").write_text(text)
        for program, settings in (("kubelet", self._kubelet()), ("kube-proxy", self._proxy())):
            (folder / f"{program}.json").write_text(json.dumps(settings, indent=1))

    def _kubelet(self) -> dict[str, Any]:
        return {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "authentication": {
                "anonymous": {"enabled": False}, "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{FOLDER}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{FOLDER}/kubelet.crt", "tlsPrivateKeyFile": f"{FOLDER}/kubelet.key",
            "clusterDNS": [str(DNS)], "clusterDomain": DOMAIN,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "providerID": self.instance.provider_id, "maxPods": self.instance.most_pods,
            # There is no systemd, and root has no CAP_SYS_RESOURCE.
            "cgroupDriver": "cgroupfs", "cgroupRoot": self.cgroup, "failCgroupV1": False,
            "oomScoreAdj": 0, "maxOpenFiles": MOST_FILES,
            # The disk is the machine's: however full it is, no pod has to go for it.
            "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "failSwapOn": False,
        }  # fmt: skip

    def _proxy(self) -> dict[str, Any]:
        return {
            "kind": "KubeProxyConfiguration", "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "clientConnection": {"kubeconfig": f"{FOLDER}/kube-proxy.conf"},
            "mode": "iptables",  # EKS' own choice
            "hostnameOverride": self.node.name,
            # The number of connections is the machine's: a namespace may not set it.
            "conntrack": {"maxPerCore": 0},
        }  # fmt: skip

    # Life --------------------------------------------------------------------------------
    @property
    def programs(self) -> tuple[Program, ...]:
        """What runs beside containerd."""
        return self.kubelet, self.proxy

    def boot(self) -> None:
        """Start containerd, and make what a kubelet needs."""
        self.containerd.copy_tools()
        self._start()

    def _start(self) -> None:
        cgroups.make(self.cgroup)  # a kubelet looks for it, and does not make it
        self._cover_kernel()
        self.containerd.start()

    def reboot(self) -> None:
        """Have the machine go down at once, pods and all, and come up again."""
        self.close()
        self.node.reboot()
        self.containerd.configure()
        self._start()
        self.join()

    def join(self) -> None:
        """Start what makes the node one of the cluster."""
        self.kubelet.start()
        self.proxy.start()

    def close(self) -> None:
        """End all, and leave no cgroup."""
        for program in self.programs:
            program.kill()
        self.containerd.close()

    def _cover_kernel(self) -> None:
        folder = self.node.path("/run/kernel")
        folder.mkdir(exist_ok=True)
        for name, value in {**KERNEL, BOOT_ID: self.node.boot_id}.items():
            file = folder / name.replace("/", ".")
            file.write_text(f"{value}\n")
            self.node.run(["mount", "--bind", f"/run/kernel/{file.name}", f"/proc/sys/{name}"])
