"""The embedded VPC's ways and walls: prefixes, IPv6, private subnets, groups, names of links."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from socket import AF_INET, AF_INET6, SOCK_DGRAM
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.talk import talk

if TYPE_CHECKING:
    from vpclab import EmbeddedVPC
    from vpclab.node import Node
    from vpclab.vpc import VpcEni


@pytest.fixture(scope="module")
def town() -> Iterator[EmbeddedVPC]:
    """A VPC of both families, whose groups are EC2's own, with links of arbitrary names."""
    from vpclab.vpc import EmbeddedVPC as Vpc  # noqa: PLC0415 - moto takes a second to import
    from vpclab.vpc import arbitrary  # noqa: PLC0415 - as above

    with Vpc(ipv6=True, open_groups=False, ifname=arbitrary) as vpc:
        yield vpc


@pytest.fixture(scope="module")
def open_group(town: EmbeddedVPC) -> str:
    """A group that lets everyone in."""
    group_id: str = town.ec2.create_security_group(
        GroupName="open", Description="d", VpcId=town.vpc_id
    )["GroupId"]
    allow(town, group_id, {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                           "Ipv6Ranges": [{"CidrIpv6": "::/0"}]})  # fmt: skip
    return group_id


@pytest.fixture(scope="module")
def places(town: EmbeddedVPC, open_group: str) -> dict[str, Node]:
    """Two public nodes and a private one, all of an open group."""
    public = [town.add_subnet(f"10.0.{n}.0/24", f"us-east-1{z}") for n, z in ((1, "a"), (2, "b"))]
    private = town.add_subnet("10.0.3.0/24", "us-east-1a", private=True)
    groups = [open_group]
    return {
        "a": town.launch_node("a", "m5.large", public[0], public=True, groups=groups),
        "b": town.launch_node("b", "m5.large", public[1], public=True, groups=groups),
        "private": town.launch_node("private", "m5.large", private, groups=groups),
    }


def allow(vpc: EmbeddedVPC, group_id: str, *permissions: Any) -> None:
    vpc.ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=list(permissions))


def primary(vpc: EmbeddedVPC, node: Node) -> VpcEni:
    (eni,) = [e for e in vpc.enis() if e.instance_id == node.instance_id and e.device_index == 0]
    return eni


@contextmanager
def having(node: Node, address: object) -> Iterator[None]:
    """Let the node itself have *address*, on lo, as a pod on it would."""
    length = 128 if ":" in str(address) else 32
    node.run(["ip", "addr", "add", f"{address}/{length}", "dev", "lo", "nodad"])
    yield
    node.run(["ip", "addr", "del", f"{address}/{length}", "dev", "lo"])


@contextmanager
def dropped(vpc: EmbeddedVPC, **causes: int) -> Iterator[None]:
    """Expect drops for these causes, at least so many, and for no other."""
    vpc.reset_drops()
    yield
    seen = {cause: count for cause, count in vpc.drops().items() if count}
    assert seen.keys() == causes.keys(), seen
    assert all(seen[cause] >= count for cause, count in causes.items()), seen


# Links


@pytest.mark.row("names of links")
def test_a_link_may_have_any_name_and_is_found_by_its_mac(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    links = places["a"].run(["ip", "-br", "link"]).stdout
    assert "ens5" not in links
    assert primary(town, places["a"]).mac in links


# Prefixes


@pytest.mark.row("delegated prefix")
def test_every_address_of_a_prefix_is_delivered(town: EmbeddedVPC, places: dict[str, Node]) -> None:
    a, b = places["a"], places["b"]
    eni = primary(town, b)
    answer = town.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni.id, Ipv4PrefixCount=1)
    prefix = IPv4Network(answer["AssignedIpv4Prefixes"][0]["Ipv4Prefix"])
    for address in (prefix[0], prefix[7], prefix[15]):
        with having(b, address), dropped(town):
            assert talk(a, b, address) == str(a.primary)
            assert talk(b, a, a.primary, source=address) == str(address)
    town.ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni.id, Ipv4Prefixes=[str(prefix)])
    with having(b, prefix[7]), dropped(town, unassigned=1):
        assert talk(a, b, prefix[7]) is None
    assert town.check() == []


