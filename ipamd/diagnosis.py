"""Pods, journal, kernel and EC2, compared with each other: what differs, and its cure. Pure.

Four witnesses of one node. The runtime knows sandboxes; the journal knows ENIs, blocks and
leases; the kernel has links, rules, routes and nft; EC2 has the last word on who has which
address. Each difference is one `Finding`: a sentence that names the object, and what to do.
A witness that could not be heard is None, and nothing is said of it here.

    pods - journal      a sandbox without a lease, a lease without a sandbox, another address
    journal - kernel    a lease without a veth, a veth without a lease, drift (`cni.desired`)
    journal - EC2       ENIs and blocks that only one of them knows
    kernel - EC2        a link that EC2 attached nowhere, an ENI without a link, another address
    pods - kernel       a sandbox without a veth
    pods - EC2          a pod's address that is not this node's
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_network

from cni.dataplane import (
    NODE_SYSCTLS,
    PODS_TABLE,
    PROTOCOL,
    Address,
    Alias,
    EniLink,
    ForeignRule,
    Marks,
    eni_table,
    parse_alias,
)
from cni.desired import (
    Desired,
    Found,
    FoundLink,
    Known,
    Lookup,
    Part,
    PodWire,
    PutWay,
    Repair,
    mending,
    named,
)
from cni.nft_found import FoundTable
from cni.spec import Sandbox
from eni.model import Block, Eni, EniId
from ipamd.intents import UNMANAGED_TAG, Held, Intent, is_in_use, noted
from ipamd.lease import LeaseRow
from ipamd.sandboxes import KnownSandbox
from ipamd.wired import Wired


# The witnesses -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Journalled:
    """What the daemon's files say."""

    leases: tuple[LeaseRow, ...] = ()
    intents: tuple[Intent, ...] = ()
    blocks: Mapping[Block, tuple[EniId, Held]] = field(default_factory=dict)
    wired: Wired | None = None
    """None: no daemon of this version has run here yet."""
    tables: FoundTable | None = None
    """The nft tables as they were when they had been written; None: nobody has looked."""
    primary: IPv4Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What of others on the node can stand in our way."""

    sysctls: Mapping[str, str] = field(default_factory=dict)
    may_set_sysctls: bool = True
    """False in a container, which sees /proc/sys read-only."""
    dropping: tuple[str, ...] = ()
    """Others' nft chains that drop what is forwarded unless something allows it."""
    rules: tuple[ForeignRule, ...] = ()
    complaints: tuple[tuple[str, str], ...] = ()
    """Of network daemons: a sentence, and its cure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """What each of them says at one moment."""

    pods: tuple[KnownSandbox, ...] | None = None
    journal: Journalled | None = None
    kernel: Found | None = None
    ec2: tuple[Eni, ...] | None = None
    host: Host = Host()
    names: Mapping[Sandbox, str] = field(default_factory=dict)
    """The names that host veths would have."""


# What is found -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sysctl:
    """A node-wide sysctl to write."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. *between* names the witnesses; *what* is the object, for comparing looks."""

    between: str
    what: str
    sentence: str
    cure: str
    fix: Repair | Sysctl | None = None
    """What `--fix` does about it; None: it is not safe to do unasked."""


BY_ITSELF = "`enid doctor --fix` puts it back at once; an ipamd that runs does within half a minute"
BY_DAEMON = "ipamd takes it away at its second look; if none runs, start it"
TAKE_UP = "ipamd takes it up at its next look at EC2 (minutes); if it stays, restart ipamd"
LET_GO = "ipamd lets it go after two looks at EC2 (minutes); if it stays, restart ipamd"
STAYED = (
    "`--fix` has not mended it: somebody undoes it at once, or the kernel refuses (see the end)"
)
RESTART_POD = "restart the pod: it gets another address"


