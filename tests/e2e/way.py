"""The cluster whose output is in `docs/how-a-pod-gets-its-address.md`. Shell.

python -m vpclab.box python -m tests.e2e.way             # writes the page's blocks anew
python -m vpclab.box python -m tests.e2e.way --check     # says where this run differs from the page

What is shown is what happened: the plugin's frame and its answer are those of the pod's own ADD, by
something that listens between the plugin and ipamd; a packet is met on its way by tcpdump and nft
where it passes.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.e2e.lab import keeping_logs, lab_cluster
from tests.e2e.listener import Heard, Listener
from tests.tools.way import LOOKS, PAGE, Look, block, files, rewritten, settled, shape
from vpclab.cluster import chart
from vpclab.cluster.api import is_true
from vpclab.cluster.parts import kubectl
from vpclab.cluster.program import ClusterError, wait_for
from vpclab.cluster.whole import Cluster
from vpclab.cluster.worker import PAUSE
from vpclab.vpc import EmbeddedVPC

OTHERS, MOST_OTHERS = 11, 16
"""Pods that are on node-a before: they and one or two of the cluster's own fill the primary ENI's
nine addresses, so the next pod's is a secondary ENI's."""

SETTLE_SECONDS = 30.0
"""For ENIs that are being attached."""

ON_A = '{"spec": {"nodeSelector": {"kubernetes.io/hostname": "node-a"}}}'

FOLDER = "/run/way"
"""Where a node has the page's files."""

TRIES = 12
"""A Service of two leads back to who asks every other time: one of 4096 runs sees nothing else."""

KIND, MOST_ENIS = "m5.large", 3
"""The nodes: small ones, which are soon full."""

ANSWER_SECONDS = 300.0
"""For a command on a machine that has other things to do."""

WAIT_SECONDS = 60.0
"""For packets that have passed already."""

ENDS = (r'.*default\\""$', ".* returns sandbox id")
"""What containerd's lines of a sandbox end with: when it is asked for, and when it is there."""


