"""A runtime as the daemon meets it: wants pods, gives up sandboxes, tries again. Shell.

One pod is wanted by its name; each try is a sandbox `name.n` of its own. What fails is taken
down by a DEL, and tried again with a new sandbox, as kubelet does.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.world import Call, World


class End(StrEnum):
    """How a sandbox goes."""

    DEL = "del"
    WITHOUT_NETNS = "del-without-netns"
    TWICE = "del-twice"
    VANISH = "vanish"
    """No DEL: the namespace just goes."""


class Kubelet:
    """What runs the pods of one node."""

    def __init__(self, world: World, seed: int | str) -> None:
        self._world, self._random = world, random.Random(seed)
        self.sandboxes: dict[str, str | None] = {}
        """Wanted pods, and the sandbox of each; None between two tries."""
        self._tries: dict[str, int] = {}

    def want(self, name: str) -> None:
        """Run a pod from now on."""
        self.sandboxes[name] = None
        self._try(name)

    def _try(self, name: str) -> None:
        if self.sandboxes.get(name, "gone") is not None:
            return
        number = self._tries[name] = self._tries.get(name, 0) + 1
        sandbox = self.sandboxes[name] = f"{name}.{number}"
        self._world.add(sandbox)

    def unwant(self, name: str, end: End = End.DEL) -> None:
        """Run a pod no longer."""
        sandbox = self.sandboxes.pop(name)
        if sandbox in self._world.pods:
            self._end(sandbox, end)

    def _end(self, sandbox: str, end: End = End.DEL) -> None:
        world = self._world
        match end:
            case End.VANISH:
                world.vanish(sandbox)
            case End.TWICE:
                world.delete(sandbox)
                if sandbox in world.pods:
                    world.delete(sandbox)
            case _:
                world.delete(sandbox, with_netns=end is not End.WITHOUT_NETNS)

    def replace(self, name: str, end: End = End.DEL) -> None:
        """Give a pod a new sandbox."""
        self.unwant(name, end)
        self.want(name)

    def time_out(self, call: Call) -> None:
        """Lose patience with a call: hang up, and take its sandbox down."""
        if call in self._world.pending and not call.pod.is_deleted:
            call.hang_up()
            self._failed(call.pod.name)

    def ask_again(self, name: str) -> None:
        """Send the ADD of a sandbox once more."""
        sandbox = self.sandboxes.get(name)
        pod = self._world.pods.get(sandbox or "")
        if pod is not None and not pod.is_deleted:
            self._world.add(pod.name)

    def on_answer(self, call: Call, code: int, _answer: Mapping[str, Any]) -> None:
        """React to an answer."""
        if not code:
            return
        if call.verb == "DEL":
            if call.pod.name in self._world.pods:
                self._world.later(self._random.uniform(1, 5), lambda: self._again(call.pod.name))
        elif not call.pod.is_deleted and call.pod.address is None:
            self._failed(call.pod.name)

    def _again(self, sandbox: str) -> None:
        if sandbox in self._world.pods:
            self._world.delete(sandbox)

    def _failed(self, sandbox: str) -> None:
        for call in [c for c in self._world.pending if c.pod.name == sandbox]:
            call.hang_up()
        self._world.later(0.05, lambda: self._again(sandbox))
        self._retry(sandbox.rpartition(".")[0], sandbox)

    def _retry(self, name: str, sandbox: str) -> None:
        if self.sandboxes.get(name) == sandbox:
            self.sandboxes[name] = None
            self._world.later(self._random.uniform(1, 20), lambda: self._try(name))

    def on_rebooted(self) -> None:
        """Start every pod anew."""
        for name in self.sandboxes:
            self.sandboxes[name] = None
            self._world.later(self._random.uniform(5, 30), lambda name=name: self._try(name))  # type: ignore[misc]
