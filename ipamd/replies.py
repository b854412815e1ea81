"""What a caller is told when an attachment cannot be had. Pure.

`msg` says what and which object, `details` the next step; what that is, and the event of a
pod whose ADD is refused, is in the one table (ipamd/reactions.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cni.kernel import WireError
from cni.spec import CniError, Code, Pod, Sandbox, Verb
from eni.errors import EniError
from ipamd import reactions
from ipamd.pool import EniCensus
from ipamd.reactions import Refusal, consequence


class AddRefusedError(CniError):
    """A refusal that a pod's owner should see; *event* is the reason of its Event."""

    def __init__(self, event: str, code: Code, msg: str, details: str) -> None:
        super().__init__(code, msg, details)
        self.event = event


def _refused(why: Refusal, msg: str, details: str = "") -> AddRefusedError:
    return AddRefusedError(why.event, why.code, msg, details or why.advice)


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why no address is ready: in numbers, and the last trouble with EC2 if there is one.

    *prefixes* is why subnets give no /28, where one was refused.
    """

    held: int
    assigned: int
    cooling: int
    enis: int
    max_enis: int
    trouble: EniError | str | None = None
    prefixes: str = ""


def no_address(
    sandbox: Sandbox, pod: Pod, shortage: Shortage, waited_seconds: float
) -> AddRefusedError:
    """Return what an ADD hears that got no address in time."""
    s = shortage
    msg = (
        f"no address for {_known_as(sandbox, pod)} after {waited_seconds:.0f} s:"
        f" {s.assigned} of {s.held} in use, {s.cooling} cooling, {s.enis} of {s.max_enis} ENIs"
    )
    match s.trouble:
        case EniError():
            told = consequence(s.trouble)
            why = f"{s.trouble}; {s.prefixes}" if s.prefixes else str(s.trouble)
            return AddRefusedError(told.event, told.code, f"{msg}; {why}", told.advice)
        case str():
            return _refused(reactions.GROWTH_HINDERED, f"{msg}; {s.trouble}")
        case None if s.enis >= s.max_enis:
            return _refused(reactions.NODE_FULL, msg)
        case _:
            return _refused(reactions.ADDRESSES_LATE, msg)


def _known_as(sandbox: Sandbox, pod: Pod) -> str:
    """Return how people know who asks: the pod, else what the runtime calls it."""
    if pod.name:
        return f"pod {pod.namespace}/{pod.name}"
    return f"{sandbox.container_id}/{sandbox.ifname}"


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


def queue_full(sandbox: Sandbox, pod: Pod, waiting: int, shortage: Shortage) -> AddRefusedError:
    """Return what an ADD hears at once when as many wait as may (ADD_WAITING_MAX)."""
    error = no_address(sandbox, pod, shortage, 0)
    return _refused(
        reactions.QUEUE_FULL,
        f"{waiting} ADDs wait for an address already, so {_known_as(sandbox, pod)} does not:"
        f" {error.msg.partition(': ')[2]}",
        error.details,
    )


def lease_not_written(reason: object) -> AddRefusedError:
    """Return what an ADD hears while the lease file takes nothing."""
    return _refused(reactions.LEASE_NOT_WRITTEN, str(reason))


def wire_not_made(error: WireError) -> AddRefusedError:
    """Return what an ADD hears whose wire the kernel refused."""
    why = reactions.WIRE_NOT_MADE
    return _refused(why, str(error), f"{error.id}; {why.advice}")


def no_netns(sandbox: Sandbox, verb: Verb) -> AddRefusedError:
    """Return what an ADD or a CHECK hears that brought no network namespace."""
    msg = f"no network namespace came with the {verb} of {sandbox.container_id}"
    return _refused(reactions.NO_NETNS, msg)


def stale(sandbox: Sandbox) -> CniError:
    """Return what an ADD hears that is older than the DEL of its attachment."""
    return CniError(
        Code.UNKNOWN_CONTAINER,
        f"{sandbox.container_id}/{sandbox.ifname} was deleted after this ADD began",
        "nothing to clean up",
    )


def other_netns(sandbox: Sandbox) -> AddRefusedError:
    """Return what an ADD hears whose attachment exists in another network namespace."""
    return _refused(
        reactions.OTHER_NETNS,
        f"{sandbox.container_id}/{sandbox.ifname} is attached in another network namespace",
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
