"""The ENI calls, between EC2's query protocol and the backend. Shell."""

from __future__ import annotations

import base64
import json
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.responses import EC2Response
from moto.ec2.utils import add_tag_specification

from vpclab.ec2.backend import VpcBackend, error


class VpcResponse(EC2Response):
    """moto's EC2 responses with the ENI calls replaced."""

    @property
    def backend(self) -> VpcBackend:
        """The backend of the call's region."""
        backend = self.ec2_backend
        assert isinstance(backend, VpcBackend)  # noqa: S101 - installed by fresh_backend
        return backend

    def _texts(self, name: str) -> list[str]:
        return [str(value) for value in self._get_param(name, [])]

    def call_action(self) -> Any:
        """Answer a call; what moto cannot filter by is the caller's error."""
        try:
            return super().call_action()
        except NotImplementedError as refusal:
            result = ActionResult(error("InvalidParameterValue", f"Not modelled: {refusal}"))
            status, headers, body = self.serialized(result)
            return status, {**headers, "status": status}, body

    def _refuse(self, *names: str) -> None:
        """Raise if the call has one of these parameters: the embedded VPC lacks them."""
        given = [name for name in names if self._get_param(name)]
        if given:
            raise error(
                "UnsupportedOperation", f"The embedded VPC does not model {', '.join(given)}."
            )

    def create_network_interface(self) -> ActionResult:
        """CreateNetworkInterface."""
        self._refuse(
            "Ipv4PrefixCount", "Ipv4Prefixes", "Ipv6AddressCount", "Ipv6Addresses",
            "Ipv6PrefixCount", "Ipv6Prefixes", "InterfaceType",
        )  # fmt: skip
        parameters = {
            name: self._get_param(name)
            for name in (
                "SubnetId", "PrivateIpAddress", "PrivateIpAddresses", "Groups", "Description",
                "TagSpecifications", "SecondaryPrivateIpAddressCount",
            )
        }  # fmt: skip
        self.error_on_dryrun()
        token, same = self._get_param("ClientToken"), json.dumps(parameters, default=str)
        eni = self.backend.remembered(token, same) if token else None
        if eni is None:
            eni = self.backend.create_network_interface(
                self.backend.get_subnet(parameters["SubnetId"]),
                parameters["PrivateIpAddress"],
                parameters["PrivateIpAddresses"],
                parameters["Groups"] or [],
                parameters["Description"],
                add_tag_specification(parameters["TagSpecifications"] or []),
                secondary_ips_count=parameters["SecondaryPrivateIpAddressCount"],
            )
            if token:
                self.backend.remember(token, same, eni)
        return ActionResult({"NetworkInterface": eni, "ClientToken": token})

    def attach_network_interface(self) -> ActionResult:
        """AttachNetworkInterface."""
        self._refuse("NetworkCardIndex", "EnaQueueCount")
        self.error_on_dryrun()
        eni = self.backend.attach_network_interface(
            self._get_param("NetworkInterfaceId"),
            self._get_param("InstanceId"),
            int(self._get_param("DeviceIndex")),
        )
        return ActionResult({"AttachmentId": eni.attachment_id, "NetworkCardIndex": 0})

    def modify_network_interface_attribute(self) -> ActionResult:
        """ModifyNetworkInterfaceAttribute: one attribute a call."""
        self.error_on_dryrun()
        eni_id = self._get_param("NetworkInterfaceId")
        attachment = self._get_param("Attachment") or {}
        if "DeleteOnTermination" in attachment:
            self.backend.set_delete_on_termination(
                eni_id, attachment["AttachmentId"], value=_truth(attachment["DeleteOnTermination"])
            )
        check = self._get_param("SourceDestCheck.Value")
        self.backend.modify_network_interface_attribute(
            eni_id,
            self._texts("Groups"),
            None if check is None else _truth(check),
            self._get_param("Description.Value"),
        )
        return EmptyResult()

    def describe_network_interfaces(self) -> ActionResult:
        """DescribeNetworkInterfaces, in pages."""
        self.error_on_dryrun()
        size, token = self._get_param("MaxResults"), self._get_param("NextToken")
        ids = self._texts("NetworkInterfaceIds")
        if size is not None and ids:
            raise error(
                "InvalidParameterCombination",
                "The parameter NetworkInterfaceIds cannot be used with the parameter MaxResults",
            )
        enis = self.backend.get_all_network_interfaces(ids, self._filters_from_querystring())
        start = int(base64.b64decode(token)) if token else 0
        end = start + int(size) if size is not None else len(enis)
        result: dict[str, Any] = {"NetworkInterfaces": enis[start:end]}
        if end < len(enis):
            result["NextToken"] = base64.b64encode(str(end).encode()).decode()
        return ActionResult(result)

    def assign_private_ip_addresses(self) -> ActionResult:
        """AssignPrivateIpAddresses: the answer names the new addresses only."""
        self._refuse("Ipv4PrefixCount", "Ipv4Prefixes")
        self.error_on_dryrun()
        eni_id = self._get_param("NetworkInterfaceId")
        count = int(self._get_param("SecondaryPrivateIpAddressCount") or 0)
        explicit = self._texts("PrivateIpAddresses")
        if count and explicit:
            raise error(
                "InvalidParameterCombination",
                "A count and addresses were given; AssignPrivateIpAddresses takes one of them.",
            )
        new = self.backend.assign(eni_id, explicit, count)
        return ActionResult(
            {
                "NetworkInterfaceId": eni_id,
                "AssignedPrivateIpAddresses": [{"PrivateIpAddress": a} for a in new],
            }
        )

    def unassign_private_ip_addresses(self) -> ActionResult:
        """UnassignPrivateIpAddresses."""
        self._refuse("Ipv4Prefixes")
        self.error_on_dryrun()
        self.backend.unassign(
            self._get_param("NetworkInterfaceId"), self._texts("PrivateIpAddresses")
        )
        return EmptyResult()


def _truth(value: object) -> bool:
    return str(value).lower() == "true"
