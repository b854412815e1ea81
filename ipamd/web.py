"""`/metrics`, `/healthz` and `/readyz` on :61678. Shell.

A thread of its own answers, but every page asks the loop: a loop that hangs fails its
liveness probe. Whoever is not to be answered (`ipamd.audience`) is hung up on before anything
is read, and however many strangers ask, the node's own probes get an answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, generate_latest

from ipamd.audience import Audience, is_node
from ipamd.metrics import REGISTRY, Snapshot
from ipamd.start import PortTakenError
from ipamd.status import Status

PORT = 61678
"""The peer's metrics port, so that scrape configurations stay."""

PAGES = ("/metrics", "/healthz", "/readyz")
PLAIN = "text/plain"

LOOP_SECONDS = 2.0
"""A loop that does not answer within this long is dead: kubelet's probe waits longer."""

MAX_STRANGERS = 16
"""Answered at once, beside the node itself: each costs a thread, and any pod may connect."""

Socket = socket | tuple[bytes, socket]
"""What socketserver calls a request: a connection; the pair is a datagram's."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(self, address: str, audience: Callable[[], Audience]) -> None:
        self._audience = audience
        self._strangers = threading.BoundedSemaphore(MAX_STRANGERS)
        super().__init__((address, PORT), _Quiet)

    def verify_request(self, request: Socket, client_address: tuple[str, int]) -> bool:
        """Return whether this one is answered."""
        if _is_node(request, client_address):
            return True
        may_ask = self._audience().admits(IPv4Address(client_address[0]))
        return may_ask and self._strangers.acquire(blocking=False)

    def process_request_thread(self, request: Socket, client_address: tuple[str, int]) -> None:
        """Answer, on a thread of its own."""
        is_stranger = not _is_node(request, client_address)
        try:
            super().process_request_thread(request, client_address)
        finally:
            if is_stranger:
                self._strangers.release()

    def server_bind(self) -> None:
        # WSGIServer asks the resolver for its own name, which may take seconds. What a former
        # daemon answered last is remembered by the kernel for a minute, and must not be in the way.
        self.socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            self.socket.bind(self.server_address)
        except OSError as error:
            raise PortTakenError(
                f"port {PORT} cannot be had ({error.strerror}): stop whoever listens there, which"
                " `ss -ltnp` names; another CNI's agent perhaps"
            ) from error
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()


def _is_node(request: Socket, client_address: tuple[str, int]) -> bool:
    assert isinstance(request, socket)
    return is_node(IPv4Address(client_address[0]), IPv4Address(request.getsockname()[0]))


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *_: object) -> None:
        """A probe every few seconds is not news."""


def render(path: str, now: Status, audience: Audience) -> tuple[str, str, bytes]:
    """Return a page as HTTP status, content type and body."""
    if path == "/metrics" and not audience.metrics:
        return "404 Not Found", PLAIN, b"DISABLE_METRICS=true\n"
    if path == "/metrics":
        snapshot = CollectorRegistry()
        snapshot.register(Snapshot(now, pods=audience.pods))
        text = generate_latest(REGISTRY) + generate_latest(snapshot)
        return "200 OK", "text/plain; version=0.0.4; charset=utf-8", text
    if path == "/readyz" and not now["ready"]:
        # Not EC2's own words, which name the account and the role: any pod may read this.
        said = f"no address has been usable yet ({now['mode']}): see `enid status` on the node\n"
        return "503 Service Unavailable", PLAIN, said.encode()
    return "200 OK", PLAIN, b"ok\n"


def serve(
    loop: asyncio.AbstractEventLoop,
    status: Callable[[], Status],
    audience: Callable[[], Audience] = Audience,
    address: str = "",
) -> Callable[[], None]:
    """Serve in a thread; return what stops it. *status* is called on *loop*, *audience* is not."""

    async def ask() -> Status:
        return status()

    def page(path: str) -> tuple[str, str, bytes]:
        if path not in PAGES:
            return "404 Not Found", PLAIN, f"there are {', '.join(PAGES)}\n".encode()
        try:
            now = asyncio.run_coroutine_threadsafe(ask(), loop).result(LOOP_SECONDS)
        except TimeoutError:
            return "503 Service Unavailable", PLAIN, b"the daemon's loop does not answer\n"
        return render(path, now, audience())

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        code, kind, body = page(environ["PATH_INFO"])
        start(code, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    server = _Server(address, audience)
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, name="web", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
