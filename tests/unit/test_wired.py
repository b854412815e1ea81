"""What the daemon notes of how it wires comes back as it was."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

import pytest

from cni.dataplane import Marks, Routing
from cni.nft_found import FoundTable
from ipamd.wired import Wired, note_tables, note_wired, read_tables, read_wired
from tests.unit.test_nft_found import TEXT, written

WIRED = Wired(
    nft=TEXT,
    routing=Routing(Marks(0x8000), (IPv4Network("192.168.0.0/16"),)),
    mtu=1500,
    primary_mtu=1500,
    prefix="cali",
    ec2_endpoint="http://198.51.100.250",
)


def through_a_file(value: object) -> object:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("wired", [WIRED, Wired()], ids=["changed", "usual"])
def test_how_it_wires_comes_back(wired: Wired) -> None:
    assert read_wired(through_a_file(note_wired(wired))) == wired


@pytest.mark.parametrize("found", [written(), FoundTable()], ids=["ours", "none"])
def test_the_tables_come_back(found: FoundTable) -> None:
    assert read_tables(through_a_file(note_tables(found))) == found


@pytest.mark.parametrize("noted", [None, [], {}, {"external": [], "chains": [[]], "rules": []}])
def test_what_another_version_wrote_is_nothing(noted: object) -> None:
    assert read_wired(noted) is None
    assert read_tables(noted) is None
