"""What EC2's state asks of the fabric and of IMDS, and whether they have it. Shell.

EC2's word is the only state: nothing is kept here but which instances have booted. Each question
is answered under the control plane's lock, from what is so now, as whoever follows asks when its
turn comes. Nothing here waits for the fabric, whose thread asks while it works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import pairwise
from typing import Any

from vpclab.api import ControlPlane
from vpclab.ec2 import ACCOUNT
from vpclab.ec2.model import Eni, VpcSubnet
from vpclab.fabric import Wanted, port_of
from vpclab.gates import Group, Network, Passport, Rule, Shape
from vpclab.metadata import Metadata, options_of, tree_of
from vpclab.node import Node

FIRST_IFNAME = 5
"""A Nitro instance's first ENI is ens5."""


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
    addresses: tuple[IPv4Address, ...]
    """The primary first; an efa-only ENI has none."""

    status: str
    tags: Mapping[str, str]
    prefixes: tuple[IPv4Network, ...] = ()
    ipv6: tuple[IPv6Address, ...] = ()
    ipv6_prefixes: tuple[IPv6Network, ...] = ()
    card: int = 0

    @property
    def primary(self) -> IPv4Address:
        """Its primary address. Raises IndexError for an efa-only ENI."""
        return self.addresses[0]

    @property
    def secondary(self) -> tuple[IPv4Address, ...]:
        """Its other addresses."""
        return self.addresses[1:]


@dataclass(slots=True)
class Desired:
    """What the VPC should be by EC2's word; the methods may be called on any thread."""

    plane: ControlPlane
    ifname: Callable[[Eni], str]
    vpc_id: str = ""
    """Empty until EC2 has made it."""

    booted: dict[str, Node] = field(default_factory=dict)
    """Nodes by their instances' ids: an ENI has a link where its instance has a node."""

    def wanted(self, eni: Eni) -> Wanted | None:
        """Return what the fabric should have of *eni* now; None: nothing."""
        with self.plane.lock:
            backend, instance = self.plane.backend, eni.instance
            node = self.booted.get(instance.id) if instance is not None else None
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
                ifname=self.ifname(eni),
                router=IPv4Network(eni.subnet.cidr_block)[1],
                passport=passport,
            )

    def cidrs(self, version: int = 4) -> list[str]:
        """Return the VPC's CIDRs of one family."""
        with self.plane.lock:
            return self.plane.backend.cidrs(self.vpc_id, version)

    def shape(self) -> Shape:
        """Return CIDRs, groups and NAT gateways as the fabric should have them now."""
        with self.plane.lock:
            backend = self.plane.backend
            cidrs = [*self.cidrs(), *self.cidrs(6)]
            return Shape(
                cidrs=tuple(ip_network(cidr) for cidr in cidrs),
                groups=tuple(map(_group, backend.groups[self.vpc_id].values())),
                nats={
                    gateway.id: backend.public_of(gateway.id)
                    for gateway in backend.nat_gateways.values()
                    if gateway.state == "available"
                },
            )

    def asking(self, source: str) -> str | None:
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

    def metadata(self, instance_id: str) -> Metadata | None:
        """Return what IMDS tells an instance now; None: nothing."""
        with self.plane.lock:
            instance = self.plane.backend.get_instance(instance_id)
            if instance.state == "terminated":
                return None
            tree = tree_of(
                instance,
                region=self.plane.region,
                account=ACCOUNT,
                cidrs=self.cidrs(),
                cidrs6=self.cidrs(6),
                credentials=self.plane.access.profile(instance_id),
            )
            return Metadata(tree, options_of(instance))

    def subnets(self) -> list[VpcSubnet]:
        """Return the VPC's subnets."""
        return [
            subnet
            for subnet in self.plane.backend.describe_subnets()
            if isinstance(subnet, VpcSubnet) and subnet.vpc_id == self.vpc_id
        ]

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
                    addresses=tuple(map(IPv4Address, eni.addresses)),
                    status=eni.status,
                    tags={tag["key"]: tag["value"] for tag in eni.get_tags()},
                    prefixes=tuple(map(IPv4Network, eni.prefixes)),
                    ipv6=tuple(map(IPv6Address, eni.addresses6)),
                    ipv6_prefixes=tuple(map(IPv6Network, eni.prefixes6)),
                    card=eni.card,
                )
                for eni in self.plane.backend.enis.values()
            ]

    def wrong(self, routes: Mapping[Network, str]) -> list[str]:
        """Return a sentence for each thing that must not be; *routes* are what the fabric has."""
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
            if (w := self.wanted(eni)) is not None
            for network in w.passport.owned
        }
        wrong += [
            f"{network} leads to {routes.get(network)}, its owner is {wanted.get(network)}"
            for network in wanted.keys() | routes.keys()
            if wanted.get(network) != routes.get(network)
        ]
        return wrong

    def _check_books(self, owned: set[Network]) -> list[str]:
        """Return what subnets have noted as taken and nobody owns, or the other way round."""
        with self.plane.lock:
            noted = {network for subnet in self.subnets() for network in subnet.taken}
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
