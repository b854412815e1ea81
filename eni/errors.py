"""What can go wrong between this node and AWS, in three families. Pure.

*Not yet*: waiting helps, nothing was changed. *Refused*: nothing was changed
and someone must act. *Unknown outcome*: the call may have been done; observe
before acting again. A code of EC2 gets its class here and nowhere else.

EC2 says one thing under several codes and in several words, and new ones come:
so its answers are known by code, then by pattern, and what speaks of too
little of something is a shortage, which passes, also where nobody knows it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class EniError(Exception):
    """A failed call; *id* is stable over releases, *action* is EC2's name of the call."""

    id: ClassVar[str] = "EC2"

    def __init__(self, message: str, *, action: str, code: str = "") -> None:
        super().__init__(message)
        self.action = action
        self.code = code


class NotYetError(EniError):
    """Nothing was changed; it will work later."""

    id = "EC2-NOT-YET"


class RefusedError(EniError):
    """Nothing was changed; someone must act."""

    id = "EC2-REFUSED"


class UnknownOutcomeError(EniError):
    """The call may have been done: describe before acting again."""

    id = "EC2-UNKNOWN-OUTCOME"


class ThrottledError(NotYetError):
    """The account's request budget for this action is used up."""

    id = "EC2-THROTTLED"


class CapacityError(NotYetError):
    """EC2 has too little of something at present; its own words say of what."""

    id = "EC2-CAPACITY"


class SubnetExhaustedError(CapacityError):
    """The subnet has too few free addresses."""

    id = "EC2-SUBNET-EXHAUSTED"


class PrefixesExhaustedError(SubnetExhaustedError):
    """The subnet has too few free aligned /28s; single addresses may still be had."""

    id = "EC2-PREFIXES-EXHAUSTED"


class UnreachableError(NotYetError):
    """EC2 was not reached, or a question got no answer; nothing was changed."""

    id = "EC2-UNREACHABLE"


class CredentialsError(NotYetError):
    """There are no valid credentials to sign with: IMDS, the token file or the clock is late."""

    id = "EC2-CREDENTIALS"


class ImdsError(NotYetError):
    """IMDS did not answer, or not in full; *action* is the path."""

    id = "IMDS-NOT-YET"


class UnauthorizedError(RefusedError):
    """The node's role may not do this."""

    id = "EC2-UNAUTHORIZED"


class LimitExceededError(RefusedError):
    """A limit is reached, and EC2's code does not say whose."""

    id = "EC2-LIMIT-EXCEEDED"


class InstanceLimitError(LimitExceededError):
    """The instance or the ENI takes no more: it has what we do not know of; describe it."""

    id = "EC2-INSTANCE-LIMIT"


class QuotaExceededError(LimitExceededError):
    """A quota of the account or the VPC is used up, such as ENIs in the region."""

    id = "EC2-QUOTA-EXCEEDED"


class NotFoundError(RefusedError):
    """EC2 does not know the object, or not yet: a new one may take seconds to be known.

    *code* says which it is: InvalidNetworkInterfaceID.NotFound, InvalidSubnetID.NotFound,
    InvalidGroup.NotFound.
    """

    id = "EC2-NOT-FOUND"


class InvalidStateError(RefusedError):
    """The object's state does not allow it, such as deleting an ENI in use."""

    id = "EC2-INVALID-STATE"


