"""What somebody else's rules do to a node's pods, each with the check that notices. Shell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from vpclab.cluster.whole import Cluster

TABLE = "table ip sabotage {{ chain {hook} {{ type {kind} hook {hook} priority {priority}; {rule} }}; }}"


@dataclass(frozen=True, slots=True)
class Sabotage:
    """An nft rule on every node, and what the check says of it."""

    name: str
    table: str
    check: str
    said: str


SABOTAGES = (
    Sabotage(
        "masqueraded-within-the-vpc",
        TABLE.format(kind="nat", hook="postrouting", priority=50, rule='oifname "ens*" masquerade;'),
        "pod-to-pod-across-nodes",
        "instead of",
    ),
    Sabotage(
        "no-udp-to-dns",
        TABLE.format(kind="filter", hook="forward", priority=0, rule="udp dport 53 drop;"),
        "dns",
        "nslookup",
    ),
    Sabotage(
        "no-services",
        TABLE.format(
            kind="filter", hook="forward", priority=0,
            rule="meta l4proto tcp ct original proto-dst 80 drop;",
        ),
        "cluster-ip",
        "wget",
    ),
)  # fmt: skip


@contextlib.contextmanager
def spoiled(cluster: Cluster, sabotage: Sabotage) -> Iterator[None]:
    """Have the rule on every node; it is gone afterwards."""
    try:
        for worker in cluster.workers:
            worker.node.run(["nft", "-f", "-"], input=sabotage.table)
        yield
    finally:
        for worker in cluster.workers:
            worker.node.run(["nft", "delete", "table", "ip", "sabotage"], check=False)
