"""VPCs, subnets and ways out: what surrounds the ENIs. Shell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal

from moto.ec2.exceptions import ResourceAlreadyAssociatedError
from moto.ec2.models.nat_gateways import NatGateway

from vpclab.ec2.errors import error
from vpclab.ec2.model import Eni, VpcSubnet
from vpclab.ec2.public import PUBLIC, Publics

NOT_A_VPCS: dict[IPv4Network, str] = {
    IPv4Network("0.0.0.0/8"): "EC2 refuses it",
    IPv4Network("127.0.0.0/8"): "EC2 refuses it",
    IPv4Network("169.254.0.0/16"): "EC2 refuses it, IMDS is there",
    IPv4Network("224.0.0.0/4"): "EC2 refuses it",
    PUBLIC: "public addresses and the EC2 endpoint are there",
    IPv4Network("203.0.113.0/24"): "the internet's host is there",
}
"""What no VPC can have: loopback, link-local and multicast (VPC guide), and the lab's own."""

WHOLE = {4: "0.0.0.0/0", 6: "::/0"}

Way = tuple[Literal["igw", "egress-only", "nat", "none"], str]
"""Where what leaves the VPC goes, and the gateway's id."""


class VpcNatGateway(NatGateway):
    """A NAT gateway whose ENI gets its address from the subnet."""

    @property
    def private_ip(self) -> None:
        """Nothing: EC2 chooses."""

    @private_ip.setter
    def private_ip(self, value: object) -> None:
        """Ignore what moto sets, a random address of nowhere."""