# IPv6


def address6(vpc: EmbeddedVPC, node: Node) -> IPv6Address:
    return primary(vpc, node).ipv6[0]


@pytest.mark.row("IPv6")
def test_ipv6_goes_between_nodes_and_to_the_internet_and_back(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    a, b = places["a"], places["b"]
    own = str(address6(town, a))
    with dropped(town):
        assert talk(a, b, address6(town, b)) == own
        assert talk(a, town.internet, town.internet.address6) == own
        assert talk(town.internet, a, own) == str(town.internet.address6)


@pytest.mark.row("IPv6", "delegated prefix")
def test_an_ipv6_prefix_is_delivered_and_others_are_no_source(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    a, b = places["a"], places["b"]
    answer = town.ec2.assign_ipv6_addresses(
        NetworkInterfaceId=primary(town, b).id, Ipv6PrefixCount=1
    )
    prefix = answer["AssignedIpv6Prefixes"][0]
    pod = IPv6Address(int(IPv6Address(prefix.split("/")[0])) + 0xABCD)
    with having(b, pod), dropped(town):
        assert talk(a, b, pod) == str(address6(town, a))
        assert talk(b, a, address6(town, a), source=pod) == str(pod)
    with having(a, pod), dropped(town, spoofed_ip=1):
        assert talk(a, town.internet, town.internet.address6, source=pod) is None


@pytest.mark.row("IPv6")
def test_an_ipv6_address_that_nobody_owns_is_silence(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    nobody = IPv6Address(int(address6(town, places["b"])) + 0x1234)
    with dropped(town, unassigned=1):
        assert talk(places["a"], places["b"], nobody, at="::") is None


@pytest.mark.row("IPv6")
def test_the_router_is_no_hop_of_ipv6_either(town: EmbeddedVPC, places: dict[str, Node]) -> None:
    a, b = places["a"], places["b"]
    with b.socket(AF_INET6, SOCK_DGRAM) as ear, a.socket(AF_INET6, SOCK_DGRAM) as mouth:
        ear.bind((str(address6(town, b)), 4242))
        ear.setsockopt(41, 51, 1)  # IPPROTO_IPV6, IPV6_RECVHOPLIMIT
        ear.settimeout(2)
        mouth.setsockopt(41, 16, 7)  # IPV6_UNICAST_HOPS
        mouth.sendto(b"x", (str(address6(town, b)), 4242))
        _, ancillary, _, _ = ear.recvmsg(10, 100)
    assert [int.from_bytes(data[:4], "little") for *_, data in ancillary] == [7]


# Ways out


@pytest.mark.row("NAT gateway")
def test_a_private_node_is_seen_as_its_nat_gateway_and_is_not_found(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    private = places["private"]
    (gateway,) = town.ec2.describe_nat_gateways()["NatGateways"]
    public = gateway["NatGatewayAddresses"][0]["PublicIp"]
    with dropped(town):
        assert talk(private, town.internet, town.internet.address) == public
        assert talk(private, places["a"], places["a"].primary) == str(private.primary)
    assert talk(town.internet, private, public, at=private.primary) is None


@pytest.mark.row("egress-only gateway")
def test_an_egress_only_gateway_lets_nothing_begin_from_outside(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    private, own = places["private"], str(address6(town, places["private"]))
    with dropped(town):
        assert talk(private, town.internet, town.internet.address6) == own
    with dropped(town, no_way=1):
        assert talk(town.internet, private, own) is None


@pytest.mark.row("route tables")
def test_a_subnet_without_a_route_is_cut_off_and_another_table_opens_it(
    town: EmbeddedVPC, places: dict[str, Node], open_group: str
) -> None:
    subnet_id = town.add_subnet("10.0.4.0/24", "us-east-1a")
    table = town.ec2.create_route_table(VpcId=town.vpc_id)["RouteTable"]["RouteTableId"]
    associated = town.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet_id)
    node = town.launch_node("island", "m5.large", subnet_id, public=True, groups=[open_group])
    with dropped(town, no_way=1):
        assert talk(node, town.internet, town.internet.address) is None
    with dropped(town):
        assert talk(node, places["a"], places["a"].primary) == str(node.primary)
    town.ec2.disassociate_route_table(AssociationId=associated["AssociationId"])
    with dropped(town):
        assert talk(node, town.internet, town.internet.address) == str(town.public_address(node))
    node.terminate()


@pytest.mark.row("pod to internet")
def test_a_public_address_is_reached_from_inside_too(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    a, b = places["a"], places["b"]
    with dropped(town):
        seen = talk(a, b, town.public_address(b), at=b.primary)
    assert seen == str(town.public_address(a))


@pytest.mark.row("pod to internet")
def test_an_elastic_address_moves_with_its_association(
    town: EmbeddedVPC, places: dict[str, Node]
) -> None:
    made = town.ec2.allocate_address(Domain="vpc")
    for name in ("a", "b"):
        eni = primary(town, places[name])
        answer = town.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=eni.id, SecondaryPrivateIpAddressCount=1
        )
        own = IPv4Address(answer["AssignedPrivateIpAddresses"][0]["PrivateIpAddress"])
        town.ec2.associate_address(
            AllocationId=made["AllocationId"], NetworkInterfaceId=eni.id,
            PrivateIpAddress=str(own), AllowReassociation=True,
        )  # fmt: skip
        with having(places[name], own), dropped(town):
            assert talk(town.internet, places[name], made["PublicIp"], at=own) is not None
            assert (
                talk(places[name], town.internet, town.internet.address, source=own)
                == (made["PublicIp"])
            )
    assert town.check() == []


@pytest.mark.row("pod to internet")
@pytest.mark.parametrize("begun_by", ["internet", "node"])
def test_a_conversation_follows_an_elastic_address_to_its_new_node(
    town: EmbeddedVPC, places: dict[str, Node], open_group: str, begun_by: str
) -> None:
    subnet_id = primary(town, places["a"]).subnet_id
    nodes = [
        town.launch_node(name, "m5.large", subnet_id, groups=[open_group])
        for name in ("former", "present")
    ]
    made, outside = town.ec2.allocate_address(Domain="vpc"), str(town.internet.address)
    with contextlib.ExitStack() as exits:
        far = exits.enter_context(town.internet.socket(AF_INET, SOCK_DGRAM))
        ears = [exits.enter_context(node.socket(AF_INET, SOCK_DGRAM)) for node in nodes]
        far.bind((outside, 5353))
        for ear, node in zip(ears, nodes, strict=True):
            ear.bind((str(node.primary), 4343))
            ear.settimeout(2)
        for ear, node in zip(ears, nodes, strict=True):
            town.ec2.associate_address(
                AllocationId=made["AllocationId"], AllowReassociation=True,
                NetworkInterfaceId=primary(town, node).id,
            )  # fmt: skip
            if begun_by == "node":
                far.settimeout(2)
                ear.sendto(b"first", (outside, 5353))
                assert far.recvfrom(10) == (b"first", (made["PublicIp"], 4343))
            far.sendto(b"hello", (made["PublicIp"], 4343))
            assert ear.recv(10) == b"hello"
    for node in nodes:
        node.terminate()


# Groups


@pytest.fixture
def guarded(town: EmbeddedVPC, places: dict[str, Node]) -> Iterator[tuple[Node, str, VpcEni]]:
    """Node b with a group of its own that allows nothing yet."""
    eni = primary(town, places["b"])
    before = [g["GroupId"] for g in described(town, eni.id)["Groups"]]
    group_id = town.ec2.create_security_group(
        GroupName="guarded", Description="d", VpcId=town.vpc_id
    )["GroupId"]
    town.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni.id, Groups=[group_id])
    yield places["b"], group_id, eni
    town.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni.id, Groups=before)
    town.ec2.delete_security_group(GroupId=group_id)


def described(vpc: EmbeddedVPC, eni_id: str) -> Any:
    return vpc.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni_id])["NetworkInterfaces"][0]


