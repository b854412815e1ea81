"""docs/checks.md: every check, what it proves, and what a failure means. Shell."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from itertools import groupby

from vpclab.checks.network import NETWORK


def render_checks() -> Iterator[str]:
    """Yield the lines of the page."""
    quick = sum(not check.thorough for check in NETWORK)
    yield "# What `enid verify` checks"
    yield ""
    yield f"{len(NETWORK)} checks, in this order, behind `pods-start`, that pods start at all; with"
    yield f"`--quick` {quick} of them. How to call it, and what it needs, are in"
    yield "[verify](verify.md). This page is made from the code by"
    yield "`python -m tests.tools.references`."
    seen: set[str] = set()
    for topic, group in groupby(NETWORK, lambda check: check.topic):
        yield ""
        title = subject(topic)
        yield f"## {title}{', afterwards' if topic in seen else ''}"
        seen.add(topic)
        yield ""
        yield "| check | proves that | when it fails |"
        yield "| --- | --- | --- |"
        for check in group:
            name = f"`{check.name}`" + (" (thorough)" if check.thorough else "")
            yield f"| {name} | {check.proves} | {check.means} |"


def subject(topic: str) -> str:
    """Return what a group of checks is about, as its module says."""
    doc = import_module(f"vpclab.checks.{topic}").__doc__ or topic
    return doc.partition("\n")[0].removesuffix(" Shell.").rstrip(".").partition(":")[0]
