"""checkov finds nothing in terraform/, but what is explained where it is."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.terraform.terraform import CACHE, ROOT, Answer, Terraform, run


def checkov(terraform: Terraform, *words: str) -> Answer:
    """Return what it says; it is asked for no news."""
    program = str(CACHE / "checkov" / "bin" / "checkov")
    argv = [program, "-d", ".", "--framework", "terraform", "--quiet", "--skip-download", *words]
    return run(argv, terraform.files, {"BC_SKIP_UPDATE_CHECK": "1"})


def counted(terraform: Terraform) -> dict[str, Any]:
    """Return its findings."""
    found: dict[str, Any] = json.loads(checkov(terraform, "-o", "json").said)
    return found


def test_it_finds_nothing_and_looks(terraform: Terraform) -> None:
    found = counted(terraform)
    assert [(c["check_id"], c["resource"]) for c in found["results"]["failed_checks"]] == []
    assert found["summary"]["passed"] >= 50
    assert found["summary"]["parsing_errors"] == 0


def test_each_exception_says_why() -> None:
    skips = [
        (path.name, line.strip())
        for path in sorted((ROOT / "terraform").rglob("*.tf"))
        for line in path.read_text().splitlines()
        if "checkov:skip" in line
    ]
    assert len(skips) == 4
    assert [s for s in skips if not re.search(r"skip=CKV2?_AWS_\d+: \S+ \S+ \S+", s[1])] == []


MISTAKES = {
    "CKV_AWS_79": ("nodes.tf", '= "required"', '= "optional"'),
    "CKV_AWS_37": ("cluster.tf", '"audit", ', ""),
    "CKV_AWS_7": ("cluster.tf", "enable_key_rotation     = true", "enable_key_rotation = false"),
}
"""What is wrong, by the check that says so."""


def test_it_finds_mistakes(scratch: Terraform) -> None:
    for name, right, wrong in MISTAKES.values():
        path = scratch.files / name
        text = path.read_text()
        assert right in text
        path.write_text(text.replace(right, wrong, 1))
    assert {c["check_id"] for c in counted(scratch)["results"]["failed_checks"]} == set(MISTAKES)
