"""`/metrics`, `/healthz` and `/readyz` on :61678. Shell.

A thread of its own answers, but every page asks the loop: a loop that hangs fails its
liveness probe.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, generate_latest

from ipamd.metrics import REGISTRY, Snapshot
from ipamd.status import Status

PORT = 61678
"""The peer's metrics port, so that scrape configurations stay."""

PAGES = ("/metrics", "/healthz", "/readyz")
PLAIN = "text/plain"

LOOP_SECONDS = 2.0
"""A loop that does not answer within this long is dead: kubelet's probe waits longer."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 16

    def server_bind(self) -> None:
        # WSGIServer asks the resolver for its own name, which may take seconds.
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *_: object) -> None:
        """A probe every few seconds is not news."""


def render(path: str, now: Status) -> tuple[str, str, bytes]:
    """Return a page as HTTP status, content type and body."""
    if path == "/metrics":
        snapshot = CollectorRegistry()
        snapshot.register(Snapshot(now))
        text = generate_latest(REGISTRY) + generate_latest(snapshot)
        return "200 OK", "text/plain; version=0.0.4; charset=utf-8", text
    if path == "/readyz" and not now["ready"]:
        reason = now["trouble"] or "no address has been usable yet"
        return "503 Service Unavailable", PLAIN, f"{reason}\n".encode()
    return "200 OK", PLAIN, b"ok\n"


def serve(
    loop: asyncio.AbstractEventLoop, status: Callable[[], Status], address: str = ""
) -> Callable[[], None]:
    """Serve in a thread; return what stops it. *status* is called on *loop*."""

    async def ask() -> Status:
        return status()

    def page(path: str) -> tuple[str, str, bytes]:
        if path not in PAGES:
            return "404 Not Found", PLAIN, f"there are {', '.join(PAGES)}\n".encode()
        try:
            now = asyncio.run_coroutine_threadsafe(ask(), loop).result(LOOP_SECONDS)
        except TimeoutError:
            return "503 Service Unavailable", PLAIN, b"the daemon's loop does not answer\n"
        return render(path, now)

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        code, kind, body = page(environ["PATH_INFO"])
        start(code, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    server = _Server((address, PORT), _Quiet)
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, name="web", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
