"""Hand-packed rtnetlink, beside its oracle: pyroute2 decodes every message we pack."""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import ip_address
from typing import Any, cast

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni import rtnl
from cni.dataplane import GUARD_METRIC, PODS_TABLE, PROTOCOL

V4, V6, GATEWAY = ip_address("10.0.1.20"), ip_address("fd00::20"), ip_address("169.254.1.1")


def decoded(message: rtnl.Message, kind: type[Any]) -> Any:
    size = 16 + len(message.body)
    raw = struct.pack("=IHHII", size, message.kind, message.flags, 1, 0) + message.body
    decoder = kind(raw)
    decoder.decode()
    return decoder


def attrs(found: Any) -> dict[str, Any]:
    return {name: value for name, value in found["attrs"] if name != "IFLA_LINKINFO"}


VETH = rtnl.Veth("eni0123", "0a:58:a9:fe:01:01", 5122, "eth0", "0a:58:0a:00:01:14", 7, 9001)


def test_a_veth_pair_goes_straight_into_the_pod() -> None:
    found = decoded(rtnl.new_veth(VETH), ifinfmsg)
    here = attrs(found)
    assert here["IFLA_IFNAME"] == "eni0123"
    assert here["IFLA_ADDRESS"] == "0a:58:a9:fe:01:01"
    assert (here["IFLA_GROUP"], here["IFLA_MTU"]) == (5122, 9001)
    info = found.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer["flags"] == 0, "a peer that is up already is refused by the kernel"
    there = attrs(peer)
    assert there["IFLA_IFNAME"] == "eth0"
    assert there["IFLA_ADDRESS"] == "0a:58:0a:00:01:14"
    assert (there["IFLA_NET_NS_FD"], there["IFLA_MTU"]) == (7, 9001)
    for end in (here, there):
        assert end["IFLA_NUM_TX_QUEUES"] == end["IFLA_NUM_RX_QUEUES"] == rtnl.queues(os.cpu_count())


@pytest.mark.parametrize(
    ("cpus", "expected"), [(None, 1), (1, 1), (2, 2), (8, 8), (96, 8), (192, 8)]
)
def test_queues_are_capped_on_big_machines(cpus: int | None, expected: int) -> None:
    assert rtnl.queues(cpus) == expected


def test_one_setlink_carries_alias_settings_group_and_up() -> None:
    conf = {"forwarding": 1, "rp_filter": 1}
    message = rtnl.set_link("eni0123", up=True, group=5376, alias="enid1 x", conf=conf)
    found = decoded(message, ifinfmsg)
    assert found["flags"] & 1
    assert found["change"] == 1
    assert attrs(found)["IFLA_IFALIAS"] == "enid1 x"
    assert attrs(found)["IFLA_GROUP"] == 5376
    conf = found.get_attr("IFLA_AF_SPEC").get_attr("AF_INET")
    # IPV4_DEVCONF_FORWARDING, _RP_FILTER
    inner = struct.pack("=HHI", 8, 1, 1) + struct.pack("=HHI", 8, 8, 1)
    assert conf.endswith(struct.pack("=HH", 20, 1) + inner)  # in IFLA_INET_CONF


def test_down_is_down() -> None:
    found = decoded(rtnl.set_link("eni0123", up=False), ifinfmsg)
    assert (found["flags"] & 1, found["change"]) == (0, 1)


@pytest.mark.parametrize(
    ("message", "index", "group", "name"),
    [
        pytest.param(rtnl.up(3), 3, None, None, id="up"),
        pytest.param(rtnl.delete_link("eni0"), 0, None, "eni0", id="delete"),
        pytest.param(rtnl.delete_link_at(7), 7, None, None, id="delete-by-index"),
        pytest.param(rtnl.delete_group(5376), 0, 5376, None, id="delete-group"),
        pytest.param(rtnl.get_link("eni0"), 0, None, "eni0", id="get"),
    ],
)
def test_links(message: rtnl.Message, index: int, group: int | None, name: str | None) -> None:
    found = decoded(message, ifinfmsg)
    assert found["index"] == index
    assert attrs(found).get("IFLA_GROUP") == group
    assert attrs(found).get("IFLA_IFNAME") == name


@pytest.mark.parametrize("address", [V4, V6])
def test_a_pods_address_is_a_hosts(address: rtnl.Address) -> None:
    found = decoded(rtnl.new_address(address, 3), ifaddrmsg)
    assert (found["index"], found["prefixlen"]) == (3, address.max_prefixlen)
    assert attrs(found)["IFA_LOCAL"] == attrs(found)["IFA_ADDRESS"] == str(address)


