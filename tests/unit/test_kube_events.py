"""What is said of pods and nodes as Events, how often, and as what JSON."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.spec import Pod
from ipamd.caches import Once, Usage
from ipamd.clock import Instant
from ipamd.cluster import OBJECT_NAME
from ipamd.kube_events import (
    BURST,
    INTERVAL_SECONDS,
    MESSAGE_MOST,
    PACE,
    SAID,
    WAITING,
    Outbox,
    Report,
    Subject,
    body,
    node_subject,
    sentence,
    subject_of,
)

WEB = Subject("Pod", "web-0", "0f3d", "prod")
NODE = node_subject("node-1")
WALL = 1_700_000_000.25


def report(subject: Subject = WEB, times: int = 1, since: float = 0.0) -> Report:
    return Report(subject, "NodeFull", "full. Next step: act", times, WALL - since, WALL)


def test_an_event_of_a_pod_as_the_api_server_is_sent_it() -> None:
    assert body(report(times=4, since=300), "node-1") == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web-0.nodefull.60a2418221090", "namespace": "prod"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "web-0",
            "namespace": "prod",
            "uid": "0f3d",
        },
        "type": "Warning",
        "reason": "NodeFull",
        "message": "full. Next step: act",
        "count": 4,
        "firstTimestamp": "2023-11-14T22:08:20Z",
        "lastTimestamp": "2023-11-14T22:13:20Z",
        "source": {"component": "enid", "host": "node-1"},
        "reportingComponent": "enid",
        "reportingInstance": "node-1",
    }


def test_an_event_of_a_node_is_in_default_and_names_no_namespace() -> None:
    made = body(report(NODE), "node-1")
    assert made["metadata"]["namespace"] == "default"
    assert made["involvedObject"] == {
        "apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "node-1",
    }  # fmt: skip


def test_a_pod_whose_uid_is_not_told_has_none() -> None:
    assert "uid" not in body(report(Subject("Pod", "web-0", "", "prod")), "n")["involvedObject"]


@pytest.mark.parametrize(
    ("pod", "subject"),
    [
        pytest.param(Pod("prod", "web-0", "0f3d"), WEB, id="a-pod"),
        pytest.param(Pod("prod", "web-0", ""), Subject("Pod", "web-0", "", "prod"), id="no-uid"),
        pytest.param(Pod(), None, id="no-kubernetes"),
        pytest.param(Pod("", "web-0", "0f3d"), None, id="no-namespace"),
        pytest.param(Pod("prod", "", "0f3d"), None, id="no-name"),
        pytest.param(Pod("prod", "Web_0", "0f3d"), None, id="no-name-of-kubernetes"),
    ],
)
def test_only_what_can_be_a_pod_is_one(pod: Pod, subject: Subject | None) -> None:
    assert subject_of(pod) == subject


@pytest.mark.parametrize("length", [1, MESSAGE_MOST, 5 * MESSAGE_MOST])
def test_a_message_ends_with_the_next_step_however_long_the_cause_is(length: int) -> None:
    said = sentence("c" * length, "add a subnet")
    assert re.fullmatch(r"c+\. Next step: add a subnet", said)
    assert len(said) == min(MESSAGE_MOST, length + len(". Next step: add a subnet"))


def test_a_cause_that_is_a_sentence_already_ends_once() -> None:
    assert sentence("EC2 denies it.", "allow it") == "EC2 denies it. Next step: allow it"


@given(
    name=st.from_regex(OBJECT_NAME, fullmatch=True),
    wall=st.floats(min_value=0, max_value=4e9),
)
def test_an_events_name_is_one_that_kubernetes_takes(name: str, wall: float) -> None:
    made = Report(Subject("Pod", name, "u", "prod"), "LeaseNotWritten", "", 1, wall, wall)
    assert OBJECT_NAME.fullmatch(body(made, "node-1")["metadata"]["name"])


def test_two_reasons_of_one_moment_have_two_names() -> None:
    names = {
        body(Report(WEB, reason, "", 1, WALL, WALL), "n")["metadata"]["name"]
        for reason in ("NodeFull", "WireNotMade")
    }
    assert len(names) == 2


# The outbox ------------------------------------------------------------------------------
class Node:
    """A node whose time is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        gate: Once[tuple[Subject, str]] = Once(
            "events said", size=SAID, interval_seconds=INTERVAL_SECONDS, timer=lambda: self.now
        )
        self.outbox = Outbox(gate, self.now)

    def put(self, name: str = "web-0", reason: str = "NodeFull") -> bool:
        now = Instant(self.now, WALL + self.now)
        return self.outbox.put(Subject("Pod", name, "", "prod"), reason, "why", now)

    def take_all(self) -> list[tuple[float, Report]]:
        taken = []
        while (wait := self.outbox.delay(self.now)) is not None:
            self.now += wait
            taken.append((self.now, self.outbox.take(self.now, waited=wait > 0)))
        return taken


def test_a_pod_and_reason_are_said_once_in_an_interval_and_then_with_the_count() -> None:
    node = Node()
    assert node.put()
    assert node.put(reason="WireNotMade")
    assert node.put("web-1")
    node.now += 200
    assert [node.put() for _ in range(3)] == [False] * 3
    node.now = 1000 + INTERVAL_SECONDS
    assert node.put()
    *first, (_, last) = node.take_all()
    assert {report.times for _, report in first} == {1}
    assert (last.times, last.first, last.last) == (
        4, WALL + 1200, WALL + 1000 + INTERVAL_SECONDS,
    )  # fmt: skip


def test_more_than_may_wait_are_lost_and_due_at_their_next_time() -> None:
    node = Node()
    assert all(node.put(f"web-{number}") for number in range(WAITING))
    assert not node.put("late")
    assert node.outbox.usage == Usage("events waiting", WAITING, WAITING, 0, 0, 1)
    assert len(node.take_all()) == WAITING
    assert node.put("late")


def test_a_full_outbox_is_empty_before_any_of_it_is_due_again() -> None:
    node = Node()
    for number in range(WAITING):
        node.put(f"web-{number}")
    assert node.take_all()[-1][0] == pytest.approx(1000 + (WAITING - BURST) / PACE)
    assert not node.put("web-0")
    assert node.outbox.usage == Usage("events waiting", WAITING, 0, BURST, WAITING - BURST, 0)


def test_what_could_not_be_posted_is_due_at_its_next_time() -> None:
    node = Node()
    node.put()
    ((_, taken),) = node.take_all()
    assert not node.put()
    node.outbox.lose(taken)
    assert node.put()


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 90)), max_size=120))
def test_never_more_than_the_bucket_holds_and_never_twice_in_an_interval(
    asked: list[tuple[int, float]],
) -> None:
    node = Node()
    posted: list[tuple[float, Report]] = []
    for number, pause in asked:
        node.put(f"web-{number}")
        end = node.now + pause
        while (wait := node.outbox.delay(node.now)) is not None and node.now + wait <= end:
            node.now += wait
            posted.append((node.now, node.outbox.take(node.now, waited=wait > 0)))
        node.now = end
    times = [time for time, _ in posted]
    for number, time in enumerate(times):
        since = sum(1 for other in times[number:] if other <= time + 60)
        assert since <= BURST + 60 * PACE + 1
    for subject in {report.subject for _, report in posted}:
        said = [report.last for _, report in posted if report.subject == subject]
        assert all(b - a >= INTERVAL_SECONDS - 1e-6 for a, b in pairwise(said))
