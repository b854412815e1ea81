"""The daemon's socket and hostile clients: wrong descriptors, and leaving at each point; and no daemon.

Whatever they do, they hear one sentence or nothing, nothing of theirs stays, and the next one is
served.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni import plugin
from cni.frame import Frame, encode
from tests.fuzz.execs import Forks
from tests.fuzz.sockets import Sent, Target
from tests.lab.patience import PATIENCE
from tests.lab.test_daemon import Ipamd, network_of
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import PodNetns

CONF = {"cniVersion": "1.0.0", "name": "enid", "type": "enid-cni"}
ENV = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "hostile", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0"}
SECOND_NS = 1_000_000_000


def frame(**env: str) -> bytes:
    """Return an ADD's frame, whose answer comes soon even if no address does."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return encode(Frame(ENV | env, json.dumps(CONF).encode(), now, now + 6 * SECOND_NS))


@pytest.fixture(scope="module")
def agent(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ipamd]:
    """A daemon of one ENI that serves all tests here."""
    subnet = vpc.add_subnet("10.0.1.0/24", "us-east-1a")
    node = vpc.launch_node("node-a", "m5.large", subnet, public=True)
    prepare(node)
    many = {"ENABLE_PREFIX_DELEGATION": "true", "WARM_PREFIX_TARGET": "4"}  # released ones cool
    daemon = Ipamd(node, tmp_path_factory.mktemp("socket") / "log", MAX_ENI="1", **many)
    daemon.start()
    daemon.wait(lambda s: bool(s["enis"]) and s["enis"][0]["free"] >= 48)
    yield daemon
    daemon.close()


def wired_of(agent: Ipamd) -> list[str]:
    """Return the node's network without what the pool puts there for each address as it grows."""
    lines = network_of(agent.node).splitlines()
    return [line for line in lines if not line.startswith("unreachable ")]


