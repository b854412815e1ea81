"""What follows from an error of EC2 or IMDS, and from an ADD that is refused: the tables. Pure.

The engine reads what it does next, an ADD its code and its advice, a pod its event; metrics
are labelled with the error's `id`, which needs no second name. Every class of `EniError` has
a row, the families too, because EC2 has codes that nobody has seen; a test keeps that so.
What an ADD is refused for that is no error of EC2's has a row in `REFUSALS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cni.kernel import NodeError
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


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an ADD is refused, if it is not EC2; *event* is the reason of an Event on the pod."""

    event: str
    meaning: str
    advice: str
    code: Code = Code.TRY_AGAIN_LATER


NODE_FULL = Refusal(
    "NodeFull",
    "The node has all ENIs that it may have, and all their addresses are taken",
    "the node is full: lower its max-pods, or use a larger instance type",
)
ADDRESSES_LATE = Refusal(
    "AddressesLate",
    "Addresses were asked for, and did not come in time",
    "more addresses are on their way; kubelet retries",
)
GROWTH_HINDERED = Refusal(
    "GrowthHindered",
    "An ENIConfig, the disk or the kernel keeps the pool from growing; the text says which",
    "see `enid status`",
)
QUEUE_FULL = Refusal(
    "AddQueueFull",
    "As many ADDs as may wait for an address do (ADD_WAITING_MAX); the text says why they wait",
    "what those need that wait; more may wait if memory allows",
)
LEASE_NOT_WRITTEN = Refusal(
    "LeaseNotWritten",
    "/run takes nothing, so no address can be given",
    "see `enid status`; /run may be full",
    Code.IO,
)
WIRE_NOT_MADE = Refusal(
    "WireNotMade",
    "The kernel refused the pod's link, route or rule; the text has its words",
    "kubelet retries",
    Code.IO,
)
OTHER_NETNS = Refusal(
    "SandboxReused",
    "The same sandbox is attached in another network namespace",
    "send DEL first",
    Code.INVALID_CONFIG,
)
NO_NETNS = Refusal(
    "NetnsMissing",
    "No network namespace came with the ADD",
    "CNI_NETNS must name the pod's network namespace",
    Code.INVALID_ENVIRONMENT,
)

REFUSALS = (
    NODE_FULL, ADDRESSES_LATE, GROWTH_HINDERED, QUEUE_FULL, LEASE_NOT_WRITTEN, WIRE_NOT_MADE,
    OTHER_NETNS, NO_NETNS,
)  # fmt: skip
"""What a pod's owner should see. Not here: an ADD that its own DEL has overtaken, because nobody
waits for it any more, and what cannot be read, because it names no pod."""


RECORD_EDITED = Refusal(
    "NodeNetworkEdited",
    "Somebody has changed or deleted the node's NodeNetwork, and it was put back",
    "change nothing there: it is a record of what is, and no setting",
)
"""This and the next are Events of the Node, and no refusal of anything."""

SETTINGS_KEPT = Refusal(
    "SettingsNotTaken",
    "A setting of the ConfigMap, a profile or the Node cannot be; the former ones hold",
    "correct what the text names; `enid settings` on the node shows what holds",
)
CONFIG_UNUSED = Refusal(
    "EniConfigNotUsed",
    "An ENIConfig that the Node names is not there or cannot be read; the text says where ENIs go",
    "create or correct it, or correct what names it on the Node",
)
CONFIG_ELSEWHERE = Refusal(
    "EniConfigElsewhere",
    "An ENIConfig names a subnet that is not of the node's VPC and zone; the text says where it is",
    "name a subnet of the node's zone in it, or another ENIConfig on the Node",
)
CONFIG_WITHOUT_GROUPS = Refusal(
    "EniConfigWithoutGroups",
    "An ENIConfig has no security group, so that its ENIs get those of the primary ENI",
    "list them in its spec.securityGroups, unless the node's own are meant",
)
KUBE_DENIED = Refusal(
    "KubernetesDenied",
    "The API server does not allow the daemon what its ClusterRole should; the text names it",
    "give the ClusterRole enid that verb back; `helm upgrade` does",
)
CONFLIST_SECOND = Refusal(
    "ConflistNotFirst",
    "Another CNI's conflist sorts before ours, so that the runtime reads that one for new pods",
    "remove that file, or give it a later name",
)

NODE_EVENTS = (
    RECORD_EDITED, SETTINGS_KEPT, CONFIG_UNUSED, CONFIG_ELSEWHERE, CONFIG_WITHOUT_GROUPS,
    KUBE_DENIED, CONFLIST_SECOND,
)  # fmt: skip
"""Events of the Node that follow from no error of EC2's."""

SAID_ONCE = frozenset({CONFIG_WITHOUT_GROUPS.event})
"""Of those, what may well be meant."""


def consequence(error: EniError) -> Consequence:
    """Return what follows from *error*."""
    return CONSEQUENCES[type(error)]


def reaction_to(trouble: Exception) -> Reaction:
    """Return what the engine does about *trouble*; the disk and the kernel are waited for."""
    if isinstance(trouble, EniError):
        return consequence(trouble).reaction
    return Reaction.WAIT_AND_RETRY


def someone_must_act(trouble: Exception) -> bool:
    """Whether the node has an Event of *trouble*, too: it grows again when somebody has acted."""
    is_full = type(trouble) is errors.SubnetExhaustedError  # of /28s alone: singles serve
    return is_full or reaction_to(trouble) is Reaction.STOP_GROWING


def befalls_all(trouble: Exception) -> bool:
    """Whether any other ENI would have met the same: EC2 throttles, or is away.

    Or the kernel refuses: for want of memory, or what it refuses to each link, such as an MTU.
    """
    away = (errors.UnreachableError, errors.CredentialsError)
    return isinstance(trouble, (errors.ThrottledError, *away, NodeError))


def goes_elsewhere(trouble: Exception) -> bool:
    """Whether another subnet, or another kind of block, may give what this one did not."""
    return reaction_to(trouble) in {Reaction.TRY_ANOTHER_SUBNET, Reaction.USE_SINGLES}
