"""enid-cni at the head of a list: `tuning`, `bandwidth` and `portmap`, as Debian packages them.

They are those of github.com/containernetworking/plugins, whose newer ones (`make cri` builds them)
speak 1.1.0. Each list is run as libcni does: ADD from
the first to the last with the result of the one before, CHECK and DEL with the result of them all,
DEL from the last to the first; a capability's part of runtimeConfig goes to who declares it.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.patience import PATIENCE
from tests.lab.starts import STARTS, Start
from tests.lab.talk import talk
from tests.lab.test_daemon import ROOT, Ipamd, container_id
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node, PodNetns

PLUGINS = Path("/usr/lib/cni")
NEWER = Path(ROOT, ".cache", "containerd", "cni-1.9.1")
"""What tools/build-containerd makes."""

NEEDED = ("tuning", "bandwidth", "portmap")
missing = [name for name in NEEDED if not (PLUGINS / name).exists()]
pytestmark = pytest.mark.skipif(
    bool(missing),
    reason=f"no chain was run: {PLUGINS} lacks {' '.join(missing)};"
    " as root `apt-get install containernetworking-plugins`",
)

OURS = {"type": "enid-cni", "mtu": 9001}
TUNING = {"type": "tuning", "sysctl": {"net.ipv4.tcp_keepalive_time": "600"}}
BANDWIDTH = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
LIST = (OURS, TUNING, BANDWIDTH, PORTMAP)

PORT = 8080
RATE, BURST = 8_000_000, 800_000
"""Bits a second, and bits: a megabyte takes a second, and the burst is a tenth of one."""

RUNTIME: Mapping[str, object] = {
    "portMappings": [{"hostPort": PORT, "containerPort": PORT, "protocol": "tcp", "hostIP": ""}],
    "bandwidth": {
        "ingressRate": RATE,
        "ingressBurst": BURST,
        "egressRate": RATE,
        "egressBurst": BURST,
    },
}
"""What a runtime knows of a pod that has a hostPort and bandwidth annotations."""


@dataclass(slots=True)
class Chain:
    """A sandbox's place in a list of plugins."""

    ipamd: Ipamd
    name: str
    version: str = "1.0.0"
    plugins: tuple[Mapping[str, Any], ...] = LIST
    result: dict[str, Any] | None = None

    @property
    def folder(self) -> Path:
        """Where the others are."""
        return NEWER if self.version >= "1.1.0" else PLUGINS

    @property
    def pod(self) -> PodNetns:
        """The sandbox."""
        return self.ipamd.netns(self.name)

    @property
    def address(self) -> IPv4Address:
        """The pod's."""
        assert self.result is not None
        return IPv4Interface(self.result["ips"][0]["address"]).ip

    def add(self) -> Chain:
        """ADD, each with the result of the one before."""
        for plugin in self.plugins:
            self.result = json.loads(self.run("ADD", plugin))
        return self

    def check(self) -> None:
        """CHECK, each with the result of all."""
        for plugin in self.plugins:
            self.run("CHECK", plugin)

    def delete(self) -> None:
        """DEL, the last one first."""
        for plugin in reversed(self.plugins):
            self.run("DEL", plugin)

    def ask(self, verb: str, **more: object) -> None:
        """STATUS and GC, which concern no sandbox; each plugin is asked."""
        for plugin in self.plugins:
            self.run(verb, {**plugin, **more})

    def run(self, verb: str, plugin: Mapping[str, Any]) -> str:
        """Exec one plugin; fail with its words."""
        wants = plugin.get("capabilities", {})
        told = {name: RUNTIME[name] for name, is_wanted in wants.items() if is_wanted}
        stdin = {**plugin, "name": "enid", "cniVersion": self.version}
        stdin |= {"runtimeConfig": told} if told else {}
        stdin |= {"prevResult": self.result} if self.result is not None else {}
        environment = {
            "PATH": f"{self.ipamd.log.parent}/bin"
            if plugin["type"] == "portmap"
            else "/usr/sbin:/sbin",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id(self.name),
            "CNI_NETNS": self.pod.path,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={self.name};K8S_POD_UID=u;IgnoreUnknown=1",
            "CNI_PATH": str(self.folder),
        }
        is_ours = plugin["type"] == OURS["type"]
        argv = self.ipamd.plugin if is_ours else [str(self.folder / plugin["type"])]
        clean = ["env", "-i", *(f"{key}={value}" for key, value in environment.items())]
        done = self.ipamd.node.run([*clean, *argv], input=json.dumps(stdin), check=False)
        assert done.returncode == 0, f"{verb} of {plugin['type']}: {done.stdout}{done.stderr}"
        return str(done.stdout)


@pytest.fixture(scope="module")
def agent(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ipamd]:
    """A daemon that serves all tests here."""
    subnet = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
    node = vpc.launch_node("node-a", "m5.large", subnet, public=True)
    prepare(node)
    folder = tmp_path_factory.mktemp("chain")
    daemon = Ipamd(node, folder / "log", WARM_ENI_TARGET="0", IP_COOLDOWN_PERIOD="0")
    (folder / "bin").mkdir()
    # Alone: where there is ip6tables, portmap's CHECK wants IPv6's rules of every pod.
    (folder / "bin" / "iptables").symlink_to(shutil.which("iptables") or "/usr/sbin/iptables")
    daemon.start()
    first = Chain(daemon, "first").add()  # portmap's own chains are there from now on
    first.delete()
    yield daemon
    daemon.close()


@pytest.fixture(scope="module")
def stranger(vpc: EmbeddedVPC) -> Node:
    """Another node, without a CNI."""
    return vpc.launch_node("node-b", "m5.large", vpc.add_subnet("10.0.2.0/24", "us-east-1b"))


