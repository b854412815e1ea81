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

POLICIES = Path(__file__).parents[1] / "config" / "iam"
POLICY = POLICIES / "instance-profile.json"
"""What the node's role may (docs/iam.md)."""

POD_POLICY = POLICIES / "pod-identity.json"
"""What the role of the daemon's service account may, where its keys come from there."""


def prepare(node: Node) -> None:
    """Set *node* up as the init container does."""
    node.worker.write_sysctls(NODE_SYSCTLS)


def node_policy() -> dict[str, Any]:
    """Return the policy that is shipped for a node's role."""
    return _read(POLICY)


def pod_policy() -> dict[str, Any]:
    """Return the policy that is shipped for a service account's role."""
    return _read(POD_POLICY)


def _read(path: Path) -> dict[str, Any]:
    policy: dict[str, Any] = json.loads(path.read_text())
    return policy
