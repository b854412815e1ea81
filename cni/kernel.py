"""The part of the kernel that the daemon needs: the contract. Pure.

Two sides of one node: `NodeNet` is its ENIs (links, tables, rules, guards, nft, conntrack),
`Wiring` is its pods. `cni.netlink` and `cni.wire` keep both promises with the real kernel;
a model of it keeps the same ones, and one contract suite holds both to them.
Nothing here may import what talks to a kernel, so that whoever decides can be loaded, and
run, without one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cni.dataplane import (
    NODE_SYSCTLS,
    USUAL_ROUTING,
    Address,
    Alias,
    EniLink,
    Network,
    Routing,
    host_ifname,
)
from cni.desired import Found, FoundLink, Step
from cni.nft import PROBED, NftWish
from cni.nft_found import FoundTable
from cni.spec import Attached, Sandbox


class NodeError(Exception):
    """The kernel or nft refused: its own words are in the text."""

    id = "NODE"


class WireError(Exception):
    """The wire cannot be made: the kernel's own words are in the text."""

    id = "WIRE"


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the node."""

    index: int
    name: str
    mac: str
    mtu: int
    is_up: bool
    group: int


@dataclass(frozen=True, slots=True)
class NetnsId:
    """Which network namespace: device and inode of its nsfs file."""

    dev: int
    ino: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What a wire should be. *node_primary* is the source of the node's own packets to it.

    *veth* is the host veth's name where it is not the usual one: a wire keeps the name that it
    was made with. Without *ipv6* the pod has no IPv6 address at all, not even of its own.
    """

    sandbox: Sandbox
    addresses: tuple[Address, ...]
    eni_number: int
    eni_id: str
    pod_uid: str
    mtu: int
    node_primary: Address
    veth: str = ""
    ipv6: bool = True

    @property
    def host_ifname(self) -> str:
        """The host veth's name."""
        return self.veth or host_ifname(self.sandbox)


@dataclass(frozen=True, slots=True)
class HostLink:
    """A host veth that says it is ours."""

    ifname: str
    index: int
    alias: Alias
    group: int


@dataclass(frozen=True, slots=True)
class HostEnd:
    """The node's end of a wire, as the kernel shows it.

    *routes* are the PODS table's by this link, each with its source; *neighbours* are the
    permanent ones on it. *peer* is the index of the other end, in its own namespace.
    """

    index: int
    peer: int
    mac: str
    mtu: int
    is_up: bool
    group: int
    alias: str
    rp_filter: int
    routes: Mapping[Address, Address | None]
    neighbours: Mapping[Address, str]


@dataclass(frozen=True, slots=True)
class PodEnd:
    """The pod's end of a wire; *gateways* are those of its default routes by this link.

    *lo_up*: whether the pod's loopback is up, which is set up with the wire.
    """

    index: int
    peer: int
    mac: str
    mtu: int
    is_up: bool
    lo_up: bool
    addresses: frozenset[Address]
    gateways: frozenset[Address]
    neighbours: Mapping[Address, str]


@dataclass(frozen=True, slots=True)
class Wire:
    """Both ends of a wire; None is an end that is not there."""

    host: HostEnd | None
    pod: PodEnd | None


