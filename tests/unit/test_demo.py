"""The demo's books and its picture: from data, without a box."""

from __future__ import annotations

import io
import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from ipamd.status import Status
from vpclab.demo import crash, picture, proofs, sabotage
from vpclab.demo.ledger import (
    CLAIMS,
    EniView,
    Latency,
    Ledger,
    NodeView,
    Outcome,
    PodView,
    caught,
    listed,
    verdict,
)
from vpclab.demo.run import NOT_CAUGHT, tell
from vpclab.demo.stage import word_for
from vpclab.demo.stream import Flow
from vpclab.demo.traffic import Peer, Place, Seen, batches, checksum, echo_request

NOWHERE = cast(Place, None)
A = Peer("cart", IPv4Address("10.0.1.5"), NOWHERE)
B = Peer("web", IPv4Address("10.0.2.5"), NOWHERE)


def ledger(*failed: str) -> Ledger:
    books = Ledger()
    for name in CLAIMS:
        books.settle(name, f"of {name}", ok=name not in failed)
    return books


def outcome(*failed: str) -> Outcome:
    enis = (
        EniView(id="eni-1", number=1, assigned=1, cooling=1, free=2),
        EniView(id="eni-2", number=2, assigned=0, cooling=0, free=3),
    )
    nodes = tuple(
        NodeView(
            name=f"node-{letter}", instance_id=f"i-{letter}", instance_type="m5.large",
            zone=f"us-east-1{letter}", subnet=f"10.0.{n}.0/24", primary=f"10.0.{n}.4",
            public=f"198.51.100.{n}", enis=enis if letter == "a" else (),
        )
        for n, letter in ((1, "a"), (2, "b"))
    )  # fmt: skip
    names = (("cart", "a", "10.0.1.5"), ("web", "b", "10.0.2.5"), ("logs", "b", "10.0.2.6"))
    pods = tuple(
        PodView(namespace="shop", name=name, node=f"node-{node}", address=address, eni_id="eni-1")
        for name, node, address in names
    )
    tcp = {s: {t: "ok" for t, *_ in names if s != t} for s, *_ in names}
    ping = {s: dict(row) for s, row in tcp.items()}
    tcp["web"]["cart"] = "seen as 10.0.2.4"
    ping["cart"]["web"] = "no answer"
    tcp["logs"]["web"] = ping["logs"]["web"] = "no answer"
    return Outcome(
        seconds=12.34,
        vpc="10.0.0.0/16",
        internet="203.0.113.1",
        proofs=ledger(*failed).close(),
        nodes=nodes,
        pods=pods,
        connectivity={"tcp": tcp, "ping": ping},
        ec2_calls={"DescribeNetworkInterfaces": 3, "CreateNetworkInterface": 2},
        milliseconds={"ADD": [10.0, 12.0, 90.0], "DEL": []},
        drops={"spoofed_ip": 0},
    )


def console() -> Console:
    return Console(file=io.StringIO(), width=picture.WIDTH, highlight=False)


def text_of(printed: Console) -> str:
    assert isinstance(printed.file, io.StringIO)
    return printed.file.getvalue()


# Books ---------------------------------------------------------------------------------
def test_what_nobody_settled_has_failed() -> None:
    books = Ledger()
    books.settle("rights", "0x1000", ok=True)
    closed = {p.name: p for p in books.close()}
    assert list(closed) == list(CLAIMS)
    assert closed["rights"].ok
    assert closed["rights"].claim == CLAIMS["rights"]
    assert not closed["no-leaks"].ok
    assert "did not get that far" in closed["no-leaks"].detail


def test_the_first_word_counts() -> None:
    books = Ledger()
    books.settle("rights", "0x1000", ok=True)
    books.fail_rest(["rights", "books"], "it broke")
    assert books.holds("rights")
    assert not books.holds("books")
    assert not books.holds("no-drops"), "not settled yet"


@pytest.mark.parametrize(
    ("failed", "sentence"),
    [
        ((), f"All {len(CLAIMS)} proofs hold."),
        (("books",), "The proof books failed: of books."),
        (("books", "freed"), f"2 of {len(CLAIMS)} proofs failed: books, freed."),
    ],
)
def test_the_verdict_is_one_sentence(failed: tuple[str, ...], sentence: str) -> None:
    assert verdict(ledger(*failed).close()) == sentence


