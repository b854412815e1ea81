"""What a long set-up prints, and where."""

from __future__ import annotations

import subprocess
from pathlib import Path

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
