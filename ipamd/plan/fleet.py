"""A fleet in one account: many nodes that start together, or follow a trace. Shell (its loop)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ipamd.plan.kubelet import Kubelet
from ipamd.plan.results import ActionUse, Fleet, Sample, SubnetUse, waits_of
from ipamd.plan.run import Plan
from ipamd.plan.trace import Change
from ipamd.plan.world import World

SPREAD_SECONDS = 60.0
"""Over how long a fleet's nodes start: instances of one scale-up come within a minute or so."""

STEP_SECONDS = 5.0
PATIENCE_SECONDS = 3600.0
"""After this long a fleet whose pods still wait is told of as it is."""

AFTER_SECONDS = 300.0
"""How long after the last pod's address idle ones are counted: pools have settled by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What comes to each node: *pods* when it is ready, and *changes* from then on."""

    nodes: int
    pods: int = 0
    changes: tuple[Change, ...] = ()
    spread_seconds: float = SPREAD_SECONDS

    @property
    def seconds(self) -> float:
        """How long it goes on at least."""
        return self.spread_seconds + (self.changes[-1].at if self.changes else 0.0)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fleet is."""

    at: float
    ready_nodes: int
    served: int


def bring_up(
    plan: Plan, load: Load, on_progress: Callable[[Progress], None] = lambda _: None
) -> Fleet:
    """Return how a fleet gets its pods' addresses.

    Each node knows how many share the account, unless the settings say otherwise.
    """
    if plan.settings.nodes is None:
        plan = replace(plan, settings=replace(plan.settings, nodes=load.nodes))
    with plan.world() as world:
        kubelets = _launch(plan, world, load)
        samples = tuple(_run(world, kubelets, load, on_progress))
        return _fleet(plan, world, kubelets, samples)


def _launch(plan: Plan, world: World, load: Load) -> list[Kubelet]:
    kubelets = []
    for number in range(load.nodes):
        subnet_id = world.subnets[number % len(world.subnets)]
        kubelet = plan.node(world, number + 1, subnet_id)
        start = load.spread_seconds * world.roll()
        kubelet.on_ready = _comer(world, kubelet, load, start)
        world.loop.call_at(start, kubelet.policy.start)
        kubelets.append(kubelet)
    return kubelets


def _comer(world: World, kubelet: Kubelet, load: Load, start: float) -> Callable[[], None]:
    """Return what lets a node's pods come once it is ready; they wait for it from its start."""

    def come() -> None:
        if load.pods:
            kubelet.arrive(load.pods, since=start)
        for change in load.changes:
            act = kubelet.arrive if change.pods > 0 else kubelet.leave
            world.loop.call_later(change.at, act, abs(change.pods))

    return come


def _run(
    world: World, kubelets: Sequence[Kubelet], load: Load, on_progress: Callable[[Progress], None]
) -> Iterator[Sample]:
    end = load.seconds + PATIENCE_SECONDS
    while True:
        yield (sample := _sample(world, kubelets))
        ready = sum(kubelet.ready_at is not None for kubelet in kubelets)
        on_progress(Progress(world.now, ready, sample.pods - sample.waiting))
        is_done = world.now >= load.seconds and ready == len(kubelets) and not sample.waiting
        if is_done or world.now >= end:
            break
        world.run_for(STEP_SECONDS)
    world.run_for(AFTER_SECONDS)
    yield _sample(world, kubelets)


def _sample(world: World, kubelets: Sequence[Kubelet]) -> Sample:
    pods = sum(kubelet.pods for kubelet in kubelets)
    waiting = sum(len(kubelet.waiting) for kubelet in kubelets)
    addresses = sum(kubelet.policy.held for kubelet in kubelets)
    return Sample(
        at=world.now,
        pods=pods,
        waiting=waiting,
        addresses=addresses,
        idle=addresses - (pods - waiting),
        calls=world.log.calls.total(),
    )


def _fleet(
    plan: Plan, world: World, kubelets: Sequence[Kubelet], samples: tuple[Sample, ...]
) -> Fleet:
    last = samples[-1]
    firsts = [k.first_served_at for k in kubelets if k.first_served_at is not None]
    is_whole = not last.waiting and all(k.ready_at is not None for k in kubelets)
    return Fleet(
        policy=plan.who.value,
        nodes=len(kubelets),
        pods=last.pods,
        assigned=last.pods - last.waiting,
        ready_nodes=sum(k.ready_at is not None for k in kubelets),
        nodes_ready_seconds=max(firsts) if len(firsts) == len(kubelets) else None,
        pods_ready_seconds=max(k.last_served_at for k in kubelets) if is_whole else None,
        waits=waits_of([wait for kubelet in kubelets for wait in kubelet.waits]),
        refused=sum(kubelet.refusals for kubelet in kubelets),
        addresses=last.addresses,
        idle=last.idle,
        actions=tuple(_actions(plan, world)),
        subnets=tuple(_subnets(plan, world)),
        seconds=world.now,
        samples=samples,
    )


def _actions(plan: Plan, world: World) -> Iterator[ActionUse]:
    for action, calls in sorted(world.log.calls.items()):
        limit = plan.account_limits.of(action)
        yield ActionUse(
            action=action,
            calls=calls,
            peak=world.log.peak(action),
            throttled=world.log.throttled[action],
            rate=limit.rate,
            burst=limit.burst,
        )


def _subnets(plan: Plan, world: World) -> Iterator[SubnetUse]:
    for cidr, subnet_id in zip(plan.subnets, world.subnets, strict=True):
        census = world.account.census(subnet_id)
        yield SubnetUse(
            cidr=str(cidr),
            size=census.size,
            free=census.free,
            blocks=census.blocks,
            fragmentation=census.fragmentation,
        )
