"""The filter of system calls, interpreted as the kernel does it."""

from __future__ import annotations

import errno

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vpclab import seccomp
from vpclab.seccomp import ALLOW, FORBIDDEN, MACHINES, UNKNOWN, Step, program

PROGRAMS = {name: program(name) for name in MACHINES}
ARCHITECTURES = [architecture for architecture, _ in MACHINES.values()]

machines = st.sampled_from(sorted(MACHINES))
words = st.integers(0, 2**32 - 1)


def ask(steps: list[Step], architecture: int, number: int, argument: int = 0) -> int:
    """Return what the filter answers; only what is ahead can be jumped to, so it ends."""
    data = {0: number, 4: architecture, 16: argument}
    held, at = 0, 0
    while True:
        code, yes, no, operand = steps[at]
        if code == seccomp.RETURN:
            return operand
        if code == seccomp.LOAD:
            held, at = data[operand], at + 1
            continue
        so = {
            seccomp.EQUAL: held == operand,
            seccomp.AT_LEAST: held >= operand,
            seccomp.ANY_OF: bool(held & operand),
        }[code]
        at += 1 + (yes if so else no)


def call(machine: str, number: int, argument: int = 0) -> int:
    return ask(PROGRAMS[machine], MACHINES[machine][0], number, argument)


def numbers(machine: str) -> dict[str, int]:
    """Return what is allowed whatever its arguments are."""
    column = MACHINES[machine][1]
    table = (line.split("/") for line in seccomp.ALLOWED.split())
    return {row[0]: int(row[column]) for row in table if row[column] != "-"}


@given(machines, st.one_of(st.integers(0, 600), words), words)
@example("x86_64", 0, 0)
@example("x86_64", 466, 0)
@example("x86_64", 467, 0)
@example("aarch64", 0, 0)
def test_a_call_is_allowed_if_it_is_listed_and_unknown_if_it_is_newer(
    machine: str, number: int, argument: int
) -> None:
    listed = set(numbers(machine).values())
    conditional = {
        int(row.split("/")[MACHINES[machine][1]])
        for row in (seccomp.CLONE, seccomp.CLONE3, seccomp.SOCKET, seccomp.PERSONALITY)
    }
    if number not in conditional:
        expected = ALLOW if number in listed else FORBIDDEN
        if number > max(listed):
            expected = UNKNOWN
        assert call(machine, number, argument) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("row", "argument", "expected"),
    [
        pytest.param("CLONE", 0x11, ALLOW, id="clone-as-fork"),
        pytest.param("CLONE", 0x3D0F00, ALLOW, id="clone-as-thread"),
        pytest.param("CLONE", 0x20011, FORBIDDEN, id="clone-newns"),
        pytest.param("CLONE", 0x10000011, FORBIDDEN, id="clone-newuser"),
        pytest.param("CLONE", 0x40000011, FORBIDDEN, id="clone-newnet"),
        pytest.param("CLONE3", 0, UNKNOWN, id="clone3"),
        pytest.param("SOCKET", 1, ALLOW, id="socket-unix"),
        pytest.param("SOCKET", 16, ALLOW, id="socket-netlink"),
        pytest.param("SOCKET", 38, FORBIDDEN, id="socket-alg"),
        pytest.param("SOCKET", 39, ALLOW, id="socket-nfc"),
        pytest.param("SOCKET", 40, FORBIDDEN, id="socket-vsock"),
        pytest.param("SOCKET", 41, ALLOW, id="socket-kcm"),
        pytest.param("PERSONALITY", 0, ALLOW, id="personality-linux"),
        pytest.param("PERSONALITY", 0x20008, ALLOW, id="personality-both"),
        pytest.param("PERSONALITY", 0xFFFFFFFF, ALLOW, id="personality-asked"),
        pytest.param("PERSONALITY", 0x40000, FORBIDDEN, id="personality-no-randomize"),
    ],
)
def test_what_depends_on_an_argument(machine: str, row: str, argument: int, expected: int) -> None:
    words = getattr(seccomp, row).split("/")
    assert call(machine, int(words[MACHINES[machine][1]]), argument) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "name", ["read", "sendmsg", "recvmsg", "epoll_ctl", "futex", "execve", "openat", "getrandom"]
)
def test_what_any_program_needs_is_listed(machine: str, name: str) -> None:
    assert name in numbers(machine)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "name",
    [
        "unshare", "setns", "mount", "umount2", "bpf", "keyctl", "add_key", "request_key",
        "io_uring_setup", "userfaultfd", "init_module", "kexec_load", "perf_event_open",
        "open_by_handle_at", "pidfd_getfd", "reboot", "swapon", "pivot_root", "chroot",
    ],
)  # fmt: skip
def test_what_takes_a_container_apart_is_not(machine: str, name: str) -> None:
    assert name not in numbers(machine)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_number_stands_for_two_calls(machine: str) -> None:
    assert len(set(numbers(machine).values())) == len(numbers(machine))


@given(machines, words.filter(lambda word: word not in ARCHITECTURES), st.integers(0, 500))
def test_a_program_of_another_architecture_may_call_nothing(
    machine: str, architecture: int, number: int
) -> None:
    assert ask(PROGRAMS[machine], architecture, number) == FORBIDDEN


def test_a_refusal_is_an_error_that_a_program_can_handle() -> None:
    assert (FORBIDDEN, UNKNOWN) == (0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_jumps_stay_within_what_the_kernel_takes(machine: str) -> None:
    steps = PROGRAMS[machine]
    assert len(steps) < 4096
    assert all(at + 1 + max(yes, no) < len(steps) for at, (_, yes, no, _) in enumerate(steps[:-1]))
    assert all(max(yes, no) < 256 for _, yes, no, _ in steps)
