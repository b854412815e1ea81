"""The spool: DELs in their order, and whatever else may lie there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cni.frame import Frame, encode
from ipamd import spool

NOW = 1_790_000_000.0


def whole(started_ns: int) -> bytes:
    return encode(Frame({"CNI_COMMAND": "DEL"}, b"{}", started_ns, started_ns + 1))


def drained(folder: Path) -> list[spool.SpooledCall]:
    return list(spool.drain(folder, 1, NOW))


def test_dels_come_in_the_order_in_which_their_plugins_started(tmp_path: Path) -> None:
    for name, started in (("a.eth0", 300), ("b.eth0", 20), ("a.b.eth0", 100)):
        (tmp_path / f"{name}.{started}").write_bytes(whole(started))
    calls = drained(tmp_path)
    assert [call.frame.started_ns for call in calls] == [20, 100, 300]
    assert [call.id for call in calls] == [-1, -2, -3]


def test_a_file_goes_when_its_del_is_done_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "a.eth0.1").write_bytes(whole(1))
    (call,) = drained(tmp_path)
    assert [again.frame for again in drained(tmp_path)] == [call.frame]
    call.reply(0, b"")
    call.reply(0, b"")
    assert drained(tmp_path) == []


def a_folder(path: Path) -> None:
    path.mkdir()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("/none")


def a_link_to_a_frame(path: Path) -> None:
    (path.parent / "frame").write_bytes(whole(1))
    path.symlink_to(path.parent / "frame")


def of(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(of(b""), "the frame is incomplete", id="empty"),
        pytest.param(of(whole(1)[:-1]), "the frame is incomplete", id="torn"),
        pytest.param(of(whole(1) + b"x"), "bytes came after the frame", id="too-long"),
        pytest.param(of(b"\0" * 5000), "the first line is too long", id="zeroes"),
        pytest.param(of(b"enid1 9999999999 0 0 0\n"), "too large", id="too-large"),
        pytest.param(a_folder, "Is a directory", id="a-folder"),
        pytest.param(a_fifo, "it is no file", id="a-fifo"),
        pytest.param(a_link_to_nothing, "symbolic links", id="a-link-to-nothing"),
        pytest.param(a_link_to_a_frame, "symbolic links", id="a-link-to-a-frame"),
    ],
)
def test_what_is_no_whole_frame_is_set_aside_and_holds_nobody_up(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[Path], object],
    reason: str,
) -> None:
    make(tmp_path / "a.eth0.1")
    (tmp_path / "b.eth0.2").write_bytes(whole(2))
    assert [call.frame.started_ns for call in drained(tmp_path)] == [2]
    (record,) = caplog.records
    assert reason in vars(record)["reason"]
    assert "a.eth0.1.unreadable" in {path.name for path in tmp_path.iterdir()}
    caplog.clear()
    assert len(drained(tmp_path)) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    "name", ["a", "a.eth0", "a.eth0.x", "a.eth0.\u00b2", ".5", "a.eth0." + "9" * 20]
)
def test_what_has_another_name_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(whole(1))
    os.utime(tmp_path / name, (NOW, NOW))
    assert drained(tmp_path) == []
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(("age", "stays"), [(1, True), (119, True), (121, False)])
def test_the_draft_of_a_plugin_that_was_killed_goes(
    tmp_path: Path, age: int, *, stays: bool
) -> None:
    draft = tmp_path / ".4711"
    draft.write_bytes(b"enid1 ")
    os.utime(draft, (NOW - age, NOW - age))
    drained(tmp_path)
    assert draft.exists() is stays
