"""What a runtime, or whoever else, could say: nearly right, and not at all. Pure, but for hypothesis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from cni import plugin
from cni.spec import ANNOTATIONS, MTU_ANNOTATION, VERSIONS

SPOKEN = {"cniVersion": "1.0.0", "name": "enid", "type": "enid-cni"}
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "eth0", "mac": "0a:58:0a:00:01:14", "sandbox": "/run/netns/x"}],
    "ips": [{"address": "10.0.1.20/32", "gateway": "169.254.1.1", "interface": 0}],
}

RIGHT: Mapping[str, tuple[object, ...]] = {
    "cniVersion": (*VERSIONS, "0.1.0", "9.9.9", "1.0"),
    "name": ("enid", "other", "a/b", "", "x" * 65),
    "type": ("enid-cni",),
    "mtu": (9001, 576, 0, -1, 1e99, True, "1500"),
    "deadlineSeconds": (
        10,
        240,
        110,
        None,
        9,
        241,
        0,
        -10,
        10**30,
        110.0,
        1e99,
        True,
        "110",
        [110],
        {},
    ),
    "capabilities": ({ANNOTATIONS: True}, {"portMappings": True}, None, [ANNOTATIONS]),
    "ipam": ({"type": "host-local"}, {"type": "enid-cni"}, {}, "x"),
    "prevResult": (RESULT, {}, {"ips": None}),
    "runtimeConfig": ({ANNOTATIONS: {MTU_ANNOTATION: "1400"}}, {ANNOTATIONS: None}, {"ips": ["x"]}),
    "cni.dev/valid-attachments": ([], [{"containerID": "a", "ifname": "eth0"}], None),
    "cni.dev/attachments": ([], [{"containerID": 7}]),
}
"""Keys that we read, with values that are right or nearly."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=12), inside, max_size=4)
    ),
    max_leaves=12,
)

VALUES: Mapping[str, tuple[str, ...]] = {
    "CNI_COMMAND": ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "add", "FROB", "", "ADD\n"),
    "CNI_CONTAINERID": ("c" * 64, "a-1", "", "../../etc", "c" * 129, "a/b", ".", "\u00e9", "%n"),
    "CNI_NETNS": ("", "/proc/self/ns/net", "/proc/self/ns/mnt", "/etc/passwd", "/", "/gone", "x"),
    "CNI_IFNAME": ("eth0", "e" * 15, "e" * 16, "", "a/b", "lo", "eth%d", "..", " "),
    "CNI_ARGS": ("K8S_POD_NAME=web;K8S_POD_UID=u", "K8S_POD_NAME=a b", ";;=;", "x", "=" * 5000),
    "CNI_PATH": ("/opt/cni/bin", ""),
    "CNI_X": ("\u2028", "1"),
}


def deadline_of(command: str, stdin: bytes, usual: int) -> int | None:
    """Return the seconds that a verb may take by a configuration, as a parser reads it.

    None: it must be refused. Raises ValueError for what has no JSON, or the key more than once,
    about which nothing is promised but an answer.
    """
    written = stdin.lower().count(plugin.DEADLINE_KEY)
    pairs = json.loads(stdin.decode(), object_pairs_hook=list)
    if written > 1:
        raise ValueError("the key is there more than once")
    found = [v for k, v in pairs if k.lower().encode() == plugin.DEADLINE_KEY]
    value = found[0] if written and found else None
    if type(value) is int and plugin.SHORTEST_DEADLINE <= value <= plugin.LONGEST_DEADLINE:
        return value
    return usual if value is None or command in {"DEL", "GC"} else None


WORDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an object: what we read, some of it wrong, some of it missing, in any case, and more."""
    found: dict[str, Any] = dict(SPOKEN)
    for key in draw(st.lists(st.sampled_from(sorted(RIGHT)), max_size=4, unique=True)):
        value = draw(st.sampled_from(RIGHT[key]) | JSON)
        found[draw(st.sampled_from([key, key, key, key.upper()]))] = value
    for key in draw(st.lists(st.sampled_from(sorted(SPOKEN)), max_size=1)):
        found.pop(key, None)
    return found | draw(st.dictionaries(st.text(max_size=8), JSON, max_size=1))


@st.composite
def torn(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw *whole* with a piece cut out, put in or doubled."""
    data = draw(whole)
    at = draw(st.integers(0, len(data)))
    until = draw(st.integers(at, min(len(data), at + 64)))
    return data[:at] + draw(st.binary(max_size=8) | st.just(data[at:until] * 2)) + data[until:]


_DEADLINES = st.sampled_from(RIGHT["deadlineSeconds"]).map(
    lambda value: json.dumps(SPOKEN | {"deadlineSeconds": value}).encode()
)
"""Alone: among many keys a whole request with one of its bounds is drawn once in 2,000 runs."""

_TEXTS = configurations().map(lambda raw: json.dumps(raw).encode())
STDIN = st.one_of(
    st.sampled_from([json.dumps(SPOKEN | {"cniVersion": v}).encode() for v in ("1.1.0", "1.0.0")]),
    _DEADLINES, _TEXTS, _TEXTS, torn(_TEXTS), JSON.map(lambda raw: json.dumps(raw).encode()),
    st.binary(max_size=200),
    st.sampled_from([b"", b" \n", b"[" * 50_000, b'{"a":' * 5000, b"9" * 5000, b"\xff" * 2_000_000]),
)  # fmt: skip


@st.composite
def environments(draw: st.DrawFn) -> dict[str, str]:
    """Draw an environment: a verb's, in which none, one or two variables are wrong or missing."""
    found = {name: values[0] for name, values in VALUES.items()}
    found["CNI_COMMAND"] = draw(st.sampled_from(VALUES["CNI_COMMAND"][:6]))
    found["CNI_NETNS"] = draw(st.sampled_from(("", *["/proc/self/ns/net"] * 3)))
    for name in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=2, unique=True)):
        value = draw(st.none() | st.sampled_from(VALUES[name]) | WORDS)
        found.pop(name) if value is None else found.update({name: value})
    return found


HEARTBEATS = st.one_of(
    st.none(), st.binary(max_size=80), torn(st.just(b"enid1 1 9223372036 0 usable=1 boot=b\n\n")),
    st.sampled_from([
        b"enid1 1 9223372036 50\nno address\n", b"enid1 1 9223372036 0\n\n", b"enid1 1 0 0\n\n",
        b"enid1 1 9223372036 50", b"enid1 1 9223372036 50\n\xff\x00\n", b"enid1" + b" 1" * 5000,
    ]),
)  # fmt: skip
"""What STATUS may find; the daemon may be ours, and anything may have torn it."""

ANSWERS = st.one_of(
    st.sampled_from([b"0", b"0{}", b'1{"code":11,"msg":"no"}', b"", b"9", b"x", b"hello"]),
    st.binary(max_size=50),
)
"""What may come back over the socket."""
