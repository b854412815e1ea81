"""How a call gets to EC2: signed, timed, counted, and its failure put in our words. Shell.

The rule to keep (docs/adr/0003): a question may be repeated, so botocore does
that; a mutation is sent exactly once, because after a lost answer nobody can
tell a repeat from a second wish. Every failure leaves here as an EniError.

Any number of threads may call at once: botocore's clients allow that, its
sessions do not, so that clients are made one at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
import botocore.session
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError

from eni import reduced
from eni.errors import (
    CredentialsError,
    EniError,
    RefusedError,
    UnknownOutcomeError,
    UnreachableError,
    meaning,
    sentence,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.loaders import Loader
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)
T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS: Final = 5
"""A TCP and TLS handshake inside a region takes milliseconds; this allows for two lost SYNs."""

IMDS_ATTEMPTS: Final = 3
"""Tries to get the role's credentials; botocore's default of 1 loses to one dropped packet."""

NEVER_SENT: Final = (
    aws.EndpointConnectionError,
    aws.ConnectTimeoutError,
    aws.ProxyConnectionError,
)
NO_CREDENTIALS: Final = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.MetadataRetrievalError,
)
NO_ANSWER: Final = (
    aws.HTTPClientError,
    aws.ConnectionError,
    ResponseParserError,
    LookupError,
    ValueError,
)
"""Sent or perhaps sent, and no answer that can be read; SSLError is a ConnectionError.

LookupError and ValueError are parse.py's: EC2 said yes, but not what it did.
"""


def verdict(error: Exception, *, prefixes: bool = False) -> tuple[type[EniError], str, str]:
    """Return our class for *error*, EC2's code ("" if it gave none) and the reason in words.

    *prefixes* says that prefixes were wished for.
    """
    if isinstance(error, aws.ClientError):
        told = error.response.get("Error", {})
        code, text = told.get("Code", ""), told.get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return meaning(code, text, status, prefixes=prefixes), code, f"{code}: {text}"
    reason = f"{type(error).__name__}: {error}"
    families: tuple[tuple[tuple[type[Exception], ...], type[EniError]], ...] = (
        (NEVER_SENT, UnreachableError),
        (NO_CREDENTIALS, CredentialsError),
        (NO_ANSWER, UnknownOutcomeError),
    )
    for members, family in families:
        if isinstance(error, members):
            return family, "", reason
    return RefusedError, "", reason


def _loader(core: botocore.session.Session) -> Loader:
    place = reduced.folder()
    if not place.is_dir():
        log.info("ec2's whole model in use: 20 MB more", extra={"missing": str(place)})
    return reduced.ReducedLoader(core.get_config_variable("data_path"), place)


@dataclass(frozen=True, slots=True)
class Took:
    """How long EC2 took over an action's requests, answered or not, since we began.

    From the last byte of ours to the last of its answer's, with the way there: a wait of our
    own before a request, or between two tries, is none of it.
    """

    requests: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0

    def and_one(self, seconds: float) -> Took:
        """Return this with one more request."""
        longest = max(self.longest_seconds, seconds)
        return Took(self.requests + 1, self.seconds + seconds, longest)


class Session:
    """The way to one region's EC2. *calls*, *errors* and *took* are read by copies of them."""

    def __init__(
        self, *, region: str, endpoint_url: str | None, total_attempts: int, timeout_seconds: float
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self.took: dict[str, Took] = {}
        self._region, self._endpoint_url = region, endpoint_url
        self._total_attempts, self._timeout_seconds = total_attempts, timeout_seconds
        self._clients: dict[int, EC2Client] = {}
        self._boto: boto3.Session | None = None
        # Two locks: whoever makes a client may wait seconds for IMDS, and nobody counts meanwhile.
        self._making, self._counting = threading.Lock(), threading.Lock()
        self._under_way = threading.local()

    def ask(self, action: str, wish: str, send: Callable[[EC2Client], T]) -> T:
        """Return the answer; a question that gets none has changed nothing."""
        with self._translated(action, wish, unanswered=UnreachableError):
            return send(self._client(self._total_attempts))

    def act(
        self, action: str, wish: str, send: Callable[[EC2Client], T], *, prefixes: bool = False
    ) -> T:
        """Send the mutation once and return its answer; *prefixes* says that it asks for some."""
        with self._translated(action, wish, unanswered=UnreachableError):
            client = self._client(1)  # may look for credentials; nothing is sent to EC2 yet
        with self._translated(action, wish, unanswered=UnknownOutcomeError, prefixes=prefixes):
            return send(client)

    @contextmanager
    def _translated(
        self, action: str, wish: str, *, unanswered: type[EniError], prefixes: bool = False
    ) -> Iterator[None]:
        try:
            yield
        except (aws.ClientError, aws.BotoCoreError, *NO_ANSWER) as error:
            family, code, reason = verdict(error, prefixes=prefixes)
            if family is UnknownOutcomeError:
                family = unanswered
            with self._counting:
                self.errors[action, family.id] += 1
            raise family(sentence(family, wish, reason), action=action, code=code) from error
        finally:
            self._note_end()  # botocore tells nobody of an answer that it cannot read

    def _client(self, total_attempts: int) -> EC2Client:
        with self._making:
            if total_attempts not in self._clients:
                self._clients[total_attempts] = self._new_client(total_attempts)
            return self._clients[total_attempts]

    def _new_client(self, total_attempts: int) -> EC2Client:
        if self._boto is None:
            core = botocore.session.Session()
            core.set_config_variable("metadata_service_num_attempts", IMDS_ATTEMPTS)
            core.register_component("data_loader", _loader(core))
            self._boto = boto3.Session(botocore_session=core, region_name=self._region)
        # A client keeps the credentials that there are when it is made, also
        # none, for ever: make none before there are any.
        if self._boto.get_credentials() is None:
            raise aws.NoCredentialsError
        client = self._boto.client(
            "ec2",
            endpoint_url=self._endpoint_url,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": total_attempts},
                connect_timeout=min(CONNECT_TIMEOUT_SECONDS, self._timeout_seconds),
                read_timeout=self._timeout_seconds,
                tcp_keepalive=True,
                user_agent_extra=f"enid/{version('enid')}",
            ),
        )
        client.meta.events.register("before-send.ec2", self._note_start)
        client.meta.events.register("response-received.ec2", self._note_end)
        return client

    def _note_start(self, event_name: str, **_: object) -> None:
        action = event_name.rpartition(".")[2]
        self._under_way.request = action, time.monotonic()
        with self._counting:
            self.calls[action] += 1

    def _note_end(self, **_: object) -> None:
        request = vars(self._under_way).pop("request", None)
        if request is not None:
            action, since = request
            seconds = time.monotonic() - since
            with self._counting:
                self.took[action] = self.took.get(action, Took()).and_one(seconds)
