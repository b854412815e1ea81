"""What of the daemon a pod can reach: one port, three pages, as far as settings let it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET, AF_UNIX, SOCK_STREAM
from typing import TYPE_CHECKING, Protocol

import pytest

from ipamd.audience import audience
from ipamd.layers import read_settings
from ipamd.start import PortTakenError
from ipamd.status import Status
from ipamd.web import MAX_STRANGERS, PAGES, PORT, serve
from tests.lab.patience import PATIENCE
from tests.lab.test_daemon import Ipamd
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import PodNetns

CLOSED = "closed"

INTROSPECTION = ("/", "/v1/enis", "/v1/pods", "/v1/eni-configs", "/v1/env-settings", "/debug/pprof")
"""What the peer's introspection, or a careless server, would answer."""


class Place(Protocol):
    """Where somebody asks from."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket: ...


def ask(place: Place, address: object, path: str = "/metrics") -> str:
    """Return the status line and the body of what *address* answers; CLOSED if it hangs up."""
    with place.socket(AF_INET, SOCK_STREAM) as sock:
        sock.settimeout(5)
        try:
            sock.connect((str(address), PORT))
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        except ConnectionError:
            return CLOSED
    head, _, body = answer.partition("\r\n\r\n")
    return f"{head.splitlines()[0]}\n{body}" if head else CLOSED


@pytest.fixture(scope="module")
def daemon(vpc: EmbeddedVPC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ipamd]:
    """A node's daemon that serves, and the pod `scraper`."""
    node = vpc.launch_node("node", "m5.large", vpc.add_subnet("10.0.1.0/24", "us-east-1a"))
    prepare(node)
    daemon = Ipamd(node, tmp_path_factory.mktemp("daemon") / "log", WARM_ENI_TARGET="0")
    daemon.start()
    daemon.wait(lambda s: s["ready"])
    daemon.add("scraper")
    yield daemon
    daemon.close()


@pytest.fixture
def pod(daemon: Ipamd) -> PodNetns:
    """A pod beside the daemon."""
    return daemon.netns("scraper")


def test_a_pod_scrapes_and_finds_no_names(daemon: Ipamd, pod: PodNetns) -> None:
    for path in PAGES:
        answer = ask(pod, daemon.node.primary, path)
        assert answer.startswith("HTTP/1.0 200 OK"), path
        assert "scraper" not in answer, path
    assert "enid_addresses{" in ask(pod, daemon.node.primary)


def test_strangers_that_hold_every_place_keep_no_probe_out(daemon: Ipamd, pod: PodNetns) -> None:
    primary = daemon.node.primary
    with contextlib.ExitStack() as stack:
        for _ in range(3 * MAX_STRANGERS):
            sock = stack.enter_context(pod.socket(AF_INET, SOCK_STREAM))
            sock.connect((str(primary), PORT))
            sock.send(b"GET")
        wait_until(lambda: ask(pod, primary) == CLOSED)
        assert ask(daemon.node, primary, "/healthz").endswith("\nok\n")
    wait_until(lambda: "200 OK" in ask(pod, primary))


def test_a_daemon_that_was_scraped_is_followed_by_another_at_once(
    daemon: Ipamd, pod: PodNetns
) -> None:
    """Its last connections are in TIME_WAIT, for a minute."""
    assert "200 OK" in ask(pod, daemon.node.primary)
    daemon.kill()
    daemon.start()
    assert "200 OK" in ask(pod, daemon.node.primary)


def wait_until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds * PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


# Who is answered -------------------------------------------------------------------------
class Elsewhere:
    """The same pages on a node without a daemon, for whom settings say."""

    def __init__(self, vpc: EmbeddedVPC, status: Status) -> None:
        self.node = vpc.launch_node(
            "other", "m5.large", vpc.add_subnet("10.0.2.0/24", "us-east-1a")
        )
        self.status, self._loop = status, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    @contextlib.contextmanager
    def serving(self, environ: dict[str, str], status: Status | None = None) -> Iterator[None]:
        who, shown = audience(read_settings(environ)), status or self.status
        stop = self.node.worker.call(serve, self._loop, lambda: shown, lambda: who)
        yield
        stop()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def elsewhere(vpc: EmbeddedVPC, daemon: Ipamd) -> Iterator[Elsewhere]:
    """A node that shows the daemon's status."""
    elsewhere = Elsewhere(vpc, daemon.status())
    yield elsewhere
    elsewhere.close()


