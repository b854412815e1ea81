"""The daemon on a node, with the rights that production gives it: killed, torn, garbled."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipamd.cli import DaemonAwayError, ask_status
from ipamd.start import DaemonRunningError, Paths, lock
from ipamd.status import Status
from tests.lab.echo import echo
from tests.lab.patience import PATIENCE
from tests.lab.starts import STARTS
from vpclab.enid import RIGHTS, prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node, PodNetns

SOURCE = STARTS[0]
ROOT = str(Path(__file__).parents[2])
MAIN = f"import sys; sys.path.insert(0, {ROOT!r}); from ipamd.main import main; main()"
"""This checkout's daemon, wherever it runs and whichever checkout is installed."""


def container_id(name: str) -> str:
    return f"{name}-{'0' * 32}"


class Ipamd:
    """One node's daemon, and a runtime that execs the plugin."""

    def __init__(self, node: Node, log: Path, **env: str) -> None:
        self.main = MAIN
        self.node, self.env, self.log = node, env, log
        self.socket = str(node.path("/run/enid/ipamd.sock"))
        self.process: subprocess.Popen[Any] | None = None
        self.pods: dict[str, PodNetns] = {}
        self.plugin = SOURCE.argv
        """The words that start the plugin."""

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = self.node.popen(
                [sys.executable, "-c", self.main], env=self.env, rights=RIGHTS, stderr=log, cwd="/"
            )
        self.wait(lambda s: s is not None, 60)  # a busy machine's Python takes its time

    def status(self) -> Status:
        return ask_status(self.socket)

    def wait(self, until: Callable[[Status], bool], seconds: float = 15) -> Status:
        end = time.monotonic() + seconds * PATIENCE
        while True:
            with contextlib.suppress(DaemonAwayError):
                status = self.status()
                if until(status):
                    return status
            assert time.monotonic() < end, f"it never came:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(15)

    def netns(self, name: str) -> PodNetns:
        if name not in self.pods:
            self.pods[name] = self.node.add_pod_netns(f"cni-{name}")
        return self.pods[name]

    def call(
        self, verb: str, name: str, *, path: str | None = None, **conf: Any
    ) -> tuple[int, dict[str, Any]]:
        path = self.netns(name).path if path is None else path
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id(name),
            "CNI_NETNS": path,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}",
        }
        return self.exec(env, **conf)

    def of_node(self, verb: str, **conf: Any) -> tuple[int, dict[str, Any]]:
        empty = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": "", "CNI_ARGS": ""}
        return self.exec({"CNI_COMMAND": verb, **empty}, cniVersion="1.1.0", **conf)

    def exec(self, env: dict[str, str], **conf: Any) -> tuple[int, dict[str, Any]]:
        stdin = json.dumps({"cniVersion": "1.0.0", "name": "enid", "type": "enid-cni", **conf})
        env = {**env, "CNI_PATH": "/opt/cni/bin"}
        done = self.node.run(self.plugin, env=env, input=stdin, check=False)
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def add(self, name: str) -> IPv4Address:
        code, answer = self.call("ADD", name)
        assert code == 0, answer
        return IPv4Address(answer["ips"][0]["address"].split("/")[0])

    def delete(self, name: str) -> None:
        assert self.call("DEL", name) == (0, {})

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for pod in self.pods.values():
            pod.close()
        if self.log.exists():
            assert "more rights than needed" not in self.log.read_text()


def network_of(node: Node) -> str:
    """Return everything of a node's network that can be changed, without what counts."""
    script = (
        "ip -o link; ip -br addr; ip rule; ip -6 rule; ip -4 route show table all;"
        " ip neigh show nud permanent; nft --stateless list ruleset"
    )
    return node.run(["sh", "-ec", script]).stdout


@pytest.fixture
def ipamd(vpc: EmbeddedVPC, tmp_path: Path) -> Iterator[Ipamd]:
    """Give a daemon of a fresh node that fills its primary ENI only."""
    number = len(vpc.ec2.describe_subnets()["Subnets"]) + 10
    subnet = vpc.add_subnet(f"10.0.{number}.0/24", "us-east-1a")
    node = vpc.launch_node(f"node-{number}", "m5.large", subnet, public=True)
    prepare(node)
    daemon = Ipamd(node, tmp_path / "log", WARM_ENI_TARGET="0")
    yield daemon
    daemon.close()
    node.terminate()


def reaches(pod: PodNetns, address: object) -> bool:
    return echo(pod, address).arrived


