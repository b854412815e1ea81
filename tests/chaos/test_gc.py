"""GC on a whole daemon in virtual time: what it releases, beside other verbs, late, and killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ipamd.plan.loop import Delay
from tests.chaos.lane_rows import ROOMY, Play
from tests.chaos.many import folder
from tests.chaos.world import Call, Pod

OLD_SECONDS = 400.0
"""Longer than the guard."""

NOTES_SECONDS = 61.0
"""A runtime that has run so long has read its notes."""


@pytest.fixture
def play() -> Iterator[Play]:
    """Give a node with two pods that are older than the guard."""
    with folder() as path:
        made = Play(ROOMY, Path(path))
        made.start()
        made.add("known", "known")
        made.add("lost", "lost")
        made.pause(OLD_SECONDS)
        yield made
        made.laws.on_deaths.clear()
        made.kill_daemon()


def collect(play: Play, *known: str, runs_for: float = NOTES_SECONDS, key: bool = True) -> Call:
    """Send a GC whose list has *known*, of a runtime that has run so long."""
    world = play.world
    call = Call(world, Pod("gc", world.kernel.own), "GC", with_netns=False)
    conf: dict[str, object] = {"cniVersion": "1.1.0", "name": "enid", "type": "enid-cni"}
    if key:
        conf["cni.dev/valid-attachments"] = [
            {"containerID": name, "ifname": "eth0"} for name in known
        ]
    call.frame = replace(
        call.frame,
        env={"CNI_COMMAND": "GC"},
        stdin=json.dumps(conf).encode(),
        runtime_ns=int((world.boot() - runs_for) * 1e9),
    )
    for name in {"known", "lost"} - {*known}:
        world.pods[name].is_deleted = True  # to its runtime
    play.calls["gc"] = call
    play.go_on("gc")
    return call


def test_what_is_not_listed_is_released_before_the_answer(play: Play) -> None:
    collect(play, "known")
    play.pause(0.1)
    assert "gc" not in play.codes
    play.pause(2)
    assert play.codes["gc"] == 0
    assert play.leased == play.wired == {"known"}


def test_a_runtime_that_has_just_started_is_not_believed(play: Play) -> None:
    collect(play, runs_for=NOTES_SECONDS - 2)
    play.pause(2)
    assert play.codes["gc"] == 0
    assert play.leased == {"known", "lost"}


def test_an_add_that_is_under_way_is_not_touched(play: Play) -> None:
    play.add("new", "new")
    play.pause(0.1)
    collect(play, "known")
    play.pause(3)
    assert play.codes["new"] == play.codes["gc"] == 0
    assert play.leased == play.wired == {"known", "new"}


def test_a_list_that_is_missing_releases_nothing(play: Play) -> None:
    collect(play, key=False)
    play.pause(2)
    assert play.codes["gc"] == 7
    assert play.leased == {"known", "lost"}


def test_a_del_of_the_same_attachment_is_answered_too(play: Play) -> None:
    play.delete("del", "lost")
    collect(play, "known")
    play.pause(3)
    assert play.codes["gc"] == play.codes["del"] == 0
    assert play.leased == {"known"}


def test_two_at_once_are_both_answered(play: Play) -> None:
    first = collect(play)
    collect(play)
    play.calls["first"] = first
    play.pause(4)
    assert play.codes["first"] == play.codes["gc"] == 0
    assert play.leased == set()


def test_one_that_takes_too_long_is_told_how_much_is_left_and_goes_on(play: Play) -> None:
    assert play.world.life is not None
    play.world.life.loop.latency = lambda work, _: Delay(
        150 if work.__qualname__.endswith(".disconnect") else 0.001
    )
    call = collect(play, "known")
    play.pause(106)
    assert play.codes["gc"] == 11
    assert "1 attachments of enid are not released yet" in call.pod.answers[0][1]["msg"]
    play.pause(60)
    assert play.leased == {"known"}


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3])
def test_a_daemon_that_is_killed_does_it_in_its_next_life(play: Play, seconds: float) -> None:
    collect(play, "known")
    play.pause(seconds)
    play.kill_daemon()
    play.pause(40)
    assert play.codes["gc"] == 0
    assert play.leased == play.wired == {"known"}
