"""The lab's IMDS tells what EC2's tells, and is late, short or away when it is told to be."""

from __future__ import annotations

import datetime as dt
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from eni.errors import ImdsError
from eni.imds import Imds as Client
from tests.contract.cloud import REGION, Cloud
from vpclab.ec2 import ACCOUNT
from vpclab.imds import MAX_TTL_SECONDS, Imds
from vpclab.metadata import VERSIONS, Credentials, Metadata, options_of, tree_of

MACS = "network/interfaces/macs"
A, B, NOBODY = "127.0.0.1", "127.0.0.2", "127.0.0.9"


class Lab:
    """Two instances and their IMDS; they ask from A and B. Time is *now*."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.now = cloud, 1000.0
        cloud.ec2.associate_vpc_cidr_block(VpcId=cloud.vpc_id, AmazonProvidedIpv6CidrBlock=True)
        (vpc,) = cloud.ec2.describe_vpcs(VpcIds=[cloud.vpc_id])["Vpcs"]
        self.cidr6 = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
        self.subnet_id, self.cidr = cloud.subnet()
        self.subnet_cidr6 = self.cidr6.replace("/56", "/64")
        cloud.ec2.associate_subnet_cidr_block(
            SubnetId=self.subnet_id, Ipv6CidrBlock=self.subnet_cidr6
        )
        self.a, self.b = (cloud.instance(self.subnet_id, "c5.xlarge") for _ in "ab")
        self.imds = Imds({A: self.a, B: self.b, "::1": self.a}.get, self.told, lambda: self.now)

    def told(self, instance_id: str) -> Metadata | None:
        with self.cloud.plane.lock:
            instance = self.cloud.plane.backend.get_instance(instance_id)
            if instance.state == "terminated":
                return None
            cidrs, cidrs6 = ["10.0.0.0/16", "100.64.0.0/16"], [self.cidr6]
            until = dt.datetime(2026, 1, 6, tzinfo=dt.UTC)
            keys = Credentials("ASIA", "secret", "token", until - dt.timedelta(hours=6), until)
            return Metadata(
                tree_of(
                    instance,
                    region=REGION,
                    account=ACCOUNT,
                    cidrs=cidrs,
                    cidrs6=cidrs6,
                    credentials=keys,
                ),
                options_of(instance),
            )

    def primary(self, instance_id: str) -> Any:
        """Return an instance's first ENI as it is described."""
        (eni_id,) = self.cloud.found(
            ("attachment.instance-id", instance_id), ("attachment.device-index", "0")
        )
        return self.cloud.eni(eni_id)

    def options(self, **changes: Any) -> None:
        """Change A's metadata options."""
        self.cloud.ec2.modify_instance_metadata_options(InstanceId=self.a, **changes)

    def ask(
        self, url: str, method: str, path: str, source: str = A, **headers: str
    ) -> tuple[int, str]:
        """Return status and text."""
        to = urlsplit(url)
        assert to.hostname is not None
        connection = HTTPConnection(to.hostname, to.port, timeout=5, source_address=(source, 0))
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=sent)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


class Reader:
    """Someone on an instance."""

    def __init__(self, lab: Lab, url: str, source: str = A) -> None:
        self.lab, self.url, self.source = lab, url, source

    def put(self, path: str = "/latest/api/token", ttl: str = "60", **more: str) -> tuple[int, str]:
        more = {"X-aws-ec2-metadata-token-ttl-seconds": ttl, **more}
        return self.lab.ask(self.url, "PUT", path, self.source, **more)

    def get(self, path: str, token: str | None = None) -> tuple[int, str]:
        token = self.put()[1] if token is None else token
        more = {"X-aws-ec2-metadata-token": token} if token else {}
        return self.lab.ask(self.url, "GET", path, self.source, **more)

    def lines(self, key: str) -> list[str]:
        """Return what is at a key of meta-data; it is there."""
        status, text = self.get(f"/latest/meta-data/{key}")
        assert status == 200, (key, status)
        return text.split("\n") if text else []

    def status(self, key: str) -> int:
        return self.get(f"/latest/meta-data/{key}")[0]


