"""An upgrade in place: another version's layout is replaced by ours, and no packet is lost.

The former version is this one with other numbers: preferences, the pods' table, the tables of ENIs,
the chains of nft. What a version may not change is where packets are marked by link groups: groups
and nft table are two things that no transaction changes together.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.patience import PATIENCE
from tests.lab.spoiled import thorough
from tests.lab.test_daemon import MAIN, Ipamd
from tests.tools.pure import ROOT
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

FORMER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import cni.dataplane as d
d.PODS_TABLE, d.POD_PREFERENCE, d.PRIMARY_PREFERENCE = 5000, 600, 1100
d.ENI_PREFERENCE, d.OWN_PREFERENCE, d.GUARD_METRIC = 1600, 32000, 4278198000
d.eni_table = lambda number: 254 if number == 1 else 100 + number
import cni.nft as n
render = n.render
n.render = lambda wish: (render(wish).replace("dstnat + 10", "dstnat + 5")
    .replace(" chain back {{", " chain former {{\\n  counter\\n }}\\n chain back {{"))
from ipamd.main import main
main()
"""

PERIOD_SECONDS = 0.01
"""Between two packets of a flow."""

SETTLED_SECONDS = 20.0 * PATIENCE
"""What is not ours any more goes at the second look behind EC2's answer, 3 s later; less than a
period, which nobody is to wait for."""


@dataclass
class Flow:
    """Packets that are answered, one after another."""

    name: str
    client: socket.socket
    server: socket.socket
    sent: int = 0
    back: set[int] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    @property
    def lost(self) -> list[int]:
        return [number for number in range(self.sent) if number not in self.back]


class Traffic:
    """Flows that run until they are told to end."""

    def __init__(self) -> None:
        self.flows: list[Flow] = []
        self._stack = ExitStack()
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self._ports = itertools.count(7000)

    def add(self, name: str, client: Any, server: Any, to: object) -> None:
        port = next(self._ports)
        ear = self._stack.enter_context(server.socket(socket.AF_INET, socket.SOCK_DGRAM))
        mouth = self._stack.enter_context(client.socket(socket.AF_INET, socket.SOCK_DGRAM))
        ear.bind((str(to), port))
        mouth.connect((str(to), port))
        for sock in (ear, mouth):
            sock.settimeout(0)
        self.flows.append(Flow(name, mouth, ear))

    def start(self) -> None:
        for work in (self._send, self._answer):
            self._threads.append(threading.Thread(target=work))
            self._threads[-1].start()

    def stop(self) -> None:
        """Send no more, and wait for the last answers."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._stack.close()

    def _send(self) -> None:
        while not self._end.wait(PERIOD_SECONDS):
            for flow in self.flows:
                try:
                    flow.client.send(b"%d" % flow.sent)
                except OSError as error:
                    flow.errors.append(f"{flow.sent}: {error}")
                flow.sent += 1

    def _answer(self) -> None:
        with selectors.DefaultSelector() as selector:
            for flow in self.flows:
                selector.register(flow.server, selectors.EVENT_READ, (flow, True))
                selector.register(flow.client, selectors.EVENT_READ, (flow, False))
            until = None
            while until is None or time.monotonic() < until:
                if until is None and self._end.is_set():
                    until = time.monotonic() + 1.0 * PATIENCE
                for key, _ in selector.select(0.1):
                    flow, is_server = key.data
                    self._read(flow, is_server=is_server)

    @staticmethod
    def _read(flow: Flow, *, is_server: bool) -> None:
        if is_server:
            text, peer = flow.server.recvfrom(100)
            flow.server.sendto(text, peer)
        else:
            flow.back.add(int(flow.client.recv(100)))


@pytest.fixture
def daemon(vpc: EmbeddedVPC, tmp_path: Path) -> Iterator[Ipamd]:
    """Give a node whose pods were wired by a former version, on two ENIs."""
    subnet = vpc.add_subnet("10.0.79.0/24", "us-east-1a")
    node = vpc.launch_node("node-upgrade", "m5.large", subnet, public=True)
    prepare(node)
    daemon = Ipamd(node, tmp_path / "log", WARM_ENI_TARGET="0", IP_COOLDOWN_PERIOD="1")
    daemon.main = FORMER
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
        node.terminate()


def layout(daemon: Ipamd) -> str:
    """Return the numbers of the layout that the node has."""
    script = (
        "ip rule | grep 'proto 151' | cut -d: -f1 | sort -nu | tr '\\n' ' ';"
        " ip -4 route show table all proto 151 | grep -o 'table [0-9]*' | sort -u | tr '\\n' ' ';"
        " nft list chain ip enid leave | grep -o 'priority [^;]*'"
    )
    return str(daemon.node.run(["sh", "-c", script]).stdout).strip()


OURS = "512 1024 1536 32765 table 2 table 5120 priority dstnat + 10"


@thorough
def test_a_new_layout_is_in_before_the_old_one_goes_and_no_packet_is_lost(
    daemon: Ipamd, vpc: EmbeddedVPC
) -> None:
    subnet = vpc.add_subnet("10.0.80.0/24", "us-east-1a")
    peer = vpc.launch_node("node-peer", "m5.large", subnet)
    names = [f"web-{number}" for number in range(11)]  # 9 on the primary ENI
    addresses = {name: daemon.add(name) for name in names}
    daemon.wait(lambda s: len(s["enis"]) == 2 and not s["waiting"])
    assert layout(daemon) == "600 1100 1600 32000 table 102 table 5000 priority dstnat + 5"
    traffic = Traffic()
    for name in (names[0], names[5], names[9], names[10]):
        pod = daemon.netns(name)
        traffic.add(f"peer to {name}", peer, pod, addresses[name])
        traffic.add(f"{name} to peer", pod, peer, peer.primary)
        traffic.add(f"node to {name}", daemon.node, pod, addresses[name])
        traffic.add(f"{name} to {names[1]}", pod, daemon.netns(names[1]), addresses[names[1]])
    traffic.start()
    time.sleep(1.0)
    daemon.stop()
    daemon.main = MAIN
    daemon.start()
    end = time.monotonic() + SETTLED_SECONDS
    while layout(daemon) != OURS and time.monotonic() < end:
        pass
    assert layout(daemon) == OURS
    time.sleep(1.0)
    traffic.stop()
    assert {flow.name: flow.errors for flow in traffic.flows if flow.errors} == {}
    assert {flow.name: flow.lost for flow in traffic.flows if flow.lost} == {}
    assert min(flow.sent for flow in traffic.flows) > 100
    peer.terminate()
