"""What a pod leaves behind on its node: nothing of it meets the next one, and nothing stays open."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.flows.tracked import Tracked, tracked
from tests.lab.patience import PATIENCE
from tests.lab.test_daemon import MAIN, Ipamd
from vpclab.enid import RIGHTS, prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

PORT = 5353


@pytest.fixture(scope="module")
def ipamd(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ipamd]:
    """Give the daemon of a node that has one address for pods, which may be used again at once."""
    subnet = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
    node = vpc.launch_node("node", "t3.micro", subnet, public=True)
    prepare(node)
    log = tmp_path_factory.mktemp("daemon") / "log"
    daemon = Ipamd(node, log, MAX_ENI="1", IP_COOLDOWN_PERIOD="0")
    daemon.start()
    daemon.wait(lambda s: s["ready"])
    yield daemon
    daemon.close()


def flows_of(ipamd: Ipamd, address: IPv4Address) -> list[Tracked]:
    """Return what the node's conntrack knows of an address."""
    return [
        flow
        for flow in tracked(ipamd.node)
        if address in {flow.original.source, flow.original.to, flow.reply.source, flow.reply.to}
    ]


def test_no_flow_of_a_pod_is_known_when_its_address_goes_to_the_next(
    ipamd: Ipamd, vpc: EmbeddedVPC
) -> None:
    """The next pod waits for the very address, and gets it only without the old flows."""
    address = ipamd.add("first")
    with (
        ipamd.netns("first").socket(AF_INET, SOCK_DGRAM) as sock,
        vpc.internet.socket(AF_INET, SOCK_DGRAM) as far,
    ):
        far.bind(("", PORT))
        far.settimeout(2 * PATIENCE)
        sock.settimeout(2 * PATIENCE)
        sock.sendto(b"from inside", (str(vpc.internet.address), PORT))
        data, peer = far.recvfrom(100)
        far.sendto(data, peer)
        assert sock.recv(100) == data
    (flow,) = flows_of(ipamd, address)
    assert (flow.mark, flow.reply.to) == (0x80, ipamd.node.primary), "translated, and for minutes"
    answers: list[tuple[int, dict[str, Any]]] = []
    known: list[Tracked] = []
    ipamd.netns("second")

    def add() -> None:
        answers.append(ipamd.call("ADD", "second"))
        known.extend(flows_of(ipamd, address))

    waiting = threading.Thread(target=add)
    waiting.start()
    ipamd.wait(lambda s: s["waiting"] == 1)
    assert flows_of(ipamd, address) == [flow]
    ipamd.delete("first")
    waiting.join(20 * PATIENCE)
    assert answers[0][0] == 0, answers
    assert answers[0][1]["ips"][0]["address"] == f"{address}/32"
    assert known == []
    ipamd.delete("second")


def test_an_add_leaves_no_descriptor_open_and_a_namespace_goes_with_its_pod(ipamd: Ipamd) -> None:
    """An open netlink socket of the pod's would keep its namespace, and both ends of the wire."""
    assert ipamd.process is not None
    folder = Path(f"/proc/{ipamd.process.pid}/fd")

    def descriptors() -> int:
        return len(list(folder.iterdir()))

    ipamd.add("before")
    ipamd.delete("before")
    at_rest = descriptors()
    ipamd.add("gone")
    veths = ipamd.node.run(["ip", "-o", "link", "show", "type", "veth"]).stdout
    assert veths.count("alias enid1") == 1
    ipamd.wait(lambda _: descriptors() <= at_rest)
    namespaces = {path.readlink() for path in folder.iterdir() if path.exists()}
    assert not [link for link in namespaces if str(link).startswith("net:")]
    ipamd.pods.pop("gone").close()
    ipamd.wait(lambda _: "alias enid1" not in ipamd.node.run(["ip", "-o", "link"]).stdout)


LACKS = """#!/bin/sh
text=$(cat)
case $text in *"$LACKS"*) echo "Error: Could not process rule: Operation not supported" >&2; exit 1;; esac
"""


@pytest.mark.parametrize(
    ("lacks", "setting", "name"),
    [
        pytest.param("fib daddr", {}, "nf_tables fib for IPv4 (CONFIG_NFT_FIB_IPV4)", id="fib"),
        pytest.param(
            "rt mtu",
            {"ENID_MSS_CLAMP": "true"},
            "nf_tables rt (rt mtu, for ENID_MSS_CLAMP)",
            id="for-a-setting",
        ),
    ],
)
def test_a_kernel_that_lacks_a_feature_is_refused_with_its_name(
    ipamd: Ipamd, tmp_path: Path, lacks: str, setting: dict[str, str], name: str
) -> None:
    """Before any pod is served, and before anything is changed."""
    ipamd.kill()
    (tmp_path / "nft").write_text(LACKS)
    (tmp_path / "nft").chmod(0o755)
    before = ipamd.node.run(["nft", "list", "ruleset"]).stdout
    env = {**ipamd.env, **setting, "PATH": f"{tmp_path}:{ipamd.node.env['PATH']}", "LACKS": lacks}
    argv = [sys.executable, "-c", MAIN]
    done = ipamd.node.run(argv, env=env, rights=RIGHTS, check=False)
    assert done.returncode == 78
    assert f"{name} is needed" in done.stderr
    assert "Operation not supported" in done.stderr
    assert "NODE-UNFIT" in done.stderr
    assert ipamd.node.run(["nft", "list", "ruleset"]).stdout == before


def test_rights_that_nobody_needs_are_named_in_the_log(ipamd: Ipamd) -> None:
    """With all of root's, and a root that can be written."""
    env = {**ipamd.env, "MAX_ENI": "-1"}
    ipamd.stop()  # or this one would wait for the lock
    done = ipamd.node.run([sys.executable, "-c", MAIN], env=env, check=False)
    ipamd.start()
    assert done.returncode == 78
    for right in (
        "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "no_new_privs is not set", "no seccomp filter",
        "/ is writable",
    ):  # fmt: skip
        assert right in done.stderr
    assert "CAP_NET_ADMIN" not in done.stderr
