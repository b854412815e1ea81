"""`ipamd`: the node daemon's command. Shell."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from cni.kernel import NodeError
from ipamd import __version__, logs, rights
from ipamd.configuration import SETTINGS_FOLDER, Configuration
from ipamd.heard import NodeNotes
from ipamd.node import live
from ipamd.settings import SettingsError
from ipamd.settings_page import render_help
from ipamd.start import Paths, StartError

log = logging.getLogger(__name__)

EXIT_REFUSED = 78
"""sysexits' EX_CONFIG: somebody must change something before a restart can help."""


def memory_bytes() -> int:
    """Return how much memory the machine has; a container is told of all of it, too."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def configured(notes: NodeNotes) -> Configuration:
    """Return the settings of this process; *notes* are what is known of its Node."""
    return Configuration(
        os.environ,
        folder=SETTINGS_FOLDER,
        labels=notes.labels,
        annotations=notes.annotations,
        memory_bytes=memory_bytes(),
    )


READ_ONLY = ("/", "/proc/sys")
"""What the daemon needs to write nothing of."""


def say_rights() -> None:
    """Warn of rights that nobody needs: they work just as well, so nobody else would say it."""
    status = Path("/proc/self/status").read_text()
    more = [f"CAP_{name.upper()}" for name in rights.surplus(status)]
    more += ["no_new_privs is not set"] * rights.may_gain(status)
    more += ["no seccomp filter"] * rights.unfiltered(status)
    writable = (path for path in READ_ONLY if not os.statvfs(path).f_flag & os.ST_RDONLY)
    more += [f"{path} is writable" for path in writable]
    if more:
        log.warning("more rights than needed", extra={"rights": more})


def main() -> None:
    """Run the daemon until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="ipamd",
        description="enid's node daemon: attaches ENIs, keeps addresses warm, wires pods.",
        epilog="\n".join(
            (
                "environment (docs/settings.md has all of it, and the other places):",
                *render_help(),
                "",
                f"It listens on {Paths().socket}; see `enid status` and `enid settings`.",
            )
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args()
    logs.set_up()
    say_rights()
    try:
        live(configured, Paths())
    except (SettingsError, StartError, NodeError) as error:
        log.critical("cannot start", extra={"id": error.id, "reason": str(error)})
        sys.exit(EXIT_REFUSED)