@pytest.fixture(scope="module")
def served(cloud: Cloud) -> Iterator[tuple[Lab, str]]:
    lab = Lab(cloud)
    with lab.imds.listen("127.0.0.1", 0).serving() as url:
        yield lab, url


@pytest.fixture
def lab(served: tuple[Lab, str]) -> Iterator[Lab]:
    """The lab; faults and options are as new afterwards."""
    lab, _ = served
    yield lab
    lab.imds.faults.clear()
    lab.options(
        HttpTokens="required", HttpEndpoint="enabled", HttpProtocolIpv6="disabled",
        InstanceMetadataTags="disabled",
    )  # fmt: skip
    lab.now += 10_000


@pytest.fixture
def a(lab: Lab, served: tuple[Lab, str]) -> Reader:
    lab.options(HttpTokens="required")
    return Reader(lab, served[1])


@pytest.fixture
def b(a: Reader) -> Reader:
    return Reader(a.lab, a.url, B)


@pytest.fixture
def second(lab: Lab) -> Iterator[Any]:
    """An ENI of A with one of everything, as it is described."""
    ec2 = lab.cloud.ec2
    eni_id = lab.cloud.create(lab.subnet_id, 2, Ipv6AddressCount=2)
    ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, Ipv4PrefixCount=1)
    ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6PrefixCount=1)
    allocation = ec2.allocate_address(Domain="vpc")["AllocationId"]
    address = str(lab.cloud.addresses(eni_id)[0])
    public = ec2.associate_address(
        AllocationId=allocation, NetworkInterfaceId=eni_id, PrivateIpAddress=address
    )
    lab.cloud.attach(eni_id, lab.a)
    lab.imds.note(lab.a)
    yield lab.cloud.eni(eni_id)
    attachment_id = lab.cloud.eni(eni_id)["Attachment"]["AttachmentId"]
    ec2.disassociate_address(AssociationId=public["AssociationId"])
    ec2.detach_network_interface(AttachmentId=attachment_id)
    ec2.delete_network_interface(NetworkInterfaceId=eni_id)


# The tree


@pytest.mark.row("IMDS: the tree")
@pytest.mark.parametrize(
    ("path", "listed"),
    [
        ("/", list(VERSIONS)),
        ("/latest", ["dynamic", "meta-data"]),
        ("/latest/dynamic", ["fws/", "instance-identity/"]),
        ("/latest/meta-data/iam", ["info", "security-credentials/"]),
        ("/latest/meta-data/iam/security-credentials/", ["node"]),
        ("/latest/meta-data/network/interfaces", ["macs/"]),
        ("/latest/meta-data/placement", ["availability-zone", "availability-zone-id", "region"]),
        ("/latest/meta-data/services/", ["domain", "partition"]),
    ],
)
def test_a_folder_is_a_list_with_and_without_a_slash(
    a: Reader, path: str, listed: list[str]
) -> None:
    for asked in {path.rstrip("/"), f"{path.rstrip('/')}/"} - {""}:
        assert a.get(asked) == (200, "\n".join(listed))


@pytest.mark.row("IMDS: the tree")
def test_meta_data_lists_what_an_instance_has(b: Reader) -> None:
    assert b.lines("") == [
        "ami-id", "ami-launch-index", "ami-manifest-path", "block-device-mapping/", "events/",
        "hostname", "iam/", "identity-credentials/", "instance-action", "instance-id",
        "instance-life-cycle", "instance-type", "local-hostname", "local-ipv4", "mac", "network/",
        "placement/", "profile", "reservation-id", "security-groups", "services/", "system",
    ]  # fmt: skip