class NodeNet(Protocol):
    """The node's side of its ENIs; on one thread. Every method may raise NodeError.

    Wishes are whole and may be said again: the second time changes nothing. What others
    made stays.
    """

    def find_link(self, mac: str) -> Link | None:
        """Return the link with this MAC, None if the kernel shows none."""

    def configure_eni(self, eni: EniLink) -> None:
        """Bring link, address and table of an ENI to their desired state.

        Of the primary, the node's own, only group, rp_filter and, where it says one, the MTU are
        ours. Raises NodeError if there is no link with its MAC.
        """

    def set_rules(
        self, enis: Sequence[EniLink], *, prune: bool = True, routing: Routing = USUAL_ROUTING
    ) -> None:
        """Bring our rules to what *enis* and *routing* need; without *prune* only add."""

    def add_guards(self, networks: Iterable[Network]) -> None:
        """Make every address of *networks* unreachable as long as no pod has it."""

    def remove_guards(self, networks: Iterable[Network]) -> None:
        """Stop guarding *networks*; nothing for those that are not guarded."""

    def guards(self, want: Iterable[Network]) -> tuple[int, int]:
        """Guard exactly *want*; return how many were added and removed."""

    def host_addresses(self) -> Mapping[Address, str]:
        """Return every address that is configured on a host link, and on which."""

    def purge_conntrack(self, addresses: Collection[Address]) -> int:
        """Delete every flow from or to *addresses*; return how many."""

    def apply_nft(self, text: str) -> bool:
        """Write our tables if what is there is not what *text* makes; return whether."""

    def write_nft(self, text: str, *, anew: bool = False) -> None:
        """Write our tables, whatever is there of them; *anew* with no chain that was there.

        In one transaction, so that no packet finds nothing.
        """

    def missing_features(self, wish: NftWish = PROBED) -> tuple[str, ...]:
        """Return a sentence for each kernel feature that pods need and is not there.

        Among them what tables as in *wish* need; they are tried, and nothing is changed.
        """

    def sysctl_complaints(self, names: Iterable[str] = NODE_SYSCTLS) -> tuple[str, ...]:
        """Return a sentence for each node-wide sysctl of *names* that is not as it must be."""


class Wiring(Protocol):
    """The wires of pods. `connect`, `disconnect`, `inspect` and `links` on one thread."""

    def identify(self, netns_fd: int) -> NetnsId:
        """Return which network namespace a descriptor is; on any thread.

        Raises CniError if it is none, or the node's own.
        """

    def connect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int, netns_path: str) -> Attached:
        """Make the wire of *wish*, or leave no trace and raise WireError.

        What a former try for the same sandbox left is made anew. A kill may leave part: a host
        veth with or without alias, but never a host route without the pod's side.
        """

    def disconnect(self, host_ifname: str, addresses: Sequence[Address]) -> None:
        """Unmake what there is of a wire; nothing if there is none.

        The guards take the addresses over at once; the link is only put to die. Raises
        WireError.
        """

    def inspect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int) -> Wire:
        """Return what there is of a wire, changing nothing. Raises WireError."""

    def reap(self) -> int:
        """Delete the links that were put to die; return how many. On a thread of its own.

        Raises WireError, deleting nothing, if one of them is not ours.
        """

    def links(self) -> tuple[HostLink, ...]:
        """Return every link whose alias is ours, dying ones included. Raises WireError."""


class Mender(Protocol):
    """What is ours on the host, seen as a whole and mended; on one thread.

    The looks change nothing, and may raise NodeError.
    """

    def look(self, tables: Iterable[int]) -> Found:
        """Return everything; of routes those of the PODS table and *tables*, and ours anywhere.

        Where nothing has changed it may be the very same object as the last time.
        """

    def look_at_links(self, indexes: Iterable[int]) -> tuple[FoundLink, ...]:
        """Return these links, as far as they are there."""

    def look_at_table(self) -> FoundTable:
        """Return our nft tables."""

    def mend(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Take each step, whatever became of those before it.

        Return what the kernel said to each, "" where it is done. To put what is there, and to
        take away what is not, is done.
        """


@dataclass(slots=True)
class Heard:
    """What the kernel told of, to be looked at."""

    everything: bool = False
    """All but the nft tables."""
    links: set[int] = field(default_factory=set)
    table: bool = False
    """The nft tables; *by* is the process that changed nft last, if it was told."""
    by: str = ""

    def __bool__(self) -> bool:
        return self.everything or self.table or bool(self.links)


class Ears(Protocol):
    """What the kernel tells by itself when somebody changes something; on the loop."""

    def on_told(self, call: Callable[[], None]) -> None:
        """Call *call* when there is something to read, once: until then nothing is read."""

    def read(self, is_ours: Callable[[int], bool]) -> Heard:
        """Return what was told since the last time; *is_ours* tells of a link's index.

        What this process has asked for is not told where the kernel says so.
        """
