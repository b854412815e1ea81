"""GC takes what is not listed, old, and of its own network; nothing else."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from cni.spec import Collect, NetConf, Pod, Sandbox
from eni.model import EniId
from ipamd.clock import Instant
from ipamd.garbage import doomed
from ipamd.lease import LeaseRow

NOW = Instant(boot=10_000.0, wall=90_000.0)
GUARD = 300.0


def row(network: str, container_id: str, boot: float, wall: float) -> LeaseRow:
    return LeaseRow(
        sandbox=Sandbox(network, container_id, "eth0"),
        pod=Pod(),
        addresses=(IPv4Address("10.0.0.9"),),
        eni_id=EniId("eni-1"),
        eni_number=1,
        netns=None,
        started_ns=int(boot * 1e9),
        since=wall,
    )


@pytest.mark.parametrize(
    ("lease", "goes"),
    [
        pytest.param(row("enid", "gone", 9_000, 89_000), True, id="unknown-and-old"),
        pytest.param(row("enid", "gone", 9_700, 89_700), True, id="just-old-enough"),
        pytest.param(row("enid", "gone", 9_701, 89_701), False, id="younger-than-the-guard"),
        pytest.param(row("enid", "gone", 9_990, 80_000), False, id="young-whatever-the-wall-clock-says"),
        pytest.param(row("enid", "gone", 0, 89_990), False, id="rebuilt-just-now"),
        pytest.param(row("enid", "gone", 0, 80_000), True, id="rebuilt-long-ago"),
        pytest.param(row("enid", "known", 9_000, 89_000), False, id="known"),
        pytest.param(row("other", "gone", 9_000, 89_000), False, id="another-network"),
    ],
)  # fmt: skip
def test_what_gc_releases(lease: LeaseRow, *, goes: bool) -> None:
    asked = Collect(NetConf("1.1.0", "enid"), frozenset({("known", "eth0"), ("gone", "net1")}))
    assert doomed([lease], asked, NOW, GUARD) == ((lease.sandbox,) if goes else ())
