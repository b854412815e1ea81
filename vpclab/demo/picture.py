"""The picture: an outcome as a person enjoys it. Shell (writes to a terminal).

Colour never says anything alone: every cell and mark has a character of its own.
"""

from __future__ import annotations

import io
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from vpclab.demo.ledger import EniView, Latency, NodeView, Outcome, PodView, Proof
from vpclab.demo.sabotage import Sabotage

CODES = string.ascii_uppercase + string.ascii_lowercase
"""A pod's column in the matrix."""

WIDTH = 110
BAR_WIDTH = 30
CELLS = {
    (True, True): ("●", "green"),
    (True, False): ("t", "yellow"),
    (False, True): ("p", "yellow"),
    (False, False): ("✗", "bold red"),
}
"""What TCP and ping did, as one character."""

LEGEND = (
    "● TCP and ping, seen with its own address   t TCP only   p ping only   ✗ neither   · itself"
)
SLOTS = (("assigned", "█", "green"), ("cooling", "▒", "yellow"), ("free", "·", "cyan"))


def draw(outcome: Outcome) -> RenderableType:
    """Return the whole picture."""
    codes = dict(zip(outcome.connectivity.get("tcp", {}), CODES, strict=False))
    return Group(
        tree(outcome, codes),
        Text(),
        heading("Who reaches whom"),
        Padding(matrix(outcome, codes), (0, 0, 1, 2)),
        Columns([calls(outcome.ec2_calls), latencies(outcome.milliseconds)], padding=(0, 6)),
        Text(),
        heading("Proofs"),
        Padding(proofs(outcome.proofs), (0, 0, 0, 2)),
    )


def heading(text: str) -> Text:
    """Return a section's title."""
    return Text(text, style="bold")


# The VPC -------------------------------------------------------------------------------
def tree(outcome: Outcome, codes: Mapping[str, str]) -> Tree:
    """Return the VPC: subnets, nodes, ENIs, pods."""
    root = Tree(Text.assemble(("VPC ", "bold"), outcome.vpc), guide_style="dim")
    root.add(Text(f"internet   {outcome.internet}"))
    for node in outcome.nodes:
        branch = root.add(Text.assemble((node.subnet, "bold"), "  ", node.zone, style="")).add(
            _node(node)
        )
        for eni in node.enis:
            pods = [pod for pod in outcome.pods if pod.eni_id == eni.id]
            leaf = branch.add(_eni(eni))
            if pods:
                leaf.add(_pods(pods, codes))
    return root


def _node(node: NodeView) -> Text:
    return Text.assemble(
        (node.name, "bold"), f"  {node.instance_type}  {node.instance_id}  ",
        f"{node.primary}  public {node.public}",
    )  # fmt: skip


def _eni(eni: EniView) -> Text:
    text = Text(f"ENI {eni.number}  {eni.id}  ")
    for state, mark, colour in SLOTS:
        text.append(mark * getattr(eni, state), style=colour)
    numbers = [f"{eni.assigned} in use", f"{eni.free} free"]
    if eni.cooling:
        numbers.insert(1, f"{eni.cooling} cooling")
    return text.append("  " + ", ".join(numbers))


def _pods(pods: Sequence[PodView], codes: Mapping[str, str]) -> Columns:
    cells = [
        Text.assemble((codes.get(p.name, " "), "bold cyan"), f" {p.name} ", (p.address, "dim"))
        for p in pods
    ]
    return Columns(cells, width=26, padding=(0, 1))


# The matrix ----------------------------------------------------------------------------
def matrix(outcome: Outcome, codes: Mapping[str, str]) -> RenderableType:
    """Return who reached whom, a row for each source, a column for each target."""
    tcp, ping = outcome.connectivity.get("tcp", {}), outcome.connectivity.get("ping", {})
    where = {pod.name: pod.node for pod in outcome.pods}
    width = max((len(name) for name in tcp), default=0)
    head = "".join(gap + codes[name] for name, gap in _columns(codes, where))
    lines = [Text(" " * (width + 3) + head, style="bold cyan")]
    for source in tcp:
        line = Text.assemble((codes.get(source, " "), "bold cyan"), f" {source:{width}} ")
        for target, gap in _columns(codes, where):
            line.append(gap)
            line.append(*cell(source, target, tcp, ping))
        lines.append(line)
    lines.append(Text(LEGEND, style="dim"))
    return Group(*lines)


