"""What lab tests share: the box, an embedded VPC, wires. `make test` runs pytest in a box."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.lab.starts import WANTED, starts_of
from vpclab import box
from vpclab.enid import prepare

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the lab's tests, and say how to run them where they cannot."""
    here = __file__.rsplit("/", 1)[0]
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.netns)
            if not box.in_box():
                reason = "needs a box: python -m vpclab.box python -m pytest"
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let no test start a plugin that is not there.

    What is skipped here, and not in a fixture, is one line of pytest's summary for each reason.
    """
    for start in starts_of(item):
        if start.lacks:
            (pytest.fail if start.name in WANTED else pytest.skip)(start.lacks)


@pytest.fixture(scope="module")
def vpc() -> Iterator[EmbeddedVPC]:
    """A VPC with 10.0.0.0/16."""
    from vpclab.vpc import EmbeddedVPC as Vpc  # noqa: PLC0415 - moto takes a second to import

    with Vpc() as vpc:
        yield vpc


@pytest.fixture(scope="module")
def nodes(vpc: EmbeddedVPC) -> tuple[Node, Node]:
    """Two m5.large in two zones."""
    zones = (("10.0.1.0/24", "us-east-1a"), ("10.0.2.0/24", "us-east-1b"))
    a, b = (
        vpc.launch_node(name, "m5.large", vpc.add_subnet(cidr, zone), public=True)
        for name, (cidr, zone) in zip(("node-a", "node-b"), zones, strict=True)
    )
    prepare(a)
    prepare(b)
    return a, b