def diagnose(seen: Witnesses) -> Iterator[Finding]:
    """Yield everything in which the witnesses differ, and what of others stands in our way."""
    if seen.pods is not None and seen.journal is not None:
        yield from _pods_and_journal(seen.pods, seen.journal)
    if seen.journal is not None and seen.kernel is not None:
        yield from _journal_and_kernel(seen.journal, seen.kernel, seen.names)
    if seen.pods is not None and seen.kernel is not None:
        yield from _pods_and_kernel(seen.pods, seen.kernel, seen.names, seen.journal)
    if seen.ec2 is not None:
        yield from _with_ec2(seen, seen.ec2)
    yield from _host(seen.host, seen.journal)


def _who(row: LeaseRow) -> str:
    pod = row.pod
    return f"{pod.namespace}/{pod.name}" if pod.name else row.sandbox.container_id[:12]


def _said(addresses: Collection[Address]) -> str:
    return ", ".join(map(str, addresses)) or "no address"


# Pods and journal ----------------------------------------------------------------------
def _pods_and_journal(pods: tuple[KnownSandbox, ...], journal: Journalled) -> Iterator[Finding]:
    leases = {row.sandbox: row for row in journal.leases}
    known = {pod.sandbox for pod in pods}
    between = "pods and journal"
    for pod in pods:
        row = leases.get(pod.sandbox)
        sandbox = f"sandbox {pod.sandbox.container_id[:12]} of {pod.who}"
        if row is None:
            sentence = (
                f"the runtime runs {sandbox} with {_said(pod.addresses)}, and no lease has it"
            )
            yield Finding(between, str(pod.sandbox), sentence, RESTART_POD)
        elif set(row.addresses) != set(pod.addresses):
            sentence = (
                f"the runtime says that {sandbox} has {_said(pod.addresses)}, and its lease says"
                f" {_said(row.addresses)}"
            )
            yield Finding(between, str(pod.sandbox), sentence, RESTART_POD)
    for row in journal.leases:
        if row.sandbox not in known:
            sentence = (
                f"the lease of {_said(row.addresses)} is of {_who(row)}, and the runtime knows no"
                f" sandbox {row.sandbox.container_id[:12]}"
            )
            cure = (
                "a DEL never came: the runtime's GC releases it (containerd 2), or remove its veth"
                " once you are sure that the pod is gone, and ipamd releases it"
            )
            yield Finding(between, str(row.sandbox), sentence, cure)


# Journal and kernel --------------------------------------------------------------------
PRESENT = (
    (r" had vanished", " is missing"),
    (r" had another ", " has another "),
    (r" led to ", " leads to "),
    (r" made a route ", " makes a route "),
    (
        r" was (down|unreachable|of type \w+|made from|\S+ and must be|'[^']*' and must be)",
        r" is \1",
    ),
)
"""What a repair says befell something, and what is so until it is mended."""


def present(sentence: str) -> str:
    """Return what a repair says as what is so now."""
    for then, now in PRESENT:
        sentence = re.sub(then, now, sentence)
    return sentence


def active(journal: Journalled) -> Iterator[tuple[Intent, EniLink]]:
    """Yield every ENI that pods use, and its link as it should be."""
    wired = journal.wired or Wired()
    for intent in journal.intents:
        if is_in_use(intent) and intent.mac is not None:
            note = noted(intent)
            mtu = wired.mtu if intent.device_index else wired.primary_mtu
            number = intent.device_index + 1
            yield intent, EniLink(number, intent.mac, note.primary, note.subnet_cidr, mtu)


def desired(journal: Journalled, names: Mapping[Sandbox, str]) -> Desired:
    """Return what the daemon's files want of the kernel."""
    wired, source = journal.wired or Wired(), journal.primary
    return Desired(
        enis=tuple(link for _, link in active(journal)),
        pods=tuple(
            PodWire(
                sandbox=row.sandbox,
                addresses=row.addresses,
                eni_number=row.eni_number,
                alias=Alias(row.sandbox, row.pod.uid, row.addresses, row.eni_id),
                source=source,
                who=_who(row),
                name=names[row.sandbox],
            )
            for row in journal.leases
            if source is not None
        ),
        guards=frozenset(b for b, (_, held) in journal.blocks.items() if held is Held.HELD),
        unsure=frozenset(b for b, (_, held) in journal.blocks.items() if held is not Held.HELD),
        table=wired.nft,
        routing=wired.routing,
    )