@pytest.mark.parametrize(
    ("failed", "noticed", "sentence"),
    [
        ((), False, "Nothing noticed the sabotage x: a proof is missing."),
        (("freed",), True, "The sabotage x was caught by the proof freed."),
        (("books", "freed"), True, "The sabotage x was caught by the proofs freed and books."),
        (
            ("books",),
            False,
            "The sabotage x should have been caught by freed; only books failed.",
        ),
    ],
)
def test_a_sabotage_is_caught_by_the_proof_it_was_made_for(
    failed: tuple[str, ...], sentence: str, *, noticed: bool
) -> None:
    assert caught("x", ("freed",), ledger(*failed).close()) == (noticed, sentence)


def test_a_list_reads_as_a_sentence() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_every_proof_can_be_broken() -> None:
    caught_by = {name for one in sabotage.ALL for name in one.caught_by}
    assert caught_by == CLAIMS.keys()


def test_every_claim_belongs_to_one_scene() -> None:
    scenes = (*proofs.SCENES, crash.scene(lambda: None), *proofs.FINALE)
    names = [name for scene in scenes for name in scene.names]
    assert sorted(names) == sorted(CLAIMS)


def test_a_latency_is_median_p90_and_maximum() -> None:
    assert Latency.of([3.0, 1.0, 2.0, 10.0]).as_data() == {
        "count": 4, "median": 2.5, "p90": 10.0, "max": 10.0,
    }  # fmt: skip
    assert Latency.of([7.0]).p90 == 7.0


# Picture and data ----------------------------------------------------------------------
def test_the_data_has_exactly_these_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(outcome(), None, console(), as_json=True, svg=None) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        "ok", "seconds", "proofs", "nodes", "pods", "connectivity", "ec2_calls", "latency_ms",
        "drops",
    ]  # fmt: skip
    assert found["ok"] is True
    assert found["proofs"][0].keys() == {"name", "ok", "detail"}
    assert found["latency_ms"].keys() == {"ADD"}, "no DEL was measured"


@pytest.mark.parametrize(
    ("failed", "broken", "status"),
    [
        ((), None, 0),
        (("freed",), None, 1),
        (("freed",), "no-cooldown", 1),
        ((), "no-cooldown", NOT_CAUGHT),
    ],
)
def test_the_exit_status_says_how_it_came_out(
    failed: tuple[str, ...], broken: str | None, status: int
) -> None:
    spoilt = sabotage.BY_NAME[broken] if broken else None
    assert tell(outcome(*failed), spoilt, console(), as_json=False, svg=None) == status


def test_the_picture_shows_vpc_matrix_calls_and_proofs() -> None:
    printed = console()
    printed.print(picture.draw(outcome("freed")))
    lines = text_of(printed).splitlines()
    matrix = {
        line.split()[1]: line.split()[2:] for line in lines if line[2:4] in {"A ", "B ", "C "}
    }
    assert matrix["cart"] == ["·", "t", "●"]
    assert matrix["web"] == ["p", "·", "●"]
    assert matrix["logs"] == ["●", "✗", "·"]
    assert any("node-a" in line and "10.0.1.4" in line for line in lines)
    assert any("█▒··" in line and "1 cooling" in line for line in lines)
    assert any("DescribeNetworkInterfaces" in line for line in lines)
    assert any(line.split()[:2] == ["✗", "freed"] for line in lines)
    assert any(line.split()[:2] == ["✓", "rights"] for line in lines)


def test_the_picture_can_be_kept(tmp_path: Path) -> None:
    picture.save(outcome(), str(tmp_path / "demo.svg"))
    assert "node-a" in (tmp_path / "demo.svg").read_text()


@pytest.mark.parametrize(
    ("value", "largest", "drawn"),
    [(8, 8, "████"), (4, 8, "██"), (1, 16, "▎"), (0, 8, ""), (1, 0, "")],
)
def test_a_bar_is_drawn_in_eighths(value: float, largest: float, drawn: str) -> None:
    assert picture.bar(value, largest, 4) == drawn


def test_the_list_of_sabotages_names_all() -> None:
    printed = console()
    picture.print_sabotage(sabotage.ALL, printed)
    assert all(one.name in text_of(printed) for one in sabotage.ALL)


