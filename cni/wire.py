"""One sandbox's wire: the veth pair, the pod's side, the host's route. Shell.

Order of `connect`, so that a kill at any point leaves something that can be told apart:
pair (in the ENI's group, down) -> alias, rp_filter, up -> the pod's side -> the host's
route, last, because it is what makes the pod reachable. `disconnect` is the reverse, but
the link itself is only put to die: its deletion takes the kernel 25 ms of waiting, which a
reaper spends once for many.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_interface

from cni import rtnl
from cni.dataplane import (
    DYING_GROUP,
    GATEWAY_V4,
    HOST_MAC,
    POD_GROUP,
    PODS_TABLE,
    PROTOCOL,
    Address,
    Alias,
    host_ifname,
    parse_alias,
    pod_mac,
)
from cni.spec import Attached, CniError, Code, Sandbox

NS_GET_NSTYPE = 0xB703
"""ioctl of an nsfs file: which kind of namespace it is (include/uapi/linux/nsfs.h)."""

CLONE_NEWNET = 0x40000000


class WireError(Exception):
    """The wire cannot be made: the kernel's own words are in the text."""

    id = "WIRE"


@dataclass(frozen=True, slots=True)
class NetnsId:
    """Which network namespace: device and inode of its nsfs file."""

    dev: int
    ino: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What a wire should be. *node_primary* is the source of the node's own packets to it."""

    sandbox: Sandbox
    addresses: tuple[Address, ...]
    eni_number: int
    eni_id: str
    pod_uid: str
    mtu: int
    node_primary: Address


@dataclass(frozen=True, slots=True)
class HostLink:
    """A host veth that says it is ours."""

    ifname: str
    index: int
    alias: Alias
    group: int


def check_netns(descriptor: int) -> NetnsId:
    """Return which network namespace *descriptor* is.

    Raises CniError if it is none, or the node's own: wiring that would cut the node off.
    """
    try:
        kind = fcntl.ioctl(descriptor, NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            "CNI_NETNS is not a network namespace",
            "it must name the pod's, as the runtime made it",
        )
    found = os.fstat(descriptor)
    own = os.stat("/proc/self/ns/net")  # noqa: PTH116 - one call, no Path
    if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            "CNI_NETNS is the node's own network namespace",
            "pods of the host's network need no CNI",
        )
    return NetnsId(found.st_dev, found.st_ino)


