"""`enid lab`: what a newcomer types. Shell.

Nothing here imports moto or the demo before the first line is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpclab import box
from vpclab.demo import sabotage
from vpclab.running import LabError, Plan, RunningLab

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse gives its type no other name

EXTRA = ("moto", "flask", "flask_cors")
"""What the lab needs beyond the daemon."""

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

UP = """\
Start an AWS VPC on this machine that goes on when this terminal closes.

Its nodes are instances with namespaces of their own: IMDSv2 answers at 169.254.169.254, EC2 at
the address in AWS_ENDPOINT_URL_EC2, an ENI that is attached appears as a link, and packets go
where the VPC's routes and security groups let them. No CNI runs until you start one."""

UP_EPILOG = """\
Examples:
  enid lab up                                 two m5.large in two zones
  enid lab up --nodes 5 --type c6i.4xlarge    five, larger
  enid lab up --ipv6                          both families
  enid lab up --private                       nodes behind a NAT gateway
  enid lab up --name other                    a second lab beside the first"""

SHELL = """\
Open a shell on a node of the running lab, or run one command there.

The node may be `internet`, the host on the other side of the gateway."""

SHELL_EPILOG = """\
Examples:
  enid lab shell node-a
  enid lab shell node-a -- ip route
  enid lab shell internet -- ping -c 1 198.51.100.1"""

FAULT = """\
Make something wrong in the running lab, on purpose; without a fault, show what is.

ACTION is an EC2 action as CreateNetworkInterface, or '*' for all of them."""

FAULT_EPILOG = """\
Examples:
  enid lab fault throttle CreateNetworkInterface --rate 2
  enid lab fault fail AttachNetworkInterface AttachmentLimitExceeded --times 1
  enid lab fault lose CreateNetworkInterface           done, and the caller never hears
  enid lab fault latency '*' 0.2 --p99 2
  enid lab fault imds-stale 'network/interfaces/macs/*/local-ipv4s' 30
  enid lab fault spot node-a
  enid lab fault realistic                             slow and strict, as a busy account
  enid lab fault clear"""

TRY = """\
  T=$(curl -sX PUT 169.254.169.254/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 600')
  curl -sH "X-aws-ec2-metadata-token: $T" 169.254.169.254/latest/meta-data/
  python3 -c 'import boto3; print(boto3.client("ec2").describe_instances()["Reservations"])'
  ping -c 1 {other}; ping -c 1 internet"""


