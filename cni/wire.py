"""One sandbox's wire: the veth pair, the pod's side, the host's route. Shell.

Order of `connect`, so that a kill at any point leaves something that can be told apart:
pair (in the ENI's group, down) -> alias, settings, up -> the pod's side -> the host's
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
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface

from cni import look, rtnl
from cni.dataplane import (
    DYING_GROUP,
    GATEWAY_V4,
    GATEWAY_V6,
    HOST_MAC,
    POD_GROUP,
    PODS_TABLE,
    PROTOCOL,
    Address,
    Alias,
    parse_alias,
    pod_mac,
)
from cni.desired import POD_CONF
from cni.kernel import HostLink, NetnsId, Wire, WireError, Wish
from cni.spec import Attached, CniError, Code, Sandbox

NS_GET_NSTYPE = 0xB703
"""ioctl of an nsfs file: which kind of namespace it is (include/uapi/linux/nsfs.h)."""

CLONE_NEWNET = 0x40000000


LO = 1
"""The index of `lo`, in every namespace."""

LOCALHOST_V6 = IPv6Address("::1")

SIOCGSKNS = 0x894C
"""ioctl of a socket: a descriptor of its network namespace (include/uapi/linux/sockios.h)."""

MAX_ALIAS_BYTES = 255
"""IFALIASZ less its NUL; a longer one is refused by the kernel as "Invalid argument"."""


CARRIER_TRIES, CARRIER_SECONDS = 50, 0.001
"""How often the host's side is looked at, and the pause between. A pod whose side is late all
the same is well, and has lost its first packet."""


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
    """Wires in the real kernel; a `cni.kernel.Wiring`. Each end gets *queues* both ways."""

    def __init__(self, queues: int = rtnl.QUEUES) -> None:
        self._queues = queues
        self._host = rtnl.Channel()
        self._reaper = rtnl.Channel()
        self._dying: deque[str] = deque()
        """Host veths that were put to die: written on one thread, read on the reaper's."""
        self._knows_dying = False

    def close(self) -> None:
        """Close the sockets."""
        self._host.close()
        self._reaper.close()

    @staticmethod
    def identify(netns_fd: int) -> NetnsId:
        """Return which network namespace *netns_fd* is; see `check_netns`."""
        return check_netns(netns_fd)

    def connect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int, netns_path: str) -> Attached:
        """Make the wire; a half-made one of the same sandbox is made anew.

        Raises WireError, leaving no trace, also if the pod has an interface of that name.
        """
        try:
            return self._connect(wish, netns_fd, pod_netlink_fd, netns_path)
        except (rtnl.NetlinkError, OSError) as error:
            raise WireError(f"{wish.sandbox.container_id}: {error}") from error

    def _connect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int, path: str) -> Attached:
        name, mac = wish.host_ifname, pod_mac(wish.addresses[0])
        alias = Alias(wish.sandbox, wish.pod_uid, wish.addresses, wish.eni_id).text()
        if len(alias) > MAX_ALIAS_BYTES:
            raise WireError(f"the names in {alias!r} are too long: {MAX_ALIAS_BYTES} bytes at most")
        _check_socket(pod_netlink_fd, netns_fd)
        veth = rtnl.Veth(
            name=name,
            mac=HOST_MAC,
            group=POD_GROUP + wish.eni_number,
            peer=wish.sandbox.ifname,
            peer_mac=mac,
            netns_fd=netns_fd,
            mtu=wish.mtu,
            queues=self._queues,
        )
        index, peer_index = self._make_pair(veth, wish.sandbox)
        with contextlib.ExitStack() as undo:
            undo.callback(self._host.try_all, [rtnl.delete_link(name)])
            self._host.send(rtnl.set_link(name, up=True, alias=alias, conf=POD_CONF))
            self._configure_pod(wish, peer_index, pod_netlink_fd)
            answer = self._host.send(
                *(rtnl.new_neighbour(a, mac, index) for a in wish.addresses),
                *(rtnl.new_route(_pod_route(a, index, wish)) for a in wish.addresses),
                rtnl.get_link(name),
            )
            self._await_carrier(rtnl.read_link(answer[0]))
            undo.pop_all()
        return Attached(
            host_ifname=name,
            host_mac=HOST_MAC,
            pod_mac=mac,
            ifname=wish.sandbox.ifname,
            netns_path=path,
            addresses=tuple(ip_interface(a) for a in wish.addresses),
            mtu=wish.mtu,
        )

    def _remove_leftover(self, name: str, sandbox: Sandbox) -> bool:
        """Remove what a former try left; return whether there was anything."""
        link = self._find(name)
        if link is None:
            return False
        alias = parse_alias(link.alias)
        if link.alias and (alias is None or alias.sandbox != sandbox):
            raise WireError(f"{name} exists and is not ours (alias {link.alias!r}); remove it")
        with contextlib.suppress(rtnl.NetlinkError):
            self._host.send(rtnl.delete_link(name))
        return True

    def _find(self, name: str) -> rtnl.Link | None:
        try:
            return rtnl.read_link(self._host.send(rtnl.get_link(name))[0])
        except rtnl.NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def _make_pair(self, veth: rtnl.Veth, sandbox: Sandbox) -> tuple[int, int]:
        """Make the pair; return the indices of both ends. That a name is taken is rare."""
        make = rtnl.new_veth(veth), rtnl.get_link(veth.name)
        answers, errors = self._host.try_all(make)
        if errors and errors[0].errno == errno.EEXIST:
            if not self._remove_leftover(veth.name, sandbox):
                raise WireError(
                    f"the pod has an interface {veth.peer} already, and it is not ours"
                ) from errors[0]
            answers, errors = self._host.try_all(make)
            if errors and errors[0].errno == errno.EEXIST:
                raise WireError(
                    f"the pod has an interface {veth.peer} already, and it is not ours"
                ) from errors[0]
        if errors:
            raise errors[0]
        link = rtnl.read_link(answers[0])
        return link.index, link.peer_index

    def _configure_pod(self, wish: Wish, index: int, netlink_fd: int) -> None:
        """Configure the pod's side through the socket that the plugin opened there."""
        pod = _channel(netlink_fd)
        try:
            if not wish.ipv6:
                _close_ipv6(pod, index)
            messages = [rtnl.up(LO), rtnl.up(index)]
            for address in wish.addresses:
                messages += _pod_side(address, index)
            pod.send(*messages)
        finally:
            pod.close()

    def _await_carrier(self, link: rtnl.Link | None) -> None:
        """Wait until the host's side sends: the first packet must not be lost.

        Its carrier came up after itself, when the pod's side was raised; until a worker of the
        kernel's has seen that, the link drops what it is given. Asking for the *link* makes the
        kernel look at once (from 6.8 on) or tells whether it has.
        """
        name = "" if link is None else link.name
        for _ in range(CARRIER_TRIES):
            if link is not None and link.is_operational:
                return
            time.sleep(CARRIER_SECONDS)  # noqa: TID251 - the wiring thread's, not the loop
            link = self._find(name)

    def disconnect(self, host_ifname: str, addresses: Sequence[Address]) -> None:
        """Cut the wire; nothing if there is none. The guard takes the address over."""
        for address in addresses:
            self._cut(self._host, rtnl.delete_route(_route(address)))
        self._cut(self._host, rtnl.set_link(host_ifname, up=False, group=DYING_GROUP))
        self._dying.append(host_ifname)

    @staticmethod
    def _cut(channel: rtnl.Channel, message: rtnl.Message) -> None:
        """Send what takes something away; that it is gone already is well."""
        try:
            channel.send(message)
        except rtnl.NetlinkError as error:
            if error.errno not in {errno.ESRCH, errno.ENODEV}:
                raise WireError(str(error)) from error
        except OSError as error:
            raise WireError(f"{message.words}: {error}") from error

    def inspect(self, wish: Wish, netns_fd: int, pod_netlink_fd: int) -> Wire:
        """Return what there is of a wire, changing nothing."""
        try:
            _check_socket(pod_netlink_fd, netns_fd)
            host = look.host_end(self._host, wish.host_ifname)
            pod = _channel(pod_netlink_fd)
            try:
                return Wire(host, look.pod_end(pod, wish.sandbox.ifname))
            finally:
                pod.close()
        except (rtnl.NetlinkError, OSError) as error:
            raise WireError(f"{wish.sandbox.container_id}: {error}") from error

    def reap(self) -> int:
        """Delete the links that were put to die; return how many. On its own thread.

        A link in the group that is not ours stops it: deleting by group takes all. One that is
        known by name is deleted alone, which spares the dump of all links.
        """
        names = [self._dying.popleft() for _ in range(len(self._dying))]
        if self._knows_dying and len(names) == 1:
            return self._reap_one(names[0])
        self._knows_dying = False  # if this fails, or a former life has left some
        dying = _dump(self._reaper, DYING_GROUP)
        strangers = [link.name for link in dying if parse_alias(link.alias) is None]
        if strangers:
            raise WireError(f"{', '.join(strangers)} in link group {DYING_GROUP} is not ours")
        if dying:
            self._cut(self._reaper, rtnl.delete_group(DYING_GROUP))
        self._knows_dying = True
        return len(dying)

    def _reap_one(self, name: str) -> int:
        try:
            link = rtnl.read_link(self._reaper.send(rtnl.get_link(name))[0])
        except (rtnl.NetlinkError, OSError):
            return 0  # gone with its namespace, or with an ADD that made it anew
        if link.group != DYING_GROUP or parse_alias(link.alias) is None:
            return 0
        self._knows_dying = False
        self._cut(self._reaper, rtnl.delete_link_at(link.index))
        self._knows_dying = True
        return 1

    def links(self) -> tuple[HostLink, ...]:
        """Return every link whose alias is ours."""
        return tuple(
            HostLink(link.name, link.index, alias, link.group)
            for link in _dump(self._host)
            if (alias := parse_alias(link.alias)) is not None
        )


