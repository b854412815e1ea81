"""A whole daemon on a real loop and real threads, over a modelled cloud and kernel, and its time.

The API server that it is joined to is real, or a model that talks HTTPS, and takes real time;
the daemon's clock and its loop's run `HASTE` times as fast while it rests, so that what it waits
minutes for is seen in seconds. Nothing of Kubernetes' client is imported here: plain mode does without.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import random
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_interface
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

from cni.frame import Frame
from ipamd.clock import Instant
from ipamd.configuration import Configuration
from ipamd.daemon import Daemon
from ipamd.journal import Journal
from ipamd.leases import Leases
from ipamd.node import follow, join, recall
from ipamd.ports import Ports, Threads
from ipamd.status import Status
from tests.chaos.daemon_side import ModelEars, ModelMender, ModelNet, ModelWiring
from tests.chaos.kernel import Kernel
from tests.chaos.world import ACCOUNT_LIMITS, CONF, EPOCH, ModelCloud, ModelImds

T = TypeVar("T")

HASTE = 200.0

DEADLINE_SECONDS = 110.0
"""The plugin's, of the daemon's time."""

Join = Callable[[Daemon, Configuration], Coroutine[Any, Any, None]]


def poll(fact: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until *fact* holds, in real time."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


# Time ------------------------------------------------------------------------------------
class Clockwork:
    """Seconds that pass at a pace while the daemon rests, and as they are while it works.

    However slow the machine, no work takes longer by this clock than by a real one, and no rest
    longer than it was to be. A request to the API server is no work of the daemon's: its time is
    what it takes at the clock's pace.
    """

    def __init__(self) -> None:
        self.pace = 1.0
        self._lock = threading.Lock()
        self._shown, self._since = 0.0, time.monotonic()
        self._working = 0
        self._end = math.inf

    def now(self) -> float:
        """Return the seconds since it was made."""
        with self._lock:
            return self._now()

    def set_pace(self, pace: float) -> None:
        """Run so many times as fast as a real clock while nobody works."""
        with self._changing():
            self.pace = pace

    @contextlib.contextmanager
    def rest(self, seconds: float | None) -> Iterator[None]:
        """Let a worker rest for so many seconds at most."""
        with self._changing():
            self._working -= 1
            self._end = math.inf if seconds is None else self._shown + seconds
        try:
            yield
        finally:
            with self._changing():
                self._working += 1
                self._end = math.inf

    def start_work(self) -> None:
        """Let somebody work from now on."""
        with self._changing():
            self._working += 1

    def end_work(self) -> None:
        """Let somebody who worked go."""
        with self._changing():
            self._working -= 1

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            self._shown, self._since = self._now(), time.monotonic()
            yield

    def _now(self) -> float:
        pace = 1.0 if self._working else self.pace
        passed = (time.monotonic() - self._since) * pace
        return max(self._shown, min(self._shown + passed, self._end))


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: Clockwork) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        with self._clock.rest(timeout):
            return super().select(timeout and timeout / self._clock.pace)


class HastyLoop(asyncio.SelectorEventLoop):
    """A real loop by another clock."""

    def __init__(self, clock: Clockwork) -> None:
        self._hasty = clock
        clock.start_work()
        super().__init__(_Selector(clock))

    def time(self) -> float:
        """Return the clock's seconds."""
        return self._hasty.now()

    def close(self) -> None:
        """End."""
        if not self.is_closed():
            self._hasty.end_work()
        super().close()


