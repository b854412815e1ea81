"""What a refused ADD hears, and what the daemon shows of itself."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest

from cni.kernel import WireError
from cni.spec import Code, Pod, Sandbox, Verb
from eni.errors import EniError, SubnetExhaustedError, ThrottledError
from eni.model import EniId, SubnetId
from ipamd import metrics, replies, status
from ipamd.budget import Count
from ipamd.caches import Usage
from ipamd.clock import Instant
from ipamd.lease import LeaseRow
from ipamd.pool import EniCensus, Pool, PoolEni
from ipamd.replies import AddRefusedError, Shortage, exhaustion, no_address, queue_full

WEB = Sandbox("enid", "c1", "eth0")
POD = Pod("shop", "web-0")
NOW = Instant(1000.0, 5000.0)


def test_a_pod_hears_why_there_is_no_prefix_beside_what_ec2_says() -> None:
    trouble = SubnetExhaustedError("subnet-1 is full", action="x")
    error = no_address(WEB, POD, Shortage(18, 18, 0, 2, 3, trouble, "subnet-1 gives no /28"), 105.2)
    assert error.msg.endswith("2 of 3 ENIs; subnet-1 is full; subnet-1 gives no /28")


@pytest.mark.parametrize(
    ("enis", "trouble", "words", "advice", "event"),
    [
        pytest.param(3, None, "3 of 3 ENIs", "the node is full", "NodeFull", id="full-node"),
        pytest.param(2, None, "9 of 18 in use, 2 cooling", "on their way", "AddressesLate", id="capacity-comes"),
        pytest.param(2, ThrottledError("slow down", action="x"), "slow down", "no action needed", "Ec2Throttled", id="throttled"),
        pytest.param(2, SubnetExhaustedError("subnet-1 is full", action="x"), "subnet-1 is full", "add one", "SubnetExhausted", id="subnet-full"),
        pytest.param(2, EniError("odd", action="x"), "odd", "kubelet retries", "Ec2Failed", id="unknown-trouble"),
        pytest.param(2, "disk full", "disk full", "enid status", "GrowthHindered", id="no-journal"),
    ],
)  # fmt: skip
def test_an_add_without_an_address_hears_numbers_cause_and_next_step(
    enis: int, trouble: EniError | str | None, words: str, advice: str, event: str
) -> None:
    error = no_address(WEB, POD, Shortage(18, 9, 2, enis, 3, trouble), 105.2)
    assert error.code is Code.TRY_AGAIN_LATER
    assert "pod shop/web-0 after 105 s" in error.msg
    assert words in error.msg
    assert advice in error.details
    assert error.event == event


def test_an_add_whose_pod_nobody_told_is_called_what_the_runtime_calls_it() -> None:
    error = no_address(WEB, Pod(), Shortage(18, 9, 2, 3, 3, None), 105.2)
    assert "c1/eth0 after 105 s" in error.msg


@pytest.mark.parametrize(
    ("error", "event", "code"),
    [
        pytest.param(replies.lease_not_written("disk full"), "LeaseNotWritten", Code.IO, id="lease"),
        pytest.param(replies.wire_not_made(WireError("no memory")), "WireNotMade", Code.IO, id="wire"),
        pytest.param(replies.other_netns(WEB), "SandboxReused", Code.INVALID_CONFIG, id="netns"),
        pytest.param(replies.no_netns(WEB, Verb.ADD), "NetnsMissing", Code.INVALID_ENVIRONMENT, id="no-netns"),
    ],
)  # fmt: skip
def test_what_a_pods_owner_should_see_has_a_reason(
    error: AddRefusedError, event: str, code: Code
) -> None:
    assert (error.event, error.code) == (event, code)
    assert error.msg
    assert error.details


@pytest.mark.parametrize(
    ("verb", "answer", "more"),
    [
        pytest.param(Verb.ADD, replies.other_netns(WEB), 1, id="an-add-is-refused"),
        pytest.param(Verb.ADD, replies.stale(WEB), 0, id="nobody-waits-for-it"),
        pytest.param(Verb.CHECK, replies.other_netns(WEB), 0, id="a-check"),
        pytest.param(Verb.DEL, None, 0, id="a-del"),
    ],
)
def test_refused_adds_are_counted_by_reason(verb: Verb, answer: object, more: int) -> None:
    def counted() -> float:
        labels = {"reason": "SandboxReused"}
        return metrics.REGISTRY.get_sample_value("enid_adds_refused_total", labels) or 0.0

    before = counted()
    metrics.observe(verb, answer, 0.1)
    assert counted() - before == more


def test_nobody_is_told_of_an_add_that_nobody_waits_for() -> None:
    for error in (replies.stale(WEB), replies.deleted_meanwhile(WEB)):
        assert not isinstance(error, AddRefusedError)


def test_the_other_refusals_name_the_attachment() -> None:
    for error in (replies.stale(WEB), replies.other_netns(WEB), replies.deleted_meanwhile(WEB)):
        assert "c1/eth0" in error.msg
        assert error.details


def row(container_id: str, started_ns: int, uid: str = "u", address: str = "10.0.1.5") -> LeaseRow:
    return LeaseRow(
        sandbox=Sandbox("enid", container_id, "eth0"),
        pod=Pod("default", "web-0", uid),
        addresses=(ip_address(address),),
        eni_id=EniId("a"),
        eni_number=1,
        netns=None,
        started_ns=started_ns,
        since=5.0,
    )


def test_a_younger_sandbox_of_the_same_pod_supersedes_the_former() -> None:
    shown = status.leases_of([row("new", 20), row("old", 10)])
    assert [(s["container_id"], s["superseded"]) for s in shown] == [("old", True), ("new", False)]


def test_sandboxes_without_a_pod_uid_supersede_nobody() -> None:
    shown = status.leases_of([row("new", 20, uid=""), row("old", 10, uid="")])
    assert not any(s["superseded"] for s in shown)


def test_enis_cooling_and_errors_as_rows() -> None:
    pool = Pool()
    pool.put_eni(PoolEni(EniId("a"), 1, 9, SubnetId("subnet-1"), NOW))
    pool.put_eni(PoolEni(EniId("b"), 2, 9, SubnetId("subnet-1"), NOW))
    one, two, host = (IPv4Address(f"10.0.1.{n}") for n in (5, 6, 7))
    pool.add(EniId("a"), [IPv4Network(a) for a in (one, two, host)])
    pool.set_taken({host: "ens5", ip_address("10.9.9.9"): "lo"})
    pool.assign(WEB, (one,))
    pool.cool(two, NOW)
    first, second = status.enis_of(pool.census())
    assert (first["assigned"], first["cooling"], first["taken"], first["table"]) == (
        1,
        1,
        1,
        "main",
    )
    assert second["table"] == "2"
    (cooling,) = status.cooling_of(pool, NOW.later(10), 30)
    assert (cooling["address"], cooling["seconds_left"]) == ("10.0.1.6", 20.0)
    errors = status.errors_of(Counter({("CreateNetworkInterface", "EC2-THROTTLED"): 2}))
    assert errors == [{"action": "CreateNetworkInterface", "id": "EC2-THROTTLED", "count": 2}]


def test_a_restored_unknown_address_counts_for_its_eni_only_when_that_is_known() -> None:
    pool = Pool()
    assert pool.restore(WEB, (ip_address("10.0.1.5"),), EniId("unknown")) == ()
    assert pool.census() == ()
    assert pool.choose(NOW, 30) is None


def test_beside_too_many_that_wait_the_next_hears_how_many_and_why() -> None:
    trouble = SubnetExhaustedError("subnet-1 is full", action="x")
    error = queue_full(WEB, POD, 64, Shortage(18, 18, 0, 2, 3, trouble))
    assert error.code is Code.TRY_AGAIN_LATER
    assert error.event == "AddQueueFull"
    assert error.msg.startswith("64 ADDs wait for an address already")
    assert "subnet-1 is full" in error.msg
    assert "add one for this zone" in error.details


def test_what_ec2_and_the_caches_cost_as_rows() -> None:
    counts = {"Assign": Count(3, 1, waited_seconds=0.5, answered_seconds=1.25)}
    (action,) = status.actions_of({"Assign": 4}, counts, {})
    assert (action["requests"], action["throttles"], action["waiting"]) == (4, 1, 0)
    (cache,) = status.caches_of([Usage("subnets", 8, 2, 5, 3, 1)])
    assert (cache["name"], cache["size"], cache["used"], cache["hits"]) == ("subnets", 8, 2, 5)


ENI = PoolEni(EniId("eni-1"), 1, 9, SubnetId("subnet-1"), NOW)
FULL = EniCensus(ENI, assigned=9, singles=9)
REFUSED = SubnetExhaustedError("subnet-1 is full", action="x")


@pytest.mark.parametrize(
    ("census", "enis", "trouble", "sentence"),
    [
        pytest.param(FULL, 1, None, "no address for another pod: 9 of 9 in use, 1 of 1 ENIs", id="full"),
        pytest.param(FULL, 1, REFUSED, "no address for another pod: 9 of 9 in use, 1 of 1 ENIs; subnet-1 is full", id="full-and-refused"),
        pytest.param(EniCensus(ENI, assigned=4, singles=4), 1, REFUSED, "no address for another pod: 9 of 9 in use, 1 of 1 ENIs; subnet-1 is full", id="refused"),
        pytest.param(EniCensus(ENI, assigned=4, singles=4), 1, None, "", id="may-still-grow"),
        pytest.param(FULL, 0, None, "", id="may-attach"),
        pytest.param(EniCensus(ENI, assigned=8, free=1, singles=9), 1, REFUSED, "", id="one-is-free"),
        pytest.param(EniCensus(ENI, assigned=8, cooling=1, singles=9), 1, REFUSED, "", id="one-will-be"),
    ],
)  # fmt: skip
def test_a_node_is_exhausted_when_another_pod_would_get_nothing_now_or_soon(
    census: EniCensus, enis: int, trouble: EniError | None, sentence: str
) -> None:
    assert exhaustion([census], Shortage(9, 9, 0, enis, 1, trouble)) == sentence


def test_a_check_hears_every_difference() -> None:
    error = replies.not_as_wired(WEB, ("eth0 is down", "lo is down"))
    assert error.code is Code.NOT_AS_WIRED
    assert error.msg == "c1/eth0 is not as it was made: eth0 is down; lo is down"


def test_a_check_of_nothing_hears_that_there_is_nothing() -> None:
    error = replies.unknown(WEB)
    assert (error.code, error.msg) == (Code.UNKNOWN_CONTAINER, "c1/eth0 is not attached to enid")
