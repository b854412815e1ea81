"""The pool on nodes that are real but for AWS: prefixes carry packets, settings change as it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipamd.cli import ask
from tests.lab.echo import echo
from tests.lab.talk import talk
from tests.lab.test_daemon import Ipamd
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node

PREFIXES = {"ENABLE_PREFIX_DELEGATION": "true"}


@pytest.fixture
def daemons(nodes: tuple[Node, Node], tmp_path: Path) -> Iterator[tuple[Ipamd, Ipamd]]:
    """A daemon for each of two nodes, with prefix delegation; not started."""
    a, b = (Ipamd(node, tmp_path / f"{node.name}.log", **PREFIXES) for node in nodes)
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def alone(vpc: EmbeddedVPC, tmp_path: Path) -> Iterator[Ipamd]:
    """A daemon of a node in a subnet of its own, whose /28s other people have broken up."""
    number = len(vpc.ec2.describe_subnets()["Subnets"]) + 70
    subnet = vpc.add_subnet(f"10.0.{number}.0/26", "us-east-1a")
    node = vpc.launch_node(f"node-{number}", "m5.large", subnet)
    prepare(node)
    for last in (20, 36, 52):
        vpc.ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress=f"10.0.{number}.{last}")
    daemon = Ipamd(node, tmp_path / "alone.log", **PREFIXES)
    yield daemon
    daemon.close()
    node.terminate()


def prefixes_of(vpc: EmbeddedVPC, node: Node) -> list[IPv4Network]:
    enis = [eni for eni in vpc.enis() if eni.instance_id == node.instance_id]
    return [IPv4Network(str(prefix)) for eni in enis for prefix in eni.prefixes]


def test_pods_of_prefixes_talk_across_nodes(vpc: EmbeddedVPC, daemons: tuple[Ipamd, Ipamd]) -> None:
    a, b = daemons
    for daemon in daemons:
        daemon.start()
        daemon.wait(lambda s: any(eni["prefixes"] for eni in s["enis"]))
    server = b.add("server")
    clients = {name: a.add(name) for name in ("one", "two", "three")}
    assert any(server in prefix for prefix in prefixes_of(vpc, b.node))
    (prefix,) = prefixes_of(vpc, a.node)
    assert all(address in prefix for address in clients.values()), "one call serves them all"
    vpc.reset_drops()
    for name, address in clients.items():
        seen = talk(a.netns(name), b.netns("server"), server)
        assert IPv4Address(seen or "127.0.0.1") == address
    assert not any(vpc.drops().values())
    freed = clients["one"]
    a.delete("one")
    assert not echo(b.netns("server"), freed).arrived, "the guard of the /28 holds"
    assert echo(b.netns("server"), clients["two"]).arrived


def test_a_subnet_without_a_whole_28_gives_single_addresses_and_says_so(alone: Ipamd) -> None:
    alone.start()
    status = alone.wait(lambda s: any(eni["singles"] for eni in s["enis"]))
    assert not any(eni["prefixes"] for eni in status["enis"])
    alone.add("web")
    log = alone.log.read_text()
    assert "subnet exhausted" in log
    assert "no CIDR of it is reserved for them" in log, "what would help is said"


def test_the_mounted_configmap_changes_a_daemon_that_runs(alone: Ipamd) -> None:
    folder = alone.node.path("/etc/enid/settings")
    folder.mkdir(parents=True)
    alone.start()
    report = ask(alone.socket, "SETTINGS")
    assert report["pool"] == "demand"
    (folder / "WARM_IP_TARGET").write_text("5")
    (folder / "MINIMUM_IP_TARGET").write_text("5")
    alone.wait(lambda s: sum(eni["free"] for eni in s["enis"]) >= 5)
    (folder / "WARM_IP_TARGET").write_text("many")
    status = alone.wait(lambda s: "settings-kept" in s["modes"])
    assert sum(eni["free"] for eni in status["enis"]) >= 5
    report = ask(alone.socket, "SETTINGS")
    assert "many" in str(report["complaint"])
    (row,) = [row for row in report["settings"] if row["name"] == "WARM_IP_TARGET"]
    assert row["value"] == "5"
    assert "configmap" in (row["origin"] + row["where"]).lower()
    (folder / "WARM_IP_TARGET").write_text("6")
    alone.wait(lambda s: s["modes"] == ["normal"] and sum(e["free"] for e in s["enis"]) >= 6)


def test_a_spot_interruption_stops_growth_and_not_pods(vpc: EmbeddedVPC, alone: Ipamd) -> None:
    alone.start()
    alone.wait(lambda s: any(eni["free"] for eni in s["enis"]))
    vpc.imds.say(alone.node.instance_id, "spot/instance-action", '{"action": "terminate"}')
    status = alone.wait(lambda s: "leaving" in s["modes"], seconds=30)
    held = sum(eni["free"] for eni in status["enis"])
    assert held
    alone.add("last")
    time.sleep(0.5)
    assert sum(eni["free"] for eni in alone.status()["enis"]) == held - 1
