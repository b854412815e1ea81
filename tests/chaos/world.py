"""One node's whole life in virtual time: its cloud, kernel, disk and runtime outlive its daemons.

A `World` owns what a kill does not take: the cloud (a model, or the embedded EC2 by real
boto3), the modelled kernel, two sqlite files, and the pods that a runtime wants. A daemon is
started on a loop of its own and may be killed at any step of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cni.frame import Frame, encode
from eni.errors import EniError
from eni.model import (
    NO_ENIS,
    Eni,
    Identity,
    ImdsEni,
    InstanceId,
    Network,
    Notices,
    SubnetId,
    VpcId,
)
from ipamd import account_limits
from ipamd.clock import Instant
from ipamd.daemon import Daemon
from ipamd.journal import Journal
from ipamd.leases import Leases
from ipamd.plan import loop as virtual
from ipamd.plan.cloud import Account
from ipamd.plan.loop import Delay, Thread, VirtualLoop
from ipamd.ports import CountedEc2, Ports, Threads
from ipamd.settings import Settings
from tests.chaos.daemon_side import ModelEars, ModelMender, ModelNet, ModelWiring
from tests.chaos.kernel import Kernel, KilledError, Netns

if TYPE_CHECKING:  # who plays plain mode loads nothing of a cluster
    from tests.chaos.cluster_side import ModelCluster

EPOCH = 1_790_000_000.0
"""What the wall clock shows when a world begins."""

CONF = json.dumps({"cniVersion": "1.0.0", "name": "enid", "type": "enid-cni"}).encode()

ACCOUNT_LIMITS = account_limits.shipped()

DEADLINE_SECONDS = 110.0
"""The plugin's."""

MAX_SPOOLED = 256
"""The plugin's."""

NO_SUBNETS: Mapping[str, Iterable[tuple[str, str]]] = {}

TAIL = 400
"""Lines of a trace that are kept."""


class Trace:
    """What happened, line by line: a digest of all of it, and the last lines."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._digest = hashlib.sha256()
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.tell = tell
        self.lines = 0

    def append(self, line: str) -> None:
        """Write a line."""
        self._digest.update(line.encode() + b"\n")
        self.tail.append(line)
        self.lines += 1
        if self.tell is not None:
            self.tell(line)

    @property
    def hash(self) -> str:
        """The digest of every byte."""
        return self._digest.hexdigest()


class EndedError(Exception):
    """The daemon has ended by itself, which it must not."""


class Observer:
    """Whoever wants to know what happens in a world; every method may be left as it is."""

    def on_step(self) -> None:
        """Know that the daemon is about to take a step."""

    def on_answer(self, call: Call, code: int, answer: Mapping[str, Any]) -> None:
        """Know how a call was answered; by the plugin itself if the daemon did not."""

    def on_late(self, call: Call) -> None:
        """Know that an ADD or DEL reaches its deadline unanswered."""

    def on_killed(self) -> None:
        """Know that the daemon was killed."""

    def on_rebooted(self) -> None:
        """Know that the node was."""


class Cloud(Protocol):
    """The AWS of one node."""

    identity: Identity
    vpc_id: VpcId
    subnet_id: SubnetId
    subnet_cidr: IPv4Network
    vpc_cidr: IPv4Network

    def ec2(self, region: str) -> CountedEc2:
        """Return a client for a daemon."""

    def plugged(self) -> Collection[str]:
        """Return the MACs that the instance has a link of."""

    def attached(self) -> tuple[Eni, ...]:
        """Return what is attached, without anybody counting."""

    def enis(self) -> tuple[Eni, ...]:
        """Return every ENI of the account."""


class ModelCloud:
    """`ipamd.plan.cloud`, on the world's clock."""

    vpc_id = VpcId("vpc-00000000000000001")
    vpc_cidr = IPv4Network("10.0.0.0/16")

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        instance_type: str = "m5.large",
        subnet: str = "10.0.0.0/20",
        occupied: Iterable[IPv4Network] = (),
        others: Mapping[str, Iterable[tuple[str, str]]] = NO_SUBNETS,
        instance_id: str = "i-0000000000000000a",
        **account: Any,
    ) -> None:
        self.account = Account(clock, **account)
        self.subnet_cidr = IPv4Network(subnet)
        self.zone = zone = "us-east-1a"
        self.subnet_id = self.account.add_subnet(self.subnet_cidr, zone, occupied=occupied)
        self.subnets = {self.subnet_id: self.subnet_cidr}
        for cidr, tags in others.items():
            subnet_id = self.account.add_subnet(IPv4Network(cidr), zone, tags=tags)
            self.subnets[subnet_id] = IPv4Network(cidr)
        self._node = self.account.node(InstanceId(instance_id), instance_type, self.subnet_id)
        primary = self._attached(InstanceId(instance_id))[0]
        assert primary.primary is not None
        self.identity = Identity(
            instance_id=InstanceId(instance_id),
            instance_type=instance_type,
            region="us-east-1",
            availability_zone=zone,
            mac=primary.mac,
            primary=primary.primary,
        )

    def ec2(self, region: str) -> CountedEc2:
        """Return the node's client."""
        del region
        return self._node

    def plugged(self) -> Collection[str]:
        """Return the MACs that the instance has a link of."""
        return self.account.plugged(self.identity.instance_id)

    def _attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """Return what is attached, also what descriptions do not tell of yet."""
        return tuple(
            eni
            for eni in self.enis()
            if eni.attachment and eni.attachment.instance_id == instance_id
        )

    def attached(self) -> tuple[Eni, ...]:
        """Return what is attached, without anybody counting."""
        return self._attached(self.identity.instance_id)

    def enis(self) -> tuple[Eni, ...]:
        """Return every ENI of the account."""
        self.account.vpc.settle()
        return tuple(self.account.enis())


