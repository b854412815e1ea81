"""A world for one replay: what a history does by chance, done on purpose. Shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eni.model import Eni
from ipamd.settings import Settings
from tests.chaos.draw import History
from tests.chaos.history import Player
from tests.chaos.kubelet import End
from tests.chaos.world import Call

PLAIN = History(
    seed=0,
    settings=Settings(),
    instance_type="m5.large",
    subnet="10.0.0.0/20",
    attach_seconds=(2.0, 2.0),
    pods=200,
)


class Stage(Player):
    """A node on which things happen when a replay says so."""

    def __init__(self, folder: Path, history: History) -> None:
        super().__init__(history, folder, every=5)
        self.laws.watch.is_strict = False
        self.refusals: list[Mapping[str, Any]] = []
        """Answers of ADDs that failed."""
        self.laws.on_answers.append(self._on_answer)

    def _on_answer(self, call: Call, code: int, answer: Mapping[str, Any]) -> None:
        if code and call.verb == "ADD":
            self.refusals.append(answer)

    def _on_death(self) -> None:
        """Leave the daemon dead until the replay starts another."""

    # Time and lives ---------------------------------------------------------------------
    def run(self, seconds: float) -> None:
        """Let time pass under all laws."""
        self.world.run(seconds)
        self.laws.look()
        self.laws.check()

    def run_until(self, holds: Callable[[], bool], seconds: float = 300.0) -> None:
        """Let time pass until something holds, which it must before so many seconds are over."""
        until = self.world.now + seconds
        while not holds():
            must(self.world.now < until, f"{seconds:.0f} s were not enough")
            self.run(1.0)

    def start(self, seconds: float = 20.0) -> None:
        """Start a daemon."""
        self._begin()
        self.run(seconds)

    def restart(self, seconds: float = 20.0) -> None:
        """Kill the daemon and start another."""
        self.world.kill()
        self.start(seconds)

    def rest(self) -> None:
        """Let all faults stop, and demand all laws of a world at rest."""
        self._rest()

    # Pods ---------------------------------------------------------------------------------
    def pods(self, number: int, seconds: float = 20.0) -> None:
        """Let so many come at once."""
        for _ in range(number):
            self._names += 1
            self.kubelet.want(f"p{self._names}")
        self.run(seconds)

    def go(self, number: int, seconds: float = 1.0, end: End = End.DEL) -> None:
        """Let the oldest go."""
        for name in list(self.kubelet.sandboxes)[:number]:
            self.kubelet.unwant(name, end)
        self.run(seconds)

    @property
    def waits(self) -> float:
        """How long the slowest ADD of the living waited."""
        return max((pod.waited or 0.0 for pod in self.world.living), default=0.0)

    # What there is ------------------------------------------------------------------------
    @property
    def secondary(self) -> tuple[Eni, ...]:
        """The ENIs beside the primary, the last one last."""
        attached = self.world.cloud.attached()
        return tuple(eni for eni in attached if eni.attachment and eni.attachment.device_index)

    @property
    def held(self) -> int:
        """Addresses that EC2 has given to the node for pods."""
        blocks = (block for eni in self.world.cloud.attached() for block in eni.blocks)
        return sum(block.num_addresses for block in blocks)


class UnmetError(Exception):
    """What a replay must show does not hold."""


def must(holds: object, sentence: str) -> None:
    """Demand something that is no law of every world."""
    if not holds:
        raise UnmetError(sentence)


def fixed(**targets: object) -> History:
    """Return a plain node with a fixed target."""
    return replace(PLAIN, settings=Settings(demand=False, **targets))  # type: ignore[arg-type]  # settings' own names
