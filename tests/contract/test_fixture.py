"""The fixtures for other people's tests, as another project's pytest meets them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.lab.test_box import environment
from tests.tools import laptop
from vpclab import box

OTHER = """
import pytest

class TestOther:
    @pytest.fixture
    def embedded_vpc_options(self):
        return {"cidr": "10.9.0.0/16", "ipv6": True}

    def test_options(self, embedded_vpc):
        assert (embedded_vpc.cidrs, len(embedded_vpc.cidrs6)) == (["10.9.0.0/16"], 1)

def test_ec2(embedded_ec2):
    import boto3

    made = boto3.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]
    found = embedded_ec2.client.describe_vpcs(VpcIds=[made["VpcId"]])["Vpcs"]
    assert found[0]["CidrBlock"] == "10.0.0.0/16"
    assert embedded_ec2.plane.calls["CreateVpc"] == 1
"""

NOBODY = """
import sys

def test_nothing_is_loaded():
    heavy = ("moto", "boto3", "botocore", "flask", "pyroute2", "rich", "vpclab.vpc", "vpclab.api")
    assert [name for name in sys.modules if name.startswith(heavy)] == []
"""


def run(folder: Path, files: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on test files in an empty folder, outside the box of these tests."""
    for name, text in files.items():
        (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-W", "error", "-p", "no:cacheprovider", *words],
        cwd=folder, env={**environment(), "AWS_PROFILE": "theirs"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_the_fixtures_do_what_the_page_says_and_find_its_leak(tmp_path: Path) -> None:
    if reason := box.obstacle():
        pytest.skip(reason)
    page = laptop.scripts()
    files = {
        "test_other.py": OTHER,
        "allocator.py": page["allocator.py"],
        "test_allocator.py": page["test_allocator.py"],
        "leaking.py": page["allocator.py"].replace("=token", "=str(uuid.uuid4())"),
        "test_leaking.py": page["test_allocator.py"].replace("from allocator", "from leaking"),
    }
    done = run(tmp_path, files, "--vpc-box")
    assert "1 failed, 5 passed" in done.stdout, done.stdout
    assert "FAILED test_leaking.py::test_a_lost_answer_leaks_no_eni" in done.stdout
    assert "Left contains one more item" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_without_a_box_it_is_skipped_with_the_cure_and_nobody_else_pays(tmp_path: Path) -> None:
    files = {"test_other.py": OTHER, "test_nobody.py": NOBODY}
    done = run(tmp_path, files, "-k", "options or nothing")
    assert "an embedded VPC runs in a box: pytest --vpc-box" in done.stdout
    assert (done.returncode, "1 passed, 1 skipped" in done.stdout) == (0, True), done.stdout


def test_a_box_that_was_asked_for_and_cannot_be_made_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "test_nobody.py").write_text(NOBODY)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "pytest", "--vpc-box"],
        cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "[LAB-NO-BOX]" in done.stderr
