"""The engine with real boto3 against the embedded EC2; the kernel is a fake that keeps state.

Every test is a short life of a node: rounds of the engine, time passing, pods coming and
going, and kills at every EC2 call. What must hold at the end is said in EC2's words.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import boto3
import pytest

from cni.dataplane import EniLink, host_ifname, pod_mac
from cni.kernel import HostLink, Link, NetnsId, NodeError, Wish
from cni.spec import Attached, NetConf, Pod, Request, Sandbox, Verb
from cni.wire import check_netns
from eni.ec2 import Ec2
from eni.errors import EniError, SubnetExhaustedError, ThrottledError, UnknownOutcomeError
from eni.limits import shipped
from eni.model import Address, Eni, EniId, Identity, InstanceId, Network, SecurityGroupId, SubnetId
from ipamd.attachments import Attachments, Node
from ipamd.clock import Instant
from ipamd.cloud import UNMANAGED_TAG, Cloud, Home
from ipamd.decide import ENI_MIN_AGE_SECONDS, Targets
from ipamd.engine import CALM_SECONDS, LOOK_AGAIN_SECONDS, ORPHAN_SECONDS, Engine
from ipamd.journal import EniState, Intent, Journal, JournalError
from ipamd.lease import LeaseRow
from ipamd.leases import Leases
from ipamd.pool import Assigned, Pool, PoolEni
from ipamd.replies import Shortage
from vpclab.api import ControlPlane, control_plane

COOLDOWN = 30.0


class KilledError(BaseException):
    """kill -9, as the code sees it: never."""


class FakeKernel:
    """The node's side of ENIs: links come when EC2 attaches. The contract is NodeNetlink's."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.configured: dict[str, EniLink] = {}
        self.rules: tuple[EniLink, ...] = ()
        self.fewest_rules = 99
        self.guarded: set[Network] = set()
        self.hosts: dict[Address, str] = {}
        self.refusals = 0

    def find_link(self, mac: str) -> Link | None:
        plugged = {e.mac_address for e in self._plane.backend.enis.values() if e.is_plugged}
        if mac not in plugged:
            return None
        return Link(index=2, name="ens2", mac=mac, mtu=9001, is_up=True, group=0)

    def configure_eni(self, eni: EniLink) -> None:
        assert self.find_link(eni.mac) is not None
        if self.refusals:
            self.refusals -= 1
            raise NodeError("no buffer space")
        self.configured[eni.mac] = eni

    def set_rules(self, enis: Sequence[EniLink], *, prune: bool = True) -> None:
        kept = () if prune else tuple(link for link in self.rules if link not in enis)
        self.rules = (*enis, *kept)
        self.fewest_rules = min(self.fewest_rules, len(self.rules))

    def add_guards(self, networks: Iterable[Network]) -> None:
        self.guarded |= set(networks)

    def remove_guards(self, networks: Iterable[Network]) -> None:
        self.guarded -= set(networks)

    def guards(self, want: Iterable[Network]) -> tuple[int, int]:
        wanted, there = set(want), self.guarded
        self.guarded = wanted
        return len(wanted - there), len(there - wanted)

    def host_addresses(self) -> Mapping[Address, str]:
        return self.hosts

    def purge_conntrack(self, addresses: Collection[Address]) -> int:
        del addresses
        return 0

    def apply_nft(self, text: str) -> bool:
        del text
        return False

    def missing_features(self) -> tuple[str, ...]:
        return ()

    def sysctl_complaints(self) -> tuple[str, ...]:
        return ()


class FakeWiring:
    """Wires as a set of names."""

    def __init__(self) -> None:
        self.wires: dict[str, Wish] = {}

    def identify(self, netns_fd: int) -> NetnsId:
        return check_netns(netns_fd)

    def connect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int, netns_path: str) -> Attached:
        del netns_fd, pod_netlink_fd
        self.wires[host_ifname(wish.sandbox)] = wish
        return Attached("eni0", "", pod_mac(wish.addresses[0]), "eth0", netns_path, (), wish.mtu)

    def disconnect(self, host_ifname: str, addresses: Sequence[Address]) -> None:
        del addresses
        self.wires.pop(host_ifname, None)

    def reap(self) -> int:
        return 0

    def links(self) -> tuple[HostLink, ...]:
        return ()


