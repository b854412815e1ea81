"""The proofs, with packets. Shell.

A scene looks at the stage and settles the claims it names; one that breaks fails what it
has left open, and the next goes on. Nothing here looks into the daemon: what is compared is
what far ends saw, what EC2 has, what the kernel and `enid status` show.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import permutations, product
from pathlib import Path
from typing import Any

from ipamd.status import Status
from vpclab.demo.ledger import Ledger
from vpclab.demo.stage import PER_ENI, Pod, Site, Stage
from vpclab.demo.traffic import (
    Catcher,
    Pair,
    Peer,
    Seen,
    Taps,
    connect_all,
    forge,
    ping_all,
)

LARGEST_PING = 9001 - 20 - 8
"""What fits into the MTU of a VPC behind IPv4's and ICMP's headers: 8,973 bytes."""

CAP_NET_ADMIN = 1 << 12
"""linux/capability.h"""

FOREIGN_BITS = 0x5AC34000
"""Bits 8 to 31 that others use at once: 0x4000 is kube-proxy's, the rest is everybody's."""

FOREIGNER = """
table ip foreigner {{
 counter kept {{ }}
 counter lost {{ }}
 chain before {{
  type filter hook prerouting priority -160; policy accept;
  ip saddr {{ {peers} }} goto brand
  ip daddr {{ {peers} }} goto brand
 }}
 chain brand {{
  meta mark set meta mark or {bits:#x}
  ct mark set ct mark or {bits:#x}
 }}
 chain after {{
  type filter hook postrouting priority 110; policy accept;
  ip saddr {{ {peers} }} goto weigh
  ip daddr {{ {peers} }} goto weigh
 }}
 chain weigh {{
  meta mark and 0xffffff00 != {bits:#x} counter name lost return
  ct mark and 0xffffff00 != {bits:#x} counter name lost return
  counter name kept
 }}
}}
"""
"""Somebody else's table: it brands packets and connections before our chains, and looks
after them whether the brand is whole."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A part of the demo: what is said while it plays, and the claims it settles."""

    title: str
    names: tuple[str, ...]
    play: Callable[[Stage, Ledger], None]


def count_wrong(seen: Mapping[Pair, Seen], wanted: IPv4Address | None = None) -> tuple[int, str]:
    """Return how many pairs did not see what they should, and the first of them in words."""
    wrong = [
        (pair, one)
        for pair, one in seen.items()
        if not one.reached or one.source != (wanted or pair[0].address)
    ]
    if not wrong:
        return 0, ""
    (source, target), one = wrong[0]
    what = f"seen as {one.source}" if one.reached else one.trouble
    return len(wrong), f"{source.name} ({source.address}) to {target.name}: {what}"


def settle_seen(ledger: Ledger, name: str, seen: Mapping[Pair, Seen], fine: str) -> None:
    """Settle a claim that every pair of *seen* was seen with its own address."""
    wrong, first = count_wrong(seen)
    detail = f"{wrong} of {len(seen)} wrong, the first {first}" if wrong else fine
    ledger.settle(name, detail, ok=not wrong)


# Who reaches whom ----------------------------------------------------------------------
def between_pods(stage: Stage, ledger: Ledger) -> None:
    """Connect and ping every pod from every pod."""
    pairs = list(permutations([pod.peer for pod in stage.pods], 2))
    seen = connect_all(pairs)
    stage.note("tcp", seen)
    settle_seen(ledger, "pods-tcp", seen, f"{len(pairs)} connections, no address translated")
    seen = ping_all(pairs)
    stage.note("ping", seen)
    settle_seen(ledger, "pods-ping", seen, f"{len(pairs)} pings, no address translated")


def with_nodes(stage: Stage, ledger: Ledger) -> None:
    """Connect pods and nodes, both ways, and nodes with each other."""
    pods, nodes = [p.peer for p in stage.pods], [s.peer for s in stage.sites]
    pairs = [*product(pods, nodes), *product(nodes, pods), *permutations(nodes, 2)]
    fine = f"{len(pairs)} connections, pods as themselves and nodes by their primary address"
    settle_seen(ledger, "nodes", connect_all(pairs), fine)


def to_the_internet(stage: Stage, ledger: Ledger) -> None:
    """Connect from every pod to the host on the internet."""
    wrong, first, number = 0, "", 0
    for site in stage.sites:
        seen = connect_all([(pod.peer, stage.internet) for pod in site.pods])
        public = stage.vpc.public_address(site.node)
        bad, words = count_wrong(seen, public)
        wrong, first, number = wrong + bad, first or words, number + len(seen)
    publics = ", ".join(str(stage.vpc.public_address(site.node)) for site in stage.sites)
    detail = f"{wrong} of {number} wrong, the first {first}" if wrong else (
        f"{number} connections, seen as {publics}"
    )  # fmt: skip
    ledger.settle("internet", detail, ok=not wrong)


def big_pings(stage: Stage, ledger: Ledger) -> None:
    """Ping with the largest payload, and with one byte more."""
    pairs = [pair for site in stage.sites for pair in _across(stage, site)]
    seen = ping_all(pairs, size=LARGEST_PING)
    wrong, first = count_wrong(seen)
    larger = ping_all(pairs, seconds=0.2, size=LARGEST_PING + 1)
    refused = sum(one.trouble == os.strerror(errno.EMSGSIZE) for one in larger.values())
    ok = not wrong and refused == len(pairs)
    detail = f"{len(pairs) - wrong} of {len(pairs)} through, {refused} refused with a byte more"
    ledger.settle("big-ping", detail + (f"; {first}" if wrong else ""), ok=ok)


def _across(stage: Stage, site: Site) -> list[Pair]:
    """Return pairs from pods of each ENI of *site* to pods of each ENI of the other node."""
    other = next(s for s in stage.sites if s is not site)
    return list(product(_one_of_each(stage, site), _one_of_each(stage, other)))


def _one_of_each(stage: Stage, site: Site) -> list[Peer]:
    """Return a pod on the node's primary ENI and one on another."""
    riding = (stage.riding(site, primary=primary) for primary in (True, False))
    return [pods[0].peer for pods in riding if pods]


# ENIs ----------------------------------------------------------------------------------
def by_own_eni(stage: Stage, ledger: Ledger) -> None:
    """Ping the other node's pods and look at which link the requests leave."""
    astray, riders, number = [], [], 0
    for site in stage.sites:
        other = next(s for s in stage.sites if s is not site)
        links, enis = site.links(), stage.enis_of(site)
        own = {eni.id: links[eni.mac] for eni in enis if eni.mac in links}
        with Taps(site.node, own.values()) as taps:
            ping_all(list(product([p.peer for p in site.pods], [other.pods[0].peer])), 0.5)
            left = taps.leaving()
        astray += [
            f"{pod.name} left by {', '.join(sorted(left.get(pod.address, {'no link'})))},"
            f" not {own.get(pod.eni_id)}"
            for pod in site.pods
            if left.get(pod.address) != {own.get(pod.eni_id)}
        ]
        riders.append(len(stage.riding(site, primary=False)))
        number += len(site.pods)
    wanted = [len(site.pods) - PER_ENI for site in stage.sites]
    detail = f"{number} pods, of them {' and '.join(map(str, riders))} on secondary ENIs"
    if astray:
        detail += f"; {len(astray)} astray: {astray[0]}"
    ledger.settle("own-eni", detail, ok=not astray and riders == wanted)


def agree_with_ec2(stage: Stage, ledger: Ledger) -> None:
    """Compare what EC2 has attached with what each daemon shows."""
    complaints, enis, addresses = list(stage.vpc.check()), 0, 0
    for site in stage.sites:
        status, there = site.daemon.status(), stage.enis_of(site)
        complaints += compare_books(site.node.name, status, {e.id: len(e.secondary) for e in there})
        enis, addresses = enis + len(there), addresses + sum(len(e.secondary) for e in there)
    detail = complaints[0] if complaints else f"{enis} ENIs, {addresses} addresses for pods"
    ledger.settle("books", detail, ok=not complaints)


def compare_books(node: str, status: Status, truth: Mapping[str, int]) -> list[str]:
    """Return a sentence for each way in which a daemon and EC2 differ."""
    shown = {
        eni["id"]: eni["assigned"] + eni["cooling"] + eni["free"] + eni["leaving"]
        for eni in status["enis"]
    }
    unknown = [f"{eni} is attached to {node} and not in its books" for eni in truth.keys() - shown]
    gone = [f"{eni} is in the books of {node} and not attached" for eni in shown.keys() - truth]
    differ = [
        f"{eni} of {node} has {truth[eni]} addresses, its books say {shown[eni]}"
        for eni in truth.keys() & shown
        if truth[eni] != shown[eni]
    ]
    return [*unknown, *gone, *differ]


# Forgeries -----------------------------------------------------------------------------
def forged_in_pod(stage: Stage, ledger: Ledger) -> None:
    """Send from a pod with the address of a neighbour on the same ENI.

    The VPC cannot tell: both addresses are that ENI's. Only the pod's own veth can.
    """
    stage.count_drops()
    sent = arrived = 0
    for site in stage.sites:
        target = next(s for s in stage.sites if s is not site).pods[0].peer
        liar, neighbour, *_ = stage.riding(site, primary=True)
        with Catcher(target) as catcher:
            sent += forge(liar.netns, [neighbour.address], target)
            arrived += catcher.count()
    passed = sum(stage.vpc.drops().values())
    stage.vpc.reset_drops()
    detail = f"{sent} sent, {arrived} arrived, {passed} got as far as the VPC's own check"
    ledger.settle("forged-pod", detail, ok=not arrived and not passed)


def forged_in_node(stage: Stage, ledger: Ledger) -> None:
    """Send from a node, by its primary ENI, with addresses that are not that ENI's."""
    stage.count_drops()
    sender, other = stage.sites
    target, stranger = other.pods[0].peer, other.pods[1]
    rider = stage.riding(sender, primary=False)[0]
    with Catcher(target) as catcher:
        sent = forge(sender.node, [stranger.address, rider.address], target)
        arrived = catcher.count()
    dropped = stage.vpc.drops()["spoofed_ip"]
    stage.vpc.reset_drops()
    detail = f"{sent} sent by {sender.node.name}, {dropped} dropped by the VPC, {arrived} arrived"
    ledger.settle("forged-node", detail, ok=arrived == 0 and dropped == sent)


def marks_of_others(stage: Stage, ledger: Ledger) -> None:
    """Brand packets as other software does, and weigh them behind our chains."""
    kept = lost = 0
    for site in stage.sites:
        other = next(s for s in stage.sites if s is not site)
        far = [other.pods[0].peer, stage.internet]
        peers = ", ".join(str(peer.address) for peer in far)
        site.nft(FOREIGNER.format(peers=peers, bits=FOREIGN_BITS))
        try:
            pairs = list(product(_one_of_each(stage, site), far))
            connect_all(pairs)
            ping_all(pairs)
            counted = _counters(site)
        finally:
            site.nft("delete table ip foreigner")
        kept, lost = kept + counted["kept"], lost + counted["lost"]
    detail = f"{kept} packets kept {FOREIGN_BITS:#x}, {lost} lost some of it"
    ledger.settle("foreign-marks", detail, ok=lost == 0 and kept > 0)


def _counters(site: Site) -> Counter[str]:
    argv = ["nft", "-j", "list", "counters", "table", "ip", "foreigner"]
    listed = json.loads(site.node.run(argv).stdout)["nftables"]
    found = (item["counter"] for item in listed if "counter" in item)
    return Counter({counter["name"]: counter["packets"] for counter in found})


# The daemon ----------------------------------------------------------------------------
def rights(stage: Stage, ledger: Ledger) -> None:
    """Read the daemons' capabilities."""
    held: set[str] = set()
    for site in stage.sites:
        lines = Path(f"/proc/{site.daemon.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        held |= {f"{name} {int(fields[name], 16):#x}" for name in ("CapPrm", "CapEff", "CapBnd")}
        held |= {f"{name} {fields[name]}" for name in ("NoNewPrivs", "Seccomp")}
    wanted = {f"{name} {CAP_NET_ADMIN:#x}" for name in ("CapPrm", "CapEff", "CapBnd")}
    ok = held == wanted | {"NoNewPrivs 1", "Seccomp 2"}
    ledger.settle("rights", ", ".join(sorted(held)), ok=ok)


def free_one(stage: Stage, ledger: Ledger) -> None:
    """Delete a pod, knock where it was, then empty the pool and see who gets its address."""
    site, other = stage.sites
    gone: Pod = stage.riding(site, primary=True)[-1]
    stage.delete_pod(gone)
    silent = Peer(gone.name, gone.address, stage.internet.place)
    stage.freed = silent
    knock = ping_all([(other.pods[0].peer, silent)], 0.5)
    (answer,) = knock.values()
    refused = _refusal(other.pods[0].peer, gone.address)
    status = _status_by_cli(site)
    cooling = {c["address"]: c["seconds_left"] for c in status["cooling"]}
    leased = {lease["address"] for lease in status["leases"]}
    fill_pool(stage, site)
    heirs = [pod.name for pod in site.pods if pod.address == gone.address]
    left = cooling.get(str(gone.address), 0.0)
    facts = {
        f"{gone.address} answers {refused!r}": refused == os.strerror(errno.EHOSTUNREACH),
        "a ping is refused": not answer.reached and "unreachable" in answer.trouble,
        f"cools for {left:.0f} s more": left > 1,
        "has no lease": str(gone.address) not in leased,
        f"went to {heirs[0]}" if heirs else "went to none of the next pods": not heirs,
    }
    ledger.settle("freed", told(facts), ok=all(facts.values()))


def told(facts: Mapping[str, bool]) -> str:
    """Return facts in words, or only those that are not so."""
    wrong = [f"not so: {fact}" for fact, so in facts.items() if not so]
    return "; ".join(wrong or facts)


def _refusal(source: Peer, address: IPv4Address) -> str:
    """Return what connecting to *address* fails with."""
    with source.place.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.7)
        try:
            sock.connect((str(address), 80))
        except TimeoutError:
            return "nothing"
        except OSError as error:
            return error.strerror or str(error)
    return "connected"


def _status_by_cli(site: Site) -> dict[str, Any]:
    """Return what `enid status -o json` prints on the node."""
    argv = [sys.executable, "-c", "from ipamd.cli import main; main()", "status", "-o", "json"]
    found: dict[str, Any] = json.loads(site.node.run(argv).stdout)
    return found


def fill_pool(stage: Stage, site: Site) -> None:
    """Add pods until the node has no free address."""
    for number in range(1, 2 * PER_ENI):
        if not sum(eni["free"] for eni in site.daemon.status()["enis"]):
            break
        stage.add_pod(site, "batch", f"job-{number}")
    stage.find_enis()


# The end -------------------------------------------------------------------------------
def nothing_dropped(stage: Stage, ledger: Ledger) -> None:
    """Read the fabric's counters, less the forgeries."""
    drops = stage.count_drops()
    some = {cause: number for cause, number in drops.items() if number}
    detail = ", ".join(f"{cause} {number}" for cause, number in sorted((some or drops).items()))
    ledger.settle("no-drops", detail, ok=not some)


def tear_down(stage: Stage, ledger: Ledger) -> None:
    """Delete the pods, stop the daemons, terminate the nodes, and see what is left."""
    facts: dict[str, bool] = {}
    answers = [stage.delete_pod(pod) for pod in stage.pods]
    refused = [answer.complaint for answer in answers if not answer.ok]
    facts[refused[0] if refused else f"{len(answers)} pods deleted"] = not refused
    exits = [site.daemon.stop() for site in stage.sites]
    facts["both daemons ended by SIGTERM"] = exits == [0, 0]
    for site in stage.sites:
        site.node.terminate()
    left = [eni.id for eni in stage.vpc.enis()]
    facts[f"{len(left)} ENIs left"] = not left
    wrong = stage.vpc.check()
    facts[wrong[0] if wrong else "every address is EC2's again"] = not wrong
    ledger.settle("no-leaks", told(facts), ok=all(facts.values()))


SCENES = (
    Scene("every pod to every pod", ("pods-tcp", "pods-ping"), between_pods),
    Scene("pods and nodes", ("nodes",), with_nodes),
    Scene("pods to the internet", ("internet",), to_the_internet),
    Scene("large packets", ("big-ping",), big_pings),
    Scene("each by its own ENI", ("own-eni",), by_own_eni),
    Scene("forged sources", ("forged-pod",), forged_in_pod),
    Scene("forged sources, past the node", ("forged-node",), forged_in_node),
    Scene("mark bits of others", ("foreign-marks",), marks_of_others),
    Scene("books", ("books",), agree_with_ec2),
    Scene("rights of the daemon", ("rights",), rights),
    Scene("a freed address", ("freed",), free_one),
)
"""What is proved while all is well, in this order: `free_one` leaves an empty pool, which
the crash needs."""

FINALE = (
    Scene("drops", ("no-drops",), nothing_dropped),
    Scene("teardown", ("no-leaks",), tear_down),
)
