"""What `enid plan` was asked, read and checked, and the answer to it. Shell (reads files).

Everything that a person may have mistyped is found here, before anything runs.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from ipamd import account_limits
from ipamd.budget import AccountLimits
from ipamd.layers import Origin, Resolved, resolve, tried
from ipamd.plan import run
from ipamd.plan.errors import PlanInputError, PlanOutputError, PlanSettingsError
from ipamd.plan.results import Course, Fleet, Steady
from ipamd.plan.run import Plan, Who
from ipamd.plan.trace import Change, read_trace
from ipamd.plan.world import Timing
from ipamd.settings import SettingsError
from ipamd.settings_report import for_type

MOST_PODS = 100_000
MOST_NODES = 100_000
SPREAD = 0.3
"""By what part EC2 is sometimes slower and sometimes faster, where many nodes ask it."""


class Progress(Protocol):
    """Who is told how far it is."""

    def __call__(self, text: str) -> None:
        """Hear it."""

    def done(self) -> None:
        """Hear that it is done."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be planned, for each of *plans*: those of both policies to compare them."""

    plans: tuple[Plan, ...]
    output: str
    pods: tuple[int, ...]
    is_list: bool
    """Whether several numbers of pods were asked for, so that the answer is a list, too."""
    changes: tuple[Change, ...]
    nodes: int
    spread_seconds: float
    plot: Path | None
    limits_name: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it, by policy; one of the three is filled."""

    asked: Asked
    steady: tuple[tuple[Steady, ...], ...] = ()
    courses: tuple[Course, ...] = ()
    fleets: tuple[Fleet, ...] = ()

    def as_data(self) -> object:
        """Return it for JSON; of two policies under their names."""
        found: list[object] = [self._states(states) for states in self.steady]
        found += [
            {"instance_type": plan.limits.instance_type, **course.as_data()}
            for plan, course in zip(self.asked.plans, self.courses, strict=False)
        ]
        found += [
            {
                "instance_type": plan.limits.instance_type,
                **fleet.as_data(),
                "account_limits": self.asked.limits_name,
            }
            for plan, fleet in zip(self.asked.plans, self.fleets, strict=False)
        ]
        if len(found) == 1:
            return found[0]
        return dict(zip([plan.who.value for plan in self.asked.plans], found, strict=True))

    def _states(self, states: Sequence[Steady]) -> object:
        found = [state.as_data() for state in states]
        return found if self.asked.is_list else found[0]


# Reading -----------------------------------------------------------------------------------
def read(arguments: argparse.Namespace, stdin: Callable[[], Sequence[str]]) -> Asked:
    """Return what was asked. Raises PlanError."""
    if arguments.instance_type is None:
        raise PlanInputError("--instance-type is missing: which instances are planned?")
    limits = run.limits_of(arguments.instance_type)
    resolved = for_type(_settings(arguments.set), limits)
    nodes = whole("--nodes", arguments.nodes, 1, MOST_NODES) if arguments.nodes else 0
    seed = whole("--seed", arguments.seed or "1", 0)
    needs_chance = bool(nodes or arguments.trace)
    plan = Plan(
        limits=limits,
        settings=resolved.settings,
        account_limits=_account_limits(arguments.account_limits),
        who=Who(arguments.policy),
        subnets=tuple(_subnet(text) for text in arguments.subnet) or (run.SUBNET,),
        timing=_timing(arguments.attach_seconds, SPREAD if nodes else 0.0),
        cooldown_seconds=_cooldown(arguments.cooldown, resolved),
        max_pods=whole("--max-pods", arguments.max_pods, 1) if arguments.max_pods else None,
        make_roll=lambda: chance(seed),
        draw=needs_chance,
    )
    changes = _changes(arguments.trace, stdin)
    pods, is_list = _pods(arguments.pods, plan, needed=not changes, nodes=nodes)
    return Asked(
        plans=tuple(replace(plan, who=who) for who in Who) if arguments.compare else (plan,),
        output=arguments.output,
        pods=pods,
        is_list=is_list,
        changes=changes,
        nodes=nodes,
        spread_seconds=seconds("--spread", arguments.spread or "60"),
        plot=_plot(arguments.plot, over_time=bool(arguments.trace or nodes)),
        limits_name=arguments.account_limits or "assumed",
        warnings=resolved.warnings,
    )


def whole(option: str, text: str, least: int, most: int = 10**9) -> int:
    """Return the whole number of an option. Raises PlanInputError."""
    try:
        value = int(text)
    except ValueError:
        raise PlanInputError(f"{option} {text!r} is not a whole number") from None
    if not least <= value <= most:
        raise PlanInputError(f"{option} {value} is not between {least} and {most}")
    return value


def seconds(option: str, text: str) -> float:
    """Return the seconds of an option. Raises PlanInputError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 10**7:
        raise PlanInputError(f"{option} {text!r} is not a number of seconds from 0 on")
    return value


