"""The embedded VPC: EC2, IMDS, fabric and nodes behind one facade. Shell.

    with EmbeddedVPC(cidr="10.0.0.0/16") as vpc:
        subnet = vpc.add_subnet("10.0.1.0/24", az="us-east-1a")
        node = vpc.launch_node("node-a", "m5.large", subnet, public=True)

Needs a box (`vpclab.box`). One at a time in a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from itertools import pairwise
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any

from moto.core.base_backend import AccountSpecificBackend

from vpclab import box
from vpclab.api import ControlPlane, listen, serving
from vpclab.ec2 import ACCOUNT
from vpclab.ec2.credentials import Key
from vpclab.ec2.model import Delays, Eni, VpcSubnet
from vpclab.fabric import ENDPOINT, IMDS, IMDS6, INTERNET, INTERNET6, Fabric, Wanted, port_of
from vpclab.faults import Faults
from vpclab.gates import Group, Network, Passport, Rule, Shape
from vpclab.imds import Imds
from vpclab.metadata import ROLE, Metadata, options_of, tree_of
from vpclab.node import Node

FIRST_IFNAME = 5
"""A Nitro instance's first ENI is ens5."""

IMAGE = "ami-760aaa0f"
"""Amazon Linux on amd64, of those that moto knows."""

EVERYWHERE = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}


def predictable(eni: Eni) -> str:
    """Return the name that a Nitro instance gives an ENI: ens5, ens6, or enp1s6 on card 1."""
    number = FIRST_IFNAME + int(eni.device_index or 0)
    return f"enp{eni.card}s{number}" if eni.card else f"ens{number}"


