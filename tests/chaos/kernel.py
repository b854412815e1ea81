"""One node's kernel as a model: what the daemon finds there outlives the daemon.

`Kernel` is the state and what Linux does with it: routes go with their link, a veth with its
other end, an ENI's link comes and goes with the cloud. What a daemon holds of it for one life
is in `tests.chaos.daemon_side`.

A step is one send: the kernel does a batch whole before anyone can be killed. With
`crash_before` and `crash_after` the process dies right before or behind a step, and nothing is
undone.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from itertools import count

from cni.dataplane import (
    DYING_GROUP,
    ENI_GROUP,
    HOST_MAC,
    MAIN_TABLE,
    NODE_SYSCTLS,
    POD_GROUP,
    PODS_TABLE,
    PROTOCOL,
    Address,
    Network,
    Rule,
)
from cni.desired import Key, OddRule
from cni.kernel import Heard, NetnsId
from cni.rtnl import NetlinkError

MIN_MTU = 68
"""Of an IPv4 link: a header of 60 bytes and 8 of payload (RFC 791)."""

NOTHING: Mapping[str, int] = {}

FIRST_INODE = 4026532000
"""About where nsfs inodes begin; the lowest free one is given, so they come again soon."""

NSFS_DEVICE = 4


class KilledError(BaseException):
    """kill -9, as code sees it: never."""


@dataclass(slots=True)
class PodLink:
    """An interface in a pod; *host* is the index of the veth's other end, 0 for another kind."""

    mac: str
    mtu: int
    host: int = 0
    is_up: bool = False
    addresses: set[Address] = field(default_factory=set)
    gateways: set[Address] = field(default_factory=set)
    neighbours: dict[Address, str] = field(default_factory=dict)

    def set_mac(self, mac: str) -> None:
        """Get another MAC: the neighbours go, permanent ones, too."""
        self.mac = mac
        self.neighbours.clear()

    def down(self) -> None:
        """Go down: addresses stay, what needs the link does not."""
        self.is_up = False
        self._lose()

    def lose_addresses(self) -> None:
        """Lose the addresses, and with the last one what needs one."""
        self.addresses.clear()
        self._lose()

    def _lose(self) -> None:
        self.gateways.clear()
        self.neighbours.clear()


@dataclass(slots=True, eq=False)
class Netns:
    """A pod's network namespace: it lives as long as its name or a descriptor of it.

    *open* are the daemon's descriptors, and *held* counts the plugins that have some.
    """

    name: str
    identity: NetnsId
    is_named: bool = True
    held: int = 0
    lo_up: bool = False
    links: dict[str, PodLink] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)


@dataclass(slots=True)
class HostSide:
    """A link of the node; a veth's other end is *peer* in *netns*, or nowhere we look."""

    index: int
    name: str
    mac: str
    mtu: int = 1500
    is_up: bool = False
    group: int = 0
    alias: str = ""
    addresses: list[IPv4Interface] = field(default_factory=list)
    conf: dict[str, int] = field(default_factory=dict)
    """IPv4 settings that were made."""
    neighbours: dict[Address, str] = field(default_factory=dict)
    """Permanent ones."""
    silent: set[IPv4Interface] = field(default_factory=set)
    """Addresses that made no route in `main`."""
    netns: Netns | None = None
    peer: str = ""

    def set_mac(self, mac: str) -> None:
        """Get another MAC: the neighbours go, permanent ones, too."""
        self.mac = mac
        self.neighbours.clear()

    def add_silently(self, address: IPv4Interface) -> None:
        """Give it an address that makes no route in `main`."""
        if address not in self.addresses:
            self.addresses.append(address)
        self.silent.add(address)

    def __str__(self) -> str:
        name = f"{self.name}@{self.netns.name}/{self.peer}" if self.netns else self.name
        group = self.group or "default"
        lines = [
            f"{self.index}: {name}: <{'UP' if self.is_up else ''}> mtu {self.mtu} group {group}"
        ]
        lines += [f"link/ether {self.mac}"]
        lines += [f"alias {self.alias}"] if self.alias else []
        lines += [f"inet {address}" for address in self.addresses]
        return "\n    ".join(lines)


