"""The measuring process on a node: what a runtime does there, and how long each step takes.

    python -m tests.bench.driver

A line on its standard input is the name of a method of `Driver` and its arguments, in JSON; so is
the answer. It makes pods' namespaces, runs plugins as a runtime does (one exec, the network
configuration on stdin, the result on stdout), or speaks the plugin's protocol itself where the
daemon alone is to be measured. Times are seconds.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path as FilePath
from typing import Any

from cni.dataplane import PODS_TABLE, PROTOCOL
from cni.events import let_through
from cni.rtnl import Channel, Path, delete_route

SOCKET = "/run/enid/ipamd.sock"
DEADLINE_NS = 110_000_000_000
CLONE_NEWNET, MS_BIND, MNT_DETACH = 0x40000000, 0x1000, 2
RTMGRP_LINK, RTM_DELLINK = 1, 17
RTMGRP_IPV4_ROUTE, RTM_NEWROUTE = 0x40, 24
GONE_SECONDS = 5.0
"""A link that is still there so long after its DEL is a failure."""

_HEADER, _LINK = struct.Struct("=IHHII"), struct.Struct("=BxHiII")  # nlmsghdr, ifinfomsg
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


class Pod:
    """A network namespace at a path, as a runtime makes it, and a netlink socket in it."""

    def __init__(self, number: int) -> None:
        self.number, self.path = number, f"/run/netns/bench-{number}"
        self.container_id = f"{number:064x}"
        FilePath(self.path).touch()
        maker = threading.Thread(target=self._make)
        maker.start()
        maker.join()
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def _make(self) -> None:
        _check(_libc.unshare(CLONE_NEWNET), "unshare")
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        _check(_libc.mount(own.encode(), self.path.encode(), None, MS_BIND, None), "mount")
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)

    def env(self, verb: str) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.path,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod-{self.number}"
            f";K8S_POD_INFRA_CONTAINER_ID={self.container_id};K8S_POD_UID={self.number:032x}",
            "CNI_PATH": "/usr/lib/cni",
        }

    def drop(self) -> None:
        self.netlink.close()
        os.close(self.fd)
        _check(_libc.umount2(self.path.encode(), MNT_DETACH), "umount2")
        FilePath(self.path).unlink()


class Departures:
    """When links went, by their index: what the kernel tells of this namespace."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self._news = threading.Condition()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        let_through(self._socket, RTM_DELLINK)  # arrivals would wake it in the middle of an ADD
        self._socket.bind((0, RTMGRP_LINK))
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        while True:
            piece = self._socket.recv(1 << 16)
            now = time.perf_counter()
            at = 0
            while at < len(piece):
                length, kind, *_ = _HEADER.unpack_from(piece, at)
                if kind == RTM_DELLINK:
                    index = _LINK.unpack_from(piece, at + _HEADER.size)[2]
                    with self._news:
                        self.at[index] = now
                        self._news.notify_all()
                at += (length + 3) & ~3

    def wait(self, index: int) -> float:
        with self._news:
            assert self._news.wait_for(lambda: index in self.at, GONE_SECONDS), (
                f"link {index} stays"
            )
            return self.at.pop(index)


class Plugin:
    """One way to do ADD and DEL: what is run, and its network configuration."""

    def __init__(self, argv: Sequence[str], conf: Mapping[str, Any]) -> None:
        self.argv, self.conf = list(argv), json.dumps(conf).encode()


class Exec:
    """One exec of a plugin."""

    def __init__(self, plugin: Plugin, pod: Pod, verb: str) -> None:
        inward, stdin = os.pipe2(os.O_CLOEXEC)
        self._stdout, outward = os.pipe2(os.O_CLOEXEC)
        actions = [(os.POSIX_SPAWN_DUP2, inward, 0), (os.POSIX_SPAWN_DUP2, outward, 1)]
        self._began = time.perf_counter()
        self._pid = os.posix_spawn(plugin.argv[0], plugin.argv, pod.env(verb), file_actions=actions)
        os.write(stdin, plugin.conf)
        for descriptor in (stdin, inward, outward):
            os.close(descriptor)

    def wait(self) -> tuple[float, float, bytes]:
        """Return its seconds, what it and its children used of the CPU, and its stdout."""
        stdout = b""
        while piece := os.read(self._stdout, 1 << 16):
            stdout += piece
        _, status, usage = os.wait4(self._pid, 0)
        seconds = time.perf_counter() - self._began
        os.close(self._stdout)
        if status:
            sys.exit(f"a plugin failed with {status}: {stdout.decode()}")
        return seconds, usage.ru_utime + usage.ru_stime, stdout


