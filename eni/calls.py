"""The EC2 calls that a node makes, in our words: the contract of every EC2 we meet. Pure.

`eni.ec2.Ec2` is the real one, `ipamd.plan.cloud` a model of it; the same tests hold both to
what is written here. Every method raises EniError: *not yet* and *refused* have changed
nothing, *unknown outcome* may have (eni/errors.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from ipaddress import IPv4Network

    from eni.limits import InstanceLimits
    from eni.model import (
        AttachmentId,
        Block,
        CreateEni,
        Eni,
        EniId,
        InstanceId,
        Kind,
        SecurityGroupId,
        Subnet,
        SubnetId,
        VpcId,
    )


class Ec2Calls(Protocol):
    """The part of EC2 that a node needs."""

    # Questions -------------------------------------------------------------------------
    def attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """Return every ENI that is attached to the instance, or on its way there or away."""

    def eni(self, eni_id: EniId) -> Eni | None:
        """Return the ENI, None if EC2 says that there is none."""

    def by_tag(self, key: str, value: str) -> tuple[Eni, ...]:
        """Return every ENI that carries the tag; a new one may be missing for some seconds."""

    def available(self, tags: Collection[tuple[str, str]]) -> tuple[Eni, ...]:
        """Return every ENI that nobody uses (status `available`) and that carries all *tags*.

        An empty value means "whatever it is".
        """

    def subnet(self, subnet_id: SubnetId) -> Subnet:
        """Return the subnet with EC2's present count of free addresses."""

    def subnets(self, vpc_id: VpcId, availability_zone: str) -> tuple[Subnet, ...]:
        """Return every subnet of the VPC in the zone, by id."""

    def reservations(self, subnet_id: SubnetId) -> tuple[IPv4Network, ...]:
        """Return the IPv4 CIDR reservations of type `prefix` in the subnet."""

    def limits(self, instance_type: str) -> InstanceLimits:
        """Return what EC2 says that this type takes."""

    # Mutations: each is sent exactly once ----------------------------------------------
    def create(self, wish: CreateEni) -> Eni:
        """Create the ENI, or return the one that the same wish created before.

        Raises PrefixesExhaustedError where addresses may still be had, as `assign` does.
        """

    def attach(
        self, eni_id: EniId, instance_id: InstanceId, device_index: int, network_card: int = 0
    ) -> AttachmentId:
        """Attach the ENI; EC2 answers seconds before the instance sees it."""

    def delete_on_termination(self, eni_id: EniId, attachment_id: AttachmentId) -> None:
        """Let the ENI go with its instance; EC2 has no way to say so when attaching."""

    def detach(self, attachment_id: AttachmentId) -> None:
        """Begin to detach; it is done when a describe says so, or the link is gone."""

    def delete(self, eni_id: EniId) -> None:
        """Delete the ENI; NotFoundError if it is gone, InvalidStateError while attached."""

    def assign(self, eni_id: EniId, kind: Kind, count: int) -> tuple[Block, ...]:
        """Return the *count* blocks of *kind* that the ENI got, all or none.

        Raises SubnetExhaustedError where the subnet has too little; for prefixes it is
        PrefixesExhaustedError unless EC2 says that there are not even addresses.
        """

    def unassign(self, eni_id: EniId, blocks: Sequence[Block]) -> None:
        """Take all of *blocks*, or none: NotFoundError if it lacks one.

        Raises ValueError unless they are of one kind: that would be two calls.
        """

    def set_groups(self, eni_id: EniId, groups: Sequence[SecurityGroupId]) -> None:
        """Give the ENI exactly these security groups."""

    def tag(self, eni_id: EniId, tags: Sequence[tuple[str, str]]) -> None:
        """Add *tags*, replacing those of the same key."""
