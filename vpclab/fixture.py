"""A VPC for other people's tests: a pytest plugin. Shell.

    def test_it(embedded_vpc):
        subnet = embedded_vpc.add_subnet("10.0.1.0/24", az="us-east-1a")
        node = embedded_vpc.launch_node("node-a", "m5.large", subnet)

Whoever installs enid has it, so whoever does not use it pays nothing: moto comes with the first
fixture, and not with pytest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from vpclab import box
from vpclab.running import require_extra

if TYPE_CHECKING:
    from vpclab.api import ControlPlane
    from vpclab.vpc import EmbeddedVPC

NO_ACCOUNT = {
    "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
}  # fmt: skip
"""Instead of the account of whoever runs the tests: no files, and credentials that are none."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--vpc-box`."""
    parser.addoption(
        "--vpc-box", action="store_true", default=False,
        help="run in a box of namespaces, which embedded_vpc needs; fail if none can be made",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run pytest itself once more, in a box, if it is to run in one and does not."""
    if config.getoption("--vpc-box") and not box.in_box():
        try:
            box.enter([sys.executable, "-m", "pytest", *config.invocation_params.args])
        except box.BoxError as error:
            raise pytest.UsageError(f"{error} [{error.id}]") from None


@pytest.fixture
def embedded_vpc_options() -> Mapping[str, Any]:
    """What EmbeddedVPC is to be made with; override it: `return {"ipv6": True}`."""
    return {}


@pytest.fixture
def embedded_vpc(
    embedded_vpc_options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, _no_account: None
) -> Iterator[EmbeddedVPC]:
    """An AWS VPC with packets, new for each test; `boto3.client("ec2")` in the test is its EC2.

    `embedded_vpc.ec2` is a client that no fault meets; what a test makes by itself meets them.
    """
    if not box.in_box():
        pytest.skip("an embedded VPC runs in a box: pytest --vpc-box")
    from vpclab.api import listen, serving  # noqa: PLC0415 - moto takes a second: see above
    from vpclab.vpc import EmbeddedVPC as Vpc  # noqa: PLC0415 - as above

    with (
        Vpc(**embedded_vpc_options) as vpc,
        closing(listen("127.0.0.1", 0)) as listener,
        serving(vpc.plane.application(counted=True), listener),
    ):
        _point(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}", vpc.region)
        yield vpc


@dataclass(frozen=True, slots=True)
class EmbeddedEC2:
    """An EC2 without packets: where it answers, a client of it, and what is behind."""

    url: str
    client: Any
    plane: ControlPlane


@pytest.fixture
def embedded_ec2(monkeypatch: pytest.MonkeyPatch, _no_account: None) -> Iterator[EmbeddedEC2]:
    """An EC2 without packets, box or root, new for each test; as an account has, a default VPC.

    `boto3.client("ec2")` in the test is a client of it.
    """
    from vpclab.api import control_plane  # noqa: PLC0415 - moto takes a second: see above

    with control_plane() as (url, plane):
        import boto3  # noqa: PLC0415 - as above

        _point(monkeypatch, url, plane.region)
        yield EmbeddedEC2(url, boto3.client("ec2"), plane)


def _point(monkeypatch: pytest.MonkeyPatch, url: str, region: str) -> None:
    """Let the AWS SDK of this process find EC2 at *url*."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)


@pytest.fixture
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the account of whoever runs the tests out of them; the VPC's own client reads it too.

    Raises ExtraMissingError where enid was installed without its lab.
    """
    require_extra()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in NO_ACCOUNT.items():
        monkeypatch.setenv(name, value)