def _columns(codes: Mapping[str, str], where: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each target with the gap before it; a wider one between nodes."""
    before: str | None = None
    for name in codes:
        node = where.get(name, before)  # a pod that was deleted is with its neighbours
        yield name, "   " if before is not None and node != before else " "
        before = node


def cell(
    source: str,
    target: str,
    tcp: Mapping[str, Mapping[str, str]],
    ping: Mapping[str, Mapping[str, str]],
) -> tuple[str, str]:
    """Return one cell's character and style."""
    if source == target:
        return "·", "dim"
    by_tcp = tcp.get(source, {}).get(target) == "ok"
    by_ping = ping.get(source, {}).get(target) == "ok"
    return CELLS[by_tcp, by_ping]


# Numbers -------------------------------------------------------------------------------
def bar(value: float, largest: float, width: int = BAR_WIDTH) -> str:
    """Return *value* as a bar, in eighths of a character."""
    eighths = round(8 * width * value / largest) if largest else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def calls(counted: Mapping[str, int]) -> Table:
    """Return EC2's calls, by action."""
    table = Table(
        box=None, pad_edge=False, title="EC2 calls", title_justify="left", title_style="bold"
    )
    table.add_column()
    table.add_column(justify="right")
    for action, number in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(f"  {action}", str(number))
    return table


def latencies(milliseconds: Mapping[str, Sequence[float]]) -> Table:
    """Return what ADD and DEL took, as a runtime sees it."""
    table = Table(
        box=None, pad_edge=False, title="Exec of the plugin, ms", title_justify="left",
        title_style="bold",
    )  # fmt: skip
    for name in ("", "median", "p90", "max"):
        table.add_column(name, justify="right" if name else "left", header_style="dim")
    table.add_column()
    found = {verb: Latency.of(ms) for verb, ms in milliseconds.items() if ms}
    largest = max((one.p90 for one in found.values()), default=0.0)
    for verb, one in found.items():
        for row, value in (("median", one.median), ("p90", one.p90)):
            numbers = (f"{one.median:.1f}", f"{one.p90:.1f}", f"{one.max:,.0f}")
            first = row == "median"
            table.add_row(
                f"  {one.count} {verb}" if first else "", *(numbers if first else ("", "", "")),
                Text(f"{bar(value, largest, 20)} {row}", style="cyan" if first else "dim"),
            )  # fmt: skip
    return table


# Proofs --------------------------------------------------------------------------------
def proofs(settled: Sequence[Proof]) -> Table:
    """Return the proofs, each with what was measured."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column()
    for proof in settled:
        mark, style = ("✓", "green") if proof.ok else ("✗", "bold red")
        words = Text(proof.claim, style="" if proof.ok else "bold red")
        words.append(f"\n{proof.detail}", style="dim" if proof.ok else "red")
        table.add_row(Text(mark, style=style), Text(proof.name, style=style), words)
    return table


# Print ---------------------------------------------------------------------------------
def save(outcome: Outcome, svg: str) -> None:
    """Write the picture to a file. Raises OSError."""
    canvas = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    canvas.print(draw(outcome))
    text = canvas.export_svg(title="enid lab demo")
    # rich names web fonts; a picture in a README must fetch nothing from anywhere.
    text = re.sub(r"@font-face \{.*?\}", "", text, flags=re.DOTALL)
    Path(svg).write_text(text, encoding="utf-8")


def print_sabotage(table_of: Sequence[Sabotage], console: Console | None = None) -> None:
    """Print what can be broken."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "what is broken", "should be caught by"):
        table.add_column(name, overflow="fold")
    for one in table_of:
        table.add_row(one.name, one.breaks, ", ".join(one.caught_by))
    console = console or Console(highlight=False)
    console.print(table)
