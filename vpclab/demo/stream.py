"""Traffic that goes on: numbered datagrams, pings and TCP records, and what came back. Shell.

One thread is both ends of every flow. It must never wait for anything but the clock and its
sockets: a pause of its own would look like one of the network's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from vpclab.demo.traffic import ECHO_REPLY, Pair, Peer, echo_request, listen

TICK_SECONDS = 0.02
"""Between two packets of a flow: a gap of one lost packet is 40 ms."""

DRAIN_SECONDS = 1.0
"""How long an answer may still come after the last packet."""

RECORD = struct.Struct("!4sII")
MAGIC = b"flow"
STREAM_PORT = 7002
TOTAL_RETRANS, DSACK_DUPS, TCP_INFO_BYTES = 100, 216, 220
"""Offsets in struct tcp_info (linux/tcp.h): segments sent again, and those of them that had
arrived after all. A busy machine makes TCP impatient; the difference was truly lost."""


@dataclass(slots=True)
class Flow:
    """One flow: *sent* and *received* count records.

    *resent* are TCP's segments that had to be sent again, *longest_gap* is between answers.
    """

    kind: str
    source: str
    target: str
    sent: int = 0
    received: int = 0
    resent: int = 0
    octets: int = 0
    trouble: str = ""
    longest_gap: float = 0.0
    last: float | None = None
    send: Callable[[bytes], object] = field(default=lambda _: None, repr=False)

    @property
    def lost(self) -> int:
        """Records without an answer."""
        return self.sent - self.received

    def heard(self, number: int, now: float) -> None:
        """Count answers."""
        self.received += number
        if self.last is not None:
            self.longest_gap = max(self.longest_gap, now - self.last)
        self.last = now


class Streams:
    """Flows between pairs, of all three kinds, from `start` to `stop`."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.flows: list[Flow] = []
        self._exits = ExitStack()
        self._poll = self._exits.enter_context(select.epoll())
        self._on: dict[int, Callable[[], None]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
        self._tcp: list[tuple[Flow, socket.socket]] = []
        servers = list(dict.fromkeys(target for _, target in pairs))
        listeners = {server: self._serve(server) for server in servers}
        raw = {source: self._raw(source) for source in dict.fromkeys(s for s, _ in pairs)}
        for pair in pairs:
            self._add_udp(pair)
            self._add_ping(pair, raw[pair[0]])
            self._add_tcp(pair, listeners[pair[1]])

    def start(self) -> None:
        """Let it flow."""
        self._thread.start()

    def stop(self) -> list[Flow]:
        """Send no more, wait for what is on its way, and return what was counted."""
        self._stopped.set()
        self._thread.join()
        for flow, sock in self._tcp:
            flow.resent += _resent(sock)
        self._exits.close()
        return self.flows

    # Make ------------------------------------------------------------------------------
    def _watch(self, sock: socket.socket, work: Callable[[], None]) -> socket.socket:
        sock.settimeout(0)
        self._exits.enter_context(sock)
        self._on[sock.fileno()] = work
        self._poll.register(sock, select.EPOLLIN)
        return sock

    def _serve(self, server: Peer) -> socket.socket:
        udp = server.place.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", STREAM_PORT))  # noqa: S104 - in a namespace of the lab
        self._watch(udp, lambda: _echo_datagrams(udp))
        return self._exits.enter_context(listen(server, STREAM_PORT))

    def _raw(self, source: Peer) -> socket.socket:
        raw = source.place.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        return self._watch(raw, lambda: self._take_pings(raw))

    def _flow(self, kind: str, pair: Pair) -> tuple[int, Flow]:
        flow = Flow(kind, pair[0].name, pair[1].name)
        self.flows.append(flow)
        return len(self.flows) - 1, flow

    def _add_udp(self, pair: Pair) -> None:
        _, flow = self._flow("udp", pair)
        sock = pair[0].place.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((str(pair[1].address), STREAM_PORT))
        flow.send = sock.send
        self._watch(sock, lambda: self._take_datagrams(sock, flow))

    def _add_ping(self, pair: Pair, raw: socket.socket) -> None:
        number, flow = self._flow("ping", pair)
        address = (str(pair[1].address), 0)
        identifier = 0x7000 + number
        flow.send = lambda record: raw.sendto(
            echo_request(identifier, flow.sent & 0xFFFF, record), address
        )

    def _add_tcp(self, pair: Pair, listener: socket.socket) -> None:
        _, flow = self._flow("tcp", pair)
        client = pair[0].place.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(2)
        try:
            client.connect((str(pair[1].address), STREAM_PORT))
            listener.settimeout(2)
            server, _ = listener.accept()
        except OSError as error:
            client.close()
            flow.trouble, flow.sent = f"not connected: {error}", 1
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flow.send = client.send
        self._tcp += [(flow, client), (flow, server)]
        self._watch(client, lambda: self._take_records(client, flow))
        self._watch(server, lambda: self._echo_records(server))

    # Run -------------------------------------------------------------------------------
    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            if (left := due - time.monotonic()) > 0:
                self._serve_ready(left)
            else:
                due += TICK_SECONDS
                self._send_all()
        until = time.monotonic() + DRAIN_SECONDS
        while any(f.lost for f in self.flows) and (left := until - time.monotonic()) > 0:
            self._serve_ready(left)

    def _serve_ready(self, seconds: float) -> None:
        for fd, _ in self._poll.poll(seconds):
            self._on[fd]()

    def _send_all(self) -> None:
        for number, flow in enumerate(self.flows):
            if flow.trouble:
                continue
            record = RECORD.pack(MAGIC, number, flow.sent)
            try:
                flow.send(record)
            except BlockingIOError:
                continue  # its buffer is full: nothing was sent, nothing can be lost
            except OSError as error:
                if flow.kind == "tcp":
                    flow.trouble = error.strerror or str(error)
            flow.sent += 1

    def _take_datagrams(self, sock: socket.socket, flow: Flow) -> None:
        with contextlib.suppress(OSError):  # nothing more, or an ICMP error: a loss, counted
            while sock.recv(64):
                flow.heard(1, time.monotonic())

    def _take_pings(self, raw: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = raw.recv(256)
                start = (packet[0] & 15) * 4
                body = packet[start + 8 :]
                if packet[start] != ECHO_REPLY or body[:4] != MAGIC:
                    continue
                self.flows[RECORD.unpack_from(body)[1]].heard(1, time.monotonic())

    def _take_records(self, sock: socket.socket, flow: Flow) -> None:
        try:
            data = sock.recv(65536)
        except OSError as error:
            flow.trouble = error.strerror or str(error)
            data = b""
        if not data:
            flow.trouble = flow.trouble or "closed"
            self._poll.unregister(sock)
            return
        flow.octets += len(data)
        flow.heard(flow.octets // RECORD.size - flow.received, time.monotonic())

    def _echo_records(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
            if data:
                sock.send(data)
                return
        except OSError:
            pass
        self._poll.unregister(sock)


def _resent(sock: socket.socket) -> int:
    """Return how many segments had to be sent again."""
    details = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    (again,) = struct.unpack_from("I", details, TOTAL_RETRANS)
    (needless,) = struct.unpack_from("I", details, DSACK_DUPS)
    return max(0, int(again) - int(needless))


def _echo_datagrams(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            data, address = sock.recvfrom(64)
            with contextlib.suppress(OSError):
                sock.sendto(data, address)