CODES: Final[Mapping[str, type[EniError]]] = {
    "EC2ThrottledException": ThrottledError,
    "RequestLimitExceeded": ThrottledError,
    "RequestThrottled": ThrottledError,
    "RequestThrottledException": ThrottledError,
    "SlowDown": ThrottledError,
    "Throttling": ThrottledError,
    "ThrottlingException": ThrottledError,
    "TooManyRequestsException": ThrottledError,
    "InsufficientCidrBlocks": PrefixesExhaustedError,
    "InsufficientFreeAddressesInSubnet": SubnetExhaustedError,
    "ExpiredToken": CredentialsError,
    "ExpiredTokenException": CredentialsError,
    "RequestExpired": CredentialsError,
    "AccessDenied": UnauthorizedError,
    "AccessDeniedException": UnauthorizedError,
    "AuthFailure": UnauthorizedError,
    "Blocked": UnauthorizedError,
    "InvalidClientTokenId": UnauthorizedError,
    "OptInRequired": UnauthorizedError,
    "PendingVerification": UnauthorizedError,
    "SignatureDoesNotMatch": UnauthorizedError,
    "UnauthorizedOperation": UnauthorizedError,
    "UnrecognizedClientException": UnauthorizedError,
    "AttachmentLimitExceeded": InstanceLimitError,
    "Ipv6AddressLimitExceeded": InstanceLimitError,
    "PrivateIpAddressLimitExceeded": InstanceLimitError,
    "NetworkInterfaceLimitExceeded": QuotaExceededError,
    "ResourceLimitExceeded": QuotaExceededError,
    "SecurityGroupsPerInterfaceLimitExceeded": QuotaExceededError,
    "TagLimitExceeded": QuotaExceededError,
    "InvalidInstanceType": NotFoundError,
    "IncorrectInstanceState": InvalidStateError,
    "IncorrectState": InvalidStateError,
    "InvalidIPAddress.InUse": InvalidStateError,
    "InvalidNetworkInterface.InUse": InvalidStateError,
    "OperationNotPermitted": InvalidStateError,
    "InternalError": UnknownOutcomeError,
    "InternalFailure": UnknownOutcomeError,
    "ServiceUnavailable": UnknownOutcomeError,
    "Unavailable": UnknownOutcomeError,
}
"""EC2's error codes that mean one thing, whatever the text and the HTTP status are."""

CODE_PATTERNS: Final[Mapping[str, type[EniError]]] = {
    r".*\.NotFound": NotFoundError,
    r".*Throttl.*": ThrottledError,
    r".*LimitExceeded": LimitExceededError,
    r".*QuotaExceeded": QuotaExceededError,
    r"Insufficient.*|.*CapacityExceeded": CapacityError,
}
"""Families of EC2's codes, such as InvalidSubnetID.NotFound; CODES comes first.

EC2 answers some shortages with a 500, InsufficientInstanceCapacity among them: nothing was
done, and these patterns come before the status is looked at.
"""

TEXT_PATTERNS: Final[Mapping[str, type[EniError]]] = {
    r"already has an interface attached at device index": InvalidStateError,
    r"is currently in use|is not 'running'": InvalidStateError,
    r"are not assigned to interface": NotFoundError,
    r"number of (private|ipv6) addresses will exceed|interface count \d+ exceeds": (
        InstanceLimitError
    ),
    # "There aren't sufficient free Ipv4 addresses or prefixes", and as others have met it
    r"(sufficient|enough|no) (more )?(free|available) (ip\w* )?(addresses|prefixes|cidr|ips?\b)": (
        SubnetExhaustedError
    ),
    r"insufficient|(\bnot?|n't)( have)? (enough|sufficient)|\bno (more )?free\b": CapacityError,
}
"""What a refusal says when its code means several things; texts from public logs."""

RAISED: Final = frozenset(
    {*CODES.values(), *CODE_PATTERNS.values(), *TEXT_PATTERNS.values(), RefusedError}
)
"""Every class that an answer of EC2 can become, whether or not others derive from it."""


def meaning(code: str, text: str, status: int, *, prefixes: bool = False) -> type[EniError]:
    """Return the class of EC2's answer *code*: *text* with HTTP *status*.

    A 5xx with no code of ours is an unknown outcome, and so is a code that
    is not there at all: EC2 may have failed after doing what was asked.
    Throttling is a 503, too, but says so.

    *prefixes* says that prefixes were wished for. Where EC2 has too little and
    does not say that it is addresses, it is prefixes then.
    """
    known = CODES.get(code) or _fitting(CODE_PATTERNS, code, whole=True)
    if known is None and (status >= 500 or not code):  # noqa: PLR2004 - HTTP's own number
        return UnknownOutcomeError
    family = known or _fitting(TEXT_PATTERNS, text) or RefusedError
    if prefixes and code not in CODES and family in {CapacityError, SubnetExhaustedError}:
        return PrefixesExhaustedError
    return family


def _fitting(
    patterns: Mapping[str, type[EniError]], text: str, *, whole: bool = False
) -> type[EniError] | None:
    fits = re.fullmatch if whole else re.search
    for pattern, family in patterns.items():
        if fits(pattern, text, re.IGNORECASE):
            return family
    return None


def sentence(family: type[EniError], wish: str, reason: str) -> str:
    """Return the message: what was wished of which object, and EC2's reason."""
    if issubclass(family, UnknownOutcomeError):
        return f"EC2 was told to {wish}, and may have done it: {reason}"
    if issubclass(family, NotYetError):
        return f"EC2 cannot {wish} yet: {reason}"
    return f"EC2 refuses to {wish}: {reason}"
