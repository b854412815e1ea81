"""What tests of the cluster share: a daemon's ears, and a network that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ipamd.clock import Instant
from ipamd.cluster import Link, NodeView, PodView
from ipamd.election import Terms
from ipamd.kube import Access, Api
from ipamd.watch import KubeCluster


class Server(Protocol):
    """An API server that tests change as an administrator does: the model, or the real one."""

    port: int
    terms: Terms
    """Terms of an election that this server is quick enough for."""

    @property
    def ca(self) -> Path:
        """The certificate to trust."""

    def start(self) -> None:
        """Start what does not run."""

    def kill(self) -> None:
        """End the server at once; what it has stored stays."""

    def compact(self) -> None:
        """Forget all history, by a restart if need be."""

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Do something; AssertionError if the server does not."""

    def patch(self, path: str, body: object) -> None:
        """Merge *body* into an object."""

    def add_node(self, name: str) -> None:
        """Register a node with room for 29 pods."""

    def add_pod(self, name: str, node: str, *, host_network: bool = False) -> Any:
        """Create a pod that is bound already; return it."""

    def end_pod(self, name: str, phase: str) -> None:
        """Say that a pod's containers have ended."""

    def delete_pod(self, name: str) -> None:
        """Delete a pod."""

    def allow(self, resource: str, *, allowed: bool) -> None:
        """Let the daemon's account do what the rule of *resource* alone says, or no longer."""

    def install_records(self, *, installed: bool) -> None:
        """Know NodeNetworks, or no longer, and then there are none."""

    def new_token(self, name: str) -> str:
        """Return a token of the daemon's account."""

    def revoke(self, name: str) -> None:
        """End a token."""


def poll(fact: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until *fact* holds."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def now() -> Instant:
    """Return this moment."""
    return Instant(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


class Account:
    """A pod's service account files, and the way to the server that they tell."""

    def __init__(self, server: Server, folder: Path, token: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(server.ca.read_bytes())
        (folder / "namespace").write_text("kube-system")
        self.set_token(token)

    def set_token(self, token: str) -> None:
        """Replace the token, as kubelet does."""
        draft = self.folder / "token.new"
        draft.write_text(token)
        draft.replace(self.folder / "token")

    def api(self, port: int) -> Api:
        """Return the API by this port."""
        environ = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(port),
            "NO_PROXY": "127.0.0.1",
        }
        return Api(Access(environ=environ, folder=self.folder))


class Ears:
    """A KubeCluster on a loop of its own, and all that it told."""

    def __init__(
        self,
        api: Api,
        node: str,
        terms: Terms,
        *,
        namespace: str = "kube-system",
        watch_seconds: int = 300,
    ) -> None:
        self.views: list[NodeView] = []
        self.bounds: list[int] = []
        self.leaders: list[bool] = []
        self.led_since = 0.0
        self.nodes: list[int] = []
        self.cluster = KubeCluster(
            api=api, node=node, namespace=namespace, clock=now, jitter=lambda: 0.1,
            terms=terms, watch_seconds=watch_seconds,
        )  # fmt: skip
        self.cluster.on_node = self.views.append
        self.cluster.on_bound = self.bounds.append
        self.cluster.on_leader = self._hear_leader
        self.cluster.on_nodes = self.nodes.append
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="ears")
        self._thread.start()
        assert self._started.wait(5)

    def _hear_leader(self, leads: bool) -> None:  # noqa: FBT001 - the callback's form
        self.leaders.append(leads)
        self.led_since = now().boot

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.ensure_future(self.cluster.run())
        self._started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def stop(self) -> float:
        """Stop; return how long it took."""
        since = time.monotonic()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(30)
        assert not self._thread.is_alive()
        return time.monotonic() - since

    def annotate(self, pod: PodView, annotations: Mapping[str, str]) -> None:
        """Let the daemon annotate a pod. Raises ClusterError."""
        work = self.cluster.annotate(pod, annotations)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    @property
    def view(self) -> NodeView | None:
        """The last view of the node."""
        return self.views[-1] if self.views else None

    @property
    def bound(self) -> int | None:
        """The last number of bound pods."""
        return self.bounds[-1] if self.bounds else None

    @property
    def leads(self) -> bool:
        """What it was told last."""
        return self.leaders[-1:] == [True]

    def is_connected(self) -> bool:
        """Whether it says that all is well."""
        standing = self.cluster.standing
        return standing.link is Link.CONNECTED and not standing.sentence


class Relay:
    """A network between the daemon and the API server: it carries, or it refuses."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._up = True
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._serve, name="relay", daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._up = False
        for one in tuple(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Carry again."""
        self._up = True

    def close(self) -> None:
        """End."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if not self._up:
                return
            with socket.create_connection(("127.0.0.1", self._to)) as far:
                self._sockets |= {near, far}
                back = threading.Thread(target=_pump, args=(far, near), daemon=True)
                back.start()
                _pump(near, far)
                back.join()
                self._sockets -= {near, far}


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def eni_config_body(name: str, spec: Mapping[str, object]) -> Mapping[str, object]:
    """Return an ENIConfig object."""
    return {
        "apiVersion": "crd.k8s.amazonaws.com/v1alpha1",
        "kind": "ENIConfig",
        "metadata": {"name": name},
        "spec": spec,
    }