CHANGING, KEYS = ("addresses", "ipv6s", "prefixes", "security_groups"), 13
"""What is read of an ENI each time (prefixes have two keys), and how many keys it has."""


@dataclass(slots=True)
class ModelImds:
    """IMDS of the node: what the cloud has, and what somebody hid of it."""

    cloud: Cloud
    notice: Notices = field(default_factory=Notices)
    trouble: type[EniError] | None = None
    hidden: set[str] = field(default_factory=set)
    """Ids of ENIs, addresses and prefixes that IMDS does not tell of."""
    late: tuple[Eni, ...] | None = None
    """What it still tells of, whatever is attached by now."""
    cidrs: Mapping[SubnetId, IPv4Network] = field(default_factory=dict)
    """Of other subnets than the primary ENI's."""
    keys_read: int = 0
    """Of ENIs, as the real one has them."""
    _told: dict[str, tuple[Eni, ImdsEni]] = field(default_factory=dict)
    """What was told of an ENI from which nothing was hidden."""

    def forget(self) -> None:
        """Make what it tells anew: something of the cloud has changed that no ENI shows."""
        self._told.clear()

    def identity(self) -> Identity:
        """Return who this instance is."""
        self._fail()
        return self.cloud.identity

    def notices(self) -> Notices:
        """Return what AWS is about to do."""
        self._fail()
        return self.notice

    def enis(self, known: Mapping[str, ImdsEni] = NO_ENIS) -> tuple[ImdsEni, ...]:
        """Return the attached ENIs; of those in *known* only what changes is read."""
        self._fail()
        told = self.cloud.attached() if self.late is None else self.late
        enis = (self._eni(eni) for eni in told if eni.id not in self.hidden)
        return tuple(self._read(eni, known) for eni in enis)

    def _read(self, eni: ImdsEni, known: Mapping[str, ImdsEni]) -> ImdsEni:
        lasting = known.get(eni.mac)
        self.keys_read += len(CHANGING) if lasting else KEYS
        if lasting is None:
            return eni
        return replace(lasting, **{name: getattr(eni, name) for name in CHANGING})

    def _eni(self, eni: Eni) -> ImdsEni:
        if self.hidden:
            return self._make(eni)
        of, told = self._told.get(eni.id, (None, None))
        if told is None or of is not eni:
            told = self._make(eni)
            self._told[eni.id] = eni, told
        return told

    def _make(self, eni: Eni) -> ImdsEni:
        assert eni.attachment is not None
        assert eni.primary is not None
        shown: list[Network] = [b for b in eni.blocks if str(b) not in self.hidden]
        singles = (b.network_address for b in shown if b.prefixlen == 32)
        return ImdsEni(
            id=eni.id,
            mac=eni.mac,
            device_index=eni.attachment.device_index,
            vpc_id=self.cloud.vpc_id,
            subnet_id=eni.subnet_id,
            subnet_cidr=self.cidrs.get(eni.subnet_id, self.cloud.subnet_cidr),
            vpc_cidrs=(self.cloud.vpc_cidr,),
            addresses=(eni.primary, *(a for a in singles if isinstance(a, IPv4Address))),
            prefixes=tuple(b for b in shown if b.prefixlen != 32),
            security_groups=eni.security_groups,
        )

    def _fail(self) -> None:
        if self.trouble is not None:
            raise self.trouble("a fault of the world", action="imds")


