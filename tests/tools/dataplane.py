"""The output in `docs/dataplane.md`, taken from a node of the lab. Shell.

python -m vpclab.box python -m tests.tools.dataplane          # writes the page's blocks anew

A block begins with a prompt and a command, `node$ ip rule`; below it is what that prints there: on
the node, in a pod, or with the daemon's rights. The node is the one of the data plane's tests.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.lab.flows.town import PORT, Flow, Town
from tests.lab.flows.tracked import tracked
from vpclab.enid import RIGHTS

PAGE = Path(__file__).parents[2] / "docs" / "dataplane.md"

BLOCK = re.compile(
    r"^```console\n(?P<place>\w+)\$ (?P<command>.+)\n(?P<output>(?:.*\n)*?)```$", re.MULTILINE
)
VERSIONS = re.compile(r"^Taken with (.+?)\.$", re.MULTILINE)

VARYING = (
    (r"counter packets \d+ bytes \d+", "counter packets 0 bytes 0"),
    (r"\beni-[0-9a-f]{17}\b", "eni-0123456789abcdef0"),
    (r"^\d+: (\w+)@\w+:", r"\1:"),
    (r"^\d+: (\w+):", r"\1:"),
    (r" link-netns(?:id)? \S+", ""),
    (r"[ \t]+$", ""),
)
"""What is another in each run, and what stands for it: ids of EC2, indexes, counters."""

Run = Callable[[str, str], str]
"""Returns what a command prints at a place."""


def settled(text: str) -> str:
    """Return *text* without what is another in each run."""
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text.strip("\n") + "\n"


def rewritten(page: str, run: Run) -> str:
    """Return *page* with each block's output taken anew."""

    def block(found: re.Match[str]) -> str:
        place, command = found["place"], found["command"]
        return f"```console\n{place}$ {command}\n{settled(run(place, command))}```"

    return BLOCK.sub(block, page)


def versions() -> str:
    """Return which programs print here; others print the same in other words."""
    words = []
    for argv in (["nft", "--version"], ["ip", "-V"]):
        printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        found = re.search(r"(nftables v[\d.]+|iproute2-[\d.]+)", printed)
        words.append(found[1] if found else printed.strip())
    return " and ".join(words)


def runner(town: Town) -> Run:
    """Return what runs commands in *town*."""

    def run(place: str, command: str) -> str:
        argv = ["sh", "-c", command]
        if command.startswith("# "):
            return connections(town)
        if place in town.wired:
            return town.wired[place][1].run(argv).stdout
        return town.node.run(argv, rights=RIGHTS if place == "ipamd" else None).stdout

    return run


def connections(town: Town) -> str:
    """Return what conntrack knows of three connections, one of each kind, in a line each."""
    town.forget_flows()
    names = {str(address): name for name, address in town.addresses.items() if name != "node"}
    shown = (
        Flow("podS", "internet", PORT, "internet", "public"),
        Flow("podS", "remote", PORT, "remote", "podS"),
        Flow("client", "eth2", 30008, "podT", "client"),
    )
    lines = []
    for flow in shown:
        assert town.try_flow(flow) == "", flow
    for found in sorted(tracked(town.node), key=lambda f: str(f.reply.source)):
        ends = (found.original.source, found.original.to, found.reply.source, found.reply.to)
        a, b, c, d = (f"{names.get(str(end), '?')} {end}" for end in ends)
        lines.append(f"{a} -> {b}, answered by {c} to {d}, mark {found.mark:#x}")
    return "\n".join(lines)


def main() -> None:
    """Write the page's blocks anew."""
    from vpclab.vpc import EmbeddedVPC  # noqa: PLC0415 - moto takes a second to import

    with EmbeddedVPC() as vpc, contextlib.ExitStack() as stack:
        town = Town(vpc, stack)
        town.proxy("nft")
        page = VERSIONS.sub(f"Taken with {versions()}.", PAGE.read_text())
        PAGE.write_text(rewritten(page, runner(town)))


if __name__ == "__main__":
    main()
