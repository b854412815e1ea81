"""The EC2 of one region: moto's, with an ENI layer of its own. Shell.

    Publics     public addresses                             public.py
    Networks    VPCs, subnets, ways out                      network.py
    Trunks      trunk and branch associations                trunk.py
    Enis        ENIs: addresses, prefixes, attachments       enis.py
    Instances   instances and their ENIs                     instances.py
    VpcBackend  tokens, descriptions, who may call           here

Every method runs with the API's lock held (`vpclab.api`), which takes what is collected in
`changed` and tells the fabric when the lock is free again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from moto.ec2.models.amis import AMIS, Ami
from moto.ec2.models.instances import Reservation

from vpclab.ec2.errors import error
from vpclab.ec2.filters import FILTERS, fits, is_of_instances, matches
from vpclab.ec2.instances import Instances
from vpclab.ec2.model import Eni


class VpcBackend(Instances):
    """moto's EC2 with an ENI layer of its own."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.told: Callable[[], Mapping[str, Eni]] = lambda: self.enis
        self.authorise: Callable[[str, Mapping[str, Any]], None] = lambda _action, _parameters: None
        self._tokens: dict[str, tuple[object, Any]] = {}
        super().__init__(*arguments, **keywords)

    def _load_amis(self) -> None:
        """Know the images of moto's short list, of which nodes are; the long one takes 0.1 s."""
        for listed in AMIS:
            image = Ami(self, **listed)
            self.amis[image.id] = image

    def remembered(self, token: str | None, parameters: object) -> Any:
        """Return what the same ClientToken made before, None if nothing did."""
        if token is None or token not in self._tokens:
            return None
        former, made = self._tokens[token]
        if former != parameters:
            raise error(
                "IdempotentParameterMismatch",
                f"The client token {token} was used with other parameters",
            )
        return made

    def remember(self, token: str | None, parameters: object, made: Any) -> None:
        """Note what *token* made."""
        if token is not None:
            self._tokens[token] = (parameters, made)

    # Describe --------------------------------------------------------------------------
    def instances(
        self, instance_ids: list[str], filters: Mapping[str, list[str]]
    ) -> list[Reservation]:
        """Return the reservations of the instances with these ids that pass all *filters*."""
        for name in filters:
            if not is_of_instances(name):
                text = f"The filter '{name}' is invalid, or none that the embedded VPC models"
                raise error("InvalidParameterValue", text)
        for instance_id in instance_ids:
            self.get_instance(instance_id)  # raises
        found = []
        for reservation in self.reservations.values():
            left = [
                instance
                for instance in reservation.instances
                if (not instance_ids or instance.id in instance_ids)
                and all(fits(instance, reservation.id, n, p) for n, p in filters.items())
            ]
            if left:
                found.append(copy.copy(reservation))
                found[-1].instances = left
        return found

    def get_all_network_interfaces(
        self,
        eni_ids: list[str] | None = None,
        filters: dict[str, list[str]] | None = None,
        enis: Mapping[str, Eni] | None = None,
    ) -> list[Eni]:
        """Return the ENIs with these ids that pass all *filters*, of *enis* or of all there are."""
        for name in filters or ():
            if name not in FILTERS and not name.startswith("tag:"):
                raise error("InvalidParameterValue", f"The filter '{name}' is invalid")
        enis = self.enis if enis is None else enis
        missing = [eni_id for eni_id in eni_ids or () if eni_id not in enis]
        if missing:
            raise error(
                "InvalidNetworkInterfaceID.NotFound",
                f"The networkInterface ID '{missing[0]}' does not exist",
            )
        return [
            eni
            for eni in (map(enis.__getitem__, eni_ids) if eni_ids else enis.values())
            if all(matches(eni, name, patterns) for name, patterns in (filters or {}).items())
        ]
