"""Frames made by hand: what a pod with NET_RAW may try."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from tests.lab.echo import checksum

BROADCAST = "ff:ff:ff:ff:ff:ff"
UDP, IPV4, ARP, IPV6 = 17, 0x0800, 0x0806, 0x86DD


def frame(kind: int, payload: bytes, *, source: str, to: str) -> bytes:
    """Return an Ethernet frame."""
    return _mac(to) + _mac(source) + struct.pack("!H", kind) + payload


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _udp(port: int, text: bytes) -> bytes:
    return struct.pack("!HHHH", 4444, port, 8 + len(text), 0) + text


def udp4(source: IPv4Address, to: IPv4Address, port: int, text: bytes) -> bytes:
    """Return a datagram; IPv4's may do without a checksum of its own."""
    datagram = _udp(port, text)

    def header(total: int) -> bytes:
        both = source.packed + to.packed
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, UDP, total) + both

    return header(checksum(header(0))) + datagram


def udp6(source: IPv6Address, to: IPv6Address, port: int, text: bytes) -> bytes:
    """Return a datagram."""
    bare = _udp(port, text)
    pseudo = source.packed + to.packed + struct.pack("!II", len(bare), UDP)
    datagram = bare[:6] + struct.pack("!H", checksum(pseudo + bare)) + bare[8:]
    return struct.pack("!IHBB", 6 << 28, len(datagram), UDP, 64) + pseudo[:32] + datagram


def arp(operation: int, sender: tuple[str, IPv4Address], target: tuple[str, IPv4Address]) -> bytes:
    """Return an ARP message: 1 asks, 2 answers."""
    ends = b"".join(_mac(mac) + address.packed for mac, address in (sender, target))
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + ends
