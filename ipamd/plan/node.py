"""One planned node: the daemon's own engine over a modelled account, without a kernel. Shell.

The parts are joined as `ipamd.daemon` joins them; what is left out decides nothing about
addresses (leases, the socket, wires). The rule to keep: no arithmetic here. What the planner
shows is what the engine does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cni.dataplane import NODE_SYSCTLS, USUAL_ROUTING, EniLink, Network, Routing
from cni.dataplane import Address as HostAddress
from cni.kernel import Link
from cni.nft import PROBED, NftWish
from cni.spec import Sandbox
from eni.model import Identity, InstanceId, Notices
from ipamd import decide, demand
from ipamd.budget import Budget
from ipamd.caches import Caches
from ipamd.ec2_line import Ec2Line
from ipamd.engine import Engine, start_spread_seconds
from ipamd.eni_book import EniBook, Home
from ipamd.flights import Flights
from ipamd.holdings import Holdings
from ipamd.intents import EniState, Intent, Noted, note
from ipamd.journal import Journal
from ipamd.lifecycle import Lifecycle
from ipamd.places import RESERVED, SUBNETS_SECONDS, Places
from ipamd.plan.kubelet import Kubelet
from ipamd.plan.results import EniView, NodeView
from ipamd.plan.world import ZONE, CloudThreads, SameThread, World
from ipamd.pool import Pool, PoolEni
from ipamd.ports import Threads
from ipamd.subnets import Candidate, Subnets
from ipamd.terms import Told, terms_of

if TYPE_CHECKING:
    from eni.limits import InstanceLimits
    from eni.model import Eni, SubnetId
    from ipamd.pool import EniCensus
    from ipamd.settings import Settings

MTU = 9001
"""Of every ENI; nothing here depends on it."""

CLOUD_THREADS = 4
"""As many as a real daemon has (`ipamd.node`)."""

AGES_AGO = 1e9
"""Seconds; an ENI that is so old may go by its age."""


class PlannedNet:
    """The ENIs' side of a kernel: links come and go with the modelled cloud, all else is done."""

    def __init__(self, world: World, instance_id: InstanceId) -> None:
        self._account, self._instance_id = world.account, instance_id

    def find_link(self, mac: str) -> Link | None:
        """Return the link with this MAC, None if the instance has none."""
        if self._account.link_at(mac) != self._instance_id:
            return None
        return Link(index=1, name=mac, mac=mac, mtu=MTU, is_up=True, group=0)

    def configure_eni(self, eni: EniLink) -> None:
        """Do nothing."""

    def set_rules(
        self, enis: Sequence[EniLink], *, prune: bool = True, routing: Routing = USUAL_ROUTING
    ) -> None:
        """Do nothing."""

    def add_guards(self, networks: Iterable[Network]) -> None:
        """Do nothing."""

    def remove_guards(self, networks: Iterable[Network]) -> None:
        """Do nothing."""

    def guards(self, want: Iterable[Network]) -> tuple[int, int]:
        """Return that nothing had to be done."""
        del want
        return 0, 0

    def host_addresses(self) -> Mapping[HostAddress, str]:
        """Return that no link has one of the pool's addresses."""
        return {}

    def purge_conntrack(self, addresses: Collection[HostAddress]) -> int:
        """Return that there were no flows."""
        del addresses
        return 0

    def apply_nft(self, text: str) -> bool:
        """Return that our table was there."""
        del text
        return False

    def write_nft(self, text: str, *, anew: bool = False) -> None:
        """Do nothing."""

    def missing_features(self, wish: NftWish = PROBED) -> tuple[str, ...]:
        """Return that nothing is missing."""
        del wish
        return ()

    def sysctl_complaints(self, names: Iterable[str] = NODE_SYSCTLS) -> tuple[str, ...]:
        """Return that all are right."""
        del names
        return ()


