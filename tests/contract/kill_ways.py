"""Every way that an ENI or a block takes through the journal: how it begins, and its calls.

A way is walked by `tests/contract/test_kill_matrix.py` once without a fault, and then with one
at each of its calls of EC2 and each of its steps in the kernel. What goes wrong on a way by
itself (EC2 refuses, somebody takes an ENI away) is part of it: a fault comes on top of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from eni.model import Eni, Notices
from ipamd.intents import INSTANCE_TAG, UNMANAGED_TAG
from ipamd.settings import Settings
from tests.contract.node_world import WARM, Node, by_address

LIFE_SECONDS = 30.0
"""After which what can be done of a beginning is done."""


def nothing(_node: Node) -> None:
    """Do nothing."""


def agreed(_node: Node) -> Iterable[str]:
    """Return nothing that is wrong beside what always is."""
    return ()


@dataclass(frozen=True)
class Way:
    """A way that is walked: from *before*, which is brought about without a fault, by *walk*.

    *calls* and kernel *steps* are what it begins with, as far as they are met by faults here;
    calls before number *since* are another way's, too, and meet none. *peace* ends what would keep a node from coming to
    rest, and *wrong* tells what else must agree then.
    """

    name: str
    settings: Settings
    walk: Callable[[Node], None]
    calls: tuple[str, ...]
    steps: tuple[str, ...] = ()
    before: Callable[[Node], None] = nothing
    since: int = 0
    peace: Callable[[Node], None] = nothing
    wrong: Callable[[Node], Iterable[str]] = agreed


# What EC2 refuses ------------------------------------------------------------------------
def refuse(
    node: Node, action: str, code: str = "UnauthorizedOperation", times: float = math.inf
) -> None:
    """Let EC2 refuse an action, so many times."""
    node.ec2.plane.faults.fail(action, code, times=times)


def allow(node: Node) -> None:
    """Let EC2 refuse nothing any more."""
    node.ec2.plane.faults.clear()


# What is there before --------------------------------------------------------------------
def an_eni_by_hand(node: Node) -> None:
    """Let somebody attach an ENI, which a restarted daemon finds."""
    node.kill()
    made = node.ec2.create(SecondaryPrivateIpAddressCount=3)
    node.ec2.attach(made)


def an_eni_that_goes_along(node: Node) -> None:
    """Let somebody attach an ENI that goes with the instance."""
    an_eni_by_hand(node)
    attachment = second(node).attachment
    assert attachment is not None
    node.ec2.hand.modify_network_interface_attribute(
        NetworkInterfaceId=second(node).id,
        Attachment={"AttachmentId": attachment.id, "DeleteOnTermination": True},
    )


def an_eni_that_stays(node: Node) -> None:
    """Let somebody attach an ENI that goes with the instance, and that the node may not tag."""
    an_eni_that_goes_along(node)
    refuse(node, "CreateTags")


def adopted_without_a_link(node: Node) -> None:
    """Let an ENI be taken over that has no link yet."""
    node.ec2.hides_links = True
    an_eni_by_hand(node)
    node.start(LIFE_SECONDS)


def a_second_eni(node: Node) -> None:
    """Grow to two ENIs, of which pods need one from now on."""
    node.adds(1)
    node.run(LIFE_SECONDS)
    assert len(node.attached()) == 2


def a_second_eni_without_a_link(node: Node) -> None:
    """Attach an ENI whose link does not come."""
    node.ec2.hides_links = True
    a_second_eni(node)


def a_second_eni_that_outlives(node: Node) -> None:
    """Grow to two ENIs, of which EC2 lets none be changed."""
    refuse(node, "ModifyNetworkInterfaceAttribute")
    a_second_eni(node)


def made_and_not_attached(node: Node) -> None:
    """Make an ENI that EC2 does not let be attached yet, and die."""
    refuse(node, "AttachNetworkInterface", "RequestLimitExceeded")
    node.adds(1)
    node.run(LIFE_SECONDS)
    node.kill()
    assert [e.attachment for e in node.ec2.enis() if e.id != node.ec2.primary_id] == [None]


def made_and_not_heard_of(node: Node) -> None:
    """Make an ENI without hearing so, and die."""
    node.ec2.plane.faults.lose("CreateNetworkInterface")
    refuse(node, "CreateNetworkInterface", "RequestLimitExceeded")
    node.adds(1)
    node.run(LIFE_SECONDS)
    node.kill()
    assert second(node).attachment is None


def attached_and_not_heard_of(node: Node) -> None:
    """Attach an ENI without hearing so, and die."""
    node.ec2.plane.faults.lose("AttachNetworkInterface")
    refuse(node, "DescribeNetworkInterfaces")
    node.adds(1)
    node.run(LIFE_SECONDS)
    node.kill()
    assert len(node.attached()) == 2


def detached_and_not_deleted(node: Node) -> None:
    """Detach an ENI that EC2 does not let be deleted, and die."""
    a_second_eni(node)
    refuse(node, "DeleteNetworkInterface")
    node.deletes()
    node.run(200)
    node.kill()
    assert len(node.attached()) == 1


def many_singles(node: Node) -> None:
    """Hold more than is wanted from now on."""
    node.adds(5)
    node.run(LIFE_SECONDS)
    assert node.shape() == [7]


def many_singles_and_no_daemon(node: Node) -> None:
    """Hold more than is wanted, and die."""
    many_singles(node)
    node.kill()


def a_full_subnet(node: Node) -> None:
    """Let others have all that is left of the subnet."""
    node.ec2.occupy_all()


def a_leak(node: Node) -> None:
    """Let there be an ENI that a daemon made and forgot, and a daemon that knows nothing of it."""
    node.kill()
    mine = {"Key": INSTANCE_TAG, "Value": node.ec2.identity.instance_id}
    node.ec2.create(
        Description=f"aws-K8S-{node.ec2.identity.instance_id}",
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": [mine]}],
    )


def second(node: Node) -> Eni:
    """Return the ENI beside the primary."""
    (eni,) = (e for e in node.ec2.enis() if e.id != node.ec2.primary_id)
    return eni


# How it is walked ------------------------------------------------------------------------
def restart(node: Node) -> None:
    """Start the daemon."""
    node.start()


def one_pod(node: Node) -> None:
    """Let a pod come."""
    node.adds(1)


def all_pods_go(node: Node) -> None:
    """Let every pod go."""
    node.deletes()


def pods_go_and_come(node: Node) -> None:
    """Let every pod go, and as many that they need both ENIs come while EC2 is told to take one."""

    def come(call: str) -> None:
        if call == "eni":
            node.ec2.on_calls.remove(come)
            node.adds(10)

    node.deletes()
    node.ec2.on_calls.append(come)


def want(prefixes: int) -> Callable[[Node], None]:
    """Return what makes the daemon want that many free prefixes."""

    def walk(node: Node) -> None:
        node.settings = replace(node.settings, warm_prefix_target=prefixes)
        node.daemon.apply(node.settings)

    return walk


def groups_change(node: Node) -> None:
    """Give the primary ENI another security group, as the owner of the node does."""
    node.ec2.groups(node.ec2.primary_id, node.ec2.group(f"of {node.ec2.identity.instance_id}"))


def other_groups(node: Node) -> Iterable[str]:
    """Yield ENIs that have other groups than the primary."""
    primary, *others = node.adopted()
    return [
        f"{e.id} has {e.security_groups}"
        for e in others
        if set(e.security_groups) != set(primary.security_groups)
    ]


def look(node: Node) -> None:
    """Let the daemon ask EC2 what is attached, as it does hourly."""
    node.daemon.engine.census.look_soon()
    node.daemon.engine.wake()


def nobody_manages_it(node: Node) -> None:
    """Let somebody take an ENI over that the daemon has made."""
    node.ec2.tag(second(node).id, {UNMANAGED_TAG: "true"})
    look(node)


def detached_by_hand(node: Node) -> None:
    """Let somebody detach an ENI."""
    node.ec2.detach(second(node).id)
    look(node)


def detached_by_hand_on_its_way(node: Node) -> None:
    """Let somebody detach an ENI whose link does not come; a next one's would."""
    node.ec2.detach(second(node).id)
    node.ec2.hides_links = False


