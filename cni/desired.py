"""What the node's side of the kernel should be as a whole, and the steps to it. Pure.

`Desired` is everything of ours on the host: the links of ENIs with address and table, the
rules, the guards, each pod's veth with its route and neighbour, the nft table. `Found` is
what a look at the kernel shows. `mending` yields the steps from one to the other, each with
a sentence that says what had vanished or was changed. Puts come before deletes, and in an
order in which the kernel takes them: a route needs its link up. What does not carry our mark
is never deleted, and changed only where it took the very place of something of ours.

Inside a pod nothing is looked at, and nothing is mended: that is the pod's owner's, and
CHECK's to tell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface, IPv4Network, ip_network

from cni.dataplane import (
    ENI_GROUP,
    GUARD_METRIC,
    HOST_MAC,
    POD_GROUP,
    PODS_TABLE,
    PROTOCOL,
    USUAL_ROUTING,
    Address,
    Alias,
    EniLink,
    ForeignRule,
    Network,
    Routing,
    Rule,
    desired_routes,
    desired_rules,
    eni_table,
    parse_alias,
    pod_mac,
)
from cni.nft_found import FoundTable, difference, is_elsewhere
from cni.spec import Sandbox

POD_CONF: Mapping[str, int] = {"forwarding": 1, "rp_filter": 1}
"""Link settings of a pod's veth: an unnumbered link is strict at 1, so no pod sends from an
address that is not its own."""

PRIMARY_CONF: Mapping[str, int] = {"forwarding": 1, "rp_filter": 2, "send_redirects": 0}
ENI_CONF: Mapping[str, int] = {**PRIMARY_CONF, "promote_secondaries": 1}
"""Link settings of ENIs. With a foreign address before ours, the kernel would take ours away
along with it, were it not for promote_secondaries."""

KINDS: Mapping[str, int] = {
    "multipath": 1, "local": 2, "broadcast": 3, "multicast": 5, "blackhole": 6, "prohibit": 8,
    "throw": 9,
}  # fmt: skip
"""Routes that none of ours is like, and the kernel's numbers of them (RTN_*, linux/rtnetlink.h)."""

DROPPING = {"blackhole", "prohibit"}

EVERYWHERE = IPv4Network("0.0.0.0/0")

METRIC_V6 = 1024
"""What the kernel makes of an IPv6 route's metric 0."""


class Part(StrEnum):
    """What of ours can drift; the label of the metric that counts repairs."""

    RULE = "rule"
    ENI_LINK = "eni-link"
    ENI_ADDRESS = "eni-address"
    ENI_ROUTE = "eni-route"
    GUARD = "guard"
    POD_LINK = "pod-link"
    POD_ROUTE = "pod-route"
    NEIGHBOUR = "neighbour"
    TABLE = "nft-table"


NODE_SYSCTL = "node-sysctl"
"""What can drift and only the host can put back (`cni.dataplane.NODE_SYSCTLS`), counted so."""


# What should be ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PodWire:
    """One pod's wire."""

    sandbox: Sandbox
    addresses: tuple[Address, ...]
    eni_number: int
    alias: Alias
    source: Address
    """The node's own address, from which it talks to the pod."""
    who: str
    """The pod, as an operator calls it."""
    name: str
    """The host veth's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Everything of ours on the host.

    *unsure* are networks whose guards come or go at this moment: theirs may be there or not.
    Without *is_whole* not every ENI is known yet, so nothing that is too much is named.
    """

    enis: tuple[EniLink, ...] = ()
    pods: tuple[PodWire, ...] = ()
    guards: frozenset[Network] = frozenset()
    unsure: frozenset[Network] = frozenset()
    table: str = ""
    """The text of the nft tables; empty: they are being written."""
    routing: Routing = USUAL_ROUTING
    is_whole: bool = True


Key = tuple[Network, int, int, int, Network | None]
"""Of a route: network, table, metric, and TOS and origin of the packets."""


