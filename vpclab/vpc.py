"""The embedded VPC: EC2, IMDS, fabric and nodes behind one facade. Shell.

    with EmbeddedVPC(cidr="10.0.0.0/16") as vpc:
        subnet = vpc.add_subnet("10.0.1.0/24", az="us-east-1a")
        node = vpc.launch_node("node-a", "m5.large", subnet, public=True)

Needs a box (`vpclab.box`). One at a time in a process.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any

from moto.core.base_backend import AccountSpecificBackend

from vpclab import box
from vpclab.api import ControlPlane, listen, serving
from vpclab.desired import Desired, VpcEni, arbitrary, predictable
from vpclab.ec2.credentials import Key
from vpclab.ec2.model import Delays, Eni
from vpclab.fabric import ENDPOINT, IMDS, IMDS6, INTERNET, INTERNET6, Fabric
from vpclab.faults import Faults
from vpclab.imds import Imds
from vpclab.metadata import ROLE
from vpclab.node import Node
from vpclab.patience import PATIENCE

__all__ = ["EmbeddedVPC", "Internet", "VpcEni", "arbitrary", "predictable"]

IMAGE = "ami-760aaa0f"
"""Amazon Linux on amd64, of those that moto knows."""

EVERYWHERE = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}


HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
"""A node's name: the kernel's, a folder's, and what a file of hosts can hold."""