def test_it_holds_cap_net_admin_and_nothing_else(ipamd: Ipamd) -> None:
    ipamd.start()
    assert ipamd.process is not None
    status = Path(f"/proc/{ipamd.process.pid}/status").read_text()
    caps = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    assert caps["CapEff"] == caps["CapPrm"] == caps["CapBnd"] == "0000000000001000"
    assert caps["CapAmb"] == caps["CapInh"] == "0000000000000000"
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_a_second_add_gets_the_same_result_and_another_netns_is_refused(ipamd: Ipamd) -> None:
    ipamd.start()
    first = ipamd.call("ADD", "web-0")
    assert first[0] == 0
    assert ipamd.call("ADD", "web-0") == first
    code, answer = ipamd.call("ADD", "web-0", path=ipamd.netns("other").path)
    assert (code, answer["code"]) == (1, 7)
    assert "another network namespace" in answer["msg"]
    assert len(ipamd.status()["leases"]) == 1


def test_del_of_what_nobody_knows_succeeds_and_del_comes_twice(ipamd: Ipamd) -> None:
    ipamd.start()
    ipamd.delete("ghost")
    ipamd.add("web-0")
    ipamd.delete("web-0")
    ipamd.delete("web-0")
    status = ipamd.status()
    assert (status["leases"], len(status["cooling"])) == ([], 1)


def test_an_id_may_live_again_after_its_del(ipamd: Ipamd) -> None:
    ipamd.start()
    first = ipamd.add("web-0")
    ipamd.delete("web-0")
    second = ipamd.add("web-0")
    assert second != first, "the first address cools"


@pytest.mark.parametrize("path", ["/proc/self/ns/net", "/proc/1/ns/net"])
def test_the_nodes_own_netns_is_refused_and_the_node_keeps_its_network(
    ipamd: Ipamd, path: str
) -> None:
    """The box's first process is nobody of the node's: in PIDs of its own the plugin is."""
    ipamd.start()
    ipamd.wait(lambda s: bool(s["enis"]) and s["enis"][0]["free"] == 9)
    before = network_of(ipamd.node)
    ipamd.plugin = ["unshare", "--pid", "--fork", "--mount-proc", *ipamd.plugin]
    code, answer = ipamd.call("ADD", "evil", path=path)
    assert (code, answer["code"]) == (1, 4)
    assert "node's own" in answer["msg"]
    ipamd.delete("evil")
    assert network_of(ipamd.node) == before


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0" * 5000,
        b"enid1 9999999999 0 0 0\n",
        b"enid1 1 1 1 1\nab" * 50,
    ],
    ids=["http", "zeroes", "too-large", "trailing"],
)
def test_garbage_on_the_socket_gets_a_sentence_and_harms_nobody(
    ipamd: Ipamd, garbage: bytes
) -> None:
    ipamd.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(ipamd.socket)
        sock.sendall(garbage)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b'1{"cniVersion"')
    assert ipamd.add("web-0")


def test_a_silent_client_is_sent_away_and_harms_nobody(ipamd: Ipamd) -> None:
    ipamd.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(ipamd.socket)
        sock.sendall(b"enid1 5")
        assert ipamd.add("web-0")
        assert b"incomplete" in sock.recv(65536)


def test_too_many_descriptors_are_closed(ipamd: Ipamd) -> None:
    ipamd.start()
    assert ipamd.process is not None
    open_files = Path(f"/proc/{ipamd.process.pid}/fd")
    before = len(list(open_files.iterdir()))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(ipamd.socket)
        socket.send_fds(sock, [b"enid1 0 0 0 0\n"], [sock.fileno()] * 60)
        assert sock.recv(65536).startswith(b"1")
    ipamd.wait(lambda _: len(list(open_files.iterdir())) <= before + 1)


def test_a_caller_that_is_not_root_is_refused(ipamd: Ipamd) -> None:
    ipamd.start()
    os.chmod(ipamd.socket, 0o777)  # noqa: S103,PTH101 - the test is about who calls, not the file's mode
    script = (
        "import os,socket;os.setuid(65534);s=socket.socket(1);"
        f"s.connect({ipamd.socket!r});print(s.recv(999).decode())"
    )
    for folder in Path(ipamd.socket).parents:
        if str(folder).startswith("/run/"):
            folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if "Invalid argument" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("an ordinary user's box has one uid only")
    assert "uid 65534 may not talk to ipamd" in done.stdout


