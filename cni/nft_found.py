"""The nft tables as the kernel shows them, beside the text they were made from. Pure.

The kernel lists a table in other words than it was written in, so texts cannot be compared.
What can: the hash that the first rule carries as its comment, how many rules each chain has,
where the base chains hang, and a sum of what each rule does, beside that of the time when the
table was written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cni.nft import FAMILIES, FINGERPRINT


@dataclass(frozen=True, slots=True, order=True)
class FoundChain:
    """One chain; *policy* is None, and *hook* empty, of one that nothing calls by itself."""

    family: str
    name: str
    hook: str = ""
    policy: str | None = None

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


@dataclass(frozen=True, slots=True, order=True)
class FoundNftRule:
    """One rule; its place in the chain is its place in the dump.

    *content* is a sum of what it does. A handle tells nothing: what replaces a rule keeps it.
    """

    family: str
    chain: str
    content: int
    comment: str = ""


@dataclass(frozen=True, slots=True)
class FoundTable:
    """Our tables; without chains if there are none. *families* are those the kernel has."""

    chains: tuple[FoundChain, ...] = ()
    rules: tuple[FoundNftRule, ...] = ()
    families: tuple[str, ...] = FAMILIES


_TABLE = re.compile(r"^table (\w+) \w+ \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
_CHAIN = re.compile(r"^ chain (\w+) \{$(.*?)^ \}$", re.MULTILINE | re.DOTALL)
_HOOK = re.compile(r"^  type \w+ hook (\w+) priority .*; policy (\w+);$", re.MULTILINE)
_MARK = re.compile(rf'comment "({FINGERPRINT}\w+)"')
_LATER = re.compile(r"^insert rule (\w+) \w+ (\w+) ", re.MULTILINE)


def mark_of(text: str) -> str:
    """Return the hash that a rendered *text* carries."""
    found = _MARK.search(text)
    return found[1] if found else ""


@lru_cache(maxsize=2)
def rendered_chains(text: str) -> Mapping[FoundChain, int]:
    """Return the chains that *text* makes, and how many rules each gets.

    Remembered, because one look asks several times, and every look of the same text.
    """
    later = Counter(_LATER.findall(text))
    return {
        chain: rules + later[chain.family, chain.name]
        for family, table in _TABLE.findall(text)
        for chain, rules in _chains(family, table)
    }


def _chains(family: str, table: str) -> Iterator[tuple[FoundChain, int]]:
    for name, body in _CHAIN.findall(table):
        lines = [line for line in body.splitlines() if line]
        hook = _HOOK.search(body)
        chain = FoundChain(family, name, hook[1], hook[2]) if hook else FoundChain(family, name)
        yield chain, len(lines) - bool(hook)


def is_elsewhere(text: str, found: FoundTable) -> bool:
    """Whether *found* has a chain that *text*, which empties chains, cannot put right."""
    return any(chain.policy == "drop" for chain in surplus_chains(text, found))


def difference(text: str, found: FoundTable) -> str:
    """Return in what *found* is not what *text* makes, "" if in nothing that can be seen."""
    chains = rendered_chains(text)
    wanted = {chain: number for chain, number in chains.items() if chain.family in found.families}
    there = set(found.chains)
    lost = sorted({c.family for c in wanted} - {c.family for c in there})
    if lost:
        return f"had vanished ({', '.join(lost)})"
    if gone := sorted(wanted.keys() - there):
        return f"lacks chain {', '.join(map(str, gone))}, or has it elsewhere"
    if surplus := surplus_chains(text, found):
        return f"has a chain more: {', '.join(map(str, surplus))}"
    if mark_of(text) not in {rule.comment for rule in found.rules}:
        return "was made from another text"
    counts = Counter((rule.family, rule.chain) for rule in found.rules)
    for chain, number in wanted.items():
        seen = counts[chain.family, chain.name]
        if seen != number:
            return f"has {seen} rules in chain {chain} instead of {number}"
    return ""


def surplus_chains(text: str, found: FoundTable) -> tuple[FoundChain, ...]:
    """Return the chains that do something and that *text* does not make.

    One that a setting, or an older version, has left empty does nothing, and stays.
    """
    busy = {(rule.family, rule.chain) for rule in found.rules}
    surplus = set(found.chains) - rendered_chains(text).keys()
    return tuple(sorted(c for c in surplus if c.policy == "drop" or (c.family, c.name) in busy))
