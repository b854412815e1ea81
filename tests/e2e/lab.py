"""The lab's cluster for tests: a VPC, two nodes in two zones, and the CNI on them. Shell."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vpclab.cluster import chart
from vpclab.cluster.parts import image, newest
from vpclab.cluster.whole import Cluster, Wish, raised

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC

ZONES = (("10.0.1.0/24", "us-east-1a"), ("10.0.2.0/24", "us-east-1b"))

NODES = "m5.xlarge"
"""58 places each, of four ENIs with 14 addresses for pods: room for 60 pods and more beside what
the lab has; two m5.large, with 29 each, have not."""


@contextlib.contextmanager
def keeping_logs(vpc: EmbeddedVPC, folder: Path) -> Iterator[None]:
    """Keep what nodes have in /var/log: it goes with the VPC."""
    try:
        yield
    finally:
        for node in vpc.nodes.values():
            for log in node.path("/var/log").glob("*.log"):
                shutil.copy(log, folder / f"{node.name}-{log.name}")


@contextlib.contextmanager
def lab_cluster(
    vpc: EmbeddedVPC,
    folder: Path,
    tell: Callable[[str], None],
    zones: Sequence[tuple[str, str]] = ZONES,
    images: Sequence[Path] = (),
    kind: str = NODES,
) -> Iterator[Cluster]:
    """Make the cluster, a node of this kind in each zone, with these images, too; nothing is left."""
    subnets = [vpc.add_subnet(cidr, zone) for cidr, zone in zones]
    control = vpc.launch_node("control", "m5.large", subnets[0], public=True)
    nodes = [
        vpc.launch_node(f"node-{letter}", kind, subnet, public=True, hop_limit=2)
        for letter, subnet in zip("abc", subnets, strict=False)
    ]
    # Named by process: several clusters run beside each other on one machine.
    cgroup = f"enid-e2e-{os.getpid()}"
    wish = Wish(control, nodes, newest(), folder, cgroup, [image(), *images])
    with raised(vpc, wish, chart.install, tell) as cluster:
        yield cluster