def _journal_and_kernel(
    journal: Journalled, kernel: Found, names: Mapping[Sandbox, str]
) -> Iterator[Finding]:
    want = desired(journal, names)
    known = Known(table=journal.tables)
    lookup = Lookup(kernel, known)
    between = "journal and kernel"
    repairs = tuple(mending(want, kernel, known))
    yield from _drops_of_others(want, kernel, repairs)
    yield from _ways_elsewhere(want, kernel, lookup)
    for repair in repairs:
        yield Finding(
            "kernel" if repair.part is Part.TABLE else between,
            repair.what,
            present(repair.sentence),
            BY_DAEMON if repair.takes_away else BY_ITSELF,
            None if repair.takes_away else repair,
        )
    for wire in want.pods:
        if lookup.pod(wire) is None:
            sentence = (
                f"the lease of {_said(wire.addresses)} is of {wire.who}, and its veth is gone"
            )
            cure = (
                "ipamd releases it at its second look, in seconds; a pod that runs has no network:"
                " restart it, and find who deletes links"
            )
            yield Finding(between, f"veth of {wire.sandbox}", sentence, cure)
    for intent, eni in active(journal):
        if lookup.eni(eni) is None:
            sentence = (
                f"the journal has {intent.eni_id} in use, and the kernel shows no link {eni.mac}"
            )
            yield Finding(between, f"link of {intent.eni_id}", sentence, LET_GO)
    yield from _veths_without_lease(journal, kernel)


def _drops_of_others(
    want: Desired, kernel: Found, repairs: Collection[Repair]
) -> Iterator[Finding]:
    """Yield others' routes that take what pods send or get, but those that a repair replaces."""
    tables = {PODS_TABLE, *(eni_table(eni.number) for eni in want.enis if not eni.is_primary)}
    replaced = {r.step.way.key for r in repairs if isinstance(r.step, PutWay)}
    for way in kernel.ways:
        is_ours = way.protocol == PROTOCOL or way.key in replaced
        if way.drops and way.table in tables and not is_ours:
            what = f"route {named(way)} in table {way.table}"
            kind = way.kind or "unreachable"
            sentence = f"{what} is somebody else's and drops what goes there ({kind})"
            dev = f"ip -{way.network.version} route del {kind} {way.network} table {way.table}"
            cure = f"find who put it there (proto {way.protocol}), then `{dev}`"
            yield Finding("kernel", what, sentence, cure)


def _ways_elsewhere(want: Desired, kernel: Found, lookup: Lookup) -> Iterator[Finding]:
    """Yield others' routes that take some packets to a pod elsewhere, because of what they ask.

    One that asks nothing has the place of ours, which replaces it.
    """
    pods = {ip_network(address): pod for pod in want.pods for address in pod.addresses}
    for way in kernel.ways:
        pod = pods.get(way.network)
        asks = way.protocol != PROTOCOL and (way.tos or way.origin)
        if pod is None or not asks or way.drops or way.table != PODS_TABLE:
            continue
        link = lookup.pod(pod)
        if link is not None and link.index != way.index:
            what = f"route {named(way)} in table {way.table}"
            where = f"to link #{way.index}" if way.index else f"elsewhere ({way.kind})"
            sentence = f"{what} is somebody else's and takes packets to {pod.who} {where}"
            cure = (
                f"find who put it there (proto {way.protocol}), then `ip -{way.network.version}"
                f" route del {named(way)} table {way.table}`"
            )
            yield Finding("kernel", what, sentence, cure)


def _veths_without_lease(journal: Journalled, kernel: Found) -> Iterator[Finding]:
    leases = {row.sandbox for row in journal.leases}
    for link, alias in _veths(kernel):
        if alias.sandbox not in leases:
            sentence = (
                f"veth {link.name} says that it has {_said(alias.addresses)}, and no lease has it"
            )
            cure = "restart ipamd: it takes up what the kernel shows, or cuts it if the pod is gone"
            yield Finding("journal and kernel", f"lease of {alias.sandbox}", sentence, cure)


