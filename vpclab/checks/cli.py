"""`enid verify`: the checks on any cluster that a kubeconfig reaches. Shell.

Nothing is imported here that a command of another name would pay for.
"""

from __future__ import annotations

import argparse
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpclab.checks import choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vpclab.checks.outcome import Outcome
    from vpclab.checks.report import About

VERIFY = """\
Check the pod network of the cluster that kubectl would reach: pods, nodes, ENIs, Services, DNS,
MTU, SNAT, metadata, spoofing. Each check is one fact and says what it saw.

It makes a namespace of its own with some pods, asks them by way of the API server, and removes all
of it afterwards, also when it is interrupted."""

EPILOG = """\
Examples:
  enid verify --quick                             some two minutes
  enid verify                                     also what takes longer
  enid verify --list                              all checks, and what each proves
  enid verify dns 'pod-to-*' --nodes ip-10-0-1-4.ec2.internal,ip-10-0-2-9.ec2.internal
  enid verify --quick --report junit --output verify.xml
  KUBECONFIG=$(enid lab kubeconfig) enid verify --quick

Exit status: 0 all is well, 1 a check failed, 2 checks could not be made."""

CANNOT = 2
INTERRUPTED = 130


def add_verify(commands: Any) -> None:
    """Add `enid verify` to the command line."""
    parser = commands.add_parser(
        "verify",
        help="check the pod network of the cluster that kubectl reaches",
        description=VERIFY,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checks", nargs="*", metavar="CHECK", help="only these; a name or a pattern as 'dns*'"
    )
    parser.add_argument("--list", action="store_true", help="show all checks, and make none")
    parser.add_argument("--quick", action="store_true", help="without those that take long")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: as kubectl's")
    parser.add_argument("--context", default="", metavar="NAME", help="default: the current one")
    parser.add_argument(
        "--nodes", type=_nodes, default=choice.Nodes(), metavar="NAMES|NUMBER",
        help="which nodes, with commas, or how many at most; default: "
        f"{choice.MOST_NODES}, of those that anybody's pods may come to",
    )  # fmt: skip
    parser.add_argument(
        "--image", default="", metavar="IMAGE",
        help="of the pods, with Python 3 as python3; default: that of enid's DaemonSet, which nodes"
        " have already",
    )  # fmt: skip
    parser.add_argument(
        "--cidr", action="append", type=_cidr, default=[], metavar="CIDR",
        help="what pods' addresses must be of, may be repeated; default: what NodeNetworks record",
    )  # fmt: skip
    parser.add_argument("--report", choices=("junit", "json"), help="a report for programs")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the report goes; default: stdout"
    )
    parser.set_defaults(run=verify)


def _nodes(text: str) -> choice.Nodes:
    try:
        return choice.nodes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _cidr(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def verify(arguments: argparse.Namespace) -> int:
    """Make the checks; return the exit status."""
    from vpclab.checks import show  # noqa: PLC0415 - a quarter of a second with what it needs
    from vpclab.checks import verify as rounds  # noqa: PLC0415
    from vpclab.checks.network import NETWORK, QUICK  # noqa: PLC0415

    console = show.console_for(stderr=bool(arguments.report and not arguments.output))
    if arguments.list:
        show.list_checks(NETWORK, show.console_for())
        return 0
    if arguments.output and not arguments.report:
        return _cannot("--output is where a report goes: add --report junit or json")
    try:
        quick = [check.name for check in (QUICK if arguments.quick else NETWORK)]
        names = choice.chosen(arguments.checks, [check.name for check in NETWORK], quick)
        wish = rounds.Wish(
            checks=[check for check in NETWORK if check.name in names],
            kubeconfig=arguments.kubeconfig,
            context=arguments.context,
            nodes=arguments.nodes,
            image=arguments.image,
            cidrs=arguments.cidr,
        )
        if arguments.output:
            _see_writable(arguments.output)  # before all the work
        outcomes, about = rounds.verify(wish, console)
        where = f"{len(about.nodes)} nodes of {about.cluster}, {about.seconds:.0f} s"
        show.show_summary(outcomes, where, console)
        return _reported(arguments, outcomes, about)
    except (rounds.VerifyError, choice.UnknownCheckError) as error:
        return _cannot(f"{error} [{error.id}]")
    except OSError as error:
        return _cannot(f"{arguments.output} cannot be written: {error.strerror} [VERIFY-OUTPUT]")
    except KeyboardInterrupt:
        return INTERRUPTED


def _see_writable(path: Path) -> None:
    """Raise OSError if a report cannot be written; a file that was not there is not there after."""
    was_there = path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    if not was_there:
        path.unlink()


def _reported(arguments: argparse.Namespace, outcomes: Sequence[Outcome], about: About) -> int:
    from vpclab.checks import report  # noqa: PLC0415

    if arguments.report:
        render = report.as_junit if arguments.report == "junit" else report.as_json
        text = render(outcomes, about) + "\n"
        if arguments.output:
            arguments.output.write_text(text, encoding="utf-8")
        else:
            sys.stdout.write(text)
    return 0 if report.is_ok(outcomes) else 1


def _cannot(why: str) -> int:
    sys.stderr.write(f"enid: {why}\n")
    return CANNOT