# What was seen -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (Seen(A.address), "ok"),
        (Seen(IPv4Address("10.0.1.4")), "seen as 10.0.1.4"),
        (Seen(None, "Connection refused"), "Connection refused"),
        (Seen(A.address, answered=False), "no answer"),
    ],
)
def test_what_was_seen_in_a_word(seen: Seen, word: str) -> None:
    assert word_for(A, seen) == word


def test_a_translated_address_counts_as_wrong() -> None:
    seen = {(A, B): Seen(IPv4Address("10.0.1.4")), (B, A): Seen(B.address)}
    assert proofs.count_wrong(seen) == (1, "cart (10.0.1.5) to web: seen as 10.0.1.4")
    assert proofs.count_wrong({(A, B): Seen(None, "silence")})[1].endswith("silence")
    assert proofs.count_wrong({(A, B): Seen(A.address)}) == (0, "")


def test_facts_are_told_all_or_only_those_that_are_not_so() -> None:
    assert proofs.told({"it cools": True, "it has no lease": True}) == "it cools; it has no lease"
    assert proofs.told({"it cools": False, "it has no lease": True}) == "not so: it cools"


def test_books_that_differ_are_told() -> None:
    row = {"id": "eni-1", "assigned": 1, "cooling": 1, "free": 1, "leaving": 0}
    status = cast(Status, {"enis": [row]})
    assert proofs.compare_books("a", status, {"eni-1": 3}) == []
    assert "not in its books" in proofs.compare_books("a", status, {"eni-1": 3, "eni-2": 0})[0]
    assert "not attached" in proofs.compare_books("a", status, {})[0]
    assert "its books say 3" in proofs.compare_books("a", status, {"eni-1": 4})[0]


def leases(*rows: tuple[str, str], cooling: float | None = None) -> Status:
    held: list[dict[str, Any]] = [
        {"container_id": c, "ifname": "eth0", "pod": f"shop/{c}", "address": a} for c, a in rows
    ]
    cools = [] if cooling is None else [{"address": "10.0.1.9", "seconds_left": cooling}]
    return cast(Status, {"leases": held, "cooling": cools})


def test_a_lease_may_not_change_over_a_restart() -> None:
    before = leases(("c1", "10.0.1.5"))
    assert crash.compare_leases(before, leases(("c1", "10.0.1.5"), ("c2", "10.0.1.6"))) == []
    assert crash.compare_leases(before, leases()) == ["the lease of shop/c1 is lost"]
    assert crash.compare_leases(before, leases(("c1", "10.0.1.7"))) == [
        "the lease of shop/c1 changed in address"
    ]


def test_what_cools_must_cool_on() -> None:
    before = leases(cooling=20.0)
    assert crash.compare_cooling(before, leases(cooling=15.0)) == []
    assert crash.compare_cooling(before, leases()) == ["10.0.1.9 cools no more"]
    assert crash.compare_cooling(before, leases(cooling=30.0)) == ["10.0.1.9 cools anew"]


@pytest.mark.parametrize(
    ("flow", "ok"),
    [
        pytest.param(Flow("udp", "a", "b", sent=9, received=9), True, id="all-came-back"),
        pytest.param(Flow("udp", "a", "b", sent=9, received=8), False, id="one-lost"),
        pytest.param(Flow("tcp", "a", "b", sent=9, received=9, resent=1), False, id="resent"),
        pytest.param(Flow("udp", "a", "b"), False, id="nothing-was-sent"),
        pytest.param(
            Flow("tcp", "a", "b", sent=9, received=9, trouble="reset"), False, id="broken"
        ),
    ],
)
def test_traffic_counts_whole_or_not_at_all(flow: Flow, *, ok: bool) -> None:
    books = Ledger()
    crash.settle_traffic(books, [flow])
    assert books.holds("kill-traffic") is ok


def test_a_gap_is_between_two_answers() -> None:
    flow = Flow("udp", "a", "b")
    for moment in (1.0, 1.02, 1.5, 1.52):
        flow.heard(1, moment)
    assert flow.received == 4
    assert flow.longest_gap == pytest.approx(0.48)


def test_an_echo_request_sums_up() -> None:
    assert checksum(echo_request(1, 2, b"odd")) == 0


def test_batches_lose_nothing() -> None:
    assert [list(b) for b in batches([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4], [5]]
