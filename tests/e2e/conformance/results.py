"""What upstream's tests came to, and which of them are left out here, with the reason. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from xml.etree.ElementTree import Element

AREA = "[sig-network]"
CONFORMANCE = "[Conformance]"
ALONE = r"\[Serial\]|\[Disruptive\]"
"""Tests that may not run beside others, in upstream's own marks."""

CASE = "[It] "
"""How a test's name begins in a report, where it is no step before or after all."""


class State(StrEnum):
    """What came of a test."""

    PASSED = "passed"
    FAILED = "FAILED"
    SKIPPED = "skipped"
    """It has looked at the cluster and found that it has nothing to do there, in its own words."""
    LEFT_OUT = "left out"
    """We did not run it: see the rule."""
    LOST = "not run"
    """Nobody left it out, and no run took it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Tests that are left out: what their names have, and why."""

    pattern: str
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """One test, by its whole name."""

    name: str
    state: State
    seconds: float = 0.0
    said: str = ""

    @property
    def is_conformance(self) -> bool:
        """Whether a cluster has to pass it to be called Kubernetes."""
        return CONFORMANCE in self.name


RULES: Sequence[Rule] = (
    Rule(r"NetworkPolicy between server and client", "enid enforces no network policies"),
    Rule(r"\[Feature:IPv6DualStack\]|\[Feature:Networking-IPv6\]", "the cluster is of IPv4 alone"),
    Rule(r"\[Feature:LoadBalancer\]", "no controller makes load balancers in the lab"),
    Rule(
        r"\[Feature:Networking-DNS\]|DNS configMap nameserver Forward PTR lookup",
        "the lab's VPC resolves no names of the internet",
    ),
    Rule(r"\[Feature:SCTPConnectivity\]", "the kernel that it was last run on has no SCTP"),
    Rule(r"\[Feature:PerformanceDNS\]", "it makes more Services than two cores bear"),
    Rule(r"\[Feature:OffByDefault\]", "it is of a feature that this Kubernetes has off by default"),
)


def cases(suite: Element) -> Iterator[Case]:
    """Yield the area's tests that a report (JUnit's XML) has; those it did not choose are skipped."""
    for one in suite.iter("testcase"):
        name = one.get("name", "").removeprefix(CASE)
        if name.startswith(AREA):
            yield _case(name, one)


def _case(name: str, one: Element) -> Case:
    seconds = float(one.get("time", "0"))
    skipped = one.find("skipped")
    if skipped is not None:
        words = skipped.get("message", "").removeprefix("skipped").removeprefix(" - ")
        return Case(name, State.SKIPPED, seconds, words)
    bad = next(
        (found for kind in ("failure", "error") if (found := one.find(kind)) is not None), None
    )
    if bad is None:
        return Case(name, State.PASSED, seconds)
    return Case(name, State.FAILED, seconds, (bad.get("message") or bad.text or "").strip())


def rule_of(name: str, rules: Iterable[Rule]) -> Rule | None:
    """Return why a test is left out, None if it is not."""
    return next((rule for rule in rules if re.search(rule.pattern, name)), None)


def merged(reports: Iterable[Iterable[Case]], rules: Sequence[Rule]) -> list[Case]:
    """Return each test once: what came of it in the run that chose it, or why no run did.

    A report has all tests; one without a word of why it was skipped was not chosen.
    """
    came: dict[str, Case] = {}
    for report in reports:
        for case in report:
            chosen = case.state is not State.SKIPPED or bool(case.said)
            if chosen or case.name not in came:
                came[case.name] = case if chosen else _unchosen(case.name, rules)
    return sorted(came.values(), key=lambda case: case.name)


def _unchosen(name: str, rules: Sequence[Rule]) -> Case:
    rule = rule_of(name, rules)
    return Case(name, State.LOST) if rule is None else Case(name, State.LEFT_OUT, said=rule.reason)


def counts(found: Iterable[Case]) -> Mapping[State, int]:
    """Return how many came to what."""
    states = [case.state for case in found]
    return {state: states.count(state) for state in State}


def sentence(found: Iterable[Case]) -> str:
    """Return the counts in words."""
    told = [f"{number} {state}" for state, number in counts(found).items() if number]
    return ", ".join(told) or "no test"


def reasons(found: Iterable[Case]) -> Mapping[str, int]:
    """Return why tests did not run, and how many each reason kept away; the most frequent first."""
    said = [case.said for case in found if case.state in {State.SKIPPED, State.LEFT_OUT}]
    return {
        reason: said.count(reason) for reason in sorted(set(said), key=said.count, reverse=True)
    }
