"""`enid lab up | shell | ls | fault | down`: a lab that runs, from a terminal. Shell.

Nothing here imports moto before the first line is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpclab import box
from vpclab.iam import PolicyError, read
from vpclab.running import LabError, Plan, RunningLab, require_extra, running

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[Any]  # noqa: SLF001 - argparse gives its type no other name

DEFAULT = "lab"
"""The name of a lab that was given none."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")

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
  enid lab up --policy node.json              nodes that may do what the policy says, and no more
  enid lab up --name other                    a second lab beside the first
  enid lab up -o json | jq -r .endpoint       the EC2 endpoint for this machine's programs

Everything about a lab is in one folder of /tmp, or of ENID_LAB_HOME if that is set."""

CLUSTER = """\
Start a Kubernetes cluster of the real programs in an AWS VPC on this machine.

etcd, API server, controllers and scheduler are on a host of their own in the VPC; each node has
containerd, kubelet and kube-proxy; enid is installed by its chart, as an operator does it. What is
missing of all that is built first, from source: half an hour, once. It takes root."""

CLUSTER_EPILOG = """\
Examples:
  enid lab cluster                            two nodes, m5.large, in two zones
  enid lab cluster --nodes 3 --type c6i.xlarge
  export KUBECONFIG=$(enid lab kubeconfig)
  kubectl get pods -A -o wide
  enid verify --quick
  enid lab shell node-a -- tail /var/log/kubelet.log
  enid lab down"""

SHELL = """\
Open a shell on a node of the running lab, or run one command there.

The node may be `internet`, the host on the other side of the gateway."""

SHELL_EPILOG = """\
Examples:
  enid lab shell node-a
  enid lab shell node-a -- ip route
  enid lab shell internet -- ping -c 1 198.51.100.1

Exit status: the command's own."""

FAULT = """\
Make something wrong in the running lab, on purpose; without a fault, show what is.

ACTION is an EC2 action as CreateNetworkInterface, or '*' for all of them. Faults of EC2 meet
the calls of nodes; the endpoint on this machine's loopback is for setting up, and spared. What
they did is in the call table of `enid lab ls`."""

FAULT_EPILOG = """\
Examples:
  enid lab fault throttle CreateNetworkInterface --rate 2
  enid lab fault fail AttachNetworkInterface AttachmentLimitExceeded --times 1
  enid lab fault lose CreateNetworkInterface           done, and the caller never hears
  enid lab fault latency '*' 0.2 --p99 2               and one call in a hundred 2 s or more
  enid lab fault attach 4 --p99 60                     each ENI takes its own time
  enid lab fault lag 5                                 descriptions are 5 s old
  enid lab fault imds-stale 'network/interfaces/macs/*/local-ipv4s' 30
  enid lab fault spot node-a
  enid lab fault realistic                             slow and strict, as a busy account
  enid lab fault clear"""

TRY = """\
  T=$(curl -sX PUT 169.254.169.254/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 600')
  curl -sH "X-aws-ec2-metadata-token: $T" 169.254.169.254/latest/meta-data/
  python3 -c 'import boto3; print(boto3.client("ec2").describe_instances()["Reservations"])'
  ping -c 1 {other}; ping -c 1 internet{ping}"""


class Parser(argparse.ArgumentParser):
    """Takes what stands behind `--` as a command, wherever options stand before it.

    argparse by itself gives a `*` its nothing as soon as an option follows the first word.
    """

    takes_command = False

    def parse_known_args(  # type: ignore[override]  # its overloads are for a namespace's type
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, as argparse does."""
        words = list(sys.argv[1:] if args is None else args)
        if not self.takes_command or "--" not in words:
            return super().parse_known_args(words, namespace)
        cut = words.index("--")
        found, rest = super().parse_known_args(words[:cut], namespace)
        found.command = [*found.command, *words[cut + 1 :]]
        return found, rest


HERE = 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"'
"""A node has its user's files, apart from what it has of its own: stay where they are."""


def add_running(commands: Subparsers) -> None:
    """Add the commands of a running lab to `enid lab`."""
    _add_up(commands)
    _add_cluster(commands)
    _add_kubeconfig(commands)
    _add_shell(commands)
    _add_ls(commands)
    _add_fault(commands)
    _add_down(commands)


def add(commands: Subparsers, name: str, help_: str, text: str, epilog: str) -> Any:
    """Add a subcommand with its help and return its parser."""
    return commands.add_parser(
        name,
        help=help_,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _name(parser: argparse.ArgumentParser, default: str = DEFAULT) -> None:
    parser.add_argument(
        "--name", default=default, type=_plain,
        help=f"which lab, if there are several ({DEFAULT})",
    )  # fmt: skip


def _plain(name: str) -> str:
    if not NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"'{name}' is not up to 32 letters, digits and hyphens")
    return name


def _add_up(commands: Subparsers) -> None:
    up = add(commands, "up", "start a VPC that outlives this terminal", UP, UP_EPILOG)
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
    up.add_argument(
        "--policy", action="append", default=[], metavar="FILE",
        help="what nodes may do in EC2: an IAM policy in JSON; several add up (everything)",
    )  # fmt: skip
    _output(up)
    _name(up)
    up.set_defaults(run=_up)


def _add_cluster(commands: Subparsers) -> None:
    cluster = add(
        commands, "cluster", "start a Kubernetes cluster in such a VPC", CLUSTER, CLUSTER_EPILOG
    )
    plan = Plan()
    cluster.add_argument("--nodes", type=int, default=plan.nodes, help="how many (%(default)s)")
    cluster.add_argument(
        "--type",
        dest="instance_type",
        default=plan.instance_type,
        help="of what type (%(default)s)",
    )
    _output(cluster)
    _name(cluster)
    cluster.set_defaults(run=_cluster)


def _add_kubeconfig(commands: Subparsers) -> None:
    kubeconfig = add(
        commands, "kubeconfig", "where the cluster's kubeconfig is",
        "Print where the kubeconfig of the running cluster is.", "",
    )  # fmt: skip
    _name(kubeconfig)
    kubeconfig.set_defaults(run=_kubeconfig)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table",
        help="json: data on stdout (default: %(default)s)",
    )  # fmt: skip


