"""The node's side of ENIs: links, tables, rules, guards, nft, conntrack. Shell (pyroute2).

Desired state is handed over whole and may be handed over again. Puts come before deletes,
so that no packet finds nothing; what does not carry our protocol number, group or table
name is never touched. One instance belongs to one thread: pyroute2 opens its sockets in
the namespace of the thread that uses it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cni import conntrack, features, nft, rtnl
from cni.dataplane import (
    ENI_GROUP,
    EXTERNAL_PREFERENCE,
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
)
from cni.kernel import Link, NodeError
from cni.rtdump import HAS_IPV6

log = logging.getLogger(__name__)

NFT = "nft"
NFT_SECONDS = 30
"""An nft that takes longer hangs: a whole table takes 30 ms beside 5,000 services."""

RTN_UNREACHABLE = 7


@contextlib.contextmanager
def _in_our_words(what: str) -> Iterator[None]:
    """Raise what a library raises as NodeError about *what*."""
    try:
        yield
    except NetlinkError as error:
        raise NodeError(f"{what}: {error.args[-1]}") from error
    except (rtnl.NetlinkError, OSError) as error:
        raise NodeError(f"{what}: {error}") from error


class NodeNetlink:
    """The node's network namespace, for one thread; a `cni.kernel.NodeNet`."""

    def __init__(self) -> None:
        self._ip: Any = IPRoute()
        self._fast = rtnl.Channel()

    def close(self) -> None:
        """Close the sockets."""
        self._ip.close()
        self._fast.close()

    # Links -----------------------------------------------------------------------------
    @_in_our_words("the links")
    def find_link(self, mac: str) -> Link | None:
        """Return the link with this MAC, None if there is none; names mean nothing."""
        link = self._fast.find_link(mac)
        return None if link is None else self._link(link.index)

    def _link(self, index: int) -> Link:
        found = self._ip.get_links(index)[0]
        return Link(
            index=index,
            name=found.get_attr("IFLA_IFNAME"),
            mac=found.get_attr("IFLA_ADDRESS"),
            mtu=found.get_attr("IFLA_MTU"),
            is_up=bool(found["flags"] & rtnl.IFF_UP),
            group=found.get_attr("IFLA_GROUP") or 0,
        )

    @_in_our_words("the node's addresses")
    def host_addresses(self) -> Mapping[Address, str]:
        """Return every address that is configured on a host link, and on which."""
        return {address: _name(index) for index, address in self._fast.dump_addresses()}

    @_in_our_words("the set-up of an ENI")
    def configure_eni(self, eni: EniLink) -> None:
        """Bring an ENI's link, address and table to their desired state.

        The primary ENI is the node's own: only its group, its rp_filter and an MTU that is
        given are ours. Raises NodeError if there is no link with its MAC.
        """
        link = self.find_link(eni.mac)
        if link is None:
            raise NodeError(f"there is no link with MAC {eni.mac}")
        devconf = {"rp_filter": 2, "send_redirects": 0}
        wish: dict[str, object] = {"group": ENI_GROUP + eni.number}
        if eni.mtu is not None:
            wish["mtu"] = eni.mtu
        if eni.is_primary:
            self._set_link(link, devconf=devconf, **wish)
            return
        # With a foreign address before ours, the kernel would take ours away along with it.
        devconf["promote_secondaries"] = 1
        self._set_link(link, devconf=devconf, state="up", **wish)
        self._set_address(link, eni)
        there = self._routes(eni_table(eni.number))
        for step in steps(desired_routes(eni, link.index), there):
            match step:
                case Put(Route() as route):
                    self._ip.route("replace", **_route_words(route))
                case Delete(Route() as route):
                    with contextlib.suppress(
                        NetlinkError
                    ):  # replaced by a put, if of the same name
                        self._ip.route("delete", **_route_words(route))

    def _routes(self, table: int) -> Iterator[Route]:
        for found in self._ip.get_routes(family=AF_INET, table=table):
            if found["proto"] == PROTOCOL:
                gateway = found.get_attr("RTA_GATEWAY")
                yield Route(
                    IPv4Network((found.get_attr("RTA_DST") or 0, found["dst_len"])),
                    table,
                    found.get_attr("RTA_OIF"),
                    IPv4Address(gateway) if gateway else None,
                )

    def _set_link(self, link: Link, *, devconf: Mapping[str, int], **wish: object) -> None:
        self._ip.link("set", index=link.index, **wish)
        self._fast.send(rtnl.set_devconf(link.index, devconf))

    def _set_address(self, link: Link, eni: EniLink) -> None:
        """Put the ENI's own address on its link and take every other away.

        An address of a pod on a host link would steal the pod's packets: the kernel's
        `local` table comes before every rule.
        """
        no_prefix_route = 0x200  # IFA_F_NOPREFIXROUTE: no route of the subnet in the main table
        own = {"address": str(eni.address), "prefixlen": eni.subnet.prefixlen}
        foreign = []
        is_there = False
        for found in self._ip.get_addr(family=AF_INET, index=link.index):
            address = {"address": found.get_attr("IFA_LOCAL"), "prefixlen": found["prefixlen"]}
            if address != own:
                foreign.append(address)
            elif found.get_attr("IFA_FLAGS") & no_prefix_route:
                is_there = True
            else:
                self._ip.addr("delete", index=link.index, **own)
        if not is_there:
            self._ip.addr("add", index=link.index, flags=no_prefix_route, **own)
        for address in foreign:
            log.warning("foreign address removed", extra={"ip": address, "link": link.name})
            self._ip.addr("delete", index=link.index, **address)

    # Rules -----------------------------------------------------------------------------
    @_in_our_words("the rules")
    def set_rules(
        self, enis: Sequence[EniLink], *, prune: bool = True, routing: Routing = USUAL_ROUTING
    ) -> None:
        """Bring our rules to what *enis* and *routing* need; others' are not touched.

        Without *prune* nothing is deleted: whoever does not know every ENI yet must not
        take away the rule of one that pods are using.
        """
        for step in steps(desired_rules(enis, routing), self._rules()):
            match step:
                case Put(Rule() as rule):
                    self._rule("add", rule)
                case Delete(Rule() as rule) if prune:
                    self._rule("delete", rule)

    def _rules(self) -> Iterator[Rule]:
        for found in self._ip.get_rules(family=AF_INET):
            if found.get_attr("FRA_PROTOCOL") == PROTOCOL:
                preference = found.get_attr("FRA_PRIORITY") or 0
                source, to = found.get_attr("FRA_SRC"), found.get_attr("FRA_DST")
                yield Rule(
                    preference=preference,
                    table=found.get_attr("FRA_TABLE") or found["table"],
                    fwmark=found.get_attr("FRA_FWMARK") or 0,
                    fwmask=found.get_attr("FRA_FWMASK") or 0,
                    source=IPv4Address(source) if source else None,
                    destination=IPv4Network((to or 0, found["dst_len"]))
                    if preference == EXTERNAL_PREFERENCE
                    else None,
                )

    def _rule(self, command: str, rule: Rule) -> None:
        wish: dict[str, object] = {
            "family": AF_INET,
            "priority": rule.preference,
            "table": rule.table,
            "protocol": PROTOCOL,
        }
        if rule.fwmark:
            wish |= {"fwmark": rule.fwmark, "fwmask": rule.fwmask}
        if rule.source is not None:
            wish |= {"src": str(rule.source), "src_len": 32}
        if rule.destination is not None:
            to = rule.destination
            wish |= {"dst": str(to.network_address), "dst_len": to.prefixlen}
        try:
            self._ip.rule(command, **wish)
        except NetlinkError as error:
            gone = command == "delete" and error.code == errno.ENOENT
            if not gone and error.code != errno.EEXIST:
                raise

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
        for family in (AF_INET, AF_INET6):
            for found in self._ip.get_routes(family=family, table=PODS_TABLE):
                if found["type"] == RTN_UNREACHABLE and found["proto"] == PROTOCOL:
                    yield ip_network(f"{found.get_attr('RTA_DST')}/{found['dst_len']}")

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

    def write_nft(self, text: str) -> None:
        """Write the tables, whatever is there of them."""
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

    def missing_features(self) -> tuple[str, ...]:
        """Return a sentence for each kernel feature that pods need and is not there."""
        return (*features.missing(), *self._missing_for_nft())

    def _missing_for_nft(self) -> tuple[str, ...]:
        """Try the whole table, and each feature alone only where that fails."""
        cidr = IPv4Network("10.0.0.0/8")
        wish = nft.NftWish(vpc_cidrs=(cidr,), node_primary=cidr[1], eni_numbers=2)
        trouble = self._refusal(_taken(nft.render(wish)))
        if not trouble:
            return ()
        lacking = tuple(
            f"{name} is needed (kernel 5.10 and newer have it): {refusal}"
            for name, probe in nft.FEATURES.items()
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

    def sysctl_complaints(self) -> tuple[str, ...]:
        """Return a sentence for each node-wide sysctl that would break pods."""
        forward = "net.ipv4.ip_forward"
        found = Path("/proc/sys", *forward.split(".")).read_text().strip()
        wanted = NODE_SYSCTLS[forward]
        return () if found == wanted else (f"{forward} is {found} and must be {wanted}",)

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


def _route_words(route: Route) -> dict[str, object]:
    words: dict[str, object] = {
        "dst": str(route.destination),
        "table": route.table,
        "oif": route.index,
        "proto": PROTOCOL,
    }
    if route.gateway is None:
        return words | {"scope": "link"}
    # 4 is RTNH_F_ONLINK: the gateway is on this link although no prefix says so.
    return words | {"gateway": str(route.gateway), "flags": 4}