def _channel(netlink_fd: int) -> rtnl.Channel:
    """Return a channel through the socket that the plugin opened in the pod."""
    kind = socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE
    return rtnl.Channel(socket.socket(*kind, fileno=os.dup(netlink_fd)))


def _close_ipv6(pod: rtnl.Channel, index: int) -> None:
    """Give the pod no IPv6 address of its own: not on its interface, and not ::1.

    `disable_ipv6` is a sysctl, which only who is in the pod's namespace can write; without an
    address nothing can be sent or bound either. A kernel without IPv6 has nothing to take away.
    """
    wanted = [rtnl.up(LO), rtnl.delete_address(LOCALHOST_V6, LO), rtnl.without_ipv6(index)]
    gone = {errno.EADDRNOTAVAIL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT}
    _, errors = pod.try_all(wanted)
    for error in errors:
        if error.errno not in gone:
            raise error


def _dump(channel: rtnl.Channel, group: int | None = None) -> list[rtnl.Link]:
    try:
        return channel.dump_links(group)
    except (rtnl.NetlinkError, OSError) as error:
        raise WireError(f"the links: {error}") from error


def _check_socket(netlink_fd: int, netns_fd: int) -> None:
    """Make sure that the socket is of the pod's namespace: another's would be rewired."""
    own = fcntl.ioctl(netlink_fd, SIOCGSKNS)
    try:
        if not os.path.sameopenfile(own, netns_fd):
            raise WireError("the netlink socket that came is not of the pod's network namespace")
    finally:
        os.close(own)