class Internet:
    """A host on the internet."""

    address, address6 = INTERNET, INTERNET6

    def __init__(self, fabric: Fabric) -> None:
        self._worker = fabric.internet

    @property
    def fd(self) -> int:
        """Its network namespace, open."""
        return self._worker.fd

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket:
        """Return a socket that lives on the host."""
        return self._worker.socket(family, kind, protocol)

    def run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on the host."""
        return self._worker.call(
            subprocess.run,
            list(argv),
            check=check,
            capture_output=True,
            text=True,
            timeout=30 * PATIENCE,
        )


class EmbeddedVPC:
    """A VPC with an internet gateway, on this machine.

    *ipv6* gives it an IPv6 /56, and every subnet a /64 of it. A new VPC's default group lets only
    its members in; *open_groups* adds a rule for everyone, so that the internet host reaches a
    node. *ifname* names a node's links.
    """

    def __init__(
        self,
        cidr: str = "10.0.0.0/16",
        region: str = "us-east-1",
        *,
        ipv6: bool = False,
        open_groups: bool = True,
        ifname: Callable[[Eni], str] = predictable,
    ) -> None:
        if not box.in_box():
            raise box.BoxError("an embedded VPC runs in a box: use `python -m vpclab.box COMMAND`")
        self.region, self._cidr, self._ipv6 = region, cidr, ipv6
        self._open_groups, self._ifname = open_groups, ifname
        self._exits = contextlib.ExitStack()
        self.nodes: dict[str, Node] = {}
        self._homes: dict[str, str] = {}
        """The instance that each ENI was on when it last changed: it hears of its leaving, too."""
        self._nat_table: str | None = None

    def __enter__(self) -> EmbeddedVPC:
        """Start everything."""
        with contextlib.ExitStack() as exits:
            folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="vpc-", dir="/run"))
            self._folder = Path(folder)
            self.fabric = Fabric()
            exits.callback(self.fabric.close)
            self.internet = Internet(self.fabric)
            self.plane = ControlPlane(self.region)
            exits.callback(self.plane.close)
            self._desired = Desired(self.plane, self._ifname)
            self.plane.on_change = self._sync
            self.plane.on_reshape = self._reshape
            self._serve(exits)
            self._build()
            exits.callback(self._power_off)
            self._exits = exits.pop_all()
        return self

    def _build(self) -> None:
        """Make the VPC, by EC2's own calls."""
        made = self.ec2.create_vpc(CidrBlock=self._cidr, AmazonProvidedIpv6CidrBlock=self._ipv6)
        self._desired.vpc_id = made["Vpc"]["VpcId"]
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc_id)
        mine = [{"Name": "vpc-id", "Values": [self.vpc_id]}]
        (main,) = self.ec2.describe_route_tables(Filters=mine)["RouteTables"]
        self._lead(main["RouteTableId"], GatewayId=gateway)
        if self._ipv6:
            self._lead6(main["RouteTableId"], GatewayId=gateway)
        if self._open_groups:
            (group,) = self.ec2.describe_security_groups(Filters=mine)["SecurityGroups"]
            self.ec2.authorize_security_group_ingress(
                GroupId=group["GroupId"], IpPermissions=[{"IpProtocol": "-1", **EVERYWHERE}]
            )

    def _lead(self, table_id: str, **target: str) -> None:
        self.ec2.create_route(RouteTableId=table_id, DestinationCidrBlock="0.0.0.0/0", **target)

    def _lead6(self, table_id: str, **target: str) -> None:
        self.ec2.create_route(RouteTableId=table_id, DestinationIpv6CidrBlock="::/0", **target)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything; the kernel forgets the rest with the namespaces."""
        self._exits.close()

    def _serve(self, exits: contextlib.ExitStack) -> None:
        inner = self.fabric.worker.call(listen, str(ENDPOINT), 80)
        exits.enter_context(contextlib.closing(inner))
        exits.enter_context(serving(self.plane.application(counted=True), inner))
        outer = exits.enter_context(contextlib.closing(listen("127.0.0.1", 0)))
        exits.enter_context(serving(self.plane.application(counted=False), outer))
        self.imds = Imds(self._desired.asking, self._desired.metadata)
        for address in (IMDS, IMDS6):
            exits.enter_context(self.fabric.worker.call(self.imds.listen, str(address)).serving())
        # moto's session has read EC2's model already: a tenth of a second, and 10 MB.
        self.ec2: Any = AccountSpecificBackend.get_session().client(
            "ec2",
            region_name=self.region,
            endpoint_url=f"http://127.0.0.1:{outer.getsockname()[1]}",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - no secret: nothing checks it
        )

    # Networks --------------------------------------------------------------------------
    @property
    def vpc_id(self) -> str:
        """The VPC's id."""
        return self._desired.vpc_id

    @property
    def cidrs(self) -> list[str]:
        """The VPC's IPv4 CIDRs."""
        return self._desired.cidrs()

    @property
    def cidrs6(self) -> list[str]:
        """The VPC's IPv6 CIDRs."""
        return self._desired.cidrs(6)

    def add_cidr(self, cidr: str) -> None:
        """Add a CIDR to the VPC."""
        self.ec2.associate_vpc_cidr_block(VpcId=self.vpc_id, CidrBlock=cidr)

    def add_subnet(
        self, cidr: str, az: str, tags: Mapping[str, str] | None = None, *, private: bool = False
    ) -> str:
        """Add a subnet and return its id; a *private* one has a NAT gateway for its way out.

        The NAT gateway is in the first subnet that is not private: one must be there.
        """
        made = self.ec2.create_subnet(VpcId=self.vpc_id, CidrBlock=cidr, AvailabilityZone=az)
        subnet_id: str = made["Subnet"]["SubnetId"]
        if self._ipv6:
            self.ec2.associate_subnet_cidr_block(
                SubnetId=subnet_id, Ipv6CidrBlock=str(self._free_cidr6())
            )
        if tags:
            self.ec2.create_tags(
                Resources=[subnet_id], Tags=[{"Key": k, "Value": v} for k, v in tags.items()]
            )
        if private:
            self._nat_table = self._nat_table or self._make_nat(subnet_id)
            self.ec2.associate_route_table(RouteTableId=self._nat_table, SubnetId=subnet_id)
        return subnet_id

    def _free_cidr6(self) -> IPv6Network:
        with self.plane.lock:
            taken = {cidr for subnet in self._desired.subnets() for cidr in subnet.cidrs6}
        outer = IPv6Network(self.cidrs6[0])
        return next(c for c in outer.subnets(new_prefix=64) if str(c) not in taken)

    def _make_nat(self, subnet_id: str) -> str:
        """Make a NAT gateway in another subnet than this, and a route table that leads to it."""
        public = next((s.id for s in self._desired.subnets() if s.id != subnet_id), None)
        if public is None:
            raise ValueError("a private subnet needs a public one before it, for its NAT gateway")
        table = self.ec2.create_route_table(VpcId=self.vpc_id)["RouteTable"]["RouteTableId"]
        allocation = self.ec2.allocate_address(Domain="vpc")["AllocationId"]
        gateway = self.ec2.create_nat_gateway(SubnetId=public, AllocationId=allocation)
        self._lead(table, NatGatewayId=gateway["NatGateway"]["NatGatewayId"])
        if self._ipv6:
            made = self.ec2.create_egress_only_internet_gateway(VpcId=self.vpc_id)
            gateway_id = made["EgressOnlyInternetGateway"]["EgressOnlyInternetGatewayId"]
            self._lead6(table, EgressOnlyInternetGatewayId=gateway_id)
        return str(table)

    # Nodes -----------------------------------------------------------------------------
    def launch_node(
        self,
        name: str,
        instance_type: str,
        subnet_id: str,
        *,
        public: bool = False,
        hop_limit: int = 1,
        groups: Sequence[str] = (),
        spot: bool = False,
        eni: Mapping[str, Any] | None = None,
    ) -> Node:
        """Launch an instance and boot a node on it; *hop_limit* is of IMDS's tokens.

        *groups* are security groups, the VPC's default one if there are none. *eni* is what else
        RunInstances is to be told of the primary ENI, as `Ipv4PrefixCount`. Raises ValueError for
        a name that is taken or is no host's, EC2's ClientError for what EC2 refuses.
        """
        if name in self.nodes:
            raise ValueError(f"there is a node {name} in the VPC")
        if not HOSTNAME.fullmatch(name):
            raise ValueError(f"'{name}' is not up to 63 letters, digits, hyphens and dots")
        wish = {
            "DeviceIndex": 0,
            "SubnetId": subnet_id,
            "AssociatePublicIpAddress": public,
            **({"Groups": list(groups)} if groups else {}),
            **({"Ipv6AddressCount": 1} if self._ipv6 else {}),
            **(eni or {}),
        }
        done = self.ec2.run_instances(
            ImageId=IMAGE, InstanceType=instance_type, MinCount=1, MaxCount=1,
            MetadataOptions={
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": hop_limit,
                "HttpProtocolIpv6": "enabled" if self._ipv6 else "disabled",
            },
            NetworkInterfaces=[wish],
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}
            ],
            **({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}),
        )  # fmt: skip
        instance_id = done["Instances"][0]["InstanceId"]
        primary_eni: Eni = self._instance(instance_id).nics[0]
        primary = IPv4Address(primary_eni.private_ip_address)
        with contextlib.ExitStack() as undo:
            undo.callback(self.ec2.terminate_instances, InstanceIds=[instance_id])
            folder = self._folder / name
            node = Node(name, instance_id, primary, folder, self._terminate, self._reboot)
            undo.pop_all()
        with self.plane.lock:
            self.nodes[name] = node
        self._boot(node)
        return node

    def _boot(self, node: Node) -> None:
        """Plug an instance's ENIs into its node, and configure the first as an image does."""
        with self.plane.lock:
            self._desired.booted[node.instance_id] = node
            primary: Eni = self._instance(node.instance_id).nics[0]
        self._replug(node)
        wanted = self._desired.wanted(primary)
        assert wanted is not None  # noqa: S101 - the node is there now
        node.start_by_dhcp(
            wanted,
            IPv4Network(primary.subnet.cidr_block).prefixlen,
            [IPv6Address(a) for a in primary.addresses6],
        )
        self.fabric.settle(primary.id)

    def _replug(self, node: Node) -> None:
        """Have the fabric look anew at the ENIs of an instance."""
        with self.plane.lock:
            enis = list(self._instance(node.instance_id).nics.values())
        for eni in enis:
            self._sync(eni)

    def _reboot(self, node: Node) -> None:
        """Reboot the instance; the fabric lets go of its namespace before that goes."""
        node.end_processes()
        with self.plane.lock:
            self._desired.booted.pop(node.instance_id)
        self._replug(node)
        node.begin_anew()
        self._boot(node)

    def public_address(self, node: Node) -> IPv4Address:
        """Return what the internet sees of *node*."""
        with self.plane.lock:
            return IPv4Address(self._instance(node.instance_id).nics[0].public_ip)

    def facts(self, node: Node) -> dict[str, str | None]:
        """Return what EC2 says of a node: type, zone, public address, IPv6 address."""
        with self.plane.lock:
            instance = self._instance(node.instance_id)
            eni: Eni = instance.nics[0]
            return {
                "instance_type": instance.instance_type,
                "zone": instance.placement.availability_zone,
                "public": eni.public_ip,
                "ipv6": eni.ipv6_address,
            }

    def _terminate(self, node: Node) -> None:
        """Terminate the instance; the fabric lets go of its namespace before that goes."""
        node.end_processes()
        with self.plane.lock:
            self.nodes.pop(node.name)
            self._desired.booted.pop(node.instance_id)
        try:
            self.ec2.terminate_instances(InstanceIds=[node.instance_id])
        finally:
            node.power_off()

    def _power_off(self) -> None:
        with self.plane.lock:
            nodes, self._desired.booted = list(self.nodes.values()), {}
        for node in nodes:
            node.end_processes()
            node.power_off()

    def _instance(self, instance_id: str) -> Any:
        return self.plane.backend.get_instance(instance_id)

    # What follows from EC2 -------------------------------------------------------------
    def _sync(self, eni: Eni) -> None:
        self.fabric.sync(eni.id, lambda: self._desired.wanted(eni))
        former, instance = self._homes.pop(eni.id, None), eni.instance
        if instance is not None:
            self._homes[eni.id] = instance.id
            self.imds.note(instance.id)
        if former is not None and (instance is None or instance.id != former):
            self.imds.note(former)

    def _reshape(self) -> None:
        if self.vpc_id:
            self.fabric.reshape(self._desired.shape)

    # Who may do what -------------------------------------------------------------------
    def restrict(self, *policies: object) -> None:
        """Let nodes do what these JSON policies allow together, and nothing else.

        Until then they may do everything, with any keys. Raises PolicyError.
        """
        with self.plane.lock:
            self.plane.access.restrict(f"role/{ROLE}", *policies)

    def add_user(self, name: str, *policies: object) -> Key:
        """Make a user who may do what these JSON policies allow, and return its access key.

        A role that is assumed elsewhere than on an instance is one, too. Raises PolicyError.
        """
        with self.plane.lock:
            return self.plane.access.add_user(name, *policies)

    @property
    def denials(self) -> Mapping[str, int]:
        """What was denied, in sentences, and how often."""
        with self.plane.lock:
            return dict(self.plane.access.denials)

    # What is seen ----------------------------------------------------------------------
    @property
    def calls(self) -> Counter[str]:
        """EC2 calls of the nodes, by action."""
        return self.plane.calls

    @property
    def faults(self) -> Faults:
        """What is wrong with EC2's answers to the nodes."""
        return self.plane.faults

    @property
    def delays(self) -> Delays:
        """How long attaching and detaching take."""
        return self.plane.backend.delays

    def enis(self) -> list[VpcEni]:
        """Return every ENI, as it truly is."""
        return self._desired.enis()

    def drops(self) -> dict[str, int]:
        """Return packets that the fabric dropped since the last reset, by cause."""
        return self.fabric.drops()

    def reset_drops(self) -> None:
        """Count drops from here."""
        self.fabric.reset_drops()

    def check(self) -> list[str]:
        """Return a sentence for each thing that must not be: packets and EC2 disagree."""
        return self._desired.wrong(self.fabric.routes())
