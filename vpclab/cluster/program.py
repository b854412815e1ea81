"""A long-running program on a node, with a log of its own. Shell."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vpclab.node import Node
from vpclab.running import LabError
from vpclab.runtime import SEARCH

LOOK_SECONDS = 0.05
LAST = 2000
"""How much of a log is told of a program that has ended: some twenty lines."""


class ClusterError(LabError):
    """The cluster, or a part of it, did not come up: its text says which, and what it said last."""

    id = "LAB-CLUSTER"


class Program:
    """One program; *argv* begins with its path."""

    def __init__(self, node: Node, argv: Sequence[str]) -> None:
        self.node, self.argv = node, [str(word) for word in argv]
        self.name = Path(self.argv[0]).name
        self.log = node.path(f"/var/log/{self.name}.log")
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Start it as a service manager does, with nothing of our environment."""
        with self.log.open("ab") as log:
            self._process = self.node.popen(
                ["env", "-i", f"PATH={SEARCH}", "HOME=/root", *self.argv],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-LAST:] if self.log.exists() else ""

    def kill(self) -> None:
        """End it at once, as a lost machine does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, seconds: float = 30) -> None:
        """End it as a service manager does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def check(self) -> None:
        """Raise ClusterError if it has ended by itself."""
        if not self.is_running:
            raise ClusterError(
                f"{self.name} on {self.node.name} has ended; it said:\n{self.said()}"
            )


def own_folder(node: Node, path: str) -> Path:
    """Make a folder of the node's own, also where it would see the machine's; return it."""
    folder = node.path(path)
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wait_for(question: Callable[[], object], what: str, seconds: float, *programs: Program) -> None:
    """Wait until *question* is answered with something true, as long as *programs* run.

    Raises ClusterError.
    """
    end = time.monotonic() + seconds
    while not question():
        for program in programs:
            program.check()
        if time.monotonic() > end:
            said = "".join(f"\n{program.name}: {program.said()}" for program in programs)
            raise ClusterError(f"{what} did not come within {seconds:g} s{said}")
        time.sleep(LOOK_SECONDS)
