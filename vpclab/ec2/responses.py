"""The calls that ours differ in, between EC2's query protocol and the backend. Shell.

It is long because it is a list: one short method for each call, named as the call.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import get_service_model
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.ec2.utils import add_tag_specification

from vpclab.ec2.backend import VpcBackend
from vpclab.ec2.errors import error
from vpclab.ec2.parameters import check, malformed
from vpclab.ec2.wishes import Wish, primary_first, wishes

log = logging.getLogger(__name__)

TYPES_A_PAGE = 100
"""How many types DescribeInstanceTypes tells at once; the others tell all (remembered)."""


class VpcResponse(EC2Response):
    """moto's EC2 responses with the ENI calls replaced."""

    backend: ClassVar[VpcBackend]
    """The one backend, set by `fresh_backend`."""

    @property
    def ec2_backend(self) -> VpcBackend:
        """The one backend, where moto would make one for each region and account that is named.

        It takes them from the signature, the user agent and a header of its own; nobody is
        restricted in a new one.
        """
        return self.backend

    def _texts(self, name: str) -> list[str]:
        return [str(value) for value in self._get_param(name, [])]

    def _number(self, name: str) -> int:
        return int(self._get_param(name) or 0)

    def _dispatch(self, *arguments: Any, **keywords: Any) -> Any:
        """Answer a request; nothing in it makes an answer that is no EC2 error, nor HTTP 500."""
        try:
            return super()._dispatch(*arguments, **keywords)
        except EC2ClientError as refusal:
            return self._refusal(refusal)
        except Exception as trouble:  # the top of a request's thread
            action = self._get_action()
            name = trouble.args[0] if isinstance(trouble, KeyError) else None
            if name in [f.get("Name") for f in getattr(self, "params", {}).get("Filters", [])]:
                return self._refusal(
                    error("InvalidParameterValue", f"The filter '{name}' is invalid")
                )
            log.exception("call not answered", extra={"action": action})
            text = f"The embedded VPC cannot answer this {action} ({trouble!r})."
            return self._refusal(error("UnsupportedOperation", text))

    def parse_parameters(self, request: Any) -> None:
        """Parse parameters as botocore's model has them. Raises EC2ClientError."""
        try:
            super().parse_parameters(request)
        except ValueError as wrong:
            raise malformed(request.values, wrong) from None
        operation = get_service_model("ec2").operation_model(self._get_action())
        if operation.input_shape is not None:
            check(operation.input_shape, self.params)

    def call_action(self) -> Any:
        """Answer a call; what moto cannot filter by is the caller's error."""
        try:
            self._authorise()
            return super().call_action()
        except EC2ClientError as refusal:
            return self._refusal(refusal)
        except NotImplementedError as refusal:
            return self._refusal(error("InvalidParameterValue", f"Not modelled: {refusal}"))

    def _refusal(self, refusal: EC2ClientError) -> Any:
        status, headers, body = self.serialized(ActionResult(refusal))
        status = getattr(refusal, "status", status)
        return status, {**headers, "status": status}, body

    def _authorise(self) -> None:
        """Raise unless the caller may do this."""
        self.backend.authorise(self._get_action(), self._get_params())

    def _refuse(self, *names: str) -> None:
        """Raise if the call has one of these parameters: the embedded VPC lacks them."""
        given = [name for name in names if self._get_param(name)]
        if given:
            raise error(
                "UnsupportedOperation", f"The embedded VPC does not model {', '.join(given)}."
            )

    def _page(
        self, name: str, found: Sequence[Any], ids: Sequence[str] = (), size: int | None = None
    ) -> ActionResult:
        """Return the page of *found* that the call asks for, under its *name*.

        It is of *size* if the call says none; None: everything.
        """
        wanted, token = self._get_param("MaxResults"), self._get_param("NextToken")
        if wanted is not None and ids:
            listed = f"{name[0].lower()}{name[1:-1]}Set"  # as seen in aws/aws-cli#1976
            raise error(
                "InvalidParameterCombination",
                f"The parameter {listed} cannot be used with the parameter maxResults",
            )
        start = _start(token)
        size = int(wanted) if wanted is not None else size
        end = start + size if size is not None else len(found)
        result: dict[str, Any] = {name: found[start:end]}
        if end < len(found):
            result["NextToken"] = base64.b64encode(str(end).encode()).decode()
        return ActionResult(result)

    # ENIs --------------------------------------------------------------------------------
    def create_network_interface(self) -> ActionResult:
        """CreateNetworkInterface."""
        self._refuse("EnablePrimaryIpv6", "Operator")
        self.error_on_dryrun()
        parameters = {
            name: value
            for name, value in self._get_params().items()
            if name not in {"ClientToken", "DryRun"}
        }
        self._check_specifications(parameters, "network-interface")
        token, same = self._get_param("ClientToken"), json.dumps(parameters, default=str)
        eni = self.backend.remembered(token, same)
        if eni is None or eni.id not in self.backend.enis:
            named = primary_first(
                parameters.get("PrivateIpAddress"), parameters.get("PrivateIpAddresses") or ()
            )
            eni = self.backend.create_eni(
                parameters["SubnetId"],
                named,
                *wishes({**parameters, "PrivateIpAddresses": ()}),
                parameters.get("Groups") or [],
                parameters.get("Description"),
                add_tag_specification(parameters.get("TagSpecifications") or []),
                parameters.get("InterfaceType") or "interface",
            )
            self.backend.track(eni.id, parameters.get("ConnectionTrackingSpecification") or {})
            self.backend.remember(token, same, eni)
        return ActionResult({"NetworkInterface": eni.newborn(), "ClientToken": token})

    def attach_network_interface(self) -> ActionResult:
        """AttachNetworkInterface."""
        self._refuse("EnaQueueCount", "EnaSrdSpecification")
        self.error_on_dryrun()
        eni = self.backend.attach_network_interface(
            self._get_param("NetworkInterfaceId"),
            self._get_param("InstanceId"),
            self._number("DeviceIndex"),
            self._number("NetworkCardIndex"),
        )
        return ActionResult({"AttachmentId": eni.attachment_id, "NetworkCardIndex": eni.card})

    def detach_network_interface(self) -> ActionResult:
        """DetachNetworkInterface."""
        self.error_on_dryrun()
        self.backend.detach_network_interface(
            self._get_param("AttachmentId"), force=_truth(self._get_param("Force"))
        )
        return EmptyResult()

    def modify_network_interface_attribute(self) -> ActionResult:
        """ModifyNetworkInterfaceAttribute: one attribute a call."""
        self._refuse("EnaSrdSpecification", "EnablePrimaryIpv6", "AssociatePublicIpAddress")
        self.error_on_dryrun()
        eni_id = self._get_param("NetworkInterfaceId")
        attachment = self._get_param("Attachment") or {}
        tracking = self._get_param("ConnectionTrackingSpecification")
        check, groups = self._get_param("SourceDestCheck.Value"), self._texts("Groups")
        description = self._get_param("Description.Value")
        given = [
            bool(attachment), check is not None, bool(groups), description is not None,
            bool(tracking),
        ]  # fmt: skip
        if sum(given) != 1:
            raise error(
                "InvalidParameterCombination",
                f"ModifyNetworkInterfaceAttribute takes one attribute a call; {sum(given)} came.",
            )
        if "DeleteOnTermination" in attachment:
            self.backend.set_delete_on_termination(
                eni_id,
                attachment.get("AttachmentId", ""),
                value=_truth(attachment["DeleteOnTermination"]),
            )
        if tracking:
            self.backend.track(eni_id, tracking)
        self.backend.modify_network_interface_attribute(
            eni_id, groups, None if check is None else _truth(check), description
        )
        return EmptyResult()

    def describe_network_interfaces(self) -> ActionResult:
        """DescribeNetworkInterfaces, in pages; what it tells may lag."""
        self.error_on_dryrun()
        ids = self._texts("NetworkInterfaceIds")
        found = self.backend.get_all_network_interfaces(
            ids, self._filters_from_querystring(), self.backend.told()
        )
        return self._page("NetworkInterfaces", found, ids)

    @staticmethod
    def _check_specifications(parameters: Any, *kinds: str) -> None:
        """Raise unless what is tagged at its creation is of *kinds*, and may be so."""
        for specification in parameters.get("TagSpecifications") or ():
            _check_tags(
                specification.get("Tags") or (), specification.get("ResourceType", ""), kinds
            )

    # Addresses ---------------------------------------------------------------------------
    def assign_private_ip_addresses(self) -> ActionResult:
        """AssignPrivateIpAddresses: the answer names what is new only."""
        self.error_on_dryrun()
        eni_id = self._get_param("NetworkInterfaceId")
        wish = Wish(
            tuple(self._texts("PrivateIpAddresses")),
            self._number("SecondaryPrivateIpAddressCount"),
            tuple(self._texts("Ipv4Prefixes")),
            self._number("Ipv4PrefixCount"),
        )
        given = self.backend.assign(
            eni_id, wish, reassign=_truth(self._get_param("AllowReassignment"))
        )
        return ActionResult(
            {
                "NetworkInterfaceId": eni_id,
                "AssignedPrivateIpAddresses": [{"PrivateIpAddress": a} for a in given.addresses],
                "AssignedIpv4Prefixes": [{"Ipv4Prefix": p} for p in given.prefixes],
            }
        )

    def unassign_private_ip_addresses(self) -> ActionResult:
        """UnassignPrivateIpAddresses."""
        self.error_on_dryrun()
        self.backend.unassign(
            self._get_param("NetworkInterfaceId"),
            self._texts("PrivateIpAddresses"),
            self._texts("Ipv4Prefixes"),
        )
        return EmptyResult()

    def assign_ipv6_addresses(self) -> ActionResult:
        """AssignIpv6Addresses: the answer names what is new only."""
        self.error_on_dryrun()
        eni_id = self._get_param("NetworkInterfaceId")
        wish = Wish(
            tuple(self._texts("Ipv6Addresses")),
            self._number("Ipv6AddressCount"),
            tuple(self._texts("Ipv6Prefixes")),
            self._number("Ipv6PrefixCount"),
        )
        given = self.backend.assign6(eni_id, wish)
        return ActionResult(
            {
                "NetworkInterfaceId": eni_id,
                "AssignedIpv6Addresses": list(given.addresses),
                "AssignedIpv6Prefixes": list(given.prefixes),
            }
        )

    def unassign_ipv6_addresses(self) -> ActionResult:
        """UnassignIpv6Addresses."""
        self.error_on_dryrun()
        eni_id = self._get_param("NetworkInterfaceId")
        addresses, prefixes = self._texts("Ipv6Addresses"), self._texts("Ipv6Prefixes")
        self.backend.unassign6(eni_id, addresses, prefixes)
        return ActionResult(
            {
                "NetworkInterfaceId": eni_id,
                "UnassignedIpv6Addresses": addresses,
                "UnassignedIpv6Prefixes": prefixes,
            }
        )

    # Trunks ------------------------------------------------------------------------------
    def associate_trunk_interface(self) -> ActionResult:
        """AssociateTrunkInterface."""
        self._refuse("GreKey")
        self.error_on_dryrun()
        branch, trunk = self._get_param("BranchInterfaceId"), self._get_param("TrunkInterfaceId")
        vlan, token = self._get_param("VlanId"), self._get_param("ClientToken")
        same = ("trunk", branch, trunk, vlan)
        made = self.backend.remembered(token, same)
        if made is None:
            made = self.backend.associate_trunk_interface(
                branch, trunk, int(vlan) if vlan is not None else None
            )
            self.backend.remember(token, same, made)
        return ActionResult({"InterfaceAssociation": made, "ClientToken": token})

    def disassociate_trunk_interface(self) -> ActionResult:
        """DisassociateTrunkInterface."""
        self.error_on_dryrun()
        self.backend.disassociate_trunk_interface(self._get_param("AssociationId"))
        return ActionResult({"Return": True, "ClientToken": self._get_param("ClientToken")})

    def describe_trunk_interface_associations(self) -> ActionResult:
        """DescribeTrunkInterfaceAssociations, in pages."""
        self.error_on_dryrun()
        ids = self._texts("AssociationIds")
        found = self.backend.describe_trunk_interface_associations(
            ids, self._filters_from_querystring()
        )
        return self._page("InterfaceAssociations", found, ids)

    # Tags --------------------------------------------------------------------------------
    def create_tags(self) -> Any:
        """CreateTags."""
        _check_tags(self._get_param("Tags", []))
        return super().create_tags()

    def delete_tags(self) -> Any:
        """DeleteTags."""
        if not all(tag.get("Key") for tag in self._get_param("Tags", [])):
            raise error("MissingParameter", "The request must contain the parameter Tag.Key")
        return super().delete_tags()

    # What moto answers, in pages ---------------------------------------------------------
    def describe_subnets(self) -> ActionResult:
        """DescribeSubnets."""
        self.error_on_dryrun()
        ids = self._texts("SubnetIds")
        found = self.backend.describe_subnets(ids, self._filters_from_querystring())
        return self._page("Subnets", found, ids)

    def describe_security_groups(self) -> ActionResult:
        """DescribeSecurityGroups."""
        return self._paged(super().describe_security_groups(), "SecurityGroups", "GroupIds")

    def describe_instance_types(self) -> ActionResult:
        """DescribeInstanceTypes."""
        self.error_on_dryrun()
        types = self._texts("InstanceTypes")
        found = self.backend.describe_instance_types(types, self._filters_from_querystring())
        return self._page("InstanceTypes", found, types, TYPES_A_PAGE)

    def describe_instances(self) -> ActionResult:
        """DescribeInstances."""
        self.error_on_dryrun()
        ids = self._texts("InstanceIds")
        found = self.backend.instances(ids, self._filters_from_querystring())
        return self._page("Reservations", found, ids)

    def describe_vpcs(self) -> ActionResult:
        """DescribeVpcs."""
        return self._paged(super().describe_vpcs(), "Vpcs", "VpcIds")

    def describe_route_tables(self) -> ActionResult:
        """DescribeRouteTables."""
        return self._paged(super().describe_route_tables(), "RouteTables", "RouteTableIds")

    def describe_internet_gateways(self) -> ActionResult:
        """DescribeInternetGateways."""
        return self._paged(
            super().describe_internet_gateways(), "InternetGateways", "InternetGatewayIds"
        )

    def describe_nat_gateways(self) -> ActionResult:
        """DescribeNatGateways."""
        return self._paged(super().describe_nat_gateways(), "NatGateways", "NatGatewayIds")

    def describe_security_group_rules(self) -> ActionResult:
        """DescribeSecurityGroupRules."""
        return self._paged(
            super().describe_security_group_rules(), "SecurityGroupRules", "SecurityGroupRuleIds"
        )

    def describe_tags(self) -> ActionResult:
        """DescribeTags."""
        return self._paged(super().describe_tags(), "Tags")

    def _paged(self, whole: ActionResult, name: str, ids: str = "") -> ActionResult:
        """Return the page that the call asks for of what moto answers as a *whole*."""
        result: Any = whole.result
        return self._page(name, list(result[name]), self._texts(ids) if ids else ())

    # Instances ---------------------------------------------------------------------------
    def run_instances(self) -> Any:
        """RunInstances: as many as wanted, not as few as are enough, and once a token."""
        self._refuse("SecondaryInterfaces", "LaunchTemplate")
        for spec in self._get_param("NetworkInterfaces") or ():
            _refuse_in(spec, "NetworkInterfaceId", "NetworkCardIndex", "EnaQueueCount")
        self._check_specifications(self.params, "instance", "volume", "network-interface")
        least, most = self._number("MinCount"), self._number("MaxCount")
        if not 1 <= least <= most:
            raise error(
                "InvalidParameterValue", f"MinCount {least} and MaxCount {most} are no range from 1"
            )
        token = self._get_param("ClientToken")
        same = json.dumps({k: v for k, v in self.params.items() if k != "DryRun"}, default=str)
        made = self.backend.remembered(token, same)
        if made is None:
            self.params["MinCount"] = most
            made = super().run_instances()
            self.backend.remember(token, same, made)
        return made

    # Public addresses --------------------------------------------------------------------
    def associate_address(self) -> ActionResult:
        """AssociateAddress, to any address of an ENI."""
        self.error_on_dryrun()
        eni_id, instance_id = self._get_param("NetworkInterfaceId"), self._get_param("InstanceId")
        if not eni_id and not instance_id:
            raise error(
                "MissingParameter", "Either an InstanceId or a NetworkInterfaceId is needed"
            )
        eip = self.backend.associate_address(
            self.backend.get_instance(instance_id) if not eni_id else None,
            self.backend.get_network_interface(eni_id) if eni_id else None,
            self._get_param("PublicIp"),
            self._get_param("AllocationId"),
            _truth(self._get_param("AllowReassociation")),
            self._get_param("PrivateIpAddress"),
        )
        return ActionResult({"AssociationId": eip.association_id})