def test_killed_and_started_again_every_lease_is_there(ipamd: Ipamd) -> None:
    ipamd.start()
    held = {name: ipamd.add(name) for name in ("web-0", "web-1", "db-0")}
    ipamd.delete("db-0")
    before = ipamd.status()
    ipamd.kill()
    assert reaches(ipamd.netns("web-0"), held["web-1"]), "no daemon, but the wires stay"
    ipamd.start()
    after = ipamd.status()
    assert after["leases"] == before["leases"]
    assert [c["address"] for c in after["cooling"]] == [str(held["db-0"])]
    assert ipamd.add("web-2") not in set(held.values())


def test_leases_come_back_from_the_kernel_when_the_file_is_gone_or_torn(ipamd: Ipamd) -> None:
    ipamd.start()
    held = {name: ipamd.add(name) for name in ("web-0", "web-1")}
    for torn in (False, True):
        ipamd.kill()
        folder = ipamd.node.path("/run/enid")
        for path in folder.glob("leases.db-*"):
            path.unlink()
        if torn:
            (folder / "leases.db").write_bytes(b"torn" * 1000)
        else:
            (folder / "leases.db").unlink()
        ipamd.start()
        leases = {lease["address"] for lease in ipamd.status()["leases"]}
        assert leases == {str(a) for a in held.values()}
    assert list(ipamd.node.path("/run/enid").glob("leases.db.unreadable-*"))
    ipamd.delete("web-0")
    assert len(ipamd.status()["leases"]) == 1


def test_an_unreadable_journal_stops_growth_only_and_is_left_alone(ipamd: Ipamd) -> None:
    ipamd.start()
    ipamd.add("web-0")
    ipamd.stop()
    path = ipamd.node.path("/var/lib/enid/journal.db")
    torn = path.read_bytes()[:5000]
    path.write_bytes(torn)
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    ipamd.start()
    status = ipamd.wait(lambda s: bool(s["enis"] and s["enis"][0]["free"]))
    assert status["mode"] == "no-journal"
    assert "left as it is" in str(status["trouble"])
    ipamd.add("web-1")
    assert path.read_bytes() == torn


def test_a_del_that_came_while_it_was_away_is_done_when_it_is_back(ipamd: Ipamd) -> None:
    ipamd.start()
    address = ipamd.add("web-0")
    ipamd.kill()
    ipamd.delete("web-0")
    ipamd.start()
    status = ipamd.wait(lambda s: not s["leases"])
    assert [c["address"] for c in status["cooling"]] == [str(address)]
    assert not list(ipamd.node.path("/run/enid/spool").iterdir())


def test_a_pod_whose_netns_vanished_is_released_after_two_looks(ipamd: Ipamd) -> None:
    ipamd.start()
    ipamd.add("web-0")
    ipamd.pods.pop("web-0").close()
    assert len(ipamd.status()["leases"]) == 1
    ipamd.wait(lambda s: not s["leases"], seconds=50)
    assert len(ipamd.status()["cooling"]) == 1


def test_adds_wait_for_an_eni_and_are_answered_in_order(ipamd: Ipamd, vpc: EmbeddedVPC) -> None:
    vpc.delays.attach_seconds = 1.0
    try:
        ipamd.start()
        for number in range(9):
            ipamd.add(f"web-{number}")
        started = time.monotonic()
        addresses = [ipamd.add(f"late-{number}") for number in range(2)]
        assert 0.1 < time.monotonic() - started < 20
    finally:
        vpc.delays.attach_seconds = 0.0
    second = ipamd.status()["enis"][1]
    assert second["table"] == "2"
    assert second["assigned"] == 2
    assert len(set(addresses)) == 2


def test_a_waiting_add_that_is_deleted_is_answered_at_once(ipamd: Ipamd) -> None:
    ipamd.env["MAX_ENI"] = "1"
    ipamd.start()
    for number in range(9):
        ipamd.add(f"web-{number}")
    answers: list[tuple[int, dict[str, Any]]] = []
    ipamd.netns("late")
    thread = threading.Thread(target=lambda: answers.append(ipamd.call("ADD", "late")))
    thread.start()
    ipamd.wait(lambda s: s["waiting"] == 1)
    ipamd.delete("late")
    thread.join(10)
    assert answers[0][1]["code"] == 11
    assert "deleted while it waited" in answers[0][1]["msg"]
    assert ipamd.status()["waiting"] == 0


