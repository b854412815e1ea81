"""Many histories on all cores, and sabotages each on as many as it takes. Shell.

Each history is a task of its own in a process that has played only a few: a killed daemon's
coroutines stay until the process ends (ipamd/plan/loop.py, `abandon`).
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.chaos.draw import draw
from tests.chaos.history import Player, Result
from tests.chaos.sabotage import SEEDS, Sabotages

T = TypeVar("T")
U = TypeVar("U")

TASKS_PER_PROCESS = 40


def folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder, in memory where there is such a place: the disk is not what is tested."""
    shm = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    return tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None)


def play_one(wish: tuple[int, float]) -> Result:
    """Live one history."""
    seed, hours = wish
    with folder() as path:
        return Player(draw(seed, hours), Path(path)).play()


def spread(
    work: Callable[[T], U],
    wishes: Iterable[T],
    jobs: int | None = None,
    *,
    per_process: int = TASKS_PER_PROCESS,
) -> Iterator[U]:
    """Yield what *work* makes of each wish, as it comes, from *jobs* processes, or all cores."""
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs or os.cpu_count(), maxtasksperchild=per_process) as pool:
        yield from pool.imap_unordered(work, wishes)


def digest(results: Iterable[Result]) -> str:
    """Return one hash of all traces."""
    whole = hashlib.sha256()
    for result in sorted(results, key=lambda r: r.seed):
        whole.update(result.hash.encode())
    return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Catch:
    """How a sabotage fared: which law caught it, in which history; no *law*: none did."""

    name: str
    law: str = ""
    sentence: str = ""
    seed: int = 0
    histories: int = 0
    seconds: float = 0.0


def catch(name: str) -> Catch:
    """Play histories under a sabotage until a law is broken."""
    sabotage = Sabotages.all[name]
    began = time.perf_counter()
    played = 0
    for seed in range(1_000_000):
        history = draw(seed)
        if not sabotage.fits(history):
            continue
        played += 1
        with folder() as path, sabotage.at_work():
            broken = Player(history, Path(path)).play().broken
        seconds = time.perf_counter() - began
        if broken is not None:
            return Catch(name, broken.law.value, str(broken), seed, played, seconds)
        if played >= SEEDS:
            break
    return Catch(name, histories=played, seconds=time.perf_counter() - began)
