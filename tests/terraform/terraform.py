"""Terraform as a test runs it: a copy of ours, a provider from a folder, no way out. Shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "terraform"
MIRROR = CACHE / "mirror"
"""The provider that has a schema only (tools/fetch-terraform)."""

LONGEST_SECONDS = 600
"""The root's tests take a minute and a half on two busy cores."""

COPIED = ("terraform", "config", "eni/limits.json")
"""What our Terraform files read."""

RC = """provider_installation {{
  filesystem_mirror {{
    path = "{providers}"
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a program ended, and what it said on both outputs."""

    status: int
    said: str

    @property
    def sentence(self) -> str:
        """What it said, without the ends of lines that fit a screen."""
        return " ".join(self.said.split())


def run(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], given: str = ""
) -> Answer:
    """Run a program to its end; *given* is its input."""
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **environment}, timeout=LONGEST_SECONDS, check=False,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, input=given,
    )  # fmt: skip
    return Answer(done.returncode, done.stdout)


@dataclass(frozen=True, slots=True)
class Terraform:
    """terraform over a copy of our files, so that it leaves nothing in the work tree.

    *providers* is a folder laid out as Terraform mirrors providers.
    """

    place: Path
    providers: Path

    @property
    def files(self) -> Path:
        """The copy of terraform/."""
        return self.place / "terraform"

    def copy(self) -> Terraform:
        """Copy our files, and write down where providers are."""
        for name in COPIED:
            source, target = ROOT / name, self.place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(".terraform*"))
            else:
                shutil.copy(source, target)
        (self.place / "rc").write_text(RC.format(providers=self.providers))
        return self

    def __call__(self, folder: str, *words: str, **environment: str) -> Answer:
        """Run `terraform WORDS` in a folder of ours."""
        known = {"TF_CLI_CONFIG_FILE": str(self.place / "rc"), "CHECKPOINT_DISABLE": "1"}
        argv = ["terraform", *words[:1], "-no-color", *words[1:]]
        return run(argv, self.files / folder, {**known, **environment})

    def begin(self, folder: str) -> None:
        """Let a folder know its modules and providers."""
        answer = self(folder, "init", "-backend=false", "-input=false")
        assert answer.status == 0, answer.said


def roots() -> list[str]:
    """Return every folder of ours that Terraform can be run in, as terraform/ names it."""
    base = ROOT / "terraform"
    found = {path.parent for path in base.rglob("*.tf") if ".terraform" not in path.parts}
    return sorted(str(path.relative_to(base)) for path in found)


def with_tests() -> list[str]:
    """Return those that have tests."""
    return [name for name in roots() if (ROOT / "terraform" / name / "tests").is_dir()]
