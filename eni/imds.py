"""What the instance metadata service tells of this instance. Shell.

A hint, and never evidence: lists come late and short. So an interface that is
told of only in part is left out, and the caller must not conclude anything
from what is missing.

EC2 lets 1024 packets a second through to its link-local services, DNS among
them: read at start and on change, never for a pod. IMDSv2 only.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final, TypeVar

import botocore.session
from botocore.exceptions import BotoCoreError
from botocore.utils import BadIMDSRequestError, IMDSFetcher, resolve_imds_endpoint_mode

from eni.errors import ImdsError
from eni.model import (
    NO_ENIS,
    EniId,
    Identity,
    ImdsEni,
    InstanceId,
    Notices,
    SecurityGroupId,
    SubnetId,
    VpcId,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.awsrequest import AWSResponse

T = TypeVar("T")

ATTEMPTS: Final = 3
"""Tries per key; the service sheds load by dropping."""

TIMEOUT_SECONDS: Final = 1
"""IMDS answers from the host within a millisecond; a slower answer is none."""

ABSENT: Final = 404
ANSWERED: Final = (200, ABSENT)


class Fetcher(IMDSFetcher):
    """botocore's client, with one token for many reads and 404 as an answer."""

    if TYPE_CHECKING:  # the stubs leave out what botocore's own subclasses use
        _TOKEN_PATH: str
        _RETRIES_EXCEEDED_ERROR_CLS: type[Exception]

        def _fetch_metadata_token(self) -> str | None: ...
        def _get_request(
            self, url_path: str, retry_func: Callable[[AWSResponse], bool], token: str
        ) -> AWSResponse: ...

    def token(self) -> str:
        """Return a new session token."""
        path = self._TOKEN_PATH
        try:
            token = self._fetch_metadata_token()
        except (BotoCoreError, BadIMDSRequestError, self._RETRIES_EXCEEDED_ERROR_CLS) as error:
            raise unanswered(path, error) from error
        if token is None:
            raise unanswered(path, "no token")
        return token

    def text(self, path: str, token: str) -> str:
        """Return the text at *path*; "" if IMDS says that there is none."""
        try:
            response = self._get_request(path, unfit, token)
        except (BotoCoreError, self._RETRIES_EXCEEDED_ERROR_CLS) as error:
            raise unanswered(path, error) from error
        return "" if response.status_code == ABSENT else response.text


def unfit(response: AWSResponse) -> bool:
    """Return whether to ask again."""
    return response.status_code not in ANSWERED


def unanswered(path: str, reason: object) -> ImdsError:
    """Return the error of a read that failed."""
    return ImdsError(f"IMDS does not give {path} yet: {reason!r}", action=path)


