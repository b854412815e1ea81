"""What the plugin finds in a configuration without parsing it, beside a parser."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cni import plugin
from cni.plugin import FALLBACK, RefusalError, check_configuration, own_keys, version_in
from cni.spec import CniError, parse_request
from tests.fuzz.inputs import RIGHT
from tests.tools.pure import ROOT

words = st.sampled_from(
    ["cniVersion", "name", "ipam", "type", "deadlineSeconds", "mtu", 'a"b', "\\"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(['a"b', "\\\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(words, values, max_size=6)


def as_written(value: Any) -> bytes:
    """Return what `own_keys` makes of a value."""
    text = json.dumps(value, ensure_ascii=False).encode()
    return text[:1] if text[:1] in b"{[" else text


@given(objects, st.sampled_from([None, 1]))
@example({"prevResult": {"cniVersion": "0.3.0"}, "cniVersion": "1.1.0"}, None)
def test_every_key_of_an_object_and_of_those_in_it_is_found(
    raw: dict[str, Any], indent: int | None
) -> None:
    found = own_keys(json.dumps(raw, indent=indent, ensure_ascii=False).encode())
    for key, value in raw.items():
        assert found[json.dumps(key)[1:-1].lower().encode()] == as_written(value)
    inner = [(k, i, v) for k, o in raw.items() if isinstance(o, dict) for i, v in o.items()]
    for key, name, value in inner:
        both = f"{json.dumps(key)[1:-1]}.{json.dumps(name)[1:-1]}".lower().encode()
        assert found[both] == as_written(value)
    assert len(found) == len(raw) + len(inner)


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        pytest.param(b'{"cniVersion":"0.4.0"}', "0.4.0", id="first"),
        pytest.param(b'{"name":"x", "cniVersion" : "1.1.0"}', "1.1.0", id="last"),
        pytest.param(b'{"prevResult":{"cniVersion":"0.3.0"},"cniVersion":"1.1.0"}', "1.1.0", id="behind-prevResult"),
        pytest.param(b'{"prevResult":{"cniVersion":"0.3.0"}}', FALLBACK, id="in-prevResult-only"),
        pytest.param(b'{"name":"\\"cniVersion\\":\\"0.3.0\\"","cniVersion":"1.1.0"}', "1.1.0", id="in-a-text"),
        pytest.param(b'{"CNIVersion":"0.4.0"}', "0.4.0", id="as-go-reads"),
        pytest.param(b'{"cniVersion":1.1}', FALLBACK, id="no-text"),
        pytest.param(b'{"cniVersion":"new"}', FALLBACK, id="no-version"),
        pytest.param(b'{"cniVersion":""}', FALLBACK, id="empty"),
        pytest.param(b'{"cniVersion":"1.1.0', "1.1.0", id="cut-short"),
        pytest.param(b'"cniVersion":"1.1.0"', FALLBACK, id="no-object"),
        pytest.param(b'["cniVersion","1.1.0"]', FALLBACK, id="a-list"),
        pytest.param(b"", FALLBACK, id="nothing"),
    ],
)  # fmt: skip
def test_an_error_is_told_in_the_version_of_the_object_itself(stdin: bytes, version: str) -> None:
    assert version_in(stdin) == version


@given(st.binary(max_size=60) | st.text('{}[]":,\\ a', max_size=40).map(str.encode))
def test_whatever_comes_is_no_reason_to_end(stdin: bytes) -> None:
    assert isinstance(version_in(stdin), str)
    assert isinstance(own_keys(stdin), dict)


ENV = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0"}
sections: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"cniVersion": st.just("1.1.0")},
    optional={
        "name": st.sampled_from(["enid", "", "a/b", ".x", "n" * 64, "n" * 65, 7, None]),
        "mtu": st.sampled_from([None, 575, 576, 1500, 9001, 9002, -1, 1500.0, "1500", True, [], {}])
        | st.integers(),
        "ipam": st.sampled_from([None, {}, "", "x", "enid-cni", 5, [], False])
        | st.dictionaries(
            st.sampled_from(["type", "Type", "subnet"]),
            st.sampled_from([None, "", "enid-cni", "host-local", 3, {}, []]),
            max_size=1,
        ),
    },
)


@given(sections, st.sampled_from([None, 2]))
def test_status_refuses_the_configurations_that_an_add_is_refused_for(
    raw: dict[str, Any], indent: int | None
) -> None:
    stdin = json.dumps(raw, indent=indent).encode()
    refusals: list[object] = []
    for call in (lambda: parse_request(ENV, stdin), lambda: check_configuration(stdin)):
        try:
            call()
        except (CniError, RefusalError) as error:
            refusals.append(int(error.code))
        else:
            refusals.append(None)
    assert refusals[0] == refusals[1]


def test_the_limits_are_those_of_the_parser() -> None:
    limits = f"within {plugin.SMALLEST_MTU} to {plugin.LARGEST_MTU}"
    with pytest.raises(CniError, match=limits):
        parse_request(ENV, b'{"cniVersion":"1.1.0","name":"enid","mtu":1}')


def test_every_key_that_the_contract_names_is_fuzzed() -> None:
    text = (
        (ROOT / "docs" / "cni.md").read_text().partition("## Configuration")[2].partition("## ")[0]
    )
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert {"mtu", "ipam", "deadlineSeconds"} <= named <= RIGHT.keys()