class _Threads(ThreadPoolExecutor):
    """Threads whose work the clock hears of."""

    def __init__(self, clock: Clockwork, name: str, threads: int) -> None:
        super().__init__(threads, name)
        self._clock = clock

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Let a thread do it."""
        self._clock.start_work()
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self._clock.end_work())
        return future


class Locked:
    """Something that one thread uses at a time."""

    def __init__(self, thing: object, lock: threading.RLock) -> None:
        self._thing, self._lock = thing, lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def locked(*arguments: Any, **keywords: Any) -> Any:
            with self._lock:
                return found(*arguments, **keywords)

        return locked


# Calls -----------------------------------------------------------------------------------
class Add:
    """An ADD of a new sandbox; the contract is `ipamd.attachments.Client`'s."""

    numbers = count(1)

    def __init__(self, node: JoinedNode, pod: str = "", uid: str = "") -> None:
        self.id = next(self.numbers)
        self.name = f"pod-{self.id}"
        self.pod = pod = pod or self.name
        self.on_gone: Callable[[], None] = lambda: None
        self._node = node
        with node.lock:
            self.descriptors: tuple[int, ...] = node.kernel.open(node.kernel.new_netns(self.name))
        self._answer: Future[tuple[int, dict[str, Any]]] = Future()
        started = int(node.clock().boot * 1e9)
        who = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_UID={uid or f'{pod}-uid'}"
        self.frame = Frame(
            env={
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": self.name,
                "CNI_NETNS": f"/run/netns/{self.name}",
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": who,
                "CNI_PATH": "/opt/cni/bin",
            },
            stdin=CONF,
            started_ns=started,
            deadline_ns=started + int(DEADLINE_SECONDS * 1e9),
        )

    def is_gone(self) -> bool:
        """It waits."""
        return False

    def reply(self, code: int, stdout: bytes) -> None:
        """Take the answer."""
        self._answer.set_result((code, json.loads(stdout) if stdout else {}))

    def close(self) -> None:
        """Close the descriptors."""
        with self._node.lock:
            self._node.kernel.close(*self.descriptors)

    def error(self) -> str:
        """Return why it was refused."""
        code, answer = self._answer.result(30)
        assert code, f"{self.name} was given {answer}"
        return f"{answer['code']}: {answer['msg']}"

    def address(self) -> IPv4Address:
        """Return the address that it was given."""
        code, answer = self._answer.result(30)
        assert not code, f"{self.name} was refused: {answer}"
        address = ip_interface(answer["ips"][0]["address"]).ip
        assert isinstance(address, IPv4Address)
        return address


class Del(Add):
    """The DEL of a sandbox that an ADD has had; the contract is the same."""

    def __init__(self, node: JoinedNode, former: Add) -> None:
        super().__init__(node, former.pod)
        self.close()
        self.descriptors = ()
        self.name = former.name
        env = {**self.frame.env, "CNI_COMMAND": "DEL", "CNI_CONTAINERID": self.name}
        self.frame = replace(self.frame, env=env)

    def wait(self) -> None:
        """Wait until it is done."""
        assert self._answer.result(30) == (0, {}), self.name


