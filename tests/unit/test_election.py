"""One sweeper at a time: the law first, over a model of the API with clocks that differ."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipamd.cluster import LeaseView, lease_view
from ipamd.election import (
    Action,
    Elector,
    Terms,
    draft,
    granted,
    pause_seconds,
    step,
)

TERMS = Terms()
Event = Callable[[], None]


class World:
    """True time, and a Lease that the API server keeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stored: Mapping[str, Any] | None = None
        self.electors: list[Candidate] = []
        self._version = 0
        self._events: list[tuple[float, int, Event]] = []
        self._number = 0

    def later(self, seconds: float, event: Event) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def write(self, body: Mapping[str, Any], *, create: bool) -> Mapping[str, Any] | None:
        """Store *body* if it is of the stored version; return what is stored, None if refused."""
        version = None if self.stored is None else self.stored["metadata"]["resourceVersion"]
        if create != (self.stored is None) or (
            not create and body["metadata"]["resourceVersion"] != version
        ):
            return None
        self._version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self._version)}
        self.stored = {**body, "metadata": metadata}
        return self.stored

    def leaders(self) -> list[str]:
        return [c.elector.me for c in self.electors if c.alive and c.elector.leads(c.clock())]


class Candidate:
    """A daemon, with a clock of its own and a bad network."""

    def __init__(
        self, world: World, name: str, dice: random.Random, terms: Terms, rate: float, *, calm: bool
    ) -> None:
        self.world, self.dice, self.rate, self.calm = world, dice, rate, calm
        self.offset = dice.uniform(-1e6, 1e6)
        self.elector = Elector(me=name, terms=terms)
        self.alive = True
        self.turn = 0
        world.electors.append(self)
        world.later(dice.uniform(0, 5), self.mine(self.look))

    def clock(self) -> float:
        return self.offset + self.rate * self.world.now

    def delay(self) -> float:
        """Mostly milliseconds, now and then so long that nobody waits for it."""
        if self.calm or self.dice.random() < 0.9:
            return self.dice.uniform(0.001, 0.5)
        return self.dice.uniform(1, 100)

    def mine(self, event: Event) -> Event:
        """Let an event of this turn not happen in another one, and none in the dead."""
        turn = self.turn
        return lambda: event() if self.alive and self.turn == turn else None

    def look(self) -> None:
        self.turn += 1
        self.world.later(30, self.mine(self.look))  # a time-out

        def read() -> None:
            found = self.world.stored
            self.world.later(self.delay(), self.mine(lambda: self.answered(found)))

        self.world.later(self.delay(), self.mine(read))

    def answered(self, found: Mapping[str, Any] | None) -> None:
        lease = None if found is None else lease_view(found)
        self.elector, action = step(self.elector, lease, self.clock())
        if action is Action.STAND_BY:
            self.again(action)
            return
        body = draft(self.elector, action, found, wall=0, nodes=None)
        asked_at, turn = self.clock(), self.turn
        create = action is Action.CREATE

        def write() -> None:  # also if we have died or given up meanwhile
            written = self.world.write(body, create=create)
            if self.calm or self.dice.random() < 0.95:  # else the answer is lost
                self.world.later(self.delay(), done(written))

        def done(written: Mapping[str, Any] | None) -> Event:
            def event() -> None:
                if self.alive and self.turn == turn:
                    self.told(written, asked_at, action)

            return event

        self.world.later(self.delay(), write)

    def told(self, written: Mapping[str, Any] | None, asked_at: float, action: Action) -> None:
        if written is not None:
            self.elector = granted(
                self.elector, action, lease_view(written), asked_at=asked_at, now=self.clock()
            )
        self.again(action)

    def again(self, action: Action) -> None:
        self.turn += 1
        pause = pause_seconds(self.elector, action, 0, self.dice.random())
        self.world.later(pause / self.rate, self.mine(self.look))

    def die(self) -> None:
        self.alive = False

    def rise(self) -> None:
        """Start anew on the same node; nothing is remembered."""
        if not self.alive:
            self.alive = True
            self.elector = Elector(me=self.elector.me, terms=self.elector.terms)
            self.look()


