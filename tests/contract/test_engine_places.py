"""The daemon with real boto3 against the embedded EC2: what it asks for, where, and as whom."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from eni.model import SubnetId
from ipamd.intents import CLUSTER_TAG, INSTANCE_TAG, OWNER_TAG
from ipamd.layers import read_settings
from ipamd.places import SUBNETS_SECONDS
from ipamd.settings import Settings
from ipamd.subnets import CLUSTER_TAG_PREFIX, ROLE_TAG, Candidate
from tests.contract.node_world import WARM, Make, Node, said

PREFIXES = Settings(prefix_delegation=True)
WARM_PREFIX = Settings(prefix_delegation=True, demand=False, warm_prefix_target=1)


def subnets_of(node: Node) -> list[str]:
    """Return the subnet of each ENI, by device index."""
    return [eni.subnet_id for eni in node.attached()]


# Prefixes --------------------------------------------------------------------------------
def test_with_prefixes_a_burst_needs_one_call(new_node: Make) -> None:
    settings = Settings(prefix_delegation=True, add_waiting_max=110, max_pods=110)
    node = new_node(settings=settings)
    node.boot_up()
    node.calls()
    pods = node.adds(110)
    node.run(5)
    assert all(pod.address for pod in pods)
    assert node.calls() == {"AssignPrivateIpAddresses": 1}
    assert node.shape() == [112]
    node.check()


def test_a_new_eni_comes_with_its_prefixes(new_node: Make) -> None:
    node = new_node(settings=PREFIXES, instance_type="t3.small")  # 3 slots on each of 3 ENIs
    node.boot_up()
    node.calls()
    node.adds(60)
    node.run(5)
    calls = node.calls()
    assert calls["AssignPrivateIpAddresses"] == 1
    assert calls["CreateNetworkInterface"] == calls["AttachNetworkInterface"] == 1
    assert node.shape() == [48, 32]
    assert len(node.living) == 60
    node.check()


def test_a_prefix_that_empties_is_given_back(new_node: Make) -> None:
    node = new_node(settings=WARM_PREFIX)
    node.boot_up()
    assert node.shape() == [16]
    node.adds(17)
    node.run(20)
    assert node.shape() == [48], "two in use, one wholly free"
    node.deletes()
    node.run(400)
    assert node.shape() == [16]
    node.check()


def test_a_type_that_takes_no_prefixes_gives_single_addresses_and_says_so(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    settings = read_settings({"ENABLE_PREFIX_DELEGATION": "true", "WARM_ENI_TARGET": "2"})
    node = new_node(settings=settings, instance_type="m4.large")
    node.boot_up()
    node.adds(1)
    node.run(60)
    assert node.shape() == [9, 9], "two ENIs' worth"
    assert {block.prefixlen for block in node.held()} == {32}
    (record,) = said(caplog, "settings")
    assert record.__dict__["reason"] == (
        "ENABLE_PREFIX_DELEGATION=true has no effect: ENIs of m4.large take no prefixes, which need a"
        " Nitro instance or bare metal: single addresses serve, by WARM_ENI_TARGET=2"
    )
    node.check()


def fragmented(node: Node) -> list[str]:
    """Take an address of every aligned /28, so that no prefix is left; return whose they are."""
    blocks = node.ec2.subnet_cidr.subnets(new_prefix=28)
    return [node.ec2.occupy(node.ec2.subnet_id, str(block[10])) for block in blocks]


def test_without_aligned_blocks_singles_serve_until_there_are_some_again(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM_PREFIX, prefix=25)
    others = fragmented(node)
    node.boot_up(20)
    assert {block.prefixlen for block in node.held()} == {32}
    record = next(said(caplog, "subnet exhausted"))
    assert "InsufficientCidrBlocks" in record.__dict__["reason"]
    assert record.__dict__["why"].endswith("no CIDR of it is reserved for them)")
    pods = node.adds(2)
    node.run(5)
    assert all(pod.address for pod in pods)
    for eni_id in others[1:]:
        node.ec2.hand.delete_network_interface(NetworkInterfaceId=eni_id)
    node.run(300)
    node.adds(8)
    node.run(2000)
    assert 28 in {block.prefixlen for block in node.held()}
    assert not node.failures
    node.check()


def test_a_reservation_that_is_used_up_is_named(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM_PREFIX, prefix=26)
    first, kept, *rest = node.ec2.subnet_cidr.subnets(new_prefix=28)
    for block in (first, *rest):
        node.ec2.occupy(node.ec2.subnet_id, str(block[10]))
    reserve(node, node.ec2.subnet_id, kept)
    node.boot_up(20)
    assert node.held() == {kept}, "what is reserved for prefixes is used"
    node.adds(1)
    node.run(10)
    record = next(said(caplog, "subnet exhausted"))
    why = f"the reservations {kept} are used up"
    assert why in record.__dict__["why"]
    shown = node.daemon.status()
    assert shown["troubles"] == [f"prefixes: {record.__dict__['why']}"]
    assert (shown["trouble"], shown["modes"]) == (None, ["normal"]), "single addresses serve"
    assert {block.prefixlen for block in node.held()} == {28, 32}


def test_a_pod_that_gets_no_address_hears_why_there_is_no_prefix_either(new_node: Make) -> None:
    node = new_node(settings=WARM_PREFIX, prefix=28)
    node.ec2.create(SecondaryPrivateIpAddressCount=9)
    node.boot_up(20)
    (pod,) = node.adds(1)
    node.run(110)
    ((_, answer),) = pod.answers
    assert "InsufficientFreeAddressesInSubnet" in answer["msg"]
    assert answer["msg"].endswith("no CIDR of it is reserved for them)")
    troubles = node.daemon.status()["troubles"]
    assert [t.partition(" ")[0] for t in troubles] == ["subnet", "prefixes:"]


def test_reservations_that_come_and_go_are_heard_of_with_the_subnets(new_node: Make) -> None:
    node = new_node(settings=WARM_PREFIX, instance_type="t3.small")  # 48 addresses on an ENI
    home, other = node.ec2.subnet_id, node.ec2.add_subnet(24)
    for subnet_id in (home, other):
        node.ec2.tag(subnet_id, {ROLE_TAG: "1"})
    kept = list(node.ec2.subnets[other].subnets(new_prefix=28))[3]
    reservation = reserve(node, other, kept)

    def told() -> list[tuple[IPv4Network, ...]]:
        views = node.daemon.places.subnets.views
        return [views[SubnetId(subnet_id)].reservations for subnet_id in (home, other)]

    node.boot_up()
    assert told() == [(), (kept,)]
    node.ec2.hand.delete_subnet_cidr_reservation(SubnetCidrReservationId=reservation)
    new = list(node.ec2.subnet_cidr.subnets(new_prefix=28))[5]
    reserve(node, home, new)
    node.run(SUBNETS_SECONDS)
    node.calls()
    assert told() == [(), (kept,)], "nobody polls"
    node.adds(40)
    node.run(20)
    assert len(node.attached()) == 2
    assert told() == [(new,), ()]
    assert node.calls()["GetSubnetCidrReservations"] == 2, "one for each"


def reserve(node: Node, subnet_id: str, cidr: IPv4Network) -> str:
    """Keep a block of a subnet for prefixes; return the reservation's id."""
    made = node.ec2.hand.create_subnet_cidr_reservation(
        SubnetId=subnet_id, Cidr=str(cidr), ReservationType="prefix"
    )
    return made["SubnetCidrReservation"]["SubnetCidrReservationId"]