def deleted_meanwhile(node: Node) -> None:
    """Let somebody delete an ENI that is not attached, and start the daemon."""
    node.ec2.delete(second(node).id)
    allow(node)
    node.start()


def attached_elsewhere_meanwhile(node: Node) -> None:
    """Let somebody attach an ENI to another instance, and start the daemon."""
    node.ec2.attach_elsewhere(second(node).id)
    allow(node)
    node.start()


def unassigned_meanwhile(node: Node) -> None:
    """Let somebody take an address that no pod has while the daemon is dead, and start it."""
    pods = {pod.address for pod in node.living}
    gone = min(block for block in node.held() if block[0] not in pods)
    node.ec2.hand.unassign_private_ip_addresses(
        NetworkInterfaceId=node.ec2.primary_id, PrivateIpAddresses=[str(gone[0])]
    )
    node.start()


def start_at_the_end(node: Node) -> None:
    """Start the daemon on an instance that AWS is about to end."""
    node.imds.notice = Notices(spot_action="terminate")
    allow(node)
    node.start()


def life_goes_on(node: Node) -> None:
    """Take the notice back: what the node owes it does now, which else another's sweep does."""
    node.imds.notice = Notices()


def allowed_again(node: Node) -> None:
    """Let EC2 refuse nothing any more, and start the daemon if there is none."""
    allow(node)
    if node.life is None:
        node.start()


