"""The pods of a modelled node, and the kubelet that asks for their addresses. Shell (its loop).

A pod that is refused is tried again by kubelet's back-off; until it has an address it waits,
whoever keeps it waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ipamd.plan.results import NodeView
from ipamd.plan.world import World

RETRY_SECONDS = 10.0
"""kubelet's `backOffPeriod`: when a pod whose sandbox failed is tried again."""

RETRY_JITTER = 0.5
"""By what part kubelet makes that longer (`workerBackOffPeriodJitterFactor`)."""


class Policy(Protocol):
    """Who gives a node's pods their addresses: our engine, or the peer's rules.

    It answers every `add` by `Kubelet.served` or `Kubelet.refused`, then or later.
    """

    kubelet: Kubelet

    def start(self) -> None:
        """Begin to work; the kubelet is told when pods may come (`Kubelet.ready`)."""

    def add(self, pod: int) -> None:
        """Give *pod* an address."""

    def remove(self, pod: int, *, has_address: bool) -> None:
        """Take the address of *pod* back, or its place in the queue."""

    def told(self, pods: int) -> None:
        """Learn how many pods the scheduler has bound to this node."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to be done until pods come or go."""

    @property
    def held(self) -> int:
        """How many addresses for pods are held."""

    def view(self) -> NodeView:
        """Return what is held, by ENI."""


@dataclass(slots=True)
class Kubelet:
    """The pods of one node: those that have an address, and those that wait since when."""

    world: World
    policy: Policy = field(init=False)
    waits: list[float] = field(default_factory=list)
    """How long each pod waited that has, or had, an address."""
    refusals: int = 0
    running: list[int] = field(default_factory=list)
    waiting: dict[int, float] = field(default_factory=dict)
    on_ready: Callable[[], None] = lambda: None
    ready_at: float | None = None
    """When the node's daemon first could answer an ADD."""
    first_served_at: float | None = None
    last_served_at: float = 0.0
    _count: int = 0

    @property
    def pods(self) -> int:
        """All pods that are bound to this node."""
        return len(self.running) + len(self.waiting)

    def arrive(self, number: int, since: float | None = None) -> None:
        """Let so many pods come, at once; they have been waiting *since* then, or now."""
        new = range(self._count, self._count + number)
        self._count += number
        self.waiting.update(dict.fromkeys(new, self.world.now if since is None else since))
        self.policy.told(self.pods)
        for pod in new:
            self.policy.add(pod)

    def leave(self, number: int) -> int:
        """Let so many pods go, those without an address first, then by chance; return how many."""
        gone = [*self.waiting][:number]
        for pod in gone:
            del self.waiting[pod]
            self.policy.remove(pod, has_address=False)
        for _ in range(min(number - len(gone), len(self.running))):
            place = int(self.world.roll() * len(self.running))
            pod, self.running[place] = self.running[place], self.running[-1]
            self.running.pop()
            gone.append(pod)
            self.policy.remove(pod, has_address=True)
        self.policy.told(self.pods)
        return len(gone)

    def ready(self) -> None:
        """Learn that the node's daemon answers."""
        if self.ready_at is None:
            self.ready_at = self.world.now
            self.on_ready()

    def served(self, pod: int) -> None:
        """Learn that *pod* has an address."""
        self.last_served_at = self.world.now
        if self.first_served_at is None:
            self.first_served_at = self.world.now
        self.waits.append(self.world.now - self.waiting.pop(pod))
        self.running.append(pod)

    def refused(self, pod: int) -> None:
        """Try *pod* again later."""
        self.refusals += 1
        seconds = RETRY_SECONDS * (1 + RETRY_JITTER * self.world.roll())
        self.world.loop.call_later(seconds, self._retry, pod)

    def _retry(self, pod: int) -> None:
        if pod in self.waiting:
            self.policy.add(pod)
