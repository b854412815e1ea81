"""Thousands of short flows at once: what was lost, and who was seen as somebody else.

Datagrams, because nobody sends a lost one again. Each flow has a socket of its own and is
answered some times; its answers tell who answered and whom it saw. Many are on their way at any
moment, so that whatever is swapped meanwhile meets first, second and last packets.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from socket import AF_INET, SOCK_DGRAM

from cni.dataplane import USUAL_MARKS
from tests.lab.flows.town import CLIENT, NODE_PORTS, PODS, PORT, Flow, Town
from tests.lab.flows.tracked import Tracked, tracked
from tests.lab.patience import PATIENCE

AT_ONCE = 40
"""Flows on their way together; a server's socket has room for all of their datagrams."""

EXCHANGES = 5
PACKETS = 2 * EXCHANGES
"""Of one flow: as short as a look-up or a health check."""

LOST_SECONDS = 3.0 * PATIENCE
"""What has not been answered by then is lost."""


def kinds() -> list[Flow]:
    """Return flows by every way that our table decides."""
    outward = [
        flow
        for pod in PODS
        for flow in (
            Flow(pod, "remote", PORT, "remote", pod),
            Flow(pod, "internet", PORT, "internet", "public"),
            Flow(pod, "client", PORT, "client", "eth0"),
            Flow(pod, "ClusterIP remote", 80, "remote", pod),
            Flow(pod, "ClusterIP client", 80, "client", "eth0"),
        )
    ]
    inward = [
        flow
        for eth in ("eth0", "eth1", "eth2")
        for pod in PODS
        for flow in (
            Flow("client", eth, NODE_PORTS[f"Local {pod}"], pod, "client"),
            Flow("client", eth, NODE_PORTS[f"Cluster {pod}"], pod, "eth0"),
            Flow("client", pod, PORT, pod, "client"),
        )
    ]
    return [*outward, *inward]


@dataclass(slots=True)
class Count:
    """What came of all flows."""

    flows: int = 0
    packets: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    astray: Counter[str] = field(default_factory=Counter)
    """Flows that were seen as somebody else, or that somebody else answered."""

    def __str__(self) -> str:
        astray = sum(self.astray.values())
        return (
            f"{self.packets:,} packets of {self.flows:,} flows:"
            f" {sum(self.lost.values())} lost, {astray} astray"
        )


class Load:
    """Flows of a town, until they are told to stop; on a thread of its own."""

    def __init__(self, town: Town, count: Count | None = None) -> None:
        self.count, self._town = count or Count(), town
        self._ways = itertools.cycle(kinds())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
                batch = [next(self._ways) for _ in range(AT_ONCE)]
                opened = [(self._open(flow, stack), flow) for flow in batch]
                for sock, flow in opened:
                    selector.register(sock, selectors.EVENT_READ, flow)
                for _ in range(EXCHANGES):
                    for sock, _flow in opened:
                        sock.send(b"?")
                    self._hear(selector)
            self.count.flows += AT_ONCE

    def _open(self, flow: Flow, stack: contextlib.ExitStack) -> socket.socket:
        sock = stack.enter_context(self._town.places[flow.source].socket(AF_INET, SOCK_DGRAM))
        sock.connect((str(self._town.target(flow)), flow.port))
        return sock

    def _hear(self, selector: selectors.BaseSelector) -> None:
        """Take one answer of each flow; what does not come is lost."""
        missing = {key.fd: key.data for key in selector.get_map().values()}
        while missing:
            ready = selector.select(LOST_SECONDS)
            if not ready:
                self.count.lost.update(str(flow) for flow in missing.values())
                break
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                flow: Flow = key.data
                missing.pop(key.fd, None)
                self.count.packets += 2
                heard = key.fileobj.recv(100).decode()
                if heard != f"{flow.far} {self._town.addresses[flow.seen]}":
                    self.count.astray[f"{flow}: {heard}"] += 1


def pinned(town: Town) -> tuple[int, list[Tracked]]:
    """Return how many flows of `kinds` conntrack knows, and those of them on the wrong ENI.

    Who looks only at packets would miss one whose way is wrong from its next packet on.
    """
    pods = {town.addresses[pod] for pod in PODS}
    own = {link.address: USUAL_MARKS.of(link.number) for link in town.links}
    outside = {CLIENT, town.vpc.internet.address}
    known, wrong = 0, []
    for flow in tracked(town.node):
        begun_by, asked = flow.original.source, flow.original.to
        if begun_by in pods and flow.reply.source in outside:
            wanted = (USUAL_MARKS.primary, town.node.primary)
        elif begun_by in pods:
            wanted = (0, begun_by)
        elif begun_by == CLIENT:
            wanted = (own.get(asked, 0), flow.reply.to)
        else:
            continue  # the daemon's own, to EC2
        known += 1
        if (flow.mark, flow.reply.to) != wanted:
            wrong.append(flow)
    return known, wrong


def settings_in_turn() -> Iterator[dict[str, str]]:
    """Yield settings that make other tables, and change nothing for `kinds`."""
    yield from itertools.cycle(({"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "172.31.0.0/16"}, {}))
