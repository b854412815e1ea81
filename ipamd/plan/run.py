"""Plans of one node: what it holds for so many pods, and how a trace goes. Shell (its loop)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network

from eni.limits import InstanceLimits, max_pods, near_misses, shipped
from eni.model import InstanceId, Kind, SubnetId
from ipamd.budget import AccountLimits
from ipamd.plan.errors import PlanInputError, UnknownTypeError
from ipamd.plan.kubelet import Kubelet
from ipamd.plan.results import Course, Sample, Steady, waits_of
from ipamd.plan.trace import Change
from ipamd.plan.world import Timing, World
from ipamd.settings import Settings

SUBNET = IPv4Network("10.0.0.0/16")
"""Where a node is put if nobody says: large enough to be no limit."""

APART_SECONDS = 10.5
"""Between pods that come one at a time: longer than what counts as coming together
(`ipamd.demand.REFILL_SECONDS`)."""

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 7200.0
"""How long a node may take to settle before what it holds then is what is told."""

WARM_UP_SECONDS = 120.0
"""How long a node is up when its trace begins; what it asked EC2 for until then is not counted."""

TAIL_SECONDS = 60.0
"""What is shown after the last change of a trace, and longer while pods wait."""
TAIL_MOST = 900.0

SAMPLES = 800
"""Moments of a trace that are looked at, beside its changes."""


class Who(StrEnum):
    """Whose rules hold addresses."""

    ENID = "enid"
    PEER = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is planned: a kind of node, its settings, where it is."""

    limits: InstanceLimits
    settings: Settings
    account_limits: AccountLimits
    who: Who = Who.ENID
    subnets: tuple[IPv4Network, ...] = (SUBNET,)
    timing: Timing = field(default_factory=Timing)
    cooldown_seconds: float = 0.0
    max_pods: int | None = None
    """kubelet's, if somebody says it."""
    make_roll: Callable[[], Callable[[], float]] = field(default=lambda: lambda: 0.5)
    """Chance, anew for each run, so that two runs are alike."""
    draw: bool = False
    """Whether EC2 chooses addresses by chance, as it does; else the lowest."""

    @property
    def formula(self) -> tuple[int, int]:
        """EKS' max-pods for the mode, and the cap that it recommends."""
        return max_pods(
            self.limits,
            prefixes=self.settings.prefix_delegation,
            custom_networking=self.settings.custom_networking,
        )

    def world(self) -> World:
        """Return a new world for it."""
        roll = self.make_roll()
        draw = (lambda below: int(roll() * below)) if self.draw else None
        return World(
            self.subnets, timing=self.timing, roll=roll, limits=self.account_limits, draw=draw
        )

    def node(self, world: World, number: int, subnet_id: SubnetId) -> Kubelet:
        """Put a node into *world*; return its kubelet."""
        name = InstanceId(f"i-{number:017x}")
        if self.who is Who.PEER:
            return self._peer(world, name, subnet_id)
        from ipamd.plan.node import PlannedNode  # noqa: PLC0415 - each policy imports its own

        return PlannedNode(
            world,
            name,
            subnet_id,
            self.limits,
            self.settings,
            max_pods=self.max_pods,
            cooldown_seconds=self.cooldown_seconds,
        ).kubelet

    def _peer(self, world: World, name: InstanceId, subnet_id: SubnetId) -> Kubelet:
        from ipamd.plan.peer import PeerNode  # noqa: PLC0415
        from ipamd.plan.peer_rules import PeerTargets  # noqa: PLC0415

        settings = self.settings
        if settings.custom_networking:
            raise PlanInputError(
                "the peer's custom networking is not modelled: leave"
                " AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG out, or --policy peer"
            )
        prefixes = settings.prefix_delegation and self.limits.prefixes_allowed
        targets = PeerTargets(
            kind=Kind.PREFIX if prefixes else Kind.SINGLE,
            warm_eni=1 if settings.warm_eni_target is None else settings.warm_eni_target,
            warm_ip=settings.warm_ip_target or 0,
            minimum_ip=settings.minimum_ip_target or 0,
            warm_prefix=1 if settings.warm_prefix_target is None else settings.warm_prefix_target,
            max_eni=settings.max_eni,
            max_pods=self.max_pods or settings.max_pods or self.formula[0],
        )
        return PeerNode(
            world,
            name,
            subnet_id,
            self.limits,
            targets,
            cooldown_seconds=self.cooldown_seconds,
        ).kubelet


