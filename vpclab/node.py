"""A node of the VPC: an instance with namespaces and folders of its own. Shell.

Network, mount and UTS namespaces are held by one sleeping process, the node's init. Each
node sees its own /run, /var/lib, /etc and /opt: a daemon and a plugin use their production
paths, and two nodes never meet. /etc and /opt show the host's entries by links.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import AF_INET6
from typing import Any

from pyroute2 import IPRoute

from vpclab import seccomp
from vpclab.fabric import ENDPOINT, MTU, NODAD, ROUTER6, Wanted
from vpclab.mounts import begin
from vpclab.netns import Worker
from vpclab.patience import PATIENCE

RUN_SECONDS = 30 * PATIENCE
"""What a program on a node may take, unless its caller knows better."""

SYSCTLS = {
    "net.ipv4.conf.all.accept_local": "0",
    "net.ipv4.conf.default.accept_local": "0",
    "net.ipv4.conf.all.arp_announce": "0",
    "net.ipv4.conf.default.arp_announce": "0",
    "net.ipv4.conf.all.arp_filter": "0",
    "net.ipv4.conf.default.arp_filter": "0",
    "net.ipv4.conf.all.arp_ignore": "0",
    "net.ipv4.conf.default.arp_ignore": "0",
    "net.ipv4.conf.all.proxy_arp": "0",
    "net.ipv4.conf.default.proxy_arp": "0",
    "net.ipv4.conf.all.route_localnet": "0",
    "net.ipv4.conf.default.route_localnet": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.src_valid_mark": "0",
    "net.ipv4.conf.default.src_valid_mark": "0",
    "net.ipv4.fwmark_reflect": "0",
    "net.ipv4.icmp_echo_ignore_all": "0",
    "net.ipv4.ip_forward": "0",
    "net.ipv4.ip_local_port_range": "32768 60999",
    "net.ipv4.ip_no_pmtu_disc": "0",
    "net.ipv4.tcp_fwmark_accept": "0",
}
"""The kernel's own values, for nodes and pods: a new namespace inherits whatever is there."""

IMAGE_SYSCTLS = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
"""What the image of a Kubernetes node sets at boot (/etc/sysctl.d/99-kubernetes-cri.conf of the EKS
image): no CNI can work without it, and most rely on it."""

READ_ONLY = r"""
for path in $WRITABLE; do mkdir -p "$path"; mount --bind "$path" "$path"; done
mount --bind /proc/sys /proc/sys
while read -r _ _ _ _ point options _; do
  case $point in
    /proc/sys) ;;
    /proc*|/sys*|/dev*) continue ;;
  esac
  case $options in ro|ro,*) continue ;; esac
  mount -o "remount,bind,ro${options#rw}" "$point" 2>/dev/null || :
done </proc/self/mountinfo
for path in $WRITABLE; do mount -o remount,bind,rw "$path"; done
unset WRITABLE
exec "$@"
"""
"""How a process comes to see everything read-only but for its own folders. A mount keeps its
other options, which nobody may take off in a user namespace; one that is hidden under another
cannot be changed, nor reached."""

FOLDERS = {"/run": "run", "/var/lib": "lib", "/var/log": "log", "/etc": "etc", "/opt": "opt"}
"""What a node has of its own, and where in its folder."""

RUN = ("run/netns", "run/lock")
"""What is in /run of a node that has just been booted."""

INIT = ("sleep", "infinity")


@dataclass(frozen=True, slots=True)
class Rights:
    """What a process may: these capabilities and no other, and to write in these folders only.

    *writable* is None where everything is writable. It is *filtered* where it is under the
    runtime's default seccomp profile.
    """

    capabilities: tuple[str, ...] = ()
    writable: tuple[str, ...] | None = ()
    filtered: bool = False

    def entry(self) -> list[str]:
        """Return the words that, put before a command, have it run with these rights."""
        entry = []
        if self.writable is not None:
            entry += ["env", f"WRITABLE={' '.join(self.writable)}"]
            entry += ["unshare", "--mount", "--propagation=slave", "sh", "-ec", READ_ONLY, "rights"]
        names = "".join(f",+{name}" for name in self.capabilities)
        entry += ["setpriv", f"--bounding-set=-all{names}", "--inh-caps=-all", "--no-new-privs"]
        entry += ["--"]
        if self.filtered:
            entry += [sys.executable, "-I", "-S", seccomp.__file__]
        return entry


