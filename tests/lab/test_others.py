"""CNI plugins that nobody here wrote, on nodes of the lab: as they are, and told nothing of it.

They are those of github.com/containernetworking/plugins, as Debian packages them: `ptp`, `bridge`
and `host-device` with `static` and `host-local` for addresses and `sbr` for policy routing. The
addresses they hand out are what EC2 assigned, asked for from inside the node with IMDS's
credentials, as an operator's own script would. No plugin, no file and no variable here is enid's.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.echo import echo
from tests.lab.talk import talk

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node, PodNetns

Nodes = tuple["Node", "Node"]
Pods = tuple["PodNetns", "PodNetns"]
Operators = tuple["Operator", "Operator"]

PLUGINS = Path("/usr/lib/cni")
NEEDED = ("ptp", "bridge", "host-device", "static", "host-local", "sbr")
PACKAGE = "containernetworking-plugins"

missing = [name for name in NEEDED if not (PLUGINS / name).exists()]
pytestmark = [
    pytest.mark.row("others' CNIs"),
    pytest.mark.skipif(
        bool(missing),
        reason=f"no CNI but enid's was run: {PLUGINS} lacks {' '.join(missing)};"
        f" as root `apt-get install {PACKAGE}`",
    ),
]

ASK = """
import json, sys, urllib.request
import boto3

def imds(method, path, **headers):
    headers = {"X-aws-ec2-metadata-" + k.replace("_", "-"): v for k, v in headers.items()}
    url = "http://169.254.169.254/latest/" + path
    request = urllib.request.Request(url, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=5).read().decode()

token = imds("PUT", "api/token", token_ttl_seconds="60")
told = lambda key: imds("GET", "meta-data/" + key, token=token)
macs = "network/interfaces/macs/" + told("mac")
names = {"$eni": told(macs + "/interface-id"), "$subnet": told(macs + "/subnet-id"),
         "$instance": told("instance-id")}
session = boto3.session.Session()
ec2 = session.client("ec2", region_name=told("placement/region"))
for line in sys.stdin:
    call, parameters = json.loads(line)
    parameters = {k: names.get(str(v), v) for k, v in parameters.items()}
    answer = getattr(ec2, call)(**parameters)
    print(json.dumps([session.get_credentials().method, answer], default=str), flush=True)
"""
"""An operator's script: EC2 calls of an instance for itself, by boto3 as it comes. It knows `$eni`,
`$subnet` and `$instance` from IMDS."""


class Operator:
    """Someone on a node who makes EC2 calls for it, with IMDS's credentials."""

    def __init__(self, node: Node) -> None:
        self._process = node.popen([sys.executable, "-c", ASK], stdin=PIPE, stdout=PIPE, text=True)

    def ask(self, call: str, **parameters: object) -> dict[str, Any]:
        """Return EC2's answer."""
        ear, mouth = self._process.stdin, self._process.stdout
        assert ear is not None
        assert mouth is not None
        print(json.dumps([call, parameters]), file=ear, flush=True)
        method, answer = json.loads(mouth.readline())
        assert method == "iam-role"
        assert isinstance(answer, dict)
        return answer

    def assign(self) -> IPv4Address:
        """Return a new secondary address of the node's primary ENI."""
        answer = self.ask(
            "assign_private_ip_addresses",
            NetworkInterfaceId="$eni",
            SecondaryPrivateIpAddressCount=1,
        )
        return IPv4Address(answer["AssignedPrivateIpAddresses"][0]["PrivateIpAddress"])

    def close(self) -> None:
        """Leave."""
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a node: what a conflist says."""

    plugins: Sequence[Mapping[str, Any]]
    name: str = "theirs"
    version: str = "1.0.0"


@dataclass(slots=True)
class Attachment:
    """A pod's place in a network, handled as libcni handles a list of plugins."""

    node: Node
    pod: PodNetns
    network: Network
    ifname: str = "eth0"
    arguments: str = ""
    container_id: str = field(default_factory=lambda: secrets.token_hex(16))
    result: Mapping[str, Any] | None = None

    @property
    def addresses(self) -> list[IPv4Address]:
        """The pod's addresses."""
        assert self.result is not None
        return [IPv4Interface(ip["address"]).ip for ip in self.result["ips"]]

    def add(self) -> Attachment:
        """ADD, each plugin with the result of the one before it."""
        for plugin in self.network.plugins:
            self.result = json.loads(self._exec("ADD", plugin))
        self._await_carrier()
        return self

    def _await_carrier(self) -> None:
        """Wait until the kernel has noticed that the new links are up; until then it sends nothing.

        It may be late on a busy machine; a pod's own program starts later than our next packet.
        """
        deadline = time.monotonic() + 5
        while "NO-CARRIER" in "".join(
            place.run(["ip", "link", "show", "type", "veth"]).stdout
            for place in (self.pod, self.node)
        ):
            assert time.monotonic() < deadline

    def check(self) -> None:
        """CHECK, each plugin with the whole list's result."""
        for plugin in self.network.plugins:
            self._exec("CHECK", plugin)

    def delete(self) -> None:
        """DEL, the last plugin first."""
        for plugin in reversed(self.network.plugins):
            self._exec("DEL", plugin)

    def _exec(self, verb: str, plugin: Mapping[str, Any]) -> str:
        stdin = {**plugin, "name": self.network.name, "cniVersion": self.network.version}
        if self.result is not None:
            stdin["prevResult"] = self.result
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.pod.path,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.arguments,
            "CNI_PATH": str(PLUGINS),
        }
        argv = ["env", "-i", *(f"{key}={value}" for key, value in environment.items())]
        done = self.node.run(
            [*argv, str(PLUGINS / plugin["type"])], input=json.dumps(stdin), check=False
        )
        assert done.returncode == 0, f"{verb} of {plugin['type']}: {done.stdout}{done.stderr}"
        return str(done.stdout)


