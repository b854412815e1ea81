"""The pool engine: look, decide, act. Shell.

`round` never waits: it asks `ipamd.decide` what may start now and starts it as a flight of
its own (`ipamd.flights`). Growing, shrinking, looking and sweeping therefore never hold each
other up, and what is in flight is part of what the next decision is made from. The pool is
changed on the loop only, with what a flight brings back (`ipamd.holdings`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from eni import errors
from eni.errors import EniError
from eni.model import Block, EniId, Kind, SecurityGroupId, SubnetId
from ipamd import decide, demand, targets
from ipamd.blocks import Ready
from ipamd.budget import Budget, Priority, start_jitter_seconds
from ipamd.census import Census
from ipamd.clock import Instant
from ipamd.decide import Action, AddEni, Assign, RemoveEni, Unassign
from ipamd.demand import Arrivals, Headroom
from ipamd.flights import TROUBLES, Flights, Trouble
from ipamd.holdings import Holdings
from ipamd.intents import EniState, Intent, is_detached, wished
from ipamd.reactions import Reaction, goes_elsewhere, reaction_to
from ipamd.sweep import Sweep
from ipamd.targets import Demand, Fixed, Situation, shortfall
from ipamd.terms import Standing, Terms

log = logging.getLogger(__name__)

COALESCE_SECONDS = 0.05
"""Between a wish for addresses and the decision, so that pods that come together are asked for
together; beside the seconds of an attach nobody sees it (Terway waits 0.3 s)."""

BUSY_SECONDS = 5.0
"""How often the engine looks while something waits for time to pass; the peer's period."""

IDLE_SECONDS = 60.0
"""How often it looks when nothing does."""

START_JITTER_SECONDS = 10.0
"""Over how long, at least, the first question of nodes that restart together is spread."""

CALM_SECONDS = 30.0
"""How long there must be more than a fixed target before anything is given back; the peer's
shrink gate."""

DOUBTFUL_FAILURES = 3
"""After so many failures in a row an ENI on its way is no longer counted on."""

ADD, SHRINK, SUBNETS = "add eni", "shrink", "subnets"
"""Flights that there is one of; others are named by their ENI, or by the intent that is brought
on its way: here, or to its end."""

ROOM = "room"
"""The trouble of having nowhere to put another ENI; no flight has that name."""


def start_spread_seconds(budget: Budget) -> float:
    """Return over how long the first question of nodes that restart together is spread."""
    return max(START_JITTER_SECONDS, start_jitter_seconds(budget.nodes, budget.limits))