def refused(
    action: str, code: str, walk: Callable[[Node], None], times: int = 1
) -> Callable[[Node], None]:
    """Return *walk* on which EC2 refuses an action so many times."""

    def refused_walk(node: Node) -> None:
        refuse(node, action, code, times=times)
        walk(node)

    return refused_walk


def made_and_refused(node: Node) -> None:
    """Let a pod come, for which an ENI is made without an answer; EC2 makes no other then."""
    node.ec2.plane.faults.lose("CreateNetworkInterface")
    refuse(node, "CreateNetworkInterface", "InsufficientFreeAddressesInSubnet", times=1)
    node.adds(1)


def not_made_and_refused(node: Node) -> None:
    """Let a pod come, for which no ENI is made, without an answer; EC2 makes none for long."""
    refuse(node, "CreateNetworkInterface", "InternalError", times=1)
    refuse(node, "CreateNetworkInterface", "InsufficientFreeAddressesInSubnet")
    node.adds(1)


# The ways --------------------------------------------------------------------------------
PREFIXES = Settings(prefix_delegation=True, demand=False, warm_prefix_target=1)

FULL_OF_PREFIXES = replace(PREFIXES, warm_prefix_target=9)
"""As many as the primary ENI takes."""

IMDS_ALONE = Settings(provisioning=False, leaked_eni_cleanup=False, imds_only=True)

START = ("attached", "limits", "subnets")
"""What every life begins with: the sweep's first look comes behind it."""

SWEEP = ("available", "attached", "available", "eni", "delete")
"""The two looks of a sweep, and what follows."""

TAKEN_UP = ("attached", "limits", "eni")
"""What a life begins with that takes an ENI up where the one before has left it."""

GROW = ("create", "attach", "delete_on_termination")

WIRE = ("link add", "link set", "pod set", "route replace")
"""What a pod takes in the kernel."""

CUT, REAP = ("route del", "link set"), ("link del",)
"""What its end takes."""

PRIMARY = ("link set", "link set")
GUARD, UNGUARD = ("guard replace",), ("guard del",)
LINK = (*PRIMARY, "addr add", "route replace", "route replace", "rule add", "rule add")
UNRULED = ("rule del", "rule del")

FOUND = (*PRIMARY, *GUARD)
"""What a life does that finds what it needs: the same once more."""

