"""The fixtures for other people's tests, as another project's pytest meets them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.test_box import environment
from vpclab import box

TESTS = """
import boto3, pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError

ONCE = Config(retries={"total_max_attempts": 1})

def test_packets(embedded_vpc):
    subnet = embedded_vpc.add_subnet("10.0.1.0/24", az="us-east-1a")
    node = embedded_vpc.launch_node("node-a", "m5.large", subnet)
    assert "10.0.1.4/24" in node.run(["ip", "-br", "addr"]).stdout
    embedded_vpc.faults.lose("CreateNetworkInterface")
    with pytest.raises(ConnectionClosedError):
        boto3.client("ec2", config=ONCE).create_network_interface(SubnetId=subnet)
    assert len(embedded_vpc.enis()) == 2
    assert embedded_vpc.calls == {"CreateNetworkInterface": 1}

class TestOther:
    @pytest.fixture
    def embedded_vpc_options(self):
        return {"cidr": "10.9.0.0/16", "ipv6": True}

    def test_options(self, embedded_vpc):
        assert (embedded_vpc.cidrs, len(embedded_vpc.cidrs6)) == (["10.9.0.0/16"], 1)

def test_ec2(embedded_ec2):
    made = boto3.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]
    found = embedded_ec2.client.describe_vpcs(VpcIds=[made["VpcId"]])["Vpcs"]
    assert found[0]["CidrBlock"] == "10.0.0.0/16"
    assert embedded_ec2.plane.calls["CreateVpc"] == 1
"""

NO_USER = """
import sys

def test_nothing_is_loaded():
    heavy = ("moto", "boto3", "botocore", "flask", "pyroute2", "rich", "vpclab.vpc", "vpclab.api")
    assert [name for name in sys.modules if name.startswith(heavy)] == []
"""


def run(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a test file in an empty folder, outside the box of these tests."""
    (folder / "test_theirs.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-W", "error", "-p", "no:cacheprovider", *words],
        cwd=folder, env={**environment(), "AWS_PROFILE": "theirs"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.skipif(box.obstacle() is not None, reason="no box can be made here")
def test_a_test_that_asks_for_a_vpc_has_one(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS, "--vpc-box")
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout


def test_without_a_box_it_is_skipped_with_the_cure(tmp_path: Path) -> None:
    done = run(tmp_path, TESTS, "-k", "packets")
    assert "an embedded VPC runs in a box: pytest --vpc-box" in done.stdout
    assert (done.returncode, "1 skipped" in done.stdout) == (0, True), done.stdout


def test_a_box_that_was_asked_for_and_cannot_be_made_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(NO_USER)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "pytest", "--vpc-box"],
        cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "[LAB-NO-BOX]" in done.stderr


def test_whoever_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, NO_USER)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout
