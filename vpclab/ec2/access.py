"""Who may call what: access keys, and the policies of whom they belong to. Shell.

Without a policy anyone may do everything, with any keys. With the first one calls must be signed
with keys that are known, and a role or user that has a policy may do what it says and no more; who
has none is an administrator.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from vpclab.ec2.backend import VpcBackend
from vpclab.ec2.credentials import LIFETIME, Call, Key, Keys, check_scope
from vpclab.ec2.resources import asks
from vpclab.iam import Ask, Policy, Verdict, decide, read
from vpclab.metadata import ROLE, Credentials


class UnauthorizedError(EC2ClientError):
    """EC2's answer to who may not."""

    status = 403


class Access:
    """The account's keys and policies. *now* is its clock, in UTC."""

    def __init__(self, backend: VpcBackend, now: Callable[[], dt.datetime]) -> None:
        self._backend = backend
        self._account: str = backend.account_id
        self.keys = Keys(self._account, now)
        self._policies: dict[str, tuple[Policy, ...]] = {}
        self.denials: dict[str, int] = {}
        """What was denied, in sentences, and how often."""

    @property
    def is_open(self) -> bool:
        """Whether anyone may do everything."""
        return not self._policies

    def restrict(self, principal: str, *documents: object) -> None:
        """Let `role/NAME` or `user/NAME` do what these policies allow together, and nothing else.

        Raises PolicyError, and changes nothing.
        """
        self._policies[principal] = tuple(
            read(document, f"policy {number}" if len(documents) > 1 else "the policy")
            for number, document in enumerate(documents, 1)
        )

    def unrestrict(self) -> None:
        """Let everyone do everything again."""
        self._policies.clear()

    def add_user(self, name: str, *documents: object) -> Key:
        """Make a user who may do what these policies allow, and return new keys of its own.

        Raises PolicyError.
        """
        key = Key(
            id=f"AKIA{secrets.token_hex(8).upper()}",
            secret=secrets.token_urlsafe(30),
            arn=f"arn:aws:iam::{self._account}:user/{name}",
            principal=f"user/{name}",
        )
        self.restrict(key.principal, *documents)
        self.keys.add(key)
        return key

    def profile(self, instance_id: str) -> Credentials:
        """Return the keys that an instance has from its profile this hour."""
        key = self.keys.of_instance(instance_id, ROLE)
        assert key.token is not None and key.until is not None  # noqa: S101, PT018 - a role's
        return Credentials(key.id, key.secret, key.token, key.until - LIFETIME, key.until)

    def caller(self, call: Call) -> Key | None:
        """Return whose *call* it is; None: it does not matter. Raises SignatureError."""
        check_scope(call, self._backend.region_name)
        return None if self.is_open else self.keys.owner(call)

    def check(self, caller: Key | None, action: str, parameters: Mapping[str, Any]) -> None:
        """Raise UnauthorizedError unless *caller*, None for an administrator, may do this."""
        policies = None if caller is None else self._policies.get(caller.principal)
        if caller is None or policies is None:
            return
        said = {"aws:PrincipalArn": self._role_or_user(caller)}
        said |= {f"aws:PrincipalTag/{key}": value for key, value in caller.tags}
        if caller.instance_id is not None:
            said["ec2:SourceInstanceARN"] = (
                f"arn:aws:ec2:{self._backend.region_name}:{self._account}"
                f":instance/{caller.instance_id}"
            )
        for ask in asks(self._backend, action, parameters, said):
            verdict = decide(policies, ask)
            if not verdict.allowed:
                raise self._denied(caller, ask, verdict)

    def _role_or_user(self, caller: Key) -> str:
        return f"arn:aws:iam::{self._account}:{caller.principal}"

    def _denied(self, caller: Key, ask: Ask, verdict: Verdict) -> UnauthorizedError:
        """Return EC2's words, which name action and resource, and ours, which name the condition.

        EC2's end in an encoded message that only the account's administrators can read.
        """
        because = (
            "with an explicit deny in an identity-based policy"
            if verdict.explicit
            else f"because no identity-based policy allows the {ask.action} action"
        )
        what = f"{ask.action} on resource: {ask.resource}"
        line = f"{caller.arn} may not {ask.action} on {ask.resource}: {verdict.reason}"
        self.denials[line] = self.denials.get(line, 0) + 1
        return UnauthorizedError(
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. User: {caller.arn} is not"
            f" authorized to perform: {what} {because}. The lab adds: {verdict.reason}.",
        )
