r"""The local protocol's frame, as the daemon and the CLI see it. Pure.

    enid1 <env bytes> <stdin bytes> <started_ns> <deadline_ns>[ more words]\n
    <CNI_* environment, NUL separated><stdin>

Times are nanoseconds on CLOCK_BOOTTIME. Words after the four are `name=value`, in any order:
`runtime`, of a GC, is when the runtime started. Those that are not known are a younger
plugin's, and are ignored. The answer is one digit, the plugin's exit status, then its stdout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_FRAME_BYTES = 1 << 20
"""Environment and stdin together. A kubelet's request is some 4 kB; a frame is read on the
daemon's loop, so it has to end somewhere."""

_MAX_HEAD_BYTES = 256
_WORDS = 5


class FrameError(Exception):
    """The bytes are no frame; the text is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What one client asks; *runtime_ns* is when its runtime started, 0 if it does not say."""

    env: Mapping[str, str]
    stdin: bytes
    started_ns: int
    deadline_ns: int
    runtime_ns: int = 0


def encode(frame: Frame) -> bytes:
    """Return *frame* as bytes."""
    env = "\0".join(f"{key}={value}" for key, value in frame.env.items()).encode()
    head = f"enid1 {len(env)} {len(frame.stdin)} {frame.started_ns} {frame.deadline_ns}"
    more = f" runtime={frame.runtime_ns}" if frame.runtime_ns else ""
    return f"{head}{more}\n".encode() + env + frame.stdin


def answer(code: int, stdout: bytes) -> bytes:
    """Return the answer that makes the plugin exit with *code*, 0 to 9, and print *stdout*."""
    return b"%d" % code + stdout


class FrameReader:
    """Collects one frame from however many pieces it comes in."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._numbers: tuple[int, int, int, int] | None = None
        self._runtime_ns = 0

    def feed(self, data: bytes) -> Frame | None:
        """Return the frame once it is complete, None before. Raises FrameError."""
        self._buffer += data
        if self._numbers is None and not self._read_head():
            return None
        assert self._numbers is not None  # noqa: S101 - read just now
        env_bytes, stdin_bytes, started_ns, deadline_ns = self._numbers
        if len(self._buffer) < env_bytes + stdin_bytes:
            return None
        if len(self._buffer) > env_bytes + stdin_bytes:
            raise FrameError("bytes came after the frame")
        env = _read_env(bytes(self._buffer[:env_bytes]))
        stdin = bytes(self._buffer[env_bytes:])
        return Frame(env, stdin, started_ns, deadline_ns, self._runtime_ns)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\n", 0, _MAX_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= _MAX_HEAD_BYTES:
                raise FrameError("the first line is too long for a frame")
            if not b"enid1 ".startswith(self._buffer[:6]):
                raise FrameError("the first line does not begin with enid1")
            return False
        words = bytes(self._buffer[:end]).split(b" ")
        if words[0] != b"enid1":
            raise FrameError("the first line does not begin with enid1")
        if len(words) < _WORDS or not all(_is_number(word) for word in words[1:_WORDS]):
            raise FrameError("the first line needs four numbers after enid1")
        numbers = tuple(int(word) for word in words[1:_WORDS])
        if numbers[0] + numbers[1] > MAX_FRAME_BYTES:
            size = numbers[0] + numbers[1]
            raise FrameError(f"a frame of {size} bytes is too large ({MAX_FRAME_BYTES} at most)")
        self._numbers = (numbers[0], numbers[1], numbers[2], numbers[3])
        self._runtime_ns = _word(words[_WORDS:], b"runtime")
        del self._buffer[: end + 1]
        return True


def _word(words: Iterable[bytes], name: bytes) -> int:
    """Return the number of the word *name*; 0 if it is not there, or is none."""
    told = dict(word.split(b"=", 1) for word in words if b"=" in word)
    value = told.get(name, b"")
    return int(value) if _is_number(value) else 0


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) <= 19  # noqa: PLR2004 - digits of 2**63


def _read_env(data: bytes) -> dict[str, str]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise FrameError("the environment is not UTF-8") from None
    env = {}
    for pair in text.split("\0") if text else ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise FrameError("the environment has an entry without a name")
        env[key] = value
    return env
