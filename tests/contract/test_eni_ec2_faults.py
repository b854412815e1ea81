"""What the EC2 client makes of a bad network, by real botocore over 127.0.0.1."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from eni.ec2 import Ec2
from eni.errors import (
    CredentialsError,
    EniError,
    InvalidStateError,
    PrefixesExhaustedError,
    RefusedError,
    SubnetExhaustedError,
    ThrottledError,
    UnauthorizedError,
    UnknownOutcomeError,
    UnreachableError,
)
from eni.model import (
    AttachmentId,
    CreateEni,
    EniId,
    InstanceId,
    Kind,
    SecurityGroupId,
    SubnetId,
    VpcId,
)
from eni.session import Took

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Answer:
    """One reply; status 0 closes the connection instead, -1 keeps silent."""

    status: int
    body: str = ""


def error(status: int, code: str, message: str = "no") -> Answer:
    return Answer(
        status,
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        "</Errors><RequestID>r</RequestID></Response>",
    )


CLOSED = Answer(0)
SILENT = Answer(-1)
TIMEOUT_SECONDS = 1.0
"""Until a silent endpoint is given up; an answer may take as long on a busy machine."""

THROTTLED = error(503, "RequestLimitExceeded")
BROKEN = error(500, "InternalError")
NONSENSE = Answer(200, "<html>captive portal")
EMPTY = Answer(200, "<Response/>")
SUBNET = Answer(
    200,
    "<DescribeSubnetsResponse><subnetSet><item><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId>"
    "<cidrBlock>10.0.0.0/24</cidrBlock><availabilityZone>us-east-1a</availabilityZone>"
    "<availableIpAddressCount>9</availableIpAddressCount></item></subnetSet>"
    "</DescribeSubnetsResponse>",
)
ASSIGNED = Answer(
    200,
    "<AssignPrivateIpAddressesResponse><assignedPrivateIpAddressesSet><item>"
    "<privateIpAddress>10.0.0.5</privateIpAddress></item></assignedPrivateIpAddressesSet>"
    "</AssignPrivateIpAddressesResponse>",
)
ADDRESS = IPv4Network("10.0.0.5/32")
PREFIX = IPv4Network("10.0.0.16/28")


def assigned(*prefixes: str) -> Answer:
    listed = "".join(f"<item><ipv4Prefix>{prefix}</ipv4Prefix></item>" for prefix in prefixes)
    return Answer(
        200,
        f"<AssignPrivateIpAddressesResponse><assignedIpv4PrefixSet>{listed}"
        "</assignedIpv4PrefixSet></AssignPrivateIpAddressesResponse>",
    )


def reserved(cidr: str, kind: str, more: str = "") -> Answer:
    return Answer(
        200,
        "<GetSubnetCidrReservationsResponse><subnetIpv4CidrReservationSet><item>"
        f"<cidr>{cidr}</cidr><reservationType>{kind}</reservationType></item>"
        f"</subnetIpv4CidrReservationSet><nextToken>{more}</nextToken>"
        "</GetSubnetCidrReservationsResponse>",
    )


def enis(*tags: tuple[str, str]) -> Answer:
    """Return a describe's answer: an ENI for each tag."""
    listed = "".join(
        f"<item><networkInterfaceId>eni-{number}</networkInterfaceId><subnetId>subnet-1</subnetId>"
        f"<macAddress>0a:00:00:00:00:0{number}</macAddress><status>available</status>"
        f"<tagSet><item><key>{key}</key><value>{value}</value></item></tagSet></item>"
        for number, (key, value) in enumerate(tags)
    )
    return Answer(
        200,
        "<DescribeNetworkInterfacesResponse><networkInterfaceSet>"
        f"{listed}</networkInterfaceSet></DescribeNetworkInterfacesResponse>",
    )


