"""Identity-based policies of IAM, as far as EC2 needs them: read, and asked. Pure.

    policy = read(json.loads(text))
    verdict = decide([policy], Ask("ec2:CreateNetworkInterface", arn, context))

The rules are those of the IAM User Guide: "Policy evaluation logic", "IAM JSON policy elements:
Condition operators", "Multiple context keys or values", "Policy variables". An element, operator or
key that is not known here is an error when the policy is read, in a variable too, and never an
allow.

It is long because the two halves, reading and asking, share one vocabulary: what one accepts the
other must be able to ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Effect = Literal["Allow", "Deny"]
Values = tuple[str, ...]
Context = Mapping[str, Values]
"""What a request says of itself, by a key's name as `folded`."""

SINGLE = frozenset({
    "aws:arn", "aws:principalarn", "aws:requestedregion", "aws:securetransport",
    "aws:viaawsservice", "ec2:arn", "ec2:associatepublicipaddress", "ec2:availabilityzone",
    "ec2:createaction", "ec2:instanceid", "ec2:instancetype", "ec2:networkinterfaceid",
    "ec2:region", "ec2:securitygroupid", "ec2:sourceinstancearn", "ec2:subnet", "ec2:subnetid",
    "ec2:vpc", "ec2:vpcid",
})  # fmt: skip
"""Keys with one value. They are the Service Authorization Reference's for EC2, and global ones;
`aws:ARN` and `ec2:ARN`, the resource's own ARN, are not in it: public policies use the first."""

TAGS = ("aws:principaltag/", "aws:requesttag/", "aws:resourcetag/", "ec2:resourcetag/")
"""What keys that name a tag begin with: the caller's, the request's, the resource's."""

SEVERAL = frozenset({"aws:tagkeys"})
"""Keys with any number of values, which only set operators can compare."""

VERSIONS = ("2012-10-17", "2008-10-17")
"""Versions of the policy language. Only the first knows variables."""

EFFECTS = ("Allow", "Deny")
VARIABLE = re.compile(r"\$\{([^}]*)\}")
DEFAULT = re.compile(r"\s*([^\s,]+)\s*(?:,\s*'([^']*)'\s*)?")
SIGNS = ("*", "?", "$")
"""What a variable can be named that stands for itself."""
ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}


class PolicyError(ValueError):
    """An IAM policy cannot be read or has what is not modelled: its text names each part."""

    id = "LAB-POLICY"


@dataclass(frozen=True, slots=True)
class Operator:
    """How a condition compares: *style* is how its values are read, see `_pattern`."""

    name: str
    style: Literal["text", "like", "arn", "null"]
    negated: bool = False
    ignores_case: bool = False


OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("StringEquals", "text"),
        Operator("StringNotEquals", "text", negated=True),
        Operator("StringEqualsIgnoreCase", "text", ignores_case=True),
        Operator("StringNotEqualsIgnoreCase", "text", negated=True, ignores_case=True),
        Operator("StringLike", "like"),
        Operator("StringNotLike", "like", negated=True),
        Operator("ArnEquals", "arn"),
        Operator("ArnLike", "arn"),
        Operator("ArnNotEquals", "arn", negated=True),
        Operator("ArnNotLike", "arn", negated=True),
        Operator("Bool", "text", ignores_case=True),
        Operator("Null", "null"),
    )
}
"""ArnEquals and ArnLike are one operator in IAM, too."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of one operator, and the values of which one must match."""

    operator: Operator
    over: Literal["", "ForAllValues", "ForAnyValue"]
    if_exists: bool
    key: str
    values: Values

    def __str__(self) -> str:
        name = f"{self.over}:{self.operator.name}" if self.over else self.operator.name
        suffix = "IfExists" if self.if_exists else ""
        return f"{name}{suffix} {self.key} {' or '.join(map(repr, self.values))}"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement; *all_but_actions* and *all_but_resources* mean NotAction and NotResource."""

    name: str
    effect: Effect
    actions: Values
    resources: Values
    conditions: tuple[Condition, ...]
    all_but_actions: bool = False
    all_but_resources: bool = False
    has_variables: bool = True


Policy = tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked: may this *action* (`ec2:…`) be done with the resource of this ARN?"""

    action: str
    resource: str
    context: Context


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it may, and why, in words that name statement and condition."""

    allowed: bool
    explicit: bool
    reason: str


def folded(context: Mapping[str, str | Iterable[str]]) -> Context:
    """Return a context by names in lower case: names of keys, tags' too, ignore case."""
    return {
        name.lower(): (values,) if isinstance(values, str) else tuple(values)
        for name, values in context.items()
    }


