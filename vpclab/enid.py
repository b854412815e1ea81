"""enid on a node of the lab: what its chart gives and sets. Shell.

The lab itself knows of no CNI; this is for the demo and for tests.
"""

from __future__ import annotations

from cni.dataplane import NODE_SYSCTLS
from vpclab.node import Node, Rights

RIGHTS = Rights(capabilities=("net_admin",), writable=("/run/enid", "/var/lib/enid"))
"""What the DaemonSet's container may."""


def prepare(node: Node) -> None:
    """Set *node* up as the init container does."""
    node.worker.write_sysctls(NODE_SYSCTLS)
