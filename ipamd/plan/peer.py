"""The AWS VPC CNI's way to hold addresses, to compare with ours. Shell (its loop).

Made from its documentation and from what its source was seen to do at the time of writing
(docs/planning.md says what is modelled and what is not); it is not its code. Its arithmetic is
in `ipamd.plan.peer_rules`. What sets it apart here:

- one thread looks every 5 s and does one thing: an Assign, a new ENI, or a step back;
- an ADD that finds no address fails at once, and kubelet tries again by its back-off;
- a new ENI is five calls, and is used when IMDS shows it;
- its start asks EC2 before the first pod, and an Assign that is throttled then ends it;
- an address is chosen by chance, so that pods spread over ENIs and prefixes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from eni.errors import EniError, LimitExceededError, SubnetExhaustedError, ThrottledError
from eni.model import CreateEni, Kind, SubnetId, kind_of
from ipamd.plan import peer_rules
from ipamd.plan.cloud import Action, NodeEc2
from ipamd.plan.kubelet import Kubelet
from ipamd.plan.peer_rules import PeerTargets, Tally
from ipamd.plan.results import EniView, NodeView
from ipamd.plan.world import ZONE, CloudThreads, World

if TYPE_CHECKING:
    from eni.limits import InstanceLimits
    from eni.model import Address, Block, Eni, EniId, InstanceId

T = TypeVar("T")

TICK_SECONDS = 5.0
SHRINK_GATE_SECONDS = 30.0
"""Between two steps back of addresses or prefixes."""
MIN_AGE_SECONDS = 60.0
"""An ENI younger than this is not freed."""
FULL_SUBNET_SECONDS = 120.0
"""How long a node does not grow after a subnet had nothing left."""
SDK_TRIES = 3
"""The SDK's own tries of a call that is throttled; each counts against the account."""
START_TRIES = 12
"""Tries of the first describe, at most 0.11 s apart."""
TAG_TRIES = 5
IMDS_TRIES = 12
RESTART_SECONDS, RESTART_MOST = 10.0, 300.0
"""kubelet's back-off for a container that ended: doubled each time."""
SETTLE_SECONDS = 1.0
"""What a start takes beside its calls: the API server, IMDS, host network."""
DETACH_PAUSE_SECONDS = 2.0
SWEEP_SECONDS = 3600.0

INSTANCES: Final = Action(
    "DescribeInstances", "list the device indexes of {}".format, is_question=True
)


class PeerEc2(NodeEc2):
    """EC2 with the one call more that the peer makes."""

    def indexes(self, instance_id: InstanceId) -> frozenset[int]:
        """Return the device indexes that are taken."""

        def taken(instance_id: InstanceId) -> frozenset[int]:
            attached = self._vpc.attached(instance_id)
            return frozenset(e.attachment.device_index for e in attached if e.attachment)

        return self._send(INSTANCES, instance_id, taken, instance_id)


@dataclass(slots=True, eq=False)
class Card:
    """One ENI of the peer's store."""

    id: EniId
    device_index: int
    since: float
    blocks: set[Block] = field(default_factory=set)

    @property
    def is_primary(self) -> bool:
        """Whether the instance was born with it."""
        return self.device_index == 0


