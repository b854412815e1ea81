"""Linux keeps the promises that the modelled kernel keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from socket import AF_INET, AF_NETLINK, SOCK_DGRAM, SOCK_RAW
from typing import ParamSpec, TypeVar, cast

import pytest

from cni.dataplane import NODE_SYSCTLS, PODS_TABLE, PROTOCOL, Address
from cni.desired import Desired, SetLink, mending
from cni.mender import KernelMender
from cni.netlink import NodeNetlink
from cni.wire import KernelWiring
from tests.contract.kernel_contract import (
    NAME,
    OTHER_MAC,
    POD,
    POD6,
    PRIMARY,
    SECOND,
    Harm,
    NodeContract,
    WiringContract,
)
from tests.contract.mender_contract import (
    WANT,
    MenderBench,
    MenderContract,
    look,
    make,
    mend,
    wanting,
)
from tests.tools.pure import ROOT
from vpclab.netns import Worker

P = ParamSpec("P")
T = TypeVar("T")


DAEMON = """
import os, sys
from cni import rtnl
from cni.wire import KernelWiring
from tests.contract.kernel_contract import NAME, POD, WISH

try_all, steps = rtnl.Channel.try_all, int(sys.argv[4])

def try_and_die(channel, messages):
    global steps
    answer = try_all(channel, messages)
    steps -= any(message.kind != 18 for message in messages)  # RTM_GETLINK only looks
    if steps == 0:
        os._exit(9)
    return answer

rtnl.Channel.try_all = try_and_die
wiring = KernelWiring()
if sys.argv[1] == "cut":
    wiring.disconnect(NAME, (POD,))
    wiring.reap()
else:
    wiring.connect(WISH, int(sys.argv[2]), int(sys.argv[3]), "/run/netns/x")
"""
"""A daemon that is killed behind the send that changes something for the n-th time."""


LINK = ("ip", "link", "set")
HARMS = {
    Harm.ALIAS: (*LINK, NAME, "alias", "ours"),
    Harm.GROUP: (*LINK, NAME, "group", "5123"),
    Harm.MAC: (*LINK, NAME, "address", OTHER_MAC),
    Harm.DOWN: (*LINK, NAME, "down"),
    Harm.SOURCE: ("ip", "route", "replace", str(POD), "dev", NAME, "table", str(PODS_TABLE), "proto", str(PROTOCOL)),
    Harm.NEIGHBOUR_GONE: ("ip", "neigh", "del", str(POD), "dev", NAME),
    Harm.NEIGHBOUR: ("ip", "neigh", "replace", str(POD), "lladdr", OTHER_MAC, "dev", NAME, "nud", "permanent"),
    Harm.POD_MAC: (*LINK, "eth0", "address", OTHER_MAC),
    Harm.POD_MTU: (*LINK, "eth0", "mtu", "1400"),
    Harm.POD_DOWN: (*LINK, "eth0", "down"),
    Harm.POD_LO: (*LINK, "lo", "down"),
    Harm.POD_ADDRESS: ("ip", "addr", "del", f"{POD}/32", "dev", "eth0"),
    Harm.POD_ROUTE: ("ip", "route", "del", "default"),
    Harm.POD_NEIGHBOUR: ("ip", "neigh", "replace", "169.254.1.1", "lladdr", OTHER_MAC, "dev", "eth0", "nud", "permanent"),
}  # fmt: skip
"""Each harm as somebody's command, in the pod if its name says so."""


FOREIGN_RULES = (
    (4, "pref 600 blackhole"),
    (4, "pref 601 from 10.0.1.20 lookup 5120"),
    (4, "pref 602 not from 10.0.1.20 fwmark 0x2/0x7f lookup 2"),
    (4, "pref 603 tos 0x10 goto 604"),
    (6, "pref 600 from fd00::20 prohibit"),
    (6, "pref 601 lookup 5120"),
)
"""Of which there is one of ours each, too."""