# Subnets ---------------------------------------------------------------------------------
def test_a_tagged_subnet_with_more_room_takes_the_new_enis(new_node: Make) -> None:
    node = new_node(settings=WARM, prefix=26)
    other = node.ec2.add_subnet(24)
    node.ec2.tag(other, {ROLE_TAG: "1"})
    node.ec2.add_subnet(24)  # without a tag it is not for pods
    node.boot_up()
    node.adds(10)
    node.run(20)
    assert subnets_of(node) == [node.ec2.subnet_id, other, other]
    node.check()


def test_a_subnet_that_is_full_is_followed_by_the_next(new_node: Make) -> None:
    node = new_node(settings=WARM, prefix=26)
    first, second = node.ec2.add_subnet(27), node.ec2.add_subnet(28)
    for subnet_id in (first, second):
        node.ec2.tag(subnet_id, {ROLE_TAG: "1"})
    node.ec2.tag(node.ec2.subnet_id, {ROLE_TAG: "0"})
    node.boot_up(20)
    assert subnets_of(node) == [node.ec2.subnet_id, first]
    assert node.shape() == [0, 9], "the node's own subnet is not for pods"
    taken = node.ec2.plane.backend.get_subnet(first).available_ip_address_count
    node.ec2.create(first, SecondaryPrivateIpAddressCount=taken - 1)
    node.adds(1)
    node.run(20)
    assert subnets_of(node) == [node.ec2.subnet_id, first, second]
    assert len(node.living) == 1
    node.check()