class KernelWiring:
    """Wires in the real kernel; `connect` and `disconnect` on one thread."""

    def __init__(self) -> None:
        self._host = rtnl.Channel()
        self._reaper = rtnl.Channel()

    def close(self) -> None:
        """Close the sockets."""
        self._host.close()
        self._reaper.close()

    def connect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int, netns_path: str) -> Attached:
        """Make the wire; a half-made one of the same sandbox is made anew.

        Raises WireError, leaving no trace, also if the pod has an interface of that name.
        """
        name = host_ifname(wish.sandbox)
        mac = pod_mac(wish.addresses[0])
        veth = rtnl.Veth(
            name=name,
            mac=HOST_MAC,
            group=POD_GROUP + wish.eni_number,
            peer=wish.sandbox.ifname,
            peer_mac=mac,
            netns_fd=netns_fd,
            mtu=wish.mtu,
        )
        with contextlib.ExitStack() as undo:
            self._remove_leftover(name, wish.sandbox)
            index, peer_index = self._make_pair(veth)
            undo.callback(self._host.try_all, [rtnl.delete_link(name)])
            alias = Alias(wish.sandbox, wish.pod_uid, wish.addresses, wish.eni_id).text()
            try:
                self._host.send(rtnl.set_link(name, up=True, alias=alias, rp_filter=1))
                self._configure_pod(wish, peer_index, pod_netlink_fd)
                self._host.send(
                    *(rtnl.new_neighbour(a, mac, index) for a in wish.addresses),
                    *(rtnl.new_route(_pod_route(a, index, wish)) for a in wish.addresses),
                )
            except rtnl.NetlinkError as error:
                raise WireError(f"{wish.sandbox.container_id}: {error}") from error
            undo.pop_all()
        return Attached(
            host_ifname=name,
            host_mac=HOST_MAC,
            pod_mac=mac,
            ifname=wish.sandbox.ifname,
            netns_path=netns_path,
            addresses=tuple(ip_interface(a) for a in wish.addresses),
            mtu=wish.mtu,
        )

    def _remove_leftover(self, name: str, sandbox: Sandbox) -> None:
        link = self._find(name)
        if link is None:
            return
        alias = parse_alias(link.alias)
        if link.alias and (alias is None or alias.sandbox != sandbox):
            raise WireError(f"{name} exists and is not ours (alias {link.alias!r}); remove it")
        with contextlib.suppress(rtnl.NetlinkError):
            self._host.send(rtnl.delete_link(name))

    def _find(self, name: str) -> rtnl.Link | None:
        try:
            return rtnl.read_link(self._host.send(rtnl.get_link(name))[0])
        except rtnl.NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise WireError(str(error)) from error

    def _make_pair(self, veth: rtnl.Veth) -> tuple[int, int]:
        try:
            answer = self._host.send(rtnl.new_veth(veth), rtnl.get_link(veth.name))
        except rtnl.NetlinkError as error:
            if error.errno == errno.EEXIST:
                raise WireError(
                    f"the pod has an interface {veth.peer} already, and it is not ours"
                ) from error
            raise WireError(str(error)) from error
        link = rtnl.read_link(answer[0])
        return link.index, link.peer_index

    def _configure_pod(self, wish: Wish, index: int, netlink_fd: int) -> None:
        """Configure the pod's side through the socket that the plugin opened there."""
        pod = rtnl.Channel(socket.socket(fileno=os.dup(netlink_fd)))
        try:
            messages = [rtnl.up(1), rtnl.up(index)]  # 1 is `lo` in every namespace
            for address in wish.addresses:
                if not isinstance(address, IPv4Address):
                    continue  # the IPv6 side comes with IPv6 pods
                messages += [
                    rtnl.new_address(address, index),
                    rtnl.new_route(rtnl.Path(GATEWAY_V4, 32, index=index)),
                    rtnl.new_neighbour(GATEWAY_V4, HOST_MAC, index),
                    rtnl.new_route(rtnl.Path(IPv4Address(0), 0, index=index, gateway=GATEWAY_V4)),
                ]
            pod.send(*messages)
        finally:
            pod.close()

    def disconnect(self, host_ifname: str, addresses: Sequence[Address]) -> None:
        """Cut the wire; nothing if there is none. The guard takes the address over."""
        for address in addresses:
            path = rtnl.Path(address, address.max_prefixlen, PODS_TABLE, protocol=PROTOCOL)
            _, errors = self._host.try_all([rtnl.delete_route(path)])
            if errors and errors[0].errno != errno.ESRCH:
                raise WireError(str(errors[0]))
        _, errors = self._host.try_all([rtnl.set_link(host_ifname, up=False, group=DYING_GROUP)])
        if errors and errors[0].errno != errno.ENODEV:
            raise WireError(str(errors[0]))

    def reap(self) -> int:
        """Delete the links that were put to die; return how many. On its own thread.

        A link in the group that is not ours stops it: deleting by group takes all.
        """
        dying = [link for link in self._reaper.dump_links() if link.group == DYING_GROUP]
        strangers = [link.name for link in dying if parse_alias(link.alias) is None]
        if strangers:
            raise WireError(f"{', '.join(strangers)} in link group {DYING_GROUP} is not ours")
        if dying:
            self._reaper.try_all([rtnl.delete_group(DYING_GROUP)])
        return len(dying)

    def links(self) -> tuple[HostLink, ...]:
        """Return every link whose alias is ours."""
        return tuple(
            HostLink(link.name, link.index, alias, link.group)
            for link in self._host.dump_links()
            if (alias := parse_alias(link.alias)) is not None
        )


def _pod_route(address: Address, index: int, wish: Wish) -> rtnl.Path:
    source = wish.node_primary if wish.node_primary.version == address.version else None
    return rtnl.Path(
        address,
        address.max_prefixlen,
        table=PODS_TABLE,
        index=index,
        source=source,
        protocol=PROTOCOL,
    )
