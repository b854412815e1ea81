"""What fails around a plugin, in it and behind it, and what becomes of its pods' addresses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from cni.frame import Frame, encode
from cni.plugin import MAX_SPOOLED
from tests.cri.client import KUBELET_SECONDS, NOT_READY, READY, CriError, PodSpec
from tests.cri.stage import RECONCILE_SECONDS, Machine, Pod, Stage
from tests.lab.talk import talk
from vpclab.containerd import poll

ERROR = json.dumps({"cniVersion": "1.0.0", "code": 11, "msg": "no luck", "details": "later"})
DEADLINE = 10
"""The least that `deadlineSeconds` may say; without it a verb may take 110 s."""

NO_NETWORK = "failed to find network info"
NO_DEL_AFTER_A_FAILED_ADD = "1.7-debian13"
"""1.7.23 to 1.7.30, and 2.x of the same months, send no DEL where no ADD's result was kept."""


def sends_del_after_a_failed_add(machine: Machine) -> bool:
    return machine.release.name != NO_DEL_AFTER_A_FAILED_ADD


def only(machine: Machine) -> Pod:
    """Return the one sandbox that there is."""
    (pod,) = machine.known()
    return pod


@contextlib.contextmanager
def stopped(machine: Machine) -> Iterator[None]:
    """Have the daemon stand still: it takes a call, and does not answer."""
    assert machine.ipamd.process is not None
    os.kill(machine.ipamd.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(machine.ipamd.process.pid, signal.SIGCONT)


def end_by_reconcile(pod: Pod) -> None:
    """Stop and remove *pod*; its address is free within a minute, DEL or not."""
    pod.end()
    pod.machine.await_nothing(RECONCILE_SECONDS)


# ADD ---------------------------------------------------------------------------------------
@pytest.mark.cri("ADD is refused")
def test_a_refusal_is_told_in_our_words_and_leaves_nothing(stage: Stage) -> None:
    spec = PodSpec("web")
    stage.a.configure(lambda conflist: conflist["plugins"][0].update(mtu=12))
    said = stage.a.refused(spec)
    assert 'plugin type="enid-cni" failed (add): mtu 12 is not within' in said
    assert stage.a.shapes() == ["ADD", "DEL, no prevResult"]
    assert stage.a.cri.sandboxes() == {}
    stage.a.await_nothing()
    stage.a.configure(lambda _: None)
    stage.a.run(spec)


@pytest.mark.cri("ADD fails in other words")
@pytest.mark.parametrize(
    ("order", "words"),
    [
        pytest.param({"stdout": "segfault"}, "error parsing its diagnostic message", id="no JSON"),
        pytest.param({"stdout": ""}, "no error message: exit status 1", id="nothing"),
        pytest.param({"stdout": "", "stderr": "ouch"}, 'netplugin failed: "ouch"', id="stderr"),
    ],
)
def test_what_was_wired_before_a_failure_is_given_back(
    stage: Stage, order: dict[str, str], words: str
) -> None:
    stage.a.order("ADD", plugin=True, code=1, **order)
    assert words in stage.a.refused("web")
    assert stage.a.shapes() == ["ADD", "DEL, no prevResult"]
    stage.a.await_nothing()


@pytest.mark.cri("ADD ends well with a bad answer")
@pytest.mark.parametrize(
    ("answer", "words", "then"),
    [
        pytest.param(ERROR, NO_NETWORK, "DEL", id="an error object"),
        pytest.param('{"cniVersion":"1.0.0"}', NO_NETWORK, "DEL", id="no address"),
        pytest.param("", "unexpected end of JSON input", "DEL, no prevResult", id="nothing"),
        pytest.param(
            json.dumps({
                "cniVersion": "1.0.0",
                "interfaces": [{"name": "net1", "sandbox": "/proc/1/ns/net"}],
                "ips": [{"address": "10.0.0.9/32", "interface": 0}],
            }),
            NO_NETWORK,
            "DEL",
            id="no eth0",
        ),
    ],
)  # fmt: skip
def test_what_was_wired_before_a_bad_answer_is_given_back(
    stage: Stage, answer: str, words: str, then: str
) -> None:
    stage.a.order("ADD", plugin=True, stdout=answer)
    assert words in stage.a.refused("web")
    assert stage.a.shapes() == ["ADD", then]
    stage.a.await_nothing()


@pytest.mark.cri("ADD fails and its DEL too")
def test_an_add_that_fails_with_its_del_is_given_back(stage: Stage) -> None:
    stage.a.order("ADD", plugin=True, stdout=ERROR, code=1)
    stage.a.order("DEL", stdout=ERROR, code=1)
    assert "no luck; later" in stage.a.refused("web")
    assert len(stage.a.leases()) == 1
    stage.a.forget_orders()
    left = stage.a.known()
    assert len(left) == (stage.release.line < (2, 0)), "2.2.9 leaves nothing that could be stopped"
    for web in left:
        assert stage.a.cri.state(web.sandbox) == NOT_READY
        web.end()
    stage.a.await_nothing(RECONCILE_SECONDS)
    later = 2 if stage.release.line == (1, 6) else 0
    assert len(stage.a.calls()) == 2 + later, stage.a.shapes()


@pytest.mark.cri("ADD fails and its DEL too")
def test_without_the_daemon_an_add_says_so_in_time_and_where_a_del_has_no_room_nothing_stays(
    stage: Stage,
) -> None:
    stage.a.configure(lambda conflist: conflist["plugins"][0].update(deadlineSeconds=DEADLINE))
    stage.a.ipamd.kill()
    spool = stage.a.node.path("/run/enid/spool")
    for number in range(MAX_SPOOLED):
        env = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": f"{number:064x}", "CNI_IFNAME": "eth0"}
        conf = b'{"cniVersion":"1.0.0","name":"enid","type":"enid-cni"}'
        (spool / f"{number:064x}.eth0.1").write_bytes(encode(Frame(env, conf, 1, 2)))
    since = time.monotonic()
    said = stage.a.refused("web", deadline=KUBELET_SECONDS)
    assert f"ipamd did not answer within {DEADLINE} s" in said
    assert DEADLINE <= time.monotonic() - since < KUBELET_SECONDS / 2
    assert stage.a.shapes() == ["ADD", "DEL, no prevResult"]
    assert len(list(spool.iterdir())) == MAX_SPOOLED, "the DEL was not spooled, so it has failed"
    left = stage.a.known()
    assert len(left) == (stage.release.line < (2, 0)), "2.2.9 leaves nothing that could be stopped"
    stage.a.ipamd.start()
    for web in left:
        assert stage.a.cri.state(web.sandbox) == NOT_READY
        web.end()
    stage.a.await_nothing(RECONCILE_SECONDS)
    poll(lambda: not list(spool.iterdir()), "the others' DELs are done")
    assert stage.a.run("web").is_leased


@pytest.mark.cri("deadline in the middle of an ADD")
def test_a_plugin_that_is_killed_while_it_waits_leaves_nothing(stage: Stage) -> None:
    with stopped(stage.a):
        assert "DEADLINE_EXCEEDED" in stage.a.refused("web", deadline=2)
        since = time.monotonic()
        poll(lambda: stage.a.verbs() == ["ADD", "DEL"], "DEL follows")
        assert time.monotonic() - since < 5, "a child of the plugin keeps its stdout open"
        assert not stage.a.is_running(stage.a.calls()[0])
    stage.a.await_nothing()
    stage.a.run("web")


@pytest.mark.cri("deadline in the middle of an ADD")
def test_an_add_that_was_done_when_its_plugin_was_killed_is_given_back(stage: Stage) -> None:
    with stage.a.holding("ADD", plugin=True) as held:
        begun = stage.a.begin("web", deadline=5)
        held()
        (lease,) = stage.a.status()["leases"]
        assert lease["pod"] == "default/web"
        with pytest.raises(CriError, match="DEADLINE_EXCEEDED"):
            begun.result(30)
        poll(lambda: "DEL" in stage.a.verbs(), "DEL follows")
        assert stage.a.verbs() == ["ADD", "DEL"], "SIGKILL: a TERM would be noted, and waited on"
        assert not stage.a.is_running(stage.a.calls()[0])
        stage.a.await_nothing()


# DEL ---------------------------------------------------------------------------------------
@pytest.mark.cri("DEL fails")
def test_a_del_that_failed_is_sent_again_and_works(stage: Stage) -> None:
    web = stage.a.run("web")
    stage.a.order("DEL", stdout=ERROR, code=1)
    for _ in range(2):
        with pytest.raises(CriError, match="no luck; later"):
            web.stop()
    assert web.is_leased
    assert len(stage.a.containerd.namespaces()) == 1
    stage.a.forget_orders()
    web.stop()
    assert web.shapes == ["ADD", "DEL", "DEL", "DEL"]
    assert not web.is_leased
    assert stage.a.containerd.namespaces() == []


@pytest.mark.cri("DEL says not found")
def test_a_del_that_says_not_found_counts_as_done_and_the_address_comes_back(stage: Stage) -> None:
    web = stage.a.run("web")
    stage.a.order("DEL", stdout=ERROR.replace("no luck", "the device is not found"), code=1)
    web.stop()
    assert stage.a.containerd.namespaces() == []
    (left,) = stage.a.containerd.results()
    poll(lambda: not web.is_leased, "the daemon frees the address", RECONCILE_SECONDS)
    stage.a.forget_orders()
    web.remove()
    left.unlink(missing_ok=True)


# The runtime -------------------------------------------------------------------------------
@pytest.mark.cri("runtime killed in the middle of an ADD")
def test_an_orphan_s_add_after_the_stop_is_refused(stage: Stage) -> None:
    with stage.a.holding("ADD", become=True) as held:
        begun = stage.a.begin("web")
        held()
        stage.a.containerd.kill()
        with pytest.raises(CriError):
            begun.result(30)
        stage.a.containerd.start()
        web = only(stage.a)
        assert stage.a.cri.state(web.sandbox) == NOT_READY
        web.stop()
        assert len(web.shapes) == (2 if sends_del_after_a_failed_add(stage.a) else 1), web.shapes
        orphan = web.calls[0]
        assert stage.a.is_running(orphan)
    poll(lambda: not stage.a.is_running(orphan), "the orphan ends")
    assert not web.is_leased
    web.remove()


@pytest.mark.cri("runtime killed in the middle of an ADD")
def test_an_orphan_s_add_that_was_done_is_given_back(stage: Stage) -> None:
    with stage.a.holding("ADD", plugin=True) as held:
        stage.a.begin("web")
        held()
        stage.a.containerd.kill()
    stage.a.containerd.start()
    web = only(stage.a)
    assert stage.a.cri.state(web.sandbox) == NOT_READY
    assert web.is_leased
    end_by_reconcile(web)
    assert bool(web.shapes[1:]) == sends_del_after_a_failed_add(stage.a), web.shapes


@pytest.mark.cri("runtime killed in the middle of an ADD")
def test_an_orphan_that_waits_for_the_daemon_leaves_nothing(stage: Stage) -> None:
    with stopped(stage.a):
        stage.a.begin("web")
        poll(lambda: stage.a.verbs() == ["ADD"], "ADD is called")
        stage.a.containerd.kill()
        stage.a.containerd.start()
        web = only(stage.a)
        (orphan,) = web.calls
        assert stage.a.is_running(orphan)
        ended = stage.a.in_background(web.end)
        if sends_del_after_a_failed_add(stage.a):
            poll(lambda: len(web.calls) > 1, "DEL follows")
        else:
            ended.result(30)
    ended.result(60)
    poll(lambda: not stage.a.is_running(orphan), "the orphan ends")
    stage.a.await_nothing(RECONCILE_SECONDS)


@pytest.mark.cri("plugin missing")
def test_a_plugin_that_is_missing_is_named_and_pods_run_when_it_is_back(stage: Stage) -> None:
    away = stage.a.plugin.with_name("away")
    stage.a.plugin.rename(away)
    said = stage.a.refused("web")
    assert 'failed to find plugin "enid-cni" in path' in said
    assert stage.a.cri.network_ready() == (True, "")
    away.rename(stage.a.plugin)
    for pod in stage.a.known():
        pod.end()
    web = stage.a.run("web")
    assert stage.a.leases() == [web.sandbox]


# The daemon --------------------------------------------------------------------------------
@pytest.mark.cri("daemon away at ADD")
def test_a_pod_runs_as_soon_as_the_daemon_is_back(stage: Stage) -> None:
    far = stage.b.run("far")
    stage.a.ipamd.kill()
    begun = stage.a.begin("web")
    poll(lambda: stage.a.verbs() == ["ADD"], "ADD is called")
    assert not begun.done()
    stage.a.ipamd.start()
    web = begun.result(60)
    assert stage.a.cri.state(web.sandbox) == READY
    assert talk(web, far, far.address) == web.address


@pytest.mark.cri("daemon away at DEL")
def test_a_pod_ends_without_the_daemon_which_gives_its_address_back_later(stage: Stage) -> None:
    web = stage.a.run("web")
    stage.a.ipamd.kill()
    web.end()
    assert stage.a.cri.sandboxes() == {}
    stage.a.ipamd.start()
    stage.a.await_nothing()