def _veths(kernel: Found) -> Iterator[tuple[FoundLink, Alias]]:
    """Yield the host veths of pods that live, with what they say of themselves."""
    for link in kernel.links:
        alias = parse_alias(link.alias)
        if alias is not None and link.is_up:  # one that is down waits for its end
            yield link, alias


# Pods and kernel -----------------------------------------------------------------------
def _pods_and_kernel(
    pods: tuple[KnownSandbox, ...],
    kernel: Found,
    names: Mapping[Sandbox, str],
    journal: Journalled | None,
) -> Iterator[Finding]:
    aliases = {alias.sandbox for _, alias in _veths(kernel)}
    there = {link.name for link in kernel.links}
    leases = {row.sandbox for row in journal.leases} if journal else set()
    known = {pod.sandbox for pod in pods}
    between = "pods and kernel"
    for pod in pods:
        if pod.sandbox not in aliases | leases and names.get(pod.sandbox) not in there:
            sentence = (
                f"the runtime runs sandbox {pod.sandbox.container_id[:12]} of {pod.who}, and the"
                " kernel shows no veth of it"
            )
            yield Finding(between, f"veth of {pod.sandbox}", sentence, RESTART_POD)
    for link, alias in _veths(kernel):
        if alias.sandbox not in known | leases:
            sentence = (
                f"veth {link.name} is of sandbox {alias.sandbox.container_id[:12]}, which the"
                " runtime does not know"
            )
            cure = f"once you are sure that the pod is gone: `ip link delete {link.name}`"
            yield Finding(between, f"sandbox of {link.name}", sentence, cure)


# EC2 -----------------------------------------------------------------------------------
def _is_plain(eni: Eni) -> bool:
    return (
        eni.attachment is not None
        and not eni.attachment.network_card
        and eni.primary is not None
        and eni.interface_type == "interface"
        and eni.tags.get(UNMANAGED_TAG) != "true"
    )


def _holders(enis: Collection[Eni]) -> dict[Address, EniId]:
    """Return which ENI EC2 has each address on; those of prefixes, too."""
    held: dict[Address, EniId] = {}
    for eni in enis:
        for block in eni.blocks:
            held |= dict.fromkeys(block, eni.id)
        held |= dict.fromkeys(eni.ipv6, eni.id)
    return held


def _with_ec2(seen: Witnesses, ec2: tuple[Eni, ...]) -> Iterator[Finding]:
    holders = _holders(ec2)
    if seen.journal is not None:
        yield from _journal_and_ec2(seen.journal, ec2)
        yield from _leases_and_ec2(seen.journal, holders)
    if seen.kernel is not None:
        yield from _kernel_and_ec2(seen.kernel, ec2, holders, seen.journal)
    if seen.pods is not None:
        leases = {row.sandbox for row in seen.journal.leases} if seen.journal else set()
        for pod in seen.pods:
            lost = [a for a in pod.addresses if a not in holders]
            if lost and pod.sandbox not in leases:
                sentence = f"{pod.who} has {_said(lost)}, which EC2 has on no ENI of this node"
                yield Finding("pods and EC2", f"address of {pod.sandbox}", sentence, RESTART_POD)