# What is there -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLink:
    """One link of the host. *conf* is what of its IPv4 settings is ours to make."""

    index: int
    name: str
    mac: str
    mtu: int
    is_up: bool
    group: int
    alias: str
    conf: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """A route; *index* 0 means unreachable, or what *kind* (`KINDS`) says."""

    network: Network
    table: int
    metric: int = 0
    index: int = 0
    gateway: Address | None = None
    source: Address | None = None
    protocol: int = PROTOCOL
    kind: str = ""
    tos: int = 0
    origin: Network | None = None
    """Of the packets that it is for, and none of ours asks for; 0 and None are all the others."""

    @property
    def key(self) -> Key:
        """What a route takes the place of: of two of the same key the first is followed."""
        return (self.network, self.table, self.metric, self.tos, self.origin)

    @property
    def drops(self) -> bool:
        """Whether what takes it goes nowhere."""
        return self.kind in DROPPING if self.kind else not self.index


@dataclass(frozen=True, slots=True)
class FoundRule:
    """A rule that asks nothing but what ours ask; *protocol* says whose it is."""

    rule: Rule
    protocol: int


@dataclass(frozen=True, slots=True)
class OddRule:
    """A rule of our protocol that none of ours is like: of IPv6, or it does or asks something else.

    *words* are those of `ip rule`. *body* is the kernel's own message of it, by which it goes:
    whatever it asks is in there.
    """

    words: str
    body: bytes
    like: Rule | None = None
    """The rule that it only turns round (`not`): of the two, the kernel deletes the first."""


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of a link; *is_silent* is noprefixroute: it made no route in `main`."""

    index: int
    address: IPv4Interface
    is_silent: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour on a link of the host."""

    index: int
    address: Address
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look at the kernel shows: links, and what of the rest can be ours.

    *ways* are those of the PODS table and of the tables asked for, whoever made them, in the order
    in which they are followed, and those of our protocol anywhere. *marked* are others' rules that
    look at marks, whatever else they ask.
    """

    links: tuple[FoundLink, ...] = ()
    ways: tuple[Way, ...] = ()
    rules: tuple[FoundRule, ...] = ()
    odd: tuple[OddRule, ...] = ()
    addresses: tuple[OwnAddress, ...] = ()
    neighbours: frozenset[Neighbour] = frozenset()
    table: FoundTable | None = None
    """None: not looked at."""
    marked: tuple[ForeignRule, ...] = ()


# Steps ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SetLink:
    """Change a link; what is None stays."""

    index: int
    is_up: bool | None = None
    group: int | None = None
    alias: str | None = None
    mac: str | None = None
    mtu: int | None = None
    name: str | None = None
    conf: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PutWay:
    """Put a route; one of the same key is replaced."""

    way: Way


@dataclass(frozen=True, slots=True)
class DeleteWay:
    """Take a route out."""

    way: Way


@dataclass(frozen=True, slots=True)
class PutRule:
    """Add a rule of ours."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class DeleteRule:
    """Take a rule of our protocol out.

    The kernel takes out the first of that preference which has all that is asked for, whatever
    it has besides: *spare* are those of ours that it could take for it, and they stay.
    """

    rule: Rule | OddRule
    spare: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class PutAddress:
    """Give a link this address, without a route in `main`; *anew* if it has made one."""

    index: int
    address: IPv4Interface
    anew: bool = False


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Take an address from a link."""

    index: int
    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class PutNeighbour:
    """Make this the permanent neighbour."""

    neighbour: Neighbour


@dataclass(frozen=True, slots=True)
class WriteTable:
    """Write the nft tables, whatever is there of them; *anew* with no chain that was there."""

    text: str
    anew: bool = False


Step = (
    SetLink
    | PutWay
    | DeleteWay
    | PutRule
    | DeleteRule
    | PutAddress
    | DeleteAddress
    | PutNeighbour
    | WriteTable
)


@dataclass(frozen=True, slots=True)
class Repair:
    """One step, and why. *what* names the object for good; *sentence* tells what befell it."""

    part: Part
    what: str
    sentence: str
    step: Step
    sandbox: Sandbox | None = None
    """The pod's whose wire it is."""

    @property
    def takes_away(self) -> bool:
        """Whether it deletes: that needs two observations."""
        return isinstance(self.step, DeleteWay | DeleteRule | DeleteAddress)


