"""What a caller is told when an attachment cannot be had. Pure.

`msg` says what and which object, `details` the next step. Every leaf of `EniError` has a
row in `ADVICE`; a test keeps that so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cni.spec import CniError, Code, Sandbox
from eni import errors
from eni.errors import EniError

ADVICE: Mapping[type[EniError], str] = {
    errors.ThrottledError: "EC2 throttles this account; kubelet retries, no action needed",
    errors.CapacityError: "EC2 is short of what its words name; kubelet retries",
    errors.SubnetExhaustedError: "free addresses in the subnet, or add one for this zone",
    errors.PrefixesExhaustedError: "reserve a CIDR of type prefix in the subnet, or add a subnet",
    errors.UnreachableError: "check the route to the EC2 endpoint; kubelet retries",
    errors.CredentialsError: "check the node's role and IMDS; kubelet retries",
    errors.ImdsError: "check that IMDS answers on the node; kubelet retries",
    errors.UnauthorizedError: "allow the named action in the node's IAM policy",
    errors.LimitExceededError: "use a larger instance type or raise the quota named",
    errors.InstanceLimitError: "ipamd looks what is attached; if that is all, use a larger type",
    errors.QuotaExceededError: "raise the quota named, or remove what uses it up",
    errors.NotFoundError: "the object is gone or not known yet; `enid status` shows what is held",
    errors.InvalidStateError: "something else changes this ENI; `enid status` shows its state",
    errors.RefusedError: "EC2's own words say what it refuses; someone must act",
    errors.UnknownOutcomeError: "EC2 gave no answer; ipamd looks before it acts again",
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why no address is ready: in numbers, and the last trouble with EC2 if there is one."""

    held: int
    assigned: int
    cooling: int
    enis: int
    max_enis: int
    trouble: EniError | str | None = None


def no_address(sandbox: Sandbox, shortage: Shortage, waited_seconds: float) -> CniError:
    """Return what an ADD hears that got no address in time."""
    s = shortage
    msg = (
        f"no address for {sandbox.container_id}/{sandbox.ifname} after {waited_seconds:.0f} s:"
        f" {s.assigned} of {s.held} in use, {s.cooling} cooling, {s.enis} of {s.max_enis} ENIs"
    )
    match s.trouble:
        case EniError():
            advice = ADVICE.get(type(s.trouble), "kubelet retries")
            return CniError(Code.TRY_AGAIN_LATER, f"{msg}; {s.trouble}", advice)
        case str():
            return CniError(Code.TRY_AGAIN_LATER, f"{msg}; {s.trouble}", "see `enid status`")
        case None if s.enis >= s.max_enis:
            return CniError(
                Code.TRY_AGAIN_LATER,
                msg,
                "the node is full: lower its max-pods, or use a larger instance type",
            )
        case _:
            return CniError(
                Code.TRY_AGAIN_LATER, msg, "more addresses are on their way; kubelet retries"
            )


def stale(sandbox: Sandbox) -> CniError:
    """Return what an ADD hears that is older than the DEL of its attachment."""
    return CniError(
        Code.UNKNOWN_CONTAINER,
        f"{sandbox.container_id}/{sandbox.ifname} was deleted after this ADD began",
        "nothing to clean up",
    )


def other_netns(sandbox: Sandbox) -> CniError:
    """Return what an ADD hears whose attachment exists in another network namespace."""
    return CniError(
        Code.INVALID_CONFIG,
        f"{sandbox.container_id}/{sandbox.ifname} is attached in another network namespace",
        "send DEL first",
    )


def deleted_meanwhile(sandbox: Sandbox) -> CniError:
    """Return what a waiting ADD hears when its DEL overtakes it."""
    return CniError(
        Code.TRY_AGAIN_LATER,
        f"{sandbox.container_id}/{sandbox.ifname} was deleted while it waited for an address",
        "nothing to clean up",
    )
