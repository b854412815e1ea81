"""Rewrites of our table and kills of the daemon, under thousands of short flows: nothing is lost.

`make test` has a small run of each, `make flows` (FLOWS=all) the full one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import nft
from cni.rtdump import Looks
from ipamd.cli import DaemonAwayError, ask_status
from ipamd.layers import read_settings
from ipamd.settings import Settings
from ipamd.status import Status
from tests.contract.kernel_contract import FORMER_TABLE, NET
from tests.lab.flows.load import Load, kinds, pinned, settings_in_turn
from tests.lab.flows.town import CLIENT, PODS, PORT, Flow, Town
from tests.lab.flows.tracked import Way, tracked
from tests.lab.patience import PATIENCE
from tests.lab.test_daemon import MAIN
from vpclab.enid import RIGHTS

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

FULL = os.environ.get("FLOWS") == "all"
REWRITES, KILLS, PACKETS = (100, 20, 100_000) if FULL else (30, 1, 10_000)
UPGRADES, UPGRADE_PACKETS = (100, 100_000) if FULL else (4, 2_000)
SEED = 5

SERVES_SECONDS = 20.0 * PATIENCE
"""How long a daemon may take until it serves, beside all those packets."""

FAR_TOO_MANY = 100
"""Lost; each takes its time, and one is too many."""

HEARD_SECONDS = 40.0
"""IMDS is asked every 10 s."""


def check(
    town: Town,
    load: Load,
    what: str,
    capsys: pytest.CaptureFixture[str],
    *,
    packets: int = PACKETS,
) -> None:
    """Nothing was lost, nobody was seen as somebody else, the VPC dropped nothing."""
    known, wrong = pinned(town)
    if FULL:
        with capsys.disabled():
            print(f"\n{what} under {load.count}, {len(wrong)} of {known} pinned")  # noqa: T201 - the figures are to be seen
    assert not load.count.lost
    assert not load.count.astray
    assert known > 0
    assert wrong == []
    assert not any(town.vpc.drops().values()), town.vpc.drops()
    assert load.count.packets >= packets


def keep_on(load: Load, packets: int) -> None:
    """Return when *load* has made as many packets."""
    end = time.monotonic() + 300 * PATIENCE
    while load.count.packets < packets:
        assert time.monotonic() < end, load.count
        assert sum(load.count.lost.values()) < FAR_TOO_MANY, load.count
        time.sleep(0.005)


def test_rewrites_of_the_table(proxied: Town, capsys: pytest.CaptureFixture[str]) -> None:
    turn = settings_in_turn()
    proxied.forget_flows()
    texts = [nft.render(proxied.wish(read_settings(next(turn)))) for _ in range(2)]
    with Load(proxied) as load:
        for number in range(REWRITES):
            keep_on(load, number * PACKETS // REWRITES)
            assert proxied.node.worker.call(proxied.net.apply_nft, texts[number % 2])
        keep_on(load, PACKETS)
    proxied.live_by(Settings())
    check(proxied, load, f"{REWRITES} rewrites", capsys)


class Former:
    """The table of the release before ADR 31 is there, with connections that began by it."""

    def __init__(self, town: Town, stack: contextlib.ExitStack) -> None:
        self.town, self.load = town, Load(town)
        town.forget_flows()
        stack.callback(town.live_by, Settings())
        self.go_back()
        self.talks = [stack.enter_context(contextlib.closing(town.open(way))) for way in kinds()]

    def go_back(self) -> None:
        """Have the old table again; nobody sends meanwhile."""
        text = FORMER_TABLE.replace(f"snat to {NET[4]}", f"snat to {self.town.node.primary}")
        self.town.node.worker.call(self.town.net.write_nft, text)
        assert self.kind() == "filter"

    def kind(self) -> str:
        """Return the type of the chain *arrive*."""
        listed = self.town.node.run(["nft", "list", "chain", "ip", "enid", "arrive"]).stdout
        return str(re.findall(r"type (\w+) hook", listed)[0])

    def under_load(self, upgrade: Callable[[], None], packets: int) -> None:
        """Upgrade in the middle of so many packets."""
        begun = self.load.count.packets
        self.load = Load(self.town, self.load.count)
        with self.load:
            keep_on(self.load, begun + packets // 2)
            upgrade()
            keep_on(self.load, begun + packets)
        assert self.kind() == "nat"
        assert all(talk.exchange() for talk in self.talks)

    def end(self) -> None:
        for talk in self.talks:
            talk.end()


def test_upgrades_from_a_table_whose_chains_hang_elsewhere(
    proxied: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel moves no chain to another type: old and new are in one transaction."""
    if not FULL and proxied.flavour != "nft":
        pytest.skip("make flows: upgrades beside iptables")
    call, text = proxied.node.worker.call, nft.render(proxied.wish(Settings()))
    with contextlib.ExitStack() as stack:
        looks = call(Looks)
        stack.callback(call, looks.close)
        former = Former(proxied, stack)

        def write() -> None:
            generation = call(looks.generation)
            assert call(proxied.net.apply_nft, text)
            assert call(looks.generation) == generation + 1

        for _ in range(UPGRADES):
            former.go_back()
            former.under_load(write, UPGRADE_PACKETS // UPGRADES)
        what = f"{UPGRADES} upgrades, {len(former.talks)} connections kept,"
        check(proxied, former.load, what, capsys, packets=UPGRADE_PACKETS)
        former.end()


class Lives:
    """The lives of one node's daemon, each with another table, each ended by SIGKILL."""

    def __init__(self, town: Town, log: Path) -> None:
        self.town, self.log = town, log
        self.socket = str(town.node.path("/run/enid/ipamd.sock"))
        self._turn = settings_in_turn()
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        with self.log.open("ab") as log:
            self.process = self.town.node.popen(
                [sys.executable, "-c", MAIN],
                env=next(self._turn), rights=RIGHTS, stderr=log, cwd="/",
            )  # fmt: skip

    def until_it_serves(self) -> Status:
        end = time.monotonic() + SERVES_SECONDS
        while True:
            try:
                return ask_status(self.socket)
            except DaemonAwayError:
                assert time.monotonic() < end, self.log.read_text()[-3000:]
                time.sleep(0.01)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def lives(proxied: Town, tmp_path: Path) -> Iterator[Lives]:
    """Give the town's node a daemon, which finds ENIs and wires that a former one has made."""
    lives = Lives(proxied, tmp_path / "log")
    yield lives
    lives.kill()
    proxied.live_by(Settings())


def test_kills_of_the_daemon(
    proxied: Town, lives: Lives, capsys: pytest.CaptureFixture[str]
) -> None:
    """At random moments of its life, its start among them, when it brings everything to rights.

    The first finds the table of another release, and upgrades it.
    """
    if not FULL and proxied.flavour != "nft":
        pytest.skip("make flows: kills beside iptables")
    chance = random.Random(SEED)
    served = 0
    with contextlib.ExitStack() as stack:
        former = Former(proxied, stack)
        load = stack.enter_context(Load(proxied))
        for number in range(KILLS):
            keep_on(load, number * PACKETS // KILLS)
            lives.begin()
            if number % 2 == 0:
                lives.until_it_serves()
                assert former.kind() == "nat"
                served += 1
            # A moment of its start, or of its first second: no event tells of all of them.
            time.sleep(chance.uniform(0.05, 1.0))
            lives.kill()
        lives.begin()
        status = lives.until_it_serves()
        keep_on(load, PACKETS)
        load.stop()
        assert all(talk.exchange() for talk in former.talks)
        assert served >= KILLS // 2
        assert {lease["address"] for lease in status["leases"]} == {
            str(proxied.addresses[pod]) for pod in PODS
        }
        check(proxied, load, f"{KILLS} kills, {served} of them while it served,", capsys)
        former.end()


@contextlib.contextmanager
def another_cidr(vpc: EmbeddedVPC) -> Iterator[str]:
    """Give the VPC one more CIDR, and take it away again."""
    cidr = "100.80.0.0/16"
    vpc.add_cidr(cidr)
    yield cidr
    for found in vpc.ec2.describe_vpcs()["Vpcs"]:
        for association in found.get("CidrBlockAssociationSet", []):
            if association["CidrBlock"] == cidr:
                vpc.ec2.disassociate_vpc_cidr_block(AssociationId=association["AssociationId"])


@pytest.mark.skipif(not FULL, reason="make flows: the daemon hears of it within 10 s")
def test_a_cidr_that_the_vpc_gets_is_heard_and_flushes_nothing(proxied: Town, lives: Lives) -> None:
    proxied.forget_flows()
    lives.begin()
    lives.until_it_serves()

    def known() -> list[tuple[Way, Way, int]]:
        return [
            (flow.original, flow.reply, flow.mark)
            for flow in tracked(proxied.node)
            if flow.reply.source == CLIENT
        ]

    talk = proxied.open(Flow("podS", "client", PORT, "client", "eth0"))
    with contextlib.closing(talk), another_cidr(proxied.vpc) as cidr:
        before = known()
        assert len(before) == 1
        end = time.monotonic() + HEARD_SECONDS * PATIENCE
        while cidr not in proxied.node.run(["nft", "list", "table", "ip", "enid"]).stdout:
            assert time.monotonic() < end, lives.log.read_text()[-3000:]
            time.sleep(0.1)
        assert talk.exchange()
        assert known() == before
        talk.end()