class Networks(Publics):
    """moto's VPCs with subnets that have address books, and with ways that packets follow."""

    # VPCs --------------------------------------------------------------------------------
    def create_vpc(self, cidr_block: str, *rest: Any, **more: Any) -> Any:
        """Create a VPC whose default group lets its members talk to each other.

        As EC2 does, its CIDR is brought into its canonical form: 10.0.0.1/16 is 10.0.0.0/16.
        """
        cidr = _network(cidr_block, strict=False)
        _check_free(cidr)
        vpc = super().create_vpc(str(cidr), *rest, **more)
        _spell(vpc)
        group = self.get_default_security_group(vpc.id)
        itself = [{"GroupId": group.id, "UserId": self.account_id}]
        self.authorize_security_group_ingress(
            group.id, "-1", None, None, [], source_groups=itself, vpc_id=vpc.id
        )
        return vpc

    def associate_vpc_cidr_block(
        self,
        vpc_id: str,
        cidr_block: str,
        amazon_provided_ipv6_cidr_block: bool,  # noqa: FBT001 - moto's signature
    ) -> Any:
        """Add a CIDR that overlaps no other of the VPC."""
        if not cidr_block and not amazon_provided_ipv6_cidr_block:
            raise error(
                "MissingParameter",
                "Either 'cidrBlock' or 'amazonProvidedIpv6CidrBlock' should be provided.",
            )
        if cidr_block:
            _check_cidr(cidr_block, self.cidrs(vpc_id))
        made = super().associate_vpc_cidr_block(vpc_id, cidr_block, amazon_provided_ipv6_cidr_block)
        _spell(self.get_vpc(vpc_id))
        return made

    def disassociate_vpc_cidr_block(self, association_id: str) -> Any:
        """Take a CIDR away in which no subnet is."""
        for vpc in self.vpcs.values():
            found = vpc._cidr_block_association_set.get(association_id)  # noqa: SLF001 - no other way
            if found is None:
                continue
            outer = ip_network(found["cidr_block"])
            for subnet in self.describe_subnets(filters={"vpc-id": [vpc.id]}):
                inner = [subnet.cidr_block, *subnet.cidrs6]
                if any(_overlap(ip_network(cidr), outer) for cidr in inner):
                    raise error(
                        "InvalidCidrBlock.InUse",
                        f"The vpc {vpc.id} currently has a subnet within CIDR block {outer}.",
                    )
        return super().disassociate_vpc_cidr_block(association_id)

    def delete_vpc(self, vpc_id: str) -> Any:
        """Delete a VPC in which nothing is but its default group and its main route table."""
        gateways = [g for g in self.internet_gateways.values() if g.vpc and g.vpc.id == vpc_id]
        groups = [g for g in self.groups[vpc_id].values() if g.name != "default"]
        if gateways or groups:
            raise error(
                "DependencyViolation", f"The vpc '{vpc_id}' has dependencies and cannot be deleted."
            )
        return super().delete_vpc(vpc_id)

    def detach_internet_gateway(self, internet_gateway_id: str, vpc_id: str) -> Any:
        """Detach an internet gateway that no public address needs."""
        if any(eni.public for eni in self.enis.values() if eni.subnet.vpc_id == vpc_id):
            raise error(
                "DependencyViolation",
                f"Network {vpc_id} has some mapped public address(es). Please unmap those public"
                " address(es) before detaching the gateway.",
            )
        return super().detach_internet_gateway(internet_gateway_id, vpc_id)

    def cidrs(self, vpc_id: str, version: int = 4) -> list[str]:
        """Return the CIDRs of a VPC of one family, its first one first."""
        listed = self.get_vpc(vpc_id).get_cidr_block_association_set(ipv6=version == 6)  # noqa: PLR2004 - IPv6
        return [
            item["cidr_block"]
            for item in listed
            if item["cidr_block_state"]["state"] == "associated"
        ]

    # Subnets -----------------------------------------------------------------------------
    def create_subnet(
        self,
        vpc_id: str,
        cidr_block: str,
        ipv6_cidr_block: str | None = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        """Create a subnet that has address books."""
        _check_subnet(cidr_block)
        if ipv6_cidr_block:
            ipv6_cidr_block = self._checked6(vpc_id, ipv6_cidr_block)
        subnet = super().create_subnet(vpc_id, cidr_block, ipv6_cidr_block, *rest, **more)
        # moto takes the first subnet of a zone for a default one, which gives public addresses.
        default = self.get_vpc(vpc_id).is_default in {True, "true"}
        subnet.default_for_az = subnet.map_public_ip_on_launch = default
        subnet.__class__ = VpcSubnet
        subnet.adopt()
        return subnet

    def associate_subnet_cidr_block(self, subnet_id: str, ipv6_cidr_block: str) -> Any:
        """Give a subnet its IPv6 CIDR."""
        subnet = self.get_subnet(subnet_id)
        if subnet.cidrs6:
            raise error("CidrLimitExceeded", f"The subnet {subnet_id} has an IPv6 CIDR block")
        cidr = self._checked6(subnet.vpc_id, ipv6_cidr_block)
        return super().associate_subnet_cidr_block(subnet_id, cidr)

    def disassociate_subnet_cidr_block(self, association_id: str) -> Any:
        """Take a subnet's IPv6 CIDR away of which no ENI has any. EC2's words are not known."""
        for eni in self.enis.values():
            if association_id in eni.subnet.ipv6_cidr_block_associations and (
                eni.addresses6 or eni.prefixes6
            ):
                raise error(
                    "InvalidCidrBlock.InUse",
                    f"The interface {eni.id} has addresses of the CIDR block {association_id}.",
                )
        return super().disassociate_subnet_cidr_block(association_id)

    def _checked6(self, vpc_id: str, cidr: str) -> str:
        """Return a subnet's IPv6 CIDR as EC2 spells it. Raises EC2ClientError."""
        network = _network(cidr)
        mine = [IPv6Network(outer) for outer in self.cidrs(vpc_id, 6)]
        if (
            not isinstance(network, IPv6Network)
            or network.prefixlen != 64  # noqa: PLR2004 - what EC2 takes
            or not any(network.subnet_of(outer) for outer in mine)
        ):
            ranges = ", ".join(map(str, mine)) or "none"
            raise error(
                "InvalidSubnet.Range",
                f"The CIDR '{cidr}' is not a /64 of the VPC's IPv6 CIDRs ({ranges}).",
            )
        for subnet in self.describe_subnets(filters={"vpc-id": [vpc_id]}):
            if str(network) in subnet.cidrs6:
                raise error(
                    "InvalidSubnet.Conflict", f"The CIDR '{cidr}' conflicts with another subnet"
                )
        return str(network)

    def delete_subnet(self, subnet_id: str) -> Any:
        """Delete a subnet that holds no ENI."""
        if any(eni.subnet.id == subnet_id for eni in self.enis.values()):
            raise error(
                "DependencyViolation",
                f"The subnet '{subnet_id}' has dependencies and cannot be deleted.",
            )
        return super().delete_subnet(subnet_id)

    def delete_security_group(self, *arguments: Any, **keywords: Any) -> Any:
        """Delete a group that no ENI has."""
        group_id = keywords.get("group_id")
        if not group_id:
            raise error("MissingParameter", "The request must contain the parameter GroupId")
        if any(group.id == group_id for eni in self.enis.values() for group in eni.group_set):
            raise error("DependencyViolation", f"resource {group_id} has a dependent object")
        return super().delete_security_group(*arguments, **keywords)

    # Ways out ----------------------------------------------------------------------------
    def way(self, subnet: VpcSubnet, version: int) -> Way:
        """Return where a subnet's default route of a family leads."""
        tables = [t for t in self.route_tables.values() if t.vpc_id == subnet.vpc_id]
        own = [t for t in tables if subnet.id in t._associations.values()]  # noqa: SLF001 - no other way
        for table in own or [t for t in tables if t.main_association_id]:
            for route in table.routes:
                if WHOLE[version] in {
                    route.destination_cidr_block,
                    route.destination_ipv6_cidr_block,
                }:
                    return self._target(route, subnet.vpc_id)
        return "none", ""

    @staticmethod
    def _target(route: Any, vpc_id: str) -> Way:
        gateway, nat, egress_only = route.gateway, route.nat_gateway, route.egress_only_igw
        if gateway is not None and getattr(gateway.vpc, "id", None) == vpc_id:
            return "igw", gateway.id
        if nat is not None and nat.state == "available":
            return "nat", nat.id
        if egress_only is not None and egress_only.vpc_id == vpc_id:
            return "egress-only", egress_only.id
        return "none", ""  # a black hole, as DescribeRouteTables would say

    def create_route(self, route_table_id: str, *arguments: Any, **keywords: Any) -> Any:
        """Create a default route; others would be data that no packet follows."""
        destinations = {
            *arguments[:1], keywords.get("destination_cidr_block"),
            keywords.get("destination_ipv6_cidr_block"),
        } - {None}  # fmt: skip
        if not keywords.get("local") and not destinations <= set(WHOLE.values()):
            raise error(
                "UnsupportedOperation",
                f"The embedded VPC does not model a route to"
                f" {', '.join(sorted(destinations))}, only to 0.0.0.0/0 and ::/0.",
            )
        return super().create_route(route_table_id, *arguments, **keywords)

    def create_nat_gateway(
        self,
        subnet_id: str,
        allocation_id: str,
        tags: dict[str, str] | None = None,
        connectivity_type: str = "public",
    ) -> VpcNatGateway:
        """Create a NAT gateway that has an ENI in the subnet."""
        if connectivity_type == "private":
            raise error(
                "UnsupportedOperation", "The embedded VPC does not model private NAT gateways."
            )
        if not allocation_id:
            raise error("MissingParameter", "A public NAT gateway needs an AllocationId")
        (eip,) = self.address_by_allocation([allocation_id])
        if eip.association_id is not None:  # moto looks when it has made the ENI
            raise ResourceAlreadyAssociatedError(eip.public_ip)
        gateway = VpcNatGateway(self, subnet_id, allocation_id, tags, connectivity_type or "public")
        eni: Eni = gateway._eni  # noqa: SLF001 - moto keeps it there
        eni.interface_type, eni.requester_managed = "nat_gateway", True
        eni.source_dest_check = False
        eni.description = f"Interface for NAT Gateway {gateway.id}"
        gateway.address_set.append(
            {
                "allocationId": allocation_id,
                "publicIp": eip.public_ip,
                "associationId": eip.association_id,
                "networkInterfaceId": eni.id,
                "privateIp": eni.private_ip_address,
            }
        )
        self.nat_gateways[gateway.id] = gateway
        return gateway

    def delete_nat_gateway(self, nat_gateway_id: str) -> Any:
        """Delete a NAT gateway and its ENI."""
        if nat_gateway_id not in self.nat_gateways:
            raise error("NatGatewayNotFound", f"The Nat Gateway {nat_gateway_id} was not found")
        gateway = self.nat_gateways[nat_gateway_id]
        if gateway.state != "deleted":
            gateway.state = "deleted"
            eni: Eni = gateway._eni  # noqa: SLF001 - moto keeps it there
            for eip in [e for e in self.addresses if e.eni is eni]:
                self.disassociate_address(association_id=eip.association_id)
            eni.interface_type = "interface"
            self.delete_network_interface(eni.id)
        return gateway

    def public_of(self, nat_gateway_id: str) -> str:
        """Return the public address of a NAT gateway."""
        address: str = self.nat_gateways[nat_gateway_id].address_set[0]["publicIp"]
        return address


def _spell(vpc: Any) -> None:
    """Write a VPC's CIDRs as EC2 does; moto draws IPv6 ones like 2400:6500:2d66:0000::/56."""
    for association in vpc._cidr_block_association_set.values():  # noqa: SLF001 - no other way
        association["cidr_block"] = str(ip_network(association["cidr_block"]))


def _network(text: str, *, strict: bool = True) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict)
    except ValueError as reason:
        raise error(
            "InvalidParameterValue",
            f"Value ({text}) for parameter cidrBlock is invalid. This is not a valid CIDR block:"
            f" {reason}.",
        ) from None