@pytest.mark.parametrize(
    ("environ", "pods", "nodes"),
    [
        pytest.param({}, True, True, id="everybody"),
        pytest.param({"ENID_METRICS_CIDRS": "10.0.0.0/16"}, True, True, id="the-vpc"),
        pytest.param({"ENID_METRICS_CIDRS": "192.0.2.0/24"}, False, True, id="others"),
        pytest.param({"DISABLE_METRICS": "true"}, False, False, id="nobody"),
    ],
)
def test_who_may_scrape_is_a_setting(
    elsewhere: Elsewhere, pod: PodNetns, environ: dict[str, str], *, pods: bool, nodes: bool
) -> None:
    primary = elsewhere.node.primary
    with elsewhere.serving(environ):
        assert ("200 OK" in ask(pod, primary)) is pods
        assert ("200 OK" in ask(pod, primary, "/healthz")) is pods
        for address in (primary, "127.0.0.1"):
            assert ask(elsewhere.node, address, "/healthz").endswith("\nok\n")
            assert ("200 OK" in ask(elsewhere.node, address)) is nodes


def test_pods_are_named_when_somebody_asks_for_it(elsewhere: Elsewhere, daemon: Ipamd) -> None:
    lease = daemon.status()["leases"][0]
    row = (
        f'enid_pod_address{{address="{lease["address"]}",eni="{lease["eni_id"]}"'
        ',namespace="default",pod="scraper"} 1.0'
    )
    for environ, named in (({"ENID_METRICS_POD_NAMES": "true"}, True), ({}, False)):
        with elsewhere.serving(environ):
            assert (row in ask(elsewhere.node, "127.0.0.1")) is named


def test_who_is_not_ready_says_its_mode_and_not_what_ec2_said(
    elsewhere: Elsewhere, pod: PodNetns
) -> None:
    """EC2's words name the account and the role, and any pod may read them."""
    denied = "arn:aws:sts::123456789012:assumed-role/node is not authorized"
    status: Status = {**elsewhere.status, "ready": False, "mode": "denied", "trouble": denied}
    with elsewhere.serving({}, status):
        answer = ask(pod, elsewhere.node.primary, "/readyz")
    assert answer.startswith("HTTP/1.0 503")
    assert "(denied): see `enid status`" in answer
    assert "123456789012" not in answer


def test_a_port_that_is_taken_is_named(elsewhere: Elsewhere) -> None:
    taken = pytest.raises(PortTakenError, match=r"port 61678 .*Address already in use")
    with elsewhere.serving({}), taken, elsewhere.serving({}):
        pass


# What is open ----------------------------------------------------------------------------
def listening(pid: int) -> set[str]:
    """Return where a process listens: TCP ports, and unix sockets by name."""
    links = (path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir())
    own = {m[1] for link in links if (m := re.fullmatch(r"socket:\[(\d+)\]", str(link)))}
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            unconnected = int(words[2].partition(":")[2], 16) == 0
            if words[9] in own and unconnected:
                found.add(f"{table}:{int(words[1].rpartition(':')[2], 16)}")
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[6] in own and len(words) > 7:  # it has a name
            found.add(words[7])
    return found


def test_a_pod_reaches_neither_socket_nor_introspection(daemon: Ipamd, pod: PodNetns) -> None:
    """There is one port with three pages, and one socket in a folder that no pod has."""
    assert daemon.process is not None
    assert listening(daemon.process.pid) == {"tcp:61678", "/run/enid/ipamd.sock"}
    for path in INTROSPECTION:
        assert ask(pod, daemon.node.primary, path).startswith("HTTP/1.0 404"), path
    assert pod.run(["cat", "/proc/net/unix"]).stdout.count("ipamd") == 0
    with pod.socket(AF_UNIX, SOCK_STREAM) as sock, pytest.raises(ConnectionRefusedError):
        sock.connect("\0/run/enid/ipamd.sock")
    folder = daemon.node.path("/run/enid").stat()
    assert (folder.st_mode & 0o777, folder.st_uid) == (0o700, 0)
    assert Path(daemon.socket).stat().st_mode & 0o777 == 0o600
