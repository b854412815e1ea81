"""The plugin as a runtime execs it, on a node without a daemon and with a fake one.

Each test runs on the source and on each file that was built of it (tests/lab/starts.py).
"""

from __future__ import annotations

import array
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni import rtnl
from cni.frame import Frame, FrameReader
from cni.heartbeat import Heartbeat
from tests.lab.patience import PATIENCE
from tests.lab.starts import STARTS, Start

if TYPE_CHECKING:
    from vpclab.node import Node, PodNetns

CONF = b'{"cniVersion":"0.4.0","name":"enid","type":"enid-cni"}'
ID = "a1" * 32


class Plugin:
    """One node's plugin, started in one of the ways there are."""

    def __init__(self, node: Node, start: Start) -> None:
        self.node, self.start = node, start
        self.socket = node.path("/run/enid/ipamd.sock")
        self.spool = node.path("/run/enid/spool")
        self.heartbeat = node.path("/run/enid/heartbeat")
        self.wrapper: list[str] = []
        self.clean()

    def clean(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.heartbeat.unlink(missing_ok=True)
        shutil.rmtree(self.spool, ignore_errors=True)

    def spooled(self) -> list[Path]:
        return list(self.spool.iterdir()) if self.spool.exists() else []

    def run(
        self, stdin: bytes = CONF, timeout: float = 20, **env: str | None
    ) -> tuple[int, dict[str, object]]:
        full = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": ID,
            "CNI_NETNS": "/run/netns/none",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
        } | env
        done: Any = self.node.run(
            [*self.wrapper, *self.start.argv],
            env={k: v for k, v in full.items() if v is not None},
            check=False,
            timeout=timeout * PATIENCE,
            input=stdin,
            text=False,
        )
        assert done.stderr == b""
        return done.returncode, json.loads(done.stdout) if done.stdout else {}

    def of_node(self, verb: str, stdin: bytes) -> tuple[int, dict[str, object]]:
        """Run a verb that is about no sandbox: libcni leaves its variables empty."""
        empty = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""}
        return self.run(stdin, 20, CNI_COMMAND=verb, **empty)


@pytest.fixture(params=STARTS, ids=lambda start: start.name)
def plugin(request: pytest.FixtureRequest, nodes: tuple[Node, Node]) -> Plugin:
    return Plugin(nodes[0], request.param)


@pytest.fixture
def pod(nodes: tuple[Node, Node]) -> Iterator[PodNetns]:
    pod = nodes[0].add_pod_netns("cni-plugin-test")
    yield pod
    pod.close()


class FakeDaemon:
    """Accepts, reads a frame with its descriptors, and does what it is told."""

    def __init__(self, plugin: Plugin, *answers: bytes | None, early: bool = False) -> None:
        self._early = early
        self.frames: list[Frame] = []
        self.descriptors: list[list[int]] = []
        self._answers = answers
        plugin.socket.parent.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(plugin.socket))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            client, _ = self._listener.accept()
            with client:
                if answer is not None and self._early:
                    client.sendall(answer)
                    continue
                reader, frame, numbers = FrameReader(), None, array.array("i")
                while frame is None:
                    data, rights, _, _ = client.recvmsg(65536, 1024)
                    for _, _, payload in rights:
                        numbers.frombytes(payload)
                    frame = reader.feed(data)
                self.frames.append(frame)
                self.descriptors.append(list(numbers))
                if answer is not None:
                    client.sendall(answer)

    def __enter__(self) -> FakeDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()
        for numbers in self.descriptors:
            for number in numbers:
                os.close(number)