@pytest.mark.parametrize("address", [V4, V6])
def test_an_address_is_taken_off_by_the_same_words(address: rtnl.Address) -> None:
    message = rtnl.delete_address(address, 1)
    found = decoded(message, ifaddrmsg)
    assert (message.kind, found["index"], found["prefixlen"]) == (21, 1, address.max_prefixlen)
    assert attrs(found)["IFA_LOCAL"] == attrs(found)["IFA_ADDRESS"] == str(address)


def test_a_link_that_gets_no_ipv6_address_of_its_own() -> None:
    found = decoded(rtnl.without_ipv6(3), ifinfmsg)
    assert found["index"] == 3
    family = found.get_attr("IFLA_AF_SPEC").get_attr("AF_INET6")
    assert family.get_attr("IFLA_INET6_ADDR_GEN_MODE") == 1


@pytest.mark.parametrize("address", [V4, V6])
def test_a_neighbour_is_permanent(address: rtnl.Address) -> None:
    found = decoded(rtnl.new_neighbour(address, "0a:58:0a:00:01:14", 3), ndmsg)
    assert (found["state"], found["ifindex"]) == (0x80, 3)
    assert attrs(found) == {"NDA_DST": str(address), "NDA_LLADDR": "0a:58:0a:00:01:14"}


@pytest.mark.parametrize("address", [V4, V6])
def test_a_pods_route(address: rtnl.Address) -> None:
    path = rtnl.Path(
        address, address.max_prefixlen, PODS_TABLE, index=4, protocol=PROTOCOL, source=address
    )
    found = decoded(rtnl.new_route(path), rtmsg)
    assert found["dst_len"] == address.max_prefixlen
    assert (found["proto"], found["type"]) == (PROTOCOL, 1)
    assert found["scope"] == (253 if address.version == 4 else 0)
    assert attrs(found) == {
        "RTA_DST": str(address),
        "RTA_OIF": 4,
        "RTA_PREFSRC": str(address),
        "RTA_TABLE": PODS_TABLE,
    }


def test_a_guard_is_unreachable_behind_the_pods_route() -> None:
    path = rtnl.Path(V4, 32, PODS_TABLE, metric=GUARD_METRIC, protocol=PROTOCOL, kind=7)
    for message in (rtnl.new_route(path), rtnl.delete_route(path)):
        found = decoded(message, rtmsg)
        assert (found["type"], found["scope"]) == (7, 0)
        assert attrs(found)["RTA_PRIORITY"] == GUARD_METRIC


def test_a_route_of_some_packets_names_them_and_goes_so() -> None:
    path = rtnl.Path(V4, 32, PODS_TABLE, index=4, tos=0x10)
    for message in (rtnl.new_route(path), rtnl.delete_route(path)):
        assert decoded(message, rtmsg)["tos"] == 0x10
        assert message.words.endswith(" tos 0x10")


def test_a_rule_is_refused_where_it_is_there_unless_it_is_to_be_there_twice() -> None:
    rule = rtnl.RuleWish(512, PODS_TABLE, PROTOCOL)
    once, twice = rtnl.change_rule(rule), rtnl.change_rule(rule, double=True)
    assert once.flags - twice.flags == rtnl.EXCL
    assert once.body == twice.body


def test_a_default_route_has_no_destination() -> None:
    path = rtnl.Path(ip_address(0), 0, index=2, gateway=GATEWAY)
    found = decoded(rtnl.new_route(path), rtmsg)
    assert (found["dst_len"], found["scope"], found["table"]) == (0, 0, 254)
    assert attrs(found) == {"RTA_OIF": 2, "RTA_GATEWAY": "169.254.1.1", "RTA_TABLE": 254}


def test_a_short_attribute_ends_the_reading() -> None:
    assert rtnl.attributes_of(b"\x02\x00\x01\x00") == {}
    assert rtnl.attributes_of(b"") == {}


class ScriptedSocket:
    """The kernel's end: every send is answered by the next datagram of the script."""

    def __init__(self, *script: list[tuple[int, int, bytes]]) -> None:
        self._script, self._sequence = list(script), 0

    def settimeout(self, seconds: float | None) -> None: ...

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None: ...

    def send(self, data: bytes) -> int:
        _, _, _, self._sequence, _ = struct.unpack_from("=IHHII", data)
        return len(data)

    def recv(self, size: int) -> bytes:
        def message(kind: int, flags: int, body: bytes) -> bytes:
            return struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body

        return b"".join(message(*one) for one in self._script.pop(0))[:size]