@dataclass(slots=True, eq=False)
class Pod:
    """One sandbox, and what its runtime knows of it."""

    name: str
    netns: Netns
    address: IPv4Address | None = None
    """From an ADD that was answered."""
    is_deleted: bool = False
    """Whether its runtime has asked for its end, or ended it without asking."""
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    waited: float | None = None


class Call:
    """A frame on its way; the contract is `ipamd.attachments.Client`'s."""

    def __init__(self, world: World, pod: Pod, verb: str, *, with_netns: bool) -> None:
        self.id = world.next_id()
        self.pod, self.verb, self.with_netns = pod, verb, with_netns
        self.on_gone: Callable[[], None] = _nobody
        self._world = world
        self.since = world.now
        self.descriptors: tuple[int, ...] = ()
        self.holds = with_netns and pod.netns.is_named
        """Whether it has the pod's namespace open, from its start to its end."""
        if self.holds:
            world.kernel.hold(pod.netns)
        started = int(world.boot() * 1e9)
        who = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name};K8S_POD_UID={pod.name}-uid"
        self.frame = Frame(
            env={
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": pod.name,
                "CNI_NETNS": f"/run/netns/{pod.name}" if with_netns else "",
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": who,
                "CNI_PATH": "/opt/cni/bin",
            },
            stdin=CONF,
            started_ns=started,
            deadline_ns=started + int(DEADLINE_SECONDS * 1e9),
        )

    def send(self, daemon: Daemon) -> None:
        """Let the daemon take the frame from its socket."""
        daemon.on_call(self, self.frame)

    def write(self) -> None:
        """Write the frame to the socket, with descriptors: they are on their way from now on."""
        if self.holds:
            self.descriptors = self._world.kernel.open(self.pod.netns)

    def hang_up(self) -> None:
        """Go away before the answer."""
        if self in self._world.pending:
            self._world.note(f"{self.verb} {self.pod.name} hangs up")
            self._world.leave(self)
            self.go()

    def is_gone(self) -> bool:
        """Whether it has hung up."""
        return self not in self._world.pending

    def go(self) -> None:
        """Let the daemon see the end of the connection, when its loop comes to it."""
        if self._world.life is not None:
            self._world.life.loop.call_soon(self._gone)

    def _gone(self) -> None:
        self.on_gone()

    def reply(self, code: int, stdout: bytes) -> None:
        """Note the answer, if somebody waits for it."""
        if self in self._world.pending and not self._world.is_dying:
            self._world.answered(self, code, json.loads(stdout) if stdout else {})

    def close(self) -> None:
        """Close the descriptors."""
        self._world.kernel.close(*self.descriptors)
        self.descriptors = ()

    def forget_daemon(self) -> None:
        """Be as before it was sent: the daemon died, and with it what it had open."""
        self.on_gone, self.descriptors = _nobody, ()


def _nobody() -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Life:
    """One daemon's life."""

    loop: VirtualLoop
    daemon: Daemon
    task: asyncio.Task[None]
    since: float
    serving_since: float | None = None

    @property
    def is_serving(self) -> bool:
        """Whether it listens."""
        return self.serving_since is not None


