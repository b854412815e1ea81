"""The crash: ipamd is killed in the middle of everything, and comes back. Shell.

One node's pool is empty, so an ENI is being attached; two ADDs wait for it; traffic runs
between pods on both nodes. Then SIGKILL, a new daemon, and the books of before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ipamd.cli import CommandError
from ipamd.status import Status
from vpclab.demo.ledger import Ledger
from vpclab.demo.proofs import Scene, told
from vpclab.demo.stage import Site, Stage, StageError
from vpclab.demo.stream import Flow, Streams
from vpclab.demo.traffic import Pair, connect_all
from vpclab.node import PodNetns
from vpclab.runtime import Exec, PluginError, Sandbox

ATTACH_SECONDS = 4.0
"""How long EC2 takes to attach from here on: long enough to be killed in; 2 to 10 s are usual."""

WAITERS = ("late-1", "late-2")
RECOVERY_SECONDS = 12.0
"""How long both ADDs and the ENI may take after the restart, the rest of the attach included."""

RUN_ON_SECONDS = 0.5
"""How long traffic runs before the kill, and after all is well again."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An ADD that waits for an address."""

    netns: PodNetns
    sandbox: Sandbox
    exec_: Exec


def pairs_of(stage: Stage) -> list[Pair]:
    """Return pairs that cover what a dead daemon could hurt: each ENI, both nodes, NAT."""
    a, b = stage.sites
    ends = {
        (site.node.name, primary): stage.riding(site, primary=primary)[0].peer
        for site, primary in product(stage.sites, (True, False))
    }
    first, second = ends["node-a", True], ends["node-a", False]
    far_first, far_second = ends["node-b", True], ends["node-b", False]
    return [
        (first, far_first), (second, far_second), (far_second, first), (far_first, second),
        (first, second), (first, stage.internet), (second, stage.internet),
        (a.peer, first), (b.peer, second),
    ]  # fmt: skip


def crash(stage: Stage, ledger: Ledger, spoil: Callable[[], None]) -> None:
    """Play it; *spoil* runs while no daemon does."""
    site = stage.sites[0]
    streams = Streams(pairs_of(stage))
    streams.start()
    try:
        waiting = [_start(stage, site, name) for name in WAITERS]
        flying = _flying(stage, site)
        before = site.daemon.wait(lambda s: s["waiting"] == len(WAITERS), 2.0, "the waiting ADDs")
        time.sleep(RUN_ON_SECONDS)
        site.daemon.kill()
        spoil()
        if stage.restarts_daemon:
            site.daemon.start()
        _settle_adds(stage, ledger, site, waiting)
        _settle_eni(stage, ledger, site, before, flying)
        _settle_leases(ledger, site, before)
        time.sleep(RUN_ON_SECONDS)
    finally:
        flows = streams.stop()
    settle_traffic(ledger, flows)


def _flying(stage: Stage, site: Site) -> str:
    """Return the ENI that EC2 is attaching to the node. Raises StageError if there is none."""
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        for eni in stage.enis_of(site):
            if eni.status == "attaching":
                return eni.id
        time.sleep(0.02)
    raise StageError(f"{site.node.name} has no free address, yet no ENI is being attached")


def _start(stage: Stage, site: Site, name: str) -> Waiting:
    netns, sandbox = stage.sandbox(site, "batch", name)
    return Waiting(netns, sandbox, site.runtime.start_add(sandbox))


def _settle_adds(stage: Stage, ledger: Ledger, site: Site, waiting: list[Waiting]) -> None:
    until = time.monotonic() + RECOVERY_SECONDS
    late, refused = [], []
    for one in waiting:
        left = max(0.1, until - time.monotonic())
        answer = site.runtime.finish_add(one.sandbox, one.exec_, left)
        try:
            late.append(stage.take_pod(site, one.netns, one.sandbox, answer))
        except PluginError as error:
            refused.append(f"{one.sandbox.pod.name}: {error}")
            one.netns.close()
    far = [stage.sites[1].pods[0].peer, stage.sites[1].peer]
    near = [pod.peer for pod in late]
    seen = connect_all([*product(near, far), *product(far, near)])
    silent = [f"{s.name} to {t.name}: {w.trouble}" for (s, t), w in seen.items() if not w.reached]
    heirs = [pod.name for pod in late if stage.freed and pod.address == stage.freed.address]
    seconds = max(stage.milliseconds["ADD"][-len(waiting) :]) / 1e3
    facts = {
        refused[0] if refused else f"both answered, the later after {seconds:.1f} s": not refused,
        silent[0] if silent else f"{len(seen)} connections with them": not silent,
        f"the cooling address went to {heirs[0]}" if heirs else "the cooling address went to none":
            not heirs,
    }  # fmt: skip
    ledger.settle("kill-adds", told(facts), ok=all(facts.values()))


