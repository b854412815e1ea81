"""What is drawn from a seed: a node, its settings and subnets, and what happens when. Shell.

`draw` makes a `History`, a value. Which kinds of trouble a history knows is drawn first, so that
many histories have few kinds and go deep in them. `tests.chaos.history` lives it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Network

from ipamd.cluster import ENI_CONFIG_LABEL
from ipamd.settings import Settings

DAY_SECONDS = 86400.0


class Trouble(StrEnum):
    """Kinds of trouble; a history knows some of them."""

    KILLS = "kills"
    REBOOTS = "reboots"
    KERNEL_KILLS = "kills-in-kernel-steps"
    THROTTLED = "throttled"
    LOST = "lost-answers"
    DROPPED = "dropped-calls"
    AWAY = "ec2-away"
    DENIED = "denied"
    STALE = "stale-answers"
    SLOW = "slow"
    IMDS = "imds"
    REFUSALS = "kernel-refusals"
    DISK = "full-disk"
    RUN = "full-run"
    CLOCK = "clock-jumps"
    HANDS = "hands"
    FOREIGN = "foreign-enis"
    NOTICES = "notices"
    CORDON = "cordon"
    IMPATIENCE = "impatience"
    VANISHING = "vanishing"
    SETTINGS = "settings"
    CONFIGS = "eniconfigs"
    BOUND = "bound-ahead"
    LEADER = "leader"
    API = "api-away"


class What(StrEnum):
    """Events."""

    BURST = "burst"
    ARRIVE = "arrive"
    LEAVE = "leave"
    REPLACE = "replace"
    LEAVE_ALL = "leave-all"
    ASK_AGAIN = "ask-again"
    TIME_OUT = "time-out"
    VANISH = "vanish"
    KILL = "kill"
    KILL_IN_KERNEL = "kill-in-kernel"
    KILL_BEFORE_ANSWER = "kill-before-answer"
    REBOOT = "reboot"
    THROTTLE = "throttle"
    LOSE = "lose"
    DROP = "drop"
    AWAY = "away"
    DENY = "deny"
    STALE = "stale"
    SLOW = "slow"
    IMDS_HIDES = "imds-hides"
    IMDS_AWAY = "imds-away"
    REFUSE = "refuse"
    DISK_FULL = "disk-full"
    RUN_FULL = "run-full"
    CLOCK = "clock"
    UNASSIGN_BY_HAND = "unassign-by-hand"
    ASSIGN_BY_HAND = "assign-by-hand"
    DETACH_BY_HAND = "detach-by-hand"
    DELETE_BY_HAND = "delete-by-hand"
    HOST_ADDRESS = "host-address"
    ATTACH_FOREIGN = "attach-foreign"
    NOTICE = "notice"
    CORDON = "cordon"
    CHANGE_SETTINGS = "change-settings"
    CHANGE_CONFIG = "change-config"
    NAME_CONFIGS = "name-configs"
    MISCOUNT = "miscount"
    ELECT = "elect"
    LEAK = "leak"
    API_AWAY = "api-away"


EVENTS: Mapping[Trouble, tuple[What, ...]] = {
    Trouble.KILLS: (What.KILL, What.KILL, What.KILL_BEFORE_ANSWER),
    Trouble.REBOOTS: (What.REBOOT,),
    Trouble.KERNEL_KILLS: (What.KILL_IN_KERNEL,),
    Trouble.THROTTLED: (What.THROTTLE,),
    Trouble.LOST: (What.LOSE,),
    Trouble.DROPPED: (What.DROP,),
    Trouble.AWAY: (What.AWAY,),
    Trouble.DENIED: (What.DENY,),
    Trouble.STALE: (What.STALE,),
    Trouble.SLOW: (What.SLOW,),
    Trouble.IMDS: (What.IMDS_HIDES, What.IMDS_AWAY),
    Trouble.REFUSALS: (What.REFUSE,),
    Trouble.DISK: (What.DISK_FULL,),
    Trouble.RUN: (What.RUN_FULL,),
    Trouble.CLOCK: (What.CLOCK,),
    Trouble.HANDS: (
        What.UNASSIGN_BY_HAND,
        What.ASSIGN_BY_HAND,
        What.DETACH_BY_HAND,
        What.DELETE_BY_HAND,
        What.HOST_ADDRESS,
    ),
    Trouble.FOREIGN: (What.ATTACH_FOREIGN,),
    Trouble.NOTICES: (What.NOTICE,),
    Trouble.CORDON: (What.CORDON,),
    Trouble.IMPATIENCE: (What.TIME_OUT, What.ASK_AGAIN),
    Trouble.VANISHING: (What.VANISH,),
    Trouble.SETTINGS: (What.CHANGE_SETTINGS,),
    Trouble.CONFIGS: (What.CHANGE_CONFIG, What.CHANGE_CONFIG, What.NAME_CONFIGS),
    Trouble.BOUND: (What.MISCOUNT,),
    Trouble.LEADER: (What.ELECT, What.LEAK, What.LEAK),
    Trouble.API: (What.API_AWAY,),
}

OF_A_CLUSTER = (Trouble.SETTINGS, Trouble.CONFIGS, Trouble.BOUND, Trouble.LEADER, Trouble.API)
"""What only a daemon knows that is joined to a cluster; drawn by chances of their own, so that the
histories that have none of it stay what they were."""

PODS: Mapping[What, float] = {
    What.ARRIVE: 6,
    What.LEAVE: 5,
    What.REPLACE: 3,
    What.BURST: 1,
    What.LEAVE_ALL: 0.3,
}


class Last(StrEnum):
    """What is tried at the end of a history."""

    LEAVES = "leaves"
    """The instance is to end while an ENI is half made; AWS thinks better of it."""
    DENIED_DETACH = "DetachNetworkInterface"
    DENIED_DELETE = "DeleteNetworkInterface"
    """All pods go and come back while the role may not let an ENI go."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens; *roll*, in [0, 1), says to whom and how much."""

    at: float
    what: What
    roll: float
    seconds: float = 0.0
    """How long it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is drawn from a seed."""

    seed: int
    settings: Settings
    instance_type: str
    subnet: str
    occupied: tuple[IPv4Network, ...] = ()
    others: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    attach_seconds: tuple[float, float] = (1.0, 5.0)
    minutes: float = 0.0
    lag_seconds: float = 0.0
    draws: bool = False
    """Whether EC2 gives addresses at random, and not the lowest free."""
    troubles: frozenset[Trouble] = frozenset()
    pods: int = 20
    """About how many pods there are at most."""
    seconds: float = 3600.0
    events: tuple[Event, ...] = ()
    last: Last | None = None
    """What is tried when all other faults have stopped."""
    configs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """ENIConfigs' specs by name."""
    named: tuple[str, str] = ("", "")
    """By which label or annotation of the node ENIConfigs are named, and which."""
    given: int = 0
    """Addresses that the primary ENI has from whoever provisions instead of us."""

    @property
    def is_joined(self) -> bool:
        """Whether the daemon is joined to a cluster."""
        return not self.troubles.isdisjoint(OF_A_CLUSTER)

    def __str__(self) -> str:
        troubles = ", ".join(sorted(self.troubles)) or "none"
        return f"seed {self.seed}: {self.instance_type}, {self.subnet}, troubles: {troubles}"