def history(seed: int, terms: Terms = TERMS, skew: float = 0.2) -> tuple[World, int]:
    """Live for half an hour of faults; return the world, and how often two led at once."""
    dice = random.Random(seed)
    world = World()
    candidates = [
        Candidate(world, f"n{i}", dice, terms, 1 + dice.uniform(-skew, skew), calm=False)
        for i in range(dice.randint(2, 3))
    ]
    violations = 0

    def check() -> None:
        nonlocal violations
        violations += len(world.leaders()) > 1
        world.later(0.25, check)

    def delete() -> None:
        world.stored = None

    check()
    for _ in range(dice.randint(0, 6)):
        victim, when = dice.choice(candidates), dice.uniform(0, 1500)
        world.later(when, victim.die)
        world.later(when + dice.uniform(0, 300), victim.rise)
    for _ in range(dice.randint(0, 9)):
        world.later(dice.uniform(0, 1500), delete)
    world.run(1800)
    return world, violations


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_two_never_lead_at_once(seed: int) -> None:
    _, violations = history(seed)
    assert not violations


@pytest.mark.parametrize(
    ("terms", "skew"),
    [
        pytest.param(
            Terms(deadline_seconds=90.0), 0.2, id="a-leader-that-leads-longer-than-its-lease"
        ),
        pytest.param(TERMS, 0.8, id="clocks-that-run-at-very-different-speeds"),
    ],
)
def test_the_model_would_show_two_leaders(terms: Terms, skew: float) -> None:
    assert any(history(seed, terms, skew)[1] for seed in range(60))


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_when_calm_returns_one_leads(seed: int) -> None:
    world, _ = history(seed)
    for candidate in world.electors:
        candidate.calm = True
    world.electors[0].rise()
    world.run(world.now + 600)
    assert len(world.leaders()) == 1


@pytest.mark.parametrize("fate", ["dies", "is deleted"])
def test_after_the_leaders_end_another_leads_soon(fate: str) -> None:
    dice = random.Random(1)
    world = World()
    for name in "abc":
        Candidate(world, name, dice, TERMS, 1.0, calm=True)
    world.run(200)
    [first] = world.leaders()
    died = next(c for c in world.electors if c.elector.me == first)
    died.die()
    if fate == "is deleted":
        world.stored = None
    # The lease runs out, and the next reads of those who stand by are at most 37.5 s apart.
    world.run(world.now + TERMS.lease_seconds + 2 * 37.5 + 2)
    assert len(world.leaders()) == 1
    assert world.leaders() != [first]


# Steps -----------------------------------------------------------------------------------
def lease(holder: str, version: str = "1", seconds: int = 60) -> LeaseView:
    return LeaseView(version=version, holder=holder, seconds=seconds, transitions=0, nodes=None)


@pytest.mark.parametrize(
    ("seen", "since", "found", "action"),
    [
        pytest.param("", 0.0, None, Action.CREATE, id="absent"),
        pytest.param("", 0.0, lease("me"), Action.RENEW, id="ours-from-a-former-life"),
        pytest.param("", 0.0, lease("other"), Action.STAND_BY, id="anothers-just-seen"),
        pytest.param(
            "1", 40.1, lease("other"), Action.STAND_BY, id="anothers-stood-not-long-enough"
        ),
        pytest.param(
            "1", 40.0, lease("other"), Action.TAKE_OVER, id="anothers-stood-for-the-lease"
        ),
        pytest.param("0", 0.0, lease("other"), Action.STAND_BY, id="anothers-was-renewed"),
        pytest.param(
            "1", 40.0, lease("other", seconds=90), Action.STAND_BY, id="its-holder-wants-longer"
        ),
        pytest.param(
            "1", 41.0, lease("other", seconds=1), Action.STAND_BY, id="never-sooner-than-ours"
        ),
        pytest.param("1", 40.0, lease(""), Action.TAKE_OVER, id="nobodys-stood-for-the-lease"),
    ],
)
def test_what_to_do(seen: str, since: float, found: LeaseView | None, action: Action) -> None:
    elector = Elector(me="me", seen=seen, since=since)
    assert step(elector, found, 100.0)[1] is action


