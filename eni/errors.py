"""What can go wrong between this node and AWS, in three families. Pure.

*Not yet*: waiting helps, nothing was changed. *Refused*: nothing was changed
and someone must act. *Unknown outcome*: the call may have been done; observe
before acting again. A code of EC2 gets its class here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

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


class SubnetExhaustedError(NotYetError):
    """The subnet has too few free addresses, or too few free blocks of them."""

    id = "EC2-SUBNET-EXHAUSTED"


class UnreachableError(NotYetError):
    """EC2 was not reached, or a question got no answer; nothing was changed."""

    id = "EC2-UNREACHABLE"


class CredentialsError(NotYetError):
    """There are no valid credentials to sign with; IMDS or the token file may be late."""

    id = "EC2-CREDENTIALS"


class ImdsError(NotYetError):
    """IMDS did not answer, or not in full; *action* is the path."""

    id = "IMDS-NOT-YET"


class UnauthorizedError(RefusedError):
    """The node's role may not do this."""

    id = "EC2-UNAUTHORIZED"


class LimitExceededError(RefusedError):
    """An instance type's or an account's limit is reached."""

    id = "EC2-LIMIT-EXCEEDED"


class NotFoundError(RefusedError):
    """EC2 does not know the object, or not yet: a new one may take seconds to be known."""

    id = "EC2-NOT-FOUND"


class InvalidStateError(RefusedError):
    """The object's state does not allow it, such as deleting an ENI in use."""

    id = "EC2-INVALID-STATE"


CODES: Mapping[str, type[EniError]] = {
    "EC2ThrottledException": ThrottledError,
    "RequestLimitExceeded": ThrottledError,
    "RequestThrottled": ThrottledError,
    "RequestThrottledException": ThrottledError,
    "SlowDown": ThrottledError,
    "Throttling": ThrottledError,
    "ThrottlingException": ThrottledError,
    "TooManyRequestsException": ThrottledError,
    "InsufficientCidrBlocks": SubnetExhaustedError,
    "InsufficientFreeAddressesInSubnet": SubnetExhaustedError,
    "ExpiredToken": CredentialsError,
    "ExpiredTokenException": CredentialsError,
    "AccessDenied": UnauthorizedError,
    "AccessDeniedException": UnauthorizedError,
    "AuthFailure": UnauthorizedError,
    "InvalidClientTokenId": UnauthorizedError,
    "OptInRequired": UnauthorizedError,
    "SignatureDoesNotMatch": UnauthorizedError,
    "UnauthorizedOperation": UnauthorizedError,
    "UnrecognizedClientException": UnauthorizedError,
    "InvalidInstanceType": NotFoundError,
    "IncorrectInstanceState": InvalidStateError,
    "IncorrectState": InvalidStateError,
    "InvalidIPAddress.InUse": InvalidStateError,
    "InvalidNetworkInterface.InUse": InvalidStateError,
    "OperationNotPermitted": InvalidStateError,
}
"""EC2's error codes that mean one thing."""

ENDINGS: Mapping[str, type[EniError]] = {
    ".NotFound": NotFoundError,
    "LimitExceeded": LimitExceededError,
}
"""Families of EC2's codes, such as InvalidSubnetID.NotFound; CODES comes first."""

TEXTS: Mapping[str, type[EniError]] = {
    "sufficient free Ipv4 addresses or prefixes": SubnetExhaustedError,
    "is currently in use": InvalidStateError,
    "already has an interface attached at device index": InvalidStateError,
    "are not assigned to interface": NotFoundError,
}
"""What InvalidParameterValue says when it means something else; texts from public logs."""


def meaning(code: str, text: str, status: int) -> type[EniError]:
    """Return the class of EC2's answer *code*: *text* with HTTP *status*.

    A 5xx with no code of ours is an unknown outcome, and so is a code that
    is not there at all: EC2 may have failed after doing what was asked.
    Throttling is a 503, too, but says so.
    """
    if known := CODES.get(code):
        return known
    for ending, family in ENDINGS.items():
        if code.endswith(ending):
            return family
    if status >= 500 or not code:  # noqa: PLR2004 - HTTP's own number
        return UnknownOutcomeError
    if code == "InvalidParameterValue":
        for words, family in TEXTS.items():
            if words in text:
                return family
    return RefusedError


def sentence(family: type[EniError], wish: str, reason: str) -> str:
    """Return the message: what was wished of which object, and EC2's reason."""
    if issubclass(family, UnknownOutcomeError):
        return f"EC2 was told to {wish}, and may have done it: {reason}"
    if issubclass(family, NotYetError):
        return f"EC2 cannot {wish} yet: {reason}"
    return f"EC2 refuses to {wish}: {reason}"
