"""Run all tests in four processes at once, each in a box of its own. Shell.

    python -m tests.tools.side_by_side

The lab's tests wait for packets and the others compute: side by side they take little more than
the longest. Their output comes when they are done. Coverage is of the unit tests, because what is
pure is to be covered by them; it costs a third of the time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import IO

from tests.tools.pure import pure_modules

BOXED = [sys.executable, "-m", "vpclab.box", sys.executable, "-m"]
WAITING = ["tests/lab/test_daemon.py", "tests/lab/test_pool_on_nodes.py"]
"""What waits for the daemon's own periods, a minute and more in all."""

LAB = [*BOXED, "pytest", "tests/lab", *(f"--ignore={path}" for path in WAITING)]
MEASURED = "tests/contract/test_imds.py"
"""What tells of IMDS (vpclab/metadata.py) is pure, and asked the way that a node asks it."""

CONTRACT = [*BOXED, "pytest", "tests/contract", "tests/chaos", "--ignore", MEASURED]
UNIT = [
    *BOXED, "coverage", "run", f"--include={','.join(map(str, pure_modules()))}",
    "-m", "pytest", "tests/unit", MEASURED,
]  # fmt: skip


def begin(command: list[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start *command*; return it and where its output goes."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 - it is read when the command is done
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), output


def main() -> int:
    """Run all; return the first exit status that is not 0."""
    running = [begin([*BOXED, "pytest", *WAITING]), begin(LAB), begin(CONTRACT)]
    try:
        status = subprocess.run(UNIT, check=False).returncode
        for process, _ in running:
            status = process.wait() or status
    finally:
        for process, output in running:
            process.terminate()
            process.wait()
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
