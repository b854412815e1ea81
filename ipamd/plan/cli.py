"""`enid plan`: what an operator asks before there is a node. Shell.

Whatever is asked runs the daemon's own engine against a modelled EC2, in virtual time. The
rule to keep: this file imports nothing of that until it is asked, and neither boto3 nor the
kernel's side ever.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipamd.plan.asked import Asked

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - has no public name

DESCRIPTION = """\
Show what a node would hold and ask of EC2: how many ENIs, addresses and calls for so many
pods, how long pods would wait, what is left of a subnet.

It runs the daemon's own engine against a model of EC2, in virtual time: no AWS, no root, no
network. What EC2 takes and lets an account do are assumptions, which the answer names."""

EXAMPLES = """\
Examples:
  enid plan --instance-type m5.large
                        what it holds when it is empty, half full and full
  enid plan --instance-type t3.small --pods 0,5,9 --set WARM_IP_TARGET=2
                        with the settings of your DaemonSet, as often as you like
  enid plan --instance-type m5.large --pods 110 --set ENABLE_PREFIX_DELEGATION=true -o json

  enid plan trace --kind day --seed 7 > day.trace
                        a day of pods that come and go
  enid plan --instance-type m5.xlarge --trace day.trace --plot day.svg
  enid plan --instance-type m5.xlarge --trace day.trace --compare
                        calls, waits and idle addresses, beside the AWS VPC CNI's

  enid plan --instance-type m5.xlarge --nodes 1000 --pods 30 --subnet 10.0.0.0/16
                        a scale-up: against the account's limits, and what is left of the subnet
  enid plan --instance-type m5.xlarge --nodes 200 --trace day.trace --account-limits ours.json

