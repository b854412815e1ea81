"""What stands where a plugin stands: notes each call, then is the plugin, or does as ordered.

    python3 -I -S recorder.py          (as a runtime execs it)

A call without an order costs one note: this process becomes the plugin itself, so what a runtime
does to it is done to the plugin. It stands for the plugin whose name it has; that one is in the
folder. Orders are files that a test lays down, one per plugin and verb.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

FOLDER = "/run/recorder"
NAME = sys.argv[0].rpartition("/")[2]
PLUGIN = f"{FOLDER}/{NAME}"


def main() -> None:
    """Note the call, and go on.

    An order may have the plugin run first (*plugin*), wait for a test (*hold*, a fifo), and answer
    something else (*stdout*, *stderr*, *code*); what runs the plugin and holds its answer back is
    a plugin that is slow to end. One that waits notes a SIGTERM as a call, and waits on.
    """
    stdin = sys.stdin.buffer.read()
    verb = os.environ.get("CNI_COMMAND", "")
    order = read_order(verb)
    note(verb, stdin)
    if order is None:
        become(stdin)
        return
    answer = run(stdin) if order.get("plugin") else b""
    if "hold" in order:
        signal.signal(signal.SIGTERM, lambda *_: note("TERM", stdin))
        with open(order["hold"]) as fifo:  # noqa: PTH123 - -S has no time for pathlib
            fifo.read()
    if order.get("become"):
        become(stdin)
    os.write(2, order.get("stderr", "").encode())
    os.write(1, order["stdout"].encode() if "stdout" in order else answer)
    os._exit(order.get("code", 0))


def read_order(verb: str) -> dict[str, Any] | None:
    """Return what a test has ordered for this verb, None for nothing."""
    try:
        with open(f"{FOLDER}/order.{NAME}.{verb}") as file:  # noqa: PTH123 - -S has no time for pathlib
            order: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    return order


def note(verb: str, stdin: bytes) -> None:
    """Append one line; several calls at once do not mix in a file that is only appended to."""
    call = {
        "verb": verb,
        "env": dict(os.environ),
        "argv": sys.argv,
        "stdin": stdin.decode(),
        "pid": os.getpid(),
        "uid": os.geteuid(),
        "netns": os.readlink("/proc/self/ns/net"),  # noqa: PTH115 - -S has no time for pathlib
        "cwd": os.getcwd(),  # noqa: PTH109 - the same
        "session": os.getsid(0),
        "cgroup": cgroup(),
    }
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = os.open(FOLDER + "/calls", flags, 0o600)
    os.write(descriptor, (json.dumps(call) + "\n").encode())
    os.close(descriptor)


def cgroup() -> str:
    """Return where this process is among the cgroups."""
    with open("/proc/self/cgroup") as file:  # noqa: PTH123 - -S has no time for pathlib
        return file.read()


def become(stdin: bytes) -> None:
    """Be the plugin, with the same stdin."""
    descriptor = os.memfd_create("stdin", 0)
    os.write(descriptor, stdin)
    os.lseek(descriptor, 0, 0)
    os.dup2(descriptor, 0)
    os.execv(PLUGIN, [PLUGIN])  # noqa: S606 - a runtime uses no shell, either


def run(stdin: bytes) -> bytes:
    """Run the plugin as a child and return what it printed."""
    inner, outer = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(outer, 1)
        become(stdin)
    os.close(outer)
    answer = b""
    while piece := os.read(inner, 65536):
        answer += piece
    os.waitpid(pid, 0)
    return answer


if __name__ == "__main__":
    main()
