"""`enid`: what an operator types. Shell.

Subcommands of other rooms join by the entry point group `enid.commands`; each names a
function that takes argparse's subparsers. The rule to keep: a command imports what it needs
when it runs, for a command that computes should start like one.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from cni.frame import Frame, encode
from ipamd.plan import cli as plan_cli

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipamd.settings_report import SettingsReport
    from ipamd.status import Status

SOCKET = "/run/enid/ipamd.sock"
"""`ipamd.start.Paths().socket`, without what that module imports."""

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


class SettingsRefusedError(CommandError):
    """The settings that were to be tried cannot be: each line of the text says why."""

    id = "SETTINGS-NOT-TAKEN"


def ask(path: str, command: str) -> Any:
    """Return what the daemon that listens on *path* says to *command*. Raises CommandError."""
    frame = Frame(env={"ENID_COMMAND": command}, stdin=b"", started_ns=0, deadline_ns=0)
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
    return json.loads(answer[1:])


def ask_status(path: str) -> Status:
    """Return the status of the daemon that listens on *path*. Raises CommandError."""
    status: Status = ask(path, "STATUS")
    return status


def _status(arguments: argparse.Namespace) -> int:
    status = ask_status(arguments.socket)
    if arguments.output == "json":
        print(json.dumps(status, indent=2))  # noqa: T201 - a command's answer
    else:
        from ipamd.show import show_status  # noqa: PLC0415 - rich takes 60 ms

        show_status(status)
    return 0


def _settings(arguments: argparse.Namespace) -> int:
    report: SettingsReport
    if arguments.set or arguments.env or arguments.folder or arguments.profile:
        report = try_settings(arguments)
    else:
        report = ask(arguments.socket, "SETTINGS")
    if arguments.output == "json":
        print(json.dumps(report, indent=2))  # noqa: T201 - a command's answer
    else:
        from ipamd.show import show_settings  # noqa: PLC0415 - rich takes 60 ms

        show_settings(report, everything=arguments.all)
    return 0


def try_settings(arguments: argparse.Namespace) -> SettingsReport:
    """Return what the settings that are named on the command line would come to.

    Raises SettingsRefusedError.
    """
    from ipamd import configuration, layers  # noqa: PLC0415 - the status needs neither
    from ipamd.settings import SettingsError  # noqa: PLC0415
    from ipamd.settings_report import settings_report  # noqa: PLC0415

    try:
        files = configuration.Folder(arguments.folder).look()
        sources = layers.Sources(
            environ=dict(os.environ) if arguments.env else {},  # noqa: TID251 - asked for
            files=files,
            profile=arguments.profile,
        )
        tried = layers.tried(arguments.set)
        resolved = layers.resolve((*layers.layers_of(sources), tried))
    except (SettingsError, configuration.FolderUnreadableError) as error:
        raise SettingsRefusedError(str(error)) from error
    return settings_report(resolved, None)


def _doctor(arguments: argparse.Namespace) -> int:
    from pathlib import Path  # noqa: PLC0415 - other commands need none of this

    from ipamd import doctor  # noqa: PLC0415
    from ipamd.start import Paths  # noqa: PLC0415

    places = doctor.Places(
        paths=Paths(Path(arguments.run_folder), Path(arguments.state_folder)),
        socket=arguments.socket,
        results=Path(arguments.results),
        root=Path(arguments.root),
        asks_ec2=not arguments.no_ec2,
    )
    report, refused = doctor.run(places, fix=arguments.fix, wait_seconds=arguments.wait)
    if arguments.output == "json":
        print(json.dumps({**report, "refused": refused}, indent=2))  # noqa: T201 - a command's answer
    else:
        print("\n".join(doctor.lines(report, refused)))  # noqa: T201 - a command's answer
    return report["status"]


def _install(arguments: argparse.Namespace) -> int:
    from ipamd import install  # noqa: PLC0415 - other commands need none of this

    return install.main(arguments)


def _wait(_: argparse.Namespace) -> int:
    import signal  # noqa: PLC0415 - other commands need none of this

    numbers = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # a container's first process gets no other
    signal.sigwait(numbers)
    return 0


def build_parser(*, others: bool = True) -> argparse.ArgumentParser:
    """Return the whole command line; without *others*, the commands of this room only."""
    parser = argparse.ArgumentParser(
        prog="enid",
        description="enid: VPC-native pod networking for Kubernetes on AWS.",
        epilog="Start with `enid lab demo`: a whole VPC on this machine, no AWS needed.",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_status(commands)
    _add_settings(commands)
    _add_doctor(commands)
    _add_install(commands)
    plan_cli.add_plan(commands)
    if others:
        from importlib.metadata import entry_points  # noqa: PLC0415 - it takes 30 ms

        for point in entry_points(group="enid.commands"):
            point.load()(commands)
    return parser


class _Version(argparse.Action):
    """`--version`: argparse's own wants the version before anybody asks."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from ipamd import __version__  # noqa: PLC0415 - it is read from the package's metadata

        print(__version__)  # noqa: T201 - a command's answer
        parser.exit()


if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - has no public name


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="default: %(default)s"
    )
    parser.add_argument("--socket", metavar="PATH", default=SOCKET, help="default: %(default)s")


