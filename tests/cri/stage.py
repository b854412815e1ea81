"""What the rows play on: two nodes with containerd, plugin and daemon, pods by the CRI. Shell."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

from ipamd.status import Status
from tests.cri.client import IMAGE, READY, Cri, CriError, PodSpec
from tests.lab.starts import FILES, STARTS, Start
from tests.lab.test_daemon import Ipamd
from vpclab.containerd import SOCKET, Containerd, Release, poll
from vpclab.enid import prepare
from vpclab.netns import Worker
from vpclab.runtime import BIN_DIR, CONF_DIR, Runtime
from vpclab.runtime import CONFLIST as SHIPPED

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node

RECORDER = Path(__file__).parent / "recorder.py"
FOLDER = "/run/recorder"
FIFO = f"{FOLDER}/hold"
FROM_SOURCE = "1.6-debian12"
"""Here the plugin is its source, with the others one static file, where `make plugin` has built it."""

SETTINGS = {"WARM_ENI_TARGET": "0", "IP_COOLDOWN_PERIOD": "1"}
"""A pool on one ENI at first, and addresses that are soon free again: a row has them all."""

RECONCILE_SECONDS = 60.0
"""A pod that only the kernel can tell to be gone is released after two looks, some 30 s apart."""


@dataclass(frozen=True, slots=True)
class Call:
    """One exec of the plugin, as the recorder has noted it."""

    verb: str
    env: Mapping[str, str]
    argv: list[str]
    stdin: str
    pid: int
    uid: int
    netns: str
    cwd: str
    session: int
    cgroup: str

    @property
    def plugin(self) -> str:
        """The plugin's name."""
        return Path(self.argv[0]).name

    @property
    def conf(self) -> dict[str, Any]:
        """What stood on stdin."""
        found: dict[str, Any] = json.loads(self.stdin)
        return found

    @property
    def args(self) -> dict[str, str]:
        """CNI_ARGS, whose order is any."""
        return dict(word.split("=") for word in self.env["CNI_ARGS"].split(";"))

    @property
    def container_id(self) -> str:
        """The sandbox; none for STATUS."""
        return self.env.get("CNI_CONTAINERID", "")

    @property
    def shape(self) -> str:
        """The verb, and what a DEL lacks: "DEL, no netns, no prevResult"."""
        if self.verb != "DEL":
            return self.verb
        lacks = [] if self.env["CNI_NETNS"] else ["no netns"]
        lacks += [] if "prevResult" in self.conf else ["no prevResult"]
        return ", ".join(["DEL", *lacks])


def start_of(release: Release) -> Start:
    """Return the plugin that is installed for *release*."""
    built = [file for file in FILES if not file.lacks and not file.is_emulated]
    return built[0] if built and release.name != FROM_SOURCE else STARTS[0]


@dataclass(slots=True)
class Pod:
    """A pod that runs, as its node's runtime knows it."""

    machine: Machine
    spec: PodSpec
    sandbox: str
    _worker: Worker | None = None

    @property
    def address(self) -> str:
        """Its address, as kubelet hears of it."""
        return self.machine.cri.address(self.sandbox)

    @property
    def pid(self) -> int:
        """The process that keeps the sandbox."""
        return int(self.machine.cri.info(self.sandbox)["pid"])

    @property
    def calls(self) -> list[Call]:
        """The plugin's calls for it."""
        return [c for c in self.machine.calls() if c.container_id == self.sandbox]

    @property
    def shapes(self) -> list[str]:
        """The plugin's calls for it, shortly."""
        return [call.shape for call in self.calls]

    @property
    def is_leased(self) -> bool:
        """Whether the daemon holds an address for it."""
        return self.sandbox in self.machine.leases()

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket:
        """Return a socket that lives in the pod."""
        if self._worker is None:
            descriptor = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._worker = Worker(self.spec.name[:15], descriptor)
            os.close(descriptor)
            self.machine.workers.append(self._worker)
        return self._worker.socket(family, kind, protocol)

    def run(self, *argv: str) -> str:
        """Run a program in a container of the pod; return what it printed."""
        container = self.machine.cri.start(self.sandbox, self.spec)
        code, said = self.machine.cri.exec(container, argv)
        assert code == 0, said
        return said

    def stop(self) -> None:
        """Stop it, as kubelet does: again and again is once."""
        self.machine.cri.stop(self.sandbox)

    def remove(self) -> None:
        """Remove it."""
        self.machine.cri.remove(self.sandbox)

    def end(self) -> None:
        """Stop and remove it."""
        self.stop()
        self.remove()


