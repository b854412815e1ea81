"""What comes of a check, and how it is told."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from vpclab.checks.check import (
    Check,
    FailedError,
    NotApplicableError,
    State,
    require,
    run,
    run_all,
)
from vpclab.checks.network import NETWORK, QUICK
from vpclab.checks.show import outcome_lines, sentence, show_outcome, show_summary
from vpclab.cluster.api import ApiError


def check(look: Callable[[str], str]) -> Check[str]:
    return Check("name", "what it proves", "where to look", look)


def fails(error: Exception) -> Callable[[str], str]:
    def look(_: str) -> str:
        raise error

    return look


@pytest.mark.parametrize(
    ("look", "state", "said"),
    [
        pytest.param(lambda ground: f"seen on {ground}", State.OK, "seen on earth", id="evidence"),
        pytest.param(fails(FailedError("saw x")), State.FAILED, "saw x -- where to look", id="another-fact"),
        pytest.param(fails(ApiError("503")), State.FAILED, "503 -- where to look", id="no-answer"),
        pytest.param(fails(NotApplicableError("no DNS")), State.SKIPPED, "no DNS", id="nothing-to-see"),
    ],
)  # fmt: skip
def test_what_comes_of_it(look: Callable[[str], str], state: State, said: str) -> None:
    outcome = run(check(look), "earth")
    assert (outcome.state, outcome.said) == (state, said)


def test_a_mistake_of_the_check_is_no_outcome() -> None:
    with pytest.raises(KeyError):
        run(check(fails(KeyError("x"))), "earth")


def test_what_is_required_and_not_so_fails() -> None:
    require([1], "there is one")
    with pytest.raises(FailedError, match="none"):
        require([], "none")


def test_all_are_told_with_what_they_prove() -> None:
    outcomes = list(run_all([check(lambda _: "seen"), check(fails(FailedError("saw x")))], "earth"))
    first, second, third, fourth = outcome_lines(outcomes)
    assert first.startswith("ok ")
    assert first.endswith("name                     what it proves")
    assert second.strip() == "seen"
    assert third.startswith("FAILED ")
    assert fourth.strip() == "saw x -- where to look"
    assert sentence(outcomes) == "1 ok, 1 FAILED"
    assert sentence([]) == "no check ran"


def test_checks_have_names_of_their_own_and_say_what_they_prove() -> None:
    assert len({one.name for one in NETWORK}) == len(NETWORK)
    assert all(one.proves and one.means for one in NETWORK)


def test_a_quick_round_is_of_at_least_thirty() -> None:
    assert len(QUICK) >= 30
    assert set(QUICK) < set(NETWORK)


def test_a_check_that_may_not_look_is_no_failure() -> None:
    outcome = run(check(fails(ApiError("403 pods is forbidden", 403))), "earth")
    assert outcome.state is State.SKIPPED
    assert "may not" in outcome.said


def test_colour_is_beside_the_word() -> None:
    out = io.StringIO()
    failed = run(check(fails(FailedError("saw x"))), "earth")
    plain = Console(file=out, width=200, no_color=True)
    show_outcome(failed, plain)
    show_summary([failed], "3 nodes", plain)
    lines = out.getvalue().splitlines()
    assert lines[0].split()[0] == "FAILED"
    assert lines[-2:] == ["FAILED name", "1 FAILED: 3 nodes"]
    assert "\x1b" not in out.getvalue()
