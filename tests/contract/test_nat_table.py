"""The VPC's CIDRs, limits and settings, heard while the daemon runs: when the table is written."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from cni.kernel import NodeError, NodeNet
from ipamd.nat_table import NatTable
from ipamd.settings import Settings

FIRST, SECOND = IPv4Network("10.0.0.0/16"), IPv4Network("100.64.0.0/16")


class Kernel:
    """Takes tables, or refuses them."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.refuses = False

    def apply_nft(self, text: str) -> bool:
        if self.refuses:
            raise NodeError("nft -f -: Device or resource busy")
        self.written.append(text)
        return True


class Bench:
    """A table, and what it has written."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.table = NatTable(
            net=cast("NodeNet", self.kernel),
            thread=ThreadPoolExecutor(1),
            node_primary=IPv4Address("10.0.0.4"),
            eni_numbers=3,
            settings=Settings(),
            cidrs={FIRST: True},
        )

    def renewed(self) -> int:
        """Renew; return how often the table has been written since the last call."""
        self.kernel.written.clear()
        asyncio.run(self.table.renew())
        return len(self.kernel.written)

    def returns(self, cidr: IPv4Network) -> bool:
        return f"ip daddr {cidr} return" in self.kernel.written[-1]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_nothing_new_writes_nothing(bench: Bench) -> None:
    bench.table.hear_cidrs({FIRST})
    bench.table.hear_eni_numbers(3)
    assert bench.renewed() == 0


def test_a_cidr_that_comes_is_written_at_once(bench: Bench) -> None:
    bench.table.hear_cidrs({FIRST, SECOND})
    assert bench.renewed() == 1
    assert bench.returns(FIRST)
    assert bench.returns(SECOND)
    assert bench.renewed() == 0


def test_a_cidr_that_is_missing_once_stays_and_twice_is_gone(bench: Bench) -> None:
    """IMDS lists them one by one, and an answer may be short."""
    bench.table.hear_cidrs({FIRST, SECOND})
    assert bench.renewed() == 1
    bench.table.hear_cidrs({FIRST})
    assert bench.renewed() == 0
    bench.table.hear_cidrs({FIRST})
    assert bench.renewed() == 1
    assert bench.returns(FIRST)
    assert not bench.returns(SECOND)


def test_a_cidr_that_is_back_in_the_next_answer_was_never_away(bench: Bench) -> None:
    for told in ({FIRST, SECOND}, {FIRST}, {FIRST, SECOND}, {FIRST}):
        bench.table.hear_cidrs(told)
    assert bench.renewed() == 1
    assert bench.returns(SECOND)


def test_a_table_that_the_kernel_refused_is_tried_again(bench: Bench) -> None:
    bench.kernel.refuses = True
    bench.table.hear_settings(Settings(external_snat=True))
    assert bench.renewed() == 0
    bench.kernel.refuses = False
    assert bench.renewed() == 1
    assert bench.renewed() == 0


def test_more_enis_have_their_chains(bench: Bench) -> None:
    bench.table.hear_eni_numbers(5)
    assert bench.renewed() == 1
    assert "chain via5" in bench.kernel.written[-1]
