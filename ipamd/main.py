"""`ipamd`: the node daemon's command. Shell."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from cni.kernel import NodeError
from ipamd import __version__, logs
from ipamd.node import live
from ipamd.settings import SETTINGS, SettingsError, read_settings
from ipamd.start import Paths, StartError

EXIT_REFUSED = 78
"""sysexits' EX_CONFIG: somebody must change something before a restart can help."""


def main() -> None:
    """Run the daemon until SIGTERM."""
    names = "\n".join(f"  {s.name:22} {s.meaning}" for s in SETTINGS)
    parser = argparse.ArgumentParser(
        prog="ipamd",
        description="enid's node daemon: attaches ENIs, keeps addresses warm, wires pods.",
        epilog=f"environment:\n{names}\n\nIt listens on {Paths().socket}; see `enid status`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args()
    logs.set_up()
    try:
        live(read_settings(os.environ), Paths())
    except (SettingsError, StartError, NodeError) as error:
        log = logging.getLogger(__name__)
        log.critical("cannot start", extra={"id": error.id, "reason": str(error)})
        sys.exit(EXIT_REFUSED)