class Imds:
    """This instance's own view of itself; AWS_EC2_METADATA_SERVICE_ENDPOINT moves it."""

    def __init__(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        session = botocore.session.Session()
        self._fetcher = Fetcher(
            timeout=timeout_seconds,  # type: ignore[arg-type] # the stubs know whole seconds only
            num_attempts=ATTEMPTS,
            user_agent=f"enid/{version('enid')}",
            config={
                "ec2_metadata_service_endpoint": session.get_config_variable(
                    "ec2_metadata_service_endpoint"
                ),
                "ec2_metadata_service_endpoint_mode": resolve_imds_endpoint_mode(session),
            },
        )

    def region(self) -> str:
        """Return the region's name."""
        return Reading(self._fetcher).one("placement/region", str)

    def identity(self) -> Identity:
        """Return who this instance is."""
        reading = Reading(self._fetcher)
        return Identity(
            instance_id=reading.one("instance-id", InstanceId),
            instance_type=reading.one("instance-type", str),
            region=reading.one("placement/region", str),
            availability_zone=reading.one("placement/availability-zone", str),
            mac=reading.one("mac", str.lower),
            primary=reading.one("local-ipv4", IPv4Address),
        )

    def enis(self, known: Mapping[str, ImdsEni] = NO_ENIS) -> tuple[ImdsEni, ...]:
        """Return the ENIs that IMDS tells of in full, by device index.

        Of those in *known*, by MAC, only what may be another from one moment to the next is
        read: five keys instead of thirteen.
        """
        reading = Reading(self._fetcher)
        macs = reading.some("network/interfaces/macs/", lambda name: name.strip("/"))
        enis = [eni for mac in macs if (eni := reading.eni(mac, known.get(mac.lower())))]
        return tuple(sorted(enis, key=lambda eni: (eni.network_card, eni.device_index)))

    def notices(self) -> Notices:
        """Return what AWS has in mind with this instance; a key that is not there says nothing."""
        reading = Reading(self._fetcher)
        return Notices(
            spot_action=reading.text("spot/instance-action", _action),
            rebalance=reading.text("events/recommendations/rebalance", str) is not None,
            lifecycle=next(iter(reading.some("autoscaling/target-lifecycle-state", str)), None),
        )


def _action(text: str) -> str:
    """Return the action of a spot notice, which is JSON. Raises ValueError."""
    match json.loads(text):
        case {"action": str(action)}:
            return action
        case _:
            raise ValueError(f"no action in {text!r}")


class Reading:
    """One pass over some keys under one token."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._token = fetcher.token()

    def text(self, key: str, parse: Callable[[str], T]) -> T | None:
        """Return the whole text at *key*; None if IMDS has no such key, or nothing to say."""
        path = f"latest/meta-data/{key}"
        text = self._fetcher.text(path, self._token)
        try:
            return parse(text) if text else None
        except ValueError as error:
            raise unanswered(path, error) from error

    def some(self, key: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Return the words at *key*; none if IMDS has no such key."""
        return self.text(key, lambda text: tuple(map(parse, text.split()))) or ()

    def one(self, key: str, parse: Callable[[str], T]) -> T:
        """Return the one word at *key*; ImdsError if it is not there."""
        match self.some(key, parse):
            case (word,):
                return word
            case words:
                raise unanswered(f"latest/meta-data/{key}", f"{len(words)} words instead of one")

    def eni(self, mac: str, known: ImdsEni | None = None) -> ImdsEni | None:
        """Return the ENI with this MAC; None if it is coming, going, or without IPv4."""
        root = f"network/interfaces/macs/{mac}/"
        addresses = self.some(f"{root}local-ipv4s", IPv4Address)
        lasting = known or self._lasting(mac, root)
        if lasting is None or not addresses:
            return None
        return replace(
            lasting,
            addresses=addresses,
            ipv6s=self.some(f"{root}ipv6s", IPv6Address),
            prefixes=(
                *self.some(f"{root}ipv4-prefix", IPv4Network),
                *self.some(f"{root}ipv6-prefix", IPv6Network),
            ),
            security_groups=self.some(f"{root}security-group-ids", SecurityGroupId),
        )

    def _lasting(self, mac: str, root: str) -> ImdsEni | None:
        """Return what an ENI keeps while it is attached, or changes once in months."""
        ids = self.some(f"{root}interface-id", EniId)
        indexes = self.some(f"{root}device-number", int)
        vpcs = self.some(f"{root}vpc-id", VpcId)
        subnets = self.some(f"{root}subnet-id", SubnetId)
        cidrs = self.some(f"{root}subnet-ipv4-cidr-block", IPv4Network)
        vpc_cidrs = self.some(f"{root}vpc-ipv4-cidr-blocks", IPv4Network)
        if not all((ids, indexes, vpcs, subnets, cidrs, vpc_cidrs)):
            return None
        return ImdsEni(
            id=ids[0],
            mac=mac.lower(),
            device_index=indexes[0],
            network_card=next(iter(self.some(f"{root}network-card", int)), 0),
            vpc_id=vpcs[0],
            subnet_id=subnets[0],
            subnet_cidr=cidrs[0],
            vpc_cidrs=(*vpc_cidrs, *self.some(f"{root}vpc-ipv6-cidr-blocks", IPv6Network)),
            addresses=(),
        )
