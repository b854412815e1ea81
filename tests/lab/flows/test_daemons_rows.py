"""The settings of the matrix, lived by a daemon: the kernel has what the matrix was tried with.

The matrix brings its node to each row by the same functions as the daemon, with all of root's
rights. Here an `ipamd` with those of production reads a row from its environment, on a node that has
been brought to another row, and what it makes of it is compared with what the matrix had, byte for
byte. `make test` has one row, `make flows` (FLOWS=all) every one.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipamd import wires
from ipamd.settings import Settings
from tests.lab.flows.test_matrix import EARLY_DEMUX, EXTERNAL, FULL, ROWS, Row
from tests.lab.flows.town import PODS, Town
from tests.lab.flows.tracked import links_of
from tests.lab.patience import PATIENCE
from tests.lab.test_daemon import Ipamd

IN_SHORT = {"external services"}
"""What `make test` looks at: another table, and rules of its own."""

MADE_SECONDS = 40 * PATIENCE
"""Rules of another mark stay until a second look has found that no ENI needs them."""

QUIET = {"DISABLE_NETWORK_RESOURCE_PROVISIONING": "true", "IP_COOLDOWN_PERIOD": "0"}
"""With these it asks EC2 for nothing and gives nothing back: it has what the town has."""

COMMANDS = (
    "nft list ruleset",
    "ip -4 rule | sort",  # of one preference, they come in the order in which they were put
    "ip -6 rule | sort",
    "ip -4 route show table all",
    "ip -6 route show table all | sed '/proto kernel/d'",
    "ip -details link",
)
COUNTED = re.compile(r"packets \d+ bytes \d+")

SYSCTLS = ("net/ipv4", "net/ipv6", "net/netfilter")
VARYING_SYSCTLS = {"nf_conntrack_count", "stat_refresh"}


def kernel_state(town: Town) -> dict[str, str]:
    """Return everything of the node's kernel that a setting could change."""
    printed = {command: town.node.run(["sh", "-c", command]).stdout for command in COMMANDS}
    state = {command: COUNTED.sub("counted", text) for command, text in printed.items()}
    return state | town.node.worker.call(sysctls)


def sysctls() -> dict[str, str]:
    """Return every sysctl of the namespace that can be read, by its path."""
    found = {}
    for folder in SYSCTLS:
        for path in Path("/proc/sys", folder).rglob("*"):
            if path.is_file() and path.name not in VARYING_SYSCTLS:
                try:
                    found[str(path)] = path.read_text()
                except OSError:
                    continue  # it has no value, as that of a link whose MTU is too small
    return found


def unlike(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Return the lines that differ."""
    return [
        f"{key}: {line}"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
        for line in difflib.ndiff(wanted.get(key, "").split("\n"), found.get(key, "").split("\n"))
        if line[0] in "-+"
    ]


@pytest.fixture(params=ROWS, ids=str)
def row(town: Town, request: pytest.FixtureRequest) -> Iterator[Row]:
    """One of the matrix's rows."""
    if not FULL and request.param not in IN_SHORT:
        pytest.skip("make flows: the other rows")
    row = ROWS[request.param]
    town.node.worker.write_sysctls(dict.fromkeys(EARLY_DEMUX, str(int(row.early_demux))))
    yield row
    town.node.worker.write_sysctls(dict.fromkeys(EARLY_DEMUX, "1"))
    town.live_by(Settings())


@pytest.fixture
def ipamd(town: Town, row: Row, tmp_path: Path) -> Iterator[Ipamd]:
    """The town's daemon, told of a row by its environment."""
    daemon = Ipamd(town.node, tmp_path / "log", **QUIET, **row.environ)
    yield daemon
    daemon.close()


def test_a_daemon_makes_what_the_matrix_was_tried_with(town: Town, row: Row, ipamd: Ipamd) -> None:
    town.live_by(row.settings)
    wanted = kernel_state(town)
    town.live_by(Row({} if EXTERNAL.items() <= row.environ.items() else EXTERNAL).settings)
    assert kernel_state(town) != wanted, "or nothing is seen of what it does"
    ipamd.start()
    end = time.monotonic() + MADE_SECONDS
    while wrong := unlike(kernel_state(town), wanted):
        assert time.monotonic() < end, "\n".join(wrong)
    leases = {lease["address"] for lease in ipamd.status()["leases"]}
    assert leases == {str(town.addresses[pod]) for pod in PODS}
    check_new_wire(town, row.settings, ipamd)


def check_new_wire(town: Town, s: Settings, ipamd: Ipamd) -> None:
    """A pod that comes now is wired as the settings say."""
    before = {link.name for link in links_of(town.node)}
    ipamd.add("later")
    (host,) = (link for link in links_of(town.node) if link.name not in before)
    assert host.name.startswith(s.veth_prefix)
    (eth0,) = (link for link in links_of(ipamd.netns("later")) if link.name == "eth0")
    assert (host.mtu, eth0.mtu, eth0.has_ipv6) == (
        wires.pod_mtu(s), wires.pod_mtu(s), not s.disable_pod_v6,
    )  # fmt: skip
    ipamd.delete("later")


@pytest.mark.parametrize(
    ("wish", "choice"),
    [
        pytest.param("true", "1", id="on-though-the-setting-says-off"),
        pytest.param(
            "false", "0", id="off-though-the-setting-says-on",
            marks=pytest.mark.skipif(not FULL, reason="make flows: the other way round"),
        ),
    ],
)  # fmt: skip
def test_early_demux_stays_as_its_owner_chose(
    town: Town, tmp_path: Path, wish: str, choice: str
) -> None:
    """It is on or off for the whole node, and our way is the same with both."""
    town.node.worker.write_sysctls(dict.fromkeys(EARLY_DEMUX, choice))
    ipamd = Ipamd(town.node, tmp_path / "log", **QUIET, DISABLE_TCP_EARLY_DEMUX=wish)
    try:
        ipamd.start()
        ipamd.wait(lambda s: s["ready"])
        read = ["cat", *(f"/proc/sys/{name.replace('.', '/')}" for name in EARLY_DEMUX)]
        assert town.node.run(read).stdout.split() == [choice] * len(EARLY_DEMUX)
    finally:
        ipamd.close()
        town.node.worker.write_sysctls(dict.fromkeys(EARLY_DEMUX, "1"))