@pytest.mark.parametrize(
    ("stdin", "version"), [(b"", "1.1.0"), (b'{"cniVersion":"0.3.1"}', "0.3.1")]
)
def test_version_needs_no_daemon_and_is_told_in_the_version_asked_in(
    plugin: Plugin, stdin: bytes, version: str
) -> None:
    code, answer = plugin.run(stdin, CNI_COMMAND="VERSION", CNI_CONTAINERID=None, CNI_NETNS=None)
    assert (code, answer["cniVersion"]) == (0, version)
    assert answer["supportedVersions"] == ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        pytest.param(b"not json", "is not a JSON object", id="not-json"),
        pytest.param(b"[]", "is not a JSON object", id="a-list"),
        pytest.param(b'"1.0.0"', "is not a JSON object", id="a-text"),
        pytest.param(b'{"cniVersion":"1.0.0"', "is not a JSON object", id="cut-short"),
        pytest.param(b"{" * 10_000_000, "is over 1048576 bytes", id="10-MB"),
    ],
)
def test_version_of_what_is_no_object_is_refused(plugin: Plugin, stdin: bytes, words: str) -> None:
    status, answer = plugin.run(stdin, CNI_COMMAND="VERSION")
    assert (status, answer["code"]) == (1, 6)
    assert words in str(answer["msg"])


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        pytest.param(b'{"cniVersion":"9.9.9"}', "9.9.9", id="a-version-to-come"),
        pytest.param(b'{"cniVersion":"0.1.0"}', "0.1.0", id="a-former-one"),
        pytest.param(b"{}", "1.0.0", id="none"),
        pytest.param(b'{"cniVersion":1}', "1.0.0", id="a-number"),
        pytest.param(b'{"prevResult":{"cniVersion":"0.3.0"},"cniVersion":"1.1.0"}', "1.1.0", id="behind-a-result"),
    ],
)  # fmt: skip
def test_version_answers_whoever_does_not_know_ours(
    plugin: Plugin, stdin: bytes, version: str
) -> None:
    """The specification wants the caller's version back; ours are in the list."""
    status, answer = plugin.run(stdin, CNI_COMMAND="VERSION")
    assert (status, answer["cniVersion"]) == (0, version)
    assert answer["supportedVersions"] == ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


# STATUS and GC: about the node, so there is no sandbox ------------------------------------
CONF_11 = b'{"cniVersion":"1.1.0","name":"enid","type":"enid-cni"}'
DAEMON_AWAY = "see the ipamd pod of this node, and `enid status`"


def beat(plugin: Plugin, data: bytes) -> None:
    plugin.heartbeat.parent.mkdir(parents=True, exist_ok=True)
    plugin.heartbeat.write_bytes(data)


def seconds_ago(seconds: float) -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(seconds * 1e9)


def test_a_node_whose_daemon_beats_is_promised(plugin: Plugin) -> None:
    beat(plugin, Heartbeat(seconds_ago(100), 120, 0, "", usable=True, boot_id="b").encode())
    assert plugin.of_node("STATUS", CONF_11) == (0, {})


@pytest.mark.parametrize(
    ("ago", "data", "words"),
    [
        pytest.param(None, b"", "ipamd has not run on this node since it was booted", id="never"),
        pytest.param(121, b"120 0 usable=1\n\n", r"ipamd has been silent for 1[23]\d s", id="silent"),
        pytest.param(1, b"120 50\nno address yet\nmore\n", "no address yet", id="not-usable"),
        pytest.param(-60, b"120 0\n\n", "ipamd has not run on this node since it was booted", id="of-a-former-boot"),
        pytest.param(1, b"soon 0\n", "/run/enid/heartbeat is unreadable", id="no-number"),
        pytest.param(1, b"", "/run/enid/heartbeat is unreadable", id="torn"),
        pytest.param(1, b"120 50", "/run/enid/heartbeat is unreadable", id="no-sentence"),
        pytest.param(1, b"120 50\n\n", "/run/enid/heartbeat is unreadable", id="an-empty-sentence"),
    ],
)  # fmt: skip
def test_a_node_without_a_promise_says_why(
    plugin: Plugin, ago: int | None, data: bytes, words: str
) -> None:
    if ago is not None:
        beat(plugin, b"enid1 %d " % seconds_ago(ago) + data)
    status, answer = plugin.of_node("STATUS", CONF_11)
    assert (status, answer["code"], answer["cniVersion"]) == (1, 50, "1.1.0")
    assert re.fullmatch(words, str(answer["msg"]))
    assert answer["details"] == DAEMON_AWAY


