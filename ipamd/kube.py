"""The Kubernetes API server, by HTTP and in plain JSON. Shell.

Optional, and imported only where a cluster is configured (`cluster.is_configured`). Every
failure leaves here as a ClusterError; nothing is repeated here but the one request in which
the server did not know our token.

Of the `kubernetes` package only credentials, configuration and the REST client are used.
Its typed models cost 46 MB beside boto3's libraries and these parts 4, because every
`__init__` of it imports everything; so the parts are imported without those.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, Final

import urllib3

from ipamd.cluster import (
    ApiAwayError,
    CredentialsUnreadableError,
    Patch,
    UnknownToApiError,
    failure,
)


@contextmanager
def _bare_packages() -> Iterator[None]:
    """Let parts of `kubernetes` be imported without the `__init__`s above them.

    Afterwards the process is as it was: who then imports the whole package gets it whole.
    """
    names = ("kubernetes", "kubernetes.client", "kubernetes.client.models", "kubernetes.config")
    ours = [name for name in names if name not in sys.modules]
    for name in ours:
        spec = find_spec(name)
        assert spec is not None, f"{name} is not installed"
        sys.modules[name] = module_from_spec(spec)
    try:
        yield
    finally:
        for name in ours:
            del sys.modules[name]


with _bare_packages():
    from kubernetes.client.configuration import Configuration
    from kubernetes.client.exceptions import ApiException
    from kubernetes.client.rest import RESTClientObject

    sys.modules["kubernetes.client"].Configuration = Configuration  # type: ignore[attr-defined]  # where its own __init__ has it
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.incluster_config import InClusterConfigLoader

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where kubelet puts a pod's token, which it replaces before it expires."""

CONNECT_SECONDS: Final = 5
"""A handshake inside a region takes milliseconds; this allows for two lost SYNs."""

READ_SECONDS: Final = 10
"""How long an answer other than a watch may be silent."""

KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""A watch is silent for minutes, so the kernel looks whether its other end is there: 40 s."""


# Credentials -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the way to the API server is written: KUBECONFIG if it is set, else the pod's files."""

    environ: Mapping[str, str]
    folder: Path = SERVICE_ACCOUNT

    @property
    def namespace(self) -> str:
        """The namespace of the daemon's pod; kube-system where nothing tells it."""
        try:
            return (self.folder / "namespace").read_text().strip() or "kube-system"
        except OSError:
            return "kube-system"

    def read(self) -> Configuration:
        """Return the client's configuration. Raises CredentialsUnreadableError."""
        configuration = Configuration()
        # The client forgets the variable that it has just read, and then sends all to the proxy.
        environ = self.environ
        configuration.no_proxy = environ.get("NO_PROXY") or environ.get("no_proxy")
        configuration.retries = False  # when to ask again is decided here
        kubeconfig = environ.get("KUBECONFIG")
        try:
            if kubeconfig:
                _load_kubeconfig(kubeconfig, configuration)
            else:
                InClusterConfigLoader(
                    token_filename=self.folder / "token",
                    cert_filename=self.folder / "ca.crt",
                    environ=environ,
                ).load_and_set(configuration)
        except (ConfigException, OSError, ValueError, TypeError, LookupError) as error:
            where = kubeconfig or self.folder
            raise CredentialsUnreadableError(f"credentials in {where}: {_reason(error)}") from error
        return configuration


def _load_kubeconfig(path: str, configuration: Configuration) -> None:
    """Read a kubeconfig. Its loader needs YAML and more, which a pod does without."""
    with _bare_packages():
        from kubernetes.client.api_client import ApiClient  # noqa: PLC0415 - see above

        client: Any = sys.modules["kubernetes.client"]
        client.ApiClient, client.Configuration = ApiClient, Configuration
        from kubernetes.config import kube_config  # noqa: PLC0415 - see above
    try:
        kube_config.load_kube_config(path, client_configuration=configuration, persist_config=False)
    except kube_config.yaml.YAMLError as error:
        raise ConfigException(f"not YAML: {error}") from error


