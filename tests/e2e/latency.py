"""How long pods take to start, from the histograms of who was there. Pure.

Each program counts in buckets of its own, so a quantile is as exact as the bucket that it falls
into: it is found as Prometheus' `histogram_quantile` finds it, by a straight line in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

LINE = re.compile(r"^(\w+)(?:\{(.*?)\})? ([0-9.e+-]+|\+Inf)$", re.MULTILINE)
LE = re.compile(r'le="([^"]+)"')
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations in seconds: how many were at most so long, by the bucket's bound."""

    buckets: Mapping[float, float] = field(default_factory=dict)
    seconds: float = 0.0
    count: float = 0.0

    def __add__(self, other: Histogram) -> Histogram:
        """Return both together, as of two nodes; their buckets are the same."""
        return self._with(other, 1)

    def __sub__(self, former: Histogram) -> Histogram:
        """Return what has come since *former*."""
        return self._with(former, -1)

    def _with(self, other: Histogram, sign: int) -> Histogram:
        bounds = sorted({*self.buckets, *other.buckets})
        return Histogram(
            {le: self.buckets.get(le, 0) + sign * other.buckets.get(le, 0) for le in bounds},
            self.seconds + sign * other.seconds,
            self.count + sign * other.count,
        )

    @property
    def mean(self) -> float:
        """How long one took, in the mean; 0 of none."""
        return self.seconds / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return within which time that *share* of them was done; 0 of none.

        What is past the last bound is told as that bound.
        """
        rank, bounds = share * self.count, sorted(self.buckets.items())
        for (low, before), (high, until) in pairwise([(0.0, 0.0), *bounds]):
            if until >= rank and until > before:
                part = (rank - before) / (until - before)
                return low if high == inf else low + part * (high - low)
        return 0.0


def values(text: str, family: str, labels: str = "") -> Iterator[tuple[str, float]]:
    """Yield labels and value of each line of a metric that has *labels*."""
    for name, found, value in LINE.findall(text):
        if name == family and labels in found:
            yield found, float(value)


def total(text: str, family: str, labels: str = "") -> float:
    """Return the sum of a metric's values that have *labels*."""
    return sum(value for _, value in values(text, family, labels))


def histogram(text: str, family: str, labels: str = "") -> Histogram:
    """Return what a page of metrics tells of a histogram, all series with *labels* together."""
    buckets: dict[float, float] = {}
    for found, value in values(text, f"{family}_bucket", labels):
        (bound,) = map(float, LE.findall(found))
        buckets[bound] = buckets.get(bound, 0) + value
    return Histogram(
        buckets,
        total(text, f"{family}_sum", labels),
        total(text, f"{family}_count", labels),
    )


def rows(found: Mapping[str, Histogram]) -> Iterator[str]:
    """Yield a table in milliseconds, a line for each."""
    heads = ("count", "mean", *(f"p{100 * share:g}" for share in QUANTILES))
    yield f"{'ms':44}" + "".join(f"{head:>8}" for head in heads)
    for name, one in found.items():
        times = (one.mean, *map(one.quantile, QUANTILES))
        yield f"{name:44}{one.count:8.0f}" + "".join(f"{1000 * time:8.1f}" for time in times)


def share(part: Histogram, whole: Histogram) -> str:
    """Return which share of *whole*'s time was *part*'s, in the mean."""
    return f"{100 * part.mean / whole.mean:.0f} %" if whole.mean else "-"
