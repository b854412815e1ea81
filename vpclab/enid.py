"""enid on a node of the lab: what its chart gives and sets. Shell.

The lab itself knows of no CNI; this is for the demo and for tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cni.dataplane import NODE_SYSCTLS
from vpclab.node import Node, Rights

RIGHTS = Rights(("net_admin",), writable=("/run/enid", "/var/lib/enid"), filtered=True)
"""What the DaemonSet's container may."""

POLICY = Path(__file__).parents[1] / "config" / "iam" / "instance-profile.json"
"""What the node's role may (docs/iam.md)."""


def prepare(node: Node) -> None:
    """Set *node* up as the init container does."""
    node.worker.write_sysctls(NODE_SYSCTLS)


def node_policy() -> dict[str, Any]:
    """Return the policy that is shipped for a node's role."""
    policy: dict[str, Any] = json.loads(POLICY.read_text())
    return policy
