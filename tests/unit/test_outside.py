"""The lab's resolver on the internet knows one name."""

from __future__ import annotations

import struct

import pytest

from vpclab.checks import agent
from vpclab.cluster.outside import reply_to


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
    return struct.pack("!HHHHHH", 77, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        pytest.param("checkip.amazonaws.com", 1, 0, ["203.0.113.1"], id="its-own"),
        pytest.param("CheckIP.amazonaws.com", 1, 0, ["203.0.113.1"], id="letters-of-any-size"),
        pytest.param("checkip.amazonaws.com", 28, 0, [], id="no-ipv6"),
        pytest.param("sts.amazonaws.com", 1, 3, [], id="another"),
    ],
)
def test_what_it_knows(name: str, kind: int, code: int, addresses: list[str]) -> None:
    asked = query(name, kind)
    reply = reply_to(asked)
    assert reply[:2] == asked[:2]
    assert reply[3] & 15 == code
    assert agent.records(reply, len(asked)) == addresses
