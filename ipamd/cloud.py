"""What is done to EC2 and to the node's ENIs, step by step. Shell; the cloud thread runs it.

Every mutation is journalled before it is asked for, and every intent can be taken up again
from the state it was left in:

    planned ─create─> created ─attach─> attached ─modify─> modified ─link, routes─> configured
       ─addresses held, guarded─> active ─no pod left─> draining ─detach, delete─> gone

An outcome nobody knows is settled by looking at the ENI by its id, never by repeating the
call. Methods block; they raise EniError (nothing lost, try later or tell someone) or
JournalError (the intent could not be written, so nothing was asked). Longer than most
files of ours: the steps of one life are read together.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Protocol

from cni.dataplane import EniLink
from cni.kernel import NodeNet
from eni.errors import EniError, NotFoundError, NotYetError, RefusedError, UnknownOutcomeError
from eni.model import (
    Address,
    Attachment,
    AttachmentId,
    AttachmentStatus,
    CreateEni,
    Eni,
    EniId,
    Identity,
    InstanceId,
    Kind,
    SecurityGroupId,
    Subnet,
    SubnetId,
)
from ipamd.journal import EniState, Intent, Journal

log = logging.getLogger(__name__)

INSTANCE_TAG = "node.k8s.amazonaws.com/instance_id"
CREATED_TAG = "node.k8s.amazonaws.com/createdAt"
INTENT_TAG = "enid.dev/intent"
UNMANAGED_TAG = "node.k8s.amazonaws.com/no_manage"

LINK_SECONDS = 30.0
"""How long an attached ENI may take to show up in the kernel before EC2 is asked again;
create and attach take up to 10 s together (EKS best-practice guide)."""

DETACH_SECONDS = 60.0
"""How long a detach may take before we let go and come back later; 2 to 3 s are usual."""

LOOK_SECONDS = 0.05
"""How often the kernel is asked for a new link: one netlink message."""

DESCRIBE_SECONDS = 1.0
"""How often EC2 is asked for a state that is on its way."""


class Ec2Calls(Protocol):
    """The part of EC2 that we use; the contract is `eni.ec2.Ec2`'s."""

    def attached(self, instance_id: InstanceId) -> tuple[Eni, ...]:
        """Return every ENI attached to the instance."""

    def eni(self, eni_id: EniId) -> Eni | None:
        """Return the ENI, None if EC2 says it does not exist."""

    def by_tag(self, key: str, value: str) -> tuple[Eni, ...]:
        """Return every ENI that carries the tag."""

    def create(self, wish: CreateEni) -> Eni:
        """Create, or return what the same token created before."""

    def attach(self, eni_id: EniId, instance_id: InstanceId, device_index: int) -> AttachmentId:
        """Attach."""

    def delete_on_termination(self, eni_id: EniId, attachment_id: AttachmentId) -> None:
        """Let the ENI go with the instance."""

    def detach(self, attachment_id: AttachmentId) -> None:
        """Detach."""

    def delete(self, eni_id: EniId) -> None:
        """Delete."""

    def assign(self, eni_id: EniId, kind: Kind, count: int) -> tuple[IPv4Network, ...]:
        """Assign that many more blocks, and return them."""

    def unassign(self, eni_id: EniId, blocks: Sequence[IPv4Network]) -> None:
        """Give blocks back."""

    def subnet(self, subnet_id: SubnetId) -> Subnet:
        """Return the subnet."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where new ENIs of this node go, and what they are called."""

    identity: Identity
    subnet_id: SubnetId
    subnet_cidr: IPv4Network
    security_groups: tuple[SecurityGroupId, ...]
    mtu: int


@dataclass(frozen=True, slots=True)
class Ready:
    """An ENI that pods may use: *addresses* are held and guarded.

    *taken* are those of them that are configured on a host link, and on which.
    """

    eni_id: EniId
    number: int
    addresses: tuple[Address, ...]
    taken: Mapping[Address, str]


