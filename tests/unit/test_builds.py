"""The other builds of `make e2e`: what the next one does otherwise is there to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.builds import NEXT, NEXT_VERSION, BuildError, apply, copy, digest, named
from tests.tools.pure import ROOT


def test_each_patch_of_the_next_build_fits_this_checkout(tmp_path: Path) -> None:
    copy(tmp_path)
    before = digest(tmp_path)
    for patch in (*NEXT, *named(tmp_path, NEXT_VERSION)):
        apply(tmp_path, patch)
    assert digest(tmp_path) != before
    for name in {name for name, _, _ in NEXT}:
        text = (tmp_path / name).read_text()
        compile(text, name, "exec")
        assert text != (ROOT / name).read_text()


def test_a_patch_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a = 1\na = 1\n")
    for former, times in (("b", 0), ("a = 1", 2)):
        with pytest.raises(BuildError, match=f"file has '{former}' {times} times"):
            apply(tmp_path, ("file", former, "c"))
