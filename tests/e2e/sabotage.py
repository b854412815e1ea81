"""What is wrong on a node, by somebody else's hand, each with the check that notices. Shell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from vpclab.cluster.whole import Cluster

TABLE = "table ip sabotage {{ chain {hook} {{ type {kind} hook {hook} priority {priority}; {rule} }}; }}"
SECONDARY = "iifgroup 5122"
"""What comes from pods of a node's second ENI (cni/dataplane.py, POD_GROUP)."""

OTHERS = '{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "loopback"}]}'
CONFLIST = "/etc/cni/net.d/00-other.conflist"
STRANGER = "198.51.100.77"


@dataclass(frozen=True, slots=True)
class Sabotage:
    """What is done on every node, as an nft table or by a shell, and what the check says of it."""

    name: str
    check: str
    said: str
    table: str = ""
    begin: str = ""
    """A shell's words; `$1` is the address of the pod that may change its own."""

    end: str = ""


def ruled(name: str, check: str, said: str, rule: str, hook: str = "forward", kind: str = "filter", priority: int = 0) -> Sabotage:  # fmt: skip
    """Return a sabotage by one rule of nft."""
    text = TABLE.format(kind=kind, hook=hook, priority=priority, rule=rule)
    return Sabotage(name, check, said, text)


SABOTAGES = (
    ruled(
        "masqueraded-within-the-vpc", "pod-to-pod-across-nodes", "instead of",
        'oifname "ens*" masquerade;', hook="postrouting", kind="nat", priority=50,
    ),
    ruled("no-udp-to-dns", "dns-udp", "timed out", "udp dport 53 drop;"),
    ruled("no-tcp-to-dns", "dns-tcp", "timed out", "tcp dport 53 drop;"),
    ruled(
        "no-services", "cluster-ip", "timed out",
        "meta l4proto tcp ct original proto-dst 80 drop;",
    ),
    ruled("no-datagrams-of-pods", "udp-across-nodes", "no answer", "udp dport 8080 drop;"),
    ruled(
        "nothing-of-the-second-eni", "pod-to-pod-across-enis", "timed out",
        f"{SECONDARY} tcp dport 8080 drop;",
    ),
    ruled(
        "no-large-packets", "full-size-packets", "no answer",
        "meta l4proto udp ip length > 1500 drop;",
    ),
    ruled(
        "no-fragments", "fragments", "no answer", "ip frag-off & 0x3fff != 0 drop;",
        hook="prerouting", priority=-450,  # before conntrack puts them together
    ),
    ruled(
        "refusals-are-lost", "without-endpoints", "silent",
        "icmp type destination-unreachable drop;", hook="output",
    ),
    ruled(
        "nodes-without-node-ports", "node-port-from-a-node", "timed out",
        "tcp dport 30000-32767 drop;", hook="output", priority=-150,  # before its DNAT
    ),
    ruled(
        "the-nodes-dns-is-shut", "node-local-dns", "timed out",
        "ip daddr 169.254.20.10 drop;", hook="input",
    ),
    ruled(
        "half-of-the-pods-have-metadata", "metadata", "differ",
        f"{SECONDARY} ip daddr 169.254.169.254 drop;",
    ),
    ruled(
        "half-of-the-pods-get-out", "outside", "no address", f"{SECONDARY} ip daddr 203.0.113.1 drop;"
    ),
    Sabotage(
        "anybody-may-be-a-stranger", "spoofed-foreigner", "got what guest sent",
        begin=f"""
            ip rule add pref 100 to {STRANGER} lookup 99
            ip route add {STRANGER} table 99 \
                dev "$(ip route get "$1" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p')"
        """,
        end="ip rule del pref 100; ip route flush table 99",
    ),
    Sabotage(
        "another-conflist-is-first", "conflist-is-first", "00-other.conflist",
        begin=f"echo '{OTHERS}' >{CONFLIST}", end=f"rm -f {CONFLIST}",
    ),
)  # fmt: skip


@contextlib.contextmanager
def spoiled(cluster: Cluster, sabotage: Sabotage, guest: str) -> Iterator[None]:
    """Have it on every node; it is gone afterwards."""
    try:
        for worker in cluster.workers:
            if sabotage.table:
                worker.node.run(["nft", "-f", "-"], input=sabotage.table)
            if sabotage.begin:
                worker.node.run(["sh", "-ec", sabotage.begin, "sh", guest])
        yield
    finally:
        for worker in cluster.workers:
            worker.node.run(["nft", "delete", "table", "ip", "sabotage"], check=False)
            if sabotage.end:
                worker.node.run(["sh", "-c", sabotage.end], check=False)