@dataclass(frozen=True, slots=True)
class Way:
    """A route; *index* 0 means unreachable, or what *kind* says."""

    network: Network
    table: int
    metric: int = 0
    index: int = 0
    gateway: IPv4Address | None = None
    source: Address | None = None
    kind: str = ""
    tos: int = 0
    origin: Network | None = None

    @property
    def key(self) -> Key:
        """What tells two routes apart; a second one of the same key replaces the first."""
        return (self.network, self.table, self.metric, self.tos, self.origin)

    def words(self, ifname: str) -> str:
        """Return it as `ip route show` does."""
        is_v6 = self.network.version == 6
        whole = str(self.network) if self.network.prefixlen else "default"
        words = [] if self.index else [self.kind or "unreachable"]
        words += [whole.removesuffix("/128" if is_v6 else "/32")]
        words += [f"tos {self.tos:#x}"] if self.tos else []
        words += [f"via {self.gateway}"] if self.gateway else []
        words += [f"dev {ifname}"] if self.index else ["dev lo"] if is_v6 else []
        words += [f"proto {PROTOCOL}"]
        words += ["scope link"] if self.index and not self.gateway and not is_v6 else []
        words += [f"src {self.source}"] if self.source else []
        words += [f"metric {self.metric}"] if self.metric else []
        words += ["onlink"] if self.gateway else []
        words += ["pref medium"] if is_v6 else []
        return " ".join(words)


def rule_words(rule: Rule) -> str:
    """Return a rule as `ip rule` does."""
    mark = f" fwmark {rule.fwmark:#x}/{rule.fwmask:#x}" if rule.fwmark else ""
    table = "main" if rule.table == MAIN_TABLE else rule.table
    to = f" to {rule.destination}" if rule.destination and rule.destination.prefixlen else ""
    return (
        f"{rule.preference}:\tfrom {rule.source or 'all'}{to}{mark} lookup {table} proto {PROTOCOL}"
    )


