"""IMDSv2 for every instance of a VPC, and what can be wrong with it. Shell.

    imds = Imds(asking, told)
    with imds.listen("169.254.169.254").serving(): ...
    imds.say(instance_id, "spot/termination-time", "2026-01-05T18:02:00Z")
    imds.faults.stale("network/interfaces/macs/*/local-ipv4s", 30)

The source address tells which instance asks, and it can be trusted: the fabric drops what does not
come from its owner. What an instance's tree was like is kept, so that an answer can be late as a
real one is: it was true once.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from vpclab.imds_faults import ImdsFaults
from vpclab.metadata import VERSIONS, Metadata, Options, Tree, find

TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
MAX_TTL_SECONDS = 21_600
TTL = re.compile(r"[0-9]{1,9}")
"""What `int` takes whoever sends it: not ², nor thousands of digits."""

KEPT_SECONDS = 900
"""How far back an answer can be stale: longer than the lags that were reported of EC2, minutes."""

MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)


def key_of(path: str) -> str:
    """Return a path below `<version>/meta-data`, or below the version where it is not of that."""
    return path.strip("/").partition("/")[2].removeprefix("meta-data/")


class History:
    """What a tree was like, from now back to KEPT_SECONDS ago."""

    def __init__(self) -> None:
        self._states: list[tuple[float, Tree]] = []

    def note(self, now: float, tree: Tree) -> None:
        """Note what the tree is like *now*."""
        if not self._states or self._states[-1][1] != tree:
            self._states.append((now, tree))
        while len(self._states) > 1 and self._states[1][0] <= now - KEPT_SECONDS:
            self._states.pop(0)

    def at(self, then: float) -> Tree:
        """Return what the tree was like *then*, or at first."""
        return next(
            (tree for noted, tree in reversed(self._states) if noted <= then), self._states[0][1]
        )


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as far as it matters."""

    method: str
    path: str
    source: str
    token: str | None
    ttl: str
    forwarded: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; a token's says how long it lives, and how many hops it goes."""

    status: int
    text: str = ""
    ttl: str | None = None
    hops: int | None = None


