"""Policies of IAM: what the User Guide says of each element, operator and key, a case each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpclab.iam import Ask, PolicyError, Verdict, decide, folded, read

pytestmark = pytest.mark.row("IAM")

ENI = "arn:aws:ec2:us-east-1:123456789012:network-interface/eni-0a1"
SUBNET = "arn:aws:ec2:us-east-1:123456789012:subnet/subnet-0b2"
INSTANCE = "arn:aws:ec2:us-east-1:123456789012:instance/i-0c3"
CREATE = "ec2:CreateNetworkInterface"
ALLOW: dict[str, Any] = {"Effect": "Allow", "Action": "*", "Resource": "*"}
DENY = {**ALLOW, "Effect": "Deny"}


def asked(
    *statements: dict[str, Any],
    action: str = CREATE,
    resource: str = ENI,
    version: str = "2012-10-17",
    **context: Any,
) -> Verdict:
    """Return the verdict of one policy with these statements; in keys `__` is a colon, `_` a slash."""
    keys = {key.replace("__", ":").replace("_", "/"): value for key, value in context.items()}
    policy = read({"Version": version, "Statement": list(statements)})
    return decide([policy], Ask(action, resource, folded(keys)))


def under(condition: dict[str, Any], **context: Any) -> bool:
    """Return whether a statement that allows all under *condition* allows."""
    return asked({**ALLOW, "Condition": condition}, **context).allowed


# Policy evaluation logic ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("statements", "allowed", "explicit"),
    [
        pytest.param([], False, False, id="what-nobody-allows-is-denied"),
        pytest.param([ALLOW], True, False, id="one-allow-is-enough"),
        pytest.param([ALLOW, DENY], False, True, id="a-deny-wins-over-an-allow-before-it"),
        pytest.param([DENY, ALLOW], False, True, id="and-over-one-after-it"),
        pytest.param([DENY], False, True, id="a-deny-alone-denies"),
        pytest.param(
            [{**ALLOW, "Action": "ec2:Describe*"}, ALLOW], True, False, id="statements-are-or"
        ),
        pytest.param(
            [ALLOW, {**DENY, "Condition": {"StringEquals": {"ec2:Region": "eu-west-1"}}}], True, False,
            id="a-deny-whose-condition-is-not-met-does-not-count",
        ),
    ],
)  # fmt: skip
def test_a_deny_wins_then_an_allow_and_the_rest_is_denied(
    statements: list[dict[str, Any]], *, allowed: bool, explicit: bool
) -> None:
    verdict = asked(*statements, ec2__Region="us-east-1")
    assert (verdict.allowed, verdict.explicit) == (allowed, explicit)


def test_policies_are_evaluated_together() -> None:
    allow, deny = (read({"Version": "2012-10-17", "Statement": s}) for s in (ALLOW, DENY))
    ask = Ask(CREATE, ENI, {})
    assert decide([allow], ask).allowed
    assert not decide([allow, deny], ask).allowed
    assert not decide([], ask).allowed


# Action, NotAction ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("element", "action", "allowed"),
    [
        pytest.param({"Action": "ec2:CreateNetworkInterface"}, CREATE, True, id="its-name"),
        pytest.param({"Action": "EC2:createnetworkinterface"}, CREATE, True, id="case-is-ignored"),
        pytest.param({"Action": "ec2:*NetworkInterface"}, CREATE, True, id="star-in-front"),
        pytest.param({"Action": "ec2:Create?etworkInterface"}, CREATE, True, id="question-mark"),
        pytest.param({"Action": "ec2:Create"}, CREATE, False, id="a-part-is-not-all"),
        pytest.param({"Action": "s3:*"}, CREATE, False, id="another-service"),
        pytest.param({"Action": ["ec2:Describe*", "ec2:Create*"]}, CREATE, True, id="one-of-a-list"),
        pytest.param({"NotAction": "ec2:Describe*"}, CREATE, True, id="all-but"),
        pytest.param({"NotAction": ["ec2:Describe*", "ec2:Create*"]}, CREATE, False, id="but-it"),
    ],
)  # fmt: skip
def test_actions(element: dict[str, Any], action: str, *, allowed: bool) -> None:
    assert asked({"Effect": "Allow", "Resource": "*", **element}, action=action).allowed == allowed


# Resource, NotResource --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("element", "resource", "allowed"),
    [
        pytest.param({"Resource": "*"}, ENI, True, id="all"),
        pytest.param({"Resource": ENI}, ENI, True, id="its-arn"),
        pytest.param({"Resource": ENI.replace("eni-", "ENI-")}, ENI, False, id="case-counts"),
        pytest.param({"Resource": "arn:aws:ec2:*:*:network-interface/*"}, ENI, True, id="a-type"),
        pytest.param({"Resource": "arn:aws:ec2:*:*:network-interface/*"}, SUBNET, False, id="other"),
        pytest.param({"Resource": "arn:aws:ec2:*"}, ENI, True, id="a-star-at-the-end-goes-on"),
        pytest.param({"Resource": "arn:aws:ec2:*:subnet/*"}, SUBNET, True, id="and-at-a-parts-end"),
        pytest.param({"Resource": "arn:aws:ec2:u*1:*:*/*"}, ENI, True, id="inside-a-part"),
        pytest.param({"Resource": "arn:aws:ec2:*1:subnet/*"}, SUBNET, False, id="not-over-a-colon"),
        pytest.param({"Resource": "arn:aws:ec2:*:*:subnet/subnet-0?2"}, SUBNET, True, id="one-sign"),
        pytest.param({"Resource": [SUBNET, ENI]}, ENI, True, id="one-of-a-list"),
        pytest.param({"Resource": "*"}, "*", True, id="an-action-without-resources"),
        pytest.param({"Resource": ENI}, "*", False, id="which-an-arn-does-not-give"),
        pytest.param({"NotResource": SUBNET}, ENI, True, id="all-but"),
        pytest.param({"NotResource": ["arn:aws:ec2:*:*:subnet/*", ENI]}, ENI, False, id="but-it"),
    ],
)  # fmt: skip
def test_resources(element: dict[str, Any], resource: str, *, allowed: bool) -> None:
    statement = {"Effect": "Allow", "Action": "*", **element}
    assert asked(statement, resource=resource).allowed == allowed


# Condition operators ----------------------------------------------------------------------------
KEY = "aws:ResourceTag/team"


@pytest.mark.parametrize(
    ("operator", "wanted", "same", "other", "absent"),
    [
        pytest.param("StringEquals", "a", "a", "A", False, id="equals"),
        pytest.param("StringEquals", "a*", "a*", "ab", False, id="equals-has-no-wildcards"),
        pytest.param("StringNotEquals", "a", "b", "a", True, id="not-equals"),
        pytest.param("StringEqualsIgnoreCase", "a", "A", "b", False, id="equals-without-case"),
        pytest.param("StringNotEqualsIgnoreCase", "a", "b", "A", True, id="not-without-case"),
        pytest.param("StringLike", "a*c?", "abbcd", "abbc", False, id="like"),
        pytest.param("StringLike", "*", "", None, False, id="like-anything-that-is-there"),
        pytest.param("StringNotLike", "a*", "b", "ab", True, id="not-like"),
        pytest.param("Bool", "true", "True", "false", False, id="bool"),
        pytest.param("Bool", False, "false", "true", False, id="bool-of-json"),
    ],
)
def test_operators_and_absent_keys(
    operator: str, wanted: str, same: str, other: str | None, *, absent: bool
) -> None:
    condition = {operator: {KEY: wanted}}
    assert under(condition, aws__ResourceTag_team=same)
    assert other is None or not under(condition, aws__ResourceTag_team=other)
    assert under(condition) == absent
    assert under({f"{operator}IfExists": {KEY: wanted}})
    assert other is None or not under(
        {f"{operator}IfExists": {KEY: wanted}}, aws__ResourceTag_team=other
    )


@pytest.mark.parametrize("operator", ["ArnEquals", "ArnLike"])
@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        pytest.param(SUBNET, True, id="itself"),
        pytest.param("arn:aws:ec2:*:*:subnet/*", True, id="parts"),
        pytest.param("arn:aws:ec2:us-east-?:*:subnet/subnet-*", True, id="wildcards-in-parts"),
        pytest.param("arn:aws:ec2:*:subnet/*", False, id="a-star-stays-in-its-part"),
        pytest.param("arn:aws:ec2:us-east-1?123456789012:subnet/subnet-0b2", False, id="one-too"),
        pytest.param("arn:aws:ec2:*:*:instance/*", False, id="another"),
    ],
)
def test_arns_are_compared_part_by_part(operator: str, wanted: str, *, fits: bool) -> None:
    negated = operator.replace("Arn", "ArnNot")
    assert under({operator: {"ec2:Subnet": wanted}}, ec2__Subnet=SUBNET) == fits
    assert under({negated: {"ec2:Subnet": wanted}}, ec2__Subnet=SUBNET) != fits
    assert not under({operator: {"ec2:Subnet": wanted}})
    assert under({negated: {"ec2:Subnet": wanted}})


def test_a_colon_in_a_variables_name_parts_no_arn() -> None:
    condition = {"ArnLike": {"ec2:Subnet": "arn:aws:ec2:${aws:RequestedRegion}:*:subnet/a"}}
    keys = {"aws__RequestedRegion": "us-east-1"}
    assert under(condition, ec2__Subnet="arn:aws:ec2:us-east-1:1:subnet/a", **keys)
    assert not under(condition, ec2__Subnet="arn:aws:ec2:us-east-1:1:x:subnet/a", **keys)


def test_the_last_part_of_an_arn_may_have_colons() -> None:
    arn = "arn:aws:ec2:r:1:a/b:c"
    assert under({"ArnLike": {"aws:ARN": "arn:aws:ec2:*:*:a/*"}}, aws__ARN=arn)


@pytest.mark.parametrize(
    ("wanted", "there", "met"),
    [("true", False, True), ("true", True, False), ("false", True, True), ("false", False, False)],
)
def test_null_asks_whether_a_key_is_away(wanted: str, *, there: bool, met: bool) -> None:
    context = {"aws__RequestTag_team": "a"} if there else {}
    assert under({"Null": {"aws:RequestTag/team": wanted}}, **context) == met


def test_keys_ignore_case_and_so_do_tags_in_them() -> None:
    assert under({"StringEquals": {"AWS:resourcetag/Team": "a"}}, aws__ResourceTag_team="a")


# Several keys and values ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("condition", "met"),
    [
        pytest.param({"StringEquals": {KEY: ["b", "a"]}}, True, id="values-are-or"),
        pytest.param({"StringNotEquals": {KEY: ["b", "a"]}}, False, id="negated-values-are-nor"),
        pytest.param({"StringNotEquals": {KEY: ["b", "c"]}}, True, id="none-of-them"),
        pytest.param({"StringEquals": {KEY: "a", "ec2:Region": "r"}}, True, id="keys-are-and"),
        pytest.param({"StringEquals": {KEY: "a", "ec2:Region": "s"}}, False, id="both-keys"),
        pytest.param(
            {"StringEquals": {KEY: "a"}, "StringLike": {"ec2:Region": "s"}}, False,
            id="operators-are-and",
        ),
        pytest.param(
            {"StringEquals": {KEY: "a"}, "StringLike": {"ec2:Region": "?"}}, True, id="both-are"
        ),
    ],
)  # fmt: skip
def test_several_keys_and_values(condition: dict[str, Any], *, met: bool) -> None:
    assert under(condition, aws__ResourceTag_team="a", ec2__Region="r") == met


@pytest.mark.parametrize(
    ("operator", "keys", "met"),
    [
        pytest.param("ForAllValues:StringEquals", ("a", "b"), True, id="all-are-listed"),
        pytest.param("ForAllValues:StringEquals", ("a", "x"), False, id="one-is-not"),
        pytest.param("ForAllValues:StringEquals", (), True, id="all-of-none"),
        pytest.param("ForAnyValue:StringEquals", ("a", "x"), True, id="one-is-listed"),
        pytest.param("ForAnyValue:StringEquals", ("x", "y"), False, id="none-is"),
        pytest.param("ForAnyValue:StringEquals", (), False, id="any-of-none"),
        pytest.param("ForAnyValue:StringEqualsIfExists", (), False, id="any-of-none-if-exists"),
        pytest.param("ForAllValues:StringNotEquals", ("x", "y"), True, id="none-of-all"),
        pytest.param("ForAllValues:StringNotEquals", ("x", "a"), False, id="one-of-all"),
        pytest.param("ForAnyValue:StringNotEquals", ("x", "a"), True, id="one-is-another"),
        pytest.param("ForAnyValue:StringNotEquals", ("b", "a"), False, id="none-is-another"),
        pytest.param("ForAnyValue:StringLike", ("aa", "y"), False, id="like-is-of-whole-values"),
    ],
)
def test_sets(operator: str, keys: tuple[str, ...], *, met: bool) -> None:
    assert under({operator: {"aws:TagKeys": ["a", "b"]}}, aws__TagKeys=keys) == met


# Variables --------------------------------------------------------------------------------------
OWN = "arn:aws:ec2:*:*:instance/${aws:ResourceTag/node}"


def test_a_variable_is_a_keys_value() -> None:
    condition = {"ArnLike": {"ec2:SourceInstanceARN": OWN}}
    assert under(condition, ec2__SourceInstanceARN=INSTANCE, aws__ResourceTag_node="i-0c3")
    assert not under(condition, ec2__SourceInstanceARN=INSTANCE, aws__ResourceTag_node="i-0c4")


def test_a_callers_tag_is_compared_with_a_resources() -> None:
    condition = {"StringEquals": {KEY: "${aws:PrincipalTag/team}"}}
    assert under(condition, aws__ResourceTag_team="a", aws__PrincipalTag_team="a")
    assert not under(condition, aws__ResourceTag_team="a", aws__PrincipalTag_team="b")
    assert not under(condition, aws__ResourceTag_team="a")


def test_a_variable_whose_key_is_away_matches_nothing() -> None:
    assert not under({"ArnLike": {"ec2:SourceInstanceARN": OWN}}, ec2__SourceInstanceARN=INSTANCE)
    assert not asked({**ALLOW, "Resource": "arn:aws:ec2:*:*:instance/${aws:RequestTag/x}"}).allowed


def test_an_unknown_variable_in_a_negated_condition_neither_allows_nor_lets_pass() -> None:
    condition = {"StringNotEquals": {KEY: "${aws:RequestTag/x}"}}
    assert not under(condition, aws__ResourceTag_team="a")
    assert not asked(ALLOW, {**DENY, "Condition": condition}, aws__ResourceTag_team="a").allowed


def test_an_unknown_variable_in_not_resource_neither_allows_nor_lets_pass() -> None:
    but = {"Action": "*", "NotResource": "arn:aws:ec2:*:*:subnet/${aws:RequestTag/x}"}
    assert not asked({"Effect": "Allow", **but}).allowed
    assert not asked(ALLOW, {"Effect": "Deny", **but}).allowed


def test_a_variable_may_have_a_default() -> None:
    assert under({"StringEquals": {KEY: "${aws:RequestTag/x, 'a'}"}}, aws__ResourceTag_team="a")


@pytest.mark.parametrize("variable", ["${aws:TagKeys}", "${a b}", "${aws:username, 'x'}", "${}"])
def test_a_variable_of_no_known_key_or_of_several_values_is_an_error(variable: str) -> None:
    for change in (
        {"Resource": f"arn:aws:ec2:*:*:instance/{variable}"},
        {"Condition": {"StringLike": {KEY: ["a", f"b{variable}"]}}},
    ):
        with pytest.raises(PolicyError) as caught:
            asked(ALLOW, {**DENY, **change})
        assert f"statement 2: the variable {variable} is not modelled" in str(caught.value)
        read({"Version": "2008-10-17", "Statement": {**DENY, **change}})


def test_what_a_variable_stands_for_has_no_wildcards() -> None:
    condition = {"StringLike": {KEY: "${aws:RequestTag/x}"}}
    assert not under(condition, aws__ResourceTag_team="abc", aws__RequestTag_x="a*")
    assert under(condition, aws__ResourceTag_team="a*", aws__RequestTag_x="a*")


def test_signs_stand_for_themselves() -> None:
    assert under({"StringLike": {KEY: "a${*}${?}${$}"}}, aws__ResourceTag_team="a*?$")
    assert not under({"StringLike": {KEY: "a${*}"}}, aws__ResourceTag_team="abc")


def test_the_old_language_has_no_variables() -> None:
    statement = {**ALLOW, "Condition": {"StringEquals": {KEY: "${aws:RequestTag/x}"}}}
    context = {"aws__ResourceTag_team": "a", "aws__RequestTag_x": "a"}
    assert asked(statement, **context).allowed
    assert not asked(statement, version="2008-10-17", **context).allowed


# What cannot be read ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"Effect": "Maybe"}, "Effect is 'Maybe'", id="effect"),
        pytest.param({"Effect": ["Allow"]}, "Effect is ['Allow']", id="effects"),
        pytest.param({"Action": "CreateNetworkInterface"}, "not SERVICE:ACTION", id="action"),
        pytest.param({"Action": []}, "Action is no text", id="no-action"),
        pytest.param({"Action": 7}, "Action is no text", id="a-number"),
        pytest.param({"NotAction": "*"}, "it needs Action or NotAction, one", id="two-actions"),
        pytest.param({"Resource": "eni-1"}, "'eni-1' is no ARN", id="resource"),
        pytest.param({"NotResource": "*"}, "it needs Resource or NotResource", id="two-resources"),
        pytest.param({"Principal": "*"}, "has no element Principal", id="principal"),
        pytest.param({"Condition": []}, "Condition is no JSON object", id="condition"),
        pytest.param(
            {"Condition": {"StringEquals": "a"}}, "StringEquals is no JSON object", id="no-keys"
        ),
        pytest.param(
            {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}},
            "the condition operator IpAddress is not modelled", id="operator",
        ),
        pytest.param(
            {"Condition": {"ForSomeValues:StringLike": {"aws:TagKeys": "a"}}},
            "the condition operator ForSomeValues:StringLike is not modelled", id="set-operator",
        ),
        pytest.param(
            {"Condition": {"StringEquals": {"ec2:Sunet": "a"}}},
            "the condition key ec2:Sunet is not modelled", id="key",
        ),
        pytest.param(
            {"Condition": {"StringEquals": {"aws:TagKeys": "a"}}},
            "aws:TagKeys has several values", id="several-values-as-one",
        ),
        pytest.param(
            {"Condition": {"ArnLike": {"ec2:Vpc": "*"}}}, "ec2:Vpc compares with ARNs only", id="arn"
        ),
        pytest.param(
            {"Condition": {"NullIfExists": {KEY: "true"}}}, "NullIfExists makes no sense", id="null"
        ),
    ],
)  # fmt: skip
def test_what_is_not_known_is_an_error_and_no_allow(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PolicyError, match="statement 1") as caught:
        read({"Version": "2012-10-17", "Statement": {**ALLOW, **changes}})
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        pytest.param([], "it is no JSON object", id="a-list"),
        pytest.param({"Version": "2024-01-01", "Statement": ALLOW}, "Version is", id="version"),
        pytest.param({"Version": "2012-10-17"}, "statement 1: it is no JSON", id="no-statement"),
        pytest.param({"Statement": ALLOW, "Statements": []}, "no element Statements", id="element"),
    ],
)
def test_a_document_that_is_none(document: object, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        read(document)


def test_every_complaint_comes_at_once_and_says_where() -> None:
    bad = {"Sid": "Enis", "Effect": "Allow", "Action": "x", "Resource": "y"}
    with pytest.raises(PolicyError) as caught:
        read({"Version": "2012-10-17", "Statement": [ALLOW, bad]}, "node.json")
    assert str(caught.value) == (
        "node.json, statement Enis: 'x' is not SERVICE:ACTION;"
        " node.json, statement Enis: 'y' is no ARN"
    )


# What a denial says -----------------------------------------------------------------------------
def test_a_denial_names_what_came_closest() -> None:
    tagged = {
        "Sid": "Own", "Effect": "Allow", "Action": "ec2:Delete*", "Resource": "*",
        "Condition": {"StringEquals": {KEY: "a"}},
    }  # fmt: skip
    subnets = {**ALLOW, "Sid": "Subnets", "Resource": "arn:aws:ec2:*:*:subnet/*"}
    context = {"aws__ResourceTag_team": "b"}
    assert asked(tagged).reason == "no statement allows the action"
    assert asked(tagged, subnets).reason == (
        "statement Subnets allows it only on arn:aws:ec2:*:*:subnet/*"
    )
    delete = "ec2:DeleteNetworkInterface"
    assert asked(subnets, tagged, action=delete, **context).reason == (
        "statement Own allows it only if StringEquals aws:ResourceTag/team 'a' (it is 'b')"
    )
    assert asked(tagged, subnets, action=delete).reason == (
        "statement Own allows it only if StringEquals aws:ResourceTag/team 'a' (it is not there)"
    )
    but = {"Effect": "Allow", "Action": "*", "NotResource": ENI}
    assert asked(but).reason == f"statement 1 allows it only on all but {ENI}"
    assert asked(ALLOW, {**DENY, "Sid": "No"}).reason == "statement No denies it"
    assert asked(ALLOW).reason == "statement 1 allows it"


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"ForAnyValue:StringLikeIfExists": {"aws:TagKeys": ["a", "b"]}},
         "if ForAnyValue:StringLikeIfExists aws:TagKeys 'a' or 'b' (it is 'x' and 'y')"),
        ({"Null": {"aws:TagKeys": "true"}}, "if Null aws:TagKeys 'true' (it is 'x' and 'y')"),
    ],
)  # fmt: skip
def test_a_condition_is_said_as_it_was_written(condition: dict[str, Any], words: str) -> None:
    verdict = asked({**ALLOW, "Condition": condition}, aws__TagKeys=("x", "y"))
    assert verdict.reason == f"statement 1 allows it only {words}"


def test_a_denial_says_what_variables_stand_for() -> None:
    statement = {**ALLOW, "Condition": {"ArnLike": {"ec2:SourceInstanceARN": OWN}}}
    variable = "${aws:ResourceTag/node}"
    begin = (
        f"statement 1 allows it only if ArnLike ec2:SourceInstanceARN '{OWN}' (it is '{INSTANCE}'"
    )
    context = {"ec2__SourceInstanceARN": INSTANCE}
    assert asked(statement, **context).reason == f"{begin}; {variable} has no value)"
    assert asked(statement, **context, aws__ResourceTag_node="i-0c4").reason == (
        f"{begin}; {variable} is 'i-0c4')"
    )
    assert asked(statement, version="2008-10-17", **context).reason == f"{begin})"


# Laws -------------------------------------------------------------------------------------------
STATEMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "Effect": st.sampled_from(["Allow", "Deny"]),
            "Action": st.sampled_from(["*", "ec2:*", CREATE, "ec2:Delete*", "s3:*"]),
            "Resource": st.sampled_from(["*", ENI, SUBNET, "arn:aws:ec2:*:*:network-interface/*"]),
            "Condition": st.sampled_from(
                [{}, {"StringEquals": {KEY: "a"}}, {"StringNotEquals": {KEY: "a"}}]
            ),
        }
    ),
    max_size=5,
)


@given(STATEMENTS, st.sampled_from([{}, {"aws__ResourceTag_team": "a"}]), st.randoms())
def test_the_order_of_statements_does_not_matter(
    statements: list[dict[str, Any]], context: dict[str, str], chance: Any
) -> None:
    shuffled = list(statements)
    chance.shuffle(shuffled)
    assert asked(*statements, **context).allowed == asked(*shuffled, **context).allowed


@given(STATEMENTS, st.sampled_from([{}, {"aws__ResourceTag_team": "a"}]))
def test_a_deny_more_never_allows_more(
    statements: list[dict[str, Any]], context: dict[str, str]
) -> None:
    more = asked(*statements, {**DENY, "Resource": ENI}, **context)
    assert not more.allowed


@given(st.text(max_size=12))
def test_a_text_equals_itself_and_is_like_itself(text: str) -> None:
    assert under({"StringEquals": {KEY: text.replace("$", "")}},
                 aws__ResourceTag_team=text.replace("$", ""))  # fmt: skip
    literal = text.replace("$", "")
    escaped = literal.replace("?", "${?}").replace("*", "${*}")
    assert under({"StringLike": {KEY: escaped}}, aws__ResourceTag_team=literal)
