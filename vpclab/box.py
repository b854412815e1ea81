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
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

MARK = "ENID_BOX"
"""Set inside a box, to the box's own namespace, so that a stale variable does not count."""

PROGRAMS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables"}
"""What the lab runs, and the Debian package it comes from."""

INSIDE = f"""
exec 9</run
mount -t tmpfs -o mode=755 enid-run /run
mkdir -p /run/netns /run/lock
for kept in media current-system; do
  [ -d "/proc/self/fd/9/$kept" ] || continue
  mkdir "/run/$kept"
  mount --no-canonicalize --rbind "/proc/self/fd/9/$kept" "/run/$kept"
done
exec 9<&-
ip link set lo up
export {MARK}="$(readlink /proc/self/ns/net)"
set +e
"$@"
exit $?
"""
"""What makes the box, run by its first process. Of the host's /run only places that may hold
programs or a checkout stay. The command is a child of this shell: the kernel keeps from a
namespace's first process every signal that it has no handler for, Ctrl-C among them."""

OBSTACLES = (
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
"""How distributions keep user namespaces from ordinary users, and the cure."""


class BoxError(Exception):
    """No box can be made here; the text is one sentence that says what to change."""

    id = "LAB-NO-BOX"


def in_box() -> bool:
    """Return whether this process runs in a box."""
    return os.environ.get(MARK) == _here()


def _here() -> str:
    return str(Path("/proc/self/ns/net").readlink())


def obstacle(programs: Mapping[str, str] = PROGRAMS) -> str | None:
    """Return the sentence that says why no box can be made, None if one can."""
    missing = {package for name, package in programs.items() if _which(name) is None}
    if missing:
        packages = " ".join(sorted(missing))
        return f"programs are missing: apt-get install {packages}"
    tried = subprocess.run(
        [*_unshare(), "true"], capture_output=True, text=True, check=False, timeout=30
    )
    return _cure(tried.stderr.strip()) if tried.returncode else None


def _cure(complaint: str) -> str:
    """Return what to do about unshare's *complaint*."""
    if os.geteuid() == 0:
        return (
            f"root may not make namespaces here ({complaint}): a container needs --privileged for"
            " an embedded VPC"
        )
    for name, value, cure in OBSTACLES:
        path = Path("/proc/sys", name)
        if path.exists() and path.read_text().strip() == value:
            return f"an embedded VPC needs root, or user namespaces for ordinary users: {cure}"
    return (
        "an embedded VPC needs root, or a kernel with user namespaces for ordinary users"
        f" ({complaint})"
    )


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


def spawn(argv: list[str], *, pass_fds: Sequence[int], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Run *argv* in a box of its own that outlives this process and its terminal.

    It keeps the descriptors *pass_fds* and nothing else of the caller's, its folder neither; what
    it prints goes to *log*. Raises BoxError if no box can be made.
    """
    reason = obstacle()
    if reason:
        raise BoxError(reason)
    return subprocess.Popen(
        [*_unshare(), "sh", "-ec", INSIDE, "box", *argv],
        env={**os.environ, "PATH": _path()},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=pass_fds,
        cwd="/",
        start_new_session=True,
    )


def _run(argv: list[str]) -> int:
    parent, deaf = os.getpid(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if not deaf:
        argv = ["env", "--default-signal=INT", *argv]

    def prepare() -> None:
        # Ctrl-C is for the command: unshare would die of it after the command has lived on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _die_with(parent)

    child = subprocess.Popen(
        [*_unshare(), "sh", "-ec", INSIDE, "box", *argv],
        env={**os.environ, "PATH": _path()},
        preexec_fn=prepare,  # noqa: PLW1509 - no thread has begun
    )
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            continue  # the terminal has told the box, too; it ends in its own way
        return 128 - status if status < 0 else status


def _die_with(parent: int) -> None:
    """Have the kernel kill the box when *parent* dies, even by SIGKILL."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we had asked


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
