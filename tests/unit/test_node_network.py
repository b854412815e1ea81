"""The record of a node's ENIs, what its schema says of it, and when it is written again."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eni.model import EniId, SubnetId
from ipamd.clock import Instant
from ipamd.cluster import MalformedObjectError, RecordSeen, record_seen
from ipamd.node_network import (
    COUNTS_SECONDS,
    WRITE_SECONDS,
    WRITTEN,
    Instance,
    differing,
    draft,
    pause_seconds,
    record,
    record_path,
    without_counts,
)
from ipamd.pool import EniCensus, PoolEni
from ipamd.terms import Mode
from tests.tools.pure import ROOT

CRD = yaml.safe_load((ROOT / "config" / "chart" / "crds" / "nodenetworks.yaml").read_text())
(VERSION,) = CRD["spec"]["versions"]
HERE = Instance(
    id="i-0a1b2c", type="m5.large", primary="10.0.0.4", version="1.0", mode="normal",
    kind="single", max_enis=3,
)  # fmt: skip
FIRST, SECOND = EniId("eni-0a"), EniId("eni-0b")


def eni(eni_id: EniId, number: int, **more: Any) -> PoolEni:
    return PoolEni(eni_id, number, 9, SubnetId("subnet-0a"), Instant(0, 0), **more)


CENSUS = (
    EniCensus(eni(SECOND, 2, closed=True), assigned=1, free=2, leaving=1, singles=4),
    EniCensus(eni(FIRST, 1), assigned=5, cooling=2, free=9, prefixes=1),
)
BLOCKS = {
    IPv4Network("10.0.1.6/32"): SECOND,
    IPv4Network("10.0.1.4/32"): SECOND,
    IPv4Network("10.0.1.5/32"): SECOND,
    IPv4Network("10.0.1.9/32"): SECOND,
    IPv4Network("10.0.2.16/28"): FIRST,
}
TOLD = record(HERE, CENSUS, BLOCKS)


def test_a_record() -> None:
    assert TOLD == {
        "mode": "normal", "kind": "single", "version": "1.0", "instanceID": "i-0a1b2c",
        "instanceType": "m5.large", "primaryAddress": "10.0.0.4",
        "counts": {"enis": 2, "maxENIs": 3, "held": 20, "assigned": 6, "cooling": 2, "free": 9},
        "enis": [
            {
                "id": "eni-0a", "number": 1, "subnetID": "subnet-0a", "state": "open", "slots": 9,
                "cidrs": ["10.0.2.16/28"],
                "counts": {"held": 16, "assigned": 5, "cooling": 2, "free": 9},
            },
            {
                "id": "eni-0b", "number": 2, "subnetID": "subnet-0a", "state": "closed", "slots": 9,
                "cidrs": ["10.0.1.4/31", "10.0.1.6/32", "10.0.1.9/32"],
                "counts": {"held": 4, "assigned": 1, "cooling": 0, "free": 2},
            },
        ],
    }  # fmt: skip


def test_an_eni_that_gives_nothing_new_is_excluded() -> None:
    (told,) = record(HERE, [EniCensus(eni(FIRST, 1, excluded=True), free=3)], {})["enis"]
    assert told["state"] == "excluded"


blocks = st.one_of(
    st.integers(0, 400).map(lambda n: IPv4Network((0x0A000100 + n, 32))),
    st.integers(0, 20).map(lambda n: IPv4Network((0x0A000400 + 16 * n, 28))),
)


@given(st.dictionaries(blocks, st.sampled_from([FIRST, SECOND]), max_size=60))
def test_every_address_is_traced_to_its_eni_and_to_no_other(held: dict[IPv4Network, EniId]) -> None:
    told = record(HERE, [EniCensus(eni(FIRST, 1)), EniCensus(eni(SECOND, 2))], held)
    for found in told["enis"]:
        shown = {address for cidr in found["cidrs"] for address in ip_network(cidr)}
        assert shown == {a for b, eni_id in held.items() if eni_id == found["id"] for a in b}


# Its schema --------------------------------------------------------------------------------
def check(schema: dict[str, Any], value: Any, where: str) -> None:
    """Hold *value* to what the schema says of it, as far as we use schemas."""
    match schema["type"]:
        case "object":
            assert value.keys() <= schema["properties"].keys(), where
            assert set(schema.get("required", ())) <= value.keys(), where
            for name, part in value.items():
                check(schema["properties"][name], part, f"{where}.{name}")
        case "array":
            assert len(value) <= schema["maxItems"], where
            for number, part in enumerate(value):
                check(schema["items"], part, f"{where}[{number}]")
        case "integer":
            assert type(value) is int, where
            assert value >= schema["minimum"], where
        case "string":
            assert len(value) <= schema.get("maxLength", 40), where
            assert re.search(schema.get("pattern", ""), value), where
            assert value in schema.get("enum", [value]), where


STATUS = VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("kind", ["single", "prefix"])
def test_the_schema_takes_it_and_asks_for_every_field(mode: Mode, kind: str) -> None:
    told = record(replace(HERE, mode=mode.value, kind=kind), CENSUS, BLOCKS)
    whole = {**told, WRITTEN: "2026-01-01T00:00:00Z"}
    check(STATUS, whole, "status")
    assert set(STATUS["required"]) == whole.keys()


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda c: c["name"])
def test_a_column_shows_a_field_that_is_there(column: dict[str, Any]) -> None:
    found: Any = {"status": {**TOLD, WRITTEN: "now"}}
    for step in column["jsonPath"].lstrip(".").split("."):
        found = found[step]
    assert found is not None


def test_its_names() -> None:
    names = CRD["spec"]["names"]
    assert (names["kind"], names["shortNames"]) == ("NodeNetwork", ["nn"])
    made = draft("node-1", "u-1")
    assert made["apiVersion"] == f"{CRD['spec']['group']}/{VERSION['name']}"
    assert record_path("node-1") == f"/apis/{made['apiVersion']}/{names['plural']}/node-1"
    (owner,) = made["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "u-1"}


# When ----------------------------------------------------------------------------------------
def test_counts_alone_are_told_more_rarely() -> None:
    busier = record(HERE, (CENSUS[0], replace(CENSUS[1], assigned=6, free=8)), BLOCKS)
    grown = record(HERE, CENSUS, {**BLOCKS, IPv4Network("10.0.1.8/32"): SECOND})
    denied = record(replace(HERE, mode="denied"), CENSUS, BLOCKS)
    shown = {**TOLD, WRITTEN: "before"}
    assert pause_seconds(shown, TOLD) is None
    assert pause_seconds(shown, busier) == COUNTS_SECONDS
    assert pause_seconds(shown, grown) == pause_seconds(shown, denied) == WRITE_SECONDS
    assert pause_seconds({}, TOLD) == WRITE_SECONDS
    assert "counts" not in str(without_counts(TOLD))


def test_what_somebody_changed_is_named() -> None:
    shown = {**TOLD, "mode": "odd", "enis": [], WRITTEN: "now", "more": 1}
    assert differing(shown, TOLD) == "enis, mode, more"
    assert differing({**TOLD, WRITTEN: "now"}, TOLD) == ""


# What is there -------------------------------------------------------------------------------
def test_a_record_is_read() -> None:
    made = draft("node-1", "u-1")
    made["metadata"]["resourceVersion"] = "7"
    found = record_seen({**made, "status": TOLD})
    assert found == RecordSeen(version="7", owner="u-1", status=TOLD)


@pytest.mark.parametrize(
    "owners", [None, [{"kind": "Pod", "uid": "u-1"}], [{"kind": "Node"}]], ids=str
)
def test_a_record_that_no_node_owns_is_read(owners: object) -> None:
    metadata = {"name": "node-1", "ownerReferences": owners}
    assert record_seen({"metadata": metadata}) == RecordSeen(version="", owner="", status={})


def test_a_record_that_is_none_is_said() -> None:
    with pytest.raises(
        MalformedObjectError, match=r"^NodeNetwork n: status is 'x', not an object$"
    ):
        record_seen({"metadata": {"name": "n"}, "status": "x"})