def arbitrary(eni: Eni) -> str:
    """Return a name that says nothing, as another distribution's udev may give: find it by MAC."""
    return f"en{hashlib.sha256(eni.mac_address.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class VpcEni:
    """An ENI as it truly is."""

    id: str
    mac: str
    instance_id: str | None
    device_index: int | None
    subnet_id: str
    primary: IPv4Address
    secondary: tuple[IPv4Address, ...]
    status: str
    tags: Mapping[str, str]
    prefixes: tuple[IPv4Network, ...] = ()
    ipv6: tuple[IPv6Address, ...] = ()
    ipv6_prefixes: tuple[IPv6Network, ...] = ()
    card: int = 0


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
            subprocess.run, list(argv), check=check, capture_output=True, text=True, timeout=30
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
        self._by_instance: dict[str, Node] = {}
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
            self.vpc_id = ""
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
        self.vpc_id = made["Vpc"]["VpcId"]
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
        self.imds = Imds(self._asking, self._metadata)
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
    def cidrs(self) -> list[str]:
        """The VPC's IPv4 CIDRs."""
        with self.plane.lock:
            return self.plane.backend.cidrs(self.vpc_id)

    @property
    def cidrs6(self) -> list[str]:
        """The VPC's IPv6 CIDRs."""
        with self.plane.lock:
            return self.plane.backend.cidrs(self.vpc_id, 6)

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
            taken = {cidr for subnet in self._subnets() for cidr in subnet.cidrs6}
        outer = IPv6Network(self.cidrs6[0])
        return next(c for c in outer.subnets(new_prefix=64) if str(c) not in taken)

    def _make_nat(self, subnet_id: str) -> str:
        """Make a NAT gateway in another subnet than this, and a route table that leads to it."""
        public = next((s.id for s in self._subnets() if s.id != subnet_id), None)
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

    def _subnets(self) -> list[VpcSubnet]:
        return [
            subnet
            for subnet in self.plane.backend.describe_subnets()
            if isinstance(subnet, VpcSubnet) and subnet.vpc_id == self.vpc_id
        ]

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
        a name that is taken, EC2's ClientError for what EC2 refuses.
        """
        if name in self.nodes:
            raise ValueError(f"there is a node {name} in the VPC")
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
        node = Node(name, instance_id, primary, self._folder / name, self._terminate)
        with self.plane.lock:
            self.nodes[name] = self._by_instance[instance_id] = node
        self._sync(primary_eni)
        wanted = self._wanted(primary_eni)
        assert wanted is not None  # noqa: S101 - the node is there now
        node.start_by_dhcp(
            wanted,
            IPv4Network(primary_eni.subnet.cidr_block).prefixlen,
            [IPv6Address(a) for a in primary_eni.addresses6],
        )
        self.fabric.settle(primary_eni.id)
        return node

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
            self._by_instance.pop(node.instance_id)
        self.ec2.terminate_instances(InstanceIds=[node.instance_id])
        node.power_off()

    def _power_off(self) -> None:
        with self.plane.lock:
            nodes, self._by_instance = list(self.nodes.values()), {}
        for node in nodes:
            node.end_processes()
            node.power_off()

    def _instance(self, instance_id: str) -> Any:
        return self.plane.backend.get_instance(instance_id)

    # What follows from EC2 -------------------------------------------------------------
    def _sync(self, eni: Eni) -> None:
        self.fabric.sync(eni.id, lambda: self._wanted(eni))
        former, instance = self._homes.pop(eni.id, None), eni.instance
        if instance is not None:
            self._homes[eni.id] = instance.id
            self.imds.note(instance.id)
        if former is not None and (instance is None or instance.id != former):
            self.imds.note(former)

    def _wanted(self, eni: Eni) -> Wanted | None:
        """Return what the fabric should have of *eni* now; None: nothing."""
        with self.plane.lock:
            backend, instance = self.plane.backend, eni.instance
            node = self._by_instance.get(instance.id) if instance is not None else None
            if node is None or not eni.is_plugged or eni.id not in backend.enis:
                return None
            ways = [backend.way(eni.subnet, version) for version in (4, 6)]
            passport = Passport(
                port=port_of(eni.id),
                mac=eni.mac_address,
                checked=bool(eni.source_dest_check),
                owned=eni.owned,
                groups=frozenset(group.id for group in eni.group_set),
                public=tuple(eni.public.items()),
                way4=ways[0][1] if ways[0][0] == "nat" else ways[0][0],
                way6=ways[1][0],
            )
            return Wanted(
                eni_id=eni.id,
                node_fd=node.fd,
                ifname=self._ifname(eni),
                router=IPv4Network(eni.subnet.cidr_block)[1],
                passport=passport,
            )

    def _reshape(self) -> None:
        if self.vpc_id:
            self.fabric.reshape(self._shape)

    def _shape(self) -> Shape:
        """Return CIDRs, groups and NAT gateways as the fabric should have them now."""
        with self.plane.lock:
            backend = self.plane.backend
            cidrs = [*backend.cidrs(self.vpc_id), *backend.cidrs(self.vpc_id, 6)]
            return Shape(
                cidrs=tuple(ip_network(cidr) for cidr in cidrs),
                groups=tuple(map(_group, backend.groups[self.vpc_id].values())),
                nats={
                    gateway.id: backend.public_of(gateway.id)
                    for gateway in backend.nat_gateways.values()
                    if gateway.state == "available"
                },
            )

    def _asking(self, source: str) -> str | None:
        """Return the instance that asks IMDS from *source*, any address of its ENIs."""
        with self.plane.lock:
            plugged = [e for e in self.plane.backend.enis.values() if e.is_plugged]
            # A node's own address, as a rule: what each ENI holds in all takes long to tell.
            found = (
                [e for e in plugged if source == e.private_ip_address]
                or [e for e in plugged if source in e.addresses]
                or [e for e in plugged if e.holds(source)]
            )
            return found[0].instance.id if found else None

    def _metadata(self, instance_id: str) -> Metadata | None:
        with self.plane.lock:
            instance = self._instance(instance_id)
            if instance.state == "terminated":
                return None
            tree = tree_of(
                instance,
                region=self.region,
                account=ACCOUNT,
                cidrs=self.cidrs,
                cidrs6=self.cidrs6,
                credentials=self.plane.access.profile(instance_id),
            )
            return Metadata(tree, options_of(instance))

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
        with self.plane.lock:
            return [
                VpcEni(
                    id=eni.id,
                    mac=eni.mac_address,
                    instance_id=eni.instance.id if eni.instance is not None else None,
                    device_index=eni.device_index if eni.attachment_id else None,
                    subnet_id=eni.subnet.id,
                    primary=IPv4Address(eni.private_ip_address),
                    secondary=tuple(IPv4Address(a) for a in eni.addresses[1:]),
                    status=eni.status,
                    tags={tag["key"]: tag["value"] for tag in eni.get_tags()},
                    prefixes=tuple(map(IPv4Network, eni.prefixes)),
                    ipv6=tuple(map(IPv6Address, eni.addresses6)),
                    ipv6_prefixes=tuple(map(IPv6Network, eni.prefixes6)),
                    card=eni.card,
                )
                for eni in self.plane.backend.enis.values()
            ]

    def drops(self) -> dict[str, int]:
        """Return packets that the fabric dropped since the last reset, by cause."""
        return self.fabric.drops()

    def reset_drops(self) -> None:
        """Count drops from here."""
        self.fabric.reset_drops()

    def check(self) -> list[str]:
        """Return a sentence for each thing that must not be: packets and EC2 disagree."""
        with self.plane.lock:
            enis = list(self.plane.backend.enis.values())
        owners: list[tuple[Network, str]] = sorted(
            ((network, eni.id) for eni in enis for network in eni.owned),
            key=lambda owner: (owner[0].version, owner[0]),
        )
        wrong = [
            f"{one} is on {holder} and {other} on {second}"
            for (one, holder), (other, second) in pairwise(owners)
            if one.version == other.version and other.network_address in one
        ]
        wrong += self._check_books({network for network, _ in owners})
        wanted = {
            network: w.port
            for eni in enis
            if (w := self._wanted(eni)) is not None
            for network in w.passport.owned
        }
        routes = self.fabric.routes()
        wrong += [
            f"{network} leads to {routes.get(network)}, its owner is {wanted.get(network)}"
            for network in wanted.keys() | routes.keys()
            if wanted.get(network) != routes.get(network)
        ]
        return wrong

    def _check_books(self, owned: set[Network]) -> list[str]:
        """Return what subnets have noted as taken and nobody owns, or the other way round."""
        with self.plane.lock:
            noted = {network for subnet in self._subnets() for network in subnet.taken}
        return [f"{network} is lost: taken, and on no ENI" for network in noted - owned] + [
            f"{network} is on an ENI and free in its subnet" for network in owned - noted
        ]


def _group(group: Any) -> Group:
    """Return one of moto's security groups as the fabric takes it."""
    return Group(group.id, tuple(_rules(group.ingress_rules)), tuple(_rules(group.egress_rules)))


def _rules(rules: Iterable[Any]) -> Iterable[Rule]:
    for rule in rules:
        peer = rule.cidr_ipv4 or rule.cidr_ipv6 or (rule.source_group or {}).get("GroupId")
        if peer is not None:
            yield Rule(rule.ip_protocol, rule.from_port, rule.to_port, peer)