def test_a_waiting_add_whose_plugin_is_killed_gives_its_place_up(ipamd: Ipamd) -> None:
    ipamd.env["MAX_ENI"] = "1"
    ipamd.env["IP_COOLDOWN_PERIOD"] = "0"
    ipamd.start()
    for number in range(9):
        ipamd.add(f"web-{number}")
    env = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "dead", "CNI_IFNAME": "eth0",
        "CNI_NETNS": ipamd.netns("dead").path,
    }  # fmt: skip
    plugin = ipamd.node.popen(ipamd.plugin, env=env, stdin=subprocess.PIPE)
    assert plugin.stdin is not None
    plugin.stdin.write(b'{"cniVersion":"1.0.0","name":"enid"}')
    plugin.stdin.close()
    ipamd.wait(lambda s: s["waiting"] == 1)
    plugin.kill()
    plugin.wait()
    ipamd.wait(lambda s: s["waiting"] == 0)
    ipamd.delete("web-0")
    ipamd.wait(lambda s: s["enis"][0]["free"] == 1)
    assert len(ipamd.status()["leases"]) == 8


# CHECK, STATUS, GC ---------------------------------------------------------------------
def test_a_check_after_a_restart_finds_the_wire_as_it_was(ipamd: Ipamd) -> None:
    ipamd.start()
    _, result = ipamd.call("ADD", "web-0", mtu=1500)
    ipamd.kill()
    ipamd.start()
    assert ipamd.call("CHECK", "web-0", prevResult=result) == (0, {})


def refusal(answer: tuple[int, dict[str, Any]]) -> str:
    code, told = answer
    assert (code, told["code"]) == (1, 50)
    return str(told["msg"])


def test_a_nodes_promise_begins_with_its_first_address_and_outlives_the_daemon(
    ipamd: Ipamd,
) -> None:
    assert "has not run on this node" in refusal(ipamd.of_node("STATUS"))
    ipamd.env["DISABLE_NETWORK_RESOURCE_PROVISIONING"] = "true"
    ipamd.start()
    assert "no address has been usable on this node" in refusal(ipamd.of_node("STATUS"))
    ipamd.stop()
    del ipamd.env["DISABLE_NETWORK_RESOURCE_PROVISIONING"]
    ipamd.start()
    ipamd.wait(lambda s: bool(s["enis"] and s["enis"][0]["free"]))
    ipamd.wait(lambda _: ipamd.of_node("STATUS") == (0, {}))
    ipamd.kill()
    assert ipamd.of_node("STATUS") == (0, {}), "a daemon that restarts takes no node away"


def test_exhaustion_and_a_restart_break_no_promise_unless_one_setting_says_so(
    ipamd: Ipamd,
) -> None:
    ipamd.env["MAX_ENI"] = "1"
    ipamd.start()
    for number in range(9):
        ipamd.add(f"web-{number}")
    assert ipamd.of_node("STATUS") == (0, {})
    ipamd.kill()
    ipamd.env["ENID_STATUS_FAILS_WHEN_FULL"] = "true"
    ipamd.start()
    ipamd.wait(lambda _: ipamd.of_node("STATUS")[0] == 1)
    assert refusal(ipamd.of_node("STATUS")) == (
        "no address for another pod: 9 of 9 in use, 1 of 1 ENIs"
    )


def test_a_gc_releases_what_the_runtime_no_longer_knows_and_nothing_young(ipamd: Ipamd) -> None:
    ipamd.start()
    for name in ("known", "lost"):
        ipamd.add(name)
    valid = [{"containerID": container_id("known"), "ifname": "eth0"}]
    listed = {"cni.dev/valid-attachments": valid}
    assert ipamd.of_node("GC", **listed) == (0, {})
    assert len(ipamd.status()["leases"]) == 2, "both are younger than the guard"
    ipamd.kill()
    age(ipamd.node.path("/run/enid/leases.db"))
    ipamd.start()
    assert ipamd.of_node("GC", name="another", **listed) == (0, {})
    code, answer = ipamd.of_node("GC")
    assert (code, answer["code"]) == (1, 7)
    assert "nothing is released" in answer["msg"]
    assert len(ipamd.status()["leases"]) == 2
    assert ipamd.of_node("GC", **listed) == (0, {})
    (lease,) = ipamd.status()["leases"]
    assert lease["container_id"] == container_id("known")
    assert len(ipamd.status()["cooling"]) == 1
    assert "released by gc" in ipamd.log.read_text()