@pytest.mark.row("IMDS: the tree")
def test_an_eni_has_one_of_everything(a: Reader, second: Any) -> None:
    mac, cidr = second["MacAddress"], a.lab.cidr
    first = second["PrivateIpAddresses"][0]
    public = first["Association"]["PublicIp"]
    group = second["Groups"][0]
    wanted = {
        "device-number": ["1"],
        "interface-id": [second["NetworkInterfaceId"]],
        "ipv4-associations": [public],
        f"ipv4-associations/{public}": [first["PrivateIpAddress"]],
        "ipv4-prefix": [p["Ipv4Prefix"] for p in second["Ipv4Prefixes"]],
        "ipv6-prefix": [p["Ipv6Prefix"] for p in second["Ipv6Prefixes"]],
        "ipv6s": [i["Ipv6Address"] for i in second["Ipv6Addresses"]],
        "local-hostname": [f"ip-{first['PrivateIpAddress'].replace('.', '-')}.ec2.internal"],
        "local-ipv4s": [i["PrivateIpAddress"] for i in second["PrivateIpAddresses"]],
        "mac": [mac],
        "network-card": ["0"],
        "owner-id": [ACCOUNT],
        "public-hostname": [f"ec2-{public.replace('.', '-')}.compute-1.amazonaws.com"],
        "public-ipv4s": [public],
        "security-group-ids": [group["GroupId"]],
        "security-groups": [group["GroupName"]],
        "subnet-id": [a.lab.subnet_id],
        "subnet-ipv4-cidr-block": [str(cidr)],
        "subnet-ipv6-cidr-blocks": [a.lab.subnet_cidr6],
        "vpc-id": [a.lab.cloud.vpc_id],
        "vpc-ipv4-cidr-block": ["10.0.0.0/16"],
        "vpc-ipv4-cidr-blocks": ["10.0.0.0/16", "100.64.0.0/16"],
        "vpc-ipv6-cidr-blocks": [a.lab.cidr6],
    }
    assert {key: a.lines(f"{MACS}/{mac}/{key}") for key in wanted} == wanted
    assert a.lines(f"{MACS}/{mac}") == sorted(
        name.replace("ipv4-associations", "ipv4-associations/")
        for name in wanted
        if "associations/" not in name
    )
    assert f"{mac}/" in a.lines(MACS)


@pytest.mark.row("IMDS: the tree")
@pytest.mark.parametrize("key", ["ipv4-prefix", "ipv6-prefix", "public-ipv4s", "public-hostname"])
def test_what_an_eni_has_not_is_not_there(b: Reader, key: str) -> None:
    (mac,) = b.lines(MACS)
    assert key not in b.lines(f"{MACS}/{mac}")
    assert b.status(f"{MACS}/{mac.rstrip('/')}/{key}") == 404


@pytest.mark.row("IMDS: the tree")
@pytest.mark.parametrize(
    "path",
    [
        "/latest/user-data", "/latest/nothing", "/2031-01-01/meta-data/mac", "/nothing",
        "/latest/meta-data/spot/instance-action", "/latest/meta-data/tags",
        "/latest/meta-data/autoscaling/target-lifecycle-state",
        "/latest/meta-data/mac/none", "/latest/meta-data/public-ipv4",
    ],
)  # fmt: skip
def test_what_is_not_there_is_404(a: Reader, path: str) -> None:
    assert a.get(path)[0] == 404


@pytest.mark.row("IMDS: the tree")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_an_alias(a: Reader, version: str) -> None:
    assert a.get(f"/{version}/meta-data/instance-id") == (200, a.lab.a)


@pytest.mark.row("IMDS: the tree")
def test_an_instance_says_what_it_is(a: Reader) -> None:
    primary = a.lab.primary(a.lab.a)
    address = primary["PrivateIpAddress"]
    wanted = {
        "hostname": f"ip-{address.replace('.', '-')}.ec2.internal",
        "instance-id": a.lab.a,
        "instance-life-cycle": "on-demand",
        "instance-type": "c5.xlarge",
        "local-ipv4": address,
        "mac": primary["MacAddress"],
        "placement/availability-zone": "us-east-1a",
        "placement/region": REGION,
        "services/domain": "amazonaws.com",
    }
    assert {key: a.lines(key)[0] for key in wanted} == wanted
    document = json.loads(a.get("/latest/dynamic/instance-identity/document")[1])
    assert (document["instanceId"], document["privateIp"]) == (a.lab.a, address)
    credentials = json.loads(a.lines("iam/security-credentials/node")[0])
    assert credentials["Expiration"] == "2026-01-06T00:00:00Z"