@pytest.mark.row("security groups")
def test_nothing_comes_in_that_no_group_allows_and_replies_do(
    town: EmbeddedVPC, places: dict[str, Node], guarded: tuple[Node, str, VpcEni]
) -> None:
    node, _, _ = guarded
    with dropped(town, group=1):
        assert talk(places["a"], node, node.primary) is None
    with dropped(town):  # what it begins itself is answered: groups remember
        assert talk(node, places["a"], places["a"].primary) == str(node.primary)


@pytest.mark.row("security groups")
@pytest.mark.parametrize(
    ("permission", "port", "comes"),
    [
        ({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 90}, 80, True),
        ({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 90}, 91, False),
        ({"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535}, 80, False),
        ({"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}, 4711, True),
        ({"IpProtocol": "-1"}, 80, True),
    ],
)
def test_a_group_allows_what_its_rules_say(
    town: EmbeddedVPC,
    places: dict[str, Node],
    guarded: tuple[Node, str, VpcEni],
    permission: dict[str, Any],
    port: int,
    comes: bool,  # noqa: FBT001 - a case of the table
) -> None:
    node, group_id, _ = guarded
    allow(town, group_id, {**permission, "IpRanges": [{"CidrIp": "10.0.1.0/24"}]})
    assert (talk(places["a"], node, node.primary, port) is not None) is comes
    assert talk(places["private"], node, node.primary, port) is None  # another subnet


@pytest.mark.row("security groups")
def test_a_group_names_another_and_follows_its_members(
    town: EmbeddedVPC, places: dict[str, Node], guarded: tuple[Node, str, VpcEni]
) -> None:
    node, group_id, _ = guarded
    friends = town.ec2.create_security_group(
        GroupName="friends", Description="d", VpcId=town.vpc_id
    )["GroupId"]
    allow(town, group_id, {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80,
                           "UserIdGroupPairs": [{"GroupId": friends}]})  # fmt: skip
    a = places["a"]
    eni = primary(town, a)
    before = [g["GroupId"] for g in described(town, eni.id)["Groups"]]
    assert talk(a, node, node.primary) is None
    town.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=eni.id, Groups=[*before, friends]
    )
    assert talk(a, node, node.primary) == str(a.primary)
    assert talk(a, node, address6(town, node)) == str(address6(town, a))
    town.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni.id, Groups=before)
    assert talk(a, node, node.primary) is None


@pytest.mark.row("security groups")
def test_a_rule_that_is_revoked_closes_the_door(
    town: EmbeddedVPC, places: dict[str, Node], guarded: tuple[Node, str, VpcEni]
) -> None:
    node, group_id, _ = guarded
    permission = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    allow(town, group_id, permission)
    assert talk(places["a"], node, node.primary) is not None
    town.ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=[permission])
    with dropped(town, group=1):
        assert talk(places["a"], node, node.primary) is None


@pytest.mark.row("security groups")
def test_what_a_node_may_send_is_its_group_s_word_too(
    town: EmbeddedVPC, places: dict[str, Node], guarded: tuple[Node, str, VpcEni]
) -> None:
    node, group_id, _ = guarded
    town.ec2.revoke_security_group_egress(
        GroupId=group_id,
        IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    )
    with dropped(town, group=1):
        assert talk(node, places["a"], places["a"].primary) is None


@pytest.mark.row("security groups")
def test_the_default_group_knows_its_own_only(town: EmbeddedVPC) -> None:
    subnet_id = town.add_subnet("10.0.5.0/24", "us-east-1a")
    one, other = (
        town.launch_node(name, "m5.large", subnet_id, public=True) for name in ("one", "other")
    )
    with dropped(town):
        assert talk(one, other, other.primary) == str(one.primary)
    with dropped(town, group=1):
        assert talk(town.internet, one, town.public_address(one), at=one.primary) is None
    one.terminate()
    other.terminate()
    assert town.check() == []
