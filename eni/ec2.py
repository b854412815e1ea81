"""EC2's control plane in our words. Shell.

The rule to keep (docs/adr/0003): a question may be repeated, so botocore does
that; a mutation is sent exactly once, because after a lost answer nobody can
tell a repeat from a second wish. Every failure leaves here as an EniError.

One thread at a time uses an Ec2; its counters may be read from any.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
import botocore.session
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError

from eni import parse
from eni.errors import (
    CredentialsError,
    EniError,
    NotFoundError,
    RefusedError,
    UnknownOutcomeError,
    UnreachableError,
    meaning,
    sentence,
)
from eni.model import AttachmentId, CreateEni

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

    from eni.limits import InstanceLimits
    from eni.model import Eni, EniId, InstanceId, Subnet, SubnetId

__all__ = ["CreateEni", "Ec2"]

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS: Final = 5
"""A TCP and TLS handshake inside a region takes milliseconds; this allows for two lost SYNs."""

IMDS_ATTEMPTS: Final = 3
"""Tries to get the role's credentials; botocore's default of 1 loses to one dropped packet."""

PAGE_SIZE: Final = 1000
"""EC2's maximum: one call for any instance, since none takes a hundred ENIs."""

NEVER_SENT: Final = (
    aws.EndpointConnectionError,
    aws.ConnectTimeoutError,
    aws.ProxyConnectionError,
)
NO_CREDENTIALS: Final = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
)
NO_ANSWER: Final = (
    aws.HTTPClientError,
    aws.ConnectionError,
    ResponseParserError,
    LookupError,
    ValueError,
)
"""Sent or perhaps sent, and no answer that can be read; SSLError is a ConnectionError.

LookupError and ValueError are parse.py's: EC2 said yes, but not what it did.
"""


def verdict(error: Exception) -> tuple[type[EniError], str, str]:
    """Return our class for *error*, EC2's code ("" if it gave none) and the reason in words."""
    if isinstance(error, aws.ClientError):
        told = error.response.get("Error", {})
        code, text = told.get("Code", ""), told.get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return meaning(code, text, status), code, f"{code}: {text}"
    reason = f"{type(error).__name__}: {error}"
    families: tuple[tuple[tuple[type[Exception], ...], type[EniError]], ...] = (
        (NEVER_SENT, UnreachableError),
        (NO_CREDENTIALS, CredentialsError),
        (NO_ANSWER, UnknownOutcomeError),
    )
    for members, family in families:
        if isinstance(error, members):
            return family, "", reason
    return RefusedError, "", reason


