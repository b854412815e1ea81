"""A box to run a VPC in: namespaces of its own that vanish with its first process. Shell.

    python -m vpclab.box COMMAND...

Network, mount and PID namespaces, and a user namespace where the caller is not root. When
the box's first process ends, however it ends, the kernel takes every process, namespace,
mount and socket in it along: nothing needs to be swept, and several boxes never meet.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

MARK = "ENID_BOX"
"""Set inside a box, to the box's own namespace, so that a stale variable does not count."""

PROGRAMS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables"}
"""What the lab runs, and the Debian package it comes from."""

INSIDE = """
mount -t tmpfs -o mode=755 enid-run /run
mkdir -p /run/netns /run/lock
ip link set lo up
exec "$@"
"""


class BoxError(Exception):
    """No box can be made here; the text is one sentence that says what to change."""

    id = "LAB-NO-BOX"


def in_box() -> bool:
    """Return whether this process runs in a box."""
    return os.environ.get(MARK) == _here()


def _here() -> str:
    return str(Path("/proc/self/ns/net").readlink())


def obstacle() -> str | None:
    """Return the sentence that says why no box can be made, None if one can."""
    missing = {package for name, package in PROGRAMS.items() if _which(name) is None}
    if missing:
        packages = " ".join(sorted(missing))
        return f"programs are missing: apt-get install {packages}"
    tried = subprocess.run(
        [*_unshare(), "true"], capture_output=True, text=True, check=False, timeout=30
    )
    if tried.returncode:
        return (
            "an embedded VPC needs root, or user namespaces for ordinary users"
            f" (sysctl kernel.unprivileged_userns_clone=1): {tried.stderr.strip()}"
        )
    return None


def _which(name: str) -> str | None:
    return shutil.which(name, path=_path())


def _path() -> str:
    """Return PATH with the folders where Debian keeps root's programs."""
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    program = _which("unshare") or "unshare"
    return [
        program, *user, "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL",
        "--mount-proc",
    ]  # fmt: skip


def enter(argv: list[str]) -> None:
    """Run *argv* in a box and exit with its status; return at once if we are in one.

    Raises BoxError if no box can be made.
    """
    if in_box():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    reason = obstacle()
    if reason:
        raise BoxError(reason)
    sys.exit(_run(argv))


def _run(argv: list[str]) -> int:
    # The shell sets the mark inside, where the namespace's name is known.
    script = INSIDE.replace("exec", f'export {MARK}="$(readlink /proc/self/ns/net)"\nexec')
    command = [*_unshare(), "sh", "-ec", script, "box", *argv]
    child = subprocess.Popen(
        command,
        env={**os.environ, "PATH": _path()},
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread has begun
    )
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            continue  # the terminal has told the box, too; it ends in its own way
        return 128 - status if status < 0 else status


def _die_with_parent() -> None:
    """Have the kernel kill the box when we die, even by SIGKILL."""
    pr_set_pdeathsig, sigkill = 1, 9
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)


def main() -> NoReturn:
    """Run a command in a box."""
    if len(sys.argv) == 1 or sys.argv[1] in {"-h", "--help"}:
        sys.exit(__doc__)
    try:
        enter(sys.argv[1:])
    except BoxError as error:
        sys.exit(f"enid: {error} [{error.id}]")
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - in a box already: no shell is wanted


if __name__ == "__main__":
    main()
