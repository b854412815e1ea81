"""What the engine works by, and in which mode that is. Pure.

`terms_of` makes one value of everything the daemon was told: its settings, the instance
type's limits, what AWS is about to do with the instance, what the cluster says of the node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from eni import errors
from eni.limits import InstanceLimits
from eni.model import Kind, Notices
from ipamd.settings import Settings, on_type
from ipamd.targets import Fixed


class Standing(StrEnum):
    """What the node is for now."""

    NORMAL = "normal"
    CORDONED = "cordoned"
    """Pods that come all the same are served; nothing is kept warm for others."""
    LEAVING = "leaving"
    """The instance ends soon: nothing new is asked of EC2; what would outlive it is ended."""


class Mode(StrEnum):
    """How the daemon works; several may hold at once, *normal* alone."""

    NORMAL = "normal"
    NO_LEASES = "no-leases"
    """/run takes nothing: those that have an address keep it, and no pod gets one."""
    NO_JOURNAL = "no-journal"
    """The disk takes nothing: pods are served from what is held, nothing new is asked of EC2."""
    EC2_AWAY = "ec2-away"
    """EC2 is not reached, or there are no credentials: pods are served from what is held."""
    THROTTLED = "throttled"
    """EC2 refuses for now: growth is slow."""
    DENIED = "denied"
    """The node's role may not do what growth needs: someone must act."""
    REFUSED = "refused"
    """EC2 refuses for another reason than rights (a quota, a limit, an object that is gone): the
    sentence says which; someone must act, or the next look settles it."""
    SUBNET_FULL = "subnet-full"
    """No subnet of this node has a free address."""
    IMDS_AWAY = "imds-away"
    """The instance's own facts are those of a while ago."""
    API_AWAY = "api-away"
    """The API server is not reached: labels, pods and ENIConfigs are those of a while ago."""
    CORDONED = "cordoned"
    LEAVING = "leaving"
    NO_PROVISIONING = "no-provisioning"
    """Told to ask EC2 for nothing (a setting)."""
    SETTINGS_KEPT = "settings-kept"
    """The last change of the settings was invalid: the ones before it hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the engine works by; handed over whole, again and again.

    *targets* None means demand. *slots* are blocks per ENI. *max_addresses* is how many pods
    may have one (kubelet's max-pods), None if nobody knows. *bound* is how many pods of the
    node need one, None without an API server.
    """

    targets: Fixed | None
    kind: Kind
    max_enis: int
    slots: int
    max_addresses: int | None = None
    provisioning: bool = True
    sweeping: bool = True
    manage_untagged: bool = True
    primary_excluded: bool = False
    standing: Standing = Standing.NORMAL
    bound: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of the node from outside. *max_pods* is its capacity as kubelet tells it."""

    notices: Notices
    unschedulable: bool = False
    bound: int | None = None
    max_pods: int | None = None


def standing_of(told: Told, settings: Settings) -> Standing:
    """Return what the node is for, by what AWS and the cluster say."""
    notices = told.notices
    ends = {"stop", "terminate", "hibernate"}
    if notices.spot_action in ends or notices.lifecycle == "Terminated":
        return Standing.LEAVING
    is_cordoned = told.unschedulable and not settings.manage_enis_non_schedulable
    return Standing.CORDONED if is_cordoned or notices.rebalance else Standing.NORMAL


def terms_of(settings: Settings, limits: InstanceLimits, told: Told) -> Terms:
    """Return what the engine works by now.

    Prefixes need a Nitro instance or bare metal; elsewhere single addresses serve, as the
    peer does. A cap of pods is passed on only if somebody knows it: a wrong one would starve
    pods. IMDS tells no tags: where only it may be asked no ENI is left alone for lack of one.
    """
    settings = on_type(settings, takes_prefixes=limits.prefixes_allowed)
    caps = [cap for cap in (settings.max_pods, told.max_pods) if cap is not None]
    return Terms(
        targets=targets_of(settings),
        kind=Kind.PREFIX if settings.prefix_delegation else Kind.SINGLE,
        max_enis=min(limits.enis, settings.max_eni or limits.enis),
        slots=limits.ipv4_per_eni - 1,
        max_addresses=min(caps, default=None),
        provisioning=settings.provisioning,
        sweeping=settings.leaked_eni_cleanup and settings.provisioning,
        manage_untagged=settings.manage_untagged_eni or settings.imds_only,
        primary_excluded=settings.custom_networking,
        standing=standing_of(told, settings),
        bound=told.bound,
    )


def targets_of(settings: Settings) -> Fixed | None:
    """Return the targets that are set, None for demand."""
    fixed = Fixed(
        warm_eni=settings.warm_eni_target,
        warm_ip=settings.warm_ip_target,
        minimum_ip=settings.minimum_ip_target,
        warm_prefix=settings.warm_prefix_target,
    )
    return None if settings.demand else fixed


def without_prefixes(settings: Settings, limits: InstanceLimits) -> str:
    """Return why prefixes that are asked for are not had on this type; "" if nothing is lost."""
    held = on_type(settings, takes_prefixes=limits.prefixes_allowed)
    if held is settings:
        return ""
    return (
        f"ENIs of {limits.instance_type} take no prefixes, which need a Nitro instance or bare"
        f" metal: single addresses serve, by {targets_of(held) or 'demand'}"
    )


TROUBLE_MODES: tuple[tuple[type[Exception], Mode], ...] = (
    (errors.UnreachableError, Mode.EC2_AWAY),
    (errors.CredentialsError, Mode.EC2_AWAY),
    (errors.ThrottledError, Mode.THROTTLED),
    (errors.UnauthorizedError, Mode.DENIED),
    (errors.SubnetExhaustedError, Mode.SUBNET_FULL),
    (errors.RefusedError, Mode.REFUSED),
)


def modes_of(terms: Terms, troubles: Iterable[Exception], also: Iterable[Mode]) -> tuple[Mode, ...]:
    """Return every mode that holds, the gravest first; *also* are those the caller knows of."""
    found = set(also)
    for trouble in troubles:
        matching = (mode for family, mode in TROUBLE_MODES if isinstance(trouble, family))
        found |= {mode for mode in (next(matching, None),) if mode is not None}
    if terms.standing is not Standing.NORMAL:
        found.add(Mode(terms.standing.value))
    if not terms.provisioning:
        found.add(Mode.NO_PROVISIONING)
    return tuple(mode for mode in Mode if mode in found) or (Mode.NORMAL,)
