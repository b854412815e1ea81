"""`enid`: what an operator types and reads."""

from __future__ import annotations

import io
import json
import socket
import threading
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from cni.frame import FrameReader, answer
from ipamd.cli import DaemonAwayError, DaemonRefusedError, ask_status, build_parser, main
from ipamd.show import bar, show_status
from ipamd.status import ClusterStatus, EniStatus, LeaseStatus, Status

ENI = EniStatus(
    id="eni-0123456789abcdef0", number=1, table="main", subnet="subnet-1", slots=9, singles=9,
    prefixes=0, assigned=3, cooling=1, free=4, leaving=0, taken=1, closed=False, excluded=False,
)  # fmt: skip
STATUS = Status(
    version="1", mode="normal", modes=["normal"], trouble=None, troubles=[],
    cluster=ClusterStatus(link="connected", sentence=""), pool="demand", instance_id="i-0123", instance_type="m5.large",
    primary="10.0.1.4", ready=True, max_enis=3, waiting=0, enis=[ENI], unmanaged_enis=["eni-theirs"],
    leases=[
        LeaseStatus(
            address="10.0.1.5", pod="default/web-0", container_id="c" * 64, ifname="eth0",
            eni_id=ENI["id"], since=0.0, superseded=True,
        )
    ],
    cooling=[], wanted=0, ec2=[], ec2_errors=[], caches=[],
)  # fmt: skip


class Daemon:
    """Answers one client."""

    def __init__(self, path: Path, payload: bytes) -> None:
        self.env: dict[str, str] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, args=(payload,))
        self._thread.start()

    def _serve(self, payload: bytes) -> None:
        client, _ = self._listener.accept()
        with client:
            frame = FrameReader().feed(client.recv(65536))
            assert frame is not None
            self.env = dict(frame.env)
            client.sendall(payload)

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ipamd.sock"


def test_status_as_data(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon(path, answer(0, json.dumps(STATUS).encode()))
    arguments = build_parser().parse_args(["status", "-o", "json", "--socket", str(path)])
    assert arguments.run(arguments) == 0
    daemon.close()
    assert json.loads(capsys.readouterr().out) == STATUS
    assert daemon.env == {"ENID_COMMAND": "STATUS"}


def test_a_daemon_that_is_away_is_one_sentence(path: Path) -> None:
    with pytest.raises(DaemonAwayError, match="does it run on this node, and are you root"):
        ask_status(str(path))


def test_a_daemons_refusal_is_passed_on(path: Path) -> None:
    daemon = Daemon(path, answer(1, b"no"))
    with pytest.raises(DaemonRefusedError, match="no"):
        ask_status(str(path))
    daemon.close()


def test_the_command_ends_with_the_sentence_and_its_id(path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^enid: ipamd does not answer .* \[DAEMON-AWAY\]$"):
        main(["status", "--socket", str(path)])


@pytest.mark.parametrize("colour", [True, False])
def test_status_as_a_person_reads_it_needs_no_colour(*, colour: bool) -> None:
    page = io.StringIO()
    terminal = {"TERM": "xterm", "COLUMNS": "120"}  # whatever this one is
    console = Console(file=page, force_terminal=colour, no_color=not colour, _environ=terminal)
    show_status(STATUS, console)
    text = Text.from_ansi(page.getvalue()).plain
    for words in ("i-0123", "mode normal", "███▒····x", "not ours", "default/web-0 (superseded)"):
        assert words in text
    assert "1 of 3 ENIs" in text


def test_trouble_is_shown() -> None:
    page = io.StringIO()
    troubled = Status(**{**STATUS, "mode": "ec2-away", "troubles": ["census: EC2 does not answer"]})
    show_status(troubled, Console(file=page, width=120))
    assert "trouble: census: EC2 does not answer" in page.getvalue()


def test_how_it_stands_with_kubernetes_is_shown() -> None:
    page = io.StringIO()
    away = ClusterStatus(link="away", sentence="GET /api/v1/pods: Connection refused")
    show_status(Status(**{**STATUS, "cluster": away}), Console(file=page, width=120))
    assert "kubernetes away" in page.getvalue()
    assert "kubernetes: GET /api/v1/pods: Connection refused" in page.getvalue()


def test_an_address_is_shown_as_it_is() -> None:
    page = io.StringIO()
    lease = STATUS["leases"][0].copy()
    lease["address"], lease["pod"] = "2001:db8:1234:100::4", "default/[bold]"
    show_status(Status(**{**STATUS, "leases": [lease]}), Console(file=page, width=120))
    assert "2001:db8:1234:100::4" in page.getvalue()
    assert "default/[bold]" in page.getvalue()


def test_many_addresses_are_drawn_in_proportion() -> None:
    big = EniStatus(**{**ENI, "slots": 49, "assigned": 49, "cooling": 0, "free": 0, "taken": 0})
    assert len(bar(big).plain) == 24


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in ((["--help"], "enid lab demo"), (["status", "--help"], "jq")):
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args(argv)
        assert words in capsys.readouterr().out