@dataclass
class Way:
    """The cluster, and what has been seen on it so far."""

    vpc: EmbeddedVPC
    cluster: Cluster
    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)

    # Places ------------------------------------------------------------------------------
    def argv(self, place: str, command: str) -> list[str]:
        """Return the words that run a command at a place."""
        if place == "admin":
            program = kubectl()
            assert program is not None, "there is no kubectl: `tools/fetch-helm`"
            settings = f"PATH={program.parent}:$PATH; export KUBECONFIG={self.cluster.kubeconfig}"
            return ["sh", "-c", f"{settings}; cd {self.folder}; {command}"]
        if place in self.vpc.nodes:
            node = self.vpc.nodes[place]
            return [*node.entry(), "sh", "-c", f"cd {FOLDER}; {command}"]
        fd = self.vpc.fabric.worker.fd if place == "vpc" else self.vpc.internet.fd
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{fd}", "sh", "-c", command]

    def env(self, place: str) -> dict[str, str] | None:
        """Return the environment of a place."""
        return {**os.environ, **self.vpc.nodes[place].env} if place in self.vpc.nodes else None

    def run(self, place: str, command: str) -> str:
        """Return what a command prints."""
        done = subprocess.run(
            self.argv(place, command), env=self.env(place), capture_output=True, text=True,
            timeout=ANSWER_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{place}$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    # Looks -------------------------------------------------------------------------------
    def command(self, name: str) -> tuple[Look, str]:
        """Return a look, and its command with this run's names."""
        (look,) = (look for look in LOOKS if look.name == name)
        return look, look.command.format(**self.names)

    def look(self, *names: str) -> None:
        """Capture what these commands print."""
        for name in names:
            look, command = self.command(name)
            self.put(name, self.run(look.place, command))

    def put(self, name: str, output: str) -> None:
        """Note what a look saw."""
        look, command = self.command(name)
        self.seen[name] = block(look, command, settled(output))

    @contextlib.contextmanager
    def meanwhile(self, *names: str) -> Iterator[dict[str, str]]:
        """Have these looks while the block does something; afterwards there is what they saw.

        Those of tcpdump end by themselves; others are ended when these have.
        """
        printed: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            began = {name: stack.enter_context(self._begun(name)) for name in names}
            counted = [name for name in names if "tcpdump" in self.command(name)[1]]
            for name in counted:
                _await_line(began[name], "listening on")
            yield printed
            for name in counted:
                printed[name] = began[name].communicate(timeout=WAIT_SECONDS)[0]
            for name in set(names) - set(counted):
                began[name].terminate()
                printed[name] = began[name].communicate(timeout=WAIT_SECONDS)[0]

    @contextlib.contextmanager
    def _begun(self, name: str) -> Iterator[subprocess.Popen[str]]:
        look, command = self.command(name)
        process = subprocess.Popen(
            self.argv(look.place, f"exec {command}"), env=self.env(look.place), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    # Pods --------------------------------------------------------------------------------
    def pods(self, label: str) -> list[Any]:
        """Return the pods with a label that are ready."""
        return [pod for pod in self.cluster.api.pods("default", label) if is_true(pod, "Ready")]

    def fill(self) -> None:
        """Have other pods on node-a, until the next one's address is one of its second ENI's."""
        for number in range(MOST_OTHERS):
            self.occupy(number)
            if number + 1 >= OTHERS:
                with contextlib.suppress(ClusterError):
                    wait_for(self.is_ripe, "node-a's ENIs", SETTLE_SECONDS)
                    return
        raise AssertionError(f"{MOST_OTHERS} pods do not lead node-a to its second ENI")

    def occupy(self, number: int) -> None:
        """Run a pod on node-a."""
        container = {"name": "main", "image": PAUSE, "command": ["sleep", "3600"]}
        name, labels = f"other-{number}", {"app": "other"}
        spec = {"nodeName": "node-a", "containers": [container], "terminationGracePeriodSeconds": 0}
        meta = {"name": name, "namespace": "default", "labels": labels}
        self.cluster.api.create({"kind": "Pod", "metadata": meta, "spec": spec})

    def is_ripe(self) -> bool:
        """Return whether all pods run, and node-a's second ENI is the one with room."""
        pods = self.cluster.api.pods("default", "app=other")
        if not all(is_true(pod, "Ready") for pod in pods):
            return False
        command = (
            f"kubectl exec -n kube-system {self.names['enid']} -c ipamd -- enid status -o json"
        )
        free = [eni["free"] for eni in json.loads(self.run("admin", command))["enis"]]
        return len(free) == MOST_ENIS and not free[0] and free[1] > 0

    def enis(self) -> list[dict[str, Any]]:
        """Return what ipamd of node-a says of its ENIs."""
        command = (
            f"kubectl exec -n kube-system {self.names['enid']} -c ipamd -- enid status -o json"
        )
        return list(json.loads(self.run("admin", command))["enis"])

    def deploy(self) -> None:
        """Apply the page's Deployment, with an ear at node-a's socket."""
        listener = Listener(self.vpc.nodes["node-a"])
        try:
            self.look("apply")
            wait_for(lambda: len(self.pods("app=hello")) == 2, "the Deployment", ANSWER_SECONDS)
        finally:
            listener.close()
        self.heard = listener.heard
        for pod in self.pods("app=hello"):
            letter = pod["spec"]["nodeName"][-1]
            self.names[letter] = pod["metadata"]["name"]
            self.names[f"ip_{letter}"] = address = pod["status"]["podIP"]
            route = self.run(pod["spec"]["nodeName"], f"ip route show table 5120 {address}")
            self.names[f"veth_{letter}"] = route.split()[2]
        link = self.run("node-a", f"ip -o link show {self.names['veth_a']}")
        self.names["eni_a"] = link.split()[-1]  # its alias ends with it
        assert "group 5122" in link, (
            f"its address is not one of the second ENI's: {link}\n{self.enis()}"
        )
        service = self.cluster.api.ask("GET", "/api/v1/namespaces/default/services/hello")
        self.names["service"] = service["spec"]["clusterIP"]

    def add(self) -> Heard:
        """Return the pod's own ADD."""
        (found,) = (
            heard for heard in self.heard
            if "CNI_COMMAND=ADD" in heard.env and any(self.names["a"] in word for word in heard.env)
        )  # fmt: skip
        return found

    # The script's own looks --------------------------------------------------------------
    def tell_exchange(self) -> None:
        """Show the frame and its answer."""
        add = self.add()
        told = [add.head, *add.env, add.stdin, *add.descriptors]
        self.put("frame", "\n".join(told))
        self.put("answer", f"{add.answer[:1].decode()}\n{add.answer[1:].decode()}")

    def tell_times(self) -> None:
        """Show how long containerd, the plugin and ipamd were at it."""
        add, log = self.add(), self.vpc.nodes["node-a"].path("/var/log/containerd.log").read_text()
        begun, sandbox = (_at(log, f"RunPodSandbox for .*{self.names['a']}{end}") for end in ENDS)
        within = re.search(rf'within sandbox .*{add.sandbox}.* returns container id \\"(\w+)', log)
        assert within is not None, log[-3000:]
        whole = (_at(log, f"StartContainer for .*{within[1]}.* returns") - begun).total_seconds()
        rows = {
            "the pod, from its sandbox's beginning until it runs": whole,
            "its sandbox: RunPodSandbox": (sandbox - begun).total_seconds(),
            "enid-cni, from its start to its answer": add.answered - add.started,
            "ipamd, from the frame to its answer": add.answered - add.came,
        }
        lines = (
            f"{what:54} {1000 * took:7.1f} ms {100 * took / whole:6.1f} %"
            for what, took in rows.items()
        )
        self.put("times", "\n".join(lines))

    def tell_drops(self) -> None:
        """Show what the VPC has counted."""
        drops = self.vpc.fabric.drops()
        self.put("drops", "\n".join(f"{why} {times}" for why, times in drops.items()))

    # The way -----------------------------------------------------------------------------
    def place_files(self) -> None:
        """Put the page's files where its commands look for them."""
        folders = [node.path(FOLDER) for node in self.vpc.nodes.values()]
        for folder in folders:
            folder.mkdir()
        for name, text in files(PAGE.read_text()).items():
            for folder in (self.folder, *folders):
                (folder / name).write_text(text)

    def ask_service(self) -> None:
        """Ask the Service until the pod on the other node answers, and see that connection pass."""
        looks = ("trace", "at-veth-a", "at-eni-a", "at-vpc", "at-eni-b", "at-veth-b")
        for _ in range(TRIES):
            with contextlib.suppress(_OtherError), self.meanwhile(*looks) as printed:
                self.look("ask")
                if self.names["b"] not in self.seen["ask"]:
                    raise _OtherError
            if printed:
                break
            for node in ("node-a", "node-b"):
                self.run(node, "conntrack -F")
        assert printed, f"{TRIES} times the Service led back to who asked"
        there, back = _by_packet(printed.pop("trace"))
        for name, text in {**printed, "trace": there, "trace-back": back}.items():
            self.put(name, text)

    def leave_the_vpc(self) -> None:
        """Ask somebody outside, and see the packet pass."""
        looks = ("out-trace", "out-veth", "out-eni", "out-internet")
        with self.meanwhile(*looks) as printed:
            self.look("out")
        for name, text in printed.items():
            self.put(name, text)

    def wait_for_an_address(self) -> None:
        """Take all addresses that node-a can have, and run one pod more."""
        places = sum(eni["slots"] for eni in self.enis())
        for number in range(MOST_OTHERS, MOST_OTHERS + places - self.used()):
            self.occupy(number)
        wait_for(lambda: self.used() == places, f"{places} addresses in use", ANSWER_SECONDS)
        self.run(
            "admin", f"kubectl run one-more --image={PAUSE} --overrides='{ON_A}' -- sleep 3600"
        )
        wait_for(self.is_told, "the pod's Event, and the node's condition", ANSWER_SECONDS)
        self.look("waits", "full")

    def is_told(self) -> bool:
        """Return whether one-more has an Event of ours, and node-a's condition says it, too."""
        events = self.cluster.api.listed("/api/v1/namespaces/default/events")
        told = [one for one in events if one["source"].get("component") == "enid"]
        ours = [one for one in told if one["involvedObject"]["name"] == "one-more"]
        (node,) = (one for one in self.cluster.api.nodes() if one["metadata"]["name"] == "node-a")
        return bool(ours) and not is_true(node, "PodAddressesAvailable")

    def capture(self) -> dict[str, str]:
        """Go the whole way; return the blocks by name."""
        daemons = self.cluster.api.pods(chart.SPACE, chart.LABEL)
        (self.names["enid"],) = (
            pod["metadata"]["name"] for pod in daemons if pod["spec"]["nodeName"] == "node-a"
        )
        self.fill()
        wait_for(self.is_recorded, "node-a's record", ANSWER_SECONDS)
        self.place_files()
        self.look("fleet")
        self.deploy()
        self.look("scheduled", "runtime", "conflist")
        self.tell_exchange()
        self.look(
            "log", "status", "lease", "journal", "pod-address", "pod-routes", "pod-neighbours"
        )
        self.look("route", "veth", "rules", "eni-table", "leave", "eni")
        wait_for(self.is_recorded, "node-a's record", ANSWER_SECONDS)
        self.look("record", "pod-ips", "pod")
        self.tell_times()
        self.run("node-a", "nft -f trace.nft")
        self.look("service")
        self.ask_service()
        self.look("decided", "vpc-route", "route-b", "back-b", "known-a", "known-b")
        self.look("direct", "direct-known")
        self.leave_the_vpc()
        self.look("out-known")
        self.tell_drops()
        self.wait_for_an_address()
        return self.seen

    def is_recorded(self) -> bool:
        """Return whether node-a's record knows all addresses that are in use."""
        told = self.run("admin", "kubectl get nn node-a -o jsonpath='{.status.counts.assigned}'")
        return told.strip() == str(self.used())

    def used(self) -> int:
        """Return how many addresses node-a's pods have."""
        query = "select count(*) from leased"
        return int(self.run("node-a", f"sqlite3 /run/enid/leases.db '{query}'"))


class _OtherError(Exception):
    """The Service led to the pod that asked."""


def _at(log: str, pattern: str) -> datetime:
    """Return when containerd logged the line that has *pattern*, by the microsecond."""
    found = re.search(rf'^time="([\d:T-]+\.\d{{6}})\d*Z" .*{pattern}', log, re.MULTILINE)
    assert found is not None, f"{pattern} is not in\n{log[-3000:]}"
    return datetime.fromisoformat(found[1])


def _by_packet(trace: str) -> list[str]:
    """Return the lines of each packet that was traced, in the order in which they came."""
    packets: dict[str, str] = {}
    for line in trace.splitlines(keepends=True):
        if found := re.match(r"trace id (\w+)", line):
            packets[found[1]] = packets.get(found[1], "") + line
    return list(packets.values())


def _await_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"it has ended: {''.join(said)}")


def captured() -> dict[str, str]:
    """Make a cluster; return what was captured of it."""
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"enid: {time.monotonic() - began:5.1f} s  {what}", file=sys.stderr, flush=True)  # noqa: T201 - progress

    with tempfile.TemporaryDirectory(prefix="way-", dir="/run") as name, EmbeddedVPC() as vpc:
        folder = Path(name)
        with keeping_logs(vpc, folder), lab_cluster(vpc, folder, tell, kind=KIND) as cluster:
            tell("the cluster is up")
            blocks = Way(vpc, cluster, folder).capture()
            tell(f"{len(blocks)} looks taken")
            return blocks


def main(words: Sequence[str] | None = None) -> int:
    """Write the page's blocks anew, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.way")
    parser.add_argument("--check", action="store_true", help="say what differs from the page")
    parser.add_argument(
        "--page", metavar="FILE", type=Path, help="where to write; default: the page"
    )
    arguments = parser.parse_args(words)
    page, blocks = PAGE.read_text(), captured()
    new = rewritten(page, blocks)
    if arguments.page or not arguments.check:
        (arguments.page or PAGE).write_text(new)
    if not arguments.check:
        return 0
    lines = list(
        difflib.unified_diff(shape(page), shape(new), "the page", "this run", lineterm="", n=1)
    )
    print("\n".join(lines))  # noqa: T201 - a command's answer
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