@dataclass(slots=True)
class Known:
    """Which link was whose when it was last seen whole, by index; a link keeps its index."""

    enis: dict[str, int] = field(default_factory=dict)
    """By the ENI's MAC."""
    pods: dict[Sandbox, int] = field(default_factory=dict)
    table: FoundTable | None = None
    """The nft tables as they were written; None: they were written since."""

    @property
    def owners(self) -> Mapping[int, Sandbox]:
        """Whose a link is, by its index."""
        return {index: sandbox for sandbox, index in self.pods.items()}

    def learn(self, want: Desired, have: Found, *, whole: bool = True) -> None:
        """Remember whose links these are; with the *whole* of them, forget those of others."""
        lookup = Lookup(have, self)
        if have.table is not None and not difference(want.table, have.table):
            self.table = self.table or have.table
        enis = {e.mac: link.index for e in want.enis if (link := lookup.eni(e))}
        pods = {p.sandbox: link.index for p in want.pods if (link := lookup.pod(p))}
        self.enis = enis if whole else self.enis | enis
        self.pods = pods if whole else self.pods | pods


class Lookup:
    """Found links, by what makes them ours."""

    def __init__(self, have: Found, known: Known) -> None:
        self._known = known
        self._by_index = {link.index: link for link in have.links}
        # The first: what hangs on an ENI, as an ipvlan does, has its MAC, too.
        self._by_mac = {link.mac: link for link in reversed(have.links)}
        self._by_name = {link.name: link for link in have.links}
        self._links = have.links
        self._by_alias: dict[Sandbox, FoundLink] | None = None

    def eni(self, eni: EniLink) -> FoundLink | None:
        """Return an ENI's link: the one that had its MAC when it was last seen, or that has it."""
        known = self._known.enis.get(eni.mac, 0)
        return self._by_index.get(known) or self._by_mac.get(eni.mac)

    def pod(self, pod: PodWire) -> FoundLink | None:
        """Return a pod's host veth: the one that it was, or by its name, or by its alias.

        Its name is made of the sandbox, so whatever alias somebody gave it, it is the pod's; only
        one that says that it is another pod's is not.
        """
        found = self._by_index.get(self._known.pods.get(pod.sandbox, 0))
        if found is None:
            found = self._by_name.get(pod.name)
            if found is not None and (alias := parse_alias(found.alias)) is not None:
                found = found if alias.sandbox == pod.sandbox else None
        return found or self._aliases().get(pod.sandbox)

    def _aliases(self) -> Mapping[Sandbox, FoundLink]:
        """Return links by what they say of themselves; few are looked up so, and mostly none."""
        if self._by_alias is None:
            said = ((parse_alias(link.alias), link) for link in self._links if link.alias)
            self._by_alias = {alias.sandbox: link for alias, link in said if alias is not None}
        return self._by_alias


def moved(have: Found, source: Address) -> tuple[PutWay, ...]:
    """Return the pods' routes that another version keeps in a table of its own, for ours.

    They come first of all that an upgrade does: a rule, or a guard, of ours without them would
    cut off pods that talk.
    """
    pods = {link.index for link in have.links if parse_alias(link.alias) is not None}
    there = {w.network for w in have.ways if w.table == PODS_TABLE and w.index and not w.tos}
    return tuple(
        PutWay(_pod_way(way.network.network_address, way.index, source))
        for way in have.ways
        if way.protocol == PROTOCOL and way.index in pods and way.network not in there
        if not way.tos and not way.origin
    )