class FaultyEc2:
    """The real client, and a fault at a chosen call: before it is sent, or after it was done."""

    def __init__(self, real: Ec2) -> None:
        self._real = real
        self.before: dict[int, BaseException] = {}
        self.after: dict[int, BaseException] = {}
        self.log: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def call(*arguments: Any) -> Any:
            number = len(self.log)
            self.log.append(name)
            if number in self.before:
                raise self.before.pop(number)
            result = method(*arguments)
            if number in self.after:
                raise self.after.pop(number)
            return result

        return call


@dataclass
class World:
    """One node's daemon over one EC2; `restart` is a new life over the same files."""

    folder: Path
    plane: ControlPlane
    client: Any
    instance_id: str
    subnet_id: str
    targets: Targets = field(default_factory=Targets)
    max_enis: int = 3
    moment: Instant = field(default_factory=lambda: Instant(1000.0, 1.8e9))

    def __post_init__(self) -> None:
        self.kernel = FakeKernel(self.plane)
        self.wiring = FakeWiring()
        self.observer = Ec2(region="us-east-1")
        self.ec2 = FaultyEc2(self.observer)
        self.cloud_thread = ThreadPoolExecutor(1)
        self.wire_thread = ThreadPoolExecutor(1)
        self.files = ExitStack()
        self.restart()

    def close(self) -> None:
        self.files.close()
        self.cloud_thread.shutdown()
        self.wire_thread.shutdown()

    def restart(self, *, keep_journal: bool = True) -> None:  # noqa: C901 - a start, in its order
        self.files.close()
        if not keep_journal:
            for path in self.folder.glob("journal.db*"):
                path.unlink()
        self.journal = Journal(self.folder / "journal.db")
        self.leases = Leases(self.folder / "leases.db")
        self.files.callback(self.journal.close)
        self.files.callback(self.leases.close)
        backend = self.plane.backend
        instance = backend.get_instance(self.instance_id)
        primary = instance.nics[0]
        limits = shipped(instance.instance_type)
        assert limits is not None
        self.primary_id = EniId(primary.id)
        network = IPv4Network(primary.subnet.cidr_block)
        identity = Identity(
            instance_id=InstanceId(self.instance_id),
            instance_type=instance.instance_type,
            region="us-east-1",
            availability_zone="us-east-1a",
            mac=primary.mac_address,
            primary=IPv4Address(primary.private_ip_address),
        )
        groups = tuple(SecurityGroupId(g.id) for g in primary.group_set)
        home = Home(identity, SubnetId(self.subnet_id), network, groups, 9001)
        self.cloud = Cloud(
            ec2=self.ec2,
            net=self.kernel,
            journal=self.journal,
            home=home,
            wall=lambda: self.moment.wall,
            stop=threading.Event(),
        )
        note = {"primary": str(identity.primary), "secondary": [], "subnet_id": self.subnet_id}
        if not any(i.token == "primary" for i in self.journal.intents()):
            self.journal.put(
                Intent(
                    token="primary",
                    state=EniState.ACTIVE,
                    device_index=0,
                    parameters={"eni": note},
                    eni_id=self.primary_id,
                    mac=primary.mac_address,
                ),
                self.moment.wall,
            )
        self.pool = Pool()
        self.attachments = Attachments(
            pool=self.pool,
            leases=self.leases,
            wiring=self.wiring,
            thread=self.wire_thread,
            node=Node(identity.primary, 9001),
            cooldown_seconds=COOLDOWN,
            clock=lambda: self.moment,
        )
        self.attachments.shortage = lambda: Shortage(0, 0, 0, 1, self.max_enis)
        per_eni = limits.ipv4_per_eni - 1
        for intent in self.journal.intents():
            if intent.state is EniState.ACTIVE and intent.eni_id:
                self.cloud.set_up_link(intent)
                number = intent.device_index + 1
                self.pool.put_eni(PoolEni(intent.eni_id, number, per_eni, self.moment))
        for address, eni_id, _ in self.journal.addresses():
            if eni_id in self.pool.enis:
                self.pool.add(eni_id, [address], confirmed=False)
        for address, eni_id, since in self.leases.cooling():
            if eni_id in self.pool.enis:
                self.pool.cool(address, since)
        for row in self.leases.rows():
            self.pool.restore(row.sandbox, row.addresses, row.eni_id)
            self.attachments.restore(row)
        self.engine = Engine(
            attachments=self.attachments,
            cloud=self.cloud,
            thread=self.cloud_thread,
            targets=self.targets,
            max_enis=self.max_enis,
            per_eni=per_eni,
            clock=lambda: self.moment,
            jitter=lambda: 0.0,
        )

    def rounds(self, number: int = 1, *, seconds: float = 0.0) -> None:
        async def go() -> None:
            for _ in range(number):
                await self.engine.round()
                self.moment = self.moment.later(seconds)
                self.pool.mark_purged(self.pool.unpurged())
                self.pool.settle(self.moment, COOLDOWN)

        asyncio.run(go())

    def calm(self) -> None:
        """Let rounds pass until nothing more is given back."""
        self.rounds(12, seconds=CALM_SECONDS)

    def pod(self, name: str) -> None:
        """Start a pod, as an ADD does."""
        address = self.pool.choose(self.moment, COOLDOWN)
        assert address is not None
        sandbox = Sandbox("enid", name, "eth0")
        slot = self.pool.slots[address]
        number = self.pool.enis[slot.eni_id].number
        self.leases.insert(
            LeaseRow(
                sandbox=sandbox,
                pod=Pod(),
                addresses=(address,),
                eni_id=slot.eni_id,
                eni_number=number,
                netns=None,
                started_ns=0,
                since=self.moment.wall,
            )
        )
        self.pool.assign(sandbox, (address,))

    def pods(self, number: int) -> None:
        """Start that many, one a second."""
        for index in range(number):
            self.pod(f"pod-{len(self.pool.slots)}-{index}-{self.moment.boot}")
            self.moment = self.moment.later(1.0)

    def stop(self, *, on: EniId | None = None) -> None:
        """Stop every pod, or those of one ENI, as DELs do."""
        for slot in list(self.pool.slots.values()):
            if isinstance(slot.state, Assigned) and on in {None, slot.eni_id}:
                self.leases.release(slot.state.sandbox, self.moment)
                self.pool.release(slot.state.sandbox, self.moment)

    # EC2's view ------------------------------------------------------------------------
    def attached(self) -> tuple[Eni, ...]:
        return self.observer.attached(InstanceId(self.instance_id))

    def all_enis(self) -> list[str]:
        return sorted(e.id for e in self.plane.backend.enis.values())

    def held(self) -> set[Address]:
        return {address for eni in self.attached() for address in eni.secondary}

    def check(self) -> None:
        """What holds whenever the engine rests."""
        attached = self.attached()
        assert set(self.pool.slots) == self.held(), "the pool and EC2 disagree"
        assert {e.id for e in attached} == set(self.all_enis()), "an ENI is leaked"
        assert {e.id for e in attached} == set(self.pool.enis), "an ENI is not recorded"
        assert self.kernel.guarded == {IPv4Network(a) for a in self.held()}
        intents = self.journal.intents()
        assert {i.eni_id for i in intents} == {e.id for e in attached}
        assert all(i.state is EniState.ACTIVE for i in intents)
        for eni in attached:
            assert eni.attachment is not None
            assert eni.attachment.delete_on_termination
        macs = {eni.mac for eni in attached if eni.id != self.primary_id}
        assert macs <= set(self.kernel.configured)
        assert {link.mac for link in self.kernel.rules} >= macs


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    """Give a maker of worlds: m5.large, 3 ENIs of 9 secondary addresses each."""
    with control_plane() as (url, plane):
        for name, value in (
            ("AWS_ENDPOINT_URL_EC2", url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ):
            monkeypatch.setenv(name, value)
        client = boto3.client("ec2", region_name="us-east-1")
        vpc_id = client.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]

        def make(cidr: str = "10.0.1.0/24", **changes: Any) -> World:
            subnet = client.create_subnet(
                VpcId=vpc_id, CidrBlock=cidr, AvailabilityZone="us-east-1a"
            )["Subnet"]["SubnetId"]
            launched = client.run_instances(
                ImageId="ami-760aaa0f",
                InstanceType="m5.large",
                SubnetId=subnet,
                MinCount=1,
                MaxCount=1,
            )
            for eni_id in [e for e in plane.backend.enis]:  # noqa: C416 - a copy: it changes
                if plane.backend.enis[eni_id].instance is None:
                    client.delete_network_interface(NetworkInterfaceId=eni_id)
            instance_id = launched["Instances"][0]["InstanceId"]
            made = World(tmp_path, plane, client, instance_id, subnet, **changes)
            worlds.callback(made.close)
            return made

        with ExitStack() as worlds:
            yield make


