"""A lab that outlives its terminal, from inside: what answers on its control socket. Shell.

    python -m vpclab.server CONTROL-FD ENDPOINT-FD API-SERVER-FD PLAN

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
import traceback
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from vpclab.faulting import Faulting
from vpclab.running import LabError, Plan, RefusedError

if TYPE_CHECKING:
    from vpclab.node import Node
    from vpclab.vpc import EmbeddedVPC

ZONES = 2
MOST_NODES = len(string.ascii_lowercase)


class Lab:
    """What a running lab does when it is asked."""

    def __init__(self, vpc: EmbeddedVPC, endpoint: str) -> None:
        self.vpc, self.endpoint = vpc, endpoint
        self.faults = Faulting(vpc)
        self.kubeconfig: str | None = None
        """Of its cluster's administrator."""

    def furnish(self, plan: Plan, tell: Callable[[str], None]) -> str:
        """Make subnets and nodes; return the first subnet. Raises EC2's ClientError."""
        outer = IPv4Network(plan.cidr)
        length = min(28, max(24, outer.prefixlen + 2))
        cidrs = list(islice(outer.subnets(new_prefix=length), 2 * ZONES))
        listed = self.vpc.ec2.describe_availability_zones()["AvailabilityZones"]
        zones = [zone["ZoneName"] for zone in listed][:ZONES]
        subnets = [self.vpc.add_subnet(str(c), z) for c, z in zip(cidrs, zones, strict=False)]
        first = subnets[0]
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
        return first

    def _name(self) -> None:
        """Let every node know the others by name."""
        nodes = self.vpc.nodes.values()
        known = [f"{node.primary} {node.name}" for node in nodes]
        known += [f"{self.vpc.internet.address} internet"]
        for node in nodes:
            text = "\n".join(["127.0.0.1 localhost", *known, ""])
            node.path("/etc/hosts").write_text(text)

    def fault(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Make something wrong, if it is asked for, and return what is."""
        if kind := question.get("kind"):
            self.faults.make(kind, question.get("wish") or {})
        return {"faults": self.faults.lines()}

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
                    "addresses": sum(len(eni.addresses) for eni in mine),
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
            "denials": vpc.denials,
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
            raise RefusedError(f"there is no node {node}; there are {names}")
        region = self.vpc.region
        own = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        return {"entry": found.entry(), "env": {**found.env, **own}}


class Door(socketserver.ThreadingUnixStreamServer):
    """The control socket. Only its owner, who alone can enter its folder, may ask."""

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
        """Let the owner in; of another user's process nothing is read."""
        data = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid: int = struct.unpack("iII", data)[1]
        return uid == os.geteuid()

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a question; what cannot be is an error in it."""
        match question.get("do"):
            case "state":
                return {"ready": self.lab is not None, "doing": self.doing}
            case "down":
                self.ended.set()
                return {}
            case _ if self.lab is None:
                raise RefusedError(f"the lab is still starting: {self.doing}")
            case "ls":
                return self.lab.ls()
            case "enter":
                return self.lab.enter(str(question.get("node")))
            case "kubeconfig" if self.lab.kubeconfig is not None:
                return {"text": self.lab.kubeconfig}
            case "fault":
                return self.lab.fault(question)
            case other:
                raise RefusedError(f"the lab does not know '{other}'")


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
            except Exception as failure:  # noqa: BLE001 - a thread's top: who asked must hear
                traceback.print_exc()
                answer = {"error": f"the lab failed at it ({failure!r}); its log says where"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def check(plan: Plan) -> None:
    """Raise LabError for a plan that cannot be."""
    try:
        network = ip_network(plan.cidr)
    except ValueError as reason:
        raise RefusedError(f"'{plan.cidr}' is not a CIDR: {reason}") from None
    if network.version != 4 or not 16 <= network.prefixlen <= 26:  # noqa: PLR2004 - what EC2 takes, and room for four subnets
        raise RefusedError(f"the lab's CIDR is an IPv4 network of /16 to /26; '{plan.cidr}' is not")
    if not 1 <= plan.nodes <= MOST_NODES:
        raise RefusedError(f"a lab has 1 to {MOST_NODES} nodes; {plan.nodes} were asked for")


def main() -> None:
    """Serve one lab until it is told to end."""
    control, *doors = map(int, sys.argv[1:4])
    text = sys.argv[4]
    plan = Plan(**json.loads(text))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # of its user's account; a profile that is not there ends boto3
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"
    door = Door(control)
    threading.Thread(target=door.serve_forever, args=(0.05,), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: door.ended.set())
    try:
        _serve(door, [socket.socket(fileno=fd) for fd in doors], plan)
    except (LabError, ValueError) as refusal:
        sys.exit(str(refusal))
    except ClientError as refusal:
        sys.exit(refusal.response["Error"]["Message"])


def _serve(door: Door, doors: Sequence[socket.socket], plan: Plan) -> None:
    """Have the lab, whose EC2 and API server answer at *doors*, until it is told to end."""
    endpoint, api_server = doors
    check(plan)

    def tell(what: str) -> None:
        door.doing = what

    tell("loading moto's EC2")
    from vpclab.api import serving  # noqa: PLC0415 - a second, and someone waits for a word
    from vpclab.vpc import EmbeddedVPC, arbitrary, predictable  # noqa: PLC0415 - as above

    tell(f"making a VPC of {plan.cidr}")
    ifname = arbitrary if plan.arbitrary_names else predictable
    with contextlib.ExitStack() as exits:
        vpc = exits.enter_context(
            EmbeddedVPC(plan.cidr, plan.region, ipv6=plan.ipv6, ifname=ifname)
        )
        url = f"http://127.0.0.1:{endpoint.getsockname()[1]}"
        if plan.policies:
            vpc.restrict(*map(json.loads, plan.policies))
        lab = Lab(vpc, url)
        subnet = lab.furnish(plan, tell)
        exits.enter_context(serving(vpc.plane.application(counted=False), endpoint))
        if plan.cluster:
            from vpclab.cluster.lab import joined  # noqa: PLC0415 - a second, for clusters only

            lab.kubeconfig = exits.enter_context(joined(vpc, subnet, api_server, plan.cgroup, tell))
        else:
            api_server.close()
        door.lab = lab
        door.ended.wait()


if __name__ == "__main__":
    main()