@pytest.mark.parametrize(
    ("more", "words"),
    [
        pytest.param('"ipam":{"type":"host-local"}', "ipam of type \"host-local\" cannot be used", id="anothers-ipam"),
        pytest.param('"ipam":"dhcp"', "ipam of type \"dhcp\" cannot be used", id="ipam-a-text"),
        pytest.param('"IPAM":{"Type":"host-local"}', "ipam of type \"host-local\"", id="ipam-as-go-reads"),
        pytest.param('"name":""', "is not a network's name", id="no-name"),
        pytest.param('"name":"a/b"', "is not a network's name", id="a-name-that-is-a-path"),
        pytest.param('"mtu":100', "mtu 100 is not within 576 to 9001", id="mtu-too-small"),
        pytest.param('"mtu":"1500"', "is not within 576 to 9001", id="mtu-a-text"),
        pytest.param('"deadlineSeconds":5', "is not a whole number within 10 to 240", id="deadline"),
    ],
)  # fmt: skip
def test_no_promise_is_made_for_a_configuration_that_each_add_is_refused_for(
    plugin: Plugin, more: str, words: str
) -> None:
    beat(plugin, Heartbeat(seconds_ago(1), 120, 0, "", usable=True, boot_id="b").encode())
    status, answer = plugin.of_node("STATUS", CONF_11[:-1] + b",%b}" % more.encode())
    assert (status, answer["code"], answer["cniVersion"]) == (1, 7, "1.1.0")
    assert words in str(answer["msg"])


@pytest.mark.parametrize("ipam", ["null", "{}", '""', '{"type":"enid-cni"}', '{"type":null}'])
def test_an_ipam_section_that_is_ours_or_nobodys_is_no_reason(plugin: Plugin, ipam: str) -> None:
    beat(plugin, Heartbeat(seconds_ago(1), 120, 0, "", usable=True, boot_id="b").encode())
    assert plugin.of_node("STATUS", CONF_11[:-1] + b',"ipam":%b}' % ipam.encode()) == (0, {})


def test_status_came_with_1_1_0(plugin: Plugin) -> None:
    status, answer = plugin.of_node("STATUS", CONF)
    assert (status, answer["code"]) == (1, 1)
    assert answer["msg"] == "cniVersion 0.4.0 does not allow STATUS"


def test_a_gc_comes_without_descriptors_and_tells_since_when_its_runtime_runs(
    plugin: Plugin,
) -> None:
    with FakeDaemon(plugin, b"0") as daemon:
        assert plugin.of_node("GC", CONF_11) == (0, {})
        assert daemon.descriptors == [[]]
        (frame,) = daemon.frames
    assert frame.env["CNI_COMMAND"] == "GC"
    # Its parent is what the lab runs commands with, which is not older than this machine.
    assert 0 < frame.runtime_ns <= frame.started_ns


def test_a_check_comes_as_an_add_does(plugin: Plugin, pod: PodNetns) -> None:
    with FakeDaemon(plugin, b"0") as daemon:
        assert plugin.run(CNI_COMMAND="CHECK", CNI_NETNS=pod.path) == (0, {})
        ((netns, _),) = daemon.descriptors
        assert os.fstat(netns).st_ino == os.fstat(pod.fd).st_ino


def test_an_add_sends_the_pods_netns_and_a_netlink_socket_in_it(
    plugin: Plugin, pod: PodNetns
) -> None:
    with FakeDaemon(plugin, b'0{"cniVersion":"0.4.0"}') as daemon:
        code, answer = plugin.run(CNI_NETNS=pod.path, CNI_ARGS="K8S_POD_NAME=web-0")
        assert (code, answer) == (0, {"cniVersion": "0.4.0"})
        (frame,) = daemon.frames
        assert frame.env["CNI_COMMAND"] == "ADD"
        assert frame.env["CNI_ARGS"] == "K8S_POD_NAME=web-0"
        assert all(name.startswith("CNI_") for name in frame.env)
        assert frame.stdin == CONF
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert boot - 20e9 < frame.started_ns < boot
        assert frame.deadline_ns - frame.started_ns == 110e9
        ((netns, netlink),) = daemon.descriptors
        assert os.fstat(netns).st_ino == os.fstat(pod.fd).st_ino
        channel = rtnl.Channel(socket.socket(fileno=os.dup(netlink)))
        assert [link.name for link in channel.dump_links()] == ["lo"]
        channel.close()


def of_seconds(word: str) -> bytes:
    return CONF[:-1] + b',"deadlineSeconds": %b}' % word.encode()


@pytest.mark.parametrize("seconds", [10, 45, 240])
def test_the_configuration_may_set_the_deadline(
    plugin: Plugin, pod: PodNetns, seconds: int
) -> None:
    with FakeDaemon(plugin, b"0{}") as daemon:
        assert plugin.run(of_seconds(str(seconds)), CNI_NETNS=pod.path) == (0, {})
        (frame,) = daemon.frames
    assert frame.deadline_ns - frame.started_ns == seconds * 1e9