@pytest.mark.row("IMDS: the tree", "IMDS: spot and lifecycle")
def test_a_spot_instance_with_user_data_says_so(lab: Lab, a: Reader) -> None:
    made = lab.cloud.ec2.run_instances(
        ImageId="ami-760aaa0f", InstanceType="m5.large", SubnetId=lab.subnet_id, MinCount=1,
        MaxCount=1, UserData="#!/bin/sh", InstanceMarketOptions={"MarketType": "spot"},
    )  # fmt: skip
    instance_id = made["Instances"][0]["InstanceId"]
    imds = Imds(lambda _: instance_id, lab.told)
    with imds.listen("127.0.0.1", 0).serving() as url:
        spot = Reader(lab, url)
        assert spot.lines("instance-life-cycle") == ["spot"]
        assert spot.get("/latest/user-data") == (200, "#!/bin/sh")
        assert spot.lines("reservation-id") == [made["ReservationId"]]
        assert a.lines("reservation-id") != spot.lines("reservation-id")


@pytest.mark.row("IMDS: the tree")
def test_a_terminated_instance_is_told_nothing(lab: Lab) -> None:
    instance_id = lab.cloud.instance(lab.subnet_id)
    imds = Imds(lambda _: instance_id, lab.told)
    with imds.listen("127.0.0.1", 0).serving() as url:
        reader = Reader(lab, url)
        assert reader.lines("instance-id") == [instance_id]
        lab.cloud.ec2.terminate_instances(InstanceIds=[instance_id])
        assert (reader.put()[0], reader.status("instance-id")) == (404, 404)


@pytest.mark.row("IMDS: the tree")
def test_tags_are_told_where_they_are_enabled(a: Reader) -> None:
    a.lab.cloud.ec2.create_tags(Resources=[a.lab.a], Tags=[{"Key": "Name", "Value": "one"}])
    assert a.status("tags/instance/Name") == 404
    a.lab.options(InstanceMetadataTags="enabled")
    assert (a.lines("tags"), a.lines("tags/instance/Name")) == (["instance/"], ["one"])


@pytest.mark.row("IMDS: spot and lifecycle")
@pytest.mark.parametrize(
    "path",
    [
        "spot/instance-action", "spot/termination-time", "events/recommendations/rebalance",
        "events/maintenance/scheduled", "autoscaling/target-lifecycle-state",
    ],
)  # fmt: skip
def test_what_is_said_of_an_instance_is_told_to_it_alone(a: Reader, b: Reader, path: str) -> None:
    before = b.get(f"/latest/meta-data/{path}"), a.get(f"/latest/meta-data/{path}")
    a.lab.imds.say(a.lab.a, path, "soon")
    assert a.lines(path) == ["soon"]
    folder, name = path.rsplit("/", 1)
    assert name in a.lines(folder)
    a.lab.imds.unsay(a.lab.a, path)
    a.lab.imds.unsay(a.lab.a, path)
    assert (b.get(f"/latest/meta-data/{path}"), a.get(f"/latest/meta-data/{path}")) == before


# Tokens and options


@pytest.mark.row("IMDS: tokens")
@pytest.mark.parametrize(
    ("ttl", "status"),
    [
        ("1", 200), (str(MAX_TTL_SECONDS), 200), ("0", 400), ("21601", 400), ("soon", 400),
        ("", 400), ("\u00b2", 400), ("9" * 5000, 400),
    ],
)  # fmt: skip
def test_a_token_lives_for_a_second_to_six_hours(a: Reader, ttl: str, status: int) -> None:
    assert a.put(ttl=ttl)[0] == status


@pytest.mark.row("IMDS: tokens")
@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        pytest.param("/latest/api/token", {"X-Forwarded-For": "10.0.0.9"}, 403, id="forwarded"),
        pytest.param("/2021-03-23/api/token", {}, 403, id="of-a-version"),
        pytest.param("/latest/meta-data", {}, 404, id="elsewhere"),
    ],
)
def test_a_token_is_not_given(a: Reader, path: str, more: dict[str, str], status: int) -> None:
    assert a.put(path, **more)[0] == status


