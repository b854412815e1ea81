"""What runs in the checks' pods: it says whom it sees, and what became of a question."""

from __future__ import annotations

import errno
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vpclab.checks import agent

ONE = "127.0.0.1"
SERVE = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import agent
agent.serve(0, "127.0.0.1", pathlib.Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where one serves, on the loopback."""
    noted = tmp_path_factory.mktemp("agent") / "port"
    with subprocess.Popen(
        [
            sys.executable, "-I", "-c",
            SERVE, str(Path(agent.__file__).parent), str(noted),
        ]
    ) as process:  # fmt: skip
        try:
            wait = threading.Event()
            while not (noted.exists() and noted.read_text()):
                assert process.poll() is None, "it has ended"
                wait.wait(0.01)
            yield int(noted.read_text())
        finally:
            process.terminate()


def ask(**question: Any) -> dict[str, Any]:
    (answer,) = agent.ask([question])
    return answer


def test_http_says_whom_it_sees_and_who_it_is(port: int) -> None:
    texts = ask(do="http", to=ONE, port=port, times=2)["texts"]
    assert texts == [f"{ONE} {socket.gethostname()}\n"] * 2


def test_as_many_bytes_come_as_were_asked_for(port: int) -> None:
    assert ask(do="load", to=ONE, port=port, size=100_000)["length"] == 100_000


def test_a_datagram_is_answered_padded_and_remembered(port: int) -> None:
    answer = ask(do="udp", to=ONE, port=port, word="w1", size=300, back=500)
    assert answer["text"].split()[:3] == [ONE, socket.gethostname(), "300"]
    assert answer["length"] == 500
    heard = json.loads(ask(do="http", to=ONE, port=port, path="/heard")["texts"][0])
    assert [ONE, "w1"] in heard


def test_what_may_not_be_fragmented_and_does_not_fit_is_refused(port: int) -> None:
    answer = ask(do="udp", to=ONE, port=port, size=65_507 + 1, df=True)
    assert answer["errno"] == errno.EMSGSIZE


def test_a_port_is_open_or_refused(port: int) -> None:
    assert ask(do="connect", to=ONE, port=port)["state"] == "open"
    assert ask(do="connect", to=ONE, port=1)["state"] == "refused"


def test_each_question_has_an_answer_whatever_became_of_the_one_before(port: int) -> None:
    failed, ok = agent.ask([
        {"do": "http", "to": ONE, "port": 1}, {"do": "http", "to": ONE, "port": port},
    ])  # fmt: skip
    assert failed["errno"] == errno.ECONNREFUSED
    assert "error" not in ok


def test_links_have_their_addresses() -> None:
    (lo,) = [link for link in ask(do="inside")["links"] if link["name"] == "lo"]
    assert "127.0.0.1" in lo["addresses"]
    assert "127.0.0.1/8" in lo["networks"]
    assert lo["mtu"] > 1500


def test_files_are_told_with_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "05.conflist").write_text('{"plugins": []}')
    (tmp_path / "00.conf").write_text("no JSON")
    assert ask(do="files", folder=str(tmp_path))["files"] == {
        "00.conf": None, "05.conflist": {"plugins": []},
    }  # fmt: skip


def test_an_ipv4_address_is_told_as_such_on_a_socket_of_both_families() -> None:
    assert agent.plain("::ffff:10.0.0.1") == "10.0.0.1"
    assert agent.plain("fd00::1") == "fd00::1"


# DNS -------------------------------------------------------------------------------------
QUESTION = struct.pack("!HHHHHH", 7, 0x8180, 1, 2, 0, 0) + b"\x03web\x00" + struct.pack("!HH", 1, 1)
POINTER = b"\xc0\x0c"


def record(name: bytes, kind: int, value: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 30, len(value)) + value


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        pytest.param(record(POINTER, 1, bytes([10, 0, 0, 2])) + record(POINTER, 1, bytes([10, 0, 0, 1])), ["10.0.0.1", "10.0.0.2"], id="pointers"),
        pytest.param(record(POINTER, 5, b"\x01a\xc0\x0c") + record(b"\x01a" + POINTER, 1, bytes([10, 0, 0, 1])), ["10.0.0.1"], id="another-name-first"),
        pytest.param(record(b"\x03web\x00", 28, bytes(16)) + record(b"\x03web\x00", 1, bytes([10, 0, 0, 1])), ["10.0.0.1"], id="another-kind-and-whole-names"),
    ],
)  # fmt: skip
def test_addresses_are_found_in_a_reply(answers: bytes, found: list[str]) -> None:
    assert agent.records(QUESTION + answers, len(QUESTION)) == found


def test_a_reply_by_tcp_may_come_in_pieces() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"\x00")
        threading.Timer(0.01, there.sendall, [b"\x03abc"]).start()
        assert agent.by_stream(here, b"query") == b"abc"


def test_a_kernels_number_is_an_address() -> None:
    number = struct.unpack("=I", bytes([169, 254, 1, 1]))[0]
    assert agent.little(f"{number:08X}") == "169.254.1.1"