@pytest.mark.parametrize("word", ["9", "241", "-60", "60.5", '"60"', "true", "{}", "[60]", "1e2"])
def test_a_deadline_that_cannot_be_is_refused_and_hinders_no_del(plugin: Plugin, word: str) -> None:
    status, answer = plugin.run(of_seconds(word), timeout=10)
    assert (status, answer["code"], answer["cniVersion"]) == (1, 7, "0.4.0")
    assert "is not a whole number within 10 to 240" in str(answer["msg"])
    with FakeDaemon(plugin, b"0") as daemon:
        assert plugin.run(of_seconds(word), CNI_COMMAND="DEL") == (0, {})
        (frame,) = daemon.frames
    assert frame.deadline_ns - frame.started_ns == 110e9


def test_exit_status_and_stdout_are_the_daemons(plugin: Plugin, pod: PodNetns) -> None:
    with FakeDaemon(plugin, b'1{"code":7}'):
        assert plugin.run(CNI_NETNS=pod.path) == (1, {"code": 7})


@pytest.mark.parametrize("stdin", [CONF, CONF + b" " * 900_000], ids=["small", "beyond-the-buffer"])
def test_an_answer_counts_that_came_before_the_frame_was_read(
    plugin: Plugin, pod: PodNetns, stdin: bytes
) -> None:
    with FakeDaemon(plugin, b'1{"code":4}', early=True):
        assert plugin.run(stdin, CNI_NETNS=pod.path) == (1, {"code": 4})


def test_what_is_no_answer_of_a_daemon_is_not_printed(plugin: Plugin, pod: PodNetns) -> None:
    with FakeDaemon(plugin, b"HTTP/1.1 400 Bad Request", b"0{}"):
        assert plugin.run(CNI_NETNS=pod.path) == (0, {})


def test_a_daemon_that_dies_before_the_answer_gets_the_same_frame_again(
    plugin: Plugin, pod: PodNetns
) -> None:
    with FakeDaemon(plugin, None, None, b"0{}") as daemon:
        assert plugin.run(CNI_NETNS=pod.path) == (0, {})
        assert daemon.frames[0] == daemon.frames[1] == daemon.frames[2]


def test_an_add_waits_for_a_daemon_that_is_not_there_yet(plugin: Plugin, pod: PodNetns) -> None:
    got: list[tuple[int, dict[str, object]]] = []
    thread = threading.Thread(target=lambda: got.append(plugin.run(CNI_NETNS=pod.path)))
    thread.start()
    time.sleep(0.3)
    with FakeDaemon(plugin, b"0{}"):
        thread.join(10)
    assert got == [(0, {})]


def test_a_del_comes_without_descriptors_wherever_its_pod_is(plugin: Plugin, pod: PodNetns) -> None:
    for netns in ("", "/run/netns/gone", pod.path):
        plugin.clean()
        with FakeDaemon(plugin, b"0") as daemon:
            assert plugin.run(CNI_COMMAND="DEL", CNI_NETNS=netns) == (0, {})
            assert daemon.descriptors == [[]]


def test_a_del_with_the_daemon_away_is_spooled_and_succeeds(plugin: Plugin) -> None:
    assert plugin.run(CNI_COMMAND="DEL") == (0, {})
    (path,) = plugin.spooled()
    assert path.name.startswith(f"{ID}.eth0.")
    frame = FrameReader().feed(path.read_bytes())
    assert frame is not None
    assert path.name.endswith(f".{frame.started_ns}")
    assert frame.env["CNI_COMMAND"] == "DEL"


def test_a_full_spool_fails_so_that_kubelet_retries(plugin: Plugin) -> None:
    plugin.spool.mkdir(parents=True)
    for number in range(256):
        (plugin.spool / f"x.eth0.{number}").write_bytes(b"")
    code, answer = plugin.run(CNI_COMMAND="DEL")
    assert (code, answer["code"]) == (1, 11)
    assert "256 DELs" in str(answer["msg"])


def test_a_spool_that_cannot_be_written_is_said(plugin: Plugin) -> None:
    plugin.spool.parent.mkdir(parents=True, exist_ok=True)
    plugin.spool.write_bytes(b"not a folder")
    code, answer = plugin.run(CNI_COMMAND="DEL")
    plugin.spool.unlink()
    assert (code, answer["code"]) == (1, 11)
    assert "cannot be written: Not a directory" in str(answer["msg"])


def a_file(node: Node) -> str:
    node.path("/run/a-file").write_text("no netns")
    return "/run/a-file"


