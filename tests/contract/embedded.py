"""The embedded EC2 as the cloud of a `World`: real boto3, in the world's virtual time.

A virtual loop runs a thread's work inline, so that boto3 may block for milliseconds while the
clock of the world stands still; what a call takes there is the world's `latency`. Attaching and
detaching take virtual seconds, and descriptions may lag by some. What a test does by hand goes
to an endpoint of its own, where nothing is counted, and where no fault or policy is met.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, TypeVar, cast

import boto3
import pytest

from eni import parse
from eni.ec2 import Ec2
from eni.errors import EniError, ThrottledError, UnknownOutcomeError, UnreachableError
from eni.limits import shipped
from eni.model import Eni, EniId, Identity, InstanceId, SecurityGroupId, SubnetId, VpcId
from ipamd.ports import CountedEc2
from tests.chaos.kernel import KilledError
from tests.contract.cloud import REGION
from vpclab.api import ControlPlane, control_plane, listen, serving
from vpclab.ec2.credentials import Key
from vpclab.ec2.model import Eni as Shown
from vpclab.enid import node_policy
from vpclab.metadata import ROLE

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

T = TypeVar("T")
ZONE = "us-east-1a"

QUESTIONS = frozenset(
    {"attached", "eni", "by_tag", "available", "subnet", "subnets", "reservations", "limits"}
)
"""The methods of `eni.calls.Ec2Calls` that change nothing."""

STALE_SECONDS = 20.0
"""How far descriptions are behind by `Fault.STALE`, and for how long; less than lies between two
looks of the daemon's, which is more than EC2 was ever seen to need."""

TIMEOUT_SECONDS = 10.0
"""How long a client of ours waits for an answer (`eni.ec2.Ec2`)."""

SLOW_SECONDS = 9.0
"""How long an answer takes that comes just in time."""

LATE_SECONDS = 12.0
"""When EC2 does what nobody waits for any more: the client has given up, and a daemon that was
started meanwhile has looked once; less than lies between two looks of its."""


class Fault(StrEnum):
    """What can happen to one call."""

    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    LOST = "answer lost"
    THROTTLED = "throttled"
    STALE = "stale"
    """A question is answered from before; behind a mutation the daemon dies, and the next one's
    questions are answered so."""
    SLOW = "answered late"
    """Done at once, and answered only just in time."""
    KILLED_WAITING = "killed waiting"
    """Done at once; the daemon dies while it waits for the answer."""
    LATE = "done late"
    """Not answered in time, and done after that."""
    KILLED_LATE = "dead, done late"
    """Sent by a daemon that dies of it, and done when the next one lives."""

    @property
    def is_of_mutations(self) -> bool:
        """Whether another one is the same to a question: it is lost, or the daemon is dead."""
        return self in {Fault.KILLED_AFTER, Fault.LATE, Fault.KILLED_LATE}


class Region:
    """An EC2, the node's way to it, and the hand of a test."""

    def __init__(self, plane: ControlPlane, url: str, hand_url: str) -> None:
        self.plane = plane
        self.node_url = url
        self.node = Ec2(region=REGION, endpoint_url=url)
        self.hand: EC2Client = boto3.client("ec2", region_name=REGION, endpoint_url=hand_url)