@pytest.mark.row("IMDS: tokens")
def test_a_token_expires(a: Reader) -> None:
    _, token = a.put(ttl="30")
    a.lab.now += 30
    assert a.get("/latest/meta-data/mac", token)[0] == 200
    a.lab.now += 1
    assert a.get("/latest/meta-data/mac", token)[0] == 401


@pytest.mark.row("IMDS: tokens")
def test_a_token_is_of_one_instance(a: Reader, b: Reader) -> None:
    assert a.get("/latest/meta-data/mac", b.put()[1])[0] == 401


@pytest.mark.row("IMDS: tokens")
@pytest.mark.parametrize(
    ("tokens", "token", "status"),
    [
        ("required", "", 401),
        ("required", "made-up", 401),
        ("optional", "", 200),
        ("optional", "made-up", 401),
    ],
)
def test_a_read_without_a_token(a: Reader, tokens: str, token: str, status: int) -> None:
    a.lab.options(HttpTokens=tokens)
    assert a.get("/latest/meta-data/mac", token)[0] == status


@pytest.mark.row("IMDS: tokens")
def test_a_service_that_is_turned_off_is_forbidden(a: Reader, b: Reader) -> None:
    a.lab.options(HttpEndpoint="disabled")
    assert (a.put()[0], a.get("/latest/meta-data/mac", "x")[0], b.put()[0]) == (403, 403, 200)


@pytest.mark.row("IMDS: tokens")
def test_an_option_that_is_not_named_stays(a: Reader) -> None:
    a.lab.options(HttpPutResponseHopLimit=2)
    a.lab.options(HttpProtocolIpv6="enabled")
    instance = a.lab.cloud.plane.backend.get_instance(a.lab.a)
    options = options_of(instance)
    assert (options.hop_limit, options.tokens_required, options.enabled6) == (2, True, True)
    a.lab.options(HttpPutResponseHopLimit=1)


@pytest.mark.row("IMDS: tokens")
def test_a_stranger_is_told_nothing(a: Reader) -> None:
    stranger = Reader(a.lab, a.url, NOBODY)
    assert (stranger.put()[0], stranger.get("/latest/meta-data/mac", "x")[0]) == (404, 404)


