"""A lab that outlives its terminal, from inside: what answers on its control socket. Shell.

    python -m vpclab.server CONTROL-FD ENDPOINT-FD PLAN

One JSON object a line comes in, one goes out. `running.RunningLab` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import socketserver
import string
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from vpclab.running import LabError, Plan

if TYPE_CHECKING:
    from vpclab.node import Node
    from vpclab.vpc import EmbeddedVPC

ZONES = 2
MOST_NODES = len(string.ascii_lowercase)
SPOT_NOTICE = timedelta(minutes=2)
"""How long before its end a spot instance is told (EC2 user guide)."""


class Lab:
    """What a running lab does when it is asked."""

    def __init__(self, vpc: EmbeddedVPC, endpoint: str) -> None:
        self.vpc, self.endpoint = vpc, endpoint
        self.faults = Faulting(vpc)

    def furnish(self, plan: Plan, tell: Callable[[str], None]) -> None:
        """Make subnets and nodes. Raises EC2's ClientError."""
        outer = IPv4Network(plan.cidr)
        length = min(28, max(24, outer.prefixlen + 2))
        cidrs = list(islice(outer.subnets(new_prefix=length), 2 * ZONES))
        listed = self.vpc.ec2.describe_availability_zones()["AvailabilityZones"]
        zones = [zone["ZoneName"] for zone in listed][:ZONES]
        subnets = [self.vpc.add_subnet(str(c), z) for c, z in zip(cidrs, zones, strict=False)]
        if plan.private:
            subnets = [
                self.vpc.add_subnet(str(c), z, private=True)
                for c, z in zip(cidrs[ZONES:], zones, strict=False)
            ]
        for number in range(plan.nodes):
            name = f"node-{string.ascii_lowercase[number]}"
            tell(f"launching {name}")
            self.vpc.launch_node(
                name,
                plan.instance_type,
                subnets[number % len(subnets)],
                public=not plan.private,
                hop_limit=2,
            )
        self._name()

    def _name(self) -> None:
        """Let every node know the others by name."""
        nodes = self.vpc.nodes.values()
        known = [f"{node.primary} {node.name}" for node in nodes]
        known += [f"{self.vpc.internet.address} internet"]
        for node in nodes:
            text = "\n".join(["127.0.0.1 localhost", *known, ""])
            node.path("/etc/hosts").write_text(text)

    # Answers -----------------------------------------------------------------------------
    def ls(self) -> dict[str, Any]:
        """Return everything a person wants to see."""
        vpc = self.vpc
        enis = vpc.enis()
        nodes = []
        for node in vpc.nodes.values():
            mine = [eni for eni in enis if eni.instance_id == node.instance_id]
            facts = vpc.facts(node)
            nodes.append(
                {
                    "name": node.name,
                    "instance_id": node.instance_id,
                    **facts,
                    "primary": str(node.primary),
                    "enis": len(mine),
                    "addresses": sum(1 + len(eni.secondary) for eni in mine),
                    "prefixes": sum(len(eni.prefixes) + len(eni.ipv6_prefixes) for eni in mine),
                }
            )
        return {
            "vpc_id": vpc.vpc_id,
            "region": vpc.region,
            "cidrs": [*vpc.cidrs, *vpc.cidrs6],
            "endpoint": self.endpoint,
            "nodes": nodes,
            "calls": self._calls(),
            "faults": self.faults.lines(),
            "drops": vpc.drops(),
        }

    def _calls(self) -> list[dict[str, Any]]:
        with self.vpc.plane.lock:
            tallies = sorted(self.vpc.plane.tallies.items())
            return [
                {
                    "action": action,
                    "calls": tally.outcomes.total(),
                    "outcomes": dict(tally.outcomes),
                    "mean_ms": round(1000 * tally.seconds / tally.outcomes.total(), 1),
                    "longest_ms": round(1000 * tally.longest, 1),
                }
                for action, tally in tallies
            ]

    def enter(self, node: str) -> dict[str, Any]:
        """Return how to step onto a node, or the internet's host, from inside the box."""
        if node == "internet":
            entry = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.vpc.internet.fd}", "--"]
            return {"entry": entry, "env": {}}
        found: Node | None = self.vpc.nodes.get(node)
        if found is None:
            names = ", ".join([*self.vpc.nodes, "internet"])
            raise LabError(f"there is no node {node}; there are {names}")
        return {"entry": found.entry(), "env": {**found.env, "AWS_DEFAULT_REGION": self.vpc.region}}