class Imds:
    """The metadata service of a VPC, on any number of sockets.

    *asking* gives the instance at a source address of either family, *told* what is to be told of
    an instance; None: there is none. They are asked with the service's lock held. *clock* is in
    seconds, for tokens and for what is stale.
    """

    def __init__(
        self,
        asking: Callable[[str], str | None],
        told: Callable[[str], Metadata | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.faults = ImdsFaults()
        self._asking, self._told, self._clock = asking, told, clock
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._tokens: dict[str, tuple[str, float]] = {}
        self._histories: dict[str, History] = {}
        self._said: dict[str, dict[str, str]] = {}

    @property
    def calls(self) -> Counter[str]:
        """Requests so far, by path, each MAC as `<mac>`: `latest/api/token`."""
        with self._lock:
            return self._calls.copy()

    def listen(self, host: str, port: int = 80) -> Listener:
        """Return a socket of the caller's network namespace, at an address of either family."""
        return Listener(self, host, port)

    # What is told ------------------------------------------------------------------------
    def say(self, instance_id: str, path: str, text: str) -> None:
        """Let an instance's `meta-data` have *text* at *path*, whatever else is there."""
        with self._lock:
            self._said.setdefault(instance_id, {})[f"meta-data/{path}"] = text
            self._note(instance_id)

    def unsay(self, instance_id: str, path: str) -> None:
        """Take back what was said at *path*; nothing if nothing was."""
        with self._lock:
            self._said.get(instance_id, {}).pop(f"meta-data/{path}", None)
            self._note(instance_id)

    def note(self, instance_id: str | None) -> None:
        """Note that an instance, or any (None), may have changed; if not told, a reader sees it."""
        with self._lock:
            for known in [instance_id] if instance_id else list(self._histories):
                self._note(known)

    def _note(self, instance_id: str) -> Metadata | None:
        metadata = self._told(instance_id)
        if metadata is None:
            self._histories.pop(instance_id, None)
            self._said.pop(instance_id, None)
            return None
        history = self._histories.setdefault(instance_id, History())
        history.note(self._clock(), {**metadata.tree, **self._said.get(instance_id, {})})
        return metadata

    # Requests ----------------------------------------------------------------------------
    def answer(self, request: Request) -> Answer:
        """Return the answer to a request.

        400, 401, 403, 404 as the user guide lists them, 403 for a service that is turned off too.
        That an IPv6 socket which is not enabled answers 403 is ours: nobody is there on EC2.
        """
        path = request.path.strip("/")
        with self._lock:
            self._calls[MAC.sub("<mac>", path)] += 1
            instance_id = self._asking(request.source)
            metadata = self._note(instance_id) if instance_id else None
            if instance_id is None or metadata is None:
                return Answer(404)
            if status := self._refusal(request, instance_id, metadata.options):
                return Answer(status)
            if request.method == "PUT":
                return self._grant(request, instance_id, metadata.options)
            text = self._read(path, instance_id)
            return Answer(404) if text is None else Answer(200, text)

    def _refusal(self, request: Request, instance_id: str, options: Options) -> int | None:
        if not (options.enabled and (options.enabled6 or ":" not in request.source)):
            return 403
        if status := self.faults.status(key_of(request.path), instance_id):
            return status
        if request.method == "PUT" or self._may_read(request.token, instance_id, options):
            return None
        return 401

    def _read(self, path: str, instance_id: str) -> str | None:
        version, _, below = path.partition("/")
        if not version:
            return "\n".join(VERSIONS)
        if version not in VERSIONS:
            return None
        key = key_of(path)
        then = self._clock() - self.faults.age_seconds(key, instance_id)
        text = find(self._histories[instance_id].at(then), below)
        return None if text is None else self.faults.left_of(text, key, instance_id)

    def _grant(self, request: Request, instance_id: str, options: Options) -> Answer:
        if request.path != "/latest/api/token":
            # Of a version other than latest it is forbidden (the user guide).
            return Answer(403 if request.path.endswith("/api/token") else 404)
        if request.forwarded:
            return Answer(403)
        if not TTL.fullmatch(request.ttl) or not 1 <= int(request.ttl) <= MAX_TTL_SECONDS:
            return Answer(400)
        now, token = self._clock(), secrets.token_urlsafe(40)
        self._tokens = {old: held for old, held in self._tokens.items() if now <= held[1]}
        self._tokens[token] = (instance_id, now + int(request.ttl))
        return Answer(200, token, request.ttl, options.hop_limit)

    def _may_read(self, token: str | None, instance_id: str, options: Options) -> bool:
        if token is None:
            return not options.tokens_required
        owner, until = self._tokens.get(token, ("", 0.0))
        return owner == instance_id and self._clock() <= until


class Listener(socketserver.ThreadingTCPServer):
    """A socket of the service. It stays in the namespace it was made in, whoever serves it."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, imds: Imds, host: str, port: int) -> None:
        self.imds = imds
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, but not that a client has died: tests kill them on purpose."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serve in a thread, and give the URL."""
        host, port = self.socket.getsockname()[:2]
        thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 30
    server: Listener

    def log_message(self, *_: Any) -> None:
        """A call is not news."""

    def do_GET(self) -> None:
        """Answer."""
        answer = self.server.imds.answer(
            Request(
                method=self.command,
                path=self.path,
                source=self.client_address[0],
                token=self.headers.get(TOKEN_HEADER),
                ttl=self.headers.get(TTL_HEADER, ""),
                forwarded="X-Forwarded-For" in self.headers,
            )
        )
        body = answer.text.encode()
        self.send_response(answer.status)
        if answer.ttl is not None:
            self.send_header(TTL_HEADER, answer.ttl)
        if answer.hops is not None:
            # Of the one answer, and of no later one on the connection.
            self._set_ttl(answer.hops)
            self.send_header("Connection", "close")
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        """Answer."""
        self.do_GET()

    def _set_ttl(self, hops: int) -> None:
        if self.connection.family == socket.AF_INET6:
            self.connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        else:
            self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
