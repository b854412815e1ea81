"""What the tests of terraform/ share: terraform, and which provider it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.terraform.terraform import MIRROR, Terraform


@pytest.fixture(scope="session")
def providers() -> Path:
    """The folder of providers: the stub's, or one that has the real one (PROVIDERS=FOLDER)."""
    return Path(os.environ.get("PROVIDERS") or MIRROR)


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory, providers: Path) -> Terraform:
    """Terraform over a copy of ours."""
    return Terraform(tmp_path_factory.mktemp("terraform"), providers).copy()


@pytest.fixture
def scratch(tmp_path: Path, providers: Path) -> Terraform:
    """Terraform over a copy that a test may spoil."""
    return Terraform(tmp_path, providers).copy()