TYPES = {"t3.small": 3 * 3, "t3.medium": 3 * 5, "m5.large": 27, "m5.xlarge": 56}
"""Instance types, and how many pods' addresses each takes at most."""


def draw(seed: int, hours: float = 1.0) -> History:
    """Return the history of *seed*."""
    r = random.Random(f"history {seed}")
    instance_type = r.choice(sorted(TYPES))
    prefixes = r.random() < 0.35
    holds = TYPES[instance_type] * (16 if prefixes else 1)
    plain = (t for t in Trouble if t not in OF_A_CLUSTER)
    troubles = frozenset(t for t in plain if r.random() < r.choice((0.1, 0.3)))
    subnet, occupied, others = _subnets(r)
    pods = min(r.choice((4, 10, 20, 40)), holds + 3)
    plainly = History(
        seed=seed,
        settings=_settings(r, prefixes=prefixes),
        instance_type=instance_type,
        subnet=subnet,
        occupied=occupied,
        others=others,
        attach_seconds=r.choice(((0.5, 2.0), (1.0, 5.0), (5.0, 20.0))),
        minutes=r.choice((0.0, 0.0, 0.1)),
        lag_seconds=r.choice((0.0, 0.0, 1.0, 8.0)),
        draws=r.random() < 0.3,
        troubles=troubles,
        pods=pods,
        seconds=hours * 3600.0,
        events=tuple(sorted(_events(r, troubles, hours * 3600.0, pods), key=lambda e: e.at)),
        last=random.Random(f"last {seed}").choice((None, None, None, *Last)),
    )
    return _join(_restrain(plainly))


def _settings(r: random.Random, *, prefixes: bool) -> Settings:
    common = Settings(
        cooldown_seconds=r.choice((0, 5, 30, 30, 120)),
        max_eni=r.choice((None, None, None, 2)),
        prefix_delegation=prefixes,
    )
    roll = r.random()
    if roll < 0.4:
        return common
    fixed = replace(common, demand=False)
    if roll < 0.7:
        warm, minimum = r.choice(((1, None), (2, 5), (None, 8), (5, 10), (3, 20)))
        return replace(fixed, warm_ip_target=warm, minimum_ip_target=minimum)
    if prefixes:
        return replace(fixed, warm_prefix_target=r.choice((1, 2)))
    return replace(fixed, warm_eni_target=r.choice((0, 1, 2)))


