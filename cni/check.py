"""What a look at a wire finds: how it differs from its lease, and whether it was ever done. Pure.

CHECK compares with what the runtime remembers, too. Every difference is one sentence: what it
is, and what it should be. What a pod, or a plugin behind us, added is no difference; what of
ours is gone or changed is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

from cni.dataplane import (
    GATEWAY_V4,
    GATEWAY_V6,
    HOST_MAC,
    POD_GROUP,
    PODS_TABLE,
    Address,
    Alias,
    pod_mac,
)
from cni.kernel import HostEnd, PodEnd, Wire, Wish
from cni.spec import Attached, Previous


def differences(wish: Wish, wire: Wire, previous: Previous) -> tuple[str, ...]:
    """Return how *wire* differs from *wish* and *previous*; nothing if it is as it was made."""
    return (
        *_host(wish, wire.host),
        *_pod(wish, wire.pod),
        *_pair(wish, wire),
        *_remembered(wish, wire, previous),
    )


def made(wish: Wish, wire: Wire, netns_path: str) -> Attached | None:
    """Return the attachment that *wire* is, None if it was not made to its end.

    The pod's route comes last: where it leads to the pod's own link, all was done. What has
    changed since is for CHECK to say, and for the daemon or the pod to mend.
    """
    host, pod = wire.host, wire.pod
    if host is None or pod is None or (host.peer, pod.peer) != (pod.index, host.index):
        return None
    if not all(address in host.routes for address in wish.addresses):
        return None
    return Attached(
        host_ifname=wish.host_ifname,
        host_mac=host.mac,
        pod_mac=pod.mac,
        ifname=wish.sandbox.ifname,
        netns_path=netns_path,
        addresses=tuple(map(ip_interface, wish.addresses)),
        mtu=pod.mtu,
    )


def _is(what: str, found: object, wanted: object) -> Iterator[str]:
    if found != wanted:
        yield f"{what} is {found}, not {wanted}"


def _host(wish: Wish, end: HostEnd | None) -> Iterator[str]:
    name = wish.host_ifname
    if end is None:
        yield f"the node has no link {name}"
        return
    alias = Alias(wish.sandbox, wish.pod_uid, wish.addresses, wish.eni_id).text()
    yield from _is(f"the alias of {name}", repr(end.alias), repr(alias))
    yield from _is(f"the group of {name}", end.group, POD_GROUP + wish.eni_number)
    yield from _is(f"the MAC of {name}", end.mac, HOST_MAC)
    yield from _is(f"rp_filter of {name}", end.rp_filter, 1)
    if not end.is_up:
        yield f"{name} is down"
    for address in wish.addresses:
        yield from _reaches(wish, end, name, address)


def _reaches(wish: Wish, end: HostEnd, name: str, address: Address) -> Iterator[str]:
    mac = pod_mac(wish.addresses[0])
    yield from _is(f"the neighbour {address} of {name}", end.neighbours.get(address), mac)
    if address not in end.routes:
        yield f"{address} has no route to {name} in table {PODS_TABLE}"
    elif wish.node_primary.version == address.version:
        source = end.routes[address]
        yield from _is(f"the source of the route to {address}", source, wish.node_primary)


def _pod(wish: Wish, end: PodEnd | None) -> Iterator[str]:
    ifname = wish.sandbox.ifname
    if end is None:
        yield f"the pod has no interface {ifname}"
        return
    yield from _is(f"the MAC of the pod's {ifname}", end.mac, pod_mac(wish.addresses[0]))
    if not end.is_up:
        yield f"the pod's {ifname} is down"
    if not end.lo_up:
        yield "the pod's lo is down"
    for address in wish.addresses:
        gateway = GATEWAY_V4 if address.version == 4 else GATEWAY_V6  # noqa: PLR2004 - the family
        if address not in end.addresses:
            yield f"the pod's {ifname} lacks the address {address}"
        if gateway not in end.gateways:
            yield f"the pod has no default route by {gateway} on {ifname}"
        found = end.neighbours.get(gateway)
        yield from _is(f"the neighbour {gateway} of the pod's {ifname}", found, HOST_MAC)


def _pair(wish: Wish, wire: Wire) -> Iterator[str]:
    host, pod = wire.host, wire.pod
    if host is None or pod is None:
        return
    name, ifname = wish.host_ifname, wish.sandbox.ifname
    if (host.peer, pod.peer) != (pod.index, host.index):
        yield f"the pod's {ifname} is not the other end of {name}"
    elif host.mtu != pod.mtu:
        yield f"the MTU of {name} is {host.mtu}, and of the pod's {ifname} {pod.mtu}"


def _remembered(wish: Wish, wire: Wire, previous: Previous) -> Iterator[str]:
    name, ifname = wish.host_ifname, wish.sandbox.ifname
    told = {address.ip for address in previous.addresses}
    for address in wish.addresses:
        if address not in told:
            yield f"prevResult does not have {address}, which the attachment has"
    for link, end, inside in ((name, wire.host, False), (ifname, wire.pod, True)):
        where = f"the pod's {link}" if inside else link
        found = [i for i in previous.interfaces if i.name == link and bool(i.sandbox) == inside]
        if not found:
            yield f"prevResult has no interface {link} of {'the pod' if inside else 'the node'}"
        elif end is not None:
            yield from _as_told(where, "MAC", end.mac, found[0].mac)
            yield from _as_told(where, "MTU", end.mtu, found[0].mtu)


def _as_told(where: str, what: str, found: object, told: object) -> Iterator[str]:
    if told and found != told:
        yield f"the {what} of {where} is {found}, and prevResult says {told}"
