"""How often this node's Node is written, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eni.errors import EniError, ThrottledError, UnauthorizedError
from eni.model import EniId, Kind, SubnetId
from ipamd.clock import Instant
from ipamd.cluster import POD_ADDRESSES, ApiDeniedError, Link, NodeSeen, Patch, Standing
from ipamd.node_writer import HEARTBEAT_SECONDS, SETTLE_SECONDS, WRITE_SECONDS, NodeWriter
from ipamd.plan.loop import VirtualLoop
from ipamd.pool import EniCensus, PoolEni
from ipamd.replies import Shortage
from ipamd.settings import Settings
from ipamd.terms import Terms

ENI = PoolEni(EniId("eni-1"), 1, 9, SubnetId("subnet-0a"), Instant(0, 0))
EMPTY = EniCensus(ENI, assigned=9, singles=9)
STOCKED = replace(EMPTY, assigned=4, free=5)


class Cluster:
    """A Node, as its watch shows it, and each write of it with its time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.node = "node-1"
        self.standing = Standing(Link.CONNECTED)
        self.seen: NodeSeen | None = NodeSeen(
            uid="u", version="1", taints=(), condition=None, resource=None
        )
        self.denied = False
        self.writes: list[tuple[float, str, Mapping[str, Any]]] = []
        self._loop = loop

    async def patch(self, what: str, _path: str, body: Mapping[str, Any], _kind: Patch) -> None:
        await asyncio.sleep(0.01)
        self.writes.append((self._loop.time(), what, body))
        if self.denied:
            raise ApiDeniedError("nodes is forbidden")
        assert self.seen is not None
        for told in body.get("status", {}).get("conditions", ()):
            self.seen = replace(self.seen, condition=(told["status"], told["reason"]))
        if "capacity" in body.get("status", {}):
            self.seen = replace(self.seen, resource=body["status"]["capacity"][POD_ADDRESSES])
        if "taints" in body.get("spec", {}):
            self.seen = replace(self.seen, taints=tuple(body["spec"]["taints"] or ()))

    def times(self, what: str) -> list[float]:
        """Return when that was written."""
        return [at for at, told, _ in self.writes if told == what]

    @property
    def statuses(self) -> list[str]:
        """What the condition was, one after another."""
        found = [body["status"]["conditions"][0] for _, what, body in self.writes if what == STATUS]
        return [condition["status"] for condition in found]


STATUS = "Node status"


class Node:
    """As much of a daemon as its Node is told of, in virtual time."""

    def __init__(self, census: EniCensus = STOCKED, **settings: Any) -> None:
        self.loop = VirtualLoop()
        self.counted: Counter[str] = Counter()
        self.cluster = Cluster(self.loop)
        self.census = census
        self.troubles: dict[str, EniError] = {}
        self.told = asyncio.Event()
        self.told.set()
        daemon = SimpleNamespace(
            on_counted=lambda what, number: self.counted.update({what: number}),
            ports=SimpleNamespace(
                clock=lambda: Instant(self.loop.time(), 1e9 + self.loop.time()), random=lambda: 0.5
            ),
            settings=Settings(**settings),
            pool=SimpleNamespace(census=lambda: (self.census,)),
            attachments=SimpleNamespace(waiting=0),
            engine=SimpleNamespace(
                flights=SimpleNamespace(troubles=self.troubles),
                terms=Terms(targets=None, kind=Kind.SINGLE, max_enis=1, slots=9),
                census=SimpleNamespace(done=self.told),
            ),
            hindered=lambda trouble: Shortage(0, 0, 0, enis=1, max_enis=1, trouble=trouble),
        )
        self.daemon = daemon
        self.task = self.loop.create_task(
            NodeWriter(cast("Any", daemon), cast("Any", self.cluster)).run()
        )

    def taint(self, *taints: Mapping[str, Any]) -> None:
        """Let the Node have these taints."""
        assert self.cluster.seen is not None
        self.cluster.seen = replace(self.cluster.seen, taints=taints)

    @property
    def taints(self) -> list[Mapping[str, Any]]:
        """Return those that it has."""
        assert self.cluster.seen is not None
        return list(self.cluster.seen.taints)

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
    """A node with addresses."""
    made = Node()
    yield made
    made.end()