class Ec2:
    """The calls that a node makes, counted.

    *calls* counts requests by action as they go out, pages and repeats
    included; *errors* counts failures by (action, error id).
    """

    def __init__(
        self, *, region: str, total_attempts: int = 4, read_timeout_seconds: float = 10
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self._region = region
        self._total_attempts = total_attempts
        self._read_timeout_seconds = read_timeout_seconds

    def attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """Return every ENI that is attached to the instance, or on its way there or away."""
        return self._enis("attachment.instance-id", instance_id)

    def by_tag(self, key: str, value: str) -> tuple[Eni, ...]:
        """Return the ENIs with this tag; a new ENI may be missing for some seconds."""
        return self._enis(f"tag:{key}", value)

    def eni(self, eni_id: EniId) -> Eni | None:
        """Return the ENI; None if EC2 says that there is none."""
        try:
            return self._ask(
                "DescribeNetworkInterfaces",
                f"describe {eni_id}",
                lambda client: parse.eni(
                    client.describe_network_interfaces(NetworkInterfaceIds=[eni_id])[
                        "NetworkInterfaces"
                    ][0]
                ),
            )
        except NotFoundError:
            return None

    def subnet(self, subnet_id: SubnetId) -> Subnet:
        """Return the subnet with EC2's present count of free addresses."""
        return self._ask(
            "DescribeSubnets",
            f"describe {subnet_id}",
            lambda client: parse.subnet(
                client.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]
            ),
        )

    def limits(self, instance_type: str) -> InstanceLimits:
        """Return what EC2 says that this type takes."""
        return self._ask(
            "DescribeInstanceTypes",
            f"describe instance type {instance_type}",
            lambda client: parse.limits(
                client.describe_instance_types(
                    InstanceTypes=[instance_type]  # type: ignore[list-item] # EC2 has newer types than the stubs
                )["InstanceTypes"][0]
            ),
        )

    def create(self, wish: CreateEni) -> Eni:
        """Create the ENI, or return the one that the same wish created before."""
        # EC2 refuses a count of 0, so that it is left out.
        secondary: dict[str, Any] = (
            {"SecondaryPrivateIpAddressCount": wish.secondary_count} if wish.secondary_count else {}
        )
        return self._act(
            "CreateNetworkInterface",
            f"create an ENI with {wish.secondary_count + 1} addresses in {wish.subnet_id}",
            lambda client: parse.eni(
                client.create_network_interface(
                    ClientToken=wish.token,
                    SubnetId=wish.subnet_id,
                    Groups=list(wish.security_groups),
                    Description=wish.description,
                    TagSpecifications=[
                        {
                            "ResourceType": "network-interface",
                            "Tags": [{"Key": key, "Value": value} for key, value in wish.tags],
                        }
                    ],
                    **secondary,
                )["NetworkInterface"]
            ),
        )

    def attach(self, eni_id: EniId, instance_id: InstanceId, device_index: int) -> AttachmentId:
        """Attach the ENI; EC2 answers seconds before the instance sees it."""
        return self._act(
            "AttachNetworkInterface",
            f"attach {eni_id} to {instance_id} at device index {device_index}",
            lambda client: AttachmentId(
                client.attach_network_interface(
                    NetworkInterfaceId=eni_id, InstanceId=instance_id, DeviceIndex=device_index
                )["AttachmentId"]
            ),
        )

    def delete_on_termination(self, eni_id: EniId, attachment_id: AttachmentId) -> None:
        """Let the ENI go with its instance; EC2 has no way to say so when attaching."""
        self._act(
            "ModifyNetworkInterfaceAttribute",
            f"set DeleteOnTermination of {eni_id} ({attachment_id})",
            lambda client: client.modify_network_interface_attribute(
                NetworkInterfaceId=eni_id,
                Attachment={"AttachmentId": attachment_id, "DeleteOnTermination": True},
            ),
        )

    def detach(self, attachment_id: AttachmentId) -> None:
        """Begin to detach; it is done when a describe says so."""
        self._act(
            "DetachNetworkInterface",
            f"detach {attachment_id}",
            lambda client: client.detach_network_interface(AttachmentId=attachment_id),
        )

    def delete(self, eni_id: EniId) -> None:
        """Delete the ENI; NotFoundError if it is gone, InvalidStateError while it is attached."""
        self._act(
            "DeleteNetworkInterface",
            f"delete {eni_id}",
            lambda client: client.delete_network_interface(NetworkInterfaceId=eni_id),
        )

    def assign(self, eni_id: EniId, count: int) -> tuple[IPv4Address, ...]:
        """Return the *count* addresses that the ENI got."""
        return self._act(
            "AssignPrivateIpAddresses",
            f"assign {count} more addresses to {eni_id}",
            lambda client: tuple(
                IPv4Address(address["PrivateIpAddress"])
                for address in client.assign_private_ip_addresses(
                    NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=count
                )["AssignedPrivateIpAddresses"]
            ),
        )

    def unassign(self, eni_id: EniId, addresses: Sequence[IPv4Address]) -> None:
        """Take all of *addresses* from the ENI, or none: NotFoundError if it lacks one."""
        self._act(
            "UnassignPrivateIpAddresses",
            f"unassign {', '.join(map(str, addresses))} from {eni_id}",
            lambda client: client.unassign_private_ip_addresses(
                NetworkInterfaceId=eni_id,
                PrivateIpAddresses=[str(address) for address in addresses],
            ),
        )

    def _enis(self, name: str, value: str) -> tuple[Eni, ...]:
        filters: list[FilterTypeDef] = [{"Name": name, "Values": [value]}]
        return self._ask(
            "DescribeNetworkInterfaces",
            f"list the ENIs with {name} {value}",
            lambda client: tuple(
                parse.eni(raw)
                for page in client.get_paginator("describe_network_interfaces").paginate(
                    Filters=filters, PaginationConfig={"PageSize": PAGE_SIZE}
                )
                for raw in page["NetworkInterfaces"]
            ),
        )

    def _ask(self, action: str, wish: str, send: Callable[[EC2Client], T]) -> T:
        """Return the answer; a question that gets none has changed nothing."""
        with self._translated(action, wish, unanswered=UnreachableError):
            return send(self._asking)

    def _act(self, action: str, wish: str, send: Callable[[EC2Client], T]) -> T:
        """Send the mutation once and return its answer."""
        with self._translated(action, wish, unanswered=UnreachableError):
            client = self._acting  # may look for credentials; nothing is sent to EC2 yet
        with self._translated(action, wish, unanswered=UnknownOutcomeError):
            return send(client)

    @contextmanager
    def _translated(self, action: str, wish: str, *, unanswered: type[EniError]) -> Iterator[None]:
        try:
            yield
        except (aws.ClientError, aws.BotoCoreError, *NO_ANSWER) as error:
            family, code, reason = verdict(error)
            if family is UnknownOutcomeError:
                family = unanswered
            self.errors[action, family.id] += 1
            raise family(sentence(family, wish, reason), action=action, code=code) from error

    @cached_property
    def _asking(self) -> EC2Client:
        return self._client(self._total_attempts)

    @cached_property
    def _acting(self) -> EC2Client:
        return self._client(1)

    @cached_property
    def _session(self) -> boto3.Session:
        core = botocore.session.Session()
        core.set_config_variable("metadata_service_num_attempts", IMDS_ATTEMPTS)
        return boto3.Session(botocore_session=core, region_name=self._region)

    def _client(self, total_attempts: int) -> EC2Client:
        # A client keeps the credentials that there are when it is made, also
        # none, for ever: make none before there are any.
        if self._session.get_credentials() is None:
            raise aws.NoCredentialsError
        client = self._session.client(
            "ec2",
            config=Config(
                retries={"mode": "standard", "total_max_attempts": total_attempts},
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=self._read_timeout_seconds,
                tcp_keepalive=True,
                user_agent_extra=f"enid/{version('enid')}",
            ),
        )
        client.meta.events.register("before-send.ec2", self._count)
        return client

    def _count(self, event_name: str, **_: object) -> None:
        self.calls[event_name.rpartition(".")[2]] += 1
