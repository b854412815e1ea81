"""Crash points: short scenarios, and something that goes wrong at each of their moments. Shell.

The node starts, pods come and need two ENIs more, or two prefixes, they go, and what they needed
goes. Between any two steps of the loop the daemon is killed, once; behind every step of the kernel, too; and
every call of EC2 is once not answered, once lost, once refused. Each time a new daemon, or the
same, brings the world to rest, and all laws hold on the way and then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from eni.errors import ThrottledError
from ipamd.plan.cloud import Drop, Fault, Lose, Raise
from ipamd.settings import Settings
from tests.chaos.draw import Event, History, What
from tests.chaos.history import Player, Result
from tests.chaos.many import folder

LIVES_SECONDS = 20.0
"""When the pods go."""
SECONDS = 165.0
"""Until the ENIs have gone."""


class Wrong(StrEnum):
    """What goes wrong, once."""

    KILL = "killed between two steps"
    KERNEL = "killed behind a kernel step"
    LOSE = "done and not answered"
    DROP = "lost on its way"
    THROTTLE = "throttled"


FAULTS: Mapping[Wrong, Fault] = {
    Wrong.LOSE: Lose(),
    Wrong.DROP: Drop(),
    Wrong.THROTTLE: Raise(ThrottledError),
}


@dataclass(frozen=True, slots=True)
class Point:
    """Where it does: the number of a step, a kernel's step, or a call."""

    wrong: Wrong
    number: int
    scenario: str = "enis"

    def __str__(self) -> str:
        return f"{self.scenario}: {self.wrong.value} {self.number}"


ENIS = History(
    seed=0,
    settings=Settings(demand=False, warm_ip_target=1, cooldown_seconds=5),
    instance_type="t3.medium",
    subnet="10.0.0.0/24",
    pods=12,
    seconds=SECONDS,
    events=(
        Event(2.0, What.BURST, 0.95),
        Event(LIVES_SECONDS, What.LEAVE_ALL, 0.0),
    ),
)
PREFIXES = replace(
    ENIS,
    settings=replace(
        ENIS.settings, warm_ip_target=None, warm_prefix_target=1, prefix_delegation=True
    ),
    pods=20,
)
SCENARIOS: Mapping[str, History] = {"enis": ENIS, "prefixes": PREFIXES}


class Cut(Player):
    """A scenario, with a point at which something goes wrong; None: nothing does."""

    def __init__(self, scenario: str, point: Point | None, folder: Path) -> None:
        super().__init__(SCENARIOS[scenario], folder, every=1)
        self.point = point
        self.kernel_steps = self.mutations = 0
        if point is not None and point.wrong is Wrong.KILL:
            self.world.kill_at = point.number
        if point is not None and point.wrong is Wrong.KERNEL:
            self.world.kernel.crash_after = point.number
        self.account_cloud.account.faults = self._fault

    def _fault(self, action: str, _about: str) -> Fault | None:
        if not action.startswith(("Describe", "Get")):
            self.mutations += 1
            if self.point is not None and self.mutations == self.point.number:
                return FAULTS.get(self.point.wrong)
        return None

    def _on_death(self) -> None:
        self.world.later(1.0, self._begin)

    def _peace(self) -> None:
        """Be content with rest: that nothing is asked then, histories show."""


def measure(scenario: str) -> tuple[int, int, int]:
    """Return how many steps, kernel steps and mutations a scenario has."""
    with folder() as path:
        cut = Cut(scenario, None, Path(path))
        counter = _Counter(1 << 40)
        cut.world.kernel.crash_after = counter.start
        with cut.laws.listening():
            cut.live()
        left = cut.world.kernel.crash_after
        assert left is not None
        steps = cut.world.steps_taken
        cut.laws.on_deaths.clear()
        cut.world.kill()
        return steps, counter.start - left, cut.mutations


@dataclass(frozen=True, slots=True)
class _Counter:
    start: int


def points(share: float = 1.0) -> Iterator[Point]:
    """Yield every point, or a share of them, the same each time."""
    chance = random.Random("crash points")
    for scenario in SCENARIOS:
        steps, kernel_steps, mutations = measure(scenario)
        moments = {Wrong.KILL: range(steps), Wrong.KERNEL: range(1, kernel_steps + 1)}
        moments |= dict.fromkeys(FAULTS, range(1, mutations + 1))
        for wrong, numbers in moments.items():
            for number in numbers:
                if chance.random() < share:
                    yield Point(wrong, number, scenario)


def play_point(point: Point) -> tuple[Point, Result]:
    """Live the scenario with something wrong at *point*."""
    with folder() as path:
        return point, Cut(point.scenario, point, Path(path)).play()