@pytest.mark.row("IMDS: tokens")
@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_is_a_second_socket_of_the_same_service(a: Reader) -> None:
    try:
        listener = a.lab.imds.listen("::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener.serving() as url:
        six = Reader(a.lab, url, "::1")
        assert six.put()[0] == 403
        a.lab.options(HttpProtocolIpv6="enabled")
        assert six.lines("instance-id") == [a.lab.a]
        assert six.get("/latest/meta-data/mac", a.put()[1])[0] == 200


# Faults


@pytest.mark.row("IMDS: stale and short")
def test_a_stale_key_tells_what_was_and_others_what_is(a: Reader, second: Any) -> None:
    mac, lab = second["MacAddress"], a.lab
    addresses, index = f"{MACS}/{mac}/local-ipv4s", f"{MACS}/{mac}/device-number"
    lab.imds.faults.stale(f"{MACS}/*/local-ipv4s", 30)
    lab.imds.faults.stale(MACS, 5, lab.a)
    assert (a.status(addresses), a.lines(index)) == (404, ["1"])
    assert f"{mac}/" not in a.lines(MACS)
    lab.now += 5
    assert f"{mac}/" in a.lines(MACS)
    assert a.status(addresses) == 404
    lab.now += 25
    before = a.lines(addresses)
    made = lab.cloud.ec2.assign_private_ip_addresses(
        NetworkInterfaceId=second["NetworkInterfaceId"], SecondaryPrivateIpAddressCount=1
    )
    assert a.lines(addresses) == before
    lab.now += 30
    new = made["AssignedPrivateIpAddresses"][0]["PrivateIpAddress"]
    assert a.lines(addresses) == [*before, new]


@pytest.mark.row("IMDS: stale and short")
def test_what_is_gone_is_a_ghost_for_a_while(a: Reader, second: Any) -> None:
    lab, mac = a.lab, second["MacAddress"]
    lab.now += 60
    lab.imds.faults.delay_seconds = 10
    lab.cloud.ec2.detach_network_interface(AttachmentId=second["Attachment"]["AttachmentId"])
    lab.imds.note(None)
    assert f"{mac}/" in a.lines(MACS)
    lab.now += 10
    assert f"{mac}/" not in a.lines(MACS)
    lab.cloud.attach(second["NetworkInterfaceId"], lab.a)


@pytest.mark.row("IMDS: stale and short")
def test_what_is_said_is_stale_too(a: Reader) -> None:
    a.lab.imds.faults.stale("spot/*", 5)
    assert a.status("spot/instance-action") == 404
    a.lab.imds.say(a.lab.a, "spot/instance-action", "{}")
    assert (a.status("spot/instance-action"), "spot/" in a.lines("")) == (404, True)
    a.lab.now += 5
    assert a.lines("spot/instance-action") == ["{}"]
    a.lab.imds.unsay(a.lab.a, "spot/instance-action")


@pytest.mark.row("IMDS: stale and short")
def test_a_new_instance_has_no_past(b: Reader) -> None:
    b.lab.imds.faults.delay_seconds = 100_000
    assert b.lines("instance-id") == [b.lab.b]


@pytest.mark.row("IMDS: stale and short")
@pytest.mark.parametrize(("lines", "left"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_a_short_key_tells_its_first_lines(a: Reader, second: Any, lines: int, left: int) -> None:
    key = f"{MACS}/{second['MacAddress']}/local-ipv4s"
    whole = a.lines(key)
    a.lab.imds.faults.short(f"{MACS}/*/local-ipv4s", lines)
    assert a.lines(key) == whole[:left]
    assert len(a.lines(MACS)) == 2
    a.lab.imds.faults.short(MACS, 1)
    assert len(a.lines(MACS)) == 1


@pytest.mark.row("IMDS: stale and short")
def test_a_missing_key_is_named_by_its_folder_and_not_there(a: Reader, b: Reader) -> None:
    a.lab.imds.faults.missing("local-*", a.lab.a)
    assert (a.status("local-ipv4"), a.status("local-hostname"), a.status("mac")) == (404, 404, 200)
    assert "local-ipv4" in a.lines("")
    assert b.status("local-ipv4") == 200


@pytest.mark.row("IMDS: stale and short")
def test_a_burst_is_over_when_it_has_been_counted(a: Reader, b: Reader) -> None:
    faults = a.lab.imds.faults
    faults.burst(503, 2)
    faults.burst(429, 1, a.lab.a, "mac")
    assert [a.put()[0], b.put()[0], a.put()[0]] == [503, 503, 200]
    assert [a.status("hostname"), b.status("mac"), a.status("mac"), a.status("mac")] == [
        200, 200, 429, 200,
    ]  # fmt: skip


@pytest.mark.row("IMDS: stale and short")
def test_faults_are_taken_back(a: Reader) -> None:
    faults = a.lab.imds.faults
    faults.delay_seconds = 5
    faults.stale("*", 5)
    faults.short("*", 0)
    faults.missing("*")
    faults.burst(503, 9)
    faults.clear()
    assert a.lines("instance-id") == [a.lab.a]
    assert faults.lines({}) == []


def test_faults_that_are_on_are_said_in_sentences(a: Reader) -> None:
    faults = a.lab.imds.faults
    faults.delay_seconds = 5
    faults.stale("mac", 2.5, a.lab.a)
    faults.short(MACS, 1)
    faults.missing("local-*", "i-gone")
    faults.burst(503, 1, pattern="hostname")
    faults.burst(429, 2)
    assert a.status("hostname") == 503
    assert faults.lines({a.lab.a: "node-a"}) == [
        "IMDS is 5 s late",
        "IMDS tells mac as 2.5 s ago to node-a",
        f"IMDS tells 1 lines of {MACS}",
        "IMDS knows nothing of local-* to i-gone",
        "IMDS answers 429, once more",
    ]


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (lambda faults: faults.stale("*", -1), "a lag of IMDS is 0 to 86400 seconds; -1 is not"),
        (lambda faults: faults.short("*", -1), "a list has 0 lines or more; -1 is not"),
        (
            lambda faults: faults.burst(200, 1),
            "an HTTP status that refuses is 400 to 599; 200 is not",
        ),
        (lambda faults: faults.burst(503, 0), "a fault happens once or more; 0 times is not"),
    ],
)
def test_a_fault_that_cannot_be_is_one_sentence(a: Reader, wish: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        wish(a.lab.imds.faults)
    assert a.lab.imds.faults.lines({}) == []


# Calls


def test_calls_are_counted_by_path(a: Reader, second: Any) -> None:
    before = a.lab.imds.calls
    a.lines(f"{MACS}/")
    for mac in (second["MacAddress"], a.lab.primary(a.lab.a)["MacAddress"]):
        a.lines(f"{MACS}/{mac}/interface-id")
    assert a.lab.imds.calls - before == {
        "latest/api/token": 3,
        f"latest/meta-data/{MACS}": 1,
        f"latest/meta-data/{MACS}/<mac>/interface-id": 2,
    }


def test_many_ask_at_once(a: Reader, b: Reader) -> None:
    before = a.lab.imds.calls
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda n: (a, b)[n % 2].lines("instance-id")[0], range(200)))
    assert Counter(told) == {a.lab.a: 100, b.lab.b: 100}
    assert (a.lab.imds.calls - before).total() == 400


