"""What the plugin finds in a configuration without parsing it, beside a parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cni.plugin import FALLBACK, own_keys, version_in

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