def _journal_and_ec2(journal: Journalled, ec2: tuple[Eni, ...]) -> Iterator[Finding]:
    between = "journal and EC2"
    attached = {eni.id for eni in ec2}
    ours = {i.eni_id: i for i in journal.intents if i.eni_id is not None}
    in_use = {intent.eni_id for intent, _ in active(journal)}
    for eni_id in sorted(filter(None, in_use - attached)):
        sentence = f"the journal has {eni_id} in use, and EC2 has it not attached here"
        yield Finding(between, eni_id, sentence, LET_GO)
    for eni in ec2:
        if eni.id not in ours and _is_plain(eni):
            sentence = (
                f"EC2 has {eni.id} attached to this instance, and the journal does not know it"
            )
            cure = f"{TAKE_UP}, or tag it {UNMANAGED_TAG}=true if it is somebody else's"
            yield Finding(between, eni.id, sentence, cure)
    shown = {block: eni.id for eni in ec2 for block in eni.blocks if eni.id in in_use}
    held = {b: eni_id for b, (eni_id, state) in journal.blocks.items() if state is Held.HELD}
    known = set(journal.blocks)
    for block, eni_id in sorted(held.items()):
        if block not in shown and eni_id in attached:
            sentence = f"the journal holds {block} of {eni_id}, and EC2 has it not there"
            yield Finding(between, str(block), sentence, LET_GO)
    for block, eni_id in sorted(shown.items()):
        if block not in known:
            sentence = f"EC2 has {block} on {eni_id}, and the journal does not hold it"
            yield Finding(between, str(block), sentence, TAKE_UP)


def _leases_and_ec2(journal: Journalled, holders: Mapping[Address, EniId]) -> Iterator[Finding]:
    for row in journal.leases:
        for address in row.addresses:
            holder = holders.get(address)
            if holder == row.eni_id:
                continue
            where = f"has it on {holder}" if holder else "has it on no ENI of this node"
            sentence = f"{_who(row)} has {address} of {row.eni_id}, and EC2 {where}"
            yield Finding("journal and EC2", f"address {address}", sentence, RESTART_POD)


def _kernel_and_ec2(
    kernel: Found,
    ec2: tuple[Eni, ...],
    holders: Mapping[Address, EniId],
    journal: Journalled | None,
) -> Iterator[Finding]:
    between = "kernel and EC2"
    macs = {link.mac for link in kernel.links}
    leases = {row.sandbox for row in journal.leases} if journal else set()
    known = {i.eni_id for i in journal.intents} if journal else set()
    for eni in ec2:
        if eni.mac not in macs and eni.id not in known:
            sentence = f"EC2 has {eni.id} attached, and the kernel shows no link {eni.mac}"
            cure = "wait a minute: a hot-plugged ENI may be late; then detach and attach it again"
            yield Finding(between, f"link of {eni.id}", sentence, cure)
    for link, alias in _veths(kernel):
        if alias.sandbox in leases:
            continue  # said of the lease
        for address in alias.addresses:
            if holders.get(address) != alias.eni_id:
                sentence = (
                    f"veth {link.name} has {address} of {alias.eni_id}, and EC2 has it not there"
                )
                yield Finding(between, f"address {address}", sentence, RESTART_POD)


# Others on the node --------------------------------------------------------------------
def _host(host: Host, journal: Journalled | None) -> Iterator[Finding]:
    for name, value in host.sysctls.items():
        wanted = NODE_SYSCTLS[name]
        if value != wanted:
            sentence = f"{name} is {value} and must be {wanted}"
            here, fix = "`enid doctor --fix` sets it", Sysctl(name, wanted)
            there = f"on the host: `sysctl -w {name}={wanted}` (/proc/sys is read-only here)"
            may = host.may_set_sysctls
            cure = f"{here if may else there}; find who changes it (/etc/sysctl.d)"
            yield Finding("node", name, sentence, cure, fix if may else None)
    for chain in host.dropping:
        sentence = f"{chain} drops what is forwarded, and pods are forwarded"
        cure = "let it accept what comes from and goes to `eni*`, or set its policy to accept"
        yield Finding("node", chain, sentence, cure)
    marks = journal.wired.routing.marks if journal and journal.wired else Marks()
    for rule in host.rules:
        if sentence := rule.overlap(marks):
            cure = "move its mark, or ours (AWS_VPC_K8S_CNI_CONNMARK, then drain and restart)"
            yield Finding("node", f"rule {rule.preference} {rule.words}", sentence, cure)
    for sentence, cure in host.complaints:
        yield Finding("node", sentence, sentence, cure)
