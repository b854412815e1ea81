"""What a runtime reads from files, in which version, and plugins that come after ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.cri.client import CriError, PodSpec
from tests.cri.stage import Call, Machine, Stage
from tests.lab.talk import talk
from vpclab.containerd import poll

FAILURE = json.dumps({"cniVersion": "1.0.0", "code": 7, "msg": "not today"})

PTP = {
    "cniVersion": "1.0.0",
    "name": "other",
    "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "192.0.2.0/24"}}],
}

LOOKS = 50
"""A change that is noticed is loaded within two or three."""

TUNING = {"type": "tuning", "sysctl": {"net.ipv4.tcp_keepalive_time": "600"}}


@pytest.mark.cri("conflist gone")
def test_without_the_conflist_pods_can_neither_be_run_nor_stopped(stage: Stage) -> None:
    web = stage.a.run("web")
    away = stage.a.conflist.with_name(".away")
    stage.a.conflist.rename(away)
    poll(lambda: not stage.a.cri.network_ready()[0], "NetworkReady is false")
    assert "cni plugin not initialized" in stage.a.cri.network_ready()[1]
    assert "cni plugin not initialized" in stage.a.refused("other")
    with pytest.raises(CriError, match="cni plugin not initialized"):
        web.stop()
    assert web.is_leased
    away.rename(stage.a.conflist)
    poll(lambda: stage.a.cri.network_ready()[0], "NetworkReady is true")
    web.end()
    assert not web.is_leased


@pytest.mark.cri("conflist edited")
def test_a_pod_is_deleted_with_the_conflist_as_it_is_then(stage: Stage) -> None:
    web = stage.a.run("web")
    stage.a.configure(lambda conflist: conflist["plugins"][0].update(mtu=99999))
    web.stop()
    assert [call.conf.get("mtu") for call in web.calls] == [None, 99999]
    assert not web.is_leased, "a DEL must succeed, whatever became of the file"


@pytest.mark.cri("conflist installed")
def test_a_node_stays_ready_while_the_conflist_is_installed_again_and_again(stage: Stage) -> None:
    for number in range(50):
        wanted = json.loads(stage.a.conflist.read_text()) | {"install": number}
        stage.a.put(stage.a.conflist.name, json.dumps(wanted, indent=number))
        assert stage.a.cri.network_ready() == (True, "")
    poll(lambda: stage.a.loaded() == wanted, "the last one is loaded")


@pytest.mark.cri("conflist installed")
def test_a_conflist_that_is_written_in_place_is_read_half(stage: Stage) -> None:
    whole = stage.a.conflist.read_text()
    stage.a.conflist.write_text(whole[:40])
    poll(lambda: not stage.a.cri.network_ready()[0], "NetworkReady is false")
    stage.a.put(stage.a.conflist.name, whole)
    poll(lambda: stage.a.cri.network_ready()[0], "NetworkReady is true")


def is_unnoticed(machine: Machine, former: object) -> bool:
    """Whether the runtime still has the *former* conflist, however often it is asked."""
    return all(machine.loaded() == former for _ in range(LOOKS))


@pytest.mark.cri("conflist installed")
def test_a_conflist_that_is_renamed_in_from_elsewhere_is_not_noticed(stage: Stage) -> None:
    former = stage.a.loaded()
    wanted = json.loads(stage.a.conflist.read_text()) | {"install": "from elsewhere"}
    draft = stage.a.conflist.parents[1] / "draft"
    draft.write_text(json.dumps(wanted))
    draft.rename(stage.a.conflist)
    assert is_unnoticed(stage.a, former)
    stage.a.put(stage.a.conflist.name, json.dumps(wanted))
    poll(lambda: stage.a.loaded() == wanted, "one that is renamed within the folder is loaded")


@pytest.mark.cri("conflist installed")
def test_what_is_written_behind_a_symlink_is_not_noticed(stage: Stage) -> None:
    wanted = json.loads(stage.a.conflist.read_text()) | {"install": "behind a symlink"}
    target, link = stage.a.conflist.parents[1] / "target", stage.a.conflist.with_name(".link.tmp")
    target.write_text(json.dumps(wanted))
    link.symlink_to(f"../{target.name}")
    link.rename(stage.a.conflist)
    poll(lambda: stage.a.loaded() == wanted, "the link is loaded")
    target.write_text(json.dumps(wanted | {"install": "later"}))
    assert is_unnoticed(stage.a, wanted)


@pytest.mark.cri("several conflists")
def test_the_first_conflist_counts_and_an_invalid_one_before_it_is_not_passed_over(
    stage: Stage,
) -> None:
    stage.a.put("10-other.conflist", json.dumps(PTP))
    stage.a.put("00-broken.conflist", "{")
    poll(lambda: not stage.a.cri.network_ready()[0], "NetworkReady is false")
    stage.a.conflist.with_name("00-broken.conflist").unlink()
    poll(lambda: stage.a.cri.network_ready()[0], "NetworkReady is true")
    web = stage.a.run("web")
    assert web.is_leased
    web.end()
    stage.a.conflist.with_name("10-other.conflist").unlink()


@pytest.mark.cri("cniVersion")
@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_version_of_the_specification(stage: Stage, version: str) -> None:
    stage.a.configure(lambda conflist: conflist.update(cniVersion=version))
    if version == "1.1.0" and stage.release.line < (2, 0):
        assert 'unsupported CNI result version "1.1.0"' in stage.a.refused("web")
        assert stage.a.shapes() == ["ADD", "DEL, no prevResult"]
        return
    web, far = stage.a.run("web"), stage.b.run("far")
    assert talk(web, far, far.address) == web.address
    web.stop()
    told = stage.a.calls()[-1].conf
    assert told.get("prevResult", {}).get("cniVersion") == (None if version < "0.4.0" else version)
    assert not web.is_leased


@pytest.mark.cri("cniVersion")
def test_a_version_that_is_too_old_is_refused_in_a_sentence(stage: Stage) -> None:
    stage.a.configure(lambda conflist: conflist.update(cniVersion="0.2.0"))
    said = "cniVersion '0.2.0' is not one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
    assert said in stage.a.refused("web")
    assert stage.a.shapes() == ["ADD", "DEL, no prevResult"]
    stage.a.configure(lambda _: None)
    for web in stage.a.known():
        web.end()
    stage.a.await_nothing()


# Chains ------------------------------------------------------------------------------------
def chain(stage: Stage, *plugins: dict[str, Any]) -> None:
    """Have *plugins* follow ours, in the newest version that the runtime speaks."""

    def change(conflist: Any) -> None:
        conflist["cniVersion"] = "1.1.0" if stage.release.line >= (2, 0) else "1.0.0"
        conflist["plugins"].extend(plugins)

    stage.a.configure(change)
    assert stage.a.cri.network_ready() == (True, "")


def order_of(calls: Sequence[Call]) -> list[str]:
    """Return whose call came after whose, shortly; a node's STATUS is in between anywhere."""
    return [f"{call.plugin} {call.shape}" for call in calls if call.verb != "STATUS"]