def _add_shell(commands: Subparsers) -> None:
    shell = add(commands, "shell", "step onto a node", SHELL, SHELL_EPILOG)
    shell.takes_command = True
    shell.usage = "%(prog)s [-h] [--name NAME] NODE [-- COMMAND ...]"
    shell.add_argument("node", metavar="NODE", help="node-a, ..., or internet")
    shell.add_argument("command", nargs="*", metavar="COMMAND", help="after --: run it, no shell")
    _name(shell)
    shell.set_defaults(run=_shell)


def _add_ls(commands: Subparsers) -> None:
    ls = add(commands, "ls", "nodes, EC2 calls, faults, drops", "Show the running lab.", "")
    _output(ls)
    _name(ls)
    ls.set_defaults(run=_ls)


def _add_down(commands: Subparsers) -> None:
    down = add(commands, "down", "end it; nothing is left", "End the running lab.", "")
    _name(down)
    down.set_defaults(run=_down)


PATTERN = {"help": "keys below meta-data, as a shell's pattern; * crosses slashes"}
ONE = {"help": "node-a, ..."}
NODE = {"metavar": "NODE", "help": "for one node only"}
P99: dict[str, Any] = {
    "type": float, "default": 0.0, "metavar": "SECONDS", "help": "what one in a hundred exceeds",
}  # fmt: skip

FAULTS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "throttle": ("let ACTION be called so often", {
        "action": {}, "--rate": {"type": float, "required": True, "help": "calls a second"},
        "--burst": {"type": float, "help": "calls at once (the rate, and one at least)"},
    }),
    "latency": ("let ACTION take time", {
        "action": {}, "seconds": {"type": float},
        "--p99": P99,
    }),
    "fail": ("refuse ACTION with an error CODE of EC2", {
        "action": {}, "code": {}, "--times": {"type": int, "help": "so often (always)"},
        "--status": {"type": int, "default": 400, "help": "the HTTP status (%(default)s)"},
    }),
    "lose": ("do ACTION and let nobody hear", {
        "action": {}, "--times": {"type": int, "default": 1, "help": "so often (%(default)s)"},
    }),
    "lag": ("let descriptions of ENIs lag", {"seconds": {"type": float}}),
    "attach": ("let attaching take time, 0: at once", {
        "seconds": {"type": float, "help": "as a rule; each ENI's own with --p99"}, "--p99": P99,
    }),
    "detach": ("let detaching take time, 0: at once", {
        "seconds": {"type": float, "help": "as a rule; each ENI's own with --p99"}, "--p99": P99,
    }),
    "imds-delay": ("let IMDS tell of the past", {"seconds": {"type": float}}),
    "imds-stale": ("let some keys of IMDS tell of the past", {
        "pattern": PATTERN, "seconds": {"type": float}, "--node": NODE,
    }),
    "imds-short": ("let some lists of IMDS be cut off", {
        "pattern": PATTERN, "lines": {"type": int}, "--node": NODE,
    }),
    "imds-missing": ("let some keys of IMDS not be there", {"pattern": PATTERN, "--node": NODE}),
    "imds-burst": ("let IMDS answer STATUS so often", {
        "status": {"type": int}, "count": {"type": int}, "--node": NODE,
    }),
    "imds-off": ("disable IMDS for a node", {"node": ONE}),
    "imds-on": ("enable it again", {"node": ONE}),
    "spot": ("tell a node that its instance ends in two minutes", {"node": ONE}),
    "rebalance": ("recommend a node to move", {"node": ONE}),
    "realistic": ("as slow and strict as a busy account", {}),
    "clear": ("take every fault back", {}),
}  # fmt: skip
"""Each fault: what it does, and its arguments as argparse takes them."""


