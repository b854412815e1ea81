"""Public addresses: the region's pool, elastic ones, and what leaves with a private one. Shell."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from moto.ec2.models import EC2Backend

from vpclab.ec2.errors import error
from vpclab.ec2.model import Eni

PUBLIC = IPv4Network("198.51.100.0/24")
"""Where public addresses come from (TEST-NET-2)."""

KEPT = frozenset({IPv4Address("198.51.100.250")})
"""Public addresses of the lab's own: the EC2 endpoint."""


class Publics(EC2Backend):
    """moto's elastic addresses, on any address of an ENI."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.changed: list[Eni] = []
        self.enis: dict[str, Eni] = {}
        self._free_public = [a for a in PUBLIC.hosts() if a not in KEPT]
        super().__init__(*arguments, **keywords)

    def take_public(self) -> str:
        """Take a public address of the region."""
        if not self._free_public:
            raise error("AddressLimitExceeded", f"The embedded VPC has no more of {PUBLIC}")
        return str(self._free_public.pop(0))

    def free_public(self, address: str) -> None:
        """Give a public address back; it is given again last."""
        self._free_public.append(IPv4Address(address))

    def allocate_address(
        self,
        domain: str,  # noqa: ARG002 - moto's signature
        address: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> Any:
        """Allocate an elastic address."""
        if address is not None:
            raise error("UnsupportedOperation", "The embedded VPC does not model a wished address.")
        return super().allocate_address("vpc", self.take_public(), tags)

    def associate_address(
        self,
        instance: Any = None,
        eni: Eni | None = None,
        address: str | None = None,
        allocation_id: str | None = None,
        reassociate: bool = False,  # noqa: FBT001, FBT002 - moto's signature
        private: str | None = None,
    ) -> Any:
        """Give an address of an ENI a public one: the primary, unless *private* is named.

        An elastic address that it has is disassociated and stays the account's (API reference).
        """
        if not address and not allocation_id:
            raise error("MissingParameter", "Either public IP or allocation id must be specified")
        target: Eni = eni if eni is not None else instance.nics[0]
        private = private or target.private_ip_address
        if private not in target.addresses:
            raise error(
                "InvalidParameterValue", f"{private} is not an address of interface {target.id}"
            )
        eip = super().associate_address(instance, target, address, allocation_id, reassociate)
        for other in self.enis.values():
            for owned in [a for a, public in other.public.items() if public == eip.public_ip]:
                other.publish(owned, None, {})
                self.changed.append(other)
        former = target.public.get(private)
        if former in {e.public_ip for e in self.addresses}:
            self.disassociate_address(address=former)
        elif former is not None:
            self.free_public(former)
        marks = {"AllocationId": eip.allocation_id, "AssociationId": eip.association_id}
        target.publish(private, eip.public_ip, {**marks, "IpOwnerId": self.account_id})
        self.changed.append(target)
        return eip

    def disassociate_address(
        self, address: str | None = None, association_id: str | None = None
    ) -> None:
        """Take an elastic address from its ENI."""
        found = [
            e
            for e in self.addresses
            if (address or association_id) in {e.public_ip, e.association_id or ""}
        ]
        if not found or not (address or association_id):
            raise error(
                "InvalidAssociationID.NotFound",
                f"The association ID '{association_id or address}' does not exist",
            )
        for eip in found:
            if eip.eni is not None and eip.association_id is not None:
                self._withdraw(eip.eni, [eip.public_ip])
        super().disassociate_address(address, association_id)

    def _withdraw(self, eni: Eni, publics: Iterable[str]) -> None:
        for private in [a for a, public in eni.public.items() if public in publics]:
            eni.publish(private, None, {})
        self.changed.append(eni)

    def unpublish(self, eni: Eni, privates: Iterable[str]) -> None:
        """Take the public addresses of *privates* of an ENI that lets go of them."""
        gone = {eni.public[private] for private in privates if private in eni.public}
        elastic = {e.public_ip for e in self.addresses}
        for public in gone:
            if public in elastic:
                self.disassociate_address(address=public)
            else:
                self._withdraw(eni, [public])
                self.free_public(public)

    def release_address(self, address: str | None = None, allocation_id: str | None = None) -> None:
        """Release an elastic address that nobody has."""
        (eip,) = (
            self.address_by_ip([address])
            if address
            else self.address_by_allocation([allocation_id])
        )
        if eip.association_id is not None:
            raise error("InvalidIPAddress.InUse", f"The address {eip.public_ip} is in use")
        public: str = eip.public_ip
        super().release_address(address, allocation_id)
        self.free_public(public)
