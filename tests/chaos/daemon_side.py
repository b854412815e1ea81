"""What a daemon holds of the modelled kernel for one life: `cni.kernel`'s promises, kept.

By the same steps, in the same order, as `cni.netlink` and `cni.wire` keep them, so that a kill
behind any of them leaves what it leaves on a node. `tests/contract/kernel_contract.py` holds
model and real kernel to each other, in `ip`'s words.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_interface, ip_network

from cni.dataplane import (
    DYING_GROUP,
    ENI_GROUP,
    GATEWAY_V4,
    GATEWAY_V6,
    GUARD_METRIC,
    HOST_MAC,
    NODE_SYSCTLS,
    POD_GROUP,
    PODS_TABLE,
    PROTOCOL,
    USUAL_ROUTING,
    Address,
    Alias,
    Delete,
    EniLink,
    Network,
    Put,
    Route,
    Routing,
    Rule,
    desired_routes,
    desired_rules,
    eni_table,
    parse_alias,
    pod_mac,
    steps,
    sysctl_complaints,
)
from cni.desired import (
    ENI_CONF,
    POD_CONF,
    PRIMARY_CONF,
    DeleteAddress,
    DeleteRule,
    DeleteWay,
    Found,
    FoundLink,
    FoundRule,
    Key,
    Neighbour,
    OwnAddress,
    PutAddress,
    PutNeighbour,
    PutRule,
    PutWay,
    SetLink,
    Step,
    WriteTable,
)
from cni.desired import Way as AnyWay
from cni.kernel import (
    Heard,
    HostEnd,
    HostLink,
    Link,
    NetnsId,
    NodeError,
    PodEnd,
    Wire,
    WireError,
    Wish,
)
from cni.nft import PROBED, NftWish
from cni.nft_found import FoundNftRule, FoundTable, mark_of, rendered_chains
from cni.rtnl import MAX_BATCH, NetlinkError
from cni.spec import Attached, CniError, Code, Sandbox
from cni.wire import MAX_ALIAS_BYTES
from tests.chaos.kernel import HostSide, Kernel, Netns, PodLink, Way, by_table, rule_words

POD_INDEX = 2
"""A pod's first interface; the model does not count them."""


