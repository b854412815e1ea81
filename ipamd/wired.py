"""What the daemon notes of how it wires, for its next life and for `enid doctor`. Pure.

Two facts of the journal: what settings and the VPC's CIDRs came to, and the nft tables as the
kernel showed them when they had just been written.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from cni.dataplane import USUAL_ROUTING, VETH_PREFIX, Marks, Routing
from cni.nft_found import FoundChain, FoundNftRule, FoundTable
from ipamd.settings import ENI_MTU

WIRED, TABLES = "wired", "nft_tables"
"""The facts' names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """What settings and CIDRs came to. *ec2_endpoint* is empty for EC2's own."""

    nft: str = ""
    """The text of the nft tables."""
    routing: Routing = USUAL_ROUTING
    mtu: int = ENI_MTU
    primary_mtu: int | None = None
    prefix: str = VETH_PREFIX
    ec2_endpoint: str = ""


def note_wired(wired: Wired) -> dict[str, object]:
    """Return *wired* as the journal keeps it."""
    return {
        "nft": wired.nft,
        "external": [str(network) for network in wired.routing.external],
        "mark": wired.routing.marks.primary,
        "mtu": wired.mtu,
        "primary_mtu": wired.primary_mtu,
        "prefix": wired.prefix,
        "ec2_endpoint": wired.ec2_endpoint,
    }


def read_wired(noted: object) -> Wired | None:
    """Return what was noted; None if nothing was, or another version has written it."""
    if not isinstance(noted, dict):
        return None
    try:
        external = tuple(IPv4Network(network) for network in noted["external"])
        return Wired(
            nft=noted["nft"],
            routing=Routing(Marks(noted["mark"]), external),
            mtu=noted["mtu"],
            primary_mtu=noted["primary_mtu"],
            prefix=noted["prefix"],
            ec2_endpoint=noted["ec2_endpoint"],
        )
    except (KeyError, ValueError, TypeError):
        return None


def note_tables(found: FoundTable) -> dict[str, object]:
    """Return *found* as the journal keeps it."""
    return {
        "chains": [[c.family, c.name, c.hook, c.policy] for c in found.chains],
        "rules": [[r.family, r.chain, r.content, r.comment] for r in found.rules],
        "families": list(found.families),
    }


def read_tables(noted: object) -> FoundTable | None:
    """Return what was noted; None if nothing was, or another version has written it."""
    if not isinstance(noted, dict):
        return None
    try:
        return FoundTable(
            tuple(FoundChain(*chain) for chain in noted["chains"]),
            tuple(FoundNftRule(*rule) for rule in noted["rules"]),
            tuple(noted["families"]),
        )
    except (KeyError, TypeError):
        return None