def _pod_side(address: Address, index: int) -> list[rtnl.Message]:
    """Return what gives the pod *address* and a way out; the gateway is on no interface."""
    is_v4 = isinstance(address, IPv4Address)
    gateway: Address = GATEWAY_V4 if is_v4 else GATEWAY_V6
    everything: Address = IPv4Address(0) if is_v4 else IPv6Address(0)
    # IPv6's gateway is link-local, so there is a way to it already.
    way = [rtnl.new_route(rtnl.Path(gateway, 32, index=index))] if is_v4 else []
    return [
        rtnl.new_address(address, index),
        *way,
        rtnl.new_neighbour(gateway, HOST_MAC, index),
        rtnl.new_route(rtnl.Path(everything, 0, index=index, gateway=gateway)),
    ]


def _route(address: Address) -> rtnl.Path:
    """Return the key of a pod's route.

    IPv6 has no metric 0, and deletes any route of a destination if none is given: the guard's.
    """
    metric = 0 if address.version == 4 else 1024  # noqa: PLR2004 - the family; IP6_RT_PRIO_USER
    return rtnl.Path(address, address.max_prefixlen, PODS_TABLE, metric=metric, protocol=PROTOCOL)


def _pod_route(address: Address, index: int, wish: Wish) -> rtnl.Path:
    is_same_family = wish.node_primary.version == address.version
    source = wish.node_primary if is_same_family else None
    return replace(_route(address), index=index, source=source)