class PlannedNode:
    """A node whose pods are served by our engine."""

    def __init__(
        self,
        world: World,
        name: InstanceId,
        subnet_id: SubnetId,
        limits: InstanceLimits,
        settings: Settings,
        *,
        max_pods: int | None = None,
        cooldown_seconds: float = 0.0,
    ) -> None:
        self.world, self.settings = world, settings
        self._told = Told(notices=Notices(), max_pods=max_pods)
        self.kubelet = Kubelet(world)
        self.kubelet.policy = self
        self.cooldown_seconds = cooldown_seconds
        self._queue: deque[int] = deque()
        self.pool = Pool()
        self.ec2 = world.account.node(name, limits.instance_type, subnet_id)
        primary = world.account.vpc.attached(name)[0]
        self._join(name, primary, limits)
        self._hold_primary(primary)

    # The parts -------------------------------------------------------------------------
    def _join(self, name: InstanceId, primary: Eni, limits: InstanceLimits) -> None:
        world, settings = self.world, self.settings
        terms = terms_of(settings, limits, self._told)
        here = SameThread(world.loop)
        threads = Threads(CloudThreads(world, CLOUD_THREADS), *[here] * 5)
        line = Ec2Line(
            executor=threads.cloud,
            budget=Budget(world.limits, settings.nodes or 1),
            clock=world.loop.time,
            random=world.roll,
        )
        assert primary.primary is not None
        identity = Identity(
            instance_id=name,
            instance_type=limits.instance_type,
            region="plan",
            availability_zone=ZONE,
            mac=primary.mac,
            primary=primary.primary,
        )
        self.lifecycle = Lifecycle(
            EniBook(
                ec2=self.ec2,
                line=line,
                net=PlannedNet(world, name),
                journal=Journal(Path(":memory:")),
                threads=threads,
                home=Home(
                    identity,
                    MTU,
                    tuple(settings.additional_eni_tags.items()),
                    settings.cluster_name,
                ),
                clock=world.clock,
            ),
            world.token,
        )
        caches = Caches(timer=lambda: world.now, jitter=world.roll)
        self.places = Places(
            ec2=self.ec2,
            line=line,
            vpc_id=world.account.vpc.id,
            availability_zone=ZONE,
            home=primary.subnet_id,
            groups=primary.security_groups,
            subnets=Subnets(mode=terms.kind, candidates=(Candidate(primary.subnet_id),)),
            cidrs={primary.subnet_id: world.account.vpc.book(primary.subnet_id).cidr},
            answers=caches.cache("subnets", size=1, age_seconds=SUBNETS_SECONDS),
            kept=caches.cache("reservations", size=RESERVED, age_seconds=SUBNETS_SECONDS),
            cluster=settings.cluster_name,
            discovery=settings.subnet_discovery,
            configs=self._configs(primary.subnet_id),
        )
        self.engine = Engine(
            holdings=Holdings(
                pool=self.pool,
                queue=self,
                lifecycle=self.lifecycle,
                places=self.places,
                clock=world.clock,
                terms=terms,
            ),
            flights=Flights(world.clock, world.roll),
            headroom=demand.Headroom(demand.HEADROOM_MIN, world.clock()),
            start_spread_seconds=start_spread_seconds(line.budget),
        )

    def _configs(self, home: SubnetId) -> tuple[Candidate, ...] | None:
        """Return where ENIConfigs would point to: the other subnets, or the one there is."""
        if not self.settings.custom_networking:
            return None
        others = [subnet for subnet in self.world.subnets if subnet != home]
        return tuple(map(Candidate, others or [home]))

    def _hold_primary(self, primary: Eni) -> None:
        """Take over the ENI that the instance was born with."""
        assert primary.primary is not None
        cidr = self.world.account.vpc.book(primary.subnet_id).cidr
        about = Noted(primary.primary, primary.blocks, primary.subnet_id, cidr)
        self.lifecycle.book.intents["primary"] = intent = Intent(
            token="primary",  # noqa: S106 - no password
            state=EniState.ACTIVE,
            device_index=0,
            parameters={"eni": note(about)},
            eni_id=primary.id,
            mac=primary.mac,
        )
        self.lifecycle.book.journal.put(intent, self.world.clock().wall)
        self.pool.put_eni(
            PoolEni(
                primary.id,
                1,
                self.engine.terms.slots,
                primary.subnet_id,
                self.world.clock(),
                excluded=self.settings.custom_networking,
            )
        )

    # Pods ------------------------------------------------------------------------------
    def start(self) -> None:
        """Run the engine; a daemon serves from its first moment."""
        self._task = self.world.loop.create_task(self.engine.run())
        self.kubelet.ready()

    def told(self, pods: int) -> None:
        """Let the engine know how many pods are bound here, as the watch would."""
        self.engine.set_terms(replace(self.engine.terms, bound=pods))

    def add(self, pod: int) -> None:
        """Queue *pod*, or refuse it where too many wait."""
        if len(self._queue) >= self.settings.add_waiting_max and not self._has_free():
            self.kubelet.refused(pod)
            return
        self.engine.arrived()
        self._queue.append(pod)
        self.hand_out()

    def _has_free(self) -> bool:
        return self.pool.choose(self.world.clock(), self.cooldown_seconds) is not None

    def remove(self, pod: int, *, has_address: bool) -> None:
        """Let the address of *pod* cool, or forget that it waits."""
        if not has_address:
            if pod in self._queue:
                self._queue.remove(pod)
            return
        self.pool.mark_purged(self.pool.release(_sandbox(pod), self.world.clock()))
        if self.cooldown_seconds:
            self.world.loop.call_later(self.cooldown_seconds, self._cooled)
        else:
            self._cooled()

    def _cooled(self) -> None:
        self.pool.settle(self.world.clock(), self.cooldown_seconds)
        self.hand_out()
        self.engine.wake()

    # The engine's queue ----------------------------------------------------------------
    @property
    def waiting(self) -> int:
        """How many pods wait."""
        return len(self._queue)

    def hand_out(self) -> None:
        """Give them what the pool has."""
        while self._queue:
            address = self.pool.choose(self.world.clock(), self.cooldown_seconds)
            if address is None:
                break
            pod = self._queue.popleft()
            self.pool.assign(_sandbox(pod), (address,))
            self.kubelet.served(pod)
        self.engine.wake()

    def cools(self) -> None:
        """Know that some address has begun to cool."""

    # What there is ---------------------------------------------------------------------
    @property
    def is_settled(self) -> bool:
        """Whether the engine would do nothing more, however long it waited."""
        engine = self.engine
        if engine.flights.names or not engine.census.done.is_set():
            return False
        now = engine.situation()
        targets = engine.targets(now)
        ages = [AGES_AGO] * len(now.enis)
        return not (decide.grow(now, targets) or decide.shrink(now, targets, ages))

    @property
    def held(self) -> int:
        """How many addresses for pods are held."""
        return len(self.pool.slots)

    def view(self) -> NodeView:
        """Return what is held, by ENI."""
        return NodeView(tuple(map(_view, self.pool.census())))


def _view(census: EniCensus) -> EniView:
    return EniView(
        device_index=census.eni.number - 1,
        addresses=census.held,
        prefixes=census.prefixes,
        assigned=census.assigned,
        cooling=census.cooling + census.leaving + census.taken,
    )


def _sandbox(pod: int) -> Sandbox:
    return Sandbox("plan", str(pod), "eth0")
