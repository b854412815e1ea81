"""How often a node's NodeNetwork is written, and what is said of who else writes it; virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eni.model import Block, EniId, Kind, SubnetId
from ipamd.clock import Instant
from ipamd.cluster import ApiAwayError, ApiDeniedError, Link, NodeSeen, Patch, RecordSeen, Standing
from ipamd.node_network import COUNTS_SECONDS, WRITE_SECONDS
from ipamd.plan.loop import VirtualLoop
from ipamd.pool import EniCensus, PoolEni
from ipamd.record_writer import START_SECONDS, RecordWriter
from ipamd.terms import Mode, Terms

ENI = EniId("eni-0a")
CENSUS = EniCensus(PoolEni(ENI, 1, 9, SubnetId("subnet-0a"), Instant(0, 0)), free=9, singles=9)
NODE = NodeSeen(uid="u-1", version="1", taints=(), condition=None, resource=None)
LAG_SECONDS = 0.7
"""What the watch is behind."""


class Cluster:
    """A record and its watch, which is late; and each write of it with its time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.node = "node-1"
        self.standing = Standing(Link.CONNECTED)
        self.seen: NodeSeen | None = NODE
        self.record: RecordSeen | None = None
        self.is_record_heard = True
        self.on_record: Callable[[RecordSeen | None], None] = lambda _: None
        self.denied = self.mute = False
        self.writes: list[tuple[float, str]] = []
        self._there: RecordSeen | None = None
        self._version = 100
        self._loop = loop

    async def create(self, _what: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        (owner,) = body["metadata"]["ownerReferences"]
        return await self._write("POST", path, owner=owner["uid"])

    async def patch(
        self, _what: str, path: str, body: Mapping[str, Any], _kind: Patch
    ) -> Mapping[str, Any]:
        if "status" in body:
            return await self._write("PATCH", path, status=body["status"])
        (owner,) = body["metadata"]["ownerReferences"]
        return await self._write("PATCH", path, owner=owner["uid"])

    async def _write(self, method: str, path: str, **changes: Any) -> Mapping[str, Any]:
        await asyncio.sleep(0.01)
        self.writes.append((self._loop.time(), f"{method} {path.rpartition('/')[2]}"))
        if self.denied:
            raise ApiDeniedError("nodenetworks is forbidden")
        version = self.change(**changes)
        if self.mute:
            raise ApiAwayError("no answer within 10 s")
        return {"metadata": {"resourceVersion": version}}

    def change(self, **changes: Any) -> str:
        """Change the record, as whoever may; return its version. The watch tells of it later."""
        self._version += 1
        former = self._there or RecordSeen(version="", owner="", status={})
        self._there = made = replace(former, version=str(self._version), **changes)
        self._loop.call_later(LAG_SECONDS, self._tell, made)
        return made.version

    def delete(self) -> None:
        """Delete the record."""
        self._there = None
        self._loop.call_later(LAG_SECONDS, self._tell, None)

    def _tell(self, made: RecordSeen | None) -> None:
        self.record = made
        self.on_record(made)

    @property
    def there(self) -> RecordSeen:
        """The record."""
        assert self._there is not None
        return self._there

    @property
    def times(self) -> list[float]:
        """When its status was written."""
        return [at for at, what in self.writes if what == "PATCH status"]


class Node:
    """As much of a daemon as its record tells of, in virtual time."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.counted: Counter[str] = Counter()
        self.cluster = Cluster(self.loop)
        self.census = CENSUS
        self.blocks: dict[Block, EniId] = {IPv4Network("10.0.1.4/32"): ENI}
        self.modes = [Mode.NORMAL]
        self.told = asyncio.Event()
        self.told.set()
        self.said: list[str] = []
        identity = SimpleNamespace(
            instance_id="i-0a", instance_type="m5.large", primary=IPv4Address("10.0.0.4")
        )
        self.daemon = SimpleNamespace(
            on_counted=lambda what, number: self.counted.update({what: number}),
            ports=SimpleNamespace(
                clock=lambda: Instant(self.loop.time(), 1e9 + self.loop.time()), random=lambda: 0.5
            ),
            around=SimpleNamespace(identity=identity),
            engine=SimpleNamespace(
                terms=Terms(targets=None, kind=Kind.SINGLE, max_enis=3, slots=9),
                census=SimpleNamespace(done=self.told),
            ),
            pool=SimpleNamespace(census=lambda: (self.census,), blocks=lambda: self.blocks),
            modes=self.modes,
        )
        self.task = self.start()

    def start(self) -> asyncio.Task[None]:
        """Start a daemon's writer."""
        writer = RecordWriter(cast("Any", self.daemon), cast("Any", self.cluster), self.said.append)
        return self.loop.create_task(writer.run())

    def restart(self) -> None:
        """End the daemon, and start the next."""
        self.task.cancel()
        self.live(1)
        self.task = self.start()

    def live(self, seconds: float) -> None:
        """Let so much time pass."""
        self.loop.run_until(self.loop.time() + seconds)

    def end(self) -> None:
        """Stop."""
        self.task.cancel()
        self.live(1)
        self.loop.close()


@pytest.fixture
def node() -> Iterator[Node]:
    """A node without a record, which has it after some seconds."""
    made = Node()
    made.live(5)
    yield made
    made.end()


def test_it_is_made_and_its_status_written(node: Node) -> None:
    assert [what for _, what in node.cluster.writes] == ["POST nodenetworks", "PATCH status"]
    assert node.cluster.there.owner == "u-1"
    assert node.cluster.there.status["counts"]["free"] == 9
    node.live(3600)
    assert len(node.cluster.writes) == 2, "nothing has changed"
    assert not node.said


def test_the_first_write_waits_for_ec2s_word_but_not_for_ever(node: Node) -> None:
    node.told.clear()
    node.restart()
    node.modes[0] = Mode.EC2_AWAY
    node.live(START_SECONDS - 5)
    assert node.cluster.there.status["mode"] == "normal"
    node.live(10)
    assert node.cluster.there.status["mode"] == "ec2-away"


def test_what_changes_all_the_time_is_written_once_in_ten_seconds(node: Node) -> None:
    for number in range(600):
        node.blocks[IPv4Network((0x0A000200 + number, 32))] = ENI
        node.live(1)
    gaps = [after - before for before, after in pairwise(node.cluster.times)]
    assert 50 <= len(gaps) <= 60
    assert min(gaps) >= WRITE_SECONDS


def test_counts_alone_are_written_once_a_minute(node: Node) -> None:
    for number in range(600):
        node.census = replace(CENSUS, assigned=number % 9, free=9 - number % 9)
        node.live(1)
    gaps = [after - before for before, after in pairwise(node.cluster.times)]
    assert 8 <= len(gaps) <= 10
    assert min(gaps) >= COUNTS_SECONDS
    assert not node.said, "the watch is late, and these are our own"


def test_what_somebody_else_changes_is_put_back_and_said_once(node: Node) -> None:
    node.live(20)
    before = node.cluster.there.status
    node.cluster.change(status={**before, "mode": "odd"})
    node.live(WRITE_SECONDS + 5)
    assert node.cluster.there.status["mode"] == "normal"
    assert node.said == ["NodeNetwork node-1 was changed (mode) by somebody else, and is put back"]
    node.live(300)
    assert len(node.said) == 1


def test_an_edit_that_a_write_of_ours_undoes_at_once_is_said(node: Node) -> None:
    node.live(20)
    while len(node.cluster.times) == 1:
        # Just before each look, so that one of them is followed by our write.
        node.blocks[IPv4Network("10.0.3.0/32")] = ENI
        node.cluster.change(status={**node.cluster.there.status, "mode": "odd"})
        node.live(0.1)
    node.live(5)
    assert node.cluster.there.status["mode"] == "normal"
    assert "mode" in node.said[-1]
    assert len(node.said) >= 5, "also those that no look has met"


def test_a_write_of_ours_whose_answer_was_lost_is_nobody_elses(node: Node) -> None:
    node.live(20)
    node.cluster.mute = True
    node.modes[0] = Mode.DENIED
    node.live(12)
    node.cluster.mute = False
    node.live(60)
    assert node.cluster.there.status["mode"] == "denied"
    assert not node.said
    node.cluster.change(status={**node.cluster.there.status, "mode": "odd"})
    node.live(60)
    assert node.said == ["NodeNetwork node-1 was changed (mode) by somebody else, and is put back"]


def test_who_insists_has_it_changed_back_every_ten_seconds(node: Node) -> None:
    for number in range(300):
        node.cluster.change(status={**node.cluster.there.status, "version": f"odd-{number}"})
        node.live(1)
    gaps = [after - before for before, after in pairwise(node.cluster.times)]
    assert min(gaps) >= WRITE_SECONDS
    node.live(30)
    assert "odd" not in node.cluster.there.status["version"]


def test_one_that_is_deleted_is_made_anew_and_said_once(node: Node) -> None:
    node.live(20)
    node.cluster.delete()
    node.live(20)
    assert node.cluster.there.status["mode"] == "normal"
    assert node.said == ["NodeNetwork node-1 was deleted by somebody else, and is put back"]


def test_one_that_went_with_its_former_node_is_nobodys_doing(node: Node) -> None:
    node.live(20)
    node.cluster.seen = replace(NODE, uid="u-2")
    node.cluster.delete()
    node.live(20)
    assert node.cluster.there.owner == "u-2"
    assert not node.said


def test_its_owner_is_the_node_of_today(node: Node) -> None:
    node.cluster.seen = replace(NODE, uid="u-2")
    node.live(20)
    assert node.cluster.there.owner == "u-2"
    assert not node.said


def test_a_daemon_that_starts_again_takes_it_over_and_says_nothing(node: Node) -> None:
    node.restart()
    node.live(60)
    assert len(node.cluster.times) == 1
    node.cluster.change(status={**node.cluster.there.status, "mode": "odd"})
    node.restart()
    node.live(60)
    assert node.cluster.there.status["mode"] == "normal"
    assert not node.said


def test_nothing_is_written_while_nobody_knows_what_is_there(node: Node) -> None:
    node.cluster.is_record_heard = False
    node.modes[0] = Mode.DENIED
    node.live(120)
    assert len(node.cluster.times) == 1
    node.cluster.is_record_heard = True
    node.live(2)
    assert node.cluster.there.status["mode"] == "denied"


def test_what_is_denied_is_tried_more_and_more_rarely(node: Node) -> None:
    node.cluster.denied = True
    node.modes[0] = Mode.DENIED
    node.live(3600)
    assert 60 <= len(node.cluster.times) <= 110
    node.cluster.denied = False
    node.live(120)
    assert node.cluster.there.status["mode"] == "denied"
    assert node.counted["written_nodenetwork"] == 2
    assert node.counted["unwritten_nodenetwork"] >= 60
