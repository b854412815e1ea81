"""Trunk and branch ENIs: who is associated with whom. Data only, no packet follows it. Shell."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from vpclab.ec2.errors import error
from vpclab.ec2.model import Eni
from vpclab.ec2.network import Networks

VLANS = range(1, 4095)


@dataclass(frozen=True, slots=True)
class TrunkAssociation:
    """One branch on one trunk, with the names that the wire has for it."""

    association_id: str
    branch_interface_id: str
    trunk_interface_id: str
    vlan_id: int
    interface_protocol: str = "VLAN"


class Trunks(Networks):
    """Associations of branch ENIs with trunks. The limits of instance types are not modelled."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.trunk_associations: dict[str, TrunkAssociation] = {}
        super().__init__(*arguments, **keywords)

    def associate_trunk_interface(
        self, branch_id: str, trunk_id: str, vlan_id: int | None
    ) -> TrunkAssociation:
        """Associate a branch with a trunk over a VLAN."""
        branch: Eni = self.get_network_interface(branch_id)
        trunk: Eni = self.get_network_interface(trunk_id)
        if trunk.interface_type != "trunk":
            raise error("InvalidParameterValue", f"Interface '{trunk_id}' is not a trunk interface")
        if branch.is_used or branch is trunk:
            raise error(
                "InvalidParameterValue", f"Network interface '{branch_id}' is currently in use."
            )
        if vlan_id not in VLANS:
            raise error("InvalidParameterValue", f"VlanId {vlan_id} is not 1 to 4094")
        same = [a for a in self.trunk_associations.values() if a.trunk_interface_id == trunk_id]
        if any(a.vlan_id == vlan_id for a in same):
            raise error("InvalidParameterValue", f"VlanId {vlan_id} is in use on {trunk_id}")
        made = TrunkAssociation(
            f"trunk-assoc-{secrets.token_hex(8)}1", branch_id, trunk_id, vlan_id or 0
        )
        self.trunk_associations[made.association_id] = made
        branch.trunk_id, branch.interface_type = trunk_id, "branch"
        self.changed.append(branch)
        return made

    def disassociate_trunk_interface(self, association_id: str) -> None:
        """End an association; the branch is available again."""
        made = self.trunk_associations.pop(association_id, None)
        if made is None:
            raise error(
                "InvalidAssociationID.NotFound",
                f"The association '{association_id}' does not exist",
            )
        branch = self.enis[made.branch_interface_id]
        branch.trunk_id = None
        self.changed.append(branch)

    def describe_trunk_interface_associations(
        self, ids: list[str], filters: dict[str, list[str]]
    ) -> list[TrunkAssociation]:
        """Return the associations with these ids that pass all *filters*."""
        names = {
            "association-id": "association_id",
            "branch-interface-id": "branch_interface_id",
            "trunk-interface-id": "trunk_interface_id",
            "interface-protocol": "interface_protocol",
        }
        unknown = set(filters) - set(names)
        if unknown:
            raise error("InvalidParameterValue", f"The filter '{min(unknown)}' is invalid")
        return [
            made
            for made in self.trunk_associations.values()
            if (not ids or made.association_id in ids)
            and all(str(getattr(made, names[n])) in values for n, values in filters.items())
        ]