def test_the_condition_is_written_at_once_and_then_at_a_slow_heartbeat(node: Node) -> None:
    node.live(20 * HEARTBEAT_SECONDS)
    first, *later = node.cluster.times(STATUS)
    assert first < 1
    assert 20 <= len(later) <= 25
    assert set(node.cluster.statuses) == {"True"}


def test_a_node_that_turns_all_the_time_is_written_once_in_ten_seconds(node: Node) -> None:
    for number in range(300):
        node.census = STOCKED if number % 2 else EMPTY
        node.live(SETTLE_SECONDS + 2 if number % 2 == 0 else 0.7)
    times = node.cluster.times(STATUS)
    assert len(times) > 100
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= WRITE_SECONDS


def test_no_address_for_a_moment_is_not_told(node: Node) -> None:
    node.live(5)
    for _ in range(20):
        node.census = EMPTY
        node.live(SETTLE_SECONDS - 2)
        node.census = STOCKED
        node.live(3)
    assert node.cluster.statuses == ["True"]


def test_an_address_is_told_without_patience(node: Node) -> None:
    node.census = EMPTY
    node.live(3 * WRITE_SECONDS)
    assert node.cluster.statuses[-1] == "False"
    node.census = STOCKED
    node.live(2)
    assert node.cluster.statuses[-1] == "True"


def test_what_only_ec2_knows_is_unknown() -> None:
    node = Node(replace(EMPTY, singles=5, assigned=5))
    try:
        node.troubles["add eni"] = ThrottledError("slow down", action="CreateNetworkInterface")
        node.live(SETTLE_SECONDS - 2)
        assert not node.cluster.statuses, "a start is no news"
        node.live(5)
        assert node.cluster.statuses == ["Unknown"]
    finally:
        node.end()


def test_what_cannot_be_given_back_is_no_reason() -> None:
    node = Node(replace(EMPTY, singles=5, assigned=5))
    try:
        denied = UnauthorizedError("denied", action="DetachNetworkInterface")
        node.troubles["shrink"] = denied
        node.live(5)
        assert node.cluster.statuses == ["True"]
    finally:
        node.end()


def test_nothing_is_tried_while_the_api_server_is_away_or_the_node_is_not_there(node: Node) -> None:
    seen, node.cluster.seen = node.cluster.seen, None
    node.live(60)
    node.cluster.seen, node.cluster.standing = seen, Standing(Link.AWAY)
    node.live(60)
    assert not node.cluster.writes
    node.cluster.standing = Standing(Link.CONNECTED)
    node.live(3)
    assert node.cluster.statuses == ["True"]


def test_what_is_denied_is_tried_more_and_more_rarely(node: Node) -> None:
    node.cluster.denied = True
    node.live(3600)
    assert 60 <= len(node.cluster.times(STATUS)) <= 110
    node.cluster.denied = False
    node.live(120)
    assert node.cluster.seen is not None
    assert node.cluster.seen.condition == ("True", "AddressesReady")
    assert node.counted == {
        "unwritten_node": len(node.cluster.times(STATUS)) - 1,
        "written_node": 1,
    }


# Taints ----------------------------------------------------------------------------------
START, FULL = "node.enid.dev/not-ready", "node.enid.dev/no-addresses"
OTHER = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}
OURS = {"key": FULL, "value": "enid", "effect": "NoSchedule"}
TAINTS = "Node taints"


@pytest.fixture
def tainting() -> Iterator[Node]:
    """A node that is tainted with fewer than 3 addresses for 30 s."""
    made = Node(exhausted_taint=FULL, exhausted_below=3, startup_taint=START)
    made.taint(OTHER)
    yield made
    made.end()


def test_the_start_up_taint_goes_with_the_first_address(tainting: Node) -> None:
    tainting.census = replace(EMPTY, assigned=0, singles=0)
    tainting.taint({"key": START, "effect": "NoExecute"}, OTHER)
    tainting.live(60)
    assert not tainting.cluster.times(TAINTS)
    before = tainting.loop.time()
    tainting.census = STOCKED
    tainting.live(0.5)
    assert tainting.taints == [OTHER]
    assert tainting.cluster.times(TAINTS)[0] - before < 0.3


def test_a_node_without_addresses_is_tainted_when_that_has_lasted(tainting: Node) -> None:
    tainting.census = replace(EMPTY, assigned=7, free=2)
    tainting.live(28)
    assert tainting.taints == [OTHER]
    tainting.live(4)
    assert tainting.taints == [OTHER, OURS]