class PodNetns:
    """A pod's network namespace, as a runtime makes it on a node."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name, self.path = node, name, f"/run/netns/{name}"
        node.run(["ip", "netns", "add", name])
        self.fd = os.open(node.path(self.path, inside=True), os.O_RDONLY | os.O_CLOEXEC)
        self.worker = Worker(name[:15], self.fd)
        self.worker.write_sysctls(SYSCTLS)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives in the pod."""
        return self.worker.socket(family, kind, protocol)

    def popen(self, argv: Sequence[str], **keywords: Any) -> subprocess.Popen[Any]:
        """Start a program in the pod; the Popen's pid is the program's own."""
        return self.node.popen(["nsenter", f"--net={self.path}", *argv], **keywords)

    def run(self, argv: Sequence[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in the pod."""
        return self.node.run(["nsenter", f"--net={self.path}", *argv], **keywords)

    def close(self) -> None:
        """Remove the namespace; twice is once."""
        if self.fd < 0:
            return
        self.worker.close()
        os.close(self.fd)
        self.fd = -1
        self.node.run(["ip", "netns", "del", self.name], check=False)


class Node:
    """One node; made by `EmbeddedVPC.launch_node`."""

    def __init__(
        self,
        name: str,
        instance_id: str,
        primary: IPv4Address,
        folder: Path,
        on_terminate: Callable[[Node], None],
        on_reboot: Callable[[Node], None],
    ) -> None:
        self.name, self.instance_id, self.primary, self.folder = name, instance_id, primary, folder
        self._on_terminate, self._on_reboot = on_terminate, on_reboot
        self._processes: list[subprocess.Popen[Any]] = []
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            self._furnish()
            self._boot(INIT)
            undo.pop_all()

    def _boot(self, init: Sequence[str]) -> None:
        """Make the namespaces that *init* then holds, in which nothing is yet."""
        self.boot_id = str(uuid.uuid4())
        self._entered = ["--net", "--mount", "--uts"]
        with contextlib.ExitStack() as undo:
            self.worker = Worker(self.name[:15])
            undo.callback(self.worker.close)
            with contextlib.closing(Worker("init", self.worker.fd)) as entered:
                self._init = entered.call(begin, self.folder, self.name, init)
            undo.callback(self._end_init)
            self.worker.write_sysctls({**SYSCTLS, **IMAGE_SYSCTLS})
            self.worker.call(_raise_lo)
            undo.pop_all()

    def _furnish(self) -> None:
        """Make the node's folders; what it does not have of its own is a link to the host's."""
        for part in (*RUN, "lib", "log", "etc/cni/net.d", "opt/cni/bin"):
            (self.folder / part).mkdir(parents=True)
        etc = self.folder / "etc"
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.primary} {self.name}\n")
        # The host's name servers are nobody in the VPC: packets to them would count as drops.
        (etc / "resolv.conf").write_text("options attempts:1 timeout:1\n")
        for view in ("etc", "opt"):
            (self.folder / view / ".host").mkdir()
            for entry in Path("/", view).iterdir():
                link = self.folder / view / entry.name
                if not link.exists():
                    link.symlink_to(f".host/{entry.name}")

    @property
    def env(self) -> dict[str, str]:
        """The environment of the node's processes."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": path,
            "NODE_NAME": self.name,
            "AWS_ENDPOINT_URL_EC2": f"http://{ENDPOINT}",
            # It sees its user's home: their own account's credentials would come before IMDS's.
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "LANG": "C.UTF-8",
            # Of a checkout that is not the installed one, the node's programs are the same.
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }

    @property
    def fd(self) -> int:
        """Its network namespace, open."""
        return self.worker.fd

    @property
    def netns(self) -> str:
        """Its network namespace, as a path in the box."""
        return f"/proc/{self._init.pid}/ns/net"

    def path(self, path: str, *, inside: bool = False) -> Path:
        """Return where the box sees a path of the node.

        *inside* goes through the node's own mounts, which a bind mounted netns needs.
        """
        if inside:
            return Path(f"/proc/{self._init.pid}/root{path}")
        for prefix, part in FOLDERS.items():
            if path == prefix or path.startswith(prefix + "/"):
                return self.folder / part / path[len(prefix) + 1 :]
        return Path(path)

    def start_by_dhcp(
        self, wanted: Wanted, prefix_length: int, addresses6: Sequence[IPv6Address] = ()
    ) -> None:
        """Configure the primary ENI, as DHCP, DHCPv6 and the router's advertisements do at boot."""
        self.worker.call(_dhcp, wanted, self.primary, prefix_length, addresses6)

    def entry(self, rights: Rights | None = None) -> list[str]:
        """Return the words that, put before a command, have it run on the node."""
        entry = ["nsenter", f"--target={self._init.pid}", *self._entered, "--wd=/", "--"]
        return [*entry, *(rights.entry() if rights else ())]

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
            [*self.entry(rights), *argv], env={**self.env, **(env or {})}, **keywords
        )
        self._processes = [p for p in self._processes if p.returncode is None]
        self._processes.append(process)
        return process

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        rights: Rights | None = None,
        check: bool = True,
        timeout: float = RUN_SECONDS,
        **keywords: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the node and return what it printed."""
        keywords = {"capture_output": True, "text": True, **keywords}
        return subprocess.run(
            [*self.entry(rights), *argv],
            env={**self.env, **(env or {})}, check=check, timeout=timeout, **keywords,
        )  # fmt: skip

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives on the node."""
        return self.worker.socket(family, kind, protocol)

    def add_pod_netns(self, name: str) -> PodNetns:
        """Make a pod's network namespace."""
        return PodNetns(self, name)

    def terminate(self) -> None:
        """Terminate the instance."""
        self._on_terminate(self)

    def reboot(self) -> None:
        """Reboot the instance: its disk is kept, /run is empty, its ENIs are where they were.

        Another boot has begun: another `boot_id`, and a clock that counts from now on. Whoever has
        cgroups on the node ends what is in them before: it may have a UTS namespace of its own.
        """
        self._on_reboot(self)

    def begin_anew(self) -> None:
        """Be another boot of the machine, without a link; its processes have ended."""
        self._end_init()
        self.worker.close()
        shutil.rmtree(self.folder / "run")
        for part in RUN:
            (self.folder / part).mkdir(parents=True)
        self._boot(["unshare", "--time", *_offsets(), *INIT])
        end = time.monotonic() + RUN_SECONDS
        while self._clock() == _clock():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name} did not get a clock of its own")
            time.sleep(0.002)
        self._entered.append("--time")

    def _clock(self) -> Path:
        return Path(f"/proc/{self._init.pid}/ns/time").readlink()

    def end_processes(self) -> None:
        """Kill every process of the node but its init."""
        for process in self._processes:  # one may not have entered the namespaces yet
            process.kill()
            process.wait()
        self._processes.clear()
        while victims := list(self._running()):
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)

    def _running(self) -> Iterator[int]:
        """Yield the processes of the node: whoever has its UTS namespace, zombies apart."""
        own = Path(f"/proc/{self._init.pid}/ns/uts").readlink()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended while we looked
                pid = int(folder.name)
                if pid != self._init.pid and (folder / "ns/uts").readlink() == own:
                    yield pid

    def power_off(self) -> None:
        """End the node with its namespaces; its processes have ended."""
        self._end_init()
        self.worker.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_init(self) -> None:
        self._init.kill()
        self._init.wait()


def _clock() -> Path:
    return Path("/proc/self/ns/time").readlink()


def _offsets() -> list[str]:
    """Return what makes the clocks since boot begin at 0, or within a second of it."""
    clocks = {"boottime": time.CLOCK_BOOTTIME, "monotonic": time.CLOCK_MONOTONIC}
    return [f"--{name}=-{int(time.clock_gettime(clock))}" for name, clock in clocks.items()]


def _raise_lo() -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _dhcp(
    wanted: Wanted, address: IPv4Address, prefix_length: int, addresses6: Sequence[IPv6Address]
) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=wanted.ifname)[0]
        ip.link("set", index=index, mtu=MTU, state="up")
        ip.addr("add", index=index, address=str(address), prefixlen=prefix_length)
        ip.route("add", dst="default", gateway=str(wanted.router), oif=index)
        for address6 in addresses6:
            ip.addr("add", index=index, address=str(address6), prefixlen=128, ifa_flags=NODAD)
        if addresses6:
            ip.route("add", dst="default", gateway=ROUTER6, oif=index, family=AF_INET6)
