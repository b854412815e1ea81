"""`enid lab`, and `enid verify` beside it: what a newcomer types. Shell.

Nothing here imports moto or the demo before the first line is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vpclab import box
from vpclab.checks.cli import add_verify
from vpclab.demo import sabotage
from vpclab.lab_cli import Parser, add, add_running, sentences
from vpclab.running import SvgError, require_extra

if TYPE_CHECKING:
    from vpclab.lab_cli import Subparsers

DEMO = """\
Start an AWS VPC on this machine, with two nodes and real packets, and prove what enid claims.

Nothing of AWS is needed, and nothing outside namespaces of its own is touched: a VPC with
two subnets, an internet host, EC2 and IMDS by moto; on each node the real daemon and the
real plugin. It needs root, or user namespaces for ordinary users."""

DEMO_EPILOG = """\
Examples:
  enid lab demo                          the picture and the proofs
  enid lab demo --svg demo.svg           the same, kept as a picture
  enid lab demo -o json | jq .proofs     the same as data
  enid lab demo --list-sabotage          what can be broken on purpose
  enid lab demo --sabotage missing-snat  break it: exit status 1, and the proof that noticed

Exit status: 0 every proof holds; 1 one does not, or nothing could be run; 3 a sabotage
that no proof noticed."""

LAB_EPILOG = """\
A first round:
  enid lab up                            a VPC with two nodes; it outlives this terminal
  enid lab shell node-a                  a shell on one of them
  enid lab ls                            nodes, EC2 calls and how they ended, faults, drops
  enid lab fault throttle CreateNetworkInterface --rate 2
  enid lab down"""


def add_commands(subparsers: Subparsers) -> None:
    """Add `enid lab` and `enid verify` to the command line."""
    add_verify(subparsers)
    lab = subparsers.add_parser(
        "lab",
        help="a whole VPC on this machine, no AWS needed",
        description="An embedded VPC: EC2, IMDS and packets on this machine.",
        epilog=LAB_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = lab.add_subparsers(
        dest="lab_command", required=True, metavar="COMMAND", parser_class=Parser
    )
    _add_demo(commands)
    add_running(commands)


def _add_demo(commands: Subparsers) -> None:
    demo = add(
        commands, "demo", "two nodes, two dozen pods, and proofs with packets", DEMO, DEMO_EPILOG
    )
    demo.add_argument(
        "-o", "--output", choices=("picture", "json"), default="picture",
        help="json: the result as data on stdout, progress on stderr (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument("--svg", metavar="FILE", help="write the picture to FILE, too")
    demo.add_argument(
        "--sabotage", metavar="NAME", choices=sorted(sabotage.BY_NAME),
        help="break one thing on purpose and see which proof notices; see --list-sabotage",
    )  # fmt: skip
    demo.add_argument(
        "--list-sabotage", action="store_true", help="show what --sabotage can break, and stop"
    )
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.list_sabotage:
        from vpclab.demo.picture import print_sabotage  # noqa: PLC0415 - rich is not always needed

        print_sabotage(sabotage.ALL)
        return 0
    with sentences():
        require_extra()
        if arguments.svg is not None and not os.access(Path(arguments.svg).parent, os.W_OK):
            raise SvgError(f"no file can be written in {Path(arguments.svg).parent}")
        if not box.in_box():
            _say_first(arguments)
            # This very command once more, in a box; it exits with its status.
            box.enter([sys.executable, "-c", "from ipamd.cli import main; main()", *sys.argv[1:]])
    from vpclab.demo.run import run  # noqa: PLC0415 - moto takes a second; the first line is out

    return run(
        sabotage=sabotage.BY_NAME.get(arguments.sabotage),
        as_json=arguments.output == "json",
        svg=arguments.svg,
    )


def _say_first(arguments: argparse.Namespace) -> None:
    stream = sys.stderr if arguments.output == "json" else sys.stdout
    spoilt = f", with {arguments.sabotage} broken on purpose" if arguments.sabotage else ""
    print(
        f"enid: a VPC on this machine, two nodes, two dozen pods, real packets{spoilt}",
        file=stream,
        flush=True,
    )