def _settle_eni(stage: Stage, ledger: Ledger, site: Site, before: Status, flying: str) -> None:
    former = {eni["id"] for eni in before["enis"]}
    try:
        after = site.daemon.wait(
            lambda s: len(s["enis"]) > len(former), RECOVERY_SECONDS, "the ENI that was in flight"
        )
    except StageError as error:
        ledger.settle("kill-eni", str(error), ok=False)
        return
    new = {eni["id"] for eni in after["enis"]} - former
    attached = {eni.id for eni in stage.enis_of(site)} - former - set(before["unmanaged_enis"])
    everywhere = {e.id for e in stage.vpc.enis() if e.instance_id is None}
    facts = {
        f"{flying} alone is new in the daemon's books": new == {flying},
        "and in EC2": attached == {flying},
        f"{len(everywhere)} ENIs that nobody uses": not everywhere,
    }
    ledger.settle("kill-eni", told(facts), ok=all(facts.values()))


def _settle_leases(ledger: Ledger, site: Site, before: Status) -> None:
    try:
        after = site.daemon.status()
    except CommandError as error:
        ledger.settle("kill-leases", str(error), ok=False)
        return
    changed = compare_leases(before, after)
    warmed = compare_cooling(before, after)
    leases, cooling = len(before["leases"]), len(before["cooling"])
    facts = {
        changed[0] if changed else f"{leases} leases as they were": leases > 0 and not changed,
        warmed[0] if warmed else f"{cooling} address cools on": cooling > 0 and not warmed,
    }
    ledger.settle("kill-leases", told(facts), ok=all(facts.values()))


def compare_leases(before: Status, after: Status) -> list[str]:
    """Return a sentence for each lease of *before* that *after* has not, or otherwise."""
    now = {(lease["container_id"], lease["ifname"]): lease for lease in after["leases"]}
    wrong = []
    for lease in before["leases"]:
        other = now.get((lease["container_id"], lease["ifname"]))
        if other is None:
            wrong.append(f"the lease of {lease['pod']} is lost")
        elif other != lease:
            fields = [name for name, value in lease.items() if other.get(name) != value]
            wrong.append(f"the lease of {lease['pod']} changed in {', '.join(fields)}")
    return wrong


def compare_cooling(before: Status, after: Status) -> list[str]:
    """Return a sentence for each address that no longer cools, or cools anew."""
    now = {c["address"]: c["seconds_left"] for c in after["cooling"]}
    gone = [f"{c['address']} cools no more" for c in before["cooling"] if c["address"] not in now]
    anew = [
        f"{c['address']} cools anew"
        for c in before["cooling"]
        if now.get(c["address"], 0.0) > c["seconds_left"]
    ]
    return [*gone, *anew]


def settle_traffic(ledger: Ledger, flows: list[Flow]) -> None:
    """Settle that of all flows nothing was lost."""
    sent, lost = sum(f.sent for f in flows), sum(f.lost for f in flows)
    again = sum(f.resent for f in flows)
    broken = [f for f in flows if f.trouble or f.lost]
    gap = max(f.longest_gap for f in flows)
    detail = (
        f"{len(flows)} flows of UDP, ping and TCP: {sent:,} packets, {lost} lost,"
        f" {again} resent by TCP, longest silence {gap * 1e3:.0f} ms"
    )
    if broken:
        worst = max(broken, key=lambda f: f.lost)
        why = f" ({worst.trouble})" if worst.trouble else ""
        detail += f"; {worst.kind} {worst.source} to {worst.target} lost {worst.lost}{why}"
    ok = not broken and not again and all(f.received for f in flows)
    ledger.settle("kill-traffic", detail, ok=ok)


def scene(spoil: Callable[[], None]) -> Scene:
    """Return the crash as a scene."""
    return Scene(
        "ipamd is killed with -9 and comes back",
        ("kill-traffic", "kill-leases", "kill-adds", "kill-eni"),
        lambda stage, ledger: crash(stage, ledger, spoil),
    )