class Machine:
    """One node, with its containerd, its daemon and its plugin."""

    def __init__(self, node: Node, release: Release, folder: Path) -> None:
        self.node, self.release = node, release
        prepare(node)
        log = folder / f"{node.name}-containerd.log"
        self.containerd = Containerd(node, release, log, IMAGE, is_up=self._answers)
        self.cri = Cri(node.path(SOCKET), self.containerd.cgroup)
        self.ipamd = Ipamd(node, folder / f"{node.name}-ipamd.log", **SETTINGS)
        self.start = start_of(release)
        self.workers: list[Worker] = []
        self._pool = ThreadPoolExecutor(16)
        node.path(FOLDER).mkdir()
        os.mkfifo(node.path(FIFO))
        self.install()

    def close(self) -> None:
        """End what runs."""
        self._pool.shutdown()
        self.ipamd.close()
        self.cri.close()
        self.containerd.close()

    def _answers(self) -> bool:
        with contextlib.suppress(CriError):
            self.cri.version()
            return True
        return False

    @property
    def described(self) -> str:
        """Say what runs."""
        return f"containerd {self.cri.version()}, plugin: {self.start.name}"

    # The plugin --------------------------------------------------------------------------
    @property
    def plugin(self) -> Path:
        """Where the runtime looks for the plugin."""
        return self.node.path(BIN_DIR) / "enid-cni"

    @property
    def conflist(self) -> Path:
        """Where the conflist is."""
        return self.node.path(CONF_DIR) / SHIPPED.name

    def install(self) -> None:
        """Install plugin and conflist as the init container does, with the recorder before it."""
        self.uncover()
        self.cover(self.plugin.name)

    def cover(self, name: str) -> None:
        """Have the recorder stand before the plugin of this *name*; before one of none, alone."""
        file = self.plugin.with_name(name)
        if file.exists():
            shutil.move(file, self.node.path(FOLDER) / name)
        file.write_text(f"#!{sys.executable} -IS\n{RECORDER.read_text()}")
        file.chmod(0o755)

    def uncover(self) -> None:
        """Install plugin and conflist with nothing before the plugin: calls are not noted."""
        Runtime(self.node).install(plugin=None if self.start is STARTS[0] else self.start.file)

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit the conflist, and wait until the runtime has loaded it."""
        wanted: dict[str, Any] = json.loads(SHIPPED.read_text())
        change(wanted)
        self.put(self.conflist.name, json.dumps(wanted))
        poll(lambda: wanted == self.loaded(), "the runtime has loaded the conflist")

    def put(self, name: str, text: str) -> None:
        """Put a file into the conflists' folder, as it should be done: draft, rename."""
        draft = self.conflist.with_name(f".{name}.tmp")
        draft.write_text(text)
        draft.rename(self.conflist.with_name(name))

    def loaded(self) -> object:
        """Return the conflist as the runtime has loaded it."""
        networks = json.loads(self.cri.network() or "{}").get("Networks") or []
        sources = [json.loads(n["Config"]["Source"]) for n in networks if n["IFName"] == "eth0"]
        return sources[0] if sources else None

    def all_calls(self) -> list[Call]:
        """Return the calls so far of every plugin that the recorder stands before."""
        path = self.node.path(FOLDER) / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Call(**json.loads(line)) for line in lines]

    def calls(self) -> list[Call]:
        """Return our plugin's calls so far."""
        return [call for call in self.all_calls() if call.plugin == self.plugin.name]

    def verbs(self) -> list[str]:
        """Return the verbs so far."""
        return [call.verb for call in self.calls()]

    def shapes(self) -> list[str]:
        """Return the calls so far, shortly."""
        return [call.shape for call in self.calls()]

    def is_running(self, call: Call) -> bool:
        """Whether the process of *call*, which has become the plugin, is there."""
        stat = Path(f"/proc/{call.pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

    def order(self, verb: str, *, of: str = "enid-cni", **order: object) -> None:
        """Order what a plugin does at the next calls of *verb*; see the recorder."""
        self._order_file(verb, of).write_text(json.dumps(order))

    def _order_file(self, verb: str, of: str = "enid-cni") -> Path:
        return self.node.path(FOLDER) / f"order.{of}.{verb}"

    def forget_orders(self) -> None:
        """Let the plugin be itself again."""
        for path in self.node.path(FOLDER).glob("order.*"):
            path.unlink()

    @contextlib.contextmanager
    def holding(self, verb: str, **order: object) -> Iterator[Callable[[], None]]:
        """Have the plugin wait at *verb*; what is given waits until one does.

        Afterwards those that wait go on.
        """
        self._order_file(verb).write_text(json.dumps({**order, "hold": FIFO}))
        end: list[int] = []

        def wait() -> None:
            def is_held() -> bool:
                with contextlib.suppress(OSError):  # nobody reads yet
                    end.append(os.open(self.node.path(FIFO), os.O_WRONLY | os.O_NONBLOCK))
                return bool(end)

            poll(lambda: verb in self.verbs(), f"{verb} is called")
            poll(is_held, f"{verb} waits")

        try:
            yield wait
        finally:
            self._order_file(verb).unlink()
            for descriptor in end:
                os.close(descriptor)

    @contextlib.contextmanager
    def daemon(self, **env: str) -> Iterator[None]:
        """Have the daemon run with other settings meanwhile."""
        former = dict(self.ipamd.env)
        self.ipamd.env.update(env)
        self.ipamd.kill()
        self.ipamd.start()
        try:
            yield
        finally:
            self.clear()
            self.ipamd.kill()
            self.ipamd.env.clear()
            self.ipamd.env.update(former)
            self.ipamd.start()

    # Pods --------------------------------------------------------------------------------
    def run(self, spec: PodSpec | str, deadline: float = 60) -> Pod:
        """Run a pod. Raises CriError."""
        spec = PodSpec(spec) if isinstance(spec, str) else spec
        return Pod(self, spec, self.cri.run(spec, deadline))

    def begin(self, spec: PodSpec | str, deadline: float = 60) -> Future[Pod]:
        """Begin to run a pod."""
        return self._pool.submit(self.run, spec, deadline)

    def in_background(self, work: Callable[[], None]) -> Future[None]:
        """Begin *work*."""
        return self._pool.submit(work)

    def refused(self, spec: PodSpec | str, deadline: float = 60) -> str:
        """Return why a pod is not run."""
        try:
            pod = self.run(spec, deadline)
        except CriError as error:
            return str(error)
        raise AssertionError(f"{pod.spec.name} runs, with {pod.address}")

    def known(self) -> list[Pod]:
        """Return the sandboxes that the runtime knows."""
        return [
            Pod(self, PodSpec(told["metadata"]["name"]), sandbox)
            for sandbox, told in self.cri.sandboxes().items()
        ]

    def status(self) -> Status:
        """Return what the daemon says of itself."""
        return self.ipamd.status()

    def leases(self) -> list[str]:
        """Return the sandboxes that have an address."""
        return sorted(lease["container_id"] for lease in self.status()["leases"])

    def veths(self) -> list[str]:
        """Return the links of pods that the node has; its ENIs are veths, too, in the lab."""
        told = self.node.run(["ip", "-br", "link", "show", "type", "veth"]).stdout
        return [line.split("@")[0] for line in told.splitlines() if not line.startswith("ens")]

    def await_nothing(self, seconds: float = 20) -> None:
        """Wait until no address and no link is a pod's."""
        poll(lambda: not self.leases(), "leases are released", seconds)
        poll(lambda: not self.veths(), "veths are removed")

    def clear(self) -> None:
        """Stop and remove all pods; nothing is left of them."""
        self.forget_orders()
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        for sandbox, told in self.cri.sandboxes().items():
            if told["state"] == READY:
                self.cri.stop(sandbox)
            self.cri.remove(sandbox)
        self.await_nothing()
        self.containerd.link_tools()
        self.configure(lambda _: None)
        assert self.containerd.namespaces() == []
        assert self.containerd.results() == []
        (self.node.path(FOLDER) / "calls").unlink(missing_ok=True)


@dataclass(slots=True)
class Stage:
    """Two nodes in two zones."""

    vpc: EmbeddedVPC
    release: Release
    a: Machine
    b: Machine

    @staticmethod
    def raised(
        vpc: EmbeddedVPC, release: Release, folder: Path, exits: contextlib.ExitStack
    ) -> Stage:
        """Return the stage with everything running; *exits* ends it."""
        places = (("cri-a", "10.0.1.0/24", "us-east-1a"), ("cri-b", "10.0.2.0/24", "us-east-1b"))
        machines = []
        for name, cidr, zone in places:
            node = vpc.launch_node(name, "m5.large", vpc.add_subnet(cidr, zone), public=True)
            machine = Machine(node, release, folder)
            exits.callback(machine.close)
            machine.ipamd.start()
            machine.containerd.start()
            machine.containerd.load_image(folder / "image.tar")
            machines.append(machine)
        a, b = machines
        return Stage(vpc, release, a, b)

    def clear(self) -> None:
        """Leave nothing of a test."""
        for machine in (self.a, self.b):
            machine.clear()
