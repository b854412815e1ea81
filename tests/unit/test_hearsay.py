"""What IMDS tells: ENIs make us look at once, blocks when they have differed for long, each once."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from eni.model import Block, EniId
from ipamd.clock import Instant
from ipamd.hearsay import LASTS_SECONDS, Hearsay, strange_blocks

ONE, TWO, THREE = EniId("eni-1"), EniId("eni-2"), EniId("eni-3")
A, B, C = (IPv4Network(f"10.0.0.{last}/32") for last in (5, 6, 7))
START = Instant(1000, 1000)
SOON, LATER, LAST = (START.later(LASTS_SECONDS + more) for more in (-1, 0, 600))


def test_each_picture_of_enis_is_worth_one_look() -> None:
    hearsay = Hearsay()
    pictures = [{ONE}, {ONE}, {ONE, TWO}, set(), {ONE}]
    assert [hearsay.enis(picture) for picture in pictures] == [True, False, True, False, True]


def test_a_block_is_worth_one_look_when_it_has_differed_for_long() -> None:
    hearsay = Hearsay()
    found = [hearsay.blocks([A], moment) for moment in (START, SOON, LATER, LAST)]
    assert found == [frozenset(), frozenset(), {A}, frozenset()]


def test_a_block_that_agreed_meanwhile_begins_anew() -> None:
    hearsay = Hearsay()
    hearsay.blocks([A], START)
    hearsay.blocks([], SOON)
    assert hearsay.blocks([A], LATER) == frozenset()
    assert hearsay.blocks([A], LAST) == {A}


def test_a_block_that_differs_again_is_worth_another_look() -> None:
    hearsay = Hearsay()
    for moment in (START, LATER):
        hearsay.blocks([A], moment)
    hearsay.blocks([], LATER)
    hearsay.blocks([A], LATER)
    assert hearsay.blocks([A], LATER.later(LASTS_SECONDS)) == {A}


def test_of_two_blocks_each_has_its_own_time() -> None:
    hearsay = Hearsay()
    hearsay.blocks([A], START)
    hearsay.blocks([A, B], SOON)
    assert hearsay.blocks([A, B], LATER) == {A}
    assert hearsay.blocks([A, B], SOON.later(LASTS_SECONDS)) == {B}


@pytest.mark.parametrize(
    ("told", "strange"),
    [
        pytest.param({ONE: (A, B), TWO: (C,)}, set(), id="the-same"),
        pytest.param({ONE: (A,), TWO: (C,)}, {B}, id="one-is-not-told"),
        pytest.param({ONE: (A, B), TWO: ()}, {C}, id="nothing-of-one-is-told"),
        pytest.param({ONE: (A, B, C), TWO: ()}, {C}, id="on-another-eni"),
        pytest.param({ONE: (A, B), TWO: (C, IPv4Network("10.0.0.16/28"))},
                     {IPv4Network("10.0.0.16/28")}, id="a-prefix-we-do-not-know"),
        pytest.param({ONE: (A, B)}, set(), id="an-eni-that-is-not-told-of-is-no-matter-of-blocks"),
        pytest.param({ONE: (A, B), TWO: (C,), THREE: (C,)}, set(), id="an-eni-that-is-not-ours"),
    ],
)  # fmt: skip
def test_strange_blocks(told: dict[EniId, tuple[Block, ...]], strange: set[Block]) -> None:
    assert strange_blocks(told, {A: ONE, B: ONE, C: TWO}, {ONE, TWO}) == strange


def test_an_eni_that_is_left_out_is_not_compared() -> None:
    assert strange_blocks({ONE: (B,), TWO: ()}, {A: ONE, C: TWO}, {TWO}) == {C}
