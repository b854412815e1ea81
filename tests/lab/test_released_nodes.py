"""Nodes as each release left them, under today's daemon; and that today's is recorded, too."""

from __future__ import annotations

import difflib
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.patience import PATIENCE
from tests.lab.recording import (
    PODS,
    SPOOLED,
    Names,
    a_node,
    frame_at,
    network_script,
    recorded,
    restored,
    version,
)
from tests.lab.test_daemon import Ipamd, container_id
from tests.lab.test_upgrade import Traffic
from tests.tools.releases import FIXTURES, HOW, ROOT, Exchange, Release, comparable, ids, releases

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC

each = pytest.mark.parametrize("release", releases(), ids=ids)

SETTLED_SECONDS = 20.0 * PATIENCE
"""A spooled DEL is heard at once and its link reaped; another layout takes two looks (test_upgrade)."""


@pytest.fixture
def fresh() -> Iterator[EmbeddedVPC]:
    """A VPC that gives the addresses that it gave when a release was recorded."""
    from vpclab.vpc import EmbeddedVPC as Vpc  # noqa: PLC0415 - moto takes a second to import

    with Vpc() as vpc:
        yield vpc


def test_what_this_version_sends_writes_and_leaves_is_recorded(
    fresh: EmbeddedVPC, tmp_path: Path
) -> None:
    mine = Release(FIXTURES / version(ROOT))
    found = recorded(fresh, tmp_path / "log")
    lines: list[str] = []
    for name, text in found.items():
        before, now = comparable(mine.text(name)), comparable(text)
        lines += difflib.unified_diff(
            before.splitlines(), now.splitlines(), f"{mine.version}/{name}", "now", n=0, lineterm=""
        )
    if lines:
        pytest.fail(
            "this is not what is recorded: is it read by, and does it read, every release? Then"
            f" record it: {HOW} (docs/adr/0043)\n" + "\n".join(line[:400] for line in lines)
        )


# A node that is taken over -------------------------------------------------------------
def without_spooled(script: str) -> list[str]:
    """Return the lines of a node that has done the DEL that had waited."""
    veth = next(w for w in lines_of(script, container_id(SPOOLED.pod)) if "alias" in w).split()[3]
    return [
        line
        for line in script.splitlines()
        if veth not in line and f"cni-{SPOOLED.pod} " not in f"{line} "
    ]


def lines_of(script: str, word: str) -> list[str]:
    return [line for line in script.splitlines() if word in line]


@each
def test_todays_daemon_takes_a_releases_node_over_and_no_packet_is_lost(
    release: Release, fresh: EmbeddedVPC, tmp_path: Path
) -> None:
    mine = Release(FIXTURES / version(ROOT))
    with restored(fresh, tmp_path / "log", release) as daemon:
        names = Names(fresh, daemon.node)
        with closing(release.database("leases")) as db:
            sql = "SELECT container_id, address FROM leases JOIN leased ON lease = leases.id"
            held = {
                container: address
                for container, address in db.execute(sql)
                if container != container_id(SPOOLED.pod)
            }
        assert daemon.of_node("STATUS") == (0, {}), "its heartbeat is believed"
        daemon.env["IP_COOLDOWN_PERIOD"] = "1"  # so that the next pod need not wait
        traffic = flows(daemon, held)
        traffic.start()
        try:
            daemon.start()
            status = daemon.wait(lambda s: len(s["leases"]) == len(held))
            wanted = without_spooled(names.here(mine.text("kernel.sh")))
            found = await_network(daemon, wanted)
        finally:
            traffic.stop()
        assert found == wanted
        assert {lease["container_id"]: lease["address"] for lease in status["leases"]} == held
        assert (status["mode"], status["trouble"]) == ("normal", None)
        assert {flow.name: flow.errors for flow in traffic.flows if flow.errors} == {}
        assert {flow.name: flow.lost for flow in traffic.flows if flow.lost} == {}
        assert min(flow.sent for flow in traffic.flows) > 20
        assert str(daemon.add("after")) not in set(held.values())
        checks = [one for one in release.frames() if one.what.startswith("check") and not one.exits]
        assert [judged(Replay(daemon), one) for one in checks] == [""] * len(checks) != []
        assert not list(daemon.node.path("/run/enid/spool").iterdir())


