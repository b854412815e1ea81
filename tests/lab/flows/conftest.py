"""The town of the data plane's tests, without and with kube-proxy."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest

from tests.lab.flows.kubeproxy import FLAVOURS, Flavour
from tests.lab.flows.town import Town


@pytest.fixture(scope="session")
def town() -> Iterator[Town]:
    """The town, built once."""
    from vpclab.vpc import EmbeddedVPC  # noqa: PLC0415 - moto takes a second to import

    with EmbeddedVPC() as vpc, contextlib.ExitStack() as stack:
        yield Town(vpc, stack)


@pytest.fixture(scope="session", params=FLAVOURS)
def proxied(town: Town, request: pytest.FixtureRequest) -> Iterator[Town]:
    """The town with kube-proxy's rules of one flavour."""
    flavour: Flavour = request.param
    if flavour == "iptables" and shutil.which("iptables-restore") is None:
        pytest.skip("iptables is not installed: these flows ran beside nft only")
    town.proxy(flavour)
    town.vpc.reset_drops()
    yield town
    town.unproxy(flavour)