def leader(asked_at: float) -> Elector:
    """Return who has taken over."""
    return granted(Elector(me="me"), Action.TAKE_OVER, lease("me"), asked_at=asked_at, now=asked_at)


def test_leadership_counts_from_the_asking_and_ends() -> None:
    assert leader(90.0).leads(129.9)
    assert not leader(90.0).leads(130.0)


def test_a_renewal_prolongs_it() -> None:
    renewed = granted(leader(90.0), Action.RENEW, lease("me", "2"), asked_at=105.0, now=106.0)
    assert renewed.leads(144.9)
    assert not renewed.leads(145.0)


def test_a_leader_that_sees_another_leads_no_more() -> None:
    deposed, _ = step(leader(90.0), lease("other", "2"), 100.0)
    assert not deposed.leads(100.0)


def test_a_leader_whose_lease_is_deleted_leads_to_its_deadline_and_then_is_on_trial() -> None:
    former, action = step(leader(90.0), None, 100.0)
    assert action is Action.CREATE
    maker = granted(former, action, lease("me", "2"), asked_at=100.0, now=101.0)
    assert maker.leads(129.9)
    for asked_at, leads in ((131.0, False), (160.9, False), (161.0, True)):
        maker = granted(maker, Action.RENEW, lease("me", "3"), asked_at=asked_at, now=asked_at)
        assert maker.leads(asked_at) is leads


def test_who_finds_itself_in_the_lease_is_on_trial_first() -> None:
    found, _ = step(Elector(me="me"), lease("me"), 100.0)
    for asked_at, leads in ((100.0, False), (159.9, False), (160.0, True)):
        found, _ = step(found, lease("me"), asked_at)
        found = granted(found, Action.RENEW, lease("me"), asked_at=asked_at, now=asked_at)
        assert found.leads(asked_at) is leads


@pytest.mark.parametrize(
    ("action", "nodes", "jitter", "seconds"),
    [
        (Action.RENEW, 5000, 0.5, 15.0),
        (Action.TAKE_OVER, 5000, 0.5, 15.0),
        (Action.STAND_BY, 3, 0.5, 30.0),
        (Action.STAND_BY, 3, 0.0, 22.5),
        (Action.STAND_BY, 1000, 0.5, 100.0),
    ],
)
def test_how_long_until_the_next_look(
    action: Action, nodes: int, jitter: float, seconds: float
) -> None:
    assert pause_seconds(Elector(me="me"), action, nodes, jitter) == seconds


# The object ------------------------------------------------------------------------------
def test_a_new_lease_is_ours() -> None:
    body = draft(Elector(me="me"), Action.CREATE, None, wall=1.5, nodes=3)
    assert body == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "enid-sweeper", "annotations": {"enid.dev/nodes": "3"}},
        "spec": {
            "holderIdentity": "me",
            "leaseDurationSeconds": 60,
            "renewTime": "1970-01-01T00:00:01.500000Z",
            "acquireTime": "1970-01-01T00:00:01.500000Z",
            "leaseTransitions": 0,
        },
    }


FORMER = {
    "metadata": {
        "name": "enid-sweeper",
        "resourceVersion": "7",
        "labels": {"theirs": "yes"},
        "annotations": {"enid.dev/nodes": "3", "theirs": "yes"},
        "managedFields": [{}],
    },
    "spec": {"holderIdentity": "other", "acquireTime": "then", "leaseTransitions": 4, "theirs": 1},
}


def test_a_renewal_keeps_what_others_wrote_and_the_former_number() -> None:
    body = draft(Elector(me="other"), Action.RENEW, FORMER, wall=0, nodes=None)
    assert body["metadata"] == {
        "name": "enid-sweeper",
        "resourceVersion": "7",
        "labels": {"theirs": "yes"},
        "annotations": {"enid.dev/nodes": "3", "theirs": "yes"},
    }
    spec = body["spec"]
    assert (spec["acquireTime"], spec["leaseTransitions"], spec["theirs"]) == ("then", 4, 1)


def test_a_take_over_is_a_transition() -> None:
    spec = draft(Elector(me="me"), Action.TAKE_OVER, FORMER, wall=0, nodes=9)["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("me", 5)
    assert spec["acquireTime"] == spec["renewTime"]
