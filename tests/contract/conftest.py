"""What contract tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.cloud import Cloud, new_cloud


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """An EC2 with an empty VPC."""
    with new_cloud() as cloud:
        yield cloud