def _start(token: str | None) -> int:
    """Return where the page of a *token* begins."""
    try:
        start = int(base64.b64decode(token, validate=True)) if token else 0
    except (ValueError, binascii.Error):
        start = -1
    if start < 0:
        raise error("InvalidNextToken", f"The token '{token}' is invalid")
    return start


def _check_tags(tags: Sequence[Any], kind: str = "", kinds: Sequence[str] = ("",)) -> None:
    """Raise unless *tags* may be set on a resource of *kind*. EC2's words are remembered.

    A tag without a value has an empty one.
    """
    if kind not in kinds:
        raise error(
            "InvalidParameterValue",
            f"'{kind}' is not a valid taggable resource type for this operation.",
        )
    for tag in tags:
        if not tag.get("Key"):
            raise error("MissingParameter", "The request must contain the parameter Tag.Key")
        if tag["Key"].startswith("aws:"):
            raise error(
                "InvalidParameterValue",
                "Tag keys starting with 'aws:' are reserved for internal use",
            )
        tag.setdefault("Value", "")


def _refuse_in(spec: Any, *names: str) -> None:
    """Raise if a network interface of RunInstances asks for what is not modelled."""
    given = [name for name in names if spec.get(name)]
    if given:
        raise error(
            "UnsupportedOperation",
            f"The embedded VPC does not model {', '.join(given)} of RunInstances; attach the ENI"
            " to the running instance.",
        )


def _truth(value: object) -> bool:
    return str(value).lower() == "true"