class Faulting:
    """The faults of a lab by their names on the command line."""

    def __init__(self, vpc: EmbeddedVPC) -> None:
        self._vpc = vpc
        self._said: list[str] = []
        """Faults of IMDS and nodes, in words: they are not asked back from where they are."""

    def lines(self) -> list[str]:
        """Return each fault that is on, as a sentence."""
        delays = self._vpc.delays
        named = {"attaching": delays.attach_seconds, "detaching": delays.detach_seconds}
        slow = [f"{what} takes {seconds:g} s" for what, seconds in named.items() if seconds]
        return [*self._vpc.faults.lines(), *slow, *self._said]

    def make(self, kind: str, wish: Mapping[str, Any]) -> None:
        """Make a fault of *kind*. Raises LabError for what makes no sense."""
        made: Callable[..., None] | None = getattr(self, f"_{kind.replace('-', '_')}", None)
        if made is None:
            raise LabError(f"there is no fault '{kind}'")
        made(**wish)

    def _action(self, action: str) -> str:
        from vpclab.ec2 import MODELLED  # noqa: PLC0415 - moto is there by now

        if action not in MODELLED and action != "*":
            raise LabError(f"'{action}' is not an action of the embedded EC2")
        return action

    def _instance(self, node: str | None) -> str | None:
        if node is None:
            return None
        if node not in self._vpc.nodes:
            raise LabError(f"there is no node {node}; there are {', '.join(self._vpc.nodes)}")
        return self._vpc.nodes[node].instance_id

    def _throttle(self, action: str, rate: float, burst: float | None) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.throttle(self._action(action), rate, burst)

    def _latency(self, action: str, seconds: float, p99: float) -> None:
        from vpclab.faults import Latency  # noqa: PLC0415 - as above

        with self._vpc.plane.lock:
            self._vpc.faults.latency(self._action(action), Latency(seconds, p99))

    def _fail(self, action: str, code: str, times: float | None, status: int) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.fail(
                self._action(action), code, times=float("inf") if times is None else times,
                status=status,
            )  # fmt: skip

    def _lose(self, action: str, times: float) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.lose(self._action(action), times=times)

    def _lag(self, seconds: float) -> None:
        self._vpc.plane.lag(seconds)

    def _attach(self, seconds: float) -> None:
        self._vpc.delays.attach_seconds = seconds

    def _detach(self, seconds: float) -> None:
        self._vpc.delays.detach_seconds = seconds

    def _imds_delay(self, seconds: float) -> None:
        self._vpc.imds.faults.delay_seconds = seconds
        self._say(f"IMDS is {seconds:g} s late")

    def _imds_stale(self, pattern: str, seconds: float, node: str | None) -> None:
        self._vpc.imds.faults.stale(pattern, seconds, self._instance(node))
        self._say(f"IMDS tells {pattern} as {seconds:g} s ago", node)

    def _imds_short(self, pattern: str, lines: int, node: str | None) -> None:
        self._vpc.imds.faults.short(pattern, lines, self._instance(node))
        self._say(f"IMDS tells {lines} lines of {pattern}", node)

    def _imds_missing(self, pattern: str, node: str | None) -> None:
        self._vpc.imds.faults.missing(pattern, self._instance(node))
        self._say(f"IMDS knows nothing of {pattern}", node)

    def _imds_burst(self, status: int, count: int, node: str | None) -> None:
        self._vpc.imds.faults.burst(status, count, self._instance(node))
        self._say(f"IMDS answers {status}, {count} times", node)

    def _imds_off(self, node: str) -> None:
        self._endpoint(node, "disabled")
        self._say("IMDS is disabled", node)

    def _imds_on(self, node: str) -> None:
        self._endpoint(node, "enabled")

    def _endpoint(self, node: str, state: str) -> None:
        instance_id = self._instance(node)
        self._vpc.ec2.modify_instance_metadata_options(InstanceId=instance_id, HttpEndpoint=state)

    def _spot(self, node: str) -> None:
        instance_id = self._instance(node)
        assert instance_id is not None  # noqa: S101 - a node was named
        until = (datetime.now(UTC) + SPOT_NOTICE).strftime("%Y-%m-%dT%H:%M:%SZ")
        notice = json.dumps({"action": "terminate", "time": until})
        self._vpc.imds.say(instance_id, "spot/instance-action", notice)
        self._vpc.imds.say(instance_id, "spot/termination-time", until)
        self._say(f"{node} is told that its instance ends at {until}")

    def _rebalance(self, node: str) -> None:
        instance_id = self._instance(node)
        assert instance_id is not None  # noqa: S101 - a node was named
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        notice = json.dumps({"noticeTime": now})
        self._vpc.imds.say(instance_id, "events/recommendations/rebalance", notice)
        self._say(f"{node} is told to rebalance")

    def _realistic(self) -> None:
        from vpclab.faults import realistic  # noqa: PLC0415 - as above

        with self._vpc.plane.lock:
            realistic(self._vpc.faults)
        self._vpc.plane.lag(self._vpc.faults.lag_seconds)
        self._vpc.delays.attach_seconds, self._vpc.delays.detach_seconds = 2.0, 5.0
        self._imds_delay(1.0)

    def _clear(self) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.clear()
        self._vpc.plane.lag(0)
        self._vpc.delays.attach_seconds = self._vpc.delays.detach_seconds = 0.0
        self._vpc.imds.faults.clear()
        for node in self._vpc.nodes.values():
            self._imds_on(node.name)
            for path in ("spot/instance-action", "spot/termination-time",
                         "events/recommendations/rebalance"):  # fmt: skip
                self._vpc.imds.unsay(node.instance_id, path)
        self._said.clear()

    def _say(self, line: str, node: str | None = None) -> None:
        self._said.append(f"{line} to {node}" if node else line)