LINK, DONE = struct.pack("=BxHiII", 0, 0, 7, 0, 0), struct.pack("=i", 0)
WHOLE, TORN = [(16, 2, LINK), (3, 2, DONE)], [(3, 2 | 0x10, DONE)]


def channel(*script: list[tuple[int, int, bytes]]) -> rtnl.Channel:
    return rtnl.Channel(cast("socket.socket", ScriptedSocket(*script)))


def test_a_dump_that_was_torn_by_a_change_is_asked_for_again() -> None:
    assert [link.index for link in channel(TORN, TORN, WHOLE).dump_links()] == [7]


def test_a_dump_that_is_torn_for_ever_is_an_error_and_not_empty() -> None:
    with pytest.raises(rtnl.NetlinkError, match="5 dumps were torn"):
        channel(*[TORN] * 5).dump_links()


@pytest.mark.parametrize("kind", [2, 3], ids=["error", "done"])
def test_a_dump_that_fails_says_so(kind: int) -> None:
    body = struct.pack("=i", -1) + bytes(16)
    with pytest.raises(rtnl.NetlinkError, match="dump: Operation not permitted"):
        channel([(16, 2, LINK), (kind, 2, body)]).dump_links()


def test_a_dump_of_one_group_has_its_links_and_no_other() -> None:
    sign = rtnl.attribute(27, struct.pack("=I", 5376))
    alias = rtnl.attribute(20, b"-" + sign)  # another's bytes may look like it
    links = [LINK, LINK + sign, LINK + alias, LINK + rtnl.attribute(27, struct.pack("=I", 5377))]
    dump = [*((16, 2, link) for link in links), (3, 2, DONE)]
    assert channel(dump).dump_links(5376) == [rtnl.read_link(LINK + sign)]


def test_what_a_dump_does_not_want_is_not_kept() -> None:
    dump = [(16, 2, b"only"), (16, 2, b"two."), (3, 2, DONE)]
    wanted = channel(dump).dump(18, b"", lambda body: len(body) if body == b"two." else None)
    assert wanted == [4]


ENI = LINK + rtnl.attribute(1, bytes.fromhex("020000000001"))
TORN_WITH_IT = [(16, 2, LINK), (16, 2, ENI), (3, 2 | 0x10, DONE)]


def test_a_link_that_a_torn_dump_shows_is_found() -> None:
    found = channel(TORN_WITH_IT).find_link("02:00:00:00:00:01")
    assert found == rtnl.read_link(ENI)


def test_a_link_that_no_whole_dump_shows_is_not_there() -> None:
    assert channel(TORN, WHOLE).find_link("02:00:00:00:00:01") is None


def test_a_link_that_torn_dumps_do_not_show_may_be_there() -> None:
    with pytest.raises(rtnl.NetlinkError, match="5 dumps were torn"):
        channel(*[TORN] * 5).find_link("02:00:00:00:00:01")


@pytest.mark.parametrize(
    ("kinds", "address"),
    [({1: "0a000001", 2: "0a000002"}, "10.0.0.2"), ({1: "fe80" + "0" * 27 + "1"}, "fe80::1")],
    ids=["the-local-end-counts", "ipv6-has-no-local"],
)
def test_an_address_is_read(kinds: dict[int, str], address: str) -> None:
    body = struct.pack("=BBBBi", 2, 32, 0, 0, 9)
    body += b"".join(rtnl.attribute(kind, bytes.fromhex(text)) for kind, text in kinds.items())
    assert rtnl.read_address(body) == (9, ip_address(address))


def test_the_last_of_a_batch_is_acknowledged_and_every_failure_told() -> None:
    class Kernel(ScriptedSocket):
        asked: bytes = b""

        def send(self, data: bytes) -> int:
            self.asked = bytes(data)
            return super().send(data)

        def recv(self, size: int) -> bytes:
            first = struct.unpack_from("=IHHII", self.asked)[3]
            refused = struct.pack("=IHHIIi", 20, 2, 0, first, 0, -errno.EEXIST)
            done = struct.pack("=IHHIIi", 20, 2, 0, first + 1, 0, 0)
            return (refused + done)[:size]

    kernel = Kernel()
    both = [rtnl.up(1), rtnl.up(2)]
    _, errors = rtnl.Channel(cast("socket.socket", kernel)).try_all(both)
    assert [error.errno for error in errors] == [errno.EEXIST]
    size = struct.unpack_from("=I", kernel.asked)[0]
    flags = [struct.unpack_from("=IHH", kernel.asked, at)[2] for at in (0, size)]
    assert flags == [rtnl.REQUEST, rtnl.REQUEST | rtnl.ACK]
