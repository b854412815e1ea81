"""A node: its namespaces, its folders, its rights, IMDS as it sees it, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from socket import AF_INET, AF_NETLINK, SOCK_STREAM
from typing import TYPE_CHECKING

import pytest

from cni.dataplane import NODE_SYSCTLS
from vpclab.enid import RIGHTS
from vpclab.node import Node

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import PodNetns

Nodes = tuple["Node", "Node"]

NET_ADMIN = "0000000000001000"


# Folders


@pytest.mark.parametrize("folder", ["/run/enid", "/var/lib/enid", "/etc/cni/net.d", "/opt/cni/bin"])
def test_each_node_has_its_own(nodes: Nodes, folder: str) -> None:
    a, b = nodes
    a.run(["sh", "-ec", f"mkdir -p {folder}; echo mine > {folder}/x"])
    assert a.path(f"{folder}/x").read_text() == "mine\n"
    assert not b.path(f"{folder}/x").exists()
    assert not Path(folder, "x").exists()
    b.path(folder).mkdir(parents=True, exist_ok=True)
    b.path(f"{folder}/y").write_text("theirs\n")
    assert b.run(["cat", f"{folder}/y"]).stdout == "theirs\n"


def test_a_node_shows_the_hosts_etc_but_its_own_name(nodes: Nodes) -> None:
    a, _ = nodes
    assert a.run(["cat", "/etc/passwd"]).stdout == Path("/etc/passwd").read_text()
    assert a.run(["sh", "-c", "hostname; cat /etc/hostname"]).stdout == "node-a\nnode-a\n"
    assert a.run(["getent", "hosts", "node-a"]).stdout.split()[0] == str(a.primary)


def test_the_hosts_own_files_are_not_written_through_the_links(nodes: Nodes) -> None:
    done = nodes[0].run(["sh", "-c", ": >> /etc/passwd"], check=False)
    assert re.search("Read-only|denied", done.stderr)


def test_a_name_that_is_not_there_is_refused_at_once_and_is_no_drop(
    vpc: EmbeddedVPC, nodes: Nodes
) -> None:
    vpc.reset_drops()
    nodes[0].run(["getent", "hosts", "nowhere.example"], check=False, timeout=5)
    assert not any(vpc.drops().values())


# Processes


def test_the_popens_pid_is_the_program(nodes: Nodes) -> None:
    for rights in (None, RIGHTS):
        with nodes[0].popen(["sleep", "30.5"], rights=rights) as process:
            while (name := Path(f"/proc/{process.pid}/comm").read_text()) != "sleep\n":
                assert process.poll() is None, name
            process.kill()


def test_a_process_has_the_nodes_namespaces(nodes: Nodes) -> None:
    a, _ = nodes
    assert a.run(["readlink", "/proc/self/ns/net"]).stdout.strip() == str(Path(a.netns).readlink())


def test_rights_are_net_admin_and_no_way_back(nodes: Nodes) -> None:
    status = nodes[0].run(["cat", "/proc/self/status"], rights=RIGHTS).stdout
    caps = dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s*(\w+)$", status, re.MULTILINE))
    assert (caps["CapPrm"], caps["CapEff"], caps["CapBnd"]) == (NET_ADMIN,) * 3
    assert (int(caps["CapInh"], 16), int(caps["CapAmb"], 16), caps["NoNewPrivs"]) == (0, 0, "1")


CALL = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
print(errno.errorcode[ctypes.get_errno()] if libc.syscall(*map(int, sys.argv[1:])) < 0 else "")
"""


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param([425, 0, 0], "EPERM", id="io_uring_setup"),
        pytest.param([435, 0, 0], "ENOSYS", id="clone3"),
        pytest.param([9999], "ENOSYS", id="a-later-kernels"),
        pytest.param([434, 0, 0], "EINVAL", id="pidfd_open-of-nobody"),
    ],
)
def test_system_calls_are_those_of_the_runtimes_profile(
    nodes: Nodes, call: list[int], expected: str
) -> None:
    """These have the same number everywhere."""
    argv = [sys.executable, "-c", CALL, *map(str, call)]
    assert nodes[0].run(argv, rights=RIGHTS).stdout.strip() == expected