class Door(socketserver.ThreadingUnixStreamServer):
    """The control socket. Who may enter its folder may ask; others' processes may not."""

    daemon_threads = True

    def __init__(self, fd: int) -> None:
        super().__init__("", _Asker, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=fd)
        self.socket.listen(16)
        self.lab: Lab | None = None
        self.doing = "starting"
        self.ended = threading.Event()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; a unix socket's peer has no address."""
        connection, _ = self.socket.accept()
        return connection, "peer"

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - its signature
        """Let the owner in, and root, who is nobody in a user namespace."""
        data = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid: int = struct.unpack("iII", data)[1]
        return uid in {os.geteuid(), 0}

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a question; what cannot be is an error in it."""
        match question.get("do"):
            case "state":
                return {"ready": self.lab is not None, "doing": self.doing}
            case "down":
                self.ended.set()
                return {}
            case _ if self.lab is None:
                raise LabError("it is starting")
            case "ls":
                return self.lab.ls()
            case "enter":
                return self.lab.enter(str(question.get("node")))
            case "fault":
                if kind := question.get("kind"):
                    self.lab.faults.make(kind, question.get("wish") or {})
                return {"faults": self.lab.faults.lines()}
            case other:
                raise LabError(f"it does not know '{other}'")


class _Asker(socketserver.StreamRequestHandler):
    server: Door

    def handle(self) -> None:
        """Answer one question."""
        with contextlib.suppress(OSError):
            try:
                answer = self.server.answer(json.loads(self.rfile.readline() or b"{}"))
            except (LabError, ValueError, TypeError) as refusal:
                answer = {"error": str(refusal)}
            except ClientError as refusal:
                answer = {"error": refusal.response["Error"]["Message"]}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def check(plan: Plan) -> None:
    """Raise LabError for a plan that cannot be."""
    try:
        network = ip_network(plan.cidr)
    except ValueError as reason:
        raise LabError(f"'{plan.cidr}' is not a CIDR: {reason}") from None
    if network.version != 4 or not 16 <= network.prefixlen <= 26:  # noqa: PLR2004 - what EC2 takes, and room for four subnets
        raise LabError(f"the lab's CIDR is an IPv4 network of /16 to /26; '{plan.cidr}' is not")
    if not 1 <= plan.nodes <= MOST_NODES:
        raise LabError(f"a lab has 1 to {MOST_NODES} nodes; {plan.nodes} were asked for")


def main() -> None:
    """Serve one lab until it is told to end."""
    control, endpoint, text = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    plan = Plan(**json.loads(text))
    door = Door(control)
    threading.Thread(target=door.serve_forever, args=(0.05,), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: door.ended.set())
    try:
        _serve(door, socket.socket(fileno=endpoint), plan)
    except (LabError, ValueError) as refusal:
        sys.exit(str(refusal))
    except ClientError as refusal:
        sys.exit(refusal.response["Error"]["Message"])


def _serve(door: Door, endpoint: socket.socket, plan: Plan) -> None:
    check(plan)

    def tell(what: str) -> None:
        door.doing = what

    tell("loading moto's EC2")
    from vpclab.api import serving  # noqa: PLC0415 - a second, and someone waits for a word
    from vpclab.vpc import EmbeddedVPC, arbitrary, predictable  # noqa: PLC0415 - as above

    tell(f"making a VPC of {plan.cidr}")
    ifname = arbitrary if plan.arbitrary_names else predictable
    with EmbeddedVPC(plan.cidr, plan.region, ipv6=plan.ipv6, ifname=ifname) as vpc:
        url = f"http://127.0.0.1:{endpoint.getsockname()[1]}"
        lab = Lab(vpc, url)
        lab.furnish(plan, tell)
        with serving(vpc.plane.application(counted=False), endpoint):
            door.lab = lab
            door.ended.wait()


if __name__ == "__main__":
    main()