@pytest.mark.cri("chain with portmap and bandwidth")
def test_a_chain_is_taken_down_backwards_each_with_the_last_result(stage: Stage) -> None:
    stage.a.cover("portmap")
    chain(stage, TUNING, {"type": "portmap", "capabilities": {"portMappings": True}})
    web = stage.a.run(PodSpec("web", ports={8080: 8080}))
    (cached,) = stage.a.containerd.results()
    last = json.loads(cached.read_text())["result"]
    web.stop()
    calls = [call for call in stage.a.all_calls() if call.container_id == web.sandbox]
    assert order_of(calls) == ["enid-cni ADD", "portmap ADD", "portmap DEL", "enid-cni DEL"]
    assert "prevResult" not in calls[0].conf
    assert [call.conf["prevResult"] for call in calls[1:]] == [last] * 3
    assert not web.is_leased


@pytest.mark.cri("chain with portmap and bandwidth")
def test_a_port_of_the_node_leads_to_the_pod_and_is_gone_with_it(stage: Stage) -> None:
    chain(stage, {"type": "portmap", "capabilities": {"portMappings": True}})
    web, internet = stage.a.run(PodSpec("web", ports={8080: 8080})), stage.vpc.internet
    public = stage.vpc.public_address(stage.a.node)
    assert talk(internet, web, public, 8080, at=web.address) == str(internet.address)
    far = stage.b.run("far")
    assert talk(far, web, stage.a.node.primary, 8080, at=web.address) == far.address
    assert web.calls[0].conf.get("prevResult") is None
    web.stop()
    rules = stage.a.node.run(["iptables-save", "-t", "nat"], check=False).stdout
    assert "8080" not in rules
    assert not web.is_leased


