"""The runtime's stand-in does what libcni does: environment, stdin, cache, patience."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from vpclab.runtime import BIN_DIR, CACHE_DIR, CONF_DIR, PluginError, Runtime, Sandbox

if TYPE_CHECKING:
    from vpclab.node import Node, PodNetns

RECORDER = """#!/bin/sh
# Write down what the runtime says, answer as the test wants.
env >/run/said.env
cat >/run/said.stdin
. /run/answer
"""
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/32"}]}


class Recorder:
    """A plugin that records, in a node of its own conflist."""

    def __init__(self, node: Node) -> None:
        self.node = node
        path = node.path(BIN_DIR) / "recorder"
        path.write_text(RECORDER)
        path.chmod(0o755)
        self.conflist = node.path(CONF_DIR) / "01-test.conflist"
        self.configure(mtu=9001)

    def configure(self, **plugin: object) -> None:
        plugins = [{"type": "recorder", **plugin}]
        conflist = {"cniVersion": "1.0.0", "name": "test", "plugins": plugins}
        self.conflist.write_text(json.dumps(conflist))

    def answers(self, shell: str) -> None:
        self.node.path("/run/answer").write_text(shell)

    @property
    def environment(self) -> dict[str, str]:
        lines = self.node.path("/run/said.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def stdin(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.node.path("/run/said.stdin").read_text())
        return found


@pytest.fixture
def node(nodes: tuple[Node, Node]) -> Node:
    return nodes[0]


@pytest.fixture
def recorder(node: Node) -> Iterator[Recorder]:
    recorder = Recorder(node)
    recorder.answers(f"echo '{json.dumps(RESULT)}'")
    yield recorder
    recorder.conflist.unlink()


@pytest.fixture
def netns(node: Node) -> Iterator[PodNetns]:
    netns = node.add_pod_netns("cni-test")
    yield netns
    netns.close()


@pytest.fixture
def sandbox(netns: PodNetns) -> Sandbox:
    return Sandbox.of(netns, "prod", "web-0")


def test_the_plugin_hears_what_libcni_says_and_nothing_else(
    node: Node, recorder: Recorder, sandbox: Sandbox
) -> None:
    assert Runtime(node).add(sandbox).ok
    said = recorder.environment
    arguments = dict(pair.split("=", 1) for pair in said.pop("CNI_ARGS").split(";"))
    assert arguments == {
        "K8S_POD_NAMESPACE": "prod",
        "K8S_POD_NAME": "web-0",
        "K8S_POD_INFRA_CONTAINER_ID": sandbox.container_id,
        "K8S_POD_UID": sandbox.pod.uid,
        "IgnoreUnknown": "1",
    }
    cni = {key: value for key, value in said.items() if key.startswith("CNI_")}
    assert cni == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": sandbox.container_id,
        "CNI_NETNS": "/run/netns/cni-test",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": BIN_DIR,
    }
    # A shell adds PWD, OLDPWD, SHLVL and _ by itself.
    assert said.keys() - cni.keys() <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    assert len(sandbox.container_id) == 64
    assert recorder.stdin == {
        "cniVersion": "1.0.0", "name": "test", "type": "recorder", "mtu": 9001,
    }  # fmt: skip


@pytest.mark.parametrize("annotations", [None, {"enid.dev/mtu": "1400"}], ids=["none", "one"])
def test_annotations_are_told_to_who_asks_for_them(
    node: Node, recorder: Recorder, sandbox: Sandbox, annotations: dict[str, str] | None
) -> None:
    recorder.configure(capabilities={"io.kubernetes.cri.pod-annotations": True, "dns": True})
    pod = replace(sandbox.pod, annotations=annotations)
    assert Runtime(node).add(replace(sandbox, pod=pod)).ok
    assert recorder.stdin["runtimeConfig"] == {"io.kubernetes.cri.pod-annotations": annotations}


def test_a_result_is_kept_for_the_del_and_then_forgotten(
    node: Node, recorder: Recorder, sandbox: Sandbox
) -> None:
    runtime = Runtime(node)
    assert str(runtime.add(sandbox).address) == "10.9.9.9"
    kept = node.path(CACHE_DIR) / f"test-{sandbox.container_id}-eth0"
    assert json.loads(kept.read_text())["kind"] == "cniCacheV1"
    assert runtime.delete(sandbox).ok
    assert recorder.environment["CNI_COMMAND"] == "DEL"
    assert recorder.stdin["prevResult"] == RESULT
    assert not kept.exists()
    assert runtime.delete(sandbox, with_netns=False).ok
    assert recorder.environment["CNI_NETNS"] == ""
    assert "prevResult" not in recorder.stdin


def test_a_del_that_fails_keeps_the_result(
    node: Node, recorder: Recorder, sandbox: Sandbox
) -> None:
    runtime = Runtime(node)
    runtime.add(sandbox)
    recorder.answers("exit 1")
    assert not runtime.delete(sandbox).ok
    recorder.answers("")
    runtime.delete(sandbox)
    assert recorder.stdin["prevResult"] == RESULT


@pytest.mark.parametrize(
    ("shell", "complaint"),
    [
        (
            """echo '{"code":11,"msg":"no address","details":"kubelet retries"}'; exit 1""",
            "no address; kubelet retries",
        ),
        ("echo torn >&2; exit 3", "torn"),
        ("echo nonsense; exit 1", "stdout is not JSON: 'nonsense\\n'"),
        ("exit 3", "the plugin exited with 3"),
    ],
    ids=["an-error-object", "only-stderr", "not-json", "nothing-at-all"],
)
def test_a_refusal_is_told_in_the_plugins_words(
    node: Node, recorder: Recorder, sandbox: Sandbox, shell: str, complaint: str
) -> None:
    recorder.answers(shell)
    answer = Runtime(node).add(sandbox)
    assert answer.complaint == complaint
    with pytest.raises(PluginError, match=complaint[:8]):
        _ = answer.address
    assert not (node.path(CACHE_DIR) / f"test-{sandbox.container_id}-eth0").exists()


def test_an_add_that_waits_is_killed_when_patience_ends(
    node: Node, recorder: Recorder, sandbox: Sandbox
) -> None:
    recorder.answers("exec sleep 60")
    runtime = Runtime(node)
    waiting = runtime.start_add(sandbox)
    assert waiting.is_waiting
    answer = runtime.finish_add(sandbox, waiting, timeout=0.2)
    assert not answer.ok
    assert "no answer within 0.2 s" in answer.complaint


def test_what_is_installed_answers_and_leaves_no_draft(node: Node) -> None:
    runtime = Runtime(node)
    runtime.install()
    runtime.install()
    version = node.run([f"{BIN_DIR}/enid-cni"], env={"CNI_COMMAND": "VERSION"}).stdout
    assert "1.0.0" in json.loads(version)["supportedVersions"]
    assert runtime.conflist()["plugins"][0]["type"] == "enid-cni"
    folders = (node.path(BIN_DIR), node.path(CONF_DIR))
    assert [p.name for folder in folders for p in folder.glob(".*.tmp")] == []
