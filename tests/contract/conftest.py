"""What contract tests share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.contract.cloud import Cloud, new_cloud
from tests.contract.embedded import Region, region
from tests.contract.kube_model import ModelServer
from tests.contract.node_world import Node


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """An EC2 with an empty VPC."""
    with new_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def aws() -> Iterator[Region]:
    """An EC2 of which nodes are made."""
    with region() as made:
        yield made


@pytest.fixture
def new_node(
    aws: Region, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., Node]]:
    """A maker of nodes: m5.large, 3 ENIs of 9 addresses for pods each, a VPC for each.

    What they log is kept.
    """
    caplog.set_level(logging.INFO)
    with ExitStack() as nodes:

        def make(**wishes: Any) -> Node:
            node = Node(tmp_path, aws, **wishes)
            nodes.callback(node.end)
            return node

        yield make


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A model of a Kubernetes API server."""
    model = ModelServer(tmp_path_factory.mktemp("kubernetes"))
    model.start()
    yield model
    model.kill()
