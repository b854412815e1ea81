"""What a caller is told when an attachment cannot be had. Pure.

`msg` says what and which object, `details` the next step; what an error of EC2 means for
the caller is in the one table (ipamd/reactions.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cni.spec import CniError, Code, Sandbox
from eni.errors import EniError
from ipamd.pool import EniCensus
from ipamd.reactions import consequence


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
            told = consequence(s.trouble)
            return CniError(told.code, f"{msg}; {s.trouble}", told.advice)
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


def exhaustion(census: Iterable[EniCensus], shortage: Shortage) -> str:
    """Return why another pod would get no address here, "" if it would, now or soon.

    A node that may still grow, and was not refused, is not exhausted.
    """
    enis = tuple(census)
    has_room = shortage.enis < shortage.max_enis or any(c.room for c in enis)
    if any(c.free or c.cooling for c in enis) or (has_room and shortage.trouble is None):
        return ""
    s = shortage
    trouble = f"; {s.trouble}" if s.trouble else ""
    return (
        f"no address for another pod: {s.assigned} of {s.held} in use,"
        f" {s.enis} of {s.max_enis} ENIs{trouble}"
    )


def queue_full(sandbox: Sandbox, waiting: int, shortage: Shortage) -> CniError:
    """Return what an ADD hears at once when as many wait as may (ADD_WAITING_MAX)."""
    error = no_address(sandbox, shortage, 0)
    return CniError(
        Code.TRY_AGAIN_LATER,
        f"{waiting} ADDs wait for an address already, so {sandbox.container_id}/{sandbox.ifname}"
        f" does not: {error.msg.partition(': ')[2]}",
        error.details,
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


def unknown(sandbox: Sandbox) -> CniError:
    """Return what a CHECK hears of an attachment that is not there."""
    return CniError(
        Code.UNKNOWN_CONTAINER,
        f"{sandbox.container_id}/{sandbox.ifname} is not attached to {sandbox.network}",
        "its sandbox must be made anew",
    )


def not_as_wired(sandbox: Sandbox, found: Iterable[str]) -> CniError:
    """Return what a CHECK hears of an attachment that is not as it was made."""
    return CniError(
        Code.NOT_AS_WIRED,
        f"{sandbox.container_id}/{sandbox.ifname} is not as it was made: {'; '.join(found)}",
        "nothing was changed; restart the pod if its traffic suffers",
    )


def deleted_meanwhile(sandbox: Sandbox) -> CniError:
    """Return what a waiting ADD hears when its DEL overtakes it."""
    return CniError(
        Code.TRY_AGAIN_LATER,
        f"{sandbox.container_id}/{sandbox.ifname} was deleted while it waited for an address",
        "nothing to clean up",
    )
