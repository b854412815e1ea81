"""The embedded VPC's packets: what arrives, what does not, and what is counted."""

from __future__ import annotations

import contextlib
import errno
import itertools
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from socket import AF_INET, AF_PACKET, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM
from typing import TYPE_CHECKING

import pytest

from tests.lab.echo import Echo, checksum, echo
from vpclab.fabric import ROUTER_MAC

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node, PodNetns
    from vpclab.vpc import VpcEni

Nodes = tuple["Node", "Node"]
indices = itertools.count(1)


def reaches(where: Node | PodNetns, to: object, source: IPv4Address | None = None) -> bool:
    return echo(where, to, source=source).arrived


@contextlib.contextmanager
def dropped(vpc: EmbeddedVPC, cause: str | None = None) -> Iterator[None]:
    """Expect drops for this cause and no other; for none if there is no cause."""
    vpc.reset_drops()
    yield
    causes = {name for name, count in vpc.drops().items() if count}
    assert causes == ({cause} if cause else set())


def primary_eni(vpc: EmbeddedVPC, node: Node) -> VpcEni:
    (eni,) = [e for e in vpc.enis() if e.instance_id == node.instance_id and e.device_index == 0]
    return eni


def assign(vpc: EmbeddedVPC, eni_id: str) -> IPv4Address:
    """Return a new secondary address of an ENI."""
    answer = vpc.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=1
    )
    return IPv4Address(answer["AssignedPrivateIpAddresses"][0]["PrivateIpAddress"])


def unassign(vpc: EmbeddedVPC, eni_id: str, address: IPv4Address) -> None:
    vpc.ec2.unassign_private_ip_addresses(
        NetworkInterfaceId=eni_id, PrivateIpAddresses=[str(address)]
    )


@contextlib.contextmanager
def secondary_address(vpc: EmbeddedVPC, node: Node) -> Iterator[IPv4Address]:
    """Give an address that the VPC delivers to the node's primary ENI."""
    eni_id = primary_eni(vpc, node).id
    address = assign(vpc, eni_id)
    yield address
    unassign(vpc, eni_id, address)


@contextlib.contextmanager
def on_lo(node: Node, address: IPv4Address) -> Iterator[None]:
    """Let the node have *address*, on an interface that the VPC knows nothing of."""
    node.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"])
    yield
    node.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"])


@contextlib.contextmanager
def second_eni(vpc: EmbeddedVPC, node: Node) -> Iterator[VpcEni]:
    """Give an ENI at the node's next device index."""
    subnet_id = primary_eni(vpc, node).subnet_id
    eni_id = vpc.ec2.create_network_interface(SubnetId=subnet_id)["NetworkInterface"][
        "NetworkInterfaceId"
    ]
    attachment_id = vpc.ec2.attach_network_interface(
        NetworkInterfaceId=eni_id, InstanceId=node.instance_id, DeviceIndex=1
    )["AttachmentId"]
    yield next(eni for eni in vpc.enis() if eni.id == eni_id)
    with contextlib.suppress(vpc.ec2.exceptions.ClientError):
        vpc.ec2.detach_network_interface(AttachmentId=attachment_id)
    vpc.ec2.delete_network_interface(NetworkInterfaceId=eni_id)


@contextlib.contextmanager
def pod_on(node: Node, address: IPv4Address) -> Iterator[PodNetns]:
    """Give a pod with *address* on the node's primary ENI, wired by hand."""
    pod = node.add_pod_netns(f"pod-{next(indices)}")
    script = f"""
    ip link add veth0 type veth peer name eth0 netns /run/netns/{pod.name}
    ip link set veth0 up
    ip addr add 169.254.1.1/32 dev veth0
    ip route add {address} dev veth0
    """
    node.run(["sh", "-ec", script])
    inside = f"""
    ip addr add {address}/32 dev eth0
    ip link set lo up
    ip link set eth0 up
    ip route add 169.254.1.1 dev eth0
    ip route add default via 169.254.1.1
    """
    pod.run(["sh", "-ec", inside])
    yield pod
    pod.close()
    node.run(["ip", "link", "del", "veth0"], check=False)