Make = Callable[..., World]


# Growing ---------------------------------------------------------------------------------
def test_boot_fills_one_enis_worth(world: Make) -> None:
    node = world()
    node.rounds()
    assert [len(e.secondary) for e in node.attached()] == [9]
    node.check()


def test_the_first_pod_brings_the_next_eni_in_three_calls(world: Make) -> None:
    node = world()
    node.rounds()
    node.pod("web-0")
    node.plane.calls.clear()
    node.rounds()
    assert dict(node.plane.calls) == {
        "CreateNetworkInterface": 1,
        "AttachNetworkInterface": 1,
        "ModifyNetworkInterfaceAttribute": 1,
    }
    assert [len(e.secondary) for e in node.attached()] == [9, 9]
    node.check()


def test_a_resting_node_asks_ec2_nothing(world: Make) -> None:
    node = world()
    node.rounds(2)
    node.plane.calls.clear()
    node.rounds(20, seconds=5.0)
    assert node.plane.calls == {}


def test_targets_by_address_are_met_exactly(world: Make) -> None:
    node = world(targets=Targets(1, warm_ip=2, minimum_ip=5))
    node.rounds()
    assert len(node.held()) == 5
    node.pods(5)
    node.rounds()
    assert len(node.held()) == 7
    node.pods(2)
    node.rounds()
    node.pods(2)
    node.rounds()
    assert [len(e.secondary) for e in node.attached()] == [9, 2]
    node.check()