class Kernel:
    """The state of one node, and what Linux does with it."""

    def __init__(
        self,
        *,
        plugged: Callable[[], Collection[str]],
        primary_mac: str,
        primary: IPv4Interface,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._plugged, self._primary_mac, self._primary = plugged, primary_mac, primary
        self._clock = clock
        self.crash_after: int | None = None
        """Steps until the process that asks for them is killed."""
        self.crash_before: int | None = None
        """Steps until it is killed with the last of them not done."""
        self._refuse_in: int | None = None
        self.refuses: str | None = None
        """What steps are refused for now, by how their words begin."""
        self.cannot: tuple[type, ...] = ()
        """What steps of a mender are refused for now."""
        self.log: deque[str] = deque(maxlen=100)
        """The last steps, in `ip`'s words."""
        self.reboot()

    # Its life --------------------------------------------------------------------------
    def reboot(self) -> None:
        """Lose everything, as a node's restart does; the primary ENI is set up by its OS."""
        self.booted = self._clock()
        self._numbers = count(1)
        self._eni_names = count(6)
        self._descriptors = count(100)
        self._links: dict[int, HostSide] = {}
        self.ways: dict[Key, Way] = {}
        self.rules: set[Rule] = set()
        self.odd_rules: set[OddRule] = set()
        """Those of our protocol that none of ours is like."""
        self.nft = ""
        self.nft_writes = 0
        self._owners: tuple[object, Mapping[Address, tuple[str, ...]]] = (None, {})
        self.heard = Heard()
        self.on_told: Callable[[], None] | None = None
        self.flows: list[frozenset[Address]] = []
        self.sysctls = dict(NODE_SYSCTLS)
        self.lacks: tuple[str, ...] = ()
        self.lacks_for_clamp: tuple[str, ...] = ()
        self.own = Netns("node", NetnsId(NSFS_DEVICE, FIRST_INODE))
        self.namespaces: list[Netns] = []
        self._open: dict[int, Netns] = {}
        self._sockets: dict[int, Netns] = {}
        self.new_link("lo", "00:00:00:00:00:00", mtu=65536)
        primary = self.new_link("ens5", self._primary_mac, mtu=9001)
        primary.is_up, primary.addresses = True, [self._primary]

    def write_nft(self, text: str) -> None:
        """Write our table."""
        self.nft = text
        self.nft_writes += 1

    def tell(self, heard: Heard) -> None:
        """Tell whoever listens that somebody else has changed something."""
        self.heard.everything |= heard.everything
        self.heard.table |= heard.table
        self.heard.links |= heard.links
        call, self.on_told = self.on_told, None
        if call is not None:
            call()

    def boot_seconds(self) -> float:
        """Return CLOCK_BOOTTIME."""
        return self._clock() - self.booted

    def send(self, words: str, *changes: Callable[[], None]) -> None:
        """Make *changes*, all of them, and raise the first one's error: one step.

        The process that asked may die of it, right before or behind the step.
        """
        self.look()
        self._count_before(words)
        self._refuse(words)
        errors = []
        for change in changes:
            try:
                change()
            except NetlinkError as error:
                errors.append(error)
        self.log.append(words)
        self._count(words)
        if errors:
            raise errors[0]

    def refuse_after(self, steps: int) -> None:
        """Let one step fail for want of memory: the next one, or that many later."""
        self._refuse_in = steps

    def _refuse(self, words: str) -> None:
        if self.refuses is not None and words.startswith(self.refuses):
            raise NetlinkError(errno.ENOBUFS, words, "")
        if self._refuse_in is None:
            return
        self._refuse_in -= 1
        if self._refuse_in < 0:
            self._refuse_in = None
            raise NetlinkError(errno.ENOBUFS, words, "")

    def _count_before(self, words: str) -> None:
        if self.crash_before is None:
            return
        self.crash_before -= 1
        if self.crash_before <= 0:
            self.crash_before = None
            raise KilledError(f"killed before: {words}")

    def _count(self, words: str) -> None:
        if self.crash_after is None:
            return
        self.crash_after -= 1
        if self.crash_after <= 0:
            self.crash_after = None
            raise KilledError(f"killed behind: {words}")

    # Links -----------------------------------------------------------------------------
    def look(self) -> None:
        """Let the links of ENIs come and go as the cloud has it."""
        plugged = {self._primary_mac, *self._plugged()}
        there = {link.mac: link for link in self._links.values() if link.name.startswith("ens")}
        if plugged == there.keys():
            return
        for mac in sorted(plugged - there.keys()):
            self.new_link(f"ens{next(self._eni_names)}", mac)
        for mac in there.keys() - plugged:
            self._drop(there[mac])

    def names(self) -> tuple[str, ...]:
        """Return the names of the links."""
        return tuple(link.name for link in self._links.values())

    @property
    def links(self) -> tuple[HostSide, ...]:
        """Every link of the node, now."""
        self.look()
        return tuple(self._links.values())

    def link(self, name: str) -> HostSide | None:
        """Return the link of that name."""
        return next((link for link in self.links if link.name == name), None)

    def new_link(self, name: str, mac: str, mtu: int = 1500) -> HostSide:
        """Make a link that is no pod's, as the cloud or a stranger does."""
        link = HostSide(next(self._numbers), name, mac, mtu)
        self._links[link.index] = link
        return link

    def add_veth(self, name: str, group: int, peer: str, mac: str, netns: Netns, mtu: int) -> None:
        """Make a pair: *name* here, *peer* in *netns*."""
        words = f"ip link add {name} group {group} type veth peer {peer} netns {netns.name}"
        if mtu < MIN_MTU:
            raise NetlinkError(errno.EINVAL, words, "mtu less than device minimum")
        if name in self.names() or peer in netns.links:
            raise NetlinkError(errno.EEXIST, words, "")
        link = self.new_link(name, HOST_MAC, mtu)
        link.group, link.netns, link.peer = group, netns, peer
        netns.links[peer] = PodLink(mac, mtu, link.index)

    def set_link(
        self,
        name: str,
        *,
        up: bool,
        group: int | None = None,
        alias: str = "",
        mtu: int | None = None,
        conf: Mapping[str, int] = NOTHING,
    ) -> None:
        """Change a link; one that goes down loses its routes and neighbours."""
        link = self._find(name, f"ip link set {name}")
        if mtu is not None and mtu < MIN_MTU:
            raise NetlinkError(errno.EINVAL, f"ip link set {name} mtu {mtu}", "")
        link.is_up = up
        link.group = link.group if group is None else group
        link.alias = alias or link.alias
        link.mtu = mtu or link.mtu
        link.conf |= conf
        if not up:
            self._drop_ways(link)
            link.neighbours.clear()

    def _find(self, name: str, words: str) -> HostSide:
        link = next((link for link in self._links.values() if link.name == name), None)
        if link is None:
            raise NetlinkError(errno.ENODEV, words, "")
        return link

    def delete_link(self, name: str) -> None:
        """Delete a link, and a veth's other end with it."""
        self._drop(self._find(name, f"ip link del {name}"))

    def delete_group(self, group: int) -> None:
        """Delete every link of a group."""
        doomed = [link for link in self._links.values() if link.group == group]
        if not doomed:
            raise NetlinkError(errno.ENODEV, f"ip link del group {group}", "")
        for link in doomed:
            self._drop(link)

    def _drop(self, link: HostSide) -> None:
        del self._links[link.index]
        self._drop_ways(link)
        if link.netns is not None:
            link.netns.links.pop(link.peer, None)

    def _drop_ways(self, link: HostSide) -> None:
        self.ways = {key: way for key, way in self.ways.items() if way.index != link.index}

    # Routes ----------------------------------------------------------------------------
    def put_way(self, way: Way) -> None:
        """Put a route; one of the same key is replaced."""
        words = f"ip route replace {way.words(self._name(way.index))} table {way.table}"
        if way.index and (way.index not in self._links or not self._links[way.index].is_up):
            raise NetlinkError(errno.ENETDOWN, words, "Device for nexthop is not up")
        if way.source is not None and way.source not in self.addresses():
            raise NetlinkError(errno.EINVAL, words, "Invalid prefsrc address")
        self.ways[way.key] = way

    def delete_way(
        self, network: Network, table: int, metric: int, tos: int = 0, origin: Network | None = None
    ) -> None:
        """Take a route out."""
        if self.ways.pop((network, table, metric, tos, origin), None) is None:
            raise NetlinkError(errno.ESRCH, f"ip route del {network} table {table}", "")

    def _name(self, index: int) -> str:
        return self._links[index].name if index in self._links else f"#{index}"

    def addresses(self) -> Mapping[Address, str]:
        """Return the addresses on the node's own links."""
        return {a.ip: link.name for link in self._links.values() for a in link.addresses}

    # Pods ------------------------------------------------------------------------------
    def new_netns(self, name: str) -> Netns:
        """Make a pod's namespace, as a runtime does."""
        taken = {netns.identity.ino for netns in (self.own, *self.namespaces)}
        inode = next(ino for ino in count(FIRST_INODE) if ino not in taken)
        netns = Netns(name, NetnsId(NSFS_DEVICE, inode))
        self.namespaces.append(netns)
        return netns

    def delete_netns(self, netns: Netns) -> None:
        """Take its name away, as a runtime does; it ends with its last descriptor."""
        netns.is_named = False
        self._collect(netns)

    def _collect(self, netns: Netns) -> None:
        if netns.is_named or netns.held or netns.open or netns not in self.namespaces:
            return
        self.namespaces.remove(netns)
        for link in [link for link in self._links.values() if link.netns is netns]:
            self._drop(link)

    def hold(self, netns: Netns) -> None:
        """Open it, as a plugin does at its start."""
        netns.held += 1

    def let_go(self, netns: Netns) -> None:
        """End, as a plugin."""
        netns.held -= 1
        self._collect(netns)

    def open(self, netns: Netns) -> tuple[int, int]:
        """Return descriptors of *netns* and of a netlink socket in it, as the plugin sends."""
        netns_fd, netlink_fd = next(self._descriptors), next(self._descriptors)
        self._open[netns_fd] = self._sockets[netlink_fd] = netns
        netns.open |= {netns_fd, netlink_fd}
        return netns_fd, netlink_fd

    def end_process(self) -> None:
        """Close what the daemon has open, as Linux does when it has died."""
        self.crash_before = self.crash_after = self.on_told = None
        self.close(*self._open, *self._sockets)

    def close(self, *descriptors: int) -> None:
        """Close descriptors."""
        for descriptor in descriptors:
            netns = self._open.pop(descriptor, None) or self._sockets.pop(descriptor, None)
            if netns is not None:
                netns.open.discard(descriptor)
                self._collect(netns)

    def netns_of(self, descriptor: int) -> Netns | None:
        """Return which namespace a descriptor is."""
        return self._open.get(descriptor)

    def netns_of_socket(self, descriptor: int) -> Netns | None:
        """Return which namespace a socket is of."""
        return self._sockets.get(descriptor)

    # Questions -------------------------------------------------------------------------
    def owners(self) -> Mapping[Address, tuple[str, ...]]:
        """Return who has an address, by route or by the pod's side: the host veths' names.

        More than one name is two pods with one address. A veth that was put to die is down,
        and has nothing. Worked out anew only when something of it has changed.
        """
        links = self.links
        pods = [
            (link.name, frozenset(link.netns.links[link.peer].addresses))
            for link in links
            if link.netns is not None and link.group != DYING_GROUP
        ]
        names = [(link.index, link.name) for link in links]
        state = names, pods, tuple(self.ways.values())
        if state != self._owners[0]:
            self._owners = state, self._owners_of(pods)
        return self._owners[1]

    def _owners_of(
        self, pods: Iterable[tuple[str, Collection[Address]]]
    ) -> Mapping[Address, tuple[str, ...]]:
        found: dict[Address, set[str]] = {}
        for way in self.ways.values():
            if way.table == PODS_TABLE and way.index:
                found.setdefault(way.network.network_address, set()).add(self._name(way.index))
        for name, addresses in pods:
            for address in addresses:
                found.setdefault(address, set()).add(name)
        return {address: tuple(sorted(names)) for address, names in sorted(found.items(), key=str)}

    def half_made(self) -> tuple[str, ...]:
        """Return the host veths of pods that lack alias, the pod's side, or a route."""
        routed = {way.index for way in self.ways.values() if way.table == PODS_TABLE}
        return tuple(
            link.name
            for link in self.links
            if link.netns is not None
            and POD_GROUP <= link.group < ENI_GROUP
            and not (link.alias and link.netns.links[link.peer].addresses and link.index in routed)
        )

    def way_to(self, address: Address) -> str:
        """Return what the PODS table says of *address*: a link's name, unreachable, or nothing."""
        found = [
            way for way in self.ways.values() if way.table == PODS_TABLE and address in way.network
        ]
        if not found:
            return ""
        best = min(found, key=lambda way: (-way.network.prefixlen, way.metric))
        return self._name(best.index) if best.index else "unreachable"

    def show_routes(self, table: int, version: int = 4) -> list[str]:
        """Return what `ip route show table` does."""
        self.look()
        return [
            way.words(self._name(way.index))
            for way in self.ways.values()
            if way.table == table and way.network.version == version
        ]

    def show_rules(self) -> list[str]:
        """Return our rules as `ip rule` does."""
        plain = [rule_words(rule) for rule in sorted(self.rules, key=by_table)]
        return plain + sorted(rule.words for rule in self.odd_rules)

    def __str__(self) -> str:
        lines = ["# ip link", *map(str, self.links), "# ip rule", *self.show_rules()]
        for table in sorted({way.table for way in self.ways.values()}):
            lines += [f"# ip route show table {table}"]
            lines += [*self.show_routes(table), *self.show_routes(table, 6)]
        for netns in self.namespaces:
            for name, pod in netns.links.items():
                inside = " ".join(sorted(map(str, pod.addresses)))
                lines += [f"# ip -n {netns.name} addr", f"{name}: link/ether {pod.mac} {inside}"]
        return "\n".join(lines)


def by_table(rule: Rule) -> tuple[int, int]:
    """Return what `ip rule` sorts by, and then the table."""
    return rule.preference, rule.table