class World:
    """Everything of one node, and of time."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: Settings | None = None,
        seed: int | str = 0,
        make_cloud: Callable[[Callable[[], float]], Cloud] = ModelCloud,
        wrap: Callable[[CountedEc2], CountedEc2] = lambda ec2: ec2,
        latency: Callable[[Callable[..., object], tuple[object, ...]], Delay] | None = None,
        make_journal: Callable[[Path], Journal] = Journal,
        make_leases: Callable[[Path], Leases] = Leases,
        observer: Observer | None = None,
    ) -> None:
        self.folder, self.settings = folder, settings or Settings()
        self.settings_held: list[tuple[float, Settings]] = [(0.0, self.settings)]
        """Which settings held, and since when."""
        self.cluster: ModelCluster | None = None
        self.random = random.Random(seed)
        self.wrap, self.make_journal, self.make_leases = wrap, make_journal, make_leases
        self.latency = latency or (lambda _work, _arguments: Delay(0.0005, 0.0005))
        self.observer = observer or Observer()
        self._time = 0.0
        self.wall_offset = 0.0
        self.boots = 1
        self.steps_taken = 0
        """Of all lives together."""
        self.kill_at: int | None = None
        """Before which step the daemon is killed."""
        self.dies_after_lease = False
        """Whether the daemon dies behind the next change of a lease."""
        self.is_dying = False
        self._ids = self._tokens = self._number = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.life: Life | None = None
        self.told: dict[str, Any] = {}
        """What the cluster has to say of the node, to each daemon anew."""
        self.pods: dict[str, Pod] = {}
        self.pending: list[Call] = []
        self.codes: Counter[int] = Counter()
        self.trace = Trace()
        self.cloud = make_cloud(lambda: self.now)
        self.kernel = Kernel(
            plugged=self.cloud.plugged,
            primary_mac=self.cloud.identity.mac,
            primary=IPv4Interface((self.cloud.identity.primary, self.cloud.subnet_cidr.prefixlen)),
            clock=lambda: self.now,
        )
        self.imds = ModelImds(self.cloud)

    # Time ------------------------------------------------------------------------------
    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self._time if self.life is None else self.life.loop.time()

    def boot(self) -> float:
        """Return CLOCK_BOOTTIME."""
        return self.kernel.boot_seconds()

    def clock(self) -> Instant:
        """Return this moment as the node's two clocks show it."""
        now = self.now
        return Instant(boot=now - self.kernel.booted, wall=EPOCH + now + self.wall_offset)

    def next_id(self) -> int:
        """Return a new number."""
        self._ids += 1
        return self._ids

    def _token(self) -> str:
        self._tokens += 1
        return f"token-{self._tokens:06d}"

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do *action* in so many seconds, whoever lives then; equal times in their order."""
        when = self.now + seconds
        self._number += 1
        heapq.heappush(self._agenda, (when, self._number, action))
        if self.life is not None:
            self.life.loop.end_by(when)

    def run(self, seconds: float) -> None:
        """Let time pass, and what is planned for it come."""
        until = self.now + seconds
        while True:
            while self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()
            if self.now >= until:
                return
            self._pass(min(until, self._agenda[0][0] if self._agenda else until))

    def _pass(self, until: float) -> None:
        """Run until then, or until something is planned for earlier; a kill may happen in it."""
        if self.life is None:
            self._time = max(self._time, until)
            return
        try:
            self.life.loop.run_until(until)
        except KilledError:
            self.kill()
        except SystemExit as error:
            raise EndedError(f"the daemon has ended by itself, with {error.code}") from error
        else:
            self._check_task()

    def _on_step(self, _number: int) -> None:
        if self.is_dying or (self.kill_at is not None and self.steps_taken >= self.kill_at):
            self.kill_at = None
            raise KilledError("killed between two steps")
        self.steps_taken += 1
        self.observer.on_step()

    # Lives -----------------------------------------------------------------------------
    def start(self, seconds: float = 1.0) -> None:
        """Start a daemon, and give it time to serve."""
        self.begin()
        self.run(seconds)

    def begin(self) -> None:
        """Start a daemon over what there is."""
        assert self.life is None
        loop = VirtualLoop(
            start=self._time, latency=self.latency, fatal=(KilledError,), on_step=self._on_step
        )
        run = self.folder / f"run-{self.boots}"
        (run / "spool").mkdir(parents=True, exist_ok=True)
        journal = self.make_journal(self.folder / "journal.db")
        if self.cluster is not None:
            self.hold(self.cluster.configure(journal))
        daemon = Daemon(
            self.settings,
            self._ports(loop),
            journal=journal,
            leases=self.make_leases(run / "leases.db"),
            spool_in=run / "spool",
        )
        self.life = Life(loop, daemon, loop.create_task(self._live(daemon)), self._time)
        self.note("started")

    def _ports(self, loop: VirtualLoop) -> Ports:
        return Ports(
            imds=self.imds,
            make_ec2=lambda region: self.wrap(self.cloud.ec2(region)),
            make_net=lambda: ModelNet(self.kernel),
            make_wiring=lambda: ModelWiring(self.kernel),
            make_mender=lambda: ModelMender(self.kernel),
            make_ears=lambda: ModelEars(self.kernel),
            threads=Threads(
                cloud=virtual.Threads(loop),
                net=Thread(loop),
                wire=Thread(loop),
                back=Thread(loop),
                journal=Thread(loop),
                imds=Thread(loop),
            ),
            clock=self.clock,
            random=self.random.random,
            new_token=self._token,
            boot_id=f"boot-{self.boots}",
            account_limits=ACCOUNT_LIMITS,
        )

    async def _live(self, daemon: Daemon) -> None:
        await daemon.start()
        daemon.outlook.hear(replace(daemon.outlook.told, **self.told))
        self._alive().serving_since = self.now
        self.note("serving")
        daemon.upkeep.drain()
        for call in tuple(self.pending):  # plugins that were refused try again
            call.write()
            call.send(daemon)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(daemon.run())
            if self.cluster is not None:
                tasks.create_task(self.cluster.join(daemon))

    def hold(self, settings: Settings) -> None:
        """Note by which settings the daemon is to work from now on."""
        if settings != self.settings:
            self.note("other settings")
            self.settings = settings
            self.settings_held.append((self.now, settings))

    def tell(self, **what: Any) -> None:
        """Let the cluster say something else of the node."""
        self.told |= what
        if self.is_serving:
            outlook = self.daemon.outlook
            outlook.hear(replace(outlook.told, **what))

    def die(self) -> None:
        """Let the daemon be killed here: what its step still says, nobody hears."""
        self.is_dying = True

    def kill(self) -> None:
        """Kill -9: nothing of the daemon runs any more, and what it had open is closed."""
        life = self._alive()
        self._time = life.loop.time()
        life.loop.abandon()
        self.life, self.is_dying = None, False
        self.kernel.end_process()
        life.daemon.journal.close()
        life.daemon.leases.close()
        self.note("killed")
        self.observer.on_killed()
        for call in tuple(self.pending):
            call.forget_daemon()
            if call.verb == "DEL":
                self.spool(call)

    def reboot(self, seconds: float = 20.0) -> None:
        """Lose the kernel and the tmpfs; every pod is gone, without a DEL."""
        if self.life is not None:
            self.kill()
        self.pending.clear()
        self.pods.clear()
        self._time += seconds
        self.kernel.reboot()
        self.boots += 1
        self.note("rebooted")
        self.observer.on_rebooted()

    def _alive(self) -> Life:
        assert self.life is not None, "no daemon runs"
        return self.life

    @property
    def daemon(self) -> Daemon:
        """The daemon that runs."""
        return self._alive().daemon

    @property
    def is_serving(self) -> bool:
        """Whether a daemon listens."""
        return self.life is not None and self.life.is_serving

    def _check_task(self) -> None:
        task = self._alive().task
        if task.done() and not task.cancelled():
            error = task.exception()
            raise EndedError(f"the daemon has ended by itself: {error!r}") from error

    # The runtime -----------------------------------------------------------------------
    def add(self, name: str) -> Call:
        """Make a sandbox, if it is not there, and ask for its address."""
        pod = self.pods.get(name) or Pod(name, self.kernel.new_netns(name))
        self.pods[name] = pod
        return self.submit(Call(self, pod, "ADD", with_netns=True))

    def delete(self, name: str, *, with_netns: bool = True) -> Call:
        """Take a sandbox down: DEL, and then its namespace goes."""
        pod = self.pods[name]
        pod.is_deleted = True
        return self.submit(Call(self, pod, "DEL", with_netns=with_netns))

    def vanish(self, name: str) -> None:
        """Let a sandbox's namespace go without a DEL, as a runtime that lost its state does."""
        pod = self.pods.pop(name)
        pod.is_deleted = True
        for call in [call for call in self.pending if call.pod is pod]:
            call.hang_up()
        self.kernel.delete_netns(pod.netns)
        self.note(f"{name} vanishes")

    def submit(self, call: Call) -> Call:
        """Let a plugin call, or spool its DEL."""
        self.note(f"{call.verb} {call.pod.name}")
        self.pending.append(call)
        self.later(DEADLINE_SECONDS, lambda: self._time_out(call))
        life = self.life
        if life is not None and life.is_serving:
            call.write()
            life.loop.call_soon(call.send, life.daemon)
        elif call.verb == "DEL":
            self.spool(call)
        return call

    def spool(self, call: Call) -> None:
        """Leave a DEL for a daemon that is away, as the plugin does."""
        folder = self.folder / f"run-{self.boots}" / "spool"
        folder.mkdir(parents=True, exist_ok=True)
        if len(list(folder.iterdir())) >= MAX_SPOOLED:
            self.answered(call, 1, {"code": 11, "msg": "the spool is full"})
            return
        self.write_file(call)
        self.answered(call, 0, {})

    def write_file(self, call: Call) -> None:
        """Leave a frame in the spool."""
        name = f"{call.pod.name}.eth0.{call.frame.started_ns}"
        (self.folder / f"run-{self.boots}" / "spool" / name).write_bytes(encode(call.frame))

    def _time_out(self, call: Call) -> None:
        if call in self.pending:
            self.observer.on_late(call)
            self.note(f"{call.verb} {call.pod.name} times out")
            self.leave(call)
            call.go()
            self._tell(call, 1, {"code": 11, "msg": "ipamd did not answer"})

    def leave(self, call: Call) -> None:
        """Let a plugin end."""
        self.pending.remove(call)
        if call.holds:
            call.holds = False
            self.kernel.let_go(call.pod.netns)

    def answered(self, call: Call, code: int, answer: dict[str, Any]) -> None:
        """Note what a daemon answered."""
        self.leave(call)
        pod = call.pod
        if call.verb == "ADD" and code == 0:
            pod.address = IPv4Address(answer["ips"][0]["address"].partition("/")[0])
            pod.waited = self.now - call.since
            self.note(f"{pod.name} has {pod.address}")
        elif call.verb == "DEL" and code == 0:
            self.kernel.delete_netns(pod.netns)
            if self.pods.get(pod.name) is pod:
                del self.pods[pod.name]
            self.note(f"{pod.name} is gone")
        else:
            why = str(answer.get("msg")).replace(str(self.folder), "")  # another in each run
            self.note(f"{call.verb} {pod.name} refused: {why}")
        self._tell(call, code, answer)

    def _tell(self, call: Call, code: int, answer: dict[str, Any]) -> None:
        call.pod.answers.append((code, answer))
        self.codes[int(answer.get("code", 0)) if code else 0] += 1
        self.observer.on_answer(call, code, answer)

    def note(self, what: str) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{self.now:.4f} {what}")

    @property
    def living(self) -> tuple[Pod, ...]:
        """Pods that were given an address and were not asked to go."""
        return tuple(p for p in self.pods.values() if p.address is not None and not p.is_deleted)