def test_the_taint_goes_when_twice_as_many_are_there_for_as_long(tainting: Node) -> None:
    tainting.census = EMPTY
    tainting.live(40)
    tainting.census = replace(EMPTY, assigned=4, cooling=5)
    tainting.live(300)
    assert OURS in tainting.taints, "5 are between 3 and 6"
    tainting.census = replace(EMPTY, assigned=3, cooling=5, free=1)
    tainting.live(28)
    assert OURS in tainting.taints
    tainting.live(4)
    assert tainting.taints == [OTHER]


def test_pods_that_come_and_go_do_not_make_it_flap(tainting: Node) -> None:
    tainting.census = EMPTY
    tainting.live(40)
    for number in range(200):
        free = number % 5
        tainting.census = replace(EMPTY, assigned=9 - free, free=free)
        tainting.live(7)
    assert len(tainting.cluster.times(TAINTS)) == 1
    assert OURS in tainting.taints


def test_an_outage_of_ec2_taints_nothing(tainting: Node) -> None:
    tainting.census = replace(EMPTY, singles=5, assigned=5)
    tainting.troubles["add eni"] = ThrottledError("slow down", action="CreateNetworkInterface")
    tainting.live(600)
    assert tainting.taints == [OTHER]


def test_a_daemon_that_starts_on_a_tainted_node_leaves_it_until_it_knows_better(
    tainting: Node,
) -> None:
    tainting.taint(OTHER, OURS)
    tainting.told.clear()
    tainting.census = replace(EMPTY, assigned=0, singles=0)
    tainting.live(300)
    assert tainting.taints == [OTHER, OURS]
    tainting.told.set()
    tainting.census = STOCKED
    tainting.live(28)
    assert OURS in tainting.taints, "5 free are between 3 and 6"
    tainting.census = replace(STOCKED, assigned=1, free=8)
    tainting.live(40)
    assert tainting.taints == [OTHER]


def test_a_taint_that_is_wanted_no_longer_goes(tainting: Node) -> None:
    tainting.census = EMPTY
    tainting.live(40)
    tainting.daemon.settings = Settings()
    tainting.live(WRITE_SECONDS + 2)
    assert tainting.taints == [OTHER]


def test_a_taint_that_somebody_removes_comes_back_and_theirs_stay(tainting: Node) -> None:
    tainting.census = EMPTY
    tainting.live(60)
    tainting.taint({"key": "new", "effect": "NoExecute"})
    tainting.live(5)
    assert tainting.taints == [{"key": "new", "effect": "NoExecute"}, OURS]


# The resource ----------------------------------------------------------------------------
@pytest.fixture
def counting() -> Iterator[Node]:
    """A node of one ENI that says how many pods could have an address."""
    made = Node(replace(EMPTY, assigned=3, free=2, singles=5), pod_address_resource=True)
    yield made
    made.end()


def said(node: Node) -> str | None:
    assert node.cluster.seen is not None
    return node.cluster.seen.resource


def test_what_pods_have_and_what_may_be_had_is_counted(counting: Node) -> None:
    counting.live(2)
    assert said(counting) == "9"
    counting.census = replace(EMPTY, assigned=8, free=1)
    counting.live(100)
    assert said(counting) == "9"
    assert len(counting.cluster.times(STATUS)) == 1, "it is no other number"


def test_while_ec2_gives_none_only_what_is_held_is_counted(counting: Node) -> None:
    counting.troubles["add eni"] = UnauthorizedError("denied", action="AssignPrivateIpAddresses")
    counting.live(2)
    assert said(counting) == "5"
    counting.troubles.clear()
    counting.live(WRITE_SECONDS + 2)
    assert said(counting) == "9"


def test_before_ec2_has_told_a_former_lifes_number_stands(counting: Node) -> None:
    assert counting.cluster.seen is not None
    counting.cluster.seen = replace(counting.cluster.seen, resource="7")
    counting.told.clear()
    counting.live(60)
    assert said(counting) == "7"


def test_what_kubelet_has_set_to_nothing_is_told_again_and_goes_when_it_is_off(
    counting: Node,
) -> None:
    counting.live(20)
    assert counting.cluster.seen is not None
    counting.cluster.seen = replace(counting.cluster.seen, resource="0")
    counting.live(2)
    assert said(counting) == "9"
    counting.daemon.settings = Settings()
    counting.live(WRITE_SECONDS + 2)
    assert said(counting) is None
