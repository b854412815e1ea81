"""Who may call EC2: signatures, the managed CNI policy, ours, and what a denial says."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from moto.iam.aws_managed_policies import aws_managed_policies_data

from tests.contract.cloud import REGION, Cloud, refused
from tests.contract.iam_place import (
    ARN,
    NODE_TAG,
    Place,
    actions,
    called,
    clear,
    live,
    tags_of,
    without,
    without_statement,
)
from vpclab.ec2 import ACCOUNT
from vpclab.ec2.credentials import Call, Key, Keys, SignatureError
from vpclab.enid import POLICY, node_policy
from vpclab.iam import PolicyError
from vpclab.metadata import ROLE

pytestmark = pytest.mark.row("IAM")

IN_A_VPC = {"CreateInAnySubnet", "SetAnyGroups", "ItsOwnEnis", "PrimaryEnis"}
"""The statements that docs/iam.md tells to keep within a VPC."""


def managed_cni_policy() -> dict[str, Any]:
    """Return AmazonEKS_CNI_Policy as AWS publishes it, out of what moto ships."""
    mark = '"AmazonEKS_CNI_Policy":'
    start = aws_managed_policies_data.index(mark) + len(mark)
    policy: dict[str, Any] = json.JSONDecoder().raw_decode(aws_managed_policies_data, start)[0]
    document: dict[str, Any] = policy["Document"]
    return document


def with_adoption(policy: dict[str, Any]) -> dict[str, Any]:
    """Return *policy* with the statement that docs/iam.md offers."""
    text = (POLICY.parents[2] / "docs" / "iam.md").read_text()
    (offered,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    return {**policy, "Statement": [*policy["Statement"], json.loads(offered)]}


@pytest.fixture(scope="module")
def built(cloud: Cloud) -> Place:
    return Place(cloud)


@pytest.fixture
def place(built: Place) -> Iterator[Place]:
    """Give the place with nobody restricted, and undo whom a test restricts."""
    yield built
    built.access.unrestrict()


# Who calls --------------------------------------------------------------------------------------
def test_without_a_policy_anyone_may_do_everything(place: Place) -> None:
    stranger = Key("AKIASTRANGER", "whatever", "", "")
    assert place.client(stranger).describe_vpcs()["Vpcs"]


@pytest.mark.parametrize(
    "changes",
    [{"secret": "wrong"}, {"id": "AKIANOBODY"}, {"token": "none of ours"}],
    ids=["wrong-secret", "unknown-key", "wrong-token"],
)
def test_a_caller_whom_nobody_knows_is_refused(place: Place, changes: dict[str, Any]) -> None:
    key = place.access.add_user("ops", node_policy())
    assert place.client(key).describe_subnets()["Subnets"]
    with refused("AuthFailure") as caught:
        place.client(replace(key, **changes)).describe_subnets()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 401


def test_a_call_that_is_not_signed_is_refused(place: Place) -> None:
    place.access.add_user("ops", node_policy())
    ec2 = boto3.client(
        "ec2", region_name=REGION, endpoint_url=place.url, config=Config(signature_version=UNSIGNED)
    )
    with refused("AuthFailure", "not signed"):
        ec2.describe_subnets()


@pytest.mark.parametrize("restricted", [True, False], ids=["under-a-policy", "for-anyone"])
def test_a_call_for_another_region_is_refused(place: Place, *, restricted: bool) -> None:
    key = place.access.keys.of_instance(place.a, ROLE)
    if restricted:
        place.access.restrict(f"role/{ROLE}", node_policy())
    with refused("AuthFailure", "not 'eu-west-1'"):
        place.client(key, region="eu-west-1").create_vpc(CidrBlock="10.0.0.0/16")


def test_there_is_one_ec2_whatever_region_and_account_a_caller_names(place: Place) -> None:
    ec2 = place.node(place.a, node_policy())

    def name_others(request: Any, **_: Any) -> None:
        request.headers["User-Agent"] = "region/eu-west-1"
        request.headers["x-moto-account-id"] = "000000000000"

    ec2.meta.events.register("before-send.ec2", name_others)
    with refused("UnauthorizedOperation"):
        ec2.create_vpc(CidrBlock="10.0.0.0/16")
    (subnet,) = ec2.describe_subnets(SubnetIds=[place.subnet_id])["Subnets"]
    assert subnet["OwnerId"] == ACCOUNT


def test_a_call_at_no_time_is_refused(place: Place) -> None:
    key = place.access.add_user("ops", node_policy())
    headers = {"host": "ec2", "x-amz-date": "today"}
    request = AWSRequest("POST", "http://ec2/", headers, b"")
    request.context["timestamp"] = "today"
    signer = SigV4Auth(Credentials(key.id, key.secret), "ec2", REGION)
    signature = signer.signature(
        signer.string_to_sign(request, signer.canonical_request(request)), request
    )
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key.id}/20260105/{REGION}/ec2/aws4_request,"
        f" SignedHeaders=host;x-amz-date, Signature={signature}"
    )
    with pytest.raises(SignatureError, match="no time"):
        place.access.caller(Call("POST", "/", headers, b""))


def test_who_has_no_policy_is_an_administrator(place: Place) -> None:
    place.access.add_user("ops", node_policy())
    assert place.cloud.ec2.describe_vpcs()["Vpcs"]


def test_a_role_renews_its_keys_hourly_and_the_old_ones_expire() -> None:
    now = dt.datetime(2026, 1, 5, 18, 2, tzinfo=dt.UTC)
    keys = Keys(ACCOUNT, lambda: now)
    first = keys.of_instance("i-1", "node")
    assert (first.arn, first.instance_id) == (
        f"arn:aws:sts::{ACCOUNT}:assumed-role/node/i-1", "i-1"
    )  # fmt: skip
    now += dt.timedelta(minutes=57)
    assert keys.of_instance("i-1", "node") == first
    assert keys.of_instance("i-2", "node") != first
    now += dt.timedelta(minutes=2)
    assert keys.of_instance("i-1", "node") != first


def test_an_old_signature_and_an_old_key_are_expired(place: Place) -> None:
    place.access.restrict(f"role/{ROLE}", node_policy())
    key = place.access.keys.of_instance(place.a, ROLE)
    sent: list[Call] = []
    ec2 = place.client(key)
    ec2.meta.events.register("before-send.ec2", lambda request, **_: sent.append(_call(request)))
    ec2.describe_subnets()
    now = dt.datetime.now(dt.UTC)
    for later, code in (
        (dt.timedelta(0), None),
        (dt.timedelta(minutes=6), "RequestExpired"),
        (-dt.timedelta(minutes=6), "RequestExpired"),
    ):
        keys = Keys(ACCOUNT, lambda later=later: now + later)  # type: ignore[misc]  # bound now
        keys.add(key)
        if code is None:
            assert keys.owner(sent[0]) == key
        else:
            with pytest.raises(SignatureError) as caught:
                keys.owner(sent[0])
            assert caught.value.code == code
    keys = Keys(ACCOUNT, lambda: now)
    keys.add(replace(key, until=now - dt.timedelta(seconds=1)))
    with pytest.raises(SignatureError, match="expired"):
        keys.owner(sent[0])


def _call(request: Any) -> Call:
    def text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    headers = {name.lower(): text(value) for name, value in request.headers.items()}
    host = request.url.removeprefix("http://").partition("/")[0]
    return Call(request.method, "/", {**headers, "host": host}, request.body)


# What the managed policy allows -----------------------------------------------------------------
def test_the_managed_cni_policy_allows_what_a_cni_does(place: Place) -> None:
    ec2 = place.node(place.a, managed_cni_policy())
    live(ec2, place, place.a, reservations=False)
    ec2.describe_instances()
    ec2.describe_tags()
    eni_id = place.cloud.create(place.subnet_id)
    ec2.create_tags(Resources=[eni_id], Tags=[{"Key": "a", "Value": "b"}])


@pytest.mark.parametrize(
    ("method", "wish"),
    [
        ("create_vpc", {"CidrBlock": "10.9.0.0/16"}),
        ("describe_vpcs", {}),
        ("get_subnet_cidr_reservations", {"SubnetId": "subnet-0"}),
        ("terminate_instances", {"InstanceIds": ["A"]}),
        ("assign_ipv6_addresses", {"NetworkInterfaceId": "eni-0", "Ipv6AddressCount": 1}),
        ("create_tags", {"Resources": ["A"], "Tags": [{"Key": "a", "Value": "b"}]}),
        ("delete_tags", {"Resources": ["eni-0"], "Tags": [{"Key": "a"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_and_nothing_else(place: Place, method: str, wish: dict[str, Any]) -> None:
    ec2 = place.node(place.a, managed_cni_policy())
    named = json.loads(json.dumps(wish).replace('"A"', f'"{place.a}"'))
    with refused("UnauthorizedOperation"):
        getattr(ec2, method)(**named)


# What ours allows -------------------------------------------------------------------------------
def test_the_shipped_policy_allows_what_our_daemon_does(place: Place) -> None:
    live(place.node(place.a, node_policy()), place, place.a)


def test_the_shipped_policy_has_the_actions_that_our_client_calls_and_no_other() -> None:
    assert called() == set(actions(node_policy()))


@pytest.mark.parametrize("action", actions(node_policy()))
def test_one_action_less_is_denied_by_its_name(place: Place, action: str) -> None:
    ec2 = place.node(place.a, without(node_policy(), action))
    with refused("UnauthorizedOperation", f"to perform: {action} on resource: "):
        live(ec2, place, place.a)
    clear(place, place.a)


@pytest.mark.parametrize("sid", [statement["Sid"] for statement in node_policy()["Statement"]])
def test_one_statement_less_is_denied(place: Place, sid: str) -> None:
    with refused("UnauthorizedOperation"):
        live(place.node(place.a, without_statement(node_policy(), sid)), place, place.a)
    clear(place, place.a)


def test_a_node_tags_its_own_enis_and_never_by_whose_they_are(place: Place) -> None:
    ec2 = place.node(place.a, node_policy())
    own = ec2.create_network_interface(
        SubnetId=place.subnet_id, TagSpecifications=tags_of(place.a)
    )["NetworkInterface"]["NetworkInterfaceId"]
    theirs, nobodys = place.born(place.b), place.born(place.a)
    ec2.create_tags(Resources=[own], Tags=[{"Key": "note", "Value": "new"}])
    for eni_id in (theirs, nobodys):
        with refused("UnauthorizedOperation", "ec2:CreateTags"):
            ec2.create_tags(Resources=[eni_id], Tags=[{"Key": "note", "Value": "new"}])
    for eni_id, key, owner in (
        (own, NODE_TAG, place.b),
        (own, NODE_TAG, place.a),
        (own, NODE_TAG.upper(), place.b),
        (nobodys, NODE_TAG, place.a),
    ):
        with refused("UnauthorizedOperation", "ec2:CreateTags"):
            ec2.create_tags(Resources=[eni_id], Tags=[{"Key": key, "Value": owner}])
    clear(place, place.a)


def test_what_another_attached_is_used_and_left_to_them(place: Place) -> None:
    ec2 = place.node(place.a, node_policy())
    foreign = place.cloud.create(place.subnet_id)
    attachment = place.cloud.attach(foreign, place.a)
    group = place.cloud.eni(foreign)["Groups"][0]["GroupId"]
    given = ec2.assign_private_ip_addresses(NetworkInterfaceId=foreign, Ipv4PrefixCount=1)
    ec2.unassign_private_ip_addresses(
        NetworkInterfaceId=foreign,
        Ipv4Prefixes=[p["Ipv4Prefix"] for p in given["AssignedIpv4Prefixes"]],
    )
    with refused("UnauthorizedOperation", "ItsOwnEnis"):
        ec2.detach_network_interface(AttachmentId=attachment)
    with refused("UnauthorizedOperation", "ItsOwnEnis"):
        ec2.modify_network_interface_attribute(NetworkInterfaceId=foreign, Groups=[group])
    place.cloud.ec2.detach_network_interface(AttachmentId=attachment)
    place.cloud.ec2.delete_network_interface(NetworkInterfaceId=foreign)


def test_the_offered_statement_lets_a_node_adopt_what_has_no_tag(place: Place) -> None:
    ec2 = place.node(place.a, with_adoption(node_policy()))
    foreign = place.cloud.create(place.subnet_id)
    attachment = place.cloud.attach(foreign, place.a)
    with refused("UnauthorizedOperation", "ec2:CreateTags"):
        ec2.create_tags(Resources=[foreign], Tags=[{"Key": NODE_TAG, "Value": place.b}])
    ec2.create_tags(Resources=[foreign], Tags=[{"Key": NODE_TAG, "Value": place.a}])
    with refused("UnauthorizedOperation", "ec2:CreateTags"):
        ec2.create_tags(Resources=[foreign], Tags=[{"Key": NODE_TAG, "Value": place.a}])
    ec2.detach_network_interface(AttachmentId=attachment)
    ec2.delete_network_interface(NetworkInterfaceId=foreign)


def test_a_wrong_tag_is_denied_and_the_condition_is_named(place: Place) -> None:
    ec2 = place.node(place.a, node_policy())
    with refused("UnauthorizedOperation") as caught:
        ec2.create_network_interface(
            SubnetId=place.subnet_id, TagSpecifications=tags_of("i-another")
        )
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert caught.value.response["Error"]["Message"] == (
        f"You are not authorized to perform this operation. User: arn:aws:sts::{ACCOUNT}"
        f":assumed-role/{ROLE}/{place.a} is not authorized to perform:"
        f" ec2:CreateNetworkInterface on resource: {ARN}:network-interface/* because no"
        " identity-based policy allows the ec2:CreateNetworkInterface action. The lab adds:"
        " statement CreateForThisInstance allows it only if ArnLike ec2:SourceInstanceARN"
        " 'arn:aws:ec2:*:*:instance/${aws:RequestTag/node.k8s.amazonaws.com/instance_id}'"
        f" (it is '{ARN}:instance/{place.a}';"
        " ${aws:RequestTag/node.k8s.amazonaws.com/instance_id} is 'i-another')."
    )
    denied = [line for line in place.access.denials if "is 'i-another'" in line]
    assert len(denied) == 1
    tally = place.cloud.plane.tallies["CreateNetworkInterface"]
    assert tally.outcomes["UnauthorizedOperation"] >= 1


def test_no_tag_is_denied_too(place: Place) -> None:
    with refused("UnauthorizedOperation", "CreateForThisInstance"):
        place.node(place.a, node_policy()).create_network_interface(SubnetId=place.subnet_id)


def test_another_nodes_eni_and_another_node_are_refused(place: Place) -> None:
    theirs = place.node(place.b, node_policy()).create_network_interface(
        SubnetId=place.subnet_id, TagSpecifications=tags_of(place.b)
    )["NetworkInterface"]["NetworkInterfaceId"]
    ours = place.node(place.a, node_policy())
    own = ours.create_network_interface(
        SubnetId=place.subnet_id, TagSpecifications=tags_of(place.a)
    )["NetworkInterface"]["NetworkInterfaceId"]
    with refused("UnauthorizedOperation", "ItsOwnEnis"):
        ours.delete_network_interface(NetworkInterfaceId=theirs)
    with refused("UnauthorizedOperation", "ItsOwnEnis"):
        ours.attach_network_interface(NetworkInterfaceId=theirs, InstanceId=place.a, DeviceIndex=1)
    with refused("UnauthorizedOperation", "ThisInstance"):
        ours.attach_network_interface(NetworkInterfaceId=own, InstanceId=place.b, DeviceIndex=1)
    for eni_id in (own, theirs):
        assert place.cloud.eni(eni_id)["Status"] == "available"
        place.cloud.ec2.delete_network_interface(NetworkInterfaceId=eni_id)


def test_a_node_is_kept_in_its_vpc_as_the_document_says(place: Place) -> None:
    def within(vpc_id: str) -> dict[str, Any]:
        policy = node_policy()
        for statement in policy["Statement"]:
            if statement["Sid"] in IN_A_VPC:
                condition = statement.setdefault("Condition", {})
                condition["ArnEquals"] = {"ec2:Vpc": f"{ARN}:vpc/{vpc_id}"}
        return policy

    live(place.node(place.a, within(place.cloud.vpc_id)), place, place.a)
    with refused("UnauthorizedOperation", "CreateInAnySubnet allows it only if ArnEquals ec2:Vpc"):
        live(place.node(place.a, within("vpc-another")), place, place.a)


def test_a_user_is_no_instance(place: Place) -> None:
    """Keys from elsewhere, as of a service account, have no ec2:SourceInstanceARN."""
    ops = place.client(place.access.add_user("ops", node_policy()))
    with refused("UnauthorizedOperation", "(it is not there; ${aws:RequestTag/"):
        ops.create_network_interface(SubnetId=place.subnet_id, TagSpecifications=tags_of(place.a))


def test_what_is_not_there_is_denied_where_a_tag_is_asked_for(place: Place) -> None:
    with refused("UnauthorizedOperation", "ItsOwnEnis"):
        place.node(place.a, node_policy()).delete_network_interface(
            NetworkInterfaceId="eni-0123456789abcdef0"
        )


def test_an_explicit_deny_says_so(place: Place) -> None:
    deny = {"Sid": "NoTags", "Effect": "Deny", "Action": "ec2:CreateTags", "Resource": "*"}
    policy = managed_cni_policy()
    ec2 = place.node(place.a, {**policy, "Statement": [*policy["Statement"], deny]})
    with refused("UnauthorizedOperation", "with an explicit deny in an identity-based policy"):
        ec2.create_network_interface(SubnetId=place.subnet_id, TagSpecifications=tags_of(place.a))


def test_a_denied_call_changes_nothing(place: Place) -> None:
    free, enis = place.cloud.free(place.subnet_id), place.cloud.found()
    with refused("UnauthorizedOperation"):
        place.node(place.a, node_policy()).create_network_interface(
            SubnetId=place.subnet_id, SecondaryPrivateIpAddressCount=5
        )
    assert (place.cloud.free(place.subnet_id), place.cloud.found()) == (free, enis)


def test_a_policy_that_cannot_be_read_changes_nothing(place: Place) -> None:
    ec2 = place.node(place.a, managed_cni_policy())
    with pytest.raises(PolicyError, match="policy 2, statement 1: Effect is None"):
        place.access.restrict(f"role/{ROLE}", node_policy(), {"Statement": {"Action": "*"}})
    assert ec2.describe_tags() is not None


def test_a_denial_is_in_the_call_table(place: Place) -> None:
    before = place.cloud.plane.calls["DescribeVpcs"]
    with refused("UnauthorizedOperation", "no statement allows the action"):
        place.node(place.a, node_policy()).describe_vpcs()
    assert place.cloud.plane.calls["DescribeVpcs"] == before + 1
