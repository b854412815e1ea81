"""What came of checks, for programs: JUnit's XML and JSON. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from xml.etree import ElementTree as ET

from vpclab.checks.outcome import Outcome, State

SUITE = "enid verify"
UNSAYABLE = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""All but the Char of XML 1.0, section 2.2; carriage returns are normalised by whoever reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Where and when checks were made."""

    version: str
    cluster: str
    """The API server's address."""

    nodes: tuple[str, ...]
    image: str
    began: str
    """When, as ISO 8601 has it."""

    seconds: float


def is_ok(outcomes: Sequence[Outcome]) -> bool:
    """Return whether something was proved, and nothing failed."""
    states = {one.state for one in outcomes}
    return State.OK in states and State.FAILED not in states


def as_json(outcomes: Sequence[Outcome], about: About) -> str:
    """Return the report as JSON."""
    counts = {state.lower(): _count(outcomes, state) for state in State}
    checks = [{**asdict(one), "state": one.state.lower()} for one in outcomes]
    told = {**asdict(about), "passed": is_ok(outcomes), "counts": counts, "checks": checks}
    return json.dumps(told, indent=2)


def as_junit(outcomes: Sequence[Outcome], about: About) -> str:
    """Return the report as JUnit's XML, of which CI systems make their pages."""
    suite = ET.Element("testsuite", {
        "name": SUITE,
        "tests": str(len(outcomes)),
        "failures": str(_count(outcomes, State.FAILED)),
        "skipped": str(_count(outcomes, State.SKIPPED)),
        "errors": "0",
        "time": f"{about.seconds:.3f}",
        "timestamp": about.began,
    })  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for name in ("version", "cluster", "image"):
        _property(properties, name, getattr(about, name))
    _property(properties, "nodes", ", ".join(about.nodes))
    for one in outcomes:
        _add_case(suite, one)
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode")


def _property(properties: ET.Element, name: str, value: str) -> None:
    ET.SubElement(properties, "property", {"name": name, "value": printable(value)})


def _add_case(suite: ET.Element, one: Outcome) -> None:
    case = ET.SubElement(suite, "testcase", {
        "classname": f"enid.verify.{one.topic}", "name": one.name, "time": f"{one.seconds:.3f}",
    })  # fmt: skip
    said = printable(one.said)
    if one.state is State.FAILED:
        ET.SubElement(case, "failure", {"message": said}).text = one.proves
    elif one.state is State.SKIPPED:
        ET.SubElement(case, "skipped", {"message": said})
    else:
        ET.SubElement(case, "system-out").text = f"{one.proves}: {said}"


def printable(text: str) -> str:
    """Return a text without what XML has no way to say."""
    return UNSAYABLE.sub("", text)


def _count(outcomes: Sequence[Outcome], state: State) -> int:
    return sum(one.state is state for one in outcomes)