def add_commands(subparsers: Subparsers) -> None:
    """Add `enid lab` to the command line."""
    lab = subparsers.add_parser(
        "lab",
        help="a whole VPC on this machine, no AWS needed",
        description="An embedded VPC: EC2, IMDS and packets on this machine.",
        epilog=LAB_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = lab.add_subparsers(dest="lab_command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_up(commands)
    _add_shell(commands)
    _add_ls(commands)
    _add_fault(commands)
    _add_down(commands)


def _add(commands: Subparsers, name: str, help_: str, text: str, epilog: str) -> Any:
    return commands.add_parser(
        name,
        help=help_,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name", default="lab", type=_plain, help="which lab, if there are several (%(default)s)"
    )


def _plain(name: str) -> str:
    if not name.replace("-", "").isalnum():
        raise argparse.ArgumentTypeError(f"'{name}' is not letters, digits and hyphens")
    return name


def _add_demo(commands: Subparsers) -> None:
    demo = _add(
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


def _add_up(commands: Subparsers) -> None:
    up = _add(commands, "up", "start a VPC that outlives this terminal", UP, UP_EPILOG)
    plan = Plan()
    up.add_argument("--nodes", type=int, default=plan.nodes, help="how many (%(default)s)")
    up.add_argument(
        "--type",
        dest="instance_type",
        default=plan.instance_type,
        help="of what type (%(default)s)",
    )
    up.add_argument("--cidr", default=plan.cidr, help="the VPC's CIDR (%(default)s)")
    up.add_argument("--region", default=plan.region, help="where it believes to be (%(default)s)")
    up.add_argument("--ipv6", action="store_true", help="with IPv6 beside IPv4")
    up.add_argument("--private", action="store_true", help="nodes without public addresses")
    up.add_argument(
        "--arbitrary-names", action="store_true", help="links not called ens5, ens6, ..."
    )
    _output(up)
    _name(up)
    up.set_defaults(run=_up)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table",
        help="json: data on stdout (default: %(default)s)",
    )  # fmt: skip


def _add_shell(commands: Subparsers) -> None:
    shell = _add(commands, "shell", "step onto a node", SHELL, SHELL_EPILOG)
    shell.add_argument("node", metavar="NODE")
    shell.add_argument("command", nargs="*", metavar="COMMAND", help="after --: run it, no shell")
    _name(shell)
    shell.set_defaults(run=_shell)


def _add_ls(commands: Subparsers) -> None:
    ls = _add(commands, "ls", "nodes, EC2 calls, faults, drops", "Show the running lab.", "")
    _output(ls)
    _name(ls)
    ls.set_defaults(run=_ls)


def _add_down(commands: Subparsers) -> None:
    down = _add(commands, "down", "end it; nothing is left", "End the running lab.", "")
    _name(down)
    down.set_defaults(run=_down)


FAULTS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "throttle": ("let ACTION be called so often", {
        "action": {}, "--rate": {"type": float, "required": True, "help": "calls a second"},
        "--burst": {"type": float, "help": "calls at once (the rate, and one at least)"},
    }),
    "latency": ("let ACTION take time", {
        "action": {}, "seconds": {"type": float},
        "--p99": {"type": float, "default": 0.0, "help": "what one call in a hundred exceeds"},
    }),
    "fail": ("refuse ACTION with an error CODE of EC2", {
        "action": {}, "code": {}, "--times": {"type": int, "help": "so often (always)"},
        "--status": {"type": int, "default": 400, "help": "the HTTP status (%(default)s)"},
    }),
    "lose": ("do ACTION and let nobody hear", {
        "action": {}, "--times": {"type": int, "default": 1, "help": "so often (%(default)s)"},
    }),
    "lag": ("let descriptions of ENIs lag", {"seconds": {"type": float}}),
    "attach": ("let attaching take time", {"seconds": {"type": float}}),
    "detach": ("let detaching take time", {"seconds": {"type": float}}),
    "imds-delay": ("let IMDS tell of the past", {"seconds": {"type": float}}),
    "imds-stale": ("let some keys of IMDS tell of the past", {
        "pattern": {}, "seconds": {"type": float}, "--node": {},
    }),
    "imds-short": ("let some lists of IMDS be cut off", {
        "pattern": {}, "lines": {"type": int}, "--node": {},
    }),
    "imds-missing": ("let some keys of IMDS not be there", {"pattern": {}, "--node": {}}),
    "imds-burst": ("let IMDS answer STATUS so often", {
        "status": {"type": int}, "count": {"type": int}, "--node": {},
    }),
    "imds-off": ("disable IMDS for a node", {"node": {}}),
    "imds-on": ("enable it again", {"node": {}}),
    "spot": ("tell a node that its instance ends in two minutes", {"node": {}}),
    "rebalance": ("recommend a node to move", {"node": {}}),
    "realistic": ("as slow and strict as a busy account", {}),
    "clear": ("take every fault back", {}),
}  # fmt: skip
"""Each fault: what it does, and its arguments as argparse takes them."""


def _add_fault(commands: Subparsers) -> None:
    fault = _add(commands, "fault", "make something wrong on purpose", FAULT, FAULT_EPILOG)
    kinds = fault.add_subparsers(dest="kind", metavar="FAULT")
    for name, (help_, arguments) in FAULTS.items():
        kind = kinds.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        for argument, options in arguments.items():
            named = {} if argument.startswith("-") else {"metavar": argument.upper()}
            kind.add_argument(argument, **named, **options)
        _name(kind)
    _name(fault)
    fault.set_defaults(run=_fault)


def _up(arguments: argparse.Namespace) -> int:
    _check_extra()
    plan = Plan(
        nodes=arguments.nodes,
        instance_type=arguments.instance_type,
        cidr=arguments.cidr,
        region=arguments.region,
        ipv6=arguments.ipv6,
        private=arguments.private,
        arbitrary_names=arguments.arbitrary_names,
    )
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"enid: {what}", file=sys.stderr, flush=True)

    with _sentences():
        seen = RunningLab(arguments.name).start(plan, tell)
    if arguments.output == "json":
        print(json.dumps(seen))
        return 0
    _show(seen)
    name = "" if arguments.name == "lab" else f" --name {arguments.name}"
    print(f"Up in {time.monotonic() - began:.1f} s. EC2 for this machine: {seen['endpoint']}")
    print(f"Next: enid lab shell node-a{name}    then: enid lab down{name}")
    return 0