@dataclass
class Hostile:
    """A client: of `Target`, with a pod's namespace and a netlink socket in it."""

    agent: Ipamd
    target: Target

    def connect(self) -> socket.socket:
        """Return a connection."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10 * PATIENCE)
        sock.connect(self.target.path)
        return sock

    def asks(self, data: bytes, descriptors: list[int]) -> tuple[int, dict[str, Any]]:
        """Return what one frame is answered."""
        with self.connect() as sock:
            socket.send_fds(sock, [data], descriptors)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        return int(answer[:1]), json.loads(answer[1:]) if answer[1:] else {}

    def leave(self, sock: socket.socket, container: str = "hostile") -> bool:
        """Leave, and return whether that went unseen: in the moment in which the answer was sent.

        What was answered until then has a runtime, whose DEL comes; so has what went unseen.
        """
        sock.shutdown(socket.SHUT_RDWR)  # no answer comes any more, and one may be there
        answered = bool(sock.recv(1))
        unseen = not answered and self.was_assigned_unseen(container)
        if answered or unseen:
            gone = frame(CNI_CONTAINERID=container, CNI_COMMAND="DEL")
            assert self.asks(gone, []) == (0, {})
        return unseen

    def was_assigned_unseen(self, container: str) -> bool:
        """Whether the daemon thinks that it has answered the ADD of *container*, if it got that."""
        self.agent.wait(lambda s: not s["leases"] or self.has_logged(container, "address assigned"))
        return self.has_logged(container, "address assigned") and not self.has_logged(
            container, "client gone"
        )

    def has_logged(self, container: str, event: str) -> bool:
        """Whether the log has a line of *event* about *container*."""
        lines = self.agent.log.read_text().splitlines()
        return any(f'"event": "{event}"' in line and f'"{container}"' in line for line in lines)

    def leaves_nothing(self) -> None:
        """Fail unless the daemon serves, has no lease, and nothing open or wired that came."""
        self.agent.wait(lambda s: not s["leases"])
        assert not self.target.open_descriptors() - self.before
        self.agent.add("next")
        self.agent.delete("next")
        self.agent.wait(lambda _: wired_of(self.agent) == self.network)

    def __post_init__(self) -> None:
        self.before = self.target.open_descriptors()
        self.network = wired_of(self.agent)


@pytest.fixture
def hostile(agent: Ipamd) -> Iterator[Hostile]:
    """Give a client."""
    assert agent.process is not None
    pod: PodNetns = agent.netns("hostile")
    with pod.socket(plugin.AF_NETLINK, plugin.SOCK_RAW) as netlink:
        yield Hostile(agent, Target(agent.socket, agent.process.pid, pod.fd, netlink.fileno()))


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        pytest.param([], 4, "no network namespace came with the ADD of hostile", id="none"),
        pytest.param([Sent.POD], 4, "no network namespace came", id="no-netlink-socket"),
        pytest.param([Sent.FILE, Sent.NETLINK], 4, "is not a network namespace", id="a-file"),
        pytest.param([Sent.FOLDER, Sent.NETLINK], 4, "is not a network namespace", id="a-folder"),
        pytest.param([Sent.PIPE, Sent.NETLINK], 4, "is not a network namespace", id="a-pipe"),
        pytest.param([Sent.SOCKET, Sent.NETLINK], 4, "is not a network namespace", id="a-socket"),
        pytest.param([Sent.MOUNTS, Sent.NETLINK], 4, "is not a network namespace", id="another-kind-of-namespace"),
        pytest.param([Sent.NETLINK, Sent.POD], 4, "is not a network namespace", id="the-wrong-way-round"),
        pytest.param([Sent.NODE, Sent.NETLINK], 4, "the node's own", id="the-nodes-own"),
        pytest.param([Sent.POD, Sent.FILE], 5, "hostile", id="a-file-for-the-socket"),
        pytest.param([Sent.POD, Sent.POD], 5, "hostile", id="twice-the-namespace"),
        pytest.param([Sent.POD, Sent.SOCKET], 5, "not of the pod's network namespace", id="a-socket-of-another-kind"),
        pytest.param([Sent.POD, Sent.OURS], 5, "not of the pod's network namespace", id="a-netlink-socket-elsewhere"),
        pytest.param([Sent.POD, Sent.NETLINK] * 5, 6, "more than 8 descriptors", id="surplus"),
    ],
)  # fmt: skip
def test_wrong_descriptors_are_one_sentence_and_nothing_is_changed(
    hostile: Hostile, sent: list[Sent], code: int, words: str
) -> None:
    before, pod = wired_of(hostile.agent), hostile.agent.netns("hostile")
    inside = pod.run(["ip", "-br", "addr"]).stdout
    with hostile.target.opened(sent) as descriptors:
        status, answer = hostile.asks(frame(), descriptors)
    assert (status, answer["code"]) == (1, code), answer
    assert words in answer["msg"]
    assert wired_of(hostile.agent) == before
    assert pod.run(["ip", "-br", "addr"]).stdout == inside
    hostile.leaves_nothing()


def test_descriptors_beyond_two_are_closed_and_the_pod_is_served(hostile: Hostile) -> None:
    with hostile.target.opened([Sent.POD, Sent.NETLINK, Sent.FILE, Sent.PIPE]) as descriptors:
        status, answer = hostile.asks(frame(), descriptors)
        assert (status, answer["ips"][0]["interface"]) == (0, 1)
        assert hostile.asks(frame(CNI_COMMAND="DEL"), descriptors) == (0, {})
    hostile.leaves_nothing()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
def test_a_client_that_leaves_at_any_point_leaves_nothing(hostile: Hostile, share: float) -> None:
    data = frame(CNI_CONTAINERID=f"left-at-{share}")
    part = data[: round(len(data) * share)]
    with hostile.connect() as sock, hostile.target.opened([Sent.POD, Sent.NETLINK]) as descriptors:
        if part:
            socket.send_fds(sock, [part], descriptors)
        hostile.leave(sock, f"left-at-{share}")
    hostile.leaves_nothing()


def test_a_client_that_leaves_while_its_wire_is_made_leaves_nothing(hostile: Hostile) -> None:
    unseen = 0
    for tenths in range(0, 120, 5):
        container = f"left-{tenths}"
        with hostile.connect() as sock, hostile.target.opened([Sent.POD, Sent.NETLINK]) as fds:
            socket.send_fds(sock, [frame(CNI_CONTAINERID=container)], fds)
            select.select([sock], [], [], tenths / 10_000)
            unseen += hostile.leave(sock, container)
        hostile.leaves_nothing()
    # A daemon that looks misses a moment of some microseconds; one that does not, a quarter of all.
    assert unseen <= 3


def test_a_client_that_does_not_read_its_answer_holds_nobody_up(hostile: Hostile) -> None:
    with hostile.connect() as sock:
        sock.sendall(frame(CNI_COMMAND="FROB"))
        hostile.leaves_nothing()


def test_what_follows_a_frame_ends_the_connection(hostile: Hostile) -> None:
    status, answer = hostile.asks(frame() + b"more", [])
    assert (status, answer["code"]) == (1, 6)
    assert answer["msg"] == "bytes came after the frame"
    hostile.leaves_nothing()


# No daemon -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("verb", "version", "code"),
    [
        pytest.param("ADD", "1.0.0", 11, id="add"),
        pytest.param("CHECK", "1.0.0", 11, id="check"),
        pytest.param("GC", "1.1.0", 11, id="gc"),
        pytest.param("STATUS", "1.1.0", 50, id="status"),
        pytest.param("VERSION", "1.0.0", None, id="version"),
        pytest.param("DEL", "1.0.0", None, id="del"),
    ],
)
def test_without_a_daemon_each_verb_ends_as_it_should(
    tmp_path: Path, hostile: Hostile, verb: str, version: str, code: int | None
) -> None:
    netns = f"/proc/{os.getpid()}/fd/{hostile.target.pod}"
    with Forks(tmp_path) as forks:
        stdin = json.dumps(CONF | {"cniVersion": version}).encode()
        env = ENV | {"CNI_COMMAND": verb, "CNI_NETNS": netns}
        found = forks.run(env, stdin, is_there=False)
    answer = json.loads(found.stdout or b"{}")
    assert (found.status, answer.get("code"), found.stderr) == (int(code is not None), code, b"")
    assert len(list(tmp_path.glob("spool/*"))) == (verb == "DEL")


def test_a_daemon_that_listens_since_a_del_was_spooled_gets_it_and_no_file_stays(
    tmp_path: Path,
) -> None:
    with Forks(tmp_path) as forks:
        env = ENV | {"CNI_COMMAND": "DEL", "CNI_NETNS": ""}
        found = forks.run(env, json.dumps(CONF).encode(), is_there=False, comes=True)
        ((frame, descriptors),) = forks.daemon.frames
    assert (found.status, found.stdout, found.stderr) == (0, b"", b"")
    assert (frame.env["CNI_COMMAND"], descriptors) == ("DEL", 0)
    assert list(tmp_path.glob("spool/*")) == []