def a_folder(_node: Node) -> str:
    return "/etc"


def a_fifo(node: Node) -> str:
    path = node.path("/run/a-fifo")
    if not path.exists():
        os.mkfifo(path)
    return "/run/a-fifo"


@pytest.mark.parametrize(
    ("stdin", "env", "code", "words"),
    [
        pytest.param(b"", {}, 6, "is empty", id="stdin-empty"),
        pytest.param(b" \n", {}, 6, "is empty", id="stdin-blank"),
        pytest.param(b"x" * 10_000_000, {}, 6, "over 1048576 bytes", id="stdin-10-MB"),
        pytest.param(CONF, {"CNI_COMMAND": None}, 4, "CNI_COMMAND is missing", id="no-command"),
        pytest.param(CONF, {"CNI_COMMAND": "FROB"}, 4, "CNI_COMMAND=FROB is not ADD, CHECK, DEL, GC, STATUS or VERSION", id="another-verb"),
        pytest.param(CONF, {"CNI_COMMAND": "add"}, 4, "CNI_COMMAND=add is not", id="verb-in-lower-case"),
        pytest.param(b"ADD", {}, 6, "stdin is not a JSON object", id="stdin-not-json"),
        pytest.param(b"[]", {}, 6, "stdin is not a JSON object", id="stdin-a-list"),
        pytest.param(CONF[:-1], {}, 6, "stdin is not a JSON object", id="stdin-cut-short"),
        pytest.param(b"", {"CNI_COMMAND": "STATUS"}, 6, "stdin is empty", id="status-of-nothing"),
        pytest.param(b"[]", {"CNI_COMMAND": "STATUS"}, 6, "stdin is not a JSON object", id="status-of-a-list"),
        pytest.param(b"\0" * 100, {"CNI_COMMAND": "STATUS"}, 6, "stdin is not a JSON object", id="status-of-garbage"),
        pytest.param(b"", {"CNI_COMMAND": "GC"}, 6, "stdin is empty", id="gc-of-nothing"),
        pytest.param(CONF, {"CNI_CONTAINERID": None, "CNI_NETNS": None, "CNI_IFNAME": ""}, 4, "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME missing", id="all-missing"),
        pytest.param(CONF, {"CNI_COMMAND": "DEL", "CNI_IFNAME": None}, 4, "CNI_IFNAME missing", id="del-without-ifname"),
        pytest.param(CONF, {"CNI_CONTAINERID": "../../etc"}, 4, "is not a name", id="path-as-id"),
        pytest.param(CONF, {"CNI_IFNAME": "e" * 16}, 4, "is not a name", id="ifname-too-long"),
        pytest.param(CONF, {"CNI_ARGS": "x" * 100_000 + "=y"}, 4, "No such file", id="much-environment"),
        pytest.param(CONF + b" " * 1_000_000, {"CNI_ARGS": "x" * 100_000}, 6, "environment and stdin are over 1048576 bytes", id="stdin-and-environment"),
        pytest.param(CONF, {"CNI_IFNAME": "a/b"}, 4, "is not a name", id="path-as-ifname"),
        pytest.param(CONF, {"CNI_NETNS": "/run/netns/gone"}, 4, "No such file", id="netns-gone"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_at_once(
    plugin: Plugin, stdin: bytes, env: dict[str, str | None], code: int, words: str
) -> None:
    status, answer = plugin.run(stdin, timeout=10, **env)
    assert status == 1
    assert answer["code"] == code
    assert words in str(answer["msg"])
    assert answer["cniVersion"] == ("0.4.0" if stdin.startswith(CONF[:-1]) else "1.0.0")
    assert not plugin.spooled()


@pytest.mark.parametrize("make", [a_file, a_fifo, a_folder])
def test_what_is_no_netns_is_refused_and_never_hangs(
    plugin: Plugin, make: Callable[[Node], str]
) -> None:
    status, answer = plugin.run(timeout=10, CNI_NETNS=make(plugin.node))
    assert (status, answer["code"]) == (1, 4)
    assert "is not a network namespace" in str(answer["msg"])


def test_a_caller_that_is_not_root_is_told_so(plugin: Plugin, pod: PodNetns) -> None:
    plugin.wrapper = ["unshare", "--user"]
    status, answer = plugin.run(CNI_NETNS=pod.path)
    assert (status, answer["code"]) == (1, 5)
    assert answer["msg"] == "enid-cni runs as uid 65534 and must be root"
