"""In what pods, journal, kernel and EC2 differ, each difference one sentence."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from cni.dataplane import NODE_SYSCTLS, ForeignRule, Marks, Routing, Rule, desired_rules, pod_mac
from cni.desired import (
    ENI_CONF,
    PRIMARY_CONF,
    Desired,
    Found,
    FoundLink,
    FoundRule,
    Known,
    Neighbour,
    OwnAddress,
    PutRule,
    Repair,
    Way,
    mending,
)
from cni.nft_found import FoundTable
from cni.spec import Pod, Sandbox
from eni.model import (
    Attachment,
    AttachmentId,
    AttachmentStatus,
    Eni,
    EniId,
    InstanceId,
    SecurityGroupId,
    SubnetId,
)
from ipamd.diagnosis import (
    Finding,
    Host,
    Journalled,
    Sysctl,
    Witnesses,
    desired,
    diagnose,
    present,
)
from ipamd.intents import UNMANAGED_TAG, EniState, Held, Intent, Noted, note
from ipamd.lease import LeaseRow
from ipamd.sandboxes import KnownSandbox
from ipamd.wired import Wired
from tests.unit.test_desired import TEXT, link, taken
from tests.unit.test_nft_found import written

CIDR = IPv4Network("10.0.0.0/24")
NODE, FIRST, SECOND = CIDR[4], CIDR[5], CIDR[21]
ENI_1, ENI_2 = EniId("eni-1"), EniId("eni-2")
MAC_1, MAC_2 = "02:00:00:00:00:01", "02:00:00:00:00:02"
SANDBOX_1, SANDBOX_2 = Sandbox("enid", "a" * 64, "eth0"), Sandbox("enid", "b" * 64, "eth0")
NAMES = {SANDBOX_1: "eni0000000000a", SANDBOX_2: "eni0000000000b"}


def lease(sandbox: Sandbox, address: IPv4Address, eni_id: EniId, number: int) -> LeaseRow:
    return LeaseRow(
        sandbox=sandbox,
        pod=Pod("default", f"web-{number}", f"uid-{number}"),
        addresses=(address,),
        eni_id=eni_id,
        eni_number=number,
        netns=None,
        started_ns=0,
        since=0.0,
    )


def intent(index: int, eni_id: EniId, mac: str, primary: IPv4Address) -> Intent:
    kept = note(Noted(primary, (), SubnetId("subnet-1"), CIDR))
    return Intent(
        token=f"t{index}",
        state=EniState.ACTIVE,
        device_index=index,
        parameters={"eni": kept},
        eni_id=eni_id,
        mac=mac,
    )


JOURNAL = Journalled(
    leases=(lease(SANDBOX_1, FIRST, ENI_1, 1), lease(SANDBOX_2, SECOND, ENI_2, 2)),
    intents=(intent(0, ENI_1, MAC_1, NODE), intent(1, ENI_2, MAC_2, CIDR[20])),
    blocks={
        IPv4Network(FIRST): (ENI_1, Held.HELD),
        IPv4Network(SECOND): (ENI_2, Held.HELD),
        IPv4Network(CIDR[22]): (ENI_2, Held.RELEASING),
    },
    wired=Wired(nft=TEXT),
    tables=written(TEXT),
    primary=NODE,
)


def kernel_of(want: Desired) -> Found:
    """Return a kernel in which nothing is wanting."""
    indexes = {pod.sandbox: 10 + n for n, pod in enumerate(want.pods)}
    links = (
        link(2, "ens5", MAC_1, group=5249, conf=tuple(PRIMARY_CONF.items())),
        link(3, "ens6", MAC_2, group=5250, conf=tuple(ENI_CONF.items())),
        *(link(indexes[pod.sandbox], pod.name, "", alias=pod.alias.text()) for pod in want.pods),
    )
    have = Found(
        links=links,
        rules=tuple(FoundRule(rule, 151) for rule in desired_rules(want.enis)),
        addresses=(OwnAddress(3, IPv4Interface("10.0.0.20/24"), is_silent=True),),
        neighbours=frozenset(
            Neighbour(indexes[pod.sandbox], pod.addresses[0], pod_mac(pod.addresses[0]))
            for pod in want.pods
        ),
        table=written(TEXT),
    )
    for _ in range(2):
        for repair in mending(want, have, Known()):
            have = taken(have, repair)
    return have


KERNEL = kernel_of(desired(JOURNAL, NAMES))


def eni(eni_id: EniId, index: int, mac: str, primary: IPv4Address, *more: IPv4Address) -> Eni:
    return Eni(
        id=eni_id,
        mac=mac,
        subnet_id=SubnetId("subnet-1"),
        status="in-use",
        description="",
        interface_type="interface",
        primary=primary,
        secondary=more,
        security_groups=(SecurityGroupId("sg-1"),),
        attachment=Attachment(
            id=AttachmentId(f"attach-{index}"),
            instance_id=InstanceId("i-1"),
            device_index=index,
            status=AttachmentStatus.ATTACHED,
            delete_on_termination=True,
        ),
    )


EC2 = (eni(ENI_1, 0, MAC_1, NODE, FIRST), eni(ENI_2, 1, MAC_2, CIDR[20], SECOND, CIDR[22]))
PODS = (
    KnownSandbox(SANDBOX_1, (FIRST,), "default/web-1"),
    KnownSandbox(SANDBOX_2, (SECOND,), "default/web-2"),
)
ALL = Witnesses(
    pods=PODS,
    journal=JOURNAL,
    kernel=KERNEL,
    ec2=EC2,
    host=Host(sysctls=dict(NODE_SYSCTLS)),
    names=NAMES,
)


def sentences(seen: Witnesses) -> list[str]:
    return [finding.sentence for finding in diagnose(seen)]


def test_where_all_agree_nothing_is_said() -> None:
    assert sentences(ALL) == []


@pytest.mark.parametrize("silent", ["pods", "journal", "kernel", "ec2"])
def test_of_a_witness_that_was_not_heard_nothing_is_said(silent: str) -> None:
    nothing: dict[str, Any] = {silent: None}
    assert sentences(replace(ALL, **nothing)) == []


def test_those_who_heard_nobody_say_nothing() -> None:
    assert sentences(Witnesses()) == []


GHOST = KnownSandbox(Sandbox("enid", "c" * 64, "eth0"), (CIDR[99],), "default/ghost")
STRANGER = EniId("eni-9")


def without_link(index: int) -> Found:
    left = tuple(found for found in KERNEL.links if found.index != index)
    return replace(
        KERNEL,
        links=left,
        ways=tuple(way for way in KERNEL.ways if way.index != index),
        neighbours=frozenset(n for n in KERNEL.neighbours if n.index != index),
    )


def leased(*rows: LeaseRow) -> Journalled:
    return replace(JOURNAL, leases=rows)


OTHERS = "is somebody else's and drops what goes there"
TAKES = "is somebody else's and takes packets to default/web-1"

DIFFERENCES: dict[str, tuple[Witnesses, list[str]]] = {
    "a sandbox without a lease": (
        replace(ALL, pods=(*PODS, GHOST)),
        [
            "the runtime runs sandbox cccccccccccc of default/ghost with 10.0.0.99, and no lease has it",
            "the runtime runs sandbox cccccccccccc of default/ghost, and the kernel shows no veth of it",
            "default/ghost has 10.0.0.99, which EC2 has on no ENI of this node",
        ],
    ),
    "a lease without a sandbox": (
        replace(ALL, pods=PODS[:1]),
        ["the lease of 10.0.0.21 is of default/web-2, and the runtime knows no sandbox bbbbbbbbbbbb"],
    ),
    "another address": (
        replace(ALL, pods=(replace(PODS[0], addresses=(CIDR[77],)), PODS[1])),
        ["the runtime says that sandbox aaaaaaaaaaaa of default/web-1 has 10.0.0.77, and its lease says 10.0.0.5"],
    ),
    "a sandbox whose result has no address": (
        replace(ALL, pods=(replace(PODS[0], addresses=()), PODS[1])),
        ["the runtime says that sandbox aaaaaaaaaaaa of default/web-1 has no address, and its lease says 10.0.0.5"],
    ),
    "a lease without a veth": (
        replace(ALL, kernel=without_link(10)),
        ["the lease of 10.0.0.5 is of default/web-1, and its veth is gone"],
    ),
    "a veth without a lease": (
        replace(ALL, journal=leased(JOURNAL.leases[0]), pods=PODS[:1]),
        [
            "route 10.0.0.21/32 in table 5120 carries our protocol and is not needed",
            "veth eni0000000000b says that it has 10.0.0.21, and no lease has it",
            "veth eni0000000000b is of sandbox bbbbbbbbbbbb, which the runtime does not know",
        ],
    ),
    "a veth without a lease, of an address that is not ours": (
        replace(
            ALL, journal=leased(JOURNAL.leases[0]), pods=PODS[:1], ec2=(EC2[0], replace(EC2[1], secondary=(CIDR[22],)))
        ),
        [
            "route 10.0.0.21/32 in table 5120 carries our protocol and is not needed",
            "veth eni0000000000b says that it has 10.0.0.21, and no lease has it",
            "veth eni0000000000b is of sandbox bbbbbbbbbbbb, which the runtime does not know",
            "the journal holds 10.0.0.21/32 of eni-2, and EC2 has it not there",
            "veth eni0000000000b has 10.0.0.21 of eni-2, and EC2 has it not there",
        ],
    ),
    "drift": (
        replace(ALL, kernel=replace(KERNEL, rules=KERNEL.rules[1:])),
        ["rule 512: from all lookup 5120 is missing"],
    ),
    "another nft table": (
        replace(ALL, kernel=replace(KERNEL, table=FoundTable())),
        ["nft table enid is missing (ip, ip6)"],
    ),
    "an ENI without a link": (
        replace(ALL, kernel=without_link(3)),
        ["the journal has eni-2 in use, and the kernel shows no link 02:00:00:00:00:02"],
    ),
    "an ENI that is attached elsewhere": (
        replace(ALL, ec2=EC2[:1]),
        [
            "the journal has eni-2 in use, and EC2 has it not attached here",
            "default/web-2 has 10.0.0.21 of eni-2, and EC2 has it on no ENI of this node",
        ],
    ),
    "an ENI that nobody knows": (
        replace(ALL, ec2=(*EC2, eni(STRANGER, 2, "02:00:00:00:00:09", CIDR[50]))),
        [
            "EC2 has eni-9 attached to this instance, and the journal does not know it",
            "EC2 has eni-9 attached, and the kernel shows no link 02:00:00:00:00:09",
        ],
    ),
    "a block that EC2 has taken": (
        replace(ALL, ec2=(replace(EC2[0], secondary=()), EC2[1])),
        [
            "the journal holds 10.0.0.5/32 of eni-1, and EC2 has it not there",
            "default/web-1 has 10.0.0.5 of eni-1, and EC2 has it on no ENI of this node",
        ],
    ),
    "a block that EC2 has given": (
        replace(ALL, ec2=(replace(EC2[0], secondary=(FIRST, CIDR[60])), EC2[1])),
        ["EC2 has 10.0.0.60/32 on eni-1, and the journal does not hold it"],
    ),
    "an address that moved": (
        replace(
            ALL,
            ec2=(replace(EC2[0], secondary=()), replace(EC2[1], secondary=(FIRST, SECOND, CIDR[22]))),
        ),
        ["default/web-1 has 10.0.0.5 of eni-1, and EC2 has it on eni-2"],
    ),
    "others' routes that drop": (
        replace(ALL, kernel=replace(KERNEL, ways=(
            *KERNEL.ways,
            Way(IPv4Network("198.51.100.0/24"), 2, protocol=3, kind="blackhole"),
            Way(IPv4Network("203.0.113.0/24"), 5120, protocol=3),
            Way(IPv4Network("203.0.113.0/24"), 5120, 7, 3, protocol=3),
            Way(IPv4Network("203.0.113.0/24"), 2, protocol=3, kind="throw"),
            Way(IPv4Network("198.51.100.0/24"), 77, protocol=3, kind="blackhole"),
        ))),
        [
            f"route 198.51.100.0/24 in table 2 {OTHERS} (blackhole)",
            f"route 203.0.113.0/24 in table 5120 {OTHERS} (unreachable)",
        ],
    ),
    "somebody's routes of some packets to a pod": (
        replace(ALL, kernel=replace(KERNEL, ways=(
            Way(IPv4Network(FIRST), 5120, 0, 2, protocol=4, tos=0x10),
            Way(IPv4Network(FIRST), 5120, 0, 10, protocol=4, tos=0x8),
            Way(IPv4Network(FIRST), 5120, 0, 0, protocol=4, tos=0x4, kind="throw"),
            Way(IPv4Network(FIRST), 7, 0, 2, protocol=4, tos=0x10),
            *KERNEL.ways,
        ))),
        [
            f"route 10.0.0.5/32 tos 0x10 in table 5120 {TAKES} to link #2",
            f"route 10.0.0.5/32 tos 0x4 in table 5120 {TAKES} elsewhere (throw)",
        ],
    ),
    "somebody's blackhole in the place of ours": (
        replace(ALL, kernel=replace(KERNEL, ways=(
            *(way for way in KERNEL.ways if way.network != IPv4Network(FIRST) or not way.index),
            Way(IPv4Network(FIRST), 5120, protocol=3, kind="blackhole"),
        ))),
        ["route to 10.0.0.5 of default/web-1 is of type blackhole"],
    ),
    "a sysctl": (
        replace(ALL, host=Host(sysctls={"net.ipv4.ip_forward": "0"})),
        ["net.ipv4.ip_forward is 0 and must be 1"],
    ),
    "a firewall": (
        replace(ALL, host=Host(dropping=("chain forward of nft table ip fw",))),
        ["chain forward of nft table ip fw drops what is forwarded, and pods are forwarded"],
    ),
    "a mark of somebody else": (
        replace(ALL, host=Host(rules=(ForeignRule(900, 0x40, 0xF0), ForeignRule(901, 0x100, 0xF00)))),
        ["rule 900 of somebody else looks at our mark bits: 0x40/0xf0"],
    ),
    "a network daemon": (
        replace(ALL, host=Host(complaints=(("networkd removes ours", "copy a file"),))),
        ["networkd removes ours"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "said"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_each_difference_is_one_sentence(seen: Witnesses, said: list[str]) -> None:
    assert sentences(seen) == said


@pytest.mark.parametrize("seen", [s for s, _ in DIFFERENCES.values()], ids=DIFFERENCES.keys())
def test_each_has_a_cure_and_a_name_of_its_own(seen: Witnesses) -> None:
    findings = list(diagnose(seen))
    assert all(finding.cure for finding in findings)
    assert len({(f.between, f.what) for f in findings}) == len(findings)


def fix_of(seen: Witnesses) -> list[Finding]:
    return [finding for finding in diagnose(seen) if finding.fix is not None]


def test_what_is_missing_is_safe_to_put_and_what_is_too_much_is_not_taken_away() -> None:
    less = replace(ALL, kernel=replace(KERNEL, rules=KERNEL.rules[1:]))
    (finding,) = fix_of(less)
    assert isinstance(finding.fix, Repair)
    assert isinstance(finding.fix.step, PutRule)
    more = replace(KERNEL, rules=(*KERNEL.rules, FoundRule(Rule(600, 5120), 151)))
    assert fix_of(replace(ALL, kernel=more)) == []
    (finding,) = fix_of(replace(ALL, host=Host(sysctls={"net.ipv4.ip_forward": "0"})))
    assert finding.fix == Sysctl("net.ipv4.ip_forward", "1")


def test_where_sysctls_cannot_be_set_the_host_is_told_how() -> None:
    host = Host(sysctls={"net.ipv4.ip_forward": "0"}, may_set_sysctls=False)
    (finding,) = diagnose(replace(ALL, host=host))
    assert finding.fix is None
    assert finding.cure.startswith("on the host: `sysctl -w net.ipv4.ip_forward=1`")
    assert "--fix" not in finding.cure


@pytest.mark.parametrize(
    "other",
    [
        replace(eni(STRANGER, 2, MAC_2, CIDR[50]), interface_type="efa"),
        replace(eni(STRANGER, 2, MAC_2, CIDR[50]), tags={UNMANAGED_TAG: "true"}),
        replace(eni(STRANGER, 2, MAC_2, CIDR[50]), primary=None),
        replace(eni(STRANGER, 2, MAC_2, CIDR[50]), attachment=None),
    ],
    ids=["efa", "no-manage", "without-address", "detached"],
)
def test_what_is_somebody_elses_eni_is_nobodys_business(other: Eni) -> None:
    assert sentences(replace(ALL, ec2=(*EC2, other))) == []


def test_without_a_note_of_how_it_wires_the_usual_is_wanted_but_no_nft() -> None:
    journal = replace(JOURNAL, wired=None, tables=None)
    assert sentences(replace(ALL, journal=journal)) == []


def test_without_the_nodes_address_nothing_is_said_of_pods_wires() -> None:
    assert desired(replace(JOURNAL, primary=None), NAMES).pods == ()


def test_an_eni_on_its_way_is_not_wanted_yet() -> None:
    coming = replace(JOURNAL.intents[1], state=EniState.ATTACHED)
    assert len(desired(replace(JOURNAL, intents=(JOURNAL.intents[0], coming)), NAMES).enis) == 1


def test_settings_make_the_wish() -> None:
    wired = Wired(nft=TEXT, routing=Routing(Marks(0x8000)), mtu=1500, primary_mtu=1400)
    want = desired(replace(JOURNAL, wired=wired), NAMES)
    assert [eni.mtu for eni in want.enis] == [1400, 1500]
    assert want.routing.marks.primary == 0x8000


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("rule 1 had vanished", "rule 1 is missing"),
        ("veth x: was down, its group was 7 and must be 5121", "veth x: is down, its group is 7 and must be 5121"),
        ("its alias was 'a b' and must be 'c d'", "its alias is 'a b' and must be 'c d'"),
        ("route led to link #2 instead of #4", "route leads to link #2 instead of #4"),
        ("route was unreachable instead of #4", "route is unreachable instead of #4"),
        ("address made a route in main", "address makes a route in main"),
        ("nft table was made from another text", "nft table is made from another text"),
        ("nft table has other rules than were written", "nft table has other rules than were written"),
    ],
)  # fmt: skip
def test_what_befell_something_is_said_as_what_is(then: str, now: str) -> None:
    assert present(then) == now


def test_the_helper_shows_a_kernel_that_is_whole() -> None:
    assert isinstance(KERNEL.links[0], FoundLink)
    assert any(isinstance(way, Way) for way in KERNEL.ways)