# The diff ------------------------------------------------------------------------------
def mending(want: Desired, have: Found, known: Known | None = None) -> Iterator[Repair]:
    """Yield the repairs from *have* to *want*, puts first; none if all is well.

    A pod whose veth is not there has none: its end is the lease's affair.
    """
    known = known or Known()
    lookup = Lookup(have, known)
    links = {eni: lookup.eni(eni) for eni in want.enis}
    wires = {pod: lookup.pod(pod) for pod in want.pods}
    yield from _eni_links(links)
    yield from _addresses(links, have)
    yield from _pod_links(wires)
    wanted = dict(_ways(want, links, wires))
    unseen = {ip_network(a) for pod, link in wires.items() if link is None for a in pod.addresses}
    there = {way.key: way for way in reversed(have.ways)}
    yield from _missing_ways(wanted, there)
    yield from _neighbours(wires, have)
    yield from _missing_rules(want, have)
    yield from _table(want, have, known)
    yield from _surplus_addresses(links, have)
    if want.is_whole:
        yield from _surplus_rules(want, have)
        yield from _surplus_ways(want.unsure | unseen, wanted, have.ways)


def _changes(link: FoundLink, wish: SetLink) -> tuple[SetLink, list[str]]:
    """Return what of *wish* the link is not yet, and in words what it is instead."""
    words: list[str] = []
    values: dict[str, object] = {}
    for name in ("is_up", "group", "alias", "mac", "mtu", "name"):
        asked, found = getattr(wish, name), getattr(link, name)
        if asked is not None and asked != found:
            values[name] = asked
            words.append(_difference(name, found, asked))
    there = dict(link.conf)
    conf = tuple((name, value) for name, value in wish.conf if there.get(name, value) != value)
    words += [f"{name} was {there[name]} and must be {value}" for name, value in conf]
    return SetLink(link.index, conf=conf, **values), words  # type: ignore[arg-type]  # its own fields


def _difference(name: str, found: object, asked: object) -> str:
    if name == "is_up":
        return "was down"
    if name == "alias" and not found:
        return "its alias had vanished"
    word = "MAC" if name == "mac" else "MTU" if name == "mtu" else name
    return (
        f"its {word} was {found!r} and must be {asked!r}"
        if name in {"alias", "name"}
        else (f"its {word} was {found} and must be {asked}")
    )


def _eni_links(links: Mapping[EniLink, FoundLink | None]) -> Iterator[Repair]:
    for eni, link in links.items():
        if link is None:
            continue
        group = ENI_GROUP + eni.number
        if eni.is_primary:
            conf = tuple(PRIMARY_CONF.items())
            wish = SetLink(link.index, group=group, mtu=eni.mtu, conf=conf)
        else:
            conf = tuple(ENI_CONF.items())
            wish = SetLink(link.index, is_up=True, group=group, mac=eni.mac, mtu=eni.mtu, conf=conf)
        step, words = _changes(link, wish)
        if words:
            what = f"link {link.name} of ENI {eni.number}"
            yield Repair(Part.ENI_LINK, what, f"{what}: {', '.join(words)}", step)


def _own(eni: EniLink) -> IPv4Interface:
    return IPv4Interface((eni.address, eni.subnet.prefixlen))


def _addresses(links: Mapping[EniLink, FoundLink | None], have: Found) -> Iterator[Repair]:
    for eni, link in links.items():
        if link is None or eni.is_primary:
            continue
        own = _own(eni)
        if OwnAddress(link.index, own, is_silent=True) in have.addresses:
            continue
        what = f"address {own} of {link.name}"
        loud = OwnAddress(link.index, own, is_silent=False) in have.addresses
        sentence = f"{what} made a route in main" if loud else f"{what} had vanished"
        yield Repair(Part.ENI_ADDRESS, what, sentence, PutAddress(link.index, own, loud))


def _surplus_addresses(links: Mapping[EniLink, FoundLink | None], have: Found) -> Iterator[Repair]:
    """An address of a pod on a host link would steal the pod's packets."""
    for eni, link in links.items():
        if link is None or eni.is_primary:
            continue
        for found in have.addresses:
            if found.index == link.index and found.address != _own(eni):
                what = f"address {found.address} of {link.name}"
                step = DeleteAddress(link.index, found.address)
                yield Repair(Part.ENI_ADDRESS, what, f"{what} is foreign to an ENI of pods", step)