@pytest.fixture(params=STARTS, ids=lambda start: start.name, autouse=True)
def start(agent: Ipamd, request: pytest.FixtureRequest) -> Start:
    """One of the ways to start ours."""
    start: Start = request.param
    agent.plugin = start.argv
    return start


@pytest.fixture
def chain(agent: Ipamd, request: pytest.FixtureRequest) -> Iterator[Chain]:
    """A sandbox of the test's own; the wire of the one before is gone, which takes a moment."""
    agent.wait(lambda _: not state(agent.node)[1])
    made = Chain(agent, f"pod-{abs(hash(request.node.name)) % 10**8}")
    yield made
    made.delete()
    agent.pods.pop(made.name).close()


def state(node: Node) -> tuple[list[str], ...]:
    """Return what portmap, bandwidth and bandwidth again have on a node."""
    looks = (
        (["iptables-save"], "-A"),
        (["tc", "qdisc", "show"], "qdisc tbf"),
        (["ip", "-br", "link", "show", "type", "ifb"], ""),
    )
    return tuple(
        [line for line in node.run(look).stdout.splitlines() if line.startswith(sign)]
        for look, sign in looks
    )


needs_newer = pytest.mark.skipif(
    not (NEWER / "portmap").exists(), reason="no list of 1.1.0 was run: `tools/build-containerd`"
)


@pytest.mark.parametrize(
    "version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", pytest.param("1.1.0", marks=needs_newer)]
)
def test_a_list_is_added_checked_and_taken_down_again(
    agent: Ipamd, chain: Chain, version: str
) -> None:
    before, chain.version = state(agent.node), version
    chain.add()
    assert chain.result is not None
    _, pod, *_ = chain.result["interfaces"]
    assert (pod["name"], pod["sandbox"]) == ("eth0", chain.pod.path)
    assert chain.result["ips"][0]["interface"] == 1, "a wrong index panics containerd"
    assert all(now != then for now, then in zip(state(agent.node), before, strict=True))
    if version >= "0.4.0":
        chain.check()
    if version >= "1.1.0":
        chain.ask("STATUS")
        held = {"containerID": container_id(chain.name), "ifname": "eth0"}
        chain.ask("GC", **{"cni.dev/valid-attachments": [held], "cni.dev/attachments": [held]})
        chain.check()
    chain.delete()
    chain.delete()  # a runtime may say it twice
    agent.wait(lambda _: state(agent.node) == before)
    assert agent.status()["leases"] == []


def test_portmap_brings_strangers_and_the_node_itself_to_the_pod(
    chain: Chain, stranger: Node
) -> None:
    chain.add()
    node = chain.ipamd.node
    for client, to, seen in (
        (stranger, node.primary, stranger.primary),
        (node, node.primary, node.primary),
        (node, "127.0.0.1", node.primary),
    ):
        assert talk(client, chain.pod, to, PORT, at=chain.address) == str(seen)


def test_bandwidth_slows_both_ways(chain: Chain) -> None:
    chain.add()
    node, pod = chain.ipamd.node, chain.pod
    for client, server, to in ((node, pod, chain.address), (pod, node, node.primary)):
        assert 0.6 < seconds_of_a_megabyte(client, server, to) < 5 * PATIENCE


def seconds_of_a_megabyte(client: Node | PodNetns, server: Node | PodNetns, to: object) -> float:
    """Send a megabyte beyond the burst; return how long it took."""
    with (
        server.socket(socket.AF_INET, socket.SOCK_STREAM) as ear,
        client.socket(socket.AF_INET, socket.SOCK_STREAM) as mouth,
    ):
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # another start was here
        ear.bind((str(to), 9))
        ear.listen()
        mouth.settimeout(20 * PATIENCE)
        mouth.connect((str(to), 9))
        connection, _ = ear.accept()
        since = time.monotonic()
        sender = threading.Thread(target=mouth.sendall, args=(bytes(1_000_000 + BURST // 8),))
        sender.start()
        with connection:
            left = 1_000_000 + BURST // 8
            while left:
                left -= len(connection.recv(65536))
        sender.join()
        return time.monotonic() - since


def test_tuning_sets_the_pods_sysctls_and_ours_stay(chain: Chain) -> None:
    chain.add()
    shown = chain.pod.run(["cat", "/proc/sys/net/ipv4/tcp_keepalive_time"]).stdout
    assert shown.strip() == "600"
    chain.check()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(
            lambda c: c.pod.run(["ip", "route", "del", "default"]),
            "CHECK of enid-cni: .*the pod has no default route by 169.254.1.1 on eth0",
            id="ours",
        ),
        pytest.param(
            lambda c: c.ipamd.node.run(["iptables", "-t", "nat", "-F", "CNI-HOSTPORT-DNAT"]),
            "CHECK of portmap",
            id="theirs",
        ),
    ],
)
def test_a_check_of_the_list_says_whose_part_is_gone(
    chain: Chain, harm: Callable[[Chain], object], words: str
) -> None:
    chain.add()
    chain.check()
    harm(chain)
    with pytest.raises(AssertionError, match=words):
        chain.check()


def test_a_list_survives_the_daemons_restart(chain: Chain) -> None:
    chain.add()
    chain.ipamd.kill()
    chain.ipamd.start()
    chain.check()
    assert talk(chain.ipamd.node, chain.pod, "127.0.0.1", PORT, at=chain.address) is not None


def test_behind_another_plugin_ours_refuses_in_one_sentence(chain: Chain) -> None:
    chain.add()
    with pytest.raises(AssertionError, match="so it must be the first plugin of its list"):
        chain.run("ADD", OURS)