# REST ------------------------------------------------------------------------------------
class Api:
    """The API server by HTTP: plain JSON in and out, every failure a ClusterError.

    Any number of threads may use it. Every request has time-outs, and none is repeated but
    the one that the server did not know us in: for it the credentials are read anew.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.Lock()
        self._door: tuple[Configuration, RESTClientObject] | None = None
        self._watching: set[urllib3.BaseHTTPResponse] = set()
        self._closed = False

    def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = "") -> Any:
        """Return the object at *path*."""
        return self._json("GET", path, query=query, accept=accept)

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create *body* in *path*, and return it as it is now."""
        return self._json("POST", path, body=body)

    def replace(self, path: str, body: Mapping[str, Any]) -> Any:
        """Replace the object at *path* if it is still of the version that *body* has."""
        return self._json("PUT", path, body=body)

    def patch(self, path: str, body: Mapping[str, Any], kind: Patch) -> Any:
        """Change what *body* names of the object at *path*, and return it as it is now."""
        return self._json("PATCH", path, body=body, content=kind.value)

    def watch(
        self, path: str, query: Mapping[str, str], seconds: int
    ) -> Generator[bytes, None, None]:
        """Yield the lines of a watch until the server ends it, after *seconds* or before.

        The first one is b"": the server has agreed. `close` ends it from another thread.
        """
        query = {
            **query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        response = self._send("GET", path, query=query, read_seconds=seconds + READ_SECONDS)
        self._watching.add(response)
        try:
            if self._closed:  # while the server was thinking
                raise ApiAwayError(f"watch of {path}: the daemon is stopping")
            yield b""
            yield from _lines(response)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # The last two are a socket that `close` has shut under the reader.
            raise ApiAwayError(f"watch of {path}: {_reason(error)}") from error
        finally:
            self._watching.discard(response)
            response.close()

    def close(self) -> None:
        """End every watch; nothing is asked any more."""
        self._closed = True
        for response in tuple(self._watching):
            with suppress(RuntimeError, ValueError, OSError):  # it has ended meanwhile
                response.shutdown()

    def _json(self, method: str, path: str, **more: Any) -> Any:
        response = self._send(method, path, **more)
        try:
            return json.loads(response.data)
        except ValueError as error:
            raise ApiAwayError(f"{method} {path}: the answer is not JSON") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiAwayError(f"{method} {path}: {_reason(error)}") from error
        finally:
            response.release_conn()

    def _send(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        try:
            return self._send_once(method, path, **more)
        except UnknownToApiError:
            with self._lock:
                self._door = None  # the token may have been replaced
            return self._send_once(method, path, **more)

    def _send_once(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        accept: str = "",
        content: str = "application/json",
        read_seconds: int = READ_SECONDS,
    ) -> urllib3.BaseHTTPResponse:
        what = f"{method} {path}"
        if self._closed:
            raise ApiAwayError(f"{what}: the daemon is stopping")
        configuration, client = self._open()
        try:
            response: urllib3.BaseHTTPResponse = client.request(
                method,
                f"{configuration.host}{path}",
                query_params=list((query or {}).items()),
                headers={**_headers(configuration, accept), "Content-Type": content},
                body=body,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, read_seconds),
            )
        except ApiException as error:
            raise failure(error.status or 0, _words(error), what) from error
        except (ConfigException, OSError) as error:
            raise CredentialsUnreadableError(f"{what}: {_reason(error)}") from error
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise ApiAwayError(f"{what} at {configuration.host}: {_reason(error)}") from error
        return response

    def _open(self) -> tuple[Configuration, RESTClientObject]:
        with self._lock:
            if self._door is None:
                configuration = self.access.read()
                client = RESTClientObject(configuration)
                client.pool_manager.connection_pool_kw["socket_options"] = [
                    *urllib3.connection.HTTPConnection.default_socket_options,
                    *KEEPALIVE,
                ]
                self._door = configuration, client
            return self._door


def _headers(configuration: Configuration, accept: str) -> dict[str, str]:
    headers = {"Accept": accept or "application/json", "User-Agent": "enid"}
    token = configuration.get_api_key_with_prefix("authorization")  # reads its file every minute
    if token:
        headers["Authorization"] = token.strip()
    return headers


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for piece in response.stream(65536, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line)


def _words(error: ApiException) -> str:
    """Return the API server's own sentence, else the HTTP reason."""
    with suppress(ValueError, TypeError):
        found = json.loads(error.body)
        if isinstance(found, dict) and isinstance(found.get("message"), str):
            return str(found["message"])
    return " ".join(str(error.reason or "no reason given").split())


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
