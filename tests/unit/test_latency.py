"""Quantiles of histograms, as Prometheus finds them."""

from __future__ import annotations

from math import inf

import pytest

from tests.e2e.latency import Histogram, histogram, rows, share, total

PAGE = """\
# HELP took_seconds How long.
took_seconds_bucket{what="add",le="0.1"} 2
took_seconds_bucket{what="add",le="0.5"} 8
took_seconds_bucket{what="add",le="+Inf"} 10
took_seconds_sum{what="add"} 4.5
took_seconds_count{what="add"} 10
took_seconds_bucket{what="del",le="0.1"} 1
took_seconds_bucket{what="del",le="0.5"} 1
took_seconds_bucket{what="del",le="+Inf"} 1
took_seconds_sum{what="del"} 5e-02
took_seconds_count{what="del"} 1
addresses{state="assigned",eni="a"} 3
addresses{state="assigned",eni="b"} 4
plain 2
"""
ADD = histogram(PAGE, "took_seconds", 'what="add"')


def test_it_is_read_from_a_page() -> None:
    assert Histogram({0.1: 2, 0.5: 8, inf: 10}, 4.5, 10) == ADD
    assert histogram(PAGE, "took_seconds").count == 11
    assert total(PAGE, "addresses", 'state="assigned"') == 7
    assert total(PAGE, "plain") == 2


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [
        pytest.param(0.2, 0.1, id="at-a-bound"),
        pytest.param(0.1, 0.05, id="in-the-first-bucket"),
        pytest.param(0.5, 0.3, id="within-a-bucket"),
        pytest.param(0.99, 0.5, id="past-the-last-bound"),
    ],
)
def test_a_quantile_is_on_a_straight_line_in_its_bucket(wanted: float, seconds: float) -> None:
    assert ADD.quantile(wanted) == pytest.approx(seconds)


def test_of_nothing_it_is_nothing() -> None:
    assert Histogram().quantile(0.5) == Histogram().mean == 0
    assert share(ADD, Histogram()) == "-"


def test_what_has_come_since_is_told_alone_and_nodes_together() -> None:
    assert (ADD + ADD) - ADD == ADD
    assert (ADD - ADD).quantile(0.5) == 0


def test_the_table_has_milliseconds() -> None:
    head, line = rows({"ADD": ADD})
    assert head.split() == ["ms", "count", "mean", "p50", "p90", "p99"]
    assert line.split() == ["ADD", "10", "450.0", "300.0", "500.0", "500.0"]
    assert share(histogram(PAGE, "took_seconds", 'what="del"'), ADD) == "11 %"
