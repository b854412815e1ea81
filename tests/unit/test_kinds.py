"""Kinds of settings: a text becomes a value, or the end of a sentence that says why not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipamd.kinds import (
    CLUSTER,
    MAX_TAGS,
    NODE_KEY,
    OWN_TAGS,
    PATH,
    PREFIX,
    SUBNETS,
    URL,
    Bit,
    Boolean,
    Choice,
    Cidrs,
    Kind,
    Tags,
    Text,
    Value,
    Whole,
    is_reserved,
    shown,
)

LEVELS = Choice(("INFO", "WARN"))
KINDS: tuple[Kind, ...] = (
    Boolean(), Whole("ENIs", 1), Whole("seconds", 10, 300), LEVELS, Bit(), Text(), URL, PATH,
    NODE_KEY, CLUSTER, SUBNETS, PREFIX, Cidrs(), Tags(),
)  # fmt: skip


def tags(number: int) -> str:
    return json.dumps({f"key-{n}": "value" for n in range(number)})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        pytest.param(Boolean(), "T", True, id="a-boolean-as-go-reads-it"),
        pytest.param(Boolean(), "0", False, id="zero-is-no"),
        pytest.param(Whole("ENIs"), "0", 0, id="zero"),
        pytest.param(Whole("ENIs"), "+7", 7, id="a-sign"),
        pytest.param(Whole("seconds", 10, 300), "300", 300, id="the-most"),
        pytest.param(LEVELS, "warn", "WARN", id="a-choice-in-any-case"),
        pytest.param(Bit(), "128", "0x80", id="a-mark-in-decimal"),
        pytest.param(Bit(), "0X080", "0x80", id="a-mark-in-hexadecimal"),
        pytest.param(Bit(), "0x80000000", "0x80000000", id="the-highest-bit"),
        pytest.param(PREFIX, "ethx", "ethx", id="a-prefix-that-only-begins-like-eth"),
        pytest.param(PREFIX, "c", "c", id="a-prefix-of-one-letter"),
        pytest.param(Text(), "a\nb", "a\nb", id="any-text"),
        pytest.param(URL, "http://10.0.0.1:4000", "http://10.0.0.1:4000", id="a-url"),
        pytest.param(URL, "https://[fd00::1]:443/", "https://[fd00::1]:443/", id="a-url-of-ipv6"),
        pytest.param(NODE_KEY, "k8s.amazonaws.com/eniConfig", "k8s.amazonaws.com/eniConfig", id="a-key"),
        pytest.param(NODE_KEY, "zone", "zone", id="a-key-without-a-prefix"),
        pytest.param(CLUSTER, "a.k8s.local", "a.k8s.local", id="a-name-of-kops"),
        pytest.param(
            SUBNETS, " subnet-0a1b2c3d , subnet-0a1b2c3d4e5f67890,subnet-0a1b2c3d,",
            ("subnet-0a1b2c3d", "subnet-0a1b2c3d4e5f67890"), id="subnets-each-once",
        ),
        pytest.param(Cidrs(), "10.0.0.1/8, fd00::/8", ("10.0.0.0/8", "fd00::/8"), id="cidrs"),
        pytest.param(Tags(), '{"team": "net"}', {"team": "net"}, id="tags"),
        pytest.param(Tags(), tags(MAX_TAGS), json.loads(tags(MAX_TAGS)), id="as-many-tags-as-fit"),
    ],
)  # fmt: skip
def test_a_text_is_a_value(kind: Kind, text: str, value: Value) -> None:
    assert kind.read(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        pytest.param(Boolean(), "yes", "is neither true nor false", id="yes"),
        pytest.param(Whole("ENIs"), "1_0", "is not a whole number of ENIs", id="python's-own-form"),
        pytest.param(Whole("ENIs"), "٣", "is not a whole number of ENIs", id="digits-of-others"),
        pytest.param(Whole("ENIs"), "9" * 5000, "is not a whole number of ENIs", id="too-long"),
        pytest.param(Whole("ENIs", 1), "0", "is below 1 ENIs", id="below"),
        pytest.param(Whole("seconds", 10, 300), "301", "is above 300 seconds", id="above"),
        pytest.param(LEVELS, "loud", "is none of INFO, WARN", id="no-choice"),
        pytest.param(Bit(), "0x", "is not a mark, as 128 or 0x80", id="no-mark"),
        pytest.param(Bit(), "0x81", "is not one bit of a mark, from 0x80 to 0x80000000: the seven bits below it are ours, too", id="two-bits"),
        pytest.param(Bit(), "0x40", "is not one bit of a mark, from 0x80 to 0x80000000: the seven bits below it are ours, too", id="no-room-below"),
        pytest.param(PREFIX, "vlan", "is not of the form: 1 to 4 letters, but not eth, lo or vlan", id="vlan"),
        pytest.param(PREFIX, "cali0", "is not of the form: 1 to 4 letters, but not eth, lo or vlan", id="a-digit"),
        pytest.param(PATH, "limits.json", "is not of the form: an absolute path", id="no-path"),
        pytest.param(URL, "ftp://a", "is not of the form: http(s)://host[:port]", id="no-url"),
        pytest.param(
            SUBNETS, "subnet-0a1b2c3d,vpc-1",
            "has 'vpc-1', which is not of the form: subnet-… with commas between", id="no-subnet",
        ),
        pytest.param(Cidrs(), "10.0.0.0/33", "has '10.0.0.0/33', which is no CIDR", id="no-cidr"),
        pytest.param(Tags(), "team=net", "is not a JSON object of strings", id="no-json"),
        pytest.param(Tags(), "[" * 100_000, "is not a JSON object of strings", id="deep-json"),
        pytest.param(Tags(), '["team"]', "is not a JSON object of strings", id="a-list"),
        pytest.param(Tags(), '{"team": 1}', "is not a JSON object of strings", id="a-number"),
        pytest.param(
            Tags(), tags(MAX_TAGS + 1),
            "has 46 tags, and an ENI has room for 45 beside the 5 that are ours", id="many-tags",
        ),
        pytest.param(
            Tags(), '{"": "a"}', "has a key of 0 characters; EC2 takes 1 to 128", id="no-key"
        ),
        pytest.param(
            Tags(), json.dumps({"k" * 129: "a"}), "has a key of 129 characters; EC2 takes 1 to 128",
            id="a-long-key",
        ),
        pytest.param(
            Tags(), json.dumps({"k": "v" * 257}),
            "gives 'k' a value of 257 characters; EC2 takes 256", id="a-long-value",
        ),
        pytest.param(
            Tags(), '{"AWS:owner": "a"}',
            "has the key 'AWS:owner'; those that begin with aws: are EC2's own", id="aws",
        ),
    ],
)  # fmt: skip
def test_a_text_that_is_none_says_why(kind: Kind, text: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the next line looks at all of it
        kind.read(text)
    assert str(refused.value) == why


def test_reserved_tags_are_not_counted() -> None:
    reserved = dict.fromkeys((*OWN_TAGS, "x.k8s.amazonaws.com/y"), "theirs")
    assert all(is_reserved(key) for key in reserved)
    read = Tags().read(json.dumps({**json.loads(tags(MAX_TAGS)), **reserved}))
    assert len(read) == MAX_TAGS + len(reserved)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(None, "", id="not-set"),
        pytest.param(True, "true", id="yes"),
        pytest.param(False, "false", id="no"),
        pytest.param(("a", "b"), "a,b", id="words"),
        pytest.param({}, "{}", id="no-tags"),
        pytest.param({"b": "1", "a": "2"}, '{"a": "2", "b": "1"}', id="tags"),
        pytest.param(7, "7", id="a-number"),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_its_variable_carries_it(value: Value, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_kind_names_its_range(kind: Kind) -> None:
    assert kind.range


def test_a_range_names_both_ends() -> None:
    assert Whole("ENIs", 1).range == "ENIs, from 1"
    assert Whole("bytes", 576, 9001).range == "bytes, 576 to 9001"


@given(st.sampled_from(KINDS), st.text(min_size=1))
def test_whatever_is_written_is_read_or_refused(kind: Kind, text: str) -> None:
    try:
        value = kind.read(text)
    except ValueError:
        return  # and nothing else is raised
    assert kind.read(shown(value)) == value if shown(value) else not value
