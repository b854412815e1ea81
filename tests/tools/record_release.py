"""Record what this version sends, writes and leaves on a node, for all later ones. Shell.

python -m vpclab.box python -m tests.tools.record_release          # tests/fixtures/releases/VERSION

A version that is not released yet (`.dev`) may be recorded again; one that is stays as it was, and
the next has a version of its own. `--of FOLDER` records the checkout in that folder.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.lab.recording import recorded, version
from tests.tools.releases import FIXTURES, ON_THE_WAY, ROOT


def _on_the_way() -> dict[str, str]:
    """Return what is lived in virtual time, which only the checkout's own code can."""
    from tests.contract.embedded import region  # noqa: PLC0415 - moto takes a second to import
    from tests.contract.recorded_journal import rows_on_the_way  # noqa: PLC0415 - the same

    with tempfile.TemporaryDirectory() as scratch, region() as aws:
        return {ON_THE_WAY: rows_on_the_way(Path(scratch), aws)}


def main() -> None:
    """Write the folder of a version."""
    from vpclab.vpc import EmbeddedVPC  # noqa: PLC0415 - moto takes a second to import

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--of", type=Path, default=ROOT, help="the checkout to record")
    parser.add_argument("--as", dest="name", help="the folder's name, if not the version's")
    arguments = parser.parse_args()
    folder = FIXTURES / (arguments.name or version(arguments.of))
    if folder.exists() and "dev" not in folder.name:
        parser.error(f"{folder.name} is recorded already; raise the version in pyproject.toml")
    files = {} if arguments.of != ROOT else _on_the_way()
    with EmbeddedVPC() as vpc, tempfile.TemporaryDirectory() as scratch:
        files |= recorded(vpc, Path(scratch) / "log", arguments.of.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
