"""The EC2 endpoint: moto behind a lock, a call table, faults, and a no to the rest. Shell.

moto has no locks of its own, so one lock serves one request at a time. What a request has
changed is told when the lock is free again and before the caller hears: whoever is told may
take the lock, and a caller must find its interface there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from vpclab.ec2 import MODELLED, fresh_backend, reshapes
from vpclab.ec2.access import Access
from vpclab.ec2.backend import VpcBackend
from vpclab.ec2.credentials import Call, Key, SignatureError
from vpclab.ec2.history import History
from vpclab.ec2.model import Eni
from vpclab.faults import Faults

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

T = TypeVar("T")

REFUSAL = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>{code}</Code>
<Message>{message}</Message>
</Error></Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"""

CODE = re.compile(rb"<Code>([^<]*)</Code>")
REASONS = {
    400: "400 Bad Request",
    401: "401 Unauthorized",
    403: "403 Forbidden",
    503: "503 Service Unavailable",
}
DONE = "ok"
LOST = "lost"


@dataclass(slots=True)
class Tally:
    """The calls of one action: how each ended ("ok", "lost" or EC2's error), and their time."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest: float = 0.0


class ControlPlane:
    """One region's EC2."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.lock = threading.RLock()
        self.on_change: Callable[[Eni], None] = lambda _eni: None
        self.on_reshape: Callable[[], None] = lambda: None
        """Told after a call that changes more than single ENIs: CIDRs, routes, groups' rules."""
        self.calls: Counter[str] = Counter()
        """Calls by action, as the counted endpoint saw them."""
        self.tallies: dict[str, Tally] = {}
        """The call table: the same calls, and how they ended."""
        # Chance from a seed: a run with faults can be repeated.
        chance = random.Random(0).gauss  # noqa: S311 - no secret
        self.faults = Faults(time.monotonic, chance)
        self.backend: VpcBackend = fresh_backend(region)
        self.backend.normal = chance
        self.backend.later = self._later
        self.backend.told = self._told
        self.access = Access(self.backend, lambda: dt.datetime.now(dt.UTC))
        self.backend.authorise = lambda *call: self.access.check(self._caller, *call)
        self._caller: Key | None = None
        self._history = History()
        self._app = create_backend_app("ec2")
        self._timers: set[threading.Timer] = set()

    def close(self) -> None:
        """Forget what was to happen later."""
        for timer in tuple(self._timers):
            timer.cancel()

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            self.perform(work)

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        self._timers.add(timer)
        timer.start()

    def perform(self, work: Callable[[], T], *, reshaping: bool = False) -> T:
        """Return what *work* returns, once everyone knows of what it has changed."""
        with self.lock:
            result = work()
            changed, self.backend.changed[:] = dict.fromkeys(self.backend.changed), []
            if reshaping:
                changed = dict.fromkeys(self.backend.enis.values()) | changed
            if self.faults.lag_seconds:
                self._history.note(time.monotonic(), changed, self.backend.enis)
            else:
                self._history.clear()
        with (
            contextlib.ExitStack() as told
        ):  # all of it is, also when one fails; last in, first out
            for eni in reversed(changed):
                told.callback(self.on_change, eni)
            if reshaping:
                told.callback(self.on_reshape)
        return result

    def lag(self, seconds: float) -> None:
        """Let descriptions of ENIs lag by *seconds*; 0 ends it."""
        with self.lock:
            self._history.clear()
            self.faults.lag_seconds = seconds
            if seconds:
                self._history.note(time.monotonic(), (), self.backend.enis)

    def _told(self) -> Mapping[str, Eni]:
        """Return the ENIs as descriptions show them now."""
        if not self.faults.lag_seconds:
            return self.backend.enis
        then = time.monotonic() - self.faults.lag_seconds
        return self._history.at(then, self.backend.enis)

    def application(self, *, counted: bool) -> Callable[..., Iterable[bytes]]:
        """Return the WSGI application; of the *counted* one calls are counted and faults met."""

        def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            size = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(size)
            environ["wsgi.input"] = _Body(body)
            action = parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
            if action not in MODELLED:
                text = f"The embedded VPC does not model {action}."
                answer = [_refuse(start, "UnsupportedOperation", text)]
                if counted and action:
                    self._count(action, _outcome(answer), 0.0)
                return answer
            if not counted:
                return self._do(action, environ, start)
            return self._met(action, body, environ, start)

        return application

    def _do(
        self, action: str, environ: WSGIEnvironment, start: StartResponse, caller: Key | None = None
    ) -> list[bytes]:
        def answer() -> list[bytes]:
            self._caller = caller
            return list(self._app(environ, start))

        return self.perform(answer, reshaping=reshapes(action))

    def _met(
        self, action: str, body: bytes, environ: WSGIEnvironment, start: StartResponse
    ) -> list[bytes]:
        """Answer a call as its faults have it, and count it."""
        began = time.monotonic()
        with self.lock:
            verdict = self.faults.verdict(action)
        if verdict.seconds:
            time.sleep(verdict.seconds)
        if verdict.refusal is not None:
            refusal = verdict.refusal
            answer = [_refuse(start, refusal.code, refusal.message, refusal.status)]
        else:
            answer = self._authenticated(action, body, environ, start)
        self._count(action, LOST if verdict.lost else _outcome(answer), time.monotonic() - began)
        if verdict.lost:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer

    def _authenticated(
        self, action: str, body: bytes, environ: WSGIEnvironment, start: StartResponse
    ) -> list[bytes]:
        """Do what the caller asks, if it is who it says."""
        try:
            with self.lock:
                caller = self.access.caller(_call(environ, body))
        except SignatureError as stranger:
            return [_refuse(start, stranger.code, str(stranger), stranger.status)]
        return self._do(action, environ, start, caller)

    def _count(self, action: str, outcome: str, seconds: float) -> None:
        with self.lock:
            self.calls[action] += 1
            tally = self.tallies.setdefault(action, Tally())
            tally.outcomes[outcome] += 1
            tally.seconds += seconds
            tally.longest = max(tally.longest, seconds)


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


def _call(environ: WSGIEnvironment, body: bytes) -> Call:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
    }
    query = environ.get("QUERY_STRING", "")
    path = environ.get("PATH_INFO", "/") + (f"?{query}" if query else "")
    return Call(environ["REQUEST_METHOD"], path, headers, body)


def _refuse(start: StartResponse, code: str, message: str, status: int = 400) -> bytes:
    body = REFUSAL.format(code=code, message=escape(message)).encode()
    reason = REASONS.get(status, f"{status} Error")
    start(reason, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return body


def _outcome(answer: Iterable[bytes]) -> str:
    """Return how a call ended, as its answer says."""
    found = CODE.search(next(iter(answer), b"")[:500])
    return found[1].decode() if found else DONE


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
