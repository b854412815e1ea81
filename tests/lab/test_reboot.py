"""A node that is rebooted: what is kept, what is gone, what begins anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node

KEPT = ("/var/lib/enid/journal", "/etc/mark", "/opt/mark")
SECONDS = 60
"""More than a reboot takes; the machine that the tests are run on is up for longer."""


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """What was so before the reboot."""
    return {}


@pytest.fixture(scope="module")
def node(vpc: EmbeddedVPC, before: dict[str, str]) -> Node:
    """A node with two ENIs, files and a process, that was rebooted."""
    subnet_id = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
    node = vpc.launch_node("node-a", "m5.large", subnet_id, public=True)
    eni = vpc.ec2.create_network_interface(SubnetId=subnet_id)["NetworkInterface"]
    vpc.ec2.attach_network_interface(
        NetworkInterfaceId=eni["NetworkInterfaceId"], InstanceId=node.instance_id, DeviceIndex=1
    )
    for path in (*KEPT, "/run/enid/leases"):
        node.run(["sh", "-ec", f"mkdir -p $(dirname {path}); echo mine > {path}"])
    node.run(["ip", "link", "set", "ens6", "up"])
    node.run(["ip", "netns", "add", "pod"])
    node.popen(["sleep", "1234.5"])
    before |= {"boot_id": node.boot_id, "links": links(node), "netns": inode(node)}
    node.reboot()
    return node


def links(node: Node) -> str:
    """Return the node's links with their MACs."""
    found = json.loads(node.run(["ip", "-j", "link"]).stdout)
    return json.dumps({link["ifname"]: link["address"] for link in found})


def inode(node: Node) -> str:
    """Return which network namespace it is in."""
    return node.run(["readlink", "/proc/self/ns/net"]).stdout


def test_its_disk_is_kept_and_run_is_empty(node: Node) -> None:
    assert [node.run(["cat", path]).stdout for path in KEPT] == ["mine\n"] * len(KEPT)
    assert node.run(["ls", "/run"]).stdout.split() == ["lock", "netns"]
    assert node.run(["ls", "/run/netns", "/run/lock"]).stdout.split() == [
        "/run/lock:",
        "/run/netns:",
    ]


def test_its_enis_are_plugged_as_they_were_and_the_first_is_up(
    node: Node, before: dict[str, str]
) -> None:
    assert links(node) == before["links"]
    up = json.loads(node.run(["ip", "-j", "link", "show", "up"]).stdout)
    assert {link["ifname"] for link in up if link} == {"lo", "ens5"}
    assert str(node.primary) in node.run(["ip", "addr", "show", "ens5"]).stdout


def test_it_is_another_boot_in_another_namespace(node: Node, before: dict[str, str]) -> None:
    assert node.boot_id != before["boot_id"]
    assert inode(node) != before["netns"]
    assert "1234.5" not in node.run(["ps", "-eo", "args"]).stdout


def test_its_clocks_began_anew(node: Node) -> None:
    clocks = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())"
    said = node.run(["python3", "-c", clocks]).stdout.split()
    assert all(0 < float(clock) < SECONDS for clock in said)
    assert float(node.run(["cat", "/proc/uptime"]).stdout.split()[0]) < SECONDS


def test_it_is_reached_and_reaches_as_before(vpc: EmbeddedVPC, node: Node) -> None:
    assert vpc.check() == []
    node.run(["ping", "-c", "1", "-W", "5", str(vpc.internet.address)])
    vpc.internet.run(["ping", "-c", "1", "-W", "5", str(vpc.public_address(node))])


def test_it_may_be_rebooted_again_and_end(vpc: EmbeddedVPC, node: Node) -> None:
    former = node.boot_id
    node.reboot()
    assert node.boot_id != former
    assert vpc.check() == []
    node.terminate()
    assert vpc.check() == []
