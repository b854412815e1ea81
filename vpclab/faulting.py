"""The faults of a running lab, by their names on the command line. Shell.

`enid lab fault` is the other side: what it takes is `vpclab.lab_cli.FAULTS`. A fault that cannot be
is refused before anything is changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from vpclab.faults import ALL, Latency, check_seconds, realistic
from vpclab.running import RefusedError

if TYPE_CHECKING:
    from vpclab.node import Node
    from vpclab.vpc import EmbeddedVPC

SPOT_NOTICE = timedelta(minutes=2)
"""How long before its end a spot instance is told (EC2 user guide)."""

ATTACHING, DETACHING = Latency(2, 20), Latency(5, 40)
"""How long a busy account's ENIs take: seconds as a rule, and now and then most of a minute."""

SPOT = ("spot/instance-action", "spot/termination-time")
REBALANCE = "events/recommendations/rebalance"


class Faulting:
    """What can be made wrong in a VPC, and what is."""

    def __init__(self, vpc: EmbeddedVPC) -> None:
        self._vpc = vpc
        self._said: dict[tuple[str, str], str] = {}
        """What single nodes were told or had taken away, by kind and node, in words."""

    def lines(self) -> list[str]:
        """Return each fault that is on, as a sentence."""
        vpc = self._vpc
        with vpc.plane.lock:
            lines = vpc.faults.lines()
            names = {node.instance_id: node.name for node in vpc.nodes.values()}
            delays = {
                "attaching": vpc.delays.attach_seconds,
                "detaching": vpc.delays.detach_seconds,
            }
        slow = [f"{what} takes {_latency(delay)}" for what, delay in delays.items() if delay]
        return [*lines, *slow, *vpc.imds.faults.lines(names), *self._said.values()]

    def make(self, kind: str, wish: Mapping[str, Any]) -> None:
        """Make a fault of *kind*. Raises RefusedError or ValueError for what makes no sense."""
        made: Callable[..., None] | None = getattr(self, f"_make_{kind.replace('-', '_')}", None)
        if made is None:
            raise RefusedError(f"there is no fault '{kind}'")
        made(**wish)

    def _action(self, action: str) -> str:
        from vpclab.ec2 import MODELLED  # noqa: PLC0415 - moto is there by now

        if action in MODELLED or action == ALL:
            return action
        known = {name.lower(): name for name in MODELLED}
        near = get_close_matches(action.lower(), known, n=1)
        hint = f"; did you mean {known[near[0]]}?" if near else ""
        raise RefusedError(f"'{action}' is not an action of the embedded EC2{hint}")

    def _node(self, name: str) -> Node:
        node = self._vpc.nodes.get(name)
        if node is None:
            raise RefusedError(f"there is no node {name}; there are {', '.join(self._vpc.nodes)}")
        return node

    def _instance(self, node: str | None) -> str | None:
        return None if node is None else self._node(node).instance_id

    # EC2 ---------------------------------------------------------------------------------
    def _make_throttle(self, action: str, rate: float, burst: float | None) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.throttle(self._action(action), rate, burst)

    def _make_latency(self, action: str, seconds: float, p99: float) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.latency(self._action(action), Latency(seconds, p99))

    def _make_fail(self, action: str, code: str, times: float | None, status: int) -> None:
        often = math.inf if times is None else times
        with self._vpc.plane.lock:
            self._vpc.faults.fail(self._action(action), code, times=often, status=status)

    def _make_lose(self, action: str, times: float) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.lose(self._action(action), times=times)

    def _make_lag(self, seconds: float) -> None:
        check_seconds("a lag of descriptions", seconds)
        self._vpc.plane.lag(seconds)

    def _make_attach(self, seconds: float, p99: float) -> None:
        self._vpc.delays.attach_seconds = _delay(seconds, p99)

    def _make_detach(self, seconds: float, p99: float) -> None:
        self._vpc.delays.detach_seconds = _delay(seconds, p99)

    # IMDS --------------------------------------------------------------------------------
    def _make_imds_delay(self, seconds: float) -> None:
        check_seconds("a lag of IMDS", seconds)
        self._vpc.imds.faults.delay_seconds = seconds

    def _make_imds_stale(self, pattern: str, seconds: float, node: str | None) -> None:
        self._vpc.imds.faults.stale(pattern, seconds, self._instance(node))

    def _make_imds_short(self, pattern: str, lines: int, node: str | None) -> None:
        self._vpc.imds.faults.short(pattern, lines, self._instance(node))

    def _make_imds_missing(self, pattern: str, node: str | None) -> None:
        self._vpc.imds.faults.missing(pattern, self._instance(node))

    def _make_imds_burst(self, status: int, count: int, node: str | None) -> None:
        self._vpc.imds.faults.burst(status, count, self._instance(node))

    def _make_imds_off(self, node: str) -> None:
        self._set_endpoint(node, "disabled")
        self._said["imds", node] = f"IMDS is disabled for {node}"

    def _make_imds_on(self, node: str) -> None:
        self._set_endpoint(node, "enabled")
        self._said.pop(("imds", node), None)

    def _set_endpoint(self, node: str, state: str) -> None:
        self._vpc.ec2.modify_instance_metadata_options(
            InstanceId=self._node(node).instance_id, HttpEndpoint=state
        )

    # Notices -----------------------------------------------------------------------------
    def _make_spot(self, node: str) -> None:
        until = _stamp(SPOT_NOTICE)
        action, at = SPOT
        instance_id = self._node(node).instance_id
        self._vpc.imds.say(instance_id, action, json.dumps({"action": "terminate", "time": until}))
        self._vpc.imds.say(instance_id, at, until)
        self._said["spot", node] = f"{node} is told that its instance ends at {until}"

    def _make_rebalance(self, node: str) -> None:
        notice = json.dumps({"noticeTime": _stamp()})
        self._vpc.imds.say(self._node(node).instance_id, REBALANCE, notice)
        self._said["rebalance", node] = f"{node} is told to rebalance"

    # All at once -------------------------------------------------------------------------
    def _make_realistic(self) -> None:
        with self._vpc.plane.lock:
            realistic(self._vpc.faults)
        self._vpc.plane.lag(self._vpc.faults.lag_seconds)
        delays = self._vpc.delays
        delays.attach_seconds, delays.detach_seconds = ATTACHING, DETACHING
        self._vpc.imds.faults.delay_seconds = 1.0

    def _make_clear(self) -> None:
        with self._vpc.plane.lock:
            self._vpc.faults.clear()
        self._vpc.plane.lag(0)
        self._vpc.delays.attach_seconds = self._vpc.delays.detach_seconds = 0.0
        self._vpc.imds.faults.clear()
        for kind, name in list(self._said):
            if name in self._vpc.nodes and kind == "imds":
                self._make_imds_on(name)
        for node in self._vpc.nodes.values():
            for path in (*SPOT, REBALANCE):
                self._vpc.imds.unsay(node.instance_id, path)
        self._said.clear()


def _delay(seconds: float, p99: float) -> Latency | float:
    """Return a delay; 0 ends the fault."""
    latency = Latency(seconds, p99)
    return latency if seconds else 0.0


def _latency(delay: Latency | float) -> str:
    return str(delay if isinstance(delay, Latency) else Latency(delay))


def _stamp(ahead: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + ahead).strftime("%Y-%m-%dT%H:%M:%SZ")
