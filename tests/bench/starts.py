"""How long the plugin takes to start, in each of its forms, beside Go's; and what one that waits holds.

    python -m vpclab.box python -m tests.bench.starts [ROUNDS]

A start is one VERSION, which needs no daemon: exec, the interpreter, the answer, the end. All take
turns in random order. As root they run before ordinary processes (SCHED_FIFO), so that a busy
machine's other work counts for less. What waits is an ADD without a daemon.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.lab.starts import FILES, SOURCE
from vpclab.box import in_box

GO = ("ptp", "host-local")
"""An ADD by `ptp` starts both."""

WAITING = 10
WAITING_ENV = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "a" * 64,
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/proc/self/ns/net",
}


@dataclass(slots=True)
class Form:
    """One way to start a plugin, and what it cost so far."""

    name: str
    argv: list[str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    faults: int = 0

    def start(self) -> None:
        """Start it once, and note what it took."""
        began = time.perf_counter()
        pid = _spawn(self.argv, {"CNI_COMMAND": "VERSION"})
        _, status, usage = os.wait4(pid, 0)
        self.wall.append(time.perf_counter() - began)
        if status:
            sys.exit(f"{self.name} failed")
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        self.faults = usage.ru_minflt

    def waiting_kilobytes(self) -> dict[str, int]:
        """Return the memory of one of several that wait."""
        pids = [_spawn(self.argv, WAITING_ENV) for _ in range(WAITING)]
        try:
            _sleeps(pids[-1])
            rows = Path(f"/proc/{pids[-1]}/smaps_rollup").read_text().splitlines()[1:]
        finally:
            for pid in pids:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
        return {row.split(":")[0]: int(row.split()[1]) for row in rows}


def _spawn(argv: list[str], env: dict[str, str]) -> int:
    """Start a plugin with a network configuration as its stdin; what it says is not of interest."""
    conf, out = os.memfd_create("conf"), os.open(os.devnull, os.O_WRONLY)
    os.write(conf, b'{"cniVersion":"1.0.0","name":"enid","type":"enid-cni"}')
    os.lseek(conf, 0, os.SEEK_SET)
    duplicates = [(os.POSIX_SPAWN_DUP2, conf, 0), (os.POSIX_SPAWN_DUP2, out, 1)]
    pid = os.posix_spawn(argv[0], argv, env, file_actions=duplicates)
    os.close(conf)
    os.close(out)
    return pid


def _sleeps(pid: int) -> None:
    """Return when it waits for a daemon: it has slept a few times."""
    status = Path(f"/proc/{pid}/status")
    while int(status.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0]) < 4:
        time.sleep(0.05)


def forms() -> list[Form]:
    """Return what is here to be started."""
    found = [Form(f.name, f.argv) for f in FILES if not f.lacks and not f.is_emulated]
    found.append(Form("source (python3 -I -S)", ["/usr/bin/python3", "-I", "-S", str(SOURCE)]))
    go = [Path("/usr/lib/cni", name) for name in GO]
    return found + [Form(f"Go: {file.name}", [str(file)]) for file in go if file.exists()]


def main() -> None:
    if not in_box():
        sys.exit("enid: run it in a box: python -m vpclab.box python -m tests.bench.starts")
    rounds, started = int(sys.argv[1]) if sys.argv[1:] else 200, forms()
    ours = [form for form in started if not form.name.startswith("Go")]
    held = {form.name: form.waiting_kilobytes() for form in ours}
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    for _ in range(rounds):
        for form in random.sample(started, len(started)):
            form.start()
    table = Table(
        "", "median ms", "p90 ms", "CPU ms", "page faults", "waiting: own kB", "shared kB"
    )
    for form in started:
        p90 = statistics.quantiles(form.wall, n=10)[-1]
        memory = held.get(form.name, {})
        times = (statistics.median(form.wall), p90, statistics.mean(form.cpu))
        own = memory and str(memory["Private_Clean"] + memory["Private_Dirty"])
        shared = memory and str(memory["Shared_Clean"] + memory["Shared_Dirty"])
        table.add_row(
            form.name, *(f"{seconds * 1e3:.2f}" for seconds in times), str(form.faults),
            own or "", shared or "",
        )  # fmt: skip
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
