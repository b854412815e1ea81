"""Pods of no CNI's: wired by hand, as `ip` and `nft` would, over what the embedded VPC gives.

pod P ── veth ── node ── rule "from P to the VPC lookup 10N" ── the ENI that P is an address of
                      ── main table, SNAT to the node ──────── ens5, to the internet
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

import pytest

from tests.lab.echo import Echo, echo
from tests.lab.talk import talk

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node, PodNetns
    from vpclab.vpc import VpcEni

SNAT = """
table ip wired {{
  chain outward {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "ens5" ip daddr != 10.0.0.0/16 snat to {primary}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, its address, its node, and the ENI that the address is of."""

    netns: PodNetns
    address: IPv4Address
    node: Node
    eni: VpcEni


@dataclass(frozen=True, slots=True)
class Scene:
    """Two nodes in two subnets, and pods on their ENIs."""

    vpc: EmbeddedVPC
    a: Node
    b: Node
    on_second: Pod
    """Of node a, on a secondary address of its second ENI."""
    on_first: Pod
    """Of node a, on a secondary address of its primary ENI."""
    in_prefix: Pod
    """Of node b, in a /28 of its second ENI."""

    @contextlib.contextmanager
    def dropped(self, *causes: str) -> Iterator[None]:
        """Expect drops for these causes and no other."""
        self.vpc.reset_drops()
        yield
        assert {cause for cause, count in self.vpc.drops().items() if count} == set(causes)


def second_eni(vpc: EmbeddedVPC, node: Node, **wish: int) -> VpcEni:
    """Return an ENI at device index 1, raised and with a table of its own."""
    (first,) = [e for e in vpc.enis() if e.instance_id == node.instance_id]
    made = vpc.ec2.create_network_interface(SubnetId=first.subnet_id, **wish)
    eni_id = made["NetworkInterface"]["NetworkInterfaceId"]
    vpc.ec2.attach_network_interface(
        NetworkInterfaceId=eni_id, InstanceId=node.instance_id, DeviceIndex=1
    )
    (eni,) = [e for e in vpc.enis() if e.id == eni_id]
    router = IPv4Network(f"{eni.primary}/24", strict=False)[1]
    script = f"""
    ip link set ens6 mtu 9001 up
    ip addr add {eni.primary}/24 dev ens6 noprefixroute
    ip route add {router} dev ens6 scope link table 101
    ip route add default via {router} dev ens6 onlink table 101
    """
    node.run(["sh", "-ec", script])
    return eni


def pod(node: Node, name: str, address: IPv4Address, eni: VpcEni) -> Pod:
    """Return a pod with *address*."""
    netns = node.add_pod_netns(name)
    outside = f"""
    ip link add {name} type veth peer name eth0 mtu 9001 netns /run/netns/{name}
    ip link set {name} mtu 9001 up
    ip addr add 169.254.1.1/32 dev {name}
    ip route add {address} dev {name} scope link
    ip rule add to {address} lookup main pref 512
    """
    if eni.device_index:
        outside += f"ip rule add from {address} to 10.0.0.0/16 lookup 101 pref 1536\n"
    inside = f"""
    ip link set lo up
    ip link set eth0 up
    ip addr add {address}/32 dev eth0
    ip route add 169.254.1.1 dev eth0 scope link
    ip route add default via 169.254.1.1
    """
    node.run(["sh", "-ec", outside])
    netns.run(["sh", "-ec", inside])
    return Pod(netns, address, node, eni)


@pytest.fixture(scope="module")
def scene(vpc: EmbeddedVPC) -> Iterator[Scene]:
    a, b = (
        vpc.launch_node(name, "m5.large", vpc.add_subnet(cidr, zone), public=True)
        for name, cidr, zone in (("wired-a", "10.0.1.0/24", "us-east-1a"),
                                 ("wired-b", "10.0.2.0/24", "us-east-1b"))
    )  # fmt: skip
    for node in (a, b):
        node.run(["nft", "-f", "-"], input=SNAT.format(primary=node.primary))
    (first,) = [e for e in vpc.enis() if e.instance_id == a.instance_id]
    answer = vpc.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=first.id, SecondaryPrivateIpAddressCount=1
    )
    own = IPv4Address(answer["AssignedPrivateIpAddresses"][0]["PrivateIpAddress"])
    second = second_eni(vpc, a, SecondaryPrivateIpAddressCount=2)
    delegated = second_eni(vpc, b, Ipv4PrefixCount=1)
    pods = (
        pod(a, "second", second.secondary[0], second),
        pod(a, "first", own, first),
        pod(b, "prefix", delegated.prefixes[0][5], delegated),
    )
    yield Scene(vpc, a, b, *pods)
    for one in pods:
        one.netns.close()


@pytest.mark.row("pod to pod across nodes", "delegated prefix")
def test_pods_on_two_nodes_talk_as_themselves(scene: Scene) -> None:
    for one in (scene.on_second, scene.on_first):
        other = scene.in_prefix
        with scene.dropped():
            assert talk(one.netns, other.netns, other.address) == str(one.address)
            assert talk(other.netns, one.netns, one.address) == str(other.address)


@pytest.mark.row("pod to pod across nodes")
def test_pods_of_one_node_talk_as_themselves(scene: Scene) -> None:
    one, other = scene.on_second, scene.on_first
    with scene.dropped():
        assert talk(one.netns, other.netns, other.address) == str(one.address)


@pytest.mark.row("pods and nodes")
def test_pods_and_nodes_talk_both_ways(scene: Scene) -> None:
    for one in (scene.on_second, scene.on_first, scene.in_prefix):
        for node in (scene.a, scene.b):
            with scene.dropped():
                assert talk(one.netns, node, node.primary) == str(one.address)
                # A node speaks to its own pod from the veth's address, to others' as itself.
                own = "169.254.1.1" if node is one.node else str(node.primary)
                assert talk(node, one.netns, one.address) == own


@pytest.mark.row("pod to internet")
def test_the_internet_sees_a_pod_as_its_node(scene: Scene) -> None:
    internet = scene.vpc.internet
    for one in (scene.on_second, scene.on_first, scene.in_prefix):
        with scene.dropped():
            seen = talk(one.netns, internet, internet.address)
        assert seen == str(scene.vpc.public_address(one.node))


@pytest.mark.row("path MTU at the internet gateway", "path MTU in the VPC")
def test_a_pod_hears_what_fits(scene: Scene) -> None:
    one, other = scene.on_first.netns, scene.in_prefix
    with scene.dropped():
        assert echo(one, scene.vpc.internet.address, size=1501 - 28).error == (3, 4, 1500)
        assert echo(one, scene.vpc.internet.address, size=1500 - 28).arrived
        assert echo(one, other.address, size=8973).arrived
        assert echo(one, other.address, size=8974).errno is not None


@pytest.mark.row("without SNAT")
def test_a_pod_that_is_not_translated_reaches_no_internet(scene: Scene) -> None:
    one = scene.on_first
    one.node.run(["nft", "delete", "table", "ip", "wired"])
    with scene.dropped("no_public"):
        assert echo(one.netns, scene.vpc.internet.address) == Echo()
    one.node.run(["nft", "-f", "-"], input=SNAT.format(primary=one.node.primary))


@pytest.mark.row("wrong ENI of its own node")
def test_a_pod_s_packet_by_another_eni_of_its_node_is_dropped(scene: Scene) -> None:
    one = scene.on_second
    rule = f"from {one.address} to 10.0.0.0/16 lookup 101 pref 1536".split()
    one.node.run(["ip", "rule", "del", *rule])
    with scene.dropped("spoofed_ip"):
        assert not echo(one.netns, scene.b.primary).arrived
    one.node.run(["ip", "rule", "add", *rule])
    with scene.dropped():
        assert echo(one.netns, scene.b.primary).arrived


@pytest.mark.row("another ENI's address", "unassigned source")
def test_a_pod_with_an_address_that_is_not_its_node_s_is_dropped(scene: Scene) -> None:
    one = scene.on_second
    for forged in (scene.in_prefix.address, IPv4Address("10.0.1.250")):
        one.netns.run(["ip", "addr", "add", f"{forged}/32", "dev", "eth0"])
        one.node.run(["ip", "rule", "add", "from", str(forged), "lookup", "101", "pref", "1537"])
        with scene.dropped("spoofed_ip"):
            assert not echo(one.netns, scene.b.primary, source=forged).arrived
        one.node.run(["ip", "rule", "del", "pref", "1537"])
        one.netns.run(["ip", "addr", "del", f"{forged}/32", "dev", "eth0"])


@pytest.mark.row("unassign and assign")
def test_a_pod_is_there_as_long_as_its_address_is_assigned(scene: Scene) -> None:
    one, ec2 = scene.on_second, scene.vpc.ec2
    named = {"NetworkInterfaceId": one.eni.id, "PrivateIpAddresses": [str(one.address)]}
    ec2.unassign_private_ip_addresses(**named)
    with scene.dropped("unassigned"):
        assert not echo(scene.b, one.address).arrived
    with scene.dropped("spoofed_ip"):
        assert not echo(one.netns, scene.b.primary).arrived
    ec2.assign_private_ip_addresses(**named)
    with scene.dropped():
        assert echo(scene.b, one.address).arrived


@pytest.mark.row("SourceDestCheck")
def test_without_the_check_a_node_may_forward_for_anyone(scene: Scene) -> None:
    one, forged = scene.on_second, IPv4Address("172.16.0.9")
    change = scene.vpc.ec2.modify_network_interface_attribute
    one.netns.run(["ip", "addr", "add", f"{forged}/32", "dev", "eth0"])
    one.node.run(["ip", "rule", "add", "from", str(forged), "lookup", "101", "pref", "1537"])
    change(NetworkInterfaceId=one.eni.id, SourceDestCheck={"Value": False})
    with scene.dropped():
        echo(one.netns, scene.b.primary, source=forged)
    change(NetworkInterfaceId=one.eni.id, SourceDestCheck={"Value": True})
    with scene.dropped("spoofed_ip"):
        echo(one.netns, scene.b.primary, source=forged)
    one.node.run(["ip", "rule", "del", "pref", "1537"])
    one.netns.run(["ip", "addr", "del", f"{forged}/32", "dev", "eth0"])


@pytest.mark.row("detach")
def test_a_pod_on_an_eni_that_leaves_is_gone(scene: Scene) -> None:
    one = scene.in_prefix
    described = scene.vpc.ec2.describe_network_interfaces(NetworkInterfaceIds=[one.eni.id])
    attachment = described["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    scene.vpc.ec2.detach_network_interface(AttachmentId=attachment)
    assert "ens6" not in one.node.run(["ip", "-br", "link"]).stdout
    with scene.dropped("unassigned"):
        assert not echo(scene.a, one.address).arrived
    assert scene.vpc.check() == []
