"""A round of `enid verify`: whatever becomes of it, its namespace goes again."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import ws_client
from rich.console import Console

from tests.unit.test_verify_cli import KUBECONFIG
from vpclab.checks.check import Check
from vpclab.checks.choice import Nodes
from vpclab.checks.ground import Ground, of_version_4
from vpclab.checks.outcome import FailedError, NotApplicableError, State
from vpclab.checks.records import Records
from vpclab.checks.verify import (
    BadImageError,
    DeniedError,
    LeftError,
    ServerAwayError,
    UnfitError,
    Wish,
    made,
)
from vpclab.cluster.api import Api, ApiError, Ended, refused

READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def node(number: int, **spec: Any) -> dict[str, Any]:
    own = [{"type": "InternalIP", "address": f"10.0.{number}.4"}]
    return {
        "metadata": {"name": f"node-{number}", "labels": {}},
        "spec": spec,
        "status": {**READY, "addresses": own, "allocatable": {"pods": "29"}},
    }


class Model(Api):
    """An API server whose pods are ready at once, or as *status* says."""

    def __init__(self, status: Mapping[str, Any] | None = None, *nodes: Any) -> None:
        self.status = {**READY, "podIP": "10.0.9.9"} if status is None else status
        self.all_nodes = list(nodes or [node(1), node(2)])
        self.spaces: list[str] = ["default"]
        self.made: list[Any] = []
        self.ending = ""
        self.refuses: Callable[[str, str], ApiError | None] = lambda _verb, _what: None

    @property
    def host(self) -> str:
        return "https://model"

    def _pass(self, verb: str, what: str) -> None:
        if error := self.refuses(verb, what):
            raise error

    def create(self, thing: Any) -> Any:
        self._pass("create", thing["kind"])
        if thing["kind"] == "Namespace":
            self.spaces.append(thing["metadata"]["name"])
        elif thing["kind"] == "Deployment":
            nodes = cycle(one["metadata"]["name"] for one in self.all_nodes)
            labels = thing["spec"]["template"]["metadata"]["labels"]
            for number in range(thing["spec"]["replicas"]):
                spec = {**thing["spec"]["template"]["spec"], "nodeName": next(nodes)}
                name = f"{thing['metadata']['name']}-{number}"
                self.made.append(
                    {"kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
                )
        self.made.append(thing)
        return thing

    def run(self, namespace: str, pod: str, *argv: str, seconds: float = 20) -> Ended:
        del namespace, argv, seconds
        self._pass("exec", pod)
        return Ended(0, '[{"port": "8080"}]')

    def delete(self, thing: Any) -> None:
        self._pass("delete", thing["kind"])
        self.ending = thing["metadata"]["name"]

    def nodes(self) -> list[Any]:
        self._pass("list", "Node")
        return self.all_nodes

    def pods(self, namespace: str, label: str = "") -> list[Any]:
        del namespace
        name, _, value = label.partition("=")
        pods = [thing for thing in self.made if thing["kind"] == "Pod"]
        if label:
            pods = [pod for pod in pods if pod["metadata"].get("labels", {}).get(name) == value]
        return [{**pod, "status": self.status} for pod in pods]

    def listed(self, path: str) -> list[Any]:
        self._pass("list", path)
        if path == "/api/v1/namespaces":
            shown = [{"metadata": {"name": name}} for name in self.spaces]
            self.spaces = [name for name in self.spaces if name != self.ending]
            return shown  # with one that ends, for a last time
        return []


def check(look: Callable[[Ground], str], name: str = "one") -> Check[Ground]:
    return Check(name, "a fact", "look there", look)


def fails(error: BaseException) -> Callable[[Ground], str]:
    def look(_: Ground) -> str:
        raise error

    return look


def run(model: Model, *checks: Check[Ground], nodes: Nodes = Nodes()) -> tuple[list[State], str]:  # noqa: B008 - frozen
    out = io.StringIO()
    console = Console(file=out, width=200)
    try:
        outcomes, about = made(model, Wish(checks=checks, image="i:1", nodes=nodes), console)
        assert about.image == "i:1"
        return [one.state for one in outcomes], out.getvalue()
    finally:
        assert model.spaces == ["default"] or model.refuses("delete", "Namespace")


def test_the_start_of_pods_is_the_first_check_and_the_others_follow() -> None:
    states, told = run(
        Model(),
        check(lambda ground: f"on {', '.join(ground.nodes)}"),
        check(fails(FailedError("saw x")), "two"),
        check(fails(NotApplicableError("nothing")), "three"),
    )
    assert states == [State.OK, State.OK, State.FAILED, State.SKIPPED]
    lines = [line.split()[0] for line in told.splitlines()[1::2]]
    assert lines == ["ok", "ok", "FAILED", "skipped"]
    assert "on node-1, node-2" in told


def test_what_it_makes_is_in_a_namespace_for_the_privileged() -> None:
    model = Model()
    run(model)
    (space,) = (thing for thing in model.made if thing["kind"] == "Namespace")
    assert space["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "privileged"}
    others = [
        thing for thing in model.made if thing is not space and thing["metadata"].get("namespace")
    ]
    assert {thing["kind"] for thing in others} == {"ConfigMap", "Deployment", "Pod", "Service"}
    assert {thing["metadata"]["namespace"] for thing in others} == {space["metadata"]["name"]}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param(
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
            BadImageError, id="it-cannot-be-pulled",
        ),
        pytest.param(
            {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "StartError", "message": "python3: not found"}}}]},
            BadImageError, id="it-has-no-python",
        ),
    ],
)  # fmt: skip
def test_an_image_that_does_not_start_says_nothing_of_the_cluster(
    status: Mapping[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="--image"):
        run(Model(status), check(lambda _: ""))


def test_pods_that_do_not_start_are_a_failure_and_nothing_else_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ground, "ready_seconds", 0.0)
    states, told = run(Model({"phase": "Pending"}), check(fails(AssertionError("asked"))))
    assert states == [State.FAILED]
    assert "7 pods that are ready: not within 0 s" in told


@pytest.mark.parametrize(
    ("verb", "kind", "status", "error"),
    [
        pytest.param("create", "Namespace", 403, DeniedError, id="no-right-to-make-it"),
        pytest.param("create", "Deployment", 403, DeniedError, id="no-right-to-fill-it"),
        pytest.param("list", "Node", 403, DeniedError, id="no-right-to-see-nodes"),
        pytest.param("create", "Pod", 0, ServerAwayError, id="the-server-is-gone"),
        pytest.param("exec", "guest", 403, DeniedError, id="no-right-to-ask-pods"),
        pytest.param("delete", "Namespace", 403, LeftError, id="no-right-to-remove-it"),
    ],
)
def test_what_the_server_refuses_is_an_error(
    verb: str, kind: str, status: int, error: type[Exception]
) -> None:
    model = Model()
    model.refuses = lambda v, k: ApiError("no", status) if (v, k) == (verb, kind) else None
    with pytest.raises(error):
        run(model)


@pytest.mark.parametrize(
    ("nodes", "wish", "said"),
    [
        pytest.param([node(1)], Nodes(names=("node-9",)), "node-9; ready: node-1", id="one-that-is-not-there"),
        pytest.param([node(1, unschedulable=True)], Nodes(), "no node is ready", id="all-are-cordoned"),
        pytest.param([node(1, taints=[{"effect": "NoSchedule", "key": "k"}])], Nodes(), "no node is ready", id="all-are-tainted"),
    ],
)  # fmt: skip
def test_without_nodes_nothing_is_checked(nodes: list[Any], wish: Nodes, said: str) -> None:
    with pytest.raises(UnfitError, match=said):
        run(Model(None, *nodes), nodes=wish)


def test_one_that_is_named_is_used_though_nobodys_pods_may_come_there() -> None:
    model = Model(None, node(1), node(2, unschedulable=True))
    _, told = run(model, nodes=Nodes(names=("node-2",)))
    assert "nodes node-2;" in told


def test_an_interrupted_round_is_removed_too() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Model(), check(fails(KeyboardInterrupt())))


def test_ipv6_is_a_reason_to_skip() -> None:
    states, told = run(
        Model({**READY, "podIP": "fd00::1"}), check(lambda ground: str(ground.web_pods()))
    )
    assert states == [State.OK, State.SKIPPED]
    assert "fd00::1 is IPv6" in told
    with pytest.raises(NotApplicableError):
        of_version_4("::1")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(OSError("no route"), 0, id="nobody-answered"),
        pytest.param(ApiException(status=404, reason="Not Found"), 404, id="the-servers-own"),
        pytest.param(ApiException(status=0, reason="Handshake status 403 Forbidden -+-+-"), 403, id="of-an-exec"),
    ],
)  # fmt: skip
def test_an_exec_that_is_refused_has_its_status(error: Exception, status: int) -> None:
    assert refused(error) == status


class Pages(Model):
    """An API server that gives pods one at a time."""

    def ask(self, method: str, path: str, body: object = None, kind: str = "json") -> Any:
        del method, body, kind
        number = int(path.partition("&continue=")[2] or 0)
        pod = {"name": number, "status": {"phase": ["Running", "Succeeded", "Pending"][number]}}
        return {"items": [pod], "metadata": {"continue": str(number + 1)} if number < 2 else {}}


def test_all_pods_are_read_page_by_page_and_those_that_have_ended_left_out() -> None:
    assert [pod["name"] for pod in Records(Pages()).pods()] == [0, 2]


def test_what_nobody_may_see_is_not_there() -> None:
    model = Model()
    model.refuses = lambda verb, _: ApiError("403", 403) if verb == "list" else None
    assert Records(model).image() == ""
    assert Records(model).all() == {}
    assert Records(model).restarts() == 0


def test_ctrl_c_in_an_exec_is_no_failure_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ws_client, "WSClient", interrupted)
    with contextlib.closing(Api(file)) as api, pytest.raises(KeyboardInterrupt):
        api.run("default", "guest", "true")
