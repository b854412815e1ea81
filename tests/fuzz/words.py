"""The parser of the CNI's words, fuzzed without a process: many times as many runs. Shell."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cni.frame import Frame as Framed
from cni.frame import FrameError, FrameReader, encode
from cni.spec import CniError, Collect, Request, error_json, parse_request
from tests.fuzz.execs import CALM, must
from tests.fuzz.inputs import STDIN, environments, torn


def fuzz(runs: int) -> Counter[str]:
    """Parse so many requests; return what came of them."""
    counts: Counter[str] = Counter()

    @settings(CALM, max_examples=runs)
    @given(environments(), STDIN)
    def one(env: dict[str, str], stdin: bytes) -> None:
        counts[judge(env, stdin)] += 1

    one()
    return counts


def judge(env: dict[str, str], stdin: bytes) -> str:
    """Parse one; return what came of it."""
    try:
        found: Request | Collect = parse_request(env, stdin)
    except CniError as error:
        must(error.msg and "\n" not in error.msg, f"no sentence: {error.msg!r}")
        must(json.loads(error_json(error, "1.0.0"))["msg"], "an answer without a sentence")
        return f"refused with {int(error.code)}"
    return "gc" if isinstance(found, Collect) else found.verb.value


def fuzz_frames(runs: int) -> Counter[str]:
    """Read so many frames, in pieces; return what came of them."""
    counts: Counter[str] = Counter()
    whole = st.builds(
        lambda env, stdin, a, b, c: encode(Framed(env, stdin, a, b, c)),
        environments(), st.binary(max_size=100), *[st.integers(0, 1 << 62)] * 3,
    )  # fmt: skip

    @settings(CALM, max_examples=runs)
    @given(whole | torn(whole) | st.binary(max_size=300), st.integers(1, 64))
    def one(data: bytes, size: int) -> None:
        reader, frame = FrameReader(), None
        try:
            for at in range(0, len(data), size):
                frame = reader.feed(data[at : at + size])
        except FrameError as error:
            must(str(error) and "\n" not in str(error), f"no sentence: {error}")
            counts["refused"] += 1
        else:
            counts["incomplete" if frame is None else "whole"] += 1

    one()
    return counts
