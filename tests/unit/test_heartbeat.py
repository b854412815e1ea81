"""The heartbeat: what one life writes, the next one and the plugin read."""

from __future__ import annotations

import pytest

from cni.heartbeat import Heartbeat, was_usable

BOOT = "0f0e-boot"


def test_it_is_one_line_of_words_and_one_sentence() -> None:
    beat = Heartbeat(17, 120, 50, "no address\nyet", usable=False, boot_id=BOOT)
    assert beat.encode() == b"enid1 17 120 50 usable=0 boot=0f0e-boot\nno address yet\n"


@pytest.mark.parametrize(
    ("data", "usable"),
    [
        pytest.param(Heartbeat(1, 120, 0, "", usable=True, boot_id=BOOT).encode(), True, id="usable"),
        pytest.param(Heartbeat(1, 120, 50, "full", usable=True, boot_id=BOOT).encode(), True, id="usable-and-full"),
        pytest.param(Heartbeat(1, 120, 50, "", usable=False, boot_id=BOOT).encode(), False, id="not-yet"),
        pytest.param(Heartbeat(1, 120, 0, "", usable=True, boot_id="other").encode(), False, id="another-boot"),
        pytest.param(b"enid1 1 120 0 colour=red boot=0f0e-boot usable=1 more\n", True, id="a-younger-daemons"),
        pytest.param(b"enid2 1 120 0 usable=1 boot=0f0e-boot\n", False, id="another-protocol"),
        pytest.param(b"\0\xff", False, id="garbage"),
        pytest.param(b"", False, id="empty"),
    ],
)  # fmt: skip
def test_a_new_life_knows_whether_this_boot_has_served(data: bytes, usable: bool) -> None:  # noqa: FBT001 - a table's column
    assert was_usable(data, BOOT) is usable