Others = Mapping[str, tuple[tuple[str, str], ...]]


def _subnets(r: random.Random) -> tuple[str, tuple[IPv4Network, ...], Others]:
    tagged = {"10.0.64.0/22": (("kubernetes.io/role/cni", "1"),)}
    match r.choice(("roomy", "roomy", "roomy", "tight", "fragmented", "two", "tight-and-two")):
        case "tight":
            return "10.0.0.0/27", (), {}
        case "fragmented":
            whole = IPv4Network("10.0.0.0/24")
            return "10.0.0.0/24", tuple(n for i, n in enumerate(whole.subnets(3)) if i % 2), {}
        case "two":
            return "10.0.0.0/24", (), tagged
        case "tight-and-two":
            return "10.0.0.0/28", (), tagged
        case _:
            return "10.0.0.0/20", (), {}


def _events(
    r: random.Random, troubles: frozenset[Trouble], seconds: float, pods: int
) -> list[Event]:
    events = [Event(r.uniform(0, 30), What.BURST, r.random())]
    # A long history has few events an hour, or it would take long.
    pace = 1.0 if seconds <= DAY_SECONDS else 6.0
    for what in r.choices(list(PODS), list(PODS.values()), k=int(seconds / 40 / pace) + pods):
        events += [Event(r.uniform(0, seconds), what, r.random())]
    for trouble in sorted(troubles):
        for _ in range(r.randint(1, 2 + int(seconds / 900 / pace))):
            what = r.choice(EVENTS[trouble])
            lasts = r.choice((5.0, 30.0, 120.0, 400.0)) * r.uniform(0.5, 1.5)
            events.append(Event(r.uniform(0, seconds), what, r.random(), lasts))
    return events


# Modes in which less is asked of EC2 ---------------------------------------------------------
def _restrain(history: History) -> History:
    """Let some nodes be told to leave ENIs alone: those of others, or all."""
    r = random.Random(f"restrain {history.seed}")
    untagged = r.random() > (0.4 if Trouble.FOREIGN in history.troubles else 0.03)
    settings = replace(history.settings, manage_untagged_eni=untagged)
    roll = r.random()
    if roll > SERVES_ONLY:
        return replace(history, settings=settings)
    settings = replace(
        settings,
        imds_only=roll < SERVES_ONLY / 3,
        provisioning=False,
        leaked_eni_cleanup=False,
    )
    return replace(history, settings=settings, given=r.randint(0, 6), last=None)


SERVES_ONLY = 0.08
"""The part of histories in which EC2 is asked for nothing; a third of them may not ask it at all."""


# Nodes that are joined to a cluster ----------------------------------------------------------
CHANCES: Mapping[Trouble, float] = {
    Trouble.SETTINGS: 0.08,
    Trouble.CONFIGS: 0.05,
    Trouble.BOUND: 0.07,
    Trouble.LEADER: 0.05,
    Trouble.API: 0.03,
}

NODE_NAME, CLUSTER_NAME = "node-a", "chaos"

PLACES: Mapping[str, tuple[tuple[str, str], ...]] = {"10.0.72.0/22": (), "10.0.76.0/26": ()}
"""Subnets that only ENIConfigs name."""

GROUP = "sg-0000000000000000a"
"""A security group that is there, beside the primary ENI's."""

NAMES = ("zone-a", "zone-b", "zone-a,zone-b", "zone-b,home", "nowhere,zone-a")
"""How nodes name ENIConfigs; several only in an annotation."""


def _join(history: History) -> History:
    """Let some nodes hear of a cluster."""
    r = random.Random(f"join {history.seed}")
    troubles = frozenset(t for t, chance in CHANCES.items() if r.random() < chance)
    if not troubles:
        return history
    events = [*history.events]
    for trouble in sorted(troubles):
        for _ in range(r.randint(1, 3 + int(history.seconds / 900))):
            lasts = r.choice((5.0, 30.0, 120.0, 400.0)) * r.uniform(0.5, 1.5)
            what = r.choice(EVENTS[trouble])
            events.append(Event(r.uniform(0, history.seconds), what, r.random(), lasts))
    cluster_name = CLUSTER_NAME if Trouble.LEADER in troubles and r.random() < 0.9 else ""
    settings = replace(history.settings, node_name=NODE_NAME, cluster_name=cluster_name)
    joined = replace(
        history,
        settings=settings,
        troubles=history.troubles | troubles,
        events=tuple(sorted(events, key=lambda e: e.at)),
    )
    return _configure(joined, r) if Trouble.CONFIGS in troubles else joined


