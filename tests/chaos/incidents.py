"""What users of the peer met, replayed on our daemon. Shell.

Each incident is a replay under all laws, and a sabotage of our own code under which the replay
must fail: that is what keeps the incident away. Numbers are issues of
aws/amazon-vpc-cni-k8s; `docs/incidents.md` is made from this table (`python -m
tests.chaos.incidents`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, ClassVar

from eni.errors import ImdsError, NotYetError, UnreachableError
from eni.model import Kind, Notices, SecurityGroupId
from ipamd import (
    budget,
    census,
    demand,
    engine,
    lifecycle,
    outlook,
    places,
    surroundings,
    witnesses,
)
from ipamd.census import Census
from ipamd.daemon import Daemon
from ipamd.drift import Drift, Verdict
from ipamd.endings import Endings
from ipamd.engine import Engine
from ipamd.holdings import Holdings
from ipamd.leases import Leases
from ipamd.links import LINK_SECONDS, Links
from ipamd.pool import EniCensus, Pool
from ipamd.settings import Settings
from ipamd.subnets import Candidate, Subnets
from ipamd.sweep import Sweep
from ipamd.targets import Situation
from ipamd.told_by_aws import ToldByAws
from ipamd.upkeep import Upkeep
from ipamd.witnesses import Witnesses
from tests.chaos import sabotage
from tests.chaos.draw import History
from tests.chaos.history import ACTIONS, UNKNOWN
from tests.chaos.kubelet import End
from tests.chaos.sabotage import Sabotage, nothing, nothing_later, to
from tests.chaos.stage import PLAIN, Stage, fixed, must

MINUTE, HOUR = 60.0, 3600.0

Patch = tuple[Any, str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident: what happened to others, and what is done here."""

    numbers: str
    happened: str
    replayed: str
    law: str
    sabotage: Sabotage
    replay: Callable[[Stage], None]
    history: History

    @property
    def name(self) -> str:
        """The replay's name."""
        return self.replay.__name__

    def play(self, folder: Path, *, sabotaged: bool = False) -> None:
        """Replay it; raises what does not hold."""
        stage = Stage(folder, self.history)
        with stage.laws.listening(), contextlib.ExitStack() as undo:
            if sabotaged:
                undo.enter_context(self.sabotage.at_work())
            try:
                self.replay(stage)
                stage.rest()
            finally:
                if stage.world.life is not None:
                    stage.world.kill()


class Incidents:
    """All of them, in the order of the peer's tracker as our reference has it."""

    all: ClassVar[list[Incident]] = []


