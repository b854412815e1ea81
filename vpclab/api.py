"""The EC2 endpoint: moto behind a lock, a counter and an answer for what is not modelled. Shell.

moto has no locks of its own, so one lock serves one request at a time. What a request has
changed is told when the lock is free again and before the caller hears: whoever is told may
take the lock, and a caller must find its interface there.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from vpclab.ec2 import MODELLED, fresh_backend
from vpclab.ec2.backend import VpcBackend
from vpclab.ec2.model import Eni

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

T = TypeVar("T")

UNSUPPORTED = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>UnsupportedOperation</Code>
<Message>The embedded VPC does not model {action}.</Message>
</Error></Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"""


class ControlPlane:
    """One region's EC2."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.lock = threading.RLock()
        self.on_change: Callable[[Eni], None] = lambda _eni: None
        self.calls: Counter[str] = Counter()
        """Calls by action, as the counted endpoint saw them."""
        self.backend: VpcBackend = fresh_backend(region)
        self.backend.later = self._later
        self._app = DomainDispatcherApplication(create_backend_app)
        self._timers: set[threading.Timer] = set()

    def close(self) -> None:
        """Forget what was to happen later."""
        for timer in tuple(self._timers):
            timer.cancel()

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            self._perform(work)

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        self._timers.add(timer)
        timer.start()

    def _perform(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, once everyone knows of what it has changed."""
        with self.lock:
            result = work()
            changed, self.backend.changed[:] = dict.fromkeys(self.backend.changed), []
        for eni in changed:
            self.on_change(eni)
        return result

    def application(self, *, counted: bool) -> Callable[..., Iterable[bytes]]:
        """Return the WSGI application; calls of the *counted* one are counted."""

        def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            size = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(size)
            environ["wsgi.input"] = _Body(body)
            action = parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
            if counted and action:
                with self.lock:
                    self.calls[action] += 1
            if action not in MODELLED:
                return _unsupported(action, start)
            return self._perform(lambda: list(self._app(environ, start)))

        return application


class _Body:
    """A request's body, read once more; werkzeug wants a stream."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int = -1) -> bytes:
        """Return up to *size* bytes."""
        end = len(self._data) if size < 0 else size
        piece, self._data = self._data[:end], self._data[end:]
        return piece

    def readline(self, size: int = -1) -> bytes:
        """Return one line; a query has no more."""
        return self.read(size)


def _unsupported(action: str, start: StartResponse) -> list[bytes]:
    body = UNSUPPORTED.format(action=action).encode()
    start("400 Bad Request", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """A call is counted, not printed."""


@contextlib.contextmanager
def serving(
    application: Callable[..., Iterable[bytes]], listener: socket.socket
) -> Iterator[BaseWSGIServer]:
    """Serve *application* on *listener* in a thread.

    The listener is made by the caller: it stays in the namespace it was made in, and
    werkzeug's own would ask the resolver for a name that a namespace cannot resolve.
    """
    host, port = listener.getsockname()[:2]
    server = make_server(
        host, port, application, threaded=True, request_handler=_Quiet, fd=listener.fileno()
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket of the caller's namespace."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


@contextlib.contextmanager
def control_plane(region: str = "us-east-1") -> Iterator[tuple[str, ControlPlane]]:
    """Serve an EC2 without subnets or ENIs on loopback, without packets and without root.

        with control_plane() as (url, plane):
            ec2 = boto3.client("ec2", endpoint_url=url, region_name="us-east-1", ...)
            vpc_id = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
            ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.0.1.0/24")

    `plane.calls` counts by action, `plane.backend.delays` makes attaching and detaching take
    time. Any credentials do. One at a time in a process: moto's state is global.
    """
    plane = ControlPlane(region)
    with (
        contextlib.closing(plane),
        contextlib.closing(listen("127.0.0.1", 0)) as listener,
        serving(plane.application(counted=True), listener),
    ):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", plane