@contextmanager
def region() -> Iterator[Region]:
    """Give an EC2 without any VPC; one at a time."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        control_plane(REGION) as (url, plane),
        closing(listen("127.0.0.1", 0)) as listener,
        serving(plane.application(counted=False), listener),
    ):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        yield Region(plane, url, f"http://127.0.0.1:{listener.getsockname()[1]}")


class EmbeddedCloud:
    """One instance in a VPC of its own; the contract is `tests.chaos.world.Cloud`'s."""

    def __init__(
        self,
        region: Region,
        clock: Callable[[], float],
        *,
        instance_type: str = "m5.large",
        prefix: int = 24,
    ) -> None:
        self.region = region
        self.plane, self.hand = region.plane, region.hand
        self._be_new(clock)
        self.vpc_cidr = IPv4Network("10.0.0.0/16")
        self.vpc_id = VpcId(self.hand.create_vpc(CidrBlock=str(self.vpc_cidr))["Vpc"]["VpcId"])
        self._networks = self.vpc_cidr.subnets(new_prefix=24)
        self.subnets: dict[SubnetId, IPv4Network] = {}
        self.subnet_id = self.add_subnet(prefix)
        self.subnet_cidr = self.subnets[self.subnet_id]
        self.launch(instance_type)

    def _be_new(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.node: CountedEc2 = self.region.node
        self.lag_seconds = 0.0
        """How far descriptions of ENIs are behind."""
        self.lag_until = float("inf")
        self.log: list[str] = []
        """Which methods the daemons have called, in their order."""
        self.faults: dict[int, Fault] = {}
        """What happens to which of those calls."""
        self.answers: dict[str, object] = {}
        """What EC2 answers to a method, whatever it is asked."""
        self.is_away = False
        """Whether the endpoint is not reached."""
        self.hides_links = False
        """Whether the instance sees no ENI but its primary."""
        self.linger: Callable[[float], None] = lambda _: None
        """Lets the answer to the call under way come so many seconds late."""
        self.on_calls: list[Callable[[str], None]] = []
        """Told of each call of the daemon's, by its method, before it is made."""
        self.die_in: Callable[[float], None] = lambda _: None
        """Lets the daemon that calls die in so many seconds."""
        self._others: list[str] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._sent: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._states: list[tuple[float, Mapping[str, Shown]]] = []
        self._enis: tuple[Eni, ...] | None = None
        self.plane.on_change = self._on_change
        self.plane.backend.told = self._told
        self.plane.backend.later = self._at_last

    def begin_anew(self, clock: Callable[[], float]) -> None:
        """Launch another node into the VPC, of which the last one has ended."""
        self._be_new(clock)
        self.launch()

    def launch(self, instance_type: str = "m5.large") -> None:
        """Let the node be a new instance."""
        made = self._run(instance_type)
        primary = made["NetworkInterfaces"][0]
        self.primary_id = EniId(primary["NetworkInterfaceId"])
        (eni,) = (e for e in self.enis() if e.id == self.primary_id)
        assert eni.primary is not None
        self.identity = Identity(
            instance_id=InstanceId(made["InstanceId"]),
            instance_type=instance_type,
            region=REGION,
            availability_zone=ZONE,
            mac=eni.mac,
            primary=eni.primary,
        )
        self.plane.backend._tokens.clear()  # noqa: SLF001 - every world counts them from 1
        self.plane.calls.clear()
        self.log.clear()

    def _run(self, instance_type: str) -> InstanceTypeDef:
        return self.hand.run_instances(
            ImageId="ami-760aaa0f",
            InstanceType=cast("Any", instance_type),
            SubnetId=self.subnet_id,
            MinCount=1,
            MaxCount=1,
        )["Instances"][0]

    def end(self) -> None:
        """Leave the VPC as it was before `launch`."""
        self.settle()
        self.lag_seconds = 0.0
        self.plane.access.unrestrict()
        self.plane.faults.clear()
        self.plane.backend.delays.attach_seconds = self.plane.backend.delays.detach_seconds = 0
        self.hand.terminate_instances(InstanceIds=[self.identity.instance_id, *self._others])
        self._others.clear()
        for eni in self.enis():
            self.hand.delete_network_interface(NetworkInterfaceId=eni.id)

    # Time ------------------------------------------------------------------------------
    def _at_last(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._later, (self.clock() + seconds, next(self._numbers), work))

    def settle(self) -> None:
        """Let happen what EC2 has had time for."""
        while self._sent and self._sent[0][0] <= self.clock():
            _, _, send = heapq.heappop(self._sent)
            with contextlib.suppress(EniError):
                send()
        while self._later and self._later[0][0] <= self.clock():
            _, _, work = heapq.heappop(self._later)
            self.plane.perform(functools.partial(self._arrive, work))

    def do_late(self, send: Callable[[], object]) -> None:
        """Let EC2 do what it is told only later, whoever lives then."""
        heapq.heappush(self._sent, (self.clock() + LATE_SECONDS, next(self._numbers), send))

    def _arrive(self, work: Callable[[], None]) -> None:
        work()
        for eni in self.plane.backend.changed:
            eni.attached_at = 0.0

    def _on_change(self, eni: Shown) -> None:
        self._enis = None
        there = self.plane.backend.enis
        last = self._states[-1][1] if self._states else {}
        state = {eni_id: shown for eni_id, shown in last.items() if eni_id in there}
        if eni.id in there:
            state[eni.id] = eni.seen(time.monotonic())
        self._states.append((self.clock(), state))

    def _told(self) -> Mapping[str, Shown]:
        if not self.lag_seconds or self.clock() >= self.lag_until:
            return self.plane.backend.enis
        then = self.clock() - self.lag_seconds
        seen = [state for at, state in self._states if at <= then]
        return seen[-1] if seen else self._states[0][1]

    @contextmanager
    def stale(self, seconds: float = STALE_SECONDS) -> Iterator[None]:
        """Let descriptions be so far behind."""
        before, self.lag_seconds = self.lag_seconds, seconds
        try:
            yield
        finally:
            self.lag_seconds = before

    # What a world needs ------------------------------------------------------------------
    def ec2(self, region: str) -> CountedEc2:
        """Return the node's client."""
        assert region == REGION
        return cast("CountedEc2", _Client(self))

    def plugged(self) -> Collection[str]:
        """Return the MACs that the instance has a link of."""
        self.settle()
        if self.hides_links:
            return []
        now = [eni for eni in self.attached() if eni.attachment]
        return [eni.mac for eni in now if eni.attachment and eni.attachment.status != "attaching"]

    def attached(self) -> tuple[Eni, ...]:
        """Return what is attached, without anybody counting."""
        mine = self.identity.instance_id
        return tuple(e for e in self.enis() if e.attachment and e.attachment.instance_id == mine)

    def enis(self) -> tuple[Eni, ...]:
        """Return every ENI of the VPC."""
        self.settle()
        if self._enis is None:
            lag, self.lag_seconds = self.lag_seconds, 0.0
            filters: Any = [{"Name": "vpc-id", "Values": [self.vpc_id]}]
            found = self.hand.describe_network_interfaces(Filters=filters)
            self._enis = tuple(parse.eni(raw) for raw in found["NetworkInterfaces"])
            self.lag_seconds = lag
        return self._enis

    # By hand -----------------------------------------------------------------------------
    def add_subnet(self, prefix: int = 24, **tags: str) -> SubnetId:
        """Make a subnet; of a tag's name __ is / and _ is -."""
        cidr = next(next(self._networks).subnets(new_prefix=prefix))
        made = self.hand.create_subnet(
            VpcId=self.vpc_id, CidrBlock=str(cidr), AvailabilityZone=ZONE
        )["Subnet"]
        subnet_id = SubnetId(made["SubnetId"])
        self.subnets[subnet_id] = cidr
        self.tag(subnet_id, tags)
        return subnet_id

    def tag(self, resource: str, tags: Mapping[str, str]) -> None:
        """Tag something."""
        if tags:
            named = [{"Key": key, "Value": value} for key, value in tags.items()]
            self.hand.create_tags(Resources=[resource], Tags=cast("Any", named))

    def create(self, subnet_id: str = "", **more: Any) -> EniId:
        """Make an ENI."""
        made = self.hand.create_network_interface(SubnetId=subnet_id or self.subnet_id, **more)
        return EniId(made["NetworkInterface"]["NetworkInterfaceId"])

    def attach(self, eni_id: str, index: int = 1) -> None:
        """Attach an ENI to the node."""
        self.hand.attach_network_interface(
            NetworkInterfaceId=eni_id, InstanceId=self.identity.instance_id, DeviceIndex=index
        )

    def detach(self, eni_id: str) -> None:
        """Detach an ENI."""
        (eni,) = (e for e in self.enis() if e.id == eni_id)
        assert eni.attachment is not None
        self.hand.detach_network_interface(AttachmentId=eni.attachment.id)

    def delete(self, eni_id: str) -> None:
        """Delete an ENI that nobody uses."""
        self.hand.delete_network_interface(NetworkInterfaceId=eni_id)

    def attach_elsewhere(self, eni_id: str) -> None:
        """Attach an ENI to another instance."""
        other = self._run(self.identity.instance_type)["InstanceId"]
        self._others.append(other)
        self.hand.attach_network_interface(
            NetworkInterfaceId=eni_id, InstanceId=other, DeviceIndex=1
        )

    def group(self, name: str) -> SecurityGroupId:
        """Make a security group."""
        made = self.hand.create_security_group(VpcId=self.vpc_id, GroupName=name, Description=name)
        return SecurityGroupId(made["GroupId"])

    def groups(self, eni_id: str, *groups: str) -> None:
        """Give an ENI these groups."""
        self.hand.modify_network_interface_attribute(NetworkInterfaceId=eni_id, Groups=groups)

    def act_as_node(self, policy: Mapping[str, Any] | None = None) -> None:
        """Let the node be what its role may be: the shipped policy, or another."""
        access = self.plane.access
        access.restrict(f"role/{ROLE}", node_policy() if policy is None else policy)
        self._act_with(access.keys.of_instance(self.identity.instance_id, ROLE))

    def act_as_pod(self, cluster: str, policy: Mapping[str, Any]) -> None:
        """Let the node's daemon be what its service account's role may be."""
        access, role = self.plane.access, "enid-pods"
        access.restrict(f"role/{role}", policy)
        self._act_with(access.keys.of_pod(role, "eks-enid", {"eks-cluster-name": cluster}))

    def _act_with(self, key: Key) -> None:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ACCESS_KEY_ID", key.id)
            environment.setenv("AWS_SECRET_ACCESS_KEY", key.secret)
            environment.setenv("AWS_SESSION_TOKEN", key.token or "")
            node = Ec2(region=REGION, endpoint_url=self.region.node_url)
            node.attached(self.identity.instance_id)  # credentials are read for a first call
            with contextlib.suppress(EniError):
                node.delete(EniId("eni-00000000000000000"))
        self.node = node
        self.plane.access.denials.clear()
        self.plane.calls.clear()

    def limits_are(self, **limits: int) -> None:
        """Let EC2 tell other limits of the node's type than there are."""
        known = shipped(self.identity.instance_type) or shipped("m5.large")
        assert known is not None
        name = self.identity.instance_type
        self.answers["limits"] = replace(known, instance_type=name, **cast("Any", limits))

    def rename_type(self, instance_type: str) -> None:
        """Let the instance be of another type."""
        if shipped(instance_type) is not None:
            instance = self.plane.backend.get_instance(self.identity.instance_id)
            instance.instance_type = instance_type
        self.identity = replace(self.identity, instance_type=instance_type)

    def occupy_all(self) -> EniId:
        """Let an ENI that is not the node's have every address of the subnet that is free."""
        free = self.plane.backend.get_subnet(self.subnet_id).available_ip_address_count
        return self.create(SecondaryPrivateIpAddressCount=free - 1)

    def occupy(self, subnet_id: str, *networks: str) -> EniId:
        """Let an ENI that is not the node's have these addresses, or prefixes."""
        singles = [n for n in networks if "/" not in n]
        more: dict[str, Any] = {}
        if singles:
            more["PrivateIpAddresses"] = [
                {"PrivateIpAddress": a, "Primary": not i} for i, a in enumerate(singles)
            ]
        prefixes = [{"Ipv4Prefix": n} for n in networks if "/" in n]
        return self.create(subnet_id, **more, **({"Ipv4Prefixes": prefixes} if prefixes else {}))


class _Client:
    """A daemon's EC2: the real client, and what the cloud has in store for its calls."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self._cloud = cloud

    @property
    def calls(self) -> Counter[str]:
        """Requests by action, as EC2 counted them."""
        return self._cloud.plane.calls

    @property
    def errors(self) -> Counter[tuple[str, str]]:
        """Failures by action and error id."""
        return self._cloud.node.errors

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method of the real client."""
        method, cloud = getattr(self._cloud.node, name), self._cloud

        @functools.wraps(method)
        def call(*arguments: Any) -> Any:
            cloud.settle()
            fault = cloud.faults.get(len(cloud.log))
            cloud.log.append(name)
            for told in tuple(cloud.on_calls):
                told(name)
            if cloud.is_away:
                raise UnreachableError("no route to host", action=name)
            if name in cloud.answers:
                return cloud.answers[name]
            return _met(cloud, functools.partial(method, *arguments), name, fault)

        return call


def _met(cloud: EmbeddedCloud, send: Callable[[], T], name: str, fault: Fault | None) -> T:
    """Return what a call is answered, as *fault* has it."""
    if fault is Fault.STALE and name in QUESTIONS:
        with cloud.stale():
            return send()
    _meet_before(cloud, send, name, fault)
    answer = send()
    _meet_behind(cloud, name, fault)
    return answer


def _meet_before(
    cloud: EmbeddedCloud, send: Callable[[], object], name: str, fault: Fault | None
) -> None:
    match fault:
        case Fault.KILLED_BEFORE:
            raise KilledError(name)
        case Fault.THROTTLED:
            raise ThrottledError("slow down", action=name)
        case Fault.LATE:
            cloud.do_late(send)
            cloud.linger(TIMEOUT_SECONDS)
            raise _unanswered(name)
        case Fault.KILLED_LATE:
            cloud.do_late(send)
            raise KilledError(name)
        case Fault.SLOW | Fault.KILLED_WAITING:
            cloud.linger(SLOW_SECONDS)
        case Fault.STALE:
            cloud.lag_seconds, cloud.lag_until = STALE_SECONDS, cloud.clock() + STALE_SECONDS


def _meet_behind(cloud: EmbeddedCloud, name: str, fault: Fault | None) -> None:
    match fault:
        case Fault.KILLED_AFTER | Fault.STALE:
            raise KilledError(name)
        case Fault.KILLED_WAITING:
            cloud.die_in(SLOW_SECONDS / 2)
        case Fault.LOST:
            raise _unanswered(name)


def _unanswered(name: str) -> EniError:
    family = UnreachableError if name in QUESTIONS else UnknownOutcomeError
    return family("no answer", action=name)
