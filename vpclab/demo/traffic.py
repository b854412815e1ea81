"""Packets between places, all from this process: TCP, ping, forgeries, taps. Shell.

A socket stays in the network namespace it was made in, so one selector loop here can be
every client and every server of a VPC at once. What each far end saw is what proofs compare.
"""

from __future__ import annotations

import itertools
import os
import select
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import Protocol, TypeVar

T = TypeVar("T")

TCP_PORT, UDP_PORT = 7000, 7001
IN_FLIGHT = 276
"""Connections at once: two sockets each stay below 1,024 descriptors, the usual limit."""

IP_RECVFRAGSIZE = 25
"""Socket option: tell of a datagram that came in pieces (linux/in.h)."""

PMTUDISC_DO = 2
"""Set DF, and refuse what is too large (IP_PMTUDISC_DO of linux/in.h)."""

IP_MTU_DISCOVER = 10
ECHO_REPLY, UNREACHABLE, ECHO = 0, 3, 8
ETH_P_ALL, PACKET_OUTGOING = 3, 4
TOKEN_BYTES = 8
FORGED = b"enid-forged"


class Place(Protocol):
    """Where sockets live: a pod, a node, a host on the internet."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket that lives there."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A place with a name and an address."""

    name: str
    address: IPv4Address
    place: Place


Pair = tuple[Peer, Peer]


@dataclass(frozen=True, slots=True)
class Seen:
    """How an attempt went: who the far end saw, None if nobody; *trouble* says why."""

    source: IPv4Address | None
    trouble: str = ""
    answered: bool = True

    @property
    def reached(self) -> bool:
        """Whether it arrived and was answered."""
        return self.source is not None and self.answered


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield *items* in runs of at most *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


# TCP -----------------------------------------------------------------------------------
def connect_all(pairs: Sequence[Pair], seconds: float = 1.5) -> dict[Pair, Seen]:
    """Connect each pair's first to its second; the second answers whom it sees."""
    found: dict[Pair, Seen] = {}
    for batch in batches(pairs, IN_FLIGHT):
        found |= _connect(batch, seconds)
    return {pair: found[pair] for pair in pairs}


def _connect(pairs: Sequence[Pair], seconds: float) -> dict[Pair, Seen]:
    found: dict[Pair, Seen] = {}
    with ExitStack() as exits:
        selector = exits.enter_context(selectors.DefaultSelector())
        for server in dict.fromkeys(server for _, server in pairs):
            listener = exits.enter_context(listen(server))
            selector.register(listener, selectors.EVENT_READ, partial(_accept, listener))
        for pair in pairs:
            client = exits.enter_context(_tcp(pair[0].place))
            client.connect_ex((str(pair[1].address), TCP_PORT))
            hear = partial(_hear, client, pair, found, selector)
            # Registered for reading only: a refusal is readable, too.
            selector.register(client, selectors.EVENT_READ, hear)
        until = time.monotonic() + seconds
        while len(found) < len(pairs) and (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data()
    for pair in pairs:
        found.setdefault(pair, Seen(None, f"no answer within {seconds:g} s"))
    return found


def _tcp(place: Place) -> socket.socket:
    sock = place.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(0)
    return sock


def listen(server: Peer, port: int = TCP_PORT) -> socket.socket:
    """Return a socket that listens at *server*, non-blocking."""
    listener = _tcp(server.place)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))  # noqa: S104 - in a namespace of the lab
    listener.listen(256)
    return listener


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, (host, _) = listener.accept()
        except BlockingIOError:
            return
        except ConnectionError:
            continue
        with connection:
            connection.send(host.encode())


def _hear(
    client: socket.socket,
    pair: Pair,
    found: dict[Pair, Seen],
    selector: selectors.BaseSelector,
) -> None:
    try:
        said = client.recv(64)
    except OSError as error:
        found[pair] = Seen(None, error.strerror or str(error))
    else:
        found[pair] = Seen(IPv4Address(said.decode())) if said else Seen(None, "closed")
    selector.unregister(client)


# Ping ----------------------------------------------------------------------------------
def ping_all(pairs: Sequence[Pair], seconds: float = 1.5, size: int = 56) -> dict[Pair, Seen]:
    """Ping from each pair's first to its second with *size* bytes, DF set.

    The source is what the far end saw. Something that comes in pieces counts as not seen.
    """
    run = _Pings(pairs, size)
    with ExitStack() as exits:
        for peer in dict.fromkeys(itertools.chain.from_iterable(pairs)):
            run.open(peer, exits)
        for start, batch in enumerate(batches(pairs, 24)):
            for index, pair in enumerate(batch, start * 24):
                run.send(index, pair)
            run.read(0)
        until = time.monotonic() + seconds
        while not run.is_done and (left := until - time.monotonic()) > 0:
            run.read(left)
    return run.found(f"no answer within {seconds:g} s")


