"""Run all tests in two processes at once, each in a box of its own. Shell.

    python -m tests.tools.halves

The lab's tests wait for packets and the others compute: side by side they take little more than
the longer half. The lab's output comes when both are done. Coverage is of the other half, which
covers the pure modules alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from tests.tools.pure import pure_modules

BOXED = [sys.executable, "-m", "vpclab.box", sys.executable, "-m"]
LAB = [*BOXED, "pytest", "tests/lab"]
OTHERS = [
    *BOXED, "coverage", "run", f"--include={','.join(map(str, pure_modules()))}",
    "-m", "pytest", "tests/unit", "tests/contract", "tests/chaos",
]  # fmt: skip


def main() -> int:
    """Run both; return the first exit status that is not 0."""
    with tempfile.TemporaryFile() as output:
        lab = subprocess.Popen(LAB, stdout=output, stderr=subprocess.STDOUT)
        try:
            others = subprocess.run(OTHERS, check=False).returncode
            lab.wait()
        finally:
            lab.terminate()
            lab.wait()
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return others or lab.returncode


if __name__ == "__main__":
    sys.exit(main())
