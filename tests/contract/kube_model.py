"""A model of the Kubernetes API by HTTPS: what the daemon reads and writes there.

It keeps state and history as the API server does: versions, watches that replay, 409 for who is
late, 410 for who asks for history that is gone. What it claims is held to a real kube-apiserver by the
same tests (`make kube`).
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ipamd.election import Terms

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/kube-system/pods"
ALL_PODS = "/api/v1/pods"
ENI_CONFIGS = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs"
NODE_NETWORKS = "/apis/enid.dev/v1alpha1/nodenetworks"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
SWEEPER = f"{LEASES}/enid-sweeper"
EVENTS = re.compile(r"/api/v1/namespaces/[^/]+/events")

ALLOWED = frozenset({
    ("GET", NODES), ("GET", ALL_PODS), ("POST", LEASES), ("GET", SWEEPER), ("PUT", SWEEPER),
})  # fmt: skip
"""What the daemon's account may always do, with GET of each ENIConfig: docs/kubernetes.md."""

RIGHTS: Mapping[str, tuple[tuple[str, re.Pattern[str]], ...]] = {
    "events": (("POST", EVENTS),),
    "nodenetworks": (
        ("GET", re.compile(NODE_NETWORKS)), ("POST", re.compile(NODE_NETWORKS)),
        ("PATCH", re.compile(NODE_NETWORKS + r"/[^/]+")),
    ),
    "nodenetworks/status": (("PATCH", re.compile(NODE_NETWORKS + r"/[^/]+/status")),),
    "nodes": (("PATCH", re.compile(r"/api/v1/nodes/[^/]+")),),
    "nodes/status": (("PATCH", re.compile(r"/api/v1/nodes/[^/]+/status")),),
    "pods": (("PATCH", re.compile(r"/api/v1/namespaces/[^/]+/pods/[^/]+")),),
}  # fmt: skip
"""What it may do by a rule of one resource, which tests take away: docs/kubernetes.md."""

WITH_STATUS = frozenset({NODES, PODS, NODE_NETWORKS})
"""Collections whose objects have a status of their own: who writes one part leaves the other."""

NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
"""The taint that a Node is born with."""

MERGED_BY: Mapping[tuple[str, str], str] = {(NODES, "conditions"): "type"}
"""Lists that a strategic merge patch merges by this key of their members."""

STRATEGIC = "application/strategic-merge-patch+json"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One change of an object."""

    version: int
    word: str
    collection: str
    thing: Object


class RefusalError(Exception):
    """An answer that is a failure."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words

    def body(self) -> Object:
        """Return it as the API says it."""
        return {"kind": "Status", "status": "Failure", "message": self.words, "code": self.status}