class _Pings:
    """Echo requests on their way.

    The payload carries a token and the pair's number: NAT may change the identifier.
    """

    def __init__(self, pairs: Sequence[Pair], size: int) -> None:
        self._pairs, self._size = pairs, size
        self._token = os.urandom(TOKEN_BYTES)
        self._sockets: dict[Peer, socket.socket] = {}
        self._poll = select.epoll()
        self._by_fd: dict[int, tuple[Peer, socket.socket]] = {}
        self._sources: dict[int, IPv4Address] = {}
        self._answered: set[int] = set()
        self._trouble: dict[int, str] = {}

    @property
    def is_done(self) -> bool:
        # Its answer may be read before the far end's own copy of the request.
        both = self._answered & self._sources.keys()
        return len(both | self._trouble.keys()) == len(self._pairs)

    def open(self, peer: Peer, exits: ExitStack) -> None:
        sock = exits.enter_context(
            peer.place.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVFRAGSIZE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sockets[peer] = sock
        self._by_fd[sock.fileno()] = (peer, sock)
        self._poll.register(sock, select.EPOLLIN)

    def send(self, index: int, pair: Pair) -> None:
        body = self._token + struct.pack("!I", index)
        packet = echo_request(1 + index % 65000, 1, body.ljust(self._size, b"\0"))
        try:
            self._sockets[pair[0]].sendto(packet, (str(pair[1].address), 0))
        except OSError as error:
            self._trouble[index] = error.strerror or str(error)

    def read(self, seconds: float) -> None:
        for fd, _ in self._poll.poll(seconds):
            peer, sock = self._by_fd[fd]
            while True:
                try:
                    packet, ancillary, _, _ = sock.recvmsg(65535, 64)
                except BlockingIOError:
                    break
                self._take(peer, packet, in_pieces=bool(ancillary))

    def _take(self, peer: Peer, packet: bytes, *, in_pieces: bool) -> None:
        at = packet.find(self._token)
        if at < 0:
            return
        start = at + TOKEN_BYTES
        (index,) = struct.unpack_from("!I", packet, start)
        source, kind = IPv4Address(packet[12:16]), packet[(packet[0] & 15) * 4]
        if in_pieces:
            self._trouble[index] = "it came in pieces"
        elif kind == ECHO and self._pairs[index][1] == peer:
            self._sources[index] = source
        elif kind == ECHO_REPLY and self._pairs[index][0] == peer:
            self._answered.add(index)
        elif kind == UNREACHABLE:
            self._trouble[index] = f"{source} says it is unreachable"

    def found(self, otherwise: str) -> dict[Pair, Seen]:
        self._poll.close()
        return {
            pair: Seen(self._sources.get(i), self._trouble.get(i, ""), i in self._answered)
            if i in self._answered or i in self._trouble
            else Seen(self._sources.get(i), otherwise, answered=False)
            for i, pair in enumerate(self._pairs)
        }


def echo_request(identifier: int, sequence: int, body: bytes) -> bytes:
    """Return an ICMP echo request."""
    head = struct.pack("!BBHHH", ECHO, 0, 0, identifier, sequence)
    return head[:2] + struct.pack("!H", checksum(head + body)) + head[4:] + body


def checksum(message: bytes) -> int:
    """Return the Internet checksum of *message* (RFC 1071)."""
    padded = message + b"\0" * (len(message) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# Forgeries -----------------------------------------------------------------------------
def forge(place: Place, sources: Iterable[IPv4Address], target: Peer, each: int = 5) -> int:
    """Send datagrams to *target* from *place* that claim other sources; return how many."""
    datagram = struct.pack("!HHHH", UDP_PORT, UDP_PORT, 8 + len(FORGED), 0) + FORGED
    sent = 0
    with place.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for source, _ in itertools.product(sources, range(each)):
            head = struct.pack(
                "!BBHHHBBH4s4s",
                0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, source.packed, target.address.packed,
            )  # fmt: skip
            sock.sendto(head + datagram, (str(target.address), 0))
            sent += 1
    return sent


class Catcher:
    """A UDP socket at *target* that counts what claims to come from somebody else."""

    def __init__(self, target: Peer) -> None:
        self._sock = target.place.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("0.0.0.0", UDP_PORT))  # noqa: S104 - in a namespace of the lab

    def __enter__(self) -> Catcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def count(self, seconds: float = 0.3) -> int:
        """Return how many forgeries arrive within *seconds*."""
        until, number = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                number += self._sock.recv(64) == FORGED
            except TimeoutError:
                break
        return number


# Taps ----------------------------------------------------------------------------------
class Taps:
    """Packet sockets on links of a place: which link each source's pings leave by."""

    def __init__(self, place: Place, ifnames: Iterable[str]) -> None:
        self._sockets: dict[str, socket.socket] = {}
        for ifname in ifnames:
            sock = place.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
            sock.bind((ifname, ETH_P_ALL))
            sock.settimeout(0)
            self._sockets[ifname] = sock

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets.values():
            sock.close()

    def leaving(self) -> dict[IPv4Address, set[str]]:
        """Return, by source, the links that echo requests have left by."""
        found: dict[IPv4Address, set[str]] = {}
        for ifname, sock in self._sockets.items():
            while True:
                try:
                    packet, address = sock.recvfrom(128)
                except OSError:
                    break  # nothing more; or the link is down, and nothing leaves by it
                if address[2] == PACKET_OUTGOING and _is_echo(packet):
                    found.setdefault(IPv4Address(packet[12:16]), set()).add(ifname)
        return found


def _is_echo(packet: bytes) -> bool:
    start = (packet[0] & 15) * 4
    is_icmp = packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_ICMP  # noqa: PLR2004 - IPv4
    return is_icmp and packet[start] == ECHO