def chance(seed: int) -> Callable[[], float]:
    """Return the chance of a seed."""
    return random.Random(seed).random  # noqa: S311 - no secret


def _settings(pieces: Sequence[str]) -> Resolved:
    try:
        return resolve((tried(pieces),))
    except SettingsError as error:
        raise PlanSettingsError(str(error)) from error


def _account_limits(path: str | None) -> AccountLimits:
    if path is None:
        return account_limits.shipped()
    try:
        return account_limits.load(Path(path))
    except account_limits.AccountLimitsError as error:
        raise PlanInputError(str(error)) from error


def _subnet(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise PlanInputError(f"--subnet {text!r} is not an IPv4 CIDR: {error}") from error
    if not 16 <= network.prefixlen <= 28:  # noqa: PLR2004 - EC2's limits
        raise PlanInputError(f"--subnet {text}: a subnet of a VPC is a /16 to a /28")
    return network


def _timing(attach_seconds: str | None, spread: float) -> Timing:
    if attach_seconds is None:
        return Timing(spread=spread)
    return Timing(attach=seconds("--attach-seconds", attach_seconds), spread=spread)


def _cooldown(text: str | None, resolved: Resolved) -> float:
    """Return how long addresses cool: off, unless somebody says so."""
    if text is not None:
        return seconds("--cooldown", text)
    is_set = resolved.chosen["IP_COOLDOWN_PERIOD"].origin is not Origin.DEFAULT
    return float(resolved.settings.cooldown_seconds) if is_set else 0.0


def _changes(path: str | None, stdin: Callable[[], Sequence[str]]) -> tuple[Change, ...]:
    if path is None:
        return ()
    if path == "-":
        return read_trace(stdin(), "stdin")
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanInputError(f"--trace {path} cannot be read: {error}") from error
    return read_trace(lines, path)


def _pods(
    text: str | None, plan: Plan, *, needed: bool, nodes: int
) -> tuple[tuple[int, ...], bool]:
    """Return how many pods, and whether that is a list."""
    if text is None:
        if nodes and needed:
            raise PlanInputError("--nodes needs --pods N for each node, or --trace FILE")
        formula, recommended = plan.formula
        full = min(formula - 2, recommended)  # two of them are on the host's own address
        return ((0, full // 2, full), True) if needed else ((), False)
    if not needed:
        raise PlanInputError("--pods and --trace both say which pods come: give one of them")
    parts = text.split(",")
    if nodes and len(parts) > 1:
        raise PlanInputError(f"--pods {text}: a fleet takes one number for each node")
    return tuple(whole("--pods", part.strip(), 0, MOST_PODS) for part in parts), len(parts) > 1


def _plot(path: str | None, *, over_time: bool) -> Path | None:
    if path is None:
        return None
    if not over_time:
        raise PlanInputError("--plot draws what --trace FILE or --nodes N do over time: give one")
    if Path(path).suffix.lower() != ".svg":
        raise PlanOutputError(f"--plot {path}: pictures are SVG; name a file that ends in .svg")
    folder = Path(path).parent
    if not folder.is_dir():
        raise PlanOutputError(f"--plot {path} cannot be written: {folder} is not a directory")
    return Path(path)


# Answering ---------------------------------------------------------------------------------
def answer(asked: Asked, progress: Progress | None = None) -> Answer:
    """Return the answer. Raises PlanError."""
    if asked.plot is not None:
        from ipamd.plan import plot  # noqa: PLC0415 - a library of many megabytes

        plot.check(asked.plot)
    if asked.nodes:
        found = Answer(asked, fleets=_fleets(asked, progress))
    elif asked.changes:
        found = Answer(asked, courses=tuple(run.follow(p, asked.changes) for p in asked.plans))
    else:
        found = Answer(asked, steady=tuple(run.steady(p, asked.pods) for p in asked.plans))
    if asked.plot is not None:
        from ipamd.plan import plot  # noqa: PLC0415

        plot.draw(found, asked.plot)
    return found


def _fleets(asked: Asked, progress: Progress | None) -> tuple[Fleet, ...]:
    from ipamd.plan import fleet  # noqa: PLC0415 - one node is what is asked mostly

    load = fleet.Load(
        nodes=asked.nodes,
        pods=asked.pods[0] if asked.pods else 0,
        changes=asked.changes,
        spread_seconds=asked.spread_seconds,
    )
    found = []
    for plan in asked.plans:

        def tell(how: fleet.Progress, who: str = plan.who.value) -> None:
            if progress is not None:
                progress(
                    f"{who}: {how.at:,.0f} s: {how.ready_nodes:,} of {asked.nodes:,} nodes are up,"
                    f" {how.served:,} pods have an address"
                )

        found.append(fleet.bring_up(plan, load, tell))
    if progress is not None:
        progress.done()
    return tuple(found)