def age(path: Path) -> None:
    """Make every lease as old as a guard and more."""
    with contextlib.closing(sqlite3.connect(path)) as leases, leases:
        leases.execute("UPDATE leases SET since = since - 1000, started_ns = 0")


def test_a_second_daemon_says_who_holds_the_lock(ipamd: Ipamd) -> None:
    ipamd.start()
    assert ipamd.process is not None
    folder = ipamd.node.path("/run/enid")
    with pytest.raises(DaemonRunningError, match=f"pid {ipamd.process.pid}"):
        lock(Paths(run=folder, state=folder), wait_seconds=0.0)


def test_settings_that_cannot_be_are_refused_at_once(ipamd: Ipamd) -> None:
    env = {"MAX_ENI": "-1", "WARM_IP_TARGET": "x"}
    done = ipamd.node.run([sys.executable, "-c", MAIN], env=env, rights=RIGHTS, check=False)
    assert done.returncode == 78
    assert "MAX_ENI=-1 is below 1" in done.stderr
    assert "WARM_IP_TARGET" in done.stderr


def test_a_node_that_does_not_forward_is_refused_with_the_sysctl(ipamd: Ipamd) -> None:
    ipamd.node.worker.write_sysctls({"net.ipv4.ip_forward": "0"})
    done = ipamd.node.run([sys.executable, "-c", MAIN], rights=RIGHTS, check=False)
    ipamd.node.worker.write_sysctls({"net.ipv4.ip_forward": "1"})
    assert done.returncode == 78
    assert "net.ipv4.ip_forward is 0 and must be 1" in done.stderr


def test_what_a_kernel_lacks_is_said_before_imds_has_answered(ipamd: Ipamd) -> None:
    """A namespace of its own knows no way to IMDS."""
    script = 'echo 0 >/proc/sys/net/ipv4/ip_forward; exec "$@"'
    argv = ["sh", "-c", script, "sh", *RIGHTS.entry(), sys.executable, "-c", MAIN]
    done = ipamd.netns("alone").run(argv, check=False)
    assert done.returncode == 78
    assert "net.ipv4.ip_forward is 0 and must be 1" in done.stderr
    assert "more rights than needed" not in done.stderr


def fetch(ipamd: Ipamd, path: str) -> tuple[int, str]:
    script = (
        "import urllib.request as u, urllib.error as e\n"
        f"try: r = u.urlopen('http://127.0.0.1:61678{path}')\n"
        "except e.HTTPError as error: r = error\n"
        "print(r.status); print(r.read().decode())"
    )
    status, _, body = ipamd.node.run([sys.executable, "-c", script]).stdout.partition("\n")
    return int(status), body


def test_health_readiness_and_metrics(ipamd: Ipamd) -> None:
    ipamd.start()
    ipamd.add("web-0")
    ipamd.wait(lambda s: s["ready"])
    assert fetch(ipamd, "/healthz") == (200, "ok\n\n")
    assert fetch(ipamd, "/readyz")[0] == 200
    assert fetch(ipamd, "/etc/passwd")[0] == 404
    code, text = fetch(ipamd, "/metrics")
    assert code == 200
    assert 'enid_request_seconds_count{result="ok",verb="ADD"} 1.0' in text
    assert 'enid_mode{mode="normal"} 1.0' in text
    assert 'enid_ec2_calls_total{action="AssignPrivateIpAddresses"} 1.0' in text
    assert 'state="assigned"} 1.0' in text


def test_ec2s_limits_win_over_the_shipped_table(ipamd: Ipamd) -> None:
    from moto.ec2.models.instance_types import INSTANCE_TYPES  # noqa: PLC0415 - moto is slow

    network = INSTANCE_TYPES["m5.large"]["NetworkInfo"]
    shipped = network["Ipv4AddressesPerInterface"]
    network["Ipv4AddressesPerInterface"] = 6
    try:
        ipamd.start()
        ipamd.wait(lambda s: bool(s["enis"]) and s["enis"][0]["slots"] == 5)
    finally:
        network["Ipv4AddressesPerInterface"] = shipped


def test_it_stops_when_told_and_the_wires_stay(ipamd: Ipamd) -> None:
    ipamd.start()
    a, b = ipamd.add("web-0"), ipamd.add("web-1")
    assert ipamd.stop() == 0
    assert a != b
    assert reaches(ipamd.netns("web-0"), b)
    assert "cannot" not in ipamd.log.read_text()
