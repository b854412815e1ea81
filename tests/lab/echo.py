"""A ping that needs no program, and tells what a ping prints."""

from __future__ import annotations

import itertools
import os
import select
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from socket import AF_INET, IPPROTO_ICMP, IPPROTO_IP, SOCK_RAW
from typing import TYPE_CHECKING

from tests.lab.patience import PATIENCE

if TYPE_CHECKING:
    from vpclab.node import Node, PodNetns

IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_TTL = 10, 2, 2
ECHO, ECHO_REPLY = 8, 0
WAIT_SECONDS = 0.4 * PATIENCE

numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Echo:
    """What came of one echo request; silence if all is None."""

    ttl: int | None = None
    """The reply's time to live."""

    error: tuple[int, int, int] | None = None
    """Type, code and MTU of an ICMP error."""

    errno: int | None = None
    """The own kernel's refusal to send."""

    @property
    def arrived(self) -> bool:
        return self.ttl is not None


def echo(
    place: Node | PodNetns,
    to: object,
    *,
    size: int = 56,
    ttl: int = 64,
    source: IPv4Address | None = None,
) -> Echo:
    """Send one echo request of *size* bytes of data, never in fragments."""
    identifier, sequence = os.getpid() & 0xFFFF, next(numbers) & 0xFFFF
    request = struct.pack("!BBHHH", ECHO, 0, 0, identifier, sequence) + bytes(size)
    request = request[:2] + struct.pack("!H", checksum(request)) + request[4:]
    with place.socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) as sock:
        sock.setsockopt(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        sock.setsockopt(IPPROTO_IP, IP_TTL, ttl)
        if source is not None:
            sock.bind((str(source), 0))
        try:
            sock.sendto(request, (str(to), 0))
        except OSError as refusal:
            return Echo(errno=refusal.errno)
        deadline = time.monotonic() + WAIT_SECONDS
        while (left := deadline - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
            with suppress(OSError):
                packet = sock.recv(65535)
                if (heard := _heard(packet, request[4:8])) is not None:
                    return heard
    return Echo()


def _heard(packet: bytes, ours: bytes) -> Echo | None:
    """Return what a packet says of our request, None if it is about something else."""
    icmp = packet[(packet[0] & 15) * 4 :]
    if icmp[0] == ECHO_REPLY and icmp[4:8] == ours:
        return Echo(ttl=packet[8])
    inner = icmp[8:]
    if icmp[0] in {3, 11} and inner[(inner[0] & 15) * 4 :][4:8] == ours:
        return Echo(error=(icmp[0], icmp[1], int.from_bytes(icmp[6:8], "big")))
    return None


def checksum(data: bytes) -> int:
    """Return the internet checksum."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
