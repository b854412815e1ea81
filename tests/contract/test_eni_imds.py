"""What the IMDS client makes of an IMDS, a good one and a bad one, over 127.0.0.1."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import pytest

from eni.errors import ImdsError, NotYetError
from eni.imds import Imds
from eni.model import (
    EniId,
    Identity,
    ImdsEni,
    InstanceId,
    Notices,
    SecurityGroupId,
    SubnetId,
    VpcId,
)
from vpclab import imds as labs
from vpclab.metadata import Metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

MACS = "network/interfaces/macs"
SECOND = f"{MACS}/0a:00:00:00:00:02"
KEYS = {
    "instance-id": "i-1",
    "instance-type": "m5.large",
    "placement/region": "us-east-1",
    "placement/availability-zone": "us-east-1a",
    "mac": "0A:00:00:00:00:01",
    "local-ipv4": "10.0.0.4",
    f"{MACS}/": "0a:00:00:00:00:02/\n0a:00:00:00:00:01/",
    f"{MACS}/0a:00:00:00:00:01/interface-id": "eni-1",
    f"{MACS}/0a:00:00:00:00:01/device-number": "0",
    f"{MACS}/0a:00:00:00:00:01/vpc-id": "vpc-1",
    f"{MACS}/0a:00:00:00:00:01/subnet-id": "subnet-1",
    f"{MACS}/0a:00:00:00:00:01/subnet-ipv4-cidr-block": "10.0.0.0/24",
    f"{MACS}/0a:00:00:00:00:01/vpc-ipv4-cidr-blocks": "10.0.0.0/16",
    f"{MACS}/0a:00:00:00:00:01/local-ipv4s": "10.0.0.4",
    f"{SECOND}/interface-id": "eni-2",
    f"{SECOND}/device-number": "1",
    f"{SECOND}/network-card": "0",
    f"{SECOND}/vpc-id": "vpc-1",
    f"{SECOND}/subnet-id": "subnet-1",
    f"{SECOND}/subnet-ipv4-cidr-block": "10.0.0.0/24",
    f"{SECOND}/vpc-ipv4-cidr-blocks": "10.0.0.0/16\n100.64.0.0/16",
    f"{SECOND}/vpc-ipv6-cidr-blocks": "fd00::/56",
    f"{SECOND}/local-ipv4s": "10.0.0.9\n10.0.0.5",
    f"{SECOND}/ipv6s": "fd00::5",
    f"{SECOND}/ipv4-prefix": "10.0.0.16/28",
    f"{SECOND}/ipv6-prefix": "fd00:0:0:0:1::/80",
    f"{SECOND}/security-group-ids": "sg-1\nsg-2",
}


@dataclass
class FakeImds:
    """A tree of keys; *faults* are answered once each before the tree: 0 closes, -1 is silence."""

    keys: dict[str, str] = field(default_factory=lambda: dict(KEYS))
    faults: dict[str, list[int]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, token: str | None) -> tuple[int, str]:
        self.asked[path] += 1
        if faults := self.faults.get(path):
            return faults.pop(0), "not now"
        if path == "/latest/api/token":
            return 200, "sesame"
        if token != "sesame":
            return 401, ""
        text = self.keys.get(path.removeprefix("/latest/meta-data/"))
        return (404, "<html>not found") if text is None else (200, text)


@contextmanager
def serving(fake: FakeImds) -> Iterator[str]:
    class Endpoint(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            status, text = fake.answer(self.path, self.headers["x-aws-ec2-metadata-token"])
            if status < 0:
                fake.over.wait(5)
            if status > 0:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815 - the parent's naming

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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeImds]:
    fake = FakeImds()
    with serving(fake) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
        yield fake


def test_identity(fake: FakeImds) -> None:
    assert Imds(timeout_seconds=0.2).identity() == Identity(
        instance_id=InstanceId("i-1"),
        instance_type="m5.large",
        region="us-east-1",
        availability_zone="us-east-1a",
        mac="0a:00:00:00:00:01",
        primary=IPv4Address("10.0.0.4"),
    )
    assert fake.asked["/latest/api/token"] == 1


def test_region(fake: FakeImds) -> None:
    assert Imds(timeout_seconds=0.2).region() == "us-east-1"
    assert sum(fake.asked.values()) == 2


@pytest.mark.usefixtures("fake")
def test_enis_come_by_device_index_with_the_primary_address_first() -> None:
    primary, second = Imds(timeout_seconds=0.2).enis()
    assert (primary.id, primary.network_card, primary.prefixes) == ("eni-1", 0, ())
    assert second == ImdsEni(
        id=EniId("eni-2"),
        mac="0a:00:00:00:00:02",
        device_index=1,
        network_card=0,
        vpc_id=VpcId("vpc-1"),
        subnet_id=SubnetId("subnet-1"),
        subnet_cidr=IPv4Network("10.0.0.0/24"),
        vpc_cidrs=(
            IPv4Network("10.0.0.0/16"),
            IPv4Network("100.64.0.0/16"),
            IPv6Network("fd00::/56"),
        ),
        addresses=(IPv4Address("10.0.0.9"), IPv4Address("10.0.0.5")),
        ipv6s=(IPv6Address("fd00::5"),),
        prefixes=(IPv4Network("10.0.0.16/28"), IPv6Network("fd00:0:0:0:1::/80")),
        security_groups=(SecurityGroupId("sg-1"), SecurityGroupId("sg-2")),
    )


def test_of_a_known_eni_only_what_changes_is_read(fake: FakeImds) -> None:
    imds = Imds(timeout_seconds=0.2)
    known = {eni.mac: eni for eni in imds.enis()}
    changed = {
        "local-ipv4s": "10.0.0.9",
        "ipv6s": "",
        "ipv4-prefix": "10.0.0.32/28",
        "ipv6-prefix": "",
        "security-group-ids": "sg-3",
    }
    fake.keys |= {f"{SECOND}/{key}": text for key, text in changed.items()}
    fake.asked.clear()
    primary, second = imds.enis(known)
    assert primary == known[primary.mac]
    assert second == replace(
        known[second.mac],
        addresses=(IPv4Address("10.0.0.9"),),
        ipv6s=(),
        prefixes=(IPv4Network("10.0.0.32/28"),),
        security_groups=(SecurityGroupId("sg-3"),),
    )
    of_second = {path for path in fake.asked if SECOND in path}
    assert of_second == {f"/latest/meta-data/{SECOND}/{key}" for key in changed}
    assert sum(fake.asked.values()) == 2 + 2 * len(changed), "token, MACs, and five of each"


def test_a_known_eni_that_is_gone_or_going_is_not_told(fake: FakeImds) -> None:
    imds = Imds(timeout_seconds=0.2)
    known = {eni.mac: eni for eni in imds.enis()}
    del fake.keys[f"{SECOND}/local-ipv4s"]
    assert [eni.id for eni in imds.enis(known)] == ["eni-1"]
    fake.keys[f"{MACS}/"] = "0a:00:00:00:00:02/"
    assert imds.enis(known) == ()


@pytest.mark.parametrize(
    "key",
    [
        "interface-id",
        "device-number",
        "vpc-id",
        "subnet-id",
        "subnet-ipv4-cidr-block",
        "vpc-ipv4-cidr-blocks",
        "local-ipv4s",
    ],
)
def test_an_eni_told_of_in_part_is_left_out(fake: FakeImds, key: str) -> None:
    del fake.keys[f"{SECOND}/{key}"]
    assert [eni.id for eni in Imds(timeout_seconds=0.2).enis()] == ["eni-1"]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([429, 503], id="throttled-twice"),
        pytest.param([0, 0], id="closed-twice"),
        pytest.param([-1, 500], id="silent-then-broken"),
    ],
)
def test_a_key_is_read_up_to_three_times(fake: FakeImds, faults: list[int]) -> None:
    fake.faults["/latest/meta-data/placement/region"] = faults
    assert Imds(timeout_seconds=0.2).region() == "us-east-1"


@pytest.mark.parametrize(
    ("path", "faults"),
    [
        pytest.param("latest/meta-data/placement/region", [503] * 3, id="a-key-throttled"),
        pytest.param("latest/meta-data/placement/region", [-1] * 3, id="a-key-in-silence"),
        pytest.param("latest/meta-data/placement/region", [404], id="a-key-not-there"),
        pytest.param("latest/api/token", [503] * 3, id="the-token-throttled"),
        pytest.param("latest/api/token", [-1], id="the-token-in-silence"),
        pytest.param("latest/api/token", [403], id="no-version-2"),
        pytest.param("latest/api/token", [400], id="the-token-refused"),
    ],
)
def test_a_failure_names_the_path_and_is_not_final(
    fake: FakeImds, path: str, faults: list[int]
) -> None:
    fake.faults[f"/{path}"] = faults
    with pytest.raises(ImdsError, match=path) as caught:
        Imds(timeout_seconds=0.2).region()
    assert caught.value.action == path
    assert isinstance(caught.value, NotYetError)


def test_a_key_that_makes_no_sense_is_a_failure_too(fake: FakeImds) -> None:
    fake.keys["local-ipv4"] = "localhost"
    with pytest.raises(ImdsError, match="latest/meta-data/local-ipv4"):
        Imds(timeout_seconds=0.2).identity()


def test_a_disabled_imds_is_not_asked(fake: FakeImds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ImdsError):
        Imds(timeout_seconds=0.2).region()
    assert fake.asked == {}


# Notices
SPOT = "spot/instance-action"
REBALANCE = "events/recommendations/rebalance"
LIFECYCLE = "autoscaling/target-lifecycle-state"


@pytest.mark.parametrize(
    ("told", "notices"),
    [
        pytest.param({}, Notices(), id="nothing"),
        pytest.param(
            {SPOT: '{"action": "terminate", "time": "2026-01-05T18:02:00Z"}'},
            Notices(spot_action="terminate"),
            id="a-spot-instance-ends",
        ),
        pytest.param(
            {REBALANCE: '{"noticeTime": "2026-01-05T18:02:00Z"}'},
            Notices(rebalance=True),
            id="rebalance",
        ),
        pytest.param({LIFECYCLE: "Terminated"}, Notices(lifecycle="Terminated"), id="scaled-in"),
        pytest.param(
            {SPOT: '{"action": "stop"}', REBALANCE: "{}", LIFECYCLE: "InService"},
            Notices(spot_action="stop", rebalance=True, lifecycle="InService"),
            id="all-at-once",
        ),
    ],
)
def test_notices(fake: FakeImds, told: dict[str, str], notices: Notices) -> None:
    fake.keys |= told
    assert Imds(timeout_seconds=0.2).notices() == notices
    assert fake.asked["/latest/api/token"] == 1


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", '{"time": "2026-01-05T18:02:00Z"}', '{"action": null}'],
    ids=["no-json", "no-object", "no-action", "no-word"],
)
def test_a_notice_that_makes_no_sense_is_a_failure(fake: FakeImds, text: str) -> None:
    fake.keys[SPOT] = text
    with pytest.raises(ImdsError, match=SPOT):
        Imds(timeout_seconds=0.2).notices()


def test_an_imds_that_fails_does_not_say_that_all_is_well(fake: FakeImds) -> None:
    fake.faults[f"/latest/meta-data/{SPOT}"] = [503] * 3
    with pytest.raises(ImdsError, match=SPOT):
        Imds(timeout_seconds=0.2).notices()


def test_the_labs_imds_tells_notices_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = labs.Imds(lambda _: "i-1", lambda _: Metadata({"meta-data/instance-id": "i-1"}))
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with lab.listen("127.0.0.1", 0).serving() as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        imds = Imds()
        assert imds.notices() == Notices()
        lab.say("i-1", SPOT, '{"action": "terminate", "time": "2026-01-05T18:02:00Z"}')
        lab.say("i-1", REBALANCE, '{"noticeTime": "2026-01-05T18:02:00Z"}')
        lab.say("i-1", LIFECYCLE, "Terminated")
        assert imds.notices() == Notices(
            spot_action="terminate", rebalance=True, lifecycle="Terminated"
        )
        for path in (SPOT, REBALANCE, LIFECYCLE):
            lab.unsay("i-1", path)
        assert imds.notices() == Notices()
