"""`enid`: what an operator types. Shell.

Subcommands of other rooms join by the entry point group `enid.commands`; each names a
function that takes argparse's subparsers.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import ClassVar, NoReturn

from cni.frame import Frame, encode
from ipamd import __version__
from ipamd.show import show_status
from ipamd.start import Paths
from ipamd.status import Status

ANSWER_SECONDS = 5.0
"""A daemon that says nothing for this long is not well: it answers within milliseconds."""


class CommandError(Exception):
    """A command cannot be done; the text says what and what to do next."""

    id: ClassVar[str] = "COMMAND"


class DaemonAwayError(CommandError):
    """No daemon answers on the socket: start it, or call as root."""

    id = "DAEMON-AWAY"


class DaemonRefusedError(CommandError):
    """The daemon answered with an error; it is in the text."""

    id = "DAEMON-REFUSED"


def ask_status(path: str) -> Status:
    """Return the status of the daemon that listens on *path*. Raises CommandError."""
    frame = Frame(env={"ENID_COMMAND": "STATUS"}, stdin=b"", started_ns=0, deadline_ns=0)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect(path)
            sock.sendall(encode(frame))
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
    except OSError as error:
        why = error.strerror or "no answer"
        raise DaemonAwayError(
            f"ipamd does not answer on {path} ({why}); does it run on this node, and are you root?"
        ) from error
    if answer[:1] != b"0":
        raise DaemonRefusedError(answer[1:].decode(errors="replace"))
    status: Status = json.loads(answer[1:])
    return status


def _status(arguments: argparse.Namespace) -> int:
    status = ask_status(arguments.socket)
    if arguments.output == "json":
        print(json.dumps(status, indent=2))  # noqa: T201 - a command's answer
    else:
        show_status(status)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    parser = argparse.ArgumentParser(
        prog="enid",
        description="enid: VPC-native pod networking for Kubernetes on AWS.",
        epilog="Start with `enid lab demo`: a whole VPC on this machine, no AWS needed.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser(
        "status",
        help="what this node's daemon holds: ENIs, addresses, pods",
        description="Show the ENIs, addresses and pods of this node, and what troubles the daemon.",
        epilog="Examples:\n  enid status\n  enid status -o json | jq '.leases[].address'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    status.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="default: %(default)s"
    )
    status.add_argument(
        "--socket", metavar="PATH", default=str(Paths().socket), help="default: %(default)s"
    )
    status.set_defaults(run=_status)
    for point in entry_points(group="enid.commands"):
        point.load()(commands)
    return parser


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its status: 0 done, 1 not, 2 not understood."""
    arguments = build_parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        sys.exit(run(arguments))
    except CommandError as error:
        sys.exit(f"enid: {error} [{error.id}]")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
