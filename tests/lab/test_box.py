"""A box: what goes in, what comes out, and that nothing stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Container
from pathlib import Path

import pytest

from vpclab import box

MINUTE = "60.0"


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "vpclab.box", *argv]


def environment() -> dict[str, str]:
    """The environment without the mark of the box that this test runs in."""
    return {key: value for key, value in os.environ.items() if key != box.MARK}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*argv),
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def namespaces() -> dict[str, str]:
    """Each network namespace that a process is in, with the words of one."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            found[str((process / "ns/net").readlink())] = f"{process.name} {words}"
    return found


def left_after(before: Container[str], seconds: float = 10) -> dict[str, str]:
    """Return the namespaces that are there beside those of *before*, within seconds: none."""
    deadline = time.monotonic() + seconds
    while left := {n: words for n, words in namespaces().items() if n not in before}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return left


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)]
)
def test_the_status_passes_through(script: str, status: int) -> None:
    assert run("sh", "-c", script).returncode == status


def test_what_is_read_and_written_passes_through() -> None:
    done = subprocess.run(
        command("sh", "-c", "cat; echo aside >&2"),
        env=environment(), input="hello", capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("hello", "aside\n")


def test_a_box_knows_that_it_is_one_and_is_not_put_in_another() -> None:
    inner = "import vpclab.box as b; print(b.in_box()); b.enter(['false'])"
    done = run(sys.executable, "-c", inner)
    assert (done.stdout, done.returncode) == ("True\n", 0)


def test_another_boxs_mark_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(box.MARK, "net:[1]")
    assert not box.in_box()


def test_a_box_has_a_run_and_a_loopback_of_its_own() -> None:
    links = run("ip", "-br", "link").stdout.splitlines()
    assert [line.split()[0] for line in links if "UP" in line] == ["lo"]
    assert set(run("ls", "/run").stdout.split()) <= {"lock", "media", "mount", "netns"}


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["term", "kill"],
)
def test_nothing_stays_of_a_box_whose_outside_is_killed(number: int, status: int) -> None:
    before = namespaces()
    with subprocess.Popen(
        command("sh", "-c", f"echo begun; sleep {MINUTE}; true"),
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as outer:  # fmt: skip
        assert outer.stdout is not None
        assert outer.stdout.readline() == "begun\n"
        assert len(namespaces().keys() - before) == 1
        outer.send_signal(number)
        assert outer.wait(10) == status
    assert left_after(before) == {}


def test_ctrl_c_reaches_the_command() -> None:
    script = "trap 'echo trapped; exit 5' INT; echo begun; sleep 1 & wait; exit 1"
    with subprocess.Popen(
        command("sh", "-c", script),
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has it ignored, and a shell cannot trap that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as outer:  # fmt: skip
        assert outer.stdout is not None
        assert outer.stdout.readline() == "begun\n"
        os.killpg(outer.pid, signal.SIGINT)
        assert outer.stdout.read() == "trapped\n"
        assert outer.wait(10) == 5


def test_two_boxes_at_once_do_not_meet() -> None:
    script = "ip link add same type veth peer name other; ip netns add same; sleep 0.3; ip netns"
    boxes = [
        subprocess.Popen(
            command("sh", "-ec", script),
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [(b.communicate(timeout=30)[0], b.returncode) for b in boxes] == [("same\n", 0)] * 2


def test_a_missing_program_is_named() -> None:
    named = box.obstacle({"no-such-program": "its-package"})
    assert named == "programs are missing: apt-get install its-package"


def test_a_box_that_cannot_be_made_is_one_sentence() -> None:
    """In a user namespace without rights, as where user namespaces are switched off."""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command("true")],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("enid: root may not make namespaces here (")
    assert done.stderr.endswith("[LAB-NO-BOX]\n")
    assert done.stderr.count("\n") == 1
