"""The contract of what the daemon does with it, shown by a real kube-apiserver (`make kube`)."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.contract.joined_node import poll
from tests.contract.test_joined import *  # noqa: F403 - the same tests
from tests.contract.test_joined import MakeSite


@pytest.mark.parametrize(
    ("terms", "kinds"),
    [
        pytest.param("source=enid", {"Pod", "Node"}, id="docs-operations"),
        pytest.param("source=enid,involvedObject.kind=Node", {"Node"}, id="docs-operations-nodes"),
        pytest.param("involvedObject.kind=Node,involvedObject.name={node},involvedObject.uid={node}", {"Node"}, id="kubectl-describe-node"),
        pytest.param("involvedObject.kind=Pod,involvedObject.namespace=default,involvedObject.name=full,involvedObject.uid=full-uid", {"Pod"}, id="kubectl-describe-pod"),
    ],
)  # fmt: skip
def test_events_are_found_as_people_look_for_them(
    site: MakeSite, terms: str, kinds: set[str]
) -> None:
    here = site(MAX_ENI="1")
    here.start()
    assert all(pod.address() for pod in [here.node.add() for _ in range(9)])
    assert here.node.add("full").error()
    poll(lambda: len(here.events()) == 2, "the pod's and the node's")
    selector = quote(terms.format(node=here.name))
    found = here.server.ask("GET", f"/api/v1/events?fieldSelector={selector}")["items"]
    ours = [event for event in found if event["source"]["host"] == here.name]
    assert {event["involvedObject"]["kind"] for event in ours} == kinds
