"""Who this node is and where, from IMDS; the journal answers while that is away. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol, TypeVar

from eni.errors import EniError, ImdsError
from eni.model import (
    NO_ENIS,
    Attachment,
    AttachmentId,
    AttachmentStatus,
    Block,
    Eni,
    EniId,
    Identity,
    ImdsEni,
    InstanceId,
    Notices,
    SecurityGroupId,
    SubnetId,
    VpcId,
)
from ipamd.journal import Journal, JournalError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Away(Protocol):
    """Runs what blocks in a thread."""

    def __call__(self, work: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """Return what *work* returns."""


FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0


class ImdsCalls(Protocol):
    """The part of IMDS that we read; every method raises ImdsError."""

    def identity(self) -> Identity:
        """Return who this instance is."""

    def enis(self, known: Mapping[str, ImdsEni] = NO_ENIS) -> tuple[ImdsEni, ...]:
        """Return the ENIs that IMDS tells of in full: a hint.

        Of those in *known*, by MAC, only addresses, prefixes and security groups are read.
        """

    def notices(self) -> Notices:
        """Return what AWS is about to do with the instance."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who we are and where, from IMDS or, while it is away, from the journal."""

    identity: Identity
    primary_eni: EniId
    vpc_id: VpcId
    subnet_id: SubnetId
    subnet_cidr: IPv4Network
    vpc_cidrs: tuple[IPv4Network, ...]
    security_groups: tuple[SecurityGroupId, ...]
    primary_blocks: tuple[Block, ...]


async def look_around(
    imds: ImdsCalls, journal: Journal, away: Away, is_here: Callable[[str], Awaitable[bool]]
) -> Surroundings:
    """Ask IMDS, again and again; what a former life noted serves while it is away.

    *is_here* tells whether the kernel shows a link with a MAC: notes whose primary ENI is
    not here are another instance's, whose disk this once was.
    """
    wait = FIRST_WAIT_SECONDS
    while True:
        try:
            found = await _ask(imds, away)
        except EniError as error:
            log.warning("imds is away", extra={"reason": str(error)})
            noted = read_notes(journal)
            if noted is not None and await is_here(noted.identity.mac):
                return noted
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        else:
            return found


async def _ask(imds: ImdsCalls, away: Away) -> Surroundings:
    return surroundings_of(await away(imds.identity), await away(imds.enis))


def surroundings_of(identity: Identity, enis: tuple[ImdsEni, ...]) -> Surroundings:
    """Return what IMDS told. Raises ImdsError while it does not tell of the primary ENI."""
    primary = next((e for e in enis if e.mac == identity.mac), None)
    if primary is None:
        raise ImdsError(f"IMDS does not list {identity.mac} yet", action="network/interfaces/macs")
    singles = tuple(IPv4Network(address) for address in primary.addresses[1:])
    return Surroundings(
        identity=identity,
        primary_eni=primary.id,
        vpc_id=primary.vpc_id,
        subnet_id=primary.subnet_id,
        subnet_cidr=primary.subnet_cidr,
        vpc_cidrs=tuple(c for c in primary.vpc_cidrs if isinstance(c, IPv4Network)),
        security_groups=primary.security_groups,
        primary_blocks=(*singles, *(p for p in primary.prefixes if isinstance(p, IPv4Network))),
    )


def as_eni(found: ImdsEni, instance_id: InstanceId) -> Eni:
    """Return what IMDS tells of an ENI in EC2's shape, for a node that may not ask EC2."""
    return Eni(
        id=found.id,
        mac=found.mac,
        subnet_id=found.subnet_id,
        status="in-use",
        description="",
        interface_type="interface",
        primary=found.addresses[0],
        secondary=found.addresses[1:],
        prefixes=found.prefixes,
        security_groups=found.security_groups,
        attachment=Attachment(
            id=AttachmentId(""),
            instance_id=instance_id,
            device_index=found.device_index,
            network_card=found.network_card,
            status=AttachmentStatus.ATTACHED,
            delete_on_termination=True,
        ),
    )


def note_surroundings(journal: Journal, found: Surroundings) -> None:
    """Keep *found* for a start without IMDS."""
    with contextlib.suppress(JournalError):
        journal.note_fact("surroundings", _noted(found))


def _noted(s: Surroundings) -> dict[str, object]:
    i = s.identity
    return {
        "identity": [i.instance_id, i.instance_type, i.region, i.availability_zone, i.mac],
        "primary": str(i.primary),
        "eni": [s.primary_eni, s.vpc_id, s.subnet_id, str(s.subnet_cidr)],
        "vpc_cidrs": [str(c) for c in s.vpc_cidrs],
        "security_groups": list(s.security_groups),
        "blocks": [str(b) for b in s.primary_blocks],
    }


def read_notes(journal: Journal) -> Surroundings | None:
    """Return what a former life noted; None if there is nothing that can be read."""
    noted = journal.fact("surroundings")
    if not isinstance(noted, dict):
        return None
    try:
        return _surroundings_from(noted)
    except (KeyError, ValueError, TypeError):
        return None


def _surroundings_from(noted: dict[str, list[str]]) -> Surroundings:
    instance_id, instance_type, region, zone, mac = noted["identity"]
    eni_id, vpc_id, subnet_id, subnet_cidr = noted["eni"]
    return Surroundings(
        identity=Identity(
            instance_id=InstanceId(instance_id),
            instance_type=instance_type,
            region=region,
            availability_zone=zone,
            mac=mac,
            primary=IPv4Address(str(noted["primary"])),
        ),
        primary_eni=EniId(eni_id),
        vpc_id=VpcId(vpc_id),
        subnet_id=SubnetId(subnet_id),
        subnet_cidr=IPv4Network(subnet_cidr),
        vpc_cidrs=tuple(IPv4Network(c) for c in noted["vpc_cidrs"]),
        security_groups=tuple(SecurityGroupId(g) for g in noted["security_groups"]),
        primary_blocks=tuple(IPv4Network(b) for b in noted["blocks"]),
    )
