"""`enid lab`: what is understood, and what a person reads of a running lab."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ipamd.cli import build_parser, main
from tests.tools import laptop
from vpclab.show import show

NODE: dict[str, Any] = {
    "name": "node-a", "instance_id": "i-0123456789abcdef0", "instance_type": "c6i.24xlarge",
    "zone": "us-east-1a", "public": "198.51.100.1", "ipv6": "2001:db8:1234:100::4",
    "primary": "10.0.0.4", "enis": 2, "addresses": 11, "prefixes": 1,
}  # fmt: skip
CALL: dict[str, Any] = {
    "action": "UnassignPrivateIpAddresses", "calls": 5,
    "outcomes": {"ok": 2, "RequestLimitExceeded": 2, "lost": 1}, "mean_ms": 3.2, "longest_ms": 9.8,
}  # fmt: skip
SEEN: dict[str, Any] = {
    "vpc_id": "vpc-0123", "region": "us-east-1", "cidrs": ["10.0.0.0/16"],
    "endpoint": "http://127.0.0.1:4000", "nodes": [NODE], "calls": [CALL],
    "faults": ["* is throttled to 2/s, bursts of 2"], "drops": {"spoofed_ip": 3, "group": 0},
    "denials": {},
}  # fmt: skip


def page(seen: dict[str, Any], width: int = 80) -> str:
    """Return what is shown on a terminal of this width."""
    text = io.StringIO()
    show(seen, Console(file=text, width=width, highlight=False))
    return text.getvalue()


def test_eighty_columns_hold_every_id_and_address_whole() -> None:
    lines = page(SEEN).splitlines()
    assert all(len(line) <= 80 for line in lines)
    for words in (
        NODE["instance_id"], "10.0.0.4  198.51.100.1", NODE["ipv6"], "11 +1 prefixes",
        "UnassignPrivateIpAddresses", "2 RequestLimitExceeded", "1 lost",
    ):  # fmt: skip
        assert words in page(SEEN, 120)
    for words in (NODE["instance_id"], "10.0.0.4  198.51.100.1", NODE["ipv6"], CALL["action"]):
        assert any(words in line for line in lines), words


def test_faults_and_drops_are_sentences_and_what_is_not_is_not_shown() -> None:
    assert page(SEEN).endswith("fault: * is throttled to 2/s, bursts of 2\ndropped: 3 spoofed_ip\n")
    quiet = page({**SEEN, "calls": [], "faults": [], "drops": {"group": 0}})
    assert not any(word in quiet for word in ("EC2 action", "fault", "dropped"))


def test_denials_are_counted_sentences() -> None:
    seen = {**SEEN, "denials": {"a may not b on c: d": 1, "e may not f on g: h": 2}}
    shown = page(seen)
    assert "denied: a may not b on c: d\ndenied: e may not f on g: h (2 times)\n" in shown


def test_a_node_without_public_and_ipv6_addresses_has_one_line() -> None:
    plain = page({**SEEN, "nodes": [{**NODE, "public": None, "ipv6": None}]}, 120)
    assert len(plain.splitlines()) == len(page(SEEN, 120).splitlines()) - 1


@pytest.mark.parametrize(
    ("words", "node", "name", "command"),
    [
        ("node-a", "node-a", "lab", []),
        ("node-a --name x", "node-a", "x", []),
        ("--name x node-a -- ip -br addr", "node-a", "x", ["ip", "-br", "addr"]),
        ("node-a --name x -- ip route", "node-a", "x", ["ip", "route"]),
        ("node-a -- sh -- --name y", "node-a", "lab", ["sh", "--", "--name", "y"]),
        ("node-a ip route", "node-a", "lab", ["ip", "route"]),
    ],
)
def test_a_shells_command_is_what_stands_behind_the_dashes(
    words: str, node: str, name: str, command: list[str]
) -> None:
    found = build_parser().parse_args(["lab", "shell", *words.split()])
    assert (found.node, found.name, found.command) == (node, name, command)


@pytest.mark.parametrize(
    "words", ["fault --name x clear", "fault clear --name x", "fault --name x"]
)
def test_a_faults_lab_is_the_one_that_is_named(words: str) -> None:
    assert build_parser().parse_args(["lab", *words.split()]).name == "x"


@pytest.mark.parametrize("words", laptop.commands(), ids=" ".join)
def test_the_pages_commands_are_understood(words: list[str]) -> None:
    assert callable(build_parser().parse_args(words).run)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"policy.json cannot be read: No such file or directory \[LAB-POLICY\]"),
        ("{", r"policy.json is not JSON: Expecting property name .* \[LAB-POLICY\]"),
        ('{"Statement": {"Effect": "Allow", "Action": "*"}}', "statement 1: it needs Resource or"),
    ],
    ids=["not-there", "not-json", "not-a-policy"],
)
def test_a_policy_that_cannot_be_read_starts_nothing(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    policy = tmp_path / "policy.json"
    if text is not None:
        policy.write_text(text)
    with pytest.raises(SystemExit, match=sentence):
        main(["lab", "up", "--policy", str(policy)])


@pytest.mark.parametrize("name", ["a/b", "..", "-a", "ä", "x" * 33, ""])
def test_a_name_is_a_word(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["lab", "ls", f"--name={name}"])
    assert f"'{name}' is not up to 32 letters, digits and hyphens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("up", "enid lab up --name other"),
        ("shell", "NODE [-- COMMAND ...]"),
        ("fault", "enid lab fault throttle CreateNetworkInterface --rate 2"),
    ],
)
def test_help_teaches(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        build_parser().parse_args(["lab", command, "--help"])
    assert words in capsys.readouterr().out
