r"""The daemon's sign of life: a small file by which STATUS is answered without it. Pure.

    enid1 <written_ns> <grace seconds> <code>[ more words]\n
    <what STATUS says if the code is not 0>\n

`cni.plugin` reads the four words and the sentence; words after them, `name=value`, are the
daemon's own, for its next life. Times are nanoseconds on CLOCK_BOOTTIME.
"""

from __future__ import annotations

from dataclasses import dataclass

_WORDS = 4


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What STATUS promises for *grace_seconds* from now on: *code* 0 is that pods are served.

    *usable*: at least one address has been usable since the boot of *boot_id*.
    """

    written_ns: int
    grace_seconds: int
    code: int
    sentence: str
    usable: bool
    boot_id: str

    def encode(self) -> bytes:
        """Return the file."""
        head = f"enid1 {self.written_ns} {self.grace_seconds} {self.code}"
        told = f"usable={int(self.usable)} boot={self.boot_id}"
        return f"{head} {told}\n{' '.join(self.sentence.split())}\n".encode()


def was_usable(data: bytes, boot_id: str) -> bool:
    """Return whether the file of a former life tells that an address was usable since this boot."""
    words = data.partition(b"\n")[0].split(b" ")
    told = {b"usable=1", f"boot={boot_id}".encode()}
    return words[:1] == [b"enid1"] and told <= set(words[_WORDS:])
