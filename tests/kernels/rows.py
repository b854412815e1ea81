"""Which kernels are booted, what is checked in them, and the table that comes of it. Pure.

A kernel that cannot be had, or does not come up, is a row with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BEGIN, END = "<!-- make kernels -->", "<!-- /make kernels -->"
"""Between them the table stands in a document."""


@dataclass(frozen=True, slots=True)
class Target:
    """A kernel of Debian's for one processor, and the release whose programs run on it.

    enid needs Python 3.11 and brings its own nft, as a container does: on 5.10 the programs are
    the next release's.
    """

    series: str
    kernel_of: str
    programs_of: str
    processor: str

    @property
    def name(self) -> str:
        """Return what the target is called on the command line and in files."""
        return f"{self.series}-{self.processor}"


TARGETS = (
    Target("5.10", "bullseye", "bookworm", "amd64"),
    Target("6.1", "bookworm", "bookworm", "amd64"),
    Target("6.12", "trixie", "trixie", "amd64"),
    Target("6.1", "bookworm", "bookworm", "arm64"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One column: tests that run in the guest, the very ones of `make test`."""

    name: str
    what: str
    tests: tuple[str, ...]

    def covers(self, test: str) -> bool:
        """Return whether *test* is one of the check's."""
        return any(
            test == one or test.startswith((f"{one}/", f"{one}:", f"{one}[")) for one in self.tests
        )


CHECKS = (
    Check(
        "refused",
        "a kernel without nf_tables' ct, nat or fib: the daemon ends at once and names what is"
        " missing (the module is kept out)",
        ("tests/kernels/guest/test_lacking.py",),
    ),
    Check(
        "flows",
        "128 connections beside kube-proxy's rules, nft and iptables: ClusterIP, NodePort,"
        " hostPort, SNAT, on three ENIs; VPC CIDRs, settings and others' marks that change under"
        " them; 30 rewrites of the table under 10,000 packets",
        (
            "tests/lab/flows/test_flows.py",
            "tests/lab/flows/test_changes.py",
            "tests/lab/flows/test_load.py::test_rewrites_of_the_table",
        ),
    ),
    Check(
        "pods",
        "the daemon and the plugin: ADD and DEL of 20 pods on two ENIs, SNAT, NodePort on both ENIs,"
        " forged sources",
        ("tests/lab/test_full_node.py",),
    ),
    Check(
        "repair",
        "what others delete or change of ours is back while the daemon runs, and what is theirs is"
        " as it was",
        ("tests/lab/test_mending.py",),
    ),
    Check(
        "plugin",
        "the plugin as one static file for this processor, without and with a daemon, alone in an"
        " empty root",
        ("tests/lab/test_plugin.py", "tests/lab/test_static.py"),
    ),
    Check(
        "wire",
        "`cni/wire.py` and `cni/netlink.py`: no trace of a failure, the first packet, both"
        " families, CAP_NET_ADMIN alone",
        ("tests/lab/test_wire.py",),
    ),
    Check(
        "contract",
        "what `cni/kernel.py` promises: wires, ENIs, rules, guards, nft, conntrack, kills between",
        ("tests/lab/test_kernel_contract.py",),
    ),
)


@dataclass(slots=True)
class Row:
    """What one guest told."""

    target: Target
    facts: Mapping[str, Any] = field(default_factory=dict)
    tests: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    log: Sequence[str] = ()
    seconds: float = 0.0
    trouble: str = ""

    def told(self, what: Mapping[str, Any]) -> None:
        """Take what the guest tells: who it is, one test, or its end."""
        if "test" in what:
            before = self.tests.get(what["test"])
            if before is None or before["outcome"] == "passed":
                self.tests[what["test"]] = what
        elif "ended" in what:
            self.log = what["log"]
        else:
            self.facts = what

    def remember(self, former: Row, checks: Sequence[Check]) -> None:
        """Take what a *former* run of the same kernel told of all but *checks*."""
        if {**former.facts, "up_seconds": 0} == {**self.facts, "up_seconds": 0}:
            for name, told in former.tests.items():
                if not any(check.covers(name) for check in checks):
                    self.tests.setdefault(name, told)

    def of(self, check: Check) -> list[Mapping[str, Any]]:
        """Return what is known of a check's tests."""
        return [told for name, told in self.tests.items() if check.covers(name)]

    def cell(self, check: Check) -> str:
        """Return a check's result: all passed, how many did not, or that none ran."""
        outcomes = [told["outcome"] for told in self.of(check)]
        failed, skipped = outcomes.count("failed"), outcomes.count("skipped")
        if failed:
            return f"FAILED {failed} of {len(outcomes)}"
        if self.trouble or not outcomes:
            return f"cut short after {len(outcomes)}" if outcomes else "not run"
        return f"{len(outcomes) - skipped} ok" + (f", {skipped} skipped" if skipped else "")

    def is_well(self, checks: Sequence[Check]) -> bool:
        """Return whether the guest came to its end, and of each check some test passed and none failed."""
        outcomes = [{told["outcome"] for told in self.of(check)} for check in checks]
        return not self.trouble and all("passed" in o and "failed" not in o for o in outcomes)

    def result(self, checks: Sequence[Check]) -> str:
        """Return the row's last word."""
        failed = any(told["outcome"] == "failed" for check in checks for told in self.of(check))
        rest = "ok" if self.is_well(checks) else "incomplete"
        return self.trouble or ("FAILED" if failed else rest)


def table(rows: Iterable[Row], checks: Sequence[Check]) -> list[list[str]]:
    """Return the table, its head first."""
    head = ["kernel", "processor", "Python", "nft", *(check.name for check in checks)]
    return [[*head, "up in", "result"], *(_line(row, checks) for row in rows)]


def _line(row: Row, checks: Sequence[Check]) -> list[str]:
    facts = row.facts
    up = f"{facts['up_seconds']:.1f} s" if facts else "-"
    return [
        facts.get("kernel", row.target.series), row.target.processor, facts.get("python", "-"),
        facts.get("nft", "-"), *(row.cell(check) for check in checks), up, row.result(checks),
    ]  # fmt: skip


def markdown(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the table as a document has it."""
    for number, line in enumerate(lines):
        yield f"| {' | '.join(word.replace('|', '/') for word in line)} |"
        if number == 0:
            yield f"|{' --- |' * len(line)}"


def plain(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the table as a terminal has it."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(
            word.ljust(width) for word, width in zip(line, widths, strict=True)
        ).rstrip()


def legend(checks: Iterable[Check]) -> Iterator[str]:
    """Yield what each column is."""
    for check in checks:
        tests = ", ".join(f"`{test}`" for test in check.tests)
        yield f"- **{check.name}**: {check.what} ({tests})"


def into(text: str, lines: Iterable[str]) -> str:
    """Return the document *text* with *lines* in it. Raises ValueError if they have no place."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} … {END}")
    return "\n".join((f"{before}{BEGIN}", *lines, f"{END}{after}"))
