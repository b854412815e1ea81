"""A running lab as a person reads it. Shell (writes to a terminal)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

RIGHT = frozenset({"ENIs", "IPs", "calls", "ok", "mean ms", "max ms"})

FOLDS = frozenset({"type", "IPs", "otherwise"})
"""Columns that a narrow terminal folds; ids and addresses stay whole, as they are to be copied."""


def show(seen: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what a running lab says of itself."""
    console = console or Console(highlight=False)
    cidrs = " ".join(seen["cidrs"])
    console.print(
        Text.assemble((seen["vpc_id"], "bold"), f"  {seen['region']}  {cidrs}  {seen['endpoint']}")
    )
    console.print(_nodes(seen["nodes"]))
    if seen["calls"]:
        console.print(_calls(seen["calls"]))
    for line in seen["faults"]:
        console.print(Text(f"fault: {line}", style="yellow"))
    for line, count in seen["denials"].items():
        times = f" ({count} times)" if count > 1 else ""
        console.print(Text(f"denied: {line}{times}", style="yellow"))
    drops = [f"{count} {cause}" for cause, count in seen["drops"].items() if count]
    if drops:
        console.print(Text(f"dropped: {', '.join(drops)}", style="red"))


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in RIGHT else "left",
            no_wrap=name not in FOLDS,
            overflow="fold",
        )
    return table


def _nodes(nodes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(("node", "instance", "type", "addresses", "ENIs", "IPs"))
    for node in nodes:
        prefixes = f" +{node['prefixes']} prefixes" if node["prefixes"] else ""
        _add_row(
            table, node["name"], node["instance_id"], node["instance_type"], _addresses(node),
            node["enis"], f"{node['addresses']}{prefixes}",
        )  # fmt: skip
    return table


def _add_row(table: Table, *cells: object) -> None:
    """Add a row of plain text: in a cell that is a str, `:100:` of an address is a picture."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))


def _addresses(node: Mapping[str, Any]) -> str:
    """Return private and public address, the IPv6 one below: eighty columns hold no more."""
    first = "  ".join(filter(None, (node["primary"], node["public"])))
    return "\n".join(filter(None, (first, node["ipv6"])))


def _calls(calls: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(("EC2 action", "calls", "ok", "otherwise", "mean ms", "max ms"))
    for call in calls:
        outcomes = dict(call["outcomes"])
        done = outcomes.pop("ok", 0)
        other = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        _add_row(
            table, call["action"], call["calls"], done, Text(other, style="yellow"),
            call["mean_ms"], call["longest_ms"],
        )  # fmt: skip
    return table
