"""What follows from an error of EC2 or IMDS: the one table. Pure.

The engine reads what it does next, an ADD its code and its advice, a pod its event; metrics
are labelled with the error's `id`, which needs no second name. Every class of `EniError` has
a row, the families too, because EC2 has codes that nobody has seen; a test keeps that so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cni.spec import Code
from eni import errors
from eni.errors import EniError


class Reaction(StrEnum):
    """What the engine does about an error, for the action that met it."""

    WAIT_AND_RETRY = "wait and retry"
    """AWS is away or not ready: one call at a time finds out when it is back."""

    BACK_OFF_ACTION = "call it more rarely"
    """This action alone is slowed down (ipamd/budget.py); the others go on."""

    TRY_ANOTHER_SUBNET = "try another subnet"
    """This subnet rests; the next candidate is asked at once."""

    USE_SINGLES = "use single addresses"
    """This subnet has no /28 now: take its single addresses, and try a /28 again later."""

    LOOK_AGAIN = "look again"
    """What we believe may be wrong: describe the object before anything is done to it."""

    STOP_GROWING = "stop growing"
    """Someone must act. What is held is served, and the call is tried again slowly."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from one class of errors.

    *code* is TRY_AGAIN_LATER wherever the ADD itself is right and the same ADD works once
    the cause is gone. *event* is the reason of an Event on the pod and the node.
    """

    reaction: Reaction
    event: str
    advice: str
    code: Code = Code.TRY_AGAIN_LATER


CONSEQUENCES: Mapping[type[EniError], Consequence] = {
    errors.ThrottledError: Consequence(
        Reaction.BACK_OFF_ACTION,
        "Ec2Throttled",
        "EC2 throttles this account; kubelet retries, no action needed",
    ),
    errors.CapacityError: Consequence(
        Reaction.TRY_ANOTHER_SUBNET,
        "Ec2CapacityShort",
        "EC2 is short of what its words name; kubelet retries",
    ),
    errors.SubnetExhaustedError: Consequence(
        Reaction.TRY_ANOTHER_SUBNET,
        "SubnetExhausted",
        "free addresses in the subnet, or add one for this zone",
    ),
    errors.PrefixesExhaustedError: Consequence(
        Reaction.USE_SINGLES,
        "PrefixesExhausted",
        "reserve a CIDR of type prefix in the subnet, or add a subnet",
    ),
    errors.UnreachableError: Consequence(
        Reaction.WAIT_AND_RETRY,
        "Ec2Unreachable",
        "check the route to the EC2 endpoint; kubelet retries",
    ),
    errors.CredentialsError: Consequence(
        Reaction.WAIT_AND_RETRY,
        "CredentialsMissing",
        "check the node's role and IMDS; kubelet retries",
    ),
    errors.ImdsError: Consequence(
        Reaction.WAIT_AND_RETRY,
        "ImdsUnavailable",
        "check that IMDS answers on the node; kubelet retries",
    ),
    errors.UnauthorizedError: Consequence(
        Reaction.STOP_GROWING,
        "Ec2Unauthorized",
        "allow the named action in the node's IAM policy",
    ),
    errors.LimitExceededError: Consequence(
        Reaction.STOP_GROWING,
        "Ec2LimitExceeded",
        "use a larger instance type or raise the quota named",
    ),
    errors.InstanceLimitError: Consequence(
        Reaction.LOOK_AGAIN,
        "InstanceLimitReached",
        "ipamd looks what is attached; if that is all, use a larger type",
    ),
    errors.QuotaExceededError: Consequence(
        Reaction.STOP_GROWING,
        "QuotaExceeded",
        "raise the quota named, or remove what uses it up",
    ),
    errors.NotFoundError: Consequence(
        Reaction.LOOK_AGAIN,
        "Ec2ObjectNotFound",
        "the object is gone or not known yet; `enid status` shows what is held",
    ),
    errors.InvalidStateError: Consequence(
        Reaction.LOOK_AGAIN,
        "Ec2ObjectBusy",
        "something else changes this ENI; `enid status` shows its state",
    ),
    errors.UnknownOutcomeError: Consequence(
        Reaction.LOOK_AGAIN,
        "Ec2OutcomeUnknown",
        "EC2 gave no answer; ipamd looks before it acts again",
    ),
    errors.RefusedError: Consequence(
        Reaction.STOP_GROWING,
        "Ec2Refused",
        "EC2's own words say what it refuses; someone must act",
    ),
    errors.NotYetError: Consequence(
        Reaction.WAIT_AND_RETRY, "Ec2NotReady", "kubelet retries; the text says what is missing"
    ),
    EniError: Consequence(Reaction.WAIT_AND_RETRY, "Ec2Failed", "kubelet retries"),
}
"""By class, families last."""


def consequence(error: EniError) -> Consequence:
    """Return what follows from *error*."""
    return CONSEQUENCES[type(error)]


def reaction_to(trouble: Exception) -> Reaction:
    """Return what the engine does about *trouble*; the disk and the kernel are waited for."""
    if isinstance(trouble, EniError):
        return consequence(trouble).reaction
    return Reaction.WAIT_AND_RETRY


def goes_elsewhere(trouble: Exception) -> bool:
    """Whether another subnet, or another kind of block, may give what this one did not."""
    return reaction_to(trouble) in {Reaction.TRY_ANOTHER_SUBNET, Reaction.USE_SINGLES}
