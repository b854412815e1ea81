"""What a long set-up prints, and where."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.tools.pure import ROOT


def run(log: Path, command: str) -> subprocess.CompletedProcess[str]:
    script = '. tools/progress.sh; run "$1" "making it" sh -c "$2"; echo "it ended with $?"'
    return subprocess.run(
        ["sh", "-c", script, "sh", log, command],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip


def test_progress_leaves_stdout_to_the_answer(tmp_path: Path) -> None:
    done = run(tmp_path / "log", "echo said; echo aside >&2")
    assert (done.stdout, done.stderr) == ("it ended with 0\n", "enid: making it ...\n")
    assert (tmp_path / "log").read_text() == "said\naside\n"


def test_what_fails_is_quoted_and_its_status_returned(tmp_path: Path) -> None:
    done = run(tmp_path / "log", "echo no way; exit 7")
    assert done.stdout == "it ended with 7\n"
    assert "no way\nenid: making it failed (exit status 7); all it said is in" in done.stderr


@pytest.mark.parametrize("command", ["true", "exit 7"], ids=["done", "failed"])
def test_what_is_to_be_done_at_the_end_is_done_behind_every_run(
    tmp_path: Path, command: str
) -> None:
    """Each build of the plugin left its folder: `run` had taken the script's trap away."""
    script = """
        . tools/progress.sh
        at_exit='echo at the end'
        run "$1" "making it" sh -c "$2" || :
        echo behind
    """
    done = subprocess.run(
        ["sh", "-c", script, "sh", tmp_path / "log", command],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stdout == "behind\nat the end\n"


def test_it_is_done_also_when_a_run_is_interrupted(tmp_path: Path) -> None:
    script = """
        . tools/progress.sh
        at_exit='echo at the end'
        run "$1" "making it" sh -c 'kill -TERM $PPID'
    """
    done = subprocess.run(
        ["sh", "-c", script, "sh", tmp_path / "log"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "at the end\n")
