"""Status and settings as a person reads them. Shell (writes to a terminal)."""

from __future__ import annotations

import time

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ipamd.settings_report import SettingReport, SettingsReport
from ipamd.status import EniStatus, Status

BAR_WIDTH = 24
MARKS = (
    ("assigned", "█", "green"),
    ("cooling", "▒", "yellow"),
    ("free", "·", "cyan"),
    ("taken", "x", "magenta"),
)
"""State, character, colour: told apart without colour too."""


def show_status(status: Status, console: Console | None = None) -> None:
    """Print *status*."""
    console = console or Console(highlight=False)
    healthy = status["mode"] == "normal" and not status["trouble"]
    console.print(
        Text.assemble(
            (status["instance_id"], "bold"),
            f"  {status['instance_type']}  {status['primary']}  ",
            (f"mode {' '.join(status['modes'])}", "green" if healthy else "bold red"),
            f"  pool {status['pool']}  {status['waiting']} waiting",
            f"  kubernetes {status['cluster']['link']}",
        )
    )
    if status["cluster"]["sentence"]:
        console.print(Text(f"kubernetes: {status['cluster']['sentence']}", style="yellow"))
    for trouble in status["troubles"] or filter(None, [status["trouble"]]):
        console.print(Text(f"trouble: {trouble}", style="red"))
    console.print(_enis(status))
    if status["leases"]:
        console.print(_leases(status))


def _enis(status: Status) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in ("ENI", "no.", "table", "in use", "cooling", "free", "slots", ""):
        table.add_column(name, justify="right" if name in {"no.", "in use", "free"} else "left")
    for eni in status["enis"]:
        _add_row(
            table,
            eni["id"] + (" (leaving)" if eni["closed"] else ""),
            eni["number"],
            eni["table"],
            eni["assigned"],
            eni["cooling"],
            eni["free"],
            _slots(eni),
            bar(eni),
        )
    for eni_id in status["unmanaged_enis"]:
        _add_row(table, eni_id, "", "", "", "", "", "", "not ours")
    legend = "  ".join(f"{mark} {state}" for state, mark, _ in MARKS)
    table.caption = f"{len(status['enis'])} of {status['max_enis']} ENIs   {legend}"
    table.caption_justify = "left"
    return table


def _add_row(table: Table, *cells: object) -> None:
    """Add a row of plain text: in a cell that is a str, `:100:` of an address is a picture."""
    table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))


def _slots(eni: EniStatus) -> str:
    """Return what fills an ENI's slots, prefixes named as such."""
    prefixes = f" ({eni['prefixes']} x /28)" if eni["prefixes"] else ""
    return f"{eni['singles'] + eni['prefixes']} of {eni['slots']}{prefixes}"


def bar(eni: EniStatus) -> Text:
    """Return an ENI's addresses as one character each, or in proportion when they are many."""
    held = eni["assigned"] + eni["cooling"] + eni["free"] + eni["taken"]
    scale = min(1.0, BAR_WIDTH / max(1, held))
    counts = {
        "assigned": eni["assigned"],
        "cooling": eni["cooling"],
        "free": eni["free"],
        "taken": eni["taken"],
    }
    text = Text()
    for state, mark, colour in MARKS:
        text.append(mark * round(counts[state] * scale), style=colour)
    return text


def _leases(status: Status) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("address", "pod", "ENI", "sandbox", "since"):
        table.add_column(name)
    for lease in status["leases"]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lease["since"]))
        _add_row(
            table,
            lease["address"],
            lease["pod"] + (" (superseded)" if lease["superseded"] else ""),
            lease["eni_id"],
            lease["container_id"][:12],
            since,
        )
    return table


# Settings ------------------------------------------------------------------------------
POOLS = {
    "demand": "as many addresses as the pods on the node need, and some ahead",
    "fixed": "as many as the targets say",
    "as it is": "nothing is provisioned",
}


def show_settings(
    report: SettingsReport, console: Console | None = None, *, everything: bool = False
) -> None:
    """Print *report*; without *everything*, what has no effect here only if somebody set it."""
    console = console or Console(highlight=False)
    if report["complaint"] is not None:
        console.print(Text("the last change was refused, the former settings hold:", "bold red"))
        for line in report["complaint"].splitlines():
            console.print(Text(f"  {line}", "red"))
    console.print(Text.assemble("pool ", (report["pool"], "bold"), f": {POOLS[report['pool']]}"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("setting", "value", "origin", "the peer's", "effect"):
        table.add_column(name, overflow="fold", no_wrap=name == "setting")
    for setting in report["settings"]:
        if everything or setting["is_set"] or setting["fate"].startswith("honoured"):
            _add_row(
                table,
                Text(setting["name"], "bold" if setting["is_set"] else ""),
                setting["value"] or "-",
                setting["where"] or setting["origin"],
                "ours" if setting["peer_default"] is None else setting["peer_default"] or "-",
                _effect(setting),
            )
    console.print(table)
    for warning in report["warnings"]:
        console.print(Text(f"warning: {warning}", "yellow"))


def _effect(setting: SettingReport) -> Text:
    if setting["pending"]:
        return Text(f"at the next start: {setting['pending']}", "yellow")
    if setting["effect"]:
        return Text(f"none: {setting['effect']}", "yellow" if setting["is_set"] else "dim")
    if setting["fate"] == "refused":
        return Text("refused otherwise", "dim")
    return Text("")
