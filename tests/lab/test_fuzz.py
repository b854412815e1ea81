"""Fuzzing: a short run in `make test`, as many as wanted by `make fuzz RUNS=5000`; all are counted."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import plugin
from tests.fuzz import words
from tests.fuzz.execs import Forks
from tests.fuzz.sockets import Target
from tests.lab.test_daemon import Ipamd
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

RUNS = int(os.environ.get("ENID_FUZZ_RUNS", "25"))
"""Of each part; the parts that need no process do four times as many."""

QUIET_SECONDS = 3.0
"""After which the daemon has answered or left every client: a frame has 2 s to be whole."""


def tell(what: str, counts: Counter[str], wanted: int) -> None:
    """Say how many runs there were, and how they ended."""
    ends = ", ".join(f"{name}: {number}" for name, number in counts.most_common())
    sys.stdout.write(f"\n{what}: {counts.total()} runs; {ends}\n")
    assert counts.total() >= wanted


def test_the_words_of_a_runtime() -> None:
    tell("words", words.fuzz(4 * RUNS), 4 * RUNS)


def test_frames_in_pieces() -> None:
    tell("frames", words.fuzz_frames(4 * RUNS), 4 * RUNS)


def test_the_plugins_environment_stdin_and_socket(tmp_path: Path) -> None:
    with Forks(tmp_path) as forks:
        tell("plugin", forks.fuzz(RUNS), RUNS)


@pytest.fixture
def ipamd(vpc: EmbeddedVPC, tmp_path: Path) -> Iterator[Ipamd]:
    """Give a daemon of one ENI: what has no address is told so."""
    subnet = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
    node = vpc.launch_node("node-a", "m5.large", subnet, public=True)
    prepare(node)
    daemon = Ipamd(node, tmp_path / "log", MAX_ENI="1")
    daemon.start()
    yield daemon
    daemon.close()


def test_the_daemons_socket(ipamd: Ipamd) -> None:
    assert ipamd.process is not None
    ipamd.wait(lambda s: bool(s["enis"] and s["enis"][0]["free"]))
    ipamd.add("before")
    pod = ipamd.netns("fuzzed")
    netlink = pod.socket(plugin.AF_NETLINK, plugin.SOCK_RAW)
    target = Target(ipamd.socket, ipamd.process.pid, pod.fd, netlink.fileno())
    before = target.open_descriptors()
    try:
        tell("socket", target.fuzz(RUNS), RUNS)
    finally:
        netlink.close()
    time.sleep(QUIET_SECONDS)
    ipamd.add("after")
    assert not target.open_descriptors() - before, "what came is still open"
    for name in {lease["container_id"] for lease in ipamd.status()["leases"]}:
        ipamd.exec({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": name, "CNI_IFNAME": "eth0"})
    assert ipamd.status()["leases"] == []
    assert "Traceback" not in ipamd.log.read_text()