@contextlib.contextmanager
def _in_our_words(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise NodeError(f"{what}: {error}") from error


class ModelNet:
    """A `cni.kernel.NodeNet` of the model."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def find_link(self, mac: str) -> Link | None:
        """Return the link with this MAC."""
        found = next((link for link in self._kernel.links if link.mac == mac), None)
        if found is None:
            return None
        return Link(found.index, found.name, found.mac, found.mtu, found.is_up, found.group)

    @_in_our_words("the set-up of an ENI")
    def configure_eni(self, eni: EniLink) -> None:
        """Bring link, address and table to their desired state."""
        kernel, link = self._kernel, next((k for k in self._kernel.links if k.mac == eni.mac), None)
        if link is None:
            raise NodeError(f"there is no link with MAC {eni.mac}")
        up = link.is_up if eni.is_primary else True
        mtu = eni.mtu
        group = ENI_GROUP + eni.number
        words = f"ip link set {link.name} group {group} mtu {mtu}"
        kernel.send(words, partial(kernel.set_link, link.name, up=up, group=group, mtu=mtu))
        conf = PRIMARY_CONF if eni.is_primary else ENI_CONF
        kernel.send(f"ip link set {link.name} rp_filter 2", partial(link.conf.update, conf))
        if not eni.is_primary:
            self._set_address(link, eni)
            self._set_routes(link, eni)

    def _set_address(self, link: HostSide, eni: EniLink) -> None:
        own = IPv4Interface((eni.address, eni.subnet.prefixlen))
        foreign = [address for address in link.addresses if address != own]
        if own not in link.addresses or own not in link.silent:
            self._kernel.send(f"ip addr add {own}", partial(link.add_silently, own))
        for address in foreign:
            self._kernel.send(f"ip addr del {address}", partial(link.addresses.remove, address))

    def _set_routes(self, link: HostSide, eni: EniLink) -> None:
        kernel, table = self._kernel, eni_table(eni.number)
        there = [
            Route(way.network, table, way.index, way.gateway)
            for way in kernel.ways.values()
            if way.table == table and isinstance(way.network, IPv4Network) and not way.tos
        ]
        for step in steps(desired_routes(eni, link.index), there):
            match step:
                case Put(Route() as r):
                    way = Way(r.destination, table, index=r.index, gateway=r.gateway)
                    kernel.send(f"ip route replace {r}", partial(kernel.put_way, way))
                case Delete(Route() as r):
                    held = kernel.ways.get(Way(r.destination, table).key)
                    if held is not None and (held.index, held.gateway) == (r.index, r.gateway):
                        gone = partial(kernel.delete_way, r.destination, table, 0)
                        kernel.send(f"ip route del {r}", gone)

    @_in_our_words("the rules")
    def set_rules(
        self, enis: Sequence[EniLink], *, prune: bool = True, routing: Routing = USUAL_ROUTING
    ) -> None:
        """Bring our rules to what *enis* need."""
        kernel = self._kernel
        for step in steps(desired_rules(enis, routing), sorted(kernel.rules, key=by_table)):
            match step:
                case Put(Rule() as rule):
                    kernel.send(f"ip rule add {rule_words(rule)}", partial(kernel.rules.add, rule))
                case Delete(Rule() as rule) if prune:
                    gone = partial(kernel.rules.discard, rule)
                    kernel.send(f"ip rule del {rule_words(rule)}", gone)

    @_in_our_words("the guards")
    def add_guards(self, networks: Iterable[Network]) -> None:
        """Guard *networks*."""
        put = self._kernel.put_way
        self._batches("replace", [partial(put, Way(n, PODS_TABLE, GUARD_METRIC)) for n in networks])

    @_in_our_words("the guards")
    def remove_guards(self, networks: Iterable[Network]) -> None:
        """Stop guarding *networks*."""
        keys = [Way(network, PODS_TABLE, GUARD_METRIC).key for network in networks]
        self._batches("del", [partial(self._forget, key) for key in keys])

    def _forget(self, key: Key) -> None:
        self._kernel.ways.pop(key, None)

    def _batches(self, verb: str, changes: Sequence[Callable[[], None]]) -> None:
        for start in range(0, len(changes), MAX_BATCH):
            batch = changes[start : start + MAX_BATCH]
            self._kernel.send(f"ip route {verb} unreachable, {len(batch)} times", *batch)

    def guards(self, want: Iterable[Network]) -> tuple[int, int]:
        """Guard exactly *want*."""
        wanted = set(want)
        ways = (w for w in self._kernel.ways.values() if not (w.tos or w.origin))
        there = {w.network for w in ways if w.metric == GUARD_METRIC}
        self.add_guards(sorted(wanted - there, key=str))
        self.remove_guards(sorted(there - wanted, key=str))
        return len(wanted - there), len(there - wanted)

    def host_addresses(self) -> Mapping[Address, str]:
        """Return the addresses on host links."""
        self._kernel.look()
        return self._kernel.addresses()

    @_in_our_words("the flows of released addresses")
    def purge_conntrack(self, addresses: Collection[Address]) -> int:
        """Delete every flow from or to *addresses*."""
        kernel = self._kernel
        doomed = [flow for flow in kernel.flows if not flow.isdisjoint(addresses)]
        if doomed:
            changes = [partial(kernel.flows.remove, flow) for flow in doomed]
            kernel.send(f"conntrack -D, {len(doomed)} times", *changes)
        return len(doomed)

    @_in_our_words("nft")
    def apply_nft(self, text: str) -> bool:
        """Write the table if it differs."""
        if self._kernel.nft == text:
            return False
        self.write_nft(text)
        return True

    @_in_our_words("nft")
    def write_nft(self, text: str, *, anew: bool = False) -> None:
        """Write the table."""
        del anew
        self._kernel.send("nft -f -", partial(self._kernel.write_nft, text))

    def missing_features(self, wish: NftWish = PROBED) -> tuple[str, ...]:
        """Return what a test says is missing."""
        more = self._kernel.lacks_for_clamp if wish.mss_clamp else ()
        return (*self._kernel.lacks, *more)

    def sysctl_complaints(self, names: Iterable[str] = NODE_SYSCTLS) -> tuple[str, ...]:
        """Return a sentence for each sysctl that was changed."""
        return sysctl_complaints({name: self._kernel.sysctls[name] for name in names})


class ModelWiring:
    """A `cni.kernel.Wiring` of the model."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def identify(self, netns_fd: int) -> NetnsId:
        """Return which network namespace a descriptor is."""
        netns = self._kernel.netns_of(netns_fd)
        if netns is None:
            raise CniError(Code.INVALID_ENVIRONMENT, "CNI_NETNS is not a network namespace")
        if netns is self._kernel.own:
            words = "CNI_NETNS is the node's own network namespace"
            raise CniError(Code.INVALID_ENVIRONMENT, words)
        return netns.identity

    def connect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int, netns_path: str) -> Attached:
        """Make the wire of *wish*, or leave no trace."""
        try:
            return self._connect(wish, netns_fd, pod_netlink_fd, netns_path)
        except NetlinkError as error:
            raise WireError(f"{wish.sandbox.container_id}: {error}") from error

    def _connect(self, wish: Wish, netns_fd: int, socket_fd: int, path: str) -> Attached:
        kernel, ifname = self._kernel, wish.sandbox.ifname
        name, mac = wish.host_ifname, pod_mac(wish.addresses[0])
        alias = Alias(wish.sandbox, wish.pod_uid, wish.addresses, wish.eni_id).text()
        if len(alias) > MAX_ALIAS_BYTES:
            raise WireError(f"the names in {alias!r} are too long: {MAX_ALIAS_BYTES} bytes at most")
        netns = self._check_socket(socket_fd, netns_fd)
        self._remove_leftover(name, wish.sandbox)
        with self._undone(name):
            group = POD_GROUP + wish.eni_number
            pair = partial(kernel.add_veth, name, group, ifname, mac, netns, wish.mtu)
            self._make_pair(name, ifname, pair)
            up = partial(kernel.set_link, name, up=True, alias=alias, conf=POD_CONF)
            kernel.send(f"ip link set {name} up alias {alias!r} {POD_CONF}", up)
            inside = partial(self._configure_pod, netns, wish)
            kernel.send(f"ip -n {netns.name} link set {ifname} up, addresses, routes", inside)
            link = kernel.link(name)
            assert link is not None
            ways = [_pod_way(address, link.index, wish) for address in wish.addresses]
            words = f"ip route replace {name} of {', '.join(map(str, wish.addresses))}"
            known = partial(link.neighbours.update, dict.fromkeys(wish.addresses, mac))
            kernel.send(words, known, *(partial(kernel.put_way, way) for way in ways))
        return Attached(
            host_ifname=name,
            host_mac=HOST_MAC,
            pod_mac=mac,
            ifname=ifname,
            netns_path=path,
            addresses=tuple(ip_interface(a) for a in wish.addresses),
            mtu=wish.mtu,
        )

    def _check_socket(self, socket_fd: int, netns_fd: int) -> Netns:
        owner = self._kernel.netns_of_socket(socket_fd)
        if owner is None:
            raise WireError("[Errno 25] Inappropriate ioctl for device")
        if owner is not self._kernel.netns_of(netns_fd):
            raise WireError("the netlink socket that came is not of the pod's network namespace")
        return owner

    def _remove_leftover(self, name: str, sandbox: Sandbox) -> None:
        link = self._kernel.link(name)
        if link is None:
            return
        alias = parse_alias(link.alias)
        if link.alias and (alias is None or alias.sandbox != sandbox):
            raise WireError(f"{name} exists and is not ours (alias {link.alias!r}); remove it")
        with contextlib.suppress(NetlinkError):
            self._kernel.send(f"ip link del {name}", partial(self._kernel.delete_link, name))

    @contextlib.contextmanager
    def _undone(self, name: str) -> Iterator[None]:
        """Take the link away again after an error; a kill is none."""
        try:
            yield
        except (NetlinkError, WireError):
            with contextlib.suppress(NetlinkError):
                self._kernel.send(f"ip link del {name}", partial(self._kernel.delete_link, name))
            raise

    def _make_pair(self, name: str, peer: str, pair: Callable[[], None]) -> None:
        try:
            self._kernel.send(f"ip link add {name} type veth peer {peer}", pair)
        except NetlinkError as error:
            if error.errno == errno.EEXIST:
                words = f"the pod has an interface {peer} already, and it is not ours"
                raise WireError(words) from error
            raise

    @staticmethod
    def _configure_pod(netns: Netns, wish: Wish) -> None:
        pod = netns.links[wish.sandbox.ifname]
        netns.lo_up = pod.is_up = True
        pod.addresses |= set(wish.addresses)
        gateways = {GATEWAY_V4 if a.version == 4 else GATEWAY_V6 for a in wish.addresses}
        pod.gateways |= gateways
        pod.neighbours |= dict.fromkeys(gateways, HOST_MAC)

    def disconnect(self, host_ifname: str, addresses: Sequence[Address]) -> None:
        """Cut the wire; nothing if there is none."""
        kernel = self._kernel
        for address in addresses:
            network, metric = ip_network(address), _metric(address)
            self._cut(
                f"ip route del {address}", partial(kernel.delete_way, network, PODS_TABLE, metric)
            )
        down = partial(kernel.set_link, host_ifname, up=False, group=DYING_GROUP)
        self._cut(f"ip link set {host_ifname} down group {DYING_GROUP}", down)

    def _cut(self, words: str, change: Callable[[], None]) -> None:
        try:
            self._kernel.send(words, change)
        except NetlinkError as error:
            if error.errno not in {errno.ESRCH, errno.ENODEV}:
                raise WireError(str(error)) from error

    def inspect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int) -> Wire:
        """Return what there is of a wire, changing nothing."""
        try:
            netns = self._check_socket(pod_netlink_fd, netns_fd)
            name, ifname = wish.host_ifname, wish.sandbox.ifname
            self._kernel.send(f"ip link show {name}, and of {netns.name} {ifname}")
        except NetlinkError as error:
            raise WireError(f"{wish.sandbox.container_id}: {error}") from error
        host, pod = self._kernel.link(name), netns.links.get(ifname)
        return Wire(
            None if host is None else self._host_end(host),
            None if pod is None else self._pod_end(netns, pod),
        )

    def _host_end(self, link: HostSide) -> HostEnd:
        ways = self._kernel.ways.values()
        return HostEnd(
            index=link.index,
            peer=POD_INDEX if link.netns is not None else 0,
            mac=link.mac,
            mtu=link.mtu,
            is_up=link.is_up,
            group=link.group,
            alias=link.alias,
            rp_filter=link.conf.get("rp_filter", 0),
            routes={
                way.network.network_address: way.source
                for way in ways
                if (way.table, way.index, way.tos) == (PODS_TABLE, link.index, 0)
            },
            neighbours=dict(link.neighbours),
        )

    @staticmethod
    def _pod_end(netns: Netns, link: PodLink) -> PodEnd:
        return PodEnd(
            index=POD_INDEX if link.host else 0,
            peer=link.host,
            mac=link.mac,
            mtu=link.mtu,
            is_up=link.is_up,
            lo_up=netns.lo_up,
            addresses=frozenset(link.addresses),
            gateways=frozenset(link.gateways),
            neighbours=dict(link.neighbours),
        )

    def reap(self) -> int:
        """Delete the links that were put to die."""
        dying = [link for link in self._kernel.links if link.group == DYING_GROUP]
        strangers = [link.name for link in dying if parse_alias(link.alias) is None]
        if strangers:
            raise WireError(f"{', '.join(strangers)} in link group {DYING_GROUP} is not ours")
        if dying:
            gone = partial(self._kernel.delete_group, DYING_GROUP)
            self._cut(f"ip link del group {DYING_GROUP}", gone)
        return len(dying)

    def links(self) -> tuple[HostLink, ...]:
        """Return every link whose alias is ours."""
        return tuple(
            HostLink(link.name, link.index, alias, link.group)
            for link in self._kernel.links
            if (alias := parse_alias(link.alias)) is not None
        )


