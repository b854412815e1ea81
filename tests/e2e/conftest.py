"""The real API server that these tests share (`make kube`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.apiserver import ApiServer, programs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A kube-apiserver with RBAC, the ENIConfig CRD and the daemon's account."""
    found = programs()
    if found is None:
        pytest.skip("NOT TESTED against Kubernetes: no kube-apiserver is built; run `make kube`")
    server = ApiServer(found, tmp_path_factory.mktemp("kubernetes"))
    try:
        server.start()
        server.install()
        yield server
    finally:
        server.stop()