Exit status: 0 done, 2 not understood or not possible; one sentence then says why."""


def add_plan(commands: Subparsers) -> None:
    """Add `enid plan` to the command line."""
    plan = commands.add_parser(
        "plan",
        help="what a node or a fleet would hold and ask of EC2, without AWS",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_node(plan)
    _add_load(plan)
    _add_fleet(plan)
    _add_model(plan)
    plan.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="default: %(default)s"
    )
    plan.set_defaults(run=_run, make=False)
    makers = plan.add_subparsers(dest="plan_command", metavar="trace")
    _add_trace(makers)


def _add_node(plan: argparse.ArgumentParser) -> None:
    node = plan.add_argument_group("the node")
    node.add_argument("--instance-type", metavar="TYPE", help="such as m5.large")
    node.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting, as the daemon would read it; may be repeated",
    )
    node.add_argument("--max-pods", metavar="N", help="kubelet's; not given: no cap")
    node.add_argument(
        "--subnet",
        action="append",
        default=[],
        metavar="CIDR",
        help="where nodes are; may be repeated (default: 10.0.0.0/16)",
    )


def _add_load(plan: argparse.ArgumentParser) -> None:
    load = plan.add_argument_group("the pods")
    load.add_argument("--pods", metavar="N[,N…]", help="how many, one at a time")
    load.add_argument(
        "--trace", metavar="FILE", help="lines `SECONDS +PODS` or `SECONDS -PODS`; - is stdin"
    )
    load.add_argument("--plot", metavar="FILE.svg", help="with --trace or --nodes: a picture")
    load.add_argument(
        "--cooldown", metavar="SECONDS", help="how long a released address cools (default: not)"
    )


def _add_fleet(plan: argparse.ArgumentParser) -> None:
    fleet = plan.add_argument_group("a fleet")
    fleet.add_argument("--nodes", metavar="N", help="so many nodes in one account")
    fleet.add_argument(
        "--spread", metavar="SECONDS", help="over which they start, by chance (default: 60)"
    )
    fleet.add_argument(
        "--account-limits",
        metavar="FILE",
        help="EC2 request limits as ENID_ACCOUNT_LIMITS has them (default: assumptions)",
    )


def _add_model(plan: argparse.ArgumentParser) -> None:
    model = plan.add_argument_group("the model")
    model.add_argument(
        "--policy",
        choices=("enid", "peer"),
        default="enid",
        help="peer: the AWS VPC CNI, as documented (default: %(default)s)",
    )
    model.add_argument("--compare", action="store_true", help="both policies, side by side")
    model.add_argument(
        "--attach-seconds",
        metavar="S",
        help="from AttachNetworkInterface until the link is there (default: 3)",
    )
    model.add_argument("--seed", metavar="N", help="of chance (default: 1)")


def _add_trace(makers: Subparsers) -> None:
    trace = makers.add_parser(
        "trace",
        help="make up a trace of pods that come and go",
        description="Print a trace of one node for --trace: the same seed, the same trace.",
        epilog="Examples:\n  enid plan trace --kind day --seed 7 > day.trace\n"
        "  enid plan trace --kind burst | enid plan --instance-type m5.large --trace -",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    trace.add_argument(
        "--kind",
        choices=("day", "burst", "cron", "rollout"),
        default="day",
        help="default: %(default)s",
    )
    trace.add_argument("--seed", metavar="N", default="1", help="default: %(default)s")
    trace.set_defaults(run=_make_trace)


# Running ---------------------------------------------------------------------------------------
def _run(arguments: argparse.Namespace) -> int:
    from ipamd.plan import asked  # noqa: PLC0415 - only now, see above
    from ipamd.plan.errors import PlanError  # noqa: PLC0415

    engine_log = logging.getLogger("ipamd")
    level = engine_log.level
    # Thousands of planned throttles are the answer's business; a broken flight is ours.
    engine_log.setLevel(logging.CRITICAL)
    try:
        what = asked.read(arguments, _stdin)
        for warning in what.warnings:
            print(f"enid: {warning}", file=sys.stderr)  # noqa: T201 - a command's answer
        _answer(what)
    except PlanError as error:
        return _fail(error)
    finally:
        engine_log.setLevel(level)
    return 0


def _answer(what: Asked) -> None:
    from ipamd.plan import asked  # noqa: PLC0415

    answer = asked.answer(what, _Progress() if sys.stderr.isatty() or what.nodes else None)
    if what.output == "json":
        import json  # noqa: PLC0415

        print(json.dumps(answer.as_data(), indent=2))  # noqa: T201 - a command's answer
    else:
        from ipamd.plan.show import show  # noqa: PLC0415 - rich takes 60 ms

        show(answer)


def _make_trace(arguments: argparse.Namespace) -> int:
    from ipamd.plan import asked, trace  # noqa: PLC0415
    from ipamd.plan.errors import PlanError  # noqa: PLC0415

    try:
        seed = asked.whole("--seed", arguments.seed, 0)
    except PlanError as error:
        return _fail(error)
    kind = trace.Churn(arguments.kind)
    title = f"enid plan trace --kind {kind} --seed {seed}"
    changes = trace.churn(kind, asked.chance(seed))
    print("\n".join(trace.render_trace(changes, title)))  # noqa: T201 - a command's answer
    return 0


def _fail(error: Exception) -> int:
    name = getattr(error, "id", "PLAN")
    print(f"enid: {error} [{name}]", file=sys.stderr)  # noqa: T201 - a command's answer
    return 2


def _stdin() -> Sequence[str]:
    return sys.stdin.read().splitlines()


class _Progress:
    """A line on stderr, once something takes long."""

    def __init__(self) -> None:
        import time  # noqa: PLC0415

        self._now = time.monotonic
        self._next = self._now() + 2.0
        self._width = 0

    def __call__(self, text: str) -> None:
        if self._now() >= self._next:
            self._next = self._now() + (0.5 if sys.stderr.isatty() else 5.0)
            end = "\r" if sys.stderr.isatty() else "\n"
            self._width = max(self._width, len(text))
            print(text.ljust(self._width), end=end, file=sys.stderr, flush=True)  # noqa: T201

    def done(self) -> None:
        """Take the line away."""
        if self._width and sys.stderr.isatty():
            print(" " * self._width, end="\r", file=sys.stderr, flush=True)  # noqa: T201