def _configure(history: History, r: random.Random) -> History:
    """Let ENIConfigs say where new ENIs go."""
    others = {**history.others, **PLACES}
    first, second = (subnet_id(len(history.others) + n) for n in (1, 2))
    configs: dict[str, Mapping[str, object]] = {
        "zone-a": {"subnet": first},
        "zone-b": {"subnet": second, "securityGroups": [GROUP]},
        "home": {"securityGroups": [GROUP]},
    }
    key = r.choice(("annotation", "annotation", "label", ENI_CONFIG_LABEL))
    names = r.choice(NAMES if key == "annotation" else NAMES[:2])
    settings = replace(history.settings, custom_networking=True)
    return replace(history, settings=settings, others=others, configs=configs, named=(key, names))


def subnet_id(number: int) -> str:
    """Return the id that the model gives to the node's subnet (0), and to the others."""
    return f"subnet-{number + 1:017x}"


# Settings as they are written ----------------------------------------------------------------
TEXTS: Mapping[str, Callable[[Settings], object]] = {
    "IP_COOLDOWN_PERIOD": lambda s: s.cooldown_seconds,
    "MAX_ENI": lambda s: s.max_eni,
    "ENABLE_PREFIX_DELEGATION": lambda s: s.prefix_delegation,
    "WARM_ENI_TARGET": lambda s: s.warm_eni_target,
    "WARM_IP_TARGET": lambda s: s.warm_ip_target,
    "MINIMUM_IP_TARGET": lambda s: s.minimum_ip_target,
    "WARM_PREFIX_TARGET": lambda s: s.warm_prefix_target,
    "ENID_SUBNETS": lambda s: ",".join(s.subnets) or None,
    "ENABLE_SUBNET_DISCOVERY": lambda s: s.subnet_discovery,
    "DISABLE_NETWORK_RESOURCE_PROVISIONING": lambda s: not (s.provisioning or s.imds_only),
}
"""What may change while a daemon runs, as it is written; None: put the default back."""

AT_START: Mapping[str, Callable[[Settings], object]] = {
    "ENABLE_IMDS_ONLY_MODE": lambda s: s.imds_only,
    "MANAGE_UNTAGGED_ENI": lambda s: s.manage_untagged_eni,
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": lambda s: s.custom_networking,
    "CLUSTER_NAME": lambda s: s.cluster_name or None,
    "MY_NODE_NAME": lambda s: s.node_name or None,
}
"""What is read at a start only."""


def _written(settings: Settings, texts: Mapping[str, Callable[[Settings], object]]) -> Texts:
    return {
        name: "" if (value := text(settings)) is None else str(value).lower()
        for name, text in texts.items()
    }


Texts = Mapping[str, str]


def environ_of(settings: Settings) -> Texts:
    """Return the environment that says *settings*."""
    return _written(settings, {**TEXTS, **AT_START})


def annotation_of(settings: Settings) -> str:
    """Return the annotation that says what of *settings* may change while a daemon runs."""
    return ",".join(f"{name}={text}" for name, text in _written(settings, TEXTS).items())


INVALID = (
    "WARM_IP_TARGET=many",
    "MAX_ENI=-1",
    "IP_COOLDOWN=3",
    "WARM_IP_TARGET=,MINIMUM_IP_TARGET=,ENABLE_PREFIX_DELEGATION=true,WARM_PREFIX_TARGET=0",
    "IP_COOLDOWN_PERIOD",
)
"""Annotations that cannot be. None that is refused for isolation's sake: that ends a start, too."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody writes into the node's annotation; *settings* None: it cannot be."""

    annotation: str
    settings: Settings | None


def draw_wish(history: History, roll: float) -> Wish:
    """Return what the settings are to be, by *roll*."""
    r = random.Random(f"wish {history.seed} {roll}")
    if r.random() < 0.25:
        return Wish(r.choice(INVALID), None)
    former, drawn = history.settings, _settings(r, prefixes=r.random() < 0.4)
    ids = tuple(subnet_id(number) for number in range(1 + len(history.others)))
    provisions = former.provisioning and r.random() < 0.85
    settings = replace(
        former,
        demand=drawn.demand,
        cooldown_seconds=drawn.cooldown_seconds,
        max_eni=drawn.max_eni,
        prefix_delegation=drawn.prefix_delegation,
        warm_eni_target=drawn.warm_eni_target,
        warm_ip_target=drawn.warm_ip_target,
        minimum_ip_target=drawn.minimum_ip_target,
        warm_prefix_target=drawn.warm_prefix_target,
        subnet_discovery=r.random() < 0.8,
        subnets=r.choice(((), (), ids[:1], ids[1:], ids)),
        provisioning=provisions,
        leaked_eni_cleanup=provisions,
    )
    return wish_for(settings)


def wish_for(settings: Settings) -> Wish:
    """Return the wish for *settings*."""
    return Wish(annotation_of(settings), settings)