@dataclass(slots=True)
class Engine:
    """Keeps the pool at its targets. Owned by the loop."""

    holdings: Holdings
    flights: Flights
    headroom: Headroom
    start_spread_seconds: float = START_JITTER_SECONDS
    patient_until: Instant | None = None
    """Until when growth waits to be told how many pods are bound here; no ADD waits for it."""
    census: Census = field(init=False)
    sweep: Sweep = field(init=False)
    _acting: dict[str, Action] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _calm: demand.Calm = field(default_factory=demand.Calm)
    _arrivals: Arrivals = field(default_factory=Arrivals)
    _half_life_seconds: float = field(init=False)
    _groups: tuple[SecurityGroupId, ...] | None = None
    _wish: str | None = None
    """The flight that gives back what is too much, while it waits for its time."""

    def __post_init__(self) -> None:
        flights, h = self.flights, self.holdings
        self._half_life_seconds = demand.jittered(demand.HALF_LIFE_SECONDS, flights.random())
        self.census = Census(h, flights, flights.random, self._flying, self._unassigning)
        self.sweep = Sweep(h.lifecycle, flights, h.clock, flights.random)
        flights.on_landed = self.wake
        flights.on_trouble = self._on_trouble
        flights.on_broken = self.census.look_soon

    # From outside ----------------------------------------------------------------------
    @property
    def terms(self) -> Terms:
        """What it works by."""
        return self.holdings.terms

    @property
    def trouble(self) -> Trouble | None:
        """What went wrong last and is not right yet."""
        return next(reversed(self.flights.troubles.values()), None)

    @property
    def wanted(self) -> int:
        """How many addresses are missing to the targets."""
        now = self.situation()
        return targets.shortfall(now, self.targets(now))

    def wake(self) -> None:
        """Look at the pool soon: an ADD waits, or one fewer address is warm."""
        self._wake.set()

    def wake_if_due(self) -> None:
        """Look at the pool soon if EC2 is to be asked what is there."""
        if self.census.due_seconds <= 0 and self.census.done.is_set():
            self.wake()

    def arrived(self) -> None:
        """Learn that a pod came."""
        self._arrivals = self._arrivals.add(self.holdings.clock())

    def set_terms(self, terms: Terms) -> None:
        """Work by *terms* from now on."""
        if terms == self.holdings.terms:
            return
        if terms.standing is Standing.LEAVING is not self.terms.standing:
            self.flights.hurry()
        self.holdings.terms = terms
        self.holdings.places.set_mode(terms.kind)
        self.holdings.apply_terms()
        self.wake()

    def set_groups(self, groups: Sequence[SecurityGroupId]) -> None:
        """Give every ENI of ours the security groups that the primary has now."""
        if tuple(groups) != self._groups:
            self._groups = tuple(groups)
            self.wake()

    def _on_trouble(self, trouble: Trouble) -> None:
        if isinstance(trouble, errors.UnknownOutcomeError):
            self.census.look_twice()
        elif reaction_to(trouble) is Reaction.LOOK_AGAIN:
            self.census.look_for(f"ec2 contradicts: {trouble.id}", twice=True)

    # The loop --------------------------------------------------------------------------
    async def run(self) -> None:
        """Keep the pool at its targets until cancelled."""
        try:
            await self._let_others_ask()
            while True:
                await self._sleep(self.round())
        finally:
            self.flights.cancel()

    async def _let_others_ask(self) -> None:
        """Let a fleet that restarts together ask EC2 one by one, while pods can be served."""
        h, now = self.holdings, asyncio.get_running_loop().time
        began, part = now(), self.flights.random()
        while not h.queue.waiting and h.pool.choose(h.clock(), 0) is not None:
            # Anew each time: how many nodes there are may be told meanwhile.
            left = began + self.start_spread_seconds * part - now()
            if left <= 0:
                return
            await self._wait(left)
        await asyncio.sleep(COALESCE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """Wait until somebody wakes the engine, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                self._wake.clear()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
            await asyncio.sleep(COALESCE_SECONDS)
        self._wake.clear()

    def round(self) -> float:
        """Start all that may start now; return the seconds until the next look."""
        self.census.begin()
        if not self.terms.provisioning:
            return BUSY_SECONDS if self.census.hint else IDLE_SECONDS
        if self.census.done.is_set():
            self._take_up_intents()
            self._take_up_blocks()
            if not self._is_leaving:
                self._begin_what_is_new()
            self.flights.forget_unwanted(self._wish)
        is_calm = self.census.done.is_set() and self._calm.since is None
        is_still = is_calm and self.patient_until is None
        waits = self.flights.backoffs or self.holdings.queue.waiting or not is_still
        if waits:
            return BUSY_SECONDS
        return max(COALESCE_SECONDS, min(IDLE_SECONDS, self.census.due_seconds))

    @property
    def _is_leaving(self) -> bool:
        return self.terms.standing is Standing.LEAVING

    def _begin_what_is_new(self) -> None:
        self._begin_groups()
        if not self._is_patient() and self._knows_where():
            self._begin_actions()
        if self.terms.sweeping:
            self.sweep.begin()

    def _knows_where(self) -> bool:
        """Whether it is known which subnets are for pods, as far as EC2 tells at all."""
        if self.holdings.places.is_told():
            return True
        if self.flights.may_start(SUBNETS):
            self.flights.start(SUBNETS, self._refresh_subnets())
        return SUBNETS not in self.flights

    def _is_patient(self) -> bool:
        """Whether growth waits for the cluster's word, so that it is one call and not two."""
        if self.patient_until is not None:
            is_over = self.holdings.clock().boot >= self.patient_until.boot
            if is_over or self.holdings.queue.waiting or self.terms.bound is not None:
                self.patient_until = None
        return self.patient_until is not None

    # What is decided from ----------------------------------------------------------------
    def situation(self) -> Situation:
        """Return what `decide` decides from."""
        h, terms, now = self.holdings, self.terms, self.holdings.clock()
        census = h.pool.census()
        acting = tuple(self._acting.values())
        intents = (i for i in h.lifecycle.book.intents.values() if not is_detached(i))
        arriving = [i for i in intents if i.eni_id not in h.pool.enis]
        free_enis = max(0, terms.max_enis - len(census) - len(arriving) - self.census.others)
        rooms: Counter[SubnetId] = Counter()
        for each in census:
            rooms[each.eni.subnet_id] += each.room
        may_attach = self._may_attach()
        return Situation(
            enis=census,
            mode=terms.kind,
            waiting=h.queue.waiting,
            bound=terms.bound,
            free_enis=free_enis,
            slots_per_eni=terms.slots,
            coming=h.lifecycle.blocks.coming(self._flying())
            + sum(a.count * a.kind.size for a in acting if isinstance(a, Assign))
            + sum(wished(i) for i in arriving if self._is_coming(i)),
            busy=self._busy(),
            kinds=h.places.kinds(rooms, now, may_attach=may_attach and free_enis > 0),
            new_eni=h.places.new_eni(now) if may_attach else None,
            limits=h.places.limits(now),
            max_addresses=terms.max_addresses,
            kept=self._kept(),
        )

    def _may_attach(self) -> bool:
        """Whether another ENI may be asked for: not while one that came is kept from its place.

        What EC2 refuses for good to one it refuses to the next, which would be left over, too;
        and where it throttles one, the next only waits beside it, and is too much when both come.
        """
        intents = self.holdings.lifecycle.book.intents.values()
        coming = [i for i in intents if i.state not in {EniState.ACTIVE, EniState.DRAINING}]
        is_kept_off = any(self._is_refused(i) or self._is_held_up(i) for i in coming)
        return self.flights.may_start(ADD) and not is_kept_off

    def _kept(self) -> frozenset[EniId]:
        """Return the ENIs that are not asked to go now: all, while one is off and not deleted.

        What EC2 refuses for good to one it refuses to the next, which would be left over, too.
        """
        intents = self.holdings.lifecycle.book.intents.values()
        if any(i.state is EniState.DRAINING and self._is_refused(i) for i in intents):
            return frozenset(self.holdings.pool.enis)
        resting = (i for i in intents if not self.flights.may_start(_flight_of(i)))
        return frozenset(i.eni_id for i in resting if i.eni_id and self._is_refused(i))

    def _is_refused(self, intent: Intent) -> bool:
        """Whether EC2 has refused for good what *intent* asked last."""
        trouble = self.flights.troubles.get(_flight_of(intent))
        return trouble is not None and reaction_to(trouble) is Reaction.STOP_GROWING

    def _busy(self) -> frozenset[EniId]:
        """Return ENIs of which nothing may be asked now: a call flies, or has just failed."""
        enis = self.holdings.pool.enis
        return self._flying() | {e for e in enis if not self.flights.may_start(f"eni {e}")}

    def _flying(self) -> frozenset[EniId]:
        """Return ENIs that a call is on its way for: what EC2 shows of them may be late."""
        return frozenset(a.eni_id for a in self._acting.values() if not isinstance(a, AddEni))

    def _unassigning(self) -> frozenset[EniId]:
        return frozenset(a.eni_id for a in self._acting.values() if isinstance(a, Unassign))

    def _is_coming(self, intent: Intent) -> bool:
        """Whether what *intent* brings may be counted on: not if it keeps failing, or goes.

        One that is set up lacks but what the kernel would have to do for any other, too.
        """
        if intent.state in {EniState.CONFIGURED, EniState.DRAINING}:
            return intent.state is EniState.CONFIGURED
        return self.flights.failures(_flight_of(intent)) < DOUBTFUL_FAILURES

    def _is_held_up(self, intent: Intent) -> bool:
        """Whether *intent* keeps failing for what is no fault of its ENI's.

        If it is not counted on, ENIs that are here may be asked for more meanwhile: pods wait.
        """
        flights, name = self.flights, _flight_of(intent)
        return flights.own_failures(name) < DOUBTFUL_FAILURES <= flights.failures(name)

    def targets(self, now: Situation) -> Fixed | Demand:
        """Return what is enough now."""
        learned = self._learn()
        is_normal = self.terms.standing is Standing.NORMAL
        if self.terms.targets is not None and is_normal:
            return self.terms.targets
        headroom = learned if is_normal else Headroom(0.0, learned.at)
        bound = max(now.bound or 0, now.assigned + now.waiting)
        slots = self.terms.max_enis * self.terms.slots
        most = demand.ceiling(now.max_addresses, slots, self.terms.kind)
        return demand.target(bound, headroom, most)

    def _learn(self) -> Headroom:
        now = self.holdings.clock()
        arrivals = self._arrivals.count(now)
        self.headroom = demand.observe(self.headroom, arrivals, now, self._half_life_seconds)
        return self.headroom

    @property
    def _calm_seconds(self) -> float:
        """How long there must be too much before anything is given back."""
        if self.terms.targets is not None:
            return CALM_SECONDS
        return demand.CALM_SECONDS * self._half_life_seconds / demand.HALF_LIFE_SECONDS

    # Growing and shrinking ---------------------------------------------------------------
    def _begin_actions(self) -> None:
        h, moment = self.holdings, self.holdings.clock()
        now = self.situation()
        targets = self.targets(now)
        growth = decide.grow(now, targets)
        served = now.coming
        if now.waiting and now.coming:
            h.lifecycle.book.line.promote()  # what was asked for later is waited for now
        for action in growth:
            # What pods wait for is urgent; what is asked beyond it, to be ready, is not.
            self._begin(action, Priority.STARVING if now.waiting > served else Priority.STEADY)
            served += action.count * action.kind.size
        missing = shortfall(now, targets)
        self._look_for_room(now, is_short=not growth and missing > 0)
        if not missing:
            self._forget_subnets()
        ages = [moment.elapsed(census.eni.since) for census in now.enis]
        is_still = not (growth or self._acting)
        shrink = decide.shrink(now, targets, ages) if is_still else None
        self._calm = self._calm.see(moment, excess=shrink is not None)
        makes_room = isinstance(shrink, RemoveEni) and decide.is_cramped(now, targets)
        is_time = makes_room or self._calm.lasts(moment, self._calm_seconds)
        self._wish = None if shrink is None else self._shrinking(shrink)
        if shrink is not None and is_time and self.flights.may_start(self._shrinking(shrink)):
            self._begin(shrink, Priority.SHRINK)

    def _shrinking(self, action: RemoveEni | Unassign) -> str:
        """Return the flight that gives back: what EC2 refuses to one ENI holds up no other."""
        if isinstance(action, Unassign):
            return SHRINK
        intent = self.holdings.lifecycle.book.intent_of(action.eni_id)
        assert intent is not None
        return _flight_of(intent)

    def _begin(self, action: Action, priority: Priority) -> None:
        log.info("pool", extra={"action": str(action)})
        match action:
            case AddEni(subnet_id, kind, count):
                self._begin_add(subnet_id, kind, count, priority)
            case Assign(eni_id):
                self._act(f"eni {eni_id}", action, self._assign(action, priority))
            case Unassign(eni_id, kind, count):
                leaving = self.holdings.pool.begin_unassign(self._idle(eni_id, kind)[:count])
                self._act(SHRINK, action, self._unassign(eni_id, leaving))
            case RemoveEni(eni_id):
                self._act(self._shrinking(action), action, self.holdings.remove(eni_id))
            case _:  # pragma: no cover - a new action must be placed above
                assert_never(action)

    def _idle(self, eni_id: EniId, kind: Kind) -> tuple[Block, ...]:
        h = self.holdings
        view = h.places.subnets.views.get(h.pool.enis[eni_id].subnet_id)
        return h.pool.idle_blocks(eni_id, kind, h.clock(), view.reservations if view else ())

    def _act(self, name: str, action: Action, work: Coroutine[None, None, None]) -> None:
        self._acting[name] = action
        self.flights.start(name, self._acted(name, work))

    async def _acted(self, name: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        finally:
            del self._acting[name]

    def _begin_add(self, subnet_id: SubnetId, kind: Kind, count: int, priority: Priority) -> None:
        h = self.holdings
        if h.places.is_stale():
            if self.flights.may_start(SUBNETS):
                self.flights.start(SUBNETS, self._refresh_subnets())
            if SUBNETS in self.flights:
                return  # decided anew when it is known where to
        try:
            intent = h.lifecycle.plan_eni(h.places.place(subnet_id), kind, count)
        except TROUBLES as error:
            self.flights.stumble(ADD, error)
        else:
            self.flights.start(_flight_of(intent), self._add(intent, kind, priority))

    def _forget_subnets(self) -> None:
        """What a subnet refused troubles nobody who needs nothing."""
        troubles = self.flights.troubles
        for name in [name for name in troubles if name.startswith("subnet ")]:
            del troubles[name]

    def _look_for_room(self, now: Situation, *, is_short: bool) -> None:
        """Where no subnet has room for the ENI that is missing, say so and ask EC2 again."""
        h = self.holdings
        may_attach = now.free_enis > 0 and self._may_attach()
        is_known = not h.places.is_lost  # else whoever reads ENIConfigs says why none is
        if not (is_short and may_attach and now.new_eni is None and is_known):
            self.flights.troubles.pop(ROOM, None)
            return
        if h.places.is_stale():
            if self.flights.may_start(SUBNETS):
                self.flights.start(SUBNETS, self._refresh_subnets())
            if SUBNETS in self.flights:
                return  # said only when EC2 has told of the subnets
        refused = (f"subnet {c.subnet_id}" for c in h.places.subnets.candidates)
        if self.flights.troubles.keys().isdisjoint((ROOM, SUBNETS, *refused)):
            error = h.places.no_room()
            self.flights.troubles[ROOM] = error
            log.warning("no room for an eni", extra={"reason": str(error)})

    async def _refresh_subnets(self) -> None:
        await self.holdings.places.refresh(self.holdings.priority)
        self.holdings.apply_terms()

    async def _add(self, intent: Intent, kind: Kind, priority: Priority) -> None:
        h = self.holdings
        subnet_id = SubnetId(str(intent.parameters["subnet_id"]))
        try:
            ready = await h.lifecycle.begin(intent, priority)
        except TROUBLES as error:
            if intent.token in h.lifecycle.book.intents:
                raise
            self._came_to_nothing(intent, kind, error)
            return
        self.flights.recovered(ADD)
        self._granted(subnet_id, kind)
        self._welcome(ready, intent)

    def _came_to_nothing(self, intent: Intent, kind: Kind, error: Trouble) -> None:
        """Note that EC2 made no ENI: another subnet is tried, or the next one waits."""
        subnet_id = SubnetId(str(intent.parameters["subnet_id"]))
        if goes_elsewhere(error):
            self._inhibit(subnet_id, kind, wished(intent) // kind.size, error)
            return
        if isinstance(error, errors.NotFoundError):
            self.holdings.places.doubt()
            if len(self.holdings.places.subnets.candidates) > 1:
                self._leave_alone(subnet_id, kind, error)
                return
        self.flights.stumble(ADD, error)

    def _leave_alone(self, subnet_id: SubnetId, kind: Kind, error: Trouble) -> None:
        """Place no ENI in a subnet that is gone, or whose ENIConfig's group is: others serve."""
        h = self.holdings
        h.places.refused(subnet_id, kind, 1, h.clock(), self.flights.random())
        self.flights.troubles[f"subnet {subnet_id}"] = error
        log.warning("no eni placed", extra={"subnet_id": subnet_id, "reason": str(error)})

    def _granted(self, subnet_id: SubnetId, kind: Kind) -> None:
        self.holdings.places.granted(subnet_id, kind, self.holdings.clock())
        self.flights.troubles.pop(f"subnet {subnet_id}", None)

    def _inhibit(self, subnet_id: SubnetId, kind: Kind, count: int, error: Trouble) -> None:
        """Ask less of a subnet that refused *count*; others, or single addresses, serve."""
        h = self.holdings
        h.places.refused(subnet_id, kind, count, h.clock(), self.flights.random())
        self.flights.troubles[f"subnet {subnet_id}"] = error
        name = f"why {subnet_id}"
        if self.flights.may_start(name):
            self.flights.start(name, self._explain(subnet_id, kind, error))

    async def _explain(self, subnet_id: SubnetId, kind: Kind, error: Trouble) -> None:
        """Say why; a flight of its own, because what was refused must not count as coming."""
        why = await self.holdings.places.explain(subnet_id, kind)
        log.warning("subnet exhausted", extra={"reason": str(error), "why": why})

    async def _assign(self, action: Assign, priority: Priority) -> None:
        h, eni_id, kind, count = self.holdings, action.eni_id, action.kind, action.count
        subnet_id = h.pool.enis[eni_id].subnet_id
        # An answer that is late may still show what was given back a moment ago.
        known = (*h.pool.blocks_of(eni_id), *h.drift.given_back(h.clock()))
        try:
            ready = await h.lifecycle.blocks.assign(eni_id, kind, count, known, priority)
        except EniError as error:
            if not goes_elsewhere(error):
                raise
            self._inhibit(subnet_id, kind, count, error)
        else:
            self._granted(subnet_id, kind)
            h.offer(ready)
            if len(ready.blocks) < count:
                self.census.look_twice()  # no answer came, and what was shown may be late

    async def _unassign(self, eni_id: EniId, leaving: tuple[Block, ...]) -> None:
        h = self.holdings
        try:
            returned = await h.lifecycle.blocks.unassign(eni_id, leaving)
        except TROUBLES:
            h.pool.cancel_unassign(leaving)
            h.queue.hand_out()
            raise
        h.drop(returned.gone)
        if returned.doubtful:
            self.census.look_soon()

    # Intents -----------------------------------------------------------------------------
    def _take_up_intents(self) -> None:
        """Bring every ENI that was left half way to where it was going, each on its own."""
        for intent in tuple(self.holdings.lifecycle.book.intents.values()):
            name = _flight_of(intent)
            if self.flights.may_start(name) and (work := self._next_step(intent)) is not None:
                self.flights.start(name, work)

    def _take_up_blocks(self) -> None:
        """Take what EC2 has given and the kernel refused to guard: no more is asked for instead."""
        h = self.holdings
        for eni_id in h.lifecycle.blocks.untaken(h.pool.enis):
            if self.flights.may_start(f"eni {eni_id}"):
                self.flights.start(f"eni {eni_id}", self._take_rest(eni_id))

    async def _take_rest(self, eni_id: EniId) -> None:
        self.holdings.offer(await self.holdings.lifecycle.blocks.take_rest(eni_id))

    def _next_step(self, intent: Intent) -> Coroutine[None, None, None] | None:
        if intent.state is EniState.DRAINING:
            assert intent.eni_id is not None
            is_flying = f"eni {intent.eni_id}" in self.flights
            return None if is_flying else self.holdings.remove(intent.eni_id)
        if self._is_leaving and (work := self._last_step(intent)) is not None:
            return work
        if intent.state is not EniState.ACTIVE:
            return self._resume(intent)
        if intent.parameters.get("outlives"):
            return self.holdings.lifecycle.amend(intent, Priority.STEADY)
        return None

    def _last_step(self, intent: Intent) -> Coroutine[None, None, None] | None:
        """Return what keeps an ENI that is half made from outliving an instance that ends."""
        if intent.state in {EniState.PLANNED, EniState.CREATED}:
            return self.holdings.lifecycle.endings.undo(intent, Priority.STEADY)
        if intent.parameters.get("outlives"):
            return self.holdings.lifecycle.amend(intent, Priority.STEADY)
        return None

    async def _resume(self, intent: Intent) -> None:
        h = self.holdings
        try:
            ready = await h.lifecycle.resume(intent, h.priority)
        except EniError as error:
            if goes_elsewhere(error):
                kind = Kind(str(intent.parameters.get("kind", Kind.SINGLE.value)))
                subnet_id = SubnetId(str(intent.parameters["subnet_id"]))
                self._inhibit(subnet_id, kind, wished(intent) // kind.size, error)
            raise
        self._welcome(ready, intent)

    def _welcome(self, ready: Ready, intent: Intent) -> None:
        """Take an ENI that has come; what groups it has no census has told yet."""
        self.holdings.welcome(ready)
        groups = intent.parameters.get("security_groups")
        if isinstance(groups, list):
            self.census.groups.setdefault(ready.eni_id, tuple(map(SecurityGroupId, groups)))

    # Security groups -----------------------------------------------------------------------
    def _begin_groups(self) -> None:
        for eni_id, eni in self.holdings.pool.enis.items():
            wanted, there = self._groups, self.census.groups.get(eni_id)
            is_due = wanted is not None and there is not None and set(there) != set(wanted)
            name = f"groups {eni_id}"
            is_ours = not (eni.is_primary or eni.closed or eni.stays)
            if is_due and is_ours and self.flights.may_start(name):
                assert wanted is not None
                self.flights.start(name, self._set_groups(eni_id, wanted))

    async def _set_groups(self, eni_id: EniId, groups: tuple[SecurityGroupId, ...]) -> None:
        await self.holdings.lifecycle.set_groups(eni_id, groups)
        self.census.groups[eni_id] = groups  # only now: a refused one is asked for again
        log.info("security groups set", extra={"eni_id": eni_id, "groups": list(groups)})


def _flight_of(intent: Intent) -> str:
    """Return the name of the flights that bring an ENI on its way: here, or to its end."""
    return f"intent {intent.token}"
