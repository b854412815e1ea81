"""What must hold whatever happens, and what must hold once nothing happens any more. Shell.

`Laws` watches a world: every step, every answer, and every call of EC2 at the moment at which
EC2 does it. A broken law is one sentence that names who lost what. `at_rest` are the laws of a
world that was left in peace: nothing leaked, nothing forgotten, nothing asked for any more.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from operator import is_not
from typing import TYPE_CHECKING, Any, cast

from cni.dataplane import (
    DYING_GROUP,
    ENI_GROUP,
    GUARD_METRIC,
    POD_GROUP,
    Address,
    EniLink,
    desired_routes,
    desired_rules,
    eni_table,
    host_ifname,
)
from cni.spec import Sandbox
from eni.errors import EniError, InstanceLimitError, UnknownOutcomeError
from eni.model import Block, CreateEni, Eni, EniId, Kind, SubnetId
from ipamd import decide, demand
from ipamd.intents import (
    CLUSTER_TAG,
    INSTANCE_TAG,
    INTENT_TAG,
    EniState,
    Held,
    noted,
)
from ipamd.pool import Leaving
from ipamd.ports import CountedEc2
from ipamd.settings import Settings
from tests.chaos.law import Law, LawBrokenError
from tests.chaos.orders import ABOUT_AN_ENI, MUTATIONS, Orders
from tests.chaos.told import DECIDED_SECONDS, Places, has_cooled, since
from tests.chaos.weather import Past, Weather
from tests.chaos.world import Call, ModelCloud, Observer, Pod, World

if TYPE_CHECKING:
    from tests.chaos.kubelet import Kubelet

PEER = IPv4Address("192.0.2.7")
"""Whom every pod talks to, so that the kernel has a flow of it."""

STALE = frozenset({"attached", "eni", "by_tag"})

ANSWER_SECONDS = 6.0
"""A daemon that has served for so long has answered whatever is due: 5 s early, and some."""

LATE_FREE_SECONDS = 2.0
"""How late an address that has cooled may be free."""

COOLED = "what has cooled"

PROMPT_SECONDS = 1.0
"""How long a waiting ADD may not have seen that an address is free."""

NOTICE_SECONDS = 15.0
"""How long a notice of IMDS may not have been read."""

NEED_SECONDS = 600.0
"""How long what pods have needed counts as needed: the half-life of what the pool learns."""

HEARD_SECONDS = 60.0
"""What was done this long before a kill has been heard of and written down."""


SPIN_STEPS = 20_000
"""A daemon that takes so many steps while no time passes will never do anything else."""

LATE_SECONDS = 20.0
"""How late descriptions are at most (`What.STALE`)."""

LOOK_SECONDS = 2.0
"""After a change, until EC2 is asked what it shows, while its descriptions are late."""


ROWLESS = frozenset(
    {
        "lease not written",
        "release not written",
        "delete not remembered",
        "cooling addresses not forgotten",
        "lease file not written",
    }
)
"""What may be logged while /run is full."""


@dataclass(slots=True)
class Watch:
    """What a history allows, and so what the laws let pass."""

    every: int = 25
    """Steps between two looks at the kernel."""
    is_strict: bool = False
    """Whether nothing in this history could make us wrong about what is attached."""


class Laws(Observer):
    """The laws of one world."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch or Watch()
        self.world: World
        self.weather: Weather
        self.past: Past
        self.broken: list[LawBrokenError] = []
        self.by_hand: set[Address] = set()
        """Addresses that somebody took away; whatever becomes of them is not our doing."""
        self.lost: set[EniId] = set()
        """ENIs that somebody took away."""
        self.has_foreign = False
        self.is_disk_sound = True
        """Whether all that happened could be written down."""
        self.on_answers: list[Callable[[Call, int, Mapping[str, Any]], None]] = []
        self.on_deaths: list[Callable[[], None]] = []
        self.on_reboots: list[Callable[[], None]] = []
        self.calls: Counter[str] = Counter()
        self._until_look = 0
        self._moment, self._at_once = 0.0, 0
        self._owners: dict[Address, tuple[str, float]] = {}
        self._owned: tuple[Address, ...] = ()
        self._unknown: dict[tuple[str, str], str] = {}
        self._looked: dict[tuple[str, str], float] = {}
        self._recent: list[tuple[float, tuple[str, str], str]] = []
        self._made: dict[str, set[EniId]] = {}
        self._held_by: tuple[Eni, ...] = ()
        self._all_held: set[Address] = set()
        self._talked: dict[Address, str] = {}
        self._prompt_since: float | None = None
        self._needs: deque[tuple[float, int]] = deque()
        self.leaving_since: float | None = None
        self.cordoned_since: float | None = None
        self.orders: Orders
        self._most_enis: tuple[int, int] | None = None

    def bind(self, world: World, weather: Weather) -> None:
        """Watch *world*."""
        self.world, self.weather = world, weather
        self.past = Past(self.account, lambda: world.now)
        cloud = cast("ModelCloud", world.cloud)
        tags = {s.id: s.tags for s in self.account.vpc.subnets(cloud.vpc_id, cloud.zone)}
        placed = Places(cloud.subnet_id, (self.account.vpc.default_group,), tags)
        self.orders = Orders(self, placed)
        if world.cluster is not None:
            world.cluster.on_told = self.orders.on_told

    @property
    def account(self) -> Any:
        """The model of EC2."""
        return cast("ModelCloud", self.world.cloud).account

    def broke(self, law: Law, sentence: str) -> None:
        """Note that a law is broken; the run ends at the next step."""
        self.world.note(f"BROKEN {law.value}: {sentence}")
        self.broken.append(LawBrokenError(law, sentence))

    def check(self) -> None:
        """Raise what was broken first."""
        if self.broken:
            raise self.broken[0]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what the daemon logs as broken."""
        ear = _Ear(self)
        loggers = [logging.getLogger(name) for name in ("ipamd", "asyncio")]
        for logger in loggers:
            logger.addHandler(ear)
        former = [(logger.propagate, logger.level) for logger in loggers]
        for logger in loggers:
            logger.propagate = False
            logger.setLevel(logging.ERROR)  # whatever the root's: `make chaos` logs nothing
        try:
            yield
        finally:
            for logger, (propagate, level) in zip(loggers, former, strict=True):
                logger.removeHandler(ear)
                logger.propagate = propagate
                logger.setLevel(level)

    # What the world tells ---------------------------------------------------------------
    def on_step(self) -> None:
        """Look now and then; end the run if something is broken."""
        now = self.world.now
        self._at_once = self._at_once + 1 if now == self._moment else 0
        self._moment = now
        if self._at_once > SPIN_STEPS:
            self.broke(Law.ALIVE, f"{SPIN_STEPS} steps at {now}")
        self._until_look -= 1
        if self._until_look <= 0:
            self._until_look = self.watch.every
            self.look()
        if self.broken:
            self.check()

    def on_answer(self, call: Call, code: int, answer: Mapping[str, Any]) -> None:
        """Judge an answer."""
        if call.verb == "ADD" and code == 0:
            self._look_at_owners(self.world.kernel.owners())
            self._check_wire(call.pod)
        for react in self.on_answers:
            react(call, code, answer)

    def on_late(self, call: Call) -> None:
        """Judge silence."""
        life = self.world.life
        since = life.serving_since if life is not None else None
        if since is not None and self.world.now - since >= ANSWER_SECONDS:
            self.broke(Law.ANSWERED, f"{call.verb} {call.pod.name} has waited since {call.since}")

    def on_killed(self) -> None:
        """Let nothing that was just done count as heard."""
        for when, key, words in self._recent:
            if when > self.world.now - HEARD_SECONDS:
                self._unknown[key] = words
                self._looked.pop(key, None)
        self.look()
        for react in self.on_deaths:
            react()

    def on_rebooted(self) -> None:
        """Let every address of before cool from now on."""
        for address in self._owned:
            self._owners[address] = self._owners[address][0], self.world.now
        for react in self.on_reboots:
            react()

    # EC2 --------------------------------------------------------------------------------
    def wrap(self, ec2: CountedEc2) -> CountedEc2:
        """Return *ec2*, watched."""
        return cast("CountedEc2", _Watched(ec2, self))

    def asked(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Judge a call at the moment at which it is done."""
        self.calls[name] += 1
        if name in MUTATIONS:
            key, words = self._key(name, arguments), f"{name}{arguments}"
            if self._unknown.pop(key, None):
                self.broke(Law.BLIND, f"{words} again, without a look")
            self._recent.append((self.world.now, key, words))
            self._recent = self._recent[-50:]
        self._check_wish(name, arguments)

    def _check_wish(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.orders.check_mode(name)
        if name in ABOUT_AN_ENI:
            self.orders.check_whose(name, arguments)
        match name, arguments:
            case "create", (CreateEni() as wish,):
                self._check_create(wish)
            case "assign", (eni_id, kind, count):
                self._check_enough(count * kind.size, kind)
            case "unassign", (eni_id, blocks):
                self._check_leaving(blocks, f"unassigned from {eni_id}")
                self._check_releasing(blocks)
            case "attach", (eni_id, *_):
                self._check_staying(f"{eni_id} is attached")
            case "detach", (attachment_id,):
                self._check_going(name, self.account.vpc.eni_of(attachment_id))
            case "delete", (eni_id,):
                self._check_going(name, eni_id)

    def heard(self, name: str, arguments: tuple[Any, ...], error: EniError | None) -> None:
        """Learn how a call ended."""
        if isinstance(error, UnknownOutcomeError) and name in MUTATIONS:
            self._unknown[self._key(name, arguments)] = name
            self._looked.pop(self._key(name, arguments), None)
        elif error is None and name in {"attached", "by_tag", "available"}:
            self._unknown = {k: v for k, v in self._unknown.items() if not self._is_told(k)}
        elif error is None and name == "eni":
            about = [key for key in self._unknown if key[1] == arguments[0]]
            for key in [key for key in about if self._is_told(key)]:
                del self._unknown[key]
        if isinstance(error, InstanceLimitError) and self.watch.is_strict:
            self.broke(Law.LIMIT, str(error))
        if name not in STALE:
            self.past.record()
            self._count_tokens()
            self._check_noted()

    def doubt(self) -> None:
        """Let the daemon look what EC2 shows, as after a surprise: an answer may be too late."""
        if self.world.is_serving:
            self.world.daemon.engine.census.look_soon()
            self.world.daemon.engine.wake()

    def _is_told(self, key: tuple[str, str]) -> bool:
        """Whether a look just now tells how a call ended: of attaching, one may be too early."""
        first = self._looked.setdefault(key, self.world.now)
        is_told = key[0] != "attach" or self.world.now - first >= LATE_SECONDS
        if is_told:
            del self._looked[key]
        return is_told

    def _key(self, name: str, arguments: tuple[Any, ...]) -> tuple[str, str]:
        about = arguments[0]
        if name == "detach":
            about = self.account.vpc.eni_of(about) or about
        detail = arguments[1:] if name in {"assign", "unassign"} else ()
        return f"{name} {detail}" if detail else name, str(about)

    def _check_create(self, wish: CreateEni) -> None:
        tags = dict(wish.tags)
        if tags.get(INTENT_TAG) != wish.token:
            self.broke(Law.TOKEN, f"{wish.token} is asked for the intent {tags.get(INTENT_TAG)}")
        known = {intent.token for intent in self.world.daemon.journal.intents()}
        if wish.token not in known:
            self.broke(Law.INTENT, f"{wish.token} is created and not in the journal")
        spot = str(wish.subnet_id), tuple(map(str, wish.security_groups))
        allowed = self.orders.placed.allowed(self.world.settings_held, self.orders.decided(tags))
        if spot not in allowed:
            self.broke(Law.PLACED, f"{spot} is none of {sorted(allowed)}")
        if wish.token not in self._made:  # else it is the same wish, again
            kind = Kind.PREFIX if wish.prefix_count else Kind.SINGLE
            self._check_enough((wish.prefix_count or wish.secondary_count) * kind.size, kind)

    def _check_enough(self, more: int, kind: Kind) -> None:
        """Judge the size of a wish, by what pods have needed of late."""
        now = self.world.now
        self._check_staying(f"{more} addresses more are asked for")
        lately = tuple(since(self.world.settings_held, now - DECIDED_SECONDS))
        if not self.watch.is_strict or not all(s.demand or s.by_address for s in lately):
            return
        needs = [need for when, need in self._needs if when > now - NEED_SECONDS] + [self._need()]
        spare = max(map(_spare, lately))
        if self._cordoned and now - self._cordoned > NOTICE_SECONDS:
            spare = 0
        size = Kind.PREFIX.size if any(s.prefix_delegation for s in lately) else kind.size
        most = max(needs, default=0) + spare + 2 * (size - 1)
        held = sum(block.num_addresses for eni in self._living_enis() for block in eni.blocks)
        if held + more > most:
            sentence = f"{more} addresses more beside {held}, and {most} are enough"
            self.broke(Law.ENOUGH, sentence)

    @property
    def _cordoned(self) -> float | None:
        """Since when the daemon knows that its node is cordoned."""
        cluster = self.world.cluster
        return self.cordoned_since if cluster is None else cluster.heard_cordon

    def _check_staying(self, what: str) -> None:
        since = self.leaving_since
        if since is not None and self.world.now - since > NOTICE_SECONDS:
            self.broke(Law.GOING, what)

    def _living_enis(self) -> tuple[Eni, ...]:
        going = {
            intent.eni_id
            for intent in self.world.daemon.journal.intents()
            if intent.state is EniState.DRAINING
        }
        unused = {eni.id for eni in self.world.daemon.pool.enis.values() if eni.excluded}
        return tuple(eni for eni in self.account.enis() if eni.id not in going | unused)

    def _check_releasing(self, blocks: tuple[Block, ...]) -> None:
        states = {block: state for block, _, state in self.world.daemon.journal.blocks()}
        for block in blocks:
            if states.get(block) is Held.HELD:
                self.broke(Law.INTENT, f"{block} is unassigned, and held in the journal")
        slots = self.world.daemon.pool.slots
        for address in (address for block in blocks for address in block):
            if address in slots and not isinstance(slots[address].state, Leaving):
                self.broke(Law.KEPT, f"{address} is unassigned, and {slots[address].state}")

    def _check_going(self, name: str, eni_id: EniId | None) -> None:
        eni = next((eni for eni in self.account.enis() if eni.id == eni_id), None)
        if eni is None:
            return
        self._check_leaving(eni.blocks, f"going with {eni.id} ({name})")
        intent = next((i for i in self.world.daemon.journal.intents() if i.eni_id == eni_id), None)
        if intent is not None and intent.state in {EniState.ACTIVE, EniState.CONFIGURED}:
            self.broke(Law.INTENT, f"{name} {eni_id}, which is {intent.state} in the journal")

    def _check_leaving(self, blocks: tuple[Block, ...], how: str) -> None:
        going = {address for block in blocks for address in block} - self.by_hand
        for pod in self.world.living:
            if pod.address in going:
                self.broke(Law.KEPT, f"{pod.name}'s {pod.address} is {how}")
        for address, names in self.world.kernel.owners().items():
            if address in going:
                self.broke(Law.KEPT, f"{', '.join(names)} has {address}, {how}")

    def on_drop(self, blocks: tuple[tuple[Block, EniId], ...]) -> None:
        """Judge what the journal is told to be EC2's again; where only IMDS tells, it may hide."""
        if self.world.settings.imds_only:
            return
        there = {block: eni.id for eni in self.world.cloud.attached() for block in eni.blocks}
        for block, eni_id in blocks:
            if there.get(block) == eni_id and not self.by_hand.intersection(block):
                self.broke(Law.FORGOTTEN, f"{block} is on {eni_id}")

    def _check_noted(self) -> None:
        """Judge whether an ENI that was made for us could be found again after a kill."""
        known = {intent.token for intent in self.world.daemon.journal.intents()}
        mine = self.world.cloud.identity.instance_id
        for eni in self.account.enis():
            token = eni.tags.get(INTENT_TAG)
            is_known = token in known or f"adopted-{eni.id}" in known
            if (
                token
                and eni.tags.get(INSTANCE_TAG) == mine
                and not is_known
                and eni.id not in (self.lost)
            ):
                self.broke(Law.NOTED, f"{eni.id} of {token}")

    def _count_tokens(self) -> None:
        for eni in self.account.enis():
            token = eni.tags.get(INTENT_TAG)
            if token is not None:
                self._made.setdefault(token, set()).add(eni.id)
                if len(self._made[token]) > 1:
                    self.broke(Law.TOKEN, f"{token} made {sorted(self._made[token])}")

    # The kernel -------------------------------------------------------------------------
    def look(self) -> None:
        """Judge what the kernel and the runtime see."""
        owners = self.world.kernel.owners()
        self._look_at_owners(owners)
        self._look_at_pods(owners)
        self._look_at_queue()
        self._look_at_enis()

    def _look_at_enis(self) -> None:
        """Judge how many ENIs there are; what came before MAX_ENI fell may stay."""
        limit = self.world.settings.max_eni
        if limit is None or self.has_foreign:
            self._most_enis = None
            return
        attached, changes = len(self.world.cloud.attached()), len(self.world.settings_held)
        if self._most_enis is None or self._most_enis[0] != changes:
            coming = self._coming() if changes > 1 else 0
            self._most_enis = changes, max(limit, attached + coming)
        most = self._most_enis[1]
        if attached > most:
            self.broke(Law.LIMIT, f"{attached} ENIs, MAX_ENI is {limit}, and there were {most}")

    def _coming(self) -> int:
        """Return how many ENIs are on their way, as far as a daemon lives to say so."""
        if self.world.life is None:
            return 0
        before = {EniState.PLANNED, EniState.CREATED}
        intents = self.world.daemon.journal.intents()
        return sum(1 for intent in intents if intent.state in before)

    def _look_at_owners(self, owners: Mapping[Address, tuple[str, ...]]) -> None:
        now, held = self.world.now, self.world.settings_held
        for address, names in owners.items():
            if len(names) > 1:
                self.broke(Law.OWNER, f"{address} is {' and '.join(names)}'s")
            former, last = self._owners.get(address, (names[0], now))
            is_new = former != names[0] and address not in self.by_hand
            if is_new and not has_cooled(held, last, now):
                cooldown = self.world.settings.cooldown_seconds
                self.broke(Law.COOLED, f"{address} has rested {now - last:.1f} s of {cooldown}")
            self._owners[address] = names[0], now
        self._owned = tuple(owners)

    def _look_at_pods(self, owners: Mapping[Address, tuple[str, ...]]) -> None:
        seen: dict[Address, str] = {}
        held, by_hand = self._held(), self.by_hand
        for pod in self.world.living:
            assert pod.address is not None
            if pod.address in seen:
                self.broke(Law.OWNER, f"{pod.address} is {pod.name}'s and {seen[pod.address]}'s")
            seen[pod.address] = pod.name
            if pod.address not in held and pod.address not in by_hand:
                self.broke(Law.KEPT, f"{pod.name}'s {pod.address} is not ours any more")
            if owners.get(pod.address) != (ifname_of(pod),):
                self.broke(Law.WIRED, f"{pod.name}'s {pod.address}: {owners.get(pod.address)}")

    def _look_at_queue(self) -> None:
        """Judge whether somebody waits for what is there; note what pods need."""
        world, now = self.world, self.world.now
        if not world.is_serving:
            self._prompt_since = None
            return
        pool, cooldown = world.daemon.pool, world.settings.cooldown_seconds
        need = self._need()
        if not self._needs or self._needs[-1][1] != need:
            self._needs.append((now, need))
            while len(self._needs) > 1 and self._needs[1][0] < now - NEED_SECONDS:
                self._needs.popleft()
        waits = world.daemon.attachments.waiting and (
            pool.choose(world.clock(), cooldown)
            or (pool.next_ready(world.clock(), cooldown + LATE_FREE_SECONDS) == 0 and COOLED)
        )
        if not waits:
            self._prompt_since = None
        elif self._prompt_since is None:
            self._prompt_since = now
        elif now - self._prompt_since > PROMPT_SECONDS:
            self.broke(Law.PROMPT, f"{waits} is free since {self._prompt_since:.1f}")

    def _need(self) -> int:
        """Return how many addresses pods have, wait for, or are said to be bound for."""
        world = self.world
        census = world.daemon.pool.census()
        bound = (world.cluster and world.cluster.heard_bound) or 0
        here = sum(c.assigned for c in census) + len(world.pending)
        return sum(c.cooling for c in census) + max(here, bound)

    def _held(self) -> set[Address]:
        """Return what EC2 has given to what is attached; made anew only when that changes."""
        enis = self.world.cloud.attached()
        if len(enis) != len(self._held_by) or any(map(is_not, enis, self._held_by)):
            self._held_by = enis
            self._all_held = {a for eni in enis for block in eni.blocks for a in block}
        return self._all_held

    def _check_wire(self, pod: Pod) -> None:
        assert pod.address is not None
        kernel, ifname = self.world.kernel, ifname_of(pod)
        inside = pod.netns.links.get("eth0")
        link = kernel.link(ifname)
        if inside is None or pod.address not in inside.addresses or link is None or not link.is_up:
            self.broke(Law.WIRED, f"{pod.name} was answered and has no wire")
        elif kernel.way_to(pod.address) != ifname:
            way = kernel.way_to(pod.address)
            self.broke(Law.WIRED, f"{pod.name}'s {pod.address} is routed to {way or 'nothing'}")
        guards = {w.network for w in kernel.ways.values() if w.metric == GUARD_METRIC}
        if not any(pod.address in guard for guard in guards):
            self.broke(Law.GUARDED, f"{pod.name}'s {pod.address} has no guard")
        if pod.address not in self.by_hand and not self.is_reachable(pod):
            self.broke(Law.WIRED, f"{pod.name}'s {pod.address} is not on the ENI it leaves by")
        former = self._talked.get(pod.address, pod.name)
        if former != pod.name and any(pod.address in flow for flow in kernel.flows):
            self.broke(Law.PURGED, f"{pod.name} hears what was said to {former} at {pod.address}")
        self._talked[pod.address] = pod.name
        kernel.flows.append(frozenset({pod.address, PEER}))

    def is_reachable(self, pod: Pod) -> bool:
        """Whether EC2 has the pod's address on the ENI by which its packets leave."""
        link = self.world.kernel.link(ifname_of(pod))
        if link is None or pod.address is None:
            return False
        number = link.group - POD_GROUP
        return any(
            eni.attachment is not None
            and eni.attachment.device_index + 1 == number
            and any(pod.address in block for block in eni.blocks)
            for eni in self.world.cloud.attached()
        )

    # At rest ----------------------------------------------------------------------------
    def at_rest(self, kubelet: Kubelet) -> Iterator[tuple[Law, str]]:
        """Yield what does not hold of a world that was left in peace for long enough."""
        yield from self._cloud_at_rest()
        yield from self.outliving()
        yield from self._journal_at_rest()
        yield from self._rows_at_rest()
        yield from self._pool_at_rest()
        yield from self._kernel_at_rest()
        yield from self._pods_at_rest(kubelet)
        yield from self.orders.at_rest()

    def _cloud_at_rest(self) -> Iterator[tuple[Law, str]]:
        for wrong in self.account.verify():
            yield Law.BOOKS, wrong
        for eni in self.account.enis():
            is_left = eni.attachment is None and eni.description.startswith("aws-K8S-")
            if is_left and self._is_to_sweep(eni):
                yield Law.LEAKED, f"{eni.id} is nobody's"

    def _is_to_sweep(self, eni: Eni) -> bool:
        """Whether this node is to sweep what is left: its own, and as the elected one others'."""
        mine = self.world.cloud.identity.instance_id
        if eni.tags.get(INSTANCE_TAG, mine) == mine:
            return self.world.settings.provisioning
        cluster, settings = self.world.cluster, self.world.settings
        is_elected = cluster is not None and cluster.is_elected and settings.leaked_eni_cleanup
        name = settings.cluster_name
        return is_elected and bool(name) and eni.tags.get(CLUSTER_TAG) == name

    def _ours(self) -> tuple[Eni, ...]:
        census = self.world.daemon.engine.census
        attached = self.world.cloud.attached()
        if self.world.settings.imds_only:  # IMDS tells no tags
            return attached
        return tuple(eni for eni in attached if census.is_ours(eni))

    def _journal_at_rest(self) -> Iterator[tuple[Law, str]]:
        journal, daemon = self.world.daemon.journal, self.world.daemon
        attached = {eni.id: eni for eni in self.world.cloud.attached()}
        for intent in journal.intents():
            if intent.state is not EniState.ACTIVE:
                yield Law.SETTLED, f"{intent.token} ({intent.eni_id}) is {intent.state}"
            elif intent.eni_id not in attached:
                yield Law.TRUE, f"{intent.eni_id} is active in the journal and not attached"
        there = {block: eni.id for eni in attached.values() for block in eni.blocks}
        for block, eni_id, state in journal.blocks():
            if state is not Held.HELD:
                yield Law.SETTLED, f"{block} is {state}"
            elif there.get(block) != eni_id:
                yield Law.TRUE, f"the journal has {block} on {eni_id}, EC2 on {there.get(block)}"
        shown = {block: eni.id for eni in self._ours() for block in eni.blocks}
        pool = {
            block: eni_id
            for block, eni_id in daemon.pool.blocks().items()
            if not self.by_hand.intersection(block)
        }
        expected = {b: e for b, e in shown.items() if not self.by_hand.intersection(b)}
        for block in sorted(pool.keys() ^ expected.keys()):
            who = "the pool" if block in pool else "EC2"
            yield Law.TRUE, f"only {who} has {block} on {(pool | expected)[block]}"

    def _rows_at_rest(self) -> Iterator[tuple[Law, str]]:
        daemon = self.world.daemon
        written = {block: eni_id for block, eni_id, _ in daemon.journal.blocks()}
        for block, eni_id in daemon.pool.blocks().items():
            if self.is_disk_sound and written.get(block) != eni_id:
                yield Law.TRUE, f"{block} is on {eni_id}, in the journal on {written.get(block)}"

    def _pool_at_rest(self) -> Iterator[tuple[Law, str]]:
        engine = self.world.daemon.engine
        now = engine.situation()
        targets = engine.targets(now)
        if self.world.settings.provisioning:
            if growth := decide.grow(now, targets):
                yield Law.TARGET, f"still to do: {growth}"
            if shrink := decide.shrink(now, targets, [1e9] * len(now.enis)):
                yield Law.TARGET, f"still too much: {shrink}"
            yield from self._bound_at_rest()
        if now.coming or now.busy:
            yield Law.SETTLED, f"{now.coming} addresses are coming, {sorted(now.busy)} are busy"
        for name, slot in self.world.daemon.pool.slots.items():
            if isinstance(slot.state, Leaving) and not self.by_hand.intersection(slot.block):
                yield Law.SETTLED, f"{name} is leaving"

    def _bound_at_rest(self) -> Iterator[tuple[Law, str]]:
        """Yield that pods which were said to be bound here have no addresses ready."""
        bound = (self.world.cluster and self.world.cluster.heard_bound) or 0
        census = self.world.daemon.pool.census()
        ready = sum(c.assigned + (c.free + c.cooling) * c.eni.is_open for c in census)
        if ready < bound and self._may_grow():
            yield Law.TARGET, f"{bound} pods are bound here, and {ready} addresses are for them"

    def _kernel_at_rest(self) -> Iterator[tuple[Law, str]]:
        kernel, daemon = self.world.kernel, self.world.daemon
        guards = {way.network for way in kernel.ways.values() if way.metric == GUARD_METRIC}
        held = set(daemon.pool.blocks())
        for network in sorted(map(str, guards ^ held)):
            yield Law.KERNEL, f"{network} is guarded and not held, or held and not guarded"
        for name in kernel.half_made():
            yield Law.KERNEL, f"{name} is half made"
        for link in kernel.links:
            if link.group == DYING_GROUP:
                yield Law.KERNEL, f"{link.name} is dying for ever"
        links = []
        macs = {link.mac: link for link in kernel.links}
        for eni in self._ours():
            intent = daemon.lifecycle.book.intent_of(eni.id)
            if intent is None or eni.attachment is None or eni.primary is None:
                yield Law.TRUE, f"{eni.id} is attached and has no intent"
                continue
            cidr, number = noted(intent).subnet_cidr, eni.attachment.device_index + 1
            links.append(EniLink(number, eni.mac, eni.primary, cidr, 9001))
            yield from self._link_at_rest(links[-1], macs.get(eni.mac))
        wanted = set(desired_rules(links))
        for rule in sorted(wanted ^ kernel.rules, key=str):
            yield Law.KERNEL, f"{rule} is missing or left"

    def _link_at_rest(self, eni: EniLink, link: Any) -> Iterator[tuple[Law, str]]:
        if link is None:
            yield Law.KERNEL, f"{eni.mac} has no link"
            return
        if link.group != ENI_GROUP + eni.number:
            yield Law.KERNEL, f"{link.name} is in group {link.group}"
        if eni.is_primary:
            return
        table = eni_table(eni.number)
        ways = self.world.kernel.ways.values()
        have = {(w.network, w.index, w.gateway) for w in ways if w.table == table}
        want = {(r.destination, r.index, r.gateway) for r in desired_routes(eni, link.index)}
        for route in sorted(have ^ want, key=str):
            yield Law.KERNEL, f"table {table}: {route} is missing or left"

    def outliving(self) -> Iterator[tuple[Law, str]]:
        """Yield the ENIs of ours that would be there still if the instance ended now."""
        mine = self.world.cloud.identity.instance_id
        for eni in self.account.enis():
            is_ours = eni.tags.get(INSTANCE_TAG) == mine and eni.tags.get(INTENT_TAG)
            if (
                is_ours
                and eni.id not in self.lost
                and not (eni.attachment and eni.attachment.delete_on_termination)
            ):
                yield Law.OUTLIVES, f"{eni.id} is {eni.status} and stays"

    def _pods_at_rest(self, kubelet: Kubelet) -> Iterator[tuple[Law, str]]:
        world, daemon = self.world, self.world.daemon
        pods = {pod.name: pod for pod in world.living}
        rows = {row.sandbox.container_id: row for row in daemon.leases.rows()}
        known = {row.sandbox.container_id for row in daemon.attachments.rows}
        wires = {
            link.netns.name: link
            for link in world.kernel.links
            if link.netns is not None and POD_GROUP <= link.group < ENI_GROUP
        }
        for what, names in (("lease", rows.keys()), ("row", known), ("wire", wires.keys())):
            for name in sorted(names ^ pods.keys()):
                has = f"a {what} and no pod" if name in names else f"a pod and no {what}"
                yield Law.WITNESSES, f"{name} is {has}"
        for name in sorted(pods.keys() & rows.keys()):
            if rows[name].addresses[0] != pods[name].address:
                yield Law.WITNESSES, f"{name}: {rows[name].addresses} and {pods[name].address}"
        yield from self.unserved(kubelet)

    def unserved(self, kubelet: Kubelet) -> Iterator[tuple[Law, str]]:
        """Yield who has no address although EC2 has, or the node, whatever the daemon thinks."""
        pods = {pod.name for pod in self.world.living}
        waiting = [n for n, s in sorted(kubelet.sandboxes.items()) if s not in pods]
        if waiting and self._has_room():
            yield Law.SERVED, f"{', '.join(waiting[:4])} ({len(waiting)}) have no address"

    def _has_room(self) -> bool:
        """Whether a pod more could have an address."""
        daemon = self.world.daemon
        attached = {eni.id for eni in self.world.cloud.attached()}
        usable = (c for c in daemon.pool.census() if c.eni.id in attached and not c.eni.excluded)
        return any(c.free for c in usable) or self._may_grow()

    def _may_grow(self) -> bool:
        """Whether there is more to ask EC2 for."""
        daemon = self.world.daemon
        if not self.world.settings.provisioning:
            return False
        now = daemon.engine.situation()
        attached = {
            eni.id
            for eni in self.world.cloud.attached()
            if eni.attachment is not None and eni.attachment.network_card == 0
        }
        free = {
            s: self.account.census(s).free for s in cast("ModelCloud", self.world.cloud).subnets
        }
        spots = self.orders.placed.allowed(self.world.settings_held, self.world.now)
        places = {SubnetId(subnet_id) for subnet_id, _ in spots}
        here = any(e.room and free.get(e.eni.subnet_id, 0) for e in now.enis)
        is_full = len(attached) >= daemon.engine.terms.max_enis
        anew = not is_full and any(free.get(s, 0) >= 2 for s in places)
        return here or anew

    @property
    def growth(self) -> int:
        """How often more was asked for."""
        return self.calls["create"] + self.calls["assign"]


class _Watched:
    """A client whose calls are judged, traced, and now and then answered from the past."""

    def __init__(self, ec2: CountedEc2, laws: Laws) -> None:
        self._ec2, self._laws = ec2, laws
        self.calls, self.errors = ec2.calls, ec2.errors

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ec2, name)

        def watched(*arguments: Any) -> Any:
            return self._call(name, method, arguments)

        watched.__name__ = name
        return watched

    def _call(self, name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        laws = self._laws
        words = f"ec2 {name} {', '.join(map(brief, arguments))}"
        laws.asked(name, arguments)
        try:
            answer = method(*arguments)
        except EniError as error:
            laws.world.note(f"{words}: {error.id}")
            laws.heard(name, arguments, error)
            raise
        weather = laws.weather
        if name in STALE and weather.stale and weather.random.random() < weather.stale:
            ago = weather.random.uniform(weather.stale_least, weather.stale_seconds)
            words, answer = f"{words} {ago:.1f} s ago", laws.past.answer(name, arguments, ago)
        laws.world.note(words)
        laws.heard(name, arguments, None)
        if weather.stale and name not in STALE:
            laws.world.later(LOOK_SECONDS, laws.doubt)
        return answer


class _Ear(logging.Handler):
    """Hears what is logged as broken."""

    def __init__(self, laws: Laws) -> None:
        super().__init__(logging.ERROR)
        self._laws = laws

    def emit(self, record: logging.LogRecord) -> None:
        """Judge one line."""
        words = record.getMessage()
        is_hidden = self._laws.by_hand or self._laws.world.settings.imds_only
        if words == "ec2 denies a pod's address" and is_hidden:
            return
        if words == "journal set aside":
            return
        if words.startswith("settings not taken") and self._laws.orders.was_spoiled:
            return
        if words in ROWLESS and self._laws.weather.is_run_full:
            return
        error = record.exc_info[1] if record.exc_info else None
        # Where something lies in memory is no part of a history.
        self._laws.broke(Law.ALIVE, re.sub("0x[0-9a-f]+", "0x", f"{words}: {error!r}"))


def _spare(settings: Settings) -> int:
    """Return how many addresses may be held ready beyond what pods need."""
    if settings.demand:
        return demand.HEADROOM_MAX
    return max(settings.warm_ip_target or 0, settings.minimum_ip_target or 0)


def brief(argument: object) -> str:
    """Return an argument of a call in few words."""
    match argument:
        case CreateEni():
            count = argument.secondary_count or argument.prefix_count
            return f"{argument.token} {argument.subnet_id} {count}"
        case Kind():
            return argument.value
        case tuple():
            return "+".join(map(str, argument))
        case _:
            return str(argument)


def ifname_of(pod: Pod) -> str:
    """Return the name of a pod's host veth."""
    return _ifname(pod.name)


@lru_cache(maxsize=4096)
def _ifname(container_id: str) -> str:
    return host_ifname(Sandbox("enid", container_id, "eth0"))