def _incident(
    numbers: str,
    happened: str,
    law: str,
    sabotaged: str,
    *patches: Patch,
    on: History = PLAIN,
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    def add(replay: Callable[[Stage], None]) -> Callable[[Stage], None]:
        replayed = (replay.__doc__ or "").strip()
        broken = Sabotage(replay.__name__, sabotaged, patches)
        Incidents.all.append(Incident(numbers, happened, replayed, law, broken, replay, on))
        return replay

    return add


WARM = fixed(warm_ip_target=3)
PREFIXES = replace(PLAIN, settings=Settings(prefix_delegation=True))


# Losing or double-using addresses (6A) ------------------------------------------------------
@_incident(
    "#3824 #3876 #3877",
    "a short IMDS answer after a restart: live addresses dropped, their /28 given back",
    "a pod keeps its address",
    "what pods have is not asked of leases and kernel at the start",
    (Witnesses, "_restore_leases", to(nothing)),
    on=PREFIXES,
)
def short_imds_after_restart(s: Stage) -> None:
    """Pods on prefixes; the daemon dies; IMDS shows no block and no secondary ENI any more."""
    s.start()
    s.pods(20)
    for eni in s.world.cloud.attached():
        s.world.imds.hidden |= {str(block) for block in eni.blocks}
    s.world.imds.hidden |= {eni.id for eni in s.secondary}
    s.restart(MINUTE)
    s.pods(10)
    s.run(2 * HOUR)


@_incident(
    "#3887",
    "IMDS late after a restart: an address that EC2 has back is given to a pod",
    "a pod keeps its address",
    "what EC2 does not show is given out until the second look",
    (Census, "_withhold", to(nothing)),
    (Drift, "give_back", to(nothing)),
    on=fixed(minimum_ip_target=8),
)
def late_imds_after_restart(s: Stage) -> None:
    """Free addresses go while the daemon is dead; IMDS still has them; pods come after the census."""
    s.start()
    primary = s.world.cloud.attached()[0]
    s.world.imds.late = s.world.cloud.attached()
    s.world.kill()
    s.account_cloud.account.unassign_by_hand(primary.id, primary.blocks[2:])
    s.laws.past.record()
    s.start(15.0)
    s.pods(6, 5.0)


@_incident(
    "cilium#13412 #20026",
    "an address that was given back a moment ago is given to a pod",
    "a pod keeps its address",
    "a late answer that still shows what was given back is believed",
    (Drift, "give_back", to(nothing)),
    on=WARM,
)
def late_answer_after_giving_back(s: Stage) -> None:
    """Pods go, their addresses are given back; descriptions are late; pods come again at once."""
    s.start()
    s.pods(9)
    s.go(8)
    before = s.held
    for _ in range(300):
        s.run(1.0)
        if s.held < before:
            break
    must(s.held < before, "surplus addresses were given back")
    s.run(2.0)
    s.weather.stale, s.weather.stale_seconds, s.weather.stale_least = 1.0, 15.0, 15.0
    s.world.daemon.engine.census.look_soon()
    s.world.daemon.engine.wake()
    s.run(2.0)
    s.weather.stale = 0.0
    s.pods(9, 5.0)


@_incident(
    "#1967",
    "an ENI with pods deleted after a restart with late IMDS",
    "a pod keeps its address",
    "neither shrinking nor removing looks whether pods have addresses of the ENI",
    (EniCensus, "is_idle", to(property(lambda _self: True))),
    (Holdings, "in_use", to(lambda _self, _eni_id: False)),
    on=WARM,
)
def late_imds_and_an_eni_in_use(s: Stage) -> None:
    """Pods on three ENIs; IMDS shows the primary alone; the daemon dies; few pods stay on each."""
    s.start()
    s.pods(25)
    s.world.imds.late = s.world.cloud.attached()[:1]
    s.restart(MINUTE)
    for name in list(s.kubelet.sandboxes)[1::2]:
        s.kubelet.unwant(name)
    s.run(10 * MINUTE)


@_incident(
    "#3019",
    "what is held compared by counts: addresses in use released",
    "journal and pool are what EC2 shows",
    "as many as before are the same as before",
    (Drift, "judge", lambda former: _by_counts(former)),  # noqa: PLW0108 - it is defined below
    on=WARM,
)
def as_many_and_not_the_same(s: Stage) -> None:
    """One address goes by hand and another comes."""
    s.start()
    s.pods(4)
    primary = s.world.cloud.attached()[0]
    free = primary.blocks[-1]
    account = s.account_cloud.account
    account.occupy(primary.subnet_id, (IPv4Network("10.0.0.0/27"),))
    account.unassign_by_hand(primary.id, (free,))
    account.occupy(primary.subnet_id, (free,))
    account.assign_by_hand(primary.id, Kind.SINGLE, 1)
    s.laws.past.record()
    s.run(3 * HOUR)
    pool = s.world.daemon.pool.blocks()
    must(free not in pool, f"{free} is still believed to be ours")


@_incident(
    "#732",
    "addresses of a detached ENI given to pods",
    "a pod keeps its address",
    "nobody hears that the instance lost an ENI",
    (Census, "hear", to(nothing)),
    on=WARM,
)
def a_detached_eni_gives_nothing(s: Stage) -> None:
    """An ENI with free addresses is detached by hand; pods come half a minute later."""
    s.start()
    s.pods(12)
    s.go(4, MINUTE)
    last = s.secondary[-1]
    theirs = {pod.address for pod in s.world.living}
    s.laws.by_hand |= {a for block in last.blocks for a in block if a in theirs}
    s.laws.lost.add(last.id)
    s.account_cloud.account.detach_by_hand(last.id)
    s.run(30.0)
    s.pods(5)


@_incident(
    "#711 #1127 #1188",
    "one address given to two pods, or again too early: the cooldown lost at a restart",
    "an address cools before it is given again",
    "a restart forgets what cools",
    (Leases, "cooling", to(lambda _self: ())),
    on=replace(PLAIN, settings=Settings(max_eni=1), instance_type="t3.small"),
)
def cooldown_over_a_restart(s: Stage) -> None:
    """A full node; a pod goes, the daemon dies at once, another pod wants its address."""
    s.start()
    s.pods(3)
    s.go(1, 0.5)
    s.restart(1.0)
    s.pods(1, MINUTE)


@_incident(
    "#2378 #3634",
    "30 s are not enough: connections of the last owner reach the next pod",
    "the flows of an address are gone before it is given again",
    "flows are not purged",
    (Upkeep, "_purge", to(sabotage.pretend_purged)),
    on=replace(PLAIN, settings=Settings(max_eni=1), instance_type="t3.small"),
)
def flows_of_the_last_owner(s: Stage) -> None:
    """A full node; a pod goes, and another gets its address."""
    s.start()
    s.pods(3)
    s.go(1)
    s.pods(1, MINUTE)


@_incident(
    "#2896",
    "a pool that thinks it has addresses while all of them cool",
    "no ADD waits for a cooldown while there is room",
    "what cools counts as ready",
    (Situation, "ready", lambda former: property(lambda self: former.fget(self) + _cooling(self))),
    on=fixed(warm_ip_target=1, cooldown_seconds=120),
)
def all_addresses_cool(s: Stage) -> None:
    """Eight pods are replaced at once, with a cooldown of two minutes."""
    s.start()
    s.pods(8)
    s.go(8)
    s.pods(8)
    must(s.waits < 15, f"an ADD has waited {s.waits:.0f} s")
    must(len(s.world.living) == 8, "pods wait for what cools")


@_incident(
    "#3833 #66",
    "an ENI attached and never registered: AttachmentLimitExceeded for ever",
    "every ENI that EC2 shows is ours and serves",
    "nothing is adopted",
    (Census, "_adopt_all", to(nothing)),
    on=WARM,
)
def an_attached_eni_nobody_noted(s: Stage) -> None:
    """The journal is lost with two ENIs attached, and pods come until the node is full."""
    s.start()
    s.pods(20)
    s.world.kill()
    for path in s.world.folder.glob("journal.db*"):
        path.unlink()
    s.start(MINUTE)
    s.pods(6, MINUTE)
    must(len(s.world.living) == 26, f"{len(s.world.living)} of 26 pods run")


@_incident(
    "#1204 #3109 #1939 #712 #2352 #2487",
    "addresses counted as assigned with no pod",
    "leases, pods and wires are the same",
    "nobody looks for leases without a veth",
    (Upkeep, "judge", to(nothing)),
)
def pods_that_vanish(s: Stage) -> None:
    """Namespaces go without a DEL."""
    s.start()
    s.pods(8)
    s.go(5, 2 * MINUTE, End.VANISH)


@_incident(
    "#377",
    "an address detached by hand leaves the pool short for good",
    "the pool is at its target",
    "EC2 is asked once what is there, and never again",
    (Census, "begin", lambda former: lambda self: None if self.done.is_set() else former(self)),
    (Census, "due_seconds", to(property(lambda _self: 1e9))),
    on=WARM,
)
def an_address_taken_by_hand(s: Stage) -> None:
    """Two free addresses go by hand."""
    s.start()
    s.pods(4)
    primary = s.world.cloud.attached()[0]
    s.account_cloud.account.unassign_by_hand(primary.id, primary.blocks[-2:])
    s.laws.past.record()
    s.run(2 * HOUR)
    must(s.held == 4 + 3, f"{s.held} addresses are held for 4 pods, 3 of them warm")


# Slow or failing pod start (6B) --------------------------------------------------------------
@_incident(
    "#405 #420 #2744",
    "attaching one ENI after the other holds up a scale-out",
    "a burst waits for one attach, and no call is repeated",
    "one flight at a time",
    (Engine, "_begin", lambda f: lambda self, a: None if self.flights.names else f(self, a)),
)
def a_burst_over_three_enis(s: Stage) -> None:
    """26 pods at once on an empty m5.large; an attach takes 2 s."""
    s.start()
    s.pods(26, 30.0)
    must(len(s.world.living) == 26, f"{len(s.world.living)} of 26 pods run")
    must(s.waits < 5.0, f"the last ADD has waited {s.waits:.1f} s")
    must(s.world.codes[11] == 0, "an ADD was refused while ENIs were coming")
    calls = s.laws.calls
    must(calls["create"] == calls["attach"] == 2, f"{calls['create']} creates for 2 ENIs")


@_incident(
    "#1872",
    "IMDS needs two minutes to show a new ENI, and pods wait for it",
    "a pod waits for the link and for nothing else",
    "a new ENI is taken when a minute has passed since its link came",
    (Links, "comes", lambda former: _and_a_minute(former)),  # noqa: PLW0108 - defined below
)
def imds_late_with_a_new_eni(s: Stage) -> None:
    """IMDS shows what was there at the start, whatever comes."""
    s.start()
    s.world.imds.late = s.world.cloud.attached()
    s.pods(12, 90.0)
    must(s.waits < 5.0, f"an ADD has waited {s.waits:.1f} s")


@_incident(
    "#330 #1724 #1923 #1523 #2808",
    "a node is Ready before it has an address",
    "ready is said when a pod could be served",
    "ready as soon as it listens",
    (Daemon, "status", lambda former: lambda self: {**former(self), "ready": True}),
)
def ready_and_no_address(s: Stage) -> None:
    """EC2 cannot be reached when a new node starts."""
    s.weather.away = UnreachableError
    s.start()
    must(not s.world.daemon.status()["ready"], "ready without an address")
    s.weather.away = None
    s.run(2 * MINUTE)
    must(s.world.daemon.status()["ready"], "not ready with addresses")


@_incident(
    "#111 #1342",
    "the error of an ADD says nothing",
    "code 11, and the cause in its text",
    "the cause is not passed on",
    (Daemon, "_shortage", lambda former: lambda self: replace(former(self), trouble=None)),
    on=replace(PLAIN, instance_type="t3.small"),
)
def an_add_that_fails_says_why(s: Stage) -> None:
    """The role may not assign addresses, and pods wait in vain."""
    s.weather.denied |= {"AssignPrivateIpAddresses", "CreateNetworkInterface"}
    s.start()
    s.pods(1, 107.0)
    must(s.refusals, "no ADD was answered")
    code, text = s.refusals[0].get("code"), str(s.refusals[0])
    must(code == 11, f"code {code}")
    must("EC2 refuses to" in text, text)


# EC2 throttling and leaks (6D) ---------------------------------------------------------------
@_incident(
    "#41 #617 #873 #887",
    "a throttled account is asked ever more",
    "few calls while EC2 throttles, and growth afterwards",
    "no back-off, and no slower rate after a refusal",
    (budget, "backoff_seconds", to(lambda *_: 0.0)),
    (budget.Limiter, "throttled", to(nothing)),
)
def a_throttled_account(s: Stage) -> None:
    """All actions are throttled for ten minutes while pods come."""
    s.start()
    s.weather.throttled |= set(ACTIONS)
    s.weather.throttles = 1.0
    before = sum(s.laws.calls.values())
    s.pods(20, 10 * MINUTE)
    calls = sum(s.laws.calls.values()) - before
    must(calls <= 100, f"{calls} calls in ten minutes of throttling")
    s.weather.throttled.clear()
    s.run(3 * MINUTE)
    must(len(s.world.living) == 20, f"{len(s.world.living)} of 20 pods run")


@_incident(
    "#2730 #3719",
    "ten thousand describes in a quarter of an hour",
    "an idle node asks EC2 some times an hour",
    "a census every minute",
    (census, "CENSUS_SECONDS", to(60.0)),
)
def an_idle_node_is_quiet(s: Stage) -> None:
    """Nothing happens for four hours."""
    s.start()
    s.pods(3, HOUR)
    before = sum(s.laws.calls.values())
    s.run(4 * HOUR)
    calls = sum(s.laws.calls.values()) - before
    must(calls <= 16, f"{calls} calls in four hours of peace")


@_incident(
    "#3263",
    "a node that is drained keeps its warm ENIs",
    "nothing is kept warm on a node that gets no pods",
    "what AWS has in mind is not looked at",
    (outlook, "terms_of", lambda former: _without_notices(former)),  # noqa: PLW0108 - defined below
    on=fixed(warm_eni_target=2),
)
def a_drained_node_keeps_nothing_warm(s: Stage) -> None:
    """AWS advises to rebalance, and the pods go."""
    s.start()
    s.pods(5, MINUTE)
    s.world.imds.notice = Notices(rebalance=True)
    s.go(5, 10 * MINUTE)
    must(not s.secondary, f"{len(s.secondary)} ENIs are kept for nobody")


@_incident(
    "#69 #608 #1223 #1825 karpenter#5582",
    "leaked ENIs keep a subnet or a group from being deleted",
    "no ENI is left behind",
    "no sweep",
    (Sweep, "begin", to(nothing)),
    on=WARM,
)
def an_eni_that_was_made_for_nobody(s: Stage) -> None:
    """Killed between create and attach, and the journal is lost."""
    s.weather.denied.add("AttachNetworkInterface")
    s.start()
    s.weather.throttled.add("DeleteNetworkInterface")
    s.weather.throttles = 1.0
    s.pods(12, 5.0)
    s.world.kill()
    for path in s.world.folder.glob("journal.db*"):
        path.unlink()
    s.laws.lost |= {eni.id for eni in s.world.cloud.enis() if eni.attachment is None}
    must(s.laws.lost, "nothing has leaked, so that nothing is shown")
    s.weather.clear_up()
    s.start(MINUTE)


@_incident(
    "#914 #1008 #1340",
    "IMDS late or short: the daemon crashes, again and again",
    "what pods have is served at once, whatever AWS answers",
    "what a former life noted of the node is not read",
    (witnesses, "read_notes", to(nothing)),
    (surroundings, "read_notes", to(nothing)),
)
def a_start_without_imds(s: Stage) -> None:
    """The daemon dies; IMDS and EC2 are away; a pod comes."""
    s.start()
    s.pods(5)
    s.world.imds.trouble, s.weather.away = ImdsError, UnreachableError
    s.restart(5.0)
    s.pods(1, 5.0)
    must(len(s.world.living) == 6, "a pod waits for IMDS although an address is free")
    s.run(5 * MINUTE)


@_incident(
    "#150 #533 #2468 karpenter#673",
    "an instance type that nobody knows",
    "limits that EC2 tells are used",
    "EC2 is not asked for the limits",
    (ToldByAws, "confirm_limits", to(nothing_later)),
    on=replace(PLAIN, instance_type=UNKNOWN),
)
def an_unknown_instance_type(s: Stage) -> None:
    """A type that the shipped table lacks; EC2 knows it."""
    s.start(MINUTE)
    s.pods(20, 3 * MINUTE)
    must(len(s.world.living) == 20, f"{len(s.world.living)} of 20 pods run")


# Subnets (6E) --------------------------------------------------------------------------------
@_incident(
    "#2294 #329 #933 #1635",
    "the default takes dozens of addresses on an idle node",
    "an idle node holds what the next pod needs",
    "a headroom of thirty",
    (demand, "HEADROOM_MIN", to(30)),
)
def an_idle_node_holds_little(s: Stage) -> None:
    """Nothing runs for an hour, then three pods."""
    s.start(HOUR)
    must(s.held <= 3, f"{s.held} addresses for no pod")
    s.pods(3, HOUR)
    must(s.held <= 8, f"{s.held} addresses for 3 pods")


@_incident(
    "#2793",
    "more addresses than pods may run",
    "no more is held than pods can use",
    "the ceiling is not looked at",
    (Situation, "allowance", to(property(lambda _self: None))),
    on=fixed(warm_ip_target=12, max_pods=8),
)
def no_more_than_max_pods(s: Stage) -> None:
    """Twelve are to be warm, and eight pods are the most."""
    s.start(2 * MINUTE)
    must(s.held <= 8, f"{s.held} addresses, and 8 pods at most")
    s.pods(5, 2 * MINUTE)
    must(s.held <= 8, f"{s.held} addresses, and 8 pods at most")


@_incident(
    "#1634 #2749 #2045 #2842 #3264 #2203 #2313",
    "no /28 in a subnet that has free addresses: pods fail",
    "single addresses serve where there is no /28",
    "prefixes or nothing",
    (Subnets, "_kinds", to(property(lambda self: (self.mode,)))),
    on=replace(
        PREFIXES,
        subnet="10.0.0.0/24",
        occupied=tuple(IPv4Network("10.0.0.0/24").subnets(new_prefix=30))[1::2],
    ),
)
def a_fragmented_subnet(s: Stage) -> None:
    """Every other /30 is somebody else's."""
    s.start(MINUTE)
    s.pods(12, 3 * MINUTE)
    must(len(s.world.living) == 12, f"{len(s.world.living)} of 12 pods run")


@_incident(
    "#2908 #1207 #3008 #3229 #2846 #3067 roadmap#1709",
    "one subnet a node: it is full, and another would have had room",
    "the next subnet serves when one is full",
    "the primary's subnet or none",
    (
        places,
        "discover",
        to(lambda _views, primary, _cluster="": (Candidate(primary),)),
    ),
    on=replace(
        PLAIN,
        subnet="10.0.0.0/28",
        others={"10.0.64.0/24": (("kubernetes.io/role/cni", "1"),)},
    ),
)
def a_second_subnet_serves(s: Stage) -> None:
    """A /28 for the node, and a tagged /24 beside it."""
    s.start(MINUTE)
    s.pods(18, 5 * MINUTE)
    must(len(s.world.living) == 18, f"{len(s.world.living)} of 18 pods run")


# Defects of the peer's code (3.15) -----------------------------------------------------------
@_incident(
    "3.15 (12)",
    "a failed unassign is logged, and its addresses are lost to both",
    "what EC2 keeps with us serves again",
    "a refused unassign puts nothing back",
    (Pool, "cancel_unassign", to(nothing)),
    on=WARM,
)
def an_unassign_that_is_refused(s: Stage) -> None:
    """The role may not unassign while the pool shrinks; pods come back."""
    s.start()
    s.pods(8)
    s.weather.denied.add("UnassignPrivateIpAddresses")
    s.go(8, 5 * MINUTE)
    s.pods(8)


@_incident(
    "3.15 (12) for ENIs, detach",
    "the same of a whole ENI: its addresses serve nobody",
    "no pod waits while there is room",
    "an ENI that EC2 refused to detach stays on its way out",
    (Endings, "keep", to(nothing_later)),
    on=WARM,
)
def an_eni_that_may_not_be_detached(s: Stage) -> None:
    """All pods go and come back: Detach is denied; throttled; it cannot even be asked for."""
    s.start()
    s.pods(26)
    for denied, throttled in (
        ("DetachNetworkInterface", ()),
        ("", ("DetachNetworkInterface",)),
        ("", ("DescribeNetworkInterfaces", "DetachNetworkInterface")),
    ):
        s.weather.denied |= {denied}
        s.weather.throttled |= set(throttled)
        s.weather.throttles = 1.0
        s.go(26, 10 * MINUTE)
        s.pods(26, MINUTE)
        must(len(s.world.living) == 26, f"{len(s.world.living)} of 26 pods run")
        s.weather.clear_up()


@_incident(
    "3.15 (12) for ENIs, delete",
    "an ENI that is off the instance, yet not deleted, keeps its place",
    "no pod waits while there is room",
    "an ENI counts until EC2 has deleted it",
    (engine, "is_detached", to(lambda _intent: False)),
    (lifecycle, "is_detached", to(lambda _intent: False)),
    on=WARM,
)
def an_eni_that_may_not_be_deleted(s: Stage) -> None:
    """All pods go and come back, and once more behind a restart, while Delete is denied."""
    s.start()
    s.pods(26)
    s.weather.denied.add("DeleteNetworkInterface")
    for again in (False, True):
        s.go(26, 10 * MINUTE)
        if again:
            s.restart()
        s.pods(26, MINUTE)
        must(len(s.world.living) == 26, f"{len(s.world.living)} of 26 pods run")
        left = [eni for eni in s.world.cloud.enis() if eni.attachment is None]
        must(len(left) == 1, f"{len(left)} ENIs are off and not deleted; one is enough to know")


@_incident(
    "3.15 (16)",
    "an ENI without an attachment burns twelve detaches and stays",
    "no ENI is left behind",
    "what is not attached cannot be removed",
    (Endings, "_detach", lambda former: _only_attached(former)),  # noqa: PLW0108 - defined below
    on=WARM,
)
def an_eni_that_is_detached_already(s: Stage) -> None:
    """An ENI without pods is detached by hand."""
    s.start()
    s.pods(12)
    last = s.secondary[-1]
    s.laws.by_hand |= {a for block in last.blocks for a in block}
    s.laws.lost.add(last.id)
    s.account_cloud.account.detach_by_hand(last.id)
    s.go(12, 10 * MINUTE)


@_incident(
    "3.15 (18)",
    "a change of security groups is remembered before it is made: a refusal is for ever",
    "ENIs get the groups that the primary has",
    "groups are remembered before they are set",
    (Engine, "_set_groups", lambda former: _remember_first(former)),  # noqa: PLW0108 - defined below
    on=WARM,
)
def groups_that_were_refused_once(s: Stage) -> None:
    """The primary's groups change while the role may not modify ENIs."""
    s.start()
    s.pods(12)
    group = SecurityGroupId("sg-00000000000000077")
    account = s.account_cloud.account
    account.add_group(group)
    s.weather.denied.add("ModifyNetworkInterfaceAttribute")
    account.vpc.set_groups(s.world.cloud.attached()[0].id, (group,))
    s.restart(5 * MINUTE)
    s.weather.denied.clear()
    s.run(10 * MINUTE)
    left = [eni.id for eni in s.secondary if eni.security_groups != (group,)]
    must(not left, f"{left} have the former groups")


# How a sabotage does it ----------------------------------------------------------------------
def _by_counts(former: Any) -> Any:
    def judge(self: Any, shown: Any, held: Any, now: Any) -> Verdict:
        there = sum(len(eni.blocks) for eni in shown)
        verdict: Verdict = former(self, shown, held, now)
        if there != len(held.blocks):
            return verdict
        return replace(verdict, take={}, denied=(), absent=(), look_again=False)

    return judge


def _cooling(now: Situation) -> int:
    return sum(e.cooling for e in now.enis if e.eni.is_open)


def _and_a_minute(former: Any) -> Any:
    import asyncio  # noqa: PLC0415 - of this sabotage alone

    async def link_comes(self: Any, mac: str, seconds: float = LINK_SECONDS) -> bool:
        came: bool = await former(self, mac, seconds)
        await asyncio.sleep(MINUTE)
        return came

    return link_comes


def _without_notices(former: Any) -> Any:
    return lambda settings, limits, told: former(settings, limits, replace(told, notices=Notices()))


def _only_attached(former: Any) -> Any:
    async def detach(self: Any, intent: Any, eni: Any, priority: Any) -> None:
        if eni.attachment is None:
            raise NotYetError(f"{eni.id} has no attachment", action="Detach")
        await former(self, intent, eni, priority)

    return detach


def _remember_first(former: Any) -> Any:
    async def set_groups(self: Any, eni_id: Any, groups: Any) -> None:
        self.census.groups[eni_id] = groups
        await former(self, eni_id, groups)

    return set_groups


# The document --------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Incidents that are not replayed here: what they are about, and which tests show it."""

    numbers: str
    about: str
    tests: tuple[str, ...] = ()
    """`file::test` below tests/, or `file::test[case]`; each is there (test_incidents.py)."""
    remark: str = ""
    """What is to be known besides; where no test is, why."""

    @property
    def where(self) -> str:
        """The tests and the remark, for the document."""
        return "; ".join([*(f"`{test}`" for test in self.tests), *filter(None, [self.remark])])


ELSEWHERE = (
    Elsewhere("#3764", "moving a veth between namespaces makes a burst slow", (
        "contract/test_rtnl.py::test_a_veth_pair_goes_straight_into_the_pod",
    )),
    Elsewhere("#3576 #3460", "a dump that the kernel interrupts fails an ADD", (
        "contract/test_rtnl.py::test_a_dump_that_was_torn_by_a_change_is_asked_for_again",
        "contract/test_rtnl.py::test_a_link_that_a_torn_dump_shows_is_found",
        "contract/test_rtnl.py::test_a_dump_that_is_torn_for_ever_is_an_error_and_not_empty",
    )),
    Elsewhere("#2049 #1956", "an ADD is slow where many pods are", remark=(
        "no test but a gate of `make bench`: an ADD at 737 pods takes at most three times as long as on"
        " an empty node")),
    Elsewhere("#3410 #3243 #575 #1078 #865 #3224", "a start that waits for the API server", (
        "contract/test_joined.py::test_a_daemon_that_starts_without_the_api_server_grows_by_itself_and_joins_later",
        "contract/test_joined.py::test_no_add_waits_for_the_clusters_word",
        "contract/test_joined.py::test_plain_mode_asks_nobody_and_loads_nothing_of_kubernetes",
    )),
    Elsewhere("#3105", "variants of EC2's error texts", (
        "unit/test_eni_errors.py::test_meaning_of_ec2s_answer",
        "unit/test_eni_errors.py::test_a_subnet_that_is_full_says_so_in_many_words",
    )),
    Elsewhere("#3685 #853 #1077", "settings without effect, or misunderstood", (
        "unit/test_settings.py::test_a_setting_without_effect_is_one_warning_that_says_why",
        "unit/test_settings.py::test_settings_that_contradict_each_other",
        "unit/test_settings_cli.py::test_each_line_has_value_origin_the_peers_default_and_effect",
    )),
    Elsewhere("#2578 #2072 #3630", "one value for every node", (
        "unit/test_settings_layers.py::test_the_highest_layer_that_speaks_wins",
        "contract/test_joined.py::test_settings_follow_the_nodes_label_and_annotation",
    )),
    Elsewhere("#331 #527 #3094 #3238", "max pods is not told to kubelet", (
        "contract/test_plan.py::test_max_pods_is_the_formula_and_the_cap_stands_beside_it",
        "contract/test_growth.py::test_the_cap_that_the_kubelet_tells_holds_too",
    ), "`enid plan` says what to tell kubelet; nothing of ours tells it"),
    Elsewhere("#18 #26 #1160 #2638 roadmap#2189", "pods scheduled to nodes without addresses", (
        "contract/test_joined.py::test_a_node_that_is_full_has_an_event_when_one_more_pod_comes",
        "contract/test_joined.py::test_what_lasts_is_an_event_of_pod_and_node_in_ten_minutes_with_its_count",
        "cri/test_status.py::test_a_full_node_is_ready_unless_a_setting_says_otherwise",
    ), "the node's Event says so, and one setting makes a full node NotReady; a condition and a taint are"
       " to come"),
    Elsewhere("#2980", "use of addresses by node", (
        "contract/test_cli.py::test_status_as_data",
        "lab/test_daemon.py::test_health_readiness_and_metrics",
    )),
    Elsewhere("#208 #119 #1569 #2792", "a subnet or security group of a pod's or namespace's own", remark=(
        "not offered: ENIConfigs choose for the node, and nothing for a pod")),
    Elsewhere("#326 #652 #3139", "an address that stays with a StatefulSet's pod", remark=(
        "not offered: a pod's next sandbox has another address")),
    Elsewhere("cilium#20822 #38499 #44154 #46644 #48193", "falling back from prefixes", (
        "unit/test_subnets.py::test_kinds",
        "unit/test_subnets.py::test_prefixes_return_by_themselves",
        "unit/test_decide.py::test_grow[fallen-back-singles-are-counted-in-slots]",
        "contract/test_eni_ec2.py::test_an_eni_is_born_with_its_prefixes",
    )),
    Elsewhere("3.15 (1)", "an ENI that goes with pods is subtracted twice", (
        "unit/test_pool.py::test_the_census_counts_every_state",
        "contract/test_other_hands.py::test_an_eni_that_somebody_takes_away_is_said_and_replaced",
    )),
    Elsewhere("3.15 (2)", "the mode is switched and nothing goes back", (
        "unit/test_decide.py::test_shrink[singles-go-once-prefixes-do]",
    )),
    Elsewhere("3.15 (3) (4)", "whether an ENI has pods, and its rules, asked of IPv4 only", (
        "unit/test_pool.py::test_an_assigned_address_can_be_neither_assigned_nor_dropped_nor_given_back",
        "contract/test_restarts.py::test_a_restart_never_takes_the_rule_of_an_eni_away",
    ), "of IPv4: no pod has an IPv6 address of its own yet"),
    Elsewhere("3.15 (5)", "prefixes of an excluded ENI count as free", (
        "unit/test_decide.py::test_grow[an-excluded-eni-gets-nothing]",
        "unit/test_pool.py::test_an_excluded_eni_gives_nothing_but_keeps_what_it_gave",
    )),
    Elsewhere("3.15 (6) (8) (11) (14)", "a shared error, a spinning health check, a descriptor a"
              " checkpoint, IMDS at each ADD", (
        "contract/test_eni_ec2_faults.py::test_many_threads_use_one_client_and_every_call_is_counted",
        "contract/test_growth.py::test_a_resting_node_asks_ec2_nothing",
        "lab/test_reuse.py::test_an_add_leaves_no_descriptor_open_and_a_namespace_goes_with_its_pod",
        "contract/test_growth.py::test_a_pod_that_finds_an_address_ready_costs_no_call",
    )),
    Elsewhere("3.15 (7)", "an excluded ENI is never cleaned up in EC2", (
        "unit/test_decide.py::test_shrink[an-excluded-eni-goes-as-a-whole]",
    )),
    Elsewhere("3.15 (9)", "a card's index taken for its place in a list", (
        "contract/test_eni_ec2.py::test_an_eni_sits_on_the_card_that_is_named",
    )),
    Elsewhere("3.15 (10)", "an ENI that is filled in part is one too few, and left unregistered", (
        "contract/test_eni_ec2_faults.py::test_another_number_of_blocks_than_wished_is_to_be_looked_into",
        "contract/test_growth.py::test_an_eni_that_comes_late_holds_up_no_other",
    )),
    Elsewhere("3.15 (13)", "an endpoint of one's own is not asked by every client", (
        "contract/test_eni_ec2_faults.py::test_the_endpoint_that_is_given_is_the_one_that_is_asked",
    )),
    Elsewhere("3.15 (15)", "the event of a denied detach never fires", (
        "contract/test_joined.py::test_a_detach_that_is_denied_is_an_event_of_the_node",
        "unit/test_reactions.py::test_the_node_has_an_event_where_someone_must_act",
    )),
    Elsewhere("3.15 (17)", "device indexes in an array, and the one past its end passes the check", (
        "unit/test_intents.py::test_a_free_device_index_is_the_first_that_nobody_has",
    )),
)  # fmt: skip
"""Those that are not replayed here."""

HEAD = """\
# Incidents of others, replayed

What users of the Amazon VPC CNI met, by the numbers of its tracker, and whether it could happen
here. Each is replayed against the whole daemon in virtual time (`tests/chaos/incidents.py`),
under all laws of `tests/chaos/laws.py`; and each replay is run once more with our own code
sabotaged, and must fail then. This file is made: `python -m tests.chaos.incidents > docs/incidents.md`.

| incident | what happened | what is replayed | what must hold | sabotage that makes it fail |
| --- | --- | --- | --- | --- |
"""


def document() -> str:
    """Return docs/incidents.md."""
    rows = [
        f"| {i.numbers} | {i.happened} | {i.replayed} | {i.law} | {i.sabotage.says} |"
        for i in Incidents.all
    ]
    others = [f"| {e.numbers} | {e.about} | {e.where} |" for e in ELSEWHERE]
    table = "\n".join([*rows, "", "## Not replayed here", ""])
    head = "| incident | about | the tests of it, below `tests/` |\n| --- | --- | --- |\n"
    return HEAD + table + "\n" + head + "\n".join(others) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
