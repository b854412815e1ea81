"""The node's side of ENIs: links, tables, rules, guards, nft, conntrack. Shell.

Desired state is handed over whole and may be handed over again. Puts come before deletes,
so that no packet finds nothing; what does not carry our protocol number, group or table
name is never touched. One instance belongs to one thread at a time; its sockets stay in the
namespace that it was made in.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from cni import conntrack, features, nft, rtnl
from cni.dataplane import (
    ENI_GROUP,
    GUARD_METRIC,
    NODE_SYSCTLS,
    PODS_TABLE,
    PROTOCOL,
    USUAL_ROUTING,
    Address,
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
    steps,
    sysctl_complaints,
)
from cni.desired import ENI_CONF, PRIMARY_CONF, SetLink, Way, spared
from cni.kernel import Link, NodeError
from cni.mender import DONE, GONE, path, put_rule, taking_out
from cni.rtdump import HAS_IPV6, Looks

log = logging.getLogger(__name__)

NFT = "nft"
NFT_SECONDS = 30
"""An nft that takes longer hangs: a whole table takes 30 ms beside 5,000 services."""

RTN_UNREACHABLE = 7


@contextlib.contextmanager
def _in_our_words(what: str) -> Iterator[None]:
    """Raise what the kernel refuses as NodeError about *what*."""
    try:
        yield
    except (rtnl.NetlinkError, OSError) as error:
        raise NodeError(f"{what}: {error}") from error


class NodeNetlink:
    """The node's network namespace, for one thread; a `cni.kernel.NodeNet`."""

    def __init__(self) -> None:
        self._fast = rtnl.Channel()
        self._looks = Looks()

    def close(self) -> None:
        """Close the sockets."""
        self._looks.close()
        self._fast.close()

    # Links -----------------------------------------------------------------------------
    @_in_our_words("the links")
    def find_link(self, mac: str) -> Link | None:
        """Return the link with this MAC, None if there is none; names mean nothing."""
        link = self._fast.find_link(mac)
        if link is None:
            return None
        return next(
            (
                Link(there.index, there.name, there.mac, there.mtu, there.is_up, there.group)
                for there in self._looks.links_of([link.index])
            ),
            None,
        )

    @_in_our_words("the node's addresses")
    def host_addresses(self) -> Mapping[Address, str]:
        """Return every address that is configured on a host link, and on which."""
        return {address: _name(index) for index, address in self._fast.dump_addresses()}

    @_in_our_words("the set-up of an ENI")
    def configure_eni(self, eni: EniLink) -> None:
        """Bring an ENI's link, address and table to their desired state.

        The primary ENI is the node's own: only its group, its settings (`PRIMARY_CONF`) and an
        MTU that is given are ours. Raises NodeError if there is no link with its MAC.
        """
        link = self.find_link(eni.mac)
        if link is None:
            raise NodeError(f"there is no link with MAC {eni.mac}")
        conf = tuple((PRIMARY_CONF if eni.is_primary else ENI_CONF).items())
        wish = SetLink(link.index, group=ENI_GROUP + eni.number, mtu=eni.mtu, conf=conf)
        if eni.is_primary:
            self._fast.send(rtnl.change_link(wish))
            return
        self._fast.send(rtnl.change_link(replace(wish, is_up=True)))
        self._set_address(link, eni)
        table = eni_table(eni.number)
        for step in steps(desired_routes(eni, link.index), self._routes(table)):
            match step:
                case Put(Route() as route):
                    self._fast.send(rtnl.new_route(_route_path(route)))
                case Delete(Route() as route):
                    with contextlib.suppress(
                        rtnl.NetlinkError
                    ):  # replaced by a put, if of the same name
                        self._fast.send(rtnl.delete_route(_route_path(route)))

    def _routes(self, table: int) -> Iterator[Route]:
        for way in self._looks.ways([table]):
            is_like_ours = way.protocol == PROTOCOL and not (way.kind or way.tos)
            if is_like_ours and isinstance(way.network, IPv4Network):
                gateway = way.gateway if isinstance(way.gateway, IPv4Address) else None
                yield Route(way.network, table, way.index, gateway)

    def _set_address(self, link: Link, eni: EniLink) -> None:
        """Put the ENI's own address on its link and take every other away.

        An address of a pod on a host link would steal the pod's packets: the kernel's
        `local` table comes before every rule. Ours makes no route of its subnet in `main`.
        """
        own = IPv4Interface((eni.address, eni.subnet.prefixlen))
        there = [found for found in self._looks.addresses() if found.index == link.index]
        foreign = [found.address for found in there if found.address != own]
        ours = [found for found in there if found.address == own]
        if not any(found.is_silent for found in ours):
            for found in ours:
                self._fast.send(rtnl.change_address(found.address, link.index, delete=True))
            self._fast.send(rtnl.change_address(own, link.index))
        for address in foreign:
            told = {"ip": str(address), "link": link.name}
            log.warning("foreign address removed", extra=told)
            self._fast.send(rtnl.change_address(address, link.index, delete=True))

    # Rules -----------------------------------------------------------------------------
    @_in_our_words("the rules")
    def set_rules(
        self, enis: Sequence[EniLink], *, prune: bool = True, routing: Routing = USUAL_ROUTING
    ) -> None:
        """Bring our rules to what *enis* and *routing* need; others' are not touched.

        Without *prune* nothing is deleted: whoever does not know every ENI yet must not
        take away the rule of one that pods are using.
        """
        wanted = desired_rules(enis, routing)
        for step in steps(wanted, self._rules()):
            match step:
                case Put(Rule() as rule):
                    put_rule(self._fast, self._looks, rule)
                case Delete(Rule() as rule) if prune:
                    self._change_rules(taking_out(rule, spared(rule, wanted)), GONE | DONE)

    def _rules(self) -> Iterator[Rule]:
        return (found.rule for found in self._looks.rules() if found.protocol == PROTOCOL)

    def _change_rules(self, messages: Sequence[rtnl.Message], done: Collection[int]) -> None:
        _, errors = self._fast.try_all(messages)
        for error in errors:
            if error.errno not in done:
                raise error

    # Guards ----------------------------------------------------------------------------
    @_in_our_words("the guards")
    def add_guards(self, networks: Iterable[Network]) -> None:
        """Make every address of *networks* unreachable as long as no pod has it."""
        self._fast.send(*(rtnl.new_route(_guard(network)) for network in networks))

    @_in_our_words("the guards")
    def remove_guards(self, networks: Iterable[Network]) -> None:
        """Stop guarding *networks*; those that are not guarded already do not matter."""
        messages = [rtnl.delete_route(_guard(network)) for network in networks]
        _, errors = self._fast.try_all(messages)
        for error in errors:
            if error.errno != errno.ESRCH:
                raise error

    @_in_our_words("the guards")
    def guards(self, want: Iterable[Network]) -> tuple[int, int]:
        """Guard exactly *want*; return how many were added and removed."""
        wanted, there = set(want), set(self._guards())
        self.add_guards(wanted - there)
        self.remove_guards(there - wanted)
        return len(wanted - there), len(there - wanted)

    def _guards(self) -> Iterator[Network]:
        ways = self._looks.ways([PODS_TABLE])
        like_guards = (w for w in ways if not (w.index or w.kind or w.tos or w.origin))
        return (way.network for way in like_guards if way.protocol == PROTOCOL)

    # nft -------------------------------------------------------------------------------
    def apply_nft(self, text: str) -> bool:
        """Write the tables if what is there is not what *text* makes; return whether."""
        families = nft.FAMILIES if HAS_IPV6.exists() else nft.FAMILIES[:1]
        # A table that is not there fails, and lists nothing; the others come all the same.
        listed = "".join(
            self._nft(["list", "table", family, nft.TABLE], "", check=False) for family in families
        )
        if nft.is_in_force(_taken(text), listed):
            return False
        self.write_nft(text)
        return True

    def write_nft(self, text: str, *, anew: bool = False) -> None:
        """Write the tables, whatever is there of them; *anew* with no chain that was there.

        Chains stay otherwise, with what the kernel's NAT keeps for them. The kernel refuses to
        hang one elsewhere, as another version, or somebody else, may have it: then it is anew.
        """
        taken = _taken(text)
        if not anew and not self._refusal(taken):
            self._nft(["-f", "-"], taken)
        else:
            self._nft(["-f", "-"], nft.anew(taken))

    def remove_nft(self) -> None:
        """Take our tables out; none may be there."""
        text = "".join(
            f"add table {f} {nft.TABLE}\ndelete table {f} {nft.TABLE}\n" for f in nft.FAMILIES
        )
        self._nft(["-f", "-"], _taken(text))

    def _nft(self, arguments: list[str], text: str, *, check: bool = True) -> str:
        try:
            done = subprocess.run(
                [NFT, *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=NFT_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise NodeError("nft is not installed: install the package nftables") from None
        except subprocess.TimeoutExpired:
            raise NodeError(f"nft {' '.join(arguments)} took over {NFT_SECONDS} s") from None
        if check and done.returncode:
            raise NodeError(f"nft {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def missing_features(self, wish: nft.NftWish = nft.PROBED) -> tuple[str, ...]:
        """Return a sentence for each kernel feature that pods need and is not there."""
        return (*features.missing(), *self._missing_for_nft(wish))

    def _missing_for_nft(self, wish: nft.NftWish) -> tuple[str, ...]:
        """Try the whole table, and each feature alone only where that fails."""
        trouble = self._refusal(_taken(nft.anew(nft.render(wish))))
        if not trouble:
            return ()
        lacking = tuple(
            f"{name} is needed (kernel 5.10 and newer have it): {refusal}"
            for name, probe in nft.features(wish).items()
            if (refusal := self._refusal(probe))
        )
        return lacking or (f"nf_tables does not take our table: {trouble}",)

    def _refusal(self, text: str) -> str:
        """Return why the kernel does not take *text*, "" if it does; nothing is changed."""
        try:
            self._nft(["-c", "-f", "-"], text)
        except NodeError as error:
            return str(error).splitlines()[0]
        return ""

    @_in_our_words("the sysctls")
    def sysctl_complaints(self, names: Iterable[str] = NODE_SYSCTLS) -> tuple[str, ...]:
        """Return a sentence for each node-wide sysctl of *names* that is not as it must be."""
        return sysctl_complaints(
            {name: Path("/proc/sys", *name.split(".")).read_text().strip() for name in names}
        )

    # Conntrack -------------------------------------------------------------------------
    @_in_our_words("the flows of released addresses")
    def purge_conntrack(self, addresses: Collection[Address]) -> int:
        """Delete every flow from or to *addresses*, in one dump; return how many."""
        return conntrack.purge(addresses)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it has gone meanwhile
        return f"#{index}"


def _taken(text: str) -> str:
    """Return as much of *text* as this kernel takes."""
    return text if HAS_IPV6.exists() else nft.without_ipv6(text)


def _guard(network: Network) -> rtnl.Path:
    return rtnl.Path(
        network.network_address,
        network.prefixlen,
        table=PODS_TABLE,
        metric=GUARD_METRIC,
        protocol=PROTOCOL,
        kind=RTN_UNREACHABLE,
    )


def _route_path(route: Route) -> rtnl.Path:
    return path(Way(route.destination, route.table, index=route.index, gateway=route.gateway))
