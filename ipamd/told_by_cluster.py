"""What the API server tells of this node, taken over as it comes. Shell (the loop's).

`ipamd.joined` follows the cluster and calls this; in plain mode nobody does. Nothing here
is waited for, but for the first growth, and that only some seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ipamd.budget import Budget
from ipamd.clock import Instant
from ipamd.cluster import Link, Standing
from ipamd.engine import Engine, start_spread_seconds
from ipamd.outlook import Outlook
from ipamd.places import Places
from ipamd.subnets import Candidate
from ipamd.terms import Mode

log = logging.getLogger(__name__)

HEARING_SECONDS = 10.0
"""How long the first growth waits for the cluster's word on how many pods are bound here, so
that they are asked for in one call. An answer takes a tenth of a second; an ADD waits for none."""


@dataclass(slots=True)
class ToldByCluster:
    """Where the cluster's words go. Owned by the loop."""

    outlook: Outlook
    engine: Engine
    places: Places
    budget: Budget
    clock: Callable[[], Instant]
    standing: Standing = field(default_factory=lambda: Standing(Link.OFF))
    """How we stand with the API server."""
    config_trouble: str = ""
    """Why an ENIConfig cannot be used."""
    config_notice: str = ""
    """What an ENIConfig leaves out, which may be meant."""
    nodes: int = 1
    """How many nodes share the account's limits, as was told last, in whichever life."""

    def hear_node(self, *, unschedulable: bool, max_pods: int | None) -> None:
        """Take over what this node's Node says."""
        told = self.outlook.told
        self.outlook.hear(replace(told, unschedulable=unschedulable, max_pods=max_pods))

    def hear_bound(self, bound: int) -> None:
        """Take over how many pods of this node need an address."""
        self.outlook.hear(replace(self.outlook.told, bound=bound))

    def hear_nodes(self, nodes: int) -> None:
        """Take over how many nodes share the account's limits, unless a setting says it."""
        self.nodes = max(1, nodes)
        self.share_limits()

    def share_limits(self) -> None:
        """Take this node's share of the account's limits, and of a start together."""
        self.budget.set_nodes(self.outlook.settings.nodes or self.nodes)
        self.engine.start_spread_seconds = start_spread_seconds(self.budget)

    def hear_joining(self, standing: Standing) -> None:
        """Let the first growth wait a while for what the cluster tells."""
        self.standing = standing
        self.engine.patient_until = self.clock().later(HEARING_SECONDS)

    def hear_standing(self, standing: Standing) -> None:
        """Take over how we stand with the API server."""
        self.standing = standing
        if standing.link is Link.AWAY:
            self.outlook.enter(Mode.API_AWAY, standing.sentence)
            self.engine.patient_until = None
            self.engine.wake()
        else:
            self.outlook.leave(Mode.API_AWAY)

    def hear_configs(
        self, configs: Sequence[Candidate] | None, trouble: str, notice: str = ""
    ) -> None:
        """Take over where ENIConfigs place new ENIs; None: nothing new is known.

        *trouble* is why one of them, or all, cannot be used; *notice* what one leaves out.
        """
        if trouble and trouble != self.config_trouble:
            log.warning("eniconfig not used", extra={"reason": trouble})
        if notice and notice != self.config_notice:
            log.warning("eniconfig without security groups", extra={"reason": notice})
        self.config_trouble, self.config_notice = trouble, notice
        if configs is not None and tuple(configs) != self.places.configs:
            self.places.set_configs(configs)
            self.engine.holdings.apply_terms()
            self.engine.wake()
