"""Our own code, broken in one place on purpose: the laws must notice. Shell.

A sabotage changes one attribute of a class or module for a run and puts it back. It is played
on histories that know the trouble it matters in; one that no law catches within `SEEDS` of
them means that the laws or the histories are too weak.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from eni.errors import EniError, NotYetError, UnknownOutcomeError
from ipamd import (
    attachments,
    census,
    drift,
    engine,
    flights,
    holdings,
    lanes,
    lifecycle,
    outlook,
    replies,
    terms,
    upkeep,
    witnesses,
)
from ipamd.attachments import Attachments
from ipamd.blocks import Blocks, Returned
from ipamd.configuration import Configuration
from ipamd.daemon import Daemon
from ipamd.endings import Endings
from ipamd.engine import Engine
from ipamd.eni_book import EniBook
from ipamd.intents import EniState, Intent
from ipamd.journal import Journal
from ipamd.layers import layers_of, resolve
from ipamd.leases import Leases
from ipamd.lifecycle import Lifecycle
from ipamd.links import Links
from ipamd.places import Places
from ipamd.plan.subnet import Book
from ipamd.pool import Assigned, EniCensus, Pool
from ipamd.sweep import Sweep
from ipamd.targets import Fixed
from ipamd.told_by_aws import ToldByAws
from ipamd.told_by_cluster import ToldByCluster
from tests.chaos.draw import History, Last, Trouble

SEEDS = 100
"""Histories in which a sabotage must be caught."""

RESTLESS_SECONDS = 300.0
"""How often a target rises or falls that is never content."""


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One way to break our code: (owner, attribute, what it becomes of what it was)."""

    name: str
    says: str
    patches: tuple[tuple[Any, str, Callable[[Any], Any]], ...]
    needs: frozenset[Trouble] = frozenset()
    suits: Callable[[History], bool] = lambda _: True

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Break it for a while."""
        with contextlib.ExitStack() as undo:
            for owner, name, make in self.patches:
                former = vars(owner)[name]
                setattr(owner, name, make(former))
                undo.callback(setattr, owner, name, former)
            yield

    def fits(self, history: History) -> bool:
        """Whether it could matter in *history*."""
        return self.needs <= history.troubles and self.suits(history)


class Sabotages:
    """All of them, by name."""

    all: ClassVar[dict[str, Sabotage]] = {}


def _add(
    name: str,
    says: str,
    *patches: tuple[Any, str, Callable[[Any], Any]],
    needs: tuple[Trouble, ...] = (),
    suits: Callable[[History], bool] = lambda _: True,
) -> None:
    Sabotages.all[name] = Sabotage(name, says, patches, frozenset(needs), suits)


def to(value: object) -> Callable[[Any], Any]:
    return lambda _former: value


def nothing(*_arguments: object, **_words: object) -> None:
    """Do nothing."""


async def nothing_later(*_arguments: object, **_words: object) -> None:
    """Do nothing, later."""


def _cools(history: History) -> bool:
    return history.settings.cooldown_seconds >= 30


def _by_address(history: History) -> bool:
    return history.settings.by_address and history.settings.cooldown_seconds <= 30


# How ---------------------------------------------------------------------------------------
def _take_twice(former: Any) -> Any:
    def take(self: Pool, sandbox: Any, addresses: Any) -> None:
        states = {a: self.slots[a] for a in addresses}
        former(self, sandbox, addresses)
        for address, slot in states.items():
            if not isinstance(slot.state, Assigned):
                self._put(address, slot)

    return take


async def pretend_purged(self: Any) -> bool:
    self.pool.mark_purged(self.pool.unpurged())
    return True


def _answer_early(former: Any) -> Any:
    def answered(lane: Any, event: Any) -> Any:
        after, effects = former(lane, event)
        if isinstance(event, lanes.Granted):
            lease = replace(after.lease, wired=True)
            after = replace(after, phase=lanes.Phase.IDLE, lease=lease, head=None)
            effects = (lanes.Reply(lane.head.call, lanes.Outcome.ADDED),)
        return after, effects

    return answered


def _offer_in_silence(former: Any) -> Any:
    def offer(self: Any, ready: Any, *, found: bool = False) -> None:
        queue = self.queue
        self.queue = _Deaf(queue)
        try:
            former(self, ready, found=found)
        finally:
            self.queue = queue

    return offer


class _Deaf:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return nothing if name == "hand_out" else getattr(self._queue, name)


async def _take_unguarded(self: Any, eni_id: Any, blocks: Any) -> Any:
    await self.book.hold(eni_id, blocks)
    return await self.book.kernel(self.book.net.host_addresses)


def _put_late(former: Any) -> Any:
    def put(self: Journal, intent: Intent, at: float) -> Intent:
        return intent if intent.state is EniState.PLANNED else former(self, intent, at)

    return put


def _put_no_drain(former: Any) -> Any:
    def put(self: Journal, intent: Intent, at: float) -> Intent:
        return intent if intent.state is EniState.DRAINING else former(self, intent, at)

    return put


def _wish_anew(former: Any) -> Any:
    count = iter(range(1_000_000))

    def wish(parameters: Any) -> Any:
        made = former(parameters)
        return replace(made, token=f"{made.token}-{next(count)}")

    return wish


def _assign_twice(_former: Any) -> Any:
    async def assign(
        self: Any, eni_id: Any, kind: Any, count: int, _known: Any, priority: Any
    ) -> Any:
        try:
            new = await self.book.call(priority, self.book.ec2.assign, eni_id, kind, count)
        except UnknownOutcomeError:
            new = await self.book.call(priority, self.book.ec2.assign, eni_id, kind, count)
        return await self.take(eni_id, new)

    return assign


def _attach_twice(former: Any) -> Any:
    async def try_attach(self: Any, intent: Any, priority: Any) -> Any:
        done = await former(self, intent, priority)
        return done if done is not None else await former(self, intent, priority)

    return try_attach


async def _set_rules_only_more(self: Any) -> None:
    links = tuple(self._links.values())
    await self.book.kernel(lambda: self.book.net.set_rules(links, prune=False))


def _wire_anothers(former: Any) -> Any:
    def wish(self: Attachments, row: Any, request: Any) -> Any:
        made = former(self, row, request)
        others = [r for r in self.rows if r.sandbox != row.sandbox and r.eni_id == row.eni_id]
        return replace(made, addresses=others[0].addresses) if others else made

    return wish


def _wire_elsewhere(former: Any) -> Any:
    def wish(self: Attachments, row: Any, request: Any) -> Any:
        made = former(self, row, request)
        return replace(made, eni_number=made.eni_number + 1)

    return wish


def _wanted(ask: Any) -> str:
    """Return the pod that a sandbox is a try of (`kubelet.Kubelet`)."""
    return str(ask.request.pod.name).rpartition(".")[0]


def _bear_a_grudge(former: Any) -> Any:
    def queue(self: Attachments, ask: Any) -> None:
        if _wanted(ask) in vars(self).setdefault("grudges", set()):
            ask.error = replies.queue_full(ask.request.sandbox, ask.request.pod, 0, self.shortage())
            self._step(ask.request.sandbox, lanes.NotGranted())
        else:
            former(self, ask)

    return queue


def _give_up_for_ever(former: Any) -> Any:
    def give_up(self: Attachments, ask: Any) -> None:
        vars(self).setdefault("grudges", set()).add(_wanted(ask))
        former(self, ask)

    return give_up


async def _leave_undeleted(_self: Any, eni_id: Any, _priority: Any) -> None:
    raise NotYetError(f"{eni_id} is still in use", action="DeleteNetworkInterface")


def _give_up_what_is_refused(former: Any) -> Any:
    async def unassign(self: Blocks, eni_id: Any, blocks: Any) -> Returned:
        try:
            done: Returned = await former(self, eni_id, blocks)
        except EniError:
            await self.give_up(eni_id, blocks)
            return Returned(blocks)
        return done

    return unassign


def _want_now_more_now_less(former: Any) -> Any:
    def targets(self: Engine, now: Any) -> Any:
        made = former(self, now)
        more = int(self.holdings.clock().boot / RESTLESS_SECONDS) % 2
        if isinstance(made, Fixed):
            return replace(made, warm_eni=(made.warm_eni or 0) + more)
        return made

    return targets


def _unless_leaving(former: Any) -> Any:
    def take_up(self: Any) -> None:
        if self.terms.standing is not terms.Standing.LEAVING:
            former(self)

    return take_up


def _only_know(self: Any, settings: Any) -> None:
    self.outlook.settings = settings


def _drop_what_cannot_be(former: Any) -> Any:
    def adopt(self: Any, sources: Any) -> None:
        former(self, sources)
        if self.complaint:
            plain = replace(sources, annotation=None)
            self._change(resolve(layers_of(plain), self.resolved))

    return adopt


def _place_at_home(former: Any) -> Any:
    def place(self: Any, subnet_id: Any) -> Any:
        return replace(former(self, subnet_id), subnet_id=self.home)

    return place


def _is_attached(_self: Any, eni: Any) -> bool:
    return eni.attachment is not None and eni.primary is not None


def _provisioning(former: Any) -> Any:
    def terms_of(settings: Any, limits: Any, told: Any) -> Any:
        return former(replace(settings, provisioning=True), limits, told)

    return terms_of


async def _ask_ec2(self: Any) -> Any:
    return await self.engine.holdings.lifecycle.attached(self.engine.holdings.priority)


def _elect_itself(former: Any) -> Any:
    def begin(self: Any) -> None:
        self.is_elected, self.may_delete = True, lambda: True
        former(self)

    return begin


def _without_max(former: Any) -> Any:
    def terms_of(settings: Any, limits: Any, told: Any) -> Any:
        return former(replace(settings, max_eni=None), limits, told)

    return terms_of


# Addresses -------------------------------------------------------------------------------
_add(
    "cooling-is-free",
    "an address is free as soon as it is released",
    (Pool, "settle", lambda former: lambda self, now, _seconds: former(self, now, 0.0)),
    suits=_cools,
)
_add(
    "assign-leaves-it-free",
    "an address that a pod has stays free",
    (Pool, "_take", _take_twice),
)
_add(
    "cooldown-forgotten",
    "a restart forgets what cools",
    (Leases, "cooling", to(lambda _self: ())),
    needs=(Trouble.KILLS,),
    suits=_cools,
)
_add(
    "reboot-cools-nothing",
    "after a reboot what pods had is free",
    (witnesses.Witnesses, "_died", to(nothing)),
    needs=(Trouble.REBOOTS,),
    suits=_cools,
)
_add(
    "flows-stay",
    "the flows of a released address are not purged",
    (upkeep.Upkeep, "_purge", to(pretend_purged)),
)
_add(
    "lease-not-written",
    "an address is given without a row",
    (Leases, "insert", to(nothing)),
)
_add(
    "lease-not-released",
    "a row stays when its pod has gone",
    (Leases, "release", to(nothing)),
)
_add(
    "absence-not-looked-for",
    "a lease whose veth is gone stays",
    (upkeep.Upkeep, "judge", to(nothing)),
    needs=(Trouble.VANISHING,),
)
_add(
    "unassigned-while-free",
    "what is asked back may still be given out",
    (Pool, "begin_unassign", to(lambda _self, blocks: tuple(blocks))),
    suits=_by_address,
)
_add(
    "in-use-unseen",
    "an ENI is removed although pods have addresses of it",
    (EniCensus, "is_idle", to(property(lambda _self: True))),
    (holdings.Holdings, "in_use", to(lambda _self, _eni_id: False)),
    suits=_by_address,
)
# ADD -------------------------------------------------------------------------------------
_add(
    "answered-before-wired",
    "an ADD is answered when it has an address, wired or not",
    (lanes, "_answered", _answer_early),
)
_add(
    "answered-late",
    "the wait ends behind the plugin's deadline",
    (attachments, "ANSWER_EARLY_NS", to(-60_000_000_000)),
    suits=lambda h: h.instance_type.startswith("t3"),
)
_add(
    "waiting-not-woken",
    "an ADD that waits is not told of what comes",
    (holdings.Holdings, "offer", _offer_in_silence),
)
_add(
    "guards-dropped",
    "blocks are not guarded when they come",
    (Blocks, "_take", to(_take_unguarded)),
)

# Intents ---------------------------------------------------------------------------------
_add(
    "intent-after-call",
    "an ENI is created before the journal knows of it",
    (Journal, "put", _put_late),
)
_add(
    "unassign-unjournalled",
    "blocks are asked back before the journal knows of it",
    (Journal, "begin_release", to(nothing)),
    suits=_by_address,
)
_add(
    "drain-unjournalled",
    "an ENI is detached before the journal knows of it",
    (Journal, "put", _put_no_drain),
)
_add(
    "token-new-each-time",
    "a Create is repeated with another token",
    (lifecycle, "wish_of", _wish_anew),
)
_add(
    "intent-forgotten-at-once",
    "an ENI that one describe does not show is forgotten",
    (EniBook, "is_second_look", to(lambda _self, _token: True)),
    suits=lambda h: h.lag_seconds >= 8 or Trouble.STALE in h.troubles,
)
_add(
    "assign-repeated",
    "an assign without an answer is sent again",
    (Blocks, "assign", _assign_twice),
    needs=(Trouble.LOST,),
)
_add(
    "attach-repeated",
    "an attach without an answer is sent again",
    (Lifecycle, "_try_attach", _attach_twice),
    needs=(Trouble.LOST,),
)
_add(
    "attach-after-one-look",
    "an attach without an answer is sent again when one look does not show it",
    (Lifecycle, "_demand_unattached", to(nothing)),
    needs=(Trouble.DROPPED,),
)
_add(
    "rows-not-forgotten",
    "the journal keeps what is EC2's again",
    (Journal, "drop", to(nothing)),
    suits=_by_address,
)

# The census ------------------------------------------------------------------------------
_add(
    "gone-at-first-look",
    "what EC2 does not show once is believed to be gone",
    (drift, "SECOND_LOOK_SECONDS", to(0.0)),
    needs=(Trouble.STALE,),
)
_add(
    "rules-not-pruned",
    "the rules of an ENI that went stay",
    (Links, "_set_rules", to(_set_rules_only_more)),
    (Blocks, "prune", to(nothing_later)),
)
_add(
    "census-never-done-again",
    "EC2 is asked once what is there, and never again",
    (census.Census, "due_seconds", to(property(lambda _self: 1e9))),
    (
        census.Census,
        "begin",
        lambda former: lambda self: None if self.done.is_set() else former(self),
    ),
    needs=(Trouble.HANDS,),
)

_add(
    "denied-stays",
    "what EC2 denied while pods had it stays for an hour after they have left",
    (census.Census, "_see_freed", to(nothing)),
    needs=(Trouble.HANDS,),
    suits=lambda h: h.last in {Last.DENIED_DETACH, Last.DENIED_DELETE},
)

# Measure ---------------------------------------------------------------------------------
_add(
    "in-flight-not-counted",
    "what is on its way is asked for again",
    (Engine, "situation", lambda former: lambda self: replace(former(self), coming=0)),
)
_add(
    "max-eni-ignored",
    "MAX_ENI has no effect",
    (terms, "terms_of", _without_max),
    (outlook, "terms_of", _without_max),
    suits=lambda h: h.settings.max_eni is not None,
)
_add(
    "notice-ignored",
    "an instance that ends goes on growing",
    (terms, "standing_of", to(lambda _told, _settings: terms.Standing.NORMAL)),
    needs=(Trouble.NOTICES,),
)
_add(
    "leaves-behind",
    "what is half made when the instance is to end stays so",
    (Engine, "_take_up_intents", _unless_leaving),
    suits=lambda h: h.last is Last.LEAVES,
)
_add(
    "draining-for-ever",
    "an ENI that EC2 refused to detach serves nobody",
    (Endings, "keep", to(nothing_later)),
    suits=lambda h: h.last is Last.DENIED_DETACH and h.pods >= 10,
)
_add(
    "place-never-free",
    "an ENI that EC2 refused to delete takes a place, and a device index",
    (engine, "is_detached", to(lambda _intent: False)),
    (lifecycle, "is_detached", to(lambda _intent: False)),
    suits=lambda h: h.last is Last.DENIED_DELETE and h.pods >= 10,
)
_add(
    "never-shrinks",
    "nothing is given back",
    (Engine, "_calm_seconds", to(property(lambda _self: 1e12))),
    suits=_by_address,
)

# What was told ---------------------------------------------------------------------------
_add(
    "change-half-made",
    "other settings are known, and not worked by",
    (Daemon, "apply", to(_only_know)),
    needs=(Trouble.SETTINGS,),
)
_add(
    "change-not-made",
    "a change of the settings has no effect until a restart",
    (Daemon, "apply", to(nothing)),
    needs=(Trouble.SETTINGS,),
)
_add(
    "invalid-drops-all",
    "settings that cannot be put back what the environment says",
    (Configuration, "_adopt", _drop_what_cannot_be),
    needs=(Trouble.SETTINGS,),
)
_add(
    "configs-not-heard",
    "ENIConfigs are not heard of",
    (Places, "set_configs", to(nothing)),
    needs=(Trouble.CONFIGS,),
)
_add(
    "placed-at-home",
    "a new ENI goes into the primary ENI's subnet, whatever ENIConfigs say",
    (Places, "place", _place_at_home),
    needs=(Trouble.CONFIGS,),
)
_add(
    "others-taken",
    "an ENI is used and tagged although it is another's",
    (census.Census, "is_ours", to(_is_attached)),
    suits=lambda h: not h.settings.manage_untagged_eni and Trouble.FOREIGN in h.troubles,
)
_add(
    "provisions-all-the-same",
    "EC2 is asked for more where nothing is to be provisioned",
    (outlook, "terms_of", _provisioning),
    suits=lambda h: not h.settings.provisioning and not h.settings.imds_only,
)
_add(
    "asks-ec2-beside-imds",
    "EC2 is asked where only IMDS may be",
    (ToldByAws, "hint", to(_ask_ec2)),
    suits=lambda h: h.settings.imds_only,
)
_add(
    "bound-not-heard",
    "pods that are bound here are not heard of before they ask",
    (ToldByCluster, "hear_bound", to(nothing)),
    needs=(Trouble.BOUND,),
)
_add(
    "sweeps-unelected",
    "what others left is deleted by whoever sees it",
    (Sweep, "begin", _elect_itself),
    needs=(Trouble.LEADER,),
)
_add(
    "sweeps-young",
    "what others left is deleted however young",
    (Sweep, "_is_old", to(lambda self, eni: self._is_orphan(eni))),
    needs=(Trouble.LEADER,),
)
_add(
    "sweeps-for-nobody",
    "the elected one sweeps for itself only",
    (Sweep, "elect", to(nothing)),
    needs=(Trouble.LEADER,),
)

# Faults of other kinds: what no sabotage above breaks first ------------------------------
_add(
    "wired-as-another",
    "a pod is wired with the address of another",
    (Attachments, "_wish", _wire_anothers),
)
_add(
    "wired-elsewhere",
    "a pod leaves by another ENI than its address is of",
    (Attachments, "_wish", _wire_elsewhere),
)
_add(
    "troubles-unforeseen",
    "what EC2 refuses is no trouble that a flight knows",
    (flights, "TROUBLES", to(())),
    needs=(Trouble.THROTTLED,),
)
_add(
    "refused-for-ever",
    "a pod that got no address in time never gets one",
    (Attachments, "_queue", _bear_a_grudge),
    (Attachments, "_give_up", _give_up_for_ever),
)
_add(
    "detached-and-left",
    "an ENI that is detached is not deleted",
    (Endings, "_delete_detached", to(_leave_undeleted)),
    suits=_by_address,
)
_add(
    "refused-is-done",
    "a refused unassign counts as done",
    (Blocks, "unassign", _give_up_what_is_refused),
    needs=(Trouble.THROTTLED,),
    suits=_by_address,
)
_add(
    "holding-unwritten",
    "blocks that come are not written down",
    (EniBook, "hold", to(nothing_later)),
    suits=lambda h: not {Trouble.KILLS, Trouble.KERNEL_KILLS, Trouble.REBOOTS} & h.troubles,
)
_add(
    "never-content",
    "the target rises and falls by itself",
    (Engine, "targets", _want_now_more_now_less),
    suits=lambda h: h.settings.warm_eni_target is not None and not h.settings.by_address,
)
_add(
    "books-not-kept",
    "the model of EC2 itself forgets that a block is free again",
    (Book, "give_back", to(nothing)),
    suits=_by_address,
)