def _add_fault(commands: Subparsers) -> None:
    fault = add(commands, "fault", "make something wrong on purpose", FAULT, FAULT_EPILOG)
    kinds = fault.add_subparsers(dest="kind", metavar="FAULT")
    for name, (help_, arguments) in FAULTS.items():
        kind = kinds.add_parser(name, help=help_, description=help_[0].upper() + help_[1:] + ".")
        for argument, options in arguments.items():
            named = {} if argument.startswith("-") else {"metavar": argument.upper()}
            kind.add_argument(argument, **named, **options)
        # Not its default: that would win over a name that stands before the fault's.
        _name(kind, default=argparse.SUPPRESS)
    _name(fault)
    fault.set_defaults(run=_fault)


def _up(arguments: argparse.Namespace) -> int:
    with sentences():
        policies = tuple(map(_policy, arguments.policy))
    plan = Plan(
        nodes=arguments.nodes,
        instance_type=arguments.instance_type,
        cidr=arguments.cidr,
        region=arguments.region,
        ipv6=arguments.ipv6,
        private=arguments.private,
        arbitrary_names=arguments.arbitrary_names,
        policies=policies,
    )
    return _start(arguments, plan)


def _cluster(arguments: argparse.Namespace) -> int:
    with sentences():
        require_extra()
        from vpclab.cluster.parts import make  # noqa: PLC0415 - it needs what was just required

        make()
    plan = Plan(nodes=arguments.nodes, instance_type=arguments.instance_type, cluster=True)
    return _start(arguments, plan)


def _start(arguments: argparse.Namespace, plan: Plan) -> int:
    began = time.monotonic()

    def tell(what: str) -> None:
        seconds = f"{time.monotonic() - began:5.1f} s  " if plan.cluster else ""
        print(f"enid: {seconds}{what}", file=sys.stderr, flush=True)

    with sentences():
        require_extra()
        lab = RunningLab(arguments.name)
        seen = lab.start(plan, tell)
    if arguments.output == "json":
        print(json.dumps(seen))
        return 0
    _show(seen)
    name = "" if arguments.name == DEFAULT else f" --name {arguments.name}"
    print(f"Up in {time.monotonic() - began:.1f} s. EC2 for this machine: {seen['endpoint']}")
    if plan.cluster:
        print(f"Next: export KUBECONFIG={lab.kubeconfig}    kubectl get pods -A -o wide")
        print("Next: enid verify --quick")
    print(f"Next: enid lab shell node-a{name}    then: enid lab down{name}")
    return 0


def _kubeconfig(arguments: argparse.Namespace) -> int:
    with sentences():
        lab = RunningLab(arguments.name)
        lab.ask("kubeconfig")
    print(lab.kubeconfig)
    return 0


def _policy(path: str) -> str:
    """Return the policy in a file, which can be read. Raises PolicyError."""
    try:
        text = Path(path).read_text()
        read(json.loads(text), path)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not JSON: {error}") from None
    return text


def _show(seen: Any) -> None:
    from vpclab.show import show  # noqa: PLC0415 - rich is not always needed

    show(seen)


def _shell(arguments: argparse.Namespace) -> int:
    with sentences():
        entry, env = RunningLab(arguments.name).entry(arguments.node)
    command = arguments.command
    if not command:
        command = ["bash", "--norc", "--noprofile"]
        if arguments.node != "internet" and sys.stdin.isatty():
            other = "node-b" if arguments.node != "node-b" else "node-a"
            ping = "" if shutil.which("ping") else "    # apt-get install iputils-ping"
            print(
                f"On {arguments.node}; exit leaves it. Try:\n{TRY.format(other=other, ping=ping)}"
            )
    kept = {name: os.environ[name] for name in ("TERM", "HOME", "NO_COLOR") if name in os.environ}
    kept |= {"PS1": f"{arguments.node}# ", "HISTFILE": ""}  # the lab's is no history of its user
    path = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    words = [*entry, "sh", "-c", HERE, "sh", _folder(), *command]
    os.execvpe(entry[0], words, {"PATH": path, **kept, **env})  # noqa: S606 - no shell: words
    return 1


def _folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # somebody has removed it
        return "/"


def _ls(arguments: argparse.Namespace) -> int:
    with sentences():
        seen = RunningLab(arguments.name).ask("ls")
    if arguments.output == "json":
        print(json.dumps(seen))
        return 0
    _show(seen)
    for name in running():
        if name != arguments.name:
            print(f"There is another: enid lab ls --name {name}")
    return 0


def _fault(arguments: argparse.Namespace) -> int:
    wish = {
        name.lstrip("-"): getattr(arguments, name.lstrip("-"))
        for name in FAULTS.get(arguments.kind or "", ("", {}))[1]
    }
    with sentences():
        answer = RunningLab(arguments.name).ask("fault", kind=arguments.kind, wish=wish)
    for line in answer["faults"] or ["nothing is wrong"]:
        print(line)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    with sentences():
        RunningLab(arguments.name).stop()
    print(f"enid: the lab '{arguments.name}' is gone")
    return 0


class sentences:  # noqa: N801 - it reads as a word before a block
    """Lets what the lab refuses be one sentence and an exit status."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Exit for LabError, BoxError and PolicyError."""
        if isinstance(error, LabError | box.BoxError | PolicyError):
            sys.exit(f"enid: {error} [{error.id}]")