class LinuxBench:
    """A namespace that plays a node, with veths for ENIs, and two for pods."""

    def __init__(self, stack: ExitStack) -> None:
        self._worker = Worker("host")
        stack.callback(self._worker.close)
        self._worker.write_sysctls(dict(NODE_SYSCTLS))
        self._pods = [Worker("pod-0"), Worker("pod-1")]
        self._sockets = [pod.socket(AF_NETLINK, SOCK_RAW) for pod in self._pods]
        for pod, sock in zip(self._pods, self._sockets, strict=True):
            stack.callback(pod.close)
            stack.callback(sock.close)
        self._own = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(os.close, self._own)
        self.plug(PRIMARY.mac)
        self.plug(SECOND.mac)
        self.run("ip", "link", "set", self._name(PRIMARY.mac), "up")
        self.add_address(PRIMARY.mac, f"{PRIMARY.address}/24")
        self.net = self.do(NodeNetlink)
        self.wiring = self.do(KernelWiring)
        self.mender = self.do(KernelMender)
        stack.callback(self.do, self.net.close)
        stack.callback(self.do, self.wiring.close)
        stack.callback(self.do, self.mender.close)

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._worker.call(work, *args, **kwargs)

    def run(self, *argv: str, pod: int | None = None) -> str:
        worker = self._worker if pod is None else self._pods[pod]
        done = worker.call(subprocess.run, argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    @staticmethod
    def _name(mac: str) -> str:
        return f"ens{mac[-1]}"

    def pod(self, number: int) -> tuple[int, int]:
        return self._pods[number].fd, self._sockets[number].fileno()

    def own(self) -> int:
        return self._own

    def pod_addresses(self, number: int) -> dict[str, set[str]]:
        return {
            link["ifname"]: {a["local"] for a in link["addr_info"] if a["scope"] != "link"}
            for link in json.loads(self.run("ip", "-j", "addr", pod=number))
            if link["ifname"] != "lo"
        }

    def routes(self, table: int, version: int = 4) -> list[str]:
        # A table that nothing was ever put into does not exist: "all" does.
        lines = self.run("ip", f"-{version}", "route", "show", "table", "all").splitlines()
        word = f" table {table} "
        return [line.replace(word, " ").strip() for line in lines if word in line]

    def add_rule(self, words: str, said: str, version: int = 4) -> None:
        del said  # the kernel tells
        argv = ("ip", f"-{version}", "rule", "add", *words.split(), "protocol", str(PROTOCOL))
        self.run(*argv)

    def rules(self) -> list[str]:
        lines = self.run("ip", "rule").splitlines()
        return [line.strip() for line in lines if f"proto {PROTOCOL}" in line]

    def alias(self, name: str) -> str | None:
        links = json.loads(self.run("ip", "-j", "link"))
        found: dict[str, str] = {link["ifname"]: link.get("ifalias", "") for link in links}
        return found.get(name)

    def add_link(self, name: str, alias: str = "") -> None:
        self.run("ip", "link", "add", name, "type", "veth", "peer", f"far{name[-8:]}")
        if alias:
            self.run("ip", "link", "set", name, "alias", alias)

    def add_pod_link(self, number: int, name: str) -> None:
        self.run("ip", "link", "add", name, "type", "veth", pod=number)

    def delete_link(self, name: str) -> None:
        self.run("ip", "link", "del", name)

    def set_group(self, name: str, group: int) -> None:
        self.run("ip", "link", "set", name, "group", str(group))

    def delete_route(self, network: str, table: int) -> None:
        self.run("ip", "route", "del", network, "table", str(table))

    def add_address(self, mac: str, address: str) -> None:
        self.run("ip", "addr", "add", address, "dev", self._name(mac))

    def harm(self, harm: Harm) -> None:
        if harm is Harm.RP_FILTER:
            self._worker.write_sysctls({f"net.ipv4.conf.{NAME}.rp_filter": "0"})
        else:
            self.run(*HARMS[harm], pod=0 if harm.startswith("pod-") else None)

    def write_sysctl(self, name: str, value: str) -> None:
        self._worker.write_sysctls({name: value})

    def plug(self, mac: str) -> None:
        name, far = self._name(mac), f"far{mac[-1]}"
        self.run("ip", "link", "add", name, "address", mac, "type", "veth", "peer", far)
        self.run("ip", "link", "set", far, "up")

    def unplug(self, mac: str) -> None:
        self.delete_link(self._name(mac))

    def killed(self, steps: int, *, cut: bool = False) -> None:
        fds = self.pod(0)
        words = ["cut" if cut else "connect", *map(str, fds), str(steps)]
        argv = [sys.executable, "-c", DAEMON, *words]
        died = self.do(subprocess.run, argv, pass_fds=fds, check=False, cwd=ROOT)
        assert died.returncode == 9

    def add_flow(self, address: Address) -> None:
        with self._worker.socket(AF_INET, SOCK_DGRAM) as sock:
            sock.sendto(b"one flow", (str(address), 9))


@pytest.fixture
def bench() -> Iterator[LinuxBench]:
    with ExitStack() as stack:
        yield LinuxBench(stack)


class TestLinuxWiring(WiringContract):
    """The contract, of the kernel that runs here."""


class TestLinuxNode(NodeContract):
    """The contract, of the kernel that runs here."""


class TestLinuxMender(MenderContract):
    """The contract, of the kernel that runs here."""

    def test_a_link_that_may_not_be_renamed_while_it_is_up_is_renamed(
        self, bench: LinuxBench
    ) -> None:
        """What kernels before 6.2 make necessary is done the same on all."""
        bench.add_link("mine")
        bench.run("ip", "link", "set", "mine", "up")
        index = int(bench.run("ip", "-o", "link", "show", "mine").partition(":")[0])
        assert bench.do(bench.mender._rename, SetLink(index, name="ours")) == ""  # noqa: SLF001 - as above
        assert "MULTICAST,UP" in bench.run("ip", "-o", "link", "show", "ours")

    def test_rules_of_others_stay_whatever_of_ours_is_like_them(self, bench: LinuxBench) -> None:
        for version, words in FOREIGN_RULES:
            bench.run("ip", f"-{version}", "rule", "add", *words.split())
        before = [bench.run("ip", f"-{version}", "rule") for version in (4, 6)]
        for version, words in FOREIGN_RULES:
            bench.add_rule(words, "", version)
        found = bench.do(bench.mender.look, ())
        steps = [r.step for r in mending(Desired(), found) if r.takes_away]
        assert len(steps) == len(FOREIGN_RULES)
        assert set(bench.do(bench.mender.mend, steps)) == {""}
        assert [bench.run("ip", f"-{version}", "rule") for version in (4, 6)] == before

    @pytest.mark.parametrize("protocol", [PROTOCOL, 3], ids=["ours", "theirs"])
    @pytest.mark.parametrize(("version", "verb"), [(4, "append"), (4, "prepend"), (6, "append")])
    def test_a_second_route_in_the_place_of_ours_is_not_followed(
        self, bench: LinuxBench, version: int, verb: str, protocol: int
    ) -> None:
        node = cast("MenderBench", bench)
        make(node)
        where = str(POD if version == 4 else POD6)
        words = f"ip -{version} route {verb} {where} dev ens2 table {PODS_TABLE} proto {protocol}"
        bench.run(*words.split())
        for _ in range(2):
            assert set(mend(node, *(r.step for r in mending(WANT, look(node))))) <= {""}
        assert wanting(node) == []
        there = [r for r in bench.routes(PODS_TABLE, version) if r.startswith(where)]
        assert f"dev {NAME} " in there[0]
        is_replaced = verb == "prepend" or protocol == PROTOCOL
        assert len(there) == (1 if is_replaced else 2), "what is somebody's and not followed stays"