@dataclass
class FakeEc2:
    """An endpoint that plays *answers* in turn and keeps what it was asked."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def actions(self) -> list[str]:
        return [request["Action"] for request in self.asked]


@contextmanager
def serving(fake: FakeEc2) -> Iterator[str]:
    class Endpoint(BaseHTTPRequestHandler):
        timeout = 5

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fake.asked.append({key: value for key, (value,) in parse_qs(body).items()})
            fake.agents.append(self.headers["User-Agent"])
            answer = fake.answers.pop(0)
            if answer.status < 0:
                fake.over.wait(5)
            if answer.status <= 0:
                return
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(answer.body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        fake.over.set()
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[FakeEc2, Ec2]]:
    """Yield one endpoint and one client for all: to make a client takes 0.2 s."""
    fake = FakeEc2()
    with serving(fake) as url, pytest.MonkeyPatch.context() as monkeypatch:
        environment(monkeypatch, url)
        ec2 = Ec2(region="us-east-1", total_attempts=2, http_timeout_seconds=TIMEOUT_SECONDS)
        fake.answers = [SUBNET, ASSIGNED]
        ec2.subnet(SubnetId("subnet-1"))
        ec2.assign(EniId("eni-1"), Kind.SINGLE, 1)
        yield fake, ec2


@pytest.fixture
def ec2(pair: tuple[FakeEc2, Ec2]) -> Ec2:
    _, ec2 = pair
    ec2.calls.clear()
    ec2.errors.clear()
    return ec2


def taken(ec2: Ec2, action: str) -> tuple[int, float]:
    """Return how many requests of *action* are over, and the seconds that EC2 took."""
    took = ec2.took.get(action, Took())
    return took.requests, took.seconds


@pytest.fixture
def fake(pair: tuple[FakeEc2, Ec2]) -> Iterator[FakeEc2]:
    fake, _ = pair
    fake.asked.clear()
    yield fake
    fake.over.set()
    fake.over = threading.Event()


def environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


WISH = CreateEni(
    token="t1",
    subnet_id=SubnetId("subnet-1"),
    security_groups=(),
    description="aws-K8S-i-1",
    secondary_count=8,
    tags=(("enid.dev/intent", "t1"),),
)
MUTATIONS: dict[str, Callable[[Ec2], object]] = {
    "CreateNetworkInterface": lambda ec2: ec2.create(WISH),
    "AttachNetworkInterface": lambda ec2: ec2.attach(EniId("eni-1"), InstanceId("i-1"), 1),
    "ModifyNetworkInterfaceAttribute": lambda ec2: ec2.delete_on_termination(
        EniId("eni-1"), AttachmentId("eni-attach-1")
    ),
    "DetachNetworkInterface": lambda ec2: ec2.detach(AttachmentId("eni-attach-1")),
    "DeleteNetworkInterface": lambda ec2: ec2.delete(EniId("eni-1")),
    "AssignPrivateIpAddresses": lambda ec2: ec2.assign(EniId("eni-1"), Kind.SINGLE, 5),
    "UnassignPrivateIpAddresses": lambda ec2: ec2.unassign(EniId("eni-1"), [ADDRESS]),
    "CreateTags": lambda ec2: ec2.tag(EniId("eni-1"), [("a", "b")]),
}
QUESTIONS: dict[str, Callable[[Ec2], object]] = {
    "GetSubnetCidrReservations": lambda ec2: ec2.reservations(SubnetId("subnet-1")),
    "DescribeNetworkInterfaces": lambda ec2: ec2.attached(InstanceId("i-1")),
    "DescribeSubnets": lambda ec2: ec2.subnet(SubnetId("subnet-1")),
    "DescribeInstanceTypes": lambda ec2: ec2.limits("m5.large"),
}


OTHERS: dict[str, Callable[[Ec2], object]] = {
    "set_groups": lambda ec2: ec2.set_groups(EniId("eni-1"), [SecurityGroupId("sg-1")]),
    "unassign prefixes": lambda ec2: ec2.unassign(EniId("eni-1"), [PREFIX]),
    "available": lambda ec2: ec2.available([("a", "")]),
    "subnets": lambda ec2: ec2.subnets(VpcId("vpc-1"), "us-east-1a"),
    "eni": lambda ec2: ec2.eni(EniId("eni-1")),
    "by_tag": lambda ec2: ec2.by_tag("a", "b"),
}
"""What else goes by an action that is there already."""


@pytest.mark.parametrize("action", MUTATIONS)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(CLOSED, id="connection-closed-after-it-was-done"),
        pytest.param(BROKEN, id="internal-error"),
        pytest.param(Answer(502, "<html>bad gateway"), id="a-proxys-502"),
        pytest.param(NONSENSE, id="an-answer-that-is-not-xml"),
    ],
)
def test_a_mutation_without_an_answer_is_unknown_and_never_repeated(
    fake: FakeEc2, ec2: Ec2, action: str, fault: Answer
) -> None:
    fake.answers = [fault]
    with pytest.raises(UnknownOutcomeError) as caught:
        MUTATIONS[action](ec2)
    assert fake.actions() == [action]
    assert caught.value.action == action
    assert ec2.errors == {(action, "EC2-UNKNOWN-OUTCOME"): 1}


@pytest.mark.parametrize("action", ["AttachNetworkInterface", "CreateNetworkInterface"])
def test_a_mutation_that_times_out_is_unknown_and_never_repeated(
    fake: FakeEc2, ec2: Ec2, action: str
) -> None:
    fake.answers = [SILENT]
    with pytest.raises(UnknownOutcomeError, match="ReadTimeoutError"):
        MUTATIONS[action](ec2)
    assert fake.actions() == [action]


@pytest.mark.parametrize("action", ["CreateNetworkInterface", "AssignPrivateIpAddresses"])
def test_yes_without_saying_what_is_unknown(fake: FakeEc2, ec2: Ec2, action: str) -> None:
    fake.answers = [EMPTY]
    with pytest.raises(UnknownOutcomeError):
        MUTATIONS[action](ec2)


@pytest.mark.parametrize("action", MUTATIONS)
def test_a_throttled_mutation_was_not_done(fake: FakeEc2, ec2: Ec2, action: str) -> None:
    fake.answers = [THROTTLED]
    with pytest.raises(ThrottledError) as caught:
        MUTATIONS[action](ec2)
    assert caught.value.code == "RequestLimitExceeded"
    assert (fake.actions(), ec2.calls) == ([action], {action: 1})


def test_a_wish_made_again_is_the_same_byte_for_byte(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [CLOSED, CLOSED]
    for _ in range(2):
        with pytest.raises(UnknownOutcomeError):
            ec2.create(WISH)
    first, second = fake.asked
    assert first == second
    assert first["ClientToken"] == "t1"


def test_a_wish_for_no_secondary_addresses_does_not_say_0(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [EMPTY]
    with pytest.raises(UnknownOutcomeError):
        ec2.create(replace(WISH, secondary_count=0))
    assert "SecondaryPrivateIpAddressCount" not in fake.asked[0]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(THROTTLED, id="throttled"),
        pytest.param(CLOSED, id="connection-closed"),
        pytest.param(BROKEN, id="internal-error"),
        pytest.param(SILENT, id="read-timeout"),
    ],
)
def test_a_question_is_asked_again(fake: FakeEc2, ec2: Ec2, fault: Answer) -> None:
    fake.answers = [fault, SUBNET]
    assert ec2.subnet(SubnetId("subnet-1")).available == 9
    assert ec2.calls == {"DescribeSubnets": 2}
    assert ec2.errors == {}


@pytest.mark.parametrize("action", QUESTIONS)
@pytest.mark.parametrize(
    "fault", [pytest.param(CLOSED, id="connection-closed"), pytest.param(BROKEN, id="broken")]
)
def test_a_question_without_an_answer_changed_nothing(
    fake: FakeEc2, ec2: Ec2, action: str, fault: Answer
) -> None:
    fake.answers = [fault, fault]
    with pytest.raises(UnreachableError):
        QUESTIONS[action](ec2)
    assert ec2.errors == {(action, "EC2-UNREACHABLE"): 1}


def test_an_empty_answer_is_not_evidence_that_an_eni_is_gone(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [EMPTY]
    with pytest.raises(UnreachableError):
        ec2.eni(EniId("eni-1"))


def test_ec2_saying_so_is_evidence_that_an_eni_is_gone(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [error(400, "InvalidNetworkInterfaceID.NotFound")]
    assert ec2.eni(EniId("eni-1")) is None


@pytest.mark.parametrize(
    ("answer", "family", "message"),
    [
        pytest.param(
            error(400, "InsufficientFreeAddressesInSubnet", "not enough free addresses"),
            SubnetExhaustedError,
            "EC2 cannot create an ENI with 9 addresses in subnet-1 yet: "
            "InsufficientFreeAddressesInSubnet: not enough free addresses",
            id="subnet-full",
        ),
        pytest.param(
            error(403, "UnauthorizedOperation", "You are not authorized"),
            UnauthorizedError,
            "EC2 refuses to create an ENI with 9 addresses in subnet-1: "
            "UnauthorizedOperation: You are not authorized",
            id="not-in-the-policy",
        ),
        pytest.param(
            error(400, "IdempotentParameterMismatch", "other parameters"),
            RefusedError,
            "EC2 refuses to create an ENI with 9 addresses in subnet-1: "
            "IdempotentParameterMismatch: other parameters",
            id="token-of-another-wish",
        ),
    ],
)
def test_a_message_names_the_object_the_wish_and_the_limit(
    fake: FakeEc2, ec2: Ec2, answer: Answer, family: type[EniError], message: str
) -> None:
    fake.answers = [answer]
    with pytest.raises(family) as caught:
        ec2.create(WISH)
    assert str(caught.value) == message


def test_attaching_what_is_attached_says_so_and_not_where(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [
        error(400, "InvalidParameterValue", "Network interface 'eni-1' is currently in use.")
    ]
    with pytest.raises(InvalidStateError, match="attach eni-1 to i-1 at device index 1"):
        ec2.attach(EniId("eni-1"), InstanceId("i-1"), 1)


def test_the_new_addresses_are_those_that_ec2_names(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [ASSIGNED]
    assert ec2.assign(EniId("eni-1"), Kind.SINGLE, 1) == (ADDRESS,)


@pytest.mark.parametrize(
    ("kind", "count", "answer"),
    [
        pytest.param(Kind.SINGLE, 2, ASSIGNED, id="fewer"),
        pytest.param(Kind.PREFIX, 1, assigned("10.0.0.16/28", "10.0.0.32/28"), id="more"),
        pytest.param(Kind.PREFIX, 1, assigned("not a prefix"), id="nonsense"),
    ],
)
def test_another_number_of_blocks_than_wished_is_to_be_looked_into(
    fake: FakeEc2, ec2: Ec2, kind: Kind, count: int, answer: Answer
) -> None:
    fake.answers = [answer]
    with pytest.raises(UnknownOutcomeError, match="assign"):
        ec2.assign(EniId("eni-1"), kind, count)


def test_addresses_and_prefixes_are_asked_for_by_their_own_counts(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [ASSIGNED, assigned("10.0.0.16/28")]
    assert ec2.assign(EniId("eni-1"), Kind.SINGLE, 1) == (ADDRESS,)
    assert ec2.assign(EniId("eni-1"), Kind.PREFIX, 1) == (PREFIX,)
    singles, prefixes = fake.asked
    assert (singles["SecondaryPrivateIpAddressCount"], "Ipv4PrefixCount" in singles) == ("1", False)
    assert (prefixes["Ipv4PrefixCount"], "SecondaryPrivateIpAddressCount" in prefixes) == (
        "1", False
    )  # fmt: skip


def test_addresses_and_prefixes_are_given_back_by_their_own_lists(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [Answer(200, "<R><return>true</return></R>")] * 2
    ec2.unassign(EniId("eni-1"), [ADDRESS])
    ec2.unassign(EniId("eni-1"), [PREFIX])
    singles, prefixes = fake.asked
    assert singles["PrivateIpAddress.1"] == "10.0.0.5"
    assert prefixes["Ipv4Prefix.1"] == "10.0.0.16/28"
    assert "PrivateIpAddress.1" not in prefixes


@pytest.mark.parametrize(
    "blocks",
    [pytest.param([ADDRESS, PREFIX], id="of-both-kinds"), pytest.param([], id="none")],
)
def test_blocks_that_are_no_single_call_are_a_mistake_of_ours(
    fake: FakeEc2, ec2: Ec2, blocks: list[IPv4Network]
) -> None:
    with pytest.raises(ValueError, match="one call unassigns"):
        ec2.unassign(EniId("eni-1"), blocks)
    assert fake.asked == []


def test_the_default_card_is_not_named(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [EMPTY, EMPTY]
    with pytest.raises(UnknownOutcomeError, match="at device index 1, and"):
        ec2.attach(EniId("eni-1"), InstanceId("i-1"), 1)
    with pytest.raises(UnknownOutcomeError, match="index 1 of network card 2, and"):
        ec2.attach(EniId("eni-1"), InstanceId("i-1"), 1, 2)
    assert [asked.get("NetworkCardIndex") for asked in fake.asked] == [None, "2"]


def test_a_subnet_short_of_prefixes_may_have_addresses(fake: FakeEc2, ec2: Ec2) -> None:
    short = error(400, "InvalidParameterValue", "There aren't sufficient free Ipv4 addresses")
    fake.answers = [short, short, short, error(400, "InsufficientFreeAddressesInSubnet")]
    with pytest.raises(PrefixesExhaustedError, match="assign 2 more prefixes to eni-1"):
        ec2.assign(EniId("eni-1"), Kind.PREFIX, 2)
    with pytest.raises(PrefixesExhaustedError, match="an ENI with 1 prefix in subnet-1"):
        ec2.create(replace(WISH, secondary_count=0, prefix_count=1))
    for kind in (Kind.SINGLE, Kind.PREFIX):
        with pytest.raises(SubnetExhaustedError) as caught:
            ec2.assign(EniId("eni-1"), kind, 2)
        assert caught.type is SubnetExhaustedError


def test_reservations_come_in_pages_and_those_for_prefixes_count(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [
        reserved("10.0.0.0/26", "prefix", "more"),
        reserved("10.0.0.64/26", "explicit", "and more"),
        reserved("10.0.0.128/26", "prefix"),
    ]
    assert ec2.reservations(SubnetId("subnet-1")) == (
        IPv4Network("10.0.0.0/26"),
        IPv4Network("10.0.0.128/26"),
    )
    assert [asked.get("NextToken") for asked in fake.asked] == [None, "more", "and more"]


def test_what_a_filter_lets_through_is_looked_at_again(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [enis(("cluster", "a*"), ("cluster", "ab"), ("other", "a*"))] * 2
    assert [eni.id for eni in ec2.available([("cluster", "a*")])] == ["eni-0"]
    assert [eni.id for eni in ec2.available([("cluster", "")])] == ["eni-0", "eni-1"]
    assert [fake.asked[n]["Filter.2.Name"] for n in (0, 1)] == ["tag:cluster", "tag-key"]


def test_the_endpoint_that_is_given_is_the_one_that_is_asked(
    fake: FakeEc2, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(fake) as url:
        environment(monkeypatch, "http://127.0.0.1:9")
        ec2 = Ec2(region="us-east-1", endpoint_url=url, total_attempts=1)
        fake.answers = [SUBNET]
        assert ec2.subnet(SubnetId("subnet-1")).available == 9


def test_each_request_is_timed_also_one_without_an_answer(fake: FakeEc2, ec2: Ec2) -> None:
    before, seconds = taken(ec2, "DescribeSubnets")
    fake.answers = [SILENT, SUBNET]
    ec2.subnet(SubnetId("subnet-1"))
    after, more_seconds = taken(ec2, "DescribeSubnets")
    assert after - before == 2
    assert more_seconds - seconds >= TIMEOUT_SECONDS
    assert ec2.took["DescribeSubnets"].longest_seconds >= TIMEOUT_SECONDS


def test_an_answer_that_is_not_xml_is_timed_too(fake: FakeEc2, ec2: Ec2) -> None:
    before, _ = taken(ec2, "CreateTags")
    fake.answers = [NONSENSE]
    with pytest.raises(UnknownOutcomeError):
        ec2.tag(EniId("eni-1"), [("a", "b")])
    assert taken(ec2, "CreateTags")[0] == before + 1


def test_many_threads_use_one_client_and_every_call_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeEc2([SUBNET] * 40)
    with serving(fake) as url, ThreadPoolExecutor(8) as threads:
        environment(monkeypatch, url)
        ec2 = Ec2(region="us-east-1", total_attempts=1)
        start = threading.Barrier(8)

        def ask(_: int) -> None:
            start.wait(10)
            for _ in range(5):
                ec2.subnet(SubnetId("subnet-1"))

        for _ in threads.map(ask, range(8)):
            pass
    assert ec2.calls == {"DescribeSubnets": 40}
    assert ec2.took["DescribeSubnets"].requests == 40
    assert ec2.errors == {}


def test_ec2_sees_who_calls(fake: FakeEc2, ec2: Ec2) -> None:
    fake.answers = [SUBNET]
    ec2.subnet(SubnetId("subnet-1"))
    assert " enid/" in fake.agents[-1]


def test_a_closed_port_is_never_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:  # bound and not listening: nobody else can answer there
        bound.bind(("127.0.0.1", 0))
        environment(monkeypatch, f"http://127.0.0.1:{bound.getsockname()[1]}")
        ec2 = Ec2(region="us-east-1", total_attempts=1)
        for call in (MUTATIONS | QUESTIONS | OTHERS).values():
            with pytest.raises(UnreachableError):
                call(ec2)


def test_an_endpoint_that_is_not_a_url_is_not_an_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment(monkeypatch, "ec2.example")
    with pytest.raises(UnreachableError, match=r"Invalid endpoint"):
        Ec2(region="us-east-1").detach(AttachmentId("eni-attach-1"))


def test_credentials_that_come_late_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEc2([SUBNET])
    with serving(fake) as url:
        environment(monkeypatch, url)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        ec2 = Ec2(region="us-east-1")
        with pytest.raises(CredentialsError):
            ec2.subnet(SubnetId("subnet-1"))
        with pytest.raises(CredentialsError):
            ec2.detach(AttachmentId("eni-attach-1"))
        assert fake.asked == []
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        assert ec2.subnet(SubnetId("subnet-1")).available == 9


def test_a_profile_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RefusedError, match="nobody"):
        Ec2(region="us-east-1").subnet(SubnetId("subnet-1"))