def _says(text: str, alias: Alias) -> bool:
    """Whether *text* says what *alias* says; another version's may say more."""
    return text == alias.text() or parse_alias(text) == alias


def _pod_links(wires: Mapping[PodWire, FoundLink | None]) -> Iterator[Repair]:
    for pod, link in wires.items():
        if link is None:
            continue
        wish = SetLink(
            link.index,
            is_up=True,
            group=POD_GROUP + pod.eni_number,
            alias=None if _says(link.alias, pod.alias) else pod.alias.text(),
            mac=HOST_MAC,
            name=pod.name,
            conf=tuple(POD_CONF.items()),
        )
        step, words = _changes(link, wish)
        if words:
            what = f"veth {pod.name} of {pod.who}"
            yield Repair(Part.POD_LINK, what, f"{what}: {', '.join(words)}", step, pod.sandbox)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A route, and in whose name."""

    way: Way
    part: Part
    what: str
    sandbox: Sandbox | None = None


def _ways(
    want: Desired,
    links: Mapping[EniLink, FoundLink | None],
    wires: Mapping[PodWire, FoundLink | None],
) -> Iterator[tuple[Key, _Wanted]]:
    for eni, link in links.items():
        if link is None or eni.is_primary:
            continue
        for route in desired_routes(eni, link.index):
            way = Way(route.destination, route.table, 0, link.index, route.gateway)
            what = f"route {named(way)} of ENI {eni.number}, table {way.table}"
            yield way.key, _Wanted(way, Part.ENI_ROUTE, what)
    for network in sorted(want.guards - want.unsure, key=_order):
        way = Way(network, PODS_TABLE, GUARD_METRIC)
        yield way.key, _Wanted(way, Part.GUARD, f"guard of {network}")
    for pod, link in wires.items():
        if link is None:
            continue
        for address in pod.addresses:
            way = _pod_way(address, link.index, pod.source)
            what = f"route to {address} of {pod.who}"
            yield way.key, _Wanted(way, Part.POD_ROUTE, what, pod.sandbox)


def _order(network: Network) -> tuple[int, Network]:
    return network.version, network


def _pod_way(address: Address, index: int, source: Address) -> Way:
    own = source if source.version == address.version else None
    metric = METRIC_V6 if address.version == 6 else 0  # noqa: PLR2004 - the family
    return Way(ip_network(address), PODS_TABLE, metric, index, source=own)


def named(way: Way) -> str:
    """Return where a route leads to, in a word, and of which packets."""
    tos = f" tos {way.tos:#x}" if way.tos else ""
    origin = f" from {way.origin}" if way.origin else ""
    return f"{way.network if way.network.prefixlen else 'default'}{origin}{tos}"


def _missing_ways(wanted: Mapping[Key, _Wanted], there: Mapping[Key, Way]) -> Iterator[Repair]:
    for key, wish in wanted.items():
        found = there.get(key)
        if found == wish.way:
            continue
        befell = "had vanished" if found is None else _how_changed(found, wish.way)
        yield Repair(wish.part, wish.what, f"{wish.what} {befell}", PutWay(wish.way), wish.sandbox)


def _how_changed(found: Way, wish: Way) -> str:
    if found.kind:
        return f"was of type {found.kind}"
    if found.index != wish.index:
        where = f"led to link #{found.index}" if found.index else "was unreachable"
        return f"{where} instead of #{wish.index}" if wish.index else where
    return "had another gateway, source or protocol"


def _neighbours(wires: Mapping[PodWire, FoundLink | None], have: Found) -> Iterator[Repair]:
    for pod, link in wires.items():
        if link is None:
            continue
        mac = pod_mac(pod.addresses[0])
        for address in pod.addresses:
            wish = Neighbour(link.index, address, mac)
            if wish not in have.neighbours:
                what = f"permanent neighbour {address} of {pod.who}"
                places = {(n.index, n.address) for n in have.neighbours}
                is_there = (link.index, address) in places
                sentence = f"{what} had {'another MAC' if is_there else 'vanished'}"
                yield Repair(Part.NEIGHBOUR, what, sentence, PutNeighbour(wish), pod.sandbox)


def rule_words(rule: Rule) -> str:
    """Return a rule as `ip rule` shows it."""
    to = f" to {rule.destination}" if rule.destination else ""
    mark = f" fwmark {rule.fwmark:#x}/{rule.fwmask:#x}" if rule.fwmark else ""
    table = "main" if rule.table == eni_table(1) else rule.table
    return f"{rule.preference}: from {rule.source or 'all'}{to}{mark} lookup {table}"


def _missing_rules(want: Desired, have: Found) -> Iterator[Repair]:
    there = {found.rule for found in have.rules}  # somebody else's that is equal does the same
    for rule in desired_rules(want.enis, want.routing):
        if rule not in there:
            what = f"rule {rule_words(rule)}"
            yield Repair(Part.RULE, what, f"{what} had vanished", PutRule(rule))


def _surplus_rules(want: Desired, have: Found) -> Iterator[Repair]:
    wanted = desired_rules(want.enis, want.routing)
    ours = (found.rule for found in have.rules if found.protocol == PROTOCOL)
    surplus: list[Rule | OddRule] = [rule for rule in ours if rule not in wanted]
    for rule in (*surplus, *have.odd):
        words, asked = (
            (rule.words, rule.like) if isinstance(rule, OddRule) else (rule_words(rule), rule)
        )
        what = f"rule {words}"
        sentence = f"{what} carries our protocol and is not needed"
        yield Repair(Part.RULE, what, sentence, DeleteRule(rule, spared(asked, wanted)))


def spared(asked: Rule | None, wanted: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return those of *wanted* that the kernel could delete in place of the one it is asked to."""
    return tuple(w for w in wanted if asked is not None and _is_taken_for(w, asked))


