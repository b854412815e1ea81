"""What a daemon may do beyond what it needs: CAP_NET_ADMIN, and nothing of the machine's. Pure.

Whoever takes over a process takes over its rights. What is given by mistake works just as well,
so nobody would notice; the daemon says it.
"""

from __future__ import annotations

from collections.abc import Iterator

NET_ADMIN = 12
"""CAP_NET_ADMIN (include/uapi/linux/capability.h): links, rules, routes, nft, conntrack."""

NAMES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
    "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip
"""Of capabilities, by number (the same file)."""

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
"""What `/proc/<pid>/status` calls a process's sets. The bounding set counts, too: programs that a
root process starts get all of it."""


def surplus(status: str) -> Iterator[str]:
    """Yield the names of capabilities that a process has and does not need, from its *status*."""
    found = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    held = 0
    for name in SETS:
        held |= int(found[name], 16)
    for number in range(held.bit_length()):
        if held >> number & 1 and number != NET_ADMIN:
            yield NAMES[number] if number < len(NAMES) else f"capability {number}"


def may_gain(status: str) -> bool:
    """Return whether programs that a process starts may get more rights than it has."""
    return "NoNewPrivs:\t1" not in status.splitlines()


def unfiltered(status: str) -> bool:
    """Return whether a process may make any system call; a kernel without filters shows no line."""
    return "Seccomp:\t0" in status.splitlines()
