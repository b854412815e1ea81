"""The town of the data plane's tests, without and with kube-proxy."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.lab.flows.kubeproxy import FLAVOURS, Flavour
from tests.lab.flows.town import Town

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC


@pytest.fixture(scope="module")
def town(vpc: EmbeddedVPC) -> Iterator[Town]:
    """The town, built once."""
    with contextlib.ExitStack() as stack:
        yield Town(vpc, stack)


@pytest.fixture(scope="module", params=FLAVOURS)
def proxied(town: Town, request: pytest.FixtureRequest) -> Iterator[Town]:
    """The town with kube-proxy's rules of one flavour."""
    flavour: Flavour = request.param
    if flavour == "iptables" and shutil.which("iptables-restore") is None:
        pytest.skip("iptables is not installed: these flows ran beside nft only")
    town.proxy(flavour)
    town.vpc.reset_drops()
    yield town
    town.unproxy(flavour)