def _check_cidr(text: str, others: Iterable[str]) -> None:
    """Raise unless *text* may be a VPC's CIDR beside *others*."""
    network = _network(text)
    if not 16 <= network.prefixlen <= 28:  # noqa: PLR2004 - what EC2 takes (VPC guide)
        raise error("InvalidVpc.Range", f"The CIDR '{text}' is invalid: /16 to /28 it must be.")
    _check_free(network)
    for other in others:
        if _overlap(network, ip_network(other)):
            raise error("InvalidVpc.Range", f"The CIDR '{text}' overlaps the VPC's {other}.")


def _check_free(network: IPv4Network | IPv6Network) -> None:
    for taken, reason in NOT_A_VPCS.items():
        if _overlap(network, taken):
            raise error(
                "InvalidVpc.Range",
                f"The CIDR '{network}' is invalid: it overlaps {taken}; {reason}.",
            )


def _check_subnet(text: str) -> None:
    network = _network(text)
    if not 16 <= network.prefixlen <= 28:  # noqa: PLR2004 - what EC2 takes (VPC guide)
        raise error("InvalidSubnet.Range", f"The CIDR '{text}' is invalid: /16 to /28 it must be.")


def _overlap(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    same: Callable[..., bool] = one.overlaps
    return one.version == other.version and same(other)