def _metric(address: Address) -> int:
    return 0 if address.version == 4 else 1024


def _pod_way(address: Address, index: int, wish: Wish) -> Way:
    source = wish.node_primary if wish.node_primary.version == address.version else None
    return Way(ip_network(address), PODS_TABLE, _metric(address), index, source=source)


class ModelMender:
    """A `cni.kernel.Mender` of the model."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._last: tuple[object, Found] = (None, Found())

    def look(self, tables: Iterable[int]) -> Found:
        """Return what is there: as `cni.rtdump` has it, the very same where nothing has changed."""
        del tables  # every route of the model's is ours
        state = self._state()
        if state != self._last[0]:
            self._last = state, self._found()
        return self._last[1]

    def _state(self) -> object:
        """Return all that a look shows, in few objects."""
        kernel = self._kernel
        links = [
            (
                *(link.index, link.name, link.mac, link.mtu, link.is_up, link.group, link.alias),
                *(tuple(link.conf.items()), tuple(link.addresses), frozenset(link.silent)),
                tuple(link.neighbours.items()),
            )
            for link in kernel.links
        ]
        ways, rules = tuple(kernel.ways.values()), frozenset(kernel.rules | kernel.odd_rules)
        return links, ways, rules, kernel.nft, kernel.nft_writes

    def _found(self) -> Found:
        kernel = self._kernel
        links = kernel.links
        return Found(
            links=tuple(map(_found, links)),
            ways=tuple(
                AnyWay(**{f.name: getattr(w, f.name) for f in fields(Way)})
                for w in kernel.ways.values()
            ),
            rules=tuple(FoundRule(rule, PROTOCOL) for rule in kernel.rules),
            odd=tuple(kernel.odd_rules),
            addresses=tuple(
                OwnAddress(link.index, address, address in link.silent)
                for link in links
                for address in link.addresses
            ),
            neighbours=frozenset(
                Neighbour(link.index, address, mac)
                for link in links
                for address, mac in link.neighbours.items()
            ),
            table=self.look_at_table(),
        )

    def look_at_links(self, indexes: Iterable[int]) -> tuple[FoundLink, ...]:
        """Return these links."""
        asked = set(indexes)
        return tuple(_found(link) for link in self._kernel.links if link.index in asked)

    def look_at_table(self) -> FoundTable:
        """Return our table."""
        text = self._kernel.nft
        if not text:
            return FoundTable()
        chains = rendered_chains(text)
        places = [chain for chain, number in chains.items() for _ in range(number)]
        mark = mark_of(text)
        rules = (FoundNftRule(c.family, c.name, i, mark) for i, c in enumerate(places))
        return FoundTable(tuple(sorted(chains)), tuple(rules))

    def mend(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Take each step."""
        return tuple(map(self._mend, steps))

    def _mend(self, step: Step) -> str:
        kernel = self._kernel
        if isinstance(step, kernel.cannot):
            return "no memory"
        try:
            kernel.send(str(step), partial(self._take, step))
        except NetlinkError as error:
            takes_away = isinstance(step, DeleteWay | DeleteRule | DeleteAddress)
            is_done = takes_away and error.errno in {errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}
            return "" if is_done else str(error)
        return ""

    def _take(self, step: Step) -> None:
        kernel = self._kernel
        match step:
            case SetLink():
                self._set_link(step)
            case PutWay(w):
                values = {f.name: getattr(w, f.name) for f in fields(Way)}
                kernel.put_way(Way(**values | {"gateway": _v4(w.gateway)}))
            case DeleteWay(way):
                kernel.delete_way(*way.key)
            case PutRule(rule):
                kernel.rules.add(rule)
            case DeleteRule(rule):
                kernel.rules = {one for one in kernel.rules if one != rule}
                kernel.odd_rules = {one for one in kernel.odd_rules if one != rule}
            case _:
                self._take_at_link(step)

    def _take_at_link(self, step: PutAddress | DeleteAddress | PutNeighbour | WriteTable) -> None:
        match step:
            case PutAddress(index, address):
                self._at(index).add_silently(address)
            case DeleteAddress(index, address):
                self._delete_address(self._at(index), address)
            case PutNeighbour(n):
                self._at(n.index).neighbours[n.address] = n.mac
            case WriteTable():
                raise TypeError("nft writes tables, not this")

    @staticmethod
    def _delete_address(link: HostSide, address: IPv4Interface) -> None:
        if address not in link.addresses:
            raise NetlinkError(errno.EADDRNOTAVAIL, f"ip addr del {address}", "")
        link.addresses.remove(address)

    def _at(self, index: int) -> HostSide:
        for link in self._kernel.links:
            if link.index == index:
                return link
        raise NetlinkError(errno.ENODEV, f"link #{index}", "")

    def _set_link(self, step: SetLink) -> None:
        link = self._at(step.index)
        link.name = step.name or link.name
        if step.mac is not None:
            link.set_mac(step.mac)
        link.alias = link.alias if step.alias is None else step.alias
        self._kernel.set_link(
            link.name,
            up=link.is_up if step.is_up is None else step.is_up,
            group=step.group,
            mtu=step.mtu,
            conf=dict(step.conf),
        )


def _found(link: HostSide) -> FoundLink:
    return FoundLink(
        index=link.index,
        name=link.name,
        mac=link.mac,
        mtu=link.mtu,
        is_up=link.is_up,
        group=link.group,
        alias=link.alias,
        conf=tuple(link.conf.items()),
    )


def _v4(address: Address | None) -> IPv4Address | None:
    return address if isinstance(address, IPv4Address) else None


class ModelEars:
    """A `cni.kernel.Ears` of the model: it tells what others than the daemon have done."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def on_told(self, call: Callable[[], None]) -> None:
        """Call *call* when somebody changes something, once."""
        self._kernel.on_told = call
        if self._kernel.heard:
            self._kernel.tell(Heard())

    def read(self, is_ours: Callable[[int], bool]) -> Heard:
        """Return what was told since."""
        del is_ours
        heard, self._kernel.heard = self._kernel.heard, Heard()
        return heard