class PeerNode:
    """A node whose pods are served by the peer's rules."""

    def __init__(
        self,
        world: World,
        name: InstanceId,
        subnet_id: SubnetId,
        limits: InstanceLimits,
        targets: PeerTargets,
        *,
        cooldown_seconds: float = 0.0,
    ) -> None:
        self.world, self.name, self.targets = world, name, targets
        self.kubelet = Kubelet(world)
        self.kubelet.policy = self
        self.cooldown_seconds = cooldown_seconds
        self._slots, self._max_enis = limits.ipv4_per_eni - 1, limits.enis
        world.account.vpc.launch(name, limits.instance_type, subnet_id)
        self.ec2 = world.account.nodes[name] = PeerEc2(world.account)
        self._subnet_id = subnet_id
        self._thread = CloudThreads(world, 1)
        self._cards: dict[EniId, Card] = {}
        self._free: dict[Address, EniId] = {}
        """In a row that chance has no hand in; it draws by place."""
        self._cooling: dict[Address, float] = {}
        self._pods: dict[int, Address] = {}
        self._eni_of: dict[Address, EniId] = {}
        self._paused_until = self._next_shrink = 0.0
        self._is_up = False
        self._idle_ticks = 0

    # Pods ------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin."""
        self._task = self.world.loop.create_task(self._live())

    def told(self, pods: int) -> None:
        """Do nothing: the peer does not look at pods ahead."""

    def add(self, pod: int) -> None:
        """Give *pod* an address by chance, or refuse it."""
        self._idle_ticks = 0
        self._cool_down()
        if not (self._is_up and self._free):
            self.kubelet.refused(pod)
            return
        addresses = list(self._free)
        address = addresses[int(self.world.roll() * len(addresses))]
        del self._free[address]
        self._pods[pod] = address
        self.kubelet.served(pod)

    def remove(self, pod: int, *, has_address: bool) -> None:
        """Let the address of *pod* cool."""
        self._idle_ticks = 0
        if has_address:
            self._cooling[self._pods.pop(pod)] = self.world.now + self.cooldown_seconds

    def _cool_down(self) -> None:
        done = [a for a, until in self._cooling.items() if until <= self.world.now]
        for address in done:
            del self._cooling[address]
            self._free[address] = self._eni_of[address]

    @property
    def is_settled(self) -> bool:
        """Whether so many looks found nothing to do that none will."""
        return self._idle_ticks > SHRINK_GATE_SECONDS / TICK_SECONDS + 1

    # The store -------------------------------------------------------------------------
    def _tally(self) -> Tally:
        prefixes = [b for card in self._cards.values() for b in card.blocks if b.prefixlen < 32]  # noqa: PLR2004
        return Tally(
            total=len(self._eni_of),
            assigned=len(self._pods),
            prefixes=len(prefixes),
            free_prefixes=sum(map(self._is_free, prefixes)),
            per_eni=self._slots,
        )

    def _is_free(self, block: Block) -> bool:
        return all(address in self._free or address in self._cooling for address in block)

    def _is_cold(self, block: Block) -> bool:
        return all(address in self._free for address in block)

    def _hold(self, card: Card, blocks: Iterable[Block]) -> None:
        for block in blocks:
            card.blocks.add(block)
            for address in block:
                self._eni_of[address] = card.id
                self._free[address] = card.id

    def _let_go(self, card: Card, blocks: Iterable[Block]) -> None:
        for block in blocks:
            card.blocks.discard(block)
            for address in block:
                self._eni_of.pop(address, None)
                self._free.pop(address, None)
                self._cooling.pop(address, None)

    @property
    def held(self) -> int:
        """How many addresses for pods are held."""
        return len(self._eni_of)

    def view(self) -> NodeView:
        """Return what is held, by ENI."""
        self._cool_down()
        used = [self._eni_of[address] for address in self._pods.values()]
        cooling = [self._eni_of[address] for address in self._cooling]
        return NodeView(
            tuple(
                EniView(
                    device_index=card.device_index,
                    addresses=sum(block.num_addresses for block in card.blocks),
                    prefixes=sum(kind_of(block) is Kind.PREFIX for block in card.blocks),
                    assigned=used.count(card.id),
                    cooling=cooling.count(card.id),
                )
                for card in sorted(self._cards.values(), key=lambda card: card.device_index)
            )
        )

    # Calls -----------------------------------------------------------------------------
    async def _call(self, call: Callable[..., T], *arguments: object) -> T:
        """Call, as often as the SDK would."""
        loop = self.world.loop
        for attempt in range(1, SDK_TRIES):
            try:
                return await loop.run_in_executor(self._thread, call, *arguments)
            except ThrottledError:
                await asyncio.sleep(self.world.roll() * 2.0 ** (attempt - 1))
        return await loop.run_in_executor(self._thread, call, *arguments)

    # A life ----------------------------------------------------------------------------
    async def _live(self) -> None:
        wait = RESTART_SECONDS
        while not await self._begin():
            await asyncio.sleep(wait)
            wait = min(2 * wait, RESTART_MOST)
        self._is_up = True
        self.kubelet.ready()
        next_sweep = self.world.now + SWEEP_SECONDS * (1 + self.world.roll() / 12)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            acted = await self._tick()
            self._idle_ticks = 0 if acted else self._idle_ticks + 1
            if self.world.now >= next_sweep:
                next_sweep = self.world.now + SWEEP_SECONDS * (1 + self.world.roll() / 12)
                await self._sweep()

    async def _begin(self) -> bool:
        """Start; return False where it ends instead."""
        await asyncio.sleep(SETTLE_SECONDS)
        attached = await self._first_look()
        if attached is None:
            return False
        for eni in attached:
            assert eni.attachment is not None
            card = Card(eni.id, eni.attachment.device_index, self.world.now)
            self._cards.setdefault(eni.id, card)
            self._hold(self._cards[eni.id], eni.blocks)
            try:
                await self._call(self.ec2.subnet, eni.subnet_id)
                if not eni.tags:
                    await self._tag(eni.id)
            except EniError:
                return False
        try:
            await self._grow()
        except ThrottledError:
            return False  # of an Assign only; what else fails then is only logged
        return True

    async def _tag(self, eni_id: EniId) -> None:
        tags = (("node.k8s.amazonaws.com/instance_id", str(self.name)),)
        for attempt in range(1, TAG_TRIES):
            try:
                await self._call(self.ec2.tag, eni_id, tags)
            except EniError:
                await asyncio.sleep(0.2 * 2.0**attempt * self.world.roll())
            else:
                return
        await self._call(self.ec2.tag, eni_id, tags)

    async def _first_look(self) -> tuple[Eni, ...] | None:
        for _ in range(START_TRIES):
            try:
                return await self._call(self.ec2.attached, self.name)
            except EniError:
                await asyncio.sleep(0.11 * self.world.roll())
        return None

    async def _sweep(self) -> None:
        try:
            await self._call(self.ec2.available, (("node.k8s.amazonaws.com/instance_id", ""),))
        except EniError:
            return

    async def _tick(self) -> bool:
        """Do one thing, if there is one; return whether anything was tried."""
        self._cool_down()
        try:
            return await self._grow() or await self._shrink()
        except EniError:
            return True  # the next tick tries again

    # Growing ---------------------------------------------------------------------------
    async def _grow(self) -> bool:
        wish = peer_rules.wish(self._tally(), self.targets)
        if not wish or self.world.now < self._paused_until:
            return False
        room = [c for c in self._cards.values() if len(c.blocks) < self._slots]
        try:
            if room:
                await self._fill(room[0], min(self._slots - len(room[0].blocks), wish))
            elif len(self._cards) < min(self._max_enis, self.targets.max_eni or self._max_enis):
                await self._add_eni(min(self._slots, wish))
            else:
                return False
        except SubnetExhaustedError:
            self._paused_until = self.world.now + FULL_SUBNET_SECONDS
        return True

    async def _fill(self, card: Card, count: int) -> None:
        try:
            new = await self._call(self.ec2.assign, card.id, self.targets.kind, count)
        except (SubnetExhaustedError, LimitExceededError):
            if count == 1:
                raise
            new = await self._call(self.ec2.assign, card.id, self.targets.kind, 1)
        self._hold(card, new)

    async def _add_eni(self, count: int) -> None:
        vpc = self.world.account.vpc.id
        subnets = await self._call(self.ec2.subnets, vpc, ZONE)
        best = max(subnets, key=lambda subnet: subnet.available)
        eni = await self._call(self.ec2.create, self._create(best.id, count))
        try:
            taken = await self._call(self.ec2.indexes, self.name)
            index = next(i for i in range(1, 100) if i not in taken)
            attachment = await self._call(self.ec2.attach, eni.id, self.name, index)
            await self._call(self.ec2.delete_on_termination, eni.id, attachment)
        except EniError:
            await self._undo(eni.id)
            raise
        if await self._shown(eni.mac):
            card = self._cards[eni.id] = Card(eni.id, index, self.world.now)
            self._hold(card, eni.blocks)

    def _create(self, subnet_id: SubnetId, count: int) -> CreateEni:
        is_prefix = self.targets.kind is Kind.PREFIX
        return CreateEni(
            token=self.world.token(),
            subnet_id=subnet_id,
            security_groups=(self.world.account.vpc.default_group,),
            description=f"aws-K8S-{self.name}",
            secondary_count=0 if is_prefix else count,
            prefix_count=count if is_prefix else 0,
            tags=(("node.k8s.amazonaws.com/instance_id", str(self.name)),),
        )

    async def _undo(self, eni_id: EniId) -> None:
        """Free an ENI that could not be made ready."""
        try:
            eni = await self._call(self.ec2.eni, eni_id)
            if eni is not None and eni.attachment is not None:
                await self._call(self.ec2.detach, eni.attachment.id)
                await asyncio.sleep(DETACH_PAUSE_SECONDS)
            await self._delete(eni_id)
        except EniError:
            return  # the sweep will find it

    async def _delete(self, eni_id: EniId) -> None:
        wait = 0.5
        for _ in range(12):
            try:
                await self._call(self.ec2.delete, eni_id)
            except EniError:
                await asyncio.sleep(wait)
                wait = min(2 * wait, 60.0)
            else:
                return

    async def _shown(self, mac: str) -> bool:
        """Wait until IMDS tells of the ENI: 0.1 s, doubled each time."""
        link_at: float | None = None
        wait = 0.1
        for _ in range(IMDS_TRIES):
            await asyncio.sleep(wait)
            wait = min(2 * wait, 60.0)
            if link_at is None and self.world.account.link_at(mac) == self.name:
                link_at = self.world.now
            if link_at is not None and self.world.now >= link_at + self.world.timing.imds:
                return True
        return False

    # Shrinking -------------------------------------------------------------------------
    async def _shrink(self) -> bool:
        if peer_rules.may_free_eni(self._tally(), self.targets):
            card = self._deletable()
            if card is not None:
                await self._free_eni(card)
                return True
        if self.world.now < self._next_shrink:
            return False
        over = peer_rules.surplus(self._tally(), self.targets)
        if over <= 0:
            return False
        self._next_shrink = self.world.now + SHRINK_GATE_SECONDS
        acted = False
        for card, blocks in self._spare(over):
            await self._call(self.ec2.unassign, card.id, blocks)
            self._let_go(card, blocks)
            acted = True
        return acted

    def _spare(self, over: int) -> Iterator[tuple[Card, tuple[Block, ...]]]:
        """Yield what is to be given back, by ENI."""
        for card in tuple(self._cards.values()):
            blocks = tuple(sorted(filter(self._is_cold, card.blocks))[:over])
            if blocks:
                over -= len(blocks)
                yield card, blocks
            if not over:
                return

    def _deletable(self) -> Card | None:
        used = {self._eni_of[address] for address in (*self._pods.values(), *self._cooling)}
        for card in self._cards.values():
            is_old = self.world.now - card.since >= MIN_AGE_SECONDS
            if card.is_primary or card.id in used or not is_old:
                continue
            without = self._tally_without(card)
            if not peer_rules.wish(without, self.targets):
                return card
        return None

    def _tally_without(self, card: Card) -> Tally:
        tally = self._tally()
        prefixes = sum(kind_of(block) is Kind.PREFIX for block in card.blocks)
        return Tally(
            total=tally.total - sum(block.num_addresses for block in card.blocks),
            assigned=tally.assigned,
            prefixes=tally.prefixes - prefixes,
            free_prefixes=tally.free_prefixes - prefixes,
            per_eni=tally.per_eni,
        )

    async def _free_eni(self, card: Card) -> None:
        self._let_go(card, tuple(card.blocks))
        del self._cards[card.id]
        await self._undo(card.id)
