"""The frame: any slicing gives the same frame, no bytes crash the reader."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.frame import MAX_FRAME_BYTES, Frame, FrameError, FrameReader, answer, encode

names = st.text(
    st.characters(codec="ascii", categories=["Lu", "Nd"], include_characters="_"), min_size=1
)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
frames = st.builds(
    Frame,
    st.dictionaries(names, values, max_size=5),
    st.binary(max_size=300),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
)


@given(frames, st.lists(st.integers(1, 40), max_size=60))
def test_a_frame_is_the_same_however_it_is_sliced(frame: Frame, sizes: list[int]) -> None:
    reader, data, got = FrameReader(), encode(frame), None
    for size in sizes:
        piece, data = data[:size], data[size:]
        assert got is None or not piece
        if piece:
            got = reader.feed(piece)
    if data:
        got = reader.feed(data)
    assert got == frame


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_incomplete_and_never_a_crash(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(FrameReader().feed(data), Frame | None)


def test_words_of_a_younger_plugin_are_ignored() -> None:
    assert FrameReader().feed(b"enid1 0 2 3 4 fd=2 more\nhi") == Frame({}, b"hi", 3, 4)


@pytest.mark.parametrize(
    ("words", "runtime_ns"),
    [
        pytest.param(b"", 0, id="an-older-plugin"),
        pytest.param(b" runtime=17", 17, id="known"),
        pytest.param(b" colour=red runtime=17 fd=2", 17, id="among-a-younger-plugins"),
        pytest.param(b" runtime=soon", 0, id="no-number"),
        pytest.param(b" runtime=", 0, id="nothing"),
    ],
)
def test_a_word_that_is_known_is_read_by_its_name(words: bytes, runtime_ns: int) -> None:
    frame = FrameReader().feed(b"enid1 0 2 3 4" + words + b"\nhi")
    assert frame == Frame({}, b"hi", 3, 4, runtime_ns)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "does not begin with enid1", id="http"),
        pytest.param(b"enid2 0 0 0 0\n", "does not begin with enid1", id="another-version"),
        pytest.param(b"\x16\x03\x01\x02", "does not begin with enid1", id="tls"),
        pytest.param(b"enid1 1 2 3\n", "needs four numbers", id="too-few-words"),
        pytest.param(b"enid1 -1 2 3 4\n", "needs four numbers", id="negative"),
        pytest.param(
            b"enid1 1 2 3 " + b"9" * 30 + b"\n", "needs four numbers", id="too-many-digits"
        ),
        pytest.param(b"enid1 " + b"1" * 300, "too long", id="endless-line"),
        pytest.param(b"enid1 1 %d 3 4\n" % MAX_FRAME_BYTES, "too large", id="too-large"),
        pytest.param(b"enid1 0 1 3 4\nxy", "after the frame", id="trailing-bytes"),
        pytest.param(b"enid1 3 0 3 4\nabc", "without a name", id="environment-without-names"),
        pytest.param(b"enid1 4 0 3 4\nA=\xff\xfe", "not UTF-8", id="environment-of-bytes"),
    ],
)
def test_each_bad_frame_gets_its_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(FrameError, match=sentence):
        FrameReader().feed(data)


def test_an_answer_is_a_digit_and_the_stdout() -> None:
    assert answer(1, b"{}") == b"1{}"
