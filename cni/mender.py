"""What is ours on the node, looked at and mended: a `cni.kernel.Mender`. Shell.

Nothing is decided here: `cni.desired` says what is wanting, and this takes its steps, each as
one message of its own, for whoever asked must know which of them the kernel refused. One
instance belongs to one thread. A pod's steps belong on the thread that makes and cuts wires,
so that none of them comes between the steps of an ADD or a DEL.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, assert_never

from cni import rtnl
from cni.dataplane import PROTOCOL, Rule
from cni.desired import (
    KINDS,
    DeleteAddress,
    DeleteRule,
    DeleteWay,
    Found,
    FoundLink,
    OddRule,
    PutAddress,
    PutNeighbour,
    PutRule,
    PutWay,
    SetLink,
    Step,
    Way,
    WriteTable,
)
from cni.kernel import NodeError
from cni.nft_found import FoundTable
from cni.rtdump import Looks

RTN_UNICAST, RTN_UNREACHABLE = 1, 7

GONE = {errno.ESRCH, errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL}
"""What the kernel says where there is nothing to take away."""

DONE = {errno.EEXIST}
"""What it says where there is nothing to put."""


class KernelMender:
    """The node whose namespace it was made in."""

    def __init__(self) -> None:
        self._looks = Looks()
        self._channel = rtnl.Channel()

    def close(self) -> None:
        """Close the sockets."""
        self._looks.close()
        self._channel.close()

    def look(self, tables: Iterable[int]) -> Found:
        """Return everything; of routes those of the PODS table and *tables*, and ours anywhere."""
        try:
            return self._looks.look(tables)
        except (rtnl.NetlinkError, OSError) as error:
            raise NodeError(f"the node's state: {error}") from error

    def look_at_links(self, indexes: Iterable[int]) -> tuple[FoundLink, ...]:
        """Return these links, as far as they are there."""
        try:
            return self._looks.links_of(indexes)
        except (rtnl.NetlinkError, OSError) as error:
            raise NodeError(f"the links: {error}") from error

    def look_at_table(self) -> FoundTable:
        """Return our nft tables."""
        try:
            return self._looks.table()
        except (rtnl.NetlinkError, OSError) as error:
            raise NodeError(f"the nft tables: {error}") from error

    def mend(self, steps: Sequence[Step]) -> tuple[str, ...]:
        """Take each step, whatever became of those before; return what the kernel said to each."""
        return tuple(map(self._mend, steps))

    def _mend(self, step: Step) -> str:
        takes_away = isinstance(step, DeleteWay | DeleteRule | DeleteAddress)
        done = GONE | DONE if isinstance(step, DeleteRule) else GONE if takes_away else DONE
        try:
            if isinstance(step, PutRule):
                put_rule(self._channel, self._looks, step.rule)
            else:
                self._channel.send(*_messages(step))
        except rtnl.NetlinkError as error:
            if isinstance(step, SetLink) and step.name and error.errno == errno.EBUSY:
                return self._rename(step)
            if isinstance(step, PutWay) and error.errno == errno.EEXIST:
                return self._put_first(step.way)
            return "" if error.errno in done else str(error)
        except OSError as error:
            return str(error)
        return ""

    def _put_first(self, way: Way) -> str:
        """Put a route that is there behind another of its place, which is followed: it comes anew.

        The kernel replaces the first, but not by one that it has already.
        """
        try:
            self._channel.send(rtnl.delete_route(path(way)), rtnl.new_route(path(way)))
        except (rtnl.NetlinkError, OSError) as error:
            return str(error)
        return ""

    def _rename(self, step: SetLink) -> str:
        """Rename a link that is up, which kernels before 6.2 refuse.

        It is down for a moment, and what went with that is found wanting at the next look. Of one
        message the kernel changes the name before the state, so *step* itself puts it up again.
        """
        steps = SetLink(step.index, is_up=False), replace(step, is_up=True)
        try:
            _, errors = self._channel.try_all(list(map(rtnl.change_link, steps)))
        except OSError as error:
            return str(error)
        return str(errors[0]) if errors else ""


def put_rule(channel: rtnl.Channel, looks: Looks, rule: Rule) -> None:
    """Add a rule that is not there. Raises NetlinkError, OSError.

    The kernel says "there already" where one of our protocol turns ours round (`not`) or has
    realms, too (rule_exists in net/core/fib_rules.c): ours comes behind it then.
    """
    try:
        channel.send(rtnl.change_rule(rule_wish(rule)))
    except rtnl.NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        if rule not in {found.rule for found in looks.rules()}:
            channel.send(rtnl.change_rule(rule_wish(rule), double=True))


Batch: TypeAlias = (
    SetLink | PutWay | PutAddress | PutNeighbour | WriteTable
    | DeleteWay | DeleteRule | DeleteAddress
)  # fmt: skip
"""A step that is one batch of messages, whatever the kernel says."""


def _messages(step: Batch) -> tuple[rtnl.Message, ...]:
    match step:
        case DeleteWay(way):
            return (rtnl.delete_route(path(way), any_scope=True),)
        case DeleteRule(rule, spare):
            return taking_out(rule, spare)
        case DeleteAddress(index, address):
            return (rtnl.change_address(address, index, delete=True),)
        case PutAddress(index, address, anew):
            gone = (rtnl.change_address(address, index, delete=True),) if anew else ()
            return (*gone, rtnl.change_address(address, index))
        case _:
            return (_putting(step),)


def taking_out(rule: Rule | OddRule, spare: Sequence[Rule]) -> tuple[rtnl.Message, ...]:
    """Return how a rule goes, and none of *spare*, in one batch.

    Each of those is there twice, behind all of its preference, before the kernel is let loose on
    the first ones; what it took too many of, because the rule had gone meanwhile, is put again.
    """
    gone = (
        rtnl.delete_rule(rule.body, rule.words)
        if isinstance(rule, OddRule)
        else rtnl.change_rule(rule_wish(rule), delete=True)
    )
    kept = tuple(map(rule_wish, spare))
    return (
        *(rtnl.change_rule(one, double=True) for one in kept),
        *[gone] * (1 + len(kept)),
        *map(rtnl.change_rule, kept),
    )


def _putting(step: SetLink | PutWay | PutNeighbour | WriteTable) -> rtnl.Message:
    match step:
        case SetLink():
            return rtnl.change_link(step)
        case PutWay(way):
            return rtnl.new_route(path(way))
        case PutNeighbour(neighbour):
            return rtnl.new_neighbour(neighbour.address, neighbour.mac, neighbour.index)
        case WriteTable():
            raise TypeError("nft writes tables, not this")
        case _:  # pragma: no cover - a new step must be placed above
            assert_never(step)


def path(way: Way) -> rtnl.Path:
    """Return a route as messages have it."""
    return rtnl.Path(
        way.network.network_address,
        way.network.prefixlen,
        table=way.table,
        index=way.index,
        gateway=way.gateway,
        source=way.source,
        metric=way.metric,
        protocol=way.protocol,
        kind=KINDS[way.kind] if way.kind else RTN_UNICAST if way.index else RTN_UNREACHABLE,
        on_link=way.gateway is not None,
        tos=way.tos,
        origin=way.origin,
    )


def rule_wish(rule: Rule) -> rtnl.RuleWish:
    """Return a rule of ours as messages have it."""
    return rtnl.RuleWish(
        rule.preference,
        rule.table,
        PROTOCOL,
        rule.fwmark,
        rule.fwmask,
        rule.source,
        rule.destination,
    )