def _show(seen: Any) -> None:
    from vpclab.show import show  # noqa: PLC0415 - rich is not always needed

    show(seen)


def _shell(arguments: argparse.Namespace) -> int:
    with _sentences():
        entry, env = RunningLab(arguments.name).entry(arguments.node)
    command = arguments.command
    if not command:
        command = ["bash", "--norc", "--noprofile"]
        if arguments.node != "internet" and sys.stdin.isatty():
            other = "node-b" if arguments.node != "node-b" else "node-a"
            print(f"On {arguments.node}; exit leaves it. Try:\n{TRY.format(other=other)}")
    kept = {name: os.environ[name] for name in ("TERM", "HOME", "NO_COLOR") if name in os.environ}
    env = {"PATH": os.environ.get("PATH", ""), **kept, "PS1": f"{arguments.node}# ", **env}
    path = env["PATH"] + ":/usr/sbin:/sbin"
    os.execvpe(entry[0], [*entry, *command], {**env, "PATH": path})  # noqa: S606 - no shell: words
    return 1


def _ls(arguments: argparse.Namespace) -> int:
    with _sentences():
        seen = RunningLab(arguments.name).ask("ls")
    if arguments.output == "json":
        print(json.dumps(seen))
    else:
        _show(seen)
    return 0


def _fault(arguments: argparse.Namespace) -> int:
    wish = {
        name.lstrip("-"): getattr(arguments, name.lstrip("-"))
        for name in FAULTS.get(arguments.kind or "", ("", {}))[1]
    }
    with _sentences():
        answer = RunningLab(arguments.name).ask("fault", kind=arguments.kind, wish=wish)
    for line in answer["faults"] or ["nothing is wrong"]:
        print(line)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    with _sentences():
        RunningLab(arguments.name).stop()
    print(f"enid: the lab '{arguments.name}' is gone")
    return 0


class _sentences:  # noqa: N801 - it reads as a word before a block
    """Lets what the lab refuses be one sentence and an exit status."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Exit for LabError and BoxError."""
        if isinstance(error, LabError | box.BoxError):
            sys.exit(f"enid: {error} [{error.id}]")


def _check_extra() -> None:
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        needs = f"the lab needs {', '.join(missing)}: pip install 'enid[lab]'"
        sys.exit(f"enid: {needs} [LAB-MISSING]")


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.list_sabotage:
        from vpclab.demo.picture import print_sabotage  # noqa: PLC0415 - rich is not always needed

        print_sabotage(sabotage.ALL)
        return 0
    _check_extra()
    if arguments.svg is not None and not os.access(Path(arguments.svg).parent, os.W_OK):
        sys.exit(f"enid: no file can be written in {Path(arguments.svg).parent} [LAB-SVG]")
    if not box.in_box():
        _say_first(arguments)
        _enter()
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


def _enter() -> None:
    """Run this very command in a box, and exit with its status."""
    try:
        box.enter([sys.executable, "-c", "from ipamd.cli import main; main()", *sys.argv[1:]])
    except box.BoxError as error:
        sys.exit(f"enid: {error} [{error.id}]")