class Cloud:
    """EC2, the journal and the node's ENIs, for one thread."""

    def __init__(
        self,
        *,
        ec2: Ec2Calls,
        net: NodeNet,
        journal: Journal,
        home: Home,
        wall: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self.ec2, self.net, self.journal, self.home = ec2, net, journal, home
        self._wall, self._stop = wall, stop
        self._links: dict[EniId, EniLink] = {}
        self._knows_all = False
        self.occupied: frozenset[int] = frozenset()
        """Device indexes of ENIs that are not ours, as last seen."""

    # What is known ---------------------------------------------------------------------
    def intents(self) -> tuple[Intent, ...]:
        """Return every ENI that is not gone."""
        return self.journal.intents()

    def ensure_link(self, eni_id: EniId) -> None:
        """Set up the kernel's side of an ENI of ours if this life has not done so yet."""
        intent = self._intent(eni_id)
        if eni_id not in self._links and intent is not None and intent.mac is not None:
            if not self._link_comes(intent.mac):
                raise NotYetError(f"no link {intent.mac} of {eni_id} yet", action="attach")
            self.set_up_link(intent)

    def _intent(self, eni_id: EniId) -> Intent | None:
        return next((i for i in self.journal.intents() if i.eni_id == eni_id), None)

    # Growing ---------------------------------------------------------------------------
    def add_eni(self, count: int) -> Ready:
        """Create an ENI with *count* secondary addresses and bring it all the way up."""
        token = str(uuid.uuid4())
        created = dt.datetime.fromtimestamp(int(self._wall()), dt.UTC)
        instance = self.home.identity.instance_id
        parameters = {
            "token": token,
            "subnet_id": self.home.subnet_id,
            "security_groups": list(self.home.security_groups),
            "description": f"aws-K8S-{instance}",
            "secondary_count": count,
            "tags": [
                [INSTANCE_TAG, instance],
                [CREATED_TAG, created.isoformat().replace("+00:00", "Z")],
                [INTENT_TAG, token],
            ],
        }
        intent = self._put(
            Intent(
                token=token,
                state=EniState.PLANNED,
                device_index=self._free_index(),
                parameters=parameters,
            )
        )
        return self.resume(intent, fresh=True)

    def _free_index(self) -> int:
        used = self.occupied | {intent.device_index for intent in self.journal.intents()}
        return next(i for i in range(1, len(used) + 2) if i not in used)

    def _put(self, intent: Intent) -> Intent:
        if self.journal.trouble:
            raise RefusedError(self.journal.trouble, action="journal")
        self.journal.put(intent, self._wall())
        log.info(
            "eni",
            extra={
                "state": intent.state.value,
                "eni_id": intent.eni_id,
                "index": intent.device_index,
            },
        )
        return intent

    def resume(self, intent: Intent, *, fresh: bool = False) -> Ready:
        """Bring an ENI from the state it was left in to active.

        *fresh* says that nothing can have happened behind our back since the intent was
        written, which spares looking.
        """
        if intent.state is EniState.PLANNED:
            intent = self._create(intent)
        if intent.state is EniState.CREATED:
            intent = self._attach(intent, fresh=fresh)
        if intent.state is EniState.ATTACHED:
            intent = self._modify(intent)
        eni: Eni | None = None
        if intent.state is EniState.MODIFIED:
            eni = self._describe(intent) if not fresh else None
            intent = self._configure(intent, eni)
        return self._activate(intent, eni)

    def _create(self, intent: Intent) -> Intent:
        try:
            eni = self.ec2.create(_wish(intent.parameters))
        except UnknownOutcomeError:
            raise
        except EniError:
            self.journal.forget(intent)  # EC2 has said no: there is nothing to come back to
            raise
        return self._put(
            replace(
                intent,
                state=EniState.CREATED,
                eni_id=eni.id,
                mac=eni.mac,
                parameters={**intent.parameters, "eni": _note(eni)},
            )
        )

    def _attach(self, intent: Intent, *, fresh: bool) -> Intent:
        attachment = None if fresh else self._describe(intent).attachment
        attachment_id = None
        if attachment is None:
            attachment_id = self._try_attach(intent)
        if attachment_id is None:
            attachment = self._own_attachment(intent, self._describe(intent))
            attachment_id = attachment.id
            intent = replace(intent, device_index=attachment.device_index)
        return self._put(replace(intent, state=EniState.ATTACHED, attachment_id=attachment_id))

    def _try_attach(self, intent: Intent) -> AttachmentId | None:
        """Attach; return None if nobody knows whether it was done.

        An attach that EC2 refuses for good is undone whole: an ENI that no instance can
        take is a leak.
        """
        assert intent.eni_id is not None
        try:
            return self.ec2.attach(
                intent.eni_id, self.home.identity.instance_id, intent.device_index
            )
        except UnknownOutcomeError:
            return None
        except RefusedError:
            eni = self.ec2.eni(intent.eni_id)
            if eni is not None and eni.attachment is None:
                self.ec2.delete(intent.eni_id)
                self.journal.forget(intent)
            raise

    def _own_attachment(self, intent: Intent, eni: Eni) -> Attachment:
        attachment = eni.attachment
        if attachment is None:
            raise NotYetError(f"{eni.id} is not attached yet", action="AttachNetworkInterface")
        if attachment.instance_id != self.home.identity.instance_id:
            self.journal.forget(intent)
            raise RefusedError(
                f"{eni.id} belongs to {attachment.instance_id} now",
                action="AttachNetworkInterface",
            )
        return attachment

    def _describe(self, intent: Intent) -> Eni:
        assert intent.eni_id is not None
        eni = self.ec2.eni(intent.eni_id)
        if eni is None:
            self.journal.forget(intent)
            raise NotFoundError(f"{intent.eni_id} is gone", action="DescribeNetworkInterfaces")
        return eni

    def _modify(self, intent: Intent) -> Intent:
        assert intent.eni_id is not None
        assert intent.attachment_id is not None
        self.ec2.delete_on_termination(intent.eni_id, intent.attachment_id)
        return self._put(replace(intent, state=EniState.MODIFIED))

    def _configure(self, intent: Intent, eni: Eni | None) -> Intent:
        assert intent.mac is not None
        if not self._link_comes(intent.mac):
            eni = self._describe(intent)
            raise NotYetError(
                f"{intent.eni_id} is attached but the kernel shows no link {intent.mac}"
                f" (EC2 says {eni.attachment.status if eni.attachment else eni.status})",
                action="AttachNetworkInterface",
            )
        if eni is not None:
            intent = replace(intent, parameters={**intent.parameters, "eni": _note(eni)})
        self.set_up_link(intent)
        return self._put(replace(intent, state=EniState.CONFIGURED))

    def _link_comes(self, mac: str) -> bool:
        for _ in range(int(LINK_SECONDS / LOOK_SECONDS)):
            if self.net.find_link(mac) is not None:
                return True
            if self._stop.wait(LOOK_SECONDS):
                raise NotYetError("ipamd is stopping", action="AttachNetworkInterface")
        return False

    def set_up_link(self, intent: Intent) -> None:
        """Bring the kernel's side of an ENI to its desired state. Idempotent."""
        assert intent.eni_id is not None
        assert intent.mac is not None
        note = _noted(intent)
        link = EniLink(
            number=intent.device_index + 1,
            mac=intent.mac,
            address=note.primary,
            subnet=self._cidr(note.subnet_id),
            mtu=self.home.mtu,
        )
        self.net.configure_eni(link)
        self._links[intent.eni_id] = link
        self._set_rules()

    def _set_rules(self) -> None:
        self.net.set_rules(tuple(self._links.values()), prune=self._knows_all)

    def _cidr(self, subnet_id: SubnetId) -> IPv4Network:
        if subnet_id == self.home.subnet_id:
            return self.home.subnet_cidr
        return self.ec2.subnet(subnet_id).cidr

    def _activate(self, intent: Intent, eni: Eni | None) -> Ready:
        assert intent.eni_id is not None
        secondary = eni.secondary if eni is not None else _noted(intent).secondary
        ready = self.take(intent.eni_id, secondary, intent.device_index + 1)
        if intent.state is not EniState.ACTIVE:
            self._put(replace(intent, state=EniState.ACTIVE))
        return ready

    def take(self, eni_id: EniId, addresses: Sequence[Address], number: int = 0) -> Ready:
        """Note and guard *addresses* as ours."""
        if self.journal.trouble is None:
            self.journal.hold(eni_id, addresses, self._wall())
        self.net.add_guards([ip_network(a) for a in addresses])
        there = self.net.host_addresses()
        taken = {address: there[address] for address in addresses if address in there}
        for address, link in taken.items():
            log.warning(
                "address is the host's",
                extra={"ip": str(address), "eni_id": eni_id, "link": link},
            )
        return Ready(eni_id, number, tuple(addresses), taken)

    # Addresses -------------------------------------------------------------------------
    def assign(self, eni_id: EniId, count: int, known: Collection[Address]) -> Ready:
        """Ask *count* more addresses for an ENI that has *known* ones."""
        if self.journal.trouble:
            raise RefusedError(self.journal.trouble, action="journal")
        try:
            blocks = self.ec2.assign(eni_id, Kind.SINGLE, count)
            new: tuple[Address, ...] = tuple(block.network_address for block in blocks)
        except UnknownOutcomeError:
            eni = self.ec2.eni(eni_id)
            if eni is None:
                raise
            new = tuple(a for a in eni.secondary if a not in known)
        return self.take(eni_id, new)

    def unassign(self, eni_id: EniId, addresses: tuple[IPv4Address, ...]) -> tuple[Address, ...]:
        """Give *addresses* back; return those that EC2 has taken."""
        if self.journal.trouble:
            raise RefusedError(self.journal.trouble, action="journal")
        self.journal.begin_release(addresses, self._wall())
        try:
            self.ec2.unassign(eni_id, [IPv4Network(a) for a in addresses])
            gone: tuple[Address, ...] = addresses
        except (UnknownOutcomeError, NotFoundError):
            eni = self.ec2.eni(eni_id)
            held = () if eni is None else eni.secondary
            gone = tuple(a for a in addresses if a not in held)
        except EniError:
            self.journal.hold(eni_id, addresses, self._wall())
            raise
        self.net.remove_guards([ip_network(a) for a in gone])
        self.journal.drop(gone)
        kept = tuple(a for a in addresses if a not in gone)
        self.journal.hold(eni_id, kept, self._wall())
        return gone

    def prune(self, addresses: tuple[Address, ...]) -> None:
        """Guard *addresses* and route the known ENIs, and nothing else.

        Only after EC2 has told what is ours: a former life may have left rules and guards
        of an ENI that this one has yet to hear of, and pods that need them.
        """
        self._knows_all = True
        self._set_rules()
        self.net.guards([ip_network(a) for a in addresses])

    def give_up(self, addresses: tuple[Address, ...]) -> None:
        """Stop guarding *addresses*, which EC2 has shown to be no longer ours."""
        self.net.remove_guards([ip_network(a) for a in addresses])
        if self.journal.trouble is None:
            self.journal.drop(addresses)

    # Shrinking -------------------------------------------------------------------------
    def keep_eni(self, eni_id: EniId) -> None:
        """Let an ENI that was to go stay: a pod has an address of it after all."""
        intent = self._intent(eni_id)
        if intent is not None:
            self._put(replace(intent, state=EniState.ACTIVE))

    def remove_eni(self, eni_id: EniId) -> None:
        """Detach and delete an ENI that no pod uses; take it up where it was left."""
        intent = self._intent(eni_id)
        if intent is None:
            raise RefusedError(f"{eni_id} is not in the journal", action="DetachNetworkInterface")
        if intent.state is not EniState.DRAINING:
            intent = self._put(replace(intent, state=EniState.DRAINING))
        if self._await_available(intent) is not None:
            self.ec2.delete(eni_id)
        self._links.pop(eni_id, None)
        self._set_rules()
        mine = [a for a, holder, _ in self.journal.addresses() if holder == eni_id]
        self.net.remove_guards([ip_network(a) for a in mine])
        self.journal.forget(intent)
        log.info("eni deleted", extra={"eni_id": eni_id})

    def _await_available(self, intent: Intent) -> Eni | None:
        """Detach, wait, and return the ENI; None if it is gone already."""
        assert intent.eni_id is not None
        asked = False
        for _ in range(int(DETACH_SECONDS / DESCRIBE_SECONDS)):
            eni = self.ec2.eni(intent.eni_id)
            if eni is None or eni.attachment is None:
                return eni
            if eni.attachment.instance_id != self.home.identity.instance_id:
                self.journal.forget(intent)
                raise RefusedError(f"{eni.id} is another instance's", action="Detach")
            if not asked and eni.attachment.status is not AttachmentStatus.DETACHING:
                self._try_detach(eni.attachment.id)
                asked = True
                continue
            self._stop.wait(DESCRIBE_SECONDS)
        raise NotYetError(f"{intent.eni_id} is still detaching", action="DetachNetworkInterface")

    def _try_detach(self, attachment_id: AttachmentId) -> None:
        try:
            self.ec2.detach(attachment_id)
        except (UnknownOutcomeError, NotFoundError):
            return  # the next look tells

    # Looking ---------------------------------------------------------------------------
    def attached(self) -> tuple[Eni, ...]:
        """Return what EC2 shows attached to us."""
        return self.ec2.attached(self.home.identity.instance_id)

    def adopt(self, eni: Eni, attachment: Attachment) -> Ready:
        """Take over an ENI that EC2 shows attached to us and the journal does not know."""
        intent = Intent(
            token=f"adopted-{eni.id}",
            state=EniState.ATTACHED,
            device_index=attachment.device_index,
            parameters={"eni": _note(eni)},
            eni_id=eni.id,
            attachment_id=attachment.id,
            mac=eni.mac,
        )
        if self.journal.trouble is None:
            self._put(intent)
            return self.resume(intent)
        if not self._link_comes(eni.mac):
            raise NotYetError(f"no link {eni.mac} of {eni.id} yet", action="Attach")
        self.set_up_link(intent)
        return self.take(eni.id, eni.secondary, intent.device_index + 1)

    def orphans(self) -> tuple[Eni, ...]:
        """Return ENIs that carry our instance's tag, that nobody uses and no intent knows."""
        known = {intent.eni_id for intent in self.journal.intents()}
        tokens = {intent.token for intent in self.journal.intents()}
        return tuple(
            eni
            for eni in self.ec2.by_tag(INSTANCE_TAG, self.home.identity.instance_id)
            if eni.attachment is None
            and eni.status == "available"
            and eni.id not in known
            and eni.tags.get(INTENT_TAG) not in tokens
        )


def _wish(parameters: Mapping[str, object]) -> CreateEni:
    """Return the Create of an intent, the same each time."""
    groups, tags = parameters["security_groups"], parameters["tags"]
    assert isinstance(groups, list)
    assert isinstance(tags, list)
    return CreateEni(
        token=str(parameters["token"]),
        subnet_id=SubnetId(str(parameters["subnet_id"])),
        security_groups=tuple(SecurityGroupId(g) for g in groups),
        description=str(parameters["description"]),
        secondary_count=int(str(parameters["secondary_count"])),
        tags=tuple((str(key), str(value)) for key, value in tags),
    )


@dataclass(frozen=True, slots=True)
class _Noted:
    """What an intent remembers of its ENI, so that a restart needs no EC2."""

    primary: IPv4Address
    secondary: tuple[IPv4Address, ...]
    subnet_id: SubnetId


def _note(eni: Eni) -> dict[str, object]:
    return {
        "primary": str(eni.primary),
        "secondary": [str(a) for a in eni.secondary],
        "subnet_id": eni.subnet_id,
    }


def _noted(intent: Intent) -> _Noted:
    note = intent.parameters["eni"]
    assert isinstance(note, dict)
    return _Noted(
        IPv4Address(note["primary"]),
        tuple(IPv4Address(a) for a in note["secondary"]),
        SubnetId(note["subnet_id"]),
    )
