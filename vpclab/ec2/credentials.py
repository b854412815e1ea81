"""Who calls: access keys and the signatures made with them. Shell.

A signature is checked by making it again with botocore's own signer, over the headers that the
caller says it signed.
"""

from __future__ import annotations

import datetime as dt
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SKEW = dt.timedelta(minutes=5)
"""How old a signature may be (EC2 API guide: RequestExpired)."""

LIFETIME = dt.timedelta(hours=6)
"""How long a role's credentials live, as IMDS gives them; they are renewed hourly."""

HEADER = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<day>\d{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request, ?SignedHeaders=(?P<headers>[^,]+), ?"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


class SignatureError(Exception):
    """The caller is nobody we know; `code` is EC2's error, `status` HTTP's."""

    def __init__(self, code: str, text: str, status: int) -> None:
        super().__init__(text)
        self.code, self.status = code, status


@dataclass(frozen=True, slots=True)
class Key:
    """An access key: who signs with it, as `role/NAME` or `user/NAME`, and until when.

    *arn* is the caller's in EC2's words: of a role, its session's. *instance_id* is the instance
    that has the key from its profile. *tags* are those of the session and of its role, which a
    policy asks for as aws:PrincipalTag.
    """

    id: str
    secret: str
    arn: str
    principal: str
    token: str | None = None
    until: dt.datetime | None = None
    instance_id: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it came, headers by their names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Keys:
    """The access keys of an account. *now* is its clock, in UTC."""

    def __init__(self, account: str, now: Callable[[], dt.datetime]) -> None:
        self._account, self._now = account, now
        self._keys: dict[str, Key] = {}
        self._of_instances: dict[str, Key] = {}

    def add(self, key: Key) -> None:
        """Let *key* be known."""
        self._keys[key.id] = key

    def of_instance(self, instance_id: str, role: str) -> Key:
        """Return the role's credentials that an instance has this hour."""
        known = self._of_instances.get(instance_id)
        if known is None or known.until != self._until():
            known = replace(self._session(role, instance_id), instance_id=instance_id)
            self._of_instances[instance_id] = known
            self.add(known)
        return known

    def of_pod(self, role: str, session: str, tags: Mapping[str, str]) -> Key:
        """Return new credentials of the role as a service account's pods have them.

        *tags* are what EKS Pod Identity says of the pod (`eks-cluster-name`, and five more); for a
        web identity (IRSA) they are those of the role, and nothing tells of the instance.
        """
        key = replace(self._session(role, session), tags=tuple(tags.items()))
        self.add(key)
        return key

    def _until(self) -> dt.datetime:
        return self._now().replace(minute=0, second=0, microsecond=0) + LIFETIME

    def _session(self, role: str, name: str) -> Key:
        return Key(
            id=f"ASIA{secrets.token_hex(8).upper()}",
            secret=secrets.token_urlsafe(30),
            arn=f"arn:aws:sts::{self._account}:assumed-role/{role}/{name}",
            principal=f"role/{role}",
            token=secrets.token_urlsafe(60),
            until=self._until(),
        )

    def owner(self, call: Call) -> Key:
        """Return the key that *call* is signed with. Raises SignatureError."""
        found = HEADER.fullmatch(call.headers.get("authorization", ""))
        if found is None:
            text = "The call is not signed with AWS Signature Version 4"
            raise SignatureError("AuthFailure", text, 401)
        key = self._keys.get(found["key"])
        if key is None or not hmac.compare_digest(found["signature"], _sign(call, found, key)):
            raise SignatureError(
                "AuthFailure",
                "AWS was not able to validate the provided access credentials",
                401,
            )
        try:
            stamp = dt.datetime.strptime(call.headers["x-amz-date"], "%Y%m%dT%H%M%S%z")
        except ValueError:
            text = "The call's X-Amz-Date is no time in ISO 8601's basic format"
            raise SignatureError("AuthFailure", text, 401) from None
        if abs(self._now() - stamp) > SKEW or (key.until is not None and self._now() > key.until):
            raise SignatureError("RequestExpired", "Request has expired.", 400)
        return key


def check_scope(call: Call, region: str) -> None:
    """Raise SignatureError for a call that is signed for another region than this endpoint's.

    The words are AWS's of other services; EC2's are not known.
    """
    found = HEADER.fullmatch(call.headers.get("authorization", ""))
    if found is not None and (found["region"], found["service"]) != (region, "ec2"):
        raise SignatureError(
            "AuthFailure",
            f"Credential should be scoped to a valid region, not '{found['region']}', and to ec2.",
            401,
        )


def _sign(call: Call, found: re.Match[str], key: Key) -> str:
    """Return the signature that *key* makes of *call*."""
    names = found["headers"].split(";")
    token = call.headers.get("x-amz-security-token")
    if "x-amz-date" not in call.headers or (key.token or "") != (token or ""):
        return ""
    headers = {name: call.headers.get(name, "") for name in names}
    request = AWSRequest(
        call.method, f"http://{call.headers.get('host')}{call.path}", headers, call.body
    )
    request.context["timestamp"] = call.headers["x-amz-date"]
    credentials = Credentials(key.id, key.secret, key.token)
    signer = SigV4Auth(credentials, found["service"], found["region"])
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))
