"""A picture of a trace: pods, addresses held, idle and waiting over time, calls as marks. Shell.

The only importer of matplotlib, and only when somebody asks for a picture. The text stays text
in the SVG, the background stays clear, and colours are chosen to be read on white and on black.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipamd.plan.errors import PlanOutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ipamd.plan.asked import Answer
    from ipamd.plan.results import Course, Sample

GREY = "#8a8f98"
GREEN, AMBER, RED, BLUE = "#3fa66b", "#d9a441", "#e05561", "#4d8fd1"
NAMES = {"enid": "enid", "peer": "AWS VPC CNI"}

LANES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("new ENI", ("CreateNetworkInterface", "AttachNetworkInterface"), BLUE),
    ("assign", ("AssignPrivateIpAddresses",), GREEN),
    ("give back", ("UnassignPrivateIpAddresses", "DetachNetworkInterface"), AMBER),
    ("ask", ("DescribeNetworkInterfaces", "DescribeSubnets", "DescribeInstances"), GREY),
)
"""Which calls are marked in which lane: what a person wants to tell apart."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "enid plan",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GREY,
    "grid.alpha": 0.18,
    "legend.frameon": False,
}


def check(path: Path) -> None:
    """Raise PlanOutputError if no picture can be drawn to *path*, before anything is computed."""
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - only whether it is there
    except ImportError as error:
        raise PlanOutputError(
            "--plot needs matplotlib, which is not installed: pip install 'enid[plot]'"
        ) from error
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise PlanOutputError(f"--plot {path} cannot be written: {error.strerror}") from error


def draw(answer: Answer, path: Path) -> None:
    """Draw the courses of *answer*, one beside the other, and write them to *path*."""
    import matplotlib as mpl  # noqa: PLC0415 - a library of many megabytes
    from matplotlib.figure import Figure  # noqa: PLC0415

    courses = answer.courses or tuple(fleet.as_course() for fleet in answer.fleets)
    plan = answer.asked.plans[0]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4 * len(courses) + 1.2, 5.2), layout="constrained")
        figure.suptitle(_title(answer), x=0.01, ha="left", fontsize=12, fontweight="bold")
        _draw_all(figure, courses)
        figure.savefig(
            path,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Title": f"enid plan, {plan.limits.instance_type}"},
        )


def _title(answer: Answer) -> str:
    plan = answer.asked.plans[0]
    settings = plan.settings
    kind = "prefixes" if settings.prefix_delegation else "single addresses"
    fleet = f"{answer.asked.nodes:,} nodes of " if answer.asked.nodes else ""
    return f"{fleet}{plan.limits.instance_type}, {kind}"


def _draw_all(figure: Figure, courses: Sequence[Course]) -> None:
    ratios = (4, 1) if any(course.marks for course in courses) else (1,)  # a fleet has no marks
    grid = figure.subplots(
        len(ratios), len(courses), sharex=True, sharey="row", squeeze=False, height_ratios=ratios
    )
    unit, name = _unit(max(course.seconds for course in courses))
    for column, course in enumerate(courses):
        _draw_pods(grid[0][column], course, unit)
        if len(ratios) > 1:
            _draw_calls(grid[1][column], course, unit)
        grid[-1][column].set_xlabel(name)
    grid[0][0].set_ylim(0, 1.06 * max(_top(course) for course in courses))
    grid[0][0].set_ylabel("addresses")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))


def _top(course: Course) -> int:
    """Return the most of anything that is drawn."""
    return max(1, *(max(s.addresses, s.pods) for s in course.samples))


def _unit(seconds: float) -> tuple[float, str]:
    """Return what one unit of the time axis is, in seconds, and its name."""
    if seconds > 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds > 300 else (1.0, "seconds")  # noqa: PLR2004 - five minutes


def _draw_pods(axes: Axes, course: Course, unit: float) -> None:
    samples = tuple(_corners(course.samples))
    times = [sample.at / unit for sample in samples]
    held = [sample.addresses for sample in samples]
    used = [sample.addresses - sample.idle for sample in samples]
    waiting = [used + sample.waiting for used, sample in zip(used, samples, strict=True)]
    axes.fill_between(times, 0, used, step="post", color=GREEN, alpha=0.55, lw=0, label="pods")
    axes.fill_between(times, used, held, step="post", color=AMBER, alpha=0.4, lw=0, label="idle")
    axes.step(times, held, where="post", color=AMBER, lw=1.2, label="held")
    axes.fill_between(
        times, used, waiting, step="post", color=RED, alpha=0.85, lw=0, label="waiting"
    )
    axes.grid(visible=True, axis="y")
    axes.set_title(
        f"{NAMES[course.policy]}: {sum(course.ec2_calls.values()):,} calls, "
        f"{course.mean_idle:.1f} idle on average, longest wait {course.waits.longest:.1f} s",
        loc="left",
        fontsize=10,
    )


def _corners(samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the samples at which anything changes, and the last."""
    former: tuple[int, ...] | None = None
    for sample in samples:
        now = (sample.pods, sample.waiting, sample.addresses, sample.idle)
        if now != former or sample is samples[-1]:
            yield sample
        former = now


def _draw_calls(axes: Axes, course: Course, unit: float) -> None:
    for row, (_, actions, colour) in enumerate(reversed(LANES)):
        times = [at / unit for at, action in course.marks if action in actions]
        axes.vlines(times, row + 0.12, row + 0.88, color=colour, lw=1.1, alpha=0.9)
    axes.set_yticks([row + 0.5 for row in range(len(LANES))], [lane[0] for lane in reversed(LANES)])
    axes.set_ylim(0, len(LANES))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