@pytest.mark.parametrize(
    ("family", "expected"),
    [(AF_NETLINK, ""), (38, "EPERM"), (40, "EPERM")],
    ids=["netlink", "alg", "vsock"],
)
def test_sockets_are_of_the_families_that_the_profile_has(
    nodes: Nodes, family: int, expected: str
) -> None:
    script = (
        "import errno, socket, sys\n"
        "try: socket.socket(int(sys.argv[1]), socket.SOCK_RAW).close()\n"
        "except OSError as error: print(errno.errorcode[error.errno])"
    )
    argv = [sys.executable, "-c", script, str(int(family))]
    assert nodes[0].run(argv, rights=RIGHTS).stdout.strip() == expected


def test_no_namespace_can_be_made(nodes: Nodes) -> None:
    """Of a user namespace the capabilities would be complete, and need none to make one."""
    done = nodes[0].run(["unshare", "--user", "true"], rights=RIGHTS, check=False)
    assert "Operation not permitted" in done.stderr


@pytest.mark.parametrize(
    "path",
    ["/x", "/etc/x", "/etc/cni/net.d/x", "/opt/cni/bin/x", "/run/x", "/var/lib/x", "/usr/x"],
)
def test_what_is_not_the_daemons_own_is_read_only(nodes: Nodes, path: str) -> None:
    done = nodes[0].run(["sh", "-c", f": > {path}"], rights=RIGHTS, check=False)
    assert "Read-only" in done.stderr


def test_sysctls_are_read_only(nodes: Nodes) -> None:
    script = "echo 1 > /proc/sys/net/ipv4/ip_forward"
    assert "Read-only" in nodes[0].run(["sh", "-c", script], rights=RIGHTS, check=False).stderr


def test_the_daemons_own_folders_are_writable(nodes: Nodes) -> None:
    a, _ = nodes
    a.run(["sh", "-ec", ": > /run/enid/w; : > /var/lib/enid/w"], rights=RIGHTS)
    assert a.path("/run/enid/w").exists()
    assert a.path("/var/lib/enid/w").exists()


def test_a_node_is_set_up_as_the_init_container_does(nodes: Nodes) -> None:
    a, _ = nodes
    read = a.run(["cat", *(f"/proc/sys/{name.replace('.', '/')}" for name in NODE_SYSCTLS)]).stdout
    assert read.split() == list(NODE_SYSCTLS.values())


# Pods


def test_a_pods_namespace_has_nothing_but_lo(nodes: Nodes) -> None:
    pod = nodes[0].add_pod_netns("empty")
    assert [line.split()[0] for line in pod.run(["ip", "-br", "link"]).stdout.splitlines()] == [
        "lo"
    ]
    assert nodes[0].run(["ls", "/run/netns"]).stdout == "empty\n"
    pod.close()
    assert nodes[0].run(["ls", "/run/netns"]).stdout == ""


def test_a_pods_namespace_goes_though_a_daemon_was_started_meanwhile(nodes: Nodes) -> None:
    a, _ = nodes
    pod = a.add_pod_netns("goes")
    script = "ip link add v0 type veth peer name v1 netns /run/netns/goes"
    a.run(["sh", "-ec", script])
    with a.popen(["sleep", "30.6"], rights=RIGHTS) as daemon:
        while Path(f"/proc/{daemon.pid}/comm").read_text() != "sleep\n":
            assert daemon.poll() is None
        pod.close()
        gone = (
            "i=0; while ip link show v0 && [ $i -lt 50 ]; do i=$((i+1)); sleep 0.1; done; ip link"
        )
        assert "v0" not in a.run(["sh", "-c", gone]).stdout.splitlines()[-1]
        assert " v0" not in a.run(["ip", "link"]).stdout
        daemon.kill()


# IMDS


