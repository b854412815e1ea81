"""Protocol buffers as the CRI needs them: what is packed is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cri.wire import Field, Message, Schema, read_schema
from tests.tools.pure import ROOT

CRI = read_schema((ROOT / "tests" / "cri" / "cri.proto").read_text())
VALUES = {
    "int32": st.integers(-(1 << 31), (1 << 31) - 1),
    "int64": st.integers(-(1 << 63), (1 << 63) - 1),
    "uint32": st.integers(0, (1 << 32) - 1),
    "bool": st.booleans(),
    "string": st.text(),
    "bytes": st.binary(),
}


def of_field(field: Field) -> st.SearchStrategy[object]:
    if field.is_map:
        return st.dictionaries(st.text(), st.text(), max_size=3)
    one = VALUES[field.type] if field.type in VALUES else of_message(field.type)
    return st.lists(one, max_size=3) if field.repeated else one


def of_message(name: str) -> st.SearchStrategy[Message]:
    return st.fixed_dictionaries({field.name: of_field(field) for field in CRI.messages[name]})


# These are made of nearly all others, and of every type.
@pytest.mark.parametrize("name", ["CreateContainerRequest", "StatusResponse", "ExecSyncResponse"])
def test_a_message_is_read_as_it_was_packed(name: str) -> None:
    @settings(max_examples=30)
    @given(of_message(name))
    def law(message: Message) -> None:
        assert whole(name, CRI.decode(name, CRI.encode(name, message))) == whole(name, message)

    law()


def whole(name: str, message: Message) -> Message:
    """An empty message may be one that is not there."""
    found = {f.name: f.absent for f in CRI.messages[name]} | message
    for field in CRI.messages[name]:
        value = found[field.name]
        if field.type in CRI.messages and field.repeated:
            found[field.name] = [whole(field.type, one) for one in value]
        elif field.type in CRI.messages:
            found[field.name] = whole(field.type, value)
    return found


@pytest.mark.parametrize(
    ("message", "packed"),
    [
        pytest.param({"name": "web"}, "0a03776562", id="a word"),
        pytest.param({"attempt": 300}, "20ac02", id="a number of two bytes"),
        pytest.param({"attempt": 0, "uid": ""}, "", id="zeroes are not sent"),
    ],
)
def test_bytes_are_those_of_protocol_buffers(message: Message, packed: str) -> None:
    """The examples of the encoding's own documentation, with our fields."""
    assert CRI.encode("PodSandboxMetadata", message).hex() == packed


def test_a_negative_number_has_ten_bytes() -> None:
    assert CRI.encode("ExecSyncResponse", {"exit_code": -1}).hex() == "18" + "ff" * 9 + "01"


def test_what_is_not_known_is_skipped() -> None:
    newer = read_schema("message PodIP { string ip = 1; int64 of = 7; string by = 9; }")
    data = newer.encode("PodIP", {"of": 5, "by": "us", "ip": "10.0.0.1"})
    fixed = bytes([8 << 3 | 1]) + bytes(8) + bytes([9 << 3 | 5]) + bytes(4)
    assert CRI.decode("PodIP", fixed + data) == {"ip": "10.0.0.1"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"\x0a\x05abc", "field 1 is cut off", id="a word"),
        pytest.param(b"\x0a", "a number is cut off", id="a length"),
        pytest.param(b"\x0b", "field 1 has wire type 3", id="a group"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CRI.decode("PodIP", data)


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError):
        Schema({"Empty": ()}).encode("Empty", {"name": "web"})


def test_calls_have_the_cris_paths() -> None:
    assert CRI.calls["RunPodSandbox"].path == "/runtime.v1.RuntimeService/RunPodSandbox"
    assert {c.request for c in CRI.calls.values()} <= CRI.messages.keys()
    assert {c.response for c in CRI.calls.values()} <= CRI.messages.keys()
