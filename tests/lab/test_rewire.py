"""The wire's settings change while the daemon runs: what there is stays, what begins is as they say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.patience import PATIENCE
from tests.lab.test_daemon import Ipamd
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

CHANGED = {
    "AWS_VPC_K8S_CNI_EXTERNALSNAT": "true",
    "AWS_EXTERNAL_SERVICE_CIDRS": "10.200.0.0/16",
    "AWS_VPC_CNI_NODE_PORT_SUPPORT": "false",
    "AWS_VPC_ENI_MTU": "1500",
    "POD_MTU": "1300",
    "AWS_VPC_K8S_CNI_VETHPREFIX": "pod",
    "DISABLE_POD_V6": "true",
    "ENID_MSS_CLAMP": "true",
    "ENID_BLOCK_POD_METADATA": "true",
}
SECONDS = 20.0
"""The folder is looked at every 5 s."""


@pytest.fixture
def ipamd(vpc: EmbeddedVPC, tmp_path: Path) -> Iterator[Ipamd]:
    """Give the daemon of a node that has one pod on each of two ENIs."""
    subnet = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
    node = vpc.launch_node("node", "t3.micro", subnet)
    prepare(node)
    daemon = Ipamd(node, tmp_path / "log", IP_COOLDOWN_PERIOD="0")
    daemon.start()
    for name in ("first", "second"):
        daemon.add(name)
    yield daemon
    daemon.close()


def links(ipamd: Ipamd) -> str:
    return ipamd.node.run(["ip", "-o", "link"]).stdout


def test_the_mounted_configmap_rewires_a_node(ipamd: Ipamd) -> None:
    run = ipamd.node.run
    before = links(ipamd)
    assert (before.count(" mtu 9001 "), before.count(": eni")) == (4, 2)
    table = run(["nft", "list", "table", "ip", "enid"]).stdout
    assert "snat to" in table
    assert "iifgroup 5249 goto came1" in table
    folder = ipamd.node.path("/etc/enid/settings")
    folder.mkdir(parents=True)
    for name, value in CHANGED.items():
        (folder / name).write_text(value)
    end = time.monotonic() + SECONDS * PATIENCE
    while "to 10.200.0.0/16 lookup main" not in run(["ip", "rule"]).stdout:
        assert time.monotonic() < end, ipamd.log.read_text()[-3000:]
        time.sleep(0.05)

    table = run(["nft", "list", "table", "ip", "enid"]).stdout
    for gone in ("snat to", "iifgroup 5249 goto came1"):
        assert gone not in table
    for there in ("maxseg size set rt mtu", "ip daddr 169.254.169.254"):
        assert there in table
    after = links(ipamd)
    assert after.count(" mtu 1500 ") == 2, "the ENIs"
    assert [line for line in after.splitlines() if ": eni" in line] == [
        line for line in before.splitlines() if ": eni" in line
    ], "the wires of pods that are there"

    ipamd.delete("first")
    ipamd.add("third")
    (made,) = [line for line in links(ipamd).splitlines() if ": pod" in line]
    assert " mtu 1300 " in made
    inside = ipamd.netns("third").run(["ip", "addr"]).stdout
    assert "mtu 1300" in inside
    assert "inet6" not in inside