def test_a_subnet_tagged_0_keeps_what_pods_have_and_gives_nothing_new(new_node: Make) -> None:
    node = new_node(settings=WARM)
    other = node.ec2.add_subnet(24)
    node.boot_up(20)
    (early,) = node.adds(1)
    node.run(20)
    node.ec2.tag(node.ec2.subnet_id, {ROLE_TAG: "0"})
    node.ec2.tag(other, {ROLE_TAG: "1"})
    node.run(400)
    node.restart(20)
    late = node.adds(5)
    node.run(20)
    assert early.address in node.ec2.subnet_cidr
    assert all(pod.address in node.ec2.subnets[other] for pod in late)
    node.run(900)
    assert node.shape()[0] == 1, "what nobody uses of it goes back"
    node.check()


def test_a_subnet_of_another_cluster_is_left_alone(new_node: Make) -> None:
    settings = Settings(demand=False, warm_eni_target=1, cluster_name="blue")
    node = new_node(settings=settings)
    others, ours = node.ec2.add_subnet(24), node.ec2.add_subnet(25)
    node.ec2.tag(others, {ROLE_TAG: "1", f"{CLUSTER_TAG_PREFIX}green": "shared"})
    node.ec2.tag(ours, {ROLE_TAG: "1", f"{CLUSTER_TAG_PREFIX}blue": "shared"})
    node.boot_up()
    node.adds(10)
    node.run(20)
    assert others not in subnets_of(node)
    node.check()


def test_without_discovery_only_the_nodes_own_subnet_serves(new_node: Make) -> None:
    settings = Settings(demand=False, warm_eni_target=1, subnet_discovery=False)
    node = new_node(settings=settings, prefix=26)
    node.ec2.tag(node.ec2.add_subnet(24), {ROLE_TAG: "1"})
    node.boot_up()
    node.adds(10)
    node.run(20)
    assert set(subnets_of(node)) == {node.ec2.subnet_id}
    assert "DescribeSubnets" not in node.calls()
    node.check()


def test_a_subnet_that_was_deleted_is_followed_by_the_next(new_node: Make) -> None:
    node = new_node(settings=WARM, prefix=26)
    gone = node.ec2.add_subnet(24)
    node.ec2.tag(gone, {ROLE_TAG: "1"})
    node.boot_up()
    node.adds(1)
    node.run(20)
    assert subnets_of(node)[1] == gone
    for pod in node.living:
        node.delete(pod.name)
    node.run(600)
    assert len(node.attached()) == 1
    node.ec2.hand.delete_subnet(SubnetId=gone)
    node.adds(9)
    node.run(600)
    assert set(subnets_of(node)) == {node.ec2.subnet_id}
    assert len(node.living) == 9
    node.check()


# Custom networking -------------------------------------------------------------------------
CUSTOM = Settings(demand=False, warm_eni_target=1, custom_networking=True)


def test_with_custom_networking_pods_are_in_the_subnets_of_eniconfigs(new_node: Make) -> None:
    node = new_node(settings=CUSTOM)
    first, second = node.ec2.add_subnet(28), node.ec2.add_subnet(24)
    group = node.ec2.group("pods")
    node.start()
    node.daemon.by_cluster.hear_configs(
        (Candidate(first, (group,), "a"), Candidate(second, (), "b")), ""
    )
    node.run(60)
    assert subnets_of(node) == [node.ec2.subnet_id, first]
    assert node.attached()[1].security_groups == (group,)
    pods = node.adds(12)
    node.run(300)
    assert subnets_of(node) == [node.ec2.subnet_id, first, second], "the first has no room for two"
    cidrs = [node.ec2.subnets[s] for s in (first, second)]
    assert all(any(p.address in cidr for cidr in cidrs) for p in pods if p.address)
    assert len(node.living) == 12
    assert node.shape()[0] == 0, "the primary ENI has no pods"