def _is_taken_for(rule: Rule, asked: Rule) -> bool:
    return (
        (rule.preference, rule.table) == (asked.preference, asked.table)
        and asked.fwmark in {0, rule.fwmark}
        and asked.fwmask in {0, rule.fwmask}
        and asked.source in {None, rule.source}
        and (not asked.destination or asked.destination in {EVERYWHERE, rule.destination})
    )


def _surplus_ways(
    unsure: Collection[Network],
    wanted: Mapping[Key, _Wanted],
    ways: Iterable[Way],
) -> Iterator[Repair]:
    followed: set[Key] = set()
    for way in ways:
        # The first in the place of ours is replaced, and is ours, too, if it is as it must be.
        is_behind = way.key in followed
        followed.add(way.key)
        if way.protocol != PROTOCOL or way.network in unsure:
            continue
        wish = wanted.get(way.key)
        if wish is not None and (not is_behind or way == wish.way):
            continue
        part = _part_of(way)
        kind = way.kind or ("route" if way.index else "guard")
        what = f"{kind} {named(way)} in table {way.table}"
        sentence = f"{what} carries our protocol and is not needed"
        yield Repair(part, what, sentence, DeleteWay(way))


def _part_of(way: Way) -> Part:
    if way.table != PODS_TABLE:
        return Part.ENI_ROUTE
    return Part.POD_ROUTE if way.index or way.kind else Part.GUARD


TABLE = "nft table enid"


def _table(want: Desired, have: Found, known: Known) -> Iterator[Repair]:
    if not want.table or have.table is None:
        return
    befell = difference(want.table, have.table)
    if not befell and known.table is not None and known.table != have.table:
        befell = "has other rules than were written"
    if befell:
        step = WriteTable(want.table, is_elsewhere(want.table, have.table))
        yield Repair(Part.TABLE, TABLE, f"{TABLE} {befell}", step)
