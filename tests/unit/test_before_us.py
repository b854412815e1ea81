"""Another CNI's conflist that comes while the daemon runs is said, and that it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipamd import conflists
from ipamd.conflists import LOOK_SECONDS, before_us
from ipamd.plan.loop import VirtualLoop


@pytest.mark.parametrize(
    ("names", "files"),
    [
        pytest.param(["05-enid.conflist"], [], id="ours-alone"),
        pytest.param(["05-enid.conflist", "10-other.conflist"], [], id="behind-ours"),
        pytest.param(["00-b.conf", "00-a.conflist"], ["00-a.conflist", "00-b.conf"], id="two"),
        pytest.param(["00-notes.txt", ".05-enid.conflist.draft"], [], id="no-runtime-reads-these"),
    ],
)
def test_who_comes_before_us(tmp_path: Path, names: list[str], files: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    listed = ", ".join(f"/etc/cni/net.d/{name}" for name in files)
    said = before_us(tmp_path)
    assert said.partition(" sorts before 05-enid.conflist")[0] == listed


def test_without_the_folder_nothing_is_known(tmp_path: Path) -> None:
    assert before_us(tmp_path / "none") == ""


def test_it_is_one_line_however_long_it_lasts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told: list[str] = []
    loop = VirtualLoop()
    task = loop.create_task(conflists.watch(tmp_path, told.append))
    loop.run_until(2 * LOOK_SECONDS)
    other = tmp_path / "00-other.conflist"
    other.touch()
    loop.run_until(10 * LOOK_SECONDS)
    assert "00-other.conflist" in told[-1]
    other.unlink()
    loop.run_until(12 * LOOK_SECONDS)
    assert told[-1] == ""
    lines = [record.message for record in caplog.records if record.name == "ipamd.conflists"]
    assert lines == ["another CNI's conflist comes first", "our conflist comes first again"]
    task.cancel()
    loop.run_until(loop.time() + 1)
    loop.close()