class Store:
    """What etcd holds: objects, their versions, and what changed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.oldest = 100
        self.objects: dict[tuple[str, str], Object] = {}
        self.history: list[Occurrence] = []

    def _happen(self, word: str, collection: str, name: str, thing: Object) -> Object:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        if word == "DELETED":
            del self.objects[collection, name]
        else:
            self.objects[collection, name] = thing
        self.history.append(Occurrence(self.version, word, collection, copy.deepcopy(thing)))
        self.changed.notify_all()
        return copy.deepcopy(thing)

    def get(self, collection: str, name: str) -> Object:
        """Return an object."""
        try:
            return copy.deepcopy(self.objects[collection, name])
        except KeyError:
            kind = collection.rpartition("/")[2]
            raise RefusalError(404, f'{kind} "{name}" not found') from None

    def create(self, collection: str, body: Object) -> Object:
        """Create an object; 409 if there is one."""
        thing = copy.deepcopy(body)
        name = thing["metadata"].get("name")
        if not name:
            raise RefusalError(422, "metadata.name: Required value")
        if (collection, name) in self.objects:
            raise RefusalError(409, f'"{name}" already exists')
        thing["metadata"]["uid"] = f"uid-{self.version}"
        if collection == NODES:  # admission: until a controller has seen it to be ready
            thing.setdefault("spec", {}).setdefault("taints", []).append(NOT_READY)
        return self._happen("ADDED", collection, name, thing)

    def replace(self, collection: str, name: str, body: Object) -> Object:
        """Replace an object; 409 unless *body* is of its version."""
        former = self.get(collection, name)
        if body["metadata"].get("resourceVersion") != former["metadata"]["resourceVersion"]:
            raise RefusalError(409, f'Operation cannot be fulfilled on "{name}"')
        return self._happen("MODIFIED", collection, name, copy.deepcopy(body))

    def merge(
        self, collection: str, name: str, body: Object, *, part: str = "", strategic: bool = False
    ) -> Object:
        """Merge *body* into an object; a change that changes nothing is none.

        Of an object with a status of its own only *part* is changed: "status", or the rest. 409
        if *body* tells another version than the object's, 422 if another uid.
        """
        former = self.get(collection, name)
        told, has = body.get("metadata", {}), former["metadata"]
        if told.get("resourceVersion") not in {None, has["resourceVersion"]}:
            raise RefusalError(409, f'Operation cannot be fulfilled on "{name}"')
        if told.get("uid") not in {None, has["uid"]}:
            words = f"metadata.uid: Invalid value: {told['uid']!r}: field is immutable"
            raise RefusalError(422, f'Pod "{name}" is invalid: {words}')
        if collection in WITH_STATUS:
            body = {k: v for k, v in body.items() if (k == "status") == (part == "status")}
        keys = {f: key for (c, f), key in MERGED_BY.items() if strategic and c == collection}
        thing = _merged(former, body, keys)
        return former if thing == former else self._happen("MODIFIED", collection, name, thing)

    def delete(self, collection: str, name: str) -> Object:
        """Delete an object."""
        return self._happen("DELETED", collection, name, self.get(collection, name))

    def forget(self) -> None:
        """Compact: history is gone."""
        with self.changed:
            self.oldest = self.version
            self.history.clear()


def _merged(former: Any, body: Any, keys: Mapping[str, str]) -> Any:
    if not isinstance(body, Mapping):
        return copy.deepcopy(body)
    former = former if isinstance(former, Mapping) else {}
    merged = {k: v for k, v in former.items() if k not in body}
    for field, value in body.items():
        if field in keys and value is not None:
            merged[field] = _merged_list(former.get(field) or [], value, keys[field])
        elif value is not None:
            merged[field] = _merged(former.get(field), value, keys)
    return merged


def _merged_list(former: list[Object], body: list[Object], key: str) -> list[Object]:
    members = {member[key]: member for member in former}
    for member in body:
        told = {k: v for k, v in member.items() if k != "$patch"}
        if member.get("$patch") == "delete":
            members.pop(member[key], None)
        else:
            members[member[key]] = {**members.get(member[key], {}), **told}
    return list(members.values())


def _selects(query: Mapping[str, str], thing: Object) -> bool:
    """Return whether an object is of the asked node or name."""
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        found: Any = thing
        for step in path.split("."):
            found = found.get(step) or {}
        if found != value:
            return False
    return True


class ModelServer:
    """An API server; `ask` is the administrator's way to it, past HTTP."""

    terms = Terms(lease_seconds=1, deadline_seconds=0.8, renew_seconds=0.15, stand_by_seconds=0.15)

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.ca = folder / "ca.crt"
        self.denied: set[str] = set()
        self.has_records = True
        self._tokens: dict[str, str] = {}
        self._tls = _self_signed(folder)
        self._http: _Http | None = None
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])

    # Life --------------------------------------------------------------------------------
    def start(self) -> None:
        """Listen."""
        self._http = http = _Http(self)
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """Break every connection, and listen no more."""
        http, self._http = self._http, None
        assert http is not None
        http.dead = True
        http.shutdown()
        http.server_close()
        with self.store.changed:
            self.store.changed.notify_all()
        for one in tuple(http.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def compact(self) -> None:
        """Forget all history."""
        self.store.forget()

    # Questions ---------------------------------------------------------------------------
    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Do something as the administrator."""
        try:
            return self.do(method, path, {}, body)
        except RefusalError as error:
            raise AssertionError(error.words) from error

    def do(
        self, method: str, path: str, query: Mapping[str, str], body: Any = None, kind: str = ""
    ) -> Object:
        """Return the answer to a request that is no watch. Raises RefusalError."""
        with self.store.changed:
            if path.startswith(NODE_NETWORKS) and not self.has_records:
                raise RefusalError(404, "404 page not found")
            if path in {
                NODES,
                PODS,
                ALL_PODS,
                ENI_CONFIGS,
                LEASES,
                NODE_NETWORKS,
            } or EVENTS.fullmatch(path):
                if method == "POST":
                    return self.store.create(path, body)
                return self._list(path, query)
            collection, _, name = path.removesuffix("/status").rpartition("/")
            match method:
                case "PUT":
                    return self.store.replace(collection, name, body)
                case "PATCH":
                    part = "status" if path.endswith("/status") else ""
                    return self.store.merge(
                        collection, name, body, part=part, strategic=kind == STRATEGIC
                    )
                case "DELETE":
                    return self.store.delete(collection, name)
            return self.store.get(collection, name)

    def _list(self, path: str, query: Mapping[str, str]) -> Object:
        collection = PODS if path == ALL_PODS else path
        found = [
            t for (c, _), t in self.store.objects.items() if c == collection and _selects(query, t)
        ]
        shown = found[: int(query.get("limit") or len(found))]
        metadata: Object = {"resourceVersion": str(self.store.version)}
        if len(found) > len(shown):
            metadata["remainingItemCount"] = len(found) - len(shown)
        return {"metadata": metadata, "items": copy.deepcopy(shown)}

    def watch(self, path: str, query: Mapping[str, str], http: _Http) -> Iterator[Object]:
        """Yield what happens, until the time is over or the server dies."""
        collection = PODS if path == ALL_PODS else path
        version = int(query["resourceVersion"])
        end = time.monotonic() + int(query["timeoutSeconds"])
        if version < self.store.oldest:
            words = f"too old resource version: {version} ({self.store.oldest})"
            yield {"type": "ERROR", "object": RefusalError(410, words).body()}
            return
        while not http.dead and (rest := end - time.monotonic()) > 0:
            with self.store.changed:
                news = [o for o in self.store.history if o.version > version]
                if not news:
                    self.store.changed.wait(rest)
                    continue
            for one in news:
                version = one.version
                if one.collection == collection and _selects(query, one.thing):
                    yield {"type": one.word, "object": one.thing}
            yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}

    def admit(self, token: str, method: str, path: str) -> None:
        """Let the daemon's account do what it may. Raises RefusalError."""
        if token not in self._tokens.values():
            raise RefusalError(401, "Unauthorized")
        collection, _, name = path.rpartition("/")
        if (method, path) in ALLOWED or (method, collection) == ("GET", ENI_CONFIGS):
            return
        for right, ways in RIGHTS.items():
            if right not in self.denied and any(
                method == how and where.fullmatch(path) for how, where in ways
            ):
                return
        verb = (
            "get"
            if "/" in path.removeprefix("/api/v1/") and name not in {"leases", "pods", "events"}
            else "list"
        )
        verb = {"POST": "create", "PATCH": "patch"}.get(method, verb)
        raise RefusalError(403, f'User "enid" cannot {verb} resource "{name}"')

    # Objects -----------------------------------------------------------------------------
    def install_records(self, *, installed: bool) -> None:
        """Know NodeNetworks, or no longer, and then there are none."""
        with self.store.changed:
            for collection, name in tuple(self.store.objects):
                if collection == NODE_NETWORKS and not installed:
                    self.store.delete(collection, name)
            self.has_records = installed

    def patch(self, path: str, body: object) -> None:
        """Merge *body* into an object."""
        self.ask("PATCH", path, body)

    def add_node(self, name: str) -> None:
        """Register a node with room for 29 pods."""
        status = {"capacity": {"pods": "29"}}
        self.ask("POST", NODES, {"metadata": {"name": name}, "status": status})

    def add_pod(self, name: str, node: str, *, host_network: bool = False) -> Any:
        """Create a pod that is bound already; return it."""
        metadata = {"name": name, "namespace": "kube-system"}
        spec = {"nodeName": node, "hostNetwork": host_network}
        body = {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}
        return self.ask("POST", PODS, body)

    def end_pod(self, name: str, phase: str) -> None:
        """Say that a pod's containers have ended."""
        self.patch(f"{PODS}/{name}/status", {"status": {"phase": phase}})

    def delete_pod(self, name: str) -> None:
        """Delete a pod."""
        self.ask("DELETE", f"{PODS}/{name}")

    def allow(self, resource: str, *, allowed: bool) -> None:
        """Let the daemon's account do what the rule of *resource* alone says, or no longer."""
        (self.denied.discard if allowed else self.denied.add)(resource)

    def new_token(self, name: str) -> str:
        """Return a token of the daemon's account."""
        self._tokens[name] = f"token-of-{name}"
        return self._tokens[name]

    def revoke(self, name: str) -> None:
        """End a token."""
        del self._tokens[name]


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: ModelServer) -> None:
        self.model = model
        self.dead = False
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", model.port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake is done here, in the connection's own thread.
        with contextlib.suppress(OSError, ValueError):
            tls = self.model._tls.wrap_socket(request, server_side=True)  # noqa: SLF001 - its own server
            self.connections.add(tls)
            try:
                if not self.dead:  # it died during the handshake, and `kill` saw no connection
                    super().finish_request(tls, client_address)
            finally:
                self.connections.discard(tls)
                tls.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        token = self.headers.get("Authorization", "").partition(" ")[2]
        kind = self.headers.get("Content-Type", "")
        model = self.server.model
        try:
            model.admit(token, self.command, url.path)
            if query.get("watch"):
                self._stream(model.watch(url.path, query, self.server))
                return
            status, answer = 200, model.do(self.command, url.path, query, body, kind)
        except RefusalError as error:
            status, answer = error.status, error.body()
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _stream(self, events: Iterator[Object]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for event in events:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if not self.server.dead:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815 - http.server's names


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "model")])
    today = dt.datetime.now(dt.UTC)
    san = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(san, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    return context
