"""The flows of the data plane, with real packets, beside kube-proxy in two flavours.

Each flow is one TCP connection with two exchanges and 20 kB, whose far end tells who it is
and whom it sees. At the end the VPC must have dropped nothing: a packet that leaves by the
wrong ENI, or with somebody else's source, is counted by the fabric.
"""

from __future__ import annotations

import pytest

from tests.lab.flows.town import Flow, Town, flows


@pytest.mark.parametrize("flow", list(flows()), ids=str)
def test_flow(proxied: Town, flow: Flow) -> None:
    assert proxied.try_flow(flow) == ""
    assert not any(proxied.vpc.drops().values()), proxied.vpc.drops()


def test_there_are_118_flows_and_ten_from_the_internet() -> None:
    every = list(flows())
    assert len(set(map(str, every))) == len(every) == 118 + 10
