"""What `docs/how-a-pod-gets-its-address.md` shows is captured, and how two captures are compared."""

from __future__ import annotations

import pytest

from tests.tools.way import (
    BLOCK,
    CONSOLE,
    LOOKS,
    PAGE,
    Look,
    block,
    files,
    rewritten,
    settled,
    shape,
)

RULES = Look("rules", "node-a", "ip rule")
ROUTE = Look("route", "node-a", "ip route show table 5120 {ip_a}")


def shown(command: str, output: str, look: Look = ROUTE) -> str:
    return block(look, command, output)


def test_every_output_on_the_page_is_marked_as_captured() -> None:
    page = PAGE.read_text()
    assert len(CONSOLE.findall(page)) == len(BLOCK.findall(page)) > 0


def test_the_page_has_each_look_of_the_script_in_its_order() -> None:
    assert [found["name"] for found in BLOCK.finditer(PAGE.read_text())] == [
        look.name for look in LOOKS
    ]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_a_blocks_command_is_what_the_script_runs(look: Look) -> None:
    (found,) = (found for found in BLOCK.finditer(PAGE.read_text()) if found["name"] == look.name)
    assert found["place"] == look.place
    assert look.pattern.fullmatch(found["command"]), found["command"]


def test_every_block_shows_something() -> None:
    assert [f["name"] for f in BLOCK.finditer(PAGE.read_text()) if not f["output"].strip()] == []


def test_the_files_that_commands_name_are_on_the_page() -> None:
    assert set(files(PAGE.read_text())) == {"hello.yaml", "eni_of.py", "trace.nft"}


def test_names_in_a_command_are_the_runs() -> None:
    assert ROUTE.pattern.fullmatch("ip route show table 5120 10.0.1.24")
    assert not ROUTE.pattern.fullmatch("ip route show table 5121 10.0.1.24")
    assert not RULES.pattern.fullmatch("ip rule list")


def test_a_block_is_written_anew() -> None:
    old = shown("ip route show table 5120 10.0.1.7", "old\n")
    new = shown("ip route show table 5120 10.0.1.8", "new\n")
    assert rewritten(f"a\n\n{old}\n\nb\n", {"route": new}) == f"a\n\n{new}\n\nb\n"


ONE = "10.0.1.24 dev eniaa77d14b546 src 10.0.1.5\nunreachable 10.0.1.24\n"


def routes(output: str) -> list[str]:
    return shape(shown(f"ip route show table 5120 {output.split(maxsplit=1)[0]}", output))


def test_another_run_has_other_addresses() -> None:
    other = "10.0.1.30 dev eni0123456789a src 10.0.1.4\nunreachable 10.0.1.30\n"
    assert routes(other) == routes(ONE)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(ONE.replace("unreachable 10.0.1.24", "unreachable 10.0.1.25"), id="another-pods-guard"),
        pytest.param(ONE.replace("10.0.1.5", "10.0.1.24"), id="its-own-source"),
        pytest.param(ONE.replace("unreachable 10.0.1.24\n", ""), id="no-guard"),
        pytest.param(ONE.replace("eniaa77d14b546", "ens6"), id="no-veth"),
    ],
)  # fmt: skip
def test_another_run_has_the_same_relations(other: str) -> None:
    assert routes(other) != routes(ONE)


