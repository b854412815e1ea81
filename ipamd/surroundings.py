"""Who this node is and where, from IMDS; the journal answers while that is away. Shell."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from eni.errors import EniError
from eni.imds import Imds
from eni.model import EniId, Identity, ImdsEni, SecurityGroupId, SubnetId
from ipamd.journal import Journal, JournalError
from ipamd.start import StoppedError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who we are and where, from IMDS or, while it is away, from the journal."""

    identity: Identity
    primary_eni: EniId
    subnet_id: SubnetId
    subnet_cidr: IPv4Network
    vpc_cidrs: tuple[IPv4Network, ...]
    security_groups: tuple[SecurityGroupId, ...]
    primary_secondaries: tuple[IPv4Address, ...]


def look_around(imds: Imds, journal: Journal, stop: threading.Event) -> Surroundings:
    """Ask IMDS, again and again; what a former life noted serves while it is away."""
    wait = 0.5
    while True:
        try:
            identity = imds.identity()
            primary = next(e for e in imds.enis() if e.mac == identity.mac)
        except (EniError, StopIteration) as error:
            log.warning("imds is away", extra={"reason": str(error)})
            if (noted := journal.fact("surroundings")) is not None:
                return _surroundings_from(noted)
            if stop.wait(wait):
                raise StoppedError("stopped before IMDS answered") from None
            wait = min(2 * wait, 10.0)
        else:
            found = _surroundings_of(identity, primary)
            with contextlib.suppress(JournalError):
                journal.note_fact("surroundings", _noted(found))
            return found


def _surroundings_of(identity: Identity, primary: ImdsEni) -> Surroundings:
    return Surroundings(
        identity=identity,
        primary_eni=primary.id,
        subnet_id=primary.subnet_id,
        subnet_cidr=primary.subnet_cidr,
        vpc_cidrs=tuple(c for c in primary.vpc_cidrs if isinstance(c, IPv4Network)),
        security_groups=primary.security_groups,
        primary_secondaries=primary.addresses[1:],
    )


def _noted(s: Surroundings) -> dict[str, object]:
    i = s.identity
    return {
        "identity": [i.instance_id, i.instance_type, i.region, i.availability_zone, i.mac],
        "primary": str(i.primary),
        "eni": [s.primary_eni, s.subnet_id, str(s.subnet_cidr)],
        "vpc_cidrs": [str(c) for c in s.vpc_cidrs],
        "security_groups": list(s.security_groups),
        "secondaries": [str(a) for a in s.primary_secondaries],
    }


def _surroundings_from(noted: object) -> Surroundings:
    assert isinstance(noted, dict)
    instance_id, instance_type, region, zone, mac = noted["identity"]
    eni_id, subnet_id, subnet_cidr = noted["eni"]
    return Surroundings(
        identity=Identity(
            instance_id=instance_id,
            instance_type=instance_type,
            region=region,
            availability_zone=zone,
            mac=mac,
            primary=IPv4Address(noted["primary"]),
        ),
        primary_eni=EniId(eni_id),
        subnet_id=SubnetId(subnet_id),
        subnet_cidr=IPv4Network(subnet_cidr),
        vpc_cidrs=tuple(IPv4Network(c) for c in noted["vpc_cidrs"]),
        security_groups=tuple(SecurityGroupId(g) for g in noted["security_groups"]),
        primary_secondaries=tuple(IPv4Address(a) for a in noted["secondaries"]),
    )
