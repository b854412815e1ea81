"""`python -m tests.chaos`: histories, sabotages and crash points on the command line. Shell."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import TypeVar

from tests.chaos import crash, many
from tests.chaos.draw import draw
from tests.chaos.history import Player, Result
from tests.chaos.law import Law
from tests.chaos.sabotage import Sabotages
from tests.chaos.world import Trace

T = TypeVar("T")

QUIET_SECONDS = 5.0
"""What takes longer shows how far it is, so often."""

DAY_HOURS = 24.0


def main() -> int:
    """Do what was asked; return 1 if a law was broken, a sabotage not noticed, a law idle."""
    wishes = _parser().parse_args()
    logging.basicConfig(level=logging.CRITICAL + 1)
    if wishes.sabotage:
        return _sabotages(wishes.sabotage)
    if wishes.seed is not None:
        return _one(wishes.seed, _hours(wishes), verbose=wishes.verbose)
    broken = _many(wishes.first, wishes.seeds, _hours(wishes), wishes.jobs)
    return broken if wishes.no_points else _points(wishes.points, wishes.jobs) or broken


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many histories (100)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, help="one history, with the end of its trace")
    parser.add_argument("--hours", type=float, default=1.0, help="of simulated time each (1)")
    parser.add_argument("--days", type=float, help="the same in days: 7 is a week")
    parser.add_argument("--points", type=float, default=1.0, help="share of the crash points (1)")
    parser.add_argument("--no-points", action="store_true", help="no crash points")
    parser.add_argument("--sabotage", help="the name of a sabotage of our code, or all")
    parser.add_argument("--jobs", type=int, help="processes (as many as cores)")
    parser.add_argument("-v", "--verbose", action="store_true", help="the whole trace")
    return parser


def _hours(wishes: argparse.Namespace) -> float:
    return float(wishes.hours if wishes.days is None else wishes.days * DAY_HOURS)


def _progress(things: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield *things*, and say how many there were once it takes long."""
    began = said = time.perf_counter()
    for number, thing in enumerate(things, 1):
        yield thing
        now = time.perf_counter()
        if now - said > QUIET_SECONDS:
            said = now
            pace = number / (now - began)
            left = f"{pace:.1f} a second, {(total - number) / pace:.0f} s left"
            print(f"{what}: {number} of {total}, {left}", file=sys.stderr, flush=True)


def _many(first: int, seeds: int, hours: float, jobs: int | None) -> int:
    began = time.perf_counter()
    wishes = [(seed, hours) for seed in range(first, first + seeds)]
    results = []
    for result in _progress(many.spread(many.play_one, wishes, jobs), seeds, "histories"):
        results.append(result)
        if result.broken is not None:  # said at once: whoever waits for the rest can replay it
            _tell_broken(result, hours)
    seconds = time.perf_counter() - began
    broken = [r for r in results if r.broken is not None]
    rows = {
        "histories": f"{seeds} (seeds {first} to {first + seeds - 1})",
        "simulated": f"{sum(r.simulated_seconds for r in results) / 86400:.1f} days",
        "steps": f"{sum(r.steps for r in results):,}",
        "daemons started": f"{sum(r.lives for r in results):,}",
        "pods": f"{sum(r.pods for r in results):,}",
        "ec2 calls": f"{sum(r.calls for r in results):,}",
        "violations": str(len(broken)),
        "histories a second": f"{seeds / seconds:.1f}",
        "hash of the traces": many.digest(results)[:32],
    }
    for name, value in rows.items():
        print(f"{name:20} {value}")
    return 1 if broken else 0


def _tell_broken(result: Result, hours: float) -> None:
    for line in result.tail[-40:]:
        print(f"    {line}")
    print(f"seed {result.seed}: {result.broken}")
    print(f"replay it: make chaos SEED={result.seed}{_length(hours)}\n", flush=True)


def _length(hours: float) -> str:
    """Return how `make chaos` is told of so many hours, to the last digit: they move each event."""
    if hours == 1.0:
        return ""
    is_days = hours % DAY_HOURS == 0
    return f" DAYS={hours / DAY_HOURS:.0f}" if is_days else f' ARGS="--hours {hours!r}"'


def _one(seed: int, hours: float, *, verbose: bool) -> int:
    history = draw(seed, hours)
    print(history)
    print(f"{history.settings}")
    began, busy = time.perf_counter(), time.process_time()
    with many.folder() as path:
        player = Player(history, Path(path))
        if verbose:
            player.world.trace = Trace(print)
        result = player.play()
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    if result.broken is not None and not verbose:
        _tell_broken(result, hours)
    days = result.simulated_seconds / 86400
    took = f"{seconds:.1f} s ({busy:.1f} s of a core)"
    print(f"{days:.2f} days simulated in {took}, {result.steps:,} steps, hash {result.hash}")
    print(f"violations: {result.broken or 0}")
    return 1 if result.broken else 0


def _points(share: float, jobs: int | None) -> int:
    began = time.perf_counter()
    points = list(crash.points(share))
    played = list(
        _progress(many.spread(crash.play_point, points, jobs), len(points), "crash points")
    )
    seconds = time.perf_counter() - began
    broken = sorted(((p, r) for p, r in played if r.broken), key=lambda found: str(found[0]))
    for point, result in broken[:5]:
        for line in result.tail[-40:]:
            print(f"    {line}")
        print(f"{point}: {result.broken}\n")
    kinds = Counter(point.wrong for point, _ in played)
    bad = Counter(point.wrong for point, _ in broken)
    print(f"\n{'the daemon is / a call is':32} points  violations")
    for wrong in crash.Wrong:
        print(f"{wrong.value:32} {kinds[wrong]:6}  {bad[wrong]:6}")
    print(f"{'all':32} {len(played):6}  {len(broken):6}   in {seconds:.0f} s")
    return 1 if broken else 0


def _sabotages(name: str) -> int:
    names = sorted(Sabotages.all) if name == "all" else [name]
    if names[0] not in Sabotages.all:
        print(f"{name} is none of: {', '.join(sorted(Sabotages.all))}", file=sys.stderr)
        return 2
    caught = list(_progress(many.spread(many.catch, names), len(names), "sabotages"))
    print(f"{'sabotage of our code':26} {'seed':>4} {'tries':>5} {'s':>5}  the law that noticed")
    for catch in sorted(caught, key=lambda c: c.name):
        law = catch.law or "NOT NOTICED"
        print(f"{catch.name:26} {catch.seed:4} {catch.histories:5} {catch.seconds:5.1f}  {law}")
    missed = [catch.name for catch in caught if not catch.law]
    print(f"{len(caught)} sabotages, {len(caught) - len(missed)} noticed")
    asleep = idle({catch.law for catch in caught}) if name == "all" else []
    for law in asleep:
        print(f"no sabotage was noticed by: {law.value}")
    return 1 if missed or asleep else 0


def idle(noticed: Set[str]) -> list[Law]:
    """Return the laws by which no sabotage was *noticed*: that they can fail is not shown."""
    return [law for law in Law if law.value not in noticed]


if __name__ == "__main__":
    sys.exit(main())