def test_without_an_eniconfig_nothing_grows_and_its_readers_sentence_is_shown(
    new_node: Make,
) -> None:
    node = new_node(settings=CUSTOM)
    node.start()
    node.daemon.by_cluster.hear_configs((), "ENIConfig us-east-1a is not there")
    node.run(60)
    (pod,) = node.adds(1)
    node.run(110)
    assert len(node.attached()) == 1
    assert node.daemon.status()["troubles"] == ["eniconfig: ENIConfig us-east-1a is not there"]
    ((_, answer),) = pod.answers
    assert "ENIConfig us-east-1a is not there" in answer["msg"]


def test_an_eniconfig_of_a_subnet_elsewhere_is_said(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=CUSTOM)
    node.start()
    node.daemon.by_cluster.hear_configs(
        (Candidate(SubnetId("subnet-0123456789abcdef0"), (), "a"),), ""
    )
    node.run(60)
    (record,) = said(caplog, "eniconfig not used")
    words = record.__dict__["reason"]
    assert words.startswith("ENIConfig a names subnet-0123456789abcdef0, which EC2 does not know; ")
    assert words.endswith("the node gets no ENI for pods")
    assert node.daemon.status()["troubles"] == [f"eniconfig: {words}"]
    assert len(node.attached()) == 1


def test_an_empty_eni_makes_room_at_once_for_the_one_that_pods_wait_for(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    early = node.adds(10)
    node.run(20)
    assert len(node.attached()) == 3, "all that an m5.large may have"
    other = node.ec2.add_subnet(24)
    node.hold(CUSTOM)
    node.restart()
    node.daemon.by_cluster.hear_configs((Candidate(other, (), "a"),), "")
    (late,) = node.adds(1)
    node.run(30)
    assert late.address is not None
    assert late.address in node.ec2.subnets[other]
    assert all(pod.address for pod in early)
    node.check()


# Security groups ---------------------------------------------------------------------------
def test_enis_get_the_groups_that_the_primary_has_now(new_node: Make) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(20)
    node.restart(30)
    group = node.ec2.group("new")
    node.ec2.groups(node.ec2.primary_id, group)
    node.run(60)
    assert [eni.security_groups for eni in node.attached()] == [(group,), (group,)]
    node.adds(9)
    node.run(60)
    assert [eni.security_groups for eni in node.attached()] == [(group,)] * 3
    node.check()


def test_new_enis_of_an_eniconfig_without_groups_get_those_that_the_primary_has_now(
    new_node: Make,
) -> None:
    node = new_node(settings=CUSTOM)
    node.start()
    node.daemon.by_cluster.hear_configs((Candidate(node.ec2.subnet_id, (), "a"),), "")
    node.run(60)
    (former,) = node.attached()[1].security_groups
    group = node.ec2.group("new")
    node.ec2.groups(node.ec2.primary_id, group)
    node.run(60)
    node.adds(12)
    node.run(60)
    _, early, *late = (eni.security_groups for eni in node.attached())
    assert early == (former,), "what an ENI has is left to whoever set it"
    assert late == [(group,)]


def test_groups_that_are_refused_are_asked_for_again(
    new_node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node(settings=WARM)
    node.boot_up()
    node.adds(1)
    node.run(20)
    node.restart(30)
    group = node.ec2.group("new")
    fail = node.ec2.plane.faults.fail
    fail("ModifyNetworkInterfaceAttribute", "UnauthorizedOperation", times=2, status=403)
    node.ec2.groups(node.ec2.primary_id, group)
    node.run(900)
    (failed,) = said(caplog, "flight failed")
    assert failed.__dict__["flight"] == f"groups {node.attached()[1].id}"
    assert node.attached()[1].security_groups == (group,)
    assert not node.failures
    node.check()


# Tags --------------------------------------------------------------------------------------
def test_enis_carry_our_tags_the_clusters_and_the_operators(new_node: Make) -> None:
    settings = Settings(
        demand=False, warm_eni_target=1, cluster_name="blue", additional_eni_tags={"team": "net"}
    )
    node = new_node(settings=settings)
    node.boot_up()
    node.adds(1)
    node.run(20)
    tags = dict(node.attached()[1].tags)
    expected = {
        "team": "net",
        CLUSTER_TAG: "blue",
        OWNER_TAG: "amazon-vpc-cni",
        INSTANCE_TAG: node.ec2.identity.instance_id,
    }
    assert tags | expected == tags
    node.check()
