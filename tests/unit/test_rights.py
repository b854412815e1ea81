"""Which rights are too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipamd.rights import NAMES, NET_ADMIN, may_gain, surplus, unfiltered

NEEDED = f"{1 << NET_ADMIN:016x}"
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def status(**sets: str) -> str:
    """Return what /proc shows of a process that has CAP_NET_ADMIN, and *sets*."""
    lines = ["Name:\tipamd", *(f"{name}:\t{sets.get(name, NEEDED)}" for name in SETS)]
    return "\n".join([*lines, f"NoNewPrivs:\t{sets.get('nnp', '1')}", ""])


def test_net_admin_is_not_too_much() -> None:
    assert list(surplus(status())) == []


def test_nothing_at_all_is_not_too_much() -> None:
    assert list(surplus(status(**dict.fromkeys(SETS, "0" * 16)))) == []


@pytest.mark.parametrize("name", SETS)
def test_a_right_in_any_set_is_named(name: str) -> None:
    more = f"{1 << NET_ADMIN | 1 << NAMES.index('sys_admin'):016x}"
    assert list(surplus(status(**{name: more}))) == ["sys_admin"]


def test_each_is_named_once_and_one_that_came_later_has_its_number() -> None:
    everything = f"{(1 << 42) - 1:016x}"
    found = list(surplus(status(CapBnd=everything, CapEff=everything)))
    assert found == [*(name for name in NAMES if name != "net_admin"), "capability 41"]


@pytest.mark.parametrize(("value", "expected"), [("0", True), ("1", False)])
def test_programs_may_gain_rights_unless_that_is_forbidden(value: str, *, expected: bool) -> None:
    assert may_gain(status(nnp=value)) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("Seccomp:\t0\nSeccomp_filters:\t0", True, id="none"),
        pytest.param("Seccomp:\t2\nSeccomp_filters:\t1", False, id="a-filter"),
        pytest.param("Seccomp:\t1", False, id="strict"),
        pytest.param("", False, id="a-kernel-without-filters"),
    ],
)
def test_any_call_may_be_made_where_no_filter_is(line: str, *, expected: bool) -> None:
    assert unfiltered(status() + line) is expected


def test_the_real_file_can_be_read() -> None:
    assert isinstance(list(surplus(Path("/proc/self/status").read_text())), list)