def test_the_node_stops_at_max_eni(world: Make) -> None:
    node = world(max_enis=2)
    node.rounds()
    node.pods(9)
    node.rounds()
    node.pods(9)
    node.rounds()
    assert len(node.attached()) == 2
    node.check()


def test_other_limits_of_ec2_hold_at_once(world: Make) -> None:
    node = world(targets=Targets(0))
    node.rounds()
    node.engine.set_limits(max_enis=1, per_eni=4)
    assert node.pool.census()[0].eni.capacity == 4
    node.pods(9)
    node.rounds()
    assert len(node.attached()) == 1


def test_an_eni_of_somebody_else_is_left_alone_and_counted(world: Make) -> None:
    node = world()
    made = node.client.create_network_interface(
        SubnetId=node.subnet_id,
        TagSpecifications=[
            {
                "ResourceType": "network-interface",
                "Tags": [{"Key": UNMANAGED_TAG, "Value": "true"}],
            }
        ],
    )["NetworkInterface"]["NetworkInterfaceId"]
    node.client.attach_network_interface(
        NetworkInterfaceId=made, InstanceId=node.instance_id, DeviceIndex=1
    )
    node.rounds()
    node.pods(9)
    node.rounds()
    node.pods(9)
    node.rounds()
    assert node.engine.unmanaged == (made,)
    assert [e.attachment and e.attachment.device_index for e in node.attached()] == [0, 1, 2]
    assert made not in node.pool.enis


def test_an_eni_that_was_attached_by_hand_is_adopted(world: Make) -> None:
    node = world()
    made = node.client.create_network_interface(
        SubnetId=node.subnet_id, SecondaryPrivateIpAddressCount=4
    )["NetworkInterface"]["NetworkInterfaceId"]
    node.client.attach_network_interface(
        NetworkInterfaceId=made, InstanceId=node.instance_id, DeviceIndex=1
    )
    node.rounds()
    assert made in node.pool.enis
    node.check()


def test_an_address_that_is_on_a_host_link_is_never_given_out(world: Make) -> None:
    node = world(targets=Targets(0))
    node.kernel.hosts = {IPv4Address("10.0.1.7"): "ens5"}
    node.rounds()
    assert IPv4Address("10.0.1.7") in node.held()
    node.pods(8)
    assert node.pool.choose(node.moment, COOLDOWN) is None
    assert node.pool.census()[0].taken == 1
    node.rounds()
    node.check()


def test_a_full_subnet_is_said_and_tried_again(world: Make) -> None:
    node = world(cidr="10.0.2.0/28")  # 11 addresses: the primary's and 10 more
    node.rounds()
    node.pod("web-0")
    with pytest.raises(SubnetExhaustedError, match=node.subnet_id):
        node.rounds()
    assert all(i.state is EniState.ACTIVE for i in node.journal.intents())
    node.check()