@pytest.mark.cri("chain with portmap and bandwidth")
def test_a_pod_s_rates_are_set_by_the_plugin_that_follows(stage: Stage) -> None:
    rates = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "20M"}
    chain(stage, TUNING, {"type": "bandwidth", "capabilities": {"bandwidth": True}})
    web = stage.a.run(PodSpec("web", annotations=rates))
    (veth,) = stage.a.veths()
    told = stage.a.node.run(["tc", "qdisc", "show", "dev", veth]).stdout
    assert "tbf" in told
    assert "rate 10Mbit" in told
    assert web.run("cat", "/proc/sys/net/ipv4/tcp_keepalive_time").strip() == "600"
    far = stage.b.run("far")
    assert talk(web, far, far.address) == web.address
    web.end()
    assert "ifb" not in stage.a.node.run(["ip", "-br", "link"]).stdout


@pytest.mark.cri("chain whose second plugin fails")
def test_what_a_later_plugin_of_the_chain_fails_on_is_given_back(stage: Stage) -> None:
    stage.a.cover("failing")
    stage.a.order("ADD", of="failing", stdout=FAILURE, code=1)
    stage.a.order("DEL", of="failing", stdout="")
    stage.a.configure(lambda conflist: conflist["plugins"].append({"type": "failing"}))
    assert "not today" in stage.a.refused("web")
    assert order_of(stage.a.all_calls()) == [
        "enid-cni ADD", "failing ADD", "failing DEL, no prevResult", "enid-cni DEL, no prevResult",
    ]  # fmt: skip
    ours, theirs, *_ = stage.a.all_calls()
    assert "prevResult" not in ours.conf
    assert theirs.conf["prevResult"]["ips"][0]["address"].endswith("/32")
    stage.a.await_nothing()


# The cache ---------------------------------------------------------------------------------
@pytest.mark.cri("result cache corrupt")
def test_a_corrupt_result_keeps_a_pod_from_ending_but_loses_no_address(stage: Stage) -> None:
    web = stage.a.run("web")
    (cached,) = stage.a.containerd.results()
    cached.write_text("")
    if stage.release.line < (2, 0):
        for _ in range(2):
            with pytest.raises(CriError, match="unexpected end of JSON input"):
                web.stop()
        assert web.shapes == ["ADD"]
        assert web.is_leased
        cached.unlink()
    web.stop()
    assert web.shapes == ["ADD", "DEL, no prevResult"]
    assert not web.is_leased


@pytest.mark.cri("cniVersion")
def test_pods_of_a_conflist_that_is_raised_to_1_1_0_end_where_1_1_0_is_known(stage: Stage) -> None:
    web = stage.a.run("web")
    stage.a.configure(lambda conflist: conflist.update(cniVersion="1.1.0"))
    if stage.release.line < (2, 0):
        with pytest.raises(CriError, match="no converter for CNI result version"):
            web.stop()
        stage.a.configure(lambda _: None)
    web.stop()
    assert not web.is_leased