def await_network(daemon: Ipamd, wanted: list[str]) -> list[str]:
    """Return the node's network as commands, as soon as it is as wanted."""
    end, found = time.monotonic() + SETTLED_SECONDS, list[str]()
    while found != wanted and time.monotonic() < end:
        with suppress(subprocess.CalledProcessError):  # a link that goes while it is looked at
            found = network_script(daemon).splitlines()
    return found


def flows(daemon: Ipamd, held: dict[str, str]) -> Traffic:
    """Return traffic between the pods that stay, on both ENIs, and from the node."""
    traffic = Traffic()
    pods = [name for name in PODS if name != SPOOLED.pod]
    for source, target in zip(pods, [*pods[1:], pods[0]], strict=True):
        to = held[container_id(target)]
        traffic.add(f"{source} to {target}", daemon.netns(source), daemon.netns(target), to)
        traffic.add(f"node to {target}", daemon.node, daemon.netns(target), to)
    return traffic


# Frames of a release's plugin ----------------------------------------------------------
class Replay:
    """Sends what a release's plugin sent, with this moment's times."""

    def __init__(self, daemon: Ipamd) -> None:
        self.daemon = daemon

    def send(self, one: Exchange) -> tuple[int, str]:
        """Return the exit status and what the plugin would have printed."""
        frame = frame_at(one.sends, time.clock_gettime_ns(time.CLOCK_BOOTTIME)).encode()
        with ExitStack() as kept, socket.socket(socket.AF_UNIX) as sock:
            descriptors = self._descriptors(one, kept)
            sock.connect(self.daemon.socket)
            socket.send_fds(sock, [frame], descriptors)
            answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        return int(answer[0]), answer[1:]

    def _descriptors(self, one: Exchange, kept: ExitStack) -> list[int]:
        if not one.brings:
            return []
        kind = socket.AF_NETLINK, socket.SOCK_RAW, 0
        name = one.brings.removeprefix("/run/netns/cni-")
        place = self.daemon.node if name == one.brings else self.daemon.netns(name)
        return [place.fd, kept.enter_context(place.socket(*kind)).fileno()]


def has_all(answer: Any, recorded: Any) -> bool:
    """Whether *answer* says all that was said, if also more."""
    if isinstance(recorded, dict):
        return isinstance(answer, dict) and all(
            key in answer and has_all(answer[key], value) for key, value in recorded.items()
        )
    return bool(answer == recorded)


@each
def test_a_releases_plugin_is_answered_as_it_was(
    release: Release, fresh: EmbeddedVPC, tmp_path: Path
) -> None:
    with a_node(fresh, tmp_path / "log") as daemon, ThreadPoolExecutor(1) as pool:
        daemon.start()
        daemon.wait(lambda s: s["ready"])
        replay, wrong, late = Replay(daemon), [], []
        for one in release.frames():
            if one.before:
                daemon.netns(one.pod).run(["sh", "-ec", one.before])
            if one.waits:
                late.append(pool.submit(judged, replay, one))
                daemon.wait(lambda s: s["waiting"] == 1)
            else:
                wrong.append(judged(replay, one))
                wrong += [late.pop().result() for _ in tuple(late)]
        assert [words for words in wrong if words] == []


def judged(replay: Replay, one: Exchange) -> str:
    """Say how an answer differs from the recorded one, if it does; of an error its code counts."""
    exits, prints = replay.send(one)
    answer = Exchange("", "", "", "", waits=False, sends="", exits=exits, prints=prints).answer
    told = {key: one.answer[key] for key in ("code", "cniVersion")} if one.exits else one.answer
    is_same = exits == one.exits and has_all(answer, told)
    return "" if is_same else f"{one.what}: {exits} {prints}"
