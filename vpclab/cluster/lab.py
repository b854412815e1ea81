"""The nodes of a running lab as a cluster (`enid lab cluster`). Shell."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vpclab.cluster import chart
from vpclab.cluster.forward import forwarding
from vpclab.cluster.parts import image, newest
from vpclab.cluster.whole import Wish, raised

if TYPE_CHECKING:
    from vpclab.vpc import EmbeddedVPC

CONTROL = "control"
"""The host of the control plane, beside node-a, node-b, ..."""


@contextlib.contextmanager
def joined(
    vpc: EmbeddedVPC,
    subnet: str,
    door: socket.socket,
    cgroup: str,
    tell: Callable[[str], None],
) -> Iterator[str]:
    """Make a cluster of the VPC's nodes; its control plane gets a host in *subnet*.

    The names of its cgroups begin with *cgroup*. Give its administrator's kubeconfig, for whoever
    reaches the listening *door*. Raises ClusterError.
    """
    nodes = tuple(vpc.nodes.values())
    tell(f"launching {CONTROL}")
    control = vpc.launch_node(CONTROL, "m5.large", subnet, public=True)
    with tempfile.TemporaryDirectory(prefix="cluster-", dir="/run") as folder:
        wish = Wish(control, nodes, newest(), Path(folder), cgroup, [image()])
        with (
            raised(vpc, wish, chart.install, tell) as cluster,
            forwarding(door, cluster.control.connect),
        ):
            yield cluster.control.kubeconfig(f"https://127.0.0.1:{door.getsockname()[1]}")
