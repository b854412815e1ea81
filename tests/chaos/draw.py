"""What is drawn from a seed: a node, its settings and subnets, and what happens when. Shell.

`draw` makes a `History`, a value. Which kinds of trouble a history knows is drawn first, so that
many histories have few kinds and go deep in them. `tests.chaos.history` lives it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Network

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
}

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
    troubles = frozenset(t for t in Trouble if r.random() < r.choice((0.1, 0.3)))
    subnet, occupied, others = _subnets(r)
    pods = min(r.choice((4, 10, 20, 40)), holds + 3)
    return History(
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