def frame(mac: str, source: IPv4Address) -> bytes:
    """Return an empty datagram to the router, from *mac*."""
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, source.packed, bytes([10, 0, 1, 1])
    )
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    macs = (bytes.fromhex(m.replace(":", "")) for m in (ROUTER_MAC, mac))
    return b"".join(macs) + b"\x08\0" + header + bytes([0, 9, 0, 9, 0, 8, 0, 0])


# Delivery


@pytest.mark.row("pods and nodes")
def test_nodes_in_two_zones_reach_each_other(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    with dropped(vpc):
        assert reaches(a, b.primary)
        assert reaches(b, a.primary)


@pytest.mark.row("ARP of the router")
def test_the_vpcs_router_is_no_hop(nodes: Nodes) -> None:
    a, b = nodes
    assert echo(a, b.primary).ttl == 64
    assert echo(a, b.primary, ttl=1).arrived


@pytest.mark.row("ARP of the router")
def test_the_first_address_of_the_subnet_answers(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    with dropped(vpc):
        assert reaches(nodes[0], "10.0.1.1")


@pytest.mark.row("path MTU in the VPC")
def test_the_mtu_is_9001_and_not_a_byte_more(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    with dropped(vpc):
        assert echo(a, b.primary, size=9001 - 28).arrived
        assert echo(a, b.primary, size=9002 - 28).errno == errno.EMSGSIZE


@pytest.mark.row("pods and nodes")
def test_an_address_on_no_interface_is_delivered(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    with secondary_address(vpc, b) as address, pod_on(b, address) as pod, dropped(vpc):
        assert reaches(a, address)
        assert reaches(pod, a.primary)


@pytest.mark.row("ARP of the router")
def test_in_the_same_subnet_every_owned_address_is_found_by_arp(
    vpc: EmbeddedVPC, nodes: Nodes
) -> None:
    a, _ = nodes
    with second_eni(vpc, a) as eni:
        echo(a, eni.primary)
        assert "lladdr" in a.run(["ip", "neigh", "show", str(eni.primary)]).stdout


# Ownership


@pytest.mark.row("unassign and assign")
def test_unassign_silences_an_address_and_assign_brings_it_back(
    vpc: EmbeddedVPC, nodes: Nodes
) -> None:
    a, b = nodes
    eni_id = primary_eni(vpc, b).id
    address = assign(vpc, eni_id)
    with on_lo(b, address):
        assert reaches(a, address)
        unassign(vpc, eni_id, address)
        with dropped(vpc, "unassigned"):
            assert not reaches(a, address)
        vpc.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=eni_id, PrivateIpAddresses=[str(address)]
        )
        assert reaches(a, address)
    unassign(vpc, eni_id, address)


@pytest.mark.row("unassigned destination")
def test_an_unassigned_address_elsewhere_is_silence(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    with dropped(vpc, "unassigned"):
        assert echo(nodes[0], "10.0.2.200") == Echo()


@pytest.mark.row("unassigned destination")
def test_an_unassigned_address_of_the_own_subnet_has_no_mac(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    with dropped(vpc):
        echo(nodes[0], "10.0.1.200")
    found = nodes[0].run(["ip", "neigh", "show", "10.0.1.200"]).stdout
    assert re.search("INCOMPLETE|FAILED", found)


# The source check


@pytest.mark.row("unassigned source")
def test_an_address_that_is_nobodys_is_no_source(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    forged = IPv4Address("10.0.1.250")
    with on_lo(a, forged), dropped(vpc, "spoofed_ip"):
        assert not reaches(a, b.primary, forged)


@pytest.mark.row("another ENI's address")
def test_another_nodes_address_is_no_source(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    with secondary_address(vpc, b) as address, on_lo(a, address), dropped(vpc, "spoofed_ip"):
        assert not reaches(a, b.primary, address)


@pytest.mark.row("wrong ENI of its own node")
def test_the_right_address_on_the_wrong_eni_of_its_node_is_no_source(
    vpc: EmbeddedVPC, nodes: Nodes
) -> None:
    a, b = nodes
    with second_eni(vpc, a) as eni, on_lo(a, eni.primary), dropped(vpc, "spoofed_ip"):
        assert not reaches(a, b.primary, eni.primary)


@pytest.mark.row("forged MAC")
def test_a_forged_mac_is_dropped(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, _ = nodes
    with a.socket(AF_PACKET, SOCK_RAW) as raw, dropped(vpc):
        raw.bind(("ens5", 0x0800))
        raw.send(frame(primary_eni(vpc, a).mac, a.primary))
    with a.socket(AF_PACKET, SOCK_RAW) as raw, dropped(vpc, "spoofed_mac"):
        raw.bind(("ens5", 0x0800))
        raw.send(frame("02:00:00:ff:ff:ff", a.primary))


@pytest.mark.row("SourceDestCheck")
def test_without_its_check_an_eni_may_send_as_anyone(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    eni_id = primary_eni(vpc, a).id
    forged = IPv4Address("10.0.1.250")
    heard = b.socket(AF_INET, SOCK_DGRAM)
    heard.bind((str(b.primary), 4242))
    heard.settimeout(5)

    def check(*, value: bool) -> None:
        vpc.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=eni_id, SourceDestCheck={"Value": value}
        )

    with heard, on_lo(a, forged), a.socket(AF_INET, SOCK_DGRAM) as sender:
        sender.bind((str(forged), 0))
        check(value=False)
        with dropped(vpc):
            sender.sendto(b"as another", (str(b.primary), 4242))
            assert heard.recvfrom(100)[1][0] == str(forged)
        check(value=True)
        with dropped(vpc, "spoofed_ip"):
            sender.sendto(b"again", (str(b.primary), 4242))


# The internet


@pytest.mark.row("pod to internet")
def test_the_internet_sees_the_public_address(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, _ = nodes
    with vpc.internet.socket(AF_INET, SOCK_STREAM) as server, dropped(vpc):
        server.bind((str(vpc.internet.address), 8080))
        server.listen()
        server.settimeout(5)
        with a.socket(AF_INET, SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((str(vpc.internet.address), 8080))
            connection, peer = server.accept()
            connection.close()
    assert IPv4Address(peer[0]) == vpc.public_address(a)


@pytest.mark.row("pod to internet")
def test_the_internet_reaches_the_public_address(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    for node in nodes:
        with node.socket(AF_INET, SOCK_DGRAM) as server, dropped(vpc):
            server.bind((str(node.primary), 4343))
            server.settimeout(5)
            with vpc.internet.socket(AF_INET, SOCK_DGRAM) as client:
                client.sendto(b"hello", (str(vpc.public_address(node)), 4343))
            assert server.recvfrom(100)[1][0] == str(vpc.internet.address)


@pytest.mark.row("without SNAT")
def test_without_a_public_address_the_internet_is_away(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, _ = nodes
    with secondary_address(vpc, a) as address, on_lo(a, address), dropped(vpc, "no_public"):
        assert not reaches(a, vpc.internet.address, address)


def test_an_address_that_is_nobodys_on_the_internet_is_silence(
    vpc: EmbeddedVPC, nodes: Nodes
) -> None:
    with dropped(vpc):
        assert echo(nodes[0], "8.8.8.8") == Echo()


@pytest.mark.row("path MTU at the internet gateway")
def test_the_gateway_says_that_its_mtu_is_1500(nodes: Nodes, vpc: EmbeddedVPC) -> None:
    # Type 3, code 4: fragmentation needed.
    assert echo(nodes[0], vpc.internet.address, size=1501 - 28).error == (3, 4, 1500)
    assert echo(nodes[1], vpc.internet.address, size=1500 - 28).arrived


# Attach and detach


@pytest.mark.row("hot-plug")
def test_an_attached_eni_is_a_link_that_is_down(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    with second_eni(vpc, nodes[0]) as eni:
        link = nodes[0].run(["ip", "link", "show", "ens6"]).stdout
        assert (eni.mac in link, "mtu 9001" in link, "state DOWN" in link) == (True, True, True)


@pytest.mark.row("hot-plug")
def test_an_efa_only_eni_is_no_link_and_has_no_address(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, links = nodes[0], nodes[0].run(["ip", "-br", "link"]).stdout
    made = vpc.ec2.create_network_interface(
        SubnetId=primary_eni(vpc, a).subnet_id, InterfaceType="efa-only"
    )["NetworkInterface"]["NetworkInterfaceId"]
    attachment = vpc.ec2.attach_network_interface(
        NetworkInterfaceId=made, InstanceId=a.instance_id, DeviceIndex=1
    )["AttachmentId"]
    (seen,) = (eni for eni in vpc.enis() if eni.id == made)
    assert (seen.addresses, seen.device_index) == ((), 1)
    assert a.run(["ip", "-br", "link"]).stdout == links
    assert vpc.check() == []
    vpc.ec2.detach_network_interface(AttachmentId=attachment)
    vpc.ec2.delete_network_interface(NetworkInterfaceId=made)


@pytest.mark.row("hot-plug")
def test_what_is_sent_the_moment_a_link_is_there_is_no_drop(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    """A daemon raises a link when the kernel tells of it, before the API call has returned."""
    a, _ = nodes
    script = """
    until ip link set ens6 up 2>/dev/null; do :; done
    echo raised
    """
    with dropped(vpc):
        eager = a.popen(["timeout", "10", "sh", "-c", script], stdout=subprocess.PIPE)
        with eager, second_eni(vpc, a):
            assert eager.wait(10) == 0


@pytest.mark.row("detach")
def test_detach_takes_the_link_and_the_routes(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    with second_eni(vpc, a) as eni, on_lo(a, eni.primary):
        attachments = vpc.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni.id])
        vpc.ec2.detach_network_interface(
            AttachmentId=attachments["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
        )
        assert "ens6" not in a.run(["ip", "-br", "link"]).stdout
        with dropped(vpc, "unassigned"):
            assert not reaches(b, eni.primary)
    assert vpc.check() == []


@pytest.mark.row("hot-plug")
def test_a_link_comes_and_goes_with_the_delay(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, _ = nodes

    def until(present: Callable[[], bool]) -> float:
        begun = time.monotonic()
        while not present():
            assert time.monotonic() - begun < 5
        return time.monotonic() - begun

    def there() -> bool:
        return "ens6" in a.run(["ip", "-br", "link"]).stdout

    vpc.delays.attach_seconds = 0.3
    with second_eni(vpc, a) as eni:
        vpc.delays.attach_seconds = 0
        assert eni.status == "attaching"
        assert not there()
        assert until(there) > 0.1
    assert not there()


def test_many_hands_leave_routes_that_are_ownership(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    subnet_id = primary_eni(vpc, nodes[0]).subnet_id

    def churn(device_index: int) -> None:
        for _ in range(4):
            made = vpc.ec2.create_network_interface(SubnetId=subnet_id)["NetworkInterface"]
            eni_id = made["NetworkInterfaceId"]
            attachment_id = vpc.ec2.attach_network_interface(
                NetworkInterfaceId=eni_id,
                InstanceId=nodes[0].instance_id,
                DeviceIndex=device_index,
            )["AttachmentId"]
            addresses = [assign(vpc, eni_id) for _ in range(3)]
            unassign(vpc, eni_id, addresses[1])
            vpc.ec2.detach_network_interface(AttachmentId=attachment_id)
            vpc.ec2.delete_network_interface(NetworkInterfaceId=eni_id)

    def shuffle(node: Node) -> None:
        eni_id = primary_eni(vpc, node).id
        for _ in range(8):
            unassign(vpc, eni_id, assign(vpc, eni_id))

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(churn, index) for index in (1, 2)]
        work += [pool.submit(shuffle, node) for node in nodes]
        for one in work:
            one.result()
    assert vpc.check() == []


def test_calls_of_the_test_itself_are_not_counted(vpc: EmbeddedVPC) -> None:
    before = vpc.calls.copy()
    vpc.ec2.describe_network_interfaces()
    assert vpc.calls == before
