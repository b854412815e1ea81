"""What contract tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.cloud import Cloud, new_cloud
from tests.contract.kube_model import ModelServer


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """An EC2 with an empty VPC."""
    with new_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A model of a Kubernetes API server."""
    model = ModelServer(tmp_path_factory.mktemp("kubernetes"))
    model.start()
    yield model
    model.kill()