def test_an_address_is_the_same_pods_in_every_block() -> None:
    pods = Look("pod-ips", "admin", "kubectl get pod {a} -o jsonpath='{{.status.podIPs}}'")
    here = shown("kubectl get pod hello-1 -o x", '[{"ip":"10.0.1.24"}]\n', pods)
    there = shown("kubectl get pod hello-1 -o x", '[{"ip":"10.0.1.99"}]\n', pods)
    route = shown("ip route show table 5120 10.0.1.24", ONE)
    assert shape(f"{here}\n\n{route}\n") != shape(f"{there}\n\n{route}\n")


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        pytest.param("log", '{"at": "2026-11-26T22:24:13.180", "waited_seconds": 0.0003}', '{"at": "2026-11-27T00:00:00.001", "waited_seconds": 4.5e-05}', id="times"),
        pytest.param("frame", "CNI_ARGS=A=1;B=2", "CNI_ARGS=B=2;A=1", id="arguments-in-no-order"),
        pytest.param("frame", "enid1 461 265 56611285158293 56721285158293", "enid1 460 265 1 2", id="lengths-and-clocks"),
        pytest.param("veth", "17: eniaa77d14b546@if2: <UP> link-netnsid 13", "9: eniaa77d14b546@if2: <UP> link-netnsid 3", id="indexes"),
        pytest.param("fleet", "node-a   normal   3      12         11     1s", "node-a  normal  3  9  4  1m12s", id="counts-and-ages"),
        pytest.param("status", "eni-e4cfc14c0d6a…   4 of 9   ███·", "eni-86f3946da931…   9 of 9   █████████", id="bars"),
        pytest.param("record", '2  eni-2e545d28c6e8b295e  ["10.0.1.16/31","10.0.1.24/30"]', '2  eni-e4cfc14c0d6a3d102  ["10.0.1.19/32"]', id="lists"),
        pytest.param("times", "the pod   2073.7 ms  100.0 %", "the pod    873.7 ms   99.0 %", id="figures"),
        pytest.param("out-known", "icmp     1 29 src=10.0.1.24 id=223 id=49955", "icmp     1 9 src=10.0.1.5 id=45678 id=7", id="echoes"),
        pytest.param("at-eni-a", "10.0.2.6.8080 > 10.0.1.23.43408: Flags [S.] …", "10.0.2.6.8080 > 10.0.1.8.41516: Flags [S.] …", id="a-clients-port-before-a-colon"),
        pytest.param("known-a", "tcp      6 119 TIME_WAIT sport=49212 dport=80", "tcp      6 9 TIME_WAIT sport=33000 dport=80", id="clients-ports"),
    ],
)  # fmt: skip
def test_what_varies_is_not_compared(name: str, one: str, other: str) -> None:
    (look,) = (look for look in LOOKS if look.name == name)
    assert shape(shown("x", f"{one}\n", look)) == shape(shown("x", f"{other}\n", look))


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        pytest.param("known-a", "mark=0 use=1", "mark=128 use=1", id="a-mark"),
        pytest.param("rules", "512:	from all lookup 5120", "513:	from all lookup 5120", id="a-preference"),
        pytest.param("drops", "spoofed_ip 0", "spoofed_ip 1", id="a-drop"),
        pytest.param("veth", "mtu 9001 group 5122", "mtu 9001 group 5121", id="a-group"),
        pytest.param("log", '"event": "address assigned"', '"event": "address taken"', id="an-event"),
    ],
)  # fmt: skip
def test_what_does_not_vary_is_compared(name: str, one: str, other: str) -> None:
    (look,) = (look for look in LOOKS if look.name == name)
    assert shape(shown("x", f"{one}\n", look)) != shape(shown("x", f"{other}\n", look))


def test_what_nobody_needs_to_see_is_cut() -> None:
    traced = (
        "trace id 1a ip way trace policy accept \n"
        'trace id 1a ip enid leave packet: iif "e0" ether saddr 0a:58 ether daddr 0a:59 ip saddr 10.0.1.24'
        " ip daddr 10.0.2.6 ip dscp cs0 ip ecn not-ect ip ttl 64 ip id 1 ip length 60 tcp sport 49212"
        " tcp dport 8080 tcp flags == syn tcp window 62727 \n"
        "trace id 1a ip nat PREROUTING rule  counter packets 10 bytes 600 jump KUBE-SERVICES\n"
    )
    assert settled(traced) == (
        'trace id 1a ip enid leave packet: iif "e0" … ip saddr 10.0.1.24 ip daddr 10.0.2.6'
        " … ip ttl 64 … tcp sport 49212 tcp dport 8080 …\n"
        "trace id 1a ip nat PREROUTING rule jump KUBE-SERVICES\n"
    )


def test_endpoints_come_in_no_order() -> None:
    def page(endpoints: str) -> str:
        return shown("ip a", "10.0.0.1\n10.0.0.2\n") + "\n" + shown("kubectl", endpoints + "\n")

    assert shape(page("10.0.0.1,10.0.0.2")) == shape(page("10.0.0.2,10.0.0.1"))
    assert shape(page("10.0.0.1,10.0.0.2")) != shape(page("10.0.0.2,10.0.0.3"))