WAYS = (
    # Here
    Way("planned..active", WARM, one_pod, GROW, (*WIRE, *LINK, *GUARD)),
    Way("... with prefixes", FULL_OF_PREFIXES, want(11), GROW),
    Way(
        "first start",
        by_address(warm=3),
        restart,
        (*START, "available", "assign"),
        ("nft", *PRIMARY, "rule add", "rule add", *GUARD),
        before=Node.kill_and_forget,
    ),
    Way(
        "adopted",
        by_address(warm=2),
        restart,
        ("attached", "tag", "delete_on_termination", "limits", "eni", "subnets", "available"),
        (*FOUND, *GUARD, *LINK, *GUARD),
        before=an_eni_by_hand,
    ),
    Way(
        "adopted, stays",
        by_address(warm=2),
        restart,
        ("attached", "tag", "limits", "eni"),
        (*FOUND, *GUARD, *LINK, *GUARD),
        before=an_eni_that_stays,
    ),
    Way(
        "told by IMDS",
        IMDS_ALONE,
        restart,
        (),
        (*FOUND, *LINK, *GUARD),
        before=an_eni_that_goes_along,
    ),
    Way("amended", WARM, allow, ("delete_on_termination",), before=a_second_eni_that_outlives),
    Way(
        "started over",
        WARM,
        detached_by_hand_on_its_way,
        ("eni", "eni", "attach", "delete_on_termination", "eni"),
        (*LINK, *GUARD),
        before=a_second_eni_without_a_link,
    ),
    # Not here after all
    Way("not created", WARM, one_pod, ("create",), WIRE, before=a_full_subnet),
    Way(
        "created, unheard",
        WARM,
        refused("CreateNetworkInterface", "InternalError", one_pod),
        ("create", "attached", "create", "eni", "attach", "delete_on_termination", "eni"),
    ),
    Way(
        "created, found",
        WARM,
        made_and_refused,
        ("create", "attached", "create", "by_tag", "eni", "attach"),
    ),
    Way(
        "never created",
        WARM,
        not_made_and_refused,
        ("create", "attached", "create", "by_tag"),
        peace=allow,
    ),
    Way(
        "not attached",
        WARM,
        refused("AttachNetworkInterface", "AttachmentLimitExceeded", one_pod),
        ("create", "attach", "eni", "delete"),
    ),
    Way(
        "deleted meanwhile",
        WARM,
        deleted_meanwhile,
        (*TAKEN_UP, "subnets", "available", "attached", "eni", "eni"),
        before=made_and_not_attached,
    ),
    Way(
        "elsewhere meanwhile",
        WARM,
        attached_elsewhere_meanwhile,
        (*TAKEN_UP, "subnets", "available", "eni"),
        before=made_and_not_attached,
    ),
    Way(
        "undone",
        WARM,
        start_at_the_end,
        (*TAKEN_UP, "delete"),
        before=made_and_not_attached,
        peace=life_goes_on,
    ),
    Way(
        "undone, unheard",
        WARM,
        start_at_the_end,
        ("attached", "limits", "by_tag", "delete"),
        before=made_and_not_heard_of,
        peace=life_goes_on,
    ),
    Way(
        "undone too late",
        WARM,
        start_at_the_end,
        (*TAKEN_UP, "delete_on_termination", "eni"),
        (*FOUND, *GUARD, *LINK, *GUARD),
        before=attached_and_not_heard_of,
        peace=life_goes_on,
    ),
    Way(
        "adopted, let go",
        by_address(warm=2),
        detached_by_hand_on_its_way,
        ("attached", "eni", "attached"),
        UNGUARD,
        before=adopted_without_a_link,
    ),
    # While it is here
    Way("assign single", by_address(warm=2), one_pod, ("assign",), (*WIRE, *GUARD)),
    Way("assign prefix", PREFIXES, one_pod, ("assign",), (*WIRE, *GUARD)),
    Way(
        "unassign",
        by_address(warm=2),
        all_pods_go,
        ("unassign",),
        (*CUT, *(*CUT, *REAP) * 4, *UNGUARD),
        before=many_singles,
    ),
    Way(
        "unassign prefix",
        replace(PREFIXES, warm_prefix_target=3),
        want(1),
        ("unassign",),
        (*PRIMARY, *UNGUARD),
    ),
    Way(
        "unassign refused",
        by_address(warm=2),
        refused("UnassignPrivateIpAddresses", "UnauthorizedOperation", all_pods_go),
        ("unassign", "unassign"),
        before=many_singles,
    ),
    Way(
        "unassign not done",
        by_address(warm=2),
        refused("UnassignPrivateIpAddresses", "InternalError", all_pods_go),
        ("unassign", "eni", "attached", "attached", "unassign"),
        before=many_singles,
    ),
    Way(
        "unassigned by hand",
        by_address(warm=2),
        unassigned_meanwhile,
        (*START, "available", "assign", "attached"),
        (*FOUND, *GUARD, *UNGUARD),
        before=many_singles_and_no_daemon,
        since=3,
    ),
    Way(
        "security groups",
        WARM,
        groups_change,
        ("set_groups",),
        before=a_second_eni,
        wrong=other_groups,
    ),
    # Not here any more
    Way(
        "removed",
        WARM,
        all_pods_go,
        ("eni", "detach", "delete"),
        (*CUT, *UNRULED, *UNGUARD),
        before=a_second_eni,
    ),
    Way(
        "kept",
        WARM,
        refused("DetachNetworkInterface", "UnauthorizedOperation", all_pods_go),
        ("eni", "detach", "eni", "detach", "delete"),
        before=a_second_eni,
    ),
    Way("kept for a pod", WARM, pods_go_and_come, ("eni",), before=a_second_eni),
    Way(
        "removed, at last",
        WARM,
        allowed_again,
        (*TAKEN_UP, "subnets", "available", "delete"),
        before=detached_and_not_deleted,
    ),
    Way(
        "detached by hand",
        WARM,
        detached_by_hand,
        ("attached", *GROW, "attached", "eni", "eni", "delete"),
        before=a_second_eni,
    ),
    Way(
        "disowned",
        WARM,
        nobody_manages_it,
        ("attached", "attached"),
        (*UNRULED, *UNGUARD),
        before=a_second_eni,
    ),
    Way("swept", by_address(warm=2), restart, (*START, *SWEEP), before=a_leak, since=3),
)