# Shrinking -------------------------------------------------------------------------------
def test_surplus_addresses_go_back_when_calm(world: Make) -> None:
    node = world(targets=Targets(1, warm_ip=2))
    for _ in range(4):
        node.rounds()
        node.pods(2)
    node.rounds()
    assert len(node.held()) == 10
    node.stop()
    node.rounds()
    assert len(node.held()) == 10, "eight cool and are not warm, so two free stay"
    node.calm()
    assert len(node.held()) == 2
    node.check()


def test_an_eni_nobody_uses_goes_back_with_its_rules_and_guards(world: Make) -> None:
    node = world()
    node.rounds()
    node.pod("web-0")
    node.rounds()
    second = node.attached()[1]
    assert node.plane.backend.enis[second.id].is_plugged
    node.stop()
    node.rounds(2, seconds=ENI_MIN_AGE_SECONDS)
    node.calm()
    assert [e.id for e in node.attached()] == [node.primary_id]
    assert second.mac not in {link.mac for link in node.kernel.rules}
    node.check()


def test_an_eni_with_one_pod_stays(world: Make) -> None:
    node = world(targets=Targets(0))
    node.rounds()
    node.pods(9)
    node.rounds()
    node.pod("web-0")
    node.stop(on=node.primary_id)
    node.rounds(2, seconds=ENI_MIN_AGE_SECONDS)
    node.calm()
    assert len(node.attached()) == 2
    node.check()


# Faults ----------------------------------------------------------------------------------
def grow(node: World, *, patience: int = 12) -> None:
    """Run rounds until the engine rests, as `Engine.run` does, through errors and kills."""
    calm = 0
    for _ in range(patience):
        try:
            node.rounds()
        except KilledError:
            node.restart()
        except (EniError, JournalError, NodeError):
            node.moment = node.moment.later(LOOK_AGAIN_SECONDS + 1)
        else:
            node.moment = node.moment.later(ORPHAN_SECONDS + 1)
            calm += 1
            if calm == 4:
                return
    pytest.fail(f"no rest after {patience} rounds: {node.ec2.log}")


def life(node: World) -> None:
    """Grow to two ENIs."""
    grow(node)
    node.pods(1)
    grow(node)


CALLS = 6
"""EC2 calls of `life`; the test below pins it, so that faults reach all of them."""


def test_a_life_without_faults_is_this_many_calls(world: Make) -> None:
    node = world()
    life(node)
    node.check()
    assert len(node.ec2.log) == CALLS


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(CALLS))
def test_a_kill_at_any_call_loses_nothing(world: Make, number: int, when: str) -> None:
    node = world()
    getattr(node.ec2, when)[number] = KilledError()
    life(node)
    node.check()
    assert len(node.attached()) == 2


@pytest.mark.parametrize("number", range(CALLS))
def test_an_answer_that_is_lost_is_settled_by_looking(world: Make, number: int) -> None:
    node = world()
    node.ec2.after[number] = UnknownOutcomeError("no answer", action="any")
    life(node)
    node.check()


@pytest.mark.parametrize("number", range(CALLS))
def test_throttling_delays_and_loses_nothing(world: Make, number: int) -> None:
    node = world()
    node.ec2.before[number] = ThrottledError("slow down", action="any")
    life(node)
    node.check()


@pytest.mark.parametrize("number", range(CALLS))
def test_a_kill_with_the_journal_lost_leaks_nothing(world: Make, number: int) -> None:
    node = world()
    node.ec2.after[number] = KilledError()
    life(node)
    node.restart(keep_journal=False)
    grow(node)
    node.check()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(6))
def test_a_kill_while_an_eni_goes_loses_nothing(world: Make, number: int, when: str) -> None:
    node = world()
    life(node)
    node.stop()
    node.moment = node.moment.later(10 * ENI_MIN_AGE_SECONDS)
    getattr(node.ec2, when)[len(node.ec2.log) + number] = KilledError()
    for _ in range(14):
        try:
            node.rounds(seconds=CALM_SECONDS)
        except KilledError:
            node.restart()
        except EniError:
            node.moment = node.moment.later(LOOK_AGAIN_SECONDS)
    node.moment = node.moment.later(10 * ENI_MIN_AGE_SECONDS)
    node.calm()
    assert [e.id for e in node.attached()] == [node.primary_id]
    node.check()