# Our client


@pytest.fixture
def client(a: Reader, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", a.url)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    return Client()


def test_our_client_reads_what_ec2_says(lab: Lab, client: Client, second: Any) -> None:
    eni = client.enis()[1]
    assert (eni.id, eni.mac, eni.device_index, eni.network_card) == (
        second["NetworkInterfaceId"], second["MacAddress"], 1, 0,
    )  # fmt: skip
    assert [str(a) for a in eni.addresses] == [
        item["PrivateIpAddress"] for item in second["PrivateIpAddresses"]
    ]
    assert [str(a) for a in eni.ipv6s] == [i["Ipv6Address"] for i in second["Ipv6Addresses"]]
    assert [str(p) for p in eni.prefixes] == [
        *(p["Ipv4Prefix"] for p in second["Ipv4Prefixes"]),
        *(p["Ipv6Prefix"] for p in second["Ipv6Prefixes"]),
    ]
    assert [str(c) for c in eni.vpc_cidrs] == ["10.0.0.0/16", "100.64.0.0/16", lab.cidr6]
    assert client.identity().instance_id == lab.a


LEAVES = [
    "device-number", "interface-id", "ipv4-prefix", "ipv6-prefix", "ipv6s", "local-ipv4s",
    "network-card", "security-group-ids", "subnet-id", "subnet-ipv4-cidr-block",
    "vpc-ipv4-cidr-blocks", "vpc-ipv6-cidr-blocks",
]  # fmt: skip


@pytest.mark.parametrize("key", LEAVES)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda imds, key: imds.faults.stale(key, 9000), id="stale"),
        pytest.param(lambda imds, key: imds.faults.short(key, 0), id="empty"),
        pytest.param(lambda imds, key: imds.faults.short(key, 1), id="short"),
        pytest.param(lambda imds, key: imds.faults.missing(key), id="missing"),
        pytest.param(lambda imds, key: imds.faults.burst(503, 2, None, key), id="twice-503"),
    ],
)
def test_our_client_makes_something_of_every_bad_answer(
    lab: Lab, client: Client, second: Any, fault: Callable[[Imds, str], None], key: str
) -> None:
    fault(lab.imds, f"{MACS}/{second['MacAddress']}/{key}")
    primary, *others = client.enis()
    assert primary.id == lab.primary(lab.a)["NetworkInterfaceId"]
    assert {eni.id for eni in others} <= {second["NetworkInterfaceId"]}


def test_our_client_calls_a_long_burst_not_yet(lab: Lab, client: Client) -> None:
    lab.imds.faults.burst(503, 3, None, "placement/region")
    with pytest.raises(ImdsError, match="placement/region"):
        client.region()
    assert client.region() == REGION