def _add_status(commands: Subparsers) -> None:
    status = commands.add_parser(
        "status",
        help="what this node's daemon holds: ENIs, addresses, pods",
        description="Show the ENIs, addresses and pods of this node, and what troubles the daemon.",
        epilog="Examples:\n  enid status\n  enid status -o json | jq '.leases[].address'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(status)
    status.set_defaults(run=_status)


SETTINGS_EXAMPLES = """\
Examples:
  enid settings                                  what holds on this node, and where it came from
  enid settings --all                            also what is accepted without effect, or refused
  enid settings -o json | jq '.settings[] | select(.effect != "")'
  enid settings --set WARM_IP_TARGET=2 --set MAX_ENI=3
                                                 what that would come to, without a daemon
  enid settings --folder ./configmap --profile gpu

With --set, --env, --folder or --profile no daemon is asked. Exit status: 0, or 1 if the
settings cannot be."""


def _add_settings(commands: Subparsers) -> None:
    settings = commands.add_parser(
        "settings",
        help="every setting: value, where it came from, why it has no effect",
        description="Show this node's settings, or try some.",
        epilog=SETTINGS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(settings)
    settings.add_argument(
        "--all", action="store_true", help="also those without effect that nobody has set"
    )
    trying = settings.add_argument_group("to try settings, without a daemon")
    trying.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="may be repeated"
    )
    trying.add_argument("--env", action="store_true", help="with this shell's environment")
    trying.add_argument(
        "--folder", metavar="PATH", help="with a ConfigMap's files, one per variable"
    )
    trying.add_argument("--profile", metavar="NAME", help="with this profile of the ConfigMap")
    settings.set_defaults(run=_settings)


DOCTOR_EXAMPLES = """\
Examples:
  enid doctor                what differs, each with its cure; changes nothing
  enid doctor --fix          does what is safe: puts back what is missing, takes nothing away
  enid doctor -o json | jq -r '.findings[] | select(.fixed | not) | .sentence'

Exit status: 0 all agree (or were made to), 1 something differs, 2 the command line is wrong, 3 what
was heard agrees, but one of the four was not heard, or no ipamd answers."""


def _add_doctor(commands: Subparsers) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="compare pods, journal, kernel and EC2; say what differs and its cure",
        description=(
            "Compare what the runtime, ipamd's files, the kernel and EC2 say of this node. Run it"
            " as root in the node's network namespace; it needs no daemon."
        ),
        epilog=DOCTOR_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(doctor)
    doctor.add_argument("--fix", action="store_true", help="do what is safe about it")
    doctor.add_argument("--no-ec2", action="store_true", help="do not ask EC2")
    doctor.add_argument(
        "--wait", type=float, default=3.0, metavar="SECONDS",
        help="between the two looks; default: %(default)s",
    )  # fmt: skip
    where = doctor.add_argument_group("where things are")
    for name, folder, what in (
        ("--run-folder", "/run/enid", "ipamd's leases and lock"),
        ("--state-folder", "/var/lib/enid", "ipamd's journal"),
        ("--results", "/var/lib/cni/results", "what the runtime keeps of its sandboxes"),
        ("--root", "/", "where the host's files are seen"),
    ):
        where.add_argument(name, metavar="PATH", default=folder, help=f"{what}; default: {folder}")
    doctor.set_defaults(run=_doctor)


INSTALL = """\
Put the plugin, the conflist and the drop-ins of network daemons on this node, set its sysctls, and
set the AWS VPC CNI's conflist aside. The init container of the chart does this; whatever is there
already stays as it is."""

UNINSTALL = """\
Take all of it away, give the AWS VPC CNI its conflist back, and leave the kernel as if enid had
never been there. Drain the node and stop ipamd first. ENIs stay attached: they go with the
instance, or to whoever gives pods their addresses next."""


def _add_install(commands: Subparsers) -> None:
    for name, what, description in (
        ("install", "put plugin and conflist on this node", INSTALL),
        ("uninstall", "take everything of enid's off this node", UNINSTALL),
    ):
        parser = commands.add_parser(name, help=what, description=description)
        parser.set_defaults(run=_install)
        if name == "install":
            parser.add_argument(
                "--cni-version", choices=("auto", "1.0.0", "1.1.0"), default="auto",
                help="of the conflist; default: 1.1.0 where this Node's status says containerd 2"
                " or newer, and every plugin speaks it",
            )  # fmt: skip
            parser.add_argument(
                "--chain", action="append", default=[], metavar="PLUGIN",
                help="run this one after enid-cni: portmap, bandwidth, or JSON; may be repeated",
            )  # fmt: skip
            parser.add_argument("--no-drop-ins", action="store_true", help="leave /etc alone")
        else:
            parser.add_argument("--force", action="store_true", help="though pods are left")
        where = parser.add_argument_group("where things are")
        for option, folder, meaning in (
            ("--shipped", "/usr/share/enid", "what is to be installed"),
            ("--host", "/host", "where the host's /etc and /opt are seen"),
            ("--run-folder", "/run/enid", "ipamd's leases and lock"),
            ("--state-folder", "/var/lib/enid", "ipamd's journal"),
        ):
            where.add_argument(
                option, metavar="PATH", default=folder, help=f"{meaning}; default: {folder}"
            )
    wait = commands.add_parser(
        "wait",
        help="do nothing until SIGTERM",
        description="Do nothing until SIGTERM: what a DaemonSet's pod does after `enid uninstall`.",
    )
    wait.set_defaults(run=_wait)


OWN_COMMANDS = ("status", "settings", "doctor", "install", "uninstall", "wait", "plan")
"""What needs nobody else's commands, and so not the time to find them."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its status: 0 done, 1 not, 2 not understood."""
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser(others=words[:1] not in [[c] for c in OWN_COMMANDS]).parse_args(words)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        sys.exit(run(arguments))
    except CommandError as error:
        sys.exit(f"enid: {error} [{error.id}]")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