@pytest.mark.parametrize("keep_journal", [True, False])
def test_a_restart_never_takes_the_rule_of_an_eni_away(world: Make, *, keep_journal: bool) -> None:
    node = world()
    life(node)
    node.kernel.fewest_rules = 99
    node.restart(keep_journal=keep_journal)
    grow(node)
    assert node.kernel.fewest_rules == 2
    node.check()


def test_an_eni_we_made_and_forgot_is_deleted_on_the_second_look(world: Make) -> None:
    node = world()
    node.rounds()
    node.pods(1)
    node.ec2.after[len(node.ec2.log)] = KilledError()
    with pytest.raises(KilledError):
        node.rounds()
    assert node.ec2.log[-1] == "create"
    (orphan,) = set(node.all_enis()) - {node.primary_id}
    node.restart(keep_journal=False)
    node.rounds()
    assert orphan in node.all_enis(), "one look deletes nothing"
    grow(node)
    assert orphan not in node.all_enis()
    node.check()


def test_what_ec2_denies_is_dropped_on_the_second_look_only(world: Make) -> None:
    node = world()
    node.rounds()
    lost = max(node.held(), key=int)
    node.client.unassign_private_ip_addresses(
        NetworkInterfaceId=node.primary_id, PrivateIpAddresses=[str(lost)]
    )
    node.restart()
    node.rounds()
    assert lost in node.pool.slots
    node.moment = node.moment.later(LOOK_AGAIN_SECONDS + 1)
    node.rounds(2)
    assert lost not in node.pool.slots


def test_a_pods_address_stays_whatever_ec2_says(world: Make) -> None:
    node = world()
    node.rounds()
    node.pod("web-0")
    (address,) = node.pool.addresses_of(Sandbox("enid", "web-0", "eth0"))
    node.client.unassign_private_ip_addresses(
        NetworkInterfaceId=node.primary_id, PrivateIpAddresses=[str(address)]
    )
    node.engine.has_census = False
    for _ in range(4):
        node.rounds()
        node.moment = node.moment.later(LOOK_AGAIN_SECONDS + 1)
    assert isinstance(node.pool.slots[address].state, Assigned)


def test_a_kernel_that_refuses_is_asked_again(world: Make) -> None:
    node = world()
    grow(node)
    node.pods(1)
    node.kernel.refusals = 2
    with pytest.raises(NodeError):
        node.rounds()
    grow(node)
    assert len(node.attached()) == 2
    node.check()


def test_a_full_disk_stops_growth_and_not_pods(world: Make) -> None:
    node = world()
    node.rounds()
    node.journal._db.execute("PRAGMA query_only = 1")  # noqa: SLF001 - a full disk reads, too
    node.pod("web-0")
    before = node.all_enis()
    with pytest.raises(JournalError):
        node.rounds()
    assert node.all_enis() == before
    node.pod("web-1")


# ADDs that wait --------------------------------------------------------------------------
class FakeClient:
    """A plugin that waits for its answer."""

    def __init__(self, number: int) -> None:
        self.id = number
        read, write = os.pipe()
        self.descriptors: tuple[int, ...] = (read, write)
        self.on_gone: Callable[[], None] = lambda: None
        self.answers: list[tuple[int, bytes]] = []

    def reply(self, code: int, stdout: bytes) -> None:
        self.answers.append((code, stdout))

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


def request(name: str, verb: Verb = Verb.DEL) -> Request:
    return Request(verb, Sandbox("enid", name, "eth0"), "", Pod(), NetConf("1.0.0", "enid"))


def test_a_del_of_what_nobody_knows_succeeds(world: Make) -> None:
    node = world()
    client = FakeClient(1)

    async def go() -> None:
        node.attachments.take(client, request("ghost"), 5, 10)

    asyncio.run(go())
    assert client.answers == [(0, b"")]
    assert client.descriptors == ()
    assert node.leases.deletes(node.moment) == {Sandbox("enid", "ghost", "eth0"): 5}


def test_an_add_whose_descriptor_is_no_netns_is_refused(world: Make) -> None:
    node = world()
    client = FakeClient(1)

    async def go() -> None:
        node.attachments.take(client, request("web-0", Verb.ADD), 5, 10)

    asyncio.run(go())
    ((code, answer),) = client.answers
    assert code == 1
    assert b"not a network namespace" in answer
    assert node.leases.rows() == ()
