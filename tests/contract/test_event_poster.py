"""What is reported is posted at the bucket's pace, in virtual time; what lasts, once an interval."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cni.spec import Code, Pod
from eni.errors import EniError, ThrottledError, UnauthorizedError
from ipamd.caches import Caches
from ipamd.clock import Instant
from ipamd.cluster import ApiDeniedError, Link, Standing
from ipamd.event_poster import LOOK_SECONDS, EventPoster
from ipamd.kube_events import BURST, INTERVAL_SECONDS, PACE
from ipamd.plan.loop import VirtualLoop
from ipamd.replies import AddRefusedError


class Cluster:
    """A cluster that notes what is posted, and when; or refuses it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.node = "node-1"
        self.standing = Standing(Link.CONNECTED)
        self.denied = False
        self.denials = ""
        self.posted: list[tuple[float, Mapping[str, Any]]] = []
        self._loop = loop

    async def post_event(self, _namespace: str, body: Mapping[str, Any]) -> None:
        await asyncio.sleep(0.01)
        if self.denied:
            raise ApiDeniedError("events is forbidden")
        self.posted.append((self._loop.time(), body))


class Node:
    """As much of a daemon as events are made of, and its poster, in virtual time."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.troubles: dict[str, EniError] = {}
        self.counted: Counter[str] = Counter()
        self.cluster = Cluster(self.loop)
        self.attachments = SimpleNamespace()
        self.daemon = daemon = SimpleNamespace(
            ports=SimpleNamespace(clock=lambda: Instant(self.loop.time(), 1e9 + self.loop.time())),
            caches=Caches(timer=self.loop.time),
            attachments=self.attachments,
            engine=SimpleNamespace(flights=SimpleNamespace(troubles=self.troubles)),
            by_cluster=SimpleNamespace(config_trouble="", config_notice=""),
            places=SimpleNamespace(misplaced=""),
            complaint=None,
            before_us="",
            on_counted=lambda what, number: self.counted.update({what: number}),
        )
        poster = EventPoster(cast("Any", daemon), cast("Any", self.cluster))
        self.task = self.loop.create_task(poster.run())

    def refuse(self, pod: str, reason: str = "SubnetExhausted") -> None:
        error = AddRefusedError(reason, Code.TRY_AGAIN_LATER, "no address", "act")
        self.attachments.on_refused(Pod("prod", pod, "u"), error)

    def end(self) -> None:
        self.task.cancel()
        self.loop.run_until(self.loop.time() + 1)
        self.loop.close()


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.end()


def test_a_burst_goes_at_once_and_the_rest_at_the_buckets_pace(node: Node) -> None:
    for number in range(BURST + 5):
        node.refuse(f"web-{number}")
    node.loop.run_until(5)
    assert len(node.cluster.posted) == BURST
    node.loop.run_until(5 / PACE + 5)
    assert [round(at) for at, _ in node.cluster.posted[BURST:]] == [10, 20, 30, 40, 50]
    assert node.counted == {"events_posted": BURST + 5}


def test_what_is_denied_is_due_at_its_next_time(node: Node) -> None:
    node.cluster.denied = True
    node.refuse("web-0")
    node.loop.run_until(5)
    node.cluster.denied = False
    node.refuse("web-0")
    node.loop.run_until(10)
    assert len(node.cluster.posted) == 1
    assert node.counted == {"events_lost": 1, "events_posted": 1}


def test_what_waits_while_the_api_server_goes_away_is_lost(node: Node) -> None:
    for number in range(BURST + 5):
        node.refuse(f"web-{number}")
    node.loop.run_until(5)
    node.cluster.standing = Standing(Link.AWAY)
    node.refuse("late")
    node.loop.run_until(100)
    assert node.counted == {"events_posted": BURST, "events_lost": 5}


def test_a_trouble_that_lasts_is_said_once_an_interval_and_not_counted_by_looks(node: Node) -> None:
    node.troubles["add eni"] = UnauthorizedError("denied", action="CreateNetworkInterface")
    node.loop.run_until(2.5 * INTERVAL_SECONDS)
    assert [event["count"] for _, event in node.cluster.posted] == [1, 1, 1]
    former, *later = (at for at, _ in node.cluster.posted)
    for at in later:
        assert INTERVAL_SECONDS <= at - former <= INTERVAL_SECONDS + 2 * LOOK_SECONDS
        former = at


def test_each_failure_counts_once(node: Node) -> None:
    for number in range(3):
        node.troubles["add eni"] = UnauthorizedError("denied", action="CreateNetworkInterface")
        node.loop.run_until((number + 1) * 5 * LOOK_SECONDS)
    node.loop.run_until(INTERVAL_SECONDS)
    node.troubles["add eni"] = UnauthorizedError("denied", action="CreateNetworkInterface")
    node.loop.run_until(INTERVAL_SECONDS + 5 * LOOK_SECONDS)
    assert [event["count"] for _, event in node.cluster.posted] == [1, 3]


def test_what_heals_by_itself_is_no_event_of_the_node(node: Node) -> None:
    node.troubles["add eni"] = ThrottledError("slow down", action="CreateNetworkInterface")
    node.loop.run_until(INTERVAL_SECONDS)
    assert not node.cluster.posted


def test_what_an_operator_got_wrong_is_one_event_of_the_node_each(node: Node) -> None:
    node.daemon.complaint = "ConfigMap: WARM_IP_TARGET=many is no number\nConfigMap: MAX_ENI=-1"
    node.daemon.by_cluster.config_trouble = "ENIConfig a is not in the cluster"
    node.daemon.places.misplaced = "ENIConfig b names subnet-2, which is in us-east-1b"
    node.daemon.before_us = "/etc/cni/net.d/00-other.conflist sorts before 05-enid.conflist"
    node.cluster.denials = 'cannot patch resource "nodes/status"'
    node.loop.run_until(3 * LOOK_SECONDS)
    told = {event["reason"]: event["message"] for _, event in node.cluster.posted}
    assert len(node.cluster.posted) == len(told) == 5
    cause, _, advice = told["SettingsNotTaken"].partition(". Next step: ")
    assert cause == "ConfigMap: WARM_IP_TARGET=many is no number; ConfigMap: MAX_ENI=-1"
    assert "enid settings" in advice
    assert set(told) == {
        "SettingsNotTaken", "EniConfigNotUsed", "EniConfigElsewhere", "ConflistNotFirst",
        "KubernetesDenied",
    }  # fmt: skip


def test_what_may_be_meant_is_said_once_and_again_when_it_is_another(node: Node) -> None:
    node.daemon.by_cluster.config_notice = "ENIConfig a has no security group"
    node.loop.run_until(3 * INTERVAL_SECONDS)
    node.daemon.by_cluster.config_notice = "ENIConfig b has no security group"
    node.loop.run_until(4 * INTERVAL_SECONDS)
    said = [(event["reason"], event["message"][:11]) for _, event in node.cluster.posted]
    assert said == [("EniConfigWithoutGroups", f"ENIConfig {name}") for name in "ab"]
