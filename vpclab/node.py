"""A node of the VPC: an instance with namespaces and folders of its own. Shell.

Network, mount and UTS namespaces are held by one sleeping process, the node's init. Each
node sees its own /run, /var/lib, /etc and /opt: a daemon and a plugin use their production
paths, and two nodes never meet. /etc and /opt show the host's entries by links.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from cni.dataplane import NODE_SYSCTLS
from vpclab.fabric import ENDPOINT, MTU, Wanted
from vpclab.netns import Worker

INIT = r"""
set -e
view() {
  mkdir -p "$2/.host"; mount --rbind "$1" "$2/.host"
  for entry in $(ls -A "$1"); do
    [ -e "$2/$entry" ] || ln -s ".host/$entry" "$2/$entry"
  done
  mount --rbind "$2" "$1"
}
mount --make-rprivate /
view /etc "$1/etc"
view /opt "$1/opt"
mount --rbind "$1/lib" /var/lib
mount --rbind "$1/run" /run
hostname "$2"
echo ready
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a process may: these capabilities and no other, and nothing to write but its own."""

    capabilities: tuple[str, ...] = ("net_admin",)
    read_only: bool = True
    writable: tuple[str, ...] = ("/run/enid", "/var/lib/enid")


class PodNetns:
    """A pod's network namespace, as a runtime makes it on a node."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name, self.path = node, name, f"/run/netns/{name}"
        node.run(["ip", "netns", "add", name])
        self.fd = os.open(node.path(self.path, inside=True), os.O_RDONLY | os.O_CLOEXEC)
        self._worker = Worker(name[:15], self.fd)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives in the pod."""
        return self._worker.socket(family, kind, protocol)

    def run(self, argv: Sequence[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in the pod."""
        return self.node.run(["nsenter", f"--net={self.path}", *argv], **keywords)

    def close(self) -> None:
        """Remove the namespace."""
        self._worker.close()
        os.close(self.fd)
        self.node.run(["ip", "netns", "del", self.name], check=False)


class Node:
    """One node; made by `EmbeddedVPC.launch_node`."""

    def __init__(self, name: str, instance_id: str, primary: IPv4Address, folder: Path) -> None:
        self.name, self.instance_id, self.primary, self.folder = name, instance_id, primary, folder
        for part in ("run/netns", "run/lock", "lib", "etc/cni/net.d", "opt/cni/bin"):
            (folder / part).mkdir(parents=True)
        self.worker = Worker(name[:15])
        self._init = subprocess.Popen(
            ["unshare", "--mount", "--uts", "sh", "-c", INIT, "init", str(folder), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes: list[subprocess.Popen[Any]] = []
        assert self._init.stdout is not None  # noqa: S101 - a pipe, just above
        if self._init.stdout.readline() != "ready\n":
            raise RuntimeError(f"the namespaces of {name} could not be made")
        self.worker.write_sysctls(dict(NODE_SYSCTLS))
        self.worker.call(_raise_lo)

    @property
    def env(self) -> dict[str, str]:
        """The environment of the node's processes."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": path,
            "NODE_NAME": self.name,
            "AWS_ENDPOINT_URL_EC2": f"http://{ENDPOINT}",
        }

    @property
    def fd(self) -> int:
        """Its network namespace."""
        return self.worker.fd

    def path(self, path: str, *, inside: bool = False) -> Path:
        """Return where the box sees a path of the node.

        *inside* goes through the node's own mounts, which a bind mounted netns needs.
        """
        if inside:
            return Path(f"/proc/{self._init.pid}/root{path}")
        for prefix, part in (
            ("/run", "run"), ("/var/lib", "lib"), ("/etc", "etc"), ("/opt", "opt"),
        ):  # fmt: skip
            if path == prefix or path.startswith(prefix + "/"):
                return self.folder / part / path[len(prefix) + 1 :]
        return Path(path)

    def start_by_dhcp(self, wanted: Wanted, prefix_length: int) -> None:
        """Configure the primary ENI, as DHCP does at boot."""
        self.worker.call(_dhcp, wanted, self.primary, prefix_length)

    def _enter(self, rights: Rights | None) -> list[str]:
        pid = self._init.pid
        entry = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.fd}", f"--target={pid}"]
        entry += ["--mount", "--uts", "--wd=/", "--"]
        if rights is None:
            return entry
        if rights.read_only:
            entry += ["unshare", "--mount", "sh", "-ec", _read_only(rights), "rights"]
        names = "".join(f",+{name}" for name in rights.capabilities)
        return [
            *entry, "setpriv", f"--bounding-set=-all{names}", "--inh-caps=-all", "--no-new-privs",
            "--",
        ]  # fmt: skip

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        rights: Rights | None = None,
        **keywords: Any,
    ) -> subprocess.Popen[Any]:
        """Start a program on the node; the Popen's pid is the program's own."""
        process = subprocess.Popen(
            [*self._enter(rights), *argv], env={**self.env, **(env or {})}, **keywords
        )
        self._processes.append(process)
        return process

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        rights: Rights | None = None,
        check: bool = True,
        timeout: float = 30,
        **keywords: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the node and return what it printed."""
        keywords = {"capture_output": True, "text": True, **keywords}
        return subprocess.run(
            [*self._enter(rights), *argv],
            env={**self.env, **(env or {})}, check=check, timeout=timeout, **keywords,
        )  # fmt: skip

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives on the node."""
        return self.worker.socket(family, kind, protocol)

    def add_pod_netns(self, name: str) -> PodNetns:
        """Make a pod's network namespace."""
        return PodNetns(self, name)

    def power_off(self) -> None:
        """End every process of the node, and the node with them; twice is once."""
        if self._init.returncode is not None:
            return
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        self._init.kill()
        self._init.wait()
        if self._init.stdout is not None:
            self._init.stdout.close()
        self.worker.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _read_only(rights: Rights) -> str:
    """Return the script that makes the root read-only but for a few folders."""
    keep = "\n".join(f"mkdir -p {path}; mount --bind {path} {path}" for path in rights.writable)
    return f"""
mount --make-rprivate /
{keep}
mount --bind /proc/sys /proc/sys
for mounted in /proc/sys /run /var/lib /etc /opt /; do
  mount -o remount,bind,ro "$mounted" 2>/dev/null || true
done
for path in {" ".join(rights.writable)}; do mount -o remount,bind,rw "$path"; done
exec "$@"
"""


def _raise_lo() -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _dhcp(wanted: Wanted, address: IPv4Address, prefix_length: int) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=wanted.ifname)[0]
        ip.link("set", index=index, mtu=MTU, state="up")
        ip.addr("add", index=index, address=str(address), prefixlen=prefix_length)
        ip.route("add", dst="default", gateway=str(wanted.router), oif=index)
