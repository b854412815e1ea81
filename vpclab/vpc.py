"""The embedded VPC: EC2, IMDS, fabric and nodes behind one facade. Shell.

    with EmbeddedVPC(cidr="10.0.0.0/16") as vpc:
        subnet = vpc.add_subnet("10.0.1.0/24", az="us-east-1a")
        node = vpc.launch_node("node-a", "m5.large", subnet, public=True)

Needs a box (`vpclab.box`). One at a time in a process.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any

import boto3

from vpclab import box
from vpclab.api import ControlPlane, listen, serving
from vpclab.ec2 import ACCOUNT
from vpclab.ec2.model import Delays, Eni, VpcSubnet
from vpclab.fabric import ENDPOINT, IMDS, INTERNET, PUBLIC, Fabric, Wanted
from vpclab.imds import Imds
from vpclab.metadata import Metadata, options_of, tree_of
from vpclab.node import Node

FIRST_IFNAME = 5
"""A Nitro instance's first ENI is ens5."""


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


class Internet:
    """A host on the internet."""

    address = INTERNET

    def __init__(self, fabric: Fabric) -> None:
        self._worker = fabric.internet

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket:
        """Return a socket that lives on the host."""
        return self._worker.socket(family, kind, protocol)

    def run(self, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on the host."""
        return self._worker.call(
            subprocess.run, list(argv), check=check, capture_output=True, text=True, timeout=30
        )


class EmbeddedVPC:
    """A VPC with an internet gateway, on this machine."""

    def __init__(self, cidr: str = "10.0.0.0/16", region: str = "us-east-1") -> None:
        if not box.in_box():
            raise box.BoxError("an embedded VPC runs in a box: use `python -m vpclab.box COMMAND`")
        self.region, self.cidrs = region, [cidr]
        self._exits = contextlib.ExitStack()
        self.nodes: dict[str, Node] = {}
        self._by_instance: dict[str, Node] = {}
        self._public = iter(PUBLIC.hosts())

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
            self.plane.on_change = self._sync
            self._serve(exits)
            self.vpc_id = self.ec2.create_vpc(CidrBlock=self.cidrs[0])["Vpc"]["VpcId"]
            self.fabric.add_cidr(IPv4Network(self.cidrs[0]))
            exits.callback(self._power_off)
            self._exits = exits.pop_all()
        return self

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
        exits.enter_context(self.fabric.worker.call(self.imds.listen, str(IMDS)).serving())
        self.ec2: Any = boto3.client(
            "ec2",
            region_name=self.region,
            endpoint_url=f"http://127.0.0.1:{outer.getsockname()[1]}",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - no secret: nothing checks it
        )

    # Networks --------------------------------------------------------------------------
    def add_cidr(self, cidr: str) -> None:
        """Add a CIDR to the VPC."""
        self.ec2.associate_vpc_cidr_block(VpcId=self.vpc_id, CidrBlock=cidr)
        self.fabric.add_cidr(IPv4Network(cidr))
        self.cidrs.append(cidr)

    def add_subnet(self, cidr: str, az: str, tags: Mapping[str, str] | None = None) -> str:
        """Add a subnet and return its id."""
        made = self.ec2.create_subnet(VpcId=self.vpc_id, CidrBlock=cidr, AvailabilityZone=az)
        subnet_id: str = made["Subnet"]["SubnetId"]
        if tags:
            self.ec2.create_tags(
                Resources=[subnet_id], Tags=[{"Key": k, "Value": v} for k, v in tags.items()]
            )
        return subnet_id

    # Nodes -----------------------------------------------------------------------------
    def launch_node(
        self,
        name: str,
        instance_type: str,
        subnet_id: str,
        *,
        public: bool = False,
        hop_limit: int = 1,
    ) -> Node:
        """Launch an instance and boot a node on it; *hop_limit* is of IMDS's tokens."""
        if name in self.nodes:
            raise ValueError(f"there is a node {name} in the VPC")
        done = self.ec2.run_instances(
            ImageId="ami-12c6146b", InstanceType=instance_type, SubnetId=subnet_id,
            MinCount=1, MaxCount=1,
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": hop_limit},
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}
            ],
        )  # fmt: skip
        instance_id = done["Instances"][0]["InstanceId"]
        eni = self._instance(instance_id).nics[0]
        primary = IPv4Address(eni.private_ip_address)
        node = Node(name, instance_id, primary, self._folder / name, self._terminate)
        with self.plane.lock:
            self.nodes[name] = self._by_instance[instance_id] = node
        self._sync(eni)
        wanted = self._wanted(eni)
        assert wanted is not None  # noqa: S101 - the node is there now
        node.start_by_dhcp(wanted, IPv4Network(eni.subnet.cidr_block).prefixlen)
        if public:
            self.fabric.publish(primary, next(self._public))
        return node

    def public_address(self, node: Node) -> IPv4Address:
        """Return what the internet sees of *node*."""
        return self.fabric.public[node.primary]

    def _terminate(self, node: Node) -> None:
        """Terminate the instance; the fabric lets go of its namespace before that goes."""
        node.end_processes()
        with self.plane.lock:
            self.nodes.pop(node.name)
            self._by_instance.pop(node.instance_id)
        self.fabric.unpublish(node.primary)
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
        self.imds.note(eni.instance.id if eni.instance is not None else None)

    def _wanted(self, eni: Eni) -> Wanted | None:
        """Return what the fabric should have of *eni* now; None: nothing."""
        with self.plane.lock:
            instance = eni.instance
            node = self._by_instance.get(instance.id) if instance is not None else None
            if node is None or not eni.is_plugged or eni.id not in self.plane.backend.enis:
                return None
            return Wanted(
                eni_id=eni.id,
                mac=eni.mac_address,
                node_fd=node.fd,
                ifname=f"ens{FIRST_IFNAME + eni.device_index}",
                router=IPv4Network(eni.subnet.cidr_block)[1],
                owned=frozenset(IPv4Address(a) for a in eni.addresses),
                checked=bool(eni.source_dest_check),
            )

    def _asking(self, source: str) -> str | None:
        """Return the instance that asks IMDS from *source*, any address of its ENIs."""
        with self.plane.lock:
            plugged = [e for e in self.plane.backend.enis.values() if e.is_plugged]
            # Its own address, as a rule: what each ENI holds in all takes long to tell.
            found = [e for e in plugged if source in e.addresses] or [
                e for e in plugged if e.holds(source)
            ]
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
                now=dt.datetime.now(dt.UTC),
            )
            return Metadata(tree, options_of(instance))

    # What is seen ----------------------------------------------------------------------
    @property
    def calls(self) -> Counter[str]:
        """EC2 calls of the nodes, by action."""
        return self.plane.calls

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
        owners: dict[IPv4Address, str] = {}
        wrong = []
        with self.plane.lock:
            enis = list(self.plane.backend.enis.values())
        for eni in enis:
            for address in (IPv4Address(a) for a in eni.addresses):
                if address in owners:
                    wrong.append(f"{address} is on {owners[address]} and on {eni.id}")
                owners[address] = eni.id
        wrong += self._check_books(set(owners))
        wanted = {
            address: w.port
            for eni in enis
            if (w := self._wanted(eni)) is not None
            for address in w.owned
        }
        routes = self.fabric.routes()
        wrong += [
            f"{address} leads to {routes.get(address)}, its owner is {wanted.get(address)}"
            for address in wanted.keys() | routes.keys()
            if wanted.get(address) != routes.get(address)
        ]
        return wrong

    def _check_books(self, owned: set[IPv4Address]) -> list[str]:
        """Return what subnets have noted as taken and nobody owns, or the other way round."""
        with self.plane.lock:
            subnets = [s for s in self.plane.backend.describe_subnets() if isinstance(s, VpcSubnet)]
            noted = {address for s in subnets if s.vpc_id == self.vpc_id for address in s.taken}
        return [f"{address} is lost: taken, and on no ENI" for address in noted - owned] + [
            f"{address} is on an ENI and free in its subnet" for address in owned - noted
        ]