def imds(where: Node | PodNetns, method: str, path: str, **headers: str) -> tuple[int, str]:
    """Return status and body; status 0 if there is no answer."""
    lines = [f"{method} {path} HTTP/1.0", "Host: 169.254.169.254"]
    lines += [f"X-aws-ec2-metadata-{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    with where.socket(AF_INET, SOCK_STREAM) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect(("169.254.169.254", 80))
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        except TimeoutError:
            return 0, ""
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def token(where: Node | PodNetns) -> tuple[int, str]:
    return imds(where, "PUT", "/latest/api/token", token_ttl_seconds="60")


def read(node: Node, path: str) -> str:
    status, body = imds(node, "GET", f"/latest/{path}", token=token(node)[1])
    assert status == 200
    return body


@pytest.mark.row("IMDS: tokens")
def test_imds_wants_a_token(nodes: Nodes) -> None:
    a, b = nodes
    assert imds(a, "GET", "/latest/meta-data/mac")[0] == 401
    assert imds(a, "GET", "/latest/meta-data/mac", token="made-up")[0] == 401
    assert imds(a, "GET", "/latest/meta-data/mac", token=token(b)[1])[0] == 401


@pytest.mark.parametrize("ttl", ["0", "21601", "soon"])
def test_a_token_lives_for_a_second_to_six_hours(nodes: Nodes, ttl: str) -> None:
    assert imds(nodes[0], "PUT", "/latest/api/token", token_ttl_seconds=ttl)[0] == 400


def test_the_source_tells_who_asks(nodes: Nodes) -> None:
    assert [read(node, "meta-data/instance-id") for node in nodes] == [
        node.instance_id for node in nodes
    ]


@pytest.mark.row("IMDS: the tree")
def test_the_identity_document(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    document = json.loads(read(nodes[1], "dynamic/instance-identity/document"))
    names = ("instanceId", "instanceType", "region", "availabilityZone", "privateIp")
    assert [document[name] for name in names] == [
        nodes[1].instance_id, "m5.large", vpc.region, "us-east-1b", str(nodes[1].primary),
    ]  # fmt: skip


@pytest.mark.row("IMDS: the tree")
def test_an_eni_is_listed_with_what_it_has(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, _ = nodes
    mac = read(a, "meta-data/mac")
    assert f"{mac}/" in read(a, "meta-data/network/interfaces/macs/").splitlines()
    eni = f"meta-data/network/interfaces/macs/{mac}"
    (true,) = [e for e in vpc.enis() if e.mac == mac]
    assert {
        name: read(a, f"{eni}/{name}")
        for name in (
            "device-number", "network-card", "interface-id", "local-ipv4s", "subnet-id",
            "subnet-ipv4-cidr-block", "vpc-ipv4-cidr-blocks", "owner-id",
        )
    } == {
        "device-number": "0",
        "network-card": "0",
        "interface-id": true.id,
        "local-ipv4s": str(true.primary),
        "subnet-id": true.subnet_id,
        "subnet-ipv4-cidr-block": "10.0.1.0/24",
        "vpc-ipv4-cidr-blocks": "10.0.0.0/16",
        "owner-id": "123456789012",
    }  # fmt: skip
    assert read(a, f"{eni}/security-group-ids").startswith("sg-")


def test_what_is_not_there_is_404(nodes: Nodes) -> None:
    a, _ = nodes
    key = token(a)[1]
    assert imds(a, "GET", "/latest/meta-data/spot", token=key)[0] == 404


@pytest.mark.row("IMDS: spot and lifecycle")
def test_a_spot_notice_is_on_the_node_it_is_for(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    a, b = nodes
    notice = '{"action": "terminate", "time": "2026-01-05T18:02:00Z"}'
    vpc.imds.say(a.instance_id, "spot/instance-action", notice)
    assert read(a, "meta-data/spot/instance-action") == notice
    assert imds(b, "GET", "/latest/meta-data/spot", token=token(b)[1])[0] == 404
    vpc.imds.unsay(a.instance_id, "spot/instance-action")


@pytest.mark.row("IMDS: stale and short")
def test_imds_may_not_tell_yet_what_ec2_does(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    b, macs = nodes[1], "meta-data/network/interfaces/macs"
    subnet_id = next(e.subnet_id for e in vpc.enis() if e.instance_id == b.instance_id)
    made = vpc.ec2.create_network_interface(SubnetId=subnet_id)["NetworkInterface"]
    vpc.imds.faults.stale(macs.removeprefix("meta-data/"), 600, b.instance_id)
    attachment = vpc.ec2.attach_network_interface(
        NetworkInterfaceId=made["NetworkInterfaceId"], InstanceId=b.instance_id, DeviceIndex=2
    )
    assert made["MacAddress"] not in read(b, macs)
    assert read(b, f"{macs}/{made['MacAddress']}/device-number") == "2"
    vpc.imds.faults.clear()
    assert made["MacAddress"] in read(b, macs)
    vpc.ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
    vpc.ec2.delete_network_interface(NetworkInterfaceId=made["NetworkInterfaceId"])


@contextmanager
def pod_with_an_address(vpc: EmbeddedVPC, node: Node, wish: str) -> Iterator[PodNetns]:
    """Give a pod with an address of the node's primary ENI, wired by hand; *wish* counts one."""
    eni = next(e for e in vpc.enis() if e.primary == node.primary)
    answer = vpc.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni.id, **{wish: 1})
    if wish == "Ipv4PrefixCount":
        address = IPv4Network(answer["AssignedIpv4Prefixes"][0]["Ipv4Prefix"])[3]
    else:
        address = IPv4Address(answer["AssignedPrivateIpAddresses"][0]["PrivateIpAddress"])
    pod = node.add_pod_netns("imds")
    outside = f"""
    ip link add veth0 type veth peer name eth0 netns /run/netns/imds
    ip link set veth0 up
    ip addr add 169.254.1.1/32 dev veth0
    ip route add {address} dev veth0"""
    inside = f"""
    ip addr add {address}/32 dev eth0
    ip link set eth0 up
    ip route add 169.254.1.1 dev eth0
    ip route add default via 169.254.1.1"""
    node.run(["sh", "-ec", outside])
    pod.run(["sh", "-ec", inside])
    yield pod
    pod.close()
    node.run(["ip", "link", "del", "veth0"], check=False)


@pytest.mark.row("IMDS hop limit")
@pytest.mark.parametrize("wish", ["SecondaryPrivateIpAddressCount", "Ipv4PrefixCount"])
@pytest.mark.parametrize(("hops", "status"), [(1, 0), (2, 200)])
def test_a_token_goes_as_far_as_the_hop_limit(
    vpc: EmbeddedVPC, nodes: Nodes, hops: int, status: int, wish: str
) -> None:
    a, _ = nodes
    vpc.ec2.modify_instance_metadata_options(InstanceId=a.instance_id, HttpPutResponseHopLimit=hops)
    with pod_with_an_address(vpc, a, wish) as pod:
        assert token(a)[0] == 200
        assert token(pod)[0] == status
        assert imds(pod, "GET", "/latest/meta-data/mac")[0] == 401
    vpc.ec2.modify_instance_metadata_options(InstanceId=a.instance_id, HttpPutResponseHopLimit=1)


# boto3, from inside

ATTACH = """
import boto3, json, time
from botocore.utils import IMDSFetcher
fetcher = IMDSFetcher()
mine = boto3.Session().get_credentials()
ec2 = boto3.client("ec2", region_name="us-east-1")
me = NAME
(eni,) = ec2.describe_network_interfaces(
    Filters=[{"Name": "attachment.instance-id", "Values": [me]}])["NetworkInterfaces"]
made = ec2.create_network_interface(SubnetId=eni["SubnetId"])["NetworkInterface"]
ec2.attach_network_interface(
    NetworkInterfaceId=made["NetworkInterfaceId"], InstanceId=me, DeviceIndex=1)
import socket
print(json.dumps([mine.method, made["MacAddress"], [name for _, name in socket.if_nameindex()]]))
"""


def test_boto3_on_a_node_attaches_with_the_nodes_role(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    b = nodes[1]
    before = vpc.calls.copy()
    script = ATTACH.replace("NAME", repr(b.instance_id))
    method, mac, names = json.loads(b.run([sys.executable, "-c", script]).stdout)
    assert (method, "ens6" in names) == ("iam-role", True)
    assert mac in b.run(["ip", "link", "show", "ens6"]).stdout
    assert (vpc.calls - before) == {
        "DescribeNetworkInterfaces": 1,
        "CreateNetworkInterface": 1,
        "AttachNetworkInterface": 1,
    }
    assert vpc.check() == []


# The end


def test_a_terminated_node_leaves_no_process_no_link_no_address(vpc: EmbeddedVPC) -> None:
    subnet_id = vpc.add_subnet("10.0.7.0/24", "us-east-1a")
    node = vpc.launch_node("node-c", "m5.large", subnet_id, public=True)
    daemon = node.popen(["sh", "-c", "sleep 30.7 & sleep 30.7"])
    with node.socket(AF_INET, SOCK_STREAM):
        node.terminate()
    assert daemon.returncode == -9
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"30.7" in p.read_bytes()]
    assert [e for e in vpc.enis() if e.subnet_id == subnet_id] == []
    assert not any(
        e.public for e in vpc.plane.backend.enis.values() if str(node.primary) in e.public
    )
    assert vpc.check() == []
    vpc.ec2.delete_subnet(SubnetId=subnet_id)


def test_two_nodes_do_not_have_one_name(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    subnet_id = vpc.add_subnet("10.0.8.0/24", "us-east-1a")
    with pytest.raises(ValueError, match="node-a"):
        vpc.launch_node("node-a", "m5.large", subnet_id)
    assert vpc.nodes["node-a"] is nodes[0]


def test_a_terminals_ctrl_c_does_not_take_a_nodes_namespaces(nodes: Nodes) -> None:
    """They are needed to end the node in order; a terminal tells its foreground group."""
    for node in nodes:
        assert os.getpgid(int(Path(node.netns).parts[2])) != os.getpgrp()


def primary_subnet(vpc: EmbeddedVPC) -> str:
    """Return the subnet of the first node."""
    return next(e.subnet_id for e in vpc.enis() if e.instance_id and e.device_index == 0)


def instances(vpc: EmbeddedVPC) -> list[str]:
    """Return the instances that are not terminated."""
    found = vpc.ec2.describe_instances()["Reservations"]
    every = [instance for reservation in found for instance in reservation["Instances"]]
    return [i["InstanceId"] for i in every if i["State"]["Name"] != "terminated"]


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize("name", ["a/b", "../a", "", "a b", "x" * 64])
def test_a_node_has_a_hosts_name_or_is_no_instance(vpc: EmbeddedVPC, name: str) -> None:
    subnet_id, before = primary_subnet(vpc), instances(vpc)
    with pytest.raises(ValueError, match="is not up to 63 letters"):
        vpc.launch_node(name, "m5.large", subnet_id)
    assert instances(vpc) == before


def test_an_instance_whose_node_cannot_be_made_is_terminated(
    vpc: EmbeddedVPC, nodes: Nodes
) -> None:
    subnet_id, before = primary_subnet(vpc), instances(vpc)
    in_its_way = nodes[0].folder.with_name("node-d")
    in_its_way.touch()
    with pytest.raises(NotADirectoryError):
        vpc.launch_node("node-d", "m5.large", subnet_id)
    in_its_way.unlink()
    assert instances(vpc) == before
    assert vpc.check() == []


def test_of_a_node_that_cannot_be_made_nothing_stays(tmp_path: Path) -> None:
    name, before = "x" * 65, set(threading.enumerate())  # a name that the kernel refuses
    with pytest.raises(OSError, match="Invalid argument"):
        Node(
            name, "i-1", IPv4Address("10.0.1.4"), tmp_path / "node", Node.power_off, Node.begin_anew
        )
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


def test_a_node_whose_instance_is_gone_ends_all_the_same(vpc: EmbeddedVPC, nodes: Nodes) -> None:
    node = vpc.launch_node("node-e", "m5.large", primary_subnet(vpc))
    vpc.ec2.terminate_instances(InstanceIds=[node.instance_id])
    with contextlib.suppress(vpc.ec2.exceptions.ClientError):
        node.terminate()
    assert vpc.nodes.keys() == {node.name for node in nodes}
    assert not node.folder.exists()
    assert not Path(node.netns).exists()