# Reading ----------------------------------------------------------------------------------------
def read(document: object, name: str = "the policy") -> Policy:
    """Return the policy of a JSON *document*. Raises PolicyError with every complaint at once."""
    reader = _Reader(name)
    policy = tuple(reader.statements(document))
    if reader.complaints:
        raise PolicyError("; ".join(reader.complaints))
    return policy


class _Reader:
    """Reads one document and gathers what is wrong with it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.complaints: list[str] = []

    def _complain(self, where: str, text: str) -> None:
        self.complaints.append(f"{self._name}, {where}: {text}")

    def statements(self, document: object) -> Iterator[Statement]:
        """Yield its statements, without those that cannot be read."""
        if not isinstance(document, Mapping):
            self._complain("document", "it is no JSON object")
            return
        for element in sorted(set(document) - {"Version", "Id", "Statement"}):
            self._complain("document", f"there is no element {element}")
        version = document.get("Version", VERSIONS[1])
        if version not in VERSIONS:
            self._complain("document", f"Version is {version!r}, not one of {', '.join(VERSIONS)}")
        listed = document.get("Statement")
        for number, raw in enumerate(listed if isinstance(listed, list) else [listed], 1):
            if not isinstance(raw, Mapping):
                self._complain(f"statement {number}", "it is no JSON object")
                continue
            where = f"statement {raw.get('Sid') or number}"
            yield self._statement(raw, where, has_variables=version == VERSIONS[0])

    def _statement(self, raw: Mapping[str, Any], where: str, *, has_variables: bool) -> Statement:
        for element in sorted(set(raw) - ELEMENTS):
            self._complain(where, f"an identity-based policy has no element {element}")
        effect = raw.get("Effect")
        if effect not in EFFECTS:
            self._complain(where, f"Effect is {effect!r}, not Allow or Deny")
        actions = self._either(raw, where, "Action", "NotAction")
        for action in actions:
            if action != "*" and not re.fullmatch(r"[a-z0-9-]+:[\w*?]+", action, re.IGNORECASE):
                self._complain(where, f"'{action}' is not SERVICE:ACTION")
        resources = self._either(raw, where, "Resource", "NotResource")
        for resource in resources:
            if resource != "*" and not resource.startswith("arn:"):
                self._complain(where, f"'{resource}' is no ARN")
        conditions = tuple(self._conditions(raw.get("Condition", {}), where))
        if has_variables:
            self._check_variables((*resources, *(v for c in conditions for v in c.values)), where)
        return Statement(
            name=where,
            effect=effect or "Deny",
            actions=actions,
            resources=resources,
            conditions=conditions,
            all_but_actions="NotAction" in raw,
            all_but_resources="NotResource" in raw,
            has_variables=has_variables,
        )

    def _either(self, raw: Mapping[str, Any], where: str, one: str, other: str) -> Values:
        given = [name for name in (one, other) if name in raw]
        if len(given) != 1:
            self._complain(where, f"it needs {one} or {other}, one of them")
            return ()
        return self._texts(raw[given[0]], where, given[0])

    def _texts(self, value: object, where: str, what: str) -> Values:
        listed = value if isinstance(value, list) else [value]
        texts = [str(v).lower() if isinstance(v, bool) else v for v in listed]
        if not texts or not all(isinstance(text, str) for text in texts):
            self._complain(where, f"{what} is no text, nor a list of texts")
            return ()
        return tuple(str(text) for text in texts)

    def _conditions(self, raw: object, where: str) -> Iterator[Condition]:
        if not isinstance(raw, Mapping):
            self._complain(where, "Condition is no JSON object")
            return
        for written, tests in raw.items():
            over, _, rest = written.rpartition(":")
            name = rest.removesuffix("IfExists")
            operator = OPERATORS.get(name)
            if operator is None or over not in {"", "ForAllValues", "ForAnyValue"}:
                self._complain(where, f"the condition operator {written} is not modelled")
            elif not isinstance(tests, Mapping):
                self._complain(where, f"{written} is no JSON object")
            elif operator.style == "null" and written != name:
                self._complain(where, f"{written} makes no sense: Null is asked of a key alone")
            else:
                for key, values in tests.items():
                    self._check_key(key, where, alone=not over and operator.style != "null")
                    texts = self._texts(values, where, f"{written} {key}")
                    if operator.style == "arn" and not all(map(_is_arn, texts)):
                        self._complain(where, f"{written} {key} compares with ARNs only")
                    yield Condition(operator, over, rest != name, key, texts)

    def _check_key(self, key: str, where: str, *, alone: bool) -> None:
        if key.lower() in SEVERAL and alone:
            self._complain(
                where, f"{key} has several values: put ForAllValues: or ForAnyValue: before it"
            )
        elif key.lower() not in SEVERAL and not _has_one_value(key):
            self._complain(where, f"the condition key {key} is not modelled")

    def _check_variables(self, texts: Iterable[str], where: str) -> None:
        """Complain of variables without a known key of one value: a Deny would never apply."""
        for variable in (found for text in texts for found in VARIABLE.findall(text)):
            key = DEFAULT.fullmatch(variable)
            if variable not in SIGNS and (key is None or not _has_one_value(key[1])):
                self._complain(where, f"the variable ${{{variable}}} is not modelled")


def _has_one_value(key: str) -> bool:
    """Return whether *key* is known, and has one value at most."""
    return key.lower() in SINGLE or key.lower().startswith(TAGS)


def _is_arn(text: str) -> bool:
    """Return whether *text* may stand for ARNs. What AWS makes of another is not documented."""
    return text.startswith(("arn:", "${"))


# Asking -----------------------------------------------------------------------------------------
def decide(policies: Iterable[Policy], ask: Ask) -> Verdict:
    """Return whether *policies* together allow what is asked: a Deny wins, then an Allow."""
    statements = [statement for policy in policies for statement in policy]
    missed: tuple[int, str] = (0, "no statement allows the action")
    allowed = None
    for statement in statements:
        reached, why = _reach(statement, ask)
        if statement.effect == "Deny":
            if reached == _ALL:
                return Verdict(allowed=False, explicit=True, reason=f"{statement.name} denies it")
        elif reached == _ALL:
            allowed = allowed or statement
        elif reached > missed[0]:
            missed = reached, f"{statement.name} allows it only {why}"
    if allowed is not None:
        return Verdict(allowed=True, explicit=False, reason=f"{allowed.name} allows it")
    return Verdict(allowed=False, explicit=False, reason=missed[1])


_ALL = 3
"""How far a statement goes that applies: action, resource and conditions fit."""


def _reach(statement: Statement, ask: Ask) -> tuple[int, str]:
    """Return how far a statement goes with what is asked, and what stops it."""
    if _names(statement.actions, ask.action) == statement.all_but_actions:
        return 0, ""
    if not _is_about(statement, ask):
        but = "all but " if statement.all_but_resources else ""
        return 1, f"on {but}{', '.join(statement.resources)}"
    for condition in statement.conditions:
        if not _holds(condition, ask.context, statement):
            values = ask.context.get(condition.key.lower())
            has = f"it is {' and '.join(map(repr, values))}" if values else "it is not there"
            where = "".join(_said(condition, ask.context)) if statement.has_variables else ""
            return 2, f"if {condition} ({has}{where})"
    return _ALL, ""


def _said(condition: Condition, context: Context) -> Iterator[str]:
    """Yield what the variables of a condition stand for, as its end."""
    found = (v for text in condition.values for v in VARIABLE.findall(text) if v not in SIGNS)
    for variable in dict.fromkeys(found):
        value = _value(variable, context)
        yield f"; ${{{variable}}} {'has no value' if value is None else f'is {value!r}'}"


def _is_about(statement: Statement, ask: Ask) -> bool:
    """Return whether a statement is about the resource that is asked about."""
    context = ask.context if statement.has_variables else None
    patterns = [_pattern(text, "resource", context) for text in statement.resources]
    if statement.all_but_resources and _is_unsafe(statement, patterns):
        return False
    fits = any(p is not None and p.fullmatch(ask.resource) for p in patterns)
    return fits != statement.all_but_resources


def _is_unsafe(statement: Statement, patterns: list[re.Pattern[str] | None]) -> bool:
    """Return whether an Allow for all but some would allow for want of a variable's value.

    That it does not apply then is ours, on the safe side: the guide does not say.
    """
    return statement.effect == "Allow" and None in patterns


def _names(actions: Values, action: str) -> bool:
    return any(_glob(pattern, re.IGNORECASE).fullmatch(action) for pattern in actions)


def _glob(text: str, flags: int = 0) -> re.Pattern[str]:
    signs = {"*": ".*", "?": "."}
    return re.compile("".join(signs.get(c) or re.escape(c) for c in text), flags | re.DOTALL)


def _holds(condition: Condition, context: Context, statement: Statement) -> bool:
    """Return whether a condition is met.

    A key that is not there meets negated operators, IfExists and ForAllValues, and no other.
    """
    values = context.get(condition.key.lower(), ())
    operator = condition.operator
    if operator.style == "null":
        return str(not values).lower() in {value.lower() for value in condition.values}
    known = context if statement.has_variables else None
    flags = re.IGNORECASE if operator.ignores_case else 0
    patterns = [_pattern(text, operator.style, known, flags) for text in condition.values]
    if operator.negated and _is_unsafe(statement, patterns):
        return False

    def fits(value: str) -> bool:
        found = any(p is not None and p.fullmatch(value) for p in patterns)
        return found != operator.negated

    match condition.over:
        case "ForAllValues":
            return all(map(fits, values))
        case "ForAnyValue":
            return any(map(fits, values))
        case _ if not values:
            return condition.if_exists or operator.negated
        case _:
            return fits(values[0])


def _pattern(
    text: str,
    style: Literal["text", "like", "arn", "resource"],
    context: Context | None,
    flags: int = 0,
) -> re.Pattern[str] | None:
    """Return what *text* matches; None if a variable in it has no value.

    A wildcard is one in a `like`, and in an `arn` within one of its six parts; in a `resource` one
    that ends a part goes on beyond its colon. What a variable stands for has no wildcards. Without
    a *context* there are no variables.
    """
    pieces: list[str] = []
    end = 0
    for variable in VARIABLE.finditer(text) if context is not None else ():
        value = _value(variable[1], context or {})
        if value is None:
            return None
        pieces += [_signs(text, end, variable.start(), style), re.escape(value)]
        end = variable.end()
    pieces.append(_signs(text, end, len(text), style))
    return re.compile("".join(pieces), flags | re.DOTALL)


def _value(variable: str, context: Context) -> str | None:
    """Return what a variable stands for: a sign, a key's one value, or its default."""
    if variable in SIGNS:
        return variable
    found = DEFAULT.fullmatch(variable)
    assert found is not None  # noqa: S101 - `read` complains of others
    return next(iter(context.get(found[1].lower(), ())), found[2])


def _signs(text: str, start: int, end: int, style: str) -> str:
    """Return text[start:end] as a regular expression."""
    return "".join(_sign(text, place, style) for place in range(start, end))


def _sign(text: str, place: int, style: str) -> str:
    sign = text[place]
    if sign not in "*?" or style == "text":
        return re.escape(sign)
    wide = {
        "like": True,
        "arn": VARIABLE.sub("", text[:place]).count(":") >= ARN_COLONS,
        "resource": text[place + 1 : place + 2] in {":", ""},
    }[style]
    one = "." if wide else "[^:]"
    return one if sign == "?" else f"{one}*"


ARN_COLONS = 5
"""How many colons part the six parts of an ARN; the last part may have more."""
