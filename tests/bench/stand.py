"""A node of the lab with a live daemon, to be measured: started, driven, weighed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ipamd.cli import DaemonAwayError, ask_status
from ipamd.status import Status
from vpclab.enid import RIGHTS, prepare
from vpclab.node import Node
from vpclab.vpc import EmbeddedVPC

ROOT = Path(__file__).parents[2]
MAIN = "from ipamd.main import main; main()"
CONF = {"cniVersion": "1.0.0", "name": "enid", "type": "enid-cni"}


class Asked:
    """The driver on a node (`tests.bench.driver`)."""

    def __init__(self, node: Node) -> None:
        self._process = node.popen(
            [sys.executable, "-m", "tests.bench.driver"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def ask(self, name: str, *arguments: Any) -> Any:
        """Return what a method of `driver.Driver` returns."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name, *arguments]) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit("enid: the driver on the node has ended; what it said is above")
        return json.loads(line)["result"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Stand:
    """One node, its daemon, and a driver on it."""

    def __init__(
        self, vpc: EmbeddedVPC, name: str, instance_type: str, subnet: str, log: Path, **env: str
    ) -> None:
        self.node = vpc.launch_node(name, instance_type, subnet)
        prepare(self.node)
        self._env, self._log = env, log
        self.socket = str(self.node.path("/run/enid/ipamd.sock"))
        self.driver = Asked(self.node)
        self.daemon: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Stand:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            sys.stderr.write(self._log.read_text()[-3000:])
        self.driver.close()
        self.node.terminate()

    # The daemon ------------------------------------------------------------------------
    def start(self, before: str = "") -> float:
        """Start the daemon; return when its Python was run, on the monotonic clock.

        *before* is Python that it runs first.
        """
        ready, go = os.pipe()
        argv = [
            "sh",
            "-c",
            f'echo >/proc/self/fd/{go}; exec "$@"',
            "sh",
            sys.executable,
            "-c",
            before + MAIN,
        ]
        with self._log.open("ab") as log:
            self.daemon = self.node.popen(
                argv,
                env={**self._env, "PYTHONPATH": str(ROOT)},
                rights=RIGHTS, stderr=log, cwd="/", pass_fds=[go],
            )  # fmt: skip
        os.close(go)
        os.read(ready, 1)  # what takes the daemon's rights away is a container runtime's time
        began = time.monotonic()
        os.close(ready)
        return began

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()

    @property
    def pid(self) -> int:
        """The daemon's."""
        assert self.daemon is not None
        return self.daemon.pid

    def cpu_seconds(self) -> float:
        """Return what the daemon has used of the CPU, all threads, to the nanosecond."""
        return time.clock_gettime((~self.pid << 3) | 2)  # CPUCLOCK_SCHED of clock_getcpuclockid(3)

    def wait(self, until: Callable[[Status], bool], seconds: float = 60) -> None:
        """Wait until the daemon's status is as wished."""
        end = time.monotonic() + seconds
        while True:
            with suppress(DaemonAwayError):
                status = ask_status(self.socket)
                if until(status):
                    return
            if time.monotonic() > end:
                sys.exit(f"enid: the daemon does not get there:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)

    def has_free(self, count: int) -> None:
        """Wait until it holds so many free addresses."""
        self.wait(lambda status: sum(eni["free"] for eni in status["enis"]) >= count)

    def megabytes(self) -> Mapping[str, float]:
        """Return the daemon's memory: Rss, Pss."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = dict(line.split(":", 1) for line in text)
        return {name: int(sizes[name].split()[0]) / 1024 for name in ("Rss", "Pss")}
