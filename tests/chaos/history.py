"""How a history is lived: what happens in it, and how it ends. Shell.

`tests.chaos.draw` draws it from a seed. `play` lives it: the world, then an end at which all
faults stop, and then the laws of a world at rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from eni.errors import ImdsError
from eni.limits import InstanceLimits, shipped
from eni.model import Eni, EniId, Kind, Notices, SecurityGroupId
from ipamd.leases import Leases, LeasesError
from tests.chaos import changes
from tests.chaos.cluster_side import ModelCluster
from tests.chaos.draw import GROUP, Event, History, Last, Trouble, What, draw, environ_of
from tests.chaos.kubelet import End, Kubelet
from tests.chaos.law import Law, LawBrokenError
from tests.chaos.laws import Laws, Watch
from tests.chaos.weather import AWAY, Disk, Weather
from tests.chaos.world import EndedError, ModelCloud, World

REST_SECONDS = 9000.0
"""How long a world may take to come to rest: the longest that a leaked ENI waits for its sweep
is an hour and a half, and a census comes hourly."""

PEACE_SECONDS = 600.0
"""How long a world at rest is watched: it must ask for nothing."""

LOOK_SECONDS = 60.0
"""Between two looks whether it has come to rest."""

SPOT_SECONDS = 120.0
"""Between the notice that a spot instance ends, and its end."""

SHRINK_SECONDS = 900.0
"""After this long a node without pods has tried to let an ENI go."""

SERVE_SECONDS = 600.0
"""How long pods that come back may wait where EC2 refuses something all the time."""

ACTIONS = (
    "CreateNetworkInterface",
    "AttachNetworkInterface",
    "DetachNetworkInterface",
    "DeleteNetworkInterface",
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
    "ModifyNetworkInterfaceAttribute",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
)

HALF_MADE = ("AttachNetworkInterface", "ModifyNetworkInterfaceAttribute")
"""What leaves an ENI half made if it is refused."""

MORE_PODS = 12
"""So many more than a history has need an ENI more, where there can be one."""


SHAKES_BELIEF = {Trouble.STALE, Trouble.HANDS, Trouble.FOREIGN, Trouble.LOST, Trouble.DROPPED}
"""After these, EC2 may rightly say that a limit is reached."""


@dataclass(slots=True)
class Result:
    """How a history went."""

    seed: int
    simulated_seconds: float
    steps: int
    lives: int
    pods: int
    calls: int
    hash: str
    broken: LawBrokenError | None = None
    tail: tuple[str, ...] = ()


UNKNOWN = "m99.large"
"""An instance type that only EC2 knows; like m5.large."""


def _limits_of(instance_type: str) -> InstanceLimits | None:
    known = shipped("m5.large" if instance_type == UNKNOWN else instance_type)
    return known and replace(known, instance_type=instance_type)


class DyingLeases(Leases):
    """A lease file that may take nothing, /run being full, or whose daemon may die with it.

    That is right behind a commit, before anybody is answered.
    """

    world: World | None = None
    weather: Weather | None = None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self.weather is not None and self.weather.is_run_full:
            self.trouble = f"{self.path} cannot be written: database or disk is full"
            raise LeasesError(self.trouble)
        with super()._transaction():
            yield

    def release(self, *arguments: object) -> None:
        """Do as `Leases` does."""
        super().release(*arguments)  # type: ignore[arg-type]  # passed on as they are
        self._die()

    def insert(self, *arguments: object) -> None:
        """Do as `Leases` does."""
        super().insert(*arguments)  # type: ignore[arg-type]  # passed on as they are
        self._die()

    def _die(self) -> None:
        if self.world is not None and self.world.dies_after_lease:
            self.world.die()


class Player:
    """Lives one history."""

    def __init__(self, history: History, folder: Path, *, every: int = 25) -> None:
        self.history, seed = history, history.seed
        self.random = random.Random(f"player {seed}")
        self.weather = Weather(
            random.Random(f"weather {seed}"),
            attach_seconds=history.attach_seconds,
            minutes=history.minutes,
        )
        is_strict = not history.troubles & SHAKES_BELIEF
        self.laws = Laws(Watch(every=every, is_strict=is_strict))
        self.laws.is_disk_sound = Trouble.DISK not in history.troubles
        self.world = World(
            folder,
            settings=history.settings,
            seed=f"daemon {seed}",
            make_cloud=self._make_cloud,
            wrap=self.laws.wrap,
            latency=self.weather.latency,
            make_journal=lambda path: Disk(path, self.weather, self.laws.on_drop),
            make_leases=self._make_leases,
            observer=self.laws,
        )
        self.world.imds.cidrs = self.account_cloud.subnets
        if history.is_joined:
            self.world.cluster = ModelCluster(
                self.world, environ_of(history.settings), f"cluster {seed}"
            )
        self.laws.bind(self.world, self.weather)
        self.laws.orders.is_clock_sound = Trouble.CLOCK not in history.troubles
        self.kubelet = Kubelet(self.world, f"kubelet {seed}")
        self.laws.on_answers.append(self.kubelet.on_answer)
        self.laws.on_deaths.append(self._on_death)
        self.laws.on_reboots.append(self.kubelet.on_rebooted)
        self.lives = 0
        self._names = 0
        self._is_over = False
        self.skew = 0
        """How many pods too many are said to be bound here."""
        self._scheduled: set[str] = set()
        self._set_out()

    def _set_out(self) -> None:
        """Let there be what others have made before any daemon lives."""
        account, cluster = self.account_cloud.account, self.world.cluster
        (primary,) = self.world.cloud.attached()
        slots = account.vpc.limits(self.history.instance_type).ipv4_per_eni - 1
        if self.history.given:
            account.assign_by_hand(primary.id, Kind.SINGLE, min(self.history.given, slots))
        if cluster is not None and Trouble.CONFIGS in self.history.troubles:
            account.add_group(SecurityGroupId(GROUP))
            cluster.configs.update(self.history.configs)
            changes.name(self, self.history.named[1])
        self.laws.past.record()

    @property
    def bound(self) -> set[str]:
        """The pods that are bound here."""
        return {*self.kubelet.sandboxes, *self._scheduled}

    def _make_cloud(self, clock: Callable[[], float]) -> ModelCloud:
        history = self.history
        addresses = random.Random(f"addresses {history.seed}")
        return ModelCloud(
            clock,
            instance_type=history.instance_type,
            subnet=history.subnet,
            occupied=history.occupied,
            others=history.others,
            latency=self.weather.attach_latency,
            lag_seconds=history.lag_seconds,
            faults=self.weather.fault,
            draw=addresses.randrange if history.draws else None,
            limits_of=_limits_of,
        )

    def _make_leases(self, path: Path) -> Leases:
        leases = DyingLeases(path)
        leases.world, leases.weather = self.world, self.weather
        return leases

    @property
    def account_cloud(self) -> ModelCloud:
        """The cloud, as the model it is."""
        cloud = self.world.cloud
        assert isinstance(cloud, ModelCloud)
        return cloud

    # The whole --------------------------------------------------------------------------
    def play(self) -> Result:
        """Live the history; the result says what was broken."""
        broken = None
        with self.laws.listening():
            try:
                self.live()
                self._rest()
            except LawBrokenError as error:
                broken = error
            except EndedError as error:
                broken = self.laws.broken[0] if self.laws.broken else None
                broken = broken or LawBrokenError(Law.ALIVE, str(error))
            finally:
                if self.world.life is not None:
                    self.laws.on_deaths.clear()
                    self.world.kill()
        world = self.world
        return Result(
            seed=self.history.seed,
            simulated_seconds=world.now,
            steps=world.steps_taken,
            lives=self.lives,
            pods=self._names,
            calls=sum(self.laws.calls.values()),
            hash=world.trace.hash,
            broken=broken,
            tail=tuple(world.trace.tail) if broken else (),
        )

    def live(self) -> None:
        """Live until the end at which all faults stop."""
        for event in self.history.events:
            self.world.later(event.at, partial(self._happen, event))
        self._begin()
        self.world.run(self.history.seconds)
        self.laws.look()
        self.laws.check()

    def _happen(self, event: Event) -> None:
        if event.what not in {What.ARRIVE, What.LEAVE}:
            self.world.note(f"* {event.what} {event.roll:.3f} {event.seconds:.0f}")
        HAPPENS[event.what](self, event)
        self._recount()
        self.laws.look()
        self.laws.check()

    def _recount(self) -> None:
        if Trouble.BOUND in self.history.troubles:
            changes.recount(self)

    def _begin(self) -> None:
        if self.world.life is None:
            self.lives += 1
            self.world.begin()

    def _on_death(self) -> None:
        self.world.dies_after_lease = False
        later = self.random.choice((0.5, 2.0, 2.0, 20.0, 200.0))
        self.world.later(0.1 if self._is_over else later, self._begin)

    # The end ----------------------------------------------------------------------------
    def _rest(self) -> None:
        """Let all faults stop, and the world come to rest; raise what does not hold then."""
        self._make_peace()
        if self.history.last is Last.LEAVES:
            self._leave()
        elif self.history.last is not None:
            self._go_and_come_back(self.history.last.value)
        self._come_to_rest(REST_SECONDS)
        self._peace()
        self.laws.look()
        self.laws.check()

    def _leave(self) -> None:
        """Let the instance be about to end while ENIs are half made; raise if one would stay."""
        self.world.note("* the instance is to end")
        r = random.Random(f"leave {self.history.seed}")
        self.weather.throttled, self.weather.throttles = {r.choice(HALF_MADE)}, 1.0
        self._arrive_all(MORE_PODS)
        self.world.run(r.uniform(1.0, 30.0))
        self.weather.clear_up()
        self.world.imds.notice = Notices(spot_action="terminate")
        self.laws.leaving_since = self.world.now
        self.world.run(SPOT_SECONDS)
        self._demand(self.laws.outliving())
        self._withdraw_notice()

    def _go_and_come_back(self, denied: str) -> None:
        """Let all pods go and come back while EC2 refuses an action; raise if one gets nothing."""
        self.world.note(f"* {denied} is denied to the last")
        self.weather.denied.add(denied)
        for name in sorted(self.kubelet.sandboxes):
            self.kubelet.unwant(name)
        self.world.run(SHRINK_SECONDS)
        self._arrive_all()
        for _ in range(int(SERVE_SECONDS / LOOK_SECONDS)):
            self.world.run(LOOK_SECONDS)
            self._replace_unreachable()
        self._demand(self.laws.unserved(self.kubelet))
        self.weather.clear_up()

    def _arrive_all(self, more: int = 0) -> None:
        while len(self.bound) < self.history.pods + more:
            self._come()
        self._recount()

    def _demand(self, wrongs: Iterator[tuple[Law, str]]) -> None:
        self.laws.look()
        self.laws.check()
        if (wrong := next(wrongs, None)) is not None:
            raise LawBrokenError(*wrong)

    def _peace(self) -> None:
        """Watch a world at rest; raise what it asks for."""
        growth = self.laws.growth
        self.world.run(PEACE_SECONDS)
        if self.laws.growth != growth and not self._is_short():
            sentence = f"{self.laws.growth - growth} calls for more, at rest"
            raise LawBrokenError(Law.CALM, sentence)
        self._come_to_rest(PEACE_SECONDS)  # what pods taught may still be sinking

    def _come_to_rest(self, seconds: float) -> None:
        wrong: tuple[Law, str] | None = None
        until = self.world.now + seconds
        while self.world.now < until:
            self.world.run(LOOK_SECONDS)
            self._replace_unreachable()
            wrong = next(self.laws.at_rest(self.kubelet), None)
            if wrong is None:
                return
        if wrong is not None:
            raise LawBrokenError(*wrong)

    def _is_short(self) -> bool:
        """Whether some subnet has too little: it is asked again now and then."""
        return bool(self.world.daemon.places.subnets.inhibitions.by_place)

    def _make_peace(self) -> None:
        world = self.world
        world.note("* all faults stop")
        self._is_over = True
        self.weather.clear_up()
        world.imds.hidden.clear()
        world.imds.trouble = world.imds.late = None
        self._withdraw_notice()
        self._tell(unschedulable=False)
        self._calm_cluster()
        world.kernel.crash_after = None
        world.kernel.refuse_after(1 << 30)
        world.kill_at, world.dies_after_lease = None, False
        self._begin()

    def _calm_cluster(self) -> None:
        """Let the API server be there, ENIConfigs be as they were, and an elected sweeper stay."""
        cluster, r = self.world.cluster, random.Random(f"calm {self.history.seed}")
        if cluster is None:
            return
        cluster.set_away(is_away=False)
        cluster.elect(is_elected=Trouble.LEADER in self.history.troubles and r.random() < 0.7)
        for chosen, spec in sorted(self.history.configs.items()):
            changes.put(self, chosen, spec)
        if Trouble.CONFIGS in self.history.troubles:
            changes.name(self, self.history.named[1])
        changes.provision(self)
        self.skew = r.choice((0, 0, MORE_PODS))  # some are bound and never come
        self._recount()

    def _replace_unreachable(self) -> None:
        """Do as probes have kubelet do with pods whose address somebody has taken away."""
        for name, sandbox in sorted(self.kubelet.sandboxes.items()):
            pod = self.world.pods.get(sandbox or "")
            if pod is not None and pod.address is not None and not self.laws.is_reachable(pod):
                self.kubelet.replace(name)

    # Who ---------------------------------------------------------------------------------
    def _pod(self, roll: float) -> str | None:
        names = sorted(self.kubelet.sandboxes)
        return names[int(roll * len(names))] if names else None

    def _eni(self, roll: float) -> Eni | None:
        """Return a secondary ENI."""
        attached = self.world.cloud.attached()
        enis = [eni for eni in attached if eni.attachment and eni.attachment.device_index]
        return enis[int(roll * len(enis))] if enis else None

    def _take_by_hand(self, eni: Eni) -> None:
        self.laws.lost.add(eni.id)
        self.laws.by_hand |= {address for block in eni.blocks for address in block}

    # Pods --------------------------------------------------------------------------------
    def arrive(self, _event: Event) -> None:
        """Let a pod come."""
        if len(self.bound) < self.history.pods:
            self._come()

    def _come(self) -> None:
        """Let a pod come; where pods are told ahead, it is bound some seconds before."""
        self._names += 1
        name = f"p{self._names}"
        if Trouble.BOUND not in self.history.troubles:
            self.kubelet.want(name)
            return
        self._scheduled.add(name)

        def start() -> None:
            self._scheduled.discard(name)
            self.kubelet.want(name)

        self.world.later(self.random.uniform(0.2, 8.0), start)

    def burst(self, event: Event) -> None:
        """Let many come."""
        for _ in range(1 + int(event.roll * self.history.pods)):
            self.arrive(event)

    def leave(self, event: Event) -> None:
        """Let one go."""
        if (name := self._pod(event.roll)) is not None:
            self.kubelet.unwant(name, self._end())

    def _end(self) -> End:
        ends = [End.DEL, End.DEL, End.WITHOUT_NETNS, End.TWICE]
        if Trouble.VANISHING in self.history.troubles:
            ends.append(End.VANISH)
        return self.random.choice(ends)

    def leave_all(self, _event: Event) -> None:
        """Let all go."""
        for name in sorted(self.kubelet.sandboxes):
            self.kubelet.unwant(name, self._end())

    def replace(self, event: Event) -> None:
        """Give one a new sandbox."""
        if (name := self._pod(event.roll)) is not None:
            self.kubelet.replace(name, self._end())

    def ask_again(self, event: Event) -> None:
        """Let an ADD be sent twice."""
        if (name := self._pod(event.roll)) is not None:
            self.kubelet.ask_again(name)

    def time_out(self, event: Event) -> None:
        """Let a runtime lose patience: with what waits, or what comes next."""
        waiting = [call for call in self.world.pending if call.verb == "ADD"]
        if waiting:
            self.kubelet.time_out(waiting[int(event.roll * len(waiting))])
            return
        self.arrive(event)
        for call in [call for call in self.world.pending if call.verb == "ADD"]:
            seconds = self.random.uniform(0, 0.01)
            self.world.later(seconds, partial(self.kubelet.time_out, call))

    def vanish(self, event: Event) -> None:
        """Let a namespace go without a DEL, and its pod with it."""
        if (name := self._pod(event.roll)) is not None:
            self.kubelet.unwant(name, End.VANISH)

    # The daemon --------------------------------------------------------------------------
    def kill(self, event: Event) -> None:
        """Kill the daemon some steps from now."""
        self.world.kill_at = self.world.steps_taken + int(event.roll * 200)

    def kill_in_kernel(self, event: Event) -> None:
        """Kill the daemon behind a step of the kernel."""
        if self.world.life is not None:
            self.world.kernel.crash_after = 1 + int(event.roll * 12)

    def kill_before_answer(self, _event: Event) -> None:
        """Kill the daemon behind the next change of a lease."""
        self.world.dies_after_lease = self.world.life is not None

    def reboot(self, _event: Event) -> None:
        """Restart the node."""
        self.world.kernel.crash_after = None
        self.world.reboot()

    # EC2 ---------------------------------------------------------------------------------
    def _for(self, event: Event, undo: Callable[[], None]) -> None:
        self.world.later(event.seconds, undo)

    def throttle(self, event: Event) -> None:
        """Let EC2 throttle: one action, or all."""
        which = {ACTIONS[int(event.roll * len(ACTIONS))]} if event.roll < 0.7 else set(ACTIONS)
        self.weather.throttled |= which
        self._for(event, lambda: self.weather.throttled.difference_update(which))

    def lose(self, event: Event) -> None:
        """Let calls be done and not answered."""
        self.weather.lose = 0.2 + event.roll * 0.6
        self._for(event, lambda: setattr(self.weather, "lose", 0.0))

    def drop(self, event: Event) -> None:
        """Let calls get lost."""
        self.weather.drop = 0.2 + event.roll * 0.6
        self._for(event, lambda: setattr(self.weather, "drop", 0.0))

    def away(self, event: Event) -> None:
        """Let EC2 not be there."""
        self.weather.away = AWAY[int(event.roll * len(AWAY))]
        self._for(event, lambda: setattr(self.weather, "away", None))

    def deny(self, event: Event) -> None:
        """Let the role lose a permission for a while."""
        action = ACTIONS[int(event.roll * len(ACTIONS))]
        self.weather.denied.add(action)
        self._for(event, lambda: self.weather.denied.discard(action))

    def stale(self, event: Event) -> None:
        """Let descriptions be late."""
        self.weather.stale, self.weather.stale_seconds = 0.5, 1.0 + event.roll * 19.0
        self._for(event, lambda: setattr(self.weather, "stale", 0.0))

    def slow(self, event: Event) -> None:
        """Let answers take long."""
        self.weather.slow = event.roll
        self._for(event, lambda: setattr(self.weather, "slow", 0.0))

    # The node ----------------------------------------------------------------------------
    def imds_hides(self, event: Event) -> None:
        """Let IMDS not tell of all that is there."""
        for eni in self.world.cloud.attached():
            hidden = {str(b) for b in eni.blocks if self.random.random() < 0.6}
            if self.random.random() < 0.3:
                hidden.add(eni.id)
            self.world.imds.hidden |= hidden
        self._for(event, self.world.imds.hidden.clear)

    def imds_away(self, event: Event) -> None:
        """Let IMDS not answer."""
        self.world.imds.trouble = ImdsError
        self._for(event, lambda: setattr(self.world.imds, "trouble", None))

    def refuse(self, event: Event) -> None:
        """Let the kernel refuse one step."""
        self.world.kernel.refuse_after(int(event.roll * 10))

    def disk_full(self, event: Event) -> None:
        """Let the disk take nothing."""
        self.weather.is_disk_full = True
        self._for(event, lambda: setattr(self.weather, "is_disk_full", False))

    def run_full(self, event: Event) -> None:
        """Let the tmpfs of the leases take nothing."""
        self.weather.is_run_full = True
        self._for(event, lambda: setattr(self.weather, "is_run_full", False))

    def clock(self, event: Event) -> None:
        """Set the wall clock."""
        self.world.wall_offset += (event.roll - 0.5) * 7200

    def notice(self, event: Event) -> None:
        """Let AWS have something in mind, and think better of it."""
        spot = Notices(spot_action="terminate")
        self.world.imds.notice = spot if event.roll < 0.5 else Notices(rebalance=True)
        self.laws.leaving_since = self.world.now if event.roll < 0.5 else None
        self._for(event, self._withdraw_notice)

    def _withdraw_notice(self) -> None:
        self.world.imds.notice, self.laws.leaving_since = Notices(), None

    def cordon(self, event: Event) -> None:
        """Let the API server say that the node is cordoned."""
        self._tell(unschedulable=True)
        self._for(event, lambda: self._tell(unschedulable=False))

    def _tell(self, *, unschedulable: bool) -> None:
        cluster = self.world.cluster
        if cluster is None:
            self.world.tell(unschedulable=unschedulable)
        else:
            cluster.is_unschedulable = unschedulable
            cluster.change()
        self.laws.cordoned_since = self.world.now if unschedulable else None

    # Hands -------------------------------------------------------------------------------
    def unassign_by_hand(self, event: Event) -> None:
        """Take a block from an ENI."""
        for eni in self.world.cloud.attached():
            if eni.blocks:
                block = eni.blocks[int(event.roll * len(eni.blocks))]
                self.laws.by_hand |= set(block)
                self._change(lambda eni=eni, block=block: self._unassign(eni.id, block))  # type: ignore[misc]
                return

    def _unassign(self, eni_id: EniId, block: IPv4Network) -> None:
        self.account_cloud.account.unassign_by_hand(eni_id, (block,))

    def _change(self, change: Callable[[], object]) -> None:
        change()
        self.laws.past.record()

    def assign_by_hand(self, event: Event) -> None:
        """Give an ENI a block."""
        limits = self.world.daemon.outlook.limits if self.world.is_serving else None
        eni = self._eni(event.roll)
        if not self.history.settings.provisioning and (eni is None or event.roll < 0.5):
            eni = self.world.cloud.attached()[0]
        if eni and limits and len(eni.blocks) < limits.ipv4_per_eni - 1:
            account = self.account_cloud.account
            if account.census(eni.subnet_id).free:
                self._change(lambda: account.assign_by_hand(eni.id, Kind.SINGLE, 1))

    def detach_by_hand(self, event: Event) -> None:
        """Take an ENI from the instance."""
        if (eni := self._eni(event.roll)) is not None:
            self._take_by_hand(eni)
            self._change(lambda: self.account_cloud.account.detach_by_hand(eni.id))

    def delete_by_hand(self, event: Event) -> None:
        """Take an ENI from the instance, and from the world."""
        if (eni := self._eni(event.roll)) is not None:
            self._take_by_hand(eni)
            self._change(lambda: self.account_cloud.account.delete_by_hand(eni.id))

    def attach_foreign(self, event: Event) -> None:
        """Attach somebody else's ENI."""
        account, node = self.account_cloud.account, self.world.cloud.identity.instance_id
        indexes = {e.attachment.device_index for e in self.world.cloud.attached() if e.attachment}
        free = next(i for i in range(1, 100) if i not in indexes)
        shape = account.vpc.limits(self.history.instance_type)
        if len(indexes) < shape.enis and account.census(self.world.cloud.subnet_id).free > 2:
            self.laws.has_foreign = True
            count = int(event.roll * 2)
            unmanaged = (("node.k8s.amazonaws.com/no_manage", "true"),)
            tags = unmanaged if event.roll < 0.5 else ()
            self._change(
                lambda: account.attach_foreign(node, free, secondary_count=count, tags=tags)
            )

    def host_address(self, event: Event) -> None:
        """Put an address of the pool on a link of the host, as OS agents do."""
        eni = self._eni(event.roll)
        link = next((k for k in self.world.kernel.links if eni and k.mac == eni.mac), None)
        if eni is None or link is None or not eni.blocks:
            return
        address = IPv4Interface((eni.blocks[-1][0], 32))
        if address.ip in self.world.kernel.owners() or address in link.addresses:
            return
        link.addresses.append(address)

        def take_away() -> None:
            if address in link.addresses:
                link.addresses.remove(address)

        self._for(event, take_away)


HAPPENS: Mapping[What, Callable[[Player, Event], None]] = {
    what: getattr(Player, what.value.replace("-", "_"))
    for what in What
    if what not in changes.HAPPENS
} | {**changes.HAPPENS}


def play(seed: int, folder: Path, *, hours: float = 1.0) -> Result:
    """Live the history of *seed*."""
    return Player(draw(seed, hours), folder).play()
