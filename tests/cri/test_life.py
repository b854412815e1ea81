"""What a container runtime does with pods that come and go, and what becomes of them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.cri.client import NODE_NETWORK, NOT_READY, READY, PodSpec
from tests.cri.stage import Stage
from tests.lab.talk import talk
from vpclab.containerd import NETNS, poll
from vpclab.runtime import BIN_DIR


@pytest.mark.cri("pods of two nodes")
def test_pods_of_two_nodes_talk_as_themselves(stage: Stage) -> None:
    web, near, far = stage.a.run("web"), stage.a.run("near"), stage.b.run("far")
    stage.vpc.reset_drops()
    for one, other in ((web, far), (far, web), (web, near)):
        assert talk(one, other, other.address) == one.address
    assert "1 packets received" in web.run("ping", "-c1", "-W2", far.address)
    assert not any(stage.vpc.drops().values())


@pytest.mark.cri("pods of two nodes")
def test_pods_and_nodes_talk(stage: Stage) -> None:
    web = stage.a.run("web")
    for machine in (stage.a, stage.b):
        assert talk(web, machine.node, machine.node.primary) == web.address
    assert talk(stage.b.node, web, web.address) == str(stage.b.node.primary)


@pytest.mark.cri("the internet")
def test_the_internet_sees_a_pod_as_its_node(stage: Stage) -> None:
    internet = stage.vpc.internet
    for machine in (stage.a, stage.b):
        pod = machine.run("web")
        assert talk(pod, internet, internet.address) == str(stage.vpc.public_address(machine.node))


@pytest.mark.cri("normal life")
def test_a_pod_is_added_once_and_deleted_again_and_again(stage: Stage) -> None:
    web = stage.a.run("web")
    assert web.shapes == ["ADD"]
    web.stop()
    assert web.shapes == ["ADD", "DEL"]
    assert not web.is_leased
    web.stop()
    web.remove()
    without = "DEL, no netns, no prevResult"
    assert web.shapes == ["ADD", "DEL", without, without]
    assert web.calls[1].conf["prevResult"]["ips"][0]["address"].endswith("/32")


@pytest.mark.cri("normal life")
def test_no_process_of_a_pod_runs_before_its_add_is_over_nor_at_its_del(stage: Stage) -> None:
    with stage.a.holding("ADD", plugin=True) as held:
        begun = stage.a.begin("web")
        held()
        assert stage.a.containerd.processes() == []
    web = begun.result(60)
    web.run("ip", "link")
    assert len(stage.a.containerd.processes()) == 2, "pause and a container"
    with stage.a.holding("DEL", become=True) as held:
        ended = stage.a.in_background(web.stop)
        held()
        assert stage.a.containerd.processes() == []
        (netns,) = stage.a.containerd.namespaces()
        assert web.calls[1].env["CNI_NETNS"] == f"{NETNS}/{netns}"
    ended.result(60)


@pytest.mark.cri("normal life")
def test_nothing_else_is_ever_called(stage: Stage) -> None:
    web = stage.a.run("web")
    for _ in range(3):
        assert stage.a.cri.network_ready() == (True, "")
        assert web.address
    web.end()
    assert set(stage.a.verbs()) == {"ADD", "DEL"}, "the conflist is 1.0.0, so 2.x asks no STATUS"


@pytest.mark.cri("what a call carries")
def test_what_a_call_carries(stage: Stage) -> None:
    spec = PodSpec("web-0", namespace="prod")
    web = stage.a.run(spec)
    (call,) = web.calls
    assert call.argv == [f"{BIN_DIR}/enid-cni"]
    assert call.uid == 0
    assert re.fullmatch("[0-9a-f]{64}", call.container_id)
    assert call.env["CNI_NETNS"].startswith(f"{NETNS}/cni-")
    assert (call.env["CNI_IFNAME"], call.env["CNI_PATH"]) == ("eth0", BIN_DIR)
    assert call.args == {
        "K8S_POD_NAMESPACE": "prod",
        "K8S_POD_NAME": "web-0",
        "K8S_POD_UID": spec.uid,
        "K8S_POD_INFRA_CONTAINER_ID": web.sandbox,
        "IgnoreUnknown": "1",
    }
    assert call.conf["name"] == "enid"
    assert "prevResult" not in call.conf
    inode = stage.a.node.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
    assert call.netns == inode, "it runs in the node's own namespace"
    (lease,) = stage.a.status()["leases"]
    assert lease["pod"] == "prod/web-0"
    web.stop()
    assert web.calls[1].args == call.args


@pytest.mark.cri("what a call carries")
def test_a_plugin_inherits_what_the_runtime_has(stage: Stage) -> None:
    """Whatever a service manager gave the runtime, the plugin gets; so it must not mind."""
    web = stage.a.run("web")
    web.stop()
    process = stage.a.containerd.process
    assert process is not None
    runtime = Path("/proc", str(process.pid))
    given = dict(w.split("=", 1) for w in (runtime / "environ").read_text().split("\0") if w)
    for call in web.calls:
        assert call.cwd == str((runtime / "cwd").readlink())
        assert call.session == os.getsid(process.pid)
        assert call.cgroup == (runtime / "cgroup").read_text()
        names = {name for name in call.env if not name.startswith(("CNI_", "LC_"))}
        assert names == {*given, "LD_LIBRARY_PATH"}, "the last is containerd's; LC_ the recorder's"
        assert given["PATH"] in call.env["PATH"]


@pytest.mark.cri("what a call carries")
def test_what_the_runtime_knows_of_a_pod_is_handed_on_by_capability(stage: Stage) -> None:
    told = {"portMappings", "bandwidth", "dns", "io.kubernetes.cri.pod-annotations"}
    told |= {"cgroupPath"} if stage.release.line >= (1, 7) else set()
    never = ("ips", "mac", "ipRanges", "aliases", "io.kubernetes.cri.pod-labels")

    def capable(conflist: dict[str, object]) -> None:
        words = (*told, "cgroupPath", *never)
        conflist["plugins"][0]["capabilities"] = dict.fromkeys(words, True)  # type: ignore[index]  # JSON

    stage.a.configure(capable)
    rates = {"kubernetes.io/ingress-bandwidth": "10M"}
    ports = {8080: 80, 0: 81}
    spec = PodSpec("shaped", annotations=rates, ports=ports, servers=("10.0.0.2",))
    plain, shaped = stage.a.run("plain"), stage.a.run(spec)
    none, some = (pod.calls[0].conf["runtimeConfig"] for pod in (plain, shaped))
    assert "io.kubernetes.cri.pod-annotations" in none
    assert none["io.kubernetes.cri.pod-annotations"] is None
    assert set(some) == told
    assert some["io.kubernetes.cri.pod-annotations"] == rates
    assert some["bandwidth"]["IngressRate"] == 10_000_000, "capitalised, unlike the convention"
    assert some["bandwidth"]["IngressBurst"] == 2**32 - 1
    assert some["portMappings"] == [
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}
    ], "one without a port of the node is dropped"
    assert some["dns"] == {"Servers": ["10.0.0.2"], "Searches": None, "Options": None}
    if "cgroupPath" in told:
        assert some["cgroupPath"] == stage.a.containerd.cgroup
    assert talk(plain, shaped, shaped.address) == plain.address


@pytest.mark.cri("a pod's MTU")
def test_a_pod_s_mtu_is_its_annotation_s_else_the_node_s(stage: Stage) -> None:
    with stage.a.daemon(POD_MTU="1500"):
        plain, far = stage.a.run("plain"), stage.b.run("far")
        small = stage.a.run(PodSpec("small", annotations={"enid.dev/mtu": "1400"}))
        mtus = [re.findall(r"mtu (\d+)", p.run("ip", "link", "show", "eth0")) for p in (plain, small, far)]  # fmt: skip
        assert mtus == [["1500"], ["1400"], ["9001"]]
        assert talk(small, far, far.address) == small.address
        said = stage.a.refused(PodSpec("large", annotations={"enid.dev/mtu": "9002"}))
        assert "the pod's annotation enid.dev/mtu='9002' is not within 576 to 9001" in said


@pytest.mark.cri("the result")
def test_the_result_s_indices_are_right(stage: Stage) -> None:
    web = stage.a.run("web")
    told = stage.a.cri.info(web.sandbox)["cniResult"]["Interfaces"]
    assert [c["IP"] for c in told["eth0"]["IPConfigs"]] == [web.address]
    assert told["eth0"]["Sandbox"] == web.calls[0].env["CNI_NETNS"]
    (host,) = set(told) - {"eth0", "lo"}
    assert [host] == stage.a.veths()
    shown = stage.a.node.run(["ip", "link", "show", host]).stdout, web.run("ip", "link", "show", "eth0")  # fmt: skip
    macs = [word for text in shown for word in re.findall(r"link/ether (\S+)", text)]
    assert [told[host]["Mac"], told["eth0"]["Mac"]] == macs
    (cached,) = stage.a.containerd.results()
    result = json.loads(cached.read_text())["result"]
    for ip in result["ips"]:
        assert ip["interface"] < len(result["interfaces"]), "one more ends containerd by a panic"
        assert result["interfaces"][ip["interface"]]["name"] == "eth0"


@pytest.mark.cri("the result")
def test_what_was_answered_comes_back_with_the_del(stage: Stage) -> None:
    web = stage.a.run("web")
    (cached,) = stage.a.containerd.results()
    kept = json.loads(cached.read_text())
    web.stop()
    assert web.calls[1].conf["prevResult"] == kept["result"]
    assert stage.a.containerd.results() == []


@pytest.mark.cri("two sandboxes of one pod")
def test_a_pod_may_have_two_sandboxes_and_each_has_its_own_address(stage: Stage) -> None:
    spec = PodSpec("web", uid="one-and-the-same")
    with stage.a.holding("ADD", become=True) as held:
        first = stage.a.begin(spec)
        held()
        assert "failed to reserve sandbox name" in stage.a.refused(spec)
        stage.a.forget_orders()
        second = stage.a.run(PodSpec("web", uid=spec.uid, attempt=1))
        stage.a.order("ADD")
    former = first.result(60)
    assert former.address != second.address
    leases = {lease["container_id"]: lease for lease in stage.a.status()["leases"]}
    assert set(leases) == {former.sandbox, second.sandbox}
    assert [lease["superseded"] for lease in leases.values()].count(True) == 1
    former.end()
    assert stage.a.leases() == [second.sandbox]
    assert talk(stage.b.node, second, second.address) == str(stage.b.node.primary)


@pytest.mark.cri("many at once")
def test_many_pods_come_and_go_at_once(stage: Stage) -> None:
    begun = [stage.a.begin(f"web-{number}") for number in range(12)]
    pods = [future.result(60) for future in begun]
    assert len({pod.address for pod in pods}) == len(pods)
    assert stage.a.leases() == sorted(pod.sandbox for pod in pods)
    last = pods[-1]
    assert all(talk(pod, last, last.address) == pod.address for pod in pods[:-1])
    for future in [stage.a.in_background(pod.end) for pod in pods]:
        future.result(60)
    assert not stage.a.leases()


@pytest.mark.cri("hostNetwork")
def test_a_pod_on_the_node_s_network_is_not_ours(stage: Stage) -> None:
    proxy = stage.a.run(PodSpec("proxy", namespaces={"network": NODE_NETWORK}))
    assert stage.a.cri.state(proxy.sandbox) == READY
    proxy.end()
    assert stage.a.calls() == []


@pytest.mark.cri("pause dies")
def test_a_sandbox_whose_process_dies_keeps_its_address_until_it_is_stopped(stage: Stage) -> None:
    web = stage.a.run("web")
    os.kill(web.pid, signal.SIGKILL)
    poll(lambda: stage.a.cri.state(web.sandbox) == NOT_READY, "the sandbox is not ready")
    assert web.shapes == ["ADD"]
    assert web.is_leased
    web.stop()
    assert web.shapes == ["ADD", "DEL"]
    assert not web.is_leased


@pytest.mark.cri("netns gone before Stop")
def test_a_namespace_that_was_unmounted_is_deleted_all_the_same(stage: Stage) -> None:
    web = stage.a.run("web")
    path = web.calls[0].env["CNI_NETNS"]
    stage.a.node.run(["umount", path])
    stage.a.node.run(["rm", path])
    web.stop()
    assert web.shapes == ["ADD", "DEL, no netns"]
    assert not web.is_leased
    assert stage.a.veths() == []


@pytest.mark.cri("runtime restarts")
def test_a_runtime_that_restarts_finds_its_pods_as_they_were(stage: Stage) -> None:
    web, far = stage.a.run("web"), stage.b.run("far")
    address = web.address
    stage.a.containerd.restart()
    assert web.shapes == ["ADD"]
    assert web.address == address
    assert talk(web, far, far.address) == address
    web.stop()
    assert web.shapes == ["ADD", "DEL"]


@pytest.mark.cri("user namespace")
def test_a_pod_with_a_user_namespace_of_its_own_is_wired_as_any_other(stage: Stage) -> None:
    if stage.release.line < (1, 7):
        pytest.skip("1.6 knows no user namespaces")
    ids = [{"host_id": 100_000, "container_id": 0, "length": 65_536}]
    spec = PodSpec("web", namespaces={"userns_options": {"uids": ids, "gids": ids}})
    web, far = stage.a.run(spec), stage.b.run("far")
    ours = stage.a.node.run(["readlink", "/proc/self/ns/user"]).stdout
    assert stage.a.node.run(["readlink", f"/proc/{web.pid}/ns/user"]).stdout != ours
    assert talk(web, far, far.address) == web.address
    assert talk(far, web, web.address) == far.address
    assert "1 packets received" in web.run("ping", "-c1", "-W2", far.address)
    web.end()
    assert not web.is_leased