PTP = Network(
    [
        {
            "type": "ptp",
            "mtu": 9001,
            "ipMasq": True,
            "ipam": {"type": "static", "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ]
)
"""A veth for each pod, and the node's address as the source of what leaves the VPC."""


def by_ptp(pod: PodNetns, address: IPv4Address) -> Attachment:
    """Return what will give *pod* an address of its node's primary ENI.

    The VPC's own prefix (10.0.0.0/16) keeps `ipMasq` to what leaves the VPC: it spares the network
    of its address. `ptp` puts the pods' gateway on the host's end of each veth, and wants it in
    that network: it is the node's own address, which is there anyway.
    """
    arguments = f"IP={address}/16;GATEWAY={pod.node.primary}"
    return Attachment(pod.node, pod, PTP, arguments=arguments)


@pytest.fixture(scope="module")
def nodes(vpc: EmbeddedVPC) -> Nodes:
    """Two nodes as they come, in two zones: nothing is set up for any CNI."""
    zones = (("10.0.1.0/24", "us-east-1a"), ("10.0.2.0/24", "us-east-1b"))
    a, b = (
        vpc.launch_node(name, "m5.large", vpc.add_subnet(cidr, zone), public=True)
        for name, (cidr, zone) in zip(("node-a", "node-b"), zones, strict=True)
    )
    return a, b


@pytest.fixture(scope="module")
def operators(nodes: Nodes) -> Iterator[Operators]:
    """Someone on each node."""
    a, b = map(Operator, nodes)
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def pods(nodes: Nodes) -> Iterator[Pods]:
    """An empty sandbox on each node."""
    a, b = (node.add_pod_netns("sandbox") for node in nodes)
    yield a, b
    a.close()
    b.close()


@contextmanager
def dropped(vpc: EmbeddedVPC, *causes: str) -> Iterator[None]:
    """Expect the VPC to drop packets for these causes and for no other."""
    vpc.reset_drops()
    yield
    assert {name for name, count in vpc.drops().items() if count} == set(causes)


def links(node: Node) -> set[str]:
    """Return the names of a node's links."""
    return {link["ifname"] for link in json.loads(node.run(["ip", "-j", "link"]).stdout)}


def test_pods_of_ptp_are_hosts_of_the_vpc(
    vpc: EmbeddedVPC, nodes: Nodes, operators: Operators, pods: Pods
) -> None:
    a, b = nodes
    before = links(a), links(b)
    first, second = (operator.assign() for operator in operators)
    one, other = by_ptp(pods[0], first).add(), by_ptp(pods[1], second).add()
    assert (one.addresses, other.addresses) == ([first], [second])
    with dropped(vpc):
        one.check()
        assert echo(pods[0], second, size=8973).arrived  # 9001 bytes, the VPC's MTU
        assert talk(pods[0], pods[1], second) == str(first)
        assert talk(pods[1], pods[0], first) == str(second)
        assert talk(pods[0], b, b.primary) == str(first)
        assert talk(b, pods[0], first) == str(b.primary)
        assert talk(a, pods[0], first) == str(a.primary)
        # The internet sees the node, whom `ipMasq` makes the source.
        assert talk(pods[0], vpc.internet, vpc.internet.address) == str(vpc.public_address(a))
    one.delete()
    one.delete()  # a runtime may say it twice
    other.delete()
    assert (links(a), links(b)) == before
    assert "CNI-" not in a.run(["iptables-save"]).stdout


def test_an_address_that_is_unassigned_is_silence(
    vpc: EmbeddedVPC, operators: Operators, pods: Pods
) -> None:
    first, second = (operator.assign() for operator in operators)
    one, other = by_ptp(pods[0], first).add(), by_ptp(pods[1], second).add()
    assert echo(pods[1], first).arrived
    gone = {"NetworkInterfaceId": "$eni", "PrivateIpAddresses": [str(first)]}
    operators[0].ask("unassign_private_ip_addresses", **gone)
    with dropped(vpc, "unassigned"):
        assert not echo(pods[1], first).arrived
    with dropped(vpc, "spoofed_ip"):
        assert not echo(pods[0], second).arrived
    one.delete()
    other.delete()


def test_an_address_that_ec2_never_gave_gets_nowhere(
    vpc: EmbeddedVPC, nodes: Nodes, pods: Pods
) -> None:
    wrong = by_ptp(pods[0], IPv4Address("10.0.1.200")).add()
    with dropped(vpc, "spoofed_ip"):
        assert not echo(pods[0], nodes[1].primary).arrived
    wrong.delete()


def test_a_bridge_hands_out_a_delegated_prefix(
    vpc: EmbeddedVPC, operators: Operators, pods: Pods
) -> None:
    wish = {"NetworkInterfaceId": "$eni", "Ipv4PrefixCount": 1}
    made = []
    for operator, pod in zip(operators, pods, strict=True):
        answer = operator.ask("assign_private_ip_addresses", **wish)
        prefix = answer["AssignedIpv4Prefixes"][0]["Ipv4Prefix"]
        ranges, routes = [[{"subnet": prefix}]], [{"dst": "0.0.0.0/0"}]
        ipam = {"type": "host-local", "ranges": ranges, "routes": routes}
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "mtu": 9001, "ipam": ipam}
        made.append(Attachment(pod.node, pod, Network([bridge])).add())
        assert made[-1].addresses[0] in IPv4Network(prefix)
    (first,), (second,) = (attachment.addresses for attachment in made)
    with dropped(vpc):
        for attachment in made:
            attachment.check()
        assert talk(pods[0], pods[1], second) == str(first)
        assert talk(pods[1], pods[0], first) == str(second)
    for attachment in made:
        attachment.delete()


def test_a_pod_with_an_eni_of_its_own_answers_by_it(
    vpc: EmbeddedVPC, nodes: Nodes, operators: Operators, pods: Pods
) -> None:
    """As behind Multus: eth0 is of the node's own network, net1 an ENI moved into the pod."""
    (a, b), pod, operator = nodes, pods[0], operators[0]
    eni = operator.ask("create_network_interface", SubnetId="$subnet")["NetworkInterface"]
    place = {"InstanceId": "$instance", "DeviceIndex": 1}
    operator.ask("attach_network_interface", NetworkInterfaceId=eni["NetworkInterfaceId"], **place)
    own = IPv4Address(eni["PrivateIpAddress"])
    before = links(a)
    first = operator.assign()
    eth0 = by_ptp(pod, first).add()
    device = {
        "type": "host-device",
        "hwaddr": eni["MacAddress"],
        "ipam": {"type": "static"},
    }
    arguments = f"IP={own}/24;GATEWAY=10.0.1.1"

    alone = Attachment(a, pod, Network([device]), "net1", arguments).add()
    with dropped(vpc, "spoofed_ip"):  # its answers leave by eth0, where another ENI is
        assert talk(b, pod, own) is None
    alone.delete()

    routed = Attachment(a, pod, Network([device, {"type": "sbr"}]), "net1", arguments).add()
    with dropped(vpc):
        assert talk(b, pod, own) == str(b.primary)
        assert talk(b, pod, first) == str(b.primary)
        assert talk(pod, b, b.primary) == str(first)
        assert talk(pod, b, b.primary, source=own) == str(own)
    routed.delete()
    eth0.delete()
    assert links(a) == before