# The node --------------------------------------------------------------------------------
class JoinedNode:
    """One node: its cloud, kernel and disk outlive its daemons."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *subnets: str, seed: int = 1
    ) -> None:
        self.folder, self.environ = folder, environ
        self.config_map = folder / "settings"
        self.config_map.mkdir()
        (folder / "spool").mkdir()
        self.lock = threading.RLock()
        self._clockwork = Clockwork()
        now = self._clockwork.now
        self.cloud = ModelCloud(now, others=dict.fromkeys(subnets, ()))
        self.account = self.cloud.account
        identity, length = self.cloud.identity, self.cloud.subnet_cidr.prefixlen
        self.kernel = Kernel(
            plugged=self.cloud.plugged,
            primary_mac=identity.mac,
            primary=IPv4Interface((identity.primary, length)),
            clock=now,
        )
        self._random = random.Random(seed).random
        self._tokens = count(1)
        self.counted: Counter[str] = Counter()
        self._loop: HastyLoop | None = None

    # Time --------------------------------------------------------------------------------
    def clock(self) -> Instant:
        """Return this moment of the node's."""
        now = self._clockwork.now()
        return Instant(boot=now, wall=EPOCH + now)

    def pass_time(self, seconds: float) -> None:
        """Let so much of the node's time pass."""
        end = self._clockwork.now() + seconds
        poll(lambda: self._clockwork.now() >= end, "the node's time")

    def hurry(self) -> None:
        """Let time pass fast from now on."""
        self._clockwork.set_pace(HASTE)
        self.call(lambda: None)  # the loop sleeps by the former pace

    # Life --------------------------------------------------------------------------------
    def start(self, join: Join | None = None) -> None:
        """Start a daemon, joined by *join* or as a node is; return when it serves.

        Its time passes slowly until somebody is in a hurry.
        """
        self._clockwork.set_pace(1.0)
        self._loop = HastyLoop(self._clockwork)
        self._serves: Future[Daemon] = Future()
        self._thread = threading.Thread(target=self._run, args=(self._loop, join), name="node")
        self._thread.start()
        self.daemon = self._serves.result(30)

    def stop(self) -> None:
        """Stop the daemon, if one runs, as SIGTERM does."""
        loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(30)
            assert self._task.cancelled(), f"the daemon has ended by itself: {self._task}"

    def _run(self, loop: HastyLoop, join: Join | None) -> None:
        self._task = loop.create_task(self._live(join))
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(self._task)
        except BaseException as error:
            if self._serves.done():
                raise
            self._serves.set_exception(error)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    async def _live(self, joined: Join | None) -> None:
        journal = Journal(self.folder / "journal.db")
        notes = recall(journal, self.environ)
        configuration = Configuration(
            self.environ,
            folder=self.config_map,
            labels=notes.labels,
            annotations=notes.annotations,
        )
        leases = Leases(self.folder / "leases.db")
        with contextlib.ExitStack() as stack:
            stack.callback(journal.close)
            stack.callback(leases.close)
            ports = self._ports(stack)
            daemon = Daemon(
                configuration.settings,
                ports,
                journal=journal,
                leases=leases,
                spool_in=self.folder / "spool",
            )
            daemon.on_counted = lambda what, number: self.counted.update({what: number})
            await daemon.start()
            stack.callback(daemon.upkeep.flush)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(daemon.run())
                tasks.create_task(follow(daemon, configuration))
                by = joined(daemon, configuration) if joined else None
                tasks.create_task(by or join(daemon, configuration, self.environ))
                self._serves.set_result(daemon)

    def _ports(self, stack: contextlib.ExitStack) -> Ports:
        def pool(name: str, threads: int = 1) -> ThreadPoolExecutor:
            return stack.enter_context(_Threads(self._clockwork, name, threads))

        def locked(thing: object) -> Any:
            return Locked(thing, self.lock)

        return Ports(
            imds=locked(ModelImds(self.cloud)),
            make_ec2=lambda region: locked(self.cloud.ec2(region)),
            make_net=lambda: locked(ModelNet(self.kernel)),
            make_wiring=lambda: locked(ModelWiring(self.kernel)),
            make_mender=lambda: locked(ModelMender(self.kernel)),
            make_ears=lambda: ModelEars(self.kernel),
            threads=Threads(
                cloud=pool("cloud", 4),
                net=pool("net"),
                wire=pool("wire"),
                back=pool("back"),
                journal=pool("journal"),
                imds=pool("imds"),
            ),
            clock=self.clock,
            random=self._random,
            new_token=lambda: f"token-{next(self._tokens)}",
            boot_id="boot-1",
            account_limits=ACCOUNT_LIMITS,
        )

    # Questions ---------------------------------------------------------------------------
    def call(self, work: Callable[[], T]) -> T:
        """Return what *work* returns on the daemon's loop."""
        assert self._loop is not None, "no daemon runs"
        done: Future[T] = Future()

        def top() -> None:
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001 - whoever asked shall have it
                done.set_exception(error)

        self._loop.call_soon_threadsafe(top)
        return done.result(30)

    def add(self, pod: str = "", uid: str = "") -> Add:
        """Ask for the address of a new sandbox, of *pod* or of a pod of its own."""
        ask = Add(self, pod, uid)
        self.call(lambda: self.daemon.on_call(ask, ask.frame))
        return ask

    def delete(self, former: Add) -> None:
        """Release the address of a sandbox; return when it cools."""
        ask = Del(self, former)
        self.call(lambda: self.daemon.on_call(ask, ask.frame))
        ask.wait()

    def status(self) -> Status:
        """Return what `enid status` shows."""
        return self.call(self.daemon.status)

    @property
    def modes(self) -> list[str]:
        """What mode the daemon is in."""
        return self.status()["modes"]

    @property
    def troubles(self) -> str:
        """What troubles it, a line each."""
        return "\n".join(self.status()["troubles"])

    @property
    def free(self) -> int:
        """How many addresses pods could have at once."""
        return sum(eni["free"] for eni in self.status()["enis"] if not eni["excluded"])

    def calls(self, action: str) -> int:
        """Return how often EC2 was asked for *action*, by whomever."""
        with self.lock:
            return self.account.calls[action]

    def enis(self) -> Mapping[str, Any]:
        """Return every ENI of the account, by id."""
        with self.lock:
            return {eni.id: eni for eni in self.cloud.enis()}

    def subnet(self, cidr: str) -> str:
        """Return the id of a subnet."""
        found = {str(network): subnet_id for subnet_id, network in self.cloud.subnets.items()}
        return cast("str", found[cidr])

    def fill(self, cidr: str) -> None:
        """Let others have all of a subnet."""
        network = IPv4Network(cidr)
        subnet_id = next(s for s, n in self.cloud.subnets.items() if n == network)
        with self.lock:
            self.account.occupy(subnet_id, [network])
