"""Lanes: every interleaving of (ADD, ADD', DEL, gone, killed, done) up to length 6; CHECK among them
up to 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from ipamd import lanes
from ipamd.lanes import (
    Add,
    Check,
    Del,
    Effect,
    Event,
    Gone,
    Lane,
    Lease,
    Netns,
    Outcome,
    Phase,
    Verb,
    step,
)

HERE: Netns = (4, 1001)
ELSEWHERE: Netns = (4, 2002)


@dataclass
class World:
    """A daemon, a kernel and a runtime around one lane; prints itself as what happened."""

    lane: Lane = field(default_factory=Lane)
    clock: int = 0
    live: dict[int, Verb] = field(default_factory=dict)
    answers: dict[int, Outcome] = field(default_factory=dict)
    row: Lease | None = None
    wire: Netns | None = None
    deleted_ns: int = 0
    working: str = ""
    lacks_wire: bool = False
    """Whether a kill may have left a lease without a wire."""
    story: list[str] = field(default_factory=list)

    def send(self, event: Event) -> None:
        self.story.append(str(event))
        self.lane, effects = step(self.lane, event)
        for effect in effects:
            self.story.append(f"   -> {effect}")
            self.perform(effect)

    def perform(self, effect: Effect) -> None:  # noqa: C901 - one row an effect
        match effect:
            case lanes.Ask(call):
                assert call in self.live
                self.work("ask")
            case lanes.Withdraw():
                assert self.working == "ask"
                self.working = ""
            case lanes.Wire(call):
                assert call in self.live
                assert self.wire is None, "a pod that has its wire loses it"
                self.work("wire")
            case lanes.Unwire():
                assert self.row is not None
                self.work("unwire")
            case lanes.Inspect(call):
                assert call in self.live
                assert self.row is not None
                self.work("inspect")
            case lanes.Release():
                self.row = None
            case lanes.Remember(started_ns):
                self.deleted_ns = max(self.deleted_ns, started_ns)
            case lanes.Reply(call, outcome):
                verb = self.live.pop(call)
                assert call not in self.answers
                self.answers[call] = outcome
                if outcome is Outcome.ADDED:
                    assert isinstance(verb, Add)
                    assert self.wire == verb.netns

    def work(self, what: str) -> None:
        assert not self.working, "two things at once in one lane"
        self.working = what

    # What may happen -------------------------------------------------------------------
    def add(self, netns: Netns) -> None:
        self.clock += 1
        self.call(Add(self.clock, self.clock, netns))

    def delete(self) -> None:
        self.clock += 1
        self.call(Del(self.clock, self.clock))

    def check(self) -> None:
        self.clock += 1
        self.call(Check(self.clock))

    def call(self, verb: Verb) -> None:
        self.live[verb.call] = verb
        self.send(verb)

    def gone(self) -> None:
        if self.live:
            call = min(self.live)
            del self.live[call]
            self.send(Gone(call))

    def done(self) -> None:
        working, self.working = self.working, ""
        match working:
            case "ask":
                assert isinstance(self.lane.head, Add)
                self.row = Lease(self.lane.head.started_ns, self.lane.head.netns, wired=False)
                self.send(lanes.Granted())
            case "wire":
                assert self.row is not None
                self.wire = self.row.netns
                self.send(lanes.Wired())
            case "unwire":
                self.wire, self.row = None, None
                self.send(lanes.Unwired())
            case "inspect":
                self.send(lanes.Inspected(is_wired=self.wire is not None))

    def killed(self, *, early: bool = False) -> None:
        """The memory is lost, files and kernel stay; plugins send their frames again."""
        self.story.append("killed")
        if self.working == "wire" and self.row is not None and not early:
            self.wire = self.row.netns  # the thread had got that far
        self.lacks_wire |= early
        self.working = ""
        self.lane = Lane(lease=self.row, deleted_ns=self.deleted_ns)
        again, self.live = list(self.live.values()), {}
        for verb in again:
            self.call(verb)


MOVES = {
    "ADD": lambda w: w.add(HERE),
    "ADD'": lambda w: w.add(ELSEWHERE),
    "DEL": World.delete,
    "gone": World.gone,
    "killed": World.killed,
    "done": World.done,
}
WITH_CHECK = {**MOVES, "CHECK": World.check}
WITH_HALVES = {**MOVES, "killed early": lambda w: w.killed(early=True)}


def copy(world: World) -> World:
    return replace(
        world, live=dict(world.live), answers=dict(world.answers), story=list(world.story)
    )


def settle(world: World) -> None:
    for _ in range(40):
        if not world.working:
            if world.lacks_wire and world.wire is None:
                world.row, world.lane = None, Lane()  # released: two looks have found no veth
            return
        world.done()
    pytest.fail("it never ends:\n" + "\n".join(world.story))


def check(world: World, last_verb: str) -> None:
    story = "\n".join(world.story)
    assert not world.live, f"somebody was never answered:\n{story}"
    assert world.lane.phase is Phase.IDLE, story
    assert not world.lane.queue, story
    assert (world.lane.lease is None) == (world.row is None), story
    assert (world.wire is None) == (world.row is None), f"wire without lease or reverse:\n{story}"
    if last_verb == "DEL":
        assert world.row is None, f"a DEL left something:\n{story}"


def walk(
    world: World, length: int, last_verb: str, moves: Mapping[str, Callable[[World], None]] = MOVES
) -> int:
    final = copy(world)
    settle(final)
    check(final, last_verb)
    if not length:
        return 1
    count = 1
    for name, move in moves.items():
        if name == "done" and not world.working:
            continue
        following = copy(world)
        move(following)
        verb = name if name in {"ADD", "ADD'", "DEL"} else last_verb
        # A DEL whose client hung up while it queued was never asked for.
        if name == "gone" and last_verb == "DEL":
            verb = "unsure"
        count += walk(following, length - 1, verb, moves)
    return count


def test_every_interleaving_up_to_length_6_answers_all_and_leaks_nothing() -> None:
    assert walk(World(), 6, "") > 20_000


def test_every_interleaving_with_checks_up_to_length_5_answers_all_and_leaks_nothing() -> None:
    assert walk(World(), 5, "", WITH_CHECK) > 5_000


def test_every_interleaving_with_half_made_wires_up_to_length_5_answers_all() -> None:
    assert walk(World(), 5, "", WITH_HALVES) > 5_000


FORMER = Lane(lease=Lease(10, HERE, wired=False))


def test_an_add_finds_what_a_former_life_has_wired() -> None:
    lane, effects = step(FORMER, Add(1, 20, HERE))
    assert effects == (lanes.Inspect(1),)
    after, effects = step(lane, lanes.Inspected(is_wired=True))
    assert effects == (lanes.Reply(1, Outcome.ADDED),)
    assert after == Lane(lease=Lease(10, HERE, wired=True))


def test_an_add_tells_in_which_netns_a_wire_is_that_only_the_kernel_knew() -> None:
    lane = step(Lane(lease=Lease(10, None, wired=False)), Add(1, 20, HERE))[0]
    lane = step(lane, lanes.Inspected(is_wired=True))[0]
    assert step(lane, Add(2, 30, ELSEWHERE))[1] == (lanes.Reply(2, Outcome.OTHER_NETNS),)


def test_an_add_goes_on_with_what_a_former_life_has_half_wired() -> None:
    lane = step(FORMER, Add(1, 20, HERE))[0]
    lane, effects = step(lane, lanes.Inspected(is_wired=False))
    assert effects == (lanes.Wire(1),)
    assert step(lane, lanes.Wired())[1] == (lanes.Reply(1, Outcome.ADDED),)


def test_an_add_that_cannot_see_its_wire_fails_and_takes_nothing_away() -> None:
    lane = step(FORMER, Add(1, 20, HERE))[0]
    after, effects = step(lane, lanes.Inspected())
    assert effects == (lanes.Reply(1, Outcome.FAILED),)
    assert after == FORMER


def test_an_add_whose_client_left_while_it_was_looked_for_takes_nothing_away() -> None:
    lane = step(step(FORMER, Add(1, 20, HERE))[0], Gone(1))[0]
    assert step(lane, lanes.Inspected(is_wired=False)) == (FORMER, ())


def test_a_check_of_what_is_not_there_is_told_so() -> None:
    assert step(Lane(), Check(1))[1] == (lanes.Reply(1, Outcome.UNKNOWN),)


def test_a_check_waits_for_its_turn_and_leaves_the_lease_as_it_is() -> None:
    lane = step(step(Lane(), Add(1, 10, HERE))[0], lanes.Granted())[0]
    lane, effects = step(lane, Check(2))
    assert effects == ()
    lane, effects = step(lane, lanes.Wired())
    assert effects == (lanes.Reply(1, Outcome.ADDED), lanes.Inspect(2))
    after, effects = step(lane, lanes.Inspected())
    assert effects == (lanes.Reply(2, Outcome.CHECKED),)
    assert after == Lane(lease=Lease(10, HERE, wired=True))


def test_a_check_whose_client_left_answers_nobody() -> None:
    lane = step(Lane(lease=Lease(1, HERE, wired=True)), Check(2))[0]
    lane = step(lane, Gone(2))[0]
    assert step(lane, lanes.Inspected())[1] == ()


def test_a_del_waits_for_the_check_before_it() -> None:
    lane = step(Lane(lease=Lease(1, HERE, wired=True)), Check(2))[0]
    lane, effects = step(lane, Del(3, 20))
    assert effects == (lanes.Remember(20),)
    assert step(lane, lanes.Inspected())[1] == (
        lanes.Reply(2, Outcome.CHECKED),
        lanes.Remember(20),
        lanes.Unwire(),
    )


def test_an_add_older_than_the_last_del_is_refused() -> None:
    lane, _ = step(Lane(), Del(1, 50))
    assert step(lane, Add(2, 49, HERE))[1] == (lanes.Reply(2, Outcome.STALE),)


def test_an_add_after_the_del_is_a_new_life() -> None:
    lane, _ = step(Lane(), Del(1, 50))
    assert step(lane, Add(2, 51, HERE))[1] == (lanes.Ask(2),)


def test_a_spooled_del_older_than_the_lease_touches_nothing() -> None:
    lane = Lane(lease=Lease(100, HERE, wired=True))
    after, effects = step(lane, Del(1, 99))
    assert effects == (lanes.Reply(1, Outcome.DELETED),)
    assert after == lane


def test_a_del_while_the_add_waits_answers_both_at_once() -> None:
    lane, _ = step(Lane(), Add(1, 10, HERE))
    after, effects = step(lane, Del(2, 20))
    assert after.is_forgettable
    assert effects == (
        lanes.Remember(20),
        lanes.Withdraw(1),
        lanes.Reply(1, Outcome.DELETED_MEANWHILE),
        lanes.Reply(2, Outcome.DELETED),
    )


def test_an_add_whose_client_left_while_it_was_wired_is_undone() -> None:
    lane = step(step(Lane(), Add(1, 10, HERE))[0], lanes.Granted())[0]
    lane = step(lane, Gone(1))[0]
    lane, effects = step(lane, lanes.Wired())
    assert effects == (lanes.Unwire(),)
    assert step(lane, lanes.Unwired())[0].is_forgettable


def test_a_wire_that_cannot_be_made_gives_the_address_back() -> None:
    lane = step(step(Lane(), Add(1, 10, HERE))[0], lanes.Granted())[0]
    lane, effects = step(lane, lanes.WireFailed())
    assert effects == (lanes.Release(), lanes.Reply(1, Outcome.FAILED))
    assert lane.is_forgettable


def test_an_add_that_gets_no_address_makes_way_for_the_next() -> None:
    lane = step(Lane(), Add(1, 10, HERE))[0]
    lane = step(lane, Add(2, 11, HERE))[0]
    _, effects = step(lane, lanes.NotGranted())
    assert effects == (lanes.Reply(1, Outcome.FAILED), lanes.Ask(2))


def test_another_netns_is_refused_while_the_first_lives() -> None:
    lane = Lane(lease=Lease(1, HERE, wired=True))
    assert step(lane, Add(1, 10, ELSEWHERE))[1] == (lanes.Reply(1, Outcome.OTHER_NETNS),)