def limits_of(instance_type: str) -> InstanceLimits:
    """Return the limits of a type. Raises UnknownTypeError, naming types that are written alike."""
    found = shipped(instance_type)
    if found is None:
        alike = near_misses(instance_type)
        hint = f"; is {' or '.join(alike)} meant?" if alike else ""
        raise UnknownTypeError(f"no instance type {instance_type!r} is known{hint}")
    return found


# Steady states ---------------------------------------------------------------------------------
def steady(plan: Plan, pods: Sequence[int]) -> tuple[Steady, ...]:
    """Return what a node holds for each number of *pods*, which come one at a time.

    The node settles after each. One node is filled once: what it holds for five pods is what
    it held when the fifth had come.
    """
    found: dict[int, Steady] = {}
    with plan.world() as world:
        kubelet = plan.node(world, 1, world.subnets[0])
        kubelet.policy.start()
        _settle(world, kubelet)
        for number in range(max(pods) + 1):
            if number:
                kubelet.arrive(1)
                _settle(world, kubelet)
            if number in pods:
                found[number] = _steady(plan, world, kubelet)
    return tuple(found[number] for number in pods)


def _settle(world: World, kubelet: Kubelet) -> None:
    """Let time pass until nothing more is to be done."""
    until = world.now + PATIENCE_SECONDS
    world.run_for(APART_SECONDS)
    while world.now < until and not kubelet.policy.is_settled:
        world.run_for(LOOK_SECONDS)


def _steady(plan: Plan, world: World, kubelet: Kubelet) -> Steady:
    formula, recommended = plan.formula
    return Steady(
        instance_type=plan.limits.instance_type,
        pods=kubelet.pods,
        node=kubelet.policy.view(),
        waiting=len(kubelet.waiting),
        max_pods=formula,
        recommended_max_pods=min(formula, recommended),
        ec2_calls=dict(world.log.calls),
    )


# Traces --------------------------------------------------------------------------------------
def follow(plan: Plan, changes: Sequence[Change]) -> Course:
    """Return how *changes* go on one node that has been up for a while."""
    with plan.world() as world:
        kubelet = plan.node(world, 1, world.subnets[0])
        kubelet.policy.start()
        world.run_for(WARM_UP_SECONDS)
        world.log.clear(marks=True)
        start = world.now
        samples = list(_samples(world, kubelet, changes, start))
        return Course(
            policy=plan.who.value,
            samples=tuple(samples),
            waits=waits_of(kubelet.waits),
            unserved=len(kubelet.waiting),
            refused=kubelet.refusals,
            ec2_calls=dict(world.log.calls),
            throttled=dict(world.log.throttled),
            marks=tuple((at - start, action) for at, action in world.log.marks or ()),
        )


def _samples(
    world: World, kubelet: Kubelet, changes: Sequence[Change], start: float
) -> Iterator[Sample]:
    step = max(1.0, changes[-1].at / SAMPLES)
    yield _sample(world, kubelet, start)
    for change in changes:
        yield from _walk(world, kubelet, start, start + change.at, step)
        if change.pods > 0:
            kubelet.arrive(change.pods)
        else:
            kubelet.leave(-change.pods)
        yield _sample(world, kubelet, start)
    last = world.now
    yield from _walk(world, kubelet, start, last + TAIL_SECONDS, min(step, 5.0))
    while kubelet.waiting and world.now < last + TAIL_MOST:
        yield from _walk(world, kubelet, start, world.now + step, step)


def _walk(
    world: World, kubelet: Kubelet, start: float, until: float, step: float
) -> Iterator[Sample]:
    """Yield a sample each *step*, and one at the end."""
    while world.now < until:
        world.loop.run_until(min(world.now + step, until))
        yield _sample(world, kubelet, start)


def _sample(world: World, kubelet: Kubelet, start: float) -> Sample:
    node = kubelet.policy.view()
    return Sample(
        at=world.now - start,
        pods=kubelet.pods,
        waiting=len(kubelet.waiting),
        addresses=node.addresses,
        idle=node.addresses - node.assigned,
        calls=world.log.calls.total(),
    )
