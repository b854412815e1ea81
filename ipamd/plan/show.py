"""A plan as a person reads it. Shell (writes to a terminal)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ipamd.plan.asked import Answer
from ipamd.plan.results import Course, Fleet, Sample, Steady, SubnetUse

ROWS = 24
"""Moments of a trace that a table shows."""

BAR_WIDTH = 28
NAMES = {"enid": "enid", "peer": "AWS VPC CNI"}


def show(answer: Answer, console: Console | None = None) -> None:
    """Print *answer*."""
    console = console or Console(highlight=False)
    _head(answer, console)
    if answer.steady:
        _show_steady(answer, console)
    elif answer.courses:
        _show_courses(answer, console)
    else:
        _show_fleets(answer, console)


def _head(answer: Answer, console: Console) -> None:
    plan = answer.asked.plans[0]
    limits, (formula, recommended) = plan.limits, plan.formula
    console.print(
        Text.assemble(
            (limits.instance_type, "bold"),
            f": {limits.enis} ENIs of {limits.ipv4_per_eni - 1} slots for pods,"
            f" {limits.vcpus} vCPUs; max-pods {formula:,} by EKS' formula,"
            f" {min(formula, recommended):,} recommended",
        )
    )
    if not answer.steady:
        timing = plan.timing
        console.print(
            Text(
                f"assumed: an answer of EC2 takes {timing.question:g} s to a question and"
                f" {timing.mutation:g} s to a change, a link is there {timing.attach:g} s after its"
                f" attach",
                "dim",
            )
        )
    console.print()


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


def _bar(part: int, whole: int, width: int, style: str, rest: str = "·") -> Text:
    filled = round(width * part / whole) if whole else 0
    return Text.assemble(("█" * filled, style), (rest * (width - filled), "dim"))


# Steady states -----------------------------------------------------------------------------
def _show_steady(answer: Answer, console: Console) -> None:
    for plan, states in zip(answer.asked.plans, answer.steady, strict=True):
        if len(answer.steady) > 1:
            console.print(Text(NAMES[plan.who.value], "bold"))
        table = _table("pods", "waiting", "ENIs", "addresses", "/28s", "free", "EC2 calls", left=0)
        table.add_column("by ENI")
        most = max(state.node.addresses for state in states)
        for state in states:
            waiting = Text(str(state.waiting), "bold red" if state.waiting else "dim")
            node = state.node
            table.add_row(
                str(state.pods),
                waiting,
                str(len(node.enis)),
                str(node.addresses),
                str(node.prefixes),
                str(node.free),
                str(sum(state.ec2_calls.values())),
                _enis(state, most),
            )
        console.print(table)
        _calls([states[-1].ec2_calls], [f"calls until {states[-1].pods} pods were there"], console)


def _enis(state: Steady, most: int) -> Text:
    """Return each ENI as a bar of what pods have of it."""
    parts: list[Text] = []
    for eni in state.node.enis:
        width = max(1, round(BAR_WIDTH * eni.addresses / most)) if eni.addresses else 0
        parts.append(_bar(eni.assigned, eni.addresses, width, "green"))
        parts.append(Text(f" {eni.assigned}/{eni.addresses}  ", "dim"))
    return Text.assemble(*parts)


def _calls(calls: Sequence[Mapping[str, int]], titles: Sequence[str], console: Console) -> None:
    table = _table("EC2 action", *titles)
    for action in sorted(set().union(*calls)):
        table.add_row(action, *(f"{each.get(action, 0):,}" for each in calls))
    table.add_row(Text("all", "bold"), *(Text(f"{sum(e.values()):,}", "bold") for e in calls))
    console.print(table)


# Traces ------------------------------------------------------------------------------------
def _show_courses(answer: Answer, console: Console) -> None:
    for course in answer.courses:
        if len(answer.courses) > 1:
            console.print(Text(NAMES[course.policy], "bold"))
        table = _table("time", "pods", "waiting", "held", "idle", "calls", left=0)
        table.add_column("held: pods █, idle ░")
        samples = course.thinned(ROWS)
        most = max(sample.addresses for sample in samples)
        for before, sample in zip((samples[0], *samples), samples, strict=False):
            table.add_row(
                _clock(sample.at),
                str(sample.pods),
                Text(str(sample.waiting), "bold red" if sample.waiting else "dim"),
                str(sample.addresses),
                str(sample.idle),
                str(sample.calls - before.calls),
                _held(sample, most),
            )
        console.print(table)
    _summary(answer.courses, console)
    _calls([c.ec2_calls for c in answer.courses], _titles(answer.courses, "calls"), console)


def _held(sample: Sample, most: int) -> Text:
    used = sample.addresses - sample.idle
    width = round(BAR_WIDTH * sample.addresses / most) if most else 0
    return _bar(used, sample.addresses, width, "green", "░")


def _titles(courses: Iterable[Course], alone: str) -> list[str]:
    titles = [NAMES[course.policy] for course in courses]
    return titles if len(titles) > 1 else [alone]


COURSE_ROWS: tuple[tuple[str, Callable[[Course], str]], ...] = (
    ("wait for an address, median", lambda c: f"{c.waits.median:.2f} s"),
    ("99 of 100", lambda c: f"{c.waits.p99:.2f} s"),
    ("longest", lambda c: f"{c.waits.longest:.2f} s"),
    ("ADDs refused, kubelet came again", lambda c: f"{c.refused:,}"),
    ("pods without an address at the end", lambda c: f"{c.unserved:,}"),
    ("idle addresses, mean", lambda c: f"{c.mean_idle:.1f}"),
    ("idle addresses, most", lambda c: f"{c.most_idle:,}"),
)


def _summary(courses: Sequence[Course], console: Console) -> None:
    table = _table("", *_titles(courses, ""))
    for title, pick in COURSE_ROWS:
        table.add_row(title, *(pick(course) for course in courses))
    console.print(table)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:d}:{minutes:02d}:{rest:02d}"


# Fleets ------------------------------------------------------------------------------------
FLEET_ROWS: tuple[tuple[str, Callable[[Fleet], str]], ...] = (
    ("nodes that are ready", lambda f: f"{f.ready_nodes:,} of {f.nodes:,}"),
    ("pods with an address", lambda f: f"{f.assigned:,} of {f.pods:,}"),
    ("every node serves pods after", lambda f: _when(f.nodes_ready_seconds)),
    ("every pod has an address after", lambda f: _when(f.pods_ready_seconds)),
    ("a pod after its node's start, median", lambda f: f"{f.waits.median:,.1f} s"),
    ("99 of 100", lambda f: f"{f.waits.p99:,.1f} s"),
    ("longest", lambda f: f"{f.waits.longest:,.1f} s"),
    ("ADDs refused, kubelet came again", lambda f: f"{f.refused:,}"),
    ("addresses held", lambda f: f"{f.addresses:,}"),
    ("of them idle", lambda f: f"{f.idle:,}"),
    ("EC2 calls", lambda f: f"{f.calls:,}"),
    ("of them throttled", lambda f: f"{f.throttles:,}"),
)


def _show_fleets(answer: Answer, console: Console) -> None:
    fleets = answer.fleets
    table = _table("", *(NAMES[fleet.policy] for fleet in fleets))
    for title, pick in FLEET_ROWS:
        table.add_row(title, *(pick(fleet) for fleet in fleets))
    console.print(table)
    for fleet in fleets:
        _show_actions(fleet, answer.asked.limits_name, console)
        _show_subnets(fleet.subnets, console)


def _when(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:,.0f} s"


def _show_actions(fleet: Fleet, limits_name: str, console: Console) -> None:
    console.print(Text(f"{NAMES[fleet.policy]}, against the account's limits ({limits_name})"))
    table = _table("EC2 action", "calls", "peak/s", "burst", "rate/s", "throttled")
    for use in fleet.actions:
        is_over = use.throttled > 0
        table.add_row(
            use.action,
            f"{use.calls:,}",
            f"{use.peak:,}",
            "-" if use.burst is None else f"{use.burst:g}",
            "-" if use.rate is None else f"{use.rate:g}",
            Text(f"{use.throttled:,}", "bold red" if is_over else "dim"),
        )
    console.print(table)


def _show_subnets(subnets: Sequence[SubnetUse], console: Console) -> None:
    table = _table("subnet", "addresses", "free", "free /28s", "free, but in no /28")
    for subnet in subnets:
        table.add_row(
            subnet.cidr,
            f"{subnet.size:,}",
            Text(f"{subnet.free:,}", "bold red" if not subnet.free else ""),
            Text(f"{subnet.blocks:,}", "bold red" if not subnet.blocks else ""),
            f"{subnet.fragmentation:.0%}",
        )
    console.print(table)
