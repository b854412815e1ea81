"""The plainest wiring of pods on ENIs, over netlink: what the lab is measured with, and no CNI.

A pod's packets leave by the ENI that has its address. Every table of it is of the node:

    ip rule: 512 lookup 100, 1536 from POD lookup <ENI's>
    table 100:  POD dev pN scope link, and a permanent neighbour
    an ENI's:   default via ROUTER dev ensX onlink

The kernel has one neighbour table for all namespaces, of 1024 entries (gc_thresh3); permanent
ones do not count. So both ends of a pod's link have one, and only routers are asked for by ARP.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any, ParamSpec, TypeVar

from pyroute2 import IPRoute

from vpclab.netns import CLONE_NEWNET, Worker

MTU = 9001
PODS = 100
"""The table of the node's pods."""

GATEWAY = "169.254.1.1"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
ONLINK, NOPREFIXROUTE = 4, 0x200

P = ParamSpec("P")
T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Nic:
    """An ENI that pods are put on."""

    mac: str
    primary: IPv4Address
    subnet: IPv4Network
    index: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod: its address, its namespace, open, and who can enter that."""

    address: IPv4Address
    netns: int
    nursery: Nursery

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives in the pod."""
        return self.nursery.enter(self.netns, socket.socket, family, kind, protocol)


class Host:
    """One node's side."""

    def __init__(self, netns: str) -> None:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        self.worker = Worker("host", descriptor)
        os.close(descriptor)
        self._ip: Any = self.worker.call(IPRoute)
        self.worker.call(self._ip.rule, "add", table=PODS, priority=512)

    def find(self, mac: str) -> int | None:
        """Return the index of the link with this MAC, None if there is none."""
        found: tuple[int, ...] = self.worker.call(self._ip.link_lookup, address=mac)
        return found[0] if found else None

    def raise_nic(self, nic: Nic) -> None:
        """Bring up an ENI, with the table by which its pods' packets leave."""
        self.worker.call(self._raise_nic, nic)

    def _raise_nic(self, nic: Nic) -> None:
        router, ip = str(nic.subnet[1]), self._ip
        ip.link("set", index=nic.index, mtu=MTU, state="up")
        ip.addr(
            "add", index=nic.index, address=str(nic.primary), prefixlen=nic.subnet.prefixlen,
            ifa_flags=NOPREFIXROUTE,
        )  # fmt: skip
        ip.route("add", gateway=router, oif=nic.index, flags=ONLINK, table=nic.index)

    def join(self, pod: Pod, ifname: str, mac: str, nic: Nic) -> None:
        """Wire the node's end of a pod's link."""
        self.worker.call(self._join, str(pod.address), ifname, mac, nic)

    def _join(self, address: str, ifname: str, mac: str, nic: Nic) -> None:
        index = self._ip.link("get", ifname=ifname)[0]["index"]
        self._ip.link("set", index=index, state="up")
        self._ip.neigh("add", dst=address, lladdr=mac, ifindex=index, state="permanent")
        self._ip.route("add", dst=address, oif=index, scope="link", table=PODS)
        self._ip.rule("add", src=address, table=nic.index, priority=1536)

    def close(self) -> None:
        """Let go of the node."""
        self.worker.call(self._ip.close)
        self.worker.close()


class Nursery:
    """One thread that makes pods' namespaces, and enters one to do something there."""

    def __init__(self) -> None:
        self._worker = Worker("nursery")

    def add(self, host: Host, nic: Nic, address: IPv4Address, number: int) -> Pod:
        """Make a pod with *address*, which is of *nic*; the *number* is its own on the node."""
        ifname, mac = f"p{number}", "0a:58:" + address.packed.hex(":")
        pod = Pod(address, self._worker.call(_unshare), self)
        self._worker.call(_wire, host.worker.fd, ifname, str(address), mac)
        host.join(pod, ifname, mac, nic)
        return pod

    def enter(self, netns: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *work* returns in a namespace."""
        return self._worker.call(_inside, netns, partial(work, *args, **kwargs))

    def close(self) -> None:
        """End the thread."""
        self._worker.close()


def _inside(netns: int, work: Callable[[], T]) -> T:
    if _libc.setns(netns, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    return work()


def _unshare() -> int:
    if _libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _wire(node: int, ifname: str, address: str, mac: str) -> None:
    """Make a pod's link in its own namespace, and the peer with this *ifname* on the *node*."""
    with IPRoute() as ip:
        ip.link(
            "add", index=2, ifname="eth0", kind="veth", mtu=MTU, address=mac,
            peer={
                "ifname": ifname, "address": HOST_MAC, "mtu": MTU, "net_ns_fd": node,
            },
        )  # fmt: skip
        ip.addr("add", index=2, address=address, prefixlen=32)
        ip.link("set", index=2, state="up")
        ip.neigh("add", dst=GATEWAY, lladdr=HOST_MAC, ifindex=2, state="permanent")
        ip.route("add", gateway=GATEWAY, oif=2, flags=ONLINK)