class Driver:
    """What can be asked for."""

    def __init__(self) -> None:
        self._pods: dict[int, Pod] = {}
        self._plugins: dict[str, Plugin] = {}
        self._departures = Departures()
        self._random = random.Random(1)
        self._next = 0
        self._addresses: list[str] = []

    def plugin(self, name: str, argv: Sequence[str], conf: Mapping[str, Any]) -> None:
        """Name a plugin."""
        self._plugins[name] = Plugin(argv, conf)

    def _new_pods(self, count: int) -> list[Pod]:
        pods = [Pod(self._next + number) for number in range(count)]
        self._next += count
        self._pods |= {pod.number: pod for pod in pods}
        return pods

    def _drop(self, pods: Sequence[Pod]) -> None:
        for pod in pods:
            self._pods.pop(pod.number).drop()

    # Whole processes -------------------------------------------------------------------
    def rounds(self, names: Sequence[str], count: int) -> dict[str, dict[str, list[float]]]:
        """Return what ADD and DEL take by each plugin, in *count* rounds of random order.

        Each has a fresh namespace: add, del, gone (from the DEL's start until the host's link
        is gone) and cpu (of the processes of both).
        """
        pods = {name: self._new_pods(count) for name in names}
        found: dict[str, dict[str, list[float]]] = {
            name: {"add": [], "del": [], "gone": [], "cpu": []} for name in names
        }
        for number in range(count):
            for name in self._random.sample(list(names), len(names)):
                for what, value in self._one(name, pods[name][number]).items():
                    found[name][what].append(value)
        for some in pods.values():
            self._drop(some)
        return found

    def _one(self, name: str, pod: Pod) -> dict[str, float]:
        plugin = self._plugins[name]
        added, add_cpu, stdout = Exec(plugin, pod, "ADD").wait()
        index = _host_index(stdout)
        began = time.perf_counter()
        deleted, del_cpu, _ = Exec(plugin, pod, "DEL").wait()
        gone = self._departures.wait(index) - began
        return {"add": added, "del": deleted, "gone": max(gone, 0.0), "cpu": add_cpu + del_cpu}

    def bursts(
        self, names: Sequence[str], bursts: int, size: int
    ) -> dict[str, dict[str, list[float]]]:
        """Return what *size* plugins at once take, in *bursts* of each kind.

        all: until all ADDs are done; each: one ADD; dels: until all DELs are answered.
        """
        found: dict[str, dict[str, list[float]]] = {
            name: {"all": [], "each": [], "dels": []} for name in names
        }
        for _ in range(bursts):
            for name in self._random.sample(list(names), len(names)):
                pods = self._new_pods(size)
                for what, verb in (("all", "ADD"), ("dels", "DEL")):
                    began = time.perf_counter()
                    running = [Exec(self._plugins[name], pod, verb) for pod in pods]
                    each = [one.wait()[0] for one in running]
                    found[name][what].append(time.perf_counter() - began)
                    found[name]["each"] += each if verb == "ADD" else []
                self._drop(pods)
        return found

    # The daemon alone ------------------------------------------------------------------
    def wire(self, count: int) -> list[float]:
        """Wire so many new pods and leave them; return what each ADD took."""
        took = []
        for pod in self._new_pods(count):
            seconds, answer = self._ask("ADD", pod)
            took.append(seconds)
            self._addresses.append(json.loads(answer)["ips"][0]["address"].split("/")[0])
        return took

    def mended(self, count: int) -> list[float]:
        """Take away a wired pod's route on the node, *count* times; return how soon it was back."""
        ears = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        ears.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        ears.bind((0, RTMGRP_IPV4_ROUTE))
        ears.settimeout(GONE_SECONDS)
        channel, took = Channel(), []
        for address in map(IPv4Address, self._addresses[:count]):
            route = Path(address, 32, PODS_TABLE, protocol=PROTOCOL)
            began = time.perf_counter()
            channel.send(delete_route(route))
            while not _is_back(ears.recv(1 << 16), address.packed):
                pass
            took.append(time.perf_counter() - began)
        channel.close()
        ears.close()
        return took

    def probe(self, count: int) -> dict[str, list[float]]:
        """Return what ADD and DEL of new pods take at the daemon, one after another."""
        pods = self._new_pods(count)
        found: dict[str, list[float]] = {"add": [], "del": []}
        for pod in pods:
            found["add"].append(self._ask("ADD", pod)[0])
            found["del"].append(self._ask("DEL", pod)[0])
        self._drop(pods)
        return found

    def first(self, since: float) -> float:
        """Return the seconds from *since*, a monotonic time, to the next ADD's answer."""
        (pod,) = self._new_pods(1)
        while True:
            try:
                self._ask("ADD", pod)
            except (FileNotFoundError, ConnectionError):
                time.sleep(0.002)
            else:
                break
        seconds = time.monotonic() - since
        self._ask("DEL", pod)
        self._drop([pod])
        return seconds

    def _ask(self, verb: str, pod: Pod) -> tuple[float, bytes]:
        env = "\0".join(f"{k}={v}" for k, v in pod.env(verb).items()).encode()
        conf = next(iter(self._plugins.values())).conf
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        frame = b"enid1 %d %d %d %d\n%b%b" % (
            len(env), len(conf), now, now + DEADLINE_NS, env, conf,
        )  # fmt: skip
        rights = array.array("i", (pod.fd, pod.netlink.fileno())).tobytes()
        began = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(SOCKET)
            sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            answer = b""
            while piece := sock.recv(1 << 16):
                answer += piece
        seconds = time.perf_counter() - began
        if not answer:
            raise ConnectionResetError
        if answer[:1] != b"0":
            sys.exit(f"{verb} failed: {answer[1:].decode()}")
        return seconds, answer[1:]


def _is_back(piece: bytes, address: bytes) -> bool:
    """Whether the kernel tells of a new route that has *address* in it."""
    return _HEADER.unpack_from(piece)[1] == RTM_NEWROUTE and address in piece


def _host_index(result: bytes) -> int:
    """Return the index of the host's link that an ADD's result names."""
    for interface in json.loads(result)["interfaces"]:
        if not interface.get("sandbox"):
            return socket.if_nametoindex(interface["name"])
    raise AssertionError(result)


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps({"result": getattr(driver, name)(*arguments)}), flush=True)


if __name__ == "__main__":
    main()
